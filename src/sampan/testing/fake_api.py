"""FakeApi: a Transport over a dictionary, for tests of what speaks through a Client.

It keeps revisions, uids, deletion with grace and finalizers, list, watch and the three patches as
far as agents and controllers need them. It validates, defaults and authorizes nothing.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any

from sampan.api.call import JSON_PATCH, STRATEGIC_PATCH, Call
from sampan.api.errors import StatusError, already_exists, bad_request, conflict, gone, not_found
from sampan.api.obj import Body, Event, Key, Obj, Page
from sampan.lib.clock import Clock, rfc3339

_MERGE_KEYS = {"conditions": "type", "podIPs": "ip", "addresses": "type"}


class FakeApi:
    """A Transport. ``writes`` counts the calls that changed something, by (verb, resource)."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.objects: dict[Key, Obj] = {}
        self.writes: dict[tuple[str, str], int] = {}
        self.calls: list[Call] = []
        self.fail: Callable[[Call], StatusError | None] = lambda _call: None
        self._revision = 0
        self._uids = itertools.count(1)
        self._queues: list[tuple[Call, asyncio.Queue[Event | None]]] = []

    # ---- Transport -----------------------------------------------------------------------------

    async def call(self, call: Call) -> Obj | Page:
        self.calls.append(call)
        error = self.fail(call)
        if error is not None:
            raise error
        return _VERBS[call.verb](self, call)

    async def watch(self, call: Call) -> AsyncIterator[Event]:
        if call.options.get("resourceVersion") not in (None, str(self._revision)):
            raise gone("FakeApi keeps no history")
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        entry = (call, queue)
        self._queues.append(entry)
        try:
            while (event := await queue.get()) is not None:
                yield event
        finally:
            self._queues.remove(entry)

    async def close(self) -> None:
        pass

    def break_watches(self) -> None:
        """End every watch, as a lost connection does."""
        for _, queue in self._queues:
            queue.put_nowait(None)

    # ---- for tests -----------------------------------------------------------------------------

    def put(self, resource: str, body: Body) -> Obj:
        """Create or replace *body*, as somebody else would."""
        meta = body["metadata"]
        key = Key(resource, meta.get("namespace", ""), meta["name"])
        old = self.objects.get(key)
        return self._store(key, copy.deepcopy(body), "MODIFIED" if old else "ADDED")

    def get(self, resource: str, name: str, namespace: str = "") -> Obj | None:
        return self.objects.get(Key(resource, namespace, name))

    def drop(self, resource: str, name: str, namespace: str = "") -> None:
        """Remove the object at once, as a forced deletion does."""
        self._remove(Key(resource, namespace, name))

    # ---- verbs ---------------------------------------------------------------------------------

    def _get(self, call: Call) -> Obj:
        found = self.objects.get(Key(call.resource, call.namespace, call.name))
        if found is None:
            raise not_found(call.resource, call.name)
        return found

    def _list(self, call: Call) -> Page:
        found = [o for k, o in sorted(self.objects.items()) if _matches(call, o)]
        return Page(found, self._revision)

    def _create(self, call: Call) -> Obj:
        body = call.body
        if call.subresource == "token":
            return self._token(call)
        name = body["metadata"].get("name") or f"{body['metadata']['generateName']}{self._revision}"
        body["metadata"]["name"] = name
        if call.namespace:
            body["metadata"]["namespace"] = call.namespace
        key = Key(call.resource, call.namespace, name)
        if key in self.objects:
            raise already_exists(call.resource, name)
        self._count(call)
        return self._store(key, body, "ADDED")

    def _token(self, call: Call) -> Obj:
        seconds = float(call.body["spec"]["expirationSeconds"])
        status = {
            "token": f"token-{call.name}-{next(self._uids)}",
            "expirationTimestamp": rfc3339(self.clock.now() + seconds),
        }
        return Obj.of(
            Key(call.resource, call.namespace, call.name), {**call.body, "status": status}, 0
        )

    def _update(self, call: Call) -> Obj:
        key = Key(call.resource, call.namespace, call.name)
        old = self._get(call)
        given = call.body["metadata"].get("resourceVersion")
        if given and given != str(old.revision):
            raise conflict(call.resource, call.name, "the object has been modified")
        self._count(call)
        return self._store(key, call.body, "MODIFIED")

    def _patch(self, call: Call) -> Obj:
        old = self._get(call)
        if call.content_type == JSON_PATCH:
            raise bad_request("FakeApi applies no JSON patches")
        uid = (call.body.get("metadata") or {}).get("uid")
        if uid and uid != old.uid:
            raise conflict(call.resource, call.name, "the uid differs")
        strategic = call.content_type == STRATEGIC_PATCH
        body = _merge(old.body, call.body, strategic=strategic)
        if body == old.body:
            return old
        self._count(call)
        return self._store(old.key, body, "MODIFIED")

    def _delete(self, call: Call) -> Obj:
        old = self._get(call)
        body = call.body or {}
        uid = (body.get("preconditions") or {}).get("uid")
        if uid and uid != old.uid:
            raise conflict(call.resource, call.name, "the uid differs")
        self._count(call)
        grace = body.get("gracePeriodSeconds")
        if call.resource == "pods" and old.spec.get("nodeName") and grace != 0:
            if grace is None:
                grace = old.spec.get("terminationGracePeriodSeconds", 30)
            changed = copy.deepcopy(old.body)
            changed["metadata"]["deletionTimestamp"] = rfc3339(self.clock.now() + grace)
            changed["metadata"]["deletionGracePeriodSeconds"] = grace
            return self._store(old.key, changed, "MODIFIED")
        if old.meta.get("finalizers"):
            changed = copy.deepcopy(old.body)
            changed["metadata"].setdefault("deletionTimestamp", rfc3339(self.clock.now()))
            return self._store(old.key, changed, "MODIFIED")
        self._remove(old.key)
        return old

    # ---- inside --------------------------------------------------------------------------------

    def _store(self, key: Key, body: Body, type_: str) -> Obj:
        self._revision += 1
        meta = body["metadata"]
        old = self.objects.get(key)
        meta["resourceVersion"] = str(self._revision)
        if old is not None:
            meta.setdefault("uid", old.uid)
        meta.setdefault("uid", f"uid-{next(self._uids)}")
        meta.setdefault("creationTimestamp", rfc3339(self.clock.now()))
        obj = Obj.of(key, body, self._revision)
        self.objects[key] = obj
        self._tell(type_, obj)
        return obj

    def _remove(self, key: Key) -> None:
        old = self.objects.pop(key, None)
        if old is not None:
            self._revision += 1
            body = copy.deepcopy(old.body)
            body["metadata"]["resourceVersion"] = str(self._revision)
            self._tell("DELETED", Obj.of(key, body, self._revision))

    def _tell(self, type_: str, obj: Obj) -> None:
        for call, queue in self._queues:
            if _matches(call, obj):
                queue.put_nowait(Event(type_, obj))

    def _count(self, call: Call) -> None:
        key = (call.verb, call.resource + (f"/{call.subresource}" if call.subresource else ""))
        self.writes[key] = self.writes.get(key, 0) + 1


_VERBS: dict[str, Callable[[FakeApi, Call], Obj | Page]] = {
    "get": FakeApi._get,
    "list": FakeApi._list,
    "create": FakeApi._create,
    "update": FakeApi._update,
    "patch": FakeApi._patch,
    "delete": FakeApi._delete,
}


def _matches(call: Call, obj: Obj) -> bool:
    if obj.key.resource != call.resource:
        return False
    if call.namespace and obj.namespace != call.namespace:
        return False
    fields = call.options.get("fieldSelector", "")
    for part in filter(None, fields.split(",")):
        path, _, wanted = part.partition("=")
        value: Any = obj.body
        for step in path.split("."):
            value = (value or {}).get(step)
        if (value or "") != wanted:
            return False
    return True


def _merge(old: Any, patch: Any, *, strategic: bool, name: str = "") -> Any:
    """A merge patch; strategic also merges the lists whose keys it knows."""
    if isinstance(patch, dict):
        out = dict(old) if isinstance(old, dict) else {}
        for key, value in patch.items():
            if value is None:
                out.pop(key, None)
            else:
                out[key] = _merge(out.get(key), value, strategic=strategic, name=key)
        return out
    if strategic and isinstance(patch, list) and name in _MERGE_KEYS:
        merge_key = _MERGE_KEYS[name]
        if any(p.get("$patch") == "replace" for p in patch):
            return [p for p in patch if "$patch" not in p]
        items = {o[merge_key]: o for o in old or []}
        for item in patch:
            items[item[merge_key]] = _merge(items.get(item[merge_key]), item, strategic=True)
        return list(items.values())
    return copy.deepcopy(patch)
