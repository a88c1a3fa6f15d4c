"""Both stores: the contract, and random histories against a model."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.store.base import Change, Compacted, Conflict, Corrupt, Delete, Put, Store
from sampan.store.memory import MemoryStore
from sampan.store.sqlite import SqliteStore
from sampan.testing.store_contract import CONTRACT, Check, take

VOLATILE = ("events/", "leases.coordination.k8s.io/")
Open = Callable[[], Awaitable[Store]]


@pytest.fixture(params=["memory", "sqlite"])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    async def memory() -> Store:
        return MemoryStore(volatile=VOLATILE)

    async def sqlite() -> Store:
        return await SqliteStore.open(tmp_path / "store", volatile=VOLATILE)

    return memory if request.param == "memory" else sqlite


@pytest.mark.parametrize("check", CONTRACT, ids=lambda c: c.__name__)
def test_contract(check: Check, opener: Open) -> None:
    async def run() -> None:
        store = await opener()
        try:
            await check(store)
        finally:
            await store.close()

    asyncio.run(run())


KEYS = st.sampled_from([f"{b}/{n}/{i}" for b in ("a", "events") for n in "xy" for i in range(3)])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), KEYS),
        st.tuples(st.just("delete"), KEYS),
        st.tuples(st.just("watch"), st.sampled_from(["a/", "a/x/", "events/"])),
        st.tuples(st.just("compact"), st.just("")),
    ),
    max_size=50,
)


@settings(max_examples=80, deadline=None)
@given(steps=STEPS, kind=st.sampled_from(["memory", "sqlite"]), together=st.booleans())
def test_watches_see_every_change_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str]], kind: str,
    together: bool,
) -> None:  # fmt: skip
    """Against a model: a list of changes. Watches begin at random revisions; writers run one after
    the other, or all at once."""

    async def run() -> None:
        store: Store = MemoryStore()
        if kind == "sqlite":
            path = tmp_path_factory.mktemp("store")
            store = await SqliteStore.open(path, volatile=VOLATILE)
        observer = {b: store.watch(b, since=store.revision) for b in ("a/", "events/")}
        started: list[tuple[str, int]] = []
        oldest = store.revision

        async def step(number: int, what: str, key: str) -> None:
            nonlocal oldest
            if what == "watch":
                started.append((key, store.revision))
            elif what == "compact":
                oldest = store.revision
                await store.compact(oldest)
            else:
                op = Put(key, b"%d" % number) if what == "put" else Delete(key)
                try:
                    await store.commit(op)
                except Conflict:
                    assert what == "delete"

        if together:
            await asyncio.gather(*(step(i, *s) for i, s in enumerate(steps)))
        else:
            for i, s in enumerate(steps):
                await step(i, *s)
        seen: dict[str, list[Change]] = {}
        for name, watch in observer.items():
            seen[name] = []
            while watch.position < store.revision or watch._pending:  # type: ignore[attr-defined]
                seen[name] += await take(watch, 1)
            revisions = [c.revision for c in seen[name]]
            assert revisions == sorted(set(revisions))
        state: dict[str, bytes] = {}
        for change in sorted((c for cs in seen.values() for c in cs), key=lambda c: c.revision):
            assert (change.previous.value if change.previous else None) == state.get(change.key)
            if change.record is None:
                del state[change.key]
            else:
                state[change.key] = change.record.value
        for name in observer:
            records = (await store.range(name)).records
            assert {r.key: r.value for r in records} == {
                k: v for k, v in state.items() if k.startswith(name)
            }
        for prefix, since in started:
            wanted = [
                c for c in seen[prefix.split("/")[0] + "/"]
                if c.revision > since and c.key.startswith(prefix)
            ]  # fmt: skip
            if since < oldest:
                with pytest.raises(Compacted):
                    store.watch(prefix, since=since)
            elif wanted:
                assert await take(store.watch(prefix, since=since), len(wanted)) == wanted
        await store.close()

    asyncio.run(run())


def test_what_was_written_is_there_after_a_restart(tmp_path: Path) -> None:
    async def run() -> None:
        store = await SqliteStore.open(tmp_path, volatile=VOLATILE)
        await store.commit(Put("a/x/1", b"1"))
        await store.commit(Put("events/x/1", b"e"))
        await store.commit(Put("a/x/2", b"2"))
        await store.commit(Delete("a/x/2"))
        last = store.revision
        await store.close()
        again = await SqliteStore.open(tmp_path, volatile=VOLATILE)
        assert again.revision == last
        assert [r.key for r in (await again.range("a/")).records] == ["a/x/1"]
        assert [r.value for r in (await again.range("events/")).records] == [b"e"]
        with pytest.raises(Compacted):
            again.watch("a/", since=last - 1)
        assert await again.commit(Put("a/x/3", b"3")) > last
        await again.close()

    asyncio.run(run())


def test_a_directory_in_use_is_refused(tmp_path: Path) -> None:
    async def run() -> None:
        store = await SqliteStore.open(tmp_path)
        with pytest.raises(Corrupt, match="in use by another process"):
            await SqliteStore.open(tmp_path)
        await store.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    "content", [b"not a database at all" * 99, b"SQLite format 3\0" + b"x" * 999]
)
def test_a_corrupt_file_is_one_clear_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state.db").write_bytes(content)
    with pytest.raises(Corrupt, match=r"state\.db is not a usable database") as e:
        asyncio.run(SqliteStore.open(tmp_path))
    assert "\n" not in str(e.value)
    assert (tmp_path / "state.db").read_bytes() == content  # nothing is lost


def test_a_foreign_database_is_left_alone(tmp_path: Path) -> None:
    import sqlite3

    db = sqlite3.connect(tmp_path / "state.db")
    db.execute("CREATE TABLE thesis (chapter)")
    db.commit()
    db.close()
    with pytest.raises(Corrupt, match="not a database of sampan"):
        asyncio.run(SqliteStore.open(tmp_path))


WRITER = """
import asyncio, os, signal, sys
from pathlib import Path
from sampan.store.base import Put
from sampan.store.sqlite import SqliteStore

async def main():
    store = await SqliteStore.open(Path(sys.argv[1]), volatile=("events/",))
    async def write(n):
        i = 0
        while True:
            i += 1
            key = f"a/{n}/{i:06d}"
            await store.commit(Put("events/x/1", b"e"))
            revision = await store.commit(Put(key, b"%d" % i))
            if key == sys.argv[2]:
                os.kill(os.getpid(), signal.SIGKILL)
            print(revision, key, flush=True)
    await asyncio.gather(*(write(n) for n in range(4)))

asyncio.run(main())
"""


def kept(acknowledged: dict[str, int], found: dict[str, int]) -> bool:
    """Whether a store that has *found* (keys and their revisions) lost nothing of what was
    *acknowledged*. A writer may have died between a write and its acknowledgment: one key of each
    writer may be newer, and then it is newer than all the writer had heard of."""
    if any(found.get(k, 0) < revision for k, revision in acknowledged.items()):
        return False
    newer = [k for k, revision in acknowledged.items() if found[k] > revision]
    writers = [k.split("/")[1] for k in newer]
    last = {
        n: max(r for k, r in acknowledged.items() if k.split("/")[1] == n) for n in set(writers)
    }
    return len(writers) == len(set(writers)) and all(
        found[k] > last[n] for k, n in zip(newer, writers, strict=True)
    )


@pytest.mark.parametrize(
    ("found", "good"),
    [
        ({"a/0/1": 5, "a/0/2": 6, "a/1/1": 7}, True),
        ({"a/0/1": 5, "a/0/2": 6, "a/1/1": 7, "a/1/2": 8}, True),  # a write nobody heard of
        ({"a/0/1": 9, "a/0/2": 6, "a/1/1": 8}, True),  # once more, by both, and nobody heard of it
        ({"a/0/1": 5, "a/0/2": 6}, False),  # lost
        ({"a/0/1": 5, "a/0/2": 4, "a/1/1": 7}, False),  # back to an older one
        ({"a/0/1": 8, "a/0/2": 9, "a/1/1": 7}, False),  # the first of the two was acknowledged
        ({"a/0/1": 6, "a/0/2": 6, "a/1/1": 7}, False),  # older than what its writer heard of
    ],
)
def test_what_a_killed_writer_may_leave(found: dict[str, int], good: bool) -> None:
    assert kept({"a/0/1": 5, "a/0/2": 6, "a/1/1": 7}, found) is good


def kill_once(
    directory: Path, rng: random.Random, acknowledged: dict[str, int], last: str = ""
) -> None:
    """Start a writer, kill it at a random moment (or once it has written *last*, before it says
    so), check that all it acknowledged is there. What is there then is acknowledged."""
    before = max(acknowledged.values(), default=0)
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(directory), last], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        lines = [writer.stdout.readline()]
        if not last:
            time.sleep(rng.uniform(0, 0.15))
            os.kill(writer.pid, signal.SIGKILL)
        lines += writer.stdout.read().splitlines()
    for line in lines:
        parts = line.split()
        if len(parts) == 2 and len(parts[1]) == 10:
            assert int(parts[0]) > before  # no revision is used twice
            acknowledged[parts[1]] = int(parts[0])

    async def read() -> dict[str, int]:
        store = await SqliteStore.open(directory)
        assert store.revision >= max(acknowledged.values())
        found = {r.key: r.revision for r in (await store.range("a/")).records}
        await store.close()
        return found

    found = asyncio.run(read())
    assert kept(acknowledged, found)
    acknowledged.update((k, found[k]) for k in acknowledged)


def test_a_writer_may_die_before_it_hears_of_a_second_write(tmp_path: Path) -> None:
    """The key has the newer revision then: that is no loss, and no revision is used twice."""
    acknowledged: dict[str, int] = {}
    rng = random.Random(0)
    kill_once(tmp_path, rng, acknowledged, "a/0/000009")
    first = dict(acknowledged)
    assert "a/0/000008" in first and "a/0/000009" not in first
    kill_once(tmp_path, rng, acknowledged, "a/0/000003")
    assert acknowledged["a/0/000003"] > max(first.values())
    kill_once(tmp_path, rng, acknowledged)


def kill_loop(directory: Path, rounds: int) -> None:
    rng = random.Random(7)
    for i in range(rounds):
        kill_once(directory / str(i % 3), rng, {})
    acknowledged: dict[str, int] = {}
    for _ in range(2):
        known = dict(acknowledged)
        kill_once(directory / "same", rng, acknowledged)
        assert acknowledged.keys() >= known.keys()


def test_nothing_acknowledged_is_lost_by_kill_9(tmp_path: Path) -> None:
    kill_loop(tmp_path, 3)


@pytest.mark.deep
def test_nothing_acknowledged_is_lost_by_many_kills(tmp_path: Path) -> None:
    kill_loop(tmp_path, 200)


def test_a_backup_is_the_store_as_of_one_revision(tmp_path: Path) -> None:
    async def main() -> None:
        store = await SqliteStore.open(tmp_path / "a", volatile=("events/",))
        await store.commit(Put("events/e", b"lazy", expect=0))
        stop = asyncio.Event()
        made = 0

        async def write() -> None:
            nonlocal made
            while not stop.is_set():
                # Two keys that always change together.
                await store.commit(Put(f"a/{made}", b"x"), Put(f"b/{made}", b"x"))
                made += 1

        writer = asyncio.create_task(write())
        while made < 20:
            await asyncio.sleep(0)
        (tmp_path / "b").mkdir()
        await store.backup(tmp_path / "b" / "state.db")
        stop.set()
        await writer
        await store.close()
        copy = await SqliteStore.open(tmp_path / "b", volatile=("events/",))
        firsts = [r.key[2:] for r in (await copy.range("a/")).records]
        seconds = [r.key[2:] for r in (await copy.range("b/")).records]
        assert firsts == seconds
        assert 20 <= len(firsts) <= made
        assert await copy.get("events/e") is not None
        await copy.close()

    asyncio.run(main())


def test_a_copy_under_load_is_a_state_that_was(tmp_path: Path) -> None:
    """Of a writer that goes on: everything it had before some moment, and nothing after it."""

    async def main() -> None:
        store = await SqliteStore.open(tmp_path / "store", volatile=VOLATILE)
        stop, counts = False, [0, 0, 0]

        async def write(who: int) -> None:
            while not stop:
                i = counts[who]
                # Two keys in one commit: never one without the other.
                await store.commit(
                    Put(f"a/{who}/{i:06}", b"x", expect=0), Put(f"b/{who}/{i:06}", b"x", expect=0)
                )
                counts[who] = i + 1
                await store.commit(Put(f"events/{who}", str(i).encode()))

        writers = [asyncio.create_task(write(w)) for w in range(3)]
        copies = []
        for n in range(5):
            while min(counts) < 10 * (n + 1):
                await asyncio.sleep(0)
            before = [*counts]
            await store.backup(tmp_path / f"copy{n}.db")
            copies.append((before, [*counts], store.revision))
        stop = True
        await asyncio.gather(*writers)
        await store.close()
        for n, (before, after, revision) in enumerate(copies):
            place = tmp_path / f"again{n}"
            place.mkdir()
            (tmp_path / f"copy{n}.db").rename(place / "state.db")
            again = await SqliteStore.open(place, volatile=VOLATILE)
            for who in range(3):
                held = [r.key for r in (await again.range(f"a/{who}/")).records]
                assert held == [f"a/{who}/{i:06}" for i in range(len(held))]
                twins = [
                    r.key.replace("b/", "a/") for r in (await again.range(f"b/{who}/")).records
                ]
                assert twins == held
                assert before[who] <= len(held) <= after[who] + 1
            assert max(r.revision for r in (await again.range("a/")).records) <= revision
            await again.close()

    asyncio.run(main())
