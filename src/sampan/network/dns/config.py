"""Where other names are asked for: /etc/resolv.conf, and the ConfigMap ``kube-system/kube-dns`` in
the form Kubernetes documents for kube-dns (``stubDomains``, ``upstreamNameservers``). Pure."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sampan.network.dns import names

Server = tuple[str, int]  # address, port
_UPSTREAMS = 3  # as resolv.conf and kube-dns have it


@dataclass(frozen=True, slots=True)
class Config:
    """upstreams: for everything; stubs: lower-case wire name -> servers of that domain."""

    upstreams: tuple[Server, ...] = ()
    stubs: Mapping[bytes, tuple[Server, ...]] = field(default_factory=dict)

    def servers(self, name: bytes) -> tuple[Server, ...]:
        """Whom to ask for a name: the stub domain nearest to it, or the upstreams."""
        rest = name.lower()
        while True:
            if rest in self.stubs:
                return self.stubs[rest]
            if not rest[0]:
                return self.upstreams
            rest = rest[1 + rest[0] :]


def nameservers(resolv_conf: str) -> tuple[Server, ...]:
    """The first three of a resolv.conf; addresses of this host's own loopback mean nothing to a
    node and are left out."""
    found = []
    for line in resolv_conf.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            server = parse_server(words[1])
            if server is not None and not ipaddress.ip_address(server[0]).is_loopback:
                found.append(server)
    return tuple(found[:_UPSTREAMS])


def parse_server(text: str) -> Server | None:
    """``ip``, ``ip:port`` or ``[ip]:port``; None for anything else."""
    host, port = text.strip(), "53"
    if host.startswith("["):
        host, _, rest = host[1:].partition("]")
        port = rest.removeprefix(":") or port
    elif host.count(":") == 1:
        host, port = host.split(":")
    try:
        ip = ipaddress.ip_address(host)
        number = int(port)
    except ValueError:
        return None
    return (str(ip), number) if 0 < number < 65536 else None


def configured(data: Mapping[str, str], default: tuple[Server, ...]) -> tuple[Config, list[str]]:
    """(what the ConfigMap's data says, what is wrong with it). What is wrong is left out."""
    problems: list[str] = []
    upstreams = default
    listed = _json(data, "upstreamNameservers", list, problems)
    if listed:
        upstreams = _servers("upstreamNameservers", listed, problems)
        if len(upstreams) > _UPSTREAMS:
            problems.append(f"upstreamNameservers: only the first {_UPSTREAMS} are used")
            upstreams = upstreams[:_UPSTREAMS]
    stubs: dict[bytes, tuple[Server, ...]] = {}
    for domain, servers in (_json(data, "stubDomains", dict, problems) or {}).items():
        where = f"stubDomains[{domain}]"
        try:
            name = names.wire(domain.lower())
        except ValueError as e:
            problems.append(f"{where}: {e}")
            continue
        found = _servers(where, servers, problems) if isinstance(servers, list) else ()
        if found:
            stubs[name] = found
        else:
            problems.append(f"{where}: no servers")
    return Config(upstreams, stubs), problems


def _json(data: Mapping[str, str], key: str, kind: type, problems: list[str]) -> Any:
    text = data.get(key, "").strip()
    if not text:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        problems.append(f"{key}: not JSON")
        return None
    if not isinstance(value, kind):
        problems.append(f"{key}: not a JSON {'object' if kind is dict else 'array'}")
        return None
    return value


def _servers(where: str, listed: list[Any], problems: list[str]) -> tuple[Server, ...]:
    found = []
    for item in listed:
        server = parse_server(str(item))
        if server is None:
            problems.append(f"{where}: {item!r} is not an address with an optional port")
        else:
            found.append(server)
    return tuple(found)
