"""Taking over what an earlier agent left: containers that run on, and what is known of others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sampan.api.obj import Body
from sampan.api.resizing import IN_PROGRESS
from sampan.lib.clock import parse_rfc3339
from sampan.node import resizing
from sampan.node import stimuli as st
from sampan.node.podstate import PodState
from sampan.node.runtime.base import ContainerState, SandboxState
from sampan.node.units import EXITED, IDLE, RUNNING, Unit

LOST = "The container could not be located when the pod was terminated"


def adopted(m: PodState, s: st.Adopted) -> None:
    """Make *m* what the runtime still holds and the pod's own status tells."""
    if s.sandboxes:
        chosen = max(s.sandboxes, key=lambda b: (b.ready, b.attempt))
        for other in s.sandboxes:
            if other.id != chosen.id:
                m.out.append(st.RemoveSandbox(other.id))
        m.sandbox = chosen
        m.sandbox_stage = "up" if chosen.ready else "lost"
        m.sandbox_attempt = max(b.attempt for b in s.sandboxes)
        m.ips = chosen.ips or m.ips
    before = {
        c["name"]: c
        for key in ("initContainerStatuses", "containerStatuses")
        for c in m.status.get(key) or ()
    }
    for unit in m.units.values():
        _adopt(m, unit, s.sandboxes, before.get(unit.name) or {})
    for condition in m.status.get("conditions") or ():
        if condition["type"] == IN_PROGRESS:
            m.resizing = int(condition.get("observedGeneration") or 0)
    whole = m.status.get("resources")
    m.whole_resources = m.allocated[resizing.WHOLE] if whole is None else resizing.plain(whole)
    mains = [u for u in m.units.values() if u.role == "main"]
    m.initialised = bool(m.sandbox) and any(
        any(c.name == u.name for c in m.sandbox.containers)  # type: ignore[union-attr]
        for u in mains
    )
    if m.sandbox is None and not m.frozen:
        for unit in m.of("init"):
            if unit.succeeded:
                unit.stage = IDLE  # a new sandbox is initialised anew


def _adopt(m: PodState, unit: Unit, boxes: tuple[SandboxState, ...], before: Body) -> None:
    found = sorted(
        (c for b in boxes for c in b.containers if c.name == unit.name),
        key=lambda c: c.attempt,
    )
    while found and found[-1].state not in ("running", "exited"):
        found.pop()  # created but never started: the next try replaces it
        unit.replace = True
    if not found:
        lost = _from_status(before, m.now)
        if lost is not None:
            unit.current, unit.attempt, unit.stage = lost, lost.attempt, EXITED
            unit.id = lost.id
        return
    unit.current = found[-1]
    unit.id, unit.attempt = unit.current.id, unit.current.attempt
    unit.last = found[-2] if len(found) > 1 else None
    unit.image = str(before.get("image") or m.specs[unit.name].get("image", ""))
    if unit.current.state == "exited":
        unit.stage = EXITED
        return
    unit.stage = RUNNING
    known = before.get("resources")
    unit.resources = m.allocated.get(unit.name, {}) if known is None else resizing.plain(known)
    if m.spec_of(unit, "startupProbe") and not before.get("started"):
        m.out.append(st.StartProbe(unit.name, unit.id, "startup"))
    else:
        m.has_started(unit, ready=bool(before.get("ready")))


def lost(name: str, cid: str, attempt: int, now: float) -> ContainerState:
    """Stands for a container whose end nobody saw."""
    return ContainerState(
        id=cid,
        sandbox_id="",
        name=name,
        attempt=attempt,
        state="exited",
        finished_at=now,
        exit_code=137,
        reason="ContainerStatusUnknown",
        message=LOST,
    )


def _from_status(before: Body, now: float) -> ContainerState | None:
    """The container that a status of an earlier life tells of, now that the runtime has lost it."""
    cid = str(before.get("containerID", "")).rpartition("//")[2]
    if not cid:
        return None
    unseen = lost(before["name"], cid, int(before.get("restartCount") or 0), now)
    states = (before.get("state") or {}, before.get("lastState") or {})
    ended: dict[str, Any] | None = next(
        (s["terminated"] for s in states if s.get("terminated")), None
    )
    if ended is None or (states[0].get("running")):
        return unseen
    return replace(
        unseen,
        exit_code=int(ended.get("exitCode") or 0),
        reason=ended.get("reason", ""),
        message=ended.get("message", ""),
        started_at=_time(ended.get("startedAt")),
        finished_at=_time(ended.get("finishedAt")),
    )


def _time(text: str | None) -> float:
    return parse_rfc3339(text) if text else 0.0
