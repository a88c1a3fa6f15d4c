"""Each fault does what it says, and what it is done to gets over it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from sampan.api.call import Call, User
from sampan.api.errors import StatusError
from sampan.api.obj import Body, Event, Key, Obj, Page
from sampan.client.base import Client, Unknown
from sampan.lib.loop import run_virtual
from sampan.sim.faults import Faults, Process
from sampan.sim.world import World, world

USER = User("somebody")


class Api:
    """A transport that notes what it was asked and watches three events."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    async def call(self, call: Call) -> Obj | Page:
        self.calls.append(call)
        return thing(1)

    async def watch(self, call: Call) -> AsyncIterator[Event]:
        for n in (1, 2, 3):
            yield Event("ADDED", thing(n))
        await asyncio.Event().wait()

    async def close(self) -> None: ...


def thing(n: int) -> Obj:
    return Obj.of(Key("configmaps", "default", f"c{n}"), {"metadata": {"name": f"c{n}"}}, n)


def process(faults: Faults, deaths: list[str] | None = None) -> Process:
    died = (lambda p: deaths.append(p.name)) if deaths is not None else (lambda _p: None)
    return Process("p", died, lambda: faults, random.Random(1), heard=lambda _u, _c: None)


def lined(faults: Faults, deaths: list[str] | None = None) -> tuple[Api, Client, Process]:
    api, made = Api(), process(faults, deaths)
    return api, Client(made.line(api, USER)), made


async def create(client: Client) -> Obj:
    return await client.create("configmaps", {"metadata": {"name": "c1"}}, "default")


@pytest.mark.parametrize(
    ("faults", "error", "carried_out"),
    [
        (Faults(), None, 1),
        (Faults(error=1.0), StatusError, 0),
        (Faults(lost=1.0), Unknown, 1),
    ],
)  # fmt: skip
def test_what_happens_to_a_write(
    faults: Faults, error: type[Exception] | None, carried_out: int
) -> None:
    async def main() -> None:
        api, client, _ = lined(faults)
        if error is None:
            await create(client)
        else:
            with pytest.raises(error):
                await create(client)
        assert len(api.calls) == carried_out

    run_virtual(main())


def test_only_updates_conflict() -> None:
    async def main() -> None:
        api, client, _ = lined(Faults(conflict=1.0))
        await create(client)
        with pytest.raises(StatusError) as e:
            await client.patch("configmaps", "c1", {}, "default")
        assert (e.value.code, e.value.reason) == (409, "Conflict")
        assert len(api.calls) == 1

    run_virtual(main())


def test_the_dead_are_not_heard_and_hear_nothing() -> None:
    async def main() -> None:
        deaths: list[str] = []
        api, client, made = lined(Faults(), deaths)
        made.kill_at = 2
        await create(client)
        with pytest.raises(Unknown):
            await create(client)
        assert deaths == ["p"] and not made.alive
        done = len(api.calls)
        assert done in (1, 2)
        with pytest.raises(Unknown):
            await client.get("configmaps", "c1", "default")
        assert len(api.calls) == done

    run_virtual(main())


def test_slow_calls_take_their_time_and_slow_events_keep_their_order() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        _, client, _ = lined(Faults(slow=5.0, watch_slow=5.0))
        before = loop.time()
        await create(client)
        assert 0 < loop.time() - before <= 5.0
        before = loop.time()
        names = [e.obj.name async for e in _first(client, 3)]
        assert names == ["c1", "c2", "c3"]
        assert loop.time() - before > 0.1

    run_virtual(main())


async def _first(client: Client, count: int) -> AsyncIterator[Event]:
    left = count
    async for event in client.watch("configmaps"):
        yield event
        left -= 1
        if not left:
            return


def test_repeated_and_dropped_events() -> None:
    async def main() -> None:
        _, client, _ = lined(Faults(watch_repeat=1.0))
        assert [e.obj.name async for e in _first(client, 4)] == ["c1", "c1", "c2", "c2"]
        _, client, _ = lined(Faults(watch_drop=1.0))
        with pytest.raises(Unknown):
            async for _event in client.watch("configmaps"):
                raise AssertionError("an event came through")

    run_virtual(main())


def test_an_expired_watch_has_to_list_anew() -> None:
    async def main() -> None:
        _, client, _ = lined(Faults(watch_expire=1.0))
        with pytest.raises(StatusError) as e:
            async for _event in client.watch("configmaps"):
                raise AssertionError("an event came through")
        assert (e.value.code, e.value.reason) == (410, "Expired")

    run_virtual(main())


def test_one_of_a_process_dies_alone() -> None:
    async def main() -> None:
        api, made = Api(), process(Faults())
        died: list[str] = []
        made.part_died = lambda user: died.append(user) is None
        other = User("other")
        mine, theirs = (Client(made.line(api, u)) for u in (USER, other))
        made.kill_part_at[USER.name] = 2
        await create(mine)
        await create(theirs)
        with pytest.raises(Unknown):
            await create(mine)
        assert died == [USER.name] and made.alive
        done = len(api.calls)
        assert done in (2, 3)  # around the write
        with pytest.raises(Unknown):
            await mine.get("configmaps", "c1", "default")
        await create(theirs)
        await create(Client(made.line(api, USER)))  # who comes after it
        assert len(api.calls) == done + 2

    run_virtual(main())


def test_who_cannot_die_alone_does_not() -> None:
    async def main() -> None:
        api, made = Api(), process(Faults(kill_one=1.0))
        client = Client(made.line(api, USER))
        for _ in range(3):
            await create(client)
        assert len(api.calls) == 3

    run_virtual(main())


@pytest.mark.parametrize("waiting", [True, False])
def test_a_cut_ends_watches_that_wait_and_those_that_work(waiting: bool) -> None:
    async def main() -> None:
        _, client, made = lined(Faults())
        seen = []

        async def read() -> None:
            async for event in client.watch("configmaps"):
                seen.append(event.obj.name)
                if not waiting:
                    made.cut()

        task = asyncio.ensure_future(read())
        await asyncio.sleep(1)
        if waiting:
            made.cut()
        with pytest.raises(Unknown):
            await task
        assert seen == (["c1", "c2", "c3"] if waiting else ["c1"])

    run_virtual(main())


def test_faults_are_read_by_name() -> None:
    given: dict[str, object] = {"error": 0.5, "watch-slow": 2}
    assert Faults.parse(given) == Faults(error=0.5, watch_slow=2.0)
    with pytest.raises(ValueError, match=r"faults\.typo: unknown fault"):
        Faults.parse({"typo": 1})
    with pytest.raises(ValueError, match="not a number"):
        Faults.parse({"error": "often"})


# -- worlds ------------------------------------------------------------------------------------


def in_world(scenario: Callable[[World], Awaitable[Any]], *, nodes: int = 2) -> Any:
    async def main() -> Any:
        async with world(nodes=nodes) as w:
            result = await scenario(w)
            assert w.failures == []
            return result

    return run_virtual(main())


def replica_set(replicas: int) -> Body:
    return {
        "metadata": {"name": "web"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
                 "template": {"metadata": {"labels": {"app": "web"}},
                              "spec": {"containers": [{"name": "c", "image": "i"}]}}},
    }  # fmt: skip


async def ready(w: World) -> int:
    found = await w.client.get("replicasets.apps", "web", "default")
    return int(found.status.get("readyReplicas") or 0)


@pytest.mark.parametrize("after", [0, 1, 2, 3, 4, 5, 6, 7])
def test_a_control_plane_killed_between_any_two_writes_is_replaced(after: int) -> None:
    async def scenario(w: World) -> None:
        w.kill_control(after_writes=after)
        await w.client.create("replicasets.apps", replica_set(3), "default")
        await asyncio.sleep(60)
        assert w.deaths == 1
        assert await ready(w) == 3
        assert len((await w.client.list("pods", "default")).items) == 3

    in_world(scenario)


@pytest.mark.parametrize("after", [0, 1, 2, 3, 4])
def test_a_controller_killed_between_any_two_writes_is_replaced(after: int) -> None:
    async def scenario(w: World) -> None:
        plane = w.plane
        w.kill_controller("replicaset-controller", after_writes=after)
        await w.client.create("replicasets.apps", replica_set(3), "default")
        await asyncio.sleep(60)
        assert w.deaths == 1 and w.plane is plane
        assert w.restarts == {"replicaset-controller": 1}
        assert plane.engine.names.count("replicaset-controller") == 1
        assert await ready(w) == 3
        assert len((await w.client.list("pods", "default")).items) == 3

    in_world(scenario)


def test_images_that_cannot_be_had() -> None:
    async def scenario(w: World) -> None:
        for node in w.nodes.values():
            node.runtime.missing = {"i"}
        await w.client.create("replicasets.apps", replica_set(1), "default")
        await asyncio.sleep(60)
        assert await ready(w) == 0
        (pod,) = (await w.client.list("pods", "default")).items
        waiting = pod.status["containerStatuses"][0]["state"]["waiting"]
        assert waiting["reason"] in ("ErrImagePull", "ImagePullBackOff")
        for node in w.nodes.values():
            node.runtime.missing = set()
        await asyncio.sleep(400)
        assert await ready(w) == 1

    in_world(scenario)


def test_a_killed_agent_takes_its_pods_over() -> None:
    async def scenario(w: World) -> None:
        await w.client.create("replicasets.apps", replica_set(2), "default")
        await asyncio.sleep(10)
        started = [c for n in w.nodes.values() for c in n.runtime.calls if c[0] == "run_sandbox"]
        for name in w.nodes:
            w.kill_agent(name)
        await asyncio.sleep(60)
        assert all(n.is_up for n in w.nodes.values())
        again = [c for n in w.nodes.values() for c in n.runtime.calls if c[0] == "run_sandbox"]
        assert again == started and await ready(w) == 2

    in_world(scenario)


def test_a_node_without_power_starts_its_pods_again_when_it_returns() -> None:
    async def scenario(w: World) -> None:
        await w.client.create("replicasets.apps", replica_set(1), "default")
        await asyncio.sleep(10)
        await w.lose_node("n1", power=True)
        assert not w.nodes["n1"].is_up
        await asyncio.sleep(10)
        await w.return_node("n1")
        await asyncio.sleep(60)
        assert w.nodes["n1"].is_up and await ready(w) == 1
        (pod,) = (await w.client.list("pods", "default")).items
        assert pod.status["containerStatuses"][0]["restartCount"] == 1

    in_world(scenario, nodes=1)


def test_the_clock_may_jump() -> None:
    async def scenario(w: World) -> None:
        before = w.clock.now()
        w.clock.offset += 3600
        assert w.clock.now() - before == 3600
        made = await w.client.create("replicasets.apps", replica_set(1), "default")
        assert made.meta["creationTimestamp"] == "2023-11-14T23:13:20Z"

    in_world(scenario)
