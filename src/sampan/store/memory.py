"""The store of tests and virtual worlds: no disk, no threads, deterministic."""

from __future__ import annotations

from typing import NamedTuple

from sampan.store.base import Change, Delete, Put, Range, Record, Watch
from sampan.store.hub import HISTORY, Hub, change_of, check


class Image(NamedTuple):
    """What a store held at a revision. Records are shared by all stores made of it."""

    records: tuple[Record, ...]
    revision: int


class MemoryStore:
    """A ``Store`` that is gone with its process. image: what it begins with."""

    def __init__(
        self, *, volatile: tuple[str, ...] = (), history: int = HISTORY, image: Image | None = None
    ) -> None:
        if image is None:
            self._hub = Hub(history=history)
            return
        self._hub = Hub(revision=image.revision, history=history)
        for record in image.records:
            self._hub.load(record)
        self._hub.sort()

    @property
    def revision(self) -> int:
        return self._hub.revision

    async def get(self, key: str) -> Record | None:
        return self._hub.get(key)

    async def range(
        self, prefix: str, *, start: str = "", limit: int = 0, revision: int = 0
    ) -> Range:
        return self._hub.range(prefix, start=start, limit=limit, revision=revision)

    async def commit(self, *ops: Put | Delete) -> int:
        currents = [self._hub.get(op.key) for op in ops]
        for op, current in zip(ops, currents, strict=True):
            check(op, current)
        revision = self._hub.revision + 1
        changes = [change_of(op, c, revision) for op, c in zip(ops, currents, strict=True)]
        self._hub.publish(changes, revision)
        return revision

    def watch(self, prefix: str, *, since: int) -> Watch:
        return self._hub.watch(prefix, since=since)

    async def compact(self, revision: int) -> None:
        self._hub.compact(revision)

    def changes(self, since: int) -> list[Change]:
        """Everything that happened after revision *since*, as far as it is kept (for tests)."""
        return self._hub.changes(since)

    def image(self) -> Image:
        """What is here now."""
        return Image(tuple(self._hub.records()), self.revision)

    async def close(self) -> None:
        self._hub.close()
