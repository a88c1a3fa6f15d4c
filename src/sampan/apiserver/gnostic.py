"""Swagger documents in gnostic's protobuf form: what kubectl reads ``/openapi/v2`` in.

Only what our own document uses is encoded; the field numbers are those of ``openapi.v2.Document``.
Vendor extensions travel as YAML text, of which JSON is a part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import orjson

Json = dict[str, Any]
_Encode = Callable[[Any], bytes]


def encode(document: Json) -> bytes:
    """``openapi.v2.Document``."""
    return b"".join(
        (
            _text(1, document.get("swagger")),
            _message(2, _info(document.get("info", {}))),
            _message(8, _paths(document.get("paths", {}))),
            _message(9, _named(1, document.get("definitions", {}), _schema)),
        )
    )


# ---- wire format -------------------------------------------------------------------------------


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _message(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _text(number: int, value: str | None) -> bytes:
    return _message(number, value.encode()) if value else b""


def _texts(number: int, values: Iterable[str]) -> bytes:
    return b"".join(_message(number, v.encode()) for v in values)


def _flag(number: int, value: object) -> bytes:
    return _varint(number << 3) + b"\x01" if value else b""


def _named(number: int, values: Json, encode_one: _Encode) -> bytes:
    """A map as gnostic keeps it: repeated (name = 1, value = 2)."""
    return b"".join(
        _message(number, _message(1, name.encode()) + _message(2, encode_one(value)))
        for name, value in values.items()
    )


def _extensions(number: int, holder: Json) -> bytes:
    found = {k: v for k, v in holder.items() if k.startswith("x-")}
    return _named(number, found, lambda v: _message(2, orjson.dumps(v)))


# ---- messages ----------------------------------------------------------------------------------


def _info(info: Json) -> bytes:
    return _text(1, info.get("title")) + _text(2, info.get("version"))


def _schema(schema: Json) -> bytes:
    parts = [
        _text(1, schema.get("$ref")),
        _text(2, schema.get("format")),
        _text(4, schema.get("description")),
        _texts(19, schema.get("required", ())),
    ]
    if "additionalProperties" in schema:
        parts.append(_message(21, _message(1, _schema(schema["additionalProperties"]))))
    if "type" in schema:
        parts.append(_message(22, _message(1, schema["type"].encode())))
    if "items" in schema:
        parts.append(_message(23, _message(1, _schema(schema["items"]))))
    if "properties" in schema:
        parts.append(_message(25, _named(1, schema["properties"], _schema)))
    parts.append(_extensions(31, schema))
    return b"".join(parts)


_METHODS = {"get": 2, "put": 3, "post": 4, "delete": 5, "options": 6, "head": 7, "patch": 8}


def _paths(paths: Json) -> bytes:
    return _named(2, paths, _path)


def _path(item: Json) -> bytes:
    parts = [_message(n, _operation(item[m])) for m, n in _METHODS.items() if m in item]
    parts += [_message(9, _parameter(p)) for p in item.get("parameters", ())]
    return b"".join(parts)


def _operation(operation: Json) -> bytes:
    return b"".join(
        (
            _texts(1, operation.get("tags", ())),
            _text(3, operation.get("description")),
            _text(5, operation.get("operationId")),
            _texts(6, operation.get("produces", ())),
            _texts(7, operation.get("consumes", ())),
            *(_message(8, _parameter(p)) for p in operation.get("parameters", ())),
            _message(9, _named(1, operation.get("responses", {}), _response)),
            _texts(10, operation.get("schemes", ())),
            _extensions(13, operation),
        )
    )


def _parameter(parameter: Json) -> bytes:
    """``ParametersItem``."""
    name, place = parameter["name"], parameter["in"]
    description, required = parameter.get("description"), parameter.get("required")
    if place == "body":
        body = (
            _text(1, description),
            _text(2, name),
            _text(3, place),
            _flag(4, required),
            _message(5, _schema(parameter["schema"])),
        )
        return _message(1, _message(1, b"".join(body)))
    shared = _flag(1, required) + _text(2, place) + _text(3, description) + _text(4, name)
    if place == "path":
        inner = _message(4, shared + _text(5, parameter["type"]))
    else:
        inner = _message(3, shared + _text(6, parameter["type"]))
    return _message(1, _message(2, inner))


def _response(response: Json) -> bytes:
    """``ResponseValue``."""
    parts = _text(1, response.get("description"))
    if "schema" in response:
        parts += _message(2, _message(1, _schema(response["schema"])))
    return _message(1, parts)
