"""A whole cluster in one process and in memory, in virtual time, with faults where asked for."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

from sampan.api.call import Call, User
from sampan.api.errors import StatusError
from sampan.api.obj import Body, Event, Obj, Page
from sampan.api.resource import ResourceType
from sampan.app.control_plane import ADMIN, ControlPlane, controller_user, node_user
from sampan.app.pki import FrontProxy
from sampan.client.base import Client, Unknown
from sampan.client.local import LocalTransport
from sampan.controllers.local_provisioner import LocalProvisioner
from sampan.lib import csr, tls
from sampan.lib.addressing import DEFAULT, Plan
from sampan.lib.clock import Clock
from sampan.lib.ids import Ids
from sampan.lib.loop import START, VirtualClock
from sampan.node.agent import Agent
from sampan.node.runtime.fake import Behaviour, FakeRuntime
from sampan.sim.faults import NONE, Faults, Process
from sampan.sim.metrics import SERVICE as METRICS_SERVICE
from sampan.sim.metrics import Metrics
from sampan.store.base import Change, Delete, Put
from sampan.store.memory import Image, MemoryStore

_KEY = tls.new_key()
_AUTHORITY = tls.new_authority("world", now=START)
CAPACITY = {"cpu": "8", "memory": "16Gi", "pods": "110"}
_SHARE_SECONDS = 5.0  # between looks at who shares a load
_RESTART_SECONDS = 5.0  # how long what was killed stays away, at most


class JumpingClock:
    """A clock that may be wrong: ``offset`` is added to *base*."""

    def __init__(self, base: Clock) -> None:
        self.offset = 0.0
        self._base = base

    def now(self) -> float:
        return self._base.now() + self.offset


class ObservedStore(MemoryStore):
    """A store whose every commit is shown to *observers* right after it is visible."""

    def __init__(self, image: Image | None = None) -> None:
        super().__init__(image=image)
        self.observers: list[Callable[[Sequence[Change]], None]] = []

    async def commit(self, *ops: Put | Delete) -> int:
        before = self.revision
        revision = await super().commit(*ops)
        if self.observers:
            changes = self.changes(before)
            for observe in self.observers:
                observe(changes)
        return revision


@dataclass(frozen=True, slots=True)
class Beginning:
    """A world that has just come to rest; others of its seed may begin there instead of writing
    the same once more. ids: the state of the source of uids and names."""

    store: Image
    ids: object


class _Door:
    """The Endpoint everybody outside of the control plane calls: the API server of the day."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def handle(self, user: User, call: Call) -> Obj | Page:
        return await self._world.plane.api.handle(user, call)

    def watch(self, user: User, call: Call) -> AsyncIterator[Event]:
        return self._world.plane.api.watch(user, call)


@dataclass(slots=True)
class SimNode:
    """A node: what runs on it outlives its agent."""

    name: str
    index: int
    runtime: FakeRuntime
    labels: Mapping[str, str]
    taints: Sequence[Body]
    capacity: Mapping[str, str]
    agent: Agent | None = None
    process: Process | None = None
    starts: int = 0
    started: bool = False
    lost: bool = False

    @property
    def is_up(self) -> bool:
        """Whether an agent serves it now."""
        return self.started and self.process is not None and self.process.alive


class World:
    """A control plane, and nodes with fake runtimes. Everything random comes from *seed*.

    pace: how many times longer than usual nodes, watches and sweeps keep quiet, where years pass:
    a node is then missed as much later.
    client: the administrator's, untouched by faults. faults: in force now; change at any time.
    beginning: of a world of this seed. addresses: which families it has, and their ranges.
    proxy: how other API servers know this one (its keys are new ones in every process, so that
    histories that have to repeat are without).
    """

    plane: ControlPlane

    def __init__(
        self, *, seed: int = 0, faults: Faults = NONE, clock: Clock | None = None,
        beginning: Beginning | None = None, proxy: FrontProxy | None = None,
        addresses: Plan = DEFAULT, pace: float = 1.0,
    ) -> None:  # fmt: skip
        self.seed = seed
        self._pace = pace
        self.addresses = addresses
        self._proxy = proxy
        self.faults = faults
        self.clock = JumpingClock(clock or VirtualClock())
        self.store = ObservedStore(beginning.store if beginning is not None else None)
        self.nodes: dict[str, SimNode] = {}
        self.deaths = 0
        self.restarts: dict[str, int] = {}  # controller -> how often it was killed alone
        self._rng = random.Random(f"{seed}/faults")
        self._chance = random.Random(f"{seed}/ids")
        if beginning is not None:
            self._chance.setstate(cast(tuple[Any, ...], beginning.ids))
        self._ids = Ids(self._chance)
        self._planes = 0
        self._away: set[str] = set()  # controllers that were killed and are not back yet
        self._process: Process | None = None
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._visits: dict[str, asyncio.Task[None]] = {}
        self._door = _Door(self)
        self._digest = hashlib.sha256()
        self.listeners: list[Callable[[User, Call], None]] = []  # to every call of a component
        self.failures: list[BaseException] = []  # of the world itself: always a bug
        self.client = Client(LocalTransport(self._door, ADMIN))
        self.metrics = Metrics(self.client, self.clock)  # custom and external ones, as a test says
        self.store.observers.append(self._note)

    # -- the control plane -----------------------------------------------------------------------

    async def start(self) -> None:
        self.plane = self.new_plane()
        await self.plane.start_api()
        await self.plane.start_control()

    def beginning(self) -> Beginning:
        """Where other worlds of this seed may begin."""
        return Beginning(self.store.image(), self._chance.getstate())

    def new_plane(self) -> ControlPlane:
        self._planes += 1
        process = self._make_process(f"control plane {self._planes}", self._plane_died)
        process.part_died = self._controller_died
        self._process = process
        self._away.clear()
        plane = ControlPlane(
            self.store, clock=self.clock, ids=self._ids,
            rng=random.Random(f"{self.seed}/{self._planes}"), root_ca="PEM",
            sign=csr.signer(_AUTHORITY), token_key=_KEY,
            addresses=self.addresses, line=process.line, proxy=self._proxy, pace=self._pace,
            usage=lambda: {name: agent.usage for name, agent in self.agents.items()},
        )  # fmt: skip
        plane.aggregation.remotes.inner[METRICS_SERVICE] = self.metrics.answer
        return plane

    def _make_process(self, name: str, died: Callable[[Process], None]) -> Process:
        return Process(name, died, lambda: self.faults, self._rng, heard=self._heard)

    def _heard(self, user: User, call: Call) -> None:
        for listen in self.listeners:
            listen(user, call)

    def kill_control(self, *, after_writes: int = 0) -> None:
        """Kill the control plane now, or around its n-th write from now on. Another one starts
        within seconds."""
        assert self._process is not None
        if after_writes:
            self._process.kill_at = self._process.writes + after_writes
        else:
            self._process.kill()

    def kill_controller(self, name: str, *, after_writes: int = 0) -> None:
        """Kill one controller now, or around its n-th write from now on. Others go on; another one
        takes its place within seconds and knows nothing of what it did."""
        assert self._process is not None
        user = controller_user(name).name
        if after_writes:
            self._process.kill_part_at[user] = after_writes
        else:
            self._process.kill_part(user)

    def calm(self) -> None:
        """No more deaths that were announced."""
        for process in (self._process, *(n.process for n in self.nodes.values())):
            if process is not None:
                process.kill_at = 0
                process.kill_part_at.clear()

    def _plane_died(self, _process: Process) -> None:
        self.deaths += 1
        for node in self.nodes.values():
            if node.process is not None:
                node.process.cut()
        self._spawn(self._replace_plane(self.plane, self._rng.random() * _RESTART_SECONDS))

    def _controller_died(self, user: str) -> bool:
        """Only controllers have others to take their place."""
        plane, names = self.plane, self.plane.engine.names
        name = next((n for n in names if controller_user(n).name == user), "")
        if not name or name in self._away:
            return False
        self._away.add(name)
        self.deaths += 1
        self.restarts[name] = self.restarts.get(name, 0) + 1
        self._spawn(self._replace_controller(plane, name, self._rng.random() * _RESTART_SECONDS))
        return True

    async def _replace_controller(self, plane: ControlPlane, name: str, pause: float) -> None:
        await plane.restart_controllers(name, pause)
        if plane is self.plane:
            self._away.discard(name)

    async def _replace_plane(self, dead: ControlPlane, pause: float) -> None:
        await dead.stop()
        await asyncio.sleep(pause)
        plane = self.new_plane()
        await plane.start_api()
        self.plane = plane
        process = self._process
        await plane.start_control()
        if process is not None and not process.alive:
            await plane.stop()  # it died while it started: what began since goes, too

    # -- nodes -----------------------------------------------------------------------------------

    async def add_node(
        self, name: str, *, labels: Mapping[str, str] | None = None, taints: Sequence[Body] = (),
        capacity: Mapping[str, str] | None = None,
        behaviours: Mapping[str, Behaviour] | None = None,
    ) -> SimNode:  # fmt: skip
        """Returns when the node is registered and Ready."""
        index = len(self.nodes) + 1
        cidrs = self.addresses.pods_of(index)
        runtime = FakeRuntime(self.clock, pod_cidrs=cidrs, behaviours=behaviours)
        node = SimNode(name, index, runtime, labels or {}, taints, {**CAPACITY, **(capacity or {})})
        self.nodes[name] = node
        await self._start_agent(node)
        return node

    async def _start_agent(self, node: SimNode) -> None:
        node.starts += 1
        process = self._make_process(node.name, self._agent_died)

        def client(user: User) -> Client:
            return Client(process.line(LocalTransport(self._door, user), user))

        node.process = process
        node.agent = Agent(
            client(node_user(node.name)), runtime=node.runtime,
            node_name=node.name, data_dir=None, clock=self.clock,
            ids=Ids(random.Random(f"{self.seed}/{node.name}/{node.starts}")),
            capacity=node.capacity, labels=node.labels, taints=node.taints,
            addresses=self.addresses.node(node.index), pod_cidrs=self.addresses.pods_of(node.index),
            cluster_dns=[a.dns for a in self.addresses.of],
            provisioner=client(controller_user(LocalProvisioner.name)), pace=self._pace,
        )  # fmt: skip
        node.started = False
        await node.agent.start()
        node.started = True

    def kill_agent(self, name: str) -> None:
        """The node's agent dies and starts again within seconds; its containers go on."""
        process = self.nodes[name].process
        assert process is not None
        process.kill()

    def _agent_died(self, process: Process) -> None:
        self.deaths += 1
        node = self.nodes[process.name]
        if not node.lost:
            self._spawn(self._restart_agent(node, self._rng.random() * _RESTART_SECONDS))

    async def _restart_agent(self, node: SimNode, pause: float) -> None:
        if node.agent is not None:
            await node.agent.stop()
            node.agent = None
        await asyncio.sleep(pause)
        while not node.lost and node.agent is None:
            try:
                await self._start_agent(node)
            except (Unknown, StatusError):  # dead or refused before it was up: it tries again
                if node.agent is not None:
                    await node.agent.stop()
                    node.agent = None
                await asyncio.sleep(1.0)

    async def lose_node(self, name: str, *, power: bool = False) -> None:
        """The node is not heard of any more. power: its containers end, too."""
        node = self.nodes[name]
        node.lost = True
        if node.process is not None and node.process.alive:
            node.process.kill()
        if node.agent is not None:
            await node.agent.stop()
            node.agent = None
        if power:
            for box in await node.runtime.sandboxes():
                await node.runtime.stop_sandbox(box.id)

    async def return_node(self, name: str) -> None:
        node = self.nodes[name]
        node.lost = False
        self._spawn(self._restart_agent(node, 0.0))

    # -- what its administrator does --------------------------------------------------------------

    async def apply(self, t: ResourceType, body: Body) -> Obj:
        """Create *body*, an object of type *t*, or change what is there by a strategic merge."""
        meta = body["metadata"]
        namespace = meta.get("namespace", "default") if t.namespaced else ""
        try:
            return await self.client.create(t.resource, body, namespace)
        except StatusError as e:
            if e.reason != "AlreadyExists":
                raise
        return await self.client.patch(t.resource, meta["name"], body, namespace, kind="strategic")

    def visitor(self) -> Client:
        """A client of the administrator's that suffers the faults in force."""
        process = self._make_process("visitor", lambda _dead: None)
        return Client(process.line(LocalTransport(self._door, ADMIN), ADMIN))

    def begin(self, what: str, work: Coroutine[Any, Any, None]) -> None:
        """Somebody does *work* beside all others, until it is done or ``end`` is called. What was
        begun under the same name ends."""
        self.end(what)
        self._visits[what] = self._spawn(work)

    def end(self, what: str = "") -> None:
        """Whoever began *what* stops; or all of them."""
        for name in [what] if what else [*self._visits]:
            task = self._visits.pop(name, None)
            if task is not None:
                task.cancel()

    async def share(self, namespace: str, prefix: str, cores: float) -> None:
        """Work for so many cores in all, shared by the pods whose names begin so: for ``begin``."""
        while True:
            count = sum(n.runtime.count(namespace, prefix) for n in self.nodes.values())
            for node in self.nodes.values():
                node.runtime.load(namespace, prefix, cores / max(1, count))
            await asyncio.sleep(_SHARE_SECONDS)

    # -- looking ---------------------------------------------------------------------------------

    @property
    def lives(self) -> int:
        """How many control planes there were."""
        return self._planes

    @property
    def runtimes(self) -> dict[str, FakeRuntime]:
        return {name: node.runtime for name, node in self.nodes.items()}

    @property
    def agents(self) -> dict[str, Agent]:
        """Of the nodes that have one now."""
        return {name: n.agent for name, n in self.nodes.items() if n.agent is not None}

    def writes(self, since: int) -> Counter[str]:
        """Commits after revision *since*, by resource."""
        return Counter(change.key.split("/", 1)[0] for change in self.store.changes(since))

    def digest(self) -> str:
        """Of the whole history, byte for byte."""
        return self._digest.hexdigest()

    def _note(self, changes: Sequence[Change]) -> None:
        for change in changes:
            value = change.record.value if change.record is not None else b"-"
            self._digest.update(b"%s %d %s\n" % (change.key.encode(), change.revision, value))

    # -- end -------------------------------------------------------------------------------------

    def _spawn(self, coro: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coro)
        self._tasks[task] = None
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and (failure := task.exception()) is not None:
            self.failures.append(failure)

    async def stop(self) -> None:
        self.faults = NONE
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for node in self.nodes.values():
            if node.agent is not None:
                await node.agent.stop()
        await self.plane.stop()
        await self.store.close()


@asynccontextmanager
async def world(
    *, nodes: int = 2, seed: int = 0, addresses: Plan = DEFAULT, pace: float = 1.0
) -> AsyncIterator[World]:
    """A running cluster without faults, its nodes ``n1``, ``n2``, ..."""
    made = World(seed=seed, addresses=addresses, pace=pace)
    await made.start()
    for i in range(nodes):
        await made.add_node(f"n{i + 1}")
    try:
        yield made
    finally:
        await made.stop()
