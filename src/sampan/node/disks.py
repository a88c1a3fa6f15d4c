"""Places of a node's local volumes: directories, and sparse files with a file system or as devices.

Everything blocks and happens in the node's mount namespace: ``Disks`` gets a way to run it there.
A volume NAME is ``root/NAME`` (a directory, or where its image is mounted) and, where its size is
enforced, ``root/NAME.img``.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
Run = Callable[..., Awaitable[Any]]
_ENV = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/bin:/bin"}
_TOOL_SECONDS = 120.0
_CORRECTED = 2  # e2fsck: up to here what was wrong has been put right


class DiskFailure(Exception):
    """The place cannot be made, mounted, grown or removed; the text says why."""


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
        options: tuple[str, ...] = (),
    ) -> tuple[str, bool]:  # fmt: skip
        """(path of the volume, whether it has its size): made when it is not there, mounted, grown.
        size: bytes, of images. image: the size is enforced. block: a device, no file system.
        alone: nobody else uses it now. options: of the mount of an image. Raises DiskFailure."""
        async with self._locks.setdefault(name, asyncio.Lock()):
            path = self.root / name
            if not image:
                await self.run(_directory, path)
                return str(path), True
            if block:
                return str(await self.run(_device, path, size)), True
            done: bool = await self.run(_file_system, path, size, alone, options)
            return str(path), done

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


def _sparse(path: Path, size: int) -> bool:
    """The image, grown where it is too small; whether it is a new one."""
    image = _image(path)
    image.parent.mkdir(parents=True, exist_ok=True)
    fresh = not image.exists()
    if fresh or image.stat().st_size < size:
        with image.open("ab") as file:
            file.truncate(size)
    return fresh


def _file_system(path: Path, size: int, alone: bool, options: tuple[str, ...]) -> bool:
    image = _image(path)
    if not image.exists():
        part = path.with_name(path.name + ".part")
        part.parent.mkdir(parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
        with part.open("wb") as file:
            file.truncate(size)
        _tool("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,nodiscard", str(part))
        part.rename(image)  # from here on it is a volume; a crash before leaves nothing half made
        _mount(path, options)
        path.chmod(0o777)
        shutil.rmtree(path / "lost+found", ignore_errors=True)
        return True
    grows = image.stat().st_size < size or _is_behind(path)
    if not grows:
        _mount(path, options)
        return True
    _sparse(path, size)
    _mark(path, behind=True)
    done = _grow_mounted(path) if os.path.ismount(path) else False
    if not done and alone:
        if os.path.ismount(path):
            _tool("umount", str(path))
        _tool("e2fsck", "-fp", str(image), fine=_CORRECTED)
        _tool("resize2fs", str(image))
        done = True
    if done:
        _mark(path, behind=False)
    _mount(path, options)
    return done


def _mark(path: Path, *, behind: bool) -> None:
    """Remember that a file system is smaller than its image, over crashes too."""
    mark = path.with_name(path.name + ".grow")
    if behind:
        mark.touch()
    else:
        mark.unlink(missing_ok=True)


def _is_behind(path: Path) -> bool:
    return path.with_name(path.name + ".grow").exists()


def _mount(path: Path, options: tuple[str, ...]) -> None:
    if not os.path.ismount(path):
        path.mkdir(parents=True, exist_ok=True)
        given = ",".join(("loop", "nodev", *options))
        _tool("mount", "-t", "ext4", "-o", given, str(_image(path)), str(path))


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


def _device(path: Path, size: int) -> str:
    _sparse(path, size)
    held = _loops(_image(path))
    if held:
        _tool("losetup", "-c", held[0])
        return held[0]
    return _tool("losetup", "--find", "--show", str(_image(path)))


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
