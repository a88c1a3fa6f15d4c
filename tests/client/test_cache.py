"""Caches over the real API server: indexes, handlers, re-listing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from sampan.api.obj import Event, Key, Obj
from sampan.apiserver.endpoint import ApiServer
from sampan.client.base import Client
from sampan.client.cache import Informer
from sampan.testing.api import api_server, client_of


def run(scenario: Callable[[ApiServer, Client, Informer], Awaitable[None]]) -> None:
    async def main() -> None:
        api = await api_server()
        client = client_of(api)
        cache = Informer(client, "configmaps")
        try:
            await scenario(api, client, cache)
        finally:
            await cache.stop()
            await api.authorizer.stop()

    asyncio.run(main())


async def make(client: Client, name: str, owner: str = "", label: str = "") -> Obj:
    meta: dict[str, object] = {"name": name, "labels": {"l": label} if label else {}}
    if owner:
        meta["ownerReferences"] = [{"apiVersion": "v1", "kind": "X", "name": "x", "uid": owner}]
    return await client.create("configmaps", {"metadata": meta}, "default")


def test_indexes_follow_every_change() -> None:
    async def scenario(_api: ApiServer, client: Client, cache: Informer) -> None:
        cache.add_index("label", lambda o: o.labels.values())
        await make(client, "a", owner="u1", label="x")
        cache.start()
        await cache.synced()
        made = await make(client, "b", owner="u1", label="y")
        await cache.reached(made.key, made.revision)
        assert {o.name for o in cache.by("owner", "u1")} == {"a", "b"}
        changed = await client.patch(
            "configmaps", "b", {"metadata": {"labels": {"l": "x"}}}, "default"
        )
        await cache.reached(changed.key, changed.revision)
        assert {o.name for o in cache.by("label", "x")} == {"a", "b"}
        assert cache.by("label", "y") == []
        await client.delete("configmaps", "a", "default")
        await cache.until(lambda: cache.get("default", "a") is None)
        assert [o.name for o in cache.list("default")] == ["b"]
        assert [o.name for o in cache.by("owner", "u1")] == ["b"]
        assert len(cache) == 1

    run(scenario)


def test_handlers_see_each_change_once() -> None:
    async def scenario(_api: ApiServer, client: Client, cache: Informer) -> None:
        seen: list[tuple[str, str]] = []
        cache.add_handler(lambda kind, old, new: seen.append((kind, (new or old).name)))  # type: ignore[union-attr]
        await make(client, "a")
        cache.start()
        await cache.synced()
        await client.patch("configmaps", "a", {"data": {"k": "v"}}, "default")
        await client.delete("configmaps", "a", "default")
        await cache.until(lambda: len(cache) == 0)
        assert seen == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]

    run(scenario)


class Falling(Client):
    """A client whose watches end after *lasts* events, just before a change that is forgotten."""

    def __init__(self, client: Client, api: ApiServer, lasts: int) -> None:
        super().__init__(client.transport)
        self._api, self._lasts = api, lasts
        self.lists = 0

    async def list(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        self.lists += 1
        return await super().list(*args, **kwargs)

    async def watch(self, *args, **kwargs) -> AsyncIterator[Event]:  # type: ignore[no-untyped-def, override]
        left = self._lasts
        async for event in super().watch(*args, **kwargs):
            yield event
            left -= 1
            if not left:
                await make(self, f"unseen{self.lists}")
                await self._api.store.compact(self._api.store.revision)
                return


def test_a_forgotten_history_is_listed_again_and_nothing_is_missed() -> None:
    async def scenario(api: ApiServer, client: Client, _cache: Informer) -> None:
        falling = Falling(client, api, lasts=2)
        cache = Informer(falling, "configmaps")
        known: dict[str, int] = {}

        def note(_kind: str, old: Obj | None, new: Obj | None) -> None:
            if new is None:
                assert old is not None
                known.pop(old.name)
            else:
                known[new.name] = new.revision

        cache.add_handler(note)
        cache.start()
        await cache.synced()
        for i in range(20):
            await make(client, f"c{i}")
            if i % 3 == 2:
                await client.delete("configmaps", f"c{i - 1}", "default")
            await asyncio.sleep(0)
        async with asyncio.timeout(10):
            while True:
                page = await client.list("configmaps", "default")
                wanted = {o.name: o.revision for o in page.items}
                if known == wanted == {o.name: o.revision for o in cache.list()}:
                    break
                await asyncio.sleep(0.01)
        assert falling.lists > 1 and len(wanted) >= 14
        await cache.stop()

    run(scenario)


def test_reached_is_about_the_object_or_the_whole() -> None:
    async def scenario(_api: ApiServer, client: Client, cache: Informer) -> None:
        cache.start()
        await cache.synced()
        made = await make(client, "a")
        await cache.reached(made.key, made.revision)
        assert cache.has_reached(Key("configmaps", "default", "other"), made.revision)
        assert not cache.has_reached(made.key, made.revision + 1)

    run(scenario)


def test_several_who_refresh_at_the_same_time_all_come_to_an_end() -> None:
    async def scenario(_api: ApiServer, client: Client, cache: Informer) -> None:
        await make(client, "a")
        cache.start()
        await cache.synced()
        async with asyncio.timeout(5):
            for turns in range(6):

                async def later(turns: int = turns) -> None:
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    await cache.refresh()

                await asyncio.gather(cache.refresh(), later(), later(turns * 2))
        await make(client, "b")
        async with asyncio.timeout(5):
            await cache.until(lambda: len(cache) == 2)
        tasks = [t for t in asyncio.all_tasks() if t.get_name() == "cache configmaps"]
        assert len(tasks) == 1  # nobody else follows

    run(scenario)
