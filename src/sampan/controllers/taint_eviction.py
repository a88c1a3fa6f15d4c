"""Pods leave nodes whose NoExecute taints they do not tolerate, or no longer. Pods that have ended
leave too."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sampan.api.obj import Body, Key, Obj
from sampan.control.facts import NORMAL, Condition, Event, Facts, Mark
from sampan.control.placement import covers
from sampan.control.plan import Action, Again, Caches, Delete, Patch, Trigger
from sampan.controllers import nodes
from sampan.lib.clock import Clock, parse_rfc3339

NAME = "taint-eviction-controller"
_T = "tests/controllers/test_node_lifecycle.py::"
MARKED = Event(
    NORMAL, "TaintManagerEviction", "Marking for deletion Pod {pod}",
    f"{_T}test_a_pod_leaves_when_its_time_is_over",
)  # fmt: skip
CANCELLED = Event(
    NORMAL, "TaintManagerEviction", "Cancelling deletion of Pod {pod}",
    f"{_T}test_a_taint_that_goes_away",
)  # fmt: skip
TAINTED = Condition(
    nodes.DISRUPTION_TARGET, "True", "DeletionByTaintManager",
    "Taint manager: deleting due to NoExecute taint",
    f"{_T}test_a_pod_leaves_when_its_time_is_over",
)  # fmt: skip
FACTS = Facts(
    kind="Taint eviction", controller=NAME, page="nodes",
    conditions=(TAINTED,), events=(MARKED, CANCELLED),
    reads=(
        Mark("tolerations[*].tolerationSeconds", "Pod (spec)",
             "how long it stays; counted from the taint's `timeAdded`, or from when it came",
             f"{_T}test_who_came_later_has_its_whole_time"),
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class View:
    """A pod, and when it has to go (None: it may stay). cancelled: it was to go, and need not, or
    somebody else has taken it away."""

    pod: Obj
    due: float | None
    cancelled: bool = False


def leaves_at(tolerations: Sequence[Body], taints: Sequence[tuple[Body, float]]) -> float | None:
    """When a pod has to go for *taints*, each with the time since which it counts. The first
    toleration that covers a taint says for how long; none: at once."""
    ends: list[float] = []
    for taint, since in taints:
        cover = next((t for t in tolerations if covers(t, taint)), None)
        if cover is None:
            ends.append(since)
        elif cover.get("tolerationSeconds") is not None:
            ends.append(since + max(0.0, float(cover["tolerationSeconds"])))
    return min(ends, default=None)


class TaintEvictionController:
    """Deletes pods from tainted nodes when their time there is over."""

    name = NAME
    workers = 4

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: dict[tuple[str, str, str], float] = {}  # node uid, key and value of a taint
        self._leaving: dict[Key, Obj] = {}  # pods that are to go, later
        self.triggers: tuple[Trigger, ...] = (
            Trigger("pods", lambda pod, _caches: (pod.key,) if pod.spec.get("nodeName") else ()),
            Trigger("nodes", self._keys_of_node),
        )
        self.indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]] = {
            "pods": {"node": nodes.on_node}
        }

    @staticmethod
    def _keys_of_node(node: Obj, caches: Caches) -> Iterable[Key]:
        if nodes.taints(node, "NoExecute"):
            return [p.key for p in caches["pods"].by("node", node.name)]
        return ()

    def observe(self, key: Key, caches: Caches) -> View | None:
        pod = caches["pods"].get(key.namespace, key.name)
        leaving = self._leaving.get(key)
        if pod is None or (leaving is not None and leaving.uid != pod.uid):
            self._leaving.pop(key, None)
            if pod is None:
                return None if leaving is None else View(leaving, None, cancelled=True)
            leaving = None
        if pod.is_deleting:
            return None
        node = caches["nodes"].get("", str(pod.spec.get("nodeName", "")))
        found = nodes.taints(node, "NoExecute") if node is not None else []
        if not found and leaving is None:
            return None
        since = [(t, self._since(node, t, pod)) for t in found if node is not None]
        due = leaves_at(pod.spec.get("tolerations") or (), since)
        if due is not None and due > self._clock.now():
            self._leaving[key] = pod
        else:
            self._leaving.pop(key, None)
        return View(pod, due, cancelled=due is None and leaving is not None)

    def _since(self, node: Obj, taint: Body, pod: Obj) -> float:
        """Since when a taint counts for a pod: since it was given (or seen), and not before the
        pod came to the node."""
        mark = (node.uid, str(taint.get("key")), str(taint.get("value", "")))
        seen = self._seen.setdefault(mark, self._clock.now())
        at = parse_rfc3339(taint["timeAdded"]) if taint.get("timeAdded") else seen
        for c in pod.status.get("conditions") or ():
            if c["type"] == "PodScheduled" and c.get("lastTransitionTime"):
                at = max(at, parse_rfc3339(c["lastTransitionTime"]))
        self._forget(node)
        return at

    def _forget(self, node: Obj) -> None:
        """Taints a node no longer has count anew when they come back."""
        held = {
            (str(t.get("key")), str(t.get("value", ""))) for t in nodes.taints(node, "NoExecute")
        }
        gone = [m for m in self._seen if m[0] == node.uid and m[1:] not in held]
        for mark in gone:
            del self._seen[mark]

    def plan(self, view: View, now: float) -> Sequence[Action]:
        pod = view.pod
        name = f"{pod.namespace}/{pod.name}"
        if view.due is None:
            if not view.cancelled:
                return []
            return [CANCELLED.about(pod.body, pod=name)]
        if view.due > now:
            return [Again(view.due - now)]
        condition = nodes.disruption(pod, TAINTED, now)
        patch = {"metadata": {"uid": pod.uid}, "status": {"conditions": [condition]}}
        return [
            MARKED.about(pod.body, pod=name),
            Patch(pod.key, patch, "strategic", "status"),
            Delete(pod.key, uid=pod.uid),
        ]
