"""The kinds of group apps."""

from __future__ import annotations

from sampan.api.catalogue.parts import ALL, count, fields, strict
from sampan.api.columns import workload
from sampan.api.resource import ResourceType, Rules, ScalePaths
from sampan.api.rules import defaults, prepare, warnings
from sampan.api.rules import workload as rules

APPS = "io.k8s.api.apps.v1"
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
)  # fmt: skip
