"""The native runtime keeps the contract, with real containers."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from sampan.node.images.store import ImageStore
from sampan.node.runtime.base import ContainerSpec, Runtime
from sampan.node.runtime.native.nodes import Nodes, Space, destroy
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
