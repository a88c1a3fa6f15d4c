"""Who manages which fields of an object (``metadata.managedFields``), and server-side apply.

Pure. Every write that is no apply takes over the fields it adds or changes; an apply says which
fields are its manager's, and conflicts where it would change what is another's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import orjson

from sampan.api.obj import Body
from sampan.schema import fieldsets, shapes
from sampan.schema.fieldsets import FieldSet
from sampan.schema.shapes import Shape

APPLY, UPDATE = "Apply", "Update"
BEFORE_FIRST = "before-first-apply"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
MOST_UPDATERS = 10
_ANCIENT = "ancient-changes"
# Nobody's: what the server alone decides, and what makes an object the one it is.
_NOBODYS = fieldsets.of_paths("apiVersion", "kind", *(
    f"metadata.{name}" for name in (
        "name", "namespace", "creationTimestamp", "selfLink", "uid", "generation", "managedFields",
        "resourceVersion",
    )
))  # fmt: skip
_NOBODYS["f:metadata"] = {fieldsets.MEMBER: {}, **_NOBODYS["f:metadata"]}


class Manager(NamedTuple):
    """Whose entry it is. api_version is '' for those who apply: theirs is one entry whatever the
    version they spoke."""

    operation: str
    name: str
    api_version: str
    subresource: str

    @staticmethod
    def of(operation: str, name: str, api_version: str, subresource: str = "") -> Manager:
        return Manager(operation, name, "" if operation == APPLY else api_version, subresource)


@dataclass(frozen=True, slots=True)
class Entry:
    fields: FieldSet
    api_version: str
    time: str = ""


Managers: TypeAlias = dict[Manager, Entry]


@dataclass(frozen=True, slots=True)
class Conflict:
    """Fields of another manager that an apply would change."""

    manager: Manager
    time: str
    fields: FieldSet

    def __str__(self) -> str:
        said = f'"{self.manager.name}"'
        if self.manager.subresource:
            said += f' with subresource "{self.manager.subresource}"'
        if self.manager.operation == UPDATE:
            said += f" using {self.manager.api_version}" + (f" at {self.time}" if self.time else "")
        return said


@dataclass(frozen=True, slots=True)
class Applied:
    """What an apply makes of an object; with conflicts, nothing."""

    body: Body
    managers: Managers
    conflicts: tuple[Conflict, ...] = ()


# -- as the API writes them ------------------------------------------------------------------------


def decode(entries: Any, *, is_ours: bool = False) -> Managers | None:
    """The managers of ``metadata.managedFields``; None where it is malformed, which what this
    server wrote (*is_ours*) is not."""
    found: Managers = {}
    for entry in entries or ():
        if not isinstance(entry, dict) or entry.get("operation") not in (APPLY, UPDATE):
            return None
        fields = entry.get("fieldsV1") or {}
        if not is_ours and not fieldsets.is_well_formed(fields):
            return None
        version = str(entry.get("apiVersion") or "")
        manager = Manager.of(
            entry["operation"], str(entry.get("manager") or ""), version,
            str(entry.get("subresource") or ""),
        )  # fmt: skip
        found[manager] = Entry(fields, version, str(entry.get("time") or ""))
    return found


def encode(managers: Managers) -> list[Body]:
    """Those who apply first, each kind by time."""

    def order(item: tuple[Manager, Entry]) -> tuple[str, str, str, str, str]:
        manager, entry = item
        return (manager.operation, entry.time, manager.name, entry.api_version, manager.subresource)

    made = []
    several = sorted(managers.items(), key=order) if len(managers) > 1 else managers.items()
    for manager, entry in several:
        one: Body = {
            "manager": manager.name, "operation": manager.operation,
            "apiVersion": entry.api_version,
        }  # fmt: skip
        if entry.time:
            one["time"] = entry.time
        one |= {"fieldsType": "FieldsV1", "fieldsV1": entry.fields}
        if manager.subresource:
            one["subresource"] = manager.subresource
        made.append(one)
    return made


def given(new: Any, live: Any) -> Managers:
    """The managers a write starts from: those it sends (which is how clients change them; one
    empty entry resets them), else those of the object."""
    if isinstance(new, list) and len(new) == 1 and new[0] == {}:
        return {}
    if not new or new == live:
        return decode(live, is_ours=True) or {}
    return decode(new) or decode(live, is_ours=True) or {}


# -- writes that are no apply ----------------------------------------------------------------------


def update(
    shape: Shape, managers: Managers, old: Body, new: Body, *, manager: Manager, now: str,
    ignored: FieldSet,
) -> Managers:  # fmt: skip
    """The managers after *manager* has made *new* of *old*: what it added or changed is its own.
    ignored: fields the write cannot change whatever it says. Raises MissingKey."""
    changed = _changed(shape, old, new, ignored)
    if changed.is_same:
        return managers
    taken = fieldsets.union(changed.added, changed.modified)
    made = _reduced(managers, fieldsets.union(taken, changed.removed))
    taken = fieldsets.difference(taken, _NOBODYS)
    if taken:
        before = made.get(manager)
        if before is not None:
            taken = fieldsets.union(before.fields, taken)
        made[manager] = Entry(taken, manager.api_version, now)
    return _capped(made)


def _changed(shape: Shape, old: Body, new: Body, ignored: FieldSet) -> shapes.Difference:
    found = shapes.difference(shape, old, new)
    if not ignored:
        return found
    return shapes.Difference(*(fieldsets.without(part, ignored) for part in found))


def _reduced(managers: Managers, lost: FieldSet, but: Manager | None = None) -> Managers:
    """*managers* without the fields of *lost*; who has nothing left is gone."""
    made: Managers = {}
    for manager, entry in managers.items():
        if manager == but:
            made[manager] = entry
            continue
        rest = fieldsets.difference(entry.fields, lost)
        if rest is entry.fields:
            made[manager] = entry
        elif rest:
            made[manager] = replace(entry, fields=rest)
    return made


def _capped(managers: Managers) -> Managers:
    """Of too many updaters the oldest are put together, those of one version into one entry."""
    updaters = [m for m in managers if m.operation == UPDATE]
    if len(updaters) <= MOST_UPDATERS:
        return managers
    updaters.sort(key=lambda m: (managers[m].time, m))
    made = dict(managers)
    first: dict[str, Manager] = {}
    surplus = len(updaters) - MOST_UPDATERS
    for manager in updaters:
        if not surplus:
            break
        version = manager.api_version
        bucket = Manager(UPDATE, _ANCIENT, version, "")
        if version not in first:
            first[version] = manager
            continue
        if bucket not in made:
            made[bucket] = made.pop(first[version])
        entry = made.pop(manager)
        made[bucket] = replace(
            entry, fields=fieldsets.union(made[bucket].fields, entry.fields)
        )  # fmt: skip
        surplus -= 1
    return made


# -- apply -----------------------------------------------------------------------------------------


def apply(
    shape: Shape, managers: Managers, live: Body, config: Body, *, manager: Manager, version: str,
    now: str, force: bool, ignored: FieldSet,
) -> Applied:  # fmt: skip
    """What becomes of *live* when *manager* applies *config*. Raises MissingKey."""
    last = managers.get(manager)
    said = fieldsets.without(shapes.fields(shape, config), ignored)
    merged: Body = shapes.merge(shape, live, config)
    after = {**managers, manager: Entry(said, version, now)}
    if last is not None and last.fields:
        merged = _pruned(shape, merged, after, last.fields)
    wanted = fieldsets.difference(said, _NOBODYS)
    after[manager] = Entry(wanted, version, now)
    changed = _changed(shape, live, merged, ignored)
    touched = fieldsets.union(changed.added, changed.modified)
    conflicts = []
    for other, entry in managers.items():
        if other != manager:
            theirs = fieldsets.intersection(entry.fields, touched)
            if theirs:
                conflicts.append(Conflict(other, entry.time, theirs))
    if conflicts and not force:
        conflicts.sort(key=lambda c: c.manager)
        return Applied(live, managers, tuple(conflicts))
    after = _reduced(after, fieldsets.union(touched, changed.removed), but=manager)
    if not wanted:
        del after[manager]
    if last is not None and changed.is_same and after.keys() == managers.keys():
        same = all(after[m].fields == managers[m].fields for m in after)
        if same and last.api_version == version:
            after = managers  # nothing was said that is new
    return Applied(merged, after)


def _pruned(shape: Shape, merged: Body, managers: Managers, last: FieldSet) -> Body:
    """*merged* without what its manager applied before, applies no more, and nobody else owns."""
    last = shapes.named(shape, last)
    pruned = shapes.remove(shape, merged, last) or {}
    everything = shapes.named(shape, shapes.fields(shape, merged))
    owned: FieldSet = {}
    for entry in managers.values():
        owned = fieldsets.union(owned, entry.fields)
    kept = fieldsets.union(
        shapes.named(shape, shapes.fields(shape, pruned)), shapes.named(shape, owned)
    )
    pruned = shapes.remove(shape, merged, fieldsets.difference(everything, kept)) or {}
    rest = shapes.named(shape, shapes.fields(shape, pruned))
    gone = fieldsets.intersection(fieldsets.difference(everything, rest), last)
    return {**(shapes.remove(shape, merged, gone) or {})}


def first_apply(
    shape: Shape, live: Body, *, version: str, now: str
) -> Managers:  # fmt: skip
    """The managers of an object nobody kept an account of. Raises MissingKey."""
    manager = Manager.of(UPDATE, BEFORE_FIRST, version)
    return update(shape, {}, {}, live, manager=manager, now=now, ignored={})


def conflict_message(conflicts: Iterable[Conflict]) -> str:
    """The refusal of an apply, in the words clients know."""
    by_manager: dict[str, list[str]] = {}
    for conflict in conflicts:
        by_manager.setdefault(str(conflict), []).extend(fieldsets.paths(conflict.fields))
    count = sum(map(len, by_manager.values()))
    if count == 1:
        ((manager, (path,)),) = by_manager.items()
        return f"Apply failed with 1 conflict: conflict with {manager}: {path}"
    lines = []
    for manager in sorted(by_manager):
        lines += [f"conflicts with {manager}:", *(f"- {path}" for path in by_manager[manager])]
    return f"Apply failed with {count} conflicts: " + "\n".join(lines)


# -- objects that ``kubectl apply`` made on its own ------------------------------------------------


def last_applied(body: Body) -> str:
    """The annotation of a client-side apply; '' where there is none."""
    return str((body["metadata"].get("annotations") or {}).get(LAST_APPLIED) or "")


def excused(shape: Shape, conflicts: Iterable[Conflict], applied: Body, live: Body) -> bool:
    """Whether all *conflicts* are about fields the client-side apply of *applied* had set and that
    still are as it set them: an apply by kubectl takes those over. Raises MissingKey."""
    own = shapes.fields(shape, applied)
    for part in shapes.difference(shape, applied, live):
        own = fieldsets.difference(own, part)
    return not any(fieldsets.difference(c.fields, own) for c in conflicts)


def annotated(body: Body, config: Body) -> Body:
    """*body* with *config* in its annotation, as the client-side apply would have left it."""
    meta = {k: v for k, v in config["metadata"].items() if k != "managedFields"}
    if meta.get("annotations"):
        meta["annotations"] = {k: v for k, v in meta["annotations"].items() if k != LAST_APPLIED}
    text = orjson.dumps({**config, "metadata": meta}, option=orjson.OPT_SORT_KEYS).decode() + "\n"
    annotations = {**(body["metadata"].get("annotations") or {}), LAST_APPLIED: text}
    return {**body, "metadata": {**body["metadata"], "annotations": annotations}}


def manager_name(field_manager: str, user_agent: str) -> str:
    """Who writes: as it calls itself, else the first word of its program's name."""
    if field_manager:
        return field_manager
    name = user_agent.partition("/")[0][:128]
    return "".join(c for c in name if c.isprintable()) or "unknown"
