"""NetworkPolicy by kubectl, with real pods on both nodes. The matrix of policies itself is tried in
``tests/network/test_policy_kernel.py``."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import yaml

from sampan.testing.e2e import Cluster

A, B = "policy-a", "policy-b"
# name, namespace, node, labels
CLIENTS = (("near", A, 1, {"role": "friend"}), ("far", A, 2, {}), ("other", B, 2, {}))


def _pod(name: str, namespace: str, node: int, labels: dict[str, str], **spec: Any) -> Any:
    container = {
        "name": "c", "image": "praqma/network-multitool", "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", "sleep 100000"],
    }  # fmt: skip
    return {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"nodeName": f"e2e-{node}", "terminationGracePeriodSeconds": 0,
                 "restartPolicy": "Never", "containers": [{**container, **spec}]},
    }  # fmt: skip


def _policy(name: str, namespace: str, **spec: Any) -> Any:
    return {
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"podSelector": {}, **spec},
    }  # fmt: skip


def _apply(cluster: Cluster, *bodies: Any) -> None:
    cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(bodies))


@pytest.fixture(scope="module")
def pods(cluster: Cluster) -> Iterator[Cluster]:
    for namespace in (A, B):
        cluster.kubectl("create", "ns", namespace)
    web = _pod("web", A, 1, {"app": "web"}, image="nginx:1.16.1", command=None,
               ports=[{"name": "http", "containerPort": 80}],
               readinessProbe={"httpGet": {"port": "http"}, "periodSeconds": 1})  # fmt: skip
    port = {"port": 8000, "targetPort": "http"}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": A},
               "spec": {"selector": {"app": "web"}, "ports": [port]}}  # fmt: skip
    _apply(cluster, web, service, *(_pod(*c) for c in CLIENTS))
    for namespace in (A, B):
        cluster.kubectl("wait", "-n", namespace, "pod", "--all", "--for=condition=Ready",
                        "--timeout=120s")  # fmt: skip
    yield cluster
    for namespace in (A, B):
        cluster.kubectl("delete", "ns", namespace, "--timeout=60s")


def _reaches(cluster: Cluster, client: tuple[Any, ...], url: str) -> bool:
    said = cluster.kubectl(
        "exec", "-n", client[1], client[0], "--", "curl", "-sm2", url, check=False
    )
    return "Welcome to nginx" in said


def _matrix(cluster: Cluster) -> dict[str, str]:
    """By client: which of the pod's address and the service's name it reaches."""
    ip = cluster.get("pod", "-n", A, "web")["status"]["podIP"]
    urls = {"pod": f"http://{ip}/", "name": f"http://web.{A}:8000/"}
    tries = [(c, what) for c in CLIENTS for what in urls]
    with ThreadPoolExecutor(len(tries)) as pool:
        found = [*pool.map(lambda t: _reaches(cluster, t[0], urls[t[1]]), tries)]
    return {
        c[0]: " ".join(what for (d, what), ok in zip(tries, found, strict=True) if d is c and ok)
        for c in CLIENTS
    }


def _expect(cluster: Cluster, **wanted: str) -> None:
    cluster.until(f"{wanted}", lambda: _matrix(cluster) == wanted, timeout=40)


ALL = "pod name"


def test_policies_by_kubectl(pods: Cluster) -> None:
    _expect(pods, near=ALL, far=ALL, other=ALL)
    _apply(pods, _policy("deny", A))
    _expect(pods, near="", far="", other="")
    shown = pods.kubectl("get", "netpol", "-n", A).splitlines()
    assert shown[0].split() == ["NAME", "POD-SELECTOR", "AGE"]
    assert shown[1].split()[:2] == ["deny", "<none>"]
    # A friend by its labels, and to a port by its name.
    friends = [{"from": [{"podSelector": {"matchLabels": {"role": "friend"}}}],
                "ports": [{"port": "http"}]}]  # fmt: skip
    web = {"matchLabels": {"app": "web"}}
    _apply(pods, _policy("friends", A, podSelector=web, ingress=friends))
    _expect(pods, near=ALL, far="", other="")
    pods.kubectl("label", "pod", "-n", A, "far", "role=friend")
    _expect(pods, near=ALL, far=ALL, other="")
    # A whole namespace, by its labels.
    here = [{"from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": B}}}]}]
    _apply(pods, _policy("friends", A, podSelector=web, ingress=here))
    _expect(pods, near="", far="", other=ALL)
    # Out: nothing but names; then the pod behind the service, whose port is the pod's.
    names = {"matchLabels": {"k8s-app": "kube-dns"}}
    dns = {"to": [{"namespaceSelector": {}, "podSelector": names}],
           "ports": [{"port": 53, "protocol": "UDP"}]}  # fmt: skip
    _apply(pods, _policy("out", B, policyTypes=["Egress"], egress=[dns]))
    _expect(pods, near="", far="", other="")
    assert "10.43.0.1" in pods.kubectl("exec", "-n", B, "other", "--", "nslookup",
                                       "kubernetes.default.svc.cluster.local")  # fmt: skip
    to_web = {"to": [{"namespaceSelector": {}, "podSelector": web}], "ports": [{"port": 80}]}
    _apply(pods, _policy("out", B, policyTypes=["Egress"], egress=[dns, to_web]))
    _expect(pods, near="", far="", other=ALL)
    # The node's probes went on all the while.
    status = pods.get("pod", "-n", A, "web")["status"]
    assert all(c["ready"] for c in status["containerStatuses"])
    pods.kubectl("delete", "netpol", "--all", "-n", A)
    pods.kubectl("delete", "netpol", "--all", "-n", B)
    _expect(pods, near=ALL, far=ALL, other=ALL)


def test_a_pod_is_isolated_before_its_first_packet(pods: Cluster) -> None:
    """Ten pods that send from their first moment on, each in a namespace that lets nothing out."""
    ip = pods.get("pod", "-n", A, "web")["status"]["podIP"]
    _apply(pods, _policy("out", B, podSelector={"matchLabels": {"is": "new"}},
                         policyTypes=["Egress"]))  # fmt: skip
    script = f"for i in 1 2 3; do curl -sm1 http://{ip}/ && echo LEAK; done; echo done"
    made = [
        _pod(f"new-{i}", B, 1 + i % 2, {"is": "new"}, command=["sh", "-c", script])
        for i in range(10)
    ]  # fmt: skip
    _apply(pods, *made)
    pods.kubectl("wait", "-n", B, "pod", "-l", "is=new",
                 "--for=jsonpath={.status.phase}=Succeeded", "--timeout=120s")  # fmt: skip
    said = pods.kubectl("logs", "-n", B, "-l", "is=new", "--tail=-1")
    assert said.count("done") == 10 and "LEAK" not in said
    pods.kubectl("delete", "netpol", "-n", B, "out")


def test_a_policy_counts_when_kubectl_has_returned(pods: Cluster) -> None:
    """Or a tenth of a second later at most: a pod asks all the time and writes down when it was
    answered."""
    ip = pods.get("pod", "-n", A, "web")["status"]["podIP"]
    ask = f"curl -sm0.3 http://{ip}/ >/dev/null && echo $EPOCHREALTIME"
    command = pods.kubectl_command("exec", "-n", A, "near", "--", "bash", "-c",
                                   f"while :; do {ask}; done")  # fmt: skip
    late = []
    for _ in range(3):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=pods.env) as asking:
            assert asking.stdout is not None
            assert asking.stdout.readline()
            _apply(pods, _policy("deny", A))
            returned = time.time()
            time.sleep(1.0)
            asking.kill()
            last = max(float(t) for t in asking.stdout.read().split())
        late.append(last - returned)
        pods.kubectl("delete", "netpol", "-n", A, "deny")
        pods.until("it is lifted", lambda: _reaches(pods, CLIENTS[0], f"http://{ip}/"))
    assert sorted(late)[1] < 0.1, late
