"""New limits for what runs already. All of this happens in a thread of the node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from sampan.node.runtime.base import Limits, RuntimeFailure
from sampan.node.runtime.native import cgroups
from sampan.node.runtime.native.launch import oci
from sampan.node.runtime.native.records import Container, Sandbox, write_json
from sampan.node.runtime.native.spec import PERIOD


def resize(
    runtime: Sequence[str], sandbox: Sandbox, group: str, whole: Limits,
    containers: Mapping[Container, Limits],
) -> None:  # fmt: skip
    """group: of the sandbox. Its limits grow before those of its containers, and shrink after
    them. Raises RuntimeFailure."""
    _check_memory(sandbox, group, whole, containers)
    _limit_pod(group, _wider(whole, limits_of(sandbox)))
    for container, limits in containers.items():
        _update(runtime, container, limits)
    _limit_pod(group, whole)
    sandbox.spec = replace(sandbox.spec, **asdict(whole))
    sandbox.save()


def limits_of(record: Sandbox | Container) -> Limits:
    spec = record.spec
    return Limits(spec.cpu_shares, spec.cpu_quota_us, spec.memory_limit)


def _check_memory(
    sandbox: Sandbox, group: str, whole: Limits, containers: Mapping[Container, Limits]
) -> None:
    found = []
    targets = [("pod", group, limits_of(sandbox), whole)]
    targets += [
        (f'container "{c.spec.name}"', f"{group}/{c.id}", limits_of(c), limits)
        for c, limits in containers.items()
    ]
    for what, name, before, after in targets:
        limit = after.memory_limit
        if not limit or (before.memory_limit and limit >= before.memory_limit):
            continue
        used = cgroups.usage(name)["memory_bytes"]
        if used >= limit:
            text = f"attempting to set {what} memory limit ({limit}) below current usage ({used})"
            found.append(text)
    if found:
        told = found[0] if len(found) == 1 else f"[{', '.join(found)}]"
        raise RuntimeFailure("Error", f"cannot decrease memory limits: {told}")


def _wider(a: Limits, b: Limits) -> Limits:
    """The larger of each; 0 is no limit."""

    def limit(x: int, y: int) -> int:
        return max(x, y) if x and y else 0

    return Limits(
        max(a.cpu_shares, b.cpu_shares), limit(a.cpu_quota_us, b.cpu_quota_us),
        limit(a.memory_limit, b.memory_limit),
    )  # fmt: skip


def _limit_pod(group: str, limits: Limits) -> None:
    cgroups.make_pod(
        group, shares=limits.cpu_shares, quota=limits.cpu_quota_us, memory=limits.memory_limit
    )


def _update(runtime: Sequence[str], container: Container, limits: Limits) -> None:
    cpu: dict[str, Any] = {"shares": max(2, limits.cpu_shares)}
    if limits.cpu_quota_us:
        cpu |= {"quota": limits.cpu_quota_us, "period": PERIOD}
    resources: dict[str, Any] = {"cpu": cpu}
    if limits.memory_limit:
        resources["memory"] = {"limit": limits.memory_limit}
    file = container.path / "resources.json"
    write_json(file, resources)
    done = oci(runtime, "update", "--resources", str(file), container.id)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise RuntimeFailure("Error", said[-1] if said else "the runtime failed")
    container.spec = replace(container.spec, **asdict(limits))
    container.save()
