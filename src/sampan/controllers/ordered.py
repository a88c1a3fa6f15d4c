"""The plan of a StatefulSet: what becomes of its pods, ordinal by ordinal.

It claims pods and revisions, decides on the pods, and writes the status before it touches a pod, so
that a pod that can not be made does not hide what is there. There is never more than one pod of an
identity: the pod of an ordinal is created only when no object of its name is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from sampan.api.obj import Body, Key, Obj
from sampan.control.facts import NORMAL, WARNING, Event
from sampan.control.plan import (
    Action,
    Again,
    Create,
    Delete,
    Patch,
    SetStatus,
    Update,
)
from sampan.controllers import history, rollout
from sampan.controllers import identity as ids
from sampan.controllers import pods as podlib
from sampan.lib.selectors import from_label_selector

RESOURCE = "statefulsets.apps"
CLAIMS = "persistentvolumeclaims"
HASH = "controller.kubernetes.io/hash"
TEST = "tests/controllers/test_statefulset.py::"

CREATED = Event(
    NORMAL, "SuccessfulCreate", "create Pod {pod} in StatefulSet {set} successful",
    f"{TEST}test_pods_are_made_in_order",
)  # fmt: skip
CREATE_FAILED = Event(
    WARNING, "FailedCreate", "create Pod {pod} in StatefulSet {set} failed error: {error}",
    f"{TEST}test_a_refused_pod_is_told",
)  # fmt: skip
DELETED = Event(
    NORMAL, "SuccessfulDelete", "delete Pod {pod} in StatefulSet {set} successful",
    f"{TEST}test_scaling_down_goes_from_the_top",
)  # fmt: skip
DELETE_FAILED = Event(
    WARNING, "FailedDelete", "delete Pod {pod} in StatefulSet {set} failed error: {error}",
    f"{TEST}test_a_refused_deletion_is_told",
)  # fmt: skip
UPDATED = Event(
    NORMAL, "SuccessfulUpdate", "update Pod {pod} in StatefulSet {set} successful",
    f"{TEST}test_adopted_pods_get_their_identity",
)  # fmt: skip
CLAIM_CREATED = Event(
    NORMAL, "SuccessfulCreate", "create Claim {claim} Pod {pod} in StatefulSet {set} success",
    f"{TEST}test_claims_come_before_their_pods",
)  # fmt: skip
CLAIM_FAILED = Event(
    WARNING, "FailedCreate",
    "create Claim {claim} for Pod {pod} in StatefulSet {set} failed error: {error}",
    f"{TEST}test_a_refused_claim_holds_its_pod_back",
)  # fmt: skip
CONFLICTING = Event(
    WARNING, "ConflictingController",
    "PersistentVolumeClaim {claim} has a conflicting OwnerReference that acts as a manging "
    "controller, the retention policy is ignored for this claim",
    f"{TEST}test_a_claim_of_another_controller_is_left_alone",
)  # fmt: skip
FAILED_POD = Event(
    WARNING, "RecreatingFailedPod", "StatefulSet {namespace}/{set} is recreating failed Pod {pod}",
    f"{TEST}test_finished_pods_are_made_again",
)  # fmt: skip
ENDED_POD = Event(
    NORMAL, "RecreatingTerminatedPod",
    "StatefulSet {namespace}/{set} is recreating terminated Pod {pod}",
    f"{TEST}test_finished_pods_are_made_again",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class View:
    """A StatefulSet, the pods and revisions it owns and may adopt, and what has a given name: pods
    of other owners, revisions, claims."""

    body: Body
    owned: tuple[Obj, ...]
    adoptable: tuple[Obj, ...]
    revisions: tuple[Obj, ...]
    pod_named: Callable[[str], Obj | None]
    revision_named: Callable[[str], Obj | None]
    claim_named: Callable[[str], Obj | None]


def is_member(owner: Body, pod: Obj) -> bool:
    """Whether the pod has a name the set gives."""
    parent, ordinal = ids.parent_and_ordinal(pod.name)
    return parent == owner["metadata"]["name"] and pod.name == ids.pod_name(owner, ordinal)


@dataclass(slots=True)
class Plan:
    """One plan in the making: ``head`` is carried out before the status is written, ``acts``
    after it."""

    view: View
    now: float
    head: list[Action] = field(default_factory=list)
    acts: list[Action] = field(default_factory=list)
    pods: dict[int, Body] = field(default_factory=dict)  # by ordinal
    current: Body = field(default_factory=dict)  # the revision most pods have
    update: Body = field(default_factory=dict)  # the revision they shall have
    leaving: set[str] = field(default_factory=set)  # uids of pods this plan removes to update them
    collisions: int = 0

    @property
    def s(self) -> Body:
        return self.view.body

    def run(self) -> Sequence[Action]:
        deleting = "deletionTimestamp" in self.s["metadata"]
        self._claim_pods(adopt=not deleting)
        self.collisions = int((self.s.get("status") or {}).get("collisionCount") or 0)
        revisions = history.in_order(self.view.revisions)
        if deleting:
            # History goes with the set or loses it; only what was is counted on.
            names = self.s.get("status") or {}
            self.current = {"metadata": {"name": names.get("currentRevision", "")}}
            self.update = {"metadata": {"name": names.get("updateRevision", "")}}
        else:
            self._revise(revisions)
            if self._make_all() and self._shrink():
                self._roll()
            self.acts += self._forget(revisions)
        waits = podlib.next_available(self.pods.values(), self._minimum, self.now)
        again: list[Action] = [Again(waits)] if waits is not None else []
        return [*self.head, *self._status(), *self.acts, *again]

    # -- what is there -------------------------------------------------------------------------

    def _claim_pods(self, *, adopt: bool) -> None:
        selector = from_label_selector(self.s["spec"].get("selector"))
        uid = self.s["metadata"]["uid"]
        kept = []
        for pod in self.view.owned:
            if adopt and not (selector.matches(pod.labels) and is_member(self.s, pod)):
                ref = {"$patch": "delete", "uid": uid}
                patch = {"metadata": {"uid": pod.uid, "ownerReferences": [ref]}}
                self.head.append(Patch(pod.key, patch, kind="strategic"))
            else:
                kept.append(pod)
        for pod in self.view.adoptable:
            ref = podlib.owner_reference(self.s, api_version="apps/v1", kind="StatefulSet")
            patch = {"metadata": {"uid": pod.uid, "ownerReferences": [ref]}}
            self.head.append(Patch(pod.key, patch, kind="strategic"))
            kept.append(pod)
        found = {ids.ordinal_of(p.body): p.body for p in kept}
        self.pods = {o: found[o] for o in sorted(found) if o >= 0}

    def _revise(self, revisions: list[Body]) -> None:
        """Find or make the revision of the template as it is now."""
        for r in self.view.revisions:
            if r.controller is None:
                self.head.append(history.adopt(r, self.s, kind="StatefulSet"))
        data = history.snapshot(self.s)
        number = history.number_of(revisions[-1]) + 1 if revisions else 1
        wanted = history.key_of(data)
        equal = [r for r in revisions if history.key_of(r.get("data")) == wanted]
        if equal and equal[-1] is revisions[-1]:
            self.update = equal[-1]
        elif equal:
            self.update = {**equal[-1], "revision": number}
            self.head.append(Update(history.RESOURCE, self.update))
        else:
            self.update = self._new_revision(data, number)
        before = (self.s.get("status") or {}).get("currentRevision", "")
        named = [r for r in revisions if r["metadata"]["name"] == before]
        self.current = named[0] if named else self.update

    def _new_revision(self, data: Body, number: int) -> Body:
        name, digest, self.collisions, held = history.free_name(
            self.s, data, self.view.revision_named
        )
        if held is not None:
            return held
        body = history.build(
            self.s, data, kind="StatefulSet", name=name, number=number, labels={HASH: digest}
        )
        self.head.append(Create(history.RESOURCE, body))
        return body

    def _forget(self, revisions: list[Body]) -> list[Delete]:
        live = [
            self.current["metadata"]["name"], self.update["metadata"]["name"],
            *(ids.revision_of(p) for p in self.pods.values()),
        ]  # fmt: skip
        return history.beyond_limit(self.s, revisions, live, count_live=False)

    # -- what pods are -------------------------------------------------------------------------

    @property
    def _minimum(self) -> int:
        return int(self.s["spec"].get("minReadySeconds", 0))

    @property
    def _in_order(self) -> bool:
        return bool(self.s["spec"].get("podManagementPolicy") != "Parallel")

    def _is_up(self, pod: Body | None) -> bool:
        """Running, ready, and for long enough."""
        return pod is not None and _is_running(pod) and podlib.is_available(
            pod, self._minimum, self.now
        )  # fmt: skip

    def _is_unavailable(self, pod: Body | None) -> bool:
        return not self._is_up(pod) or _is_leaving(pod)

    # -- replicas ------------------------------------------------------------------------------

    def _make_all(self) -> bool:
        """See to every ordinal, lowest first; whether the plan may go on to remove pods. In order
        means one at a time: what is not up holds back all that come after it."""
        for ordinal in ids.ordinals(self.s):
            if not self._see_to(ordinal) and self._in_order:
                return False
        return True

    def _see_to(self, ordinal: int) -> bool:
        """Whether the pod of *ordinal* is as it should be."""
        pod = self.pods.get(ordinal)
        if pod is None:
            self._make(ordinal)
            return False
        if podlib.is_finished(pod):
            if not _is_leaving(pod):
                failed = pod["status"]["phase"] == "Failed"
                event = FAILED_POD if failed else ENDED_POD
                names = {"namespace": pod["metadata"]["namespace"], **self._names(pod)}
                self.acts += [event.about(self.s, **names), self._delete(pod)]
            return False
        if (pod.get("status") or {}).get("phase") == "Pending" and not _is_leaving(pod):
            self.acts += [self._new_claim(c, pod["metadata"]["name"], then=())
                          for c in self._missing_claims(ordinal)]  # fmt: skip
        if self._in_order and self._is_unavailable(pod):
            return False
        self._keep_identity(pod, ordinal)
        self._keep_claims(pod, ordinal, condemned=False)
        return True

    def _make(self, ordinal: int) -> None:
        name = ids.pod_name(self.s, ordinal)
        if self.view.pod_named(name) is not None:
            return  # another owner's pod has the name; its deletion wakes this set
        held = [self.view.claim_named(c) for c in ids.claim_names(self.s, ordinal).values()]
        if any(c and (c.is_deleting or ids.is_stale(self.s, c.body)) for c in held):
            return
        revision = self._revision_for(ordinal)
        body = ids.new_pod(
            self.s, history.template_of(revision), ordinal=ordinal,
            revision=revision["metadata"]["name"],
        )  # fmt: skip
        names = {"pod": name, "set": self.s["metadata"]["name"]}
        step: Create = Create(
            "pods", body,
            done=lambda _: [*self._conflicts(held), CREATED.about(self.s, **names)],
            failed=lambda e: [] if "already exists" in e else [
                CREATE_FAILED.about(self.s, error=e, **names)
            ],
        )  # fmt: skip
        for claim in reversed(self._missing_claims(ordinal)):
            step = self._new_claim(claim, name, then=(step,))
        self.acts.append(step)

    def _revision_for(self, ordinal: int) -> Body:
        """The revision a new pod is made of: below the partition the current one."""
        rolling = (self.s["spec"].get("updateStrategy") or {}).get("rollingUpdate") or {}
        start, below = ids.ordinals(self.s).start, int(rolling.get("partition") or 0)
        return self.current if ordinal < start + below else self.update

    def _keep_identity(self, pod: Body, ordinal: int) -> None:
        meta = pod["metadata"]
        wanted = ids.labels_of(meta["name"], ordinal)
        labels = meta.get("labels") or {}
        if any(labels.get(k) != v for k, v in wanted.items()):
            patch = {"metadata": {"uid": meta["uid"], "labels": wanted}}
            key = Key("pods", meta["namespace"], meta["name"])
            self.acts += [Patch(key, patch), UPDATED.about(self.s, **self._names(pod))]

    # -- claims --------------------------------------------------------------------------------

    def _missing_claims(self, ordinal: int) -> list[Body]:
        wanted = ids.new_claims(self.s, ordinal)
        return [c for c in wanted if self.view.claim_named(c["metadata"]["name"]) is None]

    def _new_claim(self, claim: Body, pod: str, *, then: Sequence[Action]) -> Create:
        """Create *claim* and, once it is there, go on with *then*."""
        names = {"pod": pod, "set": self.s["metadata"]["name"]}
        name = claim["metadata"]["name"]
        return Create(
            CLAIMS, claim,
            done=lambda _: [CLAIM_CREATED.about(self.s, claim=name, **names), *then],
            failed=lambda e: [
                CLAIM_FAILED.about(self.s, claim=name, error=e, **names),
                CREATE_FAILED.about(
                    self.s, error=f"failed to create PVC {name}: {e}", **names
                ),
            ],
        )  # fmt: skip

    def _keep_claims(self, pod: Body, ordinal: int, *, condemned: bool) -> None:
        """Owner references of the pod's claims follow the retention policy."""
        for name in ids.claim_names(self.s, ordinal).values():
            held = self.view.claim_named(name)
            if held is None or held.is_deleting:
                continue
            wanted = ids.wanted_owners(self.s, held.body, pod=pod if condemned else None)
            if _uids(wanted) != _uids(held.owners):
                self.acts += self._conflicts([held])
                meta = {k: v for k, v in held.meta.items() if k != "ownerReferences"}
                if wanted:
                    meta["ownerReferences"] = wanted
                self.acts.append(Update(CLAIMS, {**held.body, "metadata": meta}))

    def _conflicts(self, held: Iterable[Obj | None]) -> list[Action]:
        """Tell of claims that something else controls."""
        return [
            CONFLICTING.about(self.s, claim=c.name)
            for c in held
            if c is not None and ids.has_foreign_controller(self.s, c.body, None)
        ]

    # -- pods that go --------------------------------------------------------------------------

    def _shrink(self) -> bool:
        """Remove pods beyond the wanted ordinals, highest first; whether the plan may go on."""
        wanted = ids.ordinals(self.s)
        condemned = [o for o in sorted(self.pods, reverse=True) if o not in wanted]
        broken = next((o for o in reversed(condemned) if self._is_unavailable(self.pods[o])), None)
        for ordinal in condemned:
            self._keep_claims(self.pods[ordinal], ordinal, condemned=True)
        for ordinal in condemned:
            pod = self.pods[ordinal]
            if _is_leaving(pod):
                if self._in_order:
                    return False
                continue
            if self._in_order and not self._is_up(pod) and ordinal != broken:
                return False
            self.acts.append(self._delete(pod))
            if self._in_order:
                return False
        return True

    def _roll(self) -> None:
        """Remove pods of other revisions, highest ordinal first, as far as maxUnavailable goes;
        they come back updated. Pods that are down already are no loss to a Parallel set."""
        strategy = self.s["spec"].get("updateStrategy") or {}
        if strategy.get("type") == "OnDelete":
            return
        rolling = strategy.get("rollingUpdate") or {}
        wanted = ids.ordinals(self.s)
        budget = rollout.resolve(rolling.get("maxUnavailable", 1), len(wanted), up=False)
        budget = max(1, budget) - sum(self._is_unavailable(self.pods.get(o)) for o in wanted)
        first = wanted.start + int(rolling.get("partition") or 0)
        name = self.update["metadata"]["name"]
        old = [
            p
            for o in reversed(wanted)
            if o >= first
            and (p := self.pods.get(o)) is not None
            and ids.revision_of(p) != name
            and not _is_leaving(p)
        ]
        if self._in_order:
            chosen = old[: max(0, budget)]
        else:
            # A pod that ended is being removed by this plan already.
            down = [p for p in old if not self._is_up(p) and not podlib.is_finished(p)]
            chosen = [*down, *[p for p in old if self._is_up(p)][: max(0, budget)]]
        for pod in chosen:
            self.leaving.add(pod["metadata"]["uid"])
            self.acts.append(self._delete(pod))

    def _delete(self, pod: Body) -> Delete:
        meta, names = pod["metadata"], self._names(pod)
        return Delete(
            Key("pods", meta["namespace"], meta["name"]),
            uid=meta["uid"],
            done=lambda: [DELETED.about(self.s, **names)],
            failed=lambda e: [DELETE_FAILED.about(self.s, error=e, **names)],
        )

    def _names(self, pod: Body) -> dict[str, str]:
        return {"pod": pod["metadata"]["name"], "set": self.s["metadata"]["name"]}

    # -- status --------------------------------------------------------------------------------

    def _status(self) -> list[Action]:
        s = self.s
        old: Body = s.get("status") or {}
        pods = list(self.pods.values())
        current, update = self.current["metadata"]["name"], self.update["metadata"]["name"]
        ready = [p for p in pods if _is_running(p)]
        staying = [
            p for p in pods if not _is_leaving(p) and p["metadata"]["uid"] not in self.leaving
        ]
        counts = {
            "readyReplicas": len(ready),
            "currentReplicas": sum(ids.revision_of(p) == current for p in staying),
            "updatedReplicas": sum(ids.revision_of(p) == update for p in staying),
        }
        total = int(s["spec"].get("replicas", 1))
        rolling = (s["spec"].get("updateStrategy") or {}).get("type") == "RollingUpdate"
        if rolling and counts["updatedReplicas"] == counts["readyReplicas"] == len(pods) == total:
            # The rollout is complete: what was new is current.
            counts["currentReplicas"], current = counts["updatedReplicas"], update
        status: Body = {
            "observedGeneration": s["metadata"].get("generation", 0),
            "replicas": len(pods),
            "availableReplicas": sum(self._is_up(p) for p in pods),
            **{k: v for k, v in counts.items() if v},
            "currentRevision": current,
            "updateRevision": update,
            "collisionCount": self.collisions,
        }
        if old.get("conditions"):
            status["conditions"] = old["conditions"]
        status = {k: v for k, v in status.items() if v != ""}
        if status == old:
            return []
        return [SetStatus(RESOURCE, {**s, "status": status}, patient=True)]


def _is_running(pod: Body) -> bool:
    """Running and ready."""
    phase = (pod.get("status") or {}).get("phase")
    return phase == "Running" and podlib.is_ready(pod)


def _is_leaving(pod: Body | None) -> bool:
    return pod is not None and "deletionTimestamp" in pod["metadata"]


def _uids(refs: Iterable[Body]) -> list[tuple[str, bool]]:
    return sorted((str(r.get("uid", "")), bool(r.get("controller"))) for r in refs)


EVENTS = (
    CREATED,
    CREATE_FAILED,
    DELETED,
    DELETE_FAILED,
    UPDATED,
    CLAIM_CREATED,
    CLAIM_FAILED,
    CONFLICTING,
    FAILED_POD,
    ENDED_POD,
)
