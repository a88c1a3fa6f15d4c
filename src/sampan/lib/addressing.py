"""Which addresses a cluster uses, by family: of pods, of Services, of nodes, and of what every node
answers itself. Pure.

Of each family, with the ranges that may be chosen in angle brackets:

    =================  ==========================  ============================
    what               IPv4                        IPv6
    =================  ==========================  ============================
    pods of node i     the i-th /24 of             the i-th /64 of
                       <10.42.0.0/16>              <fd00:42::/56>
    Services           <10.43.0.0/16>              <fd00:43::/112>
    node i             10.44.0.(i+1)               fd00:44::(i+1)
    the API's end      10.44.1.1                   fd00:44::1:1
    cluster DNS' end   10.44.1.2                   fd00:44::1:2
    gateway of pods    169.254.1.1                 fe80::1
    =================  ==========================  ============================

The first address of the Services' range is the API's, the tenth cluster DNS'.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

IPV4, IPV6 = "IPv4", "IPv6"
_OF_OPTION = {"ipv4": IPV4, "ipv6": IPV6}
_PODS = {IPV4: "10.42.0.0/16", IPV6: "fd00:42::/56"}
_SERVICES = {IPV4: "10.43.0.0/16", IPV6: "fd00:43::/112"}
_NODES = {IPV4: "10.44.0.0/16", IPV6: "fd00:44::/64"}  # nodes, switch, the ends of API and DNS
_LINKS = {IPV4: "10.44.0.0/24", IPV6: "fd00:44::/112"}  # of them, nodes and the switch
GATEWAYS = {IPV4: "169.254.1.1", IPV6: "fe80::1"}
_OF_A_NODE = {IPV4: 24, IPV6: 64}  # length of the prefix of a node's pods
# Upstream hands out at most 2**20 addresses of Services; fewer than 16 leave DNS none.
_SERVICE_BITS = range(4, 21)
_DNS = 10
_END_OF_API, _END_OF_DNS = 1, 2  # behind the links' range


def family_of(address: str) -> str:
    """The family of an address or a range, by its looks alone."""
    return IPV6 if ":" in address else IPV4


@dataclass(frozen=True, slots=True)
class Addresses:
    """The addresses of one family. pods, services: the ranges; everything else follows."""

    pods: str
    services: str

    @property
    def family(self) -> str:
        return family_of(self.pods)

    @property
    def host_bits(self) -> int:
        """The prefix length of one address."""
        return 32 if self.family == IPV4 else 128

    @property
    def links(self) -> str:
        """Of nodes and of the switch between them."""
        return _LINKS[self.family]

    @property
    def nodes(self) -> str:
        """All that is neither of pods nor of Services."""
        return _NODES[self.family]

    @property
    def gateway(self) -> str:
        """The next hop of every pod; every node answers for it."""
        return GATEWAYS[self.family]

    @property
    def switch(self) -> str:
        return _nth(self.links, 1)

    @property
    def api(self) -> str:
        """Of the Service ``kubernetes``."""
        return _nth(self.services, 1)

    @property
    def dns(self) -> str:
        """Of the Service ``kube-dns``."""
        return _nth(self.services, _DNS)

    @property
    def api_end(self) -> str:
        """Where the Service ``kubernetes`` leads to."""
        return _nth(self.links, ipaddress.ip_network(self.links).num_addresses + _END_OF_API)

    @property
    def dns_end(self) -> str:
        """Where the Service ``kube-dns`` leads to."""
        return _nth(self.links, ipaddress.ip_network(self.links).num_addresses + _END_OF_DNS)

    @property
    def most_nodes(self) -> int:
        """How many nodes there is room for."""
        network = ipaddress.ip_network(self.pods)
        return int((1 << _OF_A_NODE[self.family] - network.prefixlen) - 1)

    def node(self, index: int) -> str:
        """The address of node *index*, from 1 on."""
        return _nth(self.links, index + 1)

    def pods_of(self, index: int) -> str:
        """The range of the pods of node *index*, from 1 on."""
        network = ipaddress.ip_network(self.pods)
        length = _OF_A_NODE[self.family]
        first = int(network.network_address) + (index << self.host_bits - length)
        return f"{type(network.network_address)(first)}/{length}"


def _nth(network: str, number: int) -> str:
    return str(ipaddress.ip_network(network).network_address + number)


@dataclass(frozen=True, slots=True)
class Plan:
    """All addresses of a cluster; the primary family first."""

    of: tuple[Addresses, ...]

    @property
    def primary(self) -> Addresses:
        return self.of[0]

    @property
    def families(self) -> tuple[str, ...]:
        return tuple(a.family for a in self.of)

    @property
    def pods(self) -> tuple[str, ...]:
        return tuple(a.pods for a in self.of)

    @property
    def services(self) -> tuple[str, ...]:
        return tuple(a.services for a in self.of)

    def pods_of(self, index: int) -> tuple[str, ...]:
        return tuple(a.pods_of(index) for a in self.of)

    def node(self, index: int) -> tuple[str, ...]:
        return tuple(a.node(index) for a in self.of)


class Unusable(ValueError):
    """The ranges asked for cannot be used; the message is one line for people."""


def plan(families: str = "", pods: str = "", services: str = "", *, last: int = 1) -> Plan:
    """The plan that ``--ip-families``, ``--cluster-cidr`` and ``--service-cidr`` ask for, each a
    list with commas or ''. last: the highest index of a node. Raises Unusable."""
    asked = _families(families)
    given = {"--cluster-cidr": _networks("--cluster-cidr", pods),
             "--service-cidr": _networks("--service-cidr", services)}  # fmt: skip
    order = asked or next((tuple(found) for found in given.values() if found), (IPV4,))
    for option, found in given.items():
        if not found:
            continue
        if {*found} != {*order}:
            raise Unusable(f"{option} must have one range of each of {_names(order)}")
        if tuple(found) != order:
            raise Unusable(f"{option}: the ranges must be in the order {_names(order)}")
    made = Plan(tuple(
        Addresses(given["--cluster-cidr"].get(f, _PODS[f]),
                  given["--service-cidr"].get(f, _SERVICES[f]))
        for f in order
    ))  # fmt: skip
    for addresses in made.of:
        _check(addresses, last)
    return made


def _families(text: str) -> tuple[str, ...]:
    found = [w.strip().lower() for w in text.split(",")] if text else []
    if any(w not in _OF_OPTION for w in found) or len({*found}) < len(found):
        raise Unusable(
            f"--ip-families must be ipv4, ipv6, or both in the order of preference, not {text!r}"
        )
    return tuple(_OF_OPTION[w] for w in found)


def _names(families: Iterable[str]) -> str:
    return ", ".join(families)


def _networks(option: str, text: str) -> Mapping[str, str]:
    """Ranges by family, in the order given."""
    found: dict[str, str] = {}
    for word in (w.strip() for w in text.split(",")) if text else ():
        try:
            network = ipaddress.ip_network(word)
        except ValueError:
            raise Unusable(f"{option}: {word!r} is not a range such as {_PODS[IPV4]}") from None
        if "/" not in word:
            raise Unusable(f"{option}: {word!r} is an address; a range has a /length")
        if family_of(word) in found:
            raise Unusable(f"{option}: more than one range of {family_of(word)}")
        found[family_of(word)] = str(network)
    return found


def _check(a: Addresses, last: int) -> None:
    pods, services = ipaddress.ip_network(a.pods), ipaddress.ip_network(a.services)
    if a.most_nodes < last:
        raise Unusable(
            f"--cluster-cidr: {a.pods} has no room for {last} node(s), each of which takes a "
            f"/{_OF_A_NODE[a.family]} (the first one stays free)"
        )
    if a.host_bits - services.prefixlen not in _SERVICE_BITS:
        smallest, largest = (a.host_bits - b for b in (_SERVICE_BITS[0], _SERVICE_BITS[-1]))
        raise Unusable(
            f"--service-cidr: {a.services} must have a length from /{largest} to /{smallest}"
        )
    if _overlap(pods, services):
        raise Unusable(f"--cluster-cidr {a.pods} and --service-cidr {a.services} overlap")
    for option, mine in (("--cluster-cidr", pods), ("--service-cidr", services)):
        if _overlap(mine, ipaddress.ip_network(a.nodes)):
            raise Unusable(f"{option}: {mine} overlaps {a.nodes}, which the nodes use")
        first = mine.network_address
        if first.is_loopback or first.is_link_local or first.is_multicast or first.is_unspecified:
            raise Unusable(f"{option}: {mine} is not a range for pods or Services")


def _overlap(a: Network, b: Network) -> bool:
    return a.version == b.version and a.overlaps(b)


DEFAULT = plan()


class NoneFree(Exception):
    """All addresses of a range are taken."""


@dataclass(slots=True)
class Pool:
    """The addresses of one node's pods in one family. What was given back is given again as late
    as can be."""

    network: str
    _taken: set[str] = field(default_factory=set)
    _next: int = 2
    _LARGEST = 1 << 16

    def take(self) -> str:
        """Raises NoneFree."""
        network = ipaddress.ip_network(self.network)
        # Not the network's own, not the first (a router's by custom), not a broadcast address.
        count = min(network.num_addresses, self._LARGEST) - 3
        for step in range(count):
            number = 2 + (self._next - 2 + step) % count
            address = str(network.network_address + number)
            if address not in self._taken:
                self._taken.add(address)
                self._next = 2 + (number - 1) % count
                return address
        raise NoneFree(self.network)

    def hold(self, addresses: Iterable[str]) -> None:
        """These are in use already."""
        self._taken.update(addresses)

    def give_back(self, addresses: Iterable[str]) -> None:
        self._taken.difference_update(addresses)


def take_all(pools: Sequence[Pool]) -> tuple[str, ...]:
    """One address of each of *pools*, or of none. Raises NoneFree."""
    found: list[str] = []
    try:
        for pool in pools:
            found.append(pool.take())
    except NoneFree:
        for pool in pools:
            pool.give_back(found)
        raise
    return tuple(found)
