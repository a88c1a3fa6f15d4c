"""The way in from the host: LoadBalancers and NodePorts on the cluster's own loopback address.

The host's firewall is not touched and no packet leaves the host's namespace: a listener of the host
takes a connection, and a socket made inside a node goes on to an endpoint (``relay``). A listener
is there while the Service has endpoints, so that without any a client is refused at once. It is
of IPv4 whatever the Service's families: the host has no loopback of IPv6 but ``::1``, which all
clusters would share (docs/adr/0016).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from sampan.network.backends import (
    Endpoint,
    PortKey,
    Service,
    ServicePort,
    cluster_wide,
    on_node,
)
from sampan.network.claims import Claims, Vip
from sampan.network.relay import Listener, Sockets, open_listener

_RETRY = 2.0
RANK_BALANCER, RANK_NODE_PORT = 0, 1
Failed = Callable[[str, str], None]  # owner, message
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Route:
    """Where the connections of one listener go to."""

    rank: int
    endpoints: tuple[Endpoint, ...]
    affinity: int = 0  # seconds
    sources: tuple[str, ...] = ()

    def admits(self, client: str) -> bool:
        return not self.sources or any(
            ip_address(client) in ip_network(s, strict=False) for s in self.sources
        )


def routes(
    service: Service, found: Mapping[PortKey, Sequence[Endpoint]], *, address: str,
    nodes: Sequence[str],
) -> dict[Vip, Route]:  # fmt: skip
    """What of *service* is to answer on the host. address: of the cluster, for NodePorts. nodes:
    those whose own endpoints serve where externalTrafficPolicy is Local. Pure."""
    made: dict[Vip, Route] = {}
    for port in service.ports:
        if port.protocol not in ("tcp", "udp"):
            continue  # a relay of SCTP would need SCTP in the host's kernel
        chosen = _chosen(service, found.get((port.name, port.protocol), ()), nodes)
        if not chosen:
            continue
        for vip, rank in _ways(service, port, address):
            sources = service.host_sources if rank == RANK_BALANCER else ()
            made.setdefault(vip, Route(rank, chosen, service.affinity, sources))
    return made


def _chosen(
    service: Service, known: Sequence[Endpoint], nodes: Sequence[str]
) -> tuple[Endpoint, ...]:
    if service.external_local:
        return tuple(e for node in nodes for e in on_node(known, node))
    return cluster_wide(known)


def _ways(service: Service, port: ServicePort, address: str) -> list[tuple[Vip, int]]:
    ways = [
        ((at.ip, port.protocol, port.port), RANK_BALANCER)
        for at in service.ingress
        if at.ip.startswith("127.") and (not at.ports or (port.port, port.protocol) in at.ports)
    ]
    if port.node_port:
        ways.append(((address, port.protocol, port.node_port), RANK_NODE_PORT))
    return ways


class Choice:
    """Which endpoint a client gets: by chance, or the one it had. Pure but for its memory."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._had: dict[str, tuple[tuple[str, int], float]] = {}

    def order(self, route: Route, client: str, now: float) -> list[Endpoint]:
        """All endpoints, the chosen one first, then those to try should it not answer."""
        order = [*route.endpoints]
        self._rng.shuffle(order)
        if route.affinity:
            place, until = self._had.get(client, (("", 0), 0.0))
            if until > now:
                order.sort(key=lambda e: e.place != place)
        return order

    def keep(self, route: Route, client: str, endpoint: Endpoint, now: float) -> None:
        """*client* was served by *endpoint*."""
        if route.affinity:
            if len(self._had) > 4096:
                self._had = {c: h for c, h in self._had.items() if h[1] > now}
            self._had[client] = (endpoint.place, now + route.affinity)


class Outside:
    """All listeners of this process on the host.

    address: the cluster's own. spaces: the nodes, by name, in which sockets are made (its owner
    may add and remove some, and ``put`` every Service again); the first
    serves endpoints of no node of ours. failed: told once for each port that cannot be had.
    """

    def __init__(
        self, *, address: str, spaces: Mapping[str, Sockets], rng: random.Random, failed: Failed,
    ) -> None:  # fmt: skip
        self.address = address
        self._spaces = spaces
        self._rng = rng
        self._failed = failed
        self._claims: Claims[Route] = Claims()
        self._listeners: dict[Vip, Listener] = {}
        self._choices: dict[Vip, Choice] = {}
        self._blocked: set[tuple[str, Vip]] = set()
        self._dirty: set[Vip] = set()
        self._lock = asyncio.Lock()
        self._retry: asyncio.Task[None] | None = None

    def put(
        self, owner: str, service: Service | None, found: Mapping[PortKey, Sequence[Endpoint]]
    ) -> None:
        """What a Service is by now; None: there is none any more. Takes effect with ``sync``."""
        made: dict[Vip, Route] = {}
        if service is not None and service.is_external:
            made = routes(service, found, address=self.address, nodes=[*self._spaces])
        self._dirty |= self._claims.put(owner, made)

    async def sync(self) -> None:
        """Listeners are as the Services want them, but for ports that are taken: those are tried
        again until they are free."""
        async with self._lock:
            dirty, self._dirty = self._dirty, set()
            for vip in sorted(dirty):
                await self._sync(vip)
        if self._blocked and (self._retry is None or self._retry.done()):
            self._retry = asyncio.create_task(self._again(), name="ports of the host")

    async def _sync(self, vip: Vip) -> None:
        winner = self._claims.winner(vip)
        blocked = {(o, vip) for o in self._claims.losers(vip)}
        if winner is None:
            if listener := self._listeners.pop(vip, None):
                listener.close()
            self._choices.pop(vip, None)
        elif vip not in self._listeners:
            try:
                self._listeners[vip] = await open_listener(vip, self, self._spaces)
            except OSError as e:
                self._block(winner[0], vip, e.strerror or str(e))
                blocked.add((winner[0], vip))
        else:
            self._listeners[vip].refresh()
        for owner, _ in blocked - self._blocked:
            assert winner is not None
            self._block(owner, vip, f"it is used by Service {winner[0]}")
        self._blocked = {b for b in self._blocked if b[1] != vip} | blocked

    def _block(self, owner: str, vip: Vip, why: str) -> None:
        if (owner, vip) not in self._blocked:
            self._blocked.add((owner, vip))
            message = f"cannot listen on {vip[0]}:{vip[2]}/{vip[1]} of the host: {why}"
            log.warning("service %s: %s", owner, message)
            self._failed(owner, message)

    async def _again(self) -> None:
        while self._blocked:
            await asyncio.sleep(_RETRY)
            async with self._lock:
                for vip in sorted({vip for _, vip in self._blocked}):
                    await self._sync(vip)

    # -- what a relay asks

    def order(self, vip: Vip, client: str) -> list[Endpoint]:
        """Whom to try for *client*, in order; nobody where it is not admitted."""
        route = self._claims.entry(vip)
        if route is None or not route.admits(client):
            return []
        choice = self._choices.setdefault(vip, Choice(self._rng))
        return choice.order(route, client, asyncio.get_running_loop().time())

    def served(self, vip: Vip, client: str, endpoint: Endpoint) -> None:
        route = self._claims.entry(vip)
        if route is not None and vip in self._choices:
            now = asyncio.get_running_loop().time()
            self._choices[vip].keep(route, client, endpoint, now)

    def serves(self, vip: Vip, endpoint: Endpoint) -> bool:
        """Whether *endpoint* still is one of those of *vip*."""
        route = self._claims.entry(vip)
        return route is not None and any(e.place == endpoint.place for e in route.endpoints)

    async def close(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            await asyncio.gather(self._retry, return_exceptions=True)
        for listener in self._listeners.values():
            listener.close()
        self._listeners.clear()
