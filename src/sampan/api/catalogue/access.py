"""Who may do what: the RBAC kinds and the reviews."""

from __future__ import annotations

from sampan.api.catalogue.parts import fields
from sampan.api.columns import rbac
from sampan.api.resource import ResourceType, Rules
from sampan.api.rules import defaults
from sampan.api.rules import rbac as rules

RBAC = "io.k8s.api.rbac.v1"
AUTHN = "io.k8s.api.authentication.v1"
AUTHZ = "io.k8s.api.authorization.v1"
CREATE_ONLY = ("create",)
_RBAC = {
    "Role": Rules(validate=rules.role),
    "ClusterRole": Rules(validate=rules.cluster_role),
    "RoleBinding": Rules(
        default=defaults.role_binding,
        validate=rules.role_binding,
        validate_update=rules.binding_update,
    ),
    "ClusterRoleBinding": Rules(
        default=defaults.role_binding,
        validate=rules.cluster_role_binding,
        validate_update=rules.binding_update,
    ),
}
_REVIEWS = {
    "TokenReview": Rules(validate=rules.token_review),
    "SubjectAccessReview": Rules(validate=rules.access_review),
    "SelfSubjectAccessReview": Rules(validate=rules.self_access_review),
    "LocalSubjectAccessReview": Rules(validate=rules.local_access_review),
}


def _rbac() -> tuple[ResourceType, ...]:
    group = "rbac.authorization.k8s.io"
    return tuple(
        ResourceType(
            group=group, kind=kind, plural=f"{kind.lower()}s", singular=kind.lower(),
            namespaced=not kind.startswith("Cluster"), definition=f"{RBAC}.{kind}",
            fields=fields(), name_rule="path",
           
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


KINDS = (*_rbac(), *_reviews())
