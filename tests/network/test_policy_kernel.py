"""Policies in a real kernel: a matrix of pods and policies, tried with real connections."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from sampan.api.obj import Body
from sampan.api.rules import policies as api
from sampan.lib.addressing import IPV6
from sampan.network.policy import rules
from sampan.network.policy.enforcer import NodePolicies
from sampan.network.policy.judge import Flow, allows
from sampan.network.policy.model import NamedPort, View, policy
from sampan.network.policy.model import Pod as Told
from sampan.network.policy.rules import Facts
from sampan.testing.e2e import host_state

from .test_kernel import Pod, World, _udp_socket, every, world

pytestmark = pytest.mark.e2e
NAMESPACES = {"a": {"team": "x"}, "b": {"team": "y"}}
PATIENCE = 0.5  # seconds until a connection counts as refused; allowed ones take milliseconds
SLOW = 5.0  # seconds for those that may and were too slow on a busy machine
_ports = itertools.count(20_000)  # no flow may look like one of an earlier round


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left() -> Iterator[None]:
    before = host_state()
    yield
    after = host_state()
    assert {
        k: after[k] - before[k] for k in ("links", "nft", "netns") if after[k] - before[k]
    } == {}


def _np(namespace: str, selector: Body | None = None, **spec: Any) -> Body:
    chosen = {"matchLabels": selector} if selector else {}
    body = {"metadata": {"namespace": namespace, "name": "x"},
            "spec": {"podSelector": chosen, **spec}}  # fmt: skip
    api.default(body)
    assert api.validate(body) == []
    return body


def _labels(**labels: str) -> Body:
    return {"matchLabels": labels}


DENY_IN = _np("a")
DENY_OUT = _np("a", policyTypes=["Egress"])
WEB = {"app": "web"}
SETS: dict[str, list[Body]] = {
    "nothing": [],
    "deny in": [DENY_IN],
    "deny out": [DENY_OUT],
    "deny both, everywhere": [_np(n, policyTypes=["Ingress", "Egress"]) for n in NAMESPACES],
    "allow all over deny": [DENY_IN, _np("a", ingress=[{}])],
    "own namespace": [_np("a", ingress=[{"from": [{"podSelector": {}}]}])],
    "another namespace": [_np("a", ingress=[
        {"from": [{"namespaceSelector": _labels(team="y")}]}])],
    "both selectors": [_np("a", ingress=[
        {"from": [{"namespaceSelector": {}, "podSelector": _labels(app="client")}]}])],
    "either selector": [_np("a", WEB, ingress=[
        {"from": [{"namespaceSelector": _labels(team="y")}, {"podSelector": _labels(**WEB)}]}])],
    "a port": [_np("a", ingress=[{"ports": [{"port": 8080}]}])],
    "another port": [_np("a", ingress=[{"ports": [{"port": 8081}]}])],
    "ports of UDP": [_np("a", ingress=[{"ports": [{"protocol": "UDP"}]}])],
    "a range": [_np("a", ingress=[{"ports": [{"port": 8000, "endPort": 8100}]}])],
    "a named port": [_np("a", ingress=[{"ports": [{"port": "web"}]}])],
    "a named port of others": [_np("a", egress=[{"ports": [{"port": "web"}]}],
                                   policyTypes=["Egress"])],
    "out to a namespace": [_np("a", egress=[{"to": [{"namespaceSelector": _labels(team="y")}]}],
                               policyTypes=["Egress"])],
    "a block": [_np("a", ingress=[{"from": [{"ipBlock": {"cidr": "10.42.1.0/24"}}]}])],
    "all but a block": [_np("a", ingress=[{"from": [
        {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.42.2.0/24", "10.42.1.0/29"]}}]}])],
    "out to a block": [_np("b", egress=[
        {"to": [{"ipBlock": {"cidr": "10.42.1.0/24"}}], "ports": [{"protocol": "UDP"}]}])],
    "in meets out": [_np("a", ingress=[{"from": [{"namespaceSelector": {}}]}]),
                     _np("b", egress=[{"to": [{"podSelector": {}}]}], policyTypes=["Egress"])],
    "SCTP": [_np("a", ingress=[{"ports": [{"protocol": "SCTP", "port": 8080}]}])],
}  # fmt: skip


_IN_V6 = {
    "10.42.1.0/24": "fd00:42:0:1::/64", "10.42.2.0/24": "fd00:42:0:2::/64",
    "10.42.1.0/29": "fd00:42:0:1::/125", "0.0.0.0/0": "::/0",
}  # fmt: skip


def _in(bodies: list[Body], family: str) -> list[Body]:
    """The same policies for a cluster of that family."""
    text = json.dumps(bodies)
    for network, other in _IN_V6.items() if family == IPV6 else ():
        text = text.replace(f'"{network}"', f'"{other}"')
    found: list[Body] = json.loads(text)
    return found


async def _reaches_tcp(source: Pod, ip: str, patience: float = PATIENCE) -> bool:
    try:
        reader, writer = await source.space.connect(ip, 8080, patience)
        async with asyncio.timeout(patience):
            answer = await reader.read()
        writer.close()
    except (OSError, TimeoutError):
        return False
    return answer == ip.encode()


async def _reaches_udp(source: Pod, ip: str, patience: float = PATIENCE) -> bool:
    sock: socket.socket = await source.space.run(_udp_socket, (every(ip), next(_ports)))
    try:
        async with asyncio.timeout(patience):
            loop = asyncio.get_running_loop()
            await loop.sock_sendto(sock, b"?", (ip, 8080))
            return bool(await loop.sock_recv(sock, 100) == ip.encode())
    except (OSError, TimeoutError):
        return False
    finally:
        sock.close()


async def _matrix(pods: list[Pod], told: View) -> dict[Flow, tuple[bool, bool]]:
    """(what happened, what should) of every pair and both protocols, tried all at once."""
    flows = [
        (Flow(s.address, d.address, protocol, 8080), s)
        for s in pods for d in pods for protocol in ("tcp", "udp")
    ]  # fmt: skip
    tries = {"tcp": _reaches_tcp, "udp": _reaches_udp}
    found = await asyncio.gather(*(tries[f.protocol](s, f.destination) for f, s in flows))
    result = {}
    for (flow, source), did in zip(flows, found, strict=True):
        may = allows(told, flow)
        if may and not did:
            did = await tries[flow.protocol](source, flow.destination, SLOW)
        result[flow] = (did, may)
    return result


async def _cluster(w: World) -> tuple[list[Pod], list[NodePolicies], list[Told]]:
    shapes = [  # node, number, namespace, labels
        (0, 2, "a", WEB), (0, 9, "a", {"app": "client"}), (1, 3, "a", {}),
        (1, 4, "b", {"app": "client"}), (0, 5, "b", WEB),
    ]  # fmt: skip
    pods = [await w.pod(node, number) for node, number, _n, _l in shapes]
    told = [
        Told(ns, p.address, labels, (p.address,), f"n{node + 1}",
             (NamedPort("web", "tcp", 8080),) if labels == WEB else ())
        for p, (node, _number, ns, labels) in zip(pods, shapes, strict=True)
    ]  # fmt: skip
    nodes = [
        NodePolicies(s, Facts(s.name, (w.node(s.index - 1), w.addresses.gateway))) for s in w.spaces
    ]
    return pods, nodes, told


def _view(bodies: list[Body], told: list[Told]) -> View:
    return View(tuple(policy(b) for b in bodies), tuple(told), NAMESPACES)


def test_the_matrix(family: str) -> None:
    """Every set of policies over every pair of pods on two nodes, the sets in random order so that
    each is reached from another one."""

    async def main() -> None:
        async with world(2, family) as w:
            pods, nodes, told = await _cluster(w)
            try:
                names = [*SETS]
                random.Random(7).shuffle(names)
                for name in names:
                    view = _view(_in(SETS[name], family), told)
                    await asyncio.gather(*(n.sync(view) for n in nodes))
                    found = await _matrix(pods, view)
                    wrong = {f: r for f, r in found.items() if r[0] != r[1]}
                    assert not wrong, (name, wrong)
            finally:
                for node in nodes:
                    node.close()

    asyncio.run(main())


def test_what_is_connected_stays_and_the_node_always_may(family: str) -> None:
    async def main() -> None:
        async with world(2, family) as w:
            pods, nodes, told = await _cluster(w)
            server = pods[0]
            await asyncio.gather(*(n.sync(View()) for n in nodes))
            # Who talks already: a UDP flow from another node.
            client = pods[3]
            sock = await client.udp_socket()
            assert await client.udp(sock, server.address, 8080) == server.address
            view = _view([DENY_IN, DENY_OUT], told)
            await asyncio.gather(*(n.sync(view) for n in nodes))
            assert await client.udp(sock, server.address, 8080) == server.address
            assert not await _reaches_udp(client, server.address)
            # Probes come from the pod's own node.
            reader, writer = await w.spaces[0].connect(server.address, 8080, 5)
            assert await reader.read() == server.address.encode()
            writer.close()
            # And a pod reaches its own node, of which the policies say nothing.
            listener = await w.spaces[0].listen(w.node(0), 9999)
            _, writer = await server.space.connect(w.node(0), 9999, 5)
            writer.close()
            # So does one that was isolated before it was there: it finds its neighbour, which in
            # IPv6 takes packets to the node that no rule of a policy lets pass.
            born = Told("a", "born", WEB, (w.at("10.42.1.7"),), "n1")
            view = _view([DENY_IN, DENY_OUT], [*told, born])
            await asyncio.gather(*(n.sync(view) for n in nodes))
            young = await w.pod(0, 7)
            _, writer = await young.space.connect(w.node(0), 9999, 5)
            writer.close()
            assert not await _reaches_tcp(young, client.address)
            listener.close()
            sock.close()
            for node in nodes:
                node.close()

    asyncio.run(main())


def test_the_next_process_takes_over_without_a_gap(family: str) -> None:
    """A sender never stops; not one datagram comes through while another process' rules take the
    place of the first's."""

    async def main() -> None:
        async with world(1, family) as w:
            a, b = await w.pod(0, 2), await w.pod(0, 3, serves=False)
            told = [Told("a", p.address, {}, (p.address,), "n1") for p in (a, b)]
            facts = Facts("n1", (w.node(0),))
            first = NodePolicies(w.spaces[0], facts)
            await first.sync(_view([DENY_IN], told))
            first.close()
            sock = await b.udp_socket()
            stop = asyncio.Event()

            async def send() -> None:
                while not stop.is_set():
                    await asyncio.get_running_loop().sock_sendto(sock, b"?", (a.address, 8080))
                    await asyncio.sleep(0)

            sender = asyncio.create_task(send())
            for _ in range(10):
                node = NodePolicies(w.spaces[0], facts)
                await node.sync(_view([DENY_IN], told))
                node.close()
            stop.set()
            await sender
            assert a.seen == []
            assert "policy accept" in await w.nft(0, f"list table inet {rules.TABLE}")
            last = NodePolicies(w.spaces[0], facts)
            await last.sync(_view([], told))
            assert await _reaches_udp(b, a.address)
            last.close()
            sock.close()

    asyncio.run(main())


def test_a_large_state_is_taken_and_one_pod_more_is_quick() -> None:
    """100 policies, 2,000 pods of the cluster, 100 of them here."""

    async def main() -> None:
        async with world(1) as w:
            told = [
                Told(f"n{i % 20}", f"p{i}", {"app": f"a{i % 50}"},
                     (f"10.42.{1 + i // 200}.{2 + i % 200}",), "n1" if i < 100 else "n2")
                for i in range(2000)
            ]  # fmt: skip
            bodies = [
                _np(f"n{i % 20}", {"app": f"a{i % 50}"}, ingress=[
                    {"from": [{"namespaceSelector": {}, "podSelector": _labels(app=f"a{j}")}
                              for j in range(5)], "ports": [{"port": 80 + i}]}])
                for i in range(100)
            ]  # fmt: skip
            policies = tuple(policy(b) for b in bodies)
            loop = asyncio.get_running_loop()
            node = NodePolicies(w.spaces[0], Facts("n1", (w.node(0),)))
            namespaces = {f"n{i}": {} for i in range(20)}
            began = loop.time()
            await node.sync(View(policies, tuple(told), namespaces))
            first = loop.time() - began
            more = Told("n0", "new", {"app": "a0"}, ("10.42.99.2",), "n2")
            began = loop.time()
            await node.sync(View(policies, (*told, more), namespaces))
            print(f"{first:.3f} s, one more {loop.time() - began:.4f} s")
            assert "10.42.99.2" in await w.nft(0, f"list table inet {rules.TABLE}")
            node.close()

    asyncio.run(main())
