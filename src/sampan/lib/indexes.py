"""Sets of completion indexes in the text form of Job status: ``1,3-5,7``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple


class IndexesError(ValueError):
    """The text is no list of rising intervals below the limit; the message says where."""


class Interval(NamedTuple):
    """From first to last, both included."""

    first: int
    last: int


class Indexes:
    """An immutable set of indexes, kept as rising intervals that neither touch nor overlap."""

    __slots__ = ("_intervals",)

    def __init__(self, intervals: Iterable[Interval] = ()) -> None:
        self._intervals = _joined(intervals)

    @staticmethod
    def of(indexes: Iterable[int]) -> Indexes:
        return Indexes(Interval(i, i) for i in indexes)

    @staticmethod
    def parse(text: str, limit: int) -> Indexes:
        """What *text* says, as far as it is readable; indexes from *limit* on are left out."""
        found: list[Interval] = []
        for part in filter(None, text.split(",")):
            head, _, tail = part.partition("-")
            if not head.isdecimal() or (tail and not tail.isdecimal()):
                continue
            first, last = int(head), int(tail or head)
            if first < limit:
                found.append(Interval(first, min(last, limit - 1)))
        return Indexes(found)

    def __contains__(self, index: int) -> bool:
        return any(i.first <= index <= i.last for i in self._intervals)

    def __iter__(self) -> Iterator[int]:
        for first, last in self._intervals:
            yield from range(first, last + 1)

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in self._intervals)

    def __or__(self, other: Indexes) -> Indexes:
        return Indexes((*self._intervals, *other._intervals))

    def __and__(self, other: Indexes) -> Indexes:
        return Indexes(
            Interval(max(a.first, b.first), min(a.last, b.last))
            for a in self._intervals
            for b in other._intervals
            if a.first <= b.last and b.first <= a.last
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Indexes) and self._intervals == other._intervals

    def __hash__(self) -> int:
        return hash(self._intervals)

    def __str__(self) -> str:
        """Two neighbours are listed, more are written as a range."""
        return ",".join(
            str(a) if a == b else f"{a}{',' if b == a + 1 else '-'}{b}" for a, b in self._intervals
        )

    def __repr__(self) -> str:
        return f"Indexes({self!s})"

    def missing(self, below: int) -> Iterator[int]:
        """The indexes under *below* that are not in the set, rising."""
        at = 0
        for first, last in self._intervals:
            yield from range(at, min(first, below))
            at = last + 1
        yield from range(at, below)


def _joined(intervals: Iterable[Interval]) -> tuple[Interval, ...]:
    out: list[Interval] = []
    for first, last in sorted(intervals):
        if out and first <= out[-1].last + 1:
            out[-1] = Interval(out[-1].first, max(out[-1].last, last))
        else:
            out.append(Interval(first, last))
    return tuple(out)


def check(text: str, limit: int) -> int:
    """How many indexes a strictly well-formed *text* names. Raises IndexesError."""
    total, previous = 0, -1
    for part in text.split(",") if text else ():
        first, last = _interval(part, limit)
        if previous >= first:
            raise IndexesError(f"non-increasing order, previous: {previous}, current: {first}")
        total += last - first + 1
        previous = last
    return total


def _interval(part: str, limit: int) -> Interval:
    ends = part.split("-")
    if len(ends) > 2:
        raise IndexesError(
            f'the fragment "{part}" violates the requirement that an index interval can have at '
            "most two parts separated by '-'"
        )
    numbers = []
    for end in ends:
        if not end.isdecimal():
            raise IndexesError(f'cannot convert string to integer for index: "{end}"')
        if int(end) >= limit:
            raise IndexesError(f'too large index: "{end}"')
        numbers.append(int(end))
    if len(numbers) == 2 and numbers[0] >= numbers[1]:
        raise IndexesError(f"non-increasing order, previous: {numbers[0]}, current: {numbers[1]}")
    return Interval(numbers[0], numbers[-1])
