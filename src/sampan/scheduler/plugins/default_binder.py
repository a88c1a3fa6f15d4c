"""DefaultBinder: one write of the pod's ``binding`` subresource."""

from __future__ import annotations

from typing import ClassVar

from sampan.api.obj import Body
from sampan.client.base import Client
from sampan.scheduler.framework import OK, PodInfo, Skip, Verdict


class DefaultBinder:
    name: ClassVar[str] = "DefaultBinder"

    def __init__(self, client: Client) -> None:
        self._client = client

    async def bind(self, pod: PodInfo, node_name: str) -> Verdict | Skip:
        obj = pod.obj
        body: Body = {
            "apiVersion": "v1", "kind": "Binding",
            "metadata": {"name": obj.name, "namespace": obj.namespace, "uid": obj.uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node_name},
        }  # fmt: skip
        await self._client.create("pods", body, obj.namespace, name=obj.name, subresource="binding")
        return OK
