"""Volumes on disk: contents, modes, atomic updates, refusals."""

from __future__ import annotations

import asyncio
import base64
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from sampan.api.obj import Body
from sampan.lib.clock import rfc3339
from sampan.node.payload import Entry, write_payload
from sampan.node.resolve import Context
from sampan.node.runtime.base import RuntimeFailure
from sampan.node.volumes import DirectoryVolumes, VolumeFailure
from sampan.testing.machine_world import START, pod_body


class _Clock:
    def __init__(self) -> None:
        self.t = START

    def now(self) -> float:
        return self.t


class _Sources:
    def __init__(self, clock: _Clock) -> None:
        self.clock = clock
        self.bodies: dict[tuple[str, str], Body] = {}
        self.tokens = 0

    async def config(
        self, resource: str, namespace: str, name: str, *, max_age: float = 0.0
    ) -> Body | None:
        assert namespace == "ns"
        return self.bodies.get((resource, name))

    async def token(
        self, namespace: str, account: str, *, pod: Body, audience: str, seconds: int
    ) -> Body:
        self.tokens += 1
        return {
            "status": {
                "token": f"{account}-{audience}-{self.tokens}",
                "expirationTimestamp": rfc3339(self.clock.t + seconds),
            }
        }


class _Tmpfs:
    def __init__(self) -> None:
        self.mounted: dict[str, int] = {}

    async def tmpfs(self, path: str, size: int) -> None:
        self.mounted[path] = size

    async def unmount(self, path: str) -> None:
        del self.mounted[path]


class _Case:
    def __init__(self, root: Path, tmpfs: _Tmpfs | None = None) -> None:
        self.clock = _Clock()
        self.sources = _Sources(self.clock)
        self.volumes = DirectoryVolumes(root, self.sources, clock=self.clock, tmpfs=tmpfs)
        self.warnings: list[str] = []

    def mount(self, *volumes: Body, **spec: Any) -> dict[str, Path]:
        found = asyncio.run(
            self.volumes.mount(self.context(*volumes, **spec), self.warnings.append)
        )
        return {k: Path(v) for k, v in found.items()}

    def context(self, *volumes: Body, **spec: Any) -> Context:
        pod = pod_body(volumes=[*volumes], serviceAccountName="sa", **spec)
        pod["metadata"]["labels"] = {"app": "x", "tier": 'q"'}
        return Context(pod=pod, node_name="n1")

    def refresh(self, *volumes: Body) -> float:
        return asyncio.run(self.volumes.refresh(self.context(*volumes)))


@pytest.fixture
def case(tmp_path: Path) -> _Case:
    return _Case(tmp_path)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_empty_dir_is_everybodys_and_keeps_its_contents(case: _Case) -> None:
    path = case.mount({"name": "v", "emptyDir": {}})["v"]
    assert _mode(path) == 0o777
    (path / "x").write_text("kept")
    again = case.mount({"name": "v", "emptyDir": {}})["v"]
    assert (again / "x").read_text() == "kept"
    asyncio.run(case.volumes.unmount("u", remove=True))
    assert not path.exists()
    assert list(case.volumes.known()) == []


def test_empty_dir_in_memory(tmp_path: Path) -> None:
    tmpfs = _Tmpfs()
    case = _Case(tmp_path, tmpfs)
    volume = {"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}
    path = case.mount(volume)["v"]
    assert tmpfs.mounted == {str(path): 1 << 20}
    case.mount(volume)
    assert case.warnings == []
    asyncio.run(case.volumes.unmount("u", remove=True))
    assert tmpfs.mounted == {}
    without = _Case(tmp_path / "other")
    without.mount(volume)
    assert without.warnings == [
        'emptyDir volume "v" asks for medium Memory; this node keeps it on disk'
    ]


def test_config_map_as_files(case: _Case) -> None:
    case.sources.bodies["configmaps", "cm"] = {
        "data": {"a.conf": "one"},
        "binaryData": {"b": base64.b64encode(b"\0\1").decode()},
    }
    path = case.mount({"name": "v", "configMap": {"name": "cm", "defaultMode": 0o640}})["v"]
    assert (path / "a.conf").read_text() == "one"
    assert (path / "b").read_bytes() == b"\0\1"
    assert _mode(path / "a.conf") == 0o640
    assert os.readlink(path / "a.conf") == "..data/a.conf"
    assert (path / "..data").is_symlink()


def test_chosen_items_with_paths_and_modes(case: _Case) -> None:
    case.sources.bodies["secrets", "s"] = {"data": {"k": "dg==", "other": "eA=="}}
    items = [{"key": "k", "path": "deep/er/file", "mode": 0o400}]
    path = case.mount({"name": "v", "secret": {"secretName": "s", "items": items}})["v"]
    assert (path / "deep/er/file").read_bytes() == b"v"
    assert _mode(path / "deep/er/file") == 0o400
    assert sorted(p.name for p in path.iterdir() if not p.name.startswith("..")) == ["deep"]


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        ({"configMap": {"name": "no"}}, 'configmap "no" not found'),
        ({"secret": {"secretName": "no"}}, 'secret "no" not found'),
        (
            {"configMap": {"name": "cm", "items": [{"key": "x", "path": "x"}]}},
            "references non-existent config key: x",
        ),
        ({"nfs": {}}, "volumes of type nfs are not supported by this node"),
        ({"hostPath": {"path": "/none", "type": "Directory"}}, "hostPath type check failed: /none "
         "is not a directory"),
        ({"hostPath": {"path": "/etc", "type": "File"}}, "hostPath type check failed: /etc is not "
         "a file"),
    ],
)  # fmt: skip
def test_what_cannot_be_mounted(case: _Case, volume: Body, message: str) -> None:
    case.sources.bodies["configmaps", "cm"] = {"data": {}}
    with pytest.raises(VolumeFailure) as failure:
        case.mount({"name": "v", **volume})
    assert str(failure.value) == f'MountVolume.SetUp failed for volume "v" : {message}'


def test_what_is_optional_may_be_absent(case: _Case) -> None:
    path = case.mount({"name": "v", "configMap": {"name": "no", "optional": True}})["v"]
    assert [p.name for p in path.iterdir() if not p.name.startswith("..")] == []


def test_host_paths(case: _Case, tmp_path: Path) -> None:
    made = tmp_path / "made/here"
    volume = {"name": "v", "hostPath": {"path": str(made), "type": "DirectoryOrCreate"}}
    assert case.mount(volume)["v"] == made
    assert made.is_dir()
    file = {"name": "v", "hostPath": {"path": str(made / "f"), "type": "FileOrCreate"}}
    assert case.mount(file)["v"].is_file()


def test_downward_api(case: _Case) -> None:
    items = [
        {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
        {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}, "mode": 0o600},
    ]
    path = case.mount({"name": "v", "downwardAPI": {"items": items}})["v"]
    assert (path / "labels").read_text() == 'app="x"\ntier="q\\""'
    assert (path / "name").read_text() == "p"
    assert _mode(path / "name") == 0o600


API_ACCESS = {
    "name": "kube-api-access",
    "projected": {
        "defaultMode": 0o644,
        "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3600, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca", "path": "ca.crt"}]}},
            {
                "downwardAPI": {
                    "items": [
                        {"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}
                    ]
                }
            },
        ],
    },
}


def test_projected_api_access_and_its_token(case: _Case) -> None:
    case.sources.bodies["configmaps", "kube-root-ca.crt"] = {"data": {"ca": "PEM"}}
    path = case.mount(API_ACCESS)["kube-api-access"]
    assert (path / "token").read_text() == "sa--1"
    assert (path / "ca.crt").read_text() == "PEM"
    assert (path / "namespace").read_text() == "ns"
    assert case.refresh(API_ACCESS) <= 60
    assert case.sources.tokens == 1
    case.clock.t += 3600 * 0.8 + 1
    case.refresh(API_ACCESS)
    assert (path / "token").read_text() == "sa--2"


def test_changes_arrive_at_once_and_old_ones_go(case: _Case) -> None:
    volume = {"name": "v", "configMap": {"name": "cm"}}
    case.sources.bodies["configmaps", "cm"] = {"data": {"a": "1", "b": "1"}}
    path = case.mount(volume)["v"]
    before = os.readlink(path / "..data")
    case.refresh(volume)
    assert os.readlink(path / "..data") == before
    case.sources.bodies["configmaps", "cm"] = {"data": {"a": "2", "c": "2"}}
    case.refresh(volume)
    assert {p.name: p.read_text() for p in path.iterdir() if p.name[0] != "."} == {
        "a": "2",
        "c": "2",
    }
    assert not (path / before).exists()
    assert len([p for p in path.iterdir() if p.name.startswith("..")]) == 2


def test_a_volume_that_cannot_be_refreshed_keeps_no_other_from_it(case: _Case) -> None:
    item = {"key": "b", "path": "b"}
    volumes = [
        {"name": "v", "configMap": {"name": "cm", "items": [item]}},
        {"name": "w", "configMap": {"name": "cm"}},
        {"name": "x", "secret": {"secretName": "later", "optional": True}},
    ]
    case.sources.bodies["configmaps", "cm"] = {"data": {"a": "1", "b": "1"}}
    paths = case.mount(*volumes)
    case.sources.bodies["configmaps", "cm"] = {"data": {"a": "2"}}
    case.sources.bodies["secrets", "later"] = {"data": {"s": "Yg=="}}
    with pytest.raises(RuntimeFailure, match="references non-existent config key: b"):
        case.refresh(*volumes)
    assert (paths["w"] / "a").read_text() == "2"
    assert (paths["x"] / "s").read_text() == "b"
    assert (paths["v"] / "b").read_text() == "1"


def test_payload_says_whether_it_wrote(tmp_path: Path) -> None:
    entries = {"a": Entry(b"1"), "d/e": Entry(b"2", 0o600)}
    assert write_payload(tmp_path, entries, stamp=START)
    assert not write_payload(tmp_path, entries, stamp=START + 1)
    assert write_payload(tmp_path, {**entries, "a": Entry(b"1", 0o600)}, stamp=START)


def test_sub_paths_stay_inside(case: _Case, tmp_path: Path) -> None:
    base = tmp_path / "vol"
    base.mkdir()
    (base / "file").write_text("x")
    (base / "out").symlink_to("/etc")
    place, is_file = case.volumes.sub_path(str(base), "new/dir")
    assert (Path(place).is_dir(), is_file) == (True, False)
    assert case.volumes.sub_path(str(base), "file") == (str(base / "file"), True)
    for bad in ("../x", "out/passwd"):
        with pytest.raises(RuntimeFailure, match="leads out of its volume"):
            case.volumes.sub_path(str(base), bad)


def test_termination_log(case: _Case) -> None:
    path = Path(case.volumes.termination("u", "a", 2))
    assert _mode(path) == 0o666
    assert case.volumes.read_termination("u", "a", 2) == ""
    path.write_text("x" * 5000)
    assert len(case.volumes.read_termination("u", "a", 2)) == 4096
    assert case.volumes.read_termination("u", "b", 0) == ""
