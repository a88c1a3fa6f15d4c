"""Every PodSpec field is either acted on or warned about: silence is forbidden."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

import pytest

from sampan.api.rules.honoured import HONOURED, NOT_YET, WARNING, unhonoured


@cache
def definitions() -> dict[str, Any]:
    source = files("kubernetes_validate") / "kubernetes-json-schema/v1.37.0-local"
    return json.loads((source / "_definitions.json").read_text())["$defs"]


def referenced(schema: dict[str, Any]) -> tuple[str, bool]:
    """The definition a property leads to ('' for scalars), and whether it is a list of them."""
    text = schema.get("$ref") or ""
    if text:
        return text.rsplit("/", 1)[-1], False
    for part in schema.get("anyOf") or schema.get("oneOf") or ():
        if part.get("$ref"):
            return part["$ref"].rsplit("/", 1)[-1], False
    items = schema.get("items")
    if isinstance(items, dict):
        return referenced(items)[0], True
    return "", False


def unknown_fields(name: str, prefix: str = "") -> list[str]:
    found = []
    for field, schema in definitions()[name]["properties"].items():
        path = prefix + field
        if path in NOT_YET:
            continue
        if path not in HONOURED:
            found.append(path)
            continue
        inner, is_list = referenced(schema)
        below = f"{path}{'[]' if is_list else ''}."
        if inner and any(h.startswith(below) for h in HONOURED):
            found += unknown_fields(inner, below)
    return found


def test_every_field_of_the_schema_is_in_one_list_or_the_other():
    assert unknown_fields("io.k8s.api.core.v1.PodSpec") == []


@pytest.mark.parametrize("pattern", [*NOT_YET, *HONOURED])
def test_every_line_names_a_field_of_the_schema(pattern):
    name = "io.k8s.api.core.v1.PodSpec"
    for step in pattern.split("."):
        schema = definitions()[name]["properties"][step.removesuffix("[]")]
        name, is_list = referenced(schema)
        assert is_list or not step.endswith("[]")


def test_no_field_is_in_both_lists():
    assert set(HONOURED) & set(NOT_YET) == set()


def test_a_plain_pod_has_no_warning():
    spec = {
        "containers": [{"name": "a", "image": "b", "resources": {"limits": {"cpu": "1"}}}],
        "volumes": [{"name": "v", "emptyDir": {}}],
        "preemptionPolicy": "PreemptLowerPriority",
        "securityContext": {},
        "enableServiceLinks": True,
        "hostUsers": True,
    }
    assert unhonoured(spec, "spec") == []


@pytest.mark.parametrize(
    ("spec", "paths"),
    [
        ({"affinity": {"nodeAffinity": {}}}, ["spec.affinity"]),
        ({"hostUsers": False}, ["spec.hostUsers"]),
        ({"preemptionPolicy": "Never"}, ["spec.preemptionPolicy"]),
        (
            {"volumes": [{"name": "a", "emptyDir": {"sizeLimit": "1Gi"}}, {"nfs": {"path": "/"}}]},
            ["spec.volumes[0].emptyDir.sizeLimit", "spec.volumes[1].nfs"],
        ),
        ({"volumes": [{"emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}}]}, []),
        (
            {
                "initContainers": [{"securityContext": {"seLinuxOptions": {"level": "s0"}}}],
                "containers": [{}, {"livenessProbe": {"grpc": {"port": 1}}}],
            },
            [
                "spec.containers[1].livenessProbe.grpc",
                "spec.initContainers[0].securityContext.seLinuxOptions",
            ],
        ),
        (
            {"containers": [{"resources": {"limits": {"ephemeral-storage": "1", "cpu": "1"}}}]},
            ["spec.containers[0].resources[ephemeral-storage]"],
        ),
        ({"containers": [{"ports": [{"hostPort": 80}]}]}, ["spec.containers[0].ports[0].hostPort"]),
        ({"hostNetwork": True, "containers": [{"ports": [{"hostPort": 80}]}]}, []),
    ],
)
def test_warns_by_path(spec, paths):
    assert sorted(unhonoured(spec, "spec")) == [f"{p}: {WARNING}" for p in paths]
