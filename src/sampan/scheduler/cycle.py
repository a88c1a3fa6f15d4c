"""One decision: which node a pod gets, or why none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sampan.scheduler.framework import (
    NodeInfo,
    PodInfo,
    Prepared,
    Profile,
    Reject,
    Scoring,
    Skip,
    View,
)


@dataclass(frozen=True, slots=True)
class NoFit:
    """No node fits. rejected: by node; plugins: the names of those that said no. early: the words
    of a PreFilter that ruled out every node. otherwise: why nodes that are not in *rejected* were
    not looked at."""

    nodes: int
    rejected: Mapping[str, Reject] = field(default_factory=dict)
    plugins: frozenset[str] = frozenset()
    early: str = ""
    otherwise: str = ""

    def message(self, afterwards: str = "") -> str:
        """The text of the FailedScheduling event. afterwards: what PostFilter said."""
        if not self.nodes:
            return "no nodes available to schedule pods"
        text = f"0/{self.nodes} nodes are available:"
        if self.early:
            text += f" {self.early}."
        else:
            text += f" {tally(self.rejected.values(), self.nodes, self.otherwise)}."
        return f"{text} {afterwards}" if afterwards else text


def tally(rejects: Iterable[Reject], nodes: int, otherwise: str) -> str:
    """Reasons with their counts, sorted as text; *otherwise* for the nodes nothing was said of."""
    count: Counter[str] = Counter()
    said = 0
    for reject in rejects:
        said += 1
        count.update(reject.reasons)
    if otherwise and said < nodes:
        count[otherwise] += nodes - said
    return ", ".join(sorted(f"{n} {reason}" for reason, n in count.items()))


def decide(pod: PodInfo, view: View, profile: Profile) -> Mapping[str, int] | NoFit:
    """The points of every node that fits."""
    total = len(view.nodes)
    asked: list[tuple[str, Prepared]] = []
    names: frozenset[str] | None = None
    narrowed: list[str] = []
    for plugin in profile.filters:
        prepared = plugin.prepare(pod, view)
        if isinstance(prepared, Skip):
            continue
        if isinstance(prepared, Reject):
            return NoFit(total, dict.fromkeys(view.nodes, prepared), frozenset((plugin.name,)),
                         early=prepared.reason)  # fmt: skip
        asked.append((plugin.name, prepared))
        if prepared.nodes is not None:
            narrowed.append(plugin.name)
            names = prepared.nodes if names is None else names & prepared.nodes
    rejected: dict[str, Reject] = {}
    blamed = set(narrowed)
    fitting: list[NodeInfo] = []
    for name, node in view.nodes.items():
        if names is not None and name not in names:
            continue
        for plugin_name, prepared in asked:
            verdict = prepared.check(node)
            if verdict is not None:
                rejected[name] = verdict
                blamed.add(plugin_name)
                break
        else:
            fitting.append(node)
    if not fitting:
        text = f"node(s) didn't satisfy plugin(s) [{' '.join(sorted(narrowed))}]"
        return NoFit(total, rejected, frozenset(blamed), otherwise=text if narrowed else "")
    return _points(pod, view, profile, fitting)


def _points(
    pod: PodInfo, view: View, profile: Profile, fitting: list[NodeInfo]
) -> Mapping[str, int]:
    points = dict.fromkeys((n.obj.name for n in fitting), 0)
    if len(fitting) == 1:
        return points
    for plugin in profile.scores:
        scoring = plugin.prepare_score(pod, view)
        if isinstance(scoring, Scoring):
            raw = [scoring.score(n) for n in fitting]
            if scoring.normalise is not None:
                least, most = min(raw), max(raw)
                raw = [scoring.normalise(r, least, most) for r in raw]
            for node, value in zip(fitting, raw, strict=True):
                points[node.obj.name] += plugin.weight * value
    return points
