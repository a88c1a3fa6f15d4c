"""NodeResourcesFit and NodeResourcesBalancedAllocation: what a pod requests must be left on its
node; emptier and more evenly used nodes are better."""

from __future__ import annotations

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

_FULL = "Too many pods"


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


class NodeResourcesFit:
    """Filters by requests and number of pods; scores by LeastAllocated over CPU and memory."""

    name: ClassVar[str] = "NodeResourcesFit"
    weight: ClassVar[int] = 1
    wakes: ClassVar[tuple[Wake, ...]] = (
        Wake("pods", ("MODIFIED", "DELETED"), _frees),
        Wake("nodes", ("ADDED", "MODIFIED"), _has_room),
    )

    def prepare(self, pod: PodInfo, view: View) -> Prepared | Reject | Skip:
        requests = tuple((n, v) for n, v in pod.requests.items() if v > 0)

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
        cpu, memory = pod.assumed

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


class NodeResourcesBalancedAllocation:
    """How much more evenly CPU and memory of a node are used with the pod than without it."""

    name: ClassVar[str] = "NodeResourcesBalancedAllocation"
    weight: ClassVar[int] = 1

    def prepare_score(self, pod: PodInfo, view: View) -> Scoring | Skip:
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
