"""Validation of PodDisruptionBudgets."""

from __future__ import annotations

from sampan.api.errors import Cause
from sampan.api.obj import Body
from sampan.api.rules import selection
from sampan.api.rules.field import invalid, non_negative, not_supported
from sampan.api.rules.workload import at_most_all, int_or_percent

_POLICIES = ("AlwaysAllow", "IfHealthyBudget")
_COUNTS = ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods")


def no_disruptions() -> Body:
    """The status of a budget nobody has looked at yet: it allows nothing."""
    return dict.fromkeys(_COUNTS, 0)


def create_budget(body: Body) -> None:
    body["status"] = no_disruptions()


def validate_budget(body: Body) -> list[Cause]:
    spec: Body = body.get("spec") or {}
    least, most = spec.get("minAvailable"), spec.get("maxUnavailable")
    found: list[Cause] = []
    if least is not None and most is not None:
        found.append(invalid("spec", spec, "minAvailable and maxUnavailable cannot be both set"))
    for name, value in (("minAvailable", least), ("maxUnavailable", most)):
        path = f"spec.{name}"
        found += int_or_percent(path, value) + at_most_all(path, value)
    found += selection.label_selector("spec.selector", spec.get("selector"))
    policy = spec.get("unhealthyPodEvictionPolicy")
    if policy is not None and policy not in _POLICIES:
        found.append(not_supported("spec.unhealthyPodEvictionPolicy", policy, _POLICIES))
    return found


def validate_budget_status(new: Body, _old: Body) -> list[Cause]:
    status = new.get("status") or {}
    return [c for name in _COUNTS for c in non_negative(f"status.{name}", status.get(name))]
