"""Watches: changes of the store as events of one selection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping

from sampan.api.errors import StatusError, gone, invalid
from sampan.api.obj import Body, Event, Key, Obj
from sampan.api.resource import ResourceType
from sampan.api.rules.field import forbidden
from sampan.apiserver.pages import Selection, last_state, obj_of, revision_option, selection
from sampan.store.base import Change, Compacted, Store

BOOKMARK_SECONDS = 60.0
INITIAL_END = "k8s.io/initial-events-end"


def bookmark(t: ResourceType, revision: int, *, initial_end: bool = False) -> Event:
    """A BOOKMARK: every change up to *revision* has been sent."""
    meta: Body = {"resourceVersion": str(revision), "creationTimestamp": None}
    if initial_end:
        meta["annotations"] = {INITIAL_END: "true"}
    body = {"kind": t.kind, "apiVersion": t.api_version, "metadata": meta}
    return Event("BOOKMARK", Obj.of(Key(t.resource, "", ""), body, revision))


def event_of(change: Change, chosen: Selection) -> Event | None:
    """What *change* means to a reader of *chosen*: an object that enters the selection is ADDED,
    one that leaves it DELETED."""
    new = obj_of(change.record) if change.record is not None else None
    if chosen.is_everything:
        if new is None:
            assert change.previous is not None
            return Event("DELETED", last_state(change.previous, change.revision))
        return Event("MODIFIED" if change.previous is not None else "ADDED", new)
    before = change.previous is not None and chosen.matches(obj_of(change.previous))
    if new is not None and chosen.matches(new):
        return Event("MODIFIED" if before else "ADDED", new)
    if before:
        assert change.previous is not None
        return Event("DELETED", last_state(change.previous, change.revision))
    return None


def _wants_initial(options: Mapping[str, str]) -> bool:
    given = options.get("sendInitialEvents", "")
    if not given:
        if options.get("resourceVersionMatch"):
            raise _invalid("resourceVersionMatch", "resourceVersionMatch is forbidden for watch "
                           "unless sendInitialEvents is provided")  # fmt: skip
        return options.get("resourceVersion", "") in ("", "0")
    if options.get("resourceVersionMatch") != "NotOlderThan":
        raise _invalid("resourceVersionMatch", "sendInitialEvents requires setting "
                       "resourceVersionMatch to NotOlderThan")  # fmt: skip
    return given.lower() in ("1", "true", "t")


def _invalid(field: str, text: str) -> StatusError:
    return invalid("meta.k8s.io", "ListOptions", "", [forbidden(field, text)])


def events(
    store: Store, t: ResourceType, namespace: str, options: Mapping[str, str],
    bookmark_seconds: float = BOOKMARK_SECONDS,
) -> AsyncIterator[Event]:  # fmt: skip
    """The events of a watch. Options are checked at once (StatusError); a revision that is no
    longer kept, or a reader that falls too far behind, ends the iteration by StatusError 410."""
    chosen = selection(t, options)
    initial = _wants_initial(options)
    since = revision_option(store, options.get("resourceVersion", ""))
    marked = initial and bool(options.get("sendInitialEvents"))
    bookmarks = options.get("allowWatchBookmarks", "").lower() in ("1", "true", "t")
    every = bookmark_seconds if bookmarks else None
    return _run(store, t, namespace, chosen, None if initial else since, every, marked)


async def _run(
    store: Store, t: ResourceType, namespace: str, chosen: Selection, since: int | None,
    bookmark_seconds: float | None, marked: bool,
) -> AsyncIterator[Event]:  # fmt: skip
    prefix = Key.prefix(t.resource, namespace)
    if since is None:
        found = await store.range(prefix)
        since = found.revision
    else:
        found = None
    try:
        watch = store.watch(prefix, since=since)
    except Compacted as e:
        raise gone(f"too old resource version: {since} ({e.oldest})") from e
    try:
        if found is not None:
            for record in found.records:
                obj = obj_of(record)
                if chosen.matches(obj):
                    yield Event("ADDED", obj)
            if marked and bookmark_seconds is not None:
                yield bookmark(t, since, initial_end=True)
        told = since
        changes = aiter(watch)
        while True:
            try:
                async with asyncio.timeout(bookmark_seconds):
                    batch = await anext(changes)
            except TimeoutError:
                if watch.position > told:
                    told = watch.position
                    yield bookmark(t, told)
                continue
            except StopAsyncIteration:
                return
            except Compacted as e:
                raise gone(f"too old resource version: {told} ({e.oldest})") from e
            for change in batch:
                event = event_of(change, chosen)
                if event is not None:
                    yield event
            told = batch[-1].revision
    finally:
        watch.close()
