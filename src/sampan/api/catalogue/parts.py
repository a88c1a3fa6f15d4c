"""What declarations are made of: field selectors; defaults that refuse unreadable quantities."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sampan.api.errors import bad_request
from sampan.api.obj import Body
from sampan.lib.quantity import QuantityError

ALL = ("all",)

Fields = Mapping[str, Callable[[Body], str]]


def at(path: str) -> Callable[[Body], str]:
    """A field's value as a field selector compares it ('' when absent)."""
    steps = path.split(".")

    def read(body: Body) -> str:
        value: Any = body
        for step in steps:
            value = value.get(step) if isinstance(value, dict) else None
        if isinstance(value, bool):
            return "true" if value else "false"
        return "" if value is None else str(value)

    return read


def fields(*paths: str, **special: Callable[[Body], str]) -> Fields:
    found = {p: at(p) for p in ("metadata.name", "metadata.namespace", *paths)}
    found.update({k.replace("__", "."): v for k, v in special.items()})
    return found


def flag(path: str) -> Callable[[Body], str]:
    read = at(path)
    return lambda body: read(body) or "false"


def count(path: str) -> Callable[[Body], str]:
    read = at(path)
    return lambda body: read(body) or "0"


def strict(default: Callable[[Body], None]) -> Callable[[Body], None]:
    """*default*, with unreadable quantities reported as a failed decoding (400)."""

    def run(body: Body) -> None:
        try:
            default(body)
        except QuantityError as e:
            kind, version = body.get("kind", ""), body.get("apiVersion", "")
            raise bad_request(
                f'{kind} in version "{version}" cannot be handled as a {kind}: {e}'
            ) from None

    return run
