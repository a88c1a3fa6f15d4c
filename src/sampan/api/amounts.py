"""Lists of amounts by resource name (a ResourceList) as values: sums, differences, comparisons; and
what a pod asks for as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from sampan.api.obj import Body
from sampan.lib.quantity import Quantity, quantity

Amounts: TypeAlias = dict[str, Quantity]
ONE = Quantity.of(1)
ZERO = Quantity(0)


def read(amounts: Mapping[str, str] | None) -> Amounts:
    """The quantities of a ResourceList. Raises QuantityError."""
    return {name: quantity(value) for name, value in (amounts or {}).items()}


def show(amounts: Amounts) -> dict[str, str]:
    """As the API shows them, in the order of their names."""
    return {name: str(amounts[name]) for name in sorted(amounts)}


def add(a: Amounts, b: Amounts) -> Amounts:
    return {**a, **{name: a[name] + v if name in a else v for name, v in b.items()}}


def less(a: Amounts, b: Amounts) -> Amounts:
    """*a* without *b*; never below zero."""
    return {name: max(v - b[name], ZERO) if name in b else v for name, v in a.items()}


def only(a: Amounts, names: Iterable[str]) -> Amounts:
    kept = set(names)
    return {name: v for name, v in a.items() if name in kept}


def largest(a: Amounts, b: Amounts) -> Amounts:
    return {**a, **{name: max(a[name], v) if name in a else v for name, v in b.items()}}


def of_pod(spec: Body, which: str) -> Amounts:
    """What a pod asks for (*which*: requests) or may take (limits): its containers and sidecars
    together, or what starting them needs at some moment where that is more; what is said for the
    pod as a whole wins; its overhead comes on top (of limits only where there is one)."""
    total: Amounts = {}
    for container in spec.get("containers") or ():
        total = add(total, read((container.get("resources") or {}).get(which)))
    sidecars: Amounts = {}
    starting: Amounts = {}
    for container in spec.get("initContainers") or ():
        own = read((container.get("resources") or {}).get(which))
        if container.get("restartPolicy") == "Always":
            total, sidecars = add(total, own), add(sidecars, own)
            own = sidecars
        else:
            own = add(own, sidecars)
        starting = largest(starting, own)
    total = largest(total, starting)
    whole = read((spec.get("resources") or {}).get(which))
    total |= {n: v for n, v in whole.items() if n in ("cpu", "memory") or n.startswith("hugepages")}
    overhead = read(spec.get("overhead"))
    if which == "limits":
        overhead = {n: v for n, v in overhead.items() if total.get(n)}
    return add(total, overhead)
