"""One pod's worker: tells its machine what happens and carries out what that answers."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sampan.api.errors import StatusError
from sampan.api.obj import Body, Obj
from sampan.client.base import Client, Unknown
from sampan.lib.addressing import DEFAULT
from sampan.lib.clock import Clock
from sampan.node import hooks, images_policy, probes, protocols, resizing
from sampan.node import stimuli as st
from sampan.node.answers import failed
from sampan.node.events import EventSink, container_path
from sampan.node.hosts import hosts_file, resolv_conf, resolver
from sampan.node.logs import log_path, pod_log_dir, tail_for_message
from sampan.node.machine import PodMachine
from sampan.node.resolve import (
    Context,
    container_limits,
    container_spec,
    domain,
    host_label,
    hostname,
    pod_limits,
    references,
    sandbox_spec,
)
from sampan.node.runtime.base import (
    ContainerState,
    Image,
    Mount,
    Runtime,
    RuntimeFailure,
    SandboxState,
)
from sampan.node.statuswriter import StatusWriter
from sampan.node.units import ALIVE
from sampan.node.volumes import REFRESH, SIZES, Sources, VolumeFailure, Volumes

log = logging.getLogger("sampan.node")


@dataclass(slots=True, kw_only=True)
class Surroundings:
    """What all workers of a node share."""

    client: Client
    runtime: Runtime
    clock: Clock
    volumes: Volumes
    sources: Sources
    events: EventSink
    node_name: str
    host_ips: tuple[str, ...]
    allocatable: Mapping[str, str]
    services: Callable[[], tuple[Body, ...]]
    spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
    released: Callable[[PodWorker], None]
    freed: Callable[[], None]  # a pod has ended and gives up what it was allocated
    room: Callable[[PodWorker], tuple[str, str]]  # whether what a pod asks for fits (resizing)
    log_root: Path | None  # None: nothing is logged to files (simulated)
    host_hosts: str = ""
    host_resolv: str = ""
    cluster_dns: tuple[str, ...] = (DEFAULT.primary.dns,)
    lacking: frozenset[str] = frozenset()  # protocols the kernel does not speak


class PodWorker:
    """tell() may be called from anywhere on the loop; stimuli of one moment are handled at once."""

    def __init__(self, around: Surroundings, pod: Obj) -> None:
        self.around = around
        self.pod = pod
        self.machine = PodMachine(pod.body, host_ips=around.host_ips)
        self.writer = StatusWriter(around.client, pod, lambda c: self._spawn(c))
        self._inbox: list[st.Stimulus] = []
        self._woken = False
        self._timer: asyncio.TimerHandle | None = None
        self._probes: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._mounted: Mapping[str, str] = {}
        self._images: dict[str, Image] = {}

    # ---- stimuli -------------------------------------------------------------------------------

    def tell(self, *stimuli: st.Stimulus) -> None:
        self._inbox += stimuli
        if not self._woken:
            self._woken = True
            asyncio.get_running_loop().call_soon(self._turn)

    def seen(self, pod: Obj) -> None:
        self.pod = pod
        self.writer.seen(pod)
        self.tell(st.PodSeen(pod.body))

    def observed(self, sandbox: SandboxState) -> None:
        self.tell(st.Observed(self.explained_all(sandbox)))

    def explained_all(self, sandbox: SandboxState) -> SandboxState:
        return replace(sandbox, containers=tuple(self.explained(c) for c in sandbox.containers))

    def explained(self, state: ContainerState) -> ContainerState:
        """With its termination message, when it has ended."""
        spec = self.machine.specs.get(state.name)
        if state.state != "exited" or spec is None or state.message:
            return state
        text = self.around.volumes.read_termination(self.machine.uid, state.name, state.attempt)
        if (
            not text
            and state.exit_code != 0
            and spec.get("terminationMessagePolicy") == "FallbackToLogsOnError"
        ):
            text = tail_for_message(state.log_path)
        return replace(state, message=text) if text else state

    def close(self) -> None:
        """Let go: whatever runs keeps running."""
        if self._timer is not None:
            self._timer.cancel()
        self.writer.close()
        for task in [*self._tasks]:
            task.cancel()

    # ---- instructions --------------------------------------------------------------------------

    def _turn(self) -> None:
        self._woken = False
        stimuli, self._inbox = tuple(self._inbox), []
        for instruction in self.machine.handle(*stimuli, now=self.around.clock.now()):
            self._carry_out(instruction)

    def _carry_out(self, what: st.Instruction) -> None:
        match what:
            case st.SetStatus(status=status, settled=settled):
                self.writer.want(status, settled=settled)
            case st.Emit():
                self._emit(what.type, what.reason, what.message, what.container)
            case st.Timer(at=at):
                self._wake_at(at)
            case st.StartProbe():
                self._start_probe(what)
            case st.StopProbes():
                self._stop_probes(what)
            case st.ReleasePod():
                self.close()
                self.around.released(self)
            case _:
                self._spawn(self._do(what))

    async def _do(self, what: st.Instruction) -> None:
        """To its end: the machine waits for an answer, whatever goes wrong on the way."""
        delay = 0.5
        while True:
            try:
                return await _DOES[type(what)](self, what)
            except Exception as failure:
                log.exception("%s: %s", self.pod.key.path, type(what).__name__)
                answer = failed(what, failure)
            if answer is not None:
                return self.tell(answer)
            await asyncio.sleep(delay)
            delay = min(delay * 2, 30.0)

    def _spawn(self, coro: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self.around.spawn(coro)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _wake_at(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        delay = max(0.0, at - self.around.clock.now())
        self._timer = asyncio.get_running_loop().call_later(delay, self.tell, st.Tick())

    async def _mount(self, _: st.MountVolumes) -> None:
        try:
            self._mounted = await self.around.volumes.mount(
                await self._context(None), lambda text: self._warn("VolumeMedium", text)
            )
        except VolumeFailure as failure:
            self.tell(st.VolumesFailed(str(failure)))
        except (StatusError, Unknown, OSError) as failure:
            self.tell(st.VolumesFailed(f"Unable to attach or mount volumes: {failure}"))
        else:
            self.tell(st.VolumesReady())
            self._spawn(self._refresh())
            volumes = self.pod.spec.get("volumes") or ()
            if any((v.get("emptyDir") or {}).get("sizeLimit") for v in volumes):
                self._spawn(self._watch_sizes())

    async def _watch_sizes(self) -> None:
        """Evict the pod when a volume has outgrown its limit."""
        while not self.machine.winding:
            await asyncio.sleep(SIZES)
            message = await self.around.volumes.over_limit(self.pod.body)
            if message:
                self.tell(st.Evicted(message))
                return

    async def _refresh(self) -> None:
        """Keep contents of volumes up to date for as long as the pod is served."""
        wait = REFRESH if self.pod.spec.get("volumes") else 0.0
        while wait:
            await asyncio.sleep(wait)
            if self.machine.winding:
                return
            context = await self._context(None)
            try:
                wait = await self.around.volumes.refresh(context)
            except (VolumeFailure, RuntimeFailure, StatusError, Unknown, OSError) as failure:
                log.warning("refreshing volumes of %s: %s", self.pod.key.path, failure)
                wait = REFRESH

    async def _run_sandbox(self, what: st.RunSandbox) -> None:
        try:
            spec = sandbox_spec(
                resizing.allocated_pod(self.pod.body, self.machine.allocated),
                id=what.id,
                attempt=what.attempt,
                node_name=self.around.node_name,
                log_dir=self._log_dir(),
            )
            spec = replace(spec, handler=await self._handler())
            around = self.around
            names = resolver(self.pod.body, of_host=around.host_resolv, dns=around.cluster_dns)
            for problem in names[1]:
                self._warn("DNSConfigForming", problem)
            for problem in protocols.unspoken(self.pod.body, around.lacking):
                self._warn(protocols.REASON, problem)
            state = await around.runtime.run_sandbox(spec)
        except RuntimeFailure as failure:
            self.tell(st.SandboxFailed(what.id, failure.message))
        else:
            self.tell(st.SandboxUp(state))

    async def _handler(self) -> str:
        """The runtime handler of the pod's class. Raises RuntimeFailure."""
        name = self.pod.spec.get("runtimeClassName")
        if not name:
            return ""
        try:
            found = await self.around.client.get("runtimeclasses.node.k8s.io", name)
        except (StatusError, Unknown, OSError) as e:
            text = f'failed to get RuntimeClass "{name}": {e}'
            raise RuntimeFailure("CreatePodSandboxError", text) from e
        return str(found.body["handler"])

    async def _stop_sandbox(self, what: st.StopSandbox) -> None:
        await self._insist(lambda: self.around.runtime.stop_sandbox(what.id), "FailedKillPod")
        found = None
        if not self.machine.winding:
            found = await self._sandbox(what.id)
        self.tell(st.SandboxDown(what.id, found))

    async def _remove_sandbox(self, what: st.RemoveSandbox) -> None:
        await self._insist(lambda: self.around.runtime.stop_sandbox(what.id), "FailedKillPod")
        await self._insist(lambda: self.around.runtime.remove_sandbox(what.id), "FailedKillPod")

    async def _pull(self, what: st.PullImage) -> None:
        if what.policy != "Never" and await self._is_absent(what.ref):
            self._emit("Normal", "Pulling", f'Pulling image "{what.ref}"', what.container)
        try:
            got = await images_policy.ensure(
                self.around.runtime, what.ref, policy=what.policy, clock=self.around.clock
            )
        except RuntimeFailure as failure:
            self.tell(st.ImageFailed(what.container, what.ref, failure.reason, failure.message))
            return
        self._images[what.container] = got.image
        shown = got.image.digests[0] if got.image.digests else got.image.id
        self.tell(
            st.ImageReady(what.container, what.ref, shown, got.pulled, got.seconds, got.image.size)
        )

    async def _is_absent(self, ref: str) -> bool:
        try:
            return await self.around.runtime.image(ref) is None
        except RuntimeFailure:
            return True

    async def _create(self, what: st.CreateContainer) -> None:
        container = self.machine.specs[what.container]
        runtime = self.around.runtime
        try:
            if what.replace:
                await runtime.remove_container(what.id)
            context = await self._context(container, attempt=what.attempt)
            spec = container_spec(
                context,
                container,
                id=what.id,
                attempt=what.attempt,
                image=self._images.get(what.container),
                log_path=self._log_path(what.container, what.attempt),
                joins=self._target(container),
            )
            if spec.log_path:
                _make_parent(spec.log_path)
            await runtime.create_container(what.sandbox_id, spec)
        except RuntimeFailure as failure:
            reason = failure.reason or "CreateContainerError"
            self.tell(st.CreateFailed(what.container, what.id, reason, failure.message))
        except (StatusError, Unknown, OSError) as failure:
            self.tell(
                st.CreateFailed(what.container, what.id, "CreateContainerConfigError", str(failure))
            )
        else:
            self.tell(st.Created(what.container, what.id))

    def _target(self, container: Body) -> str:
        """The id of the container that an ephemeral one names. Raises RuntimeFailure."""
        name = container.get("targetContainerName")
        if not name:
            return ""
        unit = self.machine.units.get(name)
        if unit is None or unit.stage not in ALIVE:
            raise RuntimeFailure(
                "CreateContainerConfigError", f"unable to find target container {name}"
            )
        return unit.id

    async def _start(self, what: st.StartContainer) -> None:
        try:
            state = await self.around.runtime.start_container(what.id)
        except RuntimeFailure as failure:
            self.tell(st.StartFailed(what.container, what.id, failure.message))
        else:
            self.tell(st.Started(what.container, what.id, self.explained(state)))

    async def _post_start(self, what: st.RunPostStart) -> None:
        container = self.machine.specs[what.container]
        failure = await hooks.run(
            self.around.runtime,
            container,
            container["lifecycle"]["postStart"],
            sandbox_id=self._sandbox_id(),
            container_id=what.id,
            ip=self._ip(),
            timeout=None,
        )
        self.tell(st.HookDone(what.container, what.id, failure))

    async def _allocate(self, _: st.Allocate) -> None:
        self.tell(st.Judged(*self.around.room(self)))

    async def _resize(self, what: st.Resize) -> None:
        pod = resizing.allocated_pod(self.pod.body, what.resources)
        limits = {
            cid: container_limits(resizing.with_resources(
                self.machine.specs[name], what.resources[name]))
            for name, cid in what.containers.items()
        }  # fmt: skip
        failure = ""
        try:
            whole = pod_limits(pod["spec"])
            await self.around.runtime.resize(self._sandbox_id(), whole, limits)
        except RuntimeFailure as problem:
            failure = problem.message
        self.tell(st.Resized(what.containers, what.resources, failure))

    async def _stop(self, what: st.StopContainer) -> None:
        container = self.machine.specs[what.container]
        hook = (container.get("lifecycle") or {}).get("preStop")
        grace, failure = what.grace, ""
        if hook and what.pre_stop:
            begun = self.around.clock.now()
            failure = await hooks.run(
                self.around.runtime,
                container,
                hook,
                sandbox_id=self._sandbox_id(),
                container_id=what.id,
                ip=self._ip(),
                timeout=grace,
            )
            # What is left for the process itself, but never nothing.
            grace = max(grace - (self.around.clock.now() - begun), 2.0)
        signal = (container.get("lifecycle") or {}).get("stopSignal") or ""
        await self._insist(
            lambda: self.around.runtime.stop_container(what.id, grace, signal), "FailedKillPod"
        )
        state = None
        box = await self._sandbox(self._sandbox_id())
        if box is not None:
            state = next((c for c in box.containers if c.id == what.id), None)
        if state is not None:
            state = self.explained(state)
        self.tell(st.Stopped(what.container, what.id, state, failure))

    async def _remove(self, what: st.RemoveContainer) -> None:
        box = await self._sandbox(self._sandbox_id())
        old = next((c for c in box.containers if c.id == what.id), None) if box else None
        await self._insist(lambda: self.around.runtime.remove_container(what.id), "")
        if old is not None and self.around.log_root is not None:
            _remove_file(self._log_path(what.container, old.attempt))

    async def _tear_down(self, what: st.TearDown) -> None:
        try:
            if what.remove:
                for box in what.sandboxes:
                    await self.around.runtime.remove_sandbox(box)
                self._drop_logs()
            await self.around.volumes.unmount(self.machine.uid, remove=what.remove)
        except (RuntimeFailure, OSError) as failure:
            self.tell(st.TearDownFailed(str(failure)))
        else:
            self.tell(st.TornDown())
            self.around.freed()

    async def _delete(self, _: st.DeletePod) -> None:
        await self.writer.flush()
        delay = 0.5
        while True:
            try:
                await self.around.client.delete(
                    "pods", self.pod.name, self.pod.namespace, uid=self.machine.uid, grace=0
                )
                return
            except StatusError as error:
                if error.code in (404, 409):
                    self.tell(st.PodGone())
                    return
                log.warning("deleting %s: %s", self.pod.key.path, error.message)
            except (Unknown, OSError) as error:
                log.warning("deleting %s: %s", self.pod.key.path, error)
            await asyncio.sleep(delay)
            delay = min(delay * 2, 30.0)

    # ---- probes --------------------------------------------------------------------------------

    def _start_probe(self, what: st.StartProbe) -> None:
        container = self.machine.specs[what.container]
        probe: Body = container[f"{what.kind}Probe"]
        unit = self.machine.units[what.container]
        age = 0.0
        if unit.current is not None and unit.current.started_at:
            age = self.around.clock.now() - unit.current.started_at

        async def once() -> probes.Attempt:
            return await probes.attempt(
                self.around.runtime,
                container,
                probe,
                sandbox_id=self._sandbox_id(),
                container_id=what.id,
                ip=self._ip(),
            )

        def report(healthy: bool | None, outcome: probes.Attempt) -> None:
            text = "" if outcome.ok else (outcome.text or "no output")
            self.tell(st.Probed(what.container, what.id, what.kind, healthy, text, outcome.errored))

        self._probes[what.container, what.kind] = self._spawn(
            probes.watch(probe, once, kind=what.kind, age=age, healthy=what.healthy, report=report)
        )

    def _stop_probes(self, what: st.StopProbes) -> None:
        for key in list(self._probes):
            if key[0] == what.container and what.kind in ("", key[1]):
                self._probes.pop(key).cancel()

    # ---- parts ---------------------------------------------------------------------------------

    async def _context(self, container: Body | None, *, attempt: int = 0) -> Context:
        body = self.pod.body
        around, namespace = self.around, self.pod.namespace
        configs: dict[tuple[str, str], Body | None] = {}
        extra: tuple[Mount, ...] = ()
        if container is not None:
            for resource, name in sorted(references(container)):
                configs[resource, name] = await around.sources.config(resource, namespace, name)
            extra = self._extra(container, attempt)
        return Context(
            pod=body,
            node_name=around.node_name,
            host_ips=around.host_ips,
            pod_ips=self._ips(),
            allocatable=around.allocatable,
            services=around.services(),
            configs=configs,
            volumes=self._mounted,
            sub_path=around.volumes.sub_path,
            extra=extra,
        )

    def _extra(self, container: Body, attempt: int) -> tuple[Mount, ...]:
        """The files every container gets."""
        around, body, uid = self.around, self.pod.body, self.machine.uid
        name = hostname(body, around.node_name)
        texts = {
            "/etc/hosts": (
                "etc-hosts",
                hosts_file(
                    body,
                    ips=self._ips(),
                    hostname=host_label(body),
                    domain=domain(body),
                    of_host=around.host_hosts,
                ),
            ),
            "/etc/resolv.conf": (
                "resolv.conf",
                resolv_conf(body, of_host=around.host_resolv, dns=around.cluster_dns),
            ),
            "/etc/hostname": ("hostname", f"{name}\n"),
        }
        mounts = [
            Mount(source=around.volumes.file(uid, file, text), target=target, sub_file=True)
            for target, (file, text) in texts.items()
        ]
        ending = around.volumes.termination(uid, container["name"], attempt)
        if ending:
            target = container.get("terminationMessagePath") or "/dev/termination-log"
            mounts.append(Mount(source=ending, target=target, sub_file=True))
        return tuple(mounts)

    async def _insist(self, act: Callable[[], Coroutine[Any, Any, None]], reason: str) -> None:
        """Do it until it succeeds; say so in an event the first time it does not."""
        delay = 0.5
        while True:
            try:
                await act()
                return
            except (RuntimeFailure, OSError) as failure:
                log.warning("%s: %s", self.pod.key.path, failure)
                if reason and delay == 0.5:
                    self._warn(reason, f"error killing pod: {failure}")
            await asyncio.sleep(delay)
            delay = min(delay * 2, 30.0)

    async def _sandbox(self, sandbox_id: str) -> SandboxState | None:
        try:
            boxes = await self.around.runtime.sandboxes()
        except RuntimeFailure:
            return None
        found = next((b for b in boxes if b.id == sandbox_id), None)
        return self.explained_all(found) if found is not None else None

    def _warn(self, reason: str, message: str, container: str = "") -> None:
        self._emit("Warning", reason, message, container)

    def _emit(self, type: str, reason: str, message: str, container: str) -> None:
        body = self.pod.body
        path = container_path(body, container)
        self.around.events.emit(body, type, reason, message, path)

    def _sandbox_id(self) -> str:
        return self.machine.sandbox.id if self.machine.sandbox is not None else ""

    def _ips(self) -> tuple[str, ...]:
        if self.pod.spec.get("hostNetwork"):
            return self.around.host_ips
        return self.machine.ips

    def _ip(self) -> str:
        ips = self._ips()
        return ips[0] if ips else "127.0.0.1"

    def _log_dir(self) -> str:
        root = self.around.log_root
        return str(pod_log_dir(root, self.pod.body)) if root is not None else ""

    def _log_path(self, container: str, attempt: int) -> str:
        root = self.around.log_root
        return str(log_path(root, self.pod.body, container, attempt)) if root is not None else ""

    def _drop_logs(self) -> None:
        if self.around.log_root is not None:
            shutil.rmtree(pod_log_dir(self.around.log_root, self.pod.body), ignore_errors=True)


def _make_parent(path: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)


def _remove_file(path: str) -> None:
    Path(path).unlink(missing_ok=True)


_DOES: dict[type, Callable[[PodWorker, Any], Coroutine[Any, Any, None]]] = {
    st.MountVolumes: PodWorker._mount,
    st.RunSandbox: PodWorker._run_sandbox,
    st.StopSandbox: PodWorker._stop_sandbox,
    st.RemoveSandbox: PodWorker._remove_sandbox,
    st.PullImage: PodWorker._pull,
    st.CreateContainer: PodWorker._create,
    st.StartContainer: PodWorker._start,
    st.RunPostStart: PodWorker._post_start,
    st.Allocate: PodWorker._allocate,
    st.Resize: PodWorker._resize,
    st.StopContainer: PodWorker._stop,
    st.RemoveContainer: PodWorker._remove,
    st.TearDown: PodWorker._tear_down,
    st.DeletePod: PodWorker._delete,
}
