"""StatefulSets and DaemonSets in a whole cluster and in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from sampan.api.obj import Body, Obj
from sampan.apiserver.pages import obj_of
from sampan.lib.loop import run_virtual
from sampan.testing.world import World, takeover, world

STS = "statefulsets.apps"
LEASES = {"leases.coordination.k8s.io", "nodes", "events"}


def template(image: str = "v1") -> Body:
    return {
        "metadata": {"labels": {"app": "web"}},
        "spec": {
            "containers": [{"name": "c", "image": image}], "terminationGracePeriodSeconds": 5,
        },
    }  # fmt: skip


def stateful_set(replicas: int = 3, **spec: Any) -> Body:
    return {
        "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas, "serviceName": "svc", "template": template(),
            "selector": {"matchLabels": {"app": "web"}}, **spec,
        },
    }  # fmt: skip


def run(scenario: Callable[[World], Awaitable[Any]], *, nodes: int = 2, seed: int = 0) -> Any:
    async def main() -> Any:
        async with world(nodes=nodes, seed=seed) as w:
            return await scenario(w)

    return run_virtual(main())


async def until(what: Callable[[], Awaitable[bool]], *, seconds: float = 300.0) -> None:
    async with asyncio.timeout(seconds):
        while not await what():
            await asyncio.sleep(0.1)


async def complete(w: World, replicas: int) -> Obj:
    async def is_complete() -> bool:
        s = await w.client.get(STS, "web", "default")
        status = s.status
        return (
            status.get("observedGeneration") == s.meta["generation"]
            and status.get("currentRevision") == status.get("updateRevision")
            and all(status.get(k, 0) == replicas for k in ("replicas", "availableReplicas"))
        )

    await until(is_complete)
    await asyncio.sleep(1)
    return await w.client.get(STS, "web", "default")


async def pods(w: World) -> list[Obj]:
    return (await w.client.list("pods", "default")).items


def histories(w: World, since: int) -> list[dict[str, Obj]]:
    """The pods after every change of a pod."""
    changes = [c for c in w.store.changes(since) if c.key.startswith("pods/")]
    state: dict[str, Obj] = {}
    for change in reversed(changes):
        state.pop(change.key, None)
        if change.previous is not None:
            state[change.key] = obj_of(change.previous)
    found = []
    for change in changes:
        state.pop(change.key, None)
        if change.record is not None:
            state[change.key] = obj_of(change.record)
        found.append(dict(state))
    return found


def is_ready(pod: Obj) -> bool:
    return not pod.is_deleting and any(
        c["type"] == "Ready" and c["status"] == "True" for c in pod.status.get("conditions") or ()
    )


def test_a_stateful_set_comes_up_in_order_and_then_rests() -> None:
    async def scenario(w: World) -> None:
        since = w.store.revision
        await w.client.create(STS, stateful_set(3), "default")
        await complete(w, 3)
        for state in histories(w, since):
            names = sorted(p.name for p in state.values())
            assert names == [f"web-{i}" for i in range(len(names))]
            assert all(is_ready(p) for p in state.values() if p.name != names[-1])
        writes = w.writes(since)
        assert writes["pods"] == 9
        assert writes[STS] <= 11
        assert writes["controllerrevisions.apps"] == 1
        since = w.store.revision
        await asyncio.sleep(240)
        assert set(w.writes(since)) <= LEASES - {"events"}

    run(scenario)


def test_a_rolling_update_and_its_rollback() -> None:
    async def scenario(w: World) -> None:
        await w.client.create(STS, stateful_set(3), "default")
        first = (await complete(w, 3)).status["currentRevision"]
        since = w.store.revision
        patch = {"spec": {"template": template("v2")}}
        await w.client.patch(STS, "web", patch, "default", kind="strategic")
        second = (await complete(w, 3)).status["currentRevision"]
        assert second != first
        for state in histories(w, since):
            assert sum(is_ready(p) for p in state.values()) >= 2
        assert {p.spec["containers"][0]["image"] for p in await pods(w)} == {"v2"}
        # As kubectl rollout undo does it: the revision's data is the patch.
        revision = await w.client.get("controllerrevisions.apps", first, "default")
        await w.client.patch(STS, "web", revision.body["data"], "default", kind="strategic")
        assert (await complete(w, 3)).status["currentRevision"] == first
        assert {p.spec["containers"][0]["image"] for p in await pods(w)} == {"v1"}

    run(scenario)


def test_a_stateful_set_survives_a_change_of_control_planes() -> None:
    async def scenario(w: World) -> None:
        await w.client.create(STS, stateful_set(2), "default")
        await complete(w, 2)
        since = w.store.revision
        second = await takeover(w)
        await asyncio.sleep(30)
        assert not {"pods", STS, "controllerrevisions.apps"} & set(w.writes(since))
        await w.client.patch(STS, "web", {"spec": {"replicas": 4}}, "default")
        await complete(w, 4)
        await second.stop()

    run(scenario)


def test_claims_go_with_scaling_and_deletion() -> None:
    async def scenario(w: World) -> None:
        claim = {
            "metadata": {"name": "data"},
            "spec": {"accessModes": ["ReadWriteOnce"],
                     "resources": {"requests": {"storage": "1Gi"}}},
        }  # fmt: skip
        body = stateful_set(
            2, volumeClaimTemplates=[claim], podManagementPolicy="Parallel",
            persistentVolumeClaimRetentionPolicy={"whenDeleted": "Delete", "whenScaled": "Delete"},
        )  # fmt: skip
        await w.client.create(STS, body, "default")

        async def names() -> list[str]:
            found = await w.client.list("persistentvolumeclaims", "default")
            return sorted(c.name for c in found.items if not c.is_deleting)

        async def both() -> bool:
            return await names() == ["data-web-0", "data-web-1"] and len(await pods(w)) == 2

        async def one() -> bool:
            return await names() == ["data-web-0"]

        async def none() -> bool:
            return await names() == [] and not await pods(w)

        await until(both)
        await w.client.patch(STS, "web", {"spec": {"replicas": 1}}, "default")
        await until(one)
        await w.client.delete(STS, "web", "default")
        await until(none)

    run(scenario)


def test_a_node_that_ends_a_pod_gets_it_again_under_the_same_name() -> None:
    async def scenario(w: World) -> None:
        await w.client.create(STS, stateful_set(2), "default")
        await complete(w, 2)
        before = {p.name: p.uid for p in await pods(w)}
        await w.client.delete("pods", "web-0", "default")

        async def back() -> bool:
            found = {p.name: p for p in await pods(w)}
            pod = found.get("web-0")
            return pod is not None and pod.uid != before["web-0"] and is_ready(pod)

        await until(back)
        assert {p.name: p.uid for p in await pods(w)}["web-1"] == before["web-1"]

    run(scenario)


DS = "daemonsets.apps"


def daemon_set(**spec: Any) -> Body:
    return {
        "metadata": {"name": "d"},
        "spec": {"template": template(), "selector": {"matchLabels": {"app": "web"}}, **spec},
    }


async def covered(w: World, nodes: int, image: str = "v1") -> None:
    async def is_covered() -> bool:
        d = await w.client.get(DS, "d", "default")
        images = {p.spec["containers"][0]["image"] for p in await pods(w)}
        return images == {image} and all(
            d.status.get(k, 0) == nodes
            for k in ("desiredNumberScheduled", "numberAvailable", "updatedNumberScheduled")
        )

    await until(is_covered)
    await asyncio.sleep(1)


def test_a_daemon_set_covers_every_node_also_those_that_join() -> None:
    async def scenario(w: World) -> None:
        since = w.store.revision
        await w.client.create(DS, daemon_set(), "default")
        await covered(w, 2)
        assert {p.spec["nodeName"] for p in await pods(w)} == {"n1", "n2"}
        writes = w.writes(since)
        assert writes["pods"] == 6 and writes["controllerrevisions.apps"] == 1
        await w.add_node("n3")
        await covered(w, 3)
        since = w.store.revision
        await asyncio.sleep(240)
        assert set(w.writes(since)) <= LEASES - {"events"}

    run(scenario)


def test_a_daemon_set_rolls_node_by_node_and_back() -> None:
    async def scenario(w: World) -> None:
        await w.client.create(DS, daemon_set(), "default")
        await covered(w, 3)
        (first,) = (await w.client.list("controllerrevisions.apps", "default")).items
        since = w.store.revision
        await w.client.patch(
            DS, "d", {"spec": {"template": template("v2")}}, "default", kind="strategic"
        )
        await covered(w, 3, "v2")
        for state in histories(w, since):
            assert sum(is_ready(p) for p in state.values()) >= 2
        await w.client.patch(DS, "d", first.body["data"], "default", kind="strategic")
        await covered(w, 3, "v1")
        found = (await w.client.list("controllerrevisions.apps", "default")).items
        assert {r.name: r.body["revision"] for r in found}[first.name] == 3

    run(scenario, nodes=3)


def test_a_surging_daemon_set_is_never_without_a_ready_pod() -> None:
    async def scenario(w: World) -> None:
        strategy = {"type": "RollingUpdate",
                    "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}  # fmt: skip
        await w.client.create(DS, daemon_set(updateStrategy=strategy), "default")
        await covered(w, 2)
        since = w.store.revision
        await w.client.patch(
            DS, "d", {"spec": {"template": template("v2")}}, "default", kind="strategic"
        )
        await covered(w, 2, "v2")
        states = histories(w, since)
        assert all(sum(is_ready(p) for p in s.values()) >= 2 for s in states)
        assert max(len([p for p in s.values() if not p.is_deleting]) for s in states) == 3

    run(scenario)


def test_tainted_nodes_are_left_alone() -> None:
    async def scenario(w: World) -> None:
        taint = {"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}}
        await w.client.patch("nodes", "n2", taint, kind="merge")
        await w.client.create(DS, daemon_set(), "default")
        await covered(w, 1)
        await w.client.patch("nodes", "n2", {"spec": {"taints": None}}, kind="merge")
        await covered(w, 2)

    run(scenario)
