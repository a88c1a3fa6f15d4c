"""Discovery and OpenAPI, in the shapes kubectl asks for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import orjson
import pytest

from sampan.api.catalogue import builtin
from sampan.api.resource import ALL_VERBS, Registry, ResourceType
from sampan.apiserver import gnostic
from sampan.apiserver.discovery import GNOSTIC, GNOSTIC_ASKED, Answer, Documents, version_info
from sampan.schema.walk import Schemas

Json = Any
V2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
V2BETA1 = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"
KUBECTL = f"{V2},{V2BETA1},application/json"


@cache
def documents() -> Documents:
    return Documents(builtin(), Schemas.load(), version=version_info(), address="127.0.0.1:6443")


def ask(path: str, accept: str = "application/json, */*", known: str = "") -> Answer:
    answer = documents().answer(path, accept, known)
    assert answer is not None
    return answer


def get(path: str, accept: str = "application/json, */*") -> Json:
    return orjson.loads(ask(path, accept).body)


def named(items: list[Json], name: str, key: str = "name") -> Json:
    return next(i for i in items if i[key] == name)


# ---- the first discovery -----------------------------------------------------------------------


def test_api_versions() -> None:
    assert get("/api") == {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [
            {"clientCIDR": "0.0.0.0/0", "serverAddress": "127.0.0.1:6443"}
        ],
    }


def test_the_address_may_come_later() -> None:
    mine = Documents(builtin(), Schemas.load(), version=version_info())
    for address in ("", "127.0.0.9:1"):
        mine.reached_at(address)
        answer = mine.answer("/api", "application/json")
        assert answer is not None
        (told,) = orjson.loads(answer.body)["serverAddressByClientCIDRs"]
        assert told["serverAddress"] == address


def test_groups() -> None:
    groups = get("/apis")
    assert (groups["kind"], groups["apiVersion"]) == ("APIGroupList", "v1")
    apps = named(groups["groups"], "apps")
    version = {"groupVersion": "apps/v1", "version": "v1"}
    assert apps == {"name": "apps", "versions": [version], "preferredVersion": version}
    assert get("/apis/apps") == {"kind": "APIGroup", "apiVersion": "v1", **apps}
    names = [g["name"] for g in groups["groups"]]
    assert "" not in names
    assert names.index("apps") < names.index("rbac.authorization.k8s.io")


def test_resources_of_a_group_version() -> None:
    core = get("/api/v1")
    assert (core["kind"], core["groupVersion"]) == ("APIResourceList", "v1")
    assert named(core["resources"], "pods") == {
        "name": "pods",
        "singularName": "pod",
        "namespaced": True,
        "kind": "Pod",
        "verbs": sorted(ALL_VERBS),
        "shortNames": ["po"],
        "categories": ["all"],
        "storageVersionHash": "xPOwRZ+Yhw8=",
    }
    assert named(core["resources"], "pods/exec")["kind"] == "PodExecOptions"
    assert named(core["resources"], "pods/exec")["verbs"] == ["create", "get"]
    assert named(core["resources"], "pods/binding")["kind"] == "Binding"
    token = named(core["resources"], "serviceaccounts/token")
    assert (token["group"], token["version"], token["kind"]) == (
        "authentication.k8s.io",
        "v1",
        "TokenRequest",
    )
    apps = get("/apis/apps/v1")
    scale = named(apps["resources"], "deployments/scale")
    assert (scale["group"], scale["version"], scale["kind"]) == ("autoscaling", "v1", "Scale")
    assert named(apps["resources"], "deployments/status")["verbs"] == ["get", "patch", "update"]


@pytest.mark.parametrize(
    "path",
    [
        "/apis/none", "/apis/none/v1", "/apis/apps/v9", "/api/v2", "/apis//v1", "/openapi/v3/api",
        "/openapi/v3/apis/apps", "/openapi/v4", "/openapi/v3x/apis/apps/v1", "/", "", "/apis/",
    ],
)  # fmt: skip
def test_what_is_not_served_is_not_answered(path: str) -> None:
    answer = documents().answer(path, "")
    assert answer is None or path == "/apis/"


# ---- aggregated discovery ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "version", "content_type"),
    [(KUBECTL, "v2", V2), (V2, "v2", V2), (f"{V2BETA1},application/json", "v2beta1", V2BETA1)],
)
def test_aggregated_discovery(accept: str, version: str, content_type: str) -> None:
    answer = ask("/apis", accept)
    assert answer.content_type == content_type
    body = orjson.loads(answer.body)
    assert body["kind"] == "APIGroupDiscoveryList"
    assert body["apiVersion"] == f"apidiscovery.k8s.io/{version}"
    apps = next(i for i in body["items"] if i["metadata"].get("name") == "apps")
    assert apps["versions"][0]["version"] == "v1"
    assert apps["versions"][0]["freshness"] == "Current"
    deployments = named(apps["versions"][0]["resources"], "deployments", "resource")
    assert deployments["scope"] == "Namespaced"
    assert deployments["responseKind"] == {"group": "", "version": "", "kind": "Deployment"}
    assert named(deployments["subresources"], "scale", "subresource")["responseKind"] == {
        "group": "autoscaling",
        "version": "v1",
        "kind": "Scale",
    }
    core = orjson.loads(ask("/api", accept).body)["items"]
    assert len(core) == 1 and "name" not in core[0]["metadata"]


def test_both_discoveries_tell_the_same() -> None:
    plain = {
        (group["groupVersion"], r["name"]): (r["kind"], tuple(r["verbs"]))
        for path in ("/api/v1", "/apis/apps/v1", "/apis/rbac.authorization.k8s.io/v1")
        for group in [get(path)]
        for r in group["resources"]
    }
    aggregated = {}
    for path in ("/api", "/apis"):
        for item in get(path, V2)["items"]:
            for v in item["versions"]:
                gv = "/".join(filter(None, [item["metadata"].get("name"), v["version"]]))
                for r in v["resources"]:
                    for s in [r, *r.get("subresources", [])]:
                        name = r["resource"] + (f"/{s['subresource']}" if s is not r else "")
                        aggregated[gv, name] = (s["responseKind"]["kind"], tuple(s["verbs"]))
    assert plain.items() <= aggregated.items()


def test_negotiation() -> None:
    assert ask("/apis", "").content_type == "application/json"
    assert ask("/apis", "application/vnd.kubernetes.protobuf,*/*").content_type == (
        "application/json"
    )
    assert ask("/apis", f"{V2};q=0.5,application/json").content_type == "application/json"
    refused = ask("/apis", "application/vnd.kubernetes.protobuf")
    assert refused.status == 406
    assert orjson.loads(refused.body)["reason"] == "NotAcceptable"
    assert ask("/openapi/v2", GNOSTIC_ASKED).content_type == GNOSTIC
    assert ask("/openapi/v2", "").content_type == "application/json"


def test_etags() -> None:
    first = ask("/openapi/v3/api/v1")
    assert re.fullmatch(r'"[0-9A-F]{64}"', first.etag)
    again = ask("/openapi/v3/api/v1", known=f'W/{first.etag}, "other"')
    assert (again.status, again.body, again.etag) == (304, b"", first.etag)
    assert ask("/openapi/v3/api/v1", known='"other"').status == 200
    assert ask("/apis", V2).etag != ask("/apis").etag


def test_equal_registries_give_equal_bytes_and_changed_ones_new_hashes() -> None:
    mine = Documents(builtin(), Schemas.load(), version=version_info(), address="127.0.0.1:6443")
    for path in ("/apis", "/openapi/v2", "/openapi/v3", "/openapi/v3/apis/apps/v1"):
        answer = mine.answer(path, "")
        assert answer is not None and answer.body == ask(path).body
    registry = Registry(tuple(builtin()))
    grown = Documents(registry, Schemas.load(), version=version_info())
    before = grown.answer("/openapi/v3", "")
    registry.add(ResourceType(group="apps", kind="Thing", plural="things", singular="thing"))
    grown.forget()
    after = grown.answer("/openapi/v3", "")
    assert before is not None and after is not None
    old, new = (orjson.loads(a.body)["paths"] for a in (before, after))
    assert old["api/v1"] == new["api/v1"]
    assert old["apis/apps/v1"] != new["apis/apps/v1"]


def test_version() -> None:
    version = get("/version")
    assert version["gitVersion"] == "v1.37.0+sampan"
    assert (version["major"], version["minor"]) == ("1", "37")
    assert all(isinstance(v, str) for v in version.values())


# ---- OpenAPI v3 --------------------------------------------------------------------------------


def test_index() -> None:
    paths = get("/openapi/v3")["paths"]
    assert {"api/v1", "apis/apps/v1"} <= paths.keys()
    for name, entry in paths.items():
        url = entry["serverRelativeURL"]
        assert re.fullmatch(rf"/openapi/v3/{re.escape(name)}\?hash=[0-9A-F]{{64}}", url)
        assert ask(url.partition("?")[0]).status == 200


def test_every_patch_takes_field_validation() -> None:
    """kubectl looks at whichever PATCH of the kind it meets first."""
    for name in get("/openapi/v3")["paths"]:
        for path, item in get(f"/openapi/v3/{name}")["paths"].items():
            if "patch" in item and not path.endswith("/proxy"):
                patch = item["patch"]
                assert {"group", "kind", "version"} == patch[
                    "x-kubernetes-group-version-kind"
                ].keys()
                assert {"fieldValidation", "dryRun"} <= {p["name"] for p in patch["parameters"]}


def test_paths_of_a_kind() -> None:
    paths = get("/openapi/v3/apis/apps/v1")["paths"]
    item = paths["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]
    assert item.keys() == {"parameters", "get", "put", "patch", "delete"}
    assert [p["name"] for p in item["parameters"]] == ["name", "namespace"]
    assert "application/strategic-merge-patch+json" in item["patch"]["requestBody"]["content"]
    collection = paths["/apis/apps/v1/namespaces/{namespace}/deployments"]
    actions = {m: collection[m]["x-kubernetes-action"] for m in ("get", "post", "delete")}
    assert actions == {"get": "list", "post": "post", "delete": "deletecollection"}
    assert paths["/apis/apps/v1/deployments"].keys() == {"parameters", "get"}
    scale = paths["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"]["get"]
    assert scale["x-kubernetes-group-version-kind"]["kind"] == "Scale"


@pytest.mark.parametrize("path", ["/openapi/v2", "/openapi/v3/api/v1", "/openapi/v3/apis/apps/v1"])
def test_documents_are_closed(path: str) -> None:
    """Every reference leads somewhere; operation ids are unique; no format of ours leaks."""
    document = get(path)
    for node in _nodes(document):
        if isinstance(ref := node.get("$ref"), str):
            target = document
            for step in ref.removeprefix("#/").split("/"):
                target = target[step]
        assert node.get("format") not in ("quantity", "date-time-micro")
        assert "x-kubernetes-preserve-unknown-fields" not in node
    ids = [o["operationId"] for o in _operations(document)]
    assert len(ids) == len(set(ids))


def test_schemas_of_version_3() -> None:
    schemas = get("/openapi/v3/api/v1")["components"]["schemas"]
    pod = schemas["io.k8s.api.core.v1.Pod"]
    assert pod["x-kubernetes-group-version-kind"] == [{"group": "", "kind": "Pod", "version": "v1"}]
    spec = pod["properties"]["spec"]
    assert spec["allOf"] == [{"$ref": "#/components/schemas/io.k8s.api.core.v1.PodSpec"}]
    assert spec["description"]
    containers = schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"]
    assert containers["x-kubernetes-patch-merge-key"] == "name"
    quantity = schemas["io.k8s.apimachinery.pkg.api.resource.Quantity"]
    assert quantity["oneOf"] == [{"type": "string"}, {"type": "number"}]
    port = schemas["io.k8s.apimachinery.pkg.util.intstr.IntOrString"]
    assert port == {
        "format": "int-or-string",
        "oneOf": [{"type": "string"}, {"type": "integer"}],
    }


# ---- OpenAPI v2 --------------------------------------------------------------------------------


def test_swagger() -> None:
    document = get("/openapi/v2")
    assert document["swagger"] == "2.0"
    pod = document["definitions"]["io.k8s.api.core.v1.Pod"]
    assert pod["properties"]["spec"]["$ref"] == "#/definitions/io.k8s.api.core.v1.PodSpec"
    patch = document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"]
    assert "fieldValidation" in {p["name"] for p in patch["parameters"] if p["in"] == "query"}
    assert document["definitions"]["io.k8s.apimachinery.pkg.util.intstr.IntOrString"] == {
        "format": "int-or-string",
        "type": "string",
    }


def test_swagger_as_protobuf_tells_the_same_as_json() -> None:
    document = get("/openapi/v2")
    message = _decode(ask("/openapi/v2", GNOSTIC_ASKED).body)
    assert message[1] == [b"2.0"]
    definitions = {n[1][0].decode(): n[2][0] for n in map(_decode, _decode(message[9][0])[1])}
    assert definitions.keys() == document["definitions"].keys()
    for name, encoded in definitions.items():
        _same(_decode(encoded), document["definitions"][name])
    paths = {n[1][0].decode(): n[2][0] for n in map(_decode, _decode(message[8][0])[2])}
    assert paths.keys() == document["paths"].keys()
    item = _decode(paths["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"])
    patch = _decode(item[8][0])
    marks = {n[1][0]: _decode(n[2][0])[2][0] for n in map(_decode, patch[13])}
    assert orjson.loads(marks[b"x-kubernetes-group-version-kind"]) == {
        "group": "apps",
        "kind": "Deployment",
        "version": "v1",
    }
    names = []
    for parameter in map(_decode, patch[8]):
        kind = _decode(parameter[1][0])
        if 2 in kind and 3 in (other := _decode(kind[2][0])):
            names.append(_decode(other[3][0])[4][0])
    assert b"fieldValidation" in names
    assert _decode(_decode(_decode(patch[8][0])[1][0])[1][0])[2] == [b"body"]


def test_long_messages_have_long_lengths() -> None:
    text = "x" * 300
    encoded = gnostic.encode({"swagger": "2.0", "definitions": {"A": {"description": text}}})
    inner = _decode(_decode(_decode(encoded)[9][0])[1][0])
    assert _decode(inner[2][0])[4] == [text.encode()]


def _same(message: dict[int, list[bytes]], schema: Json) -> None:
    """*message* (gnostic's Schema) says what *schema* does."""
    assert message.get(1, [b""])[0].decode() == schema.get("$ref", "")
    assert message.get(2, [b""])[0].decode() == schema.get("format", "")
    assert message.get(4, [b""])[0].decode() == schema.get("description", "")
    assert [r.decode() for r in message.get(19, [])] == schema.get("required", [])
    if "type" in schema:
        assert _decode(message[22][0])[1] == [schema["type"].encode()]
    if "items" in schema:
        _same(_decode(_decode(message[23][0])[1][0]), schema["items"])
    if "additionalProperties" in schema:
        _same(_decode(_decode(message[21][0])[1][0]), schema["additionalProperties"])
    if "properties" in schema:
        found = {n[1][0].decode(): n[2][0] for n in map(_decode, _decode(message[25][0])[1])}
        assert found.keys() == schema["properties"].keys()
        for name, inner in found.items():
            _same(_decode(inner), schema["properties"][name])
    marks = {n[1][0].decode(): _decode(n[2][0])[2][0] for n in map(_decode, message.get(31, []))}
    assert {k: orjson.loads(v) for k, v in marks.items()} == {
        k: v for k, v in schema.items() if k.startswith("x-")
    }


def _decode(data: bytes) -> dict[int, list[bytes]]:
    """Fields of a protobuf message by number; varints as their bytes."""
    fields: dict[int, list[bytes]] = {}
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        tag = varint()
        size = varint()
        if tag & 7 == 2:
            fields.setdefault(tag >> 3, []).append(data[at : at + size])
            at += size
            assert at <= len(data)
        else:
            fields.setdefault(tag >> 3, []).append(bytes([size]))
    return fields


def _nodes(value: Json) -> Iterator[Json]:
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from _nodes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _nodes(inner)


def _operations(document: Json) -> Iterator[Json]:
    for item in document["paths"].values():
        yield from (o for m, o in item.items() if m != "parameters")
