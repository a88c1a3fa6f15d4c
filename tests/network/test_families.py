"""Services of IPv6 and of both families: what the proxy reads, decides and writes."""

from __future__ import annotations

import socket
import struct
from typing import Any

import pytest

from sampan.lib.addressing import IPV4, IPV6
from sampan.network import conntrack
from sampan.network.backends import Endpoint, Ingress, ServicePort, endpoints, service, written
from sampan.network.claims import Vip
from sampan.network.rules import (
    BALANCER,
    CLUSTER_IP,
    EXTERNAL_IP,
    HOST_PORT,
    NODE_PORT,
    Entry,
    Facts,
    Pick,
    Row,
    pod_entries,
    row,
    service_entries,
)
from sampan.network.ruleset import (
    Table,
    chain,
    chains,
    closure,
    create,
    listing,
    memory_of,
    own_strays,
    parse,
    skeleton,
    version,
)

FACTS = Facts("n1", ("fd00:44::2",), "fd00:44::2", own=frozenset(("fd00:43::a",)),
              pods="fd00:42::/56", services="fd00:43::/112")  # fmt: skip
A, B = ("fd00:42:0:1::2", 8080), ("fd00:42:0:2::2", 8080)
VIP: Vip = ("fd00:43::5", "tcp", 80)


def svc(**fields: Any) -> dict[str, Any]:
    spec = {"clusterIPs": ["10.43.0.5", "fd00:43::5"], "ports": [{"port": 80, "nodePort": 30080}]}
    status = fields.pop("status", {})
    return {"metadata": {"namespace": "n", "name": "s"}, "spec": {**spec, **fields},
            "status": status}  # fmt: skip


# -- what is read ---------------------------------------------------------------------------------


def test_each_family_sees_its_own() -> None:
    body = svc(
        type="LoadBalancer", externalIPs=["192.0.2.1", "2001:DB8::0001"],
        loadBalancerSourceRanges=["10.0.0.0/8", "fd00::/8"],
        status={"loadBalancer": {"ingress": [
            {"ip": "198.51.100.1"}, {"ip": "2001:db8::9", "ipMode": "VIP"},
            {"ip": "127.1.2.3", "ipMode": "Proxy"},
        ]}},
    )  # fmt: skip
    four, six = service(body), service(body, IPV6)
    assert four is not None and six is not None
    assert (four.cluster_ips, six.cluster_ips) == (("10.43.0.5",), ("fd00:43::5",))
    assert six.ports == (ServicePort("", "tcp", 80, 30080),)
    assert (four.external_ips, six.external_ips) == (("192.0.2.1",), ("2001:db8::1",))
    assert (four.virtual_ips, six.virtual_ips) == (("198.51.100.1",), ("2001:db8::9",))
    # The host's own address is a way into either.
    at_home = Ingress("127.1.2.3", (), is_virtual=False)
    assert six.ingress == (Ingress("2001:db8::9"), at_home)
    assert four.ingress == (Ingress("198.51.100.1"), at_home)
    assert (four.sources, six.sources) == (("10.0.0.0/8",), ("fd00::/8",))
    assert four.host_sources == six.host_sources == ("10.0.0.0/8",)


@pytest.mark.parametrize(
    ("ips", "families"),
    [
        (["10.43.0.5"], [IPV4]),
        (["fd00:43::5"], [IPV6]),
        (["fd00:43::5", "10.43.0.5"], [IPV4, IPV6]),
        (["None"], []),
    ],
)
def test_a_family_without_an_address_serves_nothing(ips: list[str], families: list[str]) -> None:
    body = svc(clusterIPs=ips)
    assert [f for f in (IPV4, IPV6) if service(body, f) is not None] == families


def test_addresses_are_written_as_the_kernel_writes_them() -> None:
    assert written("FD00:0042:0:0:0:0:0:2") == "fd00:42::2"
    assert written("10.42.1.2") == "10.42.1.2"
    piece = {"metadata": {}, "addressType": "IPv6", "ports": [{"port": 80}],
             "endpoints": [{"addresses": ["fd00:42:0:1:0:0:0:2"], "nodeName": "n1"}]}  # fmt: skip
    assert endpoints([piece], IPV6) == {("", "tcp"): (Endpoint("fd00:42:0:1::2", 80, "n1"),)}
    assert endpoints([piece]) == {}


# -- what is decided ------------------------------------------------------------------------------


def test_everything_a_node_does_for_one_service() -> None:
    body = svc(
        type="LoadBalancer", externalIPs=["2001:db8::1"], loadBalancerSourceRanges=["fd00::/8"],
        status={"loadBalancer": {"ingress": [{"ip": "2001:db8::9"}, {"ip": "::1"}]}},
    )  # fmt: skip
    known = service(body, IPV6)
    assert known is not None
    found = {("", "tcp"): [Endpoint(*A, "n1"), Endpoint(*B, "n2")]}
    everyone = Pick((A, B), masquerade=True)
    assert service_entries(known, found, FACTS) == {
        VIP: Entry(CLUSTER_IP, Pick((A, B))),
        ("fd00:44::2", "tcp", 30080): Entry(NODE_PORT, everyone),
        ("2001:db8::1", "tcp", 80): Entry(EXTERNAL_IP, everyone),
        ("2001:db8::9", "tcp", 80): Entry(BALANCER, everyone, sources=("fd00::/8",)),
    }


def _pod(host_ip: str, *ips: str) -> dict[str, Any]:
    port = {"containerPort": 80, "hostPort": 8000, **({"hostIP": host_ip} if host_ip else {})}
    return {"spec": {"nodeName": "n1", "containers": [{"ports": [port]}]},
            "status": {"podIP": ips[0], "podIPs": [{"ip": i} for i in ips],
                       "phase": "Running"}}  # fmt: skip


BOTH = ("10.42.1.9", "fd00:42:0:1::9")


@pytest.mark.parametrize(
    ("pod", "at"),
    [
        (_pod("", *BOTH), "fd00:44::2"),
        (_pod("::", *BOTH), "fd00:44::2"),
        (_pod("0.0.0.0", *BOTH), ""),
        (_pod("2001:db8:0::7", *BOTH), "2001:db8::7"),
        (_pod("192.0.2.7", *BOTH), ""),
        (_pod("::1", *BOTH), ""),
        (_pod("", *BOTH[:1]), ""),
        (_pod("", *BOTH[1:]), "fd00:44::2"),
    ],
)
def test_host_ports(pod: dict[str, Any], at: str) -> None:
    entry = Entry(HOST_PORT, Pick((("fd00:42:0:1::9", 80),)))
    assert pod_entries(pod, FACTS) == ({(at, "tcp", 8000): entry} if at else {})


# -- what is written ------------------------------------------------------------------------------


def test_the_table_is_of_its_family() -> None:
    text = create(FACTS)
    assert text.startswith("add table ip6 sampan-proxy\n") and version(FACTS) in text
    assert "ipv4_addr" not in text and " ip daddr" not in text and " ip saddr" not in text
    assert "snat ip6 to fd00:44::2" in text and "ip6 saddr fd00:42::/56" in text
    assert "ip6 daddr fd00:43::/112 goto refuse" in text
    # Clients are remembered in maps of each Service: there is no map for all.
    assert "map affinity" not in text
    four = Facts("n1", ("10.44.0.2",), "10.44.0.2")
    assert "ip6" not in skeleton(four) and "map affinity" in skeleton(four)
    assert listing(IPV6) == "list table ip6 sampan-proxy"
    assert listing(IPV4, "affinity") == "list map ip sampan-proxy affinity"


def _sticky(table: Table, vip: Vip = VIP, *places: tuple[str, int]) -> Row:
    pick = Pick(places or (A, B), affinity=60, masquerade=True)
    return row(Entry(NODE_PORT, pick), table.rows.get(vip), table.memory(vip))


def test_a_service_with_affinity_has_maps_of_its_own() -> None:
    table = Table(family=IPV6)
    new = _sticky(table)
    memory = memory_of(new)
    assert new.verdict == f"masq-sticky-{memory}-pick-2" and new.record == f"keep-{memory}-60"
    assert closure(new.verdict) == (
        f"clients-{memory}", "pick-2", f"sticky-{memory}-pick-2", new.verdict,
    )  # fmt: skip
    text = table.command({VIP: new})
    maps, sticky = text.index(f"map clients-{memory}"), text.index(f"chain sticky-{memory}")
    assert maps < text.index(f"map ports-{memory}") < sticky < text.index("add element")
    table.put({VIP: new})
    # The same as long as there are any clients, also with other endpoints.
    assert memory_of(_sticky(table, VIP, A)) == memory
    gone = table.command({VIP: row(Entry(CLUSTER_IP, Pick((A,))), new, memory)})
    assert gone.index(f"delete chain ip6 sampan-proxy sticky-{memory}-pick-2") < gone.index(
        f"delete map ip6 sampan-proxy clients-{memory}"
    )
    assert f"delete map ip6 sampan-proxy ports-{memory}" in gone


def test_no_two_services_share_their_clients() -> None:
    table, other = Table(family=IPV6), ("fd00:43::6", "tcp", 80)
    first = int(table.memory(VIP), 16)
    crowded = Table(family=IPV6)
    crowded._memories[first] = other  # as if two hashes were the same
    assert int(crowded.memory(VIP), 16) == first + 1
    assert int(crowded.memory(VIP), 16) == first + 1
    crowded.put({VIP: _sticky(crowded)})
    crowded.put({VIP: None})
    assert first + 1 not in crowded._memories and first in crowded._memories
    assert Table().memory(("10.43.0.5", "tcp", 80)) == ""


def test_chain_texts() -> None:
    assert "dnat ip6 to meta l4proto . ip6 daddr . th dport" in chain("pick-3", IPV6)
    sticky = chain("sticky-0a-pick-3", IPV6)
    assert "ip6 saddr map @clients-0a : ip6 saddr map @ports-0a" in sticky
    assert "goto pick-3" in sticky
    keep = chain("keep-0a-7", IPV6)
    assert "update @clients-0a { ip6 saddr timeout 7s : ip6 daddr }" in keep
    assert "update @ports-0a { ip6 saddr timeout 7s : th dport }" in keep
    assert chains(Row("sticky-0a-pick-1", (A,), record="keep-0a-7")) == {
        "clients-0a", "pick-1", "sticky-0a-pick-1", "keep-0a-7",
    }  # fmt: skip


TEXT = """table ip6 sampan-proxy {
\tmap services {
\t\telements = { fd00:43::5 . 6 . 80 : goto masq-sticky-0000000a-pick-2,
\t\t\t     fd00:44::2 . 17 . 53 : goto masq-pick-1 }
\t}

\tmap inside {
\t}

\tmap refused {
\t\telements = { fd00:43::6 . 132 . 9 : goto refuse }
\t}

\tmap affine {
\t\telements = { fd00:43::5 . 6 . 80 : goto keep-0000000a-60 }
\t}

\tmap endpoints {
\t\telements = { 6 . fd00:43::5 . 80 . 0x00000001 : fd00:42:0:2::2 . 8080,
\t\t\t     6 . fd00:43::5 . 80 . 0x00000000 : fd00:42:0:1::2 . 8080,
\t\t\t     17 . fd00:44::2 . 53 . 0x00000000 : fd00:42:0:1::2 . 8080 }
\t}

\tmap inside-endpoints {
\t}

\tmap clients-0000000a {
\t\telements = { fd00:42:0:1::9 timeout 60s expires 51s : fd00:42:0:1::2 }
\t}

\tset restricted {
\t\telements = { fd00:44::2 . 17 . 53 }
\t}

\tset sources {
\t\telements = { fd00:44::2 . 17 . 53 . 2001:db8::1, fd00:44::2 . 17 . 53 . fd00::/8 }
\t}

\tset cluster-ips {
\t\telements = { fd00:43::5, fd00:43::6 }
\t}
}
"""


def test_what_nft_prints_is_read() -> None:
    table = parse(TEXT, IPV6)
    assert table.rows == {
        VIP: Row("masq-sticky-0000000a-pick-2", (A, B), record="keep-0000000a-60",
                 is_cluster_ip=True),
        ("fd00:44::2", "udp", 53): Row("masq-pick-1", (A,),
                                       sources=("2001:db8::1/128", "fd00::/8")),
        ("fd00:43::6", "sctp", 9): Row(refuse="reject", is_cluster_ip=True),
    }  # fmt: skip
    assert table.memory(("fd00:43::7", "tcp", 1)) != "0000000a"
    assert table.uses["clients-0000000a"] == 1


def test_clients_of_endpoints_that_went_are_forgotten() -> None:
    clients = """table ip6 sampan-proxy {
\tmap clients-0a {
\t\telements = { fd00:42:0:1::9 timeout 60s expires 51s : fd00:42:0:1::2,
\t\t\t     fd00:42:0:1::8 timeout 60s expires 51s : fd00:42:0:2::2 }
\t}
}
"""
    ports = "\t\telements = { fd00:42:0:1::9 timeout 60s expires 51s : 8080 }\n"
    delete = "delete element ip6 sampan-proxy"
    assert own_strays(clients, ports, "0a", frozenset((A,))) == [
        f"{delete} clients-0a {{ fd00:42:0:1::8 }}"
    ]
    assert own_strays(clients, ports, "0a", frozenset((B,))) == [
        f"{delete} clients-0a {{ fd00:42:0:1::8 }}",  # its port is not known: it is of no use
        f"{delete} clients-0a {{ fd00:42:0:1::9 }}", f"{delete} ports-0a {{ fd00:42:0:1::9 }}",
    ]  # fmt: skip


# -- the table of connections ---------------------------------------------------------------------


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def _tuple(kind: int, source: str, destination: str, ports: tuple[int, int]) -> bytes:
    ends = (_attribute(3 + i, socket.inet_pton(socket.AF_INET6, ip))
            for i, ip in enumerate((source, destination)))  # fmt: skip
    numbers = (_attribute(2 + i, struct.pack(">H", p)) for i, p in enumerate(ports))
    return _attribute(
        kind, _attribute(1, b"".join(ends)) + _attribute(2, _attribute(1, b"\x11")
        + b"".join(numbers)),
    )  # fmt: skip


def test_a_flow_of_ipv6_is_read() -> None:
    one = conntrack.flow(
        _tuple(1, "fd00:42:0:1::9", "fd00:43::5", (5000, 53))
        + _tuple(2, "fd00:42:0:1::2", "fd00:42:0:1::9", (8053, 5000))
    )
    assert one is not None
    assert (one.destination, one.answers) == (("fd00:43::5", 53), ("fd00:42:0:1::2", 8053))
    assert one.family == socket.AF_INET6
    assert conntrack.is_stale(one, {("fd00:43::5", 53): frozenset()})
