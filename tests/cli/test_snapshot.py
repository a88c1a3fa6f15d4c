"""Snapshots of clusters that are down: what is in them, what comes back, what is refused."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from sampan.cli.main import main
from sampan.lib.datadir import DataDir
from sampan.store.base import Put
from sampan.store.sqlite import SqliteStore


def cluster(root: Path, *, objects: int = 3) -> DataDir:
    """A data directory as a stopped cluster leaves it."""
    place = DataDir(root)
    place.root.mkdir()

    async def fill() -> None:
        store = await SqliteStore.open(place.store)
        for i in range(objects):
            await store.commit(Put(f"pods/default/p{i}", b"{}", expect=0))
        await store.close()

    asyncio.run(fill())
    place.pki.mkdir()
    (place.pki / "ca.crt").write_text("the authority")
    (place.pki / "service-accounts.key").write_text("the key")
    state = {"name": "one", "nodes": 2, "port": 0, "runtime": "fake", "context": "sampan-one",
             "userKubeconfig": str(root / "config"), "merge": False, "pid": 0,
             "startTicks": -1}  # fmt: skip
    place.state.write_text(json.dumps(state))
    return place


def records(place: DataDir) -> dict[str, int]:
    async def read() -> dict[str, int]:
        store = await SqliteStore.open(place.store)
        found = {r.key: r.revision for r in (await store.range("pods/")).records}
        await store.close()
        return found

    return asyncio.run(read())


def saved(tmp_path: Path, *more: str) -> tuple[DataDir, Path]:
    place = cluster(tmp_path / "data")
    out = tmp_path / "a.snapshot"
    assert main(["snapshot", "save", str(out), "--data-dir", str(place.root), *more]) == 0
    return place, out


def refused(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    capsys.readouterr()
    assert main(args) == 1
    return capsys.readouterr().err.strip()


def test_what_is_restored_is_the_same_cluster(tmp_path: Path) -> None:
    place, out = saved(tmp_path)
    before = records(place)
    assert out.stat().st_mode & 0o077 == 0  # it has keys in it
    to = DataDir(tmp_path / "new")
    assert main(["snapshot", "restore", str(out), "--data-dir", str(to.root)]) == 0
    assert records(to) == before
    assert (to.pki / "ca.crt").read_text() == "the authority"
    assert (to.pki / "service-accounts.key").stat().st_mode & 0o077 == 0
    state = to.read_state()
    assert state is not None
    assert (state["name"], state["nodes"], state["runtime"]) == ("one", 2, "fake")
    assert to.running() is None
    assert not (to.volumes).exists()


def test_no_revision_is_used_again_after_a_restore(tmp_path: Path) -> None:
    place, out = saved(tmp_path)
    newest = max(records(place).values())
    to = DataDir(tmp_path / "new")
    main(["snapshot", "restore", str(out), "--data-dir", str(to.root)])

    async def write() -> int:
        store = await SqliteStore.open(to.store)
        revision = await store.commit(Put("pods/default/later", b"{}", expect=0))
        await store.close()
        return revision

    assert asyncio.run(write()) > newest


def test_volumes_come_along_on_demand(tmp_path: Path) -> None:
    place = cluster(tmp_path / "data")
    volume = place.volumes / "one-1" / "pvc-a"
    (volume / "sub").mkdir(parents=True)
    (volume / "file").write_text("kept")
    (volume / "file").chmod(0o4751)
    os.link(volume / "file", volume / "sub" / "same")
    (volume / "out").symlink_to("/etc/passwd")
    os.mkfifo(volume / "pipe")
    image = place.volumes / "one-2" / "pvc-b.img"
    image.parent.mkdir()
    with image.open("wb") as file:
        file.truncate(32 << 20)
        file.seek(16 << 20)
        file.write(b"in the middle")
    (place.volumes / "one-2" / "pvc-b").mkdir()  # where it is mounted
    out = tmp_path / "a.snapshot"
    assert main(["snapshot", "save", str(out), "--data-dir", str(place.root), "--volumes"]) == 0
    to = DataDir(tmp_path / "new")
    assert main(["snapshot", "restore", str(out), "--data-dir", str(to.root)]) == 0
    back = to.volumes / "one-1" / "pvc-a"
    assert (back / "file").read_text() == "kept"
    assert (back / "file").stat().st_mode & 0o7777 == 0o4751
    assert (back / "sub" / "same").stat().st_ino == (back / "file").stat().st_ino
    assert os.readlink(back / "out") == "/etc/passwd"
    again = to.volumes / "one-2" / "pvc-b.img"
    assert again.read_bytes() == image.read_bytes()
    assert again.stat().st_blocks * 512 < 4 << 20  # sparse still


def test_a_list_of_snapshots(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out = saved(tmp_path)
    capsys.readouterr()
    assert main(["snapshot", "ls", str(tmp_path), "-o", "json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["cluster"] == "one"
    assert (row["nodes"], row["objects"], row["volumes"]) == (2, 3, False)
    assert main(["snapshot", "ls", str(out)]) == 0
    assert capsys.readouterr().out.split()[:3] == ["FILE", "CLUSTER", "CREATED"]


def test_what_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place, out = saved(tmp_path)
    where = str(place.root)
    assert "is not empty" in refused(
        capsys, "snapshot", "restore", str(out), "--data-dir", where
    )  # fmt: skip
    assert "is there already" in refused(capsys, "snapshot", "save", str(out), "--data-dir", where)
    nothing = str(tmp_path / "nothing")
    assert "no cluster at" in refused(capsys, "snapshot", "save", "--data-dir", nothing)
    assert "is not a file" in refused(
        capsys, "snapshot", "restore", nothing, "--data-dir", str(tmp_path / "new")
    )  # fmt: skip


def rewritten(out: Path, change: Any) -> Path:
    """The archive with *change*(name, data) applied to its members; None drops one."""
    made = out.with_name("changed.snapshot")
    with (
        gzip.open(out) as old, tarfile.open(fileobj=old) as source,
        gzip.open(made, "wb") as new, tarfile.open(fileobj=new, mode="w") as target,
    ):  # fmt: skip
        for info in source:
            file = source.extractfile(info)
            data = change(info, file.read() if file else b"")
            if data is not None:
                info.size = len(data)
                target.addfile(info, io.BytesIO(data))
    return made


def _manifest(**change: Any) -> Any:
    def edit(info: tarfile.TarInfo, data: bytes) -> bytes:
        if info.name != "manifest.json":
            return data
        return json.dumps({**json.loads(data), **change}).encode()

    return edit


def _renamed(name: str) -> Any:
    def edit(info: tarfile.TarInfo, data: bytes) -> bytes:
        if info.name == "pki/ca.crt":
            info.name = name
        return data

    return edit


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_manifest(format="other"), "is not a snapshot of sampan"),
        (_manifest(version=9), "has format 9; this sampan reads 1"),
        (lambda i, d: d + b"x" if i.name == "state.db" else d, "the checksum of state.db is wrong"),
        (lambda i, d: None if i.name == "pki/ca.crt" else d, "it lacks pki/ca.crt"),
        (_renamed("pki/../../../../etc/x"), "names a place outside"),
        (_renamed("/etc/x"), "names a place outside"),
        (_renamed("else"), "it has what does not belong there: else"),
    ],
)
def test_foreign_and_forged_files_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Any, told: str
) -> None:
    _, out = saved(tmp_path)
    made = rewritten(out, change)
    new = tmp_path / "new"
    assert told in refused(capsys, "snapshot", "restore", str(made), "--data-dir", str(new))
    assert not new.exists()
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".new")]


def test_a_link_is_never_written_through(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out = saved(tmp_path)
    aim = tmp_path / "aim"
    made = tmp_path / "forged.snapshot"
    with (
        gzip.open(out) as old, tarfile.open(fileobj=old) as source,
        gzip.open(made, "wb") as new, tarfile.open(fileobj=new, mode="w") as target,
    ):  # fmt: skip
        for info in source:
            target.addfile(info, source.extractfile(info))
        link = tarfile.TarInfo("volumes/n/v")
        link.type, link.linkname = tarfile.SYMTYPE, str(aim)
        target.addfile(link)
        through = tarfile.TarInfo("volumes/n/v")
        through.size = 4
        target.addfile(through, io.BytesIO(b"evil"))
    told = refused(capsys, "snapshot", "restore", str(made), "--data-dir", str(tmp_path / "new"))
    assert "twice" in told
    assert not aim.exists()


def test_a_truncated_or_flipped_file_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out = saved(tmp_path)
    whole = out.read_bytes()
    bad = tmp_path / "bad.snapshot"
    for data in (
        whole[: len(whole) // 2], whole[:-4], b"not gzip at all", b"",
        whole[:900] + bytes([whole[900] ^ 0xFF]) + whole[901:],
    ):  # fmt: skip
        bad.write_bytes(data)
        told = refused(capsys, "snapshot", "restore", str(bad), "--data-dir", str(tmp_path / "new"))
        assert "is damaged" in told or "is not a snapshot" in told
        assert not (tmp_path / "new").exists()
