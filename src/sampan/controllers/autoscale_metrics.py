"""What each metric of an autoscaler says, from the answers of the metrics API. Pure.

Resource metrics are served here; the APIs of custom and external metrics are not, and a metric of
theirs fails in the words of a cluster without an adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sampan.api.errors import StatusError
from sampan.api.obj import Body, Page
from sampan.api.rules.autoscaling import FIELDS
from sampan.control.plan import Answer
from sampan.controllers import autoscale_math as maths
from sampan.controllers.autoscale_math import NoMetric, Sample, Tolerance
from sampan.lib.clock import parse_rfc3339
from sampan.lib.quantity import quantity

USAGE = "pods.metrics.k8s.io"
_NO_ADAPTER = (
    "unable to fetch metrics from custom metrics API: no custom metrics API "
    "(custom.metrics.k8s.io) registered"
)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a pass knows. pods: those the target selects; usage: their metrics, as answered."""

    namespace: str
    replicas: int
    pods: Sequence[Body]
    usage: Answer | None
    now: float
    tolerance: Tolerance


@dataclass(frozen=True, slots=True)
class Found:
    """replicas a metric asks for, what it is called, and its current value for the status."""

    replicas: int
    name: str
    status: Body


@dataclass(frozen=True, slots=True)
class Failed:
    """A metric that cannot be had. error: for its event and condition; summary: among others."""

    reason: str
    error: str
    summary: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """All metrics of an autoscaler. replicas is None where nothing may be decided; failed: the
    first that failed; error: the summary of all that failed, '' where none did."""

    replicas: int | None
    name: str
    statuses: tuple[Body, ...]
    failures: tuple[Failed, ...]
    error: str


def outcome(metrics: Sequence[Body], reading: Reading) -> Outcome:
    """The most any metric asks for. Where one fails, fewer replicas are not decided on."""
    found = [of_metric(m, reading) for m in metrics]
    statuses = tuple(f.status if isinstance(f, Found) else {"type": ""} for f in found)
    failures = tuple(f for f in found if isinstance(f, Failed))
    replicas, name = 0, ""
    for one in found:
        if isinstance(one, Found) and (not replicas or one.replicas > replicas):
            replicas, name = one.replicas, one.name
    if not failures:
        return Outcome(replicas, name, statuses, (), "")
    error = (
        f"invalid metrics ({len(failures)} invalid out of {len(metrics)}), first error is: "
        f"{failures[0].summary}"
    )
    is_void = len(failures) == len(metrics) or replicas < reading.replicas
    return Outcome(None if is_void else replicas, name, statuses, failures, error)


def of_metric(metric: Body, reading: Reading) -> Found | Failed:
    kind = metric["type"]
    source = metric[FIELDS[kind]]
    if kind in ("Resource", "ContainerResource"):
        return _resource(kind, source, reading)
    name, reason = source["metric"]["name"], f"FailedGet{kind}Metric"
    if kind == "External":
        return _external(source, name, reading.namespace)
    if kind == "Pods":
        error = f"unable to get metric {name}: {_NO_ADAPTER}"
        return Failed(reason, error, f"failed to get pods metric value: {error}")
    about = source["describedObject"]
    error = (
        f"unable to get metric {name}: {about['kind']} on {reading.namespace} "
        f"{about['name']}/{_NO_ADAPTER}"
    )
    summary = error
    if source["target"].get("value") is None:
        summary = f"failed to get {name} object metric: {error}"
    return Failed(reason, error, f"failed to get object metric value: {summary}")


def _external(source: Body, name: str, namespace: str) -> Failed:
    error = (
        f"unable to get external metric {namespace}/{name}/"
        f"{_shown_selector(source['metric'].get('selector'))}: unable to fetch metrics from "
        f"external metrics API: the server could not find the requested resource "
        f"(get {name}.external.metrics.k8s.io)"
    )
    per_pod = source["target"].get("averageValue") is not None
    within = f"get {name} external metric" if per_pod else f"get external metric {name}"
    summary = f"failed to get {name} external metric value: failed to {within}: {error}"
    return Failed("FailedGetExternalMetric", error, summary)


def _shown_selector(selector: Body | None) -> str:
    """A selector in upstream's words for one within an error."""
    if selector is None:
        return "nil"
    labels: Mapping[str, str] = selector.get("matchLabels") or {}
    shown = "".join(f"{k}: {labels[k]}," for k in sorted(labels))
    terms = "".join(
        f"LabelSelectorRequirement{{Key:{e['key']},Operator:{e['operator']},"
        f"Values:[{' '.join(e.get('values') or ())}],}},"
        for e in selector.get("matchExpressions") or ()
    )
    return (
        f"&LabelSelector{{MatchLabels:map[string]string{{{shown}}},"
        f"MatchExpressions:[]LabelSelectorRequirement{{{terms}}},}}"
    )


def _resource(kind: str, source: Body, reading: Reading) -> Found | Failed:
    name, container, target = source["name"], source.get("container", ""), source["target"]
    is_raw = target.get("averageValue") is not None
    try:
        proposal = _proposal(name, container, target, reading)
    except NoMetric as e:
        error = f"failed to get {name} {'usage' if is_raw else 'utilization'}: {e}"
        what = f"{container} container" if container else f"{name} resource"
        summary = f"failed to get {what} metric value: {error}"
        return Failed(f"FailedGet{kind}Metric", error, summary)
    current: Body = {"averageValue": maths.shown(name, proposal.average)}
    title = f"{name} resource"
    if proposal.utilization is not None:
        current["averageUtilization"] = proposal.utilization
        within = "container " if container else ""
        title = f"{name} {within}resource utilization (percentage of request)"
    told: Body = {"name": name, "current": current}
    if container:
        told["container"] = container
    return Found(proposal.replicas, title, {"type": kind, FIELDS[kind]: told})


def _proposal(name: str, container: str, target: Body, reading: Reading) -> maths.Proposal:
    """Raises NoMetric."""
    samples = _samples(reading.usage, name, container)
    shared: dict[str, Any] = {
        "current": reading.replicas, "pods": reading.pods, "samples": samples,
        "now": reading.now, "tolerance": reading.tolerance, "is_cpu": name == "cpu",
    }  # fmt: skip
    if target.get("averageValue") is not None:
        return maths.by_value(target=quantity(target["averageValue"]).millis, **shared)
    if not reading.pods:
        raise NoMetric(maths.NO_PODS)
    requests = maths.requests_of(reading.pods, name, container)
    return maths.by_utilization(
        target=target["averageUtilization"], requests=requests, **shared
    )  # fmt: skip


def _samples(usage: Answer | None, resource: str, container: str) -> dict[str, Sample]:
    """By pod; without those of which a container does not say. Raises NoMetric."""
    where = f"unable to get metrics for resource {resource}: "
    if isinstance(usage, StatusError):
        text = f"unable to fetch metrics from resource metrics API: {usage.message}"
        raise NoMetric(where + text)
    if not isinstance(usage, Page) or not usage.items:
        raise NoMetric(f"{where}no metrics returned from resource metrics API")
    found: dict[str, Sample] = {}
    for one in usage.items:
        body = one.body
        parts = [c for c in body["containers"] if container in ("", c["name"])]
        if not parts:
            text = (
                f"container {container} not present in metrics for pod {one.namespace}/{one.name}"
            )
            raise NoMetric(where + text)
        if all(resource in c["usage"] for c in parts):
            value = sum(quantity(c["usage"][resource]).millis for c in parts)
            window = float(body["window"].removesuffix("s"))
            found[one.name] = Sample(value, parse_rfc3339(body["timestamp"]), window)
    return found
