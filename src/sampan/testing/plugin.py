"""The pytest plug-in: ``cluster``, a whole cluster in the test's own process.

::

    def test_rollout(cluster):
        cluster.apply(Path("deployment.yaml"))
        cluster.clock.advance(minutes=1)
        found = cluster.client.get("deployments.apps", "web", "default")
        assert found["status"]["readyReplicas"] == 3

``@pytest.mark.cluster(nodes=3, virtual=False)`` asks for another one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from sampan.testing.cluster import Cluster

_KEPT = pytest.StashKey["dict[tuple[int, bool], Cluster]"]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "cluster(nodes=1, virtual=True): the cluster of this test")
    config.stash[_KEPT] = {}


def pytest_unconfigure(config: pytest.Config) -> None:
    for kept in config.stash.get(_KEPT, {}).values():
        kept.__exit__(None, None, None)


@pytest.fixture
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """As new for every test; the process and the kubeconfig are kept from one to the next."""
    from sampan.testing.cluster import Cluster

    marker = request.node.get_closest_marker("cluster")
    options = {"nodes": 1, "virtual": True, **(marker.kwargs if marker else {})}
    kept = request.config.stash[_KEPT]
    key = (options["nodes"], options["virtual"])
    if key in kept:
        kept[key].reset()
    else:
        kept[key] = Cluster(nodes=key[0], virtual=key[1]).__enter__()
    yield kept[key]
