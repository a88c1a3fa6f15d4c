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


def took(what: Callable[[], object]) -> float:
    """Milliseconds."""
    start = time.perf_counter()
    what()
    return (time.perf_counter() - start) * 1000


def row(name: str, times: list[float]) -> None:
    ordered = sorted(times)
    p95 = ordered[int(len(ordered) * 0.95)]
    print(f"| {name} | {statistics.median(times):.1f} ms | {p95:.1f} ms |", flush=True)


def starts() -> list[float]:
    found = []
    for _ in range(10):
        cluster = Cluster()
        found.append(took(cluster.__enter__))
        cluster.__exit__()
    return found


def resets(between: Callable[[Cluster], object], *, served: bool = False) -> list[float]:
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
    print("| What | median | p95 |")
    print("| --- | --- | --- |")
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
