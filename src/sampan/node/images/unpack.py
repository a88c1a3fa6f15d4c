"""Unpack an image archive into a store: ``python -m sampan.node.images.unpack ARCHIVE STORE``.

A process of its own: tarfile holds the interpreter's lock for as long as it works. Prints the
images as JSON; the parent enters them into the store's index.

A layer becomes a directory that overlayfs understands: whiteouts are devices 0:0, opaque
directories carry an attribute. Every name is resolved inside the layer's directory; one that leads
outside makes the whole layer refused.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import shutil
import stat
import sys
import tarfile
from pathlib import Path
from typing import IO, Any

from sampan.node.images.archive import Archive, ArchivedImage, BadArchive, Hashing, decompressed

_OPAQUE = ".wh..wh..opq"
_WHITEOUT = ".wh."
_MAX_LINKS = 40
_CHUNK = 1 << 20


class Escape(BadArchive):
    """A name in a layer leads outside the layer."""


class Tree:
    """A directory that a layer is written into; nothing outside it is ever touched."""

    def __init__(self, root: Path) -> None:
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._times: dict[str, float] = {}
        self._parent: tuple[str, str, int] = ("", "", os.dup(self._root))

    def close(self) -> None:
        os.close(self._parent[2])
        os.close(self._root)

    def add(self, info: tarfile.TarInfo, content: IO[bytes] | None) -> None:
        """One member of the layer. Raises BadArchive."""
        name = _clean(info.name)
        if not name:
            self._describe_directory("", info, self._root)
            return
        head, _, base = name.rpartition("/")
        where, parent = self._directory(head)
        if base == _OPAQUE:
            os.setxattr(f"/proc/self/fd/{parent}", "trusted.overlay.opaque", b"y")
            return
        if base.startswith(_WHITEOUT):
            self._whiteout(parent, base.removeprefix(_WHITEOUT))
            return
        self._make(info, content, parent, base, f"{where}/{base}" if where else base)

    def finish(self) -> None:
        """Directories get their times last: writing into them has changed them."""
        for path, mtime in sorted(self._times.items(), reverse=True):
            with contextlib.suppress(FileNotFoundError, Escape):
                fd = self._open(path)
                try:
                    os.utime(f"/proc/self/fd/{fd}", (mtime, mtime))
                finally:
                    os.close(fd)

    def _make(
        self,
        info: tarfile.TarInfo,
        content: IO[bytes] | None,
        parent: int,
        base: str,
        path: str,
    ) -> None:
        present = _lstat(parent, base)
        if info.isdir() and present is not None and stat.S_ISDIR(present.st_mode):
            pass
        elif present is not None:
            self._remove(parent, base)
            present = None
        if info.isdir():
            if present is None:
                os.mkdir(base, 0o700, dir_fd=parent)
            fd = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
            try:
                self._describe_directory(path, info, fd)
            finally:
                os.close(fd)
        elif info.isreg():
            self._file(info, content, parent, base)
        elif info.issym():
            os.symlink(info.linkname, base, dir_fd=parent)
            self._forget()
            os.chown(base, info.uid, info.gid, dir_fd=parent, follow_symlinks=False)
            times = (info.mtime, info.mtime)
            os.utime(base, times, dir_fd=parent, follow_symlinks=False)
        elif info.islnk():
            self._link(info, parent, base)
        elif info.ischr() or info.isblk() or info.isfifo():
            kind = stat.S_IFIFO if info.isfifo() else stat.S_IFCHR if info.ischr() else stat.S_IFBLK
            device = 0 if info.isfifo() else os.makedev(info.devmajor, info.devminor)
            os.mknod(base, kind | 0o600, device, dir_fd=parent)
            os.chown(base, info.uid, info.gid, dir_fd=parent, follow_symlinks=False)
            os.chmod(base, info.mode & 0o7777, dir_fd=parent)
        else:
            raise BadArchive(f"{info.name}: a member of type {info.type!r} is not known")

    def _file(
        self, info: tarfile.TarInfo, content: IO[bytes] | None, parent: int, base: str
    ) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(base, flags, 0o600, dir_fd=parent)
        try:
            left = info.size
            while left and content is not None:
                data = content.read(min(_CHUNK, left))
                if not data:
                    raise BadArchive(f"{info.name} is cut short")
                os.write(fd, data)
                left -= len(data)
            os.fchown(fd, info.uid, info.gid)
            os.fchmod(fd, info.mode & 0o7777)
            _attributes(fd, info)
            os.utime(fd, (info.mtime, info.mtime))
        finally:
            os.close(fd)

    def _link(self, info: tarfile.TarInfo, parent: int, base: str) -> None:
        head, _, target = _clean(info.linkname).rpartition("/")
        fd = self._open(self.resolve(head))
        try:
            os.link(target, base, src_dir_fd=fd, dst_dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError as e:
            raise BadArchive(f"{info.name} is linked to {info.linkname}, not in its layer") from e
        finally:
            os.close(fd)

    def _describe_directory(self, path: str, info: tarfile.TarInfo, fd: int) -> None:
        os.fchown(fd, info.uid, info.gid)
        os.fchmod(fd, info.mode & 0o7777)
        _attributes(fd, info)
        self._times[path] = info.mtime

    def _whiteout(self, parent: int, base: str) -> None:
        if base in ("", ".", ".."):
            raise BadArchive("a whiteout names nothing")
        if _lstat(parent, base) is not None:
            self._remove(parent, base)
        os.mknod(base, stat.S_IFCHR, os.makedev(0, 0), dir_fd=parent)

    def _remove(self, parent: int, base: str) -> None:
        found = _lstat(parent, base)
        if found is not None and stat.S_ISDIR(found.st_mode):
            shutil.rmtree(base, dir_fd=parent)
        else:
            os.unlink(base, dir_fd=parent)
        self._forget()

    # ---- where a name leads --------------------------------------------------------------------

    def _forget(self) -> None:
        """A link or a removal may change where names lead. The descriptor stays open: the member
        at hand is still being written through it."""
        self._parent = ("\0", self._parent[1], self._parent[2])

    def _directory(self, path: str) -> tuple[str, int]:
        """The true path and a descriptor of a directory, made where it is absent."""
        if self._parent[0] == path:
            return self._parent[1], self._parent[2]
        where = self.resolve(path)
        at = os.dup(self._root)
        for part in where.split("/") if where else ():
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o755, dir_fd=at)
            try:
                deeper = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
            except OSError as e:
                raise BadArchive(f"{path}: a part of it is not a directory") from e
            finally:
                os.close(at)
            at = deeper
        os.close(self._parent[2])
        self._parent = (path, where, at)
        return where, at

    def _open(self, where: str) -> int:
        """A descriptor of a directory whose path has no links."""
        at = os.dup(self._root)
        for part in where.split("/") if where else ():
            try:
                deeper = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
            finally:
                os.close(at)
            at = deeper
        return at

    def resolve(self, path: str) -> str:
        """The path with its links followed as inside the container: an absolute one starts at the
        root of the layer. Raises Escape when ``..`` leads above it."""
        waiting = path.split("/")[::-1]
        done: list[str] = []
        links = 0
        while waiting:
            part = waiting.pop()
            if part in ("", "."):
                continue
            if part == "..":
                if not done:
                    raise Escape(f"{path} leads outside the layer")
                done.pop()
                continue
            target = self._readlink(done, part)
            if target is None:
                done.append(part)
                continue
            links += 1
            if links > _MAX_LINKS:
                raise Escape(f"{path}: too many links")
            if target.startswith("/"):
                done = []
            waiting.extend(target.split("/")[::-1])
        return "/".join(done)

    def _readlink(self, directory: list[str], name: str) -> str | None:
        try:
            fd = self._open("/".join(directory))
        except OSError as e:
            if e.errno in (errno.ENOENT, errno.ENOTDIR):
                return None
            raise
        try:
            return os.readlink(name, dir_fd=fd)
        except OSError:
            return None
        finally:
            os.close(fd)


def _clean(name: str) -> str:
    parts = [p for p in name.split("/") if p not in ("", ".")]
    if ".." in parts:
        raise Escape(f"{name} leads outside the layer")
    return "/".join(parts)


def _lstat(parent: int, base: str) -> os.stat_result | None:
    try:
        return os.stat(base, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _attributes(fd: int, info: tarfile.TarInfo) -> None:
    """Extended attributes of the file; file capabilities above all."""
    for key, value in info.pax_headers.items():
        name = key.removeprefix("SCHILY.xattr.")
        if name != key and not name.startswith("trusted.overlay."):
            with contextlib.suppress(OSError):  # a file system need not know all of them
                os.setxattr(fd, name, value.encode("utf-8", "surrogateescape"))


def unpack_layer(source: IO[bytes], target: Path, *, diff_id: str, digest: str = "") -> int:
    """Write a layer (a tar, compressed or not) into *target*, made anew. Its number of bytes.

    Raises BadArchive when it leads outside or is not what its digests state; *target* is then to
    be thrown away."""
    os.umask(0)
    outer = Hashing(source)
    inner = Hashing(decompressed(outer))  # type: ignore[arg-type]
    stream = io.BufferedReader(inner, _CHUNK)
    tree = Tree(target)
    try:
        with tarfile.open(
            fileobj=stream, mode="r|", errorlevel=2, encoding="utf-8", errors="surrogateescape"
        ) as tar:
            for info in tar:
                tree.add(info, tar.extractfile(info) if info.isreg() else None)
        tree.finish()
    except (tarfile.TarError, EOFError, OSError) as e:
        raise BadArchive(f"layer {diff_id}: {e}") from e
    finally:
        tree.close()
    while stream.read(_CHUNK):
        pass
    while outer.read(_CHUNK):
        pass
    if inner.digest != diff_id:
        raise BadArchive(f"layer {diff_id} has digest {inner.digest}")
    if digest and outer.digest != digest:
        raise BadArchive(f"blob {digest} has digest {outer.digest}")
    return inner.size


def layer_name(diff_id: str) -> str:
    """Short, since the names of all layers of an image must fit into one page."""
    return diff_id.partition(":")[2][:20]


def unpack_archive(path: Path, store: Path) -> list[dict[str, Any]]:
    """All images of an archive, their layers into ``store/layers``, as entries of the index."""
    archive = Archive(path)
    try:
        return [_unpack_image(archive, image, store) for image in archive.images()]
    except (KeyError, TypeError, AttributeError) as e:
        raise BadArchive(f"{path}: a part of its manifest is missing or wrong: {e!r}") from e
    finally:
        archive.close()


def _unpack_image(archive: Archive, image: ArchivedImage, store: Path) -> dict[str, Any]:
    layers = store / "layers"
    size = len(image.config)
    for layer in image.layers:
        target = layers / layer_name(layer.diff_id)
        sizes = layers / f"{target.name}.size"
        if not (target.is_dir() and sizes.exists()):
            temporary = layers / f".new-{os.getpid()}-{target.name}"
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(mode=0o755)
            try:
                with archive.open(layer.member) as source:
                    count = unpack_layer(
                        source, temporary, diff_id=layer.diff_id, digest=layer.digest
                    )
                sizes.write_text(str(count))
                if not target.exists():
                    temporary.rename(target)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        size += int(sizes.read_text())
    return {
        "id": image.id,
        "tags": list(image.tags),
        "digest": image.digest,
        "size": size,
        "layers": [layer_name(layer.diff_id) for layer in image.layers],
        "config": json.loads(image.config),
    }


def main(argv: list[str]) -> int:
    try:
        print(json.dumps(unpack_archive(Path(argv[0]), Path(argv[1]))))
    except (BadArchive, OSError) as e:
        print(str(e), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
