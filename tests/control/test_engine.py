"""The engine: barrier, retries, slow start; and the recorder of events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

from sampan.api.call import Call
from sampan.api.errors import StatusError
from sampan.api.obj import Body, Event, Key, Obj, Page
from sampan.apiserver.endpoint import ApiServer
from sampan.client.base import Client, Transport, Unknown
from sampan.control.engine import PATIENCE_SECONDS, Engine
from sampan.control.events import Recorder
from sampan.control.plan import (
    Action,
    Again,
    Caches,
    Create,
    Delete,
    Emit,
    SetStatus,
    Trigger,
    Update,
    own,
)
from sampan.lib.clock import RealClock
from sampan.lib.loop import run_virtual
from sampan.testing.api import api_server, client_of


class Clock:
    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.time = now

    def now(self) -> float:
        return self.time


class Counter:
    """Adds one to the ConfigMap's number until it is *goal*, deciding from the cache alone: a plan
    on a state older than its own write would write the same number twice."""

    name = "deployment-controller"
    workers = 4
    triggers = (own("configmaps"),)
    indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]] = {}  # noqa: RUF012

    def __init__(self, goal: int) -> None:
        self.goal = goal
        self.planned: list[int] = []

    def observe(self, key: Key, caches: Caches) -> Obj | None:
        return caches["configmaps"].get(key.namespace, key.name)

    def plan(self, view: Obj, now: float) -> Sequence[Action]:
        number = int(view.body.get("data", {}).get("n", 0))
        self.planned.append(number)
        if number >= self.goal:
            return []
        return [Update("configmaps", {**view.body, "data": {"n": str(number + 1)}})]


def test_a_controller_that_is_removed_plans_nothing_more_and_another_takes_its_place() -> None:
    async def main() -> None:
        first, second = Counter(goal=3), Counter(goal=6)
        api, client, engine = await engine_with(first)
        await client.create("configmaps", {"metadata": {"name": "a"}}, "default")
        await engine.settle()
        await engine.remove(first.name)
        assert engine.names == ()
        planned = list(first.planned)
        await client.create("configmaps", {"metadata": {"name": "b"}}, "default")
        await engine.settle()
        assert first.planned == planned
        engine.add(second)
        await engine.settle()
        for name in "ab":
            assert (await client.get("configmaps", name, "default")).body["data"] == {"n": "6"}
        assert first.planned == planned
        await engine.stop()
        await api.authorizer.stop()

    asyncio.run(main())


async def engine_with(
    controller: Any, client: Client | None = None
) -> tuple[ApiServer, Client, Engine]:
    api = await api_server()
    admin = client or client_of(api)
    engine = Engine(lambda _name: admin, clock=RealClock())
    engine.add(controller)
    await engine.start()
    return api, admin, engine


def test_no_plan_is_made_on_a_state_older_than_its_own_writes() -> None:
    async def main() -> None:
        counter = Counter(goal=30)
        api, client, engine = await engine_with(counter)
        await client.create("configmaps", {"metadata": {"name": "a"}}, "default")
        await engine.settle()
        assert (await client.get("configmaps", "a", "default")).body["data"] == {"n": "30"}
        steps = [n for i, n in enumerate(counter.planned) if i == 0 or n != counter.planned[i - 1]]
        assert steps == list(range(31))
        await engine.stop()
        await api.authorizer.stop()

    asyncio.run(main())


class Scripted:
    """Plans what it is given, once per object."""

    name = "replicaset-controller"
    workers = 1
    triggers = (own("secrets"),)
    indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]] = {}  # noqa: RUF012

    def __init__(self, plan: Callable[[int], Sequence[Action]]) -> None:
        self._plan = plan
        self.calls = 0

    def observe(self, key: Key, caches: Caches) -> Obj | None:
        return caches["secrets"].get(key.namespace, key.name)

    def plan(self, view: Obj, now: float) -> Sequence[Action]:
        self.calls += 1
        return self._plan(self.calls)


def test_an_update_that_does_not_matter_wakes_nobody() -> None:
    class Watcher(Counter):
        triggers = (
            Trigger(
                "configmaps", lambda obj, _caches: (obj.key,),
                matters=lambda old, new: old.body.get("data") != new.body.get("data"),
            ),
        )  # fmt: skip

    async def main() -> None:
        watcher = Watcher(goal=0)
        _api, client, engine = await engine_with(watcher)
        await client.create("configmaps", {"metadata": {"name": "a"}}, "default")
        await engine.settle()
        assert watcher.planned == [0]
        await client.patch("configmaps", "a", {"metadata": {"labels": {"x": "y"}}}, "default")
        await engine.settle()
        assert watcher.planned == [0]
        await client.patch("configmaps", "a", {"data": {"n": "5"}}, "default")
        await engine.settle()
        assert watcher.planned == [0, 5]
        await client.delete("configmaps", "a", "default")
        await engine.settle()
        await engine.stop()

    asyncio.run(main())


def config(name: str) -> Body:
    return {"metadata": {"name": name, "namespace": "default"}}


def test_slow_start_stops_at_the_first_failure() -> None:
    async def main() -> None:
        told: list[str] = []

        def failed(message: str) -> Sequence[Action]:
            told.append(message)
            return []

        def plan(call: int) -> Sequence[Action]:
            if call > 1:
                return []
            bodies = [config(f"c{i}") for i in range(3)] + [config("BAD")]
            bodies += [config(f"d{i}") for i in range(8)]
            return [Create("configmaps", b, failed=failed) for b in bodies]

        scripted = Scripted(plan)
        api, client, engine = await engine_with(scripted)
        await client.create("secrets", {"metadata": {"name": "go"}}, "default")
        await asyncio.sleep(0.05)
        await engine.settle()
        names = {o.name for o in (await client.list("configmaps", "default")).items}
        # 1, 2, then 4 with the bad one: the rest of the run is dropped.
        assert names == {"c0", "c1", "c2", "d0", "d1", "d2"}
        assert len(told) == 1 and "BAD" in told[0]
        assert scripted.calls >= 2  # it came again
        await engine.stop()
        await api.authorizer.stop()

    asyncio.run(main())


def test_an_error_in_a_plan_is_retried_and_harms_nobody() -> None:
    async def main() -> None:
        def plan(call: int) -> Sequence[Action]:
            if call < 4:
                raise RuntimeError("a bug")
            return [Create("configmaps", config("made"))] if call == 4 else []

        scripted = Scripted(plan)
        api, client, engine = await engine_with(scripted)
        await client.create("secrets", {"metadata": {"name": "go"}}, "default")
        async with asyncio.timeout(5):
            while (await client.list("configmaps", "default")).items == []:
                await asyncio.sleep(0.005)
        await engine.stop()
        await api.authorizer.stop()

    asyncio.run(main())


def test_deleting_what_is_gone_or_another_is_done() -> None:
    async def main() -> None:
        key = Key("configmaps", "default", "other")

        def plan(call: int) -> Sequence[Action]:
            if call > 1:
                return []
            return [Delete(Key("configmaps", "default", "absent")), Delete(key, uid="another"),
                    Create("configmaps", config("after"))]  # fmt: skip

        scripted = Scripted(plan)
        api, client, engine = await engine_with(scripted)
        await client.create("configmaps", {"metadata": {"name": "other"}}, "default")
        await client.create("secrets", {"metadata": {"name": "go"}}, "default")
        await engine.settle()
        names = {o.name for o in (await client.list("configmaps", "default")).items}
        assert names == {"other", "after"}
        await engine.stop()
        await api.authorizer.stop()

    asyncio.run(main())


def test_again_comes_again() -> None:
    async def main() -> None:
        scripted = Scripted(lambda call: [Again(0.01)] if call < 3 else [])
        api, client, engine = await engine_with(scripted)
        await client.create("secrets", {"metadata": {"name": "go"}}, "default")
        async with asyncio.timeout(5):
            while scripted.calls < 3:
                await asyncio.sleep(0.005)
        await engine.stop()
        await api.authorizer.stop()

    asyncio.run(main())


# -- events

REGARDING = {"apiVersion": "v1", "kind": "Pod",
             "metadata": {"name": "p", "namespace": "default", "uid": "u"}}  # fmt: skip


async def recorded(tell: Callable[[Recorder, Clock], None]) -> list[Body]:
    api = await api_server()
    client = client_of(api)
    clock = Clock()
    recorder = Recorder(client, "tester", clock=clock, host="h")
    tell(recorder, clock)
    await recorder.close()
    found = [o.body for o in (await client.list("events")).items]
    await api.authorizer.stop()
    return found


def test_a_repeated_event_is_counted() -> None:
    def tell(recorder: Recorder, _clock: Clock) -> None:
        for _ in range(3):
            recorder.emit(REGARDING, "Normal", "Pulled", "again", "spec.containers{c}")

    (event,) = asyncio.run(recorded(tell))
    assert (event["count"], event["reason"], event["message"]) == (3, "Pulled", "again")
    assert event["involvedObject"] == {
        "apiVersion": "v1", "kind": "Pod", "name": "p", "namespace": "default", "uid": "u",
        "fieldPath": "spec.containers{c}",
    }  # fmt: skip
    assert event["source"] == {"component": "tester", "host": "h"}
    assert event["metadata"]["name"].startswith("p.")


def test_many_similar_events_are_combined_and_floods_are_stopped() -> None:
    def tell(recorder: Recorder, _clock: Clock) -> None:
        for i in range(40):
            recorder.emit(REGARDING, "Warning", "Failed", f"number {i}")

    events = asyncio.run(recorded(tell))
    messages = [e["message"] for e in events]
    assert "number 9" in messages and "number 10" not in messages
    assert any(m.startswith("(combined from similar events): ") for m in messages)
    assert sum(e["count"] for e in events) <= 25


def test_an_event_that_cannot_be_written_is_lost_in_silence() -> None:
    async def main() -> None:
        class Refusing(Client):
            async def create(self, *_args: Any, **_kwargs: Any) -> Obj:
                raise StatusError(403, "Forbidden", "no")

        api = await api_server()
        recorder = Recorder(Refusing(client_of(api).transport), "t", clock=Clock())
        recorder.emit(REGARDING, "Normal", "R", "m")
        await recorder.close()
        await api.authorizer.stop()

    asyncio.run(main())


def test_emit_reaches_the_api_under_the_controllers_name() -> None:
    async def main() -> None:
        scripted = Scripted(lambda call: [Emit(REGARDING, "Normal", "R", "m")] if call == 1 else [])
        api, client, engine = await engine_with(scripted)
        await client.create("secrets", {"metadata": {"name": "go"}}, "default")
        await engine.settle()
        await engine.stop()
        (event,) = (await client.list("events")).items
        assert event.body["source"] == {"component": "replicaset-controller"}
        await api.authorizer.stop()

    asyncio.run(main())


def test_components_that_tell_at_the_same_moment() -> None:
    async def main() -> None:
        client = client_of(await api_server())
        clock = Clock()
        about: Body = {"apiVersion": "v1", "kind": "Pod",
                       "metadata": {"name": "p", "namespace": "default", "uid": "u"}}  # fmt: skip
        recorders = [Recorder(client, name, clock=clock) for name in ("one", "two", "three")]
        for recorder in recorders:
            recorder.emit(about, "Normal", "Told", "of the same")
        for recorder in recorders:
            await recorder.close()
        found = (await client.list("events", "default")).items
        assert {e.body["source"]["component"] for e in found} == {"one", "two", "three"}

    asyncio.run(main())


class Lossy:
    """A transport that carries creations out and loses the answer of the first one."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.lost = 0

    async def call(self, call: Call) -> Obj | Page:
        answer = await self._inner.call(call)
        if call.verb == "create" and call.resource == "secrets" and not self.lost:
            self.lost += 1
            raise Unknown("lost")
        return answer

    def watch(self, call: Call) -> AsyncIterator[Event]:
        return self._late(call)

    async def _late(self, call: Call) -> AsyncIterator[Event]:
        async for event in self._inner.watch(call):
            if call.resource == "secrets":
                await asyncio.sleep(0.2)  # long after the retry
            yield event

    async def close(self) -> None: ...


class OneOfMany:
    """Keeps one Secret with a generated name for each ConfigMap."""

    name = "deployment-controller"
    workers = 1
    triggers = (own("configmaps"),)
    indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]] = {}  # noqa: RUF012

    def observe(self, key: Key, caches: Caches) -> int | None:
        if not key.name.startswith("want"):
            return None
        return len(caches["secrets"].list("default"))

    def plan(self, view: int, now: float) -> Sequence[Action]:
        body = {"metadata": {"generateName": "one-", "namespace": "default"}}
        return [Create("secrets", body)] if view == 0 else []


def test_a_creation_whose_answer_was_lost_is_not_made_twice() -> None:
    async def main() -> None:
        api = await api_server()
        lossy = Lossy(client_of(api).transport)
        client = Client(lossy)
        engine = Engine(lambda _name: client, clock=RealClock())
        engine.caches["secrets"]
        engine.add(OneOfMany())
        await engine.start()
        await client.create("configmaps", {"metadata": {"name": "want"}}, "default")
        while not engine.is_idle or not lossy.lost:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)
        assert lossy.lost == 1
        assert len((await client.list("secrets", "default")).items) == 1
        await engine.stop()
        await api.authorizer.stop()

    asyncio.run(main())


def test_stopping_does_not_wait_for_caches_that_show_nothing() -> None:
    class Silent(Lossy):
        async def _late(self, call: Call) -> AsyncIterator[Event]:
            await asyncio.Event().wait()
            yield Event("ADDED", Obj.of(Key("x", "", "x"), {}, 1))

    async def main() -> None:
        api = await api_server()
        await client_of(api).create("configmaps", {"metadata": {"name": "want"}}, "default")
        client = Client(Silent(client_of(api).transport))
        engine = Engine(lambda _name: client, clock=RealClock())
        engine.caches["secrets"]
        engine.add(OneOfMany())
        await engine.start()
        while not (await client.list("secrets", "default")).items:
            await asyncio.sleep(0.01)
        async with asyncio.timeout(5):
            await engine.stop()
        await api.authorizer.stop()

    asyncio.run(main())


class Tally:
    """Counts the Secrets of a namespace in its Pod's status."""

    name = "deployment-controller"
    workers = 2
    triggers = (Trigger("secrets", lambda _o, _c: [POD]), own("pods"))
    indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]] = {}  # noqa: RUF012

    def __init__(self, *, patient: bool) -> None:
        self.patient = patient

    def observe(self, key: Key, caches: Caches) -> tuple[Obj, int] | None:
        pod = caches["pods"].get(key.namespace, key.name)
        return (pod, len(caches["secrets"].list(key.namespace))) if pod is not None else None

    def plan(self, view: tuple[Obj, int], now: float) -> Sequence[Action]:
        pod, number = view
        status = {**pod.status, "message": str(number)}
        if status == pod.status:
            return []
        return [
            SetStatus("pods", {**pod.body, "status": status}, patient=self.patient), Again(600)
        ]  # fmt: skip


POD = Key("pods", "default", "tally")


async def tallied(*, patient: bool, pause: float, count: int = 10) -> tuple[list[str], float]:
    """What the status said, write by write, while *count* Secrets were made with pauses; and the
    longest it lagged behind the first of them it had not counted (virtual seconds)."""
    api, client, engine = await engine_with(Tally(patient=patient))
    pod = {"metadata": {"name": "tally"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    await client.create("serviceaccounts", {"metadata": {"name": "default"}}, "default")
    await client.create("pods", pod, "default")
    await engine.settle()
    loop = asyncio.get_running_loop()
    made: list[float] = []
    told: list[str] = []
    lag = 0.0

    def changed(_kind: str, _old: Obj | None, new: Obj | None) -> None:
        nonlocal lag
        assert new is not None
        message = new.status.get("message", "")
        if told and message != told[-1]:
            lag = max(lag, loop.time() - made[int(told[-1])])
        if not told or message != told[-1]:
            told.append(message)

    engine.caches["pods"].add_handler(changed)
    for number in range(count):
        made.append(loop.time())
        await client.create("secrets", {"metadata": {"name": f"s{number}"}}, "default")
        await asyncio.sleep(pause)
    await engine.settle()
    await engine.stop()
    await api.authorizer.stop()
    return told, lag


def test_counts_that_change_together_are_written_once() -> None:
    told, lag = run_virtual(tallied(patient=True, pause=0))
    assert told == ["0", "10"]
    assert lag <= PATIENCE_SECONDS * 1.01


def test_counts_that_keep_changing_are_written_all_the_same() -> None:
    """The wait ends after its time, however often the key is woken meanwhile."""
    told, lag = run_virtual(tallied(patient=True, pause=PATIENCE_SECONDS / 3, count=30))
    assert 7 <= len(told) <= 12 and told[-1] == "30"
    assert lag <= PATIENCE_SECONDS * 1.01


def test_a_status_that_says_more_than_counts_does_not_wait() -> None:
    told, lag = run_virtual(tallied(patient=False, pause=0.001))
    assert told == [str(n) for n in range(11)]
    assert lag == 0


def test_what_follows_from_an_updates_answer() -> None:
    """A refusal is an answer too: the plan goes on and the key does not come back for it."""

    async def main() -> None:
        answers: list[Obj | StatusError] = []

        def then(answer: Obj | StatusError) -> Sequence[Action]:
            answers.append(answer)
            body = {"metadata": {"name": f"after-{len(answers)}", "namespace": "default"}}
            return [Create("configmaps", body)]

        good = {"metadata": {"name": "a", "namespace": "default"}, "data": {"k": "eA=="}}
        gone = {"metadata": {"name": "gone", "namespace": "default"}}
        updates = [Update("secrets", good, then=then), Update("secrets", gone, then=then)]
        scripted = Scripted(lambda calls: updates if calls == 1 else [])
        api, client, engine = await engine_with(scripted)
        await client.create("secrets", {"metadata": {"name": "a"}}, "default")
        await engine.settle()
        assert isinstance(answers[0], Obj) and answers[0].body["data"] == {"k": "eA=="}
        assert isinstance(answers[1], StatusError) and answers[1].code == 404
        names = [o.name for o in (await client.list("configmaps", "default")).items]
        assert [n for n in names if n.startswith("after")] == ["after-1", "after-2"]
        assert scripted.calls == 2  # once more for its own write, not for the refusal
        await engine.stop()
        await api.authorizer.stop()

    asyncio.run(main())
