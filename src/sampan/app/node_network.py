"""What runs inside each node's network: composed here, one line a part."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from sampan.app.control_plane import ControlPlane
from sampan.node.runtime.native.nodes import Space


class Part(Protocol):
    """Something that serves or guards a node's network as long as the process lives."""

    async def start(self) -> None:
        """Returns once it does its work."""
        ...

    async def stop(self) -> None:
        """Let go; what the kernel holds (rules, addresses) stays for the next process."""
        ...


class NodeNetwork:
    """All parts on all nodes."""

    def __init__(self, plane: ControlPlane, spaces: Sequence[Space]) -> None:
        self._parts: tuple[Part, ...] = ()

    async def start(self) -> None:
        await asyncio.gather(*(p.start() for p in self._parts))

    async def stop(self) -> None:
        await asyncio.gather(*(p.stop() for p in self._parts), return_exceptions=True)
