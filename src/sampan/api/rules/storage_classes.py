"""Validation of the kinds of group storage.k8s.io."""

from __future__ import annotations

from collections.abc import Sequence

from sampan.api.errors import Cause
from sampan.api.obj import Body
from sampan.api.rules.claims import class_name
from sampan.api.rules.field import (
    checked,
    duplicate,
    forbidden,
    immutable,
    invalid,
    non_negative,
    not_supported,
    required,
    too_long,
    too_many,
)
from sampan.api.rules.resources import parse
from sampan.api.rules.selection import label_key, label_selector
from sampan.api.rules.storage import driver_name, volume_spec
from sampan.lib import names

_PARAMETERS_MAX, _PARAMETERS_SIZE = 512, 256 * 1024
_RECLAIM = ("Delete", "Retain")
_BINDING = ("Immediate", "WaitForFirstConsumer")
_LIFECYCLE = ("Ephemeral", "Persistent")
_FS_GROUP = ("File", "None", "ReadWriteOnceWithFSType")
_NODE_ID_MAX = 192
_ERROR_MAX = 1024


def _provisioner(path: str, name: str) -> list[Cause]:
    if not name:
        return [required(path)]
    return [invalid(path, name, p) for p in names.qualified_name(name.lower())]


def _parameters(path: str, values: Body | None, *, needed: bool = False) -> list[Cause]:
    values = values or {}
    if len(values) > _PARAMETERS_MAX:
        return [too_long(path, _PARAMETERS_MAX)]
    found: list[Cause] = []
    if any(not key for key in values):
        found.append(invalid(path, "", "field can not be empty."))
    size = sum(len(k.encode()) + len(v.encode()) for k, v in values.items())
    if size > _PARAMETERS_SIZE:
        found.append(too_long(path, _PARAMETERS_SIZE))
    if needed and not values:
        found.append(required(path, "must contain at least one key/value pair"))
    return found


def storage_class(body: Body) -> list[Cause]:
    found = _provisioner("provisioner", body.get("provisioner") or "")
    found += _parameters("parameters", body.get("parameters"))
    policy = body.get("reclaimPolicy")
    if policy and policy not in _RECLAIM:
        found.append(not_supported("reclaimPolicy", policy, _RECLAIM))
    mode = body.get("volumeBindingMode")
    if mode is None:
        found.append(required("volumeBindingMode"))
    elif mode not in _BINDING:
        found.append(not_supported("volumeBindingMode", mode, _BINDING))
    return found + _topologies("allowedTopologies", body.get("allowedTopologies") or ())


def _topologies(path: str, terms: Sequence[Body]) -> list[Cause]:
    found: list[Cause] = []
    known: list[dict[str, frozenset[str]]] = []
    for i, term in enumerate(terms):
        seen: dict[str, frozenset[str]] = {}
        for j, e in enumerate(term.get("matchLabelExpressions") or ()):
            at = f"{path}[{i}].matchLabelExpressions[{j}]"
            key, values = e.get("key") or "", e.get("values") or []
            if not values:
                found.append(required(f"{at}.values"))
            for n, value in enumerate(values):
                if value in values[:n]:
                    found.append(duplicate(f"{at}.values[{n}]", value))
            found += label_key(f"{at}.key", key)
            if key in seen:
                found.append(duplicate(f"{at}.key", key))
            seen[key] = frozenset(values)
        if seen in known:
            found.append(duplicate(f"{path}[{i}].matchLabelExpressions", ""))
        known.append(seen)
    return found


def storage_class_update(new: Body, old: Body) -> list[Cause]:
    found: list[Cause] = []
    for name in ("parameters", "provisioner", "reclaimPolicy"):
        if (new.get(name) or None) != (old.get(name) or None):
            found.append(forbidden(name, f"updates to {name} are forbidden."))
    mode = new.get("volumeBindingMode")
    return found + immutable("volumeBindingMode", mode, old.get("volumeBindingMode"))


def csi_node(body: Body) -> list[Cause]:
    found: list[Cause] = []
    seen: set[str] = set()
    for i, driver in enumerate((body.get("spec") or {}).get("drivers") or ()):
        at, name = f"spec.drivers[{i}]", driver.get("name") or ""
        found += driver_name(f"{at}.name", name)
        node = driver.get("nodeID") or ""
        if not node:
            found.append(required(f"{at}.nodeID"))
        elif len(node) > _NODE_ID_MAX:
            found.append(too_long(f"{at}.nodeID", _NODE_ID_MAX))
        count = (driver.get("allocatable") or {}).get("count")
        found += non_negative(f"{at}.allocatable.count", count)
        keys = driver.get("topologyKeys") or []
        for n, key in enumerate(keys):
            if not key:
                found.append(required(f"{at}.topologyKeys"))
            if key in keys[:n]:
                found.append(duplicate(f"{at}.topologyKeys", key))
            found += [invalid(f"{at}.topologyKeys", key, p) for p in names.qualified_name(key)]
        if name in seen:
            found.append(duplicate(f"{at}.name", name))
        seen.add(name)
    return found


def csi_node_update(new: Body, old: Body) -> list[Cause]:
    before = {d.get("name"): d for d in (old.get("spec") or {}).get("drivers") or ()}
    found: list[Cause] = []
    for driver in (new.get("spec") or {}).get("drivers") or ():
        held = before.get(driver.get("name"))
        if held is not None and _fixed(held) != _fixed(driver):
            found.append(invalid("CSINodeDriver", driver, "field is immutable"))
    return found


def _fixed(driver: Body) -> Body:
    """All of a driver's entry but how many volumes it can take, which it may find out later."""
    return {k: v for k, v in driver.items() if k != "allocatable"}


def csi_driver(body: Body) -> list[Cause]:
    name = (body.get("metadata") or {}).get("name") or ""
    spec: Body = body.get("spec") or {}
    found = driver_name("metadata.name", name)[: 1 if len(name) > 63 else 0]
    for member in ("attachRequired", "podInfoOnMount", "storageCapacity"):
        if spec.get(member) is None:
            found.append(required(f"spec.{member}"))
    policy = spec.get("fsGroupPolicy")
    if policy is not None and policy not in _FS_GROUP:
        found.append(not_supported("spec.fsGroupPolicy", policy, _FS_GROUP))
    seen: set[str] = set()
    for i, request in enumerate(spec.get("tokenRequests") or ()):
        at, audience = f"spec.tokenRequests[{i}]", request.get("audience") or ""
        if audience in seen:
            found.append(duplicate(f"{at}.audience", audience))
        seen.add(audience)
        seconds = request.get("expirationSeconds")
        if seconds is not None and seconds < 600:
            why = "may not specify a duration less than 10 minutes"
            found.append(invalid(f"{at}.expirationSeconds", seconds, why))
        if seconds is not None and seconds > 1 << 32:
            why = "may not specify a duration larger than 2^32 seconds"
            found.append(invalid(f"{at}.expirationSeconds", seconds, why))
    for mode in spec.get("volumeLifecycleModes") or ():
        if mode not in _LIFECYCLE:
            found.append(not_supported("spec.volumeLifecycleModes", mode, _LIFECYCLE))
    return found


def csi_driver_update(new: Body, old: Body) -> list[Cause]:
    after, before = new.get("spec") or {}, old.get("spec") or {}
    found: list[Cause] = []
    if after.get("attachRequired") != before.get("attachRequired"):
        value = after.get("attachRequired")
        found.append(invalid("spec.attachedRequired", value, "field is immutable"))
    return found + immutable(
        "spec.volumeLifecycleModes", after.get("volumeLifecycleModes"),
        before.get("volumeLifecycleModes"),
    )  # fmt: skip


def volume_attachment(body: Body) -> list[Cause]:
    spec: Body = body.get("spec") or {}
    source: Body = spec.get("source") or {}
    found = driver_name("spec.attacher", spec.get("attacher") or "")
    inline, name = source.get("inlineVolumeSpec"), source.get("persistentVolumeName")
    if inline is None and name is None:
        why = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
        found.append(required("spec.source", why))
    elif inline is not None and name is not None:
        why = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
        found.append(forbidden("spec.source", why))
    elif name is not None:
        if not name:
            found.append(
                required("spec.source.persistentVolumeName", "must specify non empty "
                         "persistentVolumeName")
            )  # fmt: skip
    elif inline is not None:
        found += volume_spec("spec.source.inlineVolumeSpec", inline, inline=True)
    if not spec.get("nodeName"):
        found.append(required("spec.nodeName"))
    else:
        found += checked("spec.nodeName", spec["nodeName"], names.dns1123_subdomain)
    return found + volume_attachment_status(body, body)


def volume_attachment_status(new: Body, _old: Body) -> list[Cause]:
    status: Body = new.get("status") or {}
    found: list[Cause] = []
    for member in ("attachError", "detachError"):
        message = (status.get(member) or {}).get("message") or ""
        if len(message) > _ERROR_MAX:
            found.append(too_long(f"status.{member}.message", _ERROR_MAX))
    metadata = status.get("attachmentMetadata") or {}
    if len(metadata) > _PARAMETERS_MAX:
        found.append(too_many("status.attachmentMetadata", len(metadata), _PARAMETERS_MAX))
    return found


def volume_attachment_update(new: Body, old: Body) -> list[Cause]:
    if (new.get("spec") or {}) == (old.get("spec") or {}):
        return []
    return [invalid("spec", new.get("spec"), "field is immutable")]


def csi_storage_capacity(body: Body) -> list[Cause]:
    found = label_selector("nodeTopology", body.get("nodeTopology"))
    name = body.get("storageClassName") or ""
    found += class_name("storageClassName", name) if name else [required("storageClassName")]
    for member in ("capacity", "maximumVolumeSize"):
        if body.get(member) is not None:
            read, causes = parse(member, body[member])
            found += causes
            if read is not None and read.nanos < 0:
                why = "must be greater than or equal to 0"
                found.append(invalid(member, str(read), why))
    return found


def csi_storage_capacity_update(new: Body, old: Body) -> list[Cause]:
    found = immutable("nodeTopology", new.get("nodeTopology"), old.get("nodeTopology"))
    after, before = new.get("storageClassName"), old.get("storageClassName")
    return found + immutable("storageClassName", after, before)


def attributes_class(body: Body) -> list[Cause]:
    found = _provisioner("driverName", body.get("driverName") or "")
    return found + _parameters("parameters", body.get("parameters"), needed=True)


def attributes_class_update(new: Body, old: Body) -> list[Cause]:
    found: list[Cause] = []
    for name in ("driverName", "parameters"):
        if (new.get(name) or None) != (old.get(name) or None):
            found.append(forbidden(name, f"updates to {name} are forbidden."))
    return found
