"""Deployment: ReplicaSets that follow one another, step by step within maxSurge and
maxUnavailable. Every step is one plan; the next one is made once the caches show this one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sampan.api.obj import Body, Key, Obj
from sampan.control.facts import Facts, Field, Mark
from sampan.control.plan import (
    Action,
    Caches,
    Create,
    Delete,
    Patch,
    Trigger,
    Update,
    own,
    owned,
)
from sampan.controllers import pods as podlib
from sampan.controllers import rollout as r
from sampan.controllers.progress import (
    CONDITIONS,
    EVENTS,
    NO_LAST,
    NOT_FOUND,
    RESOURCE,
    ROLLED_BACK,
    SCALED,
    SET_CREATED,
    SET_FAILED,
    SET_FOUND,
    SET_REFUSED,
    TEST,
    UNCHANGED,
    Progress,
)
from sampan.lib.selectors import from_label_selector

_SETS = "replicasets.apps"


@dataclass(frozen=True, slots=True)
class View:
    """A Deployment, its ReplicaSets, those it may adopt, whether pods of old sets still run, and
    the body that already has the name the next new set would get."""

    body: Body
    owned: tuple[Obj, ...]
    adoptable: tuple[Obj, ...]
    old_pods_run: Callable[[Body | None], bool]
    named: Callable[[str], Obj | None]


class DeploymentController:
    name = "deployment-controller"
    workers = 5
    resource = RESOURCE

    def __init__(self) -> None:
        self.triggers: tuple[Trigger, ...] = (
            own(self.resource),
            owned(_SETS, self.resource, "Deployment"),
            Trigger(_SETS, self._adopters),
            Trigger("pods", self._keys_of_pod),
        )
        self.indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]] = {
            _SETS: {"orphan": podlib.orphan_namespace}
        }

    def _adopters(self, rs: Obj, caches: Caches) -> Iterable[Key]:
        if rs.controller is None and not rs.is_deleting:
            for d in caches[self.resource].list(rs.namespace):
                if from_label_selector(d.spec.get("selector")).matches(rs.labels):
                    yield d.key

    def _keys_of_pod(self, pod: Obj, caches: Caches) -> Iterable[Key]:
        """Recreate waits for the old pods to be gone."""
        ref = pod.controller
        if ref is None or ref.get("kind") != "ReplicaSet":
            return
        rs = caches[_SETS].get(pod.namespace, ref["name"])
        if rs is None or rs.controller is None or rs.controller.get("kind") != "Deployment":
            return
        d = caches[self.resource].get(pod.namespace, rs.controller["name"])
        if d is not None and not r.is_rolling(d.body):
            yield d.key

    def observe(self, key: Key, caches: Caches) -> View | None:
        d = caches[self.resource].get(key.namespace, key.name)
        if d is None:
            return None
        sets = caches[_SETS]
        selector = from_label_selector(d.spec.get("selector"))
        mine = tuple(s for s in sets.by("owner", d.uid) if (s.controller or {})["uid"] == d.uid)
        adoptable = tuple(
            s
            for s in sets.by("orphan", key.namespace)
            if selector.matches(s.labels) and not s.is_deleting and not d.is_deleting
        )

        def old_pods_run(new: Body | None) -> bool:
            skip = new["metadata"]["uid"] if new else ""
            return any(
                not podlib.is_finished(p.body)
                for s in (*mine, *adoptable)
                if s.uid != skip
                for p in caches["pods"].by("owner", s.uid)
            )

        return View(
            d.body, mine, adoptable, old_pods_run, lambda name: sets.get(key.namespace, name)
        )

    def plan(self, view: View, now: float) -> Sequence[Action]:
        return _Step(view, now).run()


class _Step(Progress):
    """One plan in the making. ``sets`` are edited copies: later decisions of the same plan see the
    scaling of earlier ones, as the ReplicaSets will be."""

    view: View

    def __init__(self, view: View, now: float) -> None:
        super().__init__(view.body, now)
        self.view = view

    def run(self) -> Sequence[Action]:
        d = self.d
        sets = self._claim()
        if "deletionTimestamp" in d["metadata"]:
            self._write_status(self._counted(sets, r.find_new(d, sets)))
            return self.actions
        self._note_pause()
        if not d["spec"].get("paused") and r.ROLLBACK in self.notes:
            self._roll_back(sets)
        elif d["spec"].get("paused") or self._is_scaling(sets):
            self._sync(sets)
        elif r.is_rolling(d):
            self._roll(sets)
        else:
            self._recreate(sets)
        return self.actions

    def _roll_back(self, sets: list[Body]) -> None:
        """Take the template of the revision that the annotation names (0: the one before)."""
        d = self.d
        text = self.notes[r.ROLLBACK]
        wanted = int(text) if text.isascii() and text.isdigit() else 0
        numbers = sorted((r.revision(s) for s in sets if r.revision(s)), reverse=True)
        last = not wanted
        if last:
            wanted = numbers[1] if len(numbers) > 1 else -1
        found = next((s for s in sets if r.revision(s) == wanted), None)
        body = _edited(d, notes={k: v for k, v in self.notes.items() if k != r.ROLLBACK})
        if found is None:
            told = (NO_LAST if last else NOT_FOUND).about(d)
        elif r.template_key(found["spec"]["template"]) == r.template_key(d["spec"]["template"]):
            told = UNCHANGED.about(d, deployment=d["metadata"]["name"])
        else:
            body["metadata"]["annotations"] = r.restored_annotations(d, found)
            body["spec"]["template"] = r.bare_template(found["spec"]["template"])
            told = ROLLED_BACK.about(d, deployment=d["metadata"]["name"], revision=wanted)
        self.actions += [Update(RESOURCE, body), told]

    # -- ReplicaSets ---------------------------------------------------------------------------

    def _claim(self) -> list[Body]:
        d = self.d
        selector = from_label_selector(d["spec"].get("selector"))
        uid = d["metadata"]["uid"]
        mine = []
        for s in self.view.owned:
            if selector.matches(s.labels) or "deletionTimestamp" in d["metadata"]:
                mine.append(s.body)
            else:
                ref = {"$patch": "delete", "uid": uid}
                patch = {"metadata": {"uid": s.uid, "ownerReferences": [ref]}}
                self.actions.append(Patch(s.key, patch, kind="strategic"))
        for s in self.view.adoptable:
            ref = podlib.owner_reference(d, api_version="apps/v1", kind="Deployment")
            patch = {"metadata": {"uid": s.uid, "ownerReferences": [ref]}}
            self.actions.append(Patch(s.key, patch, kind="strategic"))
            mine.append(s.body)
        return r.by_age(mine)

    def _is_scaling(self, sets: list[Body]) -> bool:
        wanted = str(r.replicas(self.d))
        return any(
            r.replicas(s) > 0 and r.notes_of(s).get(r.DESIRED, wanted) != wanted for s in sets
        )

    def _new_set(self, sets: list[Body], *, create: bool) -> tuple[Body | None, list[Body], bool]:
        """(new set, old sets, whether the plan ends here: a set is being made or brought up to
        date)."""
        d = self.d
        new = r.find_new(d, sets)
        old = [s for s in sets if s is not new]
        number = max((r.revision(s) for s in old), default=0) + 1
        if new is not None:
            notes = r.with_revision(r.copied_annotations(d, r.notes_of(new)), number)
            minimum = d["spec"].get("minReadySeconds", 0)
            stale = new["spec"].get("minReadySeconds", 0) != minimum
            if notes != r.notes_of(new) or stale:
                body = _edited(new, notes=notes)
                if stale:
                    body["spec"]["minReadySeconds"] = minimum
                self.actions.append(Update(_SETS, body))
                sets[sets.index(new)] = body
                new = body
            self.notes[r.REVISION] = r.notes_of(new).get(r.REVISION, str(number))
            if self._has_deadline and r.condition(self.d, "Progressing") is None:
                name = new["metadata"]["name"]
                self._progress(SET_FOUND, set=name)
            return new, old, False
        if not create:
            return None, old, False
        self._create(sets, number)
        return None, old, True

    def _create(self, sets: list[Body], number: int) -> None:
        d = self.d
        collisions = int(self.status.get("collisionCount", 0))
        template = d["spec"]["template"]
        digest = r.template_hash(template, collisions)
        name = f"{d['metadata']['name']}-{digest}"
        taken = self.view.named(name)
        if taken is not None and not taken.is_deleting:
            # Another template hashed to the same name: the next count gives another one.
            self.status["collisionCount"] = collisions + 1
            self._write_status(self.status)
            return
        size = r.new_size(d, sets, 0)
        labels = {**(template["metadata"].get("labels") or {}), r.HASH: digest}
        selector = d["spec"]["selector"]
        notes = r.with_revision(r.copied_annotations(d, {}), number)
        body: Body = {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {
                "name": name,
                "namespace": d["metadata"]["namespace"],
                "labels": labels,
                "annotations": {**notes, **r.size_annotations(d)},
                "ownerReferences": [
                    podlib.owner_reference(d, api_version="apps/v1", kind="Deployment")
                ],
            },
            "spec": {
                "replicas": size,
                "selector": {
                    **selector,
                    "matchLabels": {**(selector.get("matchLabels") or {}), r.HASH: digest},
                },
                "template": {**template, "metadata": {**template["metadata"], "labels": labels}},
            },
        }
        if d["spec"].get("minReadySeconds"):
            body["spec"]["minReadySeconds"] = d["spec"]["minReadySeconds"]
        scaled: Sequence[Action] = (
            [SCALED.about(d, way="up", set=name, before=0, size=size)] if size > 0 else []
        )
        self.actions.append(
            Create(_SETS, body, done=lambda _: scaled, failed=lambda e: self._refused(name, e))
        )
        self.notes[r.REVISION] = str(number)
        if self._has_deadline:
            self._progress(SET_CREATED, set=name)
        self._write_status(self._counted([*sets, body], None))

    def _refused(self, name: str, error: str) -> Sequence[Action]:
        text = SET_REFUSED.text(set=name, error=error)
        actions: list[Action] = [SET_FAILED.about(self.d, set=name, error=error)]
        if self._has_deadline:
            patch = {"status": {"conditions": [self._condition(SET_REFUSED, text)]}}
            meta = self.d["metadata"]
            key = Key(RESOURCE, meta["namespace"], meta["name"])
            actions.append(Patch(key, patch, "strategic", "status"))
        return actions

    def _resize(self, sets: list[Body], target: Body, size: int) -> bool:
        """Scale *target*; whether its size changed. Its size annotations are kept true."""
        notes = {**r.notes_of(target), **r.size_annotations(self.d)}
        before = r.replicas(target)
        if before == size and notes == r.notes_of(target):
            return False
        body = _edited(target, notes=notes)
        body["spec"]["replicas"] = size
        # The set may already be updated by this plan: one write carries both.
        self.actions = [
            a for a in self.actions
            if not (isinstance(a, Update) and a.body["metadata"]["uid"] == body["metadata"]["uid"])
        ]  # fmt: skip
        self.actions.append(Update(_SETS, body))
        for i, s in enumerate(sets):
            if s["metadata"]["uid"] == body["metadata"]["uid"]:
                sets[i] = body
        if before != size:
            way = "up" if size > before else "down"
            name = body["metadata"]["name"]
            self.actions.append(SCALED.about(self.d, way=way, set=name, before=before, size=size))
        return before != size

    # -- strategies ----------------------------------------------------------------------------

    def _roll(self, sets: list[Body]) -> None:
        d = self.d
        new, old, ended = self._new_set(sets, create=True)
        if ended or new is None:
            return
        size, total = r.replicas(new), r.replicas(d)
        if size != total:
            wanted = total if size > total else r.new_size(d, sets, size)
            if wanted != size:
                self._resize(sets, new, wanted)
                self._progress_status(sets)
                return
        if self._shrink_old(sets, new, old):
            self._progress_status(sets)
            return
        if self._is_complete(d.get("status") or {}):
            self._forget(old)
        self._progress_status(sets)

    def _shrink_old(self, sets: list[Body], new: Body, old: list[Body]) -> bool:
        d = self.d
        old = [s for s in old if r.replicas(s) > 0]
        if not old:
            return False
        minimum = r.replicas(d) - r.max_unavailable(d)
        new_unavailable = r.replicas(new) - r.count(new, "availableReplicas")
        room = sum(r.replicas(s) for s in sets) - minimum - new_unavailable
        if room <= 0:
            return False
        sizes = {s["metadata"]["uid"]: r.replicas(s) for s in old}
        cleaned = 0
        for s in old:  # first those that serve nobody
            available = r.count(s, "availableReplicas")
            part = min(room - cleaned, sizes[s["metadata"]["uid"]] - available)
            if part > 0:
                sizes[s["metadata"]["uid"]] -= part
                cleaned += part
        spare = sum(r.count(s, "availableReplicas") for s in sets) - minimum
        for s in old:
            part = min(sizes[s["metadata"]["uid"]], max(spare, 0))
            sizes[s["metadata"]["uid"]] -= part
            spare -= part
        moved = [self._resize(sets, s, sizes[s["metadata"]["uid"]]) for s in old
                 if sizes[s["metadata"]["uid"]] != r.replicas(s)]  # fmt: skip
        return any(moved)

    def _recreate(self, sets: list[Body]) -> None:
        new, old, _ = self._new_set(sets, create=False)
        live = [s for s in old if r.replicas(s) > 0]
        if live:
            for s in live:
                self._resize(sets, s, 0)
            self._progress_status(sets)
            return
        if self.view.old_pods_run(new):
            self._progress_status(sets)
            return
        if new is None:
            _, _, ended = self._new_set(sets, create=True)
            if ended:
                return
        elif r.replicas(new) != r.replicas(self.d):
            self._resize(sets, new, r.replicas(self.d))
        if self._is_complete(self.d.get("status") or {}):
            self._forget(old)
        self._progress_status(sets)

    def _sync(self, sets: list[Body]) -> None:
        """Scaling outside of a rollout's steps, and everything a paused Deployment still does."""
        d = self.d
        new, old, _ = self._new_set(sets, create=False)
        self._scale(sets, new, old)
        if d["spec"].get("paused"):
            self._forget(old)
        self._write_status(self._counted(sets, new))

    def _scale(self, sets: list[Body], new: Body | None, old: list[Body]) -> None:
        d = self.d
        total = r.replicas(d)
        active = [s for s in sets if r.replicas(s) > 0]
        if len(active) <= 1:
            only = active[0] if active else new or (old[-1] if old else None)
            if only is not None:
                self._resize(sets, only, total)
            return
        if new is not None and self._is_saturated(new):
            for s in old:
                if r.replicas(s) > 0:
                    self._resize(sets, s, 0)
            return
        if not r.is_rolling(d):
            return
        allowed = total + r.max_surge(d) if total > 0 else 0
        to_add = allowed - sum(r.replicas(s) for s in active)
        # Larger sets first; of equal ones the newer where it grows, the older where it shrinks.
        ordered = r.by_age(active)
        if to_add > 0:
            ordered.reverse()
        ordered.sort(key=r.replicas, reverse=True)
        sizes, added = [], 0
        for s in ordered:
            part = r.proportion(d, s, to_add, added)
            sizes.append(r.replicas(s) + part)
            added += part
        if sizes:
            sizes[0] = max(0, sizes[0] + to_add - added)
        for s, size in zip(ordered, sizes, strict=True):
            self._resize(sets, s, size)

    def _is_saturated(self, new: Body) -> bool:
        total = r.replicas(self.d)
        return (
            r.notes_of(new).get(r.DESIRED) == str(total)
            and r.replicas(new) == total
            and r.count(new, "availableReplicas") == total
        )

    def _forget(self, old: list[Body]) -> None:
        """Delete the oldest revisions beyond revisionHistoryLimit."""
        limit = self.d["spec"].get("revisionHistoryLimit")
        if limit is None:
            return
        alive = [s for s in old if "deletionTimestamp" not in s["metadata"]]
        for s in sorted(alive, key=r.revision)[: max(0, len(alive) - int(limit))]:
            meta = s["metadata"]
            settled = meta.get("generation", 0) <= r.count(s, "observedGeneration")
            if r.count(s, "replicas") or r.replicas(s) or not settled:
                continue
            self.actions.append(Delete(Key(_SETS, meta["namespace"], meta["name"]), meta["uid"]))


def _edited(body: Body, *, notes: dict[str, str]) -> Body:
    """A copy whose annotations and top-level spec may be changed."""
    return {
        **body,
        "metadata": {**body["metadata"], "annotations": notes},
        "spec": dict(body["spec"]),
    }


_FIRST = f"{TEST}test_first_rollout"
_HISTORY = f"{TEST}test_rolling_update_and_rollback"
FACTS = Facts(
    kind="Deployment",
    definition="io.k8s.api.apps.v1.Deployment",
    controller=DeploymentController.name,
    status=(
        Field("observedGeneration", "the generation the counts belong to", _FIRST),
        Field("replicas", "pods of all its ReplicaSets", _FIRST),
        Field("updatedReplicas", "pods of the newest ReplicaSet", _FIRST),
        Field("readyReplicas", "ready pods", _FIRST),
        Field("availableReplicas", "pods that are ready for minReadySeconds", _FIRST),
        Field(
            "unavailableReplicas", "pods that lack to be available",
            f"{TEST}test_too_few_pods_are_told",
        ),
        Field(
            "terminatingReplicas", "pods that are being deleted and still run",
            f"{TEST}test_terminating_pods_are_counted",
        ),
        Field(
            "collisionCount", "names of ReplicaSets that were taken by other templates",
            f"{TEST}test_a_taken_name_raises_the_collision_count",
        ),
        Field("conditions", "see below", _FIRST),
    ),
    conditions=CONDITIONS,
    events=EVENTS,
    labels=(Mark(r.HASH, "ReplicaSet, Pod", "the hash of the template", _FIRST),),
    annotations=(
        Mark(r.REVISION, "Deployment, ReplicaSet", "the number of the template", _FIRST),
        Mark(r.HISTORY, "ReplicaSet", "numbers it had before", _HISTORY),
        Mark(r.DESIRED, "ReplicaSet", "spec.replicas of the Deployment", _FIRST),
        Mark(r.MAXIMUM, "ReplicaSet", "spec.replicas and maxSurge of the Deployment", _FIRST),
    ),
    reads=(
        Mark(
            r.ROLLBACK, "Deployment", "revision to go back to (0: the one before); it is removed",
            f"{TEST}test_rollback_by_annotation",
        ),
    ),
)  # fmt: skip
