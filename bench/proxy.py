"""The service proxy: 1,000 Services of 10 endpoints in a kernel, one changed, connections."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import socket
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvloop

from sampan.lib.addressing import IPV4, IPV6, plan
from sampan.network.backends import Endpoint, Service, ServicePort, endpoints, service
from sampan.network.nft import Nft
from sampan.network.outside import Outside
from sampan.network.proxy import NodeRules
from sampan.network.rules import Facts, service_entries
from sampan.network.ruleset import TABLE
from sampan.node.runtime.base import SandboxSpec
from sampan.node.runtime.native.launch import start_pause
from sampan.node.runtime.native.nodes import Nodes, Space, destroy

SERVICES, ENDPOINTS, CHANGES, CONNECTIONS = 1000, 10, 300, 1000
LOADS = 7
REAL = "10.43.200.1"  # the Service that has somebody behind it
SERVER = "10.42.1.2"
HOST = "127.88.1.1"
BLOCK = 1 << 16


FAMILIES = plan("ipv4,ipv6")  # the figures are IPv4's, but for one line


def bodies(number: int, family: str = IPV4) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    meta = {"namespace": "n", "name": f"s{number}"}
    ip, endpoint = f"10.43.{number // 250}.{number % 250 + 1}", "10.42.{}.{}"
    if family == IPV6:
        ip, endpoint = f"fd00:43::{number + 16:x}", "fd00:42:0:{}::{:x}"
    found = [
        {"addresses": [endpoint.format(1 + i % 8, 3 + (number + i) % 250)], "nodeName": f"n{i % 8}",
         "conditions": {"ready": True, "serving": True, "terminating": False}}
        for i in range(ENDPOINTS)
    ]  # fmt: skip
    slices = [{"metadata": meta, "addressType": family, "endpoints": found,
               "ports": [{"name": "", "port": 8080, "protocol": "TCP"}]}]  # fmt: skip
    return {"metadata": meta, "spec": {"clusterIP": ip, "ports": [{"port": 80}]}}, slices


def timed(rules: NodeRules) -> list[float]:
    """Seconds of each call of libnftables from now on."""
    handle, seen = rules._nft, []
    assert handle is not None
    run = handle.run

    def measured(commands: str) -> str:
        began = time.perf_counter()
        try:
            return run(commands)
        finally:
            seen.append(time.perf_counter() - began)

    handle.run = measured  # type: ignore[method-assign]
    return seen


def facts(family: str = IPV4) -> Facts:
    a = next(a for a in FAMILIES.of if a.family == family)
    at = a.node(1)
    return Facts("n1", (at,), masquerade=at, pods=a.pods, services=a.services)


async def loaded(
    space: Space, pairs: list[Any], family: str = IPV4
) -> tuple[NodeRules, tuple[float, float, float]]:
    """Rules made anew; seconds of the kernel, of the decisions, of everything."""
    rules = NodeRules(space, facts(family))
    await rules.sync()
    calls = timed(rules)
    began = time.perf_counter()
    for owner, (body, slices) in enumerate(pairs):
        known = service(body, family)
        assert known is not None
        found = endpoints(slices, family)
        rules.claim(str(owner), service_entries(known, found, rules.facts))
    computed = time.perf_counter() - began
    await rules.sync()
    return rules, (calls[-1], computed, time.perf_counter() - began)


def forget(nft: Nft) -> None:
    nft.run(f"delete table ip {TABLE}")


async def rules_of(space: Space, pairs: list[Any]) -> None:
    rules, first = await loaded(space, pairs)
    every = [first]
    while len(every) < LOADS:
        assert rules._nft is not None
        await space.run(forget, rules._nft)
        await rules.close()
        rules, seconds = await loaded(space, pairs)
        every.append(seconds)
    kernel, computed, whole = (statistics.median(column) for column in zip(*every, strict=True))
    print(f"{SERVICES} Services x {ENDPOINTS} endpoints, median of {LOADS}: "
          f"kernel {kernel:.3f} s, decisions {computed:.3f} s, all {whole:.3f} s")  # fmt: skip
    calls = timed(rules)
    calls.clear()
    every = []
    for turn in range(CHANGES):
        body, slices = pairs[turn]
        slices[0]["endpoints"][turn % ENDPOINTS]["addresses"] = ["10.42.99.1"]
        began = time.perf_counter()
        known = service(body)
        assert known is not None
        rules.claim(str(turn), service_entries(known, endpoints(slices), rules.facts))
        await rules.sync()
        every.append(time.perf_counter() - began)
    print(f"one endpoint changed: kernel {statistics.median(calls) * 1000:.2f} ms, "
          f"from object to kernel {statistics.median(every) * 1000:.2f} ms "
          f"(p95 {sorted(every)[int(CHANGES * 0.95)] * 1000:.2f} ms) of {CHANGES}")  # fmt: skip
    calls.clear()
    every = []
    for turn in range(CHANGES):
        body, slices = pairs[turn]
        slices[0]["endpoints"].pop(turn % ENDPOINTS)
        began = time.perf_counter()
        known = service(body)
        assert known is not None
        rules.claim(str(turn), service_entries(known, endpoints(slices), rules.facts))
        await rules.sync()
        every.append(time.perf_counter() - began)
    print(f"one endpoint less: kernel {statistics.median(calls) * 1000:.2f} ms, "
          f"from object to kernel {statistics.median(every) * 1000:.2f} ms")  # fmt: skip
    await rules.close()
    again = NodeRules(space, facts())
    for owner, (body, slices) in enumerate(pairs):
        known = service(body)
        assert known is not None
        again.claim(str(owner), service_entries(known, endpoints(slices), again.facts))
    began = time.perf_counter()
    await again.sync()
    print(f"taken over by another process (read, compared): {time.perf_counter() - began:.3f} s")
    again.claim("real", service_entries(*_real(), again.facts))
    await again.sync()
    await again.close()


def _real() -> tuple[Service, dict[Any, Any]]:
    known = Service("n", "real", "NodePort", (REAL,), (ServicePort("", "tcp", 80, 30080),))
    return known, {("", "tcp"): [Endpoint(SERVER, 8080, "n1")]}


def connect(host: str, port: int) -> list[float]:
    """Seconds of each connection, made one after the other."""
    every = []
    for _ in range(CONNECTIONS):
        sock = socket.socket()
        began = time.perf_counter()
        sock.connect((host, port))
        every.append(time.perf_counter() - began)
        sock.close()
    return every


async def connections(server: Space, client: Space) -> None:
    sink = await asyncio.start_server(
        lambda _r, w: w.close(),  # type: ignore[arg-type]
        sock=await server.listen("0.0.0.0", 8080),
    )
    async with sink:
        await client.run(connect, SERVER, 8080)  # warm
        for name, host, port in (("the pod itself", SERVER, 8080), ("its Service", REAL, 80)):
            every = await client.run(connect, host, port)
            median = statistics.median(every) * 1e6
            print(f"TCP connect from a pod to {name}: median {median:.0f} us of {CONNECTIONS}")


async def relay(space: Space, server: Space) -> None:
    async def pour(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(8192):
            writer.write(b"x" * BLOCK)
            await writer.drain()
        writer.close()

    source = await asyncio.start_server(pour, sock=await server.listen("0.0.0.0", 8080))
    outside = Outside(
        address=HOST, spaces={"n1": space}, rng=random.Random(1), failed=lambda o, m: print(o, m)
    )
    outside.put("real", *_real())
    await outside.sync()

    def drink() -> tuple[float, int]:
        began, size = time.perf_counter(), 0
        with socket.create_connection((HOST, 30080)) as sock:
            while data := sock.recv(1 << 20):
                size += len(data)
        return time.perf_counter() - began, size

    async with source:
        seconds, size = await asyncio.to_thread(drink)
        print(f"relay from the host: {size / seconds / 1e6:.0f} MB/s "
              "(server, relay and client on the same two cores)")  # fmt: skip
    await asyncio.sleep(0)
    server_sock = await server.listen("0.0.0.0", 8081)
    known = Service("n", "s", "NodePort", (REAL,), (ServicePort("", "tcp", 80, 30081),))
    tiny = await asyncio.start_server(_answer, sock=server_sock)
    outside.put("tiny", known, {("", "tcp"): [Endpoint(SERVER, 8081, "n1")]})
    await outside.sync()

    def ask() -> list[float]:
        every = []
        for _ in range(CONNECTIONS):
            began = time.perf_counter()
            with socket.create_connection((HOST, 30081)) as sock:
                sock.sendall(b"?")
                sock.recv(10)
            every.append(time.perf_counter() - began)
        return every

    async with tiny:
        every = await asyncio.to_thread(ask)
        print(f"relay from the host: connect, ask, answer: median "
              f"{statistics.median(every) * 1e6:.0f} us of {CONNECTIONS}")  # fmt: skip
    await outside.close()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(10)
    writer.write(b"!")
    writer.close()


async def measure(root: Path) -> None:
    nodes = Nodes(root, FAMILIES)
    pids = []
    try:
        space = (await nodes.ensure(["bench"]))["bench"]
        pods = []
        for address in (SERVER, "10.42.1.9"):
            spec = SandboxSpec(id=address, namespace="b", name="b", uid=address)
            pid = await space.run(start_pause, spec, (address,), (FAMILIES.primary.node(1),))
            pids.append(pid)
            pods.append(Space(address, 0, pid))
        await rules_of(space, [bodies(i) for i in range(SERVICES)])
        six = [bodies(i, IPV6) for i in range(SERVICES)]
        rules, (kernel, computed, whole) = await loaded(space, six, IPV6)
        await rules.close()
        print(f"the same {SERVICES} x {ENDPOINTS} in IPv6, once: kernel {kernel:.3f} s, "
              f"decisions {computed:.3f} s, all {whole:.3f} s")  # fmt: skip
        await connections(*pods)
        await relay(space, pods[0])
        for pod in pods:
            pod.close()
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)  # noqa: ASYNC222 - they are dead
        nodes.close()


def main() -> None:
    root = Path(tempfile.mkdtemp(prefix="sampan-bench-"))
    make: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    try:
        with asyncio.Runner(loop_factory=make) as runner:
            runner.run(measure(root))
    finally:
        destroy(root)
        shutil.rmtree(root)


main()
