"""Services, policies and the loss of the daemon on three nodes, with pods and slices as users have
them: nothing here is written in the controllers' place but what users write themselves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sampan.lib.datadir import DataDir
from sampan.testing.e2e import Cluster, alive, host_state, kubectl_path, sampan

from .test_services_real import NS, Site, service, tool

_QUIET = {"imagePullPolicy": "IfNotPresent"}
OUTSIDE = "192.0.2.7"
_UDP = r"""use Socket; my $n = $ENV{HOSTNAME}; socket(my $s, PF_INET, SOCK_DGRAM, 17);
bind($s, pack_sockaddr_in(5353, INADDR_ANY)) or die;
while (my $from = recv($s, my $data, 1500, 0)) { send($s, "$n\n", 0, $from) }"""
# One socket, asking every 50 ms, telling who answered: a flow that never ends.
_FLOW = """
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(0.5)
s.connect((sys.argv[1], 53))
while True:
    try:
        s.send(b"?"); print(s.recv(100).decode().strip(), flush=True)
    except OSError as e:
        print("!", type(e).__name__, flush=True)
    time.sleep(0.05)
"""


_ONCE = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5)
s.connect((sys.argv[1], 53))
try:
    s.send(b"?"); s.recv(1)
except OSError as e:
    print(type(e).__name__)
"""


def web(replicas: int = 3) -> dict[str, Any]:
    """One pod a node; on its way out it goes on serving for two seconds."""
    hook = {"preStop": {"sleep": {"seconds": 2}}}
    spread = {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
              "whenUnsatisfiable": "DoNotSchedule", "matchLabelKeys": ["pod-template-hash"],
              "labelSelector": {"matchLabels": {"app": "web"}}}  # fmt: skip
    containers = [
        {"name": "who", "image": "traefik/whoami", **_QUIET, "lifecycle": hook,
         "ports": [{"name": "http", "containerPort": 80},
                   {"name": "echo", "containerPort": 5353, "protocol": "UDP"}],
         "readinessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1}},
        {"name": "udp", "image": "traefik/whoami", **_QUIET, "lifecycle": hook,
         "command": ["perl", "-e", _UDP]},
        {"name": "c", "image": "praqma/network-multitool", **_QUIET, "command": ["sleep", "86400"],
         "lifecycle": hook},
    ]  # fmt: skip
    spec = {"terminationGracePeriodSeconds": 4, "topologySpreadConstraints": [spread],
            "containers": containers}  # fmt: skip
    template = {"metadata": {"labels": {"app": "web"}}, "spec": spec}
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
                     "strategy": rolling, "template": template}}  # fmt: skip


def who(name: str, port: int, labels: dict[str, str], **fields: Any) -> dict[str, Any]:
    """A pod that serves on *port*, which it calls ``alt``."""
    container = {"name": "who", "image": "traefik/whoami", **_QUIET, **fields,
                 "env": [{"name": "WHOAMI_PORT_NUMBER", "value": str(port)}],
                 "ports": [{"name": "alt", "containerPort": port}]}  # fmt: skip
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels},
            "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]}}  # fmt: skip


class Three(Site):
    """A pod of a Deployment on each of three nodes, one on each to ask from."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        state = json.loads(cluster.sampan("status", "-o", "json"))
        self.pids = {n["name"]: n["pid"] for n in state["nodes"]}

    def pod_pid(self, name: str) -> int:
        """Of the process that holds a pod's network: it outlives the daemon."""
        listed = json.loads(self.cluster.sampan("ps", "-o", "json"))
        wanted = (NS, name, "POD", "running")
        return next(
            int(b["pid"]) for b in listed
            if (b["namespace"], b["pod"], b["container"], b["state"]) == wanted
        )  # fmt: skip

    def inside(self, pid: int, *command: str, seconds: float = 20.0) -> str:
        """What *command* of this host prints in the network of a process."""
        done = subprocess.run(
            ["nsenter", f"--net=/proc/{pid}/ns/net", *command], capture_output=True, text=True,
            timeout=seconds,
        )  # fmt: skip
        return done.stdout

    def gather(self, pod: str, wanted: dict[str, set[str]]) -> None:
        """Each target is answered by just those, and by each of them, before long."""
        seen: dict[str, set[str]] = {t: set() for t in wanted}

        def complete() -> bool:
            left = [t for t in wanted if seen[t] != wanted[t]]
            for target, names in self.ask(pod, *left, times=8).items():
                seen[target] |= names
                assert names <= wanted[target], (pod, target, names, wanted[target])
            return seen == wanted

        self.cluster.until(f"all endpoints, asked from {pod}", complete)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory, stand_ins: Path) -> Iterator[Three]:
    root = tmp_path_factory.mktemp("three")
    before = host_state(DataDir(root / "data").node_root)
    made = Cluster(root / "data", root / "kubeconfig", kubectl_path())
    try:
        up(made)
        made.sampan("image", "load", str(stand_ins))
        made.kubectl("create", "ns", NS)
        site = Three(made)
        for name, zone in zip(site.nodes, "aab", strict=True):
            made.kubectl("label", "node", name, f"topology.kubernetes.io/zone={zone}")
        site.apply(web(), *(tool(name, node) for name, node in site.asking.items()), *services())
        site.k("rollout", "status", "deployment/web", "--timeout=120s")
        site.k("wait", *(f"pod/{n}" for n in (*site.asking, "m1", "m2")), "--for=condition=Ready",
               "--timeout=120s")  # fmt: skip
        yield site
    finally:
        sampan("down", "--purge", "--data-dir", str(made.data_dir))
    after = host_state(DataDir(made.data_dir).node_root)
    assert {k: after[k] - before[k] for k in after if after[k] - before[k]} == {}


def up(cluster: Cluster) -> None:
    sampan(
        "up", "--name", "three", "--nodes", "3", "--data-dir", str(cluster.data_dir), "--port", "0",
        "--no-uplink", "--kubeconfig", str(cluster.kubeconfig),
    )  # fmt: skip


def services() -> list[dict[str, Any]]:
    two = [{"name": "web", "port": 80, "targetPort": "http"},
           {"name": "more", "port": 81, "targetPort": 80},
           {"name": "echo", "port": 53, "protocol": "UDP", "targetPort": "echo"}]  # fmt: skip
    alt = [{"name": "web", "port": 80, "targetPort": "alt"}]
    one = [{"name": "web", "port": 8080, "targetPort": "http"}]
    auto = service("auto")
    auto["metadata"]["annotations"] = {"service.kubernetes.io/topology-mode": "Auto"}
    return [
        service("web", ports=two), service("head", clusterIP="None"),
        service("np", type="NodePort"), service("ips", externalIPs=[OUTSIDE]),
        service("lb", type="LoadBalancer", ports=one),
        service("local", type="LoadBalancer", externalTrafficPolicy="Local", ports=one),
        service("ext", type="ExternalName", externalName=f"web.{NS}.svc.cluster.local",
                selector=None, ports=None),
        service("near", internalTrafficPolicy="Local"),
        service("node", trafficDistribution="PreferSameNode"),
        service("zone", trafficDistribution="PreferSameZone"), auto,
        service("sticky", sessionAffinity="ClientIP",
                sessionAffinityConfig={"clientIP": {"timeoutSeconds": 2}}),
        service("mixed", selector={"kind": "mixed"}, ports=alt),
        service("shy", selector={"kind": "shy"}, ports=alt, publishNotReadyAddresses=True),
        service("shut", selector={"kind": "shy"}, ports=alt, type="NodePort"),
        service("swap", selector={"pick": "me"}, ports=two),
        service("own", clusterIP="None", selector=None), service("plain", selector=None),
        who("m1", 80, {"kind": "mixed"}), who("m2", 8080, {"kind": "mixed"}),
        who("shy", 80, {"kind": "shy"}, readinessProbe={"exec": {"command": ["false"]}}),
    ]  # fmt: skip


def test_every_kind_of_service_from_every_node(three: Three) -> None:
    pods = three.pods()
    assert sorted(pods.values()) == sorted(three.nodes)
    every = {*pods}
    first = next(iter(pods))
    listed = three.cluster.get("pods", "-n", NS)["items"]
    ip = {p["metadata"]["name"]: p["status"].get("podIP") for p in listed}
    # Without selectors: a slice, and the older Endpoints, both by the user.
    ports = [{"name": "web", "port": 80, "protocol": "TCP"}]
    three.apply(
        {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
         "metadata": {"name": "own-1", "labels": {"kubernetes.io/service-name": "own"}},
         "ports": ports, "endpoints": [{"addresses": [ip[first]]}]},
        {"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "plain"},
         "subsets": [{"addresses": [{"ip": ip[first]}], "ports": ports}]},
    )  # fmt: skip
    port = three.spec("np")["spec"]["ports"][0]["nodePort"]
    zone = dict(zip(three.nodes, "aab", strict=True))
    for pod, node in three.asking.items():
        mine = {n for n, where in pods.items() if where == node}
        around = {n for n, where in pods.items() if zone[where] == zone[node]}
        everywhere = ["web", "web:81", "head", "ext", "lb:8080", "local:8080", OUTSIDE]
        everywhere += [f"{a}:{port}" for a in three.nodes.values()]
        three.gather(pod, {
            **dict.fromkeys(everywhere, every), "near": mine, "node": mine, "zone": around,
            "auto": around, "own": {first}, "plain": {first}, "mixed": {"m1", "m2"},
            "shy": {"shy"},
        })  # fmt: skip
        # UDP by name, and a client that stays where it was.
        udp = "exec 3<>/dev/udp/web/53; echo x >&3; timeout 5 head -n1 <&3"
        three.cluster.until(
            "UDP is answered by all",
            lambda script=udp, pod=pod, seen=set(): (
                seen.update(three.sh(pod, f"for i in $(seq 9); do {script}; done")) or seen == every
            ),
        )
        assert len(three.ask(pod, "sticky", times=10)["sticky"]) == 1
    for pod in pods:  # each meets itself, too
        three.gather(pod, {"web": every})
    # From processes of a node: the cluster's addresses, and those from outside.
    cluster_ip = three.spec("web")["spec"]["clusterIP"]
    for node, pid in three.pids.items():
        for target in (cluster_ip, OUTSIDE, f"{three.nodes[node]}:{port}"):
            loop = f"for i in $(seq 30); do curl -s -m 5 http://{target}/ | grep ^Hostname; done"
            said = {line.split()[1] for line in three.inside(pid, "sh", "-c", loop).splitlines()}
            assert said == every, (node, target)
    # From the host, at its own addresses.
    for name, number in (("np", port), ("lb", 8080), ("local", 8080)):
        at = three.address
        if name != "np":
            at = three.spec(name)["status"]["loadBalancer"]["ingress"][0]["ip"]
        three.gather("host", {f"{at}:{number}": every})


def test_policy_local_keeps_the_client_and_says_where_it_serves(three: Three) -> None:
    spec = three.spec("local")["spec"]
    port, health = spec["ports"][0]["nodePort"], spec["healthCheckNodePort"]
    (one, address), (_, other) = list(three.nodes.items())[:2]
    fetch = ["curl", "-s", "-m", "5", f"http://{other}:{port}/"]
    seen = [s.split() for s in three.inside(three.pids[one], *fetch).splitlines()]
    client = next(s[1] for s in seen if s[0] == "RemoteAddr:")
    assert client.rpartition(":")[0] == address  # and with policy Cluster it is the node's
    cluster = three.spec("np")["spec"]["ports"][0]["nodePort"]
    said = {
        line.split()[1].rpartition(":")[0]
        for _ in range(12)
        for line in three.inside(three.pids[one], *fetch[:-1], f"http://{other}:{cluster}/")
        .splitlines() if line.startswith("RemoteAddr")
    }  # fmt: skip
    assert other in said and address not in said
    # Every node tells of its own endpoints, the host of all.
    for node, pid in three.pids.items():
        url = f"http://{three.nodes[node]}:{health}/"
        assert json.loads(three.inside(pid, "curl", "-s", url))["localEndpoints"] == 1
    url = f"http://{three.address}:{health}/"
    done = subprocess.run(["curl", "-s", url], capture_output=True, text=True, timeout=20)
    told = json.loads(done.stdout)
    assert told == {"service": {"namespace": NS, "name": "local"}, "localEndpoints": 3,
                    "serviceProxyHealthy": True}  # fmt: skip


def test_nobody_is_there(three: Three) -> None:
    """TCP is reset and UDP gets its ICMP error, at once, from pods, nodes and the host."""
    spec = three.spec("shut")["spec"]  # its only pod is never ready
    ip, port = spec["clusterIP"], spec["ports"][0]["nodePort"]
    nobody = three.spec("swap")["spec"]["clusterIP"]
    timed = "curl -s -m 9 -o /dev/null -w '%{exitcode} %{time_total}\\n'"
    ask = f"for t in {ip} {ip}:9 {nobody}; do {timed} http://$t/; done"
    for said in (three.sh("ask-0", ask), three.inside(three.pids["three-2"], "sh", "-c",
                                                      ask).splitlines()):  # fmt: skip
        assert [line.split()[0] for line in said] == ["7"] * 3
        assert all(float(line.split()[1]) < 1 for line in said), said
    refused = subprocess.run(["curl", "-s", "-m", "9", f"http://{three.address}:{port}/"])
    assert refused.returncode == 7
    for pid, error in (
        (three.pod_pid("ask-1"), "ConnectionRefusedError\n"),
        (three.pids["three-1"], "PermissionError\n"),  # the kernel's word for one's own packet
    ):
        assert three.inside(pid, "python3", "-c", _ONCE, nobody) == error


def test_a_flow_of_udp_follows_the_endpoints(three: Three) -> None:
    """From one port, without a pause: from one pod to the other, to nobody, and back."""
    a, b = sorted(three.pods())[:2]
    ip = three.spec("swap")["spec"]["clusterIP"]
    pid = three.pod_pid("ask-2")
    flow = subprocess.Popen(
        ["nsenter", f"--net=/proc/{pid}/ns/net", "python3", "-c", _FLOW, ip],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert flow.stdout is not None

    def answered_by(name: str) -> None:
        assert flow.stdout is not None
        deadline = time.monotonic() + 30
        while (line := flow.stdout.readline().strip()) != name:
            assert time.monotonic() < deadline, (name, line)

    try:
        for picked, dropped in ((a, ""), (b, a), ("", b), (a, "")):
            for name, label in ((picked, "pick=me"), (dropped, "pick-")):
                if name:
                    three.k("label", "pod", name, label)
            answered_by(picked or "! ConnectionRefusedError")
    finally:
        flow.kill()
        flow.wait()
        three.k("label", "pod", a, "pick-")


def test_a_rollout_and_an_end_lose_nobody(three: Three) -> None:
    """Requests all the time from a pod and from the host; endpoints that end go on serving."""
    port = three.spec("np")["spec"]["ports"][0]["nodePort"]
    one = "curl -s -m 5 -o /dev/null -w '%{http_code} %{exitcode}\\n' http://"
    asked = {"ask-0": f"{one}web/", "host": f"{one}{three.address}:{port}/"}
    stop = threading.Event()
    said: dict[str, list[str]] = {where: [] for where in asked}

    def keep_asking(where: str) -> None:
        while not stop.is_set():
            said[where] += three.sh(where, f"for i in $(seq 20); do {asked[where]}; done")

    threads = [threading.Thread(target=keep_asking, args=(w,)) for w in asked]
    for thread in threads:
        thread.start()
    try:
        three.k("rollout", "restart", "deployment/web")
        three.k("rollout", "status", "deployment/web", "--timeout=120s")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    for where, lines in said.items():
        assert len(lines) >= 20 and {*lines} == {"200 0"}, where
    # All of them at once: they serve until they are gone, then a client is refused at once.
    three.cluster.until("the old ones are gone", lambda: len(three.pods()) == 3)
    ip = three.spec("web")["spec"]["clusterIP"]
    pid = three.pids["three-1"]
    three.k("scale", "deployment/web", "--replicas=0")
    ends = three.cluster.get("endpointslices", "-n", NS, "-l", "kubernetes.io/service-name=web")
    conditions = [e["conditions"] for s in ends["items"] for e in s["endpoints"] or ()]
    codes: list[str] = []

    def refused() -> bool:
        codes.extend(three.inside(pid, "sh", "-c", f"{one}{ip}/").split("\n")[:-1])
        return codes[-1] == "000 7"

    three.cluster.until("nobody is left", refused)
    if {"ready": False, "serving": True, "terminating": True} in conditions:
        assert codes[0] == "200 0", codes
    three.k("scale", "deployment/web", "--replicas=3")
    three.cluster.until("three again", lambda: len(three.pods()) == 3)


def deny() -> dict[str, Any]:
    """Only what is called a friend may come to the web pods."""
    friends = {"from": [{"podSelector": {"matchLabels": {"friend": "yes"}}}]}
    spec = {"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [friends]}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "friends"}, "spec": spec}  # fmt: skip


def blocked(three: Three, pod: str) -> bool:
    """Nobody answers *pod*, not even that nobody is there."""
    return three.sh(pod, "curl -s -m 1 http://web/ || echo $?") == ["28"]


class Asking:
    """Asks from the network of a process all the time, until it is stopped."""

    def __init__(self, three: Three, pid: int, target: str, patience: float) -> None:
        self.codes: list[str] = []
        self._stop = threading.Event()
        one = f"curl -s -m {patience} -o /dev/null -w '%{{http_code}}\\n' http://{target}/"
        script = f"{one}; {one}; {one}"

        def work() -> None:
            while not self._stop.is_set():
                self.codes += three.inside(pid, "sh", "-c", script, seconds=60).split()

        self._thread = threading.Thread(target=work)
        self._thread.start()

    def end(self) -> set[str]:
        self._stop.set()
        self._thread.join()
        return {*self.codes}


def test_a_killed_daemon_leaves_services_and_policies_and_its_successor_makes_no_gap(
    three: Three,
) -> None:
    """``kill -9``: rules of both kinds stay; they are taken over without a moment in which a
    request fails that may come, or one succeeds that may not."""
    three.k("label", "pod", "ask-0", "friend=yes")
    three.apply(deny())
    ip = three.spec("web")["spec"]["clusterIP"]
    three.cluster.until("the others are kept away", lambda: blocked(three, "ask-1"))
    every = {*three.pods()}
    three.gather("ask-0", {"web": every})
    friend, stranger = three.pod_pid("ask-0"), three.pod_pid("ask-1")
    (main,) = json.loads(three.cluster.sampan("status", "-o", "json"))["mainPids"]
    os.kill(main, signal.SIGKILL)
    three.cluster.until("the daemon is gone", lambda: not alive(main))
    asking: dict[str, Asking] = {
        "friend": Asking(three, friend, ip, 5),
        "stranger": Asking(three, stranger, ip, 0.5),
    }
    try:
        _enough(three, lambda: all(len(a.codes) >= 3 for a in asking.values()))
        up(three.cluster)
        so_far = {w: len(a.codes) for w, a in asking.items()}
        _enough(three, lambda: len(asking["friend"].codes) > so_far["friend"] + 10)
        three.cluster.until("it works again", lambda: three.pods().keys() == every)
        # What is written from now on counts, as before.
        three.k("delete", "pod", "--wait=false", min(every))
        three.cluster.until("another took its place", lambda: len({*three.pods()} - every) == 1)
    finally:
        codes = {w: a.end() for w, a in asking.items()}
    assert codes["friend"] == {"200"}, codes
    assert codes["stranger"] == {"000"}, codes
    three.cluster.until("the new pod is met and the old one is not",
                        lambda: len(three.pods()) == 3)  # fmt: skip
    three.gather("ask-0", {"web": {*three.pods()}})
    assert blocked(three, "ask-1")
    three.k("delete", "netpol", "friends")
    three.gather("ask-1", {"web": {*three.pods()}})


def _enough(three: Three, check: Callable[[], bool]) -> None:
    """(``Cluster.until`` would ask the API for a picture.)"""
    deadline = time.monotonic() + 60
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.05)
