"""Nodes that are lost, drained and deleted, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sampan.api.errors import StatusError
from sampan.api.obj import Body, Obj
from sampan.apiserver.pages import obj_of
from sampan.lib.loop import run_virtual
from sampan.testing.world import World, world

BUDGETS = "poddisruptionbudgets.policy"


def deployment(replicas: int, *, seconds: int | None = None) -> Body:
    spec: Body = {"containers": [{"name": "c", "image": "v1"}], "terminationGracePeriodSeconds": 5}
    if seconds is not None:
        spec["tolerations"] = [
            {"key": f"node.kubernetes.io/{k}", "operator": "Exists", "effect": "NoExecute",
             "tolerationSeconds": seconds} for k in ("not-ready", "unreachable")
        ]  # fmt: skip
    return {
        "metadata": {"name": "web"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
                 "template": {"metadata": {"labels": {"app": "web"}}, "spec": spec}},
    }  # fmt: skip


def run(scenario: Callable[[World], Awaitable[Any]], *, nodes: int = 3, seed: int = 0) -> Any:
    async def main() -> Any:
        async with world(nodes=nodes, seed=seed) as w:
            return await scenario(w)

    return run_virtual(main())


def is_ready(pod: Obj) -> bool:
    return not pod.is_deleting and any(
        c["type"] == "Ready" and c["status"] == "True" for c in pod.status.get("conditions") or ()
    )


async def pods(w: World) -> list[Obj]:
    return (await w.client.list("pods", "default")).items


async def settled(w: World, replicas: int) -> None:
    async with asyncio.timeout(300):
        while sum(map(is_ready, await pods(w))) < replicas:
            await asyncio.sleep(0.5)
    await asyncio.sleep(1)


async def ready_of(w: World, name: str) -> str:
    node = await w.client.get("nodes", name)
    return next(c["status"] for c in node.status["conditions"] if c["type"] == "Ready")


def taints(node: Obj) -> set[tuple[str, str]]:
    return {(t["key"].split("/")[1], t["effect"]) for t in node.spec.get("taints") or ()}


def test_a_lost_node_gives_up_its_pods() -> None:
    """Unknown after 50 s, pods not ready at once, taken away after their tolerance; and back."""

    async def scenario(w: World) -> None:
        await w.client.create("deployments.apps", deployment(6, seconds=60), "default")
        await settled(w, 6)
        lost = [p.name for p in await pods(w) if p.spec["nodeName"] == "n1"]
        assert lost
        await w.lose_node("n1")
        await asyncio.sleep(45)
        assert await ready_of(w, "n1") == "True"
        await asyncio.sleep(20)
        assert await ready_of(w, "n1") == "Unknown"
        node = await w.client.get("nodes", "n1")
        both = {("unreachable", "NoSchedule"), ("unreachable", "NoExecute")}
        assert taints(node) == both
        assert not any(is_ready(p) for p in await pods(w) if p.name in lost)
        await asyncio.sleep(70)
        gone = [p for p in await pods(w) if p.name in lost]
        assert all(p.is_deleting for p in gone) and len(gone) == len(lost)
        assert sum(map(is_ready, await pods(w))) == 6
        await w.return_node("n1")
        await asyncio.sleep(30)
        assert await ready_of(w, "n1") == "True"
        assert taints(await w.client.get("nodes", "n1")) == set()
        assert len(await pods(w)) == 6
        events = (await w.client.list("events", "default")).items
        reasons = {e.body["reason"] for e in events}
        assert {"NodeNotReady", "TaintManagerEviction"} <= reasons

    run(scenario)


def test_a_cluster_whose_nodes_are_all_silent_evicts_nothing() -> None:
    async def scenario(w: World) -> None:
        await w.client.create("deployments.apps", deployment(4, seconds=30), "default")
        await settled(w, 4)
        for name in ("n1", "n2"):
            await w.lose_node(name)
        await asyncio.sleep(600)
        assert await ready_of(w, "n1") == "Unknown"
        assert not any(p.is_deleting for p in await pods(w))
        for name in ("n1", "n2"):
            await w.return_node(name)
        await settled(w, 4)

    run(scenario, nodes=2)


def test_a_deleted_node_leaves_no_pods() -> None:
    async def scenario(w: World) -> None:
        await w.client.create("deployments.apps", deployment(6), "default")
        await settled(w, 6)
        await w.lose_node("n1")
        await w.client.delete("nodes", "n1")
        await asyncio.sleep(60)
        found = await pods(w)
        assert {p.spec["nodeName"] for p in found} == {"n2", "n3"}
        assert len(found) == 6
        assert (await w.client.list("leases.coordination.k8s.io", "kube-node-lease")).items
        leases = (await w.client.list("leases.coordination.k8s.io", "kube-node-lease")).items
        assert "n1" not in {o.name for o in leases}

    run(scenario)


async def drain(w: World, name: str, *, seconds: float = 600) -> None:
    """As kubectl does: cordon, then evict until nothing is left, coming back after refusals."""
    await w.client.patch("nodes", name, {"spec": {"unschedulable": True}})
    async with asyncio.timeout(seconds):
        while True:
            left = [p for p in await pods(w) if p.spec.get("nodeName") == name]
            if not left:
                return
            for p in left:
                body = {"kind": "Eviction", "metadata": {"name": p.name}}
                try:
                    await w.client.create(
                        "pods", body, "default", name=p.name, subresource="eviction"
                    )
                except StatusError as e:
                    assert e.code in (404, 429)
            await asyncio.sleep(5)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("spec", "least"), [({"minAvailable": 4}, 4), ({"maxUnavailable": 1}, 4),
                        ({"minAvailable": "80%"}, 4)],
)  # fmt: skip
def test_a_drain_never_breaks_a_budget(spec: Body, least: int, seed: int) -> None:
    """Two nodes, one after the other, or (the last seed) both at once."""

    async def scenario(w: World) -> None:
        budget = {"metadata": {"name": "web"},
                  "spec": {"selector": {"matchLabels": {"app": "web"}}, **spec}}  # fmt: skip
        await w.client.create(BUDGETS, budget, "default")
        await w.client.create("deployments.apps", deployment(5), "default")
        await settled(w, 5)
        await asyncio.sleep(5)
        since = w.store.revision
        before = {f"pods/default/{p.name}": p for p in await pods(w)}
        names = ["n1", "n2", "n3"][seed % 3 :] + ["n1", "n2", "n3"][: seed % 3]
        if seed == 3:
            await asyncio.gather(drain(w, names[0]), drain(w, names[1]))
        else:
            await drain(w, names[0])
            await w.client.patch("nodes", names[0], {"spec": {"unschedulable": False}})
            await drain(w, names[1])
        await settled(w, 5)
        state = dict(before)
        fewest = 5
        for change in w.store.changes(since):
            if not change.key.startswith("pods/"):
                continue
            state.pop(change.key, None)
            if change.record is not None:
                state[change.key] = obj_of(change.record)
            fewest = min(fewest, sum(map(is_ready, state.values())))
        assert fewest >= least
        found = await w.client.get(BUDGETS, "web", "default")
        assert found.status["currentHealthy"] == 5
        assert not found.status.get("disruptedPods")

    run(scenario, seed=seed)


def test_a_settled_cluster_with_budgets_writes_nothing() -> None:
    async def scenario(w: World) -> None:
        selector = {"matchLabels": {"app": "web"}}
        budget = {"metadata": {"name": "web"}, "spec": {"selector": selector, "minAvailable": 2}}
        await w.client.create(BUDGETS, budget, "default")
        await w.client.create("deployments.apps", deployment(3), "default")
        await settled(w, 3)
        await asyncio.sleep(60)
        since = w.store.revision
        await asyncio.sleep(240)
        assert set(w.writes(since)) <= {"leases.coordination.k8s.io", "nodes"}

    run(scenario)
