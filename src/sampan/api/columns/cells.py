"""Pieces of cells every kind shares: ages, names, joined lists."""

from __future__ import annotations

from typing import Any

from sampan.api.obj import Body
from sampan.api.resource import Column
from sampan.lib.clock import parse_rfc3339
from sampan.lib.duration import human

NONE = "<none>"
UNKNOWN = "<unknown>"
UNSET = "<unset>"
_NAME = "Name must be unique within a namespace."
_AGE = (
    "CreationTimestamp is the server time at which this object was created, in RFC3339 form "
    "and in UTC."
)


def dig(body: Any, path: str, default: Any = None) -> Any:
    """The value at a dotted path, or *default* when any step is absent or null."""
    for step in path.split("."):
        if not isinstance(body, dict):
            return default
        body = body.get(step)
    return default if body is None else body


def since(timestamp: Any, now: float) -> str:
    """How long ago an RFC 3339 time was."""
    if not timestamp:
        return UNKNOWN
    try:
        return human(now - parse_rfc3339(str(timestamp)))
    except ValueError:
        return "<invalid>"


def name_of(body: Body, _now: float) -> str:
    return str(dig(body, "metadata.name", ""))


def age_of(body: Body, now: float) -> str:
    return since(dig(body, "metadata.creationTimestamp"), now)


NAME = Column("Name", name_of, format="name", description=_NAME)
AGE = Column("Age", age_of, description=_AGE)
CREATED_AT = Column(
    "Created At",
    lambda body, _now: dig(body, "metadata.creationTimestamp", UNKNOWN),
    description=_AGE,
)


def text(name: str, path: str, default: Any = "", *, wide: bool = False, about: str = "") -> Column:
    """A column showing the string at a path."""
    return Column(
        name,
        lambda body, _now: dig(body, path) or default,
        priority=int(wide),
        description=about,
    )


def number(name: str, path: str, *, wide: bool = False, about: str = "") -> Column:
    """A column showing the integer at a path, 0 when absent."""
    return Column(
        name,
        lambda body, _now: dig(body, path, 0),
        type="integer",
        priority=int(wide),
        description=about,
    )


def container_names(spec: Body) -> str:
    return ",".join(c.get("name", "") for c in spec.get("containers") or ())


def container_images(spec: Body) -> str:
    return ",".join(c.get("image", "") for c in spec.get("containers") or ())
