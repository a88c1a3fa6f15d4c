"""Hints by zone: what each zone is given, and why there are none."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.api.obj import Body, Key, Obj
from sampan.control.plan import Action, Create, Emit, Update
from sampan.controllers import topology
from sampan.controllers.endpointslice import EndpointSliceController
from sampan.controllers.slices import Slice
from sampan.testing.plans import PlanWorld

SLICES = "endpointslices.discovery.k8s.io"
WEB = Key("services", "default", "web")
MODE, OLD_MODE = topology.TOPOLOGY_MODE, topology.TOPOLOGY_HINTS


def node(name: str, zone: str = "", cpu: str = "4", *, ready: str = "True", **labels: str) -> Body:
    marks = {**{k.replace("_", "/"): v for k, v in labels.items()}}
    if zone:
        marks["topology.kubernetes.io/zone"] = zone
    return {
        "metadata": {"name": name, "namespace": "", "labels": marks},
        "status": {"allocatable": {"cpu": cpu}, "conditions": [{"type": "Ready", "status": ready}]},
    }


def as_obj(body: Body) -> Obj:
    return Obj.of(Key("nodes", "", body["metadata"]["name"]), body, 1)


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([], None),
        ([node("a", "z1"), node("b", "z1")], None),  # one zone
        ([node("a", "z1"), node("b")], None),  # one of no known zone
        ([node("a", "z1"), node("b", "z2", "0")], None),  # one without CPU
        ([node("a", "z1"), node("b", "z2")], {"z1": 0.5, "z2": 0.5}),
        ([node("a", "z1", "500m"), node("b", "z2", "1500m")], {"z1": 0.25, "z2": 0.75}),
        ([node("a", "z1"), node("b", "z2"), node("c", ready="False")], {"z1": 0.5, "z2": 0.5}),
        ([node("a", "z1"), node("b", "z2"), node("c", ready="Unknown")], {"z1": 0.5, "z2": 0.5}),
        ([node("a", "z1"), node("b", "z2"),
          node("c", **{"node-role.kubernetes.io_control-plane": ""})], {"z1": 0.5, "z2": 0.5}),
        ([node("a", "z1", "2"), node("b", "z2", "2"), node("c", "z2", "4")],
         {"z1": 0.25, "z2": 0.75}),
    ],
)  # fmt: skip
def test_ratios(nodes: list[Body], expected: Any) -> None:
    assert topology.ratios(map(as_obj, nodes)) == expected


@pytest.mark.parametrize(
    ("ratios", "count", "expected"),
    [
        # zone -> at least, at most, better
        ({"a": 0.5, "b": 0.5}, 4, {"a": (2, 2, 2.0), "b": (2, 2, 2.0)}),
        ({"a": 0.5, "b": 0.5}, 6, {"a": (3, 3, 3.0), "b": (3, 3, 3.0)}),
        ({"a": 0.5, "b": 0.5}, 12, {"a": (5, 7, 6.0), "b": (5, 7, 6.0)}),
        ({"a": 0.25, "b": 0.75}, 4, {"a": (1, 1, 1.0), "b": (3, 3, 3.0)}),
        ({"a": 0.1, "b": 0.9}, 4, {"a": (1, 1, 1.0), "b": (3, 3, 3.6)}),
        (None, 9, topology.NO_NODES),
        ({"a": 0.5, "b": 0.5}, 1, "Insufficient number of endpoints (1 endpoints, 2 zones)"),
        ({"a": 0.5, "b": 0.5}, 3, topology.OVERLOAD + " (3 endpoints, 2 zones)"),
        ({"a": 0.1, "b": 0.9}, 3, topology.OVERLOAD + " (3 endpoints, 2 zones)"),
        ({"a": 0.34, "b": 0.33, "c": 0.33}, 4, topology.OVERLOAD + " (4 endpoints, 3 zones)"),
    ],
)
def test_shares(ratios: Any, count: int, expected: Any) -> None:
    got = topology.shares(ratios, count)
    if not isinstance(got, str):
        got = {z: (s.minimum, s.maximum, s.desired) for z, s in got.items()}  # type: ignore[assignment]
    assert got == expected


def endpoint(n: int, zone: str = "", hint: str = "", *, ready: bool = True) -> Body:
    made: Body = {"addresses": [f"10.0.0.{n}"], "conditions": {"ready": ready}}
    if zone:
        made["zone"] = zone
    if hint:
        made["hints"] = {"forZones": [{"name": hint}]}
    return made


def hints(*slices: Slice) -> list[str]:
    return ["".join(topology.zones_of(e)) for s in slices for e in s.endpoints]


HALF = {"a": 0.5, "b": 0.5}


@pytest.mark.parametrize(
    ("zones", "ratios", "expected"),
    [
        ("aabb", HALF, "aabb"),
        ("aaab", HALF, "baab"),  # the first there is, goes
        ("aaaa", HALF, "bbaa"),
        ("aaabbb", {"a": 1 / 3, "b": 2 / 3}, "baabbb"),
        ("aaaaaa", {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}, "bbccaa"),
        ("aaac", HALF, "baac"),  # a zone without nodes keeps its own, gives and gets nothing
    ],
)
def test_zones_with_too_many_give_to_those_with_too_few(
    zones: str, ratios: Any, expected: str
) -> None:
    new = Slice(None, [], [endpoint(i, z) for i, z in enumerate(zones)], is_changed=True)
    assert topology.assign([new], ratios) == ""
    assert "".join(hints(new)) == expected
    new.is_changed = False
    assert topology.assign([new], ratios) == "" and "".join(hints(new)) == expected


def test_what_is_not_ready_has_no_hint_and_does_not_count() -> None:
    found = [endpoint(1, "a"), endpoint(2, "b"), endpoint(3, "a", ready=False), endpoint(4, "")]
    found[3]["conditions"]["ready"] = False
    new = Slice(None, [], found, is_changed=True)
    assert topology.assign([new], HALF) == ""
    assert hints(new) == ["a", "b", "", ""]


def test_a_slice_that_needs_no_other_change_keeps_its_hints_while_they_do() -> None:
    old = Slice({}, [], [endpoint(1, "a", "b"), endpoint(2, "b", "a")])
    new = Slice({}, [], [endpoint(3, "a"), endpoint(4, "b")], is_changed=True)
    assert topology.assign([new, old], HALF) == ""
    assert hints(old) == ["b", "a"] and hints(new) == ["a", "b"]
    missing = Slice({}, [], [endpoint(1, "a", "a"), endpoint(2, "b")])
    topology.assign([missing], HALF)
    assert hints(missing) == ["a", "b"]
    gone = Slice({}, [], [endpoint(1, "a", "c"), endpoint(2, "b", "b")])  # c has no nodes now
    topology.assign([gone], HALF)
    assert hints(gone) == ["a", "b"]
    lopsided = Slice({}, [], [endpoint(i, "a" if i < 2 else "b", "a") for i in range(4)])
    topology.assign([lopsided], HALF)
    assert hints(lopsided) == ["a", "a", "b", "b"]


def test_one_endpoint_without_a_zone_and_nobody_has_hints() -> None:
    found = [endpoint(1, "a", "a"), endpoint(2, "b", "b"), endpoint(3), endpoint(4, "b")]
    old = Slice({}, [], found)
    assert topology.assign([old], HALF) == "One or more endpoints do not have a zone specified"
    assert hints(old) == ["", "", "", ""]


@pytest.mark.parametrize(
    ("held", "ratios", "expected"),
    [
        ({}, HALF, False),
        ({"a": 1}, None, True),
        ({"a": 2, "b": 2}, HALF, False),
        ({"a": 3, "b": 2}, HALF, True),  # 5 / 2 / 1.2, rounded up: 3
        ({"a": 7, "b": 5}, HALF, False),
        ({"a": 4}, HALF, True),
    ],
)
def test_overload(held: Any, ratios: Any, expected: bool) -> None:
    assert topology.is_overloaded(held, ratios) is expected


zone = st.sampled_from("abcd")
cpu = st.integers(1, 64)


@settings(max_examples=200, deadline=None)
@given(
    groups=st.lists(
        st.tuples(st.lists(st.tuples(zone, zone, st.booleans()), max_size=8), st.booleans()),
        min_size=1,
        max_size=4,
    ),
    nodes=st.dictionaries(st.sampled_from("abc"), cpu, min_size=2),
)
def test_hints_are_for_all_or_none_and_settle(groups: Any, nodes: dict[str, int]) -> None:
    total = sum(nodes.values())
    ratios = {z: n / total for z, n in sorted(nodes.items())}
    slices = [
        Slice({}, [], [endpoint(i, z, h if ready else "", ready=ready)
                       for i, (z, h, ready) in enumerate(found)], is_changed=changed)
        for found, changed in groups
    ]  # fmt: skip
    why = topology.assign(slices, ratios)
    ready = [e for s in slices for e in s.endpoints if topology.is_ready(e)]
    assert all(bool(e.get("hints")) == (not why) for e in ready)
    assert not any(e.get("hints") for s in slices for e in s.endpoints if e not in ready)
    if not why:
        held = topology.counts(ready)
        assert sum(held.values()) == len(ready)
        # An own zone is left only for one with nodes.
        assert all(z in ratios or z == e["zone"] for e in ready for z in topology.zones_of(e))
    for _ in range(20):  # writes for hints alone do not follow one another for ever
        before = copy.deepcopy([s.endpoints for s in slices])
        for item in slices:
            item.is_changed = False
        assert topology.assign(slices, ratios) == why
        if before == [s.endpoints for s in slices]:
            break
    else:
        raise AssertionError("hints never settle")


@settings(max_examples=100, deadline=None)
@given(zones=st.lists(st.sampled_from("ab"), min_size=2, max_size=60), ratio=st.floats(0.2, 0.8))
def test_no_zone_has_less_than_it_must_by_more_than_one_endpoint(
    zones: list[str], ratio: float
) -> None:
    ratios = {"a": ratio, "b": 1 - ratio}
    new = Slice(None, [], [endpoint(i, z) for i, z in enumerate(zones)], is_changed=True)
    if topology.assign([new], ratios) == "":
        held = Counter(hints(new))
        shares = topology.shares(ratios, len(zones))
        assert not isinstance(shares, str)
        assert all(held[z] >= share.minimum - 1 for z, share in shares.items())


# -- the controller


def pod(n: int, node_name: str) -> Body:
    return {
        "metadata": {"name": f"p{n}", "labels": {"app": "web"}},
        "spec": {"nodeName": node_name, "containers": []},
        "status": {"phase": "Running", "podIP": f"10.0.0.{n}",
                   "conditions": [{"type": "Ready", "status": "True"}]},
    }  # fmt: skip


def world(pods: str, *, notes: dict[str, str], **spec: Any) -> tuple[EndpointSliceController, Any]:
    """pods: the node (a, b) of each; each node is a zone of its own."""
    controller = EndpointSliceController()
    w = PlanWorld(controller)
    w.add("services", {
        "metadata": {"name": "web", "annotations": notes},
        "spec": {"clusterIP": "10.43.1.1", "ipFamilies": ["IPv4"], "selector": {"app": "web"},
                 "ports": [{"port": 80}], **spec},
    })  # fmt: skip
    for name in "ab":
        w.add("nodes", node(name, f"z{name}"))
    for n, name in enumerate(pods):
        w.add("pods", pod(n, name))
    return controller, w


def shown(w: PlanWorld) -> list[str]:
    found = [b for k, b in sorted(w.objects.items()) if k.resource == SLICES]
    return ["".join(topology.zones_of(e)) for s in found for e in s["endpoints"]]


def writes(actions: Any) -> list[Action]:
    return [a for a in actions if isinstance(a, Create | Update)]


@pytest.mark.parametrize(
    ("notes", "automatic"),
    [
        ({}, False),
        ({MODE: "Auto"}, True),
        ({MODE: "auto"}, True),
        ({MODE: "AUTO"}, False),
        ({OLD_MODE: "Auto"}, True),
        ({OLD_MODE: "Disabled", MODE: "Auto"}, False),
    ],
)
def test_who_asks(notes: dict[str, str], automatic: bool) -> None:
    controller, w = world("ab", notes=notes)
    w.step(controller, WEB)
    assert shown(w) == (["za", "zb"] if automatic else ["", ""])


def test_hints_are_told_once() -> None:
    controller, w = world("aab", notes={MODE: "Auto"})
    w.add("pods", pod(9, "b"))
    w.step(controller, WEB)
    assert sorted(shown(w)) == ["za", "za", "zb", "zb"]
    enabled = ("TopologyAwareHintsEnabled",
               "Topology Aware Hints has been enabled, addressType: IPv4")  # fmt: skip
    assert w.events == [enabled]
    assert w.step(controller, WEB) == []
    w.add("pods", pod(10, "a"))
    w.add("pods", pod(11, "b"))
    w.step(controller, WEB)
    assert sorted(shown(w)) == ["za"] * 3 + ["zb"] * 3 and w.events == [enabled]
    assert EndpointSliceController().observe(WEB, w) is not None
    assert w.step(EndpointSliceController(), WEB) == []  # nor by the next process


def test_why_there_are_no_hints() -> None:
    controller, w = world("a", notes={MODE: "Auto"})
    w.step(controller, WEB)
    reason = "TopologyAwareHintsDisabled"
    few = "Insufficient number of endpoints (1 endpoints, 2 zones), addressType: IPv4"
    assert w.events == [(reason, few)] and shown(w) == [""]
    assert w.step(controller, WEB) == []  # told with a write, not again and again
    w.add("pods", pod(5, "b"))
    w.step(controller, WEB)
    assert w.events[1][0] == "TopologyAwareHintsEnabled" and shown(w) == ["za", "zb"]
    del w.objects[Key("nodes", "", "b")]["metadata"]["labels"]["topology.kubernetes.io/zone"]
    w.step(controller, WEB)
    assert w.events[2] == (reason, f"{topology.NO_NODES}, addressType: IPv4")
    assert shown(w) == ["", ""]


def test_without_the_annotation_hints_go() -> None:
    for spread in (None, "PreferClose"):
        controller, w = world("ab", notes={MODE: "Auto"}, trafficDistribution=spread)
        w.step(controller, WEB)
        w.events.clear()
        w.objects[WEB]["metadata"]["annotations"] = {}
        w.step(controller, WEB)
        assert w.events == [
            ("TopologyAwareHintsDisabled",
             "Topology Aware Hints has been disabled, addressType: IPv4")
        ]  # fmt: skip
        assert shown(w) == (["za", "zb"] if spread else ["", ""])
        assert w.step(controller, WEB) == []


def test_the_annotation_goes_before_the_field() -> None:
    controller, w = world("aaab", notes={MODE: "Auto"}, trafficDistribution="PreferSameNode")
    w.step(controller, WEB)
    assert sorted(shown(w)) == ["za", "za", "zb", "zb"]
    (made,) = [b for k, b in w.objects.items() if k.resource == SLICES]
    assert not any("forNodes" in e["hints"] for e in made["endpoints"])


def test_hints_of_the_field_are_for_ready_endpoints_only() -> None:
    controller, w = world("ab", notes={}, trafficDistribution="PreferSameZone")
    w.objects[Key("pods", "default", "p1")]["status"]["conditions"][0]["status"] = "False"
    w.step(controller, WEB)
    assert shown(w) == ["za", ""] and w.events == []


def test_nodes_wake_services_whose_hints_no_longer_fit() -> None:
    controller, w = world("aabb", notes={MODE: "Auto"})
    w.step(controller, WEB)
    trigger = controller.triggers[-1]
    assert trigger.resource == "nodes" and trigger.matters is not None
    before = w["nodes"].get("", "a")
    assert before is not None and [*trigger.keys(before, w)] == []
    w.objects[Key("nodes", "", "a")]["status"]["allocatable"]["cpu"] = "40"
    after = w["nodes"].get("", "a")
    assert after is not None and trigger.matters(as_obj(node("a", "za")), after)
    assert [*trigger.keys(after, w)] == [WEB]
    w.step(controller, WEB)
    assert w.events[-1][0] == "TopologyAwareHintsDisabled"  # a tenth of four endpoints is none
    beat = copy.deepcopy(after.body)
    beat["status"]["conditions"][0]["lastHeartbeatTime"] = "2026-01-01T00:00:00Z"
    assert not trigger.matters(after, as_obj(beat))
    assert [*trigger.keys(after, w)] == [WEB]  # what has no hints may get them


def test_nothing_but_hints_of_users_is_ever_emitted() -> None:
    controller, w = world("ab", notes={})
    assert not [a for a in w.step(controller, WEB) if isinstance(a, Emit)]
    assert not writes(w.step(controller, WEB))
