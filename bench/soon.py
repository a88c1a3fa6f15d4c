"""How soon real packets meet what the API was told: policies, endpoints, names. Prints a table.

Real kernels, two nodes that are namespaces, everything in this process; from the API's answer to
the first of the tries (one each 2 ms) after the last wrong one."""

from __future__ import annotations

import statistics
from collections.abc import Awaitable, Callable
from typing import Any

import uvloop

from sampan.network.dns import message as dns
from sampan.network.dns import names
from sampan.network.dns.message import Message, Question
from sampan.testing.site import Site, SitePod, how_soon, site, tcp, udp

POLICIES = "networkpolicies.networking.k8s.io"
ROUNDS = 30
Try, Act = Callable[[], Awaitable[bool]], Callable[[], Awaitable[Any]]


async def measure(title: str, *steps: tuple[Try, Act]) -> None:
    """Each step is a try and the change that lets it come out right."""
    took = [[await how_soon(attempt, change, window=0.15) for attempt, change in steps]
            for _ in range(ROUNDS)]  # fmt: skip
    for i in range(len(steps)):
        ms = sorted(t[i] * 1000 for t in took)
        part = f" ({i + 1})" if len(steps) > 1 else ""
        p50, p95 = statistics.median(ms), ms[int(len(ms) * 0.95)]
        print(f"| {title}{part} | {p50:.1f} ms | {p95:.1f} ms | {ms[-1]:.1f} ms |")


async def run(s: Site) -> None:
    web, other = [await s.pod(n, i, labels={"app": "web"}) for n, i in (("web", 1), ("other", 2))]
    client = await s.pod("client", 2)
    create, delete = s.client.create, s.client.delete

    async def passes() -> bool:
        return await tcp(client.space, web.address) == web.address

    async def fails() -> bool:
        return not await passes()

    deny = {"metadata": {"name": "deny"}, "spec": {"podSelector": {}}}
    print("| What | p50 | p95 | worst |\n| --- | --- | --- | --- |")
    await measure(
        "a policy made (1), deleted (2)",
        (fails, lambda: create(POLICIES, deny, "default")),
        (passes, lambda: delete(POLICIES, "deny", "default")),
    )
    ip = (await s.service("web", selector={"app": "web"}))["clusterIP"]
    await s.service("names", selector={"app": "web"}, clusterIP="None")

    async def only_other() -> bool:
        return await tcp(client.space, ip, 80) == other.address

    async def only_web() -> bool:
        return await tcp(client.space, ip, 80) == web.address

    async def turn(there: SitePod, gone: SitePod) -> None:
        await s.ready(there, True)
        await s.ready(gone, False)

    await measure(
        "one pod ready, the other not, in turn: where their Service leads to",
        (only_other, lambda: turn(other, web)), (only_web, lambda: turn(web, other)),
    )  # fmt: skip
    await s.ready(other, True)
    name = names.wire("names.default.svc.cluster.local")
    packet = dns.encode(Message(7, dns.RD, questions=(Question(name, dns.A),)))

    async def answers() -> int:
        answer = await udp(client.space, "10.43.0.10", 53, packet)
        return len(dns.parse(answer).answers) if answer else 0

    async def one() -> bool:
        return await answers() == 1

    async def two() -> bool:
        return await answers() == 2

    await measure(
        "a pod not ready (1), ready (2): the answer of cluster DNS",
        (one, lambda: s.ready(web, False)), (two, lambda: s.ready(web, True)),
    )  # fmt: skip


async def main() -> None:
    async with site(address="127.88.8.1") as s:
        await run(s)


if __name__ == "__main__":
    uvloop.run(main())
