"""HorizontalPodAutoscaler: defaults and validation of autoscaling/v2. Pure."""

from __future__ import annotations

from typing import Any

from sampan.api.errors import Cause
from sampan.api.obj import Body
from sampan.api.rules.field import checked, forbidden, invalid, not_supported, required
from sampan.lib import names
from sampan.lib.quantity import QuantityError, quantity

FIELDS = {
    "ContainerResource": "containerResource", "External": "external", "Object": "object",
    "Pods": "pods", "Resource": "resource",
}  # fmt: skip
_UP: Body = {
    "stabilizationWindowSeconds": 0, "selectPolicy": "Max",
    "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15},
                 {"type": "Percent", "value": 100, "periodSeconds": 15}],
}  # fmt: skip
_DOWN: Body = {
    "selectPolicy": "Max",
    "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
}
_CPU: Body = {
    "type": "Resource",
    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
}


def default(body: Body) -> None:
    """One replica at least; 80 % of requested CPU; rules of both directions once there are any."""
    spec = body.setdefault("spec", {})
    if spec.get("minReplicas") is None:
        spec["minReplicas"] = 1
    if not spec.get("metrics"):
        spec["metrics"] = [{**_CPU, "resource": {**_CPU["resource"]}}]
    behavior = spec.get("behavior")
    if behavior is not None:
        for side, rules in (("scaleUp", _UP), ("scaleDown", _DOWN)):
            given = {k: v for k, v in (behavior.get(side) or {}).items() if v is not None}
            made = {**rules, **given}
            if not given.get("policies") and "policies" not in given:
                made["policies"] = [dict(p) for p in rules["policies"]]
            behavior[side] = made


def begin(body: Body) -> None:
    """A new one's status: nothing of it is a client's."""
    body["status"] = {"desiredReplicas": 0}


def validate(body: Body) -> list[Cause]:
    spec = body.get("spec") or {}
    least, most = spec.get("minReplicas"), spec.get("maxReplicas") or 0
    found: list[Cause] = []
    if most < 1:
        found.append(invalid("spec.maxReplicas", most, "must be greater than 0"))
    if least is not None and most < least:
        text = "must be greater than or equal to `minReplicas`"
        found.append(invalid("spec.maxReplicas", most, text))
    found += _reference("spec.scaleTargetRef", spec.get("scaleTargetRef") or {})
    metrics = spec.get("metrics") or []
    for i, metric in enumerate(metrics):
        found += _metric(f"spec.metrics[{i}]", metric)
    if least == 0 and not any(m.get("type") in ("Object", "External") for m in metrics):
        text = (
            "must specify at least one Object or External metric to support scaling to zero "
            "replicas"
        )
        found.append(forbidden("spec.metrics", text))
    for side in ("scaleUp", "scaleDown"):
        rules = (spec.get("behavior") or {}).get(side)
        if rules is not None:
            found += _rules(f"spec.behavior.{side}", rules)
    return found


def validate_create(body: Body) -> list[Cause]:
    return _least(body, 1)


def validate_update(new: Body, old: Body) -> list[Cause]:
    """What was switched off by zero once may stay so (HPAScaleToZero is off, as by default)."""
    return _least(new, 0 if (old.get("spec") or {}).get("minReplicas") == 0 else 1)


def _least(body: Body, bound: int) -> list[Cause]:
    least = (body.get("spec") or {}).get("minReplicas")
    if least is None or least >= bound:
        return []
    return [invalid("spec.minReplicas", least, f"must be greater than or equal to {bound}")]


def validate_status(new: Body, _old: Body) -> list[Cause]:
    status = new.get("status") or {}
    return [
        invalid(f"status.{name}", status[name], "must be greater than or equal to 0")
        for name in ("currentReplicas", "desiredReplicas")
        if (status.get(name) or 0) < 0
    ]


def _reference(at: str, ref: Body) -> list[Cause]:
    found: list[Cause] = []
    for name in ("kind", "name"):
        value = ref.get(name) or ""
        if not value:
            found.append(required(f"{at}.{name}"))
        else:
            found += checked(f"{at}.{name}", value, names.path_segment)
    return found


def _metric(at: str, metric: Body) -> list[Cause]:
    kind = metric.get("type") or ""
    found: list[Cause] = []
    if not kind:
        found.append(required(f"{at}.type", "must specify a metric source type"))
    elif kind not in FIELDS:
        found.append(not_supported(f"{at}.type", kind, sorted(FIELDS)))
    present = [f for f in sorted(FIELDS.values()) if metric.get(f) is not None]
    for name in present[:1]:
        found += _SOURCES[name](f"{at}.{name}", metric[name])
    expected = FIELDS.get(kind, "")
    if expected and expected not in present:
        detail = "must populate information for the given metric source"
        found.append(required(f"{at}.{expected}", detail))
    if len(present) != 1:
        found += [
            forbidden(f"{at}.{name}", "must populate the given metric source only")
            for name in present
            if name != expected
        ]
    return found


def _resource(at: str, source: Body) -> list[Cause]:
    found: list[Cause] = []
    if not source.get("name"):
        found.append(required(f"{at}.name", "must specify a resource name"))
    target = source.get("target") or {}
    found += _target(f"{at}.target", target)
    share, value = target.get("averageUtilization"), target.get("averageValue")
    if share is None and value is None:
        detail = "must set either a target raw value or a target utilization"
        found.append(required(f"{at}.target.averageUtilization", detail))
    if share is not None and value is not None:
        detail = "may not set both a target raw value and a target utilization"
        found.append(forbidden(f"{at}.target.averageValue", detail))
    return found


def _container(at: str, source: Body) -> list[Cause]:
    found = _resource(at, source)
    if not source.get("container"):
        found.append(required(f"{at}.container", "must specify a container"))
    return found


def _pods(at: str, source: Body) -> list[Cause]:
    target = source.get("target") or {}
    found = _identifier(f"{at}.metric", source) + _target(f"{at}.target", target)
    if target.get("averageValue") is None:
        detail = "must specify a positive target averageValue"
        found.append(required(f"{at}.target.averageValue", detail))
    return found


def _object(at: str, source: Body) -> list[Cause]:
    target = source.get("target") or {}
    found = _reference(f"{at}.describedObject", source.get("describedObject") or {})
    found += _identifier(f"{at}.metric", source) + _target(f"{at}.target", target)
    if target.get("value") is None and target.get("averageValue") is None:
        detail = "must set either a target value or averageValue"
        found.append(required(f"{at}.target.averageValue", detail))
    return found


def _external(at: str, source: Body) -> list[Cause]:
    target = source.get("target") or {}
    found = _identifier(f"{at}.metric", source) + _target(f"{at}.target", target)
    value, share = target.get("value"), target.get("averageValue")
    if value is None and share is None:
        detail = "must set either a target value for metric or a per-pod target"
        found.append(required(f"{at}.target.averageValue", detail))
    if value is not None and share is not None:
        detail = "may not set both a target value for metric and a per-pod target"
        found.append(forbidden(f"{at}.target.value", detail))
    return found


_SOURCES = {
    "containerResource": _container, "external": _external, "object": _object, "pods": _pods,
    "resource": _resource,
}  # fmt: skip


def _identifier(at: str, source: Body) -> list[Cause]:
    name = (source.get("metric") or {}).get("name") or ""
    if not name:
        return [required(f"{at}.name", "must specify a metric name")]
    return checked(f"{at}.name", name, names.path_segment)


def _target(at: str, target: Body) -> list[Cause]:
    kind = target.get("type") or ""
    found: list[Cause] = []
    if not kind:
        found.append(required(f"{at}.type", "must specify a metric target type"))
    if kind not in ("Utilization", "Value", "AverageValue"):
        text = "must be either Utilization, Value, or AverageValue"
        found.append(invalid(f"{at}.type", kind, text))
    for name in ("value", "averageValue"):
        if target.get(name) is not None and _sign(target[name]) <= 0:
            found.append(invalid(f"{at}.{name}", str(target[name]), "must be positive"))
    share = target.get("averageUtilization")
    if share is not None and share < 1:
        found.append(invalid(f"{at}.averageUtilization", share, "must be greater than 0"))
    return found


def _sign(value: Any) -> int:
    try:
        return quantity(value).nanos
    except QuantityError:
        return 0


def _rules(at: str, rules: Body) -> list[Cause]:
    found: list[Cause] = []
    window = rules.get("stabilizationWindowSeconds")
    if window is not None and window < 0:
        text = "must be greater than or equal to zero"
        found.append(invalid(f"{at}.stabilizationWindowSeconds", window, text))
    if window is not None and window > 3600:
        text = "must be less than or equal to 3600"
        found.append(invalid(f"{at}.stabilizationWindowSeconds", window, text))
    select = rules.get("selectPolicy")
    if select is not None and select not in ("Disabled", "Max", "Min"):
        found.append(not_supported(f"{at}.selectPolicy", select, ("Disabled", "Max", "Min")))
    if not rules.get("policies"):
        found.append(required(f"{at}.policies", "must specify at least one Policy"))
    for i, policy in enumerate(rules.get("policies") or ()):
        found += _policy(f"{at}.policies[{i}]", policy)
    tolerance = rules.get("tolerance")
    if tolerance is not None and _sign(tolerance) < 0:
        text = "must be greater than or equal to 0"
        found.append(invalid(f"{at}.tolerance", str(tolerance), text))
    return found


def _policy(at: str, policy: Body) -> list[Cause]:
    found: list[Cause] = []
    if policy.get("type") not in ("Pods", "Percent"):
        found.append(not_supported(f"{at}.type", policy.get("type", ""), ("Percent", "Pods")))
    for name in ("value", "periodSeconds"):
        if (policy.get(name) or 0) <= 0:
            text = "must be greater than zero"
            found.append(invalid(f"{at}.{name}", policy.get(name) or 0, text))
    if (policy.get("periodSeconds") or 0) > 1800:
        text = "must be less than or equal to 1800"
        found.append(invalid(f"{at}.periodSeconds", policy["periodSeconds"], text))
    return found
