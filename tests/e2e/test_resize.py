"""A running pod is resized in place, by kubectl's own --subresource."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from sampan.testing.e2e import Cluster

NS = ("-n", "resize")
LOOP = ["sh", "-c", "trap exit TERM; while :; do sleep 0.2; done"]


@pytest.fixture(scope="module")
def ns(cluster: Cluster) -> Iterator[Cluster]:
    cluster.kubectl("create", "ns", "resize")
    yield cluster
    cluster.kubectl("delete", "ns", "resize", timeout=180)


def container(name: str, cpu: str, memory: str, **fields: Any) -> dict[str, Any]:
    limits = {"cpu": cpu, "memory": memory}
    return {"name": name, "image": "busybox", "imagePullPolicy": "IfNotPresent", "command": LOOP,
            "resources": {"requests": {"cpu": "10m", "memory": "8Mi"}, "limits": limits},
            **fields}  # fmt: skip


def change(ns: Cluster, name: str, check: bool = True, **resources: Any) -> str:
    body = {"spec": {"containers": [{"name": name, "resources": resources}]}}
    return ns.kubectl(
        "patch", *NS, "pod", "p", "--subresource", "resize", "-p", json.dumps(body), check=check
    )


def settled(ns: Cluster) -> dict[str, Any]:
    def done() -> dict[str, Any] | None:
        pod = ns.get("pod", "p", *NS)
        status = pod["status"]
        told = {c["type"]: c["status"] for c in status.get("conditions", ())}
        current = status.get("observedGeneration") == pod["metadata"]["generation"]
        resizing = "PodResizePending" in told or "PodResizeInProgress" in told
        asked = [c["resources"] for c in pod["spec"]["containers"]]
        in_force = [c["resources"] for c in status.get("containerStatuses", ())]
        fine = current and not resizing and told.get("Ready") == "True" and asked == in_force
        return status if fine else None

    found: dict[str, Any] = ns.until("the resize is over", done, timeout=90)
    return found


def group(ns: Cluster, name: str) -> tuple[int, int]:
    """The memory limit and the CPU quota the kernel holds for a container."""
    script = (
        "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max 2>/dev/null || cat "
        "/sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/cpu/cpu.cfs_quota_us"
    )
    memory, quota = ns.kubectl("exec", *NS, "p", "-c", name, "--", "sh", "-c", script).splitlines()[
        -2:
    ]
    return int(memory), int(quota.split()[0])


def test_a_pod_is_resized_in_place(ns: Cluster) -> None:
    restart = [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]
    body = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "resize"},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [
            container("a", "200m", "64Mi"),
            container("b", "200m", "64Mi", resizePolicy=restart),
        ]},
    }  # fmt: skip
    ns.kubectl("apply", "-f", "-", stdin=json.dumps(body))
    before = settled(ns)["containerStatuses"]
    assert ns.get("pod", "p", *NS)["metadata"]["generation"] == 1
    change(ns, "a", requests={"cpu": "20m"}, limits={"cpu": "500m", "memory": "128Mi"})
    a, b = settled(ns)["containerStatuses"]
    assert a["containerID"] == before[0]["containerID"] and a["restartCount"] == 0
    assert a["allocatedResources"] == {"cpu": "20m", "memory": "8Mi"}
    assert group(ns, "a") == (128 << 20, 50_000)
    assert b["containerID"] == before[1]["containerID"]
    change(ns, "b", limits={"memory": "96Mi"})
    a, b = settled(ns)["containerStatuses"]
    assert (a["restartCount"], b["restartCount"]) == (0, 1)
    assert group(ns, "b") == (96 << 20, 20_000)

    refused = change(ns, "a", check=False, limits={"cpu": None})
    assert "resource limits cannot be removed" in refused
    change(ns, "a", requests={"cpu": "1k"}, limits={"cpu": "1k"})

    def condition() -> dict[str, Any]:
        found = ns.get("pod", "p", *NS)["status"]["conditions"]
        return next((c for c in found if c["type"].startswith("PodResize")), {})

    ns.until("it is infeasible", lambda: condition().get("reason") == "Infeasible")
    assert condition()["message"].startswith("Node didn't have enough capacity: cpu, requested: ")
    change(ns, "a", requests={"cpu": "20m", "memory": "1Ki"}, limits={"cpu": "1", "memory": "1Ki"})
    ns.until("it failed", lambda: condition().get("reason") == "Error")
    assert "memory limit (1024) below current usage" in condition()["message"]
    change(ns, "a", requests={"memory": "8Mi"}, limits={"memory": "64Mi"})
    settled(ns)
    assert group(ns, "a") == (64 << 20, 100_000)
    told = ns.kubectl("get", "events", *NS)
    for reason in ("ResizeStarted", "ResizeCompleted", "ResizeInfeasible", "ResizeError"):
        assert reason in told
