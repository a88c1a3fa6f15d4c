"""Names of others, asked by pods of a server that is not ours: the host's as the default, stub
domains, and what changes. Real sockets; the servers stand in pods."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sampan.network.dns import message as dns
from sampan.network.dns import names
from sampan.network.dns.message import Message, Question, Record
from sampan.testing.site import Site, SitePod, site, udp

pytestmark = pytest.mark.e2e
CONFIG = "kube-dns"


class Names(asyncio.DatagramProtocol):
    """A server that answers every A query with its own address, and notes what it was asked."""

    def __init__(self, address: str) -> None:
        self.data = bytes(map(int, address.split(".")))
        self.asked: list[str] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        query = dns.parse(data)
        (question,) = query.questions
        self.asked.append(names.text(question.name).lower())
        records = (Record(question.name, dns.A, 30, self.data),) if question.type == dns.A else ()
        answer = Message(query.id, dns.RD | dns.QR | dns.RA, questions=query.questions,
                         answers=records)  # fmt: skip
        self.transport.sendto(dns.encode(answer), addr)


async def serve(pod: SitePod) -> Names:
    made = Names(pod.address)
    sock = await pod.space.run(_socket)
    await asyncio.get_running_loop().create_datagram_endpoint(lambda: made, sock=sock)
    return made


def _socket() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("0.0.0.0", 53))
    sock.setblocking(False)
    return sock


async def ask(pod: SitePod, name: str) -> tuple[int, set[str]]:
    """rcode and addresses; (-1, {}) where nobody answers."""
    packet = dns.encode(Message(9, dns.RD, questions=(Question(names.wire(name), dns.A),)))
    data = await udp(pod.space, "10.43.0.10", 53, packet, patience=5.0)
    if not data:
        return -1, set()
    answer = dns.parse(data)
    return answer.rcode, {".".join(map(str, r.data)) for r in answer.answers}


def run(test: Callable[[Site], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(60), site(address="127.88.9.1") as s:
            await test(s)

    asyncio.run(main())


def test_names_of_others() -> None:
    async def test(s: Site) -> None:
        host, corp, other = [await s.pod(n, 1) for n in ("host", "corp", "other")]
        client = await s.pod("client", 2)
        asked = {p.name: await serve(p) for p in (host, corp, other)}
        # No way out and nobody named: refused at once.
        assert await ask(client, "www.example.com") == (dns.REFUSED, set())
        # With a way out the host's own servers are asked (its loopback means nothing to a node).
        await s.stop_network()
        text = f"search lan\nnameserver 127.0.0.53\nnameserver {host.address}\n"
        await s.start_network(text)
        assert await ask(client, "www.example.com") == (dns.NOERROR, {host.address})
        assert asked["host"].asked == ["www.example.com."]
        assert await ask(client, "www.example.com") == (dns.NOERROR, {host.address})
        assert len(asked["host"].asked) == 1  # kept
        # The cluster's own names never leave, nor do those of its addresses.
        assert (await ask(client, "absent.default.svc.cluster.local"))[0] == dns.NXDOMAIN
        assert (await ask(client, "9.9.42.10.in-addr.arpa"))[0] == dns.NXDOMAIN
        assert len(asked["host"].asked) == 1
        # A stub domain, and everything below it.
        data = {"stubDomains": json.dumps({"corp.example": [corp.address]})}
        body = {"metadata": {"name": CONFIG}, "data": data}
        await s.client.create("configmaps", body, "kube-system")

        async def from_corp() -> bool:
            return await ask(client, "a.b.corp.example") == (dns.NOERROR, {corp.address})

        await s.until(from_corp)
        assert await ask(client, "corp.example") == (dns.NOERROR, {corp.address})
        assert await ask(client, "xcorp.example") == (dns.NOERROR, {host.address})
        # Named servers take the place of the host's.
        data |= {"upstreamNameservers": json.dumps([f"{other.address}:53"])}
        await s.client.patch("configmaps", CONFIG, {"data": data}, "kube-system")

        async def from_other() -> bool:
            return await ask(client, "www.example.com") == (dns.NOERROR, {other.address})

        await s.until(from_other)
        assert await ask(client, "x.corp.example") == (dns.NOERROR, {corp.address})
        # One that is not there: asked once, then the next; nothing named any more: the host's.
        data["upstreamNameservers"] = json.dumps(["10.42.1.250", other.address])
        await s.client.patch("configmaps", CONFIG, {"data": data}, "kube-system")
        await s.until(lambda: _is(ask(client, "late.example.com"), (dns.NOERROR, {other.address})))
        await s.client.delete("configmaps", CONFIG, "kube-system")
        await s.until(lambda: _is(ask(client, "x.corp.example"), (dns.NOERROR, {host.address})))

    run(test)


async def _is(work: Awaitable[Any], wanted: Any) -> bool:
    return bool(await work == wanted)
