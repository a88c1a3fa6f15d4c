"""Node ports that cannot be as they are."""

from __future__ import annotations

from typing import Any

import pytest

from sampan.api.obj import Body, Key, Obj
from sampan.controllers.port_repair import PortRepair, claimed
from sampan.testing.plans import PlanWorld


def service(name: str, *ports: Any, **spec: Any) -> Body:
    listed = [{"port": i, "nodePort": p} if isinstance(p, int) else p for i, p in enumerate(ports)]
    return {"metadata": {"name": name}, "spec": {"ports": listed, **spec}}


def told(name: str, *services: Body, repaired: Any = lambda _namespace, _name: ()) -> Any:
    controller = PortRepair((30000, 32767), repaired)
    w = PlanWorld(controller)
    for body in services:
        w.add("services", body)
    w.step(controller, Key("services", "default", name))
    return w.events


def port(number: int, protocol: str) -> Body:
    return {"port": 1, "nodePort": number, "protocol": protocol}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (service("a"), []),
        (service("a", {"port": 80}), []),
        (service("a", 30001, 30002), [30001, 30002]),
        (service("a", port(30001, "TCP"), port(30001, "UDP")), [30001]),
        (service("a", port(30001, "TCP"), port(30001, "TCP")), [30001, 30001]),
        (service("a", 30001, healthCheckNodePort=30009), [30001, 30009]),
        (service("a", 30001, healthCheckNodePort=30001), [30001, 30001]),
        (service("a", port(30001, "UDP"), healthCheckNodePort=30001), [30001]),
    ],
)
def test_claims(body: Body, expected: list[int]) -> None:
    assert claimed(Obj.of(Key("services", "default", "a"), body, 1)) == expected


def test_what_agrees_is_not_spoken_of() -> None:
    assert told("a", service("a", 30001), service("b", 30002)) == []
    assert told("none", service("a", 30001)) == []


def test_of_two_services_the_later_one_is_told() -> None:
    both = (service("a", 30001), service("b", 30001))
    assert told("a", *both) == []
    twice = "Port 30001 was assigned to multiple services; please recreate service"
    assert told("b", *both) == [("PortAlreadyAllocated", twice)]
    alone = service("a", port(30001, "TCP"), port(30001, "TCP"))
    assert told("a", alone) == [("PortAlreadyAllocated", twice)]


def test_a_port_outside_of_the_range_is_told() -> None:
    assert told("a", service("a", 80)) == [
        ("PortOutOfRange",
         "Port 80 is not within the port range 30000-32767; please recreate service")
    ]  # fmt: skip


def test_a_reservation_that_was_lost_is_told_once() -> None:
    lost = {("default", "a"): [30001]}
    events = told("a", service("a", 30001, 30002), repaired=lambda *who: lost.pop(who, []))
    assert events == [("PortNotAllocated", "Port 30001 is not allocated; repairing")]
    assert lost == {}
