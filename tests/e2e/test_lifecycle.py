"""The command itself: taking over after a kill, one clear line for what is wrong."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sampan.lib.datadir import DataDir
from sampan.testing.e2e import Cluster, alive, host_state, kubectl_path, sampan

PODS = """
apiVersion: v1
kind: Pod
metadata: {name: steady}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: a, image: "busybox", command: [sh, -c, "echo started; exec sleep 1000"]}
  - {name: b, image: "busybox", command: [sleep, "1000"]}
---
apiVersion: v1
kind: Pod
metadata: {name: ends}
spec:
  restartPolicy: Never
  containers:
  - {name: a, image: "busybox", command: [sh, -c, "sleep 1; echo said; exit 7"]}
"""


def up(data: Path, kubeconfig: Path, *more: str, check: bool = True) -> Any:
    return sampan(
        "up", "--data-dir", str(data), "--port", "0", "--no-uplink", "--kubeconfig",
        str(kubeconfig), *more, check=check,
    )  # fmt: skip


@pytest.fixture
def own(tmp_path: Path, stand_ins: Path) -> Iterator[Cluster]:
    """A cluster of one node for a test that kills it."""
    before = host_state(DataDir(tmp_path / "data").node_root)
    made = Cluster(tmp_path / "data", tmp_path / "kubeconfig", kubectl_path())
    try:
        up(made.data_dir, made.kubeconfig, "--name", "own")
        made.sampan("image", "load", str(stand_ins))
        yield made
    finally:
        sampan("down", "--purge", "--data-dir", str(made.data_dir))
    after = host_state(DataDir(made.data_dir).node_root)
    assert {k: after[k] - before[k] for k in after if after[k] - before[k]} == {}


def status(cluster: Cluster) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(cluster.sampan("status", "-o", "json"))
    return answer


def containers(cluster: Cluster) -> dict[str, int]:
    rows = json.loads(cluster.sampan("ps", "-o", "json"))
    return {f"{r['pod']}/{r['container']}": r["pid"] for r in rows if r["state"] == "running"}


def test_containers_outlive_the_daemon(own: Cluster) -> None:
    """kill -9 of the main process, then `up`: nothing restarted, statuses true, also of what ended
    in between."""
    own.kubectl("apply", "-f", "-", stdin=PODS)
    own.kubectl("wait", "pod/steady", "--for=condition=Ready", "--timeout=30s")
    own.until("ends runs", lambda: phase(own, "ends") in ("Running", "Failed"))
    before = containers(own)
    (main,) = status(own)["mainPids"]
    os.kill(main, signal.SIGKILL)
    own.until("the daemon is gone", lambda: not alive(main))
    time.sleep(1.5)  # `ends` ends while nobody looks
    assert all(alive(before[c]) for c in ("steady/POD", "steady/a", "steady/b"))
    up(own.data_dir, own.kubeconfig)
    assert status(own)["state"] == "Ready"
    own.until("ends is seen to have ended", lambda: phase(own, "ends") == "Failed")
    state = own.get("pod", "ends")["status"]["containerStatuses"][0]["state"]
    assert state["terminated"]["exitCode"] == 7
    assert own.kubectl("logs", "ends") == "said\n"
    after = containers(own)
    for name in ("steady/POD", "steady/a", "steady/b"):
        assert after[name] == before[name]
    pod = own.get("pod", "steady")
    assert [c["restartCount"] for c in pod["status"]["containerStatuses"]] == [0, 0]
    assert pod["status"]["phase"] == "Running"
    assert own.kubectl("exec", "steady", "-c", "a", "--", "cat", "/proc/1/cmdline") == (
        "sleep\x001000\x00"
    )
    own.kubectl("delete", "pod", "steady", "ends", "--timeout=30s")
    assert containers(own) == {}


def phase(cluster: Cluster, name: str) -> str:
    return str(cluster.get("pod", name)["status"].get("phase"))


def test_a_second_up_says_so_and_succeeds(cluster: Cluster) -> None:
    done = up(cluster.data_dir, cluster.kubeconfig)
    assert "already running" in done.stdout


def test_status_tells_every_process(cluster: Cluster) -> None:
    info = status(cluster)
    assert info["state"] == "Ready"
    assert {c["name"] for c in info["components"]} >= {"store", "api", "controllers", "scheduler"}
    assert [n["state"] for n in info["nodes"]] == ["Ready", "Ready"]
    assert all(alive(p) for p in info["pids"]) and info["mainPids"][0] in info["pids"]
    text = cluster.sampan("status")
    assert info["server"] in text and "COMPONENT" in text


def test_images_are_listed_and_removed(cluster: Cluster, tmp_path: Path) -> None:
    listed = cluster.sampan("image", "ls")
    assert "docker.io/library/nginx:1.16.1" in listed
    refused = sampan("image", "rm", "nosuch:1", "--data-dir", str(cluster.data_dir), check=False)
    assert refused.returncode == 1 and "no image nosuch:1" in refused.stderr
    broken = tmp_path / "broken.tar"
    broken.write_bytes(b"this is no archive")
    refused = sampan("image", "load", str(broken), "--data-dir", str(cluster.data_dir), check=False)
    assert refused.returncode == 1 and refused.stderr.count("\n") == 1


def test_a_taken_port_is_one_clear_line(tmp_path: Path) -> None:
    data = tmp_path / "data"
    address = DataDir(data).address
    with socket.socket() as sock:
        sock.bind((address, 0))
        sock.listen()
        port = sock.getsockname()[1]
        done = sampan(
            "up", "--data-dir", str(data), "--port", str(port), "--runtime", "fake",
            "--kubeconfig", str(tmp_path / "kc"), check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == f"sampan: port {port} is taken on {address} (see --port)\n"
    sampan("down", "--purge", "--data-dir", str(data))
    assert not data.exists()


def test_a_corrupt_store_is_one_clear_line(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "store").mkdir(parents=True)
    (data / "store" / "state.db").write_bytes(b"garbage" * 1000)
    done = up(data, tmp_path / "kc", "--runtime", "fake", check=False)
    assert done.returncode == 1
    assert "state.db is not a usable database" in done.stderr and done.stderr.count("\n") == 1
    assert (data / "store" / "state.db").read_bytes() == b"garbage" * 1000
    sampan("down", "--purge", "--data-dir", str(data))


def test_the_fake_runtime_runs_pods_too(tmp_path: Path) -> None:
    data, kubeconfig = tmp_path / "data", tmp_path / "kc"
    made = Cluster(data, kubeconfig, kubectl_path())
    try:
        up(data, kubeconfig, "--runtime", "fake", "--nodes", "3")
        made.kubectl("create", "deployment", "web", "--image=anything", "--replicas=6")
        made.kubectl("rollout", "status", "deployment/web", "--timeout=30s")
        pods = made.get("pods")["items"]
        assert len({p["spec"]["nodeName"] for p in pods}) == 3
        made.sampan("down")
        up(data, kubeconfig)  # what it was is remembered
        assert len(made.get("nodes")["items"]) == 3
        made.until(
            "pods run again",
            lambda: made.get("deployment", "web")["status"].get("availableReplicas") == 6,
        )
    finally:
        sampan("down", "--purge", "--data-dir", str(data))


def test_nodes_come_stop_start_and_go(tmp_path: Path) -> None:
    data, kubeconfig = tmp_path / "data", tmp_path / "kc"
    made = Cluster(data, kubeconfig, kubectl_path())

    def states() -> dict[str, str]:
        return {n["name"]: n["state"] for n in json.loads(made.sampan("node", "ls", "-o", "json"))}

    def refused(*args: str) -> str:
        done = sampan("node", *args, "--data-dir", str(data), check=False)
        assert done.returncode == 1 and done.stderr.count("\n") == 1
        return str(done.stderr)

    try:
        up(data, kubeconfig, "--runtime", "fake", "--name", "n")
        assert "node n-2 added" in up(data, kubeconfig, "--nodes", "2").stdout
        assert "sampan node rm" in up(data, kubeconfig, "--nodes", "1").stdout
        made.sampan("node", "add")
        made.kubectl("wait", "node", "--all", "--for=condition=Ready", "--timeout=30s")
        made.sampan("node", "stop", "n-2")
        assert "is stopped already" in refused("stop", "n-2")
        assert "runs already" in refused("start", "n-1")
        assert "there is no node n-7 (there are n-1, n-2, n-3)" in refused("stop", "n-7")
        made.sampan("node", "rm", "n-1")
        assert states() == {"n-2": "Stopped", "n-3": "Ready"}
        made.sampan("down")
        up(data, kubeconfig)  # all of that is remembered
        assert states() == {"n-2": "Stopped", "n-3": "Ready"}
        made.sampan("node", "start", "n-2")
        made.sampan("node", "add")
        assert states() == dict.fromkeys(("n-1", "n-2", "n-3"), "Ready")
        made.sampan("node", "rm", "n-1", "n-2")
        assert "only node" in refused("rm", "n-3")
        assert [n["metadata"]["name"] for n in made.get("nodes")["items"]] == ["n-3"]
    finally:
        sampan("down", "--purge", "--data-dir", str(data))


def test_the_users_kubeconfig_gets_a_context_and_loses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = tmp_path / "config"
    theirs.write_text("apiVersion: v1\nkind: Config\nclusters: [{name: x, cluster: {}}]\n")
    monkeypatch.setenv("KUBECONFIG", str(theirs))
    data = tmp_path / "data"
    try:
        sampan("up", "--data-dir", str(data), "--port", "0", "--runtime", "fake", "--name", "kc")
        made = Cluster(data, theirs, kubectl_path())
        names = made.kubectl("--context", "sampan-kc", "get", "ns", "-o", "name")
        assert "namespace/default" in names
    finally:
        sampan("down", "--purge", "--data-dir", str(data))
    assert "sampan-kc" not in theirs.read_text() and "name: x" in theirs.read_text()


def test_in_the_foreground_a_signal_takes_it_down(tmp_path: Path) -> None:
    data, kubeconfig = tmp_path / "data", tmp_path / "kc"
    with subprocess.Popen(
        [sys.executable, "-m", "sampan", "up", "--foreground", "--runtime", "fake", "--port", "0",
         "--data-dir", str(data), "--kubeconfig", str(kubeconfig)],
        stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("Ready at"):
                break
        (main,) = json.loads(sampan("status", "-o", "json", "--data-dir", str(data)).stdout)[
            "mainPids"
        ]
        process.send_signal(signal.SIGTERM)
        said = process.stdout.read()
    assert process.returncode == 0
    assert "is down" in said and not alive(main)
    sampan("down", "--purge", "--data-dir", str(data))


def test_demo_images_go_to_the_cluster_that_is_named(cluster: Cluster) -> None:
    script = Path(__file__).parents[2] / "scripts" / "demo-images"
    done = subprocess.run(
        [str(script), "--data-dir", str(cluster.data_dir)], capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "loaded docker.io/library/nginx:1.16.1" in done.stdout


NAMESPACE = """
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: sized}
spec:
  accessModes: [ReadWriteOnce]
  storageClassName: sampan-local-sized
  resources: {requests: {storage: 16Mi}}
---
apiVersion: v1
kind: Pod
metadata: {name: hooks}
spec:
  terminationGracePeriodSeconds: 3
  initContainers:
  - {name: side, image: busybox, imagePullPolicy: IfNotPresent, restartPolicy: Always, command: [sleep, "1000"]}
  containers:
  - name: c
    image: busybox
    imagePullPolicy: IfNotPresent
    command: [sh, -c, "trap '' TERM; while true; do sleep 0.2; done"]
    lifecycle: {preStop: {exec: {command: [sleep, "1"]}}}
    readinessProbe: {exec: {command: [sleep, "5"]}, periodSeconds: 1}
    volumeMounts: [{name: v, mountPath: /v}, {name: m, mountPath: /m}]
  - {name: crash, image: busybox, imagePullPolicy: IfNotPresent, command: [sh, -c, "exit 1"]}
  volumes:
  - {name: v, persistentVolumeClaim: {claimName: sized}}
  - {name: m, emptyDir: {medium: Memory}}
---
apiVersion: v1
kind: Pod
metadata: {name: stuck}
spec:
  terminationGracePeriodSeconds: 2
  containers:
  - {name: c, image: busybox, imagePullPolicy: IfNotPresent, volumeMounts: [{name: v, mountPath: /v}]}
  volumes: [{name: v, configMap: {name: absent}}]
---
apiVersion: v1
kind: Pod
metadata: {name: no-image}
spec: {terminationGracePeriodSeconds: 2, containers: [{name: c, image: "nosuch:1"}]}
---
apiVersion: batch/v1
kind: Job
metadata: {name: job}
spec:
  parallelism: 2
  completions: 4
  template:
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: 2
      containers: [{name: c, image: busybox, imagePullPolicy: IfNotPresent, command: [sh, -c, "sleep 2; exit 1"]}]
"""  # noqa: E501


def test_a_namespace_goes_though_its_daemon_and_processes_are_killed(own: Cluster) -> None:
    """Everything awkward at once, and in the midst of the deletion a kill -9 of the daemon, of a
    container and of a pause."""
    own.kubectl("create", "ns", "gone")
    own.kubectl("apply", "-n", "gone", "-f", "-", stdin=NAMESPACE)
    own.until("its pod runs", lambda: own.get("pod", "-n", "gone", "hooks")["status"].get(
        "phase") == "Running")  # fmt: skip
    rows = {r["container"]: r["pid"] for r in json.loads(own.sampan("ps", "-o", "json"))
            if r["pod"] == "hooks"}  # fmt: skip
    held = subprocess.Popen(
        own.kubectl_command("exec", "-n", "gone", "hooks", "-c", "c", "--", "sleep", "500"),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=own.env,
    )  # fmt: skip
    try:
        own.kubectl("delete", "ns", "gone", "--wait=false")
        (main,) = status(own)["mainPids"]
        os.kill(main, signal.SIGKILL)
        own.until("the daemon is gone", lambda: not alive(main))
        os.kill(rows["side"], signal.SIGKILL)
        os.kill(rows["POD"], signal.SIGKILL)
        up(own.data_dir, own.kubeconfig)
        own.until("the namespace is gone", lambda: "NotFound" in own.kubectl(
            "get", "ns", "gone", check=False), timeout=90)  # fmt: skip
    finally:
        held.kill()
        held.wait()
    assert containers(own) == {}
    own.until("its volume, too", lambda: own.get("pv")["items"] == [])
