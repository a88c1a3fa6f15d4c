"""The sockets: UDP and TCP at the service's addresses inside every node."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Protocol, TypeVar, cast

from sampan.network.dns.forwarder import Forwarder
from sampan.network.dns.responder import Forward, Responder

T = TypeVar("T")
PORT = 53
_BATCH = 64  # datagrams between two turns of the loop
_QUERY = 4096  # no query needs more
_BUFFER = 1 << 20
_IDLE = 30.0  # seconds a connection may stay without a query
_CONNECTIONS = 512
_PIPELINE = 64  # queries of one connection that wait for others at once
log = logging.getLogger(__name__)


class Space(Protocol):
    """Where sockets are made: a node's network."""

    async def run(self, work: Callable[..., T], *args: Any) -> T: ...


class Server:
    """Answers at *addresses* in each of *spaces*."""

    def __init__(
        self, responder: Responder, forwarder: Forwarder, spaces: Iterable[Space],
        addresses: Iterable[str], *, port: int = PORT,
    ) -> None:  # fmt: skip
        self._responder = responder
        self._forwarder = forwarder
        self._spaces = tuple(spaces)  # at the start
        self._addresses = tuple(addresses)
        self._port = port
        self._sockets: dict[Space, list[tuple[socket.socket, asyncio.Server]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.connections: set[_Connection] = set()

    async def start(self) -> None:
        """Returns once queries are answered. Raises OSError."""
        for space in self._spaces:
            await self.add(space)

    async def add(self, space: Space) -> None:
        """Answer there too. Raises OSError."""
        loop = asyncio.get_running_loop()
        held = self._sockets.setdefault(space, [])
        for address in self._addresses:
            udp, tcp = await space.run(_sockets, address, self._port)
            loop.add_reader(udp, self._readable, udp)
            held.append((udp, await loop.create_server(lambda: _Connection(self), sock=tcp)))

    def remove(self, space: Space) -> None:
        """Answer there no more."""
        loop = asyncio.get_running_loop()
        for udp, server in self._sockets.pop(space, ()):
            loop.remove_reader(udp)
            udp.close()
            server.close()

    async def stop(self) -> None:
        for space in tuple(self._sockets):
            self.remove(space)
        for connection in tuple(self.connections):
            connection.close()
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _readable(self, sock: socket.socket) -> None:
        respond, receive, send = self._responder.respond, sock.recvfrom, sock.sendto
        for _ in range(_BATCH):
            try:
                packet, sender = receive(_QUERY)
            except BlockingIOError:
                return
            except OSError as e:
                log.debug("udp: %s", e)
                return
            answer = respond(packet, udp=True)
            if answer is None:
                continue
            if type(answer) is not bytes:
                assert isinstance(answer, Forward)
                self.spawn(self._forward_datagram(sock, sender, answer))
                continue
            try:
                send(answer, sender)
            except OSError as e:  # a full buffer, a sender that is gone: it will ask again
                log.debug("udp answer: %s", e)

    async def _forward_datagram(self, sock: socket.socket, sender: Any, ask: Forward) -> None:
        answer = await self.forward(ask)
        try:
            sock.sendto(answer, sender)
        except OSError as e:
            log.debug("udp answer: %s", e)

    async def forward(self, ask: Forward) -> bytes:
        found = await self._forwarder.resolve(ask.name, ask.query.questions[0].type)
        return self._responder.finish(ask, found)

    def respond(self, packet: bytes) -> bytes | Forward | None:
        return self._responder.respond(packet, udp=False)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name="dns query")
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("dns query", exc_info=task.exception())


class _Connection(asyncio.Protocol):
    """Queries with their length before them, answered as soon as each is ready (RFC 7766)."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._data = bytearray()
        self._waiting = 0
        self._is_paused = False  # the client does not read
        self._reads = True
        self._is_last = False  # the client says nothing more
        self._transport: asyncio.Transport | None = None
        self._idle: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        if len(self._server.connections) >= _CONNECTIONS:
            self._transport.abort()
            return
        self._server.connections.add(self)
        self._rest()

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self)
        if self._idle is not None:
            self._idle.cancel()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def pause_writing(self) -> None:
        self._is_paused = True
        self._throttle()

    def resume_writing(self) -> None:
        self._is_paused = False
        self._take()  # what was read before the pause

    def data_received(self, data: bytes) -> None:
        self._data += data
        self._rest()
        self._take()

    def eof_received(self) -> bool:
        """Stay open for answers that are still to come."""
        self._is_last = True
        return self._waiting > 0

    def _take(self) -> None:
        at, data = 0, self._data
        while len(data) - at >= 2 and not self._is_full():
            end = at + 2 + int.from_bytes(data[at : at + 2], "big")
            if end > len(data):
                break
            self._answer(bytes(data[at + 2 : end]))
            at = end
        del data[:at]
        self._throttle()

    def _answer(self, packet: bytes) -> None:
        answer = self._server.respond(packet)
        if answer is None:
            self.close()
        elif isinstance(answer, Forward):
            self._waiting += 1
            self._server.spawn(self._forward(answer))
        else:
            self._write(answer)

    async def _forward(self, ask: Forward) -> None:
        try:
            self._write(await self._server.forward(ask))
        finally:
            self._waiting -= 1
            self._take()
            if self._is_last and not self._waiting and self._transport is not None:
                self._transport.close()

    def _write(self, answer: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(len(answer).to_bytes(2, "big") + answer)

    def _is_full(self) -> bool:
        closing = self._transport is None or self._transport.is_closing()
        return closing or self._is_paused or self._waiting >= _PIPELINE

    def _throttle(self) -> None:
        """Read on only while there is room for answers."""
        if self._transport is None or self._transport.is_closing():
            return
        if self._is_full() == self._reads:
            self._reads = not self._reads
            if self._reads:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def _rest(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        self._idle = asyncio.get_running_loop().call_later(_IDLE, self.close)


def _sockets(address: str, port: int) -> tuple[socket.socket, socket.socket]:
    """(UDP, TCP) at an address of the network this thread is in."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    udp = socket.socket(family, socket.SOCK_DGRAM)
    tcp = socket.socket(family, socket.SOCK_STREAM)
    try:
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for sock in (udp, tcp):
            sock.setblocking(False)
            sock.bind((address, port))
        tcp.listen(128)
    except OSError:
        udp.close()
        tcp.close()
        raise
    return udp, tcp
