"""What a PodMachine is told (stimuli) and what it asks for (instructions): values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from sampan.api.obj import Body
from sampan.node.runtime.base import ContainerState, SandboxState

# ---- stimuli -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PodSeen:
    """The pod as the API has it now (also how a deletion is learned: deletionTimestamp)."""

    pod: Body


@dataclass(frozen=True, slots=True)
class PodGone:
    """The pod is no longer in the API: wind down without writing any status."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """First stimulus after a restart of the agent: what the runtime still holds of the pod."""

    sandboxes: tuple[SandboxState, ...]


@dataclass(frozen=True, slots=True)
class Observed:
    """The runtime's present view of one sandbox and all its containers."""

    sandbox: SandboxState


@dataclass(frozen=True, slots=True)
class VolumesReady:
    pass


@dataclass(frozen=True, slots=True)
class VolumesFailed:
    message: str  # of the FailedMount event


@dataclass(frozen=True, slots=True)
class SandboxUp:
    sandbox: SandboxState


@dataclass(frozen=True, slots=True)
class SandboxFailed:
    id: str
    message: str


@dataclass(frozen=True, slots=True)
class SandboxDown:
    """StopSandbox is done: nothing of the sandbox runs any more. state: the runtime's last view."""

    id: str
    state: SandboxState | None = None


@dataclass(frozen=True, slots=True)
class ImageReady:
    """pulled: whether it had to be fetched (seconds and bytes are for the event)."""

    container: str
    ref: str
    image_id: str
    pulled: bool = False
    seconds: float = 0.0
    size: int = 0


@dataclass(frozen=True, slots=True)
class ImageFailed:
    """reason: ErrImagePull, ErrImageNeverPull, InvalidImageName, ..."""

    container: str
    ref: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Created:
    container: str
    id: str


@dataclass(frozen=True, slots=True)
class CreateFailed:
    container: str
    id: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Started:
    container: str
    id: str
    state: ContainerState


@dataclass(frozen=True, slots=True)
class StartFailed:
    container: str
    id: str
    message: str


@dataclass(frozen=True, slots=True)
class HookDone:
    """The postStart hook ended. failure: '' or why."""

    container: str
    id: str
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Stopped:
    """StopContainer is done. state: the container's last view (None: the runtime lost it)."""

    container: str
    id: str
    state: ContainerState | None
    hook_failure: str = ""


@dataclass(frozen=True, slots=True)
class Probed:
    """A probe's news: an attempt failed, or its result (after thresholds) changed.

    kind: startup, liveness, readiness. healthy: the result now, None before the first threshold
    is reached. failure: the text of this attempt when it failed. errored: it could not be carried
    out.
    """

    container: str
    id: str
    kind: str
    healthy: bool | None
    failure: str = ""
    errored: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """The node does not take the pod. Told before anything is begun."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Judged:
    """Answer to Allocate. reason: '' (granted), Deferred or Infeasible."""

    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Resized:
    """Answer to Resize. failure: '' or why nothing, or not everything, is in force."""

    containers: Mapping[str, str]
    resources: Mapping[str, Body]
    failure: str = ""


@dataclass(frozen=True, slots=True)
class RoomChanged:
    """Something on the node gave up what a deferred resize may take."""


@dataclass(frozen=True, slots=True)
class Evicted:
    """The node cannot keep the pod: it uses more than it may."""

    message: str


@dataclass(frozen=True, slots=True)
class TornDown:
    """TearDown is done."""


@dataclass(frozen=True, slots=True)
class TearDownFailed:
    message: str


@dataclass(frozen=True, slots=True)
class Tick:
    """A timer asked for has come."""


Stimulus: TypeAlias = (
    PodSeen
    | PodGone
    | Adopted
    | Observed
    | VolumesReady
    | VolumesFailed
    | SandboxUp
    | SandboxFailed
    | SandboxDown
    | ImageReady
    | ImageFailed
    | Created
    | CreateFailed
    | Started
    | StartFailed
    | HookDone
    | Stopped
    | Probed
    | Refused
    | Judged
    | Resized
    | RoomChanged
    | Evicted
    | TornDown
    | TearDownFailed
    | Tick
)

# ---- instructions ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MountVolumes:
    """Make all volumes of the pod. Answer: VolumesReady or VolumesFailed."""


@dataclass(frozen=True, slots=True)
class RunSandbox:
    """Answer: SandboxUp or SandboxFailed."""

    id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class StopSandbox:
    """Answer: SandboxDown."""

    id: str


@dataclass(frozen=True, slots=True)
class RemoveSandbox:
    """No answer: a left-over."""

    id: str


@dataclass(frozen=True, slots=True)
class PullImage:
    """See that the image is there, as the policy asks. Answer: ImageReady or ImageFailed."""

    container: str
    ref: str
    policy: str


@dataclass(frozen=True, slots=True)
class CreateContainer:
    """replace: remove a container of the same id first. Answer: Created or CreateFailed."""

    container: str
    id: str
    attempt: int
    sandbox_id: str
    image_id: str
    replace: bool = False


@dataclass(frozen=True, slots=True)
class StartContainer:
    """Answer: Started or StartFailed."""

    container: str
    id: str


@dataclass(frozen=True, slots=True)
class RunPostStart:
    """Answer: HookDone."""

    container: str
    id: str


@dataclass(frozen=True, slots=True)
class Allocate:
    """Judge whether the node has room for what the pod's spec asks for. Answer: Judged."""


@dataclass(frozen=True, slots=True)
class Resize:
    """Put *resources* (by container name; '': of the whole pod) into force for the pod and its
    running *containers* (name -> id). Answer: Resized."""

    containers: Mapping[str, str]
    resources: Mapping[str, Body]


@dataclass(frozen=True, slots=True)
class StopContainer:
    """Run preStop (when pre_stop), stop signal, SIGKILL after *grace* in all. Answer: Stopped."""

    container: str
    id: str
    grace: float
    pre_stop: bool = True


@dataclass(frozen=True, slots=True)
class RemoveContainer:
    """No answer: a dead attempt whose logs nobody can ask for any more."""

    container: str
    id: str


@dataclass(frozen=True, slots=True)
class StartProbe:
    """Probe until StopProbes; answers by Probed."""

    container: str
    id: str
    kind: str
    healthy: bool | None = None  # the result it starts from


@dataclass(frozen=True, slots=True)
class StopProbes:
    """kind '' means all of the container's probes."""

    container: str
    kind: str = ""


@dataclass(frozen=True, slots=True)
class SetStatus:
    """Write the status. settled: no operation is under way, so write at once; else it may wait a
    moment for what is coming."""

    status: Body
    settled: bool


@dataclass(frozen=True, slots=True)
class Emit:
    """An event about the pod, or about one of its containers."""

    type: str
    reason: str
    message: str
    container: str = ""


@dataclass(frozen=True, slots=True)
class Timer:
    """Send Tick at this time (epoch seconds); replaces an earlier one."""

    at: float


@dataclass(frozen=True, slots=True)
class TearDown:
    """Unmount the volumes; when *remove*, also remove the sandboxes, logs and directories of the
    pod. Answer: TornDown or TearDownFailed."""

    sandboxes: tuple[str, ...]
    remove: bool


@dataclass(frozen=True, slots=True)
class DeletePod:
    """Write the last status, then delete the object (grace 0, precondition uid)."""


@dataclass(frozen=True, slots=True)
class ReleasePod:
    """Nothing is left of it: forget the machine."""


Instruction: TypeAlias = (
    MountVolumes
    | RunSandbox
    | StopSandbox
    | RemoveSandbox
    | PullImage
    | CreateContainer
    | StartContainer
    | RunPostStart
    | Allocate
    | Resize
    | StopContainer
    | RemoveContainer
    | StartProbe
    | StopProbes
    | SetStatus
    | Emit
    | Timer
    | TearDown
    | DeletePod
    | ReleasePod
)
