"""Places of a node's local volumes: directories, and sparse files with a file system or as devices.

Everything blocks and happens in the node's mount namespace: ``Disks`` gets a way to run it there.
A volume NAME is ``root/NAME`` (a directory, or where its image is mounted) and, where its size is
enforced, ``root/NAME.img``.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import stat
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
Run = Callable[..., Awaitable[Any]]
_ENV = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/bin:/bin"}
_TOOL_SECONDS = 120.0
_CORRECTED = 2  # e2fsck: up to here what was wrong has been put right


class DiskFailure(Exception):
    """The place cannot be made, mounted, grown or removed; the text says why."""


class TooLarge(DiskFailure):
    """It will never fit on this disk."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a volume is. grown: it has the size that was asked for. problem: why its last growth
    failed, '' when it did not, or has to wait for its users to leave. hopeless: no use to try
    again."""

    path: str
    grown: bool = True
    problem: str = ""
    hopeless: bool = False


async def in_thread(work: Callable[..., T], *args: Any) -> T:
    """The way to run for nodes without a namespace of their own."""
    return await asyncio.to_thread(work, *args)


class Disks:
    """The local volumes of one node under *root*. run: carries out work in the node's mount
    namespace."""

    def __init__(self, root: Path, run: Run = in_thread) -> None:
        self.root = root
        self.run = run
        self._locks: dict[str, asyncio.Lock] = {}

    async def ensure(
        self, name: str, *, size: int, image: bool, block: bool, alone: bool,
        options: tuple[str, ...] = (), kind: str = "ext4",
    ) -> Place:  # fmt: skip
        """A volume's place: made when it is not there, mounted, grown where it is smaller.
        size: bytes, of images. image: the size is enforced. block: a device, no file system.
        alone: nobody else uses it now. options: of the mount of an image. kind: its file system.
        Raises DiskFailure where there is none."""
        async with self._locks.setdefault(name, asyncio.Lock()):
            path = self.root / name
            if not image:
                await self.run(_directory, path)
                return Place(str(path))
            make = _device if block else _file_system
            found: Place = await self.run(make, Volume(path, size, kind, options), alone)
            return found

    async def remove(self, name: str) -> None:
        """The volume and all its data. Idempotent. Raises DiskFailure."""
        async with self._locks.setdefault(name, asyncio.Lock()):
            await self.run(_remove, self.root / name)
        self._locks.pop(name, None)

    async def own(self, path: str, group: int, *, only_on_mismatch: bool) -> None:
        """Give a volume's content to a group (fsGroup): readable, writable, inherited."""
        await self.run(give_to_group, path, group, only_on_mismatch)


def _image(path: Path) -> Path:
    return path.with_name(path.name + ".img")


def _tool(*argv: str, fine: int = 0) -> str:
    """Run to the end. Raises DiskFailure above exit code *fine*."""
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, env=_ENV, timeout=_TOOL_SECONDS, cwd="/",
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as e:
        raise DiskFailure(f"{argv[0]}: {e}") from e
    if done.returncode > fine or done.returncode < 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise DiskFailure(f"{argv[0]}: {said[-1] if said else f'exit code {done.returncode}'}")
    return done.stdout.strip()


def _directory(path: Path) -> None:
    if not path.is_dir():
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o777)


def _sparse(image: Path, size: int) -> None:
    """The file, at least that large. Raises TooLarge, DiskFailure; then it is as it was."""
    image.parent.mkdir(parents=True, exist_ok=True)
    if image.exists() and image.stat().st_size >= size:
        return
    disk = os.statvfs(image.parent)
    if size > disk.f_blocks * disk.f_frsize:
        whole = disk.f_blocks * disk.f_frsize
        raise TooLarge(f"{size} bytes do not fit: the node's disk has {whole}")
    try:
        with image.open("ab") as file:
            file.truncate(size)
    except OSError as e:
        raise (TooLarge if e.errno == errno.EFBIG else DiskFailure)(str(e)) from e


@dataclass(frozen=True, slots=True)
class Volume:
    """An image: where it is mounted, how large it is to be, with which file system and options."""

    path: Path
    size: int
    kind: str
    options: tuple[str, ...]

    @property
    def image(self) -> Path:
        return _image(self.path)


def _file_system(volume: Volume, alone: bool) -> Place:
    path, image = volume.path, volume.image
    if not image.exists():
        part = path.with_name(path.name + ".part")
        part.unlink(missing_ok=True)
        _sparse(part, volume.size)
        _tool(*_MAKE[volume.kind], str(part))
        part.rename(image)  # from here on it is a volume; a crash before leaves nothing half made
        _mount(volume)
        path.chmod(0o777)
        shutil.rmtree(path / "lost+found", ignore_errors=True)
        return Place(str(path))
    if image.stat().st_size >= volume.size and not _is_behind(path):
        _mount(volume)
        return Place(str(path))
    try:
        _sparse(image, volume.size)
        _mark(path, behind=True)
        grown = _grow(volume, alone=alone)
    except DiskFailure as failure:
        _mount(volume)  # what there is, is there
        hopeless = isinstance(failure, TooLarge)
        return Place(str(path), False, problem=str(failure), hopeless=hopeless)
    if grown:
        _mark(path, behind=False)
    _mount(volume)
    return Place(str(path), grown)


def _grow(volume: Volume, *, alone: bool) -> bool:
    """The file system as large as its image: while it is mounted, or, where the kernel does not let
    us (ext4 wants CAP_SYS_RESOURCE), when nobody uses it. Raises DiskFailure."""
    path, image = volume.path, volume.image
    if volume.kind == "xfs":  # grows while it is mounted only, and needs no more than we have
        _mount(volume)
        for device in _loops(image):
            _tool("losetup", "-c", device)
        _tool("xfs_growfs", str(path))
        return True
    if os.path.ismount(path) and _grow_mounted(path):
        return True
    if not alone:
        return False
    if os.path.ismount(path):
        _tool("umount", str(path))
    _tool("e2fsck", "-fp", str(image), fine=_CORRECTED)
    _tool("resize2fs", str(image))
    return True


_MAKE = {
    "ext4": ("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,nodiscard"),
    "xfs": ("mkfs.xfs", "-q", "-f", "-K"),
}
# A restored copy of a volume may be mounted beside its original.
_MOUNTED_WITH = {"ext4": ("loop", "nodev"), "xfs": ("loop", "nodev", "nouuid")}


def _mark(path: Path, *, behind: bool) -> None:
    """Remember that a file system is smaller than its image, over crashes too."""
    mark = path.with_name(path.name + ".grow")
    if behind:
        mark.touch()
    else:
        mark.unlink(missing_ok=True)


def _is_behind(path: Path) -> bool:
    return path.with_name(path.name + ".grow").exists()


def _mount(volume: Volume) -> None:
    path = volume.path
    if not os.path.ismount(path):
        path.mkdir(parents=True, exist_ok=True)
        given = ",".join((*_MOUNTED_WITH[volume.kind], *volume.options))
        _tool("mount", "-t", volume.kind, "-o", given, str(volume.image), str(path))


def _grow_mounted(path: Path) -> bool:
    """Whether the mounted file system could be grown: that takes CAP_SYS_RESOURCE."""
    for device in _loops(_image(path)):
        try:
            _tool("losetup", "-c", device)
            _tool("resize2fs", device)
        except DiskFailure:
            return False
        return True
    return False


def _loops(image: Path) -> list[str]:
    listed = _tool("losetup", "-n", "-O", "NAME", "-j", str(image))
    return [line.strip() for line in listed.splitlines() if line.strip()]


def _device(volume: Volume, _alone: bool) -> Place:
    problem: DiskFailure | None = None
    try:
        _sparse(volume.image, volume.size)
    except DiskFailure as failure:
        if not volume.image.exists():
            raise
        problem = failure
    held = _loops(volume.image)
    if held:
        _tool("losetup", "-c", held[0])
    else:
        held = [_tool("losetup", "--find", "--show", str(volume.image))]
    hopeless = isinstance(problem, TooLarge)
    return Place(held[0], problem is None, problem=str(problem or ""), hopeless=hopeless)


def _remove(path: Path) -> None:
    image = _image(path)
    if os.path.ismount(path):
        _tool("umount", str(path))
    if image.exists():
        for device in _loops(image):
            _tool("losetup", "-d", device)
        image.unlink()
    for suffix in (".part", ".grow"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    if path.is_dir():
        try:
            shutil.rmtree(path)
        except OSError as e:
            raise DiskFailure(str(e)) from e


def release_devices(root: Path) -> None:
    """Let go of every device that stands on a file below *root*: they belong to the machine and
    would outlive the cluster. Files stay."""
    marked = f"{root.resolve()}/"
    for entry in sorted(Path("/sys/block").glob("loop*/loop/backing_file")):
        try:
            backing = entry.read_text().strip()
        except OSError:
            continue
        if backing.startswith(marked):
            _tool("losetup", "-d", f"/dev/{entry.parts[3]}")


def give_to_group(path: str, group: int, only_on_mismatch: bool) -> None:
    """fsGroup: everything below belongs to the group, which may write; directories hand it on.
    only_on_mismatch: not at all where the top looks right already."""
    top = os.lstat(path)
    wanted = stat.S_ISGID | 0o070
    if only_on_mismatch and top.st_gid == group and top.st_mode & wanted == wanted:
        return
    for directory, names, files in os.walk(path):
        for name in files:
            _give(os.path.join(directory, name), group, 0o060)
        for name in names:
            place = os.path.join(directory, name)
            if os.path.islink(place):
                _give(place, group, 0)
        if directory != path:
            _give(directory, group, wanted)
    _give(path, group, wanted)  # last: where it breaks off it is done again


def _give(path: str, group: int, bits: int) -> None:
    info = os.lstat(path)
    os.lchown(path, -1, group)
    if not stat.S_ISLNK(info.st_mode):
        executable = 0o010 if stat.S_ISREG(info.st_mode) and info.st_mode & 0o100 else 0
        os.chmod(path, stat.S_IMODE(info.st_mode) | bits | executable)
