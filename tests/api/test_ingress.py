"""Ingress and IngressClass: rules, defaults and columns."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sampan.api.catalogue import builtin
from sampan.api.errors import StatusError
from sampan.api.obj import Body
from sampan.api.resource import ResourceType
from sampan.testing.api import api_server, client_of

INGRESSES, CLASSES = "ingresses.networking.k8s.io", "ingressclasses.networking.k8s.io"
WEB = {"service": {"name": "web", "port": {"number": 80}}}


def the(resource: str) -> ResourceType:
    found = builtin().get(resource)
    assert found is not None
    return found


def problems(resource: str, spec: Body) -> list[str]:
    body = {"metadata": {"name": "x"}, "spec": spec}
    the(resource).rules.default(body)
    return [str(c) for c in the(resource).rules.validate(body)]


def path(text: str = "/", kind: str | None = "Prefix", backend: Any = WEB) -> Body:
    one = {"path": text, "backend": backend}
    if kind:
        one["pathType"] = kind
    return {"rules": [{"http": {"paths": [one]}}]}


AT = "spec.rules[0].http.paths[0]"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (path(), []),
        ({"defaultBackend": WEB}, []),
        ({}, ["spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"]),
        (path("x"), [f'{AT}.path: Invalid value: "x": must be an absolute path']),
        (path("", "Exact"), [f'{AT}.path: Invalid value: "": must be an absolute path']),
        (path("", "ImplementationSpecific"), []),
        (path("/a//b"), [f"{AT}.path: Invalid value: \"/a//b\": must not contain '//'"]),
        (path("/a/.."), [f"{AT}.path: Invalid value: \"/a/..\": cannot end with '/..'"]),
        (path(kind=None), [f"{AT}.pathType: Required value: pathType must be specified"]),
        (
            path(kind="Regex"),
            [f'{AT}.pathType: Unsupported value: "Regex": supported values: "Exact", '
             '"ImplementationSpecific", "Prefix"'],
        ),
        (
            path(backend={}),
            [f'{AT}.backend: Invalid value: "": resource or service backend is required'],
        ),
        (
            path(backend={**WEB, "resource": {"kind": "K", "name": "n"}}),
            [f'{AT}.backend: Invalid value: "": cannot set both resource and service backends'],
        ),
        (
            path(backend={"service": {"name": "", "port": {}}}),
            [f"{AT}.backend.service.name: Required value",
             f"{AT}.backend: Required value: port name or number is required"],
        ),
        (
            path(backend={"service": {"name": "a", "port": {"name": "a", "number": 1}}}),
            [f'{AT}.backend: Invalid value: "": cannot set both port name & port number'],
        ),
        (
            path(backend={"resource": {"kind": "K"}}),
            [f"{AT}.backend.resource.name: Required value"],
        ),
        (
            {"rules": [{"host": "10.0.0.1", "http": {"paths": []}}]},
            ['spec.rules[0].host: Invalid value: "10.0.0.1": must be a DNS name, not an IP address',
             "spec.rules[0].http.paths: Required value"],
        ),
        ({"rules": [{"host": "*.a.b"}]}, []),
        (
            {"rules": [{"host": "a.*.b"}]},
            ["spec.rules[0].host: Invalid value: \"a.*.b\": a wildcard DNS-1123 subdomain must "
             "start with '*.', followed by a valid DNS subdomain, which must consist of lower case "
             "alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. "
             "'*.example.com', regex used for validation is "
             "'\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"],
        ),
    ],
)  # fmt: skip
def test_ingresses(spec: Body, expected: list[str]) -> None:
    assert problems(INGRESSES, spec) == expected


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"controller": "a.b/c"}, []),
        ({}, ["spec.controller: Required value"]),
        (
            {"controller": "abc"},
            ['spec.controller: Invalid value: "abc": must be a domain-prefixed path (such as '
             '"acme.io/foo")'],
        ),
        ({"controller": "a.b/c", "parameters": {"kind": "K", "name": "n"}}, []),
        (
            {"controller": "a.b/c", "parameters": {"kind": "K", "name": "n", "scope": "Namespace"}},
            ["spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'"],
        ),
        (
            {"controller": "a.b/c", "parameters": {"kind": "K", "name": "n", "namespace": "x"}},
            ["spec.parameters.namespace: Forbidden: `parameters.scope` is set to 'Cluster'"],
        ),
    ],
)  # fmt: skip
def test_classes(spec: Body, expected: list[str]) -> None:
    assert problems(CLASSES, spec) == expected


def row(resource: str, body: Body) -> list[object]:
    return [c.cell(body, 0.0) for c in the(resource).columns if c.name != "Age"]


def test_columns() -> None:
    hosts = [{"host": f"h{i}"} for i in range(5)]
    body = {
        "metadata": {"name": "i"},
        "spec": {"ingressClassName": "c", "rules": hosts, "tls": [{}]},
        "status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}, {"hostname": "x.y"}]}},
    }
    assert row(INGRESSES, body) == ["i", "c", "h0,h1,h2 + 2 more...", "1.2.3.4,x.y", "80, 443"]
    assert row(INGRESSES, {"metadata": {"name": "i"}, "spec": {"defaultBackend": WEB}}) == [
        "i", "<none>", "*", "", "80"
    ]  # fmt: skip
    parameters = {"apiGroup": "g.h", "kind": "K", "name": "n"}
    body = {"metadata": {"name": "c"}, "spec": {"controller": "a/b", "parameters": parameters}}
    assert row(CLASSES, body) == ["c", "a/b", "K.g.h/n"]


def test_the_default_class_and_the_old_annotation() -> None:
    async def main() -> None:
        api = await api_server()
        client = client_of(api)
        for name, default in (("a", "true"), ("b", "false")):
            notes = {"ingressclass.kubernetes.io/is-default-class": default}
            meta = {"name": name, "annotations": notes}
            await client.create(CLASSES, {"metadata": meta, "spec": {"controller": "x.y/z"}})
        made = await client.create(
            INGRESSES, {"metadata": {"name": "i"}, "spec": path()}, "default"
        )
        assert made.spec["ingressClassName"] == "a" and made.meta["generation"] == 1
        assert made.status == {"loadBalancer": {}}
        old = {"name": "j", "annotations": {"kubernetes.io/ingress.class": "nginx"}}
        made = await client.create(INGRESSES, {"metadata": old, "spec": path()}, "default")
        assert "ingressClassName" not in made.spec
        both = {**old, "name": "k"}
        with pytest.raises(StatusError) as e:
            spec = {**path(), "ingressClassName": "b"}
            await client.create(INGRESSES, {"metadata": both, "spec": spec}, "default")
        assert "must match `ingressClassName` when both are specified" in e.value.message
        with pytest.raises(StatusError) as e:
            await client.patch(CLASSES, "a", {"spec": {"controller": "x.y/other"}})
        assert "spec.controller: Invalid value" in e.value.message
        await api.authorizer.stop()

    asyncio.run(main())
