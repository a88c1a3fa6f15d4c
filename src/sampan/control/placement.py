"""Where a pod may run: node selectors, node affinity, taints and tolerations.

Pure predicates over a pod's spec and a node, shared by the scheduler and by controllers that ask
the same questions ahead of it (DaemonSet)."""

from __future__ import annotations

from collections.abc import Iterable

from sampan.api.obj import Body, Obj
from sampan.lib.selectors import from_node_expressions


def matches_term(term: Body, node: Obj) -> bool:
    """Whether a NodeSelectorTerm chooses the node; an empty term chooses nothing."""
    expressions, fields = term.get("matchExpressions") or [], term.get("matchFields") or []
    if not expressions and not fields:
        return False
    return from_node_expressions(expressions).matches(node.labels) and from_node_expressions(
        fields
    ).matches({"metadata.name": node.name})


def selects(spec: Body, node: Obj) -> bool:
    """Whether a pod spec's nodeSelector and required node affinity choose the node."""
    wanted = spec.get("nodeSelector") or {}
    labels = node.labels
    if any(labels.get(k) != v for k, v in wanted.items()):
        return False
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if not required:
        return True
    return any(matches_term(t, node) for t in required.get("nodeSelectorTerms") or ())


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
    return any(covers(t, taint) for t in spec.get("tolerations") or ())


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
