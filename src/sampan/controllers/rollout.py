"""The arithmetic of a Deployment's rollout: pure functions over the bodies of both kinds."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from sampan.api.obj import Body
from sampan.lib.ids import safe_encode

HASH = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED = "deployment.kubernetes.io/desired-replicas"
MAXIMUM = "deployment.kubernetes.io/max-replicas"
ROLLBACK = "deprecated.deployment.rollback.to"
_NOT_COPIED = frozenset({
    "kubectl.kubernetes.io/last-applied-configuration", REVISION, HISTORY, DESIRED, MAXIMUM,
    ROLLBACK,
})  # fmt: skip


def replicas(body: Body) -> int:
    """spec.replicas (1 where unset)."""
    return int(body["spec"].get("replicas", 1))


def count(body: Body | None, name: str) -> int:
    """A counter of the status."""
    return int(((body or {}).get("status") or {}).get(name, 0))


def notes_of(body: Body) -> dict[str, str]:
    found: dict[str, str] = body["metadata"].get("annotations") or {}
    return found


def revision(body: Body) -> int:
    """The revision annotation as a number; 0 where there is none."""
    try:
        return int(notes_of(body).get(REVISION, 0))
    except ValueError:
        return 0


def is_rolling(deployment: Body) -> bool:
    return bool((deployment["spec"].get("strategy") or {}).get("type") != "Recreate")


def resolve(value: Any, total: int, *, up: bool) -> int:
    """An absolute number, or a percentage of *total* rounded up or down."""
    if isinstance(value, str) and value.endswith("%"):
        part = total * int(value[:-1])
        return -(-part // 100) if up else part // 100
    return int(value)


def bounds(deployment: Body) -> tuple[int, int]:
    """(maxSurge, maxUnavailable) in pods. Both zero would never move: then one may be
    unavailable."""
    total = replicas(deployment)
    rolling = (deployment["spec"].get("strategy") or {}).get("rollingUpdate") or {}
    surge = resolve(rolling.get("maxSurge", 0), total, up=True)
    unavailable = resolve(rolling.get("maxUnavailable", 0), total, up=False)
    return surge, unavailable if surge or unavailable else 1


def max_surge(deployment: Body) -> int:
    return bounds(deployment)[0] if is_rolling(deployment) else 0


def max_unavailable(deployment: Body) -> int:
    total = replicas(deployment)
    return min(bounds(deployment)[1], total) if is_rolling(deployment) and total else 0


def template_key(template: Body) -> bytes:
    """Equal for templates that are equal but for the hash label."""
    meta = dict(template.get("metadata") or {})
    labels = {k: v for k, v in (meta.get("labels") or {}).items() if k != HASH}
    meta["labels"] = labels
    meta.pop("creationTimestamp", None)
    return orjson.dumps({**template, "metadata": meta}, option=orjson.OPT_SORT_KEYS)


def bare_template(template: Body) -> Body:
    """*template* of a ReplicaSet without the hash label."""
    meta = template.get("metadata") or {}
    labels = {k: v for k, v in (meta.get("labels") or {}).items() if k != HASH}
    return {**template, "metadata": {**meta, "labels": labels}}


def template_hash(template: Body, collisions: int) -> str:
    """The pod-template-hash: of the right form, stable for equal templates and collision counts."""
    data = orjson.dumps(template, option=orjson.OPT_SORT_KEYS)
    digest = hashlib.blake2b(data + b"%d" % collisions, digest_size=4).digest()
    return safe_encode(str(int.from_bytes(digest, "big")))


def by_age(sets: Iterable[Body]) -> list[Body]:
    """Oldest first."""
    return sorted(
        sets, key=lambda s: (s["metadata"].get("creationTimestamp", ""), s["metadata"]["name"])
    )


def find_new(deployment: Body, sets: Sequence[Body]) -> Body | None:
    """The oldest ReplicaSet with the Deployment's template."""
    wanted = template_key(deployment["spec"]["template"])
    return next((s for s in by_age(sets) if template_key(s["spec"]["template"]) == wanted), None)


def new_size(deployment: Body, sets: Sequence[Body], current: int) -> int:
    """How many replicas the new set (now with *current*) may have: as many as maxSurge leaves."""
    total = replicas(deployment)
    if not is_rolling(deployment):
        return total
    room = total + max_surge(deployment) - sum(replicas(s) for s in sets)
    return current if room <= 0 else current + min(room, total - current)


def copied_annotations(deployment: Body, old: dict[str, str]) -> dict[str, str]:
    """A set's annotations with the Deployment's put over them."""
    given = {k: v for k, v in notes_of(deployment).items() if k not in _NOT_COPIED}
    return {**old, **given}


def restored_annotations(deployment: Body, replica_set: Body) -> dict[str, str]:
    """A Deployment's annotations after a rollback: its own bookkeeping, the rest as the set had
    it."""
    own = {k: v for k, v in notes_of(deployment).items() if k in _NOT_COPIED and k != ROLLBACK}
    return {**own, **{k: v for k, v in notes_of(replica_set).items() if k not in _NOT_COPIED}}


def with_revision(old: dict[str, str], number: int) -> dict[str, str]:
    """Annotations raised to revision *number*; the one before is remembered in the history."""
    before = old.get(REVISION, "")
    if before.isdigit() and int(before) >= number:
        return old
    out = {**old, REVISION: str(number)}
    if before:
        history = [r for r in old.get(HISTORY, "").split(",") if r]
        out[HISTORY] = ",".join([*history, before])
    return out


def size_annotations(deployment: Body) -> dict[str, str]:
    """What a set remembers of the Deployment's size, for proportional scaling."""
    total = replicas(deployment)
    return {DESIRED: str(total), MAXIMUM: str(total + max_surge(deployment))}


def proportion(deployment: Body, replica_set: Body, to_add: int, added: int) -> int:
    """This set's share of *to_add* replicas when a Deployment is scaled in the middle of a
    rollout."""
    if not replicas(replica_set) or not to_add or to_add == added:
        return 0
    share, allowed = _fraction(deployment, replica_set), to_add - added
    return min(share, allowed) if to_add > 0 else max(share, allowed)


def _fraction(deployment: Body, replica_set: Body) -> int:
    size = replicas(replica_set)
    if not replicas(deployment):
        return -size
    maximum = replicas(deployment) + max_surge(deployment)
    before = notes_of(replica_set).get(MAXIMUM, "")
    known = int(before) if before.isdigit() else count(deployment, "replicas")
    if not known:
        return 0
    return _round(size * maximum / known) - size


def _round(value: float) -> int:
    """Half away from zero."""
    return math.floor(value + 0.5) if value >= 0 else math.ceil(value - 0.5)


def condition(body: Body, kind: str) -> Body | None:
    """The condition of a type in a body's status."""
    conditions: list[Body] = (body.get("status") or {}).get("conditions") or []
    return next((c for c in conditions if c["type"] == kind), None)


def set_condition(conditions: list[Body], new: Body, *, refresh: bool = False) -> list[Body]:
    """*conditions* with *new* in the place of its type. Unless *refresh*, one with the same status
    and reason stays as it is; the transition time moves only with the status."""
    old = next((c for c in conditions if c["type"] == new["type"]), None)
    if old is not None:
        same = old["status"] == new["status"]
        if same and old.get("reason") == new.get("reason") and not refresh:
            return conditions
        if same:
            new = {**new, "lastTransitionTime": old["lastTransitionTime"]}
    return [*(c for c in conditions if c["type"] != new["type"]), new]
