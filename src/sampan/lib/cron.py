"""Cron schedules as Kubernetes reads them: five fields or a macro, in any time zone.

The rules (fields, names, steps, macros, what happens when clocks change) are those of the
``robfig/cron`` v3 standard parser, which the CronJob API is defined by.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from fractions import Fraction
from functools import cache
from typing import Protocol, TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_YEARS_AHEAD = 5  # a schedule without a time in so many years has none
_HOUR, _MINUTE = 3600, 60
_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9,
          "m": 60 * 10**9, "h": 3600 * 10**9}  # fmt: skip
_DURATION = re.compile(r"([0-9]*\.?[0-9]*)(ns|us|µs|μs|ms|s|m|h)")


class CronError(ValueError):
    """The text is no schedule; the message says why, as Kubernetes says it."""


class Schedule(Protocol):
    """Times are seconds since the epoch."""

    def next(self, after: float) -> float | None:
        """The first time after *after*; None when there is none within five years."""
        ...


@dataclass(frozen=True, slots=True)
class Every:
    """A constant delay in whole seconds, counted from the time asked about."""

    seconds: int

    def next(self, after: float) -> float | None:
        return math.floor(after) + self.seconds


@dataclass(frozen=True, slots=True)
class _Field:
    """The values a field allows; is_star: written as ``*`` or ``?`` (it matters for days)."""

    values: frozenset[int]
    is_star: bool


@dataclass(frozen=True, slots=True)
class Fields:
    """Minute, hour, day of month, month and day of week in a time zone."""

    minute: frozenset[int]
    hour: frozenset[int]
    day: _Field
    month: frozenset[int]
    weekday: _Field
    zone: tzinfo

    def next(self, after: float) -> float | None:
        """Found part by part, from the month down. A part that does not fit is moved on by its
        own step, and when that carries into the part above, all are looked at again. Hours step
        by elapsed time: one that the clocks leave out is passed over, one that comes twice is met
        twice. Just as ``robfig/cron`` goes about it, whose answers around the change of clocks
        follow from exactly these steps."""
        t = math.floor(after) + 1
        limit = self._local(t).year + _YEARS_AHEAD
        part, is_aligned = 0, False
        while part < len(_PARTS):
            fits, step, carries = _PARTS[part]
            if fits(self, self._local(t)):
                part += 1
                continue
            t = step(self, t, is_aligned)
            is_aligned = True
            local = self._local(t)
            if carries(local):
                if local.year > limit:
                    return None
                part = 0
        return float(t)

    def is_day(self, local: datetime) -> bool:
        """Both day fields must fit; when both are given as lists, one is enough."""
        by_date = local.day in self.day.values
        by_name = local.isoweekday() % 7 in self.weekday.values
        if self.day.is_star or self.weekday.is_star:
            return by_date and by_name
        return by_date or by_name

    def next_month(self, t: int, is_aligned: bool) -> int:
        wall = self._wall(t)
        if not is_aligned:
            wall = wall.replace(day=1, hour=0, minute=0, second=0)
        years, month = divmod(wall.month, 12)
        first = wall.replace(year=wall.year + years, month=month + 1, day=1)
        return self._at(first + timedelta(days=wall.day - 1))

    def next_day(self, t: int, is_aligned: bool) -> int:
        wall = self._wall(t)
        if not is_aligned:
            wall = wall.replace(hour=0, minute=0, second=0)
        t = self._at(wall + timedelta(days=1))
        hour = self._local(t).hour
        if hour:  # the clocks leave midnight out
            t += (24 - hour if hour > 12 else -hour) * _HOUR
        return t

    def next_hour(self, t: int, is_aligned: bool) -> int:
        if not is_aligned:
            t = self._at(self._wall(t).replace(minute=0, second=0))
        return t + _HOUR

    def next_minute(self, t: int, is_aligned: bool) -> int:
        return (t if is_aligned else t - t % _MINUTE) + _MINUTE

    def _local(self, t: int) -> datetime:
        return datetime.fromtimestamp(t, self.zone)

    def _wall(self, t: int) -> datetime:
        """What the zone's clocks show, as a time for reckoning with (marked as UTC)."""
        return self._local(t).replace(tzinfo=UTC, fold=0)

    def _at(self, wall: datetime) -> int:
        """The moment of a wall clock time. It is read by the offset in force at the same number of
        UTC, unless that offset does not hold at the moment so found."""
        naive = int(wall.timestamp())
        return naive - self._offset(naive - self._offset(naive))

    def _offset(self, t: int) -> int:
        shift = self._local(t).utcoffset()
        assert shift is not None
        return int(shift.total_seconds())


_Part: TypeAlias = tuple[
    Callable[[Fields, datetime], bool],
    Callable[[Fields, int, bool], int],
    Callable[[datetime], bool],
]
# Whether a part fits, how it is moved on, whether that carried into the part above.
_PARTS: tuple[_Part, ...] = (
    (lambda s, local: local.month in s.month, Fields.next_month, lambda local: local.month == 1),
    (Fields.is_day, Fields.next_day, lambda local: local.day == 1),
    (lambda s, local: local.hour in s.hour, Fields.next_hour, lambda local: local.hour == 0),
    (
        lambda s, local: local.minute in s.minute,
        Fields.next_minute,
        lambda local: local.minute == 0,
    ),
    (
        lambda _s, local: local.second == 0,
        lambda _s, t, _aligned: t + -t % _MINUTE,
        lambda _local: True,
    ),
)


@cache
def zone(name: str) -> tzinfo:
    """A zone of the IANA database; '' is UTC. Raises CronError."""
    if name in ("", "UTC"):
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise CronError(f"unknown time zone {name}") from None


@cache
def parse(text: str, zone_name: str = "") -> Schedule:
    """The schedule *text* says, on the clocks of a zone. ``TZ=`` and ``CRON_TZ=`` prefixes are
    understood. Raises CronError."""
    if not text:
        raise CronError("empty spec string")
    if text.startswith(("TZ=", "CRON_TZ=")):
        prefix, space, text = text.partition(" ")
        if not space:
            raise CronError("invalid schedule format: a time zone and no schedule")
        zone_name = prefix.partition("=")[2]
        try:
            zone(zone_name)
        except CronError as e:
            raise CronError(f"provided bad location {zone_name}: {e}") from None
        text = text.strip()
    if text.startswith("@"):
        return _macro(text, zone_name)
    fields = text.split()
    if len(fields) != 5:
        listed = " ".join(fields)
        raise CronError(f"expected exactly 5 fields, found {len(fields)}: [{listed}]")
    return _fields(fields, zone_name)


def _fields(fields: list[str], zone_name: str) -> Fields:
    minute = _field(fields[0], 0, 59)
    hour = _field(fields[1], 0, 23)
    day = _field(fields[2], 1, 31)
    month = _field(fields[3], 1, 12, {n: i + 1 for i, n in enumerate(_MONTHS)})
    weekday = _field(fields[4], 0, 6, {n: i for i, n in enumerate(_DAYS)})
    return Fields(minute.values, hour.values, day, month.values, weekday, zone(zone_name))


_MACROS = {
    "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0", "@daily": "0 0 * * *", "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}  # fmt: skip


def _macro(text: str, zone_name: str) -> Schedule:
    if text in _MACROS:
        return _fields(_MACROS[text].split(), zone_name)
    if text.startswith("@every "):
        try:
            nanos = duration(text.removeprefix("@every "))
        except CronError as e:
            raise CronError(f"failed to parse duration {text}: {e}") from None
        return Every(max(1, nanos // 10**9))
    raise CronError(f"unrecognized descriptor: {text}")


def _field(text: str, low: int, high: int, names: dict[str, int] | None = None) -> _Field:
    values: set[int] = set()
    is_star = False
    for part in filter(None, text.split(",")):
        found, star = _range(part, low, high, names or {})
        values.update(found)
        is_star = is_star or star
    return _Field(frozenset(values), is_star)


def _range(text: str, low: int, high: int, names: dict[str, int]) -> tuple[range, bool]:
    body, *steps = text.split("/")
    first, *rest = body.split("-")
    star = first in ("*", "?")
    if star:
        start, end = low, high
    else:
        if len(rest) > 1:
            start = _number(first, names)
            raise CronError(f"too many hyphens: {text}")
        start = _number(first, names)
        end = _number(rest[0], names) if rest else start
    step = 1
    if len(steps) > 1:
        raise CronError(f"too many slashes: {text}")
    if steps:
        step = _number(steps[0], {})
        if not rest:
            end = high
        star = star and step <= 1
    if start < low:
        raise CronError(f"beginning of range ({start}) below minimum ({low}): {text}")
    if end > high:
        raise CronError(f"end of range ({end}) above maximum ({high}): {text}")
    if start > end:
        raise CronError(f"beginning of range ({start}) beyond end of range ({end}): {text}")
    if step == 0:
        raise CronError(f"step of range should be a positive number: {text}")
    return range(start, end + 1, step), star


def _number(text: str, names: dict[str, int]) -> int:
    named = names.get(text.lower())
    if named is not None:
        return named
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        raise CronError(
            f'failed to parse int from {text}: strconv.Atoi: parsing "{text}": invalid syntax'
        )
    number = int(text)
    if number < 0:
        raise CronError(f"negative number ({number}) not allowed: {text}")
    return number


def duration(text: str) -> int:
    """Nanoseconds of a Go duration (``1h30m``, ``1.5s``). Raises CronError."""
    sign, body = (-1, text[1:]) if text[:1] == "-" else (1, text.removeprefix("+"))
    if body == "0":
        return 0
    total = Fraction(0)
    at = 0
    while at < len(body):
        match = _DURATION.match(body, at)
        if match is None or match[1] in ("", "."):
            raise CronError(_bad_duration(text, body, at))
        total += Fraction(match[1].rstrip(".") or "0") * _UNITS[match[2]]
        at = match.end()
    if not body:
        raise CronError(f'time: invalid duration "{text}"')
    return sign * int(total)


def _bad_duration(text: str, body: str, at: int) -> str:
    rest = body[at:]
    number = re.match(r"[0-9]*\.?[0-9]*", rest)
    assert number is not None
    if number[0] in ("", "."):
        return f'time: invalid duration "{text}"'
    unit = re.match(r"[^0-9.]*", rest[number.end() :])
    assert unit is not None
    if not unit[0]:
        return f'time: missing unit in duration "{text}"'
    return f'time: unknown unit "{unit[0]}" in duration "{text}"'


def times(schedule: Schedule, after: float, until: float) -> Iterator[float]:
    """The times in (after, until], rising."""
    t = schedule.next(after)
    while t is not None and t <= until:
        yield t
        t = schedule.next(t)
