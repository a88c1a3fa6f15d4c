"""OpenAPI documents, derived from the registry and the schemas."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from sampan.api.call import APPLY_PATCH, JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH
from sampan.api.resource import ResourceType
from sampan.schema import derive
from sampan.schema.walk import Schema, Schemas

Json = dict[str, Any]

TITLE = "Kubernetes"
# Part of the hashes in the index: raise it when documents change while their inputs do not.
LAYOUT = 1

_META = "io.k8s.apimachinery.pkg.apis.meta.v1"
_OPTIONS = (f"{_META}.DeleteOptions", f"{_META}.WatchEvent")
_PATCHES = (JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, APPLY_PATCH)
_EDIT = ("get", "patch", "update")


@dataclass(frozen=True, slots=True)
class Subresource:
    """What one subresource serves. kind '' is its parent's; definition '' has no body of ours."""

    verbs: tuple[str, ...]
    group: str = ""
    version: str = ""
    kind: str = ""
    definition: str = ""


_SUBRESOURCES = {
    "status": Subresource(_EDIT),
    "approval": Subresource(_EDIT),
    "ephemeralcontainers": Subresource(_EDIT),
    "resize": Subresource(_EDIT),
    "finalize": Subresource(("update",)),
    "log": Subresource(("get",)),
    "scale": Subresource(_EDIT, "autoscaling", "v1", "Scale", "io.k8s.api.autoscaling.v1.Scale"),
    "binding": Subresource(("create",), "", "", "Binding", "io.k8s.api.core.v1.Binding"),
    "eviction": Subresource(
        ("create",), "policy", "v1", "Eviction", "io.k8s.api.policy.v1.Eviction"
    ),
    "token": Subresource(
        ("create",),
        "authentication.k8s.io",
        "v1",
        "TokenRequest",
        "io.k8s.api.authentication.v1.TokenRequest",
    ),
    "attach": Subresource(("create", "get"), kind="{}AttachOptions"),
    "exec": Subresource(("create", "get"), kind="{}ExecOptions"),
    "portforward": Subresource(("create", "get"), kind="{}PortForwardOptions"),
    "proxy": Subresource(("create", "delete", "get", "patch", "update"), kind="{}ProxyOptions"),
}
_CONNECT = ("attach", "exec", "portforward", "proxy")


def subresource(t: ResourceType, name: str) -> Subresource:
    """What ``t.plural/name`` serves, its kind spelled out."""
    found = _SUBRESOURCES.get(name, Subresource(("get",)))
    kind = found.kind.format(t.kind) if found.kind else t.kind
    definition = found.definition
    if not found.kind:
        definition = t.definition
    return Subresource(found.verbs, found.group, found.version, kind, definition)


def fingerprint(types: Iterable[ResourceType]) -> str:
    """A hash of everything the document of *types* is made of, without making it."""
    facts = [
        [t.group, t.version, t.kind, t.plural, t.namespaced, t.definition, t.verbs, t.subresources]
        for t in types
    ]
    text = orjson.dumps([LAYOUT, derive.INPUT_SHA256, facts])
    return hashlib.sha256(text).hexdigest().upper()


# ---- operations --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Operation:
    """One method of one path, before it takes the shape of either OpenAPI version."""

    path: str
    method: str
    action: str
    id: str
    gvk: Json
    answer: str  # definition of the 200 answer; '' for text
    takes: str = ""  # definition of the body
    query: tuple[str, ...] = ()
    tag: str = ""


_LIST = (
    "allowWatchBookmarks", "continue", "fieldSelector", "labelSelector", "limit",
    "resourceVersion", "resourceVersionMatch", "sendInitialEvents", "timeoutSeconds", "watch",
)  # fmt: skip
_WRITE = ("dryRun", "fieldManager", "fieldValidation")
_DELETE = (
    "dryRun", "gracePeriodSeconds", "ignoreStoreReadErrorWithClusterBreakingPotential",
    "orphanDependents", "propagationPolicy",
)  # fmt: skip
_LOG = (
    "container", "follow", "limitBytes", "previous", "sinceSeconds", "stream", "tailLines",
    "timestamps",
)  # fmt: skip
_STREAM = ("command", "container", "stderr", "stdin", "stdout", "tty")
_QUERY = {
    "get": (),
    "list": _LIST,
    "create": _WRITE,
    "update": _WRITE,
    "patch": (*_WRITE, "force"),
    "delete": _DELETE,
    "deletecollection": tuple(sorted({*_LIST, *_DELETE} - {"allowWatchBookmarks", "watch"})),
}
_METHODS = {
    "get": ("get", "get", "read"),
    "list": ("get", "list", "list"),
    "create": ("post", "post", "create"),
    "update": ("put", "put", "replace"),
    "patch": ("patch", "patch", "patch"),
    "delete": ("delete", "delete", "delete"),
    "deletecollection": ("delete", "deletecollection", "deleteCollection"),
}
_TYPES = {
    "limit": "integer", "timeoutSeconds": "integer", "gracePeriodSeconds": "integer",
    "limitBytes": "integer", "sinceSeconds": "integer", "tailLines": "integer",
    "allowWatchBookmarks": "boolean", "sendInitialEvents": "boolean", "watch": "boolean",
    "force": "boolean", "orphanDependents": "boolean", "follow": "boolean", "previous": "boolean",
    "timestamps": "boolean", "stderr": "boolean", "stdin": "boolean", "stdout": "boolean",
    "tty": "boolean", "ignoreStoreReadErrorWithClusterBreakingPotential": "boolean",
}  # fmt: skip
_ABOUT = {
    "allowWatchBookmarks": "Ask for BOOKMARK events in a watch.",
    "command": "The command to run, one argument per parameter.",
    "container": "The container; may be left out when the pod has only one.",
    "continue": "The token of the next page, taken from the answer before.",
    "dryRun": "With the value All, nothing is stored.",
    "fieldManager": "The name of whoever makes this change.",
    "fieldSelector": "Answer only objects whose fields have these values.",
    "fieldValidation": "What unknown and duplicate fields lead to: Ignore, Warn or Strict.",
    "follow": "Keep sending what is logged.",
    "force": "Take over fields of other managers; for apply patches.",
    "gracePeriodSeconds": "Seconds the object has to end; 0 means at once.",
    "ignoreStoreReadErrorWithClusterBreakingPotential": "Delete even what cannot be read.",
    "labelSelector": "Answer only objects with these labels.",
    "limit": "The most objects to answer in one page.",
    "limitBytes": "The most bytes of log to answer.",
    "name": "name of the object",
    "namespace": "object name and auth scope, such as for teams and projects",
    "orphanDependents": "Deprecated: use propagationPolicy.",
    "pretty": "With the value true, the answer is indented.",
    "previous": "The log of the terminated container before this one.",
    "propagationPolicy": "What becomes of dependents: Orphan, Background or Foreground.",
    "resourceVersion": "The revision to read at, or to watch from.",
    "resourceVersionMatch": "How resourceVersion is meant: Exact or NotOlderThan.",
    "sendInitialEvents": "Begin a watch with the objects that exist.",
    "sinceSeconds": "Only what was logged in the last seconds.",
    "stderr": "Redirect the standard error.",
    "stdin": "Redirect the standard input.",
    "stdout": "Redirect the standard output.",
    "stream": "Which stream: All, Stdout or Stderr.",
    "tailLines": "Only the last lines.",
    "timeoutSeconds": "Seconds after which a list or watch ends.",
    "timestamps": "Put a time before every line.",
    "tty": "Give the command a terminal.",
    "watch": "Answer changes instead of a list.",
}


def _camel(text: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in text.split("-"))


class _Operations:
    """All operations of one resource type."""

    def __init__(self, t: ResourceType, schemas: Schemas) -> None:
        self._t = t
        self._schemas = schemas
        root = f"/apis/{t.group}/{t.version}" if t.group else f"/api/{t.version}"
        inside = "namespaces/{namespace}/" if t.namespaced else ""
        self._everywhere = f"{root}/{t.plural}"
        self._collection = f"{root}/{inside}{t.plural}"
        self._item = f"{self._collection}/{{name}}"
        group = _camel(t.group.split(".")[0].replace(".", "-")) if t.group else "Core"
        self._api = f"{group}{_camel(t.version)}"
        self._tag = f"{group[:1].lower()}{group[1:]}_{t.version}"
        self._gvk: Json = {"group": t.group, "kind": t.kind, "version": t.version}

    def __iter__(self) -> Iterator[_Operation]:
        t = self._t
        several = f"{t.definition}List" if f"{t.definition}List" in self._schemas else ""
        for verb in ("list", "create", "deletecollection"):
            if verb in t.verbs:
                yield self._one(verb, self._collection, several if verb == "list" else "")
        if t.namespaced and "list" in t.verbs:
            yield self._one("list", self._everywhere, several, suffix="ForAllNamespaces")
        for verb in ("get", "update", "patch", "delete"):
            if verb in t.verbs:
                yield self._one(verb, self._item)
        for name in t.subresources:
            yield from self._sub(name)

    def _one(self, verb: str, path: str, answer: str = "", *, suffix: str = "") -> _Operation:
        t = self._t
        method, action, word = _METHODS[verb]
        takes = {"create": t.definition, "update": t.definition, "patch": f"{_META}.Patch"}
        if verb in ("delete", "deletecollection"):
            takes[verb], answer = _OPTIONS[0], answer or f"{_META}.Status"
        scope = "Namespaced" if t.namespaced and not suffix else ""
        kind = f"Collection{scope}{t.kind}" if verb == "deletecollection" else f"{scope}{t.kind}"
        return _Operation(
            path, method, action, f"{word.removesuffix('Collection')}{self._api}{kind}{suffix}",
            self._gvk, answer or t.definition, takes.get(verb, ""), _QUERY[verb], self._tag,
        )  # fmt: skip

    def _sub(self, name: str) -> Iterator[_Operation]:
        t, sub = self._t, subresource(self._t, name)
        gvk = {"group": sub.group, "kind": sub.kind, "version": sub.version}
        if not sub.version:
            gvk = {**self._gvk, "kind": sub.kind}
        scope = "Namespaced" if t.namespaced else ""
        for verb in sub.verbs:
            method, action, word = _METHODS[verb]
            query = _QUERY[verb]
            takes, answer = sub.definition if verb in ("create", "update") else "", sub.definition
            if verb == "patch":
                takes = f"{_META}.Patch"
            if name in _CONNECT:
                action, word, query, takes, answer = (
                    "connect",
                    f"connect{_camel(method)}",
                    (),
                    "",
                    "",
                )
                query = _STREAM if name in ("exec", "attach") else ()
            elif name == "log":
                query, answer = _LOG, ""
            if sub.definition and sub.definition not in self._schemas:
                takes = answer = ""
            yield _Operation(
                f"{self._item}/{name}", method, action,
                f"{word}{self._api}{scope}{t.kind}{_camel(name)}", gvk, answer, takes, query,
                self._tag,
            )  # fmt: skip


# ---- documents ---------------------------------------------------------------------------------


def swagger(types: Iterable[ResourceType], schemas: Schemas, *, version: str) -> Json:
    """The OpenAPI v2 document of all *types*."""
    types = [t for t in types if t.definition]
    operations = [o for t in types for o in _Operations(t, schemas)]
    kinds = list(dict.fromkeys((t.group, t.version) for t in types))
    render = _Render(schemas, ref="#/definitions/", v3=False, served=kinds)
    paths: dict[str, Json] = {}
    for o in operations:
        paths.setdefault(o.path, {})[o.method] = _v2_operation(o)
    return {
        "swagger": "2.0",
        "info": {"title": TITLE, "version": version},
        "paths": dict(sorted(paths.items())),
        "definitions": render.closure(_roots(operations)),
    }


def document(types: Iterable[ResourceType], schemas: Schemas, *, version: str) -> Json:
    """The OpenAPI v3 document of one group version."""
    types = [t for t in types if t.definition]
    operations = [o for t in types for o in _Operations(t, schemas)]
    kinds = list(dict.fromkeys((t.group, t.version) for t in types))
    render = _Render(schemas, ref="#/components/schemas/", v3=True, served=kinds)
    paths: dict[str, Json] = {}
    for o in operations:
        item = paths.setdefault(o.path, {"parameters": _v3_place(o.path)})
        item[o.method] = _v3_operation(o)
    return {
        "openapi": "3.0.0",
        "info": {"title": TITLE, "version": version},
        "paths": dict(sorted(paths.items())),
        "components": {"schemas": render.closure(_roots(operations))},
    }


def _roots(operations: Iterable[_Operation]) -> set[str]:
    found = {name for o in operations for name in (o.answer, o.takes) if name}
    return found | set(_OPTIONS)


def _in_path(path: str) -> list[str]:
    return [p for p in ("name", "namespace") if f"{{{p}}}" in path]


def _marks(o: _Operation) -> Json:
    return {"x-kubernetes-action": o.action, "x-kubernetes-group-version-kind": o.gvk}


def _about(o: _Operation) -> str:
    name = o.path.rpartition("}/")[2] if "{name}/" in o.path else ""
    return f"{o.action} {name + ' of ' if name else ''}{o.gvk['kind']}"


def _v2_operation(o: _Operation) -> Json:
    parameters: list[Json] = []
    if o.takes:
        body: Json = {"name": "body", "in": "body", "schema": {"$ref": f"#/definitions/{o.takes}"}}
        if o.method != "delete":
            body["required"] = True
        parameters.append(body)
    parameters += [
        {"name": p, "in": "path", "type": "string", "required": True, "description": _ABOUT[p]}
        for p in _in_path(o.path)
    ]
    parameters += [
        {"name": p, "in": "query", "type": _TYPES.get(p, "string"), "description": _ABOUT[p]}
        for p in (*o.query, "pretty")
    ]
    answer: Json = {"description": "OK"}
    if o.answer:
        answer["schema"] = {"$ref": f"#/definitions/{o.answer}"}
    return {
        "description": _about(o),
        "operationId": o.id,
        "tags": [o.tag],
        "schemes": ["https"],
        "consumes": list(_PATCHES) if o.method == "patch" else ["*/*"],
        "produces": ["application/json", "application/yaml"] if o.answer else ["*/*"],
        "parameters": parameters,
        "responses": {"200": answer, "401": {"description": "Unauthorized"}},
        **_marks(o),
    }


def _v3_place(path: str) -> list[Json]:
    return [
        {
            "name": p, "in": "path", "required": True, "description": _ABOUT[p],
            "schema": {"type": "string", "uniqueItems": True},
        }
        for p in _in_path(path)
    ]  # fmt: skip


def _v3_operation(o: _Operation) -> Json:
    def content(definition: str, media: Iterable[str]) -> Json:
        ref = {"$ref": f"#/components/schemas/{definition}"}
        return {m: {"schema": ref} for m in media}

    answer: Json = {"description": "OK"}
    if o.answer:
        answer["content"] = content(o.answer, ("application/json", "application/yaml"))
    operation: Json = {
        "description": _about(o),
        "operationId": o.id,
        "tags": [o.tag],
        "parameters": [
            {
                "name": p, "in": "query", "description": _ABOUT[p],
                "schema": {"type": _TYPES.get(p, "string"), "uniqueItems": True},
            }
            for p in (*o.query, "pretty")
        ],
        "responses": {"200": answer, "401": {"description": "Unauthorized"}},
        **_marks(o),
    }  # fmt: skip
    if o.takes:
        media = _PATCHES if o.method == "patch" else ("application/json", "application/yaml")
        operation["requestBody"] = {"content": content(o.takes, media)}
        if o.method != "delete":
            operation["requestBody"]["required"] = True
    return operation


class _Render:
    """Definitions in the shape of one OpenAPI version."""

    def __init__(
        self, schemas: Schemas, *, ref: str, v3: bool, served: list[tuple[str, str]]
    ) -> None:
        self._schemas = schemas
        self._texts: Callable[[str], Mapping[str, str]] = schemas.descriptions()
        self._ref = ref
        self._v3 = v3
        self._served = served
        self._todo: list[str] = []

    def closure(self, names: set[str]) -> Json:
        """*names* and all they refer to, by name."""
        found: Json = {}
        self._todo = sorted(names)
        while self._todo:
            name = self._todo.pop()
            if name in found or name not in self._schemas:
                continue
            found[name] = self._definition(name)
        return dict(sorted(found.items()))

    def _definition(self, name: str) -> Json:
        shaped = self._shape(self._schemas.schema(name), "", self._texts(name))
        if name in _OPTIONS:
            kind = name.rpartition(".")[2]
            shaped["x-kubernetes-group-version-kind"] = [
                {"group": g, "kind": kind, "version": v} for g, v in self._served
            ]
        return shaped

    def _shape(self, schema: Schema, path: str, texts: Mapping[str, str]) -> Json:
        shaped: Json = {}
        if text := texts.get(path):
            shaped["description"] = text
        dot = f"{path}." if path else ""
        for key, value in schema.items():
            if key == "$ref":
                self._todo.append(value)
                self._reference(shaped, schema, f"{self._ref}{value}")
            elif key == "properties":
                shaped[key] = {k: self._shape(v, dot + k, texts) for k, v in value.items()}
            elif key == "items":
                shaped[key] = self._shape(value, f"{dot}[]", texts)
            elif key == "additionalProperties":
                shaped[key] = self._shape(value, f"{dot}*", texts)
            elif key != "x-kubernetes-preserve-unknown-fields":
                shaped[key] = value
        self._scalar(shaped)
        return shaped

    def _reference(self, shaped: Json, schema: Schema, ref: str) -> None:
        # In version 3 nothing may stand beside a $ref.
        if self._v3 and (shaped or len(schema) > 1):
            shaped["allOf"] = [{"$ref": ref}]
        else:
            shaped["$ref"] = ref

    def _scalar(self, shaped: Json) -> None:
        """Our formats as Kubernetes publishes them."""
        form = shaped.get("format")
        if form == "date-time-micro":
            shaped["format"] = "date-time"
        elif form in ("quantity", "int-or-string"):
            if form == "quantity":
                del shaped["format"]
            if self._v3:
                del shaped["type"]
                other = "number" if form == "quantity" else "integer"
                shaped["oneOf"] = [{"type": "string"}, {"type": other}]
