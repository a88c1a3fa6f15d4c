"""Validation of a Job's policies: pod failure, success, pod replacement."""

from __future__ import annotations

from sampan.api.errors import Cause
from sampan.api.obj import Body
from sampan.api.rules.field import (
    checked,
    duplicate,
    invalid,
    non_negative,
    not_supported,
    required,
    too_long,
    too_many,
)
from sampan.lib import indexes, names

_ACTIONS = ("Count", "FailIndex", "FailJob", "Ignore")
_OPERATORS = ("In", "NotIn")
_STATUSES = ("False", "True", "Unknown")
_REPLACEMENT = ("Failed", "TerminatingOrFailed")
_MAX_RULES, _MAX_VALUES, _MAX_PATTERNS, _MAX_SUCCESS_RULES = 20, 255, 20, 20
_MAX_INDEXES_TEXT = 64 * 1024


def validate(spec: Body, path: str) -> list[Cause]:
    """All problems of the policies of a JobSpec at *path*."""
    found: list[Cause] = []
    if spec.get("podFailurePolicy") is not None:
        found += _failure(spec, f"{path}.podFailurePolicy")
    if spec.get("successPolicy") is not None:
        at = f"{path}.successPolicy"
        if spec.get("completionMode") != "Indexed":
            why = "requires indexed completion mode"
            found.append(invalid(at, spec["successPolicy"], why))
        else:
            found += _success(spec, at)
    return found + _replacement(spec, f"{path}.podReplacementPolicy")


def _replacement(spec: Body, path: str) -> list[Cause]:
    value = spec.get("podReplacementPolicy")
    if value is None:
        return []
    allowed = ("Failed",) if spec.get("podFailurePolicy") is not None else _REPLACEMENT
    return [] if value in allowed else [not_supported(path, value, allowed)]


def _listed(values: tuple[str, ...]) -> str:
    return "[" + " ".join(f'"{v}"' for v in values) + "]"


def _choice(path: str, value: str, allowed: tuple[str, ...]) -> list[Cause]:
    if not value:
        return [required(path, f"valid values: {_listed(allowed)}")]
    return [] if value in allowed else [not_supported(path, value, allowed)]


# ---- pod failure policy --------------------------------------------------------------------------


def _failure(spec: Body, path: str) -> list[Cause]:
    rules = spec["podFailurePolicy"].get("rules") or []
    found: list[Cause] = []
    if len(rules) > _MAX_RULES:
        found.append(too_many(f"{path}.rules", len(rules), _MAX_RULES))
    inner = (spec.get("template") or {}).get("spec") or {}
    known = {
        c.get("name")
        for kind in ("containers", "initContainers")
        for c in inner.get(kind) or ()
    }  # fmt: skip
    for i, rule in enumerate(rules):
        found += _failure_rule(spec, rule, f"{path}.rules[{i}]", known)
    return found


def _failure_rule(spec: Body, rule: Body, path: str, known: set[str]) -> list[Cause]:
    action = rule.get("action") or ""
    found = _choice(f"{path}.action", action, _ACTIONS)
    if action == "FailIndex" and spec.get("backoffLimitPerIndex") is None:
        why = "requires the backoffLimitPerIndex to be set"
        found.append(invalid(f"{path}.action", action, why))
    codes, patterns = rule.get("onExitCodes"), rule.get("onPodConditions") or []
    if codes is not None:
        found += _exit_codes(codes, f"{path}.onExitCodes", known)
    if patterns:
        found += _patterns(patterns, f"{path}.onPodConditions")
    if codes is not None and patterns:
        why = "specifying both OnExitCodes and OnPodConditions is not supported"
        found.append(_plain(path, why))
    if codes is None and not patterns:
        why = "specifying one of OnExitCodes and OnPodConditions is required"
        found.append(_plain(path, why))
    return found


def _plain(path: str, why: str) -> Cause:
    """An invalid value that is not shown."""
    return Cause(path, "FieldValueInvalid", f"Invalid value: {why}")


def _exit_codes(codes: Body, path: str, known: set[str]) -> list[Cause]:
    operator = codes.get("operator") or ""
    found = _choice(f"{path}.operator", operator, _OPERATORS)
    container = codes.get("containerName")
    if container is not None and container not in known:
        why = "must be one of the container or initContainer names in the pod template"
        found.append(invalid(f"{path}.containerName", container, why))
    at, values = f"{path}.values", codes.get("values") or []
    if not values:
        found.append(invalid(at, values, "at least one value is required"))
    elif len(values) > _MAX_VALUES:
        found.append(too_many(at, len(values), _MAX_VALUES))
    for i, value in enumerate(values):
        if operator == "In" and value == 0:
            found.append(invalid(f"{at}[{i}]", value, "must not be 0 for the In operator"))
        if value in values[:i]:
            found.append(duplicate(f"{at}[{i}]", value))
    if values != sorted(values):
        found.append(invalid(at, values, "must be ordered"))
    return found


def _patterns(patterns: list[Body], path: str) -> list[Cause]:
    found: list[Cause] = []
    if len(patterns) > _MAX_PATTERNS:
        found.append(too_many(path, len(patterns), _MAX_PATTERNS))
    for i, pattern in enumerate(patterns):
        at = f"{path}[{i}]"
        found += checked(f"{at}.type", pattern.get("type") or "", names.qualified_name)
        found += _choice(f"{at}.status", pattern.get("status") or "", _STATUSES)
    return found


# ---- success policy ------------------------------------------------------------------------------


def _success(spec: Body, path: str) -> list[Cause]:
    rules = spec["successPolicy"].get("rules") or []
    found: list[Cause] = []
    if not rules:
        why = "at least one rules must be specified when the successPolicy is specified"
        found.append(required(f"{path}.rules", why))
    if len(rules) > _MAX_SUCCESS_RULES:
        found.append(too_many(f"{path}.rules", len(rules), _MAX_SUCCESS_RULES))
    for i, rule in enumerate(rules):
        found += _success_rule(rule, f"{path}.rules[{i}]", int(spec.get("completions") or 0))
    return found


def _success_rule(rule: Body, path: str, completions: int) -> list[Cause]:
    text, count = rule.get("succeededIndexes"), rule.get("succeededCount")
    found: list[Cause] = []
    if text is None and count is None:
        why = "at least one of succeededCount or succeededIndexes must be specified"
        found.append(required(path, why))
    total = 0
    if text is not None:
        at = f"{path}.succeededIndexes"
        if len(text) > _MAX_INDEXES_TEXT:
            found.append(too_long(at, _MAX_INDEXES_TEXT))
        try:
            total = indexes.check(text, completions)
        except indexes.IndexesError as e:
            found.append(invalid(at, text, f"error parsing succeededIndexes: {e}"))
    if count is not None:
        at = f"{path}.succeededCount"
        found += non_negative(at, count)
        for limit, what, applies in (
            (completions, "the number of specified completions", True),
            (total, "the number of indexes in the specified succeededIndexes field",
             text is not None),
        ):  # fmt: skip
            if applies and count > limit:
                why = f"must be less than or equal to {limit} ({what})"
                found.append(invalid(at, count, why))
    return found
