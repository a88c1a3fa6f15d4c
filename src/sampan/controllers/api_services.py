"""APIServices with a Service: whether their servers can be asked (kubernetes.io, Kubernetes API
Aggregation Layer). Those without one are always available.

Looked at when one of them, its Service or an EndpointSlice of that changes, and every 30 seconds,
sooner after a failure; where there is none, nothing runs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from sampan.api.obj import Body, Key, Obj
from sampan.api.rules.apiregistration import AVAILABLE, local_condition
from sampan.control.plan import Action, Again, Caches, Probe, SetStatus, Trigger, own
from sampan.controllers.rollout import condition
from sampan.lib.clock import rfc3339

RESOURCE = "apiservices.apiregistration.k8s.io"
SLICES = "endpointslices.discovery.k8s.io"
_OF = "kubernetes.io/service-name"
_EVERY = 30.0
_FIRST_RETRY = 0.25  # seconds; doubled after each failure, up to _EVERY
Check = Callable[[str], Awaitable[str]]


@dataclass(slots=True)
class Tries:
    """Failures of one APIService's server in a row."""

    failures: int = 0


@dataclass(frozen=True, slots=True)
class View:
    body: Body
    service: Obj | None
    slices: tuple[Obj, ...]
    tries: Tries


class ApiServiceAvailability:
    """check: asks the server of the APIService of a name for its group version; '' or why not."""

    name = "remote-available-controller"
    workers = 5

    def __init__(self, check: Check) -> None:
        self._check = check
        self._tries: dict[str, Tries] = {}
        self.triggers: tuple[Trigger, ...] = (
            own(RESOURCE),
            Trigger("services", lambda o, c: _by_service(c, o.namespace, o.name)),
            Trigger(SLICES, lambda o, c: _by_service(c, o.namespace, o.labels.get(_OF, ""))),
        )
        self.indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]] = {
            RESOURCE: {"service": _service_of}, SLICES: {"service": _service_of_slice},
        }  # fmt: skip

    def observe(self, key: Key, caches: Caches) -> View | None:
        one = caches[RESOURCE].get("", key.name)
        if one is None:
            self._tries.pop(key.name, None)
            return None
        ref = one.spec.get("service")
        if ref is None:
            return View(one.body, None, (), Tries())
        place = f"{ref['namespace']}/{ref['name']}"
        return View(
            one.body, caches["services"].get(ref["namespace"], ref["name"]),
            tuple(caches[SLICES].by("service", place)),
            self._tries.setdefault(key.name, Tries()),
        )  # fmt: skip

    def plan(self, view: View, now: float) -> Sequence[Action]:
        body, at = view.body, rfc3339(now)
        if body["spec"].get("service") is None:
            held = condition(body, AVAILABLE)
            new = local_condition(at)
            if held is not None and (held["status"], held.get("reason")) == ("True", "Local"):
                return []
            return _written(body, new)
        problem = problem_of(body["spec"]["service"], view.service, view.slices)
        if problem is not None:
            view.tries.failures = 0
            return _written(body, _condition("False", *problem, at))
        name = body["metadata"]["name"]
        return [Probe(lambda: self._check(name), lambda error: _checked(view, error, at))]


def _checked(view: View, error: str, at: str) -> Sequence[Action]:
    tries = view.tries
    if not error:
        tries.failures = 0
        new = _condition("True", "Passed", "all checks passed", at)
        return [Again(_EVERY), *_written(view.body, new)]
    pause = min(_FIRST_RETRY * 2**tries.failures, _EVERY)
    tries.failures = min(tries.failures + 1, 16)
    new = _condition("False", "FailedDiscoveryCheck", error, at)
    return [Again(pause), *_written(view.body, new)]


def problem_of(ref: Body, service: Obj | None, slices: Sequence[Obj]) -> tuple[str, str] | None:
    """What keeps a Service from being asked at all: reason and message of the condition."""
    name, namespace = ref["name"], ref["namespace"]
    where = f'service/{name} in "{namespace}"'
    if service is None:
        return "ServiceNotFound", f"{where} is not present"
    if service.spec.get("type", "ClusterIP") != "ClusterIP":
        return None
    number = ref.get("port")
    port = next((p for p in service.spec.get("ports") or () if p["port"] == number), None)
    if port is None:
        return "ServicePortError", f"{where} is not listening on port {number}"
    if not slices:
        return "EndpointsNotFound", f"cannot find endpointslices for {where}"
    if not any(_serves(s.body, port.get("name", "")) for s in slices):
        text = f'have no addresses with port name "{port.get("name", "")}"'
        return "MissingEndpoints", f"endpointslices for {where} {text}"
    return None


def _serves(body: Body, port: str) -> bool:
    ready = any(
        (e.get("conditions") or {}).get("ready") is not False for e in body.get("endpoints") or ()
    )
    named = any(
        p.get("name", "") == port and p.get("port") is not None for p in body.get("ports") or ()
    )
    return ready and named


def _condition(status: str, reason: str, message: str, at: str) -> Body:
    return {
        "type": AVAILABLE, "status": status, "lastTransitionTime": at, "reason": reason,
        "message": message,
    }  # fmt: skip


def _written(body: Body, new: Body) -> Sequence[Action]:
    """The status with its condition, where that says something else."""
    held = condition(body, AVAILABLE)
    if held is not None and held["status"] == new["status"]:
        new = {**new, "lastTransitionTime": held.get("lastTransitionTime")}
    if held == new:
        return []
    status = body.get("status") or {}
    others = [c for c in status.get("conditions") or () if c["type"] != AVAILABLE]
    return [SetStatus(RESOURCE, {**body, "status": {**status, "conditions": [*others, new]}})]


def _service_of(obj: Obj) -> Iterable[str]:
    ref = obj.spec.get("service")
    if ref is not None:
        yield f"{ref['namespace']}/{ref['name']}"


def _service_of_slice(obj: Obj) -> Iterable[str]:
    if _OF in obj.labels:
        yield f"{obj.namespace}/{obj.labels[_OF]}"


def _by_service(caches: Caches, namespace: str, name: str) -> Iterable[Key]:
    return [o.key for o in caches[RESOURCE].by("service", f"{namespace}/{name}")]
