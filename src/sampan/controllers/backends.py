"""The pods behind a Service: which they are, their addresses, ports and readiness; and which
Services a pod is behind, without looking at all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from sampan.api.obj import Body, Key, Obj
from sampan.control.plan import Caches, Trigger
from sampan.controllers import pods as podlib

Index = Callable[[Obj], Iterable[str]]


def has_selector(service: Obj) -> bool:
    """Whether its endpoints come from pods."""
    return bool(service.spec.get("selector")) and service.spec.get("type") != "ExternalName"


def _first_pair(service: Obj) -> Iterable[str]:
    if has_selector(service):
        key, value = min(service.spec["selector"].items())
        yield f"{service.namespace}/{key}={value}"


def _pairs(pod: Obj) -> Iterable[str]:
    for key, value in pod.labels.items():
        yield f"{pod.namespace}/{key}={value}"


def _node(pod: Obj) -> Iterable[str]:
    if pod.spec.get("nodeName"):
        yield pod.spec["nodeName"]


# A service is found by one label of its selector, pods by each of theirs.
SERVICE_INDEXES: dict[str, Index] = {"selected": _first_pair}
POD_INDEXES: dict[str, Index] = {"label": _pairs, "node": _node}


def services_of(pod: Obj, caches: Caches) -> Iterable[Key]:
    """Services whose selector matches *pod*."""
    labels, services = pod.labels, caches["services"]
    for pair in _pairs(pod):
        for service in services.by("selected", pair):
            if service.spec["selector"].items() <= labels.items():
                yield service.key


def pods_of(service: Obj, caches: Caches) -> list[Obj]:
    """Pods that *service* selects, by name."""
    selector: dict[str, str] = service.spec["selector"]
    pods = caches["pods"]
    candidates = min(
        (pods.by("label", f"{service.namespace}/{k}={v}") for k, v in selector.items()), key=len
    )
    found = [p for p in candidates if selector.items() <= p.labels.items()]
    return sorted(found, key=lambda p: p.name)


def _told(pod: Obj) -> tuple[object, ...]:
    """All of a pod that endpoints depend on."""
    status = pod.status
    return (
        pod.labels, pod.is_deleting, status.get("podIP"), status.get("podIPs"),
        podlib.is_finished(pod.body), podlib.is_ready(pod.body), pod.spec.get("nodeName"),
    )  # fmt: skip


def pod_matters(old: Obj, new: Obj) -> bool:
    """Whether an update of a pod changes endpoints."""
    return _told(old) != _told(new)


def node_matters(old: Obj, new: Obj) -> bool:
    """Whether an update of a node changes endpoints: its zone does."""
    return zone(old.body) != zone(new.body)


def services_on(node: Obj, caches: Caches) -> Iterable[Key]:
    """Services with pods on *node*."""
    for pod in caches["pods"].by("node", node.name):
        yield from services_of(pod, caches)


POD_TRIGGER = Trigger("pods", services_of, matters=pod_matters)
NODE_TRIGGER = Trigger("nodes", services_on, matters=node_matters)


def zone(node: Body) -> str:
    return str((node["metadata"].get("labels") or {}).get("topology.kubernetes.io/zone") or "")


def is_listed(pod: Body, *, terminating: bool) -> bool:
    """Whether it can be an endpoint: it has an address and has not ended; one that is being
    deleted only where *terminating* ones count."""
    if not addresses(pod) or podlib.is_finished(pod):
        return False
    return terminating or "deletionTimestamp" not in pod["metadata"]


def addresses(pod: Body) -> list[str]:
    status = pod.get("status") or {}
    found = [p["ip"] for p in status.get("podIPs") or () if p.get("ip")]
    return found or [ip for ip in (status.get("podIP"),) if ip]


def address(pod: Body, family: str) -> str:
    """Its address of a family (IPv4, IPv6), or ''."""
    return next((a for a in addresses(pod) if (":" in a) == (family == "IPv6")), "")


def target(pod: Body) -> Body:
    meta = pod["metadata"]
    return {"kind": "Pod", "namespace": meta["namespace"], "name": meta["name"],
            "uid": meta["uid"]}  # fmt: skip


def hostname(pod: Body, service: Body) -> str:
    """The name that DNS gives it below *service*, or ''."""
    spec = pod.get("spec") or {}
    is_named = spec.get("hostname") and spec.get("subdomain") == service["metadata"]["name"]
    return str(spec["hostname"]) if is_named else ""


def ports(service: Body, pod: Body) -> list[Body]:
    """The ports of *pod* that *service* leads to; a named one the pod does not have is left out."""
    found = []
    for port in (service.get("spec") or {}).get("ports") or ():
        number = _number(port, pod)
        if number is None:
            continue
        made: Body = {"name": port.get("name") or "", "port": number,
                      "protocol": port.get("protocol") or "TCP"}  # fmt: skip
        if port.get("appProtocol"):
            made["appProtocol"] = port["appProtocol"]
        found.append(made)
    return found


def _number(port: Body, pod: Body) -> int | None:
    wanted = port.get("targetPort") or port["port"]
    if not isinstance(wanted, str):
        return int(wanted)
    spec = pod.get("spec") or {}
    sidecars = [c for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"]
    for container in [*(spec.get("containers") or ()), *sidecars]:
        for have in container.get("ports") or ():
            if have.get("name") == wanted and (have.get("protocol") or "TCP") == (
                port.get("protocol") or "TCP"
            ):
                return int(have["containerPort"])
    return None


def changed_at(pods: Sequence[Body]) -> dict[str, str]:
    """uid -> when its readiness last changed."""
    found = {}
    for pod in pods:
        for condition in (pod.get("status") or {}).get("conditions") or ():
            if condition["type"] == "Ready" and condition.get("lastTransitionTime"):
                found[pod["metadata"]["uid"]] = condition["lastTransitionTime"]
    return found
