"""SPDY frames: what one side says the other hears, however the bytes are cut."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.apiserver import spdy
from sampan.apiserver.spdy import Data, GoAway, Opened, Reset, Spdy, SpdyError


def test_the_dictionary_is_the_drafts() -> None:
    """By the checksum that zlib streams name it with."""
    assert len(spdy.DICTIONARY) == 1423
    assert zlib.adler32(spdy.DICTIONARY) == 0xE3C6A7C2


@given(
    st.lists(st.tuples(st.sampled_from(["stdin", "data"]), st.binary(max_size=40)), max_size=5),
    st.integers(1, 9),
)
def test_what_is_said_is_heard(said: list[tuple[str, bytes]], cut: int) -> None:
    client, server = Spdy(is_server=False), Spdy()
    sent, expected = b"", []
    for i, (kind, body) in enumerate(said):
        number = 2 * i + 1
        sent += client.open(number, {"streamType": kind, "port": "80"})
        sent += spdy.data(number, body, is_last=i % 2 == 0)
        expected += [
            Opened(number, {"streamtype": kind, "port": "80"}, False),
            Data(number, body, i % 2 == 0),
        ]
    heard = []
    for at in range(0, len(sent), cut):
        events, answers = server.feed(sent[at : at + cut])
        heard += events
        assert answers == b""
    assert heard == expected
    replies = b"".join(server.reply(2 * i + 1) for i in range(len(said)))
    assert client.feed(replies) == ([], b"")


def test_pings_are_answered_and_answers_are_not() -> None:
    ping = spdy.control(spdy.PING, 0, struct.pack(">I", 3))
    assert Spdy().feed(ping) == ([], ping)
    assert Spdy().feed(spdy.control(spdy.PING, 0, struct.pack(">I", 4))) == ([], b"")


def test_ends() -> None:
    reset = spdy.control(spdy.RST_STREAM, 0, struct.pack(">II", 5, 1))
    away = spdy.control(spdy.GOAWAY, 0, struct.pack(">II", 5, 0))
    settings = spdy.control(4, 0, b"\0\0\0\0")
    assert Spdy().feed(reset + settings + away) == ([Reset(5), GoAway()], b"")


def test_large_data_goes_in_several_frames() -> None:
    body = bytes(5 * 1024 * 1024)
    events, _ = Spdy().feed(spdy.data(1, body, is_last=True))
    assert [e.is_last for e in events if isinstance(e, Data)] == [False, True]
    assert b"".join(e.data for e in events if isinstance(e, Data)) == body


def _opened(block: bytes) -> bytes:
    return spdy.control(spdy.SYN_STREAM, 0, struct.pack(">IIH", 1, 0, 0) + block)


def _packed(block: bytes) -> bytes:
    packer = zlib.compressobj(zdict=spdy.DICTIONARY)
    return packer.compress(block) + packer.flush(zlib.Z_SYNC_FLUSH)


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        (b"\0\0\0\1\0\xff\xff\xff", "frame is too big"),
        (struct.pack(">II", 0x80020001, 0), "only version 3"),
        (spdy.control(spdy.SYN_STREAM, 0, b"\0\0\0\1"), "too short"),
        (_opened(b"nonsense"), "headers"),
        (_opened(_packed(struct.pack(">II", 1, 100) + b"x")), "cut short"),
        (_opened(_packed(bytes(1 << 20))), "too big"),
    ],
)
def test_what_a_peer_may_not_say(sent: bytes, text: str) -> None:
    with pytest.raises(SpdyError, match=text):
        Spdy().feed(sent + bytes(16))
