"""The native runtime keeps the contract, with real containers."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any, cast
from unittest import mock

import pytest

from sampan.lib.datadir import started_at
from sampan.node.images.store import ImageStore
from sampan.node.runtime.base import ContainerSpec, Runtime, RuntimeFailure, SandboxSpec
from sampan.node.runtime.native import cgroups
from sampan.node.runtime.native.launch import link_name
from sampan.node.runtime.native.nodes import Nodes, Space, cluster_id, destroy
from sampan.node.runtime.native.runtime import NativeRuntime
from sampan.testing.e2e import host_state
from sampan.testing.runtime_contract import DEADLINE, RuntimeContract, container_spec

pytestmark = pytest.mark.e2e


@cache
def stand_ins() -> str:
    return subprocess.run(
        [sys.executable, "-m", "sampan.app.stand_ins"], check=True, capture_output=True, text=True
    ).stdout.strip()


@cache
def images() -> ImageStore:
    """Loaded once: what is tried here is the runtime."""
    store = ImageStore(Path(tempfile.mkdtemp(prefix="sampan-images-")))
    asyncio.run(store.load(stand_ins()))
    return store


def _links() -> list[str]:
    listed = subprocess.run(["ip", "-o", "link"], check=True, capture_output=True, text=True)
    return [line.split(": ")[1].split("@")[0] for line in listed.stdout.splitlines()]


ROOTS: list[Path] = []  # of every cluster of this module


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left() -> Any:
    before = host_state()
    yield
    shutil.rmtree(images().root)
    assert ROOTS
    after = host_state(*ROOTS)
    assert {k: after[k] - before[k] for k in after if after[k] - before[k]} == {}


class TestNative(RuntimeContract):
    binary = "crun"

    def open(self) -> AbstractAsyncContextManager[Runtime]:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Runtime]:
        images_loaded = await asyncio.to_thread(images)
        assert images_loaded.find(self.image) is not None
        root = Path(tempfile.mkdtemp(prefix="sampan-test-"))
        ROOTS.append(root)
        nodes = Nodes(root)
        try:
            self.space: Space = (await nodes.ensure(["n"]))["n"]
            self.root = root
            runtime = self._runtime()
            await runtime.start()
            yield runtime
            await runtime.close()
        finally:
            nodes.close()
            destroy(root)
            shutil.rmtree(root)

    def _runtime(self) -> NativeRuntime:
        binary = shutil.which(self.binary)
        assert binary, f"{self.binary} is not installed: run scripts/setup"
        return NativeRuntime(self.space, root=self.root, images=images(), binary=binary)

    async def _running(self, runtime: Runtime, spec: ContainerSpec) -> tuple[str, str]:
        """A first process has no handler of a signal, and so ignores it, until it has set one."""
        box, cid = await super()._running(runtime, spec)
        if "touch /ready" in " ".join(spec.command):
            async with asyncio.timeout(DEADLINE):
                while (await runtime.exec_sync(cid, ["test", "-e", "/ready"], 5))[0]:
                    await asyncio.sleep(0.01)
        return box, cid

    def test_a_stopped_sandbox_that_is_removed_leaves_the_next_pod_of_its_address_alone(
        self,
    ) -> None:
        """It took the link of the pod that had its address by then along."""

        async def body(runtime: Runtime) -> None:
            old = await runtime.run_sandbox(SandboxSpec(id="a", namespace="d", name="a", uid="a"))
            await runtime.stop_sandbox("a")
            # As after a restart, which hands out addresses from the first one on.
            (pool,) = cast(NativeRuntime, runtime)._pools
            pool._next = 2
            new = await runtime.run_sandbox(SandboxSpec(id="b", namespace="d", name="b", uid="b"))
            assert new.ips == old.ips
            await runtime.remove_sandbox("a")
            links = await self.space.run(_links)
            assert link_name(new.ips[0]) in links

        self._run(body)

    def test_two_handlers_side_by_side(self) -> None:
        """A pod of a RuntimeClass is run by the other one, through a restart of the agent too."""
        other = "runc" if self.binary == "crun" else "crun"

        async def body(runtime: Runtime) -> None:
            usual, mine = await self._running(runtime, self.sleeper())
            spec = SandboxSpec(id="b", namespace="d", name="b", uid="b", handler=other)
            await runtime.run_sandbox(spec)
            container = self.stubborn()
            await runtime.create_container("b", container)
            await runtime.start_container(container.id)
            assert (self.root / "run/n" / f"oci-{other}" / container.id).exists()
            assert (self.root / "run/n/oci" / mine).exists()
            again = await self.reopen(runtime)
            code, out = (await again.exec_sync(container.id, ["echo", "hi"], 10))[:2]
            assert (code, out) == (0, b"hi\n")
            await again.stop_container(container.id, 0)
            await again.remove_sandbox("b")
            await again.stop_container(mine, 0)
            await again.remove_sandbox(usual)
            assert [*await again.sandboxes()] == []

        self._run(body)

    def test_a_port_of_the_other_loopback_is_forwarded(self) -> None:
        """A pod may listen at ``::1`` alone; the loopback of IPv4 is tried first."""

        async def body(runtime: Runtime) -> None:
            box = await runtime.run_sandbox(SandboxSpec(id="a", namespace="d", name="a", uid="a"))
            pod = Space("pod", 0, box.pid)
            try:
                for host in ("127.0.0.1", "::1"):
                    sock = await pod.listen(host, 8080)
                    _, writer = await cast(NativeRuntime, runtime).forward("a", 8080, 3.0)
                    writer.close()
                    sock.close()
                with pytest.raises(ConnectionRefusedError):
                    await cast(NativeRuntime, runtime).forward("a", 8080, 3.0)
            finally:
                pod.close()

        self._run(body)

    @pytest.mark.parametrize("tty", [False, True])
    def test_what_is_executed_for_too_long_does_not_keep_its_container(self, tty: bool) -> None:
        """Killed with its runtime, it was a zombie that nobody reaped: the container could not
        end any more."""
        hanging = ["/bin/sh", "-c", "trap '' TERM; sleep 600"]

        async def body(runtime: Runtime) -> None:
            box, cid = await self._running(runtime, self.stubborn())
            with pytest.raises(TimeoutError):
                await runtime.exec_sync(cid, hanging, 0.3)
            session = await runtime.exec(cid, hanging, tty=tty, stdin=False)
            await session.kill()
            assert await session.wait() == 137
            async with asyncio.timeout(DEADLINE):
                await runtime.stop_container(cid, 0)
            (state,) = [s for s in await runtime.sandboxes() if s.id == box]
            assert [c.state for c in state.containers] == ["exited"]

        self._run(body)

    def test_a_container_without_its_monitor_does_not_run_on(self) -> None:
        """It was called lost, and its next attempt ran beside it, on the same volumes."""

        async def body(runtime: Runtime) -> None:
            native = cast(NativeRuntime, runtime)
            box, cid = await self._running(runtime, self.stubborn())
            held = native._containers[cid]
            os.kill(held.monitor, signal.SIGKILL)
            async with asyncio.timeout(DEADLINE):
                await held.ended.wait()
                while started_at(held.pid):
                    await asyncio.sleep(0.01)
            await runtime.remove_container(cid)
            await runtime.remove_sandbox(box)
            assert cgroups.procs(cluster_id(self.root)) == []

        self._run(body)

    def test_a_monitors_number_that_is_another_process_by_now(self) -> None:
        """It was watched in the place of the monitor: the container never ended."""

        async def body(runtime: Runtime) -> None:
            native = cast(NativeRuntime, runtime)
            _, cid = await self._running(runtime, self.sleeper())
            held = native._containers[cid]
            monitor, first = held.monitor, held.pid
            await runtime.close()
            os.kill(monitor, signal.SIGKILL)
            os.kill(first, signal.SIGKILL)
            held.monitor = os.getpid()
            held.save()
            again = self._runtime()
            await again.start()
            async with asyncio.timeout(DEADLINE):
                await again.stop_container(cid, 0)
            (state,) = (await again.sandboxes())[0].containers
            assert (state.state, state.reason) == ("exited", "ContainerStatusUnknown")
            await again.close()

        self._run(body)

    def test_what_cannot_be_told_to_the_oci_runtime_is_refused(self) -> None:
        async def body(runtime: Runtime) -> None:
            _, cid = await self._running(runtime, self.sleeper())
            with (
                mock.patch.object(NativeRuntime, "_scratch", Path("/nowhere")),
                pytest.raises(RuntimeFailure),
            ):
                await runtime.exec_sync(cid, ["true"], 5)
            assert (await runtime.exec_sync(cid, ["true"], 5))[0] == 0

        self._run(body)

    async def reopen(self, runtime: Runtime) -> Runtime:
        await runtime.close()
        again = self._runtime()
        await again.start()
        return again

    def sleeper(self, **fields: Any) -> ContainerSpec:
        script = "trap 'exit 0' TERM; touch /ready; while true; do sleep 0.05; done"
        return container_spec(self.image, command=("/bin/sh", "-c", script), **fields)

    def exiting(self, code: int, **fields: Any) -> ContainerSpec:
        return container_spec(self.image, command=("/bin/sh", "-c", f"exit {code}"), **fields)

    def stubborn(self, **fields: Any) -> ContainerSpec:
        script = "trap '' TERM; touch /ready; while true; do sleep 0.05; done"
        return container_spec(self.image, command=("/bin/sh", "-c", script), **fields)

    def unstartable(self, **fields: Any) -> ContainerSpec:
        return container_spec(self.image, command=("/no/such/command",), **fields)


class TestNativeWithRunc(TestNative):
    binary = "runc"
