"""Derives the compact schema files of the wheel from kubernetes-validate's definitions.

Used by the build hook and by source checkouts: standard library and orjson only, no other module
of this package (the hook loads this file alone).

The result is three files. ``structure`` and ``descriptions`` are compressed lines of
``<definition>\\t<JSON>``, so that a reader decodes only the definitions it needs. Structure is an
OpenAPI schema without descriptions; descriptions map a dotted path inside the definition ('' for
itself) to its text.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import tempfile
import zlib
from pathlib import Path
from typing import Any

import orjson

KUBERNETES = "v1.37.0"
INPUT = f"kubernetes-json-schema/{KUBERNETES}-local/_definitions.json"
INPUT_SHA256 = "e1cc369ddafebc822940791b134361062e1b754a393104857ede92a81f2aa2a2"

# Raise it when derive() gives other results: source checkouts then derive anew.
FORMAT = 1
STRUCTURE = f"structure.{FORMAT}.z"
DESCRIPTIONS = f"descriptions.{FORMAT}.z"
NOTICE = "NOTICE"

NOTICE_TEXT = """\
The files beside this one are derived, when Sampan is built, from the API definitions of
Kubernetes v1.37.0 as packaged by kubernetes-validate 1.37.0.

Field names, types and list keys describe the Kubernetes API. The field descriptions (shown by
`kubectl explain` and in the OpenAPI documents) are texts of the Kubernetes project:
Copyright The Kubernetes Authors, licensed under the Apache License, Version 2.0
(https://www.apache.org/licenses/LICENSE-2.0).
They were reduced and re-arranged, not reworded.
"""

_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_UNSTABLE = re.compile(r"\.v\d+(alpha|beta)\d+\.")
_REF = "#/$defs/"
_KEPT = (
    "format", "required", "x-kubernetes-group-version-kind", "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type", "x-kubernetes-map-type", "x-kubernetes-patch-merge-key",
    "x-kubernetes-patch-strategy",
)  # fmt: skip
# Two values of either type: the source writes them as oneOf.
_EITHER = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": "quantity",
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": "int-or-string",
}
# Objects of free shape; every other object without properties is an empty struct.
_FREE = {
    f"{_META}FieldsV1",
    f"{_META}Patch",
    "io.k8s.apimachinery.pkg.runtime.RawExtension",
}


class DeriveError(Exception):
    """The input is missing, or is not the pinned one."""


def find_input() -> Path:
    """The definitions file of the installed kubernetes-validate. Raises DeriveError."""
    spec = importlib.util.find_spec("kubernetes_validate")
    if spec is None or not spec.submodule_search_locations:
        raise DeriveError("the built-in schemas need kubernetes-validate==1.37.0 (pip install it)")
    path = Path(next(iter(spec.submodule_search_locations))) / INPUT
    if not path.is_file():
        raise DeriveError(f"kubernetes-validate has no {INPUT}: version 1.37.0 is needed")
    return path


def derive(source: bytes) -> dict[str, bytes]:
    """File name -> content of the data directory. Raises DeriveError for an unpinned *source*."""
    found = hashlib.sha256(source).hexdigest()
    if found != INPUT_SHA256:
        raise DeriveError(f"{INPUT} has sha256 {found}, expected {INPUT_SHA256}")
    structure: list[bytes] = []
    descriptions: list[bytes] = []
    definitions = orjson.loads(source)["$defs"]
    kept = {name for name in definitions if not _UNSTABLE.search(f"{name}.")}
    for name in sorted(_closure(definitions, kept)):
        schema = definitions[name]
        texts: dict[str, str] = {}
        slim = _definition(name, schema, texts)
        structure.append(_line(name, slim))
        descriptions.append(_line(name, texts))
    return {
        STRUCTURE: zlib.compress(b"\n".join(structure), 9),
        DESCRIPTIONS: zlib.compress(b"\n".join(descriptions), 9),
        NOTICE: NOTICE_TEXT.encode(),
    }


def write(directory: Path) -> None:
    """Derive into *directory*. Each file appears whole, also with several writers at once."""
    files = derive(find_input().read_bytes())
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        handle, part = tempfile.mkstemp(dir=directory, prefix=f".{name}.")
        with os.fdopen(handle, "wb") as out:
            out.write(content)
        os.chmod(part, 0o644)
        os.replace(part, directory / name)


def _closure(definitions: dict[str, Any], names: set[str]) -> set[str]:
    """*names* and what they refer to (a few stable kinds refer to unstable packages)."""
    found: set[str] = set()
    todo = list(names)
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += _refs(definitions[name])
    return found


def _refs(node: object) -> list[str]:
    if isinstance(node, list):
        return [ref for inner in node for ref in _refs(inner)]
    if not isinstance(node, dict):
        return []
    ref = node.get("$ref")
    if isinstance(ref, str):
        return [ref.removeprefix(_REF)]
    return [ref for inner in node.values() for ref in _refs(inner)]


def _line(name: str, value: object) -> bytes:
    return name.encode() + b"\t" + orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _definition(name: str, schema: dict[str, Any], texts: dict[str, str]) -> dict[str, Any]:
    if name in _EITHER:
        return {"type": "string", "format": _EITHER[name]}
    slim = _slim(schema, "", texts)
    if name in _FREE:
        slim["x-kubernetes-preserve-unknown-fields"] = True
    elif name.endswith(".MicroTime"):
        slim["format"] = "date-time-micro"
    kinds = slim.get("x-kubernetes-group-version-kind")
    if kinds and len(kinds) > 1:
        # Options that every group accepts: which groups are served is the registry's to say.
        first = {"group": "", "kind": kinds[0]["kind"], "version": "v1"}
        slim["x-kubernetes-group-version-kind"] = [first]
    return slim


def _slim(schema: dict[str, Any], path: str, texts: dict[str, str]) -> dict[str, Any]:
    """*schema* without descriptions (gathered in *texts*), nulls and enums of type markers."""
    slim: dict[str, Any] = {k: schema[k] for k in _KEPT if k in schema}
    if text := schema.get("description"):
        texts[path] = text
    if ref := schema.get("$ref"):
        slim["$ref"] = ref.removeprefix(_REF)
        return slim
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next(t for t in kind if t != "null")
    if kind:
        slim["type"] = kind
    dot = f"{path}." if path else ""
    if properties := schema.get("properties"):
        slim["properties"] = {k: _slim(v, dot + k, texts) for k, v in properties.items()}
        if "apiVersion" in properties and "kind" in properties:
            # The source demands what only an object inside a request needs not to say.
            slim["required"] = [r for r in slim.get("required", ()) if r not in _MARKERS]
            if not slim["required"]:
                del slim["required"]
    if "items" in schema:
        slim["items"] = _slim(schema["items"], f"{dot}[]", texts)
    if "additionalProperties" in schema:
        slim["additionalProperties"] = _slim(schema["additionalProperties"], f"{dot}*", texts)
    return slim


_MARKERS = ("apiVersion", "kind")
