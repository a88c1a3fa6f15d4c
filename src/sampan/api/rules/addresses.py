"""IPAddress and ServiceCIDR (networking.k8s.io/v1), and which addresses and ports are handed out
first: the lower band of every range is left to those who choose for themselves."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TypeAlias

from sampan.api.errors import Cause
from sampan.api.obj import Body, Obj
from sampan.api.rules.field import checked, immutable, invalid, required, too_many
from sampan.lib import names

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

IP_ADDRESSES = "ipaddresses.networking.k8s.io"
SERVICE_CIDRS = "servicecidrs.networking.k8s.io"
MANAGER = "ipallocator.k8s.io"
FAMILY_LABEL = "ipaddress.kubernetes.io/ip-family"
MANAGED_LABEL = "ipaddress.kubernetes.io/managed-by"
DEFAULT_CIDR = "kubernetes"
FINALIZER = "networking.k8s.io/service-cidr-finalizer"
READY_MESSAGE = "Kubernetes Service CIDR is ready"
_LARGEST = 1 << 16  # IPv6 ranges are used up to here


@dataclass(frozen=True, slots=True)
class Range:
    """*size* consecutive numbers from *first*; the last ``size - band`` of them are handed out
    before the first ``band``."""

    first: int
    size: int
    band: int

    def __contains__(self, number: int) -> bool:
        return self.first <= number < self.first + self.size

    def nth(self, index: int) -> int:
        """Numbers in the order of preference: the upper band first."""
        return self.first + (self.band + index) % self.size


def _band(size: int, step: int, low: int, high: int) -> int:
    return 0 if size <= low else min(max(size // step, low), high)


def of_network(network: Network) -> Range:
    """The addresses of services in *network*: all but its own and an IPv4 broadcast address."""
    count = network.num_addresses
    size = max(count - (2 if network.version == 4 else 1), 0)
    size = min(size, _LARGEST)
    return Range(int(network.network_address) + 1, size, _band(size, 16, 16, 256))


def of_ports(first: int, last: int) -> Range:
    """The node ports from *first* to *last*, both included."""
    size = last - first + 1
    return Range(first, size, _band(size, 32, 16, 128))


def is_ready(cidr: Obj) -> bool:
    """Whether addresses may be taken from it. One that nobody has judged yet counts as ready."""
    conditions = cidr.status.get("conditions") or ()
    told = next((c["status"] for c in conditions if c["type"] == "Ready"), "True")
    return told == "True" and not cidr.is_deleting


def ready_condition(at: str) -> Body:
    """That addresses may be taken from a ServiceCIDR, since *at*."""
    return {"type": "Ready", "status": "True", "reason": "", "message": READY_MESSAGE,
            "lastTransitionTime": at}  # fmt: skip


def networks(cidr: Body) -> list[Network]:
    return [ipaddress.ip_network(c) for c in (cidr.get("spec") or {}).get("cidrs") or ()]


def new_ip_address(address: str, service: Body) -> Body:
    """The IPAddress that says *service* holds *address*."""
    meta = service["metadata"]
    version = ipaddress.ip_address(address).version
    return {
        "apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
        "metadata": {
            "name": str(ipaddress.ip_address(address)),
            "labels": {FAMILY_LABEL: f"IPv{version}", MANAGED_LABEL: MANAGER},
        },
        "spec": {"parentRef": {"group": "", "resource": "services",
                               "namespace": meta["namespace"], "name": meta["name"]}},
    }  # fmt: skip


def refers_to(ip_address: Body, namespace: str, name: str) -> bool:
    """Whether it is held by that service."""
    parent = (ip_address.get("spec") or {}).get("parentRef") or {}
    return (
        not parent.get("group")
        and parent.get("resource") == "services"
        and parent.get("namespace") == namespace
        and parent.get("name") == name
    )


# -- rules -------------------------------------------------------------------------------------


def canonical_address(text: str) -> list[str]:
    """The name of an IPAddress."""
    problems = names.ip(text)
    if problems or str(ipaddress.ip_address(text)) == text:
        return problems
    return [f'must be in canonical form ("{ipaddress.ip_address(text)}")']


def ip_address(body: Body) -> list[Cause]:
    meta = body.get("metadata") or {}
    found = checked("metadata.name", meta.get("name") or "", canonical_address)
    parent = (body.get("spec") or {}).get("parentRef")
    at = "spec.parentRef"
    if parent is None:
        return [*found, required(at)]
    if parent.get("group"):
        found += checked(f"{at}.group", parent["group"], names.dns1123_subdomain)
    for field in ("resource", "name"):
        value = parent.get(field) or ""
        if not value:
            found.append(required(f"{at}.{field}"))
        else:
            found += checked(f"{at}.{field}", value, names.path_segment)
    if parent.get("namespace"):
        found += checked(f"{at}.namespace", parent["namespace"], names.path_segment)
    return found


def ip_address_update(new: Body, old: Body) -> list[Cause]:
    parents = [(b.get("spec") or {}).get("parentRef") for b in (new, old)]
    return immutable("spec.parentRef", *parents)


def service_cidr(body: Body) -> list[Cause]:
    cidrs = (body.get("spec") or {}).get("cidrs") or []
    at = "spec.cidrs"
    if not cidrs:
        return [required(at, "at least one CIDR required")]
    if len(cidrs) > 2:
        return [too_many(at, len(cidrs), 2)]
    found: list[Cause] = []
    for i, cidr in enumerate(cidrs):
        here = f"{at}[{i}]"
        problems = checked(here, cidr, names.cidr)
        if not problems:
            exact = str(ipaddress.ip_network(cidr, strict=False))
            if exact != cidr:
                problems.append(invalid(here, cidr, f'must be in canonical form ("{exact}")'))
        found += problems
    if not found and len({ipaddress.ip_network(c).version for c in cidrs}) < len(cidrs):
        why = (
            "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and "
            "2001:db8::/64"
        )
        found.append(invalid(at, cidrs, why))
    return found


def service_cidr_update(new: Body, old: Body) -> list[Cause]:
    """The ranges stay, but a single one may get its partner of the other family."""
    mine, theirs = ((b.get("spec") or {}).get("cidrs") or [] for b in (new, old))
    if len(theirs) == 1 and len(mine) == 2:
        return immutable("spec.cidrs[0]", mine[0], theirs[0])
    return immutable("spec.cidrs", mine, theirs)
