"""Scheduling as users see it: real pods, the real kubectl."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from sampan.testing.e2e import Cluster

NS = "scheduling"
HOSTNAME = "kubernetes.io/hostname"
LABEL = "sampan-e2e/scheduling"


@pytest.fixture(scope="module")
def ns(cluster: Cluster) -> Iterator[Cluster]:
    cluster.kubectl("create", "ns", NS)
    yield cluster
    cluster.kubectl("delete", "ns", NS, "--timeout=120s")
    cluster.kubectl("delete", "priorityclass", "e2e-high", "--ignore-not-found")
    cluster.kubectl("label", "nodes", "--all", f"{LABEL}-")


def body(name: str, *, requests: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    container = {
        "name": "c", "image": "busybox", "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", "1000"], "resources": {"requests": requests or {}},
    }  # fmt: skip
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container], **spec},
    }  # fmt: skip


def apply(ns: Cluster, *bodies: dict[str, Any]) -> str:
    return ns.kubectl("apply", "-n", NS, "-f", "-", stdin=yaml.safe_dump_all(bodies))


def ready(ns: Cluster, *names: str) -> list[str]:
    """The nodes of pods that are ready."""
    pods = [f"pod/{n}" for n in names]
    ns.kubectl("wait", "-n", NS, *pods, "--for=condition=Ready", "--timeout=90s")
    return [ns.get("pod", "-n", NS, n)["spec"]["nodeName"] for n in names]


def told(ns: Cluster, name: str, text: str) -> None:
    """``kubectl describe`` shows *text* among the pod's events."""
    ns.until(
        f"{name} is told: {text}",
        lambda: text in ns.kubectl("describe", "pod", "-n", NS, name),
    )


def test_affinity_and_spreading_over_two_nodes(ns: Cluster) -> None:
    names = sorted(n["metadata"]["name"] for n in ns.get("nodes")["items"])
    ns.kubectl("label", "node", names[1], f"{LABEL}=here")
    here = {"key": LABEL, "operator": "In", "values": ["here"]}
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    node_affinity = {"nodeAffinity": {required: {
        "nodeSelectorTerms": [{"matchExpressions": [here]}]}}}  # fmt: skip
    term = {"topologyKey": HOSTNAME, "labelSelector": {"matchLabels": {"app": "anchor"}}}
    spread = {"maxSkew": 1, "topologyKey": HOSTNAME, "whenUnsatisfiable": "DoNotSchedule",
              "labelSelector": {"matchLabels": {"set": "spread"}}}  # fmt: skip
    apart = [body(f"spread-{i}", topologySpreadConstraints=[spread]) for i in range(4)]
    for one in apart:
        one["metadata"]["labels"] = {"set": "spread"}
    said = apply(
        ns, body("anchor", affinity=node_affinity),
        body("beside", affinity={"podAffinity": {required: [term]}}),
        body("away", affinity={"podAntiAffinity": {required: [term]}}), *apart,
    )  # fmt: skip
    assert "Warning" not in said
    assert ready(ns, "anchor", "beside", "away") == [names[1], names[1], names[0]]
    where = ready(ns, *(f"spread-{i}" for i in range(4)))
    assert sorted(where) == [names[0], names[0], names[1], names[1]]


def test_gates(ns: Cluster) -> None:
    apply(ns, body("gated", schedulingGates=[{"name": "example.com/wait"}]))
    ns.until("the gate shows", lambda: "SchedulingGated" in ns.kubectl("get", "pods", "-n", NS))
    patch = '[{"op": "remove", "path": "/spec/schedulingGates/0"}]'
    ns.kubectl("patch", "pod", "-n", NS, "gated", "--type=json", "-p", patch)
    ready(ns, "gated")


def test_what_fits_nowhere_says_why(ns: Cluster) -> None:
    apply(ns, body("huge", requests={"cpu": "4000"}), body("lost", nodeSelector={"no": "where"}))
    told(ns, "huge", "0/2 nodes are available: 2 Insufficient cpu. preemption: 0/2 nodes are "
                     "available: 2 Preemption is not helpful for scheduling.")  # fmt: skip
    told(ns, "lost", "0/2 nodes are available: 2 node(s) didn't match Pod's node "
                     "affinity/selector.")  # fmt: skip
    for name in ("huge", "lost"):
        assert ns.get("pod", "-n", NS, name)["status"]["phase"] == "Pending"
    ns.kubectl("delete", "pod", "-n", NS, "huge", "lost")


def test_the_important_take_the_place_of_others(ns: Cluster) -> None:
    resource = "example.com/e2e-seat"
    names = sorted(n["metadata"]["name"] for n in ns.get("nodes")["items"])
    patch = json.dumps({"status": {"capacity": {resource: "1"}, "allocatable": {resource: "1"}}})
    ns.kubectl("patch", "node", names[0], "--subresource=status", "--type=merge", "-p", patch)
    seat = {"requests": {resource: "1"}, "limits": {resource: "1"}}

    def seated(name: str, **spec: Any) -> dict[str, Any]:
        made = body(name, **spec)
        made["spec"]["containers"][0]["resources"] = seat
        return made

    priority = {
        "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
        "metadata": {"name": "e2e-high"}, "value": 1000,
    }  # fmt: skip
    apply(ns, seated("low", terminationGracePeriodSeconds=3))
    assert ready(ns, "low") == [names[0]]
    ns.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(priority))
    apply(ns, seated("high", priorityClassName="e2e-high"))
    assert ready(ns, "high") == [names[0]]
    uid = ns.get("pod", "-n", NS, "high")["metadata"]["uid"]
    events = ns.kubectl("get", "events", "-n", NS)
    assert f"Preempted by pod {uid} on node {names[0]}" in events
    assert "NotFound" in ns.kubectl("get", "pod", "-n", NS, "low", check=False)
