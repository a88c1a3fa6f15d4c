"""Volumes with real containers: where data is, that it stays, that it grows, and that it goes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from sampan.testing.e2e import Cluster

NS = "storage"


@pytest.fixture(scope="module")
def ns(cluster: Cluster) -> Iterator[Cluster]:
    cluster.kubectl("create", "ns", NS)
    yield cluster
    cluster.kubectl("delete", "ns", NS, "--timeout=90s")


def claim(name: str, size: str = "64Mi", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}},
                 **spec},
    }  # fmt: skip


def pod(name: str, script: str, claim_name: str = "", **spec: Any) -> dict[str, Any]:
    container: dict[str, Any] = {
        "name": "c", "image": "busybox", "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", script],
    }  # fmt: skip
    body: dict[str, Any] = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"terminationGracePeriodSeconds": 1, "restartPolicy": "Never",
                 "containers": [container], **spec},
    }  # fmt: skip
    if claim_name:
        body["spec"]["volumes"] = [
            {"name": "data", "persistentVolumeClaim": {"claimName": claim_name}}
        ]
        container["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
    return body


def apply(ns: Cluster, *bodies: dict[str, Any]) -> None:
    ns.kubectl("apply", "-n", NS, "-f", "-", stdin=yaml.safe_dump_all(bodies))


def logs_of(ns: Cluster, name: str) -> str:
    """What a pod said, once it has ended well."""

    def ended() -> Any:
        status = ns.get("pod", "-n", NS, name)["status"]
        return status.get("phase") in ("Succeeded", "Failed") and status

    status = ns.until(f"{name} ends", ended, timeout=60)
    said = ns.kubectl("logs", "-n", NS, name)
    assert status["phase"] == "Succeeded", said
    return said


def ready(ns: Cluster, name: str) -> None:
    ns.kubectl("wait", "-n", NS, f"pod/{name}", "--for=condition=Ready", "--timeout=60s")


def sh(ns: Cluster, name: str, script: str) -> str:
    return ns.kubectl("exec", "-n", NS, name, "--", "sh", "-c", script)


def grow(ns: Cluster, name: str, size: str) -> None:
    patch = {"spec": {"resources": {"requests": {"storage": size}}}}
    ns.kubectl("patch", "-n", NS, f"pvc/{name}", "-p", json.dumps(patch))


def growth(ns: Cluster, name: str) -> str:
    """What a claim has, how far its growth is, and its conditions."""
    status = ns.get("pvc", "-n", NS, name)["status"]
    kinds = [c["type"] for c in status.get("conditions") or ()]
    where = (status.get("allocatedResourceStatuses") or {}).get("storage", "")
    return " ".join(w for w in (status["capacity"]["storage"], where, *kinds) if w)


def delete(ns: Cluster, *names: str) -> None:
    ns.kubectl("delete", "-n", NS, "--timeout=60s", *names)


def test_data_stays_with_its_claim_and_goes_with_it(ns: Cluster) -> None:
    assert "sampan-local (default)" in ns.kubectl("get", "sc")
    apply(ns, claim("data"))
    apply(ns, pod("writer", "id -u; echo kept > /data/file; mkdir -p /data/sub", "data"))
    logs_of(ns, "writer")
    where = ns.get("pod", "-n", NS, "writer")["spec"]["nodeName"]
    delete(ns, "pod/writer")
    reader = pod("reader", "cat /data/file /sub/inner; cat /data/file > /sub/inner && echo wrote",
                 "data")  # fmt: skip
    reader["spec"]["containers"][0]["volumeMounts"].append(
        {"name": "data", "mountPath": "/sub", "subPath": "sub"}
    )
    reader["spec"]["containers"][0]["command"][2] = (
        "cat /data/file; cp /data/file /sub/inner; cat /data/sub/inner"
    )
    apply(ns, reader)
    assert logs_of(ns, "reader").split() == ["kept", "kept"]
    assert ns.get("pod", "-n", NS, "reader")["spec"]["nodeName"] == where
    # Read-only, and a group of its own.
    body = pod("grouped", "ls -ldn /data/file | awk '{print $4}'; echo x > /data/new", "data",
               securityContext={"fsGroup": 4242})  # fmt: skip
    apply(ns, body)
    assert logs_of(ns, "grouped").strip() == "4242"
    body = pod("fixed", "cat /data/file; touch /data/no 2>&1 || echo refused", "data")
    body["spec"]["volumes"][0]["persistentVolumeClaim"]["readOnly"] = True
    apply(ns, body)
    assert logs_of(ns, "fixed").split()[0::1][0] == "kept"
    assert "refused" in ns.kubectl("logs", "-n", NS, "fixed")
    # In use it stays, whatever is deleted.
    apply(ns, pod("user", "sleep 1000", "data"))
    ready(ns, "user")
    volume = ns.get("pvc", "-n", NS, "data")["spec"]["volumeName"]
    ns.kubectl("delete", "-n", NS, "pvc/data", "--wait=false")
    assert "Terminating" in ns.kubectl("get", "-n", NS, "pvc", "data")
    assert sh(ns, "user", "cat /data/file").strip() == "kept"
    delete(ns, "pod/user", "pod/reader", "pod/grouped", "pod/fixed")
    ns.until("the claim goes", lambda: "NotFound" in ns.kubectl(
        "get", "-n", NS, "pvc", "data", check=False))  # fmt: skip
    ns.until("the volume goes", lambda: "NotFound" in ns.kubectl(
        "get", "pv", volume, check=False))  # fmt: skip
    place = ns.data_dir / "node" / "volumes" / where / volume
    assert not place.exists()


def test_a_sized_volume_is_as_large_as_it_says_and_grows(ns: Cluster) -> None:
    apply(ns, claim("sized", "16Mi", storageClassName="sampan-local-sized"))
    apply(ns, pod("full", "sleep 1000", "sized"))
    ready(ns, "full")
    said = sh(
        ns,
        "full",
        "echo before > /data/a; "
        "dd if=/dev/zero of=/data/big bs=1M count=40 2>&1 || true; df -m /data | tail -1",
    )
    assert "No space left" in said
    assert int(said.split()[-5]) <= 16
    # A full volume is nobody else's problem.
    apply(ns, pod("other", "echo fine"))
    assert logs_of(ns, "other").strip() == "fine"
    # No disk has that: the node says so, and less can be asked for instead.
    grow(ns, "sized", "900Ti")
    delete(ns, "pod/full")
    apply(ns, pod("more", "sleep 1000", "sized"))
    ready(ns, "more")  # with what it has
    impossible = "16Mi NodeResizeInfeasible FileSystemResizePending NodeResizeError"
    ns.until("its node finds it impossible", lambda: growth(ns, "sized") == impossible)
    assert ns.get("pvc", "-n", NS, "sized")["status"]["allocatedResources"] == {"storage": "900Ti"}
    assert "do not fit: the node's disk has" in ns.kubectl("describe", "-n", NS, "pvc", "sized")
    grow(ns, "sized", "48Mi")
    # In use where the kernel lets us, else when the pod starts again.
    ns.until("it grows or waits", lambda: growth(ns, "sized") in (
        "48Mi", "16Mi NodeResizeInProgress FileSystemResizePending"))  # fmt: skip
    delete(ns, "pod/more")
    apply(ns, pod("again", "sleep 1000", "sized"))
    ready(ns, "again")
    ns.until("it has grown", lambda: growth(ns, "sized") == "48Mi")
    assert ns.get("pvc", "-n", NS, "sized")["status"]["allocatedResources"] == {"storage": "48Mi"}
    said = sh(ns, "again", "cat /data/a; df -m /data | tail -1")
    assert said.split()[0] == "before"
    assert int(said.split()[-5]) > 30
    delete(ns, "pod/again", "pvc/sized")


def test_xfs_grows_in_use(ns: Cluster) -> None:
    """Without any privilege beyond those of mounting, while the pod writes."""
    apply(ns, {
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": "e2e-xfs"}, "provisioner": "sampan.io/local",
        "allowVolumeExpansion": True, "volumeBindingMode": "WaitForFirstConsumer",
        "parameters": {"sizeEnforced": "true", "csi.storage.k8s.io/fstype": "xfs"},
    }, claim("fast", "304Mi", storageClassName="e2e-xfs"))  # fmt: skip
    apply(ns, pod("writes", "while true; do date >> /data/log; sync; sleep 0.1; done", "fast"))
    ready(ns, "writes")
    assert " xfs " in sh(ns, "writes", "grep /data /proc/mounts")
    before = int(sh(ns, "writes", "df -m /data | tail -1").split()[1])
    grow(ns, "fast", "400Mi")
    ns.until("it has grown", lambda: growth(ns, "fast") == "400Mi")
    assert int(sh(ns, "writes", "df -m /data | tail -1").split()[1]) > before + 80
    assert ns.get("pod", "-n", NS, "writes")["status"]["containerStatuses"][0]["restartCount"] == 0
    told = ns.kubectl("get", "-n", NS, "events", "-o", "jsonpath={range .items[?(@.reason=="
                      '"FileSystemResizeSuccessful")]}{.involvedObject.kind} {end}')  # fmt: skip
    assert {"PersistentVolumeClaim", "Pod"} <= set(told.split())
    delete(ns, "pod/writes", "pvc/fast")
    ns.kubectl("delete", "sc", "e2e-xfs")


def test_a_block_volume_is_a_device(ns: Cluster) -> None:
    apply(ns, claim("raw", "8Mi", volumeMode="Block"))
    body = pod(
        "blocks",
        "test -b /dev/disk && echo hello | dd of=/dev/disk bs=512 conv=sync && "
        "dd if=/dev/disk bs=5 count=1 2>/dev/null && cat /proc/partitions >/dev/null",
    )
    body["spec"]["volumes"] = [{"name": "raw", "persistentVolumeClaim": {"claimName": "raw"}}]
    body["spec"]["containers"][0]["volumeDevices"] = [{"name": "raw", "devicePath": "/dev/disk"}]
    apply(ns, body)
    assert "hello" in logs_of(ns, "blocks")
    delete(ns, "pod/blocks")
    again = {**body, "metadata": {"name": "blocks2"}}
    again["spec"]["containers"][0]["command"][2] = "dd if=/dev/disk bs=5 count=1 2>/dev/null"
    apply(ns, again)
    assert "hello" in logs_of(ns, "blocks2")
    delete(ns, "pod/blocks2", "pvc/raw")


def test_ephemeral_volumes_static_volumes_and_refusals(ns: Cluster) -> None:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "8Mi"}}}
    body = pod("scratch", "echo x > /data/x && cat /data/x")
    body["spec"]["volumes"] = [
        {"name": "data", "ephemeral": {"volumeClaimTemplate": {"spec": spec}}}
    ]
    body["spec"]["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
    apply(ns, body)
    assert logs_of(ns, "scratch").strip() == "x"
    assert ns.get("pvc", "-n", NS, "scratch-data")["status"]["phase"] == "Bound"
    delete(ns, "pod/scratch")
    ns.until("its claim goes", lambda: "NotFound" in ns.kubectl(
        "get", "-n", NS, "pvc", "scratch-data", check=False))  # fmt: skip
    volume = {
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "e2e-nfs"},
        "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany"],
                 "storageClassName": "", "nfs": {"server": "10.0.0.1", "path": "/x"}},
    }  # fmt: skip
    apply(ns, volume, claim("nfs", "1Gi", storageClassName="", accessModes=["ReadWriteMany"]))
    apply(ns, pod("nfs", "true", "nfs"))
    ns.until("it is refused by name", lambda: "persistent volumes of type nfs are not supported" in
             ns.kubectl("get", "-n", NS, "events"))  # fmt: skip
    delete(ns, "pod/nfs", "pvc/nfs")
    ns.until("released", lambda: ns.get("pv", "e2e-nfs")["status"]["phase"] == "Released")
    ns.kubectl("delete", "pv", "e2e-nfs", "--timeout=30s")
