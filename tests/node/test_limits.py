"""What a node refuses, and whom it evicts."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from sampan.lib.clock import RealClock
from sampan.node import stimuli as st
from sampan.node.admission import refusal
from sampan.node.resolve import Context
from sampan.node.volumes import DirectoryVolumes
from sampan.testing.machine_world import MachineWorld, pod_body


def with_sysctl(name: str, **spec: Any) -> dict[str, Any]:
    return pod_body(securityContext={"sysctls": [{"name": name, "value": "1"}]}, **spec)


@pytest.mark.parametrize(
    ("pod", "why"),
    [
        (pod_body(), None),
        (with_sysctl("kernel.shm_rmid_forced"), None),
        (with_sysctl("net/ipv4/tcp_syncookies"), None),
        (with_sysctl("kernel.msgmax"), 'forbidden sysctl: "kernel.msgmax" not allowlisted'),
        (with_sysctl("net.ipv4.tcp_syncookies", hostNetwork=True),
         'forbidden sysctl: "net.ipv4.tcp_syncookies" not allowed with host net enabled'),
        (with_sysctl("kernel.shm_rmid_forced", hostIPC=True),
         'forbidden sysctl: "kernel.shm_rmid_forced" not allowed with host ipc enabled'),
    ],
)  # fmt: skip
def test_sysctls(pod: dict[str, Any], why: str | None) -> None:
    assert refusal(pod) == (None if why is None else ("SysctlForbidden", why))


def test_a_refused_pod_fails_and_nothing_of_it_runs() -> None:
    world = MachineWorld(with_sysctl("kernel.msgmax"))
    world.run(60)
    why = 'forbidden sysctl: "kernel.msgmax" not allowlisted'
    assert (world.status["phase"], world.status["reason"], world.status["message"]) == (
        "Failed", "SysctlForbidden", f"Pod was rejected: {why}",
    )  # fmt: skip
    assert world.events() == [f"Warning SysctlForbidden {why}"]
    assert world.started == [] and world.of(st.RunSandbox) == []


def test_an_evicted_pod_ends_soon_and_is_not_restarted() -> None:
    world = MachineWorld(pod_body({"name": "a"}, restartPolicy="Always"))
    world.run(5)
    text = 'Usage of EmptyDir volume "v" exceeds the limit "1Mi". '
    world.tell(st.Evicted(text), st.Evicted(text))
    world.run(120)
    assert (world.status["phase"], world.status["reason"], world.status["message"]) == (
        "Failed", "Evicted", text,
    )  # fmt: skip
    assert world.events().count(f"Warning Evicted {text}") == 1
    assert world.running() == [] and [name for _, name in world.started] == ["a"]
    assert [s.grace for s in world.of(st.StopContainer)] == [1.0]


def _fill(volume: str, name: str, size: int) -> None:
    place = Path(volume, name)
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(bytes(size))


def test_volumes_are_measured(tmp_path: Path) -> None:
    volumes = [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}, {"name": "w", "emptyDir": {}},
               {"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "1"}}]  # fmt: skip
    pod = pod_body(volumes=volumes)

    async def run() -> None:
        made = DirectoryVolumes(tmp_path, None, clock=RealClock())  # type: ignore[arg-type]
        found = await made.mount(Context(pod=pod), lambda _text: None)
        assert await made.over_limit(pod) == ""
        _fill(found["w"], "big", 3 << 20)
        _fill(found["v"], "some", 600 << 10)
        os.link(f"{found['v']}/some", f"{found['v']}/again")
        assert await made.over_limit(pod) == ""
        _fill(found["v"], "deep/more", 600 << 10)
        assert await made.over_limit(pod) == (
            'Usage of EmptyDir volume "v" exceeds the limit "1Mi". '
        )

    asyncio.run(run())
