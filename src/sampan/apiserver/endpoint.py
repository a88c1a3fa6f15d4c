"""The one endpoint: every verb on every kind, without a word of HTTP."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

import orjson

from sampan.api.call import APPLY_PATCH, JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, Call, User
from sampan.api.errors import (
    StatusError,
    conflict,
    internal,
    method_not_allowed,
    not_found,
    unsupported_media_type,
)
from sampan.api.managed import Managers
from sampan.api.obj import Body, Event, Key, Obj, Page, encode
from sampan.api.patch import apply_patch
from sampan.api.resource import Registry, ResourceType
from sampan.api.usage import UsageOfNodes
from sampan.apiserver import (
    aliases,
    apply,
    bootstrap_classes,
    bootstrap_flows,
    bootstrap_roles,
    deletion,
    stages,
    watching,
)
from sampan.apiserver.aggregation import Aggregation
from sampan.apiserver.allocation import ServiceAllocator
from sampan.apiserver.authn import TokenIssuer
from sampan.apiserver.authz import RbacAuthorizer, attributes_of
from sampan.apiserver.pages import obj_of, page, revision_option
from sampan.apiserver.resource_metrics import GROUP as METRICS
from sampan.apiserver.resource_metrics import ResourceMetrics
from sampan.apiserver.stages import MODIFIED, Write
from sampan.apiserver.subresources import SUBRESOURCES, virtual
from sampan.lib.clock import Clock, parse_rfc3339, rfc3339
from sampan.lib.ids import Ids
from sampan.schema.shapes import Shape, shapes_of
from sampan.schema.walk import Schemas
from sampan.store.base import Conflict, Delete, Put, Store, Unwritable

log = logging.getLogger(__name__)
_TRIES = 100  # each is lost against a write that was done
_EVENT_SECONDS = 3600.0
_EVENT_SWEEP = 300.0
_PATCHES = (JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH)
_NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")
_PRIORITY_CLASSES = {
    "system-cluster-critical": (
        2_000_000_000,
        "Used for system critical pods that must run in the cluster, but can be moved to another "
        "node if necessary.",
    ),
    "system-node-critical": (
        2_000_001_000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
}


class Plugin(Protocol):
    """An admission plug-in. Both raise StatusError."""

    async def mutate(self, w: Write) -> None:
        """Change ``w.body`` of a create or update."""
        ...

    async def check(self, w: Write) -> None:
        """Refuse what may not be, deletions included."""
        ...


class ApiServer:
    """Implements ``api.call.Endpoint`` over a store. pace: how many times longer than usual its
    bookmarks and sweeps are apart."""

    def __init__(
        self,
        *,
        registry: Registry,
        schemas: Schemas,
        store: Store,
        clock: Clock,
        ids: Ids,
        authorizer: RbacAuthorizer,
        admission: Sequence[Plugin] = (),
        token_issuer: TokenIssuer | None = None,
        services: ServiceAllocator | None = None,
        usage: UsageOfNodes = dict,
        aggregation: Aggregation | None = None,
        pace: float = 1.0,
    ) -> None:
        self._pace = pace
        self.registry = registry
        self.schemas = schemas
        self.store = store
        self.clock = clock
        self.ids = ids
        self.authorizer = authorizer
        self.admission = tuple(admission)
        self.tokens = token_issuer
        self.services = services or ServiceAllocator()
        self._shapes = shapes_of(schemas)
        self.allocators = {"services": self.services}
        self.aggregation = aggregation or Aggregation(registry, store)
        self.metrics = ResourceMetrics(store, clock=clock, nodes=usage)
        self._sweeper: asyncio.Task[None] | None = None
        self._oldest = self._recent = 0

    # -- life ----------------------------------------------------------------------------------

    async def bootstrap(self) -> None:
        """Create what every cluster has, where it is not there yet."""
        now = rfc3339(self.clock.now())
        bodies: list[Body] = [
            {"apiVersion": "v1", "kind": "Namespace",
             "metadata": {"name": n, "labels": {"kubernetes.io/metadata.name": n}},
             "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}
            for n in _NAMESPACES
        ]  # fmt: skip
        bodies += [
            {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
             "metadata": {"name": n, "generation": 1}, "value": value, "description": text,
             "preemptionPolicy": "PreemptLowerPriority"}
            for n, (value, text) in _PRIORITY_CLASSES.items()
        ]  # fmt: skip
        bodies.append(self.services.default_cidr(self.clock.now()))
        bodies += bootstrap_roles.objects()
        bodies += bootstrap_classes.objects()
        bodies += bootstrap_flows.objects(now)
        puts: list[Put] = []
        for body in bodies:
            t = self.registry.of_kind(body["apiVersion"], body["kind"])
            assert t is not None, body["kind"]
            key = Key(t.resource, body["metadata"].get("namespace", ""), body["metadata"]["name"])
            if await self.store.get(key.path) is None:
                meta = {**body["metadata"], "uid": self.ids.uid(), "creationTimestamp": now}
                puts.append(Put(key.path, encode({**body, "metadata": meta}), expect=0))
        if puts:
            await self.store.commit(*puts)
        await self.aggregation.services.register(self.store, uid=self.ids.uid, at=now)
        await self.services.extend_default(self)
        await self.services.repair_ports(self)

    async def start(self) -> None:
        """Begin what runs beside calls: events are removed an hour after their last occurrence."""
        await self.aggregation.start()
        self._sweeper = asyncio.create_task(self._sweep())

    async def stop(self) -> None:
        await self.aggregation.stop()
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_EVENT_SWEEP * self._pace)
            self.forget_old_lists()
            await self.expire_events()

    def forget_old_lists(self) -> None:
        """What was listed before the last time this was called is not gone on with any more, as
        where history is compacted every five minutes: a page may be that much old, or twice."""
        self._oldest, self._recent = self._recent, self.store.revision

    async def expire_events(self) -> None:
        """Remove events not seen for an hour."""
        oldest = self.clock.now() - _EVENT_SECONDS
        for record in (await self.store.range(Key.prefix("events"))).records:
            body = obj_of(record).body
            last = body.get("lastTimestamp") or body["metadata"].get("creationTimestamp")
            if last and parse_rfc3339(last) < oldest:
                try:
                    await self.store.commit(Delete(record.key, expect=record.revision))
                except Conflict:
                    continue  # seen again just now
                except Unwritable as e:
                    log.warning("old events stay for now: %s", e)
                    return

    # -- calls ---------------------------------------------------------------------------------

    def type_of(self, call: Call) -> ResourceType:
        """The served type of a call. Raises StatusError 404."""
        t = self.registry.get(call.resource, call.version)
        if t is None:
            raise StatusError(
                404, "NotFound", "the server could not find the requested resource", details={}
            )
        return t

    def shape(self, t: ResourceType) -> Shape:
        """How objects of *t* are merged and their fields told apart."""
        return self._shapes(t.definition)

    async def handle(self, user: User, call: Call) -> Obj | Page:
        elsewhere = self.aggregation.of_call(call)
        if elsewhere is not None:
            api, asked = elsewhere
            self.authorizer.require(user, asked)
            answer: Obj | Page = await self.aggregation.handle(user, call, api, asked)
            return answer
        t = self.type_of(call)
        self.authorizer.require(user, attributes_of(call))
        try:
            return await self.carry_out(user, call, t)
        except Unwritable as e:
            raise internal(f"the store cannot be written: {e}") from e

    async def carry_out(self, user: User, call: Call, t: ResourceType) -> Obj | Page:
        """A call that is authorized."""
        if t.alias is not None:
            return await aliases.handle(self, user, call, t)
        if t.virtual:
            if call.verb not in t.verbs or call.subresource:
                raise method_not_allowed(t.resource, call.verb)
            if t.group == METRICS:
                return await self.metrics.answer(call, t)
            return await virtual(self, user, call, t)
        if call.subresource:
            if call.subresource not in t.subresources:
                raise StatusError(
                    404, "NotFound", "the server could not find the requested resource", details={}
                )
            special = SUBRESOURCES.get((t.plural, call.subresource)) or SUBRESOURCES.get(
                ("*", call.subresource)
            )
            if special is not None:
                return await special(self, user, call, t)
        elif call.verb not in t.verbs:
            raise method_not_allowed(t.resource, call.verb)
        match call.verb:
            case "get":
                return await self.read(call, t)
            case "list":
                return await page(self.store, t, call.namespace, call.options, oldest=self._oldest)
            case "create":
                return await self.create(user, call, t)
            case "update":
                return await self.update(user, call, t)
            case "patch":
                return await self.patch(user, call, t)
            case "delete":
                w = Write(api=self, user=user, call=call, t=t, verb="delete", body={})
                return await deletion.delete(w)
            case "deletecollection":
                return await self._delete_collection(user, call, t)
        raise method_not_allowed(t.resource, call.verb)

    def watch(self, user: User, call: Call) -> AsyncIterator[Event]:
        """Problems of the call itself are raised at once, later ones by the iteration."""
        t = self.type_of(call)
        self.authorizer.require(user, attributes_of(call))
        if t.alias is not None:
            return aliases.watch(self, call, t)
        if "watch" not in t.verbs:
            raise method_not_allowed(t.resource, call.verb)
        every = watching.BOOKMARK_SECONDS * self._pace
        return watching.events(self.store, t, call.namespace, call.options, every)

    async def read(self, call: Call, t: ResourceType) -> Obj:
        """The current object. Raises StatusError 404."""
        revision_option(self.store, call.options.get("resourceVersion", ""))
        record = await self.store.get(Key(t.resource, call.namespace, call.name).path)
        if record is None:
            raise not_found(t.resource, call.name)
        return obj_of(record)

    async def create(
        self, user: User, call: Call, t: ResourceType, *, managers: Managers | None = None
    ) -> Obj:
        """managers: who manages its fields, where that is known already."""
        if call.subresource:
            raise method_not_allowed(f"{t.resource}/{call.subresource}", "create")
        raw = orjson.dumps(call.body)
        warned = len(call.warnings)
        for _ in range(_TRIES):
            del call.warnings[warned:]
            w = Write(
                api=self, user=user, call=call, t=t, verb="create", body=call.body,
                managers=managers,
            )  # fmt: skip
            try:
                async with w.held:
                    await stages.run(stages.CREATE, w)
                    return await stages.commit_create(w)
            except Conflict:
                call.body = orjson.loads(raw)  # what it was given is taken meanwhile: once more
        raise conflict(t.resource, w.name, "what it needs is taken all the time; try again")

    async def update(self, user: User, call: Call, t: ResourceType) -> Obj:
        given = isinstance(call.body, dict) and (call.body.get("metadata") or {}).get(
            "resourceVersion"
        )
        again = not given or not call.subresource  # what is charged beside may have changed
        raw = orjson.dumps(call.body) if again else b""
        warned = len(call.warnings)
        for _ in range(_TRIES):
            del call.warnings[warned:]
            body = orjson.loads(raw) if again else call.body
            try:
                return await self.replace(user, call, t, await self.read(call, t), body)
            except Conflict:
                if not again:
                    break  # the writer saw an older state: it must look again
        raise conflict(t.resource, call.name, MODIFIED)

    async def replace(
        self, user: User, call: Call, t: ResourceType, old: Obj, body: Body,
        *, managers: Managers | None = None, tracked_as: str = "",
    ) -> Obj:  # fmt: skip
        """Write *body* in the place of *old*. managers: who manages its fields, where that is known
        already. Raises StatusError, and store Conflict where somebody else wrote."""
        w = Write(
            api=self, user=user, call=call, t=t, verb="update", body=body, old=old,
            subresource=call.subresource, managers=managers, tracked_as=tracked_as,
        )  # fmt: skip
        async with w.held:
            await stages.run(stages.UPDATE, w)
            return await stages.commit_update(w)

    async def patch(self, user: User, call: Call, t: ResourceType) -> Obj:
        if call.content_type == APPLY_PATCH:
            return await apply.apply(self, user, call, t)
        apply.check_options(call)
        if call.content_type not in _PATCHES:
            raise unsupported_media_type(
                "the body of the request was in an unknown format - accepted media types include: "
                + ", ".join(_PATCHES)
            )
        warned = len(call.warnings)
        for _ in range(_TRIES):
            del call.warnings[warned:]
            old = await self.read(call, t)
            body = self.patched(call, t.definition, old.body)
            try:
                return await self.replace(user, call, t, old, body)
            except Conflict:
                continue
        raise conflict(t.resource, call.name, MODIFIED)

    def patched(self, call: Call, definition: str, body: Body) -> Body:
        """*body* with the call's patch applied, as a body of its own: later stages edit it."""
        made = apply_patch(
            call.content_type, body=body, patch=call.body, definition=definition,
            schemas=self.schemas,
        )  # fmt: skip
        own: Body = orjson.loads(orjson.dumps(made))
        return own

    async def _delete_collection(self, user: User, call: Call, t: ResourceType) -> Page:
        chosen = await page(self.store, t, call.namespace, call.options, oldest=self._oldest)
        gone: list[Obj] = []
        for obj in chosen.items:
            one = Call(
                verb="delete", resource=call.resource, version=call.version,
                namespace=obj.namespace, name=obj.name, options=call.options, body=call.body,
            )  # fmt: skip
            w = Write(api=self, user=user, call=one, t=t, verb="delete", body={})
            try:
                await deletion.delete(w)
            except StatusError as e:
                if e.code != 404:
                    raise
            gone.append(obj)
        return Page(gone, self.store.revision)

    # -- for plug-ins --------------------------------------------------------------------------

    async def find(self, resource: str, namespace: str, name: str) -> Obj | None:
        """An object as it is now, without asking for anybody's leave."""
        record = await self.store.get(Key(resource, namespace, name).path)
        return obj_of(record) if record is not None else None
