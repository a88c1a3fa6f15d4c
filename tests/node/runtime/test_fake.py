"""FakeRuntime keeps the contract, and its own promises about behaviours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from sampan.lib.clock import RealClock
from sampan.node.runtime.base import ContainerSpec, Runtime, RuntimeFailure, SandboxSpec
from sampan.node.runtime.fake import LABEL, Behaviour, FakeRuntime
from sampan.testing.runtime_contract import RuntimeContract, container_spec


class TestFakeRuntime(RuntimeContract):
    image = "here:1"

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Runtime]:
        shell = Behaviour(execs={"/bin/sh": lambda _: (3, b"hi\n")})
        runtime = FakeRuntime(
            RealClock(), images=["here:1", "fake:1"], behaviours={"here:1": shell}
        )
        await runtime.start()
        yield runtime
        await runtime.close()

    def sleeper(self, **fields: Any) -> ContainerSpec:
        return container_spec("here:1", **fields)

    def exiting(self, code: int, **fields: Any) -> ContainerSpec:
        return container_spec("fake:1", labels={LABEL: f"run=0.01,exit={code}"}, **fields)

    def stubborn(self, **fields: Any) -> ContainerSpec:
        return container_spec("fake:1", labels={LABEL: "stop_delay=1e9"}, **fields)

    def unstartable(self, **fields: Any) -> ContainerSpec:
        return container_spec("fake:1", labels={LABEL: "start_error=no such file"}, **fields)


def _spec(**labels: str) -> SandboxSpec:
    return SandboxSpec(id="s", namespace="n", name="p", uid="u", labels=labels)


def test_behaviour_is_read_from_text() -> None:
    assert Behaviour.parse("run=5,exit=1,reason=OOMKilled") == Behaviour(
        run=5.0, exit=1, reason="OOMKilled"
    )
    assert Behaviour.parse("") == Behaviour()
    with pytest.raises(ValueError, match="unknown behaviour 'execs'"):
        Behaviour.parse("execs=x")


@pytest.mark.parametrize(
    ("container", "box", "env"),
    [
        ({LABEL: "exit=7"}, {}, ()),
        ({}, {f"{LABEL}/c": "exit=7"}, ()),
        ({}, {LABEL: "exit=7"}, ()),
        ({}, {}, (("SAMPAN_FAKE", "exit=7"),)),
    ],
)
def test_behaviour_is_found(
    container: dict[str, str], box: dict[str, str], env: tuple[tuple[str, str], ...]
) -> None:
    async def body() -> None:
        runtime = FakeRuntime(RealClock(), behaviours={"i": Behaviour(exit=1)})
        await runtime.run_sandbox(_spec(**box))
        spec = ContainerSpec(id="c1", name="c", image="i", labels=container, env=env)
        await runtime.create_container("s", spec)
        await runtime.start_container("c1")
        runtime.finish("c1", 7)
        [state] = await runtime.sandboxes()
        assert state.containers[0].exit_code == 7

    asyncio.run(body())


def test_addresses_are_used_again() -> None:
    async def body() -> None:
        runtime = FakeRuntime(RealClock(), pod_cidrs=("10.9.0.0/29", "fd09::/125"))
        for n in range(20):
            state = await runtime.run_sandbox(
                SandboxSpec(id=f"s{n}", namespace="n", name="p", uid=f"u{n}")
            )
            assert state.ips == ("10.9.0.2", "fd09::2")
            await runtime.remove_sandbox(state.id)

    asyncio.run(body())


def test_a_runtime_that_is_down_fails_everything() -> None:
    async def body() -> None:
        runtime = FakeRuntime(RealClock())
        runtime.down = True
        with pytest.raises(RuntimeFailure):
            await runtime.sandboxes()
        with pytest.raises(RuntimeFailure):
            await runtime.run_sandbox(_spec())

    asyncio.run(body())
