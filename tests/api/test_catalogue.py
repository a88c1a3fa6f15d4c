"""The catalogue as a whole."""

from __future__ import annotations

import pytest

from sampan.api.catalogue import builtin
from sampan.lib.names import RULES
from sampan.schema.walk import Schemas

REGISTRY = builtin()
TYPES = list(REGISTRY)


def test_kinds_are_found_by_resource_and_by_kind():
    deployment = REGISTRY.get("deployments.apps")
    assert deployment is REGISTRY.of_kind("apps/v1", "Deployment")
    assert deployment.api_version == "apps/v1"
    assert REGISTRY.get("pods", "v1") is REGISTRY.of_kind("v1", "Pod")
    assert REGISTRY.get("deployments") is None
    assert REGISTRY.get("pods", "v2") is None


def test_what_issue_2_asks_for_is_there():
    kinds = {t.kind for t in TYPES}
    assert kinds >= {
        "Namespace", "Node", "Pod", "ReplicaSet", "Deployment", "ServiceAccount", "Secret",
        "ConfigMap", "Service", "Endpoints", "EndpointSlice", "Event", "Lease", "PriorityClass",
        "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding", "TokenReview",
        "SubjectAccessReview", "LocalSubjectAccessReview", "SelfSubjectAccessReview",
        "SelfSubjectRulesReview", "SelfSubjectReview",
    }  # fmt: skip


def test_the_workload_kinds_are_there():
    short = {t.kind: (t.short_names, t.categories) for t in TYPES}
    assert short["StatefulSet"] == (("sts",), ("all",))
    assert short["DaemonSet"] == (("ds",), ("all",))
    assert short["ReplicationController"] == (("rc",), ("all",))
    assert short["ControllerRevision"] == short["PodTemplate"] == ((), ())


def test_short_names_are_unambiguous():
    short = [s for t in TYPES if t.alias is None for s in t.short_names]
    assert len(short) == len(set(short))


@pytest.mark.parametrize("t", TYPES, ids=lambda t: f"{t.resource}.{t.version}")
def test_declarations_are_complete(t):
    if t.group == "metrics.k8s.io":  # names and verbs as metrics-server has them
        assert (t.virtual, t.verbs, t.definition) == (True, ("get", "list"), "")
        return
    assert t.definition in Schemas.load()
    assert t.singular == t.kind.lower()
    assert t.name_rule in RULES
    assert ("status" in t.subresources) == t.has_status
    assert ("scale" in t.subresources) == (t.scale is not None)
    if t.virtual:
        assert t.verbs == ("create",)
    else:
        assert t.columns
        assert {"metadata.name", "metadata.namespace"} <= set(t.fields)


def test_selectable_fields():
    def read(resource: str, field: str, body: dict) -> str:
        return REGISTRY.get(resource).fields[field](body)

    assert read("pods", "spec.nodeName", {"spec": {"nodeName": "n"}}) == "n"
    assert read("pods", "spec.nodeName", {}) == ""
    assert read("pods", "spec.hostNetwork", {}) == "false"
    assert read("nodes", "spec.unschedulable", {"spec": {"unschedulable": True}}) == "true"
    assert read("replicasets.apps", "status.replicas", {}) == "0"
    assert read("events", "source", {"reportingComponent": "x"}) == "x"
    assert read("events", "source", {"source": {"component": "y"}}) == "y"
