"""Services among pods that come and go, in virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sampan.api.errors import StatusError
from sampan.api.obj import Body, Obj
from sampan.apiserver.allocation import port_key
from sampan.client.base import Unknown
from sampan.lib.loop import run_virtual
from sampan.store.base import Delete
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
        assert [o.name for o in held] == ["10.43.0.1", "10.43.0.10"]

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


def test_a_lost_reservation_of_a_port_is_made_again_and_told() -> None:
    """By the next process: nothing but a hand on the store loses one."""

    async def scenario(w: World) -> None:
        made = await w.client.create("services", service(type="NodePort"), "default")
        port = made.spec["ports"][0]["nodePort"]
        await w.store.commit(Delete(port_key(port)))
        w.kill_control()

        async def told_() -> bool:
            try:
                events = (await w.client.list("events", "default")).items
            except (StatusError, Unknown):
                return False
            return any(e.body["reason"] == "PortNotAllocated" for e in events)

        await until(told_)
        assert await w.store.get(port_key(port)) is not None
        taken = service("other", type="NodePort", ports=[{"port": 80, "nodePort": port}])
        with pytest.raises(StatusError, match="provided port is already allocated"):
            await w.client.create("services", taken, "default")

    run(scenario)


def test_hints_follow_the_zones_and_the_nodes() -> None:
    async def hints(w: World) -> dict[str, int]:
        found: dict[str, int] = {}
        for e in [e for s in await slices(w) for e in s.body["endpoints"]]:
            for zone in (e.get("hints") or {}).get("forZones") or ():
                found[zone["name"]] = found.get(zone["name"], 0) + 1
        return found

    async def scenario(w: World) -> None:
        zone = "topology.kubernetes.io/zone"
        nodes = [n.name for n in (await w.client.list("nodes")).items]
        for name, where in zip(nodes, "aab", strict=True):
            await w.client.patch("nodes", name, {"metadata": {"labels": {zone: where}}})
        auto = service()
        auto["metadata"]["annotations"] = {"service.kubernetes.io/topology-mode": "Auto"}
        await w.client.create("services", auto, "default")
        await w.client.create("deployments.apps", deployment(6), "default")
        await told(w, 6)
        await asyncio.sleep(5)
        assert await hints(w) == {"a": 4, "b": 2}
        events = (await w.client.list("events", "default")).items
        assert {"TopologyAwareHintsEnabled"} <= {e.body["reason"] for e in events}
        # The zones turn out otherwise: hints that no longer fit are made anew.
        await w.client.patch("nodes", nodes[1], {"metadata": {"labels": {zone: "b"}}})
        await asyncio.sleep(5)
        assert await hints(w) == {"a": 2, "b": 4}
        # A zone that nobody knows: no hints at all.
        await w.client.patch("nodes", nodes[2], {"metadata": {"labels": {zone: None}}})
        await asyncio.sleep(5)
        assert await hints(w) == {}
        since = w.store.revision
        await asyncio.sleep(120)
        assert not {SLICES, "endpoints"} & set(w.writes(since))

    run(scenario, nodes=3)


@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_slices_show_the_pods_and_addresses_the_services(seed: int) -> None:
    """Two minutes of random creations, deletions, relabelings and changes of type; then rest."""
    rng = random.Random(seed)

    async def act(w: World) -> None:
        name, number = f"s{rng.randrange(4)}", rng.randrange(6)
        pod = {"metadata": {"name": f"p{number}", "labels": {"app": rng.choice("ab")}},
               "spec": {"containers": [{"name": "c", "image": "v1"}],
                        "terminationGracePeriodSeconds": 2}}  # fmt: skip
        kind = rng.choice(["ClusterIP", "NodePort", "LoadBalancer"])
        selector = {"app": rng.choice("ab")}
        labels = {"metadata": {"labels": {"app": rng.choice("ab")}}}
        deeds: list[Callable[[], Awaitable[Any]]] = [
            lambda: w.client.create("services", service(name, selector=selector), "default"),
            lambda: w.client.delete("services", name, "default"),
            lambda: w.client.patch("services", name, {"spec": {"type": kind}}, "default"),
            lambda: w.client.patch("services", name, {"spec": {"selector": selector}}, "default"),
            lambda: w.client.create("pods", pod, "default"),
            lambda: w.client.delete("pods", f"p{number}", "default"),
            lambda: w.client.patch("pods", f"p{number}", labels, "default"),
        ]
        try:
            await rng.choice(deeds)()
        except StatusError as e:
            assert e.code in (404, 409), e.message

    async def scenario(w: World) -> None:
        for _ in range(150):
            await asyncio.gather(*(act(w) for _ in range(rng.randrange(1, 4))))
            await asyncio.sleep(rng.random())
        await asyncio.sleep(90)
        pods = (await w.client.list("pods", "default")).items
        services = (await w.client.list("services")).items
        mine = [s for s in services if s.name.startswith("s")]
        for s in mine:
            app = s.spec["selector"]["app"]
            assert await ready(w, s.name) == {
                p.status["podIP"] for p in pods if p.labels["app"] == app
            }
        shown = {(s.spec["clusterIP"], s.name) for s in services}
        held = (await w.client.list(IPS)).items
        assert {(o.name, o.spec["parentRef"]["name"]) for o in held} == shown
        balancers = [s for s in services if s.spec["type"] == "LoadBalancer"]
        places = [s.status["loadBalancer"]["ingress"][0]["ip"] for s in balancers]
        assert len(places) == len(set(places))  # all have port 80
        slices_ = (await w.client.list(SLICES, "default")).items
        told_of = {o.labels["kubernetes.io/service-name"] for o in slices_}
        assert told_of == {"kubernetes", *(s.name for s in mine)}
        since = w.store.revision
        await asyncio.sleep(120)
        assert set(w.writes(since)) <= {"leases.coordination.k8s.io", "nodes"}

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


def test_a_range_that_is_in_use_stays_until_it_is_not() -> None:
    async def scenario(w: World) -> None:
        extra = {"metadata": {"name": "extra"}, "spec": {"cidrs": ["10.99.0.0/24"]}}
        await w.client.create(CIDRS, extra)

        async def condition(status: str) -> bool:
            found = await w.client.get(CIDRS, "extra")
            return any(c["status"] == status for c in found.status.get("conditions") or ())

        await until(lambda: condition("True"))
        await w.client.create("services", service(clusterIP="10.99.0.9"), "default")
        await w.client.delete(CIDRS, "extra")
        await until(lambda: condition("False"))
        await w.client.delete("services", "web", "default")

        async def gone() -> bool:
            return "extra" not in {o.name for o in (await w.client.list(CIDRS)).items}

        await until(gone)

    run(scenario)


def test_an_address_that_somebody_deletes_comes_back_and_a_leaked_one_goes() -> None:
    async def scenario(w: World) -> None:
        made = await w.client.create("services", service(), "default")
        ip = made.spec["clusterIP"]
        await asyncio.sleep(10)
        await w.client.delete(IPS, ip)

        async def back() -> bool:
            found = [o for o in (await w.client.list(IPS)).items if o.name == ip]
            return bool(found) and found[0].spec["parentRef"]["name"] == "web"

        await until(back)
        held = (await w.client.get(IPS, ip)).body
        leaked = {
            "metadata": {"name": "10.43.7.7", "labels": held["metadata"]["labels"]},
            "spec": {"parentRef": {**held["spec"]["parentRef"], "name": "gone"}},
        }
        await w.client.create(IPS, leaked)

        async def gone() -> bool:
            return "10.43.7.7" not in {o.name for o in (await w.client.list(IPS)).items}

        await until(gone)
        events = (await w.client.list("events")).items
        reasons = {e.body["reason"] for e in events if e.body["source"]["component"] ==
                   "ipallocator-repair-controller"}  # fmt: skip
        assert reasons == {"ClusterIPNotAllocated", "IPAddressNotAllocated"}

    run(scenario)


def test_services_that_come_and_go_need_no_repair() -> None:
    async def scenario(w: World) -> None:
        for round_ in range(3):
            await asyncio.gather(
                *(w.client.create("services", service(f"s{i}"), "default") for i in range(20))
            )
            await asyncio.sleep(round_ * 4)
            await asyncio.gather(
                *(w.client.delete("services", f"s{i}", "default") for i in range(20))
            )
        await asyncio.sleep(200)
        events = (await w.client.list("events")).items
        assert not [e for e in events if "ClusterIP" in e.body["reason"]]
        assert [o.name for o in (await w.client.list(IPS)).items] == ["10.43.0.1", "10.43.0.10"]

    run(scenario)
