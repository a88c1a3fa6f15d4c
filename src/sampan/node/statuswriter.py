"""Writes one pod's status: one write per real change, later ones overtaking earlier ones."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from sampan.api.errors import StatusError
from sampan.api.obj import Body, Obj
from sampan.client.base import Client, Unknown
from sampan.node.status import OURS, PASSING

log = logging.getLogger("sampan.node")
PATIENCE = 0.5  # seconds an unsettled status may wait for what is coming


class StatusWriter:
    """Of one pod. spawn: starts a coroutine as a task of the agent."""

    def __init__(
        self, client: Client, pod: Obj, spawn: Callable[[Coroutine[Any, Any, None]], object]
    ) -> None:
        self._client = client
        self._name, self._namespace, self._uid = pod.name, pod.namespace, pod.uid
        self._spawn = spawn
        self._written: Body = pod.status
        self._revision = pod.revision
        self._wanted: Body | None = None
        self._closed = not pod.status.get("startTime")  # nothing of ours to keep yet
        self._timer: asyncio.TimerHandle | None = None
        self._lock = asyncio.Lock()
        self.writes = 0

    def want(self, status: Body, *, settled: bool) -> None:
        self._wanted, self._closed = status, False
        if settled:
            self._soon(0.0)
        elif self._timer is None:
            self._soon(PATIENCE)

    def seen(self, pod: Obj) -> None:
        """The object as the API has it: what somebody else changed in our fields is put right."""
        if self._closed or pod.revision < self._revision or self._lock.locked():
            return
        if self._wanted is None:
            # Taken over as it was, and not changed since: that is what it is kept at.
            self._wanted = self._written
        self._written = pod.status
        if self._timer is None and difference(self._written, self._wanted):
            self._soon(0.0)

    async def flush(self) -> None:
        """Returns when the wanted status is written, or there is no such pod any more."""
        self._cancel()
        delay = 1.0
        async with self._lock:
            while self._wanted is not None:
                wanted = self._wanted
                change = difference(self._written, wanted)
                if not change:
                    return
                try:
                    answer = await self._client.patch(
                        "pods",
                        self._name,
                        {"metadata": {"uid": self._uid}, "status": change},
                        self._namespace,
                        kind="strategic",
                        subresource="status",
                    )
                    self.writes += 1
                    self._written, self._revision = wanted, answer.revision
                    delay = 1.0
                except (StatusError, Unknown, OSError) as error:
                    if await self._is_gone(error):
                        self._wanted, self._closed = None, True
                        return
                    log.warning("status of %s/%s: %s", self._namespace, self._name, error)
                    await asyncio.sleep(delay)
                    delay = min(delay * 2, 10.0)

    async def _is_gone(self, error: Exception) -> bool:
        """Whether *error* means that the pod is gone, or another one has its name. A conflict may
        also be no more than a neighbour's write at the same moment."""
        if not isinstance(error, StatusError) or error.code not in (404, 409):
            return False
        if error.code == 404:
            return True
        try:
            held = await self._client.get("pods", self._name, self._namespace)
        except StatusError as again:
            return again.code == 404
        except (Unknown, OSError):
            return False
        self._written = held.status
        return held.uid != self._uid

    def close(self) -> None:
        self._cancel()
        self._wanted, self._closed = None, True

    def _soon(self, delay: float) -> None:
        self._cancel()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(delay, self._due)

    def _due(self) -> None:
        self._timer = None
        self._spawn(self.flush())

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def difference(old: Body, new: Body) -> Body:
    """A strategic merge patch from *old* to *new*; empty when nothing of ours differs.

    Conditions are merged by type, so others' conditions are left alone.
    """
    change: Body = {}
    for key, value in new.items():
        if key == "conditions":
            conditions = _conditions(old.get(key) or [], value)
            if conditions:
                change[key] = conditions
        elif old.get(key) != value:
            if key == "podIPs" and old.get(key):
                change[key] = [{"$patch": "replace"}, *value]
            else:
                change[key] = value
    for key in ("reason", "message", "initContainerStatuses"):
        if key in old and key not in new:
            change[key] = None
    return change


def _conditions(old: list[Body], new: list[Body]) -> list[Body]:
    before = {c["type"]: c for c in old}
    changed: list[Body] = []
    for condition in new:
        if condition["type"] not in OURS:
            continue
        known = before.get(condition["type"]) or {}
        kept = {k: v for k, v in known.items() if v is not None}
        if kept == condition:
            continue
        dropped = {k: None for k in kept if k not in condition}
        changed.append({**dropped, **condition})
    held = {c["type"] for c in new}
    changed += [{"$patch": "delete", "type": t} for t in PASSING if t in before and t not in held]
    return changed
