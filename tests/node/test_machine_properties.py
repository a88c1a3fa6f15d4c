"""PodMachine under random pods and random luck: what must hold whatever happens."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs

from sampan.node import stimuli as st
from sampan.node.machine import PodMachine
from sampan.testing.machine_world import MachineWorld, Script, pod_body

TERMINAL = ("Succeeded", "Failed")

scripts = hs.lists(
    hs.builds(
        Script,
        run=hs.none() | hs.floats(0.0, 30.0),
        exit=hs.sampled_from([0, 0, 1, 3]),
        create_error=hs.none() | hs.just(("CreateContainerConfigError", "missing")),
        start_error=hs.sampled_from(["", "", "no such file"]),
        hook_error=hs.sampled_from(["", "boom"]),
        stop_time=hs.floats(0.0, 60.0),
    ),
    min_size=1,
    max_size=4,
)


@hs.composite
def pods(draw: hs.DrawFn) -> dict[str, Any]:
    def container(name: str, *, init: bool) -> dict[str, Any]:
        body: dict[str, Any] = {"name": name}
        if init and draw(hs.booleans()):
            body["restartPolicy"] = "Always"
        plain_init = init and "restartPolicy" not in body
        if not plain_init:
            for kind in ("startup", "readiness", "liveness"):
                if draw(hs.integers(0, 3)) == 0:
                    body[f"{kind}Probe"] = {"exec": {"command": ["x"]}}
            if draw(hs.integers(0, 3)) == 0:
                body["lifecycle"] = {"postStart": {"exec": {"command": ["x"]}}}
        return body

    inits = tuple(container(f"i{n}", init=True) for n in range(draw(hs.integers(0, 2))))
    mains = tuple(container(f"m{n}", init=False) for n in range(draw(hs.integers(1, 2))))
    policy = draw(hs.sampled_from(["Always", "OnFailure", "Never"]))
    extra: dict[str, Any] = {}
    if draw(hs.integers(0, 5)) == 0:
        extra["activeDeadlineSeconds"] = draw(hs.integers(1, 100))
    return pod_body(*mains, init=inits, restartPolicy=policy, **extra)


actions = hs.lists(
    hs.tuples(
        hs.floats(0.0, 40.0),
        hs.sampled_from(
            ["end", "lose", "restart", "startup", "liveness", "ready", "unready", "noise", "none"]
        ),
        hs.integers(0, 3),
    ),
    max_size=12,
)


def _act(world: MachineWorld, what: str, which: int) -> None:
    names = list(world.machine.units)
    name = names[which % len(names)]
    unit = world.machine.units[name]
    if what == "end":
        world.end(name, which)
    elif what == "lose" and world.sandbox is not None:
        world.lose_sandbox()
    elif what == "restart":
        world.restart_agent()
    elif what == "startup":
        world.probe(name, "startup", True)
    elif what == "liveness" and world.machine.specs[name].get("livenessProbe"):
        world.probe(name, "liveness", False, "no answer")
    elif what in ("ready", "unready"):
        world.probe(name, "readiness", what == "ready")
    elif what == "noise":  # answers to questions nobody asks any more
        world.tell(
            st.Created(name, "stale"),
            st.StartFailed(name, "stale", "late"),
            st.HookDone(name, "stale", "late"),
            st.Stopped(name, "stale", None),
            st.SandboxDown("stale"),
            st.Tick(),
        )
    assert unit.name == name


def _world(pod: dict[str, Any], plan: dict[str, list[Script]], seed: int) -> MachineWorld:
    rng = random.Random(seed)
    return MachineWorld(
        pod,
        plan,
        images=lambda _: ("ErrImagePull", "no") if rng.random() < 0.2 else None,
        volumes=lambda: "FailedMount" if rng.random() < 0.2 else "",
        sandbox_error=lambda: "no address" if rng.random() < 0.2 else "",
        delay=lambda: rng.random(),
    )


@hs.composite
def worlds(draw: hs.DrawFn) -> MachineWorld:
    pod = draw(pods())
    spec = pod["spec"]
    names = [c["name"] for c in [*spec["containers"], *spec.get("initContainers", ())]]
    return _world(pod, {n: draw(scripts) for n in names}, draw(hs.integers(0, 1 << 16)))


@settings(max_examples=120, deadline=None)
@given(worlds(), actions)
def test_a_pod_always_comes_to_an_end_when_it_is_deleted(
    world: MachineWorld, steps: list[tuple[float, str, int]]
) -> None:
    for pause, what, which in steps:
        world.run(pause)
        _act(world, what, which)
    world.delete(grace=10)
    world.run(3600)
    assert world.released
    assert world.deleted
    assert world.running() == []
    assert world.sandbox is None
    assert world.status["phase"] in TERMINAL


@settings(max_examples=120, deadline=None)
@given(worlds(), actions)
def test_phases_and_counts_never_go_back(
    world: MachineWorld, steps: list[tuple[float, str, int]]
) -> None:
    for pause, what, which in steps:
        world.run(pause)
        _act(world, what, which)
    world.run(600)
    phases = [s["phase"] for s in world.statuses]
    for before, after in itertools.pairwise(phases):
        assert before not in TERMINAL or after == before
    counts: dict[str, int] = {}
    for status in world.statuses:
        for c in (*status.get("initContainerStatuses", ()), *status["containerStatuses"]):
            assert c["restartCount"] >= counts.get(c["name"], 0)
            counts[c["name"]] = c["restartCount"]
            assert len(c["state"]) == 1
            assert not c["ready"] or "terminated" in c["state"] or "running" in c["state"]
    for name, unit in world.machine.units.items():
        if unit.role != "sidecar" and world.pod["spec"]["restartPolicy"] == "Never":
            lost = any(what == "lose" for _, what, _ in steps)
            ran = [n for _, n in world.started if n == name]
            assert len(ran) <= 1 or (unit.role == "init" and lost)


@settings(max_examples=40, deadline=None)
@given(worlds(), actions)
def test_left_alone_it_settles(world: MachineWorld, steps: list[tuple[float, str, int]]) -> None:
    for pause, what, which in steps:
        world.run(pause)
        _act(world, what, which)
    world.run(5000)
    count = len(world.answers)
    world.run(600)
    # Every ten seconds at the most, a handful of instructions per container (what cannot be made).
    assert len(world.answers) - count < 10 * 60 * len(world.machine.units)


@settings(max_examples=80, deadline=None)
@given(worlds(), actions)
def test_the_same_story_gives_the_same_instructions(
    world: MachineWorld, steps: list[tuple[float, str, int]]
) -> None:
    first = world.pod
    for pause, what, which in steps:
        world.run(pause)
        _act(world, what if what != "restart" else "none", which)
    world.delete()
    world.run(100)
    told = [i for _, i in world.answers]
    again = PodMachine(first, host_ips=("10.0.0.1",))
    replayed = [i for now, stimuli in world.machine.story for i in again.handle(*stimuli, now=now)]
    if len(world.machine.story) < 1000:
        assert replayed == told


@pytest.mark.parametrize("seed", range(5))
def test_two_worlds_of_one_seed_are_one(seed: int) -> None:
    pod = pod_body({"name": "m0"}, {"name": "m1"}, init=({"name": "i0"},))
    plan = {"i0": [Script(run=1.0)], "m0": [Script(run=2.0, exit=1)]}
    ends = []
    for _ in range(2):
        world = _world(pod, plan, seed)
        world.run(500)
        ends.append((world.answers, world.status))
    assert ends[0] == ends[1]
