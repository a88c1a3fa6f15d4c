"""Deployment plans: rounding, steps, revisions, and safety under random histories."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.api.obj import Body, Key
from sampan.controllers import rollout as r
from sampan.controllers.deployment import DeploymentController
from sampan.controllers.replicaset import ReplicaSetController
from sampan.lib.clock import rfc3339
from sampan.testing.plans import PlanWorld

KEY = Key("deployments.apps", "default", "web")


def deployment(
    replicas: int = 3, surge: Any = "25%", unavailable: Any = "25%", kind: str = "RollingUpdate"
) -> Body:
    strategy: Body = {"type": kind}
    if kind == "RollingUpdate":
        strategy["rollingUpdate"] = {"maxSurge": surge, "maxUnavailable": unavailable}
    return {
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": strategy,
            "revisionHistoryLimit": 2,
            "progressDeadlineSeconds": 600,
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": "v1"}]},
            },
        },
    }


class World(PlanWorld):
    def __init__(self, body: Body) -> None:
        self.deployments, self.sets = DeploymentController(), ReplicaSetController()
        super().__init__(self.deployments, self.sets)
        self.add(KEY.resource, body)

    def change(self, **spec: Any) -> None:
        self.objects[KEY]["spec"].update(spec)
        self.objects[KEY]["metadata"]["generation"] += 1

    def image(self, image: str) -> None:
        template: Body = {**self.objects[KEY]["spec"]["template"]}
        template["spec"] = {"containers": [{"name": "c", "image": image}]}
        self.change(template=template)

    def ready(self, number: int = 1000) -> None:
        for pod in self["pods"].list():
            if number and not pod.status:
                number -= 1
                self.objects[pod.key]["status"] = {
                    "phase": "Running",
                    "conditions": [{"type": "Ready", "status": "True",
                                    "lastTransitionTime": rfc3339(self.now)}],
                }  # fmt: skip

    def turn(self) -> int:
        """Every controller once over everything; how many actions."""
        n = len(self.step(self.deployments, KEY))
        return n + sum(len(self.step(self.sets, s.key)) for s in self["replicasets.apps"].list())

    def settle(self, *, ready: bool = True) -> None:
        for _ in range(60):
            if ready:
                self.ready()
            self.again = None
            acted = [a for a in [self.turn()] if a]
            if not acted or (not ready and acted == [1]):
                return
        raise AssertionError("does not settle")

    @property
    def status(self) -> Body:
        found: Body = self.objects[KEY]["status"]
        return found

    def condition(self, kind: str) -> tuple[str, str, str]:
        (c,) = [c for c in self.status["conditions"] if c["type"] == kind]
        return c["status"], c["reason"], c["message"]


@pytest.mark.parametrize(
    ("replicas", "surge", "unavailable", "expected"),
    [
        (10, "25%", "25%", (3, 2)),
        (3, 1, 1, (1, 1)),
        (1, "25%", "25%", (1, 0)),
        (3, "0%", "10%", (0, 1)),  # both round to nothing: one may be unavailable
        (4, "100%", 0, (4, 0)),
    ],
)
def test_rounding(replicas: int, surge: Any, unavailable: Any, expected: tuple[int, int]) -> None:
    assert r.bounds(deployment(replicas, surge, unavailable)) == expected


def test_first_rollout() -> None:
    w = World(deployment())
    w.settle()
    (rs,) = w["replicasets.apps"].list()
    digest = rs.labels["pod-template-hash"]
    assert rs.name == f"web-{digest}"
    assert rs.spec["selector"]["matchLabels"] == {"app": "web", "pod-template-hash": digest}
    assert rs.annotations == {
        "deployment.kubernetes.io/revision": "1",
        "deployment.kubernetes.io/desired-replicas": "3",
        "deployment.kubernetes.io/max-replicas": "4",
    }
    assert w.objects[KEY]["metadata"]["annotations"] == {"deployment.kubernetes.io/revision": "1"}
    assert {k: v for k, v in w.status.items() if k != "conditions"} == {
        "observedGeneration": 1, "replicas": 3, "updatedReplicas": 3, "readyReplicas": 3,
        "availableReplicas": 3, "terminatingReplicas": 0,
    }  # fmt: skip
    assert w.condition("Available") == (
        "True", "MinimumReplicasAvailable", "Deployment has minimum availability.",
    )  # fmt: skip
    assert w.condition("Progressing") == (
        "True", "NewReplicaSetAvailable", f'ReplicaSet "{rs.name}" has successfully progressed.',
    )  # fmt: skip
    assert ("ScalingReplicaSet", f"Scaled up replica set {rs.name} from 0 to 3") in w.events


def test_rolling_update_and_rollback() -> None:
    w = World(deployment(3, 1, 1))
    w.settle()
    (first,) = w["replicasets.apps"].list()
    w.events.clear()
    w.image("v2")
    w.settle()
    second = next(s for s in w["replicasets.apps"].list() if s.name != first.name)
    told = [m for reason, m in w.events if reason == "ScalingReplicaSet"]
    assert told[:2] == [
        f"Scaled up replica set {second.name} from 0 to 1",
        f"Scaled down replica set {first.name} from 3 to 2",
    ]
    assert told[-1] == f"Scaled down replica set {first.name} from 1 to 0"
    assert second.annotations["deployment.kubernetes.io/revision"] == "2"
    w.image("v1")
    w.settle()
    first = next(s for s in w["replicasets.apps"].list() if s.name == first.name)
    assert first.spec["replicas"] == 3
    assert first.annotations["deployment.kubernetes.io/revision"] == "3"
    assert first.annotations["deployment.kubernetes.io/revision-history"] == "1"


def test_history_limit() -> None:
    w = World(deployment(1))
    for i in range(6):
        w.image(f"v{i}")
        w.settle()
    revisions = sorted(r.revision(s.body) for s in w["replicasets.apps"].list())
    assert revisions == [4, 5, 6]


def test_recreate_waits_for_the_old_pods() -> None:
    w = World(deployment(2, kind="Recreate"))
    w.settle()
    old = {p.name for p in w["pods"].list()}
    w.image("v2")
    seen_together = False
    for _ in range(20):
        w.turn()
        now = {p.name for p in w["pods"].list()}
        seen_together = seen_together or bool(now & old and now - old)
        w.ready()
    assert not seen_together
    assert w.status["updatedReplicas"] == 2
    assert not {p.name for p in w["pods"].list()} & old


def test_scaling_in_the_middle_of_a_rollout_is_proportional() -> None:
    w = World(deployment(10, 3, 2))
    w.settle()
    w.image("v2")
    for _ in range(6):
        w.turn()  # nothing becomes ready: 8 old and 5 new
    sizes = sorted(r.replicas(s.body) for s in w["replicasets.apps"].list())
    assert sizes == [5, 8]
    w.change(replicas=15)
    w.turn()
    sizes = sorted(r.replicas(s.body) for s in w["replicasets.apps"].list())
    assert sizes == [7, 11]  # 18 pods may be; upstream's documented example
    assert {s.annotations["deployment.kubernetes.io/desired-replicas"]
            for s in w["replicasets.apps"].list()} == {"15"}  # fmt: skip


def test_pause_and_resume() -> None:
    w = World(deployment())
    w.settle()
    w.change(paused=True)
    w.image("v2")
    w.turn()
    assert w.condition("Progressing") == ("Unknown", "DeploymentPaused", "Deployment is paused")
    w.change(replicas=5)
    w.settle()
    assert len(w["replicasets.apps"].list()) == 1
    assert w.status["replicas"] == 5
    w.change(paused=False)
    w.turn()
    assert len(w["replicasets.apps"].list()) == 2
    w.settle()
    assert w.condition("Progressing")[1] == "NewReplicaSetAvailable"


def test_a_stuck_rollout_times_out() -> None:
    w = World(deployment(1))
    w.turn()
    w.turn()
    w.turn()
    assert w.again is not None and 600 <= w.again <= 602
    w.now += 602
    w.turn()
    name = w["replicasets.apps"].list()[0].name
    assert w.condition("Progressing") == (
        "False", "ProgressDeadlineExceeded", f'ReplicaSet "{name}" has timed out progressing.',
    )  # fmt: skip
    w.settle()
    assert w.condition("Progressing")[1] == "NewReplicaSetAvailable"


def test_a_taken_name_raises_the_collision_count() -> None:
    w = World(deployment())
    template = w.objects[KEY]["spec"]["template"]
    name = f"web-{r.template_hash(template, 0)}"
    w.add("replicasets.apps", {
        "metadata": {"name": name}, "spec": {"replicas": 0, "selector": {}, "template": {}},
    })  # fmt: skip
    w.step(w.deployments, KEY)
    assert w.status["collisionCount"] == 1
    w.step(w.deployments, KEY)
    assert any(
        s.name == f"web-{r.template_hash(template, 1)}" for s in w["replicasets.apps"].list()
    )


def test_the_steps_of_progress() -> None:
    w = World(deployment(2))
    w.step(w.deployments, KEY)
    (rs,) = w["replicasets.apps"].list()
    assert w.condition("Progressing") == (
        "True", "NewReplicaSetCreated", f'Created new replica set "{rs.name}"',
    )  # fmt: skip
    w.turn()
    w.ready(1)
    w.turn()
    w.turn()
    assert w.condition("Progressing") == (
        "True", "ReplicaSetUpdated", f'ReplicaSet "{rs.name}" is progressing.',
    )  # fmt: skip


def test_a_found_replica_set_is_told() -> None:
    w = World(deployment(1))
    w.settle()
    w.objects[KEY]["status"] = {**w.status, "conditions": []}
    w.objects[KEY]["spec"]["progressDeadlineSeconds"] = 600
    w.change(paused=True)
    w.change(paused=False)
    w.objects[KEY]["status"]["replicas"] = 9  # not complete, and no progress since
    w.objects[KEY]["status"]["updatedReplicas"] = 9
    w.objects[KEY]["status"]["readyReplicas"] = 9
    w.objects[KEY]["status"]["availableReplicas"] = 9
    for pod in w["pods"].list():
        w.objects[pod.key]["status"] = {}
    w.step(w.sets, w["replicasets.apps"].list()[0].key)
    w.step(w.deployments, KEY)
    (rs,) = w["replicasets.apps"].list()
    assert w.condition("Progressing") == (
        "True", "FoundNewReplicaSet", f'Found new replica set "{rs.name}"',
    )  # fmt: skip


def test_too_few_pods_are_told() -> None:
    w = World(deployment(3))
    w.turn()
    w.turn()
    assert w.condition("Available") == (
        "False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.",
    )  # fmt: skip
    assert w.status["unavailableReplicas"] == 3
    w.settle()
    assert "unavailableReplicas" not in w.status


def test_terminating_pods_are_counted() -> None:
    w = World(deployment(2))
    w.settle()
    w.graceful = True
    w.change(replicas=1)
    w.turn()
    w.turn()
    w.turn()
    assert (w.status["replicas"], w.status["terminatingReplicas"]) == (1, 1)


def test_a_refused_replica_set_is_told() -> None:
    w = World(deployment())
    w.refuse = lambda key: "quota" if key.resource == "replicasets.apps" else ""
    w.turn()
    (reason, text) = w.events[-1]
    assert reason == "ReplicaSetCreateError"
    assert text.startswith('Failed to create new replica set "web-') and text.endswith(": quota")
    assert w.condition("Progressing") == ("False", "ReplicaSetCreateError", text)


def test_failures_of_replica_sets_are_copied() -> None:
    w = World(deployment(1))
    w.refuse = lambda key: "quota" if key.resource == "pods" else ""
    for _ in range(3):
        w.turn()
    assert w.condition("ReplicaFailure") == ("True", "FailedCreate", "quota")
    w.refuse = lambda _key: ""
    w.settle()
    assert "ReplicaFailure" not in {c["type"] for c in w.status["conditions"]}


def test_rollback_by_annotation() -> None:
    note = "deprecated.deployment.rollback.to"
    w = World(deployment(1))
    for image in ("v2", "v3"):
        meta = w.objects[KEY]["metadata"]
        meta["annotations"] = {**meta.get("annotations", {}), "cause": f"before {image}"}
        w.settle()
        w.image(image)
    w.objects[KEY]["metadata"]["annotations"]["cause"] = "last"
    w.settle()

    def roll_back(to: str) -> str:
        meta = w.objects[KEY]["metadata"]
        meta["annotations"] = {**meta["annotations"], note: to}
        w.events.clear()
        w.turn()
        assert note not in w.objects[KEY]["metadata"]["annotations"]
        told = [(r, m) for r, m in w.events if r.startswith("DeploymentRollback")]
        w.settle()
        assert len(told) == 1
        return " ".join(told[0])

    only = World(deployment(1))
    only.settle()
    meta = only.objects[KEY]["metadata"]
    meta["annotations"] = {**meta["annotations"], note: "0"}
    only.turn()
    told = ("DeploymentRollbackRevisionNotFound", "Unable to find last revision.")
    assert told in only.events
    assert roll_back("1") == 'DeploymentRollback Rolled back deployment "web" to revision 1'
    assert w.objects[KEY]["metadata"]["annotations"]["cause"] == "before v2"
    template = w.objects[KEY]["spec"]["template"]
    assert template["spec"]["containers"][0]["image"] == "v1"
    assert template["metadata"]["labels"] == {"app": "web"}
    assert roll_back("9") == (
        "DeploymentRollbackRevisionNotFound Unable to find the revision to rollback to."
    )
    assert roll_back("4") == (
        "DeploymentRollbackTemplateUnchanged The rollback revision contains the same template as "
        'current deployment "web"'
    )
    assert roll_back("0") == 'DeploymentRollback Rolled back deployment "web" to revision 3'


def test_min_ready_seconds_is_passed_on_and_waited_for() -> None:
    w = World(deployment(2, 1, 0))
    w.change(minReadySeconds=30)
    w.turn()
    w.ready()
    for _ in range(4):
        w.turn()
    (rs,) = w["replicasets.apps"].list()
    assert rs.spec["minReadySeconds"] == 30
    assert w.status["readyReplicas"] == 2 and "availableReplicas" not in w.status
    w.change(minReadySeconds=5)
    w.now += 5
    for _ in range(4):
        w.turn()
    (rs,) = w["replicasets.apps"].list()
    assert rs.spec["minReadySeconds"] == 5
    assert w.status["availableReplicas"] == 2


def test_without_a_deadline_there_is_no_word_of_progress() -> None:
    w = World(deployment(1))
    w.change(progressDeadlineSeconds=2147483647)
    w.settle()
    assert [c["type"] for c in w.status["conditions"]] == ["Available"]


def test_replica_sets_are_adopted_and_released() -> None:
    w = World(deployment(1))
    w.settle()
    (rs,) = w["replicasets.apps"].list()
    w.objects[rs.key]["metadata"]["ownerReferences"] = []
    w.turn()
    assert [o["uid"] for o in w["replicasets.apps"].list()[0].owners] == ["uid-1"]
    w.objects[rs.key]["metadata"]["labels"] = {"app": "other"}
    w.step(w.deployments, KEY)
    assert w["replicasets.apps"].get("default", rs.name).owners == []


def test_scaling_a_paused_deployment_of_two_sets_is_proportional_and_down_too() -> None:
    w = World(deployment(10, 3, 2))
    w.settle()
    w.image("v2")
    for _ in range(6):
        w.turn()
    w.change(paused=True, replicas=5)
    w.turn()
    sizes = sorted(r.replicas(s.body) for s in w["replicasets.apps"].list())
    assert sum(sizes) == 5 + 3 and sizes == [3, 5]


def test_a_deployment_being_deleted_only_counts() -> None:
    w = World(deployment(1))
    w.settle()
    w.objects[KEY]["metadata"]["deletionTimestamp"] = rfc3339(w.now)
    w.image("v2")
    w.turn()
    assert len(w["replicasets.apps"].list()) == 1


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("image"), st.integers(1, 4)),
        st.tuples(st.just("ready"), st.integers(1, 4)),
        st.tuples(st.just("deployment"), st.just(0)),
        st.tuples(st.just("set"), st.integers(0, 5)),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(
    replicas=st.integers(1, 7), surge=st.integers(0, 3), unavailable=st.integers(0, 3),
    history=ACTIONS,
)  # fmt: skip
def test_never_more_than_surge_nor_less_than_unavailable(
    replicas: int, surge: int, unavailable: int, history: list[tuple[str, int]]
) -> None:
    """Whatever becomes ready when, and whichever controller runs when. At the end it converges and
    writes nothing more."""
    w = World(deployment(replicas, surge, unavailable))
    w.settle()
    body = w.objects[KEY]
    most = replicas + r.max_surge(body)
    least = replicas - r.max_unavailable(body)
    for what, n in history:
        if what == "image":
            w.image(f"v{n}")
        elif what == "ready":
            w.ready(n)
        elif what == "deployment":
            w.step(w.deployments, KEY)
        else:
            sets = w["replicasets.apps"].list()
            w.step(w.sets, sets[n % len(sets)].key)
        assert sum(r.replicas(s.body) for s in w["replicasets.apps"].list()) <= most
        assert sum(bool(p.status) for p in w["pods"].list()) >= least
    w.settle()
    assert w.status["availableReplicas"] == replicas == w.status["updatedReplicas"]
    assert w.turn() == 0
