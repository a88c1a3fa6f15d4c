"""Raw clients for tests of the HTTP front: what goes over the wire is theirs to choose."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from sampan.apiserver import websocket


@dataclass(slots=True)
class Answer:
    """headers: lower-case names to all values."""

    status: int
    headers: dict[str, list[str]] = field(default_factory=dict)
    body: bytes = b""

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    def header(self, name: str) -> str:
        return ", ".join(self.headers.get(name, ()))


class WireClient:
    """One connection. Send requests with ``send`` (or raw bytes), read answers with ``read``."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @staticmethod
    async def open(
        port: int, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
    ) -> WireClient:
        name = "localhost" if tls is not None else None
        reader, writer = await asyncio.open_connection(host, port, ssl=tls, server_hostname=name)
        return WireClient(reader, writer)

    def raw(self, data: bytes) -> None:
        self.writer.write(data)

    def send(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Any = None,
    ) -> None:
        """body: bytes as they are, anything else as JSON."""
        data = body if isinstance(body, bytes) else b"" if body is None else orjson.dumps(body)
        lines = [f"{method} {target} HTTP/1.1", "Host: test"]
        given = dict(headers or {})
        if body is not None:
            lines.append(f"Content-Length: {len(data)}")
            if "Content-Type" not in given:
                given["Content-Type"] = "application/json"
        lines += [f"{k}: {v}" for k, v in given.items()]
        self.writer.write(("\r\n".join(lines) + "\r\n\r\n").encode() + data)

    async def head(self) -> Answer:
        """Status and headers of the next answer."""
        line = (await self.reader.readuntil(b"\r\n")).decode()
        answer = Answer(int(line.split(" ")[1]))
        while (line := (await self.reader.readuntil(b"\r\n")).decode("utf-8").strip()) != "":
            name, _, value = line.partition(":")
            answer.headers.setdefault(name.lower(), []).append(value.strip())
        return answer

    async def read(self, *, is_head: bool = False) -> Answer:
        """The next whole answer."""
        answer = await self.head()
        if answer.header("transfer-encoding") == "chunked":
            answer.body = b"".join([c async for c in self.chunks()])
        elif answer.header("content-length") and not is_head:
            answer.body = await self.reader.readexactly(int(answer.header("content-length")))
        return answer

    async def ask(self, method: str, target: str, **request: Any) -> Answer:
        self.send(method, target, **request)
        return await self.read(is_head=method == "HEAD")

    async def chunks(self) -> AsyncIterator[bytes]:
        """The pieces of a chunked body, to its end."""
        while True:
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            data = await self.reader.readexactly(size + 2)
            if not size:
                return
            yield data[:-2]

    async def events(self) -> AsyncIterator[Any]:
        """The lines of a chunked body, decoded."""
        rest = b""
        async for chunk in self.chunks():
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                yield orjson.loads(line)

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except (OSError, ssl.SSLError):
            return


class WebSocketClient:
    """A client of exec and attach: channels over a WebSocket."""

    MASK = b"\x01\x02\x03\x04"

    def __init__(self, wire: WireClient, protocol: str) -> None:
        self.wire, self.protocol = wire, protocol
        self._frames = websocket.Frames(is_server=False)
        self._messages: list[websocket.Message] = []

    @staticmethod
    async def open(
        wire: WireClient,
        target: str,
        *,
        protocols: str = "v5.channel.k8s.io",
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
    ) -> WebSocketClient | Answer:
        """The session, or the answer that refused it."""
        key = base64.b64encode(b"0123456789abcdef").decode()
        wire.send(
            method,
            target,
            headers={
                "Upgrade": "websocket",
                "Connection": "Upgrade",
                "Sec-WebSocket-Key": key,
                "Sec-WebSocket-Version": "13",
                **({"Sec-WebSocket-Protocol": protocols} if protocols else {}),
                **(headers or {}),
            },
        )
        answer = await wire.head()
        if answer.status != 101:
            if answer.header("content-length"):
                answer.body = await wire.reader.readexactly(int(answer.header("content-length")))
            return answer
        assert answer.header("sec-websocket-accept") == websocket.accept_key(key)
        return WebSocketClient(wire, answer.header("sec-websocket-protocol"))

    def send(self, channel: int, data: bytes = b"") -> None:
        self.frame(websocket.BINARY, bytes((channel,)) + data)

    def frame(self, opcode: int, data: bytes = b"") -> None:
        self.wire.raw(websocket.frame(opcode, data, mask=self.MASK))

    async def message(self) -> websocket.Message | None:
        """The next message or control frame; None at the end of the connection."""
        while not self._messages:
            data = await self.wire.reader.read(65536)
            if not data:
                return None
            self._messages += self._frames.feed(data)
        return self._messages.pop(0)

    async def all(self) -> tuple[dict[int, bytes], int]:
        """Everything by channel until the server closes, and the close code."""
        out: dict[int, bytes] = {}
        while (message := await self.message()) is not None:
            if message.opcode == websocket.CLOSE:
                return out, int.from_bytes(message.data[:2], "big")
            if message.opcode == websocket.BINARY:
                channel = message.data[0]
                out[channel] = out.get(channel, b"") + message.data[1:]
        return out, 0
