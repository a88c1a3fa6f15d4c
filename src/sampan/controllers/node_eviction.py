"""NoExecute taints of nodes that are not ready, zone by zone and not all at once (node lifecycle,
of the whole cluster).

Where a whole cluster is silent it is rather this controller that is cut off: then nothing is
evicted. How fast taints are given is read from the taints themselves (``timeAdded``), so that a
restart changes nothing, and kept in mind where they are taken back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sampan.api.obj import Key, Obj
from sampan.control.plan import Action, Again, Caches, Trigger, Update
from sampan.controllers import nodes
from sampan.controllers.node_health import NAME
from sampan.lib.clock import parse_rfc3339

RATE, SLOW_RATE = 0.1, 0.01  # nodes per second and zone
LARGE = 50  # nodes from which on a zone in trouble is still evicted from, slowly
UNHEALTHY = 0.55  # the part of a zone that makes it a zone in trouble
NORMAL, PARTIAL, FULL = "Normal", "PartialDisruption", "FullDisruption"
_KEY = Key("nodes", "", "")
_OURS = (nodes.NOT_READY, nodes.UNREACHABLE)


@dataclass(frozen=True, slots=True)
class View:
    """All nodes. given: by zone, when one of its nodes was tainted last."""

    nodes: tuple[Obj, ...]
    given: Mapping[str, float] = field(default_factory=dict)


def zone_state(found: Sequence[Obj]) -> str:
    """How a zone is."""
    bad = sum(nodes.ready(n) != "True" for n in found)
    if bad and bad == len(found):
        return FULL
    if bad > 2 and bad / len(found) >= UNHEALTHY:
        return PARTIAL
    return NORMAL


def rate(state: str, size: int, *, all_full: bool) -> float:
    """Nodes per second that may be tainted in a zone."""
    if all_full:
        return 0.0
    if state == PARTIAL:
        return SLOW_RATE if size > LARGE else 0.0
    return RATE


class NodeEviction:
    """Gives and takes NoExecute taints by the Ready condition."""

    name = NAME
    workers = 1

    def __init__(self) -> None:
        self.triggers: tuple[Trigger, ...] = (Trigger("nodes", lambda _node, _caches: (_KEY,)),)
        self.indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]] = {}
        self._given: dict[str, float] = {}

    def observe(self, key: Key, caches: Caches) -> View | None:
        found = tuple(sorted(caches["nodes"].list(), key=lambda n: n.name))
        for node in found:
            zone = nodes.zone(node)
            for taint in nodes.taints(node, "NoExecute"):
                self._given[zone] = max(self._given.get(zone, 0.0), _added(taint))
        return View(found, dict(self._given))

    def plan(self, view: View, now: float) -> Sequence[Action]:
        zones: dict[str, list[Obj]] = {}
        for node in view.nodes:
            zones.setdefault(nodes.zone(node), []).append(node)
        counted = {
            name: [n for n in found if nodes.EXCLUDED not in n.labels]
            for name, found in zones.items()
        }
        states = {name: zone_state(found) for name, found in counted.items()}
        told = [states[name] for name, found in counted.items() if found]
        all_full = bool(told) and all(s == FULL for s in told)
        actions: list[Action] = []
        for name, found in zones.items():
            speed = rate(states[name], len(counted[name]), all_full=all_full)
            last = view.given.get(name, 0.0)
            actions += _zone(found, speed, last, now, give_back=all_full)
        return actions


def _zone(
    found: Sequence[Obj], speed: float, last: float, now: float, *, give_back: bool
) -> list[Action]:
    """last: when a node of the zone was tainted."""
    actions: list[Action] = []
    waiting: list[tuple[Obj, str]] = []
    for node in found:
        key = {"False": nodes.NOT_READY, "Unknown": nodes.UNREACHABLE}.get(nodes.ready(node), "")
        held = {t["key"] for t in nodes.taints(node, "NoExecute")} & set(_OURS)
        if not key or give_back:
            actions += _set(node, (), now)
        elif held:
            actions += _set(node, (key,), now)  # one for the other: nobody is hit anew
        else:
            waiting.append((node, key))
    if not waiting or not speed:
        return actions
    due = last + 1 / speed
    if due > now:
        return [*actions, Again(due - now)]
    node, key = waiting[0]
    actions += _set(node, (key,), now)
    return [*actions, Again(1 / speed)] if len(waiting) > 1 else actions


def _added(taint: dict[str, str]) -> float:
    at = taint.get("timeAdded")
    return parse_rfc3339(at) if at and taint["key"] in _OURS else 0.0


def _set(node: Obj, wanted: Iterable[str], now: float) -> list[Action]:
    body = nodes.with_taints(node, "NoExecute", _OURS, wanted, now)
    return [] if body is None else [Update("nodes", body)]
