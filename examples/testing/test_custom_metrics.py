"""An autoscaler by your own metrics, before there is an adapter: the test says what they are."""

WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: web:1}]}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  minReplicas: 2
  maxReplicas: 10
  metrics:
  - type: Pods
    pods: {metric: {name: requests_per_second}, target: {type: AverageValue, averageValue: 10}}
  - type: External
    external:
      metric: {name: queue_length, selector: {matchLabels: {queue: orders}}}
      target: {type: AverageValue, averageValue: 30}
"""


def replicas(cluster):
    return cluster.client.get("deployments.apps", "web", "default")["spec"]["replicas"]


def test_requests_add_replicas_and_a_long_queue_keeps_them(cluster):
    cluster.metrics.pods("requests_per_second", 9)
    cluster.metrics.external("queue_length", 40, labels={"queue": "orders"})
    cluster.metrics.external("queue_length", 9000, labels={"queue": "letters"})
    cluster.apply(WEB)
    cluster.clock.advance(minutes=1)
    assert replicas(cluster) == 2
    cluster.metrics.pods("requests_per_second", 20)
    cluster.clock.advance(seconds=30)
    assert replicas(cluster) > 2
    cluster.metrics.pods("requests_per_second", 0)
    cluster.metrics.external("queue_length", 180, labels={"queue": "orders"})
    cluster.clock.advance(minutes=15)
    assert replicas(cluster) == 6
    status = cluster.client.get("horizontalpodautoscalers.autoscaling", "web", "default")["status"]
    assert [m["type"] for m in status["currentMetrics"]] == ["Pods", "External"]
    assert status["currentMetrics"][1]["external"]["current"] == {"averageValue": "30"}
