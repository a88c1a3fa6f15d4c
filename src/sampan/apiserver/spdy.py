"""SPDY/3.1 (draft-mbelshe-httpbis-spdy-00, with 3.1's frames), the server's side, as far as
Kubernetes' streams use it: no priorities, no flow control. Bytes in, events and bytes out; no I/O.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

_WORDS = (
    "options", "head", "post", "put", "delete", "trace", "accept", "accept-charset",
    "accept-encoding", "accept-language", "accept-ranges", "age", "allow", "authorization",
    "cache-control", "connection", "content-base", "content-encoding", "content-language",
    "content-length", "content-location", "content-md5", "content-range", "content-type",
    "date", "etag", "expect", "expires", "from", "host", "if-match", "if-modified-since",
    "if-none-match", "if-range", "if-unmodified-since", "last-modified", "location",
    "max-forwards", "pragma", "proxy-authenticate", "proxy-authorization", "range", "referer",
    "retry-after", "server", "te", "trailer", "transfer-encoding", "upgrade", "user-agent",
    "vary", "via", "warning", "www-authenticate", "method", "get", "status", "200 OK",
    "version", "HTTP/1.1", "url", "public", "set-cookie", "keep-alive", "origin",
)  # fmt: skip
_TAIL = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request"
    "401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented"
    "503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, "
    "Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,"
    "application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdch"
    "charset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)
# What header blocks are compressed with, from the draft's section 2.6.10.1.
DICTIONARY = b"".join(struct.pack(">I", len(w)) + w.encode() for w in _WORDS) + _TAIL.encode()

SYN_STREAM, SYN_REPLY, RST_STREAM, PING, GOAWAY = 1, 2, 3, 6, 7
FIN = 1
_CONTROL = 0x8003 << 16
_MAX_FRAME = 4 * 1024 * 1024
_MAX_HEADERS = 64 * 1024


class SpdyError(Exception):
    """What a peer did wrong; nothing may be fed after it."""


class Opened(NamedTuple):
    """The peer began a stream. headers: by lower-case name."""

    stream: int
    headers: Mapping[str, str]
    is_last: bool


class Data(NamedTuple):
    """is_last: nothing more comes on this stream."""

    stream: int
    data: bytes
    is_last: bool


class Reset(NamedTuple):
    """The peer wants no more of a stream."""

    stream: int


class GoAway(NamedTuple):
    """The peer begins no more streams."""


Event: TypeAlias = Opened | Data | Reset | GoAway


class Spdy:
    """One connection. is_server: only tells pings apart."""

    def __init__(self, *, is_server: bool = True) -> None:
        self._buffer = bytearray()
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._deflate = zlib.compressobj(zdict=DICTIONARY)
        self._theirs = 1 if is_server else 0  # the parity of what the peer numbers

    def feed(self, data: bytes) -> tuple[list[Event], bytes]:
        """What *data* tells, and what is to be answered at once. Raises SpdyError."""
        self._buffer += data
        events: list[Event] = []
        answers = bytearray()
        while len(self._buffer) >= 8:
            head, tail = struct.unpack_from(">II", self._buffer)
            flags, size = tail >> 24, tail & 0xFFFFFF
            if size > _MAX_FRAME:
                raise SpdyError("frame is too big")
            if len(self._buffer) < 8 + size:
                break
            body = bytes(self._buffer[8 : 8 + size])
            del self._buffer[: 8 + size]
            if not head >> 31:
                events.append(Data(head, body, bool(flags & FIN)))
            elif head >> 16 != _CONTROL >> 16:
                raise SpdyError("only version 3 is spoken")
            elif head & 0xFFFF == PING:
                if body[-1:] and body[-1] & 1 == self._theirs:
                    answers += control(PING, 0, body)
            else:
                event = self._event(head & 0xFFFF, flags, body)
                if event is not None:
                    events.append(event)
        return events, bytes(answers)

    def _event(self, kind: int, flags: int, body: bytes) -> Event | None:
        if kind == GOAWAY:
            return GoAway()
        if kind not in (SYN_STREAM, SYN_REPLY, RST_STREAM):
            return None  # SETTINGS, HEADERS, WINDOW_UPDATE: nothing depends on them
        least = 10 if kind == SYN_STREAM else 4
        if len(body) < least:
            raise SpdyError("frame is too short")
        (stream,) = struct.unpack_from(">I", body)
        if kind == RST_STREAM:
            return Reset(stream)
        headers = self._headers(body[least:])
        return Opened(stream, headers, bool(flags & FIN)) if kind == SYN_STREAM else None

    def _headers(self, block: bytes) -> Mapping[str, str]:
        try:
            text = self._inflate.decompress(block, _MAX_HEADERS)
        except zlib.error as e:
            raise SpdyError(f"headers: {e}") from e
        if self._inflate.unconsumed_tail:
            raise SpdyError("headers are too big")
        at = 0

        def take(size: int) -> bytes:
            nonlocal at
            at += size
            if at > len(text):
                raise SpdyError("headers are cut short")
            return text[at - size : at]

        def string() -> str:
            return take(int.from_bytes(take(4), "big")).decode("utf-8", "replace")

        found: dict[str, str] = {}
        for _ in range(int.from_bytes(take(4), "big")):
            name = string().lower()
            found[name] = string().split("\0")[0]
        return found

    def _block(self, headers: Mapping[str, str]) -> bytes:
        out = bytearray(struct.pack(">I", len(headers)))
        for pair in headers.items():
            for text in pair:
                out += struct.pack(">I", len(text.encode())) + text.encode()
        return self._deflate.compress(bytes(out)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)

    def open(self, stream: int, headers: Mapping[str, str]) -> bytes:
        """Begin a stream (clients do)."""
        return control(SYN_STREAM, 0, struct.pack(">IIH", stream, 0, 0) + self._block(headers))

    def reply(self, stream: int) -> bytes:
        """Accept a stream."""
        return control(SYN_REPLY, 0, struct.pack(">I", stream) + self._block({}))


def control(kind: int, flags: int, body: bytes) -> bytes:
    """A control frame."""
    return struct.pack(">II", _CONTROL | kind, flags << 24 | len(body)) + body


def data(stream: int, body: bytes, *, is_last: bool = False) -> bytes:
    """Data frames of any amount."""
    out = bytearray()
    for at in range(0, max(len(body), 1), _MAX_FRAME):
        part = body[at : at + _MAX_FRAME]
        end = is_last and at + _MAX_FRAME >= len(body)
        out += struct.pack(">II", stream, (FIN if end else 0) << 24 | len(part)) + part
    return bytes(out)
