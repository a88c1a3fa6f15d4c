"""The zone: all names of the cluster, kept by events, answered from memory. Pure.

What a service's names are is worked out when one of them is first asked for, and forgotten when the
service or one of its slices changes: a change costs the same however large the cluster is.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sampan.api.obj import Obj
from sampan.network.dns import message as dns
from sampan.network.dns import names, records
from sampan.network.dns.message import Record

SERVICE_NAME = "kubernetes.io/service-name"
VERSION = b"1.1.0"
TTL = 5  # seconds, of every record of the cluster
Owner = tuple[str, str]  # namespace, name of a service
Tag = tuple[str, ...]  # what an answer depends on


@dataclass(frozen=True, slots=True)
class Answer:
    """What the zone says. answers empty and NOERROR: the name has no records of this type.
    target: the CNAME's target, where the answer ends in one. tag: changes with it only."""

    rcode: int = dns.NOERROR
    answers: tuple[Record, ...] = ()
    authorities: tuple[Record, ...] = ()
    additionals: tuple[Record, ...] = ()
    target: bytes = b""
    tag: Tag = ()


@dataclass(slots=True)
class _Service:
    """A service's objects; names: made from them when asked for."""

    service: Obj | None = None
    slices: dict[str, Obj] = field(default_factory=dict)
    names: Mapping[bytes, records.Sets] | None = None


class Zone:
    """domain: the cluster's. networks: whose reverse names are ours alone; what has no name there
    does not exist. addresses: of the DNS service itself. serial: of the SOA, e.g. the time."""

    def __init__(
        self, domain: str, *, networks: Iterable[str] = (), addresses: Sequence[str] = (),
        serial: int = 1,
    ) -> None:  # fmt: skip
        self._suffix = [x.encode() for x in domain.split(".")]
        self._apex = names.wire(domain)
        self._svc = b"\x03svc" + self._apex
        self._own = b"\x02ns\x03dns" + self._apex
        self._addresses = tuple(addresses)
        self._reverse_zones = [z for n in networks for z in _reverse_zones(n)]
        soa = dns.soa(self._own, b"\x0ahostmaster" + self._apex, serial, minimum=TTL)
        self._soa = soa
        self._services: dict[Owner, _Service] = {}
        self._namespaces: set[str] = set()
        self._reverse: dict[bytes, dict[Owner, None]] = {}  # lower-case name -> who may answer
        self._reverse_of: dict[Owner, frozenset[bytes]] = {}

    # -- what changes ---------------------------------------------------------------------------

    def namespace(self, name: str, *, exists: bool) -> set[Tag]:
        """Answers with the tags returned are no longer true; so for all of these."""
        if exists == (name in self._namespaces):
            return set()
        (self._namespaces.add if exists else self._namespaces.discard)(name)
        return {("ns", name)}

    def service(self, old: Obj | None, new: Obj | None) -> set[Tag]:
        obj = new or old
        assert obj is not None
        owner = (obj.namespace, obj.name)
        held = self._services.setdefault(owner, _Service())
        held.service = new
        return self._changed(owner, held)

    def slice(self, old: Obj | None, new: Obj | None) -> set[Tag]:
        tags: set[Tag] = set()
        before, after = _owner(old), _owner(new)
        if old is not None and before is not None and before != after:
            held = self._services.get(before)
            if held is not None:
                held.slices.pop(old.name, None)
                tags |= self._changed(before, held)
        if new is not None and after is not None:
            held = self._services.setdefault(after, _Service())
            held.slices[new.name] = new
            tags |= self._changed(after, held)
        return tags

    def _changed(self, owner: Owner, held: _Service) -> set[Tag]:
        held.names = None
        if held.service is None and not held.slices:
            del self._services[owner]
        before = self._reverse_of.get(owner, frozenset())
        after = _reverse_names(held)
        for name in before - after:
            del self._reverse[name][owner]
            if not self._reverse[name]:
                del self._reverse[name]
        for name in after - before:
            self._reverse.setdefault(name, {})[owner] = None
        if after:
            self._reverse_of[owner] = after
        else:
            self._reverse_of.pop(owner, None)
        # What stays may still be said differently: another hostname, another readiness.
        return {("svc", *owner), *(("ptr", n.decode()) for n in before | after)}

    # -- answers --------------------------------------------------------------------------------

    def lookup(self, name: bytes, kind: int) -> Answer | None:
        """The answer for a name in wire form, any case. None: the name is none of ours."""
        lower = name.lower()
        parts = names.labels(lower)
        depth = len(self._suffix)
        if parts[-depth:] == self._suffix:
            return self._forward(name, parts[:-depth], kind)
        if parts[-1:] == [b"arpa"]:
            return self._backward(name, lower, kind)
        return None

    def _forward(self, name: bytes, parts: list[bytes], kind: int) -> Answer:
        if not parts:
            sets: records.Sets = {dns.SOA: (self._soa,), dns.NS: (self._own,)}
            return self._said(name, sets, kind, ())
        top, rest = parts[-1], parts[:-1]
        if top == b"svc":
            return self._in_svc(name, rest, kind)
        if top == b"pod":
            return self._in_pod(name, rest, kind)
        if top == b"dns-version" and not rest:
            return self._said(name, {dns.TXT: (dns.txt(VERSION),)}, kind, ())
        if top == b"dns" and rest in ([], [b"ns"]):
            return self._said(name, self._own_sets() if rest else {}, kind, ())
        return self._no_name(())

    def _in_svc(self, name: bytes, rest: list[bytes], kind: int) -> Answer:
        if not rest:
            return self._said(name, {}, kind, ())
        namespace = rest[-1].decode("latin-1")
        if len(rest) == 1:
            tag: Tag = ("ns", namespace)
            if namespace not in self._namespaces:
                return self._no_name(tag)
            return self._said(name, {}, kind, tag)
        owner = (namespace, rest[-2].decode("latin-1"))
        tag = ("svc", *owner)
        held = self._services.get(owner)
        known = self._names(owner, held) if held is not None else {}
        sets = known.get(names.join(rest[:-2])[:-1])
        if sets is None:
            return self._no_name(tag)
        answer = self._said(name, sets, kind, tag)
        if kind != dns.SRV:
            return answer
        return self._with_targets(answer, known, len(_whole(owner, self._svc)))

    def _names(self, owner: Owner, held: _Service) -> Mapping[bytes, records.Sets]:
        if held.names is None:
            whole = _whole(owner, self._svc)
            slices = [held.slices[k].body for k in sorted(held.slices)]
            held.names = records.build(whole, held.service.body, slices) if held.service else {}
        return held.names

    @staticmethod
    def _with_targets(answer: Answer, known: Mapping[bytes, records.Sets], whole: int) -> Answer:
        """The addresses of SRV targets: all targets are names of the same service, whose own name
        has *whole* bytes."""
        more: dict[Record, None] = {}
        for record in answer.answers:
            target = record.data[6:]
            sets = known.get(target[:-whole], {})
            for kind in (dns.A, dns.AAAA):
                for data in sets.get(kind, ()):
                    more[Record(target, kind, TTL, data)] = None
        return Answer(answer.rcode, answer.answers, answer.authorities, tuple(more), tag=answer.tag)

    def _in_pod(self, name: bytes, rest: list[bytes], kind: int) -> Answer:
        """``a-b-c-d.<namespace>.pod``: whatever the address, as upstream's ``pods insecure``."""
        if not rest:
            return self._said(name, {}, kind, ())
        namespace = rest[-1].decode("latin-1")
        tag: Tag = ("ns", namespace)
        if namespace not in self._namespaces or len(rest) > 2:
            return self._no_name(tag)
        if len(rest) == 1:
            return self._said(name, {}, kind, tag)
        ip = names.undashed(rest[0])
        if not ip:
            return self._no_name(tag)
        parsed = ipaddress.ip_address(ip)
        family = dns.A if parsed.version == 4 else dns.AAAA
        return self._said(name, {family: (parsed.packed,)}, kind, tag)

    def _backward(self, name: bytes, lower: bytes, kind: int) -> Answer | None:
        tag: Tag = ("ptr", lower.decode("latin-1"))
        zone = next((z for z in self._reverse_zones if names.is_below(lower, z)), b"")
        targets = self._pointers(lower)
        if targets:
            return self._said(name, {dns.PTR: targets}, kind, tag, zone=zone or lower)
        if not zone:
            return None
        if lower == zone:
            return self._said(name, {dns.SOA: (self._soa,), dns.NS: (self._own,)}, kind, (), zone)
        if _is_between(lower, zone):
            return self._said(name, {}, kind, (), zone)
        return self._no_name(tag, zone)

    def _pointers(self, lower: bytes) -> tuple[bytes, ...]:
        """A service's own address wins over endpoints, a hostname over an assigned name."""
        best: dict[int, dict[bytes, None]] = {}
        for owner in sorted(self._reverse.get(lower, ())):
            held = self._services[owner]
            if held.service is None:
                continue
            body = held.service.body
            whole = _whole(owner, self._svc)
            if any(_same(ip, lower) for ip in records.cluster_ips(body)):
                best.setdefault(0, {})[whole] = None
            for key in sorted(held.slices):
                for e in records.endpoints(body, held.slices[key].body):
                    if not _same(e.ip, lower) or len(e.host) > names.MAX_LABEL:
                        continue
                    if e.is_named or records.is_headless(body):
                        target = bytes((len(e.host),)) + e.host.encode() + whole
                        best.setdefault(1 if e.is_named else 2, {})[target] = None
        return tuple(best[min(best)]) if best else ()

    def _own_sets(self) -> records.Sets:
        sets: dict[int, list[bytes]] = {}
        for ip in map(ipaddress.ip_address, self._addresses):
            sets.setdefault(dns.A if ip.version == 4 else dns.AAAA, []).append(ip.packed)
        return {kind: tuple(data) for kind, data in sets.items()}

    def _said(
        self, name: bytes, sets: records.Sets, kind: int, tag: Tag, zone: bytes = b""
    ) -> Answer:
        if kind == dns.ANY and sets:
            # RFC 8482: one set is enough for those who ask for everything.
            kind = next(iter(sets))
        found = sets.get(kind, ())
        if found:
            glue: tuple[Record, ...] = ()
            if kind == dns.NS:
                glue = _records(self._own, dns.A, self._own_sets().get(dns.A, ()))
            return Answer(answers=_records(name, kind, found), additionals=glue, tag=tag)
        alias = sets.get(dns.CNAME, ())
        if alias:
            return Answer(answers=_records(name, dns.CNAME, alias), target=alias[0], tag=tag)
        return Answer(authorities=(self._authority(zone),), tag=tag)

    def _no_name(self, tag: Tag, zone: bytes = b"") -> Answer:
        return Answer(dns.NXDOMAIN, authorities=(self._authority(zone),), tag=tag)

    def _authority(self, zone: bytes) -> Record:
        return Record(zone or self._apex, dns.SOA, TTL, self._soa)


def _records(name: bytes, kind: int, found: Iterable[bytes]) -> tuple[Record, ...]:
    return tuple(Record(name, kind, TTL, data) for data in found)


def _whole(owner: Owner, suffix: bytes) -> bytes:
    namespace, name = owner
    return names.wire(f"{name}.{namespace}")[:-1] + suffix


def _owner(slice_: Obj | None) -> Owner | None:
    if slice_ is None:
        return None
    name = slice_.labels.get(SERVICE_NAME)
    return (slice_.namespace, name) if name else None


def _reverse_names(held: _Service) -> frozenset[bytes]:
    """Lower-case names under which the service may be found by an address."""
    if held.service is None:
        return frozenset()
    body = held.service.body
    ips = {ip for ip in records.cluster_ips(body) if ip != "None"}
    headless = records.is_headless(body)
    for slice_ in held.slices.values():
        ips |= {e.ip for e in records.endpoints(body, slice_.body) if headless or e.is_named}
    return frozenset(n for n in map(_reverse, ips) if n)


def _reverse(ip: str) -> bytes:
    try:
        return names.reverse(ip)
    except ValueError:
        return b""


def _same(ip: str, lower: bytes) -> bool:
    return _reverse(ip) == lower


def _reverse_zones(network: str) -> list[bytes]:
    """The names above all reverse names of a network: one where its prefix ends on an octet or
    nibble, else one for each of its parts that do."""
    net: Any = ipaddress.ip_network(network)
    step = 8 if net.version == 4 else 4
    length = -(-net.prefixlen // step) * step
    zones = []
    for part in net.subnets(new_prefix=length):
        whole = names.labels(names.reverse(str(part.network_address)))
        zones.append(names.join(whole[(part.max_prefixlen - length) // step :]))
    return zones


def _is_between(lower: bytes, zone: bytes) -> bool:
    """Whether a name of a reverse zone is above addresses: it exists, without records."""
    parts = names.labels(lower)
    more = parts[: len(parts) - len(names.labels(zone))]
    if parts[-2] == b"ip6":
        return len(parts) < 34 and all(len(p) == 1 and p in b"0123456789abcdef" for p in more)
    return len(parts) < 6 and all(p.isdigit() and len(p) < 4 and int(p) < 256 for p in more)
