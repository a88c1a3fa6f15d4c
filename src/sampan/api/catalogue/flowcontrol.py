"""The kinds of group flowcontrol.apiserver.k8s.io: served and checked, nothing is limited by
them."""

from __future__ import annotations

from sampan.api.catalogue.parts import fields
from sampan.api.columns import flowcontrol as columns
from sampan.api.resource import ResourceType, Rules
from sampan.api.rules import flowcontrol as rules
from sampan.api.rules import prepare

_GROUP = "flowcontrol.apiserver.k8s.io"

KINDS: tuple[ResourceType, ...] = (
    ResourceType(
        group=_GROUP, kind="FlowSchema", plural="flowschemas", singular="flowschema",
        namespaced=False, definition="io.k8s.api.flowcontrol.v1.FlowSchema",
        subresources=("status",), fields=fields(), has_status=True, has_generation=True,
        columns=columns.FLOW_SCHEMA,
        rules=Rules(
            default=rules.default_schema,
            prepare_create=prepare.drop_status,
            prepare_update=prepare.keep_status,
            validate=rules.schema,
            validate_status=rules.validate_status,
        ),
    ),
    ResourceType(
        group=_GROUP, kind="PriorityLevelConfiguration", plural="prioritylevelconfigurations",
        singular="prioritylevelconfiguration", namespaced=False,
        definition="io.k8s.api.flowcontrol.v1.PriorityLevelConfiguration",
        subresources=("status",), fields=fields(), has_status=True, has_generation=True,
        columns=columns.PRIORITY_LEVEL,
        rules=Rules(
            default=rules.default_level,
            prepare_create=prepare.drop_status,
            prepare_update=prepare.keep_status,
            validate=rules.level,
            validate_status=rules.validate_status,
        ),
    ),
)  # fmt: skip
