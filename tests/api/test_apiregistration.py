"""APIServices: defaults, every fault with its words, columns."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from sampan.api.catalogue import builtin
from sampan.api.obj import Body

KIND = builtin().get("apiservices.apiregistration.k8s.io")
assert KIND is not None
SERVICE = {"namespace": "n", "name": "s", "port": 443}
CA = "QUJDRA=="  # four bytes


def body(name: str = "v1.g.example", **spec: Any) -> Body:
    given = {"group": "g.example", "version": "v1", "groupPriorityMinimum": 1000,
             "versionPriority": 15, **spec}  # fmt: skip
    return {"metadata": {"name": name}, "spec": {k: v for k, v in given.items() if v is not None}}


def test_the_port_is_that_of_https() -> None:
    made = body(service={"namespace": "n", "name": "s"})
    KIND.rules.default(made)
    assert made["spec"]["service"] == SERVICE
    local = body()
    KIND.rules.default(local)
    assert "service" not in local["spec"]


def test_a_local_one_is_available_from_the_first_moment_on() -> None:
    made = body()
    made["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    KIND.rules.prepare_create(made)
    assert made["status"]["conditions"] == [{
        "type": "Available", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z",
        "reason": "Local", "message": "Local APIServices are always available",
    }]  # fmt: skip
    remote = body(service=SERVICE) | {"status": {"conditions": [{"type": "Available"}]}}
    KIND.rules.prepare_create(remote)
    assert remote["status"] == {}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (body(), []),
        (body(service=SERVICE, caBundle=CA), []),
        (body(service=SERVICE, insecureSkipTLSVerify=True), []),
        (body("v1.", group=None), []),
        (body("v1.other"), [
            'metadata.name: Invalid value: "v1.other": must be `spec.version+"."+spec.group`: '
            '"v1.g.example"']),
        (body("v2.", group=None, version="v2"), [
            "spec.group: Required value: only v1 may have an empty group and it better be legacy "
            "kube"]),
        (body("v1.G_", group="G_"), [
            'spec.group: Invalid value: "G_": a lowercase RFC 1123 subdomain must consist of lower '
            "case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric "
            "character (e.g. 'example.com', regex used for validation is "
            r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"]),
        (body("1.g.example", version="1"), [
            'spec.version: Invalid value: "1": a DNS-1035 label must consist of lower case '
            "alphanumeric characters or '-', start with an alphabetic character, and end with an "
            "alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is "
            "'[a-z]([-a-z0-9]*[a-z0-9])?')"]),
        (body(groupPriorityMinimum=0, versionPriority=1001), [
            "spec.groupPriorityMinimum: Invalid value: 0: must be positive and less than 20000",
            "spec.versionPriority: Invalid value: 1001: must be positive and less than 1000"]),
        (body(caBundle=CA, insecureSkipTLSVerify=True), [
            'spec.caBundle: Invalid value: "4 bytes": local APIServices may not have a caBundle',
            "spec.insecureSkipTLSVerify: Invalid value: true: local APIServices may not have "
            "insecureSkipTLSVerify"]),
        (body(service={"port": 443}), [
            "spec.service.namespace: Required value", "spec.service.name: Required value"]),
        (body(service=SERVICE, caBundle=CA, insecureSkipTLSVerify=True), [
            "spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle is "
            "present"]),
    ],
)  # fmt: skip
def test_faults(given: Body, expected: list[str]) -> None:
    assert [str(c) for c in KIND.rules.validate(copy.deepcopy(given))] == expected


def test_a_condition_is_one_of_three() -> None:
    new = body() | {"status": {"conditions": [{"type": "Available", "status": "Maybe"}]}}
    assert [str(c) for c in KIND.rules.validate_status(new, body())] == [
        'status.conditions[0].status: Unsupported value: "Maybe": supported values: "True", '
        '"False", "Unknown"'
    ]


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ([], "Unknown"),
        ([{"type": "Other", "status": "True"}], "Unknown"),
        ([{"type": "Available", "status": "True", "reason": "Passed"}], "True"),
        ([{"type": "Available", "status": "False", "reason": "ServiceNotFound"}],
         "False (ServiceNotFound)"),
        ([{"type": "Available", "status": "False"}], "False"),
    ],
)  # fmt: skip
def test_columns(conditions: list[Body], expected: str) -> None:
    given = body(service=SERVICE) | {"status": {"conditions": conditions}}
    assert [c.name for c in KIND.columns] == ["Name", "Service", "Available", "Age"]
    assert [c.cell(given, 0.0) for c in KIND.columns[:3]] == ["v1.g.example", "n/s", expected]
    assert KIND.columns[1].cell(body(), 0.0) == "Local"
