"""``sampan snapshot save|restore|ls``: a whole cluster in one file.

The file is a gzipped tar: ``manifest.json`` first, then ``state.db`` (the store as of one
revision), ``pki/`` (the authority, the keys that sign tokens) and, on demand, ``volumes/``. Images
are not in it. Whatever is read from such a file is checked before anything is put in its place.
"""

from __future__ import annotations

import argparse
import fcntl
import gzip
import hashlib
import io
import json
import os
import shutil
import sqlite3
import subprocess
import tarfile
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from sampan import __version__
from sampan.cli.control import Failed, ask
from sampan.cli.lifecycle import place
from sampan.lib.datadir import DataDir

FORMAT, VERSION = "sampan-snapshot", 1
SUFFIX = ".snapshot"
_APPLICATION = 0x53414D50  # of the store's database
_KEPT = (
    "name",
    "nodes",
    "members",
    "stopped",
    "port",
    "runtime",
    "context",
    "userKubeconfig",
    "merge",
    "clusterCIDR",
    "serviceCIDR",
)
_FREEZE, _THAW = 0xC0045877, 0xC0045878  # ioctls FIFREEZE and FITHAW
_CHUNK = 1 << 20
_BROKEN = (OSError, EOFError, tarfile.TarError, zlib.error, ValueError, KeyError)


# -- saving ----------------------------------------------------------------------------------------


def save(args: argparse.Namespace) -> int:
    where = place(args)
    state = where.read_state()
    if state is None or not (where.store / "state.db").exists():
        raise Failed(f"no cluster at {where.root}")
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    out: Path = (args.file or Path(f"{state['name']}-{stamp}{SUFFIX}")).absolute()
    if out.exists():
        raise Failed(f"{out} is there already")
    try:
        with tempfile.TemporaryDirectory(prefix="snapshot-", dir=where.root) as scratch:
            _save(where, state, out, Path(scratch), volumes=args.volumes)
    except OSError as e:
        raise Failed(f"cannot save {out}: {e.strerror or e}") from e
    print(f"saved {state['name']} to {out} ({out.stat().st_size} bytes)")
    return 0


def _save(
    where: DataDir, state: dict[str, Any], out: Path, scratch: Path, *, volumes: bool
) -> None:
    database = scratch / "state.db"
    running = where.running() is not None
    if running:
        ask(where.socket, "snapshot", path=str(database))
    else:
        _copy_of_idle(where, database)
    kept = {k: state[k] for k in _KEPT if k in state}
    files = {"state.db": database}
    files |= {f"pki/{p.name}": p for p in sorted(where.pki.iterdir()) if p.is_file()}
    manifest = {
        "format": FORMAT, "version": VERSION, "sampan": __version__, "created": time.strftime(
            "%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "cluster": kept, "volumes": volumes,
        **_contents(database), "sha256": {n: _digest(p) for n, p in files.items()},
    }  # fmt: skip
    part = out.with_name(out.name + ".part")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as raw:
            with (
                gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=1) as packed,
                tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
            ):
                _add_bytes(tar, "manifest.json", json.dumps(manifest, indent=1).encode())
                for name, path in files.items():
                    tar.add(path, name, recursive=False)
                if volumes:
                    _add_volumes(tar, where, scratch, running=running)
            raw.flush()
            os.fsync(raw.fileno())
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)


def _add_bytes(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = len(data), 0o600, int(time.time())
    tar.addfile(info, io.BytesIO(data))


def _copy_of_idle(where: DataDir, target: Path) -> None:
    """A copy of the store of a cluster that is down; it cannot start meanwhile."""
    with (where.store / "lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            raise Failed(f"{where.store} is in use by another process") from e
        db = sqlite3.connect(where.store / "state.db", isolation_level=None)
        try:
            db.execute("VACUUM INTO ?", (str(target),))
        except sqlite3.Error as e:
            raise Failed(f"{where.store} cannot be read: {e}") from e
        finally:
            db.close()


def _contents(database: Path) -> dict[str, Any]:
    """Revision and number of objects by resource. Raises Failed for what is no store."""
    db = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        (application,) = db.execute("PRAGMA application_id").fetchone()
        (verdict,) = db.execute("PRAGMA integrity_check").fetchone()
        if application != _APPLICATION or verdict != "ok":
            raise Failed(f"its store is damaged: {verdict}")
        (revision,) = db.execute("SELECT coalesce(max(revision), 0) FROM record").fetchone()
        counts = db.execute(
            "SELECT substr(key, 1, instr(key, '/') - 1) AS kind, count(*) FROM record GROUP BY kind"
        ).fetchall()
    except sqlite3.Error as e:
        raise Failed(f"its store is damaged: {e}") from e
    finally:
        db.close()
    return {"revision": revision, "objects": dict(counts)}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _add_volumes(tar: tarfile.TarFile, where: DataDir, scratch: Path, *, running: bool) -> None:
    """Directories as they are; images while their file systems stand still for a moment."""
    nodes = {}
    if running:
        nodes = {n["name"]: n["pid"] for n in ask(where.socket, "status")["nodes"]}
    for node in sorted(where.volumes.iterdir()) if where.volumes.is_dir() else ():
        for path in sorted(node.iterdir()):
            name = f"volumes/{node.name}/{path.name}"
            if path.suffix == ".img":
                copy = scratch / path.name
                with _standstill(nodes.get(node.name, 0), path.with_suffix("")):
                    done = subprocess.run(
                        ["cp", "--sparse=always", str(path), str(copy)],
                        capture_output=True, text=True,
                    )  # fmt: skip
                if done.returncode:
                    copy.unlink(missing_ok=True)
                    if not path.exists():
                        continue  # it was deleted just now
                    raise Failed(f"cannot copy {path.name}: {done.stderr.strip()}")
                tar.add(copy, name, recursive=False)
                copy.unlink()
            elif path.suffix == ".grow" or (path.is_dir() and not _image_of(path).exists()):
                _add_tree(tar, path, name)


def _image_of(path: Path) -> Path:
    return path.with_name(path.name + ".img")


@contextmanager
def _standstill(pid: int, mounted: Path) -> Iterator[None]:
    """The file system mounted there in the namespace of *pid* is whole on disk meanwhile; writers
    wait. One that is not mounted stands still anyway."""
    seen = Path(f"/proc/{pid}/root{mounted}")
    if not pid or not os.path.ismount(seen):
        yield
        return
    fd = os.open(seen, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(fd, _FREEZE, 0)
        try:
            yield
        finally:
            fcntl.ioctl(fd, _THAW, 0)
    finally:
        os.close(fd)


class _Padded:
    """A file that may shrink while it is read: what is missing is zeros."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        return self._file.read(size).ljust(size, b"\0")


def _add_tree(tar: tarfile.TarFile, path: Path, name: str) -> None:
    """A directory that is being written to: what goes away meanwhile is left out; devices and
    sockets are not data."""
    try:
        if path.is_symlink() or not path.is_file():
            info = tar.gettarinfo(path, name)
            if info is None or (info.isdev() and not info.isfifo()):
                return
            tar.addfile(info)
        else:
            with path.open("rb") as file:
                info = tar.gettarinfo(arcname=name, fileobj=file)
                tar.addfile(info, _Padded(file) if info.isreg() else None)  # type: ignore[arg-type]
        inner = sorted(path.iterdir()) if path.is_dir() and not path.is_symlink() else ()
    except FileNotFoundError:
        return
    for entry in inner:
        _add_tree(tar, entry, f"{name}/{entry.name}")


# -- reading ---------------------------------------------------------------------------------------


@contextmanager
def _opened(path: Path) -> Iterator[tuple[tarfile.TarFile, dict[str, Any], gzip.GzipFile]]:
    """The archive, positioned behind its manifest, and the stream below. Raises Failed."""
    if not path.is_file():
        raise Failed(f"{path} is not a file")
    try:
        with gzip.open(path) as packed, tarfile.open(fileobj=packed, mode="r|") as tar:
            first = tar.next()
            if first is None or first.name != "manifest.json":
                raise Failed(f"{path} is not a snapshot of sampan")
            manifest = json.loads(_member(tar, first).read())
            if manifest.get("format") != FORMAT:
                raise Failed(f"{path} is not a snapshot of sampan")
            if manifest["version"] != VERSION:
                raise Failed(
                    f"{path} has format {manifest['version']}; this sampan reads {VERSION}"
                )
            yield tar, manifest, packed
    except (gzip.BadGzipFile, tarfile.ReadError) as e:
        raise Failed(f"{path} is not a snapshot of sampan ({e})") from e
    except _BROKEN as e:
        raise Failed(f"{path} is damaged: {e}") from e


def _member(tar: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    file = tar.extractfile(info)
    if file is None:
        raise ValueError(f"{info.name} is not a file")
    return file


def restore(args: argparse.Namespace) -> int:
    source: Path = args.file
    where = place(args)
    if where.root.exists() and any(where.root.iterdir()):
        raise Failed(f"{where.root} is not empty: a snapshot is restored into a new data directory")
    where.root.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{where.root.name}-", dir=where.root.parent))
    try:
        with _opened(source) as (tar, manifest, stream):
            _unpack(tar, manifest, DataDir(staging))
            while stream.read(_CHUNK):
                """To the end, where the checksum of the whole is."""
        if where.root.exists():
            where.root.rmdir()
        staging.chmod(0o755)
        staging.rename(where.root)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    name = manifest["cluster"]["name"]
    print(f"restored {name} (revision {manifest['revision']}) into {where.root}. Start it:")
    print(f"  sampan up --data-dir {where.root}")
    return 0


def _unpack(tar: tarfile.TarFile, manifest: dict[str, Any], to: DataDir) -> None:
    """Everything into a directory of its own. Raises Failed, and what tarfile raises."""
    wanted: dict[str, str] = dict(manifest["sha256"])
    while (info := tar.next()) is not None:
        top, _, rest = info.name.partition("/")
        parts = info.name.split("/")
        if info.name.startswith("/") or ".." in parts:
            raise ValueError(f"it names a place outside: {info.name}")
        if info.name == "state.db":
            _write(_member(tar, info), to.store / "state.db", wanted.pop("state.db"))
        elif top == "pki" and "/" not in rest and info.name in wanted:
            _write(_member(tar, info), to.pki / rest, wanted.pop(info.name))
        elif top == "volumes" and len(parts) >= 3 and not (info.isdev() and not info.isfifo()):
            _unpack_volume(tar, info, to.volumes, rest)
        else:
            raise ValueError(f"it has what does not belong there: {info.name}")
    if wanted:
        raise ValueError(f"it lacks {', '.join(sorted(wanted))}")
    to.pki.chmod(0o700)
    to.store.chmod(0o700)
    _contents(to.store / "state.db")
    state = {**manifest["cluster"], "pid": 0, "startTicks": -1, "server": "", "version": ""}
    to.state.write_text(json.dumps(state))


def _write(source: IO[bytes], target: Path, digest: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = hashlib.sha256()
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        while chunk := source.read(_CHUNK):
            found.update(chunk)
            file.write(chunk)
    if found.hexdigest() != digest:
        raise ValueError(f"the checksum of {target.name} is wrong")


def _unpack_volume(tar: tarfile.TarFile, info: tarfile.TarInfo, root: Path, name: str) -> None:
    target = root / name
    target.parent.mkdir(parents=True, exist_ok=True)
    inside = os.path.realpath(target.parent)
    if os.path.commonpath([inside, os.path.realpath(root)]) != os.path.realpath(root):
        raise ValueError(f"it names a place outside: {info.name}")
    if os.path.lexists(target) and not (info.isdir() and target.is_dir()):
        raise ValueError(f"it has {info.name} twice")
    if info.isreg() and target.suffix == ".img":
        with target.open("wb") as file:
            _sparse(_member(tar, info), file, info.size)
        target.chmod(0o600)
        return
    if info.islnk():
        info.linkname = info.linkname.partition("/")[2]
    info.name = name
    tar.extract(info, root, numeric_owner=True, filter="fully_trusted")


def _sparse(source: IO[bytes], target: IO[bytes], size: int) -> None:
    """Zeros take no room."""
    empty = bytes(_CHUNK)
    while chunk := source.read(_CHUNK):
        if chunk == empty[: len(chunk)]:
            target.seek(len(chunk), os.SEEK_CUR)
        else:
            target.write(chunk)
    target.truncate(size)


def ls(args: argparse.Namespace) -> int:
    rows = []
    for path in args.path or [Path()]:
        found = sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path]
        for file in found:
            with _opened(file) as (_tar, manifest, _stream):
                cluster = manifest["cluster"]
                rows.append({
                    "file": str(file), "cluster": cluster["name"], "created": manifest["created"],
                    "revision": manifest["revision"], "nodes": cluster["nodes"],
                    "objects": sum(manifest["objects"].values()),
                    "volumes": manifest["volumes"], "size": file.stat().st_size,
                })  # fmt: skip
    if args.output == "json":
        print(json.dumps(rows, indent=2))
        return 0
    head = ("FILE", "CLUSTER", "CREATED", "REVISION", "NODES", "OBJECTS", "VOLUMES", "SIZE")
    table = [head, *((*(str(r[k.lower()]) for k in head[:-2]), "yes" if r["volumes"] else "no",
                      str(r["size"])) for r in rows)]  # fmt: skip
    widths = [max(len(row[i]) for row in table) for i in range(len(head))]
    for row in table:
        print("   ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip())
    return 0
