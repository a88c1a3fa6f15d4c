"""Clusters of both families and of IPv6 alone: their own, of two nodes, driven by the real kubectl.

Bounded, and purged also where a test fails. What rules and names do is tried without containers in
``tests/network/test_dual_stack.py``; here it is what containers, kubectl and the host see.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sampan.lib.addressing import Plan, plan
from sampan.lib.datadir import DataDir
from sampan.node import protocols
from sampan.testing.e2e import Cluster, alive, host_state, kubectl_path, sampan

_QUIET = {"imagePullPolicy": "IfNotPresent"}
_PROBES = {
    "readinessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1},
    "livenessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 1},
}


def _field(name: str, path: str) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


WEB: dict[str, Any] = {
    "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
    "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": {
        "metadata": {"labels": {"app": "web"}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "topologySpreadConstraints": [{
                "maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": {"matchLabels": {"app": "web"}}}],
            "containers": [{
                "name": "c", "image": "nginx:1.16.1", **_QUIET, **_PROBES,
                "ports": [{"name": "http", "containerPort": 80, "hostPort": 8088}]}],
        }}},
}  # fmt: skip
ASK: dict[str, Any] = {
    "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ask"},
    "spec": {"terminationGracePeriodSeconds": 0, "containers": [{
        "name": "c", "image": "praqma/network-multitool", **_QUIET, "command": ["sleep", "86400"],
        "ports": [{"containerPort": 9, "protocol": "SCTP"}],
        "env": [_field("POD_IPS", "status.podIPs"), _field("HOST_IPS", "status.hostIPs")]}]},
}  # fmt: skip


def _service(name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {
        "selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
        **spec}}  # fmt: skip


class Site:
    """A cluster, and a pod to ask from."""

    def __init__(self, cluster: Cluster, addresses: Plan) -> None:
        self.cluster, self.plan = cluster, addresses
        self.host = DataDir(cluster.data_dir).address
        self.is_dual = len(addresses.of) == 2

    def sh(self, script: str) -> list[str]:
        return self.cluster.kubectl("exec", "ask", "--", "bash", "-c", script).splitlines()

    def codes(self, *urls: str, patience: int = 5) -> list[str]:
        """What an HTTP GET of each says; 000 for no answer in *patience* seconds."""
        one = f"curl -k -s -m {patience} -o /dev/null -w '%{{http_code}}\\n'"
        return self.sh("".join(f"{one} '{url}' || true\n" for url in urls))

    def spec(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.cluster.get("svc", name)["spec"]
        return found


@pytest.fixture(scope="module", params=["ipv4,ipv6", "ipv6"])
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, stand_ins: Path
) -> Iterator[Site]:
    root = tmp_path_factory.mktemp("families")
    before = host_state(DataDir(root / "data").node_root)
    made = Cluster(root / "data", root / "kubeconfig", kubectl_path())
    pids: list[int] = []
    try:
        sampan(
            "up", "--name", "fam", "--data-dir", str(made.data_dir), "--nodes", "2", "--port", "0",
            "--no-uplink", "--kubeconfig", str(made.kubeconfig), "--ip-families", request.param,
        )  # fmt: skip
        pids = json.loads(made.sampan("status", "-o", "json"))["pids"]
        made.sampan("image", "load", str(stand_ins))
        bodies = [
            WEB, ASK, _service("six", ipFamilies=["IPv6"], type="LoadBalancer"),
            _service("any", ipFamilyPolicy="PreferDualStack", type="NodePort"),
            _service("heads", ipFamilyPolicy="PreferDualStack", clusterIP="None"),
        ]  # fmt: skip
        made.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(bodies))
        made.kubectl("rollout", "status", "deploy/web", "--timeout=120s")
        made.kubectl("wait", "pod/ask", "--for=condition=Ready", "--timeout=120s")
        yield Site(made, plan(request.param))
    finally:
        sampan("down", "--purge", "--data-dir", str(made.data_dir))
    after = host_state(DataDir(root / "data").node_root)
    assert {k: after[k] - before[k] for k in after if after[k] - before[k]} == {}
    assert [p for p in pids if alive(p)] == []


def test_nodes_and_pods_tell_their_addresses(site: Site) -> None:
    nodes = sorted(site.cluster.get("nodes")["items"], key=lambda n: n["metadata"]["name"])
    for index, node in enumerate(nodes, 1):
        addresses = [a["address"] for a in node["status"]["addresses"] if a["type"] == "InternalIP"]
        assert addresses == [*site.plan.node(index)]
        assert node["spec"]["podCIDRs"] == [*site.plan.pods_of(index)]
        assert node["spec"]["podCIDR"] == site.plan.pods_of(index)[0]
    pod = site.cluster.get("pod", "ask")["status"]
    ips, hosts = [[i["ip"] for i in pod[f]] for f in ("podIPs", "hostIPs")]
    assert (pod["podIP"], pod["hostIP"]) == (ips[0], hosts[0])
    assert [":" in ip for ip in ips] == [":" in ip for ip in hosts]
    assert [":" in ip for ip in ips] == [f == "IPv6" for f in site.plan.families]
    assert site.sh("echo $POD_IPS; echo $HOST_IPS") == [",".join(ips), ",".join(hosts)]
    lines = [line.split() for line in site.sh("cat /etc/hosts")]
    assert [line[0] for line in lines if line[1:] == ["ask"]] == ips
    servers = [line.split()[1] for line in site.sh("grep ^nameserver /etc/resolv.conf")]
    assert servers == [a.dns for a in site.plan.of]
    on_the_link = site.sh("ip -o addr show dev eth0 scope global")
    assert sorted(line.split()[3].split("/")[0] for line in on_the_link) == sorted(ips)


def test_services_by_name_and_address(site: Site) -> None:
    assert {*site.codes("http://any/", "http://six/", "http://heads/")} == {"200"}
    spec = site.spec("any")
    assert len(spec["clusterIPs"]) == len(site.plan.of) == len(spec["ipFamilies"])
    shown = [f"[{ip}]" if ":" in ip else ip for ip in spec["clusterIPs"]]
    node_ips = [ip for i in (1, 2) for ip in site.plan.node(i)]
    shown_nodes = [f"[{ip}]" if ":" in ip else ip for ip in node_ips]
    port = spec["ports"][0]["nodePort"]
    urls = [f"http://{ip}/" for ip in shown]
    urls += [f"http://{ip}:{p}/" for ip in shown_nodes for p in (port, 8088)]
    assert site.codes(*urls) == ["200"] * len(urls)
    # A port that is not the Service's is refused at once.
    assert site.sh(f"curl -s -m 5 http://{shown[-1]}:81/ || echo $?") == ["7"]
    # The API, by the name and by the address that its certificate has.
    account = "/var/run/secrets/kubernetes.io/serviceaccount"
    host = "[$KUBERNETES_SERVICE_HOST]" if site.plan.families == ("IPv6",) else (
        "$KUBERNETES_SERVICE_HOST")  # fmt: skip
    for url in ("https://kubernetes.default.svc/healthz", f"https://{host}/healthz"):
        assert site.sh(f'curl -s -m 5 --cacert {account}/ca.crt "{url}"') == ["ok"]
    found = site.cluster.get("endpointslices", "-l", "kubernetes.io/service-name=any")["items"]
    assert sorted(s["addressType"] for s in found) == sorted(site.plan.families)
    answer = "\n".join(site.sh(f"nslookup {site.spec('six')['clusterIP']}"))
    assert "six.default.svc.cluster.local" in answer


def test_from_the_host_and_by_the_api(site: Site) -> None:
    """The ways in are at the cluster's own address of IPv4; the endpoints may be of IPv6."""
    cluster = site.cluster
    port = site.spec("any")["ports"][0]["nodePort"]
    ingress = cluster.until(
        "an address for the load balancer",
        lambda: cluster.get("svc", "six")["status"]["loadBalancer"].get("ingress"),
    )
    assert ingress[0]["ip"] == site.host and ingress[0]["ipMode"] == "Proxy"
    for url in (f"http://{site.host}/", f"http://{site.host}:{port}/"):
        cluster.until(f"an answer of {url}", lambda u=url: _code(u) == "200")
    pod = cluster.get("pods", "-l", "app=web")["items"][0]["metadata"]["name"]
    for path in ("services/six:http", "services/any:http", f"pods/{pod}:80"):
        raw = cluster.kubectl("get", "--raw", f"/api/v1/namespaces/default/{path}/proxy/")
        assert "nginx" in raw
    forward = subprocess.Popen(
        cluster.kubectl_command("port-forward", f"pod/{pod}", ":80"), stdout=subprocess.PIPE,
        text=True, env=cluster.env,
    )  # fmt: skip
    try:
        assert forward.stdout is not None
        local = forward.stdout.readline().split(" -> ")[0].rsplit(":", 1)[1]
        assert _code(f"http://127.0.0.1:{local}/") == "200"
    finally:
        forward.terminate()
        forward.wait()


def _code(url: str) -> str:
    done = subprocess.run(
        ["curl", "-s", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", url],
        capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout


def test_what_the_cluster_does_not_have_is_refused(site: Site) -> None:
    def wrong(**spec: Any) -> str:
        body = yaml.safe_dump(_service("wrong", **spec))
        return site.cluster.kubectl("create", "--dry-run=server", "-f", "-", stdin=body,
                                    check=False)  # fmt: skip

    if site.is_dual:
        assert "created" in wrong(ipFamilyPolicy="RequireDualStack")
        swapped = wrong(ipFamilyPolicy="PreferDualStack", ipFamilies=["IPv6", "IPv4"])
        assert "created" in swapped
    else:
        assert "this cluster is not configured for dual-stack services" in wrong(
            ipFamilyPolicy="RequireDualStack"
        )
        assert 'spec.ipFamilies[0]: Invalid value: "IPv4": not configured on this cluster' in wrong(
            ipFamilies=["IPv4"]
        )
    done = sampan("up", "--data-dir", str(site.cluster.data_dir), "--ip-families", "ipv4",
                  check=False)  # fmt: skip
    assert done.returncode != 0 and "and keeps them" in done.stderr


def test_a_policy_of_ipv6(site: Site) -> None:
    cluster = site.cluster
    own = cluster.get("pod", "ask")["status"]["podIPs"][-1]["ip"]
    policy = {
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "all-but-ask"},
        "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"from": [
            {"ipBlock": {"cidr": "::/0", "except": [f"{own}/128"]}}]}]},
    }  # fmt: skip
    cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(policy))
    url = f"http://[{site.spec('six')['clusterIP']}]/"
    cluster.until("ask is kept out", lambda: site.codes(url, patience=1) == ["000"])
    cluster.kubectl("delete", "networkpolicy", "all-but-ask")
    cluster.until("ask is let in", lambda: site.codes(url) == ["200"])
    # Probes come from the node, which no policy keeps out: nothing was restarted meanwhile.
    pods = cluster.get("pods", "-l", "app=web")["items"]
    assert [p["status"]["containerStatuses"][0]["restartCount"] for p in pods] == [0, 0]


def test_a_kernel_without_sctp_is_told_of(site: Site) -> None:
    events = site.cluster.get("events", "--field-selector", "involvedObject.name=ask")["items"]
    told = [e["message"] for e in events if e["reason"] == protocols.REASON]
    wanted = "container c: the kernel of this node has no SCTP, nothing can listen at port 9"
    assert told == [wanted for _ in protocols.lacking()]


def test_killed_and_taken_over(site: Site) -> None:
    """The next process finds rules and addresses of both families, and what it adds fits."""
    cluster = site.cluster
    before = {p["metadata"]["name"]: p["status"]["podIPs"] for p in cluster.get("pods")["items"]}
    pid = json.loads(cluster.sampan("status", "-o", "json"))["mainPids"][0]
    subprocess.run(["kill", "-9", str(pid)], check=True)
    cluster.until("the daemon is gone", lambda: not alive(pid))
    sampan("up", "--data-dir", str(cluster.data_dir))
    cluster.kubectl("scale", "deploy/web", "--replicas=1")
    cluster.kubectl("rollout", "status", "deploy/web", "--timeout=120s")
    after = {p["metadata"]["name"]: p["status"]["podIPs"] for p in cluster.get("pods")["items"]
             if "deletionTimestamp" not in p["metadata"]}  # fmt: skip
    assert after.items() <= before.items() and "ask" in after
    # A node that comes now has its part in every family.
    cluster.sampan("node", "add")
    late = cluster.get("node", "fam-3")
    assert late["spec"]["podCIDRs"] == [*site.plan.pods_of(3)]
    ip = site.plan.node(3)[-1]
    port = site.spec("any")["ports"][0]["nodePort"]
    url = f"http://[{ip}]:{port}/"
    cluster.until("the new node's port answers", lambda: site.codes(url) == ["200"])
    names = ("any", "six", "heads")
    cluster.until("all names answer", lambda: site.codes(*(f"http://{n}/" for n in names))
                  == ["200"] * 3)  # fmt: skip
