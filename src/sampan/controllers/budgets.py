"""What budgets are made of, for their controller: scales, counts, conditions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sampan.api.obj import Body, Obj
from sampan.control.facts import Condition
from sampan.controllers import pods as podlib
from sampan.lib.clock import parse_rfc3339, rfc3339

DELETION_TIMEOUT = 120.0  # an eviction that has not happened after so long will not


def scaled_up(value: Any, total: int) -> int:
    """A number, or a percentage of *total* rounded up."""
    if isinstance(value, str):
        return -(-int(value.removesuffix("%")) * total // 100)
    return int(value)


def desired(spec: Body, pods: int, scale: int) -> tuple[int, int]:
    """Pods expected, and how many of them are to be healthy. pods: that match; scale: that their
    controllers ask for."""
    most, least = spec.get("maxUnavailable"), spec.get("minAvailable")
    if most is not None:
        return scale, max(0, scale - scaled_up(most, scale))
    if isinstance(least, str):
        return scale, scaled_up(least, scale)
    return pods, int(least or 0)


def needs_scale(spec: Body) -> bool:
    """Whether it is reckoned from what the pods' controllers ask for."""
    return spec.get("maxUnavailable") is not None or isinstance(spec.get("minAvailable"), str)


def healthy(pods: Iterable[Obj], disrupted: Mapping[str, str]) -> int:
    """Ready pods that nobody is about to delete."""
    return sum(
        podlib.is_ready(p.body) for p in pods if not p.is_deleting and p.name not in disrupted
    )


def still_disrupted(
    pods: Iterable[Obj], status: Body, now: float
) -> tuple[dict[str, str], list[Obj]]:
    """Of the pods being evicted those that are still there and may yet go, and those that should
    have gone."""
    known: Mapping[str, str] = status.get("disruptedPods") or {}
    kept: dict[str, str] = {}
    late: list[Obj] = []
    for p in pods:
        if p.is_deleting or p.name not in known:
            continue
        if parse_rfc3339(known[p.name]) + DELETION_TIMEOUT < now:
            late.append(p)
        else:
            kept[p.name] = known[p.name]
    return kept, late


def with_condition(
    status: Body, what: Condition, now: float, *, generation: int, message: str = ""
) -> list[Body]:
    """The conditions of *status* with *what*; its time moves only with its status."""
    old = next((c for c in status.get("conditions") or () if c["type"] == what.type), None)
    since = old["lastTransitionTime"] if old and old["status"] == what.status else rfc3339(now)
    new = {
        "type": what.type, "status": what.status, "observedGeneration": generation,
        "lastTransitionTime": since, "reason": what.reason, "message": message,
    }  # fmt: skip
    return [*(c for c in status.get("conditions") or () if c["type"] != what.type), new]
