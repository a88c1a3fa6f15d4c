"""ServiceCIDRs, and the repair of addresses."""

from __future__ import annotations

from typing import Any

import pytest

from sampan.api.obj import Body, Key
from sampan.control.plan import Action, Again, Create, Delete, Emit, Patch, Update
from sampan.controllers.address_repair import AddressRepair, AddressView, ServiceView
from sampan.controllers.service_cidrs import ServiceCIDRController, View, can_go
from sampan.lib.clock import parse_rfc3339
from sampan.testing.plans import PlanWorld

FINALIZER = "networking.k8s.io/service-cidr-finalizer"
BORN = "2026-01-01T00:00:00Z"
NOW = parse_rfc3339(BORN)


def cidr(*cidrs: str, name: str = "c", deleting: bool = False, ready: str = "",
         finalizers: tuple[str, ...] = (FINALIZER,)) -> Body:  # fmt: skip
    meta: Body = {"name": name, "finalizers": [*finalizers]}
    if deleting:
        meta["deletionTimestamp"] = BORN
    conditions = [{"type": "Ready", "status": ready, "reason": ""}] if ready else []
    return {"metadata": meta, "spec": {"cidrs": [*cidrs]}, "status": {"conditions": conditions}}


def plan(view: View, now: float = NOW) -> list[Action]:
    return [*ServiceCIDRController().plan(view, now)]


def test_a_new_one_gets_its_finalizer_and_is_ready() -> None:
    (action,) = plan(View(cidr("10.0.0.0/24", finalizers=()), (), ()))
    assert isinstance(action, Patch) and action.subresource == "status"
    assert action.patch["metadata"]["finalizers"] == [FINALIZER]
    assert action.patch["status"]["conditions"] == [
        {"type": "Ready", "status": "True", "reason": "", "lastTransitionTime": BORN,
         "message": "Kubernetes Service CIDR is ready"}
    ]  # fmt: skip
    assert plan(View(cidr("10.0.0.0/24", ready="True"), (), ())) == []


def test_one_in_use_says_why_it_stays() -> None:
    view = View(cidr("10.0.0.0/24", deleting=True, ready="True"), (), ("10.0.0.7",))
    (action,) = plan(view)
    assert isinstance(action, Patch)
    (told,) = action.patch["status"]["conditions"]
    assert (told["status"], told["reason"]) == ("False", "Terminating")
    assert told["message"] == (
        "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a "
        "new ServiceCIDR"
    )
    view.cidr["status"]["conditions"] = [told]
    assert plan(view) == []


def test_one_that_nobody_needs_goes_after_ten_seconds() -> None:
    view = View(cidr("10.0.0.0/24", deleting=True, ready="True"), (), ("10.1.0.7",))
    assert plan(view, NOW + 3) == [Again(7.0)]
    (action,) = plan(view, NOW + 10)
    assert isinstance(action, Patch)
    assert action.patch["metadata"]["finalizers"] == [] and "status" not in action.patch


@pytest.mark.parametrize(
    ("others", "held", "expected"),
    [
        ((), ("10.0.0.7",), False),
        ((), ("10.0.1.7", "fd00::1"), True),
        (("10.0.0.0/16",), ("10.0.0.7",), True),
        (("10.0.0.0/24",), ("10.0.0.7",), True),
        (("10.0.0.0/25",), ("10.0.0.7",), True),
        (("10.0.0.0/25",), ("10.0.0.200",), False),
        (("10.0.0.0/25", "10.0.0.128/25"), ("10.0.0.200",), True),
        (("fd00::/64",), ("10.0.0.7",), False),
    ],
)
def test_what_can_go(others: tuple[str, ...], held: tuple[str, ...], expected: bool) -> None:
    kept = tuple(cidr(o) for o in others)
    assert can_go(View(cidr("10.0.0.0/24", deleting=True), kept, held)) is expected


# -- repair

IPS = "ipaddresses.networking.k8s.io"
CIDRS = "servicecidrs.networking.k8s.io"


def service(name: str = "s", *ips: str) -> Body:
    return {"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": "default", "creationTimestamp": BORN},
            "spec": {"type": "ClusterIP", "clusterIP": ips[0], "clusterIPs": [*ips]}}  # fmt: skip


def address(ip: str, name: str = "s", **parent: Any) -> Body:
    labels = {"ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
              "ipaddress.kubernetes.io/ip-family": "IPv6" if ":" in ip else "IPv4"}  # fmt: skip
    ref = {"group": "", "resource": "services", "namespace": "default", "name": name, **parent}
    return {"metadata": {"name": ip, "namespace": "", "labels": labels, "creationTimestamp": BORN},
            "spec": {"parentRef": ref}}  # fmt: skip


def world(*bodies: Body) -> PlanWorld:
    w = PlanWorld(AddressRepair())
    w.now = NOW + 100
    w.add(CIDRS, {"metadata": {"name": "kubernetes", "namespace": ""},
                  "spec": {"cidrs": ["10.43.0.0/16"]}})  # fmt: skip
    for body in bodies:
        w.add(IPS if "parentRef" in body["spec"] else "services", body)
    return w


def look(w: PlanWorld, resource: str, name: str) -> list[Action]:
    namespace = "default" if resource == "services" else ""
    controller = AddressRepair()
    view = controller.observe(Key(resource, namespace, name), w)
    assert view is None or isinstance(view, ServiceView | AddressView)
    return [*controller.plan(view, w.now)] if view else []


def events(actions: list[Action]) -> list[tuple[str, str]]:
    found = [a for a in actions if isinstance(a, Emit)]
    for action in actions:
        if isinstance(action, Create) and action.done:
            found += [a for a in action.done(None) if isinstance(a, Emit)]  # type: ignore[arg-type]
        if isinstance(action, Delete) and action.done:
            found += [a for a in action.done() if isinstance(a, Emit)]
    return [(e.reason, e.message) for e in found]


def test_what_agrees_is_left_alone() -> None:
    w = world(service("s", "10.43.1.1"), address("10.43.1.1"))
    assert look(w, "services", "s") == look(w, IPS, "10.43.1.1") == []


def test_a_service_without_an_address_gets_it_back() -> None:
    w = world(service("s", "10.43.1.1"))
    actions = look(w, "services", "s")
    assert [type(a) for a in actions] == [Update, Create]  # the first asks whether it is there
    (made,) = [a for a in actions if isinstance(a, Create)]
    assert made.body["spec"] == address("10.43.1.1")["spec"]
    assert events(actions) == [
        ("ClusterIPNotAllocated", "Cluster IP [IPv4]: 10.43.1.1 is not allocated; repairing")
    ]
    w.now = NOW + 1
    assert look(w, "services", "s") == [Again(4.0)]


def test_an_address_outside_of_every_range_is_told() -> None:
    w = world(service("s", "10.99.1.1"), address("10.99.1.1"))
    assert events(look(w, "services", "s")) == [
        ("ClusterIPOutOfRange", "Cluster IP [IPv4]: 10.99.1.1 is not within any configured Service "
         "CIDR; please recreate service")
    ]  # fmt: skip


@pytest.mark.parametrize("parent", [{"resource": "pods"}, {"group": "x.y"}, {"name": "gone"}])
def test_a_wrong_reference_is_put_right(parent: Body) -> None:
    w = world(service("s", "10.43.1.1"), address("10.43.1.1", **parent))
    actions = look(w, "services", "s")
    assert [type(a) for a in actions] == [Update, Delete, Create]
    assert events(actions) == [
        ("ClusterIPNotAllocated", "the ClusterIP [IPv4]: 10.43.1.1 for Service default/s has a "
         "wrong reference; repairing")
    ]  # fmt: skip


def test_labels_are_put_back_in_silence() -> None:
    bare = address("10.43.1.1")
    bare["metadata"]["labels"] = {}
    actions = look(world(service("s", "10.43.1.1"), bare), "services", "s")
    assert [type(a) for a in actions] == [Update, Delete, Create] and events(actions) == []


def test_two_services_with_one_address() -> None:
    w = world(service("s", "10.43.1.1"), service("t", "10.43.1.1"), address("10.43.1.1"))
    assert look(w, "services", "s") == []
    assert events(look(w, "services", "t")) == [
        ("ClusterIPAlreadyAllocated", "Cluster IP [IPv4]:10.43.1.1 was assigned to multiple "
         "services; please recreate service")
    ]  # fmt: skip


def test_a_leaked_address_goes_after_a_minute() -> None:
    w = world(address("10.43.1.1"))
    w.now = NOW + 10
    assert look(w, IPS, "10.43.1.1") == [Again(50.0)]
    w.now = NOW + 60
    (action,) = look(w, IPS, "10.43.1.1")
    assert isinstance(action, Delete) and action.uid
    assert events([action]) == [
        ("IPAddressNotAllocated", "IPAddress: 10.43.1.1 for Service default/s appears to have "
         "leaked: cleaning up")
    ]  # fmt: skip
    w = world(address("10.43.1.1"), service("s", "10.43.1.2"), address("10.43.1.2"))
    assert events(look(w, IPS, "10.43.1.1")) == [
        ("IPAddressWrongReference", "IPAddress: 10.43.1.1 for Service default/s has a wrong "
         "reference; cleaning up")
    ]  # fmt: skip


def test_addresses_of_others_are_theirs() -> None:
    body = address("10.43.1.1")
    body["metadata"]["labels"] = {}
    assert look(world(body), IPS, "10.43.1.1") == []
    gateway = address("10.43.1.1", group="gateway.networking.k8s.io", resource="gateways")
    gateway["metadata"]["labels"]["ipaddress.kubernetes.io/managed-by"] = "gateway.example"
    assert look(world(gateway), IPS, "10.43.1.1") == []


def test_an_address_of_the_allocator_that_names_no_service_goes() -> None:
    body = address("10.43.1.1", resource="pods")
    (action,) = look(world(body), IPS, "10.43.1.1")
    assert isinstance(action, Delete)
    assert events([action]) == [
        ("IPAddressNotAllocated",
         "IPAddress 10.43.1.1 appears to have been modified, not referencing a Service "
         "&ParentReference{Group:,Resource:pods,Namespace:default,Name:s,}: cleaning up")
    ]  # fmt: skip
    w = world(body, service("s", "10.43.1.1"))
    assert look(w, IPS, "10.43.1.1") == []  # whose it is, puts it right


def test_an_address_that_is_none_is_told() -> None:
    actions = look(world(service("s", "10.43.1")), "services", "s")
    assert events(actions) == [
        ("ClusterIPNotValid", "Cluster IP <nil> is not a valid IP; please recreate Service")
    ]
