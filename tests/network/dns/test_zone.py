"""The zone against the specification's tables, and against itself rebuilt."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.api.obj import Obj
from sampan.network.dns import message as dns
from sampan.network.dns import names
from sampan.network.dns.message import Record
from sampan.network.dns.zone import Answer, Zone
from sampan.testing.names import endpoint, endpoint_slice, external, port, service

TYPES = {"A": 1, "NS": 2, "CNAME": 5, "SOA": 6, "PTR": 12, "TXT": 16, "AAAA": 28, "SRV": 33,
         "MX": 15, "ANY": 255}  # fmt: skip
KINDS = {v: k for k, v in TYPES.items()}

HTTP, METRICS = port(80, "http"), port(9090, "metrics")
SERVICES = (
    service("kubernetes", "10.43.0.1", port(443, "https")),
    service("dual", "10.43.0.7", port(53, "dns", "UDP"), port(53, "dns-tcp"),
            clusterIPs=["10.43.0.7", "fd00::7"]),
    service("plain", "10.43.0.8", port(80)),
    service("nginx", "None", HTTP, namespace="sts-test"),
    service("headless", "None", HTTP, METRICS),
    service("six", "None", HTTP),
    service("empty", "None", HTTP),
    service("unready", "None", HTTP),
    service("eager", "None", HTTP, publishNotReadyAddresses=True),
    service("portless", "None"),
    service("waiting", ""),
    external("away", "www.example.com"),
    external("within", "kubernetes.default.svc.cluster.local"),
    external("digits", "1.2.3.4"),
)  # fmt: skip
SLICES = (
    endpoint_slice("kubernetes", endpoint("10.44.1.1"), ports=(port(6443, "https"),)),
    endpoint_slice("nginx", endpoint("10.42.1.5", hostname="nginx-sts-0"),
                   endpoint("10.42.2.6", hostname="nginx-sts-1"),
                   endpoint("10.42.2.7", hostname="nginx-sts-2", ready=False),
                   ports=(HTTP,), namespace="sts-test"),
    endpoint_slice("headless", endpoint("10.42.1.9", hostname="My-Pet"), endpoint("10.42.1.10"),
                   ports=(HTTP, METRICS)),
    endpoint_slice("headless", endpoint("10.42.2.11", ready=None), endpoint("10.42.1.10"),
                   name="headless-2", ports=(port(80, "http"), port(9091, "metrics"))),
    endpoint_slice("six", endpoint("fd00:10::5"), family="IPv6", ports=(HTTP,)),
    endpoint_slice("unready", endpoint("10.42.1.20", ready=False), ports=(HTTP,)),
    endpoint_slice("eager", endpoint("10.42.1.21", ready=False), ports=(HTTP,)),
    endpoint_slice("portless", endpoint("10.42.1.22")),
    endpoint_slice("nobody", endpoint("10.42.1.23", hostname="ghost"), ports=(HTTP,)),
    endpoint_slice("kubernetes", endpoint("elsewhere.example"), name="f", family="FQDN"),
)  # fmt: skip


def make(services: tuple[Obj, ...] = SERVICES, slices: tuple[Obj, ...] = SLICES) -> Zone:
    zone = Zone("cluster.local", networks=("10.42.0.0/16", "10.43.0.0/16", "fd00::/64"),
                addresses=("10.43.0.10", "fd00::a"))  # fmt: skip
    for namespace in ("default", "sts-test", "kube-system"):
        zone.namespace(namespace, exists=True)
    for s in services:
        zone.service(None, s)
    for s in slices:
        zone.slice(None, s)
    return zone


def data(record: Record) -> str:
    kind, raw = record.type, record.data
    if kind in (dns.A, dns.AAAA):
        return str(ipaddress.ip_address(raw))
    if kind in (dns.CNAME, dns.PTR, dns.NS):
        return names.text(raw)
    if kind == dns.SRV:
        return "{} {} {} ".format(*struct.unpack("!3H", raw[:6])) + names.text(raw[6:])
    if kind == dns.TXT:
        return raw[1:].decode()
    return KINDS.get(kind, str(kind))


def ask(zone: Zone, question: str) -> tuple[object, list[str]]:
    """(how it ended, the data of the answers)."""
    name, kind = question.split()
    answer = zone.lookup(names.wire(name), TYPES[kind])
    if answer is None:
        return "not ours", []
    if answer.rcode or not answer.answers:
        assert [r.type for r in answer.authorities] == [dns.SOA]
        assert names.is_below(names.wire(name).lower(), answer.authorities[0].name)
        return ("NXDOMAIN" if answer.rcode == dns.NXDOMAIN else "NODATA"), []
    assert not answer.authorities
    assert all(r.ttl == 5 and r.name == names.wire(name) for r in answer.answers)
    return "ok", [data(r) for r in answer.answers]


C = "cluster.local"
D = f"default.svc.{C}"
TABLE = {
    # 2.2 the schema's version
    f"dns-version.{C} TXT": ["1.1.0"],
    f"dns-version.{C} A": "NODATA",
    # 2.3 services with an address
    f"kubernetes.{D} A": ["10.43.0.1"],
    f"KuberNETES.{D} A": ["10.43.0.1"],
    f"kubernetes.{D} AAAA": "NODATA",
    f"kubernetes.{D} MX": "NODATA",
    f"kubernetes.{D} ANY": ["10.43.0.1"],
    f"kubernetes.{D} SRV": [f"0 100 443 kubernetes.{D}."],
    f"_https._tcp.kubernetes.{D} SRV": [f"0 100 443 kubernetes.{D}."],
    f"_https._tcp.kubernetes.{D} A": "NODATA",
    f"_tcp.kubernetes.{D} SRV": "NODATA",
    f"_udp.kubernetes.{D} SRV": "NXDOMAIN",
    f"_https._udp.kubernetes.{D} SRV": "NXDOMAIN",
    f"https._tcp.kubernetes.{D} SRV": "NXDOMAIN",
    f"10-44-1-1.kubernetes.{D} A": ["10.44.1.1"],
    f"dual.{D} A": ["10.43.0.7"],
    f"dual.{D} AAAA": ["fd00::7"],
    f"_dns._udp.dual.{D} SRV": [f"0 100 53 dual.{D}."],
    f"dual.{D} SRV": [f"0 100 53 dual.{D}."],
    f"plain.{D} SRV": [f"0 100 80 plain.{D}."],
    f"_tcp.plain.{D} SRV": "NXDOMAIN",
    f"waiting.{D} A": "NXDOMAIN",
    "1.0.43.10.in-addr.arpa PTR": [f"kubernetes.{D}."],
    "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa PTR": [f"dual.{D}."],
    "1.0.43.10.in-addr.arpa A": "NODATA",
    "2.0.43.10.in-addr.arpa PTR": "NXDOMAIN",
    "x.1.0.43.10.in-addr.arpa PTR": "NXDOMAIN",
    "0.43.10.in-addr.arpa PTR": "NODATA",
    "43.10.in-addr.arpa PTR": "NODATA",
    "43.10.in-addr.arpa SOA": ["SOA"],
    "8.8.8.8.in-addr.arpa PTR": "not ours",
    "10.in-addr.arpa PTR": "not ours",
    # 2.4 headless services
    f"nginx.sts-test.svc.{C} A": ["10.42.1.5", "10.42.2.6"],
    f"nginx-sts-0.nginx.sts-test.svc.{C} A": ["10.42.1.5"],
    f"nginx-sts-0.nginx.sts-test.svc.{C} AAAA": "NODATA",
    f"nginx-sts-2.nginx.sts-test.svc.{C} A": "NXDOMAIN",
    f"nginx-sts-0.nginx.{D} A": "NXDOMAIN",
    f"10-42-1-5.nginx.sts-test.svc.{C} A": "NXDOMAIN",
    f"_http._tcp.nginx.sts-test.svc.{C} SRV": [
        f"0 50 80 nginx-sts-0.nginx.sts-test.svc.{C}.",
        f"0 50 80 nginx-sts-1.nginx.sts-test.svc.{C}.",
    ],
    f"headless.{D} A": ["10.42.1.9", "10.42.1.10", "10.42.2.11"],
    f"my-pet.headless.{D} A": ["10.42.1.9"],
    f"10-42-1-10.headless.{D} A": ["10.42.1.10"],
    f"10-42-2-11.headless.{D} A": ["10.42.2.11"],
    f"_metrics._tcp.headless.{D} SRV": [
        f"0 25 9090 my-pet.headless.{D}.",
        f"0 25 9090 10-42-1-10.headless.{D}.",
        f"0 25 9091 10-42-2-11.headless.{D}.",
        f"0 25 9091 10-42-1-10.headless.{D}.",
    ],
    f"six.{D} A": "NODATA",
    f"six.{D} AAAA": ["fd00:10::5"],
    f"fd00-10--5.six.{D} AAAA": ["fd00:10::5"],
    f"empty.{D} A": "NXDOMAIN",
    f"unready.{D} A": "NXDOMAIN",
    f"eager.{D} A": ["10.42.1.21"],
    f"portless.{D} A": ["10.42.1.22"],
    f"portless.{D} SRV": "NODATA",
    f"nobody.{D} A": "NXDOMAIN",
    "5.1.42.10.in-addr.arpa PTR": [f"nginx-sts-0.nginx.sts-test.svc.{C}."],
    "10.1.42.10.in-addr.arpa PTR": [f"10-42-1-10.headless.{D}."],
    "7.2.42.10.in-addr.arpa PTR": "NXDOMAIN",
    "23.1.42.10.in-addr.arpa PTR": "NXDOMAIN",
    "1.1.44.10.in-addr.arpa PTR": "not ours",
    # 2.5 external names
    f"away.{D} CNAME": ["www.example.com."],
    f"away.{D} A": ["www.example.com."],
    f"within.{D} A": [f"kubernetes.{D}."],
    f"digits.{D} A": "NXDOMAIN",
    f"x.away.{D} A": "NXDOMAIN",
    # 2.6 pods
    f"10-42-1-5.sts-test.pod.{C} A": ["10.42.1.5"],
    f"10-42-1-5.sts-test.pod.{C} AAAA": "NODATA",
    f"fd00--1.sts-test.pod.{C} AAAA": ["fd00::1"],
    f"10-42-1-5.absent.pod.{C} A": "NXDOMAIN",
    f"10-42-1-500.sts-test.pod.{C} A": "NXDOMAIN",
    f"a.10-42-1-5.sts-test.pod.{C} A": "NXDOMAIN",
    f"nothing.sts-test.pod.{C} A": "NXDOMAIN",
    # names that only hold others
    f"{C} SOA": ["SOA"],
    f"{C} NS": [f"ns.dns.{C}."],
    f"{C} A": "NODATA",
    f"ns.dns.{C} A": ["10.43.0.10"],
    f"dns.{C} A": "NODATA",
    f"svc.{C} A": "NODATA",
    f"pod.{C} A": "NODATA",
    f"default.svc.{C} A": "NODATA",
    f"default.pod.{C} A": "NODATA",
    f"absent.svc.{C} A": "NXDOMAIN",
    f"x.absent.svc.{C} A": "NXDOMAIN",
    f"kubernetes.default.{C} A": "NXDOMAIN",
    f"other.{C} A": "NXDOMAIN",
    f"*.{D} A": "NXDOMAIN",
    f"any.{D} A": "NXDOMAIN",
    "www.example.com A": "not ours",
    "local A": "not ours",
    "xcluster.local A": "not ours",
}


@pytest.mark.parametrize("question", TABLE)
def test_the_table(question: str) -> None:
    wanted = TABLE[question]
    expected = (wanted, []) if isinstance(wanted, str) else ("ok", wanted)
    assert ask(make(), question) == expected


def test_service_records_bring_their_targets_addresses() -> None:
    answer = make().lookup(names.wire(f"_http._tcp.nginx.sts-test.svc.{C}"), dns.SRV)
    assert answer is not None
    assert [(names.text(r.name), data(r)) for r in answer.additionals] == [
        (f"nginx-sts-0.nginx.sts-test.svc.{C}.", "10.42.1.5"),
        (f"nginx-sts-1.nginx.sts-test.svc.{C}.", "10.42.2.6"),
    ]
    dual = make().lookup(names.wire(f"_dns._udp.dual.{D}"), dns.SRV)
    assert dual is not None
    assert [data(r) for r in dual.additionals] == ["10.43.0.7", "fd00::7"]


def test_a_target_is_the_service_even_where_an_endpoint_has_its_name() -> None:
    zone = make(
        (service("web", "10.43.0.9", HTTP),),
        (endpoint_slice("web", endpoint("10.42.1.2", hostname="web"), ports=(HTTP,)),),
    )
    answer = zone.lookup(names.wire(f"_http._tcp.web.{D}"), dns.SRV)
    assert answer is not None and [data(r) for r in answer.additionals] == ["10.43.0.9"]


def test_a_label_that_spells_the_zone_is_not_in_it() -> None:
    whole = names.wire(C)
    odd = bytes((len(whole) - 1 + 1,)) + b"x" + whole[:-1] + b"\0"
    assert names.text(odd) == "x\\007cluster\\005local."
    assert make().lookup(odd, dns.A) is None


def test_a_service_address_wins_over_endpoints_and_a_hostname_over_an_assigned_name() -> None:
    zone = make(
        (service("a", "None"), service("b", "None"), service("c", "10.42.0.1")),
        (endpoint_slice("a", endpoint("10.42.0.1", "10.42.0.2", hostname="named")),
         endpoint_slice("b", endpoint("10.42.0.1", "10.42.0.2", "10.42.0.3"))),
    )  # fmt: skip
    assert ask(zone, "1.0.42.10.in-addr.arpa PTR") == ("ok", [f"c.{D}."])
    assert ask(zone, "2.0.42.10.in-addr.arpa PTR") == ("ok", [f"named.a.{D}."])
    assert ask(zone, "3.0.42.10.in-addr.arpa PTR") == ("ok", [f"10-42-0-3.b.{D}."])


# -- kept by events == built anew -----------------------------------------------------------------

_NAMES = ("a", "b")
_IPS = ("10.42.0.1", "10.42.0.2", "fd00::1")
_services = st.one_of(
    st.builds(
        lambda n, ip, p, u: service(n, ip, *p, publishNotReadyAddresses=u),
        st.sampled_from(_NAMES), st.sampled_from(("None", "10.43.0.2", "10.42.0.1")),
        st.lists(st.sampled_from((HTTP, METRICS, port(1, "", "UDP"))), max_size=2), st.booleans(),
    ),
    st.builds(external, st.sampled_from(_NAMES), st.sampled_from((f"b.{D}", "x.test"))),
)  # fmt: skip
_endpoints = st.builds(
    lambda ip, h, r: endpoint(ip, hostname=h, ready=r),
    st.sampled_from(_IPS[:2]), st.sampled_from(("", "h", "a")),
    st.sampled_from((True, False, None)),
)  # fmt: skip
_slices = st.builds(
    lambda of, name, e, p: endpoint_slice(of, *e, name=name, ports=tuple(p)),
    st.sampled_from(_NAMES), st.sampled_from(("s1", "s2")), st.lists(_endpoints, max_size=3),
    st.lists(st.sampled_from((HTTP, METRICS)), max_size=2, unique_by=str),
)  # fmt: skip
_changes = st.lists(st.tuples(st.booleans(), st.one_of(_services, _slices)), max_size=14)
QUESTIONS = [
    f"{q} {t}"
    for n in _NAMES
    for q in (
        f"{n}.{D}",
        f"h.{n}.{D}",
        f"10-42-0-1.{n}.{D}",
        f"_http._tcp.{n}.{D}",
        f"_tcp.{n}.{D}",
    )
    for t in ("A", "SRV", "CNAME")
] + [f"{q}.in-addr.arpa PTR" for q in ("1.0.42.10", "2.0.42.10", "2.0.43.10")]


def answers(zone: Zone) -> dict[str, Answer | None]:
    found = {}
    for q in QUESTIONS:
        name, kind = q.split()
        found[q] = zone.lookup(names.wire(name), TYPES[kind])
    return found


@given(_changes)
def test_kept_by_events_it_is_the_zone_built_anew(changes: list[tuple[bool, Obj]]) -> None:
    """And every answer that changed has its tag among those a change names."""
    kept = make((), ())
    objects: dict[object, Obj] = {}
    before = answers(kept)
    for goes, obj in changes:
        old = objects.pop(obj.key, None)
        new = None if goes else obj
        if old is None and new is None:
            continue
        if new is not None:
            objects[obj.key] = new
        tags = (kept.service if obj.key.resource == "services" else kept.slice)(old, new)
        after = answers(kept)
        for q, answer in after.items():
            if answer != before[q]:
                was = before[q]
                assert (was is None or was.tag in tags) and (answer is None or answer.tag in tags)
        before = after
    rest = tuple(objects.values())
    anew = make(tuple(o for o in rest if o.key.resource == "services"),
                tuple(o for o in rest if o.key.resource != "services"))  # fmt: skip
    assert answers(kept) == answers(anew)
    empty = [kept.service(o, None) if o.key.resource == "services" else kept.slice(o, None)
             for o in rest]  # fmt: skip
    assert len(empty) == len(rest)
    assert (kept._services, kept._reverse, kept._reverse_of) == ({}, {}, {})
