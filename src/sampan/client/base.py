"""Client: typed verbs over a Transport."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

from sampan.api.call import JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, Call
from sampan.api.obj import Body, Event, Obj, Page

_PATCHES = {"json": JSON_PATCH, "merge": MERGE_PATCH, "strategic": STRATEGIC_PATCH}


class Transport(Protocol):
    """Carries calls to an API server, as one identity. Raises StatusError; a transport that
    cannot tell whether a write happened raises ``Unknown``."""

    async def call(self, call: Call) -> Obj | Page: ...
    def watch(self, call: Call) -> AsyncIterator[Event]: ...
    async def close(self) -> None: ...


class Unknown(Exception):
    """The outcome of a write is not known (connection lost, time-out)."""


def _drop_empty(**options: Any) -> dict[str, str]:
    return {k: str(v) for k, v in options.items() if v not in (None, "", 0, False)}


class Client:
    """The API as one identity sees it. resource: ``plural`` or ``plural.group``."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport

    async def get(
        self, resource: str, name: str, namespace: str = "", *, subresource: str = "",
        options: Mapping[str, str] | None = None,
    ) -> Obj:  # fmt: skip
        """options: query parameters, for what takes any (custom metrics)."""
        return await self._one(
            Call(
                verb="get",
                resource=resource,
                namespace=namespace,
                name=name,
                subresource=subresource,
                options=options or {},
            )
        )

    async def list(
        self,
        resource: str,
        namespace: str = "",
        *,
        labels: str = "",
        fields: str = "",
        limit: int = 0,
        continue_: str = "",
        revision: str = "",
        options: Mapping[str, str] | None = None,
    ) -> Page:
        given = options or {}
        options = _drop_empty(
            labelSelector=labels, fieldSelector=fields, limit=limit, resourceVersion=revision
        )
        options = {**options, **given}
        if continue_:
            options["continue"] = continue_
        answer = await self.transport.call(
            Call(verb="list", resource=resource, namespace=namespace, options=options)
        )
        assert isinstance(answer, Page)
        return answer

    def watch(
        self,
        resource: str,
        namespace: str = "",
        *,
        since: int | None = None,
        labels: str = "",
        fields: str = "",
        bookmarks: bool = True,
        initial: bool = False,
    ) -> AsyncIterator[Event]:
        """Events after revision *since*; with *initial* the current state first, then a BOOKMARK
        annotated ``k8s.io/initial-events-end``."""
        options = _drop_empty(
            labelSelector=labels,
            fieldSelector=fields,
            resourceVersion="" if since is None else since,
        )
        if bookmarks:
            options["allowWatchBookmarks"] = "true"
        if initial:
            options["sendInitialEvents"] = "true"
            options["resourceVersionMatch"] = "NotOlderThan"
        return self.transport.watch(
            Call(verb="watch", resource=resource, namespace=namespace, options=options)
        )

    async def create(
        self,
        resource: str,
        body: Body,
        namespace: str = "",
        *,
        name: str = "",
        subresource: str = "",
    ) -> Obj:
        return await self._one(
            Call(
                verb="create",
                resource=resource,
                namespace=namespace,
                name=name,
                subresource=subresource,
                body=body,
            )
        )

    async def update(self, resource: str, body: Body, *, subresource: str = "") -> Obj:
        meta = body["metadata"]
        return await self._one(
            Call(
                verb="update",
                resource=resource,
                body=body,
                namespace=meta.get("namespace", ""),
                name=meta["name"],
                subresource=subresource,
            )
        )

    async def patch(
        self,
        resource: str,
        name: str,
        patch: Any,
        namespace: str = "",
        *,
        kind: str = "merge",
        subresource: str = "",
    ) -> Obj:
        """kind: json, merge or strategic."""
        return await self._one(
            Call(
                verb="patch",
                resource=resource,
                namespace=namespace,
                name=name,
                subresource=subresource,
                body=patch,
                content_type=_PATCHES[kind],
            )
        )

    async def delete(
        self,
        resource: str,
        name: str,
        namespace: str = "",
        *,
        uid: str = "",
        revision: int = 0,
        grace: int | None = None,
        propagation: str = "",
    ) -> Obj:
        body: Body = {"kind": "DeleteOptions", "apiVersion": "v1"}
        preconditions = _drop_empty(uid=uid, resourceVersion=revision)
        if preconditions:
            body["preconditions"] = preconditions
        if grace is not None:
            body["gracePeriodSeconds"] = grace
        if propagation:
            body["propagationPolicy"] = propagation
        return await self._one(
            Call(verb="delete", resource=resource, namespace=namespace, name=name, body=body)
        )

    async def delete_collection(
        self, resource: str, namespace: str = "", *, labels: str = "", fields: str = ""
    ) -> None:
        await self.transport.call(
            Call(
                verb="deletecollection",
                resource=resource,
                namespace=namespace,
                options=_drop_empty(labelSelector=labels, fieldSelector=fields),
            )
        )

    async def close(self) -> None:
        await self.transport.close()

    async def _one(self, call: Call) -> Obj:
        answer = await self.transport.call(call)
        assert isinstance(answer, Obj)
        return answer
