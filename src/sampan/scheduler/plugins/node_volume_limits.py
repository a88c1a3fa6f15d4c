"""NodeVolumeLimits: no more volumes of a CSI driver than it said (CSINode) a node can take."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from sampan.api.obj import Obj
from sampan.client.cache import Caches
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

CSI_NODES = "csinodes.storage.k8s.io"
_FULL = Reject("node(s) exceed max volume count", curable=True)


def _has_claims(_pod: PodInfo, old: Obj | None, _new: Obj | None) -> bool:
    return old is not None and any(storage.claims_of(old.body))


class NodeVolumeLimits:
    name: ClassVar[str] = "NodeVolumeLimits"
    wakes: ClassVar[tuple[Wake, ...]] = (
        Wake(CSI_NODES, ("ADDED", "MODIFIED")),
        Wake("pods", ("DELETED",), _has_claims),
        Wake(storage.CLAIMS, ("ADDED",)),
    )

    def __init__(self, caches: Caches, held: Storage) -> None:
        self._nodes = caches[CSI_NODES]
        self._held = held

    def _of(self, pod: Obj) -> Iterable[tuple[str, str]]:
        """(driver, volume) of each CSI volume a pod uses or will have."""
        for name, _source in storage.claims_of(pod.body):
            claim = self._held.claim(pod.namespace, name)
            if claim is None:
                continue
            volume = self._held.volume(claim["spec"].get("volumeName") or "")
            if volume is not None:
                csi = volume["spec"].get("csi")
                if csi:
                    yield str(csi["driver"]), str(csi["volumeHandle"])
                continue
            chosen = self._held.storage_class(storage.class_of(claim))
            if chosen is not None:
                yield str(chosen["provisioner"]), f"{pod.namespace}/{name}"

    def prepare(self, pod: PodInfo, view: View) -> Prepared | Reject | Skip:
        new = set(self._of(pod.obj))
        if not new:
            return SKIP

        def check(node: NodeInfo) -> Verdict:
            limits = self._limits(node.obj.name)
            if not limits:
                return OK
            held = {v for p in node.pods.values() for v in self._of(p.obj)}
            for driver, limit in limits.items():
                added = sum(1 for v in new - held if v[0] == driver)
                if added and sum(1 for v in held if v[0] == driver) + added > limit:
                    return _FULL
            return OK

        return Prepared(check, unique=True)

    def _limits(self, node: str) -> dict[str, int]:
        found = self._nodes.get("", node)
        drivers = found.spec.get("drivers") or () if found is not None else ()
        return {
            str(d["name"]): int(d["allocatable"]["count"])
            for d in drivers
            if (d.get("allocatable") or {}).get("count") is not None
        }
