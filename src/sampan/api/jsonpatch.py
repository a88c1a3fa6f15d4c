"""JSON Patch (RFC 6902), with the limits and the negative indexes Kubernetes has."""

from __future__ import annotations

import copy
from typing import Any

import orjson

from sampan.schema.scalars import json_type

MAX_OPERATIONS = 10_000
# What all copy operations of one patch may produce: a doubling patch must not fill the memory.
MAX_COPIED = 3 * 1024 * 1024

_ABSENT = object()


class Malformed(Exception):
    """Not a JSON patch at all."""


class TooMany(Exception):
    """More operations than one patch may have."""


class DoesNotApply(Exception):
    """An operation, or its test, fails on this document."""


def apply(document: Any, patch: Any) -> Any:
    """*document* after all operations of *patch*; *document* stays as it is."""
    if not isinstance(patch, list):
        raise Malformed(
            f"json: cannot unmarshal {json_type(patch)} into Go value of type"
            " []handlers.jsonPatchOp"
        )
    for operation in patch:
        _check(operation)
    if len(patch) > MAX_OPERATIONS:
        raise TooMany(
            f"The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {len(patch)}"
        )
    document = copy.deepcopy(document)
    copied = 0
    for operation in patch:
        kind, path = operation.get("op"), _pointer(operation.get("path"))
        if kind == "add":
            document = _add(document, path, copy.deepcopy(_value(operation)))
        elif kind == "remove":
            document = _remove(document, path)
        elif kind == "replace":
            document = _replace(document, path, copy.deepcopy(_value(operation)))
        elif kind == "move":
            source = _pointer(operation.get("from"))
            value = _get(document, source)
            if path[: len(source)] == source and path != source:
                raise DoesNotApply("cannot move a value into itself")
            document = _add(_remove(document, source), path, value)
        elif kind == "copy":
            value = _get(document, _pointer(operation.get("from")))
            copied += len(orjson.dumps(value))
            if copied > MAX_COPIED:
                raise DoesNotApply("the copies of this patch are too large")
            document = _add(document, path, copy.deepcopy(value))
        elif kind == "test":
            _test(document, path, operation.get("value"))
        else:
            raise DoesNotApply(f"Unexpected kind: {kind}")
    return document


def _check(operation: Any) -> None:
    """Members of the wrong type make the whole patch unreadable."""
    if not isinstance(operation, dict):
        raise Malformed(
            f"json: cannot unmarshal {json_type(operation)} into Go value of type"
            " handlers.jsonPatchOp"
        )
    for member in ("op", "path", "from"):
        value = operation.get(member)
        if value is not None and not isinstance(value, str):
            raise Malformed(
                f"json: cannot unmarshal {json_type(value)} into Go struct field"
                f" jsonPatchOp.{member} of type string"
            )


def _value(operation: dict[str, Any]) -> Any:
    if "value" not in operation:
        raise DoesNotApply("missing value")
    return operation["value"]


def _pointer(text: str | None) -> list[str]:
    """Steps of a JSON pointer (RFC 6901)."""
    if not text:
        if text is None:
            raise DoesNotApply("missing path")
        return []
    if text[0] != "/":
        raise DoesNotApply(f"invalid path {text!r}")
    return [step.replace("~1", "/").replace("~0", "~") for step in text[1:].split("/")]


def _index(holder: list[Any], step: str, *, end: int) -> int:
    """The position *step* names, 0 <= position < end. Negative ones count from *end*."""
    digits = step[1:] if step.startswith("-") else step
    if not digits.isascii() or not digits.isdigit() or (len(digits) > 1 and digits[0] == "0"):
        raise DoesNotApply(f"no index: {step!r}")
    at = int(step) if len(digits) < 10 else end
    if at < 0:
        at += end
    if not 0 <= at < end:
        raise DoesNotApply(f"index {step} is out of bounds")
    return at


def _step(holder: Any, step: str) -> Any:
    if isinstance(holder, dict):
        return holder.get(step, _ABSENT)
    if isinstance(holder, list):
        return holder[_index(holder, step, end=len(holder))]
    raise DoesNotApply(f"no member {step!r} in a scalar")


def _get(document: Any, path: list[str]) -> Any:
    for step in path:
        document = _step(document, step)
        if document is _ABSENT:
            raise DoesNotApply(f"missing member {step!r}")
    return document


def _add(document: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    holder, last = _get(document, path[:-1]), path[-1]
    if isinstance(holder, dict):
        holder[last] = value
    elif isinstance(holder, list):
        end = len(holder)
        holder.insert(end if last == "-" else _index(holder, last, end=end + 1), value)
    else:
        raise DoesNotApply("the parent is a scalar")
    return document


def _remove(document: Any, path: list[str]) -> Any:
    _get(document, path)
    if not path:
        return None
    holder, last = _get(document, path[:-1]), path[-1]
    if isinstance(holder, dict):
        del holder[last]
    else:
        del holder[_index(holder, last, end=len(holder))]
    return document


def _replace(document: Any, path: list[str], value: Any) -> Any:
    _get(document, path)
    if not path:
        return value
    holder, last = _get(document, path[:-1]), path[-1]
    if isinstance(holder, dict):
        holder[last] = value
    else:
        holder[_index(holder, last, end=len(holder))] = value
    return document


def _test(document: Any, path: list[str], expected: Any) -> None:
    found = _get(document, path[:-1]) if path else document
    if path:
        found = _step(found, path[-1])
        if found is _ABSENT:
            # A missing member passes as null, as it does in Kubernetes.
            found = None
    if not _equal(found, expected):
        raise DoesNotApply("testing value failed")


def _equal(a: Any, b: Any) -> bool:
    """JSON equality: unlike Python's, true is not 1."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(v, b[k]) for k, v in a.items())
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_equal(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    return bool(a == b)
