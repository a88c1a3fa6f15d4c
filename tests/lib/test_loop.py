"""Virtual time, also where numbers are large."""

from __future__ import annotations

import asyncio

import pytest

from sampan.lib.loop import START, VirtualClock, run_virtual


@pytest.mark.parametrize("days", [1, 194, 195, 3660, 36600])
def test_time_goes_on_however_much_has_gone_by(days: int) -> None:
    async def main() -> list[float]:
        loop, seen = asyncio.get_running_loop(), []
        await asyncio.sleep(days * 86400.0)
        for seconds in (0.1, 21600.0, 1.0):
            await asyncio.sleep(seconds)
            seen.append(loop.time() - days * 86400.0)
        assert VirtualClock().now() == START + loop.time()
        return seen

    assert run_virtual(main()) == pytest.approx([0.1, 21600.1, 21601.1], abs=1e-4)


def test_timers_fire_in_their_order() -> None:
    async def main() -> list[int]:
        seen: list[int] = []

        async def note(n: int) -> None:
            await asyncio.sleep(n / 10)
            seen.append(n)

        await asyncio.gather(*(note(n) for n in (5, 1, 3, 2, 4)))
        return seen

    assert run_virtual(main()) == [1, 2, 3, 4, 5]
