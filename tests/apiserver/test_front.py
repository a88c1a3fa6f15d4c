"""The front over real loopback sockets: verbs, codes, media types, shapes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import yaml

from sampan.api.errors import too_many_requests
from sampan.testing.fronts import FrontWorld, served

CONFIG = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"k": "v"}}
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
MAPS = "/api/v1/namespaces/default/configmaps"


def run(check: Callable[[FrontWorld], Awaitable[None]]) -> None:
    async def inside() -> None:
        async with served() as world:
            await check(world)

    asyncio.run(asyncio.wait_for(inside(), 30))


def test_a_review_is_no_table() -> None:
    """406 for who wants nothing else; the review itself for who takes it too."""
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    review = {"metadata": {"name": "x"}, "spec": {"nonResourceAttributes": {"path": "/"}}}

    async def check(world: FrontWorld) -> None:
        only, _, _ = TABLE.partition(",")
        refused = await world.ask("POST", path, body=review, headers={"Accept": only})
        assert refused.status == 406 and refused.json["reason"] == "NotAcceptable"
        made = await world.ask("POST", path, body=review, headers={"Accept": TABLE})
        assert made.status == 201 and made.json["spec"] == review["spec"]

    run(check)


def test_an_object_is_created_read_changed_listed_and_deleted() -> None:
    async def check(world: FrontWorld) -> None:
        made = await world.ask("POST", MAPS, body=CONFIG)
        assert made.status == 201
        assert made.json["metadata"]["namespace"] == "default"
        got = await world.ask("GET", f"{MAPS}/x")
        assert (got.status, got.json["data"]) == (200, {"k": "v"})
        patched = await world.ask(
            "PATCH", f"{MAPS}/x", body={"data": {"k": "w"}},
            headers={"Content-Type": "application/merge-patch+json"},
        )  # fmt: skip
        assert patched.json["data"] == {"k": "w"}
        replaced = await world.ask("PUT", f"{MAPS}/x", body=CONFIG)
        assert replaced.status == 200
        listed = await world.ask("GET", "/api/v1/configmaps?limit=500")
        assert listed.json["kind"] == "ConfigMapList"
        assert [i["metadata"]["name"] for i in listed.json["items"]] == ["x"]
        assert listed.json["metadata"]["resourceVersion"] == "3"
        gone = await world.ask("DELETE", f"{MAPS}/x?gracePeriodSeconds=0&propagationPolicy=Orphan")
        assert gone.status == 200
        assert world.endpoint.calls[-1][1].body == {
            "kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0,
            "propagationPolicy": "Orphan",
        }  # fmt: skip
        lost = await world.ask("GET", f"{MAPS}/x")
        assert lost.status == 404
        assert lost.json["reason"] == "NotFound"
        assert lost.json["message"] == 'configmaps "x" not found'

    run(check)


def test_calls_carry_what_the_request_said() -> None:
    async def check(world: FrontWorld) -> None:
        await world.ask(
            "GET", f"{MAPS}?labelSelector=a%3Db&fieldSelector=metadata.name%3Dx&limit=5",
            headers={"User-Agent": "kubectl/v1.37.0"},
        )  # fmt: skip
        user, call = world.endpoint.calls[-1]
        assert user.name == "system:serviceaccount:test:root"
        assert (call.verb, call.resource, call.namespace) == ("list", "configmaps", "default")
        assert call.options["labelSelector"] == "a=b"
        assert call.options["fieldSelector"] == "metadata.name=x"
        assert call.user_agent == "kubectl/v1.37.0"
        await world.ask("DELETE", MAPS)
        assert world.endpoint.calls[-1][1].verb == "deletecollection"

    run(check)


def test_yaml_bodies_and_answers() -> None:
    async def check(world: FrontWorld) -> None:
        text = yaml.safe_dump(CONFIG).encode()
        kind = {"Content-Type": "application/yaml", "Accept": "application/yaml"}
        made = await world.ask("POST", MAPS, body=text, headers=kind)
        assert made.status == 201
        assert made.header("content-type") == "application/yaml"
        assert yaml.safe_load(made.body)["data"] == {"k": "v"}
        bomb = b"a: &a [1]\nb: [*a, *a]\n"
        assert (await world.ask("POST", MAPS, body=bomb, headers=kind)).status == 400

    run(check)


@pytest.mark.parametrize(
    ("method", "target", "headers", "code", "part"),
    [
        ("POST", MAPS, {"Content-Type": "application/vnd.kubernetes.protobuf"}, 400, "magic bytes"),
        ("POST", MAPS, {"Content-Type": "text/html"}, 415, "application/yaml"),
        ("PATCH", f"{MAPS}/x", {"Content-Type": "application/apply-patch+cbor"}, 415,
         "application/apply-patch+yaml"),
        ("PATCH", f"{MAPS}/x", {"Content-Type": "application/json"}, 415, "strategic-merge"),
        ("GET", MAPS, {"Accept": "application/vnd.kubernetes.protobuf"}, 406, "application/json"),
        ("GET", MAPS, {"Accept": "text/html"}, 406, "application/json"),
        ("PUT", MAPS, {}, 405, "does not allow this method"),
        ("POST", f"{MAPS}/x", {}, 405, "does not allow this method"),
        ("POST", "/api/v1/configmaps", {}, 405, "does not allow this method"),
        ("OPTIONS", MAPS, {}, 405, "does not allow this method"),
        ("TRACE", MAPS, {}, 405, "does not allow this method"),
        ("GET", "/api/v1/configmaps/x", {}, 404, "could not find the requested resource"),
        ("GET", "/api/v1/namespaces/default/nodes", {}, 404, "could not find"),
        ("GET", "/api/v1/namespaces/default/pods/a/nothing", {}, 404, "could not find"),
        ("GET", "/apis/example.com/v1/things", {}, 404, "could not find"),
        ("GET", "/apis/apps/v1beta1/deployments", {}, 404, "could not find"),
        ("GET", "/nowhere", {}, 404, "could not find"),
        ("GET", f"{MAPS}?limit=ten", {}, 400, "invalid syntax"),
        ("GET", "/api/v1/pods?watch=1&timeoutSeconds=x", {}, 400, "invalid syntax"),
    ],
)  # fmt: skip
def test_refusals_are_statuses(
    method: str, target: str, headers: dict[str, str], code: int, part: str
) -> None:
    async def check(world: FrontWorld) -> None:
        body = CONFIG if method in ("POST", "PUT", "PATCH") else None
        answer = await world.ask(method, target, headers=headers, body=body)
        assert answer.status == code
        assert answer.json["kind"] == "Status"
        assert answer.json["code"] == code
        assert part in answer.json["message"]

    run(check)


def test_bodies_that_are_no_objects() -> None:
    async def check(world: FrontWorld) -> None:
        for body in (b"{", b"[]", b"3", b"", b"\xff\xfe"):
            answer = await world.ask("POST", MAPS, body=body)
            assert answer.status == 400, body
            assert "must be of type ConfigMap" in answer.json["message"]

    run(check)


def test_a_bug_is_an_internal_error_without_a_trace(caplog: Any) -> None:
    async def check(world: FrontWorld) -> None:
        world.endpoint.fail = RuntimeError("secret detail")
        answer = await world.ask("GET", MAPS)
        assert answer.status == 500
        assert answer.json["reason"] == "InternalError"
        assert b"secret" not in answer.body
        assert b"Traceback" not in answer.body
        assert (await world.ask("GET", "/livez")).status == 200

    run(check)
    assert "secret detail" in caplog.text


def test_warnings_and_retry_after_are_headers() -> None:
    async def check(world: FrontWorld) -> None:
        world.endpoint.warnings = ['unknown field "spec.x"', "line\nbreak", "line\nbreak"]
        answer = await world.ask("POST", MAPS, body=CONFIG)
        assert answer.headers["warning"] == [
            '299 - "unknown field \\"spec.x\\""',
            '299 - "line break"',
        ]
        world.endpoint.fail = too_many_requests("slow down", 7)
        answer = await world.ask("GET", MAPS)
        assert (answer.status, answer.header("retry-after")) == (429, "7")
        assert answer.json["details"]["retryAfterSeconds"] == 7

    run(check)


def test_tables() -> None:
    async def check(world: FrontWorld) -> None:
        world.pod("a")
        listed = (await world.ask("GET", "/api/v1/pods", headers={"Accept": TABLE})).json
        assert listed["kind"] == "Table"
        assert listed["apiVersion"] == "meta.k8s.io/v1"
        assert listed["metadata"] == {"resourceVersion": "1"}
        names = [c["name"] for c in listed["columnDefinitions"]]
        assert names[:5] == ["Name", "Ready", "Status", "Restarts", "Age"]
        assert listed["rows"][0]["cells"][0] == "a"
        assert listed["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
        target = "/api/v1/namespaces/default/pods/a?includeObject=Object"
        one = (await world.ask("GET", target, headers={"Accept": TABLE})).json
        assert one["rows"][0]["object"]["spec"]["nodeName"] == "n1"
        bare = await world.ask("GET", "/api/v1/pods?includeObject=None", headers={"Accept": TABLE})
        assert "object" not in bare.json["rows"][0]
        missing = await world.ask(
            "GET", "/api/v1/namespaces/default/pods/b", headers={"Accept": TABLE}
        )
        assert missing.json["kind"] == "Status"

    run(check)


def test_metadata_alone() -> None:
    async def check(world: FrontWorld) -> None:
        world.pod("a")
        accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
        listed = (await world.ask("GET", "/api/v1/pods", headers={"Accept": accept})).json
        assert listed["kind"] == "PartialObjectMetadataList"
        assert "spec" not in listed["items"][0]
        accept = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,"
        accept += "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
        one = await world.ask(
            "GET", "/api/v1/namespaces/default/pods/a", headers={"Accept": accept}
        )
        assert one.json["kind"] == "PartialObjectMetadata"
        assert one.json["metadata"]["name"] == "a"

    run(check)


def test_documents_health_and_metrics() -> None:
    async def check(world: FrontWorld) -> None:
        answer = await world.ask("GET", "/version")
        assert (answer.status, answer.header("etag")) == (200, '"tag"')
        same = await world.ask("GET", "/version", headers={"If-None-Match": '"tag"'})
        assert same.status == 304
        assert (await world.ask("GET", "/api")).json["path"] == "/api"
        paths = (await world.ask("GET", "/")).json["paths"]
        assert "/apis/apps/v1" in paths
        assert (await world.ask("GET", "/readyz")).body == b"ok"
        verbose = await world.ask("GET", "/readyz?verbose")
        assert verbose.body == b"[+]ping ok\n[+]etcd ok\nreadyz check passed\n"
        world.checks[:] = [("etcd", False, "")]
        failed = await world.ask("GET", "/readyz")
        assert failed.status == 500
        assert b"[-]etcd failed: reason withheld" in failed.body
        assert (await world.ask("GET", "/readyz?exclude=etcd")).status == 200
        assert (await world.ask("GET", "/livez")).status == 200
        assert (await world.ask("GET", "/readyz/etcd")).status == 500
        assert (await world.ask("GET", "/readyz/ping")).status == 200
        assert (await world.ask("GET", "/readyz/other")).status == 404
        text = (await world.ask("GET", "/metrics")).body.decode()
        assert "# TYPE apiserver_request_total counter" in text
        assert "process_resident_memory_bytes" in text

    run(check)


def test_head_has_no_body_and_keeps_the_connection() -> None:
    async def check(world: FrontWorld) -> None:
        wire = await world.connect()
        answer = await wire.ask("HEAD", "/livez")
        assert (answer.status, answer.body) == (200, b"")
        refused = await wire.ask("HEAD", "/api/v1/pods", headers=world.auth)
        assert refused.status == 405
        assert (await wire.ask("GET", "/livez")).body == b"ok"
        await wire.close()

    run(check)


def test_openid_documents() -> None:
    async def check(world: FrontWorld) -> None:
        answer = await world.ask("GET", "/.well-known/openid-configuration")
        assert answer.json["issuer"] == world.tokens.issuer
        keys = await world.ask("GET", "/openid/v1/jwks")
        assert keys.header("content-type") == "application/jwk-set+json"
        assert keys.json["keys"][0]["kid"] == world.tokens.key_id

    run(check)
