"""Columns of the RBAC kinds."""

from __future__ import annotations

from sampan.api.columns.cells import AGE, CREATED_AT, NAME, dig
from sampan.api.obj import Body
from sampan.api.resource import Column


def _role(body: Body, _now: float) -> str:
    return f"{dig(body, 'roleRef.kind', '')}/{dig(body, 'roleRef.name', '')}"


def _subjects(kind: str) -> Column:
    def cell(body: Body, _now: float) -> str:
        return ", ".join(
            f"{s['namespace']}/{s.get('name', '')}" if s.get("namespace") else s.get("name", "")
            for s in body.get("subjects") or ()
            if s.get("kind") == kind
        )

    return Column(
        "ServiceAccounts" if kind == "ServiceAccount" else f"{kind}s",
        cell,
        priority=1,
        description=f"{kind}s in the binding",
    )


ROLE = (NAME, CREATED_AT)
ROLE_BINDING = (
    NAME,
    Column("Role", _role, description="The role it grants."),
    AGE,
    *(_subjects(kind) for kind in ("User", "Group", "ServiceAccount")),
)
