"""The roles and bindings a cluster is born with: upstream's defaults, for what this server has.

Compact declarations; ``objects()`` makes API objects of them. The controllers' own
are in ``bootstrap_controllers``.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from sampan.api.obj import Body
from sampan.apiserver import bootstrap_certificates as certificates
from sampan.apiserver.bootstrap_controllers import CONTROLLERS
from sampan.apiserver.bootstrap_rules import BOTH, EVENTS, RBAC, READ, WRITE, paths, rule

_LABELS = {"kubernetes.io/bootstrapping": "rbac-defaults"}
_ANNOTATIONS = {"rbac.authorization.kubernetes.io/autoupdate": "true"}
_REVIEWS = (
    rule("create", "authentication.k8s.io", "tokenreviews"),
    rule("create", "authorization.k8s.io", "subjectaccessreviews"),
)
_APPS_WRITE = (
    "daemonsets deployments deployments/rollback deployments/scale replicasets replicasets/scale "
    "statefulsets statefulsets/scale"
)
_APPS_READ = (
    "controllerrevisions daemonsets daemonsets/status deployments deployments/scale "
    "deployments/status replicasets replicasets/scale replicasets/status statefulsets "
    "statefulsets/scale statefulsets/status"
)

NODE_RULES: list[Body] = [
    *_REVIEWS,
    rule("create", "authorization.k8s.io", "localsubjectaccessreviews"),
    rule(READ, "core", "services"),
    rule("create get list watch update patch delete", "core", "nodes"),
    rule("patch update", "core", "nodes/status"),
    EVENTS,
    rule("create delete get list watch", "core", "pods"),
    rule("patch update", "core", "pods/status"),
    rule("create", "core", "pods/eviction"),
    rule(READ, "core", "configmaps secrets"),
    rule(READ, "core", "persistentvolumeclaims persistentvolumes"),
    rule("patch update get", "core", "persistentvolumeclaims/status"),
    rule(READ, "core", "endpoints serviceaccounts namespaces"),
    rule(READ, "discovery.k8s.io", "endpointslices"),
    rule("create", "core", "serviceaccounts/token"),
    rule("create get list watch update patch delete", "coordination.k8s.io", "leases"),
    rule("create delete get list patch update watch", "storage.k8s.io", "csinodes"),
    rule(READ, "storage.k8s.io", "csidrivers volumeattachments"),
    rule(READ, "node.k8s.io", "runtimeclasses"),
    *certificates.NODE,
]  # fmt: skip

_VIEW = (
    rule(
        READ, "core",
        "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods "
        "replicationcontrollers replicationcontrollers/scale serviceaccounts services "
        "services/status",
    ),
    rule(
        READ, "core",
        "bindings events limitranges namespaces/status pods/log pods/status "
        "replicationcontrollers/status resourcequotas resourcequotas/status",
    ),
    rule(READ, "core", "namespaces"),
    rule(READ, "discovery.k8s.io", "endpointslices"),
    rule(READ, "apps", _APPS_READ),
    rule(READ, "autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status"),
    rule(READ, "batch", "cronjobs cronjobs/status jobs jobs/status"),
    rule(READ, "policy", "poddisruptionbudgets poddisruptionbudgets/status"),
    rule(READ, "metrics.k8s.io", "nodes pods"),  # as metrics-server aggregates to view
    rule(READ, "networking.k8s.io", "ingresses ingresses/status networkpolicies"),
)  # fmt: skip
_EDIT = (
    rule(
        READ, "core",
        "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy",
    ),
    rule("impersonate", "core", "serviceaccounts"),
    rule(WRITE, "core", "pods pods/attach pods/exec pods/portforward pods/proxy"),
    rule("create", "core", "pods/eviction"),
    rule(
        WRITE, "core",
        "configmaps events persistentvolumeclaims replicationcontrollers "
        "replicationcontrollers/scale secrets serviceaccounts services services/proxy",
    ),
    rule("create", "core", "serviceaccounts/token"),
    rule(WRITE, "apps", _APPS_WRITE),
    rule(WRITE, "autoscaling", "horizontalpodautoscalers"),
    rule(WRITE, "batch", "cronjobs jobs"),
    rule(WRITE, "policy", "poddisruptionbudgets"),
    rule(WRITE, "networking.k8s.io", "ingresses networkpolicies"),
    rule(BOTH, "coordination.k8s.io", "leases"),
)  # fmt: skip
_ADMIN = (
    rule("create", "authorization.k8s.io", "localsubjectaccessreviews"),
    rule(BOTH, RBAC, "rolebindings roles"),
)

# name -> rules
_CLUSTER_ROLES: dict[str, tuple[Body, ...]] = {
    **certificates.CLUSTER,
    "cluster-admin": (rule("*", "*", "*"), paths("*", "*")),
    "system:basic-user": (
        rule("create", "authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews"),
        rule("create", "authentication.k8s.io", "selfsubjectreviews"),
    ),
    "system:discovery": (
        paths(
            "get",
            "/api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* /readyz /version "
            "/version/",
        ),
    ),
    "system:public-info-viewer": (paths("get", "/healthz /livez /readyz /version /version/"),),
    "system:monitoring": (
        paths(
            "get", "/healthz /healthz/* /livez /livez/* /metrics /metrics/slis /readyz /readyz/*"
        ),
    ),
    "system:service-account-issuer-discovery": (
        paths("get", "/.well-known/openid-configuration /.well-known/openid-configuration/ "
                      "/openid/v1/jwks /openid/v1/jwks/"),
    ),
    "system:heapster": (
        rule(READ, "core", "events namespaces nodes pods"), rule(READ, "apps", "deployments"),
    ),
    "system:node": tuple(NODE_RULES),
    "system:node-proxier": (
        rule("list watch", "core", "services"), rule("get list watch", "core", "nodes"),
        EVENTS, rule("list watch", "discovery.k8s.io", "endpointslices"),
    ),
    "system:auth-delegator": _REVIEWS,
    "system:kube-dns": (rule("list watch", "core", "endpoints services"),),
    "system:coredns": (
        rule("list watch", "core", "endpoints services pods namespaces"),
        rule("list watch", "discovery.k8s.io", "endpointslices"),
        EVENTS,
    ),
    "system:persistent-volume-provisioner": (
        rule("get list watch create delete", "core", "persistentvolumes"),
        rule("get list watch update", "core", "persistentvolumeclaims"),
        rule(READ, "storage.k8s.io", "storageclasses"), rule("watch", "core", "events"), EVENTS,
    ),
    "system:kube-controller-manager": (
        EVENTS,
        rule("create get list watch update patch", "coordination.k8s.io", "leases"),
        rule("create", "core", "secrets serviceaccounts"),
        rule("delete", "core", "secrets"),
        rule("get", "core", "namespaces secrets serviceaccounts configmaps"),
        rule("update", "core", "secrets serviceaccounts"),
        *_REVIEWS,
        rule("get list watch", "*", "*"),
        rule("create", "core", "serviceaccounts/token"),
    ),
    "system:kube-scheduler": (
        EVENTS,
        rule("create get list watch update patch", "coordination.k8s.io", "leases"),
        rule(READ, "core", "namespaces nodes"),
        rule("delete get list watch", "core", "pods"),
        rule("create", "core", "bindings pods/binding"),
        rule("patch update", "core", "pods/status"),
        rule(READ, "core", "replicationcontrollers services"),
        rule(READ, "apps", "replicasets statefulsets"),
        rule(READ, "policy", "poddisruptionbudgets"),
        rule("get list watch update patch", "core", "persistentvolumeclaims persistentvolumes"),
        rule(READ, "scheduling.k8s.io", "priorityclasses"),
        rule(READ, "storage.k8s.io",
              "csidrivers csinodes csistoragecapacities storageclasses volumeattachments"),
        *_REVIEWS,
    ),
}  # fmt: skip

# role -> group bound to it everywhere
_GROUPS: tuple[tuple[str, str], ...] = (
    ("cluster-admin", "system:masters"),
    ("system:monitoring", "system:monitoring"),
    ("system:discovery", "system:authenticated"),
    ("system:basic-user", "system:authenticated"),
    ("system:public-info-viewer", "system:authenticated"),
    ("system:public-info-viewer", "system:unauthenticated"),
    ("system:service-account-issuer-discovery", "system:serviceaccounts"),
)
_USERS: tuple[tuple[str, str], ...] = (
    ("system:kube-controller-manager", "system:kube-controller-manager"),
    ("system:kube-scheduler", "system:kube-scheduler"),
    ("system:node-proxier", "system:kube-proxy"),
)


def _meta(name: str, labels: dict[str, str] | None = None) -> Body:
    return {"name": name, "labels": {**_LABELS, **(labels or {})}, "annotations": {**_ANNOTATIONS}}


def _role(
    name: str,
    rules: tuple[Body, ...],
    *,
    labels: dict[str, str] | None = None,
    aggregates: str = "",
) -> Body:
    body: Body = {
        "apiVersion": f"{RBAC}/v1",
        "kind": "ClusterRole",
        "metadata": _meta(name, labels),
    }
    if aggregates:
        body["aggregationRule"] = {
            "clusterRoleSelectors": [{"matchLabels": {_aggregate(aggregates): "true"}}]
        }
    body["rules"] = [dict(r) for r in rules]
    return body


def _aggregate(to: str) -> str:
    return f"{RBAC}/aggregate-to-{to}"


def _once(*rules: Body) -> tuple[Body, ...]:
    return tuple(r for i, r in enumerate(rules) if r not in rules[:i])


def _binding(role: str, subjects: list[Body]) -> Body:
    body: Body = {
        "apiVersion": f"{RBAC}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": _meta(role),
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role},
    }
    if subjects:
        body["subjects"] = subjects
    return body


def _with_reads(rules: tuple[Body, ...]) -> tuple[Body, ...]:
    """*rules* and the right to read every whole resource they name."""
    extra: list[Body] = []
    for given in rules:
        plain = [r for r in given["resources"] if "/" not in r]
        verbs: list[Any] = given["verbs"]
        if plain and given is not EVENTS and not {"get", "list", "watch"} <= set(verbs):
            extra.append(
                {"verbs": READ.split(), "apiGroups": given["apiGroups"], "resources": plain}
            )
    return (*rules, *extra)


@cache
def objects() -> list[Body]:
    """All of them, in the order to create them: roles before the bindings that name them. Shared:
    not to be edited."""
    # Aggregated in the order of the names of what they are made of, as their controller does it.
    edit = _once(*_EDIT, *_VIEW)
    roles = [_role(name, rules) for name, rules in _CLUSTER_ROLES.items()]
    roles += [
        _role("admin", _once(*edit, *_ADMIN), aggregates="admin"),
        _role("edit", edit, aggregates="edit", labels={_aggregate("admin"): "true"}),
        _role("view", _once(*_VIEW), aggregates="view", labels={_aggregate("edit"): "true"}),
        _role("system:aggregate-to-admin", _ADMIN, labels={_aggregate("admin"): "true"}),
        _role("system:aggregate-to-edit", _EDIT, labels={_aggregate("edit"): "true"}),
        _role("system:aggregate-to-view", _VIEW, labels={_aggregate("view"): "true"}),
    ]
    bindings: dict[str, list[Body]] = {}
    for role, group in _GROUPS:
        bindings.setdefault(role, []).append({"kind": "Group", "apiGroup": RBAC, "name": group})
    for role, user in _USERS:
        bindings.setdefault(role, []).append({"kind": "User", "apiGroup": RBAC, "name": user})
    bindings["system:node"] = []  # the node authorizer answers instead
    bindings["system:kube-dns"] = [_account("kube-dns")]
    bindings["system:coredns"] = [_account("coredns")]
    for controller, rules in CONTROLLERS.items():
        role = f"system:controller:{controller}"
        roles.append(_role(role, _with_reads(rules)))
        bindings[role] = [_account(controller)]
    return [
        *roles,
        *_in_namespace("kube-system", "system:coredns", _account("coredns"),
                       rule("list watch", "core", "configmaps", "kube-dns")),
        *_authentication_reader(),
        *(_binding(role, subjects) for role, subjects in bindings.items()),
    ]  # fmt: skip


def _authentication_reader() -> list[Body]:
    """Who may read how other API servers know this one."""
    name = "extension-apiserver-authentication-reader"
    users = ("system:kube-controller-manager", "system:kube-scheduler")
    config = rule(READ, "core", "configmaps", "extension-apiserver-authentication")
    role, binding = _in_namespace("kube-system", name, {}, config)
    binding["metadata"] = {**binding["metadata"], "name": f"system::{name}"}
    binding["subjects"] = [{"kind": "User", "apiGroup": RBAC, "name": u} for u in users]
    return [role, binding]


def _in_namespace(namespace: str, name: str, subject: Body, *rules: Body) -> list[Body]:
    """A Role and the binding of its name."""
    meta = {**_meta(name), "namespace": namespace}
    return [
        {"apiVersion": f"{RBAC}/v1", "kind": "Role", "metadata": meta, "rules": [*rules]},
        {"apiVersion": f"{RBAC}/v1", "kind": "RoleBinding", "metadata": meta,
         "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": name}, "subjects": [subject]},
    ]  # fmt: skip


def _account(name: str) -> Body:
    return {"kind": "ServiceAccount", "name": name, "namespace": "kube-system"}
