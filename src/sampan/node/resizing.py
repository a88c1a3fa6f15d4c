"""Resizing a running pod in place, decided purely: what is allocated to its containers, whether
what its spec asks for now fits on the node, and which containers are updated or restarted for it.

asked (the spec) -> allocated (granted by the node) -> in force (``Unit.resources``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import orjson

from sampan.api.obj import Body
from sampan.api.resizing import DEFERRED, IN_PROGRESS, INFEASIBLE, PENDING
from sampan.lib.quantity import quantity
from sampan.node import stimuli as st
from sampan.node.admission import Needs, lacking
from sampan.node.units import ALIVE, FLIGHT, HOOK, RUNNING, Unit, role_of

if TYPE_CHECKING:
    from sampan.node.podstate import PodState

AGAIN = 180.0  # seconds after which a deferred resize is judged anew, should nothing tell before
RETRY = 10.0
WHOLE = ""  # stands for the pod as a whole among its containers' names
_LISTS = (("initContainers", "initContainerStatuses"), ("containers", "containerStatuses"))


def plain(resources: Body | None) -> Body:
    """Requests and limits, where there are any."""
    return {k: resources[k] for k in ("limits", "requests") if resources and resources.get(k)}


def asked(pod: Body) -> dict[str, Body]:
    """What the spec asks for, by the names of the containers that can be resized."""
    spec = pod["spec"]
    found = {WHOLE: plain(spec.get("resources"))}
    for kind, _ in _LISTS:
        for container in spec.get(kind) or ():
            if role_of(container, kind) in ("main", "sidecar"):
                found[container["name"]] = plain(container.get("resources"))
    return found


def recall(pod: Body) -> dict[str, Body]:
    """What the pod's own status tells was allocated; what is not told is what the spec asks for."""
    found, status = asked(pod), pod.get("status") or {}
    told = [s for _, kind in _LISTS for s in status.get(kind) or ()]
    for one in [*told, {**status, "name": WHOLE}]:
        if one.get("resources") is not None and one["name"] in found:
            limits = one["resources"].get("limits")
            requests = one.get("allocatedResources")
            found[one["name"]] = plain({"limits": limits, "requests": requests})
    return found


def allocated_pod(pod: Body, allocated: Mapping[str, Body]) -> Body:
    """*pod* with what is allocated in place of what is asked for; itself where that is the same."""
    spec: Body = pod["spec"]
    changed: Body = {}
    for kind, _ in _LISTS:
        before = spec.get(kind) or ()
        after = [with_resources(c, allocated.get(c["name"])) for c in before]
        if any(a is not b for a, b in zip(after, before, strict=True)):
            changed[kind] = after
    if plain(spec.get("resources")) != allocated.get(WHOLE, {}):
        changed["resources"] = allocated[WHOLE]
    return {**pod, "spec": {**spec, **changed}} if changed else pod


def with_resources(container: Body, allocated: Body | None) -> Body:
    given: Body = container.get("resources") or {}
    if allocated is None or plain(given) == allocated:
        return container
    claims = {"claims": given["claims"]} if given.get("claims") else {}
    return {**container, "resources": {**allocated, **claims}}


def verdict(
    wanted: Needs, others: Iterable[Needs], allocatable: Mapping[str, str]
) -> tuple[str, str]:
    """('', '') when the node has room for what is *wanted* beside *others*; else Infeasible or
    Deferred, and why."""
    for name in ("memory", "cpu"):
        if name not in allocatable:
            continue
        size = quantity(allocatable[name])
        capacity, asks = size.millis if name == "cpu" else size.whole, wanted.amounts.get(name, 0)
        if asks > capacity:
            text = f"{name}, requested: {asks}, capacity: {capacity}"
            return INFEASIBLE, f"Node didn't have enough capacity: {text}"
    found = lacking(wanted, others, allocatable)
    return ("", "") if found is None else (DEFERRED, found[1])


def shrinks(wanted: Needs, held: Needs) -> bool:
    """Whether less is *wanted* of some resource than *held*."""
    return any(wanted.amounts.get(n, 0) < held.amounts.get(n, 0) for n in ("cpu", "memory"))


def urgency(m: PodState) -> tuple[bool, int, bool, float]:
    """Sorts pods that wait for room: who asks for no more, by priority, by quality of service, who
    waits longer."""
    spec = m.pod["spec"]
    quality = (m.pod.get("status") or {}).get("qosClass")
    grows = shrinks(m.needs, Needs.of(spec))
    return grows, -int(spec.get("priority") or 0), quality != "Guaranteed", m.judge_at


# ---- the machine's part --------------------------------------------------------------------------


def decide(m: PodState) -> None:
    """Ask the node for what the spec asks for; put into force what was allocated."""
    wanted = asked(m.pod)
    if wanted == m.allocated:
        m.pending, m.judged = None, None
    elif not m.judging and (wanted != m.judged or m.due(m.judge_at)):
        m.judging, m.judged = True, wanted
        m.out.append(st.Allocate())
    _enforce(m)


def judged(m: PodState, s: st.Judged) -> None:
    """The node's answer to Allocate. What was asked for may have changed meanwhile: then it is
    asked again."""
    m.judging = False
    if m.judged != asked(m.pod):
        m.judged = None
        return
    generation = int(m.pod["metadata"].get("generation") or 0)
    if s.reason:
        m.judge_at = m.now + AGAIN if s.reason == DEFERRED else float("inf")
        if m.pending is None or m.pending[:2] != (s.reason, s.message):
            event = "ResizeInfeasible" if s.reason == INFEASIBLE else "ResizeDeferred"
            text = summary(m.pod, asked(m.pod), generation, s.message)
            m.emit("Warning", event, f"Pod resize {s.reason}: {text}")
            m.pending = (s.reason, s.message, generation)
        return
    m.allocated, m.pending, m.judged = m.judged, None, None
    m.resizing, m.resize_failure, m.resize_at = generation, "", 0.0
    m.read_spec()
    text = summary(m.pod, m.allocated, generation)
    m.emit("Normal", "ResizeStarted", f"Pod resize started: {text}")


def _enforce(m: PodState) -> None:
    units = [u for u in m.units.values() if u.name in m.allocated]
    behind = [u for u in units if u.stage in ALIVE and u.resources != m.allocated[u.name]]
    for unit in [u for u in behind if u.stage == RUNNING and _restarts(m, u)]:
        unit.forced = True
        text = f"Container {unit.name} resize requires restart"
        m.emit_for(unit, "Normal", "Killing", text)
        m.stop(unit, float(m.pod["spec"].get("terminationGracePeriodSeconds") or 0))
    live = [u for u in behind if u.stage in (RUNNING, HOOK)]
    whole = m.whole_resources != m.allocated[WHOLE] and m.sandbox_stage == "up"
    if (live or whole) and not m.updating and m.due(m.resize_at):
        m.updating = True
        m.out.append(st.Resize({u.name: u.id for u in live}, dict(m.allocated)))
    in_flight = any((u.stage in FLIGHT and u.stage != HOOK) or u.forced for u in units)
    if m.resizing is not None and not behind and not whole and not m.updating and not in_flight:
        text = summary(m.pod, m.allocated, m.resizing)
        m.emit("Normal", "ResizeCompleted", f"Pod resize completed: {text}")
        m.resizing = None


def _restarts(m: PodState, unit: Unit) -> bool:
    """Whether a resource that changes asks for a restart of the container."""
    old, new = unit.resources, m.allocated[unit.name]
    for policy in m.specs[unit.name].get("resizePolicy") or ():
        if policy.get("restartPolicy") == "RestartContainer":
            name = policy.get("resourceName")
            if any((old.get(k) or {}).get(name) != (new.get(k) or {}).get(name)
                   for k in ("requests", "limits")):  # fmt: skip
                return True
    return False


def resized(m: PodState, s: st.Resized) -> None:
    """Resize is done, or has failed."""
    m.updating = False
    if s.failure:
        m.resize_at = m.now + RETRY
        if s.failure != m.resize_failure:
            m.resize_failure = s.failure
            generation = m.resizing or int(m.pod["metadata"].get("generation") or 0)
            m.resizing = generation
            text = summary(m.pod, m.allocated, generation, s.failure)
            m.emit("Warning", "ResizeError", f"Pod resize error: {text}")
        return
    m.resize_failure = ""
    m.whole_resources = s.resources[WHOLE]
    for name, cid in s.containers.items():
        unit = m.units[name]
        if unit.id == cid:
            unit.resources = s.resources[name]


def room_changed(m: PodState, _: st.RoomChanged) -> None:
    """What did not fit may fit now."""
    m.judge_at = min(m.judge_at, m.now) if m.pending and m.pending[0] == DEFERRED else m.judge_at


def wakes(m: PodState) -> list[float]:
    """When a decision may change by itself."""
    times = [m.judge_at] if m.pending and m.pending[0] == DEFERRED else []
    return [*times, m.resize_at] if m.resize_failure else times


def conditions(m: PodState) -> dict[str, Body]:
    found: dict[str, Body] = {}
    if m.pending is not None:
        reason, message, generation = m.pending
        found[PENDING] = {"status": "True", "observedGeneration": generation, "reason": reason,
                          "message": message}  # fmt: skip
    if m.resizing is not None:
        found[IN_PROGRESS] = {"status": "True", "observedGeneration": m.resizing}
        if m.resize_failure:
            found[IN_PROGRESS] |= {"reason": "Error", "message": m.resize_failure}
    return found


def summary(pod: Body, resources: Mapping[str, Body], generation: int, error: str = "") -> str:
    """What a pod's containers get, as the events of a resize tell it."""
    told: Body = {}
    for kind, _ in _LISTS:
        named = [
            {"name": c["name"], "resources": _ordered(resources[c["name"]])}
            for c in pod["spec"].get(kind) or ()
            if c["name"] in resources
        ]
        if named:
            told[kind] = named
    told["generation"] = generation
    if error:
        told["error"] = error
    return orjson.dumps(told).decode()


def _ordered(resources: Body) -> Body:
    return {k: dict(sorted(resources[k].items())) for k in ("limits", "requests") if k in resources}
