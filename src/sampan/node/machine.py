"""PodMachine: decides, purely, what a node does about one pod.

It is told stimuli and answers with instructions; the agent carries those out and tells it how
they went. No clock, no I/O, no randomness: the same story gives the same instructions.
"""

from __future__ import annotations

from sampan.lib.clock import parse_rfc3339
from sampan.node import resizing
from sampan.node import stimuli as st
from sampan.node import units as un
from sampan.node.admission import refusal
from sampan.node.podstate import PodState
from sampan.node.reactions import react
from sampan.node.status import pod_status
from sampan.node.units import (
    CREATING,
    EXITED,
    FLIGHT,
    HOOK,
    IDLE,
    PULLING,
    RUNNING,
    STARTING,
    Unit,
)

DEADLINE = "Pod was active on the node longer than the specified deadline"


class PodMachine(PodState):
    """One pod on its node.

    ``handle`` is the only way in. ``story`` holds the last thousand calls of it: (now, stimuli).
    """

    def handle(self, *stimuli: st.Stimulus, now: float) -> list[st.Instruction]:
        """What to do about *stimuli*, at *now* (epoch seconds)."""
        self.story.append((now, stimuli))
        self.now = now
        self.out = []
        if not self.start_time:
            known = self.status.get("startTime")
            self.start_time = parse_rfc3339(known) if known else now
        for stimulus in stimuli:
            react(self, stimulus)
        if not self.released:
            self._decide()
            self._report()
            self._arm()
        return self.out

    @property
    def settled(self) -> bool:
        """No operation is under way whose outcome will change the status in a moment."""
        if any(u.stage in FLIGHT for u in self.units.values()):
            return False
        if self.winding:
            return not (self.deleting and self.delete_stage == "")
        if self.judging or self.updating:
            return False
        return self.volumes != "mounting" and self.sandbox_stage not in ("starting", "stopping")

    def _decide(self) -> None:
        if not self.winding and self._is_over():
            self.winding, self.wound_at = True, self.now
        if self.winding:
            self._wind_down()
            return
        if self.volumes != "ready":
            if self.volumes == "none" and self.due(self.volumes_retry):
                self.volumes = "mounting"
                self.out.append(st.MountVolumes())
            return
        if not self._has_sandbox():
            return
        resizing.decide(self)
        for unit in self.of("ephemeral"):
            self._keep(unit)
        if self._is_initialised():
            for unit in self.of("main"):
                self._keep(unit)
                if unit.stage in (PULLING, CREATING, STARTING, HOOK) and (
                    self.specs[unit.name].get("lifecycle") or {}
                ).get("postStart"):
                    return  # the next container starts when this one's hook has returned

    def _is_over(self) -> bool:
        """Whether everything that still runs has to end."""
        if self.deleting or self.gone or self.frozen or self.failure is not None:
            return True
        refused = self.refused or refusal(self.pod)
        if refused is not None:
            reason, message = refused
            self.failure = (reason, f"Pod was rejected: {message}")
            self.emit("Warning", reason, message)
            return True
        deadline = self.pod["spec"].get("activeDeadlineSeconds")
        if deadline is not None and self.due(self.start_time + float(deadline)):
            self.failure = ("DeadlineExceeded", DEADLINE)
            self.emit("Normal", "DeadlineExceeded", DEADLINE)
            return True
        if any(self.has_finished(u) and not u.succeeded for u in self.of("init")):
            return True
        mains = self.of("main")
        return bool(mains) and all(self.has_finished(u) for u in mains)

    def _has_sandbox(self) -> bool:
        if self.sandbox_stage == "up":
            return True
        if self.sandbox_stage == "lost" and self.sandbox is not None:
            self.sandbox_stage = "stopping"
            self.emit(
                "Normal",
                "SandboxChanged",
                "Pod sandbox changed, it will be killed and re-created.",
            )
            self.out.append(st.StopSandbox(self.sandbox.id))
        elif self.sandbox_stage == "none" and self.due(self.sandbox_retry):
            self.sandbox_stage = "starting"
            self.out.append(
                st.RunSandbox(un.sandbox_id(self.uid, self.sandbox_attempt), self.sandbox_attempt)
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
            if self.due(unit.retry_at):
                self._begin(unit)
            elif unit.flip_at and self.due(unit.flip_at):
                self._show_pull_backoff(unit)
        elif unit.stage == RUNNING:
            if unit.image and self.specs[unit.name].get("image", "") != unit.image:
                unit.forced = True
                self.emit_for(
                    unit,
                    "Normal",
                    "Killing",
                    f"Container {unit.name} definition changed, will be restarted",
                )
                self.stop(unit, float(self.pod["spec"].get("terminationGracePeriodSeconds") or 0))
        elif unit.stage == EXITED and unit.current is not None:
            if unit.forced:
                self._begin(unit)
            elif not self.restarts(unit, unit.current.exit_code):
                unit.waiting = None
            else:
                self._restart(unit, unit.current.finished_at)

    def _restart(self, unit: Unit, finished: float) -> None:
        if self.due(unit.crash.until(finished)):
            unit.crash.step(finished, self.now)
            self._begin(unit)
        elif unit.waiting is None or unit.waiting[0] != "CrashLoopBackOff":
            whole = un.pod_name(self.pod)
            unit.waiting = (
                "CrashLoopBackOff",
                f"back-off {un.duration(unit.crash.delay)} restarting failed "
                f"container={unit.name} pod={whole}",
            )
            self.emit_for(
                unit,
                "Warning",
                "BackOff",
                f"Back-off restarting failed container {unit.name} in pod {whole}",
            )

    def _show_pull_backoff(self, unit: Unit) -> None:
        unit.flip_at = 0.0
        text = f'Back-off pulling image "{unit.image}"'
        self.emit_for(unit, "Normal", "BackOff", text)
        self.emit_for(unit, "Warning", "Failed", "Error: ImagePullBackOff")
        why = unit.waiting[1] if unit.waiting else ""
        unit.waiting = ("ImagePullBackOff", f"{text}: ErrImagePull: {why}")

    def _begin(self, unit: Unit) -> None:
        spec = self.specs[unit.name]
        unit.stage, unit.forced = PULLING, False
        unit.image = str(spec.get("image", ""))
        unit.retry_at = unit.flip_at = 0.0
        self.out.append(
            st.PullImage(unit.name, unit.image, spec.get("imagePullPolicy") or "IfNotPresent")
        )

    def _wind_down(self) -> None:
        left = max(self.grace - (self.now - self.wound_at), 1.0)
        first = [u for u in self.units.values() if u.role != "sidecar"]
        for unit in first:
            self._halt(unit, left)
        if any(u.stage in FLIGHT for u in first):
            return
        for unit in reversed(self.of("sidecar")):
            self._halt(unit, left)
            if unit.stage in FLIGHT:
                return
        if self.sandbox_stage in ("up", "lost") and self.sandbox is not None:
            self.sandbox_stage = "stopping"
            self.out.append(st.StopSandbox(self.sandbox.id))
        if self.sandbox_stage != "none" or self.volumes == "mounting":
            return
        needed = 2 if self.deleting or self.gone else 1
        if self.torn < needed:
            if not self.tearing and self.due(self.tear_retry):
                self.tearing = needed
                boxes = (self.sandbox.id,) if self.sandbox else ()
                self.out.append(st.TearDown(boxes, needed == 2))
        elif self.gone:
            self.released = True
            self.out.append(st.ReleasePod())
        elif self.deleting and not self.delete_stage:
            self.delete_stage = "wanted"

    def _halt(self, unit: Unit, grace: float) -> None:
        if unit.stage == PULLING:
            self.rest(unit)
        elif unit.stage in (RUNNING, HOOK):
            self.emit_for(unit, "Normal", "Killing", f"Stopping container {unit.name}")
            self.stop(unit, grace)
        elif unit.stage == EXITED:
            unit.waiting = None

    def _report(self) -> None:
        if not self.gone:
            status = pod_status(self, self.now)
            if status != self.status:
                self.status = status
                self.out.append(st.SetStatus(status, self.settled))
        if self.delete_stage == "wanted":
            self.delete_stage = "asked"
            self.out.append(st.DeletePod())

    def _arm(self) -> None:
        """Ask for a timer at the next moment at which a decision may change by itself."""
        times: list[float] = []
        if self.winding:
            times.append(self.tear_retry)
        else:
            times += (self.volumes_retry, self.sandbox_retry, *resizing.wakes(self))
            deadline = self.pod["spec"].get("activeDeadlineSeconds")
            if deadline is not None:
                times.append(self.start_time + float(deadline))
            for unit in self.units.values():
                if unit.stage == IDLE:
                    times += (unit.retry_at, unit.flip_at)
                elif unit.stage == EXITED and unit.current is not None and unit.waiting:
                    times.append(unit.crash.until(unit.current.finished_at))
        wake = min((t for t in times if not self.due(t)), default=0.0)
        if wake and wake != self.armed:
            self.armed = wake
            self.out.append(st.Timer(wake))
