"""Ingress and IngressClass (networking.k8s.io/v1): stored, checked and shown; whoever implements
them reads them from the API."""

from __future__ import annotations

from typing import Any

from sampan.api.errors import Cause
from sampan.api.obj import Body
from sampan.api.rules.field import (
    checked,
    forbidden,
    immutable,
    invalid,
    not_supported,
    one_of,
    required,
    too_long,
)
from sampan.lib import names

CLASS_ANNOTATION = "kubernetes.io/ingress.class"
_PATH_TYPES = ("Exact", "ImplementationSpecific", "Prefix")
_BAD_SEQUENCES = ("//", "/./", "/../", "%2f", "%2F")
_BAD_ENDINGS = ("/..", "/.")
_CONTROLLER_MAX = 250
_PREFIXED = 'must be a domain-prefixed path (such as "acme.io/foo")'


# -- Ingress -----------------------------------------------------------------------------------


def create(body: Body) -> None:
    body["status"] = {"loadBalancer": {}}


def validate(body: Body) -> list[Cause]:
    spec: Body = body.get("spec") or {}
    rules, backend = spec.get("rules") or [], spec.get("defaultBackend")
    found: list[Cause] = []
    if not rules and backend is None:
        why = "either `defaultBackend` or `rules` must be specified"
        found.append(invalid("spec", spec.get("rules"), why))
    if backend is not None:
        found += _backend(backend, "spec.defaultBackend")
    for i, rule in enumerate(rules):
        found += _rule(rule, f"spec.rules[{i}]")
    for i, tls in enumerate(spec.get("tls") or ()):
        at = f"spec.tls[{i}]"
        for host in tls.get("hosts") or ():
            found += checked(f"{at}.hosts", host, _host)
        if tls.get("secretName"):
            found += checked(f"{at}.secretName", tls["secretName"], names.dns1123_subdomain)
    if spec.get("ingressClassName") is not None:
        found += checked("spec.ingressClassName", spec["ingressClassName"], names.dns1123_subdomain)
    return found


def validate_create(body: Body) -> list[Cause]:
    """What only new ones must keep: the annotation of old agrees with the field of today."""
    meta, wanted = body.get("metadata") or {}, (body.get("spec") or {}).get("ingressClassName")
    given = (meta.get("annotations") or {}).get(CLASS_ANNOTATION)
    if given is None or wanted is None or given == wanted:
        return []
    why = "must match `ingressClassName` when both are specified"
    return [invalid(f"metadata.annotations.{CLASS_ANNOTATION}", given, why)]


def _host(text: str) -> list[str]:
    return names.wildcard_subdomain(text) if "*" in text else names.dns1123_subdomain(text)


def _rule(rule: Body, at: str) -> list[Cause]:
    found: list[Cause] = []
    host = rule.get("host") or ""
    if host:
        if not names.ip(host):
            why = "must be a DNS name, not an IP address"
            found.append(invalid(f"{at}.host", host, why))
        found += checked(f"{at}.host", host, _host)
    http = rule.get("http")
    if http is None:
        return found
    paths = http.get("paths") or []
    if not paths:
        found.append(required(f"{at}.http.paths"))
    for i, path in enumerate(paths):
        found += _path(path, f"{at}.http.paths[{i}]")
    return found


def _path(path: Body, at: str) -> list[Cause]:
    kind, text = path.get("pathType"), path.get("path") or ""
    found: list[Cause] = []
    absolute = "must be an absolute path"
    if kind is None:
        found.append(required(f"{at}.pathType", "pathType must be specified"))
    elif kind in ("Exact", "Prefix"):
        if not text.startswith("/"):
            found.append(invalid(f"{at}.path", text, absolute))
        if text:
            found += [
                invalid(f"{at}.path", text, f"must not contain '{bad}'")
                for bad in _BAD_SEQUENCES
                if bad in text
            ]
            found += [
                invalid(f"{at}.path", text, f"cannot end with '{bad}'")
                for bad in _BAD_ENDINGS
                if text.endswith(bad)
            ]
    elif kind == "ImplementationSpecific":
        if text and not text.startswith("/"):
            found.append(invalid(f"{at}.path", text, absolute))
    else:
        found.append(not_supported(f"{at}.pathType", kind, _PATH_TYPES))
    return found + _backend(path.get("backend") or {}, f"{at}.backend")


def _backend(backend: Body, at: str) -> list[Cause]:
    resource, service = backend.get("resource"), backend.get("service")
    if resource is not None and service is not None:
        return [invalid(at, "", "cannot set both resource and service backends")]
    if resource is not None:
        return _reference(resource, f"{at}.resource")
    if service is None:
        return [invalid(at, "", "resource or service backend is required")]
    found: list[Cause] = []
    name, here = service.get("name") or "", f"{at}.service"
    if not name:
        found.append(required(f"{here}.name"))
    else:
        found += checked(f"{here}.name", name, names.dns1123_label)
    port = service.get("port") or {}
    port_name, number = port.get("name"), port.get("number")
    if port_name and number:
        found.append(invalid(at, "", "cannot set both port name & port number"))
    elif port_name:
        found += checked(f"{here}.port.name", port_name, names.port_name)
    elif number:
        found += [invalid(f"{here}.port.number", number, p) for p in names.port_number(number)]
    else:
        found.append(required(at, "port name or number is required"))
    return found


def _reference(reference: Body, at: str) -> list[Cause]:
    found: list[Cause] = []
    if reference.get("apiGroup"):
        found += checked(f"{at}.apiGroup", reference["apiGroup"], names.dns1123_subdomain)
    for field in ("kind", "name"):
        value = reference.get(field) or ""
        if not value:
            found.append(required(f"{at}.{field}"))
        else:
            found += checked(f"{at}.{field}", value, names.path_segment)
    return found


def validate_status(new: Body, _old: Body) -> list[Cause]:
    found: list[Cause] = []
    balancer = (new.get("status") or {}).get("loadBalancer") or {}
    for i, entry in enumerate(balancer.get("ingress") or ()):
        at = f"status.loadBalancer.ingress[{i}]"
        if entry.get("ip"):
            found += checked(f"{at}.ip", entry["ip"], names.ip)
        host = entry.get("hostname")
        if host:
            found += checked(f"{at}.hostname", host, names.dns1123_subdomain)
            if not names.ip(host):
                why = "must be a DNS name, not an IP address"
                found.append(invalid(f"{at}.hostname", host, why))
    return found


# -- IngressClass ------------------------------------------------------------------------------


def default_class(body: Body) -> None:
    parameters = (body.get("spec") or {}).get("parameters")
    if isinstance(parameters, dict) and parameters.get("scope") is None:
        parameters["scope"] = "Cluster"


def validate_class(body: Body) -> list[Cause]:
    spec: Body = body.get("spec") or {}
    controller, at = spec.get("controller") or "", "spec.controller"
    found: list[Cause] = []
    if len(controller) > _CONTROLLER_MAX:
        found.append(too_long(at, _CONTROLLER_MAX))
    if not controller:
        found.append(required(at))
    else:
        found += checked(at, controller, _domain_prefixed)
    parameters = spec.get("parameters")
    if parameters is not None:
        found += _parameters(parameters, "spec.parameters")
    return found


def _domain_prefixed(text: str) -> list[str]:
    domain, slash, path = text.partition("/")
    if not slash or not domain or not path:
        return [_PREFIXED]
    return names.dns1123_subdomain(domain)


def _parameters(parameters: Body, at: str) -> list[Cause]:
    found = _reference(parameters, at)
    scope, namespace = parameters.get("scope"), parameters.get("namespace")
    problems = one_of(f"{at}.scope", scope, ("Cluster", "Namespace"))
    if problems:
        return found + problems
    where = f"{at}.namespace"
    if scope == "Namespace":
        if namespace is None:
            found.append(required(where, "`parameters.scope` is set to 'Namespace'"))
        else:
            found += checked(where, namespace, names.dns1123_label)
    elif namespace is not None:
        found.append(forbidden(where, "`parameters.scope` is set to 'Cluster'"))
    return found


def validate_class_update(new: Body, old: Body) -> list[Cause]:
    controllers: list[Any] = [(b.get("spec") or {}).get("controller") for b in (new, old)]
    return immutable("spec.controller", *controllers)
