"""Durations as Kubernetes prints them for people, and as people write them."""

from __future__ import annotations

import re

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def parse(text: str) -> float:
    """Seconds of ``90s``, ``1h30m``, ``-1.5h``, ``250ms``, ``2d``. Raises ValueError."""
    sign = -1.0 if text.startswith("-") else 1.0
    rest = text.removeprefix("-")
    parts = _PART.findall(rest)
    if not parts or "".join(n + u for n, u in parts) != rest:
        raise ValueError(f"{text!r} is not a duration")
    return sign * sum(float(number) * _UNITS[unit] for number, unit in parts)


def human(seconds: float) -> str:
    """A span with at most two units, coarser the longer it is (``119s``, ``2m3s``, ``3h``, ``8d``).

    Up to two seconds of clock skew into the future count as now.
    """
    s = int(seconds)
    if s < -1:
        return "<invalid>"
    if s < 0:
        return "0s"
    if s < 120:
        return f"{s}s"
    minutes, hours = s // 60, s // 3600
    if minutes < 10:
        return _two(minutes, "m", s % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    days = hours // 24
    if hours < 24 * 8:
        return _two(days, "d", hours % 24, "h")
    if hours < 24 * 365 * 2:
        return f"{days}d"
    if hours < 24 * 365 * 8:
        return _two(days // 365, "y", days % 365, "d")
    return f"{days // 365}y"


def _two(big: int, big_unit: str, small: int, small_unit: str) -> str:
    return f"{big}{big_unit}{small}{small_unit}" if small else f"{big}{big_unit}"
