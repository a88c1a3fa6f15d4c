"""The DNS message codec: bytes to values and back, pure.

``parse`` accepts what RFC 1035 and 6891 allow and raises ``Malformed`` for anything else, in time
linear in the message; ``encode`` compresses names and stops at a size.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple

from sampan.network.dns.names import MAX_NAME

A, NS, CNAME, SOA, PTR, HINFO, MX, TXT, AAAA, SRV, OPT = 1, 2, 5, 6, 12, 13, 15, 16, 28, 33, 41
IXFR, AXFR, ANY = 251, 252, 255
IN = 1
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16
QR, AA, TC, RD, RA, AD, CD = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080, 0x0020, 0x0010
OPCODE = 0x7800
DO = 0x8000
_HEADER = struct.Struct("!6H")
_QUESTION = struct.Struct("!2H")
_RECORD = struct.Struct("!2HIH")
_POINTERS = 64  # more jumps than a name has labels need not be followed
# Types whose data begins with names that may be compressed: bytes before them, how many names.
_NAMES = {NS: (0, 1), CNAME: (0, 1), SOA: (0, 2), PTR: (0, 1), MX: (2, 1), SRV: (6, 1)}
_COMPRESSED = (NS, CNAME, SOA, PTR, MX)  # RFC 3597: only these may be written compressed


class Malformed(Exception):
    """Not a DNS message."""


class Question(NamedTuple):
    """name: wire form, in the case it was asked."""

    name: bytes
    type: int
    klass: int = IN


class Record(NamedTuple):
    """data: as on the wire, names in it uncompressed."""

    name: bytes
    type: int
    ttl: int
    data: bytes
    klass: int = IN


class Edns(NamedTuple):
    """An OPT record. size: UDP bytes its sender takes; flags: DO and reserved bits."""

    size: int
    version: int = 0
    flags: int = 0
    options: bytes = b""


@dataclass(frozen=True, slots=True)
class Message:
    """A whole message. flags: the header's 16 bits without rcode; rcode: all 12 bits."""

    id: int
    flags: int = 0
    rcode: int = NOERROR
    questions: tuple[Question, ...] = ()
    answers: tuple[Record, ...] = ()
    authorities: tuple[Record, ...] = ()
    additionals: tuple[Record, ...] = ()
    edns: Edns | None = None


def parse(data: bytes) -> Message:
    """Raises Malformed."""
    if len(data) < 12:
        raise Malformed("shorter than a header")
    ident, flags, *counts = _HEADER.unpack_from(data)
    at = 12
    questions = []
    for _ in range(counts[0]):
        name, at = read_name(data, at)
        if at + 4 > len(data):
            raise Malformed("a question cut short")
        questions.append(Question(name, *_QUESTION.unpack_from(data, at)))
        at += 4
    sections: list[tuple[Record, ...]] = []
    for count in counts[1:]:
        records = []
        for _ in range(count):
            record, at = _record(data, at)
            records.append(record)
        sections.append(tuple(records))
    if at != len(data):
        raise Malformed("bytes after the message")
    if any(r.type == OPT for r in (*sections[0], *sections[1])):
        raise Malformed("OPT outside of the additional section")
    options = [r for r in sections[2] if r.type == OPT]
    rcode = flags & 15
    edns = None
    if options:
        if len(options) > 1 or options[0].name != b"\0":
            raise Malformed("more than one OPT, or one with a name")
        opt = options[0]
        edns = Edns(opt.klass, opt.ttl >> 16 & 255, opt.ttl & 0xFFFF, opt.data)
        rcode |= opt.ttl >> 24 << 4
    return Message(
        ident, flags & ~15, rcode, tuple(questions), sections[0], sections[1],
        tuple(r for r in sections[2] if r.type != OPT), edns,
    )  # fmt: skip


def read_name(data: bytes, at: int) -> tuple[bytes, int]:
    """(the name at *at* without compression, where it ends). Pointers must point backwards."""
    parts: list[bytes] = []
    size = jumps = 0
    end = -1
    limit = at
    try:
        while True:
            length = data[at]
            if length == 0:
                break
            if length >= 0xC0:
                target = (length & 63) << 8 | data[at + 1]
                if end < 0:
                    end = at + 2
                jumps += 1
                if target >= limit or jumps > _POINTERS:
                    raise Malformed("a compression pointer that does not lead backwards")
                at = limit = target
                continue
            if length > 63:
                raise Malformed("a label type nobody uses")
            size += length + 1
            if size >= MAX_NAME or at + length >= len(data):
                raise Malformed("a name too long")
            parts.append(data[at : at + 1 + length])
            at += length + 1
    except IndexError:
        raise Malformed("a name cut short") from None
    return b"".join(parts) + b"\0", at + 1 if end < 0 else end


def _record(data: bytes, at: int) -> tuple[Record, int]:
    name, at = read_name(data, at)
    if at + 10 > len(data):
        raise Malformed("a record cut short")
    kind, klass, ttl, length = _RECORD.unpack_from(data, at)
    at += 10
    end = at + length
    if end > len(data):
        raise Malformed("a record's data cut short")
    if kind in _NAMES:
        body = _expand(data, at, end, *_NAMES[kind])
        if kind == SOA and len(body) < 22:
            raise Malformed("an SOA cut short")
    else:
        body = data[at:end]
    if (kind == A and klass == IN and length != 4) or (kind == AAAA and length != 16):
        raise Malformed("an address of another length")
    return Record(name, kind, ttl, body, klass), end


def _expand(data: bytes, at: int, end: int, before: int, count: int) -> bytes:
    if at + before > end:
        raise Malformed("a record's data cut short")
    body = data[at : at + before]
    at += before
    for _ in range(count):
        name, at = read_name(data, at)
        body += name
        if at > end:
            raise Malformed("a name that leaves its record")
    return body + data[at:end]


class _Writer:
    """The bytes written so far and where names in them begin."""

    def __init__(self, start: bytes) -> None:
        self.out = bytearray(start)
        self._places: dict[bytes, int] = {}

    def name(self, name: bytes, *, compress: bool = True) -> None:
        """Compressed only against the same case: what a client asked it gets back as it was."""
        at = 0
        while name[at]:
            rest = name[at:]
            place = self._places.get(rest)
            if place is not None and compress:
                self.out += (0xC000 | place).to_bytes(2, "big")
                return
            if place is None and len(self.out) < 0x4000:
                self._places[rest] = len(self.out)
            self.out += name[at : at + 1 + name[at]]
            at += 1 + name[at]
        self.out.append(0)

    def record(self, record: Record) -> None:
        self.name(record.name)
        self.out += _QUESTION.pack(record.type, record.klass)
        self.out += record.ttl.to_bytes(4, "big")
        length_at = len(self.out)
        self.out += b"\0\0"
        if record.type in _COMPRESSED:
            before, count = _NAMES[record.type]
            data = record.data
            self.out += data[:before]
            at = before
            for _ in range(count):
                end = at
                while data[end]:
                    end += 1 + data[end]
                self.name(data[at : end + 1])
                at = end + 1
            self.out += data[at:]
        else:
            self.out += record.data
        size = len(self.out) - length_at - 2
        self.out[length_at : length_at + 2] = size.to_bytes(2, "big")

    def fits(self, record: Record, limit: int) -> bool:
        """Write *record* unless the message would grow beyond *limit*."""
        before = len(self.out)
        places = dict(self._places) if before + 300 + len(record.data) > limit else None
        self.record(record)
        if len(self.out) <= limit:
            return True
        del self.out[before:]
        if places is not None:
            self._places = places
        return False


def encode(message: Message, limit: int = 65535) -> bytes:
    """At most *limit* bytes. Additional records that do not fit are left out; answers and
    authorities that do not fit are left out and TC is set. The OPT record always stays."""
    opt = b""
    if message.edns is not None:
        e = message.edns
        ttl = (message.rcode >> 4) << 24 | e.version << 16 | e.flags
        opt = b"\0" + _RECORD.pack(OPT, e.size, ttl, len(e.options)) + e.options
    room = limit - len(opt)
    writer = _Writer(bytes(12))
    for q in message.questions:
        writer.name(q.name)
        writer.out += _QUESTION.pack(q.type, q.klass)
    flags = message.flags & ~15 | message.rcode & 15
    counts = [len(message.questions), 0, 0, 0]
    whole = True
    for i, section in enumerate((message.answers, message.authorities, message.additionals), 1):
        for record in section if whole else ():
            if not writer.fits(record, room):
                whole = False
                flags |= TC if i < 3 else 0
                break
            counts[i] += 1
    counts[3] += bool(opt)
    writer.out[:12] = _HEADER.pack(message.id, flags, *counts)
    return bytes(writer.out) + opt


def reply(
    query: Message, rcode: int, *, flags: int = 0, answers: tuple[Record, ...] = (),
    authorities: tuple[Record, ...] = (), additionals: tuple[Record, ...] = (),
) -> Message:  # fmt: skip
    """An answer to *query*: its id, opcode, question and the flags that are repeated, and *flags*.
    An OPT record only where the query has one."""
    edns = Edns(UDP_SIZE, flags=query.edns.flags & DO) if query.edns is not None else None
    return Message(
        query.id, QR | query.flags & (OPCODE | RD | CD) | flags, rcode, query.questions, answers,
        authorities, additionals, edns,
    )  # fmt: skip


UDP_SIZE = 1232  # what passes everywhere unfragmented; the most we send by UDP, and announce


def soa(primary: bytes, mailbox: bytes, serial: int, *, minimum: int) -> bytes:
    """The data of an SOA record."""
    return primary + mailbox + struct.pack("!5I", serial, 7200, 1800, 86400, minimum)


def srv(priority: int, weight: int, port: int, target: bytes) -> bytes:
    return struct.pack("!3H", priority, weight, port) + target


def txt(text: bytes) -> bytes:
    """One string of at most 255 bytes."""
    return bytes((len(text),)) + text
