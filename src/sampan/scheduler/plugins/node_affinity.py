"""NodeAffinity: node selectors, required and preferred node affinity."""

from __future__ import annotations

from typing import Any, ClassVar

from sampan.api.obj import Body, Obj
from sampan.control.placement import node_affinity, required_test, term_test
from sampan.scheduler.framework import (
    OK,
    SKIP,
    NodeInfo,
    PodInfo,
    Prepared,
    Reject,
    Scoring,
    Skip,
    Verdict,
    View,
    Wake,
)

_NO_MATCH = Reject("node(s) didn't match Pod's node affinity/selector")
_NOT_ADDED = Reject("node(s) didn't match scheduler-enforced node affinity")
_CONFLICT = Reject("pod affinity terms conflict")
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


def _named(term: Body) -> frozenset[str] | None:
    """The nodes a term names by ``metadata.name In``; None if it names none."""
    names: frozenset[str] | None = None
    for field in term.get("matchFields") or ():
        if field.get("key") == "metadata.name" and field.get("operator") == "In":
            found = frozenset(field.get("values") or ())
            names = found if names is None else names & found
    return names


def named_nodes(spec: Body) -> frozenset[str] | None:
    """The only nodes the required terms leave, if each of them names some."""
    terms = (node_affinity(spec).get(_REQUIRED) or {}).get("nodeSelectorTerms") or ()
    union: frozenset[str] = frozenset()
    for term in terms:
        names = _named(term)
        if names is None:
            return None
        union |= names
    return union if terms else None


def _may_match(pod: PodInfo, _old: Obj | None, new: Obj | None) -> bool:
    test = required_test(pod.spec)
    return new is not None and (test is None or test(new))


class NodeAffinity:
    """Required terms filter, preferred ones score. added: what the scheduler's settings ask of
    every pod besides."""

    name: ClassVar[str] = "NodeAffinity"
    weight: ClassVar[int] = 2
    wakes: ClassVar[tuple[Wake, ...]] = (Wake("nodes", ("ADDED", "MODIFIED"), _may_match),)

    def __init__(self, added: Body | None = None) -> None:
        self._added_spec: Body = {"affinity": {"nodeAffinity": added or {}}}
        self._added = required_test(self._added_spec)

    def prepare(self, pod: PodInfo, view: View) -> Prepared | Reject | Skip:
        fits, added = required_test(pod.spec), self._added
        if fits is None and added is None:
            return SKIP
        names = named_nodes(pod.spec)
        if names is not None and not names:
            return _CONFLICT

        def check(node: NodeInfo) -> Verdict:
            if added is not None and not added(node.obj):
                return _NOT_ADDED
            return OK if fits is None or fits(node.obj) else _NO_MATCH

        return Prepared(check, nodes=names, static=True)

    def prepare_score(self, pod: PodInfo, view: View) -> Scoring | Skip:
        wanted: list[dict[str, Any]] = [
            p
            for spec in (pod.spec, self._added_spec)
            for p in node_affinity(spec).get(_PREFERRED) or ()
            if p.get("weight")
        ]
        if not wanted:
            return SKIP
        terms = [(int(p["weight"]), term_test(p.get("preference") or {})) for p in wanted]

        def score(node: NodeInfo) -> int:
            return sum(weight for weight, test in terms if test(node.obj))

        return Scoring(score, normalise=share_of_most, static=True)


def share_of_most(points: int, _least: int, most: int) -> int:
    """The greatest becomes 100, nothing stays 0."""
    return 100 * points // most if most else 0
