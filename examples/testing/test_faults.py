"""What your workload does while the control plane around it fails."""

import pytest

SET = """
apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: web}
spec:
  replicas: 5
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: web}]}
"""


@pytest.mark.cluster(nodes=3)
def test_five_pods_run_although_calls_fail_and_the_control_plane_dies(cluster):
    with cluster.faults(error=0.2, lost=0.05, watch_drop=0.05):
        cluster.apply(SET)
        cluster.world_do(lambda world: world.kill_control())
        cluster.clock.advance(minutes=5)
    cluster.clock.advance(minutes=5)
    found = cluster.client.get("replicasets.apps", "web", "default")
    assert found["status"]["readyReplicas"] == 5
    assert len(cluster.client.list("pods", "default")) == 5
