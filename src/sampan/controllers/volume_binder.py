"""PersistentVolume binder: claims get volumes, volumes follow what becomes of their claims.

A claim and its volume point at each other (``claim.spec.volumeName``, ``volume.spec.claimRef``).
Binding is volume first, claim second, so that two claims can never both believe in one volume:
whoever writes the volume first has it. Every plan makes the next step; its own writes wake it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sampan.api.obj import Body, Key, Obj
from sampan.control import storage
from sampan.control.facts import Event
from sampan.control.plan import Action, Caches, SetStatus, Trigger, Update, own
from sampan.controllers import binder_facts as tell


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimView:
    """A claim; the volume it names; those it might get; its class; the class it would be given;
    pods that use it and have no node yet, by name."""

    claim: Body
    volume: Body | None = None
    candidates: tuple[Body, ...] = ()
    storage_class: Body | None = None
    default_class: str = ""
    waiting: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeView:
    """A volume and the claim it names, if that is there."""

    volume: Body
    claim: Body | None = None


# -- indexes ---------------------------------------------------------------------------------------


def _class(obj: Obj) -> Iterable[str]:
    yield storage.class_of(obj.body)


def _pending_class(claim: Obj) -> Iterable[str]:
    if not claim.spec.get("volumeName"):
        yield storage.class_of(claim.body)


def _volume_name(claim: Obj) -> Iterable[str]:
    if claim.spec.get("volumeName"):
        yield str(claim.spec["volumeName"])


def _claim_path(volume: Obj) -> Iterable[str]:
    ref = volume.spec.get("claimRef")
    if ref:
        yield f"{ref.get('namespace')}/{ref.get('name')}"


def pod_claims(pod: Obj) -> Iterable[str]:
    """Index: ``namespace/claim`` of every claim a pod uses."""
    for name, _volume in storage.claims_of(pod.body):
        yield f"{pod.namespace}/{name}"


class VolumeBinder:
    """Upstream's persistentvolume-binder-controller."""

    name = "persistent-volume-binder"
    workers = 1  # one claim after the other: each sees what the one before was given

    def __init__(self) -> None:
        self.triggers: tuple[Trigger, ...] = (
            own(storage.VOLUMES), own(storage.CLAIMS),
            Trigger(storage.VOLUMES, self._of_volume), Trigger(storage.CLAIMS, self._of_claim),
            Trigger(storage.CLASSES, self._of_class),
        )  # fmt: skip
        self.indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]] = {
            storage.VOLUMES: {"class": _class, "claim": _claim_path},
            storage.CLAIMS: {"pending-class": _pending_class, "volume": _volume_name},
            "pods": {"claims": pod_claims},
        }

    @staticmethod
    def _of_volume(volume: Obj, caches: Caches) -> Iterable[Key]:
        """The claims a volume is about; a free one interests all that wait for its class."""
        ref = volume.spec.get("claimRef")
        if ref:
            yield Key(storage.CLAIMS, str(ref.get("namespace")), str(ref.get("name")))
        else:
            for claim in caches[storage.CLAIMS].by("pending-class", storage.class_of(volume.body)):
                yield claim.key
        for claim in caches[storage.CLAIMS].by("volume", volume.name):
            yield claim.key

    @staticmethod
    def _of_claim(claim: Obj, caches: Caches) -> Iterable[Key]:
        if claim.spec.get("volumeName"):
            yield Key(storage.VOLUMES, "", str(claim.spec["volumeName"]))
        for volume in caches[storage.VOLUMES].by("claim", f"{claim.namespace}/{claim.name}"):
            yield volume.key

    @staticmethod
    def _of_class(storage_class: Obj, caches: Caches) -> Iterable[Key]:
        names = [storage_class.name]
        if storage.is_default(storage_class.body):
            names.append("")
        for name in names:
            for claim in caches[storage.CLAIMS].by("pending-class", name):
                yield claim.key

    # -- looking -----------------------------------------------------------------------------------

    def observe(self, key: Key, caches: Caches) -> ClaimView | VolumeView | None:
        found = caches[key.resource].get(key.namespace, key.name)
        if found is None:
            return None
        if key.resource == storage.VOLUMES:
            ref = found.spec.get("claimRef") or {}
            claim = caches[storage.CLAIMS].get(
                str(ref.get("namespace") or ""), str(ref.get("name") or "")
            )
            return VolumeView(volume=found.body, claim=claim.body if claim else None)
        return self._claim_view(found, caches)

    @staticmethod
    def _claim_view(claim: Obj, caches: Caches) -> ClaimView:
        name = str(claim.spec.get("volumeName") or "")
        volumes = caches[storage.VOLUMES]
        volume = volumes.get("", name) if name else None
        chosen = storage.class_of(claim.body)
        path = f"{claim.namespace}/{claim.name}"
        candidates: dict[str, Body] = {}
        if not name:
            for found in (*volumes.by("claim", path), *volumes.by("class", chosen)):
                candidates[found.name] = found.body
        classes = caches[storage.CLASSES]
        held = classes.get("", chosen) if chosen else None
        return ClaimView(
            claim=claim.body,
            volume=volume.body if volume else None,
            candidates=tuple(candidates[n] for n in sorted(candidates)),
            storage_class=held.body if held else None,
            default_class=storage.default_class(c.body for c in classes.list()),
            waiting=tuple(
                sorted(
                    p.name
                    for p in caches["pods"].by("claims", path)
                    if not p.spec.get("nodeName") and not p.is_deleting
                )
            ),
        )

    def plan(self, view: ClaimView | VolumeView, now: float) -> Sequence[Action]:
        if isinstance(view, VolumeView):
            return plan_volume(view)
        if storage.BIND_COMPLETED in storage.notes_of(view.claim):
            return plan_bound(view)
        return plan_unbound(view)


# -- claims ----------------------------------------------------------------------------------------


def plan_unbound(view: ClaimView) -> Sequence[Action]:
    claim = view.claim
    if not claim["spec"].get("volumeName"):
        delayed = storage.waits_for_consumer(view.storage_class)
        volume = storage.best_match(claim, view.candidates, delayed=delayed)
        return _bind(volume, claim) if volume is not None else _without_volume(view, delayed)
    volume = view.volume
    if volume is None:
        return _claim_status(claim, "Pending")  # it asked for one that is not there (yet)
    if not volume["spec"].get("claimRef"):
        problem = storage.mismatch(volume, claim)
        if not problem:
            return _bind(volume, claim)
        name = volume["metadata"]["name"]
        told = tell.UNSUITABLE.about(claim, volume=name, problem=problem)
        return [told, *_claim_status(claim, "Pending")]
    if storage.is_bound_to(volume, claim):
        return _bind(volume, claim)
    told = tell.TAKEN.about(claim, volume=volume["metadata"]["name"])
    return [told, *_claim_status(claim, "Pending")]


def _without_volume(view: ClaimView, delayed: bool) -> Sequence[Action]:
    claim = view.claim
    if storage.has_no_class(claim) and view.default_class:
        given = {**claim["spec"], "storageClassName": view.default_class}
        return [Update(storage.CLAIMS, {**claim, "spec": given})]
    pending = _claim_status(claim, "Pending")
    if delayed and storage.SELECTED_NODE not in storage.notes_of(claim):
        if not view.waiting:
            return [tell.WAITS.about(claim), *pending]
        pods = ("pods " if len(view.waiting) > 1 else "pod ") + ",".join(view.waiting)
        return [tell.WAITS_FOR_PODS.about(claim, pods=pods), *pending]
    name = storage.class_of(claim)
    if not name:
        return [tell.NO_VOLUME.about(claim), *pending]
    if view.storage_class is None:
        return [tell.NO_CLASS.about(claim, name=name), *pending]
    return [*_ask(claim, str(view.storage_class.get("provisioner") or "")), *pending]


def _ask(claim: Body, provisioner: str) -> Sequence[Action]:
    """Tell a provisioner that this claim is its own to serve."""
    if provisioner.startswith("kubernetes.io/"):
        return [tell.NO_PLUGIN.about(claim, provisioner=provisioner)]
    wanted = {
        storage.STORAGE_PROVISIONER: provisioner,
        storage.BETA_STORAGE_PROVISIONER: provisioner,
    }
    notes = {**storage.notes_of(claim), **wanted}
    actions: list[Action] = []
    if notes != storage.notes_of(claim):
        actions.append(Update(storage.CLAIMS, _noted(claim, notes)))
    return [*actions, tell.EXTERNAL.about(claim, provisioner=provisioner)]


def plan_bound(view: ClaimView) -> Sequence[Action]:
    claim, volume = view.claim, view.volume
    if not claim["spec"].get("volumeName"):
        return _lost(claim, tell.LOST_REFERENCE)
    if volume is None:
        return _lost(claim, tell.LOST)
    ref = volume["spec"].get("claimRef")
    if not ref or ref.get("uid") == claim["metadata"]["uid"]:
        return _bind(volume, claim)
    return _lost(claim, tell.MISBOUND)


def _lost(claim: Body, event: Event) -> Sequence[Action]:
    actions = _claim_status(claim, "Lost")
    return [*actions, event.about(claim)] if actions else []


def _bind(volume: Body, claim: Body) -> Sequence[Action]:
    """The next step towards a claim and a volume that point at each other. Each step is written
    before the next one is planned."""
    meta = claim["metadata"]
    ref = volume["spec"].get("claimRef")
    identity = {"namespace": meta["namespace"], "name": meta["name"], "uid": meta["uid"]}
    if not ref or any(ref.get(k) != v for k, v in identity.items()):
        return [Update(storage.VOLUMES, _claimed(volume, claim))]
    actions = _volume_status(volume, "Bound")
    notes = {**storage.notes_of(claim), storage.BIND_COMPLETED: "yes"}
    name = volume["metadata"]["name"]
    if claim["spec"].get("volumeName") != name:
        notes.setdefault(storage.BOUND_BY_CONTROLLER, "yes")
    bound = _noted({**claim, "spec": {**claim["spec"], "volumeName": name}}, notes)
    if bound != claim:
        return [*actions, Update(storage.CLAIMS, bound)]
    return [*actions, *_claim_status(claim, "Bound", volume)]


def _claimed(volume: Body, claim: Body) -> Body:
    meta = claim["metadata"]
    notes = dict(storage.notes_of(volume))
    if not storage.is_bound_to(volume, claim):
        notes.setdefault(storage.BOUND_BY_CONTROLLER, "yes")
    ref = {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": meta["namespace"],
        "name": meta["name"], "uid": meta["uid"],
        "resourceVersion": meta.get("resourceVersion", ""),
    }  # fmt: skip
    spec = {**volume["spec"], "claimRef": ref}
    return _noted({**volume, "spec": spec}, notes)


def _noted(body: Body, notes: Body) -> Body:
    if notes == storage.notes_of(body):
        return body
    return {**body, "metadata": {**body["metadata"], "annotations": notes}}


def _claim_status(claim: Body, phase: str, volume: Body | None = None) -> list[Action]:
    """The claim in *phase*, where that is news. What is resized is told by whoever resizes."""
    held: Body = claim.get("status") or {}
    status: dict[str, Any] = {**held, "phase": phase}
    if volume is None:
        status.pop("accessModes", None)
        status.pop("capacity", None)
    else:
        status["accessModes"] = volume["spec"].get("accessModes") or []
        if held.get("phase") != "Bound":
            status["capacity"] = volume["spec"].get("capacity") or {}
    return [SetStatus(storage.CLAIMS, {**claim, "status": status})] if status != held else []


# -- volumes ---------------------------------------------------------------------------------------


def plan_volume(view: VolumeView) -> Sequence[Action]:
    volume, claim = view.volume, view.claim
    ref = volume["spec"].get("claimRef")
    if not ref or not ref.get("uid"):
        return _volume_status(volume, "Available")  # free, or kept for a claim that will take it
    if claim is not None and claim["metadata"]["uid"] != ref["uid"]:
        claim = None  # another one of the same name: the volume's own is gone
    if claim is None:
        return _release(volume)
    name = volume["metadata"]["name"]
    held = claim["spec"].get("volumeName")
    if not held:
        if storage.mode_of(volume) == storage.mode_of(claim):
            return []  # half way: the claim's own plan goes on
        other = claim["metadata"]["name"]
        return [
            tell.WRONG_MODE_OF_CLAIM.about(volume, claim=other),
            tell.WRONG_MODE.about(claim, volume=name),
        ]
    if held == name:
        return _volume_status(volume, "Bound")
    # The claim was served by another volume.
    dynamic = storage.PROVISIONED_BY in storage.notes_of(volume)
    if dynamic and volume["spec"].get("persistentVolumeReclaimPolicy") == "Delete":
        return _release(volume)
    return [Update(storage.VOLUMES, _unbound(volume))]


def _unbound(volume: Body) -> Body:
    """Free again; what its creator had promised to a claim stays promised."""
    spec, notes = dict(volume["spec"]), dict(storage.notes_of(volume))
    if notes.pop(storage.BOUND_BY_CONTROLLER, None) is not None:
        spec.pop("claimRef", None)
    else:
        spec["claimRef"] = {k: v for k, v in spec["claimRef"].items() if k != "uid"}
    return _noted({**volume, "spec": spec}, notes)


def _release(volume: Body) -> Sequence[Action]:
    """The claim is gone: what the reclaim policy asks for."""
    phase = (volume.get("status") or {}).get("phase")
    released = [] if phase in ("Released", "Failed") else _volume_status(volume, "Released")
    policy = volume["spec"].get("persistentVolumeReclaimPolicy")
    if released or policy not in ("Delete", "Recycle") or phase == "Failed":
        return released
    if policy == "Recycle":
        # Deprecated upstream, where a pod of its own empties the volume; refused in words here.
        return [
            *_volume_status(volume, "Failed", message=tell.NO_RECYCLER.text),
            tell.NO_RECYCLER.about(volume),
        ]
    by = storage.notes_of(volume).get(storage.PROVISIONED_BY, "")
    if by and not by.startswith("kubernetes.io/"):
        return []  # whoever made it deletes it
    name = volume["metadata"]["name"]
    told = tell.NO_DELETER.about(volume, volume=name)
    return [*_volume_status(volume, "Failed", message=told.message), told]


def _volume_status(
    volume: Body, phase: str, *, reason: str = "", message: str = ""
) -> list[Action]:
    held: Body = volume.get("status") or {}
    if held.get("phase") == phase:  # what others say of it stays
        return []
    status = {k: v for k, v in held.items() if k not in ("reason", "message")}
    status["phase"] = phase
    if message:
        status["message"] = message
    return [SetStatus(storage.VOLUMES, {**volume, "status": status})]
