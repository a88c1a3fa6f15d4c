"""Both families at once, on two nodes with real packets: from what is written to the API to what
pods of either node meet. (What rules do in one family is in test_kernel.py.)"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sampan.api.errors import StatusError
from sampan.lib.addressing import plan
from sampan.network.dns import message as dns
from sampan.network.dns import names
from sampan.network.dns.message import Message, Question
from sampan.node.runtime.native import nodes
from sampan.node.runtime.native.nodes import Space
from sampan.testing.e2e import host_state
from sampan.testing.site import Site, SitePod, site, tcp, udp

pytestmark = pytest.mark.e2e


def _denied(_of: Any) -> None:
    raise OSError(13, "Permission denied")


SELECTED = {"selector": {"app": "x"}}
SLICES = "endpointslices.discovery.k8s.io"


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left() -> Iterator[None]:
    before = host_state()
    yield
    after = host_state()
    assert {
        k: after[k] - before[k] for k in ("links", "nft", "netns") if after[k] - before[k]
    } == {}


def run(test: Callable[[Site], Awaitable[None]], families: str = "ipv4,ipv6") -> None:
    async def main() -> None:
        async with asyncio.timeout(90), site(plan=plan(families), address="127.88.11.1") as s:
            await test(s)

    asyncio.run(main())


async def serving(s: Site) -> tuple[SitePod, SitePod, list[Space]]:
    """A pod on each node, and everywhere from where somebody may ask."""
    labels = {"app": "x"}
    a, b = await s.pod("a", 1, labels=labels), await s.pod("b", 2, labels=labels)
    return a, b, [a.space, b.space, *s.spaces.values()]


async def reached(spaces: list[Space], host: str, port: int = 80, times: int = 14) -> set[str]:
    """Who answered, from all of *spaces*, by TCP and UDP; '' for nobody."""
    found = set()
    for space in spaces:
        for _ in range(times):
            found.add(await tcp(space, host, port, patience=5.0))
        found.add((await udp(space, host, port, patience=5.0)).decode())
    return found


async def refused(spaces: list[Space], host: str, port: int = 80) -> bool:
    return [await tcp(space, host, port, patience=0.5) for space in spaces] == [""] * len(spaces)


async def ask(space: Space, server: str, name: str, kind: int) -> tuple[int, list[bytes]]:
    packet = dns.encode(Message(9, dns.RD, questions=(Question(names.wire(name), kind),)))
    answer = dns.parse(await udp(space, server, 53, packet, patience=5.0))
    return answer.rcode, [r.data for r in answer.answers]


async def written(s: Site, name: str, **spec: Any) -> dict[str, Any]:
    return (await s.client.patch("services", name, {"spec": spec}, "default")).spec


def test_a_service_of_both_families_and_its_changes() -> None:
    async def test(s: Site) -> None:
        a, b, everywhere = await serving(s)
        who = {a.address, b.address}
        spec = await s.service("both", type="NodePort", ipFamilyPolicy="PreferDualStack",
                               **SELECTED)  # fmt: skip
        four, six = spec["clusterIPs"]
        assert (":" in four, ":" in six) == (False, True)
        await s.until(lambda: _is(reached([a.space], six, times=3), who))
        for ip in (four, six):
            assert await reached(everywhere, ip) == who
        # The source is kept in IPv6, too; a pod that meets itself is the exception.
        own = {ip for p in (a, b) for ip in p.addresses}
        assert {*a.seen} - own <= {*s.plan.node(1)} | {*s.plan.node(2)}
        port = spec["ports"][0]["nodePort"]
        for node in (1, 2):
            for ip in s.plan.node(node):
                assert await tcp(a.space, ip, port, patience=5.0) in who
        slices = await s.client.list(SLICES, "default", labels="kubernetes.io/service-name=both")
        assert sorted(o.body["addressType"] for o in slices.items) == ["IPv4", "IPv6"]
        legacy = await s.client.get("endpoints", "both", "default")
        assert {e["ip"] for e in legacy.body["subsets"][0]["addresses"]} == {
            a.addresses[0], b.addresses[0],
        }  # fmt: skip
        # The secondary family goes, with its address, its slice and its name ...
        spec = await written(s, "both", ipFamilyPolicy="SingleStack")
        assert (spec["clusterIPs"], spec["ipFamilies"]) == ([four], ["IPv4"])
        with pytest.raises(StatusError) as e:
            await s.client.get("ipaddresses.networking.k8s.io", six)
        assert e.value.code == 404
        await s.until(lambda: refused(everywhere, six))
        assert await reached([a.space], four) == who
        await s.until(lambda: _is(_families(s, "both"), ["IPv4"]))
        # ... and comes back with another.
        spec = await written(s, "both", ipFamilyPolicy="RequireDualStack")
        again = spec["clusterIPs"][1]
        await s.until(lambda: _is(reached(everywhere, again, times=3), who))

    run(test)


async def _is(found: Awaitable[Any], wanted: Any) -> bool:
    return bool(await found == wanted)


async def _families(s: Site, name: str) -> list[str]:
    held = await s.client.list(SLICES, "default", labels=f"kubernetes.io/service-name={name}")
    return sorted(o.body["addressType"] for o in held.items)


@pytest.mark.parametrize("families", ["ipv4,ipv6", "ipv6"])
def test_names(families: str) -> None:
    async def test(s: Site) -> None:
        a, b, _ = await serving(s)
        six = next(i for i in a.addresses if ":" in i), next(i for i in b.addresses if ":" in i)
        only = await s.service("only", ipFamilies=["IPv6"], **SELECTED)
        await s.service("heads", clusterIP="None", ipFamilyPolicy="PreferDualStack", **SELECTED)
        servers = [of.dns for of in s.plan.of] + [of.dns_end for of in s.plan.of]
        packed = ipaddress.ip_address(only["clusterIP"]).packed
        for space in (a.space, b.space, *s.spaces.values()):
            for server in servers:
                name = "only.default.svc.cluster.local"
                await s.until(lambda n=name: _is(ask(a.space, servers[0], n, dns.AAAA),
                                                 (dns.NOERROR, [packed])))  # fmt: skip
                assert await ask(space, server, name, dns.AAAA) == (dns.NOERROR, [packed])
                # The name is there, an address of that family is not.
                assert await ask(space, server, name, dns.A) == (dns.NOERROR, [])
        for ip, wanted in (
            (only["clusterIP"], "only.default.svc.cluster.local"),
            (six[0], f"{six[0].replace(':', '-')}.heads.default.svc.cluster.local"),
        ):
            reverse = ipaddress.ip_address(ip).reverse_pointer
            answer = (dns.NOERROR, [names.wire(wanted)])
            await s.until(lambda r=reverse, w=answer: _is(ask(b.space, servers[0], r, dns.PTR), w))
        unused = ipaddress.ip_address("fd00:43::beef").reverse_pointer
        assert await ask(b.space, servers[0], unused, dns.PTR) == (dns.NXDOMAIN, [])
        heads = await ask(b.space, servers[0], "heads.default.svc.cluster.local", dns.AAAA)
        assert {*heads[1]} == {ipaddress.ip_address(i).packed for i in six}
        if families == "ipv4,ipv6":
            heads = await ask(b.space, servers[0], "heads.default.svc.cluster.local", dns.A)
            assert len(heads[1]) == 2
        own = await ask(b.space, servers[0], "ns.dns.cluster.local", dns.AAAA)
        assert own == (dns.NOERROR, [ipaddress.ip_address(s.plan.of[-1].dns).packed])

    run(test, families)


def test_a_policy_holds_in_both_families() -> None:
    """By labels in both; a block in its own only."""

    async def test(s: Site) -> None:
        web = await s.pod("web", 1, labels={"app": "web"})
        friend, other = await s.pod("friend", 2, labels={"app": "f"}), await s.pod("other", 2)

        async def met(source: SitePod) -> list[bool]:
            return [await tcp(source.space, ip, patience=0.4) != "" for ip in web.addresses]

        async def policy(*peers: Any) -> None:
            spec = {"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"from": [*peers]}]}
            body = {"metadata": {"name": "p"}, "spec": spec}
            resource = "networkpolicies.networking.k8s.io"
            try:
                await s.client.create(resource, body, "default")
            except StatusError:
                await s.client.patch(resource, "p", body, "default")

        assert await met(friend) == await met(other) == [True, True]
        await policy({"podSelector": {"matchLabels": {"app": "f"}}})
        await s.until(lambda: _is(met(other), [False, False]))
        assert await met(friend) == [True, True]
        six = next(i for i in friend.addresses if ":" in i)
        block = {"cidr": "fd00:42::/56", "except": [f"{six}/128"]}
        await policy({"ipBlock": block})
        await s.until(lambda: _is(met(other), [False, True]))
        assert await met(friend) == [False, False]
        # Whoever runs on the node itself may, in either.
        node = s.spaces["n1"]
        assert [await tcp(node, ip, patience=5.0) for ip in web.addresses] == [web.address] * 2

    run(test)


async def _is_in(work: Awaitable[Any], wanted: tuple[Any, ...]) -> bool:
    return await work in wanted


def test_clients_stay_and_are_led_away_in_ipv6() -> None:
    async def test(s: Site) -> None:
        a, b, _ = await serving(s)
        spec = await s.service("one", ipFamilies=["IPv6"], sessionAffinity="ClientIP", **SELECTED)
        ip = spec["clusterIP"]
        client = await s.pod("client", 2)
        # Who was served stays where it is: another Service tells when both endpoints are there.
        plain = (await s.service("plain", ipFamilies=["IPv6"], **SELECTED))["clusterIP"]
        await s.until(lambda: _is(reached([a.space], plain, times=6), {a.address, b.address}))
        await s.until(lambda: _is_in(tcp(client.space, ip, 80), (a.address, b.address)))
        first = await tcp(client.space, ip, 80, patience=5.0)
        assert {await tcp(client.space, ip, 80, patience=5.0) for _ in range(12)} == {first}
        chosen, left = (a, b) if first == a.address else (b, a)
        await s.ready(chosen, False)
        await s.until(lambda: _is(reached([client.space], ip, times=3), {left.address}))

    run(test)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("_IPV6", Path("/proc/sys/net/nothing"), "this kernel has no IPv6 (see --ip-families)"),
        (
            "_forward",
            _denied,
            "the network of node n1 cannot be made: [Errno 13] Permission denied",
        ),
    ],
)
def test_a_kernel_that_does_not_speak_a_family(
    name: str, value: Any, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        made = nodes.Nodes(tmp_path, plan("ipv6"))
        try:
            with pytest.raises(nodes.NetworkFailure) as e:
                await made.ensure(["n1"])
            assert str(e.value) == says
        finally:
            made.close()
            nodes.destroy(tmp_path)

    monkeypatch.setattr(nodes, name, value)
    asyncio.run(main())
