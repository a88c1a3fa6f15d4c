"""All nodes as pods of one shape see them, kept current instead of being asked again.

Nodes that differ only in how full they are stand in one group: same verdict of the filters over
domains, same figures for the scores that are normalised over all nodes. A decision looks at every
group once and takes the best node of the best group, so its cost follows the number of groups and
of nodes that changed since the last decision, not the number of nodes.

Two nodes are in one group if they have the same domain of every wide topology key, the same counts
in the domains of the hostname key, and the same raw points. That holds exactly: no figure differs
from what asking every node anew would give.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from sampan.api.obj import Obj
from sampan.scheduler.board import TallyBoard
from sampan.scheduler.framework import Check, Judge, NodeInfo, PodInfo, Reject, Verdict
from sampan.scheduler.plan import Plan
from sampan.scheduler.snapshot import Snapshot

HOSTNAME = "kubernetes.io/hostname"
_HELD = "held"  # the domain of a host in a group
Entry: TypeAlias = tuple[int, float, str]  # -points, lot, node: the least is the best
GroupKey: TypeAlias = tuple[object, ...]


@dataclass(slots=True, eq=False)
class _Group:
    """domains: by board (hosts: ``_HELD`` or None); counts: of the boards of hosts; raw: points to
    be normalised; live: nodes in it; heap: may hold entries that are stale."""

    key: GroupKey
    domains: tuple[str | None, ...]
    counts: tuple[int | None, ...]
    raw: tuple[int, ...]
    live: int = 0
    heap: list[Entry] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Row:
    """What is known of one node. adds: to each board; static: rejected by, points, raw points."""

    obj: Obj | None = None  # as ranked
    counted: Obj | None = None  # as on the boards
    host: str | None = None
    domains: tuple[str | None, ...] = ()
    takes: tuple[bool, ...] = ()
    adds: list[int] = field(default_factory=list)
    static: Told | None = None
    static_points: int = 0
    raw: tuple[int, ...] = ()
    rejected: Told | None = None
    group: _Group | None = None
    entry: Entry | None = None


Told: TypeAlias = tuple[str, Reject]  # plug-in and verdict
Judging: TypeAlias = Callable[[_Group], Told | None]


class Table:
    """pod: any of its shape. limit: stop looking once so many nodes fit (a table for one decision);
    start: where to begin looking."""

    def __init__(
        self, pod: PodInfo, plan: Plan, view: Snapshot, *, rng: random.Random, limit: int = 0,
        start: int = 0,
    ) -> None:  # fmt: skip
        self.pod = pod
        self.plan = plan
        self._view = view
        self._rng = rng
        tallies = [t for _, d in plan.domains for t in d.tallies]
        self._judged = len(tallies)
        tallies += [t for _, d, _ in plan.domain_scores for t in d.tallies]
        self._boards = [TallyBoard(t) for t in tallies]
        self._hosts = [i for i, t in enumerate(tallies) if t.key == HOSTNAME]
        self._rows: dict[str, _Row] = {}
        self._of_host: dict[str, dict[str, None]] = {}
        self._groups: dict[GroupKey, _Group] = {}
        self._position = view.position
        self.looked_at = 0
        self.is_sample = False
        self._build(limit, start)

    # -- keeping up

    def _build(self, limit: int, start: int) -> None:
        names = self.plan.names
        if self._boards:
            for name, node in self._view.nodes.items():
                self._count(name, node)
        if names is None:
            candidates = [*self._view.nodes]
        else:
            candidates = sorted(n for n in names if n in self._view.nodes)
        if limit and candidates:
            start %= len(candidates)
            candidates = candidates[start:] + candidates[:start]
        found = 0
        judge = self._judge() if limit else None
        for name in candidates:
            self.looked_at += 1
            row = self._rank(name, self._view.nodes[name])
            if judge is not None and row.group is not None:
                found += judge(row.group) is None
                if found >= limit:
                    self.is_sample = self.looked_at < len(candidates)
                    break

    def refresh(self) -> bool:
        """Take in what changed. False: too much did; a new table is needed."""
        position = self._view.position
        if position == self._position:
            return True
        changed = self._view.changed_since(self._position)
        if changed is None:
            return False
        self._position = position
        again: dict[str, None] = {}
        for name in changed:
            node = self._view.nodes.get(name)
            if node is None:
                again |= dict.fromkeys(self._remove(name))
                continue
            if self._boards:
                again |= dict.fromkeys(self._count(name, node))
            again[name] = None
        for name in again:
            node = self._view.nodes.get(name)
            if node is not None and self._is_ranked(name):
                self._rank(name, node)
        return True

    def _is_ranked(self, name: str) -> bool:
        names = self.plan.names
        return names is None or name in names

    def _count(self, name: str, node: NodeInfo) -> Sequence[str]:
        """Bring the boards up to date with one node; the nodes of its host, if that matters."""
        row = self._rows.get(name)
        if row is None:
            row = self._rows[name] = _Row()
        moved: list[str] = []
        if row.counted is not node.obj:
            moved = self._uncount(row, name)
            self._join(row, name, node)
        is_host_changed = False
        for i, board in enumerate(self._boards):
            if not row.takes[i]:
                continue
            adds = board.adds(node)
            by = adds - row.adds[i]
            if by:
                board.shift(row.domains[i] or "", by)
                row.adds[i] = adds
                is_host_changed = is_host_changed or board.tally.key == HOSTNAME
        if is_host_changed and row.host is not None:
            moved += self._of_host[row.host]
        return moved

    def _join(self, row: _Row, name: str, node: NodeInfo) -> None:
        """Put a node on the boards, with nothing added yet."""
        boards = self._boards
        labels = node.obj.labels
        row.counted = node.obj
        row.domains = tuple(labels.get(b.tally.key) for b in boards)
        row.takes = tuple(
            d is not None and b.takes(node) for b, d in zip(boards, row.domains, strict=True)
        )
        row.adds = [0] * len(boards)
        for board, domain, takes in zip(boards, row.domains, row.takes, strict=True):
            if takes and domain is not None:
                board.join(domain)
        row.host = labels.get(HOSTNAME) if self._hosts else None
        if row.host is not None:
            self._of_host.setdefault(row.host, {})[name] = None

    def _uncount(self, row: _Row, name: str) -> list[str]:
        """Take a node off the boards; the other nodes of its host."""
        for board, domain, takes, adds in zip(
            self._boards, row.domains, row.takes, row.adds, strict=False
        ):
            if takes and domain is not None:
                if adds:
                    board.shift(domain, -adds)
                board.leave(domain)
        if row.host is None:
            return []
        others = self._of_host[row.host]
        del others[name]
        if not others:
            del self._of_host[row.host]
        return [*others]

    def _remove(self, name: str) -> list[str]:
        row = self._rows.pop(name, None)
        if row is None:
            return []
        self._leave_group(row)
        return self._uncount(row, name)

    def _leave_group(self, row: _Row) -> None:
        group = row.group
        if group is not None:
            row.group = row.entry = None
            group.live -= 1
            if not group.live:
                del self._groups[group.key]

    def _rank(self, name: str, node: NodeInfo) -> _Row:
        """Local verdict, points and group of one node."""
        row = self._rows.get(name)
        if row is None:
            row = self._rows[name] = _Row()
        plan = self.plan
        if row.obj is not node.obj:
            row.obj = node.obj
            row.static = _first(plan.statics, node)
            if row.static is None:
                row.static_points = sum(w * score(node) for w, score in plan.plain_static)
                row.raw = tuple(score(node) for _, score, _ in plan.raw)
        self._leave_group(row)
        row.rejected = row.static or _first(plan.dynamics, node)
        if row.rejected is not None:
            return row
        if not plan.raw_static:
            row.raw = tuple(score(node) for _, score, _ in plan.raw)
        points = row.static_points
        for weight, score in plan.plain_dynamic:
            points += weight * score(node)
        group = self._group_of(row)
        group.live += 1
        row.group = group
        entry = row.entry = (-points, self._rng.random(), name)
        heap = group.heap
        if len(heap) > 4 * group.live + 64:
            heap[:] = [e for e in heap if self._is_live(e, group)]
            heapq.heapify(heap)
        heapq.heappush(heap, entry)
        return row

    def _group_of(self, row: _Row) -> _Group:
        domains: tuple[str | None, ...] = row.domains
        counts: tuple[int | None, ...] = ()
        if self._hosts:
            wide, narrow = list(row.domains), []
            for i in self._hosts:
                host = wide[i]
                narrow.append(self._boards[i].at(host))
                wide[i] = None if host is None else _HELD
            domains, counts = tuple(wide), tuple(narrow)
        key = (domains, counts, row.raw)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(key, domains, counts, row.raw)
        return group

    def _is_live(self, entry: Entry, group: _Group) -> bool:
        row = self._rows.get(entry[2])
        return row is not None and row.entry is entry and row.group is group

    # -- deciding

    def _counts(self, group: _Group) -> list[int | None]:
        found = [
            board.at(domain) for board, domain in zip(self._boards, group.domains, strict=True)
        ]
        for i, count in zip(self._hosts, group.counts, strict=True):
            found[i] = count
        return found

    def _judges(self) -> list[tuple[str, slice, Judge]]:
        judges, at = [], 0
        for name, domains in self.plan.domains:
            part = slice(at, at + len(domains.tallies))
            judges.append((name, part, domains.begin(self._boards[part])))
            at = part.stop
        return judges

    def _judge(self) -> Judging:
        judges = self._judges()

        def judge(group: _Group) -> Told | None:
            counts = self._counts(group)
            for name, part, ask in judges:
                verdict = ask(counts[part])
                if verdict is not None:
                    return name, verdict
            return None

        return judge

    def scores(self) -> dict[str, int]:
        """By node that was looked at and fits: its points, less what all of them have alike."""
        judge = self._judge()
        fitting = [g for g in self._groups.values() if judge(g) is None]
        common = {id(group): points for points, group in self._common_points(fitting)}
        return {
            name: common[id(row.group)] - row.entry[0]
            for name, row in self._rows.items()
            if row.entry is not None and id(row.group) in common
        }

    def choose(self, barred: Mapping[str, object]) -> str:
        """The best node that fits and is not *barred*; '' if there is none."""
        judge = self._judge() if self.plan.domains else None
        fitting = [g for g in self._groups.values() if judge is None or judge(g) is None]
        best: tuple[int, float, str] | None = None
        for points, group in self._common_points(fitting):
            top = self._top(group, barred)
            if top is not None:
                entry = (top[0] - points, top[1], top[2])
                if best is None or entry < best:
                    best = entry
        return best[2] if best is not None else ""

    def _common_points(self, fitting: Sequence[_Group]) -> Iterable[tuple[int, _Group]]:
        """What all nodes of a group score alike: the normalised scores."""
        if len(fitting) < 2 or not (self.plan.raw or self.plan.domain_scores):
            return [(0, g) for g in fitting]
        totals = [0] * len(fitting)
        for i, (weight, _, normalise) in enumerate(self.plan.raw):
            raw = [g.raw[i] for g in fitting]
            least, most = min(raw), max(raw)
            for j, value in enumerate(raw):
                totals[j] += weight * normalise(value, least, most)
        if self.plan.domain_scores:
            self._domain_points(fitting, totals)
        return zip(totals, fitting, strict=True)

    def _domain_points(self, fitting: Sequence[_Group], totals: list[int]) -> None:
        counts = [self._counts(g) for g in fitting]
        at = self._judged
        for weight, scoring, normalise in self.plan.domain_scores:
            part = slice(at, at + len(scoring.tallies))
            at = part.stop
            groups = [(g.domains[part], g.live) for g in fitting]
            ask = scoring.begin(self._boards[part], groups)
            found = [ask(c[part]) for c in counts]
            told = [p for p in found if p is not None]
            if not told:
                continue
            least, most = min(told), max(told)
            for j, points in enumerate(found):
                if points is not None:
                    fair = points if normalise is None else normalise(points, least, most)
                    totals[j] += weight * fair

    def _top(self, group: _Group, barred: Mapping[str, object]) -> Entry | None:
        heap = group.heap
        aside: list[Entry] = []
        found: Entry | None = None
        while heap:
            entry = heap[0]
            if not self._is_live(entry, group):
                heapq.heappop(heap)
            elif entry[2] in barred:
                aside.append(heapq.heappop(heap))
            else:
                found = entry
                break
        for entry in aside:
            heapq.heappush(heap, entry)
        return found

    # -- explaining, and trying changes

    def rejections(self) -> dict[str, tuple[str, Reject]]:
        """By node that was looked at and does not fit: the plug-in and why."""
        judge = self._judge()
        found: dict[str, tuple[str, Reject]] = {}
        judged: dict[int, Told | None] = {}
        for name, row in self._rows.items():
            if row.rejected is not None:
                found[name] = row.rejected
            elif row.group is not None:
                if id(row.group) not in judged:
                    judged[id(row.group)] = judge(row.group)
                verdict = judged[id(row.group)]
                if verdict is not None:
                    found[name] = verdict
        return found

    def verdict(self, node: NodeInfo) -> Verdict:
        """Whether the pod would fit on *node*, a changed copy of one of the cluster's."""
        plan = self.plan
        rejected = _first(plan.statics, node) or _first(plan.dynamics, node)
        if rejected is not None:
            return rejected[1]
        if not plan.domains:
            return None
        row = self._rows[node.obj.name]
        shifts: list[tuple[TallyBoard, str, int]] = []
        for i, board in enumerate(self._boards[: self._judged]):
            domain = row.domains[i]
            if row.takes[i] and domain is not None:
                by = board.adds(node) - row.adds[i]
                if by:
                    board.shift(domain, by)
                    shifts.append((board, domain, by))
        counts = [b.at(d) for b, d in zip(self._boards, row.domains, strict=True)]
        try:
            for _, part, ask in self._judges():
                verdict = ask(counts[part])
                if verdict is not None:
                    return verdict
            return None
        finally:
            for board, domain, by in shifts:
                board.shift(domain, -by)


def _first(checks: Sequence[tuple[str, Check]], node: NodeInfo) -> Told | None:
    for name, check in checks:
        verdict = check(node)
        if verdict is not None:
            return name, verdict
    return None
