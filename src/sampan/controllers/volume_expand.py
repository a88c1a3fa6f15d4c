"""Expansion: a bound claim that asks for more than it has gets it.

Of a directory only the number grows. An image has to be grown by the node: until that is done the
claim says ``FileSystemResizePending``, and the node ends it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sampan.api.obj import Body, Key, Obj
from sampan.control import storage
from sampan.control.plan import Action, Caches, Emit, SetStatus, Trigger, Update, own
from sampan.controllers.local_provisioner import amount
from sampan.lib.clock import rfc3339

_PENDING = "Waiting for user to (re-)start a pod to finish file system resize of volume on node."


@dataclass(frozen=True, slots=True)
class View:
    """A bound claim that asks for more than it has, and its volume."""

    claim: Body
    volume: Body


class VolumeExpand:
    """Upstream's expand-controller, and the resizer of the built-in provisioner."""

    name = "expand-controller"
    workers = 2

    def __init__(self) -> None:
        self.triggers: tuple[Trigger, ...] = (
            own(storage.CLAIMS),
            Trigger(storage.VOLUMES, self._of_volume),
        )
        self.indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]] = {}

    @staticmethod
    def _of_volume(volume: Obj, _caches: Caches) -> Iterable[Key]:
        ref = volume.spec.get("claimRef")
        if ref:
            yield Key(storage.CLAIMS, str(ref.get("namespace")), str(ref.get("name")))

    def observe(self, key: Key, caches: Caches) -> View | None:
        claim = caches[storage.CLAIMS].get(key.namespace, key.name)
        if claim is None or claim.is_deleting or claim.status.get("phase") != "Bound":
            return None
        if storage.asked(claim.body) <= storage.size(claim.status.get("capacity")):
            return None
        volume = caches[storage.VOLUMES].get("", str(claim.spec.get("volumeName") or ""))
        if volume is None or not storage.is_bound_to(volume.body, claim.body):
            return None
        return View(claim.body, volume.body)

    def plan(self, view: View, now: float) -> Sequence[Action]:
        claim, volume = view.claim, view.volume
        if not storage.is_local(volume):
            text = "waiting for an external controller to expand this PVC"
            return [Emit(claim, "Normal", "ExternalExpanding", text)]
        enforced = storage.notes_of(volume).get(storage.SIZE_ENFORCED) == "true"
        wanted = amount(claim, enforced=enforced)
        if storage.capacity(volume) < storage.size({"storage": wanted}):
            name = volume["metadata"]["name"]
            spec = {**volume["spec"], "capacity": {**volume["spec"]["capacity"], "storage": wanted}}
            return [
                Emit(claim, "Normal", "Resizing", f"External resizer is resizing volume {name}"),
                Update(storage.VOLUMES, {**volume, "spec": spec}),
            ]
        status: Body = claim.get("status") or {}
        conditions: list[Body] = status.get("conditions") or []
        if not enforced:
            kept = [c for c in conditions if c["type"] not in RESIZE_CONDITIONS]
            done = {**status, "capacity": dict(volume["spec"]["capacity"])}
            done.pop("conditions", None)
            if kept:
                done["conditions"] = kept
            return [
                SetStatus(storage.CLAIMS, {**claim, "status": done}),
                Emit(claim, "Normal", "VolumeResizeSuccessful", "Resize volume succeeded"),
            ]
        if any(c["type"] == "FileSystemResizePending" for c in conditions):
            return []  # the node's turn
        pending = {
            "type": "FileSystemResizePending", "status": "True", "lastProbeTime": None,
            "lastTransitionTime": rfc3339(now), "message": _PENDING,
        }  # fmt: skip
        told = {**status, "conditions": [*conditions, pending]}
        return [
            SetStatus(storage.CLAIMS, {**claim, "status": told}),
            Emit(claim, "Normal", "FileSystemResizeRequired",
                 "Require file system resize of volume on node"),
        ]  # fmt: skip


RESIZE_CONDITIONS = ("Resizing", "FileSystemResizePending")
