"""Faults by declaration, and the line between a component and the API on which they happen.

A component is a ``Process``: when it dies (``kill``), nothing it says reaches the API any more, at
whatever point between two writes that was. The world then starts another in its place.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, fields

from sampan.api.call import Call, User
from sampan.api.errors import StatusError, conflict
from sampan.api.obj import Event, Obj, Page
from sampan.client.base import Transport, Unknown

_READS = ("get", "list")
_LOST = "the connection was lost (simulated)"
_EXPIRED = "too old resource version (simulated)"
_UNAVAILABLE = "the server is currently unable to handle the request (simulated)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """How often what goes wrong. Chances are per call, or per event of a watch; times are the
    longest, in seconds.

    error: refused (503) before anything was done. lost: carried out, but the answer is lost.
    conflict: an update or patch is refused (409). slow: a call takes up to so long.
    watch_slow: an event comes up to so much later (the order stays). watch_drop: an event is
    lost with its stream, and comes again when the reader has resumed. watch_repeat: an event
    comes twice. watch_expire: a watch ends with 410 instead of its next event, so that its reader
    has to list anew and sees what happened meanwhile at once and in another order.
    kill: the component dies just before or just after a write. kill_one: of a control plane one
    controller alone does.
    """

    error: float = 0.0
    lost: float = 0.0
    conflict: float = 0.0
    slow: float = 0.0
    watch_slow: float = 0.0
    watch_drop: float = 0.0
    watch_repeat: float = 0.0
    watch_expire: float = 0.0
    kill: float = 0.0
    kill_one: float = 0.0

    @classmethod
    def parse(cls, given: dict[str, object]) -> Faults:
        """From a scenario's mapping. Raises ValueError for an unknown name or a bad number."""
        known = {f.name.replace("_", "-"): f.name for f in fields(cls)}
        values: dict[str, float] = {}
        for name, value in given.items():
            if name not in known:
                raise ValueError(f"faults.{name}: unknown fault (known: {', '.join(known)})")
            if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
                raise ValueError(f"faults.{name}: {value!r} is not a number of at least 0")
            values[known[name]] = float(value)
        return cls(**values)


NONE = Faults()


@dataclass(slots=True)
class Process:
    """Something that can die: a control plane, a node's agent."""

    name: str
    died: Callable[[Process], None]
    faults: Callable[[], Faults]
    rng: random.Random
    heard: Callable[[User, Call], None]  # told of every call that gets through
    alive: bool = True
    writes: int = 0
    kill_at: int = 0  # die around the n-th write from now on; 0: by chance only
    cuts: int = 0
    waits: dict[asyncio.Timeout, None] = field(default_factory=dict)  # readers of watches
    part_died: Callable[[str], bool] | None = None  # asked with a user's name: whether it can
    lives: dict[str, int] = field(default_factory=dict)  # user's name -> how often it died
    kill_part_at: dict[str, int] = field(default_factory=dict)  # its n-th write from now on

    def kill(self) -> None:
        """From now on nothing it says is heard, and nothing is heard by it."""
        if self.alive:
            self.alive = False
            self.cut()
            self.died(self)

    def kill_part(self, user: str) -> None:
        """Nothing the user says is heard any more, until there is a new line for it."""
        if self.alive and self.part_died is not None and self.part_died(user):
            self.lives[user] = self.lives.get(user, 0) + 1

    def cut(self) -> None:
        """Every watch it has ends; it may ask again."""
        self.cuts += 1
        waits, self.waits = self.waits, {}
        for wait in waits:
            wait.reschedule(asyncio.get_running_loop().time())

    def line(self, transport: Transport, user: User) -> Line:
        return Line(self, transport, user)


class Line:
    """A Transport that suffers what the faults of its process say."""

    def __init__(self, process: Process, transport: Transport, user: User) -> None:
        self._process = process
        self._transport = transport
        self._user = user
        self._life = process.lives.get(user.name, 0)

    async def call(self, call: Call) -> Obj | Page:
        process, faults, rng = self._process, self._process.faults(), self._process.rng
        if faults.slow:
            await asyncio.sleep(rng.random() * faults.slow)
        self._check()
        write = call.verb not in _READS
        death = self._death(faults) if write else None
        if death is not None and rng.random() < 0.5:
            death()
            self._check()
        if faults.error and rng.random() < faults.error:
            raise StatusError(503, "ServiceUnavailable", _UNAVAILABLE)
        if faults.conflict and call.verb in ("update", "patch") and call.name and (
            rng.random() < faults.conflict
        ):  # fmt: skip
            raise conflict(call.resource, call.name, "it has been changed (simulated)")
        process.heard(self._user, call)
        try:
            answer = await self._transport.call(call)
        finally:
            if death is not None:
                death()
        self._check()
        if write and faults.lost and rng.random() < faults.lost:
            raise Unknown("the answer was lost (simulated)")
        return answer

    def _death(self, faults: Faults) -> Callable[[], None] | None:
        """What dies around this write, if anything does."""
        process, user = self._process, self._user.name
        process.writes += 1
        if process.kill_at and process.writes >= process.kill_at:
            process.kill_at = 0
            return process.kill
        if faults.kill and process.rng.random() < faults.kill:
            return process.kill
        left = process.kill_part_at.pop(user, 0)
        if left > 1:
            process.kill_part_at[user] = left - 1
        elif left or (faults.kill_one and process.rng.random() < faults.kill_one):
            return lambda: process.kill_part(user)
        return None

    def _check(self) -> None:
        if not self._process.alive:
            raise Unknown(f"{self._process.name} is dead (simulated)")
        if self._life != self._process.lives.get(self._user.name, 0):
            raise Unknown(f"{self._user.name} is dead (simulated)")

    async def watch(self, call: Call) -> AsyncIterator[Event]:
        process, since = self._process, self._process.cuts
        self._check()
        events = aiter(self._transport.watch(call))
        while True:
            try:
                async with asyncio.timeout(None) as wait:
                    process.waits[wait] = None
                    event = await anext(events)
            except TimeoutError:
                raise Unknown(_LOST) from None
            except StopAsyncIteration:
                return
            finally:
                process.waits.pop(wait, None)
            if process.cuts != since:
                raise Unknown(_LOST)
            async for told in self._suffered(event):
                yield told

    async def _suffered(self, event: Event) -> AsyncIterator[Event]:
        faults, rng = self._process.faults(), self._process.rng
        if faults.watch_slow:
            await asyncio.sleep(rng.random() * faults.watch_slow)
        self._check()
        if faults.watch_drop and rng.random() < faults.watch_drop:
            raise Unknown(_LOST)
        if faults.watch_expire and rng.random() < faults.watch_expire:
            raise StatusError(410, "Expired", _EXPIRED)
        yield event
        if faults.watch_repeat and rng.random() < faults.watch_repeat:
            yield event

    async def close(self) -> None:
        await self._transport.close()
