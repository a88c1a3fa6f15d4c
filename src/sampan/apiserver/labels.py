"""What the metrics of the front call a request."""

from __future__ import annotations

from sampan.api.call import Call
from sampan.api.resource import ResourceType

_METRIC_VERBS = {"create": "POST", "update": "PUT"}


class Labels:
    """Of one request; filled in as it becomes known what it is."""

    __slots__ = ("_call", "_type", "is_long", "method", "subresource")

    def __init__(self, method: str) -> None:
        self.method = method
        self.subresource = ""
        self.is_long = False
        self._type: ResourceType | None = None
        self._call: Call | None = None

    def resource(self, t: ResourceType, call: Call) -> None:
        self._type, self._call = t, call

    def timed(self) -> tuple[str, ...]:
        t, call = self._type, self._call
        if t is None or call is None:
            return (self._method(), "", "", "", self.subresource, "", "apiserver")
        scope = "resource" if call.name else "namespace" if call.namespace else "cluster"
        return (
            _METRIC_VERBS.get(call.verb, call.verb.upper()),
            t.group,
            t.version,
            t.plural,
            call.subresource,
            scope,
            "apiserver",
        )

    def _method(self) -> str:
        return self.method if self.method in ("GET", "POST", "PUT", "PATCH", "DELETE") else "other"

    def counted(self, code: int) -> tuple[str, ...]:
        verb, *rest = self.timed()
        dry = (self._call.options.get("dryRun", "") if self._call else "")[:8]
        return (verb, dry, *rest, str(code))


def plain_verb(method: str) -> str:
    """The verb of a request for what is no resource, as authorization sees it."""
    verbs = {"POST": "post", "PUT": "put", "PATCH": "patch", "DELETE": "delete", "HEAD": "get"}
    return verbs.get(method, method.lower())
