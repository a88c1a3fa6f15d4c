"""metrics.k8s.io: what pods and nodes use, counted when somebody asks.

A rate needs two readings. The first question takes both, a second apart; a later one compares a new
reading with the last, unless that is so young that its answer still holds. Nobody asks: nothing is
read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sampan.api.call import Call
from sampan.api.errors import not_found
from sampan.api.obj import Body, Key, Obj, Page
from sampan.api.resource import ResourceType
from sampan.api.usage import Counters, NodeUsage, UsageOfNodes
from sampan.apiserver.pages import obj_of, selection
from sampan.lib.clock import Clock, rfc3339
from sampan.lib.quantity import Quantity
from sampan.store.base import Store

GROUP = "metrics.k8s.io"
FIRST_SECONDS = 1.0  # between the two readings of a first question
FRESH_SECONDS = 5.0  # an answer holds so long
STALE_SECONDS = 90.0  # a reading older than this is not compared with
NODE_SECONDS = 5.0  # a node that does not answer in time has no metrics
_NAMES = {"pods": "podmetrics.metrics.k8s.io", "nodes": "nodemetrics.metrics.k8s.io"}
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Used:
    """One container: cores in units of 10⁻⁹ and bytes, over *window* seconds up to *at*."""

    counters: Counters
    nanocores: int
    at: float
    window: float


@dataclass(slots=True)
class _Reading:
    at: float
    nodes: dict[str, Sequence[Counters]] = field(default_factory=dict)


def rates(
    before: Sequence[Counters], after: Sequence[Counters], *, start: float, end: float
) -> list[Used]:
    """What each container of *after* used since *before*; one that is new since, since it began.
    One whose counter went back (it was made anew under its id) is left out this time."""
    held = {c.id: c for c in before}
    found: list[Used] = []
    for counters in after:
        old = held.get(counters.id)
        window = end - (max(start, counters.started_at) if old is None else start)
        spent = counters.cpu_ns - (old.cpu_ns if old is not None else 0)
        if window > 0 and spent >= 0:
            found.append(Used(counters, round(spent / window), end, window))
    return found


class ResourceMetrics:
    """Answers get and list of PodMetrics and NodeMetrics. nodes: those that can be asked now."""

    def __init__(self, store: Store, *, clock: Clock, nodes: UsageOfNodes) -> None:
        self._store = store
        self._clock = clock
        self._nodes = nodes
        self._last: _Reading | None = None
        self._rates: dict[str, list[Used]] = {}
        self._rates_at = float("-inf")
        self._turn = asyncio.Lock()

    async def answer(self, call: Call, t: ResourceType) -> Obj | Page:
        """Raises StatusError 404 for what has no metrics."""
        await self._count()
        if call.verb == "get":
            made = (await self._all(call, t, only=call.name))[:1]
            if made:
                return made[0]
            name = f"{call.namespace}/{call.name}" if t.namespaced else call.name
            raise not_found(_NAMES[t.plural], name)
        chosen = selection(t, call.options)
        return Page([o for o in await self._all(call, t) if chosen.matches(o)], 0)

    # -- reading -------------------------------------------------------------------------------

    async def _count(self) -> None:
        async with self._turn:
            now = self._clock.now()
            if 0 <= now - self._rates_at < FRESH_SECONDS:
                return
            before = self._last
            if before is None or not 0 < now - before.at <= STALE_SECONDS:
                before = await self._read()
                await asyncio.sleep(FIRST_SECONDS)
            after = await self._read()
            self._rates = {
                name: rates(before.nodes.get(name, ()), found, start=before.at, end=after.at)
                for name, found in after.nodes.items()
            }
            self._last, self._rates_at = after, after.at

    async def _read(self) -> _Reading:
        nodes = self._nodes()
        found = await asyncio.gather(*(self._ask(name, nodes[name]) for name in sorted(nodes)))
        held = {name: c for name, c in zip(sorted(nodes), found, strict=True) if c is not None}
        return _Reading(self._clock.now(), held)

    @staticmethod
    async def _ask(name: str, usage: NodeUsage) -> Sequence[Counters] | None:
        try:
            async with asyncio.timeout(NODE_SECONDS):
                return await usage()
        except (OSError, TimeoutError) as e:
            log.info("no usage of node %s: %s", name, e)
            return None

    # -- answers -------------------------------------------------------------------------------

    async def _all(self, call: Call, t: ResourceType, *, only: str = "") -> list[Obj]:
        if not t.namespaced:
            return await self._of_nodes(t, only)
        return await self._of_pods(t, call.namespace, only)

    async def _of_pods(self, t: ResourceType, namespace: str, only: str) -> list[Obj]:
        by_uid: dict[str, list[Used]] = {}
        for used in self._rates.values():
            for one in used:
                by_uid.setdefault(one.counters.uid, []).append(one)
        found: list[Obj] = []
        for record in (await self._store.range(Key.prefix("pods", namespace))).records:
            pod = obj_of(record)
            used_by = by_uid.get(pod.uid)
            if not used_by or only not in ("", pod.name):
                continue
            containers = [
                {"name": u.counters.container, "usage": _usage([u])}
                for u in sorted(used_by, key=lambda u: u.counters.container)
            ]
            found.append(self._obj(t, pod, used_by, {"containers": containers}))
        return found

    async def _of_nodes(self, t: ResourceType, only: str) -> list[Obj]:
        found: list[Obj] = []
        for record in (await self._store.range(Key.prefix("nodes"))).records:
            node = obj_of(record)
            if node.name in self._rates and only in ("", node.name):
                used = self._rates[node.name]
                found.append(self._obj(t, node, used, {"usage": _usage(used)}))
        return found

    def _obj(
        self, t: ResourceType, of: Obj, used: Sequence[Used], more: Mapping[str, object]
    ) -> Obj:
        at = max((u.at for u in used), default=self._rates_at)
        window = min((u.window for u in used), default=FIRST_SECONDS)
        meta: Body = {"name": of.name, "creationTimestamp": rfc3339(at)}
        if of.namespace:
            meta["namespace"] = of.namespace
        if of.labels:
            meta["labels"] = of.labels
        body: Body = {
            "kind": t.kind, "apiVersion": t.api_version, "metadata": meta,
            "timestamp": rfc3339(at), "window": f"{window:.3f}s", **more,
        }  # fmt: skip
        return Obj.of(Key(t.resource, of.namespace, of.name), body, 0)


def _usage(used: Sequence[Used]) -> Body:
    memory = sum(u.counters.memory_bytes for u in used) // 1024 * 1024
    return {
        "cpu": f"{sum(u.nanocores for u in used)}n" if used else "0",
        "memory": _kib(memory),
    }


def _kib(size: int) -> str:
    return f"{size // 1024}Ki" if size else str(Quantity(0))
