"""Who belongs with a pod: what its Services and its controller select."""

from __future__ import annotations

from collections.abc import Container

from sampan.api.obj import Obj
from sampan.client.cache import Caches
from sampan.lib.selectors import Selector, SelectorError, from_label_selector, from_labels
from sampan.scheduler.pods import PodInfo

_OWNERS = {
    "ReplicaSet": "replicasets.apps", "StatefulSet": "statefulsets.apps",
    "ReplicationController": "replicationcontrollers",
}  # fmt: skip


class CachedKin:
    """From caches of Services and of the controllers that make equal pods."""

    def __init__(self, caches: Caches, resources: Container[str]) -> None:
        self._caches = caches
        self._version = 0
        self._served = [r for r in ("services", *_OWNERS.values()) if r in resources]
        for resource in self._served:
            caches[resource].add_handler(self._changed)

    def version(self) -> int:
        return self._version

    def _changed(self, _kind: str, old: Obj | None, new: Obj | None) -> None:
        if old is None or new is None or old.spec.get("selector") != new.spec.get("selector"):
            self._version += 1

    def selector(self, pod: PodInfo) -> Selector | None:
        labels = pod.obj.labels
        merged: dict[str, str] = {}
        if "services" in self._served:
            for service in self._caches["services"].list(pod.obj.namespace):
                wanted = service.spec.get("selector") or {}
                if wanted and all(labels.get(k) == v for k, v in wanted.items()):
                    merged |= wanted
        parts = [*from_labels(merged).requirements]
        owner = pod.obj.controller or {}
        resource = _OWNERS.get(owner.get("kind", ""), "")
        if resource in self._served:
            held = self._caches[resource].get(pod.obj.namespace, owner.get("name", ""))
            if held is not None and held.uid == owner.get("uid"):
                parts += _selector_of(held).requirements
        return Selector(tuple(parts)) if parts else None


def _selector_of(controller: Obj) -> Selector:
    given = controller.spec.get("selector")
    if controller.key.resource == "replicationcontrollers":
        return from_labels(given)
    try:
        return from_label_selector(given)
    except SelectorError:
        return Selector()
