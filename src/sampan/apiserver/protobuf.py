"""Protobuf request bodies, as Go clients since v1.32 send them for built-in kinds, read as JSON.

Answers stay JSON: those clients accept it too. Which field has which number is in
``protobuf_fields.txt``. Protobuf cannot tell an absent value from the zero of a field that is no
pointer in Go; as in Go's JSON with ``omitempty`` such zeros are left out, except where zero is a
value of its own (``replicas: 0``).
"""

from __future__ import annotations

import base64
import struct
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from sampan.api.obj import Body
from sampan.lib.clock import rfc3339, rfc3339_micro

MAGIC = b"k8s\x00"
_DEPTH = 64
_TABLE = Path(__file__).with_name("protobuf_fields.txt")


class ProtobufError(ValueError):
    """The bytes are no message of the kind they should be."""


class _Field(NamedTuple):
    name: str
    flag: str  # '', *, %, ^, !
    type: str  # s, i, b, B, f or :message


@cache
def _messages() -> dict[str, dict[int, _Field]]:
    found: dict[str, dict[int, _Field]] = {}
    for line in _TABLE.read_text().splitlines():
        if line.startswith("#"):
            continue
        message, *fields = line.split()
        numbers: dict[int, _Field] = {}
        for field in fields:
            left, _, kind = field.partition("=")
            name = left.lstrip("0123456789")
            number = int(left[: len(left) - len(name)])
            flag = name[0] if name[0] in "*%^!" else ""
            numbers[number] = _Field(name.removeprefix(flag), flag, kind)
        found[message] = numbers
    return found


def _message_of(api_version: str, kind: str) -> str:
    """``apps/v1``, ``Deployment`` -> ``apps.v1.Deployment``. Raises ProtobufError."""
    group, _, version = api_version.rpartition("/")
    name = f"{group.partition('.')[0] or 'core'}.{version}.{kind}"
    for candidate in (name, f"meta.v1.{kind}"):
        if candidate in _messages():
            return candidate
    raise ProtobufError(f"no kind {kind} is registered for version {api_version}")


def decode(data: bytes) -> tuple[Body, list[str]]:
    """The object in a ``k8s\\0`` envelope as a JSON body, and what could not be read of it (fields
    newer than the table), for warnings. Raises ProtobufError."""
    if not data.startswith(MAGIC):
        raise ProtobufError("the body does not begin with the protobuf envelope's magic bytes")
    unread: list[str] = []
    try:
        envelope = _Reader(unread).message("runtime.Unknown", memoryview(data)[4:], 0)
        meta = envelope.get("typeMeta") or {}
        api_version, kind = meta.get("apiVersion", ""), meta.get("kind", "")
        message = _message_of(api_version, kind)
        raw = envelope.get("raw", b"")
        body = _Reader(unread).message(message, memoryview(raw), 0)
    except (IndexError, struct.error, UnicodeDecodeError, orjson.JSONDecodeError) as e:
        raise ProtobufError(f"the protobuf message is broken: {e}") from None
    return {"apiVersion": api_version, "kind": kind, **body}, list(dict.fromkeys(unread))


class _Reader:
    def __init__(self, unread: list[str]) -> None:
        self._unread = unread

    def message(self, name: str, data: memoryview, depth: int) -> Body:
        if depth > _DEPTH:
            raise ProtobufError("the message is nested too deeply")
        fields = _messages()[name]
        out: Body = {}
        at, size = 0, len(data)
        while at < size:
            tag, at = _varint(data, at)
            value, at = _value(data, at, tag & 7)
            field = fields.get(tag >> 3)
            if field is None:
                self._unread.append(f"field {tag >> 3} of {name} is not known and was dropped")
                continue
            self._put(out, field, value, name, depth)
        return out

    def _put(self, out: Body, field: _Field, value: Any, message: str, depth: int) -> None:
        if field.flag == "%":
            key, item = self._entry(field, _bytes(value), depth)
            out.setdefault(field.name, {})[key] = item
        elif field.flag == "*":
            out.setdefault(field.name, []).append(self._one(field.type, value, message, depth))
        elif field.flag == "^":
            out.update(self.message(field.type[1:], _bytes(value), depth + 1))
        else:
            found = self._one(field.type, value, message, depth)
            # Nothing, or a zero that Go's JSON would leave out.
            if (found is not None and (found or field.flag or field.type[0] == ":")) or (
                field.type == "B" and message == "runtime.Unknown"
            ):
                out[field.name] = found

    def _entry(self, field: _Field, data: memoryview, depth: int) -> tuple[str, Any]:
        key, item, at = "", None, 0
        while at < len(data):
            tag, at = _varint(data, at)
            value, at = _value(data, at, tag & 7)
            if tag >> 3 == 1:
                key = str(_bytes(value), "utf-8")
            elif tag >> 3 == 2:
                item = self._one(field.type, value, "", depth)
        if item is None:
            zeros: dict[str, Any] = {"s": "", "B": "", "i": 0, "b": False}
            item = zeros.get(field.type)
            if item is None:
                item = self._one(field.type, memoryview(b""), "", depth)
        return key, item

    def _one(self, kind: str, value: Any, message: str, depth: int) -> Any:
        if kind == "s":
            return str(_bytes(value), "utf-8")
        if kind == "i":
            number = _int(value)
            return number - (1 << 64) if number >= 1 << 63 else number
        if kind == "b":
            return bool(_int(value))
        if kind == "B":
            data = bytes(_bytes(value))
            return data if message.startswith("runtime.") else base64.b64encode(data).decode()
        if kind == "f":
            return struct.unpack("<d", _bytes(value))[0]
        return self._special(kind[1:], _bytes(value), depth)

    def _special(self, name: str, data: memoryview, depth: int) -> Any:
        """A message, or the JSON it is written as where that is no object."""
        if name in ("meta.v1.FieldsV1", "runtime.RawExtension"):
            return orjson.loads(_only(data) or b"null")
        found = self.message(name, data, depth + 1)
        if name in ("meta.v1.Time", "meta.v1.MicroTime"):
            if not found:
                return None
            seconds = float(found.get("seconds", 0))
            if name == "meta.v1.Time":
                return rfc3339(seconds)
            return rfc3339_micro(seconds + found.get("nanos", 0) / 1e9)
        if name in ("resource.Quantity", "resource.QuantityValue"):
            return found.get("string", "0")
        if name == "intstr.IntOrString":
            return found.get("strVal", "") if found.get("type") else found.get("intVal", 0)
        if name.endswith((".ExtraValue", ".Verbs")):
            return found.get("items", [])
        return found


def _only(data: memoryview) -> bytes:
    """The bytes of field 1."""
    at = 0
    found = b""
    while at < len(data):
        tag, at = _varint(data, at)
        value, at = _value(data, at, tag & 7)
        if tag >> 3 == 1:
            found = bytes(_bytes(value))
    return found


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        byte = data[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, at
        shift += 7
        if shift > 63:
            raise ProtobufError("a number is too long")


def _value(data: memoryview, at: int, wire: int) -> tuple[Any, int]:
    if wire == 0:
        return _varint(data, at)
    if wire == 2:
        size, at = _varint(data, at)
    elif wire in (1, 5):
        size = 8 if wire == 1 else 4
    else:
        raise ProtobufError(f"wire type {wire} is not used by this API")
    if at + size > len(data):
        raise ProtobufError("the message is cut short")
    return data[at : at + size], at + size


def _bytes(value: Any) -> memoryview:
    if isinstance(value, int):
        raise ProtobufError("a number stands where text or a message should be")
    found: memoryview = value
    return found


def _int(value: Any) -> int:
    if not isinstance(value, int):
        raise ProtobufError("text stands where a number should be")
    return value
