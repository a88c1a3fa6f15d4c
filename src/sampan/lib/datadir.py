"""Where a cluster keeps its things, and who of them runs."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def started_at(pid: int) -> int:
    """Start time of a process in clock ticks since boot; 0 when it does not run. With the pid it
    names a process for good: pids are used again, the pair is not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    fields = stat.rsplit(")", 1)[1].split()
    return 0 if fields[0] in "ZX" else int(fields[19])


@dataclass(frozen=True, slots=True)
class DataDir:
    """The files of one cluster. Everything it leaves on disk is under ``root``."""

    root: Path

    @staticmethod
    def default(name: str) -> Path:
        """$SAMPAN_DATA_DIR, or /var/lib/sampan/NAME for root, or in the user's home."""
        if given := os.environ.get("SAMPAN_DATA_DIR"):
            return Path(given)
        if os.geteuid() == 0:
            return Path("/var/lib/sampan") / name
        home = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
        return Path(home) / "sampan" / name

    @property
    def state(self) -> Path:
        return self.root / "sampan.json"

    @property
    def socket(self) -> Path:
        return self.root / "sampan.sock"

    @property
    def log(self) -> Path:
        return self.root / "sampan.log"

    @property
    def scheduler(self) -> Path:
        """The scheduler's settings, where somebody gave any."""
        return self.root / "scheduler.yaml"

    @property
    def kubeconfig(self) -> Path:
        return self.root / "kubeconfig"

    @property
    def pki(self) -> Path:
        return self.root / "pki"

    @property
    def store(self) -> Path:
        return self.root / "store"

    @property
    def node_root(self) -> Path:
        """Of the nodes and their containers: images, sandboxes, volumes, logs."""
        return self.root / "node"

    @property
    def volumes(self) -> Path:
        """Local volumes, by node: they stay until they are deleted or the cluster is purged."""
        return self.node_root / "volumes"

    @property
    def address(self) -> str:
        """The cluster's own loopback address: clusters in different directories never collide."""
        digest = hashlib.sha256(str(self.root.resolve()).encode()).digest()
        return f"127.{1 + digest[0] % 254}.{digest[1]}.{1 + digest[2] % 254}"

    def read_state(self) -> dict[str, Any] | None:
        """What the last daemon wrote about itself, or None."""
        try:
            state = json.loads(self.state.read_text())
        except (OSError, ValueError):
            return None
        return state if isinstance(state, dict) else None

    def running(self) -> dict[str, Any] | None:
        """The state of the daemon if it lives, else None."""
        state = self.read_state()
        if state and started_at(int(state.get("pid", 0))) == state.get("startTicks"):
            return state
        return None
