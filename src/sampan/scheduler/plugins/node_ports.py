"""NodePorts: a host port of a node serves one pod."""

from __future__ import annotations

from typing import ClassVar

from sampan.api.obj import Obj
from sampan.control.placement import clash, host_ports
from sampan.scheduler.framework import (
    OK,
    SKIP,
    NodeInfo,
    PodInfo,
    Prepared,
    Reject,
    Skip,
    Verdict,
    View,
    Wake,
)

_TAKEN = Reject("node(s) didn't have free ports for the requested pod ports", curable=True)


def _frees(pod: PodInfo, old: Obj | None, _new: Obj | None) -> bool:
    held = host_ports(old.spec) if old is not None else ()
    return any(clash(a, b) for a in pod.ports for b in held)


class NodePorts:
    """Ports clash when protocol and number are the same and an address is the same or any."""

    name: ClassVar[str] = "NodePorts"
    wakes: ClassVar[tuple[Wake, ...]] = (
        Wake("nodes", ("ADDED", "MODIFIED")),
        Wake("pods", ("DELETED",), _frees),
    )

    def prepare(self, pod: PodInfo, view: View) -> Prepared | Reject | Skip:
        wanted = sorted(pod.ports)
        if not wanted:
            return SKIP

        def check(node: NodeInfo) -> Verdict:
            taken = node.ports
            if taken and any(clash(a, b) for a in wanted for b in taken):
                return _TAKEN
            return OK

        return Prepared(check)
