"""Which PodSpec fields the node and the scheduler act on, and the warning for those they do not.

``NOT_YET`` is the one list: a field named there is accepted and stored but nothing acts on it, and
whoever sets it is told. Making a field work means removing its line. ``HONOURED`` names the rest,
so that a test can see that no field of the schema is in neither list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from sampan.api.obj import Body

WARNING = "accepted and stored, but nothing acts on it yet"


def _is_set(value: Any) -> bool:
    return value not in (None, "", [], {}, False, 0)


def _other_than(*values: Any) -> Callable[[Any], bool]:
    return lambda value: value is not None and value not in values


def _is_false(value: Any) -> bool:
    return value is False


# Path below the PodSpec ("[]": any element; "{}": any key) -> when its value counts as set.
NOT_YET: dict[str, Callable[[Any], bool]] = {
    "activeDeadlineSeconds": _is_set,
    "affinity": _is_set,
    "dnsConfig": _is_set,
    "dnsPolicy": _other_than("ClusterFirst"),
    "ephemeralContainers": _is_set,
    "hostAliases": _is_set,
    "hostUsers": _is_false,
    "hostnameOverride": _is_set,
    "imagePullSecrets": _is_set,
    "overhead": _is_set,
    "preemptionPolicy": _other_than("PreemptLowerPriority"),
    "readinessGates": _is_set,
    "resourceClaims": _is_set,
    "resources": _is_set,
    "runtimeClassName": _is_set,
    "schedulingGates": _is_set,
    "schedulingGroup": _is_set,
    "setHostnameAsFQDN": _is_set,
    "subdomain": _is_set,
    "topologySpreadConstraints": _is_set,
    "workloadRef": _is_set,
    "os.name": _other_than("linux"),
    "securityContext.appArmorProfile": _is_set,
    "securityContext.fsGroup": _is_set,
    "securityContext.fsGroupChangePolicy": _is_set,
    "securityContext.seLinuxChangePolicy": _is_set,
    "securityContext.seLinuxOptions": _is_set,
    "securityContext.seccompProfile.localhostProfile": _is_set,
    "securityContext.supplementalGroupsPolicy": _other_than("Merge"),
    "securityContext.sysctls": _is_set,
    "securityContext.windowsOptions": _is_set,
    "containers[].env[].valueFrom.fileKeyRef": _is_set,
    "containers[].lifecycle": _is_set,
    "containers[].livenessProbe.grpc": _is_set,
    "containers[].readinessProbe.grpc": _is_set,
    "containers[].startupProbe.grpc": _is_set,
    "containers[].ports[].hostPort": _is_set,
    "containers[].ports[].hostIP": _is_set,
    "containers[].resizePolicy": _is_set,
    "containers[].resources.claims": _is_set,
    "containers[].restartPolicy": _is_set,
    "containers[].restartPolicyRules": _is_set,
    "containers[].securityContext.appArmorProfile": _is_set,
    "containers[].securityContext.procMount": _other_than("Default"),
    "containers[].securityContext.seLinuxOptions": _is_set,
    "containers[].securityContext.seccompProfile.localhostProfile": _is_set,
    "containers[].securityContext.windowsOptions": _is_set,
    "containers[].volumeDevices": _is_set,
    "containers[].volumeMounts[].mountPropagation": _other_than("None"),
    "containers[].volumeMounts[].recursiveReadOnly": _other_than("Disabled"),
    "volumes[].emptyDir.medium": _is_set,
    "volumes[].emptyDir.sizeLimit": _is_set,
    "volumes[].awsElasticBlockStore": _is_set,
    "volumes[].azureDisk": _is_set,
    "volumes[].azureFile": _is_set,
    "volumes[].cephfs": _is_set,
    "volumes[].cinder": _is_set,
    "volumes[].csi": _is_set,
    "volumes[].ephemeral": _is_set,
    "volumes[].fc": _is_set,
    "volumes[].flexVolume": _is_set,
    "volumes[].flocker": _is_set,
    "volumes[].gcePersistentDisk": _is_set,
    "volumes[].gitRepo": _is_set,
    "volumes[].glusterfs": _is_set,
    "volumes[].image": _is_set,
    "volumes[].iscsi": _is_set,
    "volumes[].nfs": _is_set,
    "volumes[].persistentVolumeClaim": _is_set,
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
    "automountServiceAccountToken", "containers", "enableServiceLinks", "hostIPC", "hostNetwork",
    "hostPID", "hostname", "initContainers", "nodeName", "nodeSelector", "os", "priority",
    "priorityClassName", "restartPolicy", "schedulerName", "securityContext", "serviceAccount",
    "serviceAccountName", "shareProcessNamespace", "terminationGracePeriodSeconds", "tolerations",
    "volumes",
    *(f"securityContext.{f}" for f in (
        "runAsGroup", "runAsNonRoot", "runAsUser", "seccompProfile", "supplementalGroups",
    )),
    *(f"containers[].{f}" for f in (
        "args", "command", "env", "envFrom", "image", "imagePullPolicy", "livenessProbe", "name",
        "ports", "readinessProbe", "resources", "securityContext", "startupProbe", "stdin",
        "stdinOnce", "terminationMessagePath", "terminationMessagePolicy", "tty", "volumeMounts",
        "workingDir",
    )),
    *(f"containers[].securityContext.{f}" for f in (
        "allowPrivilegeEscalation", "capabilities", "privileged", "readOnlyRootFilesystem",
        "runAsGroup", "runAsNonRoot", "runAsUser", "seccompProfile",
    )),
    *(f"volumes[].{f}" for f in (
        "configMap", "downwardAPI", "emptyDir", "hostPath", "name", "projected", "secret",
    )),
)  # fmt: skip

# Resources a node limits by; others named in a container do nothing.
_LIMITED = ("cpu", "memory")


def unhonoured(spec: Body, path: str) -> list[str]:
    """A warning for each field of *spec* that is set and that nothing acts on."""
    found = []
    for pattern, is_set in NOT_YET.items():
        # Init containers have the same fields; a restartPolicy there makes a sidecar.
        patterns = [pattern]
        if pattern.startswith("containers[]"):
            patterns.append("initContainers" + pattern[len("containers") :])
        for p in patterns:
            for where, value in _select(spec, p.split("."), path):
                if is_set(value):
                    found.append(f"{where}: {WARNING}")
    for kind in ("containers", "initContainers"):
        for i, c in enumerate(spec.get(kind) or ()):
            found += _resources(c, f"{path}.{kind}[{i}].resources")
    return found


def _resources(container: Body, path: str) -> Iterator[str]:
    resources = container.get("resources") or {}
    for name in sorted({*(resources.get("limits") or ()), *(resources.get("requests") or ())}):
        if name not in _LIMITED:
            yield f"{path}[{name}]: {WARNING}"


def _select(value: Any, steps: list[str], path: str) -> Iterator[tuple[str, Any]]:
    """Every value a pattern names, with its path."""
    if not steps:
        yield path, value
        return
    if not isinstance(value, dict):
        return
    step, rest = steps[0], steps[1:]
    name = step.removesuffix("[]")
    inner = value.get(name)
    if inner is None:
        return
    if step.endswith("[]"):
        for i, item in enumerate(inner):
            yield from _select(item, rest, f"{path}.{name}[{i}]")
    else:
        yield from _select(inner, rest, f"{path}.{name}")
