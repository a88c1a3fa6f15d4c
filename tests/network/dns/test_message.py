"""The codec: what it writes it reads, and what it cannot read it refuses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.network.dns import message as dns
from sampan.network.dns import names
from sampan.network.dns.message import Edns, Malformed, Message, Question, Record

_label = st.binary(min_size=1, max_size=63)
_short = st.sampled_from((b"a", b"B", b"svc", b"cluster", b"local"))
_name = st.one_of(st.lists(_short, max_size=6), st.lists(_label, max_size=3)).map(names.join)
_u16, _u32 = st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF)


def _record(kind: int, data: st.SearchStrategy[bytes]) -> st.SearchStrategy[Record]:
    return st.builds(Record, _name, st.just(kind), _u32, data, st.just(dns.IN))


_records = st.one_of(
    _record(dns.A, st.binary(min_size=4, max_size=4)),
    _record(dns.AAAA, st.binary(min_size=16, max_size=16)),
    *(_record(t, _name) for t in (dns.NS, dns.CNAME, dns.PTR)),
    _record(dns.SRV, st.builds(dns.srv, _u16, _u16, _u16, _name)),
    _record(dns.MX, st.builds(lambda p, n: p.to_bytes(2, "big") + n, _u16, _name)),
    _record(dns.SOA, st.builds(lambda a, b, s: dns.soa(a, b, s, minimum=5), _name, _name, _u32)),
    _record(dns.TXT, st.binary(max_size=40)),
    st.builds(Record, _name, st.integers(256, 65535), _u32, st.binary(max_size=40), _u16),
)
_section = st.lists(_records, max_size=5).map(tuple)
_edns = st.builds(Edns, _u16, st.integers(0, 255), _u16, st.binary(max_size=30))
messages = st.builds(
    Message, _u16, _u16.map(lambda f: f & ~15), st.integers(0, 15),
    st.lists(st.builds(Question, _name, _u16, _u16), max_size=2).map(tuple),
    _section, _section, _section, st.none() | _edns,
)  # fmt: skip


@given(messages)
def test_what_is_written_is_read(message: Message) -> None:
    assert dns.parse(dns.encode(message)) == message


@given(messages, st.integers(0, 1500))
def test_a_limit_is_kept_and_truncation_is_said(message: Message, room: int) -> None:
    """Whole records from the front; TC for answers and authorities, nothing for the rest."""
    least = len(dns.encode(Message(0, questions=message.questions, edns=message.edns)))
    limit = least + room
    packet = dns.encode(message, limit)
    assert len(packet) <= limit
    read = dns.parse(packet)
    whole = (*message.answers, *message.authorities, *message.additionals)
    written = (*read.answers, *read.authorities, *read.additionals)
    assert written == whole[: len(written)]
    assert (read.edns, read.questions) == (message.edns, message.questions)
    cut = len(written) < len(message.answers) + len(message.authorities)
    assert bool(read.flags & dns.TC) == (cut or bool(message.flags & dns.TC))


def test_the_extended_rcode_is_split() -> None:
    packet = dns.encode(Message(7, dns.QR, dns.BADVERS, edns=Edns(1232)))
    assert packet[3] & 15 == 0 and packet[-6] == 1
    assert dns.parse(packet).rcode == dns.BADVERS


def test_names_are_compressed_but_not_in_srv() -> None:
    n = names.wire("web.default.svc.cluster.local")
    long = dns.encode(Message(1, questions=(Question(n, 1),)))
    one = dns.encode(Message(1, questions=(Question(n, 1),), answers=(Record(n, 1, 5, b"abcd"),)))
    assert len(one) == len(long) + 16
    srv = dns.encode(Message(1, answers=(Record(n, dns.SRV, 5, dns.srv(0, 1, 2, n)),)))
    assert srv.count(b"cluster") == 2


def test_the_case_of_the_question_is_kept_and_not_shared_with_another() -> None:
    asked, other = names.wire("WeB.test"), names.wire("web.test")
    message = Message(
        1, questions=(Question(asked, 1),),
        answers=(Record(asked, 5, 1, other), Record(other, 1, 1, b"abcd")),
    )  # fmt: skip
    assert dns.parse(dns.encode(message)) == message


HEAD = b"\0\1\0\0\0\1\0\0\0\0\0\0"


@pytest.mark.parametrize(
    "packet",
    [
        b"", HEAD[:11], HEAD, HEAD + b"\3ab", HEAD + b"\0\0\1", HEAD + b"\0\0\1\0\1x",
        HEAD + b"\xc0\x0c\0\1\0\1",  # a name that points to itself
        HEAD + b"\1a\xc0\x0c\0\1\0\1",  # and one that comes back to itself
        HEAD + b"\xc0\x20\0\1\0\1",  # forwards
        HEAD + b"\xc0", HEAD + b"\x40abc\0\0\1\0\1", HEAD + b"\x80\0\0\1\0\1",
        HEAD + (b"\x3f" + b"x" * 63) * 4 + b"\0\0\1\0\1",  # 257 bytes
        HEAD[:6] + b"\0\1" + HEAD[8:] + b"\0\0\1\0\1" + b"\0\0\1\0\1\0\0\0\0\0\5abcd",
        HEAD[:6] + b"\0\1" + HEAD[8:] + b"\0\0\1\0\1" + b"\0\0\1\0\1\0\0\0\0\0\3abc",
        HEAD[:6] + b"\0\1" + HEAD[8:] + b"\0\0\1\0\1" + b"\0\0\5\0\1\0\0\0\0\0\1\1a\0",
        HEAD[:6] + b"\0\1" + HEAD[8:] + b"\0\0\1\0\1" + b"\0\0\x29\0\1\0\0\0\0\0\0",  # OPT there
        HEAD[:10] + b"\0\2" + b"\0\0\1\0\1" + b"\0\0\x29\4\0\0\0\0\0\0\0" * 2,
        HEAD[:10] + b"\0\1" + b"\0\0\1\0\1" + b"\1a\0\0\x29\4\0\0\0\0\0\0\0",
        b"\0\1\0\0\xff\xff\xff\xff\xff\xff\xff\xff",
    ],
)  # fmt: skip
def test_what_is_refused(packet: bytes) -> None:
    with pytest.raises(Malformed):
        dns.parse(packet)


def test_a_long_chain_of_pointers_is_refused() -> None:
    """Each leads backwards, and still nobody follows hundreds of them."""
    chain = b"\0" + b"".join(
        (0xC000 | 12 + max(0, 2 * i - 1)).to_bytes(2, "big") for i in range(99)
    )
    body = HEAD[:4] + b"\0\0" + b"\0\1" + HEAD[8:]
    with pytest.raises(Malformed):
        dns.parse(body + chain)
    with pytest.raises(Malformed):
        dns.read_name(body + chain, len(body + chain) - 2)


@given(st.binary(max_size=300))
def test_garbage_is_read_or_refused(garbage: bytes) -> None:
    try:
        message = dns.parse(garbage)
    except Malformed:
        return
    assert dns.parse(dns.encode(message)) == message


@pytest.mark.parametrize(
    ("name", "shown"),
    [("", "."), ("a.b", "a.b."), ("a.b.", "a.b."), ("_x._tcp.A-1", "_x._tcp.A-1.")],
)
def test_names_as_text(name: str, shown: str) -> None:
    assert names.text(names.wire(name)) == shown


@pytest.mark.parametrize("name", ["a..b", "x" * 64, ".".join(["x" * 60] * 5), "ä"])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(ValueError, match=r"label of|name too long|can't encode"):
        names.wire(name)


@pytest.mark.parametrize(
    ("name", "zone", "below"),
    [
        ("a.b", "b", True),
        ("b", "b", True),
        ("xb", "b", False),
        ("b", "a.b", False),
        ("a", "", True),
    ],
)
def test_below(name: str, zone: str, below: bool) -> None:
    assert names.is_below(names.wire(name), names.wire(zone)) is below
