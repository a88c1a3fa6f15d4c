"""autoscaling/v1: the older shape of an autoscaler. What it has no fields for is kept in
annotations, in the words upstream keeps them in."""

from __future__ import annotations

from typing import Any

import orjson

from sampan.api.obj import Body

_PREFIX = "autoscaling.alpha.kubernetes.io/"
METRICS, CURRENT = f"{_PREFIX}metrics", f"{_PREFIX}current-metrics"
CONDITIONS, BEHAVIOR = f"{_PREFIX}conditions", f"{_PREFIX}behavior"
_NOTES = (METRICS, CURRENT, CONDITIONS, BEHAVIOR)
FIELDS = {"metadata.name": "metadata.name", "metadata.namespace": "metadata.namespace"}
# (source, its name of v2's target or current value) -> v1's name of it
_KINDS = ("resource", "containerResource", "pods", "object", "external")


def _is_cpu(metric: Body, value: str) -> bool:
    source = metric.get("resource") or {}
    held = (source.get(value) or {}).get("averageUtilization")
    return metric.get("type") == "Resource" and source.get("name") == "cpu" and held is not None


def _named(kind: str, word: str) -> dict[str, str]:
    """v2's names of values -> v1's, for one kind of source; word: target or current."""
    names = {"averageUtilization": f"{word}AverageUtilization",
             "averageValue": f"{word}AverageValue", "value": f"{word}Value"}  # fmt: skip
    if kind == "object":
        names["averageValue"] = "averageValue"
    return names


def _old(metric: Body, word: str) -> Body:
    """A metric of v2 (its spec: word target; its status: word current) as v1 writes it."""
    made: Body = {"type": metric["type"]}
    for kind in _KINDS:
        source = metric.get(kind)
        if source is None:
            continue
        values = source.get("target" if word == "target" else "current") or {}
        old: Body = {k: source[k] for k in ("name", "container") if k in source}
        old |= {v: values[k] for k, v in _named(kind, word).items() if values.get(k) is not None}
        identifier = source.get("metric")
        if identifier is not None:
            old["metricName"] = identifier["name"]
            if identifier.get("selector") is not None:
                label = "metricSelector" if kind == "external" else "selector"
                old[label] = identifier["selector"]
        if "describedObject" in source:
            old["target"] = source["describedObject"]
            if word == "target":
                old.setdefault("targetValue", "0")
        made[kind] = old
    return made


def _new(metric: Body, word: str) -> Body:
    """The inverse of ``_old``."""
    made: Body = {"type": metric.get("type", "")}
    for kind in _KINDS:
        old = metric.get(kind)
        if old is None:
            continue
        source: Body = {k: old[k] for k in ("name", "container") if k in old}
        values: Body = {k: old[v] for k, v in _named(kind, word).items() if v in old}
        if kind == "object" and "averageValue" in values:
            values.pop("value", None)
        if word == "target":
            share = "averageUtilization" in values
            average = "averageValue" in values
            values["type"] = "Utilization" if share else "AverageValue" if average else "Value"
        source["target" if word == "target" else "current"] = values
        if "metricName" in old:
            identifier: Body = {"name": old["metricName"]}
            selector = old.get("metricSelector", old.get("selector"))
            if selector is not None:
                identifier["selector"] = selector
            source["metric"] = identifier
        if "target" in old:
            source["describedObject"] = old["target"]
        made[kind] = source
    return made


def _upper(value: Any) -> Any:
    """Field names as upstream's internal types have them."""
    if isinstance(value, dict):
        return {k[:1].upper() + k[1:]: _upper(v) for k, v in value.items()}
    return [_upper(v) for v in value] if isinstance(value, list) else value


def _lower(value: Any) -> Any:
    if isinstance(value, dict):
        return {k[:1].lower() + k[1:]: _lower(v) for k, v in value.items() if v is not None}
    return [_lower(v) for v in value] if isinstance(value, list) else value


def shown(body: Body) -> Body:
    """An autoscaler of v2 in the shape of v1."""
    spec, status = body.get("spec") or {}, body.get("status") or {}
    metrics, current = spec.get("metrics") or [], status.get("currentMetrics") or []
    old: Body = {k: spec[k] for k in ("minReplicas", "maxReplicas", "scaleTargetRef") if k in spec}
    cpu = next((m for m in metrics if _is_cpu(m, "target")), None)
    if cpu is not None:
        share = cpu["resource"]["target"]["averageUtilization"]
        old["targetCPUUtilizationPercentage"] = share
    told: Body = {"currentReplicas": 0, "desiredReplicas": 0}
    told |= {k: v for k, v in status.items() if k not in ("currentMetrics", "conditions")}
    used = next((m for m in current if _is_cpu(m, "current")), None)
    if used is not None:
        share = used["resource"]["current"]["averageUtilization"]
        told["currentCPUUtilizationPercentage"] = share
    rest = [_old(m, "target") for m in metrics if not _is_cpu(m, "target")]
    notes = {
        METRICS: rest, CURRENT: [_old(m, "current") for m in current],
        CONDITIONS: status.get("conditions"), BEHAVIOR: _upper(spec.get("behavior")),
    }  # fmt: skip
    meta = dict(body.get("metadata") or {})
    kept = {k: v for k, v in (meta.get("annotations") or {}).items() if k not in _NOTES}
    kept |= {k: orjson.dumps(v).decode() for k, v in notes.items() if v}
    meta.pop("annotations", None)
    if kept:
        meta["annotations"] = kept
    return {"kind": "HorizontalPodAutoscaler", "apiVersion": "autoscaling/v1", "metadata": meta,
            "spec": old, "status": told}  # fmt: skip


def _note(notes: Body, name: str) -> Any:
    """What an annotation holds; one that cannot be read holds nothing."""
    try:
        return orjson.loads(notes[name]) if name in notes else None
    except orjson.JSONDecodeError:
        return None


def stored(body: Body) -> Body:
    """An autoscaler of v1 in the shape of v2."""
    spec, status = body.get("spec") or {}, body.get("status") or {}
    meta = dict(body.get("metadata") or {})
    notes = meta.get("annotations") or {}
    new: Body = {k: spec[k] for k in ("minReplicas", "maxReplicas", "scaleTargetRef") if k in spec}
    metrics = [_new(m, "target") for m in _note(notes, METRICS) or ()]
    share = spec.get("targetCPUUtilizationPercentage")
    if share is not None:
        target = {"type": "Utilization", "averageUtilization": share}
        metrics.append({"type": "Resource", "resource": {"name": "cpu", "target": target}})
    if metrics:
        new["metrics"] = metrics
    behavior = _lower(_note(notes, BEHAVIOR))
    if behavior:
        new["behavior"] = behavior
    told: Body = {k: v for k, v in status.items() if k != "currentCPUUtilizationPercentage"}
    current = [_new(m, "current") for m in _note(notes, CURRENT) or ()]
    used = status.get("currentCPUUtilizationPercentage")
    if not current and used is not None:
        value = {"averageUtilization": used}
        current = [{"type": "Resource", "resource": {"name": "cpu", "current": value}}]
    if current:
        told["currentMetrics"] = current
    conditions = _note(notes, CONDITIONS)
    if conditions:
        told["conditions"] = conditions
    kept = {k: v for k, v in notes.items() if k not in _NOTES}
    meta.pop("annotations", None)
    if kept:
        meta["annotations"] = kept
    return {"kind": "HorizontalPodAutoscaler", "apiVersion": "autoscaling/v2", "metadata": meta,
            "spec": new, "status": told}  # fmt: skip
