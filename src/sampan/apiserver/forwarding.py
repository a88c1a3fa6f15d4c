"""Forwarded ports over the channels of a WebSocket, as clients that know no SPDY want them.

The ports are named when the connection is made; port *i* has two channels, its data (2 i) and its
error (2 i + 1). The server begins each with the port's number, two bytes, the low one first. A
channel has no end of its own: the connection ends when all ports have ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence

from sampan.api.errors import StatusError, bad_request
from sampan.apiserver import channels, websocket
from sampan.apiserver.connection import Connection, Gone, Request
from sampan.apiserver.multiplex import Connect
from sampan.apiserver.routes import Query

_PING_SECONDS = 30.0
_CHUNK = 64 * 1024
_HELD = 1 << 20  # bytes of a client kept before reading from it stops
log = logging.getLogger(__name__)


def ports(query: Query) -> list[int]:
    """The ports asked for (``ports=80&ports=81``, ``ports=80,81``). Raises StatusError 400."""
    texts = [t for value in query.every.get("ports", ()) for t in value.split(",")]
    if not texts:
        raise bad_request('query parameter "port" is required')
    found = []
    for text in texts:
        try:
            port = int(text)
        except ValueError:
            raise bad_request(f'unable to parse "{text}" as a port: invalid syntax') from None
        if not 0 < port < 1 << 16:
            raise bad_request(f'port "{text}" must be > 0')
        found.append(port)
    return found


async def serve(
    connection: Connection, request: Request, *, ports: Sequence[int], connect: Connect, pod: str,
    uid: str,
) -> int:  # fmt: skip
    """Until every port has ended or the client has gone."""
    protocol = channels.choose(request, channels.FORWARDS)
    hello = websocket.handshake(request.headers, protocol.name)
    connection.hold()
    connection.transport.write(hello)
    client = _Client(connection, protocol, len(ports))
    pings = asyncio.create_task(client.ping())
    work = [
        asyncio.create_task(_port(client, at, port, connect=connect, pod=f"{pod}, uid {uid}"))
        for at, port in enumerate(ports)
    ]
    gone = asyncio.create_task(client.gone.wait())
    served = asyncio.create_task(_all(work))
    try:
        await asyncio.wait((served, gone), return_when=asyncio.FIRST_COMPLETED)
    finally:
        tasks = (*work, served, pings, gone)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        client.close(websocket.NORMAL)
    return 101


async def _all(work: Sequence[asyncio.Task[None]]) -> None:
    with contextlib.suppress(Gone):
        await asyncio.gather(*work)


async def _port(client: _Client, at: int, port: int, *, connect: Connect, pod: str) -> None:
    """One connection to a port of the pod. Raises Gone."""
    for channel in (2 * at, 2 * at + 1):
        await client.send(channel, port.to_bytes(2, "little"))
    try:
        reader, writer = await connect(port)
    except (OSError, TimeoutError, StatusError) as e:
        text = e.message if isinstance(e, StatusError) else str(e)
        say = f"error forwarding port {port} to pod {pod}: {text}"
        await client.send(2 * at + 1, say.encode())
        return

    async def inward() -> None:
        with contextlib.suppress(OSError):
            while True:
                writer.write(await client.read(at))
                await writer.drain()

    task = asyncio.create_task(inward())
    try:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(_CHUNK):
                await client.send(2 * at, chunk)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        writer.close()


class _Client:
    """Whose connection it is. gone: nothing more is heard of it."""

    def __init__(self, connection: Connection, protocol: channels.Protocol, ports: int) -> None:
        self.gone = asyncio.Event()
        self._connection = connection
        self._protocol = protocol
        self._frames = websocket.Frames()
        self._queues: list[asyncio.Queue[bytes]] = [asyncio.Queue() for _ in range(ports)]
        self._held = 0
        self._is_paused = False
        self._is_closed = False
        connection.take_over(self._receive, self.gone.set)

    def _receive(self, data: bytes) -> None:
        try:
            messages = self._frames.feed(data)
        except websocket.WebSocketError as e:
            self.close(e.code, str(e))
            return
        for message in messages:
            if message.opcode == websocket.PING:
                self._write(websocket.frame(websocket.PONG, message.data))
            elif message.opcode == websocket.CLOSE:
                self.close(websocket.NORMAL)
            elif message.opcode != websocket.PONG:
                self._take(message.data)
        if self._held > _HELD and not self._is_paused:
            self._is_paused = True
            self._connection.transport.pause_reading()

    def _take(self, data: bytes) -> None:
        try:
            channel, text = self._protocol.read(data)
        except ValueError:
            log.debug("a client sent a malformed message")
            return
        if text and channel % 2 == 0 and channel // 2 < len(self._queues):
            self._held += len(text)
            self._queues[channel // 2].put_nowait(text)

    async def read(self, at: int) -> bytes:
        """What the client has for port number *at*."""
        data = await self._queues[at].get()
        self._held -= len(data)
        if self._is_paused and self._held < _HELD // 2 and not self._connection.lost:
            self._is_paused = False
            self._connection.transport.resume_reading()
        return data

    def _write(self, data: bytes) -> None:
        if not self._connection.lost:
            self._connection.transport.write(data)

    async def send(self, channel: int, data: bytes) -> None:
        """Raises Gone."""
        self._write(self._protocol.message(data, channel))
        await self._connection.drain()

    async def ping(self) -> None:
        while True:
            await asyncio.sleep(_PING_SECONDS)
            self._write(websocket.frame(websocket.PING))

    def close(self, code: int, text: str = "") -> None:
        """The last word of either side."""
        self.gone.set()
        if not self._is_closed:
            self._is_closed = True
            self._write(websocket.close_frame(code, text))
            if not self._connection.lost:
                self._connection.transport.close()
