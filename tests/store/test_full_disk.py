"""A full disk: commits are refused in words, reads go on, nothing acknowledged is lost, and it
works again as soon as there is room. Played on a tmpfs of some megabytes, in a mount namespace of
its own.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from sampan.api.call import User
from sampan.api.errors import StatusError
from sampan.store.base import Corrupt, Delete, Put, Unwritable
from sampan.store.sqlite import SqliteStore

VOLATILE = ("events/",)
SIZE = 16 << 20


class Disk:
    """The small file system: ballast fills it to the last byte."""

    def __init__(self, root: Path) -> None:
        self.store = root / "store"
        self._ballast = root / "ballast"
        self._ballast.write_bytes(bytes(SIZE // 2))  # of others

    def fill(self) -> None:
        with self._ballast.open("ab", buffering=0) as file:
            for chunk in (65536, 4096, 1):
                try:
                    while file.write(b"\0" * chunk):
                        pass
                except OSError:
                    continue

    def empty(self) -> None:
        self._ballast.unlink()


async def acknowledged(store: SqliteStore, *, seconds: float = 30.0) -> dict[str, bytes]:
    """What could be written until the disk was full."""
    done: dict[str, bytes] = {}
    async with asyncio.timeout(seconds):
        for i in range(100_000):
            key, value = f"pods/d/{i:05}", os.urandom(3000)
            try:
                await store.commit(Put(key, value, expect=0))
            except Unwritable as e:
                assert "full" in str(e)
                return done
            done[key] = value
    raise AssertionError("the disk was never full")


async def held(store: SqliteStore) -> dict[str, bytes]:
    return {r.key: r.value for r in (await store.range("pods/")).records}


async def refuses_reads_and_recovers(disk: Disk) -> None:
    store = await SqliteStore.open(disk.store, volatile=VOLATILE)
    done = await acknowledged(store)
    disk.fill()
    assert len(done) > 100
    before = store.revision
    watch = store.watch("pods/", since=before)
    # Many at once: each is refused, none hangs, nobody sees any of it.
    refused = await asyncio.gather(
        *(store.commit(Put(f"pods/e/{i}", b"x" * 3000, expect=0)) for i in range(20)),
        store.commit(Delete("pods/d/00001"), Put("pods/e/x", b"y" * 3000)),
        return_exceptions=True,
    )
    assert all(isinstance(r, Unwritable) for r in refused)
    assert await held(store) == done and store.revision == before
    # What is not kept on disk goes on meanwhile: leases are renewed, events are told.
    assert await store.commit(Put("events/d/1", b"told")) > before
    disk.empty()
    again = await store.commit(Put("pods/d/00001", b"again"))
    done["pods/d/00001"] = b"again"
    first = await anext(aiter(watch))
    assert [(c.key, c.revision) for c in first] == [("pods/d/00001", again)]
    await store.close()
    store = await SqliteStore.open(disk.store, volatile=VOLATILE)
    assert await held(store) == done and store.revision >= again
    assert (await store.get("events/d/1")) is not None
    await store.close()


async def closing_and_opening(disk: Disk) -> None:
    """Full while it stops, and full when it starts: one clear word, and all is there afterwards."""
    store = await SqliteStore.open(disk.store, volatile=VOLATILE)
    done = await acknowledged(store)
    await store.commit(Put("events/d/1", b"told" * 1000))
    disk.fill()
    await store.close()
    disk.fill()
    try:
        store = await SqliteStore.open(disk.store, volatile=VOLATILE)
        await store.close()
    except Corrupt as e:
        assert "cannot be written" in str(e) and "full" in str(e)
    disk.empty()
    store = await SqliteStore.open(disk.store, volatile=VOLATILE)
    assert await held(store) == done
    await store.commit(Put("pods/d/new", b"x"))
    await store.close()


async def killed_while_full(disk: Disk) -> None:
    store = await SqliteStore.open(disk.store, volatile=VOLATILE)
    done = await acknowledged(store)
    highest = await store.commit(Put("events/d/1", b"told"))
    disk.fill()
    with pytest.raises(Unwritable):
        await store.commit(Put("pods/e/1", b"x" * 3000))
    os.close(store._lock)  # as if it were killed: nothing is finished, nothing is closed
    disk.empty()
    store = await SqliteStore.open(disk.store, volatile=VOLATILE)
    assert await held(store) == done
    assert await store.commit(Put("pods/d/new", b"x")) > highest  # no revision is given twice
    await store.close()


async def through_the_api(disk: Disk) -> None:
    """A client is told what is wrong (a 500 in words), and reads as always."""
    from sampan.testing.api import api_server, client_of

    store = await SqliteStore.open(disk.store, volatile=VOLATILE)
    api = await api_server(store=store)
    client = client_of(api, User("admin", ("system:masters",)))
    for i in range(150):
        body = {"metadata": {"name": f"small{i}", "namespace": "default"}}
        await client.create("configmaps", body, "default")
    body = {"metadata": {}, "data": {"x": "y" * 200_000}}
    with pytest.raises(StatusError) as failure:
        for i in range(100):
            body["metadata"] = {"name": f"big{i}", "namespace": "default"}
            await client.create("configmaps", body, "default")
    assert (failure.value.code, failure.value.reason) == (500, "InternalError")
    assert "the store cannot be written: database or disk is full" in failure.value.message
    disk.fill()
    items = (await client.list("configmaps", "default")).items
    names = [c.name for c in items if c.name.startswith("big")]
    assert len(names) >= 2
    # What is there can be changed and deleted, which makes room.
    patch = {"metadata": {"labels": {"seen": "full"}}}
    for i in range(150):
        await client.patch("configmaps", f"small{i}", patch, "default")
    for name in names:
        await client.delete("configmaps", name, "default")
    await client.create("configmaps", {"metadata": {"name": "new"}}, "default")
    await store.close()


SCENES: dict[str, Callable[[Disk], Awaitable[None]]] = {
    f.__name__: f
    for f in (refuses_reads_and_recovers, closing_and_opening, killed_while_full, through_the_api)
}


@pytest.mark.parametrize("scene", sorted(SCENES))
def test_a_full_disk(scene: str, tmp_path: Path) -> None:
    mount = f"mount -t tmpfs -o size={SIZE} none {tmp_path}"
    play = f"exec {sys.executable} {__file__} {scene} {tmp_path}"
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", f"{mount} && {play}"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "played\n"


def test_what_builds_on_a_refused_commit_is_refused_too(tmp_path: Path) -> None:
    """It was written all the same: a key that had never been created was there."""

    async def main() -> None:
        store = await SqliteStore.open(tmp_path / "store")
        real, broken = store._write, True

        def write(*args: object) -> None:
            if broken:
                raise sqlite3.OperationalError("disk I/O error")
            real(*args)  # type: ignore[arg-type]

        store._write = write  # type: ignore[method-assign]
        first = asyncio.ensure_future(store.commit(Put("a/1", b"1", expect=0)))
        await asyncio.sleep(0)  # it is in line, and the writer begins with it
        second = asyncio.ensure_future(store.commit(Put("a/1", b"2")))
        other = asyncio.ensure_future(store.commit(Put("a/2", b"2")))
        await asyncio.sleep(0)
        done = await asyncio.gather(first, second, return_exceptions=True)
        assert [type(d) for d in done] == [Unwritable, Unwritable]
        broken = False
        await asyncio.gather(other, return_exceptions=True)
        await store.commit(Put("a/1", b"3", expect=0))
        await store.close()
        store = await SqliteStore.open(tmp_path / "store")
        assert [r.value for r in (await store.range("a/1")).records] == [b"3"]
        await store.close()

    asyncio.run(main())


if __name__ == "__main__":
    asyncio.run(SCENES[sys.argv[1]](Disk(Path(sys.argv[2]))))  # type: ignore[arg-type]
    print("played")
