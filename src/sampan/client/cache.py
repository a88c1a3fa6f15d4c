"""Caches: the current objects of a resource, kept by list and watch, with indexes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence

from sampan.api.errors import StatusError
from sampan.api.obj import Key, Obj
from sampan.client.base import Client, Unknown

Handler = Callable[[str, Obj | None, Obj | None], None]  # type, old, new
Index = Callable[[Obj], Iterable[str]]
_RETRY_FIRST, _RETRY_LIMIT = 0.05, 30.0
_PAGE = 500
log = logging.getLogger(__name__)


def owners(obj: Obj) -> Iterable[str]:
    """The index every cache has: uids of the owners."""
    return [o["uid"] for o in obj.owners]


class Informer:
    """One resource, all namespaces (or *namespace* alone, or what *fields* selects)."""

    def __init__(
        self, client: Client, resource: str, *, namespace: str = "", fields: str = ""
    ) -> None:
        self.resource = resource
        self.revision = 0
        self._client = client
        self._namespace = namespace
        self._fields = fields
        self._objects: dict[tuple[str, str], Obj] = {}
        self._by_namespace: dict[str, dict[str, Obj]] = {}
        self._indexes: dict[str, Index] = {"owner": owners}
        self._indexed: dict[str, dict[str, dict[tuple[str, str], Obj]]] = {"owner": {}}
        self._handlers: list[Handler] = []
        self._synced = asyncio.Event()
        self._waiting: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        self._task: asyncio.Task[None] | None = None

    # -- set-up

    def add_index(self, name: str, index: Index) -> None:
        if name in self._indexes:
            return
        self._indexes[name] = index
        self._indexed[name] = {}
        for obj in self._objects.values():
            self._index(name, obj)

    def add_handler(self, handler: Handler) -> None:
        """Called in the loop, in order, for every change from now on (and for what is already
        there, as ADDED)."""
        self._handlers.append(handler)
        for obj in tuple(self._objects.values()):
            handler("ADDED", None, obj)

    def remove_handler(self, handler: Handler) -> None:
        """It is not called any more."""
        self._handlers = [h for h in self._handlers if h is not handler]

    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"cache {self.resource}")

    async def stop(self) -> None:
        task = self.cancel()
        if task is not None:
            await asyncio.gather(task, return_exceptions=True)

    def cancel(self) -> asyncio.Task[None] | None:
        """Begin to stop; what is to be waited for."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
        return task

    async def refresh(self) -> None:
        """List anew, whatever the watch brings; returns once that is in. For readers that cannot
        wait for their own write, since they do not know whether it happened."""
        before = self.cancel()
        self._synced.clear()  # at once: another who refreshes meanwhile may be first to be done
        self.start()
        if before is not None:
            await asyncio.gather(before, return_exceptions=True)
        await self._synced.wait()

    # -- reading

    def get(self, namespace: str, name: str) -> Obj | None:
        return self._objects.get((namespace, name))

    def list(self, namespace: str = "") -> Sequence[Obj]:
        if namespace:
            return [*self._by_namespace.get(namespace, {}).values()]
        return [*self._objects.values()]

    def by(self, index: str, value: str) -> Sequence[Obj]:
        return [*self._indexed[index].get(value, {}).values()]

    def __len__(self) -> int:
        return len(self._objects)

    async def synced(self) -> None:
        """Returns once the first list is in."""
        await self._synced.wait()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Returns once *condition* holds; it is asked after every change."""
        if condition():
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (condition, future)
        self._waiting.append(entry)
        try:
            await future
        finally:
            if entry in self._waiting:
                self._waiting.remove(entry)

    def has_reached(self, key: Key, revision: int) -> bool:
        """Whether the object is here at *revision* or a later one, or the cache as a whole is."""
        if self.revision >= revision:
            return True
        obj = self._objects.get((key.namespace, key.name))
        return obj is not None and obj.revision >= revision

    async def reached(self, key: Key, revision: int) -> None:
        await self.until(lambda: self.has_reached(key, revision))

    # -- following

    async def _run(self) -> None:
        delay = _RETRY_FIRST
        while True:
            try:
                await self._list()
                delay = _RETRY_FIRST
                await self._watch()
            except asyncio.CancelledError:
                raise
            except (StatusError, Unknown, OSError, asyncio.IncompleteReadError) as e:
                expired = isinstance(e, StatusError) and e.code == 410
                if not expired:
                    log.info("cache of %s: %s; again in %.2fs", self.resource, e, delay)
                await asyncio.sleep(0 if expired else delay)
                delay = min(delay * 2, _RETRY_LIMIT)
            except Exception:
                log.exception("cache of %s", self.resource)
                await asyncio.sleep(delay)
                delay = min(delay * 2, _RETRY_LIMIT)

    async def _list(self) -> None:
        found: dict[tuple[str, str], Obj] = {}
        token = ""
        while True:
            page = await self._client.list(
                self.resource, self._namespace, fields=self._fields, limit=_PAGE, continue_=token
            )
            found.update({(o.namespace, o.name): o for o in page.items})
            token = page.continue_
            if not token:
                break
        for place in [p for p in self._objects if p not in found]:
            self._apply("DELETED", self._objects[place])
        for place, obj in found.items():
            held = self._objects.get(place)
            if held is None or held.revision != obj.revision:
                self._apply("ADDED" if held is None else "MODIFIED", obj)
        self.revision = page.revision
        self._synced.set()
        self._wake()

    async def _watch(self) -> None:
        while True:
            watch = self._client.watch(
                self.resource, self._namespace, since=self.revision, fields=self._fields
            )
            async for event in watch:
                if event.type != "BOOKMARK":
                    self._apply(event.type, event.obj)
                self.revision = max(self.revision, event.obj.revision)
                self._wake()

    def _apply(self, kind: str, obj: Obj) -> None:
        place = (obj.namespace, obj.name)
        old = self._objects.get(place)
        if old is not None:
            for name, index in self._indexes.items():
                for value in index(old):
                    bucket = self._indexed[name].get(value)
                    if bucket is not None:
                        bucket.pop(place, None)
                        if not bucket:
                            del self._indexed[name][value]
        if kind == "DELETED":
            self._objects.pop(place, None)
            self._by_namespace.get(place[0], {}).pop(place[1], None)
            if old is None:
                return
            new = None
            old = obj
        else:
            new = obj
            self._objects[place] = obj
            self._by_namespace.setdefault(place[0], {})[place[1]] = obj
            for name in self._indexes:
                self._index(name, obj)
        kind = "DELETED" if new is None else ("MODIFIED" if old is not None else "ADDED")
        for handler in self._handlers:
            handler(kind, old, new)

    def _index(self, name: str, obj: Obj) -> None:
        for value in self._indexes[name](obj):
            self._indexed[name].setdefault(value, {})[(obj.namespace, obj.name)] = obj

    def _wake(self) -> None:
        for entry in tuple(self._waiting):
            condition, future = entry
            if not future.done() and condition():
                future.set_result(None)
                self._waiting.remove(entry)


class Caches:
    """Informers by resource, made when first asked for, shared by all who use them."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._informers: dict[str, Informer] = {}
        self._started = False

    def __getitem__(self, resource: str) -> Informer:
        informer = self._informers.get(resource)
        if informer is None:
            informer = self._informers[resource] = Informer(self._client, resource)
            if self._started:
                informer.start()
        return informer

    async def start(self) -> None:
        """Start what is there; returns once all of it is synced."""
        self._started = True
        for informer in self._informers.values():
            informer.start()
        await asyncio.gather(*(i.synced() for i in tuple(self._informers.values())))

    async def stop(self) -> None:
        self._started = False
        tasks = [t for i in self._informers.values() if (t := i.cancel()) is not None]
        await asyncio.gather(*tasks, return_exceptions=True)

    def all(self) -> Sequence[Informer]:
        return tuple(self._informers.values())
