"""Jobs and CronJobs in the whole cluster, in virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import pytest

from sampan.api.obj import Body, Obj
from sampan.apiserver.pages import obj_of
from sampan.controllers.job_pods import INDEX
from sampan.lib.clock import parse_rfc3339
from sampan.lib.loop import START, run_virtual
from sampan.testing.world import World, takeover, world

JOBS, CRONS = "jobs.batch", "cronjobs.batch"


def job(name: str = "work", *, run: float = 5, exit: int = 0, **spec: Any) -> Body:
    """Its pods run so long and end so (the fake runtime reads it from the label)."""
    behaviour = f"run={run},exit={exit}"
    return {
        "metadata": {"name": name},
        "spec": {**spec, "template": {"spec": {
            "restartPolicy": "Never", "terminationGracePeriodSeconds": 5,
            "containers": [{"name": "c", "image": "v1",
                            "env": [{"name": "SAMPAN_FAKE", "value": behaviour}]}],
        }}},
    }  # fmt: skip


def cron(schedule: str, *, run: float = 5, **spec: Any) -> Body:
    return {
        "metadata": {"name": "tick"},
        "spec": {"schedule": schedule, "jobTemplate": {"spec": job(run=run)["spec"]}, **spec},
    }


def run(scenario: Callable[[World], Awaitable[Any]], *, nodes: int = 2, seed: int = 0) -> Any:
    async def main() -> Any:
        async with world(nodes=nodes, seed=seed) as w:
            return await scenario(w)

    return run_virtual(main())


async def ended(w: World, name: str = "work", *, seconds: float = 3600) -> Obj:
    """The Job, once it is complete or failed."""
    async with asyncio.timeout(seconds):
        while True:
            found = await w.client.get(JOBS, name, "default")
            if any(c["type"] in ("Complete", "Failed") for c in found.status.get("conditions", ())):
                await asyncio.sleep(1)
                return await w.client.get(JOBS, name, "default")
            await asyncio.sleep(0.1)


async def pods(w: World) -> list[Obj]:
    return (await w.client.list("pods", "default")).items


def most_at_once(w: World, since: int) -> int:
    """The most pods that were neither finished nor being deleted."""
    state: dict[str, Obj] = {}
    most = 0
    for change in w.store.changes(since):
        if change.key.startswith("pods/"):
            state.pop(change.key, None)
            if change.record is not None:
                state[change.key] = obj_of(change.record)
            active = [
                p for p in state.values()
                if not p.is_deleting and p.status.get("phase") in ("Pending", "Running")
            ]  # fmt: skip
            most = max(most, len(active))
    return most


def test_twenty_completions_five_at_a_time() -> None:
    async def scenario(w: World) -> None:
        since = w.store.revision
        await w.client.create(JOBS, job(completions=20, parallelism=5), "default")
        found = await ended(w)
        assert found.status["succeeded"] == 20
        assert found.status["uncountedTerminatedPods"] == {}
        assert most_at_once(w, since) == 5
        took = parse_rfc3339(found.status["completionTime"]) - parse_rfc3339(
            found.status["startTime"]
        )
        assert 20 <= took <= 25
        made = await pods(w)
        assert len(made) == 20 and all("finalizers" not in p.meta for p in made)
        after = w.store.revision
        await asyncio.sleep(600)
        assert not {"pods", JOBS} & set(w.writes(after))

    run(scenario)


def test_a_job_costs_few_writes() -> None:
    async def scenario(w: World) -> None:
        since = w.store.revision
        await w.client.create(JOBS, job(), "default")
        await ended(w)
        writes = w.writes(since)
        assert writes["pods"] <= 5  # created, bound, running, succeeded, let go
        assert writes[JOBS] <= 5  # created, begun, ready, booked, complete

    run(scenario)


def test_a_failing_index_and_its_back_off() -> None:
    async def scenario(w: World) -> None:
        body = job(completions=3, parallelism=3, completionMode="Indexed", backoffLimitPerIndex=1)
        env = body["spec"]["template"]["spec"]["containers"][0]["env"][0]
        env["value"] = "run=2"
        await w.client.create(JOBS, body, "default")
        await asyncio.sleep(1)
        for runtime in w.runtimes.values():
            for box in await runtime.sandboxes():
                for c in box.containers:
                    if "-1-" in box.labels.get("io.kubernetes.pod.name", ""):
                        runtime.finish(c.id, 3)
        found = await ended(w)
        assert found.status["completedIndexes"] == "0-2"
        assert found.status["failed"] == 1
        second = [p for p in await pods(w) if p.annotations[INDEX] == "1"]
        assert len(second) == 2

    run(scenario)


def test_back_off_doubles() -> None:
    async def scenario(w: World) -> None:
        await w.client.create(JOBS, job(run=0, exit=1, backoffLimit=3), "default")
        found = await ended(w)
        (failed,) = [c for c in found.status["conditions"] if c["type"] == "Failed"]
        assert failed["reason"] == "BackoffLimitExceeded"
        assert found.status["failed"] == 4
        born = sorted(parse_rfc3339(p.meta["creationTimestamp"]) for p in await pods(w))
        gaps = [b - a for a, b in pairwise(born)]
        assert all(want <= gap <= want + 2 for gap, want in zip(gaps, (10, 20, 40), strict=True))

    run(scenario)


def test_the_deadline_ends_what_runs() -> None:
    async def scenario(w: World) -> None:
        body = job(run=1000, parallelism=2, completions=2, activeDeadlineSeconds=30)
        await w.client.create(JOBS, body, "default")
        found = await ended(w)
        assert found.status["failed"] == 2 and found.status["terminating"] == 0
        assert [c["reason"] for c in found.status["conditions"]] == ["DeadlineExceeded"] * 2
        assert await pods(w) == []

    run(scenario)


def test_suspend_resume() -> None:
    async def scenario(w: World) -> None:
        await w.client.create(JOBS, job(run=60, parallelism=3, completions=3), "default")
        await asyncio.sleep(10)
        await w.client.patch(JOBS, "work", {"spec": {"suspend": True}}, "default")
        await asyncio.sleep(20)
        assert await pods(w) == []
        found = await w.client.get(JOBS, "work", "default")
        assert "failed" not in found.status and "active" not in found.status
        await w.client.patch(JOBS, "work", {"spec": {"suspend": False}}, "default")
        found = await ended(w)
        assert found.status["succeeded"] == 3

    run(scenario)


@pytest.mark.parametrize("propagation", ["Background", "Foreground"])
def test_a_deleted_job_takes_its_pods_along(propagation: str) -> None:
    async def scenario(w: World) -> None:
        await w.client.create(JOBS, job(run=1000, parallelism=2, completions=4), "default")
        await w.client.create(JOBS, job("done", run=1), "default")
        await ended(w, "done")
        for name in ("work", "done"):
            await w.client.delete(JOBS, name, "default", propagation=propagation)
        await asyncio.sleep(60)
        assert await pods(w) == []
        assert (await w.client.list(JOBS, "default")).items == []

    run(scenario)


def test_orphans_keep_running_and_are_let_go() -> None:
    async def scenario(w: World) -> None:
        await w.client.create(JOBS, job(run=1000), "default")
        await asyncio.sleep(10)
        await w.client.delete(JOBS, "work", "default", propagation="Orphan")
        await asyncio.sleep(10)
        (pod,) = await pods(w)
        assert "finalizers" not in pod.meta and pod.owners == []
        assert pod.status["phase"] == "Running" and not pod.is_deleting

    run(scenario)


def test_time_to_live() -> None:
    async def scenario(w: World) -> None:
        await w.client.create(JOBS, job(run=1, ttlSecondsAfterFinished=100), "default")
        await ended(w)
        await asyncio.sleep(90)
        assert len(await pods(w)) == 1
        await asyncio.sleep(20)
        assert await pods(w) == []
        assert (await w.client.list(JOBS, "default")).items == []

    run(scenario)


@pytest.mark.parametrize("seed", range(3))
def test_the_control_plane_may_be_replaced_at_any_time(seed: int) -> None:
    """Six controllers one after another, each gone at an odd moment: all is counted once."""

    async def scenario(w: World) -> None:
        rng = random.Random(seed)
        since = w.store.revision
        body = job(run=2, completions=12, parallelism=3)
        await w.client.create(JOBS, body, "default")
        for _ in range(6):
            await asyncio.sleep(rng.uniform(0.1, 2.5))
            await takeover(w)
        found = await ended(w)
        assert found.status["succeeded"] == 12
        assert len(await pods(w)) == 12
        assert most_at_once(w, since) == 3

    run(scenario, seed=seed)


def test_a_cron_job_through_a_day() -> None:
    async def scenario(w: World) -> None:
        created: list[str] = []
        w.plane.engine.caches[JOBS].add_handler(
            lambda kind, _old, new: created.append(new.name) if kind == "ADDED" and new else None
        )
        await w.client.create(CRONS, cron("*/10 * * * *"), "default")
        await asyncio.sleep(86400)
        found = await w.client.get(CRONS, "tick", "default")
        kept = (await w.client.list(JOBS, "default")).items
        assert len(kept) == 3
        minutes = [int(j.name.removeprefix("tick-")) for j in kept]
        assert [b - a for a, b in pairwise(minutes)] == [10, 10]
        assert "active" not in found.status
        last = parse_rfc3339(found.status["lastScheduleTime"])
        assert START + 86400 - last < 600
        assert parse_rfc3339(found.status["lastSuccessfulTime"]) - last <= 10
        assert len(created) == len(set(created)) == 144

    run(scenario, nodes=1)


def test_forbid_waits_and_replace_does_not() -> None:
    async def scenario(w: World) -> None:
        body = cron("* * * * *", run=90, concurrencyPolicy="Forbid")
        await w.client.create(CRONS, body, "default")
        await asyncio.sleep(200)
        running = [
            j for j in (await w.client.list(JOBS, "default")).items
            if not j.status.get("completionTime")
        ]  # fmt: skip
        assert len(running) == 1
        await w.client.patch(CRONS, "tick", {"spec": {"concurrencyPolicy": "Replace"}}, "default")
        await asyncio.sleep(300)
        names = {j.name for j in (await w.client.list(JOBS, "default")).items
                 if not j.status.get("completionTime")}  # fmt: skip
        assert len(names) == 1

    run(scenario)
