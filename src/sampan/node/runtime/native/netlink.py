"""rtnetlink by hand: the few messages a pod's network needs, each one round trip.

Every function acts in the network namespace of the calling thread.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

_NEWLINK, _DELLINK, _NEWADDR, _NEWROUTE, _DELROUTE = 16, 17, 20, 24, 25
_REQUEST, _ACK, _REPLACE, _EXCL, _CREATE = 1, 4, 0x100, 0x200, 0x400
_IFF_UP = 1
_IFNAME, _MTU, _LINKINFO, _NET_NS_PID = 3, 4, 18, 19
_INFO_KIND, _INFO_DATA, _VETH_PEER = 1, 2, 1
_LOCAL, _ADDRESS = 2, 1
_DST, _OIF, _GATEWAY, _PREFSRC = 1, 4, 5, 7
_UNICAST, _UNREACHABLE = 1, 7
_SCOPE_GLOBAL, _SCOPE_LINK = 0, 253
_NO_DAD = 2  # IFA_F_NODAD: the address is there at once, nobody is asked whether it is free
_TABLE_MAIN, _PROTO_STATIC = 254, 4


def _attr(kind: int, data: bytes) -> bytes:
    length = 4 + len(data)
    return struct.pack("=HH", length, kind) + data + b"\0" * (-length % 4)


def _name(text: str) -> bytes:
    return _attr(_IFNAME, text.encode() + b"\0")


def _u32(value: int) -> bytes:
    return struct.pack("=I", value)


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _ip(text: str) -> bytes:
    return socket.inet_pton(_family(text), text)


class Netlink:
    """One socket in the namespace in which it was opened."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.bind((0, 0))
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def _call(self, kind: int, flags: int, payload: bytes, what: str) -> None:
        self._sequence += 1
        head = struct.pack(
            "=IHHII", 16 + len(payload), kind, flags | _REQUEST | _ACK, self._sequence, 0
        )
        self._socket.send(head + payload)
        answer = self._socket.recv(65536)
        (error,) = struct.unpack_from("=i", answer, 16)
        if error:
            raise OSError(-error, f"{what}: {os.strerror(-error)}")

    def veth(self, name: str, peer: str, *, peer_pid: int, mtu: int = 0) -> None:
        """Make a veth pair whose *peer* end is in the network namespace of *peer_pid* from its
        first moment on."""
        size = _attr(_MTU, _u32(mtu)) if mtu else b""
        inner = struct.pack("=BBHiII", 0, 0, 0, 0, 0, 0) + _name(peer) + size
        inner += _attr(_NET_NS_PID, _u32(peer_pid))
        info = _attr(_INFO_KIND, b"veth\0") + _attr(_INFO_DATA, _attr(_VETH_PEER, inner))
        # The near end is up at once: one message less.
        payload = struct.pack("=BBHiII", 0, 0, 0, 0, _IFF_UP, _IFF_UP)
        payload += _name(name) + size + _attr(_LINKINFO, info)
        self._call(_NEWLINK, _CREATE | _EXCL, payload, f"veth {name}")

    def delete(self, name: str) -> None:
        """Remove a link; one that is not there is fine."""
        try:
            index = socket.if_nametoindex(name)
        except OSError:
            return
        payload = struct.pack("=BBHiII", 0, 0, 0, index, 0, 0)
        try:
            self._call(_DELLINK, 0, payload, f"delete {name}")
        except OSError as e:
            if e.errno != errno.ENODEV:  # it went with the other end's namespace just now
                raise

    def up(self, name: str) -> None:
        index = socket.if_nametoindex(name)
        payload = struct.pack("=BBHiII", 0, 0, 0, index, _IFF_UP, _IFF_UP)
        self._call(_NEWLINK, 0, payload, f"{name} up")

    def address(self, name: str, address: str, prefix: int = 0) -> None:
        """Add an address of either family. prefix: 0 for the address alone."""
        index, family = socket.if_nametoindex(name), _family(address)
        bits = prefix or (128 if family == socket.AF_INET6 else 32)
        flags = _NO_DAD if family == socket.AF_INET6 else 0
        payload = struct.pack("=BBBBI", family, bits, flags, _SCOPE_GLOBAL, index)
        payload += _attr(_LOCAL, _ip(address)) + _attr(_ADDRESS, _ip(address))
        self._call(_NEWADDR, _CREATE | _REPLACE, payload, f"address {address}")

    def route(
        self, destination: str, *, device: str = "", via: str = "", source: str = "",
        unreachable: bool = False,
    ) -> None:  # fmt: skip
        """Add or replace a route. destination: a range; of length 0 for the default. A link-local
        *via* needs its *device*."""
        self._route(_NEWROUTE, _CREATE | _REPLACE, destination, device, via, source, unreachable)

    def delete_route(self, destination: str, *, device: str = "") -> None:
        try:
            self._route(_DELROUTE, 0, destination, device, "", "", False)
        except ProcessLookupError:
            return  # ESRCH: there is none

    def _route(
        self, kind: int, flags: int, destination: str, device: str, via: str, source: str,
        unreachable: bool,
    ) -> None:  # fmt: skip
        network, _, bits = destination.partition("/")
        scope = _SCOPE_GLOBAL if via or unreachable else _SCOPE_LINK
        payload = struct.pack(
            "=BBBBBBBBI", _family(network), int(bits), 0, 0, _TABLE_MAIN, _PROTO_STATIC, scope,
            _UNREACHABLE if unreachable else _UNICAST, 0,
        )  # fmt: skip
        if int(bits):
            payload += _attr(_DST, _ip(network))
        if device:
            payload += _attr(_OIF, _u32(socket.if_nametoindex(device)))
        if via:
            payload += _attr(_GATEWAY, _ip(via))
        if source:
            payload += _attr(_PREFSRC, _ip(source))
        self._call(kind, flags, payload, f"route {destination}")


@contextmanager
def netlink() -> Iterator[Netlink]:
    """A socket in the calling thread's namespace of this moment."""
    link = Netlink()
    try:
        yield link
    finally:
        link.close()


def links() -> Sequence[str]:
    """Names of the links in the calling thread's namespace."""
    return [name for _, name in socket.if_nameindex()]
