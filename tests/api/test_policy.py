"""PodDisruptionBudgets: every fault with its words, and columns."""

from __future__ import annotations

from typing import Any

import pytest

from sampan.api.catalogue import builtin

BUDGET = builtin().get("poddisruptionbudgets.policy")


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"minAvailable": 1}, []),
        ({"maxUnavailable": "25%"}, []),
        ({"minAvailable": 1, "maxUnavailable": 1}, [
            'spec: Invalid value: {"minAvailable":1,"maxUnavailable":1}: minAvailable and '
            "maxUnavailable cannot be both set"]),
        ({"minAvailable": -1}, [
            "spec.minAvailable: Invalid value: -1: must be greater than or equal to 0"]),
        ({"maxUnavailable": "101%"}, [
            "spec.maxUnavailable: Invalid value: 101%: must not be greater than 100%"]),
        ({"minAvailable": "x"}, [
            "spec.minAvailable: Invalid value: x: a valid percent string must be a numeric string "
            "followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is "
            "'[0-9]+%')"]),
        ({"unhealthyPodEvictionPolicy": "No"}, [
            'spec.unhealthyPodEvictionPolicy: Unsupported value: "No": supported values: '
            '"AlwaysAllow", "IfHealthyBudget"']),
        ({"selector": {"matchLabels": {"a": "b c"}}}, ["spec.selector.matchLabels"]),
    ],
)  # fmt: skip
def test_faults(spec: dict[str, Any], expected: list[str]) -> None:
    found = [str(c) for c in BUDGET.rules.validate({"metadata": {"name": "b"}, "spec": spec})]
    assert len(found) == len(expected)
    assert all(f.startswith(e) for f, e in zip(found, expected, strict=True))


def test_a_new_budget_allows_nothing() -> None:
    body: dict[str, Any] = {"spec": {}, "status": {"disruptionsAllowed": 9}}
    BUDGET.rules.prepare_create(body)
    assert body["status"] == {
        "disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0,
    }  # fmt: skip


def test_the_status_is_not_negative() -> None:
    body = {"status": {"currentHealthy": -1}}
    (found,) = BUDGET.rules.validate_status(body, {})
    assert str(found).startswith("status.currentHealthy: Invalid value: -1")


def test_columns() -> None:
    body = {"metadata": {"name": "b"}, "spec": {"minAvailable": 0},
            "status": {"disruptionsAllowed": 2}}  # fmt: skip
    cells = [c.cell(body, 0.0) for c in BUDGET.columns]
    assert cells == ["b", "0", "N/A", 2, "<unknown>"]
    assert [c.name for c in BUDGET.columns] == [
        "Name", "Min Available", "Max Unavailable", "Allowed Disruptions", "Age",
    ]  # fmt: skip
