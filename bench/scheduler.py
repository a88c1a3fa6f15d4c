"""The scheduler at 5,000 nodes: decisions alone, and end to end (memory store, local transport, no
agents). Rows as in Kubernetes' scheduler_perf, with its floors. Prints a table."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Callable
from typing import Any

import uvloop

from sampan.api.obj import Body, Key, Obj
from sampan.client.cache import Caches
from sampan.lib.clock import RealClock
from sampan.scheduler.cycle import NoFit
from sampan.scheduler.framework import PodInfo
from sampan.scheduler.scheduler import Scheduler
from sampan.testing.api import api_server, client_of
from sampan.testing.placement import HOSTNAME, PREFERRED, REQUIRED, ZONE, cycle

NODES = 5000
SIZES = {"cpu": "4", "memory": "32Gi", "pods": "110"}
LABELS = {"color": "green"}
TERM: Body = {"labelSelector": {"matchLabels": LABELS}}


def node_body(i: int, zones: int) -> Body:
    name = f"node-{i:05d}"
    return {
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "uid": name,
                     "labels": {HOSTNAME: name, ZONE: f"zone{i % zones + 1}"}},
        "spec": {}, "status": {"allocatable": SIZES, "capacity": SIZES},
    }  # fmt: skip


def pod_body(
    name: str, affinity: Body, *, labels: Body | None = None, namespace: str = "default"
) -> Body:
    body: Body = {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels or {}},
        "spec": {
            "containers": [{"name": "pause", "image": "registry.k8s.io/pause:3.10",
                            "ports": [{"containerPort": 80}],
                            "resources": {"requests": {"cpu": "100m", "memory": "500Mi"}}}],
        },
    }  # fmt: skip
    if affinity:
        body["spec"]["affinity"] = affinity
    return body


def _anti(**more: Any) -> Body:
    return {"podAntiAffinity": {REQUIRED: [{**TERM, "topologyKey": HOSTNAME, **more}]}}


def _near(**more: Any) -> Body:
    return {"podAffinity": {REQUIRED: [{**TERM, "topologyKey": ZONE, **more}]}}


def _preferred(kind: str) -> Body:
    wish = {"weight": 1, "podAffinityTerm": {**TERM, "topologyKey": HOSTNAME}}
    return {kind: {PREFERRED: [wish]}}


NODE_AFFINITY = {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": [
    {"key": ZONE, "operator": "In", "values": ["zone1", "zone2"]}]}]}}}  # fmt: skip
SELECTED = {"namespaceSelector": {"matchLabels": {"team": "devops"}}}
SPREAD = {"topologyKey": ZONE, "maxSkew": 5, "whenUnsatisfiable": "DoNotSchedule",
          "labelSelector": {"matchLabels": LABELS}}  # fmt: skip

DAEMONS: Body = {"nodes": 15000}  # each pod for one node, as a DaemonSet makes them

# name, floor of scheduler_perf, zones, affinity, pods there before, pods measured
ROWS: list[tuple[str, int, int, Body, int, int]] = [
    ("basic", 680, 1, {}, 1000, 10000),
    ("node affinity", 220, 10, NODE_AFFINITY, 1000, 5000),
    ("preferred affinity", 90, 1, _preferred("podAffinity"), 1000, 3000),
    ("preferred anti-affinity", 90, 1, _preferred("podAntiAffinity"), 1000, 3000),
    ("required anti-affinity", 60, 1, _anti(), 1000, 2000),
    ("required pod affinity", 35, 1, _near(), 1000, 3000),
    ("anti-affinity with namespace selector", 24, 1, _anti(**SELECTED), 1000, 2000),
    ("daemonset, 15,000 nodes", 1100, 1, DAEMONS, 1000, 5000),
    ("topology spread (hard, 3 zones)", 85, 3, {"spread": [SPREAD]}, 1000, 3000),
]  # fmt: skip


def body_for(name: str, rule: Body) -> Body:
    affinity = {k: v for k, v in rule.items() if k not in ("spread", "nodes")}
    if "nodes" in rule:
        where = [{"key": "metadata.name", "operator": "In",
                  "values": [f"node-{int(name[4:]) % rule['nodes']:05d}"]}]  # fmt: skip
        affinity = {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [{"matchFields": where}]}}}
    body = pod_body(name, affinity, labels=LABELS if rule else None)
    if "spread" in rule:
        body["spec"]["topologySpreadConstraints"] = rule["spread"]
    return body


def decisions(zones: int, rule: Body, before: int, pods: int, *, unlike: bool = False) -> float:
    """Pods per second: decision and placing, nothing written. unlike: each has its own shape."""
    nodes = [
        Obj.of(Key("nodes", "", f"node-{i:05d}"), node_body(i, zones))
        for i in range(rule.get("nodes", NODES))
    ]
    fast = cycle(nodes, namespaces={"default": {"team": "devops"}})

    def place(i: int) -> None:
        body = body_for(f"pod-{i}", rule)
        body["metadata"]["uid"] = f"pod-{i}"
        if unlike:
            body["metadata"]["labels"] = {**LABELS, "number": str(i)}
        pod = PodInfo.of(Obj(Key("pods", "default", f"pod-{i}"), b"", 1, body))
        found = fast.decide(pod)
        if isinstance(found, NoFit):
            raise SystemExit(found.message())
        fast.view.place(pod, found)

    for i in range(before):
        place(i)
    start = time.perf_counter()
    for i in range(before, before + pods):
        place(i)
    return pods / (time.perf_counter() - start)


async def end_to_end(zones: int, rule: Body, before: int, pods: int) -> float:
    """Pods per second from the first pod created to the last one bound, through the API."""
    api = await api_server()
    client = client_of(api)
    await client.create("serviceaccounts", {"metadata": {"name": "default"}}, "default")
    await client.patch("namespaces", "default", {"metadata": {"labels": {"team": "devops"}}})
    for i in range(rule.get("nodes", NODES)):
        body = node_body(i, zones)
        del body["metadata"]["uid"]
        made = await client.create("nodes", body)
        await client.update("nodes", {**made.body, "status": body["status"]}, subresource="status")
    caches = Caches(client)
    scheduler = Scheduler(
        client, clock=RealClock(), rng=random.Random(1), caches=caches,
        resources={t.resource for t in api.registry},
    )  # fmt: skip
    await caches.start()
    await scheduler.start()
    bound = 0
    done = asyncio.Event()
    target = 0

    def count(_kind: str, old: Obj | None, new: Obj | None) -> None:
        nonlocal bound
        if new is not None and new.spec.get("nodeName"):
            if old is None or not old.spec.get("nodeName"):
                bound += 1
                if bound >= target:
                    done.set()

    caches["pods"].add_handler(count)

    async def make(first: int, number: int) -> None:
        nonlocal target
        target += number
        done.clear()
        queue = iter(range(first, first + number))

        async def one() -> None:
            for i in queue:
                await client.create("pods", body_for(f"pod-{i}", rule), "default")

        await asyncio.gather(*(one() for _ in range(16)))
        await done.wait()

    await make(0, before)
    start = time.perf_counter()
    await make(before, pods)
    took = time.perf_counter() - start
    await scheduler.stop()
    await caches.stop()
    await api.authorizer.stop()
    return pods / took


def main(only: str) -> None:
    print(f"{NODES} nodes; pods per second")
    print("| Row | floor of scheduler_perf | end to end | | decisions alone | |")
    print("| --- | --- | --- | --- | --- | --- |")
    run: Callable[[Any], float] = uvloop.run
    for name, floor, zones, rule, before, pods in ROWS:
        if only and only not in name:
            continue
        if name == "basic":
            alone = decisions(1, {}, 100, 500, unlike=True)
            print(f"| no two pods alike | | | | {alone:,.0f} | |", flush=True)
        alone = decisions(zones, rule, before, pods)
        whole = run(end_to_end(zones, rule, before, min(pods, 4000)))
        print(
            f"| {name} | {floor} | {whole:,.0f} | {whole / floor:.1f} x | {alone:,.0f} "
            f"| {alone / floor:.0f} x |",
            flush=True,
        )


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]))
