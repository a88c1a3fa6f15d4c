"""The nftables table of a node's Services: its text, its chains, and how to read it back.

Pure. ``sampan-proxy`` belongs to the proxy alone; there is one of each family of the cluster, and
what follows holds for either in its own words (``_Words``). Which endpoint a new connection goes to
is decided by two look-ups: of address, protocol and port to a chain ``pick-N``, and there of the
same with a random number below N to an endpoint. Chains are shared by all Services of N endpoints.

Hooks (a policy's own table fits between them: in ``forward`` at priority 0 both addresses of a
connection are the real ones, but for what ``masq-*`` marked, whose source changes in postrouting):

    prerouting, output  -110  guard: who may use a LoadBalancer's address
                        -100  DNAT
                         -90  remember clients (affinity), refuse what nobody took
    forward              -10  mark hairpins; nothing leaves towards the range of the Services
    postrouting          100  SNAT of connections that bear the mark 0x4000 (``ct mark``)

A packet's own mark is used between -100 and -90 and is 0 after that.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_network

from sampan.lib.addressing import IPV4, IPV6
from sampan.network.claims import Vip
from sampan.network.rules import (
    PROTOCOLS,
    REFUSE,
    Address,
    Batch,
    Facts,
    Row,
    difference,
)

TABLE = "sampan-proxy"
MARK = "0x4000"  # in the connection's mark: answers come back through this node


@dataclass(frozen=True, slots=True)
class _Words:
    """What the same rules are called in one family."""

    ip: str  # of tables and of headers
    address: str  # the type
    bits: int

    @property
    def key(self) -> str:
        return f"{self.ip} daddr . meta l4proto . th dport"

    @property
    def slot(self) -> str:
        return f"meta l4proto . {self.ip} daddr . th dport"

    @property
    def client(self) -> str:
        return f"{self.ip} saddr . {self.slot}"

    @property
    def recorded(self) -> str:
        """The key of a connection as its client sent it."""
        return f"ct original {self.ip} daddr . meta l4proto . ct original proto-dst"

    @property
    def strangers(self) -> tuple[str, ...]:
        """The loopback network is routed (host ports are answered there): nobody else's packets."""
        if self.ip == "ip6":
            return ()
        inner = "127.0.0.0/8"
        return (f'iifname != "lo" ip daddr {inner} drop', f'iifname != "lo" ip saddr {inner} drop')

    @property
    def maps(self) -> str:
        return (_MAPS + (_AFFINITY_MAP if self.ip == "ip" else "")).replace("ADDRESS", self.address)


_WORDS = {IPV4: _Words("ip", "ipv4_addr", 32), IPV6: _Words("ip6", "ipv6_addr", 128)}
_MAPS = """
    map services { type ADDRESS . inet_proto . inet_service : verdict; }
    map inside { type ADDRESS . inet_proto . inet_service : verdict; }
    map refused { type ADDRESS . inet_proto . inet_service : verdict; }
    map affine { type ADDRESS . inet_proto . inet_service : verdict; }
    map endpoints {
        type inet_proto . ADDRESS . inet_service . mark : ADDRESS . inet_service;
    }
    map inside-endpoints {
        type inet_proto . ADDRESS . inet_service . mark : ADDRESS . inet_service;
    }
    set restricted { type ADDRESS . inet_proto . inet_service; }
    set sources { type ADDRESS . inet_proto . inet_service . ADDRESS; flags interval; }
    set cluster-ips { type ADDRESS; }
"""
_AFFINITY_MAP = """
    map affinity {
        type ADDRESS . inet_proto . ADDRESS . inet_service : ADDRESS . inet_service;
        size 262144; flags dynamic,timeout; timeout 3h;
    }
"""


def _chain(name: str, *rules: str) -> str:
    return f"    chain {name} {{\n" + "".join(f"        {r}\n" for r in rules) + "    }\n"


def _hook(kind: str, hook: str, priority: int) -> str:
    return f"type {kind} hook {hook} priority {priority}; policy accept;"


def skeleton(facts: Facts) -> str:
    """The table without anything in it."""
    w = _WORDS[facts.family]
    text = w.maps
    # A reset: the kernel sends as many as are asked for, but few ICMP errors a second.
    text += _chain(REFUSE, "meta l4proto tcp reject with tcp reset", "reject")
    text += _chain("allow", f"{w.key} . {w.ip} saddr != @sources drop")
    text += _chain(
        "check",
        "ct status dnat meta mark set 0",
        *(f"ct status dnat meta l4proto {p} {w.recorded} vmap @affine" for p in PROTOCOLS),
        "ct status dnat return",
        f"{w.key} vmap @refused",
        "fib daddr type local return",
        # Routed to rules (``proxy.Routes``), and none took it.
        f'oifname "lo" goto {REFUSE}',
        f"{w.ip} daddr {facts.services} goto {REFUSE}",
        f"{w.ip} daddr @cluster-ips goto {REFUSE}",
    )
    for hook in ("prerouting", "output"):
        text += _chain(
            f"guard-{hook}", _hook("filter", hook, -110),
            *(w.strangers if hook == "prerouting" else ()),
            f"ct state new {w.key} @restricted jump allow",
        )  # fmt: skip
        text += _chain(
            f"nat-{hook}", _hook("nat", hook, -100),
            (f"{w.ip} saddr {facts.pods} " if hook == "prerouting" else "")
            + f"{w.key} vmap @inside",
            f"{w.key} vmap @services",
        )  # fmt: skip
        text += _chain(f"check-{hook}", _hook("filter", hook, -90), "ct state new jump check")
    text += _chain(
        "forward", _hook("filter", "forward", -10),
        f"ct state new ct status dnat fib daddr . iif oif exists "
        f"ct mark set ct mark or {MARK}",
        f"{w.ip} daddr {facts.services} goto {REFUSE}",
    )  # fmt: skip
    text += _chain(
        "postrouting", _hook("nat", "postrouting", 100),
        f"ct mark and {MARK} == 0 return",
        f"snat {w.ip} to {facts.masquerade} fully-random",
    )  # fmt: skip
    return text


def version(facts: Facts) -> str:
    """The name of an empty chain that tells which skeleton a kernel holds."""
    names = (*closure("masq-affine-pick-2"), "record-9")
    parts = [skeleton(facts), *(chain(n, facts.family) for n in names)]
    return "version-" + hashlib.sha256("".join(parts).encode()).hexdigest()[:12]


def chain(name: str, family: str = IPV4) -> str:
    """The text of a chain that rows refer to."""
    w = _WORDS[family]
    head, _, rest = name.partition("-")
    if head == "masq":
        return _chain(name, f"ct mark set ct mark or {MARK}", f"goto {rest}")
    if head == "affine":
        return _chain(name, f"dnat ip to {w.client} map @affinity", f"goto {rest}")
    if head == "record":
        key = "ip saddr . meta l4proto . ct original ip daddr . ct original proto-dst"
        return _chain(
            name,
            *(f"meta l4proto {p} update @affinity "
              f"{{ {key} timeout {rest}s : ip daddr . th dport }}" for p in PROTOCOLS),
        )  # fmt: skip
    if head in ("sticky", "keep", "clients"):
        return _of_memory(name, head, *rest.split("-", 1))
    # The packet's mark carries the number: no type of nft 1.0.6 takes ``numgen`` itself into a key
    # together with a port of any protocol. The second look-up is for the moment in which N
    # shrinks under a packet on its way.
    pick = f"dnat {w.ip} to {w.slot} . meta mark map @"
    pick += "endpoints" if head == "pick" else "inside-endpoints"
    return _chain(name, f"meta mark set numgen random mod {rest}", pick, "meta mark set 0", pick)


def _of_memory(name: str, head: str, memory: str, rest: str = "") -> str:
    """Affinity of one Service of IPv6: two maps of its own. One map for all, as in IPv4, would need
    more than libnftables 1.0.6 has: 16 bytes for the key and 16 for the value of an element that a
    packet adds (with more it aborts the process)."""
    clients, ports = f"clients-{memory}", f"ports-{memory}"
    if head == "clients":
        return "".join(
            f"    map {map_} {{ type ipv6_addr : {value}; size 65536; flags dynamic,timeout; }}\n"
            for map_, value in ((clients, "ipv6_addr"), (ports, "inet_service"))
        )
    if head == "keep":
        update = f"{{ ip6 saddr timeout {rest}s :"
        return _chain(
            name,
            *(f"meta l4proto {p} update @{clients} {update} ip6 daddr }} "
              f"update @{ports} {update} th dport }}" for p in PROTOCOLS),
        )  # fmt: skip
    return _chain(
        name,
        *(f"meta l4proto {p} dnat ip6 to ip6 saddr map @{clients} : ip6 saddr map @{ports}"
          for p in PROTOCOLS),
        f"goto {rest}",
    )  # fmt: skip


def closure(name: str) -> tuple[str, ...]:
    """A chain and what it needs, that first."""
    head, _, rest = name.partition("-")
    if head in ("sticky", "keep"):
        memory, _, rest = rest.partition("-")
        needs = closure(rest) if head == "sticky" else ()
        return (f"clients-{memory}", *needs, name)
    return (*closure(rest), name) if head in ("masq", "affine") else (name,)


def ordered(networks: Iterable[str]) -> tuple[str, ...]:
    return tuple(str(n) for n in sorted(map(ip_network, networks)))


def chains(row: Row | None) -> set[str]:
    """What a row refers to."""
    if row is None:
        return set()
    return {c for v in (row.verdict, row.inside, row.record) if v for c in closure(v)}


def memory_of(row: Row) -> str:
    """The name of its own maps, or ''."""
    head, _, rest = row.record.partition("-")
    return rest.partition("-")[0] if head == "keep" else ""


class Table:
    """What a kernel holds: rows, and of how many of them each chain and address is."""

    def __init__(self, rows: Mapping[Vip, Row] | None = None, family: str = IPV4) -> None:
        self.family = family
        self.rows: dict[Vip, Row] = {}
        self.uses: Counter[str] = Counter()
        self.ips: Counter[str] = Counter()
        self._memories: dict[int, Vip] = {}
        self.put(rows or {})

    def memory(self, vip: Vip) -> str:
        """The name of the maps in which its clients are remembered, the same as long as there are
        any; '' where there is one for all."""
        if self.family == IPV4:
            return ""
        number = int(hashlib.sha256(repr(vip).encode()).hexdigest()[:8], 16)
        while self._memories.get(number, vip) != vip:
            number = (number + 1) % (1 << 32)
        self._memories[number] = vip
        return f"{number:08x}"

    def put(self, changes: Mapping[Vip, Row | None]) -> None:
        for vip, new in changes.items():
            old = self.rows.pop(vip, None)
            for row, is_there in ((old, False), (new, True)):
                if row is not None and (memory := memory_of(row)):
                    if is_there:
                        self._memories[int(memory, 16)] = vip
                    else:
                        self._memories.pop(int(memory, 16), None)
            uses, ips = _delta(vip, old, new)
            _add(self.uses, uses)
            _add(self.ips, ips)
            if new is not None:
                self.rows[vip] = new

    def command(self, changes: Mapping[Vip, Row | None]) -> str:
        """One transaction that makes *changes*; '' if the kernel holds them already."""
        batch = Batch()
        uses: Counter[str] = Counter()
        ips: Counter[str] = Counter()
        for vip in sorted(changes):
            old, new = self.rows.get(vip), changes[vip]
            difference(batch, vip, old, new)
            more_uses, more_ips = _delta(vip, old, new)
            _add(uses, more_uses)
            _add(ips, more_ips)
        for ip in sorted(ips):
            before, after = self.ips[ip], self.ips[ip] + ips[ip]
            batch.change("cluster-ips", ip, "" if before else None, "" if after else None)
        begun = [c for c in uses if not self.uses[c] and self.uses[c] + uses[c] > 0]
        ended = [c for c in uses if self.uses[c] and self.uses[c] + uses[c] == 0]
        return _text(batch, begun, ended, self.family)


def _delta(vip: Vip, old: Row | None, new: Row | None) -> tuple[Counter[str], Counter[str]]:
    uses: Counter[str] = Counter()
    ips: Counter[str] = Counter()
    for row, sign in ((old, -1), (new, 1)):
        if row is not None:
            for name in chains(row):
                uses[name] += sign
            if row.is_cluster_ip:
                ips[vip[0]] += sign
    return uses, ips


def _add(total: Counter[str], more: Mapping[str, int]) -> None:
    for name, n in more.items():
        total[name] += n
        if not total[name]:
            del total[name]


def _depth(name: str) -> tuple[int, str]:
    return len(closure(name)), name


def _text(batch: Batch, begun: Iterable[str], ended: Iterable[str], family: str) -> str:
    """Chains come before what goes to them, and go after it."""
    lines, ip = [], _WORDS[family].ip
    new = sorted(begun, key=_depth)
    if new:
        text = "".join(chain(c, family) for c in new)
        lines.append(f"table {ip} {TABLE} {{\n{text}}}")
    for verb, elements in (("delete", batch.remove), ("add", batch.add)):
        for name, keys in elements.items():
            lines.append(f"{verb} element {ip} {TABLE} {name} {{ {', '.join(keys)} }}")
    gone = sorted(ended, key=_depth, reverse=True)
    for name in (n for n in gone if not n.startswith("clients-")):
        lines.append(f"flush chain {ip} {TABLE} {name}")
        lines.append(f"delete chain {ip} {TABLE} {name}")
    for name in (n for n in gone if n.startswith("clients-")):
        lines.append(f"delete map {ip} {TABLE} {name}")
        lines.append(f"delete map {ip} {TABLE} {name.replace('clients', 'ports')}")
    return "\n".join(lines) + "\n" if lines else ""


def create(facts: Facts) -> str:
    """The table anew and empty, whatever there was; to be followed by a ``command`` in the same
    transaction. (Adding it first makes deleting it possible when there is none.)"""
    table = f"{_WORDS[facts.family].ip} {TABLE}"
    head = f"add table {table}\ndelete table {table}\n"
    return f"{head}table {table} {{\n{skeleton(facts)}{_chain(version(facts))}}}\n"


def listing(family: str, map_: str = "") -> str:
    """The command that prints the table, or one of its maps."""
    ip = _WORDS[family].ip
    return f"list map {ip} {TABLE} {map_}" if map_ else f"list table {ip} {TABLE}"


_BLOCK = re.compile(r"^\t(?:map|set) ([\w-]+) \{\n(.*?)^\t\}", re.M | re.S)
_ELEMENTS = re.compile(r"elements = \{ (.*?) \}", re.S)
_NAMES = {str(number): name for name, number in PROTOCOLS.items()}


class Foreign(Exception):
    """The kernel holds something the proxy would not have written."""


def parse(text: str, family: str = IPV4) -> Table:
    """The table that ``listing`` printed. Raises Foreign."""
    found: dict[str, list[str]] = {}
    for name, body in _BLOCK.findall(text):
        match = _ELEMENTS.search(body)
        found[name] = re.split(r",\s+", match.group(1)) if match else []
    fields: dict[Vip, dict[str, object]] = {}
    try:
        _read(found, fields, _WORDS[family].bits)
        rows = {vip: Row(**values) for vip, values in fields.items()}  # type: ignore[arg-type]
    except (ValueError, KeyError, TypeError) as e:
        raise Foreign(f"the table {TABLE} is not as it was written: {e}") from e
    return Table(rows, family)


_VERDICTS = {"services": "verdict", "inside": "inside", "refused": "refuse", "affine": "record"}
_PLACES = {"endpoints": "endpoints", "inside-endpoints": "inside_endpoints"}


def _read(found: Mapping[str, list[str]], fields: dict[Vip, dict[str, object]], bits: int) -> None:
    for name, attribute in _VERDICTS.items():
        for element in found[name]:
            key, _, verdict = element.partition(" : ")
            target = verdict.removeprefix("goto ")
            fields.setdefault(_vip(key), {})[attribute] = "reject" if target == REFUSE else target
    for name, attribute in _PLACES.items():
        places: dict[Vip, dict[int, Address]] = {}
        for element in found[name]:
            key, _, value = element.partition(" : ")
            protocol, ip, port, number = key.split(" . ")
            address, target_port = value.split(" . ")
            vip = (ip, _NAMES[protocol], int(port))
            places.setdefault(vip, {})[int(number, 16)] = (address, int(target_port))
        for vip, numbers in places.items():
            if sorted(numbers) != [*range(len(numbers))]:
                raise ValueError(f"endpoints of {vip} are {sorted(numbers)}")
            fields.setdefault(vip, {})[attribute] = tuple(numbers[i] for i in range(len(numbers)))
    sources: dict[Vip, set[str]] = {}
    for element in found["sources"]:
        key, _, source = element.rpartition(" . ")
        sources.setdefault(_vip(key), set()).add(source if "/" in source else f"{source}/{bits}")
    for vip, networks in sources.items():
        fields.setdefault(vip, {})["sources"] = ordered(networks)
    ips = {*found["cluster-ips"]}
    for vip, values in fields.items():
        values["is_cluster_ip"] = vip[0] in ips


def _vip(key: str) -> Vip:
    ip, protocol, port = key.split(" . ")
    return ip, _NAMES[protocol], int(port)


_AFFINITY = re.compile(
    r"([\d.]+) \. (\d+) \. ([\d.]+) \. (\d+) timeout \S+ expires \S+ : ([\d.]+) \. (\d+)"
)
_CLIENT = re.compile(r"([\da-f.:]+) timeout \S+ expires \S+ : (\S+?)[,\s]")


def strays(text: str, places: Mapping[Vip, frozenset[Address]]) -> list[str]:
    """Commands that forget clients whose endpoint serves no more. text: the map ``affinity`` as
    ``listing`` prints it; places: who serves now, of the addresses to look at."""
    commands = []
    for client, protocol, ip, port, address, number in _AFFINITY.findall(text):
        held = places.get((ip, _NAMES.get(protocol, ""), int(port)))
        if held is not None and (address, int(number)) not in held:
            key = f"{client} . {protocol} . {ip} . {port}"
            commands.append(f"delete element ip {TABLE} affinity {{ {key} }}")
    return sorted(commands)


def own_strays(clients: str, ports: str, memory: str, places: frozenset[Address]) -> list[str]:
    """The same of a Service with maps of its own, as ``listing`` prints them."""
    numbers = dict(_CLIENT.findall(ports))
    return sorted(
        f"delete element ip6 {TABLE} {map_}-{memory} {{ {client} }}"
        for client, address in _CLIENT.findall(clients)
        if (address, int(numbers.get(client, 0))) not in places
        for map_, held in (("clients", True), ("ports", client in numbers))
        if held
    )
