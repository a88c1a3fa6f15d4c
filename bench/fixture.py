"""The cluster of the pytest plug-in: ready, reset, an hour. Prints a table."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from sampan.testing.cluster import Cluster

POD = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
WEB = """
{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: default}, spec: {
  replicas: 3, selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}},
  spec: {containers: [{name: c, image: i}]}}}}
"""


Times = tuple[float, float]


def took(what: Callable[[], object]) -> Times:
    """Milliseconds of the clock, and of this process' CPU."""
    start, used = time.perf_counter(), time.process_time()
    what()
    return (time.perf_counter() - start) * 1000, (time.process_time() - used) * 1000


def row(name: str, times: list[Times]) -> None:
    clock, cpu = ([t[i] for t in times] for i in (0, 1))
    p95 = sorted(clock)[int(len(clock) * 0.95)]
    used = f"{statistics.median(cpu):.1f} ms, {statistics.mean(cpu):.1f} ms"
    print(f"| {name} | {statistics.median(clock):.1f} ms | {p95:.1f} ms | {used} |", flush=True)


def starts() -> list[Times]:
    found = []
    for _ in range(10):
        cluster = Cluster()
        found.append(took(cluster.__enter__))
        cluster.__exit__()
    return found


def resets(between: Callable[[Cluster], object], *, served: bool = False) -> list[Times]:
    with Cluster() as cluster:
        if served:
            assert cluster.kubeconfig
        found = []
        for _ in range(60):
            between(cluster)
            found.append(took(cluster.reset))
        return found


def a_test(cluster: Cluster) -> None:
    """As small as tests get: a pod that runs."""
    cluster.client.create("pods", POD, "default")
    cluster.settle()


def main() -> None:
    print("| What | median | p95 | CPU: median, mean |")
    print("| --- | --- | --- | --- |")
    row("ready (after the first)", starts()[1:])
    row("reset, one after the other", resets(lambda _c: None))
    row("reset after a test of one pod", resets(a_test))
    row("reset after a test of one pod, kubeconfig in use", resets(a_test, served=True))
    with Cluster() as cluster:
        cluster.apply(WEB)
        cluster.settle()
        row("an idle hour, a Deployment of three",
            [took(lambda: cluster.clock.advance(hours=1)) for _ in range(5)])  # fmt: skip


if __name__ == "__main__":
    main()
