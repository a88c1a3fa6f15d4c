"""Which PodSpec fields the node and the scheduler act on, and the warning for those they do not.

``NOT_YET`` is the one list: a field named there is accepted and stored but nothing acts on it, and
whoever sets it is told. Making a field work means removing its line. ``HONOURED`` names the rest,
so that a test can see that no field of the schema is in neither list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from sampan.api.obj import Body

WARNING = "accepted and stored, but not fully acted on yet"


def _is_set(value: Any) -> bool:
    return value not in (None, "", [], {}, False, 0)


def _other_than(*values: Any) -> Callable[[Any], bool]:
    return lambda value: value is not None and value not in values


def _is_false(value: Any) -> bool:
    return value is False


def _is_loopback(value: Any) -> bool:
    """Host ports are served at the node's addresses, not at its loopback."""
    return isinstance(value, str) and (value.startswith("127.") or value == "::1")


# Path below the PodSpec ("[]": any element) -> when its value counts as set.
NOT_YET: dict[str, Callable[[Any], bool]] = {
    "evictionResponders": _is_set,
    "hostUsers": _is_false,
    "imagePullSecrets": _is_set,
    "resourceClaims": _is_set,
    "schedulingGroup": _is_set,
    "os.name": _other_than("linux"),
    "securityContext.appArmorProfile": _is_set,
    "securityContext.seLinuxChangePolicy": _is_set,
    "securityContext.seLinuxOptions": _is_set,
    "securityContext.seccompProfile.localhostProfile": _is_set,
    "securityContext.windowsOptions": _is_set,
    "containers[].env[].valueFrom.fileKeyRef": _is_set,
    "containers[].ports[].hostIP": _is_loopback,
    "containers[].resources.claims": _is_set,
    "containers[].securityContext.appArmorProfile": _is_set,
    "containers[].securityContext.seLinuxOptions": _is_set,
    "containers[].securityContext.seccompProfile.localhostProfile": _is_set,
    "containers[].securityContext.windowsOptions": _is_set,
    "containers[].volumeMounts[].recursiveReadOnly": _other_than("Disabled"),
    "volumes[].emptyDir.medium": _other_than("", "Memory"),
    "volumes[].awsElasticBlockStore": _is_set,
    "volumes[].azureDisk": _is_set,
    "volumes[].azureFile": _is_set,
    "volumes[].cephfs": _is_set,
    "volumes[].cinder": _is_set,
    "volumes[].csi": _is_set,
    "volumes[].fc": _is_set,
    "volumes[].flexVolume": _is_set,
    "volumes[].flocker": _is_set,
    "volumes[].gcePersistentDisk": _is_set,
    "volumes[].gitRepo": _is_set,
    "volumes[].glusterfs": _is_set,
    "volumes[].image": _is_set,
    "volumes[].iscsi": _is_set,
    "volumes[].nfs": _is_set,
    "volumes[].photonPersistentDisk": _is_set,
    "volumes[].portworxVolume": _is_set,
    "volumes[].projected.sources[].clusterTrustBundle": _is_set,
    "volumes[].projected.sources[].podCertificate": _is_set,
    "volumes[].quobyte": _is_set,
    "volumes[].rbd": _is_set,
    "volumes[].scaleIO": _is_set,
    "volumes[].storageos": _is_set,
    "volumes[].vsphereVolume": _is_set,
}

# Fields something acts on, down to the depth at which NOT_YET starts to tell them apart.
HONOURED = (
    "activeDeadlineSeconds", "affinity", "automountServiceAccountToken", "containers", "dnsConfig",
    "dnsPolicy", "enableServiceLinks", "ephemeralContainers", "hostAliases", "hostIPC",
    "hostNetwork", "hostPID",
    "hostname", "hostnameOverride", "initContainers", "nodeName", "nodeSelector", "os",
    "overhead", "preemptionPolicy", "priority", "priorityClassName", "readinessGates",
    "resources", "restartPolicy", "runtimeClassName", "schedulerName", "schedulingGates",
    "securityContext",
    "serviceAccount", "serviceAccountName", "setHostnameAsFQDN", "shareProcessNamespace",
    "subdomain", "terminationGracePeriodSeconds", "tolerations",
    "topologySpreadConstraints", "volumes",
    *(f"securityContext.{f}" for f in (
        "fsGroup", "fsGroupChangePolicy", "runAsGroup", "runAsNonRoot", "runAsUser",
        "seccompProfile", "supplementalGroups", "supplementalGroupsPolicy", "sysctls",
    )),
    *(f"containers[].{f}" for f in (
        "args", "command", "env", "envFrom", "image", "imagePullPolicy", "lifecycle",
        "livenessProbe", "name", "ports", "readinessProbe", "resizePolicy", "resources",
        "restartPolicy", "restartPolicyRules", "securityContext", "startupProbe", "stdin",
        "stdinOnce", "terminationMessagePath", "terminationMessagePolicy", "tty",
        "volumeDevices", "volumeMounts",
        "workingDir",
    )),
    *(f"containers[].securityContext.{f}" for f in (
        "allowPrivilegeEscalation", "capabilities", "privileged", "procMount",
        "readOnlyRootFilesystem",
        "runAsGroup", "runAsNonRoot", "runAsUser", "seccompProfile",
    )),
    *(f"volumes[].{f}" for f in (
        "configMap", "downwardAPI", "emptyDir", "ephemeral", "hostPath", "name",
        "persistentVolumeClaim", "projected", "secret",
    )),
)  # fmt: skip

# Resources a node limits by; others named in a container do nothing.
_LIMITED = ("cpu", "memory")


def unhonoured(spec: Body, path: str) -> list[str]:
    """A warning for each field of *spec* that is set and that nothing acts on."""
    found = [f"{where}: {WARNING}" for where in _walk(spec, _TREE, path)]
    for kind in ("containers", "initContainers"):
        for i, c in enumerate(spec.get(kind) or ()):
            found += _resources(c, f"{path}.{kind}[{i}].resources")
    return found


def _resources(container: Body, path: str) -> Iterator[str]:
    resources = container.get("resources") or {}
    for name in sorted({*(resources.get("limits") or ()), *(resources.get("requests") or ())}):
        if name not in _LIMITED:
            yield f"{path}[{name}]: {WARNING}"


@dataclass(slots=True)
class _Node:
    """One step of the patterns: what to ask of a value here, and the steps below."""

    is_set: Callable[[Any], bool] | None = None
    below: dict[str, _Node] = field(default_factory=dict)


def _tree() -> _Node:
    root = _Node()
    for pattern, is_set in NOT_YET.items():
        node = root
        for step in pattern.split("."):
            node = node.below.setdefault(step.removesuffix("[]"), _Node())
        node.is_set = is_set
    # Init containers have the same fields.
    root.below["initContainers"] = root.below["containers"]
    return root


_TREE = _tree()


def _walk(value: Body, node: _Node, path: str) -> Iterator[str]:
    """The paths of all values a pattern names and finds set."""
    for name, below in node.below.items():
        inner = value.get(name)
        if inner is None:
            continue
        where = f"{path}.{name}"
        if below.is_set is not None:
            if below.is_set(inner):
                yield where
        elif isinstance(inner, list):
            for i, item in enumerate(inner):
                yield from _walk(item, below, f"{where}[{i}]")
        else:
            yield from _walk(inner, below, where)
