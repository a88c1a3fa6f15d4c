"""SPDY streams of a client as asyncio sees them, over the connection itself or in a WebSocket;
and what goes over them: sessions (exec, attach) of older clients, and forwarded ports."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson

from sampan.api.errors import StatusError, bad_request
from sampan.api.obj import Body
from sampan.api.streams import ExecSession
from sampan.apiserver import spdy, websocket
from sampan.apiserver.connection import Connection, Gone, Request

TUNNEL = "SPDY/3.1+portforward.k8s.io"
FORWARD = "portforward.k8s.io"
# X-Stream-Protocol-Version of sessions, best first; whether the error stream carries a Status.
SESSIONS: Mapping[str, bool] = {
    "v4.channel.k8s.io": True, "v3.channel.k8s.io": False, "v2.channel.k8s.io": False,
    "channel.k8s.io": False,
}  # fmt: skip
_OPEN_SECONDS = 30.0  # for a client to open the streams it wants
_HELD = 1 << 20  # bytes of a client kept before reading from it stops
_CHUNK = 64 * 1024
Connect = Callable[[int], Awaitable[tuple[Any, Any]]]
log = logging.getLogger(__name__)


def is_spdy(request: Request) -> bool:
    return "spdy/3.1" in request.header("upgrade").lower()


def choose(request: Request, ours: tuple[str, ...]) -> str:
    """The protocol of the streams, among those a client offers. Raises StatusError."""
    header = request.headers.get("x-stream-protocol-version") or ()
    offers = [p.strip() for value in header for p in value.split(",")]
    for protocol in ours:
        if protocol in offers:
            return protocol
    raise StatusError(
        403, "Forbidden",
        f"unable to upgrade: unable to negotiate protocol: client supports {offers}, server "
        f"accepts {list(ours)}",
    )  # fmt: skip


def hello(protocol: str) -> bytes:
    """The answer that makes a connection one of SPDY."""
    return (
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
        f"X-Stream-Protocol-Version: {protocol}\r\n\r\n"
    ).encode()


class Incoming:
    """A stream the client opened. kind: its ``streamType``; is_cut: its end was no proper one."""

    def __init__(self, owner: Streams, number: int, headers: Mapping[str, str]) -> None:
        self._owner = owner
        self.number = number
        self.headers = headers
        self.kind = headers.get("streamtype", "")
        self.is_cut = False
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()

    def cut(self) -> None:
        self.is_cut = True
        self.put(None)

    def put(self, data: bytes | None) -> None:
        self._queue.put_nowait(data)

    async def read(self) -> bytes | None:
        """The next bytes; None at the end."""
        data = await self._queue.get()
        if data is None:
            self._queue.put_nowait(None)  # it stays the end
        else:
            self._owner.took(len(data))
        return data

    async def send(self, data: bytes, *, is_last: bool = False) -> None:
        """Raises Gone."""
        await self._owner.send(spdy.data(self.number, data, is_last=is_last))


class Streams:
    """All streams of one client. opened: the streams, then None when no more can come."""

    def __init__(self, connection: Connection, *, in_websocket: bool) -> None:
        self.opened: asyncio.Queue[Incoming | None] = asyncio.Queue()
        self._connection = connection
        self._spdy = spdy.Spdy()
        self._frames = websocket.Frames() if in_websocket else None
        self._streams: dict[int, Incoming] = {}
        self._held = 0
        self._is_paused = False

    def start(self) -> None:
        self._connection.take_over(self._receive, self._end)

    def _receive(self, data: bytes) -> None:
        try:
            for part in self._unwrapped(data):
                events, answers = self._spdy.feed(part)
                if answers:
                    self._write(answers)
                for event in events:
                    self._take(event)
        except (spdy.SpdyError, websocket.WebSocketError) as e:
            log.debug("a client's streams: %s", e)
            self._connection.abort()
            self._end()

    def _unwrapped(self, data: bytes) -> list[bytes]:
        if self._frames is None:
            return [data]
        found = []
        for message in self._frames.feed(data):
            if message.opcode == websocket.PING:
                self._connection.transport.write(websocket.frame(websocket.PONG, message.data))
            elif message.opcode == websocket.CLOSE:
                self._end()
            elif message.opcode != websocket.PONG:
                found.append(message.data)
        return found

    def _take(self, event: spdy.Event) -> None:
        match event:
            case spdy.Opened(stream=number, headers=headers, is_last=is_last):
                stream = self._streams[number] = Incoming(self, number, headers)
                self._write(self._spdy.reply(number))
                if is_last:
                    stream.put(None)
                self.opened.put_nowait(stream)
            case spdy.Data(stream=number, data=data, is_last=is_last):
                known = self._streams.get(number)
                if known is None:
                    return
                if data:
                    self._held += len(data)
                    known.put(data)
                if is_last:
                    known.put(None)
                if self._held > _HELD and not self._is_paused:
                    self._is_paused = True
                    self._connection.transport.pause_reading()
            case spdy.Reset(stream=number):
                gone = self._streams.pop(number, None)
                if gone is not None:
                    gone.cut()
            case spdy.GoAway():
                self.opened.put_nowait(None)

    def took(self, size: int) -> None:
        self._held -= size
        if self._is_paused and self._held < _HELD // 2 and not self._connection.lost:
            self._is_paused = False
            self._connection.transport.resume_reading()

    def forget(self, *streams: Incoming) -> None:
        for stream in streams:
            self._streams.pop(stream.number, None)

    def _end(self) -> None:
        for stream in self._streams.values():
            stream.cut()
        self.opened.put_nowait(None)

    def _write(self, data: bytes) -> None:
        if not self._connection.lost:
            if self._frames is not None:
                data = websocket.frame(websocket.BINARY, data)
            self._connection.transport.write(data)

    async def send(self, data: bytes) -> None:
        """Raises Gone."""
        self._write(data)
        await self._connection.drain()

    def close(self) -> None:
        """Everything is said."""
        if not self._connection.lost:
            if self._frames is not None:
                self._connection.transport.write(websocket.close_frame(websocket.NORMAL))
            self._connection.transport.close()


# -- forwarded ports -------------------------------------------------------------------------------


async def forward(streams: Streams, connect: Connect) -> None:
    """Serve pairs of streams (error and data, of one request) until the client goes."""
    pairs: dict[str, dict[str, Incoming]] = {}
    tasks: set[asyncio.Task[None]] = set()
    try:
        while (stream := await streams.opened.get()) is not None:
            # Clients that number no requests open the error stream, then the data stream.
            number = stream.number - (2 if stream.kind == "data" else 0)
            request = stream.headers.get("requestid") or str(number)
            pair = pairs.setdefault(request, {})
            pair[stream.kind] = stream
            if {"data", "error"} <= pair.keys():
                del pairs[request]
                task = asyncio.create_task(_pair(streams, pair["data"], pair["error"], connect))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pair(streams: Streams, data: Incoming, error: Incoming, connect: Connect) -> None:
    """One connection to a port of the pod."""
    with contextlib.suppress(Gone):
        try:
            reader, writer = await connect(int(data.headers.get("port", "0")))
        except (OSError, ValueError, TimeoutError, StatusError) as e:
            text = e.message if isinstance(e, StatusError) else str(e)
            await error.send(f"error forwarding port: {text}".encode(), is_last=True)
            await data.send(b"", is_last=True)
        else:
            inward = asyncio.create_task(_inward(data, writer))
            try:
                with contextlib.suppress(OSError):
                    while chunk := await reader.read(_CHUNK):
                        await data.send(chunk)
                await data.send(b"", is_last=True)
                await error.send(b"", is_last=True)
            finally:
                inward.cancel()
                await asyncio.gather(inward, return_exceptions=True)
                writer.close()
        streams.forget(data, error)


async def _inward(data: Incoming, writer: Any) -> None:
    with contextlib.suppress(OSError):
        while (chunk := await data.read()) is not None:
            writer.write(chunk)
            await writer.drain()
        writer.write_eof()


# -- sessions --------------------------------------------------------------------------------------


async def session(
    streams: Streams, wanted: set[str], *, has_status: bool,
    begin: Callable[[], Awaitable[ExecSession]], status_of: Callable[[int], Body],
) -> None:  # fmt: skip
    """Serve exec or attach once the client has opened its streams. wanted: their kinds."""
    found: dict[str, Incoming] = {}
    async with asyncio.timeout(_OPEN_SECONDS):
        while not wanted <= found.keys():
            stream = await streams.opened.get()
            if stream is None:
                return
            found[stream.kind] = stream
    running: ExecSession | None = None
    tasks: set[asyncio.Task[Any]] = set()
    try:
        try:
            running = await begin()
            output = asyncio.create_task(_output(running, found))
            gone = asyncio.create_task(_gone(streams))
            tasks = {output, gone, asyncio.create_task(_input(running, found))}
            await asyncio.wait({output, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not output.done():
                return
            status = status_of(output.result())
        except StatusError as e:
            status = e.status()
        text = b""
        if has_status:
            text = orjson.dumps(status)
        elif status.get("status") != "Success":
            text = str(status.get("message", "")).encode()
        for kind in ("stdout", "stderr"):
            if kind in found:
                await found[kind].send(b"", is_last=True)
        await found["error"].send(text, is_last=True)
    except Gone:
        return
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if running is not None:
            with contextlib.suppress(Exception):
                await asyncio.shield(running.kill())
        streams.close()


async def _output(running: ExecSession, found: Mapping[str, Incoming]) -> int:
    names = {1: "stdout", 2: "stderr"}
    async for channel, data in running.output():
        stream = found.get(names.get(channel, ""))
        if stream is not None and data:
            await stream.send(data)
    return await running.wait()


async def _gone(streams: Streams) -> None:
    while await streams.opened.get() is not None:
        pass


async def _input(running: ExecSession, found: Mapping[str, Incoming]) -> None:
    await asyncio.gather(
        *(work(running, found[kind])
          for kind, work in (("stdin", _stdin), ("resize", _resize)) if kind in found)
    )  # fmt: skip


async def _stdin(running: ExecSession, stream: Incoming) -> None:
    with contextlib.suppress(OSError, StatusError):
        while (data := await stream.read()) is not None:
            await running.write(data)
        if not stream.is_cut:
            await running.close_stdin()


async def _resize(running: ExecSession, stream: Incoming) -> None:
    while (data := await stream.read()) is not None:
        with contextlib.suppress(ValueError, KeyError, TypeError, OSError, StatusError):
            size = orjson.loads(data)
            await running.resize(int(size["Width"]), int(size["Height"]))


def check_forward(request: Request) -> None:
    """Refuses what does not ask for forwarded ports over SPDY. Raises StatusError."""
    if not is_spdy(request):
        raise bad_request("Upgrade request required")
    choose(request, (FORWARD,))
