"""Your workload's budget while a node is drained, and your autoscaler under a load, in seconds."""

import pytest

from sampan.sim.drain import drain

WORKLOAD = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 4
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: web, resources: {requests: {cpu: 500m}}}]}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web}
spec: {minAvailable: 3, selector: {matchLabels: {app: web}}}
"""
AUTOSCALER = """
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  minReplicas: 4
  maxReplicas: 8
  metrics:
  - {type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 80}}}
"""


@pytest.mark.cluster(nodes=3)
def test_a_drained_node_never_takes_more_than_the_budget_gives(cluster):
    cluster.behave("web", start_delay=10)
    cluster.apply(WORKLOAD)
    cluster.clock.advance(minutes=2)

    async def empty(node: str) -> None:
        await drain(cluster.world.visitor(), node, timeout=600)

    with cluster.faults(error=0.05, lost=0.02, watch_slow=1.0):
        for node in list(cluster.world.nodes)[:2]:
            cluster.world_do(lambda world, node=node: world.begin(node, empty(node)))
        for _ in range(60):
            cluster.clock.advance(seconds=5)
            pods = cluster.client.list("pods", "default")
            ready = [p for p in pods if "deletionTimestamp" not in p["metadata"] and any(
                c["type"] == "Ready" and c["status"] == "True"
                for c in p["status"].get("conditions", ()))]  # fmt: skip
            assert len(ready) >= 3
    drained = list(cluster.world.nodes)[:2]
    assert not [p for p in pods if p["spec"].get("nodeName") in drained]


def test_replicas_follow_a_load_and_come_back(cluster):
    cluster.apply(WORKLOAD + "---" + AUTOSCALER)

    def replicas() -> int:
        return cluster.client.get("deployments.apps", "web", "default")["spec"]["replicas"]

    cluster.clock.advance(minutes=2)
    assert replicas() == 4
    cluster.world_do(lambda world: world.begin("load", world.share("default", "web-", 2.6)))
    cluster.clock.advance(minutes=5)
    assert replicas() == 7  # 2.6 cores of 0.5 at 80 %
    cluster.world_do(lambda world: world.begin("load", world.share("default", "web-", 0.1)))
    cluster.clock.advance(minutes=10)
    assert replicas() == 4
