"""Where a pod may run: node selectors, node affinity, taints and tolerations.

Pure predicates over a pod's spec and a node, shared by the scheduler and by controllers that ask
the same questions ahead of it (DaemonSet)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from sampan.api.obj import Body, Obj
from sampan.lib.selectors import from_node_expressions

_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
NodeTest: TypeAlias = Callable[[Obj], bool]
Port: TypeAlias = tuple[str, str, int]  # address, protocol, number
_ANY = "0.0.0.0"


def term_test(term: Body) -> NodeTest:
    """Whether a NodeSelectorTerm chooses a node; an empty term chooses nothing."""
    expressions, fields = term.get("matchExpressions") or [], term.get("matchFields") or []
    if not expressions and not fields:
        return lambda node: False
    labels, names = from_node_expressions(expressions), from_node_expressions(fields)
    if not fields:
        return lambda node: labels.matches(node.labels)
    return lambda node: names.matches({"metadata.name": node.name}) and labels.matches(node.labels)


def node_affinity(spec: Body) -> Body:
    """``spec.affinity.nodeAffinity``."""
    found: Body = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    return found


def required_test(spec: Body) -> NodeTest | None:
    """Whether a node matches a pod's nodeSelector and required node affinity, read once and asked
    of many nodes; None: any node does."""
    wanted = tuple((spec.get("nodeSelector") or {}).items())
    required = node_affinity(spec).get(_REQUIRED)
    if not wanted and not required:
        return None
    terms = [term_test(t) for t in (required or {}).get("nodeSelectorTerms") or ()]

    def test(node: Obj) -> bool:
        labels = node.labels
        for key, value in wanted:
            if labels.get(key) != value:
                return False
        return not required or any(t(node) for t in terms)

    return test


def selects(spec: Body, node: Obj) -> bool:
    """Whether a pod spec's nodeSelector and required node affinity choose the node."""
    test = required_test(spec)
    return test is None or test(node)


def covers(toleration: Body, taint: Body) -> bool:
    """Whether one toleration covers *taint*."""
    if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
        return False
    key = toleration.get("key", "")
    if key and key != taint.get("key"):
        return False
    operator = toleration.get("operator") or "Equal"
    if operator == "Exists":
        return True
    value, have = toleration.get("value", ""), taint.get("value", "")
    if operator in ("Lt", "Gt"):
        try:
            limit, actual = int(value), int(have)
        except ValueError:
            return False
        return actual < limit if operator == "Lt" else actual > limit
    return bool(key) and value == have


def tolerates(spec: Body, taint: Body) -> bool:
    """Whether one of a pod's tolerations covers *taint*."""
    return covered(spec.get("tolerations") or (), taint)


def covered(tolerations: Iterable[Body], taint: Body) -> bool:
    """Whether one of *tolerations* covers *taint*."""
    return any(covers(t, taint) for t in tolerations)


def repels(tolerations: Sequence[Body], node: Obj) -> bool:
    """Whether a taint of the node that forbids pods is not tolerated."""
    return any(
        taint.get("effect") in ("NoSchedule", "NoExecute") and not covered(tolerations, taint)
        for taint in node.spec.get("taints") or ()
    )


def untolerated(spec: Body, node: Obj, effects: Iterable[str]) -> Body | None:
    """The first taint of the node with one of *effects* that the pod does not tolerate."""
    wanted = tuple(effects)
    return next(
        (
            t
            for t in node.spec.get("taints") or ()
            if t.get("effect") in wanted and not tolerates(spec, t)
        ),
        None,
    )


def host_ports(spec: Body) -> set[Port]:
    """(address, protocol, port) of every host port a pod takes: its containers' and sidecars'."""
    holders = [
        *(spec.get("containers") or ()),
        *(c for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"),
    ]
    return {
        (p.get("hostIP") or _ANY, p.get("protocol") or "TCP", int(p["hostPort"]))
        for c in holders
        for p in c.get("ports") or ()
        if p.get("hostPort")
    }


def clash(a: Port, b: Port) -> bool:
    """Whether two pods cannot have these ports on one node: protocol and number are the same, and
    an address is the same or any."""
    return a[1:] == b[1:] and (a[0] == b[0] or _ANY in (a[0], b[0]))
