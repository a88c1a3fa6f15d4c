"""Validation of PersistentVolumes (core/v1)."""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from typing import Any

from sampan.api.errors import Cause
from sampan.api.obj import Body
from sampan.api.rules.claims import access_modes, class_name, positive, volume_mode
from sampan.api.rules.difference import difference, volume_source
from sampan.api.rules.field import (
    forbidden,
    immutable,
    invalid,
    not_supported,
    required,
    too_long,
)
from sampan.api.rules.resources import parse
from sampan.api.rules.selection import node_selector
from sampan.api.rules.volumes import NEEDED, host_path, no_backsteps
from sampan.lib import names

_RECLAIM = ("Delete", "Recycle", "Retain")
_DRIVER_MAX = 63
_EXPAND_SECRET = "controllerExpandSecretRef"
_VALID = "must be a valid resource quantity"
# Members of a PersistentVolumeSpec that name the volume itself.
SOURCES = (
    "awsElasticBlockStore", "azureDisk", "azureFile", "cephfs", "cinder", "csi", "fc",
    "flexVolume", "flocker", "gcePersistentDisk", "glusterfs", "hostPath", "iscsi", "local",
    "nfs", "photonPersistentDisk", "portworxVolume", "quobyte", "rbd", "scaleIO", "storageos",
    "vsphereVolume",
)  # fmt: skip


def source_of(spec: Body) -> str:
    """The kind of a volume's source, '' where it has none."""
    return next((k for k in SOURCES if spec.get(k) is not None), "")


def persistent_volume(body: Body) -> list[Cause]:
    return volume_spec("spec", body.get("spec") or {})


def volume_spec(path: str, spec: Body, *, inline: bool = False) -> list[Cause]:
    """inline: inside a VolumeAttachment, where only the source counts."""
    found: list[Cause] = []
    modes = spec.get("accessModes") or ()
    if not modes and not inline:
        found.append(required(f"{path}.accessModes"))
    found += access_modes(f"{path}.accessModes", modes)
    if not inline:
        found += _capacity(f"{path}.capacity", spec.get("capacity") or {})
    policy = spec.get("persistentVolumeReclaimPolicy")
    at = f"{path}.persistentVolumeReclaimPolicy"
    if policy and inline:
        found.append(forbidden(at, "may not be specified in the context of inline volumes"))
    elif policy and policy not in _RECLAIM:
        found.append(not_supported(at, policy, _RECLAIM))
    has_affinity = spec.get("nodeAffinity") is not None
    if has_affinity:
        found += _node_affinity(f"{path}.nodeAffinity", spec["nodeAffinity"])
    found += _source(path, spec, has_affinity=has_affinity)
    host = spec.get("hostPath") or {}
    if policy == "Recycle" and posixpath.normpath(host.get("path") or ".") == "/":
        found.append(forbidden(at, "may not be 'recycle' for a hostPath mount of '/'"))
    found += class_name(f"{path}.storageClassName", spec.get("storageClassName"))
    found += volume_mode(f"{path}.volumeMode", spec.get("volumeMode"))
    attributes = spec.get("volumeAttributesClassName")
    if attributes is not None:
        where = f"{path}.volumeAttributesClassName"
        if attributes == "":
            found.append(required(where, "an empty string is disallowed"))
        found += class_name(where, attributes)
        if spec.get("csi") is None:
            why = "has to be specified when using volumeAttributesClassName"
            found.append(required(f"{path}.csi", why))
    return found


def _capacity(path: str, capacity: Body) -> list[Cause]:
    found: list[Cause] = []
    if not capacity:
        found.append(required(path))
    if set(capacity) != {"storage"}:
        found.append(not_supported(path, capacity, ("storage",)))
    for name, value in sorted(capacity.items()):
        read, causes = parse(f"{path}[{name}]", value)
        found += causes
        if read is not None and read.nanos < 0:
            found.append(
                invalid(f"{path}[{name}]", read.whole, "must be a valid resource quantity")
            )
        if read is not None:
            found += positive(f"{path}[{name}]", value)
    return found


def _node_affinity(path: str, affinity: Body) -> list[Cause]:
    if affinity.get("required") is None:
        return [required(f"{path}.required", "must specify required node constraints")]
    return node_selector(f"{path}.required", affinity["required"])


def _source(path: str, spec: Body, *, has_affinity: bool) -> list[Cause]:
    given = [k for k in SOURCES if spec.get(k) is not None]
    if not given:
        return [required(path, "must specify a volume type")]
    # hostPath comes first in upstream's list, the rest in the order it knows them.
    given.sort(key=lambda k: k != "hostPath")
    found: list[Cause] = []
    for kind in given[1:]:
        found.append(forbidden(f"{path}.{kind}", "may not specify more than 1 volume type"))
    kind, at = given[0], f"{path}.{given[0]}"
    source: Body = spec[kind]
    check = _CHECKS.get(kind)
    if check is not None:
        found += check(at, source)
    else:
        found += [required(f"{at}.{m}") for m in NEEDED.get(kind, ()) if not source.get(m)]
    if kind == "local" and not has_affinity:
        found.append(required(f"{path}.nodeAffinity", "Local volume requires node affinity"))
    return found


def _local(path: str, source: Body) -> list[Cause]:
    if not source.get("path"):
        return [required(f"{path}.path")]
    return no_backsteps(f"{path}.path", source["path"])


def _nfs(path: str, source: Body) -> list[Cause]:
    found = [required(f"{path}.{m}") for m in ("server", "path") if not source.get(m)]
    if not (source.get("path") or "").startswith("/"):
        found.append(invalid(f"{path}.path", source.get("path") or "", "must be an absolute path"))
    return found


def driver_name(path: str, name: str) -> list[Cause]:
    """The name of a CSI driver."""
    if not name:
        return [required(path)]
    found = [too_long(path, _DRIVER_MAX)] if len(name) > _DRIVER_MAX else []
    return found + [invalid(path, name, p) for p in names.dns1123_subdomain(name.lower())]


def _csi(path: str, source: Body) -> list[Cause]:
    found = driver_name(f"{path}.driver", source.get("driver") or "")
    if not source.get("volumeHandle"):
        found.append(required(f"{path}.volumeHandle"))
    for member in (
        "controllerPublishSecretRef", "nodeStageSecretRef", "nodePublishSecretRef",
        "controllerExpandSecretRef", "nodeExpandSecretRef",
    ):  # fmt: skip
        ref = source.get(member)
        if ref is not None:
            found += [
                required(f"{path}.{member}.{m}") for m in ("name", "namespace") if not ref.get(m)
            ]
    return found


_CHECKS: dict[str, Callable[[str, Body], list[Cause]]] = {
    "hostPath": host_path,
    "local": _local,
    "nfs": _nfs,
    "csi": _csi,
}


def persistent_volume_update(new: Body, old: Body) -> list[Cause]:
    after, before = new.get("spec") or {}, old.get("spec") or {}
    found: list[Cause] = []
    csi, given = before.get("csi"), after.get("csi")
    if csi and given and csi.get("controllerExpandSecretRef") is None:
        # It may be given later.
        after = {**after, "csi": {k: v for k, v in given.items() if k != _EXPAND_SECRET}}
    if {k: after.get(k) for k in SOURCES} != {k: before.get(k) for k in SOURCES}:
        told = difference(volume_source(before), volume_source(after))
        text = f"spec.persistentvolumesource is immutable after creation\n{told}"
        found.append(forbidden("spec.persistentvolumesource", text))
    found += immutable("volumeMode", after.get("volumeMode"), before.get("volumeMode"))
    if before.get("nodeAffinity") is not None:
        found += _same_affinity(after.get("nodeAffinity"), before["nodeAffinity"])
    attributes = "volumeAttributesClassName"
    if before.get(attributes) is not None and after.get(attributes) is None:
        why = "update from non-nil value to nil is forbidden"
        found.append(forbidden(f"spec.{attributes}", why))
    return found


# Labels of nodes that have a name of their own since they are no longer in beta.
_GROWN_UP = {
    "failure-domain.beta.kubernetes.io/zone": "topology.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region": "topology.kubernetes.io/region",
    "beta.kubernetes.io/instance-type": "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/os": "kubernetes.io/os",
    "beta.kubernetes.io/arch": "kubernetes.io/arch",
}


def _same_affinity(new: Body | None, old: Body) -> list[Cause]:
    if new is not None and _grown_up(new, old):
        return []
    why = "field is immutable, except for updating from beta label to GA"
    return [invalid("nodeAffinity", new, why)]


def _grown_up(new: Any, old: Any) -> bool:
    """Whether they are the same but for keys whose newer name is used."""
    if isinstance(new, dict) and isinstance(old, dict):
        keys = {k for k in (*new, *old) if (new.get(k) or None) is not None or old.get(k)}
        return all(
            new.get(k) == _GROWN_UP.get(str(old.get(k)))
            if k == "key" and new.get(k) != old.get(k)
            else _grown_up(new.get(k), old.get(k))
            for k in keys
        )
    if isinstance(new, list) and isinstance(old, list):
        return len(new) == len(old) and all(_grown_up(n, o) for n, o in zip(new, old, strict=True))
    return bool((new or None) == (old or None))
