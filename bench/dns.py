"""Cluster DNS under ``dnsperf``, asked inside a node's network. Prints a table."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from pathlib import Path

import yaml

from sampan.testing.e2e import Cluster, kubectl_path, sampan

SERVICES, HEADLESS, SECONDS = 200, 20, 8
DOMAIN = "default.svc.cluster.local"
MIXES = {
    "services, A": [f"s{i}.{DOMAIN} A" for i in range(SERVICES)],
    "headless of 10, A": [f"h{i}.{DOMAIN} A" for i in range(HEADLESS)],
    "what glibc asks: A and AAAA along the search path": [
        f"s{i}.{suffix} {kind}"
        for i in range(SERVICES)
        for suffix in (f"{DOMAIN}.{DOMAIN}", DOMAIN)
        for kind in ("A", "AAAA")
    ],
    "names that are not there, each asked once": [f"x{i}.{DOMAIN} A" for i in range(400_000)],
}  # fmt: skip


def objects() -> str:
    port = {"name": "http", "port": 80}
    bodies: list[object] = [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": f"s{i}"},
         "spec": {"ports": [port]}}
        for i in range(SERVICES)
    ]  # fmt: skip
    for i in range(HEADLESS):
        bodies.append({"apiVersion": "v1", "kind": "Service", "metadata": {"name": f"h{i}"},
                       "spec": {"clusterIP": "None", "ports": [port]}})  # fmt: skip
        bodies.append({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": f"h{i}-own", "labels": {"kubernetes.io/service-name": f"h{i}"}},
            "addressType": "IPv4", "ports": [port],
            "endpoints": [{"addresses": [f"10.42.9.{j}"]} for j in range(1, 11)],
        })  # fmt: skip
    return yaml.safe_dump_all(bodies)


def measure(pid: int, queries: list[str], root: Path, *more: str) -> tuple[float, float, float]:
    """(answers per second, share lost in per cent, mean latency in ms)."""
    file = root / "queries"
    file.write_text("\n".join(queries) + "\n")
    said = subprocess.run(
        ["nsenter", f"--net=/proc/{pid}/ns/net", "dnsperf", "-s", "10.43.0.10", "-d", str(file),
         "-l", str(SECONDS), "-c", "8", "-q", "200", "-e", *more],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    numbers = [
        float(re.search(pattern, said)[1])  # type: ignore[index]
        for pattern in (r"Queries per second:\s+([\d.]+)", r"Queries lost:\s+\d+ \(([\d.]+)%",
                        r"Average Latency \(s\):\s+([\d.]+)")
    ]  # fmt: skip
    return numbers[0], numbers[1], numbers[2] * 1000


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        cluster = Cluster(root / "data", root / "kubeconfig", kubectl_path())
        try:
            sampan(
                "up", "--name", "dns-bench", "--data-dir", str(cluster.data_dir), "--port", "0",
                "--no-uplink", "--kubeconfig", str(cluster.kubeconfig),
            )  # fmt: skip
            cluster.kubectl("apply", "-f", "-", stdin=objects(), timeout=300)
            status = json.loads(cluster.sampan("status", "-o", "json"))
            pid = status["nodes"][0]["pid"]
            print("| Queries | Answers/s | Lost | Mean latency |\n| --- | --- | --- | --- |")
            runs = [(name, queries, ()) for name, queries in MIXES.items()]
            first = next(iter(MIXES))
            for name, queries, more in [*runs, (f"{first}, by TCP", MIXES[first], ("-m", "tcp"))]:
                rate, lost, latency = measure(pid, queries, root, *more)
                print(f"| {name} | {rate:,.0f} | {lost:.2f} % | {latency:.1f} ms |")
        finally:
            sampan("down", "--purge", "--data-dir", str(cluster.data_dir))


if __name__ == "__main__":
    main()
