"""Which endpoints serve whom."""

from __future__ import annotations

import pytest

from sampan.network.backends import (
    Endpoint,
    Ingress,
    ServicePort,
    cluster_wide,
    endpoints,
    on_node,
    ready_addresses,
    service,
)


def svc(status=None, labels=None, **spec):
    spec = {"clusterIP": "10.43.0.5", "type": "ClusterIP", "ports": [{"port": 80}], **spec}
    meta = {"namespace": "n", "name": "s", "labels": labels or {}}
    return {"metadata": meta, "spec": spec, "status": status or {}}


@pytest.mark.parametrize(
    "body",
    [
        svc(clusterIP="None"),
        svc(clusterIP="", type="ExternalName", externalName="x"),
        svc(clusterIP=""),
        svc(clusterIP="fd00::1"),
        svc(labels={"service.kubernetes.io/service-proxy-name": "other"}),
    ],
)
def test_not_served(body):
    assert service(body) is None


def test_a_service():
    body = svc(
        type="LoadBalancer",
        clusterIPs=["10.43.0.5", "fd00::1"],
        ports=[{"name": "a", "port": 80, "nodePort": 30080},
               {"name": "b", "protocol": "UDP", "port": 53}],
        externalIPs=["192.0.2.1", "2001:db8::1"],
        sessionAffinity="ClientIP",
        externalTrafficPolicy="Local",
        healthCheckNodePort=30999,
        loadBalancerSourceRanges=["10.0.0.0/8", " 192.0.2.0/24 ", "2001:db8::/32"],
        status={"loadBalancer": {"ingress": [
            {"ip": "198.51.100.1"}, {"ip": "127.1.2.3", "ipMode": "Proxy", "ports": [
                {"port": 80, "protocol": "TCP"}, {"port": 53, "protocol": "UDP", "error": "x.y/Z"},
            ]}, {"hostname": "x"},
        ]}},
    )  # fmt: skip
    got = service(body)
    assert got is not None
    assert got.cluster_ips == ("10.43.0.5",)
    assert got.ports == (ServicePort("a", "tcp", 80, 30080), ServicePort("b", "udp", 53))
    assert got.external_ips == ("192.0.2.1",)
    assert got.virtual_ips == ("198.51.100.1",)
    assert got.ingress == (
        Ingress("198.51.100.1"),
        Ingress("127.1.2.3", ((80, "tcp"),), is_virtual=False),
    )
    assert (got.affinity, got.health_port, got.external_local) == (10800, 30999, True)
    assert got.sources == ("10.0.0.0/8", "192.0.2.0/24")


def test_what_does_not_count():
    """Left-overs of another type, as an update of the type leaves them."""
    got = service(
        svc(
            ports=[{"port": 80, "nodePort": 30080}],
            externalTrafficPolicy="Local",
            healthCheckNodePort=30999,
            sessionAffinity="ClientIP",
            sessionAffinityConfig={"clientIP": {"timeoutSeconds": 5}},
            status={"loadBalancer": {"ingress": [{"ip": "198.51.100.1"}]}},
        )
    )
    assert got is not None
    assert (got.ports[0].node_port, got.ingress, got.external_local, got.health_port) == (
        0, (), False, 0,
    )  # fmt: skip
    assert got.affinity == 5 and not got.is_external


def piece(*found, ports=({"name": "", "port": 80},), kind="IPv4", labels=None):
    return {"metadata": {"labels": labels or {}}, "addressType": kind, "ports": [*ports],
            "endpoints": [*found]}  # fmt: skip


def test_endpoints_of_slices():
    a = {"addresses": ["10.42.1.2"], "nodeName": "n1"}
    b = {"addresses": ["10.42.1.3", "10.42.1.4"], "conditions": {"ready": False, "serving": True,
         "terminating": True}, "hints": {"forZones": [{"name": "z"}],
         "forNodes": [{"name": "n1"}]}}  # fmt: skip
    got = endpoints([
        piece(b, a, ports=({"name": "x", "protocol": "UDP", "port": 53}, {"name": "all"})),
        piece({"addresses": ["fd00::2"]}, kind="IPv6"),
        piece(a, labels={"service.kubernetes.io/headless": ""}),
    ])  # fmt: skip
    assert got == {
        ("x", "udp"): (
            Endpoint("10.42.1.2", 53, "n1"),
            Endpoint("10.42.1.3", 53, "", False, True, True, ("z",), ("n1",)),
        )
    }


@pytest.mark.parametrize("turned", [False, True])
def test_an_endpoint_of_two_slices_is_as_ready_as_it_can_be(turned):
    gone = {"addresses": ["10.42.1.2"], "conditions": {"ready": False, "serving": False}}
    here = {"addresses": ["10.42.1.2"], "conditions": {"ready": True}}
    pieces = [piece(gone), piece(here)]
    got = endpoints(reversed(pieces) if turned else pieces)
    assert [e.ready for e in got["", "tcp"]] == [True]


READY = {"ready": True, "serving": True, "terminating": False}
DRAINS = {"ready": False, "serving": True, "terminating": True}
GONE = {"ready": False, "serving": False, "terminating": True}
STARTS = {"ready": False, "serving": False, "terminating": False}


def e(name, state=READY, node="", zones=(), nodes=()):
    return Endpoint(name, 80, node, zones=tuple(zones), nodes=tuple(nodes), **state)


@pytest.mark.parametrize(
    ("found", "where", "chosen"),
    [
        ([e("a"), e("b", STARTS), e("c", DRAINS)], {}, "a"),
        ([e("b", STARTS), e("c", DRAINS), e("d", GONE)], {}, "c"),
        ([e("d", GONE), e("b", STARTS)], {}, ""),
        ([e("a", zones="x"), e("b", zones="y")], {"zone": "y"}, "b"),
        ([e("a", zones="x"), e("b", zones="y")], {"zone": ""}, "ab"),
        ([e("a", zones="x"), e("b", zones="y")], {"zone": "z"}, "ab"),
        ([e("a", zones="x"), e("b")], {"zone": "x"}, "ab"),
        ([e("a", zones="x"), e("b", STARTS)], {"zone": "x"}, "a"),
        ([e("a", nodes="1", zones="x"), e("b", nodes="2", zones="x")], {"node": "2"}, "b"),
        ([e("a", nodes="1", zones="x"), e("b", nodes="2", zones="y")],
         {"node": "3", "zone": "y"}, "b"),
        ([e("a", nodes="1"), e("b")], {"node": "1"}, "ab"),
        ([e("a", DRAINS, zones="x"), e("b", DRAINS, zones="y")], {"zone": "y"}, "ab"),
    ],
)  # fmt: skip
def test_cluster_wide(found, where, chosen):
    assert "".join(x.address for x in cluster_wide(found, **where)) == chosen


@pytest.mark.parametrize(
    ("found", "chosen"),
    [
        ([e("a", node="1"), e("b", node="2"), e("c", DRAINS, node="1")], "a"),
        ([e("b", node="2"), e("c", DRAINS, node="1"), e("d", GONE, node="1")], "c"),
        ([e("b", node="2"), e("d", STARTS, node="1"), e("x")], ""),
    ],
)
def test_on_node(found, chosen):
    assert "".join(x.address for x in on_node(found, "1")) == chosen


def test_a_health_check_counts_addresses_not_ports():
    found = [e("a", node="1"), e("b", node="2"), e("c", DRAINS, node="1")]
    assert ready_addresses([found, found], "1") == 1
