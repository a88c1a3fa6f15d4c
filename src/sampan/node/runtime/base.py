"""The Runtime seam: the part of CRI the agent uses, as an async protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from sampan.api.streams import ExecSession


class RuntimeFailure(Exception):
    """A runtime operation failed. ``reason`` is what the container's waiting state shows:
    CreateContainerError, RunContainerError, CreateContainerConfigError, ErrImagePull, ..."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True, slots=True)
class Limits:
    """Of a sandbox's or a container's control group, as in their specs."""

    cpu_shares: int = 2
    cpu_quota_us: int = 0
    memory_limit: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSpec:
    """A pod's sandbox: pause process, network and IPC namespaces (PID when shared), cgroup."""

    id: str  # unique per attempt
    namespace: str
    name: str
    uid: str
    attempt: int = 0
    hostname: str = ""
    host_network: bool = False
    host_pid: bool = False
    host_ipc: bool = False
    share_pid: bool = False
    sysctls: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    log_dir: str = ""  # /<...>/<namespace>_<pod>_<uid>
    cpu_shares: int = 2  # of the pod's cgroup
    cpu_quota_us: int = 0  # per 100 ms period, 0 = no limit
    memory_limit: int = 0  # bytes, 0 = no limit
    handler: str = ""  # which of a node's runtimes runs its containers; '' for the default one


def no_handler(name: str) -> RuntimeFailure:
    """For a sandbox whose handler the runtime does not have."""
    text = f'failed to get sandbox runtime: no runtime for "{name}" is configured'
    return RuntimeFailure("CreatePodSandboxError", text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    source: str  # path in the node's mount namespace
    target: str
    read_only: bool = False
    propagation: str = "private"  # private, rslave, rshared
    sub_file: bool = False


@dataclass(frozen=True, slots=True)
class Device:
    """A block device of the node that a container gets (volumeDevices)."""

    source: str
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec:
    """A container, fully resolved: no Kubernetes references left in it."""

    id: str  # unique per attempt
    name: str
    attempt: int = 0
    image: str  # an image id or reference present in the store
    command: tuple[str, ...] = ()  # replaces the image's entrypoint when not empty
    args: tuple[str, ...] = ()  # replaces the image's cmd when not empty (or command is)
    env: tuple[tuple[str, str], ...] = ()  # after the image's own
    cwd: str = ""
    mounts: tuple[Mount, ...] = ()
    devices: tuple[Device, ...] = ()
    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] = ()
    strict_groups: bool = False  # only those, not also what the image's /etc/group says
    run_as_non_root: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    privileged: bool = False
    allow_privilege_escalation: bool = True
    read_only_root: bool = False
    seccomp: str = "RuntimeDefault"  # RuntimeDefault, Unconfined, Localhost/<path>
    cpu_shares: int = 2
    cpu_quota_us: int = 0
    memory_limit: int = 0
    oom_score_adj: int = 1000
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False
    log_path: str = ""  # file in CRI format
    unmasked_proc: bool = False
    joins: str = ""  # id of a running container whose processes it shares
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerState:
    """state: created, running, exited, unknown. Times are epoch seconds."""

    id: str
    sandbox_id: str
    name: str
    attempt: int
    state: str
    image: str = ""
    image_id: str = ""
    pid: int = 0
    created_at: float = 0.0
    started_at: float = 0.0
    finished_at: float = 0.0
    exit_code: int = 0
    signal: int = 0
    reason: str = ""  # Completed, Error, OOMKilled
    message: str = ""
    user: tuple[int, int, tuple[int, ...]] | None = None  # uid, gid, groups of its first process
    log_path: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxState:
    """ready: its pause process lives. containers: all attempts still known."""

    id: str
    namespace: str
    name: str
    uid: str
    attempt: int
    ready: bool
    ips: tuple[str, ...] = ()
    pid: int = 0
    created_at: float = 0.0
    netns: str = ""  # a path; /proc/<pid>/ns/net
    labels: Mapping[str, str] = field(default_factory=dict)
    containers: tuple[ContainerState, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image present on the node. id: sha256:<config digest>."""

    id: str
    tags: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()
    size: int = 0
    user: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)


class Runtime(Protocol):
    """Every method raises RuntimeFailure. Ids are the caller's. All operations are idempotent:
    stopping what is stopped and removing what is gone succeed."""

    shares_uts: bool

    async def start(self) -> None:
        """Ready to serve; picks up what earlier processes left running."""
        ...

    async def close(self) -> None:
        """Let go without touching containers."""
        ...

    async def run_sandbox(self, spec: SandboxSpec) -> SandboxState: ...
    async def stop_sandbox(self, sandbox_id: str) -> None:
        """Kill what still runs in it, the pause process included, and free its address."""
        ...

    async def remove_sandbox(self, sandbox_id: str) -> None: ...
    async def create_container(self, sandbox_id: str, spec: ContainerSpec) -> None: ...
    async def start_container(self, container_id: str) -> ContainerState: ...
    async def stop_container(self, container_id: str, grace: float, signal: str = "") -> None:
        """The stop signal (the image's, SIGTERM by default), then SIGKILL after *grace* seconds;
        returns when it has exited."""
        ...

    async def resize(
        self, sandbox_id: str, whole: Limits, containers: Mapping[str, Limits]
    ) -> None:
        """New limits of a sandbox and of running containers of it (by id): of the sandbox before
        where they grow, after where they shrink. A memory limit below what is used is refused
        before anything is changed."""
        ...

    async def kill_container(self, container_id: str, signal: int) -> None: ...
    async def remove_container(self, container_id: str) -> None: ...
    async def sandboxes(self) -> list[SandboxState]: ...
    def exits(self) -> AsyncIterator[str]:
        """The sandbox id of each sandbox in which a process ended, from start() on."""
        ...

    async def exec_sync(
        self, container_id: str, command: list[str], timeout: float
    ) -> tuple[int, bytes]:
        """Exit code and combined output (first 16 KiB). TimeoutError kills the process."""
        ...

    async def exec(
        self, container_id: str, command: list[str], *, tty: bool, stdin: bool
    ) -> ExecSession: ...

    async def attach(self, container_id: str, *, stdin: bool) -> ExecSession: ...

    async def connect(self, sandbox_id: str, host: str, port: int, timeout: float) -> Any:
        """A connected stream (asyncio reader, writer) to host:port made inside the node's network
        namespace (for probes and hooks)."""
        ...

    async def forward(self, sandbox_id: str, port: int, timeout: float) -> Any:
        """A connected stream to a port of the pod, made inside its own network: also what listens
        only on its loopback is reached."""
        ...

    async def image(self, ref: str) -> Image | None: ...
    async def images(self) -> list[Image]: ...
    async def pull(self, ref: str) -> Image:
        """Raises RuntimeFailure('ErrImagePull', ...)."""
        ...

    async def load_images(self, path: str) -> list[Image]:
        """Load an OCI or docker archive (a tar file)."""
        ...

    async def remove_image(self, ref: str) -> None: ...
    async def usage(self) -> dict[str, dict[str, int]]:
        """By container id: cpu_ns (cumulative), memory_bytes (working set)."""
        ...
