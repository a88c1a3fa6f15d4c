"""Quotas in virtual time: counted, enforced against controllers, freed again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from sampan.api.obj import Body
from sampan.lib.loop import run_virtual
from sampan.testing.world import World, world


def run(scenario: Callable[[World], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        async with world(nodes=1) as w:
            return await scenario(w)

    return run_virtual(main())


async def until(what: Callable[[], Awaitable[Any]], *, seconds: float = 900.0) -> Any:
    async with asyncio.timeout(seconds):
        while not (found := await what()):
            await asyncio.sleep(0.1)
    return found


def test_a_deployment_fills_a_quota_and_what_goes_makes_room():
    async def scenario(w: World) -> None:
        q = {"metadata": {"name": "q"}, "spec": {"hard": {"pods": "3"}}}
        await w.client.create("resourcequotas", q, "default")

        async def used() -> Body:
            found: Body = (await w.client.get("resourcequotas", "q", "default")).status
            return found.get("used") or {}

        await until(used)
        labels = {"app": "x"}
        template = {"metadata": {"labels": labels},
                    "spec": {"containers": [{"name": "c", "image": "i"}]}}  # fmt: skip
        body = {"metadata": {"name": "d"}, "spec": {
            "replicas": 5, "selector": {"matchLabels": labels}, "template": template}}  # fmt: skip
        await w.client.create("deployments.apps", body, "default")

        async def is_full() -> bool:
            pods = (await w.client.list("pods", "default")).items
            return len(pods) == 3 and (await used()) == {"pods": "3"}

        await until(is_full)
        sets = (await w.client.list("replicasets.apps", "default")).items

        async def is_told() -> bool:
            found = (await w.client.get("replicasets.apps", sets[0].name, "default")).status
            return any("exceeded quota: q, requested: pods=1, used: pods=3, limited: pods=3"
                       in c["message"] for c in found.get("conditions") or ())  # fmt: skip

        await until(is_told)
        await w.client.patch("deployments.apps", "d", {"spec": {"replicas": 1}}, "default")

        async def is_freed() -> bool:
            return await used() == {"pods": "1"}

        await until(is_freed)
        await w.client.patch(
            "resourcequotas", "q", {"spec": {"hard": {"configmaps": "9"}}}, "default"
        )

        async def is_counted() -> bool:
            return await used() == {"pods": "1", "configmaps": "1"}  # kube-root-ca.crt

        await until(is_counted)

    run(scenario)
