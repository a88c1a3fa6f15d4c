"""The core kinds: what every cluster is made of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sampan.api.catalogue.parts import ALL, fields, flag, strict
from sampan.api.columns import core, pod
from sampan.api.obj import Body
from sampan.api.resource import Alias, Column, Part, ResourceType, Rules
from sampan.api.rules import core as rules
from sampan.api.rules import defaults, events, podspec_defaults, prepare, resize, warnings
from sampan.api.rules import pod as pods

CORE = "io.k8s.api.core.v1"


def _event_source(body: Body) -> str:
    source = (body.get("source") or {}).get("component")
    return str(source or body.get("reportingComponent") or "")


def _of_stored(column: Column) -> Column:
    """A column of v1's events, for their newer shape."""

    def cell(body: Body, now: float) -> Any:
        return column.cell(events.stored(body), now)

    return replace(column, cell=cell)


_NAMESPACE = Rules(
    default=defaults.namespace,
    prepare_create=prepare.create_namespace,
    prepare_update=prepare.update_namespace,
    validate=rules.namespace,
    validate_status=rules.namespace_status,
)
_NODE = Rules(
    default=strict(defaults.node),
    prepare_update=prepare.keep_status,
    validate=rules.node,
    validate_update=rules.node_update,
    validate_status=rules.node_status,
)
_POD = Rules(
    default=strict(podspec_defaults.default_pod),
    prepare_create=prepare.create_pod,
    prepare_update=prepare.keep_status,
    validate=pods.validate,
    validate_create=pods.validate_create,
    validate_update=pods.validate_update,
    validate_status=pods.validate_status,
    warn=warnings.pod,
    parts={
        "ephemeralcontainers": Part(pods.take_ephemeral, pods.validate_ephemeral),
        "resize": Part(resize.take, resize.validate),
    },
)
_SECRET = Rules(
    default=defaults.secret,
    prepare_create=prepare.secret_data,
    prepare_update=lambda new, _old: prepare.secret_data(new),
    validate=rules.secret,
    validate_update=rules.secret_update,
)
_CONFIG_MAP = Rules(validate=rules.config_map, validate_update=rules.config_map_update)
_EVENT = Rules(validate=rules.event)
_LEASE = Rules(validate=rules.lease)
_PRIORITY_CLASS = Rules(
    default=defaults.priority_class,
    validate=rules.priority_class,
    validate_update=rules.priority_class_update,
)

KINDS: tuple[ResourceType, ...] = (
    ResourceType(
        kind="Namespace", plural="namespaces", singular="namespace", short_names=("ns",),
        namespaced=False, definition=f"{CORE}.Namespace", subresources=("finalize", "status"),
        verbs=("create", "delete", "get", "list", "patch", "update", "watch"),
        fields=fields("status.phase"), has_status=True, name_rule="label",
        columns=core.NAMESPACE, rules=_NAMESPACE,
    ),
    ResourceType(
        kind="Node", plural="nodes", singular="node", short_names=("no",), namespaced=False,
        definition=f"{CORE}.Node", subresources=("status",),
        fields=fields(spec__unschedulable=flag("spec.unschedulable")), has_status=True,
        columns=core.NODE, rules=_NODE,
    ),
    ResourceType(
        kind="Pod", plural="pods", singular="pod", short_names=("po",), categories=ALL,
        definition=f"{CORE}.Pod",
        subresources=("attach", "binding", "ephemeralcontainers", "eviction", "exec", "log",
                      "portforward", "proxy", "resize", "status"),
        fields=fields(
            "spec.nodeName", "spec.restartPolicy", "spec.schedulerName",
            "spec.serviceAccountName", "status.phase", "status.podIP",
            "status.nominatedNodeName", spec__hostNetwork=flag("spec.hostNetwork"),
        ),
        has_status=True, has_generation=True, graceful=True,
        columns=pod.POD, rules=_POD,
    ),
    ResourceType(
        kind="ServiceAccount", plural="serviceaccounts", singular="serviceaccount",
        short_names=("sa",), definition=f"{CORE}.ServiceAccount", subresources=("token",),
        fields=fields(),
        columns=core.SERVICE_ACCOUNT,
    ),
    ResourceType(
        kind="Secret", plural="secrets", singular="secret", definition=f"{CORE}.Secret",
        fields=fields("type"),
        columns=core.SECRET, rules=_SECRET,
    ),
    ResourceType(
        kind="ConfigMap", plural="configmaps", singular="configmap", short_names=("cm",),
        definition=f"{CORE}.ConfigMap", fields=fields(),
        columns=core.CONFIG_MAP, rules=_CONFIG_MAP,
    ),
    ResourceType(
        kind="Event", plural="events", singular="event", short_names=("ev",),
        definition=f"{CORE}.Event", volatile=True,
        fields=fields(
            "involvedObject.kind", "involvedObject.namespace", "involvedObject.name",
            "involvedObject.uid", "involvedObject.apiVersion",
            "involvedObject.resourceVersion", "involvedObject.fieldPath", "reason",
            "reportingComponent", "type", source=_event_source,
        ),
        columns=core.EVENT, rules=_EVENT,
    ),
    ResourceType(
        group="events.k8s.io", kind="Event", plural="events", singular="event",
        short_names=("ev",), definition="io.k8s.api.events.v1.Event", volatile=True,
        fields=fields(),
        columns=tuple(_of_stored(c) for c in core.EVENT),
        rules=Rules(validate_create=events.validate_create),
        alias=Alias("events", events.stored, events.shown, events.FIELDS),
    ),
    ResourceType(
        group="coordination.k8s.io", kind="Lease", plural="leases", singular="lease",
        definition="io.k8s.api.coordination.v1.Lease", fields=fields(), volatile=True,
        columns=core.LEASE, rules=_LEASE,
    ),
    ResourceType(
        group="scheduling.k8s.io", kind="PriorityClass", plural="priorityclasses",
        singular="priorityclass", short_names=("pc",), namespaced=False,
        definition="io.k8s.api.scheduling.v1.PriorityClass", fields=fields(),
        columns=core.PRIORITY_CLASS, rules=_PRIORITY_CLASS,
    ),
)  # fmt: skip
