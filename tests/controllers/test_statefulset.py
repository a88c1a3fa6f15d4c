"""StatefulSet plans: golden pairs of state and actions, and safety under random histories."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.api.obj import Body, Key, Obj
from sampan.control.plan import Create, Delete, SetStatus
from sampan.controllers import history
from sampan.controllers import identity as ids
from sampan.controllers.statefulset import StatefulSetController
from sampan.lib.clock import parse_rfc3339, rfc3339
from sampan.testing.plans import PlanWorld

KEY = Key("statefulsets.apps", "default", "web")
CLAIMS = "persistentvolumeclaims"


def stateful_set(replicas: int = 3, **spec: Any) -> Body:
    return {
        "metadata": {"name": "web", "namespace": "default", "annotations": {"note": "1"}},
        "spec": {
            "replicas": replicas, "serviceName": "svc", "podManagementPolicy": "OrderedReady",
            "revisionHistoryLimit": 2, "selector": {"matchLabels": {"app": "web"}},
            "updateStrategy": {
                "type": "RollingUpdate", "rollingUpdate": {"partition": 0, "maxUnavailable": 1},
            },
            "template": template("v1"), **spec,
        },
    }  # fmt: skip


def template(image: str) -> Body:
    return {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": image}]},
    }


def rolling(partition: int = 0, unavailable: Any = 1) -> Body:
    return {
        "type": "RollingUpdate",
        "rollingUpdate": {"partition": partition, "maxUnavailable": unavailable},
    }


class World(PlanWorld):
    def __init__(self, replicas: int = 3, **spec: Any) -> None:
        self.c = StatefulSetController()
        super().__init__(self.c)
        self.add(KEY.resource, stateful_set(replicas, **spec))

    def change(self, **spec: Any) -> None:
        self.objects[KEY]["spec"].update(spec)
        self.objects[KEY]["metadata"]["generation"] += 1

    def pods(self) -> dict[str, Obj]:
        return {p.name: p for p in sorted(self["pods"].list(), key=lambda p: p.name)}

    def revisions(self) -> list[Obj]:
        found = self[history.RESOURCE].list()
        return sorted(found, key=lambda r: history.number_of(r.body))

    def images(self) -> dict[str, str]:
        return {n: p.spec["containers"][0]["image"] for n, p in self.pods().items()}

    def ready(self, *names: str) -> None:
        """These pods, or all, run and are ready (as nodes see to)."""
        for name, pod in self.pods().items():
            if (not names or name in names) and not (pod.status.get("conditions") or finished(pod)):
                self.objects[pod.key]["status"] = {
                    "phase": "Running",
                    "conditions": [{"type": "Ready", "status": "True",
                                    "lastTransitionTime": rfc3339(self.now)}],
                }  # fmt: skip

    def phase(self, name: str, phase: str) -> None:
        self.objects[Key("pods", "default", name)]["status"] = {"phase": phase}

    def gone(self, *names: str) -> None:
        """Pods whose grace is over."""
        for name, pod in self.pods().items():
            if pod.is_deleting and (not names or name in names):
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


def test_pods_are_made_in_order() -> None:
    w = World()
    w.turn()
    assert list(w.pods()) == ["web-0"]
    pod = w.pods()["web-0"]
    (revision,) = w.revisions()
    assert pod.labels == {
        "app": "web", "statefulset.kubernetes.io/pod-name": "web-0",
        "apps.kubernetes.io/pod-index": "0", "controller-revision-hash": revision.name,
    }  # fmt: skip
    assert pod.owners == [{
        "apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "uid-1",
        "controller": True, "blockOwnerDeletion": True,
    }]  # fmt: skip
    assert (pod.spec["hostname"], pod.spec["subdomain"]) == ("web-0", "svc")
    assert pod.meta["generateName"] == "web-"
    assert w.turn() != [] and list(w.pods()) == ["web-0"]  # the count; web-0 is not ready
    w.ready()
    w.turn()
    assert list(w.pods()) == ["web-0", "web-1"]
    w.settle()
    assert list(w.pods()) == ["web-0", "web-1", "web-2"]
    assert [m for r, m in w.events if r == "SuccessfulCreate"] == [
        f"create Pod web-{i} in StatefulSet web successful" for i in range(3)
    ]


def test_parallel_sets_wait_for_nothing() -> None:
    w = World(podManagementPolicy="Parallel")
    w.turn()
    assert list(w.pods()) == ["web-0", "web-1", "web-2"]


def test_ordinals_start_where_asked() -> None:
    w = World(2, ordinals={"start": 5})
    w.settle()
    assert list(w.pods()) == ["web-5", "web-6"]
    w.change(ordinals={"start": 6})
    w.settle()
    assert list(w.pods()) == ["web-6", "web-7"]


def test_revisions_keep_the_template() -> None:
    w = World(1)
    w.turn()
    (r,) = w.revisions()
    digest = r.labels["controller.kubernetes.io/hash"]
    assert r.name == f"web-{digest}" and r.labels["app"] == "web"
    assert r.annotations == {"note": "1"} and r.body["revision"] == 1
    assert r.body["data"] == {"spec": {"template": {"$patch": "replace", **template("v1")}}}
    assert r.controller is not None and r.controller["kind"] == "StatefulSet"


def test_scaling_down_goes_from_the_top() -> None:
    w = World()
    w.settle()
    w.graceful = True
    w.change(replicas=1)
    (delete,) = [a for a in w.turn() if isinstance(a, Delete)]
    assert delete.key.name == "web-2"
    assert ("SuccessfulDelete", "delete Pod web-2 in StatefulSet web successful") in w.events
    assert not [a for a in w.turn() if isinstance(a, Delete)]  # it is still leaving
    w.gone()
    w.turn()
    assert w.pods()["web-1"].is_deleting
    w.settle()
    assert list(w.pods()) == ["web-0"]


def test_parallel_scaling_down_takes_all_at_once() -> None:
    w = World(podManagementPolicy="Parallel")
    w.settle()
    w.change(replicas=0)
    w.turn()
    assert w.pods() == {}


def test_a_broken_pod_holds_scaling_down_back_unless_it_goes_itself() -> None:
    w = World(4)
    w.settle()
    w.phase("web-2", "Pending")
    w.phase("web-3", "Pending")
    w.change(replicas=2)
    assert not [a for a in w.turn() if isinstance(a, Delete)]  # web-3 waits for web-2
    w.ready("web-2")
    w.turn()
    assert list(w.pods()) == ["web-0", "web-1", "web-2"]  # the first that is broken may go


def test_rolling_update_goes_from_the_top_one_by_one() -> None:
    w = World()
    w.settle()
    first = w.status["currentRevision"]
    w.change(template=template("v2"))
    w.turn()
    assert w.images() == {"web-0": "v1", "web-1": "v1"}
    w.turn()
    assert w.images() == {"web-0": "v1", "web-1": "v1", "web-2": "v2"}
    w.turn()
    assert w.images()["web-1"] == "v1"  # until web-2 is ready
    assert w.status["currentRevision"] == first != w.status["updateRevision"]
    w.settle()
    assert set(w.images().values()) == {"v2"}
    assert w.status["currentRevision"] == w.status["updateRevision"] != first


def test_status_of_a_rollout() -> None:
    w = World()
    w.settle()
    name = w.status["currentRevision"]
    assert w.status == {
        "observedGeneration": 1, "replicas": 3, "readyReplicas": 3, "availableReplicas": 3,
        "currentReplicas": 3, "updatedReplicas": 3, "currentRevision": name,
        "updateRevision": name, "collisionCount": 0,
    }  # fmt: skip
    w.graceful = True
    w.change(template=template("v2"))
    w.turn()
    assert w.status == {
        "observedGeneration": 2, "replicas": 3, "readyReplicas": 3, "availableReplicas": 3,
        "currentReplicas": 2, "currentRevision": name,
        "updateRevision": w.revisions()[-1].name, "collisionCount": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("partition", "expected"),
    [
        (2, {"web-0": "v1", "web-1": "v1", "web-2": "v2"}),
        (3, {"web-0": "v1", "web-1": "v1", "web-2": "v1"}),
    ],
)
def test_partition(partition: int, expected: dict[str, str]) -> None:
    w = World(updateStrategy=rolling(partition))
    w.settle()
    w.change(template=template("v2"))
    w.settle()
    assert w.images() == expected
    del w.objects[Key("pods", "default", "web-0")]
    w.settle()
    assert w.images() == expected  # below the partition a lost pod comes back as it was


@pytest.mark.parametrize("management", ["OrderedReady", "Parallel"])
def test_without_rolling_update_settings_what_is_missing_comes_back_updated(
    management: str,
) -> None:
    """A strategy that names its type alone has no partition. A pod deleted during the rollout of a
    Parallel set used to come back old, to be replaced at once, for ever."""
    w = World(3, podManagementPolicy=management, updateStrategy={"type": "RollingUpdate"})
    w.settle()
    w.change(template=template("v2"), replicas=5)
    del w.objects[Key("pods", "default", "web-1")]
    made = [
        (a.body["metadata"]["name"], a.body["spec"]["containers"][0]["image"])
        for _ in range(4)
        for a in w.turn()
        if isinstance(a, Create) and a.resource == "pods"
    ]
    assert made and all(image == "v2" for _, image in made)
    assert len(made) == len(set(made))


@pytest.mark.parametrize(("unavailable", "at_once"), [(2, 2), ("50%", 2), ("10%", 1), (9, 4)])
def test_max_unavailable(unavailable: Any, at_once: int) -> None:
    w = World(4, updateStrategy=rolling(0, unavailable))
    w.settle()
    w.change(template=template("v2"))
    deleted = [a.key.name for a in w.turn() if isinstance(a, Delete)]
    assert deleted == [f"web-{3 - i}" for i in range(at_once)]


def test_a_parallel_set_replaces_what_is_down_first() -> None:
    w = World(4, podManagementPolicy="Parallel")
    w.settle()
    w.phase("web-0", "Pending")
    w.phase("web-1", "Pending")
    w.change(template=template("v2"))
    deleted = [a.key.name for a in w.turn() if isinstance(a, Delete)]
    assert deleted == ["web-1", "web-0"]  # and none that works


def test_an_ordered_set_waits_for_a_broken_pod() -> None:
    """As upstream documents: a pod that never becomes ready has to be deleted by hand, also after
    its template was put right."""
    w = World(2)
    w.settle()
    w.change(template=template("bad"))
    w.turn()
    w.turn()
    w.phase("web-1", "Pending")
    w.change(template=template("v1"))
    for _ in range(3):
        w.turn()
    assert w.images() == {"web-0": "v1", "web-1": "bad"}
    del w.objects[Key("pods", "default", "web-1")]
    w.settle()
    assert w.images() == {"web-0": "v1", "web-1": "v1"}


def test_on_delete_changes_nothing_by_itself() -> None:
    w = World(2, updateStrategy={"type": "OnDelete"})
    w.settle()
    w.change(template=template("v2"))
    w.settle()
    assert set(w.images().values()) == {"v1"}
    del w.objects[Key("pods", "default", "web-1")]
    w.settle()
    assert w.images() == {"web-0": "v1", "web-1": "v2"}


def test_rollback_reuses_the_revision() -> None:
    w = World(1)
    w.settle()
    name = w.status["currentRevision"]
    w.change(template=template("v2"))
    w.settle()
    w.change(template=template("v1"))
    w.settle()
    assert w.status["currentRevision"] == name
    kept = [(r.body["revision"], history.template_of(r.body)["spec"]) for r in w.revisions()]
    assert kept == [(2, template("v2")["spec"]), (3, template("v1")["spec"])]


def test_history_limit() -> None:
    w = World(1)
    for i in range(6):
        w.change(template=template(f"v{i}"))
        w.settle()
    assert [r.body["revision"] for r in w.revisions()] == [4, 5, 6]
    w.change(revisionHistoryLimit=-1)
    for i in range(6, 9):
        w.change(template=template(f"v{i}"))
        w.settle()
    assert len(w.revisions()) == 6


def test_a_revision_that_pods_have_is_kept() -> None:
    w = World(2, updateStrategy={"type": "OnDelete"}, revisionHistoryLimit=0)
    w.settle()
    for i in range(4):
        w.change(template=template(f"x{i}"))
        w.settle()
    assert [r.body["revision"] for r in w.revisions()] == [1, 5]


def test_a_taken_name_of_a_revision_raises_the_collision_count() -> None:
    w = World(1)
    name, *_ = history.free_name(w.objects[KEY], history.snapshot(w.objects[KEY]), lambda _: None)
    w.add(history.RESOURCE, {"metadata": {"name": name}, "data": {"other": 1}, "revision": 1})
    w.settle()
    assert w.status["collisionCount"] == 1
    assert w.status["currentRevision"] != name


def test_orphaned_revisions_are_adopted() -> None:
    w = World(1)
    w.settle()
    (r,) = w.revisions()
    w.objects[r.key]["metadata"]["ownerReferences"] = []
    w.turn()
    assert len(w.revisions()) == 1
    assert w.revisions()[0].controller is not None


def test_min_ready_seconds_holds_the_next_one_back() -> None:
    w = World(2, minReadySeconds=10)
    w.turn()
    w.ready()
    w.again = None
    w.turn()
    assert list(w.pods()) == ["web-0"] and w.again == 10
    assert (w.status["readyReplicas"], w.status["availableReplicas"]) == (1, 0)
    w.now += 10
    w.turn()
    assert list(w.pods()) == ["web-0", "web-1"]
    assert w.status["availableReplicas"] == 1


@pytest.mark.parametrize(
    ("phase", "reason", "word"),
    [("Failed", "RecreatingFailedPod", "failed"),
     ("Succeeded", "RecreatingTerminatedPod", "terminated")],
)  # fmt: skip
def test_finished_pods_are_made_again(phase: str, reason: str, word: str) -> None:
    w = World(2)
    w.settle()
    w.graceful = True
    w.phase("web-1", phase)
    w.events.clear()
    w.turn()
    assert w.events == [
        (reason, f"StatefulSet default/web is recreating {word} Pod web-1"),
        ("SuccessfulDelete", "delete Pod web-1 in StatefulSet web successful"),
    ]
    assert not [a for a in w.turn() if isinstance(a, Create | Delete)]
    w.settle()
    assert w.status["readyReplicas"] == 2


def test_a_leaving_pod_is_not_replaced_before_it_is_gone() -> None:
    w = World(podManagementPolicy="Parallel")
    w.settle()
    w.objects[Key("pods", "default", "web-0")]["metadata"]["deletionTimestamp"] = rfc3339(w.now)
    assert not [a for a in w.turn() if isinstance(a, Create)]
    w.gone()
    (create,) = [a for a in w.turn() if isinstance(a, Create)]
    assert create.body["metadata"]["name"] == "web-0"


def test_a_name_that_another_owner_holds_is_waited_for() -> None:
    w = World(1)
    other = {"apiVersion": "v1", "kind": "X", "name": "o", "uid": "o", "controller": True}
    w.add("pods", {"metadata": {"name": "web-0", "ownerReferences": [other]}, "spec": {}})
    assert not [a for a in w.turn() if isinstance(a, Create) and a.resource == "pods"]
    pod = w.pods()["web-0"]
    assert list(w.c._keys_of_pod(pod, w)) == [KEY]  # its end wakes the set
    del w.objects[pod.key]
    w.turn()
    assert w.pods()["web-0"].owners[0]["uid"] == "uid-1"


def test_adopted_pods_get_their_identity() -> None:
    w = World(1, updateStrategy={"type": "OnDelete"})
    w.add("pods", {"metadata": {"name": "web-0", "labels": {"app": "web"}}, "spec": {}})
    w.ready()
    w.turn()
    pod = w.pods()["web-0"]
    assert pod.controller is not None and pod.controller["uid"] == "uid-1"
    assert pod.labels["apps.kubernetes.io/pod-index"] == "0"
    assert ("SuccessfulUpdate", "update Pod web-0 in StatefulSet web successful") in w.events


def test_strangers_are_not_adopted_and_those_that_became_strange_are_released() -> None:
    w = World(1)
    w.add("pods", {"metadata": {"name": "other-0", "labels": {"app": "web"}}, "spec": {}})
    w.add("pods", {"metadata": {"name": "web-00", "labels": {"app": "web"}}, "spec": {}})
    w.settle()
    assert [w.pods()[n].owners for n in ("other-0", "web-00")] == [[], []]
    w.objects[Key("pods", "default", "web-0")]["metadata"]["labels"]["app"] = "x"
    w.turn()
    assert w.pods()["web-0"].owners == []


def test_a_refused_pod_is_told() -> None:
    w = World(1)
    w.refuse = lambda key: "pods is forbidden: no" if key.resource == "pods" else ""
    w.turn()
    assert w.events == [
        ("FailedCreate",
         "create Pod web-0 in StatefulSet web failed error: pods is forbidden: no"),
    ]  # fmt: skip
    assert w.status["observedGeneration"] == 1  # the status is written all the same


def test_a_refused_deletion_is_told() -> None:
    w = World(1)
    w.settle()
    w.refuse_delete = lambda _key: "no"
    w.change(replicas=0)
    w.turn()
    assert w.events[-1] == (
        "FailedDelete", "delete Pod web-0 in StatefulSet web failed error: no",
    )  # fmt: skip


def test_a_set_being_deleted_only_counts() -> None:
    w = World(2)
    w.settle()
    w.objects[KEY]["metadata"]["deletionTimestamp"] = rfc3339(w.now)
    del w.objects[Key("pods", "default", "web-1")]
    (action,) = w.turn()
    assert isinstance(action, SetStatus) and w.status["replicas"] == 1


def test_conditions_of_others_are_kept() -> None:
    w = World(1)
    w.objects[KEY]["status"] = {"conditions": [{"type": "Mine", "status": "True"}]}
    w.settle()
    assert w.status["conditions"] == [{"type": "Mine", "status": "True"}]


# -- claims ------------------------------------------------------------------------------------

CLAIM_TEMPLATE = {
    "metadata": {"name": "data", "labels": {"x": "y"}},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
}


def with_claims(replicas: int = 2, *, deleted: str = "Retain", scaled: str = "Retain") -> World:
    policy = {"whenDeleted": deleted, "whenScaled": scaled}
    return World(
        replicas,
        volumeClaimTemplates=[CLAIM_TEMPLATE, {**CLAIM_TEMPLATE, "metadata": {"name": "b"}}],
        persistentVolumeClaimRetentionPolicy=policy,
    )


def claims(w: World) -> dict[str, list[str]]:
    """Each claim's name and the kinds that own it."""
    return {c.name: [o["kind"] for o in c.owners] for c in w[CLAIMS].list()}


def test_claims_come_before_their_pods() -> None:
    w = with_claims(1)
    w.turn()
    assert [m for _, m in w.events] == [
        "create Claim data-web-0 Pod web-0 in StatefulSet web success",
        "create Claim b-web-0 Pod web-0 in StatefulSet web success",
        "create Pod web-0 in StatefulSet web successful",
    ]
    claim = w.objects[Key(CLAIMS, "default", "data-web-0")]
    assert claim["metadata"]["labels"] == {"x": "y", "app": "web"}
    assert claim["spec"] == CLAIM_TEMPLATE["spec"]
    assert w.pods()["web-0"].spec["volumes"] == [
        {"name": "data", "persistentVolumeClaim": {"claimName": "data-web-0"}},
        {"name": "b", "persistentVolumeClaim": {"claimName": "b-web-0"}},
    ]


def test_a_refused_claim_holds_its_pod_back() -> None:
    w = with_claims(1)
    w.refuse = lambda key: "quota" if key.name == "b-web-0" else ""
    w.turn()
    assert w.pods() == {}
    assert [m for r, m in w.events if r == "FailedCreate"] == [
        "create Claim b-web-0 for Pod web-0 in StatefulSet web failed error: quota",
        "create Pod web-0 in StatefulSet web failed error: failed to create PVC b-web-0: quota",
    ]


def test_a_pending_pod_gets_the_claims_it_lost() -> None:
    w = with_claims(1)
    w.settle()
    w.phase("web-0", "Pending")
    del w.objects[Key(CLAIMS, "default", "b-web-0")]
    w.turn()
    assert sorted(claims(w)) == ["b-web-0", "data-web-0"]


def test_a_claim_that_is_leaving_is_waited_for() -> None:
    w = with_claims(1)
    w.settle()
    key = Key(CLAIMS, "default", "data-web-0")
    w.objects[key]["metadata"]["deletionTimestamp"] = rfc3339(w.now)
    del w.objects[Key("pods", "default", "web-0")]
    w.turn()
    assert w.pods() == {}
    assert list(w.c._keys_of_claim(w[CLAIMS].get("default", "data-web-0"), w)) == [KEY]
    del w.objects[key]
    w.turn()
    assert list(w.pods()) == ["web-0"]


@pytest.mark.parametrize(
    ("deleted", "scaled", "here", "away"),
    [
        ("Retain", "Retain", [], []),
        ("Delete", "Retain", ["StatefulSet"], ["StatefulSet"]),
        ("Retain", "Delete", [], ["Pod"]),
        ("Delete", "Delete", ["StatefulSet"], ["Pod"]),
    ],
)
def test_claims_are_owned_as_the_policy_says(
    deleted: str, scaled: str, here: list[str], away: list[str]
) -> None:
    w = with_claims(2, deleted=deleted, scaled=scaled)
    w.settle()
    names = [f"{c}-web-{i}" for i in range(2) for c in ("data", "b")]
    assert claims(w) == dict.fromkeys(names, here)
    w.graceful = True
    w.change(replicas=1)
    w.turn()
    assert claims(w) == {n: away if n.endswith("1") else here for n in names}
    assert w.pods()["web-1"].is_deleting


def test_a_change_of_the_policy_reaches_claims_that_are_there() -> None:
    w = with_claims(1)
    w.settle()
    policy = {"whenDeleted": "Delete", "whenScaled": "Retain"}
    w.change(persistentVolumeClaimRetentionPolicy=policy)
    w.settle()
    assert set(map(tuple, claims(w).values())) == {("StatefulSet",)}
    w.change(persistentVolumeClaimRetentionPolicy={"whenDeleted": "Retain"})
    w.settle()
    assert set(map(tuple, claims(w).values())) == {()}


def test_a_claim_that_goes_with_an_earlier_pod_is_stale() -> None:
    w = with_claims(1, scaled="Delete")
    w.settle()
    w.change(replicas=0)
    w.turn()
    assert w.pods() == {}
    w.change(replicas=1)
    w.turn()
    assert w.pods() == {}  # the collector has not taken the claims yet
    for name in claims(w):
        del w.objects[Key(CLAIMS, "default", name)]
    w.settle()
    assert list(w.pods()) == ["web-0"]


def test_a_claim_of_another_controller_is_left_alone() -> None:
    w = with_claims(1, deleted="Delete")
    other = {"apiVersion": "v1", "kind": "X", "name": "o", "uid": "o", "controller": True}
    w.add(CLAIMS, {"metadata": {"name": "data-web-0", "ownerReferences": [other]}, "spec": {}})
    w.settle()
    assert claims(w)["data-web-0"] == ["X"]
    assert (
        "ConflictingController",
        "PersistentVolumeClaim data-web-0 has a conflicting OwnerReference that acts as a manging "
        "controller, the retention policy is ignored for this claim",
    ) in w.events
    w.turn()
    assert sum(r == "ConflictingController" for r, _ in w.events) == 1


# -- properties --------------------------------------------------------------------------------

STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["plan", "plan", "plan", "ready", "gone", "fail", "lose"]),
                  st.integers(0, 5)),
        st.tuples(st.sampled_from(["all ready", "all gone"]), st.just(0)),
        st.tuples(st.just("image"), st.integers(1, 3)),
        st.tuples(st.sampled_from(["scale", "partition"]), st.integers(0, 5)),
        st.tuples(st.just("later"), st.integers(1, 10)),
    ),
    max_size=60,
)  # fmt: skip


def up(w: World, pod: Obj) -> bool:
    since = [parse_rfc3339(c["lastTransitionTime"]) for c in pod.status.get("conditions") or ()]
    minimum = w.objects[KEY]["spec"].get("minReadySeconds", 0)
    return bool(since) and since[0] + minimum <= w.now and not pod.is_deleting


def happen(w: World, what: str, n: int) -> None:
    name, spec = f"web-{n}", w.objects[KEY]["spec"]
    if what == "ready":
        w.ready(name)
    elif what == "gone":
        w.gone(name)
    elif what == "fail" and name in w.pods():
        w.phase(name, "Failed")
    elif what == "lose" and name in w.pods():
        del w.objects[Key("pods", "default", name)]
    elif what == "all ready":
        w.ready()
    elif what == "all gone":
        w.gone()
    elif what == "image":
        w.change(template=template(f"v{n}"))
    elif what == "scale":
        w.change(replicas=n)
    elif what == "partition":
        unavailable = spec["updateStrategy"]["rollingUpdate"]["maxUnavailable"]
        w.change(updateStrategy=rolling(n, unavailable))
    elif what == "later":
        w.now += n


def check_step(w: World, actions: list[Any], before: dict[str, Obj], *, ordered: bool) -> None:
    """What a plan may do, given what was there before it."""
    spec = w.objects[KEY]["spec"]
    wanted = [f"web-{i}" for i in ids.ordinals(w.objects[KEY])]
    made = [a.body["metadata"]["name"] for a in actions
            if isinstance(a, Create) and a.resource == "pods"]  # fmt: skip
    deleted = [a.key.name for a in actions if isinstance(a, Delete) and a.key.resource == "pods"]
    assert not set(made) & set(before), "a second pod of one identity"
    assert set(made) <= set(wanted)
    for name in made:
        if ordered:
            lower = [n for n in wanted if ids.parent_and_ordinal(n)[1] < int(name[4:])]
            assert all(n in before and up(w, before[n]) for n in lower), "made out of order"
    for name in deleted:
        assert not before[name].is_deleting
        if finished(before[name]):
            continue
        if name not in wanted:
            if ordered:
                assert all(n in before and up(w, before[n]) for n in wanted)
                higher = [n for n in before if n not in wanted and int(n[4:]) > int(name[4:])]
                assert not higher, "scaled down out of order"
                leaving = [n for n, p in before.items() if n not in wanted and p.is_deleting]
                assert not leaving, "two leave at once"
            continue
        revision = before[name].labels.get(history.POD_HASH)
        assert revision != w.status["updateRevision"], "removed although up to date"
        partition = spec["updateStrategy"]["rollingUpdate"]["partition"]
        assert int(name[4:]) >= partition
    disrupted = [n for n in deleted if n in wanted and up(w, before[n])]
    if disrupted:
        down = sum(not (n in before and up(w, before[n])) for n in wanted)
        most = spec["updateStrategy"]["rollingUpdate"]["maxUnavailable"]
        assert down + len(disrupted) <= most, "maxUnavailable is broken"
    if ordered and len(made) + len(deleted) > 1:
        assert not made, "more than one thing at a time"


@settings(max_examples=300, deadline=None)
@given(
    replicas=st.integers(0, 4), policy=st.sampled_from(["OrderedReady", "Parallel"]),
    unavailable=st.integers(1, 3), minimum=st.sampled_from([0, 5]), settled=st.booleans(),
    steps=STEPS,
)  # fmt: skip
def test_random_histories(
    replicas: int,
    policy: str,
    unavailable: int,
    minimum: int,
    settled: bool,
    steps: list[tuple[str, int]],
) -> None:
    """Never two pods of one ordinal, everything in order, never more down by the controller's own
    hand than maxUnavailable; in the end it converges and writes nothing more."""
    w = World(
        replicas, podManagementPolicy=policy, updateStrategy=rolling(0, unavailable),
        minReadySeconds=minimum,
    )  # fmt: skip
    w.graceful = True
    for _ in range(30 if settled else 0):
        w.ready()
        w.now += 10
        w.turn()
    w.change(template=template("v9"))
    for what, n in steps:
        if what != "plan":
            happen(w, what, n)
            continue
        before = w.pods()
        check_step(w, w.turn(), before, ordered=policy == "OrderedReady")
    w.change(updateStrategy=rolling(0, unavailable))
    for _ in range(80):
        w.gone()
        w.ready()
        w.now += 10
        w.turn()
    spec = w.objects[KEY]["spec"]
    image = spec["template"]["spec"]["containers"][0]["image"]
    assert w.images() == {f"web-{i}": image for i in range(spec["replicas"])}
    assert w.status.get("updatedReplicas", 0) == spec["replicas"] == w.status["availableReplicas"]
    assert w.status["currentRevision"] == w.status["updateRevision"]
    assert w.turn() == []
