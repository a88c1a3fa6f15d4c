"""How Jobs end: limits, deadlines, back-off and policies."""

from __future__ import annotations

from typing import Any

import pytest

from sampan.api.obj import Body
from sampan.control.plan import Delete
from sampan.controllers import job_pods
from sampan.lib.clock import rfc3339
from sampan.testing.job_world import JobWorld


def exit_codes(action: str, *codes: int, operator: str = "In", **more: Any) -> Body:
    return {"action": action, "onExitCodes": {"operator": operator, "values": [*codes], **more}}


def conditions(action: str, kind: str) -> Body:
    return {"action": action, "onPodConditions": [{"type": kind, "status": "True"}]}


def test_the_back_off_limit() -> None:
    """10 s after the first failure, then twice as long each time; the last one too many ends it."""
    w = JobWorld(backoffLimit=2)
    waits = []
    for _ in range(3):
        w.settle()
        assert len(w.active()) == 1
        w.end(w.active()[0], code=1)
        w.settle()
        waits.append(w.again)
        if w.again:
            w.now += w.again - 1
            w.settle()
            assert w.active() == [], "not before the time is over"
            w.now += 1
    assert waits == [10, 20, None]
    assert w.status["failed"] == 3
    assert w.is_true("FailureTarget") and w.is_true("Failed")
    last = w.condition("Failed")
    assert last is not None
    assert (last["reason"], last["message"]) == (
        "BackoffLimitExceeded", "Job has reached the specified backoff limit",
    )  # fmt: skip
    assert "completionTime" not in w.status
    assert w.events[-1] == ("BackoffLimitExceeded", "Job has reached the specified backoff limit")


@pytest.mark.parametrize(
    ("failures", "wait"), [(0, 0), (1, 10), (2, 20), (6, 320), (7, 600), (100, 600)]
)
def test_delays(failures: int, wait: float) -> None:
    assert job_pods.delay(failures, 1000.0, 1000.0) == wait
    assert job_pods.delay(failures, 1000.0, 1004.0) == max(0, wait - 4)


def test_a_success_ends_the_row_of_failures() -> None:
    w = JobWorld(completions=3, parallelism=1, backoffLimit=9)
    for code in (1, 1, 0):
        w.settle()
        w.now += 1
        w.end(w.active()[0], code=code)
        w.settle()
        w.now += w.again or 0
    w.settle()
    assert len(w.active()) == 1, "no wait after a success"
    w.now += 1
    w.end(w.active()[0], code=1)
    w.settle()
    assert w.again == 10


def test_the_wait_outlives_the_failed_pod_and_the_controller() -> None:
    w = JobWorld(backoffLimit=9)
    w.settle()
    (pod,) = w.pods()
    w.end(pod, code=1)
    w.settle()
    w.controller._ends.clear()  # as if it had just been started
    w.settle()
    assert w.again == 10 and w.active() == []
    del w.objects[pod.key]
    w.settle()
    assert w.again == 10 and w.active() == []


def test_failure_deletes_what_still_runs_and_waits_for_it() -> None:
    w = JobWorld(completions=3, parallelism=3, backoffLimit=0)
    w.graceful = True
    w.settle()
    w.end(w.pods()[0], code=1)
    actions = w.pass_()
    assert sum(isinstance(a, Delete) for a in actions) == 2
    assert w.is_true("FailureTarget") and not w.is_true("Failed")
    w.settle()
    assert w.status["terminating"] == 2 and not w.is_true("Failed")
    assert w.status["failed"] == 3, "what it took down with it has failed too"
    for p in w.pods():
        if p.is_deleting:
            del w.objects[p.key]
    w.settle()
    assert w.is_true("Failed") and w.status["terminating"] == 0
    assert w.status["failed"] == 3


@pytest.mark.parametrize(("limit", "restarts", "ends"), [(0, 1, True), (3, 2, False), (3, 3, True)])
def test_restarts_in_place_count_to_the_limit(limit: int, restarts: int, ends: bool) -> None:
    w = JobWorld(restart="OnFailure", backoffLimit=limit)
    w.settle()
    w.set(w.pods()[0], "Running", containerStatuses=[{"name": "c", "restartCount": restarts}])
    w.settle()
    assert w.is_true("Failed") == ends


def test_the_active_deadline() -> None:
    w = JobWorld(activeDeadlineSeconds=60)
    w.settle()
    assert w.again == 60
    w.now += 59.5
    w.settle()
    assert w.again == pytest.approx(0.5) and not w.is_true("FailureTarget")
    w.now += 0.5
    w.settle()
    last = w.condition("Failed")
    assert last is not None
    assert (last["reason"], last["message"]) == (
        "DeadlineExceeded", "Job was active longer than specified deadline",
    )  # fmt: skip
    assert w.reasons()[-1] == "DeadlineExceeded"


def test_a_suspended_job_has_no_deadline() -> None:
    w = JobWorld(activeDeadlineSeconds=60, suspend=True)
    w.settle()
    w.now += 1000
    w.settle()
    assert w.again is None and not w.is_true("FailureTarget")
    w.job["spec"]["suspend"] = False
    w.settle()
    assert w.again == 60


@pytest.mark.parametrize(
    ("rules", "code", "pod_conditions", "expected"),
    [
        ([exit_codes("FailJob", 42)], 42, (), (1, "Failed")),
        ([exit_codes("FailJob", 42)], 1, (), (1, "")),
        ([exit_codes("FailJob", 0, 1, operator="NotIn")], 2, (), (1, "Failed")),
        ([exit_codes("FailJob", 42, containerName="other")], 42, (), (1, "")),
        ([exit_codes("Ignore", 42), exit_codes("FailJob", 42)], 42, (), (0, "")),
        ([exit_codes("Count", 42), exit_codes("FailJob", 42)], 42, (), (1, "")),
        ([conditions("Ignore", "DisruptionTarget")], 137, ("DisruptionTarget",), (0, "")),
        ([conditions("FailJob", "ConfigIssue")], 1, ("ConfigIssue",), (1, "Failed")),
        ([conditions("FailJob", "ConfigIssue")], 1, (), (1, "")),
    ],
)
def test_failure_policies(
    rules: list[Body], code: int, pod_conditions: tuple[str, ...], expected: tuple[int, str]
) -> None:
    failed, end = expected
    w = JobWorld(podFailurePolicy={"rules": rules})
    w.settle()
    (pod,) = w.pods()
    ended = {"exitCode": code, "finishedAt": rfc3339(w.now)}
    w.set(
        pod, "Failed", containerStatuses=[{"name": "c", "state": {"terminated": ended}}],
        conditions=[{"type": c, "status": "True"} for c in pod_conditions],
    )  # fmt: skip
    w.objects[pod.key]["status"]["containerStatuses"][0]["state"]["terminated"] = ended
    w.settle()
    assert (w.status.get("failed", 0), "Failed" if w.is_true("Failed") else "") == (failed, end)


def test_a_failure_policy_fails_a_job() -> None:
    w = JobWorld(podFailurePolicy={"rules": [exit_codes("Ignore", 1), exit_codes("FailJob", 42)]})
    w.settle()
    (pod,) = w.pods()
    w.end(pod, code=42)
    w.pass_()
    message = (
        f"Container c for pod default/{pod.name} failed with exit code 42 matching FailJob rule at "
        "index 1"
    )
    for kind in ("FailureTarget", "Failed"):
        w.settle()
        found = w.condition(kind)
        assert found is not None
        assert (found["reason"], found["message"]) == ("PodFailurePolicy", message)
    assert w.events[-1] == ("PodFailurePolicy", message)


def test_a_failure_policy_tells_of_conditions() -> None:
    w = JobWorld(podFailurePolicy={"rules": [conditions("FailJob", "DisruptionTarget")]})
    w.settle()
    (pod,) = w.pods()
    w.set(pod, "Failed", conditions=[{"type": "DisruptionTarget", "status": "True"}])
    w.settle()
    assert w.events[-1][1] == (
        f"Pod default/{pod.name} has condition DisruptionTarget matching FailJob rule at index 0"
    )


@pytest.mark.parametrize(
    ("rules", "done", "rule"),
    [
        ([{"succeededCount": 2}], [4, 1], 0),
        ([{"succeededCount": 3}], [4, 1], None),
        ([{"succeededIndexes": "0"}], [1, 2], None),
        ([{"succeededIndexes": "0"}], [2, 0], 0),
        ([{"succeededIndexes": "0-2", "succeededCount": 2}], [4, 1, 2], 0),
        ([{"succeededIndexes": "0-2", "succeededCount": 2}], [4, 3, 2], None),
        ([{"succeededIndexes": "0"}, {"succeededCount": 1}], [3], 1),
    ],
)
def test_success_policies(rules: list[Body], done: list[int], rule: int | None) -> None:
    w = JobWorld(
        completions=5, parallelism=5, completionMode="Indexed", successPolicy={"rules": rules}
    )
    w.settle()
    w.end(*(w.pod(i) for i in done))
    w.settle()
    found = w.condition("Complete")
    assert (found is not None) == (rule is not None)
    if found is not None:
        assert (found["reason"], found["message"]) == (
            "SuccessPolicy", f"Matched rules at index {rule}",
        )  # fmt: skip


def test_a_success_policy_ends_a_job() -> None:
    """What still runs is deleted, and has not failed."""
    w = JobWorld(
        completions=5, parallelism=3, completionMode="Indexed",
        successPolicy={"rules": [{"succeededIndexes": "1"}]},
    )  # fmt: skip
    w.settle()
    w.end(w.pod(1))
    w.settle()
    assert w.is_true("SuccessCriteriaMet") and w.is_true("Complete")
    assert w.status["completedIndexes"] == "1" and "failed" not in w.status
    assert [p.name for p in w.pods()] == [w.pod(1).name]
    assert w.events[-1] == ("Completed", "Job completed")


def test_what_was_announced_stands() -> None:
    """A limit that is raised afterwards does not bring it back."""
    w = JobWorld(completions=2, parallelism=2, backoffLimit=0)
    w.graceful = True
    w.settle()
    w.end(w.pods()[0], code=1)
    w.pass_()
    assert w.is_true("FailureTarget")
    w.job["spec"]["backoffLimit"] = 10
    w.settle()
    for p in w.pods():
        if p.is_deleting:
            del w.objects[p.key]
    w.settle()
    assert w.is_true("Failed") and w.active() == []


def test_braces_in_a_message_do_no_harm() -> None:
    w = JobWorld()
    w.settle()
    w.job["status"]["conditions"] = [
        {"type": "FailureTarget", "status": "True", "reason": "PodFailurePolicy",
         "message": "{not} a {field}"},
    ]  # fmt: skip
    w.settle()
    found = w.condition("Failed")
    assert found is not None and found["message"] == "{not} a {field}"
