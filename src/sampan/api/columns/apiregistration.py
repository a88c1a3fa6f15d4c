"""Columns of APIService."""

from __future__ import annotations

from sampan.api.columns.cells import AGE, NAME, dig
from sampan.api.obj import Body
from sampan.api.resource import Column
from sampan.api.rules.apiregistration import AVAILABLE


def _service(body: Body, _now: float) -> str:
    service = dig(body, "spec.service")
    return "Local" if service is None else f"{service.get('namespace')}/{service.get('name')}"


def _available(body: Body, _now: float) -> str:
    conditions = dig(body, "status.conditions", ())
    held = next((c for c in conditions if c.get("type") == AVAILABLE), None)
    if held is None:
        return "Unknown"
    status, reason = str(held.get("status", "")), held.get("reason")
    return f"{status} ({reason})" if status != "True" and reason else status


API_SERVICE = (
    NAME,
    Column("Service", _service, description="Who serves it: a Service, or the API server itself."),
    Column("Available", _available, description="Whether it can be served now."),
    AGE,
)
