"""Cluster DNS, asked by real resolvers in pods of both nodes: busybox' nslookup and, for curl,
glibc."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
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


_SERVER = r"""use Socket; socket(my $s, PF_INET, SOCK_DGRAM, 17);
bind($s, pack_sockaddr_in(53, INADDR_ANY)) or die; $| = 1; print "ready\n";
while (my $from = recv($s, my $q, 512, 0)) {
    my ($name) = substr($q, 12) =~ /^((?:[^\0]+)\0....)/s or next;
    my $a = unpack('n', substr($name, -4, 2)) == 1;
    my $r = substr($q, 0, 2) . pack('n5', 0x8180, 1, $a, 0, 0) . $name;
    $r .= pack('nnnNn', 0xc00c, 1, 1, 9, 4) . inet_aton('192.0.2.53') if $a;
    send($s, $r, 0, $from);
}"""


def test_every_policy_of_a_pod_and_names_of_others(ns: Cluster) -> None:
    """What each pod's resolver is told, and that it works so: a stand-in answers other names."""
    pod = _pod("server", 1)
    pod["spec"]["containers"][0].update(image="traefik/whoami", command=["perl", "-e", _SERVER])
    own = {
        "nameservers": ["10.43.0.10"],
        "searches": [D],
        "options": [{"name": "ndots", "value": "1"}],
    }
    much = {
        "searches": [f"svc{i}.example" for i in range(32)],
        "nameservers": [f"192.0.2.{i}" for i in range(3)],
    }
    shapes: dict[str, Any] = {
        "none": {"dnsPolicy": "None", "dnsConfig": own},
        "default": {"dnsPolicy": "Default"},
        "host": {"hostNetwork": True},
        "host-first": {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"},
        "more": {"dnsConfig": much},
    }
    _apply(ns, pod, *(_pod(name, 2, **spec) for name, spec in shapes.items()))
    names = ["pod/server", *(f"pod/{n}" for n in shapes)]
    ns.kubectl("wait", "-n", NS, *names, "--for=condition=Ready", "--timeout=120s")
    host = Path("/etc/resolv.conf").read_text()
    told = {n: run(ns, n, "cat", "/etc/resolv.conf") for n in ("a", *shapes)}
    search = f"search {NS}.svc.cluster.local svc.cluster.local cluster.local"
    assert told["none"] == f"search {D}\nnameserver 10.43.0.10\noptions ndots:1\n"
    for name in ("a", "host-first", "more"):
        assert told[name].startswith(search) and "nameserver 10.43.0.10\n" in told[name]
        assert "options ndots:5" in told[name]
    servers = re.findall(r"^nameserver (\S+)", host, re.M)[:3]
    for name in ("default", "host"):
        assert re.findall(r"^nameserver (\S+)", told[name], re.M) == servers
    assert told["more"].count("nameserver") == 3 and len(told["more"].split("\n")[0].split()) == 33
    seen = ns.get("events", "-n", NS, "--field-selector", "reason=DNSConfigForming")["items"]
    assert {e["involvedObject"]["name"] for e in seen} == {"more"} and len(seen) == 2
    # Names of the cluster: from the pod's own network, and from the node's.
    for name in ("none", "host-first"):
        ns.until(name, lambda n=name: "nginx" in run(ns, n, "curl", "-sm5", "http://web/"))
    # Names of others: a stub domain at once, then everything.
    ip = ns.get("pod", "-n", NS, "server")["status"]["podIP"]
    other = {"stubDomains": json.dumps({"acme.local": [ip]})}
    meta = {"name": "kube-dns", "namespace": "kube-system"}
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": other}
    try:
        ns.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(config))
        ns.until("a stub domain", lambda: nslookup(ns, "a", "www.acme.local")[0] == ["192.0.2.53"])
        assert "REFUSED" in nslookup(ns, "a", "www.example.com")[1]
        other["upstreamNameservers"] = json.dumps([ip])
        ns.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(config))
        ns.until("all", lambda: nslookup(ns, "b", "www.example.com")[0] == ["192.0.2.53"])
        assert nslookup(ns, "b", "kubernetes.default.svc.cluster.local")[0] == ["10.43.0.1"]
    finally:
        ns.kubectl("delete", "configmap", "-n", "kube-system", "kube-dns", check=False)
