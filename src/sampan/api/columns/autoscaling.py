"""Columns of HorizontalPodAutoscaler."""

from __future__ import annotations

from sampan.api.columns.cells import AGE, NAME, UNKNOWN, UNSET, dig, number
from sampan.api.obj import Body
from sampan.api.resource import Column
from sampan.api.rules.autoscaling import FIELDS

_SHOWN = 2


def _pair(metric: Body, current: Body) -> str:
    kind = metric.get("type", "")
    source = metric.get(FIELDS.get(kind, "")) or {}
    target, now = source.get("target") or {}, current
    if target.get("averageUtilization") is not None:
        share = now.get("averageUtilization")
        have = UNKNOWN if share is None else f"{share}%"
        text = f"{have}/{target['averageUtilization']}%"
    elif target.get("averageValue") is not None:
        suffix = " (avg)" if kind in ("Object", "External") else ""
        text = f"{now.get('averageValue', UNKNOWN)}/{target['averageValue']}{suffix}"
    else:
        text = f"{now.get('value', UNKNOWN)}/{target.get('value', UNSET)}"
    return (
        f"{source.get('name', '')}: {text}" if kind in ("Resource", "ContainerResource") else text
    )


def _targets(body: Body, _now: float) -> str:
    metrics = dig(body, "spec.metrics", [])
    if not metrics:
        return "<none>"
    current = dig(body, "status.currentMetrics", [])
    found: list[str] = []
    for i, metric in enumerate(metrics):
        held = current[i] if i < len(current) else {}
        source = held.get(FIELDS.get(metric.get("type", ""), "")) or {}
        found.append(_pair(metric, source.get("current") or {}))
    text = ", ".join(found[:_SHOWN])
    more = len(found) - _SHOWN
    return f"{text} + {more} more..." if more > 0 else text


def _reference(body: Body, _now: float) -> str:
    ref = dig(body, "spec.scaleTargetRef", {})
    return f"{ref.get('kind', '')}/{ref.get('name', '')}"


def _least(body: Body, _now: float) -> str:
    least = dig(body, "spec.minReplicas")
    return UNSET if least is None else str(least)


HORIZONTAL_POD_AUTOSCALER = (
    NAME,
    Column("Reference", _reference, description="What it scales."),
    Column("Targets", _targets, description="Metrics: current / wanted."),
    Column("MinPods", _least, description="The fewest replicas."),
    number("MaxPods", "spec.maxReplicas", about="The most replicas."),
    number("Replicas", "status.currentReplicas", about="Replicas as last seen."),
    AGE,
)
