"""The ``kubernetes`` Service of the default namespace: the API as pods see it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sampan.api.obj import Body, Key, Obj
from sampan.control.plan import Action, Caches, Create, Trigger, Update

_NAME, _NAMESPACE = "kubernetes", "default"
_SLICES = "endpointslices.discovery.k8s.io"
_KEY = Key("services", _NAMESPACE, _NAME)


class KubernetesServiceController:
    """Keeps the Service, its Endpoints and its EndpointSlice at *address*:*port*."""

    name = "kubernetes-service-controller"
    workers = 1

    def __init__(self, address: str, port: int, *, cluster_ip: str = "10.43.0.1") -> None:
        self._address, self._port, self._cluster_ip = address, port, cluster_ip
        self.triggers = tuple(
            Trigger(r, self._keys) for r in ("namespaces", "services", "endpoints", _SLICES)
        )
        self.indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]] = {}

    @staticmethod
    def _keys(obj: Obj, _caches: Caches) -> Iterable[Key]:
        if obj.name == (_NAMESPACE if obj.key.resource == "namespaces" else _NAME):
            yield _KEY

    def observe(self, key: Key, caches: Caches) -> list[tuple[str, Body, Obj | None]]:
        wanted = {"services": self._service(), "endpoints": self._endpoints(),
                  _SLICES: self._slice()}  # fmt: skip
        return [(r, body, caches[r].get(_NAMESPACE, _NAME)) for r, body in wanted.items()]

    def plan(self, view: list[tuple[str, Body, Obj | None]], now: float) -> Sequence[Action]:
        actions: list[Action] = []
        for resource, body, held in view:
            if held is None:
                actions.append(Create(resource, body))
            elif resource == "services":
                spec, wanted = held.spec, body["spec"]
                kept = {k: v for k, v in spec.items() if k != "selector"}
                right = {**kept, "type": wanted["type"], "ports": wanted["ports"]}
                if right != spec:
                    actions.append(Update(resource, {**held.body, "spec": right}))
            else:
                parts = {k: v for k, v in body.items() if k not in ("metadata", "kind")}
                if any(held.body.get(k) != v for k, v in parts.items()):
                    actions.append(Update(resource, {**held.body, **parts}))
        return actions

    @staticmethod
    def _object(version: str, kind: str, labels: dict[str, str], **parts: Any) -> Body:
        meta: Body = {"name": _NAME, "namespace": _NAMESPACE, "labels": labels}
        return {"apiVersion": version, "kind": kind, "metadata": meta, **parts}

    def _service(self) -> Body:
        port = {"name": "https", "port": 443, "protocol": "TCP", "targetPort": self._port}
        spec = {"type": "ClusterIP", "clusterIP": self._cluster_ip, "ports": [port]}
        labels = {"component": "apiserver", "provider": "kubernetes"}
        return self._object("v1", "Service", labels, spec=spec)

    def _endpoints(self) -> Body:
        subset = {"addresses": [{"ip": self._address}],
                  "ports": [{"name": "https", "port": self._port, "protocol": "TCP"}]}  # fmt: skip
        labels = {"endpointslice.kubernetes.io/skip-mirror": "true"}
        return self._object("v1", "Endpoints", labels, subsets=[subset])

    def _slice(self) -> Body:
        labels = {"kubernetes.io/service-name": _NAME}
        return self._object(
            "discovery.k8s.io/v1", "EndpointSlice", labels, addressType="IPv4",
            endpoints=[{"addresses": [self._address], "conditions": {"ready": True}}],
            ports=[{"name": "https", "port": self._port, "protocol": "TCP"}],
        )  # fmt: skip
