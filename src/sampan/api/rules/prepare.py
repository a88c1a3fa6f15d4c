"""What clients may not set: resets before create and update, per kind."""

from __future__ import annotations

import base64
from typing import Any

from sampan.api.obj import Body
from sampan.lib.quantity import QuantityError, quantity

GATED = "Scheduling is blocked due to non-empty scheduling gates"


def drop_status(body: Body) -> None:
    body["status"] = {}


def keep_status(new: Body, old: Body) -> None:
    """The main resource's update leaves the status alone."""
    if "status" in old:
        new["status"] = old["status"]
    else:
        new.pop("status", None)


def create_pod(body: Body) -> None:
    spec: Body = body.get("spec") or {}
    status: Body = {"phase": "Pending", "qosClass": qos_class(spec)}
    if spec.get("schedulingGates"):
        status["conditions"] = [
            {
                "type": "PodScheduled",
                "status": "False",
                "reason": "SchedulingGated",
                "message": GATED,
            }
        ]
    body["status"] = status
    _merge_label_keys(spec, (body.get("metadata") or {}).get("labels") or {})


def _merge_label_keys(spec: Body, labels: Body) -> None:
    """``matchLabelKeys`` and ``mismatchLabelKeys`` become requirements of their selector, with the
    values the pod has when it is created. A selector that is not there selects nothing and stays
    so."""
    affinity = spec.get("affinity") or {}
    holders: list[Body] = [*(spec.get("topologySpreadConstraints") or ())]
    for kind in ("podAffinity", "podAntiAffinity"):
        group = affinity.get(kind) or {}
        holders += group.get("requiredDuringSchedulingIgnoredDuringExecution") or ()
        holders += [
            w["podAffinityTerm"]
            for w in group.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
            if w.get("podAffinityTerm")
        ]
    for holder in holders:
        selector = holder.get("labelSelector")
        if selector is None:
            continue
        added = [
            {"key": key, "operator": operator, "values": [labels[key]]}
            for field, operator in (("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn"))
            for key in holder.get(field) or ()
            if key in labels
        ]
        if added:
            selector["matchExpressions"] = [*(selector.get("matchExpressions") or ()), *added]


def qos_class(spec: Body) -> str:
    """Guaranteed, Burstable or BestEffort, from CPU and memory of all containers."""
    if (spec.get("resources") or {}).keys() & {"limits", "requests"}:
        holders = [spec]
    else:
        holders = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    any_set, guaranteed = False, True
    for holder in holders:
        resources = holder.get("resources") or {}
        for name in ("cpu", "memory"):
            limit = _amount((resources.get("limits") or {}).get(name))
            request = _amount((resources.get("requests") or {}).get(name))
            any_set = any_set or bool(limit) or bool(request)
            if not limit or (request and request != limit):
                guaranteed = False
    if not any_set:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def _amount(value: Any) -> int:
    try:
        return quantity(value).nanos if value is not None else 0
    except QuantityError:
        return 0


def create_namespace(body: Body) -> None:
    spec: Body = dict(body.get("spec") or {})
    finalizers = list(spec.get("finalizers") or ())
    if "kubernetes" not in finalizers:
        finalizers.append("kubernetes")
    body["spec"] = {**spec, "finalizers": finalizers}
    body["status"] = {"phase": "Active"}


def update_namespace(new: Body, old: Body) -> None:
    """spec.finalizers change only through the finalize subresource."""
    new["spec"] = {**(new.get("spec") or {})}
    new["spec"].pop("finalizers", None)
    kept = (old.get("spec") or {}).get("finalizers")
    if kept is not None:
        new["spec"]["finalizers"] = kept
    keep_status(new, old)


def create_replica_set(body: Body) -> None:
    body["status"] = {"replicas": 0}


def create_stateful_set(body: Body) -> None:
    body["status"] = {"replicas": 0, "availableReplicas": 0}


def secret_data(body: Body) -> None:
    """stringData is write-only: it overrides data."""
    given = body.pop("stringData", None)
    if given:
        encoded = {k: base64.b64encode(v.encode()).decode() for k, v in given.items()}
        body["data"] = {**(body.get("data") or {}), **encoded}
