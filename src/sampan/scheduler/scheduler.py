"""The scheduler: one pod at a time gets the best node that fits, bound in one commit."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Container, Coroutine
from typing import Any

from sampan.api.errors import StatusError
from sampan.api.obj import Body, Key, Obj
from sampan.client.base import Client, Unknown
from sampan.client.cache import Caches
from sampan.control.events import Recorder
from sampan.lib.clock import Clock, rfc3339
from sampan.lib.queue import WorkQueue
from sampan.scheduler.cycle import NoFit, decide
from sampan.scheduler.framework import PodInfo, Profile, Reject, Skip, Wait
from sampan.scheduler.plugins import Means, default_profile
from sampan.scheduler.snapshot import Snapshot

_FLUSH_SECONDS = 300.0
_BACKOFF, _BACKOFF_LIMIT = 1.0, 10.0
log = logging.getLogger(__name__)


class _Refused(Exception):
    """A phase after the decision said no."""


class Scheduler:
    """Binds pods whose schedulerName is *name*. caches: with ``pods`` and ``nodes``."""

    def __init__(
        self, client: Client, *, clock: Clock, rng: random.Random, caches: Caches,
        name: str = "default-scheduler", resources: Container[str] = ("pods", "nodes"),
        profile: Profile | None = None,
    ) -> None:  # fmt: skip
        self._client = client
        self._clock = clock
        self._rng = rng
        self._caches = caches
        self._name = name
        self._profile = profile or default_profile(Means(client, caches, clock, resources))
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
        found = decide(pod, self._snapshot, self._profile)
        if isinstance(found, NoFit):
            self._waiting.add(obj.key)
            self._background(self._tell_failure(obj, found.message()))
            return
        best = max(found.values())
        node = self._rng.choice([name for name, points in found.items() if points == best])
        refused = self._reserve(pod, node)
        if refused is not None:
            self._waiting.add(obj.key)
            self._background(self._tell_failure(obj, refused.reason))
            return
        self._snapshot.place(pod, node)
        self._background(self._bind(pod, node))

    def _reserve(self, pod: PodInfo, node: str) -> Reject | None:
        info = self._snapshot.nodes[node]
        for plugin in self._profile.reserves:
            refused = plugin.reserve(pod, info)
            if refused is not None:
                self._unreserve(pod, node)
                return refused
        return None

    def _unreserve(self, pod: PodInfo, node: str) -> None:
        for plugin in reversed(self._profile.reserves):
            plugin.unreserve(pod, node)

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._binding.add(task)
        task.add_done_callback(self._binding.discard)

    async def _bind(self, pod: PodInfo, node: str) -> None:
        obj = pod.obj
        try:
            await self._commit(pod, node)
        except (StatusError, Unknown, OSError, _Refused) as e:
            held = self._caches["pods"].get(obj.namespace, obj.name)
            if held is None or held.spec.get("nodeName") != node:
                self._snapshot.remove_pod(obj.uid)
                self._unreserve(pod, node)
            if isinstance(e, _Refused):
                self._background(self._tell_failure(obj, str(e)))
            elif not (isinstance(e, StatusError) and e.code in (404, 409)):
                log.warning("binding %s: %s", obj.key.path, e)
            self._queue.retry(obj.key)
            return
        self._queue.succeed(obj.key)
        text = f"Successfully assigned {obj.namespace}/{obj.name} to {node}"
        self._recorder.emit(obj.body, "Normal", "Scheduled", text)

    async def _commit(self, pod: PodInfo, node: str) -> None:
        """Permit, PreBind and Bind. Raises _Refused, StatusError, Unknown, OSError."""
        for permit in self._profile.permits:
            answer = permit.permit(pod, self._snapshot.nodes[node])
            while isinstance(answer, Wait):
                await asyncio.sleep(answer.seconds)
                answer = permit.permit(pod, self._snapshot.nodes[node])
            if answer is not None:
                raise _Refused(answer.reason)
        for plugin in self._profile.pre_binds:
            verdict = await plugin.pre_bind(pod, node)
            if verdict is not None:
                raise _Refused(verdict.reason)
        for binder in self._profile.binds:
            done = await binder.bind(pod, node)
            if isinstance(done, Reject):
                raise _Refused(done.reason)
            if not isinstance(done, Skip):
                return

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


def _placing(node: Obj) -> tuple[object, ...]:
    """What of a node decides about pods."""
    spec = node.spec
    return (node.labels, spec.get("taints"), spec.get("unschedulable"),
            node.status.get("allocatable"))  # fmt: skip
