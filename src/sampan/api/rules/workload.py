"""Validation of Deployments, ReplicaSets and ReplicationControllers, and what StatefulSets and
DaemonSets (see sets) share with them."""

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
    found += check_selector(spec, "deployment")
    found += _template(spec)
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
    found += check_selector(spec, "deployment")
    return found + _template(spec)


def validate_replication_controller(body: Body) -> list[Cause]:
    """Its selector is a plain map of labels."""
    spec: Body = body.get("spec") or {}
    found = non_negative("spec.minReadySeconds", spec.get("minReadySeconds"))
    if not spec.get("selector"):
        found.append(required("spec.selector"))
    found += non_negative("spec.replicas", spec.get("replicas"))
    template = spec.get("template")
    if not template:
        return [*found, required("spec.template")]
    selector = spec.get("selector")
    found += check_labels_match({"matchLabels": selector} if selector else None, template)
    found += validate_template(template, "spec.template")
    return found + always_running(template, "ReplicationController")


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


def check_selector(spec: Body, noun: str) -> list[Cause]:
    """spec.selector is there, well formed and chooses something."""
    selector = spec.get("selector")
    if selector is None:
        return [required("spec.selector")]
    found = selection.label_selector("spec.selector", selector)
    if not selector.get("matchLabels") and not selector.get("matchExpressions"):
        found.append(invalid("spec.selector", selector, f"empty selector is invalid for {noun}"))
    return found


def check_labels_match(selector: Body | None, template: Body) -> list[Cause]:
    """The template's labels are those its owner selects."""
    labels = (template.get("metadata") or {}).get("labels") or {}
    try:
        chosen = from_label_selector(selector)
    except SelectorError:
        return []
    if chosen.is_empty or chosen.matches(labels):
        return []
    return [
        invalid(
            "spec.template.metadata.labels", labels or None,
            "`selector` does not match template `labels`",
        )
    ]  # fmt: skip


def always_running(template: Body, kind: str) -> list[Cause]:
    """Pods that are kept running restart always and know no deadline."""
    inner = template.get("spec") or {}
    found: list[Cause] = []
    policy = inner.get("restartPolicy")
    if policy in ("OnFailure", "Never"):
        found.append(not_supported("spec.template.spec.restartPolicy", policy, ("Always",)))
    if inner.get("activeDeadlineSeconds") is not None:
        found.append(
            forbidden(
                "spec.template.spec.activeDeadlineSeconds",
                f"activeDeadlineSeconds in {kind} is not Supported",
            )
        )
    return found


def _template(spec: Body) -> list[Cause]:
    template = spec.get("template")
    if not template:
        return [required("spec.template")]
    found = check_labels_match(spec.get("selector"), template)
    found += validate_template(template, "spec.template")
    return found + always_running(template, "ReplicaSet")


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
    if is_zero(unavailable) and is_zero(surge):
        found.append(
            invalid(f"{at}.maxUnavailable", Raw(unavailable), "may not be 0 when `maxSurge` is 0")
        )
    return found + at_most_all(f"{at}.maxUnavailable", unavailable)


def int_or_percent(path: str, value: Any) -> list[Cause]:
    """A non-negative integer or a percentage."""
    if value is None:
        return []
    if isinstance(value, str):
        return [invalid(path, Raw(value), p) for p in names.percent(value)]
    return non_negative(path, value)


def at_most_all(path: str, value: Any) -> list[Cause]:
    """A percentage is not more than all of them."""
    if isinstance(value, str) and not names.percent(value) and int(value[:-1]) > 100:
        return [invalid(path, Raw(value), "must not be greater than 100%")]
    return []


def is_zero(value: Any) -> bool:
    """Nothing, whether as a number or as a percentage."""
    return value in (None, 0) or (isinstance(value, str) and value.rstrip("%").strip("0") == "")
