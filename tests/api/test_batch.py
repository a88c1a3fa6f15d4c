"""Jobs and CronJobs: defaults, every fault with its exact path and words, columns."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from sampan.api.catalogue import builtin
from sampan.lib.clock import parse_rfc3339

REGISTRY = builtin()
JOB, CRON = REGISTRY.get("jobs.batch"), REGISTRY.get("cronjobs.batch")
TEMPLATE: dict[str, Any] = {
    "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x:1"}]}
}


def job(**spec: Any) -> dict[str, Any]:
    """As it is stored."""
    body: dict[str, Any] = {
        "metadata": {"name": "pi", "uid": "u-1"},
        "spec": {"template": copy.deepcopy(TEMPLATE), **copy.deepcopy(spec)},
    }
    JOB.rules.default(body)
    JOB.rules.prepare_create(body)
    return body


def cron(**spec: Any) -> dict[str, Any]:
    body: dict[str, Any] = {
        "metadata": {"name": "tick"},
        "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": TEMPLATE}}, **spec},
    }
    body = copy.deepcopy(body)
    CRON.rules.default(body)
    return body


def problems(body: dict[str, Any]) -> list[str]:
    return [str(c) for c in JOB.rules.validate(body)]


def cron_problems(body: dict[str, Any]) -> list[str]:
    return [str(c) for c in CRON.rules.validate(body) + CRON.rules.validate_create(body)]


def test_defaults() -> None:
    body = job()
    assert {k: v for k, v in body["spec"].items() if k != "template"} == {
        "completions": 1, "parallelism": 1, "backoffLimit": 6, "completionMode": "NonIndexed",
        "suspend": False, "manualSelector": False, "podReplacementPolicy": "TerminatingOrFailed",
        "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": "u-1"}},
    }  # fmt: skip
    labels = {
        "controller-uid": "u-1", "batch.kubernetes.io/controller-uid": "u-1", "job-name": "pi",
        "batch.kubernetes.io/job-name": "pi",
    }  # fmt: skip
    assert body["spec"]["template"]["metadata"]["labels"] == labels
    assert body["metadata"]["labels"] == labels
    assert body["status"] == {}
    assert problems(body) == []


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"parallelism": 3}, {"parallelism": 3, "completions": None}),
        ({"completions": 3}, {"parallelism": 1, "completions": 3}),
        ({"completionMode": "Indexed", "completions": 2, "backoffLimitPerIndex": 1},
         {"backoffLimit": 2147483647}),
        ({"podFailurePolicy": {"rules": [
            {"action": "Count", "onPodConditions": [{"type": "A"}]}]}},
         {"podReplacementPolicy": "Failed", "podFailurePolicy": {"rules": [
             {"action": "Count", "onPodConditions": [{"type": "A", "status": "True"}]}]}}),
    ],
)  # fmt: skip
def test_more_defaults(spec: dict[str, Any], expected: dict[str, Any]) -> None:
    found = job(**spec)["spec"]
    assert {k: found.get(k) for k in expected} == expected


def test_labels_of_the_user_are_shown_as_they_were_given() -> None:
    template = copy.deepcopy(TEMPLATE)
    template["metadata"] = {"labels": {"a": "b"}}
    body = job(template=template)
    assert body["metadata"]["labels"] == {"a": "b"}
    assert body["spec"]["template"]["metadata"]["labels"]["a"] == "b"


def test_a_selector_of_the_user() -> None:
    template = copy.deepcopy(TEMPLATE)
    template["metadata"] = {"labels": {"a": "b"}}
    good = job(manualSelector=True, selector={"matchLabels": {"a": "b"}}, template=template)
    assert problems(good) == []
    assert good["spec"]["template"]["metadata"]["labels"] == {"a": "b"}
    assert problems(job(manualSelector=True, template=template)) == [
        "spec.selector: Required value",
        'spec.template.metadata.labels: Invalid value: {"a":"b"}: `selector` does not match '
        "template `labels`",
    ]


def test_a_selector_that_is_not_its_own() -> None:
    body = job(selector={"matchLabels": {"a": "b"}})
    assert problems(body) == [
        'spec.selector: Invalid value: {"matchLabels":{"a":"b",'
        '"batch.kubernetes.io/controller-uid":"u-1"}}: `selector` not auto-generated',
        "spec.template.metadata.labels: Invalid value: "
        '{"job-name":"pi","batch.kubernetes.io/job-name":"pi","controller-uid":"u-1",'
        '"batch.kubernetes.io/controller-uid":"u-1"}: `selector` does not match template `labels`',
    ]


def rules(*found: dict[str, Any]) -> dict[str, Any]:
    return {"podFailurePolicy": {"rules": list(found)}}


def codes(*values: int, operator: str = "In", **more: Any) -> dict[str, Any]:
    return {"action": "FailJob", "onExitCodes": {"operator": operator, "values": [*values], **more}}


AT = "spec.podFailurePolicy.rules[0]"
INDEXED = {"completionMode": "Indexed", "completions": 5}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"parallelism": -1}, [
            "spec.parallelism: Invalid value: -1: must be greater than or equal to 0"]),
        ({"completions": -1, "backoffLimit": -2, "ttlSecondsAfterFinished": -3}, [
            "spec.completions: Invalid value: -1: must be greater than or equal to 0",
            "spec.backoffLimit: Invalid value: -2: must be greater than or equal to 0",
            "spec.ttlSecondsAfterFinished: Invalid value: -3: must be greater than or equal to 0"]),
        ({"completionMode": "Other"}, [
            'spec.completionMode: Unsupported value: "Other": supported values: "NonIndexed", '
            '"Indexed"']),
        ({"completionMode": "Indexed", "parallelism": 1}, [
            "spec.completions: Required value: when completion mode is Indexed"]),
        ({"completionMode": "Indexed", "completions": 1, "parallelism": 100001}, [
            "spec.parallelism: Invalid value: 100001: must be less than or equal to 100000 when "
            "completion mode is Indexed"]),
        ({"backoffLimitPerIndex": 1}, [
            "spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode"]),
        ({**INDEXED, "maxFailedIndexes": 6}, [
            "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified",
            "spec.maxFailedIndexes: Invalid value: 6: must be less than or equal to completions"]),
        ({**INDEXED, "completions": 100001, "backoffLimitPerIndex": 1}, [
            "spec.maxFailedIndexes: Required value: must be specified when completions is above "
            "100000"]),
        ({"managedBy": "me"}, [
            'spec.managedBy: Invalid value: "me": must be a domain-prefixed path (such as '
            '"acme.io/foo")']),
        ({"managedBy": "acme.io/" + "x" * 60}, [
            "spec.managedBy: Too long: may not be more than 63 bytes"]),
        ({"podReplacementPolicy": "Never"}, [
            'spec.podReplacementPolicy: Unsupported value: "Never": supported values: "Failed", '
            '"TerminatingOrFailed"']),
        ({**rules(codes(1)), "podReplacementPolicy": "TerminatingOrFailed"}, [
            'spec.podReplacementPolicy: Unsupported value: "TerminatingOrFailed": supported '
            'values: "Failed"']),
        (rules({}), [
            f'{AT}.action: Required value: valid values: ["Count" "FailIndex" "FailJob" "Ignore"]',
            f"{AT}: Invalid value: specifying one of OnExitCodes and OnPodConditions is required"]),
        (rules({**codes(1), "action": "FailIndex"}), [
            f'{AT}.action: Invalid value: "FailIndex": requires the backoffLimitPerIndex to be '
            "set"]),
        (rules({**codes(1), "onPodConditions": [{"type": "A", "status": "No"}]}), [
            f'{AT}.onPodConditions[0].status: Unsupported value: "No": supported values: "False", '
            '"True", "Unknown"',
            f"{AT}: Invalid value: specifying both OnExitCodes and OnPodConditions is not "
            "supported"]),
        (rules(codes(0, 3, 3, 2, containerName="x")), [
            f'{AT}.onExitCodes.containerName: Invalid value: "x": must be one of the container or '
            "initContainer names in the pod template",
            f"{AT}.onExitCodes.values[0]: Invalid value: 0: must not be 0 for the In operator",
            f"{AT}.onExitCodes.values[2]: Duplicate value: 3",
            f"{AT}.onExitCodes.values: Invalid value: [0,3,3,2]: must be ordered"]),
        (rules(codes(operator="")), [
            f'{AT}.onExitCodes.operator: Required value: valid values: ["In" "NotIn"]',
            f"{AT}.onExitCodes.values: Invalid value: []: at least one value is required"]),
        ({"successPolicy": {"rules": []}}, [
            'spec.successPolicy: Invalid value: {"rules":[]}: requires indexed completion mode']),
        ({**INDEXED, "successPolicy": {"rules": []}}, [
            "spec.successPolicy.rules: Required value: at least one rules must be specified when "
            "the successPolicy is specified"]),
        ({**INDEXED, "successPolicy": {"rules": [
            {}, {"succeededIndexes": "0-9"}, {"succeededIndexes": "0-2", "succeededCount": 6}]}}, [
            "spec.successPolicy.rules[0]: Required value: at least one of succeededCount or "
            "succeededIndexes must be specified",
            'spec.successPolicy.rules[1].succeededIndexes: Invalid value: "0-9": error parsing '
            'succeededIndexes: too large index: "9"',
            "spec.successPolicy.rules[2].succeededCount: Invalid value: 6: must be less than or "
            "equal to 5 (the number of specified completions)",
            "spec.successPolicy.rules[2].succeededCount: Invalid value: 6: must be less than or "
            "equal to 3 (the number of indexes in the specified succeededIndexes field)"]),
    ],
)  # fmt: skip
def test_faults(spec: dict[str, Any], expected: list[str]) -> None:
    assert problems(job(**spec)) == expected


@pytest.mark.parametrize(
    ("policy", "spec", "expected"),
    [
        (None, {}, ['Required value: valid values: "OnFailure", "Never"']),
        ("Always", {}, ['Required value: valid values: "OnFailure", "Never"']),
        ("OnFailure", {}, []),
        ("OnFailure", rules(codes(1)), [
            'Invalid value: "OnFailure": only "Never" is supported when podFailurePolicy is '
            "specified"]),
    ],
)  # fmt: skip
def test_restart_policies(policy: str | None, spec: dict[str, Any], expected: list[str]) -> None:
    template = copy.deepcopy(TEMPLATE)
    template["spec"]["restartPolicy"] = policy
    found = problems(job(template=template, **spec))
    assert found == [f"spec.template.spec.restartPolicy: {e}" for e in expected]


def test_names_make_host_names() -> None:
    body = job(**INDEXED)
    body["metadata"]["name"] = "x" * 62
    assert [p for p in problems(body) if p.startswith("metadata")] == [
        f'metadata.name: Invalid value: "{"x" * 62}": will not able to create pod with invalid DNS '
        f"label: {'x' * 62}-4"
    ]


def updated(old: dict[str, Any], **change: Any) -> list[str]:
    new = copy.deepcopy(old)
    new["spec"].update(change)
    return [str(c) for c in JOB.rules.validate_update(new, old)]


def test_what_may_not_change() -> None:
    old = job(completions=3)
    immutable = "field is immutable"
    assert updated(old, parallelism=9, suspend=True, backoffLimit=3) == []
    assert updated(old, completions=4) == [f"spec.completions: Invalid value: 4: {immutable}"]
    assert updated(old, selector={}) == [f"spec.selector: Invalid value: {{}}: {immutable}"]
    assert updated(old, completionMode="Indexed")[-1].startswith("spec.completionMode")
    for name in ("podFailurePolicy", "managedBy", "successPolicy", "backoffLimitPerIndex"):
        (found,) = updated(old, **{name: "x"})
        assert found == f'spec.{name}: Invalid value: "x": {immutable}'


def test_indexed_jobs_are_elastic() -> None:
    old = job(completionMode="Indexed", completions=3, parallelism=3)
    assert updated(old, completions=5, parallelism=5) == []
    assert updated(old, completions=5) == [
        "spec.completions: Invalid value: 5: can only be modified in tandem with spec.parallelism"
    ]


@pytest.mark.parametrize(
    ("status", "suspend", "ok"),
    [
        ({}, True, True), ({}, False, False), ({"startTime": "2026-01-01T00:00:00Z"}, True, False),
        ({"startTime": "2026-01-01T00:00:00Z",
          "conditions": [{"type": "Suspended", "status": "True"}]}, True, True),
        ({"startTime": "2026-01-01T00:00:00Z", "active": 1,
          "conditions": [{"type": "Suspended", "status": "True"}]}, True, False),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "change",
    [
        {"nodeSelector": {"a": "b"}}, {"tolerations": [{"operator": "Exists"}]},
        {"schedulingGates": [{"name": "x"}]}, {"affinity": {"nodeAffinity": {}}},
        {"containers": [{"name": "c", "image": "x:1", "resources": {"requests": {"cpu": "1"}}}]},
    ],
)  # fmt: skip
def test_the_template_of_a_suspended_job(
    status: dict[str, Any], suspend: bool, ok: bool, change: dict[str, Any]
) -> None:
    old = job(suspend=suspend)
    old["status"] = status
    container = old["spec"]["template"]["spec"]["containers"][0]
    template = copy.deepcopy(old["spec"]["template"])
    template["spec"].update(copy.deepcopy(change))
    if "containers" in change:
        resources = change["containers"][0]["resources"]
        template["spec"]["containers"] = [{**container, "resources": resources}]
    if "affinity" in change:
        template["spec"]["affinity"] = {"nodeAffinity": {"requiredX": [1]}}
    found = updated(old, template=template)
    assert (found == []) == ok
    template["spec"]["containers"] = [{**container, "image": "other"}]
    assert updated(old, template=template)


# ---- status --------------------------------------------------------------------------------------

T0, T1 = "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"


def true(*kinds: str) -> list[dict[str, str]]:
    return [{"type": k, "status": "True"} for k in kinds]


DONE = {
    "conditions": true("SuccessCriteriaMet", "Complete"), "startTime": T0, "completionTime": T1,
    "succeeded": 1,
}  # fmt: skip
CONDITIONS = "status.conditions: Invalid value:"


@pytest.mark.parametrize(
    ("new", "old", "expected"),
    [
        (DONE, {}, []),
        ({"active": -1}, {}, [
            "status.active: Invalid value: -1: must be greater than or equal to 0"]),
        ({"active": 1, "ready": 2}, {}, [
            "status.ready: Invalid value: 2: cannot set more ready pods than active"]),
        ({"uncountedTerminatedPods": {"succeeded": ["a", ""], "failed": ["a"]}}, {}, [
            'status.uncountedTerminatedPods.succeeded[1]: Invalid value: "": must not be empty',
            'status.uncountedTerminatedPods.failed[0]: Duplicate value: "a"']),
        ({**DONE, "conditions": true("Complete")}, {}, [
            f"{CONDITIONS} cannot set Complete=True condition without the SuccessCriteriaMet=true "
            "condition"]),
        ({"conditions": true("Failed"), "startTime": T0}, {}, [
            f"{CONDITIONS} cannot set Failed=True condition without the FailureTarget=true "
            "condition"]),
        ({"conditions": true("FailureTarget", "SuccessCriteriaMet")}, {}, [
            f"{CONDITIONS} cannot set SuccessCriteriaMet=True and FailureTarget=true conditions"]),
        ({**DONE, "completionTime": None}, {}, [
            "status.completionTime: Required value: completionTime is required for Complete jobs"]),
        ({"completionTime": T1}, {}, [
            f'status.completionTime: Invalid value: "{T1}": cannot set completionTime when there '
            "is no Complete=True condition"]),
        ({**DONE, "startTime": T1, "completionTime": T0}, {}, [
            f'status.completionTime: Invalid value: "{T0}": must be equal to or after '
            "`startTime`"]),
        ({**DONE, "active": 1, "startTime": None}, {}, [
            "status.active: Invalid value: 1: active>0 is invalid for finished job",
            "status.startTime: Required value: startTime is required for finished job"]),
        ({**DONE, "uncountedTerminatedPods": {"failed": ["a"]}}, {}, [
            'status.uncountedTerminatedPods: Invalid value: {"failed":["a"]}: must be empty for '
            "finished job"]),
        ({"succeeded": 1}, {"succeeded": 2}, [
            "status.succeeded: Invalid value: 1: cannot decrease the succeeded counter"]),
        ({}, {"conditions": true("FailureTarget"), "failed": 1}, [
            f"{CONDITIONS} cannot disable the terminal FailureTarget=True condition",
            "status.failed: Invalid value: 0: cannot decrease the failed counter"]),
        ({"startTime": T1}, {"startTime": T0}, [
            "status.startTime: Required value: startTime cannot be removed for unsuspended job"]),
        ({"completedIndexes": "1"}, {}, [
            'status.completedIndexes: Invalid value: "1": error parsing completedIndexes: too '
            'large index: "1"',
            'status.completedIndexes: Invalid value: "1": cannot set non-empty completedIndexes '
            "when non-indexed completion mode"]),
        ({"failedIndexes": ""}, {}, [
            'status.failedIndexes: Invalid value: "": cannot set non-null failedIndexes when '
            "backoffLimitPerIndex is null"]),
        # What was wrong before is no reason to refuse something else.
        ({"conditions": true("Complete"), "ready": 0, "succeeded": 3},
         {"conditions": true("Complete"), "ready": 0}, []),
    ],
)  # fmt: skip
def test_status(new: dict[str, Any], old: dict[str, Any], expected: list[str]) -> None:
    after, before = {**job(), "status": new}, {**job(), "status": old}
    assert [str(c) for c in JOB.rules.validate_status(after, before)] == expected


def test_indexes_may_not_be_both() -> None:
    base = job(**INDEXED, backoffLimitPerIndex=1)
    after = {**base, "status": {"completedIndexes": "0-2", "failedIndexes": "2,4"}}
    assert [str(c) for c in JOB.rules.validate_status(after, base)] == [
        'status.failedIndexes: Invalid value: "2,4": failedIndexes and completedIndexes overlap '
        "at index: 2"
    ]


# ---- CronJob -------------------------------------------------------------------------------------


def test_cron_defaults() -> None:
    body = cron()
    assert {k: v for k, v in body["spec"].items() if k not in ("jobTemplate", "schedule")} == {
        "concurrencyPolicy": "Allow", "suspend": False, "successfulJobsHistoryLimit": 3,
        "failedJobsHistoryLimit": 1,
    }  # fmt: skip
    inner = body["spec"]["jobTemplate"]["spec"]
    assert inner["template"]["spec"]["dnsPolicy"] == "ClusterFirst"
    assert set(inner) == {"template"}, "the Job's own defaults come when it is made"
    assert cron_problems(body) == []


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"schedule": ""}, ["spec.schedule: Required value"]),
        ({"schedule": "x"}, [
            'spec.schedule: Invalid value: "x": expected exactly 5 fields, found 1: [x]']),
        ({"schedule": "TZ=UTC * * * * *"}, [
            'spec.schedule: Invalid value: "TZ=UTC * * * * *": cannot use TZ or CRON_TZ in '
            "schedule, use timeZone field instead"]),
        ({"timeZone": ""}, [
            'spec.timeZone: Invalid value: "": timeZone must be nil or non-empty string']),
        ({"timeZone": "Europe/../x"}, [
            'spec.timeZone: Invalid value: "Europe/../x": unknown time zone Europe/../x']),
        ({"timeZone": "Middle/Earth"}, [
            'spec.timeZone: Invalid value: "Middle/Earth": unknown time zone Middle/Earth']),
        ({"timeZone": "Local"}, [
            'spec.timeZone: Invalid value: "Local": timeZone must be an explicit time zone as '
            "defined in https://www.iana.org/time-zones"]),
        ({"timeZone": "Europe/Berlin"}, []),
        ({"concurrencyPolicy": "No"}, [
            'spec.concurrencyPolicy: Unsupported value: "No": supported values: "Allow", "Forbid", '
            '"Replace"']),
        ({"startingDeadlineSeconds": -1, "failedJobsHistoryLimit": -1}, [
            "spec.startingDeadlineSeconds: Invalid value: -1: must be greater than or equal to 0",
            "spec.failedJobsHistoryLimit: Invalid value: -1: must be greater than or equal to 0"]),
        ({"jobTemplate": {"spec": {"template": TEMPLATE, "manualSelector": True,
                                   "selector": {}}}}, [
            "spec.jobTemplate.spec.selector: Invalid value: {}: `selector` will be auto-generated",
            "spec.jobTemplate.spec.manualSelector: Unsupported value: true: supported values: "
            '"nil", "false"']),
        ({"jobTemplate": {}}, ["spec.jobTemplate.spec.template: Required value"]),
    ],
)  # fmt: skip
def test_cron_faults(spec: dict[str, Any], expected: list[str]) -> None:
    assert cron_problems(cron(**spec)) == expected


def test_cron_names_leave_room() -> None:
    body = cron()
    body["metadata"]["name"] = "x" * 53
    assert cron_problems(body) == [
        f'metadata.name: Invalid value: "{"x" * 53}": must be no more than 52 bytes'
    ]
    assert [str(c) for c in CRON.rules.validate_update(body, body)] == []


def test_a_zone_in_an_old_schedule_may_stay() -> None:
    old = cron(schedule="TZ=UTC * * * * *")
    assert CRON.rules.validate_update(old, old) == []
    (found,) = CRON.rules.validate_update(cron(schedule="TZ=UTC * * * * *", timeZone="UTC"), old)
    assert "cannot use both timeZone field and TZ or CRON_TZ in schedule" in str(found)


# ---- columns -------------------------------------------------------------------------------------


def row(t: Any, body: dict[str, Any], now: str) -> list[Any]:
    return [c.cell(body, parse_rfc3339(now)) for c in t.columns]


@pytest.mark.parametrize(
    ("spec", "status", "shown"),
    [
        ({}, {}, ["Running", "0/1", ""]),
        ({"completions": 5}, {"succeeded": 2, "startTime": T0}, ["Running", "2/5", "60s"]),
        ({"parallelism": 3}, {"startTime": T0}, ["Running", "0/1 of 3", "60s"]),
        ({"parallelism": 1}, {}, ["Running", "0/1", ""]),
        ({}, DONE, ["Complete", "1/1", "60s"]),
        ({}, {"conditions": true("FailureTarget")}, ["FailureTarget", "0/1", ""]),
        ({}, {"conditions": true("FailureTarget", "Failed")}, ["Failed", "0/1", ""]),
        ({}, {"conditions": true("Suspended")}, ["Suspended", "0/1", ""]),
        ({}, {"conditions": true("SuccessCriteriaMet")}, ["SuccessCriteriaMet", "0/1", ""]),
    ],
)
def test_job_columns(spec: dict[str, Any], status: dict[str, Any], shown: list[str]) -> None:
    body = {**job(**spec), "status": status}
    body["metadata"]["creationTimestamp"] = T0
    assert row(JOB, body, T1) == [
        "pi", *shown, "60s", "c", "x:1", "batch.kubernetes.io/controller-uid=u-1",
    ]  # fmt: skip
    assert [c.name for c in JOB.columns] == [
        "Name", "Status", "Completions", "Duration", "Age", "Containers", "Images", "Selector",
    ]  # fmt: skip


def test_cron_columns() -> None:
    body = cron(timeZone="Asia/Tokyo")
    body["metadata"]["creationTimestamp"] = T0
    body["status"] = {"lastScheduleTime": T0, "active": [{}]}
    assert row(CRON, body, T1) == [
        "tick", "* * * * *", "Asia/Tokyo", "False", 1, "60s", "60s", "c", "x:1", "<none>",
    ]  # fmt: skip
    assert row(CRON, cron(suspend=True), T1)[2:6] == ["<none>", "True", 0, "<none>"]
