"""What a machine knows of its pod, and the small steps by which that changes."""

from __future__ import annotations

from collections import deque

from sampan.api.obj import Body
from sampan.node import resizing
from sampan.node import stimuli as st
from sampan.node import units as un
from sampan.node.admission import Needs
from sampan.node.runtime.base import ContainerState, SandboxState
from sampan.node.units import EXITED, IDLE, RUNNING, STOPPING, Backoff, Unit

EPSILON = 0.001  # timers may come this early


class PodState:
    """The state of one pod on its node. Reactions change it, decisions read it; ``out`` gathers
    the instructions of the present call."""

    def __init__(self, pod: Body, *, host_ips: tuple[str, ...] = ()) -> None:
        self.pod = pod
        self.host_ips = host_ips
        self.uid = str(pod["metadata"].get("uid", ""))
        self.story: deque[tuple[float, tuple[st.Stimulus, ...]]] = deque(maxlen=1000)
        self.specs: dict[str, Body] = {}  # containers, with what is allocated to them
        self.units: dict[str, Unit] = {}
        self.allocated = resizing.recall(pod)
        self._needs: tuple[dict[str, Body], Needs] | None = None
        self.read_spec()
        self.judging = False
        self.judged: dict[str, Body] | None = None  # what the node was last asked for
        self.judge_at = 0.0  # a deferred resize is not judged again before
        self.pending: tuple[str, str, int] | None = None  # reason, message, generation
        self.resizing: int | None = None  # the generation that is being put into force
        self.updating = False
        self.resize_failure = ""
        self.resize_at = 0.0
        self.whole_resources = self.allocated[resizing.WHOLE]  # in force for the whole pod
        self.sandbox: SandboxState | None = None
        self.sandbox_stage = "none"  # none, starting, up, lost, stopping
        self.ips: tuple[str, ...] = tuple(
            e["ip"] for e in (pod.get("status") or {}).get("podIPs") or ()
        )
        self.initialised = False
        self.winding = False
        self.refused: tuple[str, str] | None = None  # reason, message: by the node
        self.failure: tuple[str, str] | None = None  # reason, message of a pod that was ended
        self.status: Body = pod.get("status") or {}
        self.frozen = self.status.get("phase") in ("Succeeded", "Failed")
        self.deleting = False
        self.gone = False
        self.released = False
        self.start_time = 0.0
        self.sandbox_attempt = 0
        self.sandbox_retry = 0.0
        self.sandbox_backoff = Backoff()
        self.volumes = "none"  # none, mounting, ready
        self.volumes_retry = 0.0
        self.volumes_failure = ""
        self.grace = float(pod["spec"].get("terminationGracePeriodSeconds") or 0)
        self.wound_at = 0.0
        self.torn = 0  # 1: volumes are unmounted, 2: everything is removed
        self.tearing = 0
        self.tear_retry = 0.0
        self.delete_stage = ""  # '', wanted, asked
        self.armed = 0.0
        self.now = 0.0
        self.out: list[st.Instruction] = []

    @property
    def holds_resources(self) -> bool:
        """Whether what is allocated to the pod is taken from its node."""
        return not (self.frozen or self.torn or self.gone or self.refused)

    @property
    def needs(self) -> Needs:
        """What its allocation takes of the node."""
        if self._needs is None or self._needs[0] is not self.allocated:
            spec = resizing.allocated_pod(self.pod, self.allocated)["spec"]
            self._needs = (self.allocated, Needs.of(spec))
        return self._needs[1]

    def run(self, unit: Unit) -> None:
        unit.stage = RUNNING
        if unit.role in ("init", "ephemeral"):
            return
        if self.spec_of(unit, "startupProbe"):
            self.out.append(st.StartProbe(unit.name, unit.id, "startup"))
        else:
            self.has_started(unit, ready=False)

    def has_started(self, unit: Unit, *, ready: bool) -> None:
        """ready: what the readiness probe starts from."""
        if unit.role in ("init", "ephemeral"):
            return
        unit.started = True
        if self.spec_of(unit, "readinessProbe"):
            unit.ready = ready
            self.out.append(st.StartProbe(unit.name, unit.id, "readiness", ready or None))
        else:
            unit.ready = True
        if self.spec_of(unit, "livenessProbe"):
            self.out.append(st.StartProbe(unit.name, unit.id, "liveness", True))

    def stop(self, unit: Unit, grace: float) -> None:
        unit.stage = STOPPING
        self.out.append(st.StopContainer(unit.name, unit.id, grace))

    def rest(self, unit: Unit) -> None:
        """Back to where it was before it was begun."""
        exited = unit.current is not None and unit.current.state == "exited"
        unit.stage = EXITED if exited and self.winding else IDLE
        if exited and self.winding and unit.current is not None:
            unit.id = unit.current.id

    def note(self, unit: Unit, state: ContainerState) -> None:
        if unit.current is not None and unit.current.id != state.id:
            if unit.last is not None:
                self.out.append(st.RemoveContainer(unit.name, unit.last.id))
            unit.last = unit.current
        unit.current = state

    def ended(self, unit: Unit, state: ContainerState) -> None:
        self.out.append(st.StopProbes(unit.name))
        self.note(unit, state)
        unit.stage, unit.started, unit.ready, unit.waiting = EXITED, False, False, None

    def restarts(self, unit: Unit, exit_code: int) -> bool:
        policy = self.pod["spec"].get("restartPolicy") or "Always"
        return un.restarts(self.specs[unit.name], policy, exit_code, role=unit.role)

    def read_spec(self) -> None:
        spec = self.pod["spec"]
        for key in ("initContainers", "containers", "ephemeralContainers"):
            for container in spec.get(key) or ():
                name = container["name"]
                self.specs[name] = resizing.with_resources(container, self.allocated.get(name))
                if name not in self.units:
                    self.units[name] = Unit(name, un.role_of(container, key))

    def of(self, role: str) -> list[Unit]:
        return [u for u in self.units.values() if u.role == role]

    def spec_of(self, unit: Unit, field: str) -> Body:
        return self.specs[unit.name].get(field) or {}

    def due(self, at: float) -> bool:
        return self.now + EPSILON >= at

    def emit(self, type_: str, reason: str, message: str) -> None:
        self.out.append(st.Emit(type_, reason, message))

    def emit_for(self, unit: Unit, type_: str, reason: str, message: str) -> None:
        self.out.append(st.Emit(type_, reason, message, unit.name))

    def has_finished(self, unit: Unit) -> bool:
        return (
            unit.stage == EXITED
            and not unit.forced
            and unit.current is not None
            and not self.restarts(unit, unit.current.exit_code)
        )
