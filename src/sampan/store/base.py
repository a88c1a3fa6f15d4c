"""The Store protocol: five verbs over opaque bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol


class Record:
    """One value at one revision. ``memo`` caches what a reader derives from it once (an Obj)."""

    __slots__ = ("created", "key", "memo", "revision", "value")

    def __init__(self, key: str, value: bytes, revision: int, created: int) -> None:
        self.key = key
        self.value = value
        self.revision = revision
        self.created = created
        self.memo: Any = None


@dataclass(frozen=True, slots=True)
class Put:
    """Write *value*. expect: 0 = must not exist, n = must be at revision n, None = whatever."""

    key: str
    value: bytes
    expect: int | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove *key*; it must exist (at revision *expect* where given)."""

    key: str
    expect: int | None = None


class Change(NamedTuple):
    """One change. record is None for a deletion; previous None for a creation."""

    key: str
    revision: int
    record: Record | None
    previous: Record | None


class Range(NamedTuple):
    records: list[Record]
    revision: int  # the revision the answer is consistent with
    more: bool  # keys remain after the last record
    remaining: int  # how many


class Conflict(Exception):
    """An expectation of a commit did not hold. Nothing was written. The state it did not hold
    against can be read by now, so that whoever reads again and decides anew makes progress."""

    def __init__(self, key: str, current: Record | None) -> None:
        super().__init__(key)
        self.key = key
        self.current = current


class Compacted(Exception):
    """The revision asked for is no longer kept (or a watcher fell too far behind)."""

    def __init__(self, oldest: int) -> None:
        super().__init__(f"oldest revision kept is {oldest}")
        self.oldest = oldest


class Unwritable(Exception):
    """A commit could not be put on disk (which is full, or broken): nothing was written, what was
    acknowledged before is there, and a later commit may succeed again. The message says why."""


class Corrupt(Exception):
    """The data on disk cannot be used; the message says what is wrong with which file."""


class Watch(Protocol):
    """Changes in revision order, each exactly once. Iterating raises ``Compacted`` when the
    reader fell too far behind. ``position``: every change up to it has been delivered."""

    @property
    def position(self) -> int: ...
    def __aiter__(self) -> AsyncIterator[Sequence[Change]]: ...
    def close(self) -> None: ...


class Store(Protocol):
    """A revisioned store. Acknowledged (returned from ``commit``) means on disk, except under
    volatile prefixes, which are written lazily."""

    @property
    def revision(self) -> int:
        """The newest visible revision."""
        ...

    async def get(self, key: str) -> Record | None: ...

    async def range(
        self, prefix: str, *, start: str = "", limit: int = 0, revision: int = 0
    ) -> Range:
        """Records under *prefix* with key >= *start*, in key order, as of *revision* (0 = now).
        Raises Compacted for a revision that is no longer kept."""
        ...

    async def commit(self, *ops: Put | Delete) -> int:
        """All or nothing, as one revision. Raises Conflict, Unwritable."""
        ...

    def watch(self, prefix: str, *, since: int) -> Watch:
        """Changes under *prefix* with revision > *since*. Raises Compacted at once where *since*
        is too old."""
        ...

    async def compact(self, revision: int) -> None:
        """Forget history before *revision*."""
        ...

    async def close(self) -> None: ...
