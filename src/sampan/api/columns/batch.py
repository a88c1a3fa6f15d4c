"""Columns of Jobs and CronJobs."""

from __future__ import annotations

from sampan.api.columns.cells import (
    AGE,
    NAME,
    NONE,
    container_images,
    container_names,
    dig,
    since,
    text,
)
from sampan.api.obj import Body
from sampan.api.resource import Column
from sampan.lib.clock import parse_rfc3339
from sampan.lib.duration import human
from sampan.lib.selectors import format_label_selector


def _status(body: Body, _now: float) -> str:
    """The furthest of the conditions."""
    conditions = dig(body, "status.conditions", [])
    true = {c.get("type") for c in conditions if c.get("status") == "True"}
    for kind in ("Complete", "Failed"):
        if kind in true:
            return kind
    if dig(body, "metadata.deletionTimestamp"):
        return "Terminating"
    for kind in ("Suspended", "FailureTarget", "SuccessCriteriaMet"):
        if kind in true:
            return kind
    return "Running"


def _completions(body: Body, _now: float) -> str:
    succeeded = dig(body, "status.succeeded", 0)
    wanted = dig(body, "spec.completions")
    if wanted is not None:
        return f"{succeeded}/{wanted}"
    parallelism = dig(body, "spec.parallelism", 0)
    return f"{succeeded}/1 of {parallelism}" if parallelism > 1 else f"{succeeded}/1"


def _duration(body: Body, now: float) -> str:
    start, end = dig(body, "status.startTime"), dig(body, "status.completionTime")
    if not start:
        return ""
    return human((parse_rfc3339(end) if end else now) - parse_rfc3339(start))


def _wide(spec: str) -> tuple[Column, ...]:
    """Containers, images and selector of the JobSpec at a path."""
    return (
        Column(
            "Containers",
            lambda body, _now: container_names(dig(body, f"{spec}.template.spec", {})),
            priority=1,
            description="Names of each container in the template.",
        ),
        Column(
            "Images",
            lambda body, _now: container_images(dig(body, f"{spec}.template.spec", {})),
            priority=1,
            description="Images referenced by each container in the template.",
        ),
        Column(
            "Selector",
            lambda body, _now: format_label_selector(dig(body, f"{spec}.selector")),
            priority=1,
            description="Which pods are counted as its own.",
        ),
    )


JOB = (
    NAME,
    Column("Status", _status, description="What has become of the job."),
    Column("Completions", _completions, description="Pods that succeeded, of those asked for."),
    Column("Duration", _duration, description="How long it took, or has taken so far."),
    AGE,
    *_wide("spec"),
)

CRON_JOB = (
    NAME,
    text("Schedule", "spec.schedule", about="When it runs, in Cron format."),
    text("Timezone", "spec.timeZone", NONE, about="By which clocks; those of UTC if unset."),
    Column(
        "Suspend",
        lambda body, _now: "True" if dig(body, "spec.suspend", False) else "False",
        type="boolean",
        description="Whether further runs are suspended.",
    ),
    Column(
        "Active",
        lambda body, _now: len(dig(body, "status.active", [])),
        type="integer",
        description="How many of its jobs run.",
    ),
    Column(
        "Last Schedule",
        lambda body, now: (
            since(last, now) if (last := dig(body, "status.lastScheduleTime")) else NONE
        ),
        description="When it was last due and ran.",
    ),
    AGE,
    *_wide("spec.jobTemplate.spec"),
)
