"""Reading: records as objects, selections, lists in pages."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import orjson

from sampan.api.errors import Cause, StatusError, bad_request, gone, invalid
from sampan.api.obj import Body, Key, Obj, Page, splice
from sampan.api.resource import ResourceType
from sampan.api.rules.field import forbidden as forbidden_field
from sampan.api.rules.field import invalid as invalid_field
from sampan.api.rules.field import not_supported
from sampan.lib.selectors import Selector, SelectorError, parse_fields, parse_labels
from sampan.store.base import Compacted, Record, Store

_SCAN = 500  # records looked at per step of a limited list with a selector


def obj_of(record: Record) -> Obj:
    """The record's object; made once and shared by every reader."""
    if record.memo is None:
        key, raw = Key.parse(record.key), splice(record.value, record.revision)
        record.memo = Obj(key, raw, record.revision)
    found: Obj = record.memo
    return found


def last_state(record: Record, revision: int) -> Obj:
    """A deleted object as its DELETED event shows it: its last state, at the deletion's
    revision."""
    return Obj(Key.parse(record.key), splice(record.value, revision), revision)


class _Term(NamedTuple):
    value: Callable[[Body], str]
    op: str
    expected: str


@dataclass(frozen=True, slots=True)
class Selection:
    """What a label and a field selector choose. name: the one name it can only be, or ''."""

    labels: Selector | None
    terms: tuple[_Term, ...]
    name: str = ""

    @property
    def is_everything(self) -> bool:
        return self.labels is None and not self.terms

    def matches(self, obj: Obj) -> bool:
        if self.labels is not None and not self.labels.matches(obj.labels):
            return False
        body = obj.body if self.terms else {}
        return all((t.value(body) == t.expected) == (t.op != "!=") for t in self.terms)


def selection(t: ResourceType, options: Mapping[str, str]) -> Selection:
    """The selection of a list, watch or deletecollection. Raises StatusError 400."""
    labels, fields = options.get("labelSelector", ""), options.get("fieldSelector", "")
    if not labels and not fields:
        return _EVERYTHING
    try:
        chosen = parse_labels(labels) if labels else None
        parsed = parse_fields(fields) if fields else []
    except SelectorError as e:
        raise bad_request(str(e)) from e
    terms, name = [], ""
    for field, op, expected in parsed:
        value = t.fields.get(field)
        if value is None:
            group = t.group or ""
            raise bad_request(
                f'Unable to find "{group}/{t.version}, Resource={t.plural}" that match label '
                f'selector "{labels}", field selector "{fields}": field label not supported: '
                f"{field}"
            )
        if field == "metadata.name" and op != "!=":
            name = expected
        terms.append(_Term(value, op, expected))
    return Selection(None if chosen is None or chosen.is_empty else chosen, tuple(terms), name)


_EVERYTHING = Selection(None, ())


def revision_option(store: Store, text: str) -> int:
    """resourceVersion of a read: 0 where unset. Raises StatusError: 400 for what is no number,
    504 for one the store has not reached."""
    if not text:
        return 0
    if not text.isdigit():
        problem = f'strconv.ParseUint: parsing "{text}": invalid syntax'
        raise invalid("", "ListOptions", "", [invalid_field("resourceVersion", text, problem)])
    wanted = int(text)
    if wanted > store.revision:
        raise StatusError(
            504, "Timeout", f"Too large resource version: {wanted}, current: {store.revision}",
            causes=[Cause("", "ResourceVersionTooLarge", "Too large resource version")],
            retry_after=1,
        )  # fmt: skip
    return wanted


def check_list_options(options: Mapping[str, str]) -> None:
    """Combinations a list refuses. Raises StatusError 422."""
    match, version = options.get("resourceVersionMatch", ""), options.get("resourceVersion", "")
    field = "resourceVersionMatch"
    causes = []
    if match:
        if not version:
            text = "resourceVersionMatch is forbidden unless resourceVersion is provided"
            causes.append(forbidden_field(field, text))
        if options.get("continue"):
            text = "resourceVersionMatch is forbidden when continue is provided"
            causes.append(forbidden_field(field, text))
        if match not in ("Exact", "NotOlderThan"):
            causes = [not_supported(field, match, ["Exact", "NotOlderThan"])]
        elif match == "Exact" and version == "0":
            text = 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
            causes.append(forbidden_field(field, text))
    if causes:
        raise invalid("meta.k8s.io", "ListOptions", "", causes)


def _encode_continue(revision: int, start: str) -> str:
    token = orjson.dumps({"v": "meta.k8s.io/v1", "rv": revision, "start": start})
    return base64.urlsafe_b64encode(token).decode().rstrip("=")


def _decode_continue(text: str, prefix: str) -> tuple[int, str]:
    try:
        token = orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        if token["v"] != "meta.k8s.io/v1":
            raise ValueError("version")
        revision, start = int(token["rv"]), str(token["start"])
    except (ValueError, KeyError, TypeError) as e:
        raise bad_request("continue key is not valid: encoding is not recognized") from e
    if not start.startswith(prefix):
        raise bad_request("continue key is not valid: it is of another list")
    return revision, start


def _limit(options: Mapping[str, str]) -> int:
    text = options.get("limit", "")
    try:
        return max(0, int(text)) if text else 0
    except ValueError:
        raise bad_request(f'limit: Invalid value: "{text}": must be a number') from None


async def page(
    store: Store, t: ResourceType, namespace: str, options: Mapping[str, str], *, oldest: int = 0
) -> Page:
    """One page of a list. oldest: lists of revisions before it are refused, kept or not. Raises
    StatusError 400, 410 (the continue token's revision is no longer kept; the answer carries a
    token that goes on with what is now), 422, 504."""
    check_list_options(options)
    chosen = selection(t, options)
    prefix = Key.prefix(t.resource, namespace)
    limit = _limit(options)
    token = options.get("continue", "")
    start, revision = "", 0
    if token:
        if options.get("resourceVersion", "0") not in ("", "0"):
            raise bad_request("specifying resource version is not allowed when using continue")
        revision, start = _decode_continue(token, prefix)
        revision = max(revision, 0)  # -1: go on with what is now
    else:
        wanted = revision_option(store, options.get("resourceVersion", ""))
        exact = options.get("resourceVersionMatch", "") == "Exact"
        if exact or (wanted and limit and not options.get("resourceVersionMatch")):
            revision = wanted
    if chosen.name and namespace and not token:
        record = await store.get(Key(t.resource, namespace, chosen.name).path)
        found = [obj_of(record)] if record is not None else []
        return Page([o for o in found if chosen.matches(o)], store.revision)
    try:
        if 0 < revision < oldest:
            raise Compacted(oldest)
        return await _collect(store, prefix, start, limit, revision, chosen)
    except Compacted as e:
        if not token:
            raise gone(f"The resourceVersion for the provided list is too old: {revision}") from e
        raise gone(
            "The provided continue parameter is too old to display a consistent list result. You "
            "can start a new list without the continue parameter, or use the continue token in "
            "this response to retrieve the remainder of the results. Continuing with the provided "
            "token results in an inconsistent list - objects that were created, modified, or "
            "deleted between the time the first chunk was returned and now may show up in the "
            "list.",
            continue_=_encode_continue(-1, start),
        ) from e


async def _collect(
    store: Store, prefix: str, start: str, limit: int, revision: int, chosen: Selection
) -> Page:
    items: list[Obj] = []
    step = limit if chosen.is_everything else (max(limit, _SCAN) if limit else 0)
    while True:
        found = await store.range(prefix, start=start, limit=step, revision=revision)
        revision = found.revision
        for i, record in enumerate(found.records):
            obj = obj_of(record)
            if chosen.matches(obj):
                items.append(obj)
            if limit and len(items) == limit:
                left = len(found.records) - i - 1 + found.remaining
                if not left:
                    return Page(items, revision)
                remaining = left if chosen.is_everything else None
                return Page(
                    items, revision, _encode_continue(revision, record.key + "\0"), remaining
                )
        if not found.more:
            return Page(items, revision)
        start = found.records[-1].key + "\0"
