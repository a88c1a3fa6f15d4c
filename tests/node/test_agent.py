"""The agent of a node, over a fake runtime and a fake API, in virtual time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from sampan.api.call import Call
from sampan.api.errors import StatusError, internal
from sampan.api.obj import Body, Obj
from sampan.client.base import Client
from sampan.lib.loop import VirtualClock, run_virtual
from sampan.node.agent import Agent
from sampan.node.runtime.fake import Behaviour, FakeRuntime
from sampan.testing.fake_api import FakeApi
from sampan.testing.machine_world import pod_body


class _Events:
    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def emit(
        self, regarding: Body, type: str, reason: str, message: str, field_path: str = ""
    ) -> None:
        self.seen.append((field_path, f"{type} {reason} {message}"))

    def texts(self) -> list[str]:
        return [text for _, text in self.seen]


class Node:
    """An agent and what surrounds it."""

    def __init__(self, data: Path | None = None, **runtime: Any) -> None:
        self.clock = VirtualClock()
        self.api = FakeApi(self.clock)
        self.runtime = FakeRuntime(self.clock, **runtime)
        self.events = _Events()
        self.data = data
        self.agent = self.new_agent()

    def new_agent(self) -> Agent:
        return Agent(
            Client(self.api),
            runtime=self.runtime,
            node_name="n1",
            data_dir=self.data,
            clock=self.clock,
            pod_cidrs=("10.42.0.0/24",),
            addresses=("10.0.0.1",),
            capacity={"cpu": "2", "memory": "1Gi", "pods": "250"},
            events=self.events,
        )

    def bind(self, pod: Body, name: str = "p") -> None:
        meta = {**pod["metadata"], "name": name, "uid": f"uid-{name}"}
        self.api.put("pods", {**pod, "metadata": meta})

    def pod(self, name: str = "p") -> Obj | None:
        return self.api.get("pods", name, "ns")

    def status(self, name: str = "p") -> Body:
        found = self.pod(name)
        assert found is not None
        return found.status

    def writes(self, verb: str, resource: str) -> int:
        return self.api.writes.get((verb, resource), 0)


def virtual(
    body: Callable[[Node], Coroutine[Any, Any, None]], data: Path | None = None, **runtime: Any
) -> None:
    async def whole() -> None:
        node = Node(data, **runtime)
        async with asyncio.timeout(100_000):  # of virtual time, against waiting for ever
            await node.agent.start()
            try:
                await body(node)
            finally:
                await node.agent.stop()

    run_virtual(whole())


def test_a_pod_of_two_runs_with_one_status_write() -> None:
    async def body(node: Node) -> None:
        node.bind(pod_body({"name": "a"}, {"name": "b"}))
        await asyncio.sleep(1)
        assert node.status()["phase"] == "Running"
        assert node.status()["podIP"] == "10.42.0.2"
        assert all(c["ready"] for c in node.status()["containerStatuses"])
        assert node.writes("patch", "pods/status") == 1
        fields = [path for path, text in node.events.seen if "Started" in text]
        assert fields == ["spec.containers{a}", "spec.containers{b}"]

    virtual(body)


def test_deletion_is_graceful_and_complete() -> None:
    async def body(node: Node) -> None:
        node.bind(pod_body({"name": "a"}))
        await asyncio.sleep(1)
        begun = node.clock.now()
        await Client(node.api).delete("pods", "p", "ns")
        assert node.pod() is not None
        while node.pod() is not None:
            await asyncio.sleep(0.1)
        assert node.clock.now() - begun == pytest.approx(5.0, abs=0.5)
        await asyncio.sleep(0.1)
        assert node.agent.workers == {}
        assert await node.runtime.sandboxes() == []
        assert node.writes("patch", "pods/status") == 2
        last = [c for c in node.api.calls if c.verb == "delete"][-1]
        assert last.body["gracePeriodSeconds"] == 0
        assert last.body["preconditions"] == {"uid": "uid-p"}

    virtual(body, behaviours={"img": Behaviour(stop_delay=5.0)})


def test_name_servers_too_many_are_told_once() -> None:
    async def body(node: Node) -> None:
        pod = pod_body({"name": "a"}, {"name": "b"})
        pod["spec"]["dnsConfig"] = {"nameservers": [f"10.9.9.{i}" for i in range(4)]}
        node.bind(pod)
        await asyncio.sleep(1)
        told = [text for _path, text in node.events.seen if "Nameserver limits" in text]
        assert len(told) == 1 and told[0].endswith(": 10.43.0.10 10.9.9.0 10.9.9.1")

    virtual(body)


def test_slow_starts_are_reported_before_they_end() -> None:
    async def body(node: Node) -> None:
        node.bind(pod_body({"name": "a"}))
        await asyncio.sleep(1)
        [status] = node.status()["containerStatuses"]
        assert status["state"] == {"waiting": {"reason": "ContainerCreating"}}
        await asyncio.sleep(5)
        assert node.status()["phase"] == "Running"
        assert node.writes("patch", "pods/status") == 2

    virtual(body, behaviours={"img": Behaviour(start_delay=3.0)})


def test_crash_loop_costs_few_writes() -> None:
    async def body(node: Node) -> None:
        node.bind(pod_body({"name": "a"}))
        await asyncio.sleep(600)
        [status] = node.status()["containerStatuses"]
        assert status["state"]["waiting"]["reason"] == "CrashLoopBackOff"
        assert status["lastState"]["terminated"]["message"] == "no luck"
        assert status["restartCount"] == 6
        assert node.writes("patch", "pods/status") <= 2 * 7 + 1

    virtual(body, behaviours={"img": Behaviour(run=1.0, exit=1, message="no luck")})


def test_a_pod_that_ends() -> None:
    async def body(node: Node) -> None:
        node.bind(pod_body({"name": "a"}, restartPolicy="Never"))
        await asyncio.sleep(20)
        assert node.status()["phase"] == "Succeeded"
        [box] = await node.runtime.sandboxes()
        assert not box.ready
        await Client(node.api).delete("pods", "p", "ns")
        await asyncio.sleep(1)
        assert node.pod() is None
        assert await node.runtime.sandboxes() == []

    virtual(body, behaviours={"img": Behaviour(run=10.0)})


def test_an_image_that_is_absent() -> None:
    async def body(node: Node) -> None:
        node.bind(pod_body({"name": "a", "image": "gone", "imagePullPolicy": "Always"}))
        await asyncio.sleep(8)
        waiting = node.status()["containerStatuses"][0]["state"]["waiting"]
        assert waiting["reason"] == "ImagePullBackOff"
        assert 'Normal Pulling Pulling image "gone"' in node.events.texts()
        await node.runtime.load_images("/x/gone.tar")
        await asyncio.sleep(10)
        assert node.status()["phase"] == "Running"

    virtual(body, images=["here"])


def test_forced_deletion() -> None:
    async def body(node: Node) -> None:
        node.bind(pod_body({"name": "a"}))
        await asyncio.sleep(1)
        node.api.drop("pods", "p", "ns")
        await asyncio.sleep(5)
        assert node.agent.workers == {}
        assert await node.runtime.sandboxes() == []

    virtual(body)


def test_a_pod_of_the_same_name_follows_at_once() -> None:
    async def body(node: Node) -> None:
        node.bind(pod_body({"name": "a"}))
        await asyncio.sleep(1)
        node.api.drop("pods", "p", "ns")
        pod = pod_body({"name": "a"})
        pod["metadata"]["uid"] = "second"
        node.api.put("pods", pod)
        await asyncio.sleep(5)
        assert list(node.agent.workers) == ["second"]
        assert node.status()["phase"] == "Running"
        assert [b.uid for b in await node.runtime.sandboxes()] == ["second"]

    virtual(body)


def test_what_was_missed_while_the_watch_was_down_is_found() -> None:
    async def body(node: Node) -> None:
        node.bind(pod_body({"name": "a"}))
        await asyncio.sleep(1)
        node.api.fail = lambda call: internal("down") if call.verb == "list" else None
        node.api.break_watches()
        await asyncio.sleep(0)
        node.api.drop("pods", "p", "ns")
        node.bind(pod_body({"name": "a"}), "q")
        await asyncio.sleep(5)
        node.api.fail = lambda _: None
        await asyncio.sleep(40)
        assert [w.pod.name for w in node.agent.workers.values()] == ["q"]
        assert node.status("q")["phase"] == "Running"

    virtual(body)


def test_failed_status_writes_are_repeated() -> None:
    async def body(node: Node) -> None:
        def fail(call: Call) -> StatusError | None:
            return internal("later") if call.subresource == "status" else None

        node.api.fail = fail
        node.bind(pod_body({"name": "a"}))
        await asyncio.sleep(5)
        assert node.status()["phase"] == "Pending"
        node.api.fail = lambda _: None
        await asyncio.sleep(15)
        assert node.status()["phase"] == "Running"

    virtual(body)


def test_a_status_that_somebody_spoiled_is_put_right() -> None:
    async def body(node: Node) -> None:
        node.bind(pod_body({"name": "a"}))
        await asyncio.sleep(1)
        found = node.pod()
        assert found is not None
        spoiled = json.loads(found.raw)
        spoiled["status"]["phase"] = "Failed"
        node.api.put("pods", spoiled)
        await asyncio.sleep(1)
        assert node.status()["phase"] == "Running"

    virtual(body)


# ---- taking over -----------------------------------------------------------------------------


def test_a_new_agent_takes_over_without_a_restart() -> None:
    async def body(node: Node) -> None:
        node.bind(pod_body({"name": "a"}, {"name": "b"}))
        node.bind(pod_body({"name": "a"}), "gone")
        await asyncio.sleep(1)
        before, writes = node.status(), node.writes("patch", "pods/status")
        await node.agent.stop()
        node.api.drop("pods", "gone", "ns")
        node.runtime.calls.clear()
        node.agent = node.new_agent()
        await node.agent.start()
        await asyncio.sleep(60)
        assert node.status() == before
        assert node.writes("patch", "pods/status") == writes
        assert [b.uid for b in await node.runtime.sandboxes()] == ["uid-p"]
        assert {verb for verb, _ in node.runtime.calls} == {
            "stop_sandbox",
            "remove_sandbox",
            "remove_container",
        }

    virtual(body)


def test_what_ended_while_nobody_looked_is_restarted() -> None:
    async def body(node: Node) -> None:
        node.bind(pod_body({"name": "a"}))
        await asyncio.sleep(1)
        await node.agent.stop()
        [box] = await node.runtime.sandboxes()
        node.runtime.finish(box.containers[0].id, 5)
        node.agent = node.new_agent()
        await node.agent.start()
        await asyncio.sleep(1)
        [status] = node.status()["containerStatuses"]
        assert status["restartCount"] == 1
        assert status["lastState"]["terminated"]["exitCode"] == 5

    virtual(body)


def test_a_dead_sandbox_is_replaced() -> None:
    async def body(node: Node) -> None:
        node.bind(pod_body({"name": "a"}))
        await asyncio.sleep(1)
        [box] = await node.runtime.sandboxes()
        node.runtime.kill_sandbox(box.id)
        await asyncio.sleep(15)
        [now] = await node.runtime.sandboxes()
        assert now.attempt == 1
        assert node.status()["phase"] == "Running"
        assert node.status()["containerStatuses"][0]["restartCount"] == 1

    virtual(body)


# ---- probes and hooks ------------------------------------------------------------------------


def test_liveness_restarts_and_readiness_follows() -> None:
    health = {"live": 0, "ready": 1}

    def check(command: list[str]) -> tuple[int, bytes]:
        return health[command[1]], b"sick"

    async def body(node: Node) -> None:
        node.bind(
            pod_body(
                {
                    "name": "a",
                    "livenessProbe": {"exec": {"command": ["check", "live"]}, "periodSeconds": 1},
                    "readinessProbe": {"exec": {"command": ["check", "ready"]}, "periodSeconds": 1},
                }
            )
        )
        await asyncio.sleep(3)
        assert node.status()["containerStatuses"][0]["ready"] is False
        health["ready"] = 0
        await asyncio.sleep(2)
        assert node.status()["containerStatuses"][0]["ready"] is True
        health["live"] = 1
        await asyncio.sleep(4)
        health["live"] = 0
        await asyncio.sleep(2)
        assert node.status()["containerStatuses"][0]["restartCount"] == 1
        texts = node.events.texts()
        assert "Warning Unhealthy Readiness probe failed: sick" in texts
        assert "Warning Unhealthy Liveness probe failed: sick" in texts
        assert "Normal Killing Container a failed liveness probe, will be restarted" in texts

    virtual(body, behaviours={"img": Behaviour(execs={"check": check})})


def test_pre_stop_runs_within_the_grace_period() -> None:
    hooked = {"name": "a", "lifecycle": {"preStop": {"sleep": {"seconds": 4}}}}

    async def body(node: Node) -> None:
        node.bind(pod_body(hooked, terminationGracePeriodSeconds=10))
        await asyncio.sleep(1)
        begun = node.clock.now()
        await Client(node.api).delete("pods", "p", "ns")
        while node.pod() is not None:
            await asyncio.sleep(0.1)
        assert node.clock.now() - begun == pytest.approx(10.0, abs=0.5)

    virtual(body, behaviours={"img": Behaviour(stop_delay=100.0)})


# ---- the node --------------------------------------------------------------------------------


def test_the_node_is_registered_and_kept_alive_cheaply() -> None:
    async def body(node: Node) -> None:
        found = node.api.get("nodes", "n1")
        assert found is not None
        assert found.spec["podCIDR"] == "10.42.0.0/24"
        assert found.status["conditions"][3]["status"] == "True"
        await asyncio.sleep(295)
        assert node.writes("patch", "nodes/status") == 1
        assert node.writes("patch", "leases.coordination.k8s.io") == 29
        await asyncio.sleep(30)
        assert node.writes("patch", "nodes/status") == 2
        lease = node.api.get("leases.coordination.k8s.io", "n1", "kube-node-lease")
        assert lease is not None
        assert lease.spec["holderIdentity"] == "n1"
        assert lease.spec["leaseDurationSeconds"] == 40
        assert [(o["kind"], o["name"]) for o in lease.owners] == [("Node", "n1")]

    virtual(body)


def test_ready_is_honest() -> None:
    async def body(node: Node) -> None:
        def ready() -> tuple[str, str]:
            found = node.api.get("nodes", "n1")
            assert found is not None
            condition = next(c for c in found.status["conditions"] if c["type"] == "Ready")
            return condition["status"], condition["message"]

        node.runtime.down = True
        await asyncio.sleep(11)
        assert ready() == ("False", "container runtime is down: the runtime does not answer")
        node.runtime.down = False
        await asyncio.sleep(11)
        assert ready() == ("True", "kubelet is posting ready status")
        assert "Normal NodeNotReady Node n1 status is now: NodeNotReady" in node.events.texts()

    virtual(body)


# ---- streams ---------------------------------------------------------------------------------


def test_streams_answer_in_the_kubelets_words() -> None:
    async def body(node: Node) -> None:
        streams = node.agent.streams
        node.bind(pod_body({"name": "a"}, {"name": "b", "image": "gone"}))
        await asyncio.sleep(1)

        async def logs(pod: str, container: str, **options: str) -> str:
            found = [c async for c in streams.logs("ns", pod, container, options)]
            return b"".join(found).decode()

        assert await logs("p", "a") == ""
        for container, options, text in (
            ("b", {}, 'container "b" in pod "p" is waiting to start: '
             "trying and failing to pull image"),
            ("a", {"previous": "true"},
             'previous terminated container "a" in pod "p" not found'),
            ("z", {}, "container z is not valid for pod p"),
        ):  # fmt: skip
            with pytest.raises(StatusError) as error:
                await logs("p", container, **options)
            assert error.value.code == 400
            assert error.value.message.startswith(text)
        with pytest.raises(StatusError) as missing:
            await logs("q", "a")
        assert missing.value.code == 404
        flags = {"stdin": False, "stdout": True, "stderr": True, "tty": False}
        session = await streams.exec("ns", "p", "a", ["echo", "hi"], **flags)
        assert [c async for c in session.output()] == [(1, b"echo hi\n")]
        assert await session.wait() == 0
        with pytest.raises(StatusError) as refused:
            await streams.exec("ns", "p", "b", ["sh"], **flags)
        assert refused.value.message == ('unable to upgrade connection: container not found ("b")')

    virtual(body, images=["img"])


# ---- on disk ---------------------------------------------------------------------------------


def _text(*path: str) -> str:
    return Path(*path).read_text()


def _write(path: str, text: str) -> None:
    Path(path).write_text(text)


def test_volumes_logs_and_files_on_disk(tmp_path: Path) -> None:
    async def body(node: Node) -> None:
        node.api.put(
            "configmaps", {"metadata": {"name": "cm", "namespace": "ns"}, "data": {"k": "v1"}}
        )
        volume = {"name": "v", "configMap": {"name": "cm"}}
        container = {"name": "a", "volumeMounts": [{"name": "v", "mountPath": "/cfg"}]}
        node.bind(pod_body(container, volumes=[volume]))
        await asyncio.sleep(1)
        assert node.status()["phase"] == "Running"
        specs = [c.spec for c in node.runtime._containers.values()]
        mounts = {m.target: m for m in specs[0].mounts}
        assert {"/cfg", "/etc/hosts", "/etc/resolv.conf", "/etc/hostname"} <= set(mounts)
        assert _text(mounts["/cfg"].source, "k") == "v1"
        assert "10.42.0.2\tp\n" in _text(mounts["/etc/hosts"].source)
        _write(mounts["/dev/termination-log"].source, "bye")
        node.api.put(
            "configmaps", {"metadata": {"name": "cm", "namespace": "ns"}, "data": {"k": "v2"}}
        )
        await asyncio.sleep(61)
        assert _text(mounts["/cfg"].source, "k") == "v2"
        _write(specs[0].log_path, "2026-01-02T03:04:05.5Z stdout F hello\n")
        chunks = [c async for c in node.agent.streams.logs("ns", "p", "a", {})]
        assert b"".join(chunks) == b"hello\n"
        node.runtime.finish(specs[0].id, 4)
        await asyncio.sleep(1)
        [status] = node.status()["containerStatuses"]
        assert status["lastState"]["terminated"]["message"] == "bye"
        before = [c async for c in node.agent.streams.logs("ns", "p", "a", {"previous": "true"})]
        assert b"".join(before) == b"hello\n"

    virtual(body, tmp_path)


def test_a_missing_config_map_holds_the_pod_back() -> None:
    env = [{"name": "E", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k"}}}]

    async def body(node: Node) -> None:
        node.bind(pod_body({"name": "a", "env": env}))
        await asyncio.sleep(2)
        assert node.status()["containerStatuses"][0]["state"]["waiting"] == {
            "reason": "CreateContainerConfigError",
            "message": 'configmap "cm" not found',
        }
        node.api.put(
            "configmaps", {"metadata": {"name": "cm", "namespace": "ns"}, "data": {"k": "v"}}
        )
        await asyncio.sleep(10)
        assert node.status()["phase"] == "Running"
        assert dict(node.runtime._containers.popitem()[1].spec.env)["E"] == "v"

    virtual(body)


def test_two_hundred_pods_at_once() -> None:
    async def body(node: Node) -> None:
        for n in range(200):
            node.bind(pod_body({"name": "a"}), f"p{n}")
        await asyncio.sleep(2)
        assert {node.status(f"p{n}")["phase"] for n in range(200)} == {"Running"}
        assert node.writes("patch", "pods/status") == 200
        assert len({node.status(f"p{n}")["podIP"] for n in range(200)}) == 200

    virtual(body)


@pytest.mark.parametrize("error", [OSError("unforeseen"), ValueError("unforeseen")])
@pytest.mark.parametrize("verb", [
    "run_sandbox", "image", "create_container", "start_container", "exec_sync", "stop_container",
    "stop_sandbox", "remove_sandbox", "sandboxes",
])  # fmt: skip
def test_whatever_a_runtime_raises_a_pod_starts_and_goes(verb: str, error: Exception) -> None:
    """An error nobody foresaw, twice in a row: its pod hung for ever, and its namespace with it."""

    async def body(node: Node) -> None:
        real, left = getattr(node.runtime, verb), 2

        async def failing(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            if left:
                left -= 1
                raise error
            return await real(*args, **kwargs)

        hook = {"exec": {"command": ["x"]}}
        if verb in ("stop_container", "stop_sandbox", "remove_sandbox", "exec_sync"):
            hooks = {"preStop": hook}
        else:
            hooks = {"postStart": hook}
            setattr(node.runtime, verb, failing)
        node.bind(pod_body({"name": "a", "lifecycle": hooks}))
        await asyncio.sleep(120)
        assert node.status()["phase"] == "Running"
        setattr(node.runtime, verb, failing)
        await Client(node.api).delete("pods", "p", "ns")
        await asyncio.sleep(120)
        assert node.pod() is None and node.agent.workers == {}
        assert left < 2 and await node.runtime.sandboxes() == []

    virtual(body)


def test_a_mount_that_breaks_off_does_not_keep_its_pod() -> None:
    async def body(node: Node) -> None:
        real = node.agent._around.volumes.mount

        async def broken(*_: Any) -> Any:
            raise KeyError("unforeseen")

        node.agent._around.volumes.mount = broken  # type: ignore[method-assign]
        node.bind(pod_body({"name": "a"}))
        node.bind(pod_body({"name": "a"}), "q")
        await asyncio.sleep(5)
        assert any("FailedMount" in text for text in node.events.texts())
        await Client(node.api).delete("pods", "p", "ns")
        await asyncio.sleep(30)
        assert node.pod() is None
        node.agent._around.volumes.mount = real  # type: ignore[method-assign]
        await asyncio.sleep(30)
        assert node.status("q")["phase"] == "Running"

    virtual(body)


def sized(cpu: str, *, port: int = 0, **spec: Any) -> Body:
    container: Body = {"name": "a", "resources": {"requests": {"cpu": cpu}}}
    if port:
        container["ports"] = [{"containerPort": 80, "hostPort": port, "protocol": "TCP"}]
    return pod_body(container, **spec)


@pytest.mark.parametrize(
    ("first", "second", "refusal"),
    [
        (sized("1"), sized("1"), None),
        (sized("1500m"), sized("1"),
         ("OutOfcpu", "Node didn't have enough resource: cpu, requested: 1000, used: 1500, "
                      "capacity: 2000")),
        (sized("100m", port=80), sized("100m", port=81), None),
        (sized("100m", port=80), sized("100m", port=80),
         ("NodePorts", "Predicate NodePorts failed: node(s) didn't have free ports for the "
                       "requested pod ports")),
        (sized("1"), sized("1", nodeSelector={"a": "b"}),
         ("NodeAffinity", "Predicate NodeAffinity failed: node(s) didn't match Pod's node "
                          "affinity/selector")),
    ],
)  # fmt: skip
def test_a_node_refuses_what_it_has_no_room_for(
    first: Body, second: Body, refusal: tuple[str, str] | None
) -> None:
    async def body(node: Node) -> None:
        node.bind(first, "first")
        await asyncio.sleep(1)
        node.bind(second, "second")
        await asyncio.sleep(1)
        status = node.status("second")
        assert node.status("first")["phase"] == "Running"
        if refusal is None:
            assert status["phase"] == "Running"
            return
        reason, message = refusal
        assert (status["phase"], status["reason"]) == ("Failed", reason)
        assert status["message"] == f"Pod was rejected: {message}"
        assert f"Warning {reason} {message}" in node.events.texts()
        assert len(await node.runtime.sandboxes()) == 1
        await Client(node.api).delete("pods", "first", "ns")
        await asyncio.sleep(40)
        node.bind(second, "third")
        await asyncio.sleep(1)
        fits = "nodeSelector" not in second["spec"]
        assert node.status("third")["phase"] == ("Running" if fits else "Failed")

    virtual(body)


def test_a_label_the_agent_has_not_seen_yet_counts() -> None:
    async def body(node: Node) -> None:
        found = node.api.get("nodes", "n1")
        assert found is not None
        meta = {**found.meta, "labels": {**found.labels, "a": "b"}}
        node.api.put("nodes", {**found.body, "metadata": meta})
        node.bind(sized("1", nodeSelector={"a": "b"}))
        await asyncio.sleep(1)
        assert node.status()["phase"] == "Running"
        taint = {"key": "k", "effect": "NoExecute"}
        held = node.api.get("nodes", "n1")
        assert held is not None
        node.api.put("nodes", {**held.body, "spec": {**held.spec, "taints": [taint]}})
        await asyncio.sleep(20)
        node.bind(sized("100m"), "q")
        await asyncio.sleep(1)
        assert node.status("q")["reason"] == "TaintToleration"
        assert node.status()["phase"] == "Running"  # who is there already is not refused
        agent = node.agent
        await agent.stop()
        node.agent = node.new_agent()
        await node.agent.start()
        await asyncio.sleep(1)
        assert node.status()["phase"] == "Running"

    virtual(body)


def test_a_pod_that_ends_makes_room_for_one_that_waits_to_grow() -> None:
    async def body(node: Node) -> None:
        def ends(text: str) -> Body:
            pod = sized("1500m", restartPolicy="Never")
            pod["metadata"]["annotations"] = {"sampan.fake/a": text}
            return pod

        node.bind(ends("run=30"), "short")
        node.bind(sized("500m"), "long")
        await asyncio.sleep(1)
        assert node.status("short")["phase"] == node.status("long")["phase"] == "Running"
        found = node.pod("long")
        assert found is not None
        spec = sized("1500m")["spec"]
        meta = {**found.meta, "generation": 2}
        node.api.put("pods", {**found.body, "metadata": meta, "spec": spec})
        await asyncio.sleep(1)
        told = {c["type"]: c.get("reason") for c in node.status("long")["conditions"]}
        assert told["PodResizePending"] == "Deferred"
        await asyncio.sleep(35)
        assert node.status("short")["phase"] == "Succeeded"
        (status,) = node.status("long")["containerStatuses"]
        assert status["resources"]["requests"] == {"cpu": "1500m"}

    virtual(body)
