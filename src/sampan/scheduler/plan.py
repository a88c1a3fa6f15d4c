"""What all plug-ins of a profile make of one pod: asked once, used for every node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sampan.scheduler.framework import (
    Check,
    Domains,
    DomainScoring,
    NodeInfo,
    PodInfo,
    Profile,
    Reject,
    Scoring,
    Skip,
    View,
)

Points = Callable[[NodeInfo], int]
Normalise = Callable[[int, int, int], int]


@dataclass(frozen=True, slots=True)
class Plan:
    """statics: the checks asked first that read only the node's object; dynamics: the rest, in the
    profile's order. plain: scores that are 0 to 100 as they are; raw: those that are normalised
    over all nodes. Weights stand beside them."""

    statics: tuple[tuple[str, Check], ...]
    dynamics: tuple[tuple[str, Check], ...]
    domains: tuple[tuple[str, Domains], ...]
    plain_static: tuple[tuple[int, Points], ...]
    plain_dynamic: tuple[tuple[int, Points], ...]
    raw: tuple[tuple[int, Points, Normalise], ...]
    raw_static: bool
    domain_scores: tuple[tuple[int, DomainScoring, Normalise | None], ...]
    names: frozenset[str] | None
    narrowed: tuple[str, ...]
    unique: bool
    guards: tuple[Callable[[], bool], ...]

    def is_current(self) -> bool:
        return all(guard() for guard in self.guards)


@dataclass(frozen=True, slots=True)
class Early:
    """A PreFilter ruled out every node."""

    plugin: str
    reject: Reject


def plan_for(pod: PodInfo, view: View, profile: Profile) -> Plan | Early:
    """The plan of *pod*, good for every pod of its shape unless it is ``unique``."""
    checks: list[tuple[str, Check, bool]] = []
    domains: list[tuple[str, Domains]] = []
    guards: list[Callable[[], bool]] = []
    names: frozenset[str] | None = None
    narrowed: list[str] = []
    unique = False
    for plugin in profile.filters:
        prepared = plugin.prepare(pod, view)
        if isinstance(prepared, Reject):
            return Early(plugin.name, prepared)
        if isinstance(prepared, Skip):
            continue
        unique = unique or prepared.unique
        if prepared.check is not None:
            checks.append((plugin.name, prepared.check, prepared.static))
        if prepared.domains is not None:
            domains.append((plugin.name, prepared.domains))
        if prepared.current is not None:
            guards.append(prepared.current)
        if prepared.nodes is not None:
            narrowed.append(plugin.name)
            names = prepared.nodes if names is None else names & prepared.nodes
            if not names:
                return Early(plugin.name, Reject(_nowhere(narrowed)))
    leading = 0
    while leading < len(checks) and checks[leading][2]:
        leading += 1
    # Where one node is left there is nothing to choose.
    is_choice = names is None or len(names) > 1
    scores = _scores(pod, view, profile if is_choice else Profile(), guards)
    return Plan(
        tuple((n, c) for n, c, _ in checks[:leading]),
        tuple((n, c) for n, c, _ in checks[leading:]),
        tuple(domains), *scores[:5], names, tuple(narrowed), unique or scores[5], tuple(guards),
    )  # fmt: skip


def _nowhere(plugins: list[str]) -> str:
    if len(plugins) == 1:
        return f"node(s) didn't satisfy plugin {plugins[0]}"
    return f"node(s) didn't satisfy plugin(s) [{' '.join(sorted(plugins))}] simultaneously"


def _scores(
    pod: PodInfo, view: View, profile: Profile, guards: list[Callable[[], bool]]
) -> tuple[
    tuple[tuple[int, Points], ...], tuple[tuple[int, Points], ...],
    tuple[tuple[int, Points, Normalise], ...], bool,
    tuple[tuple[int, DomainScoring, Normalise | None], ...], bool,
]:  # fmt: skip
    static: list[tuple[int, Points]] = []
    dynamic: list[tuple[int, Points]] = []
    raw: list[tuple[int, Points, Normalise]] = []
    domains: list[tuple[int, DomainScoring, Normalise | None]] = []
    raw_static, unique = True, False
    for plugin in profile.scores:
        scoring = plugin.prepare_score(pod, view)
        if not isinstance(scoring, Scoring):
            continue
        unique = unique or scoring.unique
        if scoring.current is not None:
            guards.append(scoring.current)
        weight = profile.weights.get(plugin.name, plugin.weight)
        if scoring.domains is not None:
            domains.append((weight, scoring.domains, scoring.normalise))
        if scoring.score is None:
            continue
        if scoring.normalise is not None:
            raw.append((weight, scoring.score, scoring.normalise))
            raw_static = raw_static and scoring.static
        elif scoring.static:
            static.append((weight, scoring.score))
        else:
            dynamic.append((weight, scoring.score))
    return tuple(static), tuple(dynamic), tuple(raw), raw_static, tuple(domains), unique
