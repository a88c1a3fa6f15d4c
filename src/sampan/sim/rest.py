"""Rest: what has to be true once nothing goes wrong any more and everybody had time."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

from sampan.api import amounts
from sampan.api.obj import Body, Obj
from sampan.lib.quantity import quantity
from sampan.node.runtime.fake import LABEL
from sampan.sim import guards
from sampan.sim.dice import WORKLOADS
from sampan.sim.look import FINAL, is_finished, is_live, is_ready
from sampan.sim.properties import Watchdog

_SLICES = "endpointslices.discovery.k8s.io"
_SERVICE, _MANAGER = "kubernetes.io/service-name", "endpointslice.kubernetes.io/managed-by"


def restarts(obj: Obj) -> bool:
    """Whether its containers end again and again by themselves."""
    return obj.key.resource == "pods" and _fails(obj.annotations.get(LABEL, ""))


def _fails(behaviour: str) -> bool:
    return "run=" in behaviour or "_error" in behaviour


def unsettled(w: Watchdog) -> list[str]:
    """What is not yet as asked for; texts. Pods that fail by themselves, and those for which there
    is no room, are not waited for."""
    found = [f"node {n.name} is not back" for n in w.world.nodes.values() if not n.is_up]
    for obj in w.objects.values():
        resource = obj.key.resource
        if obj.is_deleting and resource in (*WORKLOADS, "pods", guards.CLAIMS, guards.VOLUMES):
            found.append(f"{obj.key.path} is still being deleted")
        elif resource in WORKLOADS:
            found += _told(obj, _workload(w, obj))
        elif resource == "namespaces" and obj.is_deleting:
            found.append(f"{obj.key.path} is terminating: {obj.status.get('conditions')}")
        elif resource == "pods" and not obj.spec.get("nodeName") and is_live(obj):
            fits = [n for n in w.of("nodes") if _fits(w, obj, n)]
            found += _told(obj, f"waits though {fits[0].name} has room" if fits else "")
        elif resource == "services":
            found += _told(obj, _service(w, obj))
        elif resource in _CHECKS:
            found += _told(obj, _CHECKS[resource](w, obj))
        if obj.owners and not any(r["uid"] in w.by_uid for r in obj.owners):
            found.append(f"{obj.key.path} is an orphan")
    return found


def _told(obj: Obj, text: str) -> list[str]:
    return [f"{obj.key.path}: {text}"] if text else []


# -- workloads -------------------------------------------------------------------------------------


def _pods(w: Watchdog, obj: Obj) -> list[Obj]:
    """Its live pods, also those of what it owns."""
    found = [p for p in w.dependents(obj.uid, "pods") if is_live(p)]
    for owned in w.owned[obj.uid].values():
        if owned.key.resource != "pods":
            found += _pods(w, owned)
    return found


def _workload(w: Watchdog, obj: Obj) -> str:
    status, spec, resource = obj.status, obj.spec, obj.key.resource
    everyone = _pods(w, obj)
    if any(p for p in everyone if not p.spec.get("nodeName")):
        return ""  # the pods themselves tell whether they wait for room
    if resource == "jobs.batch":
        stuck = "create_error" in _behaviour(spec)  # what cannot be made cannot end
        return "" if is_finished(obj) or stuck else "not finished"
    if resource == "cronjobs.batch":
        return ""
    if status.get("observedGeneration") != obj.meta.get("generation"):
        return "not observed"
    pods = [p for p in w.dependents(obj.uid, "pods") if is_live(p)]
    if any(restarts(p) for p in everyone) or _fails(_behaviour(spec)):
        return ""
    if resource == "daemonsets.apps":
        wanted = len(w.world.nodes)
        have = (status.get("numberReady", 0), status.get("updatedNumberScheduled", 0))
        return "" if have == (wanted, wanted) else f"{have} of {wanted}"
    wanted = int(spec.get("replicas", 1))
    names = ["replicas", "readyReplicas", "availableReplicas"]
    if resource == "deployments.apps":
        names.append("updatedReplicas")
    else:
        ready = sum(is_ready(p) for p in pods)
        if len(pods) != wanted or ready != wanted:
            return f"{ready}/{len(pods)} pods ready of {wanted}"
    counts = tuple(int(status.get(n) or 0) for n in names)
    if not set(counts) <= {wanted}:
        return f"{dict(zip(names, counts, strict=True))} of {wanted}"
    return _claims(w, obj) if resource == "statefulsets.apps" else ""


def _behaviour(spec: Body) -> str:
    """What the containers of a workload's template do."""
    meta = (spec.get("template") or {}).get("metadata") or {}
    return str((meta.get("annotations") or {}).get(LABEL) or "")


def _claims(w: Watchdog, obj: Obj) -> str:
    for template in obj.spec.get("volumeClaimTemplates") or ():
        for ordinal in range(int(obj.spec.get("replicas", 1))):
            name = f"{template['metadata']['name']}-{obj.name}-{ordinal}"
            claim = w.objects.get(f"{guards.CLAIMS}/{obj.namespace}/{name}")
            if claim is None or claim.status.get("phase") != "Bound":
                return f"claim {name} is {claim and claim.status.get('phase')}"
    return ""


# -- room ------------------------------------------------------------------------------------------


def _cpu(pod: Obj) -> Fraction:
    return sum(
        (quantity(((c.get("resources") or {}).get("requests") or {}).get("cpu", "0")).value
         for c in pod.spec["containers"]), Fraction(0),
    )  # fmt: skip


def _fits(w: Watchdog, pod: Obj, node: Obj) -> bool:
    """Whether a pod could surely be placed on a node; the plainest reading, of cpu only."""
    if node.spec.get("unschedulable") or node.spec.get("taints") or not is_ready(node):
        return False
    if any("ephemeral" in v or "persistentVolumeClaim" in v for v in pod.spec.get("volumes") or ()):
        return False  # where its volumes are is not looked at
    here = [p for p in w.of("pods") if p.spec.get("nodeName") == node.name]
    used = sum((_cpu(p) for p in here if p.status.get("phase") not in FINAL), Fraction(0))
    if pod.spec.get("affinity"):
        return False  # of a DaemonSet: it is for one node only
    reserved = sum((
        _cpu(p) for p in w.of("pods")
        if p.uid != pod.uid and p.status.get("nominatedNodeName") == node.name
        and not p.spec.get("nodeName")
    ), Fraction(0))  # fmt: skip
    room = quantity(str(node.status["allocatable"]["cpu"])).value
    return used + reserved + _cpu(pod) <= room


# -- what stands beside ----------------------------------------------------------------------------


def _budget(w: Watchdog, obj: Obj) -> str:
    found = guards.counted(w, obj)
    if found is None:
        return ""
    expected, desired, healthy = found
    disrupted = obj.status.get("disruptedPods") or {}
    allowed = max(0, healthy - desired) if expected else 0
    wanted = (expected, desired, healthy, allowed)
    names = ("expectedPods", "desiredHealthy", "currentHealthy", "disruptionsAllowed")
    have = tuple(int(obj.status.get(n) or 0) for n in names)
    if any(restarts(p) for p in w.of("pods") if guards.guards(obj, p)):
        return ""  # they come and go
    return "" if have == wanted and not disrupted else f"{have}, {disrupted}, true is {wanted}"


def _quota(w: Watchdog, obj: Obj) -> str:
    used = amounts.read(obj.status.get("used"))
    true = guards.truth(w, obj)
    return "" if used == true else f"used is {used}, true is {true}"


def _scaler(w: Watchdog, obj: Obj) -> str:
    ref = obj.spec["scaleTargetRef"]
    target = w.objects.get(f"deployments.apps/{obj.namespace}/{ref['name']}")
    wanted = int(target.spec.get("replicas", 1)) if target is not None else 0
    conditions = {c["type"]: c["status"] for c in obj.status.get("conditions") or ()}
    if not wanted or "ScalingActive" not in conditions:
        return "" if conditions else "not looked at"
    least, most = int(obj.spec.get("minReplicas") or 1), int(obj.spec["maxReplicas"])
    rivals = [
        s for s in w.of(guards.SCALERS)
        if s.spec["scaleTargetRef"] == ref and s.namespace == obj.namespace
    ]  # fmt: skip
    if len(rivals) == 1 and not least <= wanted <= most:
        return f"{wanted} is not within {least} and {most}"
    return ""


def _claim(w: Watchdog, obj: Obj) -> str:
    if obj.status.get("phase") != "Bound":
        return ""
    volume = w.objects.get(f"{guards.VOLUMES}//{obj.spec.get('volumeName')}")
    ref = ((volume.spec.get("claimRef") or {}) if volume is not None else {}).get("uid")
    return "" if ref == obj.uid else f"its volume belongs to {ref}"


def _volume(w: Watchdog, obj: Obj) -> str:
    ref = obj.spec.get("claimRef") or {}
    if ref.get("uid") and ref["uid"] not in w.by_uid:
        return f"nobody has claimed it any more: {obj.status}"
    return ""


_CHECKS = {
    guards.BUDGETS: _budget, guards.QUOTAS: _quota, guards.SCALERS: _scaler,
    guards.CLAIMS: _claim, guards.VOLUMES: _volume,
}  # fmt: skip


# -- services --------------------------------------------------------------------------------------


def _service(w: Watchdog, obj: Obj) -> str:
    if obj.is_deleting or obj.namespace not in ("work", "default") or obj.name == "kubernetes":
        return ""
    selector = obj.spec.get("selector")
    written = w.objects.get(f"endpoints/{obj.namespace}/{obj.name}")
    if not selector:
        wanted = {a["ip"]: True for s in _subsets(written) for a in s.get("addresses") or ()}
        have = _ready(w, obj, "endpointslicemirroring-controller.k8s.io")
        return "" if have == wanted else f"mirrored {have}, written {wanted}"
    any_state = bool(obj.spec.get("publishNotReadyAddresses"))
    wanted = {
        p.status["podIP"]: any_state or is_ready(p)
        for p in w.of("pods")
        if p.namespace == obj.namespace and selector.items() <= p.labels.items()
        and p.status.get("podIP") and p.status.get("phase") not in FINAL
    }  # fmt: skip
    have = _ready(w, obj, "endpointslice-controller.k8s.io")
    if have != wanted:
        return f"slices say {have}, true is {wanted}"
    told = {a["ip"]: kind == "addresses" for s in _subsets(written)
            for kind in ("addresses", "notReadyAddresses") for a in s.get(kind) or ()}  # fmt: skip
    return "" if told == wanted else f"Endpoints say {told}, true is {wanted}"


def _subsets(endpoints: Obj | None) -> Iterable[Body]:
    return (endpoints.body.get("subsets") or ()) if endpoints is not None else ()


def _ready(w: Watchdog, service: Obj, manager: str) -> dict[str, bool]:
    """Address -> ready, of all slices of a service; an address that is there twice is None."""
    found: dict[str, bool] = {}
    for s in w.of(_SLICES):
        labels = s.labels
        if s.namespace != service.namespace or labels.get(_SERVICE) != service.name:
            continue
        if labels.get(_MANAGER) != manager:
            continue
        for endpoint in s.body.get("endpoints") or ():
            for address in endpoint["addresses"]:
                twice = address in found
                found[f"{address} twice" if twice else address] = endpoint["conditions"]["ready"]
    return found
