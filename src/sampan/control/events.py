"""Events: what components tell users about objects, best effort and beside the real work."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from dataclasses import dataclass

from sampan.api.errors import StatusError
from sampan.api.obj import Body
from sampan.client.base import Client, Unknown
from sampan.lib.clock import Clock, rfc3339

_BURST, _REFILL = 25, 300.0  # per source and object: 25 at once, then one in five minutes
_SIMILAR, _SIMILAR_WINDOW = 10, 600.0
_KNOWN = 4096
_QUEUE = 10_000
_NAMES = 10
_COMBINED = "(combined from similar events): "
log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Seen:
    name: str
    namespace: str
    count: int
    first: str


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class Recorder:
    """Writes core/v1 Events for one component.

    A repeated event is counted, many similar ones of one object are combined, and an object that
    makes too many is not listened to for a while, as upstream's correlator does.
    """

    def __init__(self, client: Client, component: str, *, clock: Clock, host: str = "") -> None:
        self._client = client
        self._component = component
        self._host = host
        self._clock = clock
        self._pending: deque[tuple[Body, str, str, str, str]] = deque(maxlen=_QUEUE)
        self._seen: OrderedDict[tuple[str, ...], _Seen] = OrderedDict()
        self._similar: OrderedDict[tuple[str, ...], tuple[set[str], float]] = OrderedDict()
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._task: asyncio.Task[None] | None = None
        self._last = 0

    def emit(
        self, regarding: Body, type: str, reason: str, message: str, field_path: str = ""
    ) -> None:
        """Tell about the object *regarding* (a body). type: Normal or Warning. Never waits and
        never fails."""
        self._pending.append((regarding, type, reason, message, field_path))
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._drain())

    async def close(self) -> None:
        """Write what is still waiting."""
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def _drain(self) -> None:
        while self._pending:
            event = self._pending.popleft()
            try:
                await self._write(*event)
            except (StatusError, Unknown, OSError) as e:
                log.debug("event %s lost: %s", event[2], e)
            except Exception:
                log.exception("event %s", event[2])

    async def _write(
        self, regarding: Body, type: str, reason: str, message: str, field_path: str
    ) -> None:
        meta = regarding["metadata"]
        who = str(meta.get("uid", "")) or f"{meta.get('namespace', '')}/{meta['name']}"
        now = self._clock.now()
        if not self._has_token(who, now):
            return
        message = self._combine((who, type, reason), message, now)[:1024]
        at = rfc3339(now)
        key = (who, type, reason, message, field_path)
        seen = self._seen.get(key)
        if seen is not None:
            self._seen.move_to_end(key)
            seen.count += 1
            patch = {"count": seen.count, "lastTimestamp": at, "message": message}
            try:
                await self._client.patch("events", seen.name, patch, seen.namespace)
                return
            except StatusError as e:
                if e.code != 404:
                    raise
                del self._seen[key]  # it was too old: it begins anew
        namespace = meta.get("namespace") or "default"
        involved: Body = {
            "apiVersion": regarding.get("apiVersion", ""), "kind": regarding.get("kind", ""),
            "name": meta["name"],
        }  # fmt: skip
        for field in ("namespace", "uid", "resourceVersion"):
            if meta.get(field):
                involved[field] = meta[field]
        if field_path:
            involved["fieldPath"] = field_path
        source = {"component": self._component}
        if self._host:
            source["host"] = self._host
        body = {
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"namespace": namespace}, "involvedObject": involved,
            "reason": reason, "message": message, "source": source, "type": type, "count": 1,
            "firstTimestamp": at, "lastTimestamp": at, "reportingComponent": self._component,
            "reportingInstance": self._host,
        }  # fmt: skip
        name = await self._create(body, meta["name"][:230], now)
        self._seen[key] = _Seen(name, namespace, 1, at)
        if len(self._seen) > _KNOWN:
            self._seen.popitem(last=False)

    async def _create(self, body: Body, base: str, now: float) -> str:
        """Under a name by the nanosecond, kept apart by hand: many events share one moment of the
        clock, and other components tell of the same object."""
        for _ in range(_NAMES):
            self._last = max(self._last + 1, int(now * 1e9))
            body["metadata"]["name"] = f"{base}.{self._last:x}"
            try:
                await self._client.create("events", body, body["metadata"]["namespace"])
                break
            except StatusError as e:
                if e.code != 409:
                    raise
        return str(body["metadata"]["name"])

    def _has_token(self, who: str, now: float) -> bool:
        bucket = self._buckets.setdefault(who, _Bucket(_BURST, now))
        self._buckets.move_to_end(who)
        if len(self._buckets) > _KNOWN:
            self._buckets.popitem(last=False)
        bucket.tokens = min(_BURST, bucket.tokens + (now - bucket.at) / _REFILL)
        bucket.at = now
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True

    def _combine(self, group: tuple[str, ...], message: str, now: float) -> str:
        messages, since = self._similar.get(group, (set(), now))
        if now - since > _SIMILAR_WINDOW:
            messages, since = set(), now
        messages.add(message)
        self._similar[group] = (messages, since)
        if len(self._similar) > _KNOWN:
            self._similar.popitem(last=False)
        return _COMBINED + message if len(messages) > _SIMILAR else message
