"""The whole cluster in virtual time: what is written, what happens over minutes and hours."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sampan.api.obj import Body, Obj
from sampan.apiserver.pages import obj_of
from sampan.lib.loop import run_virtual
from sampan.testing.world import World, takeover, world


def deployment(replicas: int = 3, image: str = "v1", **spec: Any) -> Body:
    return {
        "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, **spec,
            "template": {"metadata": {"labels": {"app": "web"}},
                         "spec": {"containers": [{"name": "c", "image": image}],
                                  "terminationGracePeriodSeconds": 5}},
        },
    }  # fmt: skip


def run(scenario: Callable[[World], Awaitable[Any]], *, nodes: int = 2, seed: int = 0) -> Any:
    async def main() -> Any:
        async with world(nodes=nodes, seed=seed) as w:
            return await scenario(w)

    return run_virtual(main())


async def until(what: Callable[[], Awaitable[bool]], *, seconds: float = 120.0) -> None:
    async with asyncio.timeout(seconds):
        while not await what():
            await asyncio.sleep(0.1)


async def complete(w: World) -> None:
    async def is_complete() -> bool:
        found = await w.client.get("deployments.apps", "web", "default")
        status, wanted = found.status, found.spec["replicas"]
        return status.get("observedGeneration") == found.meta["generation"] and all(
            status.get(k, 0) == wanted for k in ("replicas", "updatedReplicas", "availableReplicas")
        )

    await until(is_complete)
    await asyncio.sleep(1)


async def pods(w: World) -> list[Obj]:
    return (await w.client.list("pods", "default")).items


@pytest.mark.parametrize("replicas", [1, 3, 10, 50])
def test_a_deployment_costs_few_writes(replicas: int) -> None:
    """Three per pod (created, bound, running), and a handful for the ReplicaSet and the
    Deployment, however many pods there are."""

    async def scenario(w: World) -> None:
        since = w.store.revision
        await w.client.create("deployments.apps", deployment(replicas), "default")
        await complete(w)
        writes = w.writes(since)
        assert writes["pods"] == 3 * replicas
        # Made, and counted; made, its progress begun, complete. In virtual time the pods run at
        # one moment: pods that run one after the other are counted one after the other.
        assert writes["replicasets.apps"] == 2
        assert writes["deployments.apps"] == 3
        others = {"pods", "replicasets.apps", "deployments.apps", "events",
                  "leases.coordination.k8s.io"}  # fmt: skip
        assert set(writes) <= others

    run(scenario)


def test_a_settled_cluster_writes_only_its_leases() -> None:
    async def scenario(w: World) -> None:
        await w.client.create("deployments.apps", deployment(5), "default")
        await complete(w)
        await asyncio.sleep(60)
        since = w.store.revision
        await asyncio.sleep(240)
        assert set(w.writes(since)) <= {"leases.coordination.k8s.io", "nodes"}
        assert w.writes(since)["nodes"] <= 4

    run(scenario)


def test_a_rolling_update_keeps_its_bounds_and_pods_get_their_grace() -> None:
    async def scenario(w: World) -> None:
        strategy = {"type": "RollingUpdate",
                    "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}}  # fmt: skip
        await w.client.create("deployments.apps", deployment(6, strategy=strategy), "default")
        await complete(w)
        since = w.store.revision
        await w.client.patch(
            "deployments.apps", "web",
            {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "v2"}]}}}},
            "default", kind="strategic",
        )  # fmt: skip
        await complete(w)
        changes = [c for c in w.store.changes(since) if c.key.startswith("pods/")]
        state: dict[str, Obj] = {}
        for change in reversed(changes):  # as it was before the first of them
            state.pop(change.key, None)
            if change.previous is not None:
                state[change.key] = obj_of(change.previous)
        least, most = 6, 0
        for change in changes:
            state.pop(change.key, None)
            if change.record is not None:
                state[change.key] = obj_of(change.record)
            active = [o for o in state.values() if not o.is_deleting]
            most = max(most, len(active))
            least = min(least, sum(map(_is_ready, active)))
        assert len(changes) > 12
        assert most <= 7 and least >= 5
        assert {p.spec["containers"][0]["image"] for p in await pods(w)} == {"v2"}

    run(scenario)


def _is_ready(pod: Obj) -> bool:
    return any(
        c["type"] == "Ready" and c["status"] == "True" for c in pod.status.get("conditions") or ()
    )


def test_a_rollout_that_never_gets_ready_is_reported_after_ten_minutes() -> None:
    async def scenario(w: World) -> None:
        body = deployment(2)
        body["spec"]["template"]["spec"]["nodeSelector"] = {"no": "node"}
        await w.client.create("deployments.apps", body, "default")
        began = asyncio.get_running_loop().time()

        async def timed_out() -> bool:
            found = await w.client.get("deployments.apps", "web", "default")
            return any(
                c.get("reason") == "ProgressDeadlineExceeded"
                for c in found.status.get("conditions") or ()
            )

        await until(timed_out, seconds=700)
        assert 599 <= asyncio.get_running_loop().time() - began <= 640

    run(scenario)


def test_the_control_plane_may_be_replaced_at_any_time() -> None:
    """Another control plane over the same store goes on where the first one stopped."""

    async def scenario(w: World) -> None:
        await w.client.create("deployments.apps", deployment(3), "default")
        await complete(w)
        since = w.store.revision
        second = await takeover(w)
        await asyncio.sleep(30)
        assert "pods" not in w.writes(since)
        patch = {"spec": {"replicas": 5}}
        await w.client.patch("deployments.apps", "web", patch, "default")
        await complete(w)
        await second.stop()

    run(scenario)


def test_the_same_seed_makes_the_same_history() -> None:
    async def scenario(w: World) -> list[tuple[str, int]]:
        await w.client.create("deployments.apps", deployment(4), "default")
        await complete(w)
        await w.client.patch("deployments.apps", "web", {"spec": {"replicas": 2}}, "default")
        await complete(w)
        return [(c.key, c.revision) for c in w.store.changes(0)]

    assert run(scenario, seed=5) == run(scenario, seed=5)
    assert run(scenario, seed=5) != run(scenario, seed=6)
