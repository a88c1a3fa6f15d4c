"""The algebra of field sets against plain sets of paths."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.schema import fieldsets
from sampan.schema.fieldsets import FieldSet, below, is_member

ELEMENTS = st.sampled_from(["f:a", "f:b", 'k:{"name":"x"}', 'v:"s"'])
PATHS = st.frozensets(st.lists(ELEMENTS, min_size=1, max_size=4).map(tuple), max_size=8)
Path = tuple[str, ...]


def made(paths: frozenset[Path]) -> FieldSet:
    found: FieldSet = {}
    for path in sorted(paths):
        leaf: Any = {}
        for element in reversed(path):
            leaf = {element: leaf}
        found = fieldsets.union(found, leaf)
    return found


def read(fields: FieldSet, prefix: Path = ()) -> set[Path]:
    found: set[Path] = set()
    for name, inner in below(fields).items():
        path = (*prefix, name)
        if is_member(inner):
            found.add(path)
        found |= read(below(inner), path)
    return found


@given(PATHS)
def test_a_set_is_what_it_was_made_of(paths: frozenset[Path]) -> None:
    assert read(made(paths)) == paths
    assert fieldsets.is_well_formed(made(paths))


@given(PATHS, PATHS)
def test_union_difference_and_intersection(a: frozenset[Path], b: frozenset[Path]) -> None:
    first, second = made(a), made(b)
    assert read(fieldsets.union(first, second)) == a | b
    assert read(fieldsets.difference(first, second)) == a - b
    assert read(fieldsets.intersection(first, second)) == a & b
    assert read(first) == a and read(second) == b  # nothing was changed in place
    if not a & b:
        assert fieldsets.difference(first, second) is first


@given(PATHS, PATHS)
def test_without_takes_what_is_below_too(a: frozenset[Path], b: frozenset[Path]) -> None:
    gone = {p for p in a if any(p[: len(q)] == q for q in b)}
    assert read(fieldsets.without(made(a), made(b))) == a - gone


def test_an_empty_node_with_a_mark_is_a_member() -> None:
    """Clients may send either form."""
    assert read({"f:a": {".": {}}}) == {("f:a",)}
    assert fieldsets.union({"f:a": {"f:b": {}}}, {"f:a": {}}) == {"f:a": {".": {}, "f:b": {}}}
    assert fieldsets.difference({"f:a": {".": {}, "f:b": {}}}, {"f:a": {"f:b": {}}}) == {"f:a": {}}


def test_paths_are_spelled_as_messages_do() -> None:
    fields = {
        "f:spec": {
            "f:ports": {'k:{"port":80,"protocol":"TCP"}': {".": {}, "f:name": {}}},
            "f:finalizers": {'v:"x/y"': {}},
        },
        "f:args": {"i:3": {}},
    }
    assert list(fieldsets.paths(fields)) == [
        ".args[3]",
        '.spec.finalizers[="x/y"]',
        '.spec.ports[port=80,protocol="TCP"]',
        '.spec.ports[port=80,protocol="TCP"].name',
    ]


@pytest.mark.parametrize("wrong", [[], "x", {"f:a": 1}, {"a": {}}, {"f:a": {"x:": {}}}])
def test_what_is_no_set(wrong: Any) -> None:
    assert not fieldsets.is_well_formed(wrong)


def test_sets_of_dotted_paths() -> None:
    assert fieldsets.of_paths("spec", "metadata.labels") == {
        "f:spec": {}, "f:metadata": {"f:labels": {}},
    }  # fmt: skip
