"""Deletion: at once, gracefully, or when the last finalizer is gone."""

from __future__ import annotations

from typing import Any

import orjson

from sampan.api.call import Call
from sampan.api.errors import bad_request, conflict, invalid, not_found
from sampan.api.obj import Body, Key, Obj, encode, splice
from sampan.api.resource import ResourceType
from sampan.api.rules.field import not_supported
from sampan.apiserver.pages import last_state, obj_of
from sampan.apiserver.stages import Write, is_finalized, released
from sampan.lib.clock import parse_rfc3339, rfc3339
from sampan.store.base import Conflict, Delete, Put

ORPHAN = "orphan"
FOREGROUND = "foregroundDeletion"
_POLICIES = ("Background", "Foreground", "Orphan")
_TRIES = 100  # each is lost against a write that was done
_RETURNED = ("pods", "serviceaccounts", "persistentvolumeclaims", "services", "podtemplates",
             "resourcequotas", "persistentvolumes")  # fmt: skip


def options_of(call: Call) -> Body:
    """DeleteOptions of the body, with query parameters in their place. Raises StatusError."""
    body: Any = call.body if call.body is not None else {}
    if not isinstance(body, dict):
        raise bad_request("the body of a delete must be DeleteOptions")
    options = dict(body)
    query = call.options
    if "gracePeriodSeconds" in query:
        try:
            options["gracePeriodSeconds"] = int(query["gracePeriodSeconds"])
        except ValueError:
            raise bad_request("gracePeriodSeconds must be a number") from None
    if "propagationPolicy" in query:
        options["propagationPolicy"] = query["propagationPolicy"]
    if "orphanDependents" in query:
        options["orphanDependents"] = query["orphanDependents"].lower() in ("1", "true", "t")
    if options.get("dryRun"):
        if options["dryRun"] != ["All"]:
            causes = [not_supported("dryRun", options["dryRun"], ["All"])]
            raise invalid("meta.k8s.io", "DeleteOptions", "", causes)
        call.options = {**query, "dryRun": "All"}
    policy = options.get("propagationPolicy")
    if policy is not None and policy not in _POLICIES:
        causes = [not_supported("propagationPolicy", policy, sorted(_POLICIES))]
        raise invalid("meta.k8s.io", "DeleteOptions", "", causes)
    if policy is not None and options.get("orphanDependents") is not None:
        raise bad_request("orphanDependents and deletionPropagation cannot be both set")
    grace = options.get("gracePeriodSeconds")
    if grace is not None and (not isinstance(grace, int) or isinstance(grace, bool)):
        raise bad_request("gracePeriodSeconds must be a number")
    return options


def check_preconditions(t: ResourceType, old: Obj, options: Body) -> None:
    wanted = options.get("preconditions") or {}
    for field, label, have in (
        ("uid", "UID", old.uid),
        ("resourceVersion", "ResourceVersion", str(old.revision)),
    ):
        if wanted.get(field) and wanted[field] != have:
            raise conflict(
                t.resource, old.name,
                f"Precondition failed: {label} in precondition: {wanted[field]}, "
                f"{label} in object meta: {have}",
            )  # fmt: skip


def _finalizers(old: list[str], options: Body) -> list[str]:
    policy = options.get("propagationPolicy")
    if policy is None and options.get("orphanDependents") is not None:
        policy = "Orphan" if options["orphanDependents"] else "Background"
    if policy is None:
        return old
    kept = [f for f in old if f not in (ORPHAN, FOREGROUND)]
    if policy == "Orphan":
        kept.append(ORPHAN)
    elif policy == "Foreground":
        kept.append(FOREGROUND)
    return kept


def _grace(body: Body, options: Body) -> int:
    """Seconds a pod gets: none where it runs nowhere or has ended."""
    spec, status = body.get("spec") or {}, body.get("status") or {}
    if not spec.get("nodeName") or status.get("phase") in ("Failed", "Succeeded"):
        return 0
    given = options.get("gracePeriodSeconds")
    if given is None:
        given = spec.get("terminationGracePeriodSeconds", 30)
    return int(given) if given >= 0 else 1


def marked(t: ResourceType, old: Obj, options: Body, now: float) -> Body | None:
    """The object as this deletion leaves it; None where nothing changes."""
    body: Body = orjson.loads(old.raw)
    meta = body["metadata"]
    before = list(meta.get("finalizers") or ())
    finalizers = _finalizers(before, options)
    if finalizers:
        meta["finalizers"] = finalizers
    else:
        meta.pop("finalizers", None)
    grace = _grace(body, options) if t.graceful else 0
    if "deletionTimestamp" in meta:
        current = int(meta.get("deletionGracePeriodSeconds") or 0)
        if grace < current:
            due = parse_rfc3339(meta["deletionTimestamp"]) - current + grace
            meta["deletionTimestamp"] = rfc3339(max(due, now) if grace == 0 else due)
            meta["deletionGracePeriodSeconds"] = grace
        elif finalizers == before:
            return None
    else:
        meta["deletionTimestamp"] = rfc3339(now + grace)
        meta["deletionGracePeriodSeconds"] = grace
        if meta.get("generation"):
            meta["generation"] += 1
    if t.resource == "namespaces":
        body["status"] = {**(body.get("status") or {}), "phase": "Terminating"}
    return body


def _success(t: ResourceType, old: Obj) -> Obj:
    details: Body = {"name": old.name, "kind": t.plural, "uid": old.uid}
    if t.group:
        details["group"] = t.group
    body = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "details": details}  # fmt: skip
    return Obj.of(old.key, body, 0)


async def delete(w: Write) -> Obj:
    """Carry out one deletion: the object where it lives on for a while, else its last state or a
    Status, as Kubernetes answers for its kind."""
    t, store = w.t, w.api.store
    options = options_of(w.call)
    key = Key(t.resource, w.namespace, w.call.name)
    for _ in range(_TRIES):
        record = await store.get(key.path)
        if record is None:
            raise not_found(t.resource, key.name)
        old = w.old = obj_of(record)
        check_preconditions(t, old, options)
        w.body = old.body
        for plugin in w.api.admission:
            await plugin.check(w)
        body = marked(t, old, options, w.api.clock.now())
        if body is None:
            return old
        try:
            if is_finalized(body, t):
                if not w.is_dry:
                    also = await released(w.api, old)
                    revision = await store.commit(Delete(key.path, expect=old.revision), *also)
                    if t.resource in _RETURNED:
                        return last_state(record, revision)
                return old if t.resource in _RETURNED else _success(t, old)
            value = encode(body)
            if w.is_dry:
                return Obj(key, splice(value, old.revision), old.revision)
            revision = await store.commit(Put(key.path, value, expect=old.revision))
            return Obj(key, splice(value, revision), revision)
        except Conflict:
            continue  # somebody else wrote: decide again on what is there now
    raise conflict(t.resource, key.name, "the object is being changed all the time; try again")
