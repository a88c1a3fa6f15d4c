"""Columns of ResourceQuota and LimitRange."""

from __future__ import annotations

from sampan.api.columns.cells import AGE, CREATED_AT, NAME, dig
from sampan.api.obj import Body
from sampan.api.resource import Column


def _used(body: Body, *, limits: bool) -> str:
    hard, used = dig(body, "status.hard", {}), dig(body, "status.used", {})
    return ", ".join(
        f"{name}: {used.get(name, '0')}/{hard[name]}"
        for name in sorted(hard)
        if name.startswith("limits.") is limits
    )


RESOURCE_QUOTA = (
    NAME,
    Column(
        "Request",
        lambda body, _now: _used(body, limits=False),
        description="Used and allowed: counts, and what is set aside at least.",
    ),
    Column(
        "Limit",
        lambda body, _now: _used(body, limits=True),
        description="Used and allowed: what may be taken at most.",
    ),
    AGE,
)
LIMIT_RANGE = (NAME, CREATED_AT)
