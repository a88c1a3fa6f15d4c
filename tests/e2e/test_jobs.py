"""Jobs and CronJobs on real containers. All begins at once, so that one waits while others run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from sampan.testing.e2e import Cluster

NAMESPACE = "batch-jobs"


def job(name: str, script: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {**spec, "template": {"spec": {
            "restartPolicy": "Never", "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "c", "image": "busybox", "imagePullPolicy": "IfNotPresent",
                            "command": ["/bin/sh", "-c", script]}],
        }}},
    }  # fmt: skip


CRON = {
    "apiVersion": "batch/v1", "kind": "CronJob",
    "metadata": {"name": "tick", "namespace": NAMESPACE},
    "spec": {"schedule": "@every 5s", "concurrencyPolicy": "Forbid",
             "successfulJobsHistoryLimit": 2, "jobTemplate": {
                 "spec": job("tick", "echo fired")["spec"]}},
}  # fmt: skip
INDEXED = job(
    "indexed",
    'echo "I am $JOB_COMPLETION_INDEX of $(hostname)"; test "$JOB_COMPLETION_INDEX" != 1',
    completions=3, parallelism=3, completionMode="Indexed", backoffLimitPerIndex=0,
)  # fmt: skip
DELETED = job("deleted", "sleep 1000", completions=4, parallelism=2)


@pytest.fixture(scope="module")
def begun(cluster: Cluster) -> Iterator[Cluster]:
    cluster.kubectl("create", "namespace", NAMESPACE)
    twenty = job("twenty", "sleep 0.3; echo done", completions=20, parallelism=5)
    for body in (CRON, INDEXED, DELETED, twenty):
        cluster.kubectl("apply", "-f", "-", stdin=json.dumps(body))
    yield cluster
    cluster.kubectl("delete", "namespace", NAMESPACE)


def conditions(cluster: Cluster, name: str) -> dict[str, str]:
    found = cluster.get("job", name, "-n", NAMESPACE)["status"].get("conditions") or ()
    return {c["type"]: c["reason"] for c in found if c["status"] == "True"}


def test_twenty_completions_five_at_a_time(begun: Cluster) -> None:
    begun.kubectl(
        "wait", "-n", NAMESPACE, "job/twenty", "--for=condition=Complete", "--timeout=110s"
    )
    found = begun.get("job", "twenty", "-n", NAMESPACE)["status"]
    assert found["succeeded"] == 20 and "failed" not in found
    assert found["uncountedTerminatedPods"] == {}
    pods = begun.get("pods", "-n", NAMESPACE, "-l", "job-name=twenty")["items"]
    assert len(pods) == 20
    assert all("finalizers" not in p["metadata"] for p in pods)
    # Of runs in whole seconds: never more than five whose insides overlap.
    runs = []
    for p in pods:
        ended = p["status"]["containerStatuses"][0]["state"]["terminated"]
        runs.append((ended["startedAt"], ended["finishedAt"]))
    for start, _ in runs:
        assert sum(a < start < b for a, b in runs) <= 5
    table = begun.kubectl("get", "jobs", "twenty", "-n", NAMESPACE).splitlines()
    assert table[0].split() == ["NAME", "STATUS", "COMPLETIONS", "DURATION", "AGE"]
    assert table[1].split()[:3] == ["twenty", "Complete", "20/20"]
    told = begun.kubectl("describe", "job", "twenty", "-n", NAMESPACE)
    assert "SuccessfulCreate" in told and "Job completed" in told
    assert "done" in begun.kubectl("logs", "-n", NAMESPACE, "job/twenty")


def test_an_indexed_job_with_a_failing_index(begun: Cluster) -> None:
    begun.kubectl(
        "wait", "-n", NAMESPACE, "job/indexed", "--for=condition=Failed", "--timeout=110s"
    )
    found = begun.get("job", "indexed", "-n", NAMESPACE)["status"]
    assert (found["completedIndexes"], found["failedIndexes"]) == ("0,2", "1")
    assert (found["succeeded"], found["failed"]) == (2, 1)
    assert conditions(begun, "indexed") == {
        "FailureTarget": "FailedIndexes", "Failed": "FailedIndexes",
    }  # fmt: skip
    label = "batch.kubernetes.io/job-completion-index=2"
    logs = begun.kubectl("logs", "-n", NAMESPACE, "-l", f"job-name=indexed,{label}")
    assert logs.strip() == "I am 2 of indexed-2"


def test_a_cron_job_fires(begun: Cluster) -> None:
    def fired() -> bool:
        status = begun.get("cronjob", "tick", "-n", NAMESPACE)["status"]
        return "lastSuccessfulTime" in status

    begun.until("the CronJob has fired", fired, timeout=120)
    told = begun.kubectl(
        "get", "events", "-n", NAMESPACE, "--field-selector=reason=SawCompletedJob"
    )
    assert "condition: Complete" in told
    begun.kubectl("create", "job", "by-hand", "--from=cronjob/tick", "-n", NAMESPACE)
    begun.kubectl(
        "wait", "-n", NAMESPACE, "job/by-hand", "--for=condition=Complete", "--timeout=110s"
    )
    assert begun.kubectl("logs", "-n", NAMESPACE, "job/by-hand").strip() == "fired"
    row = begun.kubectl("get", "cj", "tick", "-n", NAMESPACE).splitlines()[1]
    assert row.startswith("tick   @every 5s   <none>     False")

    def trimmed() -> bool:
        jobs = begun.get("jobs", "-n", NAMESPACE)["items"]
        made = [j for j in jobs if j["metadata"]["name"].startswith("tick-")]
        done = [j for j in made if j["status"].get("completionTime")]
        return len(made) >= 2 and len(done) <= 2

    begun.until("the history is trimmed", trimmed, timeout=120)
    begun.kubectl("patch", "cronjob", "tick", "-n", NAMESPACE, "-p", '{"spec":{"suspend":true}}')


def test_a_deleted_job_takes_its_pods_along(begun: Cluster) -> None:
    def running() -> bool:
        return begun.get("job", "deleted", "-n", NAMESPACE)["status"].get("ready") == 2

    begun.until("two pods run", running, timeout=120)
    begun.kubectl("patch", "job", "deleted", "-n", NAMESPACE, "-p", '{"spec":{"suspend":true}}')

    def pods() -> list[Any]:
        found: list[Any] = begun.get("pods", "-n", NAMESPACE, "-l", "job-name=deleted")["items"]
        return found

    begun.until("it is suspended", lambda: not pods(), timeout=120)
    assert conditions(begun, "deleted") == {"Suspended": "JobSuspended"}
    begun.kubectl("patch", "job", "deleted", "-n", NAMESPACE, "-p", '{"spec":{"suspend":false}}')
    begun.until("it goes on", running, timeout=120)
    begun.kubectl("delete", "job", "deleted", "-n", NAMESPACE)
    begun.until("its pods are gone", lambda: not pods(), timeout=120)
