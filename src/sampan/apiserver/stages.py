"""A write on its way: named stages over one ``Write``.

create: decode, name, default, track, mutate, prepare, allocate, validate, admit, commit.
update and patch: (merge,) decode, carry over, default, track, mutate, prepare, allocate, validate,
admit, commit.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from sampan.api import managed
from sampan.api.call import STRATEGIC_PATCH, Call, User
from sampan.api.errors import (
    StatusError,
    already_exists,
    bad_request,
    conflict,
    invalid,
)
from sampan.api.obj import Body, Key, Obj, encode, splice
from sampan.api.resource import ResourceType
from sampan.api.rules.field import invalid as invalid_field
from sampan.api.rules.field import not_supported, required
from sampan.api.rules.meta import validate_meta, validate_meta_update
from sampan.api.strategic import go_text
from sampan.lib.clock import rfc3339
from sampan.schema.fieldsets import FieldSet, of_paths
from sampan.schema.shapes import MissingKey
from sampan.schema.walk import TypeMismatch
from sampan.store.base import Conflict, Delete, Put

if TYPE_CHECKING:
    from sampan.apiserver.endpoint import ApiServer

MODIFIED = (
    "the object has been modified; please apply your changes to the latest version and try again"
)
_UNTRACKED = frozenset(("managedFields", "resourceVersion"))
_STATUS = of_paths("status")
_NOT_OF_STATUS = of_paths(
    "spec", "metadata.labels", "metadata.ownerReferences", "metadata.generateName"
)
_GENERATED_BASE = 58  # of 63 characters; five are the suffix
_GENERATE_TRIES = 8


@dataclass(slots=True, kw_only=True)
class Write:
    """One create, update or delete. body: the new object; old: the current one; subresource:
    '' or status, finalize, ...; beside: what else its commit does (allocation, quotas); held: what
    is let go of after the commit; sent: the managed fields the client sent; managers: of an apply,
    who manages what; tracked_as: the subresource its manager is said to have written."""

    api: ApiServer
    user: User
    call: Call
    t: ResourceType
    verb: str
    body: Body
    old: Obj | None = None
    subresource: str = ""
    beside: list[Put | Delete] = field(default_factory=list)
    held: AsyncExitStack = field(default_factory=AsyncExitStack)
    sent: Any = None
    managers: managed.Managers | None = None
    tracked_as: str = ""

    @property
    def namespace(self) -> str:
        return self.call.namespace

    @property
    def name(self) -> str:
        return str(self.body.get("metadata", {}).get("name") or self.call.name)

    @property
    def is_dry(self) -> bool:
        return is_dry(self.call)

    def invalid(self, causes: list[Any]) -> StatusError:
        return invalid(self.t.group, self.t.kind, self.name, causes)


def is_dry(call: Call) -> bool:
    """Whether dryRun=All. Raises StatusError for another value."""
    value = call.options.get("dryRun", "")
    if value not in ("", "All"):
        causes = [not_supported("dryRun", [value], ["All"])]
        raise invalid("meta.k8s.io", f"{call.verb.capitalize()}Options", "", causes)
    return value == "All"


def decode(w: Write) -> None:
    """Check kind and shape; unknown fields are removed, and told as ``fieldValidation`` asks."""
    t, body = w.t, w.body
    if not isinstance(body, dict):
        raise bad_request(f"the object provided is unrecognized (must be of type {t.kind})")
    kind, version = body.setdefault("kind", t.kind), body.setdefault("apiVersion", t.api_version)
    if kind != t.kind or version != t.api_version:
        raise bad_request(
            f"{kind} in version {version!r} does not match the resource: "
            f"the object must be of kind {t.kind!r}, version {t.api_version!r}".replace("'", '"')
        )
    how = w.call.options.get("fieldValidation", "") or "Warn"
    if how not in ("Ignore", "Warn", "Strict"):
        causes = [not_supported("fieldValidation", how, ["Ignore", "Strict", "Warn"])]
        raise invalid("meta.k8s.io", f"{w.call.verb.capitalize()}Options", "", causes)
    try:
        unknown = w.api.schemas.decode(t.definition, body)
    except TypeMismatch as e:
        raise bad_request(
            f'{t.kind} in version "{t.version}" cannot be handled as a {t.kind}: {e}'
        ) from e
    told = w.call.repeated + [f'unknown field "{path}"' for path in unknown]
    if told:
        if how == "Strict" and w.call.verb == "patch":
            text = f"strict decoding error: {', '.join(told)}"
            raise invalid("", "", "", [invalid_field("patch", _patch_text(w.call), text)])
        if how == "Strict":
            raise bad_request(
                f'{t.kind} in version "{t.version}" cannot be handled as a {t.kind}: '
                f"strict decoding error: {', '.join(told)}"
            )
        if how == "Warn":
            w.call.warnings += told
    meta = body.get("metadata")
    if meta is None:
        meta = body["metadata"] = {}
    meta.pop("selfLink", None)
    w.sent = meta.pop("managedFields", None)
    namespace = meta.get("namespace", "")
    if t.namespaced and not namespace:
        meta["namespace"] = w.namespace
    elif namespace != w.namespace:
        raise bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )


def _patch_text(call: Call) -> str:
    """A patch as its refusal quotes it: a strategic one as Go prints maps."""
    if call.content_type == STRATEGIC_PATCH:
        return go_text(call.body)
    return orjson.dumps(call.body).decode()


def name(w: Write) -> None:
    """Identity of a new object: its name where generated, uid, times, generation."""
    meta = w.body["metadata"]
    if meta.pop("resourceVersion", ""):
        raise bad_request("resourceVersion should not be set on objects to be created")
    if meta.get("generateName") and not meta.get("name"):
        meta["name"] = meta["generateName"][:_GENERATED_BASE] + w.api.ids.suffix()
    for dropped in ("deletionTimestamp", "deletionGracePeriodSeconds", "generation"):
        meta.pop(dropped, None)
    meta["uid"] = w.api.ids.uid()
    meta["creationTimestamp"] = rfc3339(w.api.clock.now())
    if w.t.has_generation:
        meta["generation"] = 1


def carry_over(w: Write) -> None:
    """What of the current metadata an update keeps, and the preconditions it carries."""
    assert w.old is not None
    meta, before = w.body["metadata"], w.old.meta
    meta.setdefault("name", w.call.name)
    if meta["name"] != w.call.name:
        raise bad_request(
            f"the name of the object ({meta['name']}) does not match the name on the URL "
            f"({w.call.name})"
        )
    given = meta.get("resourceVersion")
    if given and given != str(w.old.revision):
        raise conflict(w.t.resource, w.call.name, MODIFIED)
    if meta.get("uid") and meta["uid"] != before.get("uid"):
        raise conflict(
            w.t.resource, w.call.name,
            f"Precondition failed: UID in precondition: {meta['uid']}, "
            f"UID in object meta: {before.get('uid')}",
        )  # fmt: skip
    for kept in ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"):
        if kept in before:
            meta.setdefault(kept, before[kept])
        elif kept.startswith("deletion"):
            meta.pop(kept, None)
    if "generation" in before:
        meta["generation"] = before["generation"]
    else:
        meta.pop("generation", None)
    if w.subresource:
        _only_subresource(w)


def _only_subresource(w: Write) -> None:
    """A write of ``status`` takes only the status and little of the metadata, all else stays."""
    assert w.old is not None
    part = w.t.rules.parts.get(w.subresource)
    if part is not None:
        new = orjson.loads(w.old.raw)
        part.take(w.body, new)
        w.body = new
        return
    body, old = w.body, w.old.body
    meta = dict(body["metadata"])
    for kept in ("labels", "ownerReferences", "generateName"):
        meta.pop(kept, None)
        if kept in old["metadata"]:
            meta[kept] = old["metadata"][kept]
    status = body.get("status")
    new = {**orjson.loads(w.old.raw), "metadata": meta}
    new.pop("status", None)
    if w.subresource == "finalize":
        spec = dict(new.get("spec") or {})
        spec["finalizers"] = (body.get("spec") or {}).get("finalizers") or []
        if not spec["finalizers"]:
            del spec["finalizers"]
        new["spec"], status = spec, old.get("status")
    if status is not None:
        new["status"] = status
    w.body = new


def default(w: Write) -> None:
    w.t.rules.default(w.body)


def ignored(t: ResourceType, subresource: str) -> FieldSet:
    """Fields that a write of *t* never changes: they are nobody's by it."""
    if subresource == "status":
        return _NOT_OF_STATUS
    return _STATUS if t.has_status and not subresource else {}


def track(w: Write) -> None:
    """Write down who manages which fields. Objects nobody kept an account of stay so until
    something is applied to them; events and leases are written too often for it to be worth it."""
    meta = w.body["metadata"]
    meta.pop("managedFields", None)
    old = w.old.meta.get("managedFields") if w.old is not None else None
    managers = w.managers
    if managers is None:
        if w.t.volatile or w.t.definition not in w.api.schemas:
            return
        managers = managed.given(old if w.subresource else w.sent, old)
        if w.old is not None and not managers:
            return
        managers = _tracked(w, managers)
    if managers:
        meta["managedFields"] = managed.encode(managers)


def _tracked(w: Write, managers: managed.Managers) -> managed.Managers:
    options = w.call.options
    manager = managed.Manager.of(
        managed.UPDATE, managed.manager_name(options.get("fieldManager", ""), w.call.user_agent),
        w.t.api_version, w.tracked_as or w.subresource,
    )  # fmt: skip
    try:
        return managed.update(
            w.api.shape(w.t), managers, bare(w.old.body) if w.old is not None else {},
            bare(w.body), manager=manager, now=rfc3339(w.api.clock.now()),
            ignored=ignored(w.t, w.subresource),
        )  # fmt: skip
    except MissingKey:
        return managers  # validation has a word about such a list


def bare(body: Body) -> Body:
    """*body* without what is nobody's to manage and different each time."""
    meta = {k: v for k, v in body["metadata"].items() if k not in _UNTRACKED}
    return {**body, "metadata": meta}


async def mutate(w: Write) -> None:
    for plugin in w.api.admission:
        await plugin.mutate(w)


def prepare(w: Write) -> None:
    """Resets of what clients may not set; the generation grows with the desired state."""
    rules = w.t.rules
    if w.old is None:
        rules.prepare_create(w.body)
        return
    part = rules.parts.get(w.subresource)
    if w.subresource and (part is None or part.of_status):
        return
    rules.prepare_update(w.body, w.old.body)
    if w.t.has_generation and _desired(w.body) != _desired(w.old.body):
        w.body["metadata"]["generation"] = int(w.old.meta.get("generation", 0)) + 1


def _desired(body: Body) -> Body:
    return {k: v for k, v in body.items() if k not in ("metadata", "status")}


async def allocate(w: Write) -> None:
    """What is handed out from a common stock (addresses and ports of Services)."""
    allocator = w.api.allocators.get(w.t.resource)
    if allocator is not None and not w.subresource:
        await allocator.allocate(w)


async def released(api: ApiServer, old: Obj) -> list[Put | Delete]:
    """What goes back to the stock with the end of *old*."""
    allocator = api.allocators.get(old.key.resource)
    return await allocator.release(api, old) if allocator is not None else []


def validate(w: Write) -> None:
    t, body = w.t, w.body
    missing = w.api.schemas.required(t.definition, body) if w.old is None else []
    causes = []
    if w.old is None:
        causes += validate_meta(t, body) + t.rules.validate(body) + t.rules.validate_create(body)
    else:
        causes += validate_meta_update(t, body, w.old.body)
        if w.subresource == "status":
            causes += t.rules.validate_status(body, w.old.body)
        elif w.subresource in t.rules.parts:
            causes += t.rules.parts[w.subresource].validate(body, w.old.body)
        elif not w.subresource:
            causes += t.rules.validate(body) + t.rules.validate_update(body, w.old.body)
    told = {c.field for c in causes}
    causes += [required(path) for path in missing if path not in told]
    if causes:
        raise w.invalid(causes)
    if not w.subresource:
        w.call.warnings += t.rules.warn(body)


async def admit(w: Write) -> None:
    for plugin in w.api.admission:
        await plugin.check(w)


async def commit_create(w: Write) -> Obj:
    """Store a new object. A generated name that is taken is drawn again. Raises store Conflict
    where what was allocated beside it was taken meanwhile."""
    meta = w.body["metadata"]
    for attempt in range(_GENERATE_TRIES):
        key = Key(w.t.resource, meta.get("namespace", ""), meta["name"])
        value = encode(w.body)
        if w.is_dry:
            if await w.api.store.get(key.path) is None:
                return Obj(key, splice(value, 0).replace(b'"resourceVersion":"0",', b"", 1), 0)
            error = already_exists(w.t.resource, key.name)
        else:
            try:
                revision = await w.api.store.commit(Put(key.path, value, expect=0), *w.beside)
                return Obj(key, splice(value, revision), revision)
            except Conflict as e:
                if e.key != key.path:
                    raise
                error = already_exists(w.t.resource, key.name)
        generated = meta.get("generateName")
        if not generated or not meta["name"].startswith(generated[:_GENERATED_BASE]):
            raise error
        if attempt < _GENERATE_TRIES - 1:
            meta["name"] = generated[:_GENERATED_BASE] + w.api.ids.suffix()
    raise error


def is_finalized(body: Body, t: ResourceType) -> bool:
    """Whether a deleted object has nothing left to wait for."""
    meta = body["metadata"]
    if "deletionTimestamp" not in meta or meta.get("finalizers"):
        return False
    if t.resource == "namespaces" and (body.get("spec") or {}).get("finalizers"):
        return False
    return not (t.graceful and meta.get("deletionGracePeriodSeconds"))


async def commit_update(w: Write) -> Obj:
    """Replace the object, where anything changed; a deleted one that waits for nothing any more
    goes. Raises store Conflict."""
    assert w.old is not None
    key = w.old.key
    value = encode(w.body)
    if splice(value, w.old.revision) == w.old.raw or _same(w.body, w.old.body):
        return w.old
    if is_finalized(w.body, w.t):
        if w.is_dry:
            return Obj(key, splice(value, w.old.revision), w.old.revision)
        also = await released(w.api, w.old)
        revision = await w.api.store.commit(Delete(key.path, expect=w.old.revision), *also)
        return Obj(key, splice(value, revision), revision)
    if w.is_dry:
        return Obj(key, splice(value, w.old.revision), w.old.revision)
    revision = await w.api.store.commit(Put(key.path, value, expect=w.old.revision), *w.beside)
    return Obj(key, splice(value, revision), revision)


def _same(new: Body, old: Body) -> bool:
    def bare(body: Body) -> Body:
        meta = {k: v for k, v in body["metadata"].items() if k != "resourceVersion"}
        return {**body, "metadata": meta}

    return bare(new) == bare(old)


Stage = Callable[[Write], Any]
CREATE: tuple[Stage, ...] = (
    decode, name, default, track, mutate, prepare, allocate, validate, admit
)  # fmt: skip
UPDATE: tuple[Stage, ...] = (
    decode, carry_over, default, track, mutate, prepare, allocate, validate, admit
)  # fmt: skip


async def run(stages: tuple[Stage, ...], w: Write) -> None:
    for stage in stages:
        pending = stage(w)
        if pending is not None:
            await pending
