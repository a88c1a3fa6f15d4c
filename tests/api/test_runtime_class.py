"""RuntimeClass: its faults, and what it does to pods that are created."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sampan.api.catalogue import builtin
from sampan.api.errors import StatusError
from sampan.api.obj import Body
from sampan.apiserver.runtime_class_admission import covers, merged
from sampan.client.base import Client
from sampan.testing.api import api_server, client_of

RESOURCE = "runtimeclasses.node.k8s.io"
KIND = builtin().get(RESOURCE)
assert KIND is not None


def made(name: str = "slow", handler: str = "runc", **more: Any) -> Body:
    return {"metadata": {"name": name}, "handler": handler, **more}


def test_columns_and_defaults() -> None:
    body = made(overhead={"podFixed": {"cpu": "0.25", "memory": "120Mi"}})
    KIND.rules.default(body)
    assert body["overhead"]["podFixed"] == {"cpu": "250m", "memory": "120Mi"}
    assert [c.cell(body, 0.0) for c in KIND.columns[:2]] == ["slow", "runc"]
    assert [c.name for c in KIND.columns] == ["Name", "Handler", "Age"]


LABEL = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and "
    "must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used "
    "for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (made(), []),
        (made(handler="My_runtime"), [f'handler: Invalid value: "My_runtime": {LABEL}']),
        (made(handler=""), [f'handler: Invalid value: "": {LABEL}']),
        (made(overhead={"podFixed": {"cpu": "-1"}}), [
            'overhead.limits[cpu]: Invalid value: "-1": must be greater than or equal to 0']),
        (made(scheduling={"tolerations": [{"operator": "Equal", "value": "v"}]}), [
            'scheduling.tolerations[0].operator: Invalid value: "Equal": operator must be Exists '
            "when `key` is empty, which means \"match all values and all keys\""]),
        (made(scheduling={"nodeSelector": {"a": "-"}}), [
            "scheduling.nodeSelector: Invalid value: \"-\": a valid label must be an empty string "
            "or consist of alphanumeric characters, '-', '_' or '.', and must start and end with "
            "an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used "
            "for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"]),
    ],
)  # fmt: skip
def test_faults(body: Body, expected: list[str]) -> None:
    assert [str(c) for c in KIND.rules.validate(body)] == expected


def test_the_handler_stays() -> None:
    (cause,) = KIND.rules.validate_update(made(handler="crun"), made())
    assert str(cause) == 'handler: Invalid value: "crun": field is immutable'
    assert KIND.rules.validate_update(made(), made()) == []


# ---- pods --------------------------------------------------------------------------------------


def run(scenario: Callable[[Client], Awaitable[None]]) -> None:
    async def main() -> None:
        api = await api_server()
        client = client_of(api)
        await client.create("serviceaccounts", {"metadata": {"name": "default"}}, "default")
        await scenario(client)
        await api.authorizer.stop()

    asyncio.run(main())


def pod(**spec: Any) -> Body:
    containers = [{"name": "c", "image": "i"}]
    return {"metadata": {"name": "p"}, "spec": {"containers": containers, **spec}}


async def refused(client: Client, body: Body) -> str:
    with pytest.raises(StatusError) as e:
        await client.create("pods", body, "default")
    assert e.value.code == 403
    return e.value.message


def test_a_pod_of_a_class_gets_its_cost_and_its_place() -> None:
    async def scenario(client: Client) -> None:
        await client.create(RESOURCE, made(
            overhead={"podFixed": {"cpu": "250m"}},
            scheduling={"nodeSelector": {"pool": "slow"},
                        "tolerations": [{"key": "slow", "operator": "Exists"}]},
        ))  # fmt: skip
        given = pod(
            runtimeClassName="slow", nodeSelector={"zone": "a"},
            tolerations=[{"key": "slow", "operator": "Equal", "value": "x"}],
        )  # fmt: skip
        spec = (await client.create("pods", given, "default")).spec
        assert spec["overhead"] == {"cpu": "250m"}
        assert spec["nodeSelector"] == {"zone": "a", "pool": "slow"}
        kept = [t for t in spec["tolerations"] if t["key"] == "slow"]
        assert kept == [{"key": "slow", "operator": "Exists"}]
        assert await refused(client, pod(runtimeClassName="slow", nodeSelector={"pool": "b"})) == (
            'pods "p" is forbidden: conflict: runtimeClass.scheduling.nodeSelector[pool] = slow; '
            "pod.spec.nodeSelector[pool] = b"
        )
        said = await refused(client, pod(runtimeClassName="slow", overhead={"cpu": "1"}))
        assert said == (
            "pods \"p\" is forbidden: pod rejected: Pod's Overhead doesn't match RuntimeClass's "
            "defined Overhead"
        )
        same = pod(runtimeClassName="slow", overhead={"cpu": "0.25"})
        same["metadata"]["name"] = "q"
        await client.create("pods", same, "default")

    run(scenario)


def test_pods_that_are_rejected() -> None:
    async def scenario(client: Client) -> None:
        assert await refused(client, pod(runtimeClassName="none")) == (
            'pods "p" is forbidden: pod rejected: RuntimeClass "none" not found'
        )
        without = "Pod Overhead set without corresponding RuntimeClass defined Overhead"
        expected = f'pods "p" is forbidden: pod rejected: {without}'
        assert await refused(client, pod(overhead={"cpu": "1"})) == expected
        await client.create(RESOURCE, made())
        bad = pod(runtimeClassName="slow", overhead={"cpu": "1"})
        assert await refused(client, bad) == expected
        fine = await client.create("pods", pod(runtimeClassName="slow"), "default")
        assert "overhead" not in fine.spec and "nodeSelector" not in fine.spec

    run(scenario)


ANY: Body = {"operator": "Exists"}
KEY: Body = {"key": "k", "operator": "Exists"}
FIVE: Body = {"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}
NINE: Body = {**FIVE, "tolerationSeconds": 9}
EVER: Body = {"key": "k", "operator": "Exists", "effect": "NoExecute"}
VALUE: Body = {"key": "k", "value": "v", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    ("wide", "narrow", "expected"),
    [
        (ANY, KEY, True), (KEY, ANY, False), (KEY, VALUE, True), (VALUE, KEY, False),
        (NINE, FIVE, True), (FIVE, NINE, False), (FIVE, EVER, False), (EVER, FIVE, True),
        (EVER, VALUE, False), (VALUE, {**VALUE, "operator": "Equal"}, True),
        (VALUE, {**VALUE, "value": "w"}, False),
    ],
)  # fmt: skip
def test_what_one_toleration_covers(wide: Body, narrow: Body, expected: bool) -> None:
    assert covers(wide, narrow) is expected


def test_tolerations_of_both_without_those_that_are_covered() -> None:
    assert merged([VALUE, FIVE], [NINE, KEY]) == [KEY]
    assert merged([VALUE], [FIVE]) == [VALUE, FIVE]
    assert merged([VALUE], [VALUE]) == [VALUE]
    assert merged([], []) == []
