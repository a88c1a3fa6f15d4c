"""The sockets, on this host's loopback, and the zone that follows an API server."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import uvloop

from sampan.api.call import User
from sampan.api.obj import Body
from sampan.lib.clock import RealClock
from sampan.network.dns import message as dns
from sampan.network.dns import names
from sampan.network.dns.config import Config
from sampan.network.dns.forwarder import Forwarder
from sampan.network.dns.message import Message, Question
from sampan.network.dns.responder import Responder
from sampan.network.dns.server import Server
from sampan.network.dns.service import ClusterNames
from sampan.testing.api import api_server, client_of
from sampan.testing.names import endpoint, endpoint_slice, external, service

from .test_forwarder import free_port
from .test_zone import make

WEB = "web.default.svc.cluster.local"


class Here:
    """The test's own network, in the place of a node's."""

    async def run(self, work: Callable[..., Any], *args: Any) -> Any:
        return work(*args)


class Slow(Forwarder):
    """Answers after a moment, longer for names that begin with ``slow``."""

    def __init__(self) -> None:
        async def never(_family: int, _kind: int) -> socket.socket:
            raise AssertionError

        super().__init__(never, now=lambda: 0.0, rng=random.Random(1))

    async def resolve(self, name: bytes, kind: int) -> Message | None:
        await asyncio.sleep(0.2 if name.startswith(b"\x04slow") else 0.01)
        return Message(0)


def query(name: str, ident: int = 7, kind: int = dns.A) -> bytes:
    return dns.encode(Message(ident, dns.RD, questions=(Question(names.wire(name), kind),)))


def serve(then: Callable[[Server, str, int], Awaitable[None]]) -> None:
    async def main() -> None:
        endpoints = [endpoint(f"10.42.{i // 250}.{i % 250}") for i in range(900)]
        zone = make((service("web", "10.43.0.5"), service("many"), external("out", "slow.test")),
                    (endpoint_slice("many", *endpoints),))  # fmt: skip
        responder = Responder(zone, Config((("192.0.2.1", 53),)))
        port = free_port()
        server = Server(responder, Slow(), [Here()], ["127.0.0.1"], port=port)
        await server.start()
        try:
            async with asyncio.timeout(20):
                await then(server, "127.0.0.1", port)
        finally:
            await server.stop()

    for runner in (asyncio.run, uvloop.run):  # a daemon runs on uvloop
        runner(main())


async def _read(reader: asyncio.StreamReader) -> Message:
    size = int.from_bytes(await reader.readexactly(2), "big")
    return dns.parse(await reader.readexactly(size))


def framed(packet: bytes) -> bytes:
    return len(packet).to_bytes(2, "big") + packet


def test_by_udp() -> None:
    async def then(server: Server, host: str, port: int) -> None:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect((host, port))
            for i in range(200):
                sock.send(query(WEB, i))
                sock.send(b"junk")
            sock.send(query("slow.test", 900))
            sock.send(query("quick.test", 901))
            seen = [dns.parse(await loop.sock_recv(sock, 4096)) for _ in range(202)]
        assert [m.id for m in seen] == [*range(200), 901, 900]
        assert {m.answers[0].data for m in seen[:200]} == {bytes((10, 43, 0, 5))}

    serve(then)


def test_a_node_that_comes_later_and_goes() -> None:
    async def then(server: Server, host: str, port: int) -> None:
        class There(Here):
            async def run(self, work: Callable[..., Any], *args: Any) -> Any:
                return work("127.0.0.2", *args[1:])

        there = There()
        for _ in range(2):  # it may come back
            await server.add(there)
            reader, writer = await asyncio.open_connection("127.0.0.2", port)
            writer.write(framed(query(WEB)))
            assert (await _read(reader)).answers
            writer.close()
            server.remove(there)
            with contextlib.suppress(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.2", port)
                raise AssertionError("somebody listens still")
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(framed(query(WEB)))
        assert (await _read(reader)).answers
        writer.close()

    serve(then)


def test_by_tcp_pipelined_and_out_of_order() -> None:
    async def then(server: Server, host: str, port: int) -> None:
        reader, writer = await asyncio.open_connection(host, port)
        slow, fast = framed(query("slow.test", 1)), framed(query(WEB, 2))
        writer.write(slow + fast + framed(query("out.default.svc.cluster.local", 4))[:9])
        assert (await _read(reader)).id == 2
        writer.write(framed(query("out.default.svc.cluster.local", 4))[9:])
        writer.write_eof()
        assert {(await _read(reader)).id for _ in range(2)} == {1, 4}
        assert await reader.read() == b""
        writer.close()

    serve(then)


def test_a_large_answer_needs_tcp() -> None:
    async def then(server: Server, host: str, port: int) -> None:
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(framed(query("many.default.svc.cluster.local")))
        assert len((await _read(reader)).answers) == 900
        writer.close()

    serve(then)


def test_a_client_that_does_not_read_is_not_answered_for_ever() -> None:
    """What waits for it is bounded."""

    async def then(server: Server, host: str, port: int) -> None:
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(framed(query("many.default.svc.cluster.local")) * 800)
        while not server.connections:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        (connection,) = server.connections
        assert connection._transport is not None
        assert connection._transport.get_write_buffer_size() < 1 << 20
        for _ in range(800):
            await _read(reader)
        writer.close()

    serve(then)


def test_nonsense_ends_a_connection() -> None:
    async def then(server: Server, host: str, port: int) -> None:
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(framed(b"junk"))
        assert await reader.read() == b""
        writer.close()
        while server.connections:
            await asyncio.sleep(0.01)

    serve(then)


def test_connections_are_bounded() -> None:
    async def then(server: Server, host: str, port: int) -> None:
        pairs = [await asyncio.open_connection(host, port) for _ in range(520)]
        while len(server.connections) < 512:
            await asyncio.sleep(0.01)
        assert await pairs[-1][0].read() == b""
        for _reader, writer in pairs:
            writer.close()

    serve(then)


# -- the zone that follows the API ----------------------------------------------------------------

COREDNS = User("system:serviceaccount:kube-system:coredns",
               ("system:serviceaccounts", "system:serviceaccounts:kube-system",
                "system:authenticated"))  # fmt: skip


async def _until(check: Callable[[], bool], seconds: float = 20.0) -> float:
    """How long it took, in turns of a millisecond: others on the machine do not count. (What
    real packets meet, in real time: tests/network/test_how_soon.py.)"""
    turns = 0
    async with asyncio.timeout(seconds):
        while not check():
            await asyncio.sleep(0.001)
            turns += 1
    return turns * 0.001


def test_names_follow_the_api_within_a_tenth_of_a_second() -> None:
    """With the rights of its own service account and no more."""

    async def main() -> None:
        api = await api_server()
        admin = client_of(api)
        followed = ClusterNames(client_of(api, COREDNS), clock=RealClock(),
                                upstreams=(("10.0.0.9", 53),))  # fmt: skip
        await followed.start()
        respond = followed.responder.respond

        def addresses(name: str) -> list[bytes] | None:
            answer = respond(query(name), udp=True)
            if not isinstance(answer, bytes):
                return None
            return [r.data for r in dns.parse(answer).answers]

        absent = respond(query(WEB), udp=True)
        assert isinstance(absent, bytes) and dns.parse(absent).rcode == dns.NXDOMAIN
        spec: Body = {"clusterIP": "None", "ports": [{"port": 80}]}
        await admin.create("services", {"metadata": {"name": "web"}, "spec": spec}, "default")
        slice_ = endpoint_slice("web", endpoint("10.42.1.5", hostname="one")).body
        made = await admin.create("endpointslices.discovery.k8s.io", slice_, "default")
        took = await _until(lambda: addresses(WEB) == [bytes((10, 42, 1, 5))])
        assert took < 0.1
        moved = {**made.body, "endpoints": [{"addresses": ["10.42.1.6"], "hostname": "one"}]}
        await admin.update("endpointslices.discovery.k8s.io", moved)
        took = await _until(lambda: addresses(f"one.{WEB}") == [bytes((10, 42, 1, 6))])
        assert took < 0.1 and addresses(WEB) == [bytes((10, 42, 1, 6))]
        await admin.delete("services", "web", "default")
        await _until(lambda: addresses(WEB) == [])
        await admin.create("namespaces", {"metadata": {"name": "new"}})
        await _until(lambda: addresses("10-0-0-1.new.pod.cluster.local") == [bytes((10, 0, 0, 1))])

        data = {"stubDomains": '{"acme.local": ["10.0.0.1"]}', "upstreamNameservers": "nonsense"}
        config: Body = {"metadata": {"name": "kube-dns"}, "data": data}
        made = await admin.create("configmaps", config, "kube-system")
        stub = names.wire("x.acme.local")
        await _until(lambda: followed.responder.config.servers(stub) == (("10.0.0.1", 53),))
        assert followed.responder.config.upstreams == (("10.0.0.9", 53),)
        await admin.create("configmaps", {"metadata": {"name": "other"}}, "kube-system")
        await admin.delete("configmaps", "kube-dns", "kube-system")
        await _until(lambda: followed.responder.config.servers(stub) == (("10.0.0.9", 53),))
        await followed.stop()
        events = (await admin.list("events", "kube-system")).items
        assert [(e.body["reason"], e.body["message"]) for e in events] == [
            ("InvalidConfiguration", "upstreamNameservers: not JSON")
        ]

    asyncio.run(main())
