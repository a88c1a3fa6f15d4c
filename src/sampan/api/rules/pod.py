"""Validation of pods: on creation, on update, of their status."""

from __future__ import annotations

from typing import Any

from sampan.api.errors import Cause
from sampan.api.obj import Body
from sampan.api.rules import containers, selection
from sampan.api.rules.field import (
    checked,
    forbidden,
    in_range,
    invalid,
    required,
    show,
)
from sampan.api.rules.podspec import INT32_MAX, validate_spec
from sampan.api.rules.volumes import volumes
from sampan.lib import names

MIRROR = "kubernetes.io/config.mirror"
_MAY_CHANGE = (
    "pod updates may not change fields other than `spec.containers[*].image`,"
    "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only "
    "additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set "
    "to 1 if it was previously negative)"
)
_WHITESPACE = "must not have leading or trailing whitespace"


def validate(body: Body) -> list[Cause]:
    spec: Body = body.get("spec") or {}
    found: list[Cause] = []
    annotations = (body.get("metadata") or {}).get("annotations") or {}
    if MIRROR in annotations and not spec.get("nodeName"):
        found.append(
            invalid(
                f"metadata.annotations[{MIRROR}]",
                annotations[MIRROR],
                "must set spec.nodeName if mirror pod annotation is set",
            )
        )
    found += validate_spec(spec, "spec", is_pod=True)
    found += _claim_names((body.get("metadata") or {}).get("name") or "", spec)
    for kind in ("containers", "initContainers"):
        for i, c in enumerate(spec.get(kind) or ()):
            found += _image_space(f"spec.{kind}[{i}].image", c)
    return found


def validate_create(body: Body) -> list[Cause]:
    """Ephemeral containers are added by their own subresource only."""
    if (body.get("spec") or {}).get("ephemeralContainers"):
        return [forbidden("spec.ephemeralContainers", "cannot be set on create")]
    return []


def take_ephemeral(sent: Body, new: Body) -> None:
    """What a write of ``ephemeralcontainers`` changes."""
    new["spec"].pop("ephemeralContainers", None)
    found = (sent.get("spec") or {}).get("ephemeralContainers")
    if found:
        new["spec"]["ephemeralContainers"] = found


def validate_ephemeral(new: Body, old: Body) -> list[Cause]:
    """They can be added, and neither changed nor taken away."""
    path = "spec.ephemeralContainers"
    spec = new["spec"]
    if _annotation(new) is not None:
        return [forbidden("", "static pods do not support ephemeral containers")]
    known, _ = volumes("spec.volumes", spec.get("volumes") or ())
    others = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    found = containers.ephemeral_containers(
        path, spec.get("ephemeralContainers") or (), known,
        others=others, targets=spec.get("containers") or (),
    )  # fmt: skip
    mine = {c.get("name"): c for c in spec.get("ephemeralContainers") or ()}
    for was in old["spec"].get("ephemeralContainers") or ():
        name = was.get("name")
        if name not in mine:
            text = f'existing ephemeral containers "{name}" may not be removed\n'
            found.append(forbidden(path, text))
        elif mine[name] != was:
            text = f'existing ephemeral containers "{name}" may not be changed\n'
            found.append(forbidden(path, text + _difference(mine[name], was)))
    return found


def _claim_names(pod: str, spec: Body) -> list[Cause]:
    """The claims a pod's ephemeral volumes get are named after pod and volume."""
    found: list[Cause] = []
    for i, volume in enumerate(spec.get("volumes") or ()):
        if pod and volume.get("ephemeral") is not None and volume.get("name"):
            claim = f"{pod}-{volume['name']}"
            found += [
                invalid(f"spec.volumes[{i}].name", volume["name"], f'PVC name "{claim}": {problem}')
                for problem in names.dns1123_subdomain(claim)
            ]
    return found


def _image_space(path: str, c: Body) -> list[Cause]:
    image = c.get("image") or ""
    return [invalid(path, image, _WHITESPACE)] if image != image.strip() else []


def validate_update(new: Body, old: Body) -> list[Cause]:
    """Of a pod's spec only a few fields may change."""
    after, before = new.get("spec") or {}, old.get("spec") or {}
    found: list[Cause] = []
    if _annotation(new) != _annotation(old):
        path = f"metadata.annotations[{MIRROR}]"
        how = "add" if _annotation(old) is None else "remove or update"
        found.append(forbidden(path, f"may not {how} mirror pod annotation"))
    for kind in ("containers", "initContainers"):
        mine, theirs = after.get(kind) or [], before.get(kind) or []
        if len(mine) != len(theirs):
            found.append(forbidden(f"spec.{kind}", "pod updates may not add or remove containers"))
            return found
        for i, c in enumerate(mine):
            if not c.get("image"):
                found.append(required(f"spec.{kind}[{i}].image"))
            found += _image_space(f"spec.{kind}[{i}].image", c)
    found += _deadline(after.get("activeDeadlineSeconds"), before.get("activeDeadlineSeconds"))
    found += selection.added_tolerations(
        "spec.tolerations", after.get("tolerations") or [], before.get("tolerations") or []
    )
    found += _gates(after, before)
    munged = _munged(after, before)
    if munged != before and _clean(munged) != _clean(before):
        found.append(forbidden("spec", f"{_MAY_CHANGE}\n{_difference(munged, before)}"))
    return found


def _annotation(body: Body) -> Any:
    return ((body.get("metadata") or {}).get("annotations") or {}).get(MIRROR)


def _deadline(new: Any, old: Any) -> list[Cause]:
    path = "spec.activeDeadlineSeconds"
    if new is None:
        if old is None:
            return []
        return [invalid(path, None, "must not update from a positive integer to nil value")]
    found = in_range(path, new, 0, INT32_MAX)
    if not found and old is not None and old < new:
        found = [invalid(path, new, "must be less than or equal to previous value")]
    return found


def _gates(new: Body, old: Body) -> list[Cause]:
    kept = {g.get("name") for g in old.get("schedulingGates") or ()}
    return [
        forbidden(
            "spec.schedulingGates",
            f"only deletion is allowed, but found new scheduling gate '{g.get('name')}'",
        )
        for g in new.get("schedulingGates") or ()
        if g.get("name") not in kept
    ]


def _munged(new: Body, old: Body) -> Body:
    """*new* with everything that may change put back to what it was."""
    spec = dict(new)
    for kind in ("containers", "initContainers"):
        if spec.get(kind):
            spec[kind] = [
                {**c, "image": o.get("image")}
                for c, o in zip(spec[kind], old.get(kind) or (), strict=True)
            ]
    changeable = ["activeDeadlineSeconds", "tolerations", "schedulingGates"]
    if (old.get("terminationGracePeriodSeconds") or 0) < 0:
        if spec.get("terminationGracePeriodSeconds") == 1:
            changeable.append("terminationGracePeriodSeconds")
    if old.get("schedulingGates"):
        # A gated pod's node selector may still be narrowed.
        wanted = spec.get("nodeSelector") or {}
        if (old.get("nodeSelector") or {}).items() <= wanted.items():
            changeable.append("nodeSelector")
    for name in changeable:
        spec.pop(name, None)
        if name in old:
            spec[name] = old[name]
    return spec


def _clean(value: Any) -> Any:
    """Absent, null and empty are the same."""
    if isinstance(value, dict):
        cleaned = {k: _clean(v) for k, v in value.items()}
        return {k: v for k, v in cleaned.items() if v not in (None, "", [], {})}
    if isinstance(value, list):
        return [_clean(v) for v in value]
    return value


def _difference(new: Body, old: Body) -> str:
    """The members that differ, old with '-', new with '+'."""
    lines = []
    for name in sorted({*new, *old}):
        before, after = _clean(old.get(name)), _clean(new.get(name))
        if before != after:
            lines += [f"- {name}: {show(old.get(name))}"] if name in old else []
            lines += [f"+ {name}: {show(new.get(name))}"] if name in new else []
    return "\n".join(f"  {line}" for line in lines)


def validate_status(new: Body, old: Body) -> list[Cause]:
    """A container that has ended for good stays ended."""
    found: list[Cause] = []
    after, before = new.get("status") or {}, old.get("status") or {}
    nominated = after.get("nominatedNodeName")
    if nominated and nominated != before.get("nominatedNodeName"):
        found += checked("status.nominatedNodeName", nominated, names.dns1123_subdomain)
    spec = old.get("spec") or {}
    policy = spec.get("restartPolicy")
    if policy == "Always":
        return found
    own_rules = {
        c.get("name")
        for c in spec.get("containers") or ()
        if c.get("restartPolicy") or c.get("restartPolicyRules")
    }
    now = {s.get("name"): s for s in after.get("containerStatuses") or ()}
    for i, was in enumerate(before.get("containerStatuses") or ()):
        ended = (was.get("state") or {}).get("terminated")
        if ended is None or (ended.get("exitCode") and policy == "OnFailure"):
            continue
        if was.get("name") in own_rules:
            continue
        current = now.get(was.get("name"))
        if current is not None and (current.get("state") or {}).get("terminated") is None:
            found.append(
                forbidden(
                    f"status.containerStatuses[{i}].state",
                    "may not be transitioned to non-terminated state",
                )
            )
    return found
