"""The RuntimeClass plug-in: a pod of a class costs what its class says, and goes where it may."""

from __future__ import annotations

from collections.abc import Sequence

from sampan.api.errors import StatusError, forbidden
from sampan.api.obj import Body, Obj
from sampan.apiserver.stages import Write
from sampan.lib.quantity import quantity

RESOURCE = "runtimeclasses.node.k8s.io"


class RuntimeClasses:
    """Creations of pods only: what a class says later is no business of pods that are there."""

    async def mutate(self, w: Write) -> None:
        if not _is_new_pod(w):
            return
        found = await _class_of(w)
        if found is None:
            return
        fixed = _fixed(found)
        spec = w.body["spec"]
        if fixed is not None:
            if spec.get("overhead") is not None and not _same(fixed, spec["overhead"]):
                raise _refused(w, "Pod's Overhead doesn't match RuntimeClass's defined Overhead")
            spec["overhead"] = dict(fixed)
        scheduling = found.body.get("scheduling")
        if scheduling is not None:
            spec |= placed(w, spec, scheduling)

    async def check(self, w: Write) -> None:
        if not _is_new_pod(w):
            return
        found, given = await _class_of(w), w.body["spec"].get("overhead")
        fixed = _fixed(found) if found is not None else None
        if fixed is None:
            if given is not None:
                why = "Pod Overhead set without corresponding RuntimeClass defined Overhead"
                raise _refused(w, why)
        elif not _same(fixed, given):
            raise _refused(w, "Pod's Overhead doesn't match RuntimeClass's defined Overhead")


def _is_new_pod(w: Write) -> bool:
    return w.verb == "create" and w.t.resource == "pods" and not w.subresource


async def _class_of(w: Write) -> Obj | None:
    name = w.body["spec"].get("runtimeClassName")
    if name is None:
        return None
    found = await w.api.find(RESOURCE, "", name)
    if found is None:
        raise _refused(w, f'RuntimeClass "{name}" not found')
    return found


def _refused(w: Write, why: str) -> StatusError:
    return forbidden("pods", w.name, f"pod rejected: {why}")


def _fixed(found: Obj) -> Body | None:
    """What a pod costs beside its containers; None where the class says nothing of it."""
    overhead = found.body.get("overhead")
    return None if overhead is None else (overhead.get("podFixed") or {})


def _same(one: Body, other: Body | None) -> bool:
    other = other or {}
    return one.keys() == other.keys() and all(
        quantity(one[k]).value == quantity(other[k]).value for k in one
    )


def placed(w: Write, spec: Body, scheduling: Body) -> Body:
    """Where the pod may go: only where both say so."""
    chosen = dict(spec.get("nodeSelector") or {})
    for key, value in (scheduling.get("nodeSelector") or {}).items():
        if chosen.get(key, value) != value:
            raise forbidden(
                "pods", w.name,
                f"conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; "
                f"pod.spec.nodeSelector[{key}] = {chosen[key]}",
            )  # fmt: skip
        chosen[key] = value
    found: Body = {"nodeSelector": chosen} if chosen else {}
    tolerated = merged(spec.get("tolerations") or (), scheduling.get("tolerations") or ())
    return {**found, "tolerations": tolerated} if tolerated else found


def merged(first: Sequence[Body], second: Sequence[Body]) -> list[Body]:
    """All of both, without those that another one covers."""
    both, kept = [*first, *second], list[Body]()
    for i, one in enumerate(both):
        if any(covers(held, one) for held in kept):
            continue
        if any(later != one and covers(later, one) for later in both[i + 1 :]):
            continue
        kept.append(one)
    return kept


def covers(wide: Body, narrow: Body) -> bool:
    """Whether *wide* tolerates all that *narrow* does."""
    if wide == narrow:
        return True
    key, operator = wide.get("key") or "", wide.get("operator") or "Equal"
    if (narrow.get("key") or "") != key and (key or operator != "Exists"):
        return False
    effect = wide.get("effect") or ""
    if effect and (narrow.get("effect") or "") != effect:
        return False
    seconds = wide.get("tolerationSeconds")
    if effect == "NoExecute" and seconds is not None:
        asked = narrow.get("tolerationSeconds")
        if asked is None or asked > seconds:
            return False
    if operator == "Exists":
        return True
    same = (narrow.get("value") or "") == (wide.get("value") or "")
    return operator == "Equal" and (narrow.get("operator") or "Equal") == "Equal" and same
