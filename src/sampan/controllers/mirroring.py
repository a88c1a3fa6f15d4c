"""EndpointSlices of Endpoints that users write for Services without a selector."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sampan.api.obj import Body, Key, Obj
from sampan.control.facts import WARNING, Event
from sampan.control.plan import Action, Caches, Delete, Trigger, own
from sampan.controllers import pods as podlib
from sampan.controllers import slices
from sampan.controllers.slices import SLICES, Group, Maker

MANAGER = "endpointslicemirroring-controller.k8s.io"
_SKIP = "endpointslice.kubernetes.io/skip-mirror"
_LEADER = "control-plane.alpha.kubernetes.io/leader"
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_MAXIMUM = 1000
TOO_MANY = Event(
    WARNING, "TooManyAddressesToMirror",
    "A max of {maximum} addresses can be mirrored to EndpointSlices per Endpoints subset. "
    "{skipped} addresses were skipped",
    "tests/controllers/test_endpointslice.py::test_a_thousand_addresses_are_mirrored",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class View:
    """endpoints is None where there is nothing (left) to mirror."""

    endpoints: Body | None
    slices: tuple[Body, ...]


class EndpointSliceMirroringController:
    """Mirrors up to a thousand addresses a subset."""

    name = "endpointslicemirroring-controller"
    workers = 2

    def __init__(self) -> None:
        self.triggers = (
            own("endpoints"), Trigger("services", self._of_service),
            Trigger(SLICES, self._of_slice),
        )  # fmt: skip
        self.indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]] = {
            SLICES: {"mirrored": slices.by_service(MANAGER)}
        }

    @staticmethod
    def _of_service(obj: Obj, caches: Caches) -> Iterable[Key]:
        if caches["endpoints"].get(obj.namespace, obj.name) is not None:
            yield Key("endpoints", obj.namespace, obj.name)

    @staticmethod
    def _of_slice(obj: Obj, _caches: Caches) -> Iterable[Key]:
        labels = obj.labels
        if labels.get(slices.MANAGED_LABEL) == MANAGER and labels.get(slices.SERVICE_LABEL):
            yield Key("endpoints", obj.namespace, labels[slices.SERVICE_LABEL])

    def observe(self, key: Key, caches: Caches) -> View | None:
        held = caches[SLICES].by("mirrored", f"{key.namespace}/{key.name}")
        kept = tuple(s.body for s in sorted(held, key=lambda s: s.name) if not s.is_deleting)
        endpoints = caches["endpoints"].get(key.namespace, key.name)
        service = caches["services"].get(key.namespace, key.name)
        wanted = (
            endpoints is not None
            and not endpoints.is_deleting
            and service is not None
            and not service.spec.get("selector")
            and endpoints.labels.get(_SKIP) != "true"
            and _LEADER not in endpoints.annotations
        )
        if not wanted:
            return View(None, kept) if kept else None
        assert endpoints is not None
        return View(endpoints.body, kept)

    def plan(self, view: View, now: float) -> Sequence[Action]:
        endpoints = view.endpoints
        if endpoints is None:
            return [
                Delete(Key(SLICES, s["metadata"]["namespace"], s["metadata"]["name"]),
                       s["metadata"].get("uid", ""))
                for s in view.slices
            ]  # fmt: skip
        meta = endpoints["metadata"]
        labels = {
            k: v for k, v in (meta.get("labels") or {}).items()
            if k not in (slices.SERVICE_LABEL, slices.MANAGED_LABEL)
        }  # fmt: skip
        labels |= {slices.SERVICE_LABEL: meta["name"], slices.MANAGED_LABEL: MANAGER}
        notes = {
            k: v for k, v in (meta.get("annotations") or {}).items()
            if k not in (_LAST_APPLIED, slices.TRIGGER_TIME)
        }  # fmt: skip
        maker = Maker(
            owner=endpoints, service=meta["name"], labels=labels, annotations=notes,
            reference=podlib.owner_reference(endpoints, api_version="v1", kind="Endpoints"),
            maximum=_MAXIMUM, placeholder=False,
        )  # fmt: skip
        wanted = _groups(endpoints)
        for body in view.slices:  # of a family that is no longer there
            wanted.setdefault(body["addressType"], [])
        actions = slices.plan(maker, wanted, view.slices)
        skipped = sum(max(_size(s) - _MAXIMUM, 0) for s in endpoints.get("subsets") or ())
        if skipped and actions:  # told with a write, not again without one
            actions.append(TOO_MANY.about(endpoints, maximum=_MAXIMUM, skipped=skipped))
        return actions


def _size(subset: Body) -> int:
    return sum(len(subset.get(kind) or ()) for kind in ("addresses", "notReadyAddresses"))


def _groups(endpoints: Body) -> dict[str, list[Group]]:
    found: dict[tuple[str, bytes], Group] = {}
    for subset in endpoints.get("subsets") or ():
        ports = [
            {"name": p.get("name") or "", "port": p["port"],
             "protocol": p.get("protocol") or "TCP",
             **({"appProtocol": p["appProtocol"]} if p.get("appProtocol") else {})}
            for p in subset.get("ports") or ()
        ]  # fmt: skip
        count = 0
        for kind, ready in (("addresses", True), ("notReadyAddresses", False)):
            for address in subset.get(kind) or ():
                count += 1
                if count > _MAXIMUM:
                    break
                family = "IPv6" if ":" in address["ip"] else "IPv4"
                key = (family, slices.ports_key(ports))
                group = found.setdefault(key, Group(ports))
                group.endpoints.append(_endpoint(address, ready=ready))
    by_family: dict[str, list[Group]] = {}
    for (family, _ports), group in found.items():
        by_family.setdefault(family, []).append(group)
    return by_family


def _endpoint(address: Body, *, ready: bool) -> Body:
    made: Body = {"addresses": [address["ip"]], "conditions": {"ready": ready}}
    for field in ("hostname", "nodeName", "targetRef"):
        if address.get(field):
            made[field] = address[field]
    return made
