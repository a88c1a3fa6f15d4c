"""MachineWorld: carries out a PodMachine's instructions in a toy world with a time of its own.

It has no loop: ``run`` takes the next thing that happens, advances the time to it, tells the
machine and carries out what it answers. It checks at every step what must always hold.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from sampan.api.obj import Body
from sampan.node import stimuli as st
from sampan.node.machine import PodMachine
from sampan.node.runtime.base import ContainerState, SandboxState

START = 1_700_000_000.0


@dataclass(slots=True, kw_only=True)
class Script:
    """What becomes of one attempt of a container."""

    run: float | None = None  # ends by itself after so long
    exit: int = 0
    create_error: tuple[str, str] | None = None
    start_error: str = ""
    hook_error: str = ""
    hook_time: float = 0.01
    stop_time: float = 0.05


def pod_body(
    *containers: Body, init: tuple[Body, ...] = (), meta: Body | None = None, **spec: Any
) -> Body:
    """A pod bound to node n1. Containers without an image get one."""
    whole: Body = {
        "nodeName": "n1",
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "containers": [{"image": "img", **c} for c in containers or ({"name": "a"},)],
        **spec,
    }
    if init:
        whole["initContainers"] = [{"image": "img", **c} for c in init]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "ns", "uid": "u", "generation": 1, **(meta or {})},
        "spec": whole,
        "status": {"phase": "Pending", "qosClass": "BestEffort"},
    }


@dataclass(slots=True)
class MachineWorld:
    """scripts: by container name, one per attempt (the last one repeats). delay: how long an
    operation takes."""

    pod: Body
    scripts: dict[str, list[Script]] = field(default_factory=dict)
    images: Callable[[str], tuple[str, str] | None] = lambda _ref: None  # reason, message
    volumes: Callable[[], str] = lambda: ""
    sandbox_error: Callable[[], str] = lambda: ""
    delay: Callable[[], float] = lambda: 0.01
    room: Callable[[], tuple[str, str]] = lambda: ("", "")
    resize_error: Callable[[], str] = lambda: ""
    in_force: dict[str, Body] = field(default_factory=dict)  # by container id, once resized
    now: float = START
    machine: PodMachine = field(init=False)
    answers: list[tuple[float, st.Instruction]] = field(default_factory=list)
    containers: dict[str, ContainerState] = field(default_factory=dict)
    sandbox: SandboxState | None = None
    status: Body = field(default_factory=dict)
    statuses: list[Body] = field(default_factory=list)
    deleted: bool = False
    released: bool = False
    started: list[tuple[float, str]] = field(default_factory=list)
    torn: list[st.TearDown] = field(default_factory=list)
    _queue: list[tuple[float, int, Any]] = field(default_factory=list)
    _numbers: Any = field(default_factory=itertools.count)
    _timer: float = 0.0

    def __post_init__(self) -> None:
        self.machine = PodMachine(self.pod, host_ips=("10.0.0.1",))
        self.status = self.pod.get("status") or {}
        self.tell(st.Adopted(()), st.PodSeen(self.pod))

    # ---- driving -------------------------------------------------------------------------------

    def tell(self, *stimuli: st.Stimulus) -> list[st.Instruction]:
        """Tell the machine now, and begin what it answers."""
        out = self.machine.handle(*stimuli, now=self.now)
        for instruction in out:
            self.answers.append((self.now, instruction))
            self._carry_out(instruction)
        self._check()
        return out

    def run(self, seconds: float = 3600.0, *, until: Callable[[], bool] | None = None) -> None:
        """Let so much time go by, or stop as soon as *until* holds."""
        end = self.now + seconds
        while not (until is not None and until()):
            due = self._queue[0][0] if self._queue else float("inf")
            timer = self._timer or float("inf")
            at = min(due, timer)
            if at > end:
                self.now = end
                return
            self.now = max(self.now, at)
            if timer <= due:
                self._timer = 0.0
                self.tell(st.Tick())
            else:
                _, _, act = heapq.heappop(self._queue)
                act()

    def after(self, seconds: float, act: Callable[[], Any]) -> None:
        heapq.heappush(self._queue, (self.now + seconds, next(self._numbers), act))

    def delete(self, grace: int = 30) -> None:
        """As the API does: deletionTimestamp, then the object is seen again."""
        meta = {**self.pod["metadata"], "deletionTimestamp": "2023-01-01T00:00:00Z"}
        meta["deletionGracePeriodSeconds"] = grace
        self.pod = {**self.pod, "metadata": meta, "status": self.status}
        self.tell(st.PodSeen(self.pod))

    def force_delete(self) -> None:
        self.deleted = True
        self.tell(st.PodGone())

    def change(self, **spec: Any) -> None:
        self.pod = {**self.pod, "spec": {**self.pod["spec"], **spec}, "status": self.status}
        self.tell(st.PodSeen(self.pod))

    def end(self, name: str, exit_code: int = 0, reason: str = "") -> None:
        """Let the running attempt of *name* end now."""
        for state in list(self.containers.values()):
            if state.name == name and state.state == "running":
                self._exit(state.id, exit_code, reason)

    def lose_sandbox(self) -> None:
        assert self.sandbox is not None
        self.sandbox = replace(self.sandbox, ready=False)
        for state in list(self.containers.values()):
            if state.state == "running":
                self._note_exit(state, 137)
        self._observe()

    def probe(self, name: str, kind: str, healthy: bool | None, failure: str = "") -> None:
        unit = self.machine.units[name]
        self.tell(st.Probed(name, unit.id, kind, healthy, failure))

    def restart_agent(self) -> None:
        """A new machine over what the runtime and the API hold."""
        self._queue.clear()
        self._timer = 0.0
        self.pod = {**self.pod, "status": self.status}
        self.machine = PodMachine(self.pod, host_ips=("10.0.0.1",))
        boxes = (self._box(),) if self.sandbox is not None else ()
        self.tell(st.Adopted(boxes), st.PodSeen(self.pod))

    # ---- looking -------------------------------------------------------------------------------

    def of(self, type_: type) -> list[Any]:
        return [i for _, i in self.answers if isinstance(i, type_)]

    def events(self) -> list[str]:
        return [f"{e.type} {e.reason} {e.message}" for e in self.of(st.Emit)]

    def container(self, name: str) -> Body:
        for key in ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"):
            for status in self.status.get(key) or ():
                if status["name"] == name:
                    return dict(status)
        raise KeyError(name)

    def condition(self, type_: str) -> tuple[str, str, str]:
        found = next(c for c in self.status["conditions"] if c["type"] == type_)
        return found["status"], found.get("reason", ""), found.get("message", "")

    def running(self) -> list[str]:
        return [c.name for c in self.containers.values() if c.state == "running"]

    # ---- inside --------------------------------------------------------------------------------

    def _check(self) -> None:
        names = self.running()
        assert len(names) == len(set(names)), f"two attempts at once: {names}"

    def _carry_out(self, what: st.Instruction) -> None:
        match what:
            case st.SetStatus(status=status):
                self.status = status
                self.statuses.append(status)
            case st.Timer(at=at):
                self._timer = at
            case st.ReleasePod():
                self.released = True
            case st.DeletePod():
                self.after(self.delay(), self._deleted)
            case st.RemoveContainer(id=cid):
                self.containers.pop(cid, None)
            case st.RemoveSandbox(id=box):
                if self.sandbox is not None and self.sandbox.id == box:
                    self.sandbox = None
                    self.containers.clear()
            case st.Emit() | st.StartProbe() | st.StopProbes():
                pass
            case _:
                self.after(self.delay(), lambda: self._finish(what))

    def _deleted(self) -> None:
        if not self.deleted:
            self.deleted = True
            self.tell(st.PodGone())

    def _finish(self, what: st.Instruction) -> None:
        match what:
            case st.MountVolumes():
                error = self.volumes()
                self.tell(st.VolumesFailed(error) if error else st.VolumesReady())
            case st.RunSandbox(id=box, attempt=attempt):
                error = self.sandbox_error()
                if error:
                    self.tell(st.SandboxFailed(box, error))
                    return
                self.sandbox = SandboxState(
                    id=box, namespace="ns", name="p", uid="u", attempt=attempt, ready=True,
                    ips=(f"10.42.0.{2 + attempt}",),
                )  # fmt: skip
                self.tell(st.SandboxUp(self.sandbox))
            case st.Allocate():
                self.tell(st.Judged(*self.room()))
            case st.Resize(containers=containers, resources=resources):
                error = self.resize_error()
                if not error:
                    self.in_force |= {c: resources[name] for name, c in containers.items()}
                self.tell(st.Resized(containers, resources, error))
            case st.StopSandbox(id=box):
                for state in list(self.containers.values()):
                    if state.sandbox_id == box and state.state == "running":
                        self._note_exit(state, 137)
                if self.sandbox is not None:
                    self.sandbox = replace(self.sandbox, ready=False)
                self.tell(st.SandboxDown(box, self._box() if self.sandbox else None))
            case st.PullImage(container=name, ref=ref):
                failure = self.images(ref)
                self.tell(
                    st.ImageFailed(name, ref, *failure)
                    if failure
                    else st.ImageReady(name, ref, f"sha256:{ref}")
                )
            case st.CreateContainer():
                self._create(what)
            case st.StartContainer(container=name, id=cid):
                self._start(name, cid)
            case st.RunPostStart(container=name, id=cid):
                if cid not in self.containers:  # removed since: as an exec into nothing
                    self.tell(st.HookDone(name, cid, "container not found"))
                    return
                script = self._script(name, self.containers[cid].attempt)
                self.after(
                    script.hook_time, lambda: self.tell(st.HookDone(name, cid, script.hook_error))
                )
            case st.StopContainer(container=name, id=cid, grace=grace):
                took = self._script(name, self.machine.units[name].attempt).stop_time
                self.after(min(took, grace), lambda: self._stopped(name, cid, took <= grace))
            case st.TearDown():
                self.torn.append(what)
                if what.remove:
                    self.sandbox = None
                    self.containers.clear()
                self.tell(st.TornDown())

    def _create(self, what: st.CreateContainer) -> None:
        script = self._script(what.container, what.attempt)
        if script.create_error is not None:
            self.tell(st.CreateFailed(what.container, what.id, *script.create_error))
            return
        assert what.replace or what.id not in self.containers, "the id is taken"
        self.containers[what.id] = ContainerState(
            id=what.id,
            sandbox_id=what.sandbox_id,
            name=what.container,
            attempt=what.attempt,
            state="created",
            image_id=what.image_id,
        )
        self.tell(st.Created(what.container, what.id))

    def _start(self, name: str, cid: str) -> None:
        state = self.containers.get(cid)
        if state is None or self.sandbox is None or not self.sandbox.ready:
            self.tell(st.StartFailed(name, cid, "its sandbox is gone"))
            return
        script = self._script(name, state.attempt)
        if script.start_error:
            self.containers[cid] = replace(state, state="exited", exit_code=128)
            self.tell(st.StartFailed(name, cid, script.start_error))
            return
        self.containers[cid] = replace(state, state="running", started_at=self.now)
        self.started.append((self.now, name))
        self.tell(st.Started(name, cid, self.containers[cid]))
        if script.run is not None:
            self.after(script.run, lambda: self._exit(cid, script.exit, ""))

    def _stopped(self, name: str, cid: str, heeded: bool) -> None:
        state = self.containers.get(cid)
        if state is not None and state.state == "running":
            self._note_exit(state, 143 if heeded else 137)
        self.tell(st.Stopped(name, cid, self.containers.get(cid)))

    def _exit(self, cid: str, code: int, reason: str) -> None:
        state = self.containers.get(cid)
        if state is not None and state.state == "running":
            self._note_exit(state, code, reason)
            self._observe()

    def _note_exit(self, state: ContainerState, code: int, reason: str = "") -> None:
        self.containers[state.id] = replace(
            state, state="exited", exit_code=code, finished_at=self.now, reason=reason
        )

    def _observe(self) -> None:
        self.tell(st.Observed(self._box()))

    def _box(self) -> SandboxState:
        assert self.sandbox is not None
        mine = tuple(c for c in self.containers.values() if c.sandbox_id == self.sandbox.id)
        return replace(self.sandbox, containers=mine)

    def _script(self, name: str, attempt: int) -> Script:
        scripts = self.scripts.get(name) or [Script()]
        return scripts[min(attempt, len(scripts) - 1)]
