"""Data through the worst: kill -9 of everything, down and up, and a restore somewhere else."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sampan.lib.datadir import DataDir
from sampan.testing.e2e import Cluster, alive, host_state, kubectl_path, sampan

APP = """
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: plain}
spec:
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 16Mi}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: sized}
spec:
  accessModes: [ReadWriteOnce]
  storageClassName: sampan-local-sized
  resources: {requests: {storage: 16Mi}}
---
apiVersion: v1
kind: Pod
metadata: {name: app}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: busybox
    imagePullPolicy: IfNotPresent
    command: [sh, -c, "for v in /plain /sized; do echo $(cat /proc/sys/kernel/random/uuid) >> $v/starts; done; exec sleep 1000"]
    volumeMounts:
    - {name: plain, mountPath: /plain}
    - {name: sized, mountPath: /sized}
  volumes:
  - {name: plain, persistentVolumeClaim: {claimName: plain}}
  - {name: sized, persistentVolumeClaim: {claimName: sized}}
"""  # noqa: E501


def up(made: Cluster, *more: str) -> None:
    sampan(
        "up", "--data-dir", str(made.data_dir), "--port", "0", "--no-uplink", "--kubeconfig",
        str(made.kubeconfig), *more,
    )  # fmt: skip


@pytest.fixture
def clusters(tmp_path: Path, stand_ins: Path) -> Iterator[tuple[Cluster, Cluster]]:
    """A cluster of two nodes that runs, and the place of another."""
    made = [Cluster(tmp_path / n, tmp_path / f"{n}.conf", kubectl_path()) for n in ("old", "new")]
    roots = [DataDir(c.data_dir).node_root for c in made]
    before = host_state(*roots)
    try:
        up(made[0], "--name", "life", "--nodes", "2")
        made[0].sampan("image", "load", str(stand_ins))
        yield made[0], made[1]
    finally:
        for c in made:
            sampan("down", "--purge", "--data-dir", str(c.data_dir), check=False)
    after = host_state(*roots)
    assert {k: after[k] - before[k] for k in after if after[k] - before[k]} == {}


def starts(c: Cluster) -> dict[str, list[str]]:
    """What the application wrote at each of its starts, by volume."""
    c.kubectl("wait", "pod/app", "--for=condition=Ready", "--timeout=60s")

    def read() -> dict[str, list[str]]:
        said = c.kubectl("exec", "app", "--", "sh", "-c", "cat /plain/starts; echo; "
                         "cat /sized/starts", check=False)  # fmt: skip
        plain, _, sized = said.partition("\n\n")
        return {"plain": plain.split(), "sized": sized.split()}

    found: dict[str, list[str]] = c.until(
        "the application has written", lambda: (f := read())["sized"] and f
    )
    return found


def test_data_outlives_everything(clusters: tuple[Cluster, Cluster], tmp_path: Path,
                                  stand_ins: Path) -> None:  # fmt: skip
    old, new = clusters
    old.kubectl("apply", "-f", "-", stdin=APP)
    first = starts(old)
    assert len(first["plain"]) == len(first["sized"]) == 1
    claims = {c["metadata"]["name"]: c for c in old.get("pvc")["items"]}
    token = old.kubectl("create", "token", "default").strip()

    # kill -9 of the daemon: the container goes on, and so does its data.
    (main,) = json.loads(old.sampan("status", "-o", "json"))["mainPids"]
    os.kill(main, signal.SIGKILL)
    old.until("it is gone", lambda: not alive(main))
    up(old)
    assert starts(old) == first

    # A snapshot while it runs; then everything is killed, containers and nodes too.
    file = tmp_path / "life.snapshot"
    old.sampan("snapshot", "save", str(file), "--volumes")
    pids = json.loads(old.sampan("status", "-o", "json"))["pids"]
    for pid in pids:
        if alive(pid):
            os.kill(pid, signal.SIGKILL)
    up(old)
    second = starts(old)
    assert {k: v[:1] for k, v in second.items()} == first
    assert len(second["plain"]) >= 2

    # Down and up.
    old.sampan("down")
    up(old)
    third = starts(old)
    assert {k: v[: len(second[k])] for k, v in third.items()} == second
    old.sampan("down")

    # Somewhere else it is the same cluster, as it was then.
    (row,) = json.loads(sampan("snapshot", "ls", str(file), "-o", "json").stdout)
    assert (row["cluster"], row["nodes"], row["volumes"]) == ("life", 2, True)
    new.sampan("snapshot", "restore", str(file))
    sampan("up", "--data-dir", str(new.data_dir), "--kubeconfig", str(new.kubeconfig))
    new.sampan("image", "load", str(stand_ins))
    again = starts(new)
    assert {k: v[:1] for k, v in again.items()} == first
    assert not set(third["plain"][1:]) & set(again["plain"])
    back = {c["metadata"]["name"]: c for c in new.get("pvc")["items"]}
    for name, claim in claims.items():
        assert back[name]["metadata"]["uid"] == claim["metadata"]["uid"]
        assert back[name]["spec"] == claim["spec"]
    assert authority(old) == authority(new)
    assert who(new, token) == "system:serviceaccount:default:default"


def authority(c: Cluster) -> Any:
    config = yaml.safe_load(c.kubeconfig.read_text())
    return config["clusters"][0]["cluster"]["certificate-authority-data"]


def who(c: Cluster, token: str) -> str:
    """Whom a token of the old cluster names in the new one."""
    config = yaml.safe_load(c.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    path = c.kubeconfig.with_suffix(".token")
    path.write_text(yaml.safe_dump(config))
    plain = Cluster(c.data_dir, path, c.kubectl_binary)
    answer = json.loads(plain.kubectl("auth", "whoami", "-o", "json"))
    return str(answer["status"]["userInfo"]["username"])
