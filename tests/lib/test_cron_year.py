"""A year of schedules against the plainest reading of them: every minute of the year is looked at.

Upstream's parser (``robfig/cron``) walks instead of looking, hours by elapsed time, and where
clocks change by something else than an hour at an hour it misses what a plain reading would not.
Those differences are facts of Kubernetes, and each is written down here (``WALKED``).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from sampan.lib import cron

YEAR = 2026
START = int(datetime(YEAR, 1, 1, tzinfo=UTC).timestamp())
MINUTES = 365 * 24 * 60
ZONES = (
    "UTC", "Europe/Berlin", "America/New_York", "Australia/Sydney", "Australia/Lord_Howe",
    "Asia/Kathmandu", "Pacific/Apia", "Africa/Cairo",
)  # fmt: skip
SCHEDULES = (
    # macros
    "@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight",
    # single times, in the gaps and the overlaps of the zones above
    "30 2 * * *", "0 2 * * *", "15 2 * * *", "59 1 * * *", "30 1 * * *", "0 3 * * *", "30 0 * * *",
    "0 0 * * *", "59 23 * * *", "45 1 * * *", "0 1 * * *",
    # ranges, steps, lists
    "0 */6 * * *", "5/20 0-3 * * *", "*/30 0-4 * * *", "10-50/20 1-3 * * *", "0,30 0,1,2,3 * * *",
    "0 0-23/5 * * *", "7 1-5,22-23 * * *", "30 6-16/4 * * 1-5",
    # names, in any case
    "0 0 * Feb Mon", "0 12 * jan-MAR,Oct sun", "15 3 * * Mon-Fri", "0 0 * Feb Mon/2",
    # both days: either will do; one of them a star: both have to fit
    "0 0 13 * Fri", "30 2 1,15 * sun", "0 4 */10 * 3", "0 4 8-14 * ?", "0 4 ? * 0", "0 0 */2 * Mon",
    "0 12 */1 * Fri", "0 9 31 * *", "0 9 29-31 2 *",
    # days on which clocks change
    "30 2 29 3 *", "30 2 8 3 *", "30 2 4 10 *", "15 2 4 10 *", "0 0 24 4 *", "30 1 1 11 *",
)  # fmt: skip
HOURLY = dict.fromkeys(("Europe/Berlin", "Australia/Sydney"), ("@hourly",))  # takes its time
# What upstream's walk makes of it, where a plain reading differs: (zone, schedule) -> local times
# it leaves out ("-") and those it adds ("+").
WALKED: dict[tuple[str, str], tuple[str, ...]] = {
    # Half an hour more or less: on that day hours are met at the half, and what is due at the full
    # hour is passed over until midnight, which is then passed over itself.
    ("Australia/Lord_Howe", "@weekly"): ("-04-12T00:00+10:30", "-10-11T00:00+11:00"),
    ("Australia/Lord_Howe", "@daily"): ("-04-06T00:00+10:30", "-10-05T00:00+11:00"),
    ("Australia/Lord_Howe", "@midnight"): ("-04-06T00:00+10:30", "-10-05T00:00+11:00"),
    ("Australia/Lord_Howe", "0 2 * * *"): ("-04-05T02:00+10:30",),
    ("Australia/Lord_Howe", "15 2 * * *"): ("-04-05T02:15+10:30",),
    ("Australia/Lord_Howe", "0 3 * * *"): ("-04-05T03:00+10:30", "-10-04T03:00+11:00"),
    ("Australia/Lord_Howe", "0 0 * * *"): ("-04-06T00:00+10:30", "-10-05T00:00+11:00"),
    ("Australia/Lord_Howe", "0 */6 * * *"): ("-04-05T06:00+10:30", "-10-04T06:00+11:00"),
    ("Australia/Lord_Howe", "0 0-23/5 * * *"): ("-04-05T05:00+10:30", "-10-04T05:00+11:00"),
    ("Australia/Lord_Howe", "0 12 * jan-MAR,Oct sun"): ("-10-04T12:00+11:00",),
    ("Australia/Lord_Howe", "0 4 ? * 0"): ("-04-05T04:00+10:30", "-10-04T04:00+11:00"),
    ("Australia/Lord_Howe", "0 0 */2 * Mon"): ("-04-06T00:00+10:30",),
    # The minute 30 that follows 01:59 is one of the next hour, which is not looked at again.
    ("Australia/Lord_Howe", "30 1 * * *"): ("+10-04T02:30+11:00",),
    ("Australia/Lord_Howe", "45 1 * * *"): ("+10-04T02:45+11:00",),
    # East of Greenwich a day without midnight is stepped over when days are counted.
    ("Africa/Cairo", "0 12 */1 * Fri"): ("-04-24T12:00+03:00",),
}

_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_MACROS = {
    "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0", "@daily": "0 0 * * *", "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}  # fmt: skip
Day = tuple[int, int, int]  # month, day of the month, day of the week from Sunday on


@lru_cache(maxsize=1)  # a hundred megabytes each
def clock(zone: str) -> dict[Day, dict[tuple[int, int], list[int]]]:
    """When the zone's clocks show which hour and minute, for each of its days: never, once, or
    twice. Every minute of the (UTC) year is asked for."""
    tz = ZoneInfo(zone)
    found: dict[Day, dict[tuple[int, int], list[int]]] = {}
    for t in range(START, START + MINUTES * 60, 60):
        at = datetime.fromtimestamp(t, tz)
        day = found.setdefault((at.month, at.day, at.isoweekday() % 7), defaultdict(list))
        day[at.hour, at.minute].append(t)
    return found


def allowed(text: str, low: int, high: int, names: Sequence[str] = (), first: int = 0) -> set[int]:
    """The plainest reading of one field."""
    found: set[int] = set()

    def number(word: str) -> int:
        return names.index(word.lower()) + first if word.lower() in names else int(word)

    for part in text.split(","):
        span, _, step = part.partition("/")
        start, dash, end = span.partition("-")
        if span in ("*", "?"):
            a, b = low, high
        else:
            a = number(start)
            b = number(end) if dash else high if step else a
        found |= {n for n in range(a, b + 1) if (n - a) % int(step or 1) == 0}
    return found


def plain(schedule: str, zone: str) -> set[int]:
    """Every minute of the year whose clock fits."""
    fields = _MACROS.get(schedule, schedule).split()
    minutes = allowed(fields[0], 0, 59)
    hours = allowed(fields[1], 0, 23)
    dates = allowed(fields[2], 1, 31)
    months = allowed(fields[3], 1, 12, _MONTHS, 1)
    names = allowed(fields[4], 0, 6, _DAYS)
    is_any = any(f in ("*", "?", "*/1") for f in (fields[2], fields[4]))
    found: set[int] = set()
    for (month, day, name), times in clock(zone).items():
        fits = (day in dates, name in names)
        if month in months and (all(fits) if is_any else any(fits)):
            for hour in hours:
                for minute in minutes:
                    found.update(times.get((hour, minute), ()))
    return found


def walked(schedule: str, zone: str) -> set[int]:
    found = cron.times(cron.parse(schedule, zone), START - 60, START + MINUTES * 60 - 1)
    return {int(t) for t in found if t >= START}


def local(t: int, zone: str) -> str:
    return datetime.fromtimestamp(t, ZoneInfo(zone)).isoformat(timespec="minutes")[5:]


@pytest.mark.parametrize("zone", ZONES)
def test_a_year_of_schedules(zone: str) -> None:
    differs = {}
    for schedule in (*SCHEDULES, *HOURLY.get(zone, ())):
        want, have = plain(schedule, zone), walked(schedule, zone)
        lost = [f"-{local(t, zone)}" for t in sorted(want - have)]
        more = [f"+{local(t, zone)}" for t in sorted(have - want)]
        if lost or more:
            differs[zone, schedule] = (*lost, *more)
    assert differs == {k: v for k, v in WALKED.items() if k[0] == zone}


@pytest.mark.parametrize("zone", ["America/New_York", "Australia/Sydney"])
def test_a_zone_in_the_schedule_is_the_zone(zone: str) -> None:
    found = walked(f"TZ={zone} 30 2 * * *", "Asia/Kathmandu")
    assert found == walked(f"CRON_TZ={zone} 30 2 * * *", "UTC") == plain("30 2 * * *", zone)


@pytest.mark.parametrize(
    ("every", "seconds"), [("1h", 3600), ("90m", 5400), ("24h", 86400), ("1h0m0.9s", 3600)]
)
def test_a_constant_delay_knows_no_clocks(every: str, seconds: int) -> None:
    found = sorted(walked(f"@every {every}", "Europe/Berlin"))
    first = START - 60 + seconds
    assert found == [*range(first, START + MINUTES * 60, seconds)]


@pytest.mark.parametrize(
    ("zone", "schedule", "gap", "overlap"),
    [
        ("Europe/Berlin", "30 2 * * *", "03-29", "10-25"),
        ("America/New_York", "30 2 * * *", "03-08", ""),
        ("America/New_York", "30 1 * * *", "", "11-01"),
        ("Australia/Sydney", "30 2 * * *", "10-04", "04-05"),
        ("America/Havana", "30 0 * * *", "03-08", "11-01"),
        ("Atlantic/Azores", "30 0 * * *", "03-29", "10-25"),
        ("Asia/Kathmandu", "30 2 * * *", "", ""),
        ("Pacific/Apia", "30 2 * * *", "", ""),
    ],
)
def test_a_day_is_missed_in_the_gap_and_doubled_in_the_overlap(
    zone: str, schedule: str, gap: str, overlap: str
) -> None:
    """A year from local midnight on, so that every local day is whole."""
    first = datetime(YEAR, 1, 1, tzinfo=ZoneInfo(zone)).timestamp()
    end = datetime(YEAR + 1, 1, 1, tzinfo=ZoneInfo(zone)).timestamp()
    found = cron.times(cron.parse(schedule, zone), first - 1, end - 1)
    runs = Counter(local(int(t), zone)[:5] for t in found)
    days = {(date(YEAR, 1, 1) + timedelta(n)).isoformat()[5:] for n in range(365)}
    assert days - set(runs) == ({gap} if gap else set())
    assert {d for d, n in runs.items() if n == 2} == ({overlap} if overlap else set())
    assert set(runs.values()) <= {1, 2}


def _shift(t: int, tz: ZoneInfo) -> timedelta:
    shift = datetime.fromtimestamp(t, tz).utcoffset()
    assert shift is not None
    return shift


def test_the_tables_zones_do_change_their_clocks_as_said() -> None:
    """Otherwise the table proves less than it says."""
    steps = {}
    for zone in ZONES:
        tz = ZoneInfo(zone)
        shifts = [_shift(START + h * 1800, tz) for h in range(365 * 48)]
        steps[zone] = sorted(str(abs(b - a)) for a, b in pairwise(shifts) if a != b)
    still = {z for z, s in steps.items() if not s}
    assert still == {"UTC", "Asia/Kathmandu", "Pacific/Apia"}
    assert steps["Australia/Lord_Howe"] == ["0:30:00"] * 2
    assert all(s == ["1:00:00"] * 2 for z, s in steps.items() if z not in still | {
        "Australia/Lord_Howe"})  # fmt: skip
