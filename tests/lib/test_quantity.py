"""Quantities: parsing, canonical text, arithmetic."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.lib.quantity import (
    Quantity,
    QuantityError,
    canonical,
    in_thousandths,
    parse,
    quantity,
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("0", "0"),
        ("0.0", "0"),
        ("0Ki", "0"),
        ("1", "1"),
        (1, "1"),
        (2.5, "2500m"),
        ("1000m", "1"),
        ("0.5", "500m"),
        (".5", "500m"),
        ("1.", "1"),
        ("100m", "100m"),
        ("1500m", "1500m"),
        ("1000", "1k"),
        ("1024", "1024"),
        ("1024Ki", "1Mi"),
        ("1.5Gi", "1536Mi"),
        ("128Mi", "128Mi"),
        ("0.5Mi", "512Ki"),
        ("512Ki", "512Ki"),
        ("0.25Ki", "256"),
        ("1.1Ki", "1126400m"),
        ("1e3", "1e3"),
        ("1E3", "1e3"),
        ("12e4", "120e3"),
        ("100e-3", "100e-3"),
        ("1E", "1E"),
        ("-5", "-5"),
        ("+5", "5"),
        ("-1.5Gi", "-1536Mi"),
        ("0.1n", "1n"),
        ("-0.1n", "-1n"),
        ("1000000", "1M"),
        ("1001", "1001"),
        ("10Ei", "9223372036854775807"),
    ],
)
def test_canonical_text(text, shown):
    assert canonical(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        "m",
        "1x",
        "1 Gi",
        "1KI",
        "1ki",
        "0x10",
        "1e",
        "1.2.3",
        "--1",
        "Gi",
        ".",
        "１",
        True,
        None,
    ],
)
def test_refuses(text):
    with pytest.raises(QuantityError, match="quantities must match the regular expression"):
        quantity(text)


def test_values():
    assert parse("1Ki") == 1024
    assert parse("250m") == Fraction(1, 4)
    assert quantity("1.5").millis == 1500
    assert quantity("1500m").whole == 2
    assert quantity("0.1m").rounded(-3) == quantity("1m")


def test_compares_by_value_whatever_the_suffix():
    assert quantity("1024Mi") == quantity("1Gi") == quantity("1073741824")
    assert hash(quantity("1000m")) == hash(quantity("1"))
    assert quantity("1k") < quantity("1Ki")
    assert not quantity("0") and quantity("1n")


def test_arithmetic_keeps_the_first_style():
    assert str(quantity("1Gi") + quantity("1Gi")) == "2Gi"
    assert str(quantity("0") + quantity("1Gi")) == "1Gi"
    assert str(quantity("1") - quantity("250m")) == "750m"


NANOS = st.integers(min_value=-(2**63 - 1) * 10**9, max_value=(2**63 - 1) * 10**9)


@given(NANOS, st.sampled_from(["decimal", "binary", "exponent"]))
def test_printed_text_parses_back_to_the_same_value(nanos, style):
    text = str(Quantity(nanos, style))
    assert quantity(text).nanos == nanos
    assert canonical(text) == text


@given(
    st.integers(min_value=0, max_value=10**6),
    st.integers(min_value=0, max_value=999),
    st.sampled_from(["", "m", "u", "k", "M", "G", "Ki", "Mi", "Gi", "e3", "E-2"]),
)
def test_parsing_matches_exact_arithmetic(whole, thousandths, suffix):
    units = {
        "": 1, "m": Fraction(1, 1000), "u": Fraction(1, 10**6), "k": 1000, "M": 10**6,
        "G": 10**9, "Ki": 1024, "Mi": 1024**2, "Gi": 1024**3, "e3": 1000, "E-2": Fraction(1, 100),
    }  # fmt: skip
    exact = (whole + Fraction(thousandths, 1000)) * units[suffix]
    assert parse(f"{whole}.{thousandths:03}{suffix}") == exact


@given(st.lists(st.tuples(NANOS, st.sampled_from(["decimal", "binary"])), min_size=2))
def test_order_is_the_order_of_values(items):
    ordered = sorted(Quantity(n, s) for n, s in items)
    assert [q.nanos for q in ordered] == sorted(n for n, _ in items)


def test_thousandths_are_rounded_away_from_zero() -> None:
    said = ["100m", "0.1", "1.0005", "1n", "1Gi", "1024Mi", 2, 0.25, "-1.0005"]
    assert [in_thousandths(v) for v in said] == [
        "100m", "100m", "1001m", "1m", "1Gi", "1Gi", "2", "250m", "-1001m",
    ]  # fmt: skip
    with pytest.raises(QuantityError):
        in_thousandths("x")
