"""Which pods of a set go first when there are too many: upstream's ranking, whole."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

from sampan.api.obj import Body, Obj
from sampan.controllers import pods as podlib
from sampan.lib.clock import parse_rfc3339

COST = "controller.kubernetes.io/pod-deletion-cost"
_PHASES = {"Pending": 0, "Unknown": 1}


def rank_victims(pods: Sequence[Body], related: Sequence[Obj], now: float) -> list[Body]:
    """*pods* in the order in which they are to be deleted: unassigned, pending, not ready, cheap,
    crowded on their node (by pods of *related*), ready for a short time, often restarted, young
    ones first. Times compare by order of magnitude; where that decides nothing, the uid does, so
    that victims are spread among pods of like age."""
    crowd: dict[str, int] = {}
    for p in related:
        node = p.spec.get("nodeName")
        if node and podlib.is_active(p.body):
            crowd[node] = crowd.get(node, 0) + 1

    def order(a: Body, b: Body) -> int:
        before, after = _plain(a, crowd), _plain(b, crowd)
        if before != after:
            return -1 if before < after else 1
        if podlib.is_ready(a) and (
            told := _by_age(a, b, podlib.ready_since(a), podlib.ready_since(b), now)
        ):
            return told
        if (ra := _restarts(a)) != (rb := _restarts(b)):
            return -1 if ra < rb else 1
        return _by_age(a, b, _born(a), _born(b), now) or _by_uid(a, b)

    return sorted(pods, key=functools.cmp_to_key(order))


def _plain(pod: Body, crowd: dict[str, int]) -> tuple[int, ...]:
    node = pod["spec"].get("nodeName", "")
    phase = _PHASES.get((pod.get("status") or {}).get("phase", ""), 2)
    ready = 1 if podlib.is_ready(pod) else 0
    return (1 if node else 0, phase, ready, _cost(pod), -crowd.get(node, 0))


def _cost(pod: Body) -> int:
    try:
        return int((pod["metadata"].get("annotations") or {}).get(COST, 0))
    except ValueError:
        return 0


def _born(pod: Body) -> float | None:
    at = pod["metadata"].get("creationTimestamp")
    return parse_rfc3339(at) if at else None


def _restarts(pod: Body) -> tuple[int, int]:
    """Most restarts of a container, then of a sidecar, so that more sorts first."""
    status, spec = pod.get("status") or {}, pod["spec"]
    always = {c["name"] for c in spec.get("initContainers") or ()
              if c.get("restartPolicy") == "Always"}  # fmt: skip
    plain = [c.get("restartCount", 0) for c in status.get("containerStatuses") or ()]
    beside = [
        c.get("restartCount", 0)
        for c in status.get("initContainerStatuses") or ()
        if c.get("name") in always
    ]
    return -max(plain, default=0), -max(beside, default=0)


def _by_age(a: Body, b: Body, at_a: float | None, at_b: float | None, now: float) -> int:
    """The younger of two times first; no time at all comes before any."""
    if at_a == at_b:
        return 0
    if at_a is None or at_b is None:
        return -1 if at_a is None else 1
    ages = _magnitude(now - at_a), _magnitude(now - at_b)
    return ages[0] - ages[1] or _by_uid(a, b)


def _magnitude(seconds: float) -> int:
    return int(math.log2(seconds * 1e9)) if seconds > 0 else -1


def _by_uid(a: Body, b: Body) -> int:
    ua, ub = str(a["metadata"].get("uid", "")), str(b["metadata"].get("uid", ""))
    return (ua > ub) - (ua < ub)
