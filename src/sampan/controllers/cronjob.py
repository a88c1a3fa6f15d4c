"""CronJob: Jobs by the clock (batch/v1 CronJob).

A Job's name is made of the minute it was due, so that no due time gives two Jobs, whatever happens
between creating one and writing it into the status.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import NamedTuple

from sampan.api.obj import Body, Key, Obj
from sampan.control.facts import NORMAL, WARNING, Event, Facts, Field, Mark
from sampan.control.plan import (
    Action,
    Again,
    Caches,
    Create,
    Delete,
    SetStatus,
    Trigger,
    own,
    owned,
)
from sampan.controllers import pods as podlib
from sampan.lib import cron
from sampan.lib.clock import parse_rfc3339, rfc3339

RESOURCE, JOBS = "cronjobs.batch", "jobs.batch"
SCHEDULED = "batch.kubernetes.io/cronjob-scheduled-timestamp"
_DELTA = 0.1  # woken this long after a due time, to be sure that it has come
_MANY = 100  # missed times from which on there is a warning
_T = "tests/controllers/test_cronjob.py::"

CREATED = Event(NORMAL, "SuccessfulCreate", "Created job {job}", f"{_T}test_a_due_job_is_created")
CREATE_FAILED = Event(
    WARNING, "FailedCreate", "Error creating job: {error}", f"{_T}test_a_refused_creation_is_told"
)
DELETED = Event(NORMAL, "SuccessfulDelete", "Deleted job {job}", f"{_T}test_history_limits")
DELETE_FAILED = Event(
    WARNING, "FailedDelete", "Deleted job: {error}", f"{_T}test_a_refused_deletion_is_told"
)
COMPLETED = Event(
    NORMAL, "SawCompletedJob", "Saw completed job: {job}, condition: {condition}",
    f"{_T}test_a_finished_job_leaves_the_active_ones",
)  # fmt: skip
UNEXPECTED = Event(
    WARNING, "UnexpectedJob", "Saw a job that the controller did not create or forgot: {job}",
    f"{_T}test_a_job_of_somebody_else_is_told",
)  # fmt: skip
MISSING = Event(
    NORMAL, "MissingJob", "Active job went missing: {job}",
    f"{_T}test_a_missing_job_leaves_the_active_ones",
)  # fmt: skip
ACTIVE = Event(
    NORMAL, "JobAlreadyActive",
    "Not starting job because prior execution is running and concurrency policy is Forbid",
    f"{_T}test_forbid",
)  # fmt: skip
MISSED = Event(
    WARNING, "MissSchedule", "Missed scheduled time to start a job: {time}",
    f"{_T}test_the_starting_deadline",
)  # fmt: skip
TOO_MANY = Event(
    WARNING, "TooManyMissedTimes",
    "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock "
    "skew",
    f"{_T}test_too_many_missed_times",
)  # fmt: skip
BAD_ZONE = Event(
    WARNING, "UnknownTimeZone", 'invalid timeZone: "{zone}": {error}', f"{_T}test_bad_schedules"
)
BAD_SCHEDULE = Event(
    WARNING, "UnparseableSchedule", 'unparseable schedule: "{schedule}" : {error}',
    f"{_T}test_bad_schedules",
)  # fmt: skip
NEVER = Event(
    WARNING, "InvalidSchedule", "invalid schedule: {schedule} : {error}", f"{_T}test_bad_schedules"
)
ZONE_IN_SCHEDULE = Event(
    WARNING, "UnsupportedSchedule",
    'CRON_TZ or TZ used in schedule "{schedule}" is not officially supported, see '
    "https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details",
    f"{_T}test_a_zone_in_the_schedule",
)  # fmt: skip

FACTS = Facts(
    kind="CronJob",
    definition="io.k8s.api.batch.v1.CronJob",
    controller="cronjob-controller",
    status=(
        Field("active", "references to the Jobs that run", f"{_T}test_a_due_job_is_created"),
        Field("lastScheduleTime", "the due time of the last Job",
              f"{_T}test_a_due_job_is_created"),
        Field("lastSuccessfulTime", "when the last one was complete",
              f"{_T}test_a_finished_job_leaves_the_active_ones"),
    ),
    events=(
        CREATED, CREATE_FAILED, DELETED, DELETE_FAILED, COMPLETED, UNEXPECTED, MISSING, ACTIVE,
        MISSED, TOO_MANY, BAD_ZONE, BAD_SCHEDULE, NEVER, ZONE_IN_SCHEDULE,
    ),
    annotations=(
        Mark(SCHEDULED, "Job", "the time it was due, by the clocks of spec.timeZone",
             f"{_T}test_a_due_job_is_created"),
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class View:
    """A CronJob and the Jobs it owns; names: of all Jobs of the namespace that are not its own."""

    cron: Obj
    jobs: tuple[Obj, ...]
    taken: frozenset[str]


class Due(NamedTuple):
    """The last time it was due since *earliest*; None: not at all. missed: about how many."""

    earliest: float
    last: float | None
    missed: int = 0


def end_of(job: Obj) -> str:
    """Complete, Failed, or '' while it runs."""
    for c in job.status.get("conditions") or ():
        if c["type"] in ("Complete", "Failed") and c["status"] == "True":
            return str(c["type"])
    return ""


def last_due(cron_job: Body, schedule: cron.Schedule, now: float, *, by_deadline: bool) -> Due:
    """When it was last due. by_deadline: times before startingDeadlineSeconds do not count.
    Raises cron.CronError for a schedule without times."""
    spec, status = cron_job["spec"], cron_job.get("status") or {}
    since = status.get("lastScheduleTime") or cron_job["metadata"]["creationTimestamp"]
    earliest = parse_rfc3339(since)
    deadline = spec.get("startingDeadlineSeconds")
    if by_deadline and deadline is not None:
        earliest = max(earliest, now - float(deadline))
    first = schedule.next(earliest)
    second = schedule.next(first) if first is not None else None
    if first is not None and now < first:
        return Due(earliest, None)
    if first is not None and second is not None and now < second:
        return Due(earliest, first)
    if first is None or second is None:
        raise cron.CronError("time difference between two schedules is less than 1 second")
    # From nearly there, not step by step: years may have passed. Times are not always as far
    # apart as the first two, so that it starts one step early.
    step = second - first
    missed = int((now - first) // step) + 1
    last = None
    t = schedule.next(first + (missed - 2) * step)
    while t is not None and t <= now:
        last, t = t, schedule.next(t)
    return Due(earliest, last, missed)


def until_next(cron_job: Body, schedule: cron.Schedule, now: float) -> float | None:
    """Seconds until it has to be looked at again."""
    try:
        due = last_due(cron_job, schedule, now, by_deadline=False)
    except cron.CronError:
        since = now
    else:
        since = due.last if due.last is not None else now if due.missed else due.earliest
    following = schedule.next(since)
    return None if following is None else max(0.0, following + _DELTA - now)


class CronJobController:
    """Creates a Job when one is due."""

    name = "cronjob-controller"
    workers = 5

    def __init__(self) -> None:
        self.triggers: tuple[Trigger, ...] = (own(RESOURCE), owned(JOBS, RESOURCE, "CronJob"))
        self.indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]] = {}

    def observe(self, key: Key, caches: Caches) -> View | None:
        found = caches[RESOURCE].get(key.namespace, key.name)
        if found is None:
            return None
        jobs = tuple(
            j for j in caches[JOBS].by("owner", found.uid)
            if (j.controller or {}).get("uid") == found.uid
        )  # fmt: skip
        own_names = {j.name for j in jobs}
        prefix = f"{key.name}-"
        taken = frozenset(
            j.name for j in caches[JOBS].list(key.namespace)
            if j.name.startswith(prefix) and j.name not in own_names
        )  # fmt: skip
        return View(found, jobs, taken)

    def plan(self, view: View, now: float) -> Sequence[Action]:
        return _Pass(view, now).actions()


class _Pass:
    """One pass over a CronJob."""

    def __init__(self, view: View, now: float) -> None:
        self._cron = view.cron.body
        self._spec: Body = view.cron.spec
        self._is_deleting = view.cron.is_deleting
        self._jobs = sorted(view.jobs, key=_by_start)
        self._taken = view.taken
        self._now = now
        self._told: list[Action] = []
        self._deletions: list[Action] = []
        self._again: list[Action] = []
        self._status: Body = {**view.cron.status}
        self._active: list[Body] = list(self._status.get("active") or ())

    def actions(self) -> list[Action]:
        self._look_at_jobs()
        create = None if self._is_deleting else self._due()
        if not self._is_deleting:
            self._tidy_up()
        before = [*self._told, *self._deletions]
        if create is not None:
            return [*before, create, *self._again]
        return [*before, *self._write(), *self._again]

    # ---- what has become of its Jobs -----------------------------------------------------------

    def _look_at_jobs(self) -> None:
        known = {j.uid for j in self._jobs}
        active = {r.get("uid") for r in self._active}
        for job in self._jobs:
            end = end_of(job)
            if job.uid not in active and not end:
                self._told.append(UNEXPECTED.about(self._cron, job=job.name))
            elif job.uid in active and end:
                self._forget(job.uid)
                told = COMPLETED.about(self._cron, job=job.name, condition=end)
                self._told.append(told)
            if end == "Complete":
                self._succeeded(job)
        for ref in list(self._active):
            if ref.get("uid") not in known:
                self._told.append(MISSING.about(self._cron, job=ref.get("name")))
                self._forget(ref.get("uid"))

    def _forget(self, uid: object) -> None:
        self._active = [r for r in self._active if r.get("uid") != uid]

    def _succeeded(self, job: Obj) -> None:
        at, last = job.status.get("completionTime"), self._status.get("lastSuccessfulTime")
        if at and (not last or parse_rfc3339(at) > parse_rfc3339(last)):
            self._status["lastSuccessfulTime"] = at

    # ---- whether one is due --------------------------------------------------------------------

    def _due(self) -> Create | None:
        schedule = self._schedule()
        if schedule is None:
            return None
        try:
            due = last_due(self._cron, schedule, self._now, by_deadline=True)
        except cron.CronError as e:
            text = self._spec.get("schedule")
            self._told.append(NEVER.about(self._cron, schedule=text, error=e))
            return None
        if due.last is not None and due.missed > _MANY:
            self._told.append(TOO_MANY.about(self._cron))
        wait = until_next(self._cron, schedule, self._now)
        if wait is not None:
            self._again = [Again(wait)]
        return None if due.last is None else self._start(due.last)

    def _schedule(self) -> cron.Schedule | None:
        """None where there is none to go by; an event says why."""
        zone, text = self._spec.get("timeZone"), self._spec.get("schedule") or ""
        try:
            cron.zone(zone or "")
        except cron.CronError as e:
            self._told.append(BAD_ZONE.about(self._cron, zone=zone, error=e))
            return None
        if self._spec.get("suspend"):
            return None
        if "TZ" in text:
            self._told.append(ZONE_IN_SCHEDULE.about(self._cron, schedule=text))
            zone = None
        try:
            return cron.parse(text, zone or "")
        except cron.CronError as e:
            self._told.append(BAD_SCHEDULE.about(self._cron, schedule=text, error=e))
            return None

    def _start(self, at: float) -> Create | None:
        deadline = self._spec.get("startingDeadlineSeconds")
        if deadline is not None and at + float(deadline) < self._now:
            told = format_datetime(datetime.fromtimestamp(at, UTC))
            self._told.append(MISSED.about(self._cron, time=told))
            return None
        name = f"{self._cron['metadata']['name']}-{int(at) // 60}"
        last = self._status.get("lastScheduleTime")
        if any(r.get("name") == name for r in self._active):
            return None
        if last and parse_rfc3339(last) == at:
            return None
        made = next((j for j in self._jobs if j.name == name), None)
        if made is not None:
            # It was created before, and the status could not be written.
            self._note(made, at)
            return None
        policy = self._spec.get("concurrencyPolicy")
        running = self._running()
        if policy == "Forbid" and (self._active or running):
            self._told.append(ACTIVE.about(self._cron))
            return None
        if policy == "Replace":
            for job in running:
                self._delete(job)
        if name in self._taken:
            return None  # somebody else's: whoever made it answers for it
        return self._create(name, at)

    def _running(self) -> list[Obj]:
        """Its Jobs that run: of the status, and those that a crash kept from being written there.
        What users made of its template by hand stands beside the schedule."""
        active = {r.get("uid") for r in self._active}
        return [
            j for j in self._jobs
            if not end_of(j) and (j.uid in active or SCHEDULED in j.annotations)
        ]  # fmt: skip

    def _create(self, name: str, at: float) -> Create:
        body = self._cron

        def done(job: Obj) -> Sequence[Action]:
            self._note(job, at)
            return [CREATED.about(body, job=job.name), *self._write()]

        return Create(
            JOBS, self._job(name, at), done=done,
            failed=lambda e: [CREATE_FAILED.about(body, error=e), *self._write()],
        )  # fmt: skip

    def _note(self, job: Obj, at: float) -> None:
        self._active = [*self._active, _reference(job)]
        self._status["lastScheduleTime"] = rfc3339(at)

    def _job(self, name: str, at: float) -> Body:
        template = copy.deepcopy(self._spec.get("jobTemplate") or {})
        given: Body = template.get("metadata") or {}
        zone = cron.zone(self._spec.get("timeZone") or "")
        local = datetime.fromtimestamp(at, zone).isoformat().replace("+00:00", "Z")
        meta: Body = {
            "name": name, "namespace": self._cron["metadata"]["namespace"],
            "annotations": {**(given.get("annotations") or {}), SCHEDULED: local},
            "ownerReferences": [
                podlib.owner_reference(self._cron, api_version="batch/v1", kind="CronJob")
            ],
        }  # fmt: skip
        if given.get("labels"):
            meta["labels"] = given["labels"]
        return {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta,
                "spec": template.get("spec") or {}}  # fmt: skip

    # ---- tidying up ----------------------------------------------------------------------------

    def _tidy_up(self) -> None:
        """Delete the oldest of the Jobs that ended, down to the history limits."""
        for end, limit in (
            ("Complete", self._spec.get("successfulJobsHistoryLimit")),
            ("Failed", self._spec.get("failedJobsHistoryLimit")),
        ):
            if limit is None:
                continue
            ended = [j for j in self._jobs if end_of(j) == end and not j.is_deleting]
            for job in ended[: max(0, len(ended) - int(limit))]:
                self._delete(job)

    def _delete(self, job: Obj) -> None:
        body, name = self._cron, job.name
        self._forget(job.uid)
        self._deletions.append(
            Delete(
                job.key, uid=job.uid, propagation="Background",
                done=lambda: [DELETED.about(body, job=name)],
                failed=lambda e: [DELETE_FAILED.about(body, error=e)],
            )
        )  # fmt: skip

    def _write(self) -> list[Action]:
        status = {k: v for k, v in self._status.items() if k != "active"}
        if self._active:
            status["active"] = self._active
        if status == (self._cron.get("status") or {}):
            return []
        return [SetStatus(RESOURCE, {**self._cron, "status": status})]


def _by_start(job: Obj) -> tuple[bool, str, str]:
    """By when it began; what has not begun comes last."""
    start = job.status.get("startTime") or ""
    return (not start, start, job.name)


def _reference(job: Obj) -> Body:
    return {
        "kind": "Job", "namespace": job.namespace, "name": job.name, "uid": job.uid,
        "apiVersion": "batch/v1", "resourceVersion": str(job.revision),
    }  # fmt: skip
