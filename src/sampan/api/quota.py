"""What objects count for in ResourceQuotas, and which quotas they count in. Pure; shared by the
admission that charges and the controller that counts anew."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sampan.api import amounts
from sampan.api.amounts import ONE, Amounts
from sampan.api.obj import Body
from sampan.api.resizing import held_spec
from sampan.api.rules.prepare import qos_class
from sampan.api.rules.resources import is_extended, is_huge_page
from sampan.lib.clock import parse_rfc3339
from sampan.lib.quantity import Quantity, quantity
from sampan.lib.selectors import from_label_selector

PODS, SERVICES, CLAIMS = "pods", "services", "persistentvolumeclaims"
_BETA_CLASS = "volume.beta.kubernetes.io/storage-class"
_COMPUTE = ("cpu", "memory", "ephemeral-storage")
MUST_SAY = frozenset(
    ("cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory")
)
_POD_NAMES = frozenset(
    (PODS, "count/pods", *_COMPUTE, *(f"{k}.{n}" for k in ("requests", "limits") for n in _COMPUTE))
)  # fmt: skip
_SERVICE_NAMES = frozenset(
    ("services", "count/services", "services.nodeports", "services.loadbalancers")
)
_CLAIM_NAMES = frozenset((CLAIMS, f"count/{CLAIMS}", "requests.storage"))
_CLAIM_SUFFIXES = (
    ".storageclass.storage.k8s.io/requests.storage",
    ".storageclass.storage.k8s.io/persistentvolumeclaims",
)
_PLAIN = frozenset(("configmaps", "resourcequotas", "replicationcontrollers", "secrets"))
IGNORED = frozenset(("events", "events.events.k8s.io"))


def resource_of(name: str) -> str:
    """The resource whose objects count for a quota's *name*; '' for a name nothing counts for."""
    if name.startswith("count/"):
        return name.removeprefix("count/")
    if name in _PLAIN:
        return name
    if name in _SERVICE_NAMES:
        return SERVICES
    if name in _CLAIM_NAMES or name.endswith(_CLAIM_SUFFIXES):
        return CLAIMS
    if name in _POD_NAMES or is_huge_page(name.removeprefix("requests.")):
        return PODS
    extended = name.removeprefix("requests.")
    return PODS if extended != name and is_extended(extended) else ""


def matching(resource: str, names: Iterable[str]) -> list[str]:
    """Those of a quota's *names* that objects of *resource* count for, sorted."""
    return sorted(n for n in names if resource_of(n) == resource)


def usage(resource: str, body: Body, now: float) -> Amounts:
    """What one object counts for."""
    counted: Amounts = {f"count/{resource}": ONE}
    if resource == PODS:
        return counted | (_pod(body) if counts(body, now) else {})
    if resource == SERVICES:
        return counted | _service(body)
    if resource == CLAIMS:
        return counted | _claim(body)
    if resource in _PLAIN:
        counted[resource] = ONE
    return counted


def counts(pod: Body, now: float) -> bool:
    """Whether a pod holds resources: not once it ended, nor when it should be gone by now (its
    node is lost)."""
    if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return False
    due = overdue_at(pod)
    return due is None or now <= due


def overdue_at(pod: Body) -> float | None:
    """When a pod that is being deleted stops counting, though it is still there."""
    meta = pod["metadata"]
    if meta.get("deletionTimestamp") is None or meta.get("deletionGracePeriodSeconds") is None:
        return None
    return parse_rfc3339(meta["deletionTimestamp"]) + float(meta["deletionGracePeriodSeconds"])


def _compute(requests: Amounts, limits: Amounts) -> Amounts:
    found: Amounts = {"pods": ONE}
    for name in _COMPUTE:
        if name in requests:
            found[name] = found[f"requests.{name}"] = requests[name]
        if name in limits:
            found[f"limits.{name}"] = limits[name]
    for name, value in requests.items():
        if is_huge_page(name):
            found[name] = value
        if is_huge_page(name) or is_extended(name):
            found[f"requests.{name}"] = value
    return found


def _pod(body: Body) -> Amounts:
    spec = held_spec(body)
    return _compute(amounts.of_pod(spec, "requests"), amounts.of_pod(spec, "limits"))


def _service(body: Body) -> Amounts:
    spec = body.get("spec") or {}
    ports = spec.get("ports") or []
    found = {
        "services": ONE,
        "services.nodeports": Quantity(0),
        "services.loadbalancers": Quantity(0),
    }
    if spec.get("type") == "NodePort":
        found["services.nodeports"] = Quantity.of(len(ports))
    elif spec.get("type") == "LoadBalancer":
        if spec.get("allocateLoadBalancerNodePorts") is False:
            ports = [p for p in ports if p.get("nodePort")]
        found["services.nodeports"] = Quantity.of(len(ports))
        found["services.loadbalancers"] = ONE
    return found


def storage_class(body: Body) -> str:
    notes = body["metadata"].get("annotations") or {}
    if _BETA_CLASS in notes:
        return str(notes[_BETA_CLASS])
    return str((body.get("spec") or {}).get("storageClassName") or "")


def _claim(body: Body) -> Amounts:
    found = {CLAIMS: ONE}
    name = storage_class(body)
    if name:
        found[f"{name}{_CLAIM_SUFFIXES[1]}"] = ONE
    asked = ((body.get("spec") or {}).get("resources") or {}).get("requests") or {}
    if "storage" in asked:
        size = quantity(asked["storage"])
        given = ((body.get("status") or {}).get("allocatedResources") or {}).get("storage")
        if given is not None:
            size = max(size, quantity(given))
        size = Quantity.of(size.whole, size.style)
        found["requests.storage"] = size
        if name:
            found[f"{name}{_CLAIM_SUFFIXES[0]}"] = size
    return found


# -- scopes ------------------------------------------------------------------------------------


def requirements(spec: Body) -> list[Body]:
    """The scopes of a quota and the terms of its scopeSelector, as terms."""
    terms = [{"scopeName": s, "operator": "Exists"} for s in spec.get("scopes") or ()]
    return [*terms, *((spec.get("scopeSelector") or {}).get("matchExpressions") or ())]


def in_scope(quota: Body, resource: str, body: Body) -> bool:
    """Whether an object is within all scopes of a quota."""
    return all(_in(term, resource, body) for term in requirements(quota.get("spec") or {}))


def _in(term: Body, resource: str, body: Body) -> bool:
    scope = term.get("scopeName")
    if resource == CLAIMS:
        return scope == "VolumeAttributesClass" and _in_class(term, body)
    if resource != PODS:
        return False
    spec = body["spec"]
    match scope:
        case "Terminating":
            return _is_terminating(spec)
        case "NotTerminating":
            return not _is_terminating(spec)
        case "BestEffort":
            return qos_class(spec) == "BestEffort"
        case "NotBestEffort":
            return qos_class(spec) != "BestEffort"
        case "PriorityClass":
            return _selects(term, spec.get("priorityClassName") or "")
        case "CrossNamespacePodAffinity":
            return crosses_namespaces(spec)
    return False


def _is_terminating(spec: Body) -> bool:
    limit = spec.get("activeDeadlineSeconds")
    return limit is not None and limit >= 0


def _selects(term: Body, value: str) -> bool:
    scope = term["scopeName"]
    expression = {"key": scope, "operator": term.get("operator"), "values": term.get("values")}
    if not term.get("values"):
        expression.pop("values")
    selector = from_label_selector({"matchExpressions": [expression]})
    return selector.matches({scope: value} if value else {})


def _in_class(term: Body, body: Body) -> bool:
    wanted = (body.get("spec") or {}).get("volumeAttributesClassName")
    status = body.get("status") or {}
    held = status.get("currentVolumeAttributesClassName")
    target = (status.get("modifyVolumeStatus") or {}).get("targetVolumeAttributesClassName")
    names = list(dict.fromkeys(n for n in (wanted, held, target) if n))
    return any(_selects(term, n) for n in names or [""])


def crosses_namespaces(spec: Body) -> bool:
    """Whether an affinity term names other namespaces."""
    affinity: Mapping[str, Any] = spec.get("affinity") or {}
    for kind in ("podAffinity", "podAntiAffinity"):
        held = affinity.get(kind) or {}
        terms = list(held.get("requiredDuringSchedulingIgnoredDuringExecution") or ())
        terms += [
            w.get("podAffinityTerm") or {}
            for w in held.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
        ]
        if any(t.get("namespaces") or t.get("namespaceSelector") is not None for t in terms):
            return True
    return False


# -- what a pod must say --------------------------------------------------------------------------


def unsaid(resource: str, body: Body, names: Iterable[str]) -> str:
    """What is wrong with a pod that leaves open what a quota of *names* counts; '' when nothing."""
    if resource != PODS:
        return ""
    spec = body["spec"]
    needed = MUST_SAY.intersection(names)
    needed -= set(_said(spec.get("resources") or {}))
    missing: dict[str, set[str]] = {}
    for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
        said = set(_said(container.get("resources") or {}))
        for name in needed - said:
            missing.setdefault(name, set()).add(container["name"])
    told = [f"{name} for: {','.join(sorted(missing[name]))}" for name in sorted(missing)]
    return f"must specify {'; '.join(told)}" if told else ""


def _said(resources: Body) -> Amounts:
    requests, limits = resources.get("requests"), resources.get("limits")
    return _compute(amounts.read(requests), amounts.read(limits))


def total(quota: Body, found: Mapping[str, Iterable[Body]], now: float) -> Amounts:
    """What *found*, all objects of the quota's namespace by resource, count for in it: every name
    of its spec that something can count for, be it zero."""
    hard = (quota.get("spec") or {}).get("hard") or {}
    used: Amounts = {}
    for resource, bodies in found.items():
        names = matching(resource, hard)
        sum_ = {n: Quantity(0) for n in names}
        for body in bodies:
            if in_scope(quota, resource, body):
                sum_ = amounts.add(sum_, amounts.only(usage(resource, body, now), names))
        used |= sum_
    return used
