"""HorizontalPodAutoscaler: as many replicas as its metrics ask for (kubernetes.io, Horizontal Pod
Autoscaling).

Every autoscaler is looked at when it is made or its spec changes and every 15 seconds; where there
is none, nothing runs. Replicas are read and set by the target's scale, usage by metrics.k8s.io.
What was recommended and done lately is remembered in memory, as upstream: a new controller starts
from the replicas it finds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sampan.api.errors import StatusError
from sampan.api.obj import Body, Key, Obj
from sampan.control.facts import NORMAL, WARNING, Condition, Event, Facts, Field
from sampan.control.plan import Action, Again, Answer, Ask, Caches, Read, SetStatus, Trigger, Update
from sampan.controllers import autoscale_metrics as metrics
from sampan.controllers.autoscale_math import tolerance_of
from sampan.controllers.autoscale_metrics import Outcome, Reading
from sampan.controllers.autoscale_rules import LIMITS, STABLE, Memory, rule
from sampan.lib.clock import rfc3339
from sampan.lib.selectors import Selector, SelectorError, parse_labels

RESOURCE = "horizontalpodautoscalers.autoscaling"
_API_SERVICES = "apiservices.apiregistration.k8s.io"
SYNC_SECONDS = 15.0
_TEST = "tests/controllers/test_autoscaler.py::"
_UP, _REFUSED = f"{_TEST}test_load_adds_replicas", f"{_TEST}test_a_refused_rescale_is_told"
_LOST, _FAIL = f"{_TEST}test_a_target_that_is_not_there", f"{_TEST}test_metrics_that_fail"
_SELECT = f"{_TEST}test_selectors_that_do_not_do"
RESCALED = Event(NORMAL, "SuccessfulRescale", "New size: {size}; reason: {reason}", _UP)
REFUSED = Event(
    WARNING, "FailedRescale", "New size: {size}; reason: {reason}; error: {error}", _REFUSED
)
LOST = Event(WARNING, "FailedGetScale", "{error}", _LOST)
UNSELECTED = Event(WARNING, "SelectorRequired", "selector is required", _SELECT)
UNREADABLE = Event(
    WARNING, "InvalidSelector",
    "couldn't convert selector into a corresponding internal selector object: {error}", _SELECT,
)  # fmt: skip
AMBIGUOUS = Event(
    WARNING, "AmbiguousSelector",
    "pods by selector {selector} are controlled by multiple HPAs: [{names}]", _SELECT,
)  # fmt: skip
UNCOMPUTED = Event(WARNING, "FailedComputeMetricsReplicas", "{error}", _FAIL)
FAILED = {
    reason: Event(WARNING, reason, "{error}", _FAIL)
    for reason in (
        "FailedGetResourceMetric", "FailedGetContainerResourceMetric", "FailedGetPodsMetric",
        "FailedGetObjectMetric", "FailedGetExternalMetric",
    )
}  # fmt: skip
_ABLE, _ACTIVE, _LIMITED = "AbleToScale", "ScalingActive", "ScalingLimited"
IS_LOST = Condition(
    _ABLE, "False", "FailedGetScale",
    "the HPA controller was unable to get the target's current scale: {error}", _LOST,
)  # fmt: skip
IS_FOUND = Condition(
    _ABLE, "True", "SucceededGetScale",
    "the HPA controller was able to get the target's current scale", _FAIL,
)  # fmt: skip
IS_REFUSED = Condition(
    _ABLE, "False", "FailedUpdateScale",
    "the HPA controller was unable to update the target scale: {error}", _REFUSED,
)  # fmt: skip
IS_RESCALED = Condition(
    _ABLE, "True", "SucceededRescale",
    "the HPA controller was able to update the target scale to {size}", _UP,
)  # fmt: skip
IS_OFF = Condition(
    _ACTIVE, "False", "ScalingDisabled",
    "scaling is disabled since the replica count of the target is zero",
    f"{_TEST}test_no_replicas_switch_it_off",
)  # fmt: skip
IS_ACTIVE = Condition(
    _ACTIVE, "True", "ValidMetricFound",
    "the HPA was able to successfully calculate a replica count from {name}", _UP,
)  # fmt: skip
IS_UNSELECTED = Condition(
    _ACTIVE, "False", "InvalidSelector", "the HPA target's scale is missing a selector", _SELECT
)
IS_UNREADABLE = Condition(_ACTIVE, "False", "InvalidSelector", UNREADABLE.text, _SELECT)
IS_AMBIGUOUS = Condition(_ACTIVE, "False", "AmbiguousSelector", AMBIGUOUS.text, _SELECT)
IS_FAILED = {
    reason: Condition(
        _ACTIVE, "False", reason, "the HPA was unable to compute the replica count: {error}", _FAIL
    )
    for reason in FAILED
}
_RULED = f"{_TEST}test_ruling"
STABILITY = {r: Condition(_ABLE, "True", r, text, _RULED) for r, text in STABLE}
LIMITED = {
    (reason, status): Condition(_LIMITED, status, reason, text, _RULED)
    for reason, text in LIMITS
    for status in ("True", "False")
    if (reason == "DesiredWithinRange") is (status == "False")
}


@dataclass(slots=True)
class Remembered:
    """Of one autoscaler, by uid. selector: of its target, as last read."""

    uid: str
    memory: Memory = field(default_factory=Memory)
    selector: Selector | None = None


@dataclass(frozen=True, slots=True)
class View:
    """One autoscaler, the pods of its namespace, and what is remembered of it and the others there
    (by ``namespace/name``). Memories are the controller's own: plans write into their own one."""

    body: Body
    own: Remembered
    pods: tuple[Obj, ...]
    others: Mapping[str, Remembered]
    served: frozenset[str] = frozenset()  # metrics APIs that somebody registered


def _metrics_api(api_service: Obj) -> Iterable[str]:
    group = api_service.spec.get("group", "")
    if group in (metrics.CUSTOM, metrics.EXTERNAL):
        yield group


class Autoscaler:
    """targets: resources by (group, kind)."""

    name = "horizontal-pod-autoscaler"
    workers = 5

    def __init__(self, targets: Mapping[tuple[str, str], str]) -> None:
        self._targets = targets
        self._remembered: dict[Key, Remembered] = {}
        self.triggers: tuple[Trigger, ...] = (
            Trigger(RESOURCE, lambda o, _c: (o.key,), lambda old, new: old.spec != new.spec),
        )
        self.indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]] = {
            "pods": {}, _API_SERVICES: {"metrics": _metrics_api},
        }  # fmt: skip

    def observe(self, key: Key, caches: Caches) -> View | None:
        one = caches[RESOURCE].get(key.namespace, key.name)
        if one is None:
            self._remembered.pop(key, None)
            return None
        own = self._remembered.get(key)
        if own is None or own.uid != one.uid:
            own = self._remembered[key] = Remembered(one.uid)
        others = {
            f"{k.namespace}/{k.name}": held
            for k, held in self._remembered.items()
            if k.namespace == key.namespace and k != key
        }
        served = frozenset(
            group for group in (metrics.CUSTOM, metrics.EXTERNAL)
            if caches[_API_SERVICES].by("metrics", group)
        )  # fmt: skip
        return View(one.body, own, tuple(caches["pods"].list(key.namespace)), others, served)

    def plan(self, view: View, now: float) -> Sequence[Action]:
        ref = view.body["spec"]["scaleTargetRef"]
        one = _Pass(view, now, self._targets)
        group, slash, version = (ref.get("apiVersion") or "").rpartition("/")
        if "/" in group:
            error = f"unexpected GroupVersion string: {group}{slash}{version}"
            return [Again(SYNC_SECONDS), *one.lost(error)]
        resource = self._targets.get((group, ref["kind"]))
        if resource is None:
            error = f'no matches for kind "{ref["kind"]}" in group "{group}"'
            return [Again(SYNC_SECONDS), *one.lost(error)]
        ask = Ask(resource, view.body["metadata"]["namespace"], ref["name"], "scale")
        return [Again(SYNC_SECONDS), Read((ask,), lambda found: one.scaled(resource, found[0]))]


class _Pass:
    """One look at an autoscaler: conditions and events as they come up, then the status."""

    def __init__(self, view: View, now: float, kinds: metrics.Kinds) -> None:
        self._view, self._now, self._kinds = view, now, kinds
        self._body, self._spec = view.body, view.body["spec"]
        self._old: Body = view.body.get("status") or {}
        self._conditions: list[Body] = [dict(c) for c in self._old.get("conditions") or ()]
        self._events: list[Action] = []

    # -- the target ----------------------------------------------------------------------------

    def lost(self, error: str) -> Sequence[Action]:
        """The target's scale cannot be had."""
        self._set(IS_LOST, error=error)
        self._events.append(LOST.about(self._body, error=error))
        return self._write({"desiredReplicas": 0, **self._old, "conditions": self._conditions})

    def scaled(self, resource: str, answer: Answer) -> Sequence[Action]:
        """Its scale was asked for."""
        if isinstance(answer, StatusError):
            return self.lost(answer.message)
        assert isinstance(answer, Obj)
        self._set(IS_FOUND)
        current = int(answer.spec.get("replicas") or 0)
        self._view.own.memory.begin(self._now, current)
        least, most = self._spec.get("minReplicas", 1), self._spec["maxReplicas"]
        if not current:
            self._set(IS_OFF)
            return self._done(0, 0)
        if current > most:
            why = "Current number of replicas above Spec.MaxReplicas"
            return self._rescale(resource, answer.body, most, why)
        if current < least:
            why = "Current number of replicas below Spec.MinReplicas"
            return self._rescale(resource, answer.body, least, why)
        selector = answer.status.get("selector") or ""
        error, pods = self._select(selector)
        if error:
            self._events.append(UNCOMPUTED.about(self._body, error=error))
            return self._done(current, self._old.get("desiredReplicas", 0))
        questions = [
            metrics.question(
                m, self._body["metadata"]["namespace"], selector, served=self._view.served,
                kinds=self._kinds,
            )
            for m in self._spec["metrics"]
        ]  # fmt: skip
        asks: list[Ask] = []
        for one in questions:
            if isinstance(one, Ask) and one not in asks:
                asks.append(one)

        def asked(found: Sequence[Answer]) -> Sequence[Action]:
            answers = [q if isinstance(q, str) else found[asks.index(q)] for q in questions]
            return self._measured(resource, answer.body, pods, answers)

        return [Read(tuple(asks), asked)] if asks else asked(())

    def _select(self, text: str) -> tuple[str, list[Body]]:
        """What is wrong with the selector of the target, or the pods it selects."""
        if not text:
            self._set(IS_UNSELECTED)
            self._events.append(UNSELECTED.about(self._body))
            return UNSELECTED.text, []
        try:
            selector = parse_labels(text)
        except SelectorError as e:
            self._set(IS_UNREADABLE, error=e)
            event = UNREADABLE.about(self._body, error=e)
            self._events.append(event)
            return event.message, []
        self._view.own.selector = selector
        pods = [p for p in self._view.pods if selector.matches(p.labels)]
        rivals = sorted(
            name
            for name, other in self._view.others.items()
            if other.selector is not None and any(other.selector.matches(p.labels) for p in pods)
        )
        if rivals:
            meta = self._body["metadata"]
            own = f"{meta['namespace']}/{meta['name']}"
            them = (n.partition("/") for n in sorted([own, *rivals]))
            names = " ".join(f"{{{name} {namespace}}}" for namespace, _, name in them)
            self._set(IS_AMBIGUOUS, selector=text, names=names)
            ambiguous = AMBIGUOUS.about(self._body, selector=text, names=names)
            self._events.append(ambiguous)
            return ambiguous.message, []
        return "", [p.body for p in pods]

    # -- the decision --------------------------------------------------------------------------

    def _measured(
        self, resource: str, scale: Body, pods: list[Body], answers: Sequence[Answer | str]
    ) -> Sequence[Action]:
        current, behavior = int(scale["spec"]["replicas"]), self._spec.get("behavior")
        counted = int((scale.get("status") or {}).get("replicas") or 0)
        reading = Reading(
            self._body["metadata"]["namespace"], current, counted, pods, answers, self._now,
            tolerance_of(behavior),
        )  # fmt: skip
        found = metrics.outcome(self._spec["metrics"], reading)
        for failure in found.failures:
            event = FAILED[failure.reason].about(self._body, error=failure.error)
            self._events.append(event)
        if found.replicas is None:
            first = found.failures[0]
            self._set(IS_FAILED[first.reason], error=first.error)
            self._events.append(UNCOMPUTED.about(self._body, error=found.error))
            return self._done(current, self._old.get("desiredReplicas", 0), found.statuses)
        self._set(IS_ACTIVE, name=found.name)
        return self._decide(resource, scale, found, found.replicas)

    def _decide(self, resource: str, scale: Body, found: Outcome, wanted: int) -> Sequence[Action]:
        current = int(scale["spec"]["replicas"])
        ruling = rule(
            self._view.own.memory, self._now, current=current, wanted=wanted,
            least=self._spec.get("minReplicas", 1), most=self._spec["maxReplicas"],
            behavior=self._spec.get("behavior"),
        )  # fmt: skip
        self._set(STABILITY[ruling.able[0]])
        self._set(LIMITED[ruling.limit[0], "True" if ruling.limited else "False"])
        if ruling.desired == current:
            return self._done(current, current, found.statuses)
        why = "All metrics below target"
        if wanted > current:
            why = f"{found.name} above target"
        elif wanted == current:
            why = ""
        return self._rescale(resource, scale, ruling.desired, why, found.statuses)

    def _rescale(
        self, resource: str, scale: Body, size: int, why: str, statuses: Sequence[Body] = ()
    ) -> Sequence[Action]:
        current = int(scale["spec"]["replicas"])
        # Without a revision: what else changes the target meanwhile does not matter here.
        meta = {k: v for k, v in scale["metadata"].items() if k != "resourceVersion"}
        new = {**scale, "metadata": meta, "spec": {"replicas": size}}

        def then(answer: Obj | StatusError) -> Sequence[Action]:
            if isinstance(answer, StatusError):
                error = answer.message
                self._events.append(REFUSED.about(self._body, size=size, reason=why, error=error))
                self._set(IS_REFUSED, error=error)
                return self._done(current, self._old.get("desiredReplicas", 0), statuses)
            self._set(IS_RESCALED, size=size)
            self._events.append(RESCALED.about(self._body, size=size, reason=why))
            self._view.own.memory.done(self._now, current, size, self._spec.get("behavior"))
            return self._done(current, size, statuses, scaled_at=rfc3339(self._now))

        return [Update(resource, new, "scale", then)]

    # -- the status ----------------------------------------------------------------------------

    def _set(self, what: Condition, **values: object) -> None:
        held = next((c for c in self._conditions if c["type"] == what.type), None)
        if held is None:
            held = {"type": what.type, "status": ""}
            self._conditions.append(held)
        if held["status"] != what.status:
            held["lastTransitionTime"] = rfc3339(self._now)
        held |= {"status": what.status, "reason": what.reason, "message": what.text(**values)}

    def _done(
        self, current: int, desired: int, statuses: Sequence[Body] = (), *, scaled_at: str = ""
    ) -> Sequence[Action]:
        status: Body = {
            "observedGeneration": self._body["metadata"].get("generation", 0),
            "currentReplicas": current, "desiredReplicas": desired,
            "conditions": self._conditions,
        }  # fmt: skip
        at = scaled_at or self._old.get("lastScaleTime")
        if at:
            status["lastScaleTime"] = at
        if statuses:
            status["currentMetrics"] = list(statuses)
        return self._write(status)

    def _write(self, status: Body) -> Sequence[Action]:
        if status == self._old:
            return self._events
        return [*self._events, SetStatus(RESOURCE, {**self._body, "status": status})]


FACTS = Facts(
    kind="HorizontalPodAutoscaler",
    definition="io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler",
    controller=Autoscaler.name,
    status=(
        Field("observedGeneration", "the generation the rest belongs to", _UP),
        Field("lastScaleTime", "when replicas were last changed by it", _UP),
        Field("currentReplicas", "what the target was asked for before this look", _UP),
        Field("desiredReplicas", "what it is asked for since", _UP),
        Field("currentMetrics", "values of the metrics, in the order of the spec", _UP),
        Field("conditions", "see below", _UP),
    ),
    conditions=(
        IS_FOUND, IS_LOST, IS_RESCALED, IS_REFUSED, *STABILITY.values(), IS_ACTIVE, IS_OFF,
        IS_UNSELECTED, IS_UNREADABLE, IS_AMBIGUOUS, *IS_FAILED.values(), *LIMITED.values(),
    ),
    events=(
        RESCALED, REFUSED, LOST, UNSELECTED, UNREADABLE, AMBIGUOUS, *FAILED.values(), UNCOMPUTED,
    ),
)  # fmt: skip
