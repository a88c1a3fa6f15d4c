"""From the API's answer to what real packets meet: policies, endpoints and names, each within a
tenth of a second. (The figures: bench/soon.py.)"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from sampan.network.dns import message as dns
from sampan.network.dns import names
from sampan.network.dns.message import Message, Question
from sampan.testing.e2e import host_state
from sampan.testing.site import Site, how_soon, site, tcp, udp

pytestmark = pytest.mark.e2e
POLICIES = "networkpolicies.networking.k8s.io"
BAR = 0.1  # seconds
_ROUNDS = 3


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left() -> Iterator[None]:
    before = host_state()
    yield
    after = host_state()
    assert {
        k: after[k] - before[k] for k in ("links", "nft", "netns") if after[k] - before[k]
    } == {}


def run(test: Callable[[Site], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(90), site() as s:
            await test(s)

    asyncio.run(main())


def good(took: list[float]) -> None:
    """On a machine that others use, too, one round may wait for its turn; not most of them."""
    assert sorted(took)[len(took) // 2] < BAR, took
    assert max(took) < 20 * BAR, took


def policy(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"podSelector": {}, **spec}}


def test_a_policy_is_enforced_and_lifted_within_a_tenth_of_a_second() -> None:
    async def test(s: Site) -> None:
        web, near, far = await s.pod("web", 1), await s.pod("near", 1), await s.pod("far", 2)
        for client in (near, far):
            on, off = [], []

            async def passes(source: Any = client) -> bool:
                return await tcp(source.space, web.address) == web.address

            async def fails() -> bool:
                return not await passes()

            for _ in range(_ROUNDS):
                on.append(
                    await how_soon(
                        fails, lambda: s.client.create(POLICIES, policy("deny"), "default")
                    )
                )
                off.append(await how_soon(
                    passes, lambda: s.client.delete(POLICIES, "deny", "default")))  # fmt: skip
            good(on)
            good(off)

    run(test)


def test_labels_of_pods_and_namespaces_count_within_a_tenth_of_a_second() -> None:
    async def test(s: Site) -> None:
        await s.namespace("b")
        web = await s.pod("web", 1)
        client = await s.pod("client", 2, namespace="b")
        peer = {"namespaceSelector": {"matchLabels": {"team": "x"}},
                "podSelector": {"matchLabels": {"role": "friend"}}}  # fmt: skip
        await s.client.create(POLICIES, policy("friends", ingress=[{"from": [peer]}]), "default")

        async def passes() -> bool:
            return await tcp(client.space, web.address) == web.address

        async def fails() -> bool:
            return not await passes()

        await s.until(fails)
        labels = {"metadata": {"labels": {"role": "friend"}}}
        await s.client.patch("pods", "client", labels, "b")
        took = []
        for _ in range(_ROUNDS):
            for team, wanted in (("x", passes), ("y", fails)):
                patch = {"metadata": {"labels": {"team": team}}}
                took.append(await how_soon(
                    wanted, lambda p=patch: s.client.patch("namespaces", "b", p)))  # fmt: skip
        good(took)
        await s.client.patch("namespaces", "b", {"metadata": {"labels": {"team": "x"}}})
        await s.until(passes)
        gone = {"metadata": {"labels": {"role": None}}}
        good([await how_soon(fails, lambda: s.client.patch("pods", "client", gone, "b"))])

    run(test)


def test_a_policy_made_while_nobody_was_there_holds_when_the_network_has_started() -> None:
    async def test(s: Site) -> None:
        web, client = await s.pod("web", 1), await s.pod("client", 2)
        await s.client.create(POLICIES, policy("deny"), "default")

        async def fails() -> bool:
            return not await tcp(client.space, web.address)

        await s.until(fails)
        await s.stop_network()
        assert await fails()  # rules outlive the process
        await s.client.delete(POLICIES, "deny", "default")
        out = policy("out", policyTypes=["Egress"])
        await s.client.create(POLICIES, out, "default")
        await s.start_network()
        assert await fails()  # right when it has started, not a moment later
        node = s.spaces["n1"]
        assert await tcp(node, web.address) == web.address  # the node may
        await s.client.delete(POLICIES, "out", "default")
        await s.until(lambda: _is(tcp(client.space, web.address), web.address))

    run(test)


async def _is(work: Awaitable[Any], wanted: Any) -> bool:
    return bool(await work == wanted)


def test_an_endpoint_that_goes_is_not_met_any_more() -> None:
    """TCP and UDP, from a pod and from the node: readiness decides, through slices of the
    controller."""

    async def test(s: Site) -> None:
        a, b = [await s.pod(n, i, labels={"app": "web"}) for n, i in (("a", 1), ("b", 2))]
        client = await s.pod("client", 2)
        ip = (await s.service("web", selector={"app": "web"}))["clusterIP"]
        for way in ("pod", "node"):
            space = client.space if way == "pod" else s.spaces["n2"]
            await s.until(lambda sp=space: _is(tcp(sp, ip, 80), b.address))
            took = []
            for gone, left in ((a, b), (b, a)):

                async def only_left(sp: Any = space, wanted: str = left.address) -> bool:
                    return await tcp(sp, ip, 80) == wanted

                took.append(await how_soon(only_left, lambda p=gone: s.ready(p, False)))
                data = await udp(space, ip, 80)
                assert data.decode() == left.address
                await s.ready(gone, True)
                await s.until(lambda sp=space, p=gone: _is(tcp(sp, ip, 80), p.address))
            good(took)

    run(test)


def test_an_answer_changes_with_its_endpoint() -> None:
    async def test(s: Site) -> None:
        a, b = [await s.pod(n, i, labels={"app": "web"}) for n, i in (("a", 1), ("b", 2))]
        client = await s.pod("client", 2)
        await s.service("web", selector={"app": "web"}, clusterIP="None")
        name = names.wire("web.default.svc.cluster.local")
        packet = dns.encode(Message(7, dns.RD, questions=(Question(name, dns.A),)))

        async def found() -> set[str]:
            answer = await udp(client.space, "10.43.0.10", 53, packet)
            records = dns.parse(answer).answers if answer else ()
            return {".".join(map(str, r.data)) for r in records}

        await s.until(lambda: _is(found(), {a.address, b.address}))
        took = []
        for _ in range(_ROUNDS):
            took.append(await how_soon(lambda: _is(found(), {b.address}),
                                       lambda: s.ready(a, False)))  # fmt: skip
            took.append(await how_soon(lambda: _is(found(), {a.address, b.address}),
                                       lambda: s.ready(a, True)))  # fmt: skip
        good(took)

    run(test)
