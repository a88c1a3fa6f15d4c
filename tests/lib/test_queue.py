"""The work queue: once per burst, one at a time, back-off, nothing lost."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.lib.queue import WorkQueue


def test_a_burst_is_one_key_and_order_is_kept() -> None:
    async def main() -> None:
        queue: WorkQueue[str] = WorkQueue()
        for key in ("a", "b", "a", "c", "b"):
            queue.add(key)
        assert [await queue.get() for _ in range(3)] == ["a", "b", "c"]

    asyncio.run(main())


def test_a_key_added_while_it_is_worked_on_comes_again() -> None:
    async def main() -> None:
        queue: WorkQueue[str] = WorkQueue()
        queue.add("a")
        assert await queue.get() == "a"
        queue.add("a")
        assert len(queue) == 0 and not queue.is_idle
        queue.done("a")
        assert await queue.get() == "a"
        queue.done("a")
        assert queue.is_idle

    asyncio.run(main())


def test_back_off_doubles_and_is_forgotten() -> None:
    async def main() -> None:
        queue: WorkQueue[str] = WorkQueue(base=1.0, limit=5.0)
        assert [queue.retry("a") for _ in range(5)] == [1.0, 2.0, 4.0, 5.0, 5.0]
        assert {queue.retry("a") for _ in range(2000)} == {5.0}  # no number grows beyond bounds
        assert queue.retry("b") == 1.0
        queue.succeed("a")
        assert queue.retry("a") == 1.0
        queue.close()

    asyncio.run(main())


def test_the_earlier_appointment_stands() -> None:
    async def main() -> None:
        queue: WorkQueue[str] = WorkQueue()
        queue.add_after("a", 0.01)
        queue.add_after("a", 100.0)
        queue.add_after("b", 100.0)
        queue.add_after("b", 0.02)
        async with asyncio.timeout(5):
            assert [await queue.get(), await queue.get()] == ["a", "b"]
        queue.close()

    asyncio.run(main())


def test_a_waiter_that_is_cancelled_loses_nothing() -> None:
    async def main() -> None:
        queue: WorkQueue[str] = WorkQueue()
        waiter = asyncio.create_task(queue.get())
        await asyncio.sleep(0)
        waiter.cancel()
        await asyncio.gather(waiter, return_exceptions=True)
        queue.add("a")
        async with asyncio.timeout(1):
            assert await queue.get() == "a"

    asyncio.run(main())


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3)), max_size=40),
       st.integers(1, 4))  # fmt: skip
def test_every_addition_is_followed_by_work_and_never_two_at_once(
    additions: list[tuple[str, int]], workers: int
) -> None:
    async def main() -> None:
        queue: WorkQueue[str] = WorkQueue()
        version = dict.fromkeys("abc", 0)
        seen = dict.fromkeys("abc", 0)
        working: set[str] = set()

        async def work() -> None:
            while True:
                key = await queue.get()
                assert key not in working
                working.add(key)
                now = version[key]
                for _ in range(now % 3):
                    await asyncio.sleep(0)
                seen[key] = max(seen[key], now)
                working.discard(key)
                queue.done(key)

        tasks = [asyncio.create_task(work()) for _ in range(workers)]
        for key, turns in additions:
            version[key] += 1
            queue.add(key)
            for _ in range(turns):
                await asyncio.sleep(0)
        while not queue.is_idle:
            await asyncio.sleep(0)
        assert seen == version
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())
