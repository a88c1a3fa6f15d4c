"""The kinds of group certificates.k8s.io."""

from __future__ import annotations

from sampan.api.catalogue.parts import fields
from sampan.api.columns.certificates import REQUEST
from sampan.api.resource import Part, ResourceType, Rules
from sampan.api.rules import certificates as rules
from sampan.api.rules import prepare

_REQUEST = Rules(
    prepare_create=prepare.drop_status,
    prepare_update=rules.keep_all,
    validate=rules.validate_request,
    validate_update=rules.validate_update,
    validate_status=rules.validate_status,
    parts={
        "approval": Part(take=rules.take_approval, validate=rules.validate_approval, of_status=True)
    },
)

KINDS: tuple[ResourceType, ...] = (
    ResourceType(
        group="certificates.k8s.io", kind="CertificateSigningRequest",
        plural="certificatesigningrequests", singular="certificatesigningrequest",
        short_names=("csr",), namespaced=False,
        definition="io.k8s.api.certificates.v1.CertificateSigningRequest",
        subresources=("approval", "status"), fields=fields("spec.signerName"), has_status=True,
        name_rule="path", columns=REQUEST, rules=_REQUEST,
    ),
)  # fmt: skip
