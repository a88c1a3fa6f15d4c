"""A pod fills the disk that the cluster itself lives on: the cluster goes on, and can be helped.

The whole cluster runs in a mount namespace in which its data directory is a small tmpfs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from sampan.lib.datadir import DataDir
from sampan.testing.e2e import Cluster, host_state, kubectl_path, sampan

MEGABYTES = 320
APP = """
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: hungry}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: busybox
    imagePullPolicy: IfNotPresent
    command: [sh, -c, "while ! [ -e /data/go ]; do sleep 0.1; done; dd if=/dev/zero of=/data/all bs=1M; dd if=/dev/zero of=/data/rest bs=4k; sleep 1000"]
    volumeMounts: [{name: v, mountPath: /data}]
  volumes: [{name: v, persistentVolumeClaim: {claimName: data}}]
---
apiVersion: v1
kind: Pod
metadata: {name: modest}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: busybox, imagePullPolicy: IfNotPresent, command: [sleep, "1000"]}]
"""  # noqa: E501


def play(root: Path, stand_ins: str) -> None:
    c = Cluster(root / "data", root / "kubeconfig", kubectl_path())
    try:
        sampan(
            "up", "--name", "full", "--data-dir", str(c.data_dir), "--port", "0", "--no-uplink",
            "--kubeconfig", str(c.kubeconfig),
        )  # fmt: skip
        c.sampan("image", "load", stand_ins)
        c.kubectl("apply", "-f", "-", stdin=APP)
        for name in ("hungry", "modest"):
            c.kubectl("wait", f"pod/{name}", "--for=condition=Ready", "--timeout=60s")
        c.kubectl("exec", "hungry", "--", "touch", "/data/go")

        c.until("its disk is full", lambda: os.statvfs(root).f_bavail == 0)
        count = iter(range(1000))

        def refused() -> bool:
            said = c.kubectl("create", "configmap", f"x{next(count)}", "--from-literal",
                             f"a={'y' * 100_000}", check=False)  # fmt: skip
            return "the store cannot be written: database or disk is full" in said

        c.until("nothing new is taken", refused, timeout=90)
        # It is read as always, and what is there can be changed.
        assert "hungry" in c.kubectl("get", "pods")
        c.kubectl("label", "pod", "modest", "seen=full")
        assert c.kubectl("exec", "modest", "--", "echo", "alive").strip() == "alive"
        # The disk stays full for longer than an agent's silence is forgiven.
        time.sleep(12)
        (node,) = c.get("nodes")["items"]
        ready = next(x for x in node["status"]["conditions"] if x["type"] == "Ready")
        assert ready["status"] == "True"
        # Who filled it can be removed, and everything is as before.
        c.kubectl("delete", "pod/hungry", "pvc/data", "--timeout=90s")
        c.until("its volume is gone", lambda: c.get("pv")["items"] == [])
        c.until("new things are taken", lambda: "created" in c.kubectl(
            "create", "configmap", "again", check=False))  # fmt: skip
        c.kubectl("run", "after", "--image=busybox", "--image-pull-policy=IfNotPresent",
                  "--restart=Never", "--", "true")  # fmt: skip
        c.until("pods run", lambda: c.get("pod", "after")["status"]["phase"] == "Succeeded")
        c.sampan("down")
        sampan("up", "--data-dir", str(c.data_dir))
        assert c.get("pod", "modest")["metadata"]["labels"]["seen"] == "full"
    finally:
        sampan("down", "--purge", "--data-dir", str(c.data_dir), check=False)
    print("played")


def test_a_pod_that_fills_the_disk_does_not_stop_the_cluster(
    tmp_path: Path, stand_ins: Path
) -> None:
    node_root = DataDir(tmp_path / "data").node_root
    before = host_state(node_root)
    mount = f"mount -t tmpfs -o size={MEGABYTES}m none {tmp_path}"
    script = f"{mount} && exec {sys.executable} {__file__} {tmp_path} {stand_ins}"
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
        capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "played\n"
    after = host_state(node_root)
    assert {k: after[k] - before[k] for k in after if after[k] - before[k]} == {}


if __name__ == "__main__":
    play(Path(sys.argv[1]), sys.argv[2])
