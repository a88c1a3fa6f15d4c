"""Container logs in CRI format, read as ``kubectl logs`` asks: from files, by position and time.

A line of the file is ``<RFC 3339 nano time> <stdout|stderr> <P|F> <text>``; P marks a piece of a
line that goes on in the next.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sampan.api.obj import Body
from sampan.lib.clock import parse_rfc3339

POLL = 0.15  # seconds between looks at a followed file
_CHUNK = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which lines, and how. tail: the last so many (None: all). since: epoch seconds."""

    follow: bool = False
    tail: int | None = None
    since: float = 0.0
    timestamps: bool = False
    limit: int | None = None  # bytes
    stream: str = "All"


def pod_log_dir(root: Path, pod: Body) -> Path:
    meta = pod["metadata"]
    return root / f"{meta.get('namespace', '')}_{meta['name']}_{meta.get('uid', '')}"


def log_path(root: Path, pod: Body, container: str, attempt: int) -> Path:
    """One file per attempt: ``<namespace>_<pod>_<uid>/<container>/<attempt>.log``."""
    return pod_log_dir(root, pod) / container / f"{attempt}.log"


def drop_stale_logs(root: Path, uids: set[str]) -> None:
    """Remove the logs of pods that are not among *uids*."""
    for directory in root.iterdir() if root.is_dir() else ():
        if directory.name.rpartition("_")[2] not in uids:
            shutil.rmtree(directory, ignore_errors=True)


async def read(
    path: str, selection: Selection, *, is_running: Callable[[], bool]
) -> AsyncIterator[bytes]:
    """The chosen text. When following, goes on until the container has ended and all was read."""
    budget = selection.limit
    shape = _Shape(selection)
    while (file := _open(path)) is None:
        if not (selection.follow and is_running()):
            return
        await asyncio.sleep(POLL)
    try:
        if selection.tail is not None:
            _seek_tail(file, selection.tail)
        rest = b""
        last_look = False
        while True:
            chunk = file.read(_CHUNK)
            if chunk:
                *lines, rest = (rest + chunk).split(b"\n")
                out = b"".join(shape.text(line) for line in lines)
                if budget is not None:
                    out = out[:budget]
                    budget -= len(out)
                if out:
                    yield out
                if budget == 0:
                    return
                await asyncio.sleep(0)
                continue
            if not selection.follow:
                return
            moved = _moved(file, path)
            if moved is not None:
                file.close()
                file, rest = moved, b""
                continue
            if last_look:
                return
            if is_running():
                await asyncio.sleep(POLL)
            else:
                last_look = True  # what was written just before the end
                await asyncio.sleep(POLL)
    finally:
        file.close()


def tail_for_message(path: str) -> str:
    """The end of a log, as a termination message: at most 80 lines and 2 KiB."""
    try:
        with open(path, "rb") as file:
            _seek_tail(file, 80)
            shape = _Shape(Selection())
            text = b"".join(shape.text(line) for line in file.read().split(b"\n"))
    except OSError:
        return ""
    return text[-2048:].decode("utf-8", "replace")


class _Shape:
    """Turns lines of the file into what is shown."""

    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        self._within = False  # the last piece shown did not end its line

    def text(self, line: bytes) -> bytes:
        parts = line.split(b" ", 3)
        if len(parts) < 3:
            return b""
        time, stream, tag = parts[0], parts[1].decode("latin-1"), parts[2]
        content = parts[3] if len(parts) == 4 else b""
        chosen = self._selection
        if chosen.stream != "All" and chosen.stream.lower() != stream:
            return b""
        if chosen.since and _epoch(time) < chosen.since:
            return b""
        prefix = time + b" " if chosen.timestamps and not self._within else b""
        self._within = tag.startswith(b"P")
        return prefix + content + (b"" if self._within else b"\n")


def _epoch(time: bytes) -> float:
    text = time.decode("latin-1")
    try:
        head, dot, rest = text.partition(".")
        if not dot:
            return parse_rfc3339(text)
        digits = rest.rstrip("Z")
        for sign in "+-":
            digits = digits.partition(sign)[0]
        zone = rest[len(digits) :]
        return parse_rfc3339(head + zone) + float(f"0.{digits or 0}")
    except ValueError:
        return 0.0


def _seek_tail(file: BinaryIO, lines: int) -> None:
    """To where the last *lines* whole lines begin (pieces of one line count once)."""
    file.seek(0, os.SEEK_END)
    end = position = file.tell()
    if lines <= 0:
        return
    kept = b""
    while position > 0:
        step = min(_CHUNK, position)
        position -= step
        file.seek(position)
        kept = file.read(step) + kept
        starts = _line_starts(kept, whole=position == 0)
        if len(starts) >= lines:
            file.seek(position + starts[-lines])
            return
    file.seek(0 if end else end)


def _line_starts(data: bytes, *, whole: bool) -> list[int]:
    """Offsets at which lines begin (a line in pieces begins at its first piece). whole: data
    begins at the beginning of the file; otherwise its first line is of unknown extent."""
    starts: list[int] = []
    offset, joined = 0, not whole
    for line in data.split(b"\n")[:-1]:
        parts = line.split(b" ", 3)
        if not joined:
            starts.append(offset)
        joined = len(parts) > 2 and parts[2].startswith(b"P")
        offset += len(line) + 1
    return starts


def _open(path: str) -> BinaryIO | None:
    try:
        return open(path, "rb")
    except FileNotFoundError:
        return None


def _moved(file: BinaryIO, path: str) -> BinaryIO | None:
    """The file at *path* when it is another one now; a truncated one is read from its start."""
    try:
        there, here = os.stat(path), os.fstat(file.fileno())
    except OSError:
        return None
    if there.st_ino != here.st_ino:
        return open(path, "rb")
    if there.st_size < file.tell():
        file.seek(0)
    return None
