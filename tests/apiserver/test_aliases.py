"""events.k8s.io/v1: the same events in another shape."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sampan.api.call import Call
from sampan.api.errors import StatusError
from sampan.api.obj import Body, Page
from sampan.api.rules import events
from sampan.apiserver.endpoint import ApiServer
from sampan.client.base import Client
from sampan.testing.api import ADMIN, api_server, client_of

NEW = "events.events.k8s.io"
AT = "2026-01-01T00:00:00.000000Z"
EVENT: Body = {
    "metadata": {"name": "e", "namespace": "default"}, "eventTime": AT, "type": "Normal",
    "reportingController": "example.com/c", "reportingInstance": "i", "action": "Did",
    "reason": "Why", "note": "said", "regarding": {"kind": "Pod", "namespace": "default",
                                                   "name": "p"},
}  # fmt: skip


def run(scenario: Callable[[ApiServer, Client], Awaitable[None]]) -> None:
    async def main() -> None:
        api = await api_server()
        await scenario(api, client_of(api))
        await api.authorizer.stop()

    asyncio.run(main())


def body(**changes: Any) -> Body:
    return {**EVENT, "metadata": dict(EVENT["metadata"]), **changes}


def test_one_event_two_shapes() -> None:
    async def scenario(api: ApiServer, client: Client) -> None:
        made = await client.create(NEW, body(), "default")
        assert made.body["apiVersion"] == "events.k8s.io/v1" and made.body["note"] == "said"
        old = await client.get("events", "e", "default")
        assert old.body["message"] == "said" and old.body["apiVersion"] == "v1"
        assert old.body["involvedObject"]["name"] == "p"
        assert old.body["reportingComponent"] == "example.com/c"
        await client.patch("events", "e", {"count": 3, "source": {"component": "x"}}, "default")
        seen = await client.get(NEW, "e", "default")
        assert (seen.body["deprecatedCount"], seen.body["deprecatedSource"]) == (
            3, {"component": "x"},
        )  # fmt: skip
        assert seen.revision > made.revision
        listed = await client.list(NEW, "default")
        assert [o.body["note"] for o in listed.items] == ["said"]
        series = {"series": {"count": 2, "lastObservedTime": AT}}
        patched = await client.patch(NEW, "e", series, "default", kind="strategic")
        assert patched.body["series"]["count"] == 2
        replaced = await client.update(NEW, {**patched.body, "note": "else"})
        assert replaced.body["note"] == "else"
        with pytest.raises(StatusError) as stale:
            await client.update(NEW, patched.body)
        assert stale.value.code == 409
        await client.delete(NEW, "e", "default")
        with pytest.raises(StatusError) as gone:
            await client.get("events", "e", "default")
        assert gone.value.code == 404

    run(scenario)


def test_selectors_have_the_names_of_the_shape() -> None:
    async def scenario(api: ApiServer, client: Client) -> None:
        await client.create(NEW, body(), "default")
        found = await client.list(NEW, "default", fields="regarding.name=p,type!=Warning")
        assert len(found.items) == 1
        assert (await client.list(NEW, "default", fields="regarding.name=q")).items == []
        with pytest.raises(StatusError) as unknown:
            await client.list(NEW, "default", fields="involvedObject.name=p")
        assert unknown.value.code == 400
        gone = await api.handle(ADMIN, Call(
            verb="deletecollection", resource=NEW, namespace="default",
            options={"fieldSelector": "reason=Why"},
        ))  # fmt: skip
        assert isinstance(gone, Page)
        assert (await client.list("events", "default")).items == []

    run(scenario)


def test_a_watch_shows_what_any_shape_wrote() -> None:
    async def scenario(api: ApiServer, client: Client) -> None:
        options = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan",
                   "allowWatchBookmarks": "true"}  # fmt: skip
        await client.create(NEW, body(), "default")
        call = Call(verb="watch", resource=NEW, namespace="default", options=options)
        seen = []
        async for event in api.watch(ADMIN, call):
            seen.append((event.type, event.obj.body["apiVersion"], event.obj.body.get("note")))
            if event.type == "BOOKMARK":
                old = {"metadata": {"name": "f"}, "involvedObject": {"namespace": "default"},
                       "message": "older"}  # fmt: skip
                await client.create("events", old, "default")
            if len(seen) == 3:
                break
        new = "events.k8s.io/v1"
        assert seen == [("ADDED", new, "said"), ("BOOKMARK", new, None), ("ADDED", new, "older")]

    run(scenario)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"eventTime": None}, "eventTime: Required value"),
        ({"reportingController": ""}, "reportingController: Required value"),
        ({"reportingController": "a b"}, "reportingController: Invalid value"),
        ({"reportingInstance": ""}, "reportingInstance: Required value"),
        ({"action": "x" * 129}, 'action: Invalid value: "": can have at most 128 characters'),
        ({"note": "x" * 1025}, 'note: Invalid value: "": can have at most 1024 characters'),
        ({"type": "Odd"}, 'type: Invalid value: "": has invalid value: Odd'),
        ({"series": {"count": 1, "lastObservedTime": AT}}, "series.count: Invalid value: 1"),
        ({"series": {"count": 2}}, "series.lastObservedTime: Required value"),
    ],
)
def test_what_a_new_event_must_say(changes: Body, problem: str) -> None:
    (found,) = [str(c) for c in events.validate_create(body(**changes))]
    assert found.startswith(problem)


def test_there_and_back_again() -> None:
    whole = body(deprecatedCount=2, deprecatedFirstTimestamp="2026-01-01T00:00:00Z",
                 related={"kind": "Node"})  # fmt: skip
    assert events.shown(events.stored(whole)) == {
        "apiVersion": "events.k8s.io/v1", "kind": "Event", **whole,
    }  # fmt: skip
