"""Random histories: properties at every write; one seed, one history; properties that can fail."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest

from sampan.api.obj import Body, Key, Obj, encode
from sampan.lib.loop import run_virtual
from sampan.sim import histories, properties
from sampan.sim.properties import Violation, Watchdog, scaled, surge_bound
from sampan.sim.world import World, world
from sampan.store.base import Put

SAMPLE = 40
DEEP = 10_000


@pytest.mark.parametrize("block", range(4))
def test_a_sample_of_histories_keeps_every_property(block: int) -> None:
    checks = 0
    for seed in range(block * SAMPLE // 4, (block + 1) * SAMPLE // 4):
        checks += histories.run(seed).checks
    assert checks > 500


@pytest.mark.deep
def test_ten_thousand_histories_keep_every_property() -> None:
    failed: list[str] = []
    sums: Counter[str] = Counter()
    with ProcessPoolExecutor() as pool:
        for text, counts in pool.map(_try, range(DEEP), chunksize=50):
            failed += [text] if text else []
            sums.update(counts)
    assert not failed, "\n".join(failed[:5])
    print(dict(sums))
    # What is to be proven did happen, and often.
    assert sums["evictions"] > DEEP / 10 and sums["rescales"] > DEEP / 20
    assert sums["preemptions"] > DEEP / 20 and sums["deaths"] > DEEP


def _try(seed: int) -> tuple[str, dict[str, float]]:
    try:
        done = histories.run(seed)
    except Violation as e:
        return str(e), {}
    return "", {n: getattr(done, n) for n in histories.SUMMED}


def test_one_seed_is_one_history_whatever_the_hash_seed() -> None:
    told = set()
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-m", "sampan.sim.histories", "3", "10"], capture_output=True,
            text=True, check=True, env={**os.environ, "PYTHONHASHSEED": hash_seed},
        )  # fmt: skip
        told.add(done.stdout)
        assert len(set(re.findall("digest='([0-9a-f]{64})'", done.stdout))) == 10
    assert len(told) == 1


def test_a_failure_names_its_seed_and_how_to_see_it_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(histories, "unsettled", lambda _w: ["never"])
    monkeypatch.setattr(histories, "SETTLE_SECONDS", 60.0)
    assert histories.main(["7"]) == 1
    told = capsys.readouterr().out
    assert "never settled: never" in told
    assert "again: python -m sampan.sim.histories 7" in told
    assert re.search(r"\d+\.\d{3} calm", told)


# -- the properties themselves -------------------------------------------------------------------


def watched(scenario: Callable[[World], Awaitable[Any]]) -> list[str]:
    """What the watchdog says of a world in which somebody does as *scenario* does, by hand and
    without controllers."""

    async def main() -> list[str]:
        async with world(nodes=1) as w:
            watchdog = Watchdog(w)
            w.kill_control()
            await scenario(w)
            if watchdog.violations:
                with pytest.raises(Violation):
                    watchdog.check()
            return watchdog.violations

    return run_virtual(main())


def owned_by(owner: Any, kind: str) -> list[Body]:
    return [{"apiVersion": owner.body.get("apiVersion", "v1"), "kind": kind, "name": owner.name,
             "uid": owner.uid, "controller": True}]  # fmt: skip


def pod(name: str, **meta: Any) -> Body:
    return {"metadata": {"name": name, "labels": {"app": "web"}, **meta},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}  # fmt: skip


def replicated(replicas: int) -> Body:
    template = {"metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": "i"}]}}  # fmt: skip
    return {"metadata": {"name": "web"},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
                     "template": template}}  # fmt: skip


def test_a_pod_too_many_is_seen() -> None:
    async def scenario(w: World) -> None:
        made = await w.client.create("replicasets.apps", replicated(1), "default")
        for name in ("a", "b"):
            body = pod(name, ownerReferences=owned_by(made, "ReplicaSet"))
            await w.client.create("pods", body, "default")

    (text,) = watched(scenario)
    assert "2 live pods of replicasets.apps/default/web, which asks for 1" in text


def test_what_was_asked_for_a_moment_ago_is_still_a_bound() -> None:
    async def scenario(w: World) -> None:
        made = await w.client.create("replicasets.apps", replicated(2), "default")
        await w.client.patch("replicasets.apps", "web", {"spec": {"replicas": 1}}, "default")
        for name in ("a", "b"):
            body = pod(name, ownerReferences=owned_by(made, "ReplicaSet"))
            await w.client.create("pods", body, "default")

    assert watched(scenario) == []


def test_a_rollout_that_surges_too_far_is_seen() -> None:
    async def scenario(w: World) -> None:
        body = replicated(4)
        rolling = {"maxSurge": 1, "maxUnavailable": 0}
        body["spec"]["strategy"] = {"type": "RollingUpdate", "rollingUpdate": rolling}
        made = await w.client.create("deployments.apps", body, "default")
        for name, replicas in (("old", 4), ("new", 2)):
            body = replicated(replicas)
            body["metadata"] = {"name": name, "ownerReferences": owned_by(made, "Deployment")}
            await w.client.create("replicasets.apps", body, "default")

    (text,) = watched(scenario)
    assert "6 replicas asked for, deployments.apps/default/web allows 5" in text


def test_a_pod_that_moves_or_comes_back_is_seen() -> None:
    async def scenario(w: World) -> None:
        made = await w.client.create("pods", pod("a"), "default")
        for node, phase in (("n1", "Succeeded"), ("n2", "Running")):
            body = {**made.body, "spec": {**made.spec, "nodeName": node}}
            body["status"] = {"phase": phase}
            await w.store.commit(Put(made.key.path, encode(body)))

    texts = watched(scenario)
    assert any("moved from n1 to n2" in t for t in texts)
    assert any("came back from Succeeded to Running" in t for t in texts)


def test_writing_on_and_on_while_no_time_goes_by_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(properties, "MOST_WRITES", 50)

    async def scenario(w: World) -> None:
        async def endless() -> None:
            await w.client.create("configmaps", {"metadata": {"name": "c"}}, "default")
            while True:
                for n in ("1", "2"):
                    await w.client.patch("configmaps", "c", {"data": {"a": n}}, "default")
                    await asyncio.sleep(0)

        task = asyncio.ensure_future(endless())
        await asyncio.sleep(5)
        assert isinstance(task.exception(), properties.Endless)

    assert watched(scenario)[0].endswith("written on and on")


@pytest.mark.parametrize(
    ("value", "whole", "up", "expected"),
    [(2, 10, True, 2), ("25%", 10, True, 3), ("25%", 10, False, 2), (None, 10, True, 0)],
)
def test_numbers_and_parts(value: Any, whole: int, up: bool, expected: int) -> None:
    assert scaled(value, whole, up=up) == expected


def test_recreate_never_surges() -> None:
    spec = {"replicas": 3, "strategy": {"type": "Recreate"}}
    body = {"metadata": {"name": "a"}, "spec": spec}
    assert surge_bound(Obj.of(Key("deployments.apps", "default", "a"), body, 1)) == 3


def test_worlds_end_clean() -> None:
    """Nothing of a world goes on when it has ended."""

    async def main() -> int:
        w = World(seed=1)
        await w.start()
        await w.add_node("n1")
        w.kill_control()
        await asyncio.sleep(0.1)
        await w.stop()
        await asyncio.sleep(0)
        return len(asyncio.all_tasks())

    assert run_virtual(main()) == 1
