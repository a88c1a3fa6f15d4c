"""Filters against a plain reference, decisions, events, and no node overcommitted."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.api.errors import StatusError
from sampan.api.obj import Body, Key, Obj
from sampan.client.cache import Caches
from sampan.control.placement import tolerates
from sampan.lib.clock import RealClock
from sampan.scheduler.cycle import Cycle, NoFit
from sampan.scheduler.framework import PodInfo, pod_requests
from sampan.scheduler.plugins import Means, default_profile
from sampan.scheduler.scheduler import Scheduler
from sampan.scheduler.snapshot import Snapshot
from sampan.testing.api import api_server, client_of


def node(name: str, *, cpu: str = "2", pods: str = "10", **spec: Any) -> Obj:
    labels = spec.pop("labels", {})
    sizes = {"cpu": cpu, "memory": "4Gi", "pods": pods}
    body = {
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels},
        "spec": spec, "status": {"allocatable": sizes, "capacity": sizes},
    }  # fmt: skip
    return Obj.of(Key("nodes", "", name), body, 1)


def pod(name: str = "p", *, cpu: str = "", **spec: Any) -> Obj:
    container: Body = {"name": "c", "image": "i"}
    if cpu:
        container["resources"] = {"requests": {"cpu": cpu}}
    if "hostPort" in spec:
        port = spec.pop("hostPort")
        container["ports"] = [{"containerPort": port, "hostPort": port, "protocol": "TCP"}]
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default",
            "uid": name}, "spec": {"containers": [container], **spec}}  # fmt: skip
    return Obj.of(Key("pods", "default", name), body, 1)


class NoCaches:
    """Of a cluster without anything but nodes and pods."""

    def __getitem__(self, resource: str) -> Any:
        raise AssertionError(resource)


_NOBODY: Any = None
_EMPTY: Any = NoCaches()
PROFILE = default_profile(Means(_NOBODY, _EMPTY, RealClock(), random.Random(1), ()))


def verdict(p: Obj, n: Obj, *others: Obj) -> str:
    view = Snapshot()
    view.set_node(n)
    for other in others:
        view.place(PodInfo.of(other), n.name)
    found = Cycle(view, PROFILE, random.Random(1)).decide(PodInfo.of(p))
    if not isinstance(found, NoFit):
        return ""
    return next((r.reason for r in found.rejected.values()), found.otherwise)


TAINT = {"key": "dedicated", "value": "db", "effect": "NoSchedule"}
IN_ZONE = {"key": "zone", "operator": "In", "values": ["a"]}


def required(*terms: Body) -> Body:
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": list(terms)}}}  # fmt: skip


@pytest.mark.parametrize(
    ("p", "n", "others", "reason"),
    [
        (pod(), node("n"), (), ""),
        (pod(), node("n", unschedulable=True), (), "node(s) were unschedulable"),
        (pod(), node("n", taints=[TAINT]), (), "node(s) had untolerated taint(s)"),
        (pod(tolerations=[{"key": "dedicated", "operator": "Exists"}]),
         node("n", taints=[TAINT]), (), ""),
        (pod(nodeSelector={"zone": "b"}), node("n", labels={"zone": "a"}), (),
         "node(s) didn't match Pod's node affinity/selector"),
        (pod(affinity=required({"matchExpressions": [IN_ZONE]})),
         node("n", labels={"zone": "a"}), (), ""),
        (pod(affinity=required({"matchFields": [
            {"key": "metadata.name", "operator": "In", "values": ["m"]}]})), node("n"), (),
         "node(s) didn't satisfy plugin(s) [NodeAffinity]"),
        (pod(hostPort=80), node("n"), (pod("o", hostPort=80),),
         "node(s) didn't have free ports for the requested pod ports"),
        (pod(hostPort=80), node("n"), (pod("o", hostPort=81),), ""),
        (pod(cpu="1500m"), node("n"), (pod("o", cpu="600m"),), "Insufficient cpu"),
        (pod(cpu="1400m"), node("n"), (pod("o", cpu="600m"),), ""),
        (pod(), node("n", pods="1"), (pod("o"),), "Too many pods"),
    ],
)  # fmt: skip
def test_filters(p: Obj, n: Obj, others: tuple[Obj, ...], reason: str) -> None:
    assert verdict(p, n, *others) == reason


def test_requests_of_init_containers_and_sidecars() -> None:
    def container(cpu: str, **more: Any) -> Body:
        return {"name": "c", "resources": {"requests": {"cpu": cpu}}, **more}

    spec = {
        "initContainers": [container("1", restartPolicy="Always"), container("3")],
        "containers": [container("1"), container("500m")],
        "overhead": {"cpu": "250m"},
    }
    # The sidecar runs on: 1 + 3 while it initialises, 1 + 1.5 afterwards.
    assert pod_requests(spec) == {"cpu": 4250}


@given(
    st.sampled_from(["", "NoSchedule", "NoExecute"]), st.sampled_from(["", "a", "b"]),
    st.sampled_from(["", "Equal", "Exists"]), st.sampled_from(["", "x", "y"]),
    st.sampled_from(["NoSchedule", "NoExecute"]), st.sampled_from(["a", "b"]),
    st.sampled_from(["", "x"]),
)  # fmt: skip
def test_toleration_against_the_rule_as_written(
    effect: str, key: str, operator: str, value: str, taint_effect: str, taint_key: str,
    taint_value: str,
) -> None:  # fmt: skip
    toleration = {"effect": effect, "key": key, "operator": operator, "value": value}
    taint = {"effect": taint_effect, "key": taint_key, "value": taint_value}
    if operator == "Exists":
        matched = key in ("", taint_key)
    else:
        matched = key == taint_key and value == taint_value
    matched = matched and effect in ("", taint_effect)
    assert tolerates({"tolerations": [toleration]}, taint) == matched


async def cluster(nodes: list[Body], pods: list[Body]) -> tuple[list[Obj], list[Obj]]:
    """(pods, events) once the scheduler has nothing left to do."""
    api = await api_server()
    client = client_of(api)
    await client.create("serviceaccounts", {"metadata": {"name": "default"}}, "default")
    for n in nodes:
        made = await client.create("nodes", n)
        status = {**made.body, "status": n["status"]}
        await client.update("nodes", status, subresource="status")
    caches = Caches(client)
    scheduler = Scheduler(client, clock=RealClock(), rng=random.Random(1), caches=caches)
    await caches.start()
    await scheduler.start()
    for p in pods:
        await client.create("pods", p, "default")
    quiet, before = 0, -1
    while quiet < 60:
        await asyncio.sleep(0)
        quiet = quiet + 1 if api.store.revision == before else 0
        before = api.store.revision
    await scheduler.stop()
    await caches.stop()
    found = (await client.list("pods")).items, (await client.list("events")).items
    await api.authorizer.stop()
    return found


def body_of(obj: Obj) -> Body:
    body = {**obj.body, "metadata": {**obj.body["metadata"]}}
    body["metadata"].pop("uid", None)
    body["metadata"].pop("resourceVersion", None)
    return body


def test_binds_and_tells() -> None:
    pods, events = asyncio.run(cluster([body_of(node("n1"))], [body_of(pod("a"))]))
    assert pods[0].spec["nodeName"] == "n1"
    (condition,) = pods[0].status["conditions"]
    assert (condition["type"], condition["status"]) == ("PodScheduled", "True")
    assert [(e.body["reason"], e.body["message"]) for e in events] == [
        ("Scheduled", "Successfully assigned default/a to n1")
    ]


def test_explains_why_nothing_fits() -> None:
    nodes = [body_of(node("n1", taints=[TAINT])), body_of(node("n2", unschedulable=True)),
             body_of(node("n3", cpu="1"))]  # fmt: skip
    pods, events = asyncio.run(cluster(nodes, [body_of(pod("a", cpu="1500m"))]))
    told = (
        "0/3 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s), "
        "1 node(s) were unschedulable. preemption: 0/3 nodes are available: "
        "3 Preemption is not helpful for scheduling."
    )
    assert "nodeName" not in pods[0].spec
    (condition,) = pods[0].status["conditions"]
    assert (condition["reason"], condition["message"]) == ("Unschedulable", told)
    assert [e.body["message"] for e in events] == [told]


def test_no_nodes() -> None:
    _, events = asyncio.run(cluster([], [body_of(pod("a"))]))
    assert [e.body["message"] for e in events] == ["no nodes available to schedule pods"]


def test_replicas_are_spread() -> None:
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "r",
             "controller": True}  # fmt: skip
    pods = []
    for i in range(4):
        body = body_of(pod(f"p{i}"))
        body["metadata"]["ownerReferences"] = [owner]
        pods.append(body)
    found, _ = asyncio.run(cluster([body_of(node("n1")), body_of(node("n2"))], pods))
    where = [p.spec["nodeName"] for p in found]
    assert sorted(where) == ["n1", "n1", "n2", "n2"]


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    requests=st.lists(st.integers(100, 2500), max_size=12),
)
def test_no_node_is_overcommitted_and_no_pod_waits_in_vain(
    sizes: list[int], requests: list[int]
) -> None:
    nodes = [body_of(node(f"n{i}", cpu=str(size))) for i, size in enumerate(sizes)]
    wanted = [body_of(pod(f"p{i}", cpu=f"{r}m")) for i, r in enumerate(requests)]
    pods, _ = asyncio.run(cluster(nodes, wanted))
    used: dict[str, int] = {}
    for p in pods:
        if "nodeName" in p.spec:
            name = p.spec["nodeName"]
            used[name] = used.get(name, 0) + pod_requests(p.spec)["cpu"]
    free = {f"n{i}": size * 1000 - used.get(f"n{i}", 0) for i, size in enumerate(sizes)}
    assert min(free.values()) >= 0
    for p in pods:
        if "nodeName" not in p.spec:
            assert pod_requests(p.spec)["cpu"] > max(free.values())


class _Broken:
    """A binder that cannot."""

    name = "Broken"

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def bind(self, p: PodInfo, node_name: str) -> None:
        raise self._error


def failing(error: Exception) -> tuple[Obj, list[str]]:
    """A pod whose binding fails with *error*, and the events told."""

    async def scenario() -> tuple[Obj, list[str]]:
        api = await api_server()
        client = client_of(api)
        await client.create("serviceaccounts", {"metadata": {"name": "default"}}, "default")
        made = await client.create("nodes", body_of(node("n1")))
        status = {**made.body, "status": node("n1").status}
        await client.update("nodes", status, subresource="status")
        caches = Caches(client)
        profile = replace(PROFILE, binds=(_Broken(error),))
        scheduler = Scheduler(
            client, clock=RealClock(), rng=random.Random(1), caches=caches, profile=profile
        )
        await caches.start()
        await scheduler.start()
        await client.create("pods", body_of(pod("a")), "default")
        async with asyncio.timeout(20):
            while not (events := (await client.list("events")).items):
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
        await scheduler.stop()
        await caches.stop()
        found = await client.get("pods", "a", "default")
        await api.authorizer.stop()
        return found, [e.body["message"] for e in events]

    return asyncio.run(scenario())


def test_an_error_is_told_as_one() -> None:
    found, told = failing(StatusError(500, "InternalError", "no such luck"))
    (condition,) = found.status["conditions"]
    text = 'binding rejected: running Bind plugin "Broken": no such luck'
    assert told == [text]
    assert (condition["type"], condition["status"], condition["reason"], condition["message"]) == (
        "PodScheduled", "False", "SchedulerError", text,
    )  # fmt: skip
