"""Objects: immutable values shared by reference between store, watches and caches."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import orjson

Body: TypeAlias = dict[str, Any]

PLACEHOLDER = b'"metadata":{"resourceVersion":""'


class Key(NamedTuple):
    """Names one object. resource: ``plural`` or ``plural.group``; namespace '' if cluster-wide."""

    resource: str
    namespace: str
    name: str

    @property
    def path(self) -> str:
        """The store key; ``Key.prefix`` gives the prefix all keys of a resource share."""
        if self.namespace:
            return f"{self.resource}/{self.namespace}/{self.name}"
        return f"{self.resource}//{self.name}"

    @staticmethod
    def prefix(resource: str, namespace: str = "") -> str:
        """Store prefix of a whole resource, or of one namespace of it."""
        return f"{resource}/{namespace}/" if namespace else f"{resource}/"

    @staticmethod
    def parse(path: str) -> Key:
        """Inverse of ``path``."""
        resource, namespace, name = path.split("/", 2)
        return Key(resource, namespace, name)


def encode(body: Body) -> bytes:
    """JSON bytes of *body* with an empty resourceVersion as the first member of metadata.

    The revision is known only at commit; ``splice`` puts it in without decoding.
    """
    meta = {"resourceVersion": "", **body.get("metadata", {})}
    meta["resourceVersion"] = ""
    out: Body = {"apiVersion": body.get("apiVersion", ""), "kind": body.get("kind", "")}
    out["metadata"] = meta
    for k, v in body.items():
        if k not in out:
            out[k] = v
    return orjson.dumps(out)


def splice(value: bytes, revision: int) -> bytes:
    """*value* (as made by ``encode``) with its resourceVersion set to *revision*."""
    return value.replace(PLACEHOLDER, b'"metadata":{"resourceVersion":"%d"' % revision, 1)


class Obj:
    """One object at one revision: key, revision, raw JSON (with resourceVersion), lazy body.

    ``body`` is shared by every reader and must never be changed in place: copy what you edit.
    """

    __slots__ = ("_body", "key", "raw", "revision")

    def __init__(self, key: Key, raw: bytes, revision: int, body: Body | None = None) -> None:
        self.key = key
        self.raw = raw
        self.revision = revision
        self._body = body

    @staticmethod
    def of(key: Key, body: Body, revision: int | None = None) -> Obj:
        """An object from a decoded body (revision taken from its metadata unless given)."""
        if revision is None:
            revision = int(body.get("metadata", {}).get("resourceVersion") or 0)
        return Obj(key, orjson.dumps(body), revision, body)

    @property
    def body(self) -> Body:
        if self._body is None:
            self._body = orjson.loads(self.raw)
        return self._body

    @property
    def meta(self) -> Body:
        meta: Body = self.body["metadata"]
        return meta

    @property
    def name(self) -> str:
        return self.key.name

    @property
    def namespace(self) -> str:
        return self.key.namespace

    @property
    def uid(self) -> str:
        return str(self.meta.get("uid", ""))

    @property
    def labels(self) -> dict[str, str]:
        labels: dict[str, str] = self.meta.get("labels") or {}
        return labels

    @property
    def annotations(self) -> dict[str, str]:
        annotations: dict[str, str] = self.meta.get("annotations") or {}
        return annotations

    @property
    def owners(self) -> list[Body]:
        owners: list[Body] = self.meta.get("ownerReferences") or []
        return owners

    @property
    def controller(self) -> Body | None:
        """The owner reference with ``controller: true``, if any."""
        return next((o for o in self.owners if o.get("controller")), None)

    @property
    def is_deleting(self) -> bool:
        return "deletionTimestamp" in self.meta

    @property
    def spec(self) -> Body:
        spec: Body = self.body.get("spec") or {}
        return spec

    @property
    def status(self) -> Body:
        status: Body = self.body.get("status") or {}
        return status

    def __repr__(self) -> str:
        return f"<{self.key.path}@{self.revision}>"


class Event(NamedTuple):
    """One watch event. type: ADDED, MODIFIED, DELETED or BOOKMARK (a bookmark's obj has only
    metadata.resourceVersion and perhaps the initial-events-end annotation)."""

    type: str
    obj: Obj


class Page(NamedTuple):
    """A list answer: objects at one revision and the token of the next page ('' at the end)."""

    items: list[Obj]
    revision: int
    continue_: str = ""
    remaining: int | None = None
