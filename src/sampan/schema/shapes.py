"""What schemas say about merging: which lists have keys, which values are taken as a whole; and the
walks that need it: the fields of a value, the difference of two, merging, removing.

The rules are those of structured merge: ``x-kubernetes-list-type`` (map, set, atomic; a list that
says nothing is atomic), ``x-kubernetes-list-map-keys`` and ``x-kubernetes-map-type``. Values are of
decoded bodies; nothing is changed in place, and results share parts with what they were made of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from sampan.schema import fieldsets
from sampan.schema.fieldsets import MEMBER, FieldSet, below, is_member, key_element, value_element
from sampan.schema.walk import Schema, Schemas

LEAF, STRUCT, MAP, SET, KEYED = range(5)
# Of keys that an item may leave out: what it means then.
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "io.k8s.api.core.v1.ContainerPort": {"protocol": "TCP"},
    "io.k8s.api.core.v1.ServicePort": {"protocol": "TCP"},
}
# Members that are structs and no pointers in upstream's types: they are there even when nothing is
# in them, so that nobody owns them.
_ALWAYS = frozenset((
    "metadata", "spec", "status", "template", "strategy", "updateStrategy", "jobTemplate",
    "resources", "loadBalancer", "nodeInfo", "daemonEndpoints", "state", "lastState",
))  # fmt: skip


class MissingKey(Exception):
    """An item of a list lacks one of the list's keys."""


class Difference(NamedTuple):
    """What of a value was added, changed and removed."""

    added: FieldSet
    modified: FieldSet
    removed: FieldSet

    @property
    def is_same(self) -> bool:
        return not (self.added or self.modified or self.removed)


class Shape:
    """How values of one schema are merged. Members are found when first asked for: schemas are
    recursive."""

    __slots__ = ("_fields", "_item", "_schema", "_schemas", "always", "defaults", "keys", "kind")

    def __init__(self, schemas: Schemas, schema: Schema, *, always: bool = False) -> None:
        self._schemas = schemas
        self._fields: dict[str, Shape | None] = {}
        self._item: Shape | None = None
        self.always = always
        self.keys: tuple[str, ...] = ()
        self.defaults: Mapping[str, Any] = {}
        target = schemas.resolve(schema)
        self._schema = target

        def rule(name: str) -> str:
            return str(schema.get(name) or target.get(name) or "")

        self.kind = LEAF
        if target.get("type") == "array":
            match rule("x-kubernetes-list-type"):
                case "map":
                    self.kind = KEYED
                    self.keys = tuple(schema.get("x-kubernetes-list-map-keys") or ())
                    self.defaults = _DEFAULTS.get(str(target["items"].get("$ref", "")), {})
                case "set":
                    self.kind = SET
        elif rule("x-kubernetes-map-type") == "atomic":
            pass
        elif "properties" in target:
            self.kind = STRUCT
        elif "additionalProperties" in target:
            self.kind = MAP

    def field(self, name: str) -> Shape:
        """The shape of a member (a leaf where nothing is known about it)."""
        if self.kind != STRUCT:
            return self.item
        found = self._fields.get(name)
        if found is None:
            schema = self._schemas.field(self._schema, name)
            always = name in _ALWAYS or name in self._schema.get("required", ())
            found = self._fields[name] = Shape(self._schemas, schema, always=always)
        return found

    @property
    def item(self) -> Shape:
        """The shape of the values of a map, or of the items of a list."""
        if self._item is None:
            inner = self._schema.get("items") or self._schema.get("additionalProperties") or {}
            self._item = Shape(self._schemas, inner)
        return self._item

    def element(self, item: Any, at: int) -> str:
        """The path element of a list's item. Raises MissingKey."""
        if self.kind == SET:
            return value_element(item)
        keys = {}
        for key in self.keys:
            value = item.get(key) if isinstance(item, dict) else None
            if value is None:
                value = self.defaults.get(key)
            if value is None:
                raise MissingKey(
                    f"element {at}: associative list with keys has an element that omits key "
                    f'field "{key}" (and doesn\'t have default value)'
                )
            keys[key] = value
        return key_element(keys)

    def elements(self, items: list[Any]) -> dict[str, Any]:
        """Items by path elements. Of items with the same the values are listed under it."""
        found: dict[str, Any] = {}
        for at, item in enumerate(items):
            element = self.element(item, at)
            if element in found:
                before = found[element]
                found[element] = _Several(
                    [*(before if type(before) is _Several else [before]), item]
                )
            else:
                found[element] = item
        return found

    def is_leaf(self, value: Any) -> bool:
        """Whether *value* is taken as a whole."""
        if self.kind == LEAF or not value:
            return True
        return not isinstance(value, list if self.kind in (SET, KEYED) else dict)


class _Several(list[Any]):
    """Items of a list that cannot be told apart: they stand and fall together."""


# -- the fields of a value -------------------------------------------------------------------------


def fields(shape: Shape, value: Any) -> FieldSet:
    """What somebody who sends *value* says something about. Raises MissingKey."""
    made: FieldSet = {}
    if shape.kind in (SET, KEYED):
        for element, item in shape.elements(value).items():
            inner = {} if type(item) is _Several else _inner(shape.item, item)
            made[element] = {MEMBER: {}, **inner} if inner else {}
        return made
    for name, item in value.items():
        child = shape.field(name)
        inner = _inner(child, item)
        if inner and shape.kind == MAP:
            inner = {MEMBER: {}, **inner}
        if inner or child.kind == LEAF or not isinstance(item, list):
            made[f"f:{name}"] = inner
    return made


def _inner(shape: Shape, value: Any) -> FieldSet:
    return {} if shape.is_leaf(value) else fields(shape, value)


def named(shape: Shape, known: FieldSet) -> FieldSet:
    """*known*, with every member of a struct of which something is known."""
    made: FieldSet = {}
    for name, inner in known.items():
        if name == MEMBER:
            continue
        child = shape.field(name[2:]) if name.startswith("f:") else shape.item
        rest = named(child, below(inner))
        member = is_member(inner) or (shape.kind == STRUCT and name.startswith("f:"))
        made[name] = fieldsets.node(rest, member=member) or {}
    return made


# -- the difference of two values ------------------------------------------------------------------


def difference(shape: Shape, old: Any, new: Any) -> Difference:
    """From *old* to *new*, which are both maps. Raises MissingKey."""
    return _difference(shape, old, new)


def _difference(shape: Shape, old: Any, new: Any) -> Difference:
    made = Difference({}, {}, {})
    if shape.kind in (SET, KEYED):
        before, after = shape.elements(old), shape.elements(new)
        for element in (*before, *(e for e in after if e not in before)):
            _compare(
                made, element, shape.item, before.get(element, _NONE), after.get(element, _NONE)
            )
        return made
    for name, value in new.items():
        was = old.get(name, _NONE)
        if was is not value and was != value:
            _compare(made, f"f:{name}", shape.field(name), was, value)
    for name, was in old.items():
        if name not in new:
            _compare(made, f"f:{name}", shape.field(name), was, _NONE)
    return made


_NONE: Any = object()
_COMPOUND = frozenset((dict, list))


def _compare(made: Difference, element: str, shape: Shape, old: Any, new: Any) -> None:
    if old == new:
        return
    if old is _NONE and shape.always and not shape.is_leaf(new):
        old = [] if shape.kind in (SET, KEYED) else {}
    if old is _NONE:
        made.added[element] = _whole(shape, new)
    elif new is _NONE:
        made.removed[element] = _whole(shape, old)
    elif _is_leaf(shape, old, new):
        made.modified[element] = {}
    else:
        inner = _difference(shape, old, new)
        for into, part in zip(made, inner, strict=True):
            if part:
                into[element] = part


def _is_leaf(shape: Shape, old: Any, new: Any) -> bool:
    form = list if shape.kind in (SET, KEYED) else dict
    return shape.kind == LEAF or type(old) is not form or type(new) is not form


def _whole(shape: Shape, value: Any) -> FieldSet:
    """The node of a value that comes or goes with everything in it."""
    kind = shape.kind
    if kind == LEAF or not value or type(value) is _Several:
        return {}
    made: FieldSet = {MEMBER: {}}
    if kind in (SET, KEYED):
        if type(value) is not list:
            return {}
        item = shape.item
        for element, inner in shape.elements(value).items():
            made[element] = _whole(item, inner)
    elif type(value) is not dict:
        return {}
    else:
        for name, inner in value.items():
            made["f:" + name] = _whole(shape.field(name), inner) if type(inner) in _COMPOUND else {}
    return made


# -- merging ---------------------------------------------------------------------------------------


def merge(shape: Shape, live: Any, applied: Any) -> Any:
    """*live* with what *applied* says: its values win, lists with keys are merged by them, and what
    it does not speak of stays. Raises MissingKey."""
    if applied is None:
        return live
    if live is None or live is applied or _is_leaf(shape, live, applied):
        return applied
    if shape.kind in (SET, KEYED):
        return _merged_lists(shape, live, applied)
    made = dict(live)
    for name, value in applied.items():
        made[name] = merge(shape.field(name), live.get(name), value)
    return made


def _merged_lists(shape: Shape, live: list[Any], applied: list[Any]) -> list[Any]:
    """What is applied keeps its order; what only the live list has stays where it was among what
    both have."""
    ours = [(shape.element(item, at), item) for at, item in enumerate(live)]
    by_element = shape.elements(live)
    theirs = shape.elements(applied)
    if any(type(item) is _Several for item in theirs.values()):
        raise MissingKey("duplicate entries for key")
    order = iter([element for element in theirs if element in by_element])
    made: list[Any] = []
    done: set[str] = set()
    pending = iter(theirs.items())
    wanted = next(order, None)

    def upto(element: str | None) -> None:
        """What is applied, to *element* and with it."""
        for name, value in pending:
            was = by_element.get(name)
            made.append(value if type(was) is _Several else merge(shape.item, was, value))
            done.add(name)
            if name == element:
                return

    for element, item in ours:
        if element not in theirs:
            made.append(item)
        elif element == wanted:
            upto(element)
            wanted = next(order, None)
    upto(None)
    return made


# -- removing --------------------------------------------------------------------------------------


def remove(shape: Shape, value: Any, gone: FieldSet) -> Any:
    """*value* less the paths of *gone* and what is below them; None where nothing is left."""
    if not gone or shape.is_leaf(value):
        return value
    if shape.kind in (SET, KEYED):
        kept = []
        for at, item in enumerate(value):
            inner = gone.get(shape.element(item, at))
            if inner is None:
                kept.append(item)
            elif not is_member(inner):
                kept.append(remove(shape.item, item, below(inner)))
        return kept or None
    made = {}
    for name, item in value.items():
        inner = gone.get(f"f:{name}")
        if inner is None:
            made[name] = item
        elif not is_member(inner):
            rest = remove(shape.field(name), item, below(inner))
            if rest is not None:
                made[name] = rest
    return made or None


def shapes_of(schemas: Schemas) -> Callable[[str], Shape]:
    """The shape of a definition by its name; each is made once."""
    made: dict[str, Shape] = {}

    def of(definition: str) -> Shape:
        found = made.get(definition)
        if found is None:
            found = made[definition] = Shape(schemas, schemas.schema(definition))
        return found

    return of
