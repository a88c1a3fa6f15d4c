"""One file per plug-in; ``default_profile`` names them in the order in which they are asked."""

from __future__ import annotations

import random
from collections.abc import Container, Sequence
from dataclasses import dataclass

from sampan.api.obj import Obj
from sampan.client.base import Client
from sampan.client.cache import Caches
from sampan.control import storage
from sampan.lib.clock import Clock
from sampan.scheduler.framework import Filter, Profile
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
from sampan.scheduler.plugins.node_volume_limits import NodeVolumeLimits
from sampan.scheduler.plugins.pod_topology_spread import PodTopologySpread
from sampan.scheduler.plugins.scheduling_gates import SchedulingGates
from sampan.scheduler.plugins.taint_toleration import NodeUnschedulable, TaintToleration
from sampan.scheduler.plugins.volume_binding import Storage, VolumeBinding
from sampan.scheduler.plugins.volume_restrictions import VolumeRestrictions
from sampan.scheduler.plugins.volume_zone import VolumeZone

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

    volumes = _volume_plugins(means)
    binding = tuple(v for v in volumes if isinstance(v, VolumeBinding))
    return Profile(
        pre_enqueue=(SchedulingGates(),),
        filters=(NodeUnschedulable(), NodeName(), taints, affinity, NodePorts(), fit,
                 *volumes, spread, near),
        post_filters=(DefaultPreemption(budgets=budgets, rng=means.rng),),
        scores=(taints, affinity, fit, spread, near, NodeResourcesBalancedAllocation(),
                ImageLocality()),
        reserves=binding,
        pre_binds=binding,
        binds=(DefaultBinder(means.client),),
    )  # fmt: skip


def _volume_plugins(means: Means) -> tuple[Filter, ...]:
    """Those that place pods by their volumes, where the API has any."""
    if storage.CLAIMS not in means.resources:
        return ()
    held = Storage(means.caches)
    return (
        VolumeRestrictions(held), NodeVolumeLimits(means.caches, held),
        VolumeBinding(means.client, means.caches, held), VolumeZone(held),
    )  # fmt: skip


__all__ = ["Means", "default_profile"]
