"""Whatever fits a kind's schema, its rules answer: they refuse, they never break."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sampan.api.catalogue import builtin
from sampan.api.resource import ResourceType
from sampan.api.rules.meta import validate_meta, validate_meta_update
from sampan.schema.walk import Schemas

TYPES = [t for t in builtin() if not t.virtual]
WORDS = [
    "", "a", "b", "A b", "a.b/c", "a/b/c", "None", "25%", "0%", "x%", "10.0.0.1", "fd00::1",
    "10.0.0.0/8", "ClusterIP", "LoadBalancer", "ExternalName", "NodePort", "Always", "Never",
    "RollingUpdate", "Recreate", "Exists", "In", "NoExecute", "Localhost", "IPv4", "FQDN", "TCP",
    "ClientIP", "metadata.labels['a']", "spec.nodeName", "limits.cpu", "100m", "1Gi", "-1", "v1",
    "2026-01-01T00:00:00Z", "Bidirectional", "kubernetes.io/tls", "eA==", "..", "/x", "system-a",
    "example.com/gpu", "hugepages-2Mi", "cpu",
]  # fmt: skip
QUANTITIES = ["0", "1", "-1", "100m", "0.5", "1Gi", "1e3", 1, 0.25]


SCHEMAS = Schemas.load()


def build(draw: st.DrawFn, schema: Mapping[str, Any], depth: int) -> Any:
    """A value that fits *schema*, most members left out."""
    schema = SCHEMAS.resolve(schema)
    kind, form = schema.get("type"), schema.get("format", "")
    if kind == "object":
        if "properties" in schema:
            required = set(schema.get("required", ()))
            chosen = [
                k for k in schema["properties"]
                if k in required or (depth > 0 and draw(st.integers(0, 3)) == 0)
            ]  # fmt: skip
            return {k: build(draw, schema["properties"][k], depth - 1) for k in chosen}
        if "additionalProperties" in schema and depth > 0:
            keys = draw(st.lists(st.sampled_from(WORDS), max_size=2, unique=True))
            return {k: build(draw, schema["additionalProperties"], depth - 1) for k in keys}
        return {}
    if kind == "array":
        size = draw(st.integers(0, 2)) if depth > 0 else 0
        return [build(draw, schema["items"], depth - 1) for _ in range(size)]
    if kind == "boolean":
        return draw(st.booleans())
    if kind in ("integer", "number"):
        return draw(st.sampled_from([0, 1, 2, 80, -1, 70000]))
    if form == "quantity":
        return draw(st.sampled_from(QUANTITIES))
    if form == "int-or-string":
        return draw(st.sampled_from([0, 1, 80, -1, *WORDS]))
    if form.startswith("date-time"):
        return "2026-01-01T00:00:00Z"
    return draw(st.sampled_from(["", "eA=="] if form == "byte" else WORDS))


@st.composite
def bodies(draw: st.DrawFn, t: ResourceType) -> dict[str, Any]:
    """An object of *t* as decoding lets it through."""
    schema = SCHEMAS.schema(t.definition)
    body: dict[str, Any] = build(draw, schema, 9)
    body.setdefault("metadata", {})
    if "spec" in schema["properties"]:  # without one there is nothing to look at
        body["spec"] = build(draw, schema["properties"]["spec"], 9)
    assert SCHEMAS.decode(t.definition, body) == []
    return body


def run(t: ResourceType, body: dict[str, Any], old: dict[str, Any]) -> None:
    rules = t.rules
    for b in (body, old):
        rules.default(b)
        rules.prepare_create(b)
    for causes in (
        validate_meta(t, body),
        rules.validate(body),
        validate_meta_update(t, body, old),
        rules.validate_update(body, old),
        rules.validate_status(body, old),
    ):
        for cause in causes:
            assert cause.reason.startswith("FieldValue")
            assert cause.field and cause.message
    assert all(isinstance(text, str) for text in rules.warn(body))
    for column in t.columns:
        json.dumps(column.cell(body, 1.8e9))
    for read in t.fields.values():
        assert isinstance(read(body), str)
    rules.prepare_update(body, old)


@pytest.mark.parametrize("t", TYPES, ids=lambda t: t.resource)
def test_rules_never_break(t):
    @settings(
        max_examples=60,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(bodies(t), bodies(t))
    def check(body, old):
        run(t, body, copy.deepcopy(old))

    check()
