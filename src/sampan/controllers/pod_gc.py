"""Pods nobody will take away: of nodes that are gone or out of service, and too many that ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sampan.api.obj import Body, Key, Obj
from sampan.control.facts import Condition, Facts, Field
from sampan.control.plan import Action, Again, Caches, Delete, Patch, Trigger
from sampan.controllers import nodes
from sampan.controllers import pods as podlib
from sampan.lib.clock import Clock

NAME = "pod-garbage-collector"
QUARANTINE = 40.0  # seconds a node must be missing: it may only be late in our cache
THRESHOLD = 12_500  # pods that have ended and are kept
_BURST = 500
_ALL = Key("pods", "", "")
_T = "tests/controllers/test_node_lifecycle.py::"
ORPHANED = Condition(
    nodes.DISRUPTION_TARGET, "True", "DeletionByPodGC", "PodGC: node no longer exists",
    f"{_T}test_pods_of_a_node_that_is_gone",
)  # fmt: skip
FACTS = Facts(
    kind="Pod garbage collection", controller=NAME, page="nodes",
    status=(
        Field("phase", "`Failed` before a pod that had not ended is removed",
              f"{_T}test_pods_of_a_node_that_is_gone"),
    ),
    conditions=(ORPHANED,),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class View:
    """A pod whose node is missing since a time, or a deleted one of a node out of service (or of
    no node: missing_since is None)."""

    pod: Obj
    missing_since: float | None


class PodCollector:
    """Removes pods of nodes that are gone, and deleted pods no kubelet will end."""

    name = NAME
    workers = 2

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._missing: dict[str, float] = {}
        self.triggers: tuple[Trigger, ...] = (
            Trigger("pods", lambda pod, _caches: (pod.key,)),
            Trigger("nodes", self._keys_of_node),
        )
        self.indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]] = {
            "pods": {"node": nodes.on_node}
        }

    @staticmethod
    def _keys_of_node(node: Obj, caches: Caches) -> Iterable[Key]:
        if caches["nodes"].get("", node.name) is None or _is_out_of_service(node):
            return [p.key for p in caches["pods"].by("node", node.name)]
        return ()

    def observe(self, key: Key, caches: Caches) -> View | None:
        pod = caches["pods"].get(key.namespace, key.name)
        if pod is None:
            return None
        name = str(pod.spec.get("nodeName", ""))
        if not name:
            return View(pod, None) if pod.is_deleting else None
        node = caches["nodes"].get("", name)
        if node is None:
            return View(pod, self._missing.setdefault(name, self._clock.now()))
        self._missing.pop(name, None)
        if pod.is_deleting and _is_out_of_service(node) and nodes.ready(node) != "True":
            return View(pod, None)
        return None

    def plan(self, view: View, now: float) -> Sequence[Action]:
        pod = view.pod
        conditions: list[Body] = []
        if view.missing_since is not None:
            due = view.missing_since + QUARANTINE
            if due > now:
                return [Again(due - now)]
            conditions = [nodes.disruption(pod, ORPHANED, now)]
        actions: list[Action] = []
        if not podlib.is_finished(pod.body):
            status: Body = {"phase": "Failed"}
            if conditions:
                status["conditions"] = conditions
            patch = {"metadata": {"uid": pod.uid}, "status": status}
            actions.append(Patch(pod.key, patch, "strategic", "status"))
        return [*actions, Delete(pod.key, uid=pod.uid, grace=0)]


def _is_out_of_service(node: Obj) -> bool:
    return any(t["key"] == nodes.OUT_OF_SERVICE for t in node.spec.get("taints") or ())


def _ended(pod: Obj) -> Iterable[str]:
    """Index: pods that have ended (evicted ones too) and are not being deleted."""
    if podlib.is_finished(pod.body) and not pod.is_deleting:
        yield "ended"


def _order(pod: Obj) -> tuple[bool, str, str]:
    """Evicted pods go first, so that those of controllers stay longer; then the oldest."""
    evicted = pod.status.get("phase") == "Failed" and pod.status.get("reason") == "Evicted"
    return not evicted, pod.meta.get("creationTimestamp", ""), pod.name


class EndedPods:
    """Keeps so many pods that have ended, the youngest."""

    name = NAME
    workers = 1

    def __init__(self, threshold: int = THRESHOLD) -> None:
        self._threshold = threshold
        self.triggers: tuple[Trigger, ...] = (
            Trigger("pods", lambda pod, _caches: (_ALL,) if podlib.is_finished(pod.body) else ()),
        )
        self.indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]] = {
            "pods": {"ended": _ended}
        }

    def observe(self, key: Key, caches: Caches) -> Sequence[Obj] | None:
        found = caches["pods"].by("ended", "ended")
        return found if len(found) > self._threshold else None

    def plan(self, view: Sequence[Obj], now: float) -> Sequence[Action]:
        oldest = sorted(view, key=_order)
        extra = oldest[: min(len(view) - self._threshold, _BURST)]
        return [Delete(p.key, uid=p.uid, grace=0) for p in extra]
