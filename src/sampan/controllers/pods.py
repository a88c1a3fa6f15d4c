"""What the workload controllers ask of pods."""

from __future__ import annotations

from collections.abc import Iterable

from sampan.api.obj import Body, Obj
from sampan.lib.clock import parse_rfc3339


def is_finished(pod: Body) -> bool:
    """Whether it has run to its end (Succeeded or Failed)."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def is_active(pod: Body) -> bool:
    """Neither finished nor being deleted."""
    return not is_finished(pod) and "deletionTimestamp" not in pod["metadata"]


def _ready_condition(pod: Body) -> Body:
    conditions: list[Body] = (pod.get("status") or {}).get("conditions") or []
    return next((c for c in conditions if c["type"] == "Ready"), {})


def is_ready(pod: Body) -> bool:
    return bool(_ready_condition(pod).get("status") == "True")


def ready_since(pod: Body) -> float | None:
    """When it became ready, or None where it is not."""
    condition = _ready_condition(pod)
    if condition.get("status") != "True" or not condition.get("lastTransitionTime"):
        return None
    return parse_rfc3339(condition["lastTransitionTime"])


def is_available(pod: Body, minimum: int, now: float) -> bool:
    """Ready for at least *minimum* seconds."""
    if not is_ready(pod):
        return False
    since = ready_since(pod)
    return minimum == 0 or (since is not None and since + minimum <= now)


def next_available(pods: Iterable[Body], minimum: int, now: float) -> float | None:
    """Seconds until the next ready one of *pods* becomes available."""
    waits = [
        since + minimum - now
        for p in pods
        if minimum and (since := ready_since(p)) is not None and since + minimum > now
    ]
    return min(waits, default=None)


def orphan_namespace(pod: Obj) -> Iterable[str]:
    """Index: the namespace of a pod that no controller owns."""
    if pod.controller is None:
        yield pod.namespace


def owner_reference(owner: Body, *, api_version: str, kind: str) -> Body:
    """A controller's reference to *owner*, which blocks its foreground deletion."""
    meta = owner["metadata"]
    return {
        "apiVersion": api_version, "kind": kind, "name": meta["name"], "uid": meta["uid"],
        "controller": True, "blockOwnerDeletion": True,
    }  # fmt: skip


def from_template(owner: Body, template: Body, *, api_version: str, kind: str) -> Body:
    """The pod that *owner* creates from *template*, named by the API server."""
    given: Body = template.get("metadata") or {}
    meta: Body = {
        # Room for the suffix the API server appends: names have at most 253 characters.
        "generateName": f"{owner['metadata']['name'][:247]}-",
        "namespace": owner["metadata"]["namespace"],
        "ownerReferences": [owner_reference(owner, api_version=api_version, kind=kind)],
    }
    meta.update({k: given[k] for k in ("labels", "annotations", "finalizers") if given.get(k)})
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template["spec"]}
