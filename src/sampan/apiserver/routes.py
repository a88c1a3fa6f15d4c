"""From a request's method, path and query to a Call: how the API's URLs are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import parse_qsl, unquote

from sampan.api.call import Call
from sampan.api.errors import StatusError, bad_request
from sampan.api.resource import Registry, ResourceType

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete", "GET": "get"}
_NAMESPACE_PARTS = ("status", "finalize")
_NUMBERS = ("limit", "timeoutSeconds", "gracePeriodSeconds")
_FLAGS = (
    "watch", "allowWatchBookmarks", "sendInitialEvents", "orphanDependents",
    "ignoreStoreReadErrorWithClusterBreakingPotential",
)  # fmt: skip
_TRUTHS = {"true": True, "1": True, "t": True, "T": True, "TRUE": True, "True": True}
_LIES = ("false", "0", "f", "F", "FALSE", "False")


@dataclass(frozen=True, slots=True)
class Place:
    """What a resource path names."""

    group: str
    version: str
    plural: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    rest: str = ""  # what follows a subresource (proxy paths)
    is_watch: bool = False  # an old /watch/ path

    @property
    def resource(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural


@dataclass(frozen=True, slots=True)
class Query:
    """Query parameters: the first value of each, and all of them."""

    first: Mapping[str, str] = field(default_factory=dict)
    every: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


_EMPTY = Query()


@lru_cache(maxsize=8192)
def place(path: str) -> Place | None:
    """What *path* names; None for what is no resource (discovery, health...)."""
    parts = unquote(path).strip("/").split("/")
    if parts[0] == "api" and len(parts) > 2:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) > 3:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    is_watch = rest[0] == "watch" and len(rest) > 1
    if is_watch:
        rest = rest[1:]
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in _NAMESPACE_PARTS:
        namespace, rest = rest[1], rest[2:]
    return Place(
        group=group,
        version=version,
        plural=rest[0],
        namespace=namespace,
        name=rest[1] if len(rest) > 1 else "",
        subresource=rest[2] if len(rest) > 2 else "",
        rest="/".join(rest[3:]),
        is_watch=is_watch,
    )


def query(text: str) -> Query:
    """Raises StatusError 400 for values that cannot be what they should."""
    if not text:
        return _EMPTY
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=1000)
    except ValueError:
        raise bad_request("the query string is malformed") from None
    every: dict[str, list[str]] = {}
    for key, value in pairs:
        every.setdefault(key, []).append(value)
    first = {k: v[0] for k, v in every.items()}
    for key in _NUMBERS:
        if first.get(key):
            _integer(first[key])
    for key in _FLAGS:
        if first.get(key):
            is_true(first[key])
    return Query(first, {k: tuple(v) for k, v in every.items()})


def _integer(text: str) -> int:
    digits = text[1:] if text[:1] in "+-" else text
    if not (digits.isascii() and digits.isdigit()):
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    if not -(2**63) <= int(text) < 2**63:
        raise bad_request(f'strconv.ParseInt: parsing "{text}": value out of range')
    return int(text)


def is_true(text: str) -> bool:
    """A flag's value. Raises StatusError 400."""
    if text in _TRUTHS:
        return True
    # As in Kubernetes: whatever is there and does not say no, says yes.
    return bool(text) and text not in _LIES


def no_such_resource() -> StatusError:
    return StatusError(404, "NotFound", "the server could not find the requested resource")


def no_such_method() -> StatusError:
    return StatusError(
        405, "MethodNotAllowed", "the server does not allow this method on the requested resource"
    )


def resource_type(registry: Registry, where: Place) -> ResourceType:
    """The type served at *where*. Raises StatusError 404."""
    t = registry.get(where.resource, where.version)
    if t is None:
        raise no_such_resource()
    if where.namespace and not t.namespaced:
        raise no_such_resource()
    if where.name and t.namespaced and not where.namespace:
        raise no_such_resource()
    if where.subresource and where.subresource not in t.subresources:
        raise no_such_resource()
    if where.subresource == "proxy" and where.is_watch:
        raise no_such_resource()
    if where.rest and where.subresource != "proxy":
        raise no_such_resource()
    return t


def verb_of(method: str, where: Place, options: Mapping[str, str]) -> str:
    """The API verb of a request, as authorization sees it. Raises StatusError 405."""
    verb = _VERBS.get(method)
    if where.subresource == "proxy":  # any method goes on to whom it is for
        return verb or ("get" if method == "HEAD" else "")
    if verb is None:
        raise no_such_method()
    if verb == "get":
        if where.is_watch:
            return "watch"
        if not where.name:
            return "watch" if is_true(options.get("watch", "")) else "list"
    elif verb == "delete" and not where.name:
        return "deletecollection"
    return verb


def check_method(t: ResourceType, where: Place, verb: str) -> None:
    """Raises StatusError 405 for a verb that cannot be meant at this place."""
    if where.subresource:
        return  # the endpoint knows what each of them can do
    if verb not in t.verbs:
        raise no_such_method()
    if verb == "create" and (where.name or (t.namespaced and not where.namespace)):
        raise no_such_method()
    if verb in ("update", "patch") and not where.name:
        raise no_such_method()
    if verb == "deletecollection" and t.namespaced and not where.namespace:
        raise no_such_method()


def call_of(where: Place, verb: str, options: Mapping[str, str]) -> Call:
    """The call, without its body."""
    name = where.name
    if where.is_watch and name:
        selector = f"metadata.name={name}"
        if options.get("fieldSelector"):
            selector = f"{options['fieldSelector']},{selector}"
        options, name = {**options, "fieldSelector": selector}, ""
    return Call(
        verb=verb,
        resource=where.resource,
        version=where.version,
        namespace=where.namespace,
        name=name,
        subresource=where.subresource,
        options=options,
    )
