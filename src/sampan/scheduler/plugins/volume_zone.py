"""VolumeZone: a pod stays in the zone and region its volumes are labelled with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

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

_CONFLICT = Reject("node(s) had no available volume zone")
# Label of a volume -> names under which a node may have it.
_LABELS = {
    "failure-domain.beta.kubernetes.io/zone": "topology.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region": "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone": "failure-domain.beta.kubernetes.io/zone",
    "topology.kubernetes.io/region": "failure-domain.beta.kubernetes.io/region",
}


class VolumeZone:
    name: ClassVar[str] = "VolumeZone"
    wakes: ClassVar[tuple[Wake, ...]] = (
        Wake(storage.CLAIMS, ("ADDED", "MODIFIED")),
        Wake(storage.VOLUMES, ("ADDED", "MODIFIED")),
        Wake(storage.CLASSES, ("ADDED",)),
        Wake("nodes", ("ADDED", "MODIFIED")),
    )

    def __init__(self, held: Storage) -> None:
        self._held = held

    def prepare(self, pod: PodInfo, view: View) -> Prepared | Reject | Skip:
        wanted: list[tuple[str, frozenset[str]]] = []
        for name, _source in storage.claims_of(pod.obj.body):
            claim = self._held.claim(pod.obj.namespace, name)
            volume = self._held.volume((claim or {}).get("spec", {}).get("volumeName") or "")
            labels: Mapping[str, str] = ((volume or {}).get("metadata") or {}).get("labels") or {}
            for label in sorted(_LABELS):
                if label in labels:
                    wanted.append((label, frozenset(labels[label].split("__"))))
        if not wanted:
            return SKIP

        def check(node: NodeInfo) -> Verdict:
            labels = node.obj.labels
            if not any(label in labels for label in _LABELS):
                return OK  # a node without zones is in all of them
            for label, zones in wanted:
                if labels.get(label, labels.get(_LABELS[label], "")) not in zones:
                    return _CONFLICT
            return OK

        return Prepared(check, static=True, unique=True)
