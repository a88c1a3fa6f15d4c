"""Budgets: what they allow, of which pods, and what becomes of evictions that do not happen."""

from __future__ import annotations

from typing import Any

import pytest

from sampan.api.obj import Body, Key, Obj
from sampan.control.plan import Again
from sampan.controllers.disruption import DisruptionController, StaleDisruptions
from sampan.lib.clock import rfc3339
from sampan.testing.plans import PlanWorld

KEY = Key("poddisruptionbudgets.policy", "default", "web")


class BudgetWorld(PlanWorld):
    """A budget over pods labelled app=web."""

    def __init__(self, **spec: Any) -> None:
        self.controller = DisruptionController()
        super().__init__(self.controller)
        self.add(KEY.resource, {
            "metadata": {"name": "web"},
            "spec": {"selector": {"matchLabels": {"app": "web"}}, **spec},
        })  # fmt: skip

    def set(self, replicas: int, kind: str = "ReplicaSet", **owner: Any) -> Body:
        plural = {"ReplicaSet": "replicasets.apps", "StatefulSet": "statefulsets.apps",
                  "Deployment": "deployments.apps",
                  "ReplicationController": "replicationcontrollers"}[kind]  # fmt: skip
        made = self.add(plural, {"metadata": owner, "spec": {"replicas": replicas}})
        return reference(made, kind)

    def pod(self, owner: Body | None, *, ready: bool = True) -> Obj:
        meta: Body = {"labels": {"app": "web"}}
        if owner is not None:
            meta["ownerReferences"] = [owner]
        status = {"phase": "Running",
                  "conditions": [{"type": "Ready", "status": str(ready)}]}  # fmt: skip
        made = self.add("pods", {"metadata": meta, "spec": {}, "status": status})
        return Obj.of(Key("pods", "default", made["metadata"]["name"]), made, 1)

    @property
    def status(self) -> Body:
        found: Body = self.objects[KEY]["status"]
        return found

    def counts(self) -> tuple[int, ...]:
        self.step(self.controller, KEY)
        names = ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods")
        return tuple(self.status[n] for n in names)


def reference(body: Body, kind: str) -> Body:
    meta = body["metadata"]
    return {"kind": kind, "name": meta["name"], "uid": meta["uid"], "controller": True}


@pytest.mark.parametrize(
    ("spec", "replicas", "ready", "unready", "expected"),
    [
        ({"minAvailable": 2}, 3, 3, 0, (1, 3, 2, 3)),
        ({"minAvailable": 2}, 3, 2, 1, (0, 2, 2, 3)),
        ({"minAvailable": 5}, 3, 3, 0, (0, 3, 5, 3)),
        ({"minAvailable": "50%"}, 5, 5, 0, (2, 5, 3, 5)),
        ({"maxUnavailable": 1}, 3, 3, 0, (1, 3, 2, 3)),
        ({"maxUnavailable": 1}, 3, 2, 0, (0, 2, 2, 3)),
        ({"maxUnavailable": "34%"}, 3, 3, 0, (2, 3, 1, 3)),
        ({"maxUnavailable": 9}, 3, 3, 0, (3, 3, 0, 3)),
        ({"maxUnavailable": 0}, 3, 3, 0, (0, 3, 3, 3)),
        ({}, 3, 3, 0, (3, 3, 0, 3)),
    ],
)
def test_what_is_allowed(
    spec: Body, replicas: int, ready: int, unready: int, expected: tuple[int, ...]
) -> None:
    w = BudgetWorld(**spec)
    owner = w.set(replicas)
    for i in range(ready + unready):
        w.pod(owner, ready=i < ready)
    assert w.counts() == expected


def test_a_budget() -> None:
    w = BudgetWorld(minAvailable=1)
    owner = w.set(2)
    w.pod(owner)
    w.pod(owner)
    w.step(w.controller, KEY)
    assert w.status == {
        "disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2,
        "observedGeneration": 1,
        "conditions": [
            {"type": "DisruptionAllowed", "status": "True", "observedGeneration": 1,
             "lastTransitionTime": rfc3339(w.now), "reason": "SufficientPods", "message": ""},
        ],
    }  # fmt: skip
    assert w.step(w.controller, KEY) == []
    before, w.now = w.now, w.now + 60
    w.objects[KEY]["spec"]["minAvailable"] = 2
    w.step(w.controller, KEY)
    (condition,) = w.status["conditions"]
    assert (condition["status"], condition["reason"]) == ("False", "InsufficientPods")
    assert condition["lastTransitionTime"] == rfc3339(before + 60)


def test_no_pods() -> None:
    w = BudgetWorld(maxUnavailable=1)
    assert w.counts() == (0, 0, 0, 0)
    assert w.events == [("NoPods", "No matching pods found")]


@pytest.mark.parametrize("kind", ["ReplicaSet", "StatefulSet", "ReplicationController"])
def test_scales_of_kinds(kind: str) -> None:
    w = BudgetWorld(maxUnavailable=1)
    w.pod(w.set(4, kind))
    assert w.counts() == (0, 1, 3, 4)


def test_the_deployment_decides_for_its_replica_sets() -> None:
    w = BudgetWorld(maxUnavailable=1)
    deployment = w.set(4, "Deployment")
    for replicas in (3, 2):
        owner = w.set(replicas, ownerReferences=[deployment])
        w.pod(owner)
    assert w.counts()[3] == 4


def test_unmanaged_pods() -> None:
    w = BudgetWorld(maxUnavailable=1)
    w.pod(w.set(2))
    w.pod(None)
    w.step(w.controller, KEY)
    assert w.events[0][0] == "UnmanagedPods"
    assert "(selector: app=web)" in w.events[0][1]
    plain = BudgetWorld(minAvailable=1)
    plain.pod(None)
    plain.pod(None)
    assert plain.counts() == (1, 2, 1, 2) and plain.events == []


def test_a_pod_of_nobody_known() -> None:
    w = BudgetWorld(maxUnavailable=1)
    pod = w.pod({"kind": "Other", "name": "x", "uid": "u", "controller": True})
    error = f'found no controllers for pod "{pod.name}"'
    w.step(w.controller, KEY)
    assert w.status["disruptionsAllowed"] == 0
    (condition,) = w.status["conditions"]
    assert (condition["reason"], condition["message"]) == ("SyncFailed", error)
    assert w.events == [
        ("CalculateExpectedPodCountFailed",
         f"Failed to calculate the number of expected pods: {error}"),
    ]  # fmt: skip


def test_pods_that_are_being_evicted_are_not_healthy() -> None:
    w = BudgetWorld(minAvailable=1)
    owner = w.set(3)
    first, second, _third = (w.pod(owner) for _ in range(3))
    w.objects[KEY]["status"] = {"disruptedPods": {first.name: rfc3339(w.now), "gone": "x"}}
    w.objects[second.key]["metadata"]["deletionTimestamp"] = rfc3339(w.now)
    assert w.counts() == (0, 1, 1, 3)
    assert w.status["disruptedPods"] == {first.name: rfc3339(w.now)}
    assert w.again == 121


def test_an_eviction_that_did_not_happen() -> None:
    w = BudgetWorld(minAvailable=1)
    owner = w.set(2)
    pod = w.pod(owner)
    w.pod(owner)
    w.objects[KEY]["status"] = {"disruptedPods": {pod.name: rfc3339(w.now)}}
    assert w.counts()[0] == 0
    w.now += 121
    assert w.counts()[0] == 1
    assert "disruptedPods" not in w.status
    told = "Pod was expected by PDB default/web to be deleted but it wasn't"
    assert w.events == [("NotDeleted", told)]


@pytest.mark.parametrize(
    ("selector", "matches"), [({}, True), (None, False), ({"matchLabels": {"a": "b"}}, False)]
)
def test_selectors(selector: Body | None, matches: bool) -> None:
    w = BudgetWorld(minAvailable=0)
    w.objects[KEY]["spec"]["selector"] = selector
    w.pod(None)
    assert (w.counts()[3] == 1) == matches


@pytest.mark.parametrize(
    ("reason", "phase", "status", "taken"),
    [
        ("EvictionByEvictionAPI", "Running", "True", True),
        ("TerminationByKubelet", "Running", "True", False),
        ("EvictionByEvictionAPI", "Failed", "True", False),
        ("EvictionByEvictionAPI", "Running", "False", False),
    ],
)
def test_a_stale_disruption_is_taken_back(
    reason: str, phase: str, status: str, taken: bool
) -> None:
    c = StaleDisruptions()
    w = PlanWorld(c)
    condition = {"type": "DisruptionTarget", "status": status, "reason": reason,
                 "lastTransitionTime": rfc3339(w.now)}  # fmt: skip
    w.add("pods", {"metadata": {"name": "p"}, "spec": {},
                   "status": {"phase": phase, "conditions": [condition]}})  # fmt: skip
    key = Key("pods", "default", "p")
    if taken:
        assert w.step(c, key) == [Again(120.0)]
    w.now += 120
    w.step(c, key)
    (found,) = w.objects[key]["status"]["conditions"]
    assert (found["status"] == "False") == (taken or status == "False")
