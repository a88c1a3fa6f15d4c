"""Which addresses a cluster uses, and which ranges are refused."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.lib import addressing
from sampan.lib.addressing import Addresses, NoneFree, Pool, Unusable, plan, take_all

V4 = Addresses("10.42.0.0/16", "10.43.0.0/16")
V6 = Addresses("fd00:42::/56", "fd00:43::/112")


@pytest.mark.parametrize(
    ("asked", "of"),
    [
        ({}, (V4,)),
        ({"families": "ipv4"}, (V4,)),
        ({"families": "IPv6"}, (V6,)),
        ({"families": "ipv4,ipv6"}, (V4, V6)),
        ({"families": "ipv6, ipv4"}, (V6, V4)),
        ({"pods": "10.0.0.0/16"}, (Addresses("10.0.0.0/16", V4.services),)),
        ({"services": "fd01::/112,10.1.0.0/16"},
         (Addresses(V6.pods, "fd01::/112"), Addresses(V4.pods, "10.1.0.0/16"))),
        ({"families": "ipv6,ipv4", "pods": "fd01::/48,10.0.0.0/20", "services": "fd02::/108,"
          "10.1.0.0/28", "last": 15},
         (Addresses("fd01::/48", "fd02::/108"), Addresses("10.0.0.0/20", "10.1.0.0/28"))),
    ],
)  # fmt: skip
def test_what_is_asked_for(asked, of):
    assert plan(**asked).of == of


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"families": "ipv5"}, "--ip-families must be ipv4, ipv6, or both"),
        ({"families": "ipv4,ipv4"}, "--ip-families must be ipv4, ipv6, or both"),
        ({"families": ","}, "--ip-families must be ipv4, ipv6, or both"),
        ({"pods": "10.0.0.1/16"}, "'10.0.0.1/16' is not a range"),
        ({"pods": "10.0.0.0"}, "is an address; a range has a /length"),
        ({"pods": "10.0.0.0/16,10.1.0.0/16"}, "more than one range of IPv4"),
        ({"families": "ipv4", "pods": "fd01::/48"}, "one range of each of IPv4"),
        ({"families": "ipv4,ipv6", "pods": "10.0.0.0/16"}, "one range of each of IPv4, IPv6"),
        ({"families": "ipv4,ipv6", "pods": "fd01::/48,10.0.0.0/16"}, "in the order IPv4, IPv6"),
        ({"pods": "10.0.0.0/16", "services": "fd02::/112"}, "--service-cidr must have one range"),
        ({"pods": "10.0.0.0/20", "last": 16}, "no room for 16 node(s)"),
        ({"pods": "10.0.0.0/24"}, "no room for 1 node(s)"),
        ({"pods": "fd01::/64"}, "no room for 1 node(s)"),
        ({"services": "10.0.0.0/8"}, "must have a length from /12 to /28"),
        ({"services": "10.0.0.0/29"}, "must have a length from /12 to /28"),
        ({"services": "fd02::/64"}, "must have a length from /108 to /124"),
        ({"services": "10.42.8.0/24"}, "overlap"),
        ({"pods": "10.44.0.0/16"}, "overlaps 10.44.0.0/16, which the nodes use"),
        ({"pods": "fd00:44::/56"}, "overlaps fd00:44::/64, which the nodes use"),
        ({"pods": "127.0.0.0/8"}, "is not a range for pods or Services"),
        ({"services": "fe80::/112"}, "is not a range for pods or Services"),
        ({"services": "224.0.0.0/16"}, "is not a range for pods or Services"),
    ],
)  # fmt: skip
def test_what_is_refused(asked, why):
    with pytest.raises(Unusable) as e:
        plan(**asked)
    assert why in str(e.value) and "\n" not in str(e.value)


def test_what_follows_from_the_ranges():
    assert (V4.api, V4.dns, V4.api_end, V4.dns_end) == (
        "10.43.0.1", "10.43.0.10", "10.44.1.1", "10.44.1.2",
    )  # fmt: skip
    assert (V6.api, V6.dns, V6.api_end, V6.dns_end) == (
        "fd00:43::1", "fd00:43::a", "fd00:44::1:1", "fd00:44::1:2",
    )  # fmt: skip
    both = plan("ipv4,ipv6")
    assert both.node(1) == ("10.44.0.2", "fd00:44::2")
    assert both.node(250) == ("10.44.0.251", "fd00:44::fb")
    assert both.pods_of(3) == ("10.42.3.0/24", "fd00:42:0:3::/64")
    assert both.families == ("IPv4", "IPv6") and both.primary == V4
    assert (V4.switch, V6.switch) == ("10.44.0.1", "fd00:44::1")


@given(st.sampled_from([("ipv4", 8, 23), ("ipv6", 16, 63)]), st.data())
def test_no_two_nodes_share_anything(shape, data):
    family, low, high = shape
    length = data.draw(st.integers(low, high))
    base = "11.0.0.0" if family == "ipv4" else "fd99::"
    a = plan(family, f"{base}/{length}").primary
    count = min(a.most_nodes, 250)
    pods = [ipaddress.ip_network(a.pods_of(i)) for i in range(1, count + 1)]
    whole = ipaddress.ip_network(a.pods)
    assert all(n.subnet_of(whole) for n in pods) and len({*pods}) == count
    nodes = {a.node(i) for i in range(1, count + 1)}
    taken = nodes | {a.api_end, a.dns_end, a.switch}
    assert len(taken) == count + 3
    assert all(ipaddress.ip_address(n) in ipaddress.ip_network(a.nodes) for n in taken)
    assert all(ipaddress.ip_address(n) in ipaddress.ip_network(a.links) for n in nodes)


@given(st.lists(st.booleans(), max_size=40))
def test_a_pool_never_gives_what_is_taken(steps):
    pool = Pool("10.0.0.0/28")
    held: list[str] = []
    for take in steps:
        if take:
            try:
                address = pool.take()
            except NoneFree:
                assert len(held) == 13
                continue
            assert address not in held
            assert 2 <= int(ipaddress.ip_address(address)) & 15 <= 14
            held.append(address)
        elif held:
            pool.give_back([held.pop(0)])


def test_what_was_given_back_is_given_again_last():
    pool = Pool("fd00::/64")
    first = pool.take()
    pool.give_back([first])
    assert (first, pool.take()) == ("fd00::2", "fd00::3")


def test_one_of_each_or_none():
    wide, narrow = Pool("10.0.0.0/24"), Pool("fd00::/125")
    for _ in range(5):
        take_all((wide, narrow))
    with pytest.raises(NoneFree):
        take_all((wide, narrow))
    wide.hold(["10.0.0.8"])  # 10.0.0.7 went back: it is not lost
    assert wide.take() == "10.0.0.9"
    assert len(addressing.DEFAULT.of) == 1
