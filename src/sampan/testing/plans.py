"""A tiny world for plans: objects in a dictionary, actions carried out at once and in order.

It has no watch, no conflicts and no time of its own. What plans do among delayed caches and
failures is the business of the flow tests."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from sampan.api.catalogue import builtin
from sampan.api.errors import StatusError, not_found
from sampan.api.obj import Body, Key, Obj, Page
from sampan.apiserver.subresources import scale_of
from sampan.control.plan import (
    Action,
    Again,
    Ask,
    Controller,
    Create,
    Delete,
    Emit,
    Patch,
    Probe,
    Read,
    SetStatus,
    Update,
)
from sampan.lib.clock import rfc3339


class Refused(Exception):
    """The world said no: the rest of the plan is not carried out."""


async def _answered(question: Callable[[], Awaitable[Any]]) -> Any:
    return await question()


class DictCache:
    """One resource of a ``PlanWorld``."""

    def __init__(self, world: PlanWorld, resource: str) -> None:
        self._world = world
        self._resource = resource

    def get(self, namespace: str, name: str) -> Obj | None:
        key = Key(self._resource, namespace, name)
        body = self._world.objects.get(key)
        return Obj.of(key, body, 1) if body is not None else None

    def list(self, namespace: str = "") -> Sequence[Obj]:
        return [
            Obj.of(k, b, 1)
            for k, b in self._world.objects.items()
            if k.resource == self._resource and namespace in ("", k.namespace)
        ]

    def by(self, index: str, value: str) -> Sequence[Obj]:
        index_of: Callable[[Obj], Iterable[str]]
        if index == "owner":
            index_of = lambda o: [r["uid"] for r in o.owners]  # noqa: E731
        else:
            index_of = self._world.indexes[self._resource][index]
        return [o for o in self.list() if value in index_of(o)]


class PlanWorld:
    """Objects by key, events in order, and the clock as a plain number."""

    def __init__(self, *controllers: Controller) -> None:
        self.objects: dict[Key, Body] = {}
        self.events: list[tuple[str, str]] = []  # (reason, message)
        self.again: float | None = None
        self.now = 1_000_000.0
        self.refuse: Callable[[Key], str] = lambda _key: ""
        self.refuse_delete: Callable[[Key], str] = lambda _key: ""
        self.indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]] = {}
        for c in controllers:
            for resource, named in c.indexes.items():
                self.indexes.setdefault(resource, {}).update(named)
        self.graceful = False  # pods that are deleted stay, with a deletionTimestamp
        self.refused = 0  # plans that were cut off by a refusal
        self._serial = 0

    def __getitem__(self, resource: str) -> DictCache:
        return DictCache(self, resource)

    def add(self, resource: str, body: Body) -> Body:
        """Store a copy of *body* with a name, uid and creation time."""
        body = copy.deepcopy(body)
        self._serial += 1
        meta = body.setdefault("metadata", {})
        meta.setdefault("name", f"{meta.get('generateName', 'x-')}{self._serial:05d}")
        meta.setdefault("namespace", "default")
        meta["uid"] = f"uid-{self._serial}"
        meta.setdefault("creationTimestamp", rfc3339(self.now))
        meta["generation"] = 1
        self.objects[Key(resource, meta["namespace"], meta["name"])] = body
        return body

    def step(self, controller: Controller, key: Key) -> Sequence[Action]:
        """Observe, plan and carry out once; the actions that were planned."""
        view = controller.observe(key, self)
        actions = list(controller.plan(view, self.now)) if view is not None else []
        try:
            self._all(actions)
        except Refused:
            self.refused += 1  # the engine would come back to the key after a while
        return actions

    def run(self, action: Action) -> None:
        match action:
            case Create(resource=resource, body=body, failed=failed, done=done):
                meta = body["metadata"]
                key = Key(resource, meta["namespace"], meta.get("name", ""))
                problem = self.refuse(key)
                if not problem and key in self.objects:
                    problem = f'{resource} "{key.name}" already exists'
                if problem:
                    self._all(failed(problem) if failed else ())
                    raise Refused(problem)
                made = self.add(resource, body)
                made_key = Key(resource, meta["namespace"], made["metadata"]["name"])
                self._all(done(Obj.of(made_key, made, 1)) if done else ())
            case Update(resource=resource, body=body, subresource="scale", then=then):
                key = self._key(resource, body)
                problem = self.refuse(key)
                if not problem:
                    self.objects[key]["spec"]["replicas"] = body["spec"]["replicas"]
                if then is not None:
                    found = self[resource].get(key.namespace, key.name)
                    assert found is not None
                    refused = StatusError(403, "Forbidden", problem)
                    self._all(then(refused if problem else found))
            case Update(resource=resource, body=body):
                key = self._key(resource, body)
                new = copy.deepcopy(body)
                if new.get("spec") != self.objects[key].get("spec"):
                    new["metadata"]["generation"] += 1
                self.objects[key] = new
            case SetStatus(resource=resource, body=body):
                self.objects[self._key(resource, body)] = copy.deepcopy(body)
            case Patch(key=key, patch=patch):
                self._patch(key, patch)
            case Delete(key=key, done=done, failed=failed):
                if problem := self.refuse_delete(key):
                    self._all(failed(problem) if failed else ())
                    raise Refused(problem)
                self.delete(key)
                self._all(done() if done else ())
            case Read(asks=asks, then=then):
                self._all(then([self.answer(a) for a in asks]))
            case Probe(ask=ask, then=then):
                self._all(then(asyncio.run(_answered(ask))))
            case Emit(reason=reason, message=message):
                self.events.append((reason, message))
            case Again(after=after):
                self.again = after if self.again is None else min(self.again, after)

    def answer(self, ask: Ask) -> Obj | Page | StatusError:
        """What the API would answer: an object as it is, or the list."""
        if not ask.name:
            return Page(list(self[ask.resource].list(ask.namespace)), 1)
        found = self[ask.resource].get(ask.namespace, ask.name)
        if found is not None and ask.subresource == "scale":
            t = builtin().get(ask.resource)
            assert t is not None
            return Obj.of(found.key, scale_of(t, found), 1)
        return found if found is not None else not_found(ask.resource, ask.name)

    def _all(self, actions: Iterable[Action]) -> None:
        for action in actions:
            self.run(action)

    def delete(self, key: Key) -> None:
        """Gone at once, unless finalizers or a pod's grace hold it."""
        body = self.objects.get(key)
        if body is None:
            return
        graceful = self.graceful and key.resource == "pods"
        if graceful or body["metadata"].get("finalizers"):
            meta = {"deletionTimestamp": rfc3339(self.now), **body["metadata"]}
            self.objects[key] = {**body, "metadata": meta}
        else:
            del self.objects[key]

    def _finalize(self, key: Key, meta: Body) -> None:
        """Finalizers as a patch of *meta* adds and removes them; with the last one goes what is
        being deleted."""
        body = self.objects[key]
        gone = meta.get("$deleteFromPrimitiveList/finalizers", ())
        if not gone and not meta.get("finalizers"):
            return
        held = [f for f in body["metadata"].pop("finalizers", ()) if f not in gone]
        held += [f for f in meta.get("finalizers", ()) if f not in held]
        if held:
            body["metadata"]["finalizers"] = held
        elif "deletionTimestamp" in body["metadata"] and not self.graceful:
            del self.objects[key]

    def _patch(self, key: Key, patch: Body) -> None:
        """Owner references, finalizers, labels and conditions only: what the plans patch. What is
        not there, or another by its uid, is left alone."""
        body = self.objects.get(key)
        uid = patch.get("metadata", {}).get("uid")
        if body is None or (uid and uid != body["metadata"]["uid"]):
            return
        body = self.objects[key] = copy.deepcopy(body)
        self._finalize(key, patch.get("metadata", {}))
        if labels := patch.get("metadata", {}).get("labels"):
            body["metadata"]["labels"] = {**body["metadata"].get("labels", {}), **labels}
        for ref in patch.get("metadata", {}).get("ownerReferences", ()):
            refs: list[Any] = body["metadata"].setdefault("ownerReferences", [])
            refs[:] = [o for o in refs if o["uid"] != ref["uid"]]
            if ref.get("$patch") != "delete":
                refs.append(ref)
        for condition in patch.get("status", {}).get("conditions", ()):
            held = body.setdefault("status", {}).setdefault("conditions", [])
            held[:] = [c for c in held if c["type"] != condition["type"]] + [condition]

    @staticmethod
    def _key(resource: str, body: Body) -> Key:
        return Key(resource, body["metadata"]["namespace"], body["metadata"]["name"])
