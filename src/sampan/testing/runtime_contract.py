"""What every Runtime must do: subclass RuntimeContract in a test module and say how to make one.

Each test runs in a loop of its own. Waits have a generous deadline and end with the event they
wait for.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any

import pytest

from sampan.node.runtime.base import (
    ContainerSpec,
    ContainerState,
    Limits,
    Runtime,
    RuntimeFailure,
    SandboxSpec,
    SandboxState,
)

DEADLINE = 20.0


class RuntimeContract:
    """Override ``open``, ``sleeper``, ``exiting`` and ``stubborn``; the rest as needed."""

    image = "busybox:latest"  # present in the runtime's store
    absent_image = "nowhere.invalid/absent:1"
    shell = ("/bin/sh", "-c", "echo hi; exit 3")  # prints hi, ends with 3

    def open(self) -> AbstractAsyncContextManager[Runtime]:
        """A started runtime with nothing in it; closes and cleans up at the end."""
        raise NotImplementedError

    async def reopen(self, runtime: Runtime) -> Runtime:
        """Another runtime over the same state, as after a restart of the agent."""
        return runtime

    def sleeper(self, **fields: Any) -> ContainerSpec:
        """A container that runs until it gets SIGTERM, then ends."""
        raise NotImplementedError

    def exiting(self, code: int, **fields: Any) -> ContainerSpec:
        """A container that ends by itself, soon, with *code*."""
        raise NotImplementedError

    def stubborn(self, **fields: Any) -> ContainerSpec:
        """A container that ignores SIGTERM."""
        raise NotImplementedError

    def unstartable(self, **fields: Any) -> ContainerSpec:
        """A container whose command does not exist."""
        raise NotImplementedError

    # ---- sandboxes -----------------------------------------------------------------------------

    def test_sandbox_is_listed_as_it_was_asked_for(self) -> None:
        async def body(runtime: Runtime) -> None:
            spec = _sandbox()
            state = await runtime.run_sandbox(spec)
            assert state.ready
            assert state.ips
            [listed] = await runtime.sandboxes()
            assert (listed.id, listed.namespace, listed.name, listed.uid, listed.attempt) == (
                spec.id,
                spec.namespace,
                spec.name,
                spec.uid,
                spec.attempt,
            )
            assert listed.ready
            assert listed.ips == state.ips
            assert listed.containers == ()

        self._run(body)

    def test_running_a_sandbox_twice_is_running_it_once(self) -> None:
        async def body(runtime: Runtime) -> None:
            spec = _sandbox()
            first = await runtime.run_sandbox(spec)
            second = await runtime.run_sandbox(spec)
            assert first.ips == second.ips
            assert len(await runtime.sandboxes()) == 1

        self._run(body)

    def test_sandboxes_have_addresses_of_their_own(self) -> None:
        async def body(runtime: Runtime) -> None:
            states = await asyncio.gather(*(runtime.run_sandbox(_sandbox()) for _ in range(3)))
            assert len({s.ips for s in states}) == 3

        self._run(body)

    def test_a_handler_that_is_not_here_is_refused(self) -> None:
        async def body(runtime: Runtime) -> None:
            with pytest.raises(RuntimeFailure) as refused:
                await runtime.run_sandbox(_sandbox(handler="kata"))
            assert refused.value.message == (
                'failed to get sandbox runtime: no runtime for "kata" is configured'
            )
            assert [*await runtime.sandboxes()] == []

        self._run(body)

    def test_stopping_a_sandbox_ends_its_containers(self) -> None:
        async def body(runtime: Runtime) -> None:
            box, cid = await self._running(runtime, self.sleeper())
            await runtime.stop_sandbox(box)
            state = await _box(runtime, box)
            assert not state.ready
            assert _container(state, cid).state == "exited"
            await runtime.stop_sandbox(box)

        self._run(body)

    def test_removing_a_sandbox_leaves_nothing(self) -> None:
        async def body(runtime: Runtime) -> None:
            box, cid = await self._running(runtime, self.sleeper())
            await runtime.stop_sandbox(box)
            await runtime.remove_sandbox(box)
            assert await runtime.sandboxes() == []
            await runtime.remove_sandbox(box)
            await runtime.stop_sandbox(box)
            await runtime.remove_container(cid)

        self._run(body)

    # ---- containers ----------------------------------------------------------------------------

    def test_container_is_created_then_runs(self) -> None:
        async def body(runtime: Runtime) -> None:
            box = (await runtime.run_sandbox(_sandbox())).id
            spec = self.sleeper(attempt=2)
            await runtime.create_container(box, spec)
            created = _container(await _box(runtime, box), spec.id)
            assert created.state == "created"
            assert (created.name, created.attempt, created.sandbox_id) == (spec.name, 2, box)
            started = await runtime.start_container(spec.id)
            assert started.state == "running"
            assert started.pid > 0
            assert started.started_at >= created.created_at > 0
            assert started.image_id.startswith("sha256:")
            seen = _container(await _box(runtime, box), spec.id)
            assert seen.state == "running"
            assert (await runtime.usage()).keys() == {spec.id}

        self._run(body)

    @pytest.mark.parametrize(("code", "reason"), [(0, "Completed"), (3, "Error")])
    def test_an_end_is_told_with_its_code(self, code: int, reason: str) -> None:
        async def body(runtime: Runtime) -> None:
            box = (await runtime.run_sandbox(_sandbox())).id
            spec = self.exiting(code)
            await runtime.create_container(box, spec)
            async with _Exits(runtime) as exits:
                await runtime.start_container(spec.id)
                state = await exits.until(box, lambda s: _container(s, spec.id).state == "exited")
            ended = _container(state, spec.id)
            assert (ended.exit_code, ended.reason) == (code, reason)
            assert ended.finished_at >= ended.started_at > 0

        self._run(body)

    def test_stop_lets_it_end_by_itself(self) -> None:
        async def body(runtime: Runtime) -> None:
            box, cid = await self._running(runtime, self.sleeper())
            async with asyncio.timeout(DEADLINE):
                await runtime.stop_container(cid, 3600.0)
            state = _container(await _box(runtime, box), cid)
            assert state.state == "exited"
            assert state.exit_code != 137
            await runtime.stop_container(cid, 1.0)

        self._run(body)

    def test_stop_kills_after_the_grace_period(self) -> None:
        async def body(runtime: Runtime) -> None:
            box, cid = await self._running(runtime, self.stubborn())
            await runtime.stop_container(cid, 0.2)
            state = _container(await _box(runtime, box), cid)
            assert (state.state, state.exit_code) == ("exited", 137)

        self._run(body)

    def test_a_shorter_grace_overtakes_a_longer_one(self) -> None:
        async def body(runtime: Runtime) -> None:
            _, cid = await self._running(runtime, self.stubborn())
            slow = asyncio.create_task(runtime.stop_container(cid, 3600.0))
            await asyncio.sleep(0)
            async with asyncio.timeout(DEADLINE):
                await runtime.stop_container(cid, 0.1)
                await slow

        self._run(body)

    def test_what_runs_gets_new_limits(self) -> None:
        async def body(runtime: Runtime) -> None:
            box, cid = await self._running(runtime, self.sleeper(memory_limit=64 << 20))
            limits = Limits(cpu_shares=512, cpu_quota_us=20_000, memory_limit=128 << 20)
            await runtime.resize(box, limits, {cid: limits})
            await runtime.resize(box, Limits(memory_limit=96 << 20), {})
            (state,) = (await runtime.sandboxes())[0].containers
            assert (state.id, state.state, state.attempt) == (cid, "running", 0)
            await runtime.stop_container(cid, 0)
            with pytest.raises(RuntimeFailure):
                await runtime.resize(box, limits, {cid: limits})

        self._run(body)

    def test_killing_sends_the_signal(self) -> None:
        async def body(runtime: Runtime) -> None:
            box, cid = await self._running(runtime, self.sleeper())
            async with _Exits(runtime) as exits:
                await runtime.kill_container(cid, 9)
                state = await exits.until(box, lambda s: _container(s, cid).state == "exited")
            assert _container(state, cid).exit_code == 137

        self._run(body)

    def test_containers_of_one_sandbox_are_independent(self) -> None:
        async def body(runtime: Runtime) -> None:
            box, first = await self._running(runtime, self.sleeper(name="one"))
            spec = self.sleeper(name="two")
            await runtime.create_container(box, spec)
            await runtime.start_container(spec.id)
            await runtime.stop_container(first, 10.0)
            state = await _box(runtime, box)
            assert state.ready
            assert _container(state, first).state == "exited"
            assert _container(state, spec.id).state == "running"
            await runtime.remove_container(first)
            assert [c.id for c in (await _box(runtime, box)).containers] == [spec.id]
            await runtime.remove_container(first)

        self._run(body)

    def test_what_is_gone_can_be_stopped_and_removed(self) -> None:
        async def body(runtime: Runtime) -> None:
            await runtime.stop_container("f" * 64, 1.0)
            await runtime.remove_container("f" * 64)
            await runtime.stop_sandbox("f" * 64)
            await runtime.remove_sandbox("f" * 64)

        self._run(body)

    # ---- failures ------------------------------------------------------------------------------

    def test_no_container_without_a_sandbox(self) -> None:
        async def body(runtime: Runtime) -> None:
            with pytest.raises(RuntimeFailure):
                await runtime.create_container("f" * 64, self.sleeper())
            with pytest.raises(RuntimeFailure):
                await runtime.start_container("f" * 64)

        self._run(body)

    def test_a_command_that_is_not_there_fails_to_start(self) -> None:
        async def body(runtime: Runtime) -> None:
            box = (await runtime.run_sandbox(_sandbox())).id
            spec = self.unstartable()
            with pytest.raises(RuntimeFailure) as failure:
                await runtime.create_container(box, spec)
                await runtime.start_container(spec.id)
            assert failure.value.message
            state = await _box(runtime, box)
            assert state.ready
            assert all(c.state != "running" for c in state.containers)
            await runtime.remove_container(spec.id)

        self._run(body)

    def test_an_absent_image_is_not_pulled_from_nowhere(self) -> None:
        async def body(runtime: Runtime) -> None:
            assert await runtime.image(self.absent_image) is None
            with pytest.raises(RuntimeFailure) as failure:
                await runtime.pull(self.absent_image)
            assert failure.value.reason == "ErrImagePull"

        self._run(body)

    def test_a_present_image_is_described(self) -> None:
        async def body(runtime: Runtime) -> None:
            image = await runtime.image(self.image)
            assert image is not None
            assert image.id.startswith("sha256:")
            assert await runtime.image(image.id) == image
            assert image.id in [i.id for i in await runtime.images()]

        self._run(body)

    # ---- inside containers ---------------------------------------------------------------------

    def test_exec_sync_answers_code_and_output(self) -> None:
        async def body(runtime: Runtime) -> None:
            _, cid = await self._running(runtime, self.sleeper())
            assert await runtime.exec_sync(cid, [*self.shell], 10.0) == (3, b"hi\n")

        self._run(body)

    def test_exec_streams_output_then_code(self) -> None:
        async def body(runtime: Runtime) -> None:
            _, cid = await self._running(runtime, self.sleeper())
            session = await runtime.exec(cid, [*self.shell], tty=False, stdin=False)
            out = b"".join([data async for channel, data in session.output() if channel == 1])
            assert out == b"hi\n"
            assert await session.wait() == 3

        self._run(body)

    def test_nothing_is_executed_in_what_has_ended(self) -> None:
        async def body(runtime: Runtime) -> None:
            _, cid = await self._running(runtime, self.sleeper())
            await runtime.stop_container(cid, 10.0)
            with pytest.raises(RuntimeFailure):
                await runtime.exec_sync(cid, [*self.shell], 10.0)
            with pytest.raises(RuntimeFailure):
                await runtime.exec(cid, [*self.shell], tty=False, stdin=False)

        self._run(body)

    def test_a_closed_port_refuses(self) -> None:
        async def body(runtime: Runtime) -> None:
            state = await runtime.run_sandbox(_sandbox())
            with pytest.raises(OSError):
                await runtime.connect(state.id, state.ips[0], 9, 5.0)

        self._run(body)

    # ---- restarts ------------------------------------------------------------------------------

    def test_everything_outlives_the_runtime_object(self) -> None:
        async def body(runtime: Runtime) -> None:
            box, cid = await self._running(runtime, self.sleeper())
            before = await _box(runtime, box)
            again = await self.reopen(runtime)
            after = await _box(again, box)
            assert after.ready
            assert after.ips == before.ips
            kept, was = _container(after, cid), _container(before, cid)
            assert (kept.state, kept.pid, kept.attempt) == ("running", was.pid, was.attempt)
            assert kept.started_at == pytest.approx(was.started_at, abs=1.0)
            await again.stop_container(cid, 10.0)
            assert _container(await _box(again, box), cid).state == "exited"

        self._run(body)

    # ---- inside --------------------------------------------------------------------------------

    def _run(self, body: Callable[[Runtime], Coroutine[Any, Any, None]]) -> None:
        async def whole() -> None:
            async with self.open() as runtime:
                await body(runtime)

        asyncio.run(whole())

    async def _running(self, runtime: Runtime, spec: ContainerSpec) -> tuple[str, str]:
        box = (await runtime.run_sandbox(_sandbox())).id
        await runtime.create_container(box, spec)
        await runtime.start_container(spec.id)
        return box, spec.id


class _Exits:
    """Watches a runtime's exits from before the thing that ends is started."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._seen = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> _Exits:
        self._task = asyncio.create_task(self._watch())
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        source: AsyncIterator[str] = self._runtime.exits()
        async with aclosing(source) as ids:  # type: ignore[type-var]
            async for _ in ids:
                self._seen.set()

    async def until(self, box: str, holds: Callable[[SandboxState], bool]) -> SandboxState:
        async with asyncio.timeout(DEADLINE):
            while True:
                await self._seen.wait()
                self._seen.clear()
                state = await _box(self._runtime, box)
                if holds(state):
                    return state


_numbers = itertools.count(1)


def _sandbox(**fields: Any) -> SandboxSpec:
    number = next(_numbers)
    values: dict[str, Any] = {
        "id": f"{number:064x}",
        "namespace": "contract",
        "name": f"pod-{number}",
        "uid": f"00000000-0000-4000-8000-{number:012d}",
        "hostname": f"pod-{number}",
    }
    return SandboxSpec(**{**values, **fields})


def container_spec(image: str, **fields: Any) -> ContainerSpec:
    """A spec with an id of its own, for subclasses to build on."""
    number = next(_numbers)
    values: dict[str, Any] = {"id": f"{number:x}".rjust(64, "c"), "name": "main", "image": image}
    return ContainerSpec(**{**values, **fields})


async def _box(runtime: Runtime, sandbox_id: str) -> SandboxState:
    return next(s for s in await runtime.sandboxes() if s.id == sandbox_id)


def _container(state: SandboxState, container_id: str) -> ContainerState:
    return next(c for c in state.containers if c.id == container_id)
