"""What the API serves, told to clients: discovery, OpenAPI and the version."""

from __future__ import annotations

import base64
import hashlib
import platform
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson

from sampan.api.errors import not_acceptable
from sampan.api.resource import Registry, ResourceType
from sampan.apiserver import api_services, gnostic, openapi
from sampan.apiserver.aggregation import Aggregation
from sampan.apiserver.api_services import ApiService
from sampan.schema.derive import KUBERNETES
from sampan.schema.walk import Schemas

Json = dict[str, Any]

JSON = "application/json"
GNOSTIC = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
GNOSTIC_ASKED = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
# What others serve is in these: they change while the registry does not.
_MERGED = ("/apis", "/openapi/v2", "/openapi/v3")
_AGGREGATED = "application/json;g=apidiscovery.k8s.io;v={};as=APIGroupDiscoveryList"


@dataclass(frozen=True, slots=True)
class Answer:
    """A document as it goes out. status: 200, 304 (no body) or 406."""

    content_type: str
    body: bytes
    etag: str = ""
    status: int = 200


@dataclass(frozen=True, slots=True)
class _Kept:
    """A finished document, compressed: they are large and rarely read."""

    content_type: str
    packed: bytes
    etag: str


def version_info(*, commit: str = "unknown", built: str = "1970-01-01T00:00:00Z") -> Json:
    """The body of ``/version``."""
    major, minor = KUBERNETES.removeprefix("v").split(".")[:2]
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return {
        "major": major,
        "minor": minor,
        "emulationMajor": major,
        "emulationMinor": minor,
        "minCompatibilityMajor": major,
        "minCompatibilityMinor": minor,
        "gitVersion": f"{KUBERNETES}+sampan",
        "gitCommit": commit,
        "gitTreeState": "clean" if commit != "unknown" else "",
        "buildDate": built,
        "goVersion": "",
        "compiler": f"{platform.python_implementation().lower()} {platform.python_version()}",
        "platform": f"linux/{machine}",
    }


class Documents:
    """Answers for ``/api``, ``/apis``, ``/version`` and ``/openapi``. Made when first asked for,
    and kept; equal registries give equal bytes."""

    def __init__(
        self, registry: Registry, schemas: Schemas, *, version: Json, address: str = ""
    ) -> None:
        """address: what ``/api`` says clients reach the server at (``host:port``)."""
        self._registry = registry
        self._schemas = schemas
        self._version = version
        self._address = address
        self._kept: dict[tuple[str, str], _Kept] = {}
        self._aggregation: Aggregation | None = None
        self._seen = (0, 0)

    def follow(self, aggregation: Aggregation) -> None:
        """Groups come in the order of its APIServices, and those of other servers too."""
        self._aggregation = aggregation
        self._seen = (-1, -1)

    def _renew(self) -> None:
        """Forget what is older than the APIServices."""
        if self._aggregation is None:
            return
        now = (self._aggregation.services.revision, self._aggregation.discovery.revision)
        if now != self._seen:
            self._seen = now
            for path, media in [*self._kept]:
                if path in _MERGED or (path.startswith("/apis/") and path.count("/") == 2):
                    del self._kept[path, media]

    def reached_at(self, address: str) -> None:
        """Where clients reach the server (``host:port``), once that is known."""
        self._address = address
        self.forget()

    def forget(self) -> None:
        """Make everything anew: the registry has changed."""
        self._kept.clear()

    def answer(self, path: str, accept: str, if_none_match: str = "") -> Answer | None:
        """The document at *path* in the shape *accept* asks for; None when there is none."""
        path = path.rstrip("/")
        self._renew()
        if self._maker(path, JSON) is None:
            return None
        media = _negotiate(accept, tuple(self._offers(path)))
        if not media:
            offers = ", ".join(self._offers(path))
            error = not_acceptable(f"only the following media types are accepted: {offers}")
            return Answer(JSON, orjson.dumps(error.status()), status=406)
        kept = self._kept.get((path, media)) or self._keep(path, media)
        if _known(if_none_match, kept.etag):
            return Answer(kept.content_type, b"", kept.etag, 304)
        return Answer(kept.content_type, zlib.decompress(kept.packed), kept.etag)

    def _keep(self, path: str, media: str) -> _Kept:
        maker = self._maker(path, media)
        assert maker is not None
        body = maker()
        etag = f'"{hashlib.sha256(body).hexdigest().upper()}"'
        kept = _Kept(media, zlib.compress(body, 3), etag)
        self._kept[path, media] = kept
        return kept

    def _offers(self, path: str) -> Iterable[str]:
        if path in ("/api", "/apis"):
            return (JSON, _AGGREGATED.format("v2"), _AGGREGATED.format("v2beta1"))
        return (JSON, GNOSTIC) if path == "/openapi/v2" else (JSON,)

    # ---- routes --------------------------------------------------------------------------------

    def _maker(self, path: str, media: str) -> Callable[[], bytes] | None:
        """What makes the document at *path*; None when there is none."""
        if path in ("/api", "/apis") and media != JSON:
            core = path == "/api"
            version = "v2" if media == _AGGREGATED.format("v2") else "v2beta1"
            return lambda: _dumps(self._aggregated(version, core=core))
        if path == "/openapi/v2" and media == GNOSTIC:
            return lambda: gnostic.encode(self._swagger())
        fixed: dict[str, Callable[[], Json]] = {
            "/api": self._versions,
            "/apis": self._groups,
            "/version": lambda: self._version,
            "/openapi/v2": self._swagger,
            "/openapi/v3": self._index,
        }
        make = fixed.get(path) or self._below(path)
        return None if make is None else lambda: _dumps(make())

    def _below(self, path: str) -> Callable[[], Json] | None:
        """Documents of one group or one group version."""
        is_openapi = path.startswith("/openapi/v3/")
        steps = (path.removeprefix("/openapi/v3") if is_openapi else path).split("/")[1:]
        if len(steps) == 2 and steps[0] == "api":
            group, version = "", steps[1]
        elif len(steps) == 3 and steps[0] == "apis":
            group, version = steps[1], steps[2]
        elif len(steps) == 2 and steps[0] == "apis" and not is_openapi:
            group = steps[1]
            if not group or not self._versions_of(group):
                return None
            return lambda: {"kind": "APIGroup", "apiVersion": "v1", **self._group(group)}
        else:
            return None
        types = self._by_group().get(group, {}).get(version)
        if types is None or (steps[0] == "api") != (not group):
            return None
        if is_openapi:
            return lambda: openapi.document(
                types, self._schemas, version=str(self._version.get("gitVersion", ""))
            )
        return lambda: _resources(types)

    def _by_group(self) -> dict[str, dict[str, list[ResourceType]]]:
        """group -> version -> types, preferred versions first."""
        found: dict[str, dict[str, list[ResourceType]]] = {}
        for t in self._registry:
            found.setdefault(t.group, {}).setdefault(t.version, []).append(t)
        for versions in found.values():
            for types in versions.values():
                types.sort(key=lambda t: t.plural)
        rank = {
            g: i for i, g in enumerate(api_services.ordered(api_services.local(self._registry)))
        }
        rank[api_services.GROUP] = 0  # right behind the core group
        return dict(sorted(found.items(), key=lambda g: (rank.get(g[0], len(rank)), g[0])))

    def _served(self) -> dict[str, dict[str, list[ResourceType] | ApiService]]:
        """group -> version -> its types, or the APIService of who else serves it; in the order of
        discovery, without the core group."""
        local = {g: v for g, v in self._by_group().items() if g}
        if self._aggregation is None:
            return {g: dict(v) for g, v in local.items()}
        found: dict[str, dict[str, list[ResourceType] | ApiService]] = {}
        if api_services.GROUP in local:
            found[api_services.GROUP] = dict(local[api_services.GROUP])
        for group, services in self._aggregation.services.groups().items():
            for service in services if group else ():
                types = local.get(group, {}).get(service.version)
                if service.service is not None:
                    found.setdefault(group, {})[service.version] = service
                elif types is not None:
                    found.setdefault(group, {})[service.version] = types
        return found

    def _versions_of(self, group: str) -> list[str]:
        return [*(self._served().get(group) or self._by_group().get(group) or ())]

    # ---- the first discovery -------------------------------------------------------------------

    def _versions(self) -> Json:
        return {
            "kind": "APIVersions",
            "versions": list(self._by_group().get("", {})),
            "serverAddressByClientCIDRs": [
                {"clientCIDR": "0.0.0.0/0", "serverAddress": self._address}
            ],
        }

    def _groups(self) -> Json:
        groups = [self._group(g) for g in self._served()]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}

    def _group(self, group: str) -> Json:
        versions = [
            {"groupVersion": f"{group}/{v}", "version": v} for v in self._versions_of(group)
        ]
        return {"name": group, "versions": versions, "preferredVersion": versions[0]}

    # ---- aggregated discovery ------------------------------------------------------------------

    def _aggregated(self, version: str, *, core: bool) -> Json:
        groups = {"": self._by_group().get("", {})} if core else self._served()
        items = []
        for group, versions in groups.items():
            meta: Json = {"creationTimestamp": None}
            if group:
                meta["name"] = group
            told = [self._version_of(v, what) for v, what in versions.items()]
            items.append({"metadata": meta, "versions": told})
        return {
            "kind": "APIGroupDiscoveryList",
            "apiVersion": f"apidiscovery.k8s.io/{version}",
            "metadata": {},
            "items": items,
        }

    def _version_of(self, version: str, what: list[ResourceType] | ApiService) -> Json:
        if not isinstance(what, ApiService):
            resources: list[Json] | None = [_discovered(t) for t in what]
        else:
            assert self._aggregation is not None
            resources = self._aggregation.discovery.resources(what)
        if resources is None:
            return {"version": version, "freshness": "Stale"}
        return {"version": version, "resources": resources, "freshness": "Current"}

    # ---- OpenAPI -------------------------------------------------------------------------------

    def _swagger(self) -> Json:
        types = [
            t for versions in self._by_group().values() for ts in versions.values() for t in ts
        ]
        merged = openapi.swagger(
            types, self._schemas, version=str(self._version.get("gitVersion", ""))
        )
        for service in self._elsewhere():
            assert self._aggregation is not None
            found, definitions = self._aggregation.discovery.swagger(service)
            merged["paths"] |= found
            merged["definitions"] = {**definitions, **merged["definitions"]}
        return merged

    def _elsewhere(self) -> list[ApiService]:
        return self._aggregation.services.remotes() if self._aggregation is not None else []

    def _index(self) -> Json:
        paths: Json = {}
        for group, versions in self._by_group().items():
            for version, types in versions.items():
                name = f"apis/{group}/{version}" if group else f"api/{version}"
                url = f"/openapi/v3/{name}?hash={openapi.fingerprint(types)}"
                paths[name] = {"serverRelativeURL": url}
        for service in self._elsewhere():
            assert self._aggregation is not None
            name = service.path.removeprefix("/")
            paths.pop(name, None)
            if url := self._aggregation.discovery.openapi_url(service):
                paths[name] = {"serverRelativeURL": url}
        return {"paths": paths}


def _resources(types: list[ResourceType]) -> Json:
    resources: list[Json] = []
    for t in types:
        entry: Json = {
            "name": t.plural,
            "singularName": t.singular,
            "namespaced": t.namespaced,
            "kind": t.kind,
            "verbs": sorted(t.verbs),
        }
        if t.short_names:
            entry["shortNames"] = list(t.short_names)
        if t.categories:
            entry["categories"] = list(t.categories)
        if not t.virtual:
            entry["storageVersionHash"] = _storage_hash(t)
        resources.append(entry)
        for name in sorted(t.subresources):
            sub = openapi.subresource(t, name)
            entry = {
                "name": f"{t.plural}/{name}",
                "singularName": "",
                "namespaced": t.namespaced,
                "kind": sub.kind,
                "verbs": sorted(sub.verbs),
            }
            if sub.version:
                entry |= {"group": sub.group, "version": sub.version}
            resources.append(entry)
    first = types[0]
    head: Json = {"kind": "APIResourceList"}
    if first.group:
        head["apiVersion"] = "v1"
    return {**head, "groupVersion": first.api_version, "resources": resources}


def _discovered(t: ResourceType) -> Json:
    """One resource as aggregated discovery lists it."""
    entry: Json = {
        "resource": t.plural,
        "responseKind": {"group": "", "version": "", "kind": t.kind},
        "scope": "Namespaced" if t.namespaced else "Cluster",
        "singularResource": t.singular,
        "verbs": sorted(t.verbs),
    }
    if t.short_names:
        entry["shortNames"] = list(t.short_names)
    if t.categories:
        entry["categories"] = list(t.categories)
    subs = [(name, openapi.subresource(t, name)) for name in sorted(t.subresources)]
    if subs:
        entry["subresources"] = [
            {
                "subresource": name,
                "responseKind": {"group": s.group, "version": s.version, "kind": s.kind},
                "verbs": sorted(s.verbs),
            }
            for name, s in subs
        ]
    return entry


def _storage_hash(t: ResourceType) -> str:
    digest = hashlib.sha256(f"{t.group}/{t.version}/{t.kind}".encode()).digest()
    return base64.b64encode(digest[:8]).decode()


def _dumps(value: Json) -> bytes:
    return orjson.dumps(value)


def _known(if_none_match: str, etag: str) -> bool:
    tags = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
    return "*" in tags or etag in tags


@lru_cache(maxsize=256)
def _negotiate(accept: str, offers: tuple[str, ...]) -> str:
    """The offer the client likes best ('' for none): by quality, then by its own order."""
    best: tuple[float, int, str] | None = None
    for i, clause in enumerate((accept or "*/*").split(",")):
        kind, *rest = (p.strip() for p in clause.split(";"))
        given = dict(p.partition("=")[::2] for p in rest)
        quality = _quality(given.pop("q", "1"))
        offer = _match(kind.lower(), given, offers)
        if offer and quality > 0 and (best is None or (-quality, i) < best[:2]):
            best = (-quality, i, offer)
    return best[2] if best else ""


def _match(kind: str, given: dict[str, str], offers: tuple[str, ...]) -> str:
    if kind in ("*/*", "application/*"):
        return offers[0]
    if kind == GNOSTIC_ASKED:
        kind = GNOSTIC
    if "as" in given:
        if given.get("g") != "apidiscovery.k8s.io":
            return ""
        wanted = f"{kind};g={given['g']};v={given.get('v', '')};as={given['as']}"
        return wanted if wanted in offers else ""
    return kind if kind in offers else ""


def _quality(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 1.0
