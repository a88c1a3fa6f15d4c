"""Scheduling in a whole cluster and in virtual time: gates, waiting and waking, preemption."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from sampan.api.obj import Body, Obj
from sampan.lib.loop import run_virtual
from sampan.node.runtime.fake import Behaviour
from sampan.testing.world import World, takeover, world

HOSTNAME = "kubernetes.io/hostname"
BUDGETS = "poddisruptionbudgets.policy"


def run(scenario: Callable[[World], Awaitable[Any]], *, nodes: int = 2, seed: int = 0) -> Any:
    async def main() -> Any:
        async with world(nodes=nodes, seed=seed) as w:
            return await scenario(w)

    return run_virtual(main())


def pod(name: str, *, cpu: str = "", labels: dict[str, str] | None = None, **spec: Any) -> Body:
    container: Body = {"name": "c", "image": "v1"}
    if cpu:
        container["resources"] = {"requests": {"cpu": cpu}}
    return {
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 5, **spec},
    }  # fmt: skip


async def create(w: World, *bodies: Body) -> None:
    for body in bodies:
        await w.client.create("pods", body, "default")


async def classes(w: World) -> None:
    for name, value, policy in (
        ("high", 1000, "PreemptLowerPriority"), ("patient", 1000, "Never"),
    ):  # fmt: skip
        body = {"metadata": {"name": name}, "value": value, "preemptionPolicy": policy}
        await w.client.create("priorityclasses.scheduling.k8s.io", body)


async def get(w: World, name: str) -> Obj:
    return await w.client.get("pods", name, "default")


def slow(w: World, seconds: float) -> None:
    """Containers made from now on take so long to stop."""
    for runtime in w.runtimes.values():
        runtime.behaviours["v1"] = Behaviour(stop_delay=seconds)


def condition(found: Obj, type: str = "PodScheduled") -> Body:
    held: Body = next((c for c in found.status.get("conditions", ()) if c["type"] == type), {})
    return held


async def running(w: World, name: str, *, seconds: float = 60.0) -> Obj:
    async with asyncio.timeout(seconds):
        while (found := await get(w, name)).status.get("phase") != "Running":
            await asyncio.sleep(0.1)
    return found


async def events(w: World, name: str, reason: str) -> list[str]:
    found = (await w.client.list("events", "default")).items
    return [
        e.body["message"] for e in found
        if e.body["reason"] == reason and e.body["involvedObject"]["name"] == name
    ]  # fmt: skip


def test_a_gated_pod_waits_for_its_last_gate() -> None:
    async def scenario(w: World) -> None:
        await create(w, pod("g", schedulingGates=[{"name": "a.io/x"}, {"name": "a.io/y"}]))
        await asyncio.sleep(600)
        found = await get(w, "g")
        assert "nodeName" not in found.spec
        assert condition(found)["reason"] == "SchedulingGated"
        assert await events(w, "g", "FailedScheduling") == []
        for gates in ([{"name": "a.io/y"}], []):
            found = await get(w, "g")
            spec = {**found.spec, "schedulingGates": gates}
            await w.client.update("pods", {**found.body, "spec": spec})
            await asyncio.sleep(5)
        assert condition(await running(w, "g"))["status"] == "True"

    run(scenario)


def test_a_pod_that_fits_nowhere_says_why_and_comes_when_a_node_does() -> None:
    async def scenario(w: World) -> None:
        await create(w, pod("p", nodeSelector={HOSTNAME: "n3"}))
        await asyncio.sleep(2)
        found = await get(w, "p")
        told = condition(found)
        assert (told["status"], told["reason"]) == ("False", "Unschedulable")
        assert told["message"] == (
            "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector. "
            "preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
        )
        assert await events(w, "p", "FailedScheduling") == [told["message"]]
        # It waits without a word: no event that cannot help wakes it.
        since = w.store.revision
        await create(w, pod("other"))
        await asyncio.sleep(250)
        assert (await get(w, "p")).revision == found.revision
        assert w.writes(since)["events"] <= 10
        await w.add_node("n3")
        assert (await running(w, "p", seconds=15)).spec["nodeName"] == "n3"

    run(scenario)


def test_spreading_and_affinity_of_a_deployment() -> None:
    async def scenario(w: World) -> None:
        labels = {"app": "web"}
        rule = {"maxSkew": 1, "topologyKey": HOSTNAME, "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": {"matchLabels": labels}}  # fmt: skip
        template = pod("", labels=labels, topologySpreadConstraints=[rule])
        body = {"metadata": {"name": "web"}, "spec": {
            "replicas": 5, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": template["spec"]}}}  # fmt: skip
        await w.client.create("deployments.apps", body, "default")
        await asyncio.sleep(20)
        where = [p.spec["nodeName"] for p in (await w.client.list("pods", "default")).items]
        assert sorted(where.count(n) for n in ("n1", "n2")) == [2, 3]
        apart = {
            "podAntiAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [
                    {"topologyKey": HOSTNAME, "labelSelector": {"matchLabels": {"app": "lone"}}}
                ]
            }
        }
        await create(w, *(pod(f"lone{i}", labels={"app": "lone"}, affinity=apart)
                          for i in range(3)))  # fmt: skip
        await asyncio.sleep(10)
        lone = [(await get(w, f"lone{i}")).spec.get("nodeName") for i in range(3)]
        assert sorted(str(n) for n in lone) == ["None", "n1", "n2"]
        waiting = f"lone{lone.index(None)}"
        told = condition(await get(w, waiting))["message"]
        assert told == (
            "0/2 nodes are available: 2 node(s) didn't match pod anti-affinity rules. "
            "preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod."
        )
        await w.client.delete("pods", f"lone{lone.index('n1')}", "default")
        assert (await running(w, waiting)).spec["nodeName"] == "n1"

    run(scenario)


def test_room_is_made_for_the_important() -> None:
    async def scenario(w: World) -> None:
        await classes(w)
        slow(w, 4)
        await create(w, pod("a", cpu="6"), pod("b", cpu="6", labels={"app": "kept"}))
        for name in ("a", "b"):
            await running(w, name)
        if any(t.resource == BUDGETS for t in w.plane.registry):
            budget = {"metadata": {"name": "kept"}, "spec": {
                "minAvailable": 1, "selector": {"matchLabels": {"app": "kept"}}}}  # fmt: skip
            await w.client.create(BUDGETS, budget, "default")
        await create(w, pod("never", cpu="4", priorityClassName="patient"))
        await asyncio.sleep(3)
        told = condition(await get(w, "never"))["message"]
        assert told == (
            "0/2 nodes are available: 2 Insufficient cpu. "
            "preemption: not eligible due to preemptionPolicy=Never."
        )
        await w.client.delete("pods", "never", "default")
        await create(w, pod("top", cpu="4", priorityClassName="high"))
        await asyncio.sleep(1)
        top = await get(w, "top")
        node = top.status["nominatedNodeName"]
        where = {(await get(w, n)).spec["nodeName"]: n for n in ("a", "b")}
        victim = where[node]
        going = await get(w, victim)
        assert going.is_deleting
        told = condition(going, "DisruptionTarget")
        assert (told["status"], told["reason"]) == ("True", "PreemptionByScheduler")
        assert told["message"] == (
            "default-scheduler: preempting to accommodate a higher priority pod"
        )
        assert await events(w, victim, "Preempted") == [
            f"Preempted by pod {top.uid} on node {node}"
        ]
        # While the victim is going, its room is kept from those who are less important.
        await create(w, pod("late", cpu="5"))
        top = await running(w, "top")
        assert top.spec["nodeName"] == node
        assert "nodeName" not in (await get(w, "late")).spec

    run(scenario)


def test_another_scheduler_goes_on_where_one_stopped() -> None:
    async def scenario(w: World) -> None:
        await classes(w)
        slow(w, 20)
        await create(w, pod("a", cpu="6", terminationGracePeriodSeconds=30),
                     pod("b", cpu="6", terminationGracePeriodSeconds=30))  # fmt: skip
        for name in ("a", "b"):
            await running(w, name)
        await create(w, pod("top", cpu="4", priorityClassName="high"), pod("low", cpu="5"))
        await asyncio.sleep(1)
        node = (await get(w, "top")).status["nominatedNodeName"]
        plane = await takeover(w)
        assert (await running(w, "top", seconds=120)).spec["nodeName"] == node
        assert "nodeName" not in (await get(w, "low")).spec
        await plane.stop()

    run(scenario)


def test_one_seed_one_history() -> None:
    async def scenario(w: World) -> list[str]:
        await create(w, *(pod(f"p{i}", cpu="1") for i in range(8)))
        await asyncio.sleep(10)
        return [(await get(w, f"p{i}")).spec["nodeName"] for i in range(8)]

    assert run(scenario, nodes=4, seed=3) == run(scenario, nodes=4, seed=3)
