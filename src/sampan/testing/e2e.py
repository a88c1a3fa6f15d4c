"""A real cluster driven by the real kubectl, for end-to-end tests and benches."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sampan.node.runtime.native.nodes import cluster_id


def sampan(*args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the ``sampan`` command. A failure fails the test with what was printed."""
    done = subprocess.run(
        [sys.executable, "-m", "sampan", *args], capture_output=True, text=True, timeout=240
    )
    if check and done.returncode:
        raise AssertionError(f"sampan {args}: {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


@dataclass
class Cluster:
    """One running cluster and how to talk to it."""

    data_dir: Path
    kubeconfig: Path
    kubectl_binary: str

    def kubectl(self, *args: str, check: bool = True, stdin: str = "", timeout: float = 120) -> str:
        done = subprocess.run(
            self.kubectl_command(*args), input=stdin, capture_output=True, text=True,
            timeout=timeout, env=self.env,
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(f"kubectl {args}: {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout + ("" if check else done.stderr)

    def kubectl_command(self, *args: str) -> list[str]:
        return [self.kubectl_binary, "--kubeconfig", str(self.kubeconfig), *args]

    @property
    def env(self) -> dict[str, str]:
        # kubectl's discovery cache must not be shared between clusters that come and go.
        return {**os.environ, "HOME": str(self.data_dir.parent)}

    def get(self, *args: str) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.kubectl("get", *args, "-o", "json"))
        return answer

    def sampan(self, *args: str) -> str:
        return sampan(*args, "--data-dir", str(self.data_dir)).stdout

    def until(self, what: str, check: Callable[[], Any], *, timeout: float = 60) -> Any:
        """Poll *check* until it is true; its value."""
        deadline = time.monotonic() + timeout
        while not (value := check()):
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {timeout:g} s: {what}\n" + self.picture())
            time.sleep(0.1)
        return value

    def picture(self) -> str:
        log = self.data_dir / "sampan.log"
        return (
            self.kubectl("get", "pods,rs,deploy", "-A", "-o", "wide", check=False)
            + self.kubectl("get", "events", "-A", check=False)
            + (log.read_text()[-4000:] if log.exists() else "")
        )


def host_state(*node_roots: Path) -> dict[str, set[str]]:
    """What clusters can leave on the host: mounts, links, nft tables, and the control groups of
    those of *node_roots* (others may run beside them)."""

    def lines(*command: str) -> set[str]:
        out = subprocess.run(command, capture_output=True, text=True).stdout
        return {line.strip() for line in out.splitlines()}

    ids = [cluster_id(root) for root in node_roots]
    groups = {  # os.walk: groups of other clusters may go while it looks
        f"{top}/{name}"
        for top, names, _files in os.walk("/sys/fs/cgroup")
        for name in names
        if any(i in name for i in ids)
    }
    return {
        "mounts": {line.split()[4] for line in Path("/proc/self/mountinfo").open()},
        "links": {line.split(":")[1] for line in lines("ip", "-o", "link") if ":" in line},
        "nft": lines("nft", "list", "tables"),
        "cgroups": groups,
        "devices": {str(p) for p in Path("/dev").iterdir()},
        "loops": {
            backing
            for p in Path("/sys/block").glob("loop*/loop/backing_file")
            if (backing := _text(p)).startswith(tuple(f"{root}/" for root in node_roots))
        },
        "netns": lines("ip", "netns", "list"),
    }


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""  # gone meanwhile


def kubectl_path() -> str:
    """The kubectl of the machine or the one scripts/setup brought."""
    found = shutil.which("kubectl")
    local = Path(sys.executable).parent / "kubectl"
    if local.exists():
        return str(local)
    assert found, "no kubectl: run scripts/setup"
    return found


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state not in "ZX"
