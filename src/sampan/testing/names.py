"""Builders of Services and EndpointSlices for tests of names and addresses."""

from __future__ import annotations

from typing import Any

from sampan.api.obj import Body, Key, Obj

SLICES = "endpointslices.discovery.k8s.io"


def service(
    name: str, ip: str = "None", *ports: Body, namespace: str = "default", **spec: Any
) -> Obj:
    """ip: of a cluster, or ``None``."""
    body = {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"clusterIP": ip, "clusterIPs": [ip], "ports": [*ports], "type": "ClusterIP",
                 **spec},
    }  # fmt: skip
    return Obj.of(Key("services", namespace, name), body, 1)


def external(name: str, target: str, *, namespace: str = "default") -> Obj:
    spec = {"type": "ExternalName", "externalName": target}
    body = {"metadata": {"name": name, "namespace": namespace}, "spec": spec}
    return Obj.of(Key("services", namespace, name), body, 1)


def port(number: int, name: str = "", protocol: str = "TCP") -> Body:
    return {"port": number, "protocol": protocol, **({"name": name} if name else {})}


def endpoint(*addresses: str, hostname: str = "", ready: bool | None = True, **more: Any) -> Body:
    conditions = {} if ready is None else {"ready": ready}
    named = {"hostname": hostname} if hostname else {}
    return {"addresses": [*addresses], "conditions": conditions, **named, **more}


def endpoint_slice(
    of: str, *endpoints: Body, name: str = "", ports: tuple[Body, ...] = (),
    namespace: str = "default", family: str = "IPv4",
) -> Obj:  # fmt: skip
    name = name or f"{of}-1"
    meta = {"name": name, "namespace": namespace, "labels": {"kubernetes.io/service-name": of}}
    body = {"metadata": meta, "addressType": family, "endpoints": [*endpoints], "ports": [*ports]}
    return Obj.of(Key(SLICES, namespace, name), body, 1)
