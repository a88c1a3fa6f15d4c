"""Custom and external metrics as a test says them: a metrics adapter inside of the world.

It is one as the API server knows them: behind APIServices and a Service, and asked by path; only
the socket is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias
from urllib.parse import parse_qs, unquote, urlsplit

import orjson

from sampan.api.call import User
from sampan.api.errors import StatusError
from sampan.api.obj import Body
from sampan.apiserver.api_services import ServiceRef
from sampan.apiserver.remote import Reply
from sampan.client.base import Client
from sampan.lib.clock import Clock, rfc3339
from sampan.lib.quantity import Quantity, quantity
from sampan.lib.selectors import Selector, parse_labels

SERVICE = ServiceRef("kube-system", "metrics-of-the-test", 443)
_CUSTOM, _EXTERNAL = "custom.metrics.k8s.io", "external.metrics.k8s.io"
_SERVED = ((_CUSTOM, "v1beta2"), (_CUSTOM, "v1beta1"), (_EXTERNAL, "v1beta1"))
_API_SERVICES = "apiservices.apiregistration.k8s.io"
Value: TypeAlias = int | float | str  # a number, or a quantity's text
Pods: TypeAlias = Mapping[str, Value] | Value
_Labels: TypeAlias = tuple[tuple[str, str], ...]


class Metrics:
    """What the adapter answers. client: the administrator's, for its registration and for labels of
    pods."""

    def __init__(self, client: Client, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._is_registered = False
        self._pods: dict[tuple[str, str], Pods] = {}  # namespace, metric
        self._objects: dict[tuple[str, str, str, str], str] = {}  # and resource, name
        self._external: dict[tuple[str, str], dict[_Labels, str]] = {}

    # -- what a test says ----------------------------------------------------------------------

    async def pods(self, metric: str, values: Pods, *, namespace: str = "default") -> None:
        """A metric of pods: by their names, or one value for each there is."""
        await self._register()
        self._pods[namespace, metric] = values

    async def object(
        self, metric: str, resource: str, name: str, value: Value, *, namespace: str = "default"
    ) -> None:
        """A metric of one object; resource: ``plural`` or ``plural.group``; ``namespaces`` for the
        namespace itself."""
        await self._register()
        self._objects[namespace, metric, resource, name] = _text(value)

    async def external(
        self, metric: str, value: Value, *, namespace: str = "default",
        labels: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """A metric of nothing in the cluster; one value for each set of labels."""
        await self._register()
        series = self._external.setdefault((namespace, metric), {})
        series[tuple(sorted((labels or {}).items()))] = _text(value)

    async def forget(self, metric: str, *, namespace: str = "default") -> None:
        """As if it had never been there."""
        self._pods.pop((namespace, metric), None)
        self._external.pop((namespace, metric), None)
        for key in [k for k in self._objects if k[:2] == (namespace, metric)]:
            del self._objects[key]

    async def _register(self) -> None:
        if self._is_registered:
            return
        self._is_registered = True
        meta = {"name": SERVICE.name, "namespace": SERVICE.namespace}
        spec: Body = {"type": "ExternalName", "externalName": "metrics.invalid"}
        await self._client.create("services", {"metadata": meta, "spec": spec}, SERVICE.namespace)
        where = {"namespace": SERVICE.namespace, "name": SERVICE.name, "port": SERVICE.port}
        for i, (group, version) in enumerate(_SERVED):
            given = {
                "group": group, "version": version, "groupPriorityMinimum": 100,
                "versionPriority": 200 - i, "service": where, "insecureSkipTLSVerify": True,
            }  # fmt: skip
            body = {"metadata": {"name": f"{version}.{group}"}, "spec": given}
            await self._client.create(_API_SERVICES, body)

    # -- what is asked -------------------------------------------------------------------------

    async def answer(self, _method: str, target: str, _user: User, _body: bytes | None) -> Reply:
        url = urlsplit(target)
        query = {k: v[0] for k, v in parse_qs(url.query).items()}
        _, _, group, version, *rest = [unquote(p) for p in url.path.split("/")]
        api = f"{group}/{version}"
        if not rest:
            return _reply(self._resources(api))
        try:
            if group == _EXTERNAL:
                return _reply(self._listed_external(api, rest, query))
            return _reply(await self._listed(api, rest, query))
        except StatusError as e:
            return _reply(e.status(), e.code)

    def _resources(self, api: str) -> Body:
        if api.startswith(_EXTERNAL):
            names, kind = sorted({m for _, m in self._external}), "ExternalMetricValueList"
        else:
            names = sorted(
                {f"pods/{m}" for _, m in self._pods} | {f"{r}/{m}" for _, m, r, _ in self._objects}
            )
            kind = "MetricValueList"
        entries = [
            {"name": n, "singularName": "", "namespaced": True, "kind": kind, "verbs": ["get"]}
            for n in names
        ]
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api,
                "resources": entries}  # fmt: skip

    async def _listed(self, api: str, rest: list[str], query: Mapping[str, str]) -> Body:
        _, namespace, resource, name, *more = rest
        if resource == "metrics":  # of the namespace itself
            resource, name, metric = "namespaces", namespace, name
        else:
            metric = more[0]
        if name == "*" and resource == "pods":
            values = await self._of_pods(namespace, metric, query.get("labelSelector", ""))
        else:
            value = self._objects.get((namespace, metric, resource, name))
            if value is None:
                raise _missing(metric, f"{resource} {name}")
            values = {name: value}
        kind = "Pod" if resource == "pods" else resource
        items = [self._item(api, metric, kind, namespace, n, values[n]) for n in sorted(values)]
        return {"kind": "MetricValueList", "apiVersion": api, "metadata": {}, "items": items}

    async def _of_pods(self, namespace: str, metric: str, selector: str) -> dict[str, str]:
        held = self._pods.get((namespace, metric))
        if held is None:
            raise _missing(metric, "pods")
        page = await self._client.list("pods", namespace, labels=selector)
        names = [o.name for o in page.items]
        if isinstance(held, Mapping):
            return {n: _text(held[n]) for n in names if n in held}
        return {n: _text(held) for n in names}

    def _item(
        self, api: str, metric: str, kind: str, namespace: str, name: str, value: str
    ) -> Body:
        about = {"kind": kind, "namespace": namespace, "name": name, "apiVersion": "/v1"}
        named: Body = {"metric": {"name": metric}}
        if api.endswith("v1beta1"):
            named = {"metricName": metric}
        at = rfc3339(self._clock.now())
        return {"describedObject": about, **named, "timestamp": at, "value": value}

    def _listed_external(self, api: str, rest: list[str], query: Mapping[str, str]) -> Body:
        _, namespace, metric, *_ = rest
        chosen: Selector = parse_labels(query.get("labelSelector", ""))
        series = self._external.get((namespace, metric))
        if series is None:
            raise _missing(metric, "external")
        at = rfc3339(self._clock.now())
        items = [
            {"metricName": metric, "metricLabels": dict(labels), "timestamp": at, "value": value}
            for labels, value in series.items()
            if chosen.matches(dict(labels))
        ]
        return {"kind": "ExternalMetricValueList", "apiVersion": api, "metadata": {},
                "items": items}  # fmt: skip


def _missing(metric: str, what: str) -> StatusError:
    text = f"the server could not find the metric {metric} for {what}"
    return StatusError(404, "NotFound", text)


def _text(value: Value) -> str:
    if isinstance(value, float):
        return str(Quantity.of(quantity(repr(value)).value, "decimal"))
    return str(quantity(str(value)))


def _reply(body: Body, status: int = 200) -> Reply:
    return Reply(status, {"content-type": "application/json"}, orjson.dumps(body))
