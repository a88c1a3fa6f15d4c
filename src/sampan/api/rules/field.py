"""Builders of causes: short names for the problems a validation can find."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import orjson

from sampan.api.errors import Cause

IMMUTABLE = "field is immutable"
NON_NEGATIVE = "must be greater than or equal to 0"


class Raw(str):
    """Text that messages show without quotes (an int-or-percent, a quantity)."""

    __slots__ = ()


def show(value: Any) -> str:
    """A value as error messages show it: strings quoted, the rest as JSON."""
    if value is None:
        return "null"
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, str):
        return quote(value)
    return orjson.dumps(value).decode()


_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def quote(text: str) -> str:
    """Go's %q for ordinary text."""
    return '"' + "".join(_ESCAPES.get(c, c) for c in text) + '"'


def required(path: str, detail: str = "") -> Cause:
    return Cause(path, "FieldValueRequired", _tail("Required value", detail))


def invalid(path: str, value: Any, detail: str) -> Cause:
    return Cause(path, "FieldValueInvalid", _tail(f"Invalid value: {show(value)}", detail))


def not_supported(path: str, value: Any, supported: Iterable[str]) -> Cause:
    listed = ", ".join(quote(s) for s in supported)
    detail = f"supported values: {listed}" if listed else ""
    return Cause(path, "FieldValueNotSupported", _tail(f"Unsupported value: {show(value)}", detail))


def duplicate(path: str, value: Any) -> Cause:
    return Cause(path, "FieldValueDuplicate", f"Duplicate value: {show(value)}")


def forbidden(path: str, detail: str) -> Cause:
    return Cause(path, "FieldValueForbidden", _tail("Forbidden", detail))


def not_found(path: str, value: Any) -> Cause:
    return Cause(path, "FieldValueNotFound", f"Not found: {show(value)}")


def too_long(path: str, limit: int) -> Cause:
    return Cause(path, "FieldValueTooLong", f"Too long: may not be more than {limit} bytes")


def too_many(path: str, actual: int, limit: int) -> Cause:
    return Cause(path, "FieldValueTooMany", f"Too many: {actual}: must have at most {limit} items")


def _tail(head: str, detail: str) -> str:
    return f"{head}: {detail}" if detail else head


def checked(path: str, value: Any, check: Callable[[str], Sequence[str]]) -> list[Cause]:
    """Each problem *check* finds in *value* as an Invalid cause."""
    return [invalid(path, value, problem) for problem in check(value)]


def one_of(path: str, value: Any, supported: Sequence[str], *, needed: bool = True) -> list[Cause]:
    """*value* must be among *supported*; empty is Required, or fine when not *needed*."""
    if value in (None, ""):
        return [required(path)] if needed else []
    return [] if value in supported else [not_supported(path, value, supported)]


def non_negative(path: str, value: Any) -> list[Cause]:
    if isinstance(value, int) and value < 0:
        return [invalid(path, value, NON_NEGATIVE)]
    return []


def in_range(path: str, value: int, low: int, high: int) -> list[Cause]:
    if low <= value <= high:
        return []
    return [invalid(path, value, f"must be between {low} and {high}, inclusive")]


def immutable(path: str, new: Any, old: Any) -> list[Cause]:
    """*new* must equal *old*, absent and empty being the same."""
    return [] if (new or None) == (old or None) else [invalid(path, new, IMMUTABLE)]
