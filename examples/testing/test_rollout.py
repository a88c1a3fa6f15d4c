"""A rollout of your own manifest, seen through to its end in a moment."""

from pathlib import Path

MANIFEST = Path(__file__).parents[1] / "deployment.yaml"
NAMESPACE = "deploy-test"


def test_the_new_image_reaches_every_pod(cluster):
    cluster.apply(MANIFEST)
    cluster.clock.advance(minutes=1)
    patch = {"spec": {"template": {"spec": {"containers": [
        {"name": "nginx", "image": "nginx:1.16.1"}]}}}}  # fmt: skip
    cluster.client.patch("deployments.apps", "nginx-deploy", patch, NAMESPACE, kind="strategic")
    cluster.clock.advance(minutes=1)
    found = cluster.client.get("deployments.apps", "nginx-deploy", NAMESPACE)
    assert found["status"]["updatedReplicas"] == found["status"]["availableReplicas"] == 3
    images = {p["spec"]["containers"][0]["image"] for p in cluster.client.list("pods", NAMESPACE)}
    assert images == {"nginx:1.16.1"}


def test_a_rollout_that_cannot_work_is_reported_after_ten_minutes(cluster):
    cluster.behave("nginx:broken", start_error="no such file or directory")
    cluster.apply(MANIFEST.read_text().replace("nginx:1.14.1", "nginx:broken"))
    cluster.clock.advance(minutes=11)
    found = cluster.client.get("deployments.apps", "nginx-deploy", NAMESPACE)
    reasons = {c["type"]: c["reason"] for c in found["status"]["conditions"]}
    assert reasons["Progressing"] == "ProgressDeadlineExceeded"
