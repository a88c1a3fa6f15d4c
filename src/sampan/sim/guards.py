"""Properties that need to remember: budgets, autoscalers, quotas, claims and volumes, preemption,
events. Each guard sees every commit that touches its resources, after the picture shows it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from sampan.api import amounts
from sampan.api import quota as quotas
from sampan.api.call import Call, User
from sampan.api.obj import Body, Obj
from sampan.lib.selectors import from_label_selector
from sampan.sim.look import is_live, is_ready, scaled

if TYPE_CHECKING:
    from sampan.sim.properties import Watchdog

Pair = tuple[Obj | None, Obj | None]  # before, after
LATE = 120.0  # how long what a controller knows may be behind, with every fault there is
BUDGETS, QUOTAS = "poddisruptionbudgets.policy", "resourcequotas"
SCALERS = "horizontalpodautoscalers.autoscaling"
CLAIMS, VOLUMES, SETS = "persistentvolumeclaims", "persistentvolumes", "statefulsets.apps"
_SCALES = {
    "ReplicaSet": "replicasets.apps", "StatefulSet": SETS, "Deployment": "deployments.apps",
    "ReplicationController": "replicationcontrollers",
}  # fmt: skip


class Guard:
    """One family of properties. resources: whose changes it looks at."""

    resources: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, w: Watchdog) -> None:
        self.w = w

    def see(self, pairs: Sequence[Pair]) -> Iterable[str]:
        """What is wrong with a commit: all its changes, of other resources too."""
        return ()

    def hear(self, user: User, call: Call) -> Iterable[str]:
        """What is wrong with a call of a component that is about to be carried out."""
        return ()


def _disruption(pod: Obj) -> str:
    """Why somebody deletes the pod, '' where nobody does."""
    for c in pod.status.get("conditions") or ():
        if c["type"] == "DisruptionTarget" and c["status"] == "True":
            return str(c.get("reason") or "")
    return ""


# -- budgets ---------------------------------------------------------------------------------------


def guards(budget: Obj, pod: Obj) -> bool:
    return budget.namespace == pod.namespace and from_label_selector(
        budget.spec.get("selector")
    ).matches(pod.labels)


def top_scale(w: Watchdog, pod: Obj) -> tuple[str, int] | None:
    """Who decides how many such pods there are, and how many it wants."""
    found: Obj | None = pod
    known = None
    while found is not None and found.controller is not None:
        found = w.by_uid.get(found.controller["uid"])
        if found is not None and found.key.resource in _SCALES.values():
            known = (found.uid, int(found.spec.get("replicas", 1)))
    return known


def counted(w: Watchdog, budget: Obj) -> tuple[int, int, int] | None:
    """(expected, desired, healthy) by the plainest reading; None where it cannot be said."""
    spec = budget.spec
    pods = [p for p in w.of("pods") if guards(budget, p)]
    healthy = sum(is_ready(p) and not p.is_deleting for p in pods)
    least, most = spec.get("minAvailable"), spec.get("maxUnavailable")
    if most is None and not isinstance(least, str):
        return len(pods), int(least or 0), healthy
    scales = [top_scale(w, p) for p in pods]
    if None in scales:
        return None
    expected = sum(dict(s for s in scales if s is not None).values())
    if most is not None:
        return expected, max(0, expected - scaled(most, expected, up=True)), healthy
    return expected, scaled(least, expected, up=True), healthy


class BudgetGuard(Guard):
    """An eviction takes one of what the budget allows, in the same commit; and evictions alone
    never take what the budget keeps. What else happens to pods may: then the budget is hurt, and
    its controller needs its time to see that."""

    resources = frozenset((BUDGETS, "pods", *_SCALES.values()))

    def __init__(self, w: Watchdog) -> None:
        super().__init__(w)
        self._spare: dict[str, int | None] = {}  # budget's uid -> healthy pods beyond the desired
        self._hurt: dict[str, float] = {}  # when that last fell otherwise than by an eviction

    def see(self, pairs: Sequence[Pair]) -> Iterable[str]:
        budgets = self.w.of(BUDGETS)
        if not budgets:
            return
        charged = {
            new.uid: set(_disrupted(new)) - set(_disrupted(old))
            for old, new in pairs
            if new is not None and new.key.resource == BUDGETS
        }
        for old, new in pairs:
            if old is None or old.key.resource != "pods":
                continue
            yield from self._evicted(old, new, pairs)
        now = self.w.world.clock.now()
        for budget in budgets:
            taken = len(charged.get(budget.uid, ())) if len(pairs) > 1 else 0
            yield from self._kept(budget, taken, now)

    def _evicted(self, old: Obj, new: Obj | None, pairs: Sequence[Pair]) -> Iterable[str]:
        why = _disruption(new) if new is not None else ""
        if why != "EvictionByEvictionAPI" or _disruption(old) == why:
            return
        self.w.evictions += 1
        if not is_ready(old) or old.is_deleting or old.status.get("phase") != "Running":
            return
        for budget in self.w.of(BUDGETS):
            if not guards(budget, old):
                continue
            before = next((o for o, n in pairs if n is not None and n.uid == budget.uid), None)
            had = int(before.status.get("disruptionsAllowed") or 0) if before is not None else 0
            has = int(budget.status.get("disruptionsAllowed") or 0)
            # An earlier pod of its name may be among them already.
            is_charged = before is not None and old.name in _disrupted(budget)
            if not is_charged or had < 1 or has != had - 1:
                yield f"{old.key.path}: evicted without leave of {budget.key.path} ({had}, {has})"

    def _kept(self, budget: Obj, taken: int, now: float) -> Iterable[str]:
        found = counted(self.w, budget)
        spare = None if found is None else found[2] - found[1]
        before = self._spare.get(budget.uid)
        self._spare[budget.uid] = spare
        if found is None or spare is None or before is None or spare < before - taken:
            self._hurt[budget.uid] = now
        elif int(budget.status.get("expectedPods") or 0) != found[0]:
            pass  # scaled, and no pod has come or gone since: upstream looks at pods only
        elif taken and spare < 0 and now - self._hurt.get(budget.uid, now) > LATE:
            yield f"{budget.key.path}: broken by an eviction: {found}"


def _disrupted(budget: Obj | None) -> Iterable[str]:
    return (budget.status.get("disruptedPods") or {}) if budget is not None else ()


# -- autoscalers -----------------------------------------------------------------------------------


_JITTER = 2.0  # seconds between a decision, which is what periods count from, and its arrival


class ScaleGuard(Guard):
    """What an autoscaler asks for is within its bounds and no faster than its rates."""

    resources = frozenset((SCALERS,))

    def __init__(self, w: Watchdog) -> None:
        super().__init__(w)
        self._done: dict[str, list[tuple[float, int]]] = {}  # uid -> when, by how much
        self._blind = 0.0  # until when it may not know what it did

    def see(self, pairs: Sequence[Pair]) -> Iterable[str]:
        for _old, new in pairs:
            if new is not None and new.key.resource == SCALERS:
                self._bounds(new)
        return ()

    def _bounds(self, scaler: Obj) -> tuple[int, int]:
        spec = scaler.spec
        least, _ = self.w.span(scaler.uid, "least", int(spec.get("minReplicas") or 1))
        _, most = self.w.span(scaler.uid, "most", int(spec["maxReplicas"]))
        return least, most

    def hear(self, user: User, call: Call) -> Iterable[str]:
        if call.subresource != "scale" or call.verb != "update":
            return
        if not user.name.endswith(":horizontal-pod-autoscaler"):
            return
        wanted = int(call.body["spec"]["replicas"])
        mine = [
            s for s in self.w.of(SCALERS)
            if s.namespace == call.namespace and s.spec["scaleTargetRef"]["name"] == call.name
        ]  # fmt: skip
        bounds = [self._bounds(s) for s in mine]
        self.w.rescales += 1
        if bounds and not any(least <= wanted <= most for least, most in bounds):
            yield f"{call.name} scaled to {wanted}, which none of {bounds} allows"
        if len(mine) == 1:
            yield from self._rate(mine[0], call, wanted)

    def _rate(self, scaler: Obj, call: Call, wanted: int) -> Iterable[str]:
        """Only where it remembers: what died, and who got no answer, begins anew."""
        world = self.w.world
        now = world.clock.now()
        target = self.w.objects.get(f"{call.resource}/{call.namespace}/{call.name}")
        if target is None or not scaler.spec.get("behavior"):
            return
        by = wanted - int(target.spec.get("replicas", 1))
        least, most = self._bounds(scaler)
        held = int(target.spec.get("replicas", 1))
        memory = (world.deaths, world.faults.lost, world.faults.error, world.clock.offset)
        known = self._done.setdefault(f"{scaler.uid} {memory}", [])
        known.append((now, by))
        if not least <= held <= most or world.faults.lost or world.faults.error:
            return  # back into its bounds at once
        side = "scaleUp" if by > 0 else "scaleDown"
        policies = scaler.spec["behavior"][side].get("policies") or ()
        since, way = now + _JITTER, 1 if by > 0 else -1
        rates = [  # from where the period began: what was done the other way may be undone, too
            (way * sum(d for at, d in known if at > since - p["periodSeconds"]), p["value"])
            for p in policies if p["type"] == "Pods"
        ]  # fmt: skip
        if rates and len(rates) == len(policies) and all(did > may for did, may in rates):
            yield f"{scaler.key.path}: {side} faster than its rates: {rates}"


# -- quotas ----------------------------------------------------------------------------------------


class QuotaGuard(Guard):
    """No write takes a quota above its limits, and what is there is counted: nothing is used that
    is not charged."""

    resources = frozenset(
        (QUOTAS, "pods", "services", CLAIMS, "configmaps", "jobs.batch", "deployments.apps")
    )

    def see(self, pairs: Sequence[Pair]) -> Iterable[str]:
        for old, new in pairs:
            if old is not None and new is not None and new.key.resource == QUOTAS:
                yield from self._charged(old, new)
        touched = {o.namespace for pair in pairs for o in pair if o is not None}
        for one in self.w.of(QUOTAS):
            if one.namespace in touched:
                yield from self._true(one)

    @staticmethod
    def _charged(old: Obj, new: Obj) -> Iterable[str]:
        if old.spec.get("hard") != new.spec.get("hard") or old.uid != new.uid:
            return
        hard = amounts.read(new.status.get("hard"))
        before, after = (amounts.read(o.status.get("used")) for o in (old, new))
        for name, used in after.items():
            if name in hard and name in before and before[name] < used and hard[name] < used:
                yield f"{new.key.path}: {name} rose from {before[name]} to {used} of {hard[name]}"

    def _true(self, one: Obj) -> Iterable[str]:
        status = one.status
        if status.get("hard") != one.spec.get("hard") or "used" not in status:
            return
        # Pods on their way out stop counting with time: what is left then is surely used.
        used = amounts.read(status["used"])
        for name, needed in truth(self.w, one, later=600.0).items():
            if name in used and used[name] < needed:
                yield f"{one.key.path}: {needed} {name} are there, {used[name]} are charged"


def truth(w: Watchdog, one: Obj, *, later: float = 0.0) -> amounts.Amounts:
    """What is used of a quota. later: seconds from now."""
    found: dict[str, list[Body]] = {r: [] for r in QuotaGuard.resources}
    for resource in found:
        found[resource] = [o.body for o in w.of(resource) if o.namespace == one.namespace]
    names = one.spec.get("hard") or {}
    return amounts.only(quotas.total(one.body, found, w.world.clock.now() + later), names)


# -- claims and volumes ----------------------------------------------------------------------------


class ClaimGuard(Guard):
    """A claim goes only when somebody asked for it, its retention policy does, or its pod is gone,
    and not while a pod runs on it; a volume serves one claim and stays as long as that."""

    resources = frozenset((CLAIMS, VOLUMES, SETS))

    def __init__(self, w: Watchdog) -> None:
        super().__init__(w)
        self.asked: set[str] = set()  # uids of claims that the history itself deletes
        self._sets: dict[tuple[str, str], Obj] = {}

    def see(self, pairs: Sequence[Pair]) -> Iterable[str]:
        for old, new in pairs:
            resource = (old or new or _never()).key.resource
            if resource == SETS and new is not None:
                self._sets[new.namespace, new.name] = new
                self._replicas(new)
            elif resource == CLAIMS:
                yield from self._claim(old, new)
            elif resource == VOLUMES:
                yield from self._volume(old, new)

    def _claim(self, old: Obj | None, new: Obj | None) -> Iterable[str]:
        gone = old is not None and (new is None or new.uid != old.uid)
        if old is not None and not old.is_deleting and (gone or (new and new.is_deleting)):
            if not self._may_go(old):
                yield f"{old.key.path}: deleted though nothing asks for it"
        if old is not None and gone:
            users = [p.name for p in self.w.of("pods") if is_live(p) and _runs_on(p, old)]
            if users:
                yield f"{old.key.path}: went while {users} use it"
        if new is not None and new.status.get("phase") == "Bound":
            name = new.spec.get("volumeName")
            others = [
                c.key.path for c in self.w.of(CLAIMS)
                if c.uid != new.uid and c.spec.get("volumeName") == name
                and c.status.get("phase") == "Bound"
            ]  # fmt: skip
            if others:
                yield f"{new.key.path} and {others} are bound to {name}"

    def _may_go(self, claim: Obj) -> bool:
        w = self.w
        space = w.objects.get(f"namespaces//{claim.namespace}")
        if claim.uid in self.asked or space is None or space.is_deleting:
            return True
        for ref in claim.owners:
            owner = w.by_uid.get(ref["uid"])
            if ref["kind"] == "Pod":
                # An ephemeral volume, or one that goes with scaling: gone with its pod.
                is_gone = owner is None or owner.is_deleting
                if is_gone and (not self._set_of(claim) or self._policy(claim, "whenScaled")):
                    return True
            elif ref["kind"] == "StatefulSet" and (owner is None or owner.is_deleting):
                if self._policy(claim, "whenDeleted"):
                    return True
        return False

    def _set_of(self, claim: Obj) -> Obj | None:
        parts = claim.name.split("-")
        return self._sets.get((claim.namespace, parts[1])) if len(parts) == 3 else None

    def _policy(self, claim: Obj, name: str) -> bool:
        owner = self._set_of(claim)
        if owner is None:
            return False
        policy = owner.spec.get("persistentVolumeClaimRetentionPolicy") or {}
        if policy.get(name) != "Delete":
            return False
        if name == "whenScaled":
            least, _ = self._replicas(owner)
            return int(claim.name.rsplit("-", 1)[1]) >= least or owner.is_deleting
        return True

    def _replicas(self, owner: Obj) -> tuple[int, int]:
        """The fewest and the most of the last hour: pods of lost nodes take their time to go."""
        replicas = int(owner.spec.get("replicas", 1))
        return self.w.span(owner.uid, "ordinals", replicas, keep=3600.0)

    def _volume(self, old: Obj | None, new: Obj | None) -> Iterable[str]:
        was = ((old.spec.get("claimRef") or {}) if old is not None else {}).get("uid")
        ref = ((new.spec.get("claimRef") or {}) if new is not None else {}).get("uid")
        if was and ref and was != ref:
            yield f"{(new or _never()).key.path}: went from claim {was} to {ref}"
        claim = self.w.by_uid.get(was) if was else None
        if new is None and old is not None and claim is not None and not claim.is_deleting:
            yield f"{old.key.path}: went while {claim.key.path} is bound to it"


def _runs_on(pod: Obj, claim: Obj) -> bool:
    if pod.namespace != claim.namespace or not pod.spec.get("nodeName"):
        return False
    for volume in pod.spec.get("volumes") or ():
        if (volume.get("persistentVolumeClaim") or {}).get("claimName") == claim.name:
            return True
        if "ephemeral" in volume and f"{pod.name}-{volume['name']}" == claim.name:
            return any(r["uid"] == pod.uid for r in claim.owners)
    return False


def _never() -> Obj:
    raise AssertionError("a change of nothing")


# -- preemption ------------------------------------------------------------------------------------


class PreemptionGuard(Guard):
    """Only what is less important makes room, and only for somebody who may and does wait."""

    resources = frozenset(("pods",))

    def __init__(self, w: Watchdog) -> None:
        super().__init__(w)
        self._waited: dict[str, tuple[float, int]] = {}  # uid -> when it last waited, priority

    def see(self, pairs: Sequence[Pair]) -> Iterable[str]:
        now = self.w.world.clock.now()
        for old, new in pairs:
            if new is None:
                if old is not None and old.uid in self._waited and not old.spec.get("nodeName"):
                    self._waited[old.uid] = (now, self._waited[old.uid][1])  # until now
                continue
            if new.key.resource != "pods":
                continue
            value = int(new.spec.get("priority") or 0)
            if not (old or new).spec.get("nodeName"):
                if new.spec.get("preemptionPolicy") != "Never":
                    self._waited[new.uid] = (now, value)
            why = _disruption(new)
            if old is None or why != "PreemptionByScheduler" or _disruption(old) == why:
                continue
            self.w.preemptions += 1
            waiting = [v for _at, v in self._waiting(now)]
            if max(waiting, default=value) <= value:
                yield f"{new.key.path} of priority {value} made room for {waiting}"

    def _waiting(self, now: float) -> Iterable[tuple[float, int]]:
        """Pods without a node, now or a while ago: a deletion may be late."""
        for uid, (at, value) in self._waited.items():
            held = self.w.by_uid.get(uid)
            if now - at < LATE or (held is not None and not held.spec.get("nodeName")):
                yield at, value


# -- events ----------------------------------------------------------------------------------------


class EventGuard(Guard):
    """No component tells of one object more than 25 times at once and every five minutes then."""

    resources = frozenset(("events",))

    def __init__(self, w: Watchdog) -> None:
        super().__init__(w)
        self._told: dict[tuple[Any, ...], list[float]] = {}

    def see(self, pairs: Sequence[Pair]) -> Iterable[str]:
        world = self.w.world
        now = world.clock.now()
        for _old, new in pairs:
            if new is None or new.key.resource != "events":
                continue
            source = new.body.get("source") or {}
            component, host = source.get("component", ""), source.get("host", "")
            node = world.nodes.get(host)
            life = node.starts if node is not None else (
                world.lives, world.restarts.get(component, 0))  # fmt: skip
            about = (new.body.get("involvedObject") or {}).get("uid", "")
            told = self._told.setdefault((component, host, life, about), [])
            told.append(now)
            passed = max(told) - told[0]
            if len(told) > 25 + math.ceil(passed / 300.0) + 1:
                yield f"{component} told {len(told)} times of {about} within {passed:.0f} s"


ALL: tuple[type[Guard], ...] = (
    BudgetGuard, ScaleGuard, QuotaGuard, ClaimGuard, PreemptionGuard, EventGuard,
)  # fmt: skip
