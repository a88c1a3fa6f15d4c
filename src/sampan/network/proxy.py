"""The service proxy: follows Services and EndpointSlices and keeps every node's kernel by them.

One proxy serves all nodes of the process. What it writes stays when the process goes; the next
one reads it back and changes only what is not as it should be.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from sampan.api.obj import Obj
from sampan.client.cache import Caches, Informer
from sampan.control.events import Recorder
from sampan.lib.addressing import IPV4
from sampan.network import conntrack, ruleset
from sampan.network.backends import (
    SERVICE_NAME,
    ZONE,
    Endpoint,
    PortKey,
    Service,
    endpoints,
    ready_addresses,
    service,
)
from sampan.network.claims import Claims, Vip
from sampan.network.health import Check, HealthChecks, HostSockets, Listens
from sampan.network.nft import Nft, NftError
from sampan.network.outside import Outside
from sampan.network.rules import (
    Address,
    Entries,
    Entry,
    Facts,
    Row,
    foreign,
    has_host_ports,
    pod_entries,
    row,
    service_entries,
)

T = TypeVar("T")
Found = Mapping[PortKey, Sequence[Endpoint]]
_POD = "pod:"
_RETRY_FIRST, _RETRY_LIMIT = 0.5, 30.0
_BY_SERVICE = "service"
log = logging.getLogger(__name__)


class Space(Listens, Protocol):
    """A node's namespaces: work given to ``run`` happens inside of them."""

    name: str

    async def run(self, work: Callable[..., T], *args: Any) -> T: ...


# Adds and removes routes of the calling thread's namespace that only make the kernel look at an
# address: rules turn what goes there elsewhere. Raises OSError.
Routes = Callable[[Iterable[str], Iterable[str]], None]


def _no_routes(_add: Iterable[str], _remove: Iterable[str]) -> None:
    return


class NodeRules:
    """The kernel of one node in one family: what is claimed of it, what it holds. routes: for
    addresses of Services that are outside of the range of Services; without one the node's own
    processes could not send there. every: the address at which health checks are answered, ``::``
    for both families, '' where the node's rules of another family see to them."""

    def __init__(
        self, space: Space, facts: Facts, *, nft: Callable[[], Nft] = Nft,
        routes: Routes = _no_routes, every: str = "0.0.0.0",
    ) -> None:  # fmt: skip
        self.space = space
        self.facts = facts
        self.health = HealthChecks(space, host=every)
        self.has_health = bool(every)
        self.checks: dict[int, Check] = {}
        self._claims: Claims[Entry] = Claims()
        self._dirty: set[Vip] = set()
        self._open = nft
        self._routes = routes
        self._routed: set[str] = set()
        self._nft: Nft | None = None
        self._table: ruleset.Table | None = None  # None: what the kernel holds is not known

    def claim(self, owner: str, entries: Entries) -> None:
        self._dirty |= self._claims.put(owner, entries)

    async def sync(self) -> None:
        """The kernel holds what is claimed. Raises NftError, OSError; then what it holds is read
        again before the next try."""
        if self._table is None:
            await self._begin()
        elif self._dirty:
            await self._change(self._table, "")

    async def _begin(self) -> None:
        """From what the kernel holds, or, where that cannot be taken over, anew: in one
        transaction either way."""
        if self._nft is None:
            self._nft = await self.space.run(self._open)
        held = await self.space.run(self._held)
        table = held if held is not None else ruleset.Table(family=self.facts.family)
        found = dict(table.rows)
        self._dirty = self._claims.vips() | {*found}
        await self._route(found, found)  # they should be there; whether they are, is not known
        await self._change(table, ruleset.create(self.facts) if held is None else "")
        if held is not None:
            # What changed while nobody looked is not known.
            self._table = None
            await self._forget(found, table)
            self._table = table

    def _held(self) -> ruleset.Table | None:
        assert self._nft is not None
        try:
            text = self._nft.run(ruleset.listing(self.facts.family))
            if f"chain {ruleset.version(self.facts)} {{" not in text:
                return None
            return ruleset.parse(text, self.facts.family)
        except (NftError, ruleset.Foreign) as e:
            log.debug("rules of node %s are made anew: %s", self.space.name, e)
            return None

    async def _change(self, table: ruleset.Table, prefix: str) -> None:
        dirty, self._dirty = self._dirty, set()
        changes: dict[Vip, Row | None] = {}
        for vip in dirty:
            entry, old = self._claims.entry(vip), table.rows.get(vip)
            new = row(entry, old, table.memory(vip)) if entry else None
            if new != old:
                changes[vip] = new
        commands = prefix + table.command(changes)
        before = {vip: table.rows.get(vip) for vip in changes}
        if commands:
            self._table = None
            assert self._nft is not None
            await self.space.run(self._nft.run, commands)
        table.put(changes)
        if not prefix:
            self._table = None  # until that is done, too
            await self._forget(before, table)
        await self._route(changes, table.rows)
        self._table = table

    async def _route(self, changed: Iterable[Vip], rows: Mapping[Vip, Row]) -> None:
        """There are routes to those foreign addresses of *rows* that may have *changed*."""
        looked = foreign(changed, self.facts)
        if not looked:
            return
        there = {ip for ip, _, _ in rows if ip in looked}
        add, remove = there - self._routed, (looked - there) & self._routed
        if add or remove:
            await self.space.run(self._routes, sorted(add), sorted(remove))
        self._routed = (self._routed | add) - remove

    async def _forget(self, before: Mapping[Vip, Row | None], table: ruleset.Table) -> None:
        """Clients of endpoints that serve no more are sent to others. before: the rows from which
        *table*'s may differ; a row that is the same may have changed while nobody looked."""
        flows: dict[Vip, frozenset[Address]] = {}
        clients: dict[Vip, frozenset[Address]] = {}
        for vip, old in before.items():
            new = table.rows.get(vip) or Row()
            held = old or Row()
            if new is held or new.places != held.places:
                flows[vip] = new.places
            if held.record and not (new.record and new.places >= held.places and new is not held):
                clients[vip] = new.places if new.record else frozenset()
        if udp := conntrack.udp(flows):
            await self.space.run(conntrack.forget, udp)
        if clients:
            await self.space.run(self._forget_clients, clients, table)

    def _forget_clients(
        self, places: Mapping[Vip, frozenset[Address]], table: ruleset.Table
    ) -> None:
        assert self._nft is not None
        commands: list[str] = []
        if self.facts.family == IPV4:
            commands = ruleset.strays(self._nft.run(ruleset.listing(IPV4, "affinity")), places)
        for vip, held in places.items() if self.facts.family != IPV4 else ():
            memory = ruleset.memory_of(table.rows.get(vip) or Row())
            if memory:  # else its maps went with it
                lists = [self._nft.run(ruleset.listing(self.facts.family, f"{kind}-{memory}"))
                         for kind in ("clients", "ports")]  # fmt: skip
                commands += ruleset.own_strays(lists[0], lists[1], memory, held)
        for command in commands:  # one by one: they end by themselves, too
            try:
                self._nft.run(command)
            except NftError as e:
                log.debug("a client's affinity had ended by itself: %s", e)

    async def close(self) -> None:
        self.health.close()
        if self._nft is not None:
            await self.space.run(self._nft.close)  # may have to wait for a call under way
            self._nft = None


class Proxy:
    """All nodes of this process, and the way in from the host. A ``Part`` of ``NodeNetwork``.

    nodes: of each node, one for each of *families*. caches: of the proxy's own identity. pods:
    those whose host ports are served (the proxy itself may not read pods; upstream that is the
    container runtime's work).
    """

    def __init__(
        self, caches: Caches, pods: Informer, nodes: Sequence[NodeRules], *, outside: Outside,
        recorder: Recorder, families: Sequence[str] = (IPV4,),
    ) -> None:  # fmt: skip
        self._caches = caches
        self._pods = pods
        self._nodes = tuple(nodes)
        self._families = tuple(families)
        self._outside = outside
        self._recorder = recorder
        self._dirty: set[str] = set()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._health_failed: set[tuple[str, int]] = set()
        self._host_health = HealthChecks(HostSockets(), host=outside.address)
        self._host_checks: dict[int, Check] = {}

    async def start(self) -> None:
        slices = self._caches["endpointslices.discovery.k8s.io"]
        slices.add_index(_BY_SERVICE, _services_of)
        slices.add_handler(self._slice_changed)
        self._caches["services"].add_handler(self._service_changed)
        self._caches["nodes"].add_handler(self._node_changed)
        await self._caches.start()
        self._pods.add_handler(self._pod_changed)
        await self._pass(tuple(self._nodes))
        self._task = asyncio.create_task(self._work(), name="service proxy")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._caches.stop()
        await self._outside.close()
        self._host_health.close()
        for node in self._nodes:
            await node.close()
        await self._recorder.close()

    async def add(self, node: NodeRules) -> None:
        """One node more; returns once its kernel holds what it must. Raises NftError, OSError."""
        held = self._caches["nodes"].get("", node.facts.node)
        if held is not None:
            node.facts = replace(node.facts, zone=held.labels.get(ZONE, ""))
        owners = self._owners()
        for owner in owners:
            self._claim(owner, (node,))
        await node.sync()
        self._nodes = (*self._nodes, node)
        self._touch(owners)  # what changed meanwhile, and its way in from the host

    async def remove(self, name: str) -> None:
        """A node that is gone."""
        gone = [n for n in self._nodes if n.space.name == name]
        self._nodes = tuple(n for n in self._nodes if n not in gone)
        for node in gone:
            await node.close()
        self._touch(self._owners())

    def _owners(self) -> list[str]:
        services = [f"{o.namespace}/{o.name}" for o in self._caches["services"].list()]
        pods = [o for o in self._pods.list() if has_host_ports(o.body)]
        return services + [f"{_POD}{o.namespace}/{o.name}" for o in pods]

    # -- what changes

    def _touch(self, owners: Iterable[str]) -> None:
        self._dirty.update(owners)
        self._wake.set()

    def _service_changed(self, _kind: str, old: Obj | None, new: Obj | None) -> None:
        self._touch(f"{o.namespace}/{o.name}" for o in (old, new) if o is not None)

    def _slice_changed(self, _kind: str, old: Obj | None, new: Obj | None) -> None:
        self._touch(s for o in (old, new) if o is not None for s in _services_of(o))

    def _pod_changed(self, _kind: str, old: Obj | None, new: Obj | None) -> None:
        if any(o is not None and has_host_ports(o.body) for o in (old, new)):
            self._touch(f"{_POD}{o.namespace}/{o.name}" for o in (old, new) if o is not None)

    def _node_changed(self, _kind: str, _old: Obj | None, new: Obj | None) -> None:
        for node in self._nodes:
            if new is not None and node.facts.node == new.name:
                zone = new.labels.get(ZONE, "")
                if zone != node.facts.zone:
                    node.facts = replace(node.facts, zone=zone)
                    self._touch(f"{o.namespace}/{o.name}" for o in self._caches["services"].list())

    # -- what is done about it

    async def _work(self) -> None:
        delay = _RETRY_FIRST
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            self._wake.clear()
            failed = await self._pass(tuple(self._nodes))
            if failed:
                loop.call_later(delay, self._wake.set)
                delay = min(delay * 2, _RETRY_LIMIT)
            else:
                delay = _RETRY_FIRST

    async def _pass(self, nodes: Sequence[NodeRules]) -> bool:
        """Every node as the caches want it by now. Whether some node could not be brought there."""
        dirty, self._dirty = self._dirty, set()
        for owner in sorted(dirty):
            self._claim(owner, self._nodes)
        results = await asyncio.gather(*(n.sync() for n in nodes), return_exceptions=True)
        failed = False
        for node, result in zip(nodes, results, strict=True):
            if node not in self._nodes:
                continue  # it went meanwhile
            if isinstance(result, NftError | OSError):
                log.error("rules of node %s: %s", node.space.name, result)
                failed = True
            elif isinstance(result, BaseException):
                raise result
        await self._outside.sync()
        for node in nodes:
            if node in self._nodes:
                await self._check(f"node {node.space.name}", node.health, node.checks)
        await self._check("the host", self._host_health, self._host_checks)
        return failed

    def _claim(self, owner: str, nodes: Sequence[NodeRules]) -> None:
        if owner.startswith(_POD):
            self._claim_pod(owner, nodes)
        else:
            self._claim_service(owner, nodes)

    def _claim_pod(self, owner: str, nodes: Sequence[NodeRules]) -> None:
        pod = self._pods.get(*owner.removeprefix(_POD).split("/"))
        for node in nodes:
            node.claim(owner, pod_entries(pod.body, node.facts) if pod else {})

    def _claim_service(self, owner: str, nodes: Sequence[NodeRules]) -> None:
        held = self._caches["services"].get(*owner.split("/"))
        views = self._views(held, owner) if held is not None else {}
        # One family is enough where no packet goes: the primary one if it has endpoints.
        known, found = next(
            (v for v in views.values() if any(v[1].values())),
            next(iter(views.values()), (None, {})),
        )
        for node in nodes:
            view = views.get(node.facts.family)
            node.claim(owner, service_entries(*view, node.facts) if view else {})
            if not node.has_health:
                continue
            count = ready_addresses(found.values(), node.facts.node)
            _set_check(node.checks, owner, known, count)
        self._outside.put(owner, known, found)
        # From the host all nodes are behind one address: it tells of what they have together.
        names = {n.facts.node for n in self._all(nodes)}
        total = sum(ready_addresses(found.values(), name) for name in names)
        _set_check(self._host_checks, owner, known, total)

    def _views(self, held: Obj, owner: str) -> dict[str, tuple[Service, Found]]:
        """The Service and its endpoints in each family it has, its primary one first."""
        own = held.spec.get("ipFamilies") or ()
        order = sorted(self._families, key=lambda f: own.index(f) if f in own else len(own))
        views: dict[str, tuple[Service, Found]] = {}
        for family in order:
            known = service(held.body, family)
            if known is not None:
                slices = self._caches["endpointslices.discovery.k8s.io"].by(_BY_SERVICE, owner)
                views[family] = known, endpoints((s.body for s in slices), family)
        return views

    def _all(self, nodes: Sequence[NodeRules]) -> list[NodeRules]:
        return [*self._nodes, *(n for n in nodes if n not in self._nodes)]

    async def _check(self, where: str, health: HealthChecks, checks: Mapping[int, Check]) -> None:
        failed = await health.sync(checks)
        self._health_failed = {
            (w, port) for w, port in self._health_failed if w != where or port in failed
        }
        for port, error in failed.items():
            if (where, port) in self._health_failed:
                continue
            self._health_failed.add((where, port))
            check = checks[port]
            message = f"{where} failed to start healthcheck "
            message += f"{check.namespace}/{check.name} on port {port}: {error.strerror or error}"
            log.error("%s", message)
            held = self._caches["services"].get(check.namespace, check.name)
            if held is not None:
                self._recorder.emit(
                    held.body, "Warning", "FailedToStartServiceHealthcheck", message
                )


def _set_check(checks: dict[int, Check], owner: str, known: Service | None, count: int) -> None:
    for port in [p for p, c in checks.items() if f"{c.namespace}/{c.name}" == owner]:
        del checks[port]
    if known is not None and known.health_port:
        checks[known.health_port] = Check(known.namespace, known.name, count)


def _services_of(piece: Obj) -> list[str]:
    name = piece.labels.get(SERVICE_NAME)
    return [f"{piece.namespace}/{name}"] if name else []
