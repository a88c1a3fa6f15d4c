"""Services among pods that come and go, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from sampan.api.obj import Body, Obj
from sampan.lib.loop import run_virtual
from sampan.testing.world import World, world

SLICES = "endpointslices.discovery.k8s.io"
IPS = "ipaddresses.networking.k8s.io"
CIDRS = "servicecidrs.networking.k8s.io"


def run(scenario: Callable[[World], Awaitable[Any]], *, nodes: int = 2) -> None:
    async def main() -> None:
        async with world(nodes=nodes) as w:
            await scenario(w)

    run_virtual(main())


async def until(what: Callable[[], Awaitable[bool]], *, seconds: float = 120.0) -> None:
    async with asyncio.timeout(seconds):
        while not await what():
            await asyncio.sleep(0.1)


def deployment(replicas: int) -> Body:
    return {
        "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}},
                         "spec": {"containers": [{"name": "c", "image": "v1"}]}},
        },
    }  # fmt: skip


def service(name: str = "web", **spec: Any) -> Body:
    return {"metadata": {"name": name},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}], **spec}}  # fmt: skip


async def slices(w: World, name: str = "web") -> list[Obj]:
    label = f"kubernetes.io/service-name={name}"
    return (await w.client.list(SLICES, "default", labels=label)).items


async def ready(w: World, name: str = "web") -> set[str]:
    return {
        e["addresses"][0] for s in await slices(w, name) for e in s.body["endpoints"]
        if e["conditions"]["ready"]
    }  # fmt: skip


async def pod_ips(w: World) -> set[str]:
    pods = (await w.client.list("pods", "default")).items
    return {p.status["podIP"] for p in pods if p.status.get("podIP") and not p.is_deleting}


async def told(w: World, count: int, name: str = "web") -> None:
    async def is_so() -> bool:
        found = await ready(w, name)
        return len(found) == count and found == await pod_ips(w)

    await until(is_so)


def test_endpoints_follow_the_pods_and_then_nothing_is_written() -> None:
    async def scenario(w: World) -> None:
        await w.client.create("services", service(), "default")
        await w.client.create("deployments.apps", deployment(3), "default")
        await told(w, 3)
        legacy = await w.client.get("endpoints", "web", "default")
        (subset,) = legacy.body["subsets"]
        assert {a["ip"] for a in subset["addresses"]} == await pod_ips(w)
        await w.client.patch("deployments.apps", "web", {"spec": {"replicas": 5}}, "default")
        await told(w, 5)
        await w.client.patch("deployments.apps", "web", {"spec": {"replicas": 1}}, "default")
        await told(w, 1)
        await asyncio.sleep(60)
        since = w.store.revision
        await asyncio.sleep(240)
        assert set(w.writes(since)) <= {"leases.coordination.k8s.io", "nodes"}
        assert len(await slices(w)) == 1

    run(scenario)


def test_writes_are_few() -> None:
    """Ten pods that become ready cost at most a write or two of slices per pod, no more."""

    async def scenario(w: World) -> None:
        await w.client.create("services", service(), "default")
        since = w.store.revision
        await w.client.create("deployments.apps", deployment(10), "default")
        await told(w, 10)
        await asyncio.sleep(5)
        writes = w.writes(since)
        assert writes[SLICES] <= 21 and writes["endpoints"] <= 21

    run(scenario)


def test_everything_goes_with_the_service() -> None:
    async def scenario(w: World) -> None:
        await w.client.create("services", service(type="LoadBalancer"), "default")
        await w.client.create("deployments.apps", deployment(2), "default")
        await told(w, 2)

        async def balanced() -> bool:
            found = await w.client.get("services", "web", "default")
            return bool((found.status.get("loadBalancer") or {}).get("ingress"))

        await until(balanced)
        await w.client.delete("services", "web", "default")

        async def gone() -> bool:
            names = {o.name for o in (await w.client.list("services", "default")).items}
            legacy = {o.name for o in (await w.client.list("endpoints", "default")).items}
            return "web" not in names | legacy and not await slices(w)

        await until(gone)
        held = (await w.client.list(IPS)).items
        assert [o.name for o in held] == ["10.43.0.1"]

    run(scenario)


def test_endpoints_of_users_are_mirrored() -> None:
    async def scenario(w: World) -> None:
        await w.client.create("services", service("db", selector=None), "default")
        body = {
            "metadata": {"name": "db"},
            "subsets": [{"addresses": [{"ip": "192.0.2.9"}], "ports": [{"port": 80}]}],
        }
        await w.client.create("endpoints", body, "default")

        async def is_mirrored() -> bool:
            return await ready(w, "db") == {"192.0.2.9"}

        await until(is_mirrored)
        await w.client.delete("endpoints", "db", "default")

        async def gone() -> bool:
            return not await slices(w, "db")

        await until(gone)

    run(scenario)


def test_the_kubernetes_service_is_put_right() -> None:
    async def scenario(w: World) -> None:
        wrong = {"spec": {"ports": [{"name": "https", "port": 8443, "targetPort": 1}]}}
        await w.client.patch("services", "kubernetes", wrong, "default")

        async def right() -> bool:
            found = await w.client.get("services", "kubernetes", "default")
            (port,) = found.spec["ports"]
            return port["port"] == 443 and found.spec["clusterIP"] == "10.43.0.1"

        await until(right)
        (only,) = await slices(w, "kubernetes")
        assert only.body["endpoints"][0]["addresses"] == ["10.44.1.1"]
        ip = await w.client.get(IPS, "10.43.0.1")
        assert ip.spec["parentRef"]["name"] == "kubernetes"

    run(scenario)
