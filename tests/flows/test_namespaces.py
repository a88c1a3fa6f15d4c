"""A deleted namespace goes, whatever is in it and whatever dies meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sampan.api.errors import StatusError
from sampan.api.obj import Body
from sampan.lib.loop import run_virtual
from sampan.node.runtime.base import RuntimeFailure
from sampan.node.runtime.fake import Behaviour
from sampan.testing.world import World, world

NS = "work"
SECONDS = 90.0  # virtual; grace periods are 2 s, and whoever is killed is back within seconds


def template(**spec: Any) -> Body:
    container = {"name": "c", "image": "i", **spec.pop("container", {})}
    return {
        "metadata": {"labels": {"app": spec.pop("app", "x")}},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 2, **spec},
    }  # fmt: skip


def named(kind: str, name: str, spec: Body) -> Body:
    return {"kind": kind, "metadata": {"name": name, "namespace": NS}, "spec": spec}


CLAIM = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
HOOKED = {"lifecycle": {"preStop": {"exec": {"command": ["x"]}}}}
CONTENT: tuple[tuple[str, Body], ...] = (
    ("statefulsets.apps", named("StatefulSet", "set", {
        "serviceName": "set", "replicas": 2, "selector": {"matchLabels": {"app": "set"}},
        "template": template(app="set", container={
            "volumeMounts": [{"name": "d", "mountPath": "/d"}]}),
        "volumeClaimTemplates": [{"metadata": {"name": "d"}, "spec": CLAIM}]})),
    ("deployments.apps", named("Deployment", "web", {
        "replicas": 2, "selector": {"matchLabels": {"app": "web"}},
        "template": template(app="web", container=HOOKED)})),
    ("daemonsets.apps", named("DaemonSet", "each", {
        "selector": {"matchLabels": {"app": "each"}}, "template": template(app="each")})),
    ("jobs.batch", named("Job", "job", {
        "completions": 4, "parallelism": 2, "backoffLimit": 20,
        "template": template(app="job", restartPolicy="Never", container={"image": "fails"})})),
    ("services", named("Service", "web", {
        "type": "LoadBalancer", "selector": {"app": "web"}, "ports": [{"port": 80}]})),
    ("pods", named("Pod", "nowhere", {
        "nodeSelector": {"no": "where"}, "containers": [{"name": "c", "image": "i"}]})),
    ("pods", named("Pod", "scratch", {
        "terminationGracePeriodSeconds": 2,
        "containers": [{"name": "c", "image": "i",
                        "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
        "volumes": [{"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": CLAIM}}}]})),
    ("pods", named("Pod", "claimless", {
        "terminationGracePeriodSeconds": 2, "containers": [{"name": "c", "image": "i"}],
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "absent"}}]})),
    ("resourcequotas", named("ResourceQuota", "quota", {"hard": {"pods": "50"}})),
    ("poddisruptionbudgets.policy", named("PodDisruptionBudget", "web", {
        "maxUnavailable": 0, "selector": {"matchLabels": {"app": "web"}}})),
)  # fmt: skip


async def fill(w: World) -> None:
    await w.client.create("namespaces", {"metadata": {"name": NS}})
    async with asyncio.timeout(60):
        while True:  # as kubectl does: the service account is there a moment later
            try:
                await w.client.get("serviceaccounts", "default", NS)
                break
            except StatusError:
                await asyncio.sleep(0.05)
    for resource, body in CONTENT:
        await w.client.create(resource, body, NS)


async def is_gone(w: World) -> bool:
    try:
        await w.client.get("namespaces", NS)
    except StatusError as e:
        return e.code == 404
    return False


async def gone(w: World, seconds: float = SECONDS) -> None:
    try:
        async with asyncio.timeout(seconds):
            while not await is_gone(w):
                await asyncio.sleep(0.2)
    except TimeoutError:
        status = (await w.client.get("namespaces", NS)).status
        pods = [(p.name, p.status.get("phase"), p.meta.get("deletionTimestamp"))
                for p in (await w.client.list("pods", NS)).items]  # fmt: skip
        raise AssertionError(f"still there: {status.get('conditions')}, pods {pods}") from None
    for resource in (
        "pods",
        "persistentvolumeclaims",
        "services",
        "endpointslices.discovery.k8s.io",
    ):
        assert (await w.client.list(resource, NS)).items == []


def play(story: Any, *, seed: int = 0) -> None:
    async def main() -> None:
        async with world(nodes=0, seed=seed) as w:
            for i in (1, 2):
                fails = Behaviour.parse("run=1,exit=1")
                await w.add_node(f"node-{i}", behaviours={"fails": fails})
            await fill(w)
            await story(w)

    run_virtual(main())


@pytest.mark.parametrize("pause", [0.0, 0.05, 0.4, 3.0, 30.0])
@pytest.mark.parametrize("who", ["nobody", "control", "agents", "all"])
def test_killed_when_it_is_deleted(who: str, pause: float) -> None:
    """pause: seconds the content has had to come up."""

    async def story(w: World) -> None:
        await asyncio.sleep(pause)
        await w.client.delete("namespaces", NS)
        if who in ("agents", "all"):
            w.kill_agent("node-1")
            w.kill_agent("node-2")
        if who in ("control", "all"):
            w.kill_control()
        await gone(w)

    play(story)


@pytest.mark.parametrize("writes", [1, 2, 4, 7, 11, 16, 22, 29, 37, 46, 56, 67, 79])
def test_the_control_plane_dies_between_any_two_writes(writes: int) -> None:
    async def story(w: World) -> None:
        await asyncio.sleep(3.0)
        w.kill_control(after_writes=writes)
        await w.client.delete("namespaces", NS)
        await gone(w)
        w.calm()

    play(story, seed=writes)


@pytest.mark.parametrize("seconds", [0.05, 0.5, 1.5, 2.5])
def test_agents_die_in_the_midst_of_it(seconds: float) -> None:
    async def story(w: World) -> None:
        await asyncio.sleep(3.0)
        await w.client.delete("namespaces", NS)
        for _ in range(3):
            await asyncio.sleep(seconds)
            for name in w.nodes:
                if w.nodes[name].is_up:
                    w.kill_agent(name)
        await gone(w)

    play(story)


@pytest.mark.parametrize("error", [RuntimeFailure("Busy", "device is busy"), OSError("no space")])
@pytest.mark.parametrize("verb", ["stop_container", "stop_sandbox", "remove_sandbox", "exec_sync"])
def test_a_runtime_that_fails_for_a_while(verb: str, error: Exception) -> None:
    async def story(w: World) -> None:
        await asyncio.sleep(3.0)
        for runtime in w.runtimes.values():
            left, real = [5], getattr(runtime, verb)

            async def failing(*args: Any, left: Any = left, real: Any = real, **more: Any) -> Any:
                if left[0]:
                    left[0] -= 1
                    raise error
                return await real(*args, **more)

            setattr(runtime, verb, failing)
        await w.client.delete("namespaces", NS)
        await gone(w, 180.0)

    play(story)


def test_a_node_that_is_lost_keeps_it_until_it_is_back() -> None:
    """As upstream: nobody knows that its pods are dead. Whoever says so (force) is believed."""

    async def story(w: World) -> None:
        await asyncio.sleep(5.0)
        await w.lose_node("node-1", power=True)
        await w.client.delete("namespaces", NS)
        await asyncio.sleep(120.0)
        left = (await w.client.list("pods", NS)).items
        assert left and {p.spec.get("nodeName") for p in left} == {"node-1"}
        conditions = {c["type"]: c for c in (
            await w.client.get("namespaces", NS)).status["conditions"]}  # fmt: skip
        told = conditions["NamespaceContentRemaining"]
        assert told["status"] == "True" and f"pods. has {len(left)} resource instances" in (
            told["message"].replace("pods has", "pods. has")
        )
        await w.client.delete("pods", left[0].name, NS, grace=0)
        await w.return_node("node-1")
        await gone(w)

    play(story)
