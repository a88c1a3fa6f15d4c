"""Writers of one object that meet, over the store that takes its time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from sampan.api.call import Call
from sampan.api.errors import StatusError
from sampan.api.obj import Body
from sampan.apiserver.endpoint import ApiServer
from sampan.client.base import Client
from sampan.store.sqlite import SqliteStore
from sampan.testing.api import ADMIN, api_server, client_of

Scenario = Callable[[ApiServer, Client], Awaitable[None]]


async def refused(work: Awaitable[Any]) -> StatusError:
    with pytest.raises(StatusError) as e:
        await work
    return e.value


def config(name: str, **data: str) -> Body:
    return {"metadata": {"name": name}, "data": data}


async def over_sqlite(directory: Path, scenario: Scenario) -> None:
    store = await SqliteStore.open(directory)
    api = await api_server(store=store)
    try:
        await scenario(api, client_of(api))
    finally:
        await api.authorizer.stop()
        await store.close()


def test_repeated_fields_are_told_or_refused(tmp_path: Path) -> None:
    async def scenario(api: ApiServer, _client: Client) -> None:
        def call(name: str, how: str) -> Call:
            return Call(
                verb="create", resource="configmaps", namespace="default", body=config(name),
                options={"fieldValidation": how}, repeated=['duplicate field "data.a"'],
            )  # fmt: skip

        error = await refused(api.handle(ADMIN, call("a", "Strict")))
        assert error.code == 400
        assert 'strict decoding error: duplicate field "data.a"' in error.message
        warned, ignored = call("b", "Warn"), call("c", "Ignore")
        await api.handle(ADMIN, warned)
        await api.handle(ADMIN, ignored)
        assert (warned.warnings, ignored.warnings) == (['duplicate field "data.a"'], [])

    asyncio.run(over_sqlite(tmp_path, scenario))


def test_patches_that_meet_are_all_applied(tmp_path: Path) -> None:
    """None of them named a revision, so none may be refused for another's sake, also where the
    other is still on its way to the disk."""

    async def scenario(_api: ApiServer, client: Client) -> None:
        await client.create("configmaps", config("a"), "default")
        await asyncio.gather(
            *(client.patch("configmaps", "a", {"data": {f"k{i}": "v"}}, "default")
              for i in range(20))
        )  # fmt: skip
        got = await client.get("configmaps", "a", "default")
        assert len(got.body["data"]) == 20

    asyncio.run(over_sqlite(tmp_path, scenario))


def test_scaling_meets_the_controllers_writes(tmp_path: Path) -> None:
    async def scenario(_api: ApiServer, client: Client) -> None:
        labels = {"a": "b"}
        deployment = {"metadata": {"name": "d"}, "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {
                "containers": [{"name": "c", "image": "i"}]}}}}  # fmt: skip
        resource = "deployments.apps"
        await client.create(resource, deployment, "default")

        async def status(i: int) -> None:
            await client.patch(
                resource, "d", {"status": {"observedGeneration": i}}, "default",
                subresource="status",
            )  # fmt: skip

        for i in range(1, 6):
            await asyncio.gather(
                status(i),
                client.patch(resource, "d", {"spec": {"replicas": i}}, "default",
                             subresource="scale"),
            )  # fmt: skip
            got = await client.get(resource, "d", "default")
            assert (got.spec["replicas"], got.status["observedGeneration"]) == (i, i)
        seen = await client.get(resource, "d", "default", subresource="scale")
        await status(9)
        error = await refused(
            client.update(resource, {**seen.body, "spec": {"replicas": 1}}, subresource="scale")
        )
        assert error.code == 409

    asyncio.run(over_sqlite(tmp_path, scenario))


def test_ephemeral_containers_are_added_to_a_pod_and_nothing_else_is_changed(
    tmp_path: Path,
) -> None:
    async def scenario(_api: ApiServer, client: Client) -> None:
        await client.create("serviceaccounts", {"metadata": {"name": "default"}}, "default")
        pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
        made = await client.create("pods", pod, "default")
        patch = {"metadata": {"labels": {"a": "b"}}, "spec": {
            "nodeName": "n", "ephemeralContainers": [{"name": "d", "image": "i"}]}}  # fmt: skip
        done = await client.patch(
            "pods", "p", patch, "default", kind="strategic", subresource="ephemeralcontainers"
        )
        (added,) = done.spec["ephemeralContainers"]
        assert (added["name"], added["imagePullPolicy"]) == ("d", "Always")
        assert "nodeName" not in done.spec and done.labels == {}
        assert done.meta["generation"] == made.meta["generation"] + 1
        labelled = await client.patch("pods", "p", {"metadata": {"labels": {"x": "y"}}}, "default")
        assert labelled.labels == {"x": "y"}
        error = await refused(
            client.patch("pods", "p", {"spec": {"ephemeralContainers": None}}, "default")
        )
        assert "pod updates may not change fields" in error.message
        error = await refused(client.patch(
            "pods", "p", {"spec": {"ephemeralContainers": []}}, "default",
            subresource="ephemeralcontainers",
        ))  # fmt: skip
        assert error.code == 422 and "may not be removed" in error.message
        seen = await client.get("pods", "p", "default", subresource="ephemeralcontainers")
        assert seen.spec == labelled.spec

    asyncio.run(over_sqlite(tmp_path, scenario))
