"""One decision: which node a pod gets, or why none."""

from __future__ import annotations

import random
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sampan.scheduler.framework import NodeInfo, PodInfo, Profile, Reject, Verdict
from sampan.scheduler.plan import Early, plan_for
from sampan.scheduler.snapshot import Snapshot
from sampan.scheduler.table import Table

_ALWAYS_ALL = 100  # nodes; with so few, all of them are looked at
_ROWS = 200_000  # rows of all tables together
_SEEN = 4096


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
        told = self.early or tally(self.rejected.values(), self.nodes, self.otherwise)
        text = f"0/{self.nodes} nodes are available:"
        if told:
            text += f" {told}."
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


def enough(nodes: int, percent: int = 0) -> int:
    """How many nodes that fit are looked at for a pod whose like is not expected again:
    ``percentageOfNodesToScore``, by the size of the cluster where it is 0."""
    if nodes < _ALWAYS_ALL:
        return nodes
    return max(_ALWAYS_ALL, nodes * (percent or max(5, 50 - nodes // 125)) // 100)


class Cycle:
    """Decisions over *view*. Pods of one shape share a table; in a big cluster the first of a shape
    makes do with a sample of the nodes, as it may be the only one."""

    def __init__(
        self, view: Snapshot, profile: Profile, rng: random.Random, percent: int = 0
    ) -> None:
        self.view = view
        self._percent = percent
        self._profile = profile
        self._rng = rng
        self._tables: OrderedDict[bytes, Table] = OrderedDict()
        self._seen: OrderedDict[bytes, None] = OrderedDict()
        self._epoch = view.epoch
        self._start = 0

    def decide(self, pod: PodInfo) -> str | NoFit:
        """The name of the node, or why there is none."""
        if not self.view.nodes:
            return NoFit(0)
        table = self.table(pod, sample=True)
        if isinstance(table, Early):
            return self._early(table)
        barred: dict[str, Reject] = {}
        wanted = self.view.nomination(pod.uid)
        if wanted in self.view.nodes and self.trial(table, pod, self.view.nodes[wanted]) is None:
            return wanted
        while name := table.choose(barred):
            refused = self._beside_nominees(table, pod, name)
            if refused is None:
                return name
            barred[name] = refused
        if table.is_sample:
            whole = self.table(pod)
            assert isinstance(whole, Table)
            table = whole
        return self._no_fit(table, barred)

    def _early(self, early: Early) -> NoFit:
        rejected = dict.fromkeys(self.view.nodes, early.reject)
        return NoFit(len(rejected), rejected, frozenset((early.plugin,)), early.reject.reason)

    def _no_fit(self, table: Table, barred: Mapping[str, Reject]) -> NoFit:
        found = table.rejections()
        plugins = {plugin for plugin, _ in found.values()} | set(table.plan.narrowed)
        if barred:
            plugins.add("NodeResourcesFit")
        rejected = {name: reject for name, (_, reject) in found.items()} | dict(barred)
        narrowed = " ".join(sorted(table.plan.narrowed))
        return NoFit(
            len(self.view.nodes), rejected, frozenset(plugins),
            otherwise=f"node(s) didn't satisfy plugin(s) [{narrowed}]" if narrowed else "",
        )  # fmt: skip

    # -- tables

    def table(self, pod: PodInfo, *, sample: bool = False) -> Table | Early:
        """The nodes as *pod* sees them. sample: enough of them to choose well."""
        view = self.view
        if self._epoch != view.epoch:
            self._epoch = view.epoch
            self._tables.clear()
        held = self._tables.get(pod.shape)
        if held is not None:
            if held.plan.is_current() and held.refresh():
                self._tables.move_to_end(pod.shape)
                return held
            del self._tables[pod.shape]
        plan = plan_for(pod, view, self._profile)
        if isinstance(plan, Early):
            return plan
        nodes = len(view.nodes)
        is_shared = not plan.unique and plan.names is None
        if sample and nodes > _ALWAYS_ALL and plan.names is None:
            if not is_shared or not (held is not None or self._was_seen(pod.shape)):
                limit = enough(nodes, self._percent)
                table = Table(pod, plan, view, rng=self._rng, limit=limit, start=self._start)
                self._start = (self._start + table.looked_at) % nodes
                return table
        table = Table(pod, plan, view, rng=self._rng)
        if is_shared:
            self._tables[pod.shape] = table
            while len(self._tables) > max(4, _ROWS // nodes):
                self._tables.popitem(last=False)
        return table

    def _was_seen(self, shape: bytes) -> bool:
        if shape in self._seen:
            return True
        self._seen[shape] = None
        if len(self._seen) > _SEEN:
            self._seen.popitem(last=False)
        return False

    # -- trying

    def trial(self, table: Table, pod: PodInfo, node: NodeInfo) -> Verdict:
        """Whether *pod* fits on *node* (perhaps a changed copy): as it is, and with the pods that
        are nominated to it and not less important."""
        nominees = self._nominees(pod, node.obj.name)
        if nominees:
            fuller = node.copy()
            for other in nominees:
                fuller.add(other)
            refused = table.verdict(fuller)
            if refused is not None:
                return refused
        return table.verdict(node)

    def _beside_nominees(self, table: Table, pod: PodInfo, name: str) -> Verdict:
        if not self._nominees(pod, name):
            return None
        return self.trial(table, pod, self.view.nodes[name])

    def _nominees(self, pod: PodInfo, name: str) -> list[PodInfo]:
        return [
            other for uid, other in self.view.nominated.get(name, {}).items()
            if uid != pod.uid and other.priority >= pod.priority
        ]  # fmt: skip
