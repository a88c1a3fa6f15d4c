"""Pods whose Job is gone, or has ended without them: nobody will count them, so they are let go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sampan.api.obj import Key, Obj
from sampan.control.plan import Action, Caches, Patch, Trigger
from sampan.controllers.job import JobController, is_finished, is_ours
from sampan.controllers.job_pods import FINALIZER, is_tracked


@dataclass(frozen=True, slots=True)
class View:
    """A pod that carries the finalizer for nobody."""

    pod: Obj


class JobPodReleaser:
    """Removes the tracking finalizer of pods that no Job will book any more."""

    name = JobController.name
    workers = 2

    def __init__(self) -> None:
        self.triggers: tuple[Trigger, ...] = (
            Trigger("pods", lambda pod, _caches: (pod.key,) if is_tracked(pod) else ()),
            Trigger("jobs.batch", self._keys_of_job),
        )
        self.indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]] = {}

    @staticmethod
    def _keys_of_job(job: Obj, caches: Caches) -> Iterable[Key]:
        return [p.key for p in caches["pods"].by("owner", job.uid) if is_tracked(p)]

    def observe(self, key: Key, caches: Caches) -> View | None:
        pod = caches["pods"].get(key.namespace, key.name)
        if pod is None or not is_tracked(pod):
            return None
        ref = pod.controller
        if ref is not None:
            if ref.get("kind") != "Job" or ref.get("apiVersion") != "batch/v1":
                return None
            job = caches["jobs.batch"].get(pod.namespace, ref["name"])
            if job is not None and job.uid == ref.get("uid"):
                if not is_finished(job.body) or not is_ours(job.body):
                    return None
        return View(pod)

    def plan(self, view: View, now: float) -> Sequence[Action]:
        pod = view.pod
        meta = {"uid": pod.uid, "$deleteFromPrimitiveList/finalizers": [FINALIZER]}
        return [Patch(pod.key, {"metadata": meta}, "strategic")]
