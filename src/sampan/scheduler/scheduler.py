"""The scheduler: one pod at a time gets the best node that fits, bound in one commit."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Coroutine
from typing import Any

from sampan.api.errors import StatusError
from sampan.api.obj import Body, Key, Obj
from sampan.client.base import Client, Unknown
from sampan.client.cache import Caches
from sampan.control.events import Recorder
from sampan.lib.clock import Clock, rfc3339
from sampan.lib.queue import WorkQueue
from sampan.scheduler.framework import NodeInfo, PodInfo, Reject
from sampan.scheduler.plugins import FILTERS, SCORES
from sampan.scheduler.snapshot import Snapshot

_FLUSH_SECONDS = 300.0
_BACKOFF, _BACKOFF_LIMIT = 1.0, 10.0
log = logging.getLogger(__name__)


class NoFit(Exception):
    """No node fits; the message is that of the FailedScheduling event."""


class Scheduler:
    """Binds pods whose schedulerName is *name*. caches: with ``pods`` and ``nodes``."""

    def __init__(
        self, client: Client, *, clock: Clock, rng: random.Random, caches: Caches,
        name: str = "default-scheduler",
    ) -> None:  # fmt: skip
        self._client = client
        self._clock = clock
        self._rng = rng
        self._caches = caches
        self._name = name
        self._recorder = Recorder(client, name, clock=clock)
        self._snapshot = Snapshot()
        self._queue: WorkQueue[Key] = WorkQueue(base=_BACKOFF, limit=_BACKOFF_LIMIT)
        self._waiting: set[Key] = set()  # found no node; an event may help them
        self._tasks: list[asyncio.Task[None]] = []
        self._binding: set[asyncio.Task[None]] = set()
        caches["nodes"].add_handler(self._node_changed)
        caches["pods"].add_handler(self._pod_changed)

    async def start(self) -> None:
        """Returns once the caches are synced and pods are being scheduled."""
        await asyncio.gather(self._caches["nodes"].synced(), self._caches["pods"].synced())
        self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._flush())]

    async def stop(self) -> None:
        tasks = [*self._tasks, *self._binding]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._queue.close()
        await self._recorder.close()

    # -- what happens in the cluster -----------------------------------------------------------

    def _node_changed(self, _kind: str, old: Obj | None, new: Obj | None) -> None:
        if new is None:
            assert old is not None
            self._snapshot.remove_node(old.name)
            return
        self._snapshot.set_node(new)
        if old is None or _placing(old) != _placing(new):
            self._retry_waiting()

    def _pod_changed(self, _kind: str, old: Obj | None, new: Obj | None) -> None:
        if new is None:
            assert old is not None
            self._snapshot.remove_pod(old.uid)
            self._waiting.discard(old.key)
            self._retry_waiting()
            return
        if new.spec.get("nodeName"):
            ended = new.status.get("phase") in ("Succeeded", "Failed")
            self._snapshot.set_pod(new)
            self._waiting.discard(new.key)
            if ended:
                self._retry_waiting()
        elif self._is_mine(new):
            # Our own note of failure is no reason to try again; a change of the pod is.
            if old is None or old.spec != new.spec or old.labels != new.labels:
                self._queue.add(new.key)

    def _is_mine(self, pod: Obj) -> bool:
        return (
            pod.spec.get("schedulerName") == self._name
            and not pod.is_deleting
            and not pod.spec.get("schedulingGates")
            and pod.status.get("phase", "Pending") == "Pending"
        )

    def _retry_waiting(self) -> None:
        waiting, self._waiting = self._waiting, set()
        for key in sorted(waiting):
            self._queue.retry(key)

    async def _flush(self) -> None:
        """Whatever the events missed: nobody waits for more than five minutes."""
        while True:
            await asyncio.sleep(_FLUSH_SECONDS)
            self._retry_waiting()

    # -- one pod -------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            key = await self._queue.get()
            pod = self._caches["pods"].get(key.namespace, key.name)
            try:
                if pod is not None and not pod.spec.get("nodeName") and self._is_mine(pod):
                    self._schedule(pod)
            except Exception:
                log.exception("scheduling %s", key.path)
                self._queue.retry(key)
            finally:
                self._queue.done(key)

    def _schedule(self, obj: Obj) -> None:
        pod = PodInfo.of(obj)
        try:
            node = self.choose(pod)
        except NoFit as e:
            self._waiting.add(obj.key)
            self._background(self._tell_failure(obj, str(e)))
            return
        self._snapshot.place(pod, node)
        self._background(self._bind(pod, node))

    def choose(self, pod: PodInfo) -> str:
        """The name of the best node that fits; ties are drawn by lot. Raises NoFit."""
        nodes = self._snapshot.nodes
        if not nodes:
            raise NoFit("no nodes available to schedule pods")
        fitting: list[NodeInfo] = []
        reasons: Counter[str] = Counter()
        for node in nodes.values():
            rejected = _verdict(pod, node)
            if rejected is None:
                fitting.append(node)
            else:
                reasons[rejected.reason] += 1
        if not fitting:
            told = ", ".join(sorted(f"{n} {reason}" for reason, n in reasons.items()))
            raise NoFit(f"0/{len(nodes)} nodes are available: {told}.")
        if len(fitting) == 1:
            return fitting[0].obj.name
        scored = [(sum(s.weight * s.score(pod, n) for s in SCORES), n) for n in fitting]
        best = max(score for score, _ in scored)
        return self._rng.choice([n.obj.name for score, n in scored if score >= best - 1e-9])

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._binding.add(task)
        task.add_done_callback(self._binding.discard)

    async def _bind(self, pod: PodInfo, node: str) -> None:
        obj = pod.obj
        body: Body = {
            "apiVersion": "v1", "kind": "Binding",
            "metadata": {"name": obj.name, "namespace": obj.namespace, "uid": obj.uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }  # fmt: skip
        try:
            await self._client.create(
                "pods", body, obj.namespace, name=obj.name, subresource="binding"
            )
        except (StatusError, Unknown, OSError) as e:
            held = self._caches["pods"].get(obj.namespace, obj.name)
            if held is None or held.spec.get("nodeName") != node:
                self._snapshot.remove_pod(obj.uid)
            if not (isinstance(e, StatusError) and e.code in (404, 409)):
                log.warning("binding %s: %s", obj.key.path, e)
            self._queue.retry(obj.key)
            return
        self._queue.succeed(obj.key)
        text = f"Successfully assigned {obj.namespace}/{obj.name} to {node}"
        self._recorder.emit(obj.body, "Normal", "Scheduled", text)

    async def _tell_failure(self, obj: Obj, message: str) -> None:
        """The event and the pod's condition, each where it is news."""
        held: Body = next(
            (c for c in obj.status.get("conditions") or () if c["type"] == "PodScheduled"), {}
        )
        self._recorder.emit(obj.body, "Warning", "FailedScheduling", message)
        if held.get("status") == "False" and held.get("message") == message:
            return
        at = rfc3339(self._clock.now())
        condition: Body = {
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": message, "lastProbeTime": None, "observedGeneration":
            obj.meta.get("generation", 1),
            "lastTransitionTime": held.get("lastTransitionTime", at)
            if held.get("status") == "False" else at,
        }  # fmt: skip
        try:
            await self._client.patch(
                "pods", obj.name, {"status": {"conditions": [condition]}}, obj.namespace,
                kind="strategic", subresource="status",
            )  # fmt: skip
        except (StatusError, Unknown, OSError) as e:
            log.info("condition of %s: %s", obj.key.path, e)


def _verdict(pod: PodInfo, node: NodeInfo) -> Reject | None:
    for plugin in FILTERS:
        rejected = plugin.filter(pod, node)
        if rejected is not None:
            return rejected
    return None


def _placing(node: Obj) -> tuple[object, ...]:
    """What of a node decides about pods."""
    spec = node.spec
    return (node.labels, spec.get("taints"), spec.get("unschedulable"),
            node.status.get("allocatable"))  # fmt: skip
