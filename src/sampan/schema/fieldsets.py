"""Sets of fields of an object, in the form the API writes them (FieldsV1), and their algebra.

A set is a trie of path elements: ``f:name`` a member, ``k:{"name":"x"}`` the item of a list with
those keys, ``v:"x"`` the item of a set with that value. The path to a node that is ``{}``, or that
has ``.``, belongs to the set; of any other node only what is below it does. The root is no path:
``{}`` there is the empty set.

Sets are values: nothing here changes one, and results share parts with what they were made of.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import orjson

FieldSet: TypeAlias = dict[str, Any]

MEMBER = "."
EMPTY: FieldSet = {}


def is_member(node: FieldSet) -> bool:
    """Whether the path to *node* belongs to the set."""
    return not node or MEMBER in node


def below(node: FieldSet) -> FieldSet:
    """What of the set is below *node*."""
    return {k: v for k, v in node.items() if k != MEMBER} if MEMBER in node else node


def node(children: FieldSet, *, member: bool) -> FieldSet | None:
    """A node; None where nothing of the set is there."""
    if member:
        return {MEMBER: {}, **children} if children else {}
    return children or None


def union(a: FieldSet, b: FieldSet) -> FieldSet:
    if not a or a is b:
        return b
    if not b:
        return a
    made = dict(a)
    for name, theirs in b.items():
        ours = a.get(name)
        if ours is None:
            made[name] = theirs
        elif ours is not theirs and ours != theirs:
            both = union(below(ours), below(theirs))
            made[name] = node(both, member=is_member(ours) or is_member(theirs)) or {}
    return made


def intersection(a: FieldSet, b: FieldSet) -> FieldSet:
    made: FieldSet = {}
    for name, ours in a.items():
        theirs = b.get(name)
        if theirs is None or name == MEMBER:
            continue
        both = intersection(below(ours), below(theirs))
        kept = node(both, member=is_member(ours) and is_member(theirs))
        if kept is not None:
            made[name] = kept
    return made


def difference(a: FieldSet, b: FieldSet) -> FieldSet:
    """Paths of *a* that are not in *b*; *a* itself where none is."""
    made: FieldSet | None = None
    for name, theirs in b.items():
        ours = a.get(name)
        if ours is None or name == MEMBER:
            continue
        was, inner = is_member(ours), below(ours)
        rest = difference(inner, below(theirs))
        is_now = was and not is_member(theirs)
        if is_now == was and rest is inner:
            continue
        if made is None:
            made = dict(a)
        kept = node(rest, member=is_now)
        if kept is None:
            del made[name]
        else:
            made[name] = kept
    return a if made is None else made


def without(a: FieldSet, b: FieldSet) -> FieldSet:
    """*a* less the paths of *b* and all that is below them."""
    if not b or not a:
        return a
    made = dict(a)
    for name, theirs in b.items():
        ours = a.get(name)
        if ours is None or name == MEMBER:
            continue
        if is_member(theirs):
            del made[name]
            continue
        rest = without(below(ours), below(theirs))
        kept = node(rest, member=is_member(ours))
        if kept is None:
            del made[name]
        else:
            made[name] = kept
    return made


def within(a: FieldSet, b: FieldSet) -> FieldSet:
    """Of *a* the paths that are in *b* or below a path of it."""
    made: FieldSet = {}
    for name, theirs in b.items():
        ours = a.get(name)
        if ours is None or name == MEMBER:
            continue
        if is_member(theirs):
            made[name] = ours
        else:
            rest = within(below(ours), below(theirs))
            if rest:
                made[name] = rest
    return made


def of_paths(*paths: str) -> FieldSet:
    """The set of dotted paths of plain fields (``metadata.labels``)."""
    made: FieldSet = {}
    for path in paths:
        leaf: FieldSet = {}
        for name in reversed(path.split(".")):
            leaf = {f"f:{name}": leaf}
        made = union(made, leaf)
    return made


def key_element(keys: dict[str, Any]) -> str:
    """The path element of a list's item by its *keys*."""
    return "k:" + orjson.dumps(keys, option=orjson.OPT_SORT_KEYS).decode()


def value_element(value: Any) -> str:
    """The path element of a set's item."""
    return "v:" + orjson.dumps(value).decode()


def paths(fields: FieldSet) -> Iterator[str]:
    """The paths of a set as messages spell them (``.spec.containers[name="x"].image``), sorted."""
    return _paths(fields, "")


def _paths(fields: FieldSet, prefix: str) -> Iterator[str]:
    for name in sorted(fields):
        if name == MEMBER:
            continue
        path = prefix + _spelled(name)
        if is_member(fields[name]):
            yield path
        yield from _paths(below(fields[name]), path)


def _spelled(element: str) -> str:
    kind, text = element[:2], element[2:]
    if kind == "f:":
        return f".{text}"
    if kind == "k:":
        keys = orjson.loads(text)
        said = ",".join(f"{k}={orjson.dumps(v).decode()}" for k, v in keys.items())
        return f"[{said}]"
    return f"[={text}]" if kind == "v:" else f"[{text}]"


def is_well_formed(fields: Any) -> bool:
    """Whether *fields*, as somebody sent it, is a set."""
    return isinstance(fields, dict) and all(
        (name == MEMBER or name[:2] in ("f:", "k:", "v:", "i:")) and is_well_formed(inner)
        for name, inner in fields.items()
    )
