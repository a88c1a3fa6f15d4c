"""Rules every kind shares: names, labels, annotations, owners, finalizers, immutable metadata."""

from __future__ import annotations

from typing import Any

from sampan.api.errors import Cause
from sampan.api.obj import Body
from sampan.api.resource import ResourceType
from sampan.api.rules.field import (
    IMMUTABLE,
    checked,
    forbidden,
    invalid,
    required,
    too_long,
)
from sampan.lib import names

ANNOTATIONS_MAX = 256 * 1024
CORE_FINALIZERS = ("kubernetes", "orphan", "foregroundDeletion")
# Owners that may not be: an Event lives too briefly to be one.
_BANNED_OWNERS = {("v1", "Event")}


def validate_meta(t: ResourceType, body: Body) -> list[Cause]:
    """All problems of ``metadata`` on its own."""
    meta: Body = body.get("metadata") or {}
    found: list[Cause] = []
    name, prefix = meta.get("name") or "", meta.get("generateName") or ""
    check = names.RULES[t.name_rule]
    if prefix:
        masked = names.mask_dash(prefix)
        found += [invalid("metadata.generateName", prefix, p) for p in check(masked)]
    if not name:
        found.append(required("metadata.name", "name or generateName is required"))
    else:
        found += checked("metadata.name", name, check)
    found += _namespace(t, meta.get("namespace") or "")
    if (meta.get("generation") or 0) < 0:
        found.append(
            invalid("metadata.generation", meta["generation"], "must be greater than or equal to 0")
        )
    found += check_labels("metadata.labels", meta.get("labels"))
    found += check_annotations("metadata.annotations", meta.get("annotations"))
    found += _owners("metadata.ownerReferences", meta.get("ownerReferences") or [])
    found += check_finalizers("metadata.finalizers", meta.get("finalizers") or [])
    return found


def validate_meta_update(t: ResourceType, new: Body, old: Body) -> list[Cause]:
    """What an update may not change in ``metadata``, and all of validate_meta."""
    found: list[Cause] = []
    after, before = new.get("metadata") or {}, old.get("metadata") or {}
    for name in ("name", "namespace", "uid", "creationTimestamp"):
        found += _same(f"metadata.{name}", after.get(name), before.get(name))
    for name in ("deletionTimestamp", "deletionGracePeriodSeconds"):
        found += _same(f"metadata.{name}", after.get(name), before.get(name))
    if "deletionTimestamp" in before:
        kept = before.get("finalizers") or []
        extra = [f for f in after.get("finalizers") or [] if f not in kept]
        if extra:
            listed = ", ".join(f'"{f}"' for f in sorted(extra))
            found.append(
                forbidden(
                    "metadata.finalizers",
                    "no new finalizers can be added if the object is being deleted, "
                    f"found new finalizers []string{{{listed}}}",
                )
            )
    if (after.get("generation") or 0) < (before.get("generation") or 0):
        found.append(
            invalid("metadata.generation", after.get("generation") or 0, "must not be decremented")
        )
    return found + validate_meta(t, new)


def _same(path: str, new: Any, old: Any) -> list[Cause]:
    return [] if (new or None) == (old or None) else [invalid(path, new or "", IMMUTABLE)]


def _namespace(t: ResourceType, namespace: str) -> list[Cause]:
    path = "metadata.namespace"
    if not t.namespaced:
        return [forbidden(path, "not allowed on this type")] if namespace else []
    if not namespace:
        return [required(path)]
    return checked(path, namespace, names.dns1123_label)


def check_labels(path: str, found: Body | None) -> list[Cause]:
    """Label keys and values."""
    causes: list[Cause] = []
    for key, value in sorted((found or {}).items()):
        causes += [invalid(path, key, p) for p in names.qualified_name(key)]
        causes += [invalid(path, value, p) for p in names.label_value(value)]
    return causes


def check_annotations(path: str, found: Body | None) -> list[Cause]:
    """Annotation keys, and the total size of keys and values."""
    causes: list[Cause] = []
    size = 0
    for key, value in sorted((found or {}).items()):
        causes += [invalid(path, key, p) for p in names.qualified_name(key.lower())]
        size += len(key.encode()) + len(value.encode())
    if size > ANNOTATIONS_MAX:
        causes.append(too_long(path, ANNOTATIONS_MAX))
    return causes


def check_finalizers(path: str, found: list[str]) -> list[Cause]:
    causes: list[Cause] = []
    for i, name in enumerate(found):
        problems = [invalid(path, name, p) for p in names.qualified_name(name)]
        if not problems and "/" not in name and name not in CORE_FINALIZERS:
            why = "name is neither a standard finalizer name nor is it fully qualified"
            problems.append(invalid(f"{path}[{i}]", name, why))
        causes += problems
    if "orphan" in found and "foregroundDeletion" in found:
        causes.append(
            invalid(path, found, "finalizer orphan and foregroundDeletion cannot be both set")
        )
    return causes


def _owners(path: str, owners: list[Body]) -> list[Cause]:
    causes: list[Cause] = []
    controller = ""
    for i, owner in enumerate(owners):
        at = f"{path}[{i}]"
        version = owner.get("apiVersion") or ""
        group_version = version.split("/")
        if not version or len(group_version) > 2 or not group_version[-1]:
            causes.append(invalid(f"{at}.apiVersion", version, "version must not be empty"))
        for name in ("kind", "name", "uid"):
            if not owner.get(name):
                causes.append(invalid(f"{at}.{name}", "", f"{name} must not be empty"))
        if (version, owner.get("kind")) in _BANNED_OWNERS:
            causes.append(
                invalid(
                    at, owner, f"/{version}, Kind={owner['kind']} is disallowed from being an owner"
                )
            )
        if owner.get("controller"):
            if controller:
                causes.append(
                    invalid(
                        path,
                        owners,
                        'Only one reference can have Controller set to true. Found "true" in '
                        f"references for {controller} and {owner.get('name')}",
                    )
                )
            controller = owner.get("name") or ""
    return causes
