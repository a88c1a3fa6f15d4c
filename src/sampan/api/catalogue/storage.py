"""The kinds of storage: volumes, claims, their classes, and what CSI drivers tell of themselves."""

from __future__ import annotations

from sampan.api.catalogue.parts import fields, strict
from sampan.api.columns import storage as columns
from sampan.api.resource import ResourceType, Rules
from sampan.api.rules import claims, prepare, storage
from sampan.api.rules import storage_classes as classes
from sampan.api.rules import storage_defaults as defaults

CORE = "io.k8s.api.core.v1"
STORAGE = "io.k8s.api.storage.v1"
GROUP = "storage.k8s.io"
_VOLUME = Rules(
    default=strict(defaults.persistent_volume),
    prepare_create=defaults.create_persistent_volume,
    prepare_update=prepare.keep_status,
    validate=storage.persistent_volume,
    validate_update=storage.persistent_volume_update,
    warn=defaults.warn_persistent_volume,
)
_CLAIM = Rules(
    default=strict(defaults.persistent_volume_claim),
    prepare_create=defaults.create_claim,
    prepare_update=defaults.update_claim,
    validate=claims.persistent_volume_claim,
    validate_update=claims.persistent_volume_claim_update,
    validate_status=claims.persistent_volume_claim_status,
    warn=defaults.warn_claim,
)
_ATTACHMENT = Rules(
    prepare_create=defaults.create_attachment,
    prepare_update=prepare.keep_status,
    validate=classes.volume_attachment,
    validate_update=classes.volume_attachment_update,
    validate_status=classes.volume_attachment_status,
)

KINDS: tuple[ResourceType, ...] = (
    ResourceType(
        kind="PersistentVolume", plural="persistentvolumes", singular="persistentvolume",
        short_names=("pv",), namespaced=False, definition=f"{CORE}.PersistentVolume",
        subresources=("status",), fields=fields(), has_status=True,
        columns=columns.PERSISTENT_VOLUME, rules=_VOLUME,
    ),
    ResourceType(
        kind="PersistentVolumeClaim", plural="persistentvolumeclaims",
        singular="persistentvolumeclaim", short_names=("pvc",),
        definition=f"{CORE}.PersistentVolumeClaim", subresources=("status",), fields=fields(),
        has_status=True, columns=columns.PERSISTENT_VOLUME_CLAIM, rules=_CLAIM,
    ),
    ResourceType(
        group=GROUP, kind="StorageClass", plural="storageclasses", singular="storageclass",
        short_names=("sc",), namespaced=False, definition=f"{STORAGE}.StorageClass",
        fields=fields(), columns=columns.STORAGE_CLASS,
        rules=Rules(
            default=defaults.storage_class, validate=classes.storage_class,
            validate_update=classes.storage_class_update,
        ),
    ),
    ResourceType(
        group=GROUP, kind="CSIDriver", plural="csidrivers", singular="csidriver",
        namespaced=False, definition=f"{STORAGE}.CSIDriver", fields=fields(),
        has_generation=True, columns=columns.CSI_DRIVER,
        rules=Rules(
            default=defaults.csi_driver, validate=classes.csi_driver,
            validate_update=classes.csi_driver_update,
        ),
    ),
    ResourceType(
        group=GROUP, kind="CSINode", plural="csinodes", singular="csinode", namespaced=False,
        definition=f"{STORAGE}.CSINode", fields=fields(), columns=columns.CSI_NODE,
        rules=Rules(validate=classes.csi_node, validate_update=classes.csi_node_update),
    ),
    ResourceType(
        group=GROUP, kind="VolumeAttachment", plural="volumeattachments",
        singular="volumeattachment", namespaced=False, definition=f"{STORAGE}.VolumeAttachment",
        subresources=("status",), fields=fields(), has_status=True,
        columns=columns.VOLUME_ATTACHMENT, rules=_ATTACHMENT,
    ),
    ResourceType(
        group=GROUP, kind="CSIStorageCapacity", plural="csistoragecapacities",
        singular="csistoragecapacity", definition=f"{STORAGE}.CSIStorageCapacity",
        fields=fields(), columns=columns.CSI_STORAGE_CAPACITY,
        rules=Rules(
            default=strict(defaults.csi_storage_capacity), validate=classes.csi_storage_capacity,
            validate_update=classes.csi_storage_capacity_update,
        ),
    ),
    ResourceType(
        group=GROUP, kind="VolumeAttributesClass", plural="volumeattributesclasses",
        singular="volumeattributesclass", short_names=("vac",), namespaced=False,
        definition=f"{STORAGE}.VolumeAttributesClass", fields=fields(),
        columns=columns.ATTRIBUTES_CLASS,
        rules=Rules(
            validate=classes.attributes_class, validate_update=classes.attributes_class_update
        ),
    ),
)  # fmt: skip
