"""Services as kubectl makes and shows them."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from sampan.lib.datadir import DataDir
from sampan.testing.e2e import Cluster

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: c
        image: busybox
        imagePullPolicy: IfNotPresent
        command: [sleep, "1000"]
        ports: [{name: http, containerPort: 8080}]
"""


@pytest.fixture
def ns(cluster: Cluster) -> Iterator[str]:
    cluster.kubectl("create", "ns", "services-api")
    yield "services-api"
    cluster.kubectl("delete", "ns", "services-api", "--timeout=60s")


def test_services_with_kubectl(cluster: Cluster, ns: str) -> None:
    def k(*args: str, check: bool = True, stdin: str = "") -> str:
        return cluster.kubectl("-n", ns, *args, check=check, stdin=stdin)

    k("apply", "-f", "-", stdin=DEPLOYMENT)
    k("expose", "deployment", "web", "--port=80", "--target-port=http")
    k("create", "service", "clusterip", "headless", "--clusterip=None", "--tcp=80:8080")
    k("create", "service", "externalname", "out", "--external-name=example.com")
    k("create", "service", "nodeport", "np", "--tcp=80:8080", "--node-port=30123")
    k("create", "service", "loadbalancer", "lb", "--tcp=80:8080", "--tcp=81:8081")
    k("rollout", "status", "deployment", "web", "--timeout=90s")

    wide = k("get", "svc", "-o", "wide")
    lines = {line.split()[0]: line for line in wide.splitlines()}
    assert re.split(r"\s{2,}", lines["NAME"].strip()) == [
        "NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE", "SELECTOR"
    ]  # fmt: skip
    assert re.search(r"^web +ClusterIP +10\.43\.\d+\.\d+ +<none> +80/TCP .*app=web$", lines["web"])
    assert re.search(r"^headless +ClusterIP +None +<none> +80/TCP", lines["headless"])
    assert re.search(r"^out +ExternalName +<none> +example.com +<none>", lines["out"])
    assert re.search(r"^np +NodePort +10\.43\.\S+ +<none> +80:30123/TCP", lines["np"])
    own = DataDir(cluster.data_dir).address
    block = own.rsplit(".", 1)[0]

    def balancer() -> str:
        return k("get", "svc", "lb", "-o", "jsonpath={.status.loadBalancer.ingress[0].ip}")

    ip = cluster.until("the load balancer has an address", balancer)
    assert ip.startswith(f"{block}.")
    shown = k("get", "svc", "lb")
    assert re.search(rf"lb +LoadBalancer +10\.43\.\S+ +{ip} +80:3\d+/TCP,81:3\d+/TCP", shown)

    def addresses() -> list[str]:
        listed = k("get", "endpointslices", "-l", "kubernetes.io/service-name=web", "--no-headers")
        (line,) = listed.splitlines()
        found: list[str] = re.split(r" +", line)
        return found if found[3].count(",") == 1 else []

    name, kind, ports, found, _age = cluster.until("both pods are endpoints", addresses)[:5]
    assert name.startswith("web-") and (kind, ports) == ("IPv4", "8080")
    pods = set(k("get", "pods", "-o", "jsonpath={.items[*].status.podIP}").split())
    assert set(found.split(",")) == pods

    described = k("describe", "svc", "web")
    for line in (
        r"Selector: +app=web", r"Type: +ClusterIP", r"IP Family Policy: +SingleStack",
        r"IP Families: +IPv4", r"Port: +<unset> +80/TCP", r"TargetPort: +http/TCP",
        r"Session Affinity: +None", r"Internal Traffic Policy: +Cluster",
    ):  # fmt: skip
        assert re.search(line, described), described
    assert all(f"{p}:8080" in described for p in pods)
    described = cluster.until(
        "events of the load balancer",
        lambda: t if "EnsuredLoadBalancer" in (t := k("describe", "svc", "lb")) else "",
    )
    assert f"LoadBalancer Ingress:     {ip} (Proxy)" in described
    assert "Ensuring load balancer" in described

    refused = k(
        "create", "service", "nodeport", "np2", "--tcp=80", "--node-port=30123", check=False
    )
    why = "spec.ports[0].nodePort: Invalid value: 30123: provided port is already allocated"
    assert why in refused
    shown = k("get", "servicecidr,ipaddress")
    assert re.search(r"servicecidr.networking.k8s.io/kubernetes +10.43.0.0/16", shown)
    assert re.search(r"ipaddress.networking.k8s.io/10.43.0.1 +services/default/kubernetes", shown)
    assert f"services/{ns}/web" in shown
    k("create", "ingress", "in", "--class=c", "--rule=a.b/x*=web:80,tls=s")
    assert re.search(r"^in +c +a.b +80, 443 ", k("get", "ingress", "--no-headers"))
    assert "web:80" in k("describe", "ingress", "in")
    k("delete", "svc", "web", "lb")
    assert f"services/{ns}/web" not in k("get", "ipaddress")
    gone = lambda: k("get", "endpointslices", "-l", "kubernetes.io/service-name=web",  # noqa: E731
                     "-o", "name") == ""  # fmt: skip
    cluster.until("the slices went with their service", gone)
