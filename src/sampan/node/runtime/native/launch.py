"""Launching: a pod's pause with its namespaces and network, a container under conmon.

Everything here runs in a thread of the node, and blocks.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from sampan.lib.addressing import GATEWAYS, IPV4, IPV6, family_of
from sampan.node.runtime.base import ContainerSpec, RuntimeFailure, SandboxSpec
from sampan.node.runtime.native import kernel
from sampan.node.runtime.native.netlink import netlink

_PAUSE = ("catatonit", "-P")
_NAMES = {
    kernel.CLONE_NEWNET: "net", kernel.CLONE_NEWIPC: "ipc", kernel.CLONE_NEWUTS: "uts",
    kernel.CLONE_NEWPID: "pid_for_children", kernel.CLONE_NEWNS: "mnt",
}  # fmt: skip
_BITS = {IPV4: 32, IPV6: 128}


def link_name(address: str) -> str:
    """The node's end of a pod's link: short, and known from the pod's address alone."""
    return "pod" + hashlib.sha256(address.encode()).hexdigest()[:8]


@contextlib.contextmanager
def _fresh(flags: int) -> Iterator[None]:
    """The calling thread in new namespaces for a while; what it launches stays in them."""
    held = [
        (os.open(f"/proc/thread-self/ns/{name}", os.O_RDONLY | os.O_CLOEXEC), flag)
        for flag, name in _NAMES.items()
        if flags & flag
    ]
    try:
        kernel.unshare(flags)
        yield
    finally:
        for fd, flag in held:
            kernel.setns(fd, flag)
            os.close(fd)


def start_pause(spec: SandboxSpec, addresses: Sequence[str], sources: Sequence[str] = ()) -> int:
    """The pid of a new pause that holds the pod's namespaces, with the pod's network set up.
    addresses: none where the pod uses the node's network. sources: the node's own, from which it
    speaks to its pods (probes)."""
    flags = kernel.CLONE_NEWUTS | kernel.CLONE_NEWNS
    if addresses:
        flags |= kernel.CLONE_NEWNET
    if not spec.host_ipc:
        flags |= kernel.CLONE_NEWIPC
    if not spec.host_pid:
        flags |= kernel.CLONE_NEWPID
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    try:
        with _fresh(flags):
            socket.sethostname((spec.hostname or spec.name)[:64])
            pid = os.posix_spawnp(
                _PAUSE[0], _PAUSE, {}, setsid=True,
                file_actions=[(os.POSIX_SPAWN_DUP2, null, n) for n in (0, 1, 2)],
            )  # fmt: skip
    finally:
        os.close(null)
    try:
        if addresses:
            _plug(pid, addresses, sources)
    except BaseException:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        raise
    return pid


def _plug(pid: int, addresses: Sequence[str], sources: Sequence[str]) -> None:
    """A point-to-point link between node and pod: the pod has its own addresses alone and goes
    everywhere through the gateway that every node answers for."""
    name = link_name(addresses[0])
    own = {family_of(source): source for source in sources}
    with netlink() as link:
        link.veth(name, "eth0", peer_pid=pid)
        for address in addresses:
            if family_of(address) == IPV6:
                link.address(name, GATEWAYS[IPV6], 64)
            source = own.get(family_of(address), "")
            link.route(f"{address}/{_BITS[family_of(address)]}", device=name, source=source)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        kernel.enter(pid, (("net", kernel.CLONE_NEWNET),))
        with netlink() as link:
            link.up("lo")
            link.up("eth0")
            if any(family_of(a) == IPV6 for a in addresses):
                kernel.write("/proc/sys/net/ipv6/conf/eth0/accept_ra", "0")  # routes are ours
            for address in addresses:
                link.address("eth0", address)
                gateway = GATEWAYS[family_of(address)]
                if family_of(address) == IPV6:
                    link.route("::/0", device="eth0", via=gateway)
                else:
                    link.route(f"{gateway}/32", device="eth0", source=address)
                    link.route("0.0.0.0/0", device="eth0", via=gateway)
    finally:
        kernel.setns(home, kernel.CLONE_NEWNET)
        os.close(home)


def unplug(addresses: Sequence[str]) -> None:
    """Remove the links of a pod's addresses, where they are still there."""
    with netlink() as link:
        for address in addresses:
            link.delete(link_name(address))


class ContainerFiles:
    """The files of one container: its bundle, and its root file system's layers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.json"
        self.upper, self.work, self.merged = path / "upper", path / "work", path / "merged"
        self.pid_file, self.monitor_file = path / "pid", path / "conmon.pid"
        self.exits = path / "exits"


class MountedRoot:
    """A container's root file system, read and written without leaving it by a symlink."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def _inside(self, name: str) -> Path:
        """Where *name* is, every symlink on the way resolved inside the root."""
        current = self._path
        todo, links = name.strip("/").split("/"), 0
        while todo:
            part = todo.pop(0)
            if part in ("", "."):
                continue
            if part == "..":
                current = current.parent if current != self._path else current
                continue
            following = current / part
            if following.is_symlink():
                links += 1
                if links > 40:
                    raise OSError(f"{name}: too many links")
                target = os.readlink(following)
                if target.startswith("/"):
                    current = self._path
                todo = target.strip("/").split("/") + todo
                continue
            current = following
        return current

    def text(self, name: str) -> str:
        """A file's text; '' where there is none."""
        try:
            return self._inside(name).read_text(errors="replace")
        except OSError:
            return ""

    def make_directory(self, name: str, uid: int, gid: int) -> None:
        """A working directory that the image lacks."""
        path = self._inside(name)
        if not path.exists():
            path.mkdir(parents=True)
            os.chown(path, uid, gid)


def mount_root(files: ContainerFiles, layers: Sequence[str]) -> MountedRoot:
    """Make the container's directories and mount its layers (lowest first) with a writable one
    above."""
    for directory in (files.upper, files.work, files.merged, files.exits):
        directory.mkdir(parents=True, exist_ok=True)
    lower = ":".join(reversed(layers))
    data = f"lowerdir={lower},upperdir={files.upper},workdir={files.work}"
    if len(data) >= 4096:
        raise RuntimeFailure("CreateContainerError", "the image has too many layers")
    kernel.mount("overlay", str(files.merged), "overlay", 0, data)
    return MountedRoot(files.merged)


_OCI_SECONDS = 120.0


def oci(runtime: Sequence[str], *args: str) -> subprocess.CompletedProcess[bytes]:
    """One call of crun or runc. Raises RuntimeFailure where it does not come back."""
    try:
        return subprocess.run(
            [*runtime, *args], stdin=subprocess.DEVNULL, capture_output=True, cwd="/",
            timeout=_OCI_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired as e:
        raise RuntimeFailure(
            "RuntimeStuck", f"{runtime[0]} {args[0]}: no end within {_OCI_SECONDS:g} s"
        ) from e


class Unstartable(RuntimeFailure):
    """The runtime made nothing of a bundle: what it is to run is not there, or may not run."""


def create_with_conmon(
    runtime: Sequence[str], spec: ContainerSpec, files: ContainerFiles
) -> tuple[int, int]:
    """Create (not start) the container of a bundle under a conmon: (its pid, conmon's pid).
    Raises Unstartable with what the runtime said."""
    log = spec.log_path or "/dev/null"
    command = [
        "conmon", "--cid", spec.id, "--cuuid", spec.id, "--name", spec.name, "--runtime",
        runtime[0], "--bundle", str(files.path), "--container-pidfile", str(files.pid_file),
        "--conmon-pidfile", str(files.monitor_file), "--log-path", f"k8s-file:{log}",
        "--exit-dir", str(files.exits), "--persist-dir", str(files.path), "--full-attach",
        "--no-sync-log", "--log-level", "error",
        *(f"--runtime-arg={a}" for a in runtime[1:]),
    ]  # fmt: skip
    if spec.tty:
        command.append("--terminal")
    if spec.stdin:
        command.append("--stdin")
        if not spec.stdin_once:
            command.append("--leave-stdin-open")
    read, write = os.pipe()
    try:
        os.set_inheritable(write, True)
        try:
            pid = os.posix_spawnp(
                command[0], command,
                {"PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin"), "_OCI_SYNCPIPE": str(write)},
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, n, "/dev/null", os.O_RDWR, 0) for n in (0, 1, 2)
                ],
                setsid=True,
            )  # fmt: skip
        finally:
            os.close(write)
        answer = b""
        while data := os.read(read, 65536):
            answer += data
            if answer.endswith(b"\n"):
                break
        os.waitpid(pid, 0)  # the first conmon only forks the one that stays
    finally:
        os.close(read)
    try:
        told = json.loads(answer)
        code = int(told.get("data", told.get("pid", -1)))
        message = str(told.get("message") or "")
    except (ValueError, TypeError):
        code, message = -1, answer.decode(errors="replace")
    if code <= 0:
        raise Unstartable("RunContainerError", message.strip() or "conmon failed")
    return code, int(files.monitor_file.read_text())
