"""What the agent's events are about: pods, their containers, and the node."""

from __future__ import annotations

from typing import Protocol

from sampan.api.obj import Body


class EventSink(Protocol):
    """``control.events.Recorder``, as the agent uses it: takes events, never waits nor fails."""

    def emit(
        self, regarding: Body, type: str, reason: str, message: str, field_path: str = ""
    ) -> None: ...


def container_path(pod: Body, container: str) -> str:
    """The field path of a container, or '' for the pod as a whole."""
    if not container:
        return ""
    for field in ("initContainers", "ephemeralContainers"):
        if any(c["name"] == container for c in pod["spec"].get(field) or ()):
            return f"spec.{field}{{{container}}}"
    return f"spec.containers{{{container}}}"


def node_body(name: str) -> Body:
    """As the kubelet names its node in events: the uid is the name."""
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "uid": name}}
