"""Create, get and list rates of the API at 1, 16 and 64 clients, by wrk over TLS with a token."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import yaml

from sampan.testing.e2e import Cluster, kubectl_path, sampan

SECONDS = 5
_BODY = json.dumps({
    "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "c-"},
    "data": {"k": "v"},
})  # fmt: skip
CREATE = f"""
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{_BODY}'
"""


def cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def wrk(url: str, token: str, clients: int, script: str = "") -> float:
    """Requests per second; every answer must be a success."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as lua:
        lua.write(script)
        lua.flush()
        done = subprocess.run(
            ["wrk", "-t1", f"-c{clients}", f"-d{SECONDS}s", "-s", lua.name, "-H",
             f"Authorization: Bearer {token}", url],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
    if "Non-2xx" in done.stdout:
        raise AssertionError(done.stdout)
    return float(re.findall(r"Requests/sec:\s+([\d.]+)", done.stdout)[0])


def main() -> None:
    root = Path(tempfile.mkdtemp(prefix="sampan-bench-"))
    cluster = Cluster(root / "data", root / "kubeconfig", kubectl_path())
    try:
        sampan("up", "--data-dir", str(cluster.data_dir), "--port", "0", "--runtime", "fake",
               "--kubeconfig", str(cluster.kubeconfig))  # fmt: skip
        cluster.kubectl("create", "serviceaccount", "bench")
        cluster.kubectl("create", "clusterrolebinding", "bench", "--clusterrole=cluster-admin",
                        "--serviceaccount=default:bench")  # fmt: skip
        token = cluster.kubectl("create", "token", "bench").strip()
        config = yaml.safe_load(cluster.kubeconfig.read_text())
        server = config["clusters"][0]["cluster"]["server"]
        base = f"{server}/api/v1/namespaces/default/configmaps"
        (pid,) = json.loads(cluster.sampan("status", "-o", "json"))["mainPids"]
        cluster.kubectl("create", "configmap", "one", "--from-literal=k=v")
        cluster.kubectl("create", "ns", "many")
        bodies = "\n---\n".join(
            f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: m{i}, namespace: many}}\n"
            f"data: {{k: {'x' * 4000}}}"
            for i in range(1000)
        )
        cluster.kubectl("create", "-f", "-", stdin=bodies)
        many = f"{server}/api/v1/namespaces/many/configmaps"
        print(f"{'':32}{'1 client':>12}{'16 clients':>12}{'64 clients':>12}   server CPU at 64")
        for name, url, script in (
            ("get ConfigMap per second", f"{base}/one", ""),
            ("list 1,000 (4 MB) per second", many, ""),
            ("create ConfigMap per second", base, CREATE),
        ):
            rates = []
            for clients in (1, 16, 64):
                before, at = cpu(pid), time.monotonic()
                rates.append(wrk(url, token, clients, script))
                used = (cpu(pid) - before) / (time.monotonic() - at)
            print(f"{name:32}" + "".join(f"{r:12.0f}" for r in rates) + f"   {used:.0%}")
    finally:
        sampan("down", "--purge", "--data-dir", str(cluster.data_dir))
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
