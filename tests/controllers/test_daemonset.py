"""DaemonSet plans: golden pairs of state and actions, and safety under random histories."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.api.obj import Body, Key, Obj
from sampan.control.plan import Create, Delete
from sampan.controllers import history
from sampan.controllers.daemonpods import belongs, pinned, pod_spec, target_of
from sampan.controllers.daemonset import DaemonSetController
from sampan.lib.clock import parse_rfc3339, rfc3339
from sampan.testing.plans import PlanWorld

KEY = Key("daemonsets.apps", "default", "d")
NOTE = "deprecated.daemonset.template.generation"


def template(image: str = "v1", **spec: Any) -> Body:
    return {
        "metadata": {"labels": {"app": "d"}},
        "spec": {"containers": [{"name": "c", "image": image}], **spec},
    }


def rolling(unavailable: Any = 1, surge: Any = 0) -> Body:
    return {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": unavailable, "maxSurge": surge},
    }


class World(PlanWorld):
    def __init__(self, nodes: int = 3, **spec: Any) -> None:
        self.c = DaemonSetController()
        super().__init__(self.c)
        self.node_names = [f"n{i}" for i in range(nodes)]
        for name in self.node_names:
            self.add_node(name)
        self.add(KEY.resource, {
            "metadata": {"name": "d", "namespace": "default", "annotations": {NOTE: "1"}},
            "spec": {
                "selector": {"matchLabels": {"app": "d"}}, "template": template(),
                "updateStrategy": rolling(), "revisionHistoryLimit": 2, **spec,
            },
        })  # fmt: skip

    def add_node(self, name: str, **labels: str) -> None:
        body: Body = {"metadata": {"name": name, "namespace": "", "labels": labels}, "spec": {}}
        self.add("nodes", body)

    def node(self, name: str) -> Body:
        return self.objects[Key("nodes", "", name)]

    def taint(self, name: str, effect: str, key: str = "k") -> None:
        self.node(name)["spec"]["taints"] = [{"key": key, "effect": effect}]

    def change(self, **spec: Any) -> None:
        body = self.objects[KEY]
        body["spec"].update(spec)
        body["metadata"]["generation"] += 1
        if "template" in spec:  # as the API server does
            notes = body["metadata"]["annotations"]
            body["metadata"]["annotations"] = {**notes, NOTE: str(int(notes[NOTE]) + 1)}

    def image(self, image: str) -> None:
        self.change(template=template(image))

    def pods(self) -> list[Obj]:
        return sorted(self["pods"].list(), key=lambda p: p.name)

    def on(self, node: str) -> list[Obj]:
        return [p for p in self.pods() if target_of(p.body) == node]

    def images(self) -> dict[str, list[str]]:
        return {n: [p.spec["containers"][0]["image"] for p in self.on(n)] for n in self.node_names}

    def all_have(self, image: str) -> dict[str, list[str]]:
        return {n: [image] for n in self.node_names}

    def ready(self, node: str = "") -> None:
        """Pods of the node, or of all, are bound, run and are ready."""
        for pod in self.pods():
            where = target_of(pod.body)
            if node in ("", where) and not pod.status.get("conditions") and not finished(pod):
                self.objects[pod.key] = {
                    **pod.body, "spec": {**pod.spec, "nodeName": where},
                    "status": {"phase": "Running", "conditions": [
                        {"type": "Ready", "status": "True", "lastTransitionTime": rfc3339(self.now)}
                    ]},
                }  # fmt: skip

    def phase(self, node: str, phase: str) -> None:
        for pod in self.on(node):
            spec = {**pod.spec, "nodeName": node}
            self.objects[pod.key] = {**pod.body, "spec": spec, "status": {"phase": phase}}

    def gone(self, node: str = "") -> None:
        for pod in self.pods():
            if pod.is_deleting and node in ("", target_of(pod.body)):
                del self.objects[pod.key]

    def turn(self) -> list[Any]:
        return list(self.step(self.c, KEY))

    def settle(self) -> None:
        for _ in range(100):
            self.gone()
            self.ready()
            if not self.turn():
                return
        raise AssertionError("does not settle")

    @property
    def status(self) -> Body:
        found: Body = self.objects[KEY]["status"]
        return found


def finished(pod: Obj) -> bool:
    return pod.status.get("phase") in ("Failed", "Succeeded")


def test_every_node_gets_one_pod() -> None:
    w = World(2)
    w.turn()
    pod = w.on("n0")[0]
    (revision,) = w[history.RESOURCE].list()
    digest = revision.labels["controller-revision-hash"]
    assert revision.name == f"d-{digest}"
    assert pod.labels == {
        "app": "d", "controller-revision-hash": digest, "pod-template-generation": "1",
    }  # fmt: skip
    assert pod.meta["generateName"] == "d-"
    assert pod.spec["affinity"] == {"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n0"]}]}
        ]}
    }}  # fmt: skip
    assert "nodeName" not in pod.spec
    assert w.events == [("SuccessfulCreate", f"Created pod: {p.name}") for p in w.pods()]
    assert [len(w.on(n)) for n in w.node_names] == [1, 1]


def test_nodes_that_join_and_leave() -> None:
    w = World(1)
    w.settle()
    w.add_node("n9")
    w.turn()
    assert len(w.on("n9")) == 1
    del w.objects[Key("nodes", "", "n9")]
    w.turn()  # it never was on its node: nobody else removes it
    assert w.on("n9") == []


def test_only_news_about_placing_wake_the_sets() -> None:
    w = World(1)
    node = w["nodes"].get("", "n0")
    assert node is not None
    assert list(w.c._keys_of_node(node, w)) == [KEY]
    w.node("n0")["status"] = {"conditions": []}
    assert list(w.c._keys_of_node(node, w)) == []
    w.taint("n0", "NoSchedule")
    assert list(w.c._keys_of_node(node, w)) == [KEY]
    del w.objects[Key("nodes", "", "n0")]
    assert list(w.c._keys_of_node(node, w)) == [KEY]
    assert list(w.c._keys_of_node(node, w)) == []


def test_tolerations_every_daemon_has() -> None:
    own = {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"}
    spec = pod_spec({"spec": {"template": {"spec": {"tolerations": [own, {"key": "x"}]}}}})
    found = [(t["key"], t.get("effect")) for t in spec["tolerations"]]
    assert found == [
        ("node.kubernetes.io/not-ready", "NoExecute"), ("x", None),
        ("node.kubernetes.io/unreachable", "NoExecute"),
        ("node.kubernetes.io/disk-pressure", "NoSchedule"),
        ("node.kubernetes.io/memory-pressure", "NoSchedule"),
        ("node.kubernetes.io/pid-pressure", "NoSchedule"),
        ("node.kubernetes.io/unschedulable", "NoSchedule"),
    ]  # fmt: skip
    spec = pod_spec({"spec": {"template": {"spec": {"hostNetwork": True}}}})
    assert spec["tolerations"][-1]["key"] == "node.kubernetes.io/network-unavailable"


def test_pinning_keeps_the_rest_of_the_affinity() -> None:
    preferred = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "a", "operator": "Exists"}]}
    ]}}  # fmt: skip
    spec = {"affinity": {"podAffinity": {"x": 1}, "nodeAffinity": {**preferred, **required}}}
    out = pinned(spec, "n1")
    assert target_of({"spec": out}) == "n1"
    assert out["affinity"]["podAffinity"] == {"x": 1}
    assert out["affinity"]["nodeAffinity"].keys() == {*preferred, *required}
    assert spec["affinity"]["nodeAffinity"] == {**preferred, **required}  # untouched


def node(taints: list[Body] | None = None, **labels: str) -> Obj:
    body = {"metadata": {"name": "n", "labels": labels}, "spec": {"taints": taints or []}}
    return Obj.of(Key("nodes", "", "n"), body, 1)


@pytest.mark.parametrize(
    ("spec", "where", "expected"),
    [
        ({}, node(), (True, True)),
        ({"nodeName": "other"}, node(), (False, False)),
        ({"nodeName": "n"}, node(), (True, True)),
        ({"nodeSelector": {"a": "1"}}, node(), (False, False)),
        ({"nodeSelector": {"a": "1"}}, node(a="1"), (True, True)),
        ({}, node([{"key": "k", "effect": "NoSchedule"}]), (False, True)),
        ({}, node([{"key": "k", "effect": "NoExecute"}]), (False, False)),
        ({}, node([{"key": "k", "effect": "PreferNoSchedule"}]), (True, True)),
        ({"tolerations": [{"operator": "Exists"}]},
         node([{"key": "k", "effect": "NoExecute"}]), (True, True)),
        ({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]}}}},
         node(), (False, False)),
    ],
)  # fmt: skip
def test_belonging(spec: Body, where: Obj, expected: tuple[bool, bool]) -> None:
    assert belongs(spec, where) == expected


def test_pods_leave_nodes_they_do_not_belong_on() -> None:
    w = World(2)
    w.settle()
    (victim,) = w.on("n1")
    w.taint("n1", "NoExecute")
    w.turn()
    assert w.on("n1") == []
    assert ("SuccessfulDelete", f"Deleted pod: {victim.name}") in w.events


def test_a_tolerated_taint_lets_pods_stay() -> None:
    w = World(2)
    w.settle()
    w.taint("n1", "NoSchedule")
    w.settle()
    assert len(w.on("n1")) == 1
    assert (w.status["desiredNumberScheduled"], w.status["numberMisscheduled"]) == (1, 1)


def test_status_counts_nodes() -> None:
    w = World(3)
    w.turn()
    w.turn()
    w.ready("n0")
    w.turn()
    assert w.status == {
        "currentNumberScheduled": 3, "numberMisscheduled": 0, "desiredNumberScheduled": 3,
        "numberReady": 1, "observedGeneration": 1, "updatedNumberScheduled": 3,
        "numberAvailable": 1, "numberUnavailable": 2,
    }  # fmt: skip
    assert w.turn() == []


def test_min_ready_seconds() -> None:
    w = World(1, minReadySeconds=10)
    w.turn()
    w.ready()
    w.again = None
    w.turn()
    assert w.again == 10 and w.status.get("numberAvailable", 0) == 0
    w.now += 10
    w.turn()
    assert w.status["numberAvailable"] == 1


def test_surplus_pods_of_a_node_go_but_the_oldest() -> None:
    w = World(1)
    w.settle()
    (first,) = w.pods()
    w.now += 5
    w.add("pods", {"metadata": {"name": "a", "labels": {"app": "d"}}, "spec": {"nodeName": "n0"}})
    w.turn()
    assert [p.name for p in w.pods()] == [first.name]


def test_pods_are_adopted_and_released() -> None:
    w = World(1)
    w.add("pods", {"metadata": {"name": "a", "labels": {"app": "d"}}, "spec": {"nodeName": "n0"}})
    w.change(updateStrategy={"type": "OnDelete"})
    w.settle()
    (pod,) = w.pods()
    assert pod.controller is not None and pod.controller["uid"] == w.objects[KEY]["metadata"]["uid"]
    w.objects[pod.key]["metadata"]["labels"] = {"app": "x"}
    w.turn()
    assert [p.owners for p in w.pods() if p.name == "a"] == [[]]
    w.turn()
    assert len(w.pods()) == 2


def test_succeeded_pods_are_replaced() -> None:
    w = World(1)
    w.settle()
    (pod,) = w.pods()
    w.phase("n0", "Succeeded")
    w.turn()
    assert (
        "SucceededDaemonPod",
        f"Found succeeded daemon pod default/{pod.name} on node n0, will try to delete it",
    ) in w.events
    w.settle()
    assert w.status["numberReady"] == 1


def test_failed_pods_are_replaced_ever_more_slowly() -> None:
    w = World(1)
    waits = []
    for _ in range(12):
        w.turn()  # makes one
        w.phase("n0", "Failed")
        w.again = None
        w.turn()
        if w.pods():
            assert w.again is not None
            waits.append(w.again)
            w.now += w.again
            w.turn()
        assert w.pods() == []
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900]
    told = [m for r, m in w.events if r == "FailedDaemonPod"]
    assert len(told) == 12
    assert told[0].endswith(" on node n0, will try to kill it")
    w.now += 1801
    w.turn()
    w.phase("n0", "Failed")
    w.turn()
    assert w.pods() == []  # after half an hour of peace it begins anew


def test_a_refused_pod_is_told() -> None:
    w = World(1)
    w.refuse = lambda key: "no" if key.resource == "pods" else ""
    w.turn()
    assert w.events == [("FailedCreate", "Error creating: no")]
    assert w.status["desiredNumberScheduled"] == 1


def test_a_refused_deletion_is_told() -> None:
    w = World(1)
    w.settle()
    w.taint("n0", "NoExecute")
    w.refuse_delete = lambda _key: "no"
    w.turn()
    assert w.events[-1] == ("FailedDelete", "Error deleting: no")


def test_conditions_of_others_are_kept() -> None:
    w = World(1)
    w.objects[KEY]["status"] = {"conditions": [{"type": "Mine", "status": "True"}]}
    w.settle()
    assert w.status["conditions"] == [{"type": "Mine", "status": "True"}]


def test_a_set_being_deleted_does_nothing() -> None:
    w = World(1)
    w.objects[KEY]["metadata"]["deletionTimestamp"] = rfc3339(w.now)
    assert w.turn() == []


# -- updates -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("unavailable", "at_once"), [(1, 1), (2, 2), ("50%", 2), ("1%", 1)])
def test_rolling_update(unavailable: Any, at_once: int) -> None:
    w = World(4, updateStrategy=rolling(unavailable))
    w.settle()
    w.image("v2")
    deleted = [a for a in w.turn() if isinstance(a, Delete)]
    assert len(deleted) == at_once
    w.turn()
    assert sum(i == ["v2"] for i in w.images().values()) == at_once
    assert not [a for a in w.turn() if isinstance(a, Delete)]  # until these are available
    w.settle()
    assert w.images() == w.all_have("v2")
    assert w.status["updatedNumberScheduled"] == 4


def test_old_pods_that_are_down_are_replaced_at_once() -> None:
    w = World(4)
    w.settle()
    w.phase("n1", "Pending")
    w.phase("n3", "Pending")
    w.image("v2")
    deleted = [a.key.name for a in w.turn() if isinstance(a, Delete)]
    assert len(deleted) == 2 and w.on("n1") == w.on("n3") == []


def test_surge_makes_the_new_one_first() -> None:
    w = World(3, updateStrategy=rolling(0, 1))
    w.settle()
    w.image("v2")
    w.turn()
    assert sorted(map(len, w.images().values())) == [1, 1, 2]
    assert not [a for a in w.turn() if isinstance(a, Create | Delete)]
    w.ready()
    (delete,) = [a for a in w.turn() if isinstance(a, Delete)]
    assert delete.key.name.startswith("d-")
    w.settle()
    assert w.images() == w.all_have("v2")


def test_surge_moves_to_other_nodes_without_a_gap() -> None:
    w = World(2, updateStrategy=rolling(0, 1))
    w.settle()
    w.node("n0")["metadata"]["labels"] = {"here": "no"}
    w.change(template=template("v2", nodeSelector={"here": "yes"}))
    w.node("n1")["metadata"]["labels"] = {"here": "yes"}
    w.settle()
    assert w.images()["n1"] == ["v2"] and w.images()["n0"] == []


def test_on_delete() -> None:
    w = World(2, updateStrategy={"type": "OnDelete"})
    w.settle()
    w.image("v2")
    w.settle()
    assert w.images() == w.all_have("v1")
    del w.objects[w.on("n0")[0].key]
    w.settle()
    assert w.images() == {"n0": ["v2"], "n1": ["v1"]}


def test_rollback_reuses_the_revision_and_history_is_limited() -> None:
    w = World(1)
    w.settle()
    first = w[history.RESOURCE].list()[0].name
    for image in ("v2", "v3", "v1"):
        w.image(image)
        w.settle()
    kept = {r.name: r.body["revision"] for r in w[history.RESOURCE].list()}
    assert kept[first] == 4 and sorted(kept.values()) == [2, 3, 4]
    for image in ("v5", "v6"):
        w.image(image)
        w.settle()
    numbers = sorted(r.body["revision"] for r in w[history.RESOURCE].list())
    assert numbers == [4, 5, 6]


def test_equal_revisions_become_one() -> None:
    w = World(1)
    w.settle()
    (r,) = w[history.RESOURCE].list()
    labels = {**r.labels, "controller-revision-hash": "x"}
    double = {**r.body, "metadata": {**r.meta, "name": "d-x", "labels": labels}}
    w.add(history.RESOURCE, {**double, "revision": 9})
    w.turn()
    assert [(x.name, x.body["revision"]) for x in w[history.RESOURCE].list()] == [("d-x", 9)]
    assert w.pods()[0].labels["controller-revision-hash"] == "x"
    assert len(w.pods()) == 1


def test_a_taken_name_of_a_revision_raises_the_collision_count() -> None:
    w = World(1)
    name, *_ = history.free_name(w.objects[KEY], history.snapshot(w.objects[KEY]), lambda _: None)
    w.add(history.RESOURCE, {"metadata": {"name": name}, "data": {"other": 1}, "revision": 1})
    w.settle()
    assert w.status["collisionCount"] == 1


# -- properties --------------------------------------------------------------------------------

STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["plan", "plan", "plan", "ready", "gone", "fail", "lose",
                                   "taint", "free", "extra"]), st.integers(0, 4)),
        st.tuples(st.sampled_from(["all ready", "all gone"]), st.just(0)),
        st.tuples(st.just("image"), st.integers(1, 3)),
        st.tuples(st.just("later"), st.integers(1, 10)),
    ),
    max_size=60,
)  # fmt: skip


def is_up(w: World, pod: Obj) -> bool:
    since = [parse_rfc3339(c["lastTransitionTime"]) for c in pod.status.get("conditions") or ()]
    minimum = w.objects[KEY]["spec"].get("minReadySeconds", 0)
    return bool(since) and since[0] + minimum <= w.now and not pod.is_deleting


def happen(w: World, what: str, n: int) -> None:
    name = f"n{n}"
    if what == "ready":
        w.ready(name)
    elif what == "gone":
        w.gone(name)
    elif what == "fail":
        w.phase(name, "Failed")
    elif what == "lose":
        for pod in w.on(name):
            del w.objects[pod.key]
    elif what == "all ready":
        w.ready()
    elif what == "all gone":
        w.gone()
    elif what == "extra" and name in w.node_names:
        w.add("pods", {"metadata": {"labels": {"app": "d"}}, "spec": {"nodeName": name}})
    elif what == "taint" and name in w.node_names:
        w.taint(name, "NoExecute")
    elif what == "free" and name in w.node_names:
        w.node(name)["spec"].pop("taints", None)
    elif what == "image":
        w.image(f"v{n}")
    elif what == "later":
        w.now += n


def check_step(w: World, actions: list[Any], before: list[Obj], surge: int, down: int) -> None:
    """What a plan may do, given the pods before it."""
    made = [target_of(a.body) for a in actions if isinstance(a, Create) and a.resource == "pods"]
    deleted = {a.key.name for a in actions if isinstance(a, Delete) and a.key.resource == "pods"}
    eligible = {n for n in w.node_names if not w.node(n)["spec"].get("taints")}
    on = {n: [p for p in before if target_of(p.body) == n] for n in w.node_names}
    assert set(made) <= eligible and len(set(made)) == len(made)
    for n in made:
        staying = [p for p in on[n] if not p.is_deleting and not finished(p)]
        assert len(staying) <= (1 if surge else 0), "more than one daemon on a node"
        if staying:
            assert is_up(w, staying[0]) is True or surge
    surging = sum(len([p for p in on[n] if not p.is_deleting]) > 1 for n in eligible)
    fresh = [n for n in made if any(is_up(w, p) for p in on[n])]
    if fresh:
        assert surging + len(fresh) <= surge, "maxSurge is broken"
    # A node loses its service by the controller's hand where it could have kept it.
    disrupted = [
        n
        for n in eligible
        if any(is_up(w, p) for p in on[n])
        and not any(is_up(w, p) for p in on[n] if p.name not in deleted)
    ]
    if disrupted:
        dark = sum(not any(is_up(w, p) for p in on[n]) for n in eligible)
        assert dark + len(disrupted) <= down, "maxUnavailable is broken"


@settings(max_examples=300, deadline=None)
@given(
    nodes=st.integers(1, 5), most=st.integers(1, 3), surge=st.booleans(),
    minimum=st.sampled_from([0, 5]), settled=st.booleans(), steps=STEPS,
)  # fmt: skip
def test_random_histories(
    nodes: int,
    most: int,
    surge: bool,
    minimum: int,
    settled: bool,
    steps: list[tuple[str, int]],
) -> None:
    """One daemon per node (two while surging), never more nodes without one by the controller's own
    hand than maxUnavailable allows; in the end it converges and writes nothing more."""
    strategy = rolling(0, most) if surge else rolling(most, 0)
    w = World(nodes, updateStrategy=strategy, minReadySeconds=minimum)
    w.graceful = True
    for _ in range(4 if settled else 0):
        w.ready()
        w.now += 10
        w.turn()
    w.image("v9")
    for what, n in steps:
        if what != "plan":
            happen(w, what, n)
            continue
        before = w.pods()
        check_step(w, w.turn(), before, most if surge else 0, 0 if surge else most)
    for _ in range(60):
        w.gone()
        w.ready()
        w.now += 10
        w.turn()
    image = w.objects[KEY]["spec"]["template"]["spec"]["containers"][0]["image"]
    for n in w.node_names:
        assert w.images()[n] == ([] if w.node(n)["spec"].get("taints") else [image])
    desired = sum(not w.node(n)["spec"].get("taints") for n in w.node_names)
    assert w.status["desiredNumberScheduled"] == desired == w.status.get("numberAvailable", 0)
    assert w.turn() == []
