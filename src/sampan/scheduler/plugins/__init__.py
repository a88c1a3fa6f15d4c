"""One file per plug-in; ``default_profile`` names them in the order in which they are asked."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from sampan.client.base import Client
from sampan.client.cache import Caches
from sampan.lib.clock import Clock
from sampan.scheduler.framework import Profile
from sampan.scheduler.plugins.default_binder import DefaultBinder
from sampan.scheduler.plugins.node_affinity import NodeAffinity
from sampan.scheduler.plugins.node_name import NodeName
from sampan.scheduler.plugins.node_ports import NodePorts
from sampan.scheduler.plugins.node_resources import (
    NodeResourcesBalancedAllocation,
    NodeResourcesFit,
)
from sampan.scheduler.plugins.scheduling_gates import SchedulingGates
from sampan.scheduler.plugins.taint_toleration import NodeUnschedulable, TaintToleration


@dataclass(frozen=True, slots=True)
class Means:
    """What plug-ins may read and write the cluster with. resources: those the API serves; a cache
    of any other would wait in vain."""

    client: Client
    caches: Caches
    clock: Clock
    resources: Container[str]


def default_profile(means: Means) -> Profile:
    """Kubernetes' default plug-ins, in its order and with its weights."""
    taints, affinity, fit = TaintToleration(), NodeAffinity(), NodeResourcesFit()
    return Profile(
        pre_enqueue=(SchedulingGates(),),
        filters=(NodeUnschedulable(), NodeName(), taints, affinity, NodePorts(), fit),
        scores=(taints, affinity, fit, NodeResourcesBalancedAllocation()),
        binds=(DefaultBinder(means.client),),
    )


__all__ = ["Means", "default_profile"]
