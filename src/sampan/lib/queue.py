"""A work queue of keys: each is worked on by one at a time, once per burst of reasons."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
_MOST_DOUBLINGS = 64  # more would be no number any more


class WorkQueue(Generic[K]):
    """Keys wait in the order in which they were first added. A key that is added while it is being
    worked on waits until that is done, then comes again."""

    def __init__(self, *, base: float = 0.005, limit: float = 1000.0) -> None:
        self._ready: OrderedDict[K, None] = OrderedDict()
        self._working: set[K] = set()
        self._again: set[K] = set()
        self._failures: dict[K, int] = {}
        self._timers: dict[K, tuple[float, asyncio.TimerHandle]] = {}
        self._waiters: list[asyncio.Future[None]] = []
        self._base = base
        self._limit = limit

    def add(self, key: K) -> None:
        if key in self._working:
            self._again.add(key)
            return
        self._ready[key] = None
        while self._waiters:
            waiter = self._waiters.pop(0)
            if not waiter.done():
                waiter.set_result(None)
                break

    def add_after(self, key: K, seconds: float) -> None:
        """Add *key* in so many seconds; an earlier appointment of the same key stands."""
        loop = asyncio.get_running_loop()
        due = loop.time() + max(0.0, seconds)
        held = self._timers.get(key)
        if held is not None:
            if held[0] <= due:
                return
            held[1].cancel()
        self._timers[key] = (due, loop.call_at(due, self._due, key))

    def _due(self, key: K) -> None:
        del self._timers[key]
        self.add(key)

    def retry(self, key: K) -> float:
        """Add *key* after its back-off, which doubles with every failure; the seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = min(self._base * 2.0 ** min(failures, _MOST_DOUBLINGS), self._limit)
        self.add_after(key, delay)
        return delay

    def succeed(self, key: K) -> None:
        """Forget the failures of *key*."""
        self._failures.pop(key, None)

    async def get(self) -> K:
        """The next key; it is being worked on until ``done``."""
        while not self._ready:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            finally:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
        key, _ = self._ready.popitem(last=False)
        self._working.add(key)
        return key

    def done(self, key: K) -> None:
        self._working.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    @property
    def is_idle(self) -> bool:
        """Nothing is ready or being worked on (appointments may be pending)."""
        return not self._ready and not self._working

    def __len__(self) -> int:
        return len(self._ready)

    def close(self) -> None:
        for _, timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
