"""Validation of StatefulSets, DaemonSets, their ControllerRevisions, and PodTemplates."""

from __future__ import annotations

from typing import Any

from sampan.api.errors import Cause
from sampan.api.obj import Body
from sampan.api.rules import claims
from sampan.api.rules.field import (
    Raw,
    checked,
    forbidden,
    immutable,
    invalid,
    non_negative,
    not_supported,
    required,
)
from sampan.api.rules.podspec import validate_template
from sampan.api.rules.workload import (
    always_running,
    at_most_all,
    check_labels_match,
    check_selector,
    int_or_percent,
    is_zero,
)
from sampan.lib import names

_MUTABLE = (
    "replicas", "ordinals", "template", "updateStrategy", "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy", "minReadySeconds",
)  # fmt: skip
_FROZEN = (
    "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', "
    "'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and "
    "'minReadySeconds' are forbidden"
)
_GENERATION = "deprecated.daemonset.template.generation"


def stateful_set(body: Body) -> list[Cause]:
    spec: Body = body.get("spec") or {}
    found = _management(spec.get("podManagementPolicy"))
    found += _stateful_strategy(spec.get("updateStrategy") or {})
    policy = spec.get("persistentVolumeClaimRetentionPolicy")
    if policy is not None:
        at = "spec.persistentVolumeClaimRetentionPolicy"
        for name in ("whenDeleted", "whenScaled"):
            if policy.get(name) not in ("Retain", "Delete"):
                value = policy.get(name, "")
                found.append(not_supported(f"{at}.{name}", value, ("Retain", "Delete")))
    found += non_negative("spec.replicas", spec.get("replicas"))
    found += non_negative("spec.minReadySeconds", spec.get("minReadySeconds"))
    found += non_negative("spec.ordinals.start", (spec.get("ordinals") or {}).get("start"))
    if spec.get("serviceName"):
        found += checked("spec.serviceName", spec["serviceName"], names.dns1123_label)
    found += check_selector(spec, "statefulset")
    for i, claim in enumerate(spec.get("volumeClaimTemplates") or ()):
        at = f"spec.volumeClaimTemplates[{i}]"
        if not (claim.get("metadata") or {}).get("name"):
            found.append(required(f"{at}.metadata.name"))
        found += claims.claim_spec(f"{at}.spec", claim.get("spec") or {})
    return found + _stateful_template(spec)


def _management(policy: Any) -> list[Cause]:
    if not policy:
        return [required("spec.podManagementPolicy")]
    if policy in ("OrderedReady", "Parallel"):
        return []
    return [invalid("spec.podManagementPolicy", policy, "must be 'OrderedReady' or 'Parallel'")]


def _stateful_strategy(strategy: Body) -> list[Cause]:
    kind, rolling = strategy.get("type"), strategy.get("rollingUpdate")
    at = "spec.updateStrategy"
    if not kind:
        return [required(at)]
    if kind == "OnDelete":
        if rolling is None:
            return []
        text = "only allowed for updateStrategy 'RollingUpdate'"
        return [invalid(f"{at}.rollingUpdate", rolling, text)]
    if kind != "RollingUpdate":
        return [invalid(at, strategy, "must be 'RollingUpdate' or 'OnDelete'")]
    if rolling is None:
        return []
    found = non_negative(f"{at}.rollingUpdate.partition", rolling.get("partition"))
    value = rolling.get("maxUnavailable")
    if value is not None:
        path = f"{at}.rollingUpdate.maxUnavailable"
        found += int_or_percent(path, value)
        if is_zero(value):
            found.append(invalid(path, Raw(value), "cannot be 0"))
        found += at_most_all(path, value)
    return found


def _stateful_template(spec: Body) -> list[Cause]:
    """The pod template, whose volumes are completed by the claim templates of their names."""
    template = spec.get("template")
    if not template:
        return [required("spec.template")]
    found = check_labels_match(spec.get("selector"), template)
    inner: Body = template.get("spec") or {}
    volumes = list(inner.get("volumes") or ())
    given = {v.get("name") for v in volumes}
    templates = spec.get("volumeClaimTemplates") or ()
    names_of = [(c.get("metadata") or {}).get("name") for c in templates]
    volumes += [
        {"name": name, "persistentVolumeClaim": {"claimName": name}}
        for name in names_of
        if name and name not in given
    ]
    whole = {**template, "spec": {**inner, "volumes": volumes} if volumes else inner}
    found += validate_template(whole, "spec.template")
    return found + always_running(template, "StatefulSet")


def stateful_set_update(new: Body, old: Body) -> list[Cause]:
    """Which fields of the spec may change."""

    def frozen(body: Body) -> Body:
        spec: Body = body.get("spec") or {}
        return {k: v for k, v in spec.items() if k not in _MUTABLE and v not in (None, "", [])}

    return [] if frozen(new) == frozen(old) else [forbidden("spec", _FROZEN)]


def stateful_set_status(new: Body, old: Body) -> list[Cause]:
    status: Body = new.get("status") or {}
    found: list[Cause] = []
    counts = ("replicas", "readyReplicas", "currentReplicas", "updatedReplicas",
              "availableReplicas", "observedGeneration", "collisionCount")  # fmt: skip
    for name in counts:
        found += non_negative(f"status.{name}", status.get(name))
    total = status.get("replicas") or 0
    for name in counts[1:5]:
        if (status.get(name) or 0) > total:
            text = "cannot be greater than status.replicas"
            found.append(invalid(f"status.{name}", status[name], text))
    if (status.get("availableReplicas") or 0) > (status.get("readyReplicas") or 0):
        text = "cannot be greater than status.readyReplicas"
        found.append(invalid("status.availableReplicas", status["availableReplicas"], text))
    return found + _collisions(status, old.get("status") or {})


def _collisions(after: Body, before: Body) -> list[Cause]:
    held, value = before.get("collisionCount"), after.get("collisionCount")
    if held is not None and (value is None or value < held):
        return [invalid("status.collisionCount", value or 0, "cannot be decremented")]
    return []


def daemon_set(body: Body) -> list[Cause]:
    spec: Body = body.get("spec") or {}
    template = spec.get("template")
    found = check_selector(spec, "daemonset")
    if not template:
        found.append(required("spec.template"))
    else:
        found += check_labels_match(spec.get("selector"), template)
        found += validate_template(template, "spec.template")
        found += always_running(template, "DaemonSet")
    found += non_negative("spec.minReadySeconds", spec.get("minReadySeconds"))
    found += _daemon_strategy(spec.get("updateStrategy") or {})
    return found + non_negative("spec.revisionHistoryLimit", spec.get("revisionHistoryLimit"))


def _daemon_strategy(strategy: Body) -> list[Cause]:
    kind, rolling = strategy.get("type"), strategy.get("rollingUpdate")
    at = "spec.updateStrategy"
    if kind == "OnDelete":
        return []
    if kind != "RollingUpdate":
        return [not_supported(at, strategy, ("RollingUpdate", "OnDelete"))]
    if rolling is None:
        return [required(f"{at}.rollingUpdate")]
    at = f"{at}.rollingUpdate"
    unavailable, surge = rolling.get("maxUnavailable"), rolling.get("maxSurge")
    found = int_or_percent(f"{at}.maxUnavailable", unavailable)
    found += int_or_percent(f"{at}.maxSurge", surge)
    found += at_most_all(f"{at}.maxUnavailable", unavailable)
    found += at_most_all(f"{at}.maxSurge", surge)
    if not is_zero(unavailable) and not is_zero(surge):
        text = "may not be set when maxUnavailable is non-zero"
        found.append(invalid(f"{at}.maxSurge", Raw(surge), text))
    elif is_zero(unavailable) and is_zero(surge):
        found.append(required(f"{at}.maxUnavailable", "cannot be 0 when maxSurge is 0"))
    return found


def daemon_set_status(new: Body, old: Body) -> list[Cause]:
    status: Body = new.get("status") or {}
    found: list[Cause] = []
    for name in ("currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled",
                 "numberReady", "observedGeneration", "updatedNumberScheduled",
                 "numberAvailable", "numberUnavailable", "collisionCount"):  # fmt: skip
        found += non_negative(f"status.{name}", status.get(name))
    return found + _collisions(status, old.get("status") or {})


def create_daemon_set(body: Body) -> None:
    """The status counts from nothing, and the template has its first generation."""
    body["status"] = {
        "currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0,
        "numberReady": 0,
    }  # fmt: skip
    if template_generation(body) < 1:
        _set_generation(body, 1)


def update_daemon_set(new: Body, old: Body) -> None:
    """The template's generation grows with every change of the template, and only then."""
    if "status" in old:
        new["status"] = old["status"]
    else:
        new.pop("status", None)
    number = template_generation(old)
    changed = (new.get("spec") or {}).get("template") != (old.get("spec") or {}).get("template")
    _set_generation(new, number + 1 if changed else max(number, 1))


def template_generation(body: Body) -> int:
    """The annotation that stands for the removed field spec.templateGeneration."""
    notes = (body.get("metadata") or {}).get("annotations") or {}
    text = str(notes.get(_GENERATION, ""))
    return int(text) if text.isascii() and text.isdigit() else 0


def _set_generation(body: Body, number: int) -> None:
    notes = (body.get("metadata") or {}).get("annotations") or {}
    body.setdefault("metadata", {})["annotations"] = {**notes, _GENERATION: str(number)}


def controller_revision(body: Body) -> list[Cause]:
    found = [] if body.get("data") is not None else [required("data", "data is mandatory")]
    return found + non_negative("revision", body.get("revision"))


def controller_revision_update(new: Body, old: Body) -> list[Cause]:
    return immutable("data", new.get("data"), old.get("data"))


def pod_template(body: Body) -> list[Cause]:
    return validate_template(body.get("template"), "template")


def history_warning(body: Body) -> list[str]:
    """Of a StatefulSet whose history has no limit."""
    limit = (body.get("spec") or {}).get("revisionHistoryLimit")
    if isinstance(limit, int) and limit < 0:
        return [
            "spec.revisionHistoryLimit: a negative value retains all historical revisions; "
            "a value >= 0 is recommended"
        ]
    return []
