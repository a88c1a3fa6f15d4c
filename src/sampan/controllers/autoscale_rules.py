"""From what metrics ask for to what is done: stabilisation, rates, bounds. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from sampan.api.obj import Body

DOWN_WINDOW = 300.0
_RANGE = ("DesiredWithinRange", "the desired count is within the acceptable range")
_FEW = ("TooFewReplicas", "the desired replica count is less than the minimum replica count")
_MANY = ("TooManyReplicas", "the desired replica count is more than the maximum replica count")
_FAST_UP = (
    "ScaleUpLimit",
    "the desired replica count is increasing faster than the maximum scale rate",
)
_FAST_DOWN = (
    "ScaleDownLimit",
    "the desired replica count is decreasing faster than the maximum scale rate",
)
_UP = ("ScaleUpStabilized",
       "recent recommendations were lower than current one, applying the lowest recent "
       "recommendation")  # fmt: skip
_DOWN = ("ScaleDownStabilized",
         "recent recommendations were higher than current one, applying the highest recent "
         "recommendation")  # fmt: skip
_READY = ("ReadyForNewScale", "recommended size matches current size")

STABLE = (_READY, _UP, _DOWN)
LIMITS = (_RANGE, _FEW, _MANY, _FAST_UP, _FAST_DOWN)


@dataclass(slots=True)
class Memory:
    """What is remembered of one autoscaler: (time, replicas) recommended, and (time, change) of
    what was done."""

    recommended: list[tuple[float, int]] = field(default_factory=list)
    added: list[tuple[float, int]] = field(default_factory=list)
    removed: list[tuple[float, int]] = field(default_factory=list)

    def begin(self, now: float, replicas: int) -> None:
        if not self.recommended:
            self.recommended.append((now, replicas))

    def done(self, now: float, before: int, after: int, behavior: Body | None) -> None:
        if behavior is None:
            return
        side, events = ("scaleUp", self.added) if after > before else ("scaleDown", self.removed)
        oldest = now - _longest(behavior[side])
        events[:] = [*(e for e in events if e[0] >= oldest), (now, abs(after - before))]


@dataclass(frozen=True, slots=True)
class Ruling:
    """desired; the reason and message of AbleToScale; whether, why and in which words it is
    limited."""

    desired: int
    able: tuple[str, str]
    limited: bool
    limit: tuple[str, str]


def rule(
    memory: Memory, now: float, *, current: int, wanted: int, least: int, most: int,
    behavior: Body | None,
) -> Ruling:  # fmt: skip
    """What becomes of a recommendation; it is remembered."""
    if behavior is None:
        stable, able = _stable(memory, now, wanted), _READY
        if stable != wanted:
            able = _DOWN
        desired, limit = _bounded(current, stable, least, most)
    else:
        stable, able = _stable_by(memory, now, current, wanted, behavior)
        desired, limit = _rated(memory, now, current, stable, least, most, behavior)
    return Ruling(desired, able, desired != stable, limit)


def _stable(memory: Memory, now: float, wanted: int) -> int:
    recent = [r for at, r in memory.recommended if at > now - DOWN_WINDOW]
    _remember(memory, now, wanted, DOWN_WINDOW)
    return max([wanted, *recent])


def _remember(memory: Memory, now: float, wanted: int, window: float) -> None:
    memory.recommended[:] = [*(r for r in memory.recommended if r[0] > now - window), (now, wanted)]


def _bounded(current: int, wanted: int, least: int, most: int) -> tuple[int, tuple[str, str]]:
    limit = max(2 * current, 4)
    allowed, why = (limit, _FAST_UP) if most > limit else (most, _MANY)
    if wanted < least:
        return least, _FEW
    return (allowed, why) if wanted > allowed else (wanted, _RANGE)


def _window(rules: Body, default: float) -> float:
    given = rules.get("stabilizationWindowSeconds")
    return default if given is None else float(given)


def _stable_by(
    memory: Memory, now: float, current: int, wanted: int, behavior: Body
) -> tuple[int, tuple[str, str]]:
    up, down = _window(behavior["scaleUp"], 0.0), _window(behavior["scaleDown"], DOWN_WINDOW)
    low = min([wanted, *(r for at, r in memory.recommended if at > now - up)])
    high = max([wanted, *(r for at, r in memory.recommended if at > now - down)])
    _remember(memory, now, wanted, max(up, down))
    stable = min(max(current, low), high)
    if stable == wanted:
        return stable, _READY
    return stable, _UP if wanted >= current else _DOWN


def _longest(rules: Body) -> float:
    return float(max((p["periodSeconds"] for p in rules.get("policies") or ()), default=0))


def _change(events: Iterable[tuple[float, int]], now: float, seconds: float) -> int:
    return sum(change for at, change in events if at > now - seconds)


def _limit(memory: Memory, now: float, current: int, rules: Body, *, up: bool) -> int:
    select = rules.get("selectPolicy") or "Max"
    if select == "Disabled":
        return current
    proposed: list[int] = []
    for policy in rules.get("policies") or ():
        seconds, value = policy["periodSeconds"], policy["value"]
        start = current - _change(memory.added, now, seconds)
        start += _change(memory.removed, now, seconds)
        if policy["type"] == "Pods":
            proposed.append(start + value if up else start - value)
        elif up:
            proposed.append(math.ceil(start * (100 + value) / 100))
        else:
            proposed.append(int(start * (100 - value) / 100))
    largest = (select == "Max") is up
    return _pick(proposed, current, largest=largest)


def _pick(proposed: Sequence[int], current: int, *, largest: bool) -> int:
    if not proposed:
        return current
    return max(proposed) if largest else min(proposed)


def _rated(
    memory: Memory, now: float, current: int, wanted: int, least: int, most: int, behavior: Body
) -> tuple[int, tuple[str, str]]:
    if wanted > current:
        limit = max(current, _limit(memory, now, current, behavior["scaleUp"], up=True))
        allowed, why = (limit, _FAST_UP) if most > limit else (most, _MANY)
        if wanted > allowed:
            return allowed, why
    elif wanted < current:
        limit = min(current, _limit(memory, now, current, behavior["scaleDown"], up=False))
        allowed, why = (limit, _FAST_DOWN) if least < limit else (least, _FEW)
        if wanted < allowed:
            return allowed, why
    return wanted, _RANGE
