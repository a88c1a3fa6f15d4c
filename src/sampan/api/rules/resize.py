"""``pods/resize``: of a pod's containers only cpu and memory may change, and how a change of them
is made."""

from __future__ import annotations

from typing import Any

from sampan.api.errors import Cause
from sampan.api.obj import Body
from sampan.api.rules import pod
from sampan.api.rules.field import forbidden, invalid
from sampan.api.rules.prepare import qos_class
from sampan.api.rules.resources import POD_LEVEL
from sampan.lib.quantity import quantity

_LISTS = ("containers", "initContainers")
_TAKEN = ("resources", "resizePolicy")
_ONLY = "only cpu and memory resources are mutable"
_SIDECARS = "only cpu and memory resources for sidecar containers are mutable"
_INIT = "resources for non-sidecar init containers are immutable"


def take(sent: Body, new: Body) -> None:
    """Resources and resize policies of what was sent. Containers that come or go, or change their
    names, are taken too, for validation to refuse them."""
    given: Body = sent.get("spec") or {}
    spec: Body = new["spec"]
    for kind in _LISTS:
        theirs, mine = given.get(kind) or [], spec.get(kind) or []
        if len(theirs) != len(mine):
            spec[kind] = theirs
            continue
        for container, asked in zip(mine, theirs, strict=True):
            container["name"] = asked.get("name", "")
            _take(asked, container, _TAKEN)
    _take(given, spec, ("resources",))


def _take(source: Body, target: Body, names: tuple[str, ...]) -> None:
    for name in names:
        target.pop(name, None)
        if source.get(name) is not None:
            target[name] = source[name]


def validate(new: Body, old: Body) -> list[Cause]:
    """All problems of a resize."""
    after, before = new["spec"], old["spec"]
    annotations = (old.get("metadata") or {}).get("annotations") or {}
    if pod.MIRROR in annotations:
        return [forbidden("", "static pods cannot be resized")]
    if (before.get("os") or {}).get("name") == "windows":
        return [forbidden("", "windows pods cannot be resized")]
    found = pod.validate(new)
    renamed = _renamed(after, before)
    if renamed:
        return found + renamed
    was = (old.get("status") or {}).get("qosClass") or qos_class(before)
    if qos_class(after) != was:
        found.append(invalid("spec", was, "Pod QOS Class may not change as a result of resizing"))
    if not _is_supported(old):
        found.append(forbidden("spec", "Pod running on node without support for resize"))
    for kind in _LISTS:
        for i, (mine, theirs) in enumerate(
            zip(after.get(kind) or (), before.get(kind) or (), strict=True)
        ):
            if kind == "initContainers" and theirs.get("restartPolicy") != "Always":
                if mine != theirs:
                    found.append(forbidden("spec", _INIT))
                continue
            found += _kept(f"spec.{kind}[{i}].resources", mine, theirs)
            if _without(mine) != _without(theirs):
                found.append(forbidden("spec", _ONLY if kind == "containers" else _SIDECARS))
    found += _kept("spec.resources", after, before)
    if _without(_whole(after)) != _without(_whole(before)):
        found.append(forbidden("spec", _ONLY))
    return found


def _renamed(after: Body, before: Body) -> list[Cause]:
    found: list[Cause] = []
    for kind in _LISTS:
        mine, theirs = after.get(kind) or (), before.get(kind) or ()
        if len(mine) != len(theirs):
            text = f"{kind} may not be added or removed on resize"
            found.append(forbidden(f"spec.{kind}", text))
            continue
        found += [
            forbidden(f"spec.{kind}[{i}].name", f"{kind} may not be renamed or reordered on resize")
            for i, (m, t) in enumerate(zip(mine, theirs, strict=True))
            if m.get("name") != t.get("name")
        ]
    return found


def _is_supported(old: Body) -> bool:
    """Whether the node tells what is in force; it may be left open while nothing runs."""
    for status in (old.get("status") or {}).get("containerStatuses") or ():
        if (status.get("state") or {}).get("running") is not None:
            return status.get("resources") is not None
    return True


def _whole(spec: Body) -> Body:
    """What a pod has beside its containers' resources."""
    return {"resources": spec.get("resources")}


def _kept(path: str, mine: Body, theirs: Body) -> list[Cause]:
    """What is requested or limited stays so."""
    found: list[Cause] = []
    for which in ("requests", "limits"):
        now = (mine.get("resources") or {}).get(which) or {}
        was = (theirs.get("resources") or {}).get(which) or {}
        if any(name not in now for name in was):
            found.append(forbidden(f"{path}.{which}", f"resource {which} cannot be removed"))
    return found


def _without(holder: Body) -> Body:
    """A container, or a spec, without the amounts that may change."""
    resources: Body = holder.get("resources") or {}
    kept = {
        which: {
            name: _amount(value)
            for name, value in (resources.get(which) or {}).items()
            if name not in POD_LEVEL
        }
        for which in ("requests", "limits")
    }
    claims = resources.get("claims") or []
    return {**holder, "resources": {**kept, "claims": claims}}


def _amount(value: Any) -> Any:
    try:
        return quantity(value)
    except ValueError:
        return value
