"""What clients may not set, and what is worked out for them before anything is stored."""

from __future__ import annotations

import base64

import pytest

from sampan.api.catalogue import builtin
from sampan.api.rules.prepare import qos_class

REGISTRY = builtin()


def created(resource: str, body: dict) -> dict:
    REGISTRY.get(resource).rules.prepare_create(body)
    return body


def updated(resource: str, new: dict, old: dict) -> dict:
    REGISTRY.get(resource).rules.prepare_update(new, old)
    return new


def sized(*amounts: tuple[dict, dict]) -> dict:
    return {"containers": [{"resources": {"limits": a, "requests": b}} for a, b in amounts]}


FULL = {"cpu": "1", "memory": "1Gi"}


@pytest.mark.parametrize(
    ("spec", "qos"),
    [
        ({"containers": [{}]}, "BestEffort"),
        (sized((FULL, FULL)), "Guaranteed"),
        (sized((FULL, {"cpu": "1000m", "memory": "1024Mi"})), "Guaranteed"),
        (sized((FULL, {"cpu": "500m", "memory": "1Gi"})), "Burstable"),
        (sized((FULL, FULL), ({}, {})), "Burstable"),
        (sized(({}, {"cpu": "1"})), "Burstable"),
        (sized(({"cpu": "1"}, {"cpu": "1"})), "Burstable"),
        (sized(({"ephemeral-storage": "1"}, {"ephemeral-storage": "1"})), "BestEffort"),
        ({**sized((FULL, FULL)), "initContainers": [{}]}, "Burstable"),
        ({"resources": {"limits": FULL, "requests": FULL}, "containers": [{}]}, "Guaranteed"),
    ],
)
def test_qos_classes(spec, qos):
    assert qos_class(spec) == qos


def test_a_new_pod_is_pending_whatever_its_author_says():
    body = created("pods", {"spec": {"containers": [{}]}, "status": {"phase": "Running"}})
    assert body["status"] == {"phase": "Pending", "qosClass": "BestEffort"}


def test_a_gated_pod_says_so():
    body = created("pods", {"spec": {"containers": [{}], "schedulingGates": [{"name": "x"}]}})
    assert body["status"]["conditions"] == [
        {
            "type": "PodScheduled",
            "status": "False",
            "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
        }
    ]


def test_label_keys_become_requirements_with_the_values_at_creation():
    def term(**more):
        return {"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "a"}}, **more}

    spec = {
        "containers": [{}],
        "topologySpreadConstraints": [
            term(matchLabelKeys=["hash", "absent"]), {"matchLabelKeys": ["hash"]},
        ],
        "affinity": {
            "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
                term(matchLabelKeys=["hash"], mismatchLabelKeys=["tenant"])]},
            "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 1, "podAffinityTerm": term(mismatchLabelKeys=["tenant"])}]},
        },
    }  # fmt: skip
    meta = {"labels": {"hash": "1", "tenant": "t"}}
    made = created("pods", {"metadata": meta, "spec": spec})["spec"]
    same = {"key": "hash", "operator": "In", "values": ["1"]}
    other = {"key": "tenant", "operator": "NotIn", "values": ["t"]}
    spread, bare = made["topologySpreadConstraints"]
    assert spread["labelSelector"]["matchExpressions"] == [same]
    assert "labelSelector" not in bare
    near = made["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0]
    assert near["labelSelector"]["matchExpressions"] == [same, other]
    far = made["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"][0]
    assert far["podAffinityTerm"]["labelSelector"]["matchExpressions"] == [other]


@pytest.mark.parametrize("resource", ["pods", "nodes", "deployments.apps", "replicasets.apps",
                                      "services", "namespaces"])  # fmt: skip
def test_updates_of_the_main_resource_keep_the_status(resource):
    new = updated(resource, {"spec": {}, "status": {"x": 1}}, {"spec": {}, "status": {"x": 2}})
    assert new["status"] == {"x": 2}
    new = updated(resource, {"spec": {}, "status": {"x": 1}}, {"spec": {}})
    assert "status" not in new


def test_a_node_may_come_with_a_status():
    assert created("nodes", {"status": {"x": 1}})["status"] == {"x": 1}


def test_a_namespace_is_guarded_and_active():
    assert created("namespaces", {}) == {
        "spec": {"finalizers": ["kubernetes"]},
        "status": {"phase": "Active"},
    }
    new = updated("namespaces", {"spec": {}}, {"spec": {"finalizers": ["kubernetes"]}})
    assert new["spec"]["finalizers"] == ["kubernetes"]


def test_string_data_of_a_secret_overrides_its_data_and_is_not_kept():
    body = created("secrets", {"data": {"a": "eA==", "b": "eA=="}, "stringData": {"a": "ü"}})
    assert body == {"data": {"a": base64.b64encode("ü".encode()).decode(), "b": "eA=="}}


def test_services_mirror_their_cluster_address():
    body = created("services", {"spec": {"type": "ClusterIP", "clusterIP": "None"}})
    assert body["spec"]["clusterIPs"] == ["None"]
    assert body["status"] == {"loadBalancer": {}}


def test_an_update_that_leaves_addresses_out_keeps_them():
    old = {
        "spec": {
            "type": "NodePort",
            "clusterIP": "10.43.0.9",
            "clusterIPs": ["10.43.0.9"],
            "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080}],
        }
    }
    new = {"spec": {"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}]}}
    updated("services", new, old)
    assert new["spec"]["clusterIPs"] == ["10.43.0.9"]
    assert new["spec"]["ports"][0]["nodePort"] == 30080
