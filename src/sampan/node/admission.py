"""What a node refuses to run, as the kubelet does when a pod comes to it. Pure."""

from __future__ import annotations

from sampan.api.obj import Body

# Sysctls that a pod cannot harm another one with; others take a kubelet that allows them.
_SAFE = frozenset({
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start", "net.ipv4.ping_group_range", "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem", "net.ipv4.tcp_syncookies", "net.ipv4.tcp_wmem",
})  # fmt: skip
_IPC = ("kernel.shm", "kernel.msg", "fs.mqueue.")


def refusal(pod: Body) -> tuple[str, str] | None:
    """Reason and message, where the pod may not run here."""
    spec = pod["spec"]
    for sysctl in (spec.get("securityContext") or {}).get("sysctls") or ():
        name = sysctl["name"].replace("/", ".")
        if name not in _SAFE:
            return _sysctl(name, "not allowlisted")
        if name.startswith("net.") and spec.get("hostNetwork"):
            return (
                "SysctlForbidden",
                f'forbidden sysctl: "{name}" not allowed with host net enabled',
            )
        if name.startswith(_IPC) and spec.get("hostIPC"):
            return (
                "SysctlForbidden",
                f'forbidden sysctl: "{name}" not allowed with host ipc enabled',
            )
    return None


def _sysctl(name: str, why: str) -> tuple[str, str]:
    return "SysctlForbidden", f'forbidden sysctl: "{name}" {why}'
