"""RuntimeClasses with both runtimes on one node, and one that no node has."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from sampan.testing.e2e import Cluster

NS = "runtimes"
CLASSES = {"usual": "crun", "other": "runc", "nowhere": "kata"}


def made(kind: str, version: str, name: str, **more: Any) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, **more}


@pytest.fixture
def runtimes(cluster: Cluster) -> Iterator[Cluster]:
    cluster.kubectl("create", "namespace", NS)
    items = [
        made("RuntimeClass", "node.k8s.io/v1", name, handler=handler)
        for name, handler in CLASSES.items()
    ]
    items[1]["overhead"] = {"podFixed": {"cpu": "10m"}}
    try:
        body = {"apiVersion": "v1", "kind": "List", "items": items}
        cluster.kubectl("apply", "-f", "-", stdin=json.dumps(body))
        yield cluster
    finally:
        cluster.kubectl("delete", "runtimeclass", *CLASSES, check=False)
        cluster.kubectl("delete", "namespace", NS)


def test_a_pod_is_run_by_the_runtime_of_its_class(runtimes: Cluster) -> None:
    c = runtimes
    container = {"name": "c", "image": "busybox", "imagePullPolicy": "IfNotPresent",
                 "command": ["sleep", "3600"]}  # fmt: skip
    pods = [
        made("Pod", "v1", name, spec={
            "containers": [container], "runtimeClassName": name,
            "terminationGracePeriodSeconds": 0,
        })
        for name in CLASSES
    ]  # fmt: skip
    body = {"apiVersion": "v1", "kind": "List", "items": pods}
    c.kubectl("apply", "-n", NS, "-f", "-", stdin=json.dumps(body))
    c.kubectl("wait", "pod/usual", "pod/other", "-n", NS, "--for=condition=Ready",
              "--timeout=90s")  # fmt: skip
    assert c.get("pod", "other", "-n", NS)["spec"]["overhead"] == {"cpu": "10m"}
    assert c.kubectl("exec", "other", "-n", NS, "--", "echo", "hi").strip() == "hi"

    def refused() -> bool:
        events = c.kubectl("get", "events", "-n", NS, "-o", "json")
        text = 'failed to get sandbox runtime: no runtime for "kata" is configured'
        return any(
            e["reason"] == "FailedCreatePodSandBox" and text in e["message"]
            for e in json.loads(events)["items"]
        )

    c.until("the node has no such runtime", refused, timeout=60)
    assert "ContainerCreating" in c.kubectl("get", "pod", "nowhere", "-n", NS)
    spec = json.dumps({"spec": {"runtimeClassName": "none"}})
    said = c.kubectl(
        "run", "x", "--image=busybox", "-n", NS, "--overrides", spec, check=False
    )  # fmt: skip
    assert 'pod rejected: RuntimeClass "none" not found' in said
