"""HorizontalPodAutoscaler: golden plans, and what must hold whatever the load."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.api.errors import StatusError
from sampan.api.obj import Body, Key, Obj, Page
from sampan.api.rules import autoscaling as rules
from sampan.control.plan import Again, Read
from sampan.controllers.autoscale_metrics import CUSTOM, EXTERNAL, USAGE, text_of_selector
from sampan.controllers.autoscaler import RESOURCE, Autoscaler
from sampan.lib.clock import rfc3339
from sampan.lib.selectors import parse_labels
from sampan.testing.plans import PlanWorld

TARGET = "deployments.apps"
KEY = Key(RESOURCE, "default", "h")
FOUND = "the HPA controller was able to get the target's current scale"


class Scene(PlanWorld):
    """A target of so many ready pods, each with 100m CPU asked for, and its autoscaler."""

    def __init__(self, replicas: int = 2, **spec: Any) -> None:
        self.controller = Autoscaler({
            ("apps", "Deployment"): TARGET,
            ("networking.k8s.io", "Ingress"): "ingresses.networking.k8s.io",
        })  # fmt: skip
        super().__init__(self.controller)
        self.status_of_usage: StatusError | None = None
        self.said: dict[tuple[str, str], Any] = {}  # resource, name: items, or a refusal
        self.asked: list[Any] = []
        labels = {"matchLabels": {"app": "x"}}
        self.deployment = Key(TARGET, "default", "d")
        target = {"replicas": replicas, "selector": labels}
        status = {"replicas": replicas}
        self.add(TARGET, {"metadata": {"name": "d"}, "spec": target, "status": status})
        ref = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}
        body = {"metadata": {"name": "h"}, "spec": {
            "scaleTargetRef": ref, "maxReplicas": 10, **spec}}  # fmt: skip
        rules.default(body)
        self.add(RESOURCE, body)

    def answer(self, ask: Any) -> Any:
        if ask.resource == USAGE:
            if self.status_of_usage is not None:
                return self.status_of_usage
            chosen = parse_labels(ask.labels)
            return Page([o for o in self[USAGE].list() if chosen.matches(o.labels)], 0)
        if ask.resource.endswith((CUSTOM, EXTERNAL)):
            self.asked.append(ask)
            items = self.said[ask.resource, ask.name]
            if isinstance(items, StatusError):
                return items
            key = Key(ask.resource, ask.namespace, ask.name)
            if not ask.name:
                return Page([Obj.of(key, item, 0) for item in items], 0)
            return Obj.of(key, {"kind": "MetricValueList", "items": items}, 0)
        return super().answer(ask)

    def serve(self, *groups: str) -> None:
        """Somebody registered these metrics APIs."""
        for group in groups or (CUSTOM, EXTERNAL):
            spec = {"group": group, "version": "v1beta1"}
            body = {"metadata": {"name": f"v1beta1.{group}"}, "spec": spec}
            self.add("apiservices.apiregistration.k8s.io", body)

    def say_pods(self, **values: str) -> None:
        self.said[f"pods.{CUSTOM}", "*"] = [
            {"describedObject": {"kind": "Pod", "name": name}, "value": value,
             "timestamp": rfc3339(self.now)}
            for name, value in values.items()
        ]  # fmt: skip

    @property
    def replicas(self) -> int:
        return int(self.objects[self.deployment]["spec"]["replicas"])

    def pod(self, name: str, *, ready: bool = True, phase: str = "Running", **meta: Any) -> None:
        old = rfc3339(self.now - 3600)
        condition = {
            "type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": old
        }  # fmt: skip
        container = {"name": "c", "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}}
        self.add("pods", {
            "metadata": {"name": name, "labels": {"app": "x"}, **meta},
            "spec": {"containers": [container]},
            "status": {"phase": phase, "conditions": [condition], "startTime": old},
        })  # fmt: skip

    def uses(self, name: str, cpu: str, memory: str = "32Mi") -> None:
        usage = {"name": "c", "usage": {"cpu": cpu, "memory": memory}}
        self.objects.pop(Key(USAGE, "default", name), None)
        self.add(USAGE, {"metadata": {"name": name, "labels": {"app": "x"}}, "window": "15.000s",
                         "timestamp": rfc3339(self.now), "containers": [usage]})  # fmt: skip

    def load(self, *cpu: str) -> None:
        """Exactly these pods, each with what it uses."""
        for key in [k for k in self.objects if k.resource in ("pods", USAGE)]:
            del self.objects[key]
        for i, value in enumerate(cpu):
            self.pod(f"p{i}")
            self.uses(f"p{i}", value)
        self.objects[self.deployment]["status"]["replicas"] = len(cpu)

    def look(self, seconds: float = 15.0) -> None:
        self.now += seconds
        self.step(self.controller, KEY)

    @property
    def status(self) -> Body:
        found: Body = self.objects[KEY].get("status") or {}
        return found

    def conditions(self) -> dict[str, tuple[str, str, str]]:
        return {
            c["type"]: (c["status"], c["reason"], c["message"]) for c in self.status["conditions"]
        }


def test_load_adds_replicas():
    w = Scene()
    w.load("200m", "120m")
    w.look()
    assert w.replicas == 4  # 160 % where 80 % are asked for
    title = "cpu resource utilization (percentage of request)"
    assert w.events == [("SuccessfulRescale", f"New size: 4; reason: {title} above target")]
    at = rfc3339(w.now)
    current = {"name": "cpu", "current": {"averageUtilization": 160, "averageValue": "160m"}}
    conditions = w.status["conditions"]
    assert {k: v for k, v in w.status.items() if k != "conditions"} == {
        "observedGeneration": 1, "currentReplicas": 2, "desiredReplicas": 4, "lastScaleTime": at,
        "currentMetrics": [{"type": "Resource", "resource": current}],
    }  # fmt: skip
    assert conditions == [
        {"type": "AbleToScale", "status": "True", "reason": "SucceededRescale",
         "message": "the HPA controller was able to update the target scale to 4",
         "lastTransitionTime": at},
        {"type": "ScalingActive", "status": "True", "reason": "ValidMetricFound",
         "message": f"the HPA was able to successfully calculate a replica count from {title}",
         "lastTransitionTime": at},
        {"type": "ScalingLimited", "status": "False", "reason": "DesiredWithinRange",
         "message": "the desired count is within the acceptable range", "lastTransitionTime": at},
    ]  # fmt: skip


def test_it_looks_every_fifteen_seconds_and_writes_only_what_changed():
    w = Scene()
    w.load("80m", "80m")
    w.look()
    before = w.status
    w.again = None
    actions = w.step(w.controller, KEY)
    assert [type(a) for a in actions] == [Again, Read] and w.again == 15.0
    assert w.status == before and w.replicas == 2
    trigger = w.controller.triggers[0]
    made = Obj.of(KEY, w.objects[KEY], 1)
    changed = Obj.of(KEY, {**w.objects[KEY], "spec": {"maxReplicas": 3}}, 2)
    told = Obj.of(KEY, {**w.objects[KEY], "status": {}}, 2)
    assert trigger.matters is not None
    assert trigger.matters(made, changed) and not trigger.matters(made, told)
    del w.objects[KEY]
    assert w.step(w.controller, KEY) == []  # and it does not come back


# (usage of ready pods, replicas): tolerance is 10 % of the 80 % asked for
TABLE = [
    (("80m", "80m"), 2), (("88m", "88m"), 2), (("89m", "89m"), 3), (("72m", "72m"), 2),
    (("400m", "400m"), 4),  # at most the double, or four
    (("1", "1", "1"), 6),
]  # fmt: skip


@pytest.mark.parametrize(("usage", "expected"), TABLE)
def test_utilization(usage: tuple[str, ...], expected: int):
    w = Scene(len(usage))
    w.load(*usage)
    w.look()
    assert w.replicas == expected


def test_pods_without_a_say_hold_it_back():
    w = Scene(3)
    w.load("160m")
    w.pod("starting", ready=False, phase="Pending")
    w.pod("silent")
    w.look()
    assert w.replicas == 3  # 53 % if both used nothing: no reason for more, and none for fewer
    w = Scene(3)
    w.load("10m")
    w.pod("a")
    w.pod("b")
    w.look(400)
    w.look(400)
    assert w.replicas == 3  # 70 % if both used all they ask for: within the tolerance of 80 %


def test_load_that_goes_takes_replicas_after_five_minutes():
    w = Scene(4)
    w.load("10m", "10m", "10m", "10m")
    for _ in range(20):
        w.look()
        assert w.replicas == 4
    assert w.conditions()["AbleToScale"] == (
        "True", "ScaleDownStabilized",
        "recent recommendations were higher than current one, applying the highest recent "
        "recommendation",
    )  # fmt: skip
    w.look()
    w.look()
    assert w.replicas == 1
    assert w.events == [("SuccessfulRescale", "New size: 1; reason: All metrics below target")]


def test_bounds_come_first():
    w = Scene(12)
    w.look()
    why = "Current number of replicas above Spec.MaxReplicas"
    assert w.events == [("SuccessfulRescale", f"New size: 10; reason: {why}")]
    w = Scene(2, minReplicas=3)
    w.look()
    why = "Current number of replicas below Spec.MinReplicas"
    assert w.events == [("SuccessfulRescale", f"New size: 3; reason: {why}")]
    assert w.replicas == 3 and "currentMetrics" not in w.status


def test_ruling():
    w = Scene(2, maxReplicas=3)
    w.load("400m", "400m")
    w.look()
    assert w.conditions()["ScalingLimited"][:2] == ("True", "TooManyReplicas")
    w = Scene(2)
    w.load("1", "1")
    w.look()
    assert w.conditions()["ScalingLimited"][:2] == ("True", "ScaleUpLimit")
    down = {"stabilizationWindowSeconds": 0,
            "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}  # fmt: skip
    w = Scene(5, behavior={"scaleDown": down})
    w.load(*["1m"] * 5)
    sizes = []
    for _ in range(8):
        w.look()
        sizes.append(w.replicas)
    assert sizes[1] == 4 and 4 - sizes[-1] <= 2  # one a minute
    assert w.conditions()["ScalingLimited"][:2] == ("True", "ScaleDownLimit")
    w = Scene(3, minReplicas=2, behavior={"scaleDown": {"stabilizationWindowSeconds": 0}})
    w.load("0", "0", "0")
    w.look(400)
    w.look(400)
    assert w.replicas == 2
    assert w.conditions()["ScalingLimited"][:2] == ("True", "TooFewReplicas")
    w = Scene(2, behavior={"scaleUp": {"stabilizationWindowSeconds": 60}})
    w.load("80m", "80m")
    w.look()
    w.load("300m", "300m")
    w.look()
    assert w.replicas == 2 and w.conditions()["AbleToScale"][1] == "ScaleUpStabilized"
    w = Scene(2)
    w.load("80m", "80m")
    w.look()
    assert w.conditions()["AbleToScale"][1:] == (
        "ReadyForNewScale", "recommended size matches current size"
    )  # fmt: skip


def test_a_disabled_direction_stays():
    w = Scene(4, behavior={"scaleDown": {"selectPolicy": "Disabled"}})
    w.load(*["1m"] * 4)
    for _ in range(60):
        w.look()
    assert w.replicas == 4


def test_the_largest_wish_of_several_metrics_wins():
    memory = {"type": "Resource", "resource": {
        "name": "memory", "target": {"type": "AverageValue", "averageValue": "8Mi"}}}  # fmt: skip
    cpu = {"type": "ContainerResource", "containerResource": {
        "name": "cpu", "container": "c",
        "target": {"type": "Utilization", "averageUtilization": 80}}}  # fmt: skip
    w = Scene(1, metrics=[cpu, memory])
    w.load("80m")
    w.look()
    assert w.replicas == 4
    assert w.events == [("SuccessfulRescale", "New size: 4; reason: memory resource above target")]
    assert w.status["currentMetrics"] == [
        {"type": "ContainerResource", "containerResource": {
            "name": "cpu", "container": "c",
            "current": {"averageUtilization": 80, "averageValue": "80m"}}},
        {"type": "Resource", "resource": {"name": "memory", "current": {"averageValue": "32Mi"}}},
    ]  # fmt: skip


def test_a_target_that_is_not_there():
    w = Scene()
    del w.objects[w.deployment]
    w.look()
    error = 'deployments.apps "d" not found'
    assert w.events == [("FailedGetScale", error)]
    text = f"the HPA controller was unable to get the target's current scale: {error}"
    assert w.conditions()["AbleToScale"] == ("False", "FailedGetScale", text)
    for ref, error in (
        ({"kind": "Nothing", "name": "d"}, 'no matches for kind "Nothing" in group ""'),
        ({"apiVersion": "a/b/c", "kind": "X", "name": "d"},
         "unexpected GroupVersion string: a/b/c"),
    ):  # fmt: skip
        w = Scene(scaleTargetRef=ref)
        w.look()
        assert w.events == [("FailedGetScale", error)] and w.again == 15.0


def test_a_refused_rescale_is_told():
    w = Scene()
    w.load("200m", "200m")
    w.refuse = lambda key: "not today" if key == w.deployment else ""
    w.look()
    why = "cpu resource utilization (percentage of request) above target"
    expected = f"New size: 4; reason: {why}; error: not today"
    assert w.events == [("FailedRescale", expected)] and w.replicas == 2
    text = "the HPA controller was unable to update the target scale: not today"
    assert w.conditions()["AbleToScale"] == ("False", "FailedUpdateScale", text)
    assert "lastScaleTime" not in w.status and w.again == 15.0
    w.refuse = lambda _key: ""
    w.look()
    assert w.replicas == 4


def test_no_replicas_switch_it_off():
    w = Scene(0)
    w.look()
    assert w.replicas == 0 and w.events == []
    assert w.conditions()["ScalingActive"] == (
        "False", "ScalingDisabled",
        "scaling is disabled since the replica count of the target is zero",
    )  # fmt: skip


def test_succeeded_pods_have_no_say_and_a_container_that_is_missing_is_told():
    w = Scene(2)
    w.load("160m")
    w.pod("done", phase="Succeeded")
    w.look()
    assert w.replicas == 2  # not one that is missing: 160 % of one pod's 80 % are two
    metric = _metric("ContainerResource", name="cpu", container="other",
                     target={"type": "Utilization", "averageUtilization": 80})  # fmt: skip
    w = Scene(metrics=[metric])
    w.load("160m")
    w.look()
    error = "failed to get cpu utilization: container other not found in Pod p0"
    assert w.events[0] == ("FailedGetContainerResourceMetric", error)


def _metric(kind: str, **source: Any) -> Body:
    return {"type": kind, kind[0].lower() + kind[1:]: source}


_VALUE = {"type": "AverageValue", "averageValue": "1"}
_NO_API = (
    "unable to fetch metrics from custom metrics API: no custom metrics API "
    "(custom.metrics.k8s.io) registered"
)
FAILURES = [
    (_metric("Resource", name="cpu", target={"type": "Utilization", "averageUtilization": 1}),
     "failed to get cpu utilization: unable to get metrics for resource cpu: "
     "no metrics returned from resource metrics API", "failed to get cpu resource metric value: "),
    (_metric("ContainerResource", name="cpu", container="c", target=_VALUE),
     "failed to get cpu usage: unable to get metrics for resource cpu: "
     "no metrics returned from resource metrics API", "failed to get c container metric value: "),
    (_metric("Pods", metric={"name": "hits"}, target=_VALUE),
     f"unable to get metric hits: {_NO_API}", "failed to get pods metric value: "),
    (_metric("Object", metric={"name": "hits"}, target={"type": "Value", "value": "1"},
             describedObject={"kind": "Service", "name": "s"}),
     f"unable to get metric hits on Service default/s: {_NO_API}",
     "failed to get object metric value: "),
    (_metric("External", metric={"name": "q", "selector": {"matchLabels": {"a": "b"}}},
             target=_VALUE),
     "unable to get external metric default/q/&LabelSelector{MatchLabels:map[string]string{a: b,},"
     "MatchExpressions:[]LabelSelectorRequirement{},}: unable to fetch metrics from external "
     "metrics API: the server could not find the requested resource "
     "(get q.external.metrics.k8s.io)",
     "failed to get q external metric value: failed to get q external metric: "),
]  # fmt: skip


@pytest.mark.parametrize(("metric", "error", "prefix"), FAILURES, ids=lambda x: str(x)[:20])
def test_metrics_that_fail(metric: Body, error: str, prefix: str):
    w = Scene(metrics=[metric])
    w.pod("p")
    w.look()
    reason = f"FailedGet{metric['type']}Metric"
    many = f"invalid metrics (1 invalid out of 1), first error is: {prefix}{error}"
    assert w.events == [(reason, error), ("FailedComputeMetricsReplicas", many)]
    assert w.conditions() == {
        "AbleToScale": ("True", "SucceededGetScale", FOUND),
        "ScalingActive": (
            "False", reason, f"the HPA was unable to compute the replica count: {error}"
        ),
    }  # fmt: skip
    assert w.status["currentMetrics"] == [{"type": ""}] and w.replicas == 2


def test_a_failed_metric_does_not_take_replicas_but_does_not_keep_them_few():
    target = {"type": "Utilization", "averageUtilization": 80}
    broken, works = FAILURES[2][0], _metric("Resource", name="cpu", target=target)
    w = Scene(2, metrics=[broken, works])
    w.load("160m", "160m")
    w.look()
    assert w.replicas == 4
    w = Scene(2, metrics=[broken, works])
    w.load("1m", "1m")
    for _ in range(40):
        w.look()
    assert w.replicas == 2


def test_metrics_that_are_refused_and_requests_that_are_missing():
    w = Scene()
    w.pod("p")
    w.status_of_usage = StatusError(503, "ServiceUnavailable", "not now")
    w.look()
    assert w.events[0] == (
        "FailedGetResourceMetric",
        "failed to get cpu utilization: unable to get metrics for resource cpu: unable to fetch "
        "metrics from resource metrics API: not now",
    )
    w = Scene(1)
    w.load("1m")
    del w.objects[Key("pods", "default", "p0")]["spec"]["containers"][0]["resources"]
    w.look()
    assert w.events[0] == (
        "FailedGetResourceMetric",
        "failed to get cpu utilization: missing request for cpu in container c of Pod p0",
    )


def test_selectors_that_do_not_do():
    w = Scene()
    w.objects[w.deployment]["spec"]["selector"] = {}
    w.look()
    assert w.events[0] == ("SelectorRequired", "selector is required")
    assert w.conditions()["ScalingActive"] == (
        "False", "InvalidSelector", "the HPA target's scale is missing a selector"
    )  # fmt: skip
    w = Scene()
    w.load("80m", "80m")
    w.add(RESOURCE, {"metadata": {"name": "other"}, "spec": w.objects[KEY]["spec"]})
    w.look()
    w.step(w.controller, Key(RESOURCE, "default", "other"))
    w.look()
    text = "pods by selector app=x are controlled by multiple HPAs: [{h default} {other default}]"
    assert w.conditions()["ScalingActive"] == ("False", "AmbiguousSelector", text)
    assert ("AmbiguousSelector", text) in w.events
    w.delete(Key(RESOURCE, "default", "other"))
    w.step(w.controller, Key(RESOURCE, "default", "other"))
    w.look()
    assert w.conditions()["ScalingActive"][0] == "True"


def test_an_autoscaler_of_the_same_name_remembers_nothing():
    w = Scene(4)
    w.load(*["1m"] * 4)
    for _ in range(15):
        w.look()
    spec = w.objects.pop(KEY)["spec"]
    w.step(w.controller, KEY)
    w.add(RESOURCE, {"metadata": {"name": "h"}, "spec": spec})
    for _ in range(15):
        w.look()
    assert w.replicas == 4


looks = st.lists(
    st.tuples(st.integers(0, 400), st.sampled_from([1.0, 15.0, 40.0])), min_size=1, max_size=25
)
windows = st.sampled_from([None, 0, 30, 120])


@settings(max_examples=60, deadline=None)
@given(
    start=st.integers(1, 8), least=st.integers(1, 4), most=st.integers(4, 9), looks=looks,
    up=windows, down=windows,
)  # fmt: skip
def test_it_stays_within_bounds_and_its_stabilised_window(
    start: int, least: int, most: int, looks: list[tuple[int, float]], up: int | None,
    down: int | None,
):  # fmt: skip
    """After the first look replicas are in bounds; they fall only below what no recent look
    asked for, and rise only to what every recent one asked for."""
    behavior: Body = {}
    if up is not None:
        behavior["scaleUp"] = {"stabilizationWindowSeconds": up}
    if down is not None:
        behavior["scaleDown"] = {"stabilizationWindowSeconds": down}
    given_rules = {"behavior": behavior} if behavior else {}
    w = Scene(start, minReplicas=least, maxReplicas=most, **given_rules)
    window = 300 if down is None else down
    lowest: list[tuple[float, int]] = [(w.now + looks[0][1], start)]
    for millis, seconds in looks:
        before = w.replicas
        w.load(*[f"{millis}m"] * before)
        w.look(seconds)
        assert least <= w.replicas <= most
        share = millis / 80
        wish = before if 0.9 <= share <= 1.1 else -(-before * millis // 80)
        if least <= before <= most:
            recent = [r for at, r in lowest if at > w.now - window]
            if w.replicas < before:
                assert w.replicas >= min(max([wish, *recent]), before) or w.replicas == most
            if w.replicas > before:
                asked = [r for at, r in lowest if at > w.now - (up or 0)] if behavior else recent
                best = min([wish, *asked]) if behavior else max([wish, *asked])
                assert w.replicas <= max(best, least)
            lowest.append((w.now, wish))


# ---- custom and external metrics ---------------------------------------------------------------

HITS = _metric("Pods", metric={"name": "hits"}, target={"type": "AverageValue",
                                                        "averageValue": "10"})  # fmt: skip


def on_object(kind: str = "Ingress", version: str = "networking.k8s.io/v1", **target: str) -> Body:
    about = {"kind": kind, "name": "main", **({"apiVersion": version} if version else {})}
    return _metric("Object", metric={"name": "hits"}, describedObject=about, target=target)


def external(selector: Body | None = None, **target: str) -> Body:
    metric: Body = {"name": "queue", **({"selector": selector} if selector else {})}
    return _metric("External", metric=metric, target=target)


def custom(replicas: int, *metrics: Body, ready: int = 0, counted: int | None = None) -> Scene:
    w = Scene(replicas, metrics=[*metrics])
    w.serve()
    for i in range(ready or replicas):
        w.pod(f"p{i}")
    w.objects[w.deployment]["status"]["replicas"] = replicas if counted is None else counted
    return w


# (values of two pods, replicas): 10 each are asked for, 10 % are tolerated
POD_TABLE = [
    (("10", "10"), 2), (("11", "11"), 2), (("12", "12"), 3), (("20", "10"), 3), (("9", "9"), 2),
    (("8", "8"), 2), (("5", "5"), 1), (("100", "100"), 4), (("2500m", "2500m"), 1),
]  # fmt: skip


@pytest.mark.parametrize(("values", "expected"), POD_TABLE)
def test_pods_metrics(values: tuple[str, str], expected: int):
    w = custom(2, HITS)
    w.say_pods(p0=values[0], p1=values[1])
    for _ in range(22 if expected < 2 else 1):
        w.look()
        w.say_pods(p0=values[0], p1=values[1])
    assert w.replicas == expected


def test_what_is_asked_and_told_of_pods():
    metric = _metric("Pods", metric={"name": "hits", "selector": {"matchLabels": {"verb": "GET"}}},
                     target={"type": "AverageValue", "averageValue": "10"})  # fmt: skip
    w = custom(2, metric)
    w.say_pods(p0="15", p1="15500m")
    w.look()
    (ask,) = w.asked
    assert (ask.resource, ask.namespace, ask.name, ask.subresource) == (
        f"pods.{CUSTOM}", "default", "*", "hits",
    )  # fmt: skip
    assert ask.options == {"labelSelector": "app=x", "metricLabelSelector": "verb=GET"}
    assert w.events == [("SuccessfulRescale", "New size: 4; reason: pods metric hits above target")]
    assert w.status["currentMetrics"] == [{"type": "Pods", "pods": {
        "metric": metric["pods"]["metric"], "current": {"averageValue": "15250m"}}}]  # fmt: skip
    assert w.conditions()["ScalingActive"] == (
        "True", "ValidMetricFound",
        "the HPA was able to successfully calculate a replica count from pods metric hits",
    )  # fmt: skip


def test_pods_that_say_nothing_hold_pods_metrics_back_too():
    w = custom(3, HITS)
    w.say_pods(p0="40")
    w.look()
    assert w.replicas == 4  # two that used nothing: 13.3 each
    w = custom(3, HITS)
    w.say_pods(p0="1")
    for _ in range(30):
        w.look()
    assert w.replicas == 3  # two that use just the target: 7 each; still three
    w = custom(2, HITS)
    w.pod("starting", ready=False)
    w.say_pods(p0="20", p1="20", starting="0")
    w.look()
    assert w.replicas == 4  # not ready counts as ready where it is not CPU: 13.3 each of three


# (target, value, replicas asked for, ready pods, what the target counts, replicas then, shown)
TOTALS = [
    ({"type": "Value", "value": "100"}, "100", 3, 3, 3, 3, {"value": "100"}),
    ({"type": "Value", "value": "100"}, "109", 3, 3, 3, 3, {"value": "109"}),
    ({"type": "Value", "value": "100"}, "150", 3, 3, 3, 5, {"value": "150"}),
    ({"type": "Value", "value": "100"}, "150", 3, 2, 3, 3, {"value": "150"}),
    ({"type": "Value", "value": "200m"}, "500m", 2, 2, 2, 4, {"value": "500m"}),
    ({"type": "AverageValue", "averageValue": "10"}, "30", 3, 1, 3, 3, {"averageValue": "10"}),
    ({"type": "AverageValue", "averageValue": "10"}, "32", 3, 1, 3, 3, {"averageValue": "10667m"}),
    ({"type": "AverageValue", "averageValue": "10"}, "41", 3, 1, 3, 5, {"averageValue": "13667m"}),
    ({"type": "AverageValue", "averageValue": "10"}, "41", 3, 1, 4, 4, {"averageValue": "10250m"}),
    ({"type": "AverageValue", "averageValue": "10"}, "31", 3, 1, 0, 4, {"averageValue": "0"}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("target", "value", "replicas", "ready", "counted", "expected", "shown"), TOTALS
)
@pytest.mark.parametrize("kind", ["Object", "External"])
def test_totals(
    kind: str, target: Body, value: str, replicas: int, ready: int, counted: int, expected: int,
    shown: Body,
):  # fmt: skip
    metric = on_object(**target) if kind == "Object" else external(**target)
    w = custom(replicas, metric, ready=ready, counted=counted)
    item = {"value": value}
    w.said[f"ingresses.networking.k8s.io.{CUSTOM}", "main"] = [item]
    w.said[f"queue.{EXTERNAL}", ""] = [item]
    w.look()
    assert w.replicas == expected
    field = kind.lower()
    assert w.status["currentMetrics"][0][field]["current"] == shown


def test_what_is_asked_and_told_of_objects():
    w = custom(1, on_object(type="Value", value="10"))
    w.said[f"ingresses.networking.k8s.io.{CUSTOM}", "main"] = [{"value": "30"}]
    w.look()
    (ask,) = w.asked
    assert (ask.name, ask.subresource, ask.options) == ("main", "hits", {})
    assert w.events[-1][1] == "New size: 3; reason: Ingress metric hits above target"
    about = {"kind": "Ingress", "name": "main", "apiVersion": "networking.k8s.io/v1"}
    assert w.status["currentMetrics"] == [{"type": "Object", "object": {
        "metric": {"name": "hits"}, "current": {"value": "30"}, "describedObject": about,
    }}]  # fmt: skip
    w = custom(1, on_object(type="AverageValue", averageValue="10"))
    w.said[f"ingresses.networking.k8s.io.{CUSTOM}", "main"] = [{"value": "30"}]
    w.look()
    assert w.events[-1][1] == "New size: 3; reason: external metric hits(nil) above target"


def test_a_namespaces_metric_is_asked_for_as_its_own():
    w = custom(1, on_object("Namespace", "v1", type="Value", value="10"))
    w.said[f"metrics.{CUSTOM}", "hits"] = [{"value": "20"}]
    w.look()
    (ask,) = w.asked
    assert (ask.resource, ask.namespace, ask.name) == (f"metrics.{CUSTOM}", "default", "hits")
    assert w.replicas == 2


def test_external_series_are_added_up_and_chosen_by_labels():
    chosen = {"matchLabels": {"b": "1", "a": "2"},
              "matchExpressions": [{"key": "q", "operator": "In", "values": ["y", "x"]},
                                   {"key": "p", "operator": "DoesNotExist"}]}  # fmt: skip
    w = custom(1, external(chosen, type="AverageValue", averageValue="10"))
    w.said[f"queue.{EXTERNAL}", ""] = [{"value": "12"}, {"value": "18500m"}]
    w.look()
    (ask,) = w.asked
    assert (ask.resource, ask.namespace, ask.labels) == (
        f"queue.{EXTERNAL}", "default", "a=2,b=1,!p,q in (x,y)",
    )  # fmt: skip
    assert w.replicas == 4
    assert text_of_selector(None) == text_of_selector({}) == ""


CUSTOM_FAILURES = [
    (HITS, StatusError(404, "NotFound", "no hits"), "unable to get metric hits: unable to fetch "
     "metrics from custom metrics API: no hits", "failed to get pods metric value: "),
    (HITS, [], "unable to get metric hits: no metrics returned from custom metrics API",
     "failed to get pods metric value: "),
    (HITS, [{"describedObject": {"name": "stranger"}, "value": "1"}], None, ""),
    (on_object(type="Value", value="1"), [{"value": "1"}, {"value": "2"}],
     "unable to get metric hits on Ingress default/main: unable to fetch metrics from custom "
     "metrics API: the custom metrics API server returned 2 results when we asked for exactly one",
     "failed to get object metric value: "),
    (on_object(type="AverageValue", averageValue="1"), StatusError(503, "x", "not now"),
     "unable to get metric hits on Ingress default/main: unable to fetch metrics from custom "
     "metrics API: not now",
     "failed to get object metric value: failed to get hits object metric: "),
    (on_object("Nothing", "a/v1", type="Value", value="1"), [],
     "unable to get metric hits on Nothing default/main: unable to fetch metrics from custom "
     'metrics API: unable to map kind Nothing.a to resource: no matches for kind "Nothing" in '
     'group "a"', "failed to get object metric value: "),
    (external(type="Value", value="1"), [],
     "unable to get external metric default/queue/nil: no metrics returned from external metrics "
     "API", "failed to get queue external metric value: failed to get external metric queue: "),
    (external(type="AverageValue", averageValue="1"), StatusError(503, "x", "not now"),
     "unable to get external metric default/queue/nil: unable to fetch metrics from external "
     "metrics API: not now",
     "failed to get queue external metric value: failed to get queue external metric: "),
]  # fmt: skip


@pytest.mark.parametrize(("metric", "said", "error", "prefix"), CUSTOM_FAILURES)
def test_custom_metrics_that_fail(metric: Body, said: Any, error: str | None, prefix: str):
    w = custom(2, metric)
    for place in ((f"pods.{CUSTOM}", "*"), (f"ingresses.networking.k8s.io.{CUSTOM}", "main"),
                  (f"queue.{EXTERNAL}", "")):  # fmt: skip
        w.said[place] = said
    w.look()
    if error is None:  # values of pods that are not there count, as upstream's do
        assert w.conditions()["ScalingActive"][0] == "True"
        return
    reason = f"FailedGet{metric['type']}Metric"
    many = f"invalid metrics (1 invalid out of 1), first error is: {prefix}{error}"
    assert w.events == [(reason, error), ("FailedComputeMetricsReplicas", many)]
    text = f"the HPA was unable to compute the replica count: {error}"
    assert w.conditions()["ScalingActive"] == ("False", reason, text)


def test_no_ready_pods_are_no_base_for_a_total():
    w = custom(2, on_object(type="Value", value="1"))
    for name in ("p0", "p1"):
        del w.objects[Key("pods", "default", name)]
    w.said[f"ingresses.networking.k8s.io.{CUSTOM}", "main"] = [{"value": "9"}]
    w.look()
    assert w.events[0] == (
        "FailedGetObjectMetric",
        "unable to calculate ready pods: no pods returned by selector while calculating replica "
        "count",
    )


def test_one_question_for_several_metrics_of_the_same_pods():
    memory = _metric("Resource", name="memory", target={"type": "AverageValue",
                                                        "averageValue": "32Mi"})  # fmt: skip
    cpu = _metric("Resource", name="cpu", target={"type": "Utilization", "averageUtilization": 80})
    w = custom(2, cpu, memory, HITS)
    w.load("80m", "80m")
    w.say_pods(p0="40", p1="40")
    w.look()
    assert len(w.asked) == 1 and w.replicas == 4
    assert [m["type"] for m in w.status["currentMetrics"]] == ["Resource", "Resource", "Pods"]


@given(
    values=st.lists(st.integers(0, 10_000), min_size=1, max_size=6),
    target=st.integers(1, 5_000),
    replicas=st.integers(1, 10),
)
@settings(max_examples=60, deadline=None)
def test_totals_never_leave_the_bounds_and_come_to_rest(
    values: list[int], target: int, replicas: int
):
    w = custom(replicas, external(type="AverageValue", averageValue=str(target)))
    w.said[f"queue.{EXTERNAL}", ""] = [{"value": str(v)} for v in values]
    for _ in range(60):
        w.look()
        w.objects[w.deployment]["status"]["replicas"] = w.replicas
        assert 1 <= w.replicas <= 10
    before = w.replicas
    w.look()
    assert w.replicas == before
    share = sum(values) / target
    assert abs(before - min(max(share, 1), 10)) <= max(1.0, 0.12 * share)
