"""Texts of Warning headers."""

from __future__ import annotations

import pytest

from sampan.api.catalogue import builtin

POD = builtin().get("pods").rules
DEPLOYMENT = builtin().get("deployments.apps").rules


def warn(spec: dict, **meta) -> list[str]:
    body = {"metadata": {"name": "p", **meta}, "spec": {"containers": [], **spec}}
    return POD.warn(body)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, []),
        (
            {"nodeSelector": {"beta.kubernetes.io/os": "linux"}},
            [
                "spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "
                '"kubernetes.io/os" instead'
            ],
        ),
        (
            {"containers": [{"env": [{"name": "A"}, {"name": "A", "value": "x"}]}]},
            [
                'spec.containers[0].env[1]: hides previous definition of "A", which may be dropped '
                "when using apply"
            ],
        ),
        ({"containers": [{"env": [{"name": "A"}, {"name": "A", "value": "$(A)x"}]}]}, []),
        (
            {"containers": [{"ports": [{"containerPort": 1}, {"containerPort": 1}]}]},
            [
                "spec.containers[0].ports[1]: duplicate port definition with "
                "spec.containers[0].ports[0]"
            ],
        ),
        (
            {"containers": [{"resources": {"limits": {"memory": "100m"}}}]},
            [
                'spec.containers[0].resources.limits[memory]: fractional byte value "100m" is '
                "invalid, must be an integer"
            ],
        ),
        (
            {"terminationGracePeriodSeconds": -1},
            [
                "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and "
                "will be treated as 1."
            ],
        ),
    ],
)
def test_pods(spec, expected):
    assert warn(spec) == expected


def test_a_dotted_pod_name_is_no_good_hostname():
    assert warn({}, name="a.b") == [
        "metadata.name: this is used in the Pod's hostname, which can result in surprising "
        "behavior; a DNS label is recommended: [must not contain dots]"
    ]


def test_templates_warn_under_their_own_path():
    template = {"spec": {"containers": [], "hostUsers": False}}
    (text,) = DEPLOYMENT.warn({"spec": {"template": template}})
    assert text.startswith("spec.template.spec.hostUsers: ")


def test_services():
    service = builtin().get("services")
    spec = {
        "type": "ClusterIP",
        "clusterIP": "None",
        "sessionAffinity": "ClientIP",
        "externalIPs": ["1.2.3.4"],
    }
    assert service.rules.warn({"spec": spec}) == [
        "spec.externalIPs is ignored for headless services",
        "spec.SessionAffinity is ignored for headless services",
    ]


def test_services_with_old_notes_and_odd_addresses():
    service = builtin().get("services")
    notes = {"service.kubernetes.io/topology-aware-hints": "Auto"}
    spec = {"type": "ClusterIP", "clusterIP": "FD00::1", "clusterIPs": ["FD00::1"],
            "sessionAffinity": "None"}  # fmt: skip
    assert service.rules.warn({"metadata": {"annotations": notes}, "spec": spec}) == [
        "annotation service.kubernetes.io/topology-aware-hints is deprecated, please use "
        "service.kubernetes.io/topology-mode instead",
        'spec.clusterIPs[0]: IPv6 address "FD00::1" should be in RFC 5952 canonical format '
        '("fd00::1")',
    ]


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        (
            {"externalIPs": ["192.0.2.1"]},
            ["spec.externalIPs is deprecated and may no longer be implemented in some clusters"],
        ),
        (
            {"type": "ExternalName", "externalIPs": ["192.0.2.1"]},
            ['spec.externalIPs is ignored when spec.type is "ExternalName"'],
        ),
        (
            {"externalName": "a.example"},
            ['spec.externalName is ignored when spec.type is not "ExternalName"'],
        ),
        (
            {"trafficDistribution": "PreferClose"},
            ['spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone"'],
        ),
        (
            {"type": "LoadBalancer", "loadBalancerIP": "FD00::2",
             "loadBalancerSourceRanges": ["FD00::/64", "10.0.0.0/8"]},
            ['spec.loadBalancerIP: IPv6 address "FD00::2" should be in RFC 5952 canonical format '
             '("fd00::2")',
             'spec.loadBalancerSourceRanges[0]: IPv6 CIDR value "FD00::/64" should be in RFC 5952 '
             'canonical format ("fd00::/64")'],
        ),
        ({"trafficDistribution": "PreferSameNode"}, []),
    ],
)  # fmt: skip
def test_services_with_fields_that_are_old_or_ignored(spec, wanted):
    body = {"spec": {"type": "ClusterIP", "clusterIP": "10.43.0.5", "sessionAffinity": "None",
                     **spec}}  # fmt: skip
    assert builtin().get("services").rules.warn(body) == wanted
