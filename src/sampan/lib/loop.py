"""Virtual time: a loop that jumps to the next timer instead of waiting for it.

No threads and no sockets may be waited for: the loop would not know of them.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
START = 1_700_000_000.0
# A timer is due when its time is less than now and this. The machine's own resolution (1e-9) is
# nothing beside 2**24 seconds: after 194 days no timer would ever be due.
_RESOLUTION = 1e-6


class _Jump(selectors.DefaultSelector):
    """Never blocks: where it would wait, it moves the loop's time on."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            raise RuntimeError("nothing will ever happen any more")
        self.loop.passed += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its time starts at 0: near the epoch's values a float cannot tell timers apart."""

    def __init__(self) -> None:
        self.passed = 0.0
        selector = _Jump()
        selector.loop = self
        super().__init__(selector)
        self._clock_resolution = _RESOLUTION

    def time(self) -> float:
        return self.passed


class VirtualClock:
    """The running loop's time, as if it had been START when that time was *began*."""

    def __init__(self, began: float = 0.0) -> None:
        self._offset = START - began

    def now(self) -> float:
        return self._offset + asyncio.get_running_loop().time()


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run *main* to its end in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


class _Step(selectors.DefaultSelector):
    """Waits as others do, except while the loop's time is being moved on."""

    loop: SteppedLoop

    def select(self, timeout: float | None = None) -> Any:
        loop = self.loop
        if loop.left <= 0 or timeout == 0:
            return super().select(timeout)
        ready = super().select(0)
        if ready:
            return ready
        step = loop.left if timeout is None else min(timeout, loop.left)
        loop.skipped += step
        loop.left -= step
        if loop.left <= 0:
            loop.call_soon(loop.arrived.set)
        return []


class SteppedLoop(asyncio.SelectorEventLoop):
    """Real time that can be moved on: what was to happen in the time skipped happens in its order.

    Sockets and threads work. What happens elsewhere - another thread, a client's process - takes
    its real time: it is not waited for while time is skipped.
    """

    def __init__(self) -> None:
        self.skipped = 0.0
        self.left = 0.0  # still to be skipped
        self.arrived = asyncio.Event()
        self._began = time.monotonic()
        selector = _Step()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return time.monotonic() - self._began + self.skipped

    async def advance(self, seconds: float) -> None:
        """Returns when so much time has gone by."""
        if seconds <= 0:
            return
        self.arrived.clear()
        self.left = seconds
        await self.arrived.wait()
