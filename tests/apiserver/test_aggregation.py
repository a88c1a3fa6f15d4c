"""What goes on to another API server, byte for byte, and what becomes of its answers: a front, a
real endpoint over a memory store, and a server of a few lines on this machine's loopback."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from base64 import b64encode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest

from sampan.api.call import Call, User
from sampan.api.catalogue import builtin
from sampan.api.errors import StatusError
from sampan.api.obj import Key, encode
from sampan.apiserver.aggregation import Aggregation
from sampan.apiserver.api_services import RESOURCE, ApiService, ServiceRef
from sampan.apiserver.authz import Attributes
from sampan.apiserver.discovery import Documents, version_info
from sampan.apiserver.remote import head, loopback, user_headers
from sampan.apiserver.remote_discovery import RemoteDiscovery, discovered
from sampan.lib import tls
from sampan.schema.walk import Schemas
from sampan.store.base import Delete, Put
from sampan.store.memory import MemoryStore
from sampan.testing.fronts import FrontWorld

NOW = time.time()
CA = tls.new_authority("orchard", now=NOW)
PROXY_CA = tls.new_authority("front-proxy", now=NOW)
PROXY = tls.issue(PROXY_CA, "front-proxy-client", now=NOW)
OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/x\r\nX-A: b\r\nContent-Length: 5\r\n\r\nhello"
ROOT = "/apis/g.example/v1"
RESOURCES = {"kind": "APIResourceList", "groupVersion": "g.example/v1", "resources": [
    {"name": "fruits", "singularName": "fruit", "namespaced": True, "kind": "Fruit",
     "verbs": ["get", "list"], "shortNames": ["fr"]},
]}  # fmt: skip
Answer = Callable[[bytes, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[bytes]]


@dataclass
class Elsewhere:
    """Another API server: what it heard, and what it answers (by path, or *answer* for all)."""

    port: int = 0
    heard: list[bytes] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    answer: bytes = OK
    by_path: dict[str, bytes] = field(default_factory=dict)
    act: Answer | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            certificate: Any = writer.get_extra_info("peercert") or {}
            self.names += [v for rdn in certificate.get("subject", ()) for _, v in rdn]
            request = await reader.readuntil(b"\r\n\r\n")
            for line in request.split(b"\r\n"):
                if line.lower().startswith(b"content-length:"):
                    request += await reader.readexactly(int(line.split(b":")[1]))
            self.heard.append(request)
            path = request.split(b" ")[1].decode().partition("?")[0]
            if self.act is not None:
                await self.act(request, reader, writer)
            writer.write(self.by_path.get(path, self.answer))
            await writer.drain()
        writer.close()


def whole(body: Any, status: int = 200, kind: str = "application/json") -> bytes:
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    return b"HTTP/1.1 %d X\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b" % (
        status, kind.encode(), len(data), data,
    )  # fmt: skip


class Both:
    """A front with the aggregation layer, and the other server behind it."""

    def __init__(self, world: FrontWorld, there: Elsewhere, tmp: Path) -> None:
        self.world, self.there, self.tmp = world, there, tmp
        self.store = MemoryStore()
        self.aggregation = Aggregation(builtin(), self.store, identity=PROXY)
        world.front._aggregation = self.aggregation
        self.documents = Documents(builtin(), Schemas.load(), version=version_info())
        self.documents.follow(self.aggregation)
        world.front._documents = self.documents

    async def register(
        self, *, available: bool = True, group: str = "g.example", version: str = "v1", **spec: Any
    ) -> None:
        name = f"{version}.{group}"
        given = {
            "group": group, "version": version, "groupPriorityMinimum": 1000, "versionPriority": 10,
            "service": {"namespace": "n", "name": "s", "port": self.there.port},
            "caBundle": b64encode(CA.certificate).decode(), **spec,
        }  # fmt: skip
        status = {"conditions": [{"type": "Available", "status": str(available)}]}
        body = {"metadata": {"name": name}, "spec": given, "status": status}
        before = self.aggregation.services.revision
        await self.store.commit(Put(Key(RESOURCE, "", name).path, encode(body)))
        while self.aggregation.services.revision == before:
            await asyncio.sleep(0)

    async def service(self, **spec: Any) -> None:
        given = {"type": "ExternalName", "externalName": "localhost", **spec}
        body = {"metadata": {"name": "s", "namespace": "n"}, "spec": given}
        await self.store.commit(Put(Key("services", "n", "s").path, encode(body)))


def run(check: Callable[[Both], Awaitable[None]], tmp: Path, *, hosts: str = "s.n.svc") -> None:
    pair = tls.issue(CA, "s", now=NOW, hosts=[hosts])
    (tmp / "crt").write_bytes(pair.certificate + pair.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp / "crt")
    context.load_verify_locations(cadata=PROXY_CA.certificate.decode())
    context.verify_mode = ssl.CERT_REQUIRED

    async def main() -> None:
        there = Elsewhere()
        server = await asyncio.start_server(there.serve, "127.0.0.1", 0, ssl=context)
        there.port = server.sockets[0].getsockname()[1]
        world = FrontWorld()
        both = Both(world, there, tmp)
        services = both.aggregation.services
        await services.register(both.store, uid=lambda: "u", at="2026-01-01T00:00:00Z")
        await both.aggregation.start()
        await both.service()
        world.port = await world.front.listen("127.0.0.1", 0)
        try:
            async with asyncio.timeout(30):
                await check(both)
        finally:
            await world.front.close()
            await both.aggregation.stop()
            server.close()

    asyncio.run(main())


def lines(request: bytes) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in request.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]:
        name, _, value = line.partition(": ")
        found.setdefault(name.lower(), []).append(value)
    return found


# ---- requests ----------------------------------------------------------------------------------


def test_a_request_goes_on_as_it_came_and_says_who_asks(tmp_path: Path) -> None:
    async def check(both: Both) -> None:
        await both.register()
        target = f"{ROOT}/namespaces/a/fruits?labelSelector=x%3Dy&limit=5"
        answer = await both.world.ask(
            "POST", target, body=b'{"a":1}',
            headers={
                "X-Own": "1", "Accept": "application/json", "X-Remote-User": "root",
                "X-Remote-Group": "system:masters", "X-Remote-Extra-Key": "v", "X-Remote-Uid": "0",
            },
        )  # fmt: skip
        assert (answer.status, answer.body) == (200, b"hello")
        assert (answer.header("content-type"), answer.header("x-a")) == ("text/x", "b")
        (request,) = both.there.heard
        assert request.startswith(b"POST " + target.encode() + b" HTTP/1.1\r\n")
        assert request.endswith(b'\r\n\r\n{"a":1}')
        found = lines(request)
        assert found["host"] == [f"localhost:{both.there.port}"]
        assert (found["x-own"], found["accept"]) == (["1"], ["application/json"])
        assert found["x-remote-user"] == ["system:serviceaccount:test:root"]
        assert found["x-remote-group"] == [
            "system:serviceaccounts", "system:serviceaccounts:test", "system:authenticated",
        ]  # fmt: skip
        assert found["x-remote-uid"] == ["u"]
        assert "authorization" not in found and "x-remote-extra-key" not in found
        extra = "x-remote-extra-authentication.kubernetes.io%2fcredential-id"
        assert found[extra][0].startswith("JTI=")
        assert found["x-forwarded-for"] == ["127.0.0.1"]
        assert both.there.names == ["front-proxy-client"]

    run(check, tmp_path)


def test_who_has_no_right_gets_no_further(tmp_path: Path) -> None:
    async def check(both: Both) -> None:
        await both.register()
        wire = await both.world.connect()
        answer = await wire.ask("GET", f"{ROOT}/namespaces/a/fruits/x")
        assert answer.status == 403
        assert answer.json["message"] == (
            'fruits.g.example "x" is forbidden: User "system:anonymous" cannot get resource '
            '"fruits" in API group "g.example" in the namespace "a"'
        )
        assert (await wire.ask("GET", ROOT)).status == 403
        await wire.close()
        assert both.there.heard == []

    run(check, tmp_path)


def test_what_is_answered_in_pieces_comes_in_pieces(tmp_path: Path) -> None:
    async def check(both: Both) -> None:
        going_on = asyncio.Event()

        async def act(
            _request: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> bytes:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                         b"Transfer-Encoding: chunked\r\n\r\n5\r\n{'a'}\r\n")  # fmt: skip
            await going_on.wait()
            writer.write(b"5\r\n{'b'}\r\n0\r\n\r\n")
            return b""

        both.there.act, both.there.answer = act, b""
        await both.register()
        wire = await both.world.connect()
        wire.send("GET", f"{ROOT}/fruits?watch=true", headers=both.world.auth)
        assert (await wire.head()).status == 200
        seen = []
        async for piece in wire.chunks():
            seen.append(piece)
            going_on.set()
        assert b"".join(seen) == b"{'a'}{'b'}"
        await wire.close()

    run(check, tmp_path)


def test_a_connection_that_is_upgraded_goes_both_ways(tmp_path: Path) -> None:
    async def check(both: Both) -> None:
        async def act(
            request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> bytes:
            assert lines(request)["upgrade"] == ["echo/1"]
            assert lines(request)["connection"] == ["Upgrade"]
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
                         b"Upgrade: echo/1\r\n\r\nhi ")  # fmt: skip
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            return b""

        both.there.act, both.there.answer = act, b""
        await both.register()
        reader, writer = await asyncio.open_connection("127.0.0.1", both.world.port)
        upgrade = [("Connection", "Upgrade"), ("Upgrade", "echo/1"), *both.world.auth.items()]
        path = f"{ROOT}/namespaces/a/fruits/x/echo"
        writer.write(head("GET", path, "h", upgrade, None) + b"early ")
        assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(9) == b"hi early "
        large = b"x" * 3_000_000
        writer.write(large)
        assert await reader.readexactly(len(large)) == large
        writer.close()

    run(check, tmp_path)


def test_an_upgrade_that_is_refused_is_an_answer(tmp_path: Path) -> None:
    async def check(both: Both) -> None:
        both.there.answer = whole({"kind": "Status", "code": 404}, 404)
        await both.register()
        answer = await both.world.ask(
            "GET", f"{ROOT}/fruits", headers={"Connection": "Upgrade", "Upgrade": "echo/1"}
        )
        assert (answer.status, answer.json) == (404, {"kind": "Status", "code": 404})

    run(check, tmp_path)


def test_head_and_redirects_are_answers_too(tmp_path: Path) -> None:
    async def check(both: Both) -> None:
        both.there.answer = b"HTTP/1.1 302 Found\r\nLocation: /there\r\nContent-Length: 9\r\n\r\n"
        await both.register()
        wire = await both.world.connect()
        wire.send("HEAD", f"{ROOT}/fruits", headers=both.world.auth)
        answer = await wire.read(is_head=True)
        assert (answer.status, answer.header("location")) == (302, "/there")
        assert both.there.heard[0].startswith(b"HEAD ")
        await wire.close()

    run(check, tmp_path)


# ---- failures ----------------------------------------------------------------------------------


async def failure(both: Both) -> tuple[int, str, str]:
    answer = await both.world.ask("GET", f"{ROOT}/fruits")
    return answer.status, answer.header("content-type"), answer.body.decode()


PLAIN = "text/plain; charset=utf-8"


def test_one_that_is_not_available_is_not_asked(tmp_path: Path) -> None:
    async def check(both: Both) -> None:
        await both.register(available=False)
        assert await failure(both) == (503, PLAIN, "service unavailable\n")
        assert both.there.heard == []

    run(check, tmp_path)


@pytest.mark.parametrize(
    "spec",
    [
        {"type": "ClusterIP", "clusterIP": "None"},
        {"type": "ClusterIP", "clusterIP": "127.0.0.1", "ports": [{"port": 1}]},
    ],
)
def test_a_service_that_leads_nowhere(spec: dict[str, Any], tmp_path: Path) -> None:
    async def check(both: Both) -> None:
        await both.service(**spec)
        await both.register()
        assert await failure(both) == (503, PLAIN, "service unavailable\n")
        await both.store.commit(Delete(Key("services", "n", "s").path))
        assert await failure(both) == (503, PLAIN, "service unavailable\n")

    run(check, tmp_path)


def test_a_service_by_its_address(tmp_path: Path) -> None:
    async def check(both: Both) -> None:
        ports = [{"port": 80}, {"port": both.there.port}]
        await both.service(type="ClusterIP", clusterIP="127.0.0.1", ports=ports)
        await both.register()
        assert (await failure(both))[0] == 200

    run(check, tmp_path)


def test_a_certificate_for_another_name_is_refused(tmp_path: Path) -> None:
    async def check(both: Both) -> None:
        await both.register()
        status, kind, text = await failure(both)
        assert (status, kind) == (503, PLAIN)
        start = "error trying to reach service: tls: failed to verify certificate: x509: "
        assert text.startswith(start)
        await both.register(caBundle="", insecureSkipTLSVerify=True)
        assert (await failure(both))[0] == 200
        await both.register(caBundle=b64encode(PROXY_CA.certificate).decode())
        assert (await failure(both))[2] == f"{start}certificate signed by unknown authority\n"
        await both.register(caBundle=b64encode(b"no PEM").decode())
        assert "unable to load root certificates" in (await failure(both))[2]

    run(check, tmp_path, hosts="other.n.svc")


def test_nobody_there(tmp_path: Path) -> None:
    async def check(both: Both) -> None:
        await both.register(service={"namespace": "n", "name": "s", "port": 1})
        assert await failure(both) == (
            503, PLAIN,
            "error trying to reach service: dial tcp localhost:1: connect: connection refused\n",
        )  # fmt: skip

    run(check, tmp_path)


def test_one_that_says_nothing(tmp_path: Path) -> None:
    async def check(both: Both) -> None:
        both.there.answer = b""
        await both.register()
        assert await failure(both) == (503, PLAIN, "error trying to reach service: EOF\n")

    run(check, tmp_path)


def test_addresses_of_a_network_that_is_not_here_are_never_sent_to() -> None:
    for host in ("10.43.0.1", "example.com", "8.8.8.8"):
        with pytest.raises(OSError, match="unreachable"):
            asyncio.run(loopback(host, 443, 1.0))


# ---- calls of components -----------------------------------------------------------------------


def test_the_path_and_the_rights_of_a_call(tmp_path: Path) -> None:
    async def check(both: Both) -> None:
        await both.register(group="custom.metrics.k8s.io", version="v1beta1")
        await both.register(group="custom.metrics.k8s.io", version="v1beta2", versionPriority=200)
        both.there.answer = whole({"kind": "MetricValueList", "items": []})
        call = Call(
            verb="get", resource="pods.custom.metrics.k8s.io", namespace="a", name="*",
            subresource="hits/s", options={"labelSelector": "app=web,x in (a)", "empty": ""},
        )  # fmt: skip
        found = both.aggregation.of_call(call)
        assert found is not None
        api, asked = found
        assert asked == Attributes(
            verb="get", resource="pods", group="custom.metrics.k8s.io", version="v1beta2",
            subresource="hits/s", namespace="a", name="*",
        )  # fmt: skip
        answer = await both.aggregation.handle(User("hpa", ("g",)), call, api, asked)
        assert answer.body["kind"] == "MetricValueList"
        assert both.there.heard[0].startswith(
            b"GET /apis/custom.metrics.k8s.io/v1beta2/namespaces/a/pods/*/hits%2Fs?"
            b"labelSelector=app%3Dweb%2Cx+in+%28a%29 HTTP/1.1\r\n"
        )
        assert lines(both.there.heard[0])["x-remote-user"] == ["hpa"]
        call.version = "v1beta1"
        older = both.aggregation.of_call(call)
        assert older is not None and older[0].version == "v1beta1"
        dotted = Call(verb="list", resource="queue.length.custom.metrics.k8s.io")
        there = both.aggregation.of_call(dotted)
        assert there is not None and there[1].resource == "queue.length"
        assert both.aggregation.of_call(Call(verb="list", resource="pods")) is None
        await both.register(group="metrics.k8s.io", version="v1beta1", groupPriorityMinimum=9000)
        call.version = ""
        for given, group in ((call, "custom.metrics.k8s.io"), (dotted, "custom.metrics.k8s.io"),
                             (Call(verb="list", resource="pods.metrics.k8s.io"),
                              "metrics.k8s.io")):  # fmt: skip
            one = both.aggregation.of_call(given)
            assert one is not None and one[0].group == one[1].group == group

    run(check, tmp_path)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (whole({"kind": "Status", "message": "no such metric", "reason": "NotFound",
                "code": 404}, 404), (404, "NotFound", "no such metric")),
        (whole(b"oops", 404, "text/plain"),
         (404, "NotFound", "the server could not find the requested resource (get fruits.g.example "
                           "x)")),
        (whole(b'bad "thing"', 500, "text/plain"),
         (500, "InternalError", r'an error on the server ("bad \"thing\"") has prevented the '
                                "request from succeeding (get fruits.g.example x)")),
        (whole(b"no", 418, "text/plain"),
         (418, "Unknown", "the server responded with the status code 418 but did not return more "
                          "information (get fruits.g.example x)")),
        (whole(b"no JSON"),
         (500, "InternalError", 'an error on the server ("no JSON") has prevented the request from '
                                "succeeding (get fruits.g.example x)")),
        (b"", (503, "ServiceUnavailable", "the server is currently unable to handle the request "
                                          "(get fruits.g.example x)")),
    ],
)  # fmt: skip
def test_failures_of_a_call(answer: bytes, expected: tuple[int, str, str], tmp_path: Path) -> None:
    async def check(both: Both) -> None:
        both.there.answer = answer
        await both.register()
        call = Call(verb="get", resource="fruits.g.example", namespace="a", name="x")
        found = both.aggregation.of_call(call)
        assert found is not None
        with pytest.raises(StatusError) as refused:
            await both.aggregation.handle(User("u"), call, *found)
        e = refused.value
        assert (e.code, e.reason, e.message) == expected

    run(check, tmp_path)


# ---- availability ------------------------------------------------------------------------------


def test_one_success_of_a_few_attempts_is_enough(tmp_path: Path) -> None:
    async def check(both: Both) -> None:
        await both.register(available=False)
        assert await both.aggregation.check("v1.g.example") == ""
        assert lines(both.there.heard[0])["x-remote-user"] == ["system:kube-aggregator"]
        assert lines(both.there.heard[0])["x-remote-group"] == ["system:masters"]
        tries = 0

        async def act(
            _request: bytes, _reader: asyncio.StreamReader, _writer: asyncio.StreamWriter
        ) -> bytes:
            nonlocal tries
            tries += 1
            both.there.answer = whole(b"", 200 if tries == 3 else 503)
            return b""

        both.there.act = act
        assert await both.aggregation.check("v1.g.example") == ""
        both.there.act, both.there.answer = None, whole(b"", 300)
        url = f"https://localhost:{both.there.port}{ROOT}"
        assert await both.aggregation.check("v1.g.example") == (
            f"failing or missing response from {url}: bad status from {url}: 300"
        )
        await both.service(type="ClusterIP", clusterIP="None")
        assert await both.aggregation.check("v1.g.example") == (
            'cannot route to service with ClusterIP "None"'
        )
        assert await both.aggregation.check("v1.apps") == ""

    run(check, tmp_path)


# ---- discovery ---------------------------------------------------------------------------------

V2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


async def groups(both: Both) -> dict[str, Any]:
    answer = await both.world.ask("GET", "/apis", headers={"Accept": V2})
    return {i["metadata"]["name"]: i["versions"] for i in answer.json["items"]}


def test_discovery_has_both_worlds_in_one_order(tmp_path: Path) -> None:
    async def check(both: Both) -> None:
        both.there.by_path[ROOT] = whole(RESOURCES)
        before = await groups(both)
        assert "g.example" not in before and next(iter(before)) == "apiregistration.k8s.io"
        await both.register(groupPriorityMinimum=17750)
        found = await groups(both)
        assert [*found][1:4] == ["apps", "events.k8s.io", "g.example"]
        assert found["g.example"] == [{
            "version": "v1", "freshness": "Current", "resources": [{
                "resource": "fruits", "scope": "Namespaced", "verbs": ["get", "list"],
                "responseKind": {"group": "", "version": "", "kind": "Fruit"},
                "singularResource": "fruit", "shortNames": ["fr"],
            }],
        }]  # fmt: skip
        plain = (await both.world.ask("GET", "/apis")).json
        listed = {g["name"]: g for g in plain["groups"]}
        assert [*listed] == [*found]
        version = {"groupVersion": "g.example/v1", "version": "v1"}
        alone = (await both.world.ask("GET", "/apis/g.example")).json
        assert alone == {
            "kind": "APIGroup", "apiVersion": "v1", "name": "g.example", "versions": [version],
            "preferredVersion": version,
        }  # fmt: skip
        assert (await both.world.ask("GET", ROOT)).json == RESOURCES
        asked = len(both.there.heard)
        await groups(both)
        assert len(both.there.heard) == asked  # kept for a minute

    run(check, tmp_path)


def test_a_server_that_is_gone_is_stale_and_a_group_taken_over_is_theirs(tmp_path: Path) -> None:
    async def check(both: Both) -> None:
        await both.register(available=False)
        assert (await groups(both))["g.example"] == [{"version": "v1", "freshness": "Stale"}]
        metrics = {**RESOURCES, "resources": [
            {"name": "pods", "singularName": "pod", "namespaced": True, "kind": "PodMetrics",
             "verbs": ["get"]}]}  # fmt: skip
        path = "/apis/metrics.k8s.io/v1beta1"
        both.there.by_path[path] = whole(metrics)
        await both.register(group="metrics.k8s.io", version="v1beta1")
        (version,) = (await groups(both))["metrics.k8s.io"]
        assert [r["resource"] for r in version["resources"]] == ["pods"]
        answer = await both.world.ask("GET", f"{path}/nodes")
        assert answer.body == b"hello"  # theirs, although there is one here
        await both.store.commit(Delete(Key(RESOURCE, "", "v1beta1.metrics.k8s.io").path))
        while both.aggregation.services.remote("metrics.k8s.io", "v1beta1") is not None:
            await asyncio.sleep(0)
        assert "metrics.k8s.io" not in await groups(both)

    run(check, tmp_path)


def test_subresources_go_inside_of_their_resources() -> None:
    def entry(name: str, kind: str = "K") -> dict[str, Any]:
        return {"name": name, "namespaced": True, "kind": kind, "verbs": ["get"], "group": "x"}

    kind = {"group": "x", "version": "", "kind": "K"}
    sub = {"subresource": "hits", "responseKind": kind, "verbs": ["get"]}
    assert discovered([entry("pods/hits"), entry("jobs"), entry("jobs/hits")]) == [
        {"resource": "pods", "scope": "Namespaced", "verbs": [], "subresources": [sub]},
        {"resource": "jobs", "scope": "Namespaced", "verbs": ["get"], "responseKind": kind,
         "singularResource": "", "subresources": [sub]},
    ]  # fmt: skip


def test_openapi_of_both(tmp_path: Path) -> None:
    async def check(both: Both) -> None:
        paths = {"apis/g.example/v1": {"serverRelativeURL": f"/openapi/v3{ROOT}?hash=1"},
                 "apis/apps/v1": {"serverRelativeURL": "/mine"}}  # fmt: skip
        both.there.by_path |= {
            "/openapi/v3": whole({"paths": paths}),
            f"/openapi/v3{ROOT}": whole({"openapi": "3.0.0"}),
            "/openapi/v2": whole({
                "paths": {f"{ROOT}/fruits": {"get": {}}, "/apis/apps/v1/deployments": {"mine": 1}},
                "definitions": {"Fruit": {"type": "object"}},
            }),
        }  # fmt: skip
        await both.register()
        index = (await both.world.ask("GET", "/openapi/v3")).json["paths"]
        assert index["apis/g.example/v1"] == paths["apis/g.example/v1"]
        assert index["apis/apps/v1"] != paths["apis/apps/v1"]
        there = await both.world.ask("GET", f"/openapi/v3{ROOT}?hash=1")
        assert there.json == {"openapi": "3.0.0"}
        assert b"?hash=1 HTTP" in both.there.heard[-1]
        v2 = (await both.world.ask("GET", "/openapi/v2")).json
        assert v2["paths"][f"{ROOT}/fruits"] == {"get": {}}
        assert v2["definitions"]["Fruit"] == {"type": "object"}
        assert "mine" not in v2["paths"]["/apis/apps/v1/deployments"]

    run(check, tmp_path)


def test_answers_are_kept_until_they_are_old_or_the_apiservice_changes() -> None:
    now = [0.0]
    asked: list[str] = []
    api = [ApiService("g", "v1", 1, 1, ServiceRef("n", "s", 1))]

    class Services:
        has_remote = True

        def remotes(self) -> list[ApiService]:
            return api

    discovery = RemoteDiscovery(Services(), None, now=lambda: now[0])  # type: ignore[arg-type]
    answers: list[Any] = [{"resources": []}]

    async def ask(_api: ApiService, path: str) -> Any:
        asked.append(path)
        return answers[0]

    discovery._ask = ask  # type: ignore[method-assign]

    def prepare(at: float) -> int:
        now[0] = at
        asyncio.run(discovery.prepare("/apis"))
        return len(asked)

    assert [prepare(t) for t in (0, 59, 61)] == [1, 1, 2]
    assert discovery.revision == 1
    answers[0] = None
    assert [prepare(t) for t in (130, 134, 136)] == [3, 3, 4]
    assert discovery.revision == 2 and discovery.resources(api[0]) is None
    api[0] = ApiService("g", "v1", 1, 2, ServiceRef("n", "s", 1))
    assert prepare(136) == 5


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        (User("a"), [("X-Remote-User", "a")]),
        (User("a", ("g", "h"), uid="1", extra={"k/ü": ("v", "w")}), [
            ("X-Remote-User", "a"), ("X-Remote-Uid", "1"), ("X-Remote-Group", "g"),
            ("X-Remote-Group", "h"), ("X-Remote-Extra-k%2F%C3%BC", "v"),
            ("X-Remote-Extra-k%2F%C3%BC", "w")]),
    ],
)  # fmt: skip
def test_headers_that_name_a_user(user: User, expected: list[tuple[str, str]]) -> None:
    assert user_headers(user) == expected


def test_a_header_is_one_line() -> None:
    assert head("GET", "/", "h", [("A", "b\r\nC: d")], None) == (
        b"GET / HTTP/1.1\r\nHost: h\r\nA: b  C: d\r\n\r\n"
    )
