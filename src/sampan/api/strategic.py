"""Strategic merge patch: lists merge by the keys that the schema declares.

Directives: ``$patch: replace|delete|merge``, ``$retainKeys: [...]``,
``$deleteFromPrimitiveList/<list>: [...]`` and ``$setElementOrder/<list>: [...]``.
"""

from __future__ import annotations

from typing import Any

from sampan.schema.walk import Schema, Schemas

_PATCH = "$patch"
_RETAIN = "$retainKeys"
_DELETE = "$deleteFromPrimitiveList/"
_ORDER = "$setElementOrder/"

_List = list[Any]
_Map = dict[str, Any]


class Malformed(Exception):
    """The patch breaks a rule of its format."""


class Unsupported(Exception):
    """The patch asks for something strategic patches cannot do (lists of lists)."""


def apply(body: _Map, patch: _Map, *, schemas: Schemas, schema: Schema) -> _Map:
    """*body* after *patch*; both stay as they are. Raises Malformed and Unsupported."""
    return _Merge(schemas).maps(body, patch, schema)


class _Merge:
    def __init__(self, schemas: Schemas) -> None:
        self._schemas = schemas

    def maps(self, original: _Map, patch: _Map, schema: Schema) -> _Map:
        if _PATCH in patch:
            return _directed(patch)
        merged = _retained(original, patch)
        done: set[str] = set()
        for name, order in patch.items():
            if name.startswith(_ORDER):
                done.add(_target(name, _ORDER))
                self._ordered(merged, patch, schema, name=_target(name, _ORDER), order=order)
        for name, value in patch.items():
            if name == _RETAIN or name in done or name.startswith(_ORDER):
                continue
            if name.startswith(_DELETE):
                self._delete(merged, _target(name, _DELETE), value)
            elif value is None:
                merged.pop(name, None)
            elif name not in merged:
                merged[name] = _plain(value)
            else:
                merged[name] = self._value(merged[name], value, self._schemas.field(schema, name))
        return merged

    def _value(self, old: Any, new: Any, field: Schema) -> Any:
        strategy = str(field.get("x-kubernetes-patch-strategy", ""))
        if isinstance(old, dict) and isinstance(new, dict):
            if "replace" in strategy.split(","):
                return _plain(new)
            return self.maps(old, new, self._schemas.resolve(field))
        if isinstance(old, list) and isinstance(new, list):
            return self._lists(old, new, field)
        return _plain(new)

    # ---- lists ---------------------------------------------------------------------------------

    def _lists(self, old: _List, new: _List, field: Schema) -> _List:
        """Merged when the field says so, else replaced."""
        strategy = str(field.get("x-kubernetes-patch-strategy", ""))
        if "merge" not in strategy.split(","):
            return [_plain(v) for v in new]
        if not old and not new:
            return old
        key = self._key(field, old, new)
        if not key:
            merged = list(dict.fromkeys([*old, *new]))
            return _interleaved(merged, order=new, before=old, key="")
        kept, added = _special(old, new, key)
        item = self._schemas.resolve(self._schemas.resolve(field).get("items", {}))
        merged = list(kept)
        for value in added:
            at = _find(merged, key, _key_of(value, key))
            if at < 0:
                merged.append(_plain(value))
            else:
                merged[at] = self.maps(merged[at], value, item)
        return _interleaved(merged, order=added, before=kept, key=key)

    def _key(self, field: Schema, *lists: _List) -> str:
        """The merge key of a list of maps; '' for one of scalars."""
        kinds = {_kind(v) for values in lists for v in values}
        if list in kinds:
            raise Unsupported("lists of lists are not supported")
        if len(kinds) > 1:
            raise Malformed(f"list element types are not identical: {go_text([*lists])}")
        if dict not in kinds:
            return ""
        key = str(field.get("x-kubernetes-patch-merge-key", ""))
        if not key:
            raise Malformed("cannot merge lists without merge key for type struct")
        return key

    def _ordered(self, merged: _Map, patch: _Map, schema: Schema, *, name: str, order: Any) -> None:
        """Merge list *name* and bring it into *order*; the server's other items keep their place
        among it as far as that is possible."""
        field = self._schemas.field(schema, name)
        old, new = merged.get(name), patch.get(name)
        for value in (old, new, order):
            if value is not None and not isinstance(value, list):
                raise Malformed("invalid patch format of setElementOrder list")
        if order is None:
            raise Malformed("invalid patch format of setElementOrder list")
        key = str(field.get("x-kubernetes-patch-merge-key", ""))
        if new:
            _check_order(new, order, key)
        if old is None and new is None:
            return
        before = old or []
        if old is None:
            values = [_plain(v) for v in new or () if not _is_directive(v)]
        elif new is None:
            values = old
        else:
            values = self._lists(old, new, field)
        if values and isinstance(values[0], dict) and not key:
            # Replaced as a whole: there is no order to keep.
            merged[name] = values
            return
        merged[name] = _interleaved(
            values, order=order, before=before, key=key if _has_maps(values) else ""
        )

    def _delete(self, merged: _Map, name: str, values: Any) -> None:
        if not isinstance(values, list):
            raise Malformed("invalid patch format of primitive list")
        old = merged.get(name)
        if isinstance(old, list):
            merged[name] = [v for v in old if v not in values]


def _directed(patch: _Map) -> _Map:
    """A map with ``$patch``."""
    kind = patch[_PATCH]
    if kind == "replace":
        return {k: _plain(v) for k, v in patch.items() if k != _PATCH}
    if kind == "delete":
        return {}
    raise Malformed(f"unknown patch type: {go_text(kind)} in map: {go_text(patch)}")


def _retained(original: _Map, patch: _Map) -> _Map:
    """A copy of *original* with the members that ``$retainKeys`` (if any) keeps."""
    if _RETAIN not in patch:
        return dict(original)
    keys = patch[_RETAIN]
    if not isinstance(keys, list):
        raise Malformed("invalid patch format of retainKeys")
    for name, value in patch.items():
        if value is None or name == _RETAIN or name.startswith((_DELETE, _ORDER)):
            continue
        if name not in keys:
            raise Malformed("invalid patch format of retainKeys")
    return {k: v for k, v in original.items() if k in keys}


def _special(old: _List, new: _List, key: str) -> tuple[_List, _List]:
    """(what stays of *old*, what of *new* is to be merged) after the items with ``$patch``."""
    kept, added, replace = old, [], False
    for value in new:
        kind = value.get(_PATCH)
        if kind is None:
            added.append(value)
        elif kind == "delete":
            gone = _key_of(value, key)
            kept = [v for v in kept if v.get(key) != gone]
        elif kind == "replace":
            replace = True
        elif kind == "merge":
            raise Malformed("merging lists cannot yet be specified in the patch")
        else:
            raise Malformed(f"unknown patch type: {go_text(kind)} in map: {go_text(value)}")
    return ([], added) if replace else (kept, added)


def _check_order(new: _List, order: _List, key: str) -> None:
    """The items of *new* must stand in *order*, in that order."""
    at = 0
    for value in new:
        if _is_directive(value):
            continue
        wanted = _key_of(value, key) if key and isinstance(value, dict) else value
        while at < len(order):
            named = order[at]
            at += 1
            if (_key_of(named, key) if key and isinstance(named, dict) else named) == wanted:
                break
        else:
            raise Malformed(
                f"The order in patch list:\n{go_text(new)}\n doesn't match $setElementOrder list:\n"
                f"{go_text(order)}\n"
            )


def _interleaved(values: _List, *, order: _List, before: _List, key: str) -> _List:
    """*values* with those named in *order* sorted by it, and the others (the server's own) put
    between them where their place in *before* says so."""
    named = _places(order, key)
    were = _places(before, key)
    ours: _List = []
    theirs: _List = []
    for value in values:
        (ours if _name(value, key) in named else theirs).append(value)
    ours.sort(key=lambda v: named[_name(v, key)])
    theirs.sort(key=lambda v: were.get(_name(v, key), len(were)))
    merged: _List = []
    i = j = 0
    while i < len(theirs) and j < len(ours):
        left, right = were.get(_name(theirs[i], key)), were.get(_name(ours[j], key))
        if left is not None and right is not None and left < right:
            merged.append(theirs[i])
            i += 1
        else:
            merged.append(ours[j])
            j += 1
    return [*merged, *ours[j:], *theirs[i:]]


def _places(values: _List, key: str) -> dict[Any, int]:
    places: dict[Any, int] = {}
    for i, value in enumerate(values):
        places.setdefault(_name(value, key), i)
    return places


def _name(value: Any, key: str) -> Any:
    """What identifies a list item; hashable."""
    found = _key_of(value, key) if key else value
    return go_text(found) if isinstance(found, dict | list) else found


def _key_of(value: Any, key: str) -> Any:
    if not isinstance(value, dict):
        raise Malformed(f"expected a map in a list merged by {key}, but received: {go_text(value)}")
    if key not in value:
        raise Malformed(f"map: {go_text(value)} does not contain declared merge key: {key}")
    return value[key]


def _find(values: _List, key: str, wanted: Any) -> int:
    for i, value in enumerate(values):
        if key in value and value[key] == wanted:
            return i
    return -1


def _kind(value: Any) -> type:
    return float if type(value) is int else type(value)


def _has_maps(values: _List) -> bool:
    return any(isinstance(v, dict) for v in values)


def _is_directive(value: Any) -> bool:
    return isinstance(value, dict) and _PATCH in value


def _target(name: str, prefix: str) -> str:
    return name[len(prefix) :]


def _plain(value: Any) -> Any:
    """A patch value where nothing was before: without nulls and directives."""
    if isinstance(value, list):
        return [_plain(v) for v in value if not _is_directive(v)]
    if isinstance(value, dict):
        return {
            k: _plain(v)
            for k, v in value.items()
            if v is not None and k not in (_PATCH, _RETAIN) and not k.startswith((_DELETE, _ORDER))
        }
    return value


def go_text(value: Any) -> str:
    """*value* as Go prints it (``map[a:1 b:[x y]]``): messages carry it."""
    if isinstance(value, dict):
        return f"map[{' '.join(f'{k}:{go_text(value[k])}' for k in sorted(value))}]"
    if isinstance(value, list):
        return f"[{' '.join(go_text(v) for v in value)}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return "<nil>" if value is None else str(value)
