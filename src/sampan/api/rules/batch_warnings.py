"""Texts of Warning headers of Jobs and CronJobs."""

from __future__ import annotations

from sampan.api.obj import Body
from sampan.api.rules import warnings
from sampan.api.rules.honoured import WARNING
from sampan.lib import names

_MANY_COMPLETIONS, _MANY_PODS = 100_000, 10_000


def _name(body: Body) -> list[str]:
    problems = names.dns1123_label((body.get("metadata") or {}).get("name") or "a")
    if not problems:
        return []
    listed = " ".join(problems)
    return [
        "metadata.name: this is used in Pod names and hostnames, which can result in surprising "
        f"behavior; a DNS label is recommended: [{listed}]"
    ]


def _spec(spec: Body, path: str) -> list[str]:
    found = [f"{path}.scheduling: {WARNING}"] if spec.get("scheduling") else []
    return found + _many(spec)


def _many(spec: Body) -> list[str]:
    if spec.get("completionMode") != "Indexed":
        return []
    if (spec.get("completions") or 0) <= _MANY_COMPLETIONS:
        return []
    if (spec.get("parallelism") or 0) <= _MANY_PODS:
        return []
    return [
        "In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher "
        "than 10^4, Kubernetes might not be able to track completedIndexes when a big number of "
        "indexes fail"
    ]


def job(body: Body) -> list[str]:
    return _name(body) + _spec(body.get("spec") or {}, "spec") + warnings.workload(body)


def cron_job(body: Body) -> list[str]:
    spec = body.get("spec") or {}
    found = _name(body)
    if "TZ" in (spec.get("schedule") or ""):
        found.append(
            "CRON_TZ or TZ used in spec.spec.schedule is not officially supported, see "
            "https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
        )
    inner = (spec.get("jobTemplate") or {}).get("spec") or {}
    template = (inner.get("template") or {}).get("spec") or {}
    return (
        found
        + _spec(inner, "spec.jobTemplate.spec")
        + warnings.spec(template, "spec.jobTemplate.spec.template.spec")
    )
