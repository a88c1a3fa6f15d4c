"""TaintToleration and NodeUnschedulable: taints of nodes, tolerations of pods, cordons."""

from __future__ import annotations

from typing import ClassVar

from sampan.api.obj import Body, Obj
from sampan.control.placement import covered, repels, tolerates
from sampan.scheduler.framework import (
    OK,
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

_UNTOLERATED = Reject("node(s) had untolerated taint(s)")
_CORDONED = Reject("node(s) were unschedulable")
CORDON: Body = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}


def _let_in(pod: PodInfo, old: Obj | None, new: Obj | None) -> bool:
    tolerations = pod.spec.get("tolerations") or ()
    if new is None or repels(tolerations, new):
        return False
    return old is None or repels(tolerations, old)


class TaintToleration:
    """NoSchedule and NoExecute keep pods away, PreferNoSchedule makes a node worse."""

    name: ClassVar[str] = "TaintToleration"
    weight: ClassVar[int] = 3
    wakes: ClassVar[tuple[Wake, ...]] = (Wake("nodes", ("ADDED", "MODIFIED"), _let_in),)

    def prepare(self, pod: PodInfo, view: View) -> Prepared | Reject | Skip:
        tolerations = tuple(pod.spec.get("tolerations") or ())

        def check(node: NodeInfo) -> Verdict:
            return _UNTOLERATED if repels(tolerations, node.obj) else OK

        return Prepared(check, static=True)

    def prepare_score(self, pod: PodInfo, view: View) -> Scoring | Skip:
        tolerations = [
            t for t in pod.spec.get("tolerations") or ()
            if t.get("effect") in (None, "", "PreferNoSchedule")
        ]  # fmt: skip

        def score(node: NodeInfo) -> int:
            return sum(
                taint.get("effect") == "PreferNoSchedule" and not covered(tolerations, taint)
                for taint in node.obj.spec.get("taints") or ()
            )

        return Scoring(score, normalise=fewest_best, static=True)


def fewest_best(points: int, _least: int, most: int) -> int:
    """None becomes 100, the greatest number 0."""
    return 100 - 100 * points // most if most else 100


def _uncordoned(pod: PodInfo, old: Obj | None, new: Obj | None) -> bool:
    if new is None or new.spec.get("unschedulable"):
        return False
    return old is None or bool(old.spec.get("unschedulable"))


class NodeUnschedulable:
    """Cordoned nodes; a pod may tolerate it."""

    name: ClassVar[str] = "NodeUnschedulable"
    wakes: ClassVar[tuple[Wake, ...]] = (Wake("nodes", ("ADDED", "MODIFIED"), _uncordoned),)

    def prepare(self, pod: PodInfo, view: View) -> Prepared | Reject | Skip:
        tolerant = tolerates(pod.spec, CORDON)

        def check(node: NodeInfo) -> Verdict:
            return _CORDONED if node.obj.spec.get("unschedulable") and not tolerant else OK

        return Prepared(check, static=True)
