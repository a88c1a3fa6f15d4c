"""Jobs that ended go ``ttlSecondsAfterFinished`` later, and their pods with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from sampan.api.obj import Key, Obj
from sampan.control.plan import Action, Again, Caches, Delete, Trigger, own
from sampan.lib.clock import parse_rfc3339

_RESOURCE = "jobs.batch"


class TtlAfterFinishedController:
    """Deletes Jobs whose time after their end is over."""

    name = "ttl-after-finished-controller"
    workers = 2

    def __init__(self) -> None:
        self.triggers: tuple[Trigger, ...] = (own(_RESOURCE),)
        self.indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]] = {}

    def observe(self, key: Key, caches: Caches) -> Obj | None:
        job = caches[_RESOURCE].get(key.namespace, key.name)
        if job is None or job.is_deleting or _expires(job) is None:
            return None
        return job

    def plan(self, view: Obj, now: float) -> Sequence[Action]:
        at = _expires(view)
        assert at is not None
        if at > now:
            return [Again(at - now)]
        # Only as it was seen: somebody may have lengthened its time just now.
        return [Delete(view.key, uid=view.uid, revision=view.revision, propagation="Foreground")]


def _expires(job: Obj) -> float | None:
    """When its time is over; None while it runs or without a limit."""
    limit = job.spec.get("ttlSecondsAfterFinished")
    if limit is None:
        return None
    ends = [
        c["lastTransitionTime"]
        for c in job.status.get("conditions") or ()
        if c["type"] in ("Complete", "Failed") and c["status"] == "True"
    ]
    return parse_rfc3339(ends[0]) + float(limit) if ends else None
