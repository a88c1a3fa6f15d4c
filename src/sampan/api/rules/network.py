"""Validation of Endpoints and EndpointSlices."""

from __future__ import annotations

import ipaddress
from typing import Any

from sampan.api.errors import Cause
from sampan.api.obj import Body
from sampan.api.rules.containers import PROTOCOLS
from sampan.api.rules.field import (
    checked,
    duplicate,
    immutable,
    invalid,
    one_of,
    required,
    too_many,
)
from sampan.api.rules.meta import check_labels
from sampan.lib import names


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
        ("in the link-local multicast range (224.0.0.0/24, ff02::/10)", _is_link_multicast(ip)),
    ):
        if wrong:
            suffix = f"may not be {what}"
            if what == "unspecified":
                suffix = f"may not be unspecified ({text})"
            return [invalid(path, text, suffix)]
    return []


def _is_link_multicast(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    network = "224.0.0.0/24" if ip.version == 4 else "ff02::/16"
    return ip in ipaddress.ip_network(network)


def _endpoint_port(path: str, port: Body, *, named: bool) -> list[Cause]:
    found: list[Cause] = []
    name = port.get("name") or ""
    if named and not name:
        found.append(required(f"{path}.name"))
    elif name:
        found += checked(f"{path}.name", name, names.dns1123_label)
    number = port.get("port") or 0
    found += [invalid(f"{path}.port", number, p) for p in names.port_number(number)]
    found += one_of(f"{path}.protocol", port.get("protocol"), PROTOCOLS)
    if port.get("appProtocol") is not None:
        found += checked(f"{path}.appProtocol", port["appProtocol"], names.qualified_name)
    return found


def endpoint_slice(body: Body) -> list[Cause]:
    kind = body.get("addressType")
    found = one_of("addressType", kind, ("FQDN", "IPv4", "IPv6"))
    endpoints_, ports = body.get("endpoints") or [], body.get("ports") or []
    if len(endpoints_) > 1000:
        found.append(too_many("endpoints", len(endpoints_), 1000))
    else:
        for i, endpoint in enumerate(endpoints_):
            found += _slice_endpoint(f"endpoints[{i}]", endpoint, kind)
    if len(ports) > 20000:
        return [*found, too_many("ports", len(ports), 20000)]
    seen: set[str] = set()
    for i, port in enumerate(ports):
        at, name = f"ports[{i}]", port.get("name") or ""
        if name in seen:
            found.append(duplicate(f"{at}.name", name))
        seen.add(name)
        if name:
            found += checked(f"{at}.name", name, names.dns1123_label)
        found += one_of(f"{at}.protocol", port.get("protocol"), PROTOCOLS)
        if port.get("appProtocol") is not None:
            found += checked(f"{at}.appProtocol", port["appProtocol"], names.qualified_name)
    return found


def _hints(at: str, hints: Body) -> list[Cause]:
    """Whom an endpoint is for: at most eight zones and eight nodes, each once."""
    found: list[Cause] = []
    for field, check in (("forNodes", names.dns1123_subdomain), ("forZones", names.label_value)):
        given = hints.get(field) or []
        if len(given) > 8:
            found.append(too_many(f"{at}.{field}", len(given), 8))
            continue
        seen: set[str] = set()
        for i, entry in enumerate(given):
            path, name = f"{at}.{field}[{i}].name", entry.get("name") or ""
            if name in seen:
                found.append(duplicate(path, name))
            seen.add(name)
            found += checked(path, name, check)
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
    topology, where = endpoint.get("deprecatedTopology") or {}, f"{at}.deprecatedTopology"
    if len(topology) > 16:
        found.append(too_many(where, len(topology), 16))
    found += check_labels(where, topology)
    if endpoint.get("hostname") is not None:
        found += checked(f"{at}.hostname", endpoint["hostname"], names.dns1123_label)
    if endpoint.get("hints"):
        found += _hints(f"{at}.hints", endpoint["hints"])
    return found


def endpoint_slice_update(new: Body, old: Body) -> list[Cause]:
    return immutable("addressType", new.get("addressType"), old.get("addressType"))
