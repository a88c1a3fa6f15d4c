"""kubectl drain against a budget, on real containers."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from sampan.testing.e2e import Cluster

NAMESPACE = "draining"
WEB = {
    "apiVersion": "apps/v1", "kind": "Deployment",
    "metadata": {"name": "web", "namespace": NAMESPACE},
    "spec": {"replicas": 4, "selector": {"matchLabels": {"app": "web"}}, "template": {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [{
            "name": "c", "image": "busybox", "imagePullPolicy": "IfNotPresent",
            "command": ["/bin/sh", "-c", "sleep 100000"],
        }]},
    }},
}  # fmt: skip
BUDGET = {
    "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
    "metadata": {"name": "web", "namespace": NAMESPACE},
    "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}},
}  # fmt: skip


def ready(pod: dict[str, Any]) -> bool:
    return "deletionTimestamp" not in pod["metadata"] and any(
        c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ())
    )


def pods(cluster: Cluster) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = cluster.get("pods", "-n", NAMESPACE)["items"]
    return found


@pytest.fixture
def web(cluster: Cluster) -> Iterator[Cluster]:
    cluster.kubectl("create", "namespace", NAMESPACE)
    for body in (WEB, BUDGET):
        cluster.kubectl("apply", "-f", "-", stdin=json.dumps(body))
    try:
        yield cluster
    finally:
        for node in cluster.get("nodes")["items"]:
            cluster.kubectl("uncordon", node["metadata"]["name"])
        cluster.kubectl("delete", "namespace", NAMESPACE)


def test_drain_respects_a_budget(web: Cluster) -> None:
    def allowed() -> bool:
        status = web.get("pdb", "web", "-n", NAMESPACE)["status"]
        return status["disruptionsAllowed"] == 1 and status["currentHealthy"] == 4

    web.until("the budget allows one", allowed, timeout=120)
    row = web.kubectl("get", "pdb", "-n", NAMESPACE).splitlines()[1].split()
    assert row[:4] == ["web", "N/A", "1", "1"]
    node = pods(web)[0]["spec"]["nodeName"]
    assert any(p["spec"]["nodeName"] == node for p in pods(web))
    counts: list[int] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            counts.append(sum(map(ready, pods(web))))
            time.sleep(0.2)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        # Only this namespace's pods: other tests' pods may run beside it.
        told = web.kubectl(
            "drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--force",
            "--pod-selector=app=web", "--timeout=200s", timeout=240,
        )  # fmt: skip
    finally:
        done.set()
        watcher.join()
    assert f"node/{node} cordoned" in told and f"node/{node} drained" in told
    assert "evicting pod draining/web-" in told
    assert counts and min(counts) >= 3, counts
    assert all(p["spec"].get("nodeName") != node for p in pods(web) if ready(p))
    found = web.get("node", node)
    assert [t["key"] for t in found["spec"]["taints"]] == ["node.kubernetes.io/unschedulable"]
    web.until("all four are ready", lambda: sum(map(ready, pods(web))) == 4, timeout=120)


def test_an_eviction_is_refused_in_words(web: Cluster) -> None:
    patch = '{"spec":{"maxUnavailable":0}}'
    web.kubectl("patch", "pdb", "web", "-n", NAMESPACE, "-p", patch)

    def nothing_allowed() -> bool:
        budget = web.get("pdb", "web", "-n", NAMESPACE)
        seen = budget["status"].get("observedGeneration") == budget["metadata"]["generation"]
        return seen and budget["status"]["disruptionsAllowed"] == 0

    web.until("nothing is allowed", nothing_allowed, timeout=60)
    web.until("the pods are ready", lambda: sum(map(ready, pods(web))) == 4, timeout=120)
    name = pods(web)[0]["metadata"]["name"]
    body = {"apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": {"name": name, "namespace": NAMESPACE}}  # fmt: skip
    refused = subprocess.run(
        web.kubectl_command(
            "create", "--raw", f"/api/v1/namespaces/{NAMESPACE}/pods/{name}/eviction", "-f", "-"
        ),
        input=json.dumps(body), capture_output=True, text=True, timeout=60, env=web.env,
    )  # fmt: skip
    assert refused.returncode
    assert "Cannot evict pod as it would violate the pod's disruption budget." in refused.stderr
    assert ready(web.get("pod", name, "-n", NAMESPACE))
