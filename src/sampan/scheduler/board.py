"""Boards: pods counted by topology domain, kept up to date one node at a time."""

from __future__ import annotations

from sampan.scheduler.framework import Tally
from sampan.scheduler.nodes import NodeInfo
from sampan.scheduler.pods import PodClass

_REMEMBERED = 10_000


class TallyBoard:
    """One tally's figures. A domain exists while one of its nodes takes part."""

    __slots__ = ("_counts", "_known", "_of_figure", "_present", "tally", "total")

    def __init__(self, tally: Tally) -> None:
        self.tally = tally
        self.total = 0
        self._counts: dict[str, int] = {}
        self._present: dict[str, int] = {}  # domain -> nodes that take part
        self._of_figure: dict[int, int] = {}  # figure -> domains that have it
        self._known: dict[PodClass, int] = {}

    @property
    def domains(self) -> int:
        return len(self._counts)

    def least(self) -> int:
        return min(self._of_figure, default=0)

    def at(self, domain: str | None) -> int | None:
        """The figure of *domain*; None for a node without one."""
        return None if domain is None else self._counts.get(domain, 0)

    def adds(self, node: NodeInfo) -> int:
        """What the pods of *node* add to its domain."""
        total = 0
        known = self._known
        for cls, number in node.classes.items():
            each = known.get(cls)
            if each is None:
                if len(known) > _REMEMBERED:
                    known.clear()
                each = known[cls] = self.tally.count(cls)
            if each:
                total += each * number
        return total

    def takes(self, node: NodeInfo) -> bool:
        return self.tally.on is None or self.tally.on(node.obj)

    def join(self, domain: str) -> None:
        """A node of *domain* takes part from now on."""
        present = self._present.get(domain, 0)
        self._present[domain] = present + 1
        if not present:
            self._counts[domain] = 0
            self._of_figure[0] = self._of_figure.get(0, 0) + 1

    def leave(self, domain: str) -> None:
        """The inverse of ``join``; what the node added has been taken back before."""
        self._present[domain] -= 1
        if not self._present[domain]:
            del self._present[domain]
            self._forget(self._counts.pop(domain))

    def shift(self, domain: str, by: int) -> None:
        before = self._counts[domain]
        self._counts[domain] = before + by
        self.total += by
        self._forget(before)
        self._of_figure[before + by] = self._of_figure.get(before + by, 0) + 1

    def _forget(self, figure: int) -> None:
        self._of_figure[figure] -= 1
        if not self._of_figure[figure]:
            del self._of_figure[figure]
