"""FakeRuntime: containers that exist only in memory, on the running loop's time.

No threads, processes, sockets or files: it runs on the virtual loop and is deterministic. What a
container does is declared by a Behaviour, found by (first match) a label ``sampan.fake`` of the
container or its sandbox, ``sampan.fake/<container name>`` of the sandbox, an environment variable
``SAMPAN_FAKE``, or the image. A text form (``run=5,exit=1``) is read from labels and environment.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from sampan.lib.clock import Clock
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

ExecScript = Callable[[list[str]], tuple[int, bytes]]
LABEL = "sampan.fake"


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """What one container does. Times are in seconds of the loop."""

    run: float | None = None  # ends by itself after so long; None: runs until it is stopped
    exit: int = 0
    reason: str = ""  # e.g. OOMKilled
    message: str = ""  # as if read from its termination log
    start_delay: float = 0.0
    cpu: float = 0.0  # cores it uses while it runs
    memory: int = 1 << 20  # bytes
    stop_delay: float = 0.0  # how long it takes to heed its stop signal; above grace: SIGKILL
    create_error: str = ""
    start_error: str = ""
    execs: Mapping[str, ExecScript] = field(default_factory=dict)  # by command[0]

    @staticmethod
    def parse(text: str) -> Behaviour:
        """From ``run=5,exit=1``. Raises ValueError for what is not a scalar field."""
        known: dict[str, Callable[[str], object]] = {
            "run": float, "exit": int, "reason": str, "message": str, "start_delay": float,
            "stop_delay": float, "create_error": str, "start_error": str, "cpu": float,
            "memory": int,
        }  # fmt: skip
        values: dict[str, object] = {}
        for part in filter(None, text.split(",")):
            name, _, value = part.partition("=")
            if name not in known:
                raise ValueError(f"unknown behaviour {name!r}")
            values[name] = known[name](value)
        return Behaviour(**values)  # type: ignore[arg-type]


@dataclass(slots=True, eq=False)
class _Container:
    spec: ContainerSpec
    sandbox: _Sandbox
    state: ContainerState
    behaviour: Behaviour
    ended: asyncio.Event
    timer: asyncio.TimerHandle | None = None
    cpu: float | None = None  # instead of what its behaviour says
    spent_ns: float = 0.0
    since: float = 0.0

    def used_ns(self, now: float) -> float:
        """CPU time since it started."""
        cpu = self.behaviour.cpu if self.cpu is None else self.cpu
        return self.spent_ns + cpu * (now - (self.since or self.state.started_at)) * 1e9


@dataclass(slots=True)
class _Sandbox:
    spec: SandboxSpec
    ips: tuple[str, ...]
    created_at: float
    ready: bool = True
    pid: int = 0
    containers: dict[str, _Container] = field(default_factory=dict)


class FakeRuntime:
    """A Runtime of pretence. images: the images of the node; None means every image is there."""

    shares_uts = True

    def __init__(
        self,
        clock: Clock,
        *,
        pod_cidrs: Sequence[str] = ("10.42.0.0/24",),
        behaviours: Mapping[str, Behaviour] | None = None,
        images: Iterable[str] | None = None,
        sandbox_delay: float = 0.0,
    ) -> None:
        self.behaviours = dict(behaviours or {})
        self.sandbox_error = ""
        self.handlers = {"crun", "runc"}
        self.resize_error = ""
        self.down = False  # as if the runtime did not answer
        self.missing: set[str] = set()  # images that are not there and cannot be pulled
        self.listeners: dict[tuple[str, int], Callable[[], object]] = {}
        self.calls: list[tuple[str, str]] = []
        self._clock = clock
        self._networks = [ipaddress.ip_network(c) for c in pod_cidrs]
        self._sandbox_delay = sandbox_delay
        self._sandboxes: dict[str, _Sandbox] = {}
        self._containers: dict[str, _Container] = {}
        self._images: dict[str, Image] | None = None
        if images is not None:
            self._images = {ref: _image(ref) for ref in images}
        self._seen: dict[str, Image] = {}
        self._pid = 100
        self._watchers: list[asyncio.Queue[str]] = []

    async def start(self) -> None:
        self._check()

    async def close(self) -> None:
        """Containers stay: a second agent may take them over."""

    # ---- sandboxes -----------------------------------------------------------------------------

    async def run_sandbox(self, spec: SandboxSpec) -> SandboxState:
        self._called("run_sandbox", spec.id)
        if self.sandbox_error:
            raise RuntimeFailure("CreatePodSandboxError", self.sandbox_error)
        if spec.handler and spec.handler not in self.handlers:
            raise no_handler(spec.handler)
        known = self._sandboxes.get(spec.id)
        if known is None:
            if self._sandbox_delay:
                await asyncio.sleep(self._sandbox_delay)
            self._pid += 1
            ips = () if spec.host_network else self._free_addresses()
            known = _Sandbox(spec, ips, self._clock.now(), pid=self._pid)
            self._sandboxes[spec.id] = known
        return _sandbox_state(known)

    async def stop_sandbox(self, sandbox_id: str) -> None:
        self._called("stop_sandbox", sandbox_id)
        box = self._sandboxes.get(sandbox_id)
        if box is None:
            return
        for container in list(box.containers.values()):
            self._end(container, exit_code=137, signal=9)
        box.ready, box.ips = False, ()

    async def remove_sandbox(self, sandbox_id: str) -> None:
        self._called("remove_sandbox", sandbox_id)
        await self.stop_sandbox(sandbox_id)
        box = self._sandboxes.pop(sandbox_id, None)
        for cid in list(box.containers) if box else ():
            await self.remove_container(cid)

    # ---- containers ----------------------------------------------------------------------------

    async def create_container(self, sandbox_id: str, spec: ContainerSpec) -> None:
        self._called("create_container", spec.id)
        box = self._sandboxes.get(sandbox_id)
        if box is None or not box.ready:
            raise RuntimeFailure("CreateContainerError", f"sandbox {sandbox_id} is not running")
        if spec.id in self._containers:
            raise RuntimeFailure("CreateContainerError", f"container {spec.id} exists")
        image = await self.image(spec.image)
        if image is None:
            raise RuntimeFailure("CreateContainerError", f'image "{spec.image}" not found')
        behaviour = self._behaviour(spec, box.spec, image)
        if behaviour.create_error:
            raise RuntimeFailure("CreateContainerError", behaviour.create_error)
        state = ContainerState(
            id=spec.id,
            sandbox_id=sandbox_id,
            name=spec.name,
            attempt=spec.attempt,
            state="created",
            image=spec.image,
            image_id=image.id,
            created_at=self._clock.now(),
            log_path=spec.log_path,
            labels=spec.labels,
        )
        container = _Container(spec, box, state, behaviour, asyncio.Event())
        box.containers[spec.id] = self._containers[spec.id] = container

    async def start_container(self, container_id: str) -> ContainerState:
        self._called("start_container", container_id)
        container = self._container(container_id)
        behaviour = container.behaviour
        if behaviour.start_delay:
            await asyncio.sleep(behaviour.start_delay)
        if container.state.state != "created" or not container.sandbox.ready:
            raise RuntimeFailure(
                "RunContainerError", f"container is in {container.state.state} state"
            )
        if behaviour.start_error:
            container.state = replace(
                container.state, state="exited", exit_code=128, reason="StartError",
                message=behaviour.start_error, finished_at=self._clock.now(),
            )  # fmt: skip
            container.ended.set()
            raise RuntimeFailure("RunContainerError", behaviour.start_error)
        self._pid += 1
        container.state = replace(
            container.state, state="running", pid=self._pid, started_at=self._clock.now()
        )
        if behaviour.run is not None:
            container.timer = asyncio.get_running_loop().call_later(
                behaviour.run, self._end, container
            )
        return container.state

    async def stop_container(self, container_id: str, grace: float, signal: str = "") -> None:
        self._called("stop_container", container_id)
        container = self._containers.get(container_id)
        if container is None or container.state.state != "running":
            return
        delay = container.behaviour.stop_delay
        heeds = delay <= grace
        wait = delay if heeds else grace
        if wait > 0:
            try:
                async with asyncio.timeout(wait):
                    await container.ended.wait()
            except TimeoutError:
                pass
        number = 15 if heeds else 9
        self._end(container, exit_code=128 + number, signal=number)

    async def resize(
        self, sandbox_id: str, whole: Limits, containers: Mapping[str, Limits]
    ) -> None:
        self._called("resize", sandbox_id)
        if self.resize_error:
            raise RuntimeFailure("Error", self.resize_error)
        found = {self._running(cid): limits for cid, limits in containers.items()}
        box = self._sandboxes[sandbox_id]
        box.spec = replace(box.spec, **asdict(whole))
        for container, limits in found.items():
            container.spec = replace(container.spec, **asdict(limits))

    async def kill_container(self, container_id: str, signal: int) -> None:
        container = self._containers.get(container_id)
        if container is not None:
            self._end(container, exit_code=128 + signal, signal=signal)

    async def remove_container(self, container_id: str) -> None:
        self._called("remove_container", container_id)
        container = self._containers.pop(container_id, None)
        if container is not None:
            self._end(container, exit_code=137, signal=9)
            container.sandbox.containers.pop(container_id, None)

    # ---- observation ---------------------------------------------------------------------------

    def running(self, namespace: str, name: str) -> list[str]:
        """The sandboxes of a pod's name in which a container runs, whatever the pod's uid."""
        return [
            key
            for key, box in self._sandboxes.items()
            if (box.spec.namespace, box.spec.name) == (namespace, name)
            and any(c.state.state == "running" for c in box.containers.values())
        ]

    async def sandboxes(self) -> list[SandboxState]:
        self._check()
        return [_sandbox_state(b) for b in self._sandboxes.values()]

    async def exits(self) -> AsyncIterator[str]:
        queue: asyncio.Queue[str] = asyncio.Queue()
        self._watchers.append(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._watchers.remove(queue)

    def finish(self, container_id: str, exit_code: int = 0, reason: str = "") -> None:
        """Let a running container end now (for tests and scenarios)."""
        self._end(self._container(container_id), exit_code=exit_code, reason=reason)

    def count(self, namespace: str, prefix: str) -> int:
        """The containers that run, of the pods whose names begin so."""
        return sum(
            c.state.state == "running" and c.sandbox.spec.namespace == namespace
            and c.sandbox.spec.name.startswith(prefix) for c in self._containers.values()
        )  # fmt: skip

    def load(self, namespace: str, prefix: str, cores: float) -> None:
        """From now on each container of the pods whose names begin so uses *cores*."""
        now = self._clock.now()
        for c in self._containers.values():
            box = c.sandbox.spec
            if box.namespace == namespace and box.name.startswith(prefix):
                if c.state.state == "running":
                    c.spent_ns, c.since = c.used_ns(now), now
                c.cpu = cores

    def kill_sandbox(self, sandbox_id: str) -> None:
        """As if the pause process had died, and all containers with it."""
        box = self._sandboxes[sandbox_id]
        for container in box.containers.values():
            self._end(container, exit_code=137, signal=9)
        box.ready = False
        self._tell(sandbox_id)

    # ---- within a container --------------------------------------------------------------------

    async def exec_sync(
        self, container_id: str, command: list[str], timeout: float
    ) -> tuple[int, bytes]:
        container = self._running(container_id)
        script = container.behaviour.execs.get(command[0])
        if script is not None:
            return script(command)
        return 0, " ".join(command).encode() + b"\n"

    async def exec(
        self, container_id: str, command: list[str], *, tty: bool, stdin: bool
    ) -> FakeSession:
        code, out = await self.exec_sync(container_id, command, 0.0)
        return FakeSession(out, code, echo=stdin)

    async def attach(self, container_id: str, *, stdin: bool) -> FakeSession:
        self._running(container_id)
        return FakeSession(b"", 0, echo=stdin)

    async def connect(self, sandbox_id: str, host: str, port: int, timeout: float) -> object:
        """As ``listeners[host, port]`` answers (sandbox ids and addresses name hosts); refused
        when there is none."""
        for name in (host, sandbox_id):
            listener = self.listeners.get((name, port))
            if listener is not None:
                return listener()
        raise ConnectionRefusedError(111, "Connection refused")

    async def forward(self, sandbox_id: str, port: int, timeout: float) -> object:
        return await self.connect(sandbox_id, "localhost", port, timeout)

    # ---- images --------------------------------------------------------------------------------

    async def image(self, ref: str) -> Image | None:
        self._check()
        if ref in self.missing:
            return None
        if self._images is None:
            if ref.startswith("sha256:"):
                return self._seen.get(ref)
            image = _image(ref)
            return self._seen.setdefault(image.id, image)
        return self._images.get(ref) or next(
            (i for i in self._images.values() if ref in (i.id, *i.tags, *i.digests)), None
        )

    async def images(self) -> list[Image]:
        return list((self._images or {}).values())

    async def pull(self, ref: str) -> Image:
        found = await self.image(ref)
        if found is None:
            raise RuntimeFailure("ErrImagePull", f'no registry is configured to pull "{ref}" from')
        return found

    async def load_images(self, path: str) -> list[Image]:
        """The file name without its suffix is the one image in it."""
        image = _image(path.rpartition("/")[2].partition(".")[0])
        if self._images is not None:
            self._images[image.tags[0]] = image
        return [image]

    async def remove_image(self, ref: str) -> None:
        found = await self.image(ref)
        if self._images is not None and found is not None:
            self._images = {k: v for k, v in self._images.items() if v.id != found.id}

    async def usage(self) -> dict[str, dict[str, int]]:
        return {
            cid: {
                "cpu_ns": round(c.used_ns(self._clock.now())),
                "memory_bytes": c.behaviour.memory,
            }
            for cid, c in self._containers.items()
            if c.state.state == "running"
        }

    # ---- inside --------------------------------------------------------------------------------

    def _check(self) -> None:
        if self.down:
            raise RuntimeFailure("RuntimeNotReady", "the runtime does not answer")

    def _called(self, verb: str, what: str) -> None:
        self._check()
        self.calls.append((verb, what))

    def _container(self, container_id: str) -> _Container:
        found = self._containers.get(container_id)
        if found is None:
            raise RuntimeFailure("NotFound", f"container {container_id} not found")
        return found

    def _running(self, container_id: str) -> _Container:
        found = self._container(container_id)
        if found.state.state != "running":
            raise RuntimeFailure("NotRunning", f"container {container_id} is not running")
        return found

    def _end(
        self, container: _Container, exit_code: int | None = None, signal: int = 0, reason: str = ""
    ) -> None:
        if container.state.state != "running":
            return
        if container.timer is not None:
            container.timer.cancel()
        behaviour = container.behaviour
        code = behaviour.exit if exit_code is None else exit_code
        why = reason or (behaviour.reason if exit_code is None else "")
        container.state = replace(
            container.state,
            state="exited",
            pid=0,
            exit_code=code,
            signal=signal,
            finished_at=self._clock.now(),
            reason=why or ("Completed" if code == 0 else "Error"),
            message=behaviour.message,
        )
        container.ended.set()
        self._tell(container.sandbox.spec.id)

    def _tell(self, sandbox_id: str) -> None:
        for queue in self._watchers:
            queue.put_nowait(sandbox_id)

    def _behaviour(self, spec: ContainerSpec, box: SandboxSpec, image: Image) -> Behaviour:
        texts = (
            spec.labels.get(LABEL),
            box.labels.get(f"{LABEL}/{spec.name}"),
            box.labels.get(LABEL),
            dict(spec.env).get("SAMPAN_FAKE"),
        )
        for text in texts:
            if text is not None:
                return Behaviour.parse(text)
        names = (spec.image, *image.tags)
        return next((self.behaviours[n] for n in names if n in self.behaviours), Behaviour())

    def _free_addresses(self) -> tuple[str, ...]:
        """The lowest of each family."""
        used = {ip for b in self._sandboxes.values() for ip in b.ips}
        found = []
        for network in self._networks:
            numbers = range(2, network.num_addresses - 1)
            ip = next((ip for n in numbers if (ip := str(network[n])) not in used), "")
            if not ip:
                raise RuntimeFailure("CreatePodSandboxError", "no address is free")
            found.append(ip)
        return tuple(found)


class FakeSession:
    """What exec and attach answer: fixed output, then (with stdin) an echo until stdin closes."""

    def __init__(self, out: bytes, code: int, *, echo: bool) -> None:
        self.sizes: list[tuple[int, int]] = []
        self._code = code
        self._chunks: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._done = asyncio.Event()
        if out:
            self._chunks.put_nowait(out)
        if not echo:
            self._finish()

    def _finish(self) -> None:
        self._chunks.put_nowait(None)
        self._done.set()

    async def write(self, data: bytes) -> None:
        self._chunks.put_nowait(data)

    async def close_stdin(self) -> None:
        self._finish()

    async def resize(self, width: int, height: int) -> None:
        self.sizes.append((width, height))

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        while (chunk := await self._chunks.get()) is not None:
            yield 1, chunk

    async def wait(self) -> int:
        await self._done.wait()
        return self._code

    async def kill(self) -> None:
        self._code = 137
        self._finish()


def _image(ref: str) -> Image:
    return Image(
        id="sha256:" + hashlib.sha256(ref.encode()).hexdigest(), tags=(ref,), size=1_000_000
    )


def _sandbox_state(box: _Sandbox) -> SandboxState:
    spec = box.spec
    return SandboxState(
        id=spec.id,
        namespace=spec.namespace,
        name=spec.name,
        uid=spec.uid,
        attempt=spec.attempt,
        ready=box.ready,
        ips=box.ips,
        pid=box.pid if box.ready else 0,
        created_at=box.created_at,
        labels=spec.labels,
        containers=tuple(c.state for c in box.containers.values()),
    )
