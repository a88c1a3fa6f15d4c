"""Reading what containers use: recorded control groups of both versions, and the runtime's seam."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from sampan.node.runtime.native import cgroups

# The files of a busy container of 64 MiB as the two versions lay them out, shortened.
V1 = {
    "cpuacct/kube/pod1/c1/cpuacct.usage": "2412345678\n",
    "memory/kube/pod1/c1/memory.usage_in_bytes": "70254592\n",
    "memory/kube/pod1/c1/memory.stat": (
        "cache 2433024\nrss 66834432\ninactive_file 811008\ntotal_cache 2433024\n"
        "total_rss 66834432\ntotal_inactive_file 1216512\ntotal_active_file 405504\n"
    ),
}
V2 = {
    "cgroup.controllers": "cpuset cpu io memory pids\n",
    "kube/pod1/c1/cpu.stat": (
        "usage_usec 2412345\nuser_usec 2001000\nsystem_usec 411345\nnr_periods 0\n"
    ),
    "kube/pod1/c1/memory.current": "70254592\n",
    "kube/pod1/c1/memory.stat": "anon 66834432\nfile 2433024\ninactive_file 1216512\n",
}


def laid(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "cpu"), [(V1, 2_412_345_678), (V2, 2_412_345_000)], ids=["v1", "v2"]
)
def test_both_layouts_are_read(tmp_path: Path, files: dict[str, str], cpu: int):
    found = cgroups.usage("kube/pod1/c1", root=laid(tmp_path, files))
    assert found == {"cpu_ns": cpu, "memory_bytes": 70254592 - 1216512}


@pytest.mark.parametrize("files", [V1, V2], ids=["v1", "v2"])
def test_a_group_that_is_gone_used_nothing(tmp_path: Path, files: dict[str, str]):
    found = cgroups.usage("kube/pod2/c9", root=laid(tmp_path, files))
    assert found == {"cpu_ns": 0, "memory_bytes": 0}


def test_more_inactive_than_used_is_not_negative(tmp_path: Path):
    files = {**V2, "kube/pod1/c1/memory.current": "100\n"}
    assert cgroups.usage("kube/pod1/c1", root=laid(tmp_path, files))["memory_bytes"] == 0


def test_a_fake_container_uses_what_it_declares():
    from sampan.lib.loop import VirtualClock, run_virtual
    from sampan.node import usage
    from sampan.node.runtime.base import ContainerSpec, SandboxSpec
    from sampan.node.runtime.fake import Behaviour, FakeRuntime

    async def go() -> None:
        behaviours = {"busy": Behaviour(cpu=0.5, memory=4096)}
        runtime = FakeRuntime(VirtualClock(), behaviours=behaviours)
        await runtime.run_sandbox(
            SandboxSpec(id="s", namespace="d", name="p-1", uid="u", attempt=0)
        )
        spec = ContainerSpec(id="c", name="main", attempt=0, image="busy", log_path="")
        await runtime.create_container("s", spec)
        assert await usage.read(runtime) == []
        await runtime.start_container("c")
        await asyncio.sleep(4)
        (one,) = await usage.read(runtime)
        assert (one.cpu_ns, one.memory_bytes) == (2_000_000_000, 4096)
        assert (one.namespace, one.pod, one.uid, one.container) == ("d", "p-1", "u", "main")
        runtime.load("d", "p-", 2.0)
        await asyncio.sleep(1)
        (one,) = await usage.read(runtime)
        assert one.cpu_ns == 4_000_000_000

    run_virtual(go())
