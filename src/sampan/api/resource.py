"""ResourceType: the only place a kind is described; everything downstream derives from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from sampan.api.errors import Cause
from sampan.api.obj import Body

ALL_VERBS = (
    "create", "delete", "deletecollection", "get", "list", "patch", "update", "watch",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Column:
    """One table column. cell: body, now (epoch seconds) -> JSON scalar. priority 1 = wide only."""

    name: str
    cell: Callable[[Body, float], object]
    type: str = "string"
    format: str = ""
    priority: int = 0
    description: str = ""


def _nothing(_body: Body) -> None: ...
def _nothing2(_new: Body, _old: Body) -> None: ...
def _no_causes(_body: Body) -> list[Cause]:
    return []


def _no_causes2(_new: Body, _old: Body) -> list[Cause]:
    return []


def _no_warnings(_body: Body) -> list[str]:
    return []


@dataclass(frozen=True, slots=True)
class Alias:
    """Another shape of the objects of another resource, which are stored once.

    of: that resource. stored / shown: a body of this shape as one of that, and back (both make a
    new body). fields: names of field selectors here -> there.
    """

    of: str
    stored: Callable[[Body], Body]
    shown: Callable[[Body], Body]
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Part:
    """A subresource that changes one part of its object. take: puts that part of what a client sent
    into a copy of the current object; validate: all problems of the change; of_status: the part is
    of the status, so that ``prepare_update`` is not asked."""

    take: Callable[[Body, Body], None]
    validate: Callable[[Body, Body], list[Cause]]
    of_status: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Pure hooks of one kind. default and prepare edit the body given to them in place.

    default: set defaults (idempotent; on every write, and on what patches produce).
    prepare_create / prepare_update: reset what clients may not set (status on create;
    status from old on update of the main resource; generation is the pipeline's work).
    prepare_status: on a status update take everything but status from old.
    validate / validate_update / validate_status: all problems, with field paths. validate is
    asked on creation and on update, validate_create on creation only.
    parts: by the names of their subresources.
    warn: texts for Warning headers.
    """

    default: Callable[[Body], None] = _nothing
    prepare_create: Callable[[Body], None] = _nothing
    prepare_update: Callable[[Body, Body], None] = _nothing2
    validate: Callable[[Body], list[Cause]] = _no_causes
    validate_create: Callable[[Body], list[Cause]] = _no_causes
    validate_update: Callable[[Body, Body], list[Cause]] = _no_causes2
    validate_status: Callable[[Body, Body], list[Cause]] = _no_causes2
    warn: Callable[[Body], list[str]] = _no_warnings
    parts: Mapping[str, Part] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ScalePaths:
    """Where the scale subresource finds its numbers. selector: a LabelSelector, or (CRDs) a
    selector's text; '' when the kind has none. is_map: the selector is a plain map of labels."""

    spec_replicas: str = "spec.replicas"
    status_replicas: str = "status.replicas"
    selector: str = "spec.selector"
    is_map: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceType:
    """One served resource in one version."""

    group: str = ""
    version: str = "v1"
    kind: str
    plural: str
    singular: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    namespaced: bool = True
    definition: str = ""  # name of its schema, e.g. io.k8s.api.core.v1.Pod
    verbs: tuple[str, ...] = ALL_VERBS
    subresources: tuple[str, ...] = ()  # status, scale, binding, token, log, exec, ...
    columns: tuple[Column, ...] = ()
    fields: Mapping[str, Callable[[Body], str]] = field(default_factory=dict)
    rules: Rules = field(default_factory=Rules)
    volatile: bool = False  # Lease, Event: the store's lazy tier
    virtual: bool = False  # answered at once, never stored (reviews)
    alias: Alias | None = None  # stored in another shape
    has_status: bool = False  # status is a subresource: main writes keep the old status
    has_generation: bool = False  # metadata.generation grows when spec changes
    graceful: bool = False  # deletion waits for deletionGracePeriodSeconds (pods)
    name_rule: str = "subdomain"  # subdomain, label or path (RBAC): lib.names.RULES
    scale: ScalePaths | None = None  # present when "scale" is among the subresources
    deprecation: str = ""  # Warning text of every call, also of reads

    @property
    def resource(self) -> str:
        """``plural`` or ``plural.group``: the name used in keys, RBAC messages and errors."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


class Registry:
    """All served resource types; built-in kinds and (later) CRDs alike."""

    def __init__(self, types: tuple[ResourceType, ...] = ()) -> None:
        self._types: dict[tuple[str, str], ResourceType] = {}
        self._preferred: dict[str, ResourceType] = {}
        self._kinds: dict[tuple[str, str], ResourceType] = {}
        for t in types:
            self.add(t)

    def add(self, t: ResourceType) -> None:
        self._types[(t.resource, t.version)] = t
        self._preferred.setdefault(t.resource, t)
        self._kinds[(t.api_version, t.kind)] = t

    def get(self, resource: str, version: str = "") -> ResourceType | None:
        return self._types.get((resource, version)) if version else self._preferred.get(resource)

    def of_kind(self, api_version: str, kind: str) -> ResourceType | None:
        return self._kinds.get((api_version, kind))

    def __iter__(self) -> Iterator[ResourceType]:
        return iter(self._types.values())
