"""InterPodAffinity: pods that want to be near others, or away from them, by topology domain.

Three rules filter: the pod's own required affinity, its own required anti-affinity, and the
required anti-affinity of pods that are there already. Preferred terms of both sides score, and so
do required terms of pods that are there, with a weight of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

from sampan.api.obj import Obj
from sampan.scheduler.framework import (
    OK,
    SKIP,
    Board,
    Counts,
    Domains,
    DomainScoring,
    Groups,
    Judge,
    PodClass,
    PodInfo,
    Prepared,
    Reject,
    Scoring,
    Skip,
    Tally,
    Verdict,
    View,
    Wake,
)
from sampan.scheduler.terms import NamespaceLabels, Term

_FAR = Reject("node(s) didn't match pod affinity rules")
_NEAR = Reject("node(s) didn't match pod anti-affinity rules", curable=True)
_UNWANTED = Reject("node(s) didn't satisfy existing pods anti-affinity rules", curable=True)


def _chooses(term: Term, cls: PodClass, labels_of: NamespaceLabels) -> bool:
    return term.matches(cls.namespace, cls.labels, labels_of)


def _all(terms: Iterable[Term], cls: PodClass, labels_of: NamespaceLabels) -> bool:
    return all(_chooses(t, cls, labels_of) for t in terms)


def _keys_of_others(
    pod: PodInfo, view: View, terms_of: Callable[[PodClass], Iterable[Term]]
) -> frozenset[str]:
    """Topology keys by which pods that are there have a word about *pod*."""
    return frozenset(
        term.key
        for cls in view.affine
        for term in terms_of(cls)
        if _chooses(term, pod.cls, view.namespace_labels)
    )


def _anti(cls: PodClass) -> Iterable[Term]:
    return cls.terms.anti_affinity


def _scored(cls: PodClass) -> Iterable[Term]:
    return (*cls.terms.preferred, *cls.terms.affinity)


def _guard(
    pod: PodInfo, view: View, keys: frozenset[str],
    terms_of: Callable[[PodClass], Iterable[Term]],
) -> Callable[[], bool]:  # fmt: skip
    """Whether every pod that came since speaks by the same *keys*."""
    seen = view.affinity_version

    def current() -> bool:
        nonlocal seen
        if view.affinity_version == seen:
            return True
        seen = view.affinity_version
        return _keys_of_others(pod, view, terms_of) <= keys

    return current


def _gone_or_changed(pod: PodInfo, old: Obj | None, new: Obj | None) -> bool:
    """A pod that went may have stood in the way; one that came may be wanted near."""
    if new is None:
        return True
    return bool(pod.cls.terms.affinity) or (old is not None and old.labels != new.labels)


class InterPodAffinity:
    """See the module. hard_weight: of required terms of pods that are there, when nodes are scored;
    ignores_wishes_of_others: who has no wishes itself is placed without regard to theirs."""

    name: ClassVar[str] = "InterPodAffinity"
    weight: ClassVar[int] = 2
    wakes: ClassVar[tuple[Wake, ...]] = (
        Wake("pods", hint=_gone_or_changed),
        Wake("nodes", ("ADDED", "MODIFIED"), lambda pod, old, new: (
            old is None or new is None or old.labels != new.labels)),
        Wake("namespaces", ("ADDED", "MODIFIED")),
    )  # fmt: skip

    def __init__(self, *, hard_weight: int = 1, ignores_wishes_of_others: bool = False) -> None:
        self._hard_weight = hard_weight
        self._ignores_others = ignores_wishes_of_others

    def prepare(self, pod: PodInfo, view: View) -> Prepared | Reject | Skip:
        labels_of = view.namespace_labels
        own = pod.cls.terms
        others = _keys_of_others(pod, view, _anti)
        tallies = [
            Tally(t.key, lambda cls: int(_all(own.affinity, cls, labels_of))) for t in own.affinity
        ]
        near = len(tallies)
        tallies += [_tally_of(t, labels_of) for t in own.anti_affinity]
        far = len(tallies)
        tallies += [_tally_against(key, pod.cls, labels_of) for key in sorted(others)]
        current = _guard(pod, view, others, _anti)
        if not tallies:
            return Prepared(current=current)
        is_own_kin = _all(own.affinity, pod.cls, labels_of)

        def begin(boards: Sequence[Board]) -> Judge:
            # The first pod of a group that wants to be together may go anywhere.
            is_first = is_own_kin and not any(b.total for b in boards[:near])

            def judge(counts: Counts) -> Verdict:
                for count in counts[:near]:
                    if count is None or (not count and not is_first):
                        return _FAR
                for count in counts[near:far]:
                    if count:
                        return _NEAR
                for count in counts[far:]:
                    if count:
                        return _UNWANTED
                return OK

            return judge

        return Prepared(domains=Domains(tuple(tallies), begin), current=current)

    def prepare_score(self, pod: PodInfo, view: View) -> Scoring | Skip:
        if self._ignores_others and not pod.cls.terms.preferred:
            return SKIP
        labels_of = view.namespace_labels
        others = _keys_of_others(pod, view, _scored)
        keys = others | {t.key for t in pod.cls.terms.preferred}
        current = _guard(pod, view, keys, _scored)
        if not keys:
            return Scoring(current=current)
        tallies = tuple(
            _tally_of_wishes(key, pod.cls, labels_of, self._hard_weight) for key in sorted(keys)
        )

        def begin(boards: Sequence[Board], groups: Groups) -> Callable[[Counts], int | None]:
            return lambda counts: sum(c for c in counts if c is not None)

        return Scoring(domains=DomainScoring(tallies, begin), normalise=between, current=current)


def _tally_of(term: Term, labels_of: NamespaceLabels) -> Tally:
    """Pods that *term* chooses."""
    return Tally(term.key, lambda cls: int(_chooses(term, cls, labels_of)))


def _tally_against(key: str, cls: PodClass, labels_of: NamespaceLabels) -> Tally:
    """Pods that refuse one of *cls* in their domain of *key*."""

    def count(other: PodClass) -> int:
        return sum(t.key == key and _chooses(t, cls, labels_of) for t in other.terms.anti_affinity)

    return Tally(key, count)


def _tally_of_wishes(key: str, cls: PodClass, labels_of: NamespaceLabels, hard: int) -> Tally:
    """Weights by which pods of *cls* and those there want to share a domain of *key*."""
    own = [t for t in cls.terms.preferred if t.key == key]

    def count(other: PodClass) -> int:
        total = sum(t.weight for t in own if _chooses(t, other, labels_of))
        for t in other.terms.preferred:
            if t.key == key and _chooses(t, cls, labels_of):
                total += t.weight
        for t in other.terms.affinity:
            if t.key == key and _chooses(t, cls, labels_of):
                total += hard
        return total

    return Tally(key, count)


def between(points: int, least: int, most: int) -> int:
    """The least becomes 0, the greatest 100; all alike: nothing."""
    return int(100 * (points - least) / (most - least)) if most > least else 0
