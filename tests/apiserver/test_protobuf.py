"""Protobuf bodies become the JSON the same client would have sent."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.apiserver.protobuf import MAGIC, ProtobufError, decode


def varint(n: int) -> bytes:
    out = b""
    while n > 0x7F:
        out, n = out + bytes([n & 0x7F | 0x80]), n >> 7
    return out + bytes([n])


def text(number: int, value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def envelope(api_version: str, kind: str, raw: bytes) -> bytes:
    meta = text(1, api_version) + text(2, kind)
    return MAGIC + text(1, meta) + text(2, raw)


def test_a_namespace_as_kubectl_sends_it() -> None:
    raw = text(1, text(1, "demo")) + text(2, b"") + text(3, b"")
    body, unread = decode(envelope("v1", "Namespace", raw))
    assert body["apiVersion"] == "v1" and body["kind"] == "Namespace"
    assert body["metadata"] == {"name": "demo"} and unread == []


def test_maps_lists_numbers_and_zeros() -> None:
    labels = text(11, text(1, "app") + text(2, "web"))
    container = text(1, "c") + text(2, "nginx") + text(6, number(3, 80) + text(4, "TCP"))
    template = text(1, labels) + text(2, text(2, container))
    selector = text(1, text(1, "app") + text(2, "web"))
    spec = number(1, 0) + text(2, selector) + text(3, template)
    raw = text(1, text(1, "web") + labels) + text(2, spec)
    body, unread = decode(envelope("apps/v1", "Deployment", raw))
    assert unread == []
    assert body["spec"]["replicas"] == 0  # a pointer in Go: zero is a value
    assert body["spec"]["selector"] == {"matchLabels": {"app": "web"}}
    (made,) = body["spec"]["template"]["spec"]["containers"]
    assert (made["name"], made["image"]) == ("c", "nginx")
    assert made["ports"] == [{"containerPort": 80, "protocol": "TCP"}]


def test_a_field_newer_than_the_table_is_told() -> None:
    raw = text(1, text(1, "demo")) + text(999, "new")
    body, (told,) = decode(envelope("v1", "ConfigMap", raw))
    assert body["metadata"]["name"] == "demo"
    assert told == "field 999 of core.v1.ConfigMap is not known and was dropped"


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{}", MAGIC, envelope("v1", "Nothing", b""), envelope("x.io/v1", "Pod", b""),
        envelope("v1", "Pod", b"\xff" * 20), envelope("v1", "Pod", text(1, b"\x80")),
    ],
)  # fmt: skip
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(ProtobufError):
        decode(data)


@given(st.binary(max_size=60), st.sampled_from(["Pod", "ConfigMap", "Service", "Event", "Secret"]))
def test_no_bytes_break_it(raw: bytes, kind: str) -> None:
    found: Any = None
    try:
        found, _ = decode(envelope("v1", kind, raw))
    except ProtobufError:
        return
    assert found["kind"] == kind
