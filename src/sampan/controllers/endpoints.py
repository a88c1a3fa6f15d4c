"""Endpoints (core/v1, deprecated) of Services that select pods."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sampan.api.obj import Body, Key, Obj
from sampan.control.facts import WARNING, Event, Facts, Mark
from sampan.control.plan import Action, Caches, Create, Delete, Trigger, Update, own
from sampan.controllers import backends
from sampan.controllers import pods as podlib
from sampan.controllers.slices import HEADLESS_LABEL, TRIGGER_TIME, ports_key

MANAGED_LABEL = "endpoints.kubernetes.io/managed-by"
_MANAGER = "endpoint-controller"
_TRUNCATED = "endpoints.kubernetes.io/over-capacity"
_CAPACITY = 1000
FAILED = Event(
    WARNING, "FailedToCreateEndpoint", "Failed to create endpoint for service {name}: {why}",
    "tests/controllers/test_endpointslice.py::test_a_refused_slice_is_told",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class View:
    """service is None where it is gone and its Endpoints remain."""

    service: Body | None
    pods: tuple[Body, ...]
    endpoints: Body | None


class EndpointsController:
    """Keeps one Endpoints object per Service, up to a thousand addresses. Endpoints go with their
    Service, also those a user wrote; those that never had one are the user's own affair."""

    name = "endpoint-controller"
    workers = 4

    def __init__(self) -> None:
        self.triggers = (
            own("services"), backends.POD_TRIGGER, Trigger("endpoints", self._keys_of_endpoints),
        )  # fmt: skip
        self.indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]] = {
            "services": backends.SERVICE_INDEXES, "pods": backends.POD_INDEXES,
        }  # fmt: skip
        self._served: set[Key] = set()  # services that were seen

    @staticmethod
    def _keys_of_endpoints(obj: Obj, _caches: Caches) -> Iterable[Key]:
        yield Key("services", obj.namespace, obj.name)

    def observe(self, key: Key, caches: Caches) -> View | None:
        service = caches["services"].get(key.namespace, key.name)
        held = caches["endpoints"].get(key.namespace, key.name)
        if service is None:
            if held is None:
                self._served.discard(key)
                return None
            ours = key in self._served or held.labels.get(MANAGED_LABEL) == _MANAGER
            return View(None, (), held.body) if ours else None
        self._served.add(key)
        if not backends.has_selector(service):
            return None
        pods = tuple(p.body for p in backends.pods_of(service, caches))
        return View(service.body, pods, held.body if held else None)

    def plan(self, view: View, now: float) -> Sequence[Action]:
        held, service = view.endpoints, view.service
        if service is None:
            assert held is not None
            meta = held["metadata"]
            return [Delete(Key("endpoints", meta["namespace"], meta["name"]), meta.get("uid", ""))]
        subsets, truncated = _truncated(_subsets(service, view.pods))
        made_labels = _labels(service)
        notes = {TRIGGER_TIME: t} if (t := _trigger(service, view, subsets)) else {}
        if truncated:
            notes[_TRUNCATED] = "truncated"
        meta = service["metadata"]
        if held is None:
            body: Body = {
                "apiVersion": "v1", "kind": "Endpoints",
                "metadata": {"name": meta["name"], "namespace": meta["namespace"],
                             "labels": made_labels, "annotations": notes},
            }  # fmt: skip
            if subsets:
                body["subsets"] = subsets
            name = f"{meta['namespace']}/{meta['name']}"
            return [Create("endpoints", body, lambda why: [FAILED.about(body, name=name, why=why)])]
        old = held["metadata"]
        others = {
            k: v for k, v in (old.get("annotations") or {}).items()
            if k not in (TRIGGER_TIME, _TRUNCATED)
        }  # fmt: skip
        had = (old.get("annotations") or {}).get(_TRUNCATED) == "truncated"
        same = (held.get("subsets") or []) == subsets and had == truncated
        if same and (old.get("labels") or {}) == made_labels:
            return []
        changed = {**old, "labels": made_labels, "annotations": {**others, **notes}}
        new = {**held, "metadata": changed, "subsets": subsets}
        if not subsets:
            del new["subsets"]
        return [Update("endpoints", new)]


def _labels(service: Body) -> dict[str, str]:
    given = service["metadata"].get("labels") or {}
    made = {k: v for k, v in given.items() if k != HEADLESS_LABEL}
    if service["spec"].get("clusterIP") == "None":
        made[HEADLESS_LABEL] = ""
    made[MANAGED_LABEL] = _MANAGER
    return made


def _subsets(service: Body, pods: Sequence[Body]) -> list[Body]:
    """Addresses grouped by their ports; canonical, so that equal states are equal bodies."""
    spec = service["spec"]
    unready = bool(spec.get("publishNotReadyAddresses"))
    family = (spec.get("ipFamilies") or ["IPv4"])[0]
    groups: dict[bytes, tuple[list[Body], list[Body], list[Body]]] = {}
    for pod in pods:
        ip = backends.address(pod, family)
        if not backends.is_listed(pod, terminating=unready) or not ip:
            continue
        ports = backends.ports(service, pod)
        if not ports and spec.get("ports"):
            continue
        group = groups.setdefault(ports_key(ports), (ports, [], []))
        group[1 if unready or podlib.is_ready(pod) else 2].append(_address(service, pod, ip))
    subsets = []
    for _key, (ports, ready, waiting) in sorted(groups.items()):
        subset: Body = {}
        for name, found in (("addresses", ready), ("notReadyAddresses", waiting)):
            if found:
                subset[name] = sorted(found, key=lambda a: (a["ip"], a["targetRef"]["uid"]))
        if ports:
            subset["ports"] = sorted(ports, key=lambda p: (p["name"], p["protocol"], p["port"]))
        subsets.append(subset)
    for subset in subsets:
        for port in subset.get("ports") or ():
            if not port["name"]:
                del port["name"]
    return subsets


def _address(service: Body, pod: Body, ip: str) -> Body:
    made: Body = {"ip": ip}
    name = backends.hostname(pod, service)
    if name:
        made["hostname"] = name
    if pod["spec"].get("nodeName"):
        made["nodeName"] = pod["spec"]["nodeName"]
    return {**made, "targetRef": backends.target(pod)}


def _truncated(subsets: list[Body]) -> tuple[list[Body], bool]:
    """At most a thousand addresses, ready ones first."""
    kinds = ("addresses", "notReadyAddresses")
    if sum(len(s.get(k) or ()) for s in subsets for k in kinds) <= _CAPACITY:
        return subsets, False
    room = _CAPACITY
    for kind in kinds:
        for subset in subsets:
            kept = (subset.get(kind) or [])[:room]
            room -= len(kept)
            if kept:
                subset[kind] = kept
            else:
                subset.pop(kind, None)
    return [s for s in subsets if any(s.get(k) for k in kinds)], True


def _trigger(service: Body, view: View, subsets: Sequence[Body]) -> str:
    """When the first of what this write tells of happened."""

    def flat(found: Sequence[Body]) -> set[tuple[str, str]]:
        return {
            (a.get("targetRef", {}).get("uid", ""), kind)
            for s in found
            for kind in ("addresses", "notReadyAddresses")
            for a in s.get(kind) or ()
        }

    times = backends.changed_at(view.pods)
    before = flat((view.endpoints or {}).get("subsets") or ())
    told = [times.get(uid, "") for uid, _kind in flat(subsets) - before]
    if view.endpoints is None:
        told.append(service["metadata"].get("creationTimestamp", ""))
    return min((t for t in told if t), default="")


_TEST = "tests/controllers/test_endpointslice.py::"
FACTS = Facts(
    kind="Endpoints",
    definition="io.k8s.api.core.v1.Endpoints",
    controller=EndpointsController.name,
    events=(FAILED,),
    labels=(
        Mark(MANAGED_LABEL, "Endpoints", "kept by the controller; others are a user's",
             _TEST + "test_endpoints_group_addresses_by_ports"),
        Mark(HEADLESS_LABEL, "Endpoints", "their Service has no address",
             _TEST + "test_endpoints_of_a_headless_service"),
    ),
    annotations=(
        Mark(TRIGGER_TIME, "Endpoints", "when the first change they tell of happened",
             _TEST + "test_endpoints_group_addresses_by_ports"),
        Mark(_TRUNCATED, "Endpoints", "`truncated`: there are more than a thousand",
             _TEST + "test_endpoints_end_at_a_thousand_and_with_their_service"),
    ),
)  # fmt: skip
