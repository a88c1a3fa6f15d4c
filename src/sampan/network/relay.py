"""Relays between a listener of the host and sockets inside a node: TCP and UDP."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar, cast

from sampan.network.backends import Endpoint
from sampan.network.claims import Vip

T = TypeVar("T")
_CONNECT_SECONDS = 5.0
_TRIES = 3
_UDP_IDLE = 60.0  # seconds after which a client's port is forgotten
_UDP_WAITING = 64  # datagrams kept while the way is made
_UDP_CLIENTS = 4096
log = logging.getLogger(__name__)


class Sockets(Protocol):
    """Where sockets are made: a node's ``Space``."""

    async def run(self, work: Callable[..., T], *args: Any) -> T: ...


class Router(Protocol):
    """Knows where connections go to: ``Outside``."""

    def order(self, vip: Vip, client: str) -> list[Endpoint]: ...
    def served(self, vip: Vip, client: str, endpoint: Endpoint) -> None: ...
    def serves(self, vip: Vip, endpoint: Endpoint) -> bool: ...


class Listener(Protocol):
    def close(self) -> None:
        """Takes no new connections; those there are go on (datagrams do not)."""
        ...

    def refresh(self) -> None:
        """The endpoints may have changed."""
        ...


async def open_listener(vip: Vip, router: Router, spaces: Mapping[str, Sockets]) -> Listener:
    """A listener of the calling process's namespace. Raises OSError."""
    loop = asyncio.get_running_loop()
    dial = _Dial(vip, router, spaces)
    if vip[1] == "tcp":
        server = await loop.create_server(lambda: _Front(dial), vip[0], vip[2])
        return _Tcp(server)
    _, protocol = await loop.create_datagram_endpoint(
        lambda: _Udp(dial), local_addr=(vip[0], vip[2])
    )
    return protocol


def _socket(family: socket.AddressFamily, kind: int) -> socket.socket:
    made = socket.socket(family, kind)
    made.setblocking(False)
    if kind == socket.SOCK_STREAM:
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


class _Dial:
    """Ways to the endpoints of one listener."""

    def __init__(self, vip: Vip, router: Router, spaces: Mapping[str, Sockets]) -> None:
        self.vip = vip
        self.router = router
        self._spaces = spaces
        self.tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def connect(self, client: str, kind: int) -> tuple[socket.socket, Endpoint] | None:
        """A connected socket inside the node of an endpoint; None if nobody answers."""
        for endpoint in self.router.order(self.vip, client)[:_TRIES]:
            space = self._spaces.get(endpoint.node) or next(iter(self._spaces.values()))
            family = socket.AF_INET6 if ":" in endpoint.address else socket.AF_INET
            sock = await space.run(_socket, family, kind)
            try:
                async with asyncio.timeout(_CONNECT_SECONDS):
                    await asyncio.get_running_loop().sock_connect(sock, endpoint.place)
            except (OSError, TimeoutError) as e:
                sock.close()
                log.debug("%s: endpoint %s: %s", self.vip, endpoint.place, e)
                continue
            except BaseException:
                sock.close()
                raise
            self.router.served(self.vip, client, endpoint)
            return sock, endpoint
        return None


class _Tcp:
    def __init__(self, server: asyncio.Server) -> None:
        self._server = server

    def close(self) -> None:
        self._server.close()

    def refresh(self) -> None:
        return


class _End(asyncio.Protocol):
    """One end of a relayed connection: what comes in here goes out at the peer."""

    transport: asyncio.Transport
    peer: _End | None = None
    is_done = False  # no more comes in here

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self.peer is not None:
            self.peer.transport.write(data)

    def pause_writing(self) -> None:
        if self.peer is not None and not self.peer.transport.is_closing():
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.peer is not None and not self.peer.transport.is_closing():
            self.peer.transport.resume_reading()

    def eof_received(self) -> bool:
        """One direction ends, the other goes on."""
        self.is_done = True
        if self.peer is None:
            return False
        if self.peer.is_done:
            self.peer.transport.close()
            return False
        if not self.peer.transport.is_closing():
            self.peer.transport.write_eof()
        return True

    def connection_lost(self, error: Exception | None) -> None:
        if self.peer is not None and not self.peer.transport.is_closing():
            if error is None:
                self.peer.transport.close()
            else:
                self.peer.transport.abort()


class _Front(_End):
    """The client's end. What comes in before there is somebody to take it, is kept."""

    def __init__(self, dial: _Dial) -> None:
        self._dial = dial
        self._early = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._dial.start(self._connect(transport.get_extra_info("peername")[0]))

    def data_received(self, data: bytes) -> None:
        if self.peer is not None:
            self.peer.transport.write(data)
            return
        # Only now: uvloop starts to read after ``connection_made``, whatever that asked for.
        self._early += data
        self.transport.pause_reading()

    def eof_received(self) -> bool:
        if self.peer is None:
            self.is_done = True
            return True
        return super().eof_received()

    async def _connect(self, client: str) -> None:
        made = await self._dial.connect(client, socket.SOCK_STREAM)
        if made is None or self.transport.is_closing():
            if made is not None:
                made[0].close()
            self.transport.abort()
            return
        back = _End()
        back.peer = self
        await asyncio.get_running_loop().create_connection(lambda: back, sock=made[0])
        self.peer = back
        if self.transport.is_closing():
            back.transport.abort()
            return
        back.transport.write(self._early)
        self._early.clear()
        if self.is_done:
            back.transport.write_eof()
        elif not self.transport.is_reading():
            self.transport.resume_reading()


class _Udp(asyncio.DatagramProtocol):
    """Datagrams of all clients of one listener; each client's port has a socket in a node."""

    transport: asyncio.DatagramTransport

    def __init__(self, dial: _Dial) -> None:
        self.dial = dial
        self.clients: dict[tuple[str, int], _Client] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        client = self.clients.get(addr)
        if client is None:
            if len(self.clients) >= _UDP_CLIENTS:
                next(iter(self.clients.values())).close()
            client = self.clients[addr] = _Client(self, addr)
            self.dial.start(client.connect())
        client.send(data)

    def error_received(self, exc: Exception) -> None:
        log.debug("%s: %s", self.dial.vip, exc)

    def refresh(self) -> None:
        for client in [*self.clients.values()]:
            if client.endpoint is not None:
                if not self.dial.router.serves(self.dial.vip, client.endpoint):
                    client.close()

    def close(self) -> None:
        for client in [*self.clients.values()]:
            client.close()
        self.transport.close()


class _Client(asyncio.DatagramProtocol):
    """One client's port: its socket inside a node."""

    def __init__(self, front: _Udp, address: tuple[str, int]) -> None:
        self._front = front
        self._address = address
        self._waiting: list[bytes] = []
        self._transport: asyncio.DatagramTransport | None = None
        self._is_closed = False
        loop = asyncio.get_running_loop()
        self._last = loop.time()
        self._timer = loop.call_later(_UDP_IDLE, self._look)
        self.endpoint: Endpoint | None = None

    async def connect(self) -> None:
        made = await self._front.dial.connect(self._address[0], socket.SOCK_DGRAM)
        if made is None:
            self.close()
            return
        sock, self.endpoint = made
        if self._is_closed:
            sock.close()
            return
        await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, sock=sock)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)
        if self._is_closed:
            self._transport.close()
            return
        waiting, self._waiting = self._waiting, []
        for data in waiting:
            self._transport.sendto(data)

    def send(self, data: bytes) -> None:
        self._last = asyncio.get_running_loop().time()
        if self._transport is not None:
            self._transport.sendto(data)
        elif len(self._waiting) < _UDP_WAITING:
            self._waiting.append(data)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._last = asyncio.get_running_loop().time()
        if not self._is_closed:
            self._front.transport.sendto(data, self._address)

    def error_received(self, exc: Exception) -> None:
        """Nobody listens there (any more): the next datagram finds another way."""
        self.close()

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        left = self._last + _UDP_IDLE - loop.time()
        if left <= 0:
            self.close()
        else:
            self._timer = loop.call_later(left, self._look)

    def close(self) -> None:
        self._is_closed = True
        self._timer.cancel()
        if self._front.clients.get(self._address) is self:
            del self._front.clients[self._address]
        if self._transport is not None:
            self._transport.close()
