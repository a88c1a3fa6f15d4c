"""``pods/resize``: what may change of a running pod, and what it holds meanwhile."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from sampan.api.catalogue import builtin
from sampan.api.resizing import held_spec

RULES = builtin().get("pods").rules
PART = RULES.parts["resize"]
CPU_ONLY = "spec: Forbidden: only cpu and memory resources are mutable"


def pod(*containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    body = {
        "metadata": {"name": "p", "namespace": "default"},
        "spec": {"containers": [{"name": f"c{i}", "image": "x", **c}
                                for i, c in enumerate(containers or ({},))], **spec},
    }  # fmt: skip
    RULES.default(body)
    RULES.prepare_create(body)
    return body


def amounts(requests: dict[str, str], **limits: str) -> dict[str, Any]:
    return {"resources": {"requests": requests, **({"limits": limits} if limits else {})}}


def resized(old: dict[str, Any], edit: Any) -> tuple[dict[str, Any], list[str]]:
    sent = copy.deepcopy(old)
    edit(sent["spec"])
    new = copy.deepcopy(old)
    PART.take(sent, new)
    RULES.default(new)
    return new, [str(c) for c in PART.validate(new, old)]


def put(which: str, name: str, value: str | None, index: int = 0, kind: str = "containers") -> Any:
    def edit(spec: dict[str, Any]) -> None:
        held = spec[kind][index].setdefault("resources", {}).setdefault(which, {})
        if value is None:
            del held[name]
        else:
            held[name] = value

    return edit


BURSTABLE = pod(amounts({"cpu": "100m", "memory": "64Mi"}, cpu="200m", memory="128Mi"))


@pytest.mark.parametrize(
    ("which", "name", "value"),
    [("requests", "cpu", "150m"), ("limits", "cpu", "1"), ("requests", "memory", "1Mi"),
     ("limits", "memory", "65Mi"), ("limits", "memory", "1Gi")],
)  # fmt: skip
def test_cpu_and_memory_change(which, name, value):
    new, problems = resized(BURSTABLE, put(which, name, value))
    assert problems == []
    assert new["spec"]["containers"][0]["resources"][which][name] == value


def test_nothing_else_of_what_is_sent_is_taken():
    def edit(spec: dict[str, Any]) -> None:
        spec["containers"][0]["image"] = "other"
        spec["containers"][0]["env"] = [{"name": "A", "value": "b"}]
        spec["activeDeadlineSeconds"] = 5
        put("requests", "cpu", "120m")(spec)

    new, problems = resized(BURSTABLE, edit)
    assert problems == []
    assert new["spec"]["containers"][0]["image"] == "x"
    assert "env" not in new["spec"]["containers"][0]
    assert "activeDeadlineSeconds" not in new["spec"]


@pytest.mark.parametrize(
    ("old", "edit", "problems"),
    [
        (BURSTABLE, put("requests", "cpu", "300m"),
         ['spec.containers[0].resources.requests: Invalid value: "300m": must be less than or '
          "equal to cpu limit of 200m"]),
        (BURSTABLE, put("limits", "memory", None),
         ["spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed"]),
        (pod(amounts({"cpu": "1", "memory": "1Mi"})), put("requests", "memory", None),
         ["spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed"]),
        (pod(), put("requests", "memory", "1Mi"),
         ['spec: Invalid value: "BestEffort": Pod QOS Class may not change as a result of '
          "resizing"]),
        (pod(amounts({"cpu": "1", "memory": "1Mi"}, cpu="1", memory="1Mi")),
         put("limits", "memory", "2Mi"),
         ['spec: Invalid value: "Guaranteed": Pod QOS Class may not change as a result of '
          "resizing"]),
        (pod(amounts({"cpu": "1", "ephemeral-storage": "1"})),
         put("requests", "ephemeral-storage", "3"), [CPU_ONLY]),
        (pod(amounts({"cpu": "1"}), amounts({"cpu": "1"})),
         lambda spec: spec["containers"].reverse(),
         [f"spec.containers[{i}].name: Forbidden: containers may not be renamed or reordered on "
          "resize" for i in (0, 1)]),
        (pod(amounts({"cpu": "1"})),
         lambda spec: spec["containers"].append({"name": "d", "image": "x"}),
         ["spec.containers: Forbidden: containers may not be added or removed on resize"]),
        (pod(amounts({"cpu": "1"})),
         lambda spec: spec["containers"][0].update(
             resizePolicy=[{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]),
         [CPU_ONLY]),
        (pod(amounts({"cpu": "1"}), initContainers=[{"name": "i", "image": "x",
                                                     **amounts({"cpu": "1"})}]),
         put("requests", "cpu", "2", kind="initContainers"),
         ["spec: Forbidden: resources for non-sidecar init containers are immutable"]),
        (pod(amounts({"cpu": "1"}), os={"name": "windows"}), put("requests", "cpu", "2"),
         [": Forbidden: windows pods cannot be resized"]),
    ],
)  # fmt: skip
def test_what_is_refused(old, edit, problems):
    _, found = resized(old, edit)
    assert found == problems


def test_a_sidecar_is_resized():
    old = pod(
        amounts({"cpu": "1"}),
        initContainers=[
            {"name": "s", "image": "x", "restartPolicy": "Always", **amounts({"cpu": "1"})}
        ],
    )
    assert resized(old, put("requests", "cpu", "2", kind="initContainers"))[1] == []
    _, problems = resized(old, put("requests", "ephemeral-storage", "2", kind="initContainers"))
    assert problems == [
        "spec: Forbidden: only cpu and memory resources for sidecar containers are mutable"
    ]


def test_a_node_that_tells_no_resources_does_not_resize():
    old = copy.deepcopy(BURSTABLE)
    old["status"]["containerStatuses"] = [{"name": "c0", "state": {"running": {}}}]
    _, problems = resized(old, put("requests", "cpu", "150m"))
    assert problems == ["spec: Forbidden: Pod running on node without support for resize"]


def held(asked: str, allocated: str, actual: str, reason: str = "") -> str:
    body = pod(amounts({"cpu": asked}))
    body["status"]["containerStatuses"] = [
        {"name": "c0", "allocatedResources": {"cpu": allocated},
         "resources": {"requests": {"cpu": actual}}}
    ]  # fmt: skip
    if reason:
        body["status"]["conditions"] = [{"type": "PodResizePending", "reason": reason}]
    return str(held_spec(body)["containers"][0]["resources"]["requests"]["cpu"])


@pytest.mark.parametrize(
    ("asked", "allocated", "actual", "reason", "expected"),
    [
        ("1", "1", "1", "", "1"),
        ("2", "1", "1", "", "2"),  # growing: what is asked for is kept free
        ("1", "1", "2", "", "2"),  # shrinking: what is in force is still taken
        ("1", "2", "2", "", "2"),
        ("9", "2", "1", "Deferred", "9"),
        ("9", "2", "1", "Infeasible", "2"),
    ],
)
def test_what_a_pod_holds_while_it_is_resized(asked, allocated, actual, reason, expected):
    assert held(asked, allocated, actual, reason) == expected


def test_a_pod_at_rest_is_its_spec():
    body = copy.deepcopy(BURSTABLE)
    assert held_spec(body) is body["spec"]
    resources = body["spec"]["containers"][0]["resources"]
    body["status"]["containerStatuses"] = [
        {"name": "c0", "resources": resources, "allocatedResources": resources["requests"]}
    ]
    assert held_spec(body) is body["spec"]
