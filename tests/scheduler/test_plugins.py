"""Each plug-in by examples: verdicts in upstream's words, scores in upstream's figures."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.api.obj import Body, Key, Obj
from sampan.scheduler.cycle import NoFit, enough
from sampan.scheduler.framework import Nominate, PodInfo, Reject, Scoring, Wake
from sampan.scheduler.plugins.default_preemption import Candidate, best, split
from sampan.scheduler.plugins.image_locality import ImageLocality
from sampan.scheduler.plugins.inter_pod_affinity import between
from sampan.scheduler.plugins.node_affinity import NodeAffinity, share_of_most
from sampan.scheduler.plugins.node_resources import (
    NodeResourcesBalancedAllocation,
    NodeResourcesFit,
)
from sampan.scheduler.plugins.pod_topology_spread import fewest_of_range
from sampan.scheduler.plugins.taint_toleration import TaintToleration, fewest_best
from sampan.scheduler.pods import pod_requests
from sampan.scheduler.snapshot import Snapshot
from sampan.testing.placement import (
    HOSTNAME,
    REQUIRED,
    ZONE,
    apart,
    cycle,
    decide,
    near,
    node,
    pod,
    spread,
    term,
)
from sampan.testing.scheduling import PlainCluster, reasons

A, B = {HOSTNAME: "a", ZONE: "z1"}, {HOSTNAME: "b", ZONE: "z2"}
APP = {"app": "w"}


def nodes(**spec: Any) -> list[Obj]:
    return [node("a", labels=A, **spec), node("b", labels=B, **spec)]


def required(*terms: Body) -> Body:
    return {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": list(terms)}}}


def named(*names: str) -> Body:
    return {"matchFields": [{"key": "metadata.name", "operator": "In", "values": list(names)}]}


@pytest.mark.parametrize(
    ("p", "placed", "told"),
    [
        (pod(cpu="3", memory="8Gi"), [], "2 Insufficient cpu, 2 Insufficient memory"),
        (pod(requests={"example.com/gpu": "1"}), [], "2 Insufficient example.com/gpu"),
        (pod(hostPort=80), [pod("x", hostPort=80, on="a"), pod("y", hostPort=80, on="b")],
         "2 node(s) didn't have free ports for the requested pod ports"),
        (pod(affinity=near(term(app="db"))), [], "2 node(s) didn't match pod affinity rules"),
        (pod(affinity=apart(term(app="w"))),
         [pod("x", labels=APP, on="a"), pod("y", labels=APP, on="b")],
         "2 node(s) didn't match pod anti-affinity rules"),
        (pod(labels=APP),
         [pod("x", affinity=apart(term(app="w")), on="a"),
          pod("y", affinity=apart(term(app="w")), on="b")],
         "2 node(s) didn't satisfy existing pods anti-affinity rules"),
        (pod(topologySpreadConstraints=[spread("rack", app="w")]), [],
         "2 node(s) didn't match pod topology spread constraints (missing required label)"),
        (pod(labels=APP, cpu="2", topologySpreadConstraints=[spread(app="w")]),
         [pod("x", labels=APP, on="a"), pod("y", cpu="1", on="b")],
         "1 Insufficient cpu, 1 node(s) didn't match pod topology spread constraints"),
        (pod(labels=APP, topologySpreadConstraints=[spread(app="w", minDomains=3)]),
         [pod("x", labels=APP, on="a"), pod("y", labels=APP, on="b")],
         "2 node(s) didn't match pod topology spread constraints"),
        (pod(affinity=required(named("a"))), [pod("x", cpu="2", on="a")], "a"),
        (pod(cpu="1", affinity=required(named("a"))), [pod("x", cpu="2", on="a")],
         "1 Insufficient cpu, 1 node(s) didn't satisfy plugin(s) [NodeAffinity]"),
        (pod(affinity=required({**named("a"), "matchExpressions": [
            {"key": ZONE, "operator": "In", "values": ["z2"]}]})), [],
         "1 node(s) didn't match Pod's node affinity/selector, "
         "1 node(s) didn't satisfy plugin(s) [NodeAffinity]"),
        (pod(affinity=required({"matchFields": [
            *named("a")["matchFields"], *named("b")["matchFields"]]})), [],
         "pod affinity terms conflict"),
    ],
)  # fmt: skip
def test_why_not(p: Obj, placed: list[Obj], told: str) -> None:
    found = decide(p, nodes(), placed)
    assert found in (told, f"0/2 nodes are available: {told}.")


@pytest.mark.parametrize(
    ("p", "placed", "where"),
    [
        # The first of a group that wants to be together may go anywhere its keys are.
        (pod(labels=APP, affinity=near(term(app="w"))), [pod("x", cpu="1", on="b")], "a"),
        (pod(affinity=near(term(app="w"))), [pod("x", labels=APP, on="b")], "b"),
        (pod(affinity=apart(term(app="w"))), [pod("x", labels=APP, on="b")], "a"),
        # Another namespace only if the term says so.
        (pod(affinity=near(term(app="w", namespaces=["other"]))),
         [pod("x", labels=APP, namespace="other", on="b"), pod("y", labels=APP, on="a")], "b"),
        (pod(affinity=apart(term(app="w", namespaceSelector={"matchLabels": {"t": "1"}}))),
         [pod("x", labels=APP, namespace="other", on="b"), pod("y", labels=APP, on="a")], "a"),
        # A pod that is going does not count for spreading, but it does for anti-affinity.
        (pod(labels=APP, topologySpreadConstraints=[spread(app="w")]),
         [pod("x", labels=APP, deleting=True, on="a"), pod("y", labels=APP, on="b")], "a"),
        (pod(affinity=apart(term(app="w"))), [pod("x", labels=APP, deleting=True, on="a")], "b"),
    ],
)  # fmt: skip
def test_where(p: Obj, placed: list[Obj], where: str) -> None:
    assert decide(p, nodes(), placed, namespaces={"other": {"t": "1"}}) == where


def test_policies_say_which_nodes_spreading_counts() -> None:
    taint = {"key": "k", "effect": "NoSchedule"}
    both = [node("a", labels=A), node("b", labels=B, taints=[taint])]
    there = [pod("x", labels=APP, on="a")]
    rule = spread(app="w")
    p = pod(labels=APP, topologySpreadConstraints=[rule])
    assert "topology spread" in decide(p, both, there)
    p = pod(labels=APP, topologySpreadConstraints=[{**rule, "nodeTaintsPolicy": "Honor"}])
    assert decide(p, both, there) == "a"
    selector = {"nodeSelector": {HOSTNAME: "a"}}
    p = pod(labels=APP, topologySpreadConstraints=[rule], **selector)
    assert decide(p, nodes(), there) == "a"
    ignoring = {**rule, "nodeAffinityPolicy": "Ignore"}
    p = pod(labels=APP, topologySpreadConstraints=[ignoring], **selector)
    assert "topology spread" in decide(p, nodes(), there)


def test_requests() -> None:
    def container(cpu: str, **more: Any) -> Body:
        return {"name": "c", "resources": {"requests": {"cpu": cpu}}, **more}

    spec = {
        "initContainers": [container("1", restartPolicy="Always"), container("3")],
        "containers": [container("1"), container("500m")], "overhead": {"cpu": "250m"},
    }  # fmt: skip
    assert pod_requests(spec) == {"cpu": 4250}
    # What the pod as a whole asks for stands above it; other resources are not asked for so.
    spec["resources"] = {"requests": {"cpu": "2", "example.com/gpu": "9"}}
    assert pod_requests(spec) == {"cpu": 2250}


def raw(plugin: Any, p: Obj, *placed: Obj, on: Obj | None = None) -> int:
    """The points of one node before they are normalised."""
    view = Snapshot()
    view.set_node(on or node("a", cpu="4", memory="10Gi"))
    for other in placed:
        view.place(PodInfo.of(other), "a")
    scoring = plugin.prepare_score(PodInfo.of(p), view)
    assert isinstance(scoring, Scoring) and scoring.score is not None
    return scoring.score(view.nodes["a"])


def test_scores() -> None:
    # (4000 - 1000) / 4000 and (10Gi - 5Gi) / 10Gi: 75 and 50.
    assert raw(NodeResourcesFit(), pod(cpu="1", memory="5Gi")) == 62
    # Without requests 100m and 200Mi are assumed: 97 and 98.
    assert raw(NodeResourcesFit(), pod()) == 97
    # From even (100) to 1/4 against 1/2 (87): 50 + (50 - 13) / 2.
    assert raw(NodeResourcesBalancedAllocation(), pod(cpu="1", memory="5Gi")) == 68
    # And back to even.
    held = pod("x", cpu="1", memory="5Gi")
    assert raw(NodeResourcesBalancedAllocation(), pod(cpu="1"), held) == 81
    soft = [{"key": "a", "effect": "PreferNoSchedule"}, {"key": "b", "effect": "PreferNoSchedule"}]
    tolerant = pod(tolerations=[{"key": "a", "operator": "Exists"}])
    assert raw(TaintToleration(), tolerant, on=node("a", taints=soft)) == 1
    wish = {"weight": 7, "preference": {"matchExpressions": [{"key": ZONE, "operator": "Exists"}]}}
    p = pod(affinity={"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [wish]}})
    assert raw(NodeAffinity(), p, on=node("a", labels=A)) == 7
    assert raw(NodeAffinity(), p, on=node("a")) == 0


def test_images_count_by_size() -> None:
    held = node("a", images=[{"names": ["i:latest"], "sizeBytes": 511 << 20}])
    # Half of what lies between 23 MB and 1000 MB.
    assert raw(ImageLocality(), pod(), on=held) == 49
    assert raw(ImageLocality(), pod(), on=node("a")) == 0


def test_normalisation() -> None:
    assert [share_of_most(p, 0, 8) for p in (0, 2, 8)] == [0, 25, 100]
    assert [fewest_best(p, 0, 3) for p in (0, 1, 3)] == [100, 67, 0] and fewest_best(0, 0, 0) == 100
    assert [between(p, -4, 4) for p in (-4, 0, 4)] == [0, 50, 100] and between(3, 3, 3) == 0
    assert [fewest_of_range(p, 2, 8) for p in (2, 5, 8)] == [100, 62, 25]
    assert fewest_of_range(0, 0, 0) == 100


def test_soft_spreading_weighs_by_the_number_of_domains() -> None:
    wish = {"topologyKey": ZONE, "maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": APP}}  # fmt: skip
    p = pod(labels=APP, topologySpreadConstraints=[wish])
    there = [pod("x", labels=APP, on="a"), pod("y", cpu="1", memory="2Gi", on="b")]
    assert decide(p, nodes(), there) == "b"
    # Without the label a node has no points at all.
    bare = node("c", cpu="64", labels={HOSTNAME: "c"})
    assert decide(p, [*nodes(), bare], there) == "b"


def test_how_many_nodes_are_enough() -> None:
    assert [enough(n) for n in (50, 100, 1000, 5000, 15000)] == [50, 100, 420, 500, 750]


# -- preemption --------------------------------------------------------------------------------


def budget(name: str, allowed: int, *, disrupted: tuple[str, ...] = ()) -> Obj:
    body = {"metadata": {"name": name, "namespace": "default"},
            "spec": {"selector": {"matchLabels": APP}},
            "status": {"disruptionsAllowed": allowed,
                       "disruptedPods": dict.fromkeys(disrupted, "")}}  # fmt: skip
    return Obj.of(Key("poddisruptionbudgets.policy", "default", name), body, 1)


def victim(name: str, priority: int, on: str = "a", *, cpu: str = "1", **more: Any) -> Obj:
    started = more.pop("started", "2026-01-01T00:00:00Z")
    return pod(name, cpu=cpu, priority=priority, on=on, status={"startTime": started}, **more)


def preempt(
    p: Obj, nodes: list[Obj], placed: list[Obj], budgets: tuple[Obj, ...] = ()
) -> Nominate | str:
    """What preemption finds, or what it says."""
    from sampan.scheduler.plugins.default_preemption import DefaultPreemption

    fast = cycle(nodes, placed)
    info = PodInfo.of(p)
    failure = fast.decide(info)
    assert isinstance(failure, NoFit)
    plugin = DefaultPreemption(budgets=lambda: budgets, rng=random.Random(1))
    table = fast.table(info)
    found = plugin.post_filter(
        info, fast.view, failure.rejected, lambda n: fast.trial(table, info, n)
    )
    return found if isinstance(found, Nominate) else found.message


def names(found: Nominate | str) -> tuple[str, list[str]]:
    assert isinstance(found, Nominate), found
    return found.node, sorted(v.obj.name for v in found.victims)


def test_as_few_and_as_unimportant_as_possible_go() -> None:
    there = [victim("low", 1), victim("mid", 5), victim("top", 9, "b", cpu="2")]
    assert names(preempt(pod(cpu="1", priority=10), nodes(), there)) == ("a", ["low"])
    assert names(preempt(pod(cpu="2", priority=10), nodes(), there)) == ("a", ["low", "mid"])


def test_nobody_goes_for_an_equal() -> None:
    there = [victim("x", 10, cpu="2"), victim("y", 11, "b", cpu="2")]
    assert preempt(pod(cpu="1", priority=10), nodes(), there) == (
        "preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod."
    )


def test_where_it_is_in_vain_it_says_so() -> None:
    there = [victim("x", 1, cpu="1"), victim("y", 20, cpu="1"), victim("z", 20, "b", cpu="2")]
    assert preempt(pod(cpu="2", priority=10), nodes(), there) == (
        "preemption: 0/2 nodes are available: 1 Insufficient cpu, "
        "1 No preemption victims found for incoming pod."
    )
    # More than a node has at all.
    assert preempt(pod(cpu="3", priority=10), nodes(), there) == (
        "preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
    )


def test_who_never_preempts_says_so() -> None:
    there = [victim("x", 1, cpu="2"), victim("y", 1, "b", cpu="2")]
    p = pod(cpu="1", priority=10, preemptionPolicy="Never")
    assert preempt(p, nodes(), there) == "preemption: not eligible due to preemptionPolicy=Never."


def test_budgets_are_kept_if_they_can_be() -> None:
    there = [victim("x", 1, labels=APP, cpu="2"), victim("y", 5, "b", cpu="2")]
    p = pod(cpu="1", priority=10)
    assert names(preempt(p, nodes(), there)) == ("a", ["x"])
    assert names(preempt(p, nodes(), there, (budget("b", 0),))) == ("b", ["y"])
    assert names(preempt(p, nodes(), there, (budget("b", 1),))) == ("a", ["x"])
    alone = [node("a", labels=A)]
    assert names(preempt(p, alone, there[:1], (budget("b", 0),))) == ("a", ["x"])


def test_the_pods_a_budget_holds_are_let_back_first() -> None:
    there = [victim("held", 1, labels=APP), victim("free", 5)]
    p = pod(cpu="1", priority=10)
    alone = [node("a", labels=A)]
    assert names(preempt(p, alone, there, (budget("b", 0),))) == ("a", ["free"])


def test_what_a_budget_counts() -> None:
    pods = [PodInfo.of(victim(n, 1, labels=APP)) for n in ("x", "y", "z")]
    violating, others = split(pods, [budget("b", 1, disrupted=("x",))])
    assert [p.obj.name for p in violating] == ["z"]
    assert [p.obj.name for p in others] == ["x", "y"]


def test_affinity_can_be_cured_by_preemption() -> None:
    there = [victim("x", 1, labels=APP, cpu="100m"), victim("y", 20, "b", labels=APP, cpu="100m")]
    p = pod(priority=10, affinity=apart(term(app="w")))
    assert names(preempt(p, nodes(), there)) == ("a", ["x"])


def test_the_cheapest_candidate() -> None:
    def candidate(name: str, violations: int, *victims: Obj) -> Candidate:
        return Candidate(name, tuple(PodInfo.of(v) for v in victims), violations)

    early, late = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"
    one = [victim("v", 3, started=early)]
    assert best([candidate("a", 1, *one), candidate("b", 0, victim("w", 9))]).node == "b"
    assert best([candidate("a", 0, victim("w", 9)), candidate("b", 0, *one, *one)]).node == "b"
    assert best([candidate("a", 0, *one, *one), candidate("b", 0, *one)]).node == "b"
    younger = candidate("b", 0, victim("w", 3, started=late))
    assert best([candidate("a", 0, *one), younger]).node == "b"


@st.composite
def crowds(draw: st.DrawFn) -> tuple[list[Obj], list[Obj], bool]:
    """Nodes, what runs on them, and whether a budget holds the pods of APP."""
    machines = [node(f"n{i}", cpu=str(draw(st.integers(1, 4)))) for i in range(3)]
    there = []
    for i in range(draw(st.integers(1, 9))):
        on = f"n{draw(st.integers(0, 2))}"
        size = draw(st.sampled_from(("500m", "1", "2")))
        labels = APP if draw(st.booleans()) else {}
        there.append(victim(f"v{i}", draw(st.integers(0, 12)), on, cpu=size, labels=labels))
    return machines, there, draw(st.booleans())


def alternatives(p: Obj, machine: Obj, there: list[Obj]) -> list[list[Obj]]:
    """Every set of less important pods whose absence makes room on a node."""
    on = [o for o in there if o.spec["nodeName"] == machine.name]
    lower = [o for o in on if o.spec["priority"] < p.spec["priority"]]
    found = []
    for mask in range(1, 2 ** len(lower)):
        gone = [o for i, o in enumerate(lower) if mask >> i & 1]
        left = [o for o in on if o not in gone]
        if not reasons(p, machine, PlainCluster([machine], left)):
            found.append(gone)
    return found


@settings(max_examples=80)
@given(crowd=crowds(), size=st.sampled_from(("1", "2", "3")))
def test_preemption_is_safe_and_spares_budgets_when_it_can(
    crowd: tuple[list[Obj], list[Obj], bool], size: str
) -> None:
    machines, there, has_budget = crowd
    p = pod("top", cpu=size, priority=10)
    plain = PlainCluster(machines, there)
    if any(not reasons(p, m, plain) for m in machines):
        return  # it fits as it is
    budgets = (budget("b", 0),) if has_budget else ()
    ways = {m.name: alternatives(p, m, there) for m in machines}
    found = preempt(p, machines, there, budgets)
    if not isinstance(found, Nominate):
        assert not any(ways.values()), found
        return
    victims = sorted(v.obj.name for v in found.victims)
    assert all(v.priority < 10 for v in found.victims)
    assert victims in [sorted(o.name for o in way) for way in ways[found.node]]
    # No victim could have stayed.
    for spared in victims:
        rest = [v for v in victims if v != spared]
        assert rest not in [sorted(o.name for o in way) for way in ways[found.node]]
    if has_budget and any(v.obj.labels == APP for v in found.victims):
        for group in ways.values():
            assert not any(all(o.labels != APP for o in way) for way in group)


# -- wake-up hints -----------------------------------------------------------------------------


def hint(plugin: Any, resource: str, kind: str) -> Wake:
    return next(w for w in plugin.wakes if w.resource == resource and kind in w.on)


def helps(wake: Wake, p: Obj, old: Obj | None, new: Obj | None) -> bool:
    return wake.hint is None or wake.hint(PodInfo.of(p), old, new)


def test_only_events_that_may_help_wake() -> None:
    fit, affinity, taints = NodeResourcesFit(), NodeAffinity(), TaintToleration()
    grown = hint(fit, "nodes", "MODIFIED")
    assert helps(grown, pod(cpu="3"), node("a", cpu="2"), node("a", cpu="4"))
    assert not helps(grown, pod(cpu="5"), node("a", cpu="2"), node("a", cpu="4"))
    assert not helps(grown, pod(cpu="1"), node("a", cpu="2"), node("a", cpu="2"))
    added = hint(affinity, "nodes", "ADDED")
    assert helps(added, pod(nodeSelector={ZONE: "z1"}), None, node("a", labels=A))
    assert not helps(added, pod(nodeSelector={ZONE: "z9"}), None, node("a", labels=A))
    taint = {"key": "k", "effect": "NoSchedule"}
    untainted = hint(taints, "nodes", "MODIFIED")
    assert helps(untainted, pod(), node("a", taints=[taint]), node("a"))
    assert not helps(untainted, pod(), node("a"), node("a", taints=[taint]))


def test_reasons_of_one_node_count_each() -> None:
    assert Reject("a", more=("b", "c")).reasons == ("a", "b", "c")
