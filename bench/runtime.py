"""The native runtime alone: start of a pod of one container, image present."""

from __future__ import annotations

import asyncio
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sampan.node.images.store import ImageStore
from sampan.node.runtime.base import ContainerSpec, SandboxSpec
from sampan.node.runtime.native.nodes import Nodes, destroy
from sampan.node.runtime.native.runtime import NativeRuntime

COUNT, AT_ONCE = 50, 8


async def start(runtime: NativeRuntime, name: str) -> float:
    began = time.perf_counter()
    await runtime.run_sandbox(SandboxSpec(id=name, namespace="b", name=name, uid=name))
    spec = ContainerSpec(id=f"c-{name}", name="c", image="busybox", command=("sleep", "1000"))
    await runtime.create_container(name, spec)
    await runtime.start_container(spec.id)
    return time.perf_counter() - began


async def measure(root: Path, binary: str, archive: str) -> None:
    nodes = Nodes(root)
    space = (await nodes.ensure(["bench"]))["bench"]
    images = ImageStore(root / "images")
    runtime = NativeRuntime(space, root=root, images=images, binary=shutil.which(binary) or "")
    await runtime.start()
    await runtime.load_images(archive)
    one = sorted([await start(runtime, f"{binary}-{i}") for i in range(COUNT)])
    began = time.perf_counter()
    names = iter([f"{binary}-p{i}" for i in range(COUNT)])

    async def worker() -> None:
        for name in names:
            await start(runtime, name)

    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
    rate = COUNT / (time.perf_counter() - began)
    print(
        f"{binary}: pod start median {statistics.median(one) * 1000:.0f} ms, "
        f"p95 {one[int(COUNT * 0.95)] * 1000:.0f} ms of {COUNT}; "
        f"{rate:.0f} pods/s at concurrency {AT_ONCE}"
    )
    await runtime.close()
    nodes.close()


def main() -> None:
    archive = subprocess.run(
        [sys.executable, "-m", "sampan.app.stand_ins"], check=True, capture_output=True, text=True
    ).stdout.strip()
    for binary in ("crun", "runc"):
        root = Path(tempfile.mkdtemp(prefix="sampan-bench-"))
        try:
            asyncio.run(measure(root, binary, archive))
        finally:
            destroy(root)
            shutil.rmtree(root)


if __name__ == "__main__":
    main()
