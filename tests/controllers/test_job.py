"""Job plans: how many pods run, how they are counted, suspension."""

from __future__ import annotations

from typing import Any

import pytest

from sampan.api.obj import Key
from sampan.control.plan import Create, Delete, Patch, SetStatus
from sampan.controllers.job_pods import FINALIZER
from sampan.lib.clock import rfc3339
from sampan.testing.job_world import KEY, JobWorld


def kinds(actions: list[Any]) -> list[str]:
    return [type(a).__name__ for a in actions]


def test_pods_are_created() -> None:
    w = JobWorld(completions=5, parallelism=2)
    actions = w.pass_()
    assert kinds(actions) == ["Create", "Create", "SetStatus"]
    (first, _) = w.pods()
    assert first.meta["finalizers"] == [FINALIZER]
    assert first.meta["generateName"] == "pi-"
    assert first.controller == {
        "apiVersion": "batch/v1", "kind": "Job", "name": "pi", "uid": w.job["metadata"]["uid"],
        "controller": True, "blockOwnerDeletion": True,
    }  # fmt: skip
    assert first.labels["batch.kubernetes.io/job-name"] == "pi"
    assert first.labels["controller-uid"] == w.job["metadata"]["uid"]
    assert w.events == [("SuccessfulCreate", f"Created pod: {p.name}") for p in w.pods()]
    assert w.status == {
        "startTime": rfc3339(w.now), "active": 2, "ready": 0, "terminating": 0,
        "uncountedTerminatedPods": {},
    }  # fmt: skip
    assert w.pass_() == []


def test_the_life_of_a_job() -> None:
    w = JobWorld()
    w.settle()
    (pod,) = w.pods()
    began = rfc3339(w.now)
    w.now += 30
    w.end(pod)
    assert kinds(w.pass_()) == ["SetStatus", "Patch"]
    assert w.is_true("SuccessCriteriaMet") and not w.is_true("Complete")
    assert kinds(w.pass_()) == ["SetStatus", "Emit"]
    at = rfc3339(w.now)
    end = {
        "status": "True", "reason": "CompletionsReached", "lastProbeTime": at,
        "lastTransitionTime": at, "message": "Reached expected number of succeeded pods",
    }  # fmt: skip
    assert w.status == {
        "startTime": began, "completionTime": at, "succeeded": 1, "ready": 0, "terminating": 0,
        "uncountedTerminatedPods": {},
        "conditions": [{"type": "SuccessCriteriaMet", **end}, {"type": "Complete", **end}],
    }  # fmt: skip
    assert w.events[-1] == ("Completed", "Job completed")
    assert w.controller.observe(KEY, w) is None


def test_a_finished_pod_is_booked_before_it_is_let_go() -> None:
    w = JobWorld(completions=3, parallelism=1)
    w.settle()
    (pod,) = w.pods()
    w.end(pod)
    status, release = w.pass_()
    assert isinstance(status, SetStatus) and isinstance(release, Patch)
    assert status.body["status"]["uncountedTerminatedPods"] == {"succeeded": [pod.uid]}
    assert "succeeded" not in status.body["status"]
    assert FINALIZER not in (w.objects[pod.key]["metadata"].get("finalizers") or ())
    actions = w.pass_()
    assert kinds(actions) == ["Create", "SetStatus"]
    assert w.status["uncountedTerminatedPods"] == {}
    assert (w.status["succeeded"], w.status["active"]) == (1, 1)


def test_twenty_completions_five_at_a_time() -> None:
    w = JobWorld(completions=20, parallelism=5)
    seen = []
    for _ in range(200):
        w.pass_()
        seen.append(len(w.active()))
        if w.is_true("Complete"):
            break
        if w.active():
            w.end(w.active()[0])
    assert max(seen) == 5
    assert w.status["succeeded"] == 20
    assert len(w.pods("Succeeded")) == 20


def test_without_completions_one_success_is_enough() -> None:
    w = JobWorld(parallelism=3)
    assert "completions" not in w.job["spec"]
    w.settle()
    assert len(w.active()) == 3
    w.end(w.active()[0])
    w.settle()
    assert len(w.active()) == 2, "the others may go on, and none is added"
    w.end(*w.active())
    w.settle()
    assert w.is_true("Complete")
    assert w.status["succeeded"] == 3


def test_no_completions_at_all_are_reached_at_once() -> None:
    w = JobWorld(completions=0)
    w.settle()
    assert w.is_true("Complete") and w.pods() == []


def test_more_completions_than_asked_for() -> None:
    w = JobWorld(completions=1, parallelism=1)
    w.settle()
    extra = w.pods()[0]
    body = {**w.objects[extra.key], "metadata": {**extra.meta, "name": "extra", "uid": "u-extra"}}
    w.objects[Key("pods", "default", "extra")] = body
    w.end(*w.pods())
    w.settle()
    assert w.status["succeeded"] == 2
    told = "Too many succeeded pods running after completion count reached"
    assert ("TooManySucceededPods", told) in w.events


def test_ready_pods_are_counted() -> None:
    w = JobWorld(completions=2, parallelism=2)
    w.settle()
    w.set(w.pods()[0], "Running", ready=True)
    w.settle()
    assert (w.status["active"], w.status["ready"]) == (2, 1)


def test_too_many_pods_are_deleted() -> None:
    """The pods that have come the least far go, and do not count as failed."""
    w = JobWorld(completions=5, parallelism=3)
    w.settle()
    running = w.pods()[1]
    w.objects[running.key]["spec"] = {**running.spec, "nodeName": "n1"}
    w.set(running, "Running", ready=True)
    w.job["spec"]["parallelism"] = 1
    actions = w.pass_()
    deleted = [a.key.name for a in actions if isinstance(a, Delete)]
    assert deleted == [a.key.name for a in actions if isinstance(a, Patch)]
    w.settle()
    assert [p.name for p in w.pods()] == [running.name]
    assert w.status["active"] == 1 and "failed" not in w.status
    assert w.reasons().count("SuccessfulDelete") == 2


def test_only_a_pod_that_is_as_it_was_seen_is_let_go_uncounted() -> None:
    w = JobWorld(completions=5, parallelism=1)
    w.settle()
    w.job["spec"]["parallelism"] = 0
    (release,) = [a for a in w.pass_() if isinstance(a, Patch)]
    assert release.patch["metadata"]["resourceVersion"] == "1"


def test_a_pod_that_is_deleted_is_replaced_at_once() -> None:
    """It counts as failed, though its node has not ended it yet."""
    w = JobWorld(completions=1)
    w.settle()
    (pod,) = w.pods()
    w.set(pod, "Running")
    w.delete(pod.key)
    w.objects[pod.key]["metadata"]["finalizers"].append("example.com/other")
    w.pass_()
    assert w.status["terminating"] == 1
    w.now += 11
    w.settle()
    assert w.status["failed"] == 1 and len(w.active()) == 1
    assert w.status["terminating"] == 1


def test_with_replacement_of_failed_pods_only_it_holds_its_place() -> None:
    w = JobWorld(completions=1, podReplacementPolicy="Failed")
    w.settle()
    (pod,) = w.pods()
    w.set(pod, "Running")
    w.delete(pod.key)
    w.settle()
    assert w.active() == [] and w.status["terminating"] == 1 and "failed" not in w.status
    w.end(w.pods()[0], code=137)
    w.now += 11
    w.settle()
    assert w.status["failed"] == 1 and len(w.active()) == 1


def test_suspend_and_resume() -> None:
    w = JobWorld(completions=3, parallelism=2, suspend=True)
    w.settle()
    assert w.pods() == []
    at = rfc3339(w.now)
    assert w.status["conditions"] == [
        {"type": "Suspended", "status": "True", "reason": "JobSuspended",
         "message": "Job suspended", "lastProbeTime": at, "lastTransitionTime": at},
    ]  # fmt: skip
    assert "startTime" not in w.status
    assert w.events == [("Suspended", "Job suspended")]
    w.now += 100
    w.job["spec"]["suspend"] = False
    w.settle()
    assert w.status["startTime"] == rfc3339(w.now)
    assert w.condition("Suspended")["reason"] == "JobResumed"  # type: ignore[index]
    assert not w.is_true("Suspended")
    assert len(w.active()) == 2 and "Resumed" in w.reasons()
    w.end(w.active()[0])
    w.settle()
    w.job["spec"]["suspend"] = True
    w.settle()
    assert w.active() == []
    assert (w.status["succeeded"], w.status.get("failed")) == (1, None)
    assert "startTime" not in w.status


def test_a_refused_creation_is_told() -> None:
    """And what has happened so far is in the status all the same."""
    w = JobWorld(completions=4, parallelism=2)
    w.settle()
    w.end(w.active()[0])
    w.refuse = lambda key: "no more of them" if key.resource == "pods" else ""
    w.pass_()
    w.pass_()
    assert ("FailedCreate", "Error creating: no more of them") in w.events
    assert (w.status["succeeded"], w.status["active"]) == (1, 1)
    w.refuse = lambda _key: ""
    w.settle()
    assert w.status["active"] == 2


def test_a_refused_creation_leaves_the_status_true() -> None:
    w = JobWorld(completions=4, parallelism=2)
    w.refuse = lambda _key: "no"
    (create, *_rest) = [a for a in w.controller.plan(
        w.controller.observe(KEY, w), w.now) if isinstance(a, Create)]  # fmt: skip
    assert create.failed is not None
    (_told, status) = create.failed("no")
    assert isinstance(status, SetStatus)
    assert "active" not in status.body["status"]


def test_a_refused_deletion_is_told() -> None:
    w = JobWorld(completions=4, parallelism=1)
    w.settle()
    w.job["spec"]["parallelism"] = 0
    w.refuse_delete = lambda _key: "not now"
    w.pass_()
    assert ("FailedDelete", "Error deleting: not now") in w.events


def test_pods_are_claimed_by_the_selector() -> None:
    w = JobWorld(completions=4, parallelism=2)
    w.settle()
    lost, kept = w.pods()
    w.objects[lost.key]["metadata"]["labels"] = {"other": "one"}
    w.settle()
    assert w.objects[lost.key]["metadata"].get("ownerReferences") == []
    assert "finalizers" not in w.objects[lost.key]["metadata"]
    assert len(w.active()) == 3 and kept.name in [p.name for p in w.active()]
    w.objects[lost.key]["metadata"]["labels"] = dict(kept.labels)
    w.settle()
    taken = w.objects.get(lost.key)
    assert taken is None or taken["metadata"]["ownerReferences"][0]["name"] == "pi"
    assert len(w.active()) == 2


@pytest.mark.parametrize(
    ("manager", "ours"),
    [(None, True), ("kubernetes.io/job-controller", True), ("example.com/other", False)],
)
def test_a_job_of_another_manager_is_left_alone(manager: str | None, ours: bool) -> None:
    w = JobWorld()
    w.job["spec"]["managedBy"] = manager
    assert (w.controller.observe(KEY, w) is not None) == ours


def test_a_job_that_is_being_deleted_lets_its_pods_go() -> None:
    w = JobWorld(completions=3, parallelism=2)
    w.settle()
    w.job["metadata"]["deletionTimestamp"] = rfc3339(w.now)
    w.settle()
    assert all("finalizers" not in p.meta for p in w.pods())
    assert len(w.pods()) == 2
    w.end(w.pods()[0])
    w.settle()
    assert len(w.pods()) == 2, "no new ones"


def test_not_more_than_five_hundred_at_a_time() -> None:
    w = JobWorld(completions=1200, parallelism=700)
    assert sum(isinstance(a, Create) for a in w.pass_()) == 500
    w.settle()
    assert len(w.active()) == 700
    w.end(*w.active())
    w.pass_()
    assert len(w.status["uncountedTerminatedPods"]["succeeded"]) == 500
    w.settle()
    assert w.status["succeeded"] == 700
