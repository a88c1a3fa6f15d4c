"""Services with nothing by hand: a Deployment, `kubectl expose`, names, and who answers from where.

(What single fields do to the rules is in test_services.py, with slices written by the test; every
way in, from every node, in test_services_three.py.)
"""

from __future__ import annotations

import json
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from sampan.lib.datadir import DataDir
from sampan.testing.e2e import Cluster

NS = "services-real"
_UDP = r"""use Socket; my $n = $ENV{HOSTNAME}; socket(my $s, PF_INET, SOCK_DGRAM, 17);
bind($s, pack_sockaddr_in(5353, INADDR_ANY)) or die;
while (my $from = recv($s, my $data, 1500, 0)) { send($s, "$n\n", 0, $from) }"""
_QUIET = {"imagePullPolicy": "IfNotPresent"}
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
            "containers": [
                {"name": "who", "image": "traefik/whoami", **_QUIET,
                 "ports": [{"name": "http", "containerPort": 80},
                           {"name": "echo", "containerPort": 5353, "protocol": "UDP"}],
                 "readinessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1}},
                {"name": "udp", "image": "traefik/whoami", **_QUIET,
                 "command": ["perl", "-e", _UDP]},
                {"name": "c", "image": "praqma/network-multitool", **_QUIET,
                 "command": ["sleep", "86400"]}],
        }}},
}  # fmt: skip


def tool(name: str, node: str) -> dict[str, Any]:
    container = {"name": "c", "image": "praqma/network-multitool", **_QUIET,
                 "command": ["sleep", "86400"]}  # fmt: skip
    spec = {"nodeName": node, "terminationGracePeriodSeconds": 1, "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def service(name: str, **spec: Any) -> dict[str, Any]:
    ports = [{"name": "web", "port": 80, "targetPort": "http"},
             {"name": "echo", "port": 53, "protocol": "UDP", "targetPort": "echo"}]  # fmt: skip
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"selector": {"app": "web"}, "ports": ports, **spec}}  # fmt: skip


class Site:
    """Two pods of a Deployment, one on each node, and one on each node to ask from."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.address = DataDir(cluster.data_dir).address
        nodes = cluster.get("nodes")["items"]
        self.nodes = {
            n["metadata"]["name"]: next(
                a["address"] for a in n["status"]["addresses"] if a["type"] == "InternalIP"
            )
            for n in nodes
        }
        self.asking = {f"ask-{i}": node for i, node in enumerate(self.nodes)}

    def k(self, *args: str, stdin: str = "", check: bool = True) -> str:
        return self.cluster.kubectl("-n", NS, *args, stdin=stdin, check=check)

    def apply(self, *bodies: dict[str, Any]) -> None:
        self.k("apply", "-f", "-", stdin=yaml.safe_dump_all(bodies))

    def spec(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.cluster.get("svc", "-n", NS, name)
        return found

    def pods(self) -> dict[str, str]:
        """Nodes of the pods that are ready, by name."""
        listed = self.cluster.get("pods", "-n", NS, "-l", "app=web")["items"]
        return {p["metadata"]["name"]: p["spec"]["nodeName"] for p in listed
                if "deletionTimestamp" not in p["metadata"]
                and any(c["type"] == "Ready" and c["status"] == "True"
                        for c in p["status"].get("conditions", ()))}  # fmt: skip

    def sh(self, pod: str, script: str) -> list[str]:
        command = ["bash", "-c", script]
        if pod != "host":
            where = ["-n", NS, pod, "-c", "c"]
            command = self.cluster.kubectl_command("exec", *where, "--", *command)
        done = subprocess.run(command, capture_output=True, text=True, timeout=120,
                              env=self.cluster.env)  # fmt: skip
        return done.stdout.splitlines()

    def ask(self, pod: str, *targets: str, times: int = 16) -> dict[str, set[str]]:
        """Who answered at each target; '' for no answer."""
        one = "curl -s -m 5 http://$t/ | sed -n 's/^Hostname: //p'"
        script = (f"for t in {' '.join(targets)}; do for i in $(seq {times}); do "
                  f'echo "$t $({one})"; done; done')  # fmt: skip
        seen: dict[str, set[str]] = {}
        for line in self.sh(pod, script):
            target, _, name = line.partition(" ")
            seen.setdefault(target, set()).add(name)
        return seen

    def until(self, pod: str, target: str, names: set[str]) -> None:
        """Until just *names* answer."""
        self.cluster.until(f"{target} is answered by {names}, asked from {pod}",
                           lambda: self.ask(pod, target, times=6)[target] == names)  # fmt: skip


@pytest.fixture(scope="module")
def site(cluster: Cluster) -> Iterator[Site]:
    cluster.kubectl("create", "ns", NS)
    made = Site(cluster)
    made.apply(WEB, *(tool(name, node) for name, node in made.asking.items()))
    made.k("expose", "deployment", "web", "--port=80", "--target-port=http")
    made.k("expose", "deployment", "web", "--name=np", "--type=NodePort", "--port=80",
           "--target-port=http")  # fmt: skip
    made.k("expose", "deployment", "web", "--name=lb", "--type=LoadBalancer", "--port=8081",
           "--target-port=http")  # fmt: skip
    made.apply(
        service("near", internalTrafficPolicy="Local"),
        service("prefer", trafficDistribution="PreferSameNode"),
        service("sticky", sessionAffinity="ClientIP",
                sessionAffinityConfig={"clientIP": {"timeoutSeconds": 2}}),
        service("local", type="LoadBalancer", externalTrafficPolicy="Local"),
    )  # fmt: skip
    made.k("rollout", "status", "deployment/web", "--timeout=90s")
    made.k("wait", *(f"pod/{n}" for n in made.asking), "--for=condition=Ready", "--timeout=60s")
    yield made
    cluster.kubectl("delete", "ns", NS, "--timeout=60s")


def test_a_client_stays_for_as_long_as_it_was_told(site: Site) -> None:
    both = {*site.pods()}
    pod = next(iter(site.asking))
    site.until(pod, "web", both)
    (first,) = site.ask(pod, "sticky", times=12)["sticky"]

    def elsewhere() -> bool:
        time.sleep(2.2)  # longer than a client without a new connection is remembered
        return site.ask(pod, "sticky", times=1)["sticky"] == both - {first}

    site.cluster.until("it goes to the other one after a pause", elsewhere, timeout=90)


def test_traffic_moves_with_the_endpoints_and_is_refused_without(site: Site) -> None:
    site.k("scale", "deployment/web", "--replicas=1")
    site.cluster.until("one is left", lambda: len(site.pods()) == 1)
    ((left, where),) = site.pods().items()
    spec = site.spec("local")["spec"]
    for pod in site.asking:
        site.until(pod, "web", {left})
        assert site.ask(pod, "prefer", times=4)["prefer"] == {left}
    (far,) = (p for p, node in site.asking.items() if node != where)
    # Nobody is there for a policy of Local on the other node; its health check says so.
    assert site.ask(far, "near", times=1)["near"] == {""}
    check = [f"curl -s -m 5 -w '%{{http_code}} ' -o /dev/null http://{a}:"
             f"{spec['healthCheckNodePort']}/" for a in site.nodes.values()]  # fmt: skip
    wanted = ["200" if node == where else "503" for node in site.nodes]
    site.cluster.until("health checks", lambda: "".join(site.sh(far, "; ".join(check))).split()
                       == wanted)  # fmt: skip
    at = site.spec("local")["status"]["loadBalancer"]["ingress"][0]["ip"]
    site.until("host", f"{at}:{spec['ports'][0]['port']}", {left})

    site.k("scale", "deployment/web", "--replicas=0")
    timed = "curl -s -m 9 -o /dev/null -w '%{exitcode} %{time_total}' http://web/"
    told = site.cluster.until(
        "it is refused", lambda: t if (t := "".join(site.sh(far, timed))).startswith("7 ") else ""
    )
    assert float(told.split()[1]) < 1
    site.k("scale", "deployment/web", "--replicas=2")
    site.cluster.until("two again", lambda: len(site.pods()) == 2)
    site.until(far, "web", {*site.pods()})
    kinds = Counter(e["reason"] for e in site.cluster.get("events", "-n", NS)["items"]
                    if e["involvedObject"]["kind"] == "Service")  # fmt: skip
    assert kinds == {"EnsuringLoadBalancer": 2, "EnsuredLoadBalancer": 2}


def test_fields_of_two_families(site: Site) -> None:
    site.apply(service("prefers", ipFamilyPolicy="PreferDualStack"))
    spec = site.spec("prefers")["spec"]
    assert (spec["ipFamilyPolicy"], spec["ipFamilies"]) == ("PreferDualStack", ["IPv4"])
    assert spec["clusterIPs"] == [spec["clusterIP"]]
    for given, why in (
        ({"ipFamilyPolicy": "RequireDualStack"}, "this cluster is not configured for dual-stack"),
        ({"ipFamilies": ["IPv6"]}, "not configured on this cluster"),
    ):
        body = json.dumps(service("no", **given))
        assert why in site.k("apply", "-f", "-", stdin=body, check=False)
