"""Label and field selectors: parsing, printing and matching, in Kubernetes' grammar."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sampan.lib import names

IN, NOT_IN, EXISTS, NOT_EXISTS = "in", "notin", "exists", "!"
EQUALS, NOT_EQUALS, GREATER, LESS = "=", "!=", "gt", "lt"
_OPERATORS = {
    "In": IN, "NotIn": NOT_IN, "Exists": EXISTS, "DoesNotExist": NOT_EXISTS,
    "Gt": GREATER, "Lt": LESS,
}  # fmt: skip


class SelectorError(ValueError):
    """The text or the structure is not a selector."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on one key. op: in, notin, exists, !, =, !=, gt, lt."""

    key: str
    op: str
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        if self.op in (EQUALS, IN):
            return value is not None and value in self.values
        if self.op in (NOT_EQUALS, NOT_IN):
            return value is None or value not in self.values
        if self.op == EXISTS:
            return value is not None
        if self.op == NOT_EXISTS:
            return value is None
        number, bound = _integer(value), _integer(self.values[0])
        if number is None or bound is None:
            return False
        return number > bound if self.op == GREATER else number < bound

    def __str__(self) -> str:
        if self.op == EXISTS:
            return self.key
        if self.op == NOT_EXISTS:
            return f"!{self.key}"
        if self.op in (IN, NOT_IN):
            return f"{self.key} {self.op} ({','.join(sorted(self.values))})"
        sign = {GREATER: ">", LESS: "<"}.get(self.op, self.op)
        return f"{self.key}{sign}{self.values[0]}"


@dataclass(frozen=True, slots=True)
class Selector:
    """All requirements must hold; an empty selector matches everything, a void one nothing."""

    requirements: tuple[Requirement, ...] = ()
    void: bool = False

    def matches(self, labels: Mapping[str, str] | None) -> bool:
        if self.void:
            return False
        found = labels or {}
        return all(r.matches(found) for r in self.requirements)

    @property
    def is_empty(self) -> bool:
        """Matches everything."""
        return not self.void and not self.requirements

    def __str__(self) -> str:
        return ",".join(str(r) for r in self.requirements)


EVERYTHING = Selector()
NOTHING = Selector(void=True)


def _integer(text: str | None) -> int | None:
    if text is None or not re.fullmatch(r"[+-]?[0-9]+", text):
        return None
    return int(text)


def _requirement(key: str, op: str, values: tuple[str, ...]) -> Requirement:
    problems = [f'key: Invalid value: "{key}": {p}' for p in names.qualified_name(key)]
    if op in (GREATER, LESS):
        if len(values) != 1 or _integer(values[0]) is None:
            problems.append(
                f'values[0]: Invalid value: "{values[0] if values else ""}": '
                "for 'Gt', 'Lt' operators, the value must be an integer"
            )
    else:
        for i, value in enumerate(values):
            problems += [
                f'values[{i}][{key}]: Invalid value: "{value}": {p}'
                for p in names.label_value(value)
            ]
    if problems:
        text = problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]"
        raise SelectorError(text)
    return Requirement(key, op, values)


def from_labels(labels: Mapping[str, str] | None) -> Selector:
    """Every given label must be there with that value (a Service's selector)."""
    return Selector(tuple(Requirement(k, EQUALS, (v,)) for k, v in sorted((labels or {}).items())))


def from_label_selector(selector: Mapping[str, Any] | None) -> Selector:
    """A ``metav1.LabelSelector``. None selects nothing, {} everything. Raises SelectorError."""
    if selector is None:
        return NOTHING
    found = [_requirement(k, EQUALS, (v,)) for k, v in (selector.get("matchLabels") or {}).items()]
    for e in selector.get("matchExpressions") or ():
        op = _OPERATORS.get(e.get("operator", ""))
        if op is None or op in (GREATER, LESS):
            raise SelectorError(f'"{e.get("operator", "")}" is not a valid label selector operator')
        found.append(_requirement(e.get("key", ""), op, tuple(e.get("values") or ())))
    return Selector(tuple(sorted(found, key=lambda r: r.key)))


def from_node_expressions(expressions: list[Mapping[str, Any]]) -> Selector:
    """matchExpressions of a node selector term (knows Gt and Lt). Raises SelectorError."""
    found = []
    for e in expressions:
        op = _OPERATORS.get(e.get("operator", ""))
        if op is None:
            raise SelectorError(f'"{e.get("operator", "")}" is not a valid node selector operator')
        found.append(_requirement(e.get("key", ""), op, tuple(e.get("values") or ())))
    return Selector(tuple(found))


def format_label_selector(selector: Mapping[str, Any] | None) -> str:
    """As printed in tables: ``<none>`` when empty, ``<error>`` when it makes no sense."""
    try:
        return str(from_label_selector(selector)) or "<none>"
    except SelectorError:
        return "<error>"


def format_labels(labels: Mapping[str, str] | None) -> str:
    """``a=b,c=d`` sorted by key, or ``<none>``."""
    return ",".join(f"{k}={v}" for k, v in sorted((labels or {}).items())) or "<none>"


_TOKEN = re.compile(r"\s*(==|!=|[=!<>(),]|[^\s=!<>(),]+)")


def _tokens(text: str) -> Iterator[str]:
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            return
        yield match.group(1)
        position = match.end()


_SPECIAL = ("", "==", "!=", "=", "!", "<", ">", "(", ")", ",")


class _Labels:
    """A recursive-descent parser of ``key``, ``!key``, ``key op value``, ``key in (a, b)``."""

    def __init__(self, text: str) -> None:
        self.tokens = [*_tokens(text), ""]
        self.at = 0

    def next(self) -> str:
        token = self.tokens[self.at]
        self.at = min(self.at + 1, len(self.tokens) - 1)
        return token

    @property
    def ahead(self) -> str:
        return self.tokens[self.at]

    def parse(self) -> list[Requirement]:
        found: list[Requirement] = []
        if not self.ahead:
            return found
        while True:
            found.append(self.requirement())
            token = self.next()
            if not token:
                return found
            if token != ",":
                raise SelectorError(f"found '{token}', expected: ',' or 'end of string'")
            # A trailing comma is an error, as upstream has it.
            if self.ahead in ("", ",") or (self.ahead in _SPECIAL and self.ahead != "!"):
                raise SelectorError(f"found '{self.ahead}', expected: identifier after ','")

    def requirement(self) -> Requirement:
        token = self.next()
        if token == "!":
            key = self.next()
            if key in _SPECIAL:
                raise SelectorError(f"found '{key}', expected: identifier")
            if self.ahead not in ("", ","):
                raise SelectorError(f"found '{self.ahead}', expected: ',' or 'end of string'")
            return _requirement(key, NOT_EXISTS, ())
        if token in _SPECIAL:
            raise SelectorError(f"found '{token}', expected: !, identifier, or 'end of string'")
        if self.ahead in ("", ","):
            return _requirement(token, EXISTS, ())
        op = self.next()
        if op in ("in", "notin"):
            return _requirement(token, op, self.values())
        if op in ("=", "==", "!=", ">", "<"):
            value = "" if self.ahead in ("", ",") else self.next()
            if value in _SPECIAL and value:
                raise SelectorError(f"found '{value}', expected: identifier")
            kind = {"==": EQUALS, ">": GREATER, "<": LESS}.get(op, op)
            return _requirement(token, kind, (value,))
        raise SelectorError(
            f"found '{op}', expected: in, notin, =, ==, !=, gt, lt, !, identifier"
            if op in _SPECIAL
            else f"found '{op}', expected: in, notin, =, ==, !=, gt, lt"
        )

    def values(self) -> tuple[str, ...]:
        token = self.next()
        if token != "(":
            raise SelectorError(f"found '{token}' expected: '('")
        found: list[str] = []
        expect_value = True
        while True:
            token = self.next()
            if token == ")":
                if expect_value:
                    found.append("")
                break
            if token == ",":
                if expect_value:
                    found.append("")
                expect_value = True
            elif token in _SPECIAL:
                raise SelectorError(f"found '{token}', expected: ',', ')' or identifier")
            elif not expect_value:
                raise SelectorError(f"found '{token}', expected: ',' or ')'")
            else:
                found.append(token)
                expect_value = False
        return tuple(sorted(set(found)))


def parse_labels(text: str) -> Selector:
    """A label selector in its text form (``a=b,c in (d,e),!f``). Raises SelectorError."""
    try:
        found = _Labels(text).parse()
    except SelectorError as e:
        raise SelectorError(f"unable to parse requirement: {e}") from None
    return Selector(tuple(sorted(found, key=lambda r: r.key)))


def parse_fields(text: str) -> list[tuple[str, str, str]]:
    """A field selector as (field, ``=`` or ``!=``, value) triples. Raises SelectorError."""
    found = []
    for part in _split_terms(text):
        if not part:
            continue
        match = re.match(r"((?:\\.|[^=!\\]|!(?!=))*?)(==|!=|=)(.*)$", part, re.DOTALL)
        if match is None:
            raise SelectorError(f"invalid selector: '{text}'; can't understand '{part}'")
        name, op, value = match.groups()
        found.append((name, "!=" if op == "!=" else "=", _unescape(value)))
    return found


def _split_terms(text: str) -> list[str]:
    return re.findall(r"(?:\\.|[^,\\]|\\$)+", text, re.DOTALL)


def _unescape(value: str) -> str:
    """Undoes ``escape_field``. A bare ``=`` or an unknown escape is an error."""
    out, position = [], 0
    while position < len(value):
        c = value[position]
        if c == "\\":
            following = value[position + 1 : position + 2]
            if following not in ("\\", ",", "="):
                raise SelectorError(
                    f"invalid field selector: invalid escape sequence: \\{following}"
                )
            out.append(following)
            position += 2
        elif c == "=":
            raise SelectorError(f"invalid field selector: unescaped character in value: {c}")
        else:
            out.append(c)
            position += 1
    return "".join(out)


def escape_field(value: str) -> str:
    """*value* as it stands in a field selector."""
    return re.sub(r"([\\,=])", r"\\\1", value)
