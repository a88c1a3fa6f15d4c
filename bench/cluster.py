"""The whole cluster: launch, first pod, idle cost, pods per second. Prints a table."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from sampan.testing.e2e import Cluster, kubectl_path, sampan

POD = {
    "apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "p-"},
    "spec": {"terminationGracePeriodSeconds": 0, "containers": [
        {"name": "c", "image": "busybox", "imagePullPolicy": "IfNotPresent",
         "command": ["sleep", "1000"]}]},
}  # fmt: skip


class Api:
    """Requests over a few kept connections, and a watch on pods."""

    def __init__(self, kubeconfig: Path) -> None:
        import base64
        import ssl

        config = yaml.safe_load(kubeconfig.read_text())
        entry, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        host, port = entry["server"].removeprefix("https://").split(":")
        self.address = (host, int(port))
        ca = base64.b64decode(entry["certificate-authority-data"]).decode()
        self.tls = ssl.create_default_context(cadata=ca)
        with tempfile.NamedTemporaryFile() as pair:
            pair.write(base64.b64decode(user["client-key-data"])
                       + base64.b64decode(user["client-certificate-data"]))  # fmt: skip
            pair.flush()
            self.tls.load_cert_chain(pair.name)
        self.running: dict[str, float] = {}
        self._news = asyncio.Event()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(
            *self.address, ssl=self.tls, server_hostname=self.address[0]
        )

    async def request(self, connection: Any, method: str, path: str, body: Any = None) -> Any:
        reader, writer = connection
        data = json.dumps(body).encode() if body is not None else b""
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        writer.write(head.encode() + f"Content-Length: {len(data)}\r\n\r\n".encode() + data)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = int(answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        return json.loads(await reader.readexactly(length))

    async def watch(self) -> None:
        reader, writer = await self.connect()
        writer.write(b"GET /api/v1/pods?watch=1 HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        rest = b""
        while size := int((await reader.readline()).strip() or b"0", 16):
            rest += await reader.readexactly(size)
            await reader.readline()
            *lines, rest = rest.split(b"\n")
            for line in lines:
                event = json.loads(line)
                pod = event["object"]
                if pod.get("status", {}).get("phase") == "Running":
                    self.running.setdefault(pod["metadata"]["name"], time.perf_counter())
                    self._news.set()

    async def until_running(self, name: str) -> float:
        while name not in self.running:
            self._news.clear()
            await self._news.wait()
        return self.running[name]


async def pods(kubeconfig: Path, *, count: int, at_once: int) -> tuple[list[float], float]:
    """(seconds from POST to Running of each, pods per second)."""
    api = Api(kubeconfig)
    watching = asyncio.create_task(api.watch())
    await asyncio.sleep(0.3)
    latencies: list[float] = []
    left = iter(range(count))

    async def worker() -> None:
        connection = await api.connect()
        for _ in left:
            began = time.perf_counter()
            path = "/api/v1/namespaces/default/pods"
            made = await api.request(connection, "POST", path, POD)
            latencies.append(await api.until_running(made["metadata"]["name"]) - began)

    began = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(at_once)))
    took = time.perf_counter() - began
    watching.cancel()
    return latencies, count / took


def pss(pids: list[int]) -> int:
    """Proportional set size of processes, in kB."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def up(root: Path, *more: str) -> tuple[Cluster, float]:
    cluster = Cluster(root / "data", root / "kubeconfig", kubectl_path())
    began = time.perf_counter()
    sampan("up", "--data-dir", str(cluster.data_dir), "--port", "0", "--no-uplink",
           "--kubeconfig", str(cluster.kubeconfig), *more)  # fmt: skip
    return cluster, time.perf_counter() - began


def main() -> None:
    stand_ins = subprocess.run(
        [sys.executable, "-m", "sampan.app.stand_ins"], check=True, capture_output=True, text=True
    ).stdout.strip()
    rows: list[tuple[str, str]] = []
    root = Path(tempfile.mkdtemp(prefix="sampan-bench-"))
    try:
        fresh, again, first = [], [], []
        for _ in range(5):
            cluster, took = up(root)
            fresh.append(took)
            cluster.sampan("image", "load", stand_ins)
            cluster.sampan("down")
            began = time.perf_counter()
            _, took = up(root)
            again.append(took)
            asyncio.run(pods(cluster.kubeconfig, count=1, at_once=1))
            first.append(time.perf_counter() - began - 0.3)
            cluster.sampan("down", "--purge")
        rows.append(("launch to ready, new data directory", f"{statistics.median(fresh):.2f} s"))
        rows.append(("launch to ready, existing data", f"{statistics.median(again):.2f} s"))
        rows.append(("launch to first pod Running", f"{statistics.median(first):.2f} s"))

        cluster, _ = up(root)
        cluster.sampan("image", "load", stand_ins)
        info = json.loads(cluster.sampan("status", "-o", "json"))
        (main_pid,) = info["mainPids"]
        time.sleep(3)
        before = cpu_seconds(main_pid)
        time.sleep(30)
        idle = (cpu_seconds(main_pid) - before) / 30
        rows.append(("idle, empty cluster: CPU of one core", f"{idle:.2%}"))
        rows.append(
            ("idle, empty cluster: PSS of everything", f"{pss(info['pids']) / 1024:.0f} MB")
        )

        latencies, _ = asyncio.run(pods(cluster.kubeconfig, count=30, at_once=1))
        latencies.sort()
        rows.append(("POST of a pod to Running, one at a time: p50 / p99",
                     f"{latencies[15] * 1000:.0f} / {latencies[29] * 1000:.0f} ms"))  # fmt: skip
        info = json.loads(cluster.sampan("status", "-o", "json"))
        helpers = [p for p in info["pids"] if p != main_pid]
        rows.append(("monitor and pause of a pod, PSS (31 pods)",
                     f"{pss(helpers) / 1024 / 31:.2f} MB"))  # fmt: skip
        latencies, rate = asyncio.run(pods(cluster.kubeconfig, count=80, at_once=8))
        rows.append(("pods per second, whole system, concurrency 8", f"{rate:.0f}"))
    finally:
        sampan("down", "--purge", "--data-dir", str(root / "data"))
        shutil.rmtree(root)
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name.ljust(width)}   {value}")


if __name__ == "__main__":
    main()
