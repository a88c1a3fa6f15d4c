"""WebSocket (RFC 6455), the server's side: handshake, frames in, frames out. No I/O."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sampan.api.errors import bad_request

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
NORMAL, PROTOCOL_ERROR, TOO_BIG, FAILED = 1000, 1002, 1009, 1011
MAX_MESSAGE = 4 * 1024 * 1024


class WebSocketError(Exception):
    """What a peer did wrong; ``code`` goes into the close frame."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Message(NamedTuple):
    """A whole message (TEXT or BINARY) or a control frame."""

    opcode: int
    data: bytes


def offered(headers: Mapping[str, Sequence[str]]) -> list[str]:
    """The subprotocols a client offers, in its order."""
    values = headers.get("sec-websocket-protocol") or ()
    return [p.strip() for v in values for p in v.split(",") if p.strip()]


def is_websocket(headers: Mapping[str, Sequence[str]]) -> bool:
    upgrade = ",".join(headers.get("upgrade") or ()).lower()
    return "websocket" in [p.strip() for p in upgrade.split(",")]


def handshake(headers: Mapping[str, Sequence[str]], protocol: str) -> bytes:
    """The 101 answer. Raises StatusError 400."""
    key = (headers.get("sec-websocket-key") or [""])[0].strip()
    version = (headers.get("sec-websocket-version") or [""])[0].strip()
    if version != "13":
        raise bad_request("unsupported WebSocket version: only 13 is supported")
    try:
        is_key = len(base64.b64decode(key, validate=True)) == 16
    except ValueError:
        is_key = False
    if not is_key:
        raise bad_request("the WebSocket handshake has no valid Sec-WebSocket-Key")
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {accept_key(key)}",
    ]
    if protocol:
        lines.append(f"Sec-WebSocket-Protocol: {protocol}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def accept_key(key: str) -> str:
    return base64.b64encode(hashlib.sha1(key.encode() + _GUID).digest()).decode()


def frame(opcode: int, data: bytes = b"", *, mask: bytes = b"") -> bytes:
    """One whole frame; clients must give a *mask* of four bytes."""
    size = len(data)
    flag = 0x80 if mask else 0
    if size < 126:
        head = bytes((0x80 | opcode, flag | size))
    elif size < 65536:
        head = bytes((0x80 | opcode, flag | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x80 | opcode, flag | 127)) + size.to_bytes(8, "big")
    return head + mask + (apply_mask(data, mask) if mask else data)


def close_frame(code: int, text: str = "", *, mask: bytes = b"") -> bytes:
    reason = text.encode()[:123].decode("utf-8", "ignore").encode()
    return frame(CLOSE, code.to_bytes(2, "big") + reason, mask=mask)


def apply_mask(data: bytes, mask: bytes) -> bytes:
    """XOR with the repeated mask (its own inverse)."""
    size = len(data)
    if not size:
        return data
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


class Frames:
    """Bytes in, messages out; fragments are joined. is_server: frames must be masked."""

    def __init__(self, *, is_server: bool = True, limit: int = MAX_MESSAGE) -> None:
        self._is_server = is_server
        self._limit = limit
        self._buffer = bytearray()
        self._parts: list[bytes] = []
        self._size = 0
        self._opcode = 0

    def feed(self, data: bytes) -> list[Message]:
        """Raises WebSocketError; nothing may be fed after that."""
        self._buffer += data
        found: list[Message] = []
        while (message := self._frame()) is not None:
            if message.opcode != CONTINUATION:
                found.append(message)
        return found

    def _frame(self) -> Message | None:
        """The next frame: a message it completes, or CONTINUATION for one that does not yet."""
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        first, second = buffer[0], buffer[1]
        opcode, is_last = first & 0x0F, bool(first & 0x80)
        size, at = second & 0x7F, 2
        if first & 0x70:
            raise WebSocketError(PROTOCOL_ERROR, "reserved bits are set")
        if bool(second & 0x80) != self._is_server:
            raise WebSocketError(PROTOCOL_ERROR, "frames of clients, and only those, are masked")
        if opcode >= CLOSE and (size > 125 or not is_last):
            raise WebSocketError(PROTOCOL_ERROR, "control frames are short and whole")
        if opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
            raise WebSocketError(PROTOCOL_ERROR, f"unknown opcode {opcode}")
        if size >= 126:
            wide = 2 if size == 126 else 8
            if len(buffer) < at + wide:
                return None
            size, at = int.from_bytes(buffer[at : at + wide], "big"), at + wide
        if size + self._size > self._limit:
            raise WebSocketError(TOO_BIG, "message is too big")
        mask = b""
        if self._is_server:
            mask, at = bytes(buffer[at : at + 4]), at + 4
        if len(buffer) < at + size:
            return None
        data = bytes(buffer[at : at + size])
        del buffer[: at + size]
        if mask:
            data = apply_mask(data, mask)
        if opcode >= CLOSE:
            return Message(opcode, data)
        return self._piece(opcode, data, is_last=is_last)

    def _piece(self, opcode: int, data: bytes, *, is_last: bool) -> Message:
        if (opcode == CONTINUATION) != bool(self._opcode):
            raise WebSocketError(PROTOCOL_ERROR, "fragments are out of order")
        if opcode != CONTINUATION and is_last:
            return Message(opcode, data)
        self._opcode = opcode or self._opcode
        self._parts.append(data)
        self._size += len(data)
        if not is_last:
            return Message(CONTINUATION, b"")
        whole = Message(self._opcode, b"".join(self._parts))
        self._parts, self._size, self._opcode = [], 0, 0
        return whole
