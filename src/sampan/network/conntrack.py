"""ctnetlink: forget connections of UDP that would go on to an endpoint which serves no more.

A UDP "connection" has no end the kernel could see: as long as a client keeps sending from its port,
its packets go where the first one went, also when that is nowhere. Everything here acts in the
network namespace of the calling thread.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sampan.network.claims import Vip
from sampan.network.rules import PROTOCOLS, Address

_NETFILTER = 12
_GET, _DELETE = (1 << 8) | 1, (1 << 8) | 2  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_*
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_ERROR, _DONE = 2, 3
_ORIGINAL, _REPLY, _ID, _ZONE = 1, 2, 12, 18  # CTA_*
_IP, _PROTO = 1, 2  # CTA_TUPLE_*
_ENDS = {4: (1, 2), 16: (3, 4)}  # CTA_IP_V4_*, CTA_IP_V6_*: source, destination; by their length
_NUMBER, _SOURCE_PORT, _DESTINATION_PORT = 1, 2, 3  # CTA_PROTO_*
_TYPE = 0x3FFF
_BUFFER = 1 << 18


@dataclass(frozen=True, slots=True)
class Flow:
    """One entry of UDP: where the client sent to, who answers, and how the kernel is told of it."""

    destination: Address
    answers: Address
    name: bytes  # attributes that name it in a request
    family: int = socket.AF_INET


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and value of each netlink attribute in *data*."""
    at = 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4:
            return
        yield kind & _TYPE, data[at + 4 : at + length]
        at += (length + 3) & ~3


def _attribute(kind: int, value: bytes, *, nested: bool = False) -> bytes:
    head = struct.pack("=HH", 4 + len(value), kind | (0x8000 if nested else 0))
    return head + value + b"\0" * (-len(value) % 4)


def flow(payload: bytes) -> Flow | None:
    """The entry a message tells of, None if not UDP. payload: after the nfgenmsg."""
    parts = dict(attributes(payload))
    original, reply = parts.get(_ORIGINAL), parts.get(_REPLY)
    if original is None or reply is None:
        return None
    ip, proto = _tuple(original)
    answer_ip, answer_proto = _tuple(reply)
    ends = next((e for size, e in _ENDS.items() if len(ip.get(e[1], b"")) == size), None)
    if proto.get(_NUMBER) != bytes([PROTOCOLS["udp"]]) or ends is None:
        return None
    source, destination = ends
    name = _attribute(_ORIGINAL, original, nested=True)
    for kind in (_ID, _ZONE):
        if kind in parts:
            name += _attribute(kind, parts[kind])
    return Flow(
        (_text(ip[destination]), int.from_bytes(proto[_DESTINATION_PORT], "big")),
        (_text(answer_ip[source]), int.from_bytes(answer_proto[_SOURCE_PORT], "big")),
        name, _family(_text(ip[destination])),
    )  # fmt: skip


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _text(packed: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


def _tuple(data: bytes) -> tuple[dict[int, bytes], dict[int, bytes]]:
    parts = dict(attributes(data))
    return dict(attributes(parts.get(_IP, b""))), dict(attributes(parts.get(_PROTO, b"")))


def is_stale(one: Flow, serving: Mapping[Address, frozenset[Address]]) -> bool:
    """serving: for each address of a UDP Service to look at, who serves it now."""
    held = serving.get(one.destination)
    return held is not None and one.answers not in held


def udp(changes: Mapping[Vip, frozenset[Address]]) -> dict[Address, frozenset[Address]]:
    """The UDP part of *changes*, as ``forget`` wants it."""
    return {(ip, port): held for (ip, protocol, port), held in changes.items() if protocol == "udp"}


def forget(serving: Mapping[Address, frozenset[Address]]) -> int:
    """Delete what is stale; how many entries that were. Raises OSError."""
    families = sorted({_family(ip) for ip, _port in serving})
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER) as sock:
        sock.bind((0, 0))
        stale = [f for family in families for f in _dump(sock, family) if is_stale(f, serving)]
        for one in stale:
            _send(sock, _DELETE, _REQUEST | _ACK, one.name, one.family)
            _acknowledged(sock.recv(_BUFFER))
        return len(stale)


def _send(sock: socket.socket, kind: int, flags: int, payload: bytes, family: int) -> None:
    body = struct.pack("=BBH", family, 0, 0) + payload
    sock.send(struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body)


def _acknowledged(answer: bytes) -> None:
    (error,) = struct.unpack_from("=i", answer, 16)
    if error and -error != errno.ENOENT:  # it has timed out just now
        raise OSError(-error, f"delete a connection: {os.strerror(-error)}")


def _dump(sock: socket.socket, family: int) -> Iterator[Flow]:
    _send(sock, _GET, _REQUEST | _DUMP, b"", family)
    while True:
        data = sock.recv(_BUFFER)
        at = 0
        while at + 16 <= len(data):
            length, kind = struct.unpack_from("=IH", data, at)
            if kind == _DONE:
                return
            if kind == _ERROR:
                (error,) = struct.unpack_from("=i", data, at + 16)
                raise OSError(-error, f"list connections: {os.strerror(-error)}")
            one = flow(data[at + 20 : at + length])
            if one is not None:
                yield one
            at += (length + 3) & ~3
