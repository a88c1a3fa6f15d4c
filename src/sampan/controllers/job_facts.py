"""What the Job controller tells, declared once."""

from __future__ import annotations

from sampan.control.facts import NORMAL, WARNING, Condition, Event, Facts, Field, Mark
from sampan.controllers import job_pods

_T = "tests/controllers/test_job.py::"
_I = "tests/controllers/test_job_indexed.py::"
_E = "tests/controllers/test_job_ends.py::"

CREATED = Event(NORMAL, "SuccessfulCreate", "Created pod: {pod}", f"{_T}test_pods_are_created")
CREATE_FAILED = Event(
    WARNING, "FailedCreate", "Error creating: {error}", f"{_T}test_a_refused_creation_is_told"
)
DELETED = Event(
    NORMAL, "SuccessfulDelete", "Deleted pod: {pod}", f"{_T}test_too_many_pods_are_deleted"
)
DELETE_FAILED = Event(
    WARNING, "FailedDelete", "Error deleting: {error}", f"{_T}test_a_refused_deletion_is_told"
)
SUSPENDED = Event(NORMAL, "Suspended", "Job suspended", f"{_T}test_suspend_and_resume")
RESUMED = Event(NORMAL, "Resumed", "Job resumed", f"{_T}test_suspend_and_resume")
COMPLETED = Event(NORMAL, "Completed", "Job completed", f"{_T}test_the_life_of_a_job")
TOO_MANY = Event(
    WARNING, "TooManySucceededPods",
    "Too many succeeded pods running after completion count reached",
    f"{_T}test_more_completions_than_asked_for",
)  # fmt: skip

_SUSPENDED, _RESUMED = "JobSuspended", "JobResumed"
IS_SUSPENDED = Condition(
    "Suspended", "True", _SUSPENDED, "Job suspended", f"{_T}test_suspend_and_resume"
)
IS_RESUMED = Condition(
    "Suspended", "False", _RESUMED, "Job resumed", f"{_T}test_suspend_and_resume"
)


def _ends(kind: str, reason: str, message: str, test: str) -> tuple[Condition, Condition]:
    """The condition that announces an end, and the one that says it has come."""
    first, last = (
        ("SuccessCriteriaMet", "Complete") if kind == "Complete" else ("FailureTarget", "Failed")
    )
    return Condition(first, "True", reason, message, test), Condition(
        last, "True", reason, message, test
    )


REACHED = _ends(
    "Complete", "CompletionsReached", "Reached expected number of succeeded pods",
    f"{_T}test_the_life_of_a_job",
)  # fmt: skip
SUCCESS_POLICY = _ends(
    "Complete", "SuccessPolicy", "Matched rules at index {index}",
    f"{_E}test_a_success_policy_ends_a_job",
)  # fmt: skip
LIMIT = _ends(
    "Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit",
    f"{_E}test_the_back_off_limit",
)  # fmt: skip
DEADLINE = _ends(
    "Failed", "DeadlineExceeded", "Job was active longer than specified deadline",
    f"{_E}test_the_active_deadline",
)  # fmt: skip
FAILURE_POLICY = _ends(
    "Failed", "PodFailurePolicy", "{why}", f"{_E}test_a_failure_policy_fails_a_job"
)
MAX_FAILED = _ends(
    "Failed", "MaxFailedIndexesExceeded",
    "Job has exceeded the specified maximal number of failed indexes",
    f"{_I}test_too_many_failed_indexes",
)  # fmt: skip
FAILED_INDEXES = _ends(
    "Failed", "FailedIndexes", "Job has failed indexes", f"{_I}test_a_failing_index"
)
_ALL = (REACHED, SUCCESS_POLICY, LIMIT, DEADLINE, FAILURE_POLICY, MAX_FAILED, FAILED_INDEXES)
FAILED = tuple(
    Event(WARNING, last.reason, last.message, last.test)
    for _, last in _ALL
    if last.type == "Failed"
)

FACTS = Facts(
    kind="Job",
    definition="io.k8s.api.batch.v1.Job",
    controller="job-controller",
    status=(
        Field("startTime", "when it began, or was resumed", f"{_T}test_the_life_of_a_job"),
        Field("completionTime", "when it was complete", f"{_T}test_the_life_of_a_job"),
        Field("active", "pods that neither ended nor are being deleted",
              f"{_T}test_the_life_of_a_job"),
        Field("ready", "of these, those that are ready", f"{_T}test_ready_pods_are_counted"),
        Field("terminating", "pods that are being deleted and have not ended",
              f"{_T}test_a_pod_that_is_deleted_is_replaced_at_once"),
        Field("succeeded", "pods that succeeded, each counted once",
              f"{_T}test_the_life_of_a_job"),
        Field("failed", "pods that failed, each counted once",
              f"{_E}test_the_back_off_limit"),
        Field("completedIndexes", "of an indexed Job: which are done",
              f"{_I}test_an_indexed_job"),
        Field("failedIndexes", "with a limit per index: which are given up",
              f"{_I}test_a_failing_index"),
        Field("uncountedTerminatedPods",
              "pods that have ended, are written down here, and not counted yet",
              f"{_T}test_a_finished_pod_is_booked_before_it_is_let_go"),
        Field("conditions", "see below", f"{_T}test_the_life_of_a_job"),
    ),
    conditions=(
        *(c for pair in _ALL for c in pair), IS_SUSPENDED, IS_RESUMED,
    ),
    events=(
        CREATED, CREATE_FAILED, DELETED, DELETE_FAILED, SUSPENDED, RESUMED, COMPLETED, TOO_MANY,
        *FAILED,
    ),
    labels=(
        Mark(job_pods.INDEX, "Pod", "its completion index", f"{_I}test_an_indexed_job"),
    ),
    annotations=(
        Mark(job_pods.INDEX, "Pod", "its completion index", f"{_I}test_an_indexed_job"),
        Mark(job_pods.FAILURES, "Pod", "how often its index failed before",
             f"{_I}test_a_failing_index"),
        Mark(job_pods.IGNORED_FAILURES, "Pod",
             "how often its index failed in a way that the policy ignores",
             f"{_I}test_ignored_failures_of_an_index"),
    ),
)  # fmt: skip
