"""NodeName: a pod that names its node."""

from __future__ import annotations

from typing import ClassVar

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

_OTHER = Reject("node(s) didn't match the requested node name")


class NodeName:
    name: ClassVar[str] = "NodeName"
    wakes: ClassVar[tuple[Wake, ...]] = (Wake("nodes", ("ADDED",)),)

    def prepare(self, pod: PodInfo, view: View) -> Prepared | Reject | Skip:
        wanted = pod.spec.get("nodeName")
        if not wanted:
            return SKIP

        def check(node: NodeInfo) -> Verdict:
            return OK if node.obj.name == wanted else _OTHER

        return Prepared(check, static=True)
