"""HorizontalPodAutoscaler with a container that is busy, as users type it; and a full quota."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from sampan.testing.e2e import Cluster

NS = "autoscale"
NAMED = ("-n", NS)
SCRIPT = (
    "while true; do if [ -e /tmp/busy ]; then i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done; "
)
SCRIPT += "else sleep 1; fi; done"
DEPLOYMENT = {
    "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": NS},
    "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [{
            "name": "c", "image": "busybox", "imagePullPolicy": "IfNotPresent",
            "command": ["/bin/sh", "-c", SCRIPT],
            "resources": {"requests": {"cpu": "20m"}, "limits": {"cpu": "100m"}},
        }]},
    }},
}  # fmt: skip
QUICK = {"spec": {"behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}}}}


@pytest.fixture
def web(cluster: Cluster) -> Iterator[Cluster]:
    cluster.kubectl("create", "namespace", NS)
    try:
        cluster.kubectl("create", "quota", "few", "--hard=pods=3", *NAMED)
        cluster.kubectl("apply", "-f", "-", stdin=json.dumps(DEPLOYMENT))
        cluster.kubectl("rollout", "status", "deploy/web", *NAMED, "--timeout=120s", timeout=150)
        yield cluster
    finally:
        cluster.kubectl("delete", "namespace", NS)


def test_a_busy_deployment_grows_and_an_idle_one_shrinks(web: Cluster) -> None:
    pod = web.get("pods", *NAMED)["items"][0]["metadata"]["name"]
    web.kubectl("exec", pod, *NAMED, "--", "touch", "/tmp/busy")

    def is_busy() -> bool:
        rows = web.kubectl("top", "pods", *NAMED, "--no-headers", check=False).split()
        return len(rows) == 3 and rows[0] == pod and int(rows[1].removesuffix("m")) > 30

    web.until("kubectl top shows the load", is_busy, timeout=90)
    said = web.kubectl(
        "autoscale", "deployment", "web", "--min=1", "--max=3", "--cpu-percent=80", *NAMED
    )
    assert "horizontalpodautoscaler.autoscaling/web autoscaled" in said
    web.kubectl("patch", "hpa", "web", *NAMED, "--type=merge", "-p", json.dumps(QUICK))

    def replicas() -> int:
        return int(web.get("deploy", "web", *NAMED)["spec"]["replicas"])

    web.until("it grows", lambda: replicas() == 3, timeout=120)
    web.kubectl("rollout", "status", "deploy/web", *NAMED, "--timeout=120s", timeout=150)
    over = web.kubectl(
        "run", "more", "--image=busybox", *NAMED, "--image-pull-policy=IfNotPresent", check=False
    )
    assert "exceeded quota: few, requested: pods=1, used: pods=3, limited: pods=3" in over
    path = f"/apis/autoscaling/v1/namespaces/{NS}/horizontalpodautoscalers/web"
    old = json.loads(web.kubectl("get", "--raw", path))
    assert old["spec"]["targetCPUUtilizationPercentage"] == 80
    assert "deployment" in web.kubectl("get", "hpa", *NAMED).lower()
    web.kubectl("exec", pod, *NAMED, "--", "rm", "/tmp/busy")
    web.until("it shrinks", lambda: replicas() == 1, timeout=120)
    told = web.kubectl("describe", "hpa", "web", *NAMED)
    assert "SuccessfulRescale" in told
    assert "New size: 1; reason: All metrics below target" in told
