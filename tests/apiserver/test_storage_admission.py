"""What admission does to claims, volumes and classes, through the API server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sampan.api.errors import StatusError
from sampan.client.base import Client
from sampan.testing.api import api_server, client_of

CLASSES = "storageclasses.storage.k8s.io"


def claim(name: str = "c", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
                 **spec},
    }  # fmt: skip


def storage_class(name: str, *, default: bool, **more: Any) -> dict[str, Any]:
    notes = {"storageclass.kubernetes.io/is-default-class": "true" if default else "false"}
    return {
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": name, "annotations": notes}, "provisioner": "x.io/y", **more,
    }  # fmt: skip


def run(scenario: Any) -> None:
    async def go() -> None:
        client = client_of(await api_server())
        for held in (await client.list(CLASSES)).items:
            await client.delete(CLASSES, held.name)
        await scenario(client)

    asyncio.run(go())


def test_claims_and_volumes_are_protected_from_birth():
    async def scenario(client: Client) -> None:
        made = (await client.create("persistentvolumeclaims", claim(), "default")).body
        assert made["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]
        volume = {
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "v"},
            "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
                     "hostPath": {"path": "/x"}},
        }  # fmt: skip
        made = (await client.create("persistentvolumes", volume)).body
        assert made["metadata"]["finalizers"] == ["kubernetes.io/pv-protection"]
        assert made["status"]["phase"] == "Pending"
        assert made["status"]["lastPhaseTransitionTime"]

    run(scenario)


def test_the_newest_default_class_is_given():
    async def scenario(client: Client) -> None:
        made = (await client.create("persistentvolumeclaims", claim("none"), "default")).body
        assert "storageClassName" not in made["spec"]
        await client.create(CLASSES, storage_class("plain", default=False))
        await client.create(CLASSES, storage_class("b", default=True))
        made = (await client.create("persistentvolumeclaims", claim(), "default")).body
        assert made["spec"]["storageClassName"] == "b"
        empty = claim("static", storageClassName="")
        made = (await client.create("persistentvolumeclaims", empty, "default")).body
        assert made["spec"]["storageClassName"] == ""

    run(scenario)


def test_only_bound_claims_of_growing_classes_grow():
    async def scenario(client: Client) -> None:
        await client.create(CLASSES, storage_class("fixed", default=False))
        await client.create(CLASSES, storage_class("grows", default=False,
                                                   allowVolumeExpansion=True))  # fmt: skip
        bigger = {"spec": {"resources": {"requests": {"storage": "2Gi"}}}}
        for name in ("fixed", "grows"):
            body = claim(name, storageClassName=name, volumeName="v")
            await client.create("persistentvolumeclaims", body, "default")
            bound = {"status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}}
            await client.patch(
                "persistentvolumeclaims", name, bound, "default", subresource="status"
            )
        with pytest.raises(StatusError, match="the storageclass that provisions the pvc must") as e:
            await client.patch("persistentvolumeclaims", "fixed", bigger, "default")
        assert e.value.code == 403
        grown = await client.patch("persistentvolumeclaims", "grows", bigger, "default")
        assert grown.body["spec"]["resources"]["requests"]["storage"] == "2Gi"

    run(scenario)
