"""The agent against the real API server, as the identity a node has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sampan.api.call import User
from sampan.api.errors import StatusError
from sampan.api.obj import Body, Obj
from sampan.apiserver.authn import TokenIssuer
from sampan.client.base import Client
from sampan.lib.clock import RealClock
from sampan.lib.tls import new_key
from sampan.node.agent import Agent
from sampan.node.runtime.fake import Behaviour, FakeRuntime
from sampan.testing.api import api_server, client_of

NODE = User("system:node:n1", ("system:nodes", "system:authenticated"))


class Cluster:
    def __init__(self, admin: Client, agent: Agent, runtime: FakeRuntime) -> None:
        self.admin = admin
        self.agent = agent
        self.runtime = runtime

    async def run(self, name: str, *containers: Body, **spec: Any) -> Obj:
        """A pod created by a user and bound by a scheduler."""
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"containers": [*containers], **spec},
        }
        await self.admin.create("pods", body, "default")
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name, "namespace": "default"},
            "target": {"kind": "Node", "name": "n1"},
        }
        await self.admin.create("pods", binding, "default", name=name, subresource="binding")
        return await self.admin.get("pods", name, "default")

    async def until(self, name: str, holds: Callable[[Obj], bool]) -> Obj:
        async with asyncio.timeout(20):
            while True:
                pod = await self.admin.get("pods", name, "default")
                if holds(pod):
                    return pod
                await asyncio.sleep(0.02)

    async def until_gone(self, name: str) -> None:
        async with asyncio.timeout(20):
            while True:
                try:
                    await self.admin.get("pods", name, "default")
                except StatusError as error:
                    assert error.code == 404
                    return
                await asyncio.sleep(0.02)


@asynccontextmanager
async def cluster(data: Path, **runtime: Any) -> AsyncIterator[Cluster]:
    clock = RealClock()
    api = await api_server(clock)
    api.tokens = TokenIssuer(new_key(), "https://kubernetes.default.svc")
    admin = client_of(api)
    await admin.create(
        "serviceaccounts",
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}},
        "default",
    )
    await admin.create(
        "configmaps",
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "kube-root-ca.crt"},
            "data": {"ca.crt": "PEM"},
        },
        "default",
    )
    fake = FakeRuntime(clock, **runtime)
    agent = Agent(
        client_of(api, NODE),
        runtime=fake,
        node_name="n1",
        data_dir=data,
        clock=clock,
        pod_cidrs=("10.42.0.0/24",),
        addresses=("10.0.0.1",),
    )
    await agent.start()
    try:
        yield Cluster(admin, agent, fake)
    finally:
        await agent.stop()


def _files(directory: str) -> list[str]:
    return sorted(p.name for p in Path(directory).iterdir() if not p.name.startswith("."))


def _ready(pod: Obj) -> bool:
    return any(
        c["type"] == "Ready" and c["status"] == "True" for c in pod.status.get("conditions", ())
    )


def test_a_pod_is_run_by_the_handler_of_its_class(tmp_path: Path) -> None:
    async def body() -> None:
        async with cluster(tmp_path) as c:
            classes = "runtimeclasses.node.k8s.io"
            for name, handler in (("other", "runc"), ("none", "kata"), ("gone", "runc")):
                await c.admin.create(classes, {"metadata": {"name": name}, "handler": handler})
            container = {"name": "a", "image": "nginx"}
            await c.run("web", container, runtimeClassName="other")
            await c.until("web", _ready)
            (box,) = [b for b in c.runtime._sandboxes.values() if b.spec.name == "web"]
            assert box.spec.handler == "runc"

            async def told(text: str) -> None:
                async with asyncio.timeout(20):
                    while True:
                        events = await c.admin.list("events", "default")
                        if any(text in e.body["message"] for e in events.items):
                            return
                        await asyncio.sleep(0.02)

            await c.run("odd", container, runtimeClassName="none")
            await told(
                "Failed to create pod sandbox: failed to get sandbox runtime: no runtime for "
                '"kata" is configured'
            )
            body = {"metadata": {"name": "late", "namespace": "default"}, "spec": {
                "containers": [container], "runtimeClassName": "gone"}}  # fmt: skip
            await c.admin.create("pods", body, "default")
            await c.admin.delete(classes, "gone")
            bound = {"metadata": {"name": "late"}, "target": {"kind": "Node", "name": "n1"}}
            await c.admin.create("pods", bound, "default", name="late", subresource="binding")
            await told('failed to get RuntimeClass "gone": runtimeclasses.node.k8s.io "gone" not')

    asyncio.run(body())


def test_a_pod_from_creation_to_removal(tmp_path: Path) -> None:
    async def body() -> None:
        async with cluster(tmp_path) as c:
            await c.run("web", {"name": "a", "image": "nginx"}, {"name": "b", "image": "tool:1"})
            pod = await c.until("web", _ready)
            assert pod.status["phase"] == "Running"
            assert pod.status["podIP"].startswith("10.42.0.")
            assert pod.status["qosClass"] == "BestEffort"
            assert [s["restartCount"] for s in pod.status["containerStatuses"]] == [0, 0]
            types = [x["type"] for x in pod.status["conditions"]]
            assert len(types) == len(set(types)) == 5
            node = await c.admin.get("nodes", "n1")
            assert _ready(node)
            assert node.spec["podCIDR"] == "10.42.0.0/24"
            lease = await c.admin.get("leases.coordination.k8s.io", "n1", "kube-node-lease")
            assert lease.owners[0]["uid"] == node.uid
            [spec] = [x.spec for x in c.runtime._containers.values() if x.spec.name == "a"]
            mount = next(m for m in spec.mounts if "serviceaccount" in m.target)
            assert _files(mount.source) == ["ca.crt", "namespace", "token"]
            await c.admin.delete("pods", "web", "default")
            await c.until_gone("web")
            assert await c.runtime.sandboxes() == []
            events = (await c.admin.list("events", "default")).items
            told = [(e.body["reason"], e.body["involvedObject"].get("fieldPath")) for e in events]
            assert ("Started", "spec.containers{a}") in told
            assert ("Killing", "spec.containers{b}") in told
            assert all(e.body["source"] == {"component": "kubelet", "host": "n1"} for e in events)

    asyncio.run(body())


def test_statuses_change_fields_and_drop_them(tmp_path: Path) -> None:
    async def body() -> None:
        async with cluster(tmp_path, behaviours={"once": Behaviour(run=0.2, exit=3)}) as c:
            await c.run("job", {"name": "a", "image": "once"}, restartPolicy="Never")
            pod = await c.until("job", lambda p: p.status.get("phase") == "Failed")
            [status] = pod.status["containerStatuses"]
            assert status["state"]["terminated"]["exitCode"] == 3
            ready = next(x for x in pod.status["conditions"] if x["type"] == "Ready")
            assert (ready["reason"], ready.get("message")) == ("PodFailed", None)

    asyncio.run(body())


def test_others_conditions_are_left_alone(tmp_path: Path) -> None:
    async def body() -> None:
        async with cluster(tmp_path) as c:
            gate = [{"conditionType": "example.com/ok"}]
            await c.run("gated", {"name": "a", "image": "nginx"}, readinessGates=gate)
            await c.until("gated", lambda p: p.status.get("phase") == "Running")
            condition = {"type": "example.com/ok", "status": "True"}
            await c.admin.patch(
                "pods",
                "gated",
                {"status": {"conditions": [condition]}},
                "default",
                kind="strategic",
                subresource="status",
            )
            pod = await c.until("gated", _ready)
            assert any(x["type"] == "example.com/ok" for x in pod.status["conditions"])

    asyncio.run(body())


@pytest.mark.parametrize("grace", [0, 5])
def test_deletions(tmp_path: Path, grace: int) -> None:
    async def body() -> None:
        async with cluster(tmp_path) as c:
            await c.run("p", {"name": "a", "image": "nginx"})
            await c.until("p", _ready)
            await c.admin.delete("pods", "p", "default", grace=grace)
            await c.until_gone("p")
            async with asyncio.timeout(20):
                while await c.runtime.sandboxes():
                    await asyncio.sleep(0.02)

    asyncio.run(body())
