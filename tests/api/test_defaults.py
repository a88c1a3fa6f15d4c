"""Defaults: what a minimal object becomes, kind by kind, and that defaulting twice is once."""

from __future__ import annotations

import copy

import pytest

from sampan.api.catalogue import builtin
from sampan.api.errors import StatusError
from sampan.api.rules.podspec_defaults import image_tag, pull_policy

REGISTRY = builtin()
CONTAINER = {
    "name": "c",
    "image": "nginx:1.14.1",
    "imagePullPolicy": "IfNotPresent",
    "resources": {},
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "File",
}
TEMPLATE_SPEC = {
    "containers": [CONTAINER],
    "dnsPolicy": "ClusterFirst",
    "restartPolicy": "Always",
    "schedulerName": "default-scheduler",
    "securityContext": {},
    "terminationGracePeriodSeconds": 30,
}
MINIMAL = {"containers": [{"name": "c", "image": "nginx:1.14.1"}]}


def defaulted(resource: str, body: dict) -> dict:
    rules = REGISTRY.get(resource).rules
    body = copy.deepcopy(body)
    rules.default(body)
    once = copy.deepcopy(body)
    rules.default(body)
    assert body == once, "defaulting is idempotent"
    return body


CASES = [
    ("pods", {"spec": MINIMAL}, {"spec": {**TEMPLATE_SPEC, "enableServiceLinks": True}}),
    (
        "deployments.apps",
        {"spec": {"template": {"spec": MINIMAL}}},
        {
            "spec": {
                "replicas": 1,
                "revisionHistoryLimit": 10,
                "progressDeadlineSeconds": 600,
                "strategy": {
                    "type": "RollingUpdate",
                    "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"},
                },
                "template": {"spec": TEMPLATE_SPEC},
            }
        },
    ),
    (
        "deployments.apps",
        {"spec": {"replicas": 0, "strategy": {"type": "Recreate"}}},
        {
            "spec": {
                "replicas": 0,
                "revisionHistoryLimit": 10,
                "progressDeadlineSeconds": 600,
                "strategy": {"type": "Recreate"},
            }
        },
    ),
    (
        "replicasets.apps",
        {"spec": {"template": {"spec": MINIMAL}}},
        {"spec": {"replicas": 1, "template": {"spec": TEMPLATE_SPEC}}},
    ),
    (
        "namespaces",
        {"metadata": {"name": "a"}},
        {"metadata": {"name": "a", "labels": {"kubernetes.io/metadata.name": "a"}}},
    ),
    ("namespaces", {"metadata": {"generateName": "a"}}, {"metadata": {"generateName": "a"}}),
    ("secrets", {}, {"type": "Opaque"}),
    ("secrets", {"type": "x"}, {"type": "x"}),
    ("configmaps", {}, {}),
    (
        "services",
        {"spec": {"ports": [{"port": 80}, {"port": 81, "targetPort": "http"}]}},
        {
            "spec": {
                "type": "ClusterIP",
                "sessionAffinity": "None",
                "internalTrafficPolicy": "Cluster",
                "ports": [
                    {"port": 80, "protocol": "TCP", "targetPort": 80},
                    {"port": 81, "protocol": "TCP", "targetPort": "http"},
                ],
            }
        },
    ),
    (
        "services",
        {"spec": {"type": "LoadBalancer", "sessionAffinity": "ClientIP"}},
        {
            "spec": {
                "type": "LoadBalancer",
                "sessionAffinity": "ClientIP",
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}},
                "externalTrafficPolicy": "Cluster",
                "internalTrafficPolicy": "Cluster",
                "allocateLoadBalancerNodePorts": True,
            }
        },
    ),
    (
        "services",
        {"spec": {"type": "ExternalName", "externalName": "x.y"}},
        {"spec": {"type": "ExternalName", "externalName": "x.y", "sessionAffinity": "None"}},
    ),
    (
        "endpointslices.discovery.k8s.io",
        {"ports": [{"port": 80}]},
        {"endpoints": [], "ports": [{"port": 80, "name": "", "protocol": "TCP"}]},
    ),
    (
        "endpoints",
        {"subsets": [{"ports": [{"port": 80}]}]},
        {"subsets": [{"ports": [{"port": 80, "protocol": "TCP"}]}]},
    ),
    (
        "rolebindings.rbac.authorization.k8s.io",
        {
            "roleRef": {"kind": "Role", "name": "r"},
            "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s"}],
        },
        {
            "roleRef": {"kind": "Role", "name": "r", "apiGroup": "rbac.authorization.k8s.io"},
            "subjects": [
                {"kind": "User", "name": "u", "apiGroup": "rbac.authorization.k8s.io"},
                {"kind": "ServiceAccount", "name": "s"},
            ],
        },
    ),
    (
        "priorityclasses.scheduling.k8s.io",
        {"value": 5},
        {"value": 5, "preemptionPolicy": "PreemptLowerPriority"},
    ),
    (
        "nodes",
        {"status": {"capacity": {"cpu": "2000m"}}},
        {"status": {"capacity": {"cpu": "2"}, "allocatable": {"cpu": "2"}}},
    ),
]


@pytest.mark.parametrize(("resource", "given", "expected"), CASES)
def test_defaults(resource, given, expected):
    assert defaulted(resource, given) == expected


def pod(**spec) -> dict:
    return defaulted("pods", {"spec": {**MINIMAL, **spec}})["spec"]


def container(**fields) -> dict:
    return pod(containers=[{"name": "c", "image": "x", **fields}])["containers"][0]


@pytest.mark.parametrize(
    ("image", "tag", "policy"),
    [
        ("nginx", "latest", "Always"),
        ("nginx:latest", "latest", "Always"),
        ("nginx:1", "1", "IfNotPresent"),
        ("host:5000/nginx", "latest", "Always"),
        ("host:5000/nginx:1", "1", "IfNotPresent"),
        ("nginx@sha256:abc", "", "IfNotPresent"),
        ("nginx:latest@sha256:abc", "latest", "Always"),
    ],
)
def test_the_tag_decides_the_pull_policy(image, tag, policy):
    assert image_tag(image) == tag
    assert pull_policy(image) == policy


def test_probes():
    probe = container(livenessProbe={"httpGet": {"port": 80}})["livenessProbe"]
    assert probe == {
        "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
        "timeoutSeconds": 1,
        "periodSeconds": 10,
        "successThreshold": 1,
        "failureThreshold": 3,
    }
    assert container(startupProbe={"grpc": {"port": 1}})["startupProbe"]["grpc"] == {
        "port": 1,
        "service": "",
    }


def test_requests_default_to_limits_in_pods_only():
    resources = {"limits": {"cpu": 0.5, "memory": "1024Mi"}, "requests": {"cpu": "0.1"}}
    assert container(resources=copy.deepcopy(resources))["resources"] == {
        "limits": {"cpu": "500m", "memory": "1Gi"},
        "requests": {"cpu": "100m", "memory": "1Gi"},
    }
    template = {"spec": {"containers": [{"name": "c", "image": "x", "resources": resources}]}}
    body = defaulted("replicasets.apps", {"spec": {"template": template}})
    kept = body["spec"]["template"]["spec"]["containers"][0]["resources"]
    assert kept["requests"] == {"cpu": "100m"}


def test_host_networking_gives_pods_host_ports():
    assert pod(hostNetwork=True, containers=[{"image": "x", "ports": [{"containerPort": 8}]}])[
        "containers"
    ][0]["ports"] == [{"containerPort": 8, "hostPort": 8, "protocol": "TCP"}]


def test_the_old_name_of_the_service_account_mirrors_the_new():
    assert pod(serviceAccount="a")["serviceAccountName"] == "a"
    assert pod(serviceAccountName="b")["serviceAccount"] == "b"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"emptyDir": {}}),
        ({"secret": {"secretName": "s"}}, {"secret": {"secretName": "s", "defaultMode": 420}}),
        ({"configMap": {"name": "c"}}, {"configMap": {"name": "c", "defaultMode": 420}}),
        ({"hostPath": {"path": "/"}}, {"hostPath": {"path": "/", "type": ""}}),
        ({"emptyDir": {"sizeLimit": "1024Mi"}}, {"emptyDir": {"sizeLimit": "1Gi"}}),
        (
            {
                "projected": {
                    "sources": [
                        {"serviceAccountToken": {"path": "t"}},
                        {"downwardAPI": {"items": [{"path": "p", "fieldRef": {"fieldPath": "x"}}]}},
                    ]
                }
            },
            {
                "projected": {
                    "defaultMode": 420,
                    "sources": [
                        {"serviceAccountToken": {"path": "t", "expirationSeconds": 3600}},
                        {
                            "downwardAPI": {
                                "items": [
                                    {
                                        "path": "p",
                                        "fieldRef": {"fieldPath": "x", "apiVersion": "v1"},
                                    }
                                ]
                            }
                        },
                    ],
                }
            },
        ),
    ],
)
def test_volumes(given, expected):
    assert pod(volumes=[{"name": "v", **given}])["volumes"] == [{"name": "v", **expected}]


def test_field_references_have_a_version_and_divisors_are_canonical():
    env = [
        {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "B", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
        {"name": "C", "valueFrom": {"resourceFieldRef": {"divisor": "1024Ki"}}},
    ]
    found = container(env=env)["env"]
    assert found[0]["valueFrom"]["fieldRef"]["apiVersion"] == "v1"
    assert found[1]["valueFrom"]["resourceFieldRef"]["divisor"] == "0"
    assert found[2]["valueFrom"]["resourceFieldRef"]["divisor"] == "1Mi"


def test_an_unreadable_quantity_is_a_failed_decoding():
    body = {
        "kind": "Pod",
        "apiVersion": "v1",
        "spec": {"containers": [{"resources": {"limits": {"cpu": "1 core"}}}]},
    }
    with pytest.raises(StatusError) as caught:
        REGISTRY.get("pods").rules.default(body)
    assert caught.value.code == 400
    assert caught.value.message == (
        'Pod in version "v1" cannot be handled as a Pod: quantities must match the regular '
        "expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    )
