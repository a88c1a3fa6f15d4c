"""A container's environment variables, from all their sources. Pure."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from sampan.api.obj import Body
from sampan.node.runtime.base import RuntimeFailure

if TYPE_CHECKING:
    from sampan.node.resolve import Context

_REFERENCE = re.compile(r"\$(?:\$|\(([^()]*)\))")


def expand(text: str, values: Mapping[str, str]) -> str:
    """``$(NAME)`` replaced by its value when it has one; ``$$`` stands for ``$``."""

    def one(match: re.Match[str]) -> str:
        name = match[1]
        if name is None:
            return "$"
        return values.get(name, match[0])

    return _REFERENCE.sub(one, text)


def environment(context: Context, container: Body) -> tuple[tuple[str, str], ...]:
    """Services, then envFrom, then env (later wins; references see what came before).

    Raises RuntimeFailure (CreateContainerConfigError) for what is missing and not optional.
    """
    links = dict(service_variables(context))
    values: dict[str, str] = {}
    for source in container.get("envFrom") or ():
        prefix = source.get("prefix") or ""
        for key, value in _whole(context, source):
            values[prefix + key] = value
    for variable in container.get("env") or ():
        name = variable["name"]
        if "valueFrom" in variable:
            found = _value_from(context, variable["valueFrom"], container)
            if found is not None:
                values[name] = found
        else:
            values[name] = expand(str(variable.get("value") or ""), {**links, **values})
    return tuple({**links, **values}.items())


def decode_secret(body: Body) -> dict[str, bytes]:
    data: Body = body.get("data") or {}
    return {k: base64.b64decode(v or "") for k, v in data.items()}


def decode_config(body: Body) -> dict[str, bytes]:
    plain: Body = body.get("data") or {}
    binary: Body = body.get("binaryData") or {}
    found = {k: str(v).encode() for k, v in plain.items()}
    return found | {k: base64.b64decode(v or "") for k, v in binary.items()}


def _whole(context: Context, source: Body) -> Iterator[tuple[str, str]]:
    for key, resource, kind in (
        ("configMapRef", "configmaps", "configmap"),
        ("secretRef", "secrets", "secret"),
    ):
        ref = source.get(key)
        if not ref:
            continue
        body = context.configs.get((resource, ref.get("name", "")))
        if body is None:
            if not ref.get("optional"):
                raise _failure(f'{kind} "{ref.get("name", "")}" not found')
            continue
        data = (
            decode_secret(body)
            if resource == "secrets"
            else {k: v.encode() for k, v in (body.get("data") or {}).items()}
        )  # binaryData is not for variables
        for name, value in data.items():
            if "=" not in name:
                yield name, value.decode("utf-8", "replace")


def _value_from(context: Context, origin: Body, container: Body) -> str | None:
    from sampan.node.resolve import pod_field, resource_field  # they refer to each other

    if origin.get("fieldRef"):
        return pod_field(context, origin["fieldRef"]["fieldPath"])
    if origin.get("resourceFieldRef"):
        return resource_field(context, origin["resourceFieldRef"], container["name"])
    namespace = context.pod["metadata"].get("namespace", "")
    for key, resource, kind, title in (
        ("configMapKeyRef", "configmaps", "configmap", "ConfigMap"),
        ("secretKeyRef", "secrets", "secret", "Secret"),
    ):
        ref = origin.get(key)
        if not ref:
            continue
        name = ref.get("name", "")
        body = context.configs.get((resource, name))
        if body is None:
            if ref.get("optional"):
                return None
            raise _failure(f'{kind} "{name}" not found')
        data = (
            decode_secret(body)
            if resource == "secrets"
            else {k: v.encode() for k, v in (body.get("data") or {}).items()}
        )
        if ref["key"] not in data:
            if ref.get("optional"):
                return None
            raise _failure(f"couldn't find key {ref['key']} in {title} {namespace}/{name}")
        return data[ref["key"]].decode("utf-8", "replace")
    return None


def service_variables(context: Context) -> Iterator[tuple[str, str]]:
    """Docker-link style variables: of the kubernetes service always, of the namespace's own
    services unless ``enableServiceLinks`` is false."""
    namespace = context.pod["metadata"].get("namespace", "")
    links = context.pod["spec"].get("enableServiceLinks", True) is not False
    chosen: dict[str, Body] = {}
    for service in context.services:
        meta = service["metadata"]
        if meta.get("namespace") == "default" and meta["name"] == "kubernetes":
            chosen.setdefault(meta["name"], service)
    for service in context.services:
        if links and service["metadata"].get("namespace") == namespace:
            chosen[service["metadata"]["name"]] = service
    for name in sorted(chosen):
        yield from _links(name, chosen[name].get("spec") or {})


def _links(name: str, spec: Body) -> Iterator[tuple[str, str]]:
    host, ports = spec.get("clusterIP", ""), spec.get("ports") or ()
    if host in ("", "None") or not ports:
        return
    base = name.upper().replace("-", "_")
    yield f"{base}_SERVICE_HOST", host
    yield f"{base}_SERVICE_PORT", str(ports[0]["port"])
    for port in ports:
        if port.get("name"):
            yield f"{base}_SERVICE_PORT_{port['name'].upper().replace('-', '_')}", str(port["port"])
    shown = f"[{host}]" if ":" in host else host
    for index, port in enumerate(ports):
        protocol = port.get("protocol") or "TCP"
        url = f"{protocol.lower()}://{shown}:{port['port']}"
        if index == 0:
            yield f"{base}_PORT", url
        stem = f"{base}_PORT_{port['port']}_{protocol.upper()}"
        yield stem, url
        yield f"{stem}_PROTO", protocol.lower()
        yield f"{stem}_PORT", str(port["port"])
        yield f"{stem}_ADDR", host


def _failure(message: str) -> RuntimeFailure:
    return RuntimeFailure("CreateContainerConfigError", message)
