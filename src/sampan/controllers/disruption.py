"""PodDisruptionBudget: how many pods may be evicted now (policy/v1).

The eviction subresource counts down what this controller allows; both write the same status, each
only over what it has seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from sampan.api.obj import Body, Key, Obj
from sampan.control.facts import NORMAL, WARNING, Condition, Event, Facts, Field, Mark
from sampan.control.plan import Action, Again, Caches, Patch, SetStatus, Trigger, own
from sampan.controllers import budgets
from sampan.controllers import pods as podlib
from sampan.lib.clock import parse_rfc3339, rfc3339
from sampan.lib.selectors import SelectorError, format_label_selector, from_label_selector

RESOURCE = "poddisruptionbudgets.policy"
ALLOWED = "DisruptionAllowed"
TARGET = "DisruptionTarget"
_T = "tests/controllers/test_disruption.py::"
_SCALES = {
    "ReplicaSet": "replicasets.apps", "StatefulSet": "statefulsets.apps",
    "ReplicationController": "replicationcontrollers", "Deployment": "deployments.apps",
}  # fmt: skip

SUFFICIENT = Condition(ALLOWED, "True", "SufficientPods", "", f"{_T}test_a_budget")
INSUFFICIENT = Condition(ALLOWED, "False", "InsufficientPods", "", f"{_T}test_a_budget")
FAILED = Condition(ALLOWED, "False", "SyncFailed", "{error}", f"{_T}test_a_pod_of_nobody_known")
NO_PODS = Event(NORMAL, "NoPods", "No matching pods found", f"{_T}test_no_pods")
UNMANAGED = Event(
    WARNING, "UnmanagedPods",
    "Pods selected by this PodDisruptionBudget (selector: {selector}) were found to be unmanaged. "
    "As a result, the status of the PDB cannot be calculated correctly, which may result in "
    'undefined behavior. To account for these pods please set ".spec.minAvailable" field of the '
    "PDB to an integer value.",
    f"{_T}test_unmanaged_pods",
)  # fmt: skip
NOT_COUNTED = Event(
    WARNING, "CalculateExpectedPodCountFailed",
    "Failed to calculate the number of expected pods: {error}",
    f"{_T}test_a_pod_of_nobody_known",
)  # fmt: skip
NOT_DELETED = Event(
    WARNING, "NotDeleted", "Pod was expected by PDB {budget} to be deleted but it wasn't",
    f"{_T}test_an_eviction_that_did_not_happen",
)  # fmt: skip

FACTS = Facts(
    kind="PodDisruptionBudget",
    definition="io.k8s.api.policy.v1.PodDisruptionBudget",
    controller="disruption-controller",
    status=(
        Field("disruptionsAllowed", "pods that may be evicted now", f"{_T}test_a_budget"),
        Field("currentHealthy", "ready pods that nobody deletes", f"{_T}test_a_budget"),
        Field("desiredHealthy", "pods that must stay healthy", f"{_T}test_a_budget"),
        Field("expectedPods", "pods that are counted on", f"{_T}test_a_budget"),
        Field("disruptedPods", "pods that are being evicted, since when",
              f"{_T}test_an_eviction_that_did_not_happen"),
        Field("observedGeneration", "the generation the counts belong to", f"{_T}test_a_budget"),
        Field("conditions", "see below", f"{_T}test_a_budget"),
    ),
    conditions=(SUFFICIENT, INSUFFICIENT, FAILED),
    events=(NO_PODS, UNMANAGED, NOT_COUNTED, NOT_DELETED),
    reads=(
        Mark(TARGET, "Pod (condition)", "taken back when the pod is still there after two minutes",
             f"{_T}test_a_stale_disruption_is_taken_back"),
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class View:
    """A budget and its pods. scales: by uid of their controllers, what these ask for; unmanaged:
    whether a pod has none; lost: the name of a pod whose controller nobody knows."""

    budget: Obj
    pods: tuple[Obj, ...]
    scales: Mapping[str, int]
    unmanaged: bool = False
    lost: str = ""


def selects(budget: Obj, pod: Obj) -> bool:
    """Whether a budget guards a pod. An empty selector selects all pods of the namespace."""
    try:
        return from_label_selector(budget.spec.get("selector")).matches(pod.labels)
    except SelectorError:
        return False


class DisruptionController:
    """Keeps the status of budgets."""

    name = "disruption-controller"
    workers = 2

    def __init__(self) -> None:
        self.triggers: tuple[Trigger, ...] = (own(RESOURCE), Trigger("pods", self._keys_of_pod))
        # Named here so that their caches are there and synced.
        self.indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]] = {
            resource: {} for resource in _SCALES.values()
        }

    @staticmethod
    def _keys_of_pod(pod: Obj, caches: Caches) -> Iterable[Key]:
        return [b.key for b in caches[RESOURCE].list(pod.namespace) if selects(b, pod)]

    def observe(self, key: Key, caches: Caches) -> View | None:
        budget = caches[RESOURCE].get(key.namespace, key.name)
        if budget is None or budget.is_deleting:
            return None
        pods = tuple(p for p in caches["pods"].list(key.namespace) if selects(budget, p))
        scales: dict[str, int] = {}
        unmanaged, lost = False, ""
        for p in pods:
            ref = p.controller
            if ref is None:
                unmanaged = True
            elif (found := _scale(ref, key.namespace, caches)) is not None:
                scales[found[0]] = found[1]
            else:
                lost = lost or p.name
        return View(budget, pods, scales, unmanaged, lost)

    def plan(self, view: View, now: float) -> Sequence[Action]:
        budget, spec = view.budget, view.budget.spec
        body, old = budget.body, budget.status
        actions: list[Action] = []
        if not view.pods:
            actions.append(NO_PODS.about(body))
        counted = budgets.needs_scale(spec)
        if counted and view.lost:
            return [*actions, *_not_counted(budget, view.lost, now)]
        if counted and view.unmanaged:
            shown = format_label_selector(spec.get("selector"))
            actions.append(UNMANAGED.about(body, selector=shown))
        scale = sum(view.scales.values())
        expected, wanted = budgets.desired(spec, len(view.pods), scale)
        disrupted, late = budgets.still_disrupted(view.pods, old, now)
        name = f"{budget.namespace}/{budget.name}"
        actions += [NOT_DELETED.about(p.body, budget=name) for p in late]
        current = budgets.healthy(view.pods, disrupted)
        allowed = max(0, current - wanted) if expected > 0 else 0
        generation = int(budget.meta.get("generation", 0))
        status: Body = {
            "disruptionsAllowed": allowed, "currentHealthy": current, "desiredHealthy": wanted,
            "expectedPods": expected, "observedGeneration": generation,
        }  # fmt: skip
        if disrupted:
            status["disruptedPods"] = disrupted
        what = SUFFICIENT if allowed else INSUFFICIENT
        status["conditions"] = budgets.with_condition(old, what, now, generation=generation)
        if status != old:
            actions.append(SetStatus(RESOURCE, {**body, "status": status}))
        if disrupted:
            first = min(map(parse_rfc3339, disrupted.values()))
            actions.append(Again(first + budgets.DELETION_TIMEOUT - now + 1))
        return actions


def _scale(ref: Body, namespace: str, caches: Caches) -> tuple[str, int] | None:
    """Who decides how many pods there are, and how many; a ReplicaSet of a Deployment does not."""
    resource = _SCALES.get(str(ref.get("kind")))
    found = caches[resource].get(namespace, ref["name"]) if resource else None
    if found is None or found.uid != ref.get("uid"):
        return None
    above = found.controller
    if above is not None and above.get("kind") == "Deployment":
        return _scale(above, namespace, caches)
    return found.uid, int(found.spec.get("replicas", 1))


def _not_counted(budget: Obj, pod: str, now: float) -> list[Action]:
    """What can not be reckoned allows nothing."""
    error = f'found no controllers for pod "{pod}"'
    old = budget.status
    generation = int(old.get("observedGeneration", 0))
    status = {**old, "disruptionsAllowed": 0}
    status["conditions"] = budgets.with_condition(
        old, FAILED, now, generation=generation, message=FAILED.text(error=error)
    )
    actions: list[Action] = [NOT_COUNTED.about(budget.body, error=error)]
    if status != old:
        actions.append(SetStatus(RESOURCE, {**budget.body, "status": status}))
    return actions


class StaleDisruptions:
    """Takes back the DisruptionTarget condition of pods that were to be disrupted and were not."""

    name = DisruptionController.name
    workers = 1

    def __init__(self) -> None:
        self.triggers: tuple[Trigger, ...] = (
            Trigger("pods", lambda pod, _caches: (pod.key,) if _is_target(pod) else ()),
        )
        self.indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]] = {}

    def observe(self, key: Key, caches: Caches) -> Obj | None:
        pod = caches["pods"].get(key.namespace, key.name)
        return pod if pod is not None and _is_target(pod) else None

    def plan(self, view: Obj, now: float) -> Sequence[Action]:
        (held,) = [c for c in view.status["conditions"] if c["type"] == TARGET]
        at = parse_rfc3339(held["lastTransitionTime"]) + budgets.DELETION_TIMEOUT
        if at > now:
            return [Again(at - now)]
        new = {"type": TARGET, "status": "False", "reason": None, "message": None,
               "lastTransitionTime": rfc3339(now)}  # fmt: skip
        patch = {"metadata": {"uid": view.uid}, "status": {"conditions": [new]}}
        return [Patch(view.key, patch, "strategic", "status")]


def _is_target(pod: Obj) -> bool:
    """What the kubelet ends by itself may take as long as it likes."""
    if pod.is_deleting or podlib.is_finished(pod.body):
        return False
    return any(
        c["type"] == TARGET and c["status"] == "True"
        and c.get("reason") != "TerminationByKubelet" and c.get("lastTransitionTime")
        for c in pod.status.get("conditions") or ()
    )  # fmt: skip
