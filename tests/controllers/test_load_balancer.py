"""Addresses of LoadBalancer services on the host."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.api.obj import Body, Key, Obj
from sampan.control.plan import Action, Emit, Patch
from sampan.controllers.load_balancer import FINALIZER, LoadBalancerController
from sampan.testing.plans import PlanWorld

OWN = "127.9.8.253"


def made() -> tuple[LoadBalancerController, PlanWorld]:
    controller = LoadBalancerController(OWN)
    controller.reserve(6443)
    w = PlanWorld(controller)
    w.add("nodes", {"metadata": {"name": "n1", "namespace": ""}, "spec": {}, "status": {}})
    return controller, w


def service(name: str, *ports: Any, **spec: Any) -> Body:
    listed = [{"port": p, "protocol": "TCP"} if isinstance(p, int) else p for p in ports]
    return {"metadata": {"name": name},
            "spec": {"type": "LoadBalancer", "ports": listed, **spec}, "status": {}}  # fmt: skip


def sync(controller: LoadBalancerController, w: PlanWorld, name: str) -> list[Action]:
    """As the API server would carry the plan out."""
    key = Key("services", "default", name)
    view = controller.observe(key, w)
    actions = [*controller.plan(view, w.now)] if view else []
    for action in actions:
        if isinstance(action, Patch):
            body = w.objects[key]
            body["metadata"]["finalizers"] = action.patch["metadata"]["finalizers"]
            body["status"] = {"loadBalancer": {
                k: v for k, v in action.patch["status"]["loadBalancer"].items() if v}}  # fmt: skip
            assert action.subresource == "status"
        else:
            assert isinstance(action, Emit)
            w.run(action)
    return actions


def address(w: PlanWorld, name: str) -> str:
    (entry,) = w.objects[Key("services", "default", name)]["status"]["loadBalancer"]["ingress"]
    assert entry["ipMode"] == "Proxy"
    return str(entry["ip"])


def test_a_service_gets_the_own_address_at_once() -> None:
    controller, w = made()
    w.add("services", service("a", 80, {"port": 53, "protocol": "UDP"}))
    sync(controller, w, "a")
    body = w.objects[Key("services", "default", "a")]
    assert body["status"]["loadBalancer"]["ingress"] == [
        {"ip": OWN, "ipMode": "Proxy",
         "ports": [{"port": 80, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}
    ]  # fmt: skip
    assert body["metadata"]["finalizers"] == [FINALIZER]
    assert w.events == [
        ("EnsuringLoadBalancer", "Ensuring load balancer"),
        ("EnsuredLoadBalancer", "Ensured load balancer"),
    ]
    assert sync(controller, w, "a") == []


def test_a_taken_port_leads_to_the_next_address_of_the_block() -> None:
    controller, w = made()
    for name, ports in (("a", (80,)), ("b", (80, 81)), ("c", (80,)), ("d", (81,)),
                        ("api", (6443,)), ("np", (30080,))):  # fmt: skip
        w.add("services", service(name, *ports))
        sync(controller, w, name)
    assert address(w, "a") == OWN
    assert address(w, "b") == "127.9.8.254"
    assert address(w, "c") == "127.9.8.1"  # the block wraps
    assert address(w, "d") == OWN
    assert address(w, "api") == address(w, "np") == "127.9.8.254"
    w.add("services", service("u", {"port": 80, "protocol": "UDP"}))
    sync(controller, w, "u")
    assert address(w, "u") == OWN  # another protocol is another port


def test_an_address_is_kept_while_the_ports_allow_it() -> None:
    controller, w = made()
    for name in ("a", "b"):
        w.add("services", service(name, 80))
        sync(controller, w, name)
    del w.objects[Key("services", "default", "a")]
    assert sync(controller, w, "b") == [] and address(w, "b") == "127.9.8.254"
    w.objects[Key("services", "default", "b")]["spec"]["ports"][0]["port"] = 81
    sync(controller, w, "b")
    assert address(w, "b") == "127.9.8.254"


def test_a_wish_is_granted_where_it_can_be() -> None:
    controller, w = made()
    for name, wish in (("a", "127.9.8.7"), ("b", "127.9.8.7"), ("c", "10.0.0.1")):
        w.add("services", service(name, 80, loadBalancerIP=wish))
        sync(controller, w, name)
    assert [address(w, n) for n in "abc"] == ["127.9.8.7", OWN, "127.9.8.254"]


def test_a_class_is_somebody_elses() -> None:
    controller, w = made()
    w.add("services", service("a", 80, loadBalancerClass="x.y/z"))
    w.add("services", service("b", 80, type="ClusterIP"))
    assert sync(controller, w, "a") == sync(controller, w, "b") == [] and w.events == []


def test_another_type_or_the_end_cleans_up() -> None:
    for end in ("type", "deletion"):
        controller, w = made()
        w.add("services", service("a", 80))
        sync(controller, w, "a")
        body = w.objects[Key("services", "default", "a")]
        if end == "type":
            body["spec"]["type"] = "ClusterIP"
        else:
            body["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        w.events.clear()
        sync(controller, w, "a")
        assert w.events == [
            ("DeletingLoadBalancer", "Deleting load balancer"),
            ("DeletedLoadBalancer", "Deleted load balancer"),
        ]
        assert body["metadata"]["finalizers"] == [] and body["status"]["loadBalancer"] == {}
        assert sync(controller, w, "a") == []


@settings(max_examples=50, deadline=None)
@given(
    ports=st.lists(
        st.sets(st.sampled_from([80, 81, 6443, 30000]), min_size=1), min_size=1, max_size=12
    )
)
def test_no_two_services_are_found_at_the_same_place(ports: list[set[int]]) -> None:
    controller, w = made()
    for i, numbers in enumerate(ports):
        w.add("services", service(f"s{i}", *sorted(numbers)))
        sync(controller, w, f"s{i}")
    places = [(address(w, f"s{i}"), p) for i, numbers in enumerate(ports) for p in numbers]
    assert len(places) == len(set(places))
    assert not {(OWN, 6443), (OWN, 30000)} & set(places)
    for i in range(len(ports)):
        assert sync(controller, w, f"s{i}") == []


def test_a_full_block_is_told() -> None:
    controller, w = made()
    for i in range(1, 255):
        held = {"ip": f"127.9.8.{i}", "ipMode": "Proxy", "ports": [{"port": 80, "protocol": "TCP"}]}
        status = {"loadBalancer": {"ingress": [held]}}
        w.add("services", {**service(f"s{i}", 80), "status": status})
    w.add("services", service("more", 80))
    sync(controller, w, "more")
    assert [reason for reason, _ in w.events][-1:] == ["SyncLoadBalancerFailed"]
    # It is looked at again when another one goes.
    gone = w["services"].get("default", "s7")
    assert gone is not None
    del w.objects[gone.key]
    woken = Key("services", "default", "more")
    assert [*controller.triggers[1].keys(gone, w)] == [woken]
    held = gone.status["loadBalancer"]["ingress"][0]["ip"]
    sync(controller, w, "more")
    assert address(w, "more") == held and [*controller.triggers[1].keys(gone, w)] == []


ENSURE = [
    ("EnsuringLoadBalancer", "Ensuring load balancer"),
    ("EnsuredLoadBalancer", "Ensured load balancer"),
]


@pytest.mark.parametrize(
    ("change", "counts"),
    [
        (lambda b: b["spec"].update(loadBalancerSourceRanges=["10.0.0.0/8"]), True),
        (lambda b: b["spec"].update(sessionAffinity="ClientIP"), True),
        (lambda b: b["spec"].update(externalTrafficPolicy="Local"), True),
        (lambda b: b["spec"].update(healthCheckNodePort=30001), True),
        (lambda b: b["spec"].update(externalIPs=["192.0.2.1"]), True),
        (lambda b: b["spec"].update(loadBalancerIP="10.0.0.1"), True),
        (lambda b: b["spec"].update(ipFamilies=["IPv4", "IPv6"]), True),
        (lambda b: b["spec"]["ports"][0].update(targetPort=8080), True),
        (lambda b: b["metadata"].update(annotations={"a": "b"}), True),
        (lambda b: b["metadata"].update(labels={"a": "b"}), False),
        (lambda b: b["spec"].update(selector={"a": "b"}), False),
        (lambda b: b["spec"].update(internalTrafficPolicy="Local"), False),
    ],
)
def test_what_counts_as_a_change(change: Any, counts: bool) -> None:
    controller, w = made()
    w.add("services", service("a", 80))
    sync(controller, w, "a")
    w.events.clear()
    change(w.objects[Key("services", "default", "a")])
    sync(controller, w, "a")
    assert w.events == (ENSURE if counts else [])
    assert sync(controller, w, "a") == []


def test_the_next_process_says_nothing_of_what_is_as_it_should_be() -> None:
    controller, w = made()
    w.add("services", service("a", 80))
    sync(controller, w, "a")
    assert sync(LoadBalancerController(OWN), w, "a") == []


def test_other_nodes_are_told() -> None:
    controller, w = made()
    w.add("services", service("a", 80))
    w.add("services", service("c", 80, loadBalancerClass="x.y/z"))
    sync(controller, w, "a")
    w.events.clear()
    trigger = controller.triggers[2]
    held = w["nodes"].get("", "n1")
    assert held is not None
    node = Obj.of(held.key, copy.deepcopy(held.body), 1)
    assert [*trigger.keys(node, w)] == [Key("services", "default", "a")]
    w.add("nodes", {"metadata": {"name": "n2", "namespace": ""}, "spec": {}, "status": {}})
    sync(controller, w, "a")
    assert w.events == [("UpdatedLoadBalancer", "Updated load balancer with new hosts")]
    w.events.clear()
    excluded = "node.kubernetes.io/exclude-from-external-load-balancers"
    w.objects[Key("nodes", "", "n1")]["metadata"]["labels"] = {excluded: ""}
    after = w["nodes"].get("", "n1")
    assert after is not None and trigger.matters is not None
    assert trigger.matters(node, after) and not trigger.matters(node, node)
    taint = {"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}
    w.objects[Key("nodes", "", "n2")]["spec"]["taints"] = [taint]
    sync(controller, w, "a")
    none = ("UnAvailableLoadBalancer", "There are no available nodes for LoadBalancer")
    assert w.events == [none]
    assert sync(controller, w, "a") == []
    w.events.clear()
    w.add("services", service("b", 80))
    sync(controller, w, "b")
    assert w.events == [ENSURE[0], none, ENSURE[1]]
