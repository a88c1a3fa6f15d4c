"""What an API server fills in, keeps and clears in a Service, apart from the addresses and ports
it allocates (``apiserver.allocation``).

The rules are upstream's: a client that leaves an allocated value out of an update keeps it, and
fields that a changed type has no use for go where the client did not touch them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any

from sampan.api.errors import Cause
from sampan.api.obj import Body
from sampan.api.rules.field import invalid

NODE_PORT_TYPES = ("LoadBalancer", "NodePort")


def is_headless(spec: Body) -> bool:
    return spec.get("clusterIP") == "None" or (spec.get("clusterIPs") or [""])[0] == "None"


def is_external(spec: Body) -> bool:
    """Reachable from outside the cluster: what externalTrafficPolicy is about."""
    kind = spec.get("type")
    return kind in NODE_PORT_TYPES or (kind == "ClusterIP" and bool(spec.get("externalIPs")))


def needs_health_check(spec: Body) -> bool:
    return spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


def wants_node_ports(spec: Body) -> bool:
    """Whether ports without a nodePort get one."""
    kind = spec.get("type")
    if kind == "LoadBalancer":
        return bool(spec.get("allocateLoadBalancerNodePorts", True))
    return kind == "NodePort"


def cluster_addresses(spec: Body) -> list[str]:
    """The addresses a service holds: none where headless or ExternalName."""
    if spec.get("type") == "ExternalName" or is_headless(spec):
        return []
    return [*(spec.get("clusterIPs") or ())]


def held_ports(spec: Body) -> set[int]:
    """Ports of the node port range a service holds."""
    held: set[int] = set()
    if spec.get("type") in NODE_PORT_TYPES:
        held = {p["nodePort"] for p in spec.get("ports") or () if p.get("nodePort")}
    if needs_health_check(spec) and spec.get("healthCheckNodePort"):
        held.add(spec["healthCheckNodePort"])
    return held


# -- create and update -------------------------------------------------------------------------


def create(body: Body) -> None:
    body["status"] = {"loadBalancer": {}}
    spec: Body = body.get("spec") or {}
    if spec.get("clusterIP") and not spec.get("clusterIPs"):
        spec["clusterIPs"] = [spec["clusterIP"]]


def update(new: Body, old: Body) -> None:
    """Status and what the client left out stay; what the new type has no use for goes."""
    if "status" in old:
        new["status"] = old["status"]
    else:
        new.pop("status", None)
    after, before = new.get("spec") or {}, old.get("spec") or {}
    _keep_allocated(after, before)
    _mirror(after, before)
    _drop_unused(after, before)
    if after.get("type") != "LoadBalancer" and (new.get("status") or {}).get("loadBalancer"):
        new["status"] = {**new["status"], "loadBalancer": {}}


def _keep_allocated(after: Body, before: Body) -> None:
    if "ExternalName" not in (after.get("type"), before.get("type")):
        if not after.get("clusterIP") and before.get("clusterIP"):
            after["clusterIP"] = before["clusterIP"]
        if not after.get("clusterIPs") and after.get("clusterIP") == before.get("clusterIP"):
            after["clusterIPs"] = [*(before.get("clusterIPs") or ())]
    if after.get("type") in NODE_PORT_TYPES and before.get("type") in NODE_PORT_TYPES:
        known = {
            (p.get("protocol"), p.get("port")): p.get("nodePort") for p in before.get("ports") or ()
        }
        used = {p.get("nodePort") for p in after.get("ports") or ()}
        for port in after.get("ports") or ():
            kept = known.get((port.get("protocol"), port.get("port")))
            if not port.get("nodePort") and kept and kept not in used:
                port["nodePort"] = kept
    if needs_health_check(after) and needs_health_check(before):
        kept = before.get("healthCheckNodePort")
        if not after.get("healthCheckNodePort") and kept:
            after["healthCheckNodePort"] = kept


def _mirror(after: Body, before: Body) -> None:
    """clusterIP and clusterIPs[0] follow each other, whichever of the two the client changed."""
    ip, were = after.get("clusterIP") or "", before.get("clusterIP") or ""
    ips, had = after.get("clusterIPs") or [], before.get("clusterIPs") or []
    if not ips and ip:
        after["clusterIPs"] = [ip]  # an old client, or a type that gets addresses now
    elif ips == had and ip != were:
        if ip:
            after["clusterIPs"] = [ip]
        else:
            after.pop("clusterIPs", None)
    elif ips != had and ip == were and had and ips and ips[0] != had[0]:
        after["clusterIP"] = ips[0]


def _same(after: Body, before: Body, *fields: str) -> bool:
    return all((after.get(f) or None) == (before.get(f) or None) for f in fields)


def _drop_unused(after: Body, before: Body) -> None:
    is_, was = after.get("type"), before.get("type")
    if was != "ExternalName" and is_ == "ExternalName":
        if _same(after, before, "clusterIP", "clusterIPs"):
            _drop(after, "clusterIP", "clusterIPs")
        for field in ("ipFamilies", "ipFamilyPolicy"):
            if _same(after, before, field):
                _drop(after, field)
    if was in NODE_PORT_TYPES and is_ not in NODE_PORT_TYPES:
        had = {p.get("nodePort") for p in before.get("ports") or ()}
        ports = after.get("ports") or ()
        if {p["nodePort"] for p in ports if p.get("nodePort")} <= had:
            for port in ports:
                port.pop("nodePort", None)
    if needs_health_check(before) and not needs_health_check(after):
        if _same(after, before, "healthCheckNodePort"):
            _drop(after, "healthCheckNodePort")
    if was == "LoadBalancer" and is_ != "LoadBalancer":
        for field in ("allocateLoadBalancerNodePorts", "loadBalancerClass"):
            if after.get(field) == before.get(field):
                _drop(after, field)
    if is_external(before) and not is_external(after):
        if _same(after, before, "externalTrafficPolicy"):
            _drop(after, "externalTrafficPolicy")


def _drop(spec: Body, *fields: str) -> None:
    for field in fields:
        spec.pop(field, None)


# -- families ----------------------------------------------------------------------------------


def family_of(address: str) -> str:
    return f"IPv{ipaddress.ip_address(address).version}"


def families(spec: Body, before: Body | None, configured: Sequence[str]) -> list[Cause]:
    """Fill in ipFamilyPolicy and ipFamilies as the cluster's *configured* families (the primary
    one first) allow, in place. before: the spec an update replaces. clusterIP fields must have
    been checked (``services.cluster_ips``)."""
    if spec.get("type") == "ExternalName" or _is_settled(spec, before):
        return []
    headless = is_headless(spec) and not spec.get("selector")
    if not spec.get("ipFamilyPolicy"):
        kept = (before or {}).get("ipFamilyPolicy")
        spec["ipFamilyPolicy"] = kept or ("RequireDualStack" if headless else "SingleStack")
    policy = spec["ipFamilyPolicy"]
    found: list[Cause] = []
    if before is not None:
        found += _reduced(spec, before, policy)
    at = "spec.ipFamilyPolicy"
    if policy == "SingleStack":
        why = "must be 'RequireDualStack' or 'PreferDualStack' when multiple"
        for field, what in (("clusterIPs", "cluster IPs"), ("ipFamilies", "IP families")):
            if len(spec.get(field) or ()) == 2:
                found.append(invalid(at, policy, f"{why} {what} are specified"))
    wanted: list[str] = [*(spec.get("ipFamilies") or ())]
    ips = () if is_headless(spec) else spec.get("clusterIPs") or ()
    for i, ip in enumerate(ips):
        family = family_of(ip)
        if i < len(wanted):
            continue
        if family in configured:
            wanted.append(family)
        else:
            why = f"{family} is not configured on this cluster"
            found.append(invalid(f"spec.clusterIPs[{i}]", spec["clusterIPs"], why))
    if found:
        return found
    if headless:
        wanted = wanted or [configured[0]]
        if len(wanted) < 2 and policy != "SingleStack":
            wanted.append(_other(wanted[0]))
        spec["ipFamilies"] = wanted
        return []
    if policy == "RequireDualStack" and len(configured) < 2:
        why = "this cluster is not configured for dual-stack services"
        found.append(invalid(at, policy, why))
    for i, family in enumerate(wanted):
        if family not in configured:
            why = "not configured on this cluster"
            found.append(invalid(f"spec.ipFamilies[{i}]", family, why))
    if found:
        return found
    wanted = wanted or [configured[0]]
    if policy != "SingleStack" and len(wanted) == 1 and len(configured) == 2:
        wanted.append(_other(wanted[0]))
    spec["ipFamilies"] = wanted
    return []


def _other(family: str) -> str:
    return "IPv6" if family == "IPv4" else "IPv4"


def _is_settled(spec: Body, before: Body | None) -> bool:
    """A PreferDualStack service is not changed by a change of the cluster's families alone."""
    return (
        before is not None
        and spec.get("type") == before.get("type")
        and spec.get("ipFamilyPolicy") == "PreferDualStack"
        and before.get("ipFamilyPolicy") in (None, "PreferDualStack")
        and _same(spec, before, "clusterIPs", "ipFamilies")
    )


def _reduced(spec: Body, before: Body, policy: Any) -> list[Cause]:
    """SingleStack lets go of the secondary values; without it they may not just be left out."""
    found = []
    for field, what in (("clusterIPs", "cluster IP"), ("ipFamilies", "IP family")):
        now, were = spec.get(field) or [], before.get(field) or []
        if policy == "SingleStack":
            if now == were and len(now) > 1:
                spec[field] = now[:1]
        elif now and len(now) < len(were):
            why = f"must be 'SingleStack' to release the secondary {what}"
            found.append(invalid("spec.ipFamilyPolicy", policy, why))
    return found
