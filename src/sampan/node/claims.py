"""Volumes that stand on claims: which volume a pod's claim means, whether it may have it, and where
it is on this node."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from sampan.api.obj import Body
from sampan.control import growth, storage
from sampan.node.disks import DiskFailure, Disks, Place
from sampan.node.hostpath import WrongType, host_path

_IN_USE = (
    "volume uses the ReadWriteOncePod access mode and is already in use by another pod"
)  # fmt: skip


class ClaimFailure(Exception):
    """The pod cannot have the volume (now); the text is told in an event."""


class Reader(Protocol):
    async def read(self, resource: str, namespace: str, name: str) -> Body | None:
        """An object as it is now; None when there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Claimed:
    """A claim of a pod with its volume."""

    claim: Body
    volume: Body


class Claims:
    """Of one node. others: the pods that this node serves. Without *disks* nothing is made (virtual
    worlds)."""

    def __init__(
        self, reader: Reader, *, node: str, others: Callable[[], Iterable[Body]],
        disks: Disks | None = None,
    ) -> None:  # fmt: skip
        self._reader = reader
        self._node = node
        self._others = others
        self._disks = disks

    async def resolve(self, pod: Body, volume: Body) -> Claimed:
        """The claim behind one volume of a pod. Raises ClaimFailure."""
        meta = pod["metadata"]
        namespace, name = meta.get("namespace", ""), storage.claim_name(pod, volume)
        claim = await self._reader.read(storage.CLAIMS, namespace, name)
        where = f"error processing PVC {namespace}/{name}"
        if claim is None:
            raise ClaimFailure(
                f"{where}: failed to fetch PVC from API server: "
                f'persistentvolumeclaims "{name}" not found'
            )
        if volume.get("ephemeral") is not None and not storage.is_for_pod(claim, pod):
            raise ClaimFailure(f"{where}: {storage.not_for_pod(claim, pod)}")
        started = (pod.get("status") or {}).get("phase") == "Running"
        if "deletionTimestamp" in claim["metadata"] and not started:
            raise ClaimFailure(f"{where}: PVC is being deleted")
        bound = claim["spec"].get("volumeName")
        if (claim.get("status") or {}).get("phase") != "Bound" or not bound:
            raise ClaimFailure(f"{where}: PVC is not bound")
        found = await self._reader.read(storage.VOLUMES, "", bound)
        if found is None:
            raise ClaimFailure(
                f"{where}: failed to fetch PV {bound} from API server: "
                f'persistentvolumes "{bound}" not found'
            )
        ref = found["spec"].get("claimRef") or {}
        if ref.get("uid") != claim["metadata"]["uid"]:
            raise ClaimFailure(
                f'{where}: PV {bound} is bound to another claim (UID "{ref.get("uid", "")}")'
            )
        self._check_mode(pod, volume["name"], found)
        return Claimed(claim, found)

    @staticmethod
    def _check_mode(pod: Body, name: str, volume: Body) -> None:
        mode = storage.mode_of(volume)
        spec = pod["spec"]
        for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
            mounted = any(m["name"] == name for m in container.get("volumeMounts") or ())
            device = any(d["name"] == name for d in container.get("volumeDevices") or ())
            if mode == "Block" and mounted:
                raise ClaimFailure(
                    f"volume {name} has volumeMode Block, but is specified in volumeMounts"
                )
            if mode == "Filesystem" and device:
                raise ClaimFailure(
                    f"volume {name} has volumeMode Filesystem, but is specified in volumeDevices"
                )

    async def mount(self, pod: Body, volume: Body) -> tuple[Place, Claimed]:
        """Where it is in the node, its claim and volume. Raises ClaimFailure."""
        found = await self.resolve(pod, volume)
        name = found.volume["metadata"]["name"]
        if not await self._suits(found.volume):
            raise ClaimFailure(
                f'MountVolume.NodeAffinity check failed for volume "{name}" : no matching '
                "NodeSelectorTerms"
            )
        others = self.users(found.claim, besides=pod["metadata"].get("uid", ""))
        if others and "ReadWriteOncePod" in (found.volume["spec"].get("accessModes") or ()):
            raise ClaimFailure(f'MountVolume.SetUp failed for volume "{name}" : {_IN_USE}')
        place = await self._place(found, alone=not others)
        group = (pod["spec"].get("securityContext") or {}).get("fsGroup")
        if group is not None and self._disks is not None and self._is_owned(found, volume):
            policy = pod["spec"]["securityContext"].get("fsGroupChangePolicy") or "Always"
            only = policy == "OnRootMismatch"
            await self._disks.own(place.path, int(group), only_on_mismatch=only)
        return place, found

    async def _suits(self, volume: Body) -> bool:
        if not volume["spec"].get("nodeAffinity"):
            return True
        node = await self._reader.read("nodes", "", self._node)
        labels = ((node or {}).get("metadata") or {}).get("labels") or {}
        return storage.suits_node(volume, self._node, labels)

    @staticmethod
    def _is_owned(found: Claimed, volume: Body) -> bool:
        """Whether fsGroup applies: file systems of local volumes that are not read-only."""
        source = volume.get("persistentVolumeClaim") or {}
        return (
            "local" in found.volume["spec"]
            and storage.mode_of(found.volume) == "Filesystem"
            and not source.get("readOnly")
        )

    def users(self, claim: Body, *, besides: str = "") -> list[Body]:
        """Pods of this node that name the claim and have not ended."""
        meta = claim["metadata"]
        return [
            p
            for p in self._others()
            if p["metadata"].get("uid", "") != besides
            and p["metadata"].get("namespace") == meta["namespace"]
            and (p.get("status") or {}).get("phase") not in ("Succeeded", "Failed")
            and any(name == meta["name"] for name, _ in storage.claims_of(p))
        ]

    def in_use(self, volume: Body) -> bool:
        """Whether a pod of this node still has the volume, be its claim gone or not."""
        ref = volume["spec"].get("claimRef") or {}
        return any(
            p["metadata"].get("namespace") == ref.get("namespace")
            and any(name == ref.get("name") for name, _ in storage.claims_of(p))
            for p in self._others()
        )

    async def _place(self, found: Claimed, *, alone: bool) -> Place:
        volume = found.volume
        name, spec = volume["metadata"]["name"], volume["spec"]
        if self._disks is None:
            return Place(f"/volumes/{name}")
        try:
            if storage.is_local(volume):
                return await self.ensure(found, alone=alone)
            if "hostPath" in spec and storage.mode_of(volume) != "Block":
                return Place(await self._disks.run(host_path, spec["hostPath"]))
            for kind in ("local", "hostPath"):
                if kind in spec:
                    path = str(spec[kind]["path"])
                    await self._disks.run(_must_exist, path)
                    return Place(path)
        except (DiskFailure, WrongType, OSError) as e:
            raise ClaimFailure(f'MountVolume.SetUp failed for volume "{name}" : {e}') from e
        other = next((k for k in spec if k in _SOURCES), "unknown")
        raise ClaimFailure(
            f'MountVolume.SetUp failed for volume "{name}" : persistent volumes of type {other} '
            "are not supported by this node"
        )

    async def ensure(self, found: Claimed, *, alone: bool) -> Place:
        """The place of a local volume, grown where its claim says that it is the node's turn.
        Raises DiskFailure."""
        assert self._disks is not None
        volume, claim = found.volume, found.claim
        size = storage.capacity(volume)
        known = storage.size((claim.get("status") or {}).get("capacity"))
        if known and not growth.is_nodes_turn(claim):
            size = min(size, known)
        return await self._disks.ensure(
            volume["metadata"]["name"], size=size, alone=alone,
            image=storage.notes_of(volume).get(storage.SIZE_ENFORCED) == "true",
            block=storage.mode_of(volume) == "Block",
            options=tuple(volume["spec"].get("mountOptions") or ()),
            kind=str((volume["spec"].get("local") or {}).get("fsType") or "ext4"),
        )  # fmt: skip


_SOURCES = (
    "awsElasticBlockStore", "azureDisk", "azureFile", "cephfs", "cinder", "csi", "fc",
    "flexVolume", "flocker", "gcePersistentDisk", "glusterfs", "iscsi", "nfs",
    "photonPersistentDisk", "portworxVolume", "quobyte", "rbd", "scaleIO", "storageos",
    "vsphereVolume",
)  # fmt: skip


def _must_exist(path: str) -> None:
    if not os.path.exists(path):
        raise DiskFailure(f'path "{path}" does not exist')
