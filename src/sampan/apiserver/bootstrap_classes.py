"""Storage classes every cluster is born with: those of the built-in provisioner."""

from __future__ import annotations

from sampan.api.obj import Body

_DEFAULT = "storageclass.kubernetes.io/is-default-class"
_PROVISIONER = "sampan.io/local"
_PLAIN = "A directory on one node. The size is a number only: the disk is shared and not divided."
_SIZED = (
    "A file system of its own in a sparse file on one node: the size is enforced. It grows while "
    "it is in use where the kernel lets us, else when its pod starts the next time."
)


def objects() -> list[Body]:
    return [
        _class("sampan-local", "WaitForFirstConsumer", _PLAIN, default=True),
        _class("sampan-local-immediate", "Immediate", _PLAIN),
        _class("sampan-local-sized", "WaitForFirstConsumer", _SIZED, sizeEnforced="true"),
    ]


def _class(name: str, mode: str, about: str, *, default: bool = False, **parameters: str) -> Body:
    notes = {"kubernetes.io/description": about}
    if default:
        notes[_DEFAULT] = "true"
    body: Body = {
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": name, "annotations": notes}, "provisioner": _PROVISIONER,
        "reclaimPolicy": "Delete", "volumeBindingMode": mode, "allowVolumeExpansion": True,
    }  # fmt: skip
    if parameters:
        body["parameters"] = dict(parameters)
    return body
