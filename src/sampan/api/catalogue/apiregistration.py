"""The kind of group apiregistration.k8s.io: which server answers for a group version."""

from __future__ import annotations

from sampan.api.catalogue.parts import fields
from sampan.api.columns.apiregistration import API_SERVICE
from sampan.api.resource import ResourceType, Rules
from sampan.api.rules import apiregistration as rules
from sampan.api.rules import prepare

KINDS: tuple[ResourceType, ...] = (
    ResourceType(
        group="apiregistration.k8s.io", kind="APIService", plural="apiservices",
        singular="apiservice", categories=("api-extensions",), namespaced=False,
        definition="io.k8s.kube-aggregator.pkg.apis.apiregistration.v1.APIService",
        subresources=("status",), fields=fields(), has_status=True, name_rule="path",
        columns=API_SERVICE,
        rules=Rules(
            default=rules.default,
            prepare_create=rules.begin,
            prepare_update=prepare.keep_status,
            validate=rules.validate,
            validate_status=rules.validate_status,
        ),
    ),
)  # fmt: skip
