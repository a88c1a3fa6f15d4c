"""Kubernetes quantities: exact numbers with a suffix (``100m``, ``1.5Gi``, ``2e3``)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache, total_ordering

_NANO = 10**9
_MAX = 2**63 - 1
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_DECIMAL_OF = {v: k for k, v in _DECIMAL.items()}
_BINARY_OF = {v: k for k, v in _BINARY.items()}
_FORM = re.compile(r"([+-]?)([0-9]+(?:\.[0-9]*)?|\.[0-9]+)([numkMGTPE]?|[KMGTPE]i|[eE][+-]?[0-9]+)")

FORMAT_ERROR = (
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
)


class QuantityError(ValueError):
    """The text is not a quantity."""


@total_ordering
@dataclass(frozen=True, slots=True, eq=False)
class Quantity:
    """nanos: the value in units of 10⁻⁹ (finer amounts are rounded away from zero).
    style: the suffix family it prints in: ``decimal``, ``binary`` or ``exponent``.
    Compares and hashes by value only."""

    nanos: int
    style: str = "decimal"

    @staticmethod
    def of(amount: int | float | Fraction, style: str = "decimal") -> Quantity:
        return Quantity(_round_up(Fraction(amount) * _NANO), style)

    @property
    def value(self) -> Fraction:
        return Fraction(self.nanos, _NANO)

    @property
    def whole(self) -> int:
        """The value rounded up to an integer (bytes)."""
        return _round_up(self.value)

    @property
    def millis(self) -> int:
        """The value in thousandths, rounded up (CPU)."""
        return _round_up(self.value * 1000)

    def rounded(self, scale: int) -> Quantity:
        """Rounded up (away from zero) to 10**scale, scale <= 0."""
        unit = 10 ** (9 + scale)
        return Quantity(_round_up(Fraction(self.nanos, unit)) * unit, self.style)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Quantity) and self.nanos == other.nanos

    def __lt__(self, other: Quantity) -> bool:
        return self.nanos < other.nanos

    def __hash__(self) -> int:
        return hash(self.nanos)

    def __add__(self, other: Quantity) -> Quantity:
        style = self.style if self.nanos else other.style
        return Quantity(self.nanos + other.nanos, style)

    def __sub__(self, other: Quantity) -> Quantity:
        style = self.style if self.nanos else other.style
        return Quantity(self.nanos - other.nanos, style)

    def __bool__(self) -> bool:
        return self.nanos != 0

    def __str__(self) -> str:
        """Canonical text: an integer with the largest suffix that loses nothing."""
        if not self.nanos:
            return "0"
        whole, rest = divmod(self.nanos, _NANO)
        if self.style == "binary" and not rest and abs(whole) >= 1024:
            power = 0
            while whole % 1024 == 0 and power < 6:
                whole //= 1024
                power += 1
            return f"{whole}{_BINARY_OF[power]}" if power else str(whole)
        number, exponent = self.nanos, -9
        while number % 1000 == 0 and (exponent < 18 or self.style == "exponent"):
            number //= 1000
            exponent += 3
        if self.style == "exponent":
            return f"{number}e{exponent}" if exponent else str(number)
        return f"{number}{_DECIMAL_OF[exponent]}"


def _round_up(amount: Fraction) -> int:
    """To an integer, away from zero."""
    return -(-amount.numerator // amount.denominator) if amount >= 0 else -_round_up(-amount)


@lru_cache(maxsize=4096)
def _parse(text: str) -> Quantity:
    match = _FORM.fullmatch(text)
    if match is None:
        raise QuantityError(FORMAT_ERROR)
    sign, digits, suffix = match.groups()
    # A bare trailing or leading dot is accepted, as upstream does.
    number = Fraction(f"0{digits}" if digits[0] == "." else digits.rstrip(".") or "0")
    style = "decimal"
    if suffix in _BINARY:
        number *= 1024 ** _BINARY[suffix]
        style = "binary" if number >= 1 else "decimal"
    elif suffix in _DECIMAL:
        number *= Fraction(10) ** _DECIMAL[suffix]
    else:
        exponent = int(suffix[1:])
        if abs(exponent) > 100:
            raise QuantityError(FORMAT_ERROR)
        number *= Fraction(10) ** exponent
        style = "exponent"
    nanos = _round_up(number * _NANO)
    nanos = min(nanos, _MAX * _NANO)
    return Quantity(-nanos if sign == "-" else nanos, style)


def quantity(value: str | int | float) -> Quantity:
    """The quantity a JSON value stands for. Raises QuantityError."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise QuantityError(FORMAT_ERROR)
    return _parse(value if isinstance(value, str) else str(value))


def parse(value: str | int | float) -> Fraction:
    """The exact value of a quantity. Raises QuantityError."""
    return quantity(value).value


def canonical(value: str | int | float) -> str:
    """*value* in Kubernetes' canonical text. Raises QuantityError."""
    return str(quantity(value))


def in_thousandths(value: str | int | float) -> str:
    """*value* rounded up to thousandths, in canonical text. Raises QuantityError."""
    if isinstance(value, str):
        return _in_thousandths(value)
    return str(quantity(value).rounded(-3))


@lru_cache(maxsize=4096)
def _in_thousandths(text: str) -> str:
    return str(_parse(text).rounded(-3))
