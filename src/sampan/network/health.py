"""``healthCheckNodePort``: tells load balancers whether a node has endpoints of its own.

Source: the Service API field and what kube-proxy's health check server answers.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

_SECONDS = 10.0
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
log = logging.getLogger(__name__)


class Listens(Protocol):
    async def listen(self, host: str, port: int) -> socket.socket: ...


@dataclass(frozen=True, slots=True)
class Check:
    """What is told of one Service on one node."""

    namespace: str
    name: str
    endpoints: int


def answer(check: Check, *, head: bool = False) -> bytes:
    """The whole HTTP response."""
    body = json.dumps(
        {
            "service": {"namespace": check.namespace, "name": check.name},
            "localEndpoints": check.endpoints,
            "serviceProxyHealthy": True,
        },
        indent="\t",
    ).encode()
    status = "200 OK" if check.endpoints else "503 Service Unavailable"
    lines = (
        f"HTTP/1.1 {status}", "Content-Type: application/json", "X-Content-Type-Options: nosniff",
        f"X-Load-Balancing-Endpoint-Weight: {check.endpoints}", f"Content-Length: {len(body)}",
        "Connection: close", "", "",
    )  # fmt: skip
    return "\r\n".join(lines).encode() + (b"" if head else body)


class HostSockets:
    """Listens in the calling process's own namespace."""

    async def listen(self, host: str, port: int) -> socket.socket:
        """Raises OSError."""
        return socket.create_server((host, port), backlog=16)


class HealthChecks:
    """The servers of one node, or of the host, by port. host: the address they listen at."""

    def __init__(self, space: Listens, *, host: str = "0.0.0.0") -> None:
        self._space = space
        self._host = host
        self._checks: dict[int, Check] = {}
        self._servers: dict[int, asyncio.Server] = {}

    async def sync(self, wanted: Mapping[int, Check]) -> dict[int, OSError]:
        """Serve *wanted* and nothing else; the ports that could not be had, and why."""
        failed: dict[int, OSError] = {}
        for port in [p for p in self._servers if p not in wanted]:
            self._servers.pop(port).close()
        self._checks = dict(wanted)
        for port in wanted:
            if port not in self._servers:
                try:
                    sock = await self._space.listen(self._host, port)
                except OSError as e:
                    failed[port] = e
                    continue
                self._servers[port] = await asyncio.start_server(self._handler(port), sock=sock)
        return failed

    def close(self) -> None:
        for server in self._servers.values():
            server.close()
        self._servers.clear()

    def _handler(self, port: int) -> Handler:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                async with asyncio.timeout(_SECONDS):
                    request = await reader.readuntil(b"\r\n\r\n")
                    check = self._checks.get(port)
                    if check is not None:
                        writer.write(answer(check, head=request.startswith(b"HEAD ")))
                        await writer.drain()
            except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
                log.debug("health check on port %d: broken off", port)
            finally:
                writer.close()

        return handle
