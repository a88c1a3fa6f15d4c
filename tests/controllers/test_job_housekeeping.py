"""Pods nobody counts any more are let go; Jobs that ended go when their time is over."""

from __future__ import annotations

from typing import Any

import pytest

from sampan.api.obj import Body, Key
from sampan.control.plan import Again, Delete, Patch
from sampan.controllers.job_pods import FINALIZER
from sampan.controllers.job_release import JobPodReleaser
from sampan.controllers.ttl_after_finished import TtlAfterFinishedController
from sampan.lib.clock import rfc3339
from sampan.testing.plans import PlanWorld


def pod_of(job: Body | None, **ref: Any) -> Body:
    meta: Body = {"name": "p", "finalizers": [FINALIZER]}
    if job is not None:
        meta["ownerReferences"] = [
            {"apiVersion": "batch/v1", "kind": "Job", "name": job["metadata"]["name"],
             "uid": job["metadata"]["uid"], "controller": True, **ref},
        ]  # fmt: skip
    return {"metadata": meta, "spec": {}}


def job(**status: Any) -> Body:
    return {"metadata": {"name": "pi"}, "spec": {}, "status": status}


DONE = {"conditions": [{"type": "Complete", "status": "True"}]}


@pytest.mark.parametrize(
    ("status", "ref", "freed"),
    [
        ({}, {}, False),
        (DONE, {}, True),
        ({}, {"uid": "of-another-job"}, True),
        ({}, {"name": "gone"}, True),
        ({}, {"kind": "ReplicaSet", "apiVersion": "apps/v1"}, False),
    ],
)
def test_pods_are_let_go(status: Body, ref: Body, freed: bool) -> None:
    c = JobPodReleaser()
    w = PlanWorld(c)
    made = w.add("jobs.batch", job(**status))
    w.add("pods", pod_of(made, **ref))
    key = Key("pods", "default", "p")
    actions = w.step(c, key)
    assert [type(a) for a in actions] == ([Patch] if freed else [])
    assert ("finalizers" not in w.objects[key]["metadata"]) == freed
    assert w.step(c, key) == [] or not freed


def test_an_orphan_is_let_go() -> None:
    c = JobPodReleaser()
    w = PlanWorld(c)
    w.add("pods", pod_of(None))
    assert len(w.step(c, Key("pods", "default", "p"))) == 1


def test_a_pod_of_an_externally_managed_job_is_left_alone() -> None:
    c = JobPodReleaser()
    w = PlanWorld(c)
    made = w.add("jobs.batch", {**job(**DONE), "spec": {"managedBy": "example.com/x"}})
    w.add("pods", pod_of(made))
    assert w.step(c, Key("pods", "default", "p")) == []


def test_the_end_of_a_job_wakes_its_pods() -> None:
    c = JobPodReleaser()
    w = PlanWorld(c)
    w.add("pods", pod_of(w.add("jobs.batch", job())))
    trigger = next(t for t in c.triggers if t.resource == "jobs.batch")
    (made,) = w["jobs.batch"].list()
    assert list(trigger.keys(made, w)) == [Key("pods", "default", "p")]


@pytest.mark.parametrize(
    ("ttl", "kind", "age", "expected"),
    [
        (None, "Complete", 1000, None), (100, "", 1000, None), (100, "Complete", 40, 60.0),
        (100, "Failed", 100, 0), (0, "Complete", 0, 0),
    ],
)  # fmt: skip
def test_jobs_go_when_their_time_is_over(
    ttl: int | None, kind: str, age: float, expected: float | None
) -> None:
    """expected: seconds to wait; 0 deletes it; None: nothing to do."""
    c = TtlAfterFinishedController()
    w = PlanWorld(c)
    at = rfc3339(w.now)
    conditions = [{"type": kind, "status": "True", "lastTransitionTime": at}] if kind else []
    body = job(conditions=conditions)
    body["spec"] = {} if ttl is None else {"ttlSecondsAfterFinished": ttl}
    w.add("jobs.batch", body)
    w.now += age
    actions = w.step(c, Key("jobs.batch", "default", "pi"))
    if expected is None:
        assert actions == []
    elif expected:
        assert actions == [Again(expected)]
    else:
        (delete,) = actions
        assert isinstance(delete, Delete)
        assert (delete.propagation, delete.revision) == ("Foreground", 1)
