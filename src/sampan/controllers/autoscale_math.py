"""How many replicas a metric asks for (kubernetes.io HorizontalPodAutoscaler). Pure.

Amounts are in thousandths. Pods that are not ready, or have no metric, hold a decision back: what
is missing is taken to use all it may when that speaks for fewer replicas, and nothing when it
speaks for more."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from sampan.api.obj import Body
from sampan.lib.clock import parse_rfc3339
from sampan.lib.quantity import Quantity, quantity

CPU_INITIALIZATION = 300.0
INITIAL_READINESS = 30.0
DEFAULT_TOLERANCE = Fraction(1, 10)
_MOST = 2**31 - 1
_ENDED = ("Failed", "Succeeded")
NO_PODS = "no pods returned by selector while calculating replica count"


class NoMetric(Exception):
    """A metric that cannot be had or used; the text is what conditions and events say."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One pod's value and what it was measured over."""

    value: int
    at: float = 0.0
    window: float = 60.0


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far a ratio may be from one without a change of replicas."""

    down: Fraction = DEFAULT_TOLERANCE
    up: Fraction = DEFAULT_TOLERANCE

    def covers(self, ratio: Fraction) -> bool:
        return 1 - self.down <= ratio <= 1 + self.up


def tolerance_of(behavior: Body | None) -> Tolerance:
    def side(name: str) -> Fraction:
        given = ((behavior or {}).get(name) or {}).get("tolerance")
        return DEFAULT_TOLERANCE if given is None else quantity(given).value

    return Tolerance(side("scaleDown"), side("scaleUp"))


@dataclass(frozen=True, slots=True)
class Groups:
    ready: int
    unready: frozenset[str]
    missing: frozenset[str]
    ignored: frozenset[str]


def grouped(
    pods: Sequence[Body], samples: Mapping[str, Sample], now: float, *, is_cpu: bool
) -> Groups:
    """Which pods speak for themselves. Of CPU, a pod that is still starting does not."""
    ready, unready, missing, ignored = 0, set(), set(), set()
    for pod in pods:
        name, status = pod["metadata"]["name"], pod.get("status") or {}
        if "deletionTimestamp" in pod["metadata"] or status.get("phase") in _ENDED:
            ignored.add(name)
        elif status.get("phase", "Pending") == "Pending":
            unready.add(name)
        elif name not in samples:
            missing.add(name)
        elif is_cpu and _is_starting(status, samples[name], now):
            unready.add(name)
        else:
            ready += 1
    return Groups(ready, frozenset(unready), frozenset(missing), frozenset(ignored))


def _is_starting(status: Body, sample: Sample, now: float) -> bool:
    conditions = status.get("conditions") or ()
    ready = next((c for c in conditions if c["type"] == "Ready"), None)
    if ready is None or not status.get("startTime"):
        return True
    start, turned = parse_rfc3339(status["startTime"]), _turned(ready)
    if start + CPU_INITIALIZATION > now:
        return ready["status"] == "False" or sample.at < turned + sample.window
    return ready["status"] == "False" and start + INITIAL_READINESS > turned


def _turned(condition: Body) -> float:
    at = condition.get("lastTransitionTime")
    return parse_rfc3339(at) if at else 0.0


def requests_of(pods: Sequence[Body], resource: str, container: str) -> dict[str, int]:
    """What each pod asks for. Raises NoMetric for a container that does not say."""
    found: dict[str, int] = {}
    for pod in pods:
        spec, name = pod["spec"], pod["metadata"]["name"]
        whole = ((spec.get("resources") or {}).get("requests") or {}).get(resource)
        if whole is not None and not container:
            found[name] = quantity(whole).millis
            continue
        sidecars = [
            c for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"
        ]
        total, seen = 0, not container
        for c in (*(spec.get("containers") or ()), *sidecars):
            if container and c["name"] != container:
                continue
            asked = ((c.get("resources") or {}).get("requests") or {}).get(resource)
            if asked is None:
                raise NoMetric(
                    f"missing request for {resource} in container {c['name']} of Pod {name}"
                )
            total, seen = total + quantity(asked).millis, True
        if not seen:
            raise NoMetric(f"container {container} not found in Pod {name}")
        found[name] = total
    return found


@dataclass(frozen=True, slots=True)
class Proposal:
    """replicas; utilization in per cent of requests (None for raw targets); average: a pod's mean
    value."""

    replicas: int
    average: int
    utilization: int | None = None


def by_utilization(
    *, current: int, target: int, pods: Sequence[Body], samples: Mapping[str, Sample],
    requests: Mapping[str, int], now: float, tolerance: Tolerance, is_cpu: bool,
) -> Proposal:  # fmt: skip
    """For a target in per cent of what is asked for. Raises NoMetric."""

    def mean(values: Mapping[str, int]) -> tuple[int, int]:
        held = {n: v for n, v in values.items() if n in requests}
        asked = sum(requests[n] for n in held)
        if not asked:
            raise NoMetric("no metrics returned matched known pods")
        return sum(held.values()) * 100 // asked, sum(held.values()) // len(held)

    def ratio(values: Mapping[str, int]) -> Fraction:
        return Fraction(mean(values)[0], target)

    full = max(100, target)
    fallback = {n: v * full // 100 for n, v in requests.items()}
    groups, values = _spoken(pods, samples, now, is_cpu=is_cpu)
    utilization, average = mean(values)
    replicas = _replicas(current, groups, values, ratio, fallback, tolerance)
    return Proposal(replicas, average, utilization)


def by_value(
    *, current: int, target: int, pods: Sequence[Body], samples: Mapping[str, Sample],
    now: float, tolerance: Tolerance, is_cpu: bool,
) -> Proposal:  # fmt: skip
    """For a target in a pod's mean value. Raises NoMetric."""

    def ratio(values: Mapping[str, int]) -> Fraction:
        return Fraction(sum(values.values()) // len(values), target)

    groups, values = _spoken(pods, samples, now, is_cpu=is_cpu)
    fallback = {p["metadata"]["name"]: target for p in pods}
    replicas = _replicas(current, groups, values, ratio, fallback, tolerance)
    return Proposal(replicas, sum(values.values()) // len(values))


def _spoken(
    pods: Sequence[Body], samples: Mapping[str, Sample], now: float, *, is_cpu: bool
) -> tuple[Groups, dict[str, int]]:
    if not pods:
        raise NoMetric(NO_PODS)
    groups = grouped(pods, samples, now, is_cpu=is_cpu)
    silent = groups.ignored | groups.unready
    values = {n: s.value for n, s in samples.items() if n not in silent}
    if not values:
        raise NoMetric("did not receive metrics for targeted pods (pods might be unready)")
    return groups, values


def _replicas(
    current: int, groups: Groups, values: dict[str, int],
    ratio_of: Callable[[Mapping[str, int]], Fraction], fallback: Mapping[str, int],
    tolerance: Tolerance,
) -> int:  # fmt: skip
    ratio = ratio_of(values)
    with_unready = bool(groups.unready) and ratio > 1
    if not with_unready and not groups.missing:
        return current if tolerance.covers(ratio) else math.ceil(ratio * groups.ready)
    values = dict(values)
    if ratio < 1:
        values |= {n: fallback[n] for n in groups.missing}
    elif ratio > 1:
        values |= dict.fromkeys(groups.missing, 0)
    if with_unready:
        values |= dict.fromkeys(groups.unready, 0)
    again = ratio_of(values)
    if tolerance.covers(again) or (ratio < 1 < again) or (again < 1 < ratio):
        return current
    wanted = math.ceil(again * len(values))
    if (again < 1 and wanted > current) or (again > 1 and wanted < current):
        return current
    return wanted


def by_total(
    *, current: int, target: int, total: int, pods: Sequence[Body], tolerance: Tolerance
) -> int:
    """Replicas for a target that all pods together have to do with. Raises NoMetric."""
    ratio = Fraction(total, target)
    if not current:
        return min(math.ceil(ratio), _MOST)
    if tolerance.covers(ratio):
        return current
    if not pods:
        raise NoMetric(f"unable to calculate ready pods: {NO_PODS}")
    return min(math.ceil(ratio * sum(map(_is_ready, pods))), _MOST)


def by_share(*, counted: int, target: int, total: int, tolerance: Tolerance) -> tuple[int, int]:
    """Replicas for a target that each pod has to do with, and what each of the *counted* has now,
    rounded up."""
    is_near = bool(counted) and tolerance.covers(Fraction(total, target * counted))
    replicas = counted if is_near else min(math.ceil(Fraction(total, target)), _MOST)
    return replicas, math.ceil(Fraction(total, counted)) if counted else 0


def _is_ready(pod: Body) -> bool:
    status = pod.get("status") or {}
    return status.get("phase") == "Running" and any(
        c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or ()
    )


def shown(resource: str, millis: int) -> str:
    """An amount of a resource in thousandths, as the status shows it."""
    return str(Quantity.of(Fraction(millis, 1000), "binary" if resource == "memory" else "decimal"))
