"""The plan of a DaemonSet: one pod on every node that should have one.

Pods are pinned to their nodes by node affinity (``metadata.name`` in matchFields) and bound by the
scheduler. First every node gets what it lacks and loses what it has too much of; a plan that had to
do none of that goes on with the rolling update.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from sampan.api.obj import Body, Key, Obj
from sampan.control.facts import NORMAL, WARNING, Event
from sampan.control.plan import Action, Again, Create, Delete, Patch, SetStatus, Update
from sampan.controllers import history, rollout
from sampan.controllers import pods as podlib
from sampan.controllers.daemonpods import belongs, in_order, pinned, pod_spec, target_of
from sampan.lib.selectors import from_label_selector

RESOURCE = "daemonsets.apps"
GENERATION = "pod-template-generation"
GENERATION_NOTE = "deprecated.daemonset.template.generation"
BURST = 250  # creations or deletions of one plan, as upstream's
BACKOFF, BACKOFF_LIMIT = 1.0, 900.0  # between removals of failed pods of one node
TEST = "tests/controllers/test_daemonset.py::"
CREATED = Event(
    NORMAL, "SuccessfulCreate", "Created pod: {pod}", f"{TEST}test_every_node_gets_one_pod"
)
CREATE_FAILED = Event(
    WARNING, "FailedCreate", "Error creating: {error}", f"{TEST}test_a_refused_pod_is_told"
)
DELETED = Event(
    NORMAL, "SuccessfulDelete", "Deleted pod: {pod}",
    f"{TEST}test_pods_leave_nodes_they_do_not_belong_on",
)  # fmt: skip
DELETE_FAILED = Event(
    WARNING, "FailedDelete", "Error deleting: {error}", f"{TEST}test_a_refused_deletion_is_told"
)
FAILED_POD = Event(
    WARNING, "FailedDaemonPod",
    "Found failed daemon pod {namespace}/{pod} on node {node}, will try to kill it",
    f"{TEST}test_failed_pods_are_replaced_ever_more_slowly",
)  # fmt: skip
ENDED_POD = Event(
    NORMAL, "SucceededDaemonPod",
    "Found succeeded daemon pod {namespace}/{pod} on node {node}, will try to delete it",
    f"{TEST}test_succeeded_pods_are_replaced",
)  # fmt: skip
EVENTS = (CREATED, CREATE_FAILED, DELETED, DELETE_FAILED, FAILED_POD, ENDED_POD)


@dataclass(frozen=True, slots=True)
class View:
    """A DaemonSet, the pods and revisions it owns and may adopt, and every node.

    failures: node -> (seconds between removals, time of the last one). failed: to be told of a
    removal (node, seconds, time)."""

    body: Body
    owned: tuple[Obj, ...]
    adoptable: tuple[Obj, ...]
    revisions: tuple[Obj, ...]
    nodes: tuple[Obj, ...]
    revision_named: Callable[[str], Obj | None]
    failures: Mapping[str, tuple[float, float]]
    failed: Callable[[str, float, float], None]


def _is_leaving(pod: Body) -> bool:
    return "deletionTimestamp" in pod["metadata"]


@dataclass(slots=True)
class Plan:
    """One plan in the making: ``head`` is carried out before the status is written."""

    view: View
    now: float
    head: list[Action] = field(default_factory=list)
    events: list[Action] = field(default_factory=list)
    pods: list[Body] = field(default_factory=list)
    by_node: dict[str, list[Body]] = field(default_factory=dict)
    belonging: dict[str, tuple[bool, bool]] = field(default_factory=dict)
    spec: Body = field(default_factory=dict)
    hash: str = ""
    collisions: int | None = None
    waits: list[float] = field(default_factory=list)
    removed: list[Body] = field(default_factory=list)  # pods to delete
    needing: list[str] = field(default_factory=list)  # nodes to make a pod for
    killed: dict[str, float] = field(default_factory=dict)  # node -> new back-off, by failed pod

    @property
    def d(self) -> Body:
        return self.view.body

    def run(self) -> Sequence[Action]:
        if "deletionTimestamp" in self.d["metadata"]:
            return []
        self._claim_pods()
        old = self._revise()
        self.spec = pod_spec(self.d)
        self.belonging = {n.name: belongs(self.spec, n) for n in self.view.nodes}
        for pod in self.pods:
            gone = podlib.is_finished(pod) and _is_leaving(pod)
            if not gone and (node := target_of(pod)):
                self.by_node.setdefault(node, []).append(pod)
        for node in self.belonging:
            self._manage(node)
        self._without_node()
        strategy = self.d["spec"].get("updateStrategy") or {}
        if strategy.get("type") == "RollingUpdate" and not self.removed and not self.needing:
            self._roll(strategy.get("rollingUpdate") or {})
        waits = podlib.next_available(self.pods, self._minimum, self.now)
        self.waits += [waits] if waits is not None else []
        again: list[Action] = [Again(min(self.waits))] if self.waits else []
        return [
            *self.head, *self._status(), *self.events,
            *(self._create(n) for n in self.needing[:BURST]),
            *(self._delete(p) for p in self.removed[:BURST]), *self._forget(old), *again,
        ]  # fmt: skip

    @property
    def _minimum(self) -> int:
        return int(self.d["spec"].get("minReadySeconds", 0))

    def _is_available(self, pod: Body) -> bool:
        return podlib.is_available(pod, self._minimum, self.now)

    # -- pods and revisions --------------------------------------------------------------------

    def _claim_pods(self) -> None:
        selector = from_label_selector(self.d["spec"].get("selector"))
        uid = self.d["metadata"]["uid"]
        for pod in self.view.owned:
            if selector.matches(pod.labels):
                self.pods.append(pod.body)
                continue
            ref = {"$patch": "delete", "uid": uid}
            patch = {"metadata": {"uid": pod.uid, "ownerReferences": [ref]}}
            self.head.append(Patch(pod.key, patch, kind="strategic"))
        ref = podlib.owner_reference(self.d, api_version="apps/v1", kind="DaemonSet")
        for pod in self.view.adoptable:
            patch = {"metadata": {"uid": pod.uid, "ownerReferences": [ref]}}
            self.head.append(Patch(pod.key, patch, kind="strategic"))
            self.pods.append(pod.body)

    def _revise(self) -> list[Body]:
        """Find or make the revision of the template as it is now, whose hash new pods carry; the
        others, oldest first."""
        for r in self.view.revisions:
            if r.controller is None:
                self.head.append(history.adopt(r, self.d, kind="DaemonSet"))
        data = history.snapshot(self.d)
        wanted = history.key_of(data)
        revisions = history.in_order(self.view.revisions)
        equal = [r for r in revisions if history.key_of(r.get("data")) == wanted]
        old = [r for r in revisions if history.key_of(r.get("data")) != wanted]
        number = max((history.number_of(r) for r in old), default=0) + 1
        if not equal:
            name, digest, collisions, held = history.free_name(
                self.d, data, self.view.revision_named
            )
            self.collisions = collisions or None
            self.hash = digest
            if held is None:
                body = history.build(
                    self.d, data, kind="DaemonSet", name=name, number=number,
                    labels={history.POD_HASH: digest},
                )  # fmt: skip
                self.head.append(Create(history.RESOURCE, body))
            return old
        current = self._single(equal)
        self.hash = str(
            (current["metadata"].get("labels") or {}).get(history.POD_HASH)
            or current["metadata"]["name"]
        )
        if history.number_of(current) < number:
            self.head.append(Update(history.RESOURCE, {**current, "revision": number}))
        return old

    def _single(self, equal: list[Body]) -> Body:
        """The newest of revisions with equal data; the others go, and pods get its hash."""
        kept = equal[-1]
        if len(equal) > 1:
            digest = (kept["metadata"].get("labels") or {}).get(history.POD_HASH, "")
            labels = {"metadata": {"labels": {history.POD_HASH: digest}}}
            doubles = {
                (r["metadata"].get("labels") or {}).get(history.POD_HASH) for r in equal[:-1]
            }
            for pod in self.pods:
                meta = pod["metadata"]
                if (meta.get("labels") or {}).get(history.POD_HASH) in doubles:
                    self.head.append(Patch(Key("pods", meta["namespace"], meta["name"]), labels))
            for r in equal[:-1]:
                meta = r["metadata"]
                key = Key(history.RESOURCE, meta["namespace"], meta["name"])
                self.head.append(Delete(key, uid=meta["uid"]))
        return kept

    def _forget(self, old: list[Body]) -> list[Delete]:
        hashes = {(p["metadata"].get("labels") or {}).get(history.POD_HASH) for p in self.pods}
        live = [
            r["metadata"]["name"]
            for r in old
            if (r["metadata"].get("labels") or {}).get(history.POD_HASH) in hashes
        ]
        return history.beyond_limit(self.d, old, live, count_live=True)

    def _is_updated(self, pod: Body) -> bool:
        labels = pod["metadata"].get("labels") or {}
        generation = self._generation
        return labels.get(history.POD_HASH) == self.hash or bool(
            generation and labels.get(GENERATION) == generation
        )

    @property
    def _generation(self) -> str:
        return rollout.notes_of(self.d).get(GENERATION_NOTE, "")

    # -- nodes ---------------------------------------------------------------------------------

    def _manage(self, node: str) -> None:
        """What the node lacks, and what it has too much of."""
        wanted, may_stay = self.belonging[node]
        pods = self.by_node.get(node, [])
        if wanted and not pods:
            self.needing.append(node)
        elif may_stay:
            running = self._without_finished(node, pods)
            if self._surges:
                self._prune_surge(node, running, wanted=wanted)
            else:
                self.removed += in_order(running)[1:]
        else:
            self.removed += [p for p in pods if not _is_leaving(p)]

    def _without_finished(self, node: str, pods: list[Body]) -> list[Body]:
        running = []
        for pod in pods:
            if _is_leaving(pod):
                continue
            phase = (pod.get("status") or {}).get("phase")
            names = {
                "namespace": pod["metadata"]["namespace"], "pod": pod["metadata"]["name"],
                "node": node,
            }  # fmt: skip
            if phase == "Failed":
                delay, at = self.view.failures.get(node, (0.0, 0.0))
                if delay and self.now - at > 2 * BACKOFF_LIMIT:
                    delay = 0.0  # long forgotten
                if delay and self.now - at < delay:
                    self.waits.append(delay - (self.now - at))
                    continue
                self.killed[node] = min(delay * 2, BACKOFF_LIMIT) if delay else BACKOFF
                self.events.append(FAILED_POD.about(self.d, **names))
                self.removed.append(pod)
            elif phase == "Succeeded":
                self.events.append(ENDED_POD.about(self.d, **names))
                self.removed.append(pod)
            else:
                running.append(pod)
        return running

    @property
    def _surges(self) -> bool:
        strategy = self.d["spec"].get("updateStrategy") or {}
        surge = (strategy.get("rollingUpdate") or {}).get("maxSurge", 0)
        return strategy.get("type") == "RollingUpdate" and surge not in (0, "0%", None)

    def _prune_surge(self, node: str, running: list[Body], *, wanted: bool) -> None:
        """Two pods may be there: a new one that is not available yet beside a ready old one."""
        if len(running) <= 1:
            if not running and wanted:
                self.needing.append(node)
            return
        new: Body | None = None
        old: Body | None = None
        for pod in in_order(running):
            is_new = (pod["metadata"].get("labels") or {}).get(history.POD_HASH) == self.hash
            if is_new and new is None:
                new = pod
            elif not is_new and old is None:
                old = pod
            else:
                self.removed.append(pod)
        if new is not None and old is not None:
            if not podlib.is_ready(old) or self._is_available(new):
                self.removed.append(old)

    def _without_node(self) -> None:
        """Pods that wait for a node that is not there any more: nobody else removes them."""
        for node in sorted(self.by_node):
            if node not in self.belonging:
                self.removed += [
                    p
                    for p in self.by_node[node]
                    if not p["spec"].get("nodeName") and not _is_leaving(p)
                ]

    # -- rolling update ------------------------------------------------------------------------

    def _roll(self, rolling: Body) -> None:
        desired = sum(wanted for wanted, _ in self.belonging.values())
        unavailable = rollout.resolve(rolling.get("maxUnavailable", 1), desired, up=True)
        surge = rollout.resolve(rolling.get("maxSurge", 0), desired, up=True)
        if not surge and not unavailable:
            unavailable = 1  # else it would never move
        nodes = {n for n, (wanted, _) in self.belonging.items() if wanted} | set(self.by_node)
        pairs = {n: self._pair(self.by_node.get(n, [])) for n in sorted(nodes)}
        if surge:
            self._roll_surging(pairs, surge, desired)
        else:
            self._roll_replacing(pairs, unavailable)

    def _pair(self, pods: list[Body]) -> tuple[Body | None, Body | None] | None:
        """(new pod, old pod) of a node; None where there are several of a kind."""
        staying = [p for p in pods if not _is_leaving(p)]
        new = [p for p in staying if self._is_updated(p)]
        old = [p for p in staying if not self._is_updated(p)]
        if len(new) > 1 or len(old) > 1:
            return None
        return (new[0] if new else None, old[0] if old else None)

    def _roll_replacing(
        self, pairs: Mapping[str, tuple[Body | None, Body | None] | None], most: int
    ) -> None:
        """Remove old pods: those that are down at once, others as far as maxUnavailable goes."""
        down, broken, candidates = 0, [], []
        for pair in pairs.values():
            if pair is None or (pair[0] is None) == (pair[1] is None):
                down += 1  # the next plan sees to this node
                continue
            new, old = pair
            if new is not None:
                down += not self._is_available(new)
            elif old is not None and not self._is_available(old):
                broken.append(old)
                down += 1
            elif old is not None:
                candidates.append(old)
        self.removed += [*broken, *candidates[: max(0, most - down)]]

    def _roll_surging(
        self, pairs: Mapping[str, tuple[Body | None, Body | None] | None], most: int, desired: int
    ) -> None:
        """Make new pods beside old ones, as far as maxSurge goes; an old one goes once the new one
        is available."""
        surging, available = 0, 0
        allowed: list[str] = []
        candidates: list[str] = []
        misplaced: list[Body] = []
        for node, pair in pairs.items():
            if pair is None:
                surging += 1
                continue
            new, old = pair
            serving = old if old is not None else new
            available += serving is not None and self._is_available(serving)
            if old is None:
                continue
            if new is not None:
                if self._is_available(new):
                    self.removed.append(old)
                else:
                    surging += 1
            elif not self.belonging.get(node, (False, False))[0]:
                if self._is_available(old):
                    misplaced.append(old)
                else:
                    self.removed.append(old)
            elif self._is_available(old):
                candidates.append(node)
            else:
                allowed.append(node)
        self.removed += misplaced[: max(0, available - desired)]
        self.needing += [*allowed, *candidates[: max(0, most - surging)]]

    # -- actions -------------------------------------------------------------------------------

    def _create(self, node: str) -> Create:
        template: Body = self.d["spec"]["template"]
        body = podlib.from_template(
            self.d, {**template, "spec": pinned(self.spec, node)}, api_version="apps/v1",
            kind="DaemonSet",
        )  # fmt: skip
        labels = {**body["metadata"].get("labels", {}), history.POD_HASH: self.hash}
        if self._generation:
            labels[GENERATION] = self._generation
        body["metadata"]["labels"] = labels
        return Create(
            "pods", body, done=lambda pod: [CREATED.about(self.d, pod=pod.name)],
            failed=lambda e: [CREATE_FAILED.about(self.d, error=e)],
        )  # fmt: skip

    def _delete(self, pod: Body) -> Delete:
        meta = pod["metadata"]
        node = target_of(pod)
        failed = (pod.get("status") or {}).get("phase") == "Failed" and node in self.killed

        def done() -> Sequence[Action]:
            if failed:
                self.view.failed(node, self.killed[node], self.now)
            return [DELETED.about(self.d, pod=meta["name"])]

        return Delete(
            Key("pods", meta["namespace"], meta["name"]), uid=meta["uid"], done=done,
            failed=lambda e: [DELETE_FAILED.about(self.d, error=e)],
        )  # fmt: skip

    # -- status --------------------------------------------------------------------------------

    def _status(self) -> list[Action]:
        d = self.d
        old: Body = d.get("status") or {}
        desired = current = misplaced = ready = updated = available = 0
        for node, (wanted, _) in self.belonging.items():
            pods = in_order(self.by_node.get(node, ()))
            desired += wanted
            if not pods:
                continue
            if not wanted:
                misplaced += 1
                continue
            current += 1
            if podlib.is_ready(pods[0]):
                ready += 1
                available += self._is_available(pods[0])
            updated += self._is_updated(pods[0])
        counts = {
            "updatedNumberScheduled": updated,
            "numberAvailable": available,
            "numberUnavailable": desired - available,
        }
        status: Body = {
            "currentNumberScheduled": current,
            "numberMisscheduled": misplaced,
            "desiredNumberScheduled": desired,
            "numberReady": ready,
            "observedGeneration": d["metadata"].get("generation", 0),
            **{k: v for k, v in counts.items() if v},
        }
        collisions = self.collisions or old.get("collisionCount")
        if collisions:
            status["collisionCount"] = collisions
        if old.get("conditions"):
            status["conditions"] = old["conditions"]
        if status == old:
            return []
        return [SetStatus(RESOURCE, {**d, "status": status}, patient=True)]
