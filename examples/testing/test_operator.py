"""Your operator, run for real against the cluster's kubeconfig."""

from pathlib import Path

import kopf.testing

OPERATOR = Path(__file__).with_name("two_replicas.py")
MANIFEST = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {tier: critical}}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: web}]}
"""


def replicas(cluster):
    return cluster.client.get("deployments.apps", "web", "default")["spec"]["replicas"]


def test_what_is_critical_has_two_pods_whatever_is_asked_for(cluster, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    command = ["run", "--standalone", "--namespace", "default", str(OPERATOR)]
    with kopf.testing.KopfRunner(command, timeout=60) as operator:
        cluster.apply(MANIFEST)
        cluster.until(lambda: replicas(cluster) == 2, timeout=30)
        cluster.client.patch("deployments.apps", "web", {"spec": {"replicas": 5}}, "default")
        cluster.client.patch("deployments.apps", "web", {"spec": {"replicas": 0}}, "default")
        cluster.until(lambda: replicas(cluster) == 2, timeout=30)
    assert operator.exit_code == 0, operator.output
    cluster.clock.advance(minutes=1)
    status = cluster.client.get("deployments.apps", "web", "default")["status"]
    assert status["readyReplicas"] == 2
