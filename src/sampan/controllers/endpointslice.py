"""EndpointSlices of Services that select pods (discovery.k8s.io/v1)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from sampan.api.obj import Body, Key, Obj
from sampan.control.facts import NORMAL, WARNING, Event, Facts, Mark
from sampan.control.plan import Action, Caches, Emit, Trigger, own
from sampan.controllers import backends, slices, topology
from sampan.controllers import pods as podlib
from sampan.controllers.mirroring import TOO_MANY
from sampan.controllers.slices import SLICES, Group, Maker, Slice

MANAGER = "endpointslice-controller.k8s.io"
_TEST = "tests/controllers/test_topology.py::"
ENABLED = Event(
    NORMAL, "TopologyAwareHintsEnabled",
    "Topology Aware Hints has been enabled, addressType: {family}",
    _TEST + "test_hints_are_told_once",
)  # fmt: skip
DISABLED = Event(
    WARNING, "TopologyAwareHintsDisabled",
    "{why}, addressType: {family}", _TEST + "test_why_there_are_no_hints",
)  # fmt: skip
SWITCHED_OFF = Event(
    WARNING, "TopologyAwareHintsDisabled",
    "Topology Aware Hints has been disabled, addressType: {family}",
    _TEST + "test_without_the_annotation_hints_go",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class View:
    """zones: of the nodes that are there, '' where they have none. automatic: hints by CPU are
    asked for; was_automatic: they were, when it was last looked (None: nobody looked before).
    ratios: of the zones, where hints are automatic."""

    service: Body
    pods: tuple[Body, ...]
    zones: Mapping[str, str]
    slices: tuple[Body, ...]
    automatic: bool = False
    was_automatic: bool | None = None
    ratios: topology.Ratios | None = None


class EndpointSliceController:
    """Keeps up to a hundred endpoints a slice."""

    name = "endpointslice-controller"
    workers = 4

    def __init__(self) -> None:
        self.triggers = (
            own("services"), backends.POD_TRIGGER, backends.NODE_TRIGGER,
            Trigger(SLICES, self._keys_of_slice),
            Trigger("nodes", self._unbalanced, matters=_capacity_differs),
        )  # fmt: skip
        self._automatic: dict[Key, bool] = {}  # of services that were looked at
        self.indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]] = {
            "services": {**backends.SERVICE_INDEXES, _AUTOMATIC: _automatic},
            "pods": backends.POD_INDEXES,
            SLICES: {"selected": slices.by_service(MANAGER)},
        }

    @staticmethod
    def _keys_of_slice(obj: Obj, _caches: Caches) -> Iterable[Key]:
        labels = obj.labels
        if labels.get(slices.MANAGED_LABEL) == MANAGER and labels.get(slices.SERVICE_LABEL):
            yield Key("services", obj.namespace, labels[slices.SERVICE_LABEL])

    @staticmethod
    def _unbalanced(_node: Obj, caches: Caches) -> Iterable[Key]:
        """Services whose hints do not fit the nodes as they are now, or that have none yet."""
        known = topology.ratios(caches["nodes"].list())
        for service in caches["services"].by(_AUTOMATIC, _AUTOMATIC):
            held = caches[SLICES].by("selected", f"{service.namespace}/{service.name}")
            found = topology.counts(e for s in held for e in s.body.get("endpoints") or ())
            if not found or topology.is_overloaded(found, known):
                yield service.key

    def observe(self, key: Key, caches: Caches) -> View | None:
        service = caches["services"].get(key.namespace, key.name)
        if service is None or service.is_deleting or not backends.has_selector(service):
            self._automatic.pop(key, None)
            return None
        pods = [p.body for p in backends.pods_of(service, caches)]
        used = {p["spec"].get("nodeName") or "" for p in pods}
        nodes = ((n, caches["nodes"].get("", n)) for n in sorted(used) if n)
        zones = {name: backends.zone(node.body) for name, node in nodes if node is not None}
        held = caches[SLICES].by("selected", f"{key.namespace}/{key.name}")
        kept = tuple(s.body for s in sorted(held, key=lambda s: s.name) if not s.is_deleting)
        automatic, was = topology.is_automatic(service), self._automatic.get(key)
        self._automatic[key] = automatic
        ratios = topology.ratios(caches["nodes"].list()) if automatic else None
        return View(service.body, tuple(pods), zones, kept, automatic, was, ratios)

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
        if not view.automatic:
            actions = slices.plan(maker, wanted, view.slices)
            if view.was_automatic and _is_hinted(view):
                actions.append(SWITCHED_OFF.about(service, family=families[0]))
            return actions
        _carry_hints(wanted, view.slices)
        refused: dict[str, str] = {}

        def hint(family: str, found: Sequence[Slice]) -> None:
            refused[family] = topology.assign(found, view.ratios)

        actions = slices.plan(maker, wanted, view.slices, hint)
        return [*actions, *_told(view, refused, is_changed=bool(actions))]

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


_AUTOMATIC = "automatic"


def _automatic(service: Obj) -> Iterable[str]:
    """Index: the services whose hints are automatic."""
    if topology.is_automatic(service):
        yield _AUTOMATIC


def _capacity_differs(old: Obj, new: Obj) -> bool:
    return topology.capacity(old) != topology.capacity(new)


def _is_hinted(view: View) -> bool:
    """Whether there are hints by now."""
    return any(e.get("hints") for s in view.slices for e in s.get("endpoints") or ())


def _carry_hints(wanted: Mapping[str, Sequence[Group]], existing: Sequence[Body]) -> None:
    """Endpoints have the hints they had: what is to change them comes later."""
    held = {slices.identity(e): e for s in existing for e in s.get("endpoints") or ()}
    for group in chain.from_iterable(wanted.values()):
        for item in group.endpoints:
            before = held.get(slices.identity(item), {})
            item.pop("hints", None)
            if before.get("hints") and topology.is_ready(item):
                item["hints"] = before["hints"]


def _told(view: View, refused: Mapping[str, str], *, is_changed: bool) -> list[Emit]:
    """What users are told of hints. A refusal is told again with every write, not without one;
    that there are hints is told once, for the first address type that has them."""
    told = [
        DISABLED.about(view.service, why=why, family=family)
        for family, why in refused.items()
        if why and (is_changed or not view.was_automatic)
    ]
    if not _is_hinted(view) or view.was_automatic is False:
        hinted = [f for f, why in refused.items() if not why]
        told += [ENABLED.about(view.service, family=f) for f in hinted[:1]]
    return told


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
    if ready and (hints := _hints(spec.get("trafficDistribution"), node or "", zone)):
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


_SLICE_TEST = "tests/controllers/test_endpointslice.py::"
FACTS = Facts(
    kind="EndpointSlice",
    definition="io.k8s.api.discovery.v1.EndpointSlice",
    controller="endpointslice-controller, endpointslicemirroring-controller",
    events=(ENABLED, DISABLED, SWITCHED_OFF, slices.FAILED, TOO_MANY),
    labels=(
        Mark(slices.SERVICE_LABEL, "EndpointSlice", "the Service it belongs to",
             _SLICE_TEST + "test_one_ready_pod"),
        Mark(slices.MANAGED_LABEL, "EndpointSlice", "who keeps it; others leave it alone",
             _SLICE_TEST + "test_one_ready_pod"),
        Mark(slices.HEADLESS_LABEL, "EndpointSlice", "its Service has no address",
             _SLICE_TEST + "test_headless_hostname_zone_and_named_ports"),
    ),
    annotations=(
        Mark(slices.TRIGGER_TIME, "EndpointSlice", "when the first change it tells of happened",
             _SLICE_TEST + "test_one_ready_pod"),
    ),
    reads=(
        Mark(topology.TOPOLOGY_MODE, "Service", "`Auto`: zones get endpoints by their CPU",
             _TEST + "test_who_asks"),
        Mark(topology.TOPOLOGY_HINTS, "Service", "the same, deprecated; counts first",
             _TEST + "test_who_asks"),
        Mark("topology.kubernetes.io/zone", "Node", "the zone of its endpoints",
             _SLICE_TEST + "test_headless_hostname_zone_and_named_ports"),
        Mark("endpointslice.kubernetes.io/skip-mirror", "Endpoints", "`true`: is not mirrored",
             _SLICE_TEST + "test_what_is_not_mirrored"),
    ),
)  # fmt: skip
