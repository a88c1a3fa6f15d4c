"""PodMachine: the kubelet's rules, one by one."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from sampan.node import stimuli as st
from sampan.testing.machine_world import START, MachineWorld, Script, pod_body


def test_a_pod_starts_in_order_and_becomes_ready() -> None:
    world = MachineWorld(pod_body({"name": "a"}, {"name": "b"}))
    assert world.container("a")["state"] == {"waiting": {"reason": "ContainerCreating"}}
    assert world.status["phase"] == "Pending"
    assert world.condition("PodReadyToStartContainers") == ("False", "", "")
    assert world.condition("Ready") == (
        "False",
        "ContainersNotReady",
        "containers with unready status: [a b]",
    )
    world.run(5)
    kinds = [
        type(i).__name__ for _, i in world.answers if not isinstance(i, st.SetStatus | st.Emit)
    ]
    assert kinds == [
        "MountVolumes",
        "RunSandbox",
        "PullImage",
        "PullImage",
        "CreateContainer",
        "CreateContainer",
        "StartContainer",
        "StartContainer",
    ]
    assert world.status["phase"] == "Running"
    assert [c["type"] for c in world.status["conditions"]] == [
        "PodReadyToStartContainers",
        "Initialized",
        "Ready",
        "ContainersReady",
        "PodScheduled",
    ]
    assert all(c["status"] == "True" for c in world.status["conditions"])
    assert all(c["observedGeneration"] == 1 for c in world.status["conditions"])
    assert world.status["podIPs"] == [{"ip": "10.42.0.2"}]
    assert world.status["hostIP"] == "10.0.0.1"
    a = world.container("a")
    assert (a["ready"], a["started"], a["restartCount"]) == (True, True, 0)
    assert a["containerID"].startswith("sampan://")
    assert a["imageID"] == "sha256:img"
    assert world.events() == [
        'Normal Pulled Container image "img" already present on machine and can be accessed by '
        "the pod",
        'Normal Pulled Container image "img" already present on machine and can be accessed by '
        "the pod",
        "Normal Created Container created",
        "Normal Created Container created",
        "Normal Started Container started",
        "Normal Started Container started",
    ]


def test_a_settled_status_is_said_to_be_so() -> None:
    world = MachineWorld(pod_body())
    world.run(5)
    written = world.of(st.SetStatus)
    assert [s.settled for s in written[:-1]] == [False] * (len(written) - 1)
    assert written[-1].settled


def test_crash_loop_backs_off_as_the_kubelet_does() -> None:
    world = MachineWorld(pod_body(), scripts={"a": [Script(run=1.0, exit=3)]})
    world.run(1000)
    starts = [t - world.started[0][0] for t, _ in world.started]
    gaps = [round(b - a - 1.0) for a, b in itertools.pairwise(starts)]
    assert gaps[:7] == [0, 10, 20, 40, 80, 160, 300]
    a = world.container("a")
    assert a["state"]["waiting"] == {
        "reason": "CrashLoopBackOff",
        "message": "back-off 5m0s restarting failed container=a pod=p_ns(u)",
    }
    assert a["lastState"]["terminated"]["exitCode"] == 3
    assert a["lastState"]["terminated"]["reason"] == "Error"
    assert a["restartCount"] == len(world.started) - 1
    assert world.status["phase"] == "Running"
    assert "Warning BackOff Back-off restarting failed container a in pod p_ns(u)" in world.events()


def test_back_off_is_forgotten_after_ten_minutes() -> None:
    world = MachineWorld(
        pod_body(), scripts={"a": [Script(run=1.0, exit=1)] * 4 + [Script(run=601.0, exit=1)]}
    )
    world.run(2000)
    starts = [t for t, _ in world.started]
    after_long_runs = [round(b - a - 601.0) for a, b in itertools.pairwise(starts[4:])]
    assert after_long_runs[0] == 0


@pytest.mark.parametrize(
    ("policy", "code", "phase", "restarts"),
    [
        ("Always", 0, "Running", True),
        ("Always", 1, "Running", True),
        ("OnFailure", 0, "Succeeded", False),
        ("OnFailure", 1, "Running", True),
        ("Never", 0, "Succeeded", False),
        ("Never", 1, "Failed", False),
    ],
)
def test_restart_policies(policy: str, code: int, phase: str, restarts: bool) -> None:
    world = MachineWorld(
        pod_body(restartPolicy=policy), scripts={"a": [Script(run=1.0, exit=code)]}
    )
    world.run(60)
    assert world.status["phase"] == phase
    assert (len(world.started) > 1) == restarts
    if not restarts:
        assert world.sandbox is not None
        assert not world.sandbox.ready
        assert [t.remove for t in world.torn] == [False]
        reason = "PodCompleted" if code == 0 else "PodFailed"
        assert world.condition("Ready") == ("False", reason, "")
        ended = world.container("a")["state"]["terminated"]
        assert (ended["exitCode"], ended["reason"]) == (code, "Completed" if code == 0 else "Error")
        assert ended["containerID"] == world.container("a")["containerID"]


@pytest.mark.parametrize(
    ("rules", "code", "phase"),
    [
        ({"restartPolicy": "Never"}, 1, "Failed"),
        ({"restartPolicy": "OnFailure"}, 0, "Succeeded"),
        (
            {
                "restartPolicy": "Never",
                "restartPolicyRules": [
                    {"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}
                ],
            },
            42,
            "Running",
        ),
    ],
)
def test_a_containers_own_restart_rules(rules: dict[str, object], code: int, phase: str) -> None:
    world = MachineWorld(
        pod_body({"name": "a", **rules}), scripts={"a": [Script(run=1.0, exit=code)]}
    )
    world.run(60)
    assert world.status["phase"] == phase


def test_a_pod_of_two_ends_when_both_have() -> None:
    world = MachineWorld(
        pod_body({"name": "a"}, {"name": "b"}, restartPolicy="Never"),
        scripts={"a": [Script(run=1.0)], "b": [Script(run=50.0, exit=2)]},
    )
    world.run(20)
    assert world.status["phase"] == "Running"
    assert world.container("a")["state"]["terminated"]["reason"] == "Completed"
    assert world.condition("Ready")[2] == "containers with unready status: [a]"
    world.run(100)
    assert world.status["phase"] == "Failed"


def test_init_containers_run_one_after_the_other() -> None:
    world = MachineWorld(
        pod_body({"name": "m"}, init=({"name": "i1"}, {"name": "i2"})),
        scripts={"i1": [Script(run=5.0)], "i2": [Script(run=5.0)]},
    )
    world.run(2)
    assert world.status["phase"] == "Pending"
    assert world.container("m")["state"] == {"waiting": {"reason": "PodInitializing"}}
    assert world.condition("Initialized") == (
        "False",
        "ContainersNotInitialized",
        "containers with incomplete status: [i1 i2]",
    )
    world.run(30)
    assert [n for _, n in world.started] == ["i1", "i2", "m"]
    assert world.status["phase"] == "Running"
    assert world.container("i1")["ready"] is True
    assert world.container("i1")["state"]["terminated"]["reason"] == "Completed"
    assert world.condition("Initialized") == ("True", "", "")


def test_a_failed_init_container_is_tried_again() -> None:
    world = MachineWorld(
        pod_body({"name": "m"}, init=({"name": "i"},)),
        scripts={"i": [Script(run=1.0, exit=1), Script(run=1.0, exit=1), Script(run=1.0)]},
    )
    world.run(8)
    assert world.container("i")["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    world.run(30)
    assert [n for _, n in world.started] == ["i", "i", "i", "m"]
    assert world.container("i")["restartCount"] == 2


def test_a_failed_init_container_fails_a_pod_that_never_restarts() -> None:
    world = MachineWorld(
        pod_body({"name": "m"}, init=({"name": "i"},), restartPolicy="Never"),
        scripts={"i": [Script(run=1.0, exit=1)]},
    )
    world.run(30)
    assert [n for _, n in world.started] == ["i"]
    assert world.status["phase"] == "Failed"
    assert world.container("m")["state"] == {"waiting": {"reason": "PodInitializing"}}


def test_sidecars_start_first_and_end_last() -> None:
    side = {"name": "s", "restartPolicy": "Always"}
    world = MachineWorld(
        pod_body({"name": "m"}, init=(side, {"name": "i"}), restartPolicy="Never"),
        scripts={"i": [Script(run=1.0)], "m": [Script(run=10.0)]},
    )
    world.run(5)
    assert [n for _, n in world.started] == ["s", "i", "m"]
    assert sorted(world.running()) == ["m", "s"]
    assert world.container("s")["ready"] is True
    world.run(30)
    assert world.status["phase"] == "Succeeded"
    assert world.container("s")["state"]["terminated"]["exitCode"] == 143


def test_sidecars_restart_while_the_pod_never_does() -> None:
    side = {"name": "s", "restartPolicy": "Always"}
    world = MachineWorld(
        pod_body({"name": "m"}, init=(side,), restartPolicy="Never"),
        scripts={"s": [Script(run=2.0, exit=1), Script()]},
    )
    world.run(20)
    assert world.container("s")["restartCount"] == 1
    assert sorted(world.running()) == ["m", "s"]
    assert world.condition("Initialized")[0] == "True"


def test_a_sidecars_startup_probe_holds_back_the_rest() -> None:
    side = {"name": "s", "restartPolicy": "Always", "startupProbe": {"exec": {}}}
    world = MachineWorld(pod_body({"name": "m"}, init=(side,)))
    world.run(5)
    assert world.running() == ["s"]
    world.probe("s", "startup", True)
    world.run(5)
    assert sorted(world.running()) == ["m", "s"]


def test_an_image_that_cannot_be_pulled() -> None:
    present = False

    def images(_: str) -> tuple[str, str] | None:
        return None if present else ("ErrImagePull", "no registry")

    world = MachineWorld(pod_body(), images=images)
    world.run(1)
    assert world.container("a")["state"]["waiting"] == {
        "reason": "ErrImagePull",
        "message": "no registry",
    }
    world.run(6)
    assert world.container("a")["state"]["waiting"] == {
        "reason": "ImagePullBackOff",
        "message": 'Back-off pulling image "img": ErrImagePull: no registry',
    }
    assert [e for e in world.events() if "Pull" in e or "pull" in e] == [
        'Warning Failed Failed to pull image "img": no registry',
        "Warning Failed Error: ErrImagePull",
        'Normal BackOff Back-off pulling image "img"',
        "Warning Failed Error: ImagePullBackOff",
    ]
    world.run(1500)
    tries = [t - START for t, i in world.answers if isinstance(i, st.PullImage)]
    gaps = [round(b - a) for a, b in itertools.pairwise(tries)]
    assert gaps[:6] == [10, 20, 40, 80, 160, 300]
    present = True
    world.run(301)
    assert world.status["phase"] == "Running"


def test_an_image_never_pulled() -> None:
    text = 'Container image "img" is not present with pull policy of Never'
    world = MachineWorld(pod_body(), images=lambda _: ("ErrImageNeverPull", text))
    world.run(60)
    assert world.container("a")["state"]["waiting"] == {
        "reason": "ErrImageNeverPull",
        "message": text,
    }
    assert [e for e in world.events() if "Never" in e] == [
        f"Warning ErrImageNeverPull {text}",
        "Warning Failed Error: ErrImageNeverPull",
    ]


def test_a_config_map_that_is_missing() -> None:
    error = ("CreateContainerConfigError", 'configmap "x" not found')
    script = Script(create_error=error)
    world = MachineWorld(pod_body(), scripts={"a": [script]})
    world.run(25)
    assert world.container("a")["state"]["waiting"] == {"reason": error[0], "message": error[1]}
    assert world.events().count('Warning Failed Error: configmap "x" not found') == 1
    assert world.container("a")["restartCount"] == 0
    script.create_error = None
    world.run(15)
    assert world.status["phase"] == "Running"
    assert world.container("a")["restartCount"] == 0


def test_a_command_that_does_not_exist() -> None:
    world = MachineWorld(pod_body(), scripts={"a": [Script(start_error="exec: no such file")]})
    seen: list[str] = []
    world.run(5)
    for status in world.statuses:
        waiting = status["containerStatuses"][0]["state"].get("waiting")
        if waiting:
            seen.append(waiting["reason"])
    assert "RunContainerError" in seen
    assert world.container("a")["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    last = world.container("a")["lastState"]["terminated"]
    assert (last["exitCode"], last["reason"], last["message"]) == (
        128,
        "StartError",
        "exec: no such file",
    )
    assert "Warning Failed Error: exec: no such file" in world.events()


def test_volumes_that_cannot_be_mounted() -> None:
    text = 'MountVolume.SetUp failed for volume "v" : configmap "x" not found'
    errors = [text, text, ""]
    world = MachineWorld(pod_body(), volumes=lambda: errors.pop(0))
    world.run(5)
    assert world.status["phase"] == "Pending"
    assert world.sandbox is None
    world.run(60)
    assert world.status["phase"] == "Running"
    assert world.events().count(f"Warning FailedMount {text}") == 1


def test_a_sandbox_that_cannot_be_made() -> None:
    errors = ["no address is free", ""]
    world = MachineWorld(pod_body(), sandbox_error=lambda: errors.pop(0))
    world.run(60)
    assert world.status["phase"] == "Running"
    assert (
        "Warning FailedCreatePodSandBox Failed to create pod sandbox: no address is free"
        in world.events()
    )


def test_a_hook_of_a_container_that_is_gone_fails() -> None:
    hook = {"postStart": {"exec": {"command": ["x"]}}}
    world = MachineWorld(pod_body({"name": "m", "lifecycle": hook}), delay=lambda: 0.1)
    # The hook begins only after the sandbox has been lost and its container removed.
    world.delay = lambda: 30.0 if isinstance(world.answers[-1][1], st.RunPostStart) else 0.1
    world.run(60, until=lambda: bool(world.of(st.RunPostStart)))
    world.lose_sandbox()
    world.run(120)
    assert world.running() == ["m"]
    assert world.status["phase"] == "Running"


@pytest.mark.parametrize("policy", ["Always", "OnFailure", "Never"])
def test_a_lost_sandbox_is_made_anew(policy: str) -> None:
    world = MachineWorld(
        pod_body({"name": "m"}, init=({"name": "i"},), restartPolicy=policy),
        scripts={"i": [Script(run=1.0)]},
    )
    world.run(10)
    world.lose_sandbox()
    world.run(30)
    names = [n for _, n in world.started]
    if policy == "Never":
        assert names == ["i", "m"]
        assert world.status["phase"] == "Failed"
    else:
        assert names == ["i", "m", "i", "m"]
        assert world.status["phase"] == "Running"
        assert world.container("m")["restartCount"] == 1
        assert world.container("m")["lastState"]["terminated"]["exitCode"] == 137
        assert world.status["podIP"] == "10.42.0.3"
        assert (
            "Normal SandboxChanged Pod sandbox changed, it will be killed and re-created."
            in world.events()
        )


PROBED = {
    "name": "a",
    "startupProbe": {"exec": {}},
    "readinessProbe": {"exec": {}},
    "livenessProbe": {"exec": {}, "terminationGracePeriodSeconds": 7},
}


def test_probes_start_one_another_and_decide_readiness() -> None:
    world = MachineWorld(pod_body(PROBED))
    world.run(5)
    assert [(p.kind, p.healthy) for p in world.of(st.StartProbe)] == [("startup", None)]
    assert (world.container("a")["started"], world.container("a")["ready"]) == (False, False)
    world.probe("a", "startup", None, "not yet")
    assert world.events()[-1] == "Warning Unhealthy Startup probe failed: not yet"
    world.probe("a", "startup", True)
    assert [(p.kind, p.healthy) for p in world.of(st.StartProbe)[1:]] == [
        ("readiness", None),
        ("liveness", True),
    ]
    assert (world.container("a")["started"], world.container("a")["ready"]) == (True, False)
    world.probe("a", "readiness", True)
    assert world.condition("Ready") == ("True", "", "")
    world.probe("a", "readiness", True, "HTTP probe failed with statuscode: 500")
    assert world.condition("Ready")[0] == "True"
    world.probe("a", "readiness", False, "HTTP probe failed with statuscode: 500")
    assert world.condition("Ready")[1:] == (
        "ContainersNotReady",
        "containers with unready status: [a]",
    )
    assert world.events()[-1] == (
        "Warning Unhealthy Readiness probe failed: HTTP probe failed with statuscode: 500"
    )


@pytest.mark.parametrize("kind", ["startup", "liveness"])
def test_an_unhealthy_container_is_restarted(kind: str) -> None:
    world = MachineWorld(pod_body(PROBED))
    world.run(5)
    if kind == "liveness":
        world.probe("a", "startup", True)
    world.probe("a", kind, False, "no answer")
    assert (
        world.events()[-1] == f"Normal Killing Container a failed {kind} probe, will be restarted"
    )
    [stop] = world.of(st.StopContainer)
    assert stop.grace == (7.0 if kind == "liveness" else 30.0)
    world.run(5)
    assert world.container("a")["restartCount"] == 1
    assert world.container("a")["lastState"]["terminated"]["exitCode"] == 143
    assert world.container("a")["started"] is False


def test_an_unhealthy_container_of_a_pod_that_never_restarts() -> None:
    world = MachineWorld(
        pod_body({"name": "a", "livenessProbe": {"exec": {}}}, restartPolicy="Never")
    )
    world.run(5)
    world.probe("a", "liveness", False, "no answer")
    assert world.events()[-1] == "Normal Killing Container a failed liveness probe"
    world.run(5)
    assert world.status["phase"] == "Failed"


def test_readiness_gates() -> None:
    pod = pod_body(readinessGates=[{"conditionType": "x/y"}])
    world = MachineWorld(pod)
    world.run(5)
    assert world.condition("ContainersReady")[0] == "True"
    assert world.condition("Ready") == (
        "False",
        "ReadinessGatesNotReady",
        'corresponding condition of pod readiness gate "x/y" does not exist.',
    )
    theirs = {"type": "x/y", "status": "True"}
    world.tell(st.PodSeen({**pod, "status": {**world.status, "conditions": [theirs]}}))
    assert world.condition("Ready")[0] == "True"
    assert world.condition("x/y")[0] == "True"


def test_post_start_holds_back_running_and_the_next_container() -> None:
    hooked = {"name": "a", "lifecycle": {"postStart": {"exec": {"command": ["x"]}}}}
    world = MachineWorld(pod_body(hooked, {"name": "b"}), scripts={"a": [Script(hook_time=5.0)]})
    world.run(3)
    assert world.container("a")["state"] == {"waiting": {"reason": "ContainerCreating"}}
    assert world.running() == ["a"]
    world.run(10)
    assert world.running() == ["a", "b"]
    assert world.status["phase"] == "Running"


def test_a_failed_post_start_kills() -> None:
    hooked = {"name": "a", "lifecycle": {"postStart": {"exec": {"command": ["x"]}}}}
    world = MachineWorld(pod_body(hooked), scripts={"a": [Script(hook_error="boom"), Script()]})
    world.run(10)
    assert world.container("a")["restartCount"] == 1
    assert world.status["phase"] == "Running"
    assert "Warning FailedPostStartHook PostStartHook failed" in world.events()
    assert "Normal Killing FailedPostStartHook" in world.events()


def test_deletion_stops_then_tears_down_then_deletes() -> None:
    world = MachineWorld(pod_body({"name": "a"}, {"name": "b"}))
    world.run(5)
    world.answers.clear()
    world.delete(grace=20)
    world.run(60)
    assert world.released
    assert world.deleted
    kinds = [
        type(i).__name__
        for _, i in world.answers
        if isinstance(
            i, st.StopContainer | st.StopSandbox | st.TearDown | st.DeletePod | st.ReleasePod
        )
    ]
    assert kinds == [
        "StopContainer",
        "StopContainer",
        "StopSandbox",
        "TearDown",
        "DeletePod",
        "ReleasePod",
    ]
    assert all(s.grace == 20.0 and s.pre_stop for s in world.of(st.StopContainer))
    assert world.of(st.TearDown)[0].remove
    assert world.events() == [
        "Normal Killing Stopping container a",
        "Normal Killing Stopping container b",
    ]
    assert world.status["phase"] == "Failed"  # 143: it did not end by its own will
    assert world.condition("PodReadyToStartContainers")[0] == "False"
    assert world.sandbox is None


def test_deletion_before_anything_ran() -> None:
    world = MachineWorld(pod_body(), images=lambda _: ("ErrImagePull", "no"))
    world.run(1)
    world.delete()
    world.run(60)
    assert world.released
    assert world.started == []


def test_deletion_while_starting() -> None:
    for steps in range(8):
        world = MachineWorld(pod_body())
        world.run(0.01 * steps + 0.005)
        world.delete()
        world.run(60)
        assert world.released, steps
        assert world.running() == []


def test_a_shorter_grace_period_hurries() -> None:
    world = MachineWorld(pod_body(), scripts={"a": [Script(stop_time=1e9)]})
    world.run(5)
    begun = world.now
    world.delete(grace=3600)
    world.run(1)
    world.delete(grace=2)
    world.run(60, until=lambda: world.released)
    assert world.released
    assert world.now - begun < 10
    assert [(s.grace, s.pre_stop) for s in world.of(st.StopContainer)] == [
        (3600.0, True),
        (2.0, False),
    ]


def test_forced_deletion_writes_no_status() -> None:
    world = MachineWorld(pod_body())
    world.run(5)
    count = len(world.statuses)
    world.force_delete()
    world.run(60)
    assert world.released
    assert world.running() == []
    assert len(world.statuses) == count
    assert world.of(st.StopContainer)[0].grace == 1.0


def test_the_active_deadline() -> None:
    world = MachineWorld(pod_body(activeDeadlineSeconds=60))
    world.run(59)
    assert world.status["phase"] == "Running"
    world.run(10)
    assert world.status["phase"] == "Failed"
    assert world.status["reason"] == "DeadlineExceeded"
    text = "Pod was active on the node longer than the specified deadline"
    assert world.status["message"] == text
    assert f"Normal DeadlineExceeded {text}" in world.events()
    assert world.running() == []


def test_a_new_image_restarts_the_container() -> None:
    world = MachineWorld(pod_body({"name": "a", "image": "v1"}, restartPolicy="Never"))
    world.run(5)
    world.change(containers=[{"name": "a", "image": "v2"}])
    world.run(5)
    assert "Normal Killing Container a definition changed, will be restarted" in world.events()
    assert world.status["phase"] == "Running"
    assert (world.container("a")["image"], world.container("a")["restartCount"]) == ("v2", 1)
    assert world.container("a")["imageID"] == "sha256:v2"


# ---- taking over -----------------------------------------------------------------------------


def test_a_new_agent_takes_a_running_pod_over() -> None:
    world = MachineWorld(pod_body(PROBED, {"name": "b"}))
    world.run(5)
    world.probe("a", "startup", True)
    world.probe("a", "readiness", True)
    before, started = world.status, len(world.started)
    world.answers.clear()
    world.statuses.clear()
    world.restart_agent()
    world.run(100)
    assert len(world.started) == started
    assert world.statuses == []
    assert world.status == before
    assert [(p.kind, p.healthy) for p in world.of(st.StartProbe)] == [
        ("readiness", True),
        ("liveness", True),
    ]
    world.end("b", 1)
    world.run(5)
    assert world.container("b")["restartCount"] == 1


def test_a_new_agent_sees_what_ended_meanwhile() -> None:
    world = MachineWorld(pod_body())
    world.run(5)
    [cid] = list(world.containers)
    world._note_exit(world.containers[cid], 9)
    world.restart_agent()
    world.run(5)
    assert world.container("a")["restartCount"] == 1
    assert world.container("a")["lastState"]["terminated"]["exitCode"] == 9


@pytest.mark.parametrize("policy", ["Always", "Never"])
def test_a_machine_that_was_restarted_has_lost_its_containers(policy: str) -> None:
    world = MachineWorld(
        pod_body({"name": "m"}, init=({"name": "i"},), restartPolicy=policy),
        scripts={"i": [Script(run=1.0)]},
    )
    world.run(10)
    world.sandbox = None
    world.containers.clear()
    world.restart_agent()
    world.run(30)
    if policy == "Never":
        assert world.status["phase"] == "Failed"
        ended = world.container("m")["state"]["terminated"]
    else:
        assert [n for _, n in world.started] == ["i", "m", "i", "m"]
        assert world.container("m")["restartCount"] == 1
        ended = world.container("m")["lastState"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (137, "ContainerStatusUnknown")


def test_a_container_that_was_only_created_is_replaced() -> None:
    world = MachineWorld(pod_body())
    world.run(60, until=lambda: any(c.state == "created" for c in world.containers.values()))
    world.restart_agent()
    world.run(10)
    assert world.status["phase"] == "Running"
    assert world.container("a")["restartCount"] == 0
    assert world.of(st.CreateContainer)[-1].replace


def test_a_finished_pod_stays_as_it_is() -> None:
    world = MachineWorld(pod_body(restartPolicy="Never"), scripts={"a": [Script(run=1.0)]})
    world.run(30)
    before = world.status
    world.statuses.clear()
    world.restart_agent()
    world.run(30)
    assert world.statuses == []
    assert world.status == before
    assert len(world.started) == 1
    world.delete()
    world.run(30)
    assert world.released
    assert world.status == before


def test_at_most_one_dead_attempt_is_kept() -> None:
    world = MachineWorld(pod_body(), scripts={"a": [Script(run=1.0)] * 3 + [Script()]})
    world.run(100)
    assert sorted(c.attempt for c in world.containers.values()) == [2, 3]


def test_who_a_container_runs_as_is_told() -> None:
    w = MachineWorld(pod_body({"name": "a"}))
    w.run(5.0)
    unit = w.machine.units["a"]
    assert unit.current is not None
    assert "user" not in w.status["containerStatuses"][0]  # the runtime does not say
    unit.current = replace(unit.current, user=(1000, 3000, (3000, 4000)))
    w.tell(st.Tick())
    assert w.status["containerStatuses"][0]["user"] == {
        "linux": {"uid": 1000, "gid": 3000, "supplementalGroups": [3000, 4000]}
    }
