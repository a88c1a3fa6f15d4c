"""Volumes and snapshots: a pod with a claim of its own to Running, saving and restoring a cluster.
Prints a table."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from sampan.testing.e2e import Cluster, kubectl_path, sampan

ROUNDS, OBJECTS = 10, 5000


def pod(name: str, storage_class: str) -> str:
    spec: dict[str, object] = {"accessModes": ["ReadWriteOnce"],
                               "resources": {"requests": {"storage": "64Mi"}}}  # fmt: skip
    body: dict[str, object] = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [
            {"name": "c", "image": "busybox", "imagePullPolicy": "IfNotPresent",
             "command": ["sleep", "1000"]}]},
    }  # fmt: skip
    parts = [body]
    if storage_class:
        spec["storageClassName"] = storage_class
        container = body["spec"]["containers"][0]  # type: ignore[index]
        container["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
        body["spec"]["volumes"] = [  # type: ignore[index]
            {"name": "data", "persistentVolumeClaim": {"claimName": name}}
        ]
        parts.insert(0, {"apiVersion": "v1", "kind": "PersistentVolumeClaim",
                         "metadata": {"name": name}, "spec": spec})  # fmt: skip
    return yaml.safe_dump_all(parts)


def row(what: str, value: str) -> None:
    print(f"| {what} | {value} |", flush=True)


def pods(c: Cluster) -> None:
    for storage_class in ("", "sampan-local", "sampan-local-sized"):
        times = []
        for i in range(ROUNDS):
            name = f"p{i}-{storage_class or 'none'}"
            began = time.monotonic()
            c.kubectl("apply", "-f", "-", stdin=pod(name, storage_class))
            c.kubectl("wait", f"pod/{name}", "--for=condition=Ready", "--timeout=60s")
            times.append(time.monotonic() - began)
        c.kubectl("delete", "pods,pvc", "--all")
        kind = f"and a new claim of {storage_class}" if storage_class else "without a volume"
        text = f"{statistics.median(times):.2f} s"
        row(f"kubectl apply to Ready (kubectl wait), a pod {kind}: median of {ROUNDS}", text)


def snapshots(c: Cluster, root: Path) -> None:
    for part in range(0, OBJECTS, 500):
        bodies = [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"m{i}"},
                   "data": {"text": "x" * 2000}} for i in range(part, part + 500)]  # fmt: skip
        c.kubectl("create", "-f", "-", stdin=yaml.safe_dump_all(bodies, default_flow_style=None))
    file = root / "a.snapshot"
    began = time.monotonic()
    c.sampan("snapshot", "save", str(file))
    saved = time.monotonic() - began
    row(f"snapshot save of {OBJECTS} ConfigMaps of 2 kB while it runs",
        f"{saved:.2f} s, {file.stat().st_size / 1e6:.1f} MB")  # fmt: skip
    began = time.monotonic()
    sampan("snapshot", "restore", str(file), "--data-dir", str(root / "new"))
    row("snapshot restore", f"{time.monotonic() - began:.2f} s")


def nodes(c: Cluster) -> None:
    """Each command's wall time, Python's own start included."""
    times: dict[str, list[float]] = {}
    for _ in range(5):
        for verb, rest in (("add", ()), ("stop", ("bench-2",)), ("start", ("bench-2",)),
                           ("rm", ("bench-2",))):  # fmt: skip
            began = time.monotonic()
            c.sampan("node", verb, *rest)
            times.setdefault(verb, []).append(time.monotonic() - began)
    for verb, took in times.items():
        row(f"sampan node {verb} (median of 5)", f"{statistics.median(took):.2f} s")


def main() -> None:
    root = Path(tempfile.mkdtemp(prefix="sampan-bench-"))
    c = Cluster(root / "data", root / "kubeconfig", kubectl_path())
    try:
        sampan("up", "--name", "bench", "--data-dir", str(c.data_dir), "--port", "0",
               "--no-uplink", "--kubeconfig", str(c.kubeconfig))  # fmt: skip
        built = subprocess.run([sys.executable, "-m", "sampan.app.stand_ins"], check=True,
                               capture_output=True, text=True)  # fmt: skip
        c.sampan("image", "load", built.stdout.strip())
        nodes(c)
        pods(c)
        snapshots(c, root)
    finally:
        sampan("down", "--purge", "--data-dir", str(c.data_dir))
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
