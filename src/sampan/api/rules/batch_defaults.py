"""Defaults of Jobs and CronJobs, and the selector and labels a new Job gets."""

from __future__ import annotations

from sampan.api.obj import Body
from sampan.api.rules.podspec_defaults import default_template

CONTROLLER_UID = "batch.kubernetes.io/controller-uid"
JOB_NAME = "batch.kubernetes.io/job-name"
OLD_CONTROLLER_UID = "controller-uid"
OLD_JOB_NAME = "job-name"
INT32_MAX = 2**31 - 1


def job(body: Body) -> None:
    spec = body.get("spec")
    if not isinstance(spec, dict):
        spec = body["spec"] = {}
    if spec.get("completions") is None and spec.get("parallelism") is None:
        spec["completions"] = 1
    if spec.get("parallelism") is None:
        spec["parallelism"] = 1
    if spec.get("backoffLimit") is None:
        per_index = spec.get("backoffLimitPerIndex") is not None
        spec["backoffLimit"] = INT32_MAX if per_index else 6
    if not spec.get("completionMode"):
        spec["completionMode"] = "NonIndexed"
    for flag in ("suspend", "manualSelector"):
        if spec.get(flag) is None:
            spec[flag] = False
    policy = spec.get("podFailurePolicy")
    if not spec.get("podReplacementPolicy"):
        spec["podReplacementPolicy"] = "Failed" if policy is not None else "TerminatingOrFailed"
    _conditions(spec)
    _labels(body)
    default_template(spec.get("template"))


def _conditions(spec: Body) -> None:
    for rule in (spec.get("podFailurePolicy") or {}).get("rules") or ():
        for pattern in rule.get("onPodConditions") or ():
            if not pattern.get("status"):
                pattern["status"] = "True"


def _labels(body: Body) -> None:
    """A Job without labels shows those of its template."""
    template = (body.get("spec") or {}).get("template") or {}
    labels = (template.get("metadata") or {}).get("labels")
    meta = body.setdefault("metadata", {})
    if labels and not meta.get("labels"):
        meta["labels"] = dict(labels)


def cron_job(body: Body) -> None:
    spec = body.get("spec")
    if not isinstance(spec, dict):
        spec = body["spec"] = {}
    for name, value in (
        ("concurrencyPolicy", "Allow"), ("suspend", False), ("successfulJobsHistoryLimit", 3),
        ("failedJobsHistoryLimit", 1),
    ):  # fmt: skip
        if spec.get(name) in (None, ""):
            spec[name] = value
    inner = (spec.get("jobTemplate") or {}).get("spec") or {}
    _conditions(inner)
    default_template(inner.get("template"))


def create_job(body: Body) -> None:
    """No status yet; unless the selector is the user's own, one by the Job's uid is made, and the
    template's pods are labelled to fit it."""
    body["status"] = {}
    spec, meta = body.get("spec") or {}, body["metadata"]
    name, uid = meta.get("name") or "", meta.get("uid") or ""
    if spec.get("manualSelector"):
        return
    template = spec.get("template")
    if not isinstance(template, dict):
        return  # validation says so
    inner = template.get("metadata")
    if not isinstance(inner, dict):
        inner = template["metadata"] = {}
    labels = inner["labels"] = dict(inner.get("labels") or {})
    for key, value in (
        (OLD_JOB_NAME, name), (JOB_NAME, name), (OLD_CONTROLLER_UID, uid), (CONTROLLER_UID, uid),
    ):  # fmt: skip
        labels.setdefault(key, value)
    selector = spec["selector"] = dict(spec.get("selector") or {})
    matched = selector["matchLabels"] = dict(selector.get("matchLabels") or {})
    matched.setdefault(CONTROLLER_UID, uid)
    _labels(body)
