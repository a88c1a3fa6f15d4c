"""What must hold at every step of every history, whatever goes wrong: checked at each commit.

A ``Watchdog`` keeps its own picture of the cluster from the store's changes and asks each property
about each of them. What is asked for may change while a controller is at work on what it saw a
moment ago: bounds are those of any moment of the last ``GRACE`` seconds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from sampan.api.call import Call, User
from sampan.api.obj import Body, Key, Obj
from sampan.apiserver.pages import obj_of
from sampan.sim import guards
from sampan.sim.look import FINAL, is_finished, is_live, scaled
from sampan.sim.world import World
from sampan.store.base import Change

GRACE = 60.0
MOST_WRITES = 20_000  # of a history: more is somebody going round in a circle


G = TypeVar("G", bound=guards.Guard)


class Violation(AssertionError):
    """A property did not hold."""


class Endless(BaseException):
    """Ends whoever writes on and on without time going by: no timer would ever fire again."""


def surge_bound(deployment: Obj) -> int:
    """The most pods a Deployment may have asked for."""
    spec = deployment.spec
    replicas = int(spec.get("replicas", 1))
    strategy = spec.get("strategy") or {}
    if strategy.get("type") == "Recreate":
        return replicas
    rolling = strategy.get("rollingUpdate") or {}
    return replicas + scaled(rolling.get("maxSurge", "25%"), replicas, up=True)


class Watchdog:
    """Watches a world; ``violations`` are texts, the first one raised by ``check``."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.objects: dict[str, Obj] = {}
        self.by_uid: dict[str, Obj] = {}
        self.owned: defaultdict[str, dict[str, Obj]] = defaultdict(dict)  # by controller's uid
        self.succeeded: defaultdict[str, set[str]] = defaultdict(set)  # job uid -> pod uids
        self.checked = 0
        self.writes = 0
        self.violations: list[str] = []
        self.evictions = self.rescales = self.preemptions = 0
        self._held: dict[tuple[str, str], list[tuple[float, int]]] = {}
        self._by_resource: defaultdict[str, dict[str, Obj]] = defaultdict(dict)
        self._guards = {kind: kind(self) for kind in guards.ALL}
        for change in world.store.changes(0):
            self._take(change)
        world.store.observers.append(self._seen)
        world.listeners.append(self._heard)

    def check(self) -> None:
        """Raises Violation for what was found so far."""
        if self.violations:
            raise Violation("; ".join(self.violations[:3]))

    # -- the picture -----------------------------------------------------------------------------

    def _seen(self, changes: Sequence[Change]) -> None:
        self.writes += len(changes)
        if self.writes > MOST_WRITES:
            self.violations.append(f"{changes[-1].key}: written on and on")
            raise Endless
        pairs = [self._take(change) for change in changes]
        found: list[str] = []
        for change, (old, new) in zip(changes, pairs, strict=True):
            for check in _CHECKS.get(change.key.split("/", 1)[0], ()):
                self.checked += 1
                found += [f"{change.key}@{change.revision}: {t}" for t in check(self, old, new)]
        touched = {change.key.split("/", 1)[0] for change in changes}
        for guard in self._guards.values():
            if not touched.isdisjoint(guard.resources):
                self.checked += 1
                found += [f"@{changes[-1].revision}: {text}" for text in guard.see(pairs)]
        self.violations += [f"{self.world.clock.now():.3f} {text}" for text in found]

    def _take(self, change: Change) -> tuple[Obj | None, Obj | None]:
        old = self.objects.pop(change.key, None)
        new = obj_of(change.record) if change.record is not None else None
        held = self._by_resource[change.key.split("/", 1)[0]]
        if old is not None:
            del held[change.key]
            self.by_uid.pop(old.uid, None)
            if old.controller is not None:
                self.owned[old.controller["uid"]].pop(change.key, None)
        if new is not None:
            self.objects[change.key] = held[change.key] = new
            self.by_uid[new.uid] = new
            if new.controller is not None:
                self.owned[new.controller["uid"]][change.key] = new
        return old, new

    def dependents(self, uid: str, resource: str) -> list[Obj]:
        return [o for o in self.owned[uid].values() if o.key.resource == resource]

    def guard(self, kind: type[G]) -> G:
        found = self._guards[kind]
        assert isinstance(found, kind)
        return found

    def of(self, resource: str) -> list[Obj]:
        return [*self._by_resource[resource].values()]

    def bound(self, uid: str, name: str, now_is: int) -> int:
        """The largest value *name* of an object had within the last GRACE seconds."""
        return self.span(uid, name, now_is)[1]

    def span(self, uid: str, name: str, now_is: int, *, keep: float = GRACE) -> tuple[int, int]:
        """The smallest and the largest value of the last *keep* seconds."""
        now = self.world.clock.now()
        held = self._held.setdefault((uid, name), [])
        if not held or held[-1][1] != now_is:
            held.append((now, now_is))
        while len(held) > 1 and held[1][0] < now - keep:
            held.pop(0)
        values = [value for _, value in held]
        return min(values), max(values)

    def _heard(self, user: User, call: Call) -> None:
        for guard in self._guards.values():
            self.violations += guard.hear(user, call)
        self._collected(user, call)

    def _collected(self, user: User, call: Call) -> None:
        """The collector deletes nothing that has an owner which is there to stay."""
        if call.verb != "delete" or not user.name.endswith(":generic-garbage-collector"):
            return
        held = self.objects.get(Key(call.resource, call.namespace, call.name).path)
        wanted = ((call.body or {}).get("preconditions") or {}).get("uid")
        if held is None or not held.owners or (wanted and wanted != held.uid):
            return
        self.checked += 1
        for ref in held.owners:
            owner = self.by_uid.get(ref["uid"])
            if owner is not None and not owner.is_deleting:
                self.violations.append(
                    f"{held.key.path}: collected although its owner {owner.key.path} is there"
                )

    def owner_of(self, obj: Obj, kind: str) -> Obj | None:
        ref = obj.controller
        if ref is None or ref.get("kind") != kind:
            return None
        return self.by_uid.get(ref["uid"])


Check = Callable[[Watchdog, Obj | None, Obj | None], Iterable[str]]


def pods_stay_where_they_are(_w: Watchdog, old: Obj | None, new: Obj | None) -> Iterable[str]:
    if old is None or new is None or old.uid != new.uid:
        return
    before, after = old.spec.get("nodeName"), new.spec.get("nodeName")
    if before and before != after:
        yield f"moved from {before} to {after}"
    was, phase = old.status.get("phase"), new.status.get("phase")
    if was in FINAL and phase != was:
        yield f"came back from {was} to {phase}"


def never_more_pods_than_asked_for(w: Watchdog, old: Obj | None, new: Obj | None) -> Iterable[str]:
    if new is None or old is not None:
        return
    for kind in ("ReplicaSet", "ReplicationController"):
        owner = w.owner_of(new, kind)
        if owner is not None:
            live = [p for p in w.dependents(owner.uid, "pods") if is_live(p)]
            most = w.bound(owner.uid, "replicas", int(owner.spec.get("replicas", 1)))
            if len(live) > most:
                yield f"{len(live)} live pods of {owner.key.path}, which asks for {most}"


def ordinals_are_asked_for(w: Watchdog, old: Obj | None, new: Obj | None) -> Iterable[str]:
    """A StatefulSet makes no pod beyond its replicas (those it had may take their time to go)."""
    owner = w.owner_of(new, "StatefulSet") if new is not None and old is None else None
    if owner is None or new is None:
        return
    start = int((owner.spec.get("ordinals") or {}).get("start") or 0)
    most = w.bound(owner.uid, "replicas", int(owner.spec.get("replicas", 1)))
    ordinal = int(new.name.rsplit("-", 1)[1])
    if not start <= ordinal < start + most:
        yield f"ordinal {ordinal} of {owner.key.path}, which asks for {most} from {start}"


def never_more_pods_than_parallelism(
    w: Watchdog, old: Obj | None, new: Obj | None
) -> Iterable[str]:
    job = w.owner_of(new, "Job") if new is not None and old is None else None
    if job is None:
        return
    live = [p for p in w.dependents(job.uid, "pods") if is_live(p)]
    most = w.bound(job.uid, "parallelism", int(job.spec.get("parallelism", 1)))
    if len(live) > most:
        yield f"{len(live)} live pods of {job.key.path}, whose parallelism is {most}"
    completions = job.spec.get("completions")
    if completions is not None and job.spec.get("completionMode") == "Indexed":
        index = "batch.kubernetes.io/job-completion-index"
        indexes = [p.annotations.get(index) for p in live]
        if len(indexes) != len(set(indexes)):
            yield f"two live pods of one index of {job.key.path}: {sorted(map(str, indexes))}"


def successes_are_noted(w: Watchdog, old: Obj | None, new: Obj | None) -> Iterable[str]:
    """Not a property itself: remembers which pods of a Job succeeded."""
    if new is not None and new.status.get("phase") == "Succeeded" and new.controller is not None:
        w.succeeded[new.controller["uid"]].add(new.uid)
    return ()


def jobs_count_what_happened(w: Watchdog, old: Obj | None, new: Obj | None) -> Iterable[str]:
    if new is None:
        return
    count = int(new.status.get("succeeded") or 0)
    if old is not None and old.uid == new.uid:
        was = int(old.status.get("succeeded") or 0)
        elastic = old.spec.get("completions") != new.spec.get("completions")
        if count < was and not elastic:
            yield f"succeeded went back from {was} to {count}"
    if count > len(w.succeeded[new.uid]):
        yield f"{count} counted as succeeded, {len(w.succeeded[new.uid])} did"


def forbidden_jobs_never_overlap(w: Watchdog, old: Obj | None, new: Obj | None) -> Iterable[str]:
    cron = w.owner_of(new, "CronJob") if new is not None and old is None else None
    if cron is None or cron.spec.get("concurrencyPolicy") != "Forbid":
        return
    unfinished = [j for j in w.dependents(cron.uid, "jobs.batch") if not is_finished(j)]
    if len(unfinished) > 1:
        yield f"{len(unfinished)} unfinished jobs of {cron.key.path}, which forbids it"


def rollouts_never_surge_too_far(w: Watchdog, old: Obj | None, new: Obj | None) -> Iterable[str]:
    if new is None or (deployment := w.owner_of(new, "Deployment")) is None:
        return
    before = int(old.spec.get("replicas", 1)) if old is not None else 0
    most = w.bound(deployment.uid, "surge", surge_bound(deployment))
    if int(new.spec.get("replicas", 1)) <= before:
        return
    sets = w.dependents(deployment.uid, "replicasets.apps")
    total = sum(int(s.spec.get("replicas", 1)) for s in sets if not s.is_deleting)
    if total > most:
        yield f"{total} replicas asked for, {deployment.key.path} allows {most}"


def bounds_are_noted(w: Watchdog, old: Obj | None, new: Obj | None) -> Iterable[str]:
    """Not a property itself: remembers what was asked for, and until when."""
    if new is not None:
        w.bound(new.uid, "replicas", int(new.spec.get("replicas", 1)))
        if new.key.resource == "deployments.apps":
            w.bound(new.uid, "surge", surge_bound(new))
        if new.key.resource == "jobs.batch":
            w.bound(new.uid, "parallelism", int(new.spec.get("parallelism", 1)))
    return ()


def one_daemon_per_node(w: Watchdog, old: Obj | None, new: Obj | None) -> Iterable[str]:
    daemon = w.owner_of(new, "DaemonSet") if new is not None and old is None else None
    if daemon is None or new is None:
        return
    rolling = (daemon.spec.get("updateStrategy") or {}).get("rollingUpdate") or {}
    most = 2 if rolling.get("maxSurge") not in (None, 0, "0%") else 1
    target = _daemon_target(new)
    here = [
        p for p in w.dependents(daemon.uid, "pods") if is_live(p) and _daemon_target(p) == target
    ]
    if len(here) > most:
        yield f"{len(here)} live pods of {daemon.key.path} for node {target}"


def _daemon_target(pod: Obj) -> str:
    if pod.spec.get("nodeName"):
        return str(pod.spec["nodeName"])
    affinity: Body = (pod.spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    for term in required.get("nodeSelectorTerms") or ():
        for field in term.get("matchFields") or ():
            return str(field["values"][0])
    return ""


def an_identity_runs_once(w: Watchdog, old: Obj | None, new: Obj | None) -> Iterable[str]:
    """No StatefulSet pod's containers run on two nodes, or twice on one."""
    if new is None or w.owner_of(new, "StatefulSet") is None:
        return
    where = [
        node.name
        for node in w.world.nodes.values()
        for box in node.runtime.running(new.namespace, new.name)
    ]
    if len(where) > 1:
        yield f"runs on {sorted(where)} at once"


_CHECKS: dict[str, tuple[Check, ...]] = {
    "pods": (
        successes_are_noted, pods_stay_where_they_are, never_more_pods_than_asked_for,
        ordinals_are_asked_for, never_more_pods_than_parallelism, one_daemon_per_node,
        an_identity_runs_once,
    ),
    "replicasets.apps": (bounds_are_noted, rollouts_never_surge_too_far),
    "replicationcontrollers": (bounds_are_noted,),
    "statefulsets.apps": (bounds_are_noted,),
    "deployments.apps": (bounds_are_noted,),
    "jobs.batch": (bounds_are_noted, jobs_count_what_happened, forbidden_jobs_never_overlap),
}  # fmt: skip
