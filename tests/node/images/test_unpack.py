"""Archives are read as both formats write them, and no layer leaves its root."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import io
import json
import os
import stat
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.node.images.archive import BadArchive
from sampan.node.images.refs import normalize
from sampan.node.images.store import ImageStore
from sampan.node.images.unpack import unpack_layer
from sampan.node.runtime.base import RuntimeFailure


def sha(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def entry(name: str, *, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "",
          mode: int = 0o644) -> tuple[tarfile.TarInfo, bytes]:  # fmt: skip
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.size = kind, link, mode, len(data)
    return info, data


def tar(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        for info, data in entries:
            made.addfile(info, io.BytesIO(data))
    return out.getvalue()


def unpack(tmp: Path, *entries: tuple[tarfile.TarInfo, bytes]) -> Path:
    root = tmp / "root"
    root.mkdir()
    data = tar(*entries)
    unpack_layer(io.BytesIO(data), root, diff_id=sha(data))
    return root


def docker_archive(path: Path, layers: Iterable[bytes], *, tag: str = "x:1", **wrong: Any) -> Path:
    layers = list(layers)
    ids = wrong.get("ids") or [sha(layer) for layer in layers]
    config = json.dumps({"config": {"Cmd": ["sh"]}, "rootfs": {"type": "layers", "diff_ids": ids}})
    name = hashlib.sha256(config.encode()).hexdigest() + ".json"
    manifest = [{"Config": name, "RepoTags": [tag], "Layers": [f"{i}.tar" for i in
                 range(len(layers))]}]  # fmt: skip
    path.write_bytes(tar(
        entry("manifest.json", data=json.dumps(manifest).encode()),
        entry(name, data=config.encode()),
        *(entry(f"{i}.tar", data=layer) for i, layer in enumerate(layers)),
    ))  # fmt: skip
    return path


def oci_archive(path: Path, layer: bytes, *, tag: str = "docker.io/library/x:1") -> Path:
    packed = gzip.compress(layer)
    config = json.dumps({"os": "linux", "config": {}, "rootfs": {"type": "layers",
                         "diff_ids": [sha(layer)]}}).encode()  # fmt: skip

    def described(data: bytes, media: str, **more: Any) -> dict[str, Any]:
        return {"mediaType": media, "digest": sha(data), "size": len(data), **more}

    kind = "application/vnd.oci.image"
    manifest = json.dumps({
        "schemaVersion": 2, "config": described(config, f"{kind}.config.v1+json"),
        "layers": [described(packed, f"{kind}.layer.v1.tar+gzip")],
    }).encode()  # fmt: skip
    notes = {"io.containerd.image.name": tag, "org.opencontainers.image.ref.name": "1"}
    index = {"schemaVersion": 2, "manifests": [
        described(manifest, f"{kind}.manifest.v1+json", annotations=notes)]}  # fmt: skip
    blobs = [entry(f"blobs/sha256/{sha(b)[7:]}", data=b) for b in (config, manifest, packed)]
    path.write_bytes(tar(
        entry("oci-layout", data=b'{"imageLayoutVersion":"1.0.0"}'),
        entry("index.json", data=json.dumps(index).encode()), *blobs,
    ))  # fmt: skip
    return path


def test_files_links_and_modes(tmp_path: Path) -> None:
    root = unpack(
        tmp_path,
        entry("bin", kind=tarfile.SYMTYPE, link="usr/bin"),
        entry("usr/bin/", kind=tarfile.DIRTYPE, mode=0o755),
        entry("bin/[", kind=tarfile.SYMTYPE, link="busybox"),
        entry("bin/busybox", data=b"elf", mode=0o4755),
        entry("bin/again", kind=tarfile.LNKTYPE, link="usr/bin/busybox"),
        entry("etc/up/deep", data=b"x"),
        entry("pipe", kind=tarfile.FIFOTYPE),
    )
    assert (root / "usr/bin/busybox").read_bytes() == b"elf"
    assert stat.S_IMODE((root / "usr/bin/busybox").stat().st_mode) == 0o4755
    assert (root / "usr/bin/again").stat().st_nlink == 2
    assert os.readlink(root / "usr/bin/[") == "busybox"
    assert stat.S_ISFIFO((root / "pipe").lstat().st_mode)


def test_whiteouts_become_what_overlayfs_knows(tmp_path: Path) -> None:
    root = unpack(
        tmp_path, entry("etc/.wh.passwd"), entry("var/cache/.wh..wh..opq"), entry("var/cache/new")
    )
    info = (root / "etc/passwd").lstat()
    assert stat.S_ISCHR(info.st_mode) and info.st_rdev == 0
    assert os.getxattr(root / "var/cache", "trusted.overlay.opaque") == b"y"


def test_links_are_resolved_inside_the_root(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    root = unpack(
        tmp_path,
        entry("here", kind=tarfile.SYMTYPE, link=str(outside)),
        entry("here/file", data=b"inside"),
    )
    assert list(outside.iterdir()) == []
    assert (root / str(outside).lstrip("/") / "file").read_bytes() == b"inside"


@pytest.mark.parametrize(
    "bad",
    [
        [entry("../evil", data=b"x")],
        [entry("a/../../evil", data=b"x")],
        [entry("hard", kind=tarfile.LNKTYPE, link="../evil")],
        [entry("d", kind=tarfile.SYMTYPE, link=".."), entry("hard", kind=tarfile.LNKTYPE,
                                                            link="d/d/secret")],
        [entry("up", kind=tarfile.SYMTYPE, link="../../evil"), entry("up/file", data=b"x")],
        [entry(".wh...", data=b"")],
    ],
    ids=["dots", "dots-inside", "hardlink", "hardlink-by-symlink", "symlink",
         "whiteout-of-dots"],
)  # fmt: skip
def test_a_layer_that_leaves_its_root_is_refused(
    tmp_path: Path, bad: list[tuple[tarfile.TarInfo, bytes]]
) -> None:
    (tmp_path / "evil").write_bytes(b"untouched")
    (tmp_path / "secret").write_bytes(b"untouched")
    with pytest.raises(BadArchive):
        unpack(tmp_path, *bad)
    assert (tmp_path / "evil").read_bytes() == b"untouched"
    assert (tmp_path / "secret").stat().st_nlink == 1


NAMES = st.lists(st.sampled_from(["a", "b", "..", ".", "", "/", "etc", ".wh.a", ".wh..wh..opq"]),
                 min_size=1, max_size=4).map("/".join)  # fmt: skip
MEMBERS = st.lists(
    st.tuples(NAMES, st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE,
                                      tarfile.LNKTYPE]), NAMES),
    max_size=8,
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(members=MEMBERS)
def test_no_layer_whatever_touches_anything_outside(
    tmp_path_factory: pytest.TempPathFactory, members: list[tuple[str, bytes, str]]
) -> None:
    tmp = tmp_path_factory.mktemp("layer")
    around = tmp / "around"
    (around / "a").mkdir(parents=True)
    (around / "a" / "b").write_bytes(b"untouched")
    before = sorted(p.relative_to(tmp) for p in around.rglob("*"))
    entries = [
        entry(name, data=b"data" if kind == tarfile.REGTYPE else b"", kind=kind, link=link)
        for name, kind, link in members
        if name
    ]
    root = around / "root"
    root.mkdir()
    data = tar(*entries)
    with contextlib.suppress(BadArchive):
        unpack_layer(io.BytesIO(data), root, diff_id=sha(data))
    after = sorted(
        p.relative_to(tmp) for p in around.rglob("*") if root not in p.parents and p != root
    )
    assert after == before
    assert (around / "a" / "b").read_bytes() == b"untouched"
    assert (around / "a" / "b").stat().st_nlink == 1


def test_both_formats_load_and_share_layers(tmp_path: Path) -> None:
    layer = tar(entry("hello", data=b"hi"))
    other = tar(entry("more", data=b"!"))
    store = ImageStore(tmp_path / "images")

    async def main() -> None:
        (one,) = await store.load(str(docker_archive(tmp_path / "d.tar", [layer, other])))
        (two,) = await store.load(str(oci_archive(tmp_path / "o.tar", layer, tag="y:2")))
        assert one.tags == ("docker.io/library/x:1",)
        assert store.find("x:1") == one and store.find(one.id) == one
        assert two.tags == ("docker.io/library/y:2",)
        names = {n for i in (one, two) for n in store.layer_paths(i.id)}
        assert len(names) == 2  # three layers, one of them shared
        assert one.config["Cmd"] == ["sh"]
        store.remove("x:1", lambda: ())
        assert store.find("x:1") is None
        left = {p.name for p in store.layers.iterdir() if p.is_dir()}
        assert left == set(store.layer_paths(two.id))

    asyncio.run(main())


def test_a_wrong_digest_is_refused_and_nothing_stays(tmp_path: Path) -> None:
    layer = tar(entry("hello", data=b"hi"))
    archive = docker_archive(tmp_path / "d.tar", [layer], ids=["sha256:" + "0" * 64])
    store = ImageStore(tmp_path / "images")
    with pytest.raises(RuntimeFailure, match="has digest"):
        asyncio.run(store.load(str(archive)))
    assert store.list() == [] and [p for p in store.layers.iterdir() if p.is_dir()] == []


def test_garbage_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"this is no archive")
    with pytest.raises(RuntimeFailure) as e:
        asyncio.run(ImageStore(tmp_path / "images").load(str(tmp_path / "x")))
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("ref", "full"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.16.1", "docker.io/library/nginx:1.16.1"),
        ("traefik/whoami", "docker.io/traefik/whoami:latest"),
        ("localhost/x", "localhost/x:latest"),
        ("reg.example.com:5000/a/b:v", "reg.example.com:5000/a/b:v"),
        ("x@sha256:" + "a" * 64, "docker.io/library/x@sha256:" + "a" * 64),
    ],
)
def test_references(ref: str, full: str) -> None:
    assert normalize(ref) == full == normalize(full)


@pytest.mark.parametrize("ref", ["", "UPPER/case", "a//b", "a/", ":tag", "x:bad tag"])
def test_what_is_no_reference(ref: str) -> None:
    with pytest.raises(ValueError, match="couldn't parse image name"):
        normalize(ref)
