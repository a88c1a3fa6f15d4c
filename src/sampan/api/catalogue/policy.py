"""The kinds of group policy."""

from __future__ import annotations

from sampan.api.catalogue.parts import fields
from sampan.api.columns.policy import BUDGET
from sampan.api.resource import ResourceType, Rules
from sampan.api.rules import policy as rules
from sampan.api.rules import prepare

_BUDGET = Rules(
    prepare_create=rules.create_budget,
    prepare_update=prepare.keep_status,
    validate=rules.validate_budget,
    validate_status=rules.validate_budget_status,
)

KINDS: tuple[ResourceType, ...] = (
    ResourceType(
        group="policy", kind="PodDisruptionBudget", plural="poddisruptionbudgets",
        singular="poddisruptionbudget", short_names=("pdb",),
        definition="io.k8s.api.policy.v1.PodDisruptionBudget", subresources=("status",),
        fields=fields(), has_status=True, has_generation=True, columns=BUDGET, rules=_BUDGET,
    ),
)  # fmt: skip
