"""The OCI configuration of a container: a pure function of what the agent asks for."""

from __future__ import annotations

import os
import platform
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sampan.api.obj import Body
from sampan.node.runtime.base import ContainerSpec, Device, RuntimeFailure, SandboxSpec
from sampan.node.runtime.native.seccomp import runtime_default

_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_CAPABILITIES = (
    "CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
    "CAP_MKNOD", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP",
    "CAP_SETUID", "CAP_SYS_CHROOT",
)  # fmt: skip
ALL_CAPABILITIES = (  # by their numbers
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
    "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER",
    "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
)  # fmt: skip


@cache
def host_capabilities() -> frozenset[str]:
    """What this process itself holds: nobody can be given more."""
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "CapPrm":
            mask = int(value, 16)
            return frozenset(c for i, c in enumerate(ALL_CAPABILITIES) if mask >> i & 1)
    return frozenset(ALL_CAPABILITIES)


@cache
def least_oom_score() -> int:
    """The lowest score a container can be given: who may not lower scores has its own for a
    floor (a pod that asks for more protection than the host can give still runs)."""
    if "CAP_SYS_RESOURCE" in host_capabilities():
        return -1000
    return int(Path("/proc/self/oom_score_adj").read_text())


_MASKED = (
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
    "/proc/latency_stats", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
    "/proc/sched_debug", "/sys/devices/virtual/powercap", "/sys/firmware",
)  # fmt: skip
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_DEVICES = ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2), (136, None))
PERIOD = 100_000
# Every container gets these from its runtime.
_OWN_DEVICES = ("console", "full", "null", "ptmx", "random", "tty", "urandom", "zero")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who the first process runs as."""

    uid: int
    gid: int
    groups: tuple[int, ...]


def identify(
    spec: ContainerSpec, image_user: str, passwd: str, group: str, who: str = ""
) -> Identity:
    """The user of a container: what the pod says, else what the image says, looked up in the
    image's own files. Raises RuntimeFailure."""
    user, _, named_group = image_user.partition(":")
    users = [line.split(":") for line in passwd.splitlines() if line.count(":") >= 3]
    groups = [line.split(":") for line in group.splitlines() if line.count(":") >= 2]
    if spec.uid is not None:
        uid, entry = spec.uid, next((u for u in users if u[2] == str(spec.uid)), None)
    elif user.isdigit() or not user:
        uid = int(user or 0)
        entry = next((u for u in users if u[2] == str(uid)), None)
    else:
        entry = next((u for u in users if u[0] == user), None)
        if entry is None:
            raise RuntimeFailure(
                "CreateContainerError", f"unable to find user {user}: no matching entries in passwd"
            )
        uid = int(entry[2])
        if spec.run_as_non_root:
            raise RuntimeFailure(
                "CreateContainerConfigError",
                f"container has runAsNonRoot and image has non-numeric user ({user}), cannot "
                f"verify user is non-root ({who})",
            )
    if spec.run_as_non_root and uid == 0:
        text = "image will run as root" if spec.uid is None else "container's runAsUser is 0"
        raise RuntimeFailure(
            "CreateContainerConfigError", f"container has runAsNonRoot and {text} ({who})"
        )
    gid = int(entry[3]) if entry is not None else 0
    if spec.gid is not None:
        gid = spec.gid
    elif named_group and spec.uid is None:
        found = next((g for g in groups if named_group in (g[0], g[2])), None)
        if found is None and not named_group.isdigit():
            raise RuntimeFailure(
                "CreateContainerError",
                f"unable to find group {named_group}: no matching entries in group",
            )
        gid = int(found[2]) if found else int(named_group)
    member = [
        int(g[2])
        for g in groups
        if entry is not None
        and len(g) > 3
        and entry[0] in g[3].split(",")
        and not spec.strict_groups
    ]
    return Identity(uid=uid, gid=gid, groups=tuple(dict.fromkeys([*member, *spec.groups])))


def capabilities(spec: ContainerSpec) -> tuple[str, ...]:
    """The container's capabilities, sorted."""
    if spec.privileged:
        return tuple(sorted(host_capabilities()))

    def full(name: str) -> str:
        upper = name.upper()
        return upper if upper.startswith("CAP_") or upper == "ALL" else f"CAP_{upper}"

    add, drop = {full(c) for c in spec.cap_add}, {full(c) for c in spec.cap_drop}
    held = set() if "ALL" in drop else set(DEFAULT_CAPABILITIES)
    if "ALL" in add:
        held |= host_capabilities()
    return tuple(sorted((held - drop) | (add - {"ALL"})))


def arguments(spec: ContainerSpec, image: Mapping[str, Any]) -> list[str]:
    """What is run: the pod's command replaces the image's entrypoint and its arguments."""
    if spec.command:
        words = [*spec.command, *spec.args]
    else:
        words = [*(image.get("Entrypoint") or ()), *(spec.args or image.get("Cmd") or ())]
    if not words:
        raise RuntimeFailure("CreateContainerError", "no command specified")
    return words


def environment(spec: ContainerSpec, image: Mapping[str, Any], hostname: str) -> list[str]:
    merged: dict[str, str] = {}
    for entry in (_PATH, f"HOSTNAME={hostname}", *(image.get("Env") or ())):
        name, _, value = entry.partition("=")
        merged[name] = value
    if spec.tty:
        merged.setdefault("TERM", "xterm")
    merged.update(spec.env)
    return [f"{k}={v}" for k, v in merged.items()]


def process(
    spec: ContainerSpec, image: Mapping[str, Any], who: Identity, hostname: str,
    args: Sequence[str], *, tty: bool,
) -> Body:  # fmt: skip
    """The process part; also of what is executed later in the same container."""
    held = list(capabilities(spec))
    effective = held if who.uid == 0 else []
    kept: Body = {"bounding": held, "permitted": effective, "effective": effective}
    return {
        "terminal": tty,
        "user": {"uid": who.uid, "gid": who.gid, "additionalGids": list(who.groups)},
        "args": list(args),
        "env": environment(spec, image, hostname),
        "cwd": spec.cwd or image.get("WorkingDir") or "/",
        "capabilities": kept,
        "noNewPrivileges": not (spec.allow_privilege_escalation or spec.privileged),
        "oomScoreAdj": max(spec.oom_score_adj, least_oom_score()),
    }


def _mounts(spec: ContainerSpec, sandbox: SandboxSpec, shm: str) -> list[Body]:
    fixed: list[Body] = [
        {"destination": "/proc", "type": "proc", "source": "proc",
         "options": ["nosuid", "noexec", "nodev"]},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
         "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
         "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
         "options": ["nosuid", "noexec", "nodev"]},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs",
         "options": ["nosuid", "noexec", "nodev", "rw" if spec.privileged else "ro"]},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
         "options": ["nosuid", "noexec", "nodev", "relatime",
                     "rw" if spec.privileged else "ro"]},
        {"destination": "/dev/shm", "type": "bind", "source": shm,
         "options": ["rbind", "nosuid", "nodev", "noexec"]},
    ]  # fmt: skip
    given = {m.target.rstrip("/") for m in spec.mounts}
    out = [m for m in fixed if m["destination"] not in given]
    # Outer mounts before those inside of them.
    for m in sorted(spec.mounts, key=lambda m: m.target.rstrip("/").count("/")):
        options = ["rbind", m.propagation, "ro" if m.read_only else "rw"]
        out.append({"destination": m.target, "type": "bind", "source": m.source,
                    "options": options})  # fmt: skip
    return out


def host_devices(root: Path = Path("/dev")) -> list[Body]:
    """The machine's devices, for a privileged container's own /dev. Its /dev is never the host's:
    what is mounted into it would be made there."""
    found: list[Body] = []
    for path in (*sorted(root.iterdir()), *sorted((root / "net").glob("*"))):
        if path.name in _OWN_DEVICES or path.is_symlink():
            continue
        info = path.stat()
        kind = "c" if stat.S_ISCHR(info.st_mode) else "b" if stat.S_ISBLK(info.st_mode) else ""
        if kind:
            found.append({
                "path": f"/dev/{path.relative_to(root)}", "type": kind,
                "major": os.major(info.st_rdev), "minor": os.minor(info.st_rdev),
                "fileMode": stat.S_IMODE(info.st_mode), "uid": info.st_uid, "gid": info.st_gid,
            })  # fmt: skip
    return found


def _block_device(device: Device, who: Identity) -> Body:
    """A volume as a device of the container's own; its user may use it."""
    number = os.stat(device.source).st_rdev
    return {
        "path": device.target, "type": "b", "major": os.major(number),
        "minor": os.minor(number), "fileMode": 0o660, "uid": who.uid, "gid": who.gid,
    }  # fmt: skip


def _resources(spec: ContainerSpec) -> Body:
    devices: list[Body] = [{"allow": spec.privileged, "access": "rwm"}]
    if not spec.privileged:
        for major, minor in _DEVICES:
            device: Body = {"allow": True, "type": "c", "major": major, "access": "rwm"}
            if minor is not None:
                device["minor"] = minor
            devices.append(device)
    for given in spec.devices:
        number = os.stat(given.source).st_rdev
        devices.append({"allow": True, "type": "b", "major": os.major(number),
                        "minor": os.minor(number), "access": "rwm"})  # fmt: skip
    cpu: Body = {"shares": max(2, spec.cpu_shares)}
    if spec.cpu_quota_us:
        cpu |= {"quota": spec.cpu_quota_us, "period": PERIOD}
    resources: Body = {"devices": devices, "cpu": cpu}
    if spec.memory_limit:
        resources["memory"] = {"limit": spec.memory_limit}
    return resources


def namespaces(sandbox: SandboxSpec, pause: int, target: int = 0) -> list[Body]:
    """Network and IPC are the pod's, mount and UTS the container's own, PID as the pod says, or
    that of the process *target*."""
    path = f"/proc/{pause}/ns"
    found: list[Body] = [{"type": "mount"}]
    found.append({"type": "network", "path": f"{path}/net"})
    if not sandbox.host_ipc:
        found.append({"type": "ipc", "path": f"{path}/ipc"})
    if not sandbox.host_network:
        found.append({"type": "uts"})
    if target:
        found.append({"type": "pid", "path": f"/proc/{target}/ns/pid"})
    elif sandbox.share_pid:
        found.append({"type": "pid", "path": f"{path}/pid"})
    elif not sandbox.host_pid:
        found.append({"type": "pid"})
    return found


def config(
    spec: ContainerSpec, sandbox: SandboxSpec, image: Mapping[str, Any], who: Identity, *,
    pause: int, root: str, shm: str, group: str, hostname: str, target: int = 0,
) -> Body:  # fmt: skip
    """config.json. root: the mounted root file system; group: path of the control group; target:
    a process whose PID namespace to join."""
    args = arguments(spec, image)
    linux: Body = {
        "namespaces": namespaces(sandbox, pause, target),
        "cgroupsPath": group,
        "resources": _resources(spec),
    }
    if sandbox.sysctls:
        linux["sysctl"] = dict(sandbox.sysctls)
    if not spec.privileged:
        if not spec.unmasked_proc:
            linux["maskedPaths"], linux["readonlyPaths"] = list(_MASKED), list(_READ_ONLY)
        if spec.seccomp == "RuntimeDefault" and platform.machine() == "x86_64":
            linux["seccomp"] = runtime_default(capabilities(spec))
    devices = host_devices() if spec.privileged else []
    given = {d.target for d in spec.devices}
    devices = [d for d in devices if d["path"] not in given]
    devices += [_block_device(d, who) for d in spec.devices]
    if devices:
        linux["devices"] = devices
    body: Body = {
        "ociVersion": "1.0.2",
        "process": process(spec, image, who, hostname, args, tty=spec.tty),
        "root": {"path": root, "readonly": spec.read_only_root},
        "mounts": _mounts(spec, sandbox, shm),
        "linux": linux,
    }
    if not sandbox.host_network:
        body["hostname"] = hostname
    return body
