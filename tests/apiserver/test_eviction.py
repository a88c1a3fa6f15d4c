"""pods/eviction: who may go, in which words one may not, and that no allowance is used twice."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.api.call import Call
from sampan.api.errors import StatusError
from sampan.api.obj import Body, Obj
from sampan.client.base import Client
from sampan.testing.api import api_server, client_of

BUDGETS = "poddisruptionbudgets.policy"


class Place:
    """An API server, budgets as their controller would leave them, and pods."""

    client: Client

    @staticmethod
    async def make() -> Place:
        place = Place()
        place.client = client_of(await api_server())
        account = {"metadata": {"name": "default"}}
        await place.client.create("serviceaccounts", account, "default")
        return place

    async def budget(self, allowed: int, name: str = "b", **spec: Any) -> None:
        selector = {"matchLabels": {"app": "web"}}
        made = await self.client.create(
            BUDGETS, {"metadata": {"name": name}, "spec": {"selector": selector, **spec}}, "default"
        )
        status = {
            "disruptionsAllowed": allowed, "currentHealthy": 3,
            "desiredHealthy": max(0, 3 - allowed),
            "expectedPods": 3, "observedGeneration": 1,
            "conditions": [{"type": "DisruptionAllowed", "status": "True", "message": "",
                            "reason": "SufficientPods",
                            "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        }  # fmt: skip
        await self.client.update(BUDGETS, {**made.body, "status": status}, subresource="status")

    async def pod(self, name: str, *, phase: str = "Running", ready: bool = True) -> Obj:
        made = await self.client.create("pods", {
            "metadata": {"name": name, "labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": "x"}], "nodeName": "n1"},
        }, "default")  # fmt: skip
        status = {"phase": phase, "conditions": [{"type": "Ready", "status": str(ready)}]}
        return await self.client.update(
            "pods", {**made.body, "status": status}, subresource="status"
        )

    async def evict(self, name: str, *, version: str = "policy/v1", **options: Any) -> Obj:
        body: Body = {"apiVersion": version, "kind": "Eviction", "metadata": {"name": name}}
        if options:
            body["deleteOptions"] = options
        return await self.client.create("pods", body, "default", name=name, subresource="eviction")

    async def allowed(self) -> int:
        found = (await self.client.get(BUDGETS, "b", "default")).status["disruptionsAllowed"]
        return int(found)


@pytest.mark.parametrize("version", ["policy/v1", "policy/v1beta1"])
def test_an_eviction(version: str) -> None:
    async def main() -> None:
        p = await Place.make()
        await p.budget(1)
        await p.pod("a")
        assert (await p.evict("a", version=version)).body["status"] == "Success"
        pod = await p.client.get("pods", "a", "default")
        assert pod.is_deleting
        (target,) = [c for c in pod.status["conditions"] if c["type"] == "DisruptionTarget"]
        assert (target["status"], target["reason"], target["message"]) == (
            "True", "EvictionByEvictionAPI", "Eviction API: evicting",
        )  # fmt: skip
        budget = await p.client.get(BUDGETS, "b", "default")
        assert budget.status["disruptionsAllowed"] == 0
        assert list(budget.status["disruptedPods"]) == ["a"]
        (condition,) = budget.status["conditions"]
        assert (condition["status"], condition["reason"]) == ("False", "InsufficientPods")

    asyncio.run(main())


def test_a_refusal() -> None:
    async def main() -> None:
        p = await Place.make()
        await p.budget(0)
        await p.pod("a")
        with pytest.raises(StatusError) as e:
            await p.evict("a")
        assert e.value.status() == {
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "Cannot evict pod as it would violate the pod's disruption budget.",
            "reason": "TooManyRequests", "code": 429,
            "details": {"causes": [{
                "reason": "DisruptionBudget",
                "message": "The disruption budget b needs 3 healthy pods and has 3 currently",
            }]},
        }  # fmt: skip
        assert not (await p.client.get("pods", "a", "default")).is_deleting

    asyncio.run(main())


def test_a_budget_nobody_has_looked_at_yet() -> None:
    async def main() -> None:
        p = await Place.make()
        await p.pod("a")
        await p.client.create(
            BUDGETS, {"metadata": {"name": "b"}, "spec": {"selector": {}}}, "default"
        )
        with pytest.raises(StatusError) as e:
            await p.evict("a")
        assert (e.value.code, e.value.retry_after) == (429, 10)
        (cause,) = e.value.status()["details"]["causes"]
        assert cause["message"] == (
            "The disruption budget b is still being processed by the server."
        )

    asyncio.run(main())


def test_two_budgets() -> None:
    async def main() -> None:
        p = await Place.make()
        await p.budget(1)
        await p.budget(1, "c")
        await p.pod("a")
        with pytest.raises(StatusError) as e:
            await p.evict("a")
        assert e.value.code == 500
        assert "more than one PodDisruptionBudget" in e.value.message

    asyncio.run(main())


@pytest.mark.parametrize(
    ("phase", "ready", "policy", "goes"),
    [
        ("Running", True, None, False), ("Pending", False, None, True),
        ("Succeeded", False, None, True), ("Failed", False, None, True),
        ("Running", False, None, True), ("Running", False, "AlwaysAllow", True),
        ("Running", True, "AlwaysAllow", False), ("Running", False, "IfHealthyBudget", True),
    ],
)  # fmt: skip
def test_who_needs_no_leave(phase: str, ready: bool, policy: str | None, goes: bool) -> None:
    """currentHealthy is desiredHealthy here: a pod that is not ready may go."""

    async def main() -> None:
        p = await Place.make()
        spec = {} if policy is None else {"unhealthyPodEvictionPolicy": policy}
        await p.budget(0, **spec)
        await p.pod("a", phase=phase, ready=ready)
        try:
            await p.evict("a")
        except StatusError as e:
            assert e.code == 429 and not goes
        else:
            assert goes
            assert await p.allowed() == 0

    asyncio.run(main())


@pytest.mark.parametrize(("policy", "goes"), [("AlwaysAllow", True), ("IfHealthyBudget", False)])
def test_a_sick_application_keeps_its_sick_pods(policy: str, goes: bool) -> None:
    async def main() -> None:
        p = await Place.make()
        await p.budget(0, unhealthyPodEvictionPolicy=policy)
        found = await p.client.get(BUDGETS, "b", "default")
        status = {**found.status, "currentHealthy": 1}
        await p.client.update(BUDGETS, {**found.body, "status": status}, subresource="status")
        await p.pod("a", ready=False)
        try:
            await p.evict("a")
            assert goes
        except StatusError as e:
            assert e.code == 429 and not goes

    asyncio.run(main())


def test_a_rehearsal_changes_nothing() -> None:
    async def main() -> None:
        p = await Place.make()
        await p.budget(1)
        await p.pod("a")
        for _ in range(2):
            await p.evict("a", dryRun=["All"])
        call = Call(
            verb="create", resource="pods", namespace="default", name="a",
            subresource="eviction", options={"dryRun": "All"},
            body={"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "a"}},
        )  # fmt: skip
        await p.client.transport.call(call)
        assert await p.allowed() == 1
        assert not (await p.client.get("pods", "a", "default")).is_deleting
        await p.budget(0, "c")
        with pytest.raises(StatusError):
            await p.evict("a", dryRun=["All"])

    asyncio.run(main())


def test_preconditions_grace_and_names() -> None:
    async def main() -> None:
        p = await Place.make()
        pod = await p.pod("a")
        for wanted in ({"uid": "x"}, {"resourceVersion": "1"}):
            with pytest.raises(StatusError) as e:
                await p.evict("a", preconditions=wanted)
            assert e.value.code == 409
        with pytest.raises(StatusError) as e:
            await p.client.create(
                "pods", {"metadata": {"name": "b"}}, "default", name="a", subresource="eviction"
            )
        assert e.value.message == "name in URL does not match name in Eviction object"
        with pytest.raises(StatusError) as e:
            await p.evict("nobody")
        assert e.value.code == 404
        good = {"uid": pod.uid, "resourceVersion": str(pod.revision)}
        await p.evict("a", preconditions=good, gracePeriodSeconds=7)
        found = await p.client.get("pods", "a", "default")
        assert found.meta["deletionGracePeriodSeconds"] == 7
        await p.evict("a")  # again: it is on its way
        await p.evict("a", gracePeriodSeconds=0)
        with pytest.raises(StatusError):
            await p.client.get("pods", "a", "default")

    asyncio.run(main())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 4), st.integers(1, 8), st.integers(0, 2**16))
def test_never_more_go_than_allowed(allowed: int, pods: int, seed: int) -> None:
    """However many ask at once, while others write the pods."""

    async def main() -> None:
        p = await Place.make()
        await p.budget(allowed)
        for i in range(pods):
            await p.pod(f"p{i}")
        rng = random.Random(seed)

        async def ask(i: int) -> bool:
            for _ in range(rng.randrange(3)):
                await asyncio.sleep(0)
            try:
                await p.evict(f"p{i}")
            except StatusError as e:
                assert e.code == 429
                return False
            return True

        async def meddle(i: int) -> None:
            patch = {"metadata": {"annotations": {"a": str(i)}}}
            await p.client.patch("pods", f"p{i % pods}", patch, "default")

        *went, _ = await asyncio.gather(*map(ask, range(pods)), meddle(seed))
        assert sum(map(bool, went)) == min(allowed, pods)
        found = (await p.client.list("pods", "default")).items
        assert sum(o.is_deleting for o in found) == min(allowed, pods)
        assert await p.allowed() == max(0, allowed - pods)

    asyncio.run(main())
