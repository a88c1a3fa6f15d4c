"""Which group versions there are, in which order, and what a start does about them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest

from sampan.api.catalogue import builtin
from sampan.api.obj import Key, encode
from sampan.apiserver.api_services import (
    MANAGED,
    RESOURCE,
    ApiService,
    ApiServices,
    ServiceRef,
    local,
    ordered,
    read,
    version_rank,
)
from sampan.apiserver.pages import obj_of
from sampan.store.base import Delete, Put
from sampan.store.memory import MemoryStore

AT = "2026-01-01T00:00:00Z"


def test_groups_come_by_their_priority_and_versions_by_theirs() -> None:
    given = [
        ApiService("b", "v1", 100, 5), ApiService("a", "v1", 100, 5), ApiService("c", "v1", 900, 1),
        ApiService("b", "v2beta1", 2000, 5), ApiService("b", "v1beta1", 1, 50),
        ApiService("b", "v1alpha1", 1, 5), ApiService("b", "v2", 1, 5),
    ]  # fmt: skip
    found = {g: [s.version for s in versions] for g, versions in ordered(given).items()}
    assert found == {
        "b": ["v1beta1", "v2", "v1", "v2beta1", "v1alpha1"], "c": ["v1"], "a": ["v1"],
    }  # fmt: skip
    assert [*found] == ["b", "c", "a"]


def test_versions_as_kubernetes_compares_them() -> None:
    right = ["v10", "v2", "v1", "v11beta2", "v10beta3", "v3beta1", "v12alpha1", "v11alpha2", "foo1",
             "foo10"]  # fmt: skip
    for shuffled in itertools.islice(itertools.permutations(right), 200):
        assert sorted(shuffled, key=version_rank, reverse=True) == right


def test_built_in_groups_come_in_upstreams_order() -> None:
    groups = [*ordered(local(builtin()))]
    first = ["", "apps", "events.k8s.io", "authentication.k8s.io", "authorization.k8s.io",
             "autoscaling", "batch", "certificates.k8s.io", "networking.k8s.io", "policy",
             "rbac.authorization.k8s.io", "storage.k8s.io"]  # fmt: skip
    assert groups[: len(first)] == first and groups[-1] == "metrics.k8s.io"
    assert [s.version for s in ordered(local(builtin()))["autoscaling"]] == ["v2", "v1"]
    assert "apiregistration.k8s.io" not in groups


def test_what_serving_needs_of_one() -> None:
    spec: dict[str, Any] = {"group": "g", "version": "v1", "groupPriorityMinimum": 5,
                            "versionPriority": 6}  # fmt: skip
    assert read({"spec": spec}) == ApiService("g", "v1", 5, 6, is_available=False)
    spec |= {"service": {"namespace": "n", "name": "s"}, "caBundle": "QQ==",
             "insecureSkipTLSVerify": True}  # fmt: skip
    status = {"conditions": [{"type": "Available", "status": "True"}]}
    service = ServiceRef("n", "s", 443)
    assert read({"spec": spec, "status": status}) == ApiService(
        "g", "v1", 5, 6, service, "QQ==", True, True
    )
    assert ApiService("", "v1", 1, 1).path == "/api/v1"


# ---- at the start ------------------------------------------------------------------------------

Scenario = Callable[[MemoryStore, ApiServices], Awaitable[None]]


def run(scenario: Scenario) -> None:
    async def main() -> None:
        store = MemoryStore()
        services = ApiServices(builtin())
        await services.register(store, uid=lambda: "u", at=AT)
        await scenario(store, services)
        await services.stop()

    asyncio.run(main())


async def held(store: MemoryStore, name: str) -> Any:
    record = await store.get(Key(RESOURCE, "", name).path)
    return obj_of(record).body if record is not None else None


async def change(store: MemoryStore, name: str, edit: Callable[[Any], None]) -> None:
    record = await store.get(Key(RESOURCE, "", name).path)
    assert record is not None
    body = orjson.loads(record.value)
    edit(body)
    await store.commit(Put(record.key, encode(body)))


def test_every_built_in_group_version_has_one() -> None:
    async def scenario(store: MemoryStore, services: ApiServices) -> None:
        apps = await held(store, "v1.apps")
        assert apps["spec"] == {"group": "apps", "version": "v1", "groupPriorityMinimum": 17800,
                                "versionPriority": 15}  # fmt: skip
        assert apps["metadata"]["labels"] == {MANAGED: "onstart"}
        assert apps["status"]["conditions"][0]["reason"] == "Local"
        assert "group" not in (await held(store, "v1."))["spec"]
        assert "labels" not in (await held(store, "v1beta1.metrics.k8s.io"))["metadata"]
        before = store.revision
        await services.register(store, uid=lambda: "u", at=AT)
        assert store.revision == before

    run(scenario)


def test_a_start_puts_right_what_it_made_and_leaves_the_rest() -> None:
    async def scenario(store: MemoryStore, services: ApiServices) -> None:
        await change(store, "v1.apps", lambda b: b["spec"].update(versionPriority=99))
        await change(store, "v1.batch", lambda b: (
            b["spec"].update(versionPriority=99), b["metadata"].pop("labels")))  # fmt: skip
        metrics = {"namespace": "kube-system", "name": "metrics-server", "port": 443}
        await change(
            store, "v1beta1.metrics.k8s.io", lambda b: b["spec"].update(service=metrics)
        )  # fmt: skip
        await store.commit(Delete(Key(RESOURCE, "", "v1.policy").path))
        for name, labels in (("v1.old", {MANAGED: "onstart"}), ("v1.mine", {})):
            meta = {"name": name, "labels": labels}
            spec = {"group": name[3:], "version": "v1"}
            made = {"metadata": meta, "spec": spec}
            await store.commit(Put(Key(RESOURCE, "", name).path, encode(made)))
        await services.register(store, uid=lambda: "u", at=AT)
        assert (await held(store, "v1.apps"))["spec"]["versionPriority"] == 15
        assert (await held(store, "v1.batch"))["spec"]["versionPriority"] == 99
        assert (await held(store, "v1beta1.metrics.k8s.io"))["spec"]["service"] == metrics
        assert await held(store, "v1.policy") is not None
        assert await held(store, "v1.old") is None
        assert await held(store, "v1.mine") is not None

    run(scenario)


def test_changes_are_followed() -> None:
    async def scenario(store: MemoryStore, services: ApiServices) -> None:
        await services.start(store)
        told: list[int] = []
        services.changed.append(lambda: told.append(services.revision))
        assert not services.has_remote and services.remote("apps", "v1") is None
        spec = {"group": "g", "version": "v1", "groupPriorityMinimum": 20000, "versionPriority": 1,
                "service": {"namespace": "n", "name": "s"}}  # fmt: skip
        path = Key(RESOURCE, "", "v1.g").path
        await store.commit(Put(path, encode({"metadata": {"name": "v1.g"}, "spec": spec})))
        async with asyncio.timeout(5):
            while not told:
                await asyncio.sleep(0)
        assert services.has_remote and services.remote("g", "v1") is not None
        assert [s.name for s in services.remotes()] == ["v1.g"]
        assert next(iter(services.groups())) == "g"
        await store.commit(Delete(path))
        async with asyncio.timeout(5):
            while len(told) < 2:
                await asyncio.sleep(0)
        assert services.remote("g", "v1") is None and "g" not in services.groups()

    run(scenario)


@pytest.mark.parametrize("name", ["v1.", "v1.apps", "v2.autoscaling"])
def test_before_the_store_is_read_all_is_local(name: str) -> None:
    found = ApiServices(builtin()).get(name)
    assert found is not None and found.service is None and found.is_available
