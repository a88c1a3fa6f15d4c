"""The workload kinds: group apps, and the core kinds that are their forebears."""

from __future__ import annotations

from sampan.api.catalogue.parts import ALL, count, fields, strict
from sampan.api.columns import workload
from sampan.api.obj import Body
from sampan.api.resource import ResourceType, Rules, ScalePaths
from sampan.api.rules import defaults, prepare, sets, warnings
from sampan.api.rules import workload as rules

APPS = "io.k8s.api.apps.v1"
CORE = "io.k8s.api.core.v1"
_DEPLOYMENT = Rules(
    default=strict(defaults.deployment),
    prepare_create=prepare.drop_status,
    prepare_update=prepare.keep_status,
    validate=rules.validate_deployment,
    validate_update=rules.same_selector,
    validate_status=rules.validate_status,
    warn=warnings.workload,
)
_REPLICA_SET = Rules(
    default=strict(defaults.replica_set),
    prepare_create=prepare.create_replica_set,
    prepare_update=prepare.keep_status,
    validate=rules.validate_replica_set,
    validate_update=rules.same_selector,
    validate_status=rules.validate_status,
    warn=warnings.workload,
)


def _stateful_warnings(body: Body) -> list[str]:
    return warnings.workload(body) + sets.history_warning(body)


def _template_warnings(body: Body) -> list[str]:
    return warnings.template(body.get("template") or {}, "template")


_STATEFUL_SET = Rules(
    default=strict(defaults.stateful_set),
    prepare_create=prepare.create_stateful_set,
    prepare_update=prepare.keep_status,
    validate=sets.stateful_set,
    validate_update=sets.stateful_set_update,
    validate_status=sets.stateful_set_status,
    warn=_stateful_warnings,
)
_DAEMON_SET = Rules(
    default=strict(defaults.daemon_set),
    prepare_create=sets.create_daemon_set,
    prepare_update=sets.update_daemon_set,
    validate=sets.daemon_set,
    validate_update=rules.same_selector,
    validate_status=sets.daemon_set_status,
    warn=warnings.workload,
)
_REPLICATION_CONTROLLER = Rules(
    default=strict(defaults.replication_controller),
    prepare_create=prepare.create_replica_set,
    prepare_update=prepare.keep_status,
    validate=rules.validate_replication_controller,
    validate_status=rules.validate_status,
    warn=warnings.workload,
)
_POD_TEMPLATE = Rules(
    default=strict(defaults.pod_template), validate=sets.pod_template, warn=_template_warnings
)
_CONTROLLER_REVISION = Rules(
    validate=sets.controller_revision, validate_update=sets.controller_revision_update
)

KINDS: tuple[ResourceType, ...] = (
    ResourceType(
        group="apps", kind="Deployment", plural="deployments", singular="deployment",
        short_names=("deploy",), categories=ALL, definition=f"{APPS}.Deployment",
        subresources=("scale", "status"), fields=fields(), has_status=True,
        has_generation=True, scale=ScalePaths(),
        columns=workload.DEPLOYMENT, rules=_DEPLOYMENT,
    ),
    ResourceType(
        group="apps", kind="ReplicaSet", plural="replicasets", singular="replicaset",
        short_names=("rs",), categories=ALL, definition=f"{APPS}.ReplicaSet",
        subresources=("scale", "status"),
        fields=fields(status__replicas=count("status.replicas")), has_status=True,
        has_generation=True, scale=ScalePaths(),
        columns=workload.REPLICA_SET, rules=_REPLICA_SET,
    ),
    ResourceType(
        group="apps", kind="StatefulSet", plural="statefulsets", singular="statefulset",
        short_names=("sts",), categories=ALL, definition=f"{APPS}.StatefulSet",
        subresources=("scale", "status"), fields=fields(), has_status=True,
        has_generation=True, scale=ScalePaths(), name_rule="label",
        columns=workload.STATEFUL_SET, rules=_STATEFUL_SET,
    ),
    ResourceType(
        group="apps", kind="DaemonSet", plural="daemonsets", singular="daemonset",
        short_names=("ds",), categories=ALL, definition=f"{APPS}.DaemonSet",
        subresources=("status",), fields=fields(), has_status=True, has_generation=True,
        columns=workload.DAEMON_SET, rules=_DAEMON_SET,
    ),
    ResourceType(
        group="apps", kind="ControllerRevision", plural="controllerrevisions",
        singular="controllerrevision", definition=f"{APPS}.ControllerRevision", fields=fields(),
        columns=workload.CONTROLLER_REVISION, rules=_CONTROLLER_REVISION,
    ),
    ResourceType(
        kind="ReplicationController", plural="replicationcontrollers",
        singular="replicationcontroller", short_names=("rc",), categories=ALL,
        definition=f"{CORE}.ReplicationController", subresources=("scale", "status"),
        fields=fields(status__replicas=count("status.replicas")), has_status=True,
        has_generation=True, scale=ScalePaths(is_map=True),
        columns=workload.REPLICATION_CONTROLLER, rules=_REPLICATION_CONTROLLER,
    ),
    ResourceType(
        kind="PodTemplate", plural="podtemplates", singular="podtemplate",
        definition=f"{CORE}.PodTemplate", fields=fields(), has_generation=True,
        columns=workload.POD_TEMPLATE, rules=_POD_TEMPLATE,
    ),
)  # fmt: skip
