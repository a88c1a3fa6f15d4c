"""Addresses and node ports over a store on disk: killed between any two steps, and under load."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

from sampan.api.catalogue import builtin
from sampan.api.errors import StatusError
from sampan.api.obj import Body, Key
from sampan.apiserver import admission
from sampan.apiserver.allocation import ServiceAllocator, port_key
from sampan.apiserver.authz import RbacAuthorizer
from sampan.apiserver.endpoint import ApiServer
from sampan.lib.clock import RealClock
from sampan.lib.ids import Ids
from sampan.schema.walk import Schemas
from sampan.store.base import Delete, Put
from sampan.store.sqlite import SqliteStore
from sampan.testing.api import client_of

IPS = "ipaddresses.networking.k8s.io"
_PORTS = "allocations/nodeports/"
# A server that creates and deletes Services as fast as it can and tells what was acknowledged.
CHILD = """
import asyncio, json, sys
from pathlib import Path
from tests.apiserver.test_allocation_durable import work
asyncio.run(work(Path(sys.argv[1]), sys.argv[2]))
"""


async def server(store: SqliteStore, seed: int, **how: Any) -> ApiServer:
    api = ApiServer(
        registry=builtin(), schemas=Schemas.load(), store=store, clock=RealClock(),
        ids=Ids(random.Random(seed)), authorizer=RbacAuthorizer(), admission=admission.builtin(),
        services=ServiceAllocator(**how),
    )  # fmt: skip
    await api.bootstrap()
    await api.authorizer.start(api.store)
    return api


def service(name: str, **spec: Any) -> Body:
    ports = [{"name": "a", "port": 80}, {"name": "b", "port": 81}]
    return {"metadata": {"name": name}, "spec": {"type": "NodePort", "ports": ports, **spec}}


async def work(directory: Path, tag: str) -> None:
    """Runs until it is killed."""
    api = await server(await SqliteStore.open(directory), int(tag))
    client = client_of(api)

    async def one(worker: int) -> None:
        for i in range(100_000):
            name = f"s{tag}-{worker}-{i}"
            made = await client.create("services", service(name), "default")
            ports = [p["nodePort"] for p in made.spec["ports"]]
            print(json.dumps(["created", name, made.spec["clusterIP"], *ports]), flush=True)
            if i % 3 == 2:
                # Told first: a delete that nobody acknowledged may have happened.
                print(json.dumps(["deleting", name]), flush=True)
                await client.delete("services", name, "default")

    await asyncio.gather(*(one(n) for n in range(4)))


async def check(api: ApiServer) -> dict[str, tuple[str, ...]]:
    """What is held is what Services show, no more and no less; the Services with what they have."""
    client = client_of(api)
    found = {
        s.name: (s.spec["clusterIP"], *(str(p["nodePort"]) for p in s.spec["ports"]))
        for s in (await client.list("services", "default")).items
    }
    held = {o.name: o.spec["parentRef"]["name"] for o in (await client.list(IPS)).items}
    assert held == {has[0]: name for name, has in found.items()}
    records = (await api.store.range(_PORTS)).records
    reserved = {r.key.removeprefix(_PORTS): orjson.loads(r.value)["name"] for r in records}
    assert reserved == {port: name for name, has in found.items() for port in has[1:]}
    return found


def test_killed_at_any_moment_nothing_is_lost_doubled_or_leaked(tmp_path: Path) -> None:
    rng = random.Random(5)
    told: dict[str, tuple[str, ...]] = {}  # acknowledged
    doubtful: set[str] = set()  # being deleted when the process was killed, or before
    for round_ in range(4):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path / "store"), str(round_)],
            stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        assert child.stdout is not None
        for _ in range(rng.randrange(40, 160)):
            _note(child.stdout.readline(), told, doubtful)
        os.kill(child.pid, signal.SIGKILL)
        for line in child.stdout:
            if line.endswith("\n"):
                _note(line, told, doubtful)
        child.wait()

        async def look() -> None:
            store = await SqliteStore.open(tmp_path / "store")
            api = await server(store, 99)
            try:
                found = await check(api)
                assert {n: v for n, v in told.items() if n not in doubtful}.items() <= found.items()
                assert api.services is not None
                assert not any(api.services.take_repaired("default", n) for n in found)
            finally:
                await api.authorizer.stop()
                await store.close()

        asyncio.run(look())
    assert len(told) > 60


def _note(line: str, told: dict[str, tuple[str, ...]], doubtful: set[str]) -> None:
    what, name, *has = json.loads(line)
    if what == "created":
        told[name] = (has[0], *map(str, has[1:]))
    else:
        doubtful.add(name)


def test_a_thousand_at_once_get_a_thousand(tmp_path: Path) -> None:
    async def main() -> None:
        store = await SqliteStore.open(tmp_path / "store")
        api = await server(store, 7)
        client = client_of(api)
        try:
            await asyncio.gather(
                *(client.create("services", service(f"s{i}"), "default") for i in range(1000))
            )
            found = await check(api)
            assert len(found) == 1000
            assert max(Counter(x for has in found.values() for x in has).values()) == 1
            # Nobody got anything of the bands that are kept for those who ask by number.
            addresses = [ipaddress.ip_address(has[0]) for has in found.values()]
            assert min(addresses) > ipaddress.ip_address("10.43.1.0")
            assert min(int(p) for has in found.values() for p in has[1:]) >= 30086
            # Two ask for the same at the same moment: one gets it.
            same = service("", clusterIP="10.43.0.50")
            asked = [
                client.create("services", {**same, "metadata": {"name": f"t{i}"}}, "default")
                for i in range(20)
            ]
            results = await asyncio.gather(*asked, return_exceptions=True)
            refused = [r for r in results if isinstance(r, StatusError)]
            assert len(refused) == 19
            assert all("provided IP is already allocated" in r.message for r in refused)
            assert len(await check(api)) == 1001
            await asyncio.gather(
                *(client.delete("services", name, "default") for name in await check(api))
            )
            assert await check(api) == {}
        finally:
            await api.authorizer.stop()
            await store.close()

    asyncio.run(main())


@pytest.mark.parametrize("band", ["addresses", "ports"])
def test_the_lower_band_is_used_when_the_upper_one_is_full(tmp_path: Path, band: str) -> None:
    """KEP-3070 and KEP-3668: numbers that are asked for come from below, so that by chance nobody
    has them; only when all others are gone they are handed out too."""

    async def main() -> None:
        how: dict[str, Any] = {"cidrs": ("10.43.0.0/24",), "ports": (30000, 30511)}
        store = await SqliteStore.open(tmp_path / "store")
        api = await server(store, 3, **how)
        client = client_of(api)
        count = 0
        try:
            if band == "addresses":
                low = {f"10.43.0.{n}" for n in range(1, 17)} - {"10.43.0.10"}
                size = 254 - 1  # the tenth is kept
            else:
                low, size = {str(n) for n in range(30000, 30016)}, 512
            given: list[str] = []
            while len(given) < size:
                kind = "ClusterIP" if band == "addresses" else "NodePort"
                spec: dict[str, Any] = {"type": kind}
                if band == "ports":
                    ports = [{"name": f"p{i}", "port": 1000 + i} for i in range(32)]
                    # (addresses are not what this is about: sixteen services use few)
                    spec["ports"] = ports
                made = await client.create("services", service(f"s{count}", **spec), "default")
                count += 1
                if band == "addresses":
                    given.append(made.spec["clusterIP"])
                else:
                    given += [str(p["nodePort"]) for p in made.spec["ports"]]
            first = next(i for i, x in enumerate(given) if x in low)
            assert first == size - len(low)  # the band begins where all others are gone
            assert set(given[first:]) == low and len(set(given)) == size
        finally:
            await api.authorizer.stop()
            await store.close()

    asyncio.run(main())


def test_a_store_that_was_edited_while_nobody_ran_is_mended_at_the_start(tmp_path: Path) -> None:
    async def main() -> None:
        directory = tmp_path / "store"
        store = await SqliteStore.open(directory)
        api = await server(store, 1)
        made = await client_of(api).create("services", service("s"), "default")
        first, second = (p["nodePort"] for p in made.spec["ports"])
        await api.authorizer.stop()
        await store.close()

        store = await SqliteStore.open(directory)
        leaked = orjson.dumps({"namespace": "default", "name": "gone"})
        foreign = orjson.dumps({"namespace": "other", "name": "s"})
        await store.commit(
            Delete(port_key(first)), Put(port_key(second), foreign), Put(port_key(32000), leaked)
        )
        await store.close()

        store = await SqliteStore.open(directory)
        api = await server(store, 2)
        try:
            assert list((await check(api)).values()) == [
                (made.spec["clusterIP"], str(first), str(second))
            ]
            assert api.services is not None
            assert api.services.take_repaired("default", "s") == [first]
            again = service("t", ports=[{"port": 80, "nodePort": first}])
            with pytest.raises(StatusError, match="provided port is already allocated"):
                await client_of(api).create("services", again, "default")
            assert await store.get(Key("services", "default", "t").path) is None
        finally:
            await api.authorizer.stop()
            await store.close()

    asyncio.run(main())
