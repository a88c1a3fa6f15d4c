"""The cluster fixture: as users have it, and each thing it promises."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from sampan.api.errors import StatusError
from sampan.api.obj import Body
from sampan.lib.loop import START, SteppedLoop, VirtualClock, run_virtual
from sampan.sim.world import World
from sampan.testing.cluster import Cluster

CONFIG = "{apiVersion: v1, kind: ConfigMap, metadata: {name: c}, data: {a: '1'}}"


def pod(name: str, image: str = "i", **spec: object) -> Body:
    return {"metadata": {"name": name},
            "spec": {"containers": [{"name": "c", "image": image}], **spec}}  # fmt: skip


# -- time ----------------------------------------------------------------------------------------


def stepped(main: object) -> object:
    with asyncio.Runner(loop_factory=SteppedLoop) as runner:
        return runner.run(main)  # type: ignore[arg-type]


def test_what_is_skipped_happens_in_its_order_and_at_its_time() -> None:
    async def main() -> list[tuple[str, int]]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SteppedLoop)
        clock, told = VirtualClock(began=loop.time()), []

        async def tell(name: str, at: float) -> None:
            await asyncio.sleep(at)
            told.append((name, round(clock.now() - START)))
            if name == "first":
                await tell("second", 1000.0)

        tasks = [asyncio.ensure_future(tell(*x)) for x in (("late", 3000.0), ("first", 60.0))]
        await loop.advance(2000.0)
        assert not tasks[0].done()
        await loop.advance(1500.0)
        assert round(clock.now() - START) == 3500
        return told

    assert stepped(main()) == [("first", 60), ("second", 1060), ("late", 3000)]


def test_sockets_and_threads_go_on_while_time_is_skipped() -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SteppedLoop)
        done = loop.create_future()
        threading.Timer(0.05, lambda: loop.call_soon_threadsafe(done.set_result, 7)).start()
        await loop.advance(10_000.0)
        return int(await done)

    assert stepped(main()) == 7


def test_nothing_is_skipped_backwards() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SteppedLoop)
        before = loop.time()
        await loop.advance(-5.0)
        assert 0 <= loop.time() - before < 1.0

    stepped(main())


# -- the fixture ---------------------------------------------------------------------------------


def test_a_pod_runs_and_ends_when_its_time_has_come(cluster: Cluster) -> None:
    cluster.behave("job", "run=600,exit=3")
    cluster.client.create("pods", pod("p", "job", restartPolicy="Never"), "default")
    cluster.clock.advance(minutes=9)
    assert cluster.client.get("pods", "p", "default")["status"]["phase"] == "Running"
    cluster.clock.advance(minutes=2)
    status = cluster.client.get("pods", "p", "default")["status"]
    assert status["phase"] == "Failed"
    assert status["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 3


@pytest.mark.parametrize("turn", [1, 2])
def test_every_test_finds_it_as_new(cluster: Cluster, turn: int) -> None:
    assert cluster.client.list("pods") == []
    assert [n["metadata"]["name"] for n in cluster.client.list("nodes")] == ["node-1"]
    assert cluster.clock.now() - START < 60
    cluster.client.create("pods", pod("p"), "default")
    cluster.behave("i", "run=1")
    cluster.clock.advance(hours=1)


@pytest.mark.cluster(nodes=3)
def test_the_mark_asks_for_nodes(cluster: Cluster) -> None:
    assert len(cluster.client.list("nodes")) == 3


@pytest.mark.cluster(virtual=False)
def test_a_real_clock_cannot_be_moved(cluster: Cluster) -> None:
    with pytest.raises(RuntimeError, match="virtual"):
        cluster.clock.advance(hours=1)
    cluster.client.create("pods", pod("p"), "default")
    cluster.until(
        lambda: cluster.client.get("pods", "p", "default")["status"]["phase"] == "Running"
    )
    assert cluster.clock.now() > START + 86400


def test_the_client_does_all_verbs_and_raises_what_the_api_says(cluster: Cluster) -> None:
    client = cluster.client
    made = client.create("configmaps", {"metadata": {"name": "c"}, "data": {"a": "1"}}, "default")
    made["data"]["a"] = "2"
    assert client.update("configmaps", made)["data"] == {"a": "2"}
    assert client.patch("configmaps", "c", {"data": {"a": "3"}}, "default")["data"] == {"a": "3"}
    assert [c["metadata"]["name"] for c in client.list("configmaps", "default")] == [
        "c",
        "kube-root-ca.crt",
    ]
    client.delete("configmaps", "c", "default")
    with pytest.raises(StatusError) as e:
        client.get("configmaps", "c", "default")
    assert e.value.code == 404


def test_apply_creates_and_then_changes(cluster: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    file.write_text(f"{CONFIG}\n---\n{CONFIG.replace('name: c', 'name: d')}\n")
    assert [b["metadata"]["name"] for b in cluster.apply(file)] == ["c", "d"]
    (changed,) = cluster.apply(CONFIG.replace("'1'", "'2'"))
    assert changed["data"] == {"a": "2"}
    with pytest.raises(ValueError, match="no kind Nothing in v1"):
        cluster.apply("{apiVersion: v1, kind: Nothing, metadata: {name: n}}")


def test_faults_hold_within_their_block_only(cluster: Cluster) -> None:
    with cluster.faults(error=1.0):
        cluster.client.create("pods", pod("p"), "default")
        cluster.clock.advance(minutes=1)
        assert cluster.client.get("pods", "p", "default")["spec"].get("nodeName") is None
    cluster.clock.advance(minutes=10)
    assert cluster.client.get("pods", "p", "default")["status"]["phase"] == "Running"


def test_kubectl_uses_its_kubeconfig_which_outlives_a_reset(cluster: Cluster) -> None:
    cluster.kubectl("create", "configmap", "c", "--from-literal=a=b")
    before = cluster.kubeconfig.read_text()
    assert "c " in cluster.kubectl("get", "configmaps")
    cluster.reset()
    assert cluster.kubeconfig.read_text() == before
    assert "kube-root-ca.crt" in cluster.kubectl("get", "configmaps")
    assert "c " not in cluster.kubectl("get", "configmaps", "--no-headers").split("\n")[0]
    with pytest.raises(AssertionError, match="NotFound"):
        cluster.kubectl("get", "configmap", "c")


def test_nothing_stays_when_it_ends() -> None:
    before = threading.active_count()
    with Cluster(seed=3) as made:
        files = made.kubeconfig.parent
        assert files.exists() and threading.active_count() == before + 1
    assert not files.exists() and threading.active_count() == before
    assert made.loop.is_closed()


# -- where worlds begin --------------------------------------------------------------------------


def names_of(cluster: Cluster) -> list[tuple[str, str, str]]:
    """Everything the cluster has at first, and what a small Deployment makes of it."""
    cluster.settle()
    found = [
        (r, o["metadata"]["name"], o["metadata"]["uid"])
        for r in ("namespaces", "serviceaccounts", "services", "configmaps", "nodes")
        for o in cluster.client.list(r)
    ]
    cluster.client.create("pods", {**pod("g-"), "metadata": {"generateName": "g-"}}, "default")
    made = cluster.client.list("pods", "default")
    return [*found, *(("pods", p["metadata"]["name"], p["metadata"]["uid"]) for p in made)]


def test_every_test_begins_alike_and_no_uid_comes_twice() -> None:
    with Cluster(seed=3) as cluster:
        first = names_of(cluster)
        cluster.reset()
        assert names_of(cluster) == first
    assert len({uid for _, _, uid in first}) == len(first)
    with Cluster(seed=3) as another:
        assert names_of(another) == first
    with Cluster(seed=4) as other:
        assert {uid for _, _, uid in names_of(other)}.isdisjoint(uid for _, _, uid in first)


def test_what_a_test_does_to_an_object_it_read_is_its_own_affair() -> None:
    with Cluster() as cluster:
        for _ in range(2):
            namespace = cluster.client.get("namespaces", "default")
            assert "mine" not in namespace["metadata"]["labels"]
            namespace["metadata"]["labels"]["mine"] = "1"
            for found in cluster.client.list("namespaces"):
                found["metadata"]["labels"]["mine"] = "1"
            again = cluster.client.get("namespaces", "default")
            assert "mine" not in again["metadata"]["labels"]
            changed = cluster.client.update("namespaces", namespace)
            assert changed["metadata"]["labels"]["mine"] == "1"
            cluster.reset()


def test_a_world_that_begins_where_another_rested_writes_nothing_to_begin() -> None:
    async def main() -> None:
        first = World(seed=1)
        await first.start()
        await first.plane.engine.settle()
        beginning = first.beginning()
        second = World(seed=1, beginning=beginning)
        await second.start()
        await second.plane.engine.settle()
        assert second.store.revision == first.store.revision == beginning.store.revision
        await second.client.create("namespaces", {"metadata": {"name": "x"}})
        assert all(r.key != "namespaces//x" for r in first.store.image().records)
        await first.stop()
        await second.stop()

    run_virtual(main())
