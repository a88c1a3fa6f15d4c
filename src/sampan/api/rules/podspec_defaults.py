"""Defaults of pod specs, as v1.37 sets them, for pods and for pod templates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sampan.api import amounts
from sampan.api.obj import Body
from sampan.lib.quantity import in_thousandths, quantity

CONTAINER_LISTS = ("initContainers", "containers", "ephemeralContainers")
PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_PROBE = {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}
# What the members of a volume source default to, by source.
_VOLUME: dict[str, Body] = {
    "secret": {"defaultMode": 0o644},
    "configMap": {"defaultMode": 0o644},
    "downwardAPI": {"defaultMode": 0o644},
    "projected": {"defaultMode": 0o644},
    "hostPath": {"type": ""},
    "iscsi": {"iscsiInterface": "default"},
    "rbd": {"pool": "rbd", "user": "admin", "keyring": "/etc/ceph/keyring"},
    "azureDisk": {
        "cachingMode": "ReadWrite", "kind": "Shared", "fsType": "ext4", "readOnly": False,
    },
    "scaleIO": {"storageMode": "ThinProvisioned", "fsType": "xfs"},
}  # fmt: skip


def containers(spec: Body) -> Iterator[tuple[str, Body]]:
    """Every container of *spec* with its field path below ``spec`` (``containers[0]``)."""
    for kind in CONTAINER_LISTS:
        for i, container in enumerate(spec.get(kind) or ()):
            yield f"{kind}[{i}]", container


def image_tag(image: str) -> str:
    """The tag an image reference means: ``latest`` when it has neither tag nor digest."""
    rest, at, _digest = image.partition("@")
    last = rest.rsplit("/", 1)[-1]
    _name, colon, tag = last.partition(":")
    if colon:
        return tag
    return "" if at else "latest"


def pull_policy(image: str) -> str:
    return "Always" if image_tag(image) == "latest" else "IfNotPresent"


def canonical_resources(resources: Body | None) -> None:
    """Quantities in canonical text, rounded up to thousandths."""
    for name in ("limits", "requests"):
        canonical_list((resources or {}).get(name))


def canonical_list(given: Any) -> None:
    """A ResourceList in canonical text. Raises QuantityError."""
    if isinstance(given, dict):
        for key, value in given.items():
            given[key] = in_thousandths(value)


def _canonical_field(holder: Body, name: str) -> None:
    if name in holder:
        holder[name] = str(quantity(holder[name]))


def default_pod(body: Body) -> None:
    """A pod: its spec, and what only pods (not templates) get."""
    spec = body.get("spec")
    if not isinstance(spec, dict):
        return
    default_spec(spec)
    for kind in ("containers", "initContainers"):
        for container in spec.get(kind) or ():
            _requests_from_limits(container.get("resources"))
    _requests_of_pod(spec)
    spec.setdefault("enableServiceLinks", True)
    if spec.get("hostNetwork"):
        _host_ports(spec)


def default_template(template: Body | None) -> None:
    """A pod template, as in Deployments and ReplicaSets."""
    if isinstance(template, dict) and isinstance(template.get("spec"), dict):
        default_spec(template["spec"])


def default_spec(spec: Body) -> None:
    """What pods and templates share."""
    for name, value in (
        ("restartPolicy", "Always"),
        ("dnsPolicy", "ClusterFirst"),
        ("schedulerName", "default-scheduler"),
    ):
        if not spec.get(name):
            spec[name] = value
    spec.setdefault("terminationGracePeriodSeconds", 30)
    if spec.get("securityContext") is None:
        spec["securityContext"] = {}
    # serviceAccount is the old name of serviceAccountName; both are served, equal.
    account = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if account:
        spec["serviceAccountName"] = spec["serviceAccount"] = account
    canonical_list(spec.get("overhead"))
    canonical_resources(spec.get("resources"))
    for _path, container in containers(spec):
        _default_container(container)
    for volume in spec.get("volumes") or ():
        _default_volume(volume)


def _default_container(container: Body) -> None:
    if not container.get("imagePullPolicy"):
        container["imagePullPolicy"] = pull_policy(container.get("image") or "")
    if not container.get("terminationMessagePath"):
        container["terminationMessagePath"] = "/dev/termination-log"
    if not container.get("terminationMessagePolicy"):
        container["terminationMessagePolicy"] = "File"
    for port in container.get("ports") or ():
        if not port.get("protocol"):
            port["protocol"] = "TCP"
    if container.get("resources") is None:
        container["resources"] = {}
    canonical_resources(container["resources"])
    for probe in PROBES:
        if isinstance(container.get(probe), dict):
            _default_probe(container[probe])
    for hook in ("postStart", "preStop"):
        action = (container.get("lifecycle") or {}).get(hook)
        if action:
            _default_http(action.get("httpGet"))
    for env in container.get("env") or ():
        source = env.get("valueFrom") or {}
        _default_field_ref(source.get("fieldRef"))
        _default_resource_ref(source.get("resourceFieldRef"))
        if isinstance(source.get("fileKeyRef"), dict):
            source["fileKeyRef"].setdefault("optional", False)


def _default_probe(probe: Body) -> None:
    for name, value in _PROBE.items():
        if not probe.get(name):
            probe[name] = value
    _default_http(probe.get("httpGet"))
    if isinstance(probe.get("grpc"), dict):
        probe["grpc"].setdefault("service", "")


def _default_http(action: Body | None) -> None:
    if action is not None:
        for name, value in (("path", "/"), ("scheme", "HTTP")):
            if not action.get(name):
                action[name] = value


def _default_field_ref(ref: Body | None) -> None:
    if ref is not None and not ref.get("apiVersion"):
        ref["apiVersion"] = "v1"


def _default_resource_ref(ref: Body | None) -> None:
    if ref is not None:
        ref.setdefault("divisor", "0")
        _canonical_field(ref, "divisor")


def _default_volume(volume: Body) -> None:
    sources = [k for k, v in volume.items() if k != "name" and v is not None]
    if not sources:
        volume["emptyDir"] = {}
    for kind in sources:
        source = volume[kind]
        if not isinstance(source, dict):
            continue
        for name, value in _VOLUME.get(kind, {}).items():
            if source.get(name) is None:
                source[name] = value
        if kind == "emptyDir":
            _canonical_field(source, "sizeLimit")
        elif kind == "image" and not source.get("pullPolicy"):
            source["pullPolicy"] = pull_policy(source.get("reference") or "")
        elif kind == "downwardAPI":
            _default_downward(source)
        elif kind == "projected":
            for part in source.get("sources") or ():
                _default_downward(part.get("downwardAPI") or {})
                token = part.get("serviceAccountToken")
                if token is not None:
                    token.setdefault("expirationSeconds", 3600)
        elif kind == "ephemeral":
            claim = (source.get("volumeClaimTemplate") or {}).get("spec")
            if claim is not None:
                if claim.get("volumeMode") is None:
                    claim["volumeMode"] = "Filesystem"
                canonical_resources(claim.get("resources"))


def _default_downward(source: Body) -> None:
    for item in source.get("items") or ():
        _default_field_ref(item.get("fieldRef"))
        _default_resource_ref(item.get("resourceFieldRef"))


def _requests_from_limits(resources: Body | None) -> None:
    limits = (resources or {}).get("limits")
    if resources is not None and limits:
        requests = resources.get("requests")
        resources["requests"] = {**limits, **(requests or {})}


def _requests_of_pod(spec: Body) -> None:
    """What a pod as a whole with limits requests: what its containers do, or else its limits."""
    whole: Body = spec.get("resources") or {}
    limits = whole.get("limits")
    if not limits:
        return
    parts = {k: v for k, v in spec.items() if k not in ("resources", "overhead")}
    asked = amounts.of_pod(parts, "requests")
    known = {n: str(asked[n]) for n in ("cpu", "memory") if n in asked}
    whole["requests"] = {**limits, **known, **(whole.get("requests") or {})}


def _host_ports(spec: Body) -> None:
    """With host networking a container's port is the host's."""
    for kind in ("containers", "initContainers"):
        for container in spec.get(kind) or ():
            for port in container.get("ports") or ():
                if not port.get("hostPort") and port.get("containerPort"):
                    port["hostPort"] = port["containerPort"]
