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
from sampan.control.facts import WARNING, Event, Facts, Mark
from sampan.control.plan import Action, Again, Caches, Create, Delete, Emit, Trigger, Update, own
from sampan.lib.clock import parse_rfc3339

_TEST = "tests/controllers/test_service_cidrs.py::"
NOT_VALID = Event(  # upstream prints the address it could not read: none
    WARNING, "ClusterIPNotValid", "Cluster IP <nil> is not a valid IP; please recreate Service",
    _TEST + "test_an_address_that_is_none_is_told",
)  # fmt: skip
OUT_OF_RANGE = Event(
    WARNING, "ClusterIPOutOfRange",
    "Cluster IP [{family}]: {ip} is not within any configured Service CIDR; please recreate "
    "service",
    _TEST + "test_an_address_outside_of_every_range_is_told",
)  # fmt: skip
NOT_ALLOCATED = Event(
    WARNING, "ClusterIPNotAllocated", "Cluster IP [{family}]: {ip} is not allocated; repairing",
    _TEST + "test_a_service_without_an_address_gets_it_back",
)  # fmt: skip
WRONG_REFERENCE = Event(
    WARNING, "ClusterIPNotAllocated",
    "the ClusterIP [{family}]: {ip} for Service {service} has a wrong reference; repairing",
    _TEST + "test_a_wrong_reference_is_put_right",
)  # fmt: skip
ALREADY_ALLOCATED = Event(
    WARNING, "ClusterIPAlreadyAllocated",
    "Cluster IP [{family}]:{ip} was assigned to multiple services; please recreate service",
    _TEST + "test_two_services_with_one_address",
)  # fmt: skip
LEAKED = Event(
    WARNING, "IPAddressNotAllocated",
    "IPAddress: {ip} for Service {service} appears to have leaked: cleaning up",
    _TEST + "test_a_leaked_address_goes_after_a_minute",
)  # fmt: skip
NO_SERVICE = Event(
    WARNING, "IPAddressNotAllocated",
    "IPAddress {ip} appears to have been modified, not referencing a Service {reference}: "
    "cleaning up",
    _TEST + "test_an_address_of_the_allocator_that_names_no_service_goes",
)  # fmt: skip
STRAY = Event(
    WARNING, "IPAddressWrongReference",
    "IPAddress: {ip} for Service {service} has a wrong reference; cleaning up",
    _TEST + "test_a_leaked_address_goes_after_a_minute",
)  # fmt: skip
FACTS = Facts(
    kind="IPAddress",
    definition="io.k8s.api.networking.v1.IPAddress",
    controller="ipallocator-repair-controller",
    events=(NOT_VALID, OUT_OF_RANGE, NOT_ALLOCATED, WRONG_REFERENCE, ALREADY_ALLOCATED, LEAKED,
            NO_SERVICE, STRAY),
    labels=(
        Mark(MANAGED_LABEL, "IPAddress", f"`{MANAGER}`: made for a Service",
             _TEST + "test_labels_are_put_back_in_silence"),
        Mark(FAMILY_LABEL, "IPAddress", "`IPv4` or `IPv6`",
             _TEST + "test_labels_are_put_back_in_silence"),
    ),
)  # fmt: skip
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
    """service: which the IPAddress names, None where it is not there. is_held: whether some
    service has the address."""

    address: Body
    service: Body | None
    is_held: bool = False


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
            held_by = services.by("address", key.name)
            return AddressView(address.body, found.body if found else None, bool(held_by))
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
    name = f"{meta['namespace']}/{meta['name']}"
    for text, held in view.held.items():
        try:
            ip = ipaddress.ip_address(text)
        except ValueError:
            actions.append(NOT_VALID.about(service))
            continue
        family = f"IPv{ip.version}"
        if not any(ip in n and int(ip) in of_network(n) for n in view.ranges):
            actions.append(OUT_OF_RANGE.about(service, family=family, ip=text))
            continue
        told: list[Emit] = []
        if held is None:
            told.append(NOT_ALLOCATED.about(service, family=family, ip=text))
        elif text in view.rivals:
            rival = view.rivals[text]
            if rival is not None and text in service_fields.cluster_addresses(rival["spec"]):
                actions.append(ALREADY_ALLOCATED.about(service, family=family, ip=text))
                continue
            told.append(WRONG_REFERENCE.about(service, family=family, ip=text, service=name))
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


def _recreate(service: Body, text: str, held: Body | None, told: Sequence[Emit]) -> list[Action]:
    # Nothing changes by this update; it fails where the service is gone or another by now.
    actions: list[Action] = [Update("services", service)]
    if held is not None:
        actions.append(Delete(Key(IP_ADDRESSES, "", text), held["metadata"].get("uid", "")))
    body = new_ip_address(text, service)
    return [*actions, Create(IP_ADDRESSES, body, done=lambda _obj: told)]


def _plan_address(view: AddressView, now: float) -> Sequence[Action]:
    address, service = view.address, view.service
    meta = address["metadata"]
    parent = (address.get("spec") or {}).get("parentRef") or {}
    key = Key(IP_ADDRESSES, "", meta["name"])
    if parent.get("group") or parent.get("resource") != "services":
        if view.is_held:
            return []  # the service puts it right
        reference = "&ParentReference{{Group:{},Resource:{},Namespace:{},Name:{},}}".format(
            *(parent.get(field, "") for field in ("group", "resource", "namespace", "name"))
        )
        told = NO_SERVICE.about(address, ip=meta["name"], reference=reference)
        return [Delete(key, meta.get("uid", ""), done=lambda: [told])]
    if service is not None and meta["name"] in service_fields.cluster_addresses(service["spec"]):
        return []
    wait = parse_rfc3339(meta["creationTimestamp"]) + _GRACE - now
    if wait > 0:
        return [Again(wait)]
    who = f"{parent.get('namespace')}/{parent.get('name')}"
    event = LEAKED if service is None else STRAY
    emit = event.about(address, ip=meta["name"], service=who)
    return [Delete(key, meta.get("uid", ""), done=lambda: [emit])]
