"""One real cluster of two nodes for all end-to-end tests; nothing of it may stay."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.lib.datadir import DataDir
from sampan.testing.e2e import Cluster, alive, host_state, kubectl_path, sampan


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def stand_ins() -> Path:
    """The archive of stand-in images."""
    built = subprocess.run(
        [sys.executable, "-m", "sampan.app.stand_ins"], check=True, capture_output=True, text=True
    )
    return Path(built.stdout.strip())


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory, stand_ins: Path) -> Iterator[Cluster]:
    root = tmp_path_factory.mktemp("e2e")
    node_root = DataDir(root / "data").node_root
    before = host_state(node_root)
    made = Cluster(root / "data", root / "kubeconfig", kubectl_path())
    pids: list[int] = []
    try:
        sampan(
            "up", "--name", "e2e", "--data-dir", str(made.data_dir), "--nodes", "2", "--port", "0",
            "--no-uplink", "--kubeconfig", str(made.kubeconfig),
        )  # fmt: skip
        made.sampan("image", "load", str(stand_ins))
        yield made
        pids = json.loads(made.sampan("status", "-o", "json"))["pids"]
    finally:
        sampan("down", "--purge", "--data-dir", str(made.data_dir))
    after = host_state(node_root)
    assert {k: after[k] - before[k] for k in after if after[k] - before[k]} == {}
    assert [p for p in pids if alive(p)] == []
    assert not made.data_dir.exists() and not made.kubeconfig.exists()
