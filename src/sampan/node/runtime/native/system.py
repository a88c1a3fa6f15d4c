"""System calls and processes that Python 3.11 does not offer."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import select
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sampan.lib.datadir import started_at

T = TypeVar("T")

CLONE_FS = 0x200
CLONE_NEWNS = 0x20000
CLONE_NEWIPC = 0x8000000
CLONE_NEWNET = 0x40000000
MS_BIND, MS_REC, MS_PRIVATE, MS_SLAVE, MS_SHARED = 0x1000, 0x4000, 1 << 18, 1 << 19, 1 << 20
MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
MNT_DETACH = 2
IN_MOVED_TO, IN_CLOSE_WRITE = 0x80, 0x8

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_char_p,
)


def _check(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)
    return result


def unshare(flags: int) -> None:
    """New namespaces for the calling thread."""
    _check(_libc.unshare(flags), "unshare")


def setns(fd: int, kind: int) -> None:
    """Move the calling thread into a namespace."""
    _check(_libc.setns(fd, kind), "setns")


def mount(source: str, target: str, kind: str, flags: int = 0, data: str = "") -> None:
    _check(
        _libc.mount(source.encode(), target.encode(), kind.encode(), flags, data.encode()), target
    )


def unmount(target: str) -> None:
    """Detach a mount; it is no error when there is none."""
    if _libc.umount2(target.encode(), MNT_DETACH) < 0:
        code = ctypes.get_errno()
        if code not in (errno.EINVAL, errno.ENOENT):
            raise OSError(code, os.strerror(code), target)


class Inotify:
    """Names of files that appear, complete, in a directory. ``fd`` is for the loop's readers."""

    def __init__(self, directory: Path) -> None:
        self.fd = _check(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), "inotify_init1")
        flags = IN_MOVED_TO | IN_CLOSE_WRITE
        _check(_libc.inotify_add_watch(self.fd, str(directory).encode(), flags), str(directory))

    def read(self) -> list[str]:
        names = []
        try:
            data = os.read(self.fd, 65536)
        except BlockingIOError:
            return []
        at = 0
        while at < len(data):
            length = int.from_bytes(data[at + 12 : at + 16], "little")
            names.append(data[at + 16 : at + 16 + length].rstrip(b"\0").decode())
            at += 16 + length
        return names

    def close(self) -> None:
        os.close(self.fd)


def in_own_thread(work: Callable[[], T]) -> T:
    """Run *work* in a thread that ends with it, so that namespaces it enters end with it too."""
    result: list[T] = []
    failure: list[BaseException] = []

    def body() -> None:
        try:
            result.append(work())
        except BaseException as e:
            failure.append(e)

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@dataclass(frozen=True, slots=True)
class Process:
    """A process for good: pids are used again, pid and start time are not."""

    pid: int = 0
    ticks: int = 0

    @classmethod
    def of(cls, pid: int) -> Process:
        return cls(pid, started_at(pid))

    def lives(self) -> bool:
        return self.pid > 0 and self.ticks > 0 and started_at(self.pid) == self.ticks

    def open(self) -> int:
        """A pidfd of it. Raises ProcessLookupError when it has ended."""
        fd = os.pidfd_open(self.pid)
        if not self.lives():
            os.close(fd)
            raise ProcessLookupError(errno.ESRCH, "process has ended")
        return fd

    def signal(self, number: int) -> bool:
        """False when it had ended already."""
        try:
            fd = self.open()
        except OSError:
            return False
        try:
            signal.pidfd_send_signal(fd, number)
            return True
        except ProcessLookupError:
            return False
        finally:
            os.close(fd)

    def wait(self, timeout: float) -> bool:
        """Whether it ended within *timeout* seconds; takes away the zombie if it is our child."""
        try:
            fd = self.open()
        except OSError:
            reap(self.pid)
            return True
        try:
            ended = bool(select.select([fd], [], [], timeout)[0])
        finally:
            os.close(fd)
        if ended:
            reap(self.pid)
        return ended

    def kill(self, timeout: float = 5.0) -> bool:
        self.signal(signal.SIGKILL)
        return self.wait(timeout)


def reap(pid: int) -> int | None:
    """The exit code of a child that has ended, or None."""
    if pid <= 0:
        return None
    try:
        found, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return None
    if found == 0:
        return None
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


_SAFE_FD = 40  # above every number that a child is given


def spawn(
    argv: Sequence[str],
    *,
    fds: Mapping[int, int] | None = None,
    env: Mapping[str, str] | None = None,
    terminal: str = "",
) -> int:
    """Start a process with only the given descriptors (child's number: ours), in a session of its
    own; 0, 1 and 2 are /dev/null unless given. It inherits the calling thread's namespaces.
    terminal: a path of a tty that becomes 0, 1, 2 and the controlling terminal.

    posix_spawn and not fork: forking a large process takes milliseconds and is unsafe beside
    threads."""
    wanted = dict(fds or {})
    actions: list[tuple[Any, ...]] = []
    copies = [(to, fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _SAFE_FD)) for to, fd in wanted.items()]
    try:
        for to in (0, 1, 2):
            if to not in wanted:
                path = terminal or "/dev/null"
                actions.append((os.POSIX_SPAWN_OPEN, to, path, os.O_RDWR, 0))
        actions.extend((os.POSIX_SPAWN_DUP2, fd, to) for to, fd in copies)
        return os.posix_spawn(
            argv[0],
            list(argv),
            {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", **(env or {})},
            file_actions=actions,
            setsid=True,
            setsigdef=[signal.SIGPIPE, signal.SIGINT, signal.SIGXFSZ],
            setsigmask=[],
        )
    finally:
        for _, fd in copies:
            os.close(fd)


def call(argv: Sequence[str], *, timeout: float = 60.0) -> tuple[int, str]:
    """Run to the end; exit code and combined output. Blocks: for node threads only."""
    read, write = os.pipe()
    try:
        pid = spawn(argv, fds={1: write, 2: write})
    finally:
        os.close(write)
    out = read_all(read, timeout=timeout)
    process = Process.of(pid)
    if out is None:
        process.kill()
        return 124, f"{argv[0]} did not end within {timeout:g} s"
    try:
        _, status = os.waitpid(pid, 0)
    except ChildProcessError:
        return 0, out.decode(errors="replace")
    code = os.waitstatus_to_exitcode(status)
    return (code if code >= 0 else 128 - code), out.decode(errors="replace")


def read_all(fd: int, *, timeout: float, until: bytes = b"") -> bytes | None:
    """Everything up to the end (or up to *until*); closes *fd*. None after *timeout* of silence."""
    out = b""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    try:
        while True:
            if not poll.poll(timeout * 1000):
                return None
            data = os.read(fd, 65536)
            out += data
            if not data or (until and until in out):
                return out
    finally:
        os.close(fd)


def read_json(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replaces *path* at once: a reader sees the old or the new text."""
    temporary = path.with_name(f".{path.name}.{threading.get_ident()}")
    temporary.write_text(json.dumps(value))
    temporary.replace(path)


@contextlib.contextmanager
def locked(path: Path) -> Any:
    """Held by one process and thread at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
