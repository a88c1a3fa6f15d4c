"""Claims on a node: whose volume a pod gets, why it does not, and where volumes are."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from sampan.api.obj import Body
from sampan.control import storage
from sampan.node.claims import ClaimFailure, Claims
from sampan.node.disks import Disks, TooLarge, give_to_group, release_devices
from sampan.node.resolve import Context
from sampan.node.runtime.base import RuntimeFailure
from sampan.node.volumes import SimulatedVolumes, VolumeFailure, real_path


def claim(**more: Any) -> Body:
    body: Body = {
        "metadata": {"name": "c", "namespace": "ns", "uid": "u"},
        "spec": {"volumeName": "v", "accessModes": ["ReadWriteOnce"],
                 "resources": {"requests": {"storage": "1Gi"}}},
        "status": {"phase": "Bound"},
    }  # fmt: skip
    for part, values in more.items():
        body[part] = {**body[part], **values}
    return body


def volume(**spec: Any) -> Body:
    return {
        "metadata": {"name": "v", "annotations": {storage.PROVISIONED_BY: storage.PROVISIONER}},
        "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
                 "claimRef": {"namespace": "ns", "name": "c", "uid": "u"},
                 "local": {"path": "/var/lib/sampan/volumes/v"}, **spec},
        "status": {"phase": "Bound"},
    }  # fmt: skip


def pod(name: str = "p", *, phase: str = "Pending", **spec: Any) -> Body:
    return {
        "metadata": {"name": name, "namespace": "ns", "uid": f"uid-{name}"},
        "spec": {"containers": [{"name": "c", "volumeMounts": [{"name": "data"}]}],
                 "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "c"}}],
                 **spec},
        "status": {"phase": phase},
    }  # fmt: skip


class _Reader:
    def __init__(self, *bodies: tuple[str, Body]) -> None:
        self.bodies = {(r, b["metadata"]["name"]): b for r, b in bodies}

    async def read(self, resource: str, namespace: str, name: str) -> Body | None:
        return self.bodies.get((resource, name))


NODE: Body = {"metadata": {"name": "n", "labels": {"zone": "a"}}}


def claims(
    *, of: Body | None = None, on: Body | None = None, others: tuple[Body, ...] = (),
    disks: Disks | None = None,
) -> Claims:  # fmt: skip
    bodies = [("nodes", NODE)]
    bodies += [(storage.CLAIMS, of)] if of else []
    bodies += [(storage.VOLUMES, on)] if on else []
    return Claims(_Reader(*bodies), node="n", others=lambda: others, disks=disks)


def mounted(held: Claims, body: Body | None = None) -> str:
    body = body or pod()
    place, _ = asyncio.run(held.mount(body, body["spec"]["volumes"][0]))
    return place.path


IN_ZONE_B = {"required": {"nodeSelectorTerms": [
    {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["b"]}]}]}}  # fmt: skip
BLOCK = {"containers": [{"name": "c", "volumeDevices": [{"name": "data"}]}]}
PROCESSING = "error processing PVC ns/c: "


@pytest.mark.parametrize(
    ("held", "body", "why"),
    [
        (claims(), pod(), PROCESSING + 'failed to fetch PVC from API server: '
         'persistentvolumeclaims "c" not found'),
        (claims(of=claim(status={"phase": "Pending"}), on=volume()), pod(),
         PROCESSING + "PVC is not bound"),
        (claims(of=claim(metadata={"deletionTimestamp": "x"}), on=volume()), pod(),
         PROCESSING + "PVC is being deleted"),
        (claims(of=claim()), pod(), PROCESSING + "failed to fetch PV v from API server: "
         'persistentvolumes "v" not found'),
        (claims(of=claim(), on=volume(claimRef={"uid": "other"})), pod(),
         PROCESSING + 'PV v is bound to another claim (UID "other")'),
        (claims(of=claim(), on=volume(volumeMode="Block")), pod(),
         "volume data has volumeMode Block, but is specified in volumeMounts"),
        (claims(of=claim(), on=volume()), pod(**BLOCK),
         "volume data has volumeMode Filesystem, but is specified in volumeDevices"),
        (claims(of=claim(), on=volume(nodeAffinity=IN_ZONE_B)), pod(),
         'MountVolume.NodeAffinity check failed for volume "v" : no matching NodeSelectorTerms'),
        (claims(of=claim(), on=volume(accessModes=["ReadWriteOncePod"]), others=(pod("q"),)), pod(),
         'MountVolume.SetUp failed for volume "v" : volume uses the ReadWriteOncePod access mode '
         "and is already in use by another pod"),
    ],
)  # fmt: skip
def test_refusals(held: Claims, body: Body, why: str) -> None:
    with pytest.raises(ClaimFailure) as e:
        mounted(held, body)
    assert str(e.value) == why


def test_other_kinds_are_refused_by_name(tmp_path: Path) -> None:
    foreign = volume(nfs={"server": "s", "path": "/"})
    foreign["metadata"]["annotations"] = {}
    del foreign["spec"]["local"]
    with pytest.raises(ClaimFailure, match="volumes of type nfs are not supported by this node"):
        mounted(claims(of=claim(), on=foreign, disks=Disks(tmp_path)))


def test_a_pod_that_runs_keeps_a_claim_that_is_deleted_and_an_ended_one_frees_its_own() -> None:
    deleted = claim(metadata={"deletionTimestamp": "x"})
    assert mounted(claims(of=deleted, on=volume()), pod(phase="Running"))
    single = volume(accessModes=["ReadWriteOncePod"])
    assert mounted(claims(of=claim(), on=single, others=(pod("q", phase="Succeeded"),)))
    assert mounted(claims(of=claim(), on=single, others=(pod(),)))  # itself is no other


def test_an_ephemeral_volume_has_to_be_the_pods_own() -> None:
    body = pod(volumes=[{"name": "data", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}])
    theirs = claim(metadata={"name": "p-data"})
    with pytest.raises(ClaimFailure, match="PVC ns/p-data was not created for pod ns/p"):
        mounted(claims(of=theirs, on=volume()), body)
    refs = [{"uid": "uid-p", "controller": True}]
    own = claim(metadata={"name": "p-data", "ownerReferences": refs})
    assert mounted(claims(of=own, on=volume()), body)


def test_simulated_volumes_ask_for_bound_claims_too() -> None:
    context = Context(pod=pod())
    with pytest.raises(VolumeFailure) as e:
        asyncio.run(SimulatedVolumes(claims()).mount(context, lambda _: None))
    assert str(e.value).startswith(
        "Unable to attach or mount volumes: unmounted volumes=[data], unattached volumes=[], "
        "failed to process volumes=[data]: error processing PVC ns/c: "
    )
    found = asyncio.run(SimulatedVolumes(claims(of=claim(), on=volume())).mount(context, print))
    assert found == {"data": "/volumes/v"}


# -- places ----------------------------------------------------------------------------------------


def test_a_directory_is_made_once_kept_and_removed(tmp_path: Path) -> None:
    disks = Disks(tmp_path / "volumes")
    held = claims(of=claim(), on=volume(), disks=disks)
    path = Path(mounted(held))
    assert path == tmp_path / "volumes" / "v"
    assert stat.S_IMODE(path.stat().st_mode) == 0o777
    (path / "file").write_text("kept")
    path.chmod(0o700)
    assert Path(mounted(held)) == path
    assert (path / "file").read_text() == "kept"
    assert stat.S_IMODE(path.stat().st_mode) == 0o700  # what its users set stays
    asyncio.run(disks.remove("v"))
    assert not path.exists()
    asyncio.run(disks.remove("v"))  # again is fine


def test_a_static_local_volume_has_to_be_there(tmp_path: Path) -> None:
    static = volume(local={"path": str(tmp_path / "there")})
    static["metadata"]["annotations"] = {}
    held = claims(of=claim(), on=static, disks=Disks(tmp_path / "volumes"))
    with pytest.raises(ClaimFailure, match=r'path ".*/there" does not exist'):
        mounted(held)
    (tmp_path / "there").mkdir()
    assert mounted(held) == str(tmp_path / "there")


def test_a_static_host_path_is_checked_against_its_type(tmp_path: Path) -> None:
    def at(kind: str) -> Claims:
        static = volume(hostPath={"path": str(tmp_path / "there"), "type": kind})
        static["metadata"]["annotations"] = {}
        del static["spec"]["local"]
        return claims(of=claim(), on=static, disks=Disks(tmp_path / "volumes"))

    with pytest.raises(ClaimFailure, match=r'volume "v" : hostPath type check failed: .*/there is '
                       "not a directory"):  # fmt: skip
        mounted(at("Directory"))
    assert mounted(at("DirectoryOrCreate")) == str(tmp_path / "there")
    assert mounted(at("Directory")) == mounted(at("")) == str(tmp_path / "there")
    with pytest.raises(ClaimFailure, match="is not a socket file"):
        mounted(at("Socket"))


@pytest.mark.parametrize("block", [False, True])
def test_what_no_disk_has_is_refused_and_leaves_nothing(tmp_path: Path, block: bool) -> None:
    disks = Disks(tmp_path / "volumes")
    with pytest.raises(TooLarge, match="1152921504606846976 bytes do not fit: the node's disk has"):
        asyncio.run(disks.ensure("v", size=1 << 60, image=True, block=block, alone=True))
    assert list((tmp_path / "volumes").iterdir()) == []


def test_removal_never_follows_links_out_of_the_volume(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("mine")
    disks = Disks(tmp_path / "volumes")
    path = Path(mounted(claims(of=claim(), on=volume(), disks=disks)))
    (path / "link").symlink_to(outside)
    asyncio.run(disks.remove("v"))
    assert (outside / "file").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() != 0, reason="groups are given by root")
def test_a_group_gets_everything_below(tmp_path: Path) -> None:
    top = tmp_path / "v"
    (top / "sub").mkdir(parents=True)
    (top / "sub" / "file").write_text("x")
    (top / "run").write_text("x")
    (top / "run").chmod(0o700)
    (tmp_path / "outside").write_text("x")
    (top / "link").symlink_to(tmp_path / "outside")
    give_to_group(str(top), 4242, False)
    for path in (top, top / "sub"):
        assert path.stat().st_gid == 4242
        assert path.stat().st_mode & 0o2070 == 0o2070
    assert (top / "sub" / "file").stat().st_gid == 4242
    assert (top / "sub" / "file").stat().st_mode & 0o070 == 0o060
    assert (top / "run").stat().st_mode & 0o070 == 0o070
    assert (tmp_path / "outside").stat().st_gid != 4242
    assert (top / "link").lstat().st_gid == 4242


@pytest.mark.skipif(os.geteuid() != 0, reason="groups are given by root")
def test_only_on_mismatch_looks_at_the_top_only(tmp_path: Path) -> None:
    top = tmp_path / "v"
    top.mkdir()
    give_to_group(str(top), 4242, True)
    assert top.stat().st_gid == 4242
    (top / "later").write_text("x")
    os.chown(top / "later", -1, 0)
    give_to_group(str(top), 4242, True)
    assert (top / "later").stat().st_gid == 0
    give_to_group(str(top), 4242, False)
    assert (top / "later").stat().st_gid == 4242


def test_devices_of_others_are_left_alone(tmp_path: Path) -> None:
    release_devices(tmp_path)


# -- paths in the node -----------------------------------------------------------------------------


def test_links_are_followed_in_the_nodes_view(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "data" / "sub").mkdir(parents=True)
    (root / "data" / "abs").symlink_to("/data/sub")
    (root / "data" / "up").symlink_to("../../../..")
    (root / "loop").symlink_to("loop")

    def view(path: str) -> str:
        return f"{root}{path}"

    assert real_path("/data/abs/x", view) == "/data/sub/x"
    assert real_path("/data/./sub/../abs", view) == "/data/sub"
    assert real_path("/data/up/data", view) == "/data"  # above the top is the top
    assert real_path("/data/none/x", view) == "/data/none/x"
    with pytest.raises(RuntimeFailure, match="too many symbolic links"):
        real_path("/loop", view)
