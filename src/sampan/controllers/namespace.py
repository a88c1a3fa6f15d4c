"""Namespace deletion: first everything inside, then the namespace itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from sampan.api.errors import StatusError
from sampan.api.obj import Body, Key, Obj, Page
from sampan.control.plan import (
    Action,
    Again,
    Answer,
    Ask,
    Caches,
    Delete,
    DeleteAll,
    Probe,
    Read,
    SetStatus,
    Trigger,
    Update,
    own,
)
from sampan.lib.clock import rfc3339

_FINALIZER = "kubernetes"
_API_SERVICES = "apiservices.apiregistration.k8s.io"
_OTHERS_SECONDS = 2.0  # until other API servers are asked again
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
class Elsewhere:
    """What other API servers serve: resources whose objects can be listed and deleted in a
    namespace, and group versions that cannot be asked now."""

    resources: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()


async def nowhere() -> Elsewhere:
    """Where there is no other API server."""
    return Elsewhere()


@dataclass(frozen=True, slots=True)
class View:
    """A terminating namespace and what is still in it, by resource. has_others: whether other API
    servers may have more."""

    body: Body
    content: dict[str, tuple[Obj, ...]]
    has_others: bool = False


def in_namespace(obj: Obj) -> Iterable[str]:
    yield obj.namespace


class NamespaceController:
    """resources: every namespaced resource that is served here (``plural`` or ``plural.group``);
    elsewhere: asks other API servers what they serve."""

    name = "namespace-controller"
    workers = 4

    def __init__(
        self, resources: Sequence[str], elsewhere: Callable[[], Awaitable[Elsewhere]] = nowhere
    ) -> None:
        self._elsewhere = elsewhere
        self._resources = tuple(r for r in resources if r != "events")
        watched = tuple(Trigger(r, self._keys) for r in self._resources)
        self.triggers: tuple[Trigger, ...] = (own("namespaces"), *watched)
        self.indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]] = {
            _API_SERVICES: {"remote": lambda o: ("yes",) if o.spec.get("service") else ()}
        }

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
        held = {r: objs for r, objs in content.items() if objs}
        return View(namespace.body, held, bool(caches[_API_SERVICES].by("remote", "yes")))

    def plan(self, view: View, now: float) -> Sequence[Action]:
        spec = view.body.get("spec") or {}
        if _FINALIZER not in (spec.get("finalizers") or ()):
            return []
        if not view.content:
            # A cache may be behind, and what is left in a namespace that is gone stays for ever.
            asks = tuple(Ask(r, view.body["metadata"]["name"]) for r in self._resources)
            return [Read(asks, lambda answers: self._ended(view, answers, now))]
        actions: list[Action] = []
        for resource, objs in view.content.items():
            actions += [
                Delete(Key(resource, o.namespace, o.name), o.uid, propagation="Background")
                for o in objs
                if not o.is_deleting
            ]
        # Deletions first: their end is what the conditions tell about.
        return [*actions, *self._told(view, now), Again(15.0)]

    def _ended(self, view: View, answers: Sequence[Answer], now: float) -> Sequence[Action]:
        """The caches show nothing in it any more; *answers* is what the API has."""
        left: list[Action] = []
        for answer in answers:
            if isinstance(answer, StatusError):
                raise answer
            assert isinstance(answer, Page)
            left += [
                Delete(o.key, o.uid, propagation="Background")
                for o in answer.items
                if not o.is_deleting
            ]
            left += [Again(1.0)] if answer.items else []
        if left:
            return left
        if view.has_others:
            return [Probe(self._elsewhere, lambda found: self._asked(view, found, now))]
        return self._finalized(view)

    @staticmethod
    def _finalized(view: View) -> Sequence[Action]:
        spec, name = view.body["spec"], view.body["metadata"]["name"]
        kept = [f for f in spec["finalizers"] if f != _FINALIZER]
        done = {**view.body, "spec": {**spec, "finalizers": kept}}
        # Events last, unwatched: nothing can be told in a terminating namespace any more.
        return [DeleteAll("events", name), Update("namespaces", done, "finalize")]

    # -- what other API servers have -----------------------------------------------------------

    def _asked(self, view: View, found: Elsewhere, now: float) -> Sequence[Action]:
        """A namespace stays while a server cannot be asked what it has there."""
        if found.silent:
            return [*self._told(view, now, silent=found.silent), Again(_OTHERS_SECONDS)]
        if not found.resources:
            return self._finalized(view)
        name = view.body["metadata"]["name"]
        asks = tuple(Ask(resource, name) for resource in found.resources)
        return [Read(asks, lambda answers: self._listed(view, asks, answers, now))]

    def _listed(
        self, view: View, asks: Sequence[Ask], answers: Sequence[Answer], now: float
    ) -> Sequence[Action]:
        held: dict[str, tuple[Obj, ...]] = {}
        silent: list[str] = []
        for ask, answer in zip(asks, answers, strict=True):
            if isinstance(answer, Page) and answer.items:
                held[ask.resource] = tuple(answer.items)
            elif isinstance(answer, StatusError) and answer.code not in (404, 405):
                silent.append(ask.resource.partition(".")[2])
        if not held and not silent:
            return self._finalized(view)
        left = View(view.body, held)
        actions: list[Action] = [
            Delete(Key(resource, o.namespace, o.name), propagation="Background")
            for resource, objs in held.items()
            for o in objs
        ]
        told = self._told(left, now, silent=silent)
        return [*actions, *told, Again(_OTHERS_SECONDS)]

    # -- what is told --------------------------------------------------------------------------

    def _told(self, view: View, now: float, *, silent: Sequence[str] = ()) -> Sequence[Action]:
        conditions = self._conditions(view, now, silent)
        old: Body = view.body.get("status") or {}
        if not _differ(old.get("conditions") or [], conditions):
            return []
        status = {**old, "phase": "Terminating", "conditions": conditions}
        return [SetStatus("namespaces", {**view.body, "status": status})]

    def _conditions(self, view: View, now: float, silent: Sequence[str]) -> list[Body]:
        found = []
        held = {c["type"]: c for c in (view.body.get("status") or {}).get("conditions") or ()}
        finalizers: dict[str, int] = {}
        for objs in view.content.values():
            for obj in objs:
                for finalizer in obj.meta.get("finalizers") or ():
                    finalizers[finalizer] = finalizers.get(finalizer, 0) + 1
        for kind, reason, message in _GONE:
            status = "False"
            if kind == "NamespaceDeletionDiscoveryFailure" and silent:
                status, reason = "True", "DiscoveryFailed"
                groups = ", ".join(f"{g}: stale GroupVersion discovery: {g}" for g in silent)
                message = (
                    f"Discovery failed for some groups, {len(silent)} failing: unable to retrieve "
                    f"the complete list of server APIs: {groups}"
                )
            elif kind == "NamespaceContentRemaining" and view.content:
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
