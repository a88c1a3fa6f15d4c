"""Which entries of the connection table are forgotten."""

from __future__ import annotations

import socket
import struct

from sampan.network.conntrack import Flow, attributes, flow, is_stale, udp


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def tuple_of(kind: int, source: str, destination: str, protocol: int, sport: int, dport: int):
    ip = attribute(1, socket.inet_aton(source)) + attribute(2, socket.inet_aton(destination))
    ports = attribute(1, bytes([protocol])) + attribute(2, struct.pack("!H", sport))
    ports += attribute(3, struct.pack("!H", dport))
    return attribute(0x8000 | kind, attribute(0x8001, ip) + attribute(0x8002, ports))


def entry(protocol: int = 17) -> bytes:
    original = tuple_of(1, "10.42.1.9", "10.43.0.5", protocol, 5000, 53)
    reply = tuple_of(2, "10.42.1.2", "10.42.1.9", protocol, 8053, 5000)
    return original + reply + attribute(3, b"\0\0\0\1") + attribute(12, b"\0\0\0\7")


def test_an_entry_is_read():
    one = flow(entry())
    assert one is not None
    assert (one.destination, one.answers) == (("10.43.0.5", 53), ("10.42.1.2", 8053))
    # What names it to the kernel: the original tuple and the id, nothing else.
    assert [kind for kind, _ in attributes(one.name)] == [1, 12]


def test_other_protocols_and_broken_messages_are_passed_over():
    assert flow(entry(6)) is None
    assert flow(b"") is None
    assert flow(tuple_of(1, "10.42.1.9", "10.43.0.5", 17, 5000, 53)) is None
    assert [*attributes(b"\2\0\1\0")] == []


def test_stale():
    one = Flow(("10.43.0.5", 53), ("10.42.1.2", 8053), b"")
    assert is_stale(one, {("10.43.0.5", 53): frozenset()})
    assert is_stale(one, {("10.43.0.5", 53): frozenset({("10.42.1.3", 8053)})})
    assert not is_stale(one, {("10.43.0.5", 53): frozenset({("10.42.1.2", 8053)})})
    assert not is_stale(one, {("10.43.0.6", 53): frozenset()})
    # One that was sent to nobody, while there was nobody.
    nobody = Flow(("10.43.0.5", 53), ("10.43.0.5", 53), b"")
    assert is_stale(nobody, {("10.43.0.5", 53): frozenset({("10.42.1.2", 8053)})})


def test_only_udp_is_looked_at():
    held = frozenset({("10.42.1.2", 8053)})
    vips = {("10.43.0.5", "udp", 53): held, ("10.43.0.5", "tcp", 53): held}
    assert udp(vips) == {("10.43.0.5", 53): held}
