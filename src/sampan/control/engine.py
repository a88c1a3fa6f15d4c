"""The reconcile engine: triggers wake keys, controllers plan, the engine carries plans out.

A key is not planned again before the caches have seen what its last plan wrote: no controller
ever decides on a state that is older than its own actions.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from sampan.api.errors import StatusError
from sampan.api.obj import Key, Obj
from sampan.client.base import Client, Unknown
from sampan.client.cache import Caches, Handler, Informer
from sampan.control.events import Recorder
from sampan.control.plan import (
    Action,
    Again,
    Answer,
    Ask,
    Controller,
    Create,
    Delete,
    DeleteAll,
    Emit,
    Patch,
    Probe,
    Read,
    SetStatus,
    Trigger,
    Update,
)
from sampan.lib.clock import Clock
from sampan.lib.queue import WorkQueue

BARRIER_SECONDS = 30.0
PATIENCE_SECONDS = 0.004  # how long a status that only counts waits for more to count
_EARLY = 0.0005  # a loop's timers may fire so much before their time: no turn is made for that
_QUIET_TURNS = 50
log = logging.getLogger(__name__)


class Retry(Exception):
    """The plan did not go through as a whole; the key comes again after its back-off."""


@dataclass(slots=True)
class _Running:
    """One controller at work."""

    controller: Controller
    client: Client
    recorder: Recorder
    queue: WorkQueue[Key] = field(default_factory=WorkQueue)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    patient: dict[Key, float] = field(default_factory=dict)  # when what waits is written
    handlers: list[tuple[Informer, Handler]] = field(default_factory=list)


@dataclass(slots=True)
class _Writes:
    """What one plan wrote: the caches have to show it before the next plan."""

    seen: list[tuple[Key, Callable[[Informer], bool]]] = field(default_factory=list)
    doubtful: dict[str, None] = field(default_factory=dict)  # resources with a write of no answer

    @contextmanager
    def doubting(self, resource: str) -> Iterator[None]:
        """Note where a write to *resource* got no answer: it may have happened, and nobody knows
        what the caches should show."""
        try:
            yield
        except Unknown:
            self.doubtful[resource] = None
            raise

    def wrote(self, obj: Obj) -> None:
        if obj.revision:
            key, revision = obj.key, obj.revision
            self.seen.append((key, lambda cache: cache.has_reached(key, revision)))

    def deleted(self, key: Key, uid: str) -> None:
        def gone(cache: Informer) -> bool:
            held = cache.get(key.namespace, key.name)
            return held is None or held.is_deleting or bool(uid and held.uid != uid)

        self.seen.append((key, gone))


class Engine:
    """Runs controllers. client_for(name) gives the client of that controller's own identity;
    ``client_for('')`` the one the shared caches read with."""

    def __init__(
        self, client_for: Callable[[str], Client], *, clock: Clock, rng: random.Random | None = None
    ) -> None:
        self._client_for = client_for
        self._clock = clock
        self._rng = rng or random.Random(0)
        self._running: list[_Running] = []
        self._is_started = False
        self.caches = Caches(client_for(""))

    def add(self, controller: Controller) -> None:
        """Run *controller*: from ``start`` on, or at once where that has been."""
        client = self._client_for(controller.name)
        recorder = Recorder(client, controller.name, clock=self._clock)
        running = _Running(controller, client, recorder)
        for resource, indexes in controller.indexes.items():
            for name, index in indexes.items():
                self.caches[resource].add_index(name, index)
        for trigger in controller.triggers:
            self._connect(running, trigger)
        self._running.append(running)
        if self._is_started:
            self._begin(running)

    async def remove(self, name: str) -> None:
        """The controllers of that name end where they are, as if they had died; what they knew and
        had yet to do is forgotten. Others may be added in their place."""
        gone = [r for r in self._running if r.controller.name == name]
        self._running = [r for r in self._running if r not in gone]
        for running in gone:
            for cache, handler in running.handlers:
                cache.remove_handler(handler)
            await self._end(running)

    async def relist(self) -> None:
        """Returns once every cache has listed anew."""
        await asyncio.gather(*(cache.refresh() for cache in self.caches.all()))

    def _connect(self, running: _Running, trigger: Trigger) -> None:
        def changed(_kind: str, old: Obj | None, new: Obj | None) -> None:
            if trigger.matters and old is not None and new is not None:
                if not trigger.matters(old, new):
                    return
            for obj in (old, new):
                if obj is not None:
                    for key in trigger.keys(obj, self.caches):
                        running.queue.add(key)

        cache = self.caches[trigger.resource]
        running.handlers.append((cache, changed))
        cache.add_handler(changed)

    async def start(self) -> None:
        """Returns once every cache is synced and the controllers work."""
        await self.caches.start()
        self._is_started = True
        for running in self._running:
            self._begin(running)

    def _begin(self, running: _Running) -> None:
        running.tasks = [
            asyncio.create_task(self._work(running), name=running.controller.name)
            for _ in range(running.controller.workers)
        ]

    async def stop(self) -> None:
        self._is_started = False
        tasks = [t for r in self._running for t in r.tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for running in self._running:
            await self._end(running)
        await self.caches.stop()

    @staticmethod
    async def _end(running: _Running) -> None:
        for task in running.tasks:
            task.cancel()
        await asyncio.gather(*running.tasks, return_exceptions=True)
        running.tasks.clear()
        running.queue.close()
        await running.recorder.close()

    @property
    def names(self) -> tuple[str, ...]:
        """Of the controllers that run here."""
        return tuple(r.controller.name for r in self._running)

    @property
    def is_idle(self) -> bool:
        return all(r.queue.is_idle and not r.patient for r in self._running)

    async def settle(self, *, timeout: float = 60.0) -> None:
        """Returns once nothing is queued or worked on and no cache moves any more. For tests with
        local transports: an event then takes a few turns of the loop, and no more."""
        async with asyncio.timeout(timeout):
            quiet, before = 0, -1
            while quiet < _QUIET_TURNS:
                waits = quiet == _QUIET_TURNS - 1 or any(r.patient for r in self._running)
                await asyncio.sleep(0.001 if waits else 0)
                now = sum(c.revision for c in self.caches.all())
                quiet = quiet + 1 if self.is_idle and now == before else 0
                before = now

    # -- one key -------------------------------------------------------------------------------

    async def _work(self, running: _Running) -> None:
        queue = running.queue
        while True:
            key = await queue.get()
            try:
                await self._reconcile(running, key)
            except asyncio.CancelledError:
                raise
            except (Retry, StatusError, Unknown, OSError) as e:
                delay = queue.retry(key)
                log.debug("%s: %s: %s; again in %.3fs", running.controller.name, key.path, e, delay)
            except Exception:
                queue.retry(key)
                log.exception("%s: %s", running.controller.name, key.path)
            else:
                queue.succeed(key)
            finally:
                queue.done(key)

    async def _reconcile(self, running: _Running, key: Key) -> None:
        controller = running.controller
        view = controller.observe(key, self.caches)
        actions = controller.plan(view, self._clock.now()) if view is not None else ()
        if self._waits(running, key, actions):
            return
        writes = _Writes()
        try:
            await self._execute(running, key, actions, writes)
        except Exception:  # not when it is cancelled: who stops does not wait for caches
            await self._barrier(writes)
            raise
        await self._barrier(writes)

    @staticmethod
    def _waits(running: _Running, key: Key, actions: Sequence[Action]) -> bool:
        """Whether *actions* only count, and more to count may come within a moment: then the key
        is planned anew, at the latest when the moment is over."""
        counts = any(isinstance(a, SetStatus) for a in actions) and all(
            a.patient if isinstance(a, SetStatus) else isinstance(a, Again) for a in actions
        )
        if not counts:
            running.patient.pop(key, None)
            return False
        now = asyncio.get_running_loop().time()
        due = running.patient.setdefault(key, now + PATIENCE_SECONDS)
        if now >= due - _EARLY:
            del running.patient[key]
            return False
        running.queue.add_after(key, due - now)
        return True

    async def _barrier(self, writes: _Writes) -> None:
        """Wait until the caches show every write. A cache that does not get there in time, or of
        which nobody knows what it should show, lists again."""
        for resource in writes.doubtful:
            await self.caches[resource].refresh()
        for key, seen in writes.seen:
            cache = self.caches[key.resource]
            try:
                async with asyncio.timeout(BARRIER_SECONDS):
                    await cache.until(lambda seen=seen, cache=cache: seen(cache))  # type: ignore[misc]
            except TimeoutError:
                log.warning("the cache of %s did not show a write in time", key.resource)
                await cache.refresh()

    async def _execute(
        self, running: _Running, key: Key, actions: Iterable[Action], writes: _Writes
    ) -> None:
        creates: list[Create] = []
        for action in [*actions, None]:
            if isinstance(action, Create):
                creates.append(action)
                continue
            if creates:
                await self._create_all(running, key, creates, writes)
                creates = []
            if action is not None:
                await self._one(running, key, action, writes)

    async def _one(self, running: _Running, key: Key, action: Action, writes: _Writes) -> None:
        client = running.client
        match action:
            case Emit(regarding=regarding, type=kind, reason=reason, message=message):
                running.recorder.emit(regarding, kind, reason, message)
            case Again(after=after):
                running.queue.add_after(key, after)
            case Update():
                await self._update(running, key, action, writes)
            case SetStatus(resource=resource, body=body):
                with writes.doubting(resource):
                    writes.wrote(await client.update(resource, body, subresource="status"))
            case Patch(key=target, patch=patch, kind=kind, subresource=sub):
                with writes.doubting(target.resource):
                    done = await client.patch(
                        target.resource, target.name, patch, target.namespace, kind=kind,
                        subresource=sub,
                    )  # fmt: skip
                    writes.wrote(done)
            case Read(asks=asks, then=then):
                answers = [await self._ask(client, ask) for ask in asks]
                await self._execute(running, key, then(answers), writes)
            case Probe(ask=question, then=follow):
                await self._execute(running, key, follow(await question()), writes)
            case DeleteAll(resource=resource, namespace=namespace):
                await client.delete_collection(resource, namespace)
            case Delete():
                await self._delete(running, key, action, writes)
            case Create():
                await self._create_all(running, key, [action], writes)

    @staticmethod
    async def _ask(client: Client, ask: Ask) -> Answer:
        try:
            if ask.name:
                return await client.get(
                    ask.resource, ask.name, ask.namespace, subresource=ask.subresource,
                    options=ask.options,
                )  # fmt: skip
            return await client.list(
                ask.resource, ask.namespace, labels=ask.labels, options=ask.options
            )
        except StatusError as e:
            return e

    async def _update(self, running: _Running, key: Key, action: Update, writes: _Writes) -> None:
        answer: Obj | StatusError
        try:
            with writes.doubting(action.resource):
                answer = await running.client.update(
                    action.resource, action.body, subresource=action.subresource
                )
                writes.wrote(answer)
        except StatusError as e:
            if action.then is None:
                raise
            answer = e
        if action.then is not None:
            await self._execute(running, key, action.then(answer), writes)

    async def _delete(self, running: _Running, key: Key, action: Delete, writes: _Writes) -> None:
        target = action.key
        try:
            with writes.doubting(target.resource):
                await running.client.delete(
                    target.resource, target.name, target.namespace, uid=action.uid,
                    revision=action.revision, grace=action.grace, propagation=action.propagation,
                )  # fmt: skip
        except StatusError as e:
            if e.code == 404 or (e.code == 409 and action.uid and not action.revision):
                writes.deleted(target, action.uid)  # it is gone, or another one has its name
                return
            if action.failed is not None:
                await self._execute(running, key, action.failed(e.message), writes)
            raise
        writes.deleted(target, action.uid)
        if action.done is not None:
            await self._execute(running, key, action.done(), writes)

    async def _create_all(
        self, running: _Running, key: Key, creates: Sequence[Create], writes: _Writes
    ) -> None:
        """Slow start: one, two, four, ... at once, so that what fails for all fails few times."""
        done, size = 0, 1
        while done < len(creates):
            batch = creates[done : done + size]
            results = await asyncio.gather(
                *(self._create(running, key, c, writes) for c in batch), return_exceptions=True
            )
            errors = [r for r in results if isinstance(r, BaseException)]
            if errors:
                raise errors[0]
            done += len(batch)
            size *= 2

    async def _create(self, running: _Running, key: Key, action: Create, writes: _Writes) -> None:
        namespace = action.body["metadata"].get("namespace", "")
        try:
            with writes.doubting(action.resource):
                obj = await running.client.create(action.resource, action.body, namespace)
        except StatusError as e:
            terminating = any(c.reason == "NamespaceTerminating" for c in e.causes)
            if action.failed is not None and not terminating:
                await self._execute(running, key, action.failed(e.message), writes)
            raise
        writes.wrote(obj)
        if action.done is not None:
            await self._execute(running, key, action.done(obj), writes)
