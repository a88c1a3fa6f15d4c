"""Services with real containers on two nodes: from pods, from nodes, from the host."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from sampan.lib.datadir import DataDir
from sampan.testing.e2e import Cluster

NS = "services"
_UDP = r"""use Socket; $| = 1; socket(my $s, PF_INET, SOCK_DGRAM, 17); my $n = $ENV{HOSTNAME};
bind($s, pack_sockaddr_in(5353, INADDR_ANY)) or die; print "udp\n";
while (my $from = recv($s, my $data, 1500, 0)) { send($s, "$n $data", 0, $from) }"""


def pod(name: str, node: str, *, serves: bool = True, **container: Any) -> dict[str, Any]:
    who = {"name": "who", "image": "traefik/whoami", **container}
    udp = {"name": "udp", "image": "traefik/whoami", "command": ["perl", "-e", _UDP],
           "env": [{"name": "HOSTNAME", "value": name}]}  # fmt: skip
    tool = {"name": "tool", "image": "praqma/network-multitool", "command": ["sleep", "86400"]}
    containers = [tool, *([who, udp] if serves else [])]
    for c in containers:
        c["imagePullPolicy"] = "IfNotPresent"
    spec = {"nodeName": node, "terminationGracePeriodSeconds": 1, "containers": containers}
    meta = {"name": name, "namespace": NS}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


def service(name: str, **spec: Any) -> dict[str, Any]:
    ports = [{"name": "web", "port": 80}, {"name": "echo", "port": 53, "protocol": "UDP"}]
    meta = {"name": name, "namespace": NS}
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta,
            "spec": {"ports": ports, **spec}}  # fmt: skip


class Site:
    """A cluster with a pod that serves on each node, one more to ask from, and what to ask."""

    def __init__(self, cluster: Cluster, prefix: str) -> None:
        self.cluster = cluster
        self.nodes = [f"{prefix}-1", f"{prefix}-2"]
        self.address = DataDir(cluster.data_dir).address
        cluster.kubectl("create", "ns", NS)
        first = pod("a", self.nodes[0], ports=[{"containerPort": 80, "hostPort": 8088}])
        self.apply(first, pod("b", self.nodes[1]), pod("ask", self.nodes[0], serves=False))
        names = ("pod/a", "pod/b", "pod/ask")
        cluster.kubectl("wait", "-n", NS, *names, "--for=condition=Ready", "--timeout=60s")
        self.ips = {n: cluster.get("pod", "-n", NS, n)["status"]["podIP"] for n in "ab"}
        state = json.loads(cluster.sampan("status", "-o", "json"))
        self.pids = {n["name"]: n["pid"] for n in state["nodes"]}
        self.addresses = {n["name"]: n["address"] for n in state["nodes"]}

    def apply(self, *objects: dict[str, Any]) -> None:
        self.cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(objects))

    def serve(self, name: str, *pods: str, **spec: Any) -> dict[str, Any]:
        """A Service with *pods* behind it; its spec."""
        self.apply(service(name, **spec), self.slice(name, *pods))
        made: dict[str, Any] = self.cluster.get("svc", "-n", NS, name)["spec"]
        return made

    def slice(self, name: str, *pods: str) -> dict[str, Any]:
        """With conditions as in the pods' names: ``a``, or ``a!`` for one that is on its way out"""
        found = []
        for one in pods:
            ends = one.endswith("!")
            node = self.nodes["ab".index(one[0])]
            found.append({"addresses": [self.ips[one[0]]], "nodeName": node, "conditions": {
                "ready": not ends, "serving": True, "terminating": ends}})  # fmt: skip
        return {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": {"name": f"{name}-mine", "namespace": NS,
                             "labels": {"kubernetes.io/service-name": name}},
                "addressType": "IPv4", "endpoints": found,
                "ports": [{"name": "web", "port": 80},
                          {"name": "echo", "port": 5353, "protocol": "UDP"}]}  # fmt: skip

    def sh(self, where: str, script: str) -> list[str]:
        """Lines *script* prints in the pod, the node or (``host``) on this host."""
        if where == "host":
            command = ["sh", "-c", script]
        elif where in self.nodes:
            pid = self.pids[where]
            command = ["nsenter", f"--net=/proc/{pid}/ns/net", "bash", "-c", script]
        else:
            command = self.cluster.kubectl_command(
                "exec", "-n", NS, where, "-c", "tool", "--", "bash", "-c", script
            )
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=120, env=self.cluster.env
        )
        return done.stdout.split("\n")[:-1]

    def web(self, where: str, target: str, times: int = 1) -> dict[str, set[str]]:
        """Who answered, and which clients each of them saw; '' for no answer."""
        fetch = f"curl -s -m 5 http://{target}/ | sed -n 's/^Hostname: //p; s/^RemoteAddr: //p'"
        script = f"for i in $(seq {times}); do r=$({fetch}); echo ${{r:-none}}; done"
        seen: dict[str, set[str]] = {}
        for line in self.sh(where, script.replace("${r:-none}", "$r none")):
            words = line.split()
            name, client = ("", "") if words[0] == "none" else (words[0], words[1])
            seen.setdefault(name, set()).add(client.rpartition(":")[0])
        return seen

    def udp(self, where: str, target: str, times: int = 1) -> set[str]:
        host, port = target.split(":")  # (bash reads the first byte of a datagram only)
        read = "read -r -N 1 -t 5 -u 3 line; echo $line"
        one = f"exec 3<>/dev/udp/{host}/{port}; echo hi >&3; {read}"
        return {*self.sh(where, f"for i in $(seq {times}); do {one}; done")}

    def wait(self, where: str, target: str, names: set[str]) -> None:
        """Until just *names* answer. (The rules follow within milliseconds, not at once.)"""
        self.cluster.until(
            f"{target} is answered by {names}", lambda: {*self.web(where, target, 4)} == names
        )


@pytest.fixture(scope="module")
def site(cluster: Cluster) -> Iterator[Site]:
    yield Site(cluster, "e2e")
    cluster.kubectl("delete", "ns", NS, "--timeout=60s")


def test_cluster_ip_from_pods_and_nodes(site: Site) -> None:
    ip = site.serve("plain", "a", "b")["clusterIP"]
    site.wait("ask", ip, {"a", "b"})
    for where in ("a", "b", *site.nodes):
        assert {*site.web(where, ip, 16)} == {"a", "b"}
        assert site.udp(where, f"{ip}:53", 16) == {"a", "b"}
    # Clients are seen as who they are, but for a pod that meets itself.
    assert site.web("a", ip, 16) == {
        "a": {site.addresses[site.nodes[0]]}, "b": {site.ips["a"]}
    }  # fmt: skip


def test_without_endpoints_a_client_is_refused_at_once(site: Site) -> None:
    spec = site.serve("empty", type="NodePort")
    targets = [f"{spec['clusterIP']}:80", f"{spec['clusterIP']}:81", "10.43.255.254:80"]
    targets.append(f"{site.addresses[site.nodes[1]]}:{spec['ports'][0]['nodePort']}")
    for where in ("ask", site.nodes[0]):
        for target in targets:
            fetch = f"curl -s -m 5 -o /dev/null -w '%{{time_total}}' http://{target}/"
            code, seconds = site.sh(where, f"t=$({fetch}); echo $?; echo $t")
            assert (code, float(seconds) < 1) == ("7", True), (where, target, seconds)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((site.address, spec["ports"][0]["nodePort"]), 5)


def test_endpoints_that_end_serve_while_there_is_no_other(site: Site) -> None:
    ip = site.serve("ending", "a!", "b")["clusterIP"]
    site.wait("ask", ip, {"b"})
    site.apply(site.slice("ending", "a!", "b!"))
    site.wait("ask", ip, {"a", "b"})
    site.apply(site.slice("ending", "b!"))
    site.wait("ask", ip, {"b"})


def test_affinity(site: Site) -> None:
    client = {"clientIP": {"timeoutSeconds": 60}}
    ip = site.serve("sticky", "a", "b", sessionAffinity="ClientIP",
                    sessionAffinityConfig=client)["clusterIP"]  # fmt: skip
    site.cluster.until("it answers", lambda: "" not in site.web("ask", ip))
    (had,) = site.web("ask", ip, 12)
    (other,) = {"a", "b"} - {had}
    site.apply(site.slice("sticky", other))
    site.wait("ask", ip, {other})
    site.apply(site.slice("sticky", "a", "b"))
    time.sleep(0.3)  # it may come back, but this client stays where it went
    assert {*site.web("ask", ip, 12)} == {other}


def test_node_ports(site: Site) -> None:
    spec = site.serve("ports", "a", "b", type="NodePort")
    port, udp_port = (p["nodePort"] for p in spec["ports"])
    first, second = (site.addresses[n] for n in site.nodes)
    site.wait("ask", f"{second}:{port}", {"a", "b"})
    for where in ("ask", "b", *site.nodes):
        assert {*site.web(where, f"{first}:{port}", 12)} == {"a", "b"}
    assert site.udp("b", f"{first}:{udp_port}", 12) == {"a", "b"}
    # From the host, at the cluster's own address.
    assert {*site.web("host", f"{site.address}:{port}", 12)} == {"a", "b"}
    answers = set()
    for _ in range(12):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(5)
            sock.connect((site.address, udp_port))
            sock.send(b"hi")
            answers.add(sock.recv(100).decode())
    assert answers == {"a hi", "b hi"}
    # A pod's own port of its node.
    assert {*site.web("b", f"{first}:8088", 2)} == {"a"}


def test_external_policy_local(site: Site) -> None:
    spec = site.serve("local", "b", type="LoadBalancer", externalTrafficPolicy="Local",
                      loadBalancerClass="example.com/test")  # fmt: skip
    port, (first, second) = spec["ports"][0]["nodePort"], (site.addresses[n] for n in site.nodes)
    site.wait("ask", f"{second}:{port}", {"b"})
    # Who comes from outside of the node that serves is seen as who it is.
    assert site.web(site.nodes[0], f"{second}:{port}", 3) == {"b": {first}}
    # Pods are inside everywhere, others reach nothing where no endpoint is.
    assert {*site.web("ask", f"{first}:{port}", 3)} == {"b"}
    assert {*site.web("host", f"{site.address}:{port}", 3)} == {"b"}
    health = spec["healthCheckNodePort"]
    told = []
    for address in (first, second):
        ask = f"curl -s -m 5 -w '%{{http_code}}' http://{address}:{health}/"
        told.append("\n".join(site.sh(site.nodes[0], ask + "; echo")))
    assert [t.rpartition("}")[2].strip() for t in told] == ["503", "200"]
    assert json.loads(told[1].removesuffix("200")) == {
        "service": {"namespace": NS, "name": "local"}, "localEndpoints": 1,
        "serviceProxyHealthy": True,
    }  # fmt: skip


def test_a_load_balancer_from_the_host(site: Site) -> None:
    """A port that is taken is told and had when it is free; source ranges are kept."""
    at = site.address.rpartition(".")[0] + ".254"
    ports = [{"name": "web", "port": 8080}]
    holder = socket.socket()
    holder.bind((at, 8080))
    holder.listen()
    site.serve("balanced", "a", "b", type="LoadBalancer", ports=ports,
               loadBalancerClass="example.com/test")  # fmt: skip
    ingress = {"status": {"loadBalancer": {"ingress": [{"ip": at, "ipMode": "Proxy"}]}}}
    site.cluster.kubectl(
        "patch", "svc", "-n", NS, "balanced", "--subresource=status", "-p", json.dumps(ingress)
    )

    def told() -> bool:
        found = site.cluster.get("events", "-n", NS)["items"]
        return any(e["reason"] == "FailedToListen" and f"{at}:8080" in e["message"] for e in found)

    site.cluster.until("the event", told)
    holder.close()
    site.wait("host", f"{at}:8080", {"a", "b"})
    spec = {"spec": {"loadBalancerSourceRanges": ["192.0.2.0/24"]}}
    site.cluster.kubectl("patch", "svc", "-n", NS, "balanced", "-p", json.dumps(spec))
    site.wait("host", f"{at}:8080", {""})
    site.cluster.kubectl("delete", "svc", "-n", NS, "balanced")

    def refused() -> bool:
        try:
            socket.create_connection((at, 8080), 5).close()
        except ConnectionRefusedError:
            return True
        return False

    site.cluster.until("nobody listens", refused)
