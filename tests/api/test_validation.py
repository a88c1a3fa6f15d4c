"""Validation of every kind but pods: each fault with its exact path and words."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from sampan.api.catalogue import builtin

REGISTRY = builtin()
RBAC = "rbac.authorization.k8s.io"
WORKLOAD: dict[str, Any] = {
    "spec": {
        "selector": {"matchLabels": {"app": "a"}},
        "template": {
            "metadata": {"labels": {"app": "a"}},
            "spec": {"containers": [{"name": "c", "image": "x:1"}]},
        },
    }
}


def merged(base: Any, change: Any) -> Any:
    """*change* laid over *base*; None removes a member."""
    if not isinstance(base, dict) or not isinstance(change, dict):
        return copy.deepcopy(change)
    out = copy.deepcopy(base)
    for key, value in change.items():
        if value is None:
            out.pop(key, None)
        else:
            out[key] = merged(out.get(key), value)
    return out


def problems(resource: str, body: dict[str, Any]) -> list[str]:
    rules = REGISTRY.get(resource).rules
    body = copy.deepcopy(body)
    rules.default(body)
    return [str(c) for c in rules.validate(body)]


def update_problems(resource: str, new: dict[str, Any], old: dict[str, Any]) -> list[str]:
    return [str(c) for c in REGISTRY.get(resource).rules.validate_update(new, old)]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, []),
        (
            {"replicas": -1},
            ["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
        ),
        (
            {"selector": None},
            [
                "spec.selector: Required value",
                'spec.template.metadata.labels: Invalid value: {"app":"a"}: `selector` does not '
                "match template `labels`",
            ],
        ),
        (
            {"selector": {"matchLabels": None}},
            ["spec.selector: Invalid value: {}: empty selector is invalid for deployment"],
        ),
        ({"template": None}, ["spec.template: Required value"]),
        (
            {"template": {"metadata": {"labels": {"app": "b"}}}},
            [
                'spec.template.metadata.labels: Invalid value: {"app":"b"}: `selector` does not '
                "match template `labels`"
            ],
        ),
        (
            {"template": {"metadata": {"labels": {"x y": "b"}}}},
            [
                "spec.template.labels: Invalid value: \"x y\": name part must consist of "
                "alphanumeric characters, '-', '_' or '.', and must start and end with an "
                "alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used "
                "for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
            ],
        ),
        (
            {"template": {"spec": {"restartPolicy": "Never"}}},
            [
                'spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: '
                '"Always"'
            ],
        ),
        (
            {"template": {"spec": {"activeDeadlineSeconds": 5}}},
            [
                "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in "
                "ReplicaSet is not Supported"
            ],
        ),
        (
            {"template": {"spec": {"containers": []}}},
            ["spec.template.spec.containers: Required value"],
        ),
    ],
)  # fmt: skip
def test_workloads(spec, expected):
    body = merged(WORKLOAD, {"spec": spec})
    assert problems("deployments.apps", body) == expected
    assert problems("replicasets.apps", body) == expected


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            {"strategy": {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}},
            [
                "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy "
                "`type` is 'Recreate'"
            ],
        ),
        (
            {"strategy": {"type": "Blue"}},
            [
                'spec.strategy: Unsupported value: {"type":"Blue"}: supported values: "Recreate", '
                '"RollingUpdate"'
            ],
        ),
        (
            {"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}}},
            [
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0%: may not be 0 when "
                "`maxSurge` is 0"
            ],
        ),
        (
            {"strategy": {"rollingUpdate": {"maxUnavailable": "101%"}}},
            [
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 101%: must not be "
                "greater than 100%"
            ],
        ),
        (
            {"strategy": {"rollingUpdate": {"maxSurge": "some"}}},
            [
                "spec.strategy.rollingUpdate.maxSurge: Invalid value: some: a valid percent string "
                "must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex "
                "used for validation is '[0-9]+%')"
            ],
        ),
        ({"strategy": {"rollingUpdate": {"maxSurge": "200%", "maxUnavailable": 0}}}, []),
        (
            {"minReadySeconds": 10, "progressDeadlineSeconds": 10},
            [
                "spec.progressDeadlineSeconds: Invalid value: 10: must be greater than "
                "minReadySeconds"
            ],
        ),
        (
            {"revisionHistoryLimit": -1},
            ["spec.revisionHistoryLimit: Invalid value: -1: must be greater than or equal to 0"],
        ),
    ],
)
def test_deployments(spec, expected):
    assert problems("deployments.apps", merged(WORKLOAD, {"spec": spec})) == expected


def test_a_workloads_selector_is_immutable():
    new = merged(WORKLOAD, {"spec": {"selector": {"matchLabels": {"app": "b"}}}})
    assert update_problems("deployments.apps", new, WORKLOAD) == [
        'spec.selector: Invalid value: {"matchLabels":{"app":"b"}}: field is immutable'
    ]


def test_status_counts():
    rules = REGISTRY.get("replicasets.apps").rules
    status = {"replicas": 1, "readyReplicas": 2, "availableReplicas": -1}
    assert [str(c) for c in rules.validate_status({"status": status}, {})] == [
        "status.availableReplicas: Invalid value: -1: must be greater than or equal to 0",
        "status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas",
    ]


PORT = {"port": 80}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"ports": [PORT]}, []),
        ({}, ["spec.ports: Required value"]),
        ({"clusterIP": "None", "clusterIPs": ["None"]}, []),
        (
            {"ports": [{"port": 0}]},
            [
                "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                "spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, "
                "inclusive",
            ],
        ),
        (
            {"ports": [PORT, {"port": 81, "name": "b"}]},
            ["spec.ports[0].name: Required value"],
        ),
        (
            {"ports": [{"port": 80, "name": "a"}, {"port": 80, "name": "b"}]},
            ['spec.ports[1]: Duplicate value: {"protocol":"TCP","port":80}'],
        ),
        (
            {"ports": [{"port": 80, "nodePort": 30000}]},
            [
                "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"
            ],
        ),
        (
            {"type": "Magic", "ports": [PORT]},
            [
                'spec.type: Unsupported value: "Magic": supported values: "ClusterIP", '
                '"ExternalName", "LoadBalancer", "NodePort"'
            ],
        ),
        (
            {"type": "NodePort", "ports": [PORT], "clusterIP": "None", "clusterIPs": ["None"]},
            [
                "spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for "
                "NodePort services"
            ],
        ),
        ({"type": "ExternalName"}, ["spec.externalName: Required value"]),
        (
            {"type": "ExternalName", "externalName": "a.b", "clusterIP": "10.0.0.1"},
            ["spec.clusterIP: Forbidden: may not be set for ExternalName services"],
        ),
        (
            {"ports": [PORT], "clusterIP": "x", "clusterIPs": ["x"]},
            [
                'spec.clusterIPs[0]: Invalid value: "x": must be a valid IP address, (e.g. '
                "10.9.8.7 or 2001:db8::ffff)"
            ],
        ),
        (
            {"ports": [PORT], "sessionAffinity": "Sticky"},
            [
                'spec.sessionAffinity: Unsupported value: "Sticky": supported values: "ClientIP", '
                '"None"'
            ],
        ),
        (
            {"ports": [PORT], "externalTrafficPolicy": "Local"},
            [
                'spec.externalTrafficPolicy: Invalid value: "Local": may only be set for '
                "externally-accessible services"
            ],
        ),
    ],
)  # fmt: skip
def test_services(spec, expected):
    assert problems("services", {"spec": spec}) == expected


def test_a_cluster_address_does_not_change():
    old = {"spec": {"type": "ClusterIP", "clusterIPs": ["10.0.0.1"]}}
    new = {"spec": {"type": "ClusterIP", "clusterIPs": ["10.0.0.2"]}}
    assert update_problems("services", new, old) == [
        'spec.clusterIPs[0]: Invalid value: ["10.0.0.2"]: may not change once set'
    ]


ANNOTATION = "kubernetes.io/service-account.name"
KEY_PROBLEM = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. "
    "'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
)


@pytest.mark.parametrize(
    ("resource", "body", "expected"),
    [
        ("secrets", {"data": {"a b": ""}}, [f'data[a b]: Invalid value: "a b": {KEY_PROBLEM}']),
        (
            "secrets",
            {"data": {"a": "A" * (4 << 20)}},
            ["data: Too long: may not be more than 1048576 bytes"],
        ),
        (
            "secrets",
            {"type": "kubernetes.io/tls", "data": {"tls.crt": "eA=="}},
            ["data[tls.key]: Required value"],
        ),
        (
            "secrets",
            {"type": "kubernetes.io/basic-auth"},
            ["data[username]: Required value", "data[password]: Required value"],
        ),
        (
            "secrets",
            {"type": "kubernetes.io/service-account-token"},
            [f"metadata.annotations[{ANNOTATION}]: Required value"],
        ),
        (
            "configmaps",
            {"data": {"a": "x"}, "binaryData": {"a": "eA=="}},
            ['data[a]: Invalid value: "a": duplicate of key present in binaryData'],
        ),
        (
            "configmaps",
            {"data": {"a": "x" * ((1 << 20) + 1)}},
            ["[]: Too long: may not be more than 1048576 bytes"],
        ),
        (
            "namespaces",
            {"spec": {"finalizers": ["mine"]}},
            [
                'spec.finalizers[0]: Invalid value: "mine": name is neither a standard finalizer '
                "name nor is it fully qualified"
            ],
        ),
        (
            "nodes",
            {
                "spec": {
                    "taints": [
                        {"key": "a", "effect": "NoSchedule"},
                        {"key": "a", "effect": "NoSchedule"},
                        {"key": "b"},
                    ]
                }
            },
            [
                'spec.taints[1]: Duplicate value: {"key":"a","effect":"NoSchedule"}: taints must '
                "be unique by key and effect pair",
                "spec.taints[2].effect: Required value",
            ],
        ),
        (
            "nodes",
            {"status": {"capacity": {"cpu": "-1"}}},
            [
                'status.capacity[cpu]: Invalid value: "-1": must be greater than or equal to 0',
                'status.allocatable[cpu]: Invalid value: "-1": must be greater than or equal to 0',
            ],
        ),
        (
            "events",
            {"metadata": {"namespace": "a"}, "involvedObject": {"namespace": "b"}},
            ['involvedObject.namespace: Invalid value: "b": does not match event.namespace'],
        ),
        ("events", {"metadata": {"namespace": "default"}, "involvedObject": {"kind": "Node"}}, []),
        (
            "leases.coordination.k8s.io",
            {"spec": {"leaseDurationSeconds": 0, "holderIdentity": ""}},
            [
                "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
                'spec.holderIdentity: Invalid value: "": must not be empty',
            ],
        ),
        (
            "priorityclasses.scheduling.k8s.io",
            {"metadata": {"name": "a"}, "value": 1_000_000_001},
            [
                "value: Forbidden: maximum allowed value of a user defined priority is 1000000000"
            ],
        ),
        (
            "priorityclasses.scheduling.k8s.io",
            {"metadata": {"name": "system-x"}, "value": 1},
            [
                "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved "
                "for system use only. error: system-x is not a known system priority class"
            ],
        ),
        (
            "priorityclasses.scheduling.k8s.io",
            {"metadata": {"name": "system-node-critical"}, "value": 2000001000},
            [],
        ),
        (
            "endpointslices.discovery.k8s.io",
            {
                "addressType": "IPv4",
                "endpoints": [{}, {"addresses": ["fd00::1"]}, {"addresses": ["127.0.0.1"]}],
                "ports": [{"port": 1}, {"port": 2}],
            },
            [
                "endpoints[0].addresses: Required value: must contain at least 1 address",
                'endpoints[1].addresses[0]: Invalid value: "fd00::1": must be an IPv4 address',
                'endpoints[2].addresses[0]: Invalid value: "127.0.0.1": may not be in the loopback '
                "range (127.0.0.0/8, ::1/128)",
                'ports[1].name: Duplicate value: ""',
            ],
        ),
        (
            "endpoints",
            {"subsets": [{"ports": [{"port": 1}]}]},
            ["subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`"],
        ),
        (
            f"roles.{RBAC}",
            {"rules": [{"nonResourceURLs": ["/x"], "verbs": ["get"]}, {}]},
            [
                'rules[0].nonResourceURLs: Invalid value: ["/x"]: namespaced rules cannot apply to '
                "non-resource URLs",
                "rules[1].verbs: Required value: verbs must contain at least one value",
                "rules[1].apiGroups: Required value: resource rules must supply at least one api "
                "group",
                "rules[1].resources: Required value: resource rules must supply at least one "
                "resource",
            ],
        ),
        (f"clusterroles.{RBAC}", {"rules": [{"nonResourceURLs": ["/x"], "verbs": ["get"]}]}, []),
        (
            f"rolebindings.{RBAC}",
            {
                "roleRef": {"kind": "Rule", "name": "a/b"},
                "subjects": [{"kind": "Robot", "name": "r"}, {"kind": "User"}],
            },
            [
                'roleRef.kind: Unsupported value: "Rule": supported values: "Role", "ClusterRole"',
                "roleRef.name: Invalid value: \"a/b\": may not contain '/'",
                'subjects[0].kind: Unsupported value: "Robot": supported values: "ServiceAccount", '
                '"User", "Group"',
                "subjects[1].name: Required value",
            ],
        ),
        (
            f"clusterrolebindings.{RBAC}",
            {
                "roleRef": {"kind": "Role", "name": "a"},
                "subjects": [{"kind": "ServiceAccount", "name": "s"}],
            },
            [
                'roleRef.kind: Unsupported value: "Role": supported values: "ClusterRole"',
                "subjects[0].namespace: Required value",
            ],
        ),
        (
            "subjectaccessreviews.authorization.k8s.io",
            {"spec": {"user": "u", "resourceAttributes": {}, "nonResourceAttributes": {}}},
            [
                "spec.nonResourceAttributes: Invalid value: {}: cannot be specified in combination "
                "with resourceAttributes"
            ],
        ),
    ],
)  # fmt: skip
def test_others(resource, body, expected):
    assert problems(resource, body) == expected


@pytest.mark.parametrize(
    ("resource", "new", "old", "expected"),
    [
        ("secrets", {"type": "a"}, {"type": "b"}, ['type: Invalid value: "a": field is immutable']),
        (
            "secrets",
            {"type": "a", "data": {"x": ""}},
            {"type": "a", "immutable": True},
            [
                "immutable: Forbidden: field is immutable when `immutable` is set",
                "data: Forbidden: field is immutable when `immutable` is set",
            ],
        ),
        (
            "configmaps",
            {"immutable": True, "binaryData": {"x": ""}},
            {"immutable": True},
            ["binaryData: Forbidden: field is immutable when `immutable` is set"],
        ),
        ("configmaps", {"immutable": True}, {}, []),
        (
            "priorityclasses.scheduling.k8s.io",
            {"value": 1, "preemptionPolicy": "Never"},
            {"value": 2, "preemptionPolicy": "PreemptLowerPriority"},
            [
                "value: Forbidden: may not be changed in an update.",
                'preemptionPolicy: Invalid value: "Never": field is immutable',
            ],
        ),
        (
            f"rolebindings.{RBAC}",
            {"roleRef": {"name": "a"}},
            {"roleRef": {"name": "b"}},
            ['roleRef: Invalid value: {"name":"a"}: cannot change roleRef'],
        ),
        (
            "nodes",
            {"spec": {"providerID": "b"}},
            {"spec": {"providerID": "a"}},
            [
                "spec.providerID: Forbidden: node updates may not change providerID except from "
                '"" to valid'
            ],
        ),
        ("nodes", {"spec": {"podCIDRs": ["10.0.0.0/24"]}}, {}, []),
        (
            "endpointslices.discovery.k8s.io",
            {"addressType": "IPv6"},
            {"addressType": "IPv4"},
            ['addressType: Invalid value: "IPv6": field is immutable'],
        ),
    ],
)
def test_updates(resource, new, old, expected):
    assert update_problems(resource, new, old) == expected


def test_a_namespaces_phase_follows_its_deletion():
    rules = REGISTRY.get("namespaces").rules
    body = {"metadata": {}, "status": {"phase": "Terminating"}}
    assert [str(c) for c in rules.validate_status(body, {})] == [
        "status.phase: Invalid value: \"Terminating\": may only be 'Active' if "
        "`deletionTimestamp` is empty"
    ]
    body["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert rules.validate_status(body, {}) == []


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ({"hints": {"forZones": [{"name": "a"}], "forNodes": [{"name": "n"}]}}, []),
        (
            {"hints": {"forZones": [{"name": "a"}, {"name": "a"}]}},
            ['endpoints[0].hints.forZones[1].name: Duplicate value: "a"'],
        ),
        (
            {"hints": {"forNodes": [{"name": f"n{i}"} for i in range(9)]}},
            ["endpoints[0].hints.forNodes: Too many: 9: must have at most 8 items"],
        ),
        (
            {"deprecatedTopology": {"a b": "c"}},
            ['endpoints[0].deprecatedTopology: Invalid value: "a b": name part must consist of '
             "alphanumeric characters, '-', '_' or '.', and must start and end with an "
             "alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for "
             "validation is "
             "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"],
        ),
        ({"addresses": ["224.0.1.1"]}, []),
        (
            {"addresses": ["224.0.0.1"]},
            ['endpoints[0].addresses[0]: Invalid value: "224.0.0.1": may not be in the link-local '
             "multicast range (224.0.0.0/24, ff02::/10)"],
        ),
    ],
)  # fmt: skip
def test_endpoints_of_slices(endpoint, expected):
    one = {"addresses": ["1.1.1.1"], **endpoint}
    body = {"addressType": "IPv4", "endpoints": [one], "ports": []}
    assert problems("endpointslices.discovery.k8s.io", body) == expected


def test_protocols_of_applications_are_qualified_names():
    port = {"name": "a", "port": 80, "protocol": "TCP", "appProtocol": "a b"}
    body = {"addressType": "IPv4", "endpoints": [], "ports": [port]}
    (found,) = problems("endpointslices.discovery.k8s.io", body)
    assert found.startswith('ports[0].appProtocol: Invalid value: "a b": name part must consist')
