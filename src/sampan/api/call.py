"""A call of the API, as both sides of a transport see it: no HTTP in it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from sampan.api.obj import Event, Obj, Page

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"


@dataclass(frozen=True, slots=True)
class User:
    """Who calls: the answer of authentication."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Call:
    """One call. verb: get, list, watch, create, update, patch, delete, deletecollection.

    resource: ``plural`` or ``plural.group``; version '' means the preferred one. options: query
    parameters by their Kubernetes names (``labelSelector``, ``dryRun``, ``fieldManager``...).
    body: decoded JSON (treated as owned by the callee for create and update: the caller must
    not change it afterwards). warnings: filled by the callee. repeated: what to say of the
    fields that the body, as it was sent, had twice. is_creation: set by the callee where a patch
    made the object.
    """

    verb: str
    resource: str
    version: str = ""
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    content_type: str = "application/json"
    user_agent: str = ""
    warnings: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    is_creation: bool = False


class Endpoint(Protocol):
    """What an API server offers a local transport. Both raise ``api.errors.StatusError``."""

    async def handle(self, user: User, call: Call) -> Obj | Page:
        """Every verb but watch. deletecollection answers a Page; delete answers the last state of
        the object, or a Status object (kind ``Status``) when it is gone."""
        ...

    def watch(self, user: User, call: Call) -> AsyncIterator[Event]:
        """Events from options['resourceVersion'] on (with sendInitialEvents and bookmarks as in
        Kubernetes). Ends by StatusError 410 when the history is gone or the reader too slow."""
        ...
