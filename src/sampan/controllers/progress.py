"""What a Deployment says of its rollout: counts, conditions and the watch over the deadline."""

from __future__ import annotations

from sampan.api.obj import Body
from sampan.control.facts import NORMAL, WARNING, Condition, Event
from sampan.control.plan import Action, Again, SetStatus
from sampan.controllers import rollout as r
from sampan.lib.clock import parse_rfc3339, rfc3339

RESOURCE = "deployments.apps"
TEST = "tests/controllers/test_deployment.py::"
_FIRST = f"{TEST}test_first_rollout"
_PAUSE = f"{TEST}test_pause_and_resume"
_REFUSED = f"{TEST}test_a_refused_replica_set_is_told"

SCALED = Event(
    NORMAL, "ScalingReplicaSet", "Scaled {way} replica set {set} from {before} to {size}", _FIRST
)
SET_FAILED = Event(
    WARNING, "ReplicaSetCreateError", 'Failed to create new replica set "{set}": {error}', _REFUSED
)
_ROLLBACK = f"{TEST}test_rollback_by_annotation"
ROLLED_BACK = Event(
    NORMAL, "DeploymentRollback", 'Rolled back deployment "{deployment}" to revision {revision}',
    _ROLLBACK,
)  # fmt: skip
NOT_FOUND = Event(
    WARNING, "DeploymentRollbackRevisionNotFound", "Unable to find the revision to rollback to.",
    _ROLLBACK,
)  # fmt: skip
NO_LAST = Event(
    WARNING, "DeploymentRollbackRevisionNotFound", "Unable to find last revision.", _ROLLBACK
)
UNCHANGED = Event(
    WARNING, "DeploymentRollbackTemplateUnchanged",
    'The rollback revision contains the same template as current deployment "{deployment}"',
    _ROLLBACK,
)  # fmt: skip
EVENTS = (SCALED, SET_FAILED, ROLLED_BACK, NOT_FOUND, NO_LAST, UNCHANGED)

AVAILABLE = Condition(
    "Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability.", _FIRST
)
UNAVAILABLE = Condition(
    "Available", "False", "MinimumReplicasUnavailable",
    "Deployment does not have minimum availability.", f"{TEST}test_too_few_pods_are_told",
)  # fmt: skip
SET_CREATED = Condition(
    "Progressing", "True", "NewReplicaSetCreated", 'Created new replica set "{set}"',
    f"{TEST}test_the_steps_of_progress",
)  # fmt: skip
SET_FOUND = Condition(
    "Progressing", "True", "FoundNewReplicaSet", 'Found new replica set "{set}"',
    f"{TEST}test_a_found_replica_set_is_told",
)  # fmt: skip
SET_REFUSED = Condition(
    "Progressing", "False", "ReplicaSetCreateError",
    'Failed to create new replica set "{set}": {error}', _REFUSED,
)  # fmt: skip
MOVING = Condition(
    "Progressing", "True", "ReplicaSetUpdated", "{who} is progressing.",
    f"{TEST}test_the_steps_of_progress",
)  # fmt: skip
COMPLETE = Condition(
    "Progressing", "True", "NewReplicaSetAvailable", "{who} has successfully progressed.", _FIRST
)
STUCK = Condition(
    "Progressing", "False", "ProgressDeadlineExceeded", "{who} has timed out progressing.",
    f"{TEST}test_a_stuck_rollout_times_out",
)  # fmt: skip
PAUSED = Condition("Progressing", "Unknown", "DeploymentPaused", "Deployment is paused", _PAUSE)
RESUMED = Condition("Progressing", "Unknown", "DeploymentResumed", "Deployment is resumed", _PAUSE)
FAILURE = Condition(
    "ReplicaFailure", "True", "FailedCreate", "as of the ReplicaSet (FailedCreate, FailedDelete)",
    f"{TEST}test_failures_of_replica_sets_are_copied",
)  # fmt: skip
CONDITIONS = (
    AVAILABLE, UNAVAILABLE, SET_CREATED, SET_FOUND, SET_REFUSED, MOVING, COMPLETE, STUCK, PAUSED,
    RESUMED, FAILURE,
)  # fmt: skip


class Progress:
    """One plan of the Deployment *d* in the making: its actions so far, its status and annotations
    as they will be written."""

    def __init__(self, d: Body, now: float) -> None:
        self.d = d
        self.now = now
        self.actions: list[Action] = []
        self.status: Body = dict(d.get("status") or {})
        self.notes = dict(r.notes_of(d))

    @property
    def _has_deadline(self) -> bool:
        seconds = self.d["spec"].get("progressDeadlineSeconds")
        return seconds is not None and seconds != 2147483647

    def _condition(self, what: Condition, message: str) -> Body:
        return self._made(what.type, what.status, what.reason, message)

    def _made(self, kind: str, status: str, reason: str, message: str) -> Body:
        at = rfc3339(self.now)
        return {
            "type": kind, "status": status, "lastUpdateTime": at, "lastTransitionTime": at,
            "reason": reason, "message": message,
        }  # fmt: skip

    def _progress(self, what: Condition, *, refresh: bool = False, **values: object) -> None:
        new = self._condition(what, what.text(**values))
        conditions = self.status.get("conditions") or []
        self.status["conditions"] = r.set_condition(conditions, new, refresh=refresh)

    def _note_pause(self) -> None:
        """Pausing stops the progress deadline; resuming starts it anew."""
        if not self._has_deadline:
            return
        current = r.condition(self.d, "Progressing")
        if current is not None and current.get("reason") == "ProgressDeadlineExceeded":
            return
        was_paused = current is not None and current.get("reason") == "DeploymentPaused"
        if self.d["spec"].get("paused") and not was_paused:
            self._progress(PAUSED)
        elif not self.d["spec"].get("paused") and was_paused:
            self._progress(RESUMED)

    def _counted(self, sets: list[Body], new: Body | None) -> Body:
        d = self.d
        available = sum(r.count(s, "availableReplicas") for s in sets)
        unavailable = max(0, sum(r.replicas(s) for s in sets) - available)
        counts = {
            "replicas": sum(r.count(s, "replicas") for s in sets),
            "updatedReplicas": r.count(new, "replicas"),
            "readyReplicas": sum(r.count(s, "readyReplicas") for s in sets),
            "availableReplicas": available,
            "unavailableReplicas": unavailable,
        }
        status: Body = {"observedGeneration": d["metadata"].get("generation", 0)}
        status.update({k: v for k, v in counts.items() if v})
        status["terminatingReplicas"] = sum(r.count(s, "terminatingReplicas") for s in sets)
        if "collisionCount" in self.status:
            status["collisionCount"] = self.status["collisionCount"]
        enough = available >= r.replicas(d) - r.max_unavailable(d)
        what = AVAILABLE if enough else UNAVAILABLE
        condition = self._condition(what, what.text())
        conditions = self.status.get("conditions") or []
        status["conditions"] = r.set_condition(conditions, condition)
        return status

    def _is_complete(self, status: Body) -> bool:
        total = r.replicas(self.d)
        counts = {status.get(k, 0) for k in ("updatedReplicas", "replicas", "availableReplicas")}
        seen = int(status.get("observedGeneration", 0))
        return counts == {total} and seen >= int(self.d["metadata"].get("generation", 0))

    def _progress_status(self, sets: list[Body]) -> None:
        d = self.d
        old: Body = d.get("status") or {}
        new_set = r.find_new(d, sets)
        status = self._counted(sets, new_set)
        self.status = status
        if not self._has_deadline:
            status["conditions"] = [c for c in status["conditions"] if c["type"] != "Progressing"]
        current = r.condition({"status": status}, "Progressing")
        reason = current.get("reason") if current else ""
        steady = (
            status.get("replicas", 0) == status.get("updatedReplicas", 0)
            and reason == "NewReplicaSetAvailable"
        )
        if self._has_deadline and not steady:
            if new_set is not None:
                who = f'ReplicaSet "{new_set["metadata"]["name"]}"'
            else:
                who = f'Deployment "{d["metadata"]["name"]}"'
            if self._is_complete(status):
                self._progress(COMPLETE, who=who)
            elif self._progressed(status, old):
                self._progress(MOVING, refresh=True, who=who)
            elif current is not None and self._timed_out(current):
                self._progress(STUCK, who=who)
        self._copy_failures(sets, new_set)
        self._write_status(self.status)

    @staticmethod
    def _progressed(new: Body, old: Body) -> bool:
        def outdated(s: Body) -> int:
            return int(s.get("replicas", 0)) - int(s.get("updatedReplicas", 0))

        return outdated(new) < outdated(old) or any(
            new.get(k, 0) > old.get(k, 0)
            for k in ("updatedReplicas", "readyReplicas", "availableReplicas")
        )

    def _deadline(self, condition: Body) -> float:
        since = parse_rfc3339(condition["lastUpdateTime"])
        return since + float(self.d["spec"]["progressDeadlineSeconds"])

    def _timed_out(self, condition: Body) -> bool:
        if condition.get("reason") == "NewReplicaSetAvailable":
            return False
        if condition.get("reason") == "ProgressDeadlineExceeded":
            return True
        return self._deadline(condition) < self.now

    def _copy_failures(self, sets: list[Body], new: Body | None) -> None:
        found = r.condition(new, "ReplicaFailure") if new else None
        if found is None:
            found = next((c for s in sets if (c := r.condition(s, "ReplicaFailure"))), None)
        conditions = [c for c in self.status["conditions"] if c["type"] != "ReplicaFailure"]
        if found is not None:
            copy = self._made(
                "ReplicaFailure", found["status"], found.get("reason", ""), found.get("message", "")
            )
            old = self.status["conditions"]
            self.status["conditions"] = r.set_condition(old, copy)
        else:
            self.status["conditions"] = conditions

    def _write_status(self, status: Body) -> None:
        """One write carries status and revision annotation, where either changed."""
        d = self.d
        self._watch_deadline(status)
        same_notes = self.notes == r.notes_of(d)
        if status == (d.get("status") or {}) and same_notes:
            return
        meta = d["metadata"] if same_notes else {**d["metadata"], "annotations": self.notes}
        body = {**d, "metadata": meta, "status": status}
        self.actions.append(SetStatus(RESOURCE, body, patient=True))

    def _watch_deadline(self, status: Body) -> None:
        current = r.condition({"status": status}, "Progressing")
        if current is None or not self._has_deadline or self.d["spec"].get("paused"):
            return
        done = ("ProgressDeadlineExceeded", "NewReplicaSetAvailable")
        if current.get("reason") in done or self._is_complete(status):
            return
        # A second later: the deadline has passed then, whatever was cut off its times.
        self.actions.append(Again(max(0.0, self._deadline(current) - self.now) + 1.0))
