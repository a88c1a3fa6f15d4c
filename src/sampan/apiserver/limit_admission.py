"""Admission by LimitRange: defaults of containers, and bounds of containers, pods and claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sampan.api import amounts
from sampan.api.amounts import Amounts
from sampan.api.errors import forbidden
from sampan.api.obj import Body, Key
from sampan.apiserver.pages import obj_of
from sampan.apiserver.stages import Write
from sampan.lib.quantity import Quantity

ANNOTATION = "kubernetes.io/limit-ranger"
_RANGES = "limitranges"


class LimitRanger:
    """Pods as they are created and resized; claims whenever they are written."""

    async def mutate(self, w: Write) -> None:
        if w.verb != "create" or w.t.resource != "pods":
            return
        for body in await self._held(w):
            _fill(w.body, _defaults(body))

    async def check(self, w: Write) -> None:
        resized = w.t.resource == "pods" and w.subresource == "resize"
        if (w.subresource and not resized) or w.verb not in ("create", "update"):
            return
        if resized or (w.t.resource == "pods" and w.verb == "create"):
            for body in await self._held(w):
                self._refuse(w, pod_problems(w.body["spec"], _items(body)))
        elif w.t.resource == "persistentvolumeclaims":
            for body in await self._held(w):
                self._refuse(w, claim_problems(w.body, _items(body)))

    @staticmethod
    def _refuse(w: Write, problems: Sequence[str]) -> None:
        if problems:
            text = problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]"
            raise forbidden(w.t.resource, w.name, text)

    @staticmethod
    async def _held(w: Write) -> list[Body]:
        found = await w.api.store.range(Key.prefix(_RANGES, w.namespace))
        return [obj_of(r).body for r in found.records]


def _items(body: Body) -> list[Body]:
    return (body.get("spec") or {}).get("limits") or []


def _defaults(body: Body) -> dict[str, Body]:
    made: dict[str, Body] = {"limits": {}, "requests": {}}
    for item in _items(body):
        if item.get("type") == "Container":
            made["limits"] |= item.get("default") or {}
            made["requests"] |= item.get("defaultRequest") or {}
    return made


def _fill(pod: Body, defaults: Mapping[str, Body]) -> None:
    told: list[str] = []
    for holder, called in (("containers", "container"), ("initContainers", "init container")):
        for container in pod["spec"].get(holder) or ():
            told += _fill_container(container, called, defaults)
    if told:
        notes = pod["metadata"].get("annotations") or {}
        text = f"LimitRanger plugin set: {'; '.join(told)}"
        pod["metadata"]["annotations"] = {**notes, ANNOTATION: text}


def _fill_container(container: Body, called: str, defaults: Mapping[str, Body]) -> list[str]:
    told: list[str] = []
    for kind, word in (("requests", "request"), ("limits", "limit")):
        resources = container.get("resources") or {}
        held = resources.get(kind) or {}
        added = {n: v for n, v in defaults[kind].items() if n not in held}
        if added:
            container["resources"] = {**resources, kind: {**held, **added}}
            told.append(f"{', '.join(sorted(added))} {word} for {called} {container['name']}")
    return told


def pod_problems(spec: Body, items: Sequence[Body]) -> list[str]:
    """What of a pod is out of bounds, as upstream says it."""
    found: list[str] = []
    for item in items:
        if item.get("type") == "Container":
            for holder in ("containers", "initContainers"):
                for container in spec.get(holder) or ():
                    given = container.get("resources") or {}
                    requests, limits = (amounts.read(given.get(k)) for k in ("requests", "limits"))
                    found += _bounds("Container", item, requests, limits)
        elif item.get("type") == "Pod":
            requests, limits = (amounts.of_pod(spec, k) for k in ("requests", "limits"))
            found += _bounds("Pod", item, requests, limits)
    return found


def claim_problems(claim: Body, items: Sequence[Body]) -> list[str]:
    found: list[str] = []
    given = (claim.get("spec") or {}).get("resources") or {}
    requests = amounts.read(given.get("requests"))
    for item in items:
        if item.get("type") != "PersistentVolumeClaim":
            continue
        found += _least("PersistentVolumeClaim", item, requests, {})
        for name, most in sorted(amounts.read(item.get("max")).items()):
            head = f"maximum {name} usage per PersistentVolumeClaim is {most}"
            if name not in requests:
                found.append(f"{head}.  No request is specified")
            elif requests[name] > most:
                found.append(f"{head}, but request is {requests[name]}")
    return found


def _bounds(kind: str, item: Body, requests: Amounts, limits: Amounts) -> list[str]:
    found = _least(kind, item, requests, limits)
    for name, most in sorted(amounts.read(item.get("max")).items()):
        head = f"maximum {name} usage per {kind} is {most}"
        if name not in limits:
            found.append(f"{head}.  No limit is specified")
        elif limits[name] > most:
            found.append(f"{head}, but limit is {limits[name]}")
        elif name in requests and requests[name] > most:
            found.append(f"{head}, but request is {requests[name]}")
    for name, most in sorted(amounts.read(item.get("maxLimitRequestRatio")).items()):
        found += _ratio(kind, name, most, requests.get(name), limits.get(name))
    return found


def _least(kind: str, item: Body, requests: Amounts, limits: Amounts) -> list[str]:
    found: list[str] = []
    for name, least in sorted(amounts.read(item.get("min")).items()):
        head = f"minimum {name} usage per {kind} is {least}"
        if name not in requests:
            found.append(f"{head}.  No request is specified")
        elif requests[name] < least:
            found.append(f"{head}, but request is {requests[name]}")
        elif name in limits and limits[name] < least:
            found.append(f"{head}, but limit is {limits[name]}")
    return found


def _ratio(
    kind: str, name: str, most: Quantity, request: Quantity | None, limit: Quantity | None
) -> list[str]:
    head = f"{name} max limit to request ratio per {kind} is {most}"
    if not request:
        return [f"{head}, but no request is specified or request is 0"]
    if not limit:
        return [f"{head}, but no limit is specified or limit is 0"]
    ratio = limit.value / request.value
    return [f"{head}, but provided ratio is {float(ratio):f}"] if ratio > most.value else []
