"""Validation of Jobs and CronJobs."""

from __future__ import annotations

import copy
import re
from typing import Any

from sampan.api.errors import Cause
from sampan.api.obj import Body
from sampan.api.rules import batch_policies, selection
from sampan.api.rules.batch_defaults import (
    CONTROLLER_UID,
    JOB_NAME,
    OLD_CONTROLLER_UID,
    OLD_JOB_NAME,
)
from sampan.api.rules.field import (
    IMMUTABLE,
    Raw,
    immutable,
    invalid,
    non_negative,
    not_supported,
    one_of,
    required,
    too_long,
)
from sampan.api.rules.podspec import validate_template
from sampan.lib import cron, names
from sampan.lib.selectors import SelectorError, from_label_selector

INDEXED = "Indexed"
_MODES = ("NonIndexed", INDEXED)
_MAX_PARALLELISM, _MAX_FAILED = 100_000, 100_000
_MANY = 100_000  # completions from which on a Job with back-off per index is held shorter
_MAX_PARALLELISM_OF_MANY, _MAX_FAILED_OF_MANY = 10_000, 10_000
_MAX_MANAGED_BY = 63
_CRON_NAME_MAX = 52  # 63, less the 11 characters that a time adds
_ZONE_PART = re.compile(r"[A-Za-z.\-_0-9+]{1,14}")
_POLICIES = ("Allow", "Forbid", "Replace")
_COUNTS = (
    "parallelism", "completions", "activeDeadlineSeconds", "backoffLimit",
    "ttlSecondsAfterFinished", "backoffLimitPerIndex", "maxFailedIndexes",
)  # fmt: skip


# ---- Job -----------------------------------------------------------------------------------------


def validate_job(body: Body) -> list[Cause]:
    spec: Body = body.get("spec") or {}
    found = _generated_selector(body)
    found += _spec(spec, "spec")
    selector = spec.get("selector")
    if selector is None:
        found.append(required("spec.selector"))
    else:
        found += selection.label_selector("spec.selector", selector)
    template: Body = spec.get("template") or {}
    labels = (template.get("metadata") or {}).get("labels") or {}
    if not _matches(selector, labels):
        found.append(
            invalid(
                "spec.template.metadata.labels", labels or None,
                "`selector` does not match template `labels`",
            )
        )  # fmt: skip
    name = (body.get("metadata") or {}).get("name") or ""
    completions = spec.get("completions") or 0
    if spec.get("completionMode") == INDEXED and completions > 0:
        longest = f"{name}-{completions - 1}"
        if names.dns1123_label(longest):
            why = f"will not able to create pod with invalid DNS label: {longest}"
            found.append(invalid("metadata.name", name, why))
    return found


def _matches(selector: Body | None, labels: dict[str, str]) -> bool:
    """Whether it selects them; an unreadable selector is told about elsewhere."""
    if selector is None:
        return False
    try:
        return from_label_selector(selector).matches(labels)
    except SelectorError:
        return True


def _generated_selector(body: Body) -> list[Cause]:
    """The generated labels say whose pods they are, and the selector selects them."""
    spec: Body = body.get("spec") or {}
    if spec.get("manualSelector") or spec.get("selector") is None:
        return []
    meta = body.get("metadata") or {}
    uid, name = meta.get("uid") or "", meta.get("name") or ""
    found = [] if uid else [required("metadata.uid")]
    wanted = {OLD_CONTROLLER_UID: uid, OLD_JOB_NAME: name, CONTROLLER_UID: uid, JOB_NAME: name}
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
    for key, value in wanted.items():
        at = f"spec.template.metadata.labels[{key}]"
        if key not in labels:
            found.append(required(at, f"must be '{value}'"))
        elif labels[key] != value:
            found.append(invalid(at, labels, f"must be '{value}'"))
    try:
        selects = from_label_selector(spec["selector"]).matches(wanted)
    except SelectorError:
        selects = True
    if not selects:
        found.append(invalid("spec.selector", spec["selector"], "`selector` not auto-generated"))
    return found


def _spec(spec: Body, path: str) -> list[Cause]:
    """What a Job and a CronJob's template have in common."""
    found: list[Cause] = []
    for name in _COUNTS:
        found += non_negative(f"{path}.{name}", spec.get(name))
    if spec.get("maxFailedIndexes") is not None and spec.get("backoffLimitPerIndex") is None:
        found.append(required(f"{path}.backoffLimitPerIndex", "when maxFailedIndexes is specified"))
    if spec.get("managedBy") is not None:
        found += _managed_by(f"{path}.managedBy", spec["managedBy"])
    mode = spec.get("completionMode")
    if mode is not None and mode not in _MODES:
        found.append(not_supported(f"{path}.completionMode", mode, _MODES))
    if mode == INDEXED:
        found += _indexed(spec, path)
    elif mode in (None, "NonIndexed"):
        for name in ("backoffLimitPerIndex", "maxFailedIndexes"):
            if spec.get(name) is not None:
                why = "requires indexed completion mode"
                found.append(invalid(f"{path}.{name}", spec[name], why))
    found += batch_policies.validate(spec, path)
    template = spec.get("template")
    if not template:
        return [*found, required(f"{path}.template")]
    found += validate_template(template, f"{path}.template")
    return found + _restart_policy(spec, f"{path}.template.spec.restartPolicy")


def _indexed(spec: Body, path: str) -> list[Cause]:
    found: list[Cause] = []
    completions, parallelism = spec.get("completions"), spec.get("parallelism") or 0
    failed = spec.get("maxFailedIndexes")

    def at_most(name: str, value: int, limit: int, why: str) -> None:
        if value > limit:
            text = f"must be less than or equal to {limit}{why}"
            found.append(invalid(f"{path}.{name}", value, text))

    if completions is None:
        found.append(required(f"{path}.completions", "when completion mode is Indexed"))
    mode = " when completion mode is Indexed"
    at_most("parallelism", parallelism, _MAX_PARALLELISM, mode)
    if failed is not None:
        if completions is not None and failed > completions:
            why = "must be less than or equal to completions"
            found.append(invalid(f"{path}.maxFailedIndexes", failed, why))
        at_most("maxFailedIndexes", failed, _MAX_FAILED, "")
    if (completions or 0) > _MANY and spec.get("backoffLimitPerIndex") is not None:
        if failed is None:
            why = f"must be specified when completions is above {_MANY}"
            found.append(required(f"{path}.maxFailedIndexes", why))
        why = f" when completions are above {_MANY} and used with backoff limit per index"
        at_most("parallelism", parallelism, _MAX_PARALLELISM_OF_MANY, why)
        at_most("maxFailedIndexes", failed or 0, _MAX_FAILED_OF_MANY, why)
    return found


def _managed_by(path: str, value: str) -> list[Cause]:
    if not value:
        return [required(path)]
    domain, slash, rest = value.partition("/")
    if not slash or not rest or not domain:
        why = 'must be a domain-prefixed path (such as "acme.io/foo")'
        return [invalid(path, value, why)]
    found = [invalid(path, domain, p) for p in names.dns1123_subdomain(domain)]
    if not re.fullmatch(r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+", rest):
        found.append(invalid(path, rest, "Invalid path"))
    if len(value) > _MAX_MANAGED_BY:
        found.append(too_long(path, _MAX_MANAGED_BY))
    return found


def _restart_policy(spec: Body, path: str) -> list[Cause]:
    policy = ((spec.get("template") or {}).get("spec") or {}).get("restartPolicy")
    if policy in (None, "", "Always"):
        return [required(path, 'valid values: "OnFailure", "Never"')]
    if policy not in ("OnFailure", "Never"):
        return [not_supported(path, policy, ("OnFailure", "Never"))]
    if spec.get("podFailurePolicy") is not None and policy != "Never":
        why = 'only "Never" is supported when podFailurePolicy is specified'
        return [invalid(path, policy, why)]
    return []


def update_job(new: Body, old: Body) -> list[Cause]:
    """Most of a Job never changes; its template only before it starts."""
    after, before = new.get("spec") or {}, old.get("spec") or {}
    found: list[Cause] = []
    completions = after.get("completions")
    if after.get("completionMode") != INDEXED:
        found += _same("completions", after, before)
    elif completions != before.get("completions") and completions is not None:
        if completions != after.get("parallelism"):
            why = "can only be modified in tandem with spec.parallelism"
            found.append(invalid("spec.completions", completions, why))
    found += _same("selector", after, before)
    found += _template_update(after, before, old.get("status") or {})
    for name in ("completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy",
                 "successPolicy"):  # fmt: skip
        found += _same(name, after, before)
    return found


def _same(name: str, after: Body, before: Body) -> list[Cause]:
    if after.get(name) == before.get(name):
        return []
    return [invalid(f"spec.{name}", after.get(name), IMMUTABLE)]


def _template_update(after: Body, before: Body, status: Body) -> list[Cause]:
    """While a Job is suspended and none of its pods is left, where its pods may go and what they
    ask for may still be changed."""
    new, old = after.get("template") or {}, copy.deepcopy(before.get("template") or {})
    conditions = status.get("conditions") or ()
    is_suspended = any(c["type"] == "Suspended" and c["status"] == "True" for c in conditions)
    idle = not status.get("startTime") or (is_suspended and not status.get("active"))
    if before.get("suspend") and idle:
        _allow(new, old)
    found = immutable("spec.template", _bare(new), _bare(old))
    return [invalid("spec.template", new, IMMUTABLE)] if found else []


def _allow(new: Body, old: Body) -> None:
    """Put into *old* what may differ in *new*."""
    spec, was = new.get("spec") or {}, old.setdefault("spec", {})
    for name in ("nodeSelector", "tolerations", "schedulingGates"):
        was[name] = spec.get(name)
    affinity = dict(was.get("affinity") or {})
    affinity["nodeAffinity"] = (spec.get("affinity") or {}).get("nodeAffinity")
    was["affinity"] = affinity
    meta, inner = new.get("metadata") or {}, old.setdefault("metadata", {})
    for name in ("labels", "annotations"):
        inner[name] = meta.get(name)
    for kind in ("containers", "initContainers"):
        mine, theirs = was.get(kind) or [], spec.get(kind) or []
        if len(mine) == len(theirs):
            for a, b in zip(mine, theirs, strict=True):
                if a.get("name") == b.get("name"):
                    a["resources"] = b.get("resources")


def _bare(value: Any) -> Any:
    """Absent, null and empty are the same."""
    if isinstance(value, dict):
        found = {k: _bare(v) for k, v in value.items()}
        return {k: v for k, v in found.items() if v not in (None, "", [], {})}
    if isinstance(value, list):
        return [_bare(v) for v in value]
    return value


# ---- CronJob -------------------------------------------------------------------------------------


def validate_cron_job(body: Body) -> list[Cause]:
    spec: Body = body.get("spec") or {}
    found: list[Cause] = []
    schedule = spec.get("schedule") or ""
    if not schedule:
        found.append(required("spec.schedule"))
    else:
        try:
            cron.parse(schedule)
        except cron.CronError as e:
            found.append(invalid("spec.schedule", schedule, str(e)))
    found += non_negative("spec.startingDeadlineSeconds", spec.get("startingDeadlineSeconds"))
    found += one_of("spec.concurrencyPolicy", spec.get("concurrencyPolicy"), _POLICIES)
    found += _job_template(spec.get("jobTemplate") or {}, "spec.jobTemplate")
    for name in ("successfulJobsHistoryLimit", "failedJobsHistoryLimit"):
        found += non_negative(f"spec.{name}", spec.get(name))
    return found


def create_cron_job(body: Body) -> list[Cause]:
    """Of a new CronJob only: its name leaves room for the times of its Jobs."""
    name = (body.get("metadata") or {}).get("name") or ""
    found = update_cron_job(body, {})
    if len(name) > _CRON_NAME_MAX:
        found.append(invalid("metadata.name", name, names.too_long(_CRON_NAME_MAX)))
    return found


def update_cron_job(new: Body, old: Body) -> list[Cause]:
    """A zone belongs in ``timeZone``; what an old object has otherwise may stay."""
    after, before = new.get("spec") or {}, old.get("spec") or {}
    schedule, zone = after.get("schedule") or "", after.get("timeZone")
    found: list[Cause] = []
    if "TZ" in schedule:
        if "TZ" not in (before.get("schedule") or ""):
            why = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
            found.append(invalid("spec.schedule", schedule, why))
        elif zone is not None:
            why = "cannot use both timeZone field and TZ or CRON_TZ in schedule"
            found.append(invalid("spec.schedule", schedule, why))
    if zone is not None and zone != before.get("timeZone"):
        found += _time_zone("spec.timeZone", zone)
    return found


def _time_zone(path: str, zone: str) -> list[Cause]:
    if not zone:
        return [invalid(path, zone, "timeZone must be nil or non-empty string")]
    for part in zone.split("/"):
        if part in (".", "..") or part.startswith("-") or not _ZONE_PART.fullmatch(part):
            return [invalid(path, zone, f"unknown time zone {zone}")]
    if zone.lower() == "local":
        why = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"
        return [invalid(path, zone, why)]
    try:
        cron.zone(zone)
    except cron.CronError as e:
        return [invalid(path, zone, str(e))]
    return []


def _job_template(template: Body, path: str) -> list[Cause]:
    spec: Body = template.get("spec") or {}
    found = _spec(spec, f"{path}.spec")
    if spec.get("selector") is not None:
        why = "`selector` will be auto-generated"
        found.append(invalid(f"{path}.spec.selector", spec["selector"], why))
    if spec.get("manualSelector"):
        found.append(not_supported(f"{path}.spec.manualSelector", Raw("true"), ("nil", "false")))
    return found
