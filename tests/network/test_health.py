"""healthCheckNodePort answers as kube-proxy's does."""

from __future__ import annotations

import asyncio
import socket

import pytest

from sampan.network.health import Check, HealthChecks, answer

BODY = """{
\t"service": {
\t\t"namespace": "n",
\t\t"name": "s"
\t},
\t"localEndpoints": %d,
\t"serviceProxyHealthy": true
}"""


@pytest.mark.parametrize(
    ("count", "status"), [(0, "503 Service Unavailable"), (1, "200 OK"), (3, "200 OK")]
)
def test_answers(count: int, status: str) -> None:
    head, _, body = answer(Check("n", "s", count)).decode().partition("\r\n\r\n")
    lines = head.split("\r\n")
    assert lines[0] == f"HTTP/1.1 {status}"
    assert body == BODY % count
    assert {*lines[1:]} == {
        "Content-Type: application/json", "X-Content-Type-Options: nosniff",
        f"X-Load-Balancing-Endpoint-Weight: {count}", f"Content-Length: {len(body)}",
        "Connection: close",
    }  # fmt: skip
    assert answer(Check("n", "s", count), head=True).decode() == head + "\r\n\r\n"


class Local:
    async def listen(self, _host: str, port: int) -> socket.socket:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.77.3.1", port))
        sock.listen()
        sock.setblocking(False)
        return sock


def test_servers_come_and_go() -> None:
    async def ask(port: int, request: bytes = b"GET /healthz HTTP/1.1\r\n\r\n") -> bytes:
        reader, writer = await asyncio.open_connection("127.77.3.1", port)
        writer.write(request)
        data = await reader.read()
        writer.close()
        return data

    async def main() -> None:
        with socket.socket() as sock:
            sock.bind(("127.77.3.1", 0))
            port = sock.getsockname()[1]
            checks = HealthChecks(Local())
            sock.listen()
            failed = await checks.sync({port: Check("n", "s", 1)})
            assert [*failed] == [port]
        assert await checks.sync({port: Check("n", "s", 1)}) == {}
        assert b" 200 " in await ask(port)
        assert b"namespace" not in await ask(port, b"HEAD / HTTP/1.1\r\n\r\n")
        await checks.sync({port: Check("n", "s", 0)})
        assert b" 503 " in await ask(port)
        reader, writer = await asyncio.open_connection("127.77.3.1", port)
        writer.write(b"GET")
        writer.write_eof()  # broken off
        assert await reader.read() == b""
        writer.close()
        await checks.sync({})
        with pytest.raises(ConnectionRefusedError):
            await ask(port)

    asyncio.run(main())
