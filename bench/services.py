"""Control side of 1,000 services x 10 endpoints: a control plane in memory, no pods behind it."""

from __future__ import annotations

import time
from typing import Any

from sampan.api.obj import Body, Key, encode
from sampan.lib.loop import run_virtual
from sampan.store.base import Put
from sampan.testing.world import World, world

SERVICES, PODS = 1000, 10
_SLICES = "endpointslices.discovery.k8s.io"
_AT = "2026-01-01T00:00:00Z"


def pod(service: int, number: int) -> Body:
    n = service * PODS + number
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": _AT}
    return {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": f"p{service}-{number}", "namespace": "default", "uid": f"u{n}",
                     "labels": {"app": f"a{service}", "tier": "x"}, "creationTimestamp": _AT},
        "spec": {"containers": [{"name": "c", "image": "i"}], "schedulerName": "nobody"},
        "status": {"phase": "Running", "podIP": f"10.42.{n // 250}.{n % 250 + 1}",
                   "conditions": [ready]},
    }  # fmt: skip


async def services(w: World) -> None:
    for i in range(SERVICES):
        spec = {"selector": {"app": f"a{i}"}, "ports": [{"port": 80}]}
        body = {"metadata": {"name": f"s{i}"}, "spec": spec}
        await w.client.create("services", body, "default")
    await w.plane.engine.settle(timeout=600)


async def pods(w: World) -> None:
    for i in range(SERVICES):
        puts = [
            Put(Key("pods", "default", f"p{i}-{j}").path, encode(pod(i, j)), expect=0)
            for j in range(PODS)
        ]
        await w.store.commit(*puts)
    await w.plane.engine.settle(timeout=600)


async def one_pod(w: World, number: int) -> None:
    """From a pod that is no longer ready to the slice that says so."""
    condition = {"type": "Ready", "status": "False", "lastTransitionTime": _AT}
    name = f"p{number}-0"
    await w.client.patch(
        "pods", name, {"status": {"conditions": [condition]}}, "default", subresource="status"
    )
    slices: Any = w.plane.engine.caches[_SLICES]

    def told() -> bool:
        (held,) = slices.by("selected", f"default/s{number}")
        ready = [e["conditions"]["ready"] for e in held.body["endpoints"]]
        return sum(ready) == PODS - 1

    await slices.until(told)


async def main() -> None:
    async with world(nodes=0) as w:
        start = time.perf_counter()
        await services(w)
        made = time.perf_counter()
        since = w.store.revision
        await pods(w)
        shown = time.perf_counter()
        writes = w.writes(since)
        times = []
        for number in range(100):
            before = time.perf_counter()
            await one_pod(w, number)
            times.append((time.perf_counter() - before) * 1000)
        times.sort()
        print(f"{SERVICES} services with address, slice and endpoints: {made - start:.2f} s")
        print(f"{SERVICES * PODS} pods shown in them: {shown - made:.2f} s, "
              f"{writes[_SLICES]} writes of slices")  # fmt: skip
        print(f"one pod not ready -> its slice: p50 {times[50]:.1f} ms, p95 {times[95]:.1f} ms")


if __name__ == "__main__":
    run_virtual(main())
