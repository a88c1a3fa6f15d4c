"""Resources of a pod as a whole, and the names of resources a container may ask for."""

from __future__ import annotations

from typing import Any

import pytest

from sampan.api.catalogue import builtin

RULES = builtin().get("pods").rules


def pod(whole: dict[str, Any] | None, *containers: dict[str, Any]) -> dict[str, Any]:
    body = {
        "metadata": {"name": "p", "namespace": "default"},
        "spec": {"containers": [{"name": f"c{i}", "image": "x", "resources": r}
                                for i, r in enumerate(containers or ({},))]},
    }  # fmt: skip
    if whole is not None:
        body["spec"]["resources"] = whole
    RULES.default(body)
    RULES.prepare_create(body)
    return body


def problems(body: dict[str, Any]) -> list[str]:
    return [str(c) for c in RULES.validate(body)]


@pytest.mark.parametrize(
    ("whole", "containers", "requests"),
    [
        ({"limits": {"cpu": "2"}}, [{}], {"cpu": "2"}),
        ({"limits": {"cpu": "2", "memory": "1Gi"}},
         [{"requests": {"cpu": "500m"}}, {"limits": {"cpu": "250m"}}],
         {"cpu": "750m", "memory": "1Gi"}),
        ({"limits": {"cpu": "2"}, "requests": {"cpu": "1"}}, [{"requests": {"cpu": "1"}}],
         {"cpu": "1"}),
        ({"requests": {"memory": "1Gi"}}, [{"requests": {"cpu": "1"}}], {"memory": "1Gi"}),
        ({"limits": {"cpu": "2"}}, [{"requests": {"memory": "1Mi"}}],
         {"cpu": "2", "memory": "1Mi"}),
    ],
)  # fmt: skip
def test_requests_of_the_whole_come_of_containers_then_of_limits(whole, containers, requests):
    body = pod(whole, *containers)
    assert body["spec"]["resources"]["requests"] == requests
    assert problems(body) == []


AT = "spec.resources"


@pytest.mark.parametrize(
    ("whole", "container", "expected"),
    [
        ({"requests": {"cpu": "1"}}, {"requests": {"cpu": "1500m"}},
         [f'{AT}.requests[cpu]: Invalid value: "1": must be greater than or equal to aggregate '
          "container requests of 1500m"]),
        ({"limits": {"memory": "1Gi"}}, {"limits": {"memory": "2Gi"}, "requests": {"memory": "1"}},
         [f'{AT}.containers[0][memory].limits: Invalid value: "2Gi": must be less than or equal to '
          "pod limits of 1Gi"]),
        ({"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}, {},
         [f'{AT}.requests: Invalid value: "2": must be less than or equal to cpu limit of 1']),
    ],
)  # fmt: skip
def test_the_whole_covers_its_parts(whole, container, expected):
    assert problems(pod(whole, container)) == expected


CONTAINER = "spec.containers[0].resources"


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({"requests": {"foo": "1"}},
         [f'{CONTAINER}.requests[foo]: Invalid value: "foo": must be a standard resource type or '
          "fully qualified",
          f'{CONTAINER}.requests[foo]: Invalid value: "foo": must be a standard resource for '
          "containers"]),
        ({"requests": {"pods": "1"}},
         [f'{CONTAINER}.requests[pods]: Invalid value: "pods": must be a standard resource for '
          "containers"]),
        ({"limits": {"hugepages-2Mi": "2Mi"}, "requests": {"hugepages-2Mi": "2Mi"}},
         [f"{CONTAINER}: Forbidden: HugePages require cpu or memory"]),
        ({"limits": {"hugepages-2Mi": "3Mi", "cpu": "1"}, "requests": {"hugepages-2Mi": "3Mi"}},
         [f'{CONTAINER}.{kind}[hugepages-2Mi]: Invalid value: "3Mi": 3Mi is not positive integer '
          "multiple of hugepages-2Mi" for kind in ("limits", "requests")]),
        ({"limits": {"hugepages-2Mi": "4Mi", "cpu": "1"}, "requests": {"hugepages-2Mi": "4Mi"}},
         []),
    ],
)  # fmt: skip
def test_what_a_container_may_ask_for(resources, expected):
    assert problems(pod(None, resources)) == expected
