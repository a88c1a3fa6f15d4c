"""Wall-clock time as an input. Sleeping is ``asyncio.sleep``: the loop is real or virtual."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol


class Clock(Protocol):
    def now(self) -> float:
        """Seconds since the epoch."""
        ...


class RealClock:
    """The machine's wall clock."""

    def now(self) -> float:
        return time.time()


def rfc3339(t: float) -> str:
    """metav1.Time: whole seconds, UTC (``2026-01-02T03:04:05Z``)."""
    return _second(int(t))


@lru_cache(maxsize=64)  # every write says what time it is, several times
def _second(t: int) -> str:
    return datetime.fromtimestamp(t, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def rfc3339_micro(t: float) -> str:
    """metav1.MicroTime: six digits (``2026-01-02T03:04:05.000006Z``)."""
    return datetime.fromtimestamp(t, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_rfc3339(text: str) -> float:
    """Seconds since the epoch of an RFC 3339 time. Raises ValueError."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
