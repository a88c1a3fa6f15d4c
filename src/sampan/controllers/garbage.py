"""Garbage collection: what has lost all its owners goes, and owners that wait for their
dependents get to go.

One key per object that may have something to do: an object with owners (is one of them still
there?) and an object that is deleted in the foreground or orphans its dependents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from sampan.api.obj import Body, Key, Obj
from sampan.control.plan import Action, Caches, Delete, Patch, Trigger

_ORPHAN, _FOREGROUND = "orphan", "foregroundDeletion"


@dataclass(frozen=True, slots=True)
class View:
    """An object, its dependents, and of each of its owner references whether the owner is there
    (solid), waits for its dependents (waiting), or is not there (absent)."""

    obj: Obj
    dependents: tuple[Obj, ...]
    solid: tuple[Body, ...]
    waiting: tuple[Body, ...]
    absent: tuple[Body, ...]


class GarbageCollector:
    """resources: everything that is served and stored. kinds: (apiVersion, kind) -> (resource,
    namespaced), to find owners by their references."""

    name = "generic-garbage-collector"
    workers = 8

    def __init__(
        self, resources: Sequence[str], kinds: Mapping[tuple[str, str], tuple[str, bool]]
    ) -> None:
        self._resources = tuple(r for r in resources if r not in ("events",))
        self._kinds = dict(kinds)
        self.triggers = tuple(Trigger(r, self._keys) for r in self._resources)
        self.indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]] = {}

    def _keys(self, obj: Obj, caches: Caches) -> Iterable[Key]:
        if obj.owners or _waits(obj):
            yield obj.key
        for ref in obj.owners:  # an owner may be waiting for this one
            owner = self._owner(ref, obj, caches)
            if owner is not None and _waits(owner):
                yield owner.key
        held = caches[obj.key.resource].get(obj.namespace, obj.name)
        if obj.is_deleting or held is None or held.uid != obj.uid:
            for dependent in self._dependents(obj, caches):
                yield dependent.key

    def _dependents(self, obj: Obj, caches: Caches) -> Iterable[Obj]:
        if not obj.uid:
            return
        for resource in self._resources:
            yield from caches[resource].by("owner", obj.uid)

    def _owner(self, ref: Body, dependent: Obj, caches: Caches) -> Obj | None:
        """The owner a reference means; None where there is none with that uid."""
        place = self._place(ref)
        if place is None:
            return None
        resource, namespaced = place
        if namespaced and not dependent.namespace:
            return None  # a cluster-wide object cannot be owned by a namespaced one
        found = caches[resource].get(dependent.namespace if namespaced else "", ref["name"])
        return found if found is not None and found.uid == ref["uid"] else None

    def _place(self, ref: Body) -> tuple[str, bool] | None:
        found = self._kinds.get((ref.get("apiVersion", ""), ref.get("kind", "")))
        if found is None:  # another version of the same group will do
            group = ref.get("apiVersion", "").rpartition("/")[0]
            for (version, kind), place in self._kinds.items():
                if kind == ref.get("kind") and version.rpartition("/")[0] == group:
                    return place
        return found

    def observe(self, key: Key, caches: Caches) -> View | None:
        obj = caches[key.resource].get(key.namespace, key.name)
        if obj is None:
            return None
        solid: list[Body] = []
        waiting: list[Body] = []
        absent: list[Body] = []
        for ref in obj.owners:
            owner = self._owner(ref, obj, caches)
            if owner is not None:
                deleted = owner.is_deleting and _FOREGROUND in _finalizers(owner)
                (waiting if deleted else solid).append(ref)
            elif self._place(ref) is None:
                solid.append(ref)  # an owner of a kind that is not served cannot be judged
            else:
                absent.append(ref)
        asks = _waits(obj) or (waiting and not solid)
        dependents = tuple(self._dependents(obj, caches)) if asks else ()
        return View(obj, dependents, tuple(solid), tuple(waiting), tuple(absent))

    def plan(self, view: View, now: float) -> Sequence[Action]:
        obj = view.obj
        if _waits(obj):
            if _ORPHAN in _finalizers(obj):
                return self._orphan(view)
            blocking = [
                d
                for d in view.dependents
                if any(r["uid"] == obj.uid and r.get("blockOwnerDeletion") for r in d.owners)
            ]
            # Its dependents are judged one by one: some may have another owner.
            return [] if blocking else [_without_finalizer(obj, _FOREGROUND)]
        if obj.is_deleting or view.solid:
            if view.solid and (view.absent or view.waiting) and not obj.is_deleting:
                lost = [*view.absent, *view.waiting]
                refs = [{"$patch": "delete", "uid": r["uid"]} for r in lost]
                return [_patch_owners(obj, refs)]
            return []
        if view.waiting:
            if any(_FOREGROUND in _finalizers(d) and d.is_deleting for d in view.dependents) and (
                any(r.get("blockOwnerDeletion") for r in obj.owners)
            ):  # owners in a circle would wait for each other: this one keeps nobody waiting
                refs = [{"uid": r["uid"], "blockOwnerDeletion": False} for r in obj.owners]
                return [_patch_owners(obj, refs)]
            return [_delete(obj, "Foreground" if view.dependents else "Background")]
        if view.absent:
            policy = "Orphan" if _ORPHAN in _finalizers(obj) else "Background"
            return [_delete(obj, policy)]
        return []

    @staticmethod
    def _orphan(view: View) -> Sequence[Action]:
        """Dependents first lose their reference, then the owner its finalizer."""
        uid = view.obj.uid
        held = [d for d in view.dependents if any(r["uid"] == uid for r in d.owners)]
        if held:
            return [_patch_owners(d, [{"$patch": "delete", "uid": uid}]) for d in held]
        return [_without_finalizer(view.obj, _ORPHAN)]


def _finalizers(obj: Obj) -> list[str]:
    found: list[str] = obj.meta.get("finalizers") or []
    return found


def _waits(obj: Obj) -> bool:
    """Deleted, and waiting for the collector to deal with its dependents."""
    return obj.is_deleting and any(f in (_ORPHAN, _FOREGROUND) for f in _finalizers(obj))


def _delete(obj: Obj, policy: str) -> Action:
    return Delete(obj.key, uid=obj.uid, revision=obj.revision, propagation=policy)


def _patch_owners(obj: Obj, refs: list[Body]) -> Action:
    patch = {"metadata": {"uid": obj.uid, "ownerReferences": refs}}
    return Patch(obj.key, patch, kind="strategic")


def _without_finalizer(obj: Obj, finalizer: str) -> Action:
    kept = [f for f in _finalizers(obj) if f != finalizer]
    meta = {"resourceVersion": str(obj.revision), "finalizers": kept}
    return Patch(obj.key, {"metadata": meta})
