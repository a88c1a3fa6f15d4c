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


def create_service(body: Body) -> None:
    body["status"] = {"loadBalancer": {}}
    spec: Body = body.get("spec") or {}
    _cluster_ips(spec)
    if spec.get("type") != "ExternalName":
        spec.setdefault("ipFamilyPolicy", "SingleStack")
        spec.setdefault("ipFamilies", ["IPv4"])


def update_service(new: Body, old: Body) -> None:
    """clusterIP and what follows from it are kept when an update leaves them out."""
    keep_status(new, old)
    after, before = new.get("spec") or {}, old.get("spec") or {}
    if after.get("type") == "ExternalName":
        return
    if before.get("type") != "ExternalName":
        for name in ("clusterIP", "ipFamilyPolicy", "ipFamilies"):
            if not after.get(name) and before.get(name):
                after[name] = before[name]
        if not after.get("clusterIPs") and after.get("clusterIP") == before.get("clusterIP"):
            after["clusterIPs"] = before.get("clusterIPs") or []
        _node_ports(after, before)
    _cluster_ips(after)


def _node_ports(after: Body, before: Body) -> None:
    """An update that names no nodePort keeps the one its port had."""
    kinds = ("NodePort", "LoadBalancer")
    if after.get("type") not in kinds or before.get("type") not in kinds:
        return
    known = {(p.get("protocol"), p.get("port")): p.get("nodePort") for p in before.get("ports", [])}
    used = {p.get("nodePort") for p in after.get("ports") or ()}
    for port in after.get("ports") or ():
        kept = known.get((port.get("protocol"), port.get("port")))
        if not port.get("nodePort") and kept and kept not in used:
            port["nodePort"] = kept


def _cluster_ips(spec: Body) -> None:
    """clusterIP and clusterIPs[0] mirror each other."""
    if spec.get("clusterIP") and not spec.get("clusterIPs"):
        spec["clusterIPs"] = [spec["clusterIP"]]
    elif spec.get("clusterIPs") and not spec.get("clusterIP"):
        spec["clusterIP"] = spec["clusterIPs"][0]
