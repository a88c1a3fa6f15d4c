"""Ephemeral containers: added to a pod that runs, started once, part of nothing else."""

from __future__ import annotations

from typing import Any

from sampan.api.obj import Body
from sampan.node import stimuli as st
from sampan.node.resolve import Context, container_spec
from sampan.node.runtime.base import SandboxSpec
from sampan.node.runtime.native.spec import namespaces
from sampan.node.units import restarts, role_of
from sampan.testing.machine_world import MachineWorld, Script, pod_body


def debugger(name: str = "dbg", **fields: Any) -> Body:
    return {"name": name, "image": "img", **fields}


def test_it_starts_once_and_the_pod_stays_what_it_was() -> None:
    world = MachineWorld(pod_body({"name": "a"}), scripts={"dbg": [Script(run=5, exit=3)]})
    world.run(5)
    world.change(ephemeralContainers=[debugger()])
    world.run(2)
    shown = world.container("dbg")
    assert "running" in shown["state"]
    assert (shown["ready"], shown["started"], shown["restartCount"]) == (False, False, 0)
    assert world.condition("Ready")[0] == "True"
    world.run(100)
    assert world.container("dbg")["state"]["terminated"]["exitCode"] == 3
    assert [name for _, name in world.started] == ["a", "dbg"]
    assert world.status["phase"] == "Running" and world.running() == ["a"]


def test_it_helps_where_an_init_container_hangs_and_ends_with_the_pod() -> None:
    world = MachineWorld(pod_body({"name": "a"}, init=({"name": "i"},), restartPolicy="Never"))
    world.run(5)
    world.change(ephemeralContainers=[debugger()])
    world.run(5)
    assert sorted(world.running()) == ["dbg", "i"]
    world.end("i")
    world.run(5)
    world.end("a")
    world.run(60)
    assert world.status["phase"] == "Succeeded" and world.running() == []


def test_it_is_taken_over_after_a_restart_of_the_agent() -> None:
    world = MachineWorld(pod_body({"name": "a"}))
    world.change(ephemeralContainers=[debugger()])
    world.run(5)
    world.restart_agent()
    world.run(60)
    assert sorted(name for _, name in world.started) == ["a", "dbg"]
    assert world.of(st.RunSandbox)[1:] == []


def test_it_is_never_restarted_whatever_the_pod_says() -> None:
    assert role_of(debugger(), "ephemeralContainers") == "ephemeral"
    for code in (0, 1):
        assert not restarts(debugger(), "Always", code, role="ephemeral")


def test_it_sees_the_processes_of_its_target() -> None:
    pod = pod_body({"name": "a"})
    spec = container_spec(Context(pod=pod), debugger(), id="x", attempt=0, joins="target")
    assert spec.joins == "target"
    sandbox = SandboxSpec(id="s", namespace="n", name="p", uid="u")
    own = {n["type"]: n.get("path") for n in namespaces(sandbox, 7)}
    assert own["pid"] is None
    theirs = {n["type"]: n.get("path") for n in namespaces(sandbox, 7, 42)}
    assert theirs == {**own, "pid": "/proc/42/ns/pid"}
