"""Calls on a shape of something that is stored in another one: they are carried out on what is
stored, and the answers are shown in the shape that was asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson

from sampan.api.call import APPLY_PATCH, Call, User
from sampan.api.errors import StatusError, bad_request, method_not_allowed
from sampan.api.obj import Body, Event, Key, Obj, Page
from sampan.api.resource import Alias, ResourceType
from sampan.apiserver import stages, watching
from sampan.apiserver.stages import Write
from sampan.lib.selectors import SelectorError, parse_fields

if TYPE_CHECKING:
    from sampan.apiserver.endpoint import ApiServer

_TRIES = 100  # each is lost against a write that was done


def _shown(t: ResourceType, alias: Alias, obj: Obj) -> Obj:
    body = obj.body
    if body.get("kind") != t.kind:
        return obj  # a Status
    key = Key(t.resource, obj.namespace, obj.name)
    return Obj.of(key, alias.shown(body), obj.revision)


def _inner(t: ResourceType, alias: Alias, call: Call) -> Call:
    """The call on what is stored. Raises StatusError 400."""
    options = call.options
    if options.get("fieldSelector"):
        try:
            terms = parse_fields(options["fieldSelector"])
        except SelectorError as e:
            raise bad_request(str(e)) from e
        said = []
        for field, op, value in terms:
            if field not in alias.fields:
                raise bad_request(f"field label not supported: {field}")
            said.append(f"{alias.fields[field]}{op}{value}")
        options = {**options, "fieldSelector": ",".join(said)}
    return replace(call, resource=alias.of, version="", options=options)


def _decoded(api: ApiServer, user: User, call: Call, t: ResourceType, body: Body) -> Body:
    """*body* checked in the shape it came in, as it is stored. Raises StatusError."""
    assert t.alias is not None
    w = Write(api=api, user=user, call=call, t=t, verb=call.verb, body=body)
    stages.decode(w)
    causes = t.rules.validate(w.body)
    if call.verb == "create":
        causes += t.rules.validate_create(w.body)
    if causes:
        raise w.invalid(causes)
    return t.alias.stored(w.body)


async def handle(api: ApiServer, user: User, call: Call, t: ResourceType) -> Obj | Page:
    """Every verb but watch."""
    alias = t.alias
    assert alias is not None
    stored = api.registry.get(alias.of)
    assert stored is not None
    inner = _inner(t, alias, call)
    if call.subresource and call.subresource not in t.subresources:
        raise method_not_allowed(f"{t.resource}/{call.subresource}", call.verb)
    if call.verb not in (("get", "patch", "update") if call.subresource else t.verbs):
        raise method_not_allowed(t.resource, call.verb)
    if call.verb == "patch":
        return await _patch(api, user, call, t)
    if call.verb in ("create", "update"):
        inner.body = _decoded(api, user, call, t, call.body)
    answer = await api.carry_out(user, inner, stored)
    if isinstance(answer, Page):
        return answer._replace(items=[_shown(t, alias, o) for o in answer.items])
    return _shown(t, alias, answer)


async def _patch(api: ApiServer, user: User, call: Call, t: ResourceType) -> Obj:
    """The patch is of the shape it came in: so is what it is applied to."""
    alias = t.alias
    assert alias is not None
    stored = api.registry.get(alias.of)
    assert stored is not None
    if call.content_type == APPLY_PATCH:
        config: Any = call.body
        if not isinstance(config, dict) or config.get("apiVersion") != t.api_version:
            raise bad_request("Incorrect version specified in apply patch")
        applied = replace(_inner(t, alias, call), body=alias.stored(config))
        done = await api.carry_out(user, applied, stored)
        call.is_creation = applied.is_creation
        assert isinstance(done, Obj)
        return _shown(t, alias, done)
    inner = replace(_inner(t, alias, call), verb="update")
    for tries in range(_TRIES):
        old = await api.read(inner, stored)
        body = api.patched(call, t.definition, alias.shown(old.body))
        inner.body = _decoded(api, user, call, t, body)
        named = str(inner.body["metadata"].get("resourceVersion") or "")
        try:
            return _shown(t, alias, await api.update(user, inner, stored))
        except StatusError as e:
            # What the patch itself names must hold; what it was made of may have been overtaken.
            if e.code != 409 or named != str(old.revision) or tries == _TRIES - 1:
                raise
    raise AssertionError("not reached")


def watch(api: ApiServer, call: Call, t: ResourceType) -> AsyncIterator[Event]:
    """Problems of the call itself are raised at once, later ones by the iteration."""
    alias = t.alias
    assert alias is not None
    stored = api.registry.get(alias.of)
    assert stored is not None
    inner = _inner(t, alias, call)
    events = watching.events(api.store, stored, inner.namespace, inner.options)
    return _events(t, alias, events)


async def _events(
    t: ResourceType, alias: Alias, events: AsyncIterator[Event]
) -> AsyncIterator[Event]:
    try:
        async for event in events:
            if event.type == "BOOKMARK":
                body: Body = orjson.loads(event.obj.raw)
                body["apiVersion"] = t.api_version
                yield Event(event.type, Obj.of(event.obj.key, body, event.obj.revision))
            else:
                yield Event(event.type, _shown(t, alias, event.obj))
    finally:
        close = getattr(events, "aclose", None)
        if close is not None:
            await close()
