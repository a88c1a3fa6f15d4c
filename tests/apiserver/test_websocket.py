"""Frames of RFC 6455."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.apiserver import websocket
from sampan.apiserver.websocket import BINARY, PING, Frames, Message, WebSocketError, frame

MASK = b"\x0a\x0b\x0c\x0d"


def test_the_accept_key_of_the_rfc() -> None:
    assert websocket.accept_key("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@given(st.lists(st.binary(max_size=70_000), max_size=4), st.integers(1, 5000))
def test_messages_survive_any_cut(messages: list[bytes], step: int) -> None:
    wire = b"".join(frame(BINARY, m, mask=MASK) for m in messages)
    frames = Frames()
    found = [m for i in range(0, len(wire), step) for m in frames.feed(wire[i : i + step])]
    assert found == [Message(BINARY, m) for m in messages]


def test_fragments_are_joined_around_control_frames() -> None:
    def part(first: int, data: bytes) -> bytes:
        return bytes((first, 0x80 | len(data))) + MASK + websocket.apply_mask(data, MASK)

    wire = part(BINARY, b"a") + frame(PING, b"p", mask=MASK) + part(0, b"b") + part(0x80, b"c")
    assert Frames().feed(wire) == [Message(PING, b"p"), Message(BINARY, b"abc")]


@pytest.mark.parametrize(
    "wire",
    [
        frame(BINARY, b"unmasked"),
        bytes((0xC2, 0x80)) + MASK,
        bytes((0x83, 0x80)) + MASK,
        bytes((0x80, 0x80)) + MASK,
        bytes((0x09, 0x80)) + MASK,
        bytes((0x82, 0xFF)) + b"\xff" * 8,
    ],
)
def test_violations_are_refused(wire: bytes) -> None:
    with pytest.raises(WebSocketError):
        Frames().feed(wire)
