"""Contents of a volume, replaced atomically: readers see all of the old or all of the new.

The files are in a time-stamped directory that ``..data`` points to, and the names in the volume
point through ``..data``; replacing that one link replaces everything at once.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

DATA = "..data"


@dataclass(frozen=True, slots=True)
class Entry:
    content: bytes
    mode: int = 0o644


def write_payload(
    root: Path, entries: Mapping[str, Entry], *, stamp: float, group: int | None = None
) -> bool:
    """Whether anything had to be changed. entries: by path inside the volume."""
    data = root / DATA
    if data.exists() and _same(data, entries, group):
        return False
    old = os.readlink(data) if data.is_symlink() else ""
    fresh = _fresh(root, stamp)
    for path, entry in entries.items():
        place = fresh / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(entry.content)
        mode = entry.mode
        if group is not None:
            os.chown(place, -1, group)
            mode |= 0o040 | ((mode & 0o100) >> 3)
        place.chmod(mode)
    link = root / "..data_tmp"
    link.unlink(missing_ok=True)
    link.symlink_to(fresh.name)
    os.replace(link, data)
    tops = {p.split("/")[0] for p in entries}
    for top in tops:
        shown = root / top
        if not shown.is_symlink():
            shown.symlink_to(f"{DATA}/{top}")
    for shown in root.iterdir():
        if not shown.name.startswith("..") and shown.name not in tops:
            shown.unlink()
    if old:
        shutil.rmtree(root / old, ignore_errors=True)
    return True


def _fresh(root: Path, stamp: float) -> Path:
    base = datetime.fromtimestamp(stamp, UTC).strftime("..%Y_%m_%d_%H_%M_%S.")
    number = int(stamp * 1e9) % 10**10
    while True:
        path = root / f"{base}{number}"
        try:
            path.mkdir(mode=0o755)
            path.chmod(0o755)
            return path
        except FileExistsError:
            number += 1


def _same(data: Path, entries: Mapping[str, Entry], group: int | None) -> bool:
    target = data.resolve()
    found = {str(p.relative_to(target)) for p in target.rglob("*") if p.is_file()}
    if found != set(entries):
        return False
    for path, entry in entries.items():
        place = data / path
        if place.read_bytes() != entry.content:
            return False
        if group is None and (place.stat().st_mode & 0o7777) != entry.mode:
            return False
    return True
