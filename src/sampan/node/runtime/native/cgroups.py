"""Control groups of a cluster, version 1 and 2, behind one small seam."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from sampan.node.runtime.native import kernel

_ROOT = Path("/sys/fs/cgroup")
_PERIOD = 100_000


def is_v2() -> bool:
    """Whether the unified hierarchy is the only one."""
    return (_ROOT / "cgroup.controllers").exists()


def _hierarchies() -> Iterator[Path]:
    if is_v2():
        yield _ROOT
        return
    seen: set[Path] = set()
    for top in sorted(_ROOT.iterdir()):
        real = top.resolve()
        if real.is_dir() and real not in seen and (real / "cgroup.procs").exists():
            seen.add(real)
            yield real


def procs(name: str) -> list[int]:
    """Every process in the group *name* or below, in any hierarchy."""
    found: set[int] = set()
    for top in _hierarchies():
        # Groups go while they are looked at: os.walk minds that, Path.rglob does not.
        for directory, _, _ in os.walk(top / name):
            with contextlib.suppress(OSError):
                text = Path(directory, "cgroup.procs").read_text()
                found.update(int(line) for line in text.split())
    return sorted(found)


def remove(name: str, *, seconds: float = 3.0) -> None:
    """Remove the group *name* and those below, once their processes are gone."""
    deadline = time.monotonic() + seconds
    while True:
        left = False
        for top in _hierarchies():
            base = top / name
            if not base.exists():
                continue
            for directory, _, _ in os.walk(base, topdown=False):
                try:
                    os.rmdir(directory)
                except OSError:
                    left = True
        if not left or time.monotonic() > deadline:
            return
        time.sleep(0.01)


def make_pod(name: str, *, shares: int, quota: int, memory: int) -> None:
    """The group of a pod with its limits. shares: as in CRI; quota: microseconds of 100 ms;
    memory: bytes; 0 = no limit."""
    values: dict[str, dict[str, str]]
    if is_v2():
        weight = max(1, min(10000, 1 + (max(shares, 2) - 2) * 9999 // 262142))
        files = {"cpu.weight": str(weight)}
        if quota:
            files["cpu.max"] = f"{quota} {_PERIOD}"
        if memory:
            files["memory.max"] = str(memory)
        values = {"": files}
    else:
        values = {"cpu": {"cpu.shares": str(max(2, shares))}}
        if quota:
            values["cpu"]["cpu.cfs_quota_us"] = str(quota)
        if memory:
            values["memory"] = {"memory.limit_in_bytes": str(memory)}
    for controller, files in values.items():
        top = _ROOT / controller if controller else _ROOT
        if not top.is_dir():
            continue
        path = top / name
        path.mkdir(parents=True, exist_ok=True)
        for file, value in files.items():
            # A kernel without the controller: the containers' own limits still hold.
            with contextlib.suppress(OSError):
                kernel.write(path / file, value)


def usage(name: str, *, root: Path = _ROOT) -> dict[str, int]:
    """cpu_ns (cumulative) and memory_bytes (working set) of a group, of either version. root:
    where the hierarchies are (tests have recorded ones)."""

    def read(*parts: str) -> int:
        try:
            return int((root.joinpath(*parts)).read_text())
        except (OSError, ValueError):
            return 0

    def stat(path: Path, key: str) -> int:
        with contextlib.suppress(OSError):
            for line in path.read_text().splitlines():
                word, _, value = line.partition(" ")
                if word == key:
                    return int(value)
        return 0

    if (root / "cgroup.controllers").exists():
        base = root / name
        cpu = stat(base / "cpu.stat", "usage_usec") * 1000
        memory = read(name, "memory.current") - stat(base / "memory.stat", "inactive_file")
    else:
        cpu = read("cpuacct", name, "cpuacct.usage")
        memory = read("memory", name, "memory.usage_in_bytes")
        memory -= stat(root / "memory" / name / "memory.stat", "total_inactive_file")
    return {"cpu_ns": cpu, "memory_bytes": max(0, memory)}
