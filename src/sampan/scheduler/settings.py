"""What a scheduler can be told: KubeSchedulerConfiguration (kubescheduler.config.k8s.io/v1), read.

Profiles with the plug-ins of each and their arguments, the part of the nodes that is scored, and
the back-off. Fields that mean nothing here (leader election, metrics, parallelism) are let be;
extenders, unknown plug-ins and arguments out of range are refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from sampan.api.obj import Body

API_VERSION, KIND = "kubescheduler.config.k8s.io/v1", "KubeSchedulerConfiguration"
DEFAULT_NAME = "default-scheduler"
LEAST, MOST, RATIO = "LeastAllocated", "MostAllocated", "RequestedToCapacityRatio"
# Extension points by the phase they are in here: preparing and asking are one.
PHASES = {
    "preEnqueue": "pre_enqueue", "preFilter": "filters", "filter": "filters",
    "postFilter": "post_filters", "preScore": "scores", "score": "scores",
    "reserve": "reserves", "permit": "permits", "preBind": "pre_binds", "bind": "binds",
}  # fmt: skip
_LET_BE = ("queueSort", "postBind")  # there is one order, and nobody is told afterwards
Weights: TypeAlias = tuple[tuple[str, int], ...]
_BOTH: Weights = (("cpu", 1), ("memory", 1))


class SettingsError(ValueError):
    """What is wrong, with the path of the field (and the file)."""


@dataclass(frozen=True, slots=True)
class Fit:
    """NodeResourcesFitArgs. resources: with their weights; shape: (utilisation in percent, score 0
    to 100) of RequestedToCapacityRatio; ignored, ignored_groups: extended resources not counted."""

    strategy: str = LEAST
    resources: Weights = _BOTH
    shape: tuple[tuple[int, int], ...] = ()
    ignored: frozenset[str] = frozenset()
    ignored_groups: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Choice:
    """The plug-ins of one phase, against the default ones. off: left out ('*': all); on: added
    behind them where they are not there; weights: of scores."""

    off: frozenset[str] = frozenset()
    on: tuple[str, ...] = ()
    weights: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Settings:
    """One profile: of the pods that name it. defaults: constraints of pods without any (None: the
    system's); added: node affinity every pod has besides its own."""

    name: str = DEFAULT_NAME
    phases: Mapping[str, Choice] = field(default_factory=dict)
    fit: Fit = Fit()
    balanced: Weights = _BOTH
    hard_weight: int = 1
    ignores_wishes_of_others: bool = False
    defaults: tuple[Body, ...] | None = None
    added: Body = field(default_factory=dict)
    candidates_percent: int = 10
    candidates_least: int = 100
    bind_seconds: float = 600.0
    percent: int = 0


@dataclass(frozen=True, slots=True)
class Configuration:
    """percent: of the nodes that are scored (0: by the size of the cluster); first, longest:
    seconds of back-off."""

    profiles: tuple[Settings, ...] = (Settings(),)
    first: float = 1.0
    longest: float = 10.0


def read(body: Any, plugins: Mapping[str, frozenset[str]]) -> Configuration:
    """plugins: by phase, the names that are known. Raises SettingsError."""
    if not isinstance(body, dict) or body.get("apiVersion") != API_VERSION:
        raise SettingsError(f"apiVersion: must be {API_VERSION}")
    if body.get("kind") != KIND:
        raise SettingsError(f"kind: must be {KIND}")
    if body.get("extenders"):
        raise SettingsError("extenders: not supported")
    first = _number(body, "podInitialBackoffSeconds", 1, least=1)
    longest = _number(body, "podMaxBackoffSeconds", 10, least=1)
    if longest < first:
        raise SettingsError(
            "podMaxBackoffSeconds: must be greater than or equal to PodInitialBackoffSeconds"
        )
    percent = _number(body, "percentageOfNodesToScore", 0, most=100)
    given = body.get("profiles") or [{}]
    profiles = tuple(_profile(p, f"profiles[{i}]", plugins, percent) for i, p in enumerate(given))
    names = [p.name for p in profiles]
    for i, name in enumerate(names):
        if name in names[:i]:
            raise SettingsError(f'profiles[{i}].schedulerName: Duplicate value: "{name}"')
    return Configuration(profiles, float(first), float(longest))


def _number(
    holder: Body, name: str, default: int, *, at: str = "", least: int = 0, most: int | None = None
) -> int:
    value = holder.get(name)
    if value is None:
        return default
    where = f"{at}.{name}" if at else name
    if isinstance(value, bool) or not isinstance(value, int):
        raise SettingsError(f"{where}: must be an integer")
    if value < least or (most is not None and value > most):
        told = f"in the range [{least}, {most}]" if most is not None else f"at least {least}"
        raise SettingsError(f"{where}: Invalid value: {value}: must be {told}")
    return value


def _profile(given: Body, at: str, plugins: Mapping[str, frozenset[str]], percent: int) -> Settings:
    known = frozenset().union(*plugins.values())
    changes: dict[str, Any] = {}
    for i, entry in enumerate(given.get("pluginConfig") or ()):
        name, args = str(entry.get("name", "")), entry.get("args") or {}
        if name not in known:
            raise SettingsError(f'{at}.pluginConfig[{i}]: Invalid value: "{name}": no such plug-in')
        if name in _ARGUMENTS:
            changes |= _ARGUMENTS[name](args, f"{at}.pluginConfig[{i}].args")
    return Settings(
        name=str(given.get("schedulerName") or DEFAULT_NAME),
        phases=_phases(given.get("plugins") or {}, f"{at}.plugins", plugins),
        percent=_number(given, "percentageOfNodesToScore", percent, at=at, most=100), **changes,
    )  # fmt: skip


def _phases(given: Body, at: str, plugins: Mapping[str, frozenset[str]]) -> dict[str, Choice]:
    found: dict[str, Choice] = {}
    known = frozenset().union(*plugins.values())
    for point, choice in given.items():
        if point in _LET_BE:
            continue
        if point != "multiPoint" and point not in PHASES:
            raise SettingsError(f"{at}.{point}: no such extension point")
        on = [str(e.get("name", "")) for e in choice.get("enabled") or ()]
        off = [str(e.get("name", "")) for e in choice.get("disabled") or ()]
        phases = set(PHASES.values()) if point == "multiPoint" else {PHASES[point]}
        for name in on:
            allowed = known if point == "multiPoint" else plugins[PHASES[point]]
            if name not in allowed:
                where = f"{at}.{point}.enabled"
                raise SettingsError(f'{where}: Invalid value: "{name}": no such plug-in')
        weights = {
            str(e["name"]): _number(e, "weight", 0, at=f"{at}.{point}.enabled", most=100) or 1
            for e in choice.get("enabled") or ()
        }
        for phase in sorted(phases):
            held = found.get(phase, Choice())
            mine = tuple(n for n in on if n in plugins[phase])
            found[phase] = Choice(
                held.off | frozenset(off), (*held.on, *mine), {**held.weights, **weights}
            )
    return found


# -- arguments -------------------------------------------------------------------------------------


def _weights(given: Any, at: str, *, most: int = 100) -> Weights:
    return tuple(
        (str(r.get("name", "")), _number(r, "weight", 1, at=f"{at}[{i}]", least=1, most=most))
        for i, r in enumerate(given or ())
    )


def _fit(args: Body, at: str) -> Body:
    strategy = args.get("scoringStrategy") or {}
    kind = strategy.get("type") or LEAST
    here = f"{at}.scoringStrategy"
    if kind not in (LEAST, MOST, RATIO):
        raise SettingsError(
            f'{here}.type: Unsupported value: "{kind}": supported values: '
            f'"{LEAST}", "{MOST}", "{RATIO}"'
        )
    shape: tuple[tuple[int, int], ...] = ()
    if kind == RATIO:
        points = (strategy.get("requestedToCapacityRatio") or {}).get("shape") or ()
        shape = _shape(points, f"{here}.requestedToCapacityRatio.shape")
    return {"fit": Fit(
        kind, _weights(strategy.get("resources"), f"{here}.resources") or _BOTH, shape,
        frozenset(args.get("ignoredResources") or ()),
        frozenset(args.get("ignoredResourceGroups") or ()),
    )}  # fmt: skip


def _shape(points: Sequence[Body], at: str) -> tuple[tuple[int, int], ...]:
    if not points:
        raise SettingsError(f"{at}: Required value: at least one point must be specified")
    found: list[tuple[int, int]] = []
    for i, point in enumerate(points):
        use = _number(point, "utilization", 0, at=f"{at}[{i}]", most=100)
        score = _number(point, "score", 0, at=f"{at}[{i}]", most=10)
        if found and use <= found[-1][0]:
            raise SettingsError(
                f"{at}[{i}].utilization: Invalid value: {use}: "
                "utilization values must be sorted in increasing order"
            )
        found.append((use, score * 10))
    return tuple(found)


def _balanced(args: Body, at: str) -> Body:
    found = _weights(args.get("resources"), f"{at}.resources", most=1)
    return {"balanced": found or _BOTH}


def _affinity(args: Body, at: str) -> Body:
    return {
        "hard_weight": _number(args, "hardPodAffinityWeight", 1, at=at, most=100),
        "ignores_wishes_of_others": bool(args.get("ignorePreferredTermsOfExistingPods")),
    }


def _spread(args: Body, at: str) -> Body:
    kind, given = args.get("defaultingType") or "System", args.get("defaultConstraints") or ()
    if kind not in ("System", "List"):
        raise SettingsError(
            f'{at}.defaultingType: Unsupported value: "{kind}": supported values: "List", "System"'
        )
    if kind == "System":
        if given:
            raise SettingsError(
                f"{at}.defaultingType: Invalid value: System: "
                "when .defaultConstraints are not empty"
            )
        return {"defaults": None}
    for i, constraint in enumerate(given):
        here = f"{at}.defaultConstraints[{i}]"
        if constraint.get("labelSelector"):
            raise SettingsError(
                f"{here}.labelSelector: Forbidden: constraint must not define a selector, as they "
                "deduced for each pod"
            )
        if not constraint.get("topologyKey"):
            raise SettingsError(f"{here}.topologyKey: Required value: can not be empty")
        if _number(constraint, "maxSkew", 0, at=here, least=1) == 0:
            raise SettingsError(f"{here}.maxSkew: Required value")
    return {"defaults": tuple(given)}


def _preemption(args: Body, at: str) -> Body:
    percent = _number(args, "minCandidateNodesPercentage", 10, at=at, most=100)
    least = _number(args, "minCandidateNodesAbsolute", 100, at=at)
    if not percent and not least:
        raise SettingsError(
            f"{at}: both minCandidateNodesPercentage and minCandidateNodesAbsolute cannot be zero"
        )
    return {"candidates_percent": percent, "candidates_least": least}


_ARGUMENTS: dict[str, Callable[[Body, str], Body]] = {
    "NodeResourcesFit": _fit,
    "NodeResourcesBalancedAllocation": _balanced,
    "InterPodAffinity": _affinity,
    "PodTopologySpread": _spread,
    "DefaultPreemption": _preemption,
    "NodeAffinity": lambda args, at: {"added": args.get("addedAffinity") or {}},
    "VolumeBinding": lambda args, at: {
        "bind_seconds": float(_number(args, "bindTimeoutSeconds", 600, at=at))
    },
}
