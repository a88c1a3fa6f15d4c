"""One pass over a Job: from it and its pods to the actions. Pure, one ``Pass`` per plan."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sampan.api.obj import Body, Key, Obj
from sampan.control.plan import Action, Again, Create, Delete, Emit, Patch, SetStatus
from sampan.controllers import job_end, job_pods
from sampan.controllers import pods as podlib
from sampan.controllers.job_end import End
from sampan.controllers.job_facts import (
    COMPLETED,
    CREATE_FAILED,
    CREATED,
    DELETE_FAILED,
    DELETED,
    FAILED,
    IS_RESUMED,
    IS_SUSPENDED,
    REACHED,
    RESUMED,
    SUSPENDED,
    TOO_MANY,
)
from sampan.controllers.job_pods import FINALIZER, is_tracked
from sampan.lib.clock import rfc3339
from sampan.lib.indexes import Indexes
from sampan.lib.selectors import from_label_selector

_BURST = 500  # creations or deletions of one pass
_MOST_UNCOUNTED = 500  # uids in the status, so that it stays small
_RESOURCE = "jobs.batch"


class Pass:
    """failures: pods failed in a row, the last at last_failure (epoch seconds)."""

    def __init__(
        self, job: Obj, owned: Sequence[Obj], adoptable: Sequence[Obj], *, failures: int,
        last_failure: float, now: float,
    ) -> None:  # fmt: skip
        self.job: Body = job.body
        self.spec: Body = job.spec
        self.now = now
        self.is_deleting = job.is_deleting
        self.is_suspended = bool(self.spec.get("suspend"))
        self._failures, self._last_failure = failures, last_failure
        self._claims: list[Action] = []
        self._removals: list[Action] = []
        self._creates: list[Create] = []
        self._told: list[Emit] = []
        self._agains: list[Again] = []
        self.pods = self._claim(owned, adoptable)
        self.active = [p for p in self.pods if podlib.is_active(p.body)]
        self._counts = {
            "active": len(self.active),
            "ready": sum(podlib.is_ready(p.body) for p in self.active),
            "terminating": sum(map(job_pods.is_terminating, self.pods)),
        }
        self.status: Body = {**job.status}
        self._conditions: list[Body] = list(self.status.get("conditions") or ())
        uncounted = self.status.get("uncountedTerminatedPods") or {}
        self._uncounted = {k: list(uncounted.get(k) or ()) for k in ("succeeded", "failed")}
        self.succeeded, self.failed = self._totals()
        self.completed_before = self.completed = self.given_up = Indexes()
        if job_pods.is_indexed(self.job):
            before, self.completed = job_pods.succeeded_indexes(self.job, self.pods)
            self.completed_before, self.succeeded = before, len(self.completed)
        self._held: dict[int, Obj] = {}
        if job_pods.has_limit_per_index(self.job):
            self.given_up = job_pods.failed_indexes(self.job, self.pods)
            self._held = job_pods.held_back(
                self.job, self.pods, self.active, self.completed | self.given_up
            )

    # ---- which pods are its own ----------------------------------------------------------------

    def _claim(self, owned: Sequence[Obj], adoptable: Sequence[Obj]) -> list[Obj]:
        """Its pods, the oldest first; others are let go, and orphans taken in."""
        selector = from_label_selector(self.spec.get("selector"))
        mine = [p for p in owned if selector.matches(p.labels)]
        if not self.is_deleting:
            self._claims += [self._let_go(p) for p in owned if not selector.matches(p.labels)]
            self._claims += [self._adopt(p) for p in adoptable]
        else:
            mine = list(owned)
        mine.sort(key=lambda p: (p.meta.get("creationTimestamp", ""), p.name))
        if job_pods.is_indexed(self.job):
            mine.sort(key=lambda p: -1 if (i := job_pods.index_of(p)) is None else i)
        return mine

    def _let_go(self, pod: Obj) -> Patch:
        meta = {
            "uid": pod.uid,
            "ownerReferences": [{"$patch": "delete", "uid": self.job["metadata"]["uid"]}],
            "$deleteFromPrimitiveList/finalizers": [FINALIZER],
        }
        return Patch(pod.key, {"metadata": meta}, "strategic")

    def _adopt(self, pod: Obj) -> Patch:
        """It counts from the next pass on, when it is seen with its owner and the finalizer."""
        ref = podlib.owner_reference(self.job, api_version="batch/v1", kind="Job")
        meta = {"uid": pod.uid, "ownerReferences": [ref], "finalizers": [FINALIZER]}
        return Patch(pod.key, {"metadata": meta}, "strategic")

    # ---- numbers -------------------------------------------------------------------------------

    def _totals(self) -> tuple[int, int]:
        """Pods that succeeded and that failed: counted, about to be, and new."""
        known = {u for uids in self._uncounted.values() for u in uids}
        new = [
            p for p in self.pods
            if is_tracked(p) and p.uid not in known and job_pods.has_valid_index(p, self.job)
        ]  # fmt: skip
        succeeded = sum(job_pods.phase(p) == "Succeeded" for p in new)
        failed = sum(
            job_pods.is_failed(p, self.job) and job_pods.judge(self.job, p).counts for p in new
        )
        return (
            self._count("succeeded") + len(self._uncounted["succeeded"]) + succeeded,
            self._count("failed") + len(self._uncounted["failed"]) + failed,
        )

    def _count(self, name: str) -> int:
        return int(self.status.get(name) or 0)

    # ---- the pass ------------------------------------------------------------------------------

    def actions(self) -> list[Action]:
        if not self.status.get("startTime") and not self.is_suspended:
            self.status["startTime"] = rfc3339(self.now)
        end = job_end.known(self._conditions) or job_end.new(self)
        if end is not None:
            self._end_active()
        else:
            if not self.is_deleting:
                self._manage()
            end = self._completions_reached()
            if end is None and not self.is_deleting:
                self._suspension()
        released = self._book(end)
        if released and self._creates:
            # First what ended is booked, then new ones are made: the pods' change wakes the Job.
            self._counts["active"] -= len(self._creates)
            self._creates = []
        if end is not None:
            self._announce(end)
            if not released:
                self._finish(end)
        return self._in_order(released)

    def _completions_reached(self) -> End | None:
        wanted = self.spec.get("completions")
        # Without a number one success is enough, once the others have ended by themselves.
        enough = self.succeeded > 0 if wanted is None else self.succeeded >= int(wanted)
        return End(REACHED) if enough and not self._counts["active"] else None

    def _in_order(self, released: list[Obj]) -> list[Action]:
        status = self._built(self._counts["active"])
        write = self._write(status)
        if self._creates:
            observed = self._write(self._built(self._counts["active"] - len(self._creates)))
            first = self._creates[0]
            told = first.failed

            def failed(error: str) -> Sequence[Action]:
                """The status does not wait for a creation that is refused every time."""
                return [*(told(error) if told else ()), *observed]

            self._creates[0] = Create(first.resource, first.body, failed, first.done)
        return [
            *self._claims, *self._removals, *self._creates, *write,
            *(_untrack(p) for p in released), *self._told, *self._agains,
        ]  # fmt: skip

    def _write(self, status: Body) -> list[Action]:
        if status == (self.job.get("status") or {}):
            return []
        return [SetStatus(_RESOURCE, {**self.job, "status": status})]

    def _built(self, active: int) -> Body:
        status = {**self.status, "ready": self._counts["ready"],
                  "terminating": self._counts["terminating"]}  # fmt: skip
        status["uncountedTerminatedPods"] = {k: v for k, v in self._uncounted.items() if v}
        for name, value in (("active", active), ("conditions", self._conditions)):
            status.pop(name, None)
            if value:
                status[name] = value
        for name in ("succeeded", "failed"):
            if not status.get(name):
                status.pop(name, None)
        return status

    # ---- how many run --------------------------------------------------------------------------

    def _manage(self) -> None:
        active = self._counts["active"]
        if self.is_suspended:
            self._remove(job_pods.for_removal(self.job, self.active, active))
            return
        wanted = self._wanted()
        surplus = job_pods.for_removal(self.job, self.active, max(0, active - wanted))
        if surplus:
            self._remove(surplus[:_BURST])
            return
        missing = wanted - active
        if job_pods.replaces_only_failed(self.job):
            missing -= self._counts["terminating"]
        if missing > 0:
            self._create(min(missing, _BURST))

    def _wanted(self) -> int:
        parallelism = int(self.spec.get("parallelism", 1))
        completions = self.spec.get("completions")
        if completions is None:
            return self._counts["active"] if self.succeeded else parallelism
        return max(0, min(parallelism, int(completions) - self.succeeded))

    def _create(self, missing: int) -> None:
        if not job_pods.has_limit_per_index(self.job):
            wait = job_pods.delay(self._failures, self._last_failure, self.now)
            if wait > 0:
                self._agains.append(Again(wait))
                return
        chosen: list[int | None] = [None] * missing
        if job_pods.is_indexed(self.job):
            chosen = list(self._ready_indexes(missing))
        self._creates = [self._new(i) for i in chosen]
        self._counts["active"] += len(self._creates)

    def _ready_indexes(self, missing: int) -> list[int]:
        """Indexes nobody has, whose back-off is over."""
        holders = list(self.active)
        if job_pods.replaces_only_failed(self.job):
            holders += [p for p in self.pods if job_pods.is_terminating(p)]
        taken = {i for p in holders if (i := job_pods.index_of(p)) is not None}
        gone = self.completed | self.given_up | Indexes.of(taken)
        pending = job_pods.pending_indexes(missing, int(self.spec.get("completions") or 0), gone)
        waits = {i: job_pods.delay_of_index(self._held.get(i), self.now) for i in pending}
        later = [w for w in waits.values() if w > 0]
        if later:
            self._agains.append(Again(min(later)))
        return [i for i in pending if not waits[i]]

    def _new(self, index: int | None) -> Create:
        job = self.job
        replaced = self._held.get(index) if index is not None else None
        return Create(
            "pods", job_pods.new_pod(job, index, replaced),
            failed=lambda e: [CREATE_FAILED.about(job, error=e)],
            done=lambda pod: [CREATED.about(job, pod=pod.name)],
        )  # fmt: skip

    def _remove(self, pods: Iterable[Obj]) -> None:
        """Delete running pods that do not count as failed for it."""
        for p in pods:
            if is_tracked(p):
                # Only as it was seen: it may have succeeded since.
                self._removals.append(_untrack(p, revision=p.revision))
            self._removals.append(self._delete(p))

    def _delete(self, pod: Obj) -> Delete:
        job, name = self.job, pod.name
        self._counts["active"] -= 1
        self._counts["terminating"] += 1
        self._counts["ready"] -= podlib.is_ready(pod.body)
        return Delete(
            pod.key, uid=pod.uid,
            done=lambda: [DELETED.about(job, pod=name)],
            failed=lambda e: [DELETE_FAILED.about(job, error=e)],
        )  # fmt: skip

    def _end_active(self) -> None:
        """Delete what still runs; the finalizers go when they are booked."""
        self._removals += [self._delete(p) for p in self.active]

    def _suspension(self) -> None:
        held = job_end.find(self._conditions, "Suspended")
        if self.is_suspended:
            if held is None or held["status"] != "True":
                self._set(job_end.condition(IS_SUSPENDED, self.now))
                self.status.pop("startTime", None)
                self._told.append(SUSPENDED.about(self.job))
        elif held is not None and held["status"] != "False":
            self._set(job_end.condition(IS_RESUMED, self.now))
            self.status["startTime"] = rfc3339(self.now)  # the deadline counts from here
            self._told.append(RESUMED.about(self.job))
        limit = self.spec.get("activeDeadlineSeconds")
        if limit is not None and not self.is_suspended:
            self._agains.append(Again(job_end.left(self.status, float(limit), self.now)))

    def _set(self, new: Body) -> None:
        kept = [c for c in self._conditions if c["type"] != new["type"]]
        self._conditions = [*kept, new]

    # ---- counting ------------------------------------------------------------------------------

    def _book(self, end: End | None) -> list[Obj]:
        """Count pods that are seen without the finalizer, write down those that have ended; the
        latter are returned: their finalizer may go once that is stored."""
        tracked = {p.uid for p in self.pods if is_tracked(p)}
        for kind, uids in self._uncounted.items():
            kept = [u for u in uids if u in tracked]
            self.status[kind] = self._count(kind) + len(uids) - len(kept)
            self._uncounted[kind] = kept
        released: list[Obj] = []
        completed: list[int] = []
        for p in self.pods:
            if not is_tracked(p) or not self._may_release(p, end):
                continue
            released.append(p)
            self._write_down(p, end, completed)
            written = sum(map(len, self._uncounted.values())) + len(completed)
            if written >= _MOST_UNCOUNTED:
                break
        if job_pods.is_indexed(self.job):
            done = self.completed_before | Indexes.of(completed)
            self.status["succeeded"] = len(done)
            self.status["completedIndexes"] = str(done)
            if not done:
                del self.status["completedIndexes"]
            if job_pods.has_limit_per_index(self.job):
                self.status["failedIndexes"] = str(self.given_up)
        return released

    def _may_release(self, pod: Obj, end: End | None) -> bool:
        if self.is_deleting or end is not None or job_pods.phase(pod) == "Succeeded":
            return True
        if not job_pods.is_failed(pod, self.job):
            return False
        index = job_pods.index_of(pod)
        held = self._held.get(index) if index is not None else None
        return held is None or held.uid != pod.uid

    def _write_down(self, pod: Obj, end: End | None, completed: list[int]) -> None:
        succeeded, failed = self._uncounted["succeeded"], self._uncounted["failed"]
        if not job_pods.has_valid_index(pod, self.job):
            return
        if job_pods.phase(pod) == "Succeeded" and pod.uid not in failed:
            if job_pods.is_indexed(self.job):
                # An index is its own mark: it is not counted again.
                completed.append(job_pods.index_of(pod) or 0)
            elif pod.uid not in succeeded:
                succeeded.append(pod.uid)
            return
        # When a Job has failed, whatever still ran has failed with it.
        lost = job_pods.is_failed(pod, self.job) or (end is not None and end.is_failure)
        if lost and pod.uid not in failed and job_pods.judge(self.job, pod).counts:
            failed.append(pod.uid)

    # ---- the end -------------------------------------------------------------------------------

    def _announce(self, end: End) -> None:
        first = end.pair[0]
        if job_end.find(self._conditions, first.type) is None:
            self._set(job_end.condition(first, self.now, end.values))

    def _finish(self, end: End) -> None:
        """Say that it has ended, once nothing of it is left to count or to wait for."""
        if any(self._uncounted.values()) or self._counts["terminating"] or self._counts["active"]:
            return
        last = end.pair[1]
        self._set(job_end.condition(last, self.now, end.values))
        self.status.setdefault("startTime", rfc3339(self.now))
        if end.is_failure:
            self._told.append(_failure(self.job, end))
            return
        self.status["completionTime"] = rfc3339(self.now)
        wanted = self.spec.get("completions")
        if wanted is not None and self._count("succeeded") > int(wanted):
            self._told.append(TOO_MANY.about(self.job))
        self._told.append(COMPLETED.about(self.job))


def _failure(job: Body, end: End) -> Emit:
    event = next(e for e in FAILED if e.reason == end.pair[1].reason)
    return event.about(job, **end.values)


def _untrack(pod: Obj, *, revision: int = 0) -> Patch:
    """Remove the finalizer. revision: only while the pod is as it was seen."""
    meta: dict[str, Any] = {
        "uid": pod.uid, "$deleteFromPrimitiveList/finalizers": [FINALIZER],
    }  # fmt: skip
    if revision:
        meta["resourceVersion"] = str(revision)
    return Patch(Key("pods", pod.namespace, pod.name), {"metadata": meta}, "strategic")
