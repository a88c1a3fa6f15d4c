"""A Job and its pods in a PlanWorld, for the tests of the Job controller."""

from __future__ import annotations

from typing import Any

from sampan.api.obj import Body, Key, Obj
from sampan.api.rules import batch_defaults
from sampan.control.plan import Action
from sampan.controllers.job import JobController
from sampan.lib.clock import rfc3339
from sampan.testing.plans import PlanWorld

KEY = Key("jobs.batch", "default", "pi")


class JobWorld(PlanWorld):
    """One Job named pi; its pods do what the test says."""

    def __init__(self, *, restart: str = "Never", **spec: Any) -> None:
        self.controller = JobController()
        super().__init__(self.controller)
        body: Body = {
            "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "pi"},
            "spec": {**spec, "template": {
                "spec": {"containers": [{"name": "c"}], "restartPolicy": restart},
            }},
        }  # fmt: skip
        batch_defaults.job(body)
        made = self.add(KEY.resource, body)
        batch_defaults.create_job(made)

    @property
    def job(self) -> Body:
        return self.objects[KEY]

    @property
    def status(self) -> Body:
        found: Body = self.job.get("status") or {}
        return found

    def pass_(self) -> list[Action]:
        """One pass of the controller; its actions."""
        self.again = None
        return list(self.step(self.controller, KEY))

    def settle(self) -> int:
        """Passes until one does nothing; how many there were."""
        for i in range(50):
            if not any(type(a).__name__ != "Again" for a in self.pass_()):
                return i
        raise AssertionError("the controller does not come to rest")

    def pods(self, phase: str = "") -> list[Obj]:
        return [
            p for p in self["pods"].list()
            if not phase or p.status.get("phase", "Pending") == phase
        ]  # fmt: skip

    def active(self) -> list[Obj]:
        return [p for p in self.pods("Pending") + self.pods("Running") if not p.is_deleting]

    def pod(self, index: int) -> Obj:
        """The youngest pod of an index."""
        mark = "batch.kubernetes.io/job-completion-index"
        return [p for p in self.pods() if p.annotations.get(mark) == str(index)][-1]

    def set(self, pod: Obj, phase: str, *, code: int = 0, ready: bool = False, **more: Any) -> None:
        """Give a pod its phase, as its node would. code: of its one container, once it ended."""
        at = rfc3339(self.now)
        status: Body = {"phase": phase, **more}
        if ready:
            status["conditions"] = [
                {"type": "Ready", "status": "True", "lastTransitionTime": at}
            ]  # fmt: skip
        if phase in ("Succeeded", "Failed"):
            ended = {"exitCode": code, "finishedAt": at}
            status["containerStatuses"] = [{"name": "c", "state": {"terminated": ended}}]
        body = self.objects[pod.key]
        self.objects[pod.key] = {**body, "status": status}

    def end(self, *pods: Obj, code: int = 0) -> None:
        for p in pods:
            self.set(p, "Failed" if code else "Succeeded", code=code)

    def condition(self, kind: str) -> Body | None:
        return next((c for c in self.status.get("conditions") or () if c["type"] == kind), None)

    def is_true(self, kind: str) -> bool:
        found = self.condition(kind)
        return found is not None and found["status"] == "True"

    def reasons(self) -> list[str]:
        return [reason for reason, _ in self.events]
