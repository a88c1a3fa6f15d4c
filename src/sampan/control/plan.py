"""What a controller is and what its plans are made of: values only, no I/O."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from sampan.api.errors import StatusError
from sampan.api.obj import Body, Key, Obj, Page


@dataclass(frozen=True, slots=True)
class Create:
    """Create *body*. Runs of Creates in one plan are executed slow-start (1, 2, 4, ...): the rest
    of a run is dropped at the first failed batch and the key is retried with back-off.
    on_error: an Emit's (reason, message prefix) is not needed: ``failed`` makes the actions to
    run when the creation is refused (for example a FailedCreate event)."""

    resource: str
    body: Body
    failed: Callable[[str], Sequence[Action]] | None = None
    done: Callable[[Obj], Sequence[Action]] | None = None  # e.g. a SuccessfulCreate event


@dataclass(frozen=True, slots=True)
class Update:
    """Replace the object (optimistic where body carries its resourceVersion). then: makes what
    follows from the answer; with it a refusal is an answer too, and the plan goes on."""

    resource: str
    body: Body
    subresource: str = ""
    then: Callable[[Obj | StatusError], Sequence[Action]] | None = None


@dataclass(frozen=True, slots=True)
class Patch:
    """kind: json, merge, strategic."""

    key: Key
    patch: Any
    kind: str = "merge"
    subresource: str = ""


@dataclass(frozen=True, slots=True)
class SetStatus:
    """Write the status subresource (optimistic: body carries its resourceVersion).

    patient: only counts what others do. A plan of nothing else waits for a few milliseconds and is
    made anew, so that changes which come together cost one write (``engine.PATIENCE_SECONDS``)."""

    resource: str
    body: Body
    patient: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Delete:
    key: Key
    uid: str = ""
    revision: int = 0
    grace: int | None = None
    propagation: str = ""
    done: Callable[[], Sequence[Action]] | None = None
    failed: Callable[[str], Sequence[Action]] | None = None


@dataclass(frozen=True, slots=True)
class DeleteAll:
    """Everything of *resource* in *namespace*; nothing waits for the caches to show it."""

    resource: str
    namespace: str


@dataclass(frozen=True, slots=True)
class Emit:
    """An Event about *regarding* (an object's body). type: Normal or Warning."""

    regarding: Body
    type: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Again:
    """Reconcile the key again after so many seconds (earliest wins)."""

    after: float


@dataclass(frozen=True, slots=True)
class Ask:
    """One question to the API: the object of a name, or without one the list. options: more query
    parameters, by their names."""

    resource: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    labels: str = ""
    options: Mapping[str, str] = field(default_factory=dict)


Answer: TypeAlias = Obj | Page | StatusError


@dataclass(frozen=True, slots=True)
class Read:
    """Ask the API itself, where caches do not do: what is not stored (metrics, scale), and counts
    that must not be older than what was observed. Answers come in the order of *asks*; what was
    refused is an answer too. *then* makes the actions that follow: it is pure, as a plan is."""

    asks: tuple[Ask, ...]
    then: Callable[[Sequence[Answer]], Sequence[Action]]


@dataclass(frozen=True, slots=True)
class Probe:
    """Ask a peer that is no part of the API. *ask* waits for its answer and does not raise; *then*
    makes the actions that follow: it is pure, as a plan is."""

    ask: Callable[[], Awaitable[Any]]
    then: Callable[[Any], Sequence[Action]]


Action: TypeAlias = (
    Create | Update | Patch | SetStatus | Delete | DeleteAll | Emit | Again | Read | Probe
)


class Cache(Protocol):
    """Current objects of one resource, indexed. Objects are shared: never edit them."""

    def get(self, namespace: str, name: str) -> Obj | None: ...
    def list(self, namespace: str = "") -> Sequence[Obj]: ...
    def by(self, index: str, value: str) -> Sequence[Obj]:
        """Objects by index. Always there: ``owner`` (uid of each owner reference). Others as
        declared by ``Controller.indexes``."""
        ...


class Caches(Protocol):
    def __getitem__(self, resource: str) -> Cache: ...


@dataclass(frozen=True, slots=True)
class Trigger:
    """Events of *resource* wake the keys that ``keys(obj, caches)`` names. On an update it is
    asked for the old and the new object. matters(old, new): whether an update wakes anybody at
    all; without it every one does."""

    resource: str
    keys: Callable[[Obj, Caches], Iterable[Key]]
    matters: Callable[[Obj, Obj], bool] | None = None


def own(resource: str) -> Trigger:
    """Events of the controller's own kind wake the object itself."""
    return Trigger(resource, lambda obj, _caches: (obj.key,))


def owned(resource: str, by: str, kind: str) -> Trigger:
    """Events of a dependent wake its controller owner of *kind* (whose resource is *by*)."""

    def keys(obj: Obj, _caches: Caches) -> Iterable[Key]:
        ref = obj.controller
        if ref is not None and ref.get("kind") == kind:
            yield Key(by, obj.namespace, ref["name"])

    return Trigger(resource, keys)


class Controller(Protocol):
    """A reconciler: ``observe`` reads caches, ``plan`` decides, the engine executes. A key is not
    run again before the caches have reached its own writes.

    name: also its event source and the user-agent. workers: keys planned at once.
    indexes: resource -> {index name: obj -> values}.
    """

    name: str
    workers: int
    triggers: tuple[Trigger, ...]
    indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]]

    def observe(self, key: Key, caches: Caches) -> Any:
        """A view for ``plan``, or None when there is nothing to do."""
        ...

    def plan(self, view: Any, now: float) -> Sequence[Action]: ...
