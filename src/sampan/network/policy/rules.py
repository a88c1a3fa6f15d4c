"""What one node's kernel holds for the policies: compiled from a view, written as nftables text,
and the difference between two states. Pure.

The table ``sampan-policy`` belongs to this module alone; it holds both families. A pod that some
policy isolates has an element in the map of that direction, which leads to a chain: what may pass
returns, the rest is dropped at its end. Chains and sets are named after their content, so pods that
are treated the same share them, and a change never edits a chain.

Only first packets are judged, after DNAT, at priority 0 of ``forward``; and of ``input``, for the
addresses of cluster DNS and the API, which live on every node. The node itself is always allowed,
and so is what IPv6 needs to find its neighbours.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from sampan.lib.addressing import IPV4, IPV6, family_of
from sampan.network.policy import judge
from sampan.network.policy.model import (
    EGRESS,
    HIGHEST,
    INGRESS,
    Block,
    Network,
    Peer,
    Pod,
    Pods,
    Policy,
    Port,
    Rule,
    View,
)

TABLE = "sampan-policy"


@dataclass(frozen=True, slots=True)
class _Words:
    """What the same things are called in one family. suffix: of the names of maps and sets."""

    ip: str
    address: str
    suffix: str

    @property
    def places(self) -> str:
        return f"{self.address} . inet_service"


_WORDS = {IPV4: _Words("ip", "ipv4_addr", ""), IPV6: _Words("ip6", "ipv6_addr", "6")}
_FAMILIES = (*_WORDS,)
# Neighbour and router discovery and multicast listeners (RFC 4861, RFC 3810): never judged.
_DISCOVERY = (
    "nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, "
    "mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report"
)
_SIDE = {INGRESS: "saddr", EGRESS: "daddr"}


class Alias(NamedTuple):
    """An address the node itself answers at, judged as the endpoint behind it."""

    ip: str
    protocol: str
    port: int
    endpoint: str
    target: int


@dataclass(frozen=True, slots=True)
class Facts:
    """Of one node. own: addresses at which it is reached as itself."""

    node: str
    own: tuple[str, ...]
    aliases: tuple[Alias, ...] = ()

    @property
    def families(self) -> tuple[str, ...]:
        """Those in which pods are treated at all."""
        return tuple(f for f in _FAMILIES if any(family_of(ip) == f for ip in self.own))


@dataclass(frozen=True, slots=True)
class Match:
    """One line of a chain: what it holds of passes (or, *drop*, does not). Empty fields hold for
    everything. pods: the name of a set of addresses; places: of a set of addresses with ports.
    family: of pods and places."""

    direction: str
    pods: str = ""
    block: Block | None = None
    places: str = ""
    protocol: str = ""
    low: int = 0
    high: int = HIGHEST
    drop: bool = False
    family: str = IPV4

    def text(self) -> str:
        side = _SIDE[self.direction]
        ip = _WORDS[self.family].ip
        parts = []
        if self.pods:
            parts.append(f"{ip} {side} @{self.pods}")
        if self.block is not None:
            its = _WORDS[f"IPv{self.block.network.version}"].ip
            parts.append(f"{its} {side} {self.block.network}")
            if self.block.excepted:
                parts.append(f"{its} {side} != {{ {', '.join(map(str, self.block.excepted))} }}")
        if self.places:
            parts.append(f"{ip} daddr . {self.protocol} dport @{self.places}")
        elif self.protocol and (self.low, self.high) == (0, HIGHEST):
            parts.append(f"meta l4proto {self.protocol}")
        elif self.protocol:
            span = str(self.low) if self.low == self.high else f"{self.low}-{self.high}"
            parts.append(f"{self.protocol} dport {span}")
        return " ".join([*parts, "drop" if self.drop else "return"])


Chain = tuple[Match, ...]


@dataclass(slots=True)
class State:
    """What a kernel holds. sets: name -> (type, elements); chains: name -> lines; isolated:
    direction -> address -> chain; hairpins: addresses that may always talk to themselves."""

    sets: dict[str, tuple[str, frozenset[str]]] = field(default_factory=dict)
    chains: dict[str, Chain] = field(default_factory=dict)
    isolated: dict[str, dict[str, str]] = field(default_factory=lambda: {INGRESS: {}, EGRESS: {}})

    @property
    def hairpins(self) -> frozenset[str]:
        return frozenset(self.isolated[INGRESS]) | frozenset(self.isolated[EGRESS])


def compile_(view: View, facts: Facts) -> State:
    """The state of one node for *view*."""
    return _Compiler(view, facts).state()


class _Compiler:
    """Pods of the same namespace, labels and named ports are treated alike, so they are asked
    once for all."""

    def __init__(self, view: View, facts: Facts) -> None:
        self._view = view
        self._facts = facts
        self._state = State()
        self._members: dict[Pods, list[Pod]] = {}
        self._chains: dict[object, str] = {}
        self._alike: dict[object, list[Pod]] = {}
        for pod in view.pods if view.policies else ():
            if pod.ips:
                kind = (pod.namespace, frozenset(pod.labels.items()), pod.ports)
                self._alike.setdefault(kind, []).append(pod)

    def state(self) -> State:
        by_namespace: dict[str, list[Policy]] = {}
        for policy in self._view.policies:
            by_namespace.setdefault(policy.namespace, []).append(policy)
        for pods in self._alike.values():
            ips = [ip for p in pods if p.node == self._facts.node for ip in p.ips
                   if family_of(ip) in self._facts.families]  # fmt: skip
            for direction in (INGRESS, EGRESS) if ips else ():
                mine = by_namespace.get(pods[0].namespace, ())
                found = [p for p in mine if p.selects(pods[0], direction)]
                if found:
                    name = self._chain(pods[0], found, direction)
                    self._state.isolated[direction].update(dict.fromkeys(ips, name))
        return self._state

    def _chain(self, pod: Pod, policies: list[Policy], direction: str) -> str:
        """The chain of all pods these policies treat alike."""
        key = (direction, tuple((p.namespace, p.name) for p in policies), pod.ports)
        name = self._chains.get(key)
        if name is None:
            lines: dict[Match, None] = {}
            if direction == EGRESS:
                lines.update(dict.fromkeys(self._aliases(policies)))
            for policy in policies:
                for rule in policy.rules(direction):
                    lines.update(dict.fromkeys(self._lines(rule, pod, direction)))
            chain = tuple(lines)
            name = self._chains[key] = "c-" + _digest(direction, *(m.text() for m in chain))
            self._state.chains[name] = chain
        return name

    def _aliases(self, policies: list[Policy]) -> Iterator[Match]:
        by_ip = {ip: p for p in self._view.pods for ip in p.ips}
        for a in self._facts.aliases:
            flow = judge.Flow("", a.endpoint, a.protocol, a.target)
            out = judge.lets_out(policies, flow, by_ip.get(a.endpoint), self._view.namespaces)
            block = Block(_host(a.ip))
            yield Match(EGRESS, block=block, protocol=a.protocol, low=a.port, high=a.port,
                        drop=not out)  # fmt: skip

    def _lines(self, rule: Rule, pod: Pod, direction: str) -> Iterator[Match]:
        peers: Iterable[Peer | None] = (None,) if rule.peers is None else rule.peers
        ports: Iterable[Port | None] = (None,) if rule.ports is None else rule.ports
        for peer in peers:
            for port in ports:
                if port is not None and port.name and direction == EGRESS:
                    yield from self._named(peer, port)
                else:
                    yield from self._plain(peer, port, pod, direction)

    def _plain(
        self, peer: Peer | None, port: Port | None, pod: Pod, direction: str
    ) -> Iterator[Match]:
        spans = [(0, HIGHEST)] if port is None else [(port.low, port.high)]
        if port is not None and port.name:
            spans = [(n, n) for n in sorted({*pod.numbers(port.name, port.protocol)})]
        protocol = "" if port is None else port.protocol
        sides: list[tuple[str, str]] = [("", IPV4)]
        if isinstance(peer, Pods):
            sides = [(self._pods(peer, f), f) for f in self._facts.families]
        block = peer if isinstance(peer, Block) else None
        for pods, family in sides:
            for low, high in spans:
                yield Match(direction, pods, block, "", protocol, low, high, family=family)

    def _pods(self, peer: Pods, family: str) -> str:
        """The set of their addresses. Its name is the selector's: its members change, the chain
        does not."""
        words = _WORDS[family]
        ips = (ip for p in self._of(peer) for ip in p.ips if family_of(ip) == family)
        return self._set(f"p{words.suffix}-" + _digest(repr(peer)), words.address, ips)

    def _named(self, peer: Peer | None, port: Port) -> Iterator[Match]:
        """A named port is each pod's own, so the places are listed."""
        found = self._view.pods if not isinstance(peer, Pods) else self._of(peer)
        for family in self._facts.families:
            places = [
                f"{ip} . {number}"
                for p in found
                for ip in p.ips
                if family_of(ip) == family and (not isinstance(peer, Block) or peer.holds(ip))
                for number in p.numbers(port.name, port.protocol)
            ]
            words = _WORDS[family]
            name = f"n{words.suffix}-" + _digest(repr(peer), port.protocol, port.name)
            set_ = self._set(name, words.places, places)
            yield Match(EGRESS, places=set_, protocol=port.protocol, family=family)

    def _of(self, peer: Pods) -> list[Pod]:
        found = self._members.get(peer)
        if found is None:
            found = [
                p
                for pods in self._alike.values()
                if peer.holds(pods[0], self._view.namespaces)
                for p in pods
            ]
            self._members[peer] = found
        return found

    def _set(self, name: str, kind: str, elements: Iterable[str]) -> str:
        if name not in self._state.sets:
            self._state.sets[name] = (kind, frozenset(elements))
        return name


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _host(ip: str) -> Network:
    return ipaddress.ip_network(ip)


# -- text ------------------------------------------------------------------------------------------


def skeleton(facts: Facts) -> str:
    """The table without anything in it."""
    words = [_WORDS[f] for f in facts.families]
    text = ""
    for w in words:
        text += (
            f"    map ingress{w.suffix} {{ type {w.address} : verdict; }}\n"
            f"    map egress{w.suffix} {{ type {w.address} : verdict; }}\n"
            f"    set hairpins{w.suffix} {{ type {w.address} . {w.address}; }}\n"
        )
    for direction, side in (("ingress", "daddr"), ("egress", "saddr")):
        lines = [f"{w.ip} {side} vmap @{direction}{w.suffix}" for w in words]
        text += _chain(f"check-{direction}", *lines)
    text += _chain(
        "forward", "type filter hook forward priority 0; policy accept;",
        "ct state established,related accept",
        *(f"{w.ip} saddr . {w.ip} daddr @hairpins{w.suffix} accept" for w in words),
        "jump check-egress", "jump check-ingress",
    )  # fmt: skip
    own = [f"{_WORDS[f].ip} daddr {{ {', '.join(_of_family(facts.own, f))} }} accept"
           for f in facts.families]  # fmt: skip
    discovery = [f"icmpv6 type {{ {_DISCOVERY} }} accept"] if IPV6 in facts.families else []
    return text + _chain(
        "input", "type filter hook input priority 0; policy accept;",
        "ct state established,related accept", *own, *discovery, "jump check-egress",
    )  # fmt: skip


def _chain(name: str, *rules: str) -> str:
    return f"    chain {name} {{\n" + "".join(f"        {r}\n" for r in rules) + "    }\n"


def _of_family(addresses: Iterable[str], family: str) -> list[str]:
    return [a for a in addresses if family_of(a) == family]


def version(facts: Facts) -> str:
    """The name of an empty chain that tells which skeleton a kernel holds."""
    return "version-" + _digest(skeleton(facts))


def begin(facts: Facts, held: str, wanted: State) -> str:
    """One transaction that makes *wanted* of what an earlier process left. held: the table as
    ``nft list table`` prints it, or ''.

    Where the skeleton is the same, hooks stay where they are and only contents change, which the
    kernel does between two look-ups. A new table in the place of an old one would not do: a packet
    may pass the new one's hook before the change and the old one's after it.
    """
    if f"chain {version(facts)} {{" not in held:
        return (
            f"add table inet {TABLE}\ndelete table inet {TABLE}\n"
            f"table inet {TABLE} {{\n{skeleton(facts)}    chain {version(facts)} {{ }}\n}}\n"
        ) + difference(State(), wanted)
    chains = {*re.findall(r"^\tchain (c-\w+) \{", held, re.M)}
    sets = {*re.findall(r"^\tset ([pn]6?-\w+) \{", held, re.M)}
    lines = []
    for w in (_WORDS[f] for f in facts.families):
        lines += [f"flush map inet {TABLE} {name}{w.suffix}" for name in ("ingress", "egress")]
        lines.append(f"flush set inet {TABLE} hairpins{w.suffix}")
    lines += [f"flush set inet {TABLE} {name}" for name in sorted(sets)]
    # A chain's name tells its content; a set's only its type.
    kept = State(
        {n: (wanted.sets[n][0] if n in wanted.sets else "", frozenset()) for n in sets},
        {n: wanted.chains.get(n, ()) for n in chains},
    )
    return "\n".join(lines) + "\n" + difference(kept, wanted)


def difference(old: State, new: State) -> str:
    """One transaction that makes *new* of *old*; '' where they are the same. Sets and chains come
    before what refers to them and go after it."""
    lines: list[str] = []
    for name in sorted(new.sets):
        kind, elements = new.sets[name]
        held = old.sets.get(name)
        if held is None:
            lines.append(f"add set inet {TABLE} {name} {{ type {kind}; }}")
        lines += _elements("add", name, elements - (held[1] if held else frozenset()))
    for name in sorted(new.chains.keys() - old.chains.keys()):
        lines.append(f"add chain inet {TABLE} {name}")
        for text in (*(m.text() for m in new.chains[name]), "drop"):
            lines.append(f"add rule inet {TABLE} {name} {text}")
    for direction, target in ((INGRESS, "ingress"), (EGRESS, "egress")):
        before, after = old.isolated[direction], new.isolated[direction]
        lines += _by_family("delete", target, {
            ip: ip for ip, chain in before.items() if after.get(ip) != chain
        })  # fmt: skip
        lines += _by_family("add", target, {
            ip: f"{ip} : goto {chain}" for ip, chain in after.items() if before.get(ip) != chain
        })  # fmt: skip
    for verb, ips in (
        ("delete", old.hairpins - new.hairpins),
        ("add", new.hairpins - old.hairpins),
    ):
        lines += _by_family(verb, "hairpins", {i: f"{i} . {i}" for i in ips})
    for name in sorted(old.chains.keys() - new.chains.keys()):
        lines.append(f"flush chain inet {TABLE} {name}")
        lines.append(f"delete chain inet {TABLE} {name}")
    for name in sorted(old.sets):
        if name not in new.sets:
            lines.append(f"delete set inet {TABLE} {name}")
        else:
            lines += _elements("delete", name, old.sets[name][1] - new.sets[name][1])
    return "\n".join(lines) + "\n" if lines else ""


def _by_family(verb: str, name: str, elements: Mapping[str, str]) -> list[str]:
    """elements: by an address that tells their family."""
    lines = []
    for family, w in _WORDS.items():
        mine = [text for ip, text in elements.items() if family_of(ip) == family]
        lines += _elements(verb, name + w.suffix, mine)
    return lines


def _elements(verb: str, name: str, elements: Iterable[str]) -> list[str]:
    found = sorted(elements)
    return [f"{verb} element inet {TABLE} {name} {{ {', '.join(found)} }}"] if found else []
