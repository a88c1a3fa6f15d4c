"""Compiled rules against the plain meaning of the policies, and the way between two states."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.api.obj import Body
from sampan.api.rules import policies as api
from sampan.network.policy.judge import Flow, allows
from sampan.network.policy.model import EGRESS, INGRESS, NamedPort, Pod, Policy, View, pod, policy
from sampan.network.policy.rules import (
    Alias,
    Chain,
    Facts,
    Match,
    State,
    begin,
    compile_,
    difference,
    version,
)

FACTS = {
    n: Facts(n, (f"10.44.0.{i}", f"fd00:44::{i}")) for i, n in ((2, "n1"), (3, "n2"))
}  # fmt: skip
OUTSIDE = ("192.0.2.7", "2001:db8::7")
NAMESPACES = {"a": {"team": "x"}, "b": {"team": "y"}}


# -- a kernel in a few lines ----------------------------------------------------------------------


def _holds(match: Match, state: State, flow: Flow) -> bool:
    ip = flow.source if match.direction == INGRESS else flow.destination
    if match.pods and ip not in state.sets[match.pods][1]:
        return False
    if match.block is not None and not match.block.holds(ip):
        return False
    if match.protocol and match.protocol != flow.protocol:
        return False
    if match.places:
        return f"{flow.destination} . {flow.port}" in state.sets[match.places][1]
    return not match.protocol or match.low <= flow.port <= match.high


def _returns(chain: Chain, state: State, flow: Flow) -> bool:
    return next((not m.drop for m in chain if _holds(m, state, flow)), False)


def passes(state: State, flow: Flow) -> bool:
    """What the table does with a first packet that is forwarded."""
    if flow.source == flow.destination and flow.source in state.hairpins:
        return True
    for direction, ip in ((EGRESS, flow.source), (INGRESS, flow.destination)):
        chain = state.isolated[direction].get(ip)
        if chain is not None and not _returns(state.chains[chain], state, flow):
            return False
    return True


# -- policies -------------------------------------------------------------------------------------

_labels = st.dictionaries(st.sampled_from(("app", "tier")), st.sampled_from(("p", "q")), max_size=2)
_selector: st.SearchStrategy[Body] = st.one_of(
    st.just({}),
    st.builds(lambda m: {"matchLabels": m}, _labels),
    st.builds(
        lambda k, o: {"matchExpressions": [{"key": k, "operator": o, **(
            {"values": ["p"]} if o in ("In", "NotIn") else {})}]},
        st.sampled_from(("app", "team", "tier")),
        st.sampled_from(("In", "NotIn", "Exists", "DoesNotExist")),
    ),
)  # fmt: skip
_teams = st.sampled_from(({}, {"matchLabels": {"team": "x"}}, {"matchLabels": {"team": "z"}}))
_peer: st.SearchStrategy[Body] = st.one_of(
    st.builds(lambda s: {"podSelector": s}, _selector),
    st.builds(lambda s: {"namespaceSelector": s}, _teams),
    st.builds(lambda s, t: {"podSelector": s, "namespaceSelector": t}, _selector, _teams),
    st.sampled_from((
        {"ipBlock": {"cidr": "0.0.0.0/0"}}, {"ipBlock": {"cidr": "10.42.0.0/16"}},
        {"ipBlock": {"cidr": "10.42.0.0/16", "except": ["10.42.1.0/24", "10.42.1.2/32"]}},
        {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}},
        {"ipBlock": {"cidr": "192.0.2.0/24"}}, {"ipBlock": {"cidr": "fd00::/8"}},
        {"ipBlock": {"cidr": "::/0", "except": ["fd00:42:0:1::/64", "fd00:42:0:2::2/127"]}},
        {"ipBlock": {"cidr": "2001:db8::/32"}},
    )),
)  # fmt: skip
_port: st.SearchStrategy[Body] = st.one_of(
    st.builds(
        lambda p, n: {"protocol": p, **n}, st.sampled_from(("TCP", "UDP", "SCTP")),
        st.sampled_from(({}, {"port": 80}, {"port": 80, "endPort": 90}, {"port": "web"})),
    ),
    st.just({"port": 443}),
)  # fmt: skip


def _rule(side: str) -> st.SearchStrategy[Body]:
    peers, ports = st.lists(_peer, max_size=2), st.lists(_port, max_size=2)
    return st.builds(lambda p, q: {k: v for k, v in ((side, p), ("ports", q)) if v}, peers, ports)


def _body(namespace: str, selector: Body, types: list[str], i: list[Body], e: list[Body]) -> Body:
    spec = {"podSelector": selector, "policyTypes": types, "ingress": i, "egress": e}
    body = {"metadata": {"namespace": namespace, "name": "x"}, "spec": spec}
    api.default(body)
    assert api.validate(body) == []
    return body


_bodies = st.builds(
    _body, st.sampled_from(("a", "b")), _selector,
    st.sampled_from(([], ["Ingress"], ["Egress"], ["Ingress", "Egress"])),
    st.lists(_rule("from"), max_size=2), st.lists(_rule("to"), max_size=2),
)  # fmt: skip
_ports = st.sampled_from((
    (), (NamedPort("web", "tcp", 80),), (NamedPort("web", "tcp", 8080), NamedPort("web", "udp", 5)),
))  # fmt: skip
_shape = st.tuples(
    st.sampled_from(("a", "b")), _labels, _ports, st.sampled_from(("n1", "n2")),
    st.sampled_from(((4,), (6,), (4, 6), (6, 4))),
)  # fmt: skip


def _ips(node: int, number: int, families: tuple[int, ...]) -> tuple[str, ...]:
    made = {4: f"10.42.{node}.{number}", 6: f"fd00:42:0:{node}::{number}"}
    return tuple(made[f] for f in families)


@st.composite
def views(draw: st.DrawFn) -> View:
    shapes = draw(st.lists(_shape, min_size=2, max_size=5))
    pods = tuple(
        Pod(ns, f"p{i}", labels, _ips(1 + (node == "n2"), 2 + i, families), node, ports)
        for i, (ns, labels, ports, node, families) in enumerate(shapes)
    )
    bodies = draw(st.lists(_bodies, max_size=4))
    found = tuple(
        Policy(p.namespace, f"np{i}", p.pods, p.types, p.ingress, p.egress)
        for i, p in enumerate(map(policy, bodies))
    )
    return View(found, pods, NAMESPACES)


def flows(view: View) -> list[Flow]:
    ips = [*(ip for p in view.pods for ip in p.ips), *OUTSIDE]
    kinds = [("tcp", 80), ("tcp", 85), ("tcp", 443), ("tcp", 8080), ("udp", 5), ("sctp", 80),
             ("icmp", 0)]  # fmt: skip
    return [
        Flow(s, d, k, n) for s in ips for d in ips for k, n in kinds
        if (":" in s) == (":" in d) and not (s == d and s in OUTSIDE)
    ]  # fmt: skip


@settings(max_examples=250)
@given(views())
def test_the_rules_say_what_the_policies_mean(view: View) -> None:
    """Each connection passes the nodes of both of its ends, and passes where it may."""
    states = {n: compile_(view, f) for n, f in FACTS.items()}
    node_of = {ip: p.node for p in view.pods for ip in p.ips}
    for flow in flows(view):
        nodes = {node_of.get(flow.source), node_of.get(flow.destination)} - {None}
        passed = all(passes(states[n], flow) for n in nodes if n)
        assert passed == allows(view, flow), flow


# -- from one state to another --------------------------------------------------------------------


def _run(state: dict[str, Any], text: str) -> None:
    """The commands, with the kernel's own checks: what is referred to must be there, what is there
    cannot be added, what is referred to cannot go."""
    for line in text.splitlines():
        if m := re.fullmatch(r"(add|delete) element inet sampan-policy (\S+) \{ (.*) \}", line):
            verb, name, elements = m.groups()
            for element in elements.split(", "):
                key, _, chain = element.partition(" : goto ")
                assert (key in state["sets"][name]) == (verb == "delete"), line
                if verb == "add":
                    assert not chain or chain in state["chains"]
                    state["sets"][name][key] = chain
                else:
                    del state["sets"][name][key]
        elif m := re.fullmatch(r"add set inet sampan-policy (\S+) \{ type .*; \}", line):
            assert m[1] not in state["sets"]
            state["sets"][m[1]] = {}
        elif m := re.fullmatch(r"add chain inet sampan-policy (\S+)", line):
            assert m[1] not in state["chains"]
            state["chains"][m[1]] = []
        elif m := re.fullmatch(r"add rule inet sampan-policy (\S+) (.*)", line):
            assert set(re.findall(r"@(\S+)", m[2])) <= state["sets"].keys()
            state["chains"][m[1]].append(m[2])
        elif m := re.fullmatch(r"flush (?:set|map) inet sampan-policy (\S+)", line):
            state["sets"][m[1]].clear()
        elif m := re.fullmatch(r"flush chain inet sampan-policy (\S+)", line):
            assert state["chains"][m[1]].pop() == "drop"
            state["chains"][m[1]] = []
        elif m := re.fullmatch(r"delete chain inet sampan-policy (\S+)", line):
            assert state["chains"].pop(m[1]) == []
            assert all(c != m[1] for s in state["sets"].values() for c in s.values())
        elif m := re.fullmatch(r"delete set inet sampan-policy (\S+)", line):
            assert not any(f"@{m[1]} " in r for c in state["chains"].values() for r in c)
            del state["sets"][m[1]]
        else:
            raise AssertionError(line)


def _empty() -> dict[str, Any]:
    names = ("ingress", "egress", "hairpins", "ingress6", "egress6", "hairpins6")
    return {"sets": {n: {} for n in names}, "chains": {}}


@given(st.lists(views(), min_size=1, max_size=4))
def test_step_by_step_it_is_the_same_as_at_once(steps: list[View]) -> None:
    facts = FACTS["n1"]
    kernel, held = _empty(), State()
    for view in [*steps, View()]:
        wanted = compile_(view, facts)
        _run(kernel, difference(held, wanted))
        anew = _empty()
        _run(anew, difference(State(), wanted))
        assert kernel == anew
        assert difference(wanted, compile_(view, facts)) == ""
        held = wanted
    assert kernel == _empty()


def test_a_pod_more_is_an_element_more() -> None:
    body = _body("a", {}, ["Ingress"], [{"from": [{"podSelector": {}}]}], [])
    one = Pod("a", "p1", {}, ("10.42.2.2",), "n2")
    two = Pod("a", "p2", {"app": "p"}, ("10.42.2.3",), "n2")
    local = Pod("a", "p0", {}, ("10.42.1.2",), "n1")
    before = compile_(View((policy(body),), (local, one), NAMESPACES), FACTS["n1"])
    after = compile_(View((policy(body),), (local, one, two), NAMESPACES), FACTS["n1"])
    (line,) = difference(before, after).splitlines()
    assert re.fullmatch(r"add element inet sampan-policy p-\w+ \{ 10\.42\.2\.3 \}", line)


def test_the_text_of_a_chain() -> None:
    rules = [
        {"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", "10.0.0.0/16"]}}],
         "ports": [{"port": 80, "endPort": 90}, {"protocol": "UDP"}, {"port": "web"}]},
        {},
    ]  # fmt: skip
    target = Pod("a", "p", {}, ("10.42.1.2",), "n1", (NamedPort("web", "tcp", 8080),))
    state = compile_(View((policy(_body("a", {}, [], rules, [])),), (target,)), FACTS["n1"])
    (chain,) = state.chains.values()
    block = "ip saddr 10.0.0.0/8 ip saddr != { 10.0.0.0/15 }"
    assert [m.text() for m in chain] == [
        f"{block} tcp dport 80-90 return", f"{block} meta l4proto udp return",
        f"{block} tcp dport 8080 return", "return",
    ]  # fmt: skip


ALIASES = (Alias("10.43.0.1", "tcp", 443, "10.44.1.1", 6443),
           Alias("10.43.0.10", "udp", 53, "10.44.1.2", 53))  # fmt: skip
DNS = Pod("kube-system", "dns", {"k8s-app": "kube-dns"}, ("10.44.1.2",),
          ports=(NamedPort("dns", "udp", 53),))  # fmt: skip


@pytest.mark.parametrize(
    ("egress", "api_passes", "dns_passes"),
    [
        ([], False, False),
        ([{}], True, True),
        ([{"to": [{"ipBlock": {"cidr": "10.44.1.1/32"}}], "ports": [{"port": 6443}]}], True, False),
        ([{"to": [{"ipBlock": {"cidr": "10.43.0.0/16"}}]}], False, False),
        ([{"ports": [{"port": 443}]}], False, False),
        ([{"to": [{"namespaceSelector": {},
                   "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}],
           "ports": [{"port": 53, "protocol": "UDP"}]}], False, True),
        ([{"ports": [{"port": "dns", "protocol": "UDP"}]}], False, True),
        ([{"to": [{"podSelector": {}}]}], False, False),
    ],
)  # fmt: skip
def test_addresses_of_the_node_itself_are_judged_as_what_is_behind_them(
    egress: list[Body], api_passes: bool, dns_passes: bool
) -> None:
    pod_ = Pod("a", "p", {}, ("10.42.1.2",), "n1")
    namespaces = {**NAMESPACES, "kube-system": {}}
    view = View((policy(_body("a", {}, ["Egress"], [], egress)),), (pod_, DNS), namespaces)
    state = compile_(view, Facts("n1", ("10.44.0.2",), ALIASES))
    assert passes(state, Flow("10.42.1.2", "10.43.0.1", "tcp", 443)) is api_passes
    assert passes(state, Flow("10.42.1.2", "10.43.0.10", "udp", 53)) is dns_passes


def test_a_node_of_one_family_holds_nothing_of_the_other() -> None:
    ips = ("10.42.1.2", "fd00::2")
    target = Pod("a", "p", {}, ips, "n1", (NamedPort("web", "tcp", 8080),))
    rules = [{"from": [{"podSelector": {}}]}, {"from": [{"podSelector": {}}]}]
    body = _body("a", {}, ["Ingress", "Egress"], rules, [{"ports": [{"port": "web"}]}])
    for ip, own, other in (
        ("10.42.1.2", "10.44.0.2", "ip6 "), ("fd00::2", "fd00:44::2", "ip "),
    ):  # fmt: skip
        facts = Facts("n1", (own,))
        text = begin(facts, "", compile_(View((policy(body),), (target,)), facts))
        assert other not in text and ip in text
        assert next(i for i in ips if i != ip) not in text
        assert ("nd-neighbor-solicit" in text) == (":" in own)


def test_nothing_is_held_where_there_is_no_policy() -> None:
    view = View((), (Pod("a", "p", {}, ("10.42.1.2",), "n1"),), NAMESPACES)
    assert compile_(view, FACTS["n1"]) == State()
    assert "delete table inet sampan-policy" in begin(FACTS["n1"], "", State())


@given(views(), views())
def test_what_another_process_left_becomes_what_is_wanted(old: View, new: View) -> None:
    facts = FACTS["n1"]
    before, wanted = compile_(old, facts), compile_(new, facts)
    kernel = _empty()
    _run(kernel, difference(State(), before))
    held = f"\tchain {version(facts)} {{\n" + "".join(
        [f"\tset {n} {{\n\t}}\n" for n in before.sets]
        + [f"\tchain {n} {{\n\t}}\n" for n in before.chains]
    )
    commands = begin(facts, held, wanted)
    assert "delete table" not in commands
    _run(kernel, commands)
    anew = _empty()
    _run(anew, difference(State(), wanted))
    assert kernel == anew


def test_a_pod_as_policies_see_it() -> None:
    body: Body = {
        "metadata": {"namespace": "a", "name": "p", "labels": {"x": "y"}},
        "spec": {"nodeName": "n1", "containers": [
            {"ports": [{"name": "web", "containerPort": 80}, {"containerPort": 81}]}],
            "initContainers": [
                {"restartPolicy": "Always", "ports": [
                    {"name": "side", "containerPort": 9, "protocol": "UDP"}]},
                {"ports": [{"name": "gone", "containerPort": 10}]}]},
        "status": {"phase": "Running", "podIPs": [{"ip": "10.42.1.2"}, {"ip": "fd00::1"}]},
    }  # fmt: skip
    found = pod(body)
    assert (found.ips, found.node, found.takes_part) == (
        ("10.42.1.2", "fd00::1"), "n1", True,
    )  # fmt: skip
    assert found.ports == (NamedPort("web", "tcp", 80), NamedPort("side", "udp", 9))
    ended = {**body, "status": {**body["status"], "phase": "Succeeded"}}
    of_the_node = {**body, "spec": {**body["spec"], "hostNetwork": True}}
    for other in (ended, of_the_node):
        assert (pod(other).ips, pod(other).takes_part) == ((), False)
