"""Job: pods that are to succeed (batch/v1 Job).

Every pod carries a finalizer until it is counted, and it is counted in two steps: its uid is
written into the status (``uncountedTerminatedPods``), then the finalizer is removed; once it is
seen gone, the uid becomes a number. Whatever comes between any two of these writes, no pod is
counted twice or forgotten. One plan either books pods that ended or creates new ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sampan.api.obj import Body, Key, Obj
from sampan.control.plan import Action, Caches, Trigger, own
from sampan.controllers import job_pods
from sampan.controllers import pods as podlib
from sampan.controllers.job_pass import Pass
from sampan.lib.selectors import from_label_selector

NAME = "kubernetes.io/job-controller"
RESOURCE = "jobs.batch"


@dataclass(frozen=True, slots=True)
class View:
    """A Job, the pods it owns and those it may adopt; how many of its pods failed in a row since
    the last one that succeeded, and when the last of them did."""

    job: Obj
    owned: tuple[Obj, ...]
    adoptable: tuple[Obj, ...] = ()
    failures: int = 0
    last_failure: float = 0.0


def is_finished(job: Body) -> bool:
    """Whether it is complete or failed."""
    return any(
        c["type"] in ("Complete", "Failed") and c["status"] == "True"
        for c in (job.get("status") or {}).get("conditions") or ()
    )


def is_ours(job: Body) -> bool:
    """Whether no other controller is asked to look after it."""
    return (job["spec"].get("managedBy") or NAME) == NAME


class JobController:
    """Runs pods until enough of them have succeeded."""

    name = "job-controller"
    workers = 5

    def __init__(self) -> None:
        self.triggers: tuple[Trigger, ...] = (own(RESOURCE), Trigger("pods", self._keys_of_pod))
        self.indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]] = {
            "pods": {"orphan": podlib.orphan_namespace}
        }
        self._ends: dict[Key, _Ends] = {}

    @staticmethod
    def _keys_of_pod(pod: Obj, caches: Caches) -> Iterable[Key]:
        ref = pod.controller
        if ref is not None:
            if ref.get("kind") == "Job":
                yield Key(RESOURCE, pod.namespace, ref["name"])
        elif not pod.is_deleting:
            for job in caches[RESOURCE].list(pod.namespace):
                if from_label_selector(job.spec.get("selector")).matches(pod.labels):
                    yield job.key

    def observe(self, key: Key, caches: Caches) -> View | None:
        job = caches[RESOURCE].get(key.namespace, key.name)
        if job is None or is_finished(job.body) or not is_ours(job.body):
            self._ends.pop(key, None)
            return None
        pods = caches["pods"]
        owned = tuple(
            p for p in pods.by("owner", job.uid) if (p.controller or {}).get("uid") == job.uid
        )
        adoptable: tuple[Obj, ...] = ()
        if not job.is_deleting:
            selector = from_label_selector(job.spec.get("selector"))
            adoptable = tuple(
                p for p in pods.by("orphan", key.namespace)
                if selector.matches(p.labels) and not p.is_deleting
            )  # fmt: skip
        ends = self._ends.get(key)
        if ends is None or ends.uid != job.uid:
            ends = self._ends[key] = _Ends(job.uid)
        ends.see(job.body, owned)
        return View(job, owned, adoptable, *ends.in_a_row())

    def plan(self, view: View, now: float) -> Sequence[Action]:
        return Pass(
            view.job, view.owned, view.adoptable, failures=view.failures,
            last_failure=view.last_failure, now=now,
        ).actions()  # fmt: skip


class _Ends:
    """When the pods of one Job ended, and how: of those that are there, and of those that were
    seen before they were deleted. It only slows down replacements, so it may be forgotten."""

    def __init__(self, uid: str) -> None:
        self.uid = uid
        self._failed: dict[str, float] = {}
        self._last_success = -1.0

    def see(self, job: Body, pods: Iterable[Obj]) -> None:
        for p in pods:
            # A pod without the finalizer that is being deleted was let go on purpose.
            if not job_pods.is_tracked(p) and p.is_deleting:
                continue
            if job_pods.phase(p) == "Succeeded":
                self._last_success = max(self._last_success, job_pods.finished_at(p))
            elif job_pods.is_failed(p, job) and job_pods.has_valid_index(p, job):
                self._failed[p.uid] = job_pods.finished_at(p)
        self._failed = {u: t for u, t in self._failed.items() if t > self._last_success}

    def in_a_row(self) -> tuple[int, float]:
        return len(self._failed), max(self._failed.values(), default=0.0)
