"""DefaultPreemption: room for an important pod by deleting less important ones.

On every node where that could help, all less important pods are thought away; if the pod fits
then, as many as possible are let back in, those whose budget would be broken first. Among the nodes
that are left the one is taken where least is lost.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from sampan.api.obj import Body, Obj
from sampan.lib.selectors import Selector, from_label_selector
from sampan.scheduler.cycle import tally
from sampan.scheduler.framework import (
    Check,
    Hopeless,
    NodeInfo,
    Nominate,
    PodInfo,
    Reject,
    View,
)

_NO_VICTIMS = Reject("No preemption victims found for incoming pod")
_NO_HELP = "Preemption is not helpful for scheduling"
_NEVER = "not eligible due to preemptionPolicy=Never."
_TERMINATING = "not eligible due to a terminating pod on the nominated node."
_OFFSET = 2**31  # added to priorities, so that fewer victims are better whatever their sign


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node with the pods that would have to go, the most important first. violations: how many
    of them their budgets hold."""

    node: str
    victims: tuple[PodInfo, ...]
    violations: int


def _started(pod: PodInfo) -> str:
    """RFC 3339, comparable as text; a pod that has not started is the youngest."""
    return str(pod.obj.status.get("startTime") or "9999")


def importance(pod: PodInfo) -> tuple[int, str, str]:
    """Sorts the most important first: by priority, then by age."""
    return (-pod.priority, _started(pod), pod.uid)


@dataclass(slots=True)
class Budget:
    """A PodDisruptionBudget and what it still allows."""

    namespace: str
    selector: Selector
    disrupted: frozenset[str]
    allowed: int

    @staticmethod
    def of(obj: Obj) -> Budget:
        disrupted = obj.status.get("disruptedPods") or {}
        return Budget(
            obj.namespace, from_label_selector(obj.spec.get("selector")), frozenset(disrupted),
            int(obj.status.get("disruptionsAllowed") or 0),
        )  # fmt: skip

    def holds(self, pod: PodInfo) -> bool:
        """Whether deleting *pod* counts against the budget. One that selects everything or nothing
        holds nobody; a pod that is being disrupted already is counted already."""
        return (
            self.namespace == pod.obj.namespace
            and bool(pod.obj.labels)
            and not self.selector.is_empty
            and self.selector.matches(pod.obj.labels)
            and pod.obj.name not in self.disrupted
        )


def split(pods: Iterable[PodInfo], budgets: Iterable[Obj]) -> tuple[list[PodInfo], list[PodInfo]]:
    """(those whose deletion would break a budget, the others), in order."""
    left = [Budget.of(b) for b in budgets]
    violating: list[PodInfo] = []
    others: list[PodInfo] = []
    for pod in pods:
        is_broken = False
        for budget in left:
            if budget.holds(pod):
                budget.allowed -= 1
                is_broken = is_broken or budget.allowed < 0
        (violating if is_broken else others).append(pod)
    return violating, others


def select_victims(
    pod: PodInfo, node: NodeInfo, budgets: Sequence[Obj], trial: Check
) -> Candidate | Reject:
    """The fewest and least important pods whose absence makes room on *node*, or why none does."""
    lower = [p for p in node.pods.values() if p.priority < pod.priority]
    if not lower:
        return _NO_VICTIMS
    room = node.copy()
    for victim in lower:
        room.remove(victim.uid)
    refused = trial(room)
    if refused is not None:
        return refused
    violating, others = split(sorted(lower, key=importance), budgets)
    victims: list[PodInfo] = []

    def let_back(group: Iterable[PodInfo]) -> int:
        kept_out = 0
        for one in group:
            room.add(one)
            if trial(room) is not None:
                room.remove(one.uid)
                victims.append(one)
                kept_out += 1
        return kept_out

    violations = let_back(violating)
    let_back(others)
    if not victims:
        return Reject(f'expected at least one victim pod on node "{node.obj.name}"')
    return Candidate(node.obj.name, tuple(sorted(victims, key=importance)), violations)


def cost(candidate: Candidate) -> tuple[int, int, int, int]:
    """What is lost: broken budgets, the most important victim, all victims, their number."""
    victims = candidate.victims
    return (
        candidate.violations, victims[0].priority,
        sum(v.priority + _OFFSET for v in victims), len(victims),
    )  # fmt: skip


def best(candidates: Sequence[Candidate]) -> Candidate:
    """The cheapest; among equals the one whose most important victims started latest."""
    least = min(cost(c) for c in candidates)
    equals = [c for c in candidates if cost(c) == least]
    return max(equals, key=_first_start)


def _first_start(candidate: Candidate) -> str:
    top = candidate.victims[0].priority
    return min(_started(v) for v in candidate.victims if v.priority == top)


def is_preempted(pod: Obj) -> bool:
    """Whether a pod is going because the scheduler made room."""
    conditions: list[Body] = pod.status.get("conditions") or []
    return pod.is_deleting and any(
        c.get("type") == "DisruptionTarget" and c.get("reason") == "PreemptionByScheduler"
        for c in conditions
    )


class DefaultPreemption:
    """budgets: all PodDisruptionBudgets there are. percent: of the nodes that are tried; least: how
    many at least."""

    name: ClassVar[str] = "DefaultPreemption"

    def __init__(
        self, *, budgets: Callable[[], Sequence[Obj]], rng: random.Random, percent: int = 10,
        least: int = 100,
    ) -> None:  # fmt: skip
        self._budgets = budgets
        self._percent, self._least = percent, least
        self._rng = rng

    def post_filter(
        self, pod: PodInfo, view: View, rejected: Mapping[str, Reject], trial: Check
    ) -> Nominate | Hopeless:
        if pod.spec.get("preemptionPolicy") == "Never":
            return Hopeless(f"preemption: {_NEVER}", forget=False)
        nominated = view.nomination(pod.uid)
        if nominated in view.nodes and self._is_clearing(pod, view.nodes[nominated], rejected):
            return Hopeless(f"preemption: {_TERMINATING}", forget=False)
        curable = [n for n, reject in rejected.items() if reject.curable and n in view.nodes]
        candidates, refused = self._candidates(pod, view, curable, trial)
        if candidates:
            found = best(candidates)
            return Nominate(found.node, found.victims)
        told = tally(refused.values(), len(view.nodes), _NO_HELP)
        return Hopeless(f"preemption: 0/{len(view.nodes)} nodes are available: {told}.")

    @staticmethod
    def _is_clearing(pod: PodInfo, node: NodeInfo, rejected: Mapping[str, Reject]) -> bool:
        reject = rejected.get(node.obj.name)
        if reject is not None and not reject.curable:
            return False  # it would be in vain: look for another node
        return any(p.priority < pod.priority and is_preempted(p.obj) for p in node.pods.values())

    def _candidates(
        self, pod: PodInfo, view: View, names: Sequence[str], trial: Check
    ) -> tuple[list[Candidate], dict[str, Reject]]:
        candidates: list[Candidate] = []
        refused: dict[str, Reject] = {}
        if not names:
            return candidates, refused
        if not any(priority < pod.priority for priority in view.priorities):
            return candidates, dict.fromkeys(names, _NO_VICTIMS)
        wanted = max(len(names) * self._percent // 100, self._least)
        start = self._rng.randrange(len(names))
        budgets = self._budgets()
        for name in (*names[start:], *names[:start]):
            found = select_victims(pod, view.nodes[name], budgets, trial)
            if isinstance(found, Reject):
                refused[name] = found
                continue
            candidates.append(found)
            if len(candidates) >= wanted and any(not c.violations for c in candidates):
                break
        return candidates, refused
