"""The status of a pod, derived from what its machine knows: pure, the same every time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sampan.api.obj import Body
from sampan.api.resizing import IN_PROGRESS, PENDING
from sampan.lib.clock import rfc3339
from sampan.lib.quantity import parse
from sampan.node import resizing
from sampan.node.runtime.base import ContainerState
from sampan.node.units import ALIVE, EXITED, FLIGHT, HOOK, RUNNING, STOPPING, Unit

if TYPE_CHECKING:
    from sampan.node.podstate import PodState

SCHEME = "sampan://"
PASSING = (PENDING, IN_PROGRESS)  # conditions of ours that go again
OURS = (
    *PASSING, "PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady",
    "PodScheduled",
)  # fmt: skip


def pod_status(machine: PodState, now: float) -> Body:
    """The whole status; fields of others (conditions such as readiness gates) are kept."""
    generation = machine.pod["metadata"].get("generation")
    if machine.frozen:
        frozen = dict(machine.status)
        if generation is not None:
            frozen["observedGeneration"] = generation
        return frozen
    spec = machine.pod["spec"]
    inits = [
        container_status(machine, machine.units[c["name"]])
        for c in spec.get("initContainers") or ()
    ]
    mains = [container_status(machine, machine.units[c["name"]]) for c in spec["containers"]]
    phase = _phase(machine)
    status: Body = {}
    if generation is not None:
        status["observedGeneration"] = generation
    status["phase"] = phase
    status["conditions"] = _conditions(machine, [*inits, *mains], phase=phase, now=now)
    if machine.failure is not None:
        status["reason"], status["message"] = machine.failure
    if machine.host_ips:
        status["hostIP"] = machine.host_ips[0]
        status["hostIPs"] = [{"ip": ip} for ip in machine.host_ips]
    ips = machine.ips
    if spec.get("hostNetwork") and machine.sandbox is not None and machine.host_ips:
        ips = machine.host_ips
    if ips:
        status["podIP"] = ips[0]
        status["podIPs"] = [{"ip": ip} for ip in ips]
    status["startTime"] = rfc3339(machine.start_time)
    if machine.allocated[resizing.WHOLE]:
        whole = machine.allocated[resizing.WHOLE]
        if whole.get("requests"):
            status["allocatedResources"] = whole["requests"]
        status["resources"] = machine.whole_resources
    status["qosClass"] = (machine.pod.get("status") or {}).get("qosClass") or qos_class(spec)
    if inits:
        status["initContainerStatuses"] = inits
    status["containerStatuses"] = sorted(mains, key=lambda c: str(c["name"]))
    added = [
        container_status(machine, machine.units[c["name"]])
        for c in spec.get("ephemeralContainers") or ()
    ]
    if added:
        status["ephemeralContainerStatuses"] = sorted(added, key=lambda c: str(c["name"]))
    return status


def qos_class(spec: Body) -> str:
    """Guaranteed, Burstable or BestEffort, from the containers' cpu and memory."""
    some = False
    guaranteed = True
    for container in [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]:
        resources = container.get("resources") or {}
        limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
        for name in ("cpu", "memory"):
            limit, request = limits.get(name), requests.get(name, limits.get(name))
            some = some or bool(_amount(limit) or _amount(request))
            if not _amount(limit) or _amount(limit) != _amount(request):
                guaranteed = False
    if not some:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def _amount(text: Any) -> Any:
    return parse(text) if text is not None else 0


def container_status(machine: PodState, unit: Unit) -> Body:
    spec = machine.specs[unit.name]
    current = unit.current
    waits_by_default = (
        "PodInitializing" if machine.pod["spec"].get("initContainers") else ("ContainerCreating")
    )
    last: ContainerState | None
    if unit.stage in (RUNNING, STOPPING) and current is not None:
        state: Body = {"running": {"startedAt": rfc3339(current.started_at)}}
        last = unit.last
    elif unit.stage == HOOK:
        state, last = {"waiting": {"reason": waits_by_default}}, unit.last
    elif unit.waiting is not None:
        reason, message = unit.waiting
        state = {"waiting": {"reason": reason, **({"message": message} if message else {})}}
        last = current
    elif current is not None:
        state, last = {"terminated": _terminated(current)}, unit.last
    else:
        state, last = {"waiting": {"reason": waits_by_default}}, None
    status: Body = {
        "name": unit.name,
        "state": state,
        "lastState": {"terminated": _terminated(last)} if last is not None else {},
        "ready": unit.succeeded if unit.role == "init" else unit.ready,
        "restartCount": current.attempt if current is not None else 0,
        "image": spec.get("image", ""),
        "imageID": (current.image_id if current is not None else "") or unit.image_id,
        "started": unit.started,
    }
    if current is not None:
        status["containerID"] = SCHEME + current.id
    if current is not None and current.user is not None:
        uid, gid, groups = current.user
        status["user"] = {"linux": {
            "gid": gid, "supplementalGroups": list(dict.fromkeys((gid, *groups))), "uid": uid,
        }}  # fmt: skip
    allocated = resizing.plain(spec.get("resources"))
    if allocated.get("requests"):
        status["allocatedResources"] = allocated["requests"]
    in_force = unit.stage in ALIVE and unit.name in machine.allocated
    status["resources"] = unit.resources if in_force else allocated
    mounts = [_mount_status(m) for m in spec.get("volumeMounts") or ()]
    if mounts:
        status["volumeMounts"] = mounts
    return status


def _mount_status(mount: Body) -> Body:
    shown = {"name": mount["name"], "mountPath": mount["mountPath"]}
    if mount.get("readOnly"):
        shown |= {"readOnly": True, "recursiveReadOnly": "Disabled"}
    return shown


def _terminated(state: ContainerState) -> Body:
    shown: Body = {
        "exitCode": state.exit_code,
        "reason": state.reason or ("Completed" if state.exit_code == 0 else "Error"),
        "containerID": SCHEME + state.id,
    }
    for name, at in (("startedAt", state.started_at), ("finishedAt", state.finished_at)):
        if at:  # a container nobody saw start has no time for it
            shown[name] = rfc3339(at)
    if state.message:
        shown["message"] = state.message
    return shown


def _phase(machine: PodState) -> str:
    if machine.failure is not None:
        return "Failed"
    mains = [u for u in machine.units.values() if u.role == "main"]
    inits = [u for u in machine.units.values() if u.role != "main"]
    ran = [u for u in mains if u.current is not None and not (u.stage == HOOK and not u.last)]
    for unit in inits:
        if unit.role == "init" and unit.stage == EXITED and not unit.succeeded:
            if machine.has_finished(unit):
                return "Failed"
    if machine.winding and not any(u.stage in ALIVE | FLIGHT for u in machine.units.values()):
        done = len(ran) == len(mains) and all(_exit(u) == 0 for u in mains)
        return "Succeeded" if done else "Failed"
    started = machine.initialised or bool(ran)
    if not started or len(ran) < len(mains):
        return "Pending"
    return "Running"


def _exit(unit: Unit) -> int:
    return unit.current.exit_code if unit.current is not None else 1


def _conditions(machine: PodState, containers: list[Body], *, phase: str, now: float) -> list[Body]:
    by_name = {c["name"]: c for c in containers}
    before = {c["type"]: c for c in machine.status.get("conditions") or ()}
    theirs = {c["type"]: c for c in (machine.pod.get("status") or {}).get("conditions") or ()}
    inits = [u for u in machine.units.values() if u.role in ("init", "sidecar")]
    ready_units = [u for u in machine.units.values() if u.role in ("main", "sidecar")]
    unready = [u.name for u in ready_units if not by_name[u.name]["ready"]]

    wanted: dict[str, tuple[str, str, str]] = {
        "PodReadyToStartContainers": (_truth(machine.sandbox_stage == "up"), "", "")
    }
    incomplete = [u.name for u in inits if not (u.succeeded if u.role == "init" else u.started)]
    if phase == "Succeeded":
        wanted["Initialized"] = ("True", "PodCompleted", "")
    elif incomplete and not machine.initialised and not _any_ran(machine):
        text = f"containers with incomplete status: [{' '.join(incomplete)}]"
        wanted["Initialized"] = ("False", "ContainersNotInitialized", text)
    else:
        wanted["Initialized"] = ("True", "", "")

    if phase == "Succeeded":
        ready = ("False", "PodCompleted", "")
    elif phase == "Failed":
        ready = ("False", "PodFailed", "")
    elif unready:
        text = f"containers with unready status: [{' '.join(unready)}]"
        ready = ("False", "ContainersNotReady", text)
    else:
        ready = ("True", "", "")
    wanted["Ready"] = wanted["ContainersReady"] = ready
    if ready[0] == "True":
        gates = _closed_gates(machine.pod["spec"], theirs)
        if gates:
            wanted["Ready"] = ("False", "ReadinessGatesNotReady", ", ".join(gates))
    wanted["PodScheduled"] = ("True", "", "")

    generation = machine.pod["metadata"].get("generation")
    out = [_resize_condition(type_, told, before.get(type_) or {}, now)
           for type_, told in resizing.conditions(machine).items()]  # fmt: skip
    for type_, (truth, reason, message) in wanted.items():
        old = before.get(type_) or {}
        condition: Body = {"type": type_, "status": truth}
        if generation is not None:
            condition["observedGeneration"] = generation
        if reason:
            condition["reason"] = reason
        if message:
            condition["message"] = message
        same = old.get("status") == truth and old.get("lastTransitionTime")
        condition["lastTransitionTime"] = old["lastTransitionTime"] if same else rfc3339(now)
        out.append(condition)
    out += [c for t, c in theirs.items() if t not in OURS]
    return out


def _resize_condition(type_: str, told: Body, old: Body, now: float) -> Body:
    same = old.get("reason") == told.get("reason") and old.get("lastTransitionTime")
    return {
        "type": type_, **told,
        "lastTransitionTime": old["lastTransitionTime"] if same else rfc3339(now),
    }  # fmt: skip


def _any_ran(machine: PodState) -> bool:
    return any(u.role == "main" and u.stage in ALIVE for u in machine.units.values())


def _closed_gates(spec: Body, conditions: dict[str, Body]) -> list[str]:
    texts = []
    for gate in spec.get("readinessGates") or ():
        type_ = gate["conditionType"]
        found = conditions.get(type_)
        if found is None:
            texts.append(f'corresponding condition of pod readiness gate "{type_}" does not exist.')
        elif found.get("status") != "True":
            texts.append(
                f'the status of pod readiness gate "{type_}" is not "True", '
                f"but {found.get('status')}"
            )
    return texts


def _truth(value: bool) -> str:
    return "True" if value else "False"
