"""The seed's Pod, ReplicaSet and Deployment chapters, typed as there."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sampan.testing.e2e import Cluster

MANIFESTS = Path(__file__).parents[2] / "examples"
KINDS = ("net", "ipc", "pid", "mnt", "uts")
WIDE = ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE", "NOMINATED NODE",
        "READINESS GATES"]  # fmt: skip


def rows(table: str) -> list[list[str]]:
    return [re.split(r"\s{2,}", line.strip()) for line in table.splitlines() if line.strip()]


def sections(tables: str) -> dict[str, list[list[str]]]:
    """The tables of ``kubectl get a,b``, by the resource their names start with."""
    found = {}
    for part in re.split(r"\n\s*\n", tables.strip()):
        table = rows(part)
        found[table[1][0].split("/")[0]] = table
    return found


def without_grace(cluster: Cluster, namespace: str) -> None:
    """The nettool's sleep, as the first process of its namespace, would take all its 30 seconds."""
    cluster.kubectl("delete", "pods", "--all", "-n", namespace, "--now")


@pytest.fixture(scope="module")
def whoami(cluster: Cluster) -> Iterator[Cluster]:
    cluster.kubectl("apply", "-f", str(MANIFESTS / "pod.yaml"))
    yield cluster
    without_grace(cluster, "whoami")
    cluster.kubectl("delete", "ns", "--cascade", "whoami")
    assert cluster.kubectl("get", "pods", "-n", "whoami") == ""


def test_pod(whoami: Cluster) -> None:
    whoami.kubectl("wait", "-n", "whoami", "pod/whoami", "--for=condition=Ready", "--timeout=60s")
    table = rows(whoami.kubectl("get", "pods", "-n", "whoami", "-owide"))
    assert table[0] == WIDE
    name, ready, status, restarts, _age, ip, node, nominated, gates = table[1]
    assert (name, ready, status, restarts) == ("whoami", "2/2", "Running", "0")
    assert ip.startswith("10.42.") and node
    assert (nominated, gates) == ("<none>", "<none>")
    names = whoami.kubectl(
        "get", "pods", "-n", "whoami", "whoami", "-o", "jsonpath={.spec.containers[*].name}"
    )
    assert names == "whoami nettool"

    seen = terminal(
        whoami,
        ["exec", "whoami", "-n", "whoami", "-it", "-c", "nettool", "--", "/bin/bash"],
        ["netstat -tualnp | grep LISTEN", "curl localhost", "stty size", "exit 3"],
    )
    assert re.search(r"tcp\d?\s+0\s+0 (0\.0\.0\.0|::):80?\s|:::80\s+", seen.text), seen.text
    assert "LISTEN      -" in seen.text  # another PID namespace: whose it is, is not seen
    assert "Hostname: whoami" in seen.text
    assert f"IP: {ip}" in seen.text
    assert "RemoteAddr: 127.0.0.1:" in seen.text
    assert "GET / HTTP/1.1" in seen.text
    assert "37 111" in seen.text  # the terminal's size arrived
    assert seen.code == 3

    logs = whoami.kubectl("logs", "-n", "whoami", "whoami", "-c", "whoami")
    assert "Starting up on port 80" in logs


def test_namespaces_of_a_pod(whoami: Cluster) -> None:
    """A pause holds network and IPC; mount, PID and UTS are each container's own."""
    whoami.kubectl("wait", "-n", "whoami", "pod/whoami", "--for=condition=Ready", "--timeout=60s")
    listed = json.loads(whoami.sampan("ps", "-o", "json"))
    pod = {r["container"]: r for r in listed if r["namespace"] == "whoami"}
    assert set(pod) == {"POD", "whoami", "nettool"}
    spaces = {
        name: {
            k: os.readlink(f"/proc/{r['pid']}/ns/{k}") for k in ("net", "ipc", "pid", "mnt", "uts")
        }
        for name, r in pod.items()
    }
    for shared in ("net", "ipc"):
        assert len({s[shared] for s in spaces.values()}) == 1, spaces
    for own in ("pid", "mnt", "uts"):
        assert len({s[own] for s in spaces.values()}) == 3, spaces
    own_net = os.readlink("/proc/self/ns/net")
    assert spaces["POD"]["net"] != own_net
    text = whoami.sampan("ps")
    assert spaces["whoami"]["net"].removeprefix("net:[").removesuffix("]") in text


def test_pod_reaches_a_pod_on_the_other_node(whoami: Cluster) -> None:
    whoami.kubectl("wait", "-n", "whoami", "pod/whoami", "--for=condition=Ready", "--timeout=60s")
    pod = whoami.get("pod", "-n", "whoami", "whoami")
    nodes = {n["metadata"]["name"] for n in whoami.get("nodes")["items"]}
    assert len(nodes) == 2
    (other,) = nodes - {pod["spec"]["nodeName"]}
    overrides = json.dumps({"spec": {"nodeName": other}})
    whoami.kubectl(
        "run", "caller", "-n", "whoami", "--image=praqma/network-multitool",
        "--image-pull-policy=IfNotPresent", f"--overrides={overrides}", "--restart=Never", "--",
        "curl", "-s", "--max-time", "5", pod["status"]["podIP"],
    )  # fmt: skip
    whoami.until("caller done", lambda: phase(whoami, "whoami", "caller") == "Succeeded")
    said = whoami.kubectl("logs", "-n", "whoami", "caller")
    caller = whoami.get("pod", "-n", "whoami", "caller")["status"]["podIP"]
    assert "Hostname: whoami" in said
    assert f"RemoteAddr: {caller}:" in said


def phase(cluster: Cluster, namespace: str, name: str) -> str:
    return str(cluster.get("pod", "-n", namespace, name)["status"].get("phase"))


def test_replicaset(cluster: Cluster) -> None:
    cluster.kubectl("apply", "-f", str(MANIFESTS / "replicaset.yaml"))
    try:
        cluster.until("3 ready", lambda: ready_replicas(cluster, "rs", "rs/nginx-rs") == 3)
        tables = sections(cluster.kubectl("get", "pods,rs", "-n", "rs", "-owide"))
        assert tables["pod"][0] == WIDE
        assert len(tables["pod"]) == 4
        for row in tables["pod"][1:]:
            assert re.fullmatch(r"pod/nginx-rs-[bcdfghjklmnpqrstvwxz2456789]{5}", row[0])
            assert row[1:4] == ["2/2", "Running", "0"]
        assert tables["replicaset.apps"] == [
            ["NAME", "DESIRED", "CURRENT", "READY", "AGE", "CONTAINERS", "IMAGES", "SELECTOR"],
            ["replicaset.apps/nginx-rs", "3", "3", "3", tables["replicaset.apps"][1][4],
             "nginx,nettool", "nginx:1.14.1,praqma/network-multitool", "app=nginx"],
        ]  # fmt: skip
        victim = tables["pod"][1][0]
        cluster.kubectl("delete", "-n", "rs", victim, "--now")
        cluster.until(
            "replaced",
            lambda: (
                ready_replicas(cluster, "rs", "rs/nginx-rs") == 3
                and victim not in cluster.kubectl("get", "pods", "-n", "rs", "-o", "name")
            ),
        )
    finally:
        cluster.kubectl("delete", "ns", "--cascade", "rs", "--wait=false")
        without_grace(cluster, "rs")


def ready_replicas(cluster: Cluster, namespace: str, name: str) -> int:
    return int(cluster.get("-n", namespace, name)["status"].get("readyReplicas", 0))


def test_deployment(cluster: Cluster) -> None:
    ns = ["-n", "deploy-test"]
    cluster.kubectl("apply", "-f", str(MANIFESTS / "deployment.yaml"))
    try:
        cluster.kubectl("rollout", "status", *ns, "deployment/nginx-deploy", "--timeout=90s")
        tables = sections(cluster.kubectl("get", "pod,rs,deploy", *ns, "-owide"))
        assert tables["pod"][0] == WIDE
        first = tables["replicaset.apps"][1][0].removeprefix("replicaset.apps/")
        assert re.fullmatch(r"nginx-deploy-[bcdfghjklmnpqrstvwxz2456789]{6,10}", first)
        template_hash = first.rsplit("-", 1)[1]
        for row in tables["pod"][1:]:
            assert re.fullmatch(rf"pod/{first}-[bcdfghjklmnpqrstvwxz2456789]{{5}}", row[0])
            assert row[1:4] == ["2/2", "Running", "0"]
        deploy = tables["deployment.apps"]
        assert deploy[0] == ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE", "CONTAINERS",
                             "IMAGES", "SELECTOR"]  # fmt: skip
        assert deploy[1][:4] == ["deployment.apps/nginx-deploy", "3/3", "3", "3"]
        assert tables["replicaset.apps"][1][-1] == f"app=nginx,pod-template-hash={template_hash}"

        with watched_pods(cluster, "deploy-test") as history:
            cluster.kubectl("set", "image", *ns, "deployment/nginx-deploy", "nginx=nginx:1.16.1")
            said = cluster.kubectl(
                "rollout", "status", *ns, "deployment/nginx-deploy", "--timeout=90s"
            )
            assert 'deployment "nginx-deploy" successfully rolled out' in said
        assert len(history) > 6
        # Three replicas, maxSurge 1, maxUnavailable 1.
        assert max(live for live, _ready in history) <= 4, history
        assert min(ready for _live, ready in history) >= 2, history

        described = cluster.kubectl("describe", "deploy", *ns, "nginx-deploy")
        assert re.search(r"StrategyType:\s+RollingUpdate", described)
        assert re.search(r"RollingUpdateStrategy:\s+1 max unavailable, 1 max surge", described)
        assert re.search(r"Replicas:\s+3 desired \| 3 updated \| 3 total \| 3 available", described)
        assert re.search(r"Available\s+True\s+MinimumReplicasAvailable", described)
        assert re.search(r"Progressing\s+True\s+NewReplicaSetAvailable", described)
        assert re.search(rf"Normal\s+ScalingReplicaSet.*Scaled up replica set {first} from 0 to 3",
                         described)  # fmt: skip
        assert re.search(rf"Scaled down replica set {first} from \d to \d", described)
        assert f"OldReplicaSets:  {first} (0/0 replicas created)" in described

        history_text = cluster.kubectl("rollout", "history", *ns, "deployment/nginx-deploy")
        assert re.findall(r"^(\d+)\s+<none>$", history_text, re.M) == ["1", "2"]
        undo = cluster.kubectl("rollout", "undo", *ns, "deployment/nginx-deploy", "--to-revision=1")
        assert undo == "deployment.apps/nginx-deploy rolled back\n"
        cluster.kubectl("rollout", "status", *ns, "deployment/nginx-deploy", "--timeout=90s")
        images = cluster.kubectl(
            "get", "deploy", *ns, "nginx-deploy", "-o",
            "jsonpath={.spec.template.spec.containers[*].image}",
        )  # fmt: skip
        assert images == "nginx:1.14.1 praqma/network-multitool"
        history_text = cluster.kubectl("rollout", "history", *ns, "deployment/nginx-deploy")
        assert re.findall(r"^(\d+)\s+<none>$", history_text, re.M) == ["2", "3"]

        scaled = cluster.kubectl("scale", "deployment/nginx-deploy", *ns, "--replicas=5")
        assert scaled == "deployment.apps/nginx-deploy scaled\n"
        cluster.kubectl("rollout", "status", *ns, "deployment/nginx-deploy", "--timeout=90s")
        tables = sections(cluster.kubectl("get", "pod,rs,deploy", *ns, "-owide"))
        assert tables["deployment.apps"][1][1] == "5/5"
        assert len([r for r in tables["pod"][1:] if r[2] == "Running"]) == 5
        assert len({r[6] for r in tables["pod"][1:]}) == 2  # on both nodes
    finally:
        cluster.kubectl("delete", "ns", "--cascade", "deploy-test", "--wait=false")
        without_grace(cluster, "deploy-test")
    cluster.until("gone", lambda: "deploy-test" not in cluster.kubectl("get", "ns"))


@contextmanager
def watched_pods(cluster: Cluster, namespace: str) -> Iterator[list[tuple[int, int]]]:
    """After each event of a watch: how many pods are not being deleted, and how many of them are
    ready."""
    history: list[tuple[int, int]] = []
    watch = subprocess.Popen(
        cluster.kubectl_command(
            "get", "pods", "-n", namespace, "-w", "-o", "json", "--output-watch-events"
        ),
        stdout=subprocess.PIPE, text=True, env=cluster.env,
    )  # fmt: skip
    assert watch.stdout is not None
    try:
        os.set_blocking(watch.stdout.fileno(), False)
        text = read_for(watch.stdout.fileno(), 1.5)
        yield history
        text += read_for(watch.stdout.fileno(), 1.5)
    finally:
        watch.terminate()
        watch.wait()
    pods: dict[str, bool] = {}
    decoder = json.JSONDecoder()
    known = 0
    while text := text.lstrip():
        try:
            event, end = decoder.raw_decode(text)
        except ValueError:
            break
        text = text[end:]
        pod: dict[str, Any] = event["object"]
        meta = pod["metadata"]
        if event["type"] == "DELETED" or "deletionTimestamp" in meta:
            pods.pop(meta["name"], None)
        else:
            conditions = pod["status"].get("conditions", ())
            pods[meta["name"]] = any(
                c["type"] == "Ready" and c["status"] == "True" for c in conditions
            )
        known = max(known, len(pods))
        if known >= 3:  # the watch begins with the three pods of before, one by one
            history.append((len(pods), sum(pods.values())))


def read_for(fd: int, quiet: float) -> str:
    """What *fd* has to say until it is quiet for so long."""
    out = b""
    while select.select([fd], [], [], quiet)[0]:
        data = os.read(fd, 1 << 20)
        if not data:
            break
        out += data
    return out.decode()


class Seen:
    def __init__(self, text: str, code: int) -> None:
        self.text = text
        self.code = code


def terminal(cluster: Cluster, command: list[str], lines: list[str]) -> Seen:
    """Run kubectl on a terminal of 37 rows and 111 columns and type *lines*, each at a prompt."""
    import fcntl
    import struct
    import termios

    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 37, 111, 0, 0))
    process = subprocess.Popen(
        cluster.kubectl_command(*command), stdin=slave, stdout=slave, stderr=slave,
        env=cluster.env, start_new_session=True,
    )  # fmt: skip
    os.close(slave)
    out = b""
    deadline = time.monotonic() + 30
    left = list(lines)
    answered = 0
    try:
        while time.monotonic() < deadline:
            if not select.select([master], [], [], 0.2)[0]:
                continue
            try:
                data = os.read(master, 65536)
            except OSError:
                break  # the other side closed
            out += data
            if left and re.search(rb"[#$] $", out[answered:]):
                answered = len(out)
                os.write(master, left.pop(0).encode() + b"\n")
        code = process.wait(timeout=10)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(master)
    return Seen(out.decode(errors="replace").replace("\r\n", "\n"), code)


def test_manifests_are_the_seeds() -> None:
    seed = Path(__file__).parents[3] / "shared" / "seed" / "manifests"
    for name in ("pod.yaml", "replicaset.yaml", "deployment.yaml", "statefulset.yaml"):
        ours = MANIFESTS / name
        assert ours.stat().st_size > 0
        if seed.exists():
            assert ours.read_text() == (seed / name).read_text()
