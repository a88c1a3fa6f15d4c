"""metrics.k8s.io: rates from two readings, nothing read unasked, discovery and tables."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sampan.api.catalogue import builtin
from sampan.api.errors import StatusError
from sampan.api.usage import Counters
from sampan.apiserver.discovery import Documents, version_info
from sampan.apiserver.resource_metrics import FRESH_SECONDS, rates
from sampan.lib.loop import run_virtual
from sampan.node.runtime.fake import FakeRuntime
from sampan.schema.walk import Schemas
from sampan.testing.world import World, world

PODS, NODES = "pods.metrics.k8s.io", "nodes.metrics.k8s.io"


def counters(name: str, cpu_ns: int, *, started: float = 0.0) -> Counters:
    return Counters(
        id=name, namespace="d", pod="p", uid="u", container=name, started_at=started,
        cpu_ns=cpu_ns, memory_bytes=0,
    )  # fmt: skip


def test_rates():
    before = [counters("old", 1000), counters("reset", 500)]
    after = [
        counters("old", 5000), counters("new", 3000, started=9.0), counters("reset", 100),
        counters("older", 4000, started=1.0),
    ]  # fmt: skip
    found = {u.counters.id: (u.nanocores, u.window) for u in rates(before, after, start=8, end=10)}
    assert found == {"old": (2000, 2), "new": (3000, 1), "older": (2000, 2)}


def run(scenario: Any) -> None:
    async def main() -> None:
        async with world(nodes=2) as w:
            await scenario(w)

    run_virtual(main())


async def pod(w: World, name: str, node: str, **meta: Any) -> None:
    body = {
        "metadata": {"name": name, **meta},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]},
    }
    await w.client.create("pods", body, "default")
    for _ in range(200):
        if (await w.client.get("pods", name, "default")).status.get("phase") == "Running":
            return
        await asyncio.sleep(0.1)
    raise AssertionError("the pod did not start")


def test_usage_of_pods_and_nodes():
    async def scenario(w: World) -> None:
        await pod(w, "a", "n1", labels={"app": "x"})
        await pod(w, "b", "n2")
        w.runtimes["n1"].load("default", "a", 0.25)
        await asyncio.sleep(5)
        body = (await w.client.get(PODS, "a", "default")).body
        assert body["kind"] == "PodMetrics" and body["apiVersion"] == "metrics.k8s.io/v1beta1"
        assert body["containers"] == [
            {"name": "c", "usage": {"cpu": "250000000n", "memory": "1024Ki"}}
        ]
        assert body["window"] == "1.000s" and body["timestamp"]
        assert body["metadata"]["labels"] == {"app": "x"}
        assert [o.name for o in (await w.client.list(PODS)).items] == ["a", "b"]
        assert [o.name for o in (await w.client.list(PODS, labels="app=x")).items] == ["a"]
        assert (await w.client.list(PODS, "other")).items == []
        nodes = {o.name: o.body["usage"] for o in (await w.client.list(NODES)).items}
        assert nodes == {"n1": {"cpu": "250000000n", "memory": "1024Ki"},
                         "n2": {"cpu": "0n", "memory": "1024Ki"}}  # fmt: skip
        for resource, name, text in (
            (PODS, "z", 'podmetrics.metrics.k8s.io "default/z" not found'),
            (NODES, "z", 'nodemetrics.metrics.k8s.io "z" not found'),
        ):
            with pytest.raises(StatusError) as caught:
                await w.client.get(resource, name, "default" if resource == PODS else "")
            assert caught.value.code == 404 and caught.value.message == text
        for verb in ("create", "watch"):
            with pytest.raises(StatusError) as caught:
                if verb == "create":
                    await w.client.create(PODS, {"metadata": {"name": "a"}}, "default")
                else:
                    async for _ in w.client.watch(PODS):
                        pass
            assert caught.value.code == 405

    run(scenario)


def test_nothing_is_read_unasked_and_an_answer_holds_a_while(monkeypatch: pytest.MonkeyPatch):
    reads: list[float] = []
    real = FakeRuntime.usage

    async def counted(self: FakeRuntime) -> Any:
        reads.append(0.0)
        return await real(self)

    monkeypatch.setattr(FakeRuntime, "usage", counted)

    async def scenario(w: World) -> None:
        await pod(w, "a", "n1")
        await asyncio.sleep(600)
        assert reads == []
        await asyncio.gather(*(w.client.list(PODS) for _ in range(5)))
        assert len(reads) == 4  # two readings of two nodes, whoever asks meanwhile
        await asyncio.sleep(FRESH_SECONDS)
        body = (await w.client.get(PODS, "a", "default")).body
        assert len(reads) == 6 and body["window"] == "5.000s"
        await asyncio.sleep(600)
        assert len(reads) == 6

    run(scenario)


def test_a_node_that_does_not_answer_has_no_metrics():
    async def scenario(w: World) -> None:
        await pod(w, "a", "n1")
        await pod(w, "b", "n2")
        w.runtimes["n1"].down = True
        w.runtimes["n1"].usage = _fails  # type: ignore[method-assign]
        assert [o.name for o in (await w.client.list(NODES)).items] == ["n2"]
        assert [o.name for o in (await w.client.list(PODS)).items] == ["b"]

    run(scenario)


async def _fails() -> dict[str, dict[str, int]]:
    raise OSError("lost")


def test_discovery_shows_it_last():
    import orjson

    documents = Documents(builtin(), Schemas.load(), version=version_info())

    def get(path: str) -> Any:
        found = documents.answer(path, "application/json")
        assert found is not None
        return orjson.loads(found.body)

    assert [g["name"] for g in get("/apis")["groups"]][-1] == "metrics.k8s.io"
    resources = get("/apis/metrics.k8s.io/v1beta1")["resources"]
    assert [(r["name"], r["kind"], r["namespaced"], r["verbs"]) for r in resources] == [
        ("nodes", "NodeMetrics", False, ["get", "list"]),
        ("pods", "PodMetrics", True, ["get", "list"]),
    ]
    assert get("/openapi/v3/apis/metrics.k8s.io/v1beta1")["paths"] == {}
    get("/openapi/v2")


def test_columns():
    registry = builtin()
    t = registry.get(PODS)
    assert t is not None
    usage = {"cpu": "1500000n", "memory": "2048Ki"}
    body = {"metadata": {"name": "p"}, "window": "15s",
            "containers": [{"name": c, "usage": usage} for c in "ab"]}  # fmt: skip
    assert [(c.name, c.cell(body, 0.0)) for c in t.columns] == [
        ("Name", "p"), ("cpu", "3m"), ("memory", "4Mi"), ("Window", "15s"),
    ]  # fmt: skip
