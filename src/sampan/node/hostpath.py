"""Paths of the host that a volume names, of a pod or of a PersistentVolume: checked against their
type."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from sampan.api.obj import Body

_CHECKS: dict[str, tuple[Callable[[int], bool], str]] = {
    "Directory": (stat.S_ISDIR, "a directory"),
    "DirectoryOrCreate": (stat.S_ISDIR, "a directory"),
    "File": (stat.S_ISREG, "a file"),
    "FileOrCreate": (stat.S_ISREG, "a file"),
    "Socket": (stat.S_ISSOCK, "a socket file"),
    "CharDevice": (stat.S_ISCHR, "a character device"),
    "BlockDevice": (stat.S_ISBLK, "a block device"),
}


class WrongType(Exception):
    """What is at the path is not of the type that was asked for; the text is the event's."""


def host_path(source: Body) -> str:
    """The path of a ``hostPath`` source, made for the OrCreate types and, as container runtimes do
    it, where no type is asked for. Raises WrongType and OSError."""
    path, kind = str(source["path"]), source.get("type") or ""
    there = os.path.exists(path)
    if not there and kind in ("DirectoryOrCreate", ""):
        os.makedirs(path, mode=0o755, exist_ok=True)
    elif not there and kind == "FileOrCreate":
        Path(path).touch(mode=0o644)
    if kind in _CHECKS:
        fits, what = _CHECKS[kind]
        try:
            mode = os.stat(path).st_mode
        except OSError:
            mode = 0
        if not fits(mode):
            raise WrongType(f"hostPath type check failed: {path} is not {what}")
    return path
