"""A list and a watch of one resource, kept going: what the agent reads the API by."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from sampan.api.errors import StatusError
from sampan.api.obj import Key, Obj
from sampan.client.base import Client, Unknown

log = logging.getLogger("sampan.node")


class Feed:
    """Calls *seen* for each object as it is or becomes, and *gone* with the last known state of
    one that is no more; lists anew (and finds what was missed) whenever the watch breaks.

    ``objects`` is the present state, by key.
    """

    def __init__(
        self,
        client: Client,
        resource: str,
        *,
        seen: Callable[[Obj], None] | None = None,
        gone: Callable[[Obj], None] | None = None,
        namespace: str = "",
        fields: str = "",
        retry: float = 1.0,
    ) -> None:
        self.objects: dict[Key, Obj] = {}
        self.synced = asyncio.Event()
        self._client = client
        self._resource = resource
        self._seen = seen or (lambda _: None)
        self._gone = gone or (lambda _: None)
        self._namespace = namespace
        self._fields = fields
        self._retry = retry

    async def run(self) -> None:
        """Until cancelled."""
        delay = self._retry
        while True:
            try:
                since = await self._list()
                self.synced.set()
                delay = self._retry
                await self._follow(since)
            except StatusError as error:
                if error.code != 410:
                    log.warning("watching %s: %s", self._resource, error.message)
                    await asyncio.sleep(delay)
                    delay = min(delay * 2, 30.0)
            except (Unknown, OSError) as error:
                log.warning("watching %s: %s", self._resource, error)
                await asyncio.sleep(delay)
                delay = min(delay * 2, 30.0)

    async def _list(self) -> int:
        page = await self._client.list(self._resource, self._namespace, fields=self._fields)
        now = {obj.key: obj for obj in page.items}
        for key, old in list(self.objects.items()):
            if key not in now or now[key].uid != old.uid:
                del self.objects[key]
                self._gone(old)
        for key, obj in now.items():
            known = self.objects.get(key)
            self.objects[key] = obj
            if known is None or known.revision != obj.revision:
                self._seen(obj)
        return page.revision

    async def _follow(self, since: int) -> None:
        started = since
        async for event in self._client.watch(
            self._resource, self._namespace, since=started, fields=self._fields
        ):
            obj = event.obj
            if event.type == "BOOKMARK":
                continue
            if event.type == "DELETED":
                self.objects.pop(obj.key, None)
                self._gone(obj)
            else:
                self.objects[obj.key] = obj
                self._seen(obj)
