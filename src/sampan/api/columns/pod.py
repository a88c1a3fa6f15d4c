"""The pod's columns, above all the Status word people know from ``kubectl get pods``."""

from __future__ import annotations

from typing import Any, NamedTuple

from sampan.api.columns.cells import AGE, NAME, NONE, dig, since
from sampan.api.obj import Body
from sampan.api.resource import Column

NODE_LOST = "NodeLost"


class Row(NamedTuple):
    """What a pod's containers add up to."""

    reason: str
    ready: int
    total: int
    restarts: int
    last_restart: str  # RFC 3339, '' when never


def summarize(body: Body) -> Row:
    """Readiness, restarts and the one word that describes the pod."""
    spec, status = body.get("spec") or {}, body.get("status") or {}
    reason = status.get("reason") or status.get("phase") or ""
    if any(
        c.get("type") == "PodScheduled" and c.get("reason") == "SchedulingGated"
        for c in status.get("conditions") or ()
    ):
        reason = "SchedulingGated"
    sidecars = _sidecars(spec)
    total = len(spec.get("containers") or ()) + len(sidecars)
    init, tally, lasting = _init(spec, status, sidecars)
    if init is not None:
        reason = init
    if init is None or _is_initialized(status):
        # From here on only sidecars' restarts count beside the containers' own.
        reason, tally = _main(status, reason, lasting)
    if "deletionTimestamp" in (body.get("metadata") or {}):
        if status.get("reason") == NODE_LOST:
            reason = "Unknown"
        elif status.get("phase") not in ("Succeeded", "Failed"):
            reason = "Terminating"
    return Row(reason, tally.ready, total, tally.restarts, tally.last)


class _Tally(NamedTuple):
    ready: int = 0
    restarts: int = 0
    last: str = ""


def _sidecars(spec: Body) -> set[str]:
    return {
        c.get("name", "")
        for c in spec.get("initContainers") or ()
        if c.get("restartPolicy") == "Always"
    }


def _is_initialized(status: Body) -> bool:
    return any(
        c.get("type") == "Initialized" and c.get("status") == "True"
        for c in status.get("conditions") or ()
    )


def _ended_at(status: Body) -> str:
    return str(dig(status, "lastState.terminated.finishedAt", ""))


def _exit_reason(ended: Body) -> str:
    if ended.get("reason"):
        return str(ended["reason"])
    if ended.get("signal"):
        return f"Signal:{ended['signal']}"
    return f"ExitCode:{ended.get('exitCode', 0)}"


def _init(spec: Body, status: Body, sidecars: set[str]) -> tuple[str | None, _Tally, _Tally]:
    """The reason init containers give (None once all are through), what they count together,
    and what their sidecars count alone."""
    ready, restarts, last = 0, 0, ""
    all_restarts, all_last = 0, ""
    for i, s in enumerate(status.get("initContainerStatuses") or ()):
        all_restarts += s.get("restartCount", 0)
        all_last = max(all_last, _ended_at(s))
        is_sidecar = s.get("name") in sidecars
        if is_sidecar:
            restarts += s.get("restartCount", 0)
            last = max(last, _ended_at(s))
        state = s.get("state") or {}
        ended, waiting = state.get("terminated"), state.get("waiting")
        if ended is not None and not ended.get("exitCode"):
            continue
        if is_sidecar and s.get("started"):
            ready += bool(s.get("ready"))
            continue
        if ended is not None:
            reason = f"Init:{_exit_reason(ended)}"
        elif waiting and waiting.get("reason") and waiting["reason"] != "PodInitializing":
            reason = f"Init:{waiting['reason']}"
        else:
            reason = f"Init:{i}/{len(spec.get('initContainers') or ())}"
        return reason, _Tally(ready, all_restarts, all_last), _Tally(ready, restarts, last)
    lasting = _Tally(ready, restarts, last)
    return None, lasting, lasting


def _main(status: Body, reason: str, init: _Tally) -> tuple[str, _Tally]:
    ready, restarts, last = init
    running = False
    for s in reversed(status.get("containerStatuses") or ()):
        restarts += s.get("restartCount", 0)
        last = max(last, _ended_at(s))
        state = s.get("state") or {}
        waiting, ended = state.get("waiting"), state.get("terminated")
        if waiting and waiting.get("reason"):
            reason = waiting["reason"]
        elif ended is not None:
            reason = _exit_reason(ended)
        elif s.get("ready") and state.get("running") is not None:
            running = True
            ready += 1
    if reason == "Completed" and running:
        # Some containers have ended well while others run: the pod is running.
        is_ready = any(
            c.get("type") == "Ready" and c.get("status") == "True"
            for c in status.get("conditions") or ()
        )
        reason = "Running" if is_ready else "NotReady"
    return reason, _Tally(ready, restarts, last)


def _ready(body: Body, _now: float) -> str:
    row = summarize(body)
    return f"{row.ready}/{row.total}"


def _restarts(body: Body, now: float) -> str:
    row = summarize(body)
    if row.restarts and row.last_restart:
        return f"{row.restarts} ({since(row.last_restart, now)} ago)"
    return str(row.restarts)


def _ip(body: Body, _now: float) -> Any:
    ips = [i.get("ip") for i in dig(body, "status.podIPs", ())]
    return next((ip for ip in ips if ip), None) or dig(body, "status.podIP") or NONE


def _gates(body: Body, _now: float) -> str:
    gates = dig(body, "spec.readinessGates", ())
    if not gates:
        return NONE
    held = {c.get("type"): c.get("status") for c in dig(body, "status.conditions", ())}
    met = sum(held.get(g.get("conditionType")) == "True" for g in gates)
    return f"{met}/{len(gates)}"


POD = (
    NAME,
    Column(
        "Ready", _ready,
        description="The aggregate readiness state of this pod for accepting traffic.",
    ),
    Column(
        "Status", lambda body, _now: summarize(body).reason,
        description="The aggregate status of the containers in this pod.",
    ),
    Column(
        "Restarts", _restarts,
        description="The number of times the containers in this pod have been restarted and when "
        "the last container in this pod has restarted.",
    ),
    AGE,
    Column("IP", _ip, priority=1, description="IP address of the pod."),
    Column(
        "Node", lambda body, _now: dig(body, "spec.nodeName") or NONE, priority=1,
        description="The node the pod runs on.",
    ),
    Column(
        "Nominated Node", lambda body, _now: dig(body, "status.nominatedNodeName") or NONE,
        priority=1, description="The node on which room is being made for the pod.",
    ),
    Column("Readiness Gates", _gates, priority=1, description="Readiness gates met, of all."),
)  # fmt: skip
