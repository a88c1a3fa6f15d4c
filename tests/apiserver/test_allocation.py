"""Addresses and ports of Services: what is handed out, kept, refused and given back."""

from __future__ import annotations

import asyncio
import ipaddress
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.api.call import Call
from sampan.api.catalogue import builtin
from sampan.api.errors import StatusError
from sampan.api.obj import Body, Obj
from sampan.api.rules import addresses
from sampan.apiserver import admission
from sampan.apiserver.allocation import ServiceAllocator, port_key
from sampan.apiserver.authz import RbacAuthorizer
from sampan.apiserver.endpoint import ApiServer
from sampan.client.base import Client
from sampan.lib.clock import RealClock
from sampan.lib.ids import Ids
from sampan.schema.walk import Schemas
from sampan.store.base import Delete, Put
from sampan.store.memory import MemoryStore
from sampan.testing.api import client_of

CIDRS = "servicecidrs.networking.k8s.io"
IPS = "ipaddresses.networking.k8s.io"
DUAL = ("10.43.0.0/16", "fd43::/112")


async def server(store: MemoryStore | None = None, *, seed: int = 0, **how: Any) -> ApiServer:
    api = ApiServer(
        registry=builtin(), schemas=Schemas.load(), store=store or MemoryStore(),
        clock=RealClock(), ids=Ids(random.Random(seed)), authorizer=RbacAuthorizer(),
        admission=admission.builtin(), services=ServiceAllocator(**how),
    )  # fmt: skip
    await api.bootstrap()
    await api.authorizer.start(api.store)
    return api


def run(
    scenario: Callable[[ApiServer, Client], Awaitable[None]], *, seed: int = 0, **how: Any
) -> None:
    async def main() -> None:
        api = await server(seed=seed, **how)
        await scenario(api, client_of(api))
        await api.authorizer.stop()

    asyncio.run(main())


def service(name: str = "s", *, ports: Any = None, **spec: Any) -> Body:
    return {"metadata": {"name": name},
            "spec": {"ports": ports or [{"port": 80}], **spec}}  # fmt: skip


async def create(client: Client, name: str = "s", **spec: Any) -> Obj:
    return await client.create("services", service(name, **spec), "default")


async def refused(work: Coroutine[Any, Any, Any]) -> str:
    with pytest.raises(StatusError) as e:
        await work
    assert (e.value.code, e.value.reason) == (422, "Invalid")
    return e.value.message


async def held(client: Client) -> dict[str, str]:
    """Address -> name of the service that holds it."""
    page = await client.list(IPS)
    return {o.name: o.spec["parentRef"]["name"] for o in page.items}


async def reserved(api: ApiServer) -> list[int]:
    records = (await api.store.range("allocations/nodeports/")).records
    return sorted(int(r.key.rsplit("/", 1)[1]) for r in records)


def test_a_service_and_its_address_are_one_commit() -> None:
    async def scenario(api: ApiServer, client: Client) -> None:
        since = api.store.revision
        made = await create(client)
        assert api.store.revision == since + 1
        ip = made.spec["clusterIP"]
        assert made.spec["clusterIPs"] == [ip] and made.spec["ipFamilies"] == ["IPv4"]
        assert made.spec["ipFamilyPolicy"] == "SingleStack"
        found = await client.get(IPS, ip)
        assert found.body["apiVersion"] == "networking.k8s.io/v1" and found.uid
        assert found.labels == {
            "ipaddress.kubernetes.io/ip-family": "IPv4",
            "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
        }
        assert found.spec == {"parentRef": {"group": "", "resource": "services",
                                            "namespace": "default", "name": "s"}}  # fmt: skip
        since = api.store.revision
        await client.delete("services", "s", "default")
        assert api.store.revision == since + 1 and await held(client) == {}

    run(scenario)


def test_the_upper_band_comes_first() -> None:
    async def scenario(api: ApiServer, client: Client) -> None:
        for i in range(40):
            made = await create(client, f"s{i}", type="NodePort")
            assert ipaddress.ip_address(made.spec["clusterIP"]) > ipaddress.ip_address("10.43.1.0")
            assert made.spec["ports"][0]["nodePort"] >= 30086
        assert len(await held(client)) == len(await reserved(api)) == 40

    run(scenario)


@pytest.mark.parametrize(
    ("cidr", "size", "band"),
    [("10.0.0.0/16", 65534, 256), ("10.0.0.0/24", 254, 16), ("10.0.0.0/28", 14, 0),
     ("10.0.0.0/20", 4094, 255), ("fd00::/64", 65536, 256), ("10.0.0.1/32", 0, 0)],
)  # fmt: skip
def test_bands_of_ranges(cidr: str, size: int, band: int) -> None:
    made = addresses.of_network(ipaddress.ip_network(cidr))
    assert (made.size, made.band) == (size, band)


@given(first=st.integers(0, 100), size=st.integers(1, 3000))
def test_every_number_of_a_range_comes_once_and_the_band_last(first: int, size: int) -> None:
    made = addresses.of_ports(first, first + size - 1)
    order = [made.nth(i) for i in range(made.size)]
    assert sorted(order) == list(range(first, first + size))
    assert order[made.size - made.band :] == list(range(first, first + made.band))


def test_a_small_range_is_used_to_the_last_and_what_is_freed_is_used_again() -> None:
    # The tenth address is kept for DNS: whoever wants it asks for it.
    async def with_dns(api: ApiServer, client: Client) -> None:
        await create(client, "dns", clusterIP="10.43.0.10")
        await fill(api, client)

    async def fill(_api: ApiServer, client: Client) -> None:
        names = [f"s{i}" for i in range(13)]
        ips = [(await create(client, n)).spec["clusterIP"] for n in names]
        assert "10.43.0.10" not in ips and len(set(ips)) == 13
        with pytest.raises(StatusError) as e:
            await create(client, "more")
        assert e.value.message == (
            "Internal error occurred: failed to allocate a serviceIP: range is full"
        )
        await client.delete("services", "s3", "default")
        assert (await create(client, "more")).spec["clusterIP"] == ips[3]

    run(with_dns, cidrs=("10.43.0.0/28",))
    run(fill, cidrs=("10.43.0.0/28",))


def test_what_is_taken_or_elsewhere_is_refused_in_upstreams_words() -> None:
    async def scenario(_api: ApiServer, client: Client) -> None:
        await create(client, "a", clusterIP="10.43.0.77")
        assert await refused(create(client, "b", clusterIP="10.43.0.77")) == (
            'Service "b" is invalid: spec.clusterIPs: Invalid value: ["10.43.0.77"]: failed to '
            "allocate IP 10.43.0.77: provided IP is already allocated"
        )
        for outside in ("10.99.0.1", "10.43.0.0", "10.43.255.255"):
            assert (
                f"failed to allocate IP {outside}: the provided network does not match the "
                "current range"
            ) in await refused(create(client, "b", clusterIP=outside))
        ports = [{"port": 80, "nodePort": 30007}]
        await create(client, "n", type="NodePort", ports=ports)
        assert await refused(create(client, "b", type="NodePort", ports=ports)) == (
            'Service "b" is invalid: spec.ports[0].nodePort: Invalid value: 30007: provided port '
            "is already allocated"
        )
        ports = [{"port": 80, "nodePort": 80}]
        assert await refused(create(client, "b", type="NodePort", ports=ports)) == (
            'Service "b" is invalid: spec.ports[0].nodePort: Invalid value: 80: provided port is '
            "not in the valid range. The range of valid ports is 30000-32767"
        )
        with pytest.raises(StatusError) as e:
            await create(client, "h", type="LoadBalancer", externalTrafficPolicy="Local",
                         healthCheckNodePort=30007)  # fmt: skip
        assert e.value.message == (
            "Internal error occurred: failed to allocate requested HealthCheck NodePort 30007: "
            "provided port is already allocated"
        )
        assert set((await held(client)).values()) == {"a", "n"}

    run(scenario)


def test_two_servers_over_one_store_never_hand_out_the_same() -> None:
    async def main() -> None:
        store = MemoryStore()
        # The same randomness: they draw the same numbers and meet at every one of them.
        how: dict[str, Any] = {"cidrs": ("10.43.0.0/26",), "ports": (30000, 30049)}
        one, two = await server(store, seed=7, **how), await server(store, seed=7, **how)
        clients = client_of(one), client_of(two)
        made = await asyncio.gather(
            *(create(c, f"s{j}-{i}", type="NodePort") for i in range(20)
              for j, c in enumerate(clients))
        )  # fmt: skip
        assert len({m.spec["clusterIP"] for m in made}) == 40
        assert len({m.spec["ports"][0]["nodePort"] for m in made}) == 40
        taken = await asyncio.gather(
            *(create(c, f"t{j}", clusterIP="10.43.0.61") for j, c in
              enumerate(clients)), return_exceptions=True,
        )  # fmt: skip
        assert sum(isinstance(t, StatusError) for t in taken) >= 1
        for api in (one, two):
            await api.authorizer.stop()

    asyncio.run(main())


def test_a_restart_keeps_what_was_handed_out() -> None:
    async def main() -> None:
        store = MemoryStore()
        api = await server(store, seed=1)
        before = {
            (await create(client_of(api), f"s{i}", type="NodePort")).spec["clusterIP"]
            for i in range(10)
        }
        await api.authorizer.stop()
        again = await server(store, seed=1)
        after = {
            (await create(client_of(again), f"t{i}", type="NodePort")).spec["clusterIP"]
            for i in range(10)
        }
        assert not before & after and len(await reserved(again)) == 20
        await again.authorizer.stop()

    asyncio.run(main())


def test_a_start_makes_the_reservations_follow_the_services() -> None:
    async def main() -> None:
        store = MemoryStore()
        api = await server(store)
        made = await create(client_of(api), type="NodePort")
        port = made.spec["ports"][0]["nodePort"]
        leaked = orjson.dumps({"namespace": "default", "name": "gone"})
        await store.commit(Put(port_key(30001), leaked), Delete(port_key(port)))
        await api.bootstrap()
        assert await reserved(api) == [port]
        allocator = api.services
        assert allocator is not None
        assert allocator.take_repaired("default", made.name) == [port]  # to be told, once
        assert allocator.take_repaired("default", made.name) == ()
        since = store.revision
        await api.bootstrap()
        assert store.revision == since
        await api.authorizer.stop()

    asyncio.run(main())


def test_a_cluster_gets_its_second_family_later() -> None:
    async def main() -> None:
        store = MemoryStore()
        api = await server(store)
        old = await create(client_of(api), "old", ipFamilyPolicy="PreferDualStack")
        await api.authorizer.stop()
        api = await server(store, cidrs=DUAL)
        client = client_of(api)
        assert (await client.get(CIDRS, "kubernetes")).spec["cidrs"] == [*DUAL]
        both = await create(client, "both", ipFamilyPolicy="RequireDualStack")
        assert both.spec["ipFamilies"] == ["IPv4", "IPv6"]
        same = await client.patch(
            "services", "old", {"metadata": {"labels": {"a": "b"}}}, "default"
        )
        assert same.spec == old.spec  # it is not changed behind its owner's back
        await api.authorizer.stop()

    asyncio.run(main())


# -- updates and types


async def change(client: Client, name: str = "s", **spec: Any) -> Obj:
    return await client.patch("services", name, {"spec": spec}, "default")


def test_types_change_and_what_is_not_needed_is_given_back() -> None:
    async def scenario(api: ApiServer, client: Client) -> None:
        made = await create(client)
        ip = made.spec["clusterIP"]
        made = await change(client, type="NodePort")
        port = made.spec["ports"][0]["nodePort"]
        assert made.spec["clusterIP"] == ip and await reserved(api) == [port]
        assert made.spec["externalTrafficPolicy"] == "Cluster"
        made = await change(client, type="LoadBalancer", externalTrafficPolicy="Local")
        health = made.spec["healthCheckNodePort"]
        assert made.spec["ports"][0]["nodePort"] == port
        assert made.spec["allocateLoadBalancerNodePorts"] is True
        assert await reserved(api) == sorted([port, health])
        made = await change(client, externalTrafficPolicy="Cluster")
        assert "healthCheckNodePort" not in made.spec and await reserved(api) == [port]
        made = await change(client, type="ClusterIP")
        assert "nodePort" not in made.spec["ports"][0] and await reserved(api) == []
        assert made.spec["clusterIP"] == ip
        for gone in ("externalTrafficPolicy", "allocateLoadBalancerNodePorts"):
            assert gone not in made.spec
        made = await change(client, type="ExternalName", externalName="example.com")
        assert not {"clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"} & set(made.spec)
        assert await held(client) == {}
        made = await change(client, type="ClusterIP")
        assert await held(client) == {made.spec["clusterIP"]: "s"}

    run(scenario)


def test_an_update_that_leaves_out_what_was_allocated_keeps_it() -> None:
    async def scenario(_api: ApiServer, client: Client) -> None:
        spec: Body = {"type": "LoadBalancer", "externalTrafficPolicy": "Local"}
        made = await create(client, **spec)
        again = service(**spec, selector={"a": "b"})
        again["metadata"]["namespace"] = "default"
        kept = (await client.update("services", again)).spec
        for name in ("clusterIP", "clusterIPs", "ports", "healthCheckNodePort", "ipFamilies"):
            assert kept[name] == made.spec[name]

    run(scenario)


def test_a_port_that_goes_gives_its_node_port_back_and_a_new_one_gets_one() -> None:
    async def scenario(api: ApiServer, client: Client) -> None:
        ports = [{"name": "a", "port": 80}, {"name": "b", "port": 81}]
        made = await create(client, type="NodePort", ports=ports)
        first = made.spec["ports"][0]["nodePort"]
        made = await change(client, ports=[{"name": "a", "port": 80}, {"name": "c", "port": 82}])
        now = [p["nodePort"] for p in made.spec["ports"]]
        assert now[0] == first and await reserved(api) == sorted(now)

    run(scenario)


def test_both_protocols_of_a_port_share_a_node_port() -> None:
    async def scenario(api: ApiServer, client: Client) -> None:
        ports = [{"name": "t", "port": 53}, {"name": "u", "port": 53, "protocol": "UDP"}]
        made = await create(client, type="NodePort", ports=ports)
        assert len({p["nodePort"] for p in made.spec["ports"]}) == len(await reserved(api)) == 1

    run(scenario)


def test_a_load_balancer_without_node_ports() -> None:
    async def scenario(api: ApiServer, client: Client) -> None:
        made = await create(client, type="LoadBalancer", allocateLoadBalancerNodePorts=False)
        assert "nodePort" not in made.spec["ports"][0] and await reserved(api) == []

    run(scenario)


def test_an_address_does_not_change_and_a_refused_update_holds_nothing() -> None:
    async def scenario(_api: ApiServer, client: Client) -> None:
        made = await create(client)
        ip = made.spec["clusterIP"]
        message = await refused(change(client, clusterIP="10.43.0.9", clusterIPs=["10.43.0.9"]))
        assert (
            'spec.clusterIPs[0]: Invalid value: ["10.43.0.9"]: may not change once set' in message
        )
        assert await held(client) == {ip: "s"}
        assert "may not change once set" in await refused(change(client, clusterIP="None",
                                                                 clusterIPs=["None"]))  # fmt: skip

    run(scenario)


def test_a_dry_run_holds_nothing() -> None:
    async def scenario(api: ApiServer, client: Client) -> None:
        call = Call(verb="create", resource="services", namespace="default",
                    body=service(type="NodePort"), options={"dryRun": "All"})  # fmt: skip
        made = await client.transport.call(call)
        assert isinstance(made, Obj) and made.spec["clusterIP"]
        assert await held(client) == {} and await reserved(api) == []

    run(scenario)


# -- families


def test_single_stack_clusters_degrade_or_refuse_dual_stack() -> None:
    async def scenario(_api: ApiServer, client: Client) -> None:
        made = await create(client, "p", ipFamilyPolicy="PreferDualStack")
        assert made.spec["ipFamilies"] == ["IPv4"] and len(made.spec["clusterIPs"]) == 1
        assert await refused(create(client, ipFamilyPolicy="RequireDualStack")) == (
            'Service "s" is invalid: spec.ipFamilyPolicy: Invalid value: "RequireDualStack": this '
            "cluster is not configured for dual-stack services"
        )
        assert await refused(create(client, ipFamilies=["IPv6"])) == (
            'Service "s" is invalid: spec.ipFamilies[0]: Invalid value: "IPv6": not configured on '
            "this cluster"
        )
        headless = await create(client, "h", clusterIP="None")
        assert headless.spec["ipFamilies"] == ["IPv4", "IPv6"]
        assert headless.spec["ipFamilyPolicy"] == "RequireDualStack"
        headless = await create(client, "g", clusterIP="None", selector={"a": "b"})
        assert headless.spec["ipFamilies"] == ["IPv4"]

    run(scenario)


def test_dual_stack_clusters_give_two_addresses_and_take_the_second_back() -> None:
    async def scenario(_api: ApiServer, client: Client) -> None:
        made = await create(client, ipFamilyPolicy="PreferDualStack")
        assert made.spec["ipFamilies"] == ["IPv4", "IPv6"]
        assert [":" in ip for ip in made.spec["clusterIPs"]] == [False, True]
        assert set(await held(client)) == set(made.spec["clusterIPs"])
        made = await change(client, ipFamilyPolicy="SingleStack")
        assert made.spec["ipFamilies"] == ["IPv4"]
        assert [*await held(client)] == made.spec["clusterIPs"]
        made = await change(client, ipFamilyPolicy="RequireDualStack")
        assert len(made.spec["clusterIPs"]) == len(await held(client)) == 2
        six = await create(client, "six", ipFamilies=["IPv6"])
        assert ":" in six.spec["clusterIP"]
        assert "must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families" in (
            await refused(create(client, "x", ipFamilies=["IPv4", "IPv6"]))
        )

    run(scenario, cidrs=DUAL)


# -- ServiceCIDRs


def test_further_ranges_are_used_when_they_are_there_and_not_when_they_go() -> None:
    async def scenario(api: ApiServer, client: Client) -> None:
        default = await client.get(CIDRS, "kubernetes")
        assert default.spec["cidrs"] == ["10.43.0.0/29"]
        assert default.status["conditions"][0]["message"] == "Kubernetes Service CIDR is ready"
        assert default.meta["finalizers"] == ["networking.k8s.io/service-cidr-finalizer"]
        for i in range(6):
            await create(client, f"s{i}")
        with pytest.raises(StatusError):
            await create(client, "more")
        extra = {"metadata": {"name": "extra"}, "spec": {"cidrs": ["10.99.0.0/24"]}}
        await client.create(CIDRS, extra)
        made = await create(client, "more")
        assert made.spec["clusterIP"].startswith("10.99.0.")
        down = {"type": "Ready", "status": "False", "reason": "x", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}  # fmt: skip
        down = {"status": {"conditions": [down]}}
        await client.patch(CIDRS, "extra", down, subresource="status")
        with pytest.raises(StatusError):
            await create(client, "again")

    run(scenario, cidrs=("10.43.0.0/29",))


@pytest.mark.parametrize(
    ("cidrs", "problem"),
    [
        ([], "spec.cidrs: Required value: at least one CIDR required"),
        (["10.0.0.0"], 'spec.cidrs[0]: Invalid value: "10.0.0.0": must be a valid CIDR value'),
        (
            ["10.0.0.1/8"],
            'spec.cidrs[0]: Invalid value: "10.0.0.1/8": must not have bits set beyond the prefix',
        ),
        (["10.0.0.0/8", "11.0.0.0/8"], "may specify no more than one IP for each IP family"),
    ],
)
def test_what_a_service_cidr_may_not_be(cidrs: list[str], problem: str) -> None:
    async def scenario(_api: ApiServer, client: Client) -> None:
        body = {"metadata": {"name": "c"}, "spec": {"cidrs": cidrs}}
        assert problem in await refused(client.create(CIDRS, body))

    run(scenario)


def test_ranges_and_parents_stay() -> None:
    async def scenario(_api: ApiServer, client: Client) -> None:
        change_ = {"spec": {"cidrs": ["10.44.0.0/16"]}}
        assert "field is immutable" in await refused(client.patch(CIDRS, "kubernetes", change_))
        both = {"spec": {"cidrs": ["10.43.0.0/16", "fd00::/112"]}}
        await client.patch(CIDRS, "kubernetes", both)
        ip = (await create(client)).spec["clusterIP"]
        other = {"spec": {"parentRef": {"name": "x"}}}
        assert "spec.parentRef: Invalid value" in await refused(client.patch(IPS, ip, other))

    run(scenario)


@pytest.mark.parametrize(
    ("name", "spec", "problem"),
    [
        ("10.0.0.256", {"parentRef": {"resource": "r", "name": "n"}}, "must be a valid IP address"),
        ("FD00::1", {"parentRef": {"resource": "r", "name": "n"}}, "must be in canonical form"),
        ("10.0.0.1", {}, "spec.parentRef: Required value"),
        ("10.0.0.1", {"parentRef": {"resource": "r"}}, "spec.parentRef.name: Required value"),
    ],
)
def test_what_an_ip_address_may_not_be(name: str, spec: Body, problem: str) -> None:
    async def scenario(_api: ApiServer, client: Client) -> None:
        message = await refused(client.create(IPS, {"metadata": {"name": name}, "spec": spec}))
        assert problem in message

    run(scenario)


def test_an_address_somebody_else_holds_is_not_given_out() -> None:
    async def scenario(_api: ApiServer, client: Client) -> None:
        parent = {"group": "gateway.networking.k8s.io", "resource": "gateways", "name": "g"}
        body = {"metadata": {"name": "10.43.9.9"}, "spec": {"parentRef": parent}}
        await client.create(IPS, body)
        assert "already allocated" in await refused(create(client, clusterIP="10.43.9.9"))

    run(scenario)


@settings(max_examples=25, deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.integers(0, 3),
            st.sampled_from(["ClusterIP", "NodePort", "LoadBalancer", "ExternalName", "delete"]),
            st.booleans(),
        ),
        max_size=12,
    )
)
def test_what_is_held_is_what_services_show(steps: list[tuple[int, str, bool]]) -> None:
    async def scenario(api: ApiServer, client: Client) -> None:
        for number, kind, local in steps:
            name = f"s{number}"
            if kind == "delete":
                try:
                    await client.delete("services", name, "default")
                except StatusError as e:
                    assert e.code == 404
                continue
            spec: Body = {"type": kind}
            if kind == "ExternalName":
                spec["externalName"] = "a.b"
            if kind == "LoadBalancer":
                spec["externalTrafficPolicy"] = "Local" if local else "Cluster"
            try:
                await create(client, name, **spec)
            except StatusError as e:
                assert e.code == 409
                await change(client, name, **spec)
        shown, ports = {}, set()
        for s in (await client.list("services")).items:
            if s.spec["type"] != "ExternalName":
                shown[s.spec["clusterIP"]] = s.name
            ports |= {p["nodePort"] for p in s.spec["ports"] if "nodePort" in p}
            ports |= {s.spec[k] for k in ("healthCheckNodePort",) if k in s.spec}
        assert await held(client) == shown
        assert await reserved(api) == sorted(ports)

    run(scenario)


def test_a_slice_always_tells_its_endpoints_and_ports() -> None:
    async def scenario(_api: ApiServer, client: Client) -> None:
        body = {"metadata": {"name": "e"}, "addressType": "IPv4", "endpoints": []}
        made = await client.create("endpointslices.discovery.k8s.io", body, "default")
        assert made.body["endpoints"] == made.body["ports"] == []

    run(scenario)
