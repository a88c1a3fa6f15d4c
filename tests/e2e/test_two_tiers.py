"""A front end and PostgreSQL on three nodes: what is written stays through the loss of the
database's process, of its pod and of its node."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sampan.app.stand_ins import POSTGRES, archive
from sampan.lib.datadir import DataDir
from sampan.testing.e2e import Cluster, alive, host_state, kubectl_path, sampan

# Who is on a lost node is given up after a second instead of five minutes.
_GIVE_UP = """
      tolerations:
      - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 1}
      - {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 1}
"""  # noqa: E501
APP = f"""
apiVersion: v1
kind: ConfigMap
metadata: {{name: front}}
data:
  visit: |
    #!/bin/sh
    echo "Content-Type: text/plain"
    echo
    psql -h db -U postgres -tAq -c "insert into visits values (default, '$(cat /etc/hostname)') returning n" 2>&1
---
apiVersion: v1
kind: Secret
metadata: {{name: db}}
stringData: {{password: correct-horse}}
---
apiVersion: v1
kind: Service
metadata: {{name: db}}
spec: {{selector: {{app: db}}, ports: [{{port: 5432}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: front}}
spec: {{selector: {{app: front}}, ports: [{{port: 80}}]}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: db}}
spec:
  serviceName: db
  selector: {{matchLabels: {{app: db}}}}
  template:
    metadata: {{labels: {{app: db}}}}
    spec:
      terminationGracePeriodSeconds: 10
      securityContext: {{runAsUser: 999, runAsGroup: 999, fsGroup: 999, fsGroupChangePolicy: OnRootMismatch}}
{_GIVE_UP}
      initContainers:
      - name: init
        image: "postgres:15"
        imagePullPolicy: IfNotPresent
        env: &env
        - {{name: PATH, value: "/usr/lib/postgresql/15/bin:/usr/bin:/bin"}}
        - {{name: PGDATA, value: /data/pg}}
        - {{name: PGPASSWORD, valueFrom: {{secretKeyRef: {{name: db, key: password}}}}}}
        command:
        - sh
        - -ec
        - |
          [ ! -e $PGDATA/PG_VERSION ] || exit 0
          echo $PGPASSWORD > /tmp/password
          initdb --no-locale -E UTF8 -U postgres -A scram-sha-256 --pwfile /tmp/password
          echo "host all all all scram-sha-256" >> $PGDATA/pg_hba.conf
          pg_ctl -w -o "-k /tmp -h ''" start
          psql -h /tmp -U postgres -c "create table visits (n serial primary key, host text)"
          pg_ctl -w stop
        volumeMounts: &mounts [{{name: data, mountPath: /data}}]
      containers:
      - name: postgres
        image: "postgres:15"
        imagePullPolicy: IfNotPresent
        env: *env
        command: [postgres, -h, "*", -k, /tmp, -c, jit=off]
        readinessProbe: {{exec: {{command: [pg_isready, -q, -h, /tmp]}}, periodSeconds: 1}}
        volumeMounts: *mounts
  volumeClaimTemplates:
  - metadata: {{name: data}}
    spec:
      accessModes: [ReadWriteOnce]
      storageClassName: sampan-local-sized
      resources: {{requests: {{storage: 256Mi}}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: front}}
spec:
  replicas: 3
  selector: {{matchLabels: {{app: front}}}}
  template:
    metadata: {{labels: {{app: front}}}}
    spec:
      terminationGracePeriodSeconds: 1
      topologySpreadConstraints:
      - {{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, labelSelector: {{matchLabels: {{app: front}}}}}}
{_GIVE_UP}
      containers:
      - name: httpd
        image: "postgres:15"
        imagePullPolicy: IfNotPresent
        env: [{{name: PGPASSWORD, valueFrom: {{secretKeyRef: {{name: db, key: password}}}}}}, {{name: PGCONNECT_TIMEOUT, value: "5"}}, {{name: PATH, value: "/usr/lib/postgresql/15/bin:/usr/bin:/bin"}}]
        command: [busybox, httpd, -f, -h, /www]
        readinessProbe: {{tcpSocket: {{port: 80}}, periodSeconds: 1}}
        volumeMounts: [{{name: cgi, mountPath: /www/cgi-bin}}]
      volumes: [{{name: cgi, configMap: {{name: front, defaultMode: 0755}}}}]
"""  # noqa: E501


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster that got its third node while it ran."""
    made = Cluster(tmp_path / "data", tmp_path / "kubeconfig", kubectl_path())
    root = DataDir(made.data_dir).node_root
    before = host_state(root)
    try:
        sampan(
            "up", "--name", "tiers", "--data-dir", str(made.data_dir), "--nodes", "2", "--port",
            "0", "--no-uplink", "--kubeconfig", str(made.kubeconfig),
        )  # fmt: skip
        made.sampan("image", "load", str(archive("postgres", (POSTGRES,))))
        made.sampan("up", "--nodes", "3")
        yield made
    finally:
        sampan("down", "--purge", "--data-dir", str(made.data_dir), check=False)
    after = host_state(root)
    assert {k: after[k] - before[k] for k in after if after[k] - before[k]} == {}


def visit(c: Cluster, via: str = "deploy/front") -> int:
    """One more visit by the front end's Service; its number, 0 where it could not be written."""
    said = c.kubectl("exec", via, "--", "busybox", "wget", "-qO-",
                     "http://front/cgi-bin/visit", check=False)  # fmt: skip
    return int(said) if said.strip().isdigit() else 0


def next_visit(c: Cluster, seen: int, via: str = "deploy/front") -> int:
    """The visit after *seen* ones: a serial number may be lost in a crash, a row may not."""
    number: int = c.until("the front end has written", lambda: visit(c, via), timeout=120)
    rows = c.kubectl("exec", "db-0", "--", "psql", "-h", "/tmp", "-U", "postgres", "-tAc",
                     f"select count(*) from visits where n <= {seen}")  # fmt: skip
    assert int(rows) == written(seen) and number > seen
    _written[number] = written(seen) + 1
    return number


_written: dict[int, int] = {0: 0}


def written(seen: int) -> int:
    return _written[seen]


def db(c: Cluster) -> dict[str, Any]:
    found: list[dict[str, Any]] = c.get("pods", "-l", "app=db")["items"]
    return found[0] if found else {}


def restarts(c: Cluster) -> list[int]:
    return [s["restartCount"] for s in db(c)["status"]["containerStatuses"]]


def other_db(c: Cluster, uid: str) -> dict[str, Any]:
    found: dict[str, Any] = c.until(
        "another database pod",
        lambda: (p := db(c)) and p["metadata"]["uid"] != uid and p, timeout=90,
    )  # fmt: skip
    return found


def test_data_outlives_process_pod_and_node(three: Cluster) -> None:
    c = three
    _written.clear()
    _written[0] = 0
    c.kubectl("wait", "node", "--all", "--for=condition=Ready", "--timeout=60s")
    c.kubectl("apply", "-f", "-", stdin=APP)
    c.kubectl("rollout", "status", "deploy/front", "--timeout=120s")
    c.kubectl("wait", "pod/db-0", "--for=condition=Ready", "--timeout=120s")
    fronts = {p["spec"]["nodeName"]: p["metadata"]["name"]
              for p in c.get("pods", "-l", "app=front")["items"]}  # fmt: skip
    assert len(fronts) == 3  # the node that came later too
    seen = next_visit(c, 0)

    # The loss of the process: the container comes again.
    (pid,) = [
        r["pid"] for r in json.loads(c.sampan("ps", "-o", "json")) if r["container"] == "postgres"
    ]
    os.kill(pid, signal.SIGKILL)
    c.until("it was restarted", lambda: restarts(c) == [1], timeout=90)
    seen = next_visit(c, seen)

    # The loss of the pod.
    uid = db(c)["metadata"]["uid"]
    c.kubectl("delete", "pod", "db-0", "--timeout=90s")
    other_db(c, uid)
    seen = next_visit(c, seen)

    # The loss of the node: whatever ran there is dead.
    lost = db(c)["spec"]["nodeName"]
    away = next(name for node, name in fronts.items() if node != lost)
    others = {r["pid"] for r in json.loads(c.sampan("ps", "-o", "json")) if r["node"] == lost}
    uid = db(c)["metadata"]["uid"]
    c.sampan("node", "stop", lost)
    assert not [p for p in others if p and alive(p)]
    assert c.kubectl("exec", away, "--", "true") == ""  # the others live on
    c.kubectl("wait", f"node/{lost}", "--for=condition=Ready=Unknown", "--timeout=120s")
    c.until("its database is given up", lambda: db(c)["metadata"].get("deletionTimestamp"))
    c.until("the front end has moved", lambda: c.get("deploy", "front")["status"].get(
        "availableReplicas") == 3, timeout=90)  # fmt: skip
    # At most one of its name: nobody knows that the old one is dead, so there is no other.
    assert db(c)["metadata"]["uid"] == uid and db(c)["spec"]["nodeName"] == lost
    c.kubectl("delete", "pod", "db-0", "--force", "--grace-period=0")
    waiting = other_db(c, uid)
    text = c.until("the scheduler has said why", lambda: next(
        (x["message"] for x in db(c)["status"].get("conditions", ())
         if x.get("reason") == "Unschedulable"), ""))  # fmt: skip
    assert "0/3 nodes are available" in text
    assert "1 node(s) had untolerated taint(s)" in text
    assert "2 node(s) didn't match PersistentVolume's node affinity" in text
    assert visit(c, away) == 0

    # Its return: the same pod runs there, with all that was written.
    c.sampan("node", "start", lost)
    c.kubectl("wait", f"node/{lost}", "--for=condition=Ready", "--timeout=60s")
    c.kubectl("wait", "pod/db-0", "--for=condition=Ready", "--timeout=120s")
    back = db(c)
    assert back["metadata"]["uid"] == waiting["metadata"]["uid"]
    assert back["spec"]["nodeName"] == lost
    next_visit(c, seen, away)
    refused = sampan("node", "rm", lost, "--data-dir", str(c.data_dir), check=False)
    assert refused.returncode == 1 and "has 1 volume(s)" in refused.stderr

    # Its end, told in so many words: the data goes with it.
    c.sampan("node", "rm", "--purge", lost)
    c.until("the claim has lost its volume", lambda: c.get("pvc", "data-db-0")["status"][
        "phase"] == "Lost")  # fmt: skip
    assert lost not in c.kubectl("get", "nodes", "-o", "name")
    assert c.get("pv")["items"] == []
    assert not (DataDir(c.data_dir).volumes / lost).exists()
