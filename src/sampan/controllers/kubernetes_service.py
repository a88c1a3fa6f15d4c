"""Services whose ends are in this program: ``kubernetes`` of the default namespace, the API as pods
see it, and ``kube-dns`` of kube-system, the cluster's names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sampan.api.obj import Body, Key, Obj
from sampan.control.plan import Action, Caches, Create, Trigger, Update
from sampan.lib.addressing import Addresses, Plan, family_of

_SLICES = "endpointslices.discovery.k8s.io"


class _PinnedService:
    """Keeps one Service, its Endpoints and its EndpointSlices. ports: of the Service, with the
    targetPort as the endpoint's. ends: where it leads to, of each family that it serves, the
    primary one first; cluster_ips: its own addresses, in the same order."""

    name = ""
    workers = 1
    labels: dict[str, str] = {}  # noqa: RUF012 - never changed

    def __init__(
        self, key: Key, ports: Sequence[Body], *, ends: Sequence[str], cluster_ips: Sequence[str]
    ) -> None:  # fmt: skip
        self._key = key
        self._ports = ports
        self._ends, self._cluster_ips = tuple(ends), tuple(cluster_ips)
        # The first slice has the service's own name, as upstream's of the API server has.
        self._slices = [key.name, *(f"{key.name}-{family_of(e).lower()}" for e in ends[1:])]
        self.triggers = tuple(
            Trigger(r, self._keys) for r in ("namespaces", "services", "endpoints", _SLICES)
        )
        self.indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]] = {}

    def _keys(self, obj: Obj, _caches: Caches) -> Iterable[Key]:
        if obj.key.resource == "namespaces":
            mine = obj.name == self._key.namespace
        else:
            mine = obj.namespace == self._key.namespace and obj.name in self._slices
        if mine:
            yield self._key

    def observe(self, key: Key, caches: Caches) -> list[tuple[str, Body, Obj | None]]:
        wanted = [("services", self._service()), ("endpoints", self._endpoints())]
        wanted += [(_SLICES, self._slice(*s)) for s in zip(self._slices, self._ends, strict=True)]
        return [(r, b, caches[r].get(self._key.namespace, b["metadata"]["name"]))
                for r, b in wanted]  # fmt: skip

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
        dual = len(self._cluster_ips) > 1
        spec = {"type": "ClusterIP", "clusterIP": self._cluster_ips[0],
                "clusterIPs": [*self._cluster_ips], "ports": [*self._ports],
                "ipFamilyPolicy": "PreferDualStack" if dual else "SingleStack"}  # fmt: skip
        return self._object("v1", "Service", self.labels, spec=spec)

    def _ports_of_ends(self) -> list[Body]:
        return [{"name": p["name"], "port": p["targetPort"], "protocol": p["protocol"]}
                for p in self._ports]  # fmt: skip

    def _endpoints(self) -> Body:
        subset = {"addresses": [{"ip": self._ends[0]}], "ports": self._ports_of_ends()}
        labels = {"endpointslice.kubernetes.io/skip-mirror": "true"}
        return self._object("v1", "Endpoints", labels, subsets=[subset])

    def _slice(self, name: str, end: str) -> Body:
        labels = {"kubernetes.io/service-name": self._key.name}
        made = self._object(
            "discovery.k8s.io/v1", "EndpointSlice", labels, addressType=family_of(end),
            endpoints=[{"addresses": [end], "conditions": {"ready": True}}],
            ports=self._ports_of_ends(),
        )  # fmt: skip
        made["metadata"]["name"] = name
        return made


def _port(name: str, number: int, target: int, protocol: str = "TCP") -> Body:
    return {"name": name, "port": number, "protocol": protocol, "targetPort": target}


class KubernetesServiceController(_PinnedService):
    """The API server's own, at *port* of its end in the primary family: it never is dual stack,
    as upstream's is not."""

    name = "kubernetes-service-controller"
    labels = {"component": "apiserver", "provider": "kubernetes"}  # noqa: RUF012

    def __init__(self, of: Addresses, port: int) -> None:
        super().__init__(
            Key("services", "default", "kubernetes"), [_port("https", 443, port)],
            ends=(of.api_end,), cluster_ips=(of.api,),
        )  # fmt: skip


class DnsServiceController(_PinnedService):
    """Cluster DNS in every family, under the name and the labels tools look for."""

    name = "dns-service-controller"
    labels = {  # noqa: RUF012
        "k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true",
        "kubernetes.io/name": "CoreDNS",
    }  # fmt: skip

    def __init__(self, plan: Plan) -> None:
        super().__init__(
            Key("services", "kube-system", "kube-dns"),
            [_port("dns", 53, 53, "UDP"), _port("dns-tcp", 53, 53)],
            ends=[a.dns_end for a in plan.of], cluster_ips=[a.dns for a in plan.of],
        )  # fmt: skip
