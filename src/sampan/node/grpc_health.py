"""One call of ``grpc.health.v1.Health/Check``: as much HTTP/2 as that needs, over any stream."""

from __future__ import annotations

import struct
from typing import Any

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_MAX_FRAME = 1 << 20
_STATUS = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")


class NoHealth(Exception):
    """The other side did not answer as a health service does."""


def _frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return struct.pack(">IBI", len(body) << 8 | kind, flags, stream) + body


def _literal(name: bytes, value: str) -> bytes:
    """A header that no table keeps. name: as HPACK writes it (an index of the static table, or a
    name of its own)."""
    text = value.encode()
    if len(text) >= 127:  # a length of 127 and more takes another byte
        text = text[:126]
    return name + bytes((len(text),)) + text


def request(service: str, authority: str) -> bytes:
    """All that the client says, but for acknowledgements."""
    headers = (
        b"\x83\x86"  # :method POST, :scheme http
        + _literal(b"\x04", "/grpc.health.v1.Health/Check")  # :path
        + _literal(b"\x01", authority)  # :authority
        + _literal(b"\x0f\x10", "application/grpc")  # content-type
        + _literal(b"\x0f\x2b", "kube-probe/1.37")  # user-agent
        + _literal(b"\x00\x02te", "trailers")
    )
    name = service.encode()
    message = b"\x0a" + _varint(len(name)) + name if name else b""
    return (
        _PREFACE
        + _frame(_SETTINGS, 0, 0, b"")
        + _frame(_HEADERS, _END_HEADERS, 1, headers)
        + _frame(_DATA, _END_STREAM, 1, struct.pack(">BI", 0, len(message)) + message)
    )


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes((*out, value))


async def check(reader: Any, writer: Any, *, service: str, authority: str) -> str:
    """The status of *service*, by its name in the protocol. Raises NoHealth, OSError."""
    writer.write(request(service, authority))
    await writer.drain()
    got = bytearray()
    try:
        while True:
            head, flags, stream = struct.unpack(">IBI", await reader.readexactly(9))
            size, kind = head >> 8, head & 0xFF
            if size > _MAX_FRAME:
                raise NoHealth("it does not speak HTTP/2")
            body = await reader.readexactly(size)
            if kind in (_SETTINGS, _PING) and not flags & _ACK:
                writer.write(_frame(kind, _ACK, 0, body if kind == _PING else b""))
                await writer.drain()
            elif kind == _DATA and stream == 1:
                got += body
            if kind == _GOAWAY or (stream == 1 and (kind == _RESET or flags & _END_STREAM)):
                break
    except EOFError:
        pass
    return _answer(bytes(got))


def _answer(data: bytes) -> str:
    if len(data) < 5:
        raise NoHealth("no answer to grpc.health.v1.Health/Check")
    message = data[5 : 5 + int.from_bytes(data[1:5], "big")]
    if not message:
        return _STATUS[0]
    if message[0] != 0x08 or len(message) < 2 or message[1] >= len(_STATUS):
        raise NoHealth("no answer of a health service")
    return _STATUS[message[1]]
