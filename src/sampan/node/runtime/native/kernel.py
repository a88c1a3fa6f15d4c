"""System calls Python 3.11 has no words for."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

CLONE_FS = 0x00000200
CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong,
                        ctypes.c_char_p)  # fmt: skip


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def setns(fd: int, kind: int) -> None:
    """Move the calling thread into a namespace."""
    _check(_libc.setns(fd, kind), "setns")


def unshare(flags: int) -> None:
    """Give the calling thread (or its children, for CLONE_NEWPID) namespaces of its own."""
    _check(_libc.unshare(flags), "unshare")


def mount(source: str, target: str, kind: str, flags: int = 0, data: str = "") -> None:
    _check(
        _libc.mount(source.encode(), target.encode(), kind.encode(), flags, data.encode()),
        f"mount {kind} at {target}",
    )


def unmount(target: str, *, missing_ok: bool = True) -> None:
    """Unmount, lazily where it is busy."""
    if _libc.umount2(target.encode(), MNT_DETACH) != 0:
        code = ctypes.get_errno()
        if not missing_ok:
            raise OSError(code, f"unmount {target}: {os.strerror(code)}")


def enter(pid: int, kinds: tuple[tuple[str, int], ...]) -> None:
    """Move the calling thread into namespaces of a process. kinds: (name under /proc/<pid>/ns,
    CLONE flag)."""
    fds = [(os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC), flag)
           for name, flag in kinds]  # fmt: skip
    try:
        for fd, flag in fds:
            setns(fd, flag)
    finally:
        for fd, _ in fds:
            os.close(fd)


def write(path: Path | str, text: str) -> None:
    """Write a file of a kernel's file system."""
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def signal_pidfd(fd: int, number: int) -> None:
    """Send a signal to a process by its pidfd; one that has ended is fine."""
    import signal

    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(fd, number)


def become_subreaper() -> None:
    """Orphans below this process become its children, not init's."""
    _check(_libc.prctl(36, 1, 0, 0, 0), "prctl PR_SET_CHILD_SUBREAPER")
