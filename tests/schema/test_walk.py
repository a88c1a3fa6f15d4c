"""Decoding by the built-in definitions."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.schema import derive
from sampan.schema.walk import Schemas, TypeMismatch

POD = "io.k8s.api.core.v1.Pod"
DEPLOYMENT = "io.k8s.api.apps.v1.Deployment"
SECRET = "io.k8s.api.core.v1.Secret"
LEASE = "io.k8s.api.coordination.v1.Lease"
SERVICE = "io.k8s.api.core.v1.Service"


def pod(**container: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i", **container}]},
    }


def test_a_good_body_stays_as_it_is() -> None:
    body = pod(env=[{"name": "A", "value": "1"}], ports=[{"containerPort": 80}])
    before = copy.deepcopy(body)
    assert Schemas.load().decode(POD, body) == []
    assert body == before


def test_unknown_fields_go_and_are_named_with_their_full_path() -> None:
    body = pod(imag="x", ports=[{"containerPort": 80}, {"containerPort": 81, "prot": 1}])
    body["spce"] = {}
    body["metadata"]["owner"] = "me"
    assert sorted(Schemas.load().decode(POD, body)) == [
        "metadata.owner",
        "spce",
        "spec.containers[0].imag",
        "spec.containers[0].ports[1].prot",
    ]
    assert body == pod(ports=[{"containerPort": 80}, {"containerPort": 81}])


def test_nulls_are_absent_and_zero_inside_lists_and_maps() -> None:
    body = pod(command=None, args=["a", None])
    body["metadata"]["creationTimestamp"] = None
    body["metadata"]["labels"]["n"] = None
    body["status"] = None
    assert Schemas.load().decode(POD, body) == []
    assert body["spec"]["containers"][0] == {"name": "c", "image": "i", "args": ["a", ""]}
    assert body["metadata"] == {"name": "p", "labels": {"a": "b", "n": ""}}
    assert "status" not in body


def test_empty_optional_lists_and_maps_leave_no_trace_but_structs_and_required_lists_stay() -> None:
    body = pod(env=[], securityContext={})
    body["metadata"]["annotations"] = {}
    body["spec"]["volumes"] = [{"name": "v", "emptyDir": {}}]
    Schemas.load().decode(POD, body)
    assert body["spec"]["containers"][0] == {"name": "c", "image": "i", "securityContext": {}}
    assert "annotations" not in body["metadata"]
    assert body["spec"]["volumes"] == [{"name": "v", "emptyDir": {}}]
    empty = {"spec": {"containers": []}}
    Schemas.load().decode(POD, empty)
    assert empty == {"spec": {"containers": []}}


@pytest.mark.parametrize(
    ("definition", "body", "path", "text"),
    [
        (
            DEPLOYMENT,
            {"spec": {"replicas": "3"}},
            "spec.replicas",
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas"
            " of type int32",
        ),
        (
            DEPLOYMENT,
            {"spec": {"replicas": 3000000000}},
            "spec.replicas",
            "json: cannot unmarshal number 3000000000 into Go struct field"
            " DeploymentSpec.spec.replicas of type int32",
        ),
        (
            POD,
            pod(env=[{"name": "A", "value": 1}]),
            "spec.containers[0].env[0].value",
            "json: cannot unmarshal number into Go struct field EnvVar.spec.containers.env.value"
            " of type string",
        ),
        (
            POD,
            {"spec": {"containers": {}}},
            "spec.containers",
            "json: cannot unmarshal object into Go struct field PodSpec.spec.containers"
            " of type []v1.Container",
        ),
        (
            POD,
            {"metadata": {"labels": ["a"]}},
            "metadata.labels",
            "json: cannot unmarshal array into Go struct field ObjectMeta.metadata.labels"
            " of type map[string]string",
        ),
        (
            POD,
            {"spec": {"hostNetwork": "true"}},
            "spec.hostNetwork",
            "json: cannot unmarshal string into Go struct field PodSpec.spec.hostNetwork"
            " of type bool",
        ),
        (
            SERVICE,
            {"spec": {"ports": [{"port": 1, "targetPort": True}]}},
            "spec.ports[0].targetPort",
            "json: cannot unmarshal bool into Go value of type int32",
        ),
        (SECRET, {"data": {"a": "%%%"}}, "data.a", "illegal base64 data at input byte 0"),
        (SECRET, {"data": {"a": "YWJ"}}, "data.a", "illegal base64 data at input byte 0"),
        (
            POD,
            pod(resources={"limits": {"cpu": "one"}}),
            "spec.containers[0].resources.limits.cpu",
            "quantities must match the regular expression"
            " '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (
            POD,
            {"metadata": {"deletionTimestamp": "yesterday"}},
            "metadata.deletionTimestamp",
            'parsing time "yesterday" as "2006-01-02T15:04:05Z07:00": cannot parse "yesterday"'
            ' as "2006"',
        ),
    ],
)
def test_wrong_types_are_refused_in_the_decoders_words(
    definition: str, body: dict[str, Any], path: str, text: str
) -> None:
    with pytest.raises(TypeMismatch) as caught:
        Schemas.load().decode(definition, body)
    assert caught.value.path == path
    assert str(caught.value) == text


def test_a_body_that_is_no_object() -> None:
    with pytest.raises(TypeMismatch) as caught:
        Schemas.load().decode(POD, [])  # type: ignore[arg-type]
    assert str(caught.value) == "json: cannot unmarshal array into Go value of type v1.Pod"


def test_quantities_and_times_take_their_canonical_text() -> None:
    body = pod(resources={"limits": {"cpu": 0.5, "memory": "1024Mi", "pods": 3}})
    body["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:05.678+02:00"
    Schemas.load().decode(POD, body)
    limits = body["spec"]["containers"][0]["resources"]["limits"]
    assert limits == {"cpu": "500m", "memory": "1Gi", "pods": "3"}
    assert body["metadata"]["deletionTimestamp"] == "2026-01-02T01:04:05Z"
    lease = {"spec": {"renewTime": "2026-01-02T03:04:05.1Z"}}
    Schemas.load().decode(LEASE, lease)
    assert lease["spec"]["renewTime"] == "2026-01-02T03:04:05.100000Z"


def test_recursive_and_free_form_definitions() -> None:
    crd = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps"
    body: dict[str, Any] = {"properties": {"a": {"not": {"typ": 1}, "default": {"x": None}}}}
    assert Schemas.load().decode(crd, body) == ["properties.a.not.typ"]
    assert body["properties"]["a"]["default"] == {"x": None}


def test_bottomless_bodies_are_refused() -> None:
    crd = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps"
    body: dict[str, Any] = {}
    for _ in range(5000):
        body = {"not": body}
    with pytest.raises(TypeMismatch, match="exceeded max depth"):
        Schemas.load().decode(crd, body)


def test_required_fields() -> None:
    body = {"spec": {"containers": [{"image": "i"}, {"name": "b", "ports": [{}]}]}}
    assert Schemas.load().required(POD, body) == [
        "spec.containers[0].name",
        "spec.containers[1].ports[0].containerPort",
    ]


def test_the_source_is_cleaned() -> None:
    schemas = Schemas.load()
    for name in schemas:
        for node in _nodes(schemas.schema(name)):
            assert isinstance(node.get("type", ""), str)
            assert "enum" not in node and "oneOf" not in node and "description" not in node
            if "$ref" in node:
                assert node["$ref"] in schemas
    for name in (
        "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta",
        "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions",
        "io.k8s.api.autoscaling.v1.Scale",
        "io.k8s.api.core.v1.Binding",
        "io.k8s.api.authentication.v1.TokenRequest",
        "io.k8s.api.authorization.v1.SelfSubjectRulesReview",
        "io.k8s.api.core.v1.PodList",
    ):
        assert name in schemas


def test_patch_keys_are_there() -> None:
    schemas = Schemas.load()
    spec = schemas.at(POD, "spec")
    assert spec["properties"]["containers"]["x-kubernetes-patch-merge-key"] == "name"
    assert spec["properties"]["volumes"]["x-kubernetes-patch-strategy"] == "merge,retainKeys"
    ports = schemas.at(POD, "spec.containers")["properties"]["ports"]
    assert ports["x-kubernetes-patch-merge-key"] == "containerPort"


def test_only_the_pinned_input_is_accepted() -> None:
    with pytest.raises(derive.DeriveError, match="sha256"):
        derive.derive(b"{}")


def test_descriptions_are_kept_apart() -> None:
    texts = Schemas.load().descriptions()(POD)
    assert texts[""].startswith("Pod is a collection of containers")
    assert "spec" in texts


def _nodes(schema: Any) -> list[dict[str, Any]]:
    found = [schema]
    for inner in schema.get("properties", {}).values():
        found += _nodes(inner)
    for key in ("items", "additionalProperties"):
        if key in schema:
            found += _nodes(schema[key])
    return found


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**40) | st.floats(-9, 9) | st.text("ab1"),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["metadata", "spec", "containers", "name", "labels", "env", "status", "x"]),
        inner,
        max_size=4,
    ),
    max_leaves=20,
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(["metadata", "spec", "status", "kind", "x"]), _JSON))
def test_decoding_settles_whatever_comes(body: dict[str, Any]) -> None:
    """Any JSON is either refused as a mismatch, or comes out stable under decoding again."""
    schemas = Schemas.load()
    try:
        schemas.decode(POD, body)
    except TypeMismatch as e:
        assert str(e)
        return
    again = copy.deepcopy(body)
    assert schemas.decode(POD, again) == []
    assert again == body
