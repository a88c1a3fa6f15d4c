"""Containers: names, images, ports, environment, mounts, probes, hooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sampan.api.errors import Cause
from sampan.api.obj import Body
from sampan.api.rules import resources, security
from sampan.api.rules.field import (
    checked,
    duplicate,
    forbidden,
    invalid,
    non_negative,
    not_found,
    not_supported,
    one_of,
    required,
)
from sampan.api.rules.refs import field_ref, key_ref, resource_ref
from sampan.api.rules.volumes import descending
from sampan.lib import names

PROTOCOLS = ("SCTP", "TCP", "UDP")
ENV_FIELDS = (
    "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName",
    "spec.serviceAccountName", "status.hostIP", "status.hostIPs", "status.podIP",
    "status.podIPs",
)  # fmt: skip
_ENV_SOURCES = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef")
_ONE_SOURCE = (
    "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"
)
_PROBE_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc")
_HOOK_HANDLERS = ("exec", "httpGet", "tcpSocket", "sleep")
_NOT_FOR_INIT = "may not be set for init containers without restartPolicy=Always"
_EPHEMERAL = "cannot be set for an Ephemeral Container"
_NOT_FOR_EPHEMERAL = (
    "lifecycle", "livenessProbe", "ports", "readinessProbe", "resizePolicy", "resources",
    "restartPolicyRules", "startupProbe",
)  # fmt: skip
_PROPAGATION = ("Bidirectional", "HostToContainer", "None")


def containers(
    path: str, values: Sequence[Body], volumes: Mapping[str, Body], *, grace: int
) -> list[Cause]:
    """The main containers. grace: the pod's terminationGracePeriodSeconds."""
    if not values:
        return [required(path)]
    found: list[Cause] = []
    seen: set[str] = set()
    for i, c in enumerate(values):
        at = f"{path}[{i}]"
        found += _shared(at, c, volumes)
        if c.get("name") in seen:
            found.append(duplicate(f"{at}.name", c["name"]))
        seen.add(c.get("name") or "")
        found += _running(at, c, grace)
        found += _restart_policy(at, c)
    return found + _host_ports(path, values)


def init_containers(
    path: str,
    values: Sequence[Body],
    volumes: Mapping[str, Body],
    *,
    others: Sequence[Body],
    grace: int,
) -> list[Cause]:
    """Init containers, sidecars (restartPolicy Always) among them."""
    found: list[Cause] = []
    seen = {c.get("name") for c in others}
    for i, c in enumerate(values):
        at = f"{path}[{i}]"
        found += _shared(at, c, volumes)
        name = c.get("name") or ""
        if name and name in seen:
            found.append(duplicate(f"{at}.name", name))
        seen.add(name)
        # Init containers run one by one: their ports collide only within one.
        found += _host_ports(path, [c])
        found += _restart_policy(at, c)
        if c.get("restartPolicy") == "Always":
            found += _running(at, c, grace)
        else:
            for member in ("lifecycle", "livenessProbe", "readinessProbe", "startupProbe"):
                if c.get(member) is not None:
                    found.append(forbidden(f"{at}.{member}", _NOT_FOR_INIT))
    return found


def ephemeral_containers(
    path: str,
    values: Sequence[Body],
    volumes: Mapping[str, Body],
    *,
    others: Sequence[Body],
    targets: Sequence[Body],
) -> list[Cause]:
    """Containers added to a pod that runs. targets: whose processes they may want to see."""
    found: list[Cause] = []
    seen = {c.get("name") for c in others}
    names_of_targets = {c.get("name") for c in targets}
    for i, c in enumerate(values):
        at, name = f"{path}[{i}]", c.get("name") or ""
        found += _shared(at, c, volumes)
        if name and name in seen:
            found.append(duplicate(f"{at}.name", name))
        seen.add(name)
        target = c.get("targetContainerName")
        if target and target not in names_of_targets:
            found.append(not_found(f"{at}.targetContainerName", target))
        for member in _NOT_FOR_EPHEMERAL:
            if c.get(member) not in (None, [], {}):
                found.append(forbidden(f"{at}.{member}", _EPHEMERAL))
        if c.get("restartPolicy") is not None:
            found.append(forbidden(f"{at}.restartPolicy", "may not be set for non-init containers"))
        for j, m in enumerate(c.get("volumeMounts") or ()):
            for member in ("subPath", "subPathExpr"):
                if m.get(member):
                    found.append(forbidden(f"{at}.volumeMounts[{j}].{member}", _EPHEMERAL))
    return found


def _restart_policy(at: str, c: Body) -> list[Cause]:
    policy = c.get("restartPolicy")
    if policy is None:
        return []
    return one_of(f"{at}.restartPolicy", policy, ("Always", "OnFailure", "Never"))


def _shared(at: str, c: Body, volumes: Mapping[str, Body]) -> list[Cause]:
    """What every kind of container obeys."""
    found: list[Cause] = []
    name = c.get("name") or ""
    found += checked(f"{at}.name", name, names.dns1123_label) if name else [required(f"{at}.name")]
    if not c.get("image"):
        found.append(required(f"{at}.image"))
    policy = c.get("terminationMessagePolicy")
    if policy not in ("File", "FallbackToLogsOnError"):
        found.append(
            invalid(
                f"{at}.terminationMessagePolicy", policy or "",
                "must be 'File' or 'FallbackToLogsOnError'",
            )
        )  # fmt: skip
    found += _ports(f"{at}.ports", c.get("ports") or ())
    found += env(f"{at}.env", c.get("env") or ())
    found += env_from(f"{at}.envFrom", c.get("envFrom") or ())
    found += _mounts(f"{at}.volumeMounts", c, volumes)
    found += _devices(f"{at}.volumeDevices", c, volumes)
    found += one_of(
        f"{at}.imagePullPolicy", c.get("imagePullPolicy"), ("Always", "IfNotPresent", "Never")
    )
    found += resources.requirements(f"{at}.resources", c.get("resources"))
    found += _resize(f"{at}.resizePolicy", c.get("resizePolicy") or ())
    found += security.container(f"{at}.securityContext", c.get("securityContext"))
    return found


def _resize(path: str, values: Sequence[Body]) -> list[Cause]:
    found: list[Cause] = []
    seen: set[str] = set()
    for i, p in enumerate(values):
        at, name = f"{path}[{i}]", p.get("resourceName") or ""
        if name in seen:
            found.append(duplicate(at, name))
        seen.add(name)
        found += one_of(f"{at}.resourceName", name, ("cpu", "memory"))
        found += one_of(
            f"{at}.restartPolicy", p.get("restartPolicy"), ("NotRequired", "RestartContainer")
        )
    return found


def _running(at: str, c: Body, grace: int) -> list[Cause]:
    """Probes and hooks."""
    found: list[Cause] = []
    for name in ("postStart", "preStop"):
        hook = (c.get("lifecycle") or {}).get(name)
        if hook is not None:
            found += _handler(f"{at}.lifecycle.{name}", hook, _HOOK_HANDLERS, grace)
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        probe = c.get(name)
        if probe is None:
            continue
        path = f"{at}.{name}"
        found += _probe(path, probe)
        own = probe.get("terminationGracePeriodSeconds")
        if name == "readinessProbe":
            if own is not None:
                found.append(
                    invalid(
                        f"{path}.terminationGracePeriodSeconds", own,
                        "must not be set for readinessProbes",
                    )
                )  # fmt: skip
            continue
        if probe.get("successThreshold") != 1:
            found.append(
                invalid(f"{path}.successThreshold", probe.get("successThreshold"), "must be 1")
            )
        if own is not None and own <= 0:
            found.append(
                invalid(f"{path}.terminationGracePeriodSeconds", own, "must be greater than 0")
            )
    return found


def _probe(path: str, probe: Body) -> list[Cause]:
    found = _handler(path, probe, _PROBE_HANDLERS, 0)
    for name in (
        "initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold",
        "failureThreshold",
    ):  # fmt: skip
        found += non_negative(f"{path}.{name}", probe.get(name))
    return found


def _handler(path: str, value: Body, kinds: Sequence[str], grace: int) -> list[Cause]:
    given = [k for k in kinds if value.get(k) is not None]
    if not given:
        return [required(path, "must specify a handler type")]
    found: list[Cause] = []
    for kind in given[1:]:
        found.append(forbidden(f"{path}.{kind}", "may not specify more than 1 handler type"))
    kind, action = given[0], value[given[0]]
    at = f"{path}.{kind}"
    if kind == "exec" and not action.get("command"):
        found.append(required(f"{at}.command"))
    elif kind == "tcpSocket":
        found += port_or_name(f"{at}.port", action.get("port"))
    elif kind == "grpc":
        found += _number(f"{at}.port", action.get("port") or 0)
    elif kind == "sleep":
        seconds = action.get("seconds") or 0
        if not 0 <= seconds <= grace:
            found.append(
                invalid(
                    at, seconds, "must be non-negative and less than "
                    f"terminationGracePeriodSeconds ({grace})",
                )
            )  # fmt: skip
    elif kind == "httpGet":
        if not action.get("path"):
            found.append(required(f"{at}.path"))
        found += port_or_name(f"{at}.port", action.get("port"))
        if action.get("scheme") not in ("HTTP", "HTTPS"):
            found.append(not_supported(f"{at}.scheme", action.get("scheme"), ("HTTP", "HTTPS")))
        for header in action.get("httpHeaders") or ():
            found += checked(f"{at}.httpHeaders", header.get("name") or "", names.header_name)
    return found


def _number(path: str, port: int) -> list[Cause]:
    return [invalid(path, port, p) for p in names.port_number(port)]


def port_or_name(path: str, port: Any) -> list[Cause]:
    if isinstance(port, str):
        return checked(path, port, names.port_name)
    return _number(path, port or 0)


def _ports(path: str, values: Sequence[Body]) -> list[Cause]:
    found: list[Cause] = []
    seen: set[str] = set()
    for i, p in enumerate(values):
        at, name = f"{path}[{i}]", p.get("name") or ""
        if name:
            problems = checked(f"{at}.name", name, names.port_name)
            found += problems
            if not problems:
                if name in seen:
                    found.append(duplicate(f"{at}.name", name))
                seen.add(name)
        if not p.get("containerPort"):
            found.append(required(f"{at}.containerPort"))
        else:
            found += _number(f"{at}.containerPort", p["containerPort"])
        if p.get("hostPort"):
            found += _number(f"{at}.hostPort", p["hostPort"])
        if p.get("hostIP"):
            found += checked(f"{at}.hostIP", p["hostIP"], names.ip)
        found += one_of(f"{at}.protocol", p.get("protocol"), PROTOCOLS)
    return found


def _host_ports(path: str, values: Sequence[Body]) -> list[Cause]:
    found: list[Cause] = []
    seen: set[str] = set()
    for i, c in enumerate(values):
        for j, p in enumerate(c.get("ports") or ()):
            if not p.get("hostPort"):
                continue
            text = f"{p.get('protocol')}/{p.get('hostIP') or ''}/{p['hostPort']}"
            if text in seen:
                found.append(duplicate(f"{path}[{i}].ports[{j}].hostPort", text))
            seen.add(text)
    return found


def env(path: str, values: Sequence[Body]) -> list[Cause]:
    found: list[Cause] = []
    for i, e in enumerate(values):
        at = f"{path}[{i}]"
        if not e.get("name"):
            found.append(required(f"{at}.name"))
        else:
            found += checked(f"{at}.name", e["name"], names.env_name)
        if e.get("valueFrom") is not None:
            found += _value_from(f"{at}.valueFrom", e["valueFrom"], bool(e.get("value")))
    return found


def _value_from(path: str, source: Body, has_value: bool) -> list[Cause]:
    given = [k for k in _ENV_SOURCES if source.get(k) is not None]
    found: list[Cause] = []
    for kind in given:
        at = f"{path}.{kind}"
        if kind == "fieldRef":
            found += field_ref(at, source[kind], ENV_FIELDS)
        elif kind == "resourceFieldRef":
            found += resource_ref(at, source[kind])
        elif kind != "fileKeyRef":
            found += key_ref(at, source[kind])
    if not given:
        found.append(invalid(path, "", _ONE_SOURCE))
    elif has_value:
        found.append(invalid(path, "", "may not be specified when `value` is not empty"))
    elif len(given) > 1:
        found.append(invalid(path, "", "may not have more than one field specified at a time"))
    return found


def env_from(path: str, values: Sequence[Body]) -> list[Cause]:
    found: list[Cause] = []
    for i, e in enumerate(values):
        at = f"{path}[{i}]"
        if e.get("prefix"):
            found += checked(f"{at}.prefix", e["prefix"], names.env_name)
        given = [k for k in ("configMapRef", "secretRef") if e.get(k) is not None]
        for kind in given:
            name = e[kind].get("name") or ""
            if not name:
                found.append(required(f"{at}.{kind}.name"))
            else:
                found += checked(f"{at}.{kind}.name", name, names.dns1123_subdomain)
        if not given:
            found.append(invalid(path, "", "must specify one of: `configMapRef` or `secretRef`"))
        elif len(given) > 1:
            found.append(invalid(path, "", "may not have more than one field specified at a time"))
    return found


def _mounts(path: str, c: Body, volumes: Mapping[str, Body]) -> list[Cause]:
    found: list[Cause] = []
    targets: set[str] = set()
    devices = c.get("volumeDevices") or ()
    device_names = {d.get("name") for d in devices}
    device_paths = {d.get("devicePath") for d in devices}
    for i, m in enumerate(c.get("volumeMounts") or ()):
        at, name, target = f"{path}[{i}]", m.get("name") or "", m.get("mountPath") or ""
        if not name:
            found.append(required(f"{at}.name"))
        if name not in volumes:
            found.append(not_found(f"{at}.name", name))
        if not target:
            found.append(required(f"{at}.mountPath"))
        if target in targets:
            found.append(invalid(f"{at}.mountPath", target, "must be unique"))
        targets.add(target)
        if name in device_names:
            found.append(invalid(f"{at}.name", name, "must not already exist in volumeDevices"))
        if target in device_paths:
            found.append(
                invalid(
                    f"{at}.mountPath", target, "must not already exist as a path in volumeDevices"
                )
            )
        sub, expression = m.get("subPath") or "", m.get("subPathExpr") or ""
        if sub:
            found += descending(f"{path}.subPath", sub)
        if expression:
            if sub:
                found.append(
                    invalid(
                        f"{at}.subPathExpr", expression,
                        "subPathExpr and subPath are mutually exclusive",
                    )
                )  # fmt: skip
            found += descending(f"{path}.subPathExpr", expression)
        found += _propagation(path, at, m, c)
    return found


def _propagation(path: str, at: str, m: Body, c: Body) -> list[Cause]:
    # Upstream reports mountPropagation (and sub-paths) without the mount's index.
    found: list[Cause] = []
    value = m.get("mountPropagation")
    if value is not None and value not in _PROPAGATION:
        found.append(not_supported(f"{path}.mountPropagation", value, _PROPAGATION))
    if value == "Bidirectional" and not (c.get("securityContext") or {}).get("privileged"):
        found.append(
            forbidden(
                f"{path}.mountPropagation",
                "Bidirectional mount propagation is available only to privileged containers",
            )
        )
    recursive = m.get("recursiveReadOnly")
    if recursive is not None and recursive != "Disabled":
        where = f"{at}.recursiveReadOnly"
        if recursive not in ("Enabled", "IfPossible"):
            supported = ("Disabled", "Enabled", "IfPossible")
            found.append(not_supported(where, recursive, supported))
        elif not m.get("readOnly"):
            found.append(forbidden(where, "may only be specified when readOnly is true"))
        elif value not in (None, "None"):
            found.append(
                forbidden(
                    where, "may only be specified when mountPropagation is None or not specified"
                )
            )
    return found


def _devices(path: str, c: Body, volumes: Mapping[str, Body]) -> list[Cause]:
    found: list[Cause] = []
    seen_names: set[str] = set()
    seen_paths: set[str] = set()
    mounted = {m.get("name") for m in c.get("volumeMounts") or ()}
    for i, d in enumerate(c.get("volumeDevices") or ()):
        at, name, target = f"{path}[{i}]", d.get("name") or "", d.get("devicePath") or ""
        if not name:
            found.append(required(f"{at}.name"))
        if name in seen_names:
            found.append(invalid(f"{at}.name", name, "must be unique"))
        volume = volumes.get(name)
        if volume is None:
            found.append(not_found(f"{at}.name", name))
        elif not volume.keys() & {"persistentVolumeClaim", "ephemeral"}:
            found.append(
                invalid(
                    f"{at}.name", name, "can only use volume source type of PersistentVolumeClaim "
                    "or Ephemeral for block mode",
                )
            )  # fmt: skip
        if not target:
            found.append(required(f"{at}.devicePath"))
        elif target in seen_paths:
            found.append(invalid(f"{at}.devicePath", target, "must be unique"))
        if name in mounted:
            found.append(invalid(f"{at}.name", name, "must not already exist in volumeMounts"))
        seen_names.add(name)
        seen_paths.add(target)
    return found
