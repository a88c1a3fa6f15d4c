"""EndpointSlices of Services that select pods (discovery.k8s.io/v1)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from sampan.api.obj import Body, Key, Obj
from sampan.control.plan import Action, Caches, Trigger, own
from sampan.controllers import backends, slices
from sampan.controllers import pods as podlib
from sampan.controllers.slices import SLICES, Group, Maker

MANAGER = "endpointslice-controller.k8s.io"


@dataclass(frozen=True, slots=True)
class View:
    """zones: of the nodes that are there, '' where they have none."""

    service: Body
    pods: tuple[Body, ...]
    zones: Mapping[str, str]
    slices: tuple[Body, ...]


class EndpointSliceController:
    """Keeps up to a hundred endpoints a slice."""

    name = "endpointslice-controller"
    workers = 4

    def __init__(self) -> None:
        self.triggers = (
            own("services"), backends.POD_TRIGGER, backends.NODE_TRIGGER,
            Trigger(SLICES, self._keys_of_slice),
        )  # fmt: skip
        self.indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]] = {
            "services": backends.SERVICE_INDEXES,
            "pods": backends.POD_INDEXES,
            SLICES: {"selected": slices.by_service(MANAGER)},
        }

    @staticmethod
    def _keys_of_slice(obj: Obj, _caches: Caches) -> Iterable[Key]:
        labels = obj.labels
        if labels.get(slices.MANAGED_LABEL) == MANAGER and labels.get(slices.SERVICE_LABEL):
            yield Key("services", obj.namespace, labels[slices.SERVICE_LABEL])

    def observe(self, key: Key, caches: Caches) -> View | None:
        service = caches["services"].get(key.namespace, key.name)
        if service is None or service.is_deleting or not backends.has_selector(service):
            return None
        pods = [p.body for p in backends.pods_of(service, caches)]
        used = {p["spec"].get("nodeName") or "" for p in pods}
        nodes = ((n, caches["nodes"].get("", n)) for n in sorted(used) if n)
        zones = {name: backends.zone(node.body) for name, node in nodes if node is not None}
        held = caches[SLICES].by("selected", f"{key.namespace}/{key.name}")
        kept = tuple(s.body for s in sorted(held, key=lambda s: s.name) if not s.is_deleting)
        return View(service.body, tuple(pods), zones, kept)

    def plan(self, view: View, now: float) -> Sequence[Action]:
        service = view.service
        families = service["spec"].get("ipFamilies") or ["IPv4"]
        wanted = {family: self._groups(view, family) for family in families}
        meta = service["metadata"]
        maker = Maker(
            owner=service, service=meta["name"], labels=labels(service, MANAGER),
            reference=podlib.owner_reference(service, api_version="v1", kind="Service"),
            changed_at=backends.changed_at(view.pods), born=meta.get("creationTimestamp", ""),
        )  # fmt: skip
        return slices.plan(maker, wanted, view.slices)

    def _groups(self, view: View, family: str) -> list[Group]:
        groups: dict[bytes, Group] = {}
        spec = view.service["spec"]
        for pod in view.pods:
            node = pod["spec"].get("nodeName") or ""
            unknown = node and node not in view.zones
            if not backends.is_listed(pod, terminating=True) or not backends.address(pod, family):
                continue
            if unknown and not spec.get("publishNotReadyAddresses"):
                continue
            ports = backends.ports(view.service, pod)
            group = groups.setdefault(slices.ports_key(ports), Group(ports))
            group.endpoints.append(endpoint(view.service, pod, family, view.zones.get(node, "")))
        return list(groups.values())


def labels(service: Body, manager: str) -> dict[str, str]:
    """Of the slices of a service: its own, and those by which slices are found."""
    meta = service["metadata"]
    given = meta.get("labels") or {}
    made = {k: v for k, v in given.items() if k not in slices.RESERVED_LABELS}
    made |= {slices.SERVICE_LABEL: meta["name"], slices.MANAGED_LABEL: manager}
    if service["spec"].get("clusterIP") == "None":
        made[slices.HEADLESS_LABEL] = ""
    return made


def endpoint(service: Body, pod: Body, family: str, zone: str) -> Body:
    """One pod as an endpoint. Ready never holds for a pod on its way out, unless the service
    publishes what is not ready, too."""
    spec = service["spec"]
    serving = podlib.is_ready(pod)
    terminating = "deletionTimestamp" in pod["metadata"]
    ready = bool(spec.get("publishNotReadyAddresses")) or (serving and not terminating)
    made: Body = {
        "addresses": [backends.address(pod, family)],
        "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
        "targetRef": backends.target(pod),
    }
    name = backends.hostname(pod, service)
    if name:
        made["hostname"] = name
    node = pod["spec"].get("nodeName")
    if node:
        made["nodeName"] = node
    if zone:
        made["zone"] = zone
    hints = _hints(spec.get("trafficDistribution"), node or "", zone)
    if hints:
        made["hints"] = hints
    return made


def _hints(distribution: str | None, node: str, zone: str) -> Body:
    """Who should prefer an endpoint, as spec.trafficDistribution asks."""
    hints: Body = {}
    if distribution in ("PreferClose", "PreferSameZone", "PreferSameNode") and zone:
        hints["forZones"] = [{"name": zone}]
    if distribution == "PreferSameNode" and node:
        hints["forNodes"] = [{"name": node}]
    return hints
