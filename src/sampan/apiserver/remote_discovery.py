"""What other API servers say they serve: asked for when somebody asks us, and kept for a minute."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from sampan.api.call import User
from sampan.apiserver.api_services import ApiService, ApiServices
from sampan.apiserver.remote import Remotes, Reply, Unreachable

Json = dict[str, Any]
FRESH_SECONDS, FAILED_SECONDS = 60.0, 5.0
ASK_SECONDS = 5.0
_AGGREGATOR = User("system:kube-aggregator", ("system:masters",))
_JSON = (("Accept", "application/json"),)


@dataclass(frozen=True, slots=True)
class _Held:
    """An answer (None: there was none), to the APIService as it was then."""

    api: ApiService
    value: Any
    until: float


class RemoteDiscovery:
    """Discovery and OpenAPI of the servers behind APIServices. revision grows when what is known
    changes. now: seconds that only grow."""

    def __init__(
        self, services: ApiServices, remotes: Remotes, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._services = services
        self._remotes = remotes
        self._now = now
        self._held: dict[tuple[str, str], _Held] = {}
        self.revision = 0

    # -- asking --------------------------------------------------------------------------------

    async def prepare(self, path: str) -> None:
        """Ask anew what an answer for *path* is made of, where that is too old."""
        if not self._services.has_remote:
            self._held.clear()
            return
        asked = {"/apis": "", "/openapi/v2": "/openapi/v2", "/openapi/v3": "/openapi/v3"}
        if path in asked:
            apis = self._services.remotes()
            await asyncio.gather(*(self._refresh(api, asked[path]) for api in apis))

    async def _refresh(self, api: ApiService, path: str) -> None:
        key, now = (api.name, path), self._now()
        held = self._held.get(key)
        if held is not None and held.api == api and now < held.until:
            return
        value = await self._ask(api, path or api.path) if api.is_available else None
        seconds = FAILED_SECONDS if value is None else FRESH_SECONDS
        self._held[key] = _Held(api, value, self._now() + seconds)
        if held is None or held.value != value:
            self.revision += 1

    async def _ask(self, api: ApiService, path: str) -> Any:
        reply = await self.fetch(api, path)
        if reply is None or reply.status != 200:
            return None
        try:
            return orjson.loads(reply.body)
        except orjson.JSONDecodeError:
            return None

    async def fetch(self, api: ApiService, target: str) -> Reply | None:
        """A document of the server of *api*; None where it cannot be had."""
        try:
            return await self._remotes.ask(
                api, "GET", target, _AGGREGATOR, timeout=ASK_SECONDS, headers=_JSON
            )
        except (Unreachable, OSError):
            return None

    # -- reading -------------------------------------------------------------------------------

    def _value(self, api: ApiService, path: str) -> Json | None:
        held = self._held.get((api.name, path))
        return held.value if held is not None and isinstance(held.value, dict) else None

    def resources(self, api: ApiService) -> list[Json] | None:
        """As aggregated discovery lists them; None while they are not known."""
        found = self._value(api, "")
        return None if found is None else discovered(found.get("resources") or ())

    def openapi_url(self, api: ApiService) -> str:
        """Where the OpenAPI v3 document of *api* is, by its server's own word; '' without one."""
        paths = (self._value(api, "/openapi/v3") or {}).get("paths") or {}
        entry = paths.get(api.path.removeprefix("/"))
        return str(entry.get("serverRelativeURL", "")) if isinstance(entry, dict) else ""

    def swagger(self, api: ApiService) -> tuple[Json, Json]:
        """Paths and definitions of the OpenAPI v2 document of *api*."""
        found = self._value(api, "/openapi/v2") or {}
        paths = {
            path: item
            for path, item in (found.get("paths") or {}).items()
            if path == f"{api.path}/" or path.startswith(f"{api.path}/")
        }
        return paths, found.get("definitions") or {} if paths else {}


def discovered(resources: Iterable[Json]) -> list[Json]:
    """An APIResourceList's entries as aggregated discovery has them: subresources inside of their
    resources, also of resources that are not served themselves."""
    found: dict[str, Json] = {}
    for r in resources:
        name, _, sub = str(r.get("name", "")).partition("/")
        kind = {"group": r.get("group", ""), "version": r.get("version", ""),
                "kind": r.get("kind", "")}  # fmt: skip
        scope = "Namespaced" if r.get("namespaced") else "Cluster"
        entry = found.setdefault(name, {"resource": name, "scope": scope, "verbs": []})
        if sub:
            one = {"subresource": sub, "responseKind": kind, "verbs": r.get("verbs") or []}
            entry.setdefault("subresources", []).append(one)
            continue
        entry |= {
            "responseKind": kind, "scope": scope, "verbs": r.get("verbs") or [],
            "singularResource": r.get("singularName", ""),
        }  # fmt: skip
        for given in ("shortNames", "categories"):
            if r.get(given):
                entry[given] = r[given]
    return list(found.values())
