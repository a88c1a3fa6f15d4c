"""StatefulSet: pods that keep their names, made, updated and removed in order (see ordered)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from sampan.api.obj import Key, Obj
from sampan.control.facts import Facts, Field, Mark
from sampan.control.plan import Action, Caches, Trigger, own
from sampan.controllers import history
from sampan.controllers import identity as ids
from sampan.controllers import pods as podlib
from sampan.controllers.ordered import CLAIMS, EVENTS, HASH, RESOURCE, TEST, Plan, View, is_member
from sampan.lib.selectors import from_label_selector


class StatefulSetController:
    """Keeps ``spec.replicas`` pods alive that have names of their own."""

    name = "statefulset-controller"
    workers = 5
    resource = RESOURCE

    def __init__(self) -> None:
        self.triggers: tuple[Trigger, ...] = (
            own(self.resource),
            Trigger("pods", self._keys_of_pod),
            Trigger(history.RESOURCE, self._keys_of_revision),
            Trigger(CLAIMS, self._keys_of_claim),
        )
        self.indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]] = {
            "pods": {"orphan": podlib.orphan_namespace},
            history.RESOURCE: {"orphan": podlib.orphan_namespace},
        }

    def _keys_of_pod(self, pod: Obj, caches: Caches) -> Iterable[Key]:
        """The owner, and whoever the name spells: it waits for the name or adopts the pod."""
        names = {ids.parent_and_ordinal(pod.name)[0]}
        ref = pod.controller
        if ref is not None and ref.get("kind") == "StatefulSet":
            names.add(ref["name"])
        for name in sorted(names):
            if name and caches[self.resource].get(pod.namespace, name) is not None:
                yield Key(self.resource, pod.namespace, name)

    def _keys_of_revision(self, revision: Obj, _caches: Caches) -> Iterable[Key]:
        ref = revision.controller
        if ref is not None and ref.get("kind") == "StatefulSet":
            yield Key(self.resource, revision.namespace, ref["name"])

    def _keys_of_claim(self, claim: Obj, caches: Caches) -> Iterable[Key]:
        for s in caches[self.resource].list(claim.namespace):
            ordinal = ids.parent_and_ordinal(claim.name)[1]
            if claim.name in ids.claim_names(s.body, ordinal).values():
                yield s.key

    def observe(self, key: Key, caches: Caches) -> View | None:
        s = caches[self.resource].get(key.namespace, key.name)
        if s is None:
            return None
        selector = from_label_selector(s.spec.get("selector"))
        pods, revisions = caches["pods"], caches[history.RESOURCE]

        def mine(found: Iterable[Obj]) -> tuple[Obj, ...]:
            return tuple(o for o in found if (o.controller or {}).get("uid") == s.uid)

        def free(found: Iterable[Obj]) -> tuple[Obj, ...]:
            if s.is_deleting:
                return ()
            return tuple(o for o in found if selector.matches(o.labels) and not o.is_deleting)

        return View(
            s.body,
            mine(pods.by("owner", s.uid)),
            tuple(p for p in free(pods.by("orphan", key.namespace)) if is_member(s.body, p)),
            (*mine(revisions.by("owner", s.uid)), *free(revisions.by("orphan", key.namespace))),
            lambda name: pods.get(key.namespace, name),
            lambda name: revisions.get(key.namespace, name),
            lambda name: caches[CLAIMS].get(key.namespace, name),
        )

    def plan(self, view: View, now: float) -> Sequence[Action]:
        return Plan(view, now).run()


_COUNTS = f"{TEST}test_status_of_a_rollout"
FACTS = Facts(
    kind="StatefulSet",
    definition="io.k8s.api.apps.v1.StatefulSet",
    controller=StatefulSetController.name,
    status=(
        Field("observedGeneration", "the generation the counts belong to", _COUNTS),
        Field("replicas", "pods that exist", _COUNTS),
        Field("readyReplicas", "of these, those running and ready", _COUNTS),
        Field(
            "availableReplicas", "of these, those ready for minReadySeconds",
            f"{TEST}test_min_ready_seconds_holds_the_next_one_back",
        ),
        Field("currentReplicas", "pods of currentRevision that stay", _COUNTS),
        Field("updatedReplicas", "pods of updateRevision that stay", _COUNTS),
        Field("currentRevision", "the ControllerRevision pods had before the rollout", _COUNTS),
        Field("updateRevision", "the ControllerRevision pods shall have", _COUNTS),
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
        Mark(ids.POD_NAME, "Pod", "its name", f"{TEST}test_pods_are_made_in_order"),
        Mark(ids.POD_INDEX, "Pod", "its ordinal", f"{TEST}test_pods_are_made_in_order"),
        Mark(
            history.POD_HASH, "Pod", "the name of the ControllerRevision it was made of",
            f"{TEST}test_pods_are_made_in_order",
        ),
        Mark(
            HASH, "ControllerRevision", "the hash in its name",
            f"{TEST}test_revisions_keep_the_template",
        ),
    ),
)  # fmt: skip
