"""What the binder of volumes and claims tells the world."""

from __future__ import annotations

from sampan.control import storage
from sampan.control.facts import NORMAL, WARNING, Event, Facts, Field, Mark

_B = "tests/controllers/test_volume_binder.py::"
_F = "tests/flows/test_storage.py::"
_E = "tests/controllers/test_volume_expand.py::"
_CLAIMS, _WITHOUT = f"{_B}test_claims_with_a_volume", f"{_B}test_claims_without_a_volume"
_VOLUMES = f"{_B}test_volumes"
_GROWTH = f"{_E}test_an_image_is_left_to_its_node"
_OTHERS = f"{_F}test_what_drivers_of_others_write_is_kept"
_LIFE = f"{_F}test_an_immediate_claim_is_provisioned_for_and_a_deleted_one_takes_its_volume_along"

UNSUITABLE = Event(
    WARNING, "VolumeMismatch", 'Cannot bind to requested volume "{volume}": {problem}', _CLAIMS
)
TAKEN = Event(
    WARNING, "FailedBinding", 'volume "{volume}" already bound to a different claim.', _CLAIMS
)
WAITS = Event(
    NORMAL, "WaitForFirstConsumer", "waiting for first consumer to be created before binding",
    _WITHOUT,
)  # fmt: skip
WAITS_FOR_PODS = Event(
    NORMAL, "WaitForPodScheduled", "waiting for {pods} to be scheduled", _WITHOUT
)
NO_VOLUME = Event(
    NORMAL, "FailedBinding",
    "no persistent volumes available for this claim and no storage class is set", _WITHOUT,
)  # fmt: skip
NO_CLASS = Event(
    WARNING, "ProvisioningFailed", 'storageclass.storage.k8s.io "{name}" not found', _WITHOUT
)
NO_PLUGIN = Event(
    WARNING, "ProvisioningFailed", "no volume plugin matched name: {provisioner}", _WITHOUT
)
EXTERNAL = Event(
    NORMAL, "ExternalProvisioning",
    "Waiting for a volume to be created either by the external provisioner '{provisioner}' or "
    "manually by the system administrator. If volume creation is delayed, please verify that the "
    "provisioner is running and correctly registered.",
    _WITHOUT,
)  # fmt: skip
LOST_REFERENCE = Event(
    WARNING, "ClaimLost",
    "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!", _CLAIMS,
)  # fmt: skip
LOST = Event(
    WARNING, "ClaimLost",
    "Bound claim has lost its PersistentVolume. Data on the volume is lost!", _CLAIMS,
)  # fmt: skip
MISBOUND = Event(
    WARNING, "ClaimMisbound",
    "Two claims are bound to the same volume, this one is bound incorrectly", _CLAIMS,
)  # fmt: skip
WRONG_MODE = Event(
    WARNING, "VolumeMismatch",
    'Cannot bind PersistentVolume "{volume}" to requested PersistentVolumeClaim due to '
    "incompatible volumeMode.", _VOLUMES,
)  # fmt: skip
WRONG_MODE_OF_CLAIM = Event(
    WARNING, "VolumeMismatch",
    'Cannot bind PersistentVolume to requested PersistentVolumeClaim "{claim}" due to '
    "incompatible volumeMode.", _VOLUMES,
)  # fmt: skip
NO_RECYCLER = Event(
    WARNING, "VolumeFailedRecycle", "No recycler plugin found for the volume!", _VOLUMES
)
NO_DELETER = Event(
    WARNING, "VolumeFailedDelete",
    'error getting deleter volume plugin for volume "{volume}": no deletable volume plugin matched',
    _VOLUMES,
)  # fmt: skip

_BOUND_BY = Mark(
    storage.BOUND_BY_CONTROLLER, "both", "the binder chose it, nobody had asked for it by name",
    f"{_B}test_the_smallest_volume_is_taken_and_marked_as_the_binders_choice",
)  # fmt: skip
FACTS = (
    Facts(
        kind="Binding of claims",
        page="PersistentVolumeClaim",
        definition="io.k8s.api.core.v1.PersistentVolumeClaim",
        controller="persistent-volume-binder",
        status=(
            Field("phase", "Pending, Bound or Lost", _CLAIMS),
            Field("accessModes", "of its volume", _LIFE),
            Field("capacity", "of its volume, as far as the node has made it so", _GROWTH),
            Field("conditions", "how far its growth is, and why it is not further", _GROWTH),
            Field("allocatedResources", "the size it grew to last, or is growing to", _GROWTH),
            Field("allocatedResourceStatuses", "whose turn it is while it grows", _GROWTH),
            Field("currentVolumeAttributesClassName", "of drivers of others; kept", _OTHERS),
            Field("healthStatus", "of drivers of others; kept", _OTHERS),
            Field("modifyVolumeStatus", "of drivers of others; kept", _OTHERS),
        ),
        events=(
            UNSUITABLE, TAKEN, WAITS, WAITS_FOR_PODS, NO_VOLUME, NO_CLASS, NO_PLUGIN, EXTERNAL,
            LOST_REFERENCE, LOST, MISBOUND, WRONG_MODE,
        ),
        annotations=(
            Mark(storage.BIND_COMPLETED, "PersistentVolumeClaim", "binding is done", _LIFE),
            _BOUND_BY,
            Mark(storage.STORAGE_PROVISIONER, "PersistentVolumeClaim", "who is to serve it", _LIFE),
            Mark(storage.BETA_STORAGE_PROVISIONER, "PersistentVolumeClaim", "the same", _LIFE),
        ),
        reads=(
            Mark(storage.SELECTED_NODE, "PersistentVolumeClaim",
                 "the scheduler's choice of a node: provisioning may begin",
                 f"{_F}test_a_claim_that_waits_gets_its_volume_where_its_first_pod_goes"),
        ),
    ),
    Facts(
        kind="Volumes",
        page="PersistentVolume",
        definition="io.k8s.api.core.v1.PersistentVolume",
        controller="persistent-volume-binder",
        status=(
            Field("phase", "Available, Bound, Released or Failed", _VOLUMES),
            Field("message", "why it is Failed", _VOLUMES),
            Field("reason", "not written; kept where others do", _OTHERS),
            Field("lastPhaseTransitionTime", "when it came into its phase (by the API server)",
                  _LIFE),
        ),
        events=(WRONG_MODE_OF_CLAIM, NO_RECYCLER, NO_DELETER),
        annotations=(_BOUND_BY,),
        reads=(
            Mark(storage.PROVISIONED_BY, "PersistentVolume", "who made it, and deletes it", _LIFE),
        ),
    ),
)  # fmt: skip
