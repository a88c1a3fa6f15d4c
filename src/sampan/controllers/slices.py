"""EndpointSlices: which to create, change or remove so that together they show what is wanted.

Pure and frugal: a slice that needs no change is not written, an endpoint stays in the slice it is
in, new ones fill slices that are written anyway before a fresh one is made, and a slice that would
go is rather used again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from sampan.api.obj import Body, Key, Obj
from sampan.control.facts import WARNING, Event
from sampan.control.plan import Action, Create, Delete, Emit, Update

SLICES = "endpointslices.discovery.k8s.io"
SERVICE_LABEL = "kubernetes.io/service-name"
MANAGED_LABEL = "endpointslice.kubernetes.io/managed-by"
HEADLESS_LABEL = "service.kubernetes.io/headless"
TRIGGER_TIME = "endpoints.kubernetes.io/last-change-trigger-time"
FAILED = Event(
    WARNING, "FailedToUpdateEndpointSlices",
    "Error updating Endpoint Slices for Service {service}: {why}",
    "tests/controllers/test_endpointslice.py::test_a_refused_slice_is_told",
)  # fmt: skip
RESERVED_LABELS = (SERVICE_LABEL, MANAGED_LABEL, HEADLESS_LABEL)


@dataclass(slots=True)
class Group:
    """Endpoints that have the same ports."""

    ports: list[Body]
    endpoints: list[Body] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Maker:
    """What all slices of one owner have in common. owner: the Service or Endpoints (a body);
    reference: the owner reference to it; changed_at: uid of a target -> when it last changed."""

    owner: Body
    service: str
    labels: Mapping[str, str]
    reference: Body
    annotations: Mapping[str, str] = field(default_factory=dict)
    maximum: int = 100
    placeholder: bool = True
    changed_at: Mapping[str, str] = field(default_factory=dict)
    born: str = ""

    def new(self, family: str, ports: list[Body], endpoints: list[Body]) -> Body:
        meta: Body = {
            "generateName": f"{self.service}-",
            "namespace": self.owner["metadata"]["namespace"],
            "labels": dict(self.labels),
            "ownerReferences": [dict(self.reference)],
        }
        if self.annotations:
            meta["annotations"] = dict(self.annotations)
        return {
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": meta,
            "addressType": family, "endpoints": endpoints, "ports": ports,
        }  # fmt: skip


@dataclass(slots=True)
class Slice:
    """An existing slice (body; None for a new one) and what it shall hold."""

    body: Body | None
    ports: list[Body]
    endpoints: list[Body]
    is_changed: bool = False


def by_service(manager: str) -> Callable[[Obj], Iterable[str]]:
    """Index of EndpointSlices: ``namespace/service`` of those that *manager* keeps."""

    def index(obj: Obj) -> Iterable[str]:
        labels = obj.labels
        if labels.get(MANAGED_LABEL) == manager and labels.get(SERVICE_LABEL):
            yield f"{obj.namespace}/{labels[SERVICE_LABEL]}"

    return index


def ports_key(ports: Sequence[Body]) -> bytes:
    """Equal for equal sets of ports, whatever their order."""
    told = sorted(
        (p.get("name") or "", p.get("protocol") or "", p.get("port") or 0,
         p.get("appProtocol") or "") for p in ports
    )  # fmt: skip
    return orjson.dumps(told)


def identity(endpoint: Body) -> tuple[object, ...]:
    """What makes two endpoints the same one."""
    target = endpoint.get("targetRef") or {}
    return (tuple(endpoint["addresses"]), target.get("uid"), target.get("name"))


Arrange = Callable[[str, Sequence[Slice]], None]  # address type, all that there will be


def plan(
    maker: Maker, wanted: Mapping[str, Sequence[Group]], existing: Sequence[Body],
    arrange: Arrange = lambda _family, _slices: None,
) -> list[Action]:  # fmt: skip
    """wanted: by address type. Slices of other address types and of former owners go. arrange: may
    edit the endpoints once it is settled which slice they are in."""
    actions: list[Action] = []
    uid = maker.reference["uid"]
    foreign = [s for s in existing if not _is_owned(s, uid) or s["addressType"] not in wanted]
    born = maker.born if not existing else ""
    for family, groups in wanted.items():
        mine = [s for s in existing if s["addressType"] == family and _is_owned(s, uid)]
        actions += _plan_family(maker, family, groups, mine, born, arrange)
    return actions + [_delete(s) for s in foreign]


def _is_owned(body: Body, uid: str) -> bool:
    owners = body["metadata"].get("ownerReferences") or ()
    return any(o.get("uid") == uid and o.get("controller") for o in owners)


def _plan_family(
    maker: Maker, family: str, groups: Sequence[Group], existing: Sequence[Body], born: str,
    arrange: Arrange,
) -> list[Action]:  # fmt: skip
    held: dict[bytes, list[Body]] = {}
    for body in existing:
        held.setdefault(ports_key(body.get("ports") or ()), []).append(body)
    kept: list[Slice] = []
    fresh: list[Slice] = []
    for group in groups:
        if group.endpoints:
            found = held.pop(ports_key(group.ports), [])
            olds, news = _fill(group, found, maker.maximum)
            kept += olds
            fresh += news
    spare = [s.body for s in kept if not s.endpoints and s.body is not None]
    spare += [body for bodies in held.values() for body in bodies]
    kept = [s for s in kept if s.endpoints]
    if not kept and not fresh and maker.placeholder:
        fresh = [Slice(None, [], [], is_changed=True)]
    for made in fresh:
        if spare:
            made.body = spare.pop(0)  # written anew instead of one deleted and one created
    written = [*kept, *fresh]
    arrange(family, [*fresh, *kept])
    actions: list[Action] = []
    for item in written:
        action = _write(maker, family, item, born)
        if action is not None:
            actions.append(action)
    return actions + [_delete(body) for body in spare]


def _fill(group: Group, existing: Sequence[Body], maximum: int) -> tuple[list[Slice], list[Slice]]:
    pending = {identity(e): e for e in group.endpoints}
    slices: list[Slice] = []
    for body in existing:
        before: list[Body] = body.get("endpoints") or []
        now = [pending.pop(i) for e in before if (i := identity(e)) in pending]
        slices.append(Slice(body, group.ports, now, is_changed=now != before))
    waiting = list(pending.values())
    for item in sorted((s for s in slices if s.is_changed), key=lambda s: -len(s.endpoints)):
        room = max(maximum - len(item.endpoints), 0)
        item.endpoints += waiting[:room]
        waiting = waiting[room:]
    fresh: list[Slice] = []
    while len(waiting) >= maximum:
        fresh.append(Slice(None, group.ports, waiting[:maximum], is_changed=True))
        waiting = waiting[maximum:]
    if waiting:
        fits = [s for s in slices if s.endpoints and len(s.endpoints) + len(waiting) <= maximum]
        if fits:
            fullest = max(fits, key=lambda s: len(s.endpoints))
            fullest.endpoints = [*fullest.endpoints, *waiting]
            fullest.is_changed = True
        else:
            fresh.append(Slice(None, group.ports, waiting, is_changed=True))
    return slices, fresh


def _write(maker: Maker, family: str, item: Slice, born: str) -> Action | None:
    if item.body is None:
        body = maker.new(family, item.ports, item.endpoints)
        _set_trigger(body, _trigger_time(maker, item.endpoints, (), born))
        return Create(SLICES, body, failed=lambda problem: [_failure(maker, problem)])
    old = item.body
    meta = old["metadata"]
    same_labels = (meta.get("labels") or {}) == dict(maker.labels)
    notes = {k: v for k, v in (meta.get("annotations") or {}).items() if k != TRIGGER_TIME}
    same_notes = all(notes.get(k) == v for k, v in maker.annotations.items())
    same = (old.get("endpoints") or []) == item.endpoints and ports_key(
        old.get("ports") or ()
    ) == ports_key(item.ports)
    if same_labels and same_notes and same:
        return None
    new = {
        **old, "endpoints": item.endpoints, "ports": item.ports,
        "metadata": {**meta, "labels": dict(maker.labels),
                     "annotations": {**notes, **maker.annotations}},
    }  # fmt: skip
    time = _trigger_time(maker, item.endpoints, old.get("endpoints") or (), born)
    _set_trigger(new, time)
    return Update(SLICES, new)


def _trigger_time(maker: Maker, now: Sequence[Body], before: Sequence[Body], born: str) -> str:
    """The first of the changes this write tells of; '' where no target changed."""
    known = {identity(e): e for e in before}
    times = [
        maker.changed_at.get((e.get("targetRef") or {}).get("uid", ""), "")
        for e in now
        if known.get(identity(e)) != e
    ]
    return min((t for t in [*times, born] if t), default="")


def _set_trigger(body: Body, time: str) -> None:
    meta = body["metadata"]
    notes = {**(meta.get("annotations") or {})}
    if time:
        notes[TRIGGER_TIME] = time
    if notes:
        meta["annotations"] = notes
    else:
        meta.pop("annotations", None)


def _failure(maker: Maker, problem: str) -> Emit:
    service = f"{maker.owner['metadata']['namespace']}/{maker.service}"
    return FAILED.about(maker.owner, service=service, why=problem)


def _delete(body: Body) -> Action:
    meta = body["metadata"]
    return Delete(Key(SLICES, meta["namespace"], meta["name"]), meta.get("uid", ""))
