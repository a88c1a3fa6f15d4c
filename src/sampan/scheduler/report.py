"""What the scheduler tells about pods: conditions, nominations and events."""

from __future__ import annotations

import logging

from sampan.api.errors import StatusError
from sampan.api.obj import Body, Obj
from sampan.client.base import Client, Unknown
from sampan.control.events import Recorder
from sampan.control.facts import NORMAL, WARNING, Condition, Event, Facts, Field
from sampan.lib.clock import Clock, rfc3339
from sampan.scheduler.pods import PodInfo

log = logging.getLogger(__name__)
LOST = (StatusError, Unknown, OSError)

_T, _FLOWS = "tests/scheduler/test_scheduler.py::", "tests/flows/test_scheduling.py::"
UNSCHEDULABLE, ERROR = "Unschedulable", "SchedulerError"
SCHEDULED = Event(
    NORMAL, "Scheduled", "Successfully assigned {pod} to {node}", f"{_T}test_binds_and_tells"
)
FAILED = Event(WARNING, "FailedScheduling", "{why}", f"{_T}test_explains_why_nothing_fits")
PREEMPTED = Event(
    NORMAL, "Preempted", "Preempted by pod {uid} on node {node}",
    f"{_FLOWS}test_room_is_made_for_the_important",
)  # fmt: skip
VICTIM = Condition(
    "DisruptionTarget", "True", "PreemptionByScheduler",
    "{scheduler}: preempting to accommodate a higher priority pod",
    f"{_FLOWS}test_room_is_made_for_the_important",
)  # fmt: skip
FACTS = Facts(
    kind="Scheduler", controller="default-scheduler",
    status=(
        Field("nominatedNodeName", "the node room is being made on; taken back when a more "
              "important pod takes it, or when no room can be made any more",
              f"{_FLOWS}test_room_is_made_for_the_important"),
    ),
    conditions=(
        Condition("PodScheduled", "False", UNSCHEDULABLE, "{why}",
                  f"{_T}test_explains_why_nothing_fits"),
        Condition("PodScheduled", "False", ERROR, "{error}",
                  f"{_T}test_an_error_is_told_as_one"),
        Condition("PodScheduled", "False", "SchedulingGated",
                  "Scheduling is blocked due to non-empty scheduling gates",
                  f"{_FLOWS}test_a_gated_pod_waits_for_its_last_gate"),
        Condition("PodScheduled", "True", "", "", f"{_T}test_binds_and_tells"),
        VICTIM,
    ),
    events=(SCHEDULED, FAILED, PREEMPTED),
)  # fmt: skip


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
        self._tell(obj, SCHEDULED, pod=f"{obj.namespace}/{obj.name}", node=node)

    def _tell(self, about: Obj, event: Event, **values: object) -> None:
        self._recorder.emit(about.body, event.type, event.reason, event.text.format(**values))

    async def failed(
        self, pod: PodInfo, message: str, *, reason: str = UNSCHEDULABLE,
        nominated: str | None = None,
    ) -> None:  # fmt: skip
        """nominated: the node the pod is nominated to from now on; '' none; None: as it is."""
        obj = pod.obj
        self._tell(obj, FAILED, why=message)
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
        message = VICTIM.text(scheduler=preemptor.spec.get("schedulerName", self._name))
        at = rfc3339(self._clock.now())
        condition = changed_condition(obj, VICTIM.type, VICTIM.status, VICTIM.reason, message, at)
        await self._write(obj, {"conditions": [condition]} if condition else {})
        try:
            await self._client.delete("pods", obj.name, obj.namespace, uid=obj.uid)
        except LOST as e:
            log.info("preempting %s: %s", obj.key.path, e)
            return
        self._tell(obj, PREEMPTED, uid=preemptor.uid, node=node)

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
