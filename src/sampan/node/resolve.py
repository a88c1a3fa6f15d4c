"""From a pod's spec to what the runtime needs: no Kubernetes references are left. Pure.

Whatever has to be fetched first (config maps, secrets, services, volumes) comes in by a Context.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from sampan.api import amounts
from sampan.api.obj import Body
from sampan.lib.quantity import parse
from sampan.node.environment import environment, expand
from sampan.node.runtime.base import (
    ContainerSpec,
    Device,
    Image,
    Limits,
    Mount,
    RuntimeFailure,
    SandboxSpec,
)
from sampan.node.status import qos_class
from sampan.node.units import pod_name

FAKE = "sampan.fake"  # annotations that direct the fake runtime
_KERNEL_NAME = 64  # bytes of a hostname
_PROPAGATION = {"None": "private", "HostToContainer": "rslave", "Bidirectional": "rshared"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What the resolution of a pod's containers draws on.

    configs: by (``configmaps`` or ``secrets``, name), None for what does not exist.
    volumes: directory (or file) of each volume, in the node's mount namespace.
    sub_path: the place of a sub path in a volume and whether it is a file.
    extra: mounts by container path that the kubelet adds unless the pod mounts there itself.
    """

    pod: Body
    node_name: str = ""
    host_ips: tuple[str, ...] = ()
    pod_ips: tuple[str, ...] = ()
    allocatable: Mapping[str, str] = field(default_factory=dict)
    services: tuple[Body, ...] = ()
    configs: Mapping[tuple[str, str], Body | None] = field(default_factory=dict)
    volumes: Mapping[str, str] = field(default_factory=dict)
    sub_path: Callable[[str, str], tuple[str, bool]] = lambda base, sub: (f"{base}/{sub}", False)
    extra: tuple[Mount, ...] = ()
    refreshing: bool = False  # contents that are a few seconds old will do


def references(container: Body) -> set[tuple[str, str]]:
    """The config maps and secrets a container's environment names."""
    found: set[tuple[str, str]] = set()
    for source in container.get("envFrom") or ():
        for key, resource in (("configMapRef", "configmaps"), ("secretRef", "secrets")):
            if source.get(key):
                found.add((resource, source[key].get("name", "")))
    for variable in container.get("env") or ():
        origin = variable.get("valueFrom") or {}
        for key, resource in (("configMapKeyRef", "configmaps"), ("secretKeyRef", "secrets")):
            if origin.get(key):
                found.add((resource, origin[key].get("name", "")))
    return found


def hostname(pod: Body, node_name: str = "") -> str:
    """What the pod calls itself."""
    spec = pod["spec"]
    if spec.get("hostnameOverride"):
        return str(spec["hostnameOverride"])
    if spec.get("hostNetwork"):
        return node_name
    name = host_label(pod)
    if spec.get("setHostnameAsFQDN") and spec.get("subdomain"):
        return f"{name}.{domain(pod)}"
    return name


def host_label(pod: Body) -> str:
    """The pod's own label, below its domain where it has one."""
    spec = pod["spec"]
    if spec.get("hostnameOverride"):
        return str(spec["hostnameOverride"])
    return str(spec.get("hostname") or pod["metadata"]["name"])[:63].rstrip("-.")


def checked_hostname(pod: Body, node_name: str = "") -> str:
    """``hostname``, where the kernel takes it. Raises RuntimeFailure."""
    name = hostname(pod, node_name)
    if pod["spec"].get("setHostnameAsFQDN") and len(name) > _KERNEL_NAME:
        raise RuntimeFailure(
            "CreatePodSandboxError",
            "failed to construct FQDN from pod hostname and cluster domain, FQDN "
            f"{name} is too long ({_KERNEL_NAME} characters is the max, {len(name)} characters "
            "requested)",
        )
    return name


def domain(pod: Body, cluster_domain: str = "cluster.local") -> str:
    """The domain of a pod with a subdomain, or ''; a hostnameOverride is all of a pod's name."""
    sub = pod["spec"].get("subdomain")
    if not sub or pod["spec"].get("hostnameOverride"):
        return ""
    return f"{sub}.{pod['metadata']['namespace']}.svc.{cluster_domain}"


def sandbox_spec(
    pod: Body, *, id: str, attempt: int, node_name: str, log_dir: str = ""
) -> SandboxSpec:
    """Raises RuntimeFailure for a name the kernel does not take."""
    meta, spec = pod["metadata"], pod["spec"]
    security = spec.get("securityContext") or {}
    labels = {
        "io.kubernetes.pod.name": meta["name"],
        "io.kubernetes.pod.namespace": meta.get("namespace", ""),
        "io.kubernetes.pod.uid": meta.get("uid", ""),
    }
    labels |= {k: v for k, v in (meta.get("annotations") or {}).items() if k.startswith(FAKE)}
    return SandboxSpec(
        id=id,
        namespace=meta.get("namespace", ""),
        name=meta["name"],
        uid=meta.get("uid", ""),
        attempt=attempt,
        hostname=checked_hostname(pod, node_name),
        host_network=bool(spec.get("hostNetwork")),
        host_pid=bool(spec.get("hostPID")),
        host_ipc=bool(spec.get("hostIPC")),
        share_pid=bool(spec.get("shareProcessNamespace")),
        sysctls={s["name"]: s["value"] for s in security.get("sysctls") or ()},
        labels=labels,
        log_dir=log_dir,
        **asdict(pod_limits(spec)),
    )


def pod_limits(spec: Body) -> Limits:
    """Of a pod's control group. It has a limit where the pod as a whole has one, or every
    container."""
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    cpus = [_resource(c, "limits", "cpu") for c in containers]
    memories = [_resource(c, "limits", "memory") for c in containers]
    given = spec.get("resources") or {}
    whole = given.get("limits") or {}
    cpu = _amount(whole.get("cpu")) or (sum(cpus) if all(cpus) else 0.0)
    memory = _amount(whole.get("memory")) or (sum(memories) if all(memories) else 0.0)
    asked = _amount((given.get("requests") or {}).get("cpu"))
    shares = _shares(asked or sum(_resource(c, "requests", "cpu") for c in containers))
    return Limits(shares, _quota(cpu), int(memory))


def container_limits(container: Body) -> Limits:
    cpu = _resource(container, "limits", "cpu")
    asked = _resource(container, "requests", "cpu") or cpu
    memory = int(_resource(container, "limits", "memory"))
    return Limits(_shares(asked), _quota(cpu), memory)


def container_spec(
    context: Context,
    container: Body,
    *,
    id: str,
    attempt: int,
    image: Image | None = None,
    log_path: str = "",
    joins: str = "",
) -> ContainerSpec:
    """joins: the id of the container an ephemeral one wants to look into. Raises RuntimeFailure
    (CreateContainerConfigError) for what the pod refers to and is not."""
    pod = context.pod
    env = environment(context, container)
    values = dict(env)
    security = _security(pod, container, image)
    meta = pod["metadata"]
    return ContainerSpec(
        id=id,
        name=container["name"],
        attempt=attempt,
        image=image.id if image is not None else container.get("image", ""),
        command=tuple(expand(c, values) for c in container.get("command") or ()),
        args=tuple(expand(c, values) for c in container.get("args") or ()),
        env=env,
        cwd=container.get("workingDir", ""),
        mounts=_mounts(context, container, values),
        devices=_devices(context, container),
        **asdict(container_limits(container)),
        oom_score_adj=_oom_score(context, container),
        stdin=bool(container.get("stdin")),
        stdin_once=bool(container.get("stdinOnce")),
        tty=bool(container.get("tty")),
        joins=joins,
        log_path=log_path,
        labels={
            "io.kubernetes.container.name": container["name"],
            "io.kubernetes.pod.name": meta["name"],
            "io.kubernetes.pod.namespace": meta.get("namespace", ""),
            "io.kubernetes.pod.uid": meta.get("uid", ""),
        },
        **security,
    )


# ---- resources -----------------------------------------------------------------------------------


def _resource(container: Body, kind: str, name: str) -> float:
    return _amount(((container.get("resources") or {}).get(kind) or {}).get(name))


def _amount(text: str | int | float | None) -> float:
    return float(parse(text)) if text is not None else 0.0


def _shares(cpu: float) -> int:
    """cgroup v1 shares of so many cores, at least 2."""
    return min(max(int(cpu * 1000) * 1024 // 1000, 2), 262144)


def _quota(cpu: float) -> int:
    """Microseconds per 100 ms period; at least 1 ms when there is a limit."""
    return max(int(cpu * 100_000), 1000) if cpu else 0


def _oom_score(context: Context, container: Body) -> int:
    spec = context.pod["spec"]
    if spec.get("priorityClassName") == "system-node-critical":
        return -997
    quality = (context.pod.get("status") or {}).get("qosClass") or qos_class(spec)
    if quality == "Guaranteed":
        return -997
    capacity = _amount(context.allocatable.get("memory"))
    if quality == "BestEffort" or not capacity:
        return 1000
    asked = _resource(container, "requests", "memory") + _left_of_pod(spec)
    share = 1000 - int(1000 * asked / capacity)
    return min(max(share, 3), 999)


def _left_of_pod(spec: Body) -> float:
    """Each container's part of the memory that is requested for the pod as a whole only."""
    asked = _amount(((spec.get("resources") or {}).get("requests") or {}).get("memory"))
    if not asked:
        return 0.0
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    parts = {k: v for k, v in spec.items() if k not in ("resources", "overhead")}
    total = amounts.of_pod(parts, "requests").get("memory", amounts.ZERO)
    return float(int(asked - float(total.value)) // len(containers))


# ---- security ------------------------------------------------------------------------------------


def _security(pod: Body, container: Body, image: Image | None) -> dict[str, Any]:
    outer: Body = pod["spec"].get("securityContext") or {}
    own: Body = container.get("securityContext") or {}
    both = {**{k: outer[k] for k in outer if k in _SHARED}, **own}
    privileged = bool(own.get("privileged"))
    uid, non_root = both.get("runAsUser"), bool(both.get("runAsNonRoot"))
    if non_root:
        _check_non_root(pod, container, uid, image)
    groups = [*(outer.get("supplementalGroups") or ())]
    if outer.get("fsGroup") is not None:
        groups.append(outer["fsGroup"])
    capabilities = own.get("capabilities") or {}
    seccomp = both.get("seccompProfile") or {}
    profile = seccomp.get("type", "RuntimeDefault")
    if profile == "Localhost":
        profile = f"Localhost/{seccomp.get('localhostProfile', '')}"
    escalation = own.get("allowPrivilegeEscalation")
    return {
        "uid": uid,
        "gid": both.get("runAsGroup"),
        "groups": tuple(dict.fromkeys(int(g) for g in groups)),
        "strict_groups": outer.get("supplementalGroupsPolicy") == "Strict",
        "run_as_non_root": non_root,
        "cap_add": tuple(capabilities.get("add") or ()),
        "cap_drop": tuple(capabilities.get("drop") or ()),
        "privileged": privileged,
        "allow_privilege_escalation": True if escalation is None else bool(escalation),
        "read_only_root": bool(own.get("readOnlyRootFilesystem")),
        "seccomp": "Unconfined" if privileged else profile,
        "unmasked_proc": privileged or own.get("procMount") == "Unmasked",
    }


_SHARED = ("runAsUser", "runAsGroup", "runAsNonRoot", "seccompProfile", "seLinuxOptions")


def _check_non_root(pod: Body, container: Body, uid: int | None, image: Image | None) -> None:
    where = f'(pod: "{pod_name(pod)}", container: {container["name"]})'
    if uid is not None:
        if uid == 0:
            _refuse(f"container's runAsUser breaks non-root policy {where}")
        return
    user = (image.user if image is not None else "").partition(":")[0]
    if user and not user.isdigit():
        _refuse(
            f"container has runAsNonRoot and image has non-numeric user ({user}), "
            f"cannot verify user is non-root {where}"
        )
    if not user or int(user) == 0:
        _refuse(f"container has runAsNonRoot and image will run as root {where}")


def _refuse(message: str) -> None:
    raise RuntimeFailure("CreateContainerConfigError", message)


# ---- mounts --------------------------------------------------------------------------------------


_FIXED = frozenset({"configMap", "secret", "downwardAPI", "projected"})


def _mounts(context: Context, container: Body, env: Mapping[str, str]) -> tuple[Mount, ...]:
    mounts: list[Mount] = []
    fixed = {  # their content is the cluster's, or the pod asked for it so: nobody writes into it
        v["name"]
        for v in context.pod["spec"].get("volumes") or ()
        if _FIXED & v.keys() or (v.get("persistentVolumeClaim") or {}).get("readOnly")
    }
    for mount in container.get("volumeMounts") or ():
        source = context.volumes.get(mount["name"])
        if source is None:
            _refuse(f'cannot find volume "{mount["name"]}" to mount into container '
                    f'"{container["name"]}"')  # fmt: skip
            continue
        sub = mount.get("subPath") or ""
        if mount.get("subPathExpr"):
            sub = _sub_path(mount["subPathExpr"], env)
        is_file = False
        if sub:
            source, is_file = context.sub_path(source, sub)
        mounts.append(
            Mount(
                source=source,
                target=mount["mountPath"],
                read_only=bool(mount.get("readOnly")) or mount["name"] in fixed,
                propagation=_PROPAGATION[mount.get("mountPropagation") or "None"],
                sub_file=is_file,
            )
        )
    taken = {m.target.rstrip("/") for m in mounts}
    mounts += [m for m in context.extra if m.target not in taken]
    return tuple(mounts)


def _sub_path(expression: str, env: Mapping[str, str]) -> str:
    """Every variable of a subPathExpr must have a value: a path is not what is left without it."""
    named = re.findall(r"\$\$|\$\(([^)]*)\)", expression)
    missing = sorted({name for name in named if name and not env.get(name)})
    if missing:
        _refuse(f"missing value for {', '.join(missing)}")
    return expand(expression, env)


def _devices(context: Context, container: Body) -> tuple[Device, ...]:
    found: list[Device] = []
    for device in container.get("volumeDevices") or ():
        source = context.volumes.get(device["name"])
        if source is None:
            _refuse(f'cannot find volume "{device["name"]}" to pass into container '
                    f'"{container["name"]}"')  # fmt: skip
            continue
        found.append(Device(source=source, target=device["devicePath"]))
    return tuple(found)


# ---- fields --------------------------------------------------------------------------------------

_KEYED = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")


def pod_field(context: Context, path: str) -> str:
    """The text a ``fieldRef`` stands for."""
    pod = context.pod
    meta, spec = pod["metadata"], pod["spec"]
    keyed = _KEYED.fullmatch(path)
    if keyed is not None:
        return str((meta.get(keyed[1]) or {}).get(keyed[2], ""))
    status = pod.get("status") or {}
    pod_ips = context.pod_ips or tuple(e["ip"] for e in status.get("podIPs") or ())
    fields: dict[str, Callable[[], str]] = {
        "metadata.name": lambda: meta["name"],
        "metadata.namespace": lambda: meta.get("namespace", ""),
        "metadata.uid": lambda: meta.get("uid", ""),
        "metadata.labels": lambda: _lines(meta.get("labels") or {}),
        "metadata.annotations": lambda: _lines(meta.get("annotations") or {}),
        "spec.nodeName": lambda: spec.get("nodeName") or context.node_name,
        "spec.serviceAccountName": lambda: spec.get("serviceAccountName", ""),
        "status.hostIP": lambda: context.host_ips[0] if context.host_ips else "",
        "status.hostIPs": lambda: ",".join(context.host_ips),
        "status.podIP": lambda: pod_ips[0] if pod_ips else "",
        "status.podIPs": lambda: ",".join(pod_ips),
    }
    if path not in fields:
        _refuse(f"unsupported fieldPath: {path}")
    return str(fields[path]())


def _lines(values: Mapping[str, str]) -> str:
    return "\n".join(f"{k}={json.dumps(v, ensure_ascii=False)}" for k, v in sorted(values.items()))


def resource_field(context: Context, ref: Body, default_container: str) -> str:
    """The number a ``resourceFieldRef`` stands for, in units of its divisor, rounded up. What has
    no limit has the node's allocatable amount."""
    name = ref.get("containerName") or default_container
    spec = context.pod["spec"]
    everyone: Iterable[Body] = [
        *(spec.get("containers") or ()),
        *(spec.get("initContainers") or ()),
    ]
    container = next((c for c in everyone if c["name"] == name), None)
    if container is None:
        raise RuntimeFailure("CreateContainerConfigError", f"container {name} not found")
    kind, _, resource = ref["resource"].partition(".")
    found = ((container.get("resources") or {}).get(kind) or {}).get(resource)
    if found is None and kind == "limits":
        found = context.allocatable.get(resource)
    amount = parse(found) if found is not None else 0
    divisor = parse(ref.get("divisor") or "1") or 1
    return str(-(-amount // divisor))
