"""Domain names in wire form: length-prefixed labels ending in an empty one.

Lower-casing the bytes of a whole name is safe: a length is at most 63, below every letter.
"""

from __future__ import annotations

import ipaddress
import re

MAX_NAME, MAX_LABEL = 255, 63
_PLAIN = re.compile(rb"[!-\-/-\[\]-~]*")  # printable, neither dot nor backslash
_V4 = re.compile(rb"[0-9]{1,3}(?:-[0-9]{1,3}){3}")


def wire(text: str) -> bytes:
    """The name written as *text* (no escapes). Raises ValueError where it is none."""
    out = b""
    for label in text.rstrip(".").split(".") if text.strip(".") else ():
        raw = label.encode("ascii")
        if not 0 < len(raw) <= MAX_LABEL:
            raise ValueError(f"label of {len(raw)} bytes in {text!r}")
        out += bytes((len(raw),)) + raw
    if len(out) >= MAX_NAME:
        raise ValueError(f"name too long: {text!r}")
    return out + b"\0"


def labels(name: bytes) -> list[bytes]:
    """The labels of a name in wire form, without the root."""
    found = []
    at = 0
    while name[at]:
        end = at + 1 + name[at]
        found.append(name[at + 1 : end])
        at = end
    return found


def join(parts: list[bytes]) -> bytes:
    """The inverse of ``labels``."""
    return b"".join(bytes((len(p),)) + p for p in parts) + b"\0"


def is_below(name: bytes, zone: bytes) -> bool:
    """Whether *name* is *zone* or below it; both in the same case."""
    at = len(name) - len(zone)
    here = 0
    while here < at:
        here += 1 + name[here]
    return here == at and name[at:] == zone


def text(name: bytes) -> str:
    """For people: escaped as in zone files, with the final dot."""
    shown = []
    for label in labels(name):
        if _PLAIN.fullmatch(label):
            shown.append(label.decode())
        else:
            shown.append("".join(_shown(b) for b in label))
    return ".".join(shown) + "."


def _shown(byte: int) -> str:
    if byte in b".\\":
        return "\\" + chr(byte)
    return chr(byte) if 33 <= byte < 127 else f"\\{byte:03d}"


def reverse(ip: str) -> bytes:
    """Where the PTR record of an address lives."""
    return wire(ipaddress.ip_address(ip).reverse_pointer)


def dashed(ip: str) -> str:
    """The label of an endpoint without a hostname: its address with dashes."""
    return ip.replace(".", "-").replace(":", "-")


def undashed(label: bytes) -> str:
    """The address a pod's label stands for, or ''."""
    dotted = label.replace(b"-", b"." if _V4.fullmatch(label) else b":")
    try:
        return str(ipaddress.ip_address(dotted.decode("ascii")))
    except ValueError:
        return ""
