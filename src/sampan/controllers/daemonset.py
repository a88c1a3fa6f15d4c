"""DaemonSet: a pod on every node that should have one (see daemons for what is decided)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sampan.api.obj import Key, Obj
from sampan.control.facts import Facts, Field, Mark
from sampan.control.plan import Action, Caches, Trigger, own
from sampan.controllers import history
from sampan.controllers import pods as podlib
from sampan.controllers.daemons import EVENTS, GENERATION, RESOURCE, TEST, Plan, View
from sampan.lib.selectors import from_label_selector


class DaemonSetController:
    """Remembers, in memory only, how often failed pods of a node were removed lately."""

    name = "daemon-set-controller"
    workers = 2
    resource = RESOURCE

    def __init__(self) -> None:
        self.triggers: tuple[Trigger, ...] = (
            own(self.resource),
            Trigger("pods", self._keys_of_pod),
            Trigger(history.RESOURCE, self._keys_of_revision),
            Trigger("nodes", self._keys_of_node),
        )
        self.indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]] = {
            "pods": {"orphan": podlib.orphan_namespace},
            history.RESOURCE: {"orphan": podlib.orphan_namespace},
        }
        self._failures: dict[Key, dict[str, tuple[float, float]]] = {}
        self._nodes: dict[str, Any] = {}  # what placing looks at, of the nodes seen last

    def _keys_of_pod(self, pod: Obj, caches: Caches) -> Iterable[Key]:
        ref = pod.controller
        if ref is not None:
            if ref.get("kind") == "DaemonSet":
                yield Key(self.resource, pod.namespace, ref["name"])
            return
        if not pod.is_deleting:
            for d in caches[self.resource].list(pod.namespace):
                if from_label_selector(d.spec.get("selector")).matches(pod.labels):
                    yield d.key

    def _keys_of_revision(self, revision: Obj, _caches: Caches) -> Iterable[Key]:
        ref = revision.controller
        if ref is not None and ref.get("kind") == "DaemonSet":
            yield Key(self.resource, revision.namespace, ref["name"])

    def _keys_of_node(self, node: Obj, caches: Caches) -> Iterable[Key]:
        """Every DaemonSet, where a node came, went, or changed in what placing looks at: nodes
        write their status often."""
        held = caches["nodes"].get("", node.name)
        if held is None:
            changed = self._nodes.pop(node.name, None) is not None
        else:
            now = (held.uid, held.labels, held.spec.get("taints"))
            changed = self._nodes.get(node.name) != now
            self._nodes[node.name] = now
        if changed:
            for d in caches[self.resource].list():
                yield d.key

    def observe(self, key: Key, caches: Caches) -> View | None:
        d = caches[self.resource].get(key.namespace, key.name)
        if d is None:
            self._failures.pop(key, None)
            return None
        selector = from_label_selector(d.spec.get("selector"))
        pods, revisions = caches["pods"], caches[history.RESOURCE]

        def mine(found: Iterable[Obj]) -> tuple[Obj, ...]:
            return tuple(o for o in found if (o.controller or {}).get("uid") == d.uid)

        def free(found: Iterable[Obj]) -> tuple[Obj, ...]:
            return tuple(o for o in found if selector.matches(o.labels) and not o.is_deleting)

        failures = self._failures.setdefault(key, {})

        def failed(node: str, delay: float, at: float) -> None:
            failures[node] = (delay, at)

        return View(
            d.body,
            mine(pods.by("owner", d.uid)),
            free(pods.by("orphan", key.namespace)),
            (*mine(revisions.by("owner", d.uid)), *free(revisions.by("orphan", key.namespace))),
            tuple(sorted(caches["nodes"].list(), key=lambda n: n.name)),
            lambda name: revisions.get(key.namespace, name),
            dict(failures),
            failed,
        )

    def plan(self, view: View, now: float) -> Sequence[Action]:
        return Plan(view, now).run()


_COUNTS = f"{TEST}test_status_counts_nodes"
FACTS = Facts(
    kind="DaemonSet",
    definition="io.k8s.api.apps.v1.DaemonSet",
    controller=DaemonSetController.name,
    status=(
        Field("desiredNumberScheduled", "nodes that should have a pod", _COUNTS),
        Field("currentNumberScheduled", "of these, those that have one", _COUNTS),
        Field("numberReady", "of these, those whose pod is ready", _COUNTS),
        Field(
            "numberAvailable", "of these, those whose pod is ready for minReadySeconds",
            f"{TEST}test_min_ready_seconds",
        ),
        Field("numberUnavailable", "nodes that should have an available pod and do not", _COUNTS),
        Field("updatedNumberScheduled", "nodes whose pod has the newest template", _COUNTS),
        Field(
            "numberMisscheduled", "nodes that have a pod and should not",
            f"{TEST}test_a_tolerated_taint_lets_pods_stay",
        ),
        Field("observedGeneration", "the generation the counts belong to", _COUNTS),
        Field(
            "collisionCount", "names of revisions that were taken by other data",
            f"{TEST}test_a_taken_name_of_a_revision_raises_the_collision_count",
        ),
        Field(
            "conditions", "none is set; those others set are kept",
            f"{TEST}test_conditions_of_others_are_kept",
        ),
    ),
    events=EVENTS,
    labels=(
        Mark(
            history.POD_HASH, "Pod, ControllerRevision", "the hash in the revision's name",
            f"{TEST}test_every_node_gets_one_pod",
        ),
        Mark(
            GENERATION, "Pod", "the generation of the template it was made of",
            f"{TEST}test_every_node_gets_one_pod",
        ),
    ),
)  # fmt: skip
