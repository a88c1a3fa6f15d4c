"""ReplicaSet: as many pods of a template as asked for (kubernetes.io ReplicaSet).

One plan claims pods by the selector, creates what lacks or deletes what is too many, and writes
the status where it changed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sampan.api.obj import Body, Key, Obj
from sampan.control.plan import (
    Action,
    Again,
    Caches,
    Create,
    Delete,
    Emit,
    Patch,
    SetStatus,
    Trigger,
    own,
)
from sampan.controllers import pods as podlib
from sampan.lib.clock import parse_rfc3339
from sampan.lib.selectors import from_label_selector

_BURST = 500  # creations or deletions of one plan, as upstream's burstReplicas
_DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"


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

    def __init__(self) -> None:
        self.triggers: tuple[Trigger, ...] = (
            own(self.resource),
            Trigger("pods", self._keys_of_pod),
        )
        self.indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]] = {
            "pods": {"orphan": podlib.orphan_namespace}
        }

    def _keys_of_pod(self, pod: Obj, caches: Caches) -> Iterable[Key]:
        ref = pod.controller
        if ref is not None:
            if ref.get("kind") == self.kind:
                yield Key(self.resource, pod.namespace, ref["name"])
            return
        if not pod.is_deleting:
            for rs in caches[self.resource].list(pod.namespace):
                if from_label_selector(rs.spec.get("selector")).matches(pod.labels):
                    yield rs.key

    def observe(self, key: Key, caches: Caches) -> View | None:
        rs = caches[self.resource].get(key.namespace, key.name)
        if rs is None:
            return None
        selector = from_label_selector(rs.spec.get("selector"))
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
        selector = from_label_selector(spec.get("selector"))
        actions: list[Action] = []
        deleting = "deletionTimestamp" in meta
        mine = [p for p in view.owned if selector.matches(p.labels)]
        if not deleting:
            actions += [_release(p, meta["uid"]) for p in view.owned if p not in mine]
            actions += [self._adopt(p, rs) for p in view.adoptable]
            mine += view.adoptable
        active = [p.body for p in mine if podlib.is_active(p.body)]
        terminating = sum(1 for p in mine if p.is_deleting and not podlib.is_finished(p.body))
        if not deleting:
            actions += self._scale(rs, active, view.related, now)
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
            make = Create("pods", self._pod(rs), failed=_on_failed(rs), done=_on_created(rs))
            return [make] * min(missing, _BURST)
        if missing < 0:
            ranked = rank_victims(active, related, now)
            return [self._delete(rs, p) for p in ranked[: min(-missing, _BURST)]]
        return []

    def _pod(self, rs: Body) -> Body:
        return podlib.from_template(
            rs, rs["spec"]["template"], api_version="apps/v1", kind=self.kind
        )

    def _adopt(self, pod: Obj, rs: Body) -> Action:
        ref = podlib.owner_reference(rs, api_version="apps/v1", kind=self.kind)
        patch = {"metadata": {"uid": pod.uid, "ownerReferences": [ref]}}
        return Patch(pod.key, patch, kind="strategic")

    def _delete(self, rs: Body, pod: Body) -> Action:
        meta = pod["metadata"]
        name = meta["name"]
        return Delete(
            Key("pods", meta["namespace"], name),
            uid=meta["uid"],
            done=lambda: [Emit(rs, "Normal", "SuccessfulDelete", f"Deleted pod: {name}")],
            failed=lambda e: [Emit(rs, "Warning", "FailedDelete", f"Error deleting: {e}")],
        )

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
        status["terminatingReplicas"] = terminating
        status["observedGeneration"] = rs["metadata"].get("generation", 0)
        conditions = [c for c in old.get("conditions") or () if c["type"] != "ReplicaFailure"]
        kept = [c for c in old.get("conditions") or () if c["type"] == "ReplicaFailure"]
        if kept and len(active) != int(spec.get("replicas", 1)):
            conditions += kept
        if conditions:
            status["conditions"] = conditions
        if status == old:
            return []
        return [SetStatus(self.resource, {**rs, "status": status})]


def _release(pod: Obj, uid: str) -> Action:
    patch = {
        "metadata": {"uid": pod.uid, "ownerReferences": [{"$patch": "delete", "uid": uid}]},
    }
    return Patch(pod.key, patch, kind="strategic")


def _on_created(rs: Body) -> Callable[[Obj], Sequence[Action]]:
    return lambda pod: [Emit(rs, "Normal", "SuccessfulCreate", f"Created pod: {pod.name}")]


def _on_failed(rs: Body) -> Callable[[str], Sequence[Action]]:
    def failed(message: str) -> Sequence[Action]:
        condition = {
            "type": "ReplicaFailure", "status": "True", "reason": "FailedCreate",
            "message": message,
        }  # fmt: skip
        old: Body = rs.get("status") or {}
        present = [c for c in old.get("conditions") or () if c["type"] == "ReplicaFailure"]
        actions: list[Action] = [Emit(rs, "Warning", "FailedCreate", f"Error creating: {message}")]
        if not present:
            meta = rs["metadata"]
            key = Key(ReplicaSetController.resource, meta["namespace"], meta["name"])
            actions.append(
                Patch(key, {"status": {"conditions": [condition]}}, "strategic", "status")
            )
        return actions

    return failed


def rank_victims(pods: Sequence[Body], related: Sequence[Obj], now: float) -> list[Body]:
    """*pods* in the order in which they are to be deleted: unassigned, pending, not ready, cheap,
    crowded on their node, ready for a short time, often restarted, young ones first."""
    crowd: dict[str, int] = {}
    for p in related:
        node = p.spec.get("nodeName")
        if node and podlib.is_active(p.body):
            crowd[node] = crowd.get(node, 0) + 1

    def rank(pod: Body) -> tuple[float, ...]:
        spec, status, meta = pod["spec"], pod.get("status") or {}, pod["metadata"]
        node = spec.get("nodeName", "")
        phase = {"Pending": 0, "Unknown": 1}.get(status.get("phase", ""), 2)
        ready_at = podlib.ready_since(pod)
        restarts = max(
            (c.get("restartCount", 0) for c in status.get("containerStatuses") or ()), default=0
        )
        age = now - parse_rfc3339(meta["creationTimestamp"]) if "creationTimestamp" in meta else 0
        return (
            1 if node else 0,
            phase,
            1 if podlib.is_ready(pod) else 0,
            _cost(meta),
            -crowd.get(node, 0),
            _magnitude(now - ready_at) if ready_at is not None else 0,
            -restarts,
            _magnitude(age),
        )

    return sorted(pods, key=lambda p: (rank(p), p["metadata"].get("uid", "")))


def _cost(meta: Body) -> int:
    try:
        return int((meta.get("annotations") or {}).get(_DELETION_COST, 0))
    except ValueError:
        return 0


def _magnitude(seconds: float) -> int:
    """Ages compare by order of magnitude, so that victims are spread among those of like age."""
    return int(math.log2(seconds)) + 1 if seconds >= 1 else 0
