"""Expansion: a bound claim that asks for more than it has gets it.

Upstream's expand-controller and external-resizer in one, for volumes of the built-in provisioner;
others are left to whoever made them. Of a directory only the number grows. An image has to be grown
by the node: the controller's part ends with ``NodeResizePending``. What was asked for is written
down before anything is done (``status.allocatedResources``), so that a size that turns out to be
impossible can be taken back by asking for less (KEP-1790).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sampan.api.obj import Body, Key, Obj
from sampan.control import growth, storage
from sampan.control.facts import NORMAL, Event, Facts
from sampan.control.plan import Action, Caches, SetStatus, Trigger, Update, own
from sampan.controllers.local_provisioner import rounded
from sampan.lib.clock import rfc3339

_TEST = "tests/controllers/test_volume_expand.py"
EXTERNAL = Event(
    NORMAL, "ExternalExpanding", "waiting for an external controller to expand this PVC",
    f"{_TEST}::test_volumes_of_others_are_left_to_them",
)  # fmt: skip
RESIZING = Event(
    NORMAL, "Resizing", "External resizer is resizing volume {volume}",
    f"{_TEST}::test_a_directory_has_its_size_at_once",
)  # fmt: skip
DONE = Event(
    NORMAL, "VolumeResizeSuccessful", "Resize volume succeeded",
    f"{_TEST}::test_a_directory_has_its_size_at_once",
)  # fmt: skip
REQUIRED = Event(
    NORMAL, "FileSystemResizeRequired", "Require file system resize of volume on node",
    f"{_TEST}::test_an_image_is_left_to_its_node",
)  # fmt: skip
PENDING_TEXT = (
    "Waiting for user to (re-)start a pod to finish file system resize of volume on node."
)
FACTS = Facts(
    kind="Growth",
    page="PersistentVolumeClaim",
    controller="expand-controller",
    events=(EXTERNAL, RESIZING, DONE, REQUIRED),
)


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
            return [EXTERNAL.about(claim)]
        target = growth.target(claim, volume)
        if target is None:
            return []  # the node's turn
        enforced = storage.notes_of(volume).get(storage.SIZE_ENFORCED) == "true"
        size = rounded(target, enforced=enforced)
        status: Body = claim.get("status") or {}
        begun = (
            growth.state(claim) == growth.CONTROLLER_IN_PROGRESS
            and (status.get("allocatedResources") or {}).get("storage") == target
        )
        if not begun:
            told = growth.allocated(status, target, growth.CONTROLLER_IN_PROGRESS)
            told = growth.with_condition(told, "Resizing", at=rfc3339(now))
            name = volume["metadata"]["name"]
            return [
                SetStatus(storage.CLAIMS, {**claim, "status": told}),
                RESIZING.about(claim, volume=name),
            ]
        if volume["spec"]["capacity"]["storage"] != size:
            spec = {**volume["spec"], "capacity": {**volume["spec"]["capacity"], "storage": size}}
            return [Update(storage.VOLUMES, {**volume, "spec": spec})]
        if not enforced:
            done = growth.finished(status, size)
            return [SetStatus(storage.CLAIMS, {**claim, "status": done}), DONE.about(claim)]
        told = growth.allocated(status, target, growth.NODE_PENDING)
        told = growth.with_condition(told, "FileSystemResizePending", PENDING_TEXT, at=rfc3339(now))
        return [SetStatus(storage.CLAIMS, {**claim, "status": told}), REQUIRED.about(claim)]
