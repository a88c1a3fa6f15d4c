"""Properties that remember, and what has to be true at rest: each of them can fail."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sampan.api.call import Call
from sampan.api.obj import Body, Obj, encode
from sampan.app.control_plane import controller_user
from sampan.lib.clock import rfc3339
from sampan.lib.loop import START, run_virtual
from sampan.sim.guards import ClaimGuard
from sampan.sim.properties import Watchdog
from sampan.sim.rest import unsettled
from sampan.sim.world import World, world
from sampan.store.base import Delete, Put

BUDGETS, CLAIMS, VOLUMES = (
    "poddisruptionbudgets.policy",
    "persistentvolumeclaims",
    "persistentvolumes",
)
SCALERS, SETS = "horizontalpodautoscalers.autoscaling", "statefulsets.apps"
LABELS = {"app": "a"}


class Hand:
    """Writes what no controller should, past all checks."""

    def __init__(self, w: World, watchdog: Watchdog) -> None:
        self.w, self.watchdog = w, watchdog

    async def make(self, resource: str, body: Body, namespace: str = "default") -> Obj:
        return await self.w.client.create(resource, body, namespace)

    async def put(self, *changed: tuple[Obj, Body]) -> None:
        """Merge into objects, all in one commit."""
        await self.w.store.commit(
            *(Put(obj.key.path, encode(_merged(obj.body, change))) for obj, change in changed)
        )

    async def now(self, obj: Obj) -> Obj:
        return await self.w.client.get(obj.key.resource, obj.name, obj.namespace)

    async def pod(
        self, name: str, *, ready: bool = True, meta: Body | None = None, **spec: Any
    ) -> Obj:
        container: Body = {"name": "c", "image": "i", **spec.pop("container", {})}
        meta = {"name": name, "labels": LABELS, **(meta or {})}
        made = await self.make(
            "pods", {"metadata": meta, "spec": {"containers": [container], **spec}}
        )
        status = {"phase": "Running", "conditions": [
            {"type": "Ready", "status": "True" if ready else "False"}]}  # fmt: skip
        await self.put((made, {"status": status}))
        return await self.now(made)


def _merged(body: Body, change: Body) -> Body:
    new = dict(body)
    for name, value in change.items():
        held = new.get(name)
        is_map = isinstance(held, dict) and isinstance(value, dict)
        new[name] = _merged(held, value) if is_map else value  # type: ignore[arg-type]
    return new


Scenario = Callable[[Hand], Awaitable[Any]]


def violations(scenario: Scenario, *, at_rest: bool = False) -> list[str]:
    """What is found of a world without controllers; at rest: what would be waited for."""

    async def main() -> list[str]:
        async with world(nodes=1) as w:
            watchdog = Watchdog(w)
            w.kill_control()
            await scenario(Hand(w, watchdog))
            return unsettled(watchdog) if at_rest else watchdog.violations

    return run_virtual(main())


def about(found: list[str], *parts: str) -> bool:
    return any(all(p in text for p in parts) for text in found)


# -- budgets ---------------------------------------------------------------------------------------


def budget(**spec: Any) -> Body:
    return {"metadata": {"name": "b"}, "spec": {"selector": {"matchLabels": LABELS}, **spec}}


def evicted(pod: Obj) -> Body:
    """What an eviction makes of a pod."""
    target = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
    return {"metadata": {"deletionTimestamp": rfc3339(START)},
            "status": {"conditions": [*pod.status["conditions"], target]}}  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after", "is_seen"), [(1, 0, False), (1, 1, True), (0, -1, True), (2, 0, True)]
)
def test_an_eviction_takes_one_of_its_budget(before: int, after: int, is_seen: bool) -> None:
    async def scenario(h: Hand) -> None:
        pod = await h.pod("p")
        held = await h.make(BUDGETS, budget(minAvailable=0))
        await h.put((held, {"status": {"disruptionsAllowed": before}}))
        held = await h.now(held)
        gone = {"disruptionsAllowed": after, "disruptedPods": {"p": rfc3339(START)}}
        await h.put((held, {"status": gone}), (pod, evicted(pod)))
        assert h.watchdog.evictions == 1

    assert about(violations(scenario), "evicted without leave") is is_seen


def test_an_eviction_that_charges_nobody_is_seen() -> None:
    async def scenario(h: Hand) -> None:
        pod = await h.pod("p")
        await h.make(BUDGETS, budget(minAvailable=0))
        await h.put((pod, evicted(pod)))

    assert about(violations(scenario), "evicted without leave of", "default/b")


@pytest.mark.parametrize(
    ("later", "ready", "known", "is_seen"),
    [
        (200.0, True, 2, True), (10.0, True, 2, False), (200.0, False, 3, False),
        (200.0, True, 1, False),
    ],
)  # fmt: skip
def test_evictions_alone_never_break_a_budget(
    later: float, ready: bool, known: int, is_seen: bool
) -> None:
    """Unless it was broken otherwise a moment ago, or what goes was not healthy, or the budget's
    controller had no cause to count anew since a workload was scaled."""

    async def scenario(h: Hand) -> None:
        pod = await h.pod("p", ready=ready)
        await h.pod("q")
        if not ready:
            await h.pod("r")
        held = await h.make(BUDGETS, budget(minAvailable=2))
        await h.put((held, {"status": {"disruptionsAllowed": 1, "expectedPods": known}}))
        h.w.clock.offset += later
        held = await h.now(held)
        gone = {
            "disruptionsAllowed": 0, "expectedPods": known, "disruptedPods": {"p": rfc3339(START)}
        }  # fmt: skip
        await h.put((held, {"status": gone}), (pod, evicted(pod)))

    assert about(violations(scenario), "broken by an eviction") is is_seen


# -- autoscalers -----------------------------------------------------------------------------------


def scale(h: Hand, replicas: int) -> None:
    call = Call(
        verb="update", resource="deployments.apps", namespace="default", name="d",
        subresource="scale", body={"spec": {"replicas": replicas}},
    )  # fmt: skip
    for listen in h.w.listeners:
        listen(controller_user("horizontal-pod-autoscaler"), call)


async def scaled(h: Hand, replicas: int = 4, **behavior: Any) -> Obj:
    template = {
        "metadata": {"labels": LABELS},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }
    spec = {"replicas": replicas, "selector": {"matchLabels": LABELS}, "template": template}
    made = await h.make("deployments.apps", {"metadata": {"name": "d"}, "spec": spec})
    ref = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}
    hpa: Body = {"scaleTargetRef": ref, "minReplicas": 2, "maxReplicas": 9}
    if behavior:
        hpa["behavior"] = behavior
    await h.make(SCALERS, {"metadata": {"name": "h"}, "spec": hpa})
    return made


@pytest.mark.parametrize(("replicas", "is_seen"), [(1, True), (2, False), (9, False), (10, True)])
def test_an_autoscaler_keeps_within_its_bounds(replicas: int, is_seen: bool) -> None:
    async def scenario(h: Hand) -> None:
        await scaled(h)
        scale(h, replicas)

    assert about(violations(scenario), f"d scaled to {replicas}, which none of") is is_seen


@pytest.mark.parametrize(("later", "is_seen"), [(30.0, True), (61.0, False)])
def test_an_autoscaler_keeps_to_its_rates(later: float, is_seen: bool) -> None:
    async def scenario(h: Hand) -> None:
        policies = [{"type": "Pods", "value": 2, "periodSeconds": 60}]
        made = await scaled(h, scaleUp={"policies": policies})
        scale(h, 6)
        await h.put((made, {"spec": {"replicas": 6}}))
        h.watchdog.world.clock._base = _Later(h.watchdog.world.clock._base, later)  # type: ignore[attr-defined]
        scale(h, 7)

    assert about(violations(scenario), "scaleUp faster than its rates: [(3, 2)]") is is_seen


class _Later:
    """A clock on which time has gone by without a jump."""

    def __init__(self, base: Any, by: float) -> None:
        self._base, self._by = base, by

    def now(self) -> float:
        return float(self._base.now()) + self._by


# -- quotas ----------------------------------------------------------------------------------------


async def quota(h: Hand, hard: Body, used: Body) -> Obj:
    made = await h.make("resourcequotas", {"metadata": {"name": "q"}, "spec": {"hard": hard}})
    await h.put((made, {"status": {"hard": hard, "used": used}}))
    return await h.now(made)


@pytest.mark.parametrize(("used", "is_seen"), [("3", False), ("4", True)])
def test_a_quota_is_never_charged_above_its_limit(used: str, is_seen: bool) -> None:
    async def scenario(h: Hand) -> None:
        held = await quota(h, {"services": "3"}, {"services": "1"})
        await h.put((held, {"status": {"used": {"services": used}}}))

    assert about(violations(scenario), "services rose from 1 to 4 of 3") is is_seen


@pytest.mark.parametrize(("used", "is_seen"), [("0", True), ("1", False), ("2", False)])
def test_what_is_there_is_charged(used: str, is_seen: bool) -> None:
    async def scenario(h: Hand) -> None:
        held = await quota(h, {"pods": "3"}, {"pods": "0"})
        await h.pod("p")
        h.watchdog.violations.clear()
        await h.put((held, {"status": {"used": {"pods": used}}}))

    assert about(violations(scenario), "1 pods are there, 0 are charged") is is_seen


# -- claims and volumes ----------------------------------------------------------------------------


async def claim(h: Hand, name: str = "c", volume: str = "", owner: Body | None = None) -> Obj:
    meta: Body = {"name": name, "ownerReferences": [owner] if owner else []}
    made = await h.make(
        CLAIMS,
        {
            "metadata": meta,
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}},
            },
        },
    )
    if volume:
        await h.put((made, {"spec": {"volumeName": volume}, "status": {"phase": "Bound"}}))
    return await h.now(made)


async def gone(h: Hand, obj: Obj) -> None:
    await h.put((obj, {"metadata": {"deletionTimestamp": rfc3339(START)}}))


@pytest.mark.parametrize("asked", [True, False])
def test_a_claim_goes_when_somebody_asked_for_it_only(asked: bool) -> None:
    async def scenario(h: Hand) -> None:
        held = await claim(h)
        if asked:
            h.watchdog.guard(ClaimGuard).asked.add(held.uid)
        await gone(h, held)

    assert about(violations(scenario), "deleted though nothing asks for it") is not asked


@pytest.mark.parametrize(
    ("policy", "replicas", "ordinal", "is_seen"),
    [("Delete", 1, 1, False), ("Delete", 2, 1, True), ("Retain", 1, 1, True)],
)
def test_scaling_deletes_claims_as_the_policy_says(
    policy: str, replicas: int, ordinal: int, is_seen: bool
) -> None:
    async def scenario(h: Hand) -> None:
        template = {"metadata": {"labels": LABELS},
                    "spec": {"containers": [{"name": "c", "image": "i"}]}}  # fmt: skip
        await h.make(
            SETS,
            {
                "metadata": {"name": "db"},
                "spec": {
                    "replicas": replicas,
                    "serviceName": "db",
                    "selector": {"matchLabels": LABELS},
                    "template": template,
                    "persistentVolumeClaimRetentionPolicy": {"whenScaled": policy},
                },
            },
        )
        ref = {"apiVersion": "v1", "kind": "Pod", "name": f"db-{ordinal}", "uid": "gone"}
        await gone(h, await claim(h, f"data-db-{ordinal}", owner=ref))

    assert about(violations(scenario), "deleted though nothing asks for it") is is_seen


@pytest.mark.parametrize("policy", ["Delete", "Retain"])
def test_a_deleted_set_takes_its_claims_along_as_the_policy_says(policy: str) -> None:
    async def scenario(h: Hand) -> None:
        template = {"metadata": {"labels": LABELS},
                    "spec": {"containers": [{"name": "c", "image": "i"}]}}  # fmt: skip
        made = await h.make(
            SETS,
            {
                "metadata": {"name": "db"},
                "spec": {
                    "serviceName": "db",
                    "selector": {"matchLabels": LABELS},
                    "template": template,
                    "persistentVolumeClaimRetentionPolicy": {"whenDeleted": policy},
                },
            },
        )
        ref = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": made.uid}
        held = await claim(h, "data-db-0", owner=ref)
        await gone(h, made)
        await gone(h, held)

    is_seen = about(violations(scenario), "deleted though nothing asks for it")
    assert is_seen is (policy == "Retain")


@pytest.mark.parametrize("phase", ["Running", "Succeeded"])
def test_a_claim_stays_while_a_pod_runs_on_it(phase: str) -> None:
    async def scenario(h: Hand) -> None:
        held = await claim(h)
        volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]
        pod = await h.pod("p", volumes=volumes)
        await h.put((pod, {"spec": {"nodeName": "n1"}, "status": {"phase": phase}}))
        await h.w.store.commit(_delete(held))

    assert about(violations(scenario), "went while ['p'] use it") is (phase == "Running")


def _delete(obj: Obj) -> Delete:
    return Delete(obj.key.path)


async def volume(h: Hand, held: Obj) -> Obj:
    ref = {"kind": "PersistentVolumeClaim", "namespace": "default", "name": held.name,
           "uid": held.uid}  # fmt: skip
    return await h.make(
        VOLUMES,
        {
            "metadata": {"name": "v"},
            "spec": {
                "capacity": {"storage": "1Gi"},
                "accessModes": ["ReadWriteOnce"],
                "claimRef": ref,
                "hostPath": {"path": "/v"},
            },
        },
        "",
    )


def test_two_claims_never_have_one_volume() -> None:
    async def scenario(h: Hand) -> None:
        await claim(h, "c", volume="v")
        await claim(h, "d", volume="v")

    assert about(violations(scenario), "are bound to v")


def test_a_volume_does_not_change_hands_nor_go_while_it_is_used() -> None:
    async def changes(h: Hand) -> None:
        made = await volume(h, await claim(h, "c"))
        await h.put((made, {"spec": {"claimRef": {"uid": "other"}}}))

    async def goes(h: Hand) -> None:
        made = await volume(h, await claim(h, "c"))
        await h.w.store.commit(_delete(made))

    assert about(violations(changes), "went from claim")
    assert about(violations(goes), "went while persistentvolumeclaims/default/c is bound to it")


# -- preemption, events ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("waiting", "policy", "is_seen"),
    [(5, None, False), (3, None, True), (5, "Never", True), (None, None, True)],
)
def test_only_what_is_less_important_makes_room(
    waiting: int | None, policy: str | None, is_seen: bool
) -> None:
    async def scenario(h: Hand) -> None:
        victim = await h.pod("victim")
        await h.put((victim, {"spec": {"priority": 3, "nodeName": "n1"}}))
        victim = await h.now(victim)
        if waiting is not None:
            waits = await h.pod("waits")
            await h.put((waits, {"spec": {"priority": waiting, "preemptionPolicy": policy}}))
        why = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}
        await h.put((victim, {"status": {"conditions": [why]}}))
        assert h.watchdog.preemptions == 1

    assert about(violations(scenario), "of priority 3 made room for") is is_seen


@pytest.mark.parametrize(("count", "is_seen"), [(26, False), (40, True)])
def test_a_storm_of_events_is_seen(count: int, is_seen: bool) -> None:
    async def scenario(h: Hand) -> None:
        for n in range(count):
            await h.make(
                "events",
                {
                    "metadata": {"name": f"e{n}"},
                    "source": {"component": "x"},
                    "reason": "R",
                    "involvedObject": {
                        "kind": "Pod",
                        "namespace": "default",
                        "name": "p",
                        "uid": "u",
                    },
                },
            )

    assert about(violations(scenario), "x told", "times of u within 0 s") is is_seen


# -- rest ------------------------------------------------------------------------------------------


async def orphan(h: Hand) -> str:
    ref = {"apiVersion": "v1", "kind": "Secret", "name": "s", "uid": "gone"}
    await h.make("configmaps", {"metadata": {"name": "c", "ownerReferences": [ref]}})
    return "configmaps/default/c is an orphan"


async def waiting(h: Hand) -> str:
    made = await h.pod("p", container={"resources": {"requests": {"cpu": "8"}}})
    await h.put((made, {"status": {"phase": "Pending"}}))
    return "pods/default/p: waits though n1 has room"


async def budgeted(h: Hand) -> str:
    await h.pod("p")
    held = await h.make(BUDGETS, budget(maxUnavailable=1))
    await h.put((held, {"spec": {"maxUnavailable": None, "minAvailable": 1}}))
    return "(0, 0, 0, 0), {}, true is (1, 1, 1, 0)"


async def charged(h: Hand) -> str:
    await quota(h, {"services": "3"}, {"services": "3"})
    return "resourcequotas/default/q: used is"


async def unclaimed(h: Hand) -> str:
    held = await claim(h)
    await volume(h, held)
    await h.w.store.commit(_delete(held))
    return "persistentvolumes//v: nobody has claimed it any more"


async def misbound(h: Hand) -> str:
    await claim(h, "c", volume="v")
    await volume(h, await claim(h, "d"))
    return "persistentvolumeclaims/default/c: its volume belongs to"


async def overscaled(h: Hand) -> str:
    await scaled(h, replicas=12)
    held = await h.w.client.get(SCALERS, "h", "default")
    active = [{"type": "ScalingActive", "status": "True"}]
    await h.put((held, {"status": {"conditions": active}}))
    return "h: 12 is not within 2 and 9"


async def unlisted(h: Hand) -> str:
    pod = await h.pod("p")
    await h.put((pod, {"status": {"podIP": "10.42.1.9"}}))
    await h.make(
        "services",
        {"metadata": {"name": "s"}, "spec": {"selector": LABELS, "ports": [{"port": 80}]}},
    )
    return "services/default/s: slices say {}, true is {'10.42.1.9': True}"


@pytest.mark.parametrize(
    "scenario",
    [orphan, waiting, budgeted, charged, unclaimed, misbound, overscaled, unlisted],
)
def test_rest_is_told_from_unrest(scenario: Callable[[Hand], Awaitable[str]]) -> None:
    said: list[str] = []

    async def told(h: Hand) -> None:
        said.append(await scenario(h))

    found = violations(told, at_rest=True)
    assert about(found, *said), found
