"""ResourceQuota and LimitRange: defaults and validation. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sampan.api import amounts
from sampan.api.amounts import Amounts
from sampan.api.errors import Cause
from sampan.api.obj import Body
from sampan.api.quota import requirements
from sampan.api.rules import resources
from sampan.api.rules.field import (
    NON_NEGATIVE,
    Raw,
    checked,
    duplicate,
    forbidden,
    invalid,
    required,
)
from sampan.lib import names
from sampan.lib.quantity import Quantity

_COUNTED = (
    "pods", "resourcequotas", "services", "replicationcontrollers", "secrets",
    "persistentvolumeclaims", "configmaps", "services.nodeports", "services.loadbalancers",
)  # fmt: skip
_COMPUTE = ("cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory")
_STANDARD = frozenset(
    (
        *_COUNTED, *_COMPUTE, "ephemeral-storage", "requests.storage",
        "requests.ephemeral-storage", "limits.ephemeral-storage",
    )
)  # fmt: skip
_SCOPES = (
    "Terminating", "NotTerminating", "BestEffort", "NotBestEffort", "PriorityClass",
    "CrossNamespacePodAffinity", "VolumeAttributesClass",
)  # fmt: skip
_ONLY_EXIST = (
    "BestEffort", "NotBestEffort", "Terminating", "NotTerminating", "CrossNamespacePodAffinity",
)  # fmt: skip
_PAIRS = (("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating"))
_MUST_EXIST = (
    "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, "
    "ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, "
    "ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity"
)


def resource_quota(body: Body) -> list[Cause]:
    spec = body.get("spec") or {}
    found = _hard("spec.hard", spec.get("hard"))
    found += _scopes(spec) + _selector(spec)
    return found


def resource_quota_update(new: Body, old: Body) -> list[Cause]:
    after, before = ((b.get("spec") or {}).get("scopes") or [] for b in (new, old))
    if set(after) != set(before):
        return [invalid("spec.scopes", after, "field is immutable")]
    return []


def resource_quota_status(new: Body, _old: Body) -> list[Cause]:
    status = new.get("status") or {}
    return _hard("status.hard", status.get("hard")) + _hard("status.used", status.get("used"))


def _hard(path: str, hard: Body | None) -> list[Cause]:
    found: list[Cause] = []
    for name, value in sorted((hard or {}).items()):
        at = f"{path}[{name}]"
        problems = checked(at, name, names.qualified_name)
        if not problems and "/" not in name and not _is_standard(name):
            problems = [invalid(at, name, "must be a standard resource for quota")]
        found += problems
        amount, unread = resources.parse(at, value)
        found += unread
        if amount is None:
            continue
        if amount.nanos < 0:
            found.append(invalid(at, str(amount), NON_NEGATIVE))
        if _is_whole(name) and amount.value.denominator != 1:
            found.append(invalid(at, Raw(amount), "must be an integer"))
    return found


def _is_standard(name: str) -> bool:
    return name in _STANDARD or resources.is_huge_page(name.removeprefix("requests."))


def _is_whole(name: str) -> bool:
    return name in _COUNTED or resources.is_extended(name)


def _fits(scope: str, name: str) -> bool:
    """Whether a scope says anything about what *name* counts."""
    if scope == "BestEffort":
        return name == "pods"
    if scope == "VolumeAttributesClass":
        return name in ("persistentvolumeclaims", "requests.storage")
    return name == "pods" or name in _COMPUTE


def _misfit(scope: str, hard: Iterable[str]) -> int:
    return sum(1 for name in hard if name in _STANDARD and not _fits(scope, name))


def _conflicts(scopes: Iterable[str], shown: Sequence[str]) -> list[Cause]:
    held = set(scopes)
    return [
        invalid("spec.scopes", list(shown), "conflicting scopes")
        for pair in _PAIRS
        if held.issuperset(pair)
    ]


def _scopes(spec: Body) -> list[Cause]:
    scopes, hard = spec.get("scopes") or [], spec.get("hard") or {}
    found: list[Cause] = []
    for scope in scopes:
        if scope not in _SCOPES:
            found.append(invalid("spec.scopes", scopes, "unsupported scope"))
        problem = invalid("spec.scopes", scopes, "unsupported scope applied to resource")
        found += [problem] * _misfit(scope, hard)
    return found + _conflicts(scopes, scopes)


def _selector(spec: Body) -> list[Cause]:
    selector, hard = spec.get("scopeSelector"), spec.get("hard") or {}
    if not selector:
        return []
    at = "spec.scopeSelector.matchExpressions"
    found: list[Cause] = []
    terms = requirements({"scopeSelector": selector})
    for term in terms:
        scope, operator, values = term["scopeName"], term["operator"], term.get("values") or []
        if scope not in _SCOPES:
            found.append(invalid(f"{at}.scopeName", scope, "unsupported scope"))
        if _misfit(scope, hard):
            found.append(invalid(at, selector, "unsupported scope applied to resource"))
        if scope in _ONLY_EXIST and operator != "Exists":
            found.append(invalid(f"{at}.operator", operator, _MUST_EXIST))
        if operator in ("In", "NotIn"):
            if not values:
                detail = ("must be at least one value when `operator` is 'In' or 'NotIn' for "
                          "scope selector")  # fmt: skip
                found.append(required(f"{at}.values", detail))
        elif operator in ("Exists", "DoesNotExist"):
            if values:
                detail = ("must be no value when `operator` is 'Exist' or 'DoesNotExist' for "
                          "scope selector")  # fmt: skip
                found.append(invalid(f"{at}.values", values, detail))
        else:
            found.append(invalid(f"{at}.operator", operator, "not a valid selector operator"))
    return found + _conflicts((t["scopeName"] for t in terms), spec.get("scopes") or [])


# -- LimitRange --------------------------------------------------------------------------------


def default_limit_range(body: Body) -> None:
    """A container's default limit is the maximum; its default request is the default limit, or the
    minimum."""
    for item in (body.get("spec") or {}).get("limits") or ():
        if item.get("type") != "Container":
            continue
        limits = {**(item.get("max") or {}), **(item.get("default") or {})}
        requests = {**(item.get("min") or {}), **limits, **(item.get("defaultRequest") or {})}
        for name, made in (("default", limits), ("defaultRequest", requests)):
            if made:
                item[name] = made


def limit_range(body: Body) -> list[Cause]:
    found: list[Cause] = []
    seen: set[str] = set()
    for i, item in enumerate((body.get("spec") or {}).get("limits") or ()):
        at, kind = f"spec.limits[{i}]", item.get("type") or ""
        found += _limit_type(f"{at}.type", kind)
        if kind in seen:
            found.append(duplicate(f"{at}.type", kind))
        seen.add(kind)
        found += _item(at, kind, item)
    return found


def _limit_type(at: str, kind: str) -> list[Cause]:
    problems = checked(at, kind, names.qualified_name)
    if not problems and "/" not in kind:
        if kind not in ("Pod", "Container", "PersistentVolumeClaim"):
            detail = "must be a standard limit type or fully qualified"
            problems = [invalid(at, kind, detail)]
    return problems


_PARTS = ("max", "min", "default", "defaultRequest", "maxLimitRequestRatio")


def _item(at: str, kind: str, item: Body) -> list[Cause]:
    found: list[Cause] = []
    parts: dict[str, Amounts] = {}
    for part in _PARTS:
        given = item.get(part) or {}
        parts[part] = {}
        if kind == "Pod" and part in ("default", "defaultRequest"):
            if given:
                found.append(forbidden(f"{at}.{part}", "may not be specified when `type` is 'Pod'"))
            continue
        for name, value in sorted(given.items()):
            found += _resource_name(f"{at}.{part}[{name}]", kind, name)
            amount, unread = resources.parse(f"{at}.{part}[{name}]", value)
            found += unread
            if amount is not None:
                parts[part][name] = amount
    if kind == "PersistentVolumeClaim":
        if "storage" not in parts["min"] and "storage" not in parts["max"]:
            detail = "either minimum or maximum storage value is required, but neither was provided"
            found.append(required(f"{at}.limits", detail))
    for name in sorted({n for part in parts.values() for n in part}):
        found += _order(at, name, {p: v[name] for p, v in parts.items() if name in v})
        found += _ratio(at, name, {p: v[name] for p, v in parts.items() if name in v})
    return found


def _resource_name(at: str, kind: str, name: str) -> list[Cause]:
    if kind in ("Pod", "Container"):
        return resources.resource_name(at, name)
    problems = checked(at, name, names.qualified_name)
    if not problems and "/" not in name:
        if name not in resources.STANDARD and name not in _STANDARD and name != "storage":
            problems = [invalid(at, name, "must be a standard resource type or fully qualified")]
    return problems


# (smaller, larger, field told, whose value is shown, what the message calls the two)
_ORDERS = (
    ("min", "max", "min", "min", "min value", "max value"),
    ("min", "defaultRequest", "defaultRequest", "defaultRequest", "min value",
     "default request value"),
    ("defaultRequest", "max", "defaultRequest", "defaultRequest", "default request value",
     "max value"),
    ("defaultRequest", "default", "defaultRequest", "defaultRequest", "default request value",
     "default limit value"),
    ("min", "default", "default", "min", "min value", "default value"),
    ("default", "max", "default", "max", "default value", "max value"),
)  # fmt: skip


def _order(at: str, name: str, values: dict[str, Quantity]) -> list[Cause]:
    found: list[Cause] = []
    for small, large, told, shown, low, high in _ORDERS:
        if small in values and large in values and values[small] > values[large]:
            text = f"{low} {values[small]} is greater than {high} {values[large]}"
            found.append(invalid(f"{at}.{told}[{name}]", str(values[shown]), text))
    return found


def _ratio(at: str, name: str, values: dict[str, Quantity]) -> list[Cause]:
    found: list[Cause] = []
    ratio: Any = values.get("maxLimitRequestRatio")
    here = f"{at}.maxLimitRequestRatio[{name}]"
    if ratio is not None and ratio < amounts.ONE:
        found.append(invalid(here, str(ratio), f"ratio {ratio} is less than 1"))
    if ratio is not None and "min" in values and "max" in values and values["min"]:
        most = float(values["max"].value / values["min"].value)
        if float(ratio.value) > most:
            text = f"ratio {ratio} is greater than max/min = {most:f}"
            found.append(invalid(here, str(ratio), text))
    fixed = resources.is_extended(name) or resources.is_huge_page(name)
    request, limit = values.get("defaultRequest"), values.get("default")
    if fixed and request is not None and limit is not None and request != limit:
        text = f"default value {limit} must equal to defaultRequest value {request} in {name}"
        found.append(invalid(f"{at}.defaultRequest[{name}]", str(request), text))
    return found
