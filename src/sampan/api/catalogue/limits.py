"""What a namespace may use: ResourceQuota and LimitRange."""

from __future__ import annotations

from sampan.api.catalogue.parts import fields, strict
from sampan.api.columns import quota as columns
from sampan.api.resource import ResourceType, Rules
from sampan.api.rules import prepare
from sampan.api.rules import quota as rules

CORE = "io.k8s.api.core.v1"
_QUOTA = Rules(
    prepare_create=prepare.drop_status,
    prepare_update=prepare.keep_status,
    validate=rules.resource_quota,
    validate_update=rules.resource_quota_update,
    validate_status=rules.resource_quota_status,
)
_LIMIT_RANGE = Rules(default=strict(rules.default_limit_range), validate=rules.limit_range)

KINDS: tuple[ResourceType, ...] = (
    ResourceType(
        kind="ResourceQuota", plural="resourcequotas", singular="resourcequota",
        short_names=("quota",), definition=f"{CORE}.ResourceQuota", subresources=("status",),
        fields=fields(), has_status=True, columns=columns.RESOURCE_QUOTA, rules=_QUOTA,
    ),
    ResourceType(
        kind="LimitRange", plural="limitranges", singular="limitrange", short_names=("limits",),
        definition=f"{CORE}.LimitRange", fields=fields(), columns=columns.LIMIT_RANGE,
        rules=_LIMIT_RANGE,
    ),
)  # fmt: skip
