"""Channels over one WebSocket: each message says which stream its bytes belong to."""

from __future__ import annotations

import base64
from dataclasses import dataclass

from sampan.api.errors import bad_request
from sampan.apiserver import websocket
from sampan.apiserver.connection import Request

V5 = "v5.channel.k8s.io"


@dataclass(frozen=True, slots=True)
class Protocol:
    """A subprotocol. has_status: the error channel carries a Status, else only a failure's text;
    '' is what a client gets that asks for none."""

    name: str
    is_base64: bool = False
    has_status: bool = True

    def message(self, data: bytes, channel: int | None = None) -> bytes:
        """The frame of one message."""
        if self.is_base64:
            digit = b"" if channel is None else b"%d" % channel
            return websocket.frame(websocket.TEXT, digit + base64.b64encode(data))
        head = b"" if channel is None else bytes((channel,))
        return websocket.frame(websocket.BINARY, head + data)

    def read(self, data: bytes) -> tuple[int, bytes]:
        """Channel and data of a message. Raises ValueError."""
        if not self.is_base64 or not data:
            return (data[0], data[1:]) if data else (-1, b"")
        return data[0] - ord("0"), base64.b64decode(data[1:], validate=True)


SESSIONS = (
    Protocol(V5),
    Protocol("v4.channel.k8s.io"),
    Protocol("v4.base64.channel.k8s.io", is_base64=True),
    Protocol("channel.k8s.io", has_status=False),
    Protocol("base64.channel.k8s.io", is_base64=True, has_status=False),
    Protocol("", has_status=False),
)
LOGS = (
    Protocol("binary.k8s.io"), Protocol("base64.binary.k8s.io", is_base64=True), Protocol(""),
)  # fmt: skip
FORWARDS = (
    Protocol("v4.channel.k8s.io"), Protocol("v4.base64.channel.k8s.io", is_base64=True),
    Protocol(""),
)  # fmt: skip


def choose(request: Request, ours: tuple[Protocol, ...]) -> Protocol:
    """The protocol to speak. Raises StatusError 400 for what is none of *ours*."""
    if websocket.is_websocket(request.headers):
        offers = websocket.offered(request.headers) or [""]
        for protocol in ours:
            if protocol.name in offers:
                return protocol
        raise bad_request(
            f"unable to upgrade: none of the subprotocols {offers} is supported; "
            f"supported: {[p.name for p in ours if p.name]}"
        )
    raise bad_request("Upgrade request required")
