"""Protection of claims and volumes in use: what is deleted goes when nobody needs it any more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sampan.api.obj import Body, Key, Obj
from sampan.control import storage
from sampan.control.facts import Facts, Mark
from sampan.control.plan import Action, Caches, Trigger, Update, own
from sampan.controllers.volume_binder import pod_claims

PVC_FINALIZER = "kubernetes.io/pvc-protection"
PV_FINALIZER = "kubernetes.io/pv-protection"
_T = "tests/flows/test_storage.py::"
FACTS = (
    Facts(
        kind="Protection",
        page="PersistentVolumeClaim",
        controller="pvc-protection-controller",
        reads=(
            Mark(PVC_FINALIZER, "PersistentVolumeClaim",
                 "finalizer of every claim (by admission); taken away when it is deleted and no "
                 "pod that has a node names it",
                 f"{_T}test_a_claim_in_use_stays_until_its_pod_is_gone"),
        ),
    ),
    Facts(
        kind="Protection of volumes",
        page="PersistentVolume",
        controller="pv-protection-controller",
        reads=(
            Mark(PV_FINALIZER, "PersistentVolume",
                 "finalizer of every volume (by admission); taken away when it is deleted and not "
                 "bound",
                 f"{_T}test_a_retained_volume_is_released_and_a_lost_one_leaves_its_claim_lost"),
        ),
    ),
)  # fmt: skip


def _without(resource: str, body: Body, finalizer: str) -> Update:
    kept = [f for f in body["metadata"].get("finalizers") or () if f != finalizer]
    return Update(resource, {**body, "metadata": {**body["metadata"], "finalizers": kept}})


def _waits(obj: Obj | None, finalizer: str) -> bool:
    return (
        obj is not None and obj.is_deleting and finalizer in (obj.meta.get("finalizers") or ())
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class ClaimView:
    """A claim that is being deleted and the pods that name it."""

    claim: Body
    pods: tuple[Body, ...]


class ClaimProtection:
    """Upstream's pvc-protection-controller: a claim stays while a pod with a node uses it."""

    name = "pvc-protection-controller"
    workers = 1

    def __init__(self) -> None:
        self.triggers: tuple[Trigger, ...] = (
            own(storage.CLAIMS),
            Trigger("pods", self._of_pod),
        )
        self.indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]] = {
            "pods": {"claims": pod_claims}
        }

    @staticmethod
    def _of_pod(pod: Obj, _caches: Caches) -> Iterable[Key]:
        for name, _volume in storage.claims_of(pod.body):
            yield Key(storage.CLAIMS, pod.namespace, name)

    def observe(self, key: Key, caches: Caches) -> ClaimView | None:
        claim = caches[storage.CLAIMS].get(key.namespace, key.name)
        if claim is None or not _waits(claim, PVC_FINALIZER):
            return None
        pods = caches["pods"].by("claims", f"{key.namespace}/{key.name}")
        return ClaimView(claim.body, tuple(p.body for p in pods))

    def plan(self, view: ClaimView, now: float) -> Sequence[Action]:
        if any(uses(pod, view.claim) for pod in view.pods):
            return []
        return [_without(storage.CLAIMS, view.claim, PVC_FINALIZER)]


def uses(pod: Body, claim: Body) -> bool:
    """Whether a pod keeps a claim alive. One without a node does not: the node it gets will refuse
    a claim that is being deleted. An ephemeral volume of a pod that has ended is free."""
    if not pod["spec"].get("nodeName"):
        return False
    for name, volume in storage.claims_of(pod):
        if name != claim["metadata"]["name"]:
            continue
        if volume.get("persistentVolumeClaim") is not None:
            return True
        if not _is_shut_down(pod) and storage.is_for_pod(claim, pod):
            return True
    return False


def _is_shut_down(pod: Body) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


class VolumeProtection:
    """Upstream's pv-protection-controller: a volume stays while it is bound."""

    name = "pv-protection-controller"
    workers = 1

    def __init__(self) -> None:
        self.triggers: tuple[Trigger, ...] = (own(storage.VOLUMES),)
        self.indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]] = {}

    def observe(self, key: Key, caches: Caches) -> Body | None:
        volume = caches[storage.VOLUMES].get("", key.name)
        return volume.body if volume is not None and _waits(volume, PV_FINALIZER) else None

    def plan(self, view: Body, now: float) -> Sequence[Action]:
        if (view.get("status") or {}).get("phase") == "Bound":
            return []
        return [_without(storage.VOLUMES, view, PV_FINALIZER)]
