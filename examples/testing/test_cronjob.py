"""Hours of a CronJob in a moment: does the backup run, and what if it takes too long, or fails?"""

import pytest

BACKUP = """
apiVersion: batch/v1
kind: CronJob
metadata: {name: backup}
spec:
  schedule: "0 * * * *"
  concurrencyPolicy: Forbid
  startingDeadlineSeconds: 60
  successfulJobsHistoryLimit: 30
  jobTemplate:
    spec:
      backoffLimit: 1
      template:
        spec:
          restartPolicy: Never
          containers: [{name: c, image: "backup:1"}]
"""


def jobs(cluster, condition):
    return [
        j
        for j in cluster.client.list("jobs.batch", "default")
        if any(c["type"] == condition for c in j["status"].get("conditions", ()))
    ]


@pytest.mark.parametrize(("takes", "runs"), [(60, 6), (5400, 3)])
def test_it_runs_every_hour_unless_the_last_one_is_still_at_work(cluster, takes, runs):
    cluster.behave("backup:1", run=takes)
    cluster.apply(BACKUP)
    cluster.clock.advance(hours=6, minutes=30)
    assert len(jobs(cluster, "Complete")) == runs


def test_a_backup_that_fails_is_tried_once_more_and_then_reported(cluster):
    cluster.behave("backup:1", "run=10,exit=1")
    cluster.apply(BACKUP)
    cluster.clock.advance(minutes=59)
    (failed,) = jobs(cluster, "Failed")
    assert failed["status"]["failed"] == 2
    (why,) = {c["reason"] for c in failed["status"]["conditions"] if c["type"] == "Failed"}
    assert why == "BackoffLimitExceeded"
