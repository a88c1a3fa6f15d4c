"""Columns of the core kinds without a module of their own, of Lease and of PriorityClass."""

from __future__ import annotations

from sampan.api.columns.cells import AGE, NAME, NONE, UNKNOWN, dig, name_of, since, text
from sampan.api.obj import Body
from sampan.api.resource import Column

_ROLE = "node-role.kubernetes.io/"


def _count(*names: str) -> Column:
    def cell(body: Body, _now: float) -> int:
        return sum(len(body.get(n) or ()) for n in names)

    return Column("Data", cell, description="Number of entries.")


def _node_status(body: Body, _now: float) -> str:
    ready = [c for c in dig(body, "status.conditions", ()) if c.get("type") == "Ready"]
    if ready:
        words = ["Ready" if ready[-1].get("status") == "True" else "NotReady"]
    else:
        words = ["Unknown"]
    if dig(body, "spec.unschedulable"):
        words.append("SchedulingDisabled")
    return ",".join(words)


def _node_roles(body: Body, _now: float) -> str:
    roles = set()
    for key, value in dig(body, "metadata.labels", {}).items():
        if key.startswith(_ROLE) and key != _ROLE:
            roles.add(key.removeprefix(_ROLE))
        elif key == "kubernetes.io/role" and value:
            roles.add(value)
    return ",".join(sorted(roles)) or NONE


def _address(kind: str) -> Column:
    def cell(body: Body, _now: float) -> str:
        found = [a for a in dig(body, "status.addresses", ()) if a.get("type") == kind]
        return str(found[0].get("address")) if found else NONE

    name = "Internal-IP" if kind == "InternalIP" else "External-IP"
    return Column(name, cell, priority=1, description="An address of the node.")


def _last_seen(body: Body, now: float) -> str:
    series = body.get("series") or {}
    last = series.get("lastObservedTime") or body.get("lastTimestamp")
    return since(last or body.get("firstTimestamp") or body.get("eventTime"), now)


def _first_seen(body: Body, now: float) -> str:
    return since(body.get("firstTimestamp") or body.get("eventTime"), now)


def _event_object(body: Body, _now: float) -> str:
    regarding = body.get("involvedObject") or {}
    kind = str(regarding.get("kind") or "").lower()
    return f"{kind}/{regarding['name']}" if regarding.get("name") else kind


def _event_count(body: Body, _now: float) -> int:
    series = body.get("series") or {}
    return int(series.get("count") or body.get("count") or 1)


def _event_source(body: Body, _now: float) -> str:
    source = body.get("source") or {}
    component = source.get("component") or body.get("reportingComponent") or ""
    host = source.get("host") or body.get("reportingInstance") or ""
    return f"{component}, {host}" if host else str(component)


NAMESPACE = (NAME, text("Status", "status.phase", about="Active or Terminating."), AGE)

NODE = (
    NAME,
    Column("Status", _node_status, description="The status of the node"),
    Column("Roles", _node_roles, description="The roles of the node"),
    AGE,
    text("Version", "status.nodeInfo.kubeletVersion", about="Version the node reports."),
    _address("InternalIP"),
    _address("ExternalIP"),
    text("OS-Image", "status.nodeInfo.osImage", UNKNOWN, wide=True, about="The node's system."),
    text("Kernel-Version", "status.nodeInfo.kernelVersion", UNKNOWN, wide=True, about="Kernel."),
    text(
        "Container-Runtime",
        "status.nodeInfo.containerRuntimeVersion",
        UNKNOWN,
        wide=True,
        about="What runs the containers.",
    ),
)

SECRET = (NAME, text("Type", "type", about="What kind of secret."), _count("data"), AGE)
CONFIG_MAP = (NAME, _count("data", "binaryData"), AGE)

# Without a count of secrets since v1.35: nothing fills them any more.
SERVICE_ACCOUNT = (NAME, AGE)

EVENT = (
    Column("Last Seen", _last_seen, description="When it was last recorded."),
    text("Type", "type", about="Normal or Warning."),
    text("Reason", "reason", about="Why, in one word."),
    Column("Object", _event_object, description="What it is about."),
    text("Subobject", "involvedObject.fieldPath", wide=True, about="Which part of it."),
    Column("Source", _event_source, priority=1, description="Who reported it."),
    Column(
        "Message",
        lambda body, _now: str(body.get("message") or "").strip(),
        description="What happened.",
    ),
    Column("First Seen", _first_seen, priority=1, description="When it was first recorded."),
    Column("Count", _event_count, priority=1, description="How often."),
    Column("Name", name_of, format="name", priority=1, description="Name of the event."),
)

LEASE = (NAME, text("Holder", "spec.holderIdentity", about="Who holds it."), AGE)

PRIORITY_CLASS = (
    NAME,
    Column(
        "Value", lambda body, _now: body.get("value", 0), type="integer", description="Priority."
    ),
    Column(
        "Global-Default",
        lambda body, _now: bool(body.get("globalDefault")),
        type="boolean",
        description="Whether pods without a class get this one.",
    ),
    AGE,
    text("PreemptionPolicy", "preemptionPolicy", about="Whether it may preempt."),
)
