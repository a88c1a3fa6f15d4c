"""Generic ephemeral volumes: a claim for each, which lives and dies with its pod."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sampan.api.obj import Body, Key, Obj
from sampan.control import storage
from sampan.control.facts import WARNING, Event, Facts
from sampan.control.plan import Action, Caches, Create, Trigger, own
from sampan.controllers.pods import owner_reference

_T = "tests/flows/test_storage.py::test_ephemeral_volumes_live_and_die_with_their_pod"
NOT_OURS = Event(WARNING, "FailedBinding", "ephemeral volume {volume}: {why}", _T)
FACTS = Facts(
    kind="Ephemeral volumes",
    page="PersistentVolumeClaim",
    controller="ephemeral-volume-controller",
    events=(NOT_OURS,),
)


@dataclass(frozen=True, slots=True)
class View:
    """A pod with ephemeral volumes, and the claims of their names that there are."""

    pod: Body
    claims: dict[str, Body]


def _names(pod: Obj) -> Iterable[str]:
    """Index: ``namespace/claim`` of a pod's ephemeral volumes."""
    for name, volume in storage.claims_of(pod.body):
        if volume.get("ephemeral") is not None:
            yield f"{pod.namespace}/{name}"


class EphemeralVolumes:
    """Upstream's ephemeral-volume-controller."""

    name = "ephemeral-volume-controller"
    workers = 2

    def __init__(self) -> None:
        self.triggers: tuple[Trigger, ...] = (
            own("pods"),
            Trigger(storage.CLAIMS, self._of_claim),
        )
        self.indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]] = {
            "pods": {"ephemeral-claims": _names}
        }

    @staticmethod
    def _of_claim(claim: Obj, caches: Caches) -> Iterable[Key]:
        path = f"{claim.namespace}/{claim.name}"
        return [p.key for p in caches["pods"].by("ephemeral-claims", path)]

    def observe(self, key: Key, caches: Caches) -> View | None:
        pod = caches["pods"].get(key.namespace, key.name)
        if pod is None or pod.is_deleting:
            return None
        names = [path.partition("/")[2] for path in _names(pod)]
        if not names:
            return None
        held = {n: caches[storage.CLAIMS].get(key.namespace, n) for n in names}
        return View(pod.body, {n: c.body for n, c in held.items() if c is not None})

    def plan(self, view: View, now: float) -> Sequence[Action]:
        if (view.pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            return []
        actions: list[Action] = []
        for name, volume in storage.claims_of(view.pod):
            if volume.get("ephemeral") is None:
                continue
            held = view.claims.get(name)
            if held is None:
                actions.append(Create(storage.CLAIMS, claim_for(view.pod, volume)))
            elif not storage.is_for_pod(held, view.pod):
                why = storage.not_for_pod(held, view.pod)
                actions.append(NOT_OURS.about(view.pod, volume=volume["name"], why=why))
        return actions


def claim_for(pod: Body, volume: Body) -> Body:
    """The claim of one ephemeral volume: of the template's labels, annotations and spec."""
    template: Body = volume["ephemeral"]["volumeClaimTemplate"]
    given: Body = template.get("metadata") or {}
    meta: Body = {
        "name": storage.claim_name(pod, volume),
        "namespace": pod["metadata"]["namespace"],
        "ownerReferences": [owner_reference(pod, api_version="v1", kind="Pod")],
    }
    meta.update({k: dict(given[k]) for k in ("labels", "annotations") if given.get(k)})
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta,
            "spec": template["spec"]}  # fmt: skip
