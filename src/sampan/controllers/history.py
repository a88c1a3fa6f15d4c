"""ControllerRevisions: the templates a StatefulSet or a DaemonSet has had.

A revision's data is a strategic merge patch that puts the template back
(``{"spec": {"template": {"$patch": "replace", ...}}}``), which is what ``kubectl rollout undo``
applies. Equal data is the same revision, whatever its number: a rollback only raises the number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import orjson

from sampan.api.obj import Body, Key, Obj
from sampan.control.plan import Delete, Patch
from sampan.controllers import pods as podlib
from sampan.controllers import rollout

RESOURCE = "controllerrevisions.apps"
POD_HASH = "controller-revision-hash"


def snapshot(owner: Body) -> Body:
    """The data of a revision of *owner* as it is now, with its members in order (kubectl compares
    bytes)."""
    data = {"spec": {"template": {**owner["spec"]["template"], "$patch": "replace"}}}
    found: Body = orjson.loads(key_of(data))
    return found


def key_of(data: Body | None) -> bytes:
    """Equal for equal data."""
    return orjson.dumps(data or {}, option=orjson.OPT_SORT_KEYS)


def template_of(revision: Body) -> Body:
    """The template a revision keeps."""
    template: Body = (revision.get("data") or {})["spec"]["template"]
    return {k: v for k, v in template.items() if k != "$patch"}


def number_of(revision: Body) -> int:
    return int(revision.get("revision", 0))


def in_order(revisions: Iterable[Obj]) -> list[Body]:
    """Oldest first: by number, then by age."""
    return sorted(
        (r.body for r in revisions),
        key=lambda r: (
            number_of(r), r["metadata"].get("creationTimestamp", ""), r["metadata"]["name"],
        ),
    )  # fmt: skip


def free_name(
    owner: Body, data: Body, named: Callable[[str], Obj | None]
) -> tuple[str, str, int, Body | None]:
    """(name, hash, collision count, the revision that has this name and this data already).

    The count is raised over every name that other data has taken."""
    collisions = int((owner.get("status") or {}).get("collisionCount") or 0)
    while True:
        digest = rollout.template_hash(data, collisions)
        name = f"{owner['metadata']['name'][:223]}-{digest}"
        held = named(name)
        if held is None:
            return name, digest, collisions, None
        if key_of(held.body.get("data")) == key_of(data):
            return name, digest, collisions, held.body
        collisions += 1


def build(
    owner: Body, data: Body, *, kind: str, name: str, number: int, labels: dict[str, str]
) -> Body:
    """A new revision; it carries the owner's annotations (kubectl shows the change cause)."""
    meta: Body = {
        "name": name,
        "namespace": owner["metadata"]["namespace"],
        "labels": {**(owner["spec"]["template"]["metadata"].get("labels") or {}), **labels},
        "ownerReferences": [podlib.owner_reference(owner, api_version="apps/v1", kind=kind)],
    }
    if notes := owner["metadata"].get("annotations"):
        meta["annotations"] = dict(notes)
    return {
        "apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": meta, "data": data,
        "revision": number,
    }  # fmt: skip


def adopt(revision: Obj, owner: Body, *, kind: str) -> Patch:
    ref = podlib.owner_reference(owner, api_version="apps/v1", kind=kind)
    patch = {"metadata": {"uid": revision.uid, "ownerReferences": [ref]}}
    return Patch(revision.key, patch, kind="strategic")


def beyond_limit(
    owner: Body, revisions: Sequence[Body], live: Iterable[str], *, count_live: bool
) -> list[Delete]:
    """Deletions of the oldest of *revisions* beyond revisionHistoryLimit; those named in *live*
    stay (and count against the limit where *count_live*). A negative limit keeps all."""
    limit = int(owner["spec"].get("revisionHistoryLimit", 10))
    kept = set(live)
    dead = [r for r in revisions if r["metadata"]["name"] not in kept]
    surplus = len(revisions if count_live else dead) - limit
    if limit < 0 or surplus <= 0:
        return []
    return [
        Delete(Key(RESOURCE, r["metadata"]["namespace"], r["metadata"]["name"]),
               uid=r["metadata"]["uid"])
        for r in dead[:surplus]
    ]  # fmt: skip
