"""The way in from the host: which listeners there are, and what their relays do."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from sampan.network import outside as outside_module
from sampan.network.backends import Endpoint, Ingress, Service, ServicePort
from sampan.network.outside import (
    RANK_BALANCER,
    RANK_NODE_PORT,
    Choice,
    Outside,
    Route,
    routes,
)

AT = "127.77.1.1"
HERE, THERE = Endpoint("10.42.1.2", 80, "n1"), Endpoint("10.42.2.2", 80, "n2")
DRAINS = Endpoint("10.42.2.3", 80, "n2", ready=False, terminating=True)


def svc(**fields: Any) -> Service:
    port = ServicePort("", fields.pop("protocol", "tcp"), 80, fields.pop("node_port", 30080))
    return Service(**{"namespace": "n", "name": "s", "type": "NodePort", "ports": (port,),
                      "cluster_ips": ("10.43.0.5",), **fields})  # fmt: skip


def made(service: Service, *found: Endpoint) -> dict[Any, Any]:
    known = {("", service.ports[0].protocol): found}
    return routes(service, known, address=AT, nodes=["n1", "n2"])


NODE_PORT = (AT, "tcp", 30080)


@pytest.mark.parametrize(
    ("service", "found", "wanted"),
    [
        (svc(), [HERE, THERE, DRAINS], {NODE_PORT: Route(RANK_NODE_PORT, (HERE, THERE))}),
        (svc(), [DRAINS], {NODE_PORT: Route(RANK_NODE_PORT, (DRAINS,))}),
        (svc(), [], {}),
        (svc(protocol="sctp"), [HERE], {}),
        (svc(node_port=0), [HERE], {}),
        (svc(affinity=9), [HERE], {NODE_PORT: Route(RANK_NODE_PORT, (HERE,), 9)}),
        (svc(external_local=True), [HERE, Endpoint("10.42.9.9", 80, "elsewhere"), DRAINS],
         {NODE_PORT: Route(RANK_NODE_PORT, (HERE, DRAINS))}),
        (svc(external_local=True), [Endpoint("10.42.9.9", 80, "elsewhere")], {}),
        (svc(type="LoadBalancer", node_port=0, host_sources=("10.0.0.0/8",),
             ingress=(Ingress("127.77.1.2"), Ingress("192.0.2.1"),
                      Ingress("127.77.1.3", ((81, "tcp"),)))),
         [HERE], {("127.77.1.2", "tcp", 80): Route(RANK_BALANCER, (HERE,), 0, ("10.0.0.0/8",))}),
    ],
)  # fmt: skip
def test_routes(service: Service, found: list[Endpoint], wanted: dict[Any, Any]) -> None:
    assert made(service, *found) == wanted


def test_a_client_stays_for_its_time() -> None:
    choice = Choice(random.Random(1))
    route = Route(0, tuple(Endpoint(f"10.42.1.{i}", 80) for i in range(9)), affinity=10)
    first = choice.order(route, "c", 0.0)[0]
    choice.keep(route, "c", first, 0.0)
    for now in (1.0, 9.9):
        assert choice.order(route, "c", now)[0] == first
    assert {choice.order(route, "c", 10.1)[0] for _ in range(99)} == {*route.endpoints}
    assert {choice.order(route, "d", 1.0)[0] for _ in range(99)} == {*route.endpoints}


class Local:
    """Sockets of this very process."""

    async def run(self, work: Callable[..., Any], *args: Any) -> Any:
        return work(*args)


Loop = Callable[[], asyncio.AbstractEventLoop]
LOOPS = (asyncio.new_event_loop, uvloop.new_event_loop)


@pytest.fixture(params=LOOPS, ids=("asyncio", "uvloop"))
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    def runner(main: Coroutine[Any, Any, None]) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(30):
                await main

        with asyncio.Runner(loop_factory=request.param) as it:
            it.run(bounded())

    return runner


class Site:
    """An Outside whose endpoints are servers on this host's loopback."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.port = _free_port()
        self.outside = Outside(
            address=AT, spaces={"n1": Local()}, rng=random.Random(3),
            failed=lambda owner, message: self.told.append((owner, message)),
        )  # fmt: skip

    async def put(self, *places: tuple[str, int], owner: str = "n/s", **fields: Any) -> None:
        service = svc(node_port=self.port, **fields)
        found = [Endpoint(ip, port, "n1") for ip, port in places]
        known = service if places else None
        self.outside.put(owner, known, {("", service.ports[0].protocol): found})
        await self.outside.sync()

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(AT, self.port)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind((AT, 0))
        return int(sock.getsockname()[1])


async def serve(handler: Any) -> tuple[asyncio.Server, tuple[str, int]]:
    server = await asyncio.start_server(handler, "127.77.2.1", 0)
    return server, server.sockets[0].getsockname()[:2]


def test_both_ways_and_half_closed(run: Any) -> None:
    async def main() -> None:
        site = Site()
        ended = asyncio.Event()

        async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            data = await reader.read()  # to the end: the answer comes after the client's own end
            writer.write(struct.pack("!I", len(data)) + data[::-1])
            writer.close()
            ended.set()

        server, place = await serve(count)
        async with server:
            await site.put(place)
            for size in (0, 1, 5_000_000):
                reader, writer = await site.open()
                data = random.Random(size).randbytes(size)
                writer.write(data)
                writer.write_eof()
                answer = await reader.read()
                assert answer == struct.pack("!I", size) + data[::-1]
                writer.close()
            # Who speaks late, or first on the other side, is heard as well.
            reader, writer = await site.open()
            await asyncio.sleep(0.05)
            writer.write(b"late")
            writer.write_eof()
            assert (await reader.read())[4:] == b"etal"
            writer.close()
        await site.outside.close()

    run(main())


def test_a_slow_reader_slows_the_sender(run: Any) -> None:
    async def main() -> None:
        site = Site()
        sent = 0

        async def flood(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            try:
                for _ in range(2000):
                    writer.write(b"x" * 65536)
                    sent += 65536
                    await writer.drain()
            except ConnectionError:
                pass
            writer.close()

        server, place = await serve(flood)
        async with server:
            await site.put(place)
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(sock, (AT, site.port))
            still = -1
            while still != sent or not sent:  # until nothing moves any more
                still = sent
                await asyncio.sleep(0.2)
            assert sent < 40 << 20  # of 125 MB: what sockets hold, not what there is
            sock.close()
        await site.outside.close()

    run(main())


def test_a_reset_is_passed_on(run: Any) -> None:
    async def main() -> None:
        site = Site()
        lost: asyncio.Queue[str] = asyncio.Queue()

        async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while await reader.read(100):
                    pass
                await lost.put("end")
            except ConnectionError:
                await lost.put("reset")
            writer.close()

        server, place = await serve(hold)
        async with server:
            await site.put(place)
            _, writer = await site.open()
            writer.write(b"x")
            await asyncio.sleep(0.05)
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            assert await lost.get() in ("reset", "end")
        await site.outside.close()

    run(main())


def test_listeners_come_and_go_with_endpoints(run: Any) -> None:
    async def main() -> None:
        site = Site()
        name = asyncio.Queue[bytes]()

        async def tell(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await name.get())
            writer.close()

        server, place = await serve(tell)
        async with server:
            with pytest.raises(ConnectionRefusedError):
                await site.open()
            await site.put(place)
            held = await site.open()
            await site.put()
            with pytest.raises(ConnectionRefusedError):
                await site.open()
            name.put_nowait(b"still here")
            assert await held[0].read() == b"still here"
            held[1].close()
            await site.put(place)
            name.put_nowait(b"again")
            reader, writer = await site.open()
            assert await reader.read() == b"again"
            writer.close()
            await site.outside.close()
            with pytest.raises(ConnectionRefusedError):
                await site.open()

    run(main())


def test_an_endpoint_that_does_not_answer_is_passed_over(run: Any) -> None:
    async def main() -> None:
        site = Site()

        async def tell(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"ok")
            writer.close()

        server, place = await serve(tell)
        async with server:
            await site.put(("127.77.2.2", 1), place)
            for _ in range(8):
                reader, writer = await site.open()
                assert await reader.read() == b"ok"
                writer.close()
            await site.put(("127.77.2.2", 1), ("127.77.2.2", 2))
            reader, writer = await site.open()
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            writer.close()
        await site.outside.close()

    run(main())


def test_who_is_not_admitted_gets_nothing(run: Any) -> None:
    async def main() -> None:
        site = Site()
        asked = 0

        async def tell(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal asked
            asked += 1
            writer.write(b"ok")
            writer.close()

        server, place = await serve(tell)
        ingress = (Ingress("127.77.1.9", ()),)
        async with server:
            for sources, answer in ((("192.0.2.0/24",), b""), (("127.0.0.0/8",), b"ok")):
                service = Service(
                    "n", "s", "LoadBalancer", ("10.43.0.5",),
                    (ServicePort("", "tcp", site.port),), ingress=ingress, host_sources=sources,
                )  # fmt: skip
                site.outside.put("n/s", service, {("", "tcp"): [Endpoint(*place, "n1")]})
                await site.outside.sync()
                reader, writer = await asyncio.open_connection("127.77.1.9", site.port)
                try:
                    assert await reader.read() == answer
                except ConnectionError:
                    assert answer == b""
                writer.close()
            assert asked == 1
        await site.outside.close()

    run(main())


def test_a_taken_port_is_told_once_and_had_when_free(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outside_module, "_RETRY", 0.05)

    async def main() -> None:
        site = Site()

        async def tell(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"ok")
            writer.close()

        server, place = await serve(tell)
        other = socket.socket()
        other.bind((AT, site.port))
        other.listen()
        async with server:
            await site.put(place)
            await asyncio.sleep(0.3)
            assert [owner for owner, _ in site.told] == ["n/s"]
            assert f"{AT}:{site.port}/tcp" in site.told[0][1]
            other.close()
            while True:
                try:
                    reader, writer = await site.open()
                    break
                except ConnectionRefusedError:
                    await asyncio.sleep(0.02)
            assert await reader.read() == b"ok"
            writer.close()
            # Another Service that wants the same is told whose it is, and has it after that one.
            await site.put(place, owner="n/t")
            assert site.told[1][0] == "n/t" and "n/s" in site.told[1][1]
            await site.put(owner="n/s")
            reader, writer = await site.open()
            assert await reader.read() == b"ok"
            writer.close()
        await site.outside.close()

    run(main())


class Answer(asyncio.DatagramProtocol):
    def __init__(self, name: bytes) -> None:
        self.name = name
        self.clients: set[Any] = set()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.clients.add(addr)
        self.transport.sendto(self.name + data, addr)


def test_datagrams(run: Any) -> None:
    async def main() -> None:
        site, loop = Site(), asyncio.get_running_loop()
        servers = []
        for name in (b"a", b"b"):
            transport, answer = await loop.create_datagram_endpoint(
                lambda name=name: Answer(name), local_addr=("127.77.2.1", 0)
            )
            servers.append((transport, answer, transport.get_extra_info("sockname")[:2]))
        await site.put(servers[0][2], protocol="udp")
        socks = []
        for _ in range(3):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.setblocking(False)
            await loop.sock_connect(sock, (AT, site.port))
            socks.append(sock)
        for i, sock in enumerate(socks):
            for turn in range(3):
                await loop.sock_sendall(sock, b"%d%d" % (i, turn))
                assert await loop.sock_recv(sock, 100) == b"a%d%d" % (i, turn)
        assert len(servers[0][1].clients) == 3  # each client's port has one of its own
        # An endpoint that is gone loses its clients, also those that go on to send.
        await site.put(servers[1][2], protocol="udp")
        await loop.sock_sendall(socks[0], b"x")
        assert await loop.sock_recv(socks[0], 100) == b"bx"
        for sock in socks:
            sock.close()
        for transport, _, _ in servers:
            transport.close()
        await site.outside.close()

    run(main())
