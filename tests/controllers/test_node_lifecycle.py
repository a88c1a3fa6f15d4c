"""Nodes that are not heard of, taints, evictions by them, and what is left behind."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.api.obj import Body, Key, Obj
from sampan.control.plan import Again, Delete, Patch, SetStatus, Update
from sampan.controllers import node_eviction, node_ttl, nodes
from sampan.controllers.node_eviction import FULL, NORMAL, PARTIAL, NodeEviction
from sampan.controllers.node_health import LEASES, NodeHealth
from sampan.controllers.node_ttl import NodeTtlController
from sampan.controllers.pod_gc import EndedPods, PodCollector
from sampan.controllers.taint_eviction import TaintEvictionController, leaves_at
from sampan.lib.clock import parse_rfc3339, rfc3339
from sampan.testing.plans import PlanWorld

NOT_READY, UNREACHABLE = nodes.NOT_READY, nodes.UNREACHABLE
ALL = Key("nodes", "", "")


class NodeWorld(PlanWorld):
    """Nodes and pods; its own clock is what controllers ask for the time."""

    def __init__(self, make: Any, **args: Any) -> None:
        self.clock = _Clock(self)
        self.controller = make(self.clock, **args)
        super().__init__(self.controller)

    def node(self, name: str, ready: str = "True", **meta: Any) -> Key:
        conditions = []
        if ready:
            conditions = [
                {"type": "Ready", "status": ready, "lastHeartbeatTime": rfc3339(self.now),
                 "lastTransitionTime": rfc3339(self.now)},
                {"type": "MemoryPressure", "status": "False"},
            ]  # fmt: skip
        body: Body = {"metadata": {"name": name, "namespace": "", **meta}, "spec": {},
                      "status": {"conditions": conditions}}  # fmt: skip
        self.add("nodes", body)
        return Key("nodes", "", name)

    def lease(self, name: str) -> None:
        body: Body = {"metadata": {"name": name, "namespace": "kube-node-lease"},
                      "spec": {"renewTime": rfc3339(self.now)}}  # fmt: skip
        self.add(LEASES, body)

    def pod(self, name: str, node: str = "n1", *, ready: str = "True", **spec: Any) -> Key:
        status = {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}
        self.add("pods", {"metadata": {"name": name}, "status": status,
                          "spec": {"nodeName": node, **spec}})  # fmt: skip
        return Key("pods", "default", name)

    def taint(self, key: Key, effect: str = "NoExecute") -> list[str]:
        taints = self.objects[key]["spec"].get("taints") or ()
        return [t["key"] for t in taints if t["effect"] == effect]

    def ready(self, key: Key, status: str) -> None:
        for c in self.objects[key]["status"]["conditions"]:
            if c["type"] == "Ready":
                c["status"] = status

    def work(self, key: Key) -> list[Any]:
        self.again = None
        return list(self.step(self.controller, key))


class _Clock:
    def __init__(self, world: NodeWorld) -> None:
        self._world = world

    def now(self) -> float:
        return self._world.now


# ---- health --------------------------------------------------------------------------------------


def test_a_node_that_is_not_heard_of() -> None:
    w = NodeWorld(NodeHealth)
    key, pod, other = w.node("n1"), w.pod("p"), w.pod("q", ready="False")
    w.work(key)
    assert w.again == 50
    assert w.events == [("RegisteredNode", "Node n1 event: Registered Node n1 in Controller")]
    w.now += 49
    assert [type(a) for a in w.work(key)] == [Again]
    w.now += 1
    w.work(key)
    ready, memory, *rest = w.objects[key]["status"]["conditions"]
    assert (ready["status"], ready["reason"], ready["message"]) == (
        "Unknown", "NodeStatusUnknown", "Kubelet stopped posting node status.",
    )  # fmt: skip
    assert ready["lastTransitionTime"] == rfc3339(w.now)
    assert ready["lastHeartbeatTime"] == rfc3339(w.now - 50)
    assert memory["status"] == "Unknown"
    assert [(c["type"], c["reason"]) for c in rest] == [
        ("DiskPressure", "NodeStatusNeverUpdated"), ("PIDPressure", "NodeStatusNeverUpdated"),
    ]  # fmt: skip
    assert ("NodeNotReady", "Node n1 status is now: NodeNotReady") in w.events
    assert w.objects[pod]["status"]["conditions"][0]["status"] == "False"
    assert w.events.count(("NodeNotReady", "Node is not ready")) == 1
    assert w.objects[other]["status"]["conditions"] == [{"type": "Ready", "status": "False"}]
    w.work(key)
    assert w.taint(key, "NoSchedule") == [UNREACHABLE]
    assert w.work(key) == []


@pytest.mark.parametrize("sign", ["lease", "status"])
def test_every_sign_of_life_counts(sign: str) -> None:
    w = NodeWorld(NodeHealth)
    key = w.node("n1")
    w.work(key)
    for _ in range(5):
        w.now += 40
        if sign == "lease":
            w.lease("n1")
        else:
            w.objects[key]["status"]["conditions"][0]["lastHeartbeatTime"] = rfc3339(w.now)
        assert [type(a) for a in w.work(key)] == [Again]


def test_a_restarted_controller_gives_every_node_its_grace() -> None:
    w = NodeWorld(NodeHealth)
    key = w.node("n1")
    w.now += 10_000
    assert [type(a).__name__ for a in w.work(key)] == ["Emit", "Again"]
    assert w.again == 50


def test_nodes_that_were_silent_together_have_their_grace_again() -> None:
    """When none was ready, this controller had rather been cut off; the first that is ready again
    gives all of them time."""
    w = NodeWorld(NodeHealth)
    a, b, other = w.node("n1"), w.node("n2"), w.node("n3", labels={nodes.EXCLUDED: "true"})
    for key in (a, b, other):
        w.work(key)
    w.now += 45
    for key in (a, b):  # their kubelets say that they are not ready
        w.ready(key, "False")
        w.objects[key]["status"]["conditions"][0]["lastHeartbeatTime"] = rfc3339(w.now)
        w.work(key)
    w.now += 30
    w.ready(a, "True")
    w.objects[a]["status"]["conditions"][0]["lastHeartbeatTime"] = rfc3339(w.now)
    w.work(a)
    w.work(b)
    assert w.again == 50
    w.now += 30
    w.work(a)  # one that stays ready gives nobody more
    w.work(b)
    assert w.again == 20


def test_a_node_that_is_lost_alone_has_no_grace_by_the_others() -> None:
    w = NodeWorld(NodeHealth)
    a, b = w.node("n1"), w.node("n2")
    w.work(a)
    w.work(b)
    w.now += 30
    w.ready(a, "False")
    w.work(a)
    w.ready(a, "True")
    w.work(a)
    w.work(b)
    assert w.again == 20


def test_a_node_that_never_said_a_word() -> None:
    w = NodeWorld(NodeHealth)
    key = w.node("n1", ready="")
    w.work(key)
    assert w.again == 60
    w.now += 60
    (status,) = [a for a in w.work(key) if isinstance(a, SetStatus)]
    assert len(status.body["status"]["conditions"]) == 4
    assert "NodeNotReady" not in [r for r, _ in w.events]


def test_a_node_that_goes() -> None:
    w = NodeWorld(NodeHealth)
    key = w.node("n1")
    w.work(key)
    del w.objects[key]
    w.work(key)
    assert w.events[-1] == ("RemovingNode", "Node n1 event: Removing Node n1 from Controller")
    assert w.work(key) == []


@pytest.mark.parametrize(
    ("conditions", "unschedulable", "expected"),
    [
        ({}, False, []),
        ({}, True, ["node.kubernetes.io/unschedulable"]),
        ({"Ready": "False"}, False, [NOT_READY]),
        ({"DiskPressure": "True", "PIDPressure": "True"}, False,
         ["node.kubernetes.io/disk-pressure", "node.kubernetes.io/pid-pressure"]),
        ({"MemoryPressure": "True", "NetworkUnavailable": "True"}, True,
         ["node.kubernetes.io/memory-pressure", "node.kubernetes.io/network-unavailable",
          "node.kubernetes.io/unschedulable"]),
    ],
)  # fmt: skip
def test_taints_tell_what_conditions_tell(
    conditions: dict[str, str], unschedulable: bool, expected: list[str]
) -> None:
    w = NodeWorld(NodeHealth)
    key = w.node("n1")
    own = {"key": "mine", "effect": "NoSchedule"}
    w.objects[key]["spec"] = {"unschedulable": unschedulable, "taints": [own]}
    held = {c["type"]: c for c in w.objects[key]["status"]["conditions"]}
    for kind, status in conditions.items():
        held[kind] = {**held.get(kind, {"type": kind}), "status": status}
    w.objects[key]["status"]["conditions"] = list(held.values())
    w.work(key)
    assert w.taint(key, "NoSchedule") == ["mine", *expected]
    w.objects[key]["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
    w.objects[key]["spec"]["unschedulable"] = False
    w.work(key)
    assert w.taint(key, "NoSchedule") == ["mine"]


# ---- NoExecute taints ----------------------------------------------------------------------------


def eviction(*ready: str, zone: str = "") -> tuple[NodeWorld, list[Key]]:
    w = NodeWorld(lambda _clock: NodeEviction())
    labels = {nodes.ZONE: zone} if zone else {}
    return w, [w.node(f"n{i:03}", r, labels=labels) for i, r in enumerate(ready)]


@pytest.mark.parametrize(("ready", "key"), [("False", NOT_READY), ("Unknown", UNREACHABLE)])
def test_a_node_in_trouble_is_tainted(ready: str, key: str) -> None:
    w, (bad, good) = eviction(ready, "True")
    w.work(ALL)
    assert (w.taint(bad), w.taint(good)) == ([key], [])
    assert w.work(ALL) == []
    other = "Unknown" if ready == "False" else "False"
    w.ready(bad, other)
    w.work(ALL)
    assert w.taint(bad) == [UNREACHABLE if other == "Unknown" else NOT_READY]
    w.ready(bad, "True")
    w.work(ALL)
    assert w.taint(bad) == [] and "taints" not in w.objects[bad]["spec"]


def test_one_node_of_a_zone_in_ten_seconds() -> None:
    w, found = eviction("Unknown", "Unknown", "True", "True", "True")
    w.work(ALL)
    assert [w.taint(k) for k in found[:2]] == [[UNREACHABLE], []]
    assert w.again == 10
    w.now += 9
    w.work(ALL)
    assert w.taint(found[1]) == [] and w.again == pytest.approx(1)
    w.now += 1
    w.work(ALL)
    assert w.taint(found[1]) == [UNREACHABLE]


def test_zones_do_not_wait_for_each_other() -> None:
    w, a = eviction("Unknown", "True", zone="a")
    b = w.node("x", "Unknown", labels={nodes.ZONE: "b"})
    w.node("y", "True", labels={nodes.ZONE: "b"})
    w.work(ALL)
    assert w.taint(a[0]) == w.taint(b) == [UNREACHABLE]


def test_a_node_that_recovers_makes_no_room_for_the_next() -> None:
    """The rate is of taints given, not of taints that are there."""
    w, found = eviction("Unknown", "Unknown", "True", "True", "True")
    w.work(ALL)
    w.now += 2
    w.ready(found[0], "True")
    w.work(ALL)
    assert [w.taint(k) for k in found[:2]] == [[], []]
    assert w.again == pytest.approx(8)
    w.now += 8
    w.work(ALL)
    assert w.taint(found[1]) == [UNREACHABLE]


def test_a_zone_in_trouble_waits_or_goes_slowly() -> None:
    w, small = eviction("True", "Unknown", "Unknown", "Unknown", zone="a")
    large = [w.node(f"x{i:02}", "Unknown" if i < 30 else "True", labels={nodes.ZONE: "b"})
             for i in range(51)]  # fmt: skip
    w.work(ALL)
    assert [w.taint(k) for k in small] == [[]] * 4
    assert [bool(w.taint(k)) for k in large[:2]] == [True, False]
    w.now += 99
    w.work(ALL)
    assert not w.taint(large[1]) and w.again == pytest.approx(1)
    w.now += 1
    w.work(ALL)
    assert w.taint(large[1]) == [UNREACHABLE]
    assert [w.taint(k) for k in small] == [[]] * 4


def test_nodes_that_are_excluded_do_not_count() -> None:
    """Neither for the state of a zone nor for its size; they are tainted like the others."""
    w = NodeWorld(lambda _clock: NodeEviction())
    free = w.node("m", "Unknown", labels={nodes.EXCLUDED: "true"})
    w.node("n", "True", labels={nodes.EXCLUDED: "true"})
    w.work(ALL)
    assert w.taint(free) == [UNREACHABLE]
    # The only ones that count are all silent, so the cluster is.
    w.node("o", "Unknown")
    w.work(ALL)
    assert w.taint(free) == []


def test_a_cluster_that_is_silent_as_a_whole_is_left_alone() -> None:
    w, found = eviction("Unknown", "True")
    w.work(ALL)
    assert w.taint(found[0]) == [UNREACHABLE]
    w.ready(found[1], "Unknown")
    w.work(ALL)
    assert [w.taint(k) for k in found] == [[], []]
    assert w.work(ALL) == []


@pytest.mark.parametrize(
    ("good", "bad", "state"),
    [
        (3, 0, NORMAL), (1, 1, NORMAL), (0, 1, FULL), (0, 5, FULL), (2, 3, PARTIAL),
        (2, 2, NORMAL), (4, 4, NORMAL), (1, 2, NORMAL), (9, 11, PARTIAL), (10, 11, NORMAL),
    ],
)  # fmt: skip
def test_states_of_zones(good: int, bad: int, state: str) -> None:
    w, _ = eviction(*["True"] * good, *["Unknown"] * bad)
    assert node_eviction.zone_state(w["nodes"].list()) == state


@pytest.mark.parametrize(
    ("state", "size", "all_full", "expected"),
    [
        (NORMAL, 5, False, 0.1), (PARTIAL, 5, False, 0.0), (PARTIAL, 51, False, 0.01),
        (FULL, 5, False, 0.1), (FULL, 5, True, 0.0), (NORMAL, 5, True, 0.0),
    ],
)  # fmt: skip
def test_rates(state: str, size: int, all_full: bool, expected: float) -> None:
    assert node_eviction.rate(state, size, all_full=all_full) == expected


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(["a", "b"]), min_size=2, max_size=12),
    st.lists(st.tuples(st.integers(0, 11), st.sampled_from(["True", "False", "Unknown"]),
                       st.integers(0, 15)), max_size=30),
)  # fmt: skip
def test_taints_come_one_by_one_and_fit(
    zones: list[str], changes: list[tuple[int, str, int]]
) -> None:
    """Never two new ones of a zone within ten seconds, never both kinds at once, none on a node
    that is ready; and it comes to rest."""
    w = NodeWorld(lambda _clock: NodeEviction())
    found = [w.node(f"n{i}", labels={nodes.ZONE: z}) for i, z in enumerate(zones)]
    for i, ready, seconds in changes:
        w.now += seconds
        w.ready(found[i % len(found)], ready)
        before = {k: w.taint(k) for k in found}
        for _ in range(2):
            w.work(ALL)
        for k, z in zip(found, zones, strict=True):
            held = w.taint(k)
            assert len(held) <= 1
            status = nodes.ready(Obj.of(k, w.objects[k], 1))
            assert status != "True" or held == []
            if not held or before[k]:
                continue
            for other, zone in zip(found, zones, strict=True):
                same = other != k and zone == z and before[other] == w.taint(other) != []
                if same:
                    (taint,) = w.objects[other]["spec"]["taints"]
                    assert parse_rfc3339(taint["timeAdded"]) <= w.now - 10
    w.now += 1000
    for _ in range(100):
        w.work(ALL)
        w.now += 10
    assert w.work(ALL) == []


# ---- eviction by taints --------------------------------------------------------------------------


TAINT = {"key": "k", "effect": "NoExecute"}


@pytest.mark.parametrize(
    ("tolerations", "taints", "expected"),
    [
        ([], [], None),
        ([], [(TAINT, 5.0)], 5.0),
        ([{"operator": "Exists"}], [(TAINT, 5.0)], None),
        ([{"key": "k", "operator": "Exists", "tolerationSeconds": 60}], [(TAINT, 5.0)], 65.0),
        ([{"key": "k", "operator": "Exists", "tolerationSeconds": -1}], [(TAINT, 5.0)], 5.0),
        (
            [{"key": "k", "operator": "Exists", "tolerationSeconds": 60}],
            [(TAINT, 5.0), ({"key": "x", "effect": "NoExecute"}, 9.0)],
            9.0,
        ),
        (
            [{"operator": "Exists", "tolerationSeconds": 10}],
            [(TAINT, 5.0), ({"key": "x", "effect": "NoExecute"}, 9.0)],
            15.0,
        ),
    ],
)
def test_when_pods_leave(
    tolerations: list[Body], taints: list[tuple[Body, float]], expected: float | None
) -> None:
    assert leaves_at(tolerations, taints) == expected


def tainted(seconds: int | None = 300, *, added: bool = True) -> tuple[NodeWorld, Key, Key]:
    w = NodeWorld(TaintEvictionController)
    node = w.node("n1")
    toleration: Body = {"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute"}
    if seconds is not None:
        toleration["tolerationSeconds"] = seconds
    pod = w.pod("p", tolerations=[toleration])
    taint: Body = {"key": UNREACHABLE, "effect": "NoExecute"}
    if added:
        taint["timeAdded"] = rfc3339(w.now)
    w.objects[node]["spec"]["taints"] = [taint]
    return w, node, pod


@pytest.mark.parametrize("added", [True, False])
def test_a_pod_leaves_when_its_time_is_over(added: bool) -> None:
    w, _node, pod = tainted(added=added)
    w.work(pod)
    assert w.again == 300
    w.now += 300
    actions = w.work(pod)
    assert any(isinstance(a, Delete) and a.grace is None for a in actions)
    assert w.events == [("TaintManagerEviction", "Marking for deletion Pod default/p")]
    (patch,) = [a for a in actions if isinstance(a, Patch)]
    (condition,) = patch.patch["status"]["conditions"]
    assert (condition["type"], condition["reason"], condition["message"]) == (
        "DisruptionTarget", "DeletionByTaintManager",
        "Taint manager: deleting due to NoExecute taint",
    )  # fmt: skip
    assert pod not in w.objects


def test_a_restart_does_not_lengthen_the_time() -> None:
    w, _node, pod = tainted()
    w.work(pod)
    w.now += 200
    w.controller = TaintEvictionController(w.clock)
    w.work(pod)
    assert w.again == 100


def test_a_taint_that_goes_away() -> None:
    w, node, pod = tainted()
    w.work(pod)
    w.objects[node]["spec"] = {}
    w.work(pod)
    assert w.events == [("TaintManagerEviction", "Cancelling deletion of Pod default/p")]
    w.now += 1000
    assert w.work(pod) == []


def test_a_pod_that_somebody_else_takes_away() -> None:
    w, _node, pod = tainted()
    w.work(pod)
    w.objects[pod]["metadata"]["deletionTimestamp"] = rfc3339(w.now)
    assert w.work(pod) == []
    del w.objects[pod]
    w.work(pod)
    assert w.events == [("TaintManagerEviction", "Cancelling deletion of Pod default/p")]
    assert w.work(pod) == []


def test_a_pod_that_was_taken_away_is_not_told_of_again() -> None:
    w, _node, pod = tainted()
    w.work(pod)
    w.now += 300
    w.work(pod)
    assert pod not in w.objects and w.work(pod) == []
    assert [text for _, text in w.events] == ["Marking for deletion Pod default/p"]


def test_a_namesake_on_a_sound_node_stays() -> None:
    w, node, pod = tainted()
    w.work(pod)
    del w.objects[pod]
    w.objects[node]["spec"] = {}
    w.pod("p")
    assert w.work(pod) == []


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_pods_that_have_ended_leave_too(phase: str) -> None:
    w, _node, pod = tainted(0)
    w.objects[pod]["status"]["phase"] = phase
    w.work(pod)
    assert pod not in w.objects


def test_who_tolerates_it_for_ever_stays() -> None:
    w, _node, pod = tainted(None)
    w.now += 10_000
    assert w.work(pod) == []


def test_who_came_later_has_its_whole_time() -> None:
    w, _node, pod = tainted()
    w.now += 250
    w.objects[pod]["status"]["conditions"].append(
        {"type": "PodScheduled", "status": "True", "lastTransitionTime": rfc3339(w.now)}
    )
    w.work(pod)
    assert w.again == 300


# ---- pod garbage collection ----------------------------------------------------------------------


def test_pods_of_a_node_that_is_gone() -> None:
    w = NodeWorld(PodCollector)
    node, pod = w.node("n1"), w.pod("p")
    assert w.work(pod) == []
    del w.objects[node]
    w.work(pod)
    assert w.again == 40
    w.now += 40
    patch, delete = w.work(pod)
    assert patch.patch["status"]["phase"] == "Failed"
    (condition,) = patch.patch["status"]["conditions"]
    assert (condition["reason"], condition["message"]) == (
        "DeletionByPodGC", "PodGC: node no longer exists",
    )  # fmt: skip
    assert delete.grace == 0 and pod not in w.objects


def test_a_node_that_comes_back_keeps_its_pods() -> None:
    w = NodeWorld(PodCollector)
    pod = w.pod("p")
    w.work(pod)
    w.now += 39
    node = w.node("n1")
    assert w.work(pod) == []
    del w.objects[node]
    w.now += 39
    w.work(pod)
    assert w.again == 40


@pytest.mark.parametrize(
    ("ready", "taint", "deleting", "goes"),
    [
        ("Unknown", nodes.OUT_OF_SERVICE, True, True), ("True", nodes.OUT_OF_SERVICE, True, False),
        ("Unknown", "other", True, False), ("Unknown", nodes.OUT_OF_SERVICE, False, False),
    ],
)  # fmt: skip
def test_nodes_out_of_service(ready: str, taint: str, deleting: bool, goes: bool) -> None:
    w = NodeWorld(PodCollector)
    node, pod = w.node("n1", ready), w.pod("p")
    w.objects[node]["spec"]["taints"] = [{"key": taint, "effect": "NoExecute"}]
    if deleting:
        w.objects[pod]["metadata"]["deletionTimestamp"] = rfc3339(w.now)
    w.work(pod)
    assert (pod not in w.objects) == goes


def test_a_deleted_pod_that_runs_nowhere() -> None:
    w = NodeWorld(PodCollector)
    pod = w.pod("p", node="")
    assert w.work(pod) == []
    w.objects[pod]["metadata"]["deletionTimestamp"] = rfc3339(w.now)
    w.work(pod)
    assert pod not in w.objects


def test_too_many_pods_that_have_ended() -> None:
    w = NodeWorld(lambda _clock: EndedPods(2))
    for i in range(5):
        key = w.pod(f"p{i}")
        w.now += 1
        if i != 1:
            w.objects[key]["status"]["phase"] = "Succeeded" if i % 2 else "Failed"
    w.work(Key("pods", "", ""))
    assert sorted(k.name for k in w.objects if k.resource == "pods") == ["p1", "p3", "p4"]
    assert w.work(Key("pods", "", "")) == []


def test_evicted_pods_go_before_older_ones() -> None:
    w = NodeWorld(lambda _clock: EndedPods(1))
    for name, status in (("a", {"phase": "Succeeded"}), ("b", {"phase": "Failed"}),
                         ("c", {"phase": "Failed", "reason": "Evicted"}),
                         ("d", {"phase": "Failed", "reason": "Evicted"})):  # fmt: skip
        w.objects[w.pod(name)]["status"] = status
        w.now += 1
    w.work(Key("pods", "", ""))
    assert sorted(k.name for k in w.objects if k.resource == "pods") == ["b"]


def test_a_condition_that_is_there_keeps_its_time() -> None:
    w, _node, pod = tainted()
    long_ago = rfc3339(w.now - 100)
    held = {"type": "DisruptionTarget", "status": "True", "lastTransitionTime": long_ago}
    w.objects[pod]["status"]["conditions"].append(held)
    w.objects[pod]["metadata"]["generation"] = 4
    w.now += 300
    (patch,) = [a for a in w.work(pod) if isinstance(a, Patch)]
    (condition,) = patch.patch["status"]["conditions"]
    assert (condition["lastTransitionTime"], condition["observedGeneration"]) == (long_ago, 4)


# ---- the annotation of nodes ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "current", "expected"),
    [(1, "", 0), (100, "0", 0), (101, "0", 15), (95, "15", 15), (89, "15", 0), (600, "15", 30),
     (3000, "0", 300), (20_000, "", 600), (1, "600", 0)],
)  # fmt: skip
def test_seconds_by_size(size: int, current: str, expected: int) -> None:
    assert node_ttl.seconds(size, current) == expected


def test_nodes_are_annotated_once() -> None:
    w = NodeWorld(lambda _clock: NodeTtlController())
    key = w.node("n1")
    (patch,) = w.work(key)
    assert patch.patch["metadata"]["annotations"] == {node_ttl.ANNOTATION: "0"}
    w.objects[key]["metadata"]["annotations"] = patch.patch["metadata"]["annotations"]
    assert w.work(key) == []


def test_times_are_read_as_written() -> None:
    w, (bad, _good) = eviction("False", "True")
    (update,) = [a for a in w.work(ALL) if isinstance(a, Update)]
    (taint,) = update.body["spec"]["taints"]
    assert parse_rfc3339(taint["timeAdded"]) == int(w.now)
    assert w.taint(bad) == [NOT_READY]
