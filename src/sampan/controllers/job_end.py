"""How a Job ends: which of its limits and policies is met, and the conditions that say so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sampan.api.obj import Body, Obj
from sampan.control.facts import Condition
from sampan.controllers import job_pods
from sampan.controllers.job_facts import (
    DEADLINE,
    FAILED_INDEXES,
    FAILURE_POLICY,
    LIMIT,
    MAX_FAILED,
    SUCCESS_POLICY,
)
from sampan.lib.clock import parse_rfc3339, rfc3339
from sampan.lib.indexes import Indexes

if TYPE_CHECKING:
    from sampan.controllers.job_pass import Pass


@dataclass(frozen=True, slots=True)
class End:
    """An end: the condition that announces it and the one that says it has come, and what their
    messages name."""

    pair: tuple[Condition, Condition]
    values: Mapping[str, object] = field(default_factory=dict)

    @property
    def is_failure(self) -> bool:
        return self.pair[1].type == "Failed"


def find(conditions: Iterable[Body], kind: str) -> Body | None:
    return next((c for c in conditions if c["type"] == kind), None)


def condition(what: Condition, now: float, values: Mapping[str, object] | None = None) -> Body:
    at = rfc3339(now)
    return {
        "type": what.type, "status": what.status, "lastProbeTime": at, "lastTransitionTime": at,
        "reason": what.reason, "message": what.text(**(values or {})),
    }  # fmt: skip


def known(conditions: Sequence[Body]) -> End | None:
    """The end that was announced before: it stands."""
    for first, last in (("SuccessCriteriaMet", "Complete"), ("FailureTarget", "Failed")):
        held = find(conditions, first)
        if held is not None and held["status"] == "True":
            reason, message = held.get("reason", ""), held.get("message", "")
            text = message.replace("{", "{{").replace("}", "}}")
            pair = tuple(Condition(kind, "True", reason, text, "") for kind in (first, last))
            return End((pair[0], pair[1]), {"why": message})
    return None


def new(p: Pass) -> End | None:
    """The end that the pods of this pass bring about, but for reaching the completions. Failures
    come before success."""
    return _of_policy(p) or _of_limits(p) or _of_indexes(p)


def _of_policy(p: Pass) -> End | None:
    if p.spec.get("podFailurePolicy") is None:
        return None
    for pod in p.pods:
        if job_pods.is_failed(pod, p.job):
            verdict = job_pods.judge(p.job, pod)
            if verdict.message:
                return End(FAILURE_POLICY, {"why": verdict.message})
    return None


def _of_limits(p: Pass) -> End | None:
    limit = int(p.spec.get("backoffLimit", 6))
    if p.failed > limit or _restarts_past(p.spec, p.pods, limit):
        return End(LIMIT)
    deadline = p.spec.get("activeDeadlineSeconds")
    if deadline is not None and not p.is_suspended and p.status.get("startTime"):
        if left(p.status, float(deadline), p.now) <= 0:
            return End(DEADLINE)
    return None


def left(status: Body, deadline: float, now: float) -> float:
    """Seconds until the active deadline."""
    return parse_rfc3339(status["startTime"]) + deadline - now


def _restarts_past(spec: Body, pods: Iterable[Obj], limit: int) -> bool:
    """Whether containers that are restarted in place were restarted too often."""
    if spec["template"]["spec"].get("restartPolicy") != "OnFailure":
        return False
    restarts = sum(
        int(s.get("restartCount", 0))
        for p in pods
        if job_pods.phase(p) in ("Running", "Pending")
        for kind in ("initContainerStatuses", "containerStatuses")
        for s in p.status.get(kind) or ()
    )
    return restarts > 0 if limit == 0 else restarts >= limit


def _of_indexes(p: Pass) -> End | None:
    if not job_pods.is_indexed(p.job):
        return None
    failed = len(p.given_up)
    if failed:
        most = p.spec.get("maxFailedIndexes")
        if most is not None and failed > int(most):
            return End(MAX_FAILED)
        if failed + len(p.completed) >= int(p.spec.get("completions") or 0):
            return End(FAILED_INDEXES)
    rule = _success_rule(p.spec, p.completed)
    return None if rule is None else End(SUCCESS_POLICY, {"index": rule})


def _success_rule(spec: Body, completed: Indexes) -> int | None:
    """The number of the first rule of the success policy that is met."""
    for i, rule in enumerate((spec.get("successPolicy") or {}).get("rules") or ()):
        text, count = rule.get("succeededIndexes"), rule.get("succeededCount")
        done, needed = completed, count
        if text is not None:
            wanted = Indexes.parse(text, int(spec.get("completions") or 0))
            done = completed & wanted
            needed = len(wanted) if count is None else count
        if needed is not None and len(done) >= int(needed):
            return i
    return None
