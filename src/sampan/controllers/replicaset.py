"""ReplicaSet: as many pods of a template as asked for (kubernetes.io ReplicaSet).

One plan claims pods by the selector, creates what lacks or deletes what is too many, and writes
the status where it changed. ReplicationController is the same plan under another kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sampan.api.obj import Body, Key, Obj
from sampan.control.facts import NORMAL, WARNING, Condition, Event, Facts, Field, Mark
from sampan.control.plan import (
    Action,
    Again,
    Caches,
    Create,
    Delete,
    Patch,
    SetStatus,
    Trigger,
    own,
)
from sampan.controllers import pods as podlib
from sampan.controllers import rollout
from sampan.controllers.victims import COST, rank_victims
from sampan.lib.clock import rfc3339
from sampan.lib.selectors import Selector, from_label_selector

BURST = 500  # creations or deletions of one plan, as upstream's burstReplicas
_TEST = "tests/controllers/test_replicaset.py::"
FAILURE = "ReplicaFailure"
CREATED = Event(
    NORMAL, "SuccessfulCreate", "Created pod: {pod}",
    f"{_TEST}test_missing_pods_are_created_with_owner_and_events",
)  # fmt: skip
CREATE_FAILED = Event(
    WARNING, "FailedCreate", "Error creating: {error}", f"{_TEST}test_a_refused_creation_is_told"
)
DELETED = Event(
    NORMAL, "SuccessfulDelete", "Deleted pod: {pod}", f"{_TEST}test_surplus_is_deleted_worst_first"
)
DELETE_FAILED = Event(
    WARNING, "FailedDelete", "Error deleting: {error}", f"{_TEST}test_a_refused_deletion_is_told"
)
_CREATION = Condition(
    FAILURE, "True", "FailedCreate", "{error}", f"{_TEST}test_a_refused_creation_is_told"
)
_DELETION = Condition(
    FAILURE, "True", "FailedDelete", "{error}", f"{_TEST}test_a_refused_deletion_is_told"
)


@dataclass(frozen=True, slots=True)
class View:
    """One ReplicaSet, the pods it owns and those it may adopt, and for ranking victims how many
    pods of the same owner run on each node."""

    body: Body
    owned: tuple[Obj, ...]
    adoptable: tuple[Obj, ...]
    related: tuple[Obj, ...]


class ReplicaSetController:
    """Keeps ``spec.replicas`` pods alive."""

    name = "replicaset-controller"
    workers = 5
    resource = "replicasets.apps"
    kind = "ReplicaSet"
    api_version = "apps/v1"
    counts_terminating = True

    def __init__(self) -> None:
        self.triggers: tuple[Trigger, ...] = (
            own(self.resource),
            Trigger("pods", self._keys_of_pod),
        )
        self.indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]] = {
            "pods": {"orphan": podlib.orphan_namespace}
        }

    @staticmethod
    def selector(body: Body) -> Selector:
        """What the owner *body* selects."""
        return from_label_selector(body["spec"].get("selector"))

    def _keys_of_pod(self, pod: Obj, caches: Caches) -> Iterable[Key]:
        ref = pod.controller
        if ref is not None:
            if ref.get("kind") == self.kind:
                yield Key(self.resource, pod.namespace, ref["name"])
            return
        if not pod.is_deleting:
            for rs in caches[self.resource].list(pod.namespace):
                if self.selector(rs.body).matches(pod.labels):
                    yield rs.key

    def observe(self, key: Key, caches: Caches) -> View | None:
        rs = caches[self.resource].get(key.namespace, key.name)
        if rs is None:
            return None
        selector = self.selector(rs.body)
        pods = caches["pods"]
        owned = tuple(
            p for p in pods.by("owner", rs.uid) if (p.controller or {}).get("uid") == rs.uid
        )
        adoptable: tuple[Obj, ...] = ()
        if not rs.is_deleting:
            adoptable = tuple(
                p
                for p in pods.by("orphan", key.namespace)
                if selector.matches(p.labels) and not p.is_deleting and podlib.is_active(p.body)
            )
        parent = rs.controller
        related = owned
        if parent is not None:
            siblings = caches[self.resource].by("owner", parent["uid"])
            related = tuple(p for s in siblings for p in pods.by("owner", s.uid))
        return View(rs.body, owned, adoptable, related)

    def plan(self, view: View, now: float) -> Sequence[Action]:
        rs = view.body
        spec, meta = rs["spec"], rs["metadata"]
        selector = self.selector(rs)
        actions: list[Action] = []
        deleting = "deletionTimestamp" in meta
        scaling: list[Action] = []
        mine = [p for p in view.owned if selector.matches(p.labels)]
        if not deleting:
            strange = [p for p in view.owned if p not in mine and podlib.is_active(p.body)]
            actions += [_release(p, meta["uid"]) for p in strange]
            actions += [self._adopt(p, rs) for p in view.adoptable]
            mine += view.adoptable
        active = [p.body for p in mine if podlib.is_active(p.body)]
        terminating = sum(1 for p in mine if p.is_deleting and not podlib.is_finished(p.body))
        if not deleting:
            scaling = self._scale(rs, active, view.related, now)
            actions += scaling
        if not scaling:  # what it makes or removes wakes the set again, to be counted then
            actions += self._status(rs, active, terminating, now)
        again = podlib.next_available(active, spec.get("minReadySeconds", 0), now)
        if again is not None:
            actions.append(Again(again))
        return actions

    def _scale(
        self, rs: Body, active: list[Body], related: Sequence[Obj], now: float
    ) -> list[Action]:
        missing = int(rs["spec"].get("replicas", 1)) - len(active)
        if missing > 0:
            make = Create(
                "pods", self._pod(rs), done=lambda pod: [CREATED.about(rs, pod=pod.name)],
                failed=lambda e: [
                    CREATE_FAILED.about(rs, error=e), *self._failure(rs, _CREATION, e, now)
                ],
            )  # fmt: skip
            return [make] * min(missing, BURST)
        if missing < 0:
            ranked = rank_victims(active, related, now)
            return [self._delete(rs, p, now) for p in ranked[: min(-missing, BURST)]]
        return []

    def _pod(self, rs: Body) -> Body:
        return podlib.from_template(
            rs, rs["spec"]["template"], api_version=self.api_version, kind=self.kind
        )

    def _adopt(self, pod: Obj, rs: Body) -> Action:
        ref = podlib.owner_reference(rs, api_version=self.api_version, kind=self.kind)
        patch = {"metadata": {"uid": pod.uid, "ownerReferences": [ref]}}
        return Patch(pod.key, patch, kind="strategic")

    def _delete(self, rs: Body, pod: Body, now: float) -> Action:
        meta = pod["metadata"]
        name = meta["name"]
        return Delete(
            Key("pods", meta["namespace"], name),
            uid=meta["uid"],
            done=lambda: [DELETED.about(rs, pod=name)],
            failed=lambda e: [
                DELETE_FAILED.about(rs, error=e), *self._failure(rs, _DELETION, e, now)
            ],
        )  # fmt: skip

    def _failure(self, rs: Body, what: Condition, error: str, now: float) -> list[Action]:
        """Note in the status that pods can not be made or removed, once."""
        if rollout.condition(rs, FAILURE) is not None:
            return []
        condition = {
            "type": what.type, "status": what.status, "lastTransitionTime": rfc3339(now),
            "reason": what.reason, "message": what.text(error=error),
        }  # fmt: skip
        meta = rs["metadata"]
        key = Key(self.resource, meta["namespace"], meta["name"])
        return [Patch(key, {"status": {"conditions": [condition]}}, "strategic", "status")]

    def _status(self, rs: Body, active: list[Body], terminating: int, now: float) -> list[Action]:
        spec = rs["spec"]
        old: Body = rs.get("status") or {}
        template = from_label_selector(
            {"matchLabels": spec["template"].get("metadata", {}).get("labels") or {}}
        )
        ready = [p for p in active if podlib.is_ready(p)]
        minimum = spec.get("minReadySeconds", 0)
        available = [p for p in ready if podlib.is_available(p, minimum, now)]
        status: Body = {"replicas": len(active)}
        counts = {
            "fullyLabeledReplicas": sum(
                1 for p in active if template.matches(p["metadata"].get("labels") or {})
            ),
            "readyReplicas": len(ready),
            "availableReplicas": len(available),
        }
        status.update({k: v for k, v in counts.items() if v})
        if self.counts_terminating:
            status["terminatingReplicas"] = terminating
        status["observedGeneration"] = rs["metadata"].get("generation", 0)
        conditions = [c for c in old.get("conditions") or () if c["type"] != FAILURE]
        kept = rollout.condition(rs, FAILURE)
        if kept is not None and len(active) != int(spec.get("replicas", 1)):
            conditions.append(kept)
        if conditions:
            status["conditions"] = conditions
        if status == old:
            return []
        return [SetStatus(self.resource, {**rs, "status": status}, patient=True)]


def _release(pod: Obj, uid: str) -> Action:
    patch = {
        "metadata": {"uid": pod.uid, "ownerReferences": [{"$patch": "delete", "uid": uid}]},
    }
    return Patch(pod.key, patch, kind="strategic")


_STATUS = f"{_TEST}test_status_counts_and_then_rests"
STATUS = (
    Field("replicas", "pods that exist and are neither finished nor being deleted", _STATUS),
    Field("fullyLabeledReplicas", "of these, those with all labels of the template", _STATUS),
    Field("readyReplicas", "of these, those that are ready", _STATUS),
    Field(
        "availableReplicas", "of these, those ready for minReadySeconds",
        f"{_TEST}test_min_ready_seconds_delays_availability",
    ),
    Field("observedGeneration", "the generation the counts belong to", _STATUS),
    Field("conditions", "see below", f"{_TEST}test_a_refused_creation_is_told"),
)  # fmt: skip
READS = (
    Mark(
        COST, "Pod", "pods of lower cost are deleted first", f"{_TEST}test_ranking",
    ),
)  # fmt: skip
FACTS = Facts(
    kind="ReplicaSet",
    definition="io.k8s.api.apps.v1.ReplicaSet",
    controller=ReplicaSetController.name,
    status=(
        *STATUS,
        Field(
            "terminatingReplicas", "pods that are being deleted and still run",
            f"{_TEST}test_finished_and_leaving_pods_are_replaced",
        ),
    ),
    conditions=(_CREATION, _DELETION),
    events=(CREATED, CREATE_FAILED, DELETED, DELETE_FAILED),
    reads=READS,
)  # fmt: skip
