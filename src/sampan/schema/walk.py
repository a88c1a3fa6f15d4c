"""Schemas: what the definitions of the API know about a body, and decoding by them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import orjson

from sampan.schema import derive, scalars
from sampan.schema.scalars import TypeMismatch

__all__ = ["Schema", "Schemas", "TypeMismatch"]

Schema: TypeAlias = Mapping[str, Any]
# A place inside a body, from the inside out: cheap to extend, spelled out only when needed.
_Path: TypeAlias = "tuple[_Path, str | int] | None"
_Decode: TypeAlias = Callable[[Any, _Path, list[str]], Any]

_DATA = Path(__file__).with_name("data")
_EMPTY: Schema = {}


class Schemas:
    """Definitions by name (``io.k8s.api.core.v1.Pod``); each is decoded when first asked for."""

    def __init__(
        self, lines: Mapping[str, bytes], texts: Callable[[], Mapping[str, bytes]]
    ) -> None:
        self._lines = dict(lines)
        self._texts = texts
        self._schemas: dict[str, Schema] = {}
        self._structs: dict[str, _Struct] = {}

    @staticmethod
    @cache
    def load() -> Schemas:
        """The built-in definitions. A source checkout derives its data files when they are absent
        (or of another ``derive.FORMAT``). Raises derive.DeriveError when it cannot."""
        if not (_DATA / derive.STRUCTURE).is_file() or not (_DATA / derive.DESCRIPTIONS).is_file():
            derive.write(_DATA)
        return Schemas(
            _lines(_DATA / derive.STRUCTURE), lambda: _lines(_DATA / derive.DESCRIPTIONS)
        )

    # ---- reading -------------------------------------------------------------------------------

    def __contains__(self, name: str) -> bool:
        return name in self._lines

    def __iter__(self) -> Iterator[str]:
        return iter(self._lines)

    def schema(self, name: str) -> Schema:
        """The definition *name*. Raises KeyError."""
        found = self._schemas.get(name)
        if found is None:
            found = self._schemas[name] = orjson.loads(self._lines[name])
        return found

    def resolve(self, schema: Schema) -> Schema:
        """*schema*, or the definition its ``$ref`` names."""
        ref = schema.get("$ref")
        return self.schema(ref) if ref is not None else schema

    def field(self, schema: Schema, name: str) -> Schema:
        """The schema (unresolved, with its patch keys) of member *name* of an object; empty when
        nothing is known about it."""
        schema = self.resolve(schema)
        properties = schema.get("properties")
        if properties is not None and name in properties:
            found: Schema = properties[name]
            return found
        extra: Schema = schema.get("additionalProperties", _EMPTY)
        return extra

    def at(self, definition: str, path: str) -> Schema:
        """The resolved schema at a dotted path (``spec.containers`` steps into lists itself)."""
        schema = self.schema(definition)
        for step in path.split(".") if path else ():
            schema = self.resolve(self.field(schema, step))
            while schema.get("type") == "array" and "items" in schema:
                schema = self.resolve(schema["items"])
        return schema

    def descriptions(self) -> Callable[[str], Mapping[str, str]]:
        """Texts of a definition by path inside it ('' itself, ``field``, ``field.[]``). Loaded
        anew at each call and kept only by its caller: nothing but OpenAPI needs them."""
        lines = self._texts()
        return lambda name: orjson.loads(lines[name]) if name in lines else {}

    # ---- decoding ------------------------------------------------------------------------------

    def decode(self, definition: str, body: dict[str, Any]) -> list[str]:
        """Brings *body* into the shape of *definition*, in place, as Kubernetes' decoder does.

        Unknown fields are removed and their full paths answered (``spec.containers[0].imag``).
        Nulls become absence (inside lists and maps: the zero value), empty optional lists and maps
        go, quantities and times take their canonical text. Raises TypeMismatch.
        """
        unknown: list[str] = []
        try:
            self._struct(definition).run(body, None, unknown)
        except RecursionError:
            raise TypeMismatch("", definition, "object", text="exceeded max depth") from None
        return unknown

    def required(self, definition: str, body: dict[str, Any]) -> list[str]:
        """Paths of required fields that *body* lacks (decoded before)."""
        missing: list[str] = []
        self._missing(self.schema(definition), body, "", missing)
        return missing

    def _missing(self, schema: Schema, value: Any, path: str, missing: list[str]) -> None:
        schema = self.resolve(schema)
        if isinstance(value, dict):
            dot = f"{path}." if path else ""
            for name in schema.get("required", ()):
                if name not in value:
                    missing.append(dot + name)
            for name, inner in value.items():
                if isinstance(inner, dict | list):
                    self._missing(self.field(schema, name), inner, dot + name, missing)
        elif isinstance(value, list) and "items" in schema:
            for i, inner in enumerate(value):
                self._missing(schema["items"], inner, f"{path}[{i}]", missing)

    # ---- compiling -----------------------------------------------------------------------------

    def _struct(self, name: str) -> _Struct:
        found = self._structs.get(name)
        if found is None:
            found = self._structs[name] = _Struct(self, name)
        return found

    def compile(self, schema: Schema) -> _Node:
        """How values of *schema* are decoded."""
        ref = schema.get("$ref")
        if ref is not None:
            target = self.schema(ref)
            if "properties" in target or target.get("type") == "object":
                if target.get("x-kubernetes-preserve-unknown-fields"):
                    return _Node(None, _object, {}, "runtime.RawExtension")
                return _Node(None, self._struct(ref).run, {}, _go_name(ref))
            return self.compile(target)
        kind = schema.get("type")
        if kind == "array":
            item = self.compile(schema["items"])
            return _Node(None, _list_of(item), [], f"[]{item.go}")
        if kind == "object":
            if "additionalProperties" in schema:
                item = self.compile(schema["additionalProperties"])
                return _Node(None, _map_of(item), {}, f"map[string]{item.go}")
            return _Node(None, _object, {}, "map[string]interface {}")
        if kind is None:
            return _Node(None, _anything, None, "interface {}")
        scalar = scalars.scalar(str(kind), str(schema.get("format", "")))
        return _Node(scalar.quick, _scalar(scalar.convert), scalar.zero, scalar.go)


class _Node:
    """quick: values of exactly this type need no look. zero: what a null in a list stands for."""

    __slots__ = ("go", "quick", "run", "zero")

    def __init__(self, quick: type | None, run: _Decode, zero: Any, go: str) -> None:
        self.quick = quick
        self.run = run
        self.zero = zero
        self.go = go


class _Struct:
    """An object with known members. Compiled when first used, which also ends recursion."""

    __slots__ = ("_fields", "_name", "_schemas")

    def __init__(self, schemas: Schemas, name: str) -> None:
        self._schemas = schemas
        self._name = name
        self._fields: dict[str, tuple[type | None, _Decode, bool]] | None = None

    def _compile(self) -> dict[str, tuple[type | None, _Decode, bool]]:
        schema = self._schemas.schema(self._name)
        required = schema.get("required", ())
        fields: dict[str, tuple[type | None, _Decode, bool]] = {}
        for name, inner in schema.get("properties", {}).items():
            node = self._schemas.compile(inner)
            target = self._schemas.resolve(inner)
            # Lists and maps that are empty and optional leave no trace in Kubernetes' encoding.
            vanishes = name not in required and (
                target.get("type") == "array" or "additionalProperties" in target
            )
            fields[name] = (node.quick, node.run, vanishes)
        self._fields = fields
        return fields

    def run(self, value: Any, path: _Path, unknown: list[str]) -> Any:
        if type(value) is not dict:
            raise _mismatch(path, _go_name(self._name), value)
        fields = self._fields if self._fields is not None else self._compile()
        gone: list[str] = []
        name = ""
        try:
            for name, inner in value.items():
                field = fields.get(name)
                if field is None:
                    unknown.append(spell((path, name)))
                    gone.append(name)
                    continue
                quick, run, vanishes = field
                if type(inner) is quick:
                    continue
                if inner is None:
                    gone.append(name)
                    continue
                new = run(inner, (path, name), unknown)
                if vanishes and not new:
                    gone.append(name)
                elif new is not inner:
                    value[name] = new
        except TypeMismatch as e:
            e.inside(self._name.rpartition(".")[2])
            raise
        for name in gone:
            del value[name]
        return value


def _list_of(item: _Node) -> _Decode:
    quick, run, zero, go = item.quick, item.run, item.zero, f"[]{item.go}"

    def decode(value: Any, path: _Path, unknown: list[str]) -> Any:
        if type(value) is not list:
            raise _mismatch(path, go, value)
        for i, inner in enumerate(value):
            if type(inner) is quick:
                continue
            if inner is None:
                value[i] = zero.copy() if isinstance(zero, dict | list) else zero
                continue
            new = run(inner, (path, i), unknown)
            if new is not inner:
                value[i] = new
        return value

    return decode


def _map_of(item: _Node) -> _Decode:
    quick, run, zero, go = item.quick, item.run, item.zero, f"map[string]{item.go}"

    def decode(value: Any, path: _Path, unknown: list[str]) -> Any:
        if type(value) is not dict:
            raise _mismatch(path, go, value)
        for name, inner in value.items():
            if type(inner) is quick:
                continue
            if inner is None:
                value[name] = zero.copy() if isinstance(zero, dict | list) else zero
                continue
            new = run(inner, (path, name), unknown)
            if new is not inner:
                value[name] = new
        return value

    return decode


def _object(value: Any, path: _Path, _unknown: list[str]) -> Any:
    if type(value) is not dict:
        raise _mismatch(path, "map[string]interface {}", value)
    return value


def _anything(value: Any, _path: _Path, _unknown: list[str]) -> Any:
    return value


def _scalar(convert: Callable[[Any], Any]) -> _Decode:
    def decode(value: Any, path: _Path, _unknown: list[str]) -> Any:
        try:
            return convert(value)
        except TypeMismatch as e:
            e.at(spell(path), _dotted(path))
            raise

    return decode


def _mismatch(path: _Path, expected: str, got: Any) -> TypeMismatch:
    error = TypeMismatch("", expected, scalars.json_type(got))
    error.at(spell(path), _dotted(path))
    return error


def spell(path: _Path) -> str:
    """``spec.containers[0].name``."""
    parts: list[str] = []
    while path is not None:
        path, step = path
        parts.append(f"[{step}]" if isinstance(step, int) else f".{step}")
    return "".join(reversed(parts)).lstrip(".")


def _dotted(path: _Path) -> str:
    """The path as Go's decoder names fields: without indexes."""
    parts: list[str] = []
    while path is not None:
        path, step = path
        if isinstance(step, str):
            parts.append(step)
    return ".".join(reversed(parts))


def _go_name(definition: str) -> str:
    """``v1.Pod``."""
    return ".".join(definition.rsplit(".", 2)[1:])


def _lines(path: Path) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for line in zlib.decompress(path.read_bytes()).split(b"\n"):
        name, _, schema = line.partition(b"\t")
        found[name.decode()] = schema
    return found
