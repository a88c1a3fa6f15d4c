"""Validation of a Job's status: what its controller, ours or another (``managedBy``), may tell.

A rule is asked only when what it is about changed: a status that was wrong before does not stop
other changes, and a Job that was just scaled down gets time to follow.
"""

from __future__ import annotations

from typing import Any

from sampan.api.errors import Cause
from sampan.api.obj import Body
from sampan.api.rules.field import (
    IMMUTABLE,
    duplicate,
    invalid,
    non_negative,
    required,
)
from sampan.lib import indexes
from sampan.lib.clock import parse_rfc3339
from sampan.lib.indexes import Indexes, IndexesError

_FINAL = ("Complete", "Failed")


def _is(status: Body, kind: str) -> bool:
    return any(
        c.get("type") == kind and c.get("status") == "True"
        for c in status.get("conditions") or ()
    )  # fmt: skip


def _is_finished(status: Body) -> bool:
    return any(_is(status, kind) for kind in _FINAL)


def _conditions(why: str) -> Cause:
    return Cause("status.conditions", "FieldValueInvalid", f"Invalid value: {why}")


def validate_job_status(new: Body, old: Body) -> list[Cause]:
    after, before, spec = new.get("status") or {}, old.get("status") or {}, new.get("spec") or {}
    found: list[Cause] = []
    for name in ("active", "succeeded", "failed", "ready", "terminating"):
        found += non_negative(f"status.{name}", after.get(name))
    found += _uncounted(after)
    found += _together(after, before)
    found += _times(after, before)
    found += _finished(after, before)
    found += _indexes(after, before, spec)
    return found + _transitions(after, before, spec)


def _uncounted(after: Body) -> list[Cause]:
    found: list[Cause] = []
    seen: set[str] = set()
    for kind in ("succeeded", "failed"):
        for i, uid in enumerate((after.get("uncountedTerminatedPods") or {}).get(kind) or ()):
            at = f"status.uncountedTerminatedPods.{kind}[{i}]"
            if not uid:
                found.append(invalid(at, uid, "must not be empty"))
            elif uid in seen:
                found.append(duplicate(at, uid))
            seen.add(uid)
    return found


def _changed(after: Body, before: Body, *names: str) -> bool:
    return any(after.get(n) != before.get(n) for n in names)


def _turned(after: Body, before: Body, *kinds: str) -> bool:
    return any(_is(after, kind) != _is(before, kind) for kind in kinds)


def _together(after: Body, before: Body) -> list[Cause]:
    """Conditions that exclude, or need, each other."""
    complete, failed = _is(after, "Complete"), _is(after, "Failed")
    target, met = _is(after, "FailureTarget"), _is(after, "SuccessCriteriaMet")
    found: list[Cause] = []
    if complete and failed and _turned(after, before, "Complete", "Failed"):
        found.append(_conditions("cannot set Complete=True and Failed=true conditions"))
    if complete and target and _turned(after, before, "Complete", "FailureTarget"):
        found.append(_conditions("cannot set Complete=True and FailureTarget=true conditions"))
    if failed and not target:
        if _turned(after, before, "Failed") or _changed(after, before, "failedIndexes"):
            why = "cannot set Failed=True condition without the FailureTarget=true condition"
            found.append(_conditions(why))
    if complete and not met and _turned(after, before, "Complete", "SuccessCriteriaMet"):
        why = "cannot set Complete=True condition without the SuccessCriteriaMet=true condition"
        found.append(_conditions(why))
    if met and failed:
        found.append(_conditions("cannot set SuccessCriteriaMet=True and Failed=true conditions"))
    if met and target:
        why = "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions"
        found.append(_conditions(why))
    return found


def _times(after: Body, before: Body) -> list[Cause]:
    complete, end, start = (
        _is(after, "Complete"),
        after.get("completionTime"),
        after.get("startTime"),
    )
    found: list[Cause] = []
    if _turned(after, before, "Complete") or _changed(after, before, "completionTime"):
        path = "status.completionTime"
        if end and not complete:
            why = "cannot set completionTime when there is no Complete=True condition"
            found.append(invalid(path, end, why))
        if complete and not end:
            found.append(required(path, "completionTime is required for Complete jobs"))
    if start and end and _changed(after, before, "startTime", "completionTime"):
        if parse_rfc3339(end) < parse_rfc3339(start):
            why = "must be equal to or after `startTime`"
            found.append(invalid("status.completionTime", end, why))
    return found


def _finished(after: Body, before: Body) -> list[Cause]:
    """A Job that ended has nothing left that runs, ends, or waits to be counted."""
    if not _is_finished(after):
        return []
    ended = not _is_finished(before)
    found: list[Cause] = []
    for name in ("active", "terminating"):
        if after.get(name) and (ended or _changed(after, before, name)):
            why = f"{name}>0 is invalid for finished job"
            found.append(invalid(f"status.{name}", after[name], why))
    if not after.get("startTime") and (ended or _changed(after, before, "startTime")):
        found.append(required("status.startTime", "startTime is required for finished job"))
    uncounted = after.get("uncountedTerminatedPods") or {}
    if uncounted.get("succeeded") or uncounted.get("failed"):
        if ended or _changed(after, before, "uncountedTerminatedPods"):
            why = "must be empty for finished job"
            found.append(invalid("status.uncountedTerminatedPods", uncounted, why))
    return found


def _indexes(after: Body, before: Body, spec: Body) -> list[Cause]:
    completed, failed = after.get("completedIndexes") or "", after.get("failedIndexes")
    completions = spec.get("completions")
    found: list[Cause] = []

    def readable(name: str, text: str) -> None:
        try:
            indexes.check(text, int(completions or 0))
        except IndexesError as e:
            found.append(invalid(f"status.{name}", text, f"error parsing {name}: {e}"))

    completed_changed = (before.get("completedIndexes") or "") != completed
    failed_changed = _changed(after, before, "failedIndexes")
    if completed_changed and completions is not None:
        readable("completedIndexes", completed)
    if completed_changed and completed and spec.get("completionMode") != "Indexed":
        why = "cannot set non-empty completedIndexes when non-indexed completion mode"
        found.append(invalid("status.completedIndexes", completed, why))
    per_index = spec.get("backoffLimitPerIndex") is not None
    if failed_changed and failed is not None:
        if not per_index:
            why = "cannot set non-null failedIndexes when backoffLimitPerIndex is null"
            found.append(invalid("status.failedIndexes", failed, why))
        elif completions is not None:
            readable("failedIndexes", failed)
    if (failed_changed or completed_changed) and failed and completions is not None:
        limit = int(completions)
        both = Indexes.parse(completed, limit) & Indexes.parse(failed, limit)
        if both:
            why = f"failedIndexes and completedIndexes overlap at index: {next(iter(both))}"
            found.append(invalid("status.failedIndexes", failed, why))
    if _changed(after, before, "ready", "active"):
        ready = after.get("ready")
        if ready is not None and ready > (after.get("active") or 0):
            why = "cannot set more ready pods than active"
            found.append(invalid("status.ready", ready, why))
    return found


def _transitions(after: Body, before: Body, spec: Body) -> list[Cause]:
    """What was told does not become untrue."""
    found: list[Cause] = []
    for kind in ("Failed", "Complete", "FailureTarget"):
        if _is(before, kind) and not _is(after, kind):
            found.append(_conditions(f"cannot disable the terminal {kind}=True condition"))
    if _is(before, "SuccessCriteriaMet") and not _is(after, "SuccessCriteriaMet"):
        found.append(_conditions("cannot disable the SuccessCriteriaMet=True condition"))
    elastic = spec.get("completionMode") == "Indexed" and spec.get("completions") == spec.get(
        "parallelism"
    )
    for name, may_fall in (("failed", False), ("succeeded", elastic)):
        if not may_fall and _count(after, name) < _count(before, name):
            why = f"cannot decrease the {name} counter"
            found.append(invalid(f"status.{name}", _count(after, name), why))
    was, now = before.get("completionTime"), after.get("completionTime")
    if was and now and was != now:
        found.append(invalid("status.completionTime", now, IMMUTABLE))
    began = before.get("startTime")
    if began and after.get("startTime") != began and not spec.get("suspend"):
        why = "startTime cannot be removed for unsuspended job"
        found.append(required("status.startTime", why))
    return found


def _count(status: Body, name: str) -> Any:
    return status.get(name) or 0
