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
kind: PersistentVolumeClaim
metadata: {name: raw}
spec:
  accessModes: [ReadWriteOnce]
  volumeMode: Block
  resources: {requests: {storage: 8Mi}}
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
    volumeDevices:
    - {name: raw, devicePath: /dev/raw}
  volumes:
  - {name: raw, persistentVolumeClaim: {claimName: raw}}
  - {name: plain, persistentVolumeClaim: {claimName: plain}}
  - {name: sized, persistentVolumeClaim: {claimName: sized}}
"""  # noqa: E501
# A front end that counts its visits in a Redis, which keeps them on a volume of its own.
TWO_TIERS = """
apiVersion: v1
kind: ConfigMap
metadata: {name: front}
data:
  visit: |
    #!/bin/sh
    echo "Content-Type: text/plain"
    echo
    redis-cli -h redis incr visits
---
apiVersion: v1
kind: Service
metadata: {name: redis}
spec: {selector: {app: redis}, clusterIP: None, ports: [{port: 6379}]}
---
apiVersion: v1
kind: Service
metadata: {name: front}
spec: {selector: {app: front}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: redis}
spec:
  serviceName: redis
  selector: {matchLabels: {app: redis}}
  template:
    metadata: {labels: {app: redis}}
    spec:
      terminationGracePeriodSeconds: 2
      containers:
      - name: redis
        image: "redis:7"
        imagePullPolicy: IfNotPresent
        command: [redis-server, --bind, 0.0.0.0, --protected-mode, "no", --dir, /data, --appendonly, "yes", --appendfsync, always]
        readinessProbe: {exec: {command: [redis-cli, ping]}, periodSeconds: 1}
        volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 32Mi}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: front}
spec:
  replicas: 2
  selector: {matchLabels: {app: front}}
  template:
    metadata: {labels: {app: front}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: httpd
        image: "redis:7"
        imagePullPolicy: IfNotPresent
        command: [httpd, -f, -h, /www]
        volumeMounts: [{name: cgi, mountPath: /www/cgi-bin}]
      volumes: [{name: cgi, configMap: {name: front, defaultMode: 0755}}]
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
    old.kubectl("apply", "-f", "-", stdin=TWO_TIERS)
    first = starts(old)
    assert len(first["plain"]) == len(first["sized"]) == 1
    claims = {c["metadata"]["name"]: c for c in old.get("pvc")["items"]}
    old.kubectl("expose", "deploy/front", "--name", "door", "--type", "NodePort", "--port", "80")
    addresses = services(old)
    token = old.kubectl("create", "token", "default").strip()

    # The loss of the Redis' pod.
    seen = visits(old)
    before = old.get("pod", "redis-0")["metadata"]["uid"]
    old.kubectl("delete", "pod", "redis-0", "--timeout=60s")
    old.until("another one", lambda: "redis-0" in old.kubectl("get", "pods", "-o", "name") and (
        old.get("pod", "redis-0")["metadata"]["uid"] != before))  # fmt: skip
    assert visits(old) > seen

    # kill -9 of the daemon: the container goes on, and so does its data.
    (main,) = json.loads(old.sampan("status", "-o", "json"))["mainPids"]
    os.kill(main, signal.SIGKILL)
    old.until("it is gone", lambda: not alive(main))
    up(old)
    assert starts(old) == first

    # A snapshot while it runs; then everything is killed, containers and nodes too.
    file = tmp_path / "life.snapshot"
    seen = visits(old)
    volumes = [v["metadata"]["name"] for v in old.get("pv")["items"]]
    old.sampan("snapshot", "save", str(file), "--volumes")
    pids = json.loads(old.sampan("status", "-o", "json"))["pids"]
    for pid in pids:
        if alive(pid):
            os.kill(pid, signal.SIGKILL)
    up(old)
    second = starts(old)
    assert {k: v[:1] for k, v in second.items()} == first
    assert len(second["plain"]) >= 2
    assert visits(old) > seen

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
    assert seen < visits(new) < seen + 10
    back = {c["metadata"]["name"]: c for c in new.get("pvc")["items"]}
    for name, claim in claims.items():
        assert back[name]["metadata"]["uid"] == claim["metadata"]["uid"]
        assert back[name]["spec"] == claim["spec"]
    assert services(new) == addresses
    # What is given out now collides with nothing that was given out then.
    new.kubectl("expose", "deploy/front", "--name", "more", "--type", "NodePort", "--port", "80")
    more = services(new).pop("more")
    assert not set(more) & {a for given in addresses.values() for a in given}
    assert [v["metadata"]["name"] for v in new.get("pv")["items"]] == volumes
    assert authority(old) == authority(new)
    assert who(new, token) == "system:serviceaccount:default:default"


def services(c: Cluster) -> dict[str, list[str]]:
    """The addresses and node ports each Service holds."""
    return {
        s["metadata"]["name"]: [
            *(a for a in s["spec"].get("clusterIPs", ()) if a != "None"),
            *(str(p["nodePort"]) for p in s["spec"]["ports"] if p.get("nodePort")),
        ]
        for s in c.get("svc")["items"]
    }


def visits(c: Cluster) -> int:
    """One more visit, through the front end and by name; the number the Redis has counted."""

    def visit() -> int:
        said = c.kubectl("exec", "app", "--", "wget", "-qO-", "http://front/cgi-bin/visit",
                         check=False)  # fmt: skip
        return int(said) if said.strip().isdigit() else 0

    number: int = c.until("the front end has asked the Redis", visit, timeout=90)
    return number


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
