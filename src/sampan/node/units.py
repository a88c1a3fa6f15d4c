"""The parts of a pod as the machine tracks them: one Unit per container, and its back-offs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from sampan.api.obj import Body
from sampan.node.runtime.base import ContainerState

INITIAL_DELAY = 10.0
MAX_DELAY = 300.0
RESET_AFTER = 2 * MAX_DELAY

# Stages of a unit. In FLIGHT an operation of the runtime is under way and will be answered.
IDLE = "idle"  # nothing was started in this sandbox, or the last try failed
PULLING = "pulling"
CREATING = "creating"
STARTING = "starting"
HOOK = "hook"  # running, its postStart hook is
RUNNING = "running"
STOPPING = "stopping"
EXITED = "exited"

FLIGHT = frozenset({PULLING, CREATING, STARTING, HOOK, STOPPING})
ALIVE = frozenset({HOOK, RUNNING, STOPPING})


@dataclass(slots=True)
class Backoff:
    """Doubling delays from 10 s to 300 s, forgotten after ten quiet minutes."""

    delay: float = 0.0
    updated: float = 0.0

    def _expired(self, event: float) -> bool:
        return event - self.updated > RESET_AFTER

    def step(self, event: float, now: float) -> None:
        """One more failure, which happened at *event*, is being retried *now*."""
        if not self.delay or self._expired(event):
            self.delay = INITIAL_DELAY
        else:
            self.delay = min(self.delay * 2, MAX_DELAY)
        self.updated = now

    def until(self, event: float) -> float:
        """When what failed at *event* may be tried again."""
        if not self.delay or self._expired(event):
            return event
        return event + self.delay


@dataclass(slots=True)
class Unit:
    """One container of the pod. role: init, sidecar (restartable init) or main."""

    name: str
    role: str
    stage: str = IDLE
    id: str = ""  # of the attempt in work, or of ``current``
    attempt: int = -1  # the newest attempt that was created
    image: str = ""  # as the spec named it when the attempt began
    image_id: str = ""
    current: ContainerState | None = None  # newest attempt that ran
    last: ContainerState | None = None  # the one before it
    waiting: tuple[str, str] | None = None  # reason, message
    retry_at: float = 0.0  # an IDLE unit is not tried before
    crash: Backoff = field(default_factory=Backoff)
    pull: Backoff = field(default_factory=Backoff)
    flip_at: float = 0.0  # when ErrImagePull becomes ImagePullBackOff
    resources: Body = field(default_factory=dict)  # in force for ``current``
    started: bool = False
    ready: bool = False
    forced: bool = False  # restart whatever the policy says (definition changed)
    replace: bool = False  # a dead container of the next id may be in the way

    @property
    def succeeded(self) -> bool:
        return self.stage == EXITED and self.current is not None and self.current.exit_code == 0


def container_id(uid: str, name: str, attempt: int) -> str:
    """The id of one attempt: 64 hexadecimal digits, the same in every replay."""
    return hashlib.sha256(f"{uid}/{name}/{attempt}".encode()).hexdigest()


def sandbox_id(uid: str, attempt: int) -> str:
    return hashlib.sha256(f"{uid}//{attempt}".encode()).hexdigest()


def pod_name(pod: Body) -> str:
    """``name_namespace(uid)``, the kubelet's way to name a pod in messages."""
    meta = pod["metadata"]
    return f"{meta['name']}_{meta.get('namespace', '')}({meta.get('uid', '')})"


def duration(seconds: float) -> str:
    """A duration as Go prints it: 10s, 1m20s, 5m0s, 1.5s."""
    whole = int(seconds)
    if seconds != whole:
        if seconds < 1:
            return f"{round(seconds * 1000)}ms"
        if seconds < 60:
            return f"{seconds:.3f}".rstrip("0").rstrip(".") + "s"
    hours, rest = divmod(whole, 3600)
    minutes, secs = divmod(rest, 60)
    if hours:
        return f"{hours}h{minutes}m{secs}s"
    return f"{minutes}m{secs}s" if minutes else f"{secs}s"


def role_of(container: Body, kind: str) -> str:
    """kind: the member of the PodSpec it stands in."""
    if kind != "initContainers":
        return "main" if kind == "containers" else "ephemeral"
    return "sidecar" if container.get("restartPolicy") == "Always" else "init"


def restarts(container: Body, pod_policy: str, exit_code: int, *, role: str) -> bool:
    """Whether a container that ended with *exit_code* is started again.

    ``restartPolicyRules`` of the container first, its own ``restartPolicy`` next, then the pod's;
    init containers treat Always as OnFailure.
    """
    if role == "sidecar":
        return True
    if role == "ephemeral":
        return False
    if role == "init" and exit_code == 0:
        return False
    for rule in container.get("restartPolicyRules") or ():
        codes: dict[str, Any] = rule.get("exitCodes") or {}
        inside = exit_code in (codes.get("values") or ())
        if inside == (codes.get("operator") == "In") and rule.get("action") == "Restart":
            return True
    policy = container.get("restartPolicy") or pod_policy
    if policy == "Never":
        return False
    return policy == "Always" or exit_code != 0
