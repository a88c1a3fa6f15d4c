"""Images of a cluster, shared by its nodes: an index and unpacked layers under one directory."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import fcntl
import json
import os
import shutil
import sys
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from sampan.node.images.refs import normalize
from sampan.node.runtime.base import Image, RuntimeFailure

Index = dict[str, dict[str, Any]]


class ImageStore:
    """Several instances (nodes, processes) may use one directory at once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.layers = root / "layers"
        self._seen: tuple[int, int] = (0, 0)
        self._index: Index = {}

    def prepare(self) -> None:
        self.layers.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o711)

    # ---- reading -------------------------------------------------------------------------------

    def find(self, ref: str) -> Image | None:
        """By id, name or name with digest; None when absent or no name."""
        entry = self.entry(ref)
        return _image(entry) if entry else None

    def entry(self, ref: str) -> dict[str, Any] | None:
        index = self._read()
        if ref in index:
            return index[ref]
        if f"sha256:{ref}" in index:
            return index[f"sha256:{ref}"]
        try:
            name = normalize(ref)
        except ValueError:
            return None
        for entry in index.values():
            if name in entry["tags"] or name in entry["digests"]:
                return entry
        return None

    def list(self) -> builtins.list[Image]:
        return [_image(e) for e in self._read().values()]

    def layer_paths(self, image_id: str) -> tuple[str, ...]:
        """Names under ``layers``, the lowest first."""
        return tuple(self._read()[image_id]["layers"])

    # ---- writing -------------------------------------------------------------------------------

    async def load(self, archive: str) -> builtins.list[Image]:
        """Raises RuntimeFailure('ErrImageLoad') with what is wrong with the archive."""
        self.prepare()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "sampan.node.images.unpack", archive, str(self.root),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            out, errors = await process.communicate()
        except asyncio.CancelledError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            raise
        if process.returncode != 0:
            said = errors.decode(errors="replace").strip().splitlines() or ["it was killed"]
            raise RuntimeFailure("ErrImageLoad", f"{archive}: {said[-1]}")
        found = json.loads(out)
        return await asyncio.to_thread(self._enter, found)

    def _enter(self, found: builtins.list[dict[str, Any]]) -> builtins.list[Image]:
        with self._changing() as index:
            ids = []
            for image in found:
                tags = [normalize(t) for t in image["tags"]]
                for other in index.values():  # a name stands for one image only
                    other["tags"] = [t for t in other["tags"] if t not in tags]
                entry = index.setdefault(image["id"], {**image, "tags": [], "digests": []})
                entry["tags"] += [t for t in tags if t not in entry["tags"]]
                digests = {f"{_repository(t)}@{image['digest']}" for t in tags if image["digest"]}
                entry["digests"] = sorted({*entry["digests"], *digests})
                ids.append(image["id"])
            return [_image(index[i]) for i in dict.fromkeys(ids)]

    def remove(self, ref: str, in_use: Callable[[], Collection[str]]) -> bool:
        """Forget a name, or by id the whole image; layers of no image go, but for those *in_use*
        (names under ``layers``). False when there was none. Blocks."""
        with self._changing() as index:
            entry = self._entry_in(index, ref)
            if entry is None:
                return False
            by_id = ref.removeprefix("sha256:") == entry["id"].removeprefix("sha256:")
            with contextlib.suppress(ValueError):
                name = normalize(ref)
                entry["tags"] = [t for t in entry["tags"] if t != name]
            if by_id or not entry["tags"]:
                del index[entry["id"]]
            kept = {*in_use(), *(layer for e in index.values() for layer in e["layers"])}
            for path in self.layers.iterdir():
                if not path.name.startswith(".") and path.name.partition(".")[0] not in kept:
                    if path.is_dir():
                        gone = path.with_name(f".old-{path.name}")
                        path.rename(gone)
                        shutil.rmtree(gone, ignore_errors=True)
                    else:
                        path.unlink(missing_ok=True)
            return True

    @staticmethod
    def _entry_in(index: Index, ref: str) -> dict[str, Any] | None:
        for image_id in (ref, f"sha256:{ref}"):
            if image_id in index:
                return index[image_id]
        with contextlib.suppress(ValueError):
            name = normalize(ref)
            for entry in index.values():
                if name in entry["tags"] or name in entry["digests"]:
                    return entry
        return None

    # ---- inside --------------------------------------------------------------------------------

    @property
    def _path(self) -> Path:
        return self.root / "index.json"

    def _read(self) -> Index:
        try:
            now = self._path.stat()
        except FileNotFoundError:
            return {}
        seen = (now.st_mtime_ns, now.st_ino)
        if seen != self._seen:
            self._index = json.loads(self._path.read_text())["images"]
            self._seen = seen
        return self._index

    @contextlib.contextmanager
    def _changing(self) -> Iterator[Index]:
        self.prepare()
        fd = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            try:
                index: Index = json.loads(self._path.read_text())["images"]
            except FileNotFoundError:
                index = {}
            yield index
            temporary = self._path.with_name(".index.new")
            temporary.write_text(json.dumps({"images": index}))
            temporary.replace(self._path)
        finally:
            os.close(fd)


def _repository(tag: str) -> str:
    head, _, last = tag.rpartition("/")
    return f"{head}/{last.partition(':')[0]}"


def _image(entry: dict[str, Any]) -> Image:
    inner = entry["config"].get("config") or {}
    return Image(
        id=entry["id"],
        tags=tuple(entry["tags"]),
        digests=tuple(entry["digests"]),
        size=entry["size"],
        user=inner.get("User") or "",
        config=inner,
    )
