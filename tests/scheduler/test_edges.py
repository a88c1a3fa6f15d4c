"""Corners of the scheduler that a sweep of mutants found open: each of these tests fails when one
comparison, constant or call of the code is changed."""

from __future__ import annotations

import random
from typing import Any

import pytest

from sampan.api.obj import Body, Key, Obj
from sampan.lib.selectors import Selector, from_labels
from sampan.scheduler.cycle import NoFit, enough, tally
from sampan.scheduler.framework import Hopeless, Nominate, PodInfo, Reject, Scoring, Wake
from sampan.scheduler.plugins.default_preemption import DefaultPreemption, is_preempted, split
from sampan.scheduler.plugins.image_locality import normal_name
from sampan.scheduler.plugins.inter_pod_affinity import InterPodAffinity
from sampan.scheduler.plugins.kin import CachedKin
from sampan.scheduler.plugins.node_affinity import NodeAffinity
from sampan.scheduler.plugins.node_ports import NodePorts
from sampan.scheduler.plugins.node_resources import NodeResourcesFit, evenness
from sampan.scheduler.plugins.pod_topology_spread import Constraint, PodTopologySpread
from sampan.scheduler.plugins.taint_toleration import NodeUnschedulable, TaintToleration
from sampan.scheduler.snapshot import Snapshot
from sampan.testing.placement import HOSTNAME, ZONE, apart, cycle, node, pod, spread, term

APP = {"app": "w"}
EARLY, LATE = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"


def wakes(plugin: Any, resource: str, kind: str, p: Obj, old: Obj | None, new: Obj | None) -> bool:
    """Whether a plug-in takes an event for one that may help *p*."""
    found: list[Wake] = [w for w in plugin.wakes if w.resource == resource and kind in w.on]
    return any(w.hint is None or w.hint(PodInfo.of(p), old, new) for w in found)


# -- hints -----------------------------------------------------------------------------------------

GPU = {"example.com/gpu": "1"}
TAINT = {"key": "k", "effect": "NoSchedule"}
SOFT = {"key": "k", "effect": "PreferNoSchedule"}


@pytest.mark.parametrize(
    ("plugin", "p", "old", "new", "helps"),
    [
        (NodeResourcesFit(), pod(requests=GPU), None, node("a"), False),
        (NodeResourcesFit(), pod(requests=GPU), None, node("a", more=GPU), True),
        (NodeResourcesFit(), pod(cpu="2"), None, node("a", cpu="2"), True),
        (NodeResourcesFit(), pod(), node("a", pods="1"), node("a", pods="2"), True),
        (NodeResourcesFit(), pod(), node("a", pods="2"), node("a", pods="1"), False),
        (NodeResourcesFit(), pod(cpu="1"), node("a", memory="1Gi"), node("a"), False),
        (NodeUnschedulable(), pod(), node("a", unschedulable=True), node("a"), True),
        (NodeUnschedulable(), pod(), node("a"), node("a", unschedulable=True), False),
        (NodeUnschedulable(), pod(), node("a"), node("a"), False),
        (NodeUnschedulable(), pod(), None, node("a"), True),
        (NodeUnschedulable(), pod(), None, node("a", unschedulable=True), False),
        (TaintToleration(), pod(), None, node("a"), True),
        (TaintToleration(), pod(), None, node("a", taints=[TAINT]), False),
        (TaintToleration(), pod(), None, node("a", taints=[SOFT]), True),
        (TaintToleration(), pod(), node("a"), node("a"), False),
        (NodeAffinity(), pod(), None, node("a"), True),
        (NodePorts(), pod(hostPort=80), node("a"), node("a"), True),
        (InterPodAffinity(), pod(), node("a"), node("a"), False),
        (InterPodAffinity(), pod(), node("a"), node("a", labels={ZONE: "z"}), True),
        (InterPodAffinity(), pod(), None, node("a"), True),
        (PodTopologySpread(), pod(topologySpreadConstraints=[spread(app="w")]), node("a"),
         node("a"), False),
        (PodTopologySpread(), pod(topologySpreadConstraints=[spread(app="w")]), node("a"),
         node("a", taints=[TAINT]), True),
        (PodTopologySpread(), pod(topologySpreadConstraints=[spread(app="w")]), node("a"),
         node("a", labels={ZONE: "z"}), True),
        (PodTopologySpread(), pod(topologySpreadConstraints=[spread(app="w")]), node("a"), None,
         True),
    ],
)  # fmt: skip
def test_changes_of_nodes_that_may_help(
    plugin: Any, p: Obj, old: Obj | None, new: Obj | None, helps: bool
) -> None:
    kind = "ADDED" if old is None else "DELETED" if new is None else "MODIFIED"
    assert wakes(plugin, "nodes", kind, p, old, new) is helps


@pytest.mark.parametrize(
    ("plugin", "p", "old", "new", "helps"),
    [
        (NodeResourcesFit(), pod(cpu="1"), pod("x"), None, True),
        (NodeResourcesFit(), pod(cpu="1"), pod("x", cpu="2"), pod("x", cpu="1"), True),
        (NodeResourcesFit(), pod(cpu="1"), pod("x", cpu="1"), pod("x", cpu="1"), False),
        (NodeResourcesFit(), pod(cpu="1"), pod("x", cpu="1"), pod("x", cpu="2"), False),
        (NodePorts(), pod(hostPort=80), pod("x", hostPort=80), None, True),
        (NodePorts(), pod(hostPort=80), pod("x", hostPort=81), None, False),
        (NodePorts(), pod(hostPort=80), pod("x"), None, False),
        (InterPodAffinity(), pod(), pod("x"), None, True),
        (InterPodAffinity(), pod(), None, pod("x"), False),
        (InterPodAffinity(), pod(affinity={"podAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [term(app="w")]}}), None, pod("x"),
         True),
        (InterPodAffinity(), pod(), pod("x", labels=APP), pod("x"), True),
        (InterPodAffinity(), pod(), pod("x", labels=APP), pod("x", labels=APP), False),
        (PodTopologySpread(), pod(topologySpreadConstraints=[spread(app="w")]), None,
         pod("x", labels=APP), True),
        (PodTopologySpread(), pod(topologySpreadConstraints=[spread(app="w")]), None, pod("x"),
         False),
        (PodTopologySpread(), pod(topologySpreadConstraints=[spread(app="w")]),
         pod("x", labels=APP), pod("x"), True),
        (PodTopologySpread(), pod(topologySpreadConstraints=[spread(app="w")]), None,
         pod("x", labels=APP, namespace="other"), False),
        (PodTopologySpread(), pod(topologySpreadConstraints=[
            {**spread(app="w"), "whenUnsatisfiable": "ScheduleAnyway"}]), None,
         pod("x", labels=APP), False),
    ],
)  # fmt: skip
def test_changes_of_pods_that_may_help(
    plugin: Any, p: Obj, old: Obj | None, new: Obj | None, helps: bool
) -> None:
    kind = "ADDED" if old is None else "DELETED" if new is None else "MODIFIED"
    assert wakes(plugin, "pods", kind, p, old, new) is helps


# -- figures ---------------------------------------------------------------------------------------


def test_how_many_nodes_are_enough_at_the_edges() -> None:
    assert [enough(n) for n in (99, 100, 101, 124, 125, 250, 5625, 5750, 100_000)] == [
        99, 100, 100, 100, 100, 120, 281, 287, 5000,
    ]  # fmt: skip


def test_reasons_are_counted_and_sorted_as_text() -> None:
    found = [Reject("b"), Reject("a", more=("b",)), Reject("c")]
    assert tally(found, 5, "") == "1 a, 1 c, 2 b"
    assert tally(found, 5, "z") == "1 a, 1 c, 2 b, 2 z"
    assert tally(found, 3, "z") == "1 a, 1 c, 2 b"
    assert NoFit(2, {"x": Reject("a")}).message("so") == "0/2 nodes are available: 1 a. so"
    assert NoFit(2).message() == "0/2 nodes are available:"


@pytest.mark.parametrize(
    ("used", "points"),
    [((0, 4, 0, 4), 100), ((4, 4, 0, 4), 50), ((8, 4, 4, 4), 100), ((1, 4, 2, 4), 87),
     ((1, 0, 4, 4), 100), ((4, 4, 1, 0), 100), ((2, 4, 8, 4), 75)],
)  # fmt: skip
def test_evenness(used: tuple[int, int, int, int], points: int) -> None:
    assert evenness(*used) == points


def least_allocated(p: Obj, n: Obj, *placed: Obj) -> int:
    view = Snapshot()
    view.set_node(n)
    for other in placed:
        view.place(PodInfo.of(other), n.name)
    scoring = NodeResourcesFit().prepare_score(PodInfo.of(p), view)
    assert isinstance(scoring, Scoring) and scoring.score is not None
    return scoring.score(view.nodes[n.name])


def test_emptiness_at_the_edges() -> None:
    four = node("a", cpu="4", memory="4Gi")
    assert least_allocated(pod(cpu="4", memory="4Gi"), four) == 0
    assert least_allocated(pod(cpu="5", memory="2Gi"), four) == 25
    # A resource that a node does not have is no part of the mean; none at all: nothing.
    assert least_allocated(pod(cpu="1"), node("a", cpu="4", memory="0")) == 75
    assert least_allocated(pod(memory="1Gi"), node("a", cpu="0", memory="4Gi")) == 75
    assert least_allocated(pod(), node("a", cpu="0", memory="0")) == 0
    held = pod("x", cpu="1", memory="1Gi")
    assert least_allocated(pod(cpu="1", memory="1Gi"), four, held) == 50


@pytest.mark.parametrize(
    ("image", "name"),
    [("web", "web:latest"), ("web:1", "web:1"), ("reg:5000/web", "reg:5000/web:latest"),
     ("reg:5000/web:1", "reg:5000/web:1"), ("a/b", "a/b:latest")],
)  # fmt: skip
def test_names_of_images(image: str, name: str) -> None:
    assert normal_name(image) == name


def test_match_label_keys_narrow_what_spreading_counts() -> None:
    body = {**spread(app="w"), "matchLabelKeys": ["hash", "absent"]}
    c = Constraint.of(body, {"app": "w", "hash": "1"})
    assert c.selector.matches({"app": "w", "hash": "1"})
    assert not c.selector.matches({"app": "w", "hash": "2"})
    bare = {k: v for k, v in body.items() if k != "labelSelector"}
    assert not Constraint.of(bare, {"hash": "1"}).selector.matches({"hash": "1"})
    assert Constraint.of(body, None).selector.matches({"app": "w"})
    plain = Constraint(ZONE, 1, Selector())
    assert (plain.min_domains, plain.honours_affinity, plain.honours_taints) == (1, True, False)
    assert (c.min_domains, c.honours_affinity, c.honours_taints) == (1, True, False)


@pytest.mark.parametrize(
    ("a", "b", "clash"),
    [(("", "TCP", 80), ("", "TCP", 80), True), (("", "TCP", 80), ("", "UDP", 80), False),
     (("", "TCP", 80), ("", "TCP", 81), False), (("10.0.0.1", "TCP", 80), ("", "TCP", 80), True),
     (("", "TCP", 80), ("10.0.0.1", "TCP", 80), True),
     (("10.0.0.1", "TCP", 80), ("10.0.0.1", "TCP", 80), True),
     (("10.0.0.1", "TCP", 80), ("10.0.0.2", "TCP", 80), False),
     (("0.0.0.0", "TCP", 80), ("10.0.0.2", "TCP", 80), True)],
)  # fmt: skip
def test_host_ports_clash_by_address(a: Any, b: Any, clash: bool) -> None:
    def holder(name: str, port: tuple[str, str, int], **spec: Any) -> Obj:
        ip, protocol, number = port
        told = {"containerPort": 1, "hostPort": number, "protocol": protocol}
        ports = [{**told, "hostIP": ip} if ip else told]
        return pod(name, containers=[{"name": "c", "image": "i", "ports": ports}], **spec)

    fast = cycle([node("a")], [holder("x", b, on="a")])
    assert (fast.decide(PodInfo.of(holder("p", a))) != "a") is clash


# -- preemption ------------------------------------------------------------------------------------


def victim(name: str, priority: int, on: str = "a", **more: Any) -> Obj:
    status = more.pop("status", {"startTime": EARLY})
    return pod(name, cpu=more.pop("cpu", "1"), priority=priority, on=on, status=status, **more)


def going(name: str, priority: int, on: str = "a", reason: str = "PreemptionByScheduler") -> Obj:
    conditions = [{"type": "DisruptionTarget", "status": "True", "reason": reason}]
    return victim(name, priority, on, deleting=True, cpu="2", status={"conditions": conditions})


def attempt(p: Obj, machines: list[Obj], placed: list[Obj], nominated: str = "") -> Any:
    fast = cycle(machines, placed)
    info = PodInfo.of(p)
    if nominated:
        fast.view.nominate(info, nominated)
    failure = fast.decide(info)
    assert isinstance(failure, NoFit)
    table = fast.table(info)
    plugin = DefaultPreemption(budgets=tuple, rng=random.Random(1))
    return plugin.post_filter(
        info, fast.view, failure.rejected, lambda n: fast.trial(table, info, n)
    )


WAITING = "preemption: not eligible due to a terminating pod on the nominated node."


@pytest.mark.parametrize(
    ("other", "waits"),
    [(going("x", 1), True), (going("x", 10), False), (going("x", 11), False),
     (going("x", 1, reason="EvictionByEvictionAPI"), False),
     (victim("x", 1, cpu="2"), False)],
)  # fmt: skip
def test_who_is_waiting_for_room_already(other: Obj, waits: bool) -> None:
    machines = [node("a"), node("b")]
    found = attempt(pod(cpu="1", priority=10), machines, [other, victim("y", 1, "b", cpu="2")], "a")
    if waits:
        assert found == Hopeless(WAITING, forget=False)
    else:
        assert isinstance(found, Nominate)


def test_room_on_a_node_that_can_never_fit_is_not_waited_for() -> None:
    machines = [node("a", taints=[TAINT]), node("b")]
    placed = [going("x", 1), victim("y", 1, "b", cpu="2")]
    found = attempt(pod(cpu="1", priority=10), machines, placed, "a")
    assert isinstance(found, Nominate) and found.node == "b"


def test_who_is_preempted() -> None:
    assert is_preempted(going("x", 1))
    assert not is_preempted(going("x", 1, reason="DeletionByTaintManager"))
    assert not is_preempted(victim("x", 1, status={"conditions": [
        {"type": "DisruptionTarget", "reason": "PreemptionByScheduler"}]}))  # fmt: skip


def budget(selector: Body | None, allowed: int, namespace: str = "default") -> Obj:
    body = {"metadata": {"name": "b", "namespace": namespace}, "spec": {"selector": selector},
            "status": {"disruptionsAllowed": allowed}}  # fmt: skip
    return Obj.of(Key("poddisruptionbudgets.policy", namespace, "b"), body, 1)


@pytest.mark.parametrize(
    ("b", "labels", "held"),
    [
        (budget({"matchLabels": APP}, 0), APP, True), (budget({"matchLabels": APP}, 1), APP, False),
        (budget({"matchLabels": APP}, 0, "other"), APP, False), (budget({}, 0), APP, False),
        (budget({"matchExpressions": [{"key": "x", "operator": "DoesNotExist"}]}, 0), {}, False),
        (budget({"matchExpressions": [{"key": "x", "operator": "DoesNotExist"}]}, 0), APP, True),
        (budget({"matchLabels": {"app": "v"}}, 0), APP, False),
    ],
)  # fmt: skip
def test_which_pods_a_budget_holds(b: Obj, labels: dict[str, str], held: bool) -> None:
    violating, others = split([PodInfo.of(victim("x", 1, labels=labels))], [b])
    assert (len(violating), len(others)) == ((1, 0) if held else (0, 1))


def test_a_pod_may_break_one_of_several_budgets() -> None:
    budgets = [budget({"matchLabels": APP}, 5), budget({"matchLabels": {"t": "1"}}, 0)]
    pods = [PodInfo.of(victim("x", 1, labels={**APP, "t": "1"}))]
    assert [len(part) for part in split(pods, budgets)] == [1, 0]
    assert [len(part) for part in split(pods, budgets[::-1])] == [1, 0]


def test_the_younger_of_equals_goes() -> None:
    placed = [victim("old", 1, status={"startTime": EARLY}),
              victim("young", 1, status={"startTime": LATE})]  # fmt: skip
    for order in (placed, placed[::-1]):
        found = attempt(pod(cpu="1", priority=10), [node("a")], order)
        assert [v.obj.name for v in found.victims] == ["young"]


def test_a_pod_that_has_not_started_is_the_youngest() -> None:
    placed = [victim("started", 1, status={"startTime": LATE}), victim("waits", 1, status={})]
    found = attempt(pod(cpu="1", priority=10), [node("a")], placed)
    assert [v.obj.name for v in found.victims] == ["waits"]


def test_in_a_big_cluster_a_part_of_the_nodes_is_tried() -> None:
    """A tenth, and a hundred at least; then the cheapest of those."""
    tried: list[str] = []
    view = cycle([], []).view
    for i in range(1200):
        view.set_node(node(f"n{i}", cpu="1"))
        view.place(PodInfo.of(victim(f"v{i}", i % 7, f"n{i}")), f"n{i}")
    info = PodInfo.of(pod(cpu="1", priority=10))
    plugin = DefaultPreemption(budgets=tuple, rng=random.Random(1))

    def trial(n: Any) -> Reject | None:
        tried.append(n.obj.name)
        return None if not n.pods else Reject("full", curable=True)

    rejected = {name: Reject("full", curable=True) for name in view.nodes}
    found = plugin.post_filter(info, view, rejected, trial)
    assert isinstance(found, Nominate) and len(dict.fromkeys(tried)) == 120
    assert found.victims[0].priority == 0
    tried.clear()
    some = dict([*rejected.items()][:500])
    plugin.post_filter(info, view, some, trial)
    assert len(dict.fromkeys(tried)) == 100


# -- kin -------------------------------------------------------------------------------------------


class Cache:
    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Obj] = {}
        self.handlers: list[Any] = []

    def add_handler(self, handler: Any) -> None:
        self.handlers.append(handler)

    def get(self, namespace: str, name: str) -> Obj | None:
        return self.objects.get((namespace, name))

    def list(self, namespace: str) -> list[Obj]:
        return [o for (ns, _), o in self.objects.items() if ns == namespace]

    def put(self, resource: str, name: str, selector: Body | None, uid: str = "u") -> None:
        body = {"metadata": {"name": name, "namespace": "default", "uid": uid},
                "spec": {"selector": selector} if selector is not None else {}}  # fmt: skip
        old, new = self.get("default", name), Obj.of(Key(resource, "default", name), body, 1)
        self.objects["default", name] = new
        for handler in self.handlers:
            handler("MODIFIED" if old else "ADDED", old, new)


RESOURCES = ("services", "replicasets.apps", "statefulsets.apps", "replicationcontrollers")


def kin() -> tuple[CachedKin, dict[str, Cache]]:
    caches: Any = {r: Cache() for r in RESOURCES}
    return CachedKin(caches, RESOURCES), caches


def owned(kind: str, uid: str = "u", labels: dict[str, str] | None = None) -> PodInfo:
    made = pod("p", labels=labels or {})
    ref = {"kind": kind, "name": "owner", "uid": uid, "controller": True}
    body = {**made.body, "metadata": {**made.meta, "ownerReferences": [ref]}}
    return PodInfo.of(Obj.of(made.key, body, 1))


def chosen(selector: Selector | None) -> str | None:
    return None if selector is None else str(selector)


def test_kin_are_those_of_the_same_services_and_controller() -> None:
    found, caches = kin()
    assert found.selector(owned("ReplicaSet")) is None
    caches["replicasets.apps"].put("replicasets.apps", "owner", {"matchLabels": {"r": "1"}})
    caches["replicationcontrollers"].put("replicationcontrollers", "owner", {"c": "1"})
    caches["services"].put("services", "s", APP)
    caches["services"].put("services", "t", {"app": "other"})
    caches["services"].put("services", "none", None)
    assert chosen(found.selector(owned("ReplicaSet"))) == "r=1"
    assert chosen(found.selector(owned("ReplicaSet", "another"))) is None
    assert chosen(found.selector(owned("ReplicationController"))) == "c=1"
    assert chosen(found.selector(owned("Job"))) is None
    assert chosen(found.selector(owned("Job", labels=APP))) == "app=w"
    both = found.selector(owned("ReplicaSet", labels={**APP, "r": "1"}))
    assert both is not None and both.matches({"app": "w", "r": "1"})
    assert not both.matches(APP) and not both.matches({"r": "1"})


def test_kin_are_asked_anew_only_when_a_selector_has_changed() -> None:
    found, caches = kin()
    before = found.version()
    caches["services"].put("services", "s", APP)
    assert found.version() == before + 1
    caches["services"].put("services", "s", APP)
    assert found.version() == before + 1
    caches["services"].put("services", "s", {"app": "v"})
    assert found.version() == before + 2


class Fixed:
    """Kin by a given selector."""

    def __init__(self, selector: Selector | None) -> None:
        self.given = selector
        self.number = 0

    def version(self) -> int:
        return self.number

    def selector(self, _pod: PodInfo) -> Selector | None:
        return self.given


def test_default_spreading_holds_while_the_kin_are_the_same() -> None:
    one = Fixed(from_labels(APP))
    plugin = PodTopologySpread(one)
    scoring = plugin.prepare_score(PodInfo.of(pod(labels=APP)), Snapshot())
    assert isinstance(scoring, Scoring) and scoring.current is not None
    assert scoring.domains is not None
    assert [t.key for t in scoring.domains.tallies] == [HOSTNAME, ZONE]
    one.number = 1
    assert scoring.current()
    one.given, one.number = from_labels({"app": "v"}), 2
    assert not scoring.current()
    own = pod(labels=APP, topologySpreadConstraints=[spread(app="w")])
    assert plugin.prepare_score(PodInfo.of(own), Snapshot()).__class__.__name__ == "Skip"


# -- snapshot --------------------------------------------------------------------------------------


def test_a_snapshot_tells_each_changed_node_once() -> None:
    view = Snapshot()
    view.set_node(node("a"))
    view.set_node(node("b"))
    start = view.position
    assert view.changed_since(start) == []
    for i in range(3):
        view.place(PodInfo.of(pod(f"p{i}")), "a")
    view.place(PodInfo.of(pod("q")), "b")
    changed = view.changed_since(start)
    assert changed is not None and sorted(changed) == ["a", "b"]
    assert view.changed_since(view.position - 1) == ("b",)


def test_pods_wait_for_a_node_that_is_not_there() -> None:
    view = Snapshot()
    near = pod("n", affinity=apart(term(app="w")), priority=3)
    view.place(PodInfo.of(near), "late")
    assert view.node_of("default-n") == "late" and not view.affine and not view.priorities
    view.set_node(node("late"))
    assert list(view.nodes["late"].pods) == ["default-n"]
    assert view.priorities == {3: 1} and [*view.affine.values()] == [1]
    view.remove_node("late")
    assert not view.affine and not view.priorities and view.node_of("default-n") == "late"
    view.remove_pod("default-n")
    view.set_node(node("late"))
    assert not view.nodes["late"].pods


def test_images_are_counted_by_node() -> None:
    view = Snapshot()
    held = [{"names": ["i:1", "i@sha"], "sizeBytes": 1}]
    view.set_node(node("a", images=held))
    view.set_node(node("b", images=held))
    assert view.images == {"i:1": 2, "i@sha": 2}
    view.set_node(node("b"))
    assert view.images == {"i:1": 1, "i@sha": 1}
    view.remove_node("a")
    assert view.images == {}


def test_a_pod_that_moves_is_in_one_place() -> None:
    view = Snapshot()
    for name in ("a", "b"):
        view.set_node(node(name))
    view.place(PodInfo.of(pod("p", cpu="1", hostPort=80)), "a")
    view.place(PodInfo.of(pod("p", cpu="1", hostPort=80)), "b")
    a, b = view.nodes["a"], view.nodes["b"]
    assert not a.pods and not a.ports and not a.classes and a.requested["cpu"] == 0
    assert (a.assumed_cpu, a.assumed_memory) == (0, 0)
    assert b.requested["cpu"] == 1000 and b.assumed_cpu == 1000 and [*b.ports.values()] == [1]
    assert b.remove("nobody") is None and b.remove("default-p") is not None and not b.ports
