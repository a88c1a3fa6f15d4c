"""Validation of PersistentVolumeClaims (core/v1), and what volumes share with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sampan.api.errors import Cause
from sampan.api.obj import Body
from sampan.api.rules.difference import claim_spec as claim_spec_of_go
from sampan.api.rules.difference import difference
from sampan.api.rules.field import checked, forbidden, immutable, invalid, not_supported, required
from sampan.api.rules.resources import amount, parse
from sampan.api.rules.selection import label_selector
from sampan.api.rules.storage_defaults import BETA_CLASS
from sampan.lib import names

ACCESS_MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
VOLUME_MODES = ("Block", "Filesystem")
_POSITIVE = "must be greater than zero"


def access_modes(path: str, modes: Sequence[str]) -> list[Cause]:
    found = [not_supported(path, m, ACCESS_MODES) for m in modes if m not in ACCESS_MODES]
    if "ReadWriteOncePod" in modes and any(
        m in ACCESS_MODES and m != "ReadWriteOncePod" for m in modes
    ):
        found.append(forbidden(path, "may not use ReadWriteOncePod with other access modes"))
    return found


def class_name(path: str, value: str | None) -> list[Cause]:
    return checked(path, value, names.dns1123_subdomain) if value else []


def volume_mode(path: str, value: str | None) -> list[Cause]:
    if value is None or value in VOLUME_MODES:
        return []
    return [not_supported(path, value, VOLUME_MODES)]


def positive(path: str, value: Any) -> list[Cause]:
    found, causes = parse(path, value)
    if found is not None and found.nanos <= 0:
        causes.append(invalid(path, str(found), _POSITIVE))
    return causes


def persistent_volume_claim(body: Body) -> list[Cause]:
    return claim_spec("spec", body.get("spec") or {})


def claim_spec(path: str, spec: Body) -> list[Cause]:
    """Of a claim, and of templates for claims."""
    found: list[Cause] = []
    modes = spec.get("accessModes") or ()
    if not modes:
        found.append(required(f"{path}.accessModes", "at least 1 access mode is required"))
    found += label_selector(f"{path}.selector", spec.get("selector"))
    found += access_modes(f"{path}.accessModes", modes)
    at = f"{path}.resources[storage]"
    asked = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    if asked is None:
        found.append(required(at))
    else:
        found += positive(at, asked) or amount(at, "storage", asked)
    found += class_name(f"{path}.storageClassName", spec.get("storageClassName"))
    found += volume_mode(f"{path}.volumeMode", spec.get("volumeMode"))
    for member in ("dataSource", "dataSourceRef"):
        if spec.get(member) is not None:
            found += _data_source(f"{path}.{member}", spec[member])
    first, second = spec.get("dataSource"), spec.get("dataSourceRef")
    if first is not None and second is not None:
        if second.get("namespace"):
            why = "may not be specified when dataSourceRef.namespace is specified"
            found.append(invalid(path, f"{path}.dataSource", why))
        elif first != second:
            found.append(invalid(path, f"{path}.dataSource", "must match dataSourceRef"))
    return found + class_name(
        f"{path}.volumeAttributesClassName", spec.get("volumeAttributesClassName")
    )


def _data_source(path: str, source: Body) -> list[Cause]:
    found = [required(f"{path}.{m}") for m in ("name", "kind") if not source.get(m)]
    group = source.get("apiGroup") or ""
    if not group and source.get("kind") and source["kind"] != "PersistentVolumeClaim":
        found.append(invalid(path, source["kind"], "must be 'PersistentVolumeClaim' when "
                             "referencing the default apiGroup"))  # fmt: skip
    if group:
        found += checked(f"{path}.apiGroup", group, names.dns1123_subdomain)
    return found


def _size(spec: Body) -> int:
    value = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    read, _ = parse("", value) if value is not None else (None, [])
    return read.nanos if read is not None else 0


def _frozen(spec: Body, *, but: Sequence[str], sized: bool) -> Body:
    """What of a claim's spec never changes. sized: the size asked for counts too."""
    kept = {k: v for k, v in spec.items() if k not in but and v is not None}
    if not sized:
        resources = dict(kept.get("resources") or {})
        requests = {k: v for k, v in (resources.get("requests") or {}).items() if k != "storage"}
        kept["resources"] = {**resources, "requests": requests}
    return kept


def persistent_volume_claim_update(new: Body, old: Body) -> list[Cause]:
    after, before = new.get("spec") or {}, old.get("spec") or {}
    found: list[Cause] = []
    free = ["volumeAttributesClassName"]
    if not before.get("volumeName"):
        free.append("volumeName")  # it is given once
    notes = (old.get("metadata") or {}).get("annotations") or {}
    if before.get("storageClassName") is None and BETA_CLASS not in notes:
        free.append("storageClassName")  # a class found for it later
    bound = (new.get("status") or {}).get("phase") == "Bound"
    if _frozen(after, but=free, sized=not bound) != _frozen(before, but=free, sized=not bound):
        told = difference(
            claim_spec_of_go(before), claim_spec_of_go(_aligned(after, before, free, bound=bound))
        )
        found.append(
            forbidden(
                "spec",
                "spec is immutable after creation except resources.requests and "
                f"volumeAttributesClassName for bound claims\n{told}",
            )
        )
    given = ((old.get("status") or {}).get("capacity") or {}).get("storage")
    have, _ = parse("", given) if given is not None else (None, [])
    if _size(after) < _size(before) and _size(after) <= (have.nanos if have is not None else 0):
        why = "field can not be less than status.capacity"
        found.append(forbidden("spec.resources.requests.storage", why))
    found += immutable("volumeMode", after.get("volumeMode"), before.get("volumeMode"))
    was, name = before.get("volumeAttributesClassName"), after.get("volumeAttributesClassName")
    if was is not None and name != was and not name:
        what = "nil" if name is None else "an empty string"
        why = f"update from non-nil value to {what} is forbidden"
        found.append(forbidden("spec.volumeAttributesClassName", why))
    return found


def _aligned(new: Body, old: Body, free: Sequence[str], *, bound: bool) -> Body:
    """*new* with what may change as it was: what is left is what may not."""
    kept = {**new, **{k: old.get(k) for k in free}}
    size = ((old.get("resources") or {}).get("requests") or {}).get("storage")
    if bound and size is not None:
        resources: Body = new.get("resources") or {}
        requests = {**(resources.get("requests") or {}), "storage": size}
        kept["resources"] = {**resources, "requests": requests}
    return kept


_GROWTH = (
    "ControllerResizeInProgress", "ControllerResizeInfeasible", "NodeResizeInProgress",
    "NodeResizeInfeasible", "NodeResizePending",
)  # fmt: skip


def _resource_name(path: str, name: str) -> list[Cause]:
    found = checked(path, name, names.qualified_name)
    if not found and "/" not in name and name != "storage":
        found.append(not_supported(path, name, ("storage",)))
    return found


def _growth(status: Body) -> list[Cause]:
    """How far the growth of a claim is (KEP-1790)."""
    found: list[Cause] = []
    at = "status.allocatedResourceStatus"
    for name, state in sorted((status.get("allocatedResourceStatuses") or {}).items()):
        found += _resource_name(at, name)
        if state not in _GROWTH:
            found.append(not_supported(at, name, sorted(_GROWTH)))
    at = "status.allocatedResources"
    for name, value in sorted((status.get("allocatedResources") or {}).items()):
        found += _resource_name(at, name)
        read, causes = parse(f"{at}[{name}]", value)
        found += causes
        if read is not None and read.nanos < 0:
            why = "must be a valid resource quantity"
            found.append(invalid(f"{at}[{name}]", read.whole, why))
    return found


def persistent_volume_claim_status(new: Body, _old: Body) -> list[Cause]:
    found: list[Cause] = []
    if not (new.get("spec") or {}).get("accessModes"):
        found.append(required("Spec.accessModes"))
    for name, value in sorted(((new.get("status") or {}).get("capacity") or {}).items()):
        read, causes = parse(f"status.capacity[{name}]", value)
        found += causes
        if read is not None and read.nanos < 0:
            why = "must be a valid resource quantity"
            found.append(invalid(f"status.capacity[{name}]", read.whole, why))
    return found + _growth(new.get("status") or {})
