"""HorizontalPodAutoscaler: stored as autoscaling/v2, served as v1 too."""

from __future__ import annotations

from dataclasses import replace

from sampan.api.catalogue.parts import ALL, fields, strict
from sampan.api.columns import autoscaling as columns
from sampan.api.resource import Alias, Column, ResourceType, Rules
from sampan.api.rules import autoscaling as rules
from sampan.api.rules import autoscaling_v1 as v1
from sampan.api.rules import prepare

_NAME = "horizontalpodautoscalers"
_RULES = Rules(
    default=strict(rules.default),
    prepare_create=rules.begin,
    prepare_update=prepare.keep_status,
    validate=rules.validate,
    validate_create=rules.validate_create,
    validate_update=rules.validate_update,
    validate_status=rules.validate_status,
)


def _of_stored(column: Column) -> Column:
    return replace(column, cell=lambda body, now: column.cell(v1.stored(body), now))


KINDS: tuple[ResourceType, ...] = (
    ResourceType(
        group="autoscaling", version="v2", kind="HorizontalPodAutoscaler", plural=_NAME,
        singular="horizontalpodautoscaler", short_names=("hpa",), categories=ALL,
        definition="io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler", subresources=("status",),
        fields=fields(), has_status=True, has_generation=True,
        columns=columns.HORIZONTAL_POD_AUTOSCALER, rules=_RULES,
    ),
    ResourceType(
        group="autoscaling", version="v1", kind="HorizontalPodAutoscaler", plural=_NAME,
        singular="horizontalpodautoscaler", short_names=("hpa",), categories=ALL,
        definition="io.k8s.api.autoscaling.v1.HorizontalPodAutoscaler", subresources=("status",),
        fields=fields(), has_status=True,
        columns=tuple(_of_stored(c) for c in columns.HORIZONTAL_POD_AUTOSCALER),
        alias=Alias(f"{_NAME}.autoscaling", v1.stored, v1.shown, v1.FIELDS),
    ),
)  # fmt: skip
