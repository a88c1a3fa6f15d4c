"""Metadata every kind shares."""

from __future__ import annotations

import copy

import pytest

from sampan.api.catalogue import builtin
from sampan.api.rules.meta import validate_meta, validate_meta_update

REGISTRY = builtin()
POD = REGISTRY.get("pods")
SUBDOMAIN = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used "
    "for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
LABEL_VALUE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  "
    "or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
OWNER = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "u"}


def problems(resource: str = "pods", **meta) -> list[str]:
    t = REGISTRY.get(resource)
    body = {"metadata": {"name": "a", **({"namespace": "default"} if t.namespaced else {}), **meta}}
    return [str(c) for c in validate_meta(t, body)]


@pytest.mark.parametrize(
    ("resource", "meta", "expected"),
    [
        ("pods", {}, []),
        ("pods", {"name": "A"}, [f'metadata.name: Invalid value: "A": {SUBDOMAIN}']),
        ("pods", {"name": ""}, [
            "metadata.name: Required value: name or generateName is required"
        ]),
        ("pods", {"generateName": "web-"}, []),
        ("pods", {"generateName": "Web-"}, [
            f'metadata.generateName: Invalid value: "Web-": {SUBDOMAIN}'
        ]),
        ("pods", {"namespace": ""}, ["metadata.namespace: Required value"]),
        ("nodes", {"namespace": "x"}, ["metadata.namespace: Forbidden: not allowed on this type"]),
        ("namespaces", {"name": "a.b"}, [
            'metadata.name: Invalid value: "a.b": must not contain dots'
        ]),
        ("clusterroles.rbac.authorization.k8s.io", {"name": "system:a"}, []),
        ("clusterroles.rbac.authorization.k8s.io", {"name": "a/b"}, [
            "metadata.name: Invalid value: \"a/b\": may not contain '/'"
        ]),
        ("pods", {"labels": {"a": "b c"}}, [
            f'metadata.labels: Invalid value: "b c": {LABEL_VALUE}'
        ]),
        ("pods", {"annotations": {"Upper.Case/Name": "any thing"}}, []),
        ("pods", {"annotations": {"a": "x" * 262144}}, [
            "metadata.annotations: Too long: may not be more than 262144 bytes"
        ]),
        ("pods", {"finalizers": ["foregroundDeletion", "a.io/b"]}, []),
        ("pods", {"finalizers": ["mine"]}, [
            'metadata.finalizers[0]: Invalid value: "mine": name is neither a standard finalizer '
            "name nor is it fully qualified"
        ]),
        ("pods", {"finalizers": ["orphan", "foregroundDeletion"]}, [
            'metadata.finalizers: Invalid value: ["orphan","foregroundDeletion"]: finalizer orphan '
            "and foregroundDeletion cannot be both set"
        ]),
        ("pods", {"ownerReferences": [OWNER]}, []),
        ("pods", {"ownerReferences": [{**OWNER, "apiVersion": "", "uid": ""}]}, [
            'metadata.ownerReferences[0].apiVersion: Invalid value: "": version must not be empty',
            'metadata.ownerReferences[0].uid: Invalid value: "": uid must not be empty',
        ]),
    ],
)  # fmt: skip
def test_metadata(resource, meta, expected):
    assert problems(resource, **meta) == expected


def test_only_one_owner_controls():
    owners = [{**OWNER, "controller": True}, {**OWNER, "name": "s", "controller": True}]
    (problem,) = problems(ownerReferences=owners)
    assert problem.endswith(
        'Only one reference can have Controller set to true. Found "true" in references for r and s'
    )


OLD = {
    "metadata": {
        "name": "a",
        "namespace": "default",
        "uid": "1",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "finalizers": ["a.io/b"],
        "generation": 3,
    }
}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"labels": {"a": "b"}}, []),
        ({"uid": "2"}, ['metadata.uid: Invalid value: "2": field is immutable']),
        ({"name": "b"}, ['metadata.name: Invalid value: "b": field is immutable']),
        ({"generation": 2}, ["metadata.generation: Invalid value: 2: must not be decremented"]),
        (
            {"deletionTimestamp": "2026-01-01T00:00:00Z"},
            [
                'metadata.deletionTimestamp: Invalid value: "2026-01-01T00:00:00Z": field is '
                "immutable"
            ],
        ),
        ({"finalizers": ["a.io/b", "c.io/d"]}, []),
    ],
)
def test_updates(change, expected):
    new = copy.deepcopy(OLD)
    new["metadata"].update(change)
    assert [str(c) for c in validate_meta_update(POD, new, OLD)] == expected


def test_a_dying_object_takes_no_new_finalizer():
    old = copy.deepcopy(OLD)
    old["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    new = copy.deepcopy(old)
    new["metadata"]["finalizers"] = ["c.io/d"]
    assert [str(c) for c in validate_meta_update(POD, new, old)] == [
        "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being "
        'deleted, found new finalizers []string{"c.io/d"}'
    ]
