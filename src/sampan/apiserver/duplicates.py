"""Fields a body names twice: the decoder keeps the last, and whoever sent it is told."""

from __future__ import annotations

import json
from typing import Any

import orjson


class _Twice(dict[str, Any]):
    """An object with the names it had more than once."""

    names: tuple[str, ...] = ()


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = _Twice(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        made.names = tuple(dict.fromkeys(k for k, _ in pairs if k in seen or seen.add(k)))  # type: ignore[func-returns-value]
    return made


def in_json(data: bytes, value: Any) -> list[str]:
    """What to say of the fields of *data* that are there twice; *value* is *data* decoded.

    Every field has one colon of its own, and strings keep theirs: as many colons in what was sent
    as in what was understood mean that nothing was lost. Only else the body is read again."""
    if b"\\u003" not in data and data.count(b":") == orjson.dumps(value).count(b":"):
        return []
    found: list[str] = []
    _walk(json.loads(data, object_pairs_hook=_pairs), "", found)
    return found


def _walk(value: Any, path: str, found: list[str]) -> None:
    if isinstance(value, dict):
        dot = f"{path}." if path else ""
        if isinstance(value, _Twice):
            found += [f'duplicate field "{dot}{name}"' for name in value.names]
        for name, inner in value.items():
            _walk(inner, f"{dot}{name}", found)
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            _walk(inner, f"{path}[{i}]", found)
