"""The seam over which the API server asks a node what its containers use."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """One running container's counters. cpu_ns: since it started; memory_bytes: its working set;
    started_at: epoch seconds."""

    id: str
    namespace: str
    pod: str
    uid: str
    container: str
    started_at: float
    cpu_ns: int
    memory_bytes: int


NodeUsage: TypeAlias = Callable[[], Awaitable[Sequence[Counters]]]
UsageOfNodes: TypeAlias = Callable[[], Mapping[str, NodeUsage]]
