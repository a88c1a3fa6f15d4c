"""Columns of the storage kinds."""

from __future__ import annotations

from collections.abc import Sequence

from sampan.api.columns.cells import AGE, NAME, dig, text
from sampan.api.obj import Body
from sampan.api.resource import Column
from sampan.api.rules.storage_defaults import BETA_CLASS

DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
_BETA_DEFAULT_CLASS = "storageclass.beta.kubernetes.io/is-default-class"
_UNSET = "<unset>"
_SHORT = {
    "ReadWriteOnce": "RWO",
    "ReadOnlyMany": "ROX",
    "ReadWriteMany": "RWX",
    "ReadWriteOncePod": "RWOP",
}


def _modes(modes: Sequence[str]) -> str:
    return ",".join(short for mode, short in _SHORT.items() if mode in modes)


def _phase(body: Body, _now: float) -> str:
    if dig(body, "metadata.deletionTimestamp"):
        return "Terminating"
    return str(dig(body, "status.phase", ""))


def _claim(body: Body, _now: float) -> str:
    ref = dig(body, "spec.claimRef")
    return f"{ref.get('namespace', '')}/{ref.get('name', '')}" if ref else ""


def class_of(body: Body) -> str:
    """A volume's or claim's class; the beta annotation comes first."""
    notes: Body = dig(body, "metadata.annotations", {})
    return str(notes[BETA_CLASS] if BETA_CLASS in notes else dig(body, "spec.storageClassName", ""))


def is_default_class(body: Body) -> bool:
    notes: Body = dig(body, "metadata.annotations", {})
    return "true" in (notes.get(DEFAULT_CLASS), notes.get(_BETA_DEFAULT_CLASS))


def _class_name(body: Body, _now: float) -> str:
    name = str(dig(body, "metadata.name", ""))
    return f"{name} (default)" if is_default_class(body) else name


def _of_bound(path: str) -> Column:
    """A cell of a claim that only shows something once it has a volume."""

    def cell(body: Body, _now: float) -> str:
        if not dig(body, "spec.volumeName"):
            return ""
        if path == "accessModes":
            return _modes(dig(body, "status.accessModes", ()))
        return str(dig(body, "status.capacity.storage", "0"))

    name = "Access Modes" if path == "accessModes" else "Capacity"
    return Column(name, cell, description="Of the volume it is bound to.")


def _flag(name: str, path: str, *, default: bool, about: str) -> Column:
    return Column(name, lambda body, _now: bool(dig(body, path, default)), type="boolean",
                  description=about)  # fmt: skip


_CLASS = Column("StorageClass", lambda body, _now: class_of(body), description="Its class.")
_STATUS = Column("Status", _phase, description="Its phase.")
_ATTRIBUTES = text(
    "VolumeAttributesClass", "spec.volumeAttributesClassName", _UNSET, about="Its attributes."
)
_MODE = text("VolumeMode", "spec.volumeMode", _UNSET, wide=True, about="Filesystem or Block.")

PERSISTENT_VOLUME = (
    NAME,
    text("Capacity", "spec.capacity.storage", "0", about="Its size."),
    Column("Access Modes", lambda body, _now: _modes(dig(body, "spec.accessModes", ())),
           description="All ways in which it can be mounted."),
    text("Reclaim Policy", "spec.persistentVolumeReclaimPolicy", about="What follows a release."),
    _STATUS,
    Column("Claim", _claim, description="Whom it is bound to."),
    _CLASS,
    _ATTRIBUTES,
    text("Reason", "status.reason", about="Why it is in its state."),
    AGE,
    _MODE,
)  # fmt: skip
PERSISTENT_VOLUME_CLAIM = (
    NAME, _STATUS, text("Volume", "spec.volumeName", about="What it is bound to."),
    _of_bound("capacity"), _of_bound("accessModes"), _CLASS, _ATTRIBUTES, AGE, _MODE,
)  # fmt: skip
STORAGE_CLASS = (
    Column("Name", _class_name, format="name", description=NAME.description),
    text("Provisioner", "provisioner", about="Who makes its volumes."),
    text("ReclaimPolicy", "reclaimPolicy", "Delete", about="What follows a release."),
    text("VolumeBindingMode", "volumeBindingMode", "Immediate", about="When claims are bound."),
    _flag("AllowVolumeExpansion", "allowVolumeExpansion", default=False, about="May it grow."),
    AGE,
)


def _tokens(body: Body, _now: float) -> str:
    requests = dig(body, "spec.tokenRequests")
    if requests is None:
        return _UNSET
    return ",".join(r.get("audience", "") for r in requests)


CSI_DRIVER = (
    NAME,
    _flag("AttachRequired", "spec.attachRequired", default=True, about="Is attaching a step."),
    _flag("PodInfoOnMount", "spec.podInfoOnMount", default=False, about="Told of the pod."),
    _flag("StorageCapacity", "spec.storageCapacity", default=False, about="Tells its room."),
    Column("TokenRequests", _tokens, description="Audiences of the tokens it gets."),
    _flag("RequiresRepublish", "spec.requiresRepublish", default=False, about="Called often."),
    Column(
        "Modes",
        lambda body, _now: ",".join(dig(body, "spec.volumeLifecycleModes", ())) or "<none>",
        description="Kinds of volumes it makes.",
    ),
    AGE,
)
CSI_NODE = (
    NAME,
    Column("Drivers", lambda body, _now: len(dig(body, "spec.drivers", ())), type="integer",
           description="How many CSI drivers the node has."),
    AGE,
)  # fmt: skip
VOLUME_ATTACHMENT = (
    NAME,
    Column("Attacher", lambda body, _now: dig(body, "spec.attacher", ""), format="name",
           description="Who attaches it."),
    text("PV", "spec.source.persistentVolumeName", about="The volume."),
    text("Node", "spec.nodeName", about="The node."),
    _flag("Attached", "status.attached", default=False, about="Whether it is done."),
    AGE,
)  # fmt: skip
CSI_STORAGE_CAPACITY = (
    NAME,
    text("StorageClassName", "storageClassName", about="The class."),
    text("Capacity", "capacity", _UNSET, about="What is left."),
)
ATTRIBUTES_CLASS = (NAME, text("DriverName", "driverName", about="The CSI driver."), AGE)
