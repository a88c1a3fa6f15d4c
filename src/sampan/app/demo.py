"""``sampan up --demo``: a Deployment of three pods from the stand-in images."""

from __future__ import annotations

import asyncio

from sampan.api.errors import StatusError
from sampan.api.obj import Body
from sampan.client.base import Client

NAMESPACE, NAME = "demo", "web"
_SECONDS = 60.0


def manifests() -> list[tuple[str, Body]]:
    """(resource, body) of the demo, in the order to create them."""
    labels = {"app": NAME}
    containers = [
        {"name": "nginx", "image": "nginx:1.14.1", "imagePullPolicy": "IfNotPresent",
         "ports": [{"containerPort": 80}],
         "readinessProbe": {"httpGet": {"path": "/", "port": 80}, "periodSeconds": 1}},
        {"name": "nettool", "image": "praqma/network-multitool",
         "imagePullPolicy": "IfNotPresent", "command": ["sleep", "86400"]},
    ]  # fmt: skip
    spec = {
        "replicas": 3,
        "selector": {"matchLabels": labels},
        "template": {
            "metadata": {"labels": labels},
            "spec": {"containers": containers, "terminationGracePeriodSeconds": 2},
        },
    }
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment",
                  "metadata": {"name": NAME, "namespace": NAMESPACE}, "spec": spec}  # fmt: skip
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    return [("namespaces", namespace), ("deployments.apps", deployment)]


async def run(client: Client) -> str:
    """Create the demo where it is not there yet; a line about it once every pod is available.
    Raises TimeoutError."""
    for resource, body in manifests():
        try:
            await client.create(resource, body, body["metadata"].get("namespace", ""))
        except StatusError as e:
            if e.reason != "AlreadyExists":
                raise
    async with asyncio.timeout(_SECONDS):
        while True:
            found = await client.get("deployments.apps", NAME, NAMESPACE)
            available = found.status.get("availableReplicas", 0)
            if available == found.spec["replicas"]:
                return f"demo: deployment {NAMESPACE}/{NAME} has {available} pods available"
            await asyncio.sleep(0.05)
