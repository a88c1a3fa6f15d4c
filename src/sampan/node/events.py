"""The agent's events: about pods (and their containers) and about its node."""

from __future__ import annotations

from typing import Protocol

from sampan.api.obj import Body


class EventSink(Protocol):
    """Takes events and never waits nor fails: they are written, or lost, later."""

    def emit(self, regarding: Body, type: str, reason: str, message: str) -> None:
        """regarding: an ObjectReference."""
        ...


def pod_reference(pod: Body, container: str = "") -> Body:
    """Reference to a pod, or to one of its containers."""
    meta = pod["metadata"]
    reference: Body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "namespace": meta.get("namespace", ""),
        "name": meta["name"],
        "uid": meta.get("uid", ""),
    }
    if meta.get("resourceVersion"):
        reference["resourceVersion"] = meta["resourceVersion"]
    if container:
        inits = {c["name"] for c in pod["spec"].get("initContainers") or ()}
        field = "initContainers" if container in inits else "containers"
        reference["fieldPath"] = f"spec.{field}{{{container}}}"
    return reference


def node_reference(name: str) -> Body:
    """As the kubelet names its node: the uid is the name."""
    return {"apiVersion": "v1", "kind": "Node", "name": name, "uid": name}
