"""``sampan up`` and ``sampan down``."""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any

from sampan.cli.control import Failed, ask
from sampan.client import kubeconfig
from sampan.lib.addressing import Plan, Unusable, plan
from sampan.lib.datadir import DataDir, started_at

_TOOLS = {"conmon": "conmon", "catatonit": "catatonit"}  # command -> Debian package


def place(args: argparse.Namespace) -> DataDir:
    return DataDir((args.data_dir or DataDir.default(args.name or "sampan")).absolute())


def context(name: str) -> str:
    """The kubeconfig context of a cluster: ``sampan``, or ``sampan-NAME``."""
    return "sampan" if name == "sampan" else f"sampan-{name}"


def _require_tools(runtime: str) -> None:
    if runtime != "native":
        return
    if os.geteuid() != 0:
        raise Failed("the native runtime needs root (or try --runtime fake)")
    missing = [package for tool, package in _TOOLS.items() if not shutil.which(tool)]
    if not (shutil.which("crun") or shutil.which("runc")):
        missing.append("crun")
    try:
        ctypes.CDLL("libnftables.so.1")
    except OSError:
        missing.append("libnftables1")
    if missing:
        raise Failed(f"missing: apt-get install {' '.join(missing)}")


def _addresses(args: argparse.Namespace, before: dict[str, Any], *, last: int = 1) -> Plan:
    """What is asked for, or what the cluster has, which is what it keeps. Raises Failed."""
    families, pods, services = args.ip_families, args.cluster_cidr, args.service_cidr
    try:
        made = plan(families or "", pods or "", services or "", last=last)
        if not before:
            return made
        held = plan(
            pods=before.get("clusterCIDR", ""), services=before.get("serviceCIDR", ""), last=last
        )
    except Unusable as e:
        raise Failed(str(e)) from e
    if (
        (families and made.families != held.families)
        or (pods and made.pods != held.pods)
        or (services and made.services != held.services)
    ):
        ranges = f"{', '.join(held.pods)} for pods and {', '.join(held.services)} for Services"
        raise Failed(f"this cluster has {ranges}, and keeps them (`sampan down --purge` first)")
    return held


def up(args: argparse.Namespace) -> int:
    where = place(args)
    if running := where.running():
        print(f"sampan is already running (pid {running['pid']}) at {running['server']}")
        _addresses(args, running)
        running = _more_nodes(where, running, args.nodes or 0)
        _tell(where, running)
        if args.demo:
            _demo(where)
        return 0
    before = where.read_state() or {}
    # What a cluster was started with, it keeps, unless it is told otherwise.
    name = args.name or before.get("name") or "sampan"
    runtime = args.runtime or before.get("runtime") or "native"
    chosen = args.kubeconfig
    if chosen is None and before and not before.get("merge"):
        chosen = Path(before["userKubeconfig"])
    _require_tools(runtime)
    nodes = args.nodes or before.get("nodes") or 1
    members = _members(before, args.nodes)
    addresses = _addresses(args, before, last=max(members))
    try:
        where.root.mkdir(parents=True, exist_ok=True, mode=0o755)
    except OSError as e:
        raise Failed(f"cannot use {where.root}: {e.strerror}") from e
    config = {
        "name": name,
        "dataDir": str(where.root),
        "nodes": nodes,
        "members": members,
        "stopped": [i for i in before.get("stopped") or () if i in members],
        "port": args.port if args.port is not None else before.get("port") or 6443,
        "runtime": runtime,
        "context": context(name),
        "userKubeconfig": str((chosen or kubeconfig.user_path()).absolute()),
        "merge": chosen is None,
        "clusterCIDR": ",".join(addresses.pods),
        "serviceCIDR": ",".join(addresses.services),
        "schedulerConfig": str(args.scheduler_config.absolute()) if args.scheduler_config else "",
    }
    began = time.monotonic()
    print(f"sampan {name}: pods have no way out of this host (no uplink)")
    with open(where.log, "ab") as log:
        daemon = subprocess.Popen(
            [sys.executable, "-m", "sampan", "serve", json.dumps(config)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, cwd="/",
            start_new_session=True,
        )  # fmt: skip
    assert daemon.stdout is not None
    try:
        _follow(daemon.stdout, where, began)
    except BaseException:
        daemon.terminate()
        daemon.wait()
        raise
    state = where.running()
    if state is None:
        raise Failed(f"the cluster stopped right after its start; see {where.log}")
    _tell(where, state)
    if args.demo:
        _demo(where)
    return _stay(daemon, args) if args.foreground else 0


def _more_nodes(where: DataDir, running: dict[str, Any], wanted: int) -> dict[str, Any]:
    """Nodes that a running cluster lacks are added; the state afterwards."""
    more = wanted - int(running["nodes"])
    if more > 0:
        for name in ask(where.socket, "node", verb="add", count=more):
            print(f"node {name} added")
        return where.running() or running
    if wanted and more < 0:
        print(f"it has {running['nodes']} nodes; to remove one: sampan node rm NODE")
    return running


def _members(before: dict[str, Any], wanted: int | None) -> list[int]:
    """Indexes of the nodes to start: those there were, with more or without the last ones where
    another number is wanted."""
    known = [int(i) for i in before.get("members") or range(1, int(before.get("nodes") or 0) + 1)]
    count = wanted or len(known) or 1
    free = [i for i in range(1, count + len(known) + 1) if i not in known]
    return sorted((known + free)[:count])


def _follow(lines: IO[bytes], where: DataDir, began: float) -> None:
    """Print each stage as it ends, until the daemon says it is ready."""
    for line in lines:
        news = json.loads(line)
        if "error" in news:
            raise Failed(news["error"])
        if "stage" in news:
            seconds = time.monotonic() - began
            print(f"  {seconds:6.2f}s  {news['stage']}", flush=True)
        if news.get("ready"):
            return
    raise Failed(f"the cluster did not start; see {where.log}")


def _tell(where: DataDir, state: dict[str, Any]) -> None:
    if state.get("merge"):
        how = f"kubectl --context {state['context']}"
    else:
        how = f"kubectl --kubeconfig {state['userKubeconfig']}"
    print(f"Ready at {state['server']} with {state['nodes']} node(s). Try:")
    print(f"  {how} get nodes -o wide")
    print("  scripts/demo-images            # stand-in images, built from Debian packages")
    print(f"  {how} get pods -A -o wide")
    print("  sampan status; sampan ps; sampan down")


def _demo(where: DataDir) -> None:
    """Build and load the stand-in images, run the demo's pods."""
    print("demo: building stand-in images from Debian packages", flush=True)
    built = subprocess.run(
        [sys.executable, "-m", "sampan.app.stand_ins"], capture_output=True, text=True, cwd="/"
    )
    if built.returncode:
        last = (built.stderr.strip().splitlines() or ["unknown problem"])[-1]
        raise Failed(f"cannot build the stand-in images: {last}")
    ask(where.socket, "image-load", path=built.stdout.strip())
    print(ask(where.socket, "demo"))


def _stay(daemon: subprocess.Popen[bytes], args: argparse.Namespace) -> int:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    try:
        code = daemon.wait()
        raise Failed(f"the cluster stopped by itself (exit code {code})")
    except KeyboardInterrupt:
        args.purge = False
        return down(args)


def down(args: argparse.Namespace) -> int:
    where = place(args)
    state = where.read_state()
    if state is None:
        if where.root.exists() and any(where.root.iterdir()) and args.purge:
            raise Failed(f"{where.root} is not a data directory of sampan; nothing was removed")
        print(f"no cluster at {where.root}")
        return 0
    if where.running():
        _end(int(state["pid"]), int(state["startTicks"]))
    cleaned = subprocess.run(
        [sys.executable, "-m", "sampan", "cleanup", str(where.root)],
        capture_output=True, text=True, cwd="/",
    )  # fmt: skip
    if cleaned.returncode:
        last = (cleaned.stderr.strip().splitlines() or ["unknown problem"])[-1]
        raise Failed(f"cannot clean up {where.root}: {last}")
    user = Path(state["userKubeconfig"])
    if state.get("merge"):
        try:
            kubeconfig.remove(user, state["context"])
        except kubeconfig.Unreadable as e:
            print(f"sampan: left as it is: {e}", file=sys.stderr)
    where.socket.unlink(missing_ok=True)
    if args.purge:
        if not state.get("merge"):
            user.unlink(missing_ok=True)
        shutil.rmtree(where.root)
    print(f"{state['name']} is down" + (", its data removed" if args.purge else ""))
    return 0


def _end(pid: int, start: int) -> None:
    """SIGTERM to the daemon, SIGKILL where it does not end within 10 s. The start time makes sure
    that it is the daemon still."""
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 10
    while started_at(pid) == start:
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            deadline += 3600
        time.sleep(0.01)
