"""Admission of storage: finalizers that protect what is in use, the default class, growth."""

from __future__ import annotations

from sampan.api.errors import forbidden
from sampan.api.obj import Body, Key
from sampan.api.rules.storage_defaults import BETA_CLASS
from sampan.apiserver.pages import obj_of
from sampan.apiserver.stages import Write
from sampan.lib.clock import rfc3339
from sampan.lib.quantity import quantity

PVC_PROTECTION = "kubernetes.io/pvc-protection"
PV_PROTECTION = "kubernetes.io/pv-protection"
_FINALIZERS = {"persistentvolumeclaims": PVC_PROTECTION, "persistentvolumes": PV_PROTECTION}
_CLASSES = "storageclasses.storage.k8s.io"


def is_default_class(body: Body) -> bool:
    notes: Body = body["metadata"].get("annotations") or {}
    return "true" in (
        notes.get("storageclass.kubernetes.io/is-default-class"),
        notes.get("storageclass.beta.kubernetes.io/is-default-class"),
    )


class StorageObjectInUseProtection:
    """New claims and volumes wait, when deleted, until nobody uses them."""

    async def mutate(self, w: Write) -> None:
        finalizer = _FINALIZERS.get(w.t.resource)
        if finalizer is None or w.verb != "create":
            return
        held = w.body["metadata"].setdefault("finalizers", [])
        if finalizer not in held:
            held.append(finalizer)

    async def check(self, w: Write) -> None:
        """Nothing to refuse."""


class DefaultStorageClass:
    """A claim that names no class gets the default one, the newest where there are several."""

    async def mutate(self, w: Write) -> None:
        if w.verb != "create" or w.t.resource != "persistentvolumeclaims":
            return
        spec = w.body.get("spec") or {}
        notes = w.body["metadata"].get("annotations") or {}
        if spec.get("storageClassName") is not None or BETA_CLASS in notes:
            return
        classes = [obj_of(r).body for r in (await w.api.store.range(Key.prefix(_CLASSES))).records]
        defaults = [c for c in classes if is_default_class(c)]
        if defaults:
            spec["storageClassName"] = newest(defaults)["metadata"]["name"]

    async def check(self, w: Write) -> None:
        """Nothing to refuse."""


def newest(classes: list[Body]) -> Body:
    """The class created last; of equally old ones the first by name."""
    ordered = sorted(classes, key=lambda c: str(c["metadata"]["name"]))
    return max(ordered, key=lambda c: str(c["metadata"].get("creationTimestamp") or ""))


class PersistentVolumeClaimResize:
    """Only bound claims of a class that allows it grow."""

    async def mutate(self, w: Write) -> None:
        """Nothing to add."""

    async def check(self, w: Write) -> None:
        if w.t.resource != "persistentvolumeclaims" or w.verb != "update" or w.subresource:
            return
        assert w.old is not None
        if _asked(w.body) <= _asked(w.old.body):
            return
        if (w.old.status.get("phase")) != "Bound":
            raise forbidden(
                w.t.resource, w.name, "Only bound persistent volume claims can be expanded"
            )
        notes: Body = w.body["metadata"].get("annotations") or {}
        spec: Body = w.body["spec"]
        name = notes[BETA_CLASS] if BETA_CLASS in notes else spec.get("storageClassName")
        found = await w.api.find(_CLASSES, "", str(name)) if name else None
        if found is None or not found.body.get("allowVolumeExpansion"):
            raise forbidden(
                w.t.resource, w.name,
                "only dynamically provisioned pvc can be resized and the storageclass that "
                "provisions the pvc must support resize",
            )  # fmt: skip


def _asked(body: Body) -> int:
    resources: Body = (body.get("spec") or {}).get("resources") or {}
    return quantity((resources.get("requests") or {}).get("storage") or "0").nanos


class PhaseTransitions:
    """A volume tells when it came into its phase (part of upstream's strategy of the kind; it is
    here since it needs the clock)."""

    async def mutate(self, w: Write) -> None:
        """Nothing to add."""

    async def check(self, w: Write) -> None:
        if w.t.resource != "persistentvolumes" or w.verb not in ("create", "update"):
            return
        status = w.body.get("status") or {}
        before = w.old.status if w.old is not None else {}
        moved = status.get("phase") != before.get("phase")
        given = status.get("lastPhaseTransitionTime")
        if status and moved and given == before.get("lastPhaseTransitionTime"):
            status["lastPhaseTransitionTime"] = rfc3339(w.api.clock.now())
