"""What each stimulus changes in a pod's state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sampan.node import resizing
from sampan.node import stimuli as st
from sampan.node import units as un
from sampan.node.podstate import PodState
from sampan.node.runtime.base import SandboxState
from sampan.node.takeover import adopted, lost
from sampan.node.units import (
    ALIVE,
    CREATING,
    EXITED,
    HOOK,
    IDLE,
    PULLING,
    RUNNING,
    STARTING,
    STOPPING,
    Backoff,
    Unit,
)

RETRY = 10.0  # seconds between tries of what failed without a back-off of its own
FLIP = 5.0  # seconds for which ErrImagePull shows before ImagePullBackOff
_PROBES = {
    "startup": "startupProbe",
    "liveness": "livenessProbe",
    "readiness": "readinessProbe",
}


def react(m: PodState, stimulus: st.Stimulus) -> None:
    """Take one stimulus in."""
    _REACTIONS[type(stimulus)](m, stimulus)


def _pod_seen(m: PodState, s: st.PodSeen) -> None:
    m.pod = s.pod
    m.read_spec()
    meta = s.pod["metadata"]
    if "deletionTimestamp" not in meta:
        return
    given = meta.get("deletionGracePeriodSeconds")
    grace = max(1.0, float(m.grace if given is None else given))
    if m.winding and grace < m.grace:
        for unit in m.units.values():
            if unit.stage == STOPPING:
                m.out.append(st.StopContainer(unit.name, unit.id, grace, False))
    m.grace = grace
    m.deleting = True


def _pod_gone(m: PodState, _: st.PodGone) -> None:
    if not m.gone and not m.deleting:
        m.grace = 1.0  # deleted by force: nobody waits for it any more
    m.gone = True


def _observed(m: PodState, s: st.Observed) -> None:
    if m.sandbox is None or s.sandbox.id != m.sandbox.id:
        return
    if m.sandbox_stage == "up" and not s.sandbox.ready:
        m.sandbox_stage = "lost"
    _take_exits(m, s.sandbox)


def _take_exits(m: PodState, box: SandboxState) -> None:
    for state in box.containers:
        unit = m.units.get(state.name)
        if unit is None or unit.id != state.id or state.state != "exited":
            continue
        if unit.stage in ALIVE or unit.stage == STARTING:
            m.ended(unit, state)


def _volumes_ready(m: PodState, _: st.VolumesReady) -> None:
    m.volumes, m.volumes_failure = "ready", ""


def _volumes_failed(m: PodState, s: st.VolumesFailed) -> None:
    m.volumes, m.volumes_retry = "none", m.now + RETRY
    if s.message != m.volumes_failure:
        m.volumes_failure = s.message
        m.emit("Warning", "FailedMount", s.message)


def _sandbox_up(m: PodState, s: st.SandboxUp) -> None:
    m.sandbox = s.sandbox
    m.sandbox_stage = "up" if s.sandbox.ready else "lost"
    m.whole_resources = m.allocated[resizing.WHOLE]
    m.ips = s.sandbox.ips


def _sandbox_failed(m: PodState, s: st.SandboxFailed) -> None:
    m.sandbox_stage = "none"
    m.sandbox_attempt += 1
    m.sandbox_retry = m.now + RETRY
    m.out.append(st.RemoveSandbox(s.id))
    m.emit("Warning", "FailedCreatePodSandBox", f"Failed to create pod sandbox: {s.message}")


def _sandbox_down(m: PodState, s: st.SandboxDown) -> None:
    if m.sandbox is None or s.id != m.sandbox.id:
        return
    if s.state is not None:
        _take_exits(m, s.state)
    for unit in m.units.values():
        if unit.stage in ALIVE:
            m.ended(unit, lost(unit.name, unit.id, unit.attempt, m.now))
    m.sandbox_stage = "none"
    if m.winding:
        return
    m.out.append(st.RemoveSandbox(s.id))
    m.sandbox = None
    m.sandbox_attempt += 1
    m.sandbox_retry = m.sandbox_backoff.until(m.now)
    m.sandbox_backoff.step(m.now, m.now)
    m.initialised = False
    for unit in m.units.values():
        if unit.role == "init" and unit.stage == EXITED:
            unit.stage = IDLE  # a new sandbox is initialised anew


def _image_ready(m: PodState, s: st.ImageReady) -> None:
    unit = m.units[s.container]
    if unit.stage != PULLING or s.ref != unit.image:
        return
    if s.pulled:
        took = un.duration(round(s.seconds, 3))
        m.emit_for(
            unit,
            "Normal",
            "Pulled",
            f'Successfully pulled image "{s.ref}" in {took} ({took} including waiting). '
            f"Image size: {s.size} bytes.",
        )
    else:
        m.emit_for(
            unit,
            "Normal",
            "Pulled",
            f'Container image "{s.ref}" already present on machine and can be accessed by the pod',
        )
    unit.image_id = s.image_id
    unit.pull = Backoff()
    unit.flip_at = 0.0
    if m.sandbox is None or m.sandbox_stage != "up":
        m.rest(unit)
        return
    unit.stage = CREATING
    unit.id = un.container_id(m.uid, unit.name, unit.attempt + 1)
    unit.resources = m.allocated.get(unit.name, {})
    m.out.append(
        st.CreateContainer(
            unit.name, unit.id, unit.attempt + 1, m.sandbox.id, s.image_id, unit.replace
        )
    )


def _image_failed(m: PodState, s: st.ImageFailed) -> None:
    unit = m.units[s.container]
    if unit.stage != PULLING or s.ref != unit.image:
        return
    unit.stage = IDLE
    if s.reason == "ErrImagePull":
        unit.pull.step(m.now, m.now)
        unit.retry_at = m.now + unit.pull.delay
        unit.flip_at = m.now + FLIP
        m.emit_for(unit, "Warning", "Failed", f'Failed to pull image "{s.ref}": {s.message}')
        m.emit_for(unit, "Warning", "Failed", "Error: ErrImagePull")
    else:
        unit.retry_at = m.now + RETRY
        if unit.waiting != (s.reason, s.message):
            if s.reason == "ErrImageNeverPull":
                m.emit_for(unit, "Warning", "ErrImageNeverPull", s.message)
            m.emit_for(unit, "Warning", "Failed", f"Error: {s.reason}")
    unit.waiting = (s.reason, s.message)


def _created(m: PodState, s: st.Created) -> None:
    unit = m.units[s.container]
    if unit.stage != CREATING or unit.id != s.id:
        return
    m.emit_for(unit, "Normal", "Created", "Container created")
    if m.winding:
        unit.replace = True
        m.rest(unit)
        return
    unit.attempt += 1
    unit.replace = False
    unit.stage = STARTING
    m.out.append(st.StartContainer(unit.name, unit.id))


def _create_failed(m: PodState, s: st.CreateFailed) -> None:
    unit = m.units[s.container]
    if unit.stage != CREATING or unit.id != s.id:
        return
    m.rest(unit)
    unit.stage = IDLE
    unit.replace = True
    unit.retry_at = m.now + RETRY
    if unit.waiting != (s.reason, s.message):
        m.emit_for(unit, "Warning", "Failed", f"Error: {s.message}")
    unit.waiting = (s.reason, s.message)


def _started(m: PodState, s: st.Started) -> None:
    unit = m.units[s.container]
    if unit.id != s.id:
        return
    m.emit_for(unit, "Normal", "Started", "Container started")
    if unit.stage != STARTING:
        return  # its exit was seen first
    if s.state.state == "exited":
        m.ended(unit, s.state)
        return
    m.note(unit, s.state)
    unit.waiting = None
    if (m.specs[unit.name].get("lifecycle") or {}).get("postStart"):
        unit.stage = HOOK
        m.out.append(st.RunPostStart(unit.name, unit.id))
    else:
        m.run(unit)


def _start_failed(m: PodState, s: st.StartFailed) -> None:
    unit = m.units[s.container]
    if unit.stage != STARTING or unit.id != s.id:
        return
    m.emit_for(unit, "Warning", "Failed", f"Error: {s.message}")
    state = replace(
        lost(unit.name, unit.id, unit.attempt, m.now),
        exit_code=128,
        reason="StartError",
        message=s.message,
    )
    m.ended(unit, state)
    unit.waiting = ("RunContainerError", s.message)


def _hook_done(m: PodState, s: st.HookDone) -> None:
    unit = m.units[s.container]
    if unit.stage != HOOK or unit.id != s.id:
        return
    if not s.failure:
        m.run(unit)
        return
    m.emit_for(unit, "Warning", "FailedPostStartHook", "PostStartHook failed")
    m.emit_for(unit, "Normal", "Killing", "FailedPostStartHook")
    m.stop(unit, float(m.pod["spec"].get("terminationGracePeriodSeconds") or 30))


def _stopped(m: PodState, s: st.Stopped) -> None:
    unit = m.units[s.container]
    if unit.id != s.id:
        return
    if s.hook_failure:
        m.emit_for(unit, "Warning", "FailedPreStopHook", "PreStopHook failed")
    if unit.stage == STOPPING:
        m.ended(unit, s.state or lost(unit.name, unit.id, unit.attempt, m.now))


def _probed(m: PodState, s: st.Probed) -> None:
    unit = m.units[s.container]
    if unit.id != s.id or unit.stage not in (RUNNING, STOPPING):
        return
    if s.failure:
        how = "errored and resulted in unknown state" if s.errored else "failed"
        m.emit_for(
            unit,
            "Warning",
            "Unhealthy",
            f"{s.kind.capitalize()} probe {how}: {s.failure}",
        )
    if s.kind == "readiness":
        unit.ready = bool(s.healthy) and unit.started
    elif unit.stage == STOPPING:
        return
    elif s.healthy is False:
        _kill_unhealthy(m, unit, s.kind)
    elif s.kind == "startup" and s.healthy and not unit.started:
        m.out.append(st.StopProbes(unit.name, "startup"))
        m.has_started(unit, ready=False)


def _kill_unhealthy(m: PodState, unit: Unit, kind: str) -> None:
    probe = m.spec_of(unit, _PROBES[kind])
    grace = probe.get("terminationGracePeriodSeconds")
    if grace is None:
        grace = m.pod["spec"].get("terminationGracePeriodSeconds") or 0
    text = f"Container {unit.name} failed {kind} probe"
    if m.restarts(unit, 1):
        text += ", will be restarted"
    m.emit_for(unit, "Normal", "Killing", text)
    m.stop(unit, float(grace))


def _evicted(m: PodState, s: st.Evicted) -> None:
    if m.winding or m.failure is not None:
        return
    m.failure = ("Evicted", s.message)
    m.grace = 1.0
    m.emit("Warning", "Evicted", s.message)


def _refused(m: PodState, s: st.Refused) -> None:
    m.refused = (s.reason, s.message)


def _torn_down(m: PodState, _: st.TornDown) -> None:
    m.torn, m.tearing = max(m.torn, m.tearing), 0


def _tear_down_failed(m: PodState, s: st.TearDownFailed) -> None:
    m.tearing, m.tear_retry = 0, m.now + RETRY
    m.emit("Warning", "FailedKillPod", f"error killing pod: {s.message}")


def _tick(m: PodState, _: st.Tick) -> None:
    m.armed = 0.0


_REACTIONS: dict[type, Callable[[PodState, Any], None]] = {
    st.PodSeen: _pod_seen,
    st.PodGone: _pod_gone,
    st.Adopted: adopted,
    st.Observed: _observed,
    st.VolumesReady: _volumes_ready,
    st.VolumesFailed: _volumes_failed,
    st.SandboxUp: _sandbox_up,
    st.SandboxFailed: _sandbox_failed,
    st.SandboxDown: _sandbox_down,
    st.ImageReady: _image_ready,
    st.ImageFailed: _image_failed,
    st.Created: _created,
    st.CreateFailed: _create_failed,
    st.Started: _started,
    st.StartFailed: _start_failed,
    st.HookDone: _hook_done,
    st.Stopped: _stopped,
    st.Probed: _probed,
    st.Refused: _refused,
    st.Judged: resizing.judged,
    st.Resized: resizing.resized,
    st.RoomChanged: resizing.room_changed,
    st.Evicted: _evicted,
    st.TornDown: _torn_down,
    st.TearDownFailed: _tear_down_failed,
    st.Tick: _tick,
}
