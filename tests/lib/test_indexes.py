"""Sets of completion indexes, against sets of integers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.lib.indexes import Indexes, IndexesError, check

SETS = st.sets(st.integers(0, 40))


@given(SETS, SETS)
def test_it_is_a_set(a: set[int], b: set[int]) -> None:
    one, two = Indexes.of(a), Indexes.of(b)
    assert list(one) == sorted(a)
    assert len(one) == len(a)
    assert set(one | two) == a | b
    assert set(one & two) == a & b
    assert (one == two) == (a == b)
    assert [i for i in range(42) if i in one] == sorted(a)
    assert list(one.missing(30)) == [i for i in range(30) if i not in a]


@given(SETS, st.integers(1, 41))
def test_text_reads_back(a: set[int], limit: int) -> None:
    text = str(Indexes.of(a))
    assert set(Indexes.parse(text, limit)) == {i for i in a if i < limit}
    assert check(text, 41) == len(a)


@pytest.mark.parametrize(
    ("found", "text"),
    [([], ""), ([3], "3"), ([3, 4], "3,4"), ([3, 4, 5], "3-5"), ([1, 3, 4, 5, 7], "1,3-5,7")],
)
def test_text(found: list[int], text: str) -> None:
    assert str(Indexes.of(found)) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1-2-3", 'the fragment "1-2-3" violates the requirement that an index interval can have '
                  "at most two parts separated by '-'"),
        ("a", 'cannot convert string to integer for index: "a"'),
        ("1-b", 'cannot convert string to integer for index: "b"'),
        ("10", 'too large index: "10"'),
        ("1-10", 'too large index: "10"'),
        ("3-3", "non-increasing order, previous: 3, current: 3"),
        ("5,2", "non-increasing order, previous: 5, current: 2"),
    ],
)  # fmt: skip
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(IndexesError) as e:
        check(text, 10)
    assert str(e.value) == message
