"""Volumes and claims: who belongs to whom, which volume suits a claim. Pure.

Shared by the binder, the scheduler and the node, which have to answer alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sampan.api.obj import Body
from sampan.lib.quantity import QuantityError, quantity
from sampan.lib.selectors import from_label_selector, from_node_expressions

CLAIMS = "persistentvolumeclaims"
VOLUMES = "persistentvolumes"
CLASSES = "storageclasses.storage.k8s.io"
PROVISIONER = "sampan.io/local"
NO_PROVISIONER = "kubernetes.io/no-provisioner"
# Where PersistentVolumes of the built-in provisioner say they are; each node keeps them elsewhere.
LOCAL_ROOT = "/var/lib/sampan/volumes"

BIND_COMPLETED = "pv.kubernetes.io/bind-completed"
BOUND_BY_CONTROLLER = "pv.kubernetes.io/bound-by-controller"
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
SELECTED_NODE = "volume.kubernetes.io/selected-node"
STORAGE_PROVISIONER = "volume.kubernetes.io/storage-provisioner"
BETA_STORAGE_PROVISIONER = "volume.beta.kubernetes.io/storage-provisioner"
BETA_CLASS = "volume.beta.kubernetes.io/storage-class"
SIZE_ENFORCED = "sampan.io/size-enforced"
DELETION_FINALIZER = "external-provisioner.volume.kubernetes.io/finalizer"
DEFAULT_CLASS = (
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
)


FILE_SYSTEMS = ("ext4", "xfs")  # of volumes whose size is enforced; the first is the default
_FS_TYPE = "csi.storage.k8s.io/fstype"  # the parameter of a class, as elsewhere


def file_system(storage_class: Body) -> str:
    """The file system a class asks for, '' where it leaves that open."""
    return str((storage_class.get("parameters") or {}).get(_FS_TYPE) or "")


def notes_of(body: Body) -> Mapping[str, str]:
    found: Mapping[str, str] = body["metadata"].get("annotations") or {}
    return found


def class_of(body: Body) -> str:
    """A volume's or claim's class, '' for none; the beta annotation comes first."""
    notes = notes_of(body)
    if BETA_CLASS in notes:
        return notes[BETA_CLASS]
    return str((body.get("spec") or {}).get("storageClassName") or "")


def has_no_class(claim: Body) -> bool:
    """Whether a claim leaves its class open (which is not the same as asking for none)."""
    return claim["spec"].get("storageClassName") is None and BETA_CLASS not in notes_of(claim)


def is_default(storage_class: Body) -> bool:
    notes = notes_of(storage_class)
    return any(notes.get(name) == "true" for name in DEFAULT_CLASS)


def default_class(classes: Iterable[Body]) -> str:
    """The name of the default class created last, '' when there is none."""
    found = sorted((c for c in classes if is_default(c)), key=lambda c: str(c["metadata"]["name"]))
    if not found:
        return ""
    newest = max(found, key=lambda c: str(c["metadata"].get("creationTimestamp") or ""))
    return str(newest["metadata"]["name"])


def waits_for_consumer(storage_class: Body | None) -> bool:
    return (storage_class or {}).get("volumeBindingMode") == "WaitForFirstConsumer"


def size(amounts: Mapping[str, Any] | None) -> int:
    """The ``storage`` of a resource list in bytes, rounded up; 0 when it has none."""
    value = (amounts or {}).get("storage")
    try:
        return quantity(value).whole if value is not None else 0
    except QuantityError:
        return 0


def asked(claim: Body) -> int:
    return size((claim["spec"].get("resources") or {}).get("requests"))


def capacity(volume: Body) -> int:
    return size(volume["spec"].get("capacity"))


def mode_of(body: Body) -> str:
    return str(body["spec"].get("volumeMode") or "Filesystem")


def is_bound_to(volume: Body, claim: Body) -> bool:
    """Whether the volume names this claim: by its uid too where it has one."""
    ref = volume["spec"].get("claimRef")
    meta = claim["metadata"]
    if not ref or (ref.get("namespace"), ref.get("name")) != (meta["namespace"], meta["name"]):
        return False
    return not ref.get("uid") or ref["uid"] == meta["uid"]


def is_fully_bound(claim: Body) -> bool:
    return bool(claim["spec"].get("volumeName")) and BIND_COMPLETED in notes_of(claim)


def has_modes(volume: Body, claim: Body) -> bool:
    """Whether the volume can be mounted in every way the claim asks for."""
    held = volume["spec"].get("accessModes") or ()
    return all(m in held for m in claim["spec"].get("accessModes") or ())


def suits_node(volume: Body, name: str, labels: Mapping[str, str]) -> bool:
    """Whether the volume can be reached from a node."""
    affinity = volume["spec"].get("nodeAffinity") or {}
    required = affinity.get("required")
    if not required:
        return True
    for term in required.get("nodeSelectorTerms") or ():
        expressions, fields = term.get("matchExpressions") or [], term.get("matchFields") or []
        if not expressions and not fields:
            continue
        if from_node_expressions(expressions).matches(labels) and from_node_expressions(
            fields
        ).matches({"metadata.name": name}):
            return True
    return False


def _suits(volume: Body, claim: Body) -> bool:
    """What even a volume that was promised to the claim must satisfy."""
    attributes = "volumeAttributesClassName"
    return (
        "deletionTimestamp" not in volume["metadata"]
        and capacity(volume) >= asked(claim)
        and mode_of(volume) == mode_of(claim)
        and has_modes(volume, claim)
        and (volume["spec"].get(attributes) or "") == (claim["spec"].get(attributes) or "")
    )


def _is_free(volume: Body, claim: Body) -> bool:
    selector = claim["spec"].get("selector")
    labels = volume["metadata"].get("labels") or {}
    return (
        not volume["spec"].get("claimRef")
        and (volume.get("status") or {}).get("phase") == "Available"
        and class_of(volume) == class_of(claim)
        and (not selector or from_label_selector(selector).matches(labels))
    )


def best_match(
    claim: Body, volumes: Iterable[Body], *, delayed: bool = False,
    node: tuple[str, Mapping[str, str]] | None = None, taken: Iterable[str] = (),
) -> Body | None:  # fmt: skip
    """The volume for a claim: one promised to it, else (unless *delayed*) the smallest that is
    large enough, of those with the fewest modes it has no use for. node: name and labels of the
    node it has to be reached from. taken: names of volumes not to look at."""
    found: list[tuple[int, int, str, Body]] = []
    excluded = set(taken)
    for volume in volumes:
        name = str(volume["metadata"]["name"])
        if name in excluded or not _suits(volume, claim):
            continue
        reachable = node is None or suits_node(volume, *node)
        if is_bound_to(volume, claim):
            return volume if reachable else None
        if delayed and node is None:
            continue
        if reachable and _is_free(volume, claim):
            modes = len(volume["spec"].get("accessModes") or ())
            found.append((modes if node is None else 0, capacity(volume), name, volume))
    return min(found, key=lambda f: f[:3])[3] if found else None


def mismatch(volume: Body, claim: Body) -> str:
    """Why a volume that a claim names cannot be its own, '' when it can."""
    if capacity(volume) < asked(claim):
        return "requested PV is too small"
    if class_of(volume) != class_of(claim):
        return "storageClassName does not match"
    attributes = "volumeAttributesClassName"
    if (volume["spec"].get(attributes) or "") != (claim["spec"].get(attributes) or ""):
        return "volumeAttributesClassName does not match"
    if mode_of(volume) != mode_of(claim):
        return "incompatible volumeMode"
    if not has_modes(volume, claim):
        return "incompatible accessMode"
    return ""


def claim_name(pod: Body, volume: Body) -> str:
    """The claim behind one volume of a pod, '' when there is none."""
    source = volume.get("persistentVolumeClaim")
    if source is not None:
        return str(source.get("claimName") or "")
    if volume.get("ephemeral") is not None:
        return f"{pod['metadata']['name']}-{volume['name']}"
    return ""


def claims_of(pod: Body) -> Iterator[tuple[str, Body]]:
    """(claim name, volume) of every volume of a pod that stands on a claim."""
    for volume in (pod.get("spec") or {}).get("volumes") or ():
        name = claim_name(pod, volume)
        if name:
            yield name, volume


def is_for_pod(claim: Body, pod: Body) -> bool:
    """Whether the claim of an ephemeral volume was made for this pod."""
    refs: Sequence[Body] = claim["metadata"].get("ownerReferences") or ()
    return any(r.get("controller") and r.get("uid") == pod["metadata"].get("uid") for r in refs)


def not_for_pod(claim: Body, pod: Body) -> str:
    meta, owner = claim["metadata"], pod["metadata"]
    return (
        f"PVC {meta['namespace']}/{meta['name']} was not created for pod "
        f"{owner['namespace']}/{owner['name']} (pod is not owner)"
    )


def is_local(volume: Body) -> bool:
    """Whether the built-in provisioner made the volume."""
    return notes_of(volume).get(PROVISIONED_BY) == PROVISIONER
