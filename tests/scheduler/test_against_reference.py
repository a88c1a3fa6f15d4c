"""The fast scheduler against the plain one: same verdicts, same best nodes, over random histories
in which its tables must keep up with every change."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.api.obj import Body, Obj
from sampan.scheduler.cycle import Cycle, NoFit
from sampan.scheduler.framework import PodInfo
from sampan.scheduler.plan import Early
from sampan.testing.placement import HOSTNAME, PREFERRED, REQUIRED, ZONE, cycle, node, pod
from sampan.testing.scheduling import PlainCluster, points, reasons

NAMESPACES = {"default": {"team": "red"}, "other": {"team": "blue"}}
APPS = ("x", "y")


def one_of(*values: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(values)


selectors = one_of(
    {"matchLabels": {"app": "x"}}, {"matchLabels": {"app": "y"}}, {},
    {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["x"]}]},
    {"matchExpressions": [{"key": "app", "operator": "Exists"}]},
)  # fmt: skip
keys = one_of(HOSTNAME, ZONE, "rack")


@st.composite
def affinity_terms(draw: st.DrawFn) -> Body:
    found: Body = {"topologyKey": draw(keys), "labelSelector": draw(selectors)}
    scope = draw(one_of("own", "named", "selected", "all"))
    if scope == "named":
        found["namespaces"] = ["other"]
    elif scope == "selected":
        found["namespaceSelector"] = {"matchLabels": {"team": draw(one_of("red", "blue"))}}
    elif scope == "all":
        found["namespaceSelector"] = {}
    return found


@st.composite
def node_terms(draw: st.DrawFn) -> Body:
    return draw(
        one_of(
            {"matchExpressions": [{"key": ZONE, "operator": "In", "values": ["a"]}]},
            {"matchExpressions": [{"key": ZONE, "operator": "DoesNotExist"}]},
            {"matchExpressions": [{"key": "size", "operator": "Gt", "values": ["3"]}]},
            {"matchExpressions": [{"key": "size", "operator": "Lt", "values": ["3"]}]},
            {"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["n1"]}]},
        )
    )


def strength(draw: st.DrawFn, *, rare: bool) -> str:
    return str(draw(one_of(*(["none"] * (4 if rare else 1)), REQUIRED, PREFERRED)))


@st.composite
def affinities(draw: st.DrawFn, *, of_nodes: bool) -> Body:
    found: Body = {}
    for kind in ("podAffinity", "podAntiAffinity"):
        choice = strength(draw, rare=of_nodes)
        if choice == "none":
            continue
        terms = draw(st.lists(affinity_terms(), min_size=1, max_size=2))
        if choice == REQUIRED:
            found[kind] = {REQUIRED: terms}
        else:
            weights = [draw(st.integers(1, 100)) for _ in terms]
            found[kind] = {PREFERRED: [
                {"weight": w, "podAffinityTerm": t} for w, t in zip(weights, terms, strict=True)
            ]}  # fmt: skip
    choice = strength(draw, rare=not of_nodes)
    if choice == REQUIRED:
        terms = draw(st.lists(node_terms(), min_size=1, max_size=2))
        found["nodeAffinity"] = {REQUIRED: {"nodeSelectorTerms": terms}}
    elif choice == PREFERRED:
        found["nodeAffinity"] = {PREFERRED: [
            {"weight": draw(st.integers(1, 100)), "preference": t}
            for t in draw(st.lists(node_terms(), min_size=1, max_size=2))
        ]}  # fmt: skip
    return found


@st.composite
def spreads(draw: st.DrawFn) -> Body:
    found: Body = {
        "topologyKey": draw(keys), "maxSkew": draw(st.integers(1, 2)),
        "whenUnsatisfiable": draw(one_of("DoNotSchedule", "ScheduleAnyway")),
        "labelSelector": draw(selectors),
    }  # fmt: skip
    if found["whenUnsatisfiable"] == "DoNotSchedule" and draw(st.booleans()):
        found["minDomains"] = draw(st.integers(1, 3))
    if draw(st.booleans()):
        found["nodeAffinityPolicy"] = draw(one_of("Honor", "Ignore"))
        found["nodeTaintsPolicy"] = draw(one_of("Honor", "Ignore"))
    if draw(one_of(False, False, True)):
        found["matchLabelKeys"] = ["hash"]
    return found


FOCI = ("pods", "spread", "nodes", "resources", "images")
IMAGES = ("db:1", "web", "reg.example:5000/big", "small:2")
SIZES = {"db:1": 400, "web:latest": 900, "reg.example:5000/big:latest": 2500, "small:2": 20}


@st.composite
def init_containers(draw: st.DrawFn) -> Body:
    """Those that end, and sidecars; with ports, of which only a sidecar's are taken."""
    found: Body = {"name": "i", "image": "i"}
    if draw(st.booleans()):
        found["resources"] = {"requests": {"cpu": draw(one_of("300m", "1500m"))}}
    if draw(st.booleans()):
        found["restartPolicy"] = "Always"
    if draw(one_of(False, False, True)):
        found["ports"] = [draw(host_ports())]
    return found


@st.composite
def host_ports(draw: st.DrawFn) -> Body:
    found: Body = {"containerPort": 80, "protocol": draw(one_of("TCP", "TCP", "UDP"))}
    if draw(st.booleans()):
        found["hostPort"] = draw(one_of(80, 81))
        if draw(st.booleans()):
            found["hostIP"] = draw(one_of("0.0.0.0", "10.0.0.1", "10.0.0.2"))
    return found


@st.composite
def shapes(draw: st.DrawFn, focus: str) -> Body:
    """Arguments of ``pod``. focus: what pods of the history are mostly about."""
    found: Body = {
        "labels": {"app": draw(one_of(*APPS)), "hash": draw(one_of("1", "2"))},
        "namespace": draw(one_of("default", "default", "other")),
    }  # fmt: skip
    if focus == "pods" or draw(one_of(False, False, False, True)):
        found["affinity"] = draw(affinities(of_nodes=focus == "nodes"))
    if focus == "spread":
        found["topologySpreadConstraints"] = draw(st.lists(spreads(), min_size=1, max_size=2))
    if focus == "nodes":
        found["affinity"] = draw(affinities(of_nodes=True))
        found["tolerations"] = draw(st.lists(one_of(
            {"operator": "Exists"}, {"key": "k", "operator": "Equal", "value": "v"},
            {"key": "k", "operator": "Exists", "effect": "NoSchedule"},
        ), max_size=1))  # fmt: skip
        if draw(one_of(False, False, False, True)):
            found["nodeSelector"] = {"size": "2"}
    if focus == "resources":
        found["cpu"] = draw(one_of("", "100m", "700m", "1"))
        found["memory"] = draw(one_of("", "1Gi"))
        if draw(one_of(False, False, True)):
            found["hostPort"] = draw(one_of(80, 81))
        if draw(one_of(False, False, True)):
            found["requests"] = {"example.com/gpu": "1"}
        if draw(one_of(False, False, True)):
            found["overhead"] = {"cpu": "250m"}
        if draw(one_of(False, False, True)):
            found["initContainers"] = draw(st.lists(init_containers(), min_size=1, max_size=3))
        if draw(one_of(False, False, False, True)):
            found["resources"] = {"requests": {"cpu": draw(one_of("1", "2500m"))}}
    if focus == "images":
        found["containers"] = [
            {"name": f"c{i}", "image": draw(one_of(*IMAGES)),
             "ports": draw(st.lists(host_ports(), max_size=1))}
            for i in range(draw(st.integers(1, 2)))
        ]  # fmt: skip
    return found


@st.composite
def node_bodies(draw: st.DrawFn, name: str, focus: str) -> Obj:
    labels = {HOSTNAME: draw(one_of(name, name, name, "shared"))}
    if draw(one_of(True, True, True, False)):
        labels[ZONE] = draw(one_of("a", "b", "c"))
    if draw(st.booleans()):
        labels["rack"] = draw(one_of("r", "s"))
    labels["size"] = draw(one_of("2", "4"))
    spec: Body = {}
    if focus in ("nodes", "spread") and draw(one_of(False, False, True)):
        effect = draw(one_of("NoSchedule", "PreferNoSchedule", "NoExecute"))
        spec["taints"] = [{"key": "k", "value": draw(one_of("v", "w")), "effect": effect}]
    if focus == "nodes" and draw(one_of(False, False, False, True)):
        spec["unschedulable"] = True
    is_tight = focus == "resources"
    more = {"example.com/gpu": "1"} if is_tight and draw(st.booleans()) else {}
    images = None
    if focus == "images":
        held = draw(st.sets(st.sampled_from(sorted(SIZES))))
        images = [{"names": [n], "sizeBytes": SIZES[n] << 20} for n in sorted(held)]
    return node(
        name, cpu=draw(one_of("1", "2", "4")) if is_tight else "8", images=images,
        pods=draw(one_of("2", "5")) if is_tight else "50", labels=labels,
        more=more, **spec,
    )  # fmt: skip


def above_least(scores: dict[str, int]) -> dict[str, int]:
    """Scores as they compare: what all nodes have alike does not matter."""
    least = min(scores.values())
    return {name: points - least for name, points in scores.items()}


def compare(fast: Cycle, p: Obj, plain: PlainCluster) -> str:
    """Both decide on *p*; the node it gets."""
    info = PodInfo.of(p)
    found = fast.decide(info)
    said = {n.name: reasons(p, n, plain) for n in plain.nodes}
    fitting = [n for n in plain.nodes if not said[n.name]]
    if isinstance(found, NoFit):
        assert not fitting
        if not found.early:
            told = {name: reject.reasons for name, reject in found.rejected.items()}
            assert {k: sorted(v) for k, v in told.items()} == {
                k: sorted(v) for k, v in said.items()
            }
        return ""
    scores = points(p, fitting, plain)
    assert found in scores, (found, said[found])
    if len(fitting) > 1:
        assert scores[found] == max(scores.values()), (found, scores)
    table = fast.table(info)
    assert not isinstance(table, Early)
    if len(fitting) > 1 and not table.plan.names:
        assert above_least(table.scores()) == above_least(scores)
    refused = {name: reject.reasons for name, (_, reject) in table.rejections().items()}
    assert {k: sorted(v) for k, v in refused.items()} == {
        k: sorted(v) for k, v in said.items() if v
    }
    return found


@pytest.mark.parametrize("focus", FOCI)
@settings(max_examples=60)
@given(data=st.data())
def test_every_decision_is_the_plain_one(focus: str, data: st.DataObject) -> None:
    draw = data.draw
    names = [f"n{i}" for i in range(draw(st.integers(2, 6)))]
    nodes = {name: draw(node_bodies(name, focus)) for name in names}
    fast = cycle([*nodes.values()], namespaces=NAMESPACES)
    pool = draw(st.lists(shapes(focus), min_size=2, max_size=4))
    placed: dict[str, Obj] = {}
    # Even a small example has a history: what Hypothesis draws first is what it varies least.
    for step in range(draw(st.integers(4, 16))):
        what = "pod" if step < 4 else draw(
            one_of("pod", "pod", "pod", "pod", "end", "node", "lose", "delete")
        )  # fmt: skip
        if what == "pod":
            p = pod(f"p{step}", **draw(st.sampled_from(pool)))
            plain = PlainCluster([*nodes.values()], [*placed.values()], NAMESPACES)
            where = compare(fast, p, plain)
            if where:
                bound = Obj.of(p.key, {**p.body, "spec": {**p.spec, "nodeName": where}}, 2)
                placed[p.name] = bound
                fast.view.place(PodInfo.of(bound), where)
        elif what == "node":
            name = draw(st.sampled_from(names))
            nodes[name] = draw(node_bodies(name, focus))
            fast.view.set_node(nodes[name])
        elif what == "lose" and len(nodes) > 1:
            name = draw(st.sampled_from(sorted(nodes)))
            del nodes[name]
            fast.view.remove_node(name)
            for gone in [k for k, p in placed.items() if p.spec["nodeName"] == name]:
                fast.view.remove_pod(placed.pop(gone).uid)
        elif what == "end" and placed:
            gone = draw(st.sampled_from(sorted(placed)))
            fast.view.remove_pod(placed.pop(gone).uid)
        elif what == "delete" and placed:
            name = draw(st.sampled_from(sorted(placed)))
            p = placed[name]
            meta = {**p.meta, "deletionTimestamp": "2026-01-01T00:00:00Z"}
            placed[name] = Obj.of(p.key, {**p.body, "metadata": meta}, 3)
            fast.view.set_pod(placed[name])
