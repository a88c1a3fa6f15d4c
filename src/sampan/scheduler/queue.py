"""The scheduling queue: what waits, why, and what wakes it. Knows no clock: ``now`` is given.

A pod is gated (PreEnqueue says no), active (to be looked at: the most important first, then the
one that came first), backing off (it failed and something has woken it), or unschedulable (it
failed; an event its plug-ins asked for, or five minutes, will wake it).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sampan.api.obj import Key, Obj
from sampan.scheduler.framework import PodInfo, Wake

_FIRST, _LONGEST = 1.0, 10.0  # seconds of back-off
_MOST_DOUBLINGS = 32  # more would be no number any more
_PATIENCE = 300.0  # seconds a pod is unschedulable at most


def back_off(failures: int, first: float = _FIRST, longest: float = _LONGEST) -> float:
    """Seconds to wait after so many failures."""
    return min(first * 2.0 ** min(max(0, failures - 1), _MOST_DOUBLINGS), longest)


@dataclass(slots=True, eq=False)
class Waiting:
    """A pod in the queue. since: when it came or last failed; plugins: those that rejected it;
    none: any event may help it."""

    pod: PodInfo
    since: float
    order: int
    failures: int = 0
    failed_at: float = 0.0
    plugins: frozenset[str] = frozenset()
    place: str = ""
    ready_at: float = field(default=0.0)

    @property
    def key(self) -> Key:
        return self.pod.obj.key


class SchedulingQueue:
    """wakes: by plug-in, the events that may cure its rejections. first, longest: seconds of
    back-off."""

    def __init__(
        self, wakes: Mapping[str, Sequence[Wake]], *, first: float = _FIRST,
        longest: float = _LONGEST,
    ) -> None:  # fmt: skip
        self._first, self._longest = first, longest
        self._wakes: dict[tuple[str, str], list[tuple[str, Wake]]] = {}
        for plugin, group in wakes.items():
            for wake in group:
                for kind in wake.on:
                    self._wakes.setdefault((wake.resource, kind), []).append((plugin, wake))
        self._all: dict[Key, Waiting] = {}
        self._active: list[tuple[int, float, int, Waiting]] = []
        self._backing_off: list[tuple[float, int, Waiting]] = []
        self._unschedulable: dict[Key, Waiting] = {}
        self._orders = 0

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, key: Key) -> bool:
        return key in self._all

    def place_of(self, key: Key) -> str:
        """gated, active, backing off, unschedulable, in hand; '' if the pod is not here."""
        held = self._all.get(key)
        return held.place if held is not None else ""

    # -- coming and going

    def add(self, pod: PodInfo, now: float, *, gated: bool = False) -> None:
        """A pod that waits for a node, new or changed in what decides about it."""
        key = pod.obj.key
        held = self._all.get(key)
        if held is None or held.pod.uid != pod.uid:
            self._orders += 1
            held = self._all[key] = Waiting(pod, now, self._orders)
        else:
            held.pod = pod
        self._unschedulable.pop(key, None)
        if gated:
            held.place = "gated"
        elif held.place == "in hand":
            pass  # whoever has it will bring it back, as it is now
        else:
            self._wake(held, now)

    def update(self, pod: PodInfo) -> None:
        """The pod's newest state, of which nothing decides."""
        held = self._all.get(pod.obj.key)
        if held is not None and held.pod.uid == pod.uid:
            held.pod = pod

    def remove(self, key: Key) -> None:
        held = self._all.pop(key, None)
        if held is not None:
            held.place = ""
            self._unschedulable.pop(key, None)

    def pop(self, now: float) -> Waiting | None:
        """The next pod to look at; it is in hand until ``remove``, ``failed`` or ``again``. When
        nothing else is active, the pod that has backed off longest is taken early."""
        self._end_back_offs(now)
        held = self._next_active() or self._earliest()
        if held is not None:
            held.place = "in hand"
        return held

    def _earliest(self) -> Waiting | None:
        """The pod whose back-off ends first, if it was an event that woke it."""
        while self._backing_off:
            _, _, held = self._backing_off[0]
            if held.place == "backing off" and not held.plugins:
                return None
            heapq.heappop(self._backing_off)
            if held.place == "backing off":
                return held
        return None

    def _next_active(self) -> Waiting | None:
        while self._active:
            _, _, _, held = heapq.heappop(self._active)
            if held.place == "active":
                return held
        return None

    def failed(self, held: Waiting, now: float, plugins: frozenset[str]) -> None:
        """No node for it; *plugins* said no."""
        if self._all.get(held.key) is not held:
            return
        held.failures += 1
        held.failed_at = held.since = now
        held.plugins = plugins
        held.place = "unschedulable"
        self._unschedulable[held.key] = held

    def again(self, held: Waiting, now: float) -> None:
        """A node was found but something went wrong: after its back-off, whatever happens."""
        if self._all.get(held.key) is not held:
            return
        held.failures += 1
        held.failed_at = held.since = now
        held.plugins = frozenset()
        self._back_off(held, now)

    # -- waking

    def event(self, resource: str, kind: str, old: Obj | None, new: Obj | None, now: float) -> None:
        """Something happened; wake the pods it may help."""
        if not self._unschedulable:
            return
        wakes = self._wakes.get((resource, kind), ())
        for held in [*self._unschedulable.values()]:
            if not held.plugins or _helps(wakes, held, old, new):
                del self._unschedulable[held.key]
                self._wake(held, now)

    def wake(self, keys: Iterable[Key], now: float) -> None:
        for key in keys:
            held = self._unschedulable.pop(key, None)
            if held is not None:
                self._wake(held, now)

    def flush(self, now: float) -> None:
        """Whatever the events missed: nobody is unschedulable for more than five minutes."""
        self.wake(
            [k for k, h in self._unschedulable.items() if h.failed_at + _PATIENCE <= now], now
        )

    def next_due(self) -> float | None:
        """When to call ``flush`` and ``pop`` next though nothing happens."""
        times = [self._backing_off[0][0]] if self._backing_off else []
        oldest = next(iter(self._unschedulable.values()), None)
        if oldest is not None:
            times.append(oldest.failed_at + _PATIENCE)
        return min(times, default=None)

    def _wake(self, held: Waiting, now: float) -> None:
        if held.failures and self._ready_at(held) > now:
            self._back_off(held, now)
        else:
            self._activate(held)

    def _activate(self, held: Waiting) -> None:
        held.place = "active"
        heapq.heappush(self._active, (-held.pod.priority, held.since, held.order, held))

    def _back_off(self, held: Waiting, now: float) -> None:
        held.place = "backing off"
        held.ready_at = self._ready_at(held)
        heapq.heappush(self._backing_off, (held.ready_at, held.order, held))

    def _ready_at(self, held: Waiting) -> float:
        return held.failed_at + back_off(held.failures, self._first, self._longest)

    def _end_back_offs(self, now: float) -> None:
        while self._backing_off and self._backing_off[0][0] <= now:
            ready_at, _, held = heapq.heappop(self._backing_off)
            if held.place == "backing off" and held.ready_at == ready_at:
                self._activate(held)


def _helps(
    wakes: Sequence[tuple[str, Wake]], held: Waiting, old: Obj | None, new: Obj | None
) -> bool:
    return any(
        plugin in held.plugins and (wake.hint is None or wake.hint(held.pod, old, new))
        for plugin, wake in wakes
    )
