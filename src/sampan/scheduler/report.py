"""What the scheduler tells about pods: conditions, nominations and events."""

from __future__ import annotations

import logging

from sampan.api.errors import StatusError
from sampan.api.obj import Body, Obj
from sampan.client.base import Client, Unknown
from sampan.control.events import Recorder
from sampan.lib.clock import Clock, rfc3339
from sampan.scheduler.pods import PodInfo

log = logging.getLogger(__name__)
LOST = (StatusError, Unknown, OSError)


def _condition(obj: Obj, type: str) -> Body:
    held: Body = next((c for c in obj.status.get("conditions") or () if c["type"] == type), {})
    return held


def changed_condition(obj: Obj, type: str, status: str, reason: str, message: str, at: str) -> Body:
    """The condition to write; {} if the pod says so already."""
    held = _condition(obj, type)
    generation = obj.meta.get("generation", 1)
    same = {"status": status, "reason": reason, "message": message}
    if all(held.get(k) == v for k, v in same.items()):
        return {}
    moved = held.get("status") != status
    return {
        "type": type, **same, "lastProbeTime": None, "observedGeneration": generation,
        "lastTransitionTime": at if moved else held.get("lastTransitionTime", at),
    }  # fmt: skip


class Reporter:
    """Writes status and events for one scheduler, best effort: what is lost is told again with
    the next attempt."""

    def __init__(self, client: Client, name: str, *, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._name = name
        self._recorder = Recorder(client, name, clock=clock)

    async def close(self) -> None:
        await self._recorder.close()

    def scheduled(self, pod: PodInfo, node: str) -> None:
        obj = pod.obj
        text = f"Successfully assigned {obj.namespace}/{obj.name} to {node}"
        self._recorder.emit(obj.body, "Normal", "Scheduled", text)

    async def failed(
        self, pod: PodInfo, message: str, *, reason: str = "Unschedulable",
        nominated: str | None = None,
    ) -> None:  # fmt: skip
        """nominated: the node the pod is nominated to from now on; '' none; None: as it is."""
        obj = pod.obj
        self._recorder.emit(obj.body, "Warning", "FailedScheduling", message)
        at = rfc3339(self._clock.now())
        condition = changed_condition(obj, "PodScheduled", "False", reason, message, at)
        status: Body = {"conditions": [condition]} if condition else {}
        if nominated is not None and nominated != obj.status.get("nominatedNodeName", ""):
            status["nominatedNodeName"] = nominated or None
        await self._write(obj, status)

    async def denominated(self, pod: PodInfo) -> None:
        """A more important pod takes the room."""
        if pod.obj.status.get("nominatedNodeName"):
            await self._write(pod.obj, {"nominatedNodeName": None})

    async def evict(self, victim: PodInfo, preemptor: PodInfo, node: str) -> None:
        """Delete *victim*, saying why on it before."""
        obj = victim.obj
        message = (
            f"{preemptor.spec.get('schedulerName', self._name)}: "
            "preempting to accommodate a higher priority pod"
        )
        at = rfc3339(self._clock.now())
        condition = changed_condition(
            obj, "DisruptionTarget", "True", "PreemptionByScheduler", message, at
        )
        await self._write(obj, {"conditions": [condition]} if condition else {})
        try:
            await self._client.delete("pods", obj.name, obj.namespace, uid=obj.uid)
        except LOST as e:
            log.info("preempting %s: %s", obj.key.path, e)
            return
        text = f"Preempted by pod {preemptor.uid} on node {node}"
        self._recorder.emit(obj.body, "Normal", "Preempted", text)

    async def _write(self, obj: Obj, status: Body) -> None:
        if not status:
            return
        try:
            await self._client.patch(
                "pods", obj.name, {"metadata": {"uid": obj.uid}, "status": status}, obj.namespace,
                kind="strategic", subresource="status",
            )  # fmt: skip
        except LOST as e:
            log.info("status of %s: %s", obj.key.path, e)
