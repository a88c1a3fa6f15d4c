"""From Services to elements of the kernel's maps: golden pairs."""

from __future__ import annotations

import pytest

from sampan.network.backends import Endpoint, Ingress, Service, ServicePort
from sampan.network.claims import Claims
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
    foreign,
    has_host_ports,
    numbered,
    pod_entries,
    row,
    service_entries,
)
from sampan.network.ruleset import Table, chain, closure, create, parse, skeleton, strays, version

FACTS = Facts("n1", ("10.44.0.2",), "10.44.0.2", own=frozenset(("10.43.0.10",)))
VIP = ("10.43.0.5", "tcp", 80)
A, B = ("10.42.1.2", 8080), ("10.42.2.2", 8080)
DRAINS = {"ready": False, "serving": True, "terminating": True}


def svc(**fields):
    port = ServicePort("", "tcp", 80, fields.pop("node_port", 0))
    return Service(**{"namespace": "n", "name": "s", "type": "ClusterIP",
                      "cluster_ips": ("10.43.0.5",), "ports": (port,), **fields})  # fmt: skip


def entries(service, *found):
    return service_entries(service, {("", "tcp"): found}, FACTS)


HERE, THERE = Endpoint(*A, "n1"), Endpoint(*B, "n2")


@pytest.mark.parametrize(
    ("service", "found", "wanted"),
    [
        (svc(), [HERE, THERE], {VIP: Entry(CLUSTER_IP, Pick((A, B)))}),
        (svc(), [], {VIP: Entry(CLUSTER_IP, refuse="reject")}),
        (svc(affinity=5), [HERE], {VIP: Entry(CLUSTER_IP, Pick((A,), affinity=5))}),
        (svc(internal_local=True), [HERE, THERE], {VIP: Entry(CLUSTER_IP, Pick((A,)))}),
        (svc(internal_local=True), [THERE], {VIP: Entry(CLUSTER_IP, refuse="drop")}),
        (svc(internal_local=True), [], {VIP: Entry(CLUSTER_IP, refuse="reject")}),
        (svc(internal_local=True), [THERE, Endpoint(*A, "n1", **DRAINS)],
         {VIP: Entry(CLUSTER_IP, Pick((A,)))}),
        (svc(cluster_ips=("10.43.0.10",)), [HERE], {}),
    ],
)  # fmt: skip
def test_cluster_ip(service, found, wanted):
    assert entries(service, *found) == wanted


def outside(service, *found):
    got = entries(service, *found)
    return {vip: entry for vip, entry in got.items() if vip[0] != "10.43.0.5"}


NODE_VIP = ("10.44.0.2", "tcp", 30080)
EVERYONE = Pick((A, B), masquerade=True)


@pytest.mark.parametrize(
    ("fields", "found", "entry"),
    [
        ({}, [HERE, THERE], Entry(NODE_PORT, EVERYONE)),
        ({}, [], Entry(NODE_PORT, refuse="reject")),
        ({"external_local": True}, [HERE, THERE], Entry(NODE_PORT, Pick((A,)), EVERYONE)),
        ({"external_local": True}, [THERE],
         Entry(NODE_PORT, None, Pick((B,), masquerade=True), "drop")),
        ({"external_local": True}, [], Entry(NODE_PORT, refuse="reject")),
        ({"external_local": True, "affinity": 9}, [HERE],
         Entry(NODE_PORT, Pick((A,), affinity=9), Pick((A,), masquerade=True, affinity=9))),
    ],
)  # fmt: skip
def test_node_port(fields, found, entry):
    assert outside(svc(type="NodePort", node_port=30080, **fields), *found) == {NODE_VIP: entry}


def test_other_ways_in():
    service = svc(
        type="LoadBalancer", external_ips=("192.0.2.1",), virtual_ips=("198.51.100.1", "127.1.1.1"),
        ingress=(Ingress("198.51.100.1"), Ingress("127.1.1.1")), sources=("10.0.0.0/8",),
    )  # fmt: skip
    assert outside(service, HERE, THERE) == {
        ("192.0.2.1", "tcp", 80): Entry(EXTERNAL_IP, EVERYONE),
        ("198.51.100.1", "tcp", 80): Entry(BALANCER, EVERYONE, sources=("10.0.0.0/8",)),
    }


def pod(**spec):
    ports = [{"containerPort": 80, "hostPort": 8000}]
    spec = {"nodeName": "n1", "containers": [{"ports": ports}], **spec}
    return {"spec": spec, "status": {"podIP": "10.42.1.9", "phase": "Running"}}


HOST = Entry(HOST_PORT, Pick((("10.42.1.9", 80),)))
LOCAL = Entry(HOST_PORT, Pick((("10.42.1.9", 80),), masquerade=True))


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        (pod(), {("10.44.0.2", "tcp", 8000): HOST, ("127.0.0.1", "tcp", 8000): LOCAL}),
        (pod(nodeName="n2"), {}),
        (pod(hostNetwork=True), {}),
        ({**pod(), "status": {"podIP": "10.42.1.9", "phase": "Succeeded"}}, {}),
        ({**pod(), "status": {"phase": "Pending"}}, {}),
        (pod(containers=[{"ports": [{"containerPort": 80}]}]), {}),
        (pod(containers=[{"ports": [{"containerPort": 80, "hostPort": 53, "protocol": "UDP",
                                     "hostIP": "192.0.2.9"}]}]),
         {("192.0.2.9", "udp", 53): HOST}),
        (pod(containers=[{"ports": [{"containerPort": 80, "hostPort": 5, "hostIP": "127.0.0.1"}]}]),
         {("127.0.0.1", "tcp", 5): LOCAL}),
        (pod(containers=[{"ports": [{"containerPort": 80, "hostPort": 5, "hostIP": "127.0.0.2"}]}]),
         {}),
    ],
)  # fmt: skip
def test_host_ports(body, wanted):
    assert pod_entries(body, FACTS) == wanted
    assert has_host_ports(body) or not wanted


def test_of_several_claims_one_counts():
    claims: Claims[Entry] = Claims()
    first, second = Entry(NODE_PORT, Pick((A,))), Entry(HOST_PORT, Pick((B,)))
    assert claims.put("pod:x", {VIP: second}) == {VIP}
    assert claims.put("n/s", {VIP: first}) == {VIP}
    assert claims.entry(VIP) == first and claims.losers(VIP) == ["pod:x"]
    assert claims.put("n/s", {VIP: first}) == set()
    assert claims.put("a/s", {VIP: first}) == {VIP}
    assert claims.winner(VIP) == ("a/s", first)
    for owner in ("n/s", "a/s"):
        assert claims.put(owner, {}) == {VIP}
    assert claims.entry(VIP) == second
    claims.put("pod:x", {})
    assert claims.entry(VIP) is None and claims.vips() == set()


@pytest.mark.parametrize(
    ("old", "wanted", "new"),
    [
        ("", "ba", "ab"), ("abc", "abc", "abc"), ("abc", "ac", "ac"), ("abcd", "abd", "abd"),
        ("abcd", "bcd", "dbc"), ("abc", "abcd", "abcd"), ("abc", "xbc", "xbc"), ("ba", "ab", "ba"),
        ("abc", "", ""),
    ],
)  # fmt: skip
def test_numbers_are_kept(old, wanted, new):
    def places(text):
        return tuple((c, 1) for c in text)

    assert numbered(places(old), places(wanted)) == places(new)


def test_rows():
    entry = Entry(NODE_PORT, Pick((A,), affinity=9), Pick((A, B), masquerade=True, affinity=9),
                  sources=("10.1.2.3/8", "10.1.0.0/16", "192.0.2.1/32"))  # fmt: skip
    assert row(entry, None) == Row(
        "affine-pick-1", (A,), "masq-affine-inside-2", (A, B), "", "record-9",
        ("10.0.0.0/8", "192.0.2.1/32"), False,
    )  # fmt: skip


def test_commands_are_small():
    """One endpoint changed: one element out, one in."""
    table = Table()
    places = [(f"10.42.1.{i}", 80) for i in range(10, 20)]
    table.put({VIP: row(Entry(CLUSTER_IP, Pick(tuple(places))), None)})
    places[4] = ("10.42.9.9", 80)  # of the number it has
    change = {VIP: row(Entry(CLUSTER_IP, Pick(tuple(places))), table.rows[VIP])}
    assert table.command(change) == (
        "delete element ip sampan-proxy endpoints { 6 . 10.43.0.5 . 80 . 4 }\n"
        "add element ip sampan-proxy endpoints { 6 . 10.43.0.5 . 80 . 4 : 10.42.9.9 . 80 }\n"
    )
    assert table.command({VIP: table.rows[VIP]}) == ""


def test_chains_come_first_and_go_last():
    table = Table()
    new = {VIP: row(Entry(CLUSTER_IP, Pick((A,), affinity=9, masquerade=True)), None)}
    text = table.command(new)
    for name in ("pick-1", "affine-pick-1", "masq-affine-pick-1", "record-9"):
        assert text.index(f"chain {name} {{") < text.index("add element")
    assert text.index("chain pick-1") < text.index("chain affine-") < text.index("chain masq-")
    table.put(new)
    text = table.command({VIP: None})
    gone = [line.split()[-1] for line in text.splitlines() if line.startswith("delete chain")]
    assert gone == ["masq-affine-pick-1", "affine-pick-1", "record-9", "pick-1"]
    assert text.rindex("delete element") < text.index("delete chain")


def test_a_chain_of_two_services_stays_for_the_other():
    table = Table()
    other = ("10.43.0.6", "tcp", 80)
    table.put(dict.fromkeys((VIP, other), row(Entry(CLUSTER_IP, Pick((A,))), None)))
    assert "chain" not in table.command({VIP: None})
    table.put({VIP: None})
    assert "delete chain ip sampan-proxy pick-1" in table.command({other: None})


def test_the_address_of_two_ports_stays_known():
    table = Table()
    other = ("10.43.0.5", "tcp", 81)
    table.put(dict.fromkeys((VIP, other), row(Entry(CLUSTER_IP, refuse="reject"), None)))
    assert "cluster-ips" not in table.command({VIP: None})
    table.put({VIP: None})
    assert "delete element ip sampan-proxy cluster-ips { 10.43.0.5 }" in table.command(
        {other: None}
    )


def test_the_skeleton_has_a_version_of_its_own():
    moved = Facts("n1", ("10.44.0.3",), "10.44.0.3")
    assert version(FACTS) == version(Facts("x", ("10.44.0.2",), "10.44.0.2", zone="z"))
    assert version(FACTS) != version(moved)
    text = create(FACTS)
    assert text.index("add table") < text.index("delete table") < text.index("chain nat-output")
    assert f"chain {version(FACTS)}" in text and "10.44.0.2" in skeleton(FACTS)


def test_chain_texts():
    assert closure("masq-affine-inside-3") == (
        "inside-3",
        "affine-inside-3",
        "masq-affine-inside-3",
    )
    assert "numgen random mod 3" in chain("pick-3") and "@endpoints" in chain("pick-3")
    assert "@inside-endpoints" in chain("inside-3")
    assert "goto affine-pick-3" in chain("masq-affine-pick-3")
    assert "@affinity" in chain("affine-pick-3") and "timeout 7s" in chain("record-7")


def test_what_nft_prints_is_read():
    text = """table ip sampan-proxy {
\tmap services {
\t\ttype ipv4_addr . inet_proto . inet_service : verdict
\t\telements = { 10.43.0.5 . 6 . 80 : goto pick-2,
\t\t\t     10.44.0.2 . 17 . 53 : goto masq-pick-1 }
\t}

\tmap inside {
\t\ttype ipv4_addr . inet_proto . inet_service : verdict
\t}

\tmap refused {
\t\telements = { 10.43.0.6 . 132 . 9 : goto refuse, 10.43.0.7 . 6 . 9 : drop }
\t}

\tmap affine {
\t\telements = { 10.43.0.5 . 6 . 80 : goto record-60 }
\t}

\tmap endpoints {
\t\telements = { 6 . 10.43.0.5 . 80 . 0x00000001 : 10.42.2.2 . 8080,
\t\t\t     6 . 10.43.0.5 . 80 . 0x00000000 : 10.42.1.2 . 8080,
\t\t\t     17 . 10.44.0.2 . 53 . 0x00000000 : 10.42.1.2 . 8080 }
\t}

\tmap inside-endpoints {
\t}

\tmap affinity {
\t\telements = { 10.42.1.9 . 6 . 10.43.0.5 . 80 timeout 60s expires 51s : 10.42.1.2 . 8080 }
\t}

\tset restricted {
\t\telements = { 10.44.0.2 . 17 . 53 }
\t}

\tset sources {
\t\telements = { 10.44.0.2 . 17 . 53 . 192.0.2.1,
\t\t\t     10.44.0.2 . 17 . 53 . 10.0.0.0/8 }
\t}

\tset cluster-ips {
\t\telements = { 10.43.0.5, 10.43.0.6, 10.43.0.7 }
\t}
}
"""
    assert parse(text).rows == {
        VIP: Row("pick-2", (A, B), record="record-60",
                 is_cluster_ip=True),
        ("10.44.0.2", "udp", 53): Row("masq-pick-1", (A,), sources=("10.0.0.0/8", "192.0.2.1/32")),
        ("10.43.0.6", "sctp", 9): Row(refuse="reject", is_cluster_ip=True),
        ("10.43.0.7", "tcp", 9): Row(refuse="drop", is_cluster_ip=True),
    }  # fmt: skip
    key = "10.42.1.9 . 6 . 10.43.0.5 . 80"
    forget = [f"delete element ip sampan-proxy affinity {{ {key} }}"]
    assert strays(text, {VIP: frozenset((B,))}) == forget
    assert strays(text, {VIP: frozenset((A, B))}) == []
    assert strays(text, {}) == []


def test_foreign_addresses_are_those_of_nobody_here():
    facts = Facts("n1", ("10.44.0.2",), "10.44.0.2", own=frozenset(("10.43.0.1",)))
    vips = [("10.43.0.5", "tcp", 80), ("10.43.0.1", "tcp", 443), ("10.44.0.2", "tcp", 30080),
            ("127.0.0.1", "tcp", 80), ("192.0.2.1", "tcp", 80), ("192.0.2.1", "udp", 53),
            ("198.51.100.1", "tcp", 80)]  # fmt: skip
    assert foreign(vips, facts) == {"192.0.2.1", "198.51.100.1"}
