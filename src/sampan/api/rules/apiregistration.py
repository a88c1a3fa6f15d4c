"""Rules of APIService (apiregistration.k8s.io/v1): which server answers for a group version."""

from __future__ import annotations

from sampan.api.errors import Cause
from sampan.api.obj import Body
from sampan.api.rules.certificates import decoded
from sampan.api.rules.field import invalid, not_supported, required
from sampan.lib import names

AVAILABLE = "Available"
DEFAULT_PORT = 443
_HIGHEST_GROUP, _HIGHEST_VERSION = 20_000, 1000
_STATUSES = ("True", "False", "Unknown")


def default(body: Body) -> None:
    service = (body.get("spec") or {}).get("service")
    if service is not None:
        service.setdefault("port", DEFAULT_PORT)


def local_condition(at: str) -> Body:
    """What an APIService says whose group version is served by the API server itself."""
    return {
        "type": AVAILABLE, "status": "True", "lastTransitionTime": at, "reason": "Local",
        "message": "Local APIServices are always available",
    }  # fmt: skip


def begin(body: Body) -> None:
    """A new one has no status, but that a local one is available from the first moment on."""
    body["status"] = {}
    if (body.get("spec") or {}).get("service") is None:
        at = body["metadata"].get("creationTimestamp", "")
        body["status"] = {"conditions": [local_condition(at)]}


def validate(body: Body) -> list[Cause]:
    spec: Body = body.get("spec") or {}
    group, version = spec.get("group") or "", spec.get("version") or ""
    causes = _names(body["metadata"].get("name", ""), group, version)
    causes += _priorities(spec)
    service, bundle = spec.get("service"), decoded(spec.get("caBundle"))
    skips = bool(spec.get("insecureSkipTLSVerify"))
    path = "spec.insecureSkipTLSVerify"
    if service is None:
        if bundle:
            text = "local APIServices may not have a caBundle"
            causes.append(invalid("spec.caBundle", f"{len(bundle)} bytes", text))
        if skips:
            text = "local APIServices may not have insecureSkipTLSVerify"
            causes.append(invalid(path, True, text))
        return causes
    causes += [required(f"spec.service.{k}") for k in ("namespace", "name") if not service.get(k)]
    if skips and bundle:
        causes.append(invalid(path, True, "may not be true if caBundle is present"))
    return causes


def _names(name: str, group: str, version: str) -> list[Cause]:
    causes: list[Cause] = []
    wanted = f"{version}.{group}"
    if name and not names.path_segment(name) and name != wanted:
        text = f'must be `spec.version+"."+spec.group`: "{wanted}"'
        causes.append(invalid("metadata.name", name, text))
    if not group and version != "v1":
        text = "only v1 may have an empty group and it better be legacy kube"
        causes.append(required("spec.group", text))
    if group:
        causes += [invalid("spec.group", group, p) for p in names.dns1123_subdomain(group)]
    causes += [invalid("spec.version", version, p) for p in names.dns1035_label(version)]
    return causes


def _priorities(spec: Body) -> list[Cause]:
    causes = []
    for field, highest in (
        ("groupPriorityMinimum", _HIGHEST_GROUP), ("versionPriority", _HIGHEST_VERSION),
    ):  # fmt: skip
        value = spec.get(field) or 0
        if not 0 < value <= highest:
            text = f"must be positive and less than {highest}"
            causes.append(invalid(f"spec.{field}", value, text))
    return causes


def validate_status(new: Body, _old: Body) -> list[Cause]:
    return [
        not_supported(f"status.conditions[{i}].status", c.get("status", ""), _STATUSES)
        for i, c in enumerate((new.get("status") or {}).get("conditions") or ())
        if c.get("status") not in _STATUSES
    ]
