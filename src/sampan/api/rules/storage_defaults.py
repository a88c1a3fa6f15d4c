"""Defaults, resets and warnings of the storage kinds."""

from __future__ import annotations

from sampan.api.obj import Body
from sampan.api.rules.podspec_defaults import canonical_list, canonical_resources
from sampan.api.rules.prepare import keep_status
from sampan.lib.quantity import QuantityError, quantity

BETA_CLASS = "volume.beta.kubernetes.io/storage-class"
_BETA_MOUNT_OPTIONS = "volume.beta.kubernetes.io/mount-options"
# Defaults of the members of a volume source, where upstream has any.
_SOURCES: dict[str, Body] = {
    "hostPath": {"type": ""},
    "iscsi": {"iscsiInterface": "default"},
    "rbd": {"pool": "rbd", "user": "admin", "keyring": "/etc/ceph/keyring"},
    "scaleIO": {"storageMode": "ThinProvisioned", "fsType": "xfs"},
    "azureDisk": {
        "cachingMode": "ReadWrite", "kind": "Shared", "fsType": "ext4", "readOnly": False,
    },
}  # fmt: skip
_OLD_SOURCES = {
    "cephfs": "deprecated in v1.28, non-functional in v1.31+",
    "photonPersistentDisk": "deprecated in v1.11, non-functional in v1.16+",
    "scaleIO": "deprecated in v1.16, non-functional in v1.22+",
    "storageos": "deprecated in v1.22, non-functional in v1.25+",
    "glusterfs": "deprecated in v1.25, non-functional in v1.26+",
    "rbd": "deprecated in v1.28, non-functional in v1.31+",
}


def _canonical(holder: Body, name: str) -> None:
    if holder.get(name) is not None:
        holder[name] = str(quantity(holder[name]))


def persistent_volume(body: Body) -> None:
    spec: Body = body.get("spec") or {}
    canonical_list(spec.get("capacity"))
    if spec:
        spec.setdefault("persistentVolumeReclaimPolicy", "Retain")
        spec.setdefault("volumeMode", "Filesystem")
    for kind, values in _SOURCES.items():
        source = spec.get(kind)
        if isinstance(source, dict):
            for name, value in values.items():
                source.setdefault(name, value)
    if isinstance(body.get("status"), dict):
        body["status"].setdefault("phase", "Pending")


def claim_spec(spec: Body) -> None:
    """Of a claim, of a template for one in a pod or in a StatefulSet."""
    spec.setdefault("volumeMode", "Filesystem")
    canonical_resources(spec.get("resources"))


def persistent_volume_claim(body: Body) -> None:
    if isinstance(body.get("spec"), dict):
        claim_spec(body["spec"])
    status = body.get("status")
    if isinstance(status, dict):
        status.setdefault("phase", "Pending")
        canonical_list(status.get("capacity"))
        canonical_list(status.get("allocatedResources"))


def storage_class(body: Body) -> None:
    body.setdefault("reclaimPolicy", "Delete")
    body.setdefault("volumeBindingMode", "Immediate")


def csi_driver(body: Body) -> None:
    spec = body.get("spec")
    if not isinstance(spec, dict):
        spec = body["spec"] = {}
    spec.setdefault("attachRequired", True)
    spec.setdefault("podInfoOnMount", False)
    spec.setdefault("storageCapacity", False)
    spec.setdefault("fsGroupPolicy", "ReadWriteOnceWithFSType")
    spec.setdefault("requiresRepublish", False)
    spec.setdefault("seLinuxMount", False)
    if not spec.get("volumeLifecycleModes"):
        spec["volumeLifecycleModes"] = ["Persistent"]


def csi_storage_capacity(body: Body) -> None:
    _canonical(body, "capacity")
    _canonical(body, "maximumVolumeSize")


# -- what clients may not set ----------------------------------------------------------------------


def create_persistent_volume(body: Body) -> None:
    body["status"] = {"phase": "Pending"}


def _same_source(spec: Body) -> None:
    """dataSource and dataSourceRef mirror each other where only one is given and no other
    namespace is meant."""
    given, ref = spec.get("dataSource"), spec.get("dataSourceRef")
    if given and not ref:
        spec["dataSourceRef"] = dict(given)
    elif ref and not given and not ref.get("namespace"):
        spec["dataSource"] = {k: v for k, v in ref.items() if k != "namespace"}


_OLD_KINDS = (("", "PersistentVolumeClaim"), ("snapshot.storage.k8s.io", "VolumeSnapshot"))


def _known_source(spec: Body, before: Body) -> None:
    """``dataSource`` names claims and snapshots only: any other kind is ignored, as before there
    was ``dataSourceRef``. Another namespace is for a feature that is off (alpha upstream)."""
    source = spec.get("dataSource")
    if source and not before.get("dataSource"):
        if (source.get("apiGroup") or "", source.get("kind")) not in _OLD_KINDS:
            del spec["dataSource"]
    ref = spec.get("dataSourceRef")
    if isinstance(ref, dict) and not (before.get("dataSourceRef") or {}).get("namespace"):
        ref.pop("namespace", None)


def create_claim(body: Body) -> None:
    body["status"] = {"phase": "Pending"}
    spec: Body = body.get("spec") or {}
    _known_source(spec, {})
    _same_source(spec)


def update_claim(new: Body, old: Body) -> None:
    keep_status(new, old)
    spec: Body = new.get("spec") or {}
    _known_source(spec, old.get("spec") or {})
    _same_source(spec)


def create_attachment(body: Body) -> None:
    body["status"] = {"attached": False}


# -- warnings --------------------------------------------------------------------------------------


def warn_persistent_volume(body: Body) -> list[str]:
    spec: Body = body.get("spec") or {}
    found = _annotations(body)
    if _BETA_MOUNT_OPTIONS in _given(body):
        found.append(
            f"metadata.annotations[{_BETA_MOUNT_OPTIONS}]: deprecated since v1.31; use "
            '"mountOptions" attribute instead'
        )
    if spec.get("persistentVolumeReclaimPolicy") == "Recycle":
        found.append(
            "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. "
            "Instead, the recommended approach is to use dynamic provisioning."
        )
    for kind, text in _OLD_SOURCES.items():
        if spec.get(kind) is not None:
            found.append(f"spec.{kind}: {text}")
    return found + _fraction("spec.capacity[storage]", (spec.get("capacity") or {}).get("storage"))


def warn_claim(body: Body) -> list[str]:
    found = _annotations(body)
    resources: Body = (body.get("spec") or {}).get("resources") or {}
    for kind in ("requests", "limits"):
        value = (resources.get(kind) or {}).get("storage")
        found += _fraction(f"spec.resources.{kind}[storage]", value)
    return found


def _given(body: Body) -> Body:
    found: Body = (body.get("metadata") or {}).get("annotations") or {}
    return found


def _annotations(body: Body) -> list[str]:
    if BETA_CLASS not in _given(body):
        return []
    return [
        f"metadata.annotations[{BETA_CLASS}]: deprecated since v1.8; use "
        '"storageClassName" attribute instead'
    ]


def _fraction(path: str, value: object) -> list[str]:
    try:
        whole = value is None or quantity(str(value)).value.denominator == 1
    except QuantityError:
        whole = True
    if whole:
        return []
    return [f'{path}: fractional byte value "{value}" is invalid, must be an integer']
