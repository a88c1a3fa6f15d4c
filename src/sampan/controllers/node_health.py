"""Nodes that are not heard of: their conditions become Unknown, their pods not ready, and taints
tell the scheduler of every trouble (node lifecycle, per node).

A node is heard of when its Lease or its status moves, by this controller's own clock: after a
restart every node has its full grace again. So it has when the first node is ready again after none
was: then this controller had rather been cut off itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from sampan.api.obj import Key, Obj
from sampan.control.facts import NORMAL, WARNING, Condition, Event, Facts, Mark
from sampan.control.plan import Action, Again, Caches, Patch, SetStatus, Trigger, Update, own
from sampan.controllers import nodes
from sampan.controllers import pods as podlib
from sampan.lib.clock import Clock, rfc3339

NAME = "node-controller"
GRACE, START_GRACE = 50.0, 60.0  # seconds without a word; of a node that never said one
LEASES, LEASE_NAMESPACE = "leases.coordination.k8s.io", "kube-node-lease"
_WATCHED = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")
_BY_CONDITION = {
    ("Ready", "False"): nodes.NOT_READY, ("Ready", "Unknown"): nodes.UNREACHABLE,
    ("MemoryPressure", "True"): "node.kubernetes.io/memory-pressure",
    ("DiskPressure", "True"): "node.kubernetes.io/disk-pressure",
    ("PIDPressure", "True"): "node.kubernetes.io/pid-pressure",
    ("NetworkUnavailable", "True"): "node.kubernetes.io/network-unavailable",
}  # fmt: skip
_UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
_OURS = frozenset({*_BY_CONDITION.values(), _UNSCHEDULABLE})

_T = "tests/controllers/test_node_lifecycle.py::"
_SILENCE, _TAINTS = (
    f"{_T}test_a_node_that_is_not_heard_of",
    f"{_T}test_taints_tell_what_conditions_tell",
)
SILENT = Condition(
    "Ready", "Unknown", "NodeStatusUnknown", "Kubelet stopped posting node status.", _SILENCE
)
NEVER = Condition(
    "Ready", "Unknown", "NodeStatusNeverUpdated", "Kubelet never posted node status.",
    f"{_T}test_a_node_that_never_said_a_word",
)  # fmt: skip
_OTHERS = tuple(
    replace(why, type=kind, test=_SILENCE) for kind in _WATCHED[1:] for why in (SILENT, NEVER)
)
REGISTERED = Event(
    NORMAL, "RegisteredNode", "Node {node} event: Registered Node {node} in Controller", _SILENCE
)
REMOVING = Event(
    NORMAL, "RemovingNode", "Node {node} event: Removing Node {node} from Controller",
    f"{_T}test_a_node_that_goes",
)  # fmt: skip
NODE_NOT_READY = Event(NORMAL, "NodeNotReady", "Node {node} status is now: NodeNotReady", _SILENCE)
POD_NOT_READY = Event(WARNING, "NodeNotReady", "Node is not ready", _SILENCE)
FACTS = Facts(
    kind="Node lifecycle", controller=NAME, page="nodes",
    conditions=(SILENT, NEVER, *_OTHERS),
    events=(REGISTERED, REMOVING, NODE_NOT_READY, POD_NOT_READY),
    taints=(
        *(Mark(taint, "NoSchedule", f"the condition {kind} is {status}", _TAINTS)
          for (kind, status), taint in _BY_CONDITION.items()),
        Mark(_UNSCHEDULABLE, "NoSchedule", "`spec.unschedulable`", _TAINTS),
        Mark(nodes.NOT_READY, "NoExecute", "the condition Ready is False",
             f"{_T}test_a_node_in_trouble_is_tainted"),
        Mark(nodes.UNREACHABLE, "NoExecute", "the condition Ready is Unknown",
             f"{_T}test_a_node_in_trouble_is_tainted"),
    ),
    reads=(
        Mark(nodes.EXCLUDED, "Node (label)", "does not count for the state of its zone",
             f"{_T}test_nodes_that_are_excluded_do_not_count"),
        Mark("topology.kubernetes.io/zone, region", "Node (label)", "the zone nodes are counted by",
             f"{_T}test_zones_do_not_wait_for_each_other"),
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class View:
    """A node, its pods, and when it was last heard of. is_new: seen for the first time. gone: it
    was deleted, and is told about for the last time."""

    node: Obj
    pods: tuple[Obj, ...]
    heard: float
    is_new: bool = False
    gone: bool = False


@dataclass(slots=True)
class _Known:
    node: Obj
    signs: tuple[str, ...]
    heard: float


class NodeHealth:
    """Tells when a node is not heard of any more. pace: how many times longer than usual it waits
    for a sign of life."""

    name = NAME
    workers = 2

    def __init__(self, clock: Clock, pace: float = 1.0) -> None:
        self._clock = clock
        self._pace = pace
        self._known: dict[str, _Known] = {}
        self._ready: set[str] = set()  # nodes that are, of those that count
        self.triggers: tuple[Trigger, ...] = (
            own("nodes"),
            Trigger(LEASES, self._keys_of_lease),
        )
        self.indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]] = {
            "pods": {"node": nodes.on_node}
        }

    @staticmethod
    def _keys_of_lease(lease: Obj, _caches: Caches) -> Iterable[Key]:
        if lease.namespace == LEASE_NAMESPACE:
            yield Key("nodes", "", lease.name)

    def observe(self, key: Key, caches: Caches) -> View | None:
        node = caches["nodes"].get("", key.name)
        known = self._known.get(key.name)
        if node is None:
            self._known.pop(key.name, None)
            self._ready.discard(key.name)
            return None if known is None else View(known.node, (), known.heard, gone=True)
        lease = caches[LEASES].get(LEASE_NAMESPACE, key.name)
        beat = (nodes.condition(node, "Ready") or {}).get("lastHeartbeatTime", "")
        signs = (beat, str(lease.spec.get("renewTime", "")) if lease is not None else "")
        is_new = known is None or known.node.uid != node.uid
        if known is None or is_new or known.signs != signs:
            known = self._known[key.name] = _Known(node, signs, self._clock.now())
        known.node = node
        self._look_around(node)
        return View(node, tuple(caches["pods"].by("node", key.name)), known.heard, is_new)

    def _look_around(self, node: Obj) -> None:
        """Nodes that were silent together are heard of anew once one of them is ready again."""
        if nodes.ready(node) != "True" or nodes.EXCLUDED in node.labels:
            self._ready.discard(node.name)
            return
        if not self._ready:
            now = self._clock.now()
            for known in self._known.values():
                known.heard = now
        self._ready.add(node.name)

    def plan(self, view: View, now: float) -> Sequence[Action]:
        node = view.node
        if view.gone:
            return [REMOVING.about(node.body, node=node.name)]
        actions: list[Action] = []
        if view.is_new:
            actions.append(REGISTERED.about(node.body, node=node.name))
        grace = GRACE if nodes.condition(node, "Ready") is not None else START_GRACE
        late = view.heard + grace * self._pace
        if now >= late:
            lost = _silent(node, now)
            if lost is not None:
                return [*actions, *lost_pods(view, now), lost, *_status_change(node)]
        else:
            actions.append(Again(late - now))
        tainted = nodes.with_taints(node, "NoSchedule", _OURS, _wanted(node), now)
        if tainted is not None:
            actions.append(Update("nodes", tainted))
        return actions


def _status_change(node: Obj) -> list[Action]:
    if nodes.ready(node) != "True":
        return []
    return [NODE_NOT_READY.about(node.body, node=node.name)]


def _silent(node: Obj, now: float) -> SetStatus | None:
    """The node with every condition Unknown; None where it has that already."""
    at = rfc3339(now)
    conditions = [dict(c) for c in node.status.get("conditions") or ()]
    changed = False
    for kind in _WATCHED:
        held = next((c for c in conditions if c["type"] == kind), None)
        if held is None:
            born = node.meta.get("creationTimestamp", at)
            conditions.append({
                "type": kind, "status": NEVER.status, "reason": NEVER.reason,
                "message": NEVER.message, "lastHeartbeatTime": born, "lastTransitionTime": at,
            })  # fmt: skip
            changed = True
        elif held["status"] != "Unknown":
            held.update(
                status=SILENT.status, reason=SILENT.reason, lastTransitionTime=at,
                message=SILENT.message,
            )  # fmt: skip
            changed = True
    if not changed:
        return None
    return SetStatus("nodes", {**node.body, "status": {**node.status, "conditions": conditions}})


def lost_pods(view: View, now: float) -> list[Action]:
    """What runs on a node that is lost is ready for nobody. Comes before the node's own status, so
    that a crash between the two leaves nothing out."""
    if nodes.ready(view.node) != "True":
        return []
    actions: list[Action] = []
    for pod in view.pods:
        if not podlib.is_ready(pod.body):
            continue
        new = {"type": "Ready", "status": "False", "lastTransitionTime": rfc3339(now)}
        patch = {"metadata": {"uid": pod.uid}, "status": {"conditions": [new]}}
        actions.append(Patch(pod.key, patch, "strategic", "status"))
        actions.append(POD_NOT_READY.about(pod.body))
    return actions


def _wanted(node: Obj) -> list[str]:
    """The NoSchedule taints of what the node's conditions tell."""
    found = [
        _BY_CONDITION[c["type"], c["status"]]
        for c in node.status.get("conditions") or ()
        if (c["type"], c["status"]) in _BY_CONDITION
    ]
    if node.spec.get("unschedulable"):
        found.append(_UNSCHEDULABLE)
    return found
