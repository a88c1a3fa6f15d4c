"""Columns of PodDisruptionBudgets."""

from __future__ import annotations

from sampan.api.columns.cells import AGE, NAME, dig, number
from sampan.api.resource import Column

BUDGET = (
    NAME,
    Column(
        "Min Available",
        lambda body, _now: str(dig(body, "spec.minAvailable", "N/A")),
        description="How many pods, or which part of them, must stay available.",
    ),
    Column(
        "Max Unavailable",
        lambda body, _now: str(dig(body, "spec.maxUnavailable", "N/A")),
        description="How many pods, or which part of them, may be unavailable.",
    ),
    number(
        "Allowed Disruptions", "status.disruptionsAllowed",
        about="How many pods may be evicted now.",
    ),
    AGE,
)  # fmt: skip
