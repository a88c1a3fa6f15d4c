"""pods/eviction: a deletion that asks the pod's budget first.

The budget's countdown, the pod's DisruptionTarget condition and its deletion are one commit: no
eviction is allowed twice by one allowance, and none is counted that did not happen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from sampan.api.call import Call, User
from sampan.api.errors import (
    StatusError,
    bad_request,
    conflict,
    forbidden,
    method_not_allowed,
)
from sampan.api.obj import Body, Key, Obj, encode
from sampan.api.resource import ResourceType
from sampan.apiserver import deletion, stages
from sampan.apiserver.pages import obj_of
from sampan.lib.clock import rfc3339
from sampan.lib.selectors import SelectorError, from_label_selector
from sampan.store.base import Conflict, Delete, Put

if TYPE_CHECKING:
    from sampan.apiserver.endpoint import ApiServer

_BUDGETS = "poddisruptionbudgets.policy"
_VERSIONS = ("policy/v1", "policy/v1beta1")
_TRIES = 100  # each is lost against a write that was done
_MOST_DISRUPTED = 2000
_VIOLATES = "Cannot evict pod as it would violate the pod's disruption budget."
_TWO = (
    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not "
    "support."
)


async def evict(api: ApiServer, user: User, call: Call, t: ResourceType) -> Obj:
    """Delete the pod where its budget allows it. Raises StatusError 429 where it does not."""
    if call.verb != "create":
        raise method_not_allowed("pods/eviction", call.verb)
    body: Any = call.body
    if not isinstance(body, dict) or body.get("kind", "Eviction") != "Eviction":
        raise bad_request("the object provided is unrecognized (must be of type Eviction)")
    if body.get("apiVersion", _VERSIONS[0]) not in _VERSIONS:
        raise bad_request(f"{body['apiVersion']} is no version of Eviction: {', '.join(_VERSIONS)}")
    meta = body.get("metadata") or {}
    if meta.get("name", call.name) != call.name:
        raise bad_request("name in URL does not match name in Eviction object")
    inner = Call(
        verb="delete", resource=call.resource, namespace=call.namespace, name=call.name,
        options=call.options, body=body.get("deleteOptions") or {},
    )  # fmt: skip
    options = deletion.options_of(inner)
    is_dry = stages.is_dry(call) or stages.is_dry(inner)
    strict = bool((options.get("preconditions") or {}).get("resourceVersion"))
    for _ in range(_TRIES):
        pod = await api.read(call, t)
        _check(pod, options)
        puts = await _allowance(api, pod)
        if not is_dry:
            try:
                await _commit(api, t, pod, options, puts)
            except Conflict:
                if strict:
                    break
                continue
        done = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
                "code": 201}  # fmt: skip
        return Obj.of(pod.key, done, 0)
    raise conflict("pods", call.name, stages.MODIFIED)


def _check(pod: Obj, options: Body) -> None:
    wanted = options.get("preconditions") or {}
    for field, label, have, why in (
        ("uid", "UID", pod.uid, "deleted and then recreated"),
        ("resourceVersion", "ResourceVersion", str(pod.revision), "modified"),
    ):
        if wanted.get(field) and wanted[field] != have:
            raise conflict(
                "Pod", pod.name,
                f"the {label} in the precondition ({wanted[field]}) does not match the {label} in "
                f"record ({have}). The object might have been {why}",
            )  # fmt: skip


async def _commit(
    api: ApiServer, t: ResourceType, pod: Obj, options: Body, puts: list[Put]
) -> None:
    """All of it at once, over exactly what was read. Raises Conflict."""
    now = api.clock.now()
    body: Body = orjson.loads(pod.raw)
    status = body.setdefault("status", {})
    held = [c for c in status.get("conditions") or () if c["type"] != "DisruptionTarget"]
    status["conditions"] = [*held, {
        "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting", "lastProbeTime": None,
        "lastTransitionTime": rfc3339(now),
    }]  # fmt: skip
    marked = deletion.marked(t, Obj.of(pod.key, body, pod.revision), options, now)
    if marked is None:
        return  # it is on its way out already
    if stages.is_finalized(marked, t):
        await api.store.commit(*puts, Delete(pod.key.path, expect=pod.revision))
    else:
        await api.store.commit(*puts, Put(pod.key.path, encode(marked), expect=pod.revision))


async def _allowance(api: ApiServer, pod: Obj) -> list[Put]:
    """What is to be written into the pod's budget for it to go; nothing where it needs no leave."""
    if pod.is_deleting or pod.status.get("phase") in ("Succeeded", "Failed", "Pending"):
        return []
    found = [
        b for r in (await api.store.range(Key.prefix(_BUDGETS, pod.namespace))).records
        if _guards(b := obj_of(r), pod)
    ]  # fmt: skip
    if len(found) > 1:
        raise StatusError(500, "InternalError", _TWO)
    if not found or (not _is_ready(pod) and _may_go_unhealthy(found[0])):
        return []
    return [_counted_down(found[0], pod.name, api.clock.now())]


def _guards(budget: Obj, pod: Obj) -> bool:
    try:
        return from_label_selector(budget.spec.get("selector")).matches(pod.labels)
    except SelectorError:
        return False


def _is_ready(pod: Obj) -> bool:
    return any(
        c["type"] == "Ready" and c["status"] == "True" for c in pod.status.get("conditions") or ()
    )


def _may_go_unhealthy(budget: Obj) -> bool:
    """A pod that is not ready keeps up nothing."""
    if budget.spec.get("unhealthyPodEvictionPolicy") == "AlwaysAllow":
        return True
    wanted = int(budget.status.get("desiredHealthy", 0))
    return 0 < wanted <= int(budget.status.get("currentHealthy", 0))


def _counted_down(budget: Obj, pod: str, now: float) -> Put:
    status = budget.status
    allowed = int(status.get("disruptionsAllowed", 0))
    disrupted = status.get("disruptedPods") or {}
    if int(status.get("observedGeneration", 0)) < int(budget.meta.get("generation", 0)):
        why = f"The disruption budget {budget.name} is still being processed by the server."
        raise _refused(why, retry_after=10)
    if len(disrupted) > _MOST_DISRUPTED:
        raise forbidden(
            _BUDGETS, budget.name,
            "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
        )  # fmt: skip
    if allowed <= 0:
        raise _refused(
            f"The disruption budget {budget.name} needs {status.get('desiredHealthy', 0)} healthy "
            f"pods and has {status.get('currentHealthy', 0)} currently"
        )
    new: Body = orjson.loads(budget.raw)
    new["status"] = {
        **status, "disruptionsAllowed": allowed - 1,
        "disruptedPods": {**disrupted, pod: rfc3339(now)},
    }  # fmt: skip
    if allowed == 1:
        new["status"]["conditions"] = [
            _used_up(c, now) if c["type"] == "DisruptionAllowed" else c
            for c in status.get("conditions") or ()
        ]
    return Put(budget.key.path, encode(new), expect=budget.revision)


def _used_up(condition: Body, now: float) -> Body:
    changed = {"status": "False", "reason": "InsufficientPods", "lastTransitionTime": rfc3339(now)}
    return {**condition, **changed}


def _refused(why: str, *, retry_after: int | None = None) -> StatusError:
    causes = [{"reason": "DisruptionBudget", "message": why}]
    return StatusError(
        429, "TooManyRequests", _VIOLATES, details={"causes": causes}, retry_after=retry_after
    )
