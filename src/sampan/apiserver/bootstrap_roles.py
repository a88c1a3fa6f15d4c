"""The roles and bindings a cluster is born with: upstream's defaults, for what this server has.

Compact declarations; ``objects()`` makes API objects of them. A new controller is a line here.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from sampan.api.obj import Body
from sampan.apiserver import bootstrap_certificates as certificates

RBAC = "rbac.authorization.k8s.io"
_LABELS = {"kubernetes.io/bootstrapping": "rbac-defaults"}
_ANNOTATIONS = {"rbac.authorization.kubernetes.io/autoupdate": "true"}
_READ = "get list watch"
_WRITE = "create delete deletecollection patch update"
_BOTH = "create delete deletecollection get list patch update watch"


def _rule(verbs: str, groups: str, resources: str, *names: str) -> Body:
    """groups and resources are blank-separated; the core group is written ``core``."""
    rule: Body = {
        "verbs": verbs.split(),
        "apiGroups": ["" if g == "core" else g for g in groups.split()],
        "resources": resources.split(),
    }
    if names:
        rule["resourceNames"] = list(names)
    return rule


def _paths(verbs: str, paths: str) -> Body:
    return {"verbs": verbs.split(), "nonResourceURLs": paths.split()}


_EVENTS = _rule("create patch update", "core events.k8s.io", "events")
_REVIEWS = (
    _rule("create", "authentication.k8s.io", "tokenreviews"),
    _rule("create", "authorization.k8s.io", "subjectaccessreviews"),
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
    _rule("create", "authorization.k8s.io", "localsubjectaccessreviews"),
    _rule(_READ, "core", "services"),
    _rule("create get list watch update patch delete", "core", "nodes"),
    _rule("patch update", "core", "nodes/status"),
    _EVENTS,
    _rule("create delete get list watch", "core", "pods"),
    _rule("patch update", "core", "pods/status"),
    _rule("create", "core", "pods/eviction"),
    _rule(_READ, "core", "configmaps secrets"),
    _rule(_READ, "core", "persistentvolumeclaims persistentvolumes"),
    _rule("patch update get", "core", "persistentvolumeclaims/status"),
    _rule(_READ, "core", "endpoints serviceaccounts namespaces"),
    _rule(_READ, "discovery.k8s.io", "endpointslices"),
    _rule("create", "core", "serviceaccounts/token"),
    _rule("create get list watch update patch delete", "coordination.k8s.io", "leases"),
    _rule("create delete get list patch update watch", "storage.k8s.io", "csinodes"),
    _rule(_READ, "storage.k8s.io", "csidrivers volumeattachments"),
    _rule(_READ, "node.k8s.io", "runtimeclasses"),
    *certificates.NODE,
]  # fmt: skip

_VIEW = (
    _rule(
        _READ, "core",
        "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods "
        "replicationcontrollers replicationcontrollers/scale serviceaccounts services "
        "services/status",
    ),
    _rule(
        _READ, "core",
        "bindings events limitranges namespaces/status pods/log pods/status "
        "replicationcontrollers/status resourcequotas resourcequotas/status",
    ),
    _rule(_READ, "core", "namespaces"),
    _rule(_READ, "discovery.k8s.io", "endpointslices"),
    _rule(_READ, "apps", _APPS_READ),
    _rule(_READ, "autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status"),
    _rule(_READ, "batch", "cronjobs cronjobs/status jobs jobs/status"),
    _rule(_READ, "policy", "poddisruptionbudgets poddisruptionbudgets/status"),
    _rule(_READ, "metrics.k8s.io", "nodes pods"),  # as metrics-server aggregates to view
    _rule(_READ, "networking.k8s.io", "ingresses ingresses/status networkpolicies"),
)  # fmt: skip
_EDIT = (
    _rule(
        _READ, "core",
        "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy",
    ),
    _rule("impersonate", "core", "serviceaccounts"),
    _rule(_WRITE, "core", "pods pods/attach pods/exec pods/portforward pods/proxy"),
    _rule("create", "core", "pods/eviction"),
    _rule(
        _WRITE, "core",
        "configmaps events persistentvolumeclaims replicationcontrollers "
        "replicationcontrollers/scale secrets serviceaccounts services services/proxy",
    ),
    _rule("create", "core", "serviceaccounts/token"),
    _rule(_WRITE, "apps", _APPS_WRITE),
    _rule(_WRITE, "autoscaling", "horizontalpodautoscalers"),
    _rule(_WRITE, "batch", "cronjobs jobs"),
    _rule(_WRITE, "policy", "poddisruptionbudgets"),
    _rule(_WRITE, "networking.k8s.io", "ingresses networkpolicies"),
    _rule(_BOTH, "coordination.k8s.io", "leases"),
)  # fmt: skip
_ADMIN = (
    _rule("create", "authorization.k8s.io", "localsubjectaccessreviews"),
    _rule(_BOTH, RBAC, "rolebindings roles"),
)

# name -> rules
_CLUSTER_ROLES: dict[str, tuple[Body, ...]] = {
    **certificates.CLUSTER,
    "cluster-admin": (_rule("*", "*", "*"), _paths("*", "*")),
    "system:basic-user": (
        _rule("create", "authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews"),
        _rule("create", "authentication.k8s.io", "selfsubjectreviews"),
    ),
    "system:discovery": (
        _paths(
            "get",
            "/api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* /readyz /version "
            "/version/",
        ),
    ),
    "system:public-info-viewer": (_paths("get", "/healthz /livez /readyz /version /version/"),),
    "system:monitoring": (
        _paths(
            "get", "/healthz /healthz/* /livez /livez/* /metrics /metrics/slis /readyz /readyz/*"
        ),
    ),
    "system:service-account-issuer-discovery": (
        _paths("get", "/.well-known/openid-configuration /.well-known/openid-configuration/ "
                      "/openid/v1/jwks /openid/v1/jwks/"),
    ),
    "system:heapster": (
        _rule(_READ, "core", "events namespaces nodes pods"), _rule(_READ, "apps", "deployments"),
    ),
    "system:node": tuple(NODE_RULES),
    "system:node-proxier": (
        _rule("list watch", "core", "services"), _rule("get list watch", "core", "nodes"),
        _EVENTS, _rule("list watch", "discovery.k8s.io", "endpointslices"),
    ),
    "system:auth-delegator": _REVIEWS,
    "system:kube-dns": (_rule("list watch", "core", "endpoints services"),),
    "system:coredns": (
        _rule("list watch", "core", "endpoints services pods namespaces"),
        _rule("list watch", "discovery.k8s.io", "endpointslices"),
        _EVENTS,
    ),
    "system:persistent-volume-provisioner": (
        _rule("get list watch create delete", "core", "persistentvolumes"),
        _rule("get list watch update", "core", "persistentvolumeclaims"),
        _rule(_READ, "storage.k8s.io", "storageclasses"), _rule("watch", "core", "events"), _EVENTS,
    ),
    "system:kube-controller-manager": (
        _EVENTS,
        _rule("create get list watch update patch", "coordination.k8s.io", "leases"),
        _rule("create", "core", "secrets serviceaccounts"),
        _rule("delete", "core", "secrets"),
        _rule("get", "core", "namespaces secrets serviceaccounts configmaps"),
        _rule("update", "core", "secrets serviceaccounts"),
        *_REVIEWS,
        _rule("get list watch", "*", "*"),
        _rule("create", "core", "serviceaccounts/token"),
    ),
    "system:kube-scheduler": (
        _EVENTS,
        _rule("create get list watch update patch", "coordination.k8s.io", "leases"),
        _rule(_READ, "core", "namespaces nodes"),
        _rule("delete get list watch", "core", "pods"),
        _rule("create", "core", "bindings pods/binding"),
        _rule("patch update", "core", "pods/status"),
        _rule(_READ, "core", "replicationcontrollers services"),
        _rule(_READ, "apps", "replicasets statefulsets"),
        _rule(_READ, "policy", "poddisruptionbudgets"),
        _rule("get list watch update patch", "core", "persistentvolumeclaims persistentvolumes"),
        _rule(_READ, "scheduling.k8s.io", "priorityclasses"),
        _rule(_READ, "storage.k8s.io",
              "csidrivers csinodes csistoragecapacities storageclasses volumeattachments"),
        *_REVIEWS,
    ),
}  # fmt: skip

# Each controller's own rights; get, list and watch on what it names come by themselves (our
# controllers read as themselves, upstream's through a shared informer).
_CONTROLLERS: dict[str, tuple[Body, ...]] = {
    "certificate-controller": (*certificates.CONTROLLER, _EVENTS),
    "namespace-controller": (
        _rule("delete get list watch update patch", "core", "namespaces"),
        _rule("update patch", "core", "namespaces/finalize namespaces/status"),
        _rule("delete deletecollection get list watch patch update", "*", "*"),
    ),
    "service-account-controller": (
        _rule("create", "core", "serviceaccounts"), _rule(_READ, "core", "namespaces"), _EVENTS,
    ),
    "root-ca-cert-publisher": (
        _rule("create update patch", "core", "configmaps"), _rule(_READ, "core", "namespaces"),
        _EVENTS,
    ),
    "generic-garbage-collector": (
        _rule("delete get list patch update watch", "*", "*"), _EVENTS,
    ),
    "clusterrole-aggregation-controller": (
        _rule("escalate get list patch update watch", RBAC, "clusterroles"),
    ),
    "persistent-volume-binder": (
        _rule("get list watch update create delete", "core", "persistentvolumes"),
        _rule("update", "core", "persistentvolumes/status persistentvolumeclaims/status"),
        _rule("get list watch update", "core", "persistentvolumeclaims"),
        _rule("get list watch create delete", "core", "pods"),
        _rule(_READ, "storage.k8s.io", "storageclasses"),
        _rule("get create update delete", "core", "endpoints services"),
        _rule("get list", "core", "secrets"), _rule("get list", "core", "nodes"), _EVENTS,
    ),
    "expand-controller": (
        _rule("get list watch update patch", "core", "persistentvolumes"),
        _rule("update patch", "core", "persistentvolumeclaims/status"),
        _rule(_READ, "core", "persistentvolumeclaims"),
        _rule("get", "core", "endpoints services secrets"), _EVENTS,
    ),
    "pvc-protection-controller": (
        _rule("get list watch update", "core", "persistentvolumeclaims"),
        _rule(_READ, "core", "pods"), _EVENTS,
    ),
    "pv-protection-controller": (
        _rule("get list watch update", "core", "persistentvolumes"), _EVENTS,
    ),
    "ephemeral-volume-controller": (
        _rule("get list watch create", "core", "persistentvolumeclaims"),
        _rule("update", "core", "pods/finalizers"), _rule(_READ, "core", "pods"), _EVENTS,
    ),
    "local-provisioner": (  # ours: as system:persistent-volume-provisioner
        _rule("get list watch create delete update patch", "core", "persistentvolumes"),
        _rule("get list watch update patch", "core", "persistentvolumeclaims"),
        _rule(_READ, "core", "nodes"), _rule(_READ, "storage.k8s.io", "storageclasses"), _EVENTS,
    ),
    "replicaset-controller": (
        _rule("get list watch update patch", "apps", "replicasets"),
        _rule("update patch", "apps", "replicasets/status"),
        _rule("update", "apps", "replicasets/finalizers"),
        _rule("create delete get list patch update watch", "core", "pods"),
        _EVENTS,
    ),
    "deployment-controller": (
        _rule("get list watch update patch", "apps", "deployments"),
        _rule("update patch", "apps", "deployments/status"),
        _rule("update", "apps", "deployments/finalizers"),
        _rule("create delete get list patch update watch", "apps", "replicasets"),
        _rule("get list update watch", "core", "pods"),
        _EVENTS,
    ),
    "replication-controller": (
        _rule("get list watch update patch", "core", "replicationcontrollers"),
        _rule("update patch", "core", "replicationcontrollers/status"),
        _rule("update", "core", "replicationcontrollers/finalizers"),
        _rule("create delete list patch watch", "core", "pods"),
        _EVENTS,
    ),
    "statefulset-controller": (
        _rule("list watch", "core", "pods"),
        _rule(_READ, "apps", "statefulsets"),
        _rule("update patch", "apps", "statefulsets/status"),
        _rule("update", "apps", "statefulsets/finalizers"),
        _rule("get create delete update patch", "core", "pods"),
        _rule("get create delete update patch list watch", "apps", "controllerrevisions"),
        _rule("get create update delete", "core", "persistentvolumeclaims"),
        _EVENTS,
    ),
    "daemon-set-controller": (
        _rule(_READ, "apps", "daemonsets"),
        _rule("update patch", "apps", "daemonsets/status"),
        _rule("update", "apps", "daemonsets/finalizers"),
        _rule("list watch", "core", "nodes"),
        _rule("list watch create delete patch", "core", "pods"),
        _rule("create", "core", "pods/binding"),
        _rule("get list watch create delete update patch", "apps", "controllerrevisions"),
        _EVENTS,
    ),
    "endpoint-controller": (
        _rule(_READ, "core", "pods services"),
        _rule("create delete get list update patch watch", "core", "endpoints"),
        _rule("create", "core", "endpoints/restricted"),
        _EVENTS,
    ),
    "endpointslice-controller": (
        _rule(_READ, "core", "nodes pods services"),
        _rule("update", "core", "services/finalizers"),
        _rule("create delete get list update patch watch", "discovery.k8s.io", "endpointslices"),
        _rule("create", "discovery.k8s.io", "endpointslices/restricted"),
        _EVENTS,
    ),
    "endpointslicemirroring-controller": (
        _rule(_READ, "core", "endpoints services"),
        _rule("update", "core", "endpoints/finalizers services/finalizers"),
        _rule("create delete get list update patch watch", "discovery.k8s.io", "endpointslices"),
        _rule("create", "discovery.k8s.io", "endpointslices/restricted"),
        _EVENTS,
    ),
    "service-cidrs-controller": (
        _rule("get list watch patch update", "networking.k8s.io", "servicecidrs"),
        _rule("patch update", "networking.k8s.io",
              "servicecidrs/finalizers servicecidrs/status"),
        _rule(_READ, "networking.k8s.io", "ipaddresses"),
        _EVENTS,
    ),
    "service-controller": (
        _rule(_READ, "core", "services"), _rule("patch update", "core", "services/status"),
        _rule("list watch", "core", "nodes"), _EVENTS,
    ),
    "kubernetes-service-controller": (
        _rule("create get list update patch watch", "core", "endpoints services"),
        _rule("create get list update patch watch", "discovery.k8s.io", "endpointslices"),
        _rule(_READ, "core", "namespaces"),
        _EVENTS,
    ),
    "node-controller": (
        _rule("get list watch update delete patch", "core", "nodes"),
        _rule("update patch", "core", "nodes/status"),
        _rule("update patch", "core", "pods/status"),
        _rule("list watch get delete", "core", "pods"),
        _rule(_READ, "coordination.k8s.io", "leases"),
        _EVENTS,
    ),
    "pod-garbage-collector": (
        _rule("list watch delete get", "core", "pods"), _rule("get list watch", "core", "nodes"),
        _rule("patch update", "core", "pods/status"),
    ),
    "horizontal-pod-autoscaler": (
        _rule("get list watch", "autoscaling", "horizontalpodautoscalers"),
        _rule("update", "autoscaling", "horizontalpodautoscalers/status"),
        _rule("get update", "*", "*/scale"),
        _rule("list", "core", "pods"),
        _rule("list", "metrics.k8s.io", "pods"),
        _rule("get list", "custom.metrics.k8s.io external.metrics.k8s.io", "*"),
        _EVENTS,
    ),
    "job-controller": (
        _rule("get list watch update patch", "batch", "jobs"),
        _rule("update patch", "batch", "jobs/status"),
        _rule("update", "batch", "jobs/finalizers"),
        _rule("create delete get list patch update watch", "core", "pods"),
        _EVENTS,
    ),
    "cronjob-controller": (
        _rule("get list watch update patch", "batch", "cronjobs"),
        _rule("create delete get list patch update watch", "batch", "jobs"),
        _rule("update patch", "batch", "cronjobs/status"),
        _rule("update", "batch", "cronjobs/finalizers"),
        _rule("list delete", "core", "pods"),
        _EVENTS,
    ),
    "network-policy-controller": (
        _rule(_READ, "core", "namespaces pods"),
        _rule(_READ, "networking.k8s.io", "networkpolicies"),
    ),
    "disruption-controller": (
        _rule(_READ, "apps", "deployments replicasets statefulsets"),
        _rule(_READ, "core", "replicationcontrollers pods"),
        _rule(_READ, "policy", "poddisruptionbudgets"),
        _rule("update", "policy", "poddisruptionbudgets/status"),
        _rule("patch update", "core", "pods/status"),
        _rule("get", "*", "*/scale"),
        _EVENTS,
    ),
    "taint-eviction-controller": (
        _rule("get list watch", "core", "nodes"),
        _rule("get delete list watch", "core", "pods"),
        _rule("patch update", "core", "pods/status"),
        _EVENTS,
    ),
    "ttl-controller": (_rule("update patch list watch", "core", "nodes"), _EVENTS),
    "resourcequota-controller": (
        _rule("list watch", "*", "*"), _rule("update", "core", "resourcequotas/status"), _EVENTS,
    ),
    "ttl-after-finished-controller": (
        _rule("get list watch delete", "batch", "jobs"), _EVENTS,
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
    for rule in rules:
        plain = [r for r in rule["resources"] if "/" not in r]
        verbs: list[Any] = rule["verbs"]
        if plain and rule is not _EVENTS and not {"get", "list", "watch"} <= set(verbs):
            extra.append(
                {"verbs": _READ.split(), "apiGroups": rule["apiGroups"], "resources": plain}
            )
    return (*rules, *extra)


@cache
def objects() -> list[Body]:
    """All of them, in the order to create them: roles before the bindings that name them. Shared:
    not to be edited."""
    edit = (*_EDIT, *_VIEW)
    roles = [_role(name, rules) for name, rules in _CLUSTER_ROLES.items()]
    roles += [
        _role("admin", (*_ADMIN, *edit), aggregates="admin"),
        _role("edit", edit, aggregates="edit", labels={_aggregate("admin"): "true"}),
        _role("view", _VIEW, aggregates="view", labels={_aggregate("edit"): "true"}),
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
    for controller, rules in _CONTROLLERS.items():
        role = f"system:controller:{controller}"
        roles.append(_role(role, _with_reads(rules)))
        bindings[role] = [_account(controller)]
    return [
        *roles,
        *_in_namespace("kube-system", "system:coredns", _account("coredns"),
                       _rule("list watch", "core", "configmaps", "kube-dns")),
        *(_binding(role, subjects) for role, subjects in bindings.items()),
    ]  # fmt: skip


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
