"""What each metric of an autoscaler says, from the answers of the metrics APIs. Pure.

Resource metrics are served here, those of the custom and the external metrics API by whoever
registered one (an adapter, by an APIService)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from sampan.api.errors import StatusError
from sampan.api.obj import Body, Page
from sampan.api.rules.autoscaling import FIELDS
from sampan.control.plan import Answer, Ask
from sampan.controllers import autoscale_math as maths
from sampan.controllers.autoscale_math import NoMetric, Sample, Tolerance
from sampan.lib.clock import parse_rfc3339
from sampan.lib.quantity import quantity

USAGE = "pods.metrics.k8s.io"
CUSTOM, EXTERNAL = "custom.metrics.k8s.io", "external.metrics.k8s.io"
_WINDOW = 60.0  # of a value that does not say over what it was measured
_NO_ADAPTER = f"no custom metrics API ({CUSTOM}) registered"
Kinds: TypeAlias = Mapping[tuple[str, str], str]


@dataclass(frozen=True, slots=True)
class Reading:
    """What a pass knows. replicas: asked for, and counted by the target itself; pods: those the
    target selects; answers: to the questions of the metrics, in their order (a text where one could
    not be asked)."""

    namespace: str
    replicas: int
    counted: int
    pods: Sequence[Body]
    answers: Sequence[Answer | str]
    now: float
    tolerance: Tolerance


def question(
    metric: Body, namespace: str, selector: str, *, served: Collection[str], kinds: Kinds
) -> Ask | str:
    """What to ask for a metric, or why it cannot be asked for. selector: of the target's pods;
    served: metrics APIs that somebody registered; kinds: resources by (group, kind)."""
    kind = metric["type"]
    if kind in ("Resource", "ContainerResource"):
        return Ask(USAGE, namespace, labels=selector)
    source = metric[FIELDS[kind]]
    name, chosen = source["metric"]["name"], text_of_selector(source["metric"].get("selector"))
    if kind == "External":
        if EXTERNAL not in served:
            missing = "the server could not find the requested resource"
            return f"{missing} (get {name}.{EXTERNAL})"
        return Ask(f"{name}.{EXTERNAL}", namespace, labels=chosen)
    if CUSTOM not in served:
        return _NO_ADAPTER
    options = {"metricLabelSelector": chosen} if chosen else {}
    if kind == "Pods":
        options = {**({"labelSelector": selector} if selector else {}), **options}
        return Ask(f"pods.{CUSTOM}", namespace, "*", name, options=options)
    about = source["describedObject"]
    group = (about.get("apiVersion") or "").rpartition("/")[0]
    if about["kind"] == "Namespace" and not group:
        return Ask(f"metrics.{CUSTOM}", namespace, name, options=options)
    resource = kinds.get((group, about["kind"]))
    if resource is None:
        full = f"{about['kind']}.{group}" if group else about["kind"]
        return (
            f"unable to map kind {full} to resource: no matches for kind "
            f'"{about["kind"]}" in group "{group}"'
        )
    return Ask(f"{resource}.{CUSTOM}", namespace, about["name"], name, options=options)


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
    found = [of_metric(m, reading, a) for m, a in zip(metrics, reading.answers, strict=True)]
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


def of_metric(metric: Body, reading: Reading, answer: Answer | str) -> Found | Failed:
    kind = metric["type"]
    source = metric[FIELDS[kind]]
    if kind in ("Resource", "ContainerResource"):
        return _resource(kind, source, reading, answer)
    if kind == "External":
        return _external(source, reading, answer)
    return (_pods if kind == "Pods" else _object)(source, reading, answer)


def _pods(source: Body, reading: Reading, answer: Answer | str) -> Found | Failed:
    name = source["metric"]["name"]
    try:
        samples = _custom_samples(name, answer)
        proposal = maths.by_value(
            target=quantity(source["target"]["averageValue"]).millis, current=reading.replicas,
            pods=reading.pods, samples=samples, now=reading.now, tolerance=reading.tolerance,
            is_cpu=False,
        )  # fmt: skip
    except NoMetric as e:
        summary = f"failed to get pods metric value: {e}"
        return Failed("FailedGetPodsMetric", str(e), summary)
    current = {"averageValue": maths.shown("", proposal.average)}
    told = {"metric": source["metric"], "current": current}
    return Found(proposal.replicas, f"pods metric {name}", {"type": "Pods", "pods": told})


def _object(source: Body, reading: Reading, answer: Answer | str) -> Found | Failed:
    about, name = source["describedObject"], source["metric"]["name"]
    is_shared = source["target"].get("value") is not None
    try:
        where = f"unable to get metric {name} on {about['kind']} {reading.namespace}/"
        total = _one_value(f"{where}{about['name']}: ", answer)
        replicas, current = _of_total(source["target"], total, reading)
    except NoMetric as e:
        within = "" if is_shared else f"failed to get {name} object metric: "
        summary = f"failed to get object metric value: {within}{e}"
        return Failed("FailedGetObjectMetric", str(e), summary)
    title = f"{about['kind']} metric {name}"
    if not is_shared:  # upstream's name for it, too
        title = f"external metric {name}({_shown_selector(source['metric'].get('selector'))})"
    told = {"metric": source["metric"], "current": current, "describedObject": about}
    return Found(replicas, title, {"type": "Object", "object": told})


def _external(source: Body, reading: Reading, answer: Answer | str) -> Found | Failed:
    name, shown = source["metric"]["name"], _shown_selector(source["metric"].get("selector"))
    try:
        where = f"unable to get external metric {reading.namespace}/{name}/{shown}: "
        total = sum(_external_values(where, answer))
        replicas, current = _of_total(source["target"], total, reading)
    except NoMetric as e:
        per_pod = source["target"].get("averageValue") is not None
        within = f"get {name} external metric" if per_pod else f"get external metric {name}"
        summary = f"failed to get {name} external metric value: failed to {within}: {e}"
        return Failed("FailedGetExternalMetric", str(e), summary)
    told = {"metric": source["metric"], "current": current}
    title = f"external metric {name}({shown})"
    return Found(replicas, title, {"type": "External", "external": told})


def _of_total(target: Body, total: int, reading: Reading) -> tuple[int, Body]:
    """Replicas for one number, and how the status shows it. Raises NoMetric."""
    share = target.get("averageValue")
    if share is None:
        replicas = maths.by_total(
            current=reading.replicas, target=quantity(target["value"]).millis, total=total,
            pods=reading.pods, tolerance=reading.tolerance,
        )  # fmt: skip
        return replicas, {"value": maths.shown("", total)}
    replicas, each = maths.by_share(
        counted=reading.counted, target=quantity(share).millis, total=total,
        tolerance=reading.tolerance,
    )  # fmt: skip
    return replicas, {"averageValue": maths.shown("", each)}


def _items(where: str, api: str, answer: Answer | str) -> list[Body]:
    """What a metrics API listed. Raises NoMetric."""
    text = answer.message if isinstance(answer, StatusError) else answer
    if isinstance(text, str):
        raise NoMetric(f"{where}unable to fetch metrics from {api} metrics API: {text}")
    if isinstance(text, Page):
        return [o.body for o in text.items]
    return list(text.body.get("items") or ())


def _custom_samples(name: str, answer: Answer | str) -> dict[str, Sample]:
    """By pod. Raises NoMetric."""
    where = f"unable to get metric {name}: "
    items = _items(where, "custom", answer)
    if not items:
        raise NoMetric(f"{where}no metrics returned from custom metrics API")
    found: dict[str, Sample] = {}
    for item in items:
        window = item.get("windowSeconds")
        at = item.get("timestamp")
        found[item["describedObject"]["name"]] = Sample(
            quantity(item["value"]).millis, parse_rfc3339(at) if at else 0.0,
            _WINDOW if window is None else float(window),
        )  # fmt: skip
    return found


def _one_value(where: str, answer: Answer | str) -> int:
    """The value of the one object that was asked for. Raises NoMetric."""
    items = _items(where, "custom", answer)
    if len(items) != 1:
        text = f"returned {len(items)} results when we asked for exactly one"
        raise NoMetric(
            f"{where}unable to fetch metrics from custom metrics API: the custom metrics API "
            f"server {text}"
        )
    return quantity(items[0]["value"]).millis


def _external_values(where: str, answer: Answer | str) -> list[int]:
    items = _items(where, "external", answer)
    if not items:
        raise NoMetric(f"{where}no metrics returned from external metrics API")
    return [quantity(item["value"]).millis for item in items]


def text_of_selector(selector: Body | None) -> str:
    """A LabelSelector as a query parameter has it; '' for none, and for one of everything."""
    found = [f"{k}={v}" for k, v in ((selector or {}).get("matchLabels") or {}).items()]
    for e in (selector or {}).get("matchExpressions") or ():
        key, values = e["key"], ",".join(sorted(e.get("values") or ()))
        words = {"In": f"{key} in ({values})", "NotIn": f"{key} notin ({values})",
                 "Exists": key, "DoesNotExist": f"!{key}"}  # fmt: skip
        found.append(words[e["operator"]])
    return ",".join(sorted(found, key=lambda text: text.lstrip("!")))


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


def _resource(kind: str, source: Body, reading: Reading, answer: Answer | str) -> Found | Failed:
    name, container, target = source["name"], source.get("container", ""), source["target"]
    is_raw = target.get("averageValue") is not None
    try:
        samples = _samples(answer, name, container)
        proposal = _proposal(name, container, target, reading, samples)
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


def _proposal(
    name: str, container: str, target: Body, reading: Reading, samples: Mapping[str, Sample]
) -> maths.Proposal:
    """Raises NoMetric."""
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


def _samples(usage: Answer | str, resource: str, container: str) -> dict[str, Sample]:
    """By pod; without those of which a container does not say, or that do not have it. Raises
    NoMetric."""
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
        if parts and all(resource in c["usage"] for c in parts):
            value = sum(quantity(c["usage"][resource]).millis for c in parts)
            window = float(body["window"].removesuffix("s"))
            found[one.name] = Sample(value, parse_rfc3339(body["timestamp"]), window)
    return found
