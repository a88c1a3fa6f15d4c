"""A node's own object: what it is made of, its conditions, and how it is kept alive."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sampan import KUBERNETES_VERSION, __version__
from sampan.api.obj import Body
from sampan.api.rules.resources import is_extended
from sampan.lib.clock import rfc3339
from sampan.node.runtime.base import Image

LEASE_SECONDS = 40
RENEW = 10.0  # seconds between lease renewals
REPORT = 300.0  # seconds after which an unchanged status is written again
_ARCH = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}
MAX_IMAGES = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What a node is and does not change while its agent runs."""

    name: str
    addresses: tuple[str, ...]
    capacity: Mapping[str, str]
    allocatable: Mapping[str, str]
    pod_cidrs: tuple[str, ...] = ()  # of the primary family first
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: Sequence[Body] = ()
    runtime_version: str = f"sampan://{__version__}"


def architecture() -> str:
    machine = platform.machine()
    return _ARCH.get(machine, machine)


def detect_capacity(disk: Path | None = None, pods: int = 110) -> dict[str, str]:
    """Cores, memory and pods of this machine, and the size of the file system of *disk*."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = {"cpu": str(os.cpu_count() or 1), "memory": f"{memory // 1024}Ki", "pods": str(pods)}
    if disk is not None:
        disk.mkdir(parents=True, exist_ok=True)
        size = os.statvfs(disk)
        found["ephemeral-storage"] = f"{size.f_frsize * size.f_blocks // 1024}Ki"
    return found


def node_labels(identity: Identity) -> dict[str, str]:
    """The labels the agent owns."""
    arch = architecture()
    return {
        "beta.kubernetes.io/arch": arch,
        "beta.kubernetes.io/os": "linux",
        "kubernetes.io/arch": arch,
        "kubernetes.io/hostname": identity.name,
        "kubernetes.io/os": "linux",
        **identity.labels,
    }


def pod_cidrs(identity: Identity) -> Body:
    """The part of a Node's spec that names them."""
    return {"podCIDR": identity.pod_cidrs[0], "podCIDRs": [*identity.pod_cidrs]}


def node_body(identity: Identity) -> Body:
    """A Node to create (without status)."""
    spec: Body = {}
    if identity.pod_cidrs:
        spec |= pod_cidrs(identity)
    if identity.taints:
        spec["taints"] = [dict(t) for t in identity.taints]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": identity.name, "labels": node_labels(identity)},
        "spec": spec,
    }


def node_status(
    identity: Identity, *, now: float, ready: tuple[bool, str], images: Sequence[Image], old: Body
) -> Body:
    """The whole status. ready: whether the runtime answers, and if not, why. old: the status
    before, whose transition times are kept."""
    addresses = [{"type": "InternalIP", "address": a} for a in identity.addresses]
    addresses.append({"type": "Hostname", "address": identity.name})
    # What others say the node has of countable resources of their own is there to be taken.
    extended = {n: v for n, v in (old.get("capacity") or {}).items() if is_extended(n)}
    gone = {n: None for n in old.get("allocatable") or () if is_extended(n) and n not in extended}
    return {
        "addresses": addresses,
        "allocatable": {**identity.allocatable, **extended, **gone},
        "capacity": {**identity.capacity, **extended},
        "conditions": _conditions(now, ready, old),
        "features": {"supplementalGroupsPolicy": True},
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        "images": _images(images),
        "nodeInfo": node_info(identity),
    }


def _conditions(now: float, ready: tuple[bool, str], old: Body) -> list[Body]:
    healthy, why = ready
    wanted: list[tuple[str, bool, str, str]] = [
        ("MemoryPressure", False, "KubeletHasSufficientMemory",
         "kubelet has sufficient memory available"),
        ("DiskPressure", False, "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("PIDPressure", False, "KubeletHasSufficientPID",
         "kubelet has sufficient PID available"),
        ("Ready", healthy, "KubeletReady" if healthy else "KubeletNotReady",
         "kubelet is posting ready status" if healthy else why),
    ]  # fmt: skip
    before = {c["type"]: c for c in old.get("conditions") or ()}
    stamp = rfc3339(now)
    out: list[Body] = []
    for type_, truth, reason, message in wanted:
        value = "True" if truth else "False"
        known = before.get(type_) or {}
        since = known.get("lastTransitionTime") if known.get("status") == value else None
        out.append(
            {
                "type": type_,
                "status": value,
                "lastHeartbeatTime": stamp,
                "lastTransitionTime": since or stamp,
                "reason": reason,
                "message": message,
            }
        )
    return out


def _images(images: Sequence[Image]) -> list[Body]:
    largest = sorted(images, key=lambda i: (-i.size, i.id))[:MAX_IMAGES]
    return [{"names": [*i.digests, *i.tags][:5] or [i.id], "sizeBytes": i.size} for i in largest]


def node_info(identity: Identity) -> Body:
    return {
        "architecture": architecture(),
        "bootID": _read("/proc/sys/kernel/random/boot_id"),
        "containerRuntimeVersion": identity.runtime_version,
        "kernelVersion": platform.release(),
        "kubeProxyVersion": "",
        "kubeletVersion": f"{KUBERNETES_VERSION}+sampan{__version__}",
        "machineID": _read("/etc/machine-id"),
        "operatingSystem": "linux",
        "osImage": _os_image(),
        "systemUUID": _read("/sys/class/dmi/id/product_uuid"),
    }


def lease_body(name: str, *, uid: str, now: str, pace: float = 1.0) -> Body:
    """A Lease in kube-node-lease. now: a MicroTime."""
    meta: dict[str, Any] = {"name": name, "namespace": "kube-node-lease"}
    if uid:
        meta["ownerReferences"] = [{"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid}]
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": meta,
        "spec": {
            "holderIdentity": name,
            "leaseDurationSeconds": int(LEASE_SECONDS * pace),
            "renewTime": now,
        },
    }


def without_heartbeat(status: Body) -> Body:
    """What decides whether a status has really changed."""
    # What is empty does not come back from the API: it is no difference.
    shown = {k: v for k, v in status.items() if v}
    shown["conditions"] = [
        {k: v for k, v in c.items() if k != "lastHeartbeatTime"}
        for c in status.get("conditions") or ()
    ]
    return shown


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return ""


def _os_image() -> str:
    for line in _read("/etc/os-release").splitlines():
        name, _, value = line.partition("=")
        if name == "PRETTY_NAME":
            return value.strip('"')
    return "Linux"
