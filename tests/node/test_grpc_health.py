"""gRPC health checks against a server that says what it is told to."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable

import pytest

from sampan.node import probes
from sampan.node.grpc_health import NoHealth, check, request


def frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return struct.pack(">IBI", len(body) << 8 | kind, flags, stream) + body


def answer(status: int | None) -> bytes:
    """What a health service sends: settings, a ping, headers, the message, trailers."""
    message = b"" if status is None else bytes((8, status))
    data = struct.pack(">BI", 0, len(message)) + message
    return (
        frame(4, 0, 0, b"\0\3\0\0\0\x64") + frame(6, 0, 0, b"12345678") + frame(1, 4, 1, b"\x88")
        + frame(0, 0, 1, data) + frame(1, 5, 1, b"")
    )  # fmt: skip


async def served(
    said: bytes, ask: Callable[[int], object], *, cut: bool = False
) -> tuple[object, bytes]:
    """What *ask* makes of a server that says *said*, and what the server heard."""
    heard = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.extend(await reader.read(65536))
        writer.write(said)
        if cut:
            writer.close()
        while data := await reader.read(65536):
            heard.extend(data)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        result = await ask(server.sockets[0].getsockname()[1])  # type: ignore[misc]
        await asyncio.sleep(0.05)
    return result, bytes(heard)


async def _check(port: int) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        return await check(reader, writer, service="db", authority=f"127.0.0.1:{port}")
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("said", "status"),
    [(answer(1), "SERVING"), (answer(2), "NOT_SERVING"), (answer(3), "SERVICE_UNKNOWN"),
     (answer(None), "UNKNOWN")],
)  # fmt: skip
def test_a_health_service_is_understood(said: bytes, status: str) -> None:
    found, heard = asyncio.run(asyncio.wait_for(served(said, _check), 20))
    assert found == status
    assert heard.startswith(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert b"/grpc.health.v1.Health/Check" in heard and b"\x0a\x02db" in heard
    assert frame(6, 1, 0, b"12345678") in heard and frame(4, 1, 0, b"") in heard


@pytest.mark.parametrize(
    "said",
    [b"HTTP/1.1 400 Bad Request\r\n\r\n", frame(1, 5, 1, b""), frame(3, 0, 1, b"\0\0\0\1"),
     frame(7, 0, 0, bytes(8)), frame(0, 1, 1, struct.pack(">BI", 0, 2) + b"\x12\x01")],
)  # fmt: skip
def test_what_is_no_health_service(said: bytes) -> None:
    async def ask(port: int) -> str:
        with pytest.raises(NoHealth):
            await _check(port)
        return "refused"

    assert asyncio.run(asyncio.wait_for(served(said, ask, cut=True), 20))[0] == "refused"


def test_without_a_service_the_message_is_empty() -> None:
    assert request("", "x:1").endswith(frame(0, 1, 1, bytes(5)))


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        (answer(1), probes.Attempt(True, "service healthy")),
        (answer(2), probes.Attempt(False, 'service unhealthy (responded with "NOT_SERVING")')),
        (b"", probes.Attempt(False, "timeout")),
    ],
)
def test_probes(said: bytes, outcome: probes.Attempt) -> None:
    class Runtime:
        async def connect(self, _sandbox: str, host: str, port: int, timeout: float) -> object:
            return await asyncio.open_connection(host, port)

    async def ask(port: int) -> probes.Attempt:
        return await probes.attempt(
            Runtime(), {"name": "c"}, {"grpc": {"port": port, "service": "db"},  # type: ignore[arg-type]
                                       "timeoutSeconds": 1},
            sandbox_id="s", container_id="c", ip="127.0.0.1",
        )  # fmt: skip

    found, _ = asyncio.run(asyncio.wait_for(served(said, ask), 20))
    assert isinstance(found, probes.Attempt)
    assert found.ok == outcome.ok and found.text.startswith(outcome.text)
