"""Volumes of a pod, one check per source."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sampan.api.errors import Cause
from sampan.api.obj import Body
from sampan.api.rules.claims import claim_spec
from sampan.api.rules.field import (
    checked,
    duplicate,
    forbidden,
    invalid,
    not_supported,
    required,
)
from sampan.api.rules.meta import check_annotations, check_labels
from sampan.api.rules.refs import field_ref, resource_ref
from sampan.lib import names
from sampan.lib.quantity import quantity

MODE_PROBLEM = "must be a number between 0 and 0777 (octal), both inclusive"
HOST_PATH_TYPES = (
    "", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate",
    "Socket",
)  # fmt: skip
DOWNWARD_FIELDS = (
    "metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace",
    "metadata.uid",
)  # fmt: skip
# Sources whose rules are only that these members are given.
NEEDED = {
    "persistentVolumeClaim": ("claimName",),
    "nfs": ("server", "path"),
    "iscsi": ("targetPortal", "iqn"),
    "glusterfs": ("endpoints", "path"),
    "cephfs": ("monitors",),
    "rbd": ("monitors", "image"),
    "cinder": ("volumeID",),
    "fc": (),
    "flocker": (),
    "flexVolume": ("driver",),
    "gcePersistentDisk": ("pdName",),
    "awsElasticBlockStore": ("volumeID",),
    "azureDisk": ("diskName", "diskURI"),
    "azureFile": ("secretName", "shareName"),
    "vsphereVolume": ("volumePath",),
    "photonPersistentDisk": ("pdID",),
    "portworxVolume": ("volumeID",),
    "quobyte": ("registry", "volume"),
    "scaleIO": ("gateway", "system", "volumeName"),
    "storageos": ("volumeName",),
    "gitRepo": ("repository",),
    "csi": ("driver",),
    "image": ("reference",),
}


def volumes(path: str, values: Sequence[Body]) -> tuple[dict[str, Body], list[Cause]]:
    """All volumes by name, and what is wrong with them."""
    known: dict[str, Body] = {}
    seen: set[str] = set()
    found: list[Cause] = []
    for i, volume in enumerate(values):
        at, name = f"{path}[{i}]", volume.get("name") or ""
        problems: list[Cause] = _source(at, volume)
        if not name:
            problems.append(required(f"{at}.name"))
        else:
            problems += checked(f"{at}.name", name, names.dns1123_label)
        if name in seen:
            problems.append(duplicate(f"{at}.name", name))
        seen.add(name)
        found += problems
        # As upstream has it, mounts of a broken volume are reported as not found besides.
        if not problems:
            known[name] = volume
    return known, found


def _source(at: str, volume: Body) -> list[Cause]:
    sources = [k for k in volume if k != "name" and volume[k] is not None]
    if not sources:
        return [required(at, "must specify a volume type")]
    found: list[Cause] = []
    for kind in sources[1:]:
        found.append(forbidden(f"{at}.{kind}", "may not specify more than 1 volume type"))
    kind, source = sources[0], volume[sources[0]]
    check = _CHECKS.get(kind)
    if check is not None:
        found += check(f"{at}.{kind}", source)
    for member in NEEDED.get(kind, ()):
        if not source.get(member):
            found.append(required(f"{at}.{kind}.{member}"))
    if kind == "nfs" and source.get("path") and not source["path"].startswith("/"):
        found.append(invalid(f"{at}.nfs.path", source["path"], "must be an absolute path"))
    return found


def descending(path: str, value: str) -> list[Cause]:
    """A relative path that never climbs."""
    found: list[Cause] = []
    if value.startswith("/"):
        found.append(invalid(path, value, "must be a relative path"))
    return found + no_backsteps(path, value)


def no_backsteps(path: str, value: str) -> list[Cause]:
    return [invalid(path, value, "must not contain '..'")] if ".." in value.split("/") else []


def _file_path(path: str, value: str) -> list[Cause]:
    found = descending(path, value)
    if value.startswith("..") and not value.startswith("../"):
        found.append(invalid(path, value, "must not start with '..'"))
    return found


def _mode(path: str, value: int | None) -> list[Cause]:
    if value is None or 0 <= value <= 0o777:
        return []
    return [invalid(path, value, MODE_PROBLEM)]


def _items(path: str, items: Sequence[Body]) -> list[Cause]:
    found: list[Cause] = []
    for i, item in enumerate(items):
        at = f"{path}[{i}]"
        if not item.get("key"):
            found.append(required(f"{at}.key"))
        if not item.get("path"):
            found.append(required(f"{at}.path"))
        else:
            found += _file_path(f"{at}.path", item["path"])
        found += _mode(f"{at}.mode", item.get("mode"))
    return found


def host_path(path: str, source: Body) -> list[Cause]:
    where = source.get("path") or ""
    if not where:
        return [required(f"{path}.path")]
    found = no_backsteps(f"{path}.path", where)
    kind = source.get("type") or ""
    if kind not in HOST_PATH_TYPES:
        found.append(not_supported(f"{path}.type", kind, HOST_PATH_TYPES))
    return found


def _empty_dir(path: str, source: Body) -> list[Cause]:
    limit = source.get("sizeLimit")
    if limit is not None and quantity(limit).nanos < 0:
        return [forbidden(f"{path}.sizeLimit", "SizeLimit field must be a valid resource quantity")]
    return []


def _secret(path: str, source: Body) -> list[Cause]:
    found = [] if source.get("secretName") else [required(f"{path}.secretName")]
    found += _mode(f"{path}.defaultMode", source.get("defaultMode"))
    return found + _items(f"{path}.items", source.get("items") or ())


def _config_map(path: str, source: Body) -> list[Cause]:
    found = [] if source.get("name") else [required(f"{path}.name")]
    found += _mode(f"{path}.defaultMode", source.get("defaultMode"))
    return found + _items(f"{path}.items", source.get("items") or ())


def _downward(path: str, source: Body) -> list[Cause]:
    found = _mode(f"{path}.defaultMode", source.get("defaultMode"))
    for i, item in enumerate(source.get("items") or ()):
        at = f"{path}.items[{i}]"
        if not item.get("path"):
            found.append(required(f"{at}.path"))
        else:
            found += _file_path(f"{at}.path", item["path"])
        field, resource = item.get("fieldRef"), item.get("resourceFieldRef")
        if field is not None:
            found += field_ref(f"{at}.fieldRef", field, DOWNWARD_FIELDS)
            if resource is not None:
                found.append(
                    invalid(
                        f"{at}.resource", "resource", "fieldRef and resourceFieldRef can not be "
                        "specified simultaneously",
                    )
                )  # fmt: skip
        elif resource is not None:
            found += resource_ref(f"{at}.resourceFieldRef", resource, in_volume=True)
        else:
            found.append(required(at, "one of fieldRef and resourceFieldRef is required"))
        found += _mode(f"{at}.mode", item.get("mode"))
    return found


def _token(path: str, source: Body) -> list[Cause]:
    seconds = source.get("expirationSeconds")
    found = [] if seconds is None else _lifetime(f"{path}.expirationSeconds", seconds)
    if not source.get("path"):
        found.append(required(f"{path}.path"))
    return found


def _lifetime(path: str, seconds: int) -> list[Cause]:
    """How long a token asked for may live."""
    if seconds < 600:
        return [invalid(path, seconds, "may not specify a duration less than 10 minutes")]
    if seconds > 1 << 32:
        return [invalid(path, seconds, "may not specify a duration larger than 2^32 seconds")]
    return []


def _projected(path: str, source: Body) -> list[Cause]:
    found = _mode(f"{path}.defaultMode", source.get("defaultMode"))
    seen: set[str] = set()
    for i, part in enumerate(source.get("sources") or ()):
        at = f"{path}.sources[{i}]"
        kinds = [k for k in part if part[k] is not None]
        if not kinds:
            found.append(required(at, "must specify a volume type"))
        for kind in kinds[1:]:
            found.append(forbidden(f"{at}.{kind}", "may not specify more than 1 volume type"))
        for kind in kinds[:1]:
            inner = part[kind]
            if kind in ("secret", "configMap"):
                if not inner.get("name"):
                    found.append(required(f"{at}.{kind}.name"))
                found += _items(f"{at}.{kind}.items", inner.get("items") or ())
            elif kind == "downwardAPI":
                found += _downward(f"{at}.{kind}", inner)
            elif kind == "serviceAccountToken":
                found += _token(f"{at}.{kind}", inner)
            elif kind == "clusterTrustBundle" and not inner.get("path"):
                found.append(required(f"{at}.{kind}.path"))
            written = [item.get("path") or "" for item in inner.get("items") or ()]
            if kind in ("serviceAccountToken", "clusterTrustBundle"):
                written.append(inner.get("path") or "")
            for file in written:
                if file and file in seen:
                    found.append(invalid(path, file, "conflicting duplicate paths"))
                seen.add(file)
    return found


def _ephemeral(path: str, source: Body) -> list[Cause]:
    template = source.get("volumeClaimTemplate")
    if template is None:
        return [required(f"{path}.volumeClaimTemplate")]
    at = f"{path}.volumeClaimTemplate"
    meta: Body = template.get("metadata") or {}
    found = check_annotations(f"{at}.metadata.annotations", meta.get("annotations"))
    found += check_labels(f"{at}.metadata.labels", meta.get("labels"))
    for name in sorted(meta):
        if name not in ("annotations", "labels") and meta[name]:
            found.append(forbidden(f"{at}.metadata.{name}", "cannot be set"))
    return found + claim_spec(f"{at}.spec", template.get("spec") or {})


_CHECKS: dict[str, Callable[[str, Body], list[Cause]]] = {
    "hostPath": host_path,
    "emptyDir": _empty_dir,
    "secret": _secret,
    "configMap": _config_map,
    "downwardAPI": _downward,
    "projected": _projected,
    "ephemeral": _ephemeral,
}
