"""The scheduler: one decision at a time, each pod bound in one commit beside the next decisions."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Container, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sampan.api.errors import StatusError
from sampan.api.obj import Obj
from sampan.client.base import Client
from sampan.client.cache import Caches
from sampan.lib.clock import Clock
from sampan.scheduler.cycle import Cycle, NoFit
from sampan.scheduler.framework import (
    NodeInfo,
    Nominate,
    PodInfo,
    Profile,
    Reject,
    Skip,
    Verdict,
    Wait,
    Wake,
)
from sampan.scheduler.plan import Early
from sampan.scheduler.plugins import Means, profile_of
from sampan.scheduler.plugins.volume_binding import Promises
from sampan.scheduler.queue import SchedulingQueue, Waiting
from sampan.scheduler.report import ERROR, LOST, Reporter
from sampan.scheduler.settings import Configuration
from sampan.scheduler.snapshot import Snapshot

_TURN = 16  # decisions before others get the loop
_BINDING = 256  # pods that are being bound at once
_ENDED = ("Succeeded", "Failed")
log = logging.getLogger(__name__)


class _Refused(Exception):
    """A phase after the decision said no."""


class _Stumbled(Exception):
    """Something went wrong in a phase after the decision. Its cause: a lost call, or nothing."""


@dataclass(frozen=True, slots=True)
class _Way:
    """How pods of one schedulerName are decided and told about."""

    profile: Profile
    cycle: Cycle
    report: Reporter


class Scheduler:
    """Binds pods whose schedulerName is that of one of its profiles. resources: those the API
    serves; settings: by default one profile with the default plug-ins; profile: instead of the
    plug-ins of the only one."""

    def __init__(
        self, client: Client, *, clock: Clock, rng: random.Random, caches: Caches,
        settings: Configuration | None = None,
        resources: Container[str] = ("pods", "nodes", "namespaces"),
        profile: Profile | None = None,
    ) -> None:  # fmt: skip
        told = settings or Configuration()
        self._caches = caches
        self._snapshot = Snapshot(self._namespace_labels)
        means, promises = Means(client, caches, clock, rng, resources), Promises()
        self._ways: dict[str, _Way] = {}
        for one in told.profiles:
            made = profile or profile_of(means, one, promises)
            self._ways[one.name] = _Way(
                made, Cycle(self._snapshot, made, rng, one.percent),
                Reporter(client, one.name, clock=clock),
            )  # fmt: skip
        wakes = _wakes([way.profile for way in self._ways.values()])
        self._queue = SchedulingQueue(wakes, first=told.first, longest=told.longest)
        self._stirred = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._binding: set[asyncio.Task[None]] = set()
        self._watched = ["nodes", "pods", "namespaces"]
        caches["nodes"].add_handler(self._node_changed)
        caches["pods"].add_handler(self._pod_changed)
        caches["namespaces"].add_handler(self._namespace_changed)
        others = sorted({w.resource for group in wakes.values() for w in group})
        for resource in others:
            if resource in resources and resource not in self._watched:
                self._watched.append(resource)
                caches[resource].add_handler(self._other_changed(resource))

    async def start(self) -> None:
        """Returns once the caches are synced and pods are being scheduled."""
        await asyncio.gather(*(self._caches[r].synced() for r in self._watched))
        self._task = asyncio.create_task(self._run(), name="scheduler")

    async def stop(self) -> None:
        tasks = [*([self._task] if self._task else []), *self._binding]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for way in self._ways.values():
            await way.report.close()

    # -- what happens in the cluster -----------------------------------------------------------

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    def _namespace_labels(self, name: str) -> Mapping[str, str]:
        found = self._caches["namespaces"].get("", name)
        return found.labels if found is not None else {}

    def _happened(self, resource: str, kind: str, old: Obj | None, new: Obj | None) -> None:
        self._queue.event(resource, kind, old, new, self._now())
        self._stirred.set()

    def _other_changed(self, resource: str) -> Any:
        return lambda kind, old, new: self._happened(resource, kind, old, new)

    def _namespace_changed(self, kind: str, old: Obj | None, new: Obj | None) -> None:
        if old is None or new is None or old.labels != new.labels:
            self._snapshot.namespaces_changed()
            self._happened("namespaces", kind, old, new)

    def _node_changed(self, kind: str, old: Obj | None, new: Obj | None) -> None:
        if new is None:
            assert old is not None
            self._snapshot.remove_node(old.name)
        else:
            self._snapshot.set_node(new)
            if old is not None and _placing(old) == _placing(new):
                return
        self._happened("nodes", kind, old, new)

    def _pod_changed(self, _kind: str, old: Obj | None, new: Obj | None) -> None:
        was, now = _is_placed(old), _is_placed(new)
        pod = new or old
        assert pod is not None
        if now:
            assert new is not None
            self._snapshot.set_pod(new)
            self._queue.remove(new.key)
            if not was:
                self._happened("pods", "ADDED", None, new)
            elif old is not None and (old.labels != new.labels or old.spec != new.spec):
                self._happened("pods", "MODIFIED", old, new)
            return
        if new is None or new.spec.get("nodeName"):  # gone or ended
            self._snapshot.remove_pod(pod.uid)
            self._snapshot.denominate(pod.uid)
            self._queue.remove(pod.key)
            if was or (new is None and pod.status.get("nominatedNodeName")):
                self._happened("pods", "DELETED", old, None)
            return
        self._pending_changed(old, new)

    def _pending_changed(self, old: Obj | None, new: Obj) -> None:
        if not self._is_mine(new):
            self._queue.remove(new.key)
            self._snapshot.denominate(new.uid)
            return
        pod = PodInfo.of(new)
        nominated = new.status.get("nominatedNodeName", "")
        told = old.status.get("nominatedNodeName", "") if old is not None else ""
        if nominated != told and nominated and not self._snapshot.node_of(new.uid):
            self._snapshot.nominate(pod, nominated)
        # Our own note of failure is no reason to try again; a change of the pod is.
        if old is None or old.spec != new.spec or old.labels != new.labels:
            asked = self._way(pod).profile.pre_enqueue
            gated = any(p.pre_enqueue(pod) is not None for p in asked)
            self._queue.add(pod, self._now(), gated=gated)
            self._stirred.set()
        else:
            self._queue.update(pod)

    def _is_mine(self, pod: Obj) -> bool:
        return (
            pod.spec.get("schedulerName") in self._ways
            and not pod.is_deleting
            and pod.status.get("phase", "Pending") == "Pending"
        )

    def _way(self, pod: PodInfo) -> _Way:
        return self._ways[pod.spec["schedulerName"]]

    # -- the loop ------------------------------------------------------------------------------

    async def _run(self) -> None:
        turn = 0
        while True:
            self._stirred.clear()
            now = self._now()
            self._queue.flush(now)
            held = self._queue.pop(now)
            if held is None:
                await self._rest(self._queue.next_due())
                continue
            try:
                self._schedule(held)
            except Exception:
                log.exception("scheduling %s", held.key.path)
                self._queue.again(held, now)
            turn += 1
            if turn % _TURN == 0:
                await asyncio.sleep(0)
            while len(self._binding) >= _BINDING:
                await asyncio.wait(self._binding, return_when=asyncio.FIRST_COMPLETED)

    async def _rest(self, due: float | None) -> None:
        """Until something happens or *due* (of the loop's clock)."""
        try:
            async with asyncio.timeout_at(due):
                await self._stirred.wait()
        except TimeoutError:
            pass

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._binding.add(task)
        task.add_done_callback(self._binding.discard)

    # -- one pod -------------------------------------------------------------------------------

    def _schedule(self, held: Waiting) -> None:
        pod = held.pod
        found = self._way(pod).cycle.decide(pod)
        if isinstance(found, NoFit):
            self._no_fit(held, found)
            return
        refused = self._reserve(pod, self._snapshot.nodes[found])
        if refused is not None:
            plugin, reject = refused
            self._fail(held, reject.reason, frozenset((plugin,)))
            return
        self._snapshot.place(pod, found)
        self._background(self._bind(held, pod, found))

    def _no_fit(self, held: Waiting, failure: NoFit) -> None:
        pod = held.pod
        way = self._way(pod)
        cycle = way.cycle
        said: list[str] = []
        nominated: str | None = None
        if failure.nodes:
            table = cycle.table(pod)

            def trial(node: NodeInfo) -> Verdict:
                if isinstance(table, Early):
                    return table.reject
                return cycle.trial(table, pod, node)

            for plugin in way.profile.post_filters:
                found = plugin.post_filter(pod, self._snapshot, failure.rejected, trial)
                if isinstance(found, Nominate):
                    nominated = found.node
                    self._make_room(pod, found)
                    said = []
                    break
                said.append(found.message)
                if found.forget:
                    nominated = ""
        if nominated == "":
            self._snapshot.denominate(pod.uid)
        self._fail(held, failure.message(", ".join(said)), failure.plugins, nominated)

    def _make_room(self, pod: PodInfo, way: Nominate) -> None:
        lower = [
            p for p in self._snapshot.nominated.get(way.node, {}).values()
            if p.priority < pod.priority
        ]  # fmt: skip
        for other in lower:
            self._snapshot.denominate(other.uid)
            self._background(self._way(other).report.denominated(other))
        self._queue.wake([p.obj.key for p in lower], self._now())
        self._snapshot.nominate(pod, way.node)
        for victim in way.victims:
            if not victim.obj.is_deleting:
                self._background(self._way(pod).report.evict(victim, pod, way.node))

    def _fail(
        self, held: Waiting, message: str, plugins: frozenset[str], nominated: str | None = None
    ) -> None:
        self._queue.failed(held, self._now(), plugins)
        report = self._way(held.pod).report
        self._background(report.failed(held.pod, message, nominated=nominated))

    def _reserve(self, pod: PodInfo, node: NodeInfo) -> tuple[str, Reject] | None:
        for plugin in self._way(pod).profile.reserves:
            refused = plugin.reserve(pod, node)
            if refused is not None:
                self._unreserve(pod, node.obj.name)
                return plugin.name, refused
        return None

    def _unreserve(self, pod: PodInfo, node: str) -> None:
        for plugin in reversed(self._way(pod).profile.reserves):
            plugin.unreserve(pod, node)

    async def _bind(self, held: Waiting, pod: PodInfo, node: str) -> None:
        try:
            await self._commit(pod, node)
        except (_Stumbled, _Refused) as e:
            await self._unbound(held, pod, node, e)
            return
        self._way(pod).report.scheduled(pod, node)

    async def _unbound(self, held: Waiting, pod: PodInfo, node: str, e: Exception) -> None:
        obj = pod.obj
        seen = self._caches["pods"].get(obj.namespace, obj.name)
        if seen is not None and seen.uid == obj.uid and seen.spec.get("nodeName"):
            return  # it is bound after all
        self._snapshot.remove_pod(obj.uid)
        self._unreserve(pod, node)
        self._queue.again(held, self._now())
        self._happened("pods", "DELETED", obj, None)  # the place is free again
        if isinstance(e, _Refused):
            await self._way(pod).report.failed(pod, str(e))
        elif not (isinstance(e.__cause__, StatusError) and e.__cause__.code in (404, 409)):
            log.warning("binding %s: %s", obj.key.path, e)
            await self._way(pod).report.failed(pod, str(e), reason=ERROR)

    async def _commit(self, pod: PodInfo, node: str) -> None:
        """Permit, PreBind and Bind. Raises _Refused, _Stumbled."""
        profile = self._way(pod).profile
        for permit in profile.permits:
            answer = permit.permit(pod, node)
            while isinstance(answer, Wait):
                await asyncio.sleep(answer.seconds)
                answer = permit.permit(pod, node)
            if answer is not None:
                raise _Refused(answer.reason)
        for plugin in profile.pre_binds:
            where = f'running PreBind plugin "{plugin.name}"'
            try:
                verdict = await plugin.pre_bind(pod, node)
            except LOST as e:
                raise _Stumbled(f"{where}: {e}") from e
            if verdict is not None and verdict.failed:
                raise _Stumbled(f"{where}: {verdict.reason}")
            if verdict is not None:
                raise _Refused(verdict.reason)
        for binder in profile.binds:
            try:
                done = await binder.bind(pod, node)
            except LOST as e:
                where = f'running Bind plugin "{binder.name}"'
                raise _Stumbled(f"binding rejected: {where}: {e}") from e
            if isinstance(done, Reject):
                raise _Refused(done.reason)
            if not isinstance(done, Skip):
                return


def _wakes(profiles: Iterable[Profile]) -> dict[str, Sequence[Wake]]:
    found: dict[str, Sequence[Wake]] = {}
    for profile in profiles:
        found |= {p.name: p.wakes for p in profile.filters}
    for profile in profiles:
        for name, wake in profile.extra_wakes:
            if wake not in found.get(name, ()):
                found[name] = (*found.get(name, ()), wake)
    return found


def _is_placed(pod: Obj | None) -> bool:
    """It has a node and takes its room there."""
    return (
        pod is not None and bool(pod.spec.get("nodeName")) and pod.status.get("phase") not in _ENDED
    )


def _placing(node: Obj) -> tuple[object, ...]:
    """What of a node decides about pods."""
    spec = node.spec
    return (node.labels, spec.get("taints"), spec.get("unschedulable"),
            node.status.get("allocatable"))  # fmt: skip
