"""Services whose ends are in this program: ``kubernetes`` of the default namespace, the API as pods
see it, and ``kube-dns`` of kube-system, the cluster's names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sampan.api.obj import Body, Key, Obj
from sampan.control.plan import Action, Caches, Create, Trigger, Update

_SLICES = "endpointslices.discovery.k8s.io"


class _PinnedService:
    """Keeps one Service, its Endpoints and its EndpointSlice at *address*. ports: of the Service,
    with the targetPort as the endpoint's."""

    name = ""
    workers = 1
    labels: dict[str, str] = {}  # noqa: RUF012 - never changed

    def __init__(
        self, key: Key, ports: Sequence[Body], *, address: str, cluster_ip: str
    ) -> None:  # fmt: skip
        self._key = key
        self._ports = ports
        self._address, self._cluster_ip = address, cluster_ip
        self.triggers = tuple(
            Trigger(r, self._keys) for r in ("namespaces", "services", "endpoints", _SLICES)
        )
        self.indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]] = {}

    def _keys(self, obj: Obj, _caches: Caches) -> Iterable[Key]:
        of_all = obj.key.resource == "namespaces"
        if obj.name == (self._key.namespace if of_all else self._key.name) and (
            of_all or obj.namespace == self._key.namespace
        ):
            yield self._key

    def observe(self, key: Key, caches: Caches) -> list[tuple[str, Body, Obj | None]]:
        wanted = {"services": self._service(), "endpoints": self._endpoints(),
                  _SLICES: self._slice()}  # fmt: skip
        return [(r, b, caches[r].get(self._key.namespace, self._key.name))
                for r, b in wanted.items()]  # fmt: skip

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

    def _object(self, version: str, kind: str, labels: dict[str, str], **parts: Any) -> Body:
        meta: Body = {"name": self._key.name, "namespace": self._key.namespace, "labels": labels}
        return {"apiVersion": version, "kind": kind, "metadata": meta, **parts}

    def _service(self) -> Body:
        spec = {"type": "ClusterIP", "clusterIP": self._cluster_ip, "ports": [*self._ports]}
        return self._object("v1", "Service", self.labels, spec=spec)

    def _ends(self) -> list[Body]:
        return [{"name": p["name"], "port": p["targetPort"], "protocol": p["protocol"]}
                for p in self._ports]  # fmt: skip

    def _endpoints(self) -> Body:
        subset = {"addresses": [{"ip": self._address}], "ports": self._ends()}
        labels = {"endpointslice.kubernetes.io/skip-mirror": "true"}
        return self._object("v1", "Endpoints", labels, subsets=[subset])

    def _slice(self) -> Body:
        labels = {"kubernetes.io/service-name": self._key.name}
        return self._object(
            "discovery.k8s.io/v1", "EndpointSlice", labels, addressType="IPv4",
            endpoints=[{"addresses": [self._address], "conditions": {"ready": True}}],
            ports=self._ends(),
        )  # fmt: skip


def _port(name: str, number: int, target: int, protocol: str = "TCP") -> Body:
    return {"name": name, "port": number, "protocol": protocol, "targetPort": target}


class KubernetesServiceController(_PinnedService):
    """The API server's own, at *address*:*port*."""

    name = "kubernetes-service-controller"
    labels = {"component": "apiserver", "provider": "kubernetes"}  # noqa: RUF012

    def __init__(self, address: str, port: int, *, cluster_ip: str = "10.43.0.1") -> None:
        super().__init__(
            Key("services", "default", "kubernetes"), [_port("https", 443, port)],
            address=address, cluster_ip=cluster_ip,
        )  # fmt: skip


class DnsServiceController(_PinnedService):
    """Cluster DNS at *address*, under the name and the labels tools look for."""

    name = "dns-service-controller"
    labels = {  # noqa: RUF012
        "k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true",
        "kubernetes.io/name": "CoreDNS",
    }  # fmt: skip

    def __init__(self, address: str, *, cluster_ip: str = "10.43.0.10") -> None:
        super().__init__(
            Key("services", "kube-system", "kube-dns"),
            [_port("dns", 53, 53, "UDP"), _port("dns-tcp", 53, 53)],
            address=address, cluster_ip=cluster_ip,
        )  # fmt: skip
