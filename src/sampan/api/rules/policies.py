"""NetworkPolicy: defaults and validation. Pure."""

from __future__ import annotations

import ipaddress

from sampan.api.errors import Cause
from sampan.api.obj import Body
from sampan.api.rules.field import checked, forbidden, invalid, not_supported, required
from sampan.api.rules.selection import label_selector
from sampan.lib import names

_PROTOCOLS = ("SCTP", "TCP", "UDP")
_TYPES = ("Egress", "Ingress")


def default(body: Body) -> None:
    """Ports are of TCP; a policy isolates ingress, and egress where it has rules for it."""
    spec = body.setdefault("spec", {})
    for rule in (*(spec.get("ingress") or ()), *(spec.get("egress") or ())):
        for port in (rule or {}).get("ports") or ():
            if not port.get("protocol"):
                port["protocol"] = "TCP"
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress", *(["Egress"] if spec.get("egress") else [])]


def validate(body: Body) -> list[Cause]:
    spec = body.get("spec") or {}
    found = label_selector("spec.podSelector", spec.get("podSelector"))
    for direction, side in (("ingress", "from"), ("egress", "to")):
        for i, rule in enumerate(spec.get(direction) or ()):
            at = f"spec.{direction}[{i}]"
            for j, port in enumerate(rule.get("ports") or ()):
                found += _port(f"{at}.ports[{j}]", port)
            for j, peer in enumerate(rule.get(side) or ()):
                found += _peer(f"{at}.{side}[{j}]", peer)
    types = spec.get("policyTypes") or []
    if len(types) > 2:
        detail = "may not specify more than two policyTypes"
        return [*found, invalid("spec.policyTypes", types, detail)]
    for i, kind in enumerate(types):
        found += [
            not_supported(f"spec.policyTypes[{i}]", kind, _TYPES) for t in types if t not in _TYPES
        ]
    return found


def _port(at: str, port: Body) -> list[Cause]:
    found: list[Cause] = []
    protocol, number, end = port.get("protocol"), port.get("port"), port.get("endPort")
    if protocol is not None and protocol not in _PROTOCOLS:
        found.append(not_supported(f"{at}.protocol", protocol, _PROTOCOLS))
    if number is None:
        if end is not None:
            detail = "may not be specified when `port` is not specified"
            found.append(invalid(f"{at}.endPort", end, detail))
    elif isinstance(number, str):
        if end is not None:
            detail = "may not be specified when `port` is non-numeric"
            found.append(invalid(f"{at}.endPort", end, detail))
        found += checked(f"{at}.port", number, names.port_name)
    else:
        found += [invalid(f"{at}.port", number, p) for p in names.port_number(number)]
        if end is not None:
            if end < number:
                detail = "must be greater than or equal to `port`"
                found.append(invalid(f"{at}.endPort", number, detail))
            found += [invalid(f"{at}.endPort", end, p) for p in names.port_number(end)]
    return found


def _peer(at: str, peer: Body) -> list[Cause]:
    found: list[Cause] = []
    kinds = [k for k in ("podSelector", "namespaceSelector", "ipBlock") if peer.get(k) is not None]
    for kind in kinds:
        if kind == "ipBlock":
            found += _block(f"{at}.ipBlock", peer["ipBlock"])
        else:
            found += label_selector(f"{at}.{kind}", peer[kind])
    if not kinds:
        found.append(required(at, "must specify a peer"))
    elif len(kinds) > 1 and "ipBlock" in kinds:
        found.append(forbidden(at, "may not specify both ipBlock and another peer"))
    return found


def _block(at: str, block: Body) -> list[Cause]:
    cidr = block.get("cidr") or ""
    if not cidr:
        return [required(f"{at}.cidr")]
    problems = checked(f"{at}.cidr", cidr, names.cidr)
    if problems:
        return problems
    found: list[Cause] = []
    whole = ipaddress.ip_network(cidr, strict=False)
    for i, text in enumerate(block.get("except") or ()):
        here = f"{at}.except[{i}]"
        problems = checked(here, text, names.cidr)
        if not problems:
            part = ipaddress.ip_network(text, strict=False)
            inside = part.version == whole.version and part.network_address in whole
            if not inside or whole.prefixlen >= part.prefixlen:
                detail = f"must be a strict subset of `cidr`: {cidr}"
                problems = [invalid(here, text, detail)]
        found += problems
    return found
