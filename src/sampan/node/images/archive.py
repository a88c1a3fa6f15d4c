"""Image archives (docker save, OCI layout), read from a tar file or a directory of one."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
_MAX_DOCUMENT = 16 << 20


class BadArchive(Exception):
    """What is wrong with it, for the user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivedLayer:
    """member: its file in the archive; digest: of that file as stated, or empty."""

    member: str
    diff_id: str
    digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivedImage:
    """id: sha256 of the configuration, verified."""

    id: str
    config: bytes
    tags: tuple[str, ...]
    digest: str = ""  # of the manifest
    layers: tuple[ArchivedLayer, ...] = ()


class Archive:
    """Raises BadArchive for everything that is not as it states itself."""

    def __init__(self, path: Path) -> None:
        try:
            self._tar = tarfile.open(path)  # noqa: SIM115 (kept open)
        except (tarfile.TarError, EOFError) as e:
            raise BadArchive(f"{path} is not a tar archive: {e}") from e
        self._members = {os.path.normpath(m.name): m for m in self._tar}

    def close(self) -> None:
        self._tar.close()

    def images(self) -> list[ArchivedImage]:
        if "manifest.json" in self._members:
            return self._docker()
        if "index.json" in self._members:
            return self._oci()
        raise BadArchive("neither manifest.json nor index.json is in it: not an image archive")

    def open(self, member: str) -> IO[bytes]:
        info = self._members.get(os.path.normpath(member))
        for _ in range(8):  # docker save links equal layers
            if info is None or not (info.issym() or info.islnk()):
                break
            base = os.path.dirname(info.name) if info.issym() else ""
            info = self._members.get(os.path.normpath(os.path.join(base, info.linkname)))
        file = self._tar.extractfile(info) if info is not None and info.isfile() else None
        if file is None:
            raise BadArchive(f"{member} is missing in the archive")
        return file

    def _read(self, member: str) -> bytes:
        with self.open(member) as file:
            data = file.read(_MAX_DOCUMENT + 1)
        if len(data) > _MAX_DOCUMENT:
            raise BadArchive(f"{member} is too large")
        return data

    def _json(self, member: str) -> Any:
        return _parse(self._read(member), member)

    def _docker(self) -> list[ArchivedImage]:
        found = []
        for entry in self._json("manifest.json"):
            config = self._read(entry["Config"])
            diff_ids = _diff_ids(config, entry["Config"])
            layers = entry.get("Layers") or []
            if len(layers) != len(diff_ids):
                raise BadArchive("the configuration does not name as many layers as there are")
            found.append(
                ArchivedImage(
                    id=_verified(config, entry["Config"]),
                    config=config,
                    tags=tuple(entry.get("RepoTags") or ()),
                    layers=tuple(
                        ArchivedLayer(member=m, diff_id=d)
                        for m, d in zip(layers, diff_ids, strict=True)
                    ),
                )
            )
        return found

    def _oci(self) -> list[ArchivedImage]:
        found: list[ArchivedImage] = []
        for entry in self._json("index.json").get("manifests") or ():
            notes = entry.get("annotations") or {}
            name = notes.get("io.containerd.image.name") or notes.get(
                "org.opencontainers.image.ref.name", ""
            )
            image = self._manifest(entry["digest"], 0)
            if image is not None:
                tags = (name,) if name else ()
                found.append(
                    ArchivedImage(
                        id=image.id,
                        config=image.config,
                        tags=tags,
                        digest=image.digest,
                        layers=image.layers,
                    )
                )
        if not found:
            raise BadArchive(f"no image for linux/{machine()} is in it")
        return found

    def _manifest(self, digest: str, depth: int) -> ArchivedImage | None:
        body = self._blob(digest)
        document = _parse(body, digest)
        if "manifests" in document:
            if depth > 2:
                raise BadArchive("indexes are nested too deep")
            for entry in document["manifests"]:
                wanted = entry.get("platform") or {}
                if (wanted.get("os", "linux"), wanted.get("architecture", machine())) == (
                    "linux",
                    machine(),
                ):
                    return self._manifest(entry["digest"], depth + 1)
            return None
        config = self._blob(document["config"]["digest"])
        diff_ids = _diff_ids(config, document["config"]["digest"])
        layers = document.get("layers") or []
        if len(layers) != len(diff_ids):
            raise BadArchive("the configuration does not name as many layers as there are")
        return ArchivedImage(
            id=document["config"]["digest"],
            config=config,
            tags=(),
            digest=digest,
            layers=tuple(
                ArchivedLayer(member=_blob_path(e["digest"]), diff_id=d, digest=e["digest"])
                for e, d in zip(layers, diff_ids, strict=True)
            ),
        )

    def _blob(self, digest: str) -> bytes:
        data = self._read(_blob_path(digest))
        if sha256(data) != digest:
            raise BadArchive(f"blob {digest} has digest {sha256(data)}")
        return data


def machine() -> str:
    """This machine's architecture in the words of images."""
    return _MACHINES.get(platform.machine(), platform.machine())


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _blob_path(digest: str) -> str:
    algorithm, _, value = digest.partition(":")
    if algorithm != "sha256" or len(value) != 64 or not value.isalnum():
        raise BadArchive(f"digest {digest} is not a sha256")
    return f"blobs/{algorithm}/{value}"


def _verified(config: bytes, name: str) -> str:
    """The image's id; where the file's name states a digest, it must be that."""
    actual = sha256(config)
    stated = os.path.basename(name).removesuffix(".json")
    if len(stated) == 64 and f"sha256:{stated}" != actual:
        raise BadArchive(f"configuration {name} has digest {actual}")
    return actual


def _parse(data: bytes, name: str) -> Any:
    try:
        return json.loads(data)
    except ValueError as e:
        raise BadArchive(f"{name} is not JSON: {e}") from e


def _diff_ids(config: bytes, name: str) -> list[str]:
    found = _parse(config, name).get("rootfs", {}).get("diff_ids")
    if not isinstance(found, list):
        raise BadArchive(f"configuration {name} has no rootfs.diff_ids")
    return [str(d) for d in found]


class Hashing(io.RawIOBase):
    """Passes bytes on and knows their sha256 and number."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self._hash = hashlib.sha256()
        self.size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._source.read(len(buffer))
        buffer[: len(data)] = data
        self._hash.update(data)
        self.size += len(data)
        return len(data)

    @property
    def digest(self) -> str:
        return "sha256:" + self._hash.hexdigest()


def decompressed(source: IO[bytes]) -> IO[bytes]:
    """*source* without its compression: gzip, zstd (needs the zstd program) or none."""
    buffered = io.BufferedReader(source, 1 << 20)  # type: ignore[type-var]
    magic = buffered.peek(4)[:4]
    if magic[:2] == b"\x1f\x8b":
        return cast(IO[bytes], gzip.GzipFile(fileobj=buffered))
    if magic == b"\x28\xb5\x2f\xfd":
        return _zstd(buffered)
    return buffered


def _zstd(source: IO[bytes]) -> IO[bytes]:
    program = shutil.which("zstd")
    if program is None:
        raise BadArchive("a layer is compressed with zstd: install the zstd program")
    process = subprocess.run(
        [program, "-dc"], input=source.read(), stdout=subprocess.PIPE, check=True
    )
    return io.BytesIO(process.stdout)
