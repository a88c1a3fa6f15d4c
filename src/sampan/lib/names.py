"""Rules for names, label keys and values: each answers a list of problems in Kubernetes' words."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from functools import lru_cache

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_LABEL_1035 = r"[a-z]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_WILDCARD = rf"\*\.{_SUBDOMAIN}"
_QUALIFIED = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_LABEL_VALUE = rf"({_QUALIFIED})?"
_CONFIG_KEY = r"[-._a-zA-Z0-9]+"
_HEADER = r"[-A-Za-z0-9]+"
_PERCENT = r"[0-9]+%"

_LABEL_RE = re.compile(_LABEL)
_LABEL_1035_RE = re.compile(_LABEL_1035)
_SUBDOMAIN_RE = re.compile(_SUBDOMAIN)
_WILDCARD_RE = re.compile(_WILDCARD)
_QUALIFIED_RE = re.compile(_QUALIFIED)
_LABEL_VALUE_RE = re.compile(_LABEL_VALUE)
_CONFIG_KEY_RE = re.compile(_CONFIG_KEY)
_HEADER_RE = re.compile(_HEADER)
_PERCENT_RE = re.compile(_PERCENT)

EMPTY = "must be non-empty"
LABEL_MAX = 63
SUBDOMAIN_MAX = 253


def too_long(limit: int) -> str:
    return f"must be no more than {limit} bytes"


def out_of_range(low: int, high: int) -> str:
    return f"must be between {low} and {high}, inclusive"


def _mismatch(what: str, pattern: str, *examples: str) -> str:
    if not examples:
        return f"{what} (regex used for validation is '{pattern}')"
    shown = " or ".join(f"'{e}', " for e in examples)
    return f"{what} (e.g. {shown}regex used for validation is '{pattern}')"


_LABEL_MESSAGE = _mismatch(
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
    "and must start and end with an alphanumeric character",
    _LABEL, "my-name", "123-abc",
)  # fmt: skip
_LABEL_1035_MESSAGE = _mismatch(
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an "
    "alphabetic character, and end with an alphanumeric character",
    _LABEL_1035, "my-name", "abc-123",
)  # fmt: skip
_SUBDOMAIN_MESSAGE = _mismatch(
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' "
    "or '.', and must start and end with an alphanumeric character",
    _SUBDOMAIN, "example.com",
)  # fmt: skip
_WILDCARD_MESSAGE = _mismatch(
    "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which "
    "must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric "
    "character",
    _WILDCARD, "*.example.com",
)  # fmt: skip
_QUALIFIED_MESSAGE = _mismatch(
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
    "alphanumeric character",
    _QUALIFIED, "MyName", "my.name", "123-abc",
)  # fmt: skip
_LABEL_VALUE_MESSAGE = _mismatch(
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or "
    "'.', and must start and end with an alphanumeric character",
    _LABEL_VALUE, "MyValue", "my_value", "12345",
)  # fmt: skip
_CONFIG_KEY_MESSAGE = _mismatch(
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
    _CONFIG_KEY, "key.name", "KEY_NAME", "key-name",
)  # fmt: skip
_HEADER_MESSAGE = _mismatch(
    "a valid HTTP header must consist of alphanumeric characters or '-'", _HEADER, "X-Header-Name"
)
_PERCENT_MESSAGE = _mismatch(
    "a valid percent string must be a numeric string followed by an ending '%'",
    _PERCENT, "1%", "93%",
)  # fmt: skip
_ENV_NAME_MESSAGE = (
    "a valid environment variable name must consist only of printable ASCII characters "
    "other than '='"
)


def _check(text: str, pattern: re.Pattern[str], message: str, limit: int = 0) -> list[str]:
    problems = []
    if limit and len(text.encode()) > limit:
        problems.append(too_long(limit))
    if not pattern.fullmatch(text):
        problems.append(message)
    return problems


def dns1123_label(text: str) -> list[str]:
    """RFC 1123 label: at most 63 of a-z, 0-9 and inner hyphens."""
    if len(text) <= LABEL_MAX and _LABEL_RE.fullmatch(text):
        return []
    # A proper subdomain that is no label can only have dots too many.
    dotted = _SUBDOMAIN_RE.fullmatch(text)
    message = "must not contain dots" if dotted else _LABEL_MESSAGE
    return _check(text, _LABEL_RE, message, LABEL_MAX)


def dns1035_label(text: str) -> list[str]:
    """RFC 1035 label: as one of RFC 1123, but it starts with a letter."""
    return _check(text, _LABEL_1035_RE, _LABEL_1035_MESSAGE, LABEL_MAX)


def dns1123_subdomain(text: str) -> list[str]:
    """RFC 1123 subdomain: labels joined by dots, at most 253 in all."""
    return _check(text, _SUBDOMAIN_RE, _SUBDOMAIN_MESSAGE, SUBDOMAIN_MAX)


def wildcard_subdomain(text: str) -> list[str]:
    """``*.`` and a subdomain, at most 253 in all."""
    return _check(text, _WILDCARD_RE, _WILDCARD_MESSAGE, SUBDOMAIN_MAX)


def path_segment(text: str) -> list[str]:
    """A name that is safe as one segment of a URL path (RBAC)."""
    if text in (".", ".."):
        return [f"may not be '{text}'"]
    return [f"may not contain '{c}'" for c in "/%" if c in text]


def qualified_name(text: str) -> list[str]:
    """A label key: a name part with an optional DNS subdomain prefix and '/'."""
    # The same few keys come with every object; what is longer is wrong, and not worth keeping.
    return [*(_known_name(text) if len(text) <= 2 * SUBDOMAIN_MAX else _qualified_name(text))]


def _qualified_name(text: str) -> tuple[str, ...]:
    problems: list[str] = []
    parts = text.split("/")
    if len(parts) > 2:
        return (
            f"a qualified name {_QUALIFIED_MESSAGE} with an optional DNS subdomain prefix and '/' "
            "(e.g. 'example.com/MyName')",
        )
    if len(parts) == 2:
        prefix = parts[0]
        found = dns1123_subdomain(prefix) if prefix else [EMPTY]
        problems += [f"prefix part {p}" for p in found]
    name = parts[-1]
    if not name:
        problems.append(f"name part {EMPTY}")
    elif len(name.encode()) > LABEL_MAX:
        problems.append(f"name part {too_long(LABEL_MAX)}")
    if not _QUALIFIED_RE.fullmatch(name):
        problems.append(f"name part {_QUALIFIED_MESSAGE}")
    return tuple(problems)


_known_name = lru_cache(maxsize=4096)(_qualified_name)


def label_value(text: str) -> list[str]:
    return _check(text, _LABEL_VALUE_RE, _LABEL_VALUE_MESSAGE, LABEL_MAX)


def header_name(text: str) -> list[str]:
    return _check(text, _HEADER_RE, _HEADER_MESSAGE)


def percent(text: str) -> list[str]:
    return _check(text, _PERCENT_RE, _PERCENT_MESSAGE)


def env_name(text: str) -> list[str]:
    """An environment variable's name: printable ASCII without '=' (as since v1.34)."""
    if not text:
        return [f"environment variable name {EMPTY}"]
    if all(" " <= c <= "~" and c != "=" for c in text):
        return []
    return [_ENV_NAME_MESSAGE]


def config_key(text: str) -> list[str]:
    """A key of a ConfigMap or Secret."""
    problems = _check(text, _CONFIG_KEY_RE, _CONFIG_KEY_MESSAGE, SUBDOMAIN_MAX)
    if text in (".", ".."):
        problems.append(f"must not be '{text}'")
    elif text.startswith(".."):
        problems.append("must not start with '..'")
    return problems


def port_number(port: int) -> list[str]:
    return [] if 1 <= port <= 65535 else [out_of_range(1, 65535)]


def port_name(text: str) -> list[str]:
    """An IANA service name (RFC 6335)."""
    problems = []
    if len(text) > 15:
        problems.append(too_long(15))
    if not re.fullmatch(r"[-a-z0-9]+", text):
        problems.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not re.search(r"[a-z]", text):
        problems.append("must contain at least one letter (a-z)")
    if "--" in text:
        problems.append("must not contain consecutive hyphens")
    if text and (text[0] == "-" or text[-1] == "-"):
        problems.append("must not begin or end with a hyphen")
    return problems


def ip(text: str) -> list[str]:
    """An IPv4 or IPv6 address, without a zone; strictly, as Kubernetes reads it since 1.36."""
    try:
        address = ipaddress.ip_address("" if "%" in text else _without_zeros(text))
    except ValueError:
        return ["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"]
    return _strict(text, address)


def _without_zeros(text: str) -> str:
    """Numbers of an IPv4 address without the zeros before them, which once were allowed."""
    head, colon, last = text.rpartition(":")
    parts = last.split(".")
    if len(parts) != 4 or not all(p.isascii() and p.isdigit() and len(p) < 9 for p in parts):
        return text
    return head + colon + ".".join(str(int(p)) for p in parts)


def _strict(text: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> list[str]:
    if _without_zeros(text) != text:
        return ["must not have leading 0s"]
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return ["must not be an IPv4-mapped IPv6 address"]
    return []


def cidr(text: str) -> list[str]:
    """An address and the length of its prefix; strictly, as Kubernetes reads it since 1.36."""
    address, _, length = text.partition("/")
    try:
        if not (length.isascii() and length.isdecimal()) or "%" in address:
            raise ValueError
        plain = _without_zeros(address)
        network = ipaddress.ip_network(f"{plain}/{int(length)}", strict=False)
    except ValueError:
        return ["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"]
    own = ipaddress.ip_address(plain)
    if plain != address or length != str(int(length)):
        return ["must not have leading 0s in IP or prefix length"]
    if _strict(address, own):
        return ["must not have an IPv4-mapped IPv6 address"]
    if own != network.network_address:
        return ["must not have bits set beyond the prefix length"]
    return []


RULES: dict[str, Callable[[str], list[str]]] = {
    "subdomain": dns1123_subdomain,
    "label": dns1123_label,
    "path": path_segment,
}


def mask_dash(prefix: str) -> str:
    """A ``generateName`` made checkable: a random suffix will follow its trailing dash."""
    return prefix[:-2] + "a" if len(prefix) > 1 and prefix.endswith("-") else prefix
