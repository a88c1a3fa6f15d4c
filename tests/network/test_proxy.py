"""The proxy follows the API: what it claims of each node's kernel, what it does after failures."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from sampan.client.base import Client
from sampan.client.cache import Caches
from sampan.control.events import Recorder
from sampan.lib.clock import RealClock
from sampan.network import conntrack
from sampan.network.nft import NftError
from sampan.network.outside import Outside
from sampan.network.proxy import NodeRules, Proxy
from sampan.network.rules import Facts, Row
from sampan.testing.fake_api import FakeApi

VIP = ("10.43.0.5", "tcp", 80)


class Handle:
    """In the place of libnftables: takes everything, or fails as often as it is told to."""

    def __init__(self, space: FakeSpace) -> None:
        self._space = space

    def run(self, commands: str) -> str:
        if commands.startswith("list"):
            raise NftError("no such table")
        if self._space.fail:
            self._space.fail -= 1
            raise NftError("told to fail")
        self._space.commands.append(commands)
        return ""

    def close(self) -> None:
        pass


class FakeSpace:
    def __init__(self, name: str) -> None:
        self.name = name
        self.fail = 0
        self.commands: list[str] = []
        self.forgotten: list[Any] = []

    async def run(self, work: Callable[..., Any], *args: Any) -> Any:
        if work is conntrack.forget:
            self.forgotten.append(*args)
            return 0
        return work(*args)

    async def listen(self, _host: str, port: int) -> socket.socket:
        sock = socket.socket()
        sock.bind((f"127.77.5.{self.name[-1]}", port))
        sock.listen()
        sock.setblocking(False)
        return sock


class World:
    def __init__(self) -> None:
        clock = RealClock()
        self.api = FakeApi(clock)
        self.client = Client(self.api)
        caches, pods = Caches(self.client), Caches(self.client)
        self.pods = pods
        self.routes: list[tuple[list[str], list[str]]] = []
        self.spaces = [FakeSpace("n1"), FakeSpace("n2")]
        self.nodes = [
            NodeRules(
                s,
                Facts(s.name, (f"10.44.0.{i}",), f"10.44.0.{i}"),
                nft=self._nft(s),
                routes=lambda add, remove: self.routes.append(([*add], [*remove])),
            )
            for i, s in enumerate(self.spaces, 2)
        ]
        outside = Outside(
            address="127.77.4.1", spaces={}, rng=random.Random(1), failed=lambda _o, _m: None
        )
        recorder = Recorder(self.client, "kube-proxy", clock=clock)
        self.proxy = Proxy(caches, pods["pods"], self.nodes, outside=outside, recorder=recorder)

    @staticmethod
    def _nft(space: FakeSpace) -> Callable[[], Any]:
        return lambda: Handle(space)

    def row(self, node: int, vip: Any = VIP) -> Row | None:
        table = self.nodes[node]._table
        return table.rows.get(vip) if table is not None else None

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.005)

    async def service(self, **spec: Any) -> None:
        meta = {"namespace": "d", "name": "s"}
        spec = {"type": "ClusterIP", "clusterIP": "10.43.0.5", "ports": [{"port": 80}], **spec}
        body = {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec}
        await self.client.create("services", body, "d")

    async def slice(self, *found: tuple[str, str, str], name: str = "s-1", **port: Any) -> None:
        """found: (address, node, zone it is for)."""
        body = {
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": name, "namespace": "d",
                         "labels": {"kubernetes.io/service-name": "s"}},
            "ports": [{"name": "", "protocol": "TCP", "port": 8080, **port}],
            "endpoints": [
                {"addresses": [a], "nodeName": n, "hints": {"forZones": [{"name": z}]} if z else {}}
                for a, n, z in found
            ],
        }  # fmt: skip
        resource = "endpointslices.discovery.k8s.io"
        if any(k.name == name for k in self.api.objects):
            await self.client.patch(resource, name, body, "d")
        else:
            await self.client.create(resource, body, "d")


def run(test: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        world = World()
        await world.pods.start()
        try:
            async with asyncio.timeout(30):
                await test(world)
        finally:
            await world.proxy.stop()
            await world.pods.stop()

    asyncio.run(main())


def places(*addresses: str) -> tuple[tuple[str, int], ...]:
    return tuple((a, 8080) for a in addresses)


def test_a_node_that_comes_later_and_goes() -> None:
    async def test(w: World) -> None:
        await w.proxy.start()
        await w.service()
        await w.slice(("10.42.1.4", "n1", ""))
        await w.until(lambda: (r := w.row(0)) and r.places)
        space = FakeSpace("n3")
        late = NodeRules(space, Facts("n3", ("10.44.0.4",), "10.44.0.4"), nft=w._nft(space))
        w.nodes.append(late)
        await w.proxy.add(late)
        held = w.row(2)
        assert held is not None and held.places == frozenset(places("10.42.1.4"))
        await w.slice(("10.42.1.4", "n1", ""), ("10.42.3.9", "n3", ""))
        await w.until(lambda: (r := w.row(2)) and len(r.places) == 2)
        await w.proxy.remove("n3")
        told = len(space.commands)
        await w.slice(("10.42.1.5", "n1", ""))
        await w.until(lambda: (r := w.row(0)) and r.places == frozenset(places("10.42.1.5")))
        assert len(space.commands) == told and len(late._claims.vips()) > 0

    run(test)


def test_both_nodes_follow() -> None:
    async def test(w: World) -> None:
        await w.service()
        await w.proxy.start()  # what is there is done when it returns
        assert [w.row(i) for i in (0, 1)] == [Row(refuse="reject", is_cluster_ip=True)] * 2
        await w.slice(("10.42.1.2", "n1", ""), ("10.42.2.2", "n2", ""))
        both = Row("pick-2", places("10.42.1.2", "10.42.2.2"), is_cluster_ip=True)
        await w.until(lambda: w.row(0) == w.row(1) == both)
        await w.slice(("10.42.2.2", "n2", ""), name="s-2")
        await w.client.delete("endpointslices.discovery.k8s.io", "s-1", "d")
        one = Row("pick-1", places("10.42.2.2"), is_cluster_ip=True)
        await w.until(lambda: w.row(0) == w.row(1) == one)
        await w.client.delete("services", "s", "d")
        await w.until(lambda: w.row(0) is None and w.row(1) is None)

    run(test)


def test_what_is_written_again_costs_nothing() -> None:
    async def test(w: World) -> None:
        await w.service()
        await w.slice(("10.42.1.2", "n1", ""))
        await w.proxy.start()
        before = [len(s.commands) for s in w.spaces]
        patch = {"metadata": {"annotations": {"a": "b"}}}
        await w.client.patch("endpointslices.discovery.k8s.io", "s-1", patch, "d")
        await w.client.patch("services", "s", {"spec": {"clusterIP": "10.43.0.6"}}, "d")
        await w.until(lambda: w.row(0, ("10.43.0.6", "tcp", 80)))
        assert w.row(0) is None
        assert [len(s.commands) for s in w.spaces] == [n + 1 for n in before]

    run(test)


def test_a_zone_that_becomes_known() -> None:
    async def test(w: World) -> None:
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}
        await w.client.create("nodes", node)
        await w.service()
        await w.slice(("10.42.1.2", "n1", "x"), ("10.42.2.2", "n2", "y"))
        await w.proxy.start()
        assert w.row(0) == w.row(1)
        label = {"metadata": {"labels": {"topology.kubernetes.io/zone": "y"}}}
        await w.client.patch("nodes", "n1", label)
        near = Row("pick-1", places("10.42.2.2"), is_cluster_ip=True)
        await w.until(lambda: w.row(0) == near)
        row = w.row(1)
        assert row is not None and row.verdict == "pick-2"

    run(test)


def test_host_ports_come_and_go_with_the_pod() -> None:
    async def test(w: World) -> None:
        await w.proxy.start()
        ports = [{"containerPort": 80, "hostPort": 8000}]
        pod = {
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "d"},
            "spec": {"nodeName": "n2", "containers": [{"name": "c", "ports": ports}]},
            "status": {"podIP": "10.42.2.9", "phase": "Running"},
        }  # fmt: skip
        await w.client.create("pods", pod, "d")
        vip = ("10.44.0.3", "tcp", 8000)
        await w.until(lambda: w.row(1, vip) == Row("pick-1", (("10.42.2.9", 80),)))
        assert w.nodes[0]._table is not None and w.nodes[0]._table.rows == {}
        await w.client.patch("pods", "p", {"status": {"phase": "Succeeded"}}, "d")
        await w.until(lambda: w.row(1, vip) is None)

    run(test)


def test_a_kernel_that_refuses_is_asked_again() -> None:
    async def test(w: World) -> None:
        await w.proxy.start()
        await w.service()
        await w.until(lambda: w.row(0) and w.row(1))
        w.spaces[0].fail = 2
        await w.slice(("10.42.1.2", "n1", ""))
        await w.until(lambda: (r := w.row(1)) and r.verdict)  # the other node does not wait
        await w.until(lambda: (r := w.row(0)) and r.verdict)
        # Its kernel's state was not known any more: all of it was made anew, in one transaction.
        assert "delete table" in w.spaces[0].commands[-1]
        assert "delete table" not in w.spaces[1].commands[-1]

    run(test)


def test_only_endpoints_that_go_make_udp_forget() -> None:
    async def test(w: World) -> None:
        await w.service(ports=[{"port": 53, "protocol": "UDP"}])
        await w.slice(("10.42.1.2", "n1", ""), protocol="UDP")
        await w.proxy.start()
        assert w.spaces[0].forgotten == []  # nothing can have been sent before there were rules
        await w.slice(("10.42.1.3", "n1", ""), protocol="UDP")
        await w.until(lambda: w.spaces[0].forgotten)
        assert w.spaces[0].forgotten == [{("10.43.0.5", 53): frozenset(places("10.42.1.3"))}]

    run(test)


def test_addresses_from_outside_have_routes_while_somebody_claims_them() -> None:
    async def test(w: World) -> None:
        await w.service(externalIPs=["192.0.2.1"])
        await w.slice(("10.42.1.2", "n1", ""))
        await w.proxy.start()
        assert w.routes == [(["192.0.2.1"], [])] * 2  # of both nodes
        w.routes.clear()
        await w.slice(("10.42.1.3", "n1", ""))  # it is there already
        await w.until(lambda: (r := w.row(0)) and r.endpoints == places("10.42.1.3"))
        assert w.routes == []
        ips = ["192.0.2.2", "192.0.2.3"]
        await w.client.patch("services", "s", {"spec": {"externalIPs": ips}}, "d")
        await w.until(lambda: len(w.routes) == 2)
        assert w.routes == [(ips, ["192.0.2.1"])] * 2
        w.routes.clear()
        await w.client.delete("services", "s", "d")
        await w.until(lambda: len(w.routes) == 2)
        assert w.routes == [([], ips)] * 2

    run(test)


def test_the_host_tells_of_all_nodes_together() -> None:
    async def ask(port: int) -> tuple[str, int]:
        reader, writer = await asyncio.open_connection("127.77.4.1", port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
        writer.close()
        return (head.split(" ", 2)[1], json.loads(body)["localEndpoints"]) if head else ("", 0)

    async def test(w: World) -> None:
        port = 31999
        await w.service(
            type="LoadBalancer", externalTrafficPolicy="Local", healthCheckNodePort=port
        )
        await w.proxy.start()
        assert await ask(port) == ("503", 0)
        await w.slice(("10.42.1.2", "n1", ""), ("10.42.2.2", "n2", ""), ("10.42.2.3", "n2", ""))
        await w.until(lambda: (r := w.row(1)) and r.verdict)
        async with asyncio.timeout(10):
            while await ask(port) != ("200", 3):
                await asyncio.sleep(0.01)
        await w.proxy.remove("n2")
        async with asyncio.timeout(10):
            while await ask(port) != ("200", 1):
                await asyncio.sleep(0.01)
        await w.client.delete("services", "s", "d")
        async with asyncio.timeout(10):
            with pytest.raises(ConnectionRefusedError):
                while True:
                    await ask(port)

    run(test)


def test_a_health_port_that_is_taken_is_told_once() -> None:
    async def test(w: World) -> None:
        with socket.socket() as sock:
            sock.bind(("0.0.0.0", 0))  # where every node, and the host, would listen
            sock.listen()
            port = sock.getsockname()[1]
            await w.service(
                type="LoadBalancer", externalTrafficPolicy="Local", healthCheckNodePort=port
            )
            await w.proxy.start()
            await w.slice(("10.42.1.2", "n1", ""))
            await w.until(lambda: (r := w.row(0)) and r.verdict)
            events = []
            async with asyncio.timeout(5):
                while len(events) < 3:  # one a node, and one of the host
                    events = list((await w.client.list("events", "d")).items)
                    await asyncio.sleep(0.01)
        assert {e.body["reason"] for e in events} == {"FailedToStartServiceHealthcheck"}
        assert all(f"on port {port}" in e.body["message"] for e in events)

    run(test)
