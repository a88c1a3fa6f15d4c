"""An autoscaler in virtual time: load comes and goes, and replicas follow."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sampan.lib.loop import run_virtual
from sampan.testing.world import World, world


async def until(what: Callable[[], Awaitable[Any]], *, seconds: float = 900.0) -> Any:
    async with asyncio.timeout(seconds):
        while not (found := await what()):
            await asyncio.sleep(0.5)
    return found


def test_replicas_follow_the_load_up_at_once_and_down_after_the_window():
    async def scenario(w: World) -> None:
        resources = {"requests": {"cpu": "100m"}}
        container = {"name": "c", "image": "i", "resources": resources}
        labels = {"app": "x"}
        template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
        body = {"metadata": {"name": "d"}, "spec": {
            "replicas": 1, "selector": {"matchLabels": labels}, "template": template}}  # fmt: skip
        await w.client.create("deployments.apps", body, "default")
        ref = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}
        hpa = {"metadata": {"name": "h"}, "spec": {"scaleTargetRef": ref, "maxReplicas": 5}}
        await w.client.create("horizontalpodautoscalers.autoscaling", hpa, "default")

        async def status() -> Any:
            found = await w.client.get("horizontalpodautoscalers.autoscaling", "h", "default")
            return found.status

        async def replicas() -> int:
            found = (await w.client.get("deployments.apps", "d", "default")).spec["replicas"]
            assert 1 <= found <= 5
            return int(found)

        async def is_active() -> bool:
            found = {c["type"]: c["status"] for c in (await status()).get("conditions") or ()}
            return found.get("ScalingActive") == "True"

        await until(is_active)
        assert await replicas() == 1

        async def load(cores: float) -> None:
            for node in w.nodes.values():
                node.runtime.load("default", "d-", cores)

        await load(0.4)

        async def is_full() -> bool:
            await load(0.4)  # the new ones too
            return await replicas() == 5

        await until(is_full)
        await load(0.0)
        begun = asyncio.get_running_loop().time()

        async def is_small() -> bool:
            return await replicas() == 1

        await until(is_small)
        assert asyncio.get_running_loop().time() - begun > 290
        events = (await w.client.list("events", "default")).items
        told = [e.body["message"] for e in events if e.body["reason"] == "SuccessfulRescale"]
        assert "New size: 1; reason: All metrics below target" in told
        await w.client.delete("horizontalpodautoscalers.autoscaling", "h", "default")
        await asyncio.sleep(20)
        calls: list[str] = []
        w.listeners.append(lambda _user, call: calls.append(call.resource))
        await asyncio.sleep(120)
        assert "pods.metrics.k8s.io" not in calls  # nobody asks any more

    async def main() -> None:
        async with world(nodes=2) as w:
            await scenario(w)

    run_virtual(main())


@pytest.mark.parametrize("kind", ["Deployment", "ReplicaSet", "StatefulSet"])
def test_whatever_has_a_scale_follows_an_external_metric(kind: str):
    plural = f"{kind.lower()}s.apps"

    async def scenario(w: World) -> None:
        labels = {"app": "x"}
        template = {"metadata": {"labels": labels},
                    "spec": {"containers": [{"name": "c", "image": "i"}]}}  # fmt: skip
        spec: Any = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
        if kind == "StatefulSet":
            spec["serviceName"] = "d"
        await w.client.create(plural, {"metadata": {"name": "d"}, "spec": spec}, "default")
        target = {"type": "AverageValue", "averageValue": "10"}
        metric = {"type": "External", "external": {"metric": {"name": "queue"}, "target": target}}
        ref = {"apiVersion": "apps/v1", "kind": kind, "name": "d"}
        hpa = {"metadata": {"name": "h"}, "spec": {
            "scaleTargetRef": ref, "maxReplicas": 5, "metrics": [metric]}}  # fmt: skip
        await w.client.create("horizontalpodautoscalers.autoscaling", hpa, "default")

        async def active() -> Any:
            found = await w.client.get("horizontalpodautoscalers.autoscaling", "h", "default")
            return {c["type"]: c for c in found.status.get("conditions") or ()}.get("ScalingActive")

        async def failed() -> bool:
            found = await active()
            return found is not None and found["reason"] == "FailedGetExternalMetric"

        await until(failed)  # nobody has registered the API yet
        assert "(get queue.external.metrics.k8s.io)" in (await active())["message"]
        await w.metrics.external("queue", 38)

        async def size() -> int:
            return int((await w.client.get(plural, "d", "default")).spec["replicas"])

        async def is_four() -> bool:
            return await size() == 4 and (await active())["status"] == "True"

        await until(is_four)
        await w.metrics.external("queue", 5)

        async def is_one() -> bool:
            return await size() == 1

        await until(is_one)
        assert w.failures == []

    async def main() -> None:
        async with world(nodes=2) as w:
            await scenario(w)

    run_virtual(main())
