"""Watches over the wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from sampan.api.call import Call, User
from sampan.api.errors import bad_request, gone
from sampan.api.obj import Event, Key, Obj
from sampan.apiserver.connection import Limits
from sampan.testing.fronts import FrontWorld, served

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


def run(check: Callable[[FrontWorld], Awaitable[None]], limits: Limits | None = None) -> None:
    async def inside() -> None:
        async with served(limits=limits) as world:
            await check(world)

    asyncio.run(asyncio.wait_for(inside(), 30))


def test_events_arrive_as_lines() -> None:
    async def check(world: FrontWorld) -> None:
        wire = await world.connect()
        wire.send("GET", "/api/v1/pods?watch=true&resourceVersion=0", headers=world.auth)
        head = await wire.head()
        assert head.status == 200
        assert head.header("content-type") == "application/json"
        events = wire.events()
        world.pod("a")
        first = await anext(events)
        assert (first["type"], first["object"]["metadata"]["name"]) == ("ADDED", "a")
        world.endpoint.fake.drop("pods", "a", "default")
        assert (await anext(events))["type"] == "DELETED"
        await wire.close()

    run(check)


def test_the_old_watch_paths() -> None:
    async def check(world: FrontWorld) -> None:
        wire = await world.connect()
        wire.send("GET", "/api/v1/watch/namespaces/default/pods/a", headers=world.auth)
        assert (await wire.head()).status == 200
        call = world.endpoint.calls[-1][1]
        assert (call.verb, call.name) == ("watch", "")
        assert call.options["fieldSelector"] == "metadata.name=a"
        await wire.close()

    run(check)


def test_a_watch_ends_in_time_and_the_connection_goes_on() -> None:
    async def check(world: FrontWorld) -> None:
        wire = await world.connect()
        answer = await wire.ask("GET", "/api/v1/pods?watch=1&timeoutSeconds=1", headers=world.auth)
        assert (answer.status, answer.body) == (200, b"")
        assert (await wire.ask("GET", "/livez")).body == b"ok"
        await wire.close()

    run(check)


def test_tables_and_bookmarks() -> None:
    async def check(world: FrontWorld) -> None:
        pod = world.pod("a")

        async def events(_user: User, _call: Call) -> AsyncIterator[Event]:
            yield Event("ADDED", pod)
            meta = {"resourceVersion": "9", "annotations": {"k8s.io/initial-events-end": "true"}}
            yield Event("BOOKMARK", Obj(Key("pods", "", ""), b"{}", 9, {"metadata": meta}))

        world.endpoint.watching = events
        target = "/api/v1/pods?watch=1"
        wire = await world.connect()
        wire.send("GET", target, headers={**world.auth, "Accept": TABLE})
        await wire.head()
        added, bookmark = [e async for e in wire.events()]
        assert added["object"]["kind"] == "Table"
        assert added["object"]["rows"][0]["cells"][0] == "a"
        assert bookmark["object"]["rows"] == []
        wire.send("GET", target, headers=world.auth)
        await wire.head()
        _, bookmark = [e async for e in wire.events()]
        assert bookmark["type"] == "BOOKMARK"
        assert bookmark["object"]["kind"] == "Pod"
        assert bookmark["object"]["metadata"]["resourceVersion"] == "9"
        accept = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
        wire.send("GET", target, headers={**world.auth, "Accept": accept})
        await wire.head()
        added, _ = [e async for e in wire.events()]
        assert added["object"]["kind"] == "PartialObjectMetadata"
        assert "spec" not in added["object"]
        await wire.close()

    run(check)


def test_errors_before_and_within_a_watch() -> None:
    async def check(world: FrontWorld) -> None:
        async def refused(_user: User, _call: Call) -> AsyncIterator[Event]:
            raise bad_request("no such field")
            yield

        async def expired(_user: User, _call: Call) -> AsyncIterator[Event]:
            raise gone("too old resource version: 1 (7)")
            yield

        async def broken(_user: User, _call: Call) -> AsyncIterator[Event]:
            yield Event("ADDED", world.pod("a"))
            raise gone("the reader is too slow")

        world.endpoint.watching = refused
        answer = await world.ask("GET", "/api/v1/pods?watch=1")
        assert (answer.status, answer.json["message"]) == (400, "no such field")
        for watch, count in ((expired, 1), (broken, 2)):
            world.endpoint.watching = watch
            wire = await world.connect()
            wire.send("GET", "/api/v1/pods?watch=1", headers=world.auth)
            assert (await wire.head()).status == 200
            found = [e async for e in wire.events()]
            assert len(found) == count
            assert found[-1]["type"] == "ERROR"
            assert found[-1]["object"]["code"] == 410
            assert found[-1]["object"]["reason"] == "Expired"
            await wire.close()

    run(check)


def test_a_watch_stops_when_its_client_goes() -> None:
    async def check(world: FrontWorld) -> None:
        ended = asyncio.Event()

        async def endless(_user: User, _call: Call) -> AsyncIterator[Event]:
            try:
                await asyncio.Event().wait()
                yield Event("ADDED", world.pod("a"))
            finally:
                ended.set()

        world.endpoint.watching = endless
        wire = await world.connect()
        wire.send("GET", "/api/v1/pods?watch=1", headers=world.auth)
        await wire.head()
        assert world.metrics.watches == 1
        await wire.close()
        await ended.wait()
        while world.front.connections:
            await asyncio.sleep(0.01)
        assert world.metrics.watches == 0

    run(check)


def test_a_watcher_that_does_not_read_is_ended() -> None:
    async def check(world: FrontWorld) -> None:
        ended = asyncio.Event()
        pod = world.pod("a", node="n" * 100_000)

        async def flood(_user: User, _call: Call) -> AsyncIterator[Event]:
            try:
                while True:
                    yield Event("MODIFIED", pod)
            finally:
                ended.set()

        world.endpoint.watching = flood
        wire = await world.connect()
        wire.send("GET", "/api/v1/pods?watch=1", headers=world.auth)
        await ended.wait()
        await wire.close()

    run(check, Limits(slow_seconds=0.2))


def test_closing_the_front_ends_watches() -> None:
    async def check(world: FrontWorld) -> None:
        wire = await world.connect()
        wire.send("GET", "/api/v1/pods?watch=1", headers=world.auth)
        await wire.head()
        await world.front.close()
        await wire.reader.read()
        assert not world.front.connections
        await wire.close()

    run(check)
