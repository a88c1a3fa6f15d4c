"""Objects as clients ask to see them: plain lists, tables, metadata alone, watch events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from sampan.api.columns.cells import CREATED_AT, NAME
from sampan.api.obj import Body, Event, Obj, Page
from sampan.api.resource import Column, ResourceType
from sampan.apiserver.media import OBJECT, TABLE

_META = "meta.k8s.io/v1"
_DEFAULT = (NAME, CREATED_AT)
_FINISHED = {
    "Succeeded": ("Succeeded", "The pod has completed successfully."),
    "Failed": ("Failed", "The pod failed."),
}


def _list_meta(page: Page) -> Body:
    meta: Body = {"resourceVersion": str(page.revision)}
    if page.continue_:
        meta["continue"] = page.continue_
        if page.remaining is not None:
            meta["remainingItemCount"] = page.remaining
    return meta


def plain_list(t: ResourceType, page: Page) -> bytes:
    """A ``PodList``, by joining the items' bytes, each copied once."""
    head = orjson.dumps(
        {"kind": f"{t.kind}List", "apiVersion": t.api_version, "metadata": _list_meta(page)}
    )
    parts = [o.raw for o in page.items] or [b""]
    parts[0] = head[:-1] + b',"items":[' + parts[0]
    parts[-1] += b"]}"
    return b",".join(parts)


def partial(obj: Obj) -> Body:
    """The metadata alone."""
    return {"kind": "PartialObjectMetadata", "apiVersion": _META, "metadata": obj.meta}


def partial_list(page: Page) -> bytes:
    return orjson.dumps(
        {
            "kind": "PartialObjectMetadataList",
            "apiVersion": _META,
            "metadata": _list_meta(page),
            "items": [partial(o) for o in page.items],
        }
    )


def _definition(column: Column) -> Body:
    return {
        "name": column.name,
        "type": column.type,
        "format": column.format,
        "description": column.description,
        "priority": column.priority,
    }


def table(
    t: ResourceType,
    objs: Sequence[Obj],
    *,
    now: float,
    include_object: str = "Metadata",
    meta: Body | None = None,
    has_head: bool = True,
) -> bytes:
    """A ``meta.k8s.io/v1`` Table. include_object: None, Metadata or Object. Which columns are wide
    is in their priority: the client hides them."""
    columns = t.columns or _DEFAULT
    rows: list[Body] = []
    is_pod = t.kind == "Pod" and not t.group
    for obj in objs:
        body = obj.body
        row: Body = {"cells": [column.cell(body, now) for column in columns]}
        if is_pod:
            finished = _FINISHED.get(str((body.get("status") or {}).get("phase")))
            if finished:
                row["conditions"] = [
                    {
                        "type": "Completed",
                        "status": "True",
                        "reason": finished[0],
                        "message": finished[1],
                    }
                ]
        if include_object == "Object":
            row["object"] = orjson.Fragment(obj.raw)
        elif include_object != "None":
            row["object"] = partial(obj)
        rows.append(row)
    return orjson.dumps(
        {
            "kind": "Table",
            "apiVersion": _META,
            "metadata": meta if meta is not None else {},
            "columnDefinitions": [_definition(c) for c in columns] if has_head else None,
            "rows": rows,
        }
    )


def render_page(
    t: ResourceType, page: Page, *, shape: str, now: float, include_object: str = ""
) -> bytes:
    """A list in the shape asked for."""
    if shape == OBJECT:
        return plain_list(t, page)
    if shape == TABLE:
        include = include_object or "Metadata"
        return table(t, page.items, now=now, include_object=include, meta=_list_meta(page))
    return partial_list(page)


def render_obj(
    t: ResourceType, obj: Obj, *, shape: str, now: float, include_object: str = ""
) -> bytes:
    """One object in the shape asked for."""
    if shape == OBJECT:
        return obj.raw
    if shape == TABLE:
        meta: Any = obj.body.get("metadata") or {}
        return table(
            t,
            [obj],
            now=now,
            include_object=include_object or "Metadata",
            meta={"resourceVersion": meta.get("resourceVersion", "")},
        )
    return orjson.dumps(partial(obj))


def render_event(
    t: ResourceType,
    event: Event,
    *,
    shape: str,
    now: float,
    include_object: str = "",
    has_head: bool = True,
) -> bytes:
    """One watch event as a line."""
    obj = event.obj
    if event.type == "BOOKMARK":
        meta = {"creationTimestamp": None, **obj.meta}
        if shape == TABLE:
            raw = table(t, (), now=now, meta=meta, has_head=has_head)
        elif shape == OBJECT:
            raw = orjson.dumps({"kind": t.kind, "apiVersion": t.api_version, "metadata": meta})
        else:
            raw = orjson.dumps(
                {"kind": "PartialObjectMetadata", "apiVersion": _META, "metadata": meta}
            )
    elif shape == OBJECT:
        raw = obj.raw
    else:
        raw = (
            table(
                t,
                (obj,),
                now=now,
                include_object=include_object or "Metadata",
                meta={"resourceVersion": str(obj.revision)},
                has_head=has_head,
            )
            if shape == TABLE
            else orjson.dumps(partial(obj))
        )
    return b'{"type":"%b","object":%b}\n' % (event.type.encode(), raw)
