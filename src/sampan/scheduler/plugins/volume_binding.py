"""VolumeBinding: a pod goes where its volumes are, or where they can come to be.

What it decides for one pod it keeps in mind (``Promises``) until the binder has written it, so that
two pods are never promised the same volume. Decisions are pure; PreBind writes them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from sampan.api.errors import StatusError
from sampan.api.obj import Body, Obj
from sampan.client.base import Client
from sampan.client.cache import Caches
from sampan.control import storage
from sampan.scheduler.framework import (
    OK,
    SKIP,
    NodeInfo,
    PodInfo,
    Prepared,
    Reject,
    Skip,
    Verdict,
    View,
    Wake,
)

BIND_SECONDS = 600.0
NODE_CONFLICT = "node(s) didn't match PersistentVolume's node affinity"
BIND_CONFLICT = "node(s) didn't find available persistent volumes to bind"
NO_VOLUME = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"
UNBOUND = "pod has unbound immediate PersistentVolumeClaims"


@dataclass(frozen=True, slots=True)
class Claims:
    """A pod's claims: bound ones with their volumes, and those the node it gets decides about."""

    bound: tuple[tuple[Body, Body], ...] = ()
    open: tuple[Body, ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """What is done on one node: volumes that are there for claims, and claims that are provisioned
    for."""

    matched: tuple[tuple[Body, Body], ...] = ()
    provisioned: tuple[Body, ...] = ()


@dataclass(slots=True)
class Promises:
    """What is decided and not written yet. volumes: volume name -> uid of the pod it is for."""

    volumes: dict[str, str] = field(default_factory=dict)
    choices: dict[str, Choice] = field(default_factory=dict)  # by pod uid

    def keep(self, uid: str, choice: Choice) -> None:
        self.choices[uid] = choice
        for _claim, volume in choice.matched:
            self.volumes[volume["metadata"]["name"]] = uid

    def drop(self, uid: str) -> None:
        self.choices.pop(uid, None)
        for name in [n for n, holder in self.volumes.items() if holder == uid]:
            del self.volumes[name]


class Storage:
    """What plug-ins read of volumes: by their names."""

    def __init__(self, caches: Caches) -> None:
        self._caches = caches
        for resource in (storage.CLAIMS, storage.VOLUMES, storage.CLASSES):
            caches[resource]

    def claim(self, namespace: str, name: str) -> Body | None:
        return _body(self._caches[storage.CLAIMS].get(namespace, name))

    def volume(self, name: str) -> Body | None:
        return _body(self._caches[storage.VOLUMES].get("", name))

    def storage_class(self, name: str) -> Body | None:
        return _body(self._caches[storage.CLASSES].get("", name)) if name else None

    def volumes(self) -> list[Body]:
        return [v.body for v in self._caches[storage.VOLUMES].list()]


def _body(obj: Obj | None) -> Body | None:
    return obj.body if obj is not None else None


# -- deciding --------------------------------------------------------------------------------------


def sort_out(pod: Obj, held: Storage) -> Claims | Reject:
    """The pod's claims, or why it cannot be placed anywhere now."""
    bound: list[tuple[Body, Body]] = []
    open_: list[Body] = []
    for name, source in storage.claims_of(pod.body):
        claim = held.claim(pod.namespace, name)
        if claim is None:
            if source.get("ephemeral") is not None:
                return Reject(
                    "waiting for ephemeral volume controller to create the "
                    f'persistentvolumeclaim "{name}"'
                )
            return Reject(f'persistentvolumeclaim "{name}" not found')
        if (claim.get("status") or {}).get("phase") == "Lost":
            return Reject(
                f'persistentvolumeclaim "{name}" bound to non-existent persistentvolume '
                f'"{claim["spec"].get("volumeName", "")}"'
            )
        if "deletionTimestamp" in claim["metadata"]:
            return Reject(f'persistentvolumeclaim "{name}" is being deleted')
        if source.get("ephemeral") is not None and not storage.is_for_pod(claim, pod.body):
            return Reject(storage.not_for_pod(claim, pod.body))
        if storage.is_fully_bound(claim):
            volume = held.volume(claim["spec"]["volumeName"])
            if volume is None:
                return Reject(NO_VOLUME)
            bound.append((claim, volume))
        elif storage.waits_for_consumer(held.storage_class(storage.class_of(claim))) and not claim[
            "spec"
        ].get("volumeName"):
            open_.append(claim)
        else:
            return Reject(UNBOUND)
    return Claims(tuple(bound), tuple(sorted(open_, key=_by_size)))


def _by_size(claim: Body) -> tuple[int, str]:
    return storage.asked(claim), str(claim["metadata"]["name"])


def choose(
    claims: Claims, node: Obj, *, volumes: Iterable[Body], taken: Iterable[str],
    class_of: Callable[[str], Body | None],
) -> Choice | Reject:  # fmt: skip
    """What is done for the pod on this node, or why it cannot be."""
    labels = node.labels
    if any(not storage.suits_node(v, node.name, labels) for _, v in claims.bound):
        return Reject(NODE_CONFLICT)
    used = set(taken)
    matched: list[tuple[Body, Body]] = []
    provisioned: list[Body] = []
    for claim in claims.open:
        selected = storage.notes_of(claim).get(storage.SELECTED_NODE)
        if selected:
            # It is being provisioned for a node that was chosen before.
            if selected != node.name:
                return Reject(BIND_CONFLICT)
            provisioned.append(claim)
            continue
        volume = storage.best_match(
            claim, volumes, delayed=True, node=(node.name, labels), taken=used
        )
        if volume is not None:
            used.add(volume["metadata"]["name"])
            matched.append((claim, volume))
        elif _can_provision(class_of(storage.class_of(claim)), labels):
            provisioned.append(claim)
        else:
            return Reject(BIND_CONFLICT)
    return Choice(tuple(matched), tuple(provisioned))


def _can_provision(storage_class: Body | None, labels: Mapping[str, str]) -> bool:
    provisioner = (storage_class or {}).get("provisioner")
    if storage_class is None or not provisioner or provisioner == storage.NO_PROVISIONER:
        return False
    terms = storage_class.get("allowedTopologies") or ()
    return not terms or any(
        all(labels.get(e["key"]) in (e.get("values") or ())
            for e in term.get("matchLabelExpressions") or ())
        for term in terms
    )  # fmt: skip


# -- the plug-in -----------------------------------------------------------------------------------


def _same_namespace(pod: PodInfo, old: Obj | None, new: Obj | None) -> bool:
    obj = new or old
    if obj is None or obj.namespace != pod.obj.namespace:
        return False
    return any(name == obj.name for name, _ in storage.claims_of(pod.obj.body))


class VolumeBinding:
    name: ClassVar[str] = "VolumeBinding"
    wakes: ClassVar[tuple[Wake, ...]] = (
        Wake(storage.CLAIMS, ("ADDED", "MODIFIED"), _same_namespace),
        Wake(storage.VOLUMES, ("ADDED", "MODIFIED")),
        Wake(storage.CLASSES, ("ADDED", "MODIFIED")),
        Wake("nodes", ("ADDED", "MODIFIED")),
    )

    def __init__(
        self, client: Client, caches: Caches, held: Storage, *,
        promises: Promises | None = None, seconds: float = BIND_SECONDS,
    ) -> None:  # fmt: skip
        """promises: of all who decide for one cluster; seconds: a pod waits for its volumes."""
        self._client = client
        self._caches = caches
        self._held = held
        self._promises = promises or Promises()
        self._seconds = seconds

    def prepare(self, pod: PodInfo, view: View) -> Prepared | Reject | Skip:
        if not any(storage.claims_of(pod.obj.body)):
            return SKIP
        claims = sort_out(pod.obj, self._held)
        if isinstance(claims, Reject):
            return claims
        volumes = self._held.volumes() if claims.open else []

        def check(node: NodeInfo) -> Verdict:
            found = self._choose(claims, node.obj, volumes)
            return found if isinstance(found, Reject) else OK

        return Prepared(check, static=True, unique=True)

    def _choose(self, claims: Claims, node: Obj, volumes: Iterable[Body]) -> Choice | Reject:
        return choose(
            claims, node, volumes=volumes, taken=self._promises.volumes,
            class_of=self._held.storage_class,
        )  # fmt: skip

    # -- Reserve

    def reserve(self, pod: PodInfo, node: NodeInfo) -> Verdict:
        if not any(storage.claims_of(pod.obj.body)):
            return OK
        claims = sort_out(pod.obj, self._held)
        if isinstance(claims, Reject):
            return claims
        choice = self._choose(claims, node.obj, self._held.volumes())
        if isinstance(choice, Reject):
            return choice
        self._promises.keep(pod.obj.uid, choice)
        return OK

    def unreserve(self, pod: PodInfo, node_name: str) -> None:
        self._promises.drop(pod.obj.uid)

    # -- PreBind

    async def pre_bind(self, pod: PodInfo, node_name: str) -> Verdict:
        """Write what was decided; returns once every claim is bound."""
        choice = self._promises.choices.get(pod.obj.uid)
        if choice is None:
            return OK
        if choice.matched or choice.provisioned:
            refused = await self._write(pod.obj, choice, node_name)
            if refused is not None:
                return refused
        self._promises.drop(pod.obj.uid)
        return OK

    async def _write(self, pod: Obj, choice: Choice, node_name: str) -> Verdict:
        try:
            for claim, volume in choice.matched:
                await self._client.update(storage.VOLUMES, _promised(volume, claim))
            for claim in choice.provisioned:
                meta = claim["metadata"]
                note = {"metadata": {"annotations": {storage.SELECTED_NODE: node_name}}}
                await self._client.patch(storage.CLAIMS, meta["name"], note, meta["namespace"])
        except StatusError as e:
            return Reject(f"binding volumes: {e.message}", failed=True)
        names = [name for name, _ in storage.claims_of(pod.body)]
        answer: list[str] = []
        # The caches may still show what was there before our own writes.
        noted = {c["metadata"]["name"] for c in choice.provisioned}
        seen: set[str] = set()

        def is_done() -> bool:
            waiting = False
            for name in names:
                claim = self._held.claim(pod.namespace, name)
                if claim is None or "deletionTimestamp" in claim["metadata"]:
                    answer.append(f'pvc "{name}" is gone or being deleted')
                    return True
                selected = storage.notes_of(claim).get(storage.SELECTED_NODE)
                if selected == node_name:
                    seen.add(name)
                elif name in noted and name in seen and not storage.is_fully_bound(claim):
                    answer.append(f'selectedNode annotation reset for PVC "{name}"')
                    return True
                phase = (claim.get("status") or {}).get("phase")
                # The node looks at the phase, which is written last.
                waiting = waiting or not storage.is_fully_bound(claim) or phase != "Bound"
            return not waiting

        try:
            async with asyncio.timeout(self._seconds):
                await self._caches[storage.CLAIMS].until(is_done)
        except TimeoutError:
            return Reject("binding volumes: timed out waiting for the condition", failed=True)
        return Reject(f"binding volumes: {answer[0]}", failed=True) if answer else OK


def _promised(volume: Body, claim: Body) -> Body:
    """The volume with a reference to the claim it was chosen for; the binder does the rest."""
    meta = claim["metadata"]
    notes = dict(storage.notes_of(volume))
    if not storage.is_bound_to(volume, claim):
        notes[storage.BOUND_BY_CONTROLLER] = "yes"
    ref = {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": meta["namespace"],
        "name": meta["name"], "uid": meta["uid"],
        "resourceVersion": meta.get("resourceVersion", ""),
    }  # fmt: skip
    return {
        **volume,
        "metadata": {**volume["metadata"], "annotations": notes},
        "spec": {**volume["spec"], "claimRef": ref},
    }
