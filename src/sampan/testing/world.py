"""A whole cluster in one process and in memory, for flows in virtual time."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sampan.app.control_plane import ADMIN, ControlPlane, controller_user, node_user
from sampan.client.base import Client
from sampan.controllers.local_provisioner import LocalProvisioner
from sampan.lib import tls
from sampan.lib.ids import Ids
from sampan.lib.loop import VirtualClock
from sampan.node.agent import Agent
from sampan.node.runtime.fake import FakeRuntime
from sampan.store.memory import MemoryStore

_KEY = tls.new_key()
_CAPACITY = {"cpu": "8", "memory": "16Gi", "pods": "110"}


class World:
    """A control plane, and nodes with fake runtimes."""

    def __init__(self, plane: ControlPlane, store: MemoryStore) -> None:
        self.plane = plane
        self.store = store
        self.client: Client = plane.client(ADMIN)
        self.runtimes: dict[str, FakeRuntime] = {}
        self.agents: dict[str, Agent] = {}

    async def add_node(self, name: str, *, seed: int = 0) -> None:
        clock = self.plane.clock
        index = len(self.agents) + 1
        runtime = FakeRuntime(clock, pod_cidr=f"10.42.{index}.0/24")
        self.runtimes[name] = runtime
        agent = Agent(
            self.plane.client(node_user(name)), runtime=runtime, node_name=name, data_dir=None,
            clock=clock, ids=Ids(random.Random(f"{seed}{name}")), capacity=_CAPACITY,
            addresses=(f"10.44.0.{index + 1}",),
            provisioner=self.plane.client(controller_user(LocalProvisioner.name)),
        )  # fmt: skip
        self.agents[name] = agent
        await agent.start()

    def writes(self, since: int) -> Counter[str]:
        """Commits after revision *since*, by resource."""
        watch_all = self.store.changes(since)
        return Counter(change.key.split("/", 1)[0] for change in watch_all)


def _plane(store: MemoryStore, seed: int) -> ControlPlane:
    return ControlPlane(
        store, clock=VirtualClock(), ids=Ids(random.Random(seed)), rng=random.Random(seed),
        root_ca="PEM", token_key=_KEY, api_address="10.44.1.1", api_port=6443,
    )  # fmt: skip


async def takeover(w: World) -> ControlPlane:
    """Stop the controllers and the scheduler of *w*; others over the same store go on."""
    await w.plane.scheduler.stop()
    await w.plane.engine.stop()
    plane = _plane(w.store, 99)
    await plane.start_api()
    await plane.start_control()
    return plane


@asynccontextmanager
async def world(*, nodes: int = 2, seed: int = 0) -> AsyncIterator[World]:
    """A running cluster; everything random in it comes from *seed*."""
    store = MemoryStore()
    plane = _plane(store, seed)
    await plane.start_api()
    await plane.start_control()
    made = World(plane, store)
    for i in range(nodes):
        await made.add_node(f"n{i + 1}", seed=seed)
    try:
        yield made
    finally:
        for agent in made.agents.values():
            await agent.stop()
        await plane.stop()
        await store.close()
