"""Fields that a body names twice: the last counts, and the sender is told."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.apiserver import duplicates
from sampan.apiserver.media import JSON, YAML, decode_object, decode_patch


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"a": 1, "b": 2}', []),
        ('{"a": 1, "a": 2}', ["a"]),
        ('{"a":1,"a":1,"a":1}', ["a"]),
        ('{"spec": {"containers": [{"name": "x"}, {"image": "i", "image": "i"}]}}',
         ["spec.containers[1].image"]),
        ('{"a": {"x:y": 1}, "b": "1:2:3", "a": {}}', ["a"]),
        ('{"a\\u003ab": "\\u003a\\u003a", "c": 1, "c": ":"}', ["c"]),
        ('{"data": {"k": "1", "k": "2"}, "data": {"k": "3"}}', ["data"]),
    ],
)  # fmt: skip
def test_json(text: str, told: list[str]) -> None:
    found = duplicates.in_json(text.encode(), orjson.loads(text))
    assert found == [f'duplicate field "{path}"' for path in told]


_VALUES = st.recursive(
    st.one_of(st.text(), st.integers(-9, 9), st.booleans(), st.none()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(st.dictionaries(st.text(max_size=3), _VALUES, max_size=4), st.booleans(), st.integers(0, 3))
def test_nothing_is_told_of_what_is_there_once_and_all_of_what_is_not(
    value: dict[str, Any], is_ascii: bool, indent: int
) -> None:
    text = json.dumps(value, ensure_ascii=is_ascii, indent=indent or None)
    assert duplicates.in_json(text.encode(errors="surrogatepass"), orjson.loads(text)) == []
    if value:
        key = json.dumps(next(iter(value)), ensure_ascii=is_ascii)
        twice = f"{text.rstrip()[:-1]}, {key}: 0}}"
        assert len(duplicates.in_json(twice.encode(), orjson.loads(twice))) == 1


def test_yaml_says_the_lines() -> None:
    text = b"kind: ConfigMap\ndata:\n  a: '1'\n  b: '2'\n  a: '3'\nkind: ConfigMap\n"
    told: list[str] = []
    body = decode_object(YAML, text, kind="ConfigMap", warnings=[], repeated=told)
    assert body["data"] == {"a": "3", "b": "2"}
    (said,) = told
    assert said.startswith("yaml: unmarshal errors:\n  line ")
    assert set(said.split("\n  ")[1:]) == {
        'line 5: key "a" already set in map', 'line 6: key "kind" already set in map',
    }  # fmt: skip


def test_patches() -> None:
    told: list[str] = []
    text = b'{"metadata": {"labels": {"a": "b", "a": "c"}}}'
    decode_patch("application/merge-patch+json", text, told)
    assert told == ['duplicate field "metadata.labels.a"']
    told.clear()
    decode_patch("application/json-patch+json", b"[]", told)
    decode_object(JSON, b'{"a": 1}', kind="Pod", warnings=[], repeated=told)
    assert told == []
