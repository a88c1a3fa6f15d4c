"""What the runtime knows of its sandboxes and containers, and its files."""

from __future__ import annotations

import asyncio
import errno
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import orjson

from sampan.node.runtime.base import (
    ContainerSpec,
    ContainerState,
    Mount,
    SandboxSpec,
    SandboxState,
)

log = logging.getLogger("sampan.node")


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a file; None where there is none, or half of one."""
    try:
        value = orjson.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace the file at once; any thread may. Dataclasses are objects."""
    part = path.with_name(f".{path.name}.{threading.get_ident()}")
    try:
        part.write_bytes(orjson.dumps(value))
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def _noting(save: Callable[[], None]) -> None:
    try:
        save()
    except OSError as e:
        if e.errno != errno.ENOSPC:
            raise
        log.warning("the disk is full: %s", e)


class Sandbox:
    """A pod's sandbox: its pause, addresses and containers."""

    def __init__(self, path: Path, spec: SandboxSpec, *, ips: tuple[str, ...]) -> None:
        self.path = path
        self.spec = spec
        self.ips = ips
        self.pid = 0
        self.ticks = -1
        self.created_at = 0.0
        self.ready = False
        self.stopped = False
        self.fd = -1
        self.ended = asyncio.Event()
        self.containers: dict[str, Container] = {}

    @property
    def id(self) -> str:
        return self.spec.id

    @property
    def hostname(self) -> str:
        return self.spec.hostname or self.spec.name

    @staticmethod
    def load(path: Path, state: dict[str, Any]) -> Sandbox:
        sandbox = Sandbox(path, SandboxSpec(**state["spec"]), ips=tuple(state["ips"]))
        sandbox.pid, sandbox.ticks = state["pid"], state["ticks"]
        sandbox.created_at, sandbox.stopped = state["created_at"], state["stopped"]
        return sandbox

    def note(self) -> None:
        """Save where the disk has room: what changed is found out again, or done again."""
        _noting(self.save)

    def save(self) -> None:
        write_json(self.path / "state.json", {
            "spec": self.spec, "ips": list(self.ips), "pid": self.pid,
            "ticks": self.ticks, "created_at": self.created_at, "stopped": self.stopped,
        })  # fmt: skip

    def state(self) -> SandboxState:
        spec = self.spec
        return SandboxState(
            id=spec.id, namespace=spec.namespace, name=spec.name, uid=spec.uid,
            attempt=spec.attempt, ready=self.ready, ips=self.ips,
            pid=self.pid if self.ready else 0, created_at=self.created_at,
            netns=f"/proc/{self.pid}/ns/net" if self.ready else "", labels=spec.labels,
            containers=tuple(c.state() for c in self.containers.values()),
        )  # fmt: skip


class Container:
    """One attempt of a container."""

    def __init__(
        self, sandbox: Sandbox, spec: ContainerSpec, *, image_id: str, image: Mapping[str, Any]
    ) -> None:
        self.sandbox = sandbox
        self.spec = spec
        self.image_id = image_id
        self.image = image
        self.user: dict[str, Any] = {}
        self.pid = 0
        self.monitor = 0
        self.created_at = 0.0
        self.started_at = 0.0
        self.finished_at = 0.0
        self.exit_code = 0
        self.reason = ""
        self.unstartable = ""  # why it cannot be started
        self.fd = -1
        self.ended = asyncio.Event()

    @property
    def id(self) -> str:
        return self.spec.id

    @property
    def path(self) -> Path:
        return self.sandbox.path / "containers" / self.spec.id

    @staticmethod
    def load(path: Path, state: dict[str, Any], sandbox: Sandbox) -> Container:
        raw = dict(state["spec"])
        raw["mounts"] = tuple(Mount(**m) for m in raw["mounts"])
        raw["env"] = tuple((k, v) for k, v in raw["env"])
        for field in fields(ContainerSpec):
            if isinstance(raw.get(field.name), list):
                raw[field.name] = tuple(raw[field.name])
        container = Container(
            sandbox, ContainerSpec(**raw), image_id=state["image_id"], image=state["image"]
        )
        for name in _SAVED:
            setattr(container, name, state.get(name, getattr(container, name)))
        if container.finished_at:
            container.ended.set()
        return container

    def note(self) -> None:
        """As of a sandbox."""
        _noting(self.save)

    def save(self) -> None:
        if not self.path.is_dir():
            return  # removed in the meantime
        state = {name: getattr(self, name) for name in _SAVED}
        state |= {"spec": self.spec, "image_id": self.image_id, "image": dict(self.image)}
        write_json(self.path / "state.json", state)

    def read_exit(self) -> bool:
        """Take over the exit code conmon wrote; False where there is none."""
        path = self.path / "exits" / self.id
        try:
            self.exit_code = int(path.read_text())
            # A file's time may be a tick behind the clock's.
            self.finished_at = max(path.stat().st_mtime, self.started_at)
        except (OSError, ValueError):
            return False
        self.reason = "Completed" if self.exit_code == 0 else "Error"
        if (self.path / "oom").exists():
            self.reason = "OOMKilled"
        self.ended.set()
        return True

    def has_monitor(self) -> bool:
        """Whether its conmon lives: pids are used again, its command line names the container."""
        if not self.monitor:
            return False
        try:
            line = Path(f"/proc/{self.monitor}/cmdline").read_bytes()
        except OSError:
            return False
        return self.id.encode() in line

    def fails_to_start(self, why: str, now: float) -> None:
        """It was never more than a bundle."""
        self.unstartable, self.finished_at = why, now
        self.exit_code, self.reason = 128, "StartError"
        self.ended.set()

    def lost(self, now: float) -> None:
        """Nobody knows how it ended: its monitor is gone."""
        self.finished_at, self.exit_code, self.reason = now, 137, "ContainerStatusUnknown"
        self.ended.set()
        self.note()

    def _who(self) -> tuple[int, int, tuple[int, ...]] | None:
        if not self.user:
            return None
        return self.user["uid"], self.user["gid"], tuple(self.user["groups"])

    def state(self) -> ContainerState:
        if self.finished_at:
            state = "exited"
        elif self.started_at:
            state = "running"
        else:
            state = "created"
        return ContainerState(
            id=self.id, sandbox_id=self.sandbox.id, name=self.spec.name,
            attempt=self.spec.attempt, state=state, image=self.spec.image,
            image_id=self.image_id, pid=0 if self.finished_at else self.pid,
            created_at=self.created_at, started_at=self.started_at,
            finished_at=self.finished_at, exit_code=self.exit_code,
            signal=self.exit_code - 128 if self.exit_code > 128 else 0, reason=self.reason,
            user=self._who(), log_path=self.spec.log_path, labels=self.spec.labels,
        )  # fmt: skip


_SAVED = ("user", "pid", "monitor", "created_at", "started_at", "finished_at", "exit_code",
          "reason", "unstartable")  # fmt: skip
