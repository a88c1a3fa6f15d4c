"""ServiceCIDRs become ready, and stay while addresses need them (networking.k8s.io/v1)."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sampan.api.obj import Body, Key, Obj
from sampan.api.rules.addresses import (
    FINALIZER,
    IP_ADDRESSES,
    MANAGED_LABEL,
    MANAGER,
    READY_MESSAGE,
    SERVICE_CIDRS,
    networks,
    ready_condition,
)
from sampan.control.facts import Condition, Facts, Field, Mark
from sampan.control.plan import Action, Again, Caches, Patch, Trigger
from sampan.lib.clock import parse_rfc3339, rfc3339

_GRACE = 10.0  # seconds for API servers to see that nothing is to be taken from it any more
_TEST = "tests/controllers/test_service_cidrs.py::"
IN_USE = Condition(
    "Ready", "False", "Terminating",
    "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new "
    "ServiceCIDR",
    _TEST + "test_one_in_use_says_why_it_stays",
)  # fmt: skip
READY = Condition(
    "Ready", "True", "", READY_MESSAGE, _TEST + "test_a_new_one_gets_its_finalizer_and_is_ready"
)
FACTS = Facts(
    kind="ServiceCIDR",
    definition="io.k8s.api.networking.v1.ServiceCIDR",
    controller="service-cidrs-controller",
    status=(
        Field("conditions", "see below", _TEST + "test_a_new_one_gets_its_finalizer_and_is_ready"),
    ),
    conditions=(READY, IN_USE),
    labels=(
        Mark(FINALIZER, "ServiceCIDR (finalizer)", "stays while addresses need it",
             _TEST + "test_a_new_one_gets_its_finalizer_and_is_ready"),
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class View:
    """others: ServiceCIDRs that stay; addresses: that Services hold, where it matters."""

    cidr: Body
    others: tuple[Body, ...]
    addresses: tuple[str, ...]


class ServiceCIDRController:
    name = "service-cidrs-controller"
    workers = 1

    def __init__(self) -> None:
        self.triggers = (
            Trigger(SERVICE_CIDRS, self._related), Trigger(IP_ADDRESSES, self._holding),
        )  # fmt: skip
        self.indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]] = {}

    @staticmethod
    def _related(obj: Obj, caches: Caches) -> Iterable[Key]:
        """The object, and those on their way out that overlap it."""
        yield obj.key
        mine = networks(obj.body)
        for other in caches[SERVICE_CIDRS].list():
            if other.is_deleting and any(a.overlaps(b) for a in mine for b in networks(other.body)):
                yield other.key

    @staticmethod
    def _holding(obj: Obj, caches: Caches) -> Iterable[Key]:
        """Those on their way out that may wait for this address."""
        for cidr in caches[SERVICE_CIDRS].list():
            if cidr.is_deleting:
                yield cidr.key

    def observe(self, key: Key, caches: Caches) -> View | None:
        cidrs = caches[SERVICE_CIDRS]
        cidr = cidrs.get("", key.name)
        if cidr is None:
            return None
        if not cidr.is_deleting:
            return View(cidr.body, (), ())
        others = tuple(c.body for c in cidrs.list() if c.name != cidr.name and not c.is_deleting)
        held = caches[IP_ADDRESSES].list()
        taken = tuple(sorted(a.name for a in held if a.labels.get(MANAGED_LABEL) == MANAGER))
        return View(cidr.body, others, taken)

    def plan(self, view: View, now: float) -> Sequence[Action]:
        cidr = view.cidr
        meta = cidr["metadata"]
        finalizers = [*(meta.get("finalizers") or ())]
        if "deletionTimestamp" not in meta:
            ready = _condition(cidr)
            if FINALIZER in finalizers and ready.get("status") == "True":
                return []
            kept = finalizers if FINALIZER in finalizers else [*finalizers, FINALIZER]
            return [_patch(cidr, ready_condition(rfc3339(now)), kept)]
        if FINALIZER not in finalizers:
            return []
        if not can_go(view):
            if _condition(cidr).get("reason") == "Terminating":
                return []
            told = {"type": IN_USE.type, "status": IN_USE.status, "reason": IN_USE.reason,
                    "message": IN_USE.message, "lastTransitionTime": rfc3339(now)}  # fmt: skip
            return [_patch(cidr, told, finalizers)]
        wait = parse_rfc3339(meta["deletionTimestamp"]) + _GRACE - now
        if wait > 0:
            return [Again(wait)]
        return [_patch(cidr, None, [f for f in finalizers if f != FINALIZER])]


def can_go(view: View) -> bool:
    """Whether no address would be left without a range: another one contains all of it, or
    nothing is held in it that no other contains."""
    kept = [n for other in view.others for n in networks(other)]
    mine = networks(view.cidr)

    def is_inside(number: int, version: int) -> bool:
        return any(
            n.version == version and int(n.network_address) <= number <= int(n.broadcast_address)
            for n in kept
        )

    covered = all(
        is_inside(int(n.network_address), n.version)
        and is_inside(int(n.broadcast_address), n.version)
        and any(n.version == k.version and k.prefixlen <= n.prefixlen and k.overlaps(n)
                for k in kept)
        for n in mine
    )  # fmt: skip
    if covered:
        return True
    for text in view.addresses:
        ip = ipaddress.ip_address(text)
        if any(ip in n for n in mine) and not is_inside(int(ip), ip.version):
            return False
    return True


def _condition(cidr: Body) -> Body:
    conditions: list[Body] = (cidr.get("status") or {}).get("conditions") or []
    return next((c for c in conditions if c["type"] == "Ready"), {})


def _patch(cidr: Body, condition: Body | None, finalizers: list[str]) -> Action:
    meta: Body = {"finalizers": finalizers}
    if cidr["metadata"].get("resourceVersion"):
        meta["resourceVersion"] = cidr["metadata"]["resourceVersion"]
    patch: Body = {"metadata": meta}
    if condition is not None:
        others = [
            c for c in (cidr.get("status") or {}).get("conditions") or () if c["type"] != "Ready"
        ]
        patch["status"] = {"conditions": [*others, condition]}
    return Patch(Key(SERVICE_CIDRS, "", cidr["metadata"]["name"]), patch, subresource="status")
