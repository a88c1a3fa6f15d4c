"""Validation of Services (core/v1)."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any

from sampan.api.errors import Cause
from sampan.api.obj import Body
from sampan.api.rules.containers import PROTOCOLS, port_or_name
from sampan.api.rules.field import checked, duplicate, forbidden, invalid, one_of, required
from sampan.api.rules.meta import check_labels
from sampan.api.rules.network import special_ip
from sampan.api.rules.service_fields import (
    is_external,
    is_headless,
    needs_health_check,
)
from sampan.lib import names

TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
FAMILIES = ("IPv4", "IPv6")
POLICIES = ("PreferDualStack", "RequireDualStack", "SingleStack")
DISTRIBUTIONS = ("PreferClose", "PreferSameNode", "PreferSameZone")
_DAY = 86400
_KUBELET_PORT = 10250
_ONLY_BALANCER = "may only be used when `type` is 'LoadBalancer'"
_ONCE = "may not change once set"


def validate(body: Body) -> list[Cause]:
    spec: Body = body.get("spec") or {}
    kind = spec.get("type")
    headless = is_headless(spec)
    ports = spec.get("ports") or []
    found: list[Cause] = []
    if not ports and not headless and kind != "ExternalName":
        found.append(required("spec.ports"))
    if kind == "LoadBalancer":
        why = f"may not expose port {_KUBELET_PORT} externally since it is used by kubelet"
        found += [
            invalid(f"spec.ports[{i}]", _KUBELET_PORT, why)
            for i, port in enumerate(ports)
            if port.get("port") == _KUBELET_PORT
        ]
    if kind in ("LoadBalancer", "NodePort") and headless:
        found.append(
            invalid("spec.clusterIPs[0]", "None", f"may not be set to 'None' for {kind} services")
        )
    if kind == "ExternalName":
        found += _external_name(spec)
    found += _ports(ports, kind)
    found += check_labels("spec.selector", spec.get("selector"))
    found += _affinity(spec)
    for i, ip in enumerate(spec.get("externalIPs") or ()):
        at = f"spec.externalIPs[{i}]"
        found += checked(at, ip, names.ip) or special_ip(at, ip)
    found += one_of("spec.type", kind, TYPES)
    found += _node_port_duplicates(ports)
    found += _balancer(spec, kind)
    if kind != "ExternalName":
        found += cluster_ips(spec)
    return found + _traffic(spec, kind)


def _external_name(spec: Body) -> list[Cause]:
    why = "may not be set for ExternalName services"
    found = []
    if spec.get("clusterIPs"):
        found.append(forbidden("spec.clusterIPs", why))
    elif spec.get("clusterIP"):
        found.append(forbidden("spec.clusterIP", why))
    found += [
        forbidden(f"spec.{name}", why) for name in ("ipFamilies", "ipFamilyPolicy")
        if spec.get(name)
    ]  # fmt: skip
    name = spec.get("externalName") or ""
    if not name:
        return [*found, required("spec.externalName")]
    return found + checked("spec.externalName", name.removesuffix("."), names.dns1123_subdomain)


def _ports(ports: Sequence[Body], kind: Any) -> list[Cause]:
    found: list[Cause] = []
    seen_names: set[str] = set()
    seen: set[tuple[Any, Any]] = set()
    for i, port in enumerate(ports):
        at, name = f"spec.ports[{i}]", port.get("name") or ""
        if not name and len(ports) > 1:
            found.append(required(f"{at}.name"))
        elif name:
            found += checked(f"{at}.name", name, names.dns1123_label)
            if name in seen_names:
                found.append(duplicate(f"{at}.name", name))
            seen_names.add(name)
        number = port.get("port") or 0
        found += [invalid(f"{at}.port", number, p) for p in names.port_number(number)]
        found += one_of(f"{at}.protocol", port.get("protocol"), PROTOCOLS)
        found += port_or_name(f"{at}.targetPort", port.get("targetPort"))
        if port.get("appProtocol"):
            found += checked(f"{at}.appProtocol", port["appProtocol"], names.qualified_name)
        if port.get("nodePort") and kind in ("ClusterIP", "ExternalName"):
            found.append(forbidden(f"{at}.nodePort", f"may not be used when `type` is '{kind}'"))
        key = (port.get("protocol"), port.get("port"))
        if key in seen:
            found.append(duplicate(at, {"protocol": key[0], "port": key[1]}))
        seen.add(key)
    return found


def _node_port_duplicates(ports: Sequence[Body]) -> list[Cause]:
    found: list[Cause] = []
    seen: set[tuple[Any, Any]] = set()
    for i, port in enumerate(ports):
        key = (port.get("protocol"), port.get("nodePort"))
        if key[1] and key in seen:
            found.append(duplicate(f"spec.ports[{i}].nodePort", key[1]))
        seen.add(key)
    return found


def _affinity(spec: Body) -> list[Cause]:
    affinity, config = spec.get("sessionAffinity"), spec.get("sessionAffinityConfig")
    at = "spec.sessionAffinityConfig"
    found = one_of("spec.sessionAffinity", affinity, ("ClientIP", "None"))
    if affinity == "None" and config:
        found.append(forbidden(at, "must not be set when session affinity is None"))
    if affinity != "ClientIP":
        return found
    why = "when session affinity type is ClientIP"
    if not config:
        return [*found, required(at, why)]
    if config.get("clientIP") is None:
        return [*found, required(f"{at}.clientIP", why)]
    seconds = config["clientIP"].get("timeoutSeconds")
    if seconds is None:
        return [*found, required(f"{at}.clientIP.timeoutSeconds", why)]
    if not 0 < seconds <= _DAY:
        text = f"must be greater than 0 and less than {_DAY}"
        found.append(invalid(f"{at}.clientIP.timeoutSeconds", seconds, text))
    return found


def _balancer(spec: Body, kind: Any) -> list[Cause]:
    """Fields of LoadBalancer services only."""
    found: list[Cause] = []
    ranges = spec.get("loadBalancerSourceRanges") or ()
    if ranges and kind != "LoadBalancer":
        found.append(forbidden("spec.LoadBalancerSourceRanges", _ONLY_BALANCER))
    for i, given in enumerate(ranges):
        found += checked(f"spec.LoadBalancerSourceRanges[{i}]", given.strip(), names.cidr)
    allocate, wanted = spec.get("allocateLoadBalancerNodePorts"), spec.get("loadBalancerClass")
    if kind == "LoadBalancer":
        if allocate is None:
            found.append(required("spec.allocateLoadBalancerNodePorts"))
        if wanted is not None:
            found += checked("spec.loadBalancerClass", wanted, names.qualified_name)
        return found
    if allocate is not None:
        found.append(forbidden("spec.allocateLoadBalancerNodePorts", _ONLY_BALANCER))
    if wanted is not None:
        found.append(forbidden("spec.loadBalancerClass", _ONLY_BALANCER))
    return found


def cluster_ips(spec: Body) -> list[Cause]:
    """clusterIP, clusterIPs, ipFamilies and ipFamilyPolicy against each other."""
    found: list[Cause] = []
    first, ips = spec.get("clusterIP") or "", spec.get("clusterIPs") or []
    at = "spec.clusterIPs"
    if first and not ips:
        found.append(required(at))
    elif first and ips[0] != first:
        found.append(invalid(at, ips, "first value must match `clusterIP`"))
    elif ips and not first:
        found.append(invalid(at, ips, "must be empty when `clusterIP` is not specified"))
    families = spec.get("ipFamilies") or []
    for i, family in enumerate(families):
        found += one_of(f"spec.ipFamilies[{i}]", family, FAMILIES)
        if family in families[:i]:
            found.append(duplicate(f"spec.ipFamilies[{i}]", family))
    found += one_of("spec.ipFamilyPolicy", spec.get("ipFamilyPolicy"), POLICIES, needed=False)
    bad = False
    for i, ip in enumerate(ips):
        if i == 0 and ip == "None":
            if len(ips) > 1:
                bad = True
                found.append(invalid(at, ips, "'None' must be the first and only value"))
            continue
        problems = checked(f"{at}[{i}]", ip, names.ip)
        bad = bad or bool(problems)
        found += problems
    if len(ips) > 2:
        found.append(invalid(at, ips, "may only hold up to 2 values"))
    if bad or (ips and ips[0] == "None"):
        return found
    return found + _families_of(ips, families)


def _families_of(ips: Sequence[str], families: Sequence[str]) -> list[Cause]:
    kinds = [f"IPv{ipaddress.ip_address(ip).version}" for ip in ips]
    if len(kinds) > 1 and len(set(kinds)) < len(kinds):
        text = "may specify no more than one IP for each IP family"
        return [invalid("spec.clusterIPs", list(ips), text)]
    return [
        invalid(
            f"spec.clusterIPs[{i}]", ips[i],
            f"expected an {families[i]} value as indicated by `ipFamilies[{i}]`",
        )
        for i, kind in enumerate(kinds)
        if i < len(families) and families[i] in FAMILIES and families[i] != kind
    ]  # fmt: skip


def _traffic(spec: Body, kind: Any) -> list[Cause]:
    found: list[Cause] = []
    policy = spec.get("externalTrafficPolicy")
    if is_external(spec):
        found += one_of("spec.externalTrafficPolicy", policy, ("Cluster", "Local"))
    elif policy:
        why = "may only be set for externally-accessible services"
        found.append(invalid("spec.externalTrafficPolicy", policy, why))
    health = spec.get("healthCheckNodePort") or 0
    at = "spec.healthCheckNodePort"
    if not needs_health_check(spec):
        if health:
            why = (
                "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is "
                "'Local'"
            )
            found.append(invalid(at, health, why))
    elif health:
        found += [invalid(at, health, p) for p in names.port_number(health)]
    else:
        found.append(required(at))
    inner = spec.get("internalTrafficPolicy")
    needed = kind in ("ClusterIP", "LoadBalancer", "NodePort")
    found += one_of("spec.internalTrafficPolicy", inner, ("Cluster", "Local"), needed=needed)
    spread = spec.get("trafficDistribution")
    if spread is not None:
        found += one_of("spec.trafficDistribution", spread, DISTRIBUTIONS)
    return found


def validate_update(new: Body, old: Body) -> list[Cause]:
    """An address, its family and the class of a load balancer stay once they are given."""
    after, before = new.get("spec") or {}, old.get("spec") or {}
    found: list[Cause] = []
    if "ExternalName" not in (after.get("type"), before.get("type")):
        found += _stable_addresses(after, before)
    if after.get("type") == before.get("type") == "LoadBalancer":
        mine, theirs = after.get("loadBalancerClass"), before.get("loadBalancerClass")
        if mine != theirs:
            found.append(invalid("spec.loadBalancerClass", mine, _ONCE))
    return found


def _stable_addresses(after: Body, before: Body) -> list[Cause]:
    found: list[Cause] = []
    mine, theirs = after.get("clusterIPs") or [], before.get("clusterIPs") or []
    at = "spec.clusterIPs"
    single = after.get("ipFamilyPolicy") == "SingleStack"
    if theirs:
        if not mine:
            found.append(invalid(f"{at}[0]", mine, "primary clusterIP can not be unset"))
        elif mine[0] != theirs[0]:
            found.append(invalid(f"{at}[0]", mine, _ONCE))
        if len(theirs) > 1 and len(mine) == 1 and not single:
            why = "must be set to 'SingleStack' when removing secondary clusterIP"
            found.append(invalid("spec.ipFamilyPolicy", after.get("ipFamilyPolicy"), why))
        elif len(theirs) > 1 and len(mine) > 1 and mine[1] != theirs[1]:
            found.append(invalid(f"{at}[1]", mine, _ONCE))
    if is_headless(after) and not after.get("selector"):
        return found
    families, were = after.get("ipFamilies") or [], before.get("ipFamilies") or []
    if were:
        if not families:
            why = "primary ipFamily can not be unset"
            found.append(invalid("spec.ipFamilies[0]", families, why))
        elif families[0] != were[0]:
            found.append(invalid("spec.ipFamilies[0]", families, _ONCE))
    return found


def validate_status(new: Body, _old: Body) -> list[Cause]:
    found: list[Cause] = []
    balancer = (new.get("status") or {}).get("loadBalancer") or {}
    at = "status.loadBalancer.ingress"
    ingress = balancer.get("ingress") or ()
    if ingress and (new.get("spec") or {}).get("type") != "LoadBalancer":
        found.append(forbidden(at, 'may only be used when `spec.type` is "LoadBalancer"'))
        return found
    for i, entry in enumerate(ingress):
        here = f"{at}[{i}]"
        ip, mode, host = entry.get("ip"), entry.get("ipMode"), entry.get("hostname")
        if ip:
            found += checked(f"{here}.ip", ip, names.ip)
            if mode is None:
                found.append(required(f"{here}.ipMode", "must be specified when `ip` is set"))
        elif mode is not None:
            found.append(forbidden(f"{here}.ipMode", "may not be specified when `ip` is not set"))
        if mode is not None:
            found += one_of(f"{here}.ipMode", mode, ("Proxy", "VIP"))
        if host:
            found += checked(f"{here}.hostname", host, names.dns1123_subdomain)
            if not names.ip(host):
                why = "must be a DNS name, not an IP address"
                found.append(invalid(f"{here}.hostname", host, why))
    return found
