"""Subresources that are more than a part of their object: scale, binding, token; and the kinds
that are answered but never stored."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson

from sampan.api.call import APPLY_PATCH, Call, User
from sampan.api.errors import (
    StatusError,
    bad_request,
    conflict,
    internal,
    invalid,
    method_not_allowed,
    not_found,
)
from sampan.api.obj import Body, Key, Obj, Page, encode
from sampan.api.resource import ResourceType, ScalePaths
from sampan.api.rules.field import forbidden, not_supported, required
from sampan.api.rules.field import invalid as invalid_field
from sampan.apiserver import apply, stages
from sampan.apiserver.authn import Reference
from sampan.apiserver.eviction import evict
from sampan.apiserver.reviews import review
from sampan.apiserver.stages import MODIFIED, Write
from sampan.lib.clock import rfc3339
from sampan.lib.selectors import format_label_selector
from sampan.store.base import Conflict, Put

if TYPE_CHECKING:
    from sampan.apiserver.endpoint import ApiServer

_SCALE = "io.k8s.api.autoscaling.v1.Scale"
_MIN_TOKEN, _MAX_TOKEN = 600, 1 << 32
_TRIES = 100  # each is lost against a write that was done
Handler = Callable[["ApiServer", User, Call, ResourceType], Awaitable[Obj | Page]]


def _path(body: Body, path: str) -> Any:
    value: Any = body
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def scale_of(t: ResourceType, obj: Obj) -> Body:
    """The autoscaling/v1 Scale of an object."""
    paths = t.scale or ScalePaths()
    meta: Body = {k: obj.meta[k] for k in ("name", "namespace", "uid", "creationTimestamp")
            if k in obj.meta}  # fmt: skip
    meta["resourceVersion"] = str(obj.revision)
    status: Body = {"replicas": int(_path(obj.body, paths.status_replicas) or 0)}
    selector = _path(obj.body, paths.selector) if paths.selector else None
    if selector:
        if isinstance(selector, str):
            status["selector"] = selector
        else:
            form = {"matchLabels": selector} if paths.is_map else selector
            status["selector"] = format_label_selector(form)
    wanted = _path(obj.body, paths.spec_replicas)
    spec: Body = {"replicas": int(wanted)} if wanted else {}
    return {"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": meta, "spec": spec,
            "status": status}  # fmt: skip


async def _scale(api: ApiServer, user: User, call: Call, t: ResourceType) -> Obj:
    old = await api.read(call, t)
    if call.verb == "get":
        return Obj.of(old.key, scale_of(t, old), old.revision)
    if call.verb not in ("update", "patch"):
        raise method_not_allowed(f"{t.resource}/scale", call.verb)
    if call.content_type == APPLY_PATCH:
        return await _apply_scale(api, user, call, t)
    for _ in range(_TRIES):
        scale = scale_of(t, old)
        body: Any = api.patched(call, _SCALE, scale) if call.verb == "patch" else call.body
        if not isinstance(body, dict) or body.get("kind", "Scale") != "Scale":
            raise bad_request("the object provided is unrecognized (must be of type Scale)")
        meta = body.get("metadata") or {}
        if meta.get("name", call.name) != call.name:
            raise bad_request("the name of the object does not match the name on the URL")
        given = meta.get("resourceVersion")
        if given and given != str(old.revision):
            raise conflict(t.resource, call.name, MODIFIED)
        replicas = (body.get("spec") or {}).get("replicas", 0)
        if not isinstance(replicas, int) or isinstance(replicas, bool):
            raise bad_request("json: cannot unmarshal into Go struct field ScaleSpec.spec.replicas "
                              "of type int32")  # fmt: skip
        if replicas < 0:
            text = "must be greater than or equal to 0"
            raise invalid("autoscaling", "Scale", call.name,
                          [invalid_field("spec.replicas", replicas, text)])  # fmt: skip
        new: Body = orjson.loads(old.raw)
        new.setdefault("spec", {})["replicas"] = replicas
        inner = Call(
            verb="update", resource=call.resource, version=call.version, body=new,
            namespace=call.namespace, name=call.name, options=call.options,
            user_agent=call.user_agent,
        )  # fmt: skip
        w = Write(
            api=api, user=user, call=inner, t=t, verb="update", body=new, old=old,
            tracked_as="scale",
        )  # fmt: skip
        await stages.run(stages.UPDATE, w)
        try:
            done = await stages.commit_update(w)
        except Conflict:
            if given and call.verb == "update":
                break  # the writer saw an older state; a patch is made anew of the newest
            old = await api.read(call, t)
            continue
        return Obj.of(done.key, scale_of(t, done), done.revision)
    raise conflict(t.resource, call.name, MODIFIED)


async def _apply_scale(api: ApiServer, user: User, call: Call, t: ResourceType) -> Obj:
    """A Scale that is applied says how many replicas its manager wants of the object."""
    body: Any = call.body
    if not isinstance(body, dict) or body.get("kind") != "Scale":
        raise bad_request("the object provided is unrecognized (must be of type Scale)")
    config: Body = {
        "apiVersion": t.api_version, "kind": t.kind,
        "metadata": {"name": (body.get("metadata") or {}).get("name", call.name)},
    }  # fmt: skip
    if "replicas" in (body.get("spec") or {}):
        config["spec"] = {"replicas": body["spec"]["replicas"]}
    inner = replace(call, subresource="", body=config)
    done = await apply.apply(api, user, inner, t, tracked_as="scale")
    return Obj.of(done.key, scale_of(t, done), done.revision)


async def _binding(api: ApiServer, user: User, call: Call, t: ResourceType) -> Obj:
    """Give a pod its node: one commit sets spec.nodeName and the PodScheduled condition."""
    if call.verb != "create":
        raise method_not_allowed("pods/binding", call.verb)
    body: Any = call.body
    target = body.get("target") if isinstance(body, dict) else None
    if not isinstance(target, dict) or not target.get("name"):
        raise invalid("", "Binding", call.name, [required("target.name")])
    if target.get("kind", "") not in ("", "Node"):
        causes = [not_supported("target.kind", target["kind"], ["Node", "<empty>"])]
        raise invalid("", "Binding", call.name, causes)
    meta = body.get("metadata") or {}
    if meta.get("name", call.name) != call.name:
        raise bad_request("the name of the object does not match the name on the URL")
    node = str(target["name"])
    for _ in range(_TRIES):
        old = await api.read(call, t)
        if meta.get("uid") and meta["uid"] != old.uid:
            text = f"Precondition failed: UID in precondition: {meta['uid']}, "
            raise conflict("pods", call.name, text + f"UID in object meta: {old.uid}")
        if old.is_deleting:
            why = f"pod {call.name} is being deleted, cannot be assigned to a host"
            raise conflict("pods/binding", call.name, why)
        if old.spec.get("nodeName"):
            why = f'pod {call.name} is already assigned to node "{old.spec["nodeName"]}"'
            raise conflict("pods/binding", call.name, why)
        if old.spec.get("schedulingGates"):
            raise invalid("", "Pod", call.name, [
                forbidden("spec.schedulingGates", "cannot assign a node to a gated pod")
            ])  # fmt: skip
        new: Body = orjson.loads(old.raw)
        new["spec"]["nodeName"] = node
        if meta.get("annotations"):
            held = new["metadata"].get("annotations") or {}
            new["metadata"]["annotations"] = {**held, **meta["annotations"]}
        status = new.setdefault("status", {})
        scheduled: Body = {
            "type": "PodScheduled", "status": "True", "lastProbeTime": None,
            "lastTransitionTime": rfc3339(api.clock.now()),
            "observedGeneration": new["metadata"].get("generation", 1),
        }  # fmt: skip
        others = [c for c in status.get("conditions") or () if c["type"] != "PodScheduled"]
        status["conditions"] = [*others, scheduled]
        if not stages.is_dry(call):
            try:
                await api.store.commit(Put(old.key.path, encode(new), expect=old.revision))
            except Conflict:
                continue
        done = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
                "code": 201}  # fmt: skip
        return Obj.of(old.key, done, 0)
    raise conflict("pods/binding", call.name, MODIFIED)


async def _token(api: ApiServer, user: User, call: Call, t: ResourceType) -> Obj:
    """A TokenRequest: a token of a service account, bound to a pod where asked."""
    if call.verb != "create":
        raise method_not_allowed("serviceaccounts/token", call.verb)
    account = await api.read(call, t)
    body: Any = call.body if isinstance(call.body, dict) else {}
    spec = body.get("spec") or {}
    seconds = spec.get("expirationSeconds", 3600)
    if not _MIN_TOKEN <= seconds <= _MAX_TOKEN:
        text = (
            "may not specify a duration less than 10 minutes"
            if seconds < _MIN_TOKEN
            else "may not specify a duration larger than 2^32 seconds"
        )
        causes = [invalid_field("spec.expirationSeconds", seconds, text)]
        raise invalid("authentication.k8s.io", "TokenRequest", call.name, causes)
    if api.tokens is None:
        raise internal("this server issues no tokens")
    pod = node = secret = None
    bound = spec.get("boundObjectRef")
    if bound:
        resource = {"Pod": "pods", "Secret": "secrets"}.get(bound.get("kind", ""))
        if resource is None:
            raise bad_request(f"cannot bind token to object of type {bound.get('kind', '')}")
        found = await api.find(resource, call.namespace, bound.get("name", ""))
        if found is None:
            raise not_found(resource, bound.get("name", ""))
        if bound.get("uid") and bound["uid"] != found.uid:
            raise conflict(
                resource, found.name,
                f"the UID in the bound object reference ({bound['uid']}) does not match the UID "
                f"in record. The object might have been deleted and then recreated",
            )  # fmt: skip
        reference = Reference(found.name, found.uid)
        if resource == "pods":
            if found.spec.get("serviceAccountName") != account.name:
                raise bad_request(
                    f"cannot bind token for serviceaccount {account.name!r} to pod running with "
                    f"different serviceaccount name.".replace("'", '"')
                )
            pod = reference
            where = await api.find("nodes", "", found.spec.get("nodeName", ""))
            node = Reference(where.name, where.uid) if where else None
        else:
            secret = reference
    issued = api.tokens.issue(
        namespace=call.namespace, name=account.name, uid=account.uid,
        audiences=spec.get("audiences") or (), seconds=int(seconds), pod=pod, node=node,
        secret=secret,
    )  # fmt: skip
    answer: Body = {
        "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1",
        "metadata": {"name": account.name, "namespace": account.namespace,
                     "creationTimestamp": rfc3339(api.clock.now())},
        "spec": {"expirationSeconds": int(seconds), "boundObjectRef": bound or None,
                 "audiences": spec.get("audiences") or list(api.tokens.audiences)},
        "status": {"token": issued.token, "expirationTimestamp": rfc3339(issued.expires)},
    }  # fmt: skip
    return Obj.of(account.key, answer, 0)


async def virtual(api: ApiServer, user: User, call: Call, t: ResourceType) -> Obj:
    """Answer a review."""
    w = Write(api=api, user=user, call=call, t=t, verb="create", body=call.body)
    stages.decode(w)
    causes = t.rules.validate(w.body)
    if causes:
        raise w.invalid(causes)
    if t.namespaced and (w.body["metadata"].get("namespace") or "") != call.namespace:
        raise StatusError(400, "BadRequest", "the namespace does not match the request's")
    status = await review(
        t.kind, w.body, user=user, namespace=call.namespace, authorizer=api.authorizer,
        tokens=api.tokens,
    )  # fmt: skip
    meta = {"creationTimestamp": None, **w.body["metadata"]}
    body = {**w.body, "metadata": meta, "status": status}
    return Obj.of(Key(t.resource, call.namespace, ""), body, 0)


SUBRESOURCES: dict[tuple[str, str], Handler] = {
    ("*", "scale"): _scale,
    ("pods", "binding"): _binding,
    ("pods", "eviction"): evict,
    ("serviceaccounts", "token"): _token,
}
