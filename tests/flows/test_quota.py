"""Quotas in virtual time: counted, enforced against controllers, freed again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from sampan.api.obj import Body
from sampan.lib.loop import run_virtual
from sampan.lib.quantity import quantity
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


def test_pods_are_resized_as_quota_and_node_allow():
    async def scenario(w: World) -> None:
        q = {"metadata": {"name": "q"}, "spec": {"hard": {"requests.cpu": "100"}}}
        await w.client.create("resourcequotas", q, "default")

        async def used() -> Any:
            status = (await w.client.get("resourcequotas", "q", "default")).status
            return (status.get("used") or {}).get("requests.cpu")

        async def pod(name: str) -> Body:
            return (await w.client.get("pods", name, "default")).body

        async def in_force(name: str, cpu: str) -> bool:
            (status,) = (await pod(name))["status"].get("containerStatuses") or [{}]
            return bool((status.get("resources") or {}).get("requests") == {"cpu": cpu})

        async def pending(name: str) -> str:
            found = (await pod(name))["status"]["conditions"]
            return next((c["reason"] for c in found if c["type"] == "PodResizePending"), "")

        async def resize(name: str, cpu: str) -> None:
            body = {
                "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}
            }
            await w.client.patch(
                "pods", name, body, "default", kind="strategic", subresource="resize"
            )

        await until(used)
        node = (await w.client.list("nodes")).items[0]
        cores = int(node.status["allocatable"]["cpu"])
        half, quarter = f"{cores * 500}m", f"{cores * 250}m"
        for name in ("a", "b"):
            container = {"name": "c", "image": "i", "resources": {"requests": {"cpu": half}}}
            await w.client.create(
                "pods", {"metadata": {"name": name}, "spec": {"containers": [container]}}, "default"
            )
            await until(lambda name=name: in_force(name, quantity_text(half)))
        assert (await used()) == str(cores)
        await resize("a", f"{cores * 750}m")
        await until(lambda: pending("a"))
        assert await pending("a") == "Deferred"
        await resize("b", quarter)  # makes room: the other one gets it at once
        async with asyncio.timeout(5.0):
            await until(lambda: in_force("a", quantity_text(f"{cores * 750}m")))
        await until(lambda: in_force("b", quantity_text(quarter)))
        assert not await pending("a")

        async def counted() -> bool:
            return bool((await used()) == str(cores))

        await until(counted)
        await resize("b", str(cores * 2))
        await until(lambda: pending("b"))
        assert await pending("b") == "Infeasible"

    run(scenario)


def quantity_text(value: str) -> str:
    return str(quantity(value))
