"""Defaults of every kind but the pod spec's own (see podspec_defaults)."""

from __future__ import annotations

from typing import Any

from sampan.api.obj import Body
from sampan.api.rules import storage_defaults
from sampan.api.rules.podspec_defaults import canonical_list, default_template

RBAC_GROUP = "rbac.authorization.k8s.io"


def _spec(body: Body) -> Body:
    spec = body.get("spec")
    if not isinstance(spec, dict):
        spec = body["spec"] = {}
    return spec


def _fill(holder: Body, **values: Any) -> None:
    for name, value in values.items():
        if holder.get(name) in (None, ""):
            holder[name] = value


def namespace(body: Body) -> None:
    name = (body.get("metadata") or {}).get("name")
    if name:
        meta = body["metadata"]
        labels = meta.get("labels") or {}
        if labels.get("kubernetes.io/metadata.name") != name:
            meta["labels"] = {**labels, "kubernetes.io/metadata.name": name}
    if isinstance(body.get("status"), dict):
        _fill(body["status"], phase="Active")


def node(body: Body) -> None:
    status = body.get("status") or {}
    canonical_list(status.get("capacity"))
    canonical_list(status.get("allocatable"))
    if status.get("capacity") and not status.get("allocatable"):
        status["allocatable"] = dict(status["capacity"])


def secret(body: Body) -> None:
    _fill(body, type="Opaque")


def service(body: Body) -> None:
    spec = _spec(body)
    _fill(spec, type="ClusterIP", sessionAffinity="None")
    kind = spec["type"]
    if spec["sessionAffinity"] == "None":
        spec.pop("sessionAffinityConfig", None)
    elif spec["sessionAffinity"] == "ClientIP":
        config = spec.get("sessionAffinityConfig") or {}
        if (config.get("clientIP") or {}).get("timeoutSeconds") is None:
            spec["sessionAffinityConfig"] = {"clientIP": {"timeoutSeconds": 10800}}
    for port in spec.get("ports") or ():
        _fill(port, protocol="TCP")
        if port.get("targetPort") in (None, 0, ""):
            port["targetPort"] = port.get("port")
    external = kind in ("NodePort", "LoadBalancer") or (
        kind == "ClusterIP" and bool(spec.get("externalIPs"))
    )
    if external:
        _fill(spec, externalTrafficPolicy="Cluster")
    if kind in ("NodePort", "LoadBalancer", "ClusterIP"):
        _fill(spec, internalTrafficPolicy="Cluster")
    if kind == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)
        ingress = ((body.get("status") or {}).get("loadBalancer") or {}).get("ingress")
        for entry in ingress or ():
            if entry.get("ip"):
                _fill(entry, ipMode="VIP")


def endpoints(body: Body) -> None:
    for subset in body.get("subsets") or ():
        for port in subset.get("ports") or ():
            _fill(port, protocol="TCP")


def endpoint_slice(body: Body) -> None:
    if body.get("endpoints") is None:
        body["endpoints"] = []  # always told, also where there are none
    if body.get("ports") is None:
        body["ports"] = []
    for port in body.get("ports") or ():
        port.setdefault("name", "")
        _fill(port, protocol="TCP")


def deployment(body: Body) -> None:
    spec = _spec(body)
    _fill(spec, replicas=1, revisionHistoryLimit=10, progressDeadlineSeconds=600)
    strategy = spec.get("strategy")
    if not isinstance(strategy, dict):
        strategy = spec["strategy"] = {}
    _fill(strategy, type="RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        if strategy.get("rollingUpdate") is None:
            strategy["rollingUpdate"] = {}
        _fill(strategy["rollingUpdate"], maxUnavailable="25%", maxSurge="25%")
    default_template(spec.get("template"))


def replica_set(body: Body) -> None:
    spec = _spec(body)
    _fill(spec, replicas=1)
    default_template(spec.get("template"))


def replication_controller(body: Body) -> None:
    """Selector and own labels come from the template where they are not given."""
    spec = _spec(body)
    template = spec.get("template")
    labels = ((template or {}).get("metadata") or {}).get("labels")
    if labels:
        if not spec.get("selector"):
            spec["selector"] = dict(labels)
        meta = body.setdefault("metadata", {})
        if not meta.get("labels"):
            meta["labels"] = dict(labels)
    _fill(spec, replicas=1)
    default_template(template)


def pod_template(body: Body) -> None:
    default_template(body.get("template"))


def stateful_set(body: Body) -> None:
    spec = _spec(body)
    _fill(spec, podManagementPolicy="OrderedReady", replicas=1, revisionHistoryLimit=10)
    strategy = spec.get("updateStrategy")
    if not isinstance(strategy, dict):
        strategy = spec["updateStrategy"] = {}
    if not strategy.get("type"):
        strategy["type"] = "RollingUpdate"
        strategy.setdefault("rollingUpdate", {})
    if strategy["type"] == "RollingUpdate" and isinstance(strategy.get("rollingUpdate"), dict):
        _fill(strategy["rollingUpdate"], partition=0, maxUnavailable=1)
    policy = spec.get("persistentVolumeClaimRetentionPolicy")
    if not isinstance(policy, dict):
        policy = spec["persistentVolumeClaimRetentionPolicy"] = {}
    _fill(policy, whenDeleted="Retain", whenScaled="Retain")
    default_template(spec.get("template"))
    for claim in spec.get("volumeClaimTemplates") or ():
        claim.update(apiVersion="v1", kind="PersistentVolumeClaim")
        if claim.get("status") is None:
            claim["status"] = {}
        storage_defaults.persistent_volume_claim(claim)


def daemon_set(body: Body) -> None:
    spec = _spec(body)
    _fill(spec, revisionHistoryLimit=10)
    strategy = spec.get("updateStrategy")
    if not isinstance(strategy, dict):
        strategy = spec["updateStrategy"] = {}
    _fill(strategy, type="RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        if strategy.get("rollingUpdate") is None:
            strategy["rollingUpdate"] = {}
        _fill(strategy["rollingUpdate"], maxUnavailable=1, maxSurge=0)
    default_template(spec.get("template"))


def role_binding(body: Body) -> None:
    if isinstance(body.get("roleRef"), dict):
        _fill(body["roleRef"], apiGroup=RBAC_GROUP)
    for subject in body.get("subjects") or ():
        if subject.get("kind") in ("User", "Group"):
            _fill(subject, apiGroup=RBAC_GROUP)


def priority_class(body: Body) -> None:
    body.setdefault("value", 0)
    _fill(body, preemptionPolicy="PreemptLowerPriority")
