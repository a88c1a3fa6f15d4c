"""Sessions over SPDY and forwarded ports, over real loopback sockets."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import orjson
import pytest

from sampan.api.errors import StatusError
from sampan.apiserver import spdy, websocket
from sampan.apiserver.multiplex import TUNNEL
from sampan.testing.fronts import FrontWorld, served
from sampan.testing.wire import Answer, WebSocketClient, WireClient

POD = "/api/v1/namespaces/default/pods/a"
EXEC = f"{POD}/exec?command=x&stdout=true&stderr=true&stdin=true"


def run(check: Callable[[FrontWorld], Awaitable[None]]) -> None:
    async def inside() -> None:
        async with served() as world:
            world.pod("a")
            await check(world)

    asyncio.run(asyncio.wait_for(inside(), 30))


class Client:
    """A client of SPDY streams. heard: bytes by stream; ended: streams that are finished."""

    def __init__(self, wire: WireClient, socket: WebSocketClient | None = None) -> None:
        self._wire, self._socket = wire, socket
        self._spdy = spdy.Spdy(is_server=False)
        self._next = 1
        self.heard: dict[int, bytes] = {}
        self.ended: set[int] = set()
        self.is_over = False

    def raw(self, data: bytes) -> None:
        if self._socket is not None:
            self._socket.frame(websocket.BINARY, data)
        else:
            self._wire.raw(data)

    def open(self, **headers: str) -> int:
        number, self._next = self._next, self._next + 2
        self.raw(self._spdy.open(number, headers))
        return number

    def send(self, stream: int, data: bytes, *, is_last: bool = False) -> None:
        self.raw(spdy.data(stream, data, is_last=is_last))

    async def until(self, check: Callable[[], bool]) -> None:
        while not check():
            data = await self._more()
            if not data:
                self.is_over = True
                assert check(), (self.heard, self.ended)
                return
            for event in self._spdy.feed(data)[0]:
                assert isinstance(event, spdy.Data)
                self.heard[event.stream] = self.heard.get(event.stream, b"") + event.data
                if event.is_last:
                    self.ended.add(event.stream)

    async def _more(self) -> bytes:
        if self._socket is None:
            return await self._wire.reader.read(65536)
        message = await self._socket.message()
        return message.data if message is not None and message.opcode == websocket.BINARY else b""


async def upgraded(world: FrontWorld, target: str, protocol: str) -> Client | Answer:
    wire = await world.connect()
    headers = {"Upgrade": "SPDY/3.1", "Connection": "Upgrade", **world.auth}
    wire.send("POST", target, headers={**headers, "X-Stream-Protocol-Version": protocol})
    answer = await wire.head()
    if answer.status != 101:
        answer.body = await wire.reader.readexactly(int(answer.header("content-length")))
        return answer
    assert answer.header("upgrade") == "SPDY/3.1"
    assert answer.header("x-stream-protocol-version") in protocol
    return Client(wire)


async def spoken(world: FrontWorld, target: str, protocol: str) -> Client:
    client = await upgraded(world, target, protocol)
    assert isinstance(client, Client)
    return client


@pytest.mark.parametrize("protocol", ["v4.channel.k8s.io", "v2.channel.k8s.io, channel.k8s.io"])
def test_exec_of_older_clients(protocol: str) -> None:
    async def check(world: FrontWorld) -> None:
        world.node.output, world.node.code = b"hi\n", 3
        client = await spoken(world, EXEC, protocol)
        error, stdin, out, _ = (
            client.open(streamType=kind) for kind in ("error", "stdin", "stdout", "stderr")
        )
        client.send(stdin, b"typed")
        client.send(stdin, b"", is_last=True)
        await client.until(lambda: {error, out} <= client.ended)
        assert client.heard[out] == b"hi\ntyped"
        text = client.heard[error]
        if "v4" in protocol:
            assert orjson.loads(text)["details"]["causes"][0]["message"] == "3"
        else:
            assert text == b"command terminated with non-zero exit code: exit status 3"
        await client.until(lambda: client.is_over)

    run(check)


def test_a_terminal_is_resized_and_a_client_that_goes_ends_the_process() -> None:
    async def check(world: FrontWorld) -> None:
        client = await spoken(world, EXEC + "&tty=true", "v4.channel.k8s.io")
        streams = [client.open(streamType=k) for k in ("error", "stdin", "stdout", "resize")]
        client.send(streams[3], b"nonsense")
        client.send(streams[3], b'{"Width":80,"Height":24}\n')
        client.send(streams[1], b"x")
        await client.until(lambda: bool(client.heard.get(streams[2])))
        (session,) = world.node.sessions
        while not session.sizes:
            await asyncio.sleep(0.01)
        assert session.sizes == [(80, 24)]
        await client._wire.close()
        assert await session.wait() == 137

    run(check)


def test_what_cannot_be_executed_is_told_on_the_error_stream() -> None:
    async def check(world: FrontWorld) -> None:
        world.node.fail = StatusError(500, "InternalError", "no such file")
        client = await spoken(world, EXEC, "v4.channel.k8s.io")
        error, *_ = (client.open(streamType=k) for k in ("error", "stdin", "stdout", "stderr"))
        await client.until(lambda: error in client.ended)
        assert orjson.loads(client.heard[error])["message"] == "no such file"

    run(check)


def test_protocols_nobody_speaks() -> None:
    async def check(world: FrontWorld) -> None:
        for target, protocol in ((EXEC, "v9.channel.k8s.io"), (f"{POD}/portforward", "x")):
            answer = await upgraded(world, target, protocol)
            assert isinstance(answer, Answer) and answer.status == 403
        assert (await world.ask("POST", f"{POD}/portforward", body={})).status == 400
        found = await WebSocketClient.open(
            await world.connect(), f"{POD}/portforward", headers=world.auth
        )
        assert isinstance(found, Answer) and found.status == 400
        for ports in ("", "?ports=x", "?ports=0", "?ports=70000"):
            found = await WebSocketClient.open(
                await world.connect(), f"{POD}/portforward{ports}", headers=world.auth,
                protocols="v4.channel.k8s.io",
            )  # fmt: skip
            assert isinstance(found, Answer) and found.status == 400, ports
        client = await spoken(world, EXEC, "v4.channel.k8s.io")
        client.raw(b"\xff" * 8)
        await client.until(lambda: client.is_over)

    run(check)


@contextlib.asynccontextmanager
async def echo() -> AsyncIterator[int]:
    """A port that sends back what it gets, in capitals, and then ends."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data.upper())
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield int(server.sockets[0].getsockname()[1])


@pytest.mark.parametrize("in_websocket", [False, True])
def test_ports_are_forwarded(in_websocket: bool) -> None:
    async def check(world: FrontWorld) -> None:
        async with echo() as port:
            world.node.ports[8080] = port
            target = f"{POD}/portforward"
            if in_websocket:
                wire = await world.connect()
                found = await WebSocketClient.open(
                    wire, target, protocols=TUNNEL, headers=world.auth
                )
                assert isinstance(found, WebSocketClient) and found.protocol == TUNNEL
                client = Client(wire, found)
            else:
                client = await spoken(world, target, "portforward.k8s.io")
            size = 3_000_000
            pairs = []
            for request in ("0", "1"):
                about = {"port": "8080", "requestID": request}
                error = client.open(streamType="error", **about)
                client.send(error, b"", is_last=True)
                pairs.append((client.open(streamType="data", **about), error))
            for data, _ in pairs:
                client.send(data, b"x" * size, is_last=True)
            wanted = {stream for pair in pairs for stream in pair}
            await client.until(lambda: wanted <= client.ended)
            for data, error in pairs:
                assert client.heard[data] == b"X" * size
                assert client.heard[error] == b""
            # A client that numbers no requests, and a port nobody listens on.
            error = client.open(streamType="error", port="9")
            data = client.open(streamType="data", port="9")
            await client.until(lambda: {data, error} <= client.ended)
            assert b"Connection refused" in client.heard[error]

    run(check)


def in_channels(data: bytes, *, is_base64: bool) -> tuple[int, bytes]:
    return (data[0] - 48, base64.b64decode(data[1:])) if is_base64 else (data[0], data[1:])


@pytest.mark.parametrize("protocol", ["v4.channel.k8s.io", "v4.base64.channel.k8s.io", ""])
def test_ports_are_forwarded_in_channels(protocol: str) -> None:
    """As clients do that know no SPDY: two channels for each port named in the query."""
    is_base64 = "base64" in protocol

    async def check(world: FrontWorld) -> None:
        async with echo() as port:
            world.node.ports[8080] = world.node.ports[81] = port
            client = await WebSocketClient.open(
                await world.connect(), f"{POD}/portforward?ports=8080,81&ports=9",
                protocols=protocol, headers=world.auth,
            )  # fmt: skip
            assert isinstance(client, WebSocketClient) and client.protocol == protocol
            heard: dict[int, bytes] = {}
            for channel, text in ((0, b"one"), (2, b"x" * 300_000), (0, b"two"), (77, b"nobody")):
                if is_base64:
                    data = base64.b64encode(text)
                    client.frame(websocket.TEXT, b"%c" % (48 + channel) + data)
                else:
                    client.send(channel, text)
            wanted = {0: 8, 1: 2, 2: 300_002, 3: 2, 5: 30}
            while any(len(heard.get(n, b"")) < size for n, size in wanted.items()):
                message = await client.message()
                assert message is not None
                channel, text = in_channels(message.data, is_base64=is_base64)
                heard[channel] = heard.get(channel, b"") + text
            low_first = {n: n.to_bytes(2, "little") for n in (8080, 81, 9)}
            assert heard[0] == low_first[8080] + b"ONETWO"
            assert heard[2] == low_first[81] + b"X" * 300_000
            assert heard[1] == low_first[8080] and heard[3] == low_first[81]
            assert heard[5].startswith(low_first[9] + b"error forwarding port 9 to pod a, uid ")
            assert heard[5].endswith(b"Connection refused")
            client.frame(websocket.CLOSE, b"")
            while (message := await client.message()) is not None:
                assert message.opcode == websocket.CLOSE

    run(check)


def test_a_forwarded_port_that_ends_ends_the_connection() -> None:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"bye")
        writer.close()

    async def check(world: FrontWorld) -> None:
        async with await asyncio.start_server(once, "127.0.0.1", 0) as server:
            world.node.ports[80] = int(server.sockets[0].getsockname()[1])
            client = await WebSocketClient.open(
                await world.connect(), f"{POD}/portforward?ports=80", headers=world.auth,
                protocols="v4.channel.k8s.io",
            )  # fmt: skip
            assert isinstance(client, WebSocketClient)
            heard, code = await client.all()
            assert heard == {0: b"P\0bye", 1: b"P\0"} and code == websocket.NORMAL

    run(check)
