"""Cluster DNS, asked by real resolvers in pods of both nodes: busybox' nslookup and, for curl,
glibc."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from sampan.testing.e2e import Cluster

NS = "names"
D = f"{NS}.svc.cluster.local"


def _pod(name: str, node: int, **spec: Any) -> dict[str, Any]:
    container = {
        "name": "c", "image": "praqma/network-multitool", "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", "sleep 100000"],
    }  # fmt: skip
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"nodeName": f"e2e-{node}", "terminationGracePeriodSeconds": 0,
                 "containers": [container], **spec},
    }  # fmt: skip


def _web(name: str) -> dict[str, Any]:
    body = _pod(name, 2, hostname="one", subdomain="web", setHostnameAsFQDN=True)
    container = body["spec"]["containers"][0]
    del container["command"]
    container["image"] = "nginx:1.16.1"
    container["ports"] = [{"name": "http", "containerPort": 80}]
    body["metadata"]["labels"] = {"app": "web"}
    return body


def _service(name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def _slice(of: str, *endpoints: dict[str, Any], number: int = 80) -> dict[str, Any]:
    meta = {"name": f"{of}-own", "labels": {"kubernetes.io/service-name": of}}
    return {
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": meta,
        "addressType": "IPv4", "endpoints": [*endpoints],
        "ports": [{"name": "http", "port": number, "protocol": "TCP"}],
    }  # fmt: skip


def _apply(cluster: Cluster, *bodies: dict[str, Any]) -> None:
    cluster.kubectl("apply", "-n", NS, "-f", "-", stdin=yaml.safe_dump_all(bodies))


@pytest.fixture(scope="module")
def ns(cluster: Cluster) -> Iterator[Cluster]:
    """Two clients, one of which asks by TCP, a web server behind a headless service, and services
    whose slices are the user's own."""
    cluster.kubectl("create", "ns", NS)
    http = {"name": "http", "port": 80}
    _apply(
        cluster, _pod("a", 1), _pod("b", 2, dnsConfig={"options": [{"name": "use-vc"}]}),
        _web("web-0"), _service("web", clusterIP="None", selector={"app": "web"}, ports=[http]),
        _service("many", clusterIP="None", ports=[http]),
        _service("api", type="ExternalName", externalName="kubernetes.default.svc.cluster.local"),
        _service("away", type="ExternalName", externalName="www.example.com"),
        _slice("many", *({"addresses": [f"10.42.9.{i}"]} for i in range(1, 120))),
    )  # fmt: skip
    cluster.kubectl("wait", "-n", NS, "pod", "--all", "--for=condition=Ready", "--timeout=120s")
    yield cluster
    cluster.kubectl("delete", "ns", NS, "--timeout=60s")


def run(ns: Cluster, pod: str, *command: str) -> str:
    return ns.kubectl("exec", "-n", NS, pod, "--", *command, check=False)


def nslookup(ns: Cluster, pod: str, name: str, kind: str = "a") -> tuple[list[str], str]:
    """(what busybox' nslookup found, all it printed)."""
    said = run(ns, pod, "nslookup", f"-type={kind}", name)
    answer = said.partition("\n\n")[2]
    found = re.findall(r"(?:Address: |canonical name = |name = |service = )(.+)", answer)
    return sorted(x.strip() for x in found), said


@pytest.mark.parametrize("pod", ["a", "b"])
def test_names_from_both_nodes(ns: Cluster, pod: str) -> None:
    ip = ns.get("pod", "-n", NS, "web-0")["status"]["podIP"]
    until = ns.until("the web server has its name", lambda: nslookup(ns, pod, f"web.{D}")[0])
    assert until == [ip]
    for name, kind, wanted in (
        (f"one.web.{D}", "a", [ip]),
        (f"ONE.web.{D}", "a", [ip]),
        ("kubernetes.default.svc.cluster.local", "a", ["10.43.0.1"]),
        ("kube-dns.kube-system.svc.cluster.local", "a", ["10.43.0.10"]),
        ("10.0.43.10.in-addr.arpa", "ptr", ["kube-dns.kube-system.svc.cluster.local"]),
        (".".join(reversed(ip.split("."))) + ".in-addr.arpa", "ptr", [f"one.web.{D}"]),
        (f"_http._tcp.web.{D}", "srv", [f"0 100 80 one.web.{D}"]),
        (f"{ip.replace('.', '-')}.{NS}.pod.cluster.local", "a", [ip]),
        (f"away.{D}", "cname", ["www.example.com"]),
    ):  # fmt: skip
        found, said = nslookup(ns, pod, name, kind)
        assert found == wanted, said
    _, said = nslookup(ns, pod, f"absent.{D}")
    assert "NXDOMAIN" in said
    found, said = nslookup(ns, pod, f"web.{D}", "aaaa")
    assert found == [] and "NXDOMAIN" not in said


@pytest.mark.parametrize("pod", ["a", "b"])
def test_curl_by_name(ns: Cluster, pod: str) -> None:
    """Through the search path, by UDP from a and by TCP from b."""
    for name in ("web", f"web.{NS}", f"one.web.{NS}.svc", f"one.web.{D}."):
        said = ns.until(name, lambda n=name: run(ns, pod, "curl", "-sm5", f"http://{n}/"))
        assert "Welcome to nginx" in said, said
    for name in ("kubernetes.default", "api"):
        assert '"gitVersion"' in run(ns, pod, "curl", "-skm5", f"https://{name}/version")


def test_an_answer_too_large_for_udp(ns: Cluster) -> None:
    """glibc sees TC and comes again by TCP."""
    said = run(ns, "a", "curl", "-svm1", "--connect-timeout", "1", "http://many/")
    assert len(set(re.findall(r"Trying (10\.42\.9\.\d+)", said))) >= 1, said


def test_names_of_others_fail_at_once(ns: Cluster) -> None:
    began = time.monotonic()
    said = run(ns, "a", "curl", "-sm20", "-w", "%{errormsg}", "http://www.example.com/")
    assert "Could not resolve host" in said, said
    assert time.monotonic() - began < 5


def test_what_a_pod_calls_itself(ns: Cluster) -> None:
    ip = ns.get("pod", "-n", NS, "web-0")["status"]["podIP"]
    assert run(ns, "web-0", "hostname").strip() == f"one.web.{D}"
    assert f"{ip}\tone.web.{D}\tone\n" in run(ns, "web-0", "cat", "/etc/hosts")


def test_a_change_is_answered(ns: Cluster) -> None:
    """Who takes an endpoint away is believed, by kubectl's return at the latest a moment later."""
    _apply(ns, _service("moving", clusterIP="None"), _slice("moving", {"addresses": ["10.42.9.1"]}))
    for last in (2, 3):
        _apply(ns, _slice("moving", {"addresses": [f"10.42.9.{last}"]}))
        assert nslookup(ns, "b", f"moving.{D}")[0] == [f"10.42.9.{last}"]
    ns.kubectl("delete", "service", "-n", NS, "moving")
    assert "NXDOMAIN" in nslookup(ns, "a", f"moving.{D}")[1]


def test_tools_find_the_service(ns: Cluster) -> None:
    found = ns.get("services", "-n", "kube-system", "-l", "k8s-app=kube-dns")["items"]
    assert [(s["metadata"]["name"], s["spec"]["clusterIP"]) for s in found] == [
        ("kube-dns", "10.43.0.10")
    ]
    assert [(p["name"], p["port"], p["protocol"]) for p in found[0]["spec"]["ports"]] == [
        ("dns", 53, "UDP"), ("dns-tcp", 53, "TCP"),
    ]  # fmt: skip
