"""StatefulSet, DaemonSet and ReplicationController with real containers; rollouts of all kinds that
have them, typed as users type them."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sampan.testing.e2e import Cluster, kubectl_path, sampan

MANIFESTS = Path(__file__).parents[2] / "examples"
NS = "workloads"
NAMED = ("-n", NS)
WAIT = "--timeout=120s"


def rows(table: str) -> list[list[str]]:
    return [re.split(r"\s{2,}", line.strip()) for line in table.splitlines() if line.strip()]


def test_the_seeds_stateful_set(cluster: Cluster) -> None:
    ns = ("-n", "sts-test")
    try:
        cluster.kubectl("apply", "-f", str(MANIFESTS / "statefulset.yaml"))
        said = cluster.kubectl("rollout", "status", *ns, "sts/nginx-sts", WAIT, timeout=150)
        assert "partitioned roll out complete: 3 new pods have been updated" in said
        table = rows(cluster.kubectl("get", "sts", *ns, "-owide"))
        assert table[0] == ["NAME", "READY", "AGE", "CONTAINERS", "IMAGES"]
        assert table[1][:2] == ["nginx-sts", "3/3"]
        assert table[1][3:] == ["nginx,nettool", "nginx:1.14.1,praqma/network-multitool"]
        pods = cluster.get("pods", *ns)["items"]
        assert [p["metadata"]["name"] for p in pods] == [f"nginx-sts-{i}" for i in range(3)]
        assert len({p["spec"]["nodeName"] for p in pods}) == 2
        for before, after in itertools.pairwise(pods):
            ready = next(c for c in before["status"]["conditions"] if c["type"] == "Ready")
            assert ready["lastTransitionTime"] <= after["metadata"]["creationTimestamp"]
        for pod in pods:
            name, ip = pod["metadata"]["name"], pod["status"]["podIP"]
            seen = cluster.kubectl("exec", *ns, name, "-c", "nettool", "--", "hostname")
            assert seen.strip() == name
            full = f"{name}.nginx.sts-test.svc.cluster.local"

            def answered(full: str = full, ip: str = ip) -> bool:
                answer = cluster.kubectl(
                    "exec", *ns, "nginx-sts-0", "-c", "nettool", "--", "nslookup", full, check=False
                )
                return ip in answer and full in answer

            cluster.until(f"{full} is {ip}", answered)
        uid = pods[1]["metadata"]["uid"]
        cluster.kubectl("delete", "pod", *ns, "nginx-sts-1", "--grace-period=1")

        def back() -> bool:
            found = {p["metadata"]["name"]: p for p in cluster.get("pods", *ns)["items"]}
            pod = found.get("nginx-sts-1")
            return bool(pod and pod["metadata"]["uid"] != uid and is_ready(pod))

        cluster.until("the pod is back under its name", back, timeout=90)
        described = cluster.kubectl("describe", "sts", *ns, "nginx-sts")
        assert re.search(
            r"Normal\s+SuccessfulCreate.*create Pod nginx-sts-0 in StatefulSet nginx-sts success",
            described,
        )
    finally:
        # sleep, as the first process of its namespace, would take its whole grace period.
        cluster.kubectl("delete", "sts", *ns, "nginx-sts", "--cascade=orphan")
        cluster.kubectl("delete", "pods", *ns, "--all", "--grace-period=1", timeout=90)
        cluster.kubectl("delete", "ns", "sts-test", timeout=180)


def is_ready(pod: dict[str, Any]) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True"
               for c in pod["status"].get("conditions", ()))  # fmt: skip


def workload(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    labels = {"app": name}
    selector: Any = labels if kind == "ReplicationController" else {"matchLabels": labels}
    container = {
        "name": "c", "image": "praqma/network-multitool", "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", "86400"],
    }  # fmt: skip
    template = {
        "metadata": {"labels": labels},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]},
    }
    return {
        "apiVersion": "v1" if kind == "ReplicationController" else "apps/v1", "kind": kind,
        "metadata": {"name": name, "namespace": NS},
        "spec": {"selector": selector, "template": template, **spec},
    }  # fmt: skip


@pytest.fixture(scope="module")
def ns(cluster: Cluster) -> Iterator[Cluster]:
    cluster.kubectl("create", "ns", NS)
    objects = [
        workload("Deployment", "dep", replicas=2),
        workload("StatefulSet", "sts", replicas=2, serviceName="sts"),
        workload("DaemonSet", "ds"),
    ]
    cluster.kubectl("apply", "-f", "-", stdin="\n".join(map(json.dumps, objects)))
    yield cluster
    cluster.kubectl("delete", "ns", NS, timeout=180)


def rolled_out(ns: Cluster, target: str) -> None:
    said = ns.kubectl("rollout", "status", *NAMED, target, WAIT, timeout=150)
    assert re.search("successfully rolled out|partitioned roll out complete", said), said


def environment(ns: Cluster, name: str) -> set[str]:
    """The values of A in the pods of a workload that stay."""
    pods = ns.get("pods", *NAMED, "-l", f"app={name}")["items"]
    return {
        e["value"]
        for p in pods
        if "deletionTimestamp" not in p["metadata"]
        for e in p["spec"]["containers"][0].get("env", [{"value": ""}])
    }


@pytest.mark.parametrize("target", ["deployment/dep", "statefulset/sts", "daemonset/ds"])
def test_rollouts(ns: Cluster, target: str) -> None:
    kind, _, name = target.partition("/")
    full = f"{kind}.apps/{name}"
    rolled_out(ns, target)
    ns.kubectl("set", "env", *NAMED, target, "A=2")
    rolled_out(ns, target)
    assert environment(ns, name) == {"2"}
    history = ns.kubectl("rollout", "history", *NAMED, target)
    assert re.findall(r"^(\d+)\s+<none>$", history, re.M) == ["1", "2"]
    detail = ns.kubectl("rollout", "history", *NAMED, target, "--revision=2")
    assert re.search(r"A:\s+2", detail)
    assert ns.kubectl("rollout", "undo", *NAMED, target) == f"{full} rolled back\n"
    rolled_out(ns, target)
    assert environment(ns, name) == {""}
    history = ns.kubectl("rollout", "history", *NAMED, target)
    assert re.findall(r"^(\d+)\s+<none>$", history, re.M) == ["2", "3"]
    ns.kubectl("rollout", "undo", *NAMED, target, "--to-revision=2")
    rolled_out(ns, target)
    assert environment(ns, name) == {"2"}
    assert ns.kubectl("rollout", "restart", *NAMED, target) == f"{full} restarted\n"
    rolled_out(ns, target)
    pods = ns.get("pods", *NAMED, "-l", f"app={name}")["items"]
    staying = [p for p in pods if "deletionTimestamp" not in p["metadata"]]
    assert len(staying) == 2
    note = "kubectl.kubernetes.io/restartedAt"
    assert all(note in p["metadata"]["annotations"] for p in staying)
    if kind == "deployment":
        assert ns.kubectl("rollout", "pause", *NAMED, target) == f"{full} paused\n"
        ns.kubectl("set", "env", *NAMED, target, "A=3")
        ns.until("the pause is told", lambda: "DeploymentPaused" in ns.kubectl(
            "get", *NAMED, target, "-o", "jsonpath={.status.conditions}"))  # fmt: skip
        assert environment(ns, name) == {"2"}
        assert ns.kubectl("rollout", "resume", *NAMED, target) == f"{full} resumed\n"
        rolled_out(ns, target)
        assert environment(ns, name) == {"3"}
    else:
        for verb, done in (("pause", "pausing"), ("resume", "resuming")):
            refused = ns.kubectl("rollout", verb, *NAMED, target, check=False)
            assert refused.strip() == f'error: {kind}s.apps "{name}" {done} is not supported'


def test_what_is_listed(ns: Cluster) -> None:
    rolled_out(ns, "ds/ds")
    table = rows(ns.kubectl("get", "ds", *NAMED))
    assert table[0] == ["NAME", "DESIRED", "CURRENT", "READY", "UP-TO-DATE", "AVAILABLE",
                        "NODE SELECTOR", "AGE"]  # fmt: skip
    assert table[1][:7] == ["ds", "2", "2", "2", "2", "2", "<none>"]
    pods = ns.get("pods", *NAMED, "-l", "app=ds")["items"]
    staying = [p for p in pods if "deletionTimestamp" not in p["metadata"]]
    assert len({p["spec"]["nodeName"] for p in staying}) == len(staying) == 2
    revisions = rows(ns.kubectl("get", "controllerrevisions", *NAMED))
    assert revisions[0] == ["NAME", "CONTROLLER", "REVISION", "AGE"]
    assert {r[1] for r in revisions[1:]} == {"daemonset.apps/ds", "statefulset.apps/sts"}
    scaled = ns.kubectl("scale", *NAMED, "sts/sts", "--replicas=1")
    assert scaled == "statefulset.apps/sts scaled\n"
    ns.until("one pod is left", lambda: [
        p["metadata"]["name"] for p in ns.get("pods", *NAMED, "-l", "app=sts")["items"]
    ] == ["sts-0"])  # fmt: skip
    body = workload("ReplicationController", "rc", replicas=1)
    ns.kubectl("apply", "-f", "-", stdin=json.dumps(body))
    assert ns.kubectl("scale", *NAMED, "rc/rc", "--replicas=2").endswith("rc scaled\n")
    ns.until("the controller has two", lambda: ns.get("rc", *NAMED, "rc")["status"].get(
        "readyReplicas") == 2)  # fmt: skip
    assert rows(ns.kubectl("get", "rc", *NAMED))[1][:4] == ["rc", "2", "2", "2"]
    refused = ns.kubectl(
        "patch", "sts", *NAMED, "sts", "-p", '{"spec":{"serviceName":"other"}}', check=False
    )
    assert "updates to statefulset spec for fields other than 'replicas', 'ordinals'" in refused


def test_claims_follow_their_pods(ns: Cluster) -> None:
    """What a pod wrote is there for the next one of its name; scaled away, it goes."""
    claim = {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "16Mi"}}},
    }
    body = workload(
        "StatefulSet", "db", replicas=1, serviceName="db", volumeClaimTemplates=[claim],
        persistentVolumeClaimRetentionPolicy={"whenScaled": "Delete", "whenDeleted": "Retain"},
    )  # fmt: skip
    container = body["spec"]["template"]["spec"]["containers"][0]
    container["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
    ns.kubectl("apply", "-f", "-", stdin=json.dumps(body))
    rolled_out(ns, "sts/db")
    ns.kubectl("exec", *NAMED, "db-0", "--", "sh", "-c", "echo kept > /data/x")
    uid = ns.get("pod", *NAMED, "db-0")["metadata"]["uid"]
    ns.kubectl("delete", "pod", *NAMED, "db-0")

    def again() -> bool:
        found = ns.get("pods", *NAMED, "-l", "app=db")["items"]
        return any(p["metadata"]["uid"] != uid and is_ready(p) for p in found)

    ns.until("the pod is back", again, timeout=90)
    assert ns.kubectl("exec", *NAMED, "db-0", "--", "cat", "/data/x") == "kept\n"
    assert "data-db-0" in ns.kubectl("get", "pvc", *NAMED)
    ns.kubectl("scale", *NAMED, "sts/db", "--replicas=0")
    ns.until("the claim is gone", lambda: "data-db-0" not in ns.kubectl("get", "pvc", *NAMED),
             timeout=90)  # fmt: skip


def test_a_daemon_on_three_nodes(tmp_path: Path, stand_ins: Path) -> None:
    """Every node has one, also the third that joins later; a taint drives it away, its end brings
    it back."""
    own = Cluster(tmp_path / "data", tmp_path / "kubeconfig", kubectl_path())

    def up(nodes: int) -> None:
        sampan(
            "up", "--name", "three", "--data-dir", str(own.data_dir), "--nodes", str(nodes),
            "--port", "0", "--no-uplink", "--kubeconfig", str(own.kubeconfig),
        )  # fmt: skip

    try:
        up(2)
        own.sampan("image", "load", str(stand_ins))
        own.kubectl("create", "ns", NS)
        own.kubectl("apply", "-f", "-", stdin=json.dumps(workload("DaemonSet", "ds")))
        rolled_out(own, "ds/ds")

        def nodes() -> list[str]:
            found = own.get("pods", *NAMED)["items"]
            return sorted(p["spec"].get("nodeName", "") for p in found if is_ready(p))

        first = nodes()
        assert len(first) == 2
        up(3)
        every = sorted(n["metadata"]["name"] for n in own.get("nodes")["items"])
        assert len(every) == 3 and set(first) < set(every)
        own.until("every node has a daemon", lambda: nodes() == every)
        own.kubectl("taint", "node", every[1], "away=yes:NoExecute")
        own.until("it left the tainted node", lambda: nodes() == [every[0], every[2]])
        own.kubectl("taint", "node", every[1], "away-")
        own.until("it is back", lambda: nodes() == every)
    finally:
        sampan("down", "--purge", "--data-dir", str(own.data_dir))
