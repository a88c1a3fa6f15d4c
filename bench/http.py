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


def served(cluster: Cluster, verb: str) -> tuple[int, float]:
    """Requests for config maps of one verb so far, and the seconds the server spent on them: from
    the parsed request to the answer's last byte handed, encrypted, to the loop."""
    text = cluster.kubectl("get", "--raw", "/metrics")
    found = []
    for part in ("count", "sum"):
        pattern = rf'_duration_seconds_{part}{{verb="{verb}",[^}}]*resource="configmaps".*?}} (\S+)'
        found.append(sum(float(x) for x in re.findall(pattern, text)))
    return int(found[0]), found[1]


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
        print(
            f"{'':32}{'1 client':>12}{'16 clients':>12}{'64 clients':>12}"
            "   at 64: server CPU, per request   server time at 1"
        )
        for name, verb, url, script in (
            ("get ConfigMap per second", "GET", f"{base}/one", ""),
            ("list 1,000 (4 MB) per second", "LIST", many, ""),
            ("create ConfigMap per second", "POST", base, CREATE),
        ):
            rates = []
            spent = 0.0
            for clients in (1, 16, 64):
                count, seconds = served(cluster, verb)
                before, at = cpu(pid), time.monotonic()
                rates.append(wrk(url, token, clients, script))
                if clients == 1:
                    more, later = served(cluster, verb)
                    spent = (later - seconds) / (more - count)
                used = (cpu(pid) - before) / (time.monotonic() - at)
            print(f"{name:32}" + "".join(f"{r:12.0f}" for r in rates) + f"   {used:.0%}"
                  f"  {used / rates[-1] * 1000:.3f} ms   {spent * 1000:.2f} ms")  # fmt: skip
    finally:
        sampan("down", "--purge", "--data-dir", str(cluster.data_dir))
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
