"""Label and field selectors against a plain reference."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.lib.selectors import (
    EVERYTHING,
    NOTHING,
    Requirement,
    Selector,
    SelectorError,
    escape_field,
    format_label_selector,
    format_labels,
    from_label_selector,
    from_labels,
    from_node_expressions,
    parse_fields,
    parse_labels,
)


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("", ""),
        ("  ", ""),
        ("a=b", "a=b"),
        ("a==b", "a=b"),
        ("a = b , c != d", "a=b,c!=d"),
        ("x in (b,a, a),y", "x in (a,b),y"),
        ("x notin (a),!z", "x notin (a),!z"),
        ("a=", "a="),
        ("a!=", "a!="),
        ("n>5,m<3", "m<3,n>5"),
        ("x in (,a)", "x in (,a)"),
        ("app.kubernetes.io/name=web", "app.kubernetes.io/name=web"),
        ("in=x", "in=x"),
        ("b,a", "a,b"),
    ],
)
def test_parses_and_prints(text, printed):
    assert str(parse_labels(text)) == printed


@pytest.mark.parametrize(
    "text",
    ["a=b,", ",a", "a in b", "a in (b", "=b", "!", "!a=b", "a b", "a=b c", "x>y", "-a=b", "a=b!",
     "a=-", "a in (b c)", "a===b", "(a)"],
)  # fmt: skip
def test_refuses(text):
    with pytest.raises(SelectorError, match="unable to parse requirement"):
        parse_labels(text)


@pytest.mark.parametrize(
    ("text", "labels", "matches"),
    [
        ("a=b", {"a": "b"}, True),
        ("a=b", {}, False),
        ("a!=b", {}, True),
        ("a!=b", {"a": "b"}, False),
        ("a notin (b,c)", {"a": "d"}, True),
        ("a notin (b,c)", {}, True),
        ("a in (b,c)", {"a": "c"}, True),
        ("a", {"a": ""}, True),
        ("!a", {"a": ""}, False),
        ("a=", {"a": ""}, True),
        ("n>5", {"n": "6"}, True),
        ("n>5", {"n": "x"}, False),
        ("n<5", {}, False),
        ("", {"any": "thing"}, True),
    ],
)
def test_matches(text, labels, matches):
    assert parse_labels(text).matches(labels) is matches


def test_label_selectors():
    selector = from_label_selector(
        {
            "matchLabels": {"app": "web"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["b", "a"]},
                {"key": "old", "operator": "DoesNotExist"},
                {"key": "env", "operator": "NotIn", "values": ["dev"]},
                {"key": "zone", "operator": "Exists"},
            ],
        }
    )
    assert str(selector) == "app=web,env notin (dev),!old,tier in (a,b),zone"
    assert selector.matches({"app": "web", "tier": "a", "zone": "1"})
    assert not selector.matches({"app": "web", "tier": "a", "zone": "1", "old": ""})


def test_no_selector_selects_nothing_and_an_empty_one_everything():
    assert from_label_selector(None) == NOTHING
    assert not NOTHING.matches({}) and not NOTHING.is_empty
    assert from_label_selector({}) == EVERYTHING
    assert EVERYTHING.matches(None) and EVERYTHING.is_empty


def test_bad_label_selectors_are_refused():
    with pytest.raises(SelectorError, match="not a valid label selector operator"):
        from_label_selector({"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]})
    with pytest.raises(SelectorError, match="name part must consist of"):
        from_label_selector({"matchLabels": {"a b": "c"}})


def test_node_expressions_know_numbers():
    selector = from_node_expressions([{"key": "cpus", "operator": "Gt", "values": ["4"]}])
    assert selector.matches({"cpus": "8"}) and not selector.matches({"cpus": "4"})


def test_formats_for_tables():
    assert format_label_selector({"matchLabels": {"b": "1", "a": "2"}}) == "a=2,b=1"
    assert format_label_selector(None) == "<none>"
    assert format_label_selector({"matchLabels": {"a b": ""}}) == "<error>"
    assert format_labels({"b": "1", "a": "2"}) == "a=2,b=1"
    assert format_labels(None) == "<none>"


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("", []),
        ("metadata.name=a", [("metadata.name", "=", "a")]),
        ("a.b==c,d!=e", [("a.b", "=", "c"), ("d", "!=", "e")]),
        ("status.phase!=", [("status.phase", "!=", "")]),
        (r"a=x\,y\=z\\", [("a", "=", r"x,y=z\ ".strip())]),
        ("a=1,,b=2", [("a", "=", "1"), ("b", "=", "2")]),
    ],
)
def test_field_selectors(text, terms):
    assert parse_fields(text) == terms


@pytest.mark.parametrize("text", ["a", "a=b=c", r"a=\x"])
def test_bad_field_selectors(text):
    with pytest.raises(SelectorError, match="invalid"):
        parse_fields(text)


@given(st.dictionaries(st.sampled_from("abc"), st.text(max_size=12), min_size=1))
def test_escaped_field_values_survive(fields):
    text = ",".join(f"{k}={escape_field(v)}" for k, v in fields.items())
    assert parse_fields(text) == [(k, "=", v) for k, v in fields.items()]


KEYS = st.sampled_from(["a", "b", "x.io/c", "in", "notin"])
VALUES = st.sampled_from(["", "1", "2", "v", "in", "notin"])
REQUIREMENTS = st.one_of(
    st.builds(Requirement, KEYS, st.sampled_from(["=", "!="]), st.tuples(VALUES)),
    st.builds(
        Requirement,
        KEYS,
        st.sampled_from(["in", "notin"]),
        st.sets(VALUES, min_size=1).map(lambda s: tuple(sorted(s))),
    ),
    st.builds(Requirement, KEYS, st.sampled_from(["exists", "!"])),
    st.builds(Requirement, KEYS, st.sampled_from(["gt", "lt"]), st.tuples(st.just("1"))),
)
LABELS = st.dictionaries(KEYS, VALUES)


def _reference(r: Requirement, labels: dict[str, str]) -> bool:
    value = labels.get(r.key)
    if r.op in ("=", "in"):
        return value in r.values
    if r.op in ("!=", "notin"):
        return value not in r.values
    if r.op in ("exists", "!"):
        return (value is not None) == (r.op == "exists")
    if value is None or not value.isdigit():
        return False
    return int(value) > 1 if r.op == "gt" else int(value) < 1


@given(st.lists(REQUIREMENTS, max_size=4), LABELS)
def test_matching_agrees_with_the_reference_and_with_its_own_text(requirements, labels):
    selector = Selector(tuple(requirements))
    expected = all(_reference(r, labels) for r in requirements)
    assert selector.matches(labels) is expected
    assert parse_labels(str(selector)).matches(labels) is expected


@given(LABELS, LABELS)
def test_plain_selectors_are_subsets(wanted, labels):
    assert from_labels(wanted).matches(labels) is (wanted.items() <= labels.items())


@given(st.text(max_size=30))
def test_any_text_is_a_selector_or_a_clean_error(text):
    try:
        selector = parse_labels(text)
    except SelectorError:
        return
    assert parse_labels(str(selector)) == selector
