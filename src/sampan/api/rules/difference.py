"""Differences in refusals of changes, as upstream's messages have had them since v1.34: a unified
diff of the API server's own types as JSON, whose members have their Go names."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from sampan.api.obj import Body

_CONTEXT = 3
# Go names that are not the API's name with a capital.
_NAMED = {
    "iqn": "IQN", "wwids": "WWIDs", "fsType": "FSType",
    "apiGroup": "APIGroup", "chapAuthDiscovery": "DiscoveryCHAPAuth", "targetWWNs": "TargetWWNs",
    "chapAuthSession": "SessionCHAPAuth", "iscsiInterface": "ISCSIInterface", "pool": "RBDPool",
    "monitors": "CephMonitors", "volumeID": "VolumeID", "pdName": "PDName", "pdID": "PdID",
    "nfs": "NFS", "rbd": "RBD", "iscsi": "ISCSI", "cephfs": "CephFS", "fc": "FC", "csi": "CSI",
    "scaleIO": "ScaleIO", "awsElasticBlockStore": "AWSElasticBlockStore", "storageos": "StorageOS",
    "gcePersistentDisk": "GCEPersistentDisk",
}  # fmt: skip
# Members of the sources that are in use, in Go's order, with what stands for an absent one.
_MEMBERS: Mapping[str, Mapping[str, Any]] = {
    "hostPath": {"path": "", "type": None},
    "nfs": {"server": "", "path": "", "readOnly": False},
    "local": {"path": "", "fsType": None},
    "iscsi": {
        "targetPortal": "", "iqn": "", "lun": 0, "iscsiInterface": "", "fsType": "",
        "readOnly": False, "portals": None, "chapAuthDiscovery": False, "chapAuthSession": False,
        "secretRef": None, "initiatorName": None,
    },
    "csi": {
        "driver": "", "volumeHandle": "", "readOnly": False, "fsType": "",
        "volumeAttributes": None, "controllerPublishSecretRef": None, "nodeStageSecretRef": None,
        "nodePublishSecretRef": None, "controllerExpandSecretRef": None,
        "nodeExpandSecretRef": None,
    },
}  # fmt: skip
_SOURCES = (
    "gcePersistentDisk", "awsElasticBlockStore", "hostPath", "glusterfs", "nfs", "rbd", "quobyte",
    "iscsi", "flexVolume", "cinder", "cephfs", "fc", "flocker", "azureFile", "vsphereVolume",
    "azureDisk", "photonPersistentDisk", "portworxVolume", "scaleIO", "local", "storageos", "csi",
)  # fmt: skip


def difference(old: Any, new: Any) -> str:
    """What leads from one value to the other, '' where nothing does."""
    before, after = (json.dumps(v, indent=1, ensure_ascii=False).split("\n") for v in (old, new))
    lines = difflib.unified_diff(before, after, n=_CONTEXT, lineterm="")
    return "".join(f"{line}\n" for line in [*lines][2:])  # without the names of two files


def claim_spec(spec: Body) -> Body:
    """The spec of a PersistentVolumeClaim as the API server's own type."""
    resources: Body = spec.get("resources") or {}
    source, ref = spec.get("dataSource"), spec.get("dataSourceRef")
    return {
        "AccessModes": spec.get("accessModes"),
        "Selector": spec.get("selector"),
        "Resources": {
            "Limits": _sorted(resources.get("limits")),
            "Requests": _sorted(resources.get("requests")),
        },
        "VolumeName": spec.get("volumeName") or "",
        "StorageClassName": spec.get("storageClassName"),
        "VolumeMode": spec.get("volumeMode"),
        "DataSource": source and _named(source, ("apiGroup", "kind", "name")),
        "DataSourceRef": ref and _named(ref, ("apiGroup", "kind", "name", "namespace")),
        "VolumeAttributesClassName": spec.get("volumeAttributesClassName"),
    }


def volume_source(spec: Body) -> Body:
    """The source of a PersistentVolume as the API server's own type."""
    return {go_name(kind): _source(kind, spec.get(kind)) for kind in _SOURCES}


def _source(kind: str, value: Body | None) -> Body | None:
    if value is None:
        return None
    whole = {**_MEMBERS.get(kind, {}), **value}
    return {go_name(k): _inner(v) for k, v in whole.items()}


def _inner(value: Any) -> Any:
    if isinstance(value, dict) and set(value) <= {"name", "namespace"}:  # a reference to a secret
        return {"Name": value.get("name", ""), "Namespace": value.get("namespace", "")}
    return _sorted(value) if isinstance(value, dict) else value


def _named(value: Body, members: Sequence[str]) -> Body:
    empty = {"apiGroup": None, "namespace": None}
    return {go_name(m): value.get(m) or empty.get(m, "") for m in members}


def _sorted(value: Body | None) -> Body | None:
    return dict(sorted(value.items())) if value else None


def go_name(name: str) -> str:
    """The Go name of an API field."""
    return _NAMED.get(name) or name[:1].upper() + name[1:]
