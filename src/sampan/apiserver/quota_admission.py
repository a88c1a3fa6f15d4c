"""Admission by ResourceQuota: what a write counts for is charged in the very commit that stores
the object, so that no quota is ever exceeded, whoever writes at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import orjson

from sampan.api import amounts, quota
from sampan.api.amounts import Amounts
from sampan.api.errors import forbidden
from sampan.api.obj import Body, Key, Obj, encode
from sampan.apiserver.pages import obj_of
from sampan.apiserver.stages import Write
from sampan.store.base import Put

_QUOTAS = "resourcequotas"
_BOTH = (quota.SERVICES, quota.CLAIMS)


class ResourceQuota:
    """Writes within what a namespace may use. Quota-charged writes of one namespace of this server
    take turns; another server's show as a conflict, and the write is decided anew."""

    def __init__(self) -> None:
        self._turns: dict[str, tuple[asyncio.Lock, int]] = {}

    async def mutate(self, w: Write) -> None:
        """Nothing to add."""

    async def check(self, w: Write) -> None:
        if not w.t.namespaced or w.t.resource in quota.IGNORED:
            return
        if w.subresource and (w.t.resource, w.subresource) != (quota.PODS, "resize"):
            return
        if w.verb not in ("create", "update"):
            return
        if w.verb == "update" and not w.subresource and w.t.resource not in _BOTH:
            return
        if not await self._held(w):
            return
        if not w.is_dry:
            await w.held.enter_async_context(self._turn(w.namespace))
        self._charge(w, await self._held(w))

    @staticmethod
    async def _held(w: Write) -> Sequence[Obj]:
        found = await w.api.store.range(Key.prefix(_QUOTAS, w.namespace))
        return [obj_of(r) for r in found.records]

    @asynccontextmanager
    async def _turn(self, namespace: str) -> AsyncIterator[None]:
        lock, users = self._turns.get(namespace) or (asyncio.Lock(), 0)
        self._turns[namespace] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            _, users = self._turns[namespace]
            if users > 1:
                self._turns[namespace] = (lock, users - 1)
            else:
                del self._turns[namespace]

    def _charge(self, w: Write, held: Sequence[Obj]) -> None:
        resource, now = w.t.resource, w.api.clock.now()
        interesting: list[Obj] = []
        for one in held:
            if not quota.in_scope(one.body, resource, w.body):
                continue
            if (one.status.get("hard") or {}) != (one.spec.get("hard") or {}):
                # It is being counted: a count that misses this write must not be stored.
                self._write(w, one, one.body)
            names = quota.matching(resource, one.status.get("hard") or {})
            if names:
                self._demand(w, one, names)
                interesting.append(one)
        asked = quota.usage(resource, w.body, now)
        if w.old is not None:
            asked = amounts.less(asked, quota.usage(resource, w.old.body, now))
        asked = {name: v for name, v in asked.items() if v}
        for one in interesting if asked else ():
            self._spend(w, one, asked)

    @staticmethod
    def _demand(w: Write, one: Obj, names: Sequence[str]) -> None:
        problem = quota.unsaid(w.t.resource, w.body, names)
        if problem:
            raise forbidden(w.t.resource, w.name, f"failed quota: {one.name}: {problem}")
        used = one.status.get("used") or {}
        if any(n not in used for n in names):
            why = f"status unknown for quota: {one.name}, resources: {','.join(names)}"
            raise forbidden(w.t.resource, w.name, why)

    def _spend(self, w: Write, one: Obj, asked: Amounts) -> None:
        hard, used = amounts.read(one.status["hard"]), amounts.read(one.status.get("used"))
        asked = amounts.only(asked, hard)
        after = amounts.add(used, asked)
        exceeded = [name for name in asked if after[name] > hard[name]]
        if exceeded:
            raise forbidden(
                w.t.resource, w.name,
                f"exceeded quota: {one.name}, requested: {_text(asked, exceeded)}, "
                f"used: {_text(used, exceeded)}, limited: {_text(hard, exceeded)}",
            )  # fmt: skip
        if asked:
            body: Body = orjson.loads(one.raw)
            body["status"]["used"] = amounts.show(after)
            self._write(w, one, body)

    @staticmethod
    def _write(w: Write, one: Obj, body: Body) -> None:
        path = one.key.path
        w.beside = [op for op in w.beside if op.key != path]
        w.beside.append(Put(path, encode(body), expect=one.revision))


def _text(held: Amounts, names: Sequence[str]) -> str:
    return ",".join(f"{n}={held[n]}" for n in sorted(names) if n in held)
