"""Scalar values of the API: which JSON they accept and the one text they are kept in."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sampan.lib import quantity

_TIME = re.compile(
    r"\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\dZ"
)
_TIME_ANY = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)([.,]\d+)?(Z|[+-]\d\d:\d\d)")
_LAYOUT = "2006-01-02T15:04:05Z07:00"


class TypeMismatch(Exception):
    """A value has another type than its field. Its text is what Kubernetes' decoder says.

    path: where (``spec.containers[0].image``); expected: the field's type; got: the value's.
    """

    def __init__(self, path: str, expected: str, got: str, *, text: str = "") -> None:
        super().__init__(path, expected, got)
        self.path = path
        self.expected = expected
        self.got = got
        self._text = text
        self._dotted = path
        self._struct = ""

    def at(self, path: str, dotted: str) -> None:
        """Say where it happened; the first word counts."""
        if not self.path:
            self.path, self._dotted = path, dotted

    def inside(self, struct: str) -> None:
        """Name the struct that holds the field; the innermost counts."""
        self._struct = self._struct or struct

    def __str__(self) -> str:
        if self._text:
            return self._text
        where = f"struct field {self._struct}.{self._dotted}" if self._dotted else "value"
        return f"json: cannot unmarshal {self.got} into Go {where} of type {self.expected}"


@dataclass(frozen=True, slots=True)
class Scalar:
    """quick: a Python type whose every value is fine as it is. convert: checks any other value
    and answers the one to keep. zero: what null means inside a list. go: the type's name in
    messages."""

    quick: type | None
    convert: Callable[[Any], Any]
    zero: Any
    go: str


def json_type(value: Any) -> str:
    """The JSON type of *value* in the decoder's words."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, str):
        return "string"
    if isinstance(value, int | float):
        return "number"
    return "array" if isinstance(value, list) else "object"


def _reject(go: str) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        raise TypeMismatch("", go, json_type(value))

    return convert


def _integer(go: str, bits: int) -> Callable[[Any], Any]:
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1

    def convert(value: Any) -> Any:
        if type(value) is int:
            if low <= value <= high:
                return value
            raise TypeMismatch("", go, f"number {value}")
        if type(value) is float:
            raise TypeMismatch("", go, f"number {value!r}")
        raise TypeMismatch("", go, json_type(value))

    return convert


def _number(value: Any) -> Any:
    if type(value) is int or type(value) is float:
        return value
    raise TypeMismatch("", "float64", json_type(value))


_int32 = _integer("int32", 32)


def _int_or_string(value: Any) -> Any:
    if type(value) is str:
        return value
    try:
        return _int32(value)
    except TypeMismatch as e:
        text = f"json: cannot unmarshal {e.got} into Go value of type int32"
        raise TypeMismatch("", "int-or-string", e.got, text=text) from None


def _quantity(value: Any) -> Any:
    try:
        return quantity.canonical(value)
    except quantity.QuantityError as e:
        raise TypeMismatch("", "resource.Quantity", json_type(value), text=str(e)) from None


def _time(value: Any) -> Any:
    if type(value) is str and _TIME.fullmatch(value):
        return value
    return _moment(value).strftime("%Y-%m-%dT%H:%M:%SZ")


def _micro_time(value: Any) -> Any:
    return _moment(value).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _moment(value: Any) -> datetime:
    if type(value) is not str:
        got = json_type(value)
        text = f"json: cannot unmarshal {got} into Go value of type string"
        raise TypeMismatch("", "v1.Time", got, text=text)
    match = _TIME_ANY.fullmatch(value)
    try:
        if match is None:
            raise ValueError
        digits, fraction, zone = match.groups()
        fraction = f".{fraction[1:7]:0<6}" if fraction else ""
        zone = "+00:00" if zone == "Z" else zone
        return datetime.fromisoformat(digits + fraction + zone).astimezone(UTC)
    except (ValueError, OverflowError):
        text = f'parsing time "{value}" as "{_LAYOUT}": cannot parse "{value}" as "2006"'
        raise TypeMismatch("", "v1.Time", "string", text=text) from None


def _bytes(value: Any) -> Any:
    if type(value) is not str:
        raise TypeMismatch("", "[]uint8", json_type(value))
    if "\n" in value or "\r" in value:
        value = value.replace("\n", "").replace("\r", "")
    try:
        base64.b64decode(value, validate=True)
    except binascii.Error:
        at = _first_bad(value)
        text = f"illegal base64 data at input byte {at}"
        raise TypeMismatch("", "[]uint8", "string", text=text) from None
    return value


def _first_bad(text: str) -> int:
    match = re.match(r"[A-Za-z0-9+/]*", text)
    end = match.end() if match else 0
    if end < len(text) and text[end] != "=":
        return end
    # Go reports a truncated last quantum at its start.
    return end - end % 4 if end == len(text) else end


_SCALARS = {
    "string": Scalar(str, _reject("string"), "", "string"),
    "boolean": Scalar(bool, _reject("bool"), False, "bool"),
    "number": Scalar(float, _number, 0, "float64"),
    "integer": Scalar(None, _integer("int64", 64), 0, "int64"),
    "integer/int32": Scalar(None, _int32, 0, "int32"),
    "string/int-or-string": Scalar(None, _int_or_string, 0, "intstr.IntOrString"),
    "string/quantity": Scalar(None, _quantity, "0", "resource.Quantity"),
    "string/date-time": Scalar(None, _time, None, "v1.Time"),
    "string/date-time-micro": Scalar(None, _micro_time, None, "v1.MicroTime"),
    "string/byte": Scalar(None, _bytes, "", "[]uint8"),
}


def scalar(kind: str, form: str) -> Scalar:
    """The scalar of a schema's type and format (unknown formats mean nothing)."""
    return _SCALARS.get(f"{kind}/{form}") or _SCALARS[kind]
