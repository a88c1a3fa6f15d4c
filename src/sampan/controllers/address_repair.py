"""Services and their IPAddresses are made to agree again where somebody broke them apart.

The API server writes both in one commit; what differs for good was edited, or comes from a store
that was. Caches of the two kinds move one after the other, so a difference is first looked at
again: a young one is left alone, and a service is asked for at the API before it is acted on.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sampan.api.obj import Body, Key, Obj
from sampan.api.rules import service_fields
from sampan.api.rules.addresses import (
    FAMILY_LABEL,
    IP_ADDRESSES,
    MANAGED_LABEL,
    MANAGER,
    SERVICE_CIDRS,
    Network,
    networks,
    new_ip_address,
    of_network,
    refers_to,
)
from sampan.control.plan import Action, Again, Caches, Create, Delete, Emit, Trigger, Update, own
from sampan.lib.clock import parse_rfc3339

_YOUNG = 5.0  # of services: seconds until their addresses must have been seen
_GRACE = 60.0  # of addresses without a service


@dataclass(frozen=True, slots=True)
class ServiceView:
    """held: its addresses as the API has them; rivals: services that IPAddresses name instead."""

    service: Body
    held: dict[str, Body | None]
    rivals: dict[str, Body | None]
    ranges: tuple[Network, ...]


@dataclass(frozen=True, slots=True)
class AddressView:
    """service: which the IPAddress names, None where it is not there."""

    address: Body
    service: Body | None


class AddressRepair:
    name = "ipallocator-repair-controller"
    workers = 1

    def __init__(self) -> None:
        self.triggers = (
            own("services"), own(IP_ADDRESSES), Trigger(IP_ADDRESSES, self._of_address),
        )  # fmt: skip
        self.indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]] = {
            "services": {"address": lambda obj: service_fields.cluster_addresses(obj.spec)}
        }

    @staticmethod
    def _of_address(obj: Obj, caches: Caches) -> Iterable[Key]:
        for service in caches["services"].by("address", obj.name):
            yield service.key

    def observe(self, key: Key, caches: Caches) -> ServiceView | AddressView | None:
        services, ips = caches["services"], caches[IP_ADDRESSES]
        if key.resource == IP_ADDRESSES:
            address = ips.get("", key.name)
            if address is None or address.labels.get(MANAGED_LABEL) != MANAGER:
                return None
            parent = address.spec.get("parentRef") or {}
            found = services.get(parent.get("namespace", ""), parent.get("name", ""))
            return AddressView(address.body, found.body if found else None)
        service = services.get(key.namespace, key.name)
        if service is None or service.is_deleting:
            return None
        held: dict[str, Body | None] = {}
        rivals: dict[str, Body | None] = {}
        for ip in service_fields.cluster_addresses(service.spec):
            made = ips.get("", ip)
            held[ip] = made.body if made else None
            if made and not refers_to(made.body, key.namespace, key.name):
                parent = made.spec.get("parentRef") or {}
                other = services.get(parent.get("namespace", ""), parent.get("name", ""))
                ours = not parent.get("group") and parent.get("resource") == "services"
                rivals[ip] = other.body if other and ours else None
        if not held:
            return None
        cidrs = caches[SERVICE_CIDRS].list()
        ranges = tuple(n for c in sorted(cidrs, key=lambda c: c.name) for n in networks(c.body))
        return ServiceView(service.body, held, rivals, ranges)

    def plan(self, view: ServiceView | AddressView, now: float) -> Sequence[Action]:
        if isinstance(view, AddressView):
            return _plan_address(view, now)
        return _plan_service(view, now)


def _plan_service(view: ServiceView, now: float) -> Sequence[Action]:
    actions: list[Action] = []
    service = view.service
    meta = service["metadata"]
    for text, held in view.held.items():
        ip = ipaddress.ip_address(text)
        family = f"IPv{ip.version}"
        if not any(ip in n and int(ip) in of_network(n) for n in view.ranges):
            why = f"Cluster IP [{family}]: {text} is not within any configured Service CIDR; "
            reason = "ClusterIPOutOfRange"
            actions.append(Emit(service, "Warning", reason, why + "please recreate service"))
            continue
        told = ""
        if held is None:
            told = f"Cluster IP [{family}]: {text} is not allocated; repairing"
        elif text in view.rivals:
            rival = view.rivals[text]
            if rival is not None and text in service_fields.cluster_addresses(rival["spec"]):
                why = f"Cluster IP [{family}]:{text} was assigned to multiple services; "
                reason = "ClusterIPAlreadyAllocated"
                actions.append(Emit(service, "Warning", reason, why + "please recreate service"))
                continue
            told = (
                f"the ClusterIP [{family}]: {text} for Service {meta['namespace']}/{meta['name']} "
                "has a wrong reference; repairing"
            )
        elif _has_labels(held, family):
            continue
        wait = parse_rfc3339(meta["creationTimestamp"]) + _YOUNG - now
        if wait > 0:
            actions.append(Again(wait))
            continue
        actions += _recreate(service, text, held, told)
    return actions


def _has_labels(held: Body, family: str) -> bool:
    labels = held["metadata"].get("labels") or {}
    return labels.get(MANAGED_LABEL) == MANAGER and labels.get(FAMILY_LABEL) == family


def _recreate(service: Body, text: str, held: Body | None, told: str) -> list[Action]:
    # Nothing changes by this update; it fails where the service is gone or another by now.
    actions: list[Action] = [Update("services", service)]
    if held is not None:
        actions.append(Delete(Key(IP_ADDRESSES, "", text), held["metadata"].get("uid", "")))
    emit = [Emit(service, "Warning", "ClusterIPNotAllocated", told)] if told else []
    body = new_ip_address(text, service)
    return [*actions, Create(IP_ADDRESSES, body, done=lambda _obj: emit)]


def _plan_address(view: AddressView, now: float) -> Sequence[Action]:
    address, service = view.address, view.service
    meta = address["metadata"]
    parent = (address.get("spec") or {}).get("parentRef") or {}
    if parent.get("group") or parent.get("resource") != "services":
        return []  # the service it belongs to, if any, puts it right
    if service is not None and meta["name"] in service_fields.cluster_addresses(service["spec"]):
        return []
    wait = parse_rfc3339(meta["creationTimestamp"]) + _GRACE - now
    if wait > 0:
        return [Again(wait)]
    who = f"IPAddress: {meta['name']} for Service {parent.get('namespace')}/{parent.get('name')} "
    if service is None:
        emit = Emit(address, "Warning", "IPAddressNotAllocated",
                    who + "appears to have leaked: cleaning up")  # fmt: skip
    else:
        emit = Emit(address, "Warning", "IPAddressWrongReference",
                    who + "has a wrong reference; cleaning up")  # fmt: skip
    key = Key(IP_ADDRESSES, "", meta["name"])
    return [Delete(key, meta.get("uid", ""), done=lambda: [emit])]
