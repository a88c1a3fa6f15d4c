"""Resource names and amounts: requests within limits, integers where a resource is countable."""

from __future__ import annotations

from typing import Any

from sampan.api import amounts
from sampan.api.errors import Cause
from sampan.api.obj import Body
from sampan.api.rules.field import (
    NON_NEGATIVE,
    checked,
    forbidden,
    invalid,
    not_supported,
    required,
)
from sampan.lib import names
from sampan.lib.quantity import Quantity, QuantityError, quantity

STANDARD = ("cpu", "memory", "ephemeral-storage")
POD_LEVEL = ("cpu", "memory")
_STANDARD_ANYWHERE = frozenset((
    *STANDARD, *(f"{kind}.{name}" for kind in ("requests", "limits") for name in STANDARD), "pods",
    "resourcequotas", "services", "replicationcontrollers", "secrets", "configmaps",
    "persistentvolumeclaims", "storage", "requests.storage", "services.nodeports",
    "services.loadbalancers",
))  # fmt: skip


def is_huge_page(name: str) -> bool:
    return name.startswith("hugepages-")


def is_native(name: str) -> bool:
    return "/" not in name or "kubernetes.io/" in name


def is_extended(name: str) -> bool:
    """A countable resource named by its maker's domain (``example.com/gpu``)."""
    return not is_native(name) and not name.startswith("requests.")


def parse(path: str, value: Any) -> tuple[Quantity | None, list[Cause]]:
    try:
        return quantity(value), []
    except QuantityError as e:
        return None, [invalid(path, value, str(e))]


def amount(path: str, name: str, value: Any) -> list[Cause]:
    """Not negative, and whole where the resource is countable."""
    found, causes = parse(path, value)
    if found is None:
        return causes
    if found.nanos < 0:
        causes.append(invalid(path, str(found), NON_NEGATIVE))
    if is_extended(name) and found.value.denominator != 1:
        causes.append(invalid(path, str(found), "must be an integer"))
    return causes


def _known(path: str, name: str) -> list[Cause]:
    if name in _STANDARD_ANYWHERE or is_huge_page(name.removeprefix("requests.")):
        return []
    return [invalid(path, name, "must be a standard resource type or fully qualified")]


def resource_name(path: str, name: str) -> list[Cause]:
    found = checked(path, name, names.qualified_name)
    if found:
        return found
    if "/" not in name:
        found = _known(path, name)
        if name not in STANDARD and not is_huge_page(name):
            found.append(invalid(path, name, "must be a standard resource for containers"))
        return found
    elif not is_native(name):
        if names.qualified_name(f"requests.{name}"):
            return [invalid(path, name, "doesn't follow extended resource name standard")]
    return []


def requirements(path: str, resources: Body | None, *, pod_level: bool = False) -> list[Cause]:
    """ResourceRequirements of a container, or of a pod as a whole."""
    if not resources:
        return []
    found: list[Cause] = []
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    for kind, held in (("limits", limits), ("requests", requests)):
        for name, value in sorted(held.items()):
            at = f"{path}.{kind}[{name}]"
            if pod_level and name not in POD_LEVEL and not is_huge_page(name):
                found.append(not_supported(at, name, (*POD_LEVEL, "hugepages-")))
                continue
            found += resource_name(at, name)
            found += amount(at, name, value)
            if is_huge_page(name):
                found += _pages(at, name, value)
    for name, value in sorted(requests.items()):
        found += _within(path, name, value, limits.get(name))
    named = {*limits, *requests}
    if any(map(is_huge_page, named)) and not named & {"cpu", "memory"}:
        found.append(forbidden(path, "HugePages require cpu or memory"))
    return found


def _pages(path: str, name: str, value: Any) -> list[Cause]:
    held, _ = parse("", value)
    page, _ = parse("", name.removeprefix("hugepages-"))
    whole = held is not None and page is not None and page.nanos > 0
    if whole and held is not None and page is not None and held.whole % page.whole == 0:
        return []
    return [invalid(path, str(held), f"{held} is not positive integer multiple of {name}")]


def of_whole_pod(path: str, spec: Body) -> list[Cause]:
    """Whether the resources of a pod as a whole cover those of its containers. path: theirs."""
    whole: Body = spec.get("resources") or {}
    try:
        asked = {k: amounts.read(whole.get(k)) for k in ("requests", "limits")}
        parts = {k: v for k, v in spec.items() if k not in ("resources", "overhead")}
        sums = {k: amounts.of_pod(parts, k) for k in ("requests", "limits")}
        own = [amounts.read((c.get("resources") or {}).get("limits"))
               for c in spec.get("containers") or ()]  # fmt: skip
    except QuantityError:
        return []  # told already
    found = []
    for kind in ("requests", "limits"):
        for name, total in sorted(sums[kind].items()):
            given = asked[kind].get(name)
            if given is None or total <= given or (kind == "limits" and not is_huge_page(name)):
                continue
            text = f"must be greater than or equal to aggregate container {kind} of {total}"
            found.append(invalid(f"{path}.{kind}[{name}]", str(given), text))
    for i, limits in enumerate(own):
        for name, limit in sorted(limits.items()):
            most = asked["limits"].get(name)
            if most is not None and limit > most:
                text = f"must be less than or equal to pod limits of {most}"
                found.append(invalid(f"{path}.containers[{i}][{name}].limits", str(limit), text))
    return found


def _within(path: str, name: str, value: Any, limit: Any) -> list[Cause]:
    fixed = is_extended(name) or is_huge_page(name)
    if limit is None:
        if fixed:
            return [
                required(f"{path}.limits", "Limit must be set for non overcommitable resources")
            ]
        return []
    asked, _ = parse("", value)
    allowed, _ = parse("", limit)
    if asked is None or allowed is None:
        return []
    at = f"{path}.requests"
    if fixed and asked != allowed:
        return [invalid(at, str(asked), f"must be equal to {name} limit of {allowed}")]
    if asked > allowed:
        return [invalid(at, str(asked), f"must be less than or equal to {name} limit of {allowed}")]
    return []


def resource_list(path: str, given: Body | None) -> list[Cause]:
    """A bare ResourceList (overhead, capacity)."""
    found: list[Cause] = []
    for name, value in sorted((given or {}).items()):
        found += checked(f"{path}[{name}]", name, names.qualified_name)
        found += amount(f"{path}[{name}]", name, value)
    return found
