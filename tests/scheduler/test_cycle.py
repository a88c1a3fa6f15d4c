"""Decisions in big clusters, beside nominated pods, and by shape."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.api.obj import Body
from sampan.scheduler.cycle import Cycle, NoFit
from sampan.scheduler.framework import OK, PodInfo, Prepared, Profile, Reject, Skip, View, Wake
from sampan.scheduler.nodes import NodeInfo
from sampan.scheduler.plan import Early, Plan
from sampan.scheduler.snapshot import Snapshot
from sampan.testing.placement import HOSTNAME, apart, cycle, node, pod, term


def test_a_nominated_pod_keeps_its_room_from_the_less_important() -> None:
    fast = cycle([node("a", cpu="2"), node("b", cpu="1")])
    fast.view.nominate(PodInfo.of(pod("top", cpu="2", priority=10)), "a")
    assert fast.decide(PodInfo.of(pod("low", cpu="1", priority=1))) == "b"
    assert fast.decide(PodInfo.of(pod("higher", cpu="2", priority=11))) == "a"
    fast.view.place(PodInfo.of(pod("x", cpu="1")), "b")
    failure = fast.decide(PodInfo.of(pod("low", cpu="1", priority=1)))
    assert isinstance(failure, NoFit)
    assert failure.message() == "0/2 nodes are available: 2 Insufficient cpu."


def test_a_nominated_pod_goes_where_room_was_made_for_it() -> None:
    fast = cycle([node("a", cpu="2"), node("b", cpu="64", memory="64Gi")])
    top = PodInfo.of(pod("top", cpu="1", priority=10))
    fast.view.nominate(top, "a")
    assert fast.decide(top) == "a"


def test_a_pod_that_is_placed_is_nominated_no_more() -> None:
    view = cycle([node("a")]).view
    p = PodInfo.of(pod("p"))
    view.place(p, "a")
    view.nominate(p, "a")
    view.place(p, "a")
    assert view.nominated == {} and view.nomination(p.uid) == ""
    assert view.priorities == {0: 1}
    view.remove_pod(p.uid)
    assert view.priorities == {}


def test_in_a_big_cluster_the_first_of_a_shape_sees_a_sample_and_the_next_all() -> None:
    nodes = [node(f"n{i:04d}", cpu="4") for i in range(1000)]
    nodes[990] = node("n0990", cpu="64", memory="256Gi")
    fast = cycle(nodes)
    first = fast.table(PodInfo.of(pod("a", cpu="1")), sample=True)
    assert not isinstance(first, Early) and first.is_sample and first.looked_at == 420
    assert fast.decide(PodInfo.of(pod("b", cpu="1"))) == "n0990"


def test_a_sample_that_finds_nothing_has_looked_everywhere() -> None:
    nodes = [node(f"n{i:04d}", cpu="1") for i in range(300)]
    fast = cycle(nodes)
    failure = fast.decide(PodInfo.of(pod("a", cpu="2")))
    assert isinstance(failure, NoFit) and len(failure.rejected) == 300
    fast.view.set_node(node("n0123", cpu="2"))
    assert fast.decide(PodInfo.of(pod("b", cpu="2", labels={"other": "shape"}))) == "n0123"


def test_a_pod_for_one_node_looks_at_that_node_only() -> None:
    nodes = [node(f"n{i}") for i in range(200)]
    fast = cycle(nodes)
    fields = [{"key": "metadata.name", "operator": "In", "values": ["n77"]}]
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{"matchFields": fields}]}}}  # fmt: skip
    p = PodInfo.of(pod("d", affinity=affinity))
    table = fast.table(p)
    assert not isinstance(table, Early) and table.looked_at == 1
    assert fast.decide(p) == "n77"


class Pinned:
    """Pods with a volume of their own go to node b."""

    name = "Pinned"
    wakes: tuple[Wake, ...] = ()

    def prepare(self, p: PodInfo, view: View) -> Prepared | Reject | Skip:
        if not p.spec.get("volumes"):
            return Skip.SKIP

        def check(n: NodeInfo) -> Reject | None:
            return OK if n.obj.name == "b" else Reject("not here")

        return Prepared(check, unique=True)


def test_pods_that_differ_by_a_volume_that_ties_them_are_of_different_shapes() -> None:
    view = Snapshot()
    for n in (node("a", cpu="64", memory="64Gi"), node("b")):
        view.set_node(n)
    fast = Cycle(view, Profile(filters=(Pinned(),)), random.Random(1))
    for name in ("p", "q"):
        fast.decide(PodInfo.of(pod(name)))
        claim: Body = {"name": "v", "persistentVolumeClaim": {"claimName": name}}
        assert fast.decide(PodInfo.of(pod(f"v{name}", volumes=[claim]))) == "b"
    token: Body = {"name": "kube-api-access-x1", "projected": {}}
    assert PodInfo.of(pod("p", volumes=[token])).shape == PodInfo.of(pod("q")).shape


def test_a_namespace_that_changes_its_labels_is_seen() -> None:
    namespaces = {"other": {"t": "1"}}
    fast = cycle([node("a"), node("b")], [pod("x", labels={"app": "w"}, namespace="other", on="a")],
                 namespaces)  # fmt: skip
    wide = term(HOSTNAME, app="w", namespaceSelector={"matchLabels": {"t": "1"}})
    p = pod("p", affinity=apart(wide))
    assert fast.decide(PodInfo.of(p)) == "b"
    namespaces["other"] = {"t": "2"}
    fast.view.set_node(node("b", unschedulable=True))
    assert isinstance(fast.decide(PodInfo.of(p)), NoFit)
    fast.view.namespaces_changed()
    assert fast.decide(PodInfo.of(p)) == "a"


def test_a_reader_too_far_behind_starts_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sampan.scheduler.snapshot._LOG", 4)
    fast = cycle([node("a", cpu="1"), node("b", cpu="8")])
    for i in range(7):
        assert fast.decide(PodInfo.of(pod(f"p{i}", cpu="1"))) == "b"
        for name in ("x", "y", "z"):
            fast.view.place(PodInfo.of(pod(f"{name}{i}")), "a")
            fast.view.remove_pod(f"default-{name}{i}")
        fast.view.place(PodInfo.of(pod(f"p{i}", cpu="1")), "b")


requests = st.lists(st.integers(100, 2500), min_size=1, max_size=25)


@settings(max_examples=60)
@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=5), wanted=requests)
def test_no_node_is_overcommitted_and_no_pod_is_refused_in_vain(
    sizes: list[int], wanted: list[int]
) -> None:
    fast = cycle([node(f"n{i}", cpu=str(s), pods="100") for i, s in enumerate(sizes)])
    free = {f"n{i}": s * 1000 for i, s in enumerate(sizes)}
    for i, cpu in enumerate(wanted):
        p = PodInfo.of(pod(f"p{i}", cpu=f"{cpu}m"))
        found = fast.decide(p)
        if isinstance(found, NoFit):
            assert cpu > max(free.values())
        else:
            free[found] -= cpu
            fast.view.place(p, found)
    assert min(free.values()) >= 0


HISTORY = """
import random
from sampan.scheduler.cycle import NoFit
from sampan.scheduler.framework import PodInfo
from sampan.testing.placement import HOSTNAME, ZONE, apart, cycle, node, pod, spread, term
rng = random.Random(5)
nodes = [node(f"n{i}", labels={HOSTNAME: f"n{i}", ZONE: f"z{i % 3}"}) for i in range(12)]
fast, out = cycle(nodes, seed=7), []
for i in range(80):
    app = rng.choice("xyz")
    more = rng.choice([{}, {"affinity": apart(term(HOSTNAME, app=app))},
                       {"topologySpreadConstraints": [spread(app=app)]}])
    p = PodInfo.of(pod(f"p{i}", cpu="100m", labels={"app": app, "i": str(i % 5)}, **more))
    found = fast.decide(p)
    out.append(found.message() if isinstance(found, NoFit) else found)
    if not isinstance(found, NoFit):
        fast.view.place(p, found)
print("\\n".join(out))
"""


def test_one_seed_one_history_under_two_hash_seeds() -> None:
    def run(seed: str) -> str:
        env: dict[str, Any] = {**os.environ, "PYTHONHASHSEED": seed}
        return subprocess.run(
            [sys.executable, "-c", HISTORY], env=env, check=True, capture_output=True, text=True
        ).stdout

    first = run("1")
    assert first == run("2") and len(set(first.split())) > 8


def test_what_a_pod_takes_does_not_depend_on_where_it_goes() -> None:
    waiting, bound = PodInfo.of(pod("p", cpu="1")), PodInfo.of(pod("p", cpu="1", on="a"))
    assert waiting.size is bound.size and waiting.cls is bound.cls and waiting.takes_as(bound)
    assert waiting.shape != bound.shape
    assert not waiting.takes_as(PodInfo.of(pod("p", cpu="2", on="a")))
    assert not waiting.takes_as(PodInfo.of(pod("p", cpu="1", on="a", labels={"x": "y"})))
    assert not waiting.takes_as(PodInfo.of(pod("p", cpu="1", on="a", deleting=True)))


def test_a_pod_that_is_seen_where_it_was_assumed_changes_nothing() -> None:
    view = cycle([node("a")]).view
    view.place(PodInfo.of(pod("p", cpu="1")), "a")
    before = view.position
    view.set_pod(pod("p", cpu="1", on="a", status={"phase": "Running"}))
    assert view.position == before
    assert view.nodes["a"].pods["default-p"].obj.status["phase"] == "Running"
    view.set_pod(pod("p", cpu="500m", on="a"))
    assert view.position > before and view.nodes["a"].requested["cpu"] == 500


def test_who_has_one_node_to_go_to_is_not_scored() -> None:
    fast = cycle([node(f"n{i}") for i in range(3)])

    def plan(*names: str) -> Plan:
        fields = [{"key": "metadata.name", "operator": "In", "values": list(names)}]
        terms = {"nodeSelectorTerms": [{"matchFields": fields}]}
        affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
        table = fast.table(PodInfo.of(pod("p", cpu="1", affinity=affinity)))
        assert not isinstance(table, Early)
        return table.plan

    assert not plan("n1").plain_dynamic and plan("n1", "n2").plain_dynamic
