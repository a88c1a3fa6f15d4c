"""The proxy subresource: what reaches the pod, and what comes back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import orjson
import pytest

from sampan.api.errors import StatusError
from sampan.apiserver.proxying import pod_port, service_backends, split
from sampan.testing.fronts import FrontWorld, served

POD = "/api/v1/namespaces/default/pods/a"
SERVICE = "/api/v1/namespaces/default/services"


def run(check: Callable[[FrontWorld, list[bytes]], Awaitable[None]], answer: bytes = b"") -> None:
    async def inside() -> None:
        async with served() as world, backend(answer) as (port, heard):
            world.node.ports[80] = world.node.ports[8080] = port
            pod = world.pod()
            body = {**pod.body, "status": {"podIP": "10.42.0.9"}}
            world.endpoint.fake.put("pods", body)
            async with asyncio.timeout(20):
                await check(world, heard)

    asyncio.run(inside())


OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/x\r\nX-A: b\r\nContent-Length: 5\r\n\r\nhello"


@contextlib.asynccontextmanager
async def backend(answer: bytes) -> AsyncIterator[tuple[int, list[bytes]]]:
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        text = await reader.readuntil(b"\r\n\r\n")
        for line in text.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                text += await reader.readexactly(int(line.partition(b":")[2]))
        heard.append(text)
        writer.write(answer or OK)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield int(server.sockets[0].getsockname()[1]), heard


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_every_method_goes_on_with_path_query_and_body(method: str) -> None:
    async def check(world: FrontWorld, heard: list[bytes]) -> None:
        given: dict[str, Any] = {"body": {"k": 1}} if method in ("POST", "PUT", "PATCH") else {}
        answer = await world.ask(
            method, f"{POD}:8080/proxy/some/p%20th?limit=abc&x=1", headers={"X-Mine": "1"}, **given
        )
        assert answer.status == 200 and answer.body == b"hello"
        assert answer.headers["content-type"] == ["text/x"] and answer.headers["x-a"] == ["b"]
        head, _, body = heard[0].partition(b"\r\n\r\n")
        lines = head.decode().lower().split("\r\n")
        assert lines[0] == f"{method.lower()} /some/p%20th?limit=abc&x=1 http/1.1"
        assert "host: 10.42.0.9:8080" in lines and "x-mine: 1" in lines
        assert not any(line.startswith("authorization") for line in lines)
        assert body == (orjson.dumps({"k": 1}) if given else b"")

    run(check)


def test_a_head_has_no_body_and_an_empty_path_leads_to_the_slash() -> None:
    async def check(world: FrontWorld, heard: list[bytes]) -> None:
        answer = await world.ask("HEAD", f"{POD}/proxy/")
        assert answer.status == 200 and answer.body == b""
        answer = await world.ask("GET", f"{POD}/proxy?a=b")
        assert answer.status == 301 and answer.headers["location"] == [f"{POD}/proxy/?a=b"]
        assert len(heard) == 1
        assert (await world.ask("POST", f"{POD}/proxy", body={})).status == 200
        assert heard[1].startswith(b"POST / HTTP/1.1")

    run(check)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        b"HTTP/1.0 404 Not Found\r\n\r\nabcde",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nabcde",
    ],
)
def test_however_the_answer_is_framed(answer: bytes) -> None:
    async def check(world: FrontWorld, heard: list[bytes]) -> None:
        found = await world.ask("GET", f"{POD}/proxy/")
        assert found.status == 404 and found.body == b"abcde"

    run(check, answer)


def test_who_is_not_reached() -> None:
    async def check(world: FrontWorld, heard: list[bytes]) -> None:
        for target, code in (
            (f"{POD}:9/proxy/", 503), (f"{POD}:99999/proxy/", 400), (f"{POD}b/proxy/", 404),
            ("/api/v1/namespaces/default/pods/ftp:a:80/proxy/", 400), (f"{POD}/nothing/", 404),
            ("/api/v1/watch/namespaces/default/pods/a/proxy/", 404),
        ):  # fmt: skip
            assert (await world.ask("GET", target)).status == code, target
        world.node.ports[7] = world.node.ports[80]
        silent = await world.ask("GET", f"{POD}:9/proxy/")
        assert orjson.loads(silent.body)["message"].startswith("error trying to reach service: ")
        world.pod("b", node="")
        assert (await world.ask("GET", f"{POD[:-1]}b/proxy/")).status == 400
        assert heard == []

    run(check)


def test_a_service_leads_to_a_ready_pod_by_number_or_name_of_its_port() -> None:
    async def check(world: FrontWorld, heard: list[bytes]) -> None:
        meta = {"name": "s", "namespace": "default"}
        world.endpoint.fake.put("services", {
            "metadata": meta, "spec": {"ports": [{"name": "web", "port": 1000}]},
        })  # fmt: skip
        target = f"{SERVICE}/s:web/proxy/x"
        refused = await world.ask("GET", target)
        assert refused.status == 503
        assert orjson.loads(refused.body)["message"] == 'no endpoints available for service "s"'
        world.endpoint.fake.put("endpoints", {"metadata": meta, "subsets": [{
            "addresses": [{"ip": "10.42.0.9", "targetRef": {"kind": "Pod", "name": "a"}}],
            "ports": [{"name": "web", "port": 8080}],
        }]})  # fmt: skip
        for name in ("s:web", "s:1000", "http:s:web"):
            assert (await world.ask("GET", f"{SERVICE}/{name}/proxy/x")).body == b"hello"
            assert heard[-1].startswith(b"GET /x HTTP/1.1\r\nHost: 10.42.0.9:8080\r\n")
        refused = await world.ask("GET", f"{SERVICE}/s:7/proxy/")
        assert refused.status == 503
        assert orjson.loads(refused.body)["message"] == 'no service port 7 found for service "s"'

    run(check)


def test_identities() -> None:
    assert split("a", "pod") == ("", "a", "")
    assert split("a:80", "pod") == ("", "a", "80")
    assert split("https:a:web", "service") == ("https", "a", "web")
    for wrong in ("", ":80", "a:b:c", "http:a:80:x"):
        with pytest.raises(StatusError):
            split(wrong, "pod")


def test_ports() -> None:
    plain: dict[str, Any] = {"metadata": {"name": "a"}, "spec": {"containers": [{}]}}
    assert pod_port(plain, "", "") == 80 and pod_port(plain, "", "https") == 443
    two = [{}, {"ports": [{"containerPort": 7}]}]
    assert pod_port({**plain, "spec": {"containers": two}}, "", "") == 7
    assert pod_port(plain, "9", "") == 9
    service = {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}}
    subsets = [
        {"notReadyAddresses": [{"ip": "1.1.1.1"}], "ports": [{"port": 8}]},
        {"addresses": [{"ip": "1.1.1.2"}], "ports": [{"port": 8}, {"name": "x", "port": 9}]},
    ]
    for port in ("", "80"):
        assert service_backends(service, {"subsets": subsets}, port) == [({"ip": "1.1.1.2"}, 8)]
