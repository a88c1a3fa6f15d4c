"""The nodes of this process: they come, stop, start again and go while the cluster runs."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sampan.api.errors import StatusError
from sampan.apiserver.front import Front
from sampan.app.control import Refused
from sampan.app.control_plane import ADMIN, ControlPlane, controller_user, node_user
from sampan.app.node_network import NodeNetwork
from sampan.control import storage
from sampan.controllers.local_provisioner import LocalProvisioner
from sampan.controllers.volume_protection import PV_FINALIZER
from sampan.lib.addressing import DEFAULT, Plan
from sampan.lib.clock import Clock
from sampan.lib.datadir import DataDir
from sampan.lib.ids import Ids
from sampan.node.agent import Agent
from sampan.node.disks import Disks, release_devices
from sampan.node.images.store import ImageStore
from sampan.node.runtime.base import Runtime, SandboxSpec
from sampan.node.runtime.fake import FakeRuntime
from sampan.node.runtime.native.nodes import Nodes, Space
from sampan.node.runtime.native.runtime import NativeRuntime

MOST = 250  # the last index that has addresses


@dataclass(slots=True)
class Node:
    """One node that runs."""

    name: str
    index: int
    agent: Agent
    runtime: Runtime
    space: Space | None = None
    sockets: list[Any] = field(default_factory=list)

    @property
    def pid(self) -> int:
        return self.space.pid if self.space is not None else 0


class Members:
    """Which nodes the cluster has (by index: the i-th is called CLUSTER-i and has the i-th
    addresses), and those of them that run. changed: told when either is different."""

    def __init__(
        self, plane: ControlPlane, front: Front, *, cluster: str, place: DataDir, clock: Clock,
        ids: Ids, tls: ssl.SSLContext, native: bool, changed: Callable[[], None],
        addresses: Plan = DEFAULT,
    ) -> None:  # fmt: skip
        self._addresses = addresses
        self.indexes: list[int] = []
        self.running: list[Node] = []
        self._plane = plane
        self._front = front
        self._cluster = cluster
        self._place = place
        self._clock = clock
        self._ids = ids
        self._tls = tls
        self._changed = changed
        self._host = Nodes(place.node_root, addresses) if native else None
        self._images = ImageStore(place.node_root / "images") if native else None
        self._network: NodeNetwork | None = None
        self._lock = asyncio.Lock()

    # -- what there is

    def name_of(self, index: int) -> str:
        return f"{self._cluster}-{index}"

    @property
    def stopped(self) -> list[int]:
        up = {n.index for n in self.running}
        return [i for i in self.indexes if i not in up]

    def find(self, name: str) -> Node | None:
        """The node of that name, if it runs."""
        return next((n for n in self.running if n.name == name), None)

    def pids(self) -> list[int]:
        found = self._host.pids() if self._host is not None else []
        for node in self.running:
            if isinstance(node.runtime, NativeRuntime):
                found += node.runtime.pids()
        return found

    # -- all of them

    async def begin(self, indexes: Iterable[int], *, stopped: Iterable[int] = ()) -> None:
        """Every node but the *stopped* ones runs."""
        self.indexes = sorted(indexes)
        off = set(stopped)
        for index in self.indexes:
            if index not in off:
                await self._make(index)
        if self._host is not None:
            spaces = [n.space for n in self.running if n.space is not None]
            self._network = NodeNetwork(
                self._plane, spaces, self._addresses, address=self._place.address
            )
            await self._network.start()
            for node in self.running:
                self._guard(node)
        await asyncio.gather(*(n.agent.start() for n in self.running))

    async def close(self) -> None:
        """Let go of all; what runs on them goes on."""
        await asyncio.gather(*(n.agent.stop() for n in self.running), return_exceptions=True)
        if self._network is not None:
            await self._network.stop()

    def release(self) -> None:
        """The last step: their threads end."""
        if self._host is not None:
            self._host.close()

    # -- one of them

    async def add(self, count: int) -> list[str]:
        """As many more nodes. Raises Refused, and what starting raises."""
        async with self._lock:
            most = min(MOST, *(a.most_nodes for a in self._addresses.of))
            free = [i for i in range(1, most + 1) if i not in self.indexes][:count]
            if len(free) < count:
                raise Refused(f"a cluster has at most {most} nodes")
            for index in free:
                self.indexes = sorted((*self.indexes, index))
                await self._up(index)
            return [self.name_of(i) for i in free]

    async def stop(self, name: str) -> None:
        """As if its power were cut: nobody on it has the time to say anything."""
        async with self._lock:
            self._index(name)
            node = self.find(name)
            if node is None:
                raise Refused(f"node {name} is stopped already")
            await self._down(node)
            self._changed()

    async def start(self, name: str) -> None:
        """Bring a stopped node up again, with the data it had."""
        async with self._lock:
            index = self._index(name)
            if self.find(name) is not None:
                raise Refused(f"node {name} runs already")
            await self._up(index)

    async def remove(self, name: str, *, purge: bool) -> None:
        """For good. purge: with the volumes that are on it, which it keeps from going else."""
        async with self._lock:
            index = self._index(name)
            if len(self.indexes) == 1:
                raise Refused(f"{name} is the only node (take the cluster down: sampan down)")
            volumes = await self._volumes_of(name)
            if volumes and not purge:
                raise Refused(
                    f"node {name} has {len(volumes)} volume(s), which go with it "
                    f"(sampan node rm --purge {name})"
                )
            if (node := self.find(name)) is not None:
                await self._down(node)
            self.indexes.remove(index)
            self._changed()
            await self._forget(name, volumes)

    def _index(self, name: str) -> int:
        index = next((i for i in self.indexes if self.name_of(i) == name), 0)
        if not index:
            known = ", ".join(self.name_of(i) for i in self.indexes)
            raise Refused(f"there is no node {name} (there are {known})")
        return index

    async def _up(self, index: int) -> None:
        node = await self._make(index)
        if self._network is not None and node.space is not None:
            await self._network.add(node.space)
            self._guard(node)
        await node.agent.start()
        await try_sandbox(node.runtime, self._ids.uid())
        self._changed()

    async def _down(self, node: Node) -> None:
        self.running.remove(node)
        await node.agent.stop()
        if self._network is not None:
            await self._network.remove(node.name)
        for sock in node.sockets:
            self._front.unlisten(sock)
        if self._host is not None:
            await self._host.end(node.name)
            await asyncio.to_thread(release_devices, self._place.volumes / node.name)

    async def _make(self, index: int) -> Node:
        name, runtime, space = self.name_of(index), None, None
        root = self._place.node_root
        if self._host is not None:
            assert self._images is not None
            space = await self._host.open(name, index, joined=len(self.indexes) > 1)
            runtime = NativeRuntime(
                space, root=root, images=self._images, clock=self._clock, plan=self._addresses
            )
        disks = Disks(self._place.volumes / name, runtime.inside) if runtime else None
        used: Runtime = runtime or FakeRuntime(
            self._clock, pod_cidrs=self._addresses.pods_of(index)
        )
        agent = Agent(
            self._plane.client(node_user(name)), runtime=used, node_name=name,
            data_dir=root / "pods" / name if runtime else None, clock=self._clock, ids=self._ids,
            pod_cidrs=self._addresses.pods_of(index), addresses=self._addresses.node(index),
            cluster_dns=[a.dns for a in self._addresses.of], tmpfs=runtime,
            disks=disks, view=runtime.view if runtime else str,
            provisioner=self._plane.client(controller_user(LocalProvisioner.name)),
        )  # fmt: skip
        node = Node(name, index, agent, used, space)
        if space is not None:
            await self._serve_inside(node, space)
        self.running.append(node)
        self.running.sort(key=lambda n: n.index)
        return node

    async def _serve_inside(self, node: Node, space: Space) -> None:
        """The API as pods reach it: at its service address and at its endpoint, on each node. Of
        the primary family alone, as upstream's."""
        of = self._addresses.primary
        for host, port in ((of.api, 443), (of.api_end, 6443)):
            sock = await space.listen(host, port)
            await self._front.listen(ssl_context=self._tls, sock=sock)
            node.sockets.append(sock)

    def _guard(self, node: Node) -> None:
        if self._network is not None and isinstance(node.runtime, NativeRuntime):
            node.runtime.guard = self._network.policies.guard

    # -- what a removed node leaves

    async def _volumes_of(self, name: str) -> list[Any]:
        """PersistentVolumes of the built-in provisioner that are on the node."""
        held = await self._plane.client(ADMIN).list(storage.VOLUMES)
        labels = {"kubernetes.io/hostname": name}
        return [
            v for v in held.items
            if storage.is_local(v.body) and storage.suits_node(v.body, name, labels)
        ]  # fmt: skip

    async def _forget(self, name: str, volumes: Iterable[Any]) -> None:
        """Its objects and files go. Claims of its volumes become Lost, as upstream's do."""
        client = self._plane.client(ADMIN)
        for volume in volumes:
            # Nobody could wait for it any more: not its claim, and not the node that had it.
            ours = (storage.DELETION_FINALIZER, PV_FINALIZER)
            kept = [f for f in volume.meta.get("finalizers") or () if f not in ours]
            await _ignoring(404, client.delete(storage.VOLUMES, volume.name))
            patch = {"metadata": {"finalizers": kept or None}}
            await _ignoring(404, client.patch(storage.VOLUMES, volume.name, patch))
        await _ignoring(404, client.delete("nodes", name))
        root = self._place.node_root
        for path in (self._place.volumes / name, root / "run" / name, root / "pods" / name):
            await asyncio.to_thread(_remove, path)


async def _ignoring(code: int, call: Any) -> None:
    try:
        await call
    except StatusError as e:
        if e.code != code:
            raise


def _remove(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)


async def try_sandbox(runtime: Runtime, uid: str) -> None:
    """Raises RuntimeFailure where a node cannot run pods."""
    spec = SandboxSpec(id=f"try-{uid[:8]}", namespace="kube-system", name="try", uid=uid)
    await runtime.run_sandbox(spec)
    await runtime.remove_sandbox(spec.id)
