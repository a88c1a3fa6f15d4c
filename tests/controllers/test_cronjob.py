"""CronJob plans: when a Job is due, what the concurrency policy makes of it, what is kept."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.api.obj import Body, Key, Obj
from sampan.api.rules import batch_defaults
from sampan.control.plan import Again, Create, Emit
from sampan.controllers.cronjob import SCHEDULED, CronJobController
from sampan.lib.clock import parse_rfc3339, rfc3339
from sampan.testing.plans import PlanWorld, Refused

KEY = Key("cronjobs.batch", "default", "tick")


def epoch(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


class CronWorld(PlanWorld):
    """One CronJob named tick, made at ten past nine."""

    def __init__(self, schedule: str = "0 * * * *", **spec: Any) -> None:
        self.controller = CronJobController()
        super().__init__(self.controller)
        self.now = epoch("2026-01-02T09:10:00")
        template = {"spec": {"template": {"spec": {
            "containers": [{"name": "c"}], "restartPolicy": "Never",
        }}}, "metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}}}  # fmt: skip
        body: Body = {
            "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "tick"},
            "spec": {"schedule": schedule, "jobTemplate": template, **spec},
        }  # fmt: skip
        batch_defaults.cron_job(body)
        self.add(KEY.resource, body)

    @property
    def cron(self) -> Body:
        return self.objects[KEY]

    @property
    def status(self) -> Body:
        found: Body = self.cron.get("status") or {}
        return found

    def at(self, text: str) -> None:
        """Move on to a time and let the controller work until it rests."""
        self.now = epoch(text) if "T" in text else epoch(f"2026-01-02T{text}")
        self.work()

    def work(self) -> None:
        for _ in range(20):
            self.again = None
            done = self.step(self.controller, KEY)
            if all(isinstance(a, Again | Emit) for a in done):
                return
        raise AssertionError("the controller does not come to rest")

    def jobs(self) -> list[Obj]:
        return list(self["jobs.batch"].list())

    def running(self) -> list[Obj]:
        return [j for j in self.jobs() if not j.status.get("conditions")]

    def end(self, job: Obj, kind: str = "Complete") -> None:
        at = rfc3339(self.now)
        status: Body = {"startTime": job.meta["creationTimestamp"],
                        "conditions": [{"type": kind, "status": "True"}]}  # fmt: skip
        if kind == "Complete":
            status["completionTime"] = at
        self.objects[job.key] = {**job.body, "status": status}

    def names(self) -> list[str]:
        return sorted(j.name for j in self.jobs())

    def reasons(self) -> list[str]:
        return [r for r, _ in self.events]


def name_of(text: str) -> str:
    return f"tick-{int(epoch(f'2026-01-02T{text}')) // 60}"


def test_a_due_job_is_created() -> None:
    w = CronWorld()
    w.work()
    assert w.jobs() == [] and w.again == pytest.approx(50 * 60 + 0.1)
    w.at("10:00:00")
    (job,) = w.jobs()
    assert job.name == name_of("10:00:00")
    assert job.meta["labels"] == {"a": "b"}
    assert job.annotations == {"c": "d", SCHEDULED: "2026-01-02T10:00:00Z"}
    assert job.controller == {
        "apiVersion": "batch/v1", "kind": "CronJob", "name": "tick",
        "uid": w.cron["metadata"]["uid"], "controller": True, "blockOwnerDeletion": True,
    }  # fmt: skip
    assert job.spec["template"]["spec"]["restartPolicy"] == "Never"
    (reference,) = w.status["active"]
    assert reference == {
        "kind": "Job", "namespace": "default", "name": job.name, "uid": job.uid,
        "apiVersion": "batch/v1", "resourceVersion": "1",
    }  # fmt: skip
    assert w.status["lastScheduleTime"] == "2026-01-02T10:00:00Z"
    assert w.events == [("SuccessfulCreate", f"Created job {job.name}")]
    assert w.again == pytest.approx(3600.1)


def test_the_annotation_speaks_of_the_zone() -> None:
    w = CronWorld("30 11 * * *", timeZone="Europe/Berlin")
    w.at("10:30:00")
    (job,) = w.jobs()
    assert job.annotations[SCHEDULED] == "2026-01-02T11:30:00+01:00"
    assert job.name == name_of("10:30:00")


def test_a_finished_job_leaves_the_active_ones() -> None:
    w = CronWorld()
    w.at("10:00:00")
    (job,) = w.jobs()
    w.now += 60
    w.end(job)
    w.work()
    assert "active" not in w.status
    assert w.status["lastSuccessfulTime"] == "2026-01-02T10:01:00Z"
    told = f"Saw completed job: {job.name}, condition: Complete"
    assert w.events[-1] == ("SawCompletedJob", told)


def test_a_failed_job_is_no_success() -> None:
    w = CronWorld()
    w.at("10:00:00")
    w.end(w.jobs()[0], "Failed")
    w.work()
    assert "lastSuccessfulTime" not in w.status and "active" not in w.status


def test_a_missing_job_leaves_the_active_ones() -> None:
    w = CronWorld()
    w.at("10:00:00")
    (job,) = w.jobs()
    del w.objects[job.key]
    w.work()
    assert "active" not in w.status
    assert ("MissingJob", f"Active job went missing: {job.name}") in w.events
    assert w.jobs() == [], "its time has been used"


def test_a_job_of_somebody_else_is_told() -> None:
    """As ``kubectl create job --from`` makes them: it stands beside the schedule."""
    w = CronWorld(concurrencyPolicy="Forbid")
    w.at("10:00:00")
    (job,) = w.jobs()
    w.end(job)
    meta = {**job.meta, "name": "by-hand", "uid": "u-hand", "annotations": {}}
    body = {k: v for k, v in job.body.items() if k != "status"}
    w.objects[Key("jobs.batch", "default", "by-hand")] = {**body, "metadata": meta}
    w.work()
    told = "Saw a job that the controller did not create or forgot: by-hand"
    assert ("UnexpectedJob", told) in w.events
    w.at("11:00:00")
    assert name_of("11:00:00") in w.names()


def test_allow() -> None:
    w = CronWorld()
    w.at("10:00:00")
    w.at("11:00:00")
    assert len(w.running()) == 2 and len(w.status["active"]) == 2


def test_forbid() -> None:
    w = CronWorld(concurrencyPolicy="Forbid")
    w.at("10:00:00")
    w.at("11:00:00")
    assert len(w.jobs()) == 1
    assert w.events[-1] == (
        "JobAlreadyActive",
        "Not starting job because prior execution is running and concurrency policy is Forbid",
    )
    w.now += 120
    w.end(w.jobs()[0])
    w.work()
    assert w.names() == [name_of("10:00:00"), name_of("11:00:00")], "late rather than never"


def test_replace() -> None:
    w = CronWorld(concurrencyPolicy="Replace")
    w.at("10:00:00")
    w.at("11:00:00")
    assert w.names() == [name_of("11:00:00")]
    assert len(w.status["active"]) == 1
    assert w.reasons() == ["SuccessfulCreate", "SuccessfulDelete", "SuccessfulCreate"]


@pytest.mark.parametrize(("deadline", "created"), [(None, True), (1800, True), (600, False)])
def test_the_starting_deadline(deadline: int | None, created: bool) -> None:
    w = CronWorld(startingDeadlineSeconds=deadline)
    w.at("10:20:00")
    assert (len(w.jobs()) == 1) == created
    assert w.again == pytest.approx(40 * 60 + 0.1)


def test_a_time_missed_by_a_moment_is_told() -> None:
    """The deadline is counted from now, the due time is in whole seconds."""
    w = CronWorld(startingDeadlineSeconds=10)
    w.now = epoch("2026-01-02T10:00:10.5")
    view = w.controller.observe(KEY, w)
    assert view is not None
    assert not any(isinstance(a, Create) for a in w.controller.plan(view, w.now))


def test_suspended() -> None:
    w = CronWorld(suspend=True)
    w.at("10:00:00")
    assert w.jobs() == [] and w.again is None
    w.cron["spec"]["suspend"] = False
    w.at("10:05:00")
    assert w.names() == [name_of("10:00:00")], "the last missed time is made up for"


def test_only_the_last_missed_time_is_made_up_for() -> None:
    w = CronWorld()
    w.at("15:30:00")
    assert w.names() == [name_of("15:00:00")]
    assert "TooManyMissedTimes" not in w.reasons()


def test_too_many_missed_times() -> None:
    w = CronWorld("* * * * *")
    w.at("10:51:00")
    assert w.names() == [name_of("10:51:00")]
    assert ("TooManyMissedTimes",
            "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check "
            "clock skew") in w.events  # fmt: skip


def test_times_at_uneven_distances() -> None:
    w = CronWorld("30 6-16/4 * * 1-5")
    w.at("2026-01-12T15:00:00")
    assert w.names() == [f"tick-{int(epoch('2026-01-12T14:30:00')) // 60}"]


def test_every() -> None:
    w = CronWorld("@every 1h30m")
    w.at("10:39:59")
    assert w.jobs() == []
    w.at("10:40:00")
    w.at("12:10:00")
    assert w.names() == [name_of("10:40:00"), name_of("12:10:00")]


@pytest.mark.parametrize(
    ("spec", "event"),
    [
        ({"schedule": "x"}, ("UnparseableSchedule",
         'unparseable schedule: "x" : expected exactly 5 fields, found 1: [x]')),
        ({"timeZone": "No/Where"}, ("UnknownTimeZone",
         'invalid timeZone: "No/Where": unknown time zone No/Where')),
        ({"schedule": "59 23 31 2 *"}, ("InvalidSchedule",
         "invalid schedule: 59 23 31 2 * : time difference between two schedules is less than 1 "
         "second")),
    ],
)  # fmt: skip
def test_bad_schedules(spec: Body, event: tuple[str, str]) -> None:
    w = CronWorld()
    w.cron["spec"].update(spec)
    w.at("10:00:00")
    assert w.events == [event] and w.jobs() == []


def test_a_zone_in_the_schedule() -> None:
    w = CronWorld()
    w.cron["spec"]["schedule"] = "TZ=Asia/Tokyo 30 19 * * *"
    w.at("10:30:00")
    assert w.names() == [name_of("10:30:00")]
    assert w.reasons()[0] == "UnsupportedSchedule"


def test_history_limits() -> None:
    w = CronWorld("0 * * * *", successfulJobsHistoryLimit=2, failedJobsHistoryLimit=1)
    kept = {"Complete": 2, "Failed": 1}
    for hour in range(10, 18):
        w.at(f"{hour}:00:00")
        w.end(w.running()[0], "Failed" if hour % 2 else "Complete")
        w.work()
    for kind, limit in kept.items():
        found = [j for j in w.jobs() if j.status["conditions"][0]["type"] == kind]
        assert len(found) == limit
    assert w.names() == [name_of(f"{h}:00:00") for h in (14, 16, 17)]
    assert ("SuccessfulDelete", f"Deleted job {name_of('10:00:00')}") in w.events


def test_without_limits_everything_is_kept() -> None:
    w = CronWorld()
    for name in ("successfulJobsHistoryLimit", "failedJobsHistoryLimit"):
        w.cron["spec"][name] = None
    for hour in range(10, 18):
        w.at(f"{hour}:00:00")
        w.end(w.running()[0])
        w.work()
    assert len(w.jobs()) == 8


def test_a_refused_creation_is_told() -> None:
    w = CronWorld()
    w.refuse = lambda _key: "no more"
    w.now = epoch("2026-01-02T10:00:00")
    w.step(w.controller, KEY)
    assert w.events == [("FailedCreate", "Error creating job: no more")]
    assert "lastScheduleTime" not in w.status
    w.refuse = lambda _key: ""
    w.at("10:00:05")
    assert w.names() == [name_of("10:00:00")]


def test_a_refused_deletion_is_told() -> None:
    w = CronWorld(concurrencyPolicy="Replace")
    w.at("10:00:00")
    w.refuse_delete = lambda _key: "not now"
    w.now = epoch("2026-01-02T11:00:00")
    w.step(w.controller, KEY)
    assert ("FailedDelete", "Deleted job: not now") in w.events
    assert w.names() == [name_of("10:00:00")], "and no second one runs beside it"


def test_a_crash_between_creating_and_noting() -> None:
    w = CronWorld(concurrencyPolicy="Forbid")
    w.at("10:00:00")
    w.cron["status"] = {}
    w.controller = CronJobController()
    w.work()
    assert w.names() == [name_of("10:00:00")]
    assert [r["name"] for r in w.status["active"]] == w.names()
    w.cron["status"] = {}
    w.at("11:00:00")
    assert w.names() == [name_of("10:00:00")], "it still runs"


def test_a_name_that_is_taken_is_left_alone() -> None:
    w = CronWorld()
    meta = {"name": name_of("10:00:00"), "namespace": "default", "uid": "u-other"}
    w.objects[Key("jobs.batch", "default", meta["name"])] = {"metadata": meta, "spec": {}}
    w.at("10:00:00")
    assert w.reasons() == [] and "active" not in w.status
    w.at("11:00:00")
    assert name_of("11:00:00") in w.names()


def test_one_that_is_being_deleted_starts_nothing() -> None:
    w = CronWorld()
    w.cron["metadata"]["deletionTimestamp"] = rfc3339(w.now)
    w.at("10:00:00")
    assert w.jobs() == []


SCHEDULES = st.sampled_from(["* * * * *", "*/7 * * * *", "0 * * * *", "@every 90s", "5 9-11 * * *"])
STEPS = st.lists(
    st.tuples(st.sampled_from(["pass", "crash", "end", "fail", "drop"]), st.integers(1, 4000)),
    max_size=40,
)


@settings(max_examples=80, deadline=None)
@given(SCHEDULES, st.sampled_from(["Allow", "Forbid", "Replace"]), STEPS)
def test_random_histories(schedule: str, policy: str, steps: list[tuple[str, int]]) -> None:
    """Whatever ends and crashes: Forbid and Replace never overlap, no due time runs twice, every
    Job is of a due time, and left alone it comes to rest."""
    w = CronWorld(schedule, concurrencyPolicy=policy)
    created: list[str] = []
    before = w.status
    for what, n in steps:
        w.now += n
        if what in ("end", "fail") and w.running():
            w.end(w.running()[n % len(w.running())], "Complete" if what == "end" else "Failed")
        # One that is deleted before it was noted is not known to have been.
        noted = [j for j in w.jobs() if any(r["uid"] == j.uid for r in w.status.get("active", ()))]
        if what == "drop" and noted:
            del w.objects[noted[n % len(noted)].key]
        view = w.controller.observe(KEY, w)
        actions = list(w.controller.plan(view, w.now)) if view is not None else []
        writes = n % 3 if what == "crash" else None
        for action in actions:
            if writes == 0:
                break
            if isinstance(action, Create):
                created.append(action.body["metadata"]["name"])
                if writes == 1:  # made, and killed before it could be noted
                    w.add("jobs.batch", action.body)
                    break
            try:
                w.run(action)
            except Refused:
                break
            if writes is not None and not isinstance(action, Emit | Again):
                writes -= 1
        if what == "crash":
            w.controller = CronJobController()
        if policy != "Allow":
            assert len(w.running()) <= 1
        last = before.get("lastScheduleTime")
        if last:
            assert parse_rfc3339(w.status["lastScheduleTime"]) >= parse_rfc3339(last)
        before = dict(w.status)
    assert len(created) == len(set(created)), "no due time runs twice"
    w.work()
    assert not any(isinstance(a, Create) for a in w.step(w.controller, KEY))


def test_a_year_in_a_zone_that_changes_its_clocks() -> None:
    """Every day at half past two in Berlin: not on the day the hour is left out, twice on the day
    it comes twice."""
    w = CronWorld("30 2 * * *", timeZone="Europe/Berlin", successfulJobsHistoryLimit=400)
    end = w.now + 365 * 86400
    w.work()
    while w.again is not None and w.now + w.again < end:
        w.now += w.again
        w.work()
        for job in w.running():
            w.end(job)
        w.work()
    days = [j.annotations[SCHEDULED][:10] for j in w.jobs()]
    assert len(days) == 365
    assert "2026-03-29" not in days
    assert days.count("2026-10-25") == 2
    assert len(set(days)) == 364
