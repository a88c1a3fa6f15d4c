"""One file per plug-in; ``default_profile`` names them in the order in which they are asked."""

from __future__ import annotations

import random
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

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
from sampan.scheduler.plugins.volume_binding import Promises, Storage, VolumeBinding
from sampan.scheduler.plugins.volume_restrictions import VolumeRestrictions
from sampan.scheduler.plugins.volume_zone import VolumeZone
from sampan.scheduler.settings import Configuration, Settings, read

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


PROFILE_PHASES = (
    "pre_enqueue", "filters", "post_filters", "scores", "reserves", "permits", "pre_binds", "binds",
)  # fmt: skip


def default_profile(means: Means) -> Profile:
    """Kubernetes' default plug-ins, in its order and with its weights."""
    return profile_of(means, Settings())


def profile_of(means: Means, settings: Settings, promises: Promises | None = None) -> Profile:
    """The plug-ins of one profile. promises: shared by all profiles of a scheduler."""
    whole = _whole(means, settings, promises)
    chosen: dict[str, tuple[Any, ...]] = {}
    weights: dict[str, int] = {}
    for phase in PROFILE_PHASES:
        choice = settings.phases.get(phase)
        found: tuple[Any, ...] = getattr(whole, phase)
        if choice is not None:
            left = [p for p in found if not choice.off & {p.name, "*"}]
            by_name = {p.name: p for p in found}
            left += [by_name[n] for n in choice.on if n in by_name and by_name[n] not in left]
            found = tuple(left)
            weights |= choice.weights if phase == "scores" else {}
        chosen[phase] = found
    return Profile(**chosen, weights=weights)


def _whole(means: Means, settings: Settings, promises: Promises | None) -> Profile:
    caches = means.caches
    taints, affinity = TaintToleration(), NodeAffinity(settings.added)
    fit = NodeResourcesFit(settings.fit)
    spread = PodTopologySpread(CachedKin(caches, means.resources), settings.defaults)
    near = InterPodAffinity(
        hard_weight=settings.hard_weight,
        ignores_wishes_of_others=settings.ignores_wishes_of_others,
    )
    if _BUDGETS in means.resources:
        caches[_BUDGETS]  # made now, so that it is synced with the others

    def budgets() -> Sequence[Obj]:
        return caches[_BUDGETS].list() if _BUDGETS in means.resources else ()

    preemption = DefaultPreemption(
        budgets=budgets, rng=means.rng, percent=settings.candidates_percent,
        least=settings.candidates_least,
    )  # fmt: skip
    volumes = _volume_plugins(means, settings, promises)
    binding = tuple(v for v in volumes if isinstance(v, VolumeBinding))
    return Profile(
        pre_enqueue=(SchedulingGates(),),
        filters=(NodeUnschedulable(), NodeName(), taints, affinity, NodePorts(), fit,
                 *volumes, spread, near),
        post_filters=(preemption,),
        scores=(taints, affinity, fit, spread, near,
                NodeResourcesBalancedAllocation(settings.balanced), ImageLocality()),
        reserves=binding,
        pre_binds=binding,
        binds=(DefaultBinder(means.client),),
    )  # fmt: skip


def _volume_plugins(
    means: Means, settings: Settings, promises: Promises | None
) -> tuple[Filter, ...]:
    """Those that place pods by their volumes, where the API has any."""
    if storage.CLAIMS not in means.resources:
        return ()
    held = Storage(means.caches)
    binding = VolumeBinding(
        means.client, means.caches, held, promises=promises, seconds=settings.bind_seconds
    )
    return (
        VolumeRestrictions(held), NodeVolumeLimits(means.caches, held), binding, VolumeZone(held),
    )  # fmt: skip


_VOLUMES = frozenset(("VolumeRestrictions", "NodeVolumeLimits", "VolumeBinding", "VolumeZone"))
_BINDING = frozenset(("VolumeBinding",))
KNOWN: dict[str, frozenset[str]] = {
    "pre_enqueue": frozenset(("SchedulingGates",)),
    "filters": frozenset(
        ("NodeUnschedulable", "NodeName", "TaintToleration", "NodeAffinity", "NodePorts",
         "NodeResourcesFit", "PodTopologySpread", "InterPodAffinity")
    ) | _VOLUMES,
    "post_filters": frozenset(("DefaultPreemption",)),
    "scores": frozenset(
        ("TaintToleration", "NodeAffinity", "NodeResourcesFit", "PodTopologySpread",
         "InterPodAffinity", "NodeResourcesBalancedAllocation", "ImageLocality")
    ),
    "reserves": _BINDING, "permits": frozenset(), "pre_binds": _BINDING,
    "binds": frozenset(("DefaultBinder",)),
}  # fmt: skip


def read_settings(body: Any) -> Configuration:
    """A KubeSchedulerConfiguration. Raises SettingsError."""
    return read(body, KNOWN)


__all__ = ["KNOWN", "Means", "default_profile", "profile_of", "read_settings"]
