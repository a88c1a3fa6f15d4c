"""Jobs over random histories: pods end as they like, users meddle, and the controller is killed
between any two of its writes and started anew."""

from __future__ import annotations

from typing import Any

from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from sampan.api.obj import Obj
from sampan.api.rules.batch_status import validate_job_status
from sampan.control.plan import Again, Emit
from sampan.controllers import pods as podlib
from sampan.controllers.job import JobController
from sampan.controllers.job_pods import INDEX, is_tracked
from sampan.lib.indexes import Indexes
from sampan.testing.job_world import KEY, JobWorld

PICK = st.integers(0, 1000)


class JobMachine(RuleBasedStateMachine):
    """What the pods did is remembered here, apart from the controller."""

    def __init__(self) -> None:
        super().__init__()
        self.succeeded: set[str] = set()
        self.let_go: set[str] = set()  # uids that a removal took out of the count on purpose
        self.clean = True  # nobody but the controller has removed pods or finalizers

    @initialize(
        completions=st.integers(1, 6), parallelism=st.integers(1, 4), indexed=st.booleans(),
        per_index=st.booleans(), failed_only=st.booleans(), graceful=st.booleans(),
        limit=st.sampled_from([0, 2, 100]),
    )  # fmt: skip
    def begin(
        self, completions: int, parallelism: int, indexed: bool, per_index: bool,
        failed_only: bool, graceful: bool, limit: int,
    ) -> None:  # fmt: skip
        spec: dict[str, Any] = {"completions": completions, "parallelism": parallelism}
        spec["backoffLimit"] = limit
        if indexed:
            spec["completionMode"] = "Indexed"
            if per_index:
                spec["backoffLimitPerIndex"] = min(limit, 2)
                spec["backoffLimit"] = 2**31 - 1
        spec["podReplacementPolicy"] = "Failed" if failed_only else "TerminatingOrFailed"
        self.w = JobWorld(**spec)
        self.w.graceful = graceful
        self.before = dict(self.w.status)

    # ---- the controller ------------------------------------------------------------------------

    @rule()
    def works(self) -> None:
        self._pass(None)

    @rule(writes=st.integers(0, 4))
    def is_killed(self, writes: int) -> None:
        """After so many of a plan's writes, and forgets what it knew."""
        self._pass(writes)
        self.w.controller = JobController()

    def _pass(self, writes: int | None) -> None:
        w = self.w
        w.again = None
        view = w.controller.observe(KEY, w)
        for action in w.controller.plan(view, w.now) if view is not None else ():
            if not isinstance(action, Emit | Again):
                if writes == 0:
                    return
                if writes is not None:
                    writes -= 1
            old = {**w.job, "status": dict(w.status)}
            w.run(action)
            assert validate_job_status(w.job, old) == []

    # ---- the world -----------------------------------------------------------------------------

    def _pick(self, n: int, pods: list[Obj]) -> Obj | None:
        return pods[n % len(pods)] if pods else None

    @rule(n=PICK, fails=st.booleans())
    def a_pod_ends(self, n: int, fails: bool) -> None:
        pod = self._pick(n, [p for p in self.w.pods() if not podlib.is_finished(p.body)])
        if pod is None:
            return
        self.w.end(pod, code=int(fails))
        if not fails and is_tracked(pod):
            self.succeeded.add(pod.uid)

    @rule(n=PICK)
    def a_pod_is_deleted(self, n: int) -> None:
        pod = self._pick(n, self.w.pods())
        if pod is not None:
            self.w.delete(pod.key)

    @rule(n=PICK)
    def a_node_lets_a_pod_go(self, n: int) -> None:
        gone = [p for p in self.w.pods() if p.is_deleting and not p.meta.get("finalizers")]
        pod = self._pick(n, gone)
        if pod is not None:
            del self.w.objects[pod.key]

    @rule(seconds=st.sampled_from([1, 11, 700]))
    def time_passes(self, seconds: int) -> None:
        self.w.now += seconds

    @precondition(lambda self: not self.w.is_true("Complete") and not self.w.is_true("Failed"))
    @rule(parallelism=st.integers(0, 4))
    def somebody_scales(self, parallelism: int) -> None:
        self.w.job["spec"]["parallelism"] = parallelism

    @rule(suspend=st.booleans())
    def somebody_suspends(self, suspend: bool) -> None:
        self.w.job["spec"]["suspend"] = suspend

    # ---- what holds ----------------------------------------------------------------------------

    @invariant()
    def nothing_is_counted_twice(self) -> None:
        if not hasattr(self, "w"):
            return
        status = self.w.status
        uncounted = (status.get("uncountedTerminatedPods") or {}).get("succeeded") or []
        counted = status.get("succeeded", 0)
        tracked = {p.uid for p in self.w.pods() if is_tracked(p)}
        if self.w.job["spec"]["completionMode"] == "Indexed":
            assert counted == len(Indexes.parse(status.get("completedIndexes", ""), 100))
            return
        # Of the uncounted those without the finalizer are about to become numbers.
        assert counted + len(uncounted) <= len(self.succeeded)
        waiting = self.succeeded & tracked - set(uncounted)
        lost = len(self.succeeded) - counted - len(uncounted) - len(waiting)
        failed = (status.get("uncountedTerminatedPods") or {}).get("failed") or []
        # A pod that was seen running when the Job failed counts as failed, though it has
        # succeeded since.
        assert lost <= (status.get("failed", 0) + len(failed)) * self.w.is_true("FailureTarget")

    @invariant()
    def counters_never_fall(self) -> None:
        if not hasattr(self, "w"):
            return
        status = self.w.status
        for name in ("succeeded", "failed"):
            assert status.get(name, 0) >= self.before.get(name, 0)
        self.before = dict(status)

    @invariant()
    def not_more_run_than_asked_for(self) -> None:
        """Every creation keeps to it; what was there when somebody scaled down may still run."""
        if not hasattr(self, "w"):
            return
        assert len(self.w.active()) <= 4
        w = self.w
        if w.job["spec"]["completionMode"] == "Indexed":
            running = [p.annotations[INDEX] for p in w.active()]
            assert len(running) == len(set(running))

    @invariant()
    def an_end_is_an_end(self) -> None:
        if not hasattr(self, "w"):
            return
        w = self.w
        if w.is_true("Complete") or w.is_true("Failed"):
            assert w.active() == []
            assert not w.is_true("Complete") or not w.is_true("Failed")
            assert w.status["uncountedTerminatedPods"] == {}
            tracked = [p for p in w.pods() if is_tracked(p)]
            assert tracked == []

    def teardown(self) -> None:
        """Left alone with pods that all succeed, it comes to an end and then writes nothing."""
        if not hasattr(self, "w"):
            return
        w = self.w
        w.job["spec"]["suspend"] = False
        w.job["spec"]["parallelism"] = 3
        for _ in range(80):
            w.settle()
            for p in w.pods():
                if p.is_deleting:
                    if not podlib.is_finished(p.body):
                        w.end(p, code=137)
                    if not w.objects[p.key]["metadata"].get("finalizers"):
                        del w.objects[p.key]
            w.end(*w.active())
            w.now += 601
        assert w.is_true("Complete") or w.is_true("Failed")
        event("complete" if w.is_true("Complete") else "failed")
        assert w.settle() == 0
        self.an_end_is_an_end()
        if w.is_true("Complete"):
            assert w.status["succeeded"] >= w.job["spec"]["completions"]


TestJobs = JobMachine.TestCase
TestJobs.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
