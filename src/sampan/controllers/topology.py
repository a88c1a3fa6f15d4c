"""Topology aware hints: endpoints shared out to zones by what CPU each zone has.

Pure. Source of the rules: the annotation ``service.kubernetes.io/topology-mode`` and KEP-2433. A
zone gets endpoints in proportion to the allocatable CPU of its ready nodes; nobody is to be loaded
more than a fifth above its share. Where that cannot be, there are no hints and an event says why.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from sampan.api.obj import Body, Obj
from sampan.controllers import nodes as nodelib
from sampan.controllers.slices import Slice
from sampan.lib import quantity

TOPOLOGY_MODE = "service.kubernetes.io/topology-mode"
TOPOLOGY_HINTS = "service.kubernetes.io/topology-aware-hints"  # deprecated; counts first
NO_NODES = (
    "Insufficient Node information: allocatable CPU or zone not specified on one or more nodes"
)
FEW_ENDPOINTS = "Insufficient number of endpoints"
OVERLOAD = (
    "Unable to allocate minimum required endpoints to each zone without exceeding overload "
    "threshold"
)
NO_ZONE = "One or more endpoints do not have a zone specified"
_LEAST = 1 / (1 + 0.2)  # of its share, what a zone must have
_EXCLUDED = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")
Ratios = Mapping[str, float]  # zone -> its part of all CPU


@dataclass(frozen=True, slots=True)
class Share:
    """Of one zone: endpoints it must have, may have at most, and should have."""

    minimum: int
    maximum: int
    desired: float


def is_automatic(service: Obj) -> bool:
    """Whether its user asks for hints by CPU; these go before ``spec.trafficDistribution``."""
    notes = service.meta.get("annotations") or {}
    asked = notes.get(TOPOLOGY_HINTS)
    return (notes.get(TOPOLOGY_MODE) if asked is None else asked) in ("Auto", "auto")


def capacity(node: Obj) -> tuple[str, str] | None:
    """Zone and CPU of a node as far as it counts; None: it does not."""
    if any(label in node.labels for label in _EXCLUDED) or nodelib.ready(node) != "True":
        return None
    cpu = (node.status.get("allocatable") or {}).get("cpu", "0")
    return node.labels.get(nodelib.ZONE, ""), str(cpu)


def ratios(nodes: Iterable[Obj]) -> Ratios | None:
    """None: not enough is known of the nodes, or there is but one zone."""
    found: dict[str, Fraction] = {}
    for node in nodes:
        known = capacity(node)
        if known is None:
            continue
        zone, cpu = known[0], quantity.parse(known[1])
        if not zone or not cpu:
            return None
        found[zone] = found.get(zone, Fraction(0)) + cpu
    if len(found) < 2:
        return None
    total = math.ceil(sum(found.values()) * 1000)
    return {zone: math.ceil(cpu * 1000) / total for zone, cpu in sorted(found.items())}


def is_ready(endpoint: Body) -> bool:
    return endpoint["conditions"].get("ready") is True


def zones_of(endpoint: Body) -> list[str]:
    """The zones it is hinted to."""
    return [z["name"] for z in (endpoint.get("hints") or {}).get("forZones") or ()]


def counts(endpoints: Iterable[Body]) -> dict[str, int]:
    """How many ready endpoints are hinted to each zone."""
    found: dict[str, int] = {}
    for endpoint in endpoints:
        if is_ready(endpoint):
            for zone in zones_of(endpoint):
                found[zone] = found.get(zone, 0) + 1
    return found


def is_overloaded(held: Mapping[str, int], known: Ratios | None) -> bool:
    """Whether some zone has fewer endpoints than it must have. held: see ``counts``."""
    if not held:
        return False
    total = sum(held.values())
    return known is None or any(
        held.get(zone, 0) < math.ceil(total * ratio * _LEAST) for zone, ratio in known.items()
    )


def shares(known: Ratios | None, count: int) -> dict[str, Share] | str:
    """What each zone gets of *count* endpoints, or why that cannot be."""
    if known is None:
        return NO_NODES
    told = f" ({count} endpoints, {len(known)} zones)"
    if len(known) > count:
        return FEW_ENDPOINTS + told
    desired = {zone: ratio * count for zone, ratio in known.items()}
    least = {zone: math.ceil(d * _LEAST) for zone, d in desired.items()}
    spare = count - sum(least.values())
    if spare < 0:
        return OVERLOAD + told
    return {z: Share(n, n + spare, max(desired[z], float(n))) for z, n in least.items()}


def assign(slices: Sequence[Slice], known: Ratios | None) -> str:
    """Hint the endpoints of *slices* (all of a Service's of one address type), which carry the
    hints they have by now. Returns why there are none, '' where there are. Slices that need no
    other change are left alone while their hints do."""
    endpoints = [e for s in slices for e in s.endpoints]
    wanted = shares(known, sum(map(is_ready, endpoints)))
    if not isinstance(wanted, str) and any(is_ready(e) and not e.get("zone") for e in endpoints):
        wanted = NO_ZONE
    if isinstance(wanted, str):
        for endpoint in endpoints:
            endpoint.pop("hints", None)
        return wanted
    before = [zones_of(e) for e in endpoints]
    held: dict[str, int] = {}
    open_: list[Slice] = [s for s in slices if s.is_changed]
    for item in slices:
        if not item.is_changed:
            more = _kept(item.endpoints, held, wanted)
            if more is None:
                open_.append(item)
            else:
                _add(held, more)
    _share_out([e for s in open_ for e in s.endpoints], held, wanted)
    if not any(s.is_changed for s in slices):
        # A write for hints alone has to make them better, or writes would follow one another.
        after = [zones_of(e) for e in endpoints]
        if _faults(endpoints, after, wanted) >= _faults(endpoints, before, wanted):
            for endpoint, zones in zip(endpoints, before, strict=True):
                _hint(endpoint, zones)
    return ""


def _kept(
    endpoints: Sequence[Body], held: Mapping[str, int], wanted: Mapping[str, Share]
) -> dict[str, int] | None:
    """The hints of a slice by zone; None where they do not do (any more)."""
    for endpoint in endpoints:
        zones = zones_of(endpoint)
        if is_ready(endpoint) and (not zones or any(z not in wanted for z in zones)):
            return None
    found = counts(endpoints)
    if any(n + held.get(zone, 0) > wanted[zone].maximum for zone, n in found.items()):
        return None
    return found


def _add(held: dict[str, int], more: Mapping[str, int]) -> None:
    for zone, n in more.items():
        held[zone] = held.get(zone, 0) + n


def _hint(endpoint: Body, zones: Sequence[str]) -> None:
    if zones:
        endpoint["hints"] = {"forZones": [{"name": z} for z in zones]}
    else:
        endpoint.pop("hints", None)


def _share_out(
    endpoints: Sequence[Body], held: dict[str, int], wanted: Mapping[str, Share]
) -> None:
    """Each to its own zone first; then zones with too many give to those with too few."""
    for endpoint in endpoints:
        _hint(endpoint, [endpoint["zone"]] if is_ready(endpoint) else [])
    _add(held, counts(endpoints))
    giving, taking = _moves(held, wanted)
    for endpoint in endpoints:
        if not is_ready(endpoint) or not giving.get(endpoint["zone"]):
            continue
        zone = next((z for z in sorted(taking) if taking[z]), "")
        if not zone:
            return
        giving[endpoint["zone"]] -= 1
        taking[zone] -= 1
        _hint(endpoint, [zone])


def _moves(
    held: Mapping[str, int], wanted: Mapping[str, Share]
) -> tuple[dict[str, int], dict[str, int]]:
    """How many endpoints each zone gives away, and gets."""
    over = {z: held.get(z, 0) - s.desired for z, s in wanted.items() if held.get(z, 0) > s.desired}
    under = {z: s.desired - held.get(z, 0) for z, s in wanted.items() if held.get(z, 0) < s.desired}
    giving: dict[str, int] = {}
    taking: dict[str, int] = {}
    while True:
        giver, give = _most(over)
        taker, take = _most(under)
        if not giver or not taker or min(give, take) < 0.5 or max(give, take) < 1.0:
            return giving, taking
        _add(giving, {giver: 1})
        _add(taking, {taker: 1})
        over[giver] -= 1
        under[taker] -= 1


def _most(zones: Mapping[str, float]) -> tuple[str, float]:
    found = max(sorted(zones), key=lambda z: zones[z], default="")
    return (found, zones[found]) if found and zones[found] > 0 else ("", 0.0)


def _faults(
    endpoints: Sequence[Body], hints: Sequence[Sequence[str]], wanted: Mapping[str, Share]
) -> tuple[int, int]:
    """Ready endpoints without a hint, or with one to a zone that has no nodes and is not their own;
    endpoints that zones lack."""
    wrong = 0
    found: dict[str, int] = {}
    for endpoint, zones in zip(endpoints, hints, strict=True):
        if is_ready(endpoint):
            wrong += not zones or any(z not in wanted and z != endpoint["zone"] for z in zones)
            _add(found, dict.fromkeys(zones, 1))
    return wrong, sum(max(s.minimum - found.get(z, 0), 0) for z, s in wanted.items())
