"""Cron schedules: what is understood, what is refused in which words, and when clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.lib import cron
from sampan.lib.cron import CronError, Every


def epoch(text: str, zone: str = "UTC") -> float:
    """Of a local time; with an offset in the text, of that."""
    at = datetime.fromisoformat(text)
    return (at if at.tzinfo else at.replace(tzinfo=ZoneInfo(zone))).timestamp()


def shown(t: float | None, zone: str = "UTC") -> str:
    return "never" if t is None else datetime.fromtimestamp(t, ZoneInfo(zone)).isoformat()


@pytest.mark.parametrize(
    ("schedule", "after", "expected"),
    [
        ("0/15 * * * *", "2012-07-09T14:45", "2012-07-09T15:00"),
        ("0/15 * * * *", "2012-07-09T14:59:59", "2012-07-09T15:00"),
        ("* * * * *", "2012-07-09T14:45:00", "2012-07-09T14:46"),
        ("20-35/15 * * * *", "2012-07-09T23:46", "2012-07-10T00:20"),
        ("5 4 1-7 * ?", "2012-07-09T00:00", "2012-08-01T04:05"),
        ("0 0 * Feb Mon", "2012-07-09T23:35", "2013-02-04T00:00"),
        ("0 0 * Feb Mon/2", "2012-07-09T23:35", "2013-02-01T00:00"),
        ("0 0 29 Feb ?", "2012-07-09T23:35", "2016-02-29T00:00"),
        ("0 0 1 1 *", "2012-12-31T23:59:45", "2013-01-01T00:00"),
        ("@hourly", "2012-07-09T14:45", "2012-07-09T15:00"),
        ("@daily", "2012-07-09T14:45", "2012-07-10T00:00"),
        ("@midnight", "2012-07-09T14:45", "2012-07-10T00:00"),
        ("@weekly", "2012-07-09T14:45", "2012-07-15T00:00"),
        ("@monthly", "2012-07-09T14:45", "2012-08-01T00:00"),
        ("@yearly", "2012-07-09T14:45", "2013-01-01T00:00"),
        ("@annually", "2012-07-09T14:45", "2013-01-01T00:00"),
        ("@every 1h30m", "2012-07-09T14:45", "2012-07-09T16:15"),
        ("@every 1.5s", "2012-07-09T14:45", "2012-07-09T14:45:01"),
        ("@every 10ms", "2012-07-09T14:45", "2012-07-09T14:45:01"),
        # Both days given as lists: either will do. One a star: both must fit.
        ("0 0 13 * Fri", "2012-07-09T00:00", "2012-07-13T00:00"),
        ("0 0 20 * Fri", "2012-07-09T00:00", "2012-07-13T00:00"),
        ("0 0 20 * *", "2012-07-09T00:00", "2012-07-20T00:00"),
        ("0 0 */2 * Mon", "2012-07-09T00:00", "2012-07-11T00:00"),
        ("0 0 * * Mon", "2012-07-09T00:00", "2012-07-16T00:00"),
        ("TZ=Asia/Tokyo 0 9 * * *", "2012-07-09T00:00", "2012-07-10T00:00"),
    ],
)
def test_next(schedule: str, after: str, expected: str) -> None:
    found = cron.parse(schedule).next(epoch(after))
    assert shown(found) == shown(epoch(expected))


@pytest.mark.parametrize("schedule", ["0 0 30 Feb ?", "0 0 31 Apr ?", "59 23 31 2 *"])
def test_days_that_never_come(schedule: str) -> None:
    assert cron.parse(schedule).next(epoch("2012-07-09T00:00")) is None


@pytest.mark.parametrize(
    ("schedule", "zone", "after", "expected"),
    [
        # Clocks go forward: hours pass over the gap; a run inside it waits for the next day.
        ("0 * * * *", "America/New_York", "2012-03-11T00:00:00-05:00",
         ["01:00:00-05:00", "03:00:00-04:00", "04:00:00-04:00"]),
        ("30 2 * * *", "America/New_York", "2012-03-10T12:00:00-05:00", ["12T02:30:00-04:00"]),
        ("30 2 11 Mar ?", "America/New_York", "2012-03-11T00:00:00-05:00",
         ["2013-03-11T02:30:00-04:00"]),
        ("0 3 * * *", "America/New_York", "2012-03-11T00:00:00-05:00", ["11T03:00:00-04:00"]),
        # Clocks go back: what falls into the doubled hour runs twice.
        ("0 * * * *", "America/New_York", "2012-11-04T00:00:00-04:00",
         ["01:00:00-04:00", "01:00:00-05:00", "02:00:00-05:00"]),
        ("0 1 * * *", "America/New_York", "2012-11-04T00:00:00-04:00",
         ["04T01:00:00-04:00", "04T01:00:00-05:00", "05T01:00:00-05:00"]),
        ("0 2 * * *", "America/New_York", "2012-11-04T00:00:00-04:00",
         ["04T02:00:00-05:00", "05T02:00:00-05:00"]),
        ("30 2 * * *", "Europe/Berlin", "2025-10-25T12:00:00+02:00",
         ["26T02:30:00+02:00", "26T02:30:00+01:00", "27T02:30:00+01:00"]),
        ("30 2 * * *", "Europe/Berlin", "2025-03-29T12:00:00+01:00", ["31T02:30:00+02:00"]),
        # Midnight itself is left out.
        ("0 0 * * *", "America/Sao_Paulo", "2018-11-03T12:00:00-03:00", ["05T00:00:00-02:00"]),
        ("0 1 * * *", "America/Sao_Paulo", "2018-11-03T12:00:00-03:00", ["04T01:00:00-02:00"]),
        ("0 5 5 11 *", "America/Sao_Paulo", "2018-11-01T00:00:00-03:00", ["05T05:00:00-02:00"]),
        # A day is left out: the zone went over to the other side of the date line.
        ("0 12 * * *", "Pacific/Apia", "2011-12-29T06:00:00-10:00",
         ["29T12:00:00-10:00", "31T12:00:00+14:00"]),
        # An offset that changes by half an hour leaves the hours at the half for that day.
        ("0 * * * *", "Australia/Lord_Howe", "2025-04-05T23:00:00+11:00",
         ["06T00:00:00+11:00", "06T01:00:00+11:00", "06T02:00:00+10:30"]),
    ],
)  # fmt: skip
def test_clocks_that_change(schedule: str, zone: str, after: str, expected: list[str]) -> None:
    t = epoch(after)
    for wanted in expected:
        found = cron.parse(schedule, zone).next(t)
        assert found is not None
        assert shown(found, zone).endswith(wanted)
        t = found


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ("", "empty spec string"),
        ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
        ("* * * * * *", "expected exactly 5 fields, found 6: [* * * * * *]"),
        ("60 * * * *", "end of range (60) above maximum (59): 60"),
        ("* * * * 7", "end of range (7) above maximum (6): 7"),
        ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
        ("5-3 * * * *", "beginning of range (5) beyond end of range (3): 5-3"),
        ("*/0 * * * *", "step of range should be a positive number: */0"),
        ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
        ("1/2/3 * * * *", "too many slashes: 1/2/3"),
        ("x * * * *",
         'failed to parse int from x: strconv.Atoi: parsing "x": invalid syntax'),
        ("-1 * * * *",
         'failed to parse int from : strconv.Atoi: parsing "": invalid syntax'),
        ("@unknown", "unrecognized descriptor: @unknown"),
        ("@every", "unrecognized descriptor: @every"),
        ("@every x",
         'failed to parse duration @every x: time: invalid duration "x"'),
        ("@every 5",
         'failed to parse duration @every 5: time: missing unit in duration "5"'),
        ("@every 5d",
         'failed to parse duration @every 5d: time: unknown unit "d" in duration "5d"'),
        ("TZ=Nowhere/At_All * * * * *",
         "provided bad location Nowhere/At_All: unknown time zone Nowhere/At_All"),
    ],
)  # fmt: skip
def test_what_is_refused(schedule: str, message: str) -> None:
    with pytest.raises(CronError) as e:
        cron.parse(schedule)
    assert str(e.value) == message


def test_every_counts_from_where_it_is_asked() -> None:
    assert Every(90).next(1000.7) == 1090


FIELD = st.sampled_from(["*", "*/7", "0", "3-9", "1,5,11", "2-10/4"])
DATES = st.sampled_from(["*", "?", "1", "13", "28-31", "*/5"])
WEEKDAYS = st.sampled_from(["*", "Mon", "1-5", "sun,sat"])
HOURS = st.sampled_from(["*", "*/6", "0", "2", "3-9", "1,23"])
ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu"])


@settings(max_examples=60, deadline=None)
@given(FIELD, HOURS, DATES, WEEKDAYS, ZONES, st.integers(1_600_000_000, 1_800_000_000))
def test_next_is_the_first_minute_that_fits(
    minute: str, hour: str, day: str, weekday: str, zone: str, after: int
) -> None:
    """Against the plainest reading of the fields: look at every minute there is."""
    schedule = cron.parse(f"{minute} {hour} {day} * {weekday}", zone)
    assert isinstance(schedule, cron.Fields)
    tz = ZoneInfo(zone)
    t = after + 60 - after % 60
    plain = None
    for _ in range(60 * 24 * 3):
        local = datetime.fromtimestamp(t, tz)
        fits = (
            local.minute in schedule.minute
            and local.hour in schedule.hour
            and schedule.is_day(local)
        )
        if fits:
            plain = t
            break
        t += 60
    found = schedule.next(after)
    assert found is None or found > after
    if plain is not None:
        assert found == plain


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York", "Asia/Tokyo"])
def test_a_year_of_hours_has_as_many_runs_as_hours(zone: str) -> None:
    start = epoch("2025-01-01T00:00", zone)
    end = epoch("2026-01-01T00:00", zone)
    runs = list(cron.times(cron.parse("0 * * * *", zone), start, end))
    assert len(runs) == 365 * 24
    assert [b - a for a, b in pairwise(runs)] == [3600.0] * (365 * 24 - 1)


@pytest.mark.parametrize(("zone", "runs"), [("UTC", 365), ("Europe/Berlin", 365)])
def test_a_year_of_days(zone: str, runs: int) -> None:
    """02:30 is left out once in spring and comes twice in autumn."""
    start = epoch("2025-01-01T00:00", zone)
    found = list(cron.times(cron.parse("30 2 * * *", zone), start, start + 365 * 86400))
    days = [datetime.fromtimestamp(t, ZoneInfo(zone)).date() for t in found]
    assert len(found) == runs
    if zone == "Europe/Berlin":
        assert datetime(2025, 3, 30, tzinfo=UTC).date() not in days
        assert days.count(datetime(2025, 10, 26, tzinfo=UTC).date()) == 2
    else:
        assert len(set(days)) == runs
        assert all(b - a == timedelta(days=1) for a, b in pairwise(days))
