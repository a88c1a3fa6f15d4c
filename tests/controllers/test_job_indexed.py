"""Indexed Jobs: whose index is whose, back-off per index, elasticity."""

from __future__ import annotations

import pytest

from sampan.api.obj import Key
from sampan.controllers import job_pods
from sampan.controllers.job_pods import FAILURES, IGNORED_FAILURES, INDEX
from sampan.testing.job_world import JobWorld


def indexed(completions: int = 3, parallelism: int = 3, **spec: object) -> JobWorld:
    w = JobWorld(completions=completions, parallelism=parallelism, completionMode="Indexed", **spec)
    w.settle()
    return w


def indexes(w: JobWorld) -> list[int]:
    return sorted(int(p.annotations[INDEX]) for p in w.active())


def test_an_indexed_job() -> None:
    w = indexed(5, 3)
    assert indexes(w) == [0, 1, 2]
    pod = w.pod(2)
    assert pod.labels[INDEX] == "2" and FAILURES not in pod.annotations
    assert pod.meta["generateName"] == "pi-2-"
    assert pod.spec["hostname"] == "pi-2"
    assert pod.spec["containers"][0]["env"] == [
        {"name": "JOB_COMPLETION_INDEX",
         "valueFrom": {"fieldRef": {"fieldPath": f"metadata.labels['{INDEX}']"}}},
    ]  # fmt: skip
    w.end(w.pod(2), w.pod(0))
    w.settle()
    assert w.status["completedIndexes"] == "0,2" and w.status["succeeded"] == 2
    assert indexes(w) == [1, 3, 4]
    w.end(*w.active())
    w.settle()
    assert w.status["completedIndexes"] == "0-4"
    assert w.is_true("Complete")


def test_a_variable_of_the_user_stays() -> None:
    w = JobWorld(completions=1, completionMode="Indexed")
    env = [{"name": "JOB_COMPLETION_INDEX", "value": "mine"}]
    w.job["spec"]["template"]["spec"]["containers"][0]["env"] = env
    w.settle()
    assert w.pods()[0].spec["containers"][0]["env"] == env


def test_a_failed_index_is_tried_again_after_its_back_off() -> None:
    w = indexed(2, 2)
    w.end(w.pod(0), code=1)
    w.settle()
    assert indexes(w) == [1] and w.again == 10
    w.now += 10
    w.settle()
    assert indexes(w) == [0, 1] and w.status["failed"] == 1


def test_pods_without_an_index_of_their_own_go() -> None:
    w = indexed(3, 3)
    pod = w.pod(1)
    twin = {**pod.body, "metadata": {**pod.meta, "name": "twin", "uid": "u-twin"}}
    w.objects[Key("pods", "default", "twin")] = twin
    odd = {**pod.body, "metadata": {**pod.meta, "name": "odd", "uid": "u-odd", "annotations": {}}}
    w.objects[Key("pods", "default", "odd")] = odd
    w.settle()
    assert indexes(w) == [0, 1, 2]
    assert len(w.pods()) == 3


def test_a_success_of_an_index_counts_once() -> None:
    w = indexed(3, 3)
    pod = w.pod(1)
    twin = {**pod.body, "metadata": {**pod.meta, "name": "twin", "uid": "u-twin"}}
    w.objects[Key("pods", "default", "twin")] = twin
    w.end(*w.pods())
    w.settle()
    assert w.status["succeeded"] == 3


def test_it_grows_and_shrinks() -> None:
    w = indexed(2, 2)
    w.end(w.pod(1))
    w.settle()
    w.job["spec"].update(completions=4, parallelism=4)
    w.settle()
    assert indexes(w) == [0, 2, 3]
    w.job["spec"].update(completions=1, parallelism=1)
    w.settle()
    assert indexes(w) == [0]
    assert "completedIndexes" not in w.status and "succeeded" not in w.status
    w.end(w.pod(0))
    w.settle()
    assert w.is_true("Complete") and w.status["completedIndexes"] == "0"


def test_a_failing_index() -> None:
    """It is given up after its own limit; the others go on, and the Job fails at the end."""
    w = indexed(3, 3, backoffLimitPerIndex=1)
    assert w.job["spec"]["backoffLimit"] == 2**31 - 1
    assert w.pod(0).annotations[FAILURES] == "0"
    assert w.status["failedIndexes"] == ""
    first = w.pod(1)
    w.end(first, code=1)
    w.settle()
    assert w.again == 10 and "failed" not in w.status, "held back until its successor carries on"
    w.now += 10
    w.settle()
    assert w.pod(1).annotations[FAILURES] == "1" and w.status["failed"] == 1
    w.end(w.pod(1), code=1)
    w.settle()
    assert w.status["failedIndexes"] == "1" and w.status["failed"] == 2
    w.now += 1000
    w.settle()
    assert indexes(w) == [0, 2], "it is not tried again"
    w.end(*w.active())
    w.settle()
    last = w.condition("Failed")
    assert last is not None
    assert (last["reason"], last["message"]) == ("FailedIndexes", "Job has failed indexes")
    assert (w.status["completedIndexes"], w.status["succeeded"]) == ("0,2", 2)


def test_indexes_wait_each_for_itself() -> None:
    w = indexed(2, 2, backoffLimitPerIndex=5)
    w.end(w.pod(0), code=1)
    w.settle()
    w.now += 10
    w.settle()
    w.end(w.pod(0), w.pod(1), code=1)
    w.settle()
    assert indexes(w) == [] and w.again == 10
    w.now += 10
    w.settle()
    assert indexes(w) == [1] and w.again == 10
    w.now += 10
    w.settle()
    assert indexes(w) == [0, 1]
    assert (w.pod(0).annotations[FAILURES], w.pod(1).annotations[FAILURES]) == ("2", "1")


def test_too_many_failed_indexes() -> None:
    w = indexed(5, 5, backoffLimitPerIndex=0, maxFailedIndexes=1)
    w.end(w.pod(0), code=1)
    w.settle()
    assert not w.is_true("FailureTarget")
    w.end(w.pod(3), code=1)
    w.settle()
    last = w.condition("Failed")
    assert last is not None
    assert (last["reason"], last["message"]) == (
        "MaxFailedIndexesExceeded",
        "Job has exceeded the specified maximal number of failed indexes",
    )
    assert w.status["failedIndexes"] == "0,3" and w.active() == []


def test_an_index_failed_by_the_policy() -> None:
    rule = {"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [42]}}
    w = indexed(2, 2, backoffLimitPerIndex=5, podFailurePolicy={"rules": [rule]})
    w.end(w.pod(0), code=42)
    w.settle()
    assert w.status["failedIndexes"] == "0" and w.status["failed"] == 1


def test_ignored_failures_of_an_index() -> None:
    rule = {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [42]}}
    w = indexed(1, 1, backoffLimitPerIndex=0, podFailurePolicy={"rules": [rule]})
    w.end(w.pod(0), code=42)
    w.settle()
    assert w.again == 10
    w.now += 10
    w.settle()
    assert w.pod(0).annotations[FAILURES] == "0"
    assert w.pod(0).annotations[IGNORED_FAILURES] == "1"
    assert "failed" not in w.status and w.status["failedIndexes"] == ""
    w.end(w.pod(0), code=42)
    w.settle()
    assert w.again == 20, "they make it wait all the same"


@pytest.mark.parametrize(
    ("name", "index", "prefix"),
    [("pi", 0, "pi-0-"), ("x" * 63, 12, "x" * 54 + "-12-")],
)
def test_names(name: str, index: int, prefix: str) -> None:
    w = JobWorld(completions=1, completionMode="Indexed")
    w.job["metadata"]["name"] = name
    assert job_pods.new_pod(w.job, index, None)["metadata"]["generateName"] == prefix
