"""events.k8s.io/v1: the newer shape of an Event, and what it asks of new ones."""

from __future__ import annotations

from sampan.api.errors import Cause
from sampan.api.obj import Body
from sampan.api.rules.field import checked, invalid, required
from sampan.lib import names

# Names here -> in v1.
_MEMBERS = {
    "eventTime": "eventTime", "series": "series", "action": "action", "reason": "reason",
    "related": "related", "type": "type", "regarding": "involvedObject", "note": "message",
    "reportingController": "reportingComponent", "reportingInstance": "reportingInstance",
    "deprecatedSource": "source", "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp", "deprecatedCount": "count",
}  # fmt: skip
FIELDS = {
    "metadata.name": "metadata.name", "metadata.namespace": "metadata.namespace",
    "reason": "reason", "type": "type", "reportingController": "reportingComponent",
    **{f"regarding.{m}": f"involvedObject.{m}" for m in (
        "kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath",
    )},
}  # fmt: skip
_SHORT, _LONG = 128, 1024


def stored(body: Body) -> Body:
    """As a v1 Event. Where it happened is told in two ways there; both are kept."""
    made: Body = {"apiVersion": "v1", "kind": "Event", "metadata": dict(body.get("metadata") or {})}
    made["involvedObject"] = {}
    for here, there in _MEMBERS.items():
        if body.get(here) is not None:
            made[there] = body[here]
    return made


def shown(body: Body) -> Body:
    """A v1 Event in this shape."""
    made: Body = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": body.get("metadata") or {},
    }
    for here, there in _MEMBERS.items():
        if body.get(there) not in (None, {}):
            made[here] = body[there]
    made.setdefault("eventTime", None)
    return made


def validate_create(body: Body) -> list[Cause]:
    """A new event says when, by whom, what was done and why."""
    found: list[Cause] = []
    if not body.get("eventTime"):
        found.append(required("eventTime"))
    controller = body.get("reportingController") or ""
    if not controller:
        found.append(required("reportingController"))
    else:
        found += checked("reportingController", controller, names.qualified_name)
    for name in ("reportingInstance", "action", "reason"):
        text = body.get(name) or ""
        if not text:
            found.append(required(name))
        found += _at_most(name, text, _SHORT)
    found += _at_most("note", body.get("note") or "", _LONG)
    kind = body.get("type") or ""
    if kind not in ("Normal", "Warning"):
        found.append(invalid("type", "", f"has invalid value: {kind}"))
    series = body.get("series")
    if series is not None:
        if (series.get("count") or 0) < 2:
            text = "should be greater than or equal to 2"
            found.append(invalid("series.count", series.get("count") or 0, text))
        if not series.get("lastObservedTime"):
            found.append(required("series.lastObservedTime"))
    return found


def _at_most(path: str, text: str, limit: int) -> list[Cause]:
    if len(text.encode()) <= limit:
        return []
    return [invalid(path, "", f"can have at most {limit} characters")]
