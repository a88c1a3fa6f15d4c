"""NetworkPolicy: defaults and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from sampan.api.rules.policies import default, validate


def body(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "x", "namespace": "a"}, "spec": {"podSelector": {}, **spec}}


@pytest.mark.parametrize(
    ("spec", "types"),
    [
        ({}, ["Ingress"]), ({"ingress": [{}]}, ["Ingress"]), ({"egress": []}, ["Ingress"]),
        ({"egress": [{}]}, ["Ingress", "Egress"]),
        ({"egress": [{}], "policyTypes": ["Egress"]}, ["Egress"]),
    ],
)  # fmt: skip
def test_types(spec: dict[str, Any], types: list[str]) -> None:
    made = body(**spec)
    default(made)
    default(made)
    assert made["spec"]["policyTypes"] == types


def test_ports_are_of_tcp() -> None:
    made = body(ingress=[{"ports": [{"port": 1}]}], egress=[{"ports": [{"protocol": "UDP"}, {}]}])
    default(made)
    assert made["spec"]["ingress"][0]["ports"] == [{"port": 1, "protocol": "TCP"}]
    assert [p["protocol"] for p in made["spec"]["egress"][0]["ports"]] == ["UDP", "TCP"]


def port(**fields: Any) -> dict[str, Any]:
    return body(ingress=[{"ports": [fields]}])


def peer(**fields: Any) -> dict[str, Any]:
    return body(egress=[{"to": [fields]}])


P, T = "spec.ingress[0].ports[0]", "spec.egress[0].to[0]"


@pytest.mark.parametrize(
    ("made", "field", "words"),
    [
        (port(protocol="ICMP"), f"{P}.protocol", 'supported values: "SCTP", "TCP", "UDP"'),
        (port(port=0), f"{P}.port", "must be between 1 and 65535, inclusive"),
        (port(port="web_1"), f"{P}.port", "must contain only alpha-numeric characters"),
        (port(port=9, endPort=8), f"{P}.endPort", "must be greater than or equal to `port`"),
        (port(port=9, endPort=70000), f"{P}.endPort", "must be between 1 and 65535"),
        (port(port="web", endPort=8), f"{P}.endPort", "may not be specified when `port` is"),
        (port(endPort=8), f"{P}.endPort", "may not be specified when `port` is not specified"),
        (peer(), T, "must specify a peer"),
        (peer(podSelector={}, ipBlock={"cidr": "10.0.0.0/8"}), T,
         "may not specify both ipBlock and another peer"),
        (peer(ipBlock={}), f"{T}.ipBlock.cidr", "Required value"),
        (peer(ipBlock={"cidr": "10.0.0.0"}), f"{T}.ipBlock.cidr", "must be a valid CIDR value"),
        (peer(ipBlock={"cidr": "10.0.0.0/8", "except": ["11.0.0.0/9"]}),
         f"{T}.ipBlock.except[0]", "must be a strict subset of `cidr`: 10.0.0.0/8"),
        (peer(ipBlock={"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}),
         f"{T}.ipBlock.except[0]", "must be a strict subset"),
        (peer(ipBlock={"cidr": "10.0.0.0/8", "except": ["x"]}), f"{T}.ipBlock.except[0]", "CIDR"),
        (peer(namespaceSelector={"matchExpressions": [{"key": "a", "operator": "Like"}]}),
         f"{T}.namespaceSelector.matchExpressions[0].operator", "not a valid selector operator"),
        (body(podSelector={"matchLabels": {"-": "x"}}), "spec.podSelector.matchLabels",
         "name part"),
        (body(policyTypes=["Both"]), "spec.policyTypes[0]",
         'supported values: "Egress", "Ingress"'),
        (body(policyTypes=["Ingress"] * 3), "spec.policyTypes",
         "may not specify more than two policyTypes"),
    ],
)  # fmt: skip
def test_refused(made: dict[str, Any], field: str, words: str) -> None:
    causes = validate(made)
    assert [c.field for c in causes] == [field]
    assert words in causes[0].message


@pytest.mark.parametrize(
    "made",
    [
        body(), port(), port(port="web"), port(port=80, endPort=80), peer(podSelector={}),
        peer(namespaceSelector={}, podSelector={}),
        peer(ipBlock={"cidr": "fd00::/8", "except": ["fd01::/16"]}),
    ],
)  # fmt: skip
def test_accepted(made: dict[str, Any]) -> None:
    assert validate(made) == []
