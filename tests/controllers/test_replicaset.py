"""ReplicaSet plans: golden pairs of state and actions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.api.obj import Body, Key, Obj
from sampan.control.plan import Create, Delete, SetStatus
from sampan.controllers.pods import is_active
from sampan.controllers.replicaset import BURST, ReplicaSetController
from sampan.controllers.replicationcontroller import ReplicationControllerController
from sampan.controllers.victims import rank_victims
from sampan.lib.clock import rfc3339
from sampan.testing.plans import PlanWorld

KEY = Key("replicasets.apps", "default", "web")
TEMPLATE: Body = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c"}]}}


def world(replicas: int = 3) -> tuple[PlanWorld, ReplicaSetController]:
    controller = ReplicaSetController()
    w = PlanWorld(controller)
    w.add(
        KEY.resource,
        {
            "metadata": {"name": "web"},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": "web"}},
                "template": TEMPLATE,
            },
        },
    )
    return w, controller


def pods(w: PlanWorld) -> list[Obj]:
    return list(w["pods"].list())


def set_ready(w: PlanWorld, pod: Obj, *, at: float | None = None) -> None:
    since = rfc3339(w.now if at is None else at)
    w.objects[pod.key]["status"] = {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": since}],
    }


def status(w: PlanWorld) -> Body:
    found: Body = w.objects[KEY]["status"]
    return found


def test_missing_pods_are_created_with_owner_and_events() -> None:
    w, c = world()
    w.step(c, KEY)
    assert len(pods(w)) == 3
    (ref,) = pods(w)[0].owners
    assert ref == {
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "uid-1",
        "controller": True, "blockOwnerDeletion": True,
    }  # fmt: skip
    assert pods(w)[0].labels == {"app": "web"}
    assert w.events == [("SuccessfulCreate", f"Created pod: {p.name}") for p in pods(w)]


def test_status_counts_and_then_rests() -> None:
    w, c = world(2)
    w.step(c, KEY)
    w.step(c, KEY)
    set_ready(w, pods(w)[0])
    w.step(c, KEY)
    assert status(w) == {
        "replicas": 2, "fullyLabeledReplicas": 2, "readyReplicas": 1, "availableReplicas": 1,
        "terminatingReplicas": 0, "observedGeneration": 1,
    }  # fmt: skip
    assert w.step(c, KEY) == []


def test_a_plan_that_scales_leaves_the_count_to_the_next() -> None:
    """What it makes or removes wakes it again: a count before that would be untrue at once."""
    w, c = world(2)
    for wanted in (2, 3, 1):
        w.objects[KEY]["spec"]["replicas"] = wanted
        assert not any(isinstance(a, SetStatus) for a in w.step(c, KEY))
        assert any(isinstance(a, SetStatus) for a in w.step(c, KEY))
        assert status(w)["replicas"] == wanted


def test_min_ready_seconds_delays_availability() -> None:
    w, c = world(1)
    w.objects[KEY]["spec"]["minReadySeconds"] = 10
    w.step(c, KEY)
    set_ready(w, pods(w)[0])
    w.again = None
    w.step(c, KEY)
    assert status(w).get("availableReplicas", 0) == 0
    assert w.again == 10
    w.now += 10
    w.step(c, KEY)
    assert status(w)["availableReplicas"] == 1


def test_surplus_is_deleted_worst_first() -> None:
    w, c = world(3)
    w.step(c, KEY)
    for pod in pods(w)[:2]:
        set_ready(w, pod)
        w.objects[pod.key]["spec"]["nodeName"] = "n"
    victim = pods(w)[2].name
    w.objects[KEY]["spec"]["replicas"] = 2
    (delete, *_) = w.step(c, KEY)
    assert isinstance(delete, Delete) and delete.key.name == victim
    assert ("SuccessfulDelete", f"Deleted pod: {victim}") in w.events


def test_finished_and_leaving_pods_are_replaced() -> None:
    w, c = world(2)
    w.step(c, KEY)
    first, second = pods(w)
    w.objects[first.key]["status"] = {"phase": "Failed"}
    w.objects[second.key]["metadata"]["deletionTimestamp"] = rfc3339(w.now)
    assert sum(isinstance(a, Create) for a in w.step(c, KEY)) == 2
    w.step(c, KEY)
    assert status(w)["terminatingReplicas"] == 1
    assert status(w)["replicas"] == 2


def test_orphans_are_adopted_and_strangers_released() -> None:
    w, c = world(2)
    orphan = w.add("pods", {"metadata": {"name": "o", "labels": {"app": "web"}}, "spec": {}})
    w.step(c, KEY)
    assert len(pods(w)) == 2
    assert w.objects[Key("pods", "default", "o")]["metadata"]["ownerReferences"][0]["name"] == "web"
    assert orphan["metadata"]["name"] == "o"
    w.objects[Key("pods", "default", "o")]["metadata"]["labels"] = {"app": "other"}
    w.step(c, KEY)
    assert w.objects[Key("pods", "default", "o")]["metadata"]["ownerReferences"] == []
    assert len(pods(w)) == 3  # the released one is replaced


def test_what_has_ended_is_not_released() -> None:
    w, c = world(1)
    w.step(c, KEY)
    (pod,) = pods(w)
    labels = {"metadata": {**pod.meta, "labels": {"app": "other"}}, "status": {"phase": "Failed"}}
    w.objects[pod.key] = {**pod.body, **labels}
    w.step(c, KEY)
    assert w.objects[pod.key]["metadata"]["ownerReferences"] != []
    assert len(pods(w)) == 2


def test_a_set_being_deleted_creates_nothing() -> None:
    w, c = world()
    w.objects[KEY]["metadata"]["deletionTimestamp"] = rfc3339(w.now)
    assert not any(isinstance(a, Create) for a in w.step(c, KEY))


def test_a_refused_creation_is_told() -> None:
    w, c = world(1)
    w.refuse = lambda key: 'pods "web-" is forbidden: no' if key.resource == "pods" else ""
    w.step(c, KEY)
    assert w.events == [("FailedCreate", 'Error creating: pods "web-" is forbidden: no')]
    w.step(c, KEY)
    (condition,) = status(w)["conditions"]
    assert (condition["type"], condition["reason"]) == ("ReplicaFailure", "FailedCreate")
    w.refuse = lambda _key: ""
    w.step(c, KEY)
    w.step(c, KEY)
    assert "conditions" not in status(w)


def test_a_refused_deletion_is_told() -> None:
    w, c = world(1)
    w.step(c, KEY)
    w.objects[KEY]["spec"]["replicas"] = 0
    w.events.clear()
    w.refuse_delete = lambda _key: "no"
    w.step(c, KEY)
    assert w.events == [("FailedDelete", "Error deleting: no")]
    assert status(w)["conditions"] == [{
        "type": "ReplicaFailure", "status": "True", "reason": "FailedDelete", "message": "no",
        "lastTransitionTime": rfc3339(w.now),
    }]  # fmt: skip
    w.refuse_delete = lambda _key: ""
    w.step(c, KEY)
    w.step(c, KEY)
    assert status(w) == {"replicas": 0, "terminatingReplicas": 0, "observedGeneration": 1}


def pod(name: str, **changes: Any) -> Body:
    meta = {"name": name, "uid": name, "creationTimestamp": rfc3339(0.0), "annotations": {}}
    meta |= changes.pop("meta", {})
    ready = changes.pop("ready", True)
    status: Body = {"phase": changes.pop("phase", "Running")}
    if ready:
        since = rfc3339(changes.pop("since", 0.0))
        status["conditions"] = [{"type": "Ready", "status": "True", "lastTransitionTime": since}]
    status["containerStatuses"] = [{"restartCount": changes.pop("restarts", 0)}]
    return {"metadata": meta, "spec": {"nodeName": changes.pop("node", "n1")}, "status": status}


def sidecar(name: str, restarts: int) -> Body:
    body = pod(name)
    body["spec"]["initContainers"] = [{"name": "s", "restartPolicy": "Always"}, {"name": "i"}]
    body["status"]["initContainerStatuses"] = [
        {"name": "s", "restartCount": restarts}, {"name": "i", "restartCount": 10 - restarts},
    ]  # fmt: skip
    return body


COST = "controller.kubernetes.io/pod-deletion-cost"


@pytest.mark.parametrize(
    ("victim", "survivor"),
    [
        (pod("a", node=""), pod("b", phase="Pending", ready=False)),
        (pod("a", phase="Pending", ready=False), pod("b", phase="Unknown", ready=False)),
        (pod("a", phase="Unknown", ready=False), pod("b", ready=False)),
        (pod("a", ready=False), pod("b")),
        (pod("a", meta={"annotations": {COST: "-5"}}), pod("b")),
        (pod("a", since=9000.0), pod("b", since=100.0)),
        (pod("a", restarts=3), pod("b", restarts=1)),
        (sidecar("a", 3), sidecar("b", 1)),
        # A like age decides nothing, not even the restarts after it: the uid does.
        (pod("a", since=100.0), pod("b", since=101.0, restarts=9)),
        (pod("a", meta={"creationTimestamp": None}), pod("b")),
        (pod("a", meta={"creationTimestamp": rfc3339(9990.0)}), pod("b")),
    ],
)
def test_ranking(victim: Body, survivor: Body) -> None:
    assert rank_victims([survivor, victim], [], 10000.0) == [victim, survivor]
    assert rank_victims([victim, survivor], [], 10000.0) == [victim, survivor]


def test_ranking_prefers_crowded_nodes() -> None:
    crowded, lonely = pod("a", node="n1"), pod("b", node="n2")
    others = [Obj.of(Key("pods", "default", f"x{i}"), pod(f"x{i}", node="n1"), 1) for i in range(2)]
    assert rank_victims([lonely, crowded], others, 10000.0) == [crowded, lonely]


def test_a_replication_controller_is_the_same_with_a_plain_selector() -> None:
    c = ReplicationControllerController()
    w = PlanWorld(c)
    key = Key("replicationcontrollers", "default", "web")
    spec = {"replicas": 2, "selector": {"app": "web"}, "template": TEMPLATE}
    w.add(key.resource, {"metadata": {"name": "web"}, "spec": spec})
    w.add("pods", {"metadata": {"name": "o", "labels": {"app": "web"}}, "spec": {}})
    w.step(c, key)
    w.step(c, key)
    assert len(pods(w)) == 2
    (ref,) = w.objects[Key("pods", "default", "o")]["metadata"]["ownerReferences"]
    assert (ref["apiVersion"], ref["kind"]) == ("v1", "ReplicationController")
    assert w.objects[key]["status"] == {
        "replicas": 2, "fullyLabeledReplicas": 2, "observedGeneration": 1,
    }  # fmt: skip
    assert w.step(c, key) == []


def test_one_plan_makes_and_removes_no_more_than_a_burst() -> None:
    w, c = world(BURST + 20)
    assert sum(isinstance(a, Create) for a in w.step(c, KEY)) == BURST
    assert sum(isinstance(a, Create) for a in w.step(c, KEY)) == 20
    w.objects[KEY]["spec"]["replicas"] = 0
    assert sum(isinstance(a, Delete) for a in w.step(c, KEY)) == BURST


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["plan", "plan", "ready", "fail", "lose", "gone", "orphan", "stray"]),
        st.integers(0, 5),
    )
    | st.tuples(st.just("scale"), st.integers(0, 6)),
    max_size=50,
)


def happen(w: PlanWorld, what: str, n: int) -> None:
    if what == "scale":
        w.objects[KEY]["spec"]["replicas"] = n
        return
    if what == "orphan":
        w.add("pods", {"metadata": {"labels": {"app": "web"}}, "spec": {}})
        return
    found = pods(w)
    if not found:
        return
    pod = found[n % len(found)]
    if what == "ready":
        set_ready(w, pod)
    elif what == "fail":
        w.objects[pod.key] = {**pod.body, "status": {"phase": "Failed"}}
    elif what == "lose" or (what == "gone" and pod.is_deleting):
        del w.objects[pod.key]
    elif what == "stray":
        w.objects[pod.key] = {**pod.body, "metadata": {**pod.meta, "labels": {"app": "x"}}}


@settings(max_examples=200, deadline=None)
@given(replicas=st.integers(0, 6), steps=STEPS)
def test_random_histories(replicas: int, steps: list[tuple[str, int]]) -> None:
    """A plan makes exactly what lacks or removes exactly what is too many, never both; in the end
    the set is as asked for and nothing more is written."""
    w, c = world(replicas)
    w.graceful = True
    for what, n in steps:
        if what != "plan":
            happen(w, what, n)
            continue
        mine = [
            p for p in pods(w)
            if is_active(p.body) and p.labels.get("app") == "web"
            and (p.controller is None or p.controller["uid"] == "uid-1")
        ]  # fmt: skip
        lacking = w.objects[KEY]["spec"]["replicas"] - len(mine)
        actions = w.step(c, KEY)
        made = sum(isinstance(a, Create) for a in actions)
        assert made - sum(isinstance(a, Delete) for a in actions) == lacking
        assert made == max(0, lacking)
    for _ in range(4):
        w.step(c, KEY)
    wanted = w.objects[KEY]["spec"]["replicas"]
    assert sum(is_active(p.body) and bool(p.owners) for p in pods(w)) == wanted
    assert status(w)["replicas"] == wanted
    assert w.step(c, KEY) == []
