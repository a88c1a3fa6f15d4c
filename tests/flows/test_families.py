"""Clusters of IPv6 and of both families, in virtual time: what objects say of their addresses, and
every way from one family to two and back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sampan.api.errors import StatusError
from sampan.api.obj import Body
from sampan.lib.addressing import Plan, plan
from sampan.lib.loop import run_virtual
from sampan.testing.world import World, world

SLICES = "endpointslices.discovery.k8s.io"
IPS = "ipaddresses.networking.k8s.io"
V46, V64, V6 = plan("ipv4,ipv6"), plan("ipv6,ipv4"), plan("ipv6")


def run(scenario: Callable[[World], Awaitable[Any]], addresses: Plan, *, nodes: int = 2) -> None:
    async def main() -> None:
        async with world(nodes=nodes, addresses=addresses) as w:
            await scenario(w)

    run_virtual(main())


def _service(name: str, **spec: Any) -> Body:
    return {"metadata": {"name": name},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}], **spec}}  # fmt: skip


async def _slices(w: World, name: str, namespace: str = "default") -> dict[str, set[str]]:
    """Addresses by type."""
    label = f"kubernetes.io/service-name={name}"
    found: dict[str, set[str]] = {}
    for piece in (await w.client.list(SLICES, namespace, labels=label)).items:
        addresses = found.setdefault(piece.body["addressType"], set())
        addresses |= {a for e in piece.body.get("endpoints") or () for a in e["addresses"]}
    return found


async def _until(what: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(120):
        while not await what():
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("addresses", [V46, V64, V6])
def test_who_has_which_addresses(addresses: Plan) -> None:
    async def scenario(w: World) -> None:
        node = await w.client.get("nodes", "n2")
        assert node.spec["podCIDRs"] == [*addresses.pods_of(2)]
        assert node.spec["podCIDR"] == addresses.pods_of(2)[0]
        internal = [a["address"] for a in node.status["addresses"] if a["type"] == "InternalIP"]
        assert internal == [*addresses.node(2)]
        for name, network in (("pod", False), ("host", True)):
            spec = {"nodeName": "n2", "hostNetwork": network,
                    "containers": [{"name": "c", "image": "i"}]}  # fmt: skip
            meta = {"name": name, "labels": {"app": "web"}}
            await w.client.create("pods", {"metadata": meta, "spec": spec}, "default")
        await w.client.create(
            "services", _service("web", ipFamilyPolicy="PreferDualStack"), "default"
        )

        async def shown() -> bool:
            held = await w.client.get("pods", "pod", "default")
            return held.status.get("phase") == "Running" and bool(held.status.get("podIPs"))

        await _until(shown)
        await w.plane.engine.settle()
        pod = (await w.client.get("pods", "pod", "default")).status
        ips = [i["ip"] for i in pod["podIPs"]]
        assert [i["ip"] for i in pod["hostIPs"]] == internal and pod["hostIP"] == internal[0]
        assert pod["podIP"] == ips[0] and len(ips) == len(addresses.of)
        assert [":" in i for i in ips] == [f == "IPv6" for f in addresses.families]
        host = (await w.client.get("pods", "host", "default")).status
        assert [i["ip"] for i in host["podIPs"]] == internal
        # Slices are of each family, the old Endpoints of the primary one.
        slices = await _slices(w, "web")
        assert slices == {
            f: {ip, at} for f, ip, at in zip(addresses.families, ips, internal, strict=True)
        }
        endpoints = (await w.client.get("endpoints", "web", "default")).body
        assert {a["ip"] for a in endpoints["subsets"][0]["addresses"]} == {ips[0], internal[0]}

    run(scenario, addresses)


@pytest.mark.parametrize("addresses", [V46, V64, V6])
def test_services_of_the_cluster_itself(addresses: Plan) -> None:
    async def scenario(w: World) -> None:
        await w.plane.engine.settle()
        primary = addresses.primary
        api = (await w.client.get("services", "kubernetes", "default")).spec
        assert (api["clusterIPs"], api["ipFamilies"]) == ([primary.api], [primary.family])
        assert api["ipFamilyPolicy"] == "SingleStack"
        assert await _slices(w, "kubernetes") == {primary.family: {primary.api_end}}
        dns = (await w.client.get("services", "kube-dns", "kube-system")).spec
        assert dns["clusterIPs"] == [a.dns for a in addresses.of]
        assert dns["ipFamilies"] == [*addresses.families]
        assert dns["ipFamilyPolicy"] == (
            "PreferDualStack" if len(addresses.of) == 2 else "SingleStack"
        )
        assert await _slices(w, "kube-dns", "kube-system") == {
            a.family: {a.dns_end} for a in addresses.of
        }
        cidr = await w.client.get("servicecidrs.networking.k8s.io", "kubernetes")
        assert cidr.spec["cidrs"] == [*addresses.services]
        # What somebody else changes is put right, in either family.
        for piece in (await w.client.list(SLICES, "kube-system")).items:
            await w.client.delete(SLICES, piece.name, "kube-system")
        await w.plane.engine.settle()
        assert len(await _slices(w, "kube-dns", "kube-system")) == len(addresses.of)

    run(scenario, addresses, nodes=0)


Outcome = list[str] | str  # the families afterwards, or what is said
_ONE, _BOTH = "SingleStack", "RequireDualStack"
_PREFER = "PreferDualStack"


@pytest.mark.parametrize(
    ("made", "change", "outcome"),
    [
        # from one to two: the secondary address is added, the first one stays
        ({}, {"ipFamilyPolicy": _PREFER}, ["1", "2"]),
        ({}, {"ipFamilyPolicy": _BOTH}, ["1", "2"]),
        ({"ipFamilies": ["2"]}, {"ipFamilyPolicy": _PREFER}, ["2", "1"]),
        ({}, {"ipFamilyPolicy": _BOTH, "ipFamilies": ["1", "2"]}, ["1", "2"]),
        ({}, {"ipFamilies": ["1", "2"]}, "when multiple IP families are specified"),
        ({}, {"ipFamilyPolicy": _BOTH, "ipFamilies": ["2", "1"]}, "expected an"),
        # from two to one: only when it is asked for, and never the primary one
        ({"ipFamilyPolicy": _BOTH}, {"ipFamilyPolicy": _ONE}, ["1"]),
        ({"ipFamilyPolicy": _PREFER}, {"ipFamilyPolicy": _ONE}, ["1"]),
        ({"ipFamilyPolicy": _PREFER, "ipFamilies": ["2"]}, {"ipFamilyPolicy": _ONE}, ["2"]),
        ({"ipFamilyPolicy": _BOTH}, {"ipFamilies": ["1"]}, "to release the secondary IP family"),
        ({"ipFamilyPolicy": _BOTH}, {"ipFamilies": ["2"], "ipFamilyPolicy": _ONE}, "expected an"),
        # between the two kinds of two
        ({"ipFamilyPolicy": _PREFER}, {"ipFamilyPolicy": _BOTH}, ["1", "2"]),
        ({"ipFamilyPolicy": _BOTH}, {"ipFamilyPolicy": _PREFER}, ["1", "2"]),
        # without a cluster address
        ({"clusterIP": "None"}, {"ipFamilyPolicy": _PREFER}, ["1", "2"]),
        ({"clusterIP": "None", "ipFamilyPolicy": _PREFER}, {"ipFamilyPolicy": _ONE}, ["1"]),
        # a type that has none, and back
        ({"ipFamilyPolicy": _BOTH}, {"type": "ExternalName", "externalName": "x.example",
                                     "selector": None, "ports": None}, []),
    ],
)  # fmt: skip
@pytest.mark.parametrize("addresses", [V46, V64])
def test_transitions(addresses: Plan, made: Body, change: Body, outcome: Outcome) -> None:
    """Families "1" and "2" are the cluster's primary and secondary one."""

    def told(spec: Body) -> Body:
        named = {"1": addresses.families[0], "2": addresses.families[1]}
        if "ipFamilies" in spec:
            spec = {**spec, "ipFamilies": [named[f] for f in spec["ipFamilies"]]}
        return spec

    async def scenario(w: World) -> None:
        before = (await w.client.create("services", _service("s", **told(made)), "default")).spec
        held = [ip for ip in before["clusterIPs"] if ip != "None"]
        try:
            after = (await w.client.patch("services", "s", {"spec": told(change)}, "default")).spec
        except StatusError as e:
            assert isinstance(outcome, str) and outcome in e.message, e.message
            after = (await w.client.get("services", "s", "default")).spec
            assert after == before
            return
        wanted = told({"ipFamilies": outcome})["ipFamilies"]
        assert after.get("ipFamilies", []) == wanted
        ips = [ip for ip in after.get("clusterIPs") or () if ip != "None"]
        if made.get("clusterIP") != "None":
            assert [":" in ip for ip in ips] == [f == "IPv6" for f in wanted]
            assert ips[: len(held)] == held[: len(ips)]  # what stays is the same
        # What it holds is what the store says it holds: nothing leaks, nothing is missing.
        owned = {
            o.name for o in (await w.client.list(IPS)).items
            if o.spec["parentRef"]["name"] == "s"
        }  # fmt: skip
        assert owned == {*ips}
        await w.plane.engine.settle()
        assert sorted(await _slices(w, "s")) == sorted(wanted)

    run(scenario, addresses, nodes=0)
