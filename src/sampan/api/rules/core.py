"""Validation of Namespace, Node, Secret, ConfigMap, Event, Lease and PriorityClass."""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Mapping

import orjson

from sampan.api.errors import Cause
from sampan.api.obj import Body
from sampan.api.rules import resources, selection
from sampan.api.rules.field import (
    checked,
    forbidden,
    immutable,
    invalid,
    non_negative,
    not_supported,
    required,
    too_long,
)
from sampan.lib import names

MAX_DATA = 1 << 20
HIGHEST_USER_PRIORITY = 1_000_000_000
SYSTEM_CLASSES = {"system-node-critical": 2_000_001_000, "system-cluster-critical": 2_000_000_000}
_FROZEN = "field is immutable when `immutable` is set"
_REDACTED = "<secret contents redacted>"
# Keys a Secret of a type must have.
_SECRET_KEYS = {
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
}
_ACCOUNT = "kubernetes.io/service-account.name"


def namespace(body: Body) -> list[Cause]:
    found: list[Cause] = []
    for i, name in enumerate((body.get("spec") or {}).get("finalizers") or ()):
        at = f"spec.finalizers[{i}]"
        problems = checked(at, name, names.qualified_name)
        if not problems and "/" not in name and name not in ("kubernetes", "orphan"):
            problems.append(
                invalid(
                    at, name, "name is neither a standard finalizer name nor is it fully qualified"
                )
            )
        found += problems
    return found


def namespace_status(new: Body, _old: Body) -> list[Cause]:
    deleting = "deletionTimestamp" in (new.get("metadata") or {})
    phase = (new.get("status") or {}).get("phase")
    if deleting and phase != "Terminating":
        why = "may only be 'Terminating' if `deletionTimestamp` is not empty"
        return [invalid("status.phase", phase or "", why)]
    if not deleting and phase != "Active":
        why = "may only be 'Active' if `deletionTimestamp` is empty"
        return [invalid("status.phase", phase or "", why)]
    return []


def node(body: Body) -> list[Cause]:
    spec: Body = body.get("spec") or {}
    found = selection.taints("spec.taints", spec.get("taints") or [])
    cidrs = spec.get("podCIDRs") or []
    for i, cidr in enumerate(cidrs):
        found += checked(f"spec.podCIDRs[{i}]", cidr, names.cidr)
    if cidrs and spec.get("podCIDR") and cidrs[0] != spec["podCIDR"]:
        found.append(
            invalid("spec.podCIDR", spec["podCIDR"], "must match the first element of podCIDRs")
        )
    return found + _node_status(body)


def _node_status(body: Body) -> list[Cause]:
    found: list[Cause] = []
    for name in ("capacity", "allocatable"):
        amounts = (body.get("status") or {}).get(name)
        found += resources.resource_list(f"status.{name}", amounts)
    return found


def node_status(new: Body, _old: Body) -> list[Cause]:
    return _node_status(new)


def node_update(new: Body, old: Body) -> list[Cause]:
    after, before = new.get("spec") or {}, old.get("spec") or {}
    found: list[Cause] = []
    if before.get("podCIDRs") and after.get("podCIDRs") != before["podCIDRs"]:
        found.append(
            forbidden(
                "spec.podCIDRs", 'node updates may not change podCIDR except from "" to valid'
            )
        )
    if before.get("providerID") and after.get("providerID") != before["providerID"]:
        found.append(
            forbidden(
                "spec.providerID", 'node updates may not change providerID except from "" to valid'
            )
        )
    return found


def secret(body: Body) -> list[Cause]:
    data: Mapping[str, str] = body.get("data") or {}
    kind = body.get("type") or ""
    found: list[Cause] = []
    size = 0
    for key, value in sorted(data.items()):
        found += checked(f"data[{key}]", key, names.config_key)
        size += len(value) * 3 // 4
    if size > MAX_DATA:
        found.append(too_long("data", MAX_DATA))
    if kind == "kubernetes.io/service-account-token":
        annotations = (body.get("metadata") or {}).get("annotations") or {}
        if not annotations.get(_ACCOUNT):
            found.append(required(f"metadata.annotations[{_ACCOUNT}]"))
    if kind == "kubernetes.io/basic-auth" and not data.keys() & {"username", "password"}:
        found += [required("data[username]"), required("data[password]")]
    for key in _SECRET_KEYS.get(kind, ()):
        if key not in data:
            found.append(required(f"data[{key}]"))
        elif key.startswith(".docker"):
            found += _docker(f"data[{key}]", data[key])
    return found


def _docker(path: str, value: str) -> list[Cause]:
    try:
        orjson.loads(b64decode(value))
    except (orjson.JSONDecodeError, binascii.Error) as e:
        return [invalid(path, _REDACTED, str(e))]
    return []


def secret_update(new: Body, old: Body) -> list[Cause]:
    found = immutable("type", new.get("type"), old.get("type"))
    return found + _frozen(new, old, ("data",))


def _frozen(new: Body, old: Body, members: tuple[str, ...]) -> list[Cause]:
    if not old.get("immutable"):
        return []
    found: list[Cause] = []
    if not new.get("immutable"):
        found.append(forbidden("immutable", _FROZEN))
    for name in members:
        if (new.get(name) or {}) != (old.get(name) or {}):
            found.append(forbidden(name, _FROZEN))
    return found


def config_map(body: Body) -> list[Cause]:
    found: list[Cause] = []
    size = 0
    data, binary = body.get("data") or {}, body.get("binaryData") or {}
    for key, value in sorted(data.items()):
        found += checked(f"data[{key}]", key, names.config_key)
        if key in binary:
            found.append(invalid(f"data[{key}]", key, "duplicate of key present in binaryData"))
        size += len(value.encode())
    for key, value in sorted(binary.items()):
        found += checked(f"binaryData[{key}]", key, names.config_key)
        size += len(value) * 3 // 4
    if size > MAX_DATA:
        found.append(too_long("[]", MAX_DATA))
    return found


def config_map_update(new: Body, old: Body) -> list[Cause]:
    return _frozen(new, old, ("data", "binaryData"))


def event(body: Body) -> list[Cause]:
    own = (body.get("metadata") or {}).get("namespace") or ""
    theirs = (body.get("involvedObject") or {}).get("namespace") or ""
    # Events about cluster-wide objects live in default.
    fits = own == theirs if theirs else own in ("", "default")
    if fits:
        return []
    return [invalid("involvedObject.namespace", theirs, "does not match event.namespace")]


def lease(body: Body) -> list[Cause]:
    spec: Body = body.get("spec") or {}
    found: list[Cause] = []
    seconds = spec.get("leaseDurationSeconds")
    if seconds is not None and seconds <= 0:
        found.append(invalid("spec.leaseDurationSeconds", seconds, "must be greater than 0"))
    found += non_negative("spec.leaseTransitions", spec.get("leaseTransitions"))
    if spec.get("holderIdentity") == "":
        found.append(invalid("spec.holderIdentity", "", "must not be empty"))
    return found


def priority_class(body: Body) -> list[Cause]:
    name = (body.get("metadata") or {}).get("name") or ""
    value = body.get("value") or 0
    found: list[Cause] = []
    if name.startswith("system-"):
        if SYSTEM_CLASSES.get(name) != value:
            what = (
                f"value of {name} PriorityClass must be {SYSTEM_CLASSES[name]}"
                if name in SYSTEM_CLASSES
                else f"{name} is not a known system priority class"
            )
            found.append(
                forbidden(
                    "metadata.name",
                    "priority class names with 'system-' prefix are reserved for system use only. "
                    f"error: {what}",
                )
            )
    elif value > HIGHEST_USER_PRIORITY:
        found.append(
            forbidden(
                "value",
                f"maximum allowed value of a user defined priority is {HIGHEST_USER_PRIORITY}",
            )
        )
    policy = body.get("preemptionPolicy")
    if policy and policy not in ("PreemptLowerPriority", "Never"):
        found.append(not_supported("preemptionPolicy", policy, ("PreemptLowerPriority", "Never")))
    return found


def priority_class_update(new: Body, old: Body) -> list[Cause]:
    found: list[Cause] = []
    if (new.get("value") or 0) != (old.get("value") or 0):
        found.append(forbidden("value", "may not be changed in an update."))
    after, before = new.get("preemptionPolicy"), old.get("preemptionPolicy")
    return found + immutable("preemptionPolicy", after, before)
