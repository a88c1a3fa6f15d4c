"""References out of a pod spec: fields of the pod, resources, keys of ConfigMaps and Secrets."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sampan.api.errors import Cause
from sampan.api.obj import Body
from sampan.api.rules.field import checked, invalid, not_supported, required
from sampan.lib import names
from sampan.lib.quantity import quantity

# Field labels the downward API knows at all.
_KNOWN = (
    "metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace",
    "metadata.uid", "spec.nodeName", "spec.restartPolicy", "spec.serviceAccountName",
    "spec.schedulerName", "status.phase", "status.hostIP", "status.hostIPs", "status.podIP",
    "status.podIPs",
)  # fmt: skip
_SUBSCRIPT = re.compile(r"(.+)\['(.*)'\]")
RESOURCES = (
    "limits.cpu", "limits.ephemeral-storage", "limits.memory", "requests.cpu",
    "requests.ephemeral-storage", "requests.memory",
)  # fmt: skip
_CPU = ("1m", "1")
_BYTES = ("1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei")


def field_ref(path: str, ref: Body, supported: Sequence[str]) -> list[Cause]:
    """An ObjectFieldSelector."""
    version, label = ref.get("apiVersion") or "", ref.get("fieldPath") or ""
    if not version:
        return [required(f"{path}.apiVersion")]
    if not label:
        return [required(f"{path}.fieldPath")]

    def unknown(why: str) -> list[Cause]:
        return [invalid(f"{path}.fieldPath", label, f"error converting fieldPath: {why}")]

    if version != "v1":
        return unknown(f"unsupported pod version: {version}")
    match = _SUBSCRIPT.fullmatch(label)
    if match:
        base, key = match.groups()
        if base not in ("metadata.annotations", "metadata.labels"):
            return unknown(f"field label does not support subscript: {label}")
        checkable = key.lower() if base == "metadata.annotations" else key
        return [invalid(path, key, p) for p in names.qualified_name(checkable)]
    if label == "spec.host":
        label = "spec.nodeName"
    if label not in _KNOWN:
        return unknown(f"field label not supported: {label}")
    if label not in supported:
        return [not_supported(f"{path}.fieldPath", label, supported)]
    return []


def resource_ref(path: str, ref: Body, *, in_volume: bool = False) -> list[Cause]:
    """A ResourceFieldSelector."""
    found: list[Cause] = []
    resource = ref.get("resource") or ""
    if in_volume and not ref.get("containerName"):
        found.append(required(f"{path}.containerName"))
    elif not resource:
        found.append(required(f"{path}.resource"))
    elif resource not in RESOURCES and not resource.split(".")[-1].startswith("hugepages-"):
        found.append(not_supported(f"{path}.resource", resource, RESOURCES))
    divisor = quantity(ref.get("divisor") or "0")
    if divisor:
        kind = resource.partition(".")[2]
        allowed = _CPU if kind == "cpu" else _BYTES
        if str(divisor) not in allowed:
            listed = "1m and 1" if kind == "cpu" else ", ".join(_BYTES)
            what = "local ephemeral storage" if kind == "ephemeral-storage" else kind
            found.append(
                invalid(
                    f"{path}.divisor", resource, f"only divisor's values {listed} are supported "
                    f"with the {what} resource",
                )
            )  # fmt: skip
    return found


def key_ref(path: str, ref: Body) -> list[Cause]:
    """A ConfigMapKeySelector or SecretKeySelector."""
    found = checked(f"{path}.name", ref.get("name") or "", names.dns1123_subdomain)
    if not ref.get("key"):
        found.append(required(f"{path}.key"))
    else:
        found += checked(f"{path}.key", ref["key"], names.config_key)
    return found
