"""Asking others: against upstream servers on the loopback that answer, lie or are silent."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sampan.network.dns import message as dns
from sampan.network.dns import names
from sampan.network.dns.config import Config, Server
from sampan.network.dns.forwarder import Forwarder
from sampan.network.dns.message import Message, Question, Record

N = names.wire("www.example.com")
SOA = Record(names.wire("example.com"), dns.SOA, 900,
             dns.soa(names.wire("ns.example"), names.wire("h.example"), 1, minimum=60))  # fmt: skip


def a(name: bytes = N, ttl: int = 100, last: int = 1) -> Record:
    return Record(name, dns.A, ttl, bytes((192, 0, 2, last)))


def answer(query: Message, *answers: Record, flags: int = 0, **more: Any) -> Message:
    fields = {"questions": query.questions, "rcode": 0, **more}
    return Message(query.id, dns.QR | flags, answers=answers, **fields)


def free_port() -> int:
    """Free for UDP and TCP."""
    while True:
        with socket.socket(type=socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
            tcp.bind(("127.0.0.1", 0))
            port: int = tcp.getsockname()[1]
            try:
                udp.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Upstream(asyncio.DatagramProtocol):
    """script: a query and the transport's name -> messages or bytes to send, in order."""

    def __init__(self, script: Callable[[Message, str], list[Message | bytes]]) -> None:
        self.script = script
        self.queries: list[Message] = []
        self.ports: set[int] = set()

    async def start(self) -> Server:
        port = free_port()
        loop = asyncio.get_running_loop()
        self.udp, _ = await loop.create_datagram_endpoint(lambda: self, ("127.0.0.1", port))
        self.tcp = await asyncio.start_server(self._stream, "127.0.0.1", port)
        return ("127.0.0.1", port)

    def stop(self) -> None:
        self.udp.close()
        self.tcp.close()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.ports.add(addr[1])
        for packet in self._packets(data, "udp"):
            self.udp.sendto(packet, addr)

    def _packets(self, data: bytes, how: str) -> list[bytes]:
        query = dns.parse(data)
        self.queries.append(query)
        said = self.script(query, how)
        return [p if isinstance(p, bytes) else dns.encode(p) for p in said]

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            size = int.from_bytes(await reader.readexactly(2), "big")
            for packet in self._packets(await reader.readexactly(size), "tcp"):
                writer.write(len(packet).to_bytes(2, "big") + packet)
            await writer.drain()
        finally:
            writer.close()


class Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def _open(family: int, kind: int) -> socket.socket:
    sock = socket.socket(family, kind)
    sock.setblocking(False)
    return sock


def run(
    *scripts: Callable[[Message, str], list[Message | bytes]],
    then: Callable[[Forwarder, Time, list[Upstream]], Awaitable[Any]],
) -> Any:
    async def main() -> Any:
        upstreams = [Upstream(s) for s in scripts]
        servers = tuple([await u.start() for u in upstreams])
        clock = Time()
        forwarder = Forwarder(_open, now=clock, rng=random.Random(1))
        forwarder.configure(Config(servers))
        try:
            return await then(forwarder, clock, upstreams)
        finally:
            await forwarder.stop()
            for u in upstreams:
                u.stop()

    return asyncio.run(main())


async def ask(f: Forwarder, _t: Time, _u: list[Upstream]) -> Message | None:
    return await f.resolve(N, dns.A)


def plain(query: Message, _how: str) -> list[Message | bytes]:
    return [answer(query, a(query.questions[0].name))]


def test_an_answer_is_kept_and_ages() -> None:
    async def then(f: Forwarder, clock: Time, up: list[Upstream]) -> None:
        first = await f.resolve(N, dns.A)
        assert first is not None and first.answers == (a(),)
        clock.now += 40
        upper = names.wire("WWW.example.COM")
        again = await f.resolve(upper, dns.A)
        assert again is not None and again.answers == (a(upper, 60),)
        assert len(up[0].queries) == 1
        clock.now += 61
        await f.resolve(N, dns.A)
        assert len(up[0].queries) == 2

    run(plain, then=then)


def test_ids_ports_and_letters_are_random() -> None:
    async def then(f: Forwarder, clock: Time, up: list[Upstream]) -> None:
        for i in range(20):
            await f.resolve(names.wire(f"aaaaaaaaaaaaaaaa{i}.example.com"), dns.A)
        queries = up[0].queries
        assert len({q.id for q in queries}) == 20 and len(up[0].ports) > 10
        assert len({q.questions[0].name[:17] for q in queries}) == 20
        assert all(q.flags == dns.RD and q.edns is not None for q in queries)

    run(plain, then=then)


def test_one_question_for_all_who_ask_at_once() -> None:
    async def then(f: Forwarder, clock: Time, up: list[Upstream]) -> None:
        found = await asyncio.gather(*(f.resolve(N, dns.A) for _ in range(50)))
        assert all(m is not None and m.answers == (a(),) for m in found)
        assert len(up[0].queries) == 1 and not f._flying

    run(plain, then=then)


@pytest.mark.parametrize(
    "lie",
    [
        lambda q: answer(q, a(last=66), id_=1),
        lambda q: answer(q, a(last=66), questions=(Question(names.wire("other.test"), 1),)),
        lambda q: answer(q, a(last=66), questions=(q.questions[0]._replace(type=dns.AAAA),)),
        lambda q: answer(q, a(last=66), questions=()),
        lambda q: Message(q.id, 0, questions=q.questions, answers=(a(last=66),)),
        lambda q: b"\xff" * 30,
        lambda q: b"",
    ],
)  # fmt: skip
def test_what_is_no_answer_is_passed_over(lie: Callable[[Message], Message | bytes]) -> None:
    def script(q: Message, _how: str) -> list[Message | bytes]:
        try:
            false = lie(q)
        except TypeError:  # the one with another id
            false = Message(q.id ^ 1, dns.QR, questions=q.questions, answers=(a(last=66),))
        return [false, answer(q, a(q.questions[0].name))]

    found = run(script, then=ask)
    assert found.answers == (a(),)


def test_an_answer_in_another_case_is_asked_again_by_tcp() -> None:
    def script(q: Message, how: str) -> list[Message | bytes]:
        folded = (q.questions[0]._replace(name=N),)
        return [answer(q, a(last=66 if how == "udp" else 1), questions=folded)]

    assert run(script, then=ask).answers == (a(),)


def test_a_truncated_answer_is_asked_again_by_tcp() -> None:
    def script(q: Message, how: str) -> list[Message | bytes]:
        if how == "udp":
            return [answer(q, flags=dns.TC)]
        return [answer(q, *(a(q.questions[0].name, last=i) for i in range(200)))]

    assert len(run(script, then=ask).answers) == 200


def test_a_server_without_edns_is_asked_without() -> None:
    def script(q: Message, how: str) -> list[Message | bytes]:
        if q.edns is not None:
            return [Message(q.id, dns.QR, dns.FORMERR)]
        return plain(q, how)

    assert run(script, then=ask).answers == (a(),)


def test_the_next_server_is_asked_where_one_is_silent_or_fails() -> None:
    def broken(q: Message, how: str) -> list[Message | bytes]:
        return [answer(q, rcode=dns.SERVFAIL)]

    async def then(f: Forwarder, clock: Time, up: list[Upstream]) -> None:
        found = await f.resolve(N, dns.A)
        assert found is not None and found.answers == (a(),)
        assert [len(u.queries) for u in up] == [1, 1, 1]
        # Who was silent is asked last for a while.
        await f.resolve(names.wire("b.example.com"), dns.A)
        assert [len(u.queries) for u in up] == [1, 2, 2]

    run(lambda q, how: [], broken, plain, then=then)


def test_nobody_answers() -> None:
    async def then(f: Forwarder, clock: Time, up: list[Upstream]) -> None:
        up[0].stop()  # its port is closed: known at once
        assert await f.resolve(N, dns.A) is None

    run(plain, then=then)


def test_a_failure_is_kept_a_moment() -> None:
    async def then(f: Forwarder, clock: Time, up: list[Upstream]) -> None:
        for _ in range(3):
            found = await f.resolve(N, dns.A)
            assert found is not None and found.rcode == dns.SERVFAIL
        assert len(up[0].queries) == 1
        clock.now += 1.1
        await f.resolve(N, dns.A)
        assert len(up[0].queries) == 2

    run(lambda q, how: [answer(q, rcode=dns.REFUSED)], then=then)


@pytest.mark.parametrize("rcode", [dns.NXDOMAIN, dns.NOERROR])
def test_negative_answers_are_kept_as_long_as_the_soa_says(rcode: int) -> None:
    async def then(f: Forwarder, clock: Time, up: list[Upstream]) -> None:
        found = await f.resolve(N, dns.A)
        assert found is not None and found.rcode == rcode
        assert [r.type for r in found.authorities] == [dns.SOA]
        clock.now += 59
        await f.resolve(N, dns.A)
        assert len(up[0].queries) == 1
        clock.now += 2
        await f.resolve(N, dns.A)
        assert len(up[0].queries) == 2

    run(lambda q, how: [answer(q, rcode=rcode, authorities=(SOA,))], then=then)


def test_only_what_was_asked_for_comes_through() -> None:
    """Aliases are followed; what has nothing to do with the question is left out."""
    x, y = names.wire("x.example.net"), names.wire("Y.example.net")

    def script(q: Message, how: str) -> list[Message | bytes]:
        n = q.questions[0].name
        bank = Record(names.wire("bank.example"), dns.A, 1, b"evil")
        return [answer(q, bank, Record(x, dns.CNAME, 50, y), a(names.wire("y.example.net"), 20),
                       Record(n, dns.CNAME, 30, x),
                       authorities=(Record(names.wire("net"), dns.NS, 1, b"\1e\0"),),
                       additionals=(bank,))]  # fmt: skip

    found = run(script, then=ask)
    assert [(r.type, names.text(r.name)) for r in found.answers] == [
        (dns.CNAME, "www.example.com."), (dns.CNAME, "x.example.net."), (dns.A, "y.example.net."),
    ]  # fmt: skip
    assert (found.authorities, found.additionals) == ((), ())


def test_a_ring_of_aliases_and_a_foreign_soa() -> None:
    def script(q: Message, how: str) -> list[Message | bytes]:
        n = q.questions[0].name
        soa = SOA._replace(name=names.wire("other.test"))
        return [answer(q, Record(n, dns.CNAME, 30, n), authorities=(soa,))]

    found = run(script, then=ask)
    assert (len(found.answers), found.authorities) == (0, ())


def test_memory_is_bounded() -> None:
    async def then(f: Forwarder, clock: Time, up: list[Upstream]) -> int:
        for i in range(5000):
            f._keep((names.wire(f"x{i}"), 1), Message(0, answers=(a(),)))
        return len(f._kept)

    assert run(plain, then=then) == 4096


def test_too_much_at_once_is_refused_at_once() -> None:
    async def then(f: Forwarder, clock: Time, up: list[Upstream]) -> None:
        tasks = [asyncio.create_task(f.resolve(names.wire(f"x{i}"), 1)) for i in range(600)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        refused = sum(t.done() for t in tasks)
        assert refused == 600 - 512
        await f.stop()
        await asyncio.gather(*tasks, return_exceptions=True)

    run(lambda q, how: [], then=then)
