"""FlowSchemas and PriorityLevelConfigurations every cluster is born with: the mandatory ones and
those that upstream suggests."""

from __future__ import annotations

from sampan.api.obj import Body
from sampan.api.rules.flowcontrol import FIXED_LEVELS, FIXED_SCHEMAS, dangling, everything, group

_VERSION = "flowcontrol.apiserver.k8s.io/v1"
_NOTES = {"apf.kubernetes.io/autoupdate-spec": "true"}
_NODES, _EVERYBODY = group("system:nodes"), (
    group("system:unauthenticated"), group("system:authenticated"),
)  # fmt: skip
_MANAGER, _SCHEDULER = "system:kube-controller-manager", "system:kube-scheduler"
# shares, per cent that may be lent, queues, size of a hand
_LEVELS = {
    "system": (30, 33, 64, 6),
    "node-high": (40, 25, 64, 6),
    "leader-election": (10, 0, 16, 4),
    "workload-high": (40, 50, 128, 6),
    "workload-low": (100, 90, 128, 6),
    "global-default": (20, 50, 128, 6),
}


def _user(name: str) -> Body:
    return {"kind": "User", "user": {"name": name}}


def _accounts(name: str = "*") -> Body:
    account = {"namespace": "kube-system", "name": name}
    return {"kind": "ServiceAccount", "serviceAccount": account}


def _some(verbs: str, api_group: str, resources: str, namespace: str = "*") -> Body:
    return {"verbs": verbs.split(), "apiGroups": [api_group], "resources": resources.split(),
            "namespaces": [namespace]}  # fmt: skip


def _election(namespace: str, *subjects: Body) -> Body:
    verbs = "get create update"
    return {"subjects": [*subjects], "resourceRules": [
        _some(verbs, "", "endpoints configmaps", namespace),
        _some(verbs, "coordination.k8s.io", "leases"),
    ]}  # fmt: skip


def _schema(level: str, precedence: int, method: str, *rules: Body) -> Body:
    spec: Body = {"priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence}
    if method:
        spec["distinguisherMethod"] = {"type": method}
    return {**spec, "rules": [*rules]}


def _schemas() -> dict[str, Body]:
    probes = {"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}
    every_node = {**_some("*", "", "nodes nodes/status"), "clusterScope": True}
    health = {"subjects": [_NODES], "resourceRules": [
        every_node, _some("*", "coordination.k8s.io", "leases")]}  # fmt: skip
    endpoints = {"subjects": [
        _user(_MANAGER), _accounts("endpoint-controller"), _accounts("endpointslice-controller"),
        _accounts("endpointslicemirroring-controller"),
    ], "resourceRules": [
        _some("get create update", "", "endpoints"),
        _some("get create update", "discovery.k8s.io", "endpointslices"),
    ]}  # fmt: skip
    by_user, by_namespace = "ByUser", "ByNamespace"
    return {
        "probes": _schema(
            "exempt", 2, "", {"subjects": [*_EVERYBODY], "nonResourceRules": [probes]}
        ),
        "system-leader-election": _schema(
            "leader-election", 100, by_user,
            _election("kube-system", _user(_MANAGER), _user(_SCHEDULER), _accounts()),
        ),
        "endpoint-controller": _schema("workload-high", 150, by_user, endpoints),
        "workload-leader-election": _schema(
            "leader-election", 200, by_user, _election("*", _accounts())
        ),
        "system-node-high": _schema("node-high", 400, by_user, health),
        "system-nodes": _schema("system", 500, by_user, everything(_NODES)),
        "kube-controller-manager": _schema(
            "workload-high", 800, by_namespace, everything(_user(_MANAGER))
        ),
        "kube-scheduler": _schema(
            "workload-high", 800, by_namespace, everything(_user(_SCHEDULER))
        ),
        "kube-system-service-accounts": _schema(
            "workload-high", 900, by_namespace, everything(_accounts())
        ),
        "service-accounts": _schema(
            "workload-low", 9000, by_user, everything(group("system:serviceaccounts"))
        ),
        "global-default": _schema("global-default", 9900, by_user, everything(*_EVERYBODY)),
    }  # fmt: skip


def _level(shares: int, lendable: int, queues: int, hand: int) -> Body:
    queuing = {"queues": queues, "handSize": hand, "queueLengthLimit": 50}
    return {"type": "Limited", "limited": {
        "nominalConcurrencyShares": shares,
        "limitResponse": {"type": "Queue", "queuing": queuing}, "lendablePercent": lendable,
    }}  # fmt: skip


def objects(at: str) -> list[Body]:
    """at: when they are made."""
    levels = {**FIXED_LEVELS, **{name: _level(*facts) for name, facts in _LEVELS.items()}}
    schemas = {**FIXED_SCHEMAS, **_schemas()}
    made = [_made("PriorityLevelConfiguration", name, spec) for name, spec in levels.items()]
    for name, spec in schemas.items():
        level = spec["priorityLevelConfiguration"]["name"]
        status = {"conditions": [dangling(level, at, is_there=True)]}
        made.append({**_made("FlowSchema", name, spec), "status": status})
    return made


def _made(kind: str, name: str, spec: Body) -> Body:
    meta = {"name": name, "generation": 1, "annotations": _NOTES}
    return {"apiVersion": _VERSION, "kind": kind, "metadata": meta, "spec": spec, "status": {}}
