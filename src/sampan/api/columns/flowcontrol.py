"""Columns of FlowSchema and PriorityLevelConfiguration."""

from __future__ import annotations

from sampan.api.columns.cells import AGE, NAME, NONE, dig, text
from sampan.api.obj import Body
from sampan.api.resource import Column


def _missing(body: Body, _now: float) -> str:
    for condition in dig(body, "status.conditions", ()):
        if condition.get("type") == "Dangling":
            return str(condition.get("status", ""))
    return "?"


def _of_queues(name: str, field: str, about: str) -> Column:
    path = f"spec.limited.limitResponse.queuing.{field}"
    return Column(name, lambda body, _now: dig(body, path, NONE), description=about)


FLOW_SCHEMA = (
    NAME,
    text("PriorityLevel", "spec.priorityLevelConfiguration.name", about="Where requests go."),
    Column(
        "MatchingPrecedence", lambda body, _now: dig(body, "spec.matchingPrecedence", 0),
        description="Of several schemas that match, the one with the least is used.",
    ),
    text("DistinguisherMethod", "spec.distinguisherMethod.type", NONE, about="What a flow is."),
    AGE,
    Column(
        "MissingPL", _missing,
        description="Whether it names a priority level that is not there.",
    ),
)  # fmt: skip
PRIORITY_LEVEL = (
    NAME,
    text("Type", "spec.type", about="Exempt or Limited."),
    Column(
        "NominalConcurrencyShares",
        lambda body, _now: dig(body, "spec.limited.nominalConcurrencyShares", NONE),
        description="Its share of all requests that are served at once.",
    ),
    _of_queues("Queues", "queues", "How many queues it has."),
    _of_queues("HandSize", "handSize", "How many queues a flow is dealt."),
    _of_queues("QueueLengthLimit", "queueLengthLimit", "How many requests a queue holds."),
    AGE,
)
