"""Namespace deletion: first everything inside, then the namespace itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sampan.api.obj import Body, Key, Obj
from sampan.control.plan import (
    Action,
    Again,
    Caches,
    Delete,
    DeleteAll,
    SetStatus,
    Trigger,
    Update,
    own,
)
from sampan.lib.clock import rfc3339

_FINALIZER = "kubernetes"
_GONE = (
    # type, reason and message when nothing is (left) wrong
    ("NamespaceDeletionDiscoveryFailure", "ResourcesDiscovered",
     "All resources successfully discovered"),
    ("NamespaceDeletionGroupVersionParsingFailure", "ParsedGroupVersions",
     "All legacy kube types successfully parsed"),
    ("NamespaceDeletionContentFailure", "ContentDeleted",
     "All content successfully deleted, may be waiting on finalization"),
    ("NamespaceContentRemaining", "ContentRemoved", "All content successfully removed"),
    ("NamespaceFinalizersRemaining", "ContentHasNoFinalizers",
     "All content-preserving finalizers finished"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class View:
    """A terminating namespace and what is still in it, by resource."""

    body: Body
    content: dict[str, tuple[Obj, ...]]


def in_namespace(obj: Obj) -> Iterable[str]:
    yield obj.namespace


class NamespaceController:
    """resources: every namespaced resource that is served (``plural`` or ``plural.group``)."""

    name = "namespace-controller"
    workers = 4

    def __init__(self, resources: Sequence[str]) -> None:
        self._resources = tuple(r for r in resources if r != "events")
        watched = tuple(Trigger(r, self._keys) for r in self._resources)
        self.triggers: tuple[Trigger, ...] = (own("namespaces"), *watched)
        self.indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]] = {}

    @staticmethod
    def _keys(obj: Obj, caches: Caches) -> Iterable[Key]:
        namespace = caches["namespaces"].get("", obj.namespace)
        if namespace is not None and namespace.is_deleting:
            yield namespace.key

    def observe(self, key: Key, caches: Caches) -> View | None:
        namespace = caches["namespaces"].get("", key.name)
        if namespace is None or not namespace.is_deleting:
            return None
        content = {r: tuple(caches[r].list(key.name)) for r in self._resources}
        return View(namespace.body, {r: objs for r, objs in content.items() if objs})

    def plan(self, view: View, now: float) -> Sequence[Action]:
        spec = view.body.get("spec") or {}
        if _FINALIZER not in (spec.get("finalizers") or ()):
            return []
        if not view.content:
            kept = [f for f in spec["finalizers"] if f != _FINALIZER]
            done = {**view.body, "spec": {**spec, "finalizers": kept}}
            # Events last, unwatched: nothing can be told in a terminating namespace any more.
            gone = DeleteAll("events", view.body["metadata"]["name"])
            return [gone, Update("namespaces", done, "finalize")]
        actions: list[Action] = []
        for resource, objs in view.content.items():
            actions += [
                Delete(Key(resource, o.namespace, o.name), o.uid, propagation="Background")
                for o in objs
                if not o.is_deleting
            ]
        conditions = self._conditions(view, now)
        old: Body = view.body.get("status") or {}
        if _differ(old.get("conditions") or [], conditions):
            status = {**old, "phase": "Terminating", "conditions": conditions}
            # Deletions first: their end is what the conditions tell about.
            actions.append(SetStatus("namespaces", {**view.body, "status": status}))
        actions.append(Again(15.0))
        return actions

    def _conditions(self, view: View, now: float) -> list[Body]:
        found = []
        held = {c["type"]: c for c in (view.body.get("status") or {}).get("conditions") or ()}
        finalizers: dict[str, int] = {}
        for objs in view.content.values():
            for obj in objs:
                for finalizer in obj.meta.get("finalizers") or ():
                    finalizers[finalizer] = finalizers.get(finalizer, 0) + 1
        for kind, reason, message in _GONE:
            status = "False"
            if kind == "NamespaceContentRemaining":
                status, reason = "True", "SomeResourcesRemain"
                counts = [f"{r} has {len(objs)} resource instances"
                          for r, objs in sorted(view.content.items())]  # fmt: skip
                message = f"Some resources are remaining: {', '.join(counts)}"
            elif kind == "NamespaceFinalizersRemaining" and finalizers:
                status, reason = "True", "SomeFinalizersRemain"
                counts = [f"{f} in {n} resource instances" for f, n in sorted(finalizers.items())]
                message = (
                    f"Some content in the namespace has finalizers remaining: {', '.join(counts)}"
                )
            at = rfc3339(now)
            if kind in held and held[kind]["status"] == status:
                at = held[kind]["lastTransitionTime"]
            found.append({"type": kind, "status": status, "reason": reason, "message": message,
                          "lastTransitionTime": at})  # fmt: skip
        return found


def _differ(old: list[Body], new: list[Body]) -> bool:
    def told(conditions: list[Body]) -> dict[str, tuple[str, str]]:
        return {c["type"]: (c["status"], c["message"]) for c in conditions}

    return told(old) != told(new)
