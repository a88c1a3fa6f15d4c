"""A node's part of the built-in provisioner: volumes grow while they are in use, and are taken away
when they are released and to be deleted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from sampan.api.errors import StatusError
from sampan.api.obj import Body, Obj
from sampan.client.base import Client, Unknown
from sampan.client.cache import Informer
from sampan.control import growth, storage
from sampan.lib.clock import Clock, rfc3339
from sampan.node.claims import Claimed, Claims
from sampan.node.disks import DiskFailure, Disks, Place
from sampan.node.events import EventSink

RETRY = 15.0
_FIRST = 0.02
log = logging.getLogger("sampan.node")


class LocalVolumes:
    """Follows the PersistentVolumes of *node*. client: the node's own; owner: the provisioner's,
    who alone may delete volumes (None: nobody does). disks: None in virtual worlds."""

    def __init__(
        self, client: Client, owner: Client | None, *, node: str, claims: Claims,
        disks: Disks | None, events: EventSink, labels: dict[str, str], clock: Clock,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:  # fmt: skip
        self._client = client
        self._owner = owner
        self._node = node
        self._clock = clock
        self._labels = labels
        self._claims = claims
        self._disks = disks
        self._events = events
        self._spawn = spawn
        self._busy: set[str] = set()
        self._again: set[str] = set()
        self.volumes = Informer(client, storage.VOLUMES)

    async def start(self) -> None:
        self.volumes.add_handler(self._changed)
        self.volumes.start()
        await self.volumes.synced()

    async def stop(self) -> None:
        await self.volumes.stop()

    def pod_released(self) -> None:
        """A pod is gone: what it held may go now."""
        for volume in self.volumes.list():
            self._look(volume)

    def _changed(self, _kind: str, _old: Obj | None, new: Obj | None) -> None:
        if new is not None:
            self._look(new)

    def _look(self, volume: Obj) -> None:
        body = volume.body
        if not storage.is_local(body) or not storage.suits_node(body, self._node, self._labels):
            return
        if not (_is_to_go(body) or self._may_grow(body)):
            return
        if volume.name in self._busy:
            self._again.add(volume.name)
            return
        self._busy.add(volume.name)
        self._spawn(self._work(volume.name))

    def _may_grow(self, volume: Body) -> bool:
        return (
            self._disks is not None
            and storage.notes_of(volume).get(storage.SIZE_ENFORCED) == "true"
            and (volume.get("status") or {}).get("phase") == "Bound"
            and self._claims.in_use(volume)
        )

    async def _work(self, name: str) -> None:
        try:
            while True:
                self._again.discard(name)
                held = self.volumes.get("", name)
                if held is None:
                    return
                try:
                    await self._one(held.body)
                except (StatusError, Unknown, OSError) as e:
                    code = e.code if isinstance(e, StatusError) else 0
                    if code != 404:
                        if code != 409:
                            log.warning("volume %s: %s", name, e)
                        await asyncio.sleep(RETRY)
                        continue
                if name not in self._again:
                    return
        finally:
            self._busy.discard(name)

    async def _one(self, volume: Body) -> None:
        if _is_to_go(volume):
            while self._claims.in_use(volume) and not await self._is_claimed_anew(volume):
                # Most often the pod has to go, which would be told; but it may also be another one
                # of the same name that came at once, and whose claim is still to come.
                await asyncio.sleep(RETRY)
            await self._remove(volume)
        elif self._may_grow(volume):
            await self._grow(volume)

    # -- taking away

    async def _is_claimed_anew(self, volume: Body) -> bool:
        """Whether another claim has the name of the volume's own, so that the pods that name it
        mean another volume: a claim does not go before the pods that use it."""
        try:
            claim = await self._claim_of(volume)
        except StatusError as e:
            if e.code != 404:
                raise
            return False
        return bool(claim["metadata"]["uid"] != volume["spec"]["claimRef"].get("uid"))

    async def _remove(self, volume: Body) -> None:
        name = volume["metadata"]["name"]
        if self._owner is None:
            return
        keeps = volume["spec"].get("persistentVolumeReclaimPolicy") != "Delete"
        if self._disks is not None and not keeps:
            try:
                await self._disks.remove(name)
            except DiskFailure as failure:
                self._events.emit(volume, "Warning", "VolumeFailedDelete", str(failure))
                await asyncio.sleep(RETRY)
                self._again.add(name)
                return
        if "deletionTimestamp" not in volume["metadata"]:
            await self._owner.delete(storage.VOLUMES, name, uid=volume["metadata"]["uid"])
        current = await self._owner.get(storage.VOLUMES, name)
        kept = [f for f in current.meta.get("finalizers") or () if f != storage.DELETION_FINALIZER]
        patch = {"metadata": {"finalizers": kept or None, "uid": current.uid,
                              "resourceVersion": str(current.revision)}}  # fmt: skip
        await self._owner.patch(storage.VOLUMES, name, patch)

    # -- growing

    async def _grow(self, volume: Body) -> None:
        """Grow in use, where the kernel lets us; else the next start of the pod does it."""
        claim = await self._claim_of(volume)
        delay = _FIRST
        # The volume has its new size a moment before the claim says whose turn it is.
        while growth.state(claim) == growth.CONTROLLER_IN_PROGRESS and delay < RETRY:
            await asyncio.sleep(delay)
            delay *= 2
            claim = await self._claim_of(volume)
        if growth.state(claim) not in (growth.NODE_PENDING, growth.NODE_IN_PROGRESS):
            return
        if growth.state(claim) == growth.NODE_PENDING:
            status: Body = claim["status"]
            size = (status.get("allocatedResources") or {}).get("storage")
            told = growth.allocated(status, str(size), growth.NODE_IN_PROGRESS)
            claim = await self._tell(claim, told)
        try:
            place = await self._claims.ensure(Claimed(claim, volume), alone=False)
        except DiskFailure as failure:
            place = Place("", False, problem=str(failure))
        await self.has_grown(claim, volume, place)

    async def _claim_of(self, volume: Body) -> Body:
        ref = volume["spec"].get("claimRef") or {}
        name, namespace = str(ref.get("name")), str(ref.get("namespace"))
        return (await self._client.get(storage.CLAIMS, name, namespace)).body

    async def _tell(self, claim: Body, status: Body) -> Body:
        body = {**claim, "status": status}
        return (await self._client.update(storage.CLAIMS, body, subresource="status")).body

    async def has_grown(self, claim: Body, volume: Body, place: Place) -> None:
        """Tell the claim how its growth has gone; nothing where that is known."""
        status: Body = claim.get("status") or {}
        if not growth.is_nodes_turn(claim):
            return
        name = volume["metadata"]["name"]
        about = (claim, *self._claims.users(claim))
        if place.grown:
            await self._tell(claim, growth.finished(status, volume["spec"]["capacity"]["storage"]))
            text = f'MountVolume.NodeExpandVolume succeeded for volume "{name}" {self._node}'
            for body in about:
                self._events.emit(body, "Normal", "FileSystemResizeSuccessful", text)
        elif place.problem:
            message = f"failed to expand pvc with {place.problem}"
            held = [c for c in status.get("conditions") or () if c["type"] == "NodeResizeError"]
            state = growth.NODE_INFEASIBLE if place.hopeless else growth.state(claim)
            if [c.get("message") for c in held] == [message] and state == growth.state(claim):
                return
            size = str((status.get("allocatedResources") or {}).get("storage"))
            told = growth.allocated(status, size, state)
            at = rfc3339(self._clock.now())
            await self._tell(
                claim, growth.with_condition(told, "NodeResizeError", message, at=at, keep=True)
            )
            text = f'NodeExpandVolume.NodeExpandVolume failed for volume "{name}" : {place.problem}'
            for body in about:
                self._events.emit(body, "Warning", "VolumeResizeFailed", text)


def _is_to_go(volume: Body) -> bool:
    """Released and to be deleted, or deleted by hand and waiting for us."""
    meta = volume["metadata"]
    phase = (volume.get("status") or {}).get("phase")
    if storage.DELETION_FINALIZER not in (meta.get("finalizers") or ()):
        return False
    if "deletionTimestamp" in meta:
        return phase != "Bound"
    return (
        phase == "Released" and volume["spec"].get("persistentVolumeReclaimPolicy") == "Delete"
    )  # fmt: skip
