"""Texts of Warning headers: what is deprecated, doubtful, or not acted on yet."""

from __future__ import annotations

import ipaddress

from sampan.api.obj import Body
from sampan.api.rules.honoured import unhonoured
from sampan.api.rules.podspec_defaults import containers
from sampan.lib import names
from sampan.lib.quantity import quantity

_OLD_LABELS = {
    "beta.kubernetes.io/arch": ("v1.14", "kubernetes.io/arch"),
    "beta.kubernetes.io/os": ("v1.14", "kubernetes.io/os"),
    "failure-domain.beta.kubernetes.io/region": ("v1.17", "topology.kubernetes.io/region"),
    "failure-domain.beta.kubernetes.io/zone": ("v1.17", "topology.kubernetes.io/zone"),
    "beta.kubernetes.io/instance-type": ("v1.17", "node.kubernetes.io/instance-type"),
}
_OLD_VOLUMES = {
    "gitRepo": "deprecated in v1.11, and disabled by default in v1.33+",
    "glusterfs": "deprecated in v1.25, non-functional in v1.26+",
    "cephfs": "deprecated in v1.28, non-functional in v1.31+",
    "rbd": "deprecated in v1.28, non-functional in v1.31+",
}
_OLD_HINTS = "service.kubernetes.io/topology-aware-hints"
_TOPOLOGY_MODE = "service.kubernetes.io/topology-mode"
_OLD_ANNOTATIONS = {
    "scheduler.alpha.kubernetes.io/critical-pod": (
        'non-functional in v1.16+; use the "priorityClassName" field instead'
    ),
    "seccomp.security.alpha.kubernetes.io/pod": (
        'non-functional in v1.27+; use the "seccompProfile" field instead'
    ),
}


def pod(body: Body) -> list[str]:
    """Of a pod."""
    meta = body.get("metadata") or {}
    found = []
    if problems := names.dns1123_label(meta.get("name") or "a"):
        listed = ", ".join(f'"{p}"' for p in problems)
        found.append(
            "metadata.name: this is used in the Pod's hostname, which can result in surprising "
            f"behavior; a DNS label is recommended: [{listed.strip(chr(34))}]"
        )
    found += _annotations(meta, "metadata")
    return found + spec(body.get("spec") or {}, "spec")


def workload(body: Body) -> list[str]:
    """Of a kind with spec.template."""
    return template((body.get("spec") or {}).get("template") or {}, "spec.template")


def template(value: Body, at: str) -> list[str]:
    """Of a pod template."""
    found = _annotations(value.get("metadata") or {}, f"{at}.metadata")
    return found + spec(value.get("spec") or {}, f"{at}.spec")


def service(body: Body) -> list[str]:
    """Of a Service."""
    spec: Body = body.get("spec") or {}
    found: list[str] = []
    if _OLD_HINTS in ((body.get("metadata") or {}).get("annotations") or {}):
        found.append(f"annotation {_OLD_HINTS} is deprecated, please use {_TOPOLOGY_MODE} instead")
    kind = spec.get("type")
    external = spec.get("externalIPs") or []
    is_headless = spec.get("clusterIP") == "None" and kind == "ClusterIP"
    if spec.get("clusterIP") != "None" and kind != "ExternalName":
        for i, ip in enumerate(spec.get("clusterIPs") or ()):
            found += _not_canonical(f"spec.clusterIPs[{i}]", ip)
    if is_headless:
        why = "is ignored for headless services"
        if spec.get("loadBalancerIP"):
            found.append(f"spec.loadBalancerIP {why}")
        if external:
            found.append(f"spec.externalIPs {why}")
        if spec.get("sessionAffinity") != "None":
            found.append(f"spec.SessionAffinity {why}")
    for i, ip in enumerate(external):
        found += _not_canonical(f"spec.externalIPs[{i}]", ip)
    if external and not is_headless and kind != "ExternalName":
        found.append(
            "spec.externalIPs is deprecated and may no longer be implemented in some clusters"
        )
    if spec.get("loadBalancerIP"):
        found += _not_canonical("spec.loadBalancerIP", spec["loadBalancerIP"])
    for i, cidr in enumerate(spec.get("loadBalancerSourceRanges") or ()):
        found += _not_canonical(f"spec.loadBalancerSourceRanges[{i}]", cidr)
    if kind == "ExternalName" and external:
        found.append('spec.externalIPs is ignored when spec.type is "ExternalName"')
    if kind != "ExternalName" and spec.get("externalName"):
        found.append('spec.externalName is ignored when spec.type is not "ExternalName"')
    if spec.get("trafficDistribution") == "PreferClose":
        found.append('spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone"')
    return found


def _not_canonical(path: str, text: str) -> list[str]:
    """Several texts of one IPv6 address, or network, make controllers apply without end."""
    if ":" not in text or names.cidr(text) if "/" in text else names.ip(text):
        return []
    what = "CIDR value" if "/" in text else "address"
    exact = str(ipaddress.ip_network(text) if "/" in text else ipaddress.ip_address(text))
    if ":" not in exact or exact == text:
        return []
    return [f'{path}: IPv6 {what} "{text}" should be in RFC 5952 canonical format ("{exact}")']


def _annotations(meta: Body, path: str) -> list[str]:
    given = meta.get("annotations") or {}
    return [f"{path}.annotations[{k}]: {v}" for k, v in _OLD_ANNOTATIONS.items() if k in given]


def spec(value: Body, path: str) -> list[str]:
    """Of a PodSpec at *path*."""
    found: list[str] = []
    for key in value.get("nodeSelector") or ():
        if key in _OLD_LABELS:
            since, instead = _OLD_LABELS[key]
            found.append(
                f'{path}.nodeSelector[{key}]: deprecated since {since}; use "{instead}" instead'
            )
    if (value.get("terminationGracePeriodSeconds") or 0) < 0:
        found.append(
            f"{path}.terminationGracePeriodSeconds: must be >= 0; negative values are invalid "
            "and will be treated as 1."
        )
    for i, secret in enumerate(value.get("imagePullSecrets") or ()):
        if not secret.get("name"):
            found.append(f'{path}.imagePullSecrets[{i}].name: invalid empty name ""')
    for i, volume in enumerate(value.get("volumes") or ()):
        for kind, text in _OLD_VOLUMES.items():
            if volume.get(kind) is not None:
                found.append(f"{path}.volumes[{i}].{kind}: {text}")
    seen_ports: dict[tuple[object, ...], str] = {}
    for where, c in containers(value):
        at = f"{path}.{where}"
        found += _env(c, at)
        found += _memory(c, at)
        for i, port in enumerate(c.get("ports") or ()):
            key = (port.get("containerPort"), port.get("protocol"), port.get("hostPort"))
            key = (*key, port.get("hostIP"))
            if key in seen_ports:
                found.append(f"{at}.ports[{i}]: duplicate port definition with {seen_ports[key]}")
            else:
                seen_ports[key] = f"{at}.ports[{i}]"
    return found + unhonoured(value, path)


def _env(container: Body, at: str) -> list[str]:
    found = []
    seen: set[str] = set()
    for i, e in enumerate(container.get("env") or ()):
        name = e.get("name") or ""
        # Building on the former value ($(NAME)) is a use of the duplicate, not a mistake.
        if name in seen and f"$({name})" not in (e.get("value") or ""):
            found.append(
                f'{at}.env[{i}]: hides previous definition of "{name}", which may be dropped '
                "when using apply"
            )
        seen.add(name)
    return found


def _memory(container: Body, at: str) -> list[str]:
    found = []
    for kind in ("limits", "requests"):
        amount = ((container.get("resources") or {}).get(kind) or {}).get("memory")
        if amount is not None and quantity(amount).value.denominator != 1:
            found.append(
                f'{at}.resources.{kind}[memory]: fractional byte value "{amount}" is invalid, '
                "must be an integer"
            )
    return found
