"""NodeResourcesFit and NodeResourcesBalancedAllocation: what a pod requests must be left on its
node; emptier (or fuller, as told) and more evenly used nodes are better."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import ClassVar

from sampan.api.obj import Obj
from sampan.api.resizing import held_spec
from sampan.scheduler.framework import (
    OK,
    SKIP,
    NodeInfo,
    PodInfo,
    Prepared,
    Reject,
    Scoring,
    Skip,
    Verdict,
    View,
    Wake,
)
from sampan.scheduler.pods import amounts, pod_requests
from sampan.scheduler.settings import LEAST, MOST, Fit, Weights

_FULL = "Too many pods"
_BOTH: Weights = (("cpu", 1), ("memory", 1))


def lacking(requests: tuple[tuple[str, int], ...], node: NodeInfo) -> Verdict:
    """Every resource that lacks is a reason of its own. More than the node could ever give is not
    curable."""
    limit = node.allocatable.get("pods", 0)
    reasons = [_FULL] if len(node.pods) + 1 > limit else []
    curable = True
    requested, allocatable = node.requested, node.allocatable
    for name, wanted in requests:
        have = allocatable.get(name, 0)
        if wanted > have - requested.get(name, 0):
            reasons.append(f"Insufficient {name}")
            curable = curable and wanted <= have
    if not reasons:
        return OK
    return Reject(reasons[0], curable=curable, more=tuple(reasons[1:]))


def _frees(pod: PodInfo, old: Obj | None, new: Obj | None) -> bool:
    """A pod that goes frees its place, whatever it requested; one that shrinks what it gave up."""
    if old is None or new is None:
        return True
    before, after = (pod_requests(held_spec(o.body)) for o in (old, new))
    return any(after.get(name, 0) < value for name, value in before.items())


def _has_room(pod: PodInfo, old: Obj | None, new: Obj | None) -> bool:
    """The node could hold the pod if it were empty, and more than before if it changed."""
    if new is None:
        return False
    now = amounts(new.status.get("allocatable") or {})
    if not all(value <= now.get(name, 0) for name, value in pod.requests.items() if value > 0):
        return False
    if old is None:
        return True
    before = amounts(old.status.get("allocatable") or {})
    return any(now.get(n, 0) > before.get(n, 0) for n in (*pod.requests, "pods"))


_NATIVE = ("cpu", "memory", "ephemeral-storage", "pods")


def is_extended(name: str) -> bool:
    """Whether a resource is of a vendor's, not one Kubernetes itself knows."""
    return "/" in name and not name.partition("/")[0].endswith("kubernetes.io")


def _is_scalar(name: str) -> bool:
    return name not in _NATIVE


def least_allocated(used: int, have: int) -> int:
    return 0 if used > have else (have - used) * 100 // have


def most_allocated(used: int, have: int) -> int:
    return min(used, have) * 100 // have


def ratio(shape: Sequence[tuple[int, int]], use: int) -> int:
    """The score of a utilisation in percent, on the broken line through *shape*."""
    before = shape[0]
    for point in shape:
        if use <= point[0]:
            if point is shape[0]:
                return point[1]
            rise = (point[1] - before[1]) * (use - before[0])
            return before[1] + int(rise / (point[0] - before[0]))
        before = point
    return before[1]


def _usage(pod: PodInfo, node: NodeInfo, name: str, *, assumed: bool) -> tuple[int, int]:
    """(what the node's pods and this one take, what it has); assumed: of pods that do not say."""
    wanted = pod.requests.get(name, 0)
    if _is_scalar(name) and not wanted:
        return 0, 0  # who does not ask for it does not care
    have = node.allocatable.get(name, 0)
    if assumed and name == "cpu":
        return node.assumed_cpu + pod.assumed[0], have
    if assumed and name == "memory":
        return node.assumed_memory + pod.assumed[1], have
    return node.requested.get(name, 0) + wanted, have


def strategy(fit: Fit, pod: PodInfo) -> Callable[[NodeInfo], int]:
    """The score of nodes as *fit* tells."""

    def by_ratio(used: int, have: int) -> int:
        return ratio(fit.shape, 100 if used > have else used * 100 // have)

    known = {LEAST: least_allocated, MOST: most_allocated}
    points = known.get(fit.strategy, by_ratio)
    is_ratio = points is by_ratio

    def score(node: NodeInfo) -> int:
        total = weights = 0
        for name, weight in fit.resources:
            used, have = _usage(pod, node, name, assumed=True)
            if not have:
                continue
            found = points(used, have)
            if found or not is_ratio:
                total += found * weight
                weights += weight
        if not weights:
            return 0
        return math.floor(total / weights + 0.5) if is_ratio else total // weights

    return score


class NodeResourcesFit:
    """Filters by requests and number of pods; scores by LeastAllocated over CPU and memory, or as
    *fit* tells."""

    name: ClassVar[str] = "NodeResourcesFit"
    weight: ClassVar[int] = 1
    wakes: ClassVar[tuple[Wake, ...]] = (
        Wake("pods", ("MODIFIED", "DELETED"), _frees),
        Wake("nodes", ("ADDED", "MODIFIED"), _has_room),
    )

    def __init__(self, fit: Fit | None = None) -> None:
        self._fit = fit or Fit()

    def _counts(self, name: str) -> bool:
        fit = self._fit
        if not is_extended(name):
            return True
        return name not in fit.ignored and name.partition("/")[0] not in fit.ignored_groups

    def prepare(self, pod: PodInfo, view: View) -> Prepared | Reject | Skip:
        requests = tuple((n, v) for n, v in pod.requests.items() if v > 0 and self._counts(n))

        def check(node: NodeInfo) -> Verdict:
            requested, allocatable = node.requested, node.allocatable
            if len(node.pods) < allocatable.get("pods", 0):
                for name, wanted in requests:
                    if wanted > allocatable.get(name, 0) - requested.get(name, 0):
                        return lacking(requests, node)
                return OK
            return lacking(requests, node)

        return Prepared(check)

    def prepare_score(self, pod: PodInfo, view: View) -> Scoring | Skip:
        if self._fit != Fit():
            return Scoring(strategy(self._fit, pod))
        cpu, memory = pod.assumed  # the same as ``strategy`` would give, in a fraction of the time

        def score(node: NodeInfo) -> int:
            points = parts = 0
            have = node.allocatable.get("cpu", 0)
            if have:
                parts = 1
                used = node.assumed_cpu + cpu
                if used < have:
                    points = (have - used) * 100 // have
            have = node.allocatable.get("memory", 0)
            if have:
                parts += 1
                used = node.assumed_memory + memory
                if used < have:
                    points += (have - used) * 100 // have
            return points // parts if parts else 0

        return Scoring(score)


def evenness(cpu: int, cpu_of: int, memory: int, memory_of: int) -> int:
    """100 when both are used to the same part, less by half the difference of the parts."""
    if not cpu_of or not memory_of:
        return 100
    apart = abs(min(1.0, cpu / cpu_of) - min(1.0, memory / memory_of)) / 2
    return int((1 - apart) * 100)


def spread_of(parts: Sequence[float]) -> int:
    """100 less the standard deviation of the used parts."""
    if len(parts) == 2:
        apart = abs(parts[0] - parts[1]) / 2
    elif len(parts) > 2:
        mean = sum(parts) / len(parts)
        apart = math.sqrt(sum((p - mean) ** 2 for p in parts) / len(parts))
    else:
        apart = 0.0
    return int((1 - apart) * 100)


class NodeResourcesBalancedAllocation:
    """How much more evenly CPU and memory of a node are used with the pod than without it."""

    name: ClassVar[str] = "NodeResourcesBalancedAllocation"
    weight: ClassVar[int] = 1

    def __init__(self, resources: Weights = _BOTH) -> None:
        self._resources = tuple(name for name, _ in resources)

    def _of_several(self, pod: PodInfo) -> Scoring | Skip:
        if not any(pod.requests.get(name) for name in self._resources):
            return SKIP

        def score(node: NodeInfo) -> int:
            now: list[float] = []
            then: list[float] = []
            for name in self._resources:
                used, have = _usage(pod, node, name, assumed=False)
                if have:
                    then.append(min(1.0, used / have))
                    now.append(min(1.0, (used - pod.requests.get(name, 0)) / have))
            return 50 + int((50 + spread_of(then) - spread_of(now)) / 2)

        return Scoring(score)

    def prepare_score(self, pod: PodInfo, view: View) -> Scoring | Skip:
        if self._resources != ("cpu", "memory"):
            return self._of_several(pod)
        cpu, memory = pod.requests.get("cpu", 0), pod.requests.get("memory", 0)
        if not cpu and not memory:
            return SKIP

        def score(node: NodeInfo) -> int:
            cpu_of, memory_of = node.allocatable.get("cpu", 0), node.allocatable.get("memory", 0)
            cpu_now = node.requested.get("cpu", 0)
            memory_now = node.requested.get("memory", 0)
            after = evenness(cpu_now + cpu, cpu_of, memory_now + memory, memory_of)
            before = evenness(cpu_now, cpu_of, memory_now, memory_of)
            return 50 + int((50 + after - before) / 2)

        return Scoring(score)
