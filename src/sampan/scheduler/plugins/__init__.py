"""One file per concern; ``FILTERS`` and ``SCORES`` in the order in which they are asked."""

from sampan.scheduler.framework import Filter, Score
from sampan.scheduler.plugins.affinity import NodeAffinity
from sampan.scheduler.plugins.ports import NodePorts
from sampan.scheduler.plugins.resources import Balanced, Fit, LeastAllocated
from sampan.scheduler.plugins.spread import SameOwner
from sampan.scheduler.plugins.taints import Taints
from sampan.scheduler.plugins.target import NodeName, Unschedulable

FILTERS: tuple[Filter, ...] = (
    Unschedulable(), NodeName(), Taints(), NodeAffinity(), NodePorts(), Fit(),
)  # fmt: skip
SCORES: tuple[Score, ...] = (SameOwner(), LeastAllocated(), Balanced(), Taints(), NodeAffinity())

__all__ = ["FILTERS", "SCORES"]
