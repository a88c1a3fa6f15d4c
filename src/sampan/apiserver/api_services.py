"""APIServices: which group versions there are, in which order, and who answers for each.

Every built-in group version has a local APIService, made when the server starts. One with a Service
is answered by somebody else (``aggregation``), also where its group version is a built-in one.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import orjson

from sampan.api.obj import Body, Key, encode
from sampan.api.resource import Registry
from sampan.api.rules.apiregistration import AVAILABLE, DEFAULT_PORT, local_condition
from sampan.apiserver.pages import obj_of
from sampan.store.base import Compacted, Delete, Put, Record, Store

GROUP = "apiregistration.k8s.io"
RESOURCE = f"apiservices.{GROUP}"
MANAGED = "kube-aggregator.kubernetes.io/automanaged"
_ON_START = "onstart"
# Where others may take over a group that is served here, nobody puts it right at the next start.
_REPLACEABLE = ("metrics.k8s.io",)
# (group, version): groupPriorityMinimum, versionPriority; as upstream's control plane has them.
_PRIORITIES: Mapping[tuple[str, str], tuple[int, int]] = {
    ("", "v1"): (18000, 1),
    ("apps", "v1"): (17800, 15),
    ("events.k8s.io", "v1"): (17750, 15),
    ("authentication.k8s.io", "v1"): (17700, 15),
    ("authorization.k8s.io", "v1"): (17600, 15),
    ("autoscaling", "v1"): (17500, 15),
    ("autoscaling", "v2"): (17500, 30),
    ("batch", "v1"): (17400, 15),
    ("certificates.k8s.io", "v1"): (17300, 15),
    ("networking.k8s.io", "v1"): (17200, 15),
    ("policy", "v1"): (17100, 15),
    ("rbac.authorization.k8s.io", "v1"): (17000, 15),
    ("storage.k8s.io", "v1"): (16800, 15),
    ("apiextensions.k8s.io", "v1"): (16700, 15),
    ("admissionregistration.k8s.io", "v1"): (16700, 15),
    ("scheduling.k8s.io", "v1"): (16600, 15),
    ("coordination.k8s.io", "v1"): (16500, 15),
    ("node.k8s.io", "v1"): (16300, 15),
    ("discovery.k8s.io", "v1"): (16200, 15),
    ("flowcontrol.apiserver.k8s.io", "v1"): (16100, 21),
    ("resource.k8s.io", "v1"): (15900, 15),
    ("metrics.k8s.io", "v1beta1"): (100, 100),
}
_OTHERS = (1000, 100)  # as upstream registers custom resources
_VERSION = re.compile(r"v(\d+)(?:(alpha|beta)(\d+))?")
_LAST = 0x10FFFF  # of all characters: a name comes before those it begins
_STAGES = {"alpha": 0, "beta": 1, None: 2}
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServiceRef:
    namespace: str
    name: str
    port: int


@dataclass(frozen=True, slots=True)
class ApiService:
    """One, as serving needs it. service: who answers (None: this server); ca: base64, as in its
    spec."""

    group: str
    version: str
    group_priority: int
    version_priority: int
    service: ServiceRef | None = None
    ca: str = ""
    skips_tls: bool = False
    is_available: bool = True

    @property
    def name(self) -> str:
        return f"{self.version}.{self.group}"

    @property
    def path(self) -> str:
        """What is asked for its resources; every server of a group version answers there."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"


def read(body: Body) -> ApiService:
    """An APIService object's facts."""
    spec, given = body.get("spec") or {}, (body.get("spec") or {}).get("service")
    service = None
    if given is not None:
        service = ServiceRef(
            given.get("namespace", ""), given.get("name", ""), given.get("port") or DEFAULT_PORT
        )
    conditions = (body.get("status") or {}).get("conditions") or ()
    available = any(c["type"] == AVAILABLE and c["status"] == "True" for c in conditions)
    return ApiService(
        spec.get("group", ""), spec.get("version", ""), spec.get("groupPriorityMinimum", 0),
        spec.get("versionPriority", 0), service, spec.get("caBundle") or "",
        bool(spec.get("insecureSkipTLSVerify")), available,
    )  # fmt: skip


def version_rank(version: str) -> tuple[int, int, int, str]:
    """Larger is better: v2 before v1 before v1beta2 before v1alpha1, then what is no version of
    Kubernetes' kind, by its letters."""
    found = _VERSION.fullmatch(version)
    if found is None:
        return (-1, 0, 0, "".join(chr(_LAST - ord(c)) for c in version) + chr(_LAST))
    major, stage, minor = found.groups()
    return (_STAGES[stage], int(major), int(minor or 0), "")


def ordered(services: Iterable[ApiService]) -> dict[str, list[ApiService]]:
    """Groups by their highest priority, the versions of each by theirs."""
    groups: dict[str, list[ApiService]] = {}
    for service in sorted(services, key=lambda s: (-s.group_priority, s.name)):
        groups.setdefault(service.group, []).append(service)
    for versions in groups.values():
        versions.sort(key=lambda s: version_rank(s.version), reverse=True)
        versions.sort(key=lambda s: -s.version_priority)
    return groups


def local(registry: Registry) -> list[ApiService]:
    """Those of the built-in group versions (upstream has none for its own group)."""
    found = dict.fromkeys((t.group, t.version) for t in registry if t.group != GROUP)
    return [ApiService(g, v, *_PRIORITIES.get((g, v), _OTHERS)) for g, v in found]


class ApiServices:
    """All APIServices as they are now, by name. changed: called after every change."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._held: dict[str, ApiService] = {s.name: s for s in local(registry)}
        self._remote: dict[tuple[str, str], ApiService] = {}
        self._order: dict[str, list[ApiService]] | None = None
        self._task: asyncio.Task[None] | None = None
        self.revision = 0  # grows with every change
        self.changed: list[Callable[[], None]] = []

    # -- at the start --------------------------------------------------------------------------

    async def register(self, store: Store, *, uid: Callable[[], str], at: str) -> None:
        """Local ones are there for all that is built in. Those that were made here and stand for
        nothing any more go; what somebody else made or changed the label of stays as it is."""
        wanted = {s.name: s for s in local(self._registry)}
        ops: list[Put | Delete] = []
        for record in (await store.range(Key.prefix(RESOURCE))).records:
            held = obj_of(record)
            service = wanted.pop(held.name, None)
            if held.labels.get(MANAGED) != _ON_START:
                continue
            if service is None:
                ops.append(Delete(record.key, expect=record.revision))
            elif held.spec != _spec(service):
                body = {**orjson.loads(held.raw), "spec": _spec(service)}
                ops.append(Put(record.key, encode(body), expect=record.revision))
        for service in wanted.values():
            key = Key(RESOURCE, "", service.name)
            ops.append(Put(key.path, encode(_body(service, uid(), at)), expect=0))
        if ops:
            await store.commit(*ops)

    # -- keeping current -----------------------------------------------------------------------

    async def start(self, store: Store) -> None:
        """Read all, and follow them until ``stop``."""
        since = await self._load(store)
        self._task = asyncio.create_task(self._follow(store, since))

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _load(self, store: Store) -> int:
        found = await store.range(Key.prefix(RESOURCE))
        self._held = {}
        for record in found.records:
            self._take(record)
        self._tell()
        return found.revision

    async def _follow(self, store: Store, since: int) -> None:
        while True:
            watch = store.watch(Key.prefix(RESOURCE), since=since)
            try:
                async for changes in watch:
                    for change in changes:
                        if change.record is None:
                            self._held.pop(Key.parse(change.key).name, None)
                        else:
                            self._take(change.record)
                    self._tell()
                return
            except Compacted:
                since = await self._load(store)
            finally:
                watch.close()

    def _take(self, record: Record) -> None:
        self._held[Key.parse(record.key).name] = read(orjson.loads(record.value))

    def _tell(self) -> None:
        self._remote = {
            (s.group, s.version): s for s in self._held.values() if s.service is not None
        }
        self._order = None
        self.revision += 1
        for tell in self.changed:
            tell()

    # -- reading -------------------------------------------------------------------------------

    @property
    def has_remote(self) -> bool:
        return bool(self._remote)

    def remote(self, group: str, version: str) -> ApiService | None:
        """The APIService of a group version that somebody else answers for."""
        return self._remote.get((group, version))

    def remotes(self) -> list[ApiService]:
        return [self._remote[key] for key in sorted(self._remote)]

    def get(self, name: str) -> ApiService | None:
        return self._held.get(name)

    def groups(self) -> dict[str, list[ApiService]]:
        """All of them in the order of discovery; shared, not to be edited."""
        if self._order is None:
            self._order = ordered(self._held.values())
        return self._order


def _spec(service: ApiService) -> Body:
    spec: Body = {"group": service.group} if service.group else {}
    return {
        **spec, "groupPriorityMinimum": service.group_priority, "version": service.version,
        "versionPriority": service.version_priority,
    }  # fmt: skip


def _body(service: ApiService, uid: str, at: str) -> Body:
    meta: Body = {"name": service.name, "uid": uid, "creationTimestamp": at}
    if service.group not in _REPLACEABLE:
        meta["labels"] = {MANAGED: _ON_START}
    return {
        "apiVersion": f"{GROUP}/v1", "kind": "APIService", "metadata": meta,
        "spec": _spec(service), "status": {"conditions": [local_condition(at)]},
    }  # fmt: skip
