"""Security contexts of pods and containers."""

from __future__ import annotations

import re

from sampan.api.errors import Cause
from sampan.api.obj import Body
from sampan.api.rules.field import duplicate, in_range, invalid, not_supported, required

ID_MAX = 2**31 - 1
_SYSCTL = r"([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
_SECCOMP = ("Localhost", "RuntimeDefault", "Unconfined")


def pod(path: str, context: Body | None, spec: Body) -> list[Cause]:
    """spec.securityContext, and the host namespaces that hang on it."""
    found: list[Cause] = []
    c = context or {}
    found += _ids(path, c, ("runAsUser", "runAsGroup", "fsGroup"))
    for i, group in enumerate(c.get("supplementalGroups") or ()):
        found += in_range(f"{path}.supplementalGroups[{i}]", group, 0, ID_MAX)
    if spec.get("shareProcessNamespace") and spec.get("hostPID"):
        found.append(
            invalid(
                f"{path}.shareProcessNamespace",
                True,
                "ShareProcessNamespace and HostPID cannot both be enabled",
            )
        )
    seen: set[str] = set()
    for i, sysctl in enumerate(c.get("sysctls") or ()):
        at, name = f"{path}.sysctls[{i}].name", sysctl.get("name") or ""
        if not name:
            found.append(required(at))
        elif len(name) > 253 or not re.fullmatch(_SYSCTL, name):
            found.append(
                invalid(at, name, f"must have at most 253 characters and match regex ^{_SYSCTL}$")
            )
        elif name in seen:
            found.append(duplicate(at, name))
        seen.add(name)
    found += _one_of(path, c, "fsGroupChangePolicy", ("Always", "OnRootMismatch"))
    found += _one_of(path, c, "supplementalGroupsPolicy", ("Merge", "Strict"))
    found += _profiles(path, c)
    return found


def container(path: str, context: Body | None) -> list[Cause]:
    if not context:
        return []
    c = context
    found = _ids(path, c, ("runAsUser", "runAsGroup"))
    found += _one_of(path, c, "procMount", ("Default", "Unmasked"))
    if c.get("allowPrivilegeEscalation") is False:
        if c.get("privileged"):
            found.append(
                invalid(
                    path, c, "cannot set `allowPrivilegeEscalation` to false and `privileged` "
                    "to true",
                )
            )  # fmt: skip
        if "CAP_SYS_ADMIN" in ((c.get("capabilities") or {}).get("add") or ()):
            found.append(
                invalid(
                    path, c, "cannot set `allowPrivilegeEscalation` to false and "
                    "`capabilities.Add` CAP_SYS_ADMIN",
                )
            )  # fmt: skip
    return found + _profiles(path, c)


def _ids(path: str, context: Body, fields: tuple[str, ...]) -> list[Cause]:
    found: list[Cause] = []
    for name in fields:
        if context.get(name) is not None:
            found += in_range(f"{path}.{name}", context[name], 0, ID_MAX)
    return found


def _one_of(path: str, context: Body, name: str, supported: tuple[str, ...]) -> list[Cause]:
    value = context.get(name)
    if value is None or value in supported:
        return []
    return [not_supported(f"{path}.{name}", value, supported)]


def _profiles(path: str, context: Body) -> list[Cause]:
    found: list[Cause] = []
    for name, word in (("seccompProfile", "seccomp"), ("appArmorProfile", "AppArmor")):
        profile = context.get(name)
        if profile is None:
            continue
        at, kind = f"{path}.{name}", profile.get("type") or ""
        local = profile.get("localhostProfile")
        if not kind:
            found.append(required(f"{at}.type", f"type is required when {name} is set"))
        elif kind not in _SECCOMP:
            found.append(not_supported(f"{at}.type", kind, _SECCOMP))
        if kind == "Localhost" and not local:
            found.append(
                required(f"{at}.localhostProfile", f"must be set when {word} type is Localhost")
            )
        elif kind != "Localhost" and local is not None:
            found.append(
                invalid(
                    f"{at}.localhostProfile",
                    local,
                    f"can only be set when {word} type is Localhost",
                )
            )
    return found
