"""SchedulingGates: a pod with gates is not looked at until the last of them is taken away."""

from __future__ import annotations

from typing import ClassVar

from sampan.scheduler.framework import OK, PodInfo, Reject, Verdict, Wake


class SchedulingGates:
    """The API server has put the SchedulingGated condition on the pod when it was created."""

    name: ClassVar[str] = "SchedulingGates"
    wakes: ClassVar[tuple[Wake, ...]] = ()

    def pre_enqueue(self, pod: PodInfo) -> Verdict:
        gates = [g.get("name", "") for g in pod.spec.get("schedulingGates") or ()]
        return Reject(f"waiting for scheduling gates: [{' '.join(gates)}]") if gates else OK
