"""Validation of Services, Endpoints and EndpointSlices."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any

from sampan.api.errors import Cause
from sampan.api.obj import Body
from sampan.api.rules.containers import PROTOCOLS, port_or_name
from sampan.api.rules.field import (
    checked,
    duplicate,
    forbidden,
    immutable,
    in_range,
    invalid,
    one_of,
    required,
    too_many,
)
from sampan.api.rules.meta import check_labels
from sampan.lib import names

_TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_DAY = 86400


def service(body: Body) -> list[Cause]:
    spec: Body = body.get("spec") or {}
    kind = spec.get("type")
    headless = spec.get("clusterIP") == "None"
    found: list[Cause] = []
    ports = spec.get("ports") or []
    if not ports and not headless and kind != "ExternalName":
        found.append(required("spec.ports"))
    if kind == "LoadBalancer":
        for i, port in enumerate(ports):
            if port.get("port") == 10250:
                found.append(
                    invalid(
                        f"spec.ports[{i}]", port["port"],
                        "may not expose port 10250 externally since it is used by kubelet",
                    )
                )  # fmt: skip
    if kind in ("LoadBalancer", "NodePort") and headless:
        found.append(
            invalid("spec.clusterIPs[0]", "None", f"may not be set to 'None' for {kind} services")
        )
    if kind == "ExternalName":
        found += _external_name(spec)
    found += _ports(ports, kind, headless=headless)
    found += check_labels("spec.selector", spec.get("selector"))
    affinity = spec.get("sessionAffinity")
    found += one_of("spec.sessionAffinity", affinity, ("ClientIP", "None"))
    found += _affinity_config(spec, affinity)
    found += one_of("spec.type", kind, _TYPES)
    if kind != "ExternalName":
        found += _cluster_ips(spec)
    for i, ip in enumerate(spec.get("externalIPs") or ()):
        found += checked(f"spec.externalIPs[{i}]", ip, names.ip)
    return found + _traffic(spec, kind)


def _external_name(spec: Body) -> list[Cause]:
    found: list[Cause] = []
    why = "may not be set for ExternalName services"
    if spec.get("clusterIPs"):
        found.append(forbidden("spec.clusterIPs", why))
    elif spec.get("clusterIP"):
        found.append(forbidden("spec.clusterIP", why))
    name = spec.get("externalName") or ""
    if not name:
        found.append(required("spec.externalName"))
    else:
        trimmed = name.removesuffix(".")
        found += checked("spec.externalName", trimmed, names.dns1123_subdomain)
    return found


def _ports(ports: Sequence[Body], kind: Any, *, headless: bool) -> list[Cause]:
    found: list[Cause] = []
    seen_names: set[str] = set()
    seen_ports: set[tuple[Any, Any]] = set()
    seen_nodes: set[tuple[Any, Any]] = set()
    for i, port in enumerate(ports):
        at, name = f"spec.ports[{i}]", port.get("name") or ""
        if not name and len(ports) > 1:
            found.append(required(f"{at}.name"))
        elif name:
            found += checked(f"{at}.name", name, names.dns1123_label)
            if name in seen_names:
                found.append(duplicate(f"{at}.name", name))
            seen_names.add(name)
        found += [
            invalid(f"{at}.port", port.get("port") or 0, p)
            for p in names.port_number(port.get("port") or 0)
        ]
        found += one_of(f"{at}.protocol", port.get("protocol"), PROTOCOLS)
        found += port_or_name(f"{at}.targetPort", port.get("targetPort"))
        key = (port.get("protocol"), port.get("port"))
        if key in seen_ports:
            found.append(duplicate(at, {"protocol": key[0], "port": key[1]}))
        seen_ports.add(key)
        node = port.get("nodePort") or 0
        if node:
            if kind in ("ClusterIP", "ExternalName"):
                found.append(
                    forbidden(f"{at}.nodePort", f"may not be used when `type` is '{kind}'")
                )
            if (port.get("protocol"), node) in seen_nodes:
                found.append(duplicate(f"{at}.nodePort", node))
            seen_nodes.add((port.get("protocol"), node))
    return found


def _affinity_config(spec: Body, affinity: Any) -> list[Cause]:
    config = spec.get("sessionAffinityConfig")
    path = "spec.sessionAffinityConfig"
    if affinity == "ClientIP" and config:
        client = config.get("clientIP") or {}
        if client.get("timeoutSeconds") is None:
            return [
                required(
                    f"{path}.clientIP",
                    "when session affinity type is ClientIP",
                )
            ]
        return in_range(f"{path}.clientIP.timeoutSeconds", client["timeoutSeconds"], 1, _DAY)
    if affinity == "None" and config:
        return [forbidden(path, "must not be set when session affinity is None")]
    return []


def _cluster_ips(spec: Body) -> list[Cause]:
    found: list[Cause] = []
    ips = spec.get("clusterIPs") or []
    if spec.get("clusterIP") and ips and ips[0] != spec["clusterIP"]:
        found.append(invalid("spec.clusterIPs", ips, "first value must match `clusterIP`"))
    if len(ips) > 2:
        found.append(too_many("spec.clusterIPs", len(ips), 2))
    for i, ip in enumerate(ips):
        at = f"spec.clusterIPs[{i}]"
        if i == 0 and ip == "None":
            continue
        if i > 0 and ip == "None":
            found.append(invalid(at, ip, "must be a valid IP address, (e.g. 10.9.8.7 or "
                                 "2001:db8::ffff)"))  # fmt: skip
            continue
        if i == 1 and ips[0] == "None":
            found.append(invalid("spec.clusterIPs", ips, "'None' must be the first and only value"))
        found += checked(at, ip, names.ip)
    families = spec.get("ipFamilies") or []
    for i, family in enumerate(families):
        found += one_of(f"spec.ipFamilies[{i}]", family, ("IPv4", "IPv6"))
        if family in families[:i]:
            found.append(duplicate(f"spec.ipFamilies[{i}]", family))
    policy = spec.get("ipFamilyPolicy")
    supported = ("PreferDualStack", "RequireDualStack", "SingleStack")
    return found + one_of("spec.ipFamilyPolicy", policy, supported, needed=False)


def _traffic(spec: Body, kind: Any) -> list[Cause]:
    found: list[Cause] = []
    external = kind in ("LoadBalancer", "NodePort") or (
        kind == "ClusterIP" and bool(spec.get("externalIPs"))
    )
    policy = spec.get("externalTrafficPolicy")
    if not external and policy:
        found.append(
            invalid(
                "spec.externalTrafficPolicy", policy,
                "may only be set for externally-accessible services",
            )
        )  # fmt: skip
    elif external:
        found += one_of("spec.externalTrafficPolicy", policy, ("Cluster", "Local"))
    inner = spec.get("internalTrafficPolicy")
    found += one_of("spec.internalTrafficPolicy", inner, ("Cluster", "Local"), needed=False)
    if kind != "LoadBalancer":
        for name in ("loadBalancerClass", "allocateLoadBalancerNodePorts"):
            if spec.get(name) is not None:
                found.append(forbidden(f"spec.{name}", "may only be used when `type` is "
                                       "'LoadBalancer'"))  # fmt: skip
        if spec.get("loadBalancerSourceRanges"):
            found.append(
                forbidden(
                    "spec.LoadBalancerSourceRanges",
                    "may only be used when `type` is 'LoadBalancer'",
                )
            )
    return found


def service_update(new: Body, old: Body) -> list[Cause]:
    """A cluster address once given stays while the type has one."""
    after, before = new.get("spec") or {}, old.get("spec") or {}
    if "ExternalName" in (after.get("type"), before.get("type")):
        return []
    mine, theirs = after.get("clusterIPs") or [], before.get("clusterIPs") or []
    if theirs and mine and mine[0] != theirs[0]:
        return [invalid("spec.clusterIPs[0]", mine, "may not change once set")]
    if theirs and not mine:
        return [invalid("spec.clusterIPs[0]", mine, "primary clusterIP can not be unset")]
    return []


def endpoints(body: Body) -> list[Cause]:
    found: list[Cause] = []
    for i, subset in enumerate(body.get("subsets") or ()):
        at = f"subsets[{i}]"
        ready, waiting = subset.get("addresses") or [], subset.get("notReadyAddresses") or []
        if not ready and not waiting:
            found.append(required(at, "must specify `addresses` or `notReadyAddresses`"))
        for kind, addresses in (("addresses", ready), ("notReadyAddresses", waiting)):
            for j, address in enumerate(addresses):
                found += _address(f"{at}.{kind}[{j}]", address)
        ports = subset.get("ports") or []
        for j, port in enumerate(ports):
            found += _endpoint_port(f"{at}.ports[{j}]", port, named=len(ports) > 1)
    return found


def _address(path: str, address: Body) -> list[Cause]:
    ip = address.get("ip") or ""
    found = checked(f"{path}.ip", ip, names.ip)
    if address.get("hostname"):
        found += checked(f"{path}.hostname", address["hostname"], names.dns1123_label)
    if address.get("nodeName"):
        found += checked(f"{path}.nodeName", address["nodeName"], names.dns1123_subdomain)
    return found or special_ip(f"{path}.ip", ip)


def special_ip(path: str, text: str) -> list[Cause]:
    """Addresses no endpoint may have."""
    ip = ipaddress.ip_address(text)
    for what, wrong in (
        ("unspecified", ip.is_unspecified),
        ("in the loopback range (127.0.0.0/8, ::1/128)", ip.is_loopback),
        ("in the link-local range (169.254.0.0/16, fe80::/10)", ip.is_link_local),
        ("in the link-local multicast range (224.0.0.0/24, ff02::/10)", ip.is_multicast),
    ):
        if wrong:
            suffix = f"may not be {what}"
            if what == "unspecified":
                suffix = f"may not be unspecified ({text})"
            return [invalid(path, text, suffix)]
    return []


def _endpoint_port(path: str, port: Body, *, named: bool) -> list[Cause]:
    found: list[Cause] = []
    name = port.get("name") or ""
    if named and not name:
        found.append(required(f"{path}.name"))
    elif name:
        found += checked(f"{path}.name", name, names.dns1123_label)
    number = port.get("port") or 0
    found += [invalid(f"{path}.port", number, p) for p in names.port_number(number)]
    return found + one_of(f"{path}.protocol", port.get("protocol"), PROTOCOLS)


def endpoint_slice(body: Body) -> list[Cause]:
    kind = body.get("addressType")
    found = one_of("addressType", kind, ("FQDN", "IPv4", "IPv6"))
    endpoints_, ports = body.get("endpoints") or [], body.get("ports") or []
    if len(endpoints_) > 1000:
        found.append(too_many("endpoints", len(endpoints_), 1000))
    for i, endpoint in enumerate(endpoints_):
        found += _slice_endpoint(f"endpoints[{i}]", endpoint, kind)
    if len(ports) > 20000:
        found.append(too_many("ports", len(ports), 20000))
    seen: set[str] = set()
    for i, port in enumerate(ports):
        at, name = f"ports[{i}]", port.get("name") or ""
        if name in seen:
            found.append(duplicate(f"{at}.name", name))
        seen.add(name)
        if name:
            found += checked(f"{at}.name", name, names.dns1123_label)
        found += one_of(f"{at}.protocol", port.get("protocol"), PROTOCOLS)
    return found


def _slice_endpoint(at: str, endpoint: Body, kind: Any) -> list[Cause]:
    found: list[Cause] = []
    addresses = endpoint.get("addresses") or []
    if not addresses:
        found.append(required(f"{at}.addresses", "must contain at least 1 address"))
    if len(addresses) > 100:
        found.append(too_many(f"{at}.addresses", len(addresses), 100))
    for i, address in enumerate(addresses):
        path = f"{at}.addresses[{i}]"
        if kind == "FQDN":
            found += checked(path, address, names.dns1123_subdomain)
            continue
        problems = checked(path, address, names.ip)
        if not problems:
            version = ipaddress.ip_address(address).version
            if kind in ("IPv4", "IPv6") and f"IPv{version}" != kind:
                problems.append(invalid(path, address, f"must be an {kind} address"))
            else:
                problems += special_ip(path, address)
        found += problems
    if endpoint.get("nodeName"):
        found += checked(f"{at}.nodeName", endpoint["nodeName"], names.dns1123_subdomain)
    if endpoint.get("hostname"):
        found += checked(f"{at}.hostname", endpoint["hostname"], names.dns1123_label)
    return found


def endpoint_slice_update(new: Body, old: Body) -> list[Cause]:
    return immutable("addressType", new.get("addressType"), old.get("addressType"))
