"""What every store promises, as checks any implementation can be given to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from sampan.store.base import Change, Compacted, Conflict, Delete, Put, Store, Watch

Open = Callable[[], Awaitable[Store]]
Check = Callable[[Store], Awaitable[None]]


async def take(watch: Watch, count: int) -> list[Change]:
    """The next *count* changes."""
    found: list[Change] = []
    async for batch in watch:
        found += batch
        if len(found) >= count:
            break
    return found


async def refused(commit: Awaitable[int]) -> Conflict:
    try:
        await commit
    except Conflict as e:
        return e
    raise AssertionError("was not refused")


async def revisions_grow(store: Store) -> None:
    first = await store.commit(Put("a/x/1", b"1"))
    second = await store.commit(Put("a/x/1", b"2"))
    record = await store.get("a/x/1")
    assert record is not None and record.value == b"2"
    assert (record.revision, record.created) == (second, first)
    assert second > first and store.revision == second


async def expectations_hold(store: Store) -> None:
    revision = await store.commit(Put("a/x/1", b"1", expect=0))
    conflict = await refused(store.commit(Put("a/x/1", b"2", expect=0)))
    assert conflict.current is not None and conflict.current.revision == revision
    await refused(store.commit(Put("a/x/1", b"2", expect=revision - 1)))
    await refused(store.commit(Delete("a/x/2")))
    await refused(store.commit(Delete("a/x/1", expect=revision + 5)))
    await store.commit(Delete("a/x/1", expect=revision))
    assert await store.get("a/x/1") is None


async def commits_are_whole(store: Store) -> None:
    await store.commit(Put("a/x/1", b"1"))
    before = store.revision
    await refused(store.commit(Put("a/x/2", b"2"), Put("a/x/1", b"3", expect=0)))
    assert await store.get("a/x/2") is None and store.revision == before
    watch = store.watch("a/", since=before)
    revision = await store.commit(Put("a/x/2", b"2"), Delete("a/x/1"))
    changes = await take(watch, 2)
    assert [(c.key, c.revision) for c in changes] == [("a/x/2", revision), ("a/x/1", revision)]
    watch.close()


async def ranges_continue(store: Store) -> None:
    for i in range(7):
        await store.commit(Put(f"a/x/{i}", b""))
    await store.commit(Put("a/xy/0", b""), Put("ab/x/0", b""))
    first = await store.range("a/x/", limit=3)
    assert [r.key for r in first.records] == ["a/x/0", "a/x/1", "a/x/2"]
    assert first.more and first.remaining == 4
    await store.commit(Put("a/x/35", b""))
    await store.commit(Delete("a/x/5"))
    rest = await store.range("a/x/", start="a/x/2\0", limit=0, revision=first.revision)
    assert [r.key[-1] for r in rest.records] == ["3", "4", "5", "6"] and not rest.more
    assert rest.revision == first.revision
    assert len((await store.range("a/")).records) == 8


async def history_is_readable(store: Store) -> None:
    first = await store.commit(Put("a/x/1", b"1"))
    await store.commit(Put("a/x/1", b"2"))
    await store.commit(Delete("a/x/1"))
    (record,) = (await store.range("a/", revision=first)).records
    assert record.value == b"1"


async def watches_resume(store: Store) -> None:
    start = store.revision
    first = await store.commit(Put("a/x/1", b"1"))
    await store.commit(Put("b/x/1", b"1"))
    watch = store.watch("a/", since=start)
    last = await store.commit(Put("a/x/1", b"2"))
    changes = await take(watch, 2)
    assert [c.revision for c in changes] == [first, last]
    assert changes[0].previous is None and changes[1].previous is changes[0].record
    after = await store.commit(Put("b/x/1", b"2"))
    assert watch.position == after  # nothing for it: still it is up to date
    watch.close()
    assert [c async for c in watch] == []


async def compaction_forgets(store: Store) -> None:
    start = store.revision
    await store.commit(Put("a/x/1", b"1"))
    middle = await store.commit(Put("a/x/1", b"2"))
    await store.commit(Put("a/x/1", b"3"))
    await store.compact(middle)
    for since in (start, middle - 1):
        try:
            store.watch("a/", since=since)
        except Compacted as e:
            assert e.oldest == middle
        else:
            raise AssertionError("was not compacted")
    watch = store.watch("a/", since=middle)
    assert len(await take(watch, 1)) == 1
    watch.close()
    try:
        await store.range("a/", revision=start)
    except Compacted:
        return
    raise AssertionError("a compacted revision was read")


async def concurrent_writers_lose_nothing(store: Store) -> None:
    await store.commit(Put("a/x/n", b"0"))
    watch = store.watch("a/", since=store.revision)

    async def add(times: int) -> None:
        for _ in range(times):
            while True:
                record = await store.get("a/x/n")
                assert record is not None
                try:
                    value = b"%d" % (int(record.value) + 1)
                    await store.commit(Put("a/x/n", value, expect=record.revision))
                    break
                except Conflict:
                    await asyncio.sleep(0)

    await asyncio.gather(*(add(10) for _ in range(5)))
    record = await store.get("a/x/n")
    assert record is not None and record.value == b"50"
    changes = await take(watch, 50)
    assert [c.record.value for c in changes if c.record] == [b"%d" % i for i in range(1, 51)]
    watch.close()


async def who_loses_can_see_the_winner(store: Store) -> None:
    """Also while the winner is still on its way: a loser that reads again must not lose again
    against the same write."""
    first = await store.commit(Put("a/x/1", b"0", expect=0))
    winner = asyncio.create_task(store.commit(Put("a/x/1", b"1", expect=first)))
    await asyncio.sleep(0)
    await refused(store.commit(Put("a/x/1", b"2", expect=first)))
    record = await store.get("a/x/1")
    assert record is not None and record.value == b"1"
    await store.commit(Put("a/x/1", b"2", expect=record.revision))
    await winner


async def slow_readers_are_told(store: Store) -> None:
    watch = store.watch("events/", since=store.revision)
    other = store.watch("a/", since=store.revision)
    for i in range(10_001):
        await store.commit(Put("events/x/1", b"%d" % i))
    try:
        await take(watch, 1)
    except Compacted:
        await store.commit(Put("a/x/1", b""))
        assert len(await take(other, 1)) == 1
        other.close()
        return
    raise AssertionError("a reader fell behind and was not told")


CONTRACT: Sequence[Check] = (
    revisions_grow, expectations_hold, commits_are_whole, ranges_continue, history_is_readable,
    watches_resume, compaction_forgets, concurrent_writers_lose_nothing,
    who_loses_can_see_the_winner, slow_readers_are_told,
)  # fmt: skip
