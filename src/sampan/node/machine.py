"""PodMachine: decides, purely, what a node does about one pod.

It is told stimuli and answers with instructions; the agent carries those out and tells it how
they went. No clock, no I/O, no randomness: the same story gives the same instructions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sampan.api.obj import Body
from sampan.lib.clock import parse_rfc3339
from sampan.node import stimuli as st
from sampan.node import units as un
from sampan.node.runtime.base import ContainerState, SandboxState
from sampan.node.status import pod_status
from sampan.node.units import (
    ALIVE,
    CREATING,
    EXITED,
    FLIGHT,
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
EPSILON = 0.001  # timers may come this early
LOST = "The container could not be located when the pod was terminated"
DEADLINE = "Pod was active on the node longer than the specified deadline"
_PROBES = {
    "startup": "startupProbe",
    "liveness": "livenessProbe",
    "readiness": "readinessProbe",
}


class PodMachine:
    """One pod on its node.

    ``handle`` is the only way in. ``story`` holds the last thousand calls of it: (now, stimuli).
    """

    def __init__(self, pod: Body, *, host_ip: str = "") -> None:
        self.pod = pod
        self.host_ip = host_ip
        self.uid = str(pod["metadata"].get("uid", ""))
        self.story: deque[tuple[float, tuple[st.Stimulus, ...]]] = deque(maxlen=1000)
        self.specs: dict[str, Body] = {}
        self.units: dict[str, Unit] = {}
        self._read_spec()
        self.sandbox: SandboxState | None = None
        self.sandbox_stage = "none"  # none, starting, up, lost, stopping
        self.ips: tuple[str, ...] = tuple(
            e["ip"] for e in (pod.get("status") or {}).get("podIPs") or ()
        )
        self.initialised = False
        self.winding = False
        self.failure: tuple[str, str] | None = None  # reason, message of a pod that was ended
        self.status: Body = pod.get("status") or {}
        self.frozen = self.status.get("phase") in ("Succeeded", "Failed")
        self.deleting = False
        self.gone = False
        self.released = False
        self.start_time = 0.0
        self._sandbox_attempt = 0
        self._sandbox_retry = 0.0
        self._sandbox_backoff = Backoff()
        self._volumes = "none"  # none, mounting, ready
        self._volumes_retry = 0.0
        self._volumes_failure = ""
        self._grace = float(pod["spec"].get("terminationGracePeriodSeconds") or 0)
        self._wound_at = 0.0
        self._torn = 0  # 1: volumes are unmounted, 2: everything is removed
        self._tearing = 0
        self._tear_retry = 0.0
        self._delete = ""  # '', wanted, asked
        self._armed = 0.0
        self._now = 0.0
        self._out: list[st.Instruction] = []

    # ---- the way in ----------------------------------------------------------------------------

    def handle(self, *stimuli: st.Stimulus, now: float) -> list[st.Instruction]:
        """What to do about *stimuli*, at *now* (epoch seconds)."""
        self.story.append((now, stimuli))
        self._now = now
        self._out = []
        if not self.start_time:
            known = self.status.get("startTime")
            self.start_time = parse_rfc3339(known) if known else now
        for stimulus in stimuli:
            _HANDLERS[type(stimulus)](self, stimulus)
        if not self.released:
            self._decide()
            self._report()
            self._arm()
        return self._out

    @property
    def settled(self) -> bool:
        """No operation is under way whose outcome will change the status in a moment."""
        if any(u.stage in FLIGHT for u in self.units.values()):
            return False
        if self.winding:
            return not (self.deleting and self._delete == "")
        return self._volumes != "mounting" and self.sandbox_stage not in ("starting", "stopping")

    # ---- stimuli -------------------------------------------------------------------------------

    def _pod_seen(self, s: st.PodSeen) -> None:
        self.pod = s.pod
        self._read_spec()
        meta = s.pod["metadata"]
        if "deletionTimestamp" not in meta:
            return
        given = meta.get("deletionGracePeriodSeconds")
        grace = max(1.0, float(self._grace if given is None else given))
        if self.winding and grace < self._grace:
            for unit in self.units.values():
                if unit.stage == STOPPING:
                    self._out.append(st.StopContainer(unit.name, unit.id, grace, False))
        self._grace = grace
        self.deleting = True

    def _pod_gone(self, _: st.PodGone) -> None:
        if not self.gone and not self.deleting:
            self._grace = 1.0  # deleted by force: nobody waits for it any more
        self.gone = True

    def _adopted(self, s: st.Adopted) -> None:
        if s.sandboxes:
            chosen = max(s.sandboxes, key=lambda b: (b.ready, b.attempt))
            for other in s.sandboxes:
                if other.id != chosen.id:
                    self._out.append(st.RemoveSandbox(other.id))
            self.sandbox = chosen
            self.sandbox_stage = "up" if chosen.ready else "lost"
            self._sandbox_attempt = max(b.attempt for b in s.sandboxes)
            self.ips = chosen.ips or self.ips
        before = {
            c["name"]: c
            for key in ("initContainerStatuses", "containerStatuses")
            for c in self.status.get(key) or ()
        }
        for unit in self.units.values():
            self._adopt(unit, s.sandboxes, before.get(unit.name) or {})
        mains = [u for u in self.units.values() if u.role == "main"]
        self.initialised = bool(self.sandbox) and any(
            any(c.name == u.name for c in self.sandbox.containers)  # type: ignore[union-attr]
            for u in mains
        )
        if self.sandbox is None and not self.frozen:
            for unit in self._of("init"):
                if unit.succeeded:
                    unit.stage = IDLE  # a new sandbox is initialised anew

    def _adopt(self, unit: Unit, boxes: tuple[SandboxState, ...], before: Body) -> None:
        found = sorted(
            (c for b in boxes for c in b.containers if c.name == unit.name),
            key=lambda c: c.attempt,
        )
        while found and found[-1].state not in ("running", "exited"):
            found.pop()  # created but never started: the next try replaces it
            unit.replace = True
        if not found:
            lost = _from_status(before, self._now)
            if lost is not None:
                unit.current, unit.attempt, unit.stage = lost, lost.attempt, EXITED
                unit.id = lost.id
            return
        unit.current = found[-1]
        unit.id, unit.attempt = unit.current.id, unit.current.attempt
        unit.last = found[-2] if len(found) > 1 else None
        unit.image = str(before.get("image") or self.specs[unit.name].get("image", ""))
        if unit.current.state == "exited":
            unit.stage = EXITED
            return
        unit.stage = RUNNING
        if self._spec_of(unit, "startupProbe") and not before.get("started"):
            self._out.append(st.StartProbe(unit.name, unit.id, "startup"))
        else:
            self._has_started(unit, ready=bool(before.get("ready")))

    def _observed(self, s: st.Observed) -> None:
        if self.sandbox is None or s.sandbox.id != self.sandbox.id:
            return
        if self.sandbox_stage == "up" and not s.sandbox.ready:
            self.sandbox_stage = "lost"
        self._take_exits(s.sandbox)

    def _take_exits(self, box: SandboxState) -> None:
        for state in box.containers:
            unit = self.units.get(state.name)
            if unit is None or unit.id != state.id or state.state != "exited":
                continue
            if unit.stage in ALIVE or unit.stage == STARTING:
                self._ended(unit, state)

    def _volumes_ready(self, _: st.VolumesReady) -> None:
        self._volumes, self._volumes_failure = "ready", ""

    def _volumes_failed(self, s: st.VolumesFailed) -> None:
        self._volumes, self._volumes_retry = "none", self._now + RETRY
        if s.message != self._volumes_failure:
            self._volumes_failure = s.message
            self._emit("Warning", "FailedMount", s.message)

    def _sandbox_up(self, s: st.SandboxUp) -> None:
        self.sandbox = s.sandbox
        self.sandbox_stage = "up" if s.sandbox.ready else "lost"
        self.ips = s.sandbox.ips

    def _sandbox_failed(self, s: st.SandboxFailed) -> None:
        self.sandbox_stage = "none"
        self._sandbox_attempt += 1
        self._sandbox_retry = self._now + RETRY
        self._out.append(st.RemoveSandbox(s.id))
        self._emit(
            "Warning", "FailedCreatePodSandBox", f"Failed to create pod sandbox: {s.message}"
        )

    def _sandbox_down(self, s: st.SandboxDown) -> None:
        if self.sandbox is None or s.id != self.sandbox.id:
            return
        if s.state is not None:
            self._take_exits(s.state)
        for unit in self.units.values():
            if unit.stage in ALIVE:
                self._ended(unit, _lost(unit.name, unit.id, unit.attempt, self._now))
        self.sandbox_stage = "none"
        if self.winding:
            return
        self._out.append(st.RemoveSandbox(s.id))
        self.sandbox = None
        self._sandbox_attempt += 1
        self._sandbox_retry = self._sandbox_backoff.until(self._now)
        self._sandbox_backoff.step(self._now, self._now)
        self.initialised = False
        for unit in self.units.values():
            if unit.role == "init" and unit.stage == EXITED:
                unit.stage = IDLE  # a new sandbox is initialised anew

    def _image_ready(self, s: st.ImageReady) -> None:
        unit = self.units[s.container]
        if unit.stage != PULLING or s.ref != unit.image:
            return
        if s.pulled:
            took = un.duration(round(s.seconds, 3))
            self._emit_for(
                unit,
                "Normal",
                "Pulled",
                f'Successfully pulled image "{s.ref}" in {took} ({took} including waiting). '
                f"Image size: {s.size} bytes.",
            )
        else:
            self._emit_for(
                unit,
                "Normal",
                "Pulled",
                f'Container image "{s.ref}" already present on machine and can be accessed by '
                "the pod",
            )
        unit.image_id = s.image_id
        unit.pull = Backoff()
        unit.flip_at = 0.0
        if self.sandbox is None or self.sandbox_stage != "up":
            self._rest(unit)
            return
        unit.stage = CREATING
        unit.id = un.container_id(self.uid, unit.name, unit.attempt + 1)
        self._out.append(
            st.CreateContainer(
                unit.name, unit.id, unit.attempt + 1, self.sandbox.id, s.image_id, unit.replace
            )
        )

    def _image_failed(self, s: st.ImageFailed) -> None:
        unit = self.units[s.container]
        if unit.stage != PULLING or s.ref != unit.image:
            return
        unit.stage = IDLE
        if s.reason == "ErrImagePull":
            unit.pull.step(self._now, self._now)
            unit.retry_at = self._now + unit.pull.delay
            unit.flip_at = self._now + FLIP
            self._emit_for(
                unit, "Warning", "Failed", f'Failed to pull image "{s.ref}": {s.message}'
            )
            self._emit_for(unit, "Warning", "Failed", "Error: ErrImagePull")
        else:
            unit.retry_at = self._now + RETRY
            if unit.waiting != (s.reason, s.message):
                if s.reason == "ErrImageNeverPull":
                    self._emit_for(unit, "Warning", "ErrImageNeverPull", s.message)
                self._emit_for(unit, "Warning", "Failed", f"Error: {s.reason}")
        unit.waiting = (s.reason, s.message)

    def _created(self, s: st.Created) -> None:
        unit = self.units[s.container]
        if unit.stage != CREATING or unit.id != s.id:
            return
        self._emit_for(unit, "Normal", "Created", "Container created")
        if self.winding:
            unit.replace = True
            self._rest(unit)
            return
        unit.attempt += 1
        unit.replace = False
        unit.stage = STARTING
        self._out.append(st.StartContainer(unit.name, unit.id))

    def _create_failed(self, s: st.CreateFailed) -> None:
        unit = self.units[s.container]
        if unit.stage != CREATING or unit.id != s.id:
            return
        self._rest(unit)
        unit.stage = IDLE
        unit.replace = True
        unit.retry_at = self._now + RETRY
        if unit.waiting != (s.reason, s.message):
            self._emit_for(unit, "Warning", "Failed", f"Error: {s.message}")
        unit.waiting = (s.reason, s.message)

    def _started(self, s: st.Started) -> None:
        unit = self.units[s.container]
        if unit.id != s.id:
            return
        self._emit_for(unit, "Normal", "Started", "Container started")
        if unit.stage != STARTING:
            return  # its exit was seen first
        if s.state.state == "exited":
            self._ended(unit, s.state)
            return
        self._note(unit, s.state)
        unit.waiting = None
        if (self.specs[unit.name].get("lifecycle") or {}).get("postStart"):
            unit.stage = HOOK
            self._out.append(st.RunPostStart(unit.name, unit.id))
        else:
            self._run(unit)

    def _start_failed(self, s: st.StartFailed) -> None:
        unit = self.units[s.container]
        if unit.stage != STARTING or unit.id != s.id:
            return
        self._emit_for(unit, "Warning", "Failed", f"Error: {s.message}")
        state = replace(
            _lost(unit.name, unit.id, unit.attempt, self._now),
            exit_code=128,
            reason="StartError",
            message=s.message,
        )
        self._ended(unit, state)
        unit.waiting = ("RunContainerError", s.message)

    def _hook_done(self, s: st.HookDone) -> None:
        unit = self.units[s.container]
        if unit.stage != HOOK or unit.id != s.id:
            return
        if not s.failure:
            self._run(unit)
            return
        self._emit_for(unit, "Warning", "FailedPostStartHook", "PostStartHook failed")
        self._emit_for(unit, "Normal", "Killing", "FailedPostStartHook")
        self._stop(unit, float(self.pod["spec"].get("terminationGracePeriodSeconds") or 30))

    def _stopped(self, s: st.Stopped) -> None:
        unit = self.units[s.container]
        if unit.id != s.id:
            return
        if s.hook_failure:
            self._emit_for(unit, "Warning", "FailedPreStopHook", "PreStopHook failed")
        if unit.stage == STOPPING:
            self._ended(unit, s.state or _lost(unit.name, unit.id, unit.attempt, self._now))

    def _probed(self, s: st.Probed) -> None:
        unit = self.units[s.container]
        if unit.id != s.id or unit.stage not in (RUNNING, STOPPING):
            return
        if s.failure:
            how = "errored and resulted in unknown state" if s.errored else "failed"
            self._emit_for(
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
            self._kill_unhealthy(unit, s.kind)
        elif s.kind == "startup" and s.healthy and not unit.started:
            self._out.append(st.StopProbes(unit.name, "startup"))
            self._has_started(unit, ready=False)

    def _kill_unhealthy(self, unit: Unit, kind: str) -> None:
        probe = self._spec_of(unit, _PROBES[kind])
        grace = probe.get("terminationGracePeriodSeconds")
        if grace is None:
            grace = self.pod["spec"].get("terminationGracePeriodSeconds") or 0
        text = f"Container {unit.name} failed {kind} probe"
        if self._restarts(unit, 1):
            text += ", will be restarted"
        self._emit_for(unit, "Normal", "Killing", text)
        self._stop(unit, float(grace))

    def _torn_down(self, _: st.TornDown) -> None:
        self._torn, self._tearing = max(self._torn, self._tearing), 0

    def _tear_down_failed(self, s: st.TearDownFailed) -> None:
        self._tearing, self._tear_retry = 0, self._now + RETRY
        self._emit("Warning", "FailedKillPod", f"error killing pod: {s.message}")

    def _tick(self, _: st.Tick) -> None:
        self._armed = 0.0

    # ---- decisions -----------------------------------------------------------------------------

    def _decide(self) -> None:
        if not self.winding and self._is_over():
            self.winding, self._wound_at = True, self._now
        if self.winding:
            self._wind_down()
            return
        if self._volumes != "ready":
            if self._volumes == "none" and self._due(self._volumes_retry):
                self._volumes = "mounting"
                self._out.append(st.MountVolumes())
            return
        if self._has_sandbox() and self._is_initialised():
            for unit in self._of("main"):
                self._keep(unit)
                if unit.stage in (PULLING, CREATING, STARTING, HOOK) and (
                    self.specs[unit.name].get("lifecycle") or {}
                ).get("postStart"):
                    return  # the next container starts when this one's hook has returned

    def _is_over(self) -> bool:
        """Whether everything that still runs has to end."""
        if self.deleting or self.gone or self.frozen:
            return True
        deadline = self.pod["spec"].get("activeDeadlineSeconds")
        if deadline is not None and self._due(self.start_time + float(deadline)):
            self.failure = ("DeadlineExceeded", DEADLINE)
            self._emit("Normal", "DeadlineExceeded", DEADLINE)
            return True
        if any(self._has_finished(u) and not u.succeeded for u in self._of("init")):
            return True
        mains = self._of("main")
        return bool(mains) and all(self._has_finished(u) for u in mains)

    def _has_finished(self, unit: Unit) -> bool:
        return (
            unit.stage == EXITED
            and not unit.forced
            and unit.current is not None
            and not self._restarts(unit, unit.current.exit_code)
        )

    def _has_sandbox(self) -> bool:
        if self.sandbox_stage == "up":
            return True
        if self.sandbox_stage == "lost" and self.sandbox is not None:
            self.sandbox_stage = "stopping"
            self._emit(
                "Normal",
                "SandboxChanged",
                "Pod sandbox changed, it will be killed and re-created.",
            )
            self._out.append(st.StopSandbox(self.sandbox.id))
        elif self.sandbox_stage == "none" and self._due(self._sandbox_retry):
            self.sandbox_stage = "starting"
            self._out.append(
                st.RunSandbox(un.sandbox_id(self.uid, self._sandbox_attempt), self._sandbox_attempt)
            )
        return False

    def _is_initialised(self) -> bool:
        """Drives the init containers; true when the main containers may run."""
        for unit in self.units.values():
            if unit.role == "sidecar":
                self._keep(unit)
                if not self.initialised and not unit.started:
                    return False
            elif unit.role == "init" and not self.initialised and not unit.succeeded:
                self._keep(unit)
                return False
        self.initialised = True
        return True

    def _keep(self, unit: Unit) -> None:
        """Take the next step, if one is due, for a container that shall run."""
        if unit.stage == IDLE:
            if self._due(unit.retry_at):
                self._begin(unit)
            elif unit.flip_at and self._due(unit.flip_at):
                self._show_pull_backoff(unit)
        elif unit.stage == RUNNING:
            if unit.image and self.specs[unit.name].get("image", "") != unit.image:
                unit.forced = True
                self._emit_for(
                    unit,
                    "Normal",
                    "Killing",
                    f"Container {unit.name} definition changed, will be restarted",
                )
                self._stop(unit, float(self.pod["spec"].get("terminationGracePeriodSeconds") or 0))
        elif unit.stage == EXITED and unit.current is not None:
            if unit.forced:
                self._begin(unit)
            elif not self._restarts(unit, unit.current.exit_code):
                unit.waiting = None
            else:
                self._restart(unit, unit.current.finished_at)

    def _restart(self, unit: Unit, finished: float) -> None:
        if self._due(unit.crash.until(finished)):
            unit.crash.step(finished, self._now)
            self._begin(unit)
        elif unit.waiting is None or unit.waiting[0] != "CrashLoopBackOff":
            whole = un.pod_name(self.pod)
            unit.waiting = (
                "CrashLoopBackOff",
                f"back-off {un.duration(unit.crash.delay)} restarting failed "
                f"container={unit.name} pod={whole}",
            )
            self._emit_for(
                unit,
                "Warning",
                "BackOff",
                f"Back-off restarting failed container {unit.name} in pod {whole}",
            )

    def _show_pull_backoff(self, unit: Unit) -> None:
        unit.flip_at = 0.0
        text = f'Back-off pulling image "{unit.image}"'
        self._emit_for(unit, "Normal", "BackOff", text)
        self._emit_for(unit, "Warning", "Failed", "Error: ImagePullBackOff")
        why = unit.waiting[1] if unit.waiting else ""
        unit.waiting = ("ImagePullBackOff", f"{text}: ErrImagePull: {why}")

    def _begin(self, unit: Unit) -> None:
        spec = self.specs[unit.name]
        unit.stage, unit.forced = PULLING, False
        unit.image = str(spec.get("image", ""))
        unit.retry_at = unit.flip_at = 0.0
        self._out.append(
            st.PullImage(unit.name, unit.image, spec.get("imagePullPolicy") or "IfNotPresent")
        )

    def _wind_down(self) -> None:
        left = max(self._grace - (self._now - self._wound_at), 1.0)
        first = [u for u in self.units.values() if u.role != "sidecar"]
        for unit in first:
            self._halt(unit, left)
        if any(u.stage in FLIGHT for u in first):
            return
        for unit in reversed(self._of("sidecar")):
            self._halt(unit, left)
            if unit.stage in FLIGHT:
                return
        if self.sandbox_stage in ("up", "lost") and self.sandbox is not None:
            self.sandbox_stage = "stopping"
            self._out.append(st.StopSandbox(self.sandbox.id))
        if self.sandbox_stage != "none" or self._volumes == "mounting":
            return
        needed = 2 if self.deleting or self.gone else 1
        if self._torn < needed:
            if not self._tearing and self._due(self._tear_retry):
                self._tearing = needed
                boxes = (self.sandbox.id,) if self.sandbox else ()
                self._out.append(st.TearDown(boxes, needed == 2))
        elif self.gone:
            self.released = True
            self._out.append(st.ReleasePod())
        elif self.deleting and not self._delete:
            self._delete = "wanted"

    def _halt(self, unit: Unit, grace: float) -> None:
        if unit.stage == PULLING:
            self._rest(unit)
        elif unit.stage in (RUNNING, HOOK):
            self._emit_for(unit, "Normal", "Killing", f"Stopping container {unit.name}")
            self._stop(unit, grace)
        elif unit.stage == EXITED:
            unit.waiting = None

    # ---- parts of decisions --------------------------------------------------------------------

    def _run(self, unit: Unit) -> None:
        unit.stage = RUNNING
        if unit.role == "init":
            return
        if self._spec_of(unit, "startupProbe"):
            self._out.append(st.StartProbe(unit.name, unit.id, "startup"))
        else:
            self._has_started(unit, ready=False)

    def _has_started(self, unit: Unit, *, ready: bool) -> None:
        """ready: what the readiness probe starts from."""
        if unit.role == "init":
            return
        unit.started = True
        if self._spec_of(unit, "readinessProbe"):
            unit.ready = ready
            self._out.append(st.StartProbe(unit.name, unit.id, "readiness", ready or None))
        else:
            unit.ready = True
        if self._spec_of(unit, "livenessProbe"):
            self._out.append(st.StartProbe(unit.name, unit.id, "liveness", True))

    def _stop(self, unit: Unit, grace: float) -> None:
        unit.stage = STOPPING
        self._out.append(st.StopContainer(unit.name, unit.id, grace))

    def _rest(self, unit: Unit) -> None:
        """Back to where it was before it was begun."""
        exited = unit.current is not None and unit.current.state == "exited"
        unit.stage = EXITED if exited and self.winding else IDLE
        if exited and self.winding and unit.current is not None:
            unit.id = unit.current.id

    def _note(self, unit: Unit, state: ContainerState) -> None:
        if unit.current is not None and unit.current.id != state.id:
            if unit.last is not None:
                self._out.append(st.RemoveContainer(unit.name, unit.last.id))
            unit.last = unit.current
        unit.current = state

    def _ended(self, unit: Unit, state: ContainerState) -> None:
        self._out.append(st.StopProbes(unit.name))
        self._note(unit, state)
        unit.stage, unit.started, unit.ready, unit.waiting = EXITED, False, False, None

    def _restarts(self, unit: Unit, exit_code: int) -> bool:
        policy = self.pod["spec"].get("restartPolicy") or "Always"
        return un.restarts(self.specs[unit.name], policy, exit_code, role=unit.role)

    def _read_spec(self) -> None:
        spec = self.pod["spec"]
        for init, key in ((True, "initContainers"), (False, "containers")):
            for container in spec.get(key) or ():
                name = container["name"]
                self.specs[name] = container
                if name not in self.units:
                    self.units[name] = Unit(name, un.role_of(container, init=init))

    def _of(self, role: str) -> list[Unit]:
        return [u for u in self.units.values() if u.role == role]

    def _spec_of(self, unit: Unit, field: str) -> Body:
        return self.specs[unit.name].get(field) or {}

    def _due(self, at: float) -> bool:
        return self._now + EPSILON >= at

    def _emit(self, type_: str, reason: str, message: str) -> None:
        self._out.append(st.Emit(type_, reason, message))

    def _emit_for(self, unit: Unit, type_: str, reason: str, message: str) -> None:
        self._out.append(st.Emit(type_, reason, message, unit.name))

    def _report(self) -> None:
        if not self.gone:
            status = pod_status(self, self._now)
            if status != self.status:
                self.status = status
                self._out.append(st.SetStatus(status, self.settled))
        if self._delete == "wanted":
            self._delete = "asked"
            self._out.append(st.DeletePod())

    def _arm(self) -> None:
        """Ask for a timer at the next moment at which a decision may change by itself."""
        times: list[float] = []
        if self.winding:
            times.append(self._tear_retry)
        else:
            times += (self._volumes_retry, self._sandbox_retry)
            deadline = self.pod["spec"].get("activeDeadlineSeconds")
            if deadline is not None:
                times.append(self.start_time + float(deadline))
            for unit in self.units.values():
                if unit.stage == IDLE:
                    times += (unit.retry_at, unit.flip_at)
                elif unit.stage == EXITED and unit.current is not None and unit.waiting:
                    times.append(unit.crash.until(unit.current.finished_at))
        wake = min((t for t in times if not self._due(t)), default=0.0)
        if wake and wake != self._armed:
            self._armed = wake
            self._out.append(st.Timer(wake))


def _lost(name: str, cid: str, attempt: int, now: float) -> ContainerState:
    """Stands for a container whose end nobody saw."""
    return ContainerState(
        id=cid,
        sandbox_id="",
        name=name,
        attempt=attempt,
        state="exited",
        finished_at=now,
        exit_code=137,
        reason="ContainerStatusUnknown",
        message=LOST,
    )


def _from_status(before: Body, now: float) -> ContainerState | None:
    """The container that a status of an earlier life tells of, now that the runtime has lost it."""
    cid = str(before.get("containerID", "")).rpartition("//")[2]
    if not cid:
        return None
    lost = _lost(before["name"], cid, int(before.get("restartCount") or 0), now)
    states = (before.get("state") or {}, before.get("lastState") or {})
    ended: dict[str, Any] | None = next(
        (s["terminated"] for s in states if s.get("terminated")), None
    )
    if ended is None or (states[0].get("running")):
        return lost
    return replace(
        lost,
        exit_code=int(ended.get("exitCode") or 0),
        reason=ended.get("reason", ""),
        message=ended.get("message", ""),
        started_at=_time(ended.get("startedAt")),
        finished_at=_time(ended.get("finishedAt")),
    )


def _time(text: str | None) -> float:
    return parse_rfc3339(text) if text else 0.0


_HANDLERS: dict[type, Callable[[PodMachine, Any], None]] = {
    st.PodSeen: PodMachine._pod_seen,
    st.PodGone: PodMachine._pod_gone,
    st.Adopted: PodMachine._adopted,
    st.Observed: PodMachine._observed,
    st.VolumesReady: PodMachine._volumes_ready,
    st.VolumesFailed: PodMachine._volumes_failed,
    st.SandboxUp: PodMachine._sandbox_up,
    st.SandboxFailed: PodMachine._sandbox_failed,
    st.SandboxDown: PodMachine._sandbox_down,
    st.ImageReady: PodMachine._image_ready,
    st.ImageFailed: PodMachine._image_failed,
    st.Created: PodMachine._created,
    st.CreateFailed: PodMachine._create_failed,
    st.Started: PodMachine._started,
    st.StartFailed: PodMachine._start_failed,
    st.HookDone: PodMachine._hook_done,
    st.Stopped: PodMachine._stopped,
    st.Probed: PodMachine._probed,
    st.TornDown: PodMachine._torn_down,
    st.TearDownFailed: PodMachine._tear_down_failed,
    st.Tick: PodMachine._tick,
}
