"""The rules in a real kernel: real flows between namespaces of our own."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sampan.lib.addressing import IPV4, plan
from sampan.network.backends import written
from sampan.network.nft import Nft, NftError
from sampan.network.proxy import NodeRules
from sampan.network.rules import (
    BALANCER,
    CLUSTER_IP,
    EXTERNAL_IP,
    HOST_PORT,
    NODE_PORT,
    Entries,
    Entry,
    Facts,
    Pick,
)
from sampan.network.ruleset import TABLE
from sampan.node.runtime.base import SandboxSpec
from sampan.node.runtime.native.launch import start_pause
from sampan.node.runtime.native.nodes import Nodes, Space, destroy, route_to_rules
from sampan.testing.e2e import host_state

pytestmark = pytest.mark.e2e
DEADLINE = 30.0
_COUNTERPARTS = {"10.42": "fd00:42:0:{2:x}::{3:x}", "10.43": "fd00:43::{2:02x}{3:02x}",
                 "10.44": "fd00:44::{3:x}", "192.0": "2001:db8::{3:x}"}  # fmt: skip


def counterpart(address: str, family: str) -> str:
    """An address of IPv4, or the one that has its place in a cluster of IPv6."""
    if family == IPV4:
        return address
    parts = map(int, address.split("."))
    return written(_COUNTERPARTS[address[: address.index(".", 4)]].format(*parts))


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left() -> Iterator[None]:
    before = host_state()
    yield
    after = host_state()
    assert {
        k: after[k] - before[k] for k in ("links", "nft", "netns") if after[k] - before[k]
    } == {}


@dataclass
class Pod:
    """A network namespace linked to a node as the runtime links pods."""

    address: str
    space: Space
    seen: list[str] = field(default_factory=list)  # clients, as the server saw them

    async def tcp(self, host: str, port: int) -> str:
        """What a server answers. Raises OSError."""
        return await ask(self.space, host, port)

    async def udp(self, sock: socket.socket, host: str, port: int) -> str:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(5):
            await loop.sock_sendto(sock, b"?", (host, port))
            return (await loop.sock_recv(sock, 100)).decode()

    async def udp_socket(self) -> socket.socket:
        return await self.space.run(_udp_socket, (every(self.address), 0))


def every(address: str) -> str:
    return "::" if ":" in address else "0.0.0.0"


def _udp_socket(address: tuple[str, int] = ("0.0.0.0", 0)) -> socket.socket:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.bind(address)
    sock.setblocking(False)
    return sock


async def ask(space: Space, host: str, port: int) -> str:
    reader, writer = await space.connect(host, port, 5)
    try:
        async with asyncio.timeout(5):
            return (await reader.read()).decode()
    finally:
        writer.close()


class World:
    """Two nodes with pods that tell their name, and the rules of both nodes."""

    def __init__(self, spaces: list[Space], family: str) -> None:
        self.spaces = spaces
        self.family = family
        (self.addresses,) = plan(family.lower()).of
        self.vip = self.at("10.43.0.77")
        self.pods: list[Pod] = []
        self.pids: list[int] = []
        self.rules: list[NodeRules] = []
        self._servers: list[Any] = []

    def at(self, address: str) -> str:
        return counterpart(address, self.family)

    def node(self, i: int) -> str:
        return self.addresses.node(i + 1)

    @property
    def table(self) -> str:
        return f"{'ip' if self.family == IPV4 else 'ip6'} {TABLE}"

    async def rules_of(self, i: int) -> NodeRules:
        at, a = self.node(i), self.addresses
        facts = Facts(f"n{i + 1}", (at,), masquerade=at, own=frozenset((a.api,)), pods=a.pods,
                      services=a.services)  # fmt: skip
        return NodeRules(
            self.spaces[i], facts, routes=lambda add, remove: route_to_rules(at, add, remove)
        )

    async def pod(self, node: int, number: int, *, serves: bool = True) -> Pod:
        address = self.at(f"10.42.{node + 1}.{number}")
        spec = SandboxSpec(id=f"p{number}", namespace="t", name=f"p{number}", uid=f"u{number}")
        pid = await self.spaces[node].run(start_pause, spec, (address,), (self.node(node),))
        self.pids.append(pid)
        pod = Pod(address, Space(f"pod-{address}", 0, pid))
        self.pods.append(pod)
        if serves:
            await self._serve(pod)
        return pod

    async def _serve(self, pod: Pod) -> None:
        async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            pod.seen.append(writer.get_extra_info("peername")[0])
            writer.write(pod.address.encode())
            await writer.drain()
            writer.close()

        class Echo(asyncio.DatagramProtocol):
            def connection_made(self, transport: Any) -> None:
                self.transport = transport

            def datagram_received(self, _data: bytes, addr: tuple[str, int]) -> None:
                pod.seen.append(addr[0])
                self.transport.sendto(pod.address.encode(), addr)

        sock = await pod.space.listen(every(pod.address), 8080)
        self._servers.append(await asyncio.start_server(answer, sock=sock))
        udp = await pod.space.run(_udp_socket, (every(pod.address), 8080))
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Echo, sock=udp)
        self._servers.append(transport)

    async def set(self, entries: Entries, *, only: int | None = None) -> None:
        for i, rules in enumerate(self.rules):
            if only is None or i == only:
                rules.claim("t/t", entries)
                await rules.sync()

    async def remembers(self, client: Pod) -> bool:
        """Whether the first node's kernel knows where *client* goes."""
        text = await self.nft(0, f"list table {self.table}")
        return any(client.address in line and " expires " in line for line in text.splitlines())

    async def nft(self, node: int, command: str) -> str:
        def work() -> str:
            handle = Nft()
            try:
                return handle.run(command)
            finally:
                handle.close()

        return await self.spaces[node].run(work)


@asynccontextmanager
async def world(nodes: int = 1, family: str = IPV4) -> AsyncIterator[World]:
    root = Path(tempfile.mkdtemp(prefix="sampan-proxy-"))
    made = Nodes(root, plan(family.lower()))
    try:
        spaces = await made.ensure([f"n{i + 1}" for i in range(nodes)])
        it = World([*spaces.values()], family)
        it.rules = [await it.rules_of(i) for i in range(nodes)]
        try:
            yield it
        finally:
            for server in it._servers:
                server.close()
            for rules in it.rules:
                await rules.close()
            for pod in it.pods:
                pod.space.close()
            for pid in it.pids:
                os.kill(pid, signal.SIGKILL)
                await asyncio.to_thread(os.waitpid, pid, 0)
    finally:
        made.close()
        destroy(root)
        shutil.rmtree(root)


def run(test: Callable[[World], Awaitable[None]], family: str, nodes: int = 1) -> None:
    async def main() -> None:
        async with asyncio.timeout(DEADLINE), world(nodes, family) as it:
            await test(it)

    asyncio.run(main())


def to(*pods: Pod, **fields: Any) -> Pick:
    return Pick(tuple((p.address, 8080) for p in pods), **fields)


def test_cluster_ip_over_two_nodes(family: str) -> None:
    async def test(w: World) -> None:
        a, b = await w.pod(0, 2), await w.pod(1, 2)
        entry = Entry(CLUSTER_IP, to(a, b))
        await w.set({(w.vip, "tcp", 80): entry, (w.vip, "udp", 80): entry})
        for pod in (a, b):
            answers = {await pod.tcp(w.vip, 80) for _ in range(24)}
            assert answers == {a.address, b.address}
        # The source is kept: a policy sees who it is. A pod that meets itself is the exception.
        assert {*a.seen} == {b.address, w.at("10.44.0.2")}
        assert {*b.seen} == {a.address, w.at("10.44.0.3")}
        for space in w.spaces:
            assert {await ask(space, w.vip, 80) for _ in range(24)} == {a.address, b.address}
        answers = set()
        for _ in range(24):
            with await a.udp_socket() as sock:
                answers.add(await a.udp(sock, w.vip, 80))
        assert answers == {a.address, b.address}

    run(test, family, nodes=2)


def test_a_node_port_answers_on_every_node(family: str) -> None:
    async def test(w: World) -> None:
        a, b = await w.pod(0, 2), await w.pod(1, 2, serves=False)
        for i, rules in enumerate(w.rules):
            entry = Entry(NODE_PORT, to(a, masquerade=True))
            rules.claim("t/t", {(w.node(i), "tcp", 30080): entry})
            await rules.sync()
        for target in (w.at("10.44.0.2"), w.at("10.44.0.3")):
            for client in (a.space, b.space, *w.spaces):
                assert await ask(client, target, 30080) == a.address

    run(test, family, nodes=2)


def test_external_policy_local(family: str) -> None:
    """From outside: only own endpoints, the source kept. Pods and the node reach all of them."""

    async def test(w: World) -> None:
        a, b = await w.pod(0, 2), await w.pod(1, 2)
        everyone = to(a, b, masquerade=True)
        first = Entry(NODE_PORT, to(a), inside=everyone)
        second = Entry(NODE_PORT, None, inside=everyone, refuse="drop")
        w.rules[0].claim("t/t", {(w.at("10.44.0.2"), "tcp", 30080): first})
        w.rules[1].claim("t/t", {(w.at("10.44.0.3"), "tcp", 30080): second})
        for rules in w.rules:
            await rules.sync()
        # The other node's processes come from outside of the first node.
        assert {await ask(w.spaces[1], w.at("10.44.0.2"), 30080) for _ in range(12)} == {a.address}
        assert {*a.seen} == {w.at("10.44.0.3")}
        assert {await a.tcp(w.at("10.44.0.2"), 30080) for _ in range(24)} == {a.address, b.address}
        assert {await ask(w.spaces[1], w.at("10.44.0.3"), 30080) for _ in range(24)} == {
            a.address, b.address,
        }  # fmt: skip
        with pytest.raises(TimeoutError):
            await w.spaces[0].connect(w.at("10.44.0.3"), 30080, 0.5)

    run(test, family, nodes=2)


def test_refused_at_once(family: str) -> None:
    async def test(w: World) -> None:
        a = await w.pod(0, 2)
        await w.set({
            (w.vip, "tcp", 80): Entry(CLUSTER_IP, None, refuse="reject"),
            (w.vip, "udp", 80): Entry(CLUSTER_IP, None, refuse="reject"),
            (w.at("10.43.0.78"), "tcp", 80): Entry(CLUSTER_IP, None, refuse="drop"),
            (w.at("10.44.0.2"), "tcp", 30080): Entry(NODE_PORT, None, refuse="reject"),
        })  # fmt: skip
        for space in (a.space, w.spaces[0]):
            for host, port in (
                (w.vip, 80), (w.vip, 81), (w.at("10.43.0.78"), 81), (w.at("10.44.0.2"), 30080),
            ):  # fmt: skip
                with pytest.raises(ConnectionRefusedError):
                    await space.connect(host, port, 3)
            with pytest.raises(TimeoutError):
                await space.connect(w.at("10.43.0.78"), 80, 0.3)
            # What no Service has is not looked for outside.
            for _ in range(20):
                with pytest.raises(ConnectionRefusedError):
                    await space.connect(w.at("10.43.9.9"), 80, 3)
        with await a.udp_socket() as sock:
            sock.connect((w.vip, 80))
            sock.send(b"?")
            with pytest.raises(ConnectionRefusedError):
                async with asyncio.timeout(3):
                    await asyncio.get_running_loop().sock_recv(sock, 10)
        # What a process of the node answers itself is not touched.
        server = await asyncio.start_server(
            lambda _r, w: (w.write(b"api"), w.close()),  # type: ignore[arg-type,return-value]
            sock=await w.spaces[0].listen(w.at("10.43.0.1"), 443),
        )
        async with server:
            assert await a.tcp(w.at("10.43.0.1"), 443) == "api"

    run(test, family)


def test_affinity_holds_until_the_endpoint_goes(family: str) -> None:
    async def test(w: World) -> None:
        pods = [await w.pod(0, n) for n in (2, 3, 4, 5)]
        client = await w.pod(0, 9, serves=False)
        vips = ((w.vip, "tcp", 80), (w.vip, "udp", 80))
        await w.set(dict.fromkeys(vips, Entry(CLUSTER_IP, to(*pods, affinity=60))))
        first = await client.tcp(w.vip, 80)
        assert {await client.tcp(w.vip, 80) for _ in range(16)} == {first}
        with await client.udp_socket() as sock:
            udp_first = await client.udp(sock, w.vip, 80)
        for _ in range(8):
            with await client.udp_socket() as sock:
                assert await client.udp(sock, w.vip, 80) == udp_first
        # Another endpoint's number may change; this client stays where it is.
        others = [p for p in pods if p.address != first]
        chosen = next(p for p in pods if p.address == first)
        await w.set({vips[0]: Entry(CLUSTER_IP, to(chosen, *others[1:], affinity=60))})
        assert {await client.tcp(w.vip, 80) for _ in range(16)} == {first}
        await w.set({vips[0]: Entry(CLUSTER_IP, to(*others, affinity=60))})
        second = {await client.tcp(w.vip, 80) for _ in range(16)}
        assert len(second) == 1 and second != {first}
        # Without it, chance decides again.
        await w.set({vips[0]: Entry(CLUSTER_IP, to(*pods))})
        assert len({await client.tcp(w.vip, 80) for _ in range(40)}) > 1

    run(test, family)


def test_a_service_does_not_inherit_the_clients_of_another(family: str) -> None:
    """An address that is given again, and affinity that is switched off and on."""

    async def test(w: World) -> None:
        a, b = await w.pod(0, 2), await w.pod(0, 3)
        client = await w.pod(0, 9, serves=False)
        vip = (w.vip, "tcp", 80)
        sticky = {vip: Entry(CLUSTER_IP, to(a, affinity=60))}
        for between in ({}, {vip: Entry(CLUSTER_IP, to(a))}):
            await w.set(sticky)
            assert await client.tcp(w.vip, 80) == a.address
            assert await w.remembers(client)
            await w.set(between)
            assert not await w.remembers(client)
            await w.set({vip: Entry(CLUSTER_IP, to(b, affinity=60))})
            assert await client.tcp(w.vip, 80) == b.address
        # More endpoints and another time-out leave a client where it is.
        await w.set({vip: Entry(CLUSTER_IP, to(a, b, affinity=90))})
        assert {await client.tcp(w.vip, 80) for _ in range(12)} == {b.address}
        # An endpoint that went while no proxy ran.
        await w.rules[0].close()
        w.rules[0] = await w.rules_of(0)
        await w.set({vip: Entry(CLUSTER_IP, to(a, affinity=90))})
        assert await client.tcp(w.vip, 80) == a.address

    run(test, family)


def test_affinity_ends_with_its_time(family: str) -> None:
    async def test(w: World) -> None:
        pods = [await w.pod(0, n) for n in (2, 3, 4, 5)]
        client = await w.pod(0, 9, serves=False)
        await w.set({(w.vip, "tcp", 80): Entry(CLUSTER_IP, to(*pods, affinity=1))})
        seen = set()
        for _ in range(12):
            seen.add(await client.tcp(w.vip, 80))
            if len(seen) > 1:
                return
            await asyncio.sleep(1.1)  # the kernel's own clock is what is tried here
        raise AssertionError(seen)

    run(test, family)


def test_stale_udp_is_forgotten_and_tcp_drains(family: str) -> None:
    async def test(w: World) -> None:
        a, b, client = await w.pod(0, 2), await w.pod(0, 3), await w.pod(0, 9, serves=False)
        vips = ((w.vip, "tcp", 80), (w.vip, "udp", 80))
        await w.set(dict.fromkeys(vips, Entry(CLUSTER_IP, to(a))))
        with await client.udp_socket() as sock:
            assert await client.udp(sock, w.vip, 80) == a.address
            assert await client.udp(sock, w.vip, 80) == a.address
            await w.set(dict.fromkeys(vips, Entry(CLUSTER_IP, to(b))))
            # The same port of the client: without forgetting it would go on to the first.
            assert await client.udp(sock, w.vip, 80) == b.address

    run(test, family)


def test_an_open_connection_outlives_its_endpoints_place(family: str) -> None:
    async def test(w: World) -> None:
        a, b, client = await w.pod(0, 2), await w.pod(0, 3), await w.pod(0, 9, serves=False)

        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(100):
                writer.write(data)
            writer.close()

        server = await asyncio.start_server(echo, sock=await a.space.listen(every(a.address), 9000))
        async with server:
            vip = (w.vip, "tcp", 80)
            await w.set({vip: Entry(CLUSTER_IP, Pick(((a.address, 9000),)))})
            reader, writer = await client.space.connect(w.vip, 80, 3)
            for entry in (
                Entry(CLUSTER_IP, to(b)), Entry(CLUSTER_IP, None, refuse="reject"), None,
            ):  # fmt: skip
                await w.set({vip: entry} if entry else {})
                writer.write(b"still")
                assert await asyncio.wait_for(reader.readexactly(5), 3) == b"still"
            writer.close()

    run(test, family)


def test_source_ranges(family: str) -> None:
    async def test(w: World) -> None:
        a, b, c = await w.pod(0, 2), await w.pod(0, 3), await w.pod(0, 4)
        whole = w.addresses.services
        ranges = (b.address, whole, f"{w.vip}/{24 if family == IPV4 else 124}")
        entry = Entry(BALANCER, to(a, masquerade=True), sources=ranges)
        await w.set({(w.at("192.0.2.7"), "tcp", 80): entry})
        assert await b.tcp(w.at("192.0.2.7"), 80) == a.address
        with pytest.raises(TimeoutError):
            await c.space.connect(w.at("192.0.2.7"), 80, 0.3)
        await w.set({(w.at("192.0.2.7"), "tcp", 80): Entry(BALANCER, to(a, masquerade=True))})
        assert await c.tcp(w.at("192.0.2.7"), 80) == a.address

    run(test, family)


def test_an_address_from_outside(family: str) -> None:
    """``externalIPs``: from pods and from the node's own processes, over both nodes."""

    async def test(w: World) -> None:
        ip = w.at("192.0.2.9")
        a, b = await w.pod(0, 2), await w.pod(1, 2)
        with pytest.raises(OSError, match="unreachable"):
            await ask(w.spaces[0], ip, 80)
        entry = Entry(EXTERNAL_IP, to(a, b, masquerade=True))
        await w.set({(ip, "tcp", 80): entry, (ip, "udp", 53): entry})
        for where in (a.space, *w.spaces):
            assert {await ask(where, ip, 80) for _ in range(16)} == {a.address, b.address}
        sock = await w.spaces[0].run(_udp_socket, (every(ip), 0))
        assert await a.udp(sock, ip, 53) in (a.address, b.address)
        sock.close()
        # Another port of the address is nobody's; the node says so at once.
        async with asyncio.timeout(3):  # (a second try of TCP would come after one)
            with pytest.raises(ConnectionRefusedError):
                await ask(w.spaces[0], ip, 81)
        # The next process of the proxy finds what is there, and takes away what nobody wants.
        w.rules[0] = await w.rules_of(0)
        await w.set({(ip, "tcp", 80): entry}, only=0)
        assert await ask(w.spaces[0], ip, 80) in (a.address, b.address)
        w.rules[0] = await w.rules_of(0)
        await w.set({}, only=0)
        with pytest.raises(OSError, match="unreachable"):
            await ask(w.spaces[0], ip, 80)
        assert await ask(w.spaces[1], ip, 80) in (a.address, b.address)

    run(test, family, nodes=2)


def test_a_host_port(family: str) -> None:
    async def test(w: World) -> None:
        a, b = await w.pod(0, 2), await w.pod(1, 2)
        await w.set({(w.at("10.44.0.2"), "tcp", 5000): Entry(HOST_PORT, to(a))}, only=0)
        for space in (b.space, a.space, *w.spaces):
            assert await ask(space, w.at("10.44.0.2"), 5000) == a.address
        assert b.address in a.seen  # the source is kept

    run(test, family, nodes=2)


def test_a_host_port_at_the_loopback_address(family: str) -> None:
    """The node's own processes reach it there, nobody else, and what they ask of other ports of
    that address is left alone."""
    if family != IPV4:
        return  # the kernel routes no ::1

    async def test(w: World) -> None:
        a, b = await w.pod(0, 2), await w.pod(1, 2)
        entry = Entry(HOST_PORT, to(a, masquerade=True))
        await w.set({("127.0.0.1", "tcp", 5000): entry}, only=0)
        assert await ask(w.spaces[0], "127.0.0.1", 5000) == a.address
        for space, port in ((w.spaces[0], 5001), (w.spaces[1], 5000), (b.space, 5000)):
            with pytest.raises(OSError):
                await ask(space, "127.0.0.1", port)

    run(test, family, nodes=2)


def test_a_restart_takes_over_without_a_gap(family: str) -> None:
    """A second proxy reads what the first left, changes only what differs, and a client that asks
    all the time is never refused."""

    async def test(w: World) -> None:
        a, b, client = await w.pod(0, 2), await w.pod(0, 3), await w.pod(0, 9, serves=False)
        vips = [(w.at(f"10.43.1.{i}"), "tcp", 80) for i in range(1, 100)]
        wanted = dict.fromkeys(vips, Entry(CLUSTER_IP, to(a, affinity=7)))
        await w.set({**wanted, (w.vip, "sctp", 9): Entry(CLUSTER_IP, to(a, b))})
        await w.rules[0].close()
        failures: list[OSError] = []
        answered = 0
        stop = threading.Event()

        async def keep_asking() -> None:
            nonlocal answered
            while not stop.is_set():
                try:
                    assert await client.tcp(w.at("10.43.1.1"), 80) == a.address
                    answered += 1
                except OSError as e:
                    failures.append(e)

        asking = asyncio.create_task(keep_asking())
        while answered < 5:
            await asyncio.sleep(0.01)
        w.rules[0] = await w.rules_of(0)
        del wanted[w.at("10.43.1.50"), "tcp", 80]
        wanted[w.at("10.43.1.51"), "tcp", 80] = Entry(CLUSTER_IP, to(b))
        await w.set(wanted)
        so_far = answered
        while answered < so_far + 5:
            await asyncio.sleep(0.01)
        stop.set()
        await asking
        assert failures == []
        assert await client.tcp(w.at("10.43.1.51"), 80) == b.address
        with pytest.raises(OSError):
            await client.tcp(w.at("10.43.1.50"), 80)
        text = await w.nft(0, f"list table {w.table}")
        assert "sctp" not in text.split("chain")[0] and ". 132 . 9" not in text

    run(test, family)


@pytest.mark.parametrize("damage", ["delete table {0}", "flush map {0} endpoints"])
def test_what_others_break_is_made_right(damage: str, family: str) -> None:
    async def test(w: World) -> None:
        a, b = await w.pod(0, 2), await w.pod(0, 3)
        await w.set({(w.vip, "tcp", 80): Entry(CLUSTER_IP, to(a))})
        await w.nft(0, damage.format(w.table))
        w.rules[0].claim("t/t", {(w.vip, "tcp", 80): Entry(CLUSTER_IP, to(b))})
        with pytest.raises(NftError):
            await w.rules[0].sync()
        await w.rules[0].sync()
        assert await a.tcp(w.vip, 80) == b.address

    run(test, family)


def test_many_changes_leave_what_is_wanted(family: str) -> None:
    """Endpoints come and go; at the end the kernel holds exactly the rows the proxy believes in."""

    async def test(w: World) -> None:
        rules = w.rules[0]
        places = [(w.at(f"10.42.1.{i}"), 8080) for i in range(2, 12)]
        for turn in range(40):
            entries: Entries = {}
            for i in range(1, 6):
                chosen = tuple(p for j, p in enumerate(places) if (turn * i + j) % (i + 2))
                if (turn + i) % 5:
                    entries[w.at(f"10.43.2.{i}"), "tcp", 80] = Entry(
                        CLUSTER_IP, Pick(chosen, affinity=i % 2 * 60)
                    )
            rules.claim("t/t", entries)
            await rules.sync()
        assert rules._table is not None
        held = await w.spaces[0].run(rules._held)
        assert held is not None
        assert (held.rows, held.uses, held.ips) == (
            rules._table.rows, rules._table.uses, rules._table.ips,
        )  # fmt: skip

    run(test, family)
