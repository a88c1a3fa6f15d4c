"""What a node refuses to run, as the kubelet does when a pod comes to it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sampan.api import amounts
from sampan.api.obj import Body, Obj
from sampan.control.placement import Port, clash, host_ports, selects, untolerated
from sampan.lib.quantity import quantity

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


@dataclass(frozen=True, slots=True)
class Needs:
    """What a pod takes of its node: CPU in millicores, all else in whole units."""

    amounts: Mapping[str, int]
    ports: frozenset[Port]

    @staticmethod
    def of(spec: Body) -> Needs:
        requests = amounts.of_pod(spec, "requests")
        return Needs(
            {n: v.millis if n == "cpu" else v.whole for n, v in requests.items()},
            frozenset(host_ports(spec)),
        )


def lacking(
    needs: Needs, others: Iterable[Needs], allocatable: Mapping[str, str]
) -> tuple[str, str] | None:
    """Reason and message, where the node has no room for a pod beside *others*. Resources the node
    does not know are not its business."""
    held = [*others]
    found = [("pods", 1, len(held))]
    found += [
        (name, needs.amounts.get(name, 0), sum(o.amounts.get(name, 0) for o in held))
        for name in ("cpu", "memory", "ephemeral-storage")
    ]
    found += [
        (name, value, sum(o.amounts.get(name, 0) for o in held))
        for name, value in sorted(needs.amounts.items())
        if name not in ("cpu", "memory", "ephemeral-storage")
    ]
    for name, wanted, used in found:
        if not wanted or name not in allocatable:
            continue
        size = quantity(allocatable[name])
        capacity = size.millis if name == "cpu" else size.whole
        if wanted + used > capacity:
            return f"OutOf{name}", (
                f"Node didn't have enough resource: {name}, requested: {wanted}, used: {used}, "
                f"capacity: {capacity}"
            )
    if any(clash(a, b) for a in needs.ports for o in held for b in o.ports):
        return _failed("NodePorts", "node(s) didn't have free ports for the requested pod ports")
    return None


def unwanted(spec: Body, node: Obj) -> tuple[str, str] | None:
    """Reason and message, where the pod does not want *node*, or the node does not want it."""
    if not selects(spec, node):
        return _failed("NodeAffinity", "node(s) didn't match Pod's node affinity/selector")
    if untolerated(spec, node, ("NoExecute",)) is not None:
        return _failed("TaintToleration", "node(s) had taints that the pod didn't tolerate")
    return None


def _failed(predicate: str, why: str) -> tuple[str, str]:
    return predicate, f"Predicate {predicate} failed: {why}"


def _sysctl(name: str, why: str) -> tuple[str, str]:
    return "SysctlForbidden", f'forbidden sysctl: "{name}" {why}'
