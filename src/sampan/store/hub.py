"""The in-memory state every store shares: records, history, and the fan-out to watches."""

from __future__ import annotations

import asyncio
from bisect import bisect_left, insort
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence

from sampan.store.base import Change, Compacted, Conflict, Delete, Put, Range, Record

HISTORY = 10_000  # changes kept for watches that resume and for reads of the past
BACKLOG = 10_000  # changes a watch may be behind
_LAST = "\U0010ffff"


def bucket(key: str) -> str:
    """The resource part of a key or prefix: everything before the first slash."""
    return key.split("/", 1)[0]


class HubWatch:
    """A reader's place in the stream of changes."""

    def __init__(self, hub: Hub, prefix: str, backlog: Sequence[Change], since: int) -> None:
        self._hub = hub
        self.prefix = prefix
        self._pending: list[Change] = list(backlog)
        self._delivered = since
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False
        self._behind = False

    @property
    def position(self) -> int:
        return self._delivered if self._pending else max(self._delivered, self._hub.revision)

    def push(self, changes: Sequence[Change]) -> None:
        """Called by the hub with changes under the prefix, in revision order."""
        if len(self._pending) + len(changes) > BACKLOG:
            self._behind = True
            self._pending.clear()
            self._hub.forget(self)
        else:
            self._pending += changes
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def __aiter__(self) -> AsyncIterator[Sequence[Change]]:
        return self

    async def __anext__(self) -> Sequence[Change]:
        while not self._pending:
            if self._behind:
                raise Compacted(self._hub.compacted)
            if self._closed:
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None  # what a cancelled one remembers would hold all of this
        batch, self._pending = self._pending, []
        self._delivered = batch[-1].revision
        return batch

    def close(self) -> None:
        self._closed = True
        self._pending.clear()
        self._hub.forget(self)
        self._wake()


class Hub:
    """Visible records in key order, recent history, watches."""

    def __init__(self, *, revision: int = 1, history: int = HISTORY) -> None:
        self.revision = revision
        self.compacted = revision  # history up to here is not kept
        self._records: dict[str, Record] = {}
        self._keys: dict[str, list[str]] = {}
        self._history: deque[Change] = deque()
        self._limit = history
        self._watches: dict[str, list[HubWatch]] = {}

    def load(self, record: Record) -> None:
        """Take over a record that was there before; no event. Any order; then ``sort``."""
        self._records[record.key] = record
        self._keys.setdefault(bucket(record.key), []).append(record.key)

    def sort(self) -> None:
        for keys in self._keys.values():
            keys.sort()

    def get(self, key: str) -> Record | None:
        return self._records.get(key)

    def records(self) -> Iterable[Record]:
        """All that are visible now."""
        return self._records.values()

    def publish(self, changes: Sequence[Change], revision: int) -> None:
        """Make one commit visible."""
        by_bucket: dict[str, list[Change]] = {}
        for change in changes:
            where = bucket(change.key)
            keys = self._keys.setdefault(where, [])
            if change.record is None:
                del self._records[change.key]
                del keys[bisect_left(keys, change.key)]
            else:
                if change.previous is None:
                    insort(keys, change.key)
                self._records[change.key] = change.record
            self._history.append(change)
            by_bucket.setdefault(where, []).append(change)
        self.revision = revision
        while len(self._history) > self._limit:
            self.compacted = max(self.compacted, self._history.popleft().revision)
        for where, part in by_bucket.items():
            for watch in tuple(self._watches.get(where, ())):
                seen = [c for c in part if c.key.startswith(watch.prefix)]
                if seen:
                    watch.push(seen)

    def range(self, prefix: str, *, start: str, limit: int, revision: int) -> Range:
        if revision and revision < self.revision:
            records = self._past(prefix, start, revision)
        else:
            revision = self.revision
            keys = self._keys.get(bucket(prefix), [])
            low = bisect_left(keys, max(start, prefix))
            high = bisect_left(keys, prefix + _LAST)
            stop = min(high, low + limit) if limit else high
            found = [self._records[k] for k in keys[low:stop]]
            return Range(found, revision, stop < high, high - stop)
        stop = limit or len(records)
        return Range(records[:stop], revision, stop < len(records), max(0, len(records) - stop))

    def _past(self, prefix: str, start: str, revision: int) -> list[Record]:
        """Records as of *revision*: what is now, with everything since undone."""
        if revision < self.compacted:
            raise Compacted(self.compacted)
        found: dict[str, Record | None] = {}
        for key in self._keys.get(bucket(prefix), []):
            if key.startswith(prefix):
                found[key] = self._records[key]
        for change in reversed(self._history):
            if change.revision <= revision:
                break
            if change.key.startswith(prefix):
                found[change.key] = change.previous
        return [r for k, r in sorted(found.items()) if r is not None and k >= start]

    def watch(self, prefix: str, *, since: int) -> HubWatch:
        if since < self.compacted:
            raise Compacted(self.compacted)
        backlog = [c for c in self.changes(since) if c.key.startswith(prefix)]
        watch = HubWatch(self, prefix, backlog, since)
        self._watches.setdefault(bucket(prefix), []).append(watch)
        return watch

    def changes(self, since: int) -> list[Change]:
        """What is kept of the history after revision *since*."""
        found = []
        for change in reversed(self._history):
            if change.revision <= since:
                break
            found.append(change)
        return found[::-1]

    def forget(self, watch: HubWatch) -> None:
        watches = self._watches.get(bucket(watch.prefix), [])
        if watch in watches:
            watches.remove(watch)

    def compact(self, revision: int) -> None:
        self.compacted = max(self.compacted, min(revision, self.revision))
        while self._history and self._history[0].revision <= self.compacted:
            self._history.popleft()

    def close(self) -> None:
        for watches in tuple(self._watches.values()):
            for watch in tuple(watches):
                watch.close()


def check(op: Put | Delete, current: Record | None) -> None:
    """Raise Conflict where the expectation of *op* does not hold against *current*."""
    if isinstance(op, Delete):
        if current is None or (op.expect is not None and current.revision != op.expect):
            raise Conflict(op.key, current)
    elif op.expect is not None and op.expect != (current.revision if current else 0):
        raise Conflict(op.key, current)


def change_of(op: Put | Delete, current: Record | None, revision: int) -> Change:
    """What *op* does at *revision*."""
    if isinstance(op, Delete):
        return Change(op.key, revision, None, current)
    created = current.created if current else revision
    return Change(op.key, revision, Record(op.key, op.value, revision, created), current)
