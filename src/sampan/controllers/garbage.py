"""Garbage collection: what has lost all its owners goes, and owners that wait for their
dependents get to go.

One key per object that may have something to do: an object with owners (is one of them still
there?) and an object that is deleted in the foreground or orphans its dependents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from sampan.api.errors import StatusError
from sampan.api.obj import Body, Key, Obj
from sampan.control.plan import Action, Again, Answer, Ask, Caches, Delete, Patch, Read, Trigger

_ORPHAN, _FOREGROUND = "orphan", "foregroundDeletion"
_BEHIND = 1.0  # seconds after which a cache that is behind is asked again


@dataclass(frozen=True, slots=True)
class View:
    """An object, its dependents, and of each of its owner references whether the owner is there
    (solid), waits for its dependents (waiting), or is not to be seen (absent; asks: the question
    for each of them)."""

    obj: Obj
    dependents: tuple[Obj, ...]
    solid: tuple[Body, ...]
    waiting: tuple[Body, ...]
    absent: tuple[Body, ...]
    asks: tuple[Ask, ...] = ()


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
            return None
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
        asks: list[Ask] = []
        for ref in obj.owners:
            owner = self._owner(ref, obj, caches)
            if owner is not None:
                deleted = owner.is_deleting and _FOREGROUND in _finalizers(owner)
                (waiting if deleted else solid).append(ref)
                continue
            place = self._place(ref)
            if place is None or (place[1] and not obj.namespace):
                # An owner of a kind that is not served cannot be judged, nor can a namespaced one
                # of an object without a namespace.
                solid.append(ref)
            else:
                absent.append(ref)
                asks.append(Ask(place[0], obj.namespace if place[1] else "", ref["name"]))
        is_owner = _waits(obj) or (waiting and not solid)
        dependents = tuple(self._dependents(obj, caches)) if is_owner else ()
        return View(
            obj, dependents, tuple(solid), tuple(waiting), tuple(absent), tuple(asks)
        )  # fmt: skip

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
        if obj.is_deleting or not (view.absent or view.waiting):
            return []
        if view.absent:
            # A cache may be behind: nothing loses an owner that the API has.
            return [Read(view.asks, lambda answers: _judged(view, answers))]
        return _collect(view)

    @staticmethod
    def _orphan(view: View) -> Sequence[Action]:
        """Dependents first lose their reference, then the owner its finalizer."""
        uid = view.obj.uid
        held = [d for d in view.dependents if any(r["uid"] == uid for r in d.owners)]
        if held:
            return [_patch_owners(d, [{"$patch": "delete", "uid": uid}]) for d in held]
        return [_without_finalizer(view.obj, _ORPHAN)]


def _judged(view: View, answers: Sequence[Answer]) -> Sequence[Action]:
    """*answers*: whether those of its owners that are not to be seen are there after all."""
    for ref, answer in zip(view.absent, answers, strict=True):
        if isinstance(answer, StatusError):
            if answer.code != 404:
                raise answer
        elif isinstance(answer, Obj) and answer.uid == ref["uid"]:
            return [Again(_BEHIND)]
    return _collect(view)


def _collect(view: View) -> Sequence[Action]:
    """An object some of whose owners are gone or waiting to go."""
    obj = view.obj
    if view.solid:
        lost = [*view.absent, *view.waiting]
        return [_patch_owners(obj, [{"$patch": "delete", "uid": r["uid"]} for r in lost])]
    if view.waiting:
        if any(_FOREGROUND in _finalizers(d) and d.is_deleting for d in view.dependents) and (
            any(r.get("blockOwnerDeletion") for r in obj.owners)
        ):  # owners in a circle would wait for each other: this one keeps nobody waiting
            refs = [{"uid": r["uid"], "blockOwnerDeletion": False} for r in obj.owners]
            return [_patch_owners(obj, refs)]
        return [_delete(obj, "Foreground" if view.dependents else "Background")]
    return [_delete(obj, "Orphan" if _ORPHAN in _finalizers(obj) else "Background")]


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
