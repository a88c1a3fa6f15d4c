"""Bytes in, bytes out: flags, limits, what is kept and for how long, and a flood of nonsense."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest

from sampan.network.dns import message as dns
from sampan.network.dns import names
from sampan.network.dns.config import Config
from sampan.network.dns.message import Edns, Message, Question, Record
from sampan.network.dns.responder import Forward, Responder
from sampan.testing.names import endpoint, endpoint_slice, external, port, service

from .test_zone import make

UP = Config(upstreams=(("192.0.2.1", 53),))
WEB = "web.default.svc.cluster.local"


def query(
    name: str, kind: int = dns.A, *, flags: int = dns.RD, klass: int = 1, **more: Any
) -> bytes:
    return dns.encode(
        Message(9, flags, questions=(Question(names.wire(name), kind, klass),), **more)
    )


def read(answer: object) -> Message:
    assert isinstance(answer, bytes)
    return dns.parse(answer)


def responder(*objects: Any, config: Config | None = None) -> Responder:
    services = tuple(o for o in objects if o.key.resource == "services")
    slices = tuple(o for o in objects if o.key.resource != "services")
    return Responder(make(services, slices), config)


def big(n: int) -> Responder:
    return responder(
        service("web", "None", port(80, "http")),
        endpoint_slice("web", *(endpoint(f"10.42.1.{i}") for i in range(n)),
                       ports=(port(80, "http"),)),
    )  # fmt: skip


def test_an_answer() -> None:
    r = responder(service("web", "10.43.0.5"))
    answer = read(r.respond(query(WEB.upper()), udp=True))
    assert (answer.id, answer.rcode) == (9, 0)
    assert answer.flags == dns.QR | dns.AA | dns.RD
    assert answer.questions == (Question(names.wire(WEB.upper()), 1),)
    assert answer.answers == (Record(names.wire(WEB.upper()), 1, 5, bytes((10, 43, 0, 5))),)
    assert answer.edns is None


def test_recursion_is_available_where_it_is() -> None:
    r = responder(service("web", "10.43.0.5"), config=UP)
    assert read(r.respond(query(WEB), udp=True)).flags & dns.RA


@pytest.mark.parametrize("udp", [True, False])
def test_the_same_bytes_again_get_the_same_answer_under_their_own_id(udp: bool) -> None:
    r = responder(service("web", "10.43.0.5"))
    first = r.respond(query(WEB), udp=udp)
    again = r.respond(b"\xab\xcd" + query(WEB)[2:], udp=udp)
    assert isinstance(first, bytes) and isinstance(again, bytes)
    assert again == b"\xab\xcd" + first[2:]


def test_what_is_kept_goes_with_its_tag_and_only_with_it() -> None:
    r = responder(service("web", "10.43.0.5"), service("other", "10.43.0.6"))
    absent = "new.default.svc.cluster.local"
    ptr = "7.0.43.10.in-addr.arpa"
    for name, kind in ((WEB, 1), (absent, 1), (ptr, 12), ("other.default.svc.cluster.local", 1)):
        r.respond(query(name, kind), udp=True)
    assert read(r.respond(query(absent), udp=True)).rcode == dns.NXDOMAIN
    r.forget(r.zone.service(None, service("new", "10.43.0.7")))
    assert len(r._kept[True]) == 2
    assert read(r.respond(query(absent), udp=True)).answers[0].data == bytes((10, 43, 0, 7))
    assert names.text(read(r.respond(query(ptr, 12), udp=True)).answers[0].data) == absent + "."
    r.forget(r.zone.service(service("web", "10.43.0.5"), None))
    assert read(r.respond(query(WEB), udp=True)).rcode == dns.NXDOMAIN


def test_an_alias_is_not_kept_longer_than_what_it_leads_to() -> None:
    r = responder(external("away", WEB), service("web", "10.43.0.5"))
    away = "away.default.svc.cluster.local"
    answer = read(r.respond(query(away), udp=True))
    assert [x.type for x in answer.answers] == [dns.CNAME, dns.A]
    r.forget(r.zone.service(service("web", "10.43.0.5"), service("web", "10.43.0.6")))
    assert read(r.respond(query(away), udp=True)).answers[1].data == bytes((10, 43, 0, 6))
    r.forget(r.zone.service(service("web", "10.43.0.6"), None))
    gone = read(r.respond(query(away), udp=True))
    assert (gone.rcode, [x.type for x in gone.answers]) == (dns.NXDOMAIN, [dns.CNAME])


def test_a_ring_of_aliases_ends() -> None:
    r = responder(external("a", "b.default.svc.cluster.local"),
                  external("b", "a.default.svc.cluster.local"))  # fmt: skip
    answer = read(r.respond(query("a.default.svc.cluster.local"), udp=True))
    assert {x.type for x in answer.answers} == {dns.CNAME}


def test_headless_sets_turn() -> None:
    r = big(5)
    firsts = [read(r.respond(query(WEB), udp=True)).answers[0].data[3] for _ in range(15)]
    assert sorted(set(firsts)) == [0, 1, 2, 3, 4]
    assert all(firsts.count(i) >= 2 for i in range(5))


def test_what_does_not_fit_is_cut_with_a_word() -> None:
    r = big(200)
    small = r.respond(query(WEB), udp=True)
    assert isinstance(small, bytes) and len(small) <= 512
    assert read(small).flags & dns.TC and 25 < len(read(small).answers) < 200
    larger = r.respond(query(WEB, edns=Edns(4096)), udp=True)
    assert isinstance(larger, bytes) and 1200 < len(larger) <= dns.UDP_SIZE
    assert read(larger).edns == Edns(dns.UDP_SIZE)
    whole = read(r.respond(query(WEB), udp=False))
    assert len(whole.answers) == 200 and not whole.flags & dns.TC


def test_a_tiny_edns_size_means_512() -> None:
    answer = big(40).respond(query(WEB, edns=Edns(100)), udp=True)
    assert isinstance(answer, bytes) and 400 < len(answer) <= 512


@pytest.mark.parametrize(
    ("packet", "rcode"),
    [
        (query(WEB, edns=Edns(1232, version=1)), dns.BADVERS),
        (query(WEB, flags=0x2000), dns.NOTIMP),
        (query(WEB, klass=3), dns.REFUSED),
        (query("cluster.local", dns.AXFR), dns.REFUSED),
        (query("www.example.com"), dns.REFUSED),
        (query(WEB)[:-1], dns.FORMERR),
        (query(WEB) + b"x", dns.FORMERR),
        (query(WEB, answers=(Record(b"\0", 1, 1, b"abcd"),)), dns.FORMERR),
        (dns.encode(Message(9)), dns.FORMERR),
        (query(WEB, 0), dns.FORMERR),
    ],
)  # fmt: skip
def test_what_is_refused(packet: bytes, rcode: int) -> None:
    answer = read(responder(service("web", "10.43.0.5")).respond(packet, udp=True))
    assert (answer.id, answer.rcode, answer.answers) == (9, rcode, ())
    assert answer.flags & dns.QR


@pytest.mark.parametrize("packet", [b"", b"x" * 11, query(WEB, flags=dns.QR)])
def test_what_gets_no_answer(packet: bytes) -> None:
    assert responder().respond(packet, udp=True) is None


def test_names_of_others_are_handed_on() -> None:
    r = responder(external("away", "www.Example.com"), config=UP)
    ask = r.respond(query("www.example.com"), udp=True)
    assert isinstance(ask, Forward) and ask.name == names.wire("www.example.com")
    out = r.respond(query("away.default.svc.cluster.local"), udp=True)
    assert isinstance(out, Forward) and out.name == names.wire("www.Example.com")
    a = Record(out.name, 1, 30, b"abcd")
    done = read(r.finish(out, Message(0, answers=(a,))))
    assert [x.type for x in done.answers] == [dns.CNAME, dns.A] and done.id == 9
    assert read(r.finish(ask, None)).rcode == dns.SERVFAIL
    assert [x.type for x in read(r.finish(out, None)).answers] == [dns.CNAME]
    # Who does not want recursion gets none.
    assert read(r.respond(query("www.example.com", flags=0), udp=True)).rcode == dns.REFUSED
    alias = read(r.respond(query("away.default.svc.cluster.local", dns.CNAME), udp=True))
    assert [x.type for x in alias.answers] == [dns.CNAME]


def test_an_alias_out_of_the_cluster_without_anyone_to_ask() -> None:
    r = responder(external("away", "www.example.com"))
    answer = read(r.respond(query("away.default.svc.cluster.local"), udp=True))
    assert (answer.rcode, [x.type for x in answer.answers]) == (0, [dns.CNAME])


def test_memory_is_bounded() -> None:
    r = responder()
    for i in range(20_000):
        r.respond(query(f"x{i}.default.svc.cluster.local"), udp=True)
    assert len(r._kept[True]) <= 8192 and len(r._by_tag) <= 8192


def test_memory_is_bounded_for_a_name_that_comes_and_goes() -> None:
    r = responder()
    for i in range(3000):
        r.respond(query(WEB), udp=True)
        r.forget(r.zone.service(None, service("web", f"10.43.1.{i % 250}")))
    assert len(r._by_tag) <= 1 and len(r._kept[True]) <= 1


# -- nonsense -------------------------------------------------------------------------------------

_SEEDS = (
    query(WEB), query(WEB, edns=Edns(1232)), query("a.b.c.d.e", dns.SRV),
    query("5.0.43.10.in-addr.arpa", dns.PTR,
          edns=Edns(4096, flags=dns.DO, options=b"\0\n\0\x08" + b"c" * 8)),
    query(WEB, answers=(Record(names.wire(WEB), dns.CNAME, 5, names.wire("x.y")),),
          authorities=(Record(b"\0", dns.SOA, 5, dns.soa(b"\1a\0", b"\1b\0", 1, minimum=2)),)),
)  # fmt: skip


def mutate(rng: random.Random) -> bytes:
    data = bytearray(rng.choice(_SEEDS))
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(data)) if data else 0
        act = rng.randrange(7)
        if act == 0:
            data[at : at + 1] = bytes((rng.getrandbits(8),))
        elif act == 1:
            del data[at : at + rng.randint(1, 12)]
        elif act == 2:
            data[at:at] = rng.randbytes(rng.randint(1, 12))
        elif act == 3:
            data[at : at + 2] = (0xC000 | rng.randrange(max(1, len(data)))).to_bytes(2, "big")
        elif act == 4 and len(data) > 12:
            data[4 + 2 * rng.randrange(4) + rng.randrange(2)] = rng.choice((0, 1, 2, 255))
        elif act == 5:
            data += rng.choice(_SEEDS)
        else:
            data[at : at + 1] = rng.choice((b"\x3f", b"\x40", b"\x80", b"\xc0", b"\xff", b"\0"))
    return bytes(data[:4096])


def _flood(packets: int, seed: int) -> None:
    """None crashes it, none takes long, every answer is a readable answer to its query."""
    rng = random.Random(seed)
    r = responder(service("web", "10.43.0.5"), external("away", "x.test"), config=UP)
    for i in range(packets):
        packet = mutate(rng) if i % 8 else rng.randbytes(rng.randrange(80))
        began = time.process_time()
        answer = r.respond(packet, udp=bool(i & 1))
        assert time.process_time() - began < 0.5
        if isinstance(answer, bytes):
            assert answer[:2] == packet[:2] and answer[2] & 0x80
            assert len(answer) <= 65535
            if not i % 16:
                dns.parse(answer)


def test_nonsense() -> None:
    _flood(20_000, 1)


@pytest.mark.deep
def test_a_million_packets_of_nonsense() -> None:
    for seed in range(20):
        _flood(50_000, 100 + seed)


def test_the_worst_packet_is_still_cheap() -> None:
    """As many records as fit, each a name that has to be followed as far as names go."""
    name = b"\x01a" * 126 + b"\0"
    body = name + b"\0\1\0\1"
    record = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4abcd"
    count = (4096 - 12 - len(body)) // len(record)
    packet = b"\0\1\0\0\0\1\0\0\0\0" + count.to_bytes(2, "big") + body + record * count
    began = time.process_time()
    assert read(responder().respond(packet, udp=True)).rcode == dns.REFUSED
    assert time.process_time() - began < 0.1
