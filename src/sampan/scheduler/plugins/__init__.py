"""One file per plug-in; ``default_profile`` names them in the order in which they are asked."""

from __future__ import annotations

import random
from collections.abc import Container, Sequence
from dataclasses import dataclass

from sampan.api.obj import Obj
from sampan.client.base import Client
from sampan.client.cache import Caches
from sampan.lib.clock import Clock
from sampan.scheduler.framework import Profile
from sampan.scheduler.plugins.default_binder import DefaultBinder
from sampan.scheduler.plugins.default_preemption import DefaultPreemption
from sampan.scheduler.plugins.image_locality import ImageLocality
from sampan.scheduler.plugins.inter_pod_affinity import InterPodAffinity
from sampan.scheduler.plugins.kin import CachedKin
from sampan.scheduler.plugins.node_affinity import NodeAffinity
from sampan.scheduler.plugins.node_name import NodeName
from sampan.scheduler.plugins.node_ports import NodePorts
from sampan.scheduler.plugins.node_resources import (
    NodeResourcesBalancedAllocation,
    NodeResourcesFit,
)
from sampan.scheduler.plugins.pod_topology_spread import PodTopologySpread
from sampan.scheduler.plugins.scheduling_gates import SchedulingGates
from sampan.scheduler.plugins.taint_toleration import NodeUnschedulable, TaintToleration

_BUDGETS = "poddisruptionbudgets.policy"


@dataclass(frozen=True, slots=True)
class Means:
    """What plug-ins may read and write the cluster with. resources: those the API serves; a cache
    of any other would wait in vain."""

    client: Client
    caches: Caches
    clock: Clock
    rng: random.Random
    resources: Container[str]


def default_profile(means: Means) -> Profile:
    """Kubernetes' default plug-ins, in its order and with its weights."""
    caches = means.caches
    taints, affinity, fit = TaintToleration(), NodeAffinity(), NodeResourcesFit()
    spread = PodTopologySpread(CachedKin(caches, means.resources))
    near = InterPodAffinity()
    if _BUDGETS in means.resources:
        caches[_BUDGETS]  # made now, so that it is synced with the others

    def budgets() -> Sequence[Obj]:
        return caches[_BUDGETS].list() if _BUDGETS in means.resources else ()

    return Profile(
        pre_enqueue=(SchedulingGates(),),
        filters=(NodeUnschedulable(), NodeName(), taints, affinity, NodePorts(), fit,
                 spread, near),
        post_filters=(DefaultPreemption(budgets=budgets, rng=means.rng),),
        scores=(taints, affinity, fit, spread, near, NodeResourcesBalancedAllocation(),
                ImageLocality()),
        binds=(DefaultBinder(means.client),),
    )  # fmt: skip


__all__ = ["Means", "default_profile"]
