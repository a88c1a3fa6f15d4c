"""VolumeRestrictions: a claim of one pod only (ReadWriteOncePod) is used by one pod only."""

from __future__ import annotations

from typing import ClassVar

from sampan.api.obj import Obj
from sampan.control import storage
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
from sampan.scheduler.plugins.volume_binding import Storage

_IN_USE = Reject(
    "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode",
    curable=True,
)


def _shares_claim(pod: PodInfo, old: Obj | None, _new: Obj | None) -> bool:
    if old is None or old.namespace != pod.obj.namespace:
        return False
    own = {name for name, _ in storage.claims_of(pod.obj.body)}
    return any(name in own for name, _ in storage.claims_of(old.body))


class VolumeRestrictions:
    name: ClassVar[str] = "VolumeRestrictions"
    wakes: ClassVar[tuple[Wake, ...]] = (
        Wake("pods", ("DELETED",), _shares_claim),
        Wake(storage.CLAIMS, ("ADDED", "MODIFIED")),
        Wake("nodes", ("ADDED",)),
    )

    def __init__(self, held: Storage) -> None:
        self._held = held

    def prepare(self, pod: PodInfo, view: View) -> Prepared | Reject | Skip:
        namespace = pod.obj.namespace
        single = set()
        for name, _source in storage.claims_of(pod.obj.body):
            claim = self._held.claim(namespace, name)
            if claim is not None and "ReadWriteOncePod" in (claim["spec"].get("accessModes") or ()):
                single.add(name)
        if not single:
            return SKIP

        def uses(other: PodInfo) -> bool:
            return other.obj.namespace == namespace and any(
                name in single for name, _ in storage.claims_of(other.obj.body)
            )

        # Where another pod has it no node fits, wherever that pod runs; removing that pod from
        # its own node is what would help.
        busy = {name: sum(uses(p) for p in node.pods.values()) for name, node in view.nodes.items()}
        total = sum(busy.values())

        def check(node: NodeInfo) -> Verdict:
            here = sum(uses(p) for p in node.pods.values())
            elsewhere = total - busy.get(node.obj.name, 0)
            return _IN_USE if here + elsewhere > 0 else OK

        return Prepared(check, unique=True)
