"""What a node's running containers use, from the runtime's own counters."""

from __future__ import annotations

from sampan.api.usage import Counters
from sampan.node.runtime.base import Runtime


async def read(runtime: Runtime) -> list[Counters]:
    """Counters of the containers that run now. Raises RuntimeFailure."""
    counted = await runtime.usage()
    return [
        Counters(
            id=c.id, namespace=box.namespace, pod=box.name, uid=box.uid, container=c.name,
            started_at=c.started_at, cpu_ns=counted[c.id]["cpu_ns"],
            memory_bytes=counted[c.id]["memory_bytes"],
        )
        for box in await runtime.sandboxes()
        for c in box.containers
        if c.state == "running" and c.id in counted
    ]  # fmt: skip
