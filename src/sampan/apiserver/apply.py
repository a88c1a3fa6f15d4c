"""Server-side apply: PATCH with ``application/apply-patch+yaml``.

The client sends what it wants of an object and a name (``fieldManager``). What it sends is its own
from then on; what it sent before and sends no more goes, unless somebody else owns it; what another
manager owns and it would change is a conflict, unless ``force`` takes it over. An object that is
not there is created.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson

from sampan.api import managed
from sampan.api.call import APPLY_PATCH, Call, User
from sampan.api.errors import Cause, StatusError, bad_request, conflict, invalid, not_found
from sampan.api.managed import Conflict, Manager, Managers
from sampan.api.obj import Body, Key, Obj
from sampan.api.resource import ResourceType
from sampan.api.rules.field import forbidden, required
from sampan.apiserver import stages
from sampan.apiserver.authz import attributes_of
from sampan.apiserver.pages import obj_of
from sampan.apiserver.stages import MODIFIED
from sampan.lib.clock import rfc3339
from sampan.schema import fieldsets
from sampan.schema.shapes import MissingKey, Shape
from sampan.schema.walk import TypeMismatch
from sampan.store.base import Conflict as Overtaken

if TYPE_CHECKING:
    from sampan.apiserver.endpoint import ApiServer

_KUBECTL = "kubectl"
_LONGEST = 128  # bytes of a manager's name
_TRIES = 100  # each is lost against a write that was done


def check_options(call: Call) -> None:
    """What a patch says of its manager. Raises StatusError 422."""
    name, force = call.options.get("fieldManager", ""), call.options.get("force", "")
    causes: list[Cause] = []
    if call.content_type == APPLY_PATCH:
        if not name:
            causes.append(required("fieldManager", "is required for apply patch"))
    elif force:
        causes.append(forbidden("force", "may not be specified for non-apply patch"))
    if len(name.encode()) > _LONGEST:
        text = f"Too long: may not be more than {_LONGEST} bytes"
        causes.append(Cause("fieldManager", "FieldValueTooLong", text))
    elif not name.isprintable():
        text = f'Invalid value: "{name}": should only contain printable characters'
        causes.append(Cause("fieldManager", "FieldValueInvalid", text))
    if causes:
        raise invalid("meta.k8s.io", "PatchOptions", "", causes)


async def apply(
    api: ApiServer, user: User, call: Call, t: ResourceType, *, tracked_as: str = ""
) -> Obj:
    """The object after the call's configuration was applied to it. Raises StatusError."""
    check_options(call)
    config = _configuration(api, call, t)
    raw = orjson.dumps(config)
    warned = len(call.warnings)
    for _ in range(_TRIES):
        del call.warnings[warned:]
        record = await api.store.get(Key(t.resource, call.namespace, call.name).path)
        try:
            if record is None:
                return await _create(api, user, call, t, orjson.loads(raw))
            return await _change(
                api, user, call, t, old=obj_of(record), config=orjson.loads(raw),
                tracked_as=tracked_as,
            )  # fmt: skip
        except Overtaken:
            continue
        except StatusError as e:
            if record is not None or e.reason != "AlreadyExists":
                raise
    raise conflict(t.resource, call.name, MODIFIED)


def _configuration(api: ApiServer, call: Call, t: ResourceType) -> Body:
    """What is applied, checked and in the shape of its kind. Raises StatusError."""
    config: Any = call.body
    if not isinstance(config, dict) or not config.get("kind"):
        raise bad_request(f"Object 'Kind' is missing in '{orjson.dumps(config).decode()}'")
    version, kind = config.get("apiVersion"), config["kind"]
    if version != t.api_version:
        raise bad_request(
            "Incorrect version specified in apply patch. Specified patch version: "
            f"{version or ''}, expected: {t.api_version}"
        )
    if kind != t.kind:
        raise bad_request(
            f'{kind} in version "{version}" does not match the resource: the object must be of '
            f'kind "{t.kind}", version "{t.api_version}"'
        )
    meta = config.get("metadata")
    if isinstance(meta, dict) and meta.get("managedFields"):
        raise bad_request("metadata.managedFields must be nil")
    _tell_repeated(call)
    before = orjson.dumps(config)
    try:
        unknown = api.schemas.decode(t.definition, config)
    except TypeMismatch as e:
        raise _untyped(call, t, str(e)) from None
    if unknown:
        told = [_declared(api.shape(t), orjson.loads(before), path) for path in unknown]
        said = told[0] if len(told) == 1 else "errors:\n  " + "\n  ".join(told)
        raise _untyped(call, t, said)
    meta = config.setdefault("metadata", {})
    if meta.setdefault("name", call.name) != call.name:
        raise bad_request(
            f"the name of the object ({meta['name']}) does not match the name on the URL "
            f"({call.name})"
        )
    if t.namespaced:
        meta.setdefault("namespace", call.namespace)
    return config


def _tell_repeated(call: Call) -> None:
    how = call.options.get("fieldValidation", "") or "Warn"
    if call.repeated and how == "Strict":
        raise bad_request(f"error strict decoding YAML: {', '.join(call.repeated)}")
    if how != "Ignore":
        call.warnings += call.repeated
    call.repeated = []


def _untyped(call: Call, t: ResourceType, why: str) -> StatusError:
    what = f"{call.namespace}/{call.name}; {t.api_version}, Kind={t.kind}"
    return StatusError(500, "", f"failed to create typed patch object ({what}): {why}")


def _declared(shape: Shape, config: Any, path: str) -> str:
    """The complaint about an unknown field, its *path* spelled with the keys of lists."""
    spelled = ""
    value: Any = config
    for step in path.replace("[", ".[").split("."):
        if step.startswith("[") and isinstance(value, list):
            at = int(step[1:-1])
            value = value[at]
            keys = {k: value[k] for k in shape.keys if isinstance(value, dict) and k in value}
            said = ",".join(f"{k}={orjson.dumps(v).decode()}" for k, v in keys.items())
            spelled += f"[{said or at}]"
            shape = shape.item
        else:
            value = value.get(step) if isinstance(value, dict) else None
            spelled += f".{step}"
            shape = shape.field(step)
    return f"{spelled}: field not declared in schema"


async def _create(api: ApiServer, user: User, call: Call, t: ResourceType, config: Body) -> Obj:
    if call.subresource:
        raise not_found(t.resource, call.name)
    inner = replace(call, verb="create", body=config, content_type="application/json")
    api.authorizer.require(user, attributes_of(replace(inner, name="")))
    if config["metadata"].get("uid"):
        raise conflict(
            t.resource, call.name,
            f"Precondition failed: UID in precondition: {config['metadata']['uid']}, "
            "UID in object meta: ",
        )  # fmt: skip
    manager = _manager(call, t)
    try:
        made = managed.apply(
            api.shape(t), {}, {}, stages.bare(config), manager=manager, version=t.api_version,
            now=rfc3339(api.clock.now()), force=False, ignored=stages.ignored(t, ""),
        )  # fmt: skip
    except MissingKey as e:
        raise _untyped(call, t, str(e)) from None
    done = await api.create(user, inner, t, managers=made.managers)
    call.is_creation = True
    return done


def _manager(call: Call, t: ResourceType, subresource: str = "") -> Manager:
    return Manager.of(managed.APPLY, call.options["fieldManager"], t.api_version, subresource)


async def _change(
    api: ApiServer, user: User, call: Call, t: ResourceType, *, old: Obj, config: Body,
    tracked_as: str,
) -> Obj:  # fmt: skip
    shape, now = api.shape(t), rfc3339(api.clock.now())
    live = stages.bare(old.body)
    subresource = tracked_as or call.subresource
    ignored = stages.ignored(t, call.subresource)
    meta = config["metadata"]
    revision = meta.pop("resourceVersion", None)
    try:
        managers = managed.decode(old.meta.get("managedFields")) or managed.first_apply(
            shape, live, version=t.api_version, now=now
        )

        def applied(*, force: bool) -> managed.Applied:
            return managed.apply(
                shape, managers, live, config, manager=_manager(call, t, subresource),
                version=t.api_version, now=now, force=force, ignored=ignored,
            )  # fmt: skip

        force = call.options.get("force", "").lower() in ("1", "true", "t")
        done = applied(force=force)
        if done.conflicts:
            if not _is_excused(api, call, t, live, done.conflicts):
                raise _refusal(done.conflicts)
            done = applied(force=True)
    except MissingKey as e:
        raise _untyped(call, t, str(e)) from None
    body = done.body
    if call.options["fieldManager"] == _KUBECTL and managed.last_applied(live):
        body = managed.annotated(body, config)
    body = orjson.loads(orjson.dumps(body))
    if revision is not None:
        body["metadata"]["resourceVersion"] = revision
    return await _write(api, user, call, t, old=old, body=body, managers=done.managers)


async def _write(
    api: ApiServer, user: User, call: Call, t: ResourceType, *, old: Obj, body: Body,
    managers: Managers,
) -> Obj:  # fmt: skip
    inner = replace(call, verb="update", body=body, content_type="application/json")
    return await api.replace(user, inner, t, old, body, managers=managers)


def _is_excused(
    api: ApiServer, call: Call, t: ResourceType, live: Body, conflicts: tuple[Conflict, ...]
) -> bool:
    """Whether kubectl takes over what it had applied on its own before. Raises MissingKey."""
    text = managed.last_applied(live)
    if call.options["fieldManager"] != _KUBECTL or not text:
        return False
    try:
        before = orjson.loads(text)
        api.schemas.decode(t.definition, before)
    except (ValueError, TypeMismatch, AttributeError):
        return False
    return managed.excused(api.shape(t), conflicts, before, live)


def _refusal(conflicts: tuple[Conflict, ...]) -> StatusError:
    causes = [
        Cause(path, "FieldManagerConflict", f"conflict with {one}")
        for one in conflicts
        for path in fieldsets.paths(one.fields)
    ]
    return StatusError(409, "Conflict", managed.conflict_message(conflicts), causes=causes)
