"""PodTopologySpread: pods evenly over topology domains, as a rule or as a wish.

A pod that says nothing is spread by wish over hosts and zones with the other pods of its Services
and its controller (the system's default constraints).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

from sampan.api.obj import Body, Obj
from sampan.control.placement import repels, required_test
from sampan.lib.selectors import IN, Requirement, Selector, from_label_selector
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

_HOSTNAME, _ZONE = "kubernetes.io/hostname", "topology.kubernetes.io/zone"
_SKEWED = Reject("node(s) didn't match pod topology spread constraints", curable=True)
_UNLABELLED = Reject(
    "node(s) didn't match pod topology spread constraints (missing required label)"
)
_DEFAULTS = ((_HOSTNAME, 3), (_ZONE, 5))


class Kin(Protocol):
    """Who belongs with a pod that has no constraints of its own."""

    def version(self) -> int:
        """Changes whenever an answer may."""

    def selector(self, pod: PodInfo) -> Selector | None:
        """What the pod's Services and its controller select; None: nothing selects it."""


@dataclass(frozen=True, slots=True)
class Constraint:
    """A ``TopologySpreadConstraint`` of one pod."""

    key: str
    max_skew: int
    selector: Selector
    min_domains: int = 1
    honours_affinity: bool = True
    honours_taints: bool = False

    @staticmethod
    def of(body: Body, labels: dict[str, str] | None) -> Constraint:
        selector = from_label_selector(body.get("labelSelector"))
        extra = tuple(
            Requirement(k, IN, (labels[k],))
            for k in body.get("matchLabelKeys") or ()
            if labels and k in labels
        )
        if extra and not selector.void:
            selector = Selector((*selector.requirements, *extra))
        return Constraint(
            body["topologyKey"], int(body["maxSkew"]), selector,
            int(body.get("minDomains") or 1),
            body.get("nodeAffinityPolicy", "Honor") == "Honor",
            body.get("nodeTaintsPolicy", "Ignore") == "Honor",
        )  # fmt: skip


def _is_for(constraint: Body, action: str) -> bool:
    return bool(constraint.get("whenUnsatisfiable", "DoNotSchedule") == action)


def _constraints(pod: PodInfo, action: str) -> list[Constraint]:
    return [
        Constraint.of(c, dict(pod.cls.labels))
        for c in pod.spec.get("topologySpreadConstraints") or ()
        if _is_for(c, action)
    ]


def _tally(
    constraint: Constraint, pod: PodInfo, needed: Sequence[str], *, everywhere: bool = False
) -> Tally:
    """Pods of the constraint, on nodes with all *needed* labels that its policies let in.
    everywhere: on whatever node."""
    namespace, selector = pod.cls.namespace, constraint.selector
    fits = required_test(pod.spec) if constraint.honours_affinity else None
    tolerations = pod.spec.get("tolerations") or ()

    def count(cls: PodClass) -> int:
        return int(cls.namespace == namespace and not cls.deleting and selector.matches(cls.labels))

    def on(node: Obj) -> bool:
        labels = node.labels
        return (
            all(key in labels for key in needed)
            and (fits is None or fits(node))
            and not (constraint.honours_taints and repels(tolerations, node))
        )

    return Tally(constraint.key, count, None if everywhere else on)


def _concerns(pod: PodInfo, old: Obj | None, new: Obj | None) -> bool:
    """A pod of the same namespace that a constraint selects came, went or changed."""
    held = [o for o in (old, new) if o is not None]
    if not held or held[0].namespace != pod.obj.namespace:
        return False
    return any(
        c.selector.matches(o.labels) for c in _constraints(pod, "DoNotSchedule") for o in held
    )


def _is_domain_changed(pod: PodInfo, old: Obj | None, new: Obj | None) -> bool:
    if old is None or new is None:
        return True
    keys = [c.key for c in _constraints(pod, "DoNotSchedule")]
    return (
        any(old.labels.get(k) != new.labels.get(k) for k in keys)
        or old.spec.get("taints") != new.spec.get("taints")
        or old.labels != new.labels
    )


class PodTopologySpread:
    """kin: for the default constraints; None leaves them out. defaults: constraints of pods that
    have none; None: the system's, which only score."""

    name: ClassVar[str] = "PodTopologySpread"
    weight: ClassVar[int] = 2
    wakes: ClassVar[tuple[Wake, ...]] = (
        Wake("pods", hint=_concerns),
        Wake("nodes", hint=_is_domain_changed),
    )

    def __init__(self, kin: Kin | None = None, defaults: Sequence[Body] | None = None) -> None:
        self._kin = kin
        self._defaults = defaults

    def _by_default(
        self, pod: PodInfo, action: str
    ) -> tuple[list[Constraint], Callable[[], bool] | None]:
        """The constraints of a pod that has none, and whether they are still right."""
        kin, given = self._kin, self._defaults
        if kin is None or (given is not None and not any(_is_for(c, action) for c in given)):
            return [], None
        selector, seen = kin.selector(pod), kin.version()

        def current() -> bool:
            nonlocal seen
            if kin.version() == seen:
                return True
            seen = kin.version()
            return kin.selector(pod) == selector

        if selector is None:
            return [], current
        if given is None:
            return [Constraint(key, skew, selector) for key, skew in _DEFAULTS], current
        mine = [Constraint.of(c, None) for c in given if _is_for(c, action)]
        return [replace(c, selector=selector) for c in mine], current

    def prepare(self, pod: PodInfo, view: View) -> Prepared | Reject | Skip:
        current: Callable[[], bool] | None = None
        if pod.spec.get("topologySpreadConstraints") or self._defaults is None:
            constraints = _constraints(pod, "DoNotSchedule")
        else:
            constraints, current = self._by_default(pod, "DoNotSchedule")
        if not constraints:
            return SKIP if current is None else Prepared(current=current)
        needed = tuple(c.key for c in constraints)
        tallies = tuple(_tally(c, pod, needed) for c in constraints)
        own = [int(c.selector.matches(pod.cls.labels)) for c in constraints]

        def begin(boards: Sequence[Board]) -> Judge:
            # The most a domain may have before the pod joins it.
            limits = [
                (board.least() if board.domains >= c.min_domains else 0) + c.max_skew - self_
                for board, c, self_ in zip(boards, constraints, own, strict=True)
            ]

            def judge(counts: Counts) -> Verdict:
                for count, limit in zip(counts, limits, strict=True):
                    if count is None:
                        return _UNLABELLED
                    if count > limit:
                        return _SKEWED
                return OK

            return judge

        return Prepared(domains=Domains(tallies, begin), current=current)

    def prepare_score(self, pod: PodInfo, view: View) -> Scoring | Skip:
        if pod.spec.get("topologySpreadConstraints"):
            constraints = _constraints(pod, "ScheduleAnyway")
            if not constraints:
                return SKIP
            needed = tuple(c.key for c in constraints)
            return _scoring(constraints, pod, needed, None)
        constraints, current = self._by_default(pod, "ScheduleAnyway")
        if not constraints:
            return SKIP if current is None else Scoring(current=current)
        needed = () if self._defaults is None else tuple(c.key for c in constraints)
        return _scoring(constraints, pod, needed, current)


def _scoring(
    constraints: Sequence[Constraint], pod: PodInfo, needed: tuple[str, ...],
    current: Callable[[], bool] | None,
) -> Scoring:  # fmt: skip
    """needed: labels without which a node gets no points. On hosts, pods are counted where they
    are, whatever the policies say."""
    tallies = tuple(_tally(c, pod, needed, everywhere=c.key == _HOSTNAME) for c in constraints)
    is_strict = bool(needed)

    def begin(boards: Sequence[Board], groups: Groups) -> Callable[[Counts], int | None]:
        told = [(d, n) for d, n in groups if not is_strict or None not in d]
        weights = []
        for i, constraint in enumerate(constraints):
            if constraint.key == _HOSTNAME:
                size = sum(n for _, n in told)
            else:
                size = len({d[i] for d, _ in told})
            weights.append(math.log(size + 2))

        def score(counts: Counts) -> int | None:
            points = 0.0
            for count, weight, constraint in zip(counts, weights, constraints, strict=True):
                if count is not None:
                    points += count * weight + (constraint.max_skew - 1)
                elif is_strict:
                    return None
            return int(points + 0.5)

        return score

    return Scoring(
        domains=DomainScoring(tallies, begin), normalise=fewest_of_range, current=current
    )


def fewest_of_range(points: int, least: int, most: int) -> int:
    """The least becomes 100; if nobody has any points, everybody gets 100."""
    return 100 * (most + least - points) // most if most else 100
