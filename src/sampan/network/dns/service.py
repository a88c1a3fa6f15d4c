"""Cluster DNS as a part of the nodes' network: the watches that keep the zone, and the server."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections.abc import Iterable, Sequence

from sampan.api.obj import Obj
from sampan.client.base import Client
from sampan.client.cache import Handler, Informer
from sampan.control.events import Recorder
from sampan.lib.clock import Clock
from sampan.network.dns.config import Server as Upstream
from sampan.network.dns.config import configured
from sampan.network.dns.forwarder import Forwarder
from sampan.network.dns.responder import Responder
from sampan.network.dns.server import Server, Space
from sampan.network.dns.zone import Tag, Zone

CONFIG = ("kube-system", "kube-dns")  # the ConfigMap
log = logging.getLogger(__name__)


class ClusterNames:
    """A zone that follows the API, and the responder over it. upstreams: for names of others,
    unless the ConfigMap says otherwise."""

    def __init__(
        self, client: Client, *, clock: Clock, domain: str = "cluster.local",
        networks: Iterable[str] = (), addresses: Sequence[str] = (),
        upstreams: tuple[Upstream, ...] = (), forwarder: Forwarder | None = None,
    ) -> None:  # fmt: skip
        zone = Zone(
            domain, networks=networks, addresses=addresses, serial=int(clock.now()) & 0xFFFFFFFF
        )
        self.zone = zone
        self.responder = Responder(zone)
        self._forwarder = forwarder
        self._upstreams = upstreams
        self._recorder = Recorder(client, "cluster-dns", clock=clock)
        self._informers = (
            _follow(client, "namespaces", self._namespace),
            _follow(client, "services", lambda _k, old, new: self._forget(zone.service(old, new))),
            _follow(
                client, "endpointslices.discovery.k8s.io",
                lambda _k, old, new: self._forget(zone.slice(old, new)),
            ),
            _follow(
                client, "configmaps", self._config, namespace=CONFIG[0],
                fields=f"metadata.name={CONFIG[1]}",
            ),
        )  # fmt: skip

    async def start(self) -> None:
        """Returns once everything there is has its name."""
        self._configure(None)
        for informer in self._informers:
            informer.start()
        await asyncio.gather(*(i.synced() for i in self._informers))

    async def stop(self) -> None:
        await asyncio.gather(*(i.stop() for i in self._informers))
        await self._recorder.close()

    def _namespace(self, _kind: str, old: Obj | None, new: Obj | None) -> None:
        obj = new or old
        assert obj is not None
        self._forget(self.zone.namespace(obj.name, exists=new is not None))

    def _forget(self, tags: set[Tag]) -> None:
        self.responder.forget(tags)

    def _config(self, _kind: str, old: Obj | None, new: Obj | None) -> None:
        if (new or old).name == CONFIG[1]:  # type: ignore[union-attr]
            self._configure(new)

    def _configure(self, obj: Obj | None) -> None:
        data = (obj.body.get("data") or {}) if obj is not None else {}
        config, problems = configured(data, self._upstreams)
        for problem in problems:
            log.warning("ConfigMap %s/%s: %s", *CONFIG, problem)
            if obj is not None:
                self._recorder.emit(obj.body, "Warning", "InvalidConfiguration", problem)
        self.responder.configure(config)
        if self._forwarder is not None:
            self._forwarder.configure(config)


def _follow(
    client: Client, resource: str, handler: Handler, *, namespace: str = "", fields: str = ""
) -> Informer:
    informer = Informer(client, resource, namespace=namespace, fields=fields)
    informer.add_handler(handler)
    return informer


class ClusterDns:
    """The part of the nodes' network that answers names: a zone, served in each of *spaces* at
    each of *addresses*, the service's own, and of *ends*, where it leads to."""

    def __init__(
        self, client: Client, spaces: Sequence[Space], addresses: Sequence[str],
        ends: Sequence[str], *, clock: Clock, networks: Iterable[str],
        upstreams: tuple[Upstream, ...] = (),
    ) -> None:  # fmt: skip
        self._spaces = [*spaces]
        loop_time = lambda: asyncio.get_running_loop().time()  # noqa: E731
        self._forwarder = Forwarder(self._open, now=loop_time, rng=random.SystemRandom())
        self._names = ClusterNames(
            client, clock=clock, networks=networks, addresses=addresses, upstreams=upstreams,
            forwarder=self._forwarder,
        )  # fmt: skip
        self._server = Server(self._names.responder, self._forwarder, spaces, (*addresses, *ends))

    async def start(self) -> None:
        await self._names.start()
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop()
        await self._forwarder.stop()
        await self._names.stop()

    async def add(self, space: Space) -> None:
        """Answer in another node. Raises OSError."""
        await self._server.add(space)
        self._spaces.append(space)

    def remove(self, space: Space) -> None:
        """A node that is gone."""
        self._spaces.remove(space)
        self._server.remove(space)

    async def _open(self, family: int, kind: int) -> socket.socket:
        """A socket of the first node, whose way out is everybody's."""
        return await self._spaces[0].run(_socket, family, kind)


def _socket(family: int, kind: int) -> socket.socket:
    sock = socket.socket(family, kind)
    sock.setblocking(False)
    return sock
