"""One pod's status on its way to the API."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from sampan.api.errors import StatusError, conflict
from sampan.api.obj import Body
from sampan.client.base import Client
from sampan.lib.loop import VirtualClock, run_virtual
from sampan.node.statuswriter import StatusWriter
from sampan.testing.fake_api import FakeApi

POD: Body = {"metadata": {"name": "p", "namespace": "default"}, "spec": {"containers": []}}


class Contended:
    """A client whose first patches end in a conflict; *taken*: another pod has the name then."""

    def __init__(self, api: FakeApi, conflicts: int, *, taken: bool) -> None:
        self.api, self.left, self.taken = api, conflicts, taken
        self.client = Client(api)

    async def patch(self, *args: Any, **more: Any) -> Any:
        if self.left:
            self.left -= 1
            raise conflict("pods", "p", "it has been changed")
        return await self.client.patch(*args, **more)

    async def get(self, *args: Any) -> Any:
        held = await self.client.get(*args)
        if self.taken:
            held.body["metadata"]["uid"] = "another"
        return held


@pytest.mark.parametrize(("taken", "phase"), [(False, "Running"), (True, None)])
def test_a_conflict_is_only_the_end_where_another_pod_has_the_name(
    taken: bool, phase: str | None
) -> None:
    async def main() -> None:
        api = FakeApi(VirtualClock())
        made = await Client(api).create("pods", POD, "default")
        contended: Any = Contended(api, 3, taken=taken)

        def spawn(work: Coroutine[Any, Any, None]) -> object:
            return asyncio.ensure_future(work)

        writer = StatusWriter(contended, made, spawn)
        writer.want({"phase": "Running", "conditions": []}, settled=True)
        await asyncio.sleep(60)
        held = await Client(api).get("pods", "p", "default")
        assert held.status.get("phase") == phase

    run_virtual(main())


def test_a_pod_that_is_gone_is_not_written_any_more() -> None:
    async def main() -> None:
        api = FakeApi(VirtualClock())
        client = Client(api)
        made = await client.create("pods", POD, "default")
        await client.delete("pods", "p", "default", grace=0)
        writer = StatusWriter(client, made, lambda work: asyncio.ensure_future(work))
        writer.want({"phase": "Running", "conditions": []}, settled=True)
        await asyncio.sleep(60)
        assert writer.writes == 0
        with pytest.raises(StatusError):
            await client.get("pods", "p", "default")

    run_virtual(main())


def test_what_was_taken_over_is_kept_as_it_was() -> None:
    """A pod whose agent has just come back, and which others called not ready meanwhile."""

    async def main() -> None:
        api = FakeApi(VirtualClock())
        client = Client(api)
        ready = {"type": "Ready", "status": "True"}
        status = {"phase": "Running", "startTime": "2023-11-14T22:13:20Z", "conditions": [ready]}
        made = await client.create("pods", {**POD, "status": status}, "default")
        writer = StatusWriter(client, made, lambda work: asyncio.ensure_future(work))
        writer.seen(made)
        lost = {"status": {"conditions": [{**ready, "status": "False"}]}}
        writer.seen(await client.patch("pods", "p", lost, "default", subresource="status"))
        await asyncio.sleep(5)
        held = await client.get("pods", "p", "default")
        assert held.status["conditions"][0]["status"] == "True"
        assert writer.writes == 1

    run_virtual(main())
