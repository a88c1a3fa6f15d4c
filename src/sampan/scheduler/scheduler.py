"""Interim scheduler: spreads pods over nodes (replaced by the framework)."""

from __future__ import annotations

import asyncio
import random

from sampan.api.errors import StatusError
from sampan.api.obj import Obj
from sampan.client.base import Client
from sampan.client.cache import Caches
from sampan.control.events import Recorder
from sampan.lib.clock import Clock


class Scheduler:
    def __init__(
        self, client: Client, *, clock: Clock, rng: random.Random, caches: Caches, name: str = ""
    ) -> None:
        self._client, self._caches = client, caches
        self._recorder = Recorder(client, "default-scheduler", clock=clock)
        self._queue: asyncio.Queue[Obj] = asyncio.Queue()
        caches["nodes"]
        caches["pods"].add_handler(self._changed)
        self._task: asyncio.Task[None] | None = None

    def _changed(self, _k: str, _o: Obj | None, new: Obj | None) -> None:
        if new is not None and not new.spec.get("nodeName") and not new.is_deleting:
            self._queue.put_nowait(new)

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task:
            self._task.cancel()

    async def _run(self) -> None:
        assumed: dict[str, int] = {}
        while True:
            pod = await self._queue.get()
            nodes = sorted(self._caches["nodes"].list(), key=lambda n: assumed.get(n.name, 0))
            if not nodes:
                await asyncio.sleep(0.1)
                self._queue.put_nowait(pod)
                continue
            node = nodes[0].name
            assumed[node] = assumed.get(node, 0) + 1
            try:
                await self._client.create(
                    "pods", {"target": {"kind": "Node", "name": node}}, pod.namespace,
                    name=pod.name, subresource="binding",
                )  # fmt: skip
            except StatusError:
                continue
            text = f"Successfully assigned {pod.namespace}/{pod.name} to {node}"
            self._recorder.emit(pod.body, "Normal", "Scheduled", text)
