"""The catalogue: one declaration per built-in kind. Adding a kind is adding a record here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sampan.api.columns import core, network, pod, rbac, workload
from sampan.api.errors import bad_request
from sampan.api.obj import Body
from sampan.api.resource import Registry, ResourceType, Rules, ScalePaths
from sampan.api.rules import core as rules
from sampan.api.rules import defaults, podspec_defaults, prepare, warnings
from sampan.api.rules import network as network_rules
from sampan.api.rules import pod as pods
from sampan.api.rules import rbac as rbac_rules
from sampan.api.rules import workload as workloads
from sampan.lib.quantity import QuantityError

CORE = "io.k8s.api.core.v1"
APPS = "io.k8s.api.apps.v1"
RBAC = "io.k8s.api.rbac.v1"
AUTHN = "io.k8s.api.authentication.v1"
AUTHZ = "io.k8s.api.authorization.v1"
ALL = ("all",)
CREATE_ONLY = ("create",)

_Fields = Mapping[str, Callable[[Body], str]]


def _at(path: str) -> Callable[[Body], str]:
    """A field's value as a field selector compares it ('' when absent)."""
    steps = path.split(".")

    def read(body: Body) -> str:
        value: Any = body
        for step in steps:
            value = value.get(step) if isinstance(value, dict) else None
        if isinstance(value, bool):
            return "true" if value else "false"
        return "" if value is None else str(value)

    return read


def _fields(*paths: str, **special: Callable[[Body], str]) -> _Fields:
    found = {p: _at(p) for p in ("metadata.name", "metadata.namespace", *paths)}
    found.update({k.replace("__", "."): v for k, v in special.items()})
    return found


def _flag(path: str) -> Callable[[Body], str]:
    read = _at(path)
    return lambda body: read(body) or "false"


def _count(path: str) -> Callable[[Body], str]:
    read = _at(path)
    return lambda body: read(body) or "0"


def _event_source(body: Body) -> str:
    source = (body.get("source") or {}).get("component")
    return str(source or body.get("reportingComponent") or "")


def _strict(default: Callable[[Body], None]) -> Callable[[Body], None]:
    """*default*, with unreadable quantities reported as a failed decoding (400)."""

    def run(body: Body) -> None:
        try:
            default(body)
        except QuantityError as e:
            kind, version = body.get("kind", ""), body.get("apiVersion", "")
            raise bad_request(
                f'{kind} in version "{version}" cannot be handled as a {kind}: {e}'
            ) from None

    return run


_NAMESPACE = Rules(
    default=defaults.namespace,
    prepare_create=prepare.create_namespace,
    prepare_update=prepare.update_namespace,
    validate=rules.namespace,
    validate_status=rules.namespace_status,
)
_NODE = Rules(
    default=_strict(defaults.node),
    prepare_update=prepare.keep_status,
    validate=rules.node,
    validate_update=rules.node_update,
    validate_status=rules.node_status,
)
_POD = Rules(
    default=_strict(podspec_defaults.default_pod),
    prepare_create=prepare.create_pod,
    prepare_update=prepare.keep_status,
    validate=pods.validate,
    validate_update=pods.validate_update,
    validate_status=pods.validate_status,
    warn=warnings.pod,
)
_SECRET = Rules(
    default=defaults.secret,
    prepare_create=prepare.secret_data,
    prepare_update=lambda new, _old: prepare.secret_data(new),
    validate=rules.secret,
    validate_update=rules.secret_update,
)
_CONFIG_MAP = Rules(validate=rules.config_map, validate_update=rules.config_map_update)
_SERVICE = Rules(
    default=defaults.service,
    prepare_create=prepare.create_service,
    prepare_update=prepare.update_service,
    validate=network_rules.service,
    validate_update=network_rules.service_update,
    warn=warnings.service,
)
_ENDPOINTS = Rules(default=defaults.endpoints, validate=network_rules.endpoints)
_ENDPOINT_SLICE = Rules(
    default=defaults.endpoint_slice,
    validate=network_rules.endpoint_slice,
    validate_update=network_rules.endpoint_slice_update,
)
_EVENT = Rules(validate=rules.event)
_DEPLOYMENT = Rules(
    default=_strict(defaults.deployment),
    prepare_create=prepare.drop_status,
    prepare_update=prepare.keep_status,
    validate=workloads.validate_deployment,
    validate_update=workloads.same_selector,
    validate_status=workloads.validate_status,
    warn=warnings.workload,
)
_REPLICA_SET = Rules(
    default=_strict(defaults.replica_set),
    prepare_create=prepare.create_replica_set,
    prepare_update=prepare.keep_status,
    validate=workloads.validate_replica_set,
    validate_update=workloads.same_selector,
    validate_status=workloads.validate_status,
    warn=warnings.workload,
)
_RBAC = {
    "Role": Rules(validate=rbac_rules.role),
    "ClusterRole": Rules(validate=rbac_rules.cluster_role),
    "RoleBinding": Rules(
        default=defaults.role_binding,
        validate=rbac_rules.role_binding,
        validate_update=rbac_rules.binding_update,
    ),
    "ClusterRoleBinding": Rules(
        default=defaults.role_binding,
        validate=rbac_rules.cluster_role_binding,
        validate_update=rbac_rules.binding_update,
    ),
}
_REVIEWS = {
    "TokenReview": Rules(validate=rbac_rules.token_review),
    "SubjectAccessReview": Rules(validate=rbac_rules.access_review),
    "SelfSubjectAccessReview": Rules(validate=rbac_rules.self_access_review),
    "LocalSubjectAccessReview": Rules(validate=rbac_rules.local_access_review),
}
_LEASE = Rules(validate=rules.lease)
_PRIORITY_CLASS = Rules(
    default=defaults.priority_class,
    validate=rules.priority_class,
    validate_update=rules.priority_class_update,
)


def builtin() -> Registry:
    """Every kind the program is born with."""
    return Registry((*_core(), *_apps(), *_rbac(), *_reviews(), *_rest()))


def _core() -> tuple[ResourceType, ...]:
    return (
        ResourceType(
            kind="Namespace", plural="namespaces", singular="namespace", short_names=("ns",),
            namespaced=False, definition=f"{CORE}.Namespace", subresources=("finalize", "status"),
            verbs=("create", "delete", "get", "list", "patch", "update", "watch"),
            fields=_fields("status.phase"), has_status=True, name_rule="label",
            columns=core.NAMESPACE, rules=_NAMESPACE,
        ),
        ResourceType(
            kind="Node", plural="nodes", singular="node", short_names=("no",), namespaced=False,
            definition=f"{CORE}.Node", subresources=("status",),
            fields=_fields(spec__unschedulable=_flag("spec.unschedulable")), has_status=True,
            columns=core.NODE, rules=_NODE,
        ),
        ResourceType(
            kind="Pod", plural="pods", singular="pod", short_names=("po",), categories=ALL,
            definition=f"{CORE}.Pod",
            subresources=("attach", "binding", "exec", "log", "status"),
            fields=_fields(
                "spec.nodeName", "spec.restartPolicy", "spec.schedulerName",
                "spec.serviceAccountName", "status.phase", "status.podIP",
                "status.nominatedNodeName", spec__hostNetwork=_flag("spec.hostNetwork"),
            ),
            has_status=True, has_generation=True, graceful=True,
            columns=pod.POD, rules=_POD,
        ),
        ResourceType(
            kind="ServiceAccount", plural="serviceaccounts", singular="serviceaccount",
            short_names=("sa",), definition=f"{CORE}.ServiceAccount", subresources=("token",),
            fields=_fields(),
            columns=core.SERVICE_ACCOUNT,
        ),
        ResourceType(
            kind="Secret", plural="secrets", singular="secret", definition=f"{CORE}.Secret",
            fields=_fields("type"),
            columns=core.SECRET, rules=_SECRET,
        ),
        ResourceType(
            kind="ConfigMap", plural="configmaps", singular="configmap", short_names=("cm",),
            definition=f"{CORE}.ConfigMap", fields=_fields(),
            columns=core.CONFIG_MAP, rules=_CONFIG_MAP,
        ),
        ResourceType(
            kind="Service", plural="services", singular="service", short_names=("svc",),
            categories=ALL, definition=f"{CORE}.Service", subresources=("status",),
            fields=_fields("spec.clusterIP", "spec.type"), has_status=True, name_rule="label",
            columns=network.SERVICE, rules=_SERVICE,
        ),
        ResourceType(
            kind="Endpoints", plural="endpoints", singular="endpoints", short_names=("ep",),
            definition=f"{CORE}.Endpoints", fields=_fields(),
            deprecation="v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 "
            "EndpointSlice",
            columns=network.ENDPOINTS, rules=_ENDPOINTS,
        ),
        ResourceType(
            kind="Event", plural="events", singular="event", short_names=("ev",),
            definition=f"{CORE}.Event", volatile=True,
            fields=_fields(
                "involvedObject.kind", "involvedObject.namespace", "involvedObject.name",
                "involvedObject.uid", "involvedObject.apiVersion",
                "involvedObject.resourceVersion", "involvedObject.fieldPath", "reason",
                "reportingComponent", "type", source=_event_source,
            ),
            columns=core.EVENT, rules=_EVENT,
        ),
    )  # fmt: skip


def _apps() -> tuple[ResourceType, ...]:
    return (
        ResourceType(
            group="apps", kind="Deployment", plural="deployments", singular="deployment",
            short_names=("deploy",), categories=ALL, definition=f"{APPS}.Deployment",
            subresources=("scale", "status"), fields=_fields(), has_status=True,
            has_generation=True, scale=ScalePaths(),
            columns=workload.DEPLOYMENT, rules=_DEPLOYMENT,
        ),
        ResourceType(
            group="apps", kind="ReplicaSet", plural="replicasets", singular="replicaset",
            short_names=("rs",), categories=ALL, definition=f"{APPS}.ReplicaSet",
            subresources=("scale", "status"),
            fields=_fields(status__replicas=_count("status.replicas")), has_status=True,
            has_generation=True, scale=ScalePaths(),
            columns=workload.REPLICA_SET, rules=_REPLICA_SET,
        ),
    )  # fmt: skip


def _rbac() -> tuple[ResourceType, ...]:
    group = "rbac.authorization.k8s.io"
    return tuple(
        ResourceType(
            group=group, kind=kind, plural=f"{kind.lower()}s", singular=kind.lower(),
            namespaced=not kind.startswith("Cluster"), definition=f"{RBAC}.{kind}",
            fields=_fields(), name_rule="path",
           
            columns=rbac.ROLE_BINDING if kind.endswith("Binding") else rbac.ROLE,
            rules=_RBAC[kind],
        )
        for kind in ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
    )  # fmt: skip


def _reviews() -> tuple[ResourceType, ...]:
    """Kinds that are answered at once and never stored."""
    authn, authz = "authentication.k8s.io", "authorization.k8s.io"
    kinds = (
        (authn, AUTHN, "TokenReview", False),
        (authn, AUTHN, "SelfSubjectReview", False),
        (authz, AUTHZ, "SubjectAccessReview", False),
        (authz, AUTHZ, "SelfSubjectAccessReview", False),
        (authz, AUTHZ, "SelfSubjectRulesReview", False),
        (authz, AUTHZ, "LocalSubjectAccessReview", True),
    )
    return tuple(
        ResourceType(
            group=group, kind=kind, plural=f"{kind.lower()}s", singular=kind.lower(),
            namespaced=namespaced, definition=f"{package}.{kind}", verbs=CREATE_ONLY,
            virtual=True, rules=_REVIEWS.get(kind, Rules()),
        )
        for group, package, kind, namespaced in kinds
    )  # fmt: skip


def _rest() -> tuple[ResourceType, ...]:
    return (
        ResourceType(
            group="discovery.k8s.io", kind="EndpointSlice", plural="endpointslices",
            singular="endpointslice", definition="io.k8s.api.discovery.v1.EndpointSlice",
            fields=_fields(),
            columns=network.ENDPOINT_SLICE, rules=_ENDPOINT_SLICE,
        ),
        ResourceType(
            group="coordination.k8s.io", kind="Lease", plural="leases", singular="lease",
            definition="io.k8s.api.coordination.v1.Lease", fields=_fields(), volatile=True,
            columns=core.LEASE, rules=_LEASE,
        ),
        ResourceType(
            group="scheduling.k8s.io", kind="PriorityClass", plural="priorityclasses",
            singular="priorityclass", short_names=("pc",), namespaced=False,
            definition="io.k8s.api.scheduling.v1.PriorityClass", fields=_fields(),
            columns=core.PRIORITY_CLASS, rules=_PRIORITY_CLASS,
        ),
    )  # fmt: skip
