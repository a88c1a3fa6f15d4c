"""Node ports of Services that cannot be as they are: told in events, as nothing here can mend them.

The API server gives ports and keeps who has which; what differs for good was edited, or comes from
a store that was. Upstream looks through all services every three minutes; here a service is looked
at when it changes, and all of them at each start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sampan.api.obj import Body, Key, Obj
from sampan.control.facts import WARNING, Event
from sampan.control.plan import Action, Caches, own

_TEST = "tests/controllers/test_port_repair.py::"
NOT_ALLOCATED = Event(
    WARNING, "PortNotAllocated", "Port {port} is not allocated; repairing",
    _TEST + "test_a_reservation_that_was_lost_is_told_once",
)  # fmt: skip
ALREADY_ALLOCATED = Event(
    WARNING, "PortAlreadyAllocated",
    "Port {port} was assigned to multiple services; please recreate service",
    _TEST + "test_of_two_services_the_later_one_is_told",
)  # fmt: skip
OUT_OF_RANGE = Event(
    WARNING, "PortOutOfRange",
    "Port {port} is not within the port range {first}-{last}; please recreate service",
    _TEST + "test_a_port_outside_of_the_range_is_told",
)  # fmt: skip
EVENTS = (NOT_ALLOCATED, ALREADY_ALLOCATED, OUT_OF_RANGE)
_PORT = "nodePort"


def claimed(service: Obj) -> list[int]:
    """Every node port as often as it is claimed: protocols share one, but the same twice does not
    go, nor with the health check's."""
    seen: set[tuple[int, str]] = set()
    found: list[int] = []
    for port in service.spec.get("ports") or ():
        number, protocol = int(port.get("nodePort") or 0), str(port.get("protocol") or "TCP")
        if number and (number not in found or (number, protocol) in seen):
            found.append(number)
        seen.add((number, protocol))
    health = int(service.spec.get("healthCheckNodePort") or 0)
    if health and (health not in found or (health, "TCP") in seen):
        found.append(health)
    return found


def _index(service: Obj) -> Iterable[str]:
    return {str(p): None for p in claimed(service)}


@dataclass(frozen=True, slots=True)
class View:
    """ports: see ``claimed``. others: of them, those that an earlier service (by namespace and
    name) claims, too. repaired: whose reservations were missing when the API server started."""

    service: Body
    ports: tuple[int, ...]
    others: frozenset[int]
    repaired: tuple[int, ...]


class PortRepair:
    """ports: first and last of the range. repaired: takes what the API server had to reserve anew
    for a service (namespace, name) at its start."""

    name = "portallocator-repair-controller"
    workers = 1

    def __init__(
        self, ports: tuple[int, int], repaired: Callable[[str, str], Sequence[int]]
    ) -> None:
        self._ports = ports
        self._repaired = repaired
        self.triggers = (own("services"),)
        self.indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]] = {
            "services": {_PORT: _index}
        }

    def observe(self, key: Key, caches: Caches) -> View | None:
        service = caches["services"].get(key.namespace, key.name)
        ports = claimed(service) if service is not None else []
        if service is None or not ports:
            return None
        mine = (key.namespace, key.name)
        others = frozenset(
            p for p in ports
            if any((s.namespace, s.name) < mine for s in caches["services"].by(_PORT, str(p)))
        )  # fmt: skip
        return View(service.body, tuple(ports), others, tuple(self._repaired(*mine)))

    def plan(self, view: View, now: float) -> Sequence[Action]:
        first, last = self._ports
        actions: list[Action] = []
        seen: set[int] = set()
        for port in view.ports:
            if not first <= port <= last:
                told = OUT_OF_RANGE.about(view.service, port=port, first=first, last=last)
                actions.append(told)
            elif port in view.others or port in seen:
                actions.append(ALREADY_ALLOCATED.about(view.service, port=port))
            elif port in view.repaired:
                actions.append(NOT_ALLOCATED.about(view.service, port=port))
            seen.add(port)
        return actions
