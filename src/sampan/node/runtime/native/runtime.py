"""NativeRuntime: pods of one node as processes of this machine.

A pod is a pause (catatonit) that holds its network, IPC and UTS namespaces; a container is an
OCI bundle run by crun or runc under a conmon that keeps its log and exit code. Pauses and conmons
outlive this process: everything about them is in files, and ``start`` picks them up again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from sampan.api.streams import ExecSession
from sampan.lib.addressing import DEFAULT, NoneFree, Plan, Pool, take_all
from sampan.lib.clock import Clock, RealClock
from sampan.lib.datadir import started_at
from sampan.node.images.refs import normalize
from sampan.node.images.store import ImageStore
from sampan.node.runtime.base import (
    ContainerSpec,
    ContainerState,
    Image,
    Limits,
    RuntimeFailure,
    SandboxSpec,
    SandboxState,
    no_handler,
)
from sampan.node.runtime.native import cgroups, kernel
from sampan.node.runtime.native.attach import attach
from sampan.node.runtime.native.launch import (
    ContainerFiles,
    Unstartable,
    create_with_conmon,
    mount_root,
    oci,
    start_pause,
    unplug,
)
from sampan.node.runtime.native.nodes import Space, cluster_id
from sampan.node.runtime.native.process import Adopted, Session, exited, receive_terminal
from sampan.node.runtime.native.records import Container, Sandbox, read_json, write_json
from sampan.node.runtime.native.resize import resize
from sampan.node.runtime.native.spec import Identity, config, identify, process

_SYNC_OUTPUT = 16 * 1024
_EXEC_SECONDS = 60.0  # until a command has started
_TOOLS = ("crun", "runc")
_Process = TypeVar("_Process", bound=Adopted | subprocess.Popen[bytes])


class NativeRuntime:
    """Implements ``Runtime``. root: the cluster's node directory; images: shared by all nodes;
    plan: the cluster's addresses."""

    shares_uts = False

    def __init__(
        self, space: Space, *, root: Path, images: ImageStore, clock: Clock | None = None,
        binary: str = "", plan: Plan = DEFAULT,
    ) -> None:  # fmt: skip
        # Awaited with a pod's addresses before anything of the pod runs. Raises TimeoutError.
        self.guard: Callable[[str, str, str, Sequence[str]], Awaitable[None]] | None = None
        self._space = space
        self._root = root / "run" / space.name
        self._images = images
        self._clock = clock or RealClock()
        found = binary or next((p for t in _TOOLS if (p := shutil.which(t))), "")
        if not found:
            raise RuntimeFailure("RuntimeMissing", "neither crun nor runc is installed")
        usual = (found, "--root", str(self._root / "oci"))
        self._handlers = {"": usual, Path(found).name: usual}
        for tool in _TOOLS:  # whatever else is here, for pods of a RuntimeClass that asks for it
            if tool not in self._handlers and (other := shutil.which(tool)):
                self._handlers[tool] = (other, "--root", str(self._root / f"oci-{tool}"))
        self._group = cluster_id(root)
        self._sandboxes: dict[str, Sandbox] = {}
        self._containers: dict[str, Container] = {}
        self._own = plan.node(space.index)
        self._pools = [Pool(network) for network in plan.pods_of(space.index)]
        self._exits: asyncio.Queue[str] = asyncio.Queue()

    # -- life ----------------------------------------------------------------------------------

    async def start(self) -> None:
        kernel.become_subreaper()  # monitors fork away from us; their end is for us to note
        for path in (self._root / "sandboxes", *(Path(h[-1]) for h in self._handlers.values())):
            path.mkdir(parents=True, exist_ok=True)
        self._images.prepare()
        await self._space.run(self._prepare_scratch)
        for path in sorted((self._root / "sandboxes").iterdir()):
            state = read_json(path / "state.json")
            if state is None:
                shutil.rmtree(path, ignore_errors=True)  # it was never finished
                continue
            sandbox = Sandbox.load(path, state)
            self._sandboxes[sandbox.id] = sandbox
            self._hold(sandbox.ips)
            alive = started_at(sandbox.pid) == sandbox.ticks
            sandbox.ready = alive and not sandbox.stopped
            if alive:
                self._watch_pause(sandbox)
            for sub in sorted((path / "containers").glob("*/state.json")):
                held = read_json(sub)
                if held is not None:
                    self._adopt(Container.load(sub.parent, held, sandbox))
        await asyncio.gather(*(self._guard(s) for s in self._sandboxes.values() if s.ready))

    @property
    def _scratch(self) -> Path:
        return self._root / "scratch"

    def _prepare_scratch(self) -> None:
        """Small files of a moment, in the node's memory: probes and exec go on on a full disk."""
        self._scratch.mkdir(exist_ok=True)
        if not os.path.ismount(self._scratch):
            flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
            kernel.mount("scratch", str(self._scratch), "tmpfs", flags, "size=16m,mode=0700")

    def _adopt(self, container: Container) -> None:
        self._containers[container.id] = container
        container.sandbox.containers[container.id] = container
        if container.finished_at:
            return
        if container.read_exit():
            container.note()
        elif container.has_monitor():
            self._watch_monitor(container)
        elif container.started_at:
            container.lost(self._clock.now())

    async def close(self) -> None:
        for sandbox in self._sandboxes.values():
            self._unwatch(sandbox)
        for container in self._containers.values():
            self._unwatch(container)

    # -- watching ------------------------------------------------------------------------------

    def _watch_pause(self, sandbox: Sandbox) -> None:
        def ended() -> None:
            self._unwatch(sandbox)
            sandbox.ready = False
            with contextlib.suppress(ChildProcessError):
                os.waitpid(sandbox.pid, os.WNOHANG)
            sandbox.ended.set()
            self._exits.put_nowait(sandbox.id)

        try:
            sandbox.fd = os.pidfd_open(sandbox.pid)
        except ProcessLookupError:
            sandbox.ready = False
            sandbox.ended.set()
            return
        asyncio.get_running_loop().add_reader(sandbox.fd, ended)

    def _watch_monitor(self, container: Container) -> None:
        """conmon ends once it has written down how the container ended."""

        def ended() -> None:
            self._unwatch(container)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(container.monitor, os.WNOHANG)
            if not container.read_exit():
                # Nobody watches what may run still: a next attempt must not run beside it.
                self._kill_all(container)
                container.lost(self._clock.now())
            container.note()
            container.ended.set()
            self._exits.put_nowait(container.sandbox.id)

        try:
            container.fd = os.pidfd_open(container.monitor)
        except ProcessLookupError:
            container.fd = -1
            asyncio.get_running_loop().call_soon(ended)
            return
        asyncio.get_running_loop().add_reader(container.fd, ended)

    @staticmethod
    def _unwatch(record: Sandbox | Container) -> None:
        if record.fd >= 0:
            asyncio.get_running_loop().remove_reader(record.fd)
            os.close(record.fd)
            record.fd = -1

    async def exits(self) -> AsyncIterator[str]:
        while True:
            yield await self._exits.get()

    # -- sandboxes -----------------------------------------------------------------------------

    def _take_addresses(self) -> tuple[str, ...]:
        """One of each family."""
        try:
            return take_all(self._pools)
        except NoneFree as e:
            text = "no pod address is free on this node"
            raise RuntimeFailure("FailedCreatePodSandBox", text) from e

    def _hold(self, addresses: Sequence[str]) -> None:
        for pool in self._pools:
            pool.hold(addresses)

    def _give_back(self, addresses: Sequence[str]) -> None:
        for pool in self._pools:
            pool.give_back(addresses)

    async def run_sandbox(self, spec: SandboxSpec) -> SandboxState:
        held = self._sandboxes.get(spec.id)
        if held is not None:
            return held.state()
        if spec.handler not in self._handlers:
            raise no_handler(spec.handler)
        addresses = () if spec.host_network else self._take_addresses()
        path = self._root / "sandboxes" / spec.id
        sandbox = Sandbox(path, spec, ips=addresses or self._own)
        sandbox.created_at = self._clock.now()
        try:
            await asyncio.gather(
                self._space.run(self._prepare_sandbox, sandbox), self._guard(sandbox)
            )
            await self._space.run(self._start_sandbox, sandbox, addresses)
        except (OSError, TimeoutError) as e:
            self._give_back(addresses)
            if sandbox.pid:
                os.kill(sandbox.pid, signal.SIGKILL)
            await self._space.run(self._drop_sandbox, sandbox)
            raise RuntimeFailure("FailedCreatePodSandBox", str(e)) from e
        self._sandboxes[spec.id] = sandbox
        sandbox.ready = True
        self._watch_pause(sandbox)
        return sandbox.state()

    async def _guard(self, sandbox: Sandbox) -> None:
        spec = sandbox.spec
        if self.guard is not None and not spec.host_network:
            await self.guard(spec.namespace, spec.name, spec.uid, sandbox.ips)

    def _start_sandbox(self, sandbox: Sandbox, addresses: Sequence[str]) -> None:
        sandbox.pid = start_pause(sandbox.spec, addresses, self._own)
        sandbox.ticks = started_at(sandbox.pid)
        sandbox.save()

    def _pod_group(self, sandbox: Sandbox) -> str:
        return f"{self._group}/pod{sandbox.spec.uid}"

    def _prepare_sandbox(self, sandbox: Sandbox) -> None:
        spec = sandbox.spec
        shm = sandbox.path / "shm"
        shm.mkdir(parents=True, exist_ok=True)
        (sandbox.path / "containers").mkdir(exist_ok=True)
        flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
        kernel.mount("shm", str(shm), "tmpfs", flags, "size=65536k,mode=1777")
        if spec.log_dir:
            Path(spec.log_dir).mkdir(parents=True, exist_ok=True)
        cgroups.make_pod(
            self._pod_group(sandbox), shares=spec.cpu_shares, quota=spec.cpu_quota_us,
            memory=spec.memory_limit,
        )  # fmt: skip

    def _drop_sandbox(self, sandbox: Sandbox) -> None:
        kernel.unmount(str(sandbox.path / "shm"))
        # What is stopped has given its address away: the link is another pod's by now, if any.
        if not sandbox.spec.host_network and not sandbox.stopped:
            unplug(sandbox.ips)
        shutil.rmtree(sandbox.path, ignore_errors=True)

    async def stop_sandbox(self, sandbox_id: str) -> None:
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is None or sandbox.stopped:
            return
        await asyncio.gather(*(self.stop_container(c, 0) for c in tuple(sandbox.containers)))
        if sandbox.ready and sandbox.fd >= 0:
            kernel.signal_pidfd(sandbox.fd, signal.SIGKILL)
            await sandbox.ended.wait()
        sandbox.ready = False
        sandbox.stopped = True
        if not sandbox.spec.host_network:
            await self._space.run(unplug, sandbox.ips)
            self._give_back(sandbox.ips)
        sandbox.note()

    async def remove_sandbox(self, sandbox_id: str) -> None:
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is None:
            return
        await self.stop_sandbox(sandbox_id)
        await asyncio.gather(*(self.remove_container(c) for c in tuple(sandbox.containers)))
        await self._space.run(self._drop_sandbox, sandbox)
        shared = any(
            s.spec.uid == sandbox.spec.uid and s is not sandbox for s in self._sandboxes.values()
        )
        if not shared:
            await self._space.run(cgroups.remove, self._pod_group(sandbox))
        self._sandboxes.pop(sandbox_id, None)

    async def sandboxes(self) -> list[SandboxState]:
        return [s.state() for s in self._sandboxes.values()]

    # -- containers ----------------------------------------------------------------------------

    def _sandbox(self, sandbox_id: str) -> Sandbox:
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is None or not sandbox.ready:
            raise RuntimeFailure("CreateContainerError", f"sandbox {sandbox_id} is not running")
        return sandbox

    async def create_container(self, sandbox_id: str, spec: ContainerSpec) -> None:
        if spec.id in self._containers:
            return
        sandbox = self._sandbox(sandbox_id)
        image = self._images.find(spec.image)
        if image is None:
            raise RuntimeFailure("CreateContainerError", f'image "{spec.image}" is not present')
        container = Container(sandbox, spec, image_id=image.id, image=image.config)
        container.created_at = self._clock.now()
        try:
            await self._space.run(self._create, container)
        except BaseException as e:
            await self._space.run(self._drop_container, container)
            if isinstance(e, OSError):
                raise RuntimeFailure("CreateContainerError", str(e)) from e
            raise
        self._containers[spec.id] = container
        sandbox.containers[spec.id] = container
        if not container.unstartable:
            self._watch_monitor(container)

    def _create(self, container: Container) -> None:
        """In a thread of the node: root file system, bundle, conmon."""
        spec, sandbox = container.spec, container.sandbox
        files = ContainerFiles(container.path)
        layers = [
            str(self._images.layers / n) for n in self._images.layer_paths(container.image_id)
        ]
        root = mount_root(files, layers)
        who = f"pod: {sandbox.spec.namespace}/{sandbox.spec.name}, container: {spec.name}"
        image_user = str(container.image.get("User") or "")
        user = identify(spec, image_user, root.text("etc/passwd"), root.text("etc/group"), who)
        body = config(
            spec, sandbox.spec, container.image, user, pause=sandbox.pid, root=str(files.merged),
            shm=str(sandbox.path / "shm"), hostname=sandbox.hostname,
            group=f"/{self._pod_group(sandbox)}/{spec.id}",
            target=self._running(spec.joins).pid if spec.joins else 0,
        )  # fmt: skip
        root.make_directory(body["process"]["cwd"], user.uid, user.gid)
        container.user = asdict(user)
        write_json(files.config, body)
        if spec.log_path:
            Path(spec.log_path).parent.mkdir(parents=True, exist_ok=True)
        runtime = self._oci_of(container.sandbox)
        try:
            container.pid, container.monitor = create_with_conmon(runtime, spec, files)
        except Unstartable as failure:
            # crun finds out now what shows when the container is started: it failed to start.
            container.fails_to_start(_plain(failure.message), self._clock.now())
        container.save()

    def _oci_of(self, sandbox: Sandbox) -> tuple[str, ...]:
        """The runtime of a sandbox, as it is called. Raises RuntimeFailure where it is here no
        more."""
        found = self._handlers.get(sandbox.spec.handler)
        if found is None:
            raise no_handler(sandbox.spec.handler)
        return found

    def _drop_container(self, container: Container) -> None:
        files = ContainerFiles(container.path)
        oci(self._oci_of(container.sandbox), "delete", "--force", container.id)
        kernel.unmount(str(files.merged))
        shutil.rmtree(container.path, ignore_errors=True)

    async def start_container(self, container_id: str) -> ContainerState:
        container = self._container(container_id)
        if container.unstartable:
            raise RuntimeFailure("RunContainerError", container.unstartable)
        if not container.started_at:
            # Noted before: a short container may have ended when the call comes back.
            container.started_at = self._clock.now()
            done = await self._space.run(self._start, container)
            if done.returncode:
                container.started_at = 0.0
                said = done.stderr.decode(errors="replace").strip().splitlines()
                text = said[-1] if said else "the runtime failed"
                raise RuntimeFailure("RunContainerError", _plain(text))
        return container.state()

    def _start(self, container: Container) -> subprocess.CompletedProcess[bytes]:
        done = oci(self._oci_of(container.sandbox), "start", container.id)
        if not done.returncode:
            container.note()
        return done

    def _container(self, container_id: str) -> Container:
        container = self._containers.get(container_id)
        if container is None:
            raise RuntimeFailure("ContainerNotFound", f"container {container_id} not found")
        return container

    async def stop_container(self, container_id: str, grace: float, signal: str = "") -> None:
        container = self._containers.get(container_id)
        if container is None or container.finished_at:
            return
        if grace > 0 and container.started_at:
            name = signal or str(container.image.get("StopSignal") or "SIGTERM")
            await self.kill_container(container_id, _signal_number(name))
            try:
                async with asyncio.timeout(grace):
                    await container.ended.wait()
                return
            except TimeoutError:
                pass
        await self._space.run(self._kill_all, container)
        await container.ended.wait()

    def _kill_all(self, container: Container) -> None:
        """Every process of the container: with a shared PID namespace its first one is not the
        parent of all."""
        group = f"{self._pod_group(container.sandbox)}/{container.id}"
        for pid in {*cgroups.procs(group), *((container.pid,) if container.has_monitor() else ())}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    async def resize(
        self, sandbox_id: str, whole: Limits, containers: Mapping[str, Limits]
    ) -> None:
        sandbox = self._sandbox(sandbox_id)
        found = {self._running(cid): limits for cid, limits in containers.items()}
        group = self._pod_group(sandbox)
        await self._space.run(resize, self._oci_of(sandbox), sandbox, group, whole, found)

    async def kill_container(self, container_id: str, signal: int) -> None:
        container = self._container(container_id)
        if container.started_at and not container.finished_at:
            with contextlib.suppress(ProcessLookupError):
                os.kill(container.pid, signal)

    async def remove_container(self, container_id: str) -> None:
        container = self._containers.get(container_id)
        if container is None:
            return
        await self.stop_container(container_id, 0)
        await self._space.run(self._drop_container, container)
        self._containers.pop(container_id, None)
        container.sandbox.containers.pop(container_id, None)

    # -- executing -----------------------------------------------------------------------------

    def _process_file(self, container: Container, command: Sequence[str], *, tty: bool) -> str:
        user = dict(container.user)
        who = Identity(uid=user["uid"], gid=user["gid"], groups=tuple(user["groups"]))
        body = process(
            container.spec, container.image, who, container.sandbox.hostname, command, tty=tty
        )
        if tty and not any(e.startswith("TERM=") for e in body["env"]):
            body["env"].append("TERM=xterm")
        fd, path = tempfile.mkstemp(prefix="exec-", suffix=".json", dir=self._scratch)
        with open(fd, "w") as f:
            json.dump(body, f)
        return path

    def _running(self, container_id: str) -> Container:
        container = self._container(container_id)
        if not container.started_at or container.finished_at:
            raise RuntimeFailure("ContainerNotRunning", f"container {container_id} is not running")
        return container

    async def exec_sync(
        self, container_id: str, command: list[str], timeout: float
    ) -> tuple[int, bytes]:
        session = await self.exec(container_id, command, tty=False, stdin=False)
        out = bytearray()
        try:
            async with asyncio.timeout(timeout or None):
                async for _, data in session.output():
                    out += data[: _SYNC_OUTPUT - len(out)]
                return await session.wait(), bytes(out)
        except TimeoutError:
            await session.kill()
            raise

    async def exec(
        self, container_id: str, command: list[str], *, tty: bool, stdin: bool
    ) -> ExecSession:
        container = self._running(container_id)
        launch = self._exec_terminal if tty else self._exec_pipes
        return await launch(container, command, stdin)

    async def _exec_pipes(
        self, container: Container, command: list[str], stdin: bool
    ) -> ExecSession:
        given, theirs = os.pipe() if stdin else (os.open(os.devnull, os.O_RDONLY), None)
        pipes = {1: os.pipe(), 2: os.pipe()}
        outputs = {channel: ends[0] for channel, ends in pipes.items()}
        ours = [*outputs.values(), *(() if theirs is None else (theirs,))]

        def spawn() -> Adopted | subprocess.Popen[bytes]:
            try:
                return self._execute(
                    container, command, stdin=given, stdout=pipes[1][1], stderr=pipes[2][1]
                )
            finally:
                for fd in (given, pipes[1][1], pipes[2][1]):
                    os.close(fd)

        try:
            process = await self._launched(spawn)
        except BaseException:
            for fd in ours:
                os.close(fd)
            raise
        return Session(process, outputs, theirs, tty=False)

    async def _launched(self, spawn: Callable[[], _Process]) -> _Process:
        """What *spawn* starts in the node. Whoever gives up waiting for it does not keep it."""
        task = asyncio.ensure_future(self._space.run(spawn))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            with contextlib.suppress(OSError, RuntimeFailure):
                process = await task
                process.send_signal(signal.SIGKILL)
                await exited(process)
            raise

    async def _exec_terminal(
        self, container: Container, command: list[str], stdin: bool
    ) -> ExecSession:
        masters: list[int] = []

        def spawn() -> Adopted:
            # A short path of its own: socket paths have at most 107 bytes.
            with (
                tempfile.TemporaryDirectory(prefix="sampan-") as short,
                socket.socket(socket.AF_UNIX) as server,
                tempfile.TemporaryFile() as said,
            ):
                console = f"{short}/console"
                server.bind(console)
                server.listen(1)
                process = self._execute(
                    container, command, "--tty", "--console-socket", console,
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said.fileno(),
                )  # fmt: skip
                if isinstance(process, subprocess.Popen):
                    said.seek(0)
                    text = said.read().decode(errors="replace").strip()
                    raise RuntimeFailure("ExecFailed", _plain(text))
                masters.append(receive_terminal(server))
            return process

        try:
            process = await self._launched(spawn)
        except BaseException:
            for fd in masters:
                os.close(fd)
            raise
        (master,) = masters
        return Session(process, {1: master}, master if stdin else None, tty=True)

    def _execute(
        self, container: Container, command: list[str], *more: str, stdin: int, stdout: int,
        stderr: int,
    ) -> Adopted | subprocess.Popen[bytes]:  # fmt: skip
        """Start *command* and let the runtime go: what it leaves is ours to wait for. The runtime
        itself, ended, where it could not start it."""
        try:
            path = self._process_file(container, command, tty=bool(more))
        except OSError as e:
            raise RuntimeFailure("ExecFailed", str(e)) from e
        pid_file = Path(path).with_suffix(".pid")
        try:
            child = subprocess.Popen(
                [*self._oci_of(container.sandbox), "exec", "--detach", "--process", path,
                 "--pid-file", str(pid_file), *more, container.id],
                stdin=stdin, stdout=stdout, stderr=stderr, cwd="/",
            )  # fmt: skip
            try:
                if child.wait(_EXEC_SECONDS):
                    return child
            except subprocess.TimeoutExpired as e:
                child.kill()
                child.wait()
                raise RuntimeFailure("ExecFailed", "the runtime does not answer") from e
            return Adopted(int(pid_file.read_text()))
        except (OSError, ValueError) as e:  # the container went meanwhile
            raise RuntimeFailure("ExecFailed", str(e)) from e
        finally:
            for file in (Path(path), pid_file):
                file.unlink(missing_ok=True)

    async def attach(self, container_id: str, *, stdin: bool) -> ExecSession:
        return await attach(self._running(container_id), stdin=stdin)

    async def connect(self, sandbox_id: str, host: str, port: int, timeout: float) -> Any:
        return await self._space.connect(host, port, timeout)

    async def forward(self, sandbox_id: str, port: int, timeout: float) -> Any:
        """As container runtimes do: the pod's IPv4 loopback first, then the other one."""
        pid = self._sandbox(sandbox_id).pid
        try:
            return await self._space.connect("127.0.0.1", port, timeout, inside=pid)
        except ConnectionRefusedError:
            return await self._space.connect("::1", port, timeout, inside=pid)

    # -- images --------------------------------------------------------------------------------

    async def image(self, ref: str) -> Image | None:
        return self._images.find(ref)

    async def images(self) -> list[Image]:
        return self._images.list()

    async def pull(self, ref: str) -> Image:
        found = self._images.find(ref)
        if found is not None:
            return found
        try:
            name = normalize(ref)
        except ValueError as e:
            raise RuntimeFailure(
                "InvalidImageName", f'couldn\'t parse image name "{ref}": {e}'
            ) from e
        raise RuntimeFailure(
            "ErrImagePull",
            f'failed to pull and unpack image "{name}": not found: no registry is configured '
            "(sampan image load brings an image to the nodes)",
        )

    async def load_images(self, path: str) -> list[Image]:
        return await self._images.load(path)

    async def remove_image(self, ref: str) -> None:
        def used() -> set[str]:
            ids = {c.image_id for c in self._containers.values()}
            return {n for i in ids for n in self._images.layer_paths(i)}

        await asyncio.to_thread(self._images.remove, ref, used)

    async def usage(self) -> dict[str, dict[str, int]]:
        def read() -> dict[str, dict[str, int]]:
            return {
                c.id: cgroups.usage(f"{self._pod_group(c.sandbox)}/{c.id}")
                for c in tuple(self._containers.values())
                if c.started_at and not c.finished_at
            }

        return await self._space.run(read)

    # -- for the node and for status -----------------------------------------------------------

    async def inside(self, work: Callable[..., Any], *args: Any) -> Any:
        """*work* in the node's namespaces; it may block."""
        return await self._space.run(work, *args)

    def view(self, path: str) -> str:
        """Where this process sees what is at *path* in the node's mount namespace."""
        return f"/proc/{self._space.pid}/root{path}"

    async def tmpfs(self, path: str, size: int) -> None:
        """Mount a tmpfs inside the node (emptyDir in memory)."""
        data = f"size={size},mode=0777" if size else "mode=0777"
        await self._space.run(kernel.mount, "tmpfs", path, "tmpfs", kernel.MS_NOSUID, data)

    async def unmount(self, path: str) -> None:
        await self._space.run(kernel.unmount, path)

    def pids(self) -> list[int]:
        """Every process this runtime keeps for its pods: pauses and monitors."""
        found = [s.pid for s in self._sandboxes.values() if s.ready]
        return found + [c.monitor for c in self._containers.values() if not c.finished_at]


def _plain(text: str) -> str:
    """A runtime's message without its time stamps."""
    if text.startswith("{"):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            return str(json.loads(text)["msg"])
    head, colon, rest = text.partition("Z: ")
    return rest if colon and head[:2] == "20" else text


def _signal_number(name: str) -> int:
    if name.isdigit():
        return int(name)
    full = name if name.startswith("SIG") else f"SIG{name}"
    return getattr(signal, full, signal.SIGTERM)
