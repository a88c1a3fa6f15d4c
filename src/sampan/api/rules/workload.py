"""Validation of Deployments and ReplicaSets."""

from __future__ import annotations

from typing import Any

from sampan.api.errors import Cause
from sampan.api.obj import Body
from sampan.api.rules import selection
from sampan.api.rules.field import (
    Raw,
    forbidden,
    immutable,
    invalid,
    non_negative,
    not_supported,
    required,
)
from sampan.api.rules.podspec import validate_template
from sampan.lib import names
from sampan.lib.selectors import SelectorError, from_label_selector

_COUNTS = ("replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas",
           "updatedReplicas", "unavailableReplicas", "terminatingReplicas")  # fmt: skip


def validate_deployment(body: Body) -> list[Cause]:
    spec: Body = body.get("spec") or {}
    found = non_negative("spec.replicas", spec.get("replicas"))
    found += _selector(spec)
    found += _template(spec, "Deployment")
    found += _strategy("spec.strategy", spec.get("strategy") or {})
    found += non_negative("spec.minReadySeconds", spec.get("minReadySeconds"))
    found += non_negative("spec.revisionHistoryLimit", spec.get("revisionHistoryLimit"))
    deadline = spec.get("progressDeadlineSeconds")
    if deadline is not None:
        found += non_negative("spec.progressDeadlineSeconds", deadline)
        if deadline <= (spec.get("minReadySeconds") or 0):
            found.append(
                invalid(
                    "spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds"
                )
            )
    return found


def validate_replica_set(body: Body) -> list[Cause]:
    spec: Body = body.get("spec") or {}
    found = non_negative("spec.replicas", spec.get("replicas"))
    found += non_negative("spec.minReadySeconds", spec.get("minReadySeconds"))
    found += _selector(spec)
    return found + _template(spec, "ReplicaSet")


def same_selector(new: Body, old: Body) -> list[Cause]:
    """spec.selector never changes."""
    after, before = (new.get("spec") or {}).get("selector"), (old.get("spec") or {}).get("selector")
    return immutable("spec.selector", after, before)


def validate_status(new: Body, old: Body) -> list[Cause]:
    """Counts are not negative and no part is more than the whole."""
    after, before = new.get("status") or {}, old.get("status") or {}
    found: list[Cause] = []
    for name in (*_COUNTS, "observedGeneration"):
        found += non_negative(f"status.{name}", after.get(name))
    total = after.get("replicas") or 0
    for name in ("fullyLabeledReplicas", "readyReplicas", "availableReplicas", "updatedReplicas"):
        if (after.get(name) or 0) > total:
            found.append(
                invalid(f"status.{name}", after[name], "cannot be greater than status.replicas")
            )
    if (after.get("availableReplicas") or 0) > (after.get("readyReplicas") or 0):
        found.append(
            invalid(
                "status.availableReplicas", after["availableReplicas"],
                "cannot be greater than readyReplicas",
            )
        )  # fmt: skip
    collisions = after.get("collisionCount")
    if before.get("collisionCount") is not None:
        if collisions is None or collisions < before["collisionCount"]:
            found.append(invalid("status.collisionCount", collisions, "cannot be decremented"))
    return found


def _selector(spec: Body) -> list[Cause]:
    selector = spec.get("selector")
    if selector is None:
        return [required("spec.selector")]
    found = selection.label_selector("spec.selector", selector)
    if not selector.get("matchLabels") and not selector.get("matchExpressions"):
        found.append(invalid("spec.selector", selector, "empty selector is invalid for deployment"))
    return found


def _template(spec: Body, kind: str) -> list[Cause]:
    template = spec.get("template")
    if not template:
        return [required("spec.template")]
    found: list[Cause] = []
    labels = (template.get("metadata") or {}).get("labels") or {}
    try:
        selector = from_label_selector(spec.get("selector"))
    except SelectorError:
        selector = None
    if selector is not None and not selector.is_empty and not selector.matches(labels):
        found.append(
            invalid(
                "spec.template.metadata.labels", labels or None,
                "`selector` does not match template `labels`",
            )
        )  # fmt: skip
    found += validate_template(template, "spec.template")
    inner = template.get("spec") or {}
    policy = inner.get("restartPolicy")
    if policy in ("OnFailure", "Never"):
        found.append(not_supported("spec.template.spec.restartPolicy", policy, ("Always",)))
    if inner.get("activeDeadlineSeconds") is not None:
        found.append(
            forbidden(
                "spec.template.spec.activeDeadlineSeconds",
                "activeDeadlineSeconds in ReplicaSet is not Supported",
            )
        )
    return found


def _strategy(path: str, strategy: Body) -> list[Cause]:
    kind, rolling = strategy.get("type"), strategy.get("rollingUpdate")
    if kind == "Recreate":
        if rolling is None:
            return []
        return [
            forbidden(
                f"{path}.rollingUpdate",
                "may not be specified when strategy `type` is 'Recreate'",
            )
        ]
    if kind != "RollingUpdate":
        return [not_supported(path, strategy, ("Recreate", "RollingUpdate"))]
    if rolling is None:
        return [required(f"{path}.rollingUpdate", "this should be defaulted and never be nil")]
    at = f"{path}.rollingUpdate"
    unavailable, surge = rolling.get("maxUnavailable"), rolling.get("maxSurge")
    found = int_or_percent(f"{at}.maxUnavailable", unavailable)
    found += int_or_percent(f"{at}.maxSurge", surge)
    if _is_zero(unavailable) and _is_zero(surge):
        found.append(
            invalid(f"{at}.maxUnavailable", Raw(unavailable), "may not be 0 when `maxSurge` is 0")
        )
    if isinstance(unavailable, str) and not names.percent(unavailable):
        if int(unavailable[:-1]) > 100:
            found.append(
                invalid(f"{at}.maxUnavailable", Raw(unavailable), "must not be greater than 100%")
            )
    return found


def int_or_percent(path: str, value: Any) -> list[Cause]:
    """A non-negative integer or a percentage."""
    if value is None:
        return []
    if isinstance(value, str):
        return [invalid(path, Raw(value), p) for p in names.percent(value)]
    return non_negative(path, value)


def _is_zero(value: Any) -> bool:
    return value in (None, 0) or (isinstance(value, str) and value.rstrip("%").strip("0") == "")
