"""What is too big, too slow, malformed or pipelined."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from sampan.apiserver.connection import Limits
from sampan.testing.fronts import FrontWorld, served

QUICK = Limits(
    header_seconds=0.15, body_seconds=0.15, idle_seconds=0.15, slow_seconds=0.15, body_bytes=1000
)


def run(check: Callable[[FrontWorld], Awaitable[None]], limits: Limits | None = None) -> None:
    async def inside() -> None:
        async with served(limits=limits) as world:
            await check(world)

    asyncio.run(asyncio.wait_for(inside(), 30))


def test_pipelined_requests_are_answered_in_order() -> None:
    async def check(world: FrontWorld) -> None:
        wire = await world.connect()
        for i in range(60):
            wire.send("GET", "/readyz?verbose" if i % 2 else "/livez")
        bodies = [(await wire.read()).body for _ in range(60)]
        assert bodies[0::2] == [b"ok"] * 30
        assert all(b.startswith(b"[+]ping ok") for b in bodies[1::2])
        await wire.close()

    run(check)


def test_a_request_in_single_bytes() -> None:
    async def check(world: FrontWorld) -> None:
        wire = await world.connect()
        for byte in b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n":
            wire.raw(bytes((byte,)))
            await asyncio.sleep(0)
        assert (await wire.read()).body == b"ok"
        await wire.close()

    run(check)


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00",
        b"NONSENSE\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost x\r\n\r\n",
        b"GET /livez HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -3\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_malformed_requests_get_400(data: bytes) -> None:
    async def check(world: FrontWorld) -> None:
        wire = await world.connect()
        wire.raw(data)
        answer = await wire.read()
        assert answer.status == 400
        assert answer.json["reason"] == "BadRequest"
        assert answer.header("connection") == "close"
        assert await wire.reader.read() == b""
        await wire.close()

    run(check)


def test_headers_too_large() -> None:
    async def check(world: FrontWorld) -> None:
        for data in (
            b"GET /livez HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
            b"GET /livez HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 70_000,
            b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /livez HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 12_000 + b"\r\n",
        ):
            wire = await world.connect()
            wire.raw(data)
            answer = await wire.read()
            assert answer.status == 431
            assert answer.json["kind"] == "Status"
            await wire.close()

    run(check)


def test_bodies_too_large() -> None:
    async def check(world: FrontWorld) -> None:
        target = "/api/v1/namespaces/default/configmaps"
        wire = await world.connect()
        wire.send("POST", target, headers=world.auth, body=b"x" * 1001)
        answer = await wire.read()
        assert answer.status == 413
        assert answer.json["reason"] == "RequestEntityTooLarge"
        await wire.close()
        wire = await world.connect()
        wire.send("POST", target, headers={"Transfer-Encoding": "chunked"})
        for _ in range(3):
            wire.raw(b"190\r\n" + b"x" * 400 + b"\r\n")
        assert (await wire.read()).status == 413
        await wire.close()

    run(check, QUICK)


def test_chunked_bodies_and_expect_continue() -> None:
    async def check(world: FrontWorld) -> None:
        wire = await world.connect()
        body = b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"}}'
        headers = {**world.auth, "Transfer-Encoding": "chunked", "Expect": "100-continue",
                   "Content-Type": "application/json"}  # fmt: skip
        wire.send("POST", "/api/v1/namespaces/default/configmaps", headers=headers)
        assert (await wire.head()).status == 100
        wire.raw(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        assert (await wire.read()).status == 201
        await wire.close()

    run(check)


def test_slow_clients_are_let_go() -> None:
    async def check(world: FrontWorld) -> None:
        silent = await world.connect()
        assert await silent.reader.read() == b""  # never said anything
        slow = await world.connect()
        slow.raw(b"GET /livez HTTP/1.1\r\nHo")
        assert (await slow.read()).status == 408
        body = await world.connect()
        body.send("POST", "/api/v1/nodes", headers={**world.auth, "Content-Length": "10"})
        assert (await body.read()).status == 408
        idle = await world.connect()
        assert (await idle.ask("GET", "/livez")).status == 200
        assert await idle.reader.read() == b""
        for wire in (silent, slow, body, idle):
            await wire.close()

    run(check, QUICK)


def test_old_clients_and_close() -> None:
    async def check(world: FrontWorld) -> None:
        wire = await world.connect()
        wire.raw(b"GET /livez HTTP/1.0\r\n\r\n")
        answer = await wire.read()
        assert answer.body == b"ok"
        assert await wire.reader.read() == b""
        await wire.close()
        wire = await world.connect()
        answer = await wire.ask("GET", "/livez", headers={"Connection": "close"})
        assert answer.header("connection") == "close"
        assert await wire.reader.read() == b""
        await wire.close()
        half = await world.connect()
        half.send("GET", "/livez")
        half.writer.write_eof()
        assert (await half.read()).body == b"ok"
        await half.close()

    run(check)


def test_an_upgrade_nobody_knows_is_a_plain_request() -> None:
    async def check(world: FrontWorld) -> None:
        wire = await world.connect()
        answer = await wire.ask(
            "GET", "/livez", headers={"Upgrade": "h2c", "Connection": "Upgrade"}
        )
        assert (answer.status, answer.body) == (200, b"ok")
        assert await wire.reader.read() == b""
        await wire.close()

    run(check)
