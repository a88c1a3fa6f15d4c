"""exec, attach and logs over the wire."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest

from sampan.api.errors import StatusError, bad_request
from sampan.apiserver import websocket
from sampan.testing.fronts import FrontWorld, served
from sampan.testing.wire import Answer, WebSocketClient

POD = "/api/v1/namespaces/default/pods/a"
EXEC = f"{POD}/exec?command=echo&command=hi&stdout=true&stderr=true"


def run(check: Callable[[FrontWorld], Awaitable[None]]) -> None:
    async def inside() -> None:
        async with served() as world:
            await check(world)

    asyncio.run(asyncio.wait_for(inside(), 30))


async def session(world: FrontWorld, target: str, **options: Any) -> WebSocketClient:
    found = await WebSocketClient.open(await world.connect(), target, headers=world.auth, **options)
    assert isinstance(found, WebSocketClient), found
    return found


async def refused(world: FrontWorld, target: str, **options: Any) -> Answer:
    found = await WebSocketClient.open(await world.connect(), target, headers=world.auth, **options)
    assert isinstance(found, Answer)
    return found


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("protocol", ["v5.channel.k8s.io", "v4.channel.k8s.io"])
def test_exec_runs_and_reports_its_exit(method: str, protocol: str) -> None:
    async def check(world: FrontWorld) -> None:
        world.pod("a")
        world.node.output, world.node.code = b"hi\n", 3
        client = await session(world, EXEC, method=method, protocols=f"v9.x, {protocol}")
        assert client.protocol == protocol
        out, code = await client.all()
        assert code == websocket.NORMAL
        assert out[1] == b"hi\n"
        status = orjson.loads(out[3])
        assert status["reason"] == "NonZeroExitCode"
        assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]
        assert world.node.asked == [{"container": "c", "command": ["echo", "hi"], "tty": False}]

    run(check)


def test_the_first_message_leaves_the_client_time_to_know_its_channels() -> None:
    async def check(world: FrontWorld) -> None:
        world.pod("a")
        world.node.output = b"at once"
        client = await session(world, EXEC)
        begun = asyncio.get_running_loop().time()
        assert await client.message() is not None
        assert asyncio.get_running_loop().time() - begun > 0.01

    run(check)


def test_input_resize_ping_and_closing_a_channel() -> None:
    async def check(world: FrontWorld) -> None:
        world.pod("a")
        client = await session(world, EXEC + "&stdin=true&tty=true")
        client.send(0, b"one")
        client.send(4, b'{"Width":80,"Height":24}')
        client.send(4, b"nonsense")
        client.frame(websocket.PING, b"are you there")
        client.send(0, b"two")
        client.send(255, b"\x00")
        found = b""
        pong = b""
        status: Any = None
        while (message := await client.message()) is not None:
            if message.opcode == websocket.PONG:
                pong = message.data
            elif message.opcode == websocket.BINARY and message.data[0] == 1:
                found += message.data[1:]
            elif message.opcode == websocket.BINARY and message.data[0] == 3:
                status = orjson.loads(message.data[1:])
            elif message.opcode == websocket.CLOSE:
                break
        assert found == b"onetwo"
        assert pong == b"are you there"
        assert status == {"metadata": {}, "status": "Success"}
        assert world.node.sessions[0].sizes == [(80, 24)]

    run(check)


def test_a_client_that_goes_ends_the_process() -> None:
    async def check(world: FrontWorld) -> None:
        world.pod("a")
        client = await session(world, EXEC + "&stdin=true")
        while not world.node.sessions:
            await asyncio.sleep(0.01)
        await client.wire.close()
        assert await world.node.sessions[0].wait() == 137

    run(check)


def test_attach() -> None:
    async def check(world: FrontWorld) -> None:
        world.pod("a")
        world.node.output, world.node.code = b"out", 5
        client = await session(world, f"{POD}/attach?stdout=true")
        out, _ = await client.all()
        assert out[1] == b"out"
        assert orjson.loads(out[3])["status"] == "Success"

    run(check)


def test_a_failing_start_is_told_on_the_error_channel() -> None:
    async def check(world: FrontWorld) -> None:
        world.pod("a")
        world.node.fail = StatusError(500, "InternalError", "no such file")
        out, _ = await (await session(world, EXEC)).all()
        assert orjson.loads(out[3])["message"] == "no such file"
        world.node.fail = StatusError(
            500, "InternalError", 'unable to upgrade connection: container not found ("c")'
        )
        assert (await refused(world, EXEC)).status == 500

    run(check)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (f"{POD}/exec?stdout=true", "you must specify at least 1 command for the container"),
        (f"{POD}/exec?command=x", "you must specify at least 1 of stdin, stdout, stderr"),
        (EXEC + "&container=zz", "container zz is not valid for pod a"),
        (
            EXEC.replace("pods/a", "pods/two"),
            "a container name must be specified for pod two, choose one of: [x y] "
            "or one of the init containers: [i]",
        ),
        (EXEC.replace("pods/a", "pods/waiting"), "pod waiting does not have a host assigned"),
        (
            EXEC.replace("pods/a", "pods/over"),
            "cannot exec into a container in a completed pod; current phase is Succeeded",
        ),
        (EXEC.replace("pods/a", "pods/lost"), "node n2 of pod lost cannot be reached"),
        (EXEC.replace("pods/a", "pods/none"), 'pods "none" not found'),
    ],
)
def test_refusals_in_upstreams_words(target: str, message: str) -> None:
    async def check(world: FrontWorld) -> None:
        world.pod("a")
        two = [{"name": "x"}, {"name": "y"}]
        world.pod("two", containers=two, initContainers=[{"name": "i"}])
        world.pod("waiting", node="")
        world.pod("lost", node="n2")
        over = world.pod("over")
        world.endpoint.fake.put("pods", {**over.body, "status": {"phase": "Succeeded"}})
        answer = await refused(world, target)
        assert answer.json["message"] == message

    run(check)


def test_what_is_no_websocket_of_ours() -> None:
    async def check(world: FrontWorld) -> None:
        world.pod("a")
        answer = await refused(world, EXEC, protocols="v3.channel.k8s.io")
        assert (answer.status, "subprotocols" in answer.json["message"]) == (400, True)
        spdy = {"Upgrade": "SPDY/3.1", "Connection": "Upgrade"}
        answer = await world.ask("POST", EXEC, headers=spdy)
        assert answer.status == 403
        assert "unable to negotiate protocol" in answer.json["message"]
        answer = await world.ask("GET", EXEC)
        assert answer.json["message"] == "Upgrade request required"
        assert (await world.ask("PUT", EXEC, body={})).status == 405

    run(check)


def test_a_session_by_get_needs_create() -> None:
    async def check(world: FrontWorld) -> None:
        world.pod("a")
        reader = {"kind": "ClusterRole", "metadata": {"name": "peek"}, "rules": [
            {"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["get"]}]}  # fmt: skip
        world.authorizer.load([reader])
        world.grant("peek", {"kind": "ServiceAccount", "namespace": "default", "name": "sa"})
        token = world.tokens.issue(namespace="default", name="sa", uid="u").token
        found = await WebSocketClient.open(
            await world.connect(), EXEC, headers={"Authorization": f"Bearer {token}"}
        )
        assert isinstance(found, Answer)
        assert found.status == 403
        assert 'cannot create resource "pods/exec"' in found.json["message"]

    run(check)


def test_protocol_errors_close_the_session() -> None:
    async def check(world: FrontWorld) -> None:
        world.pod("a")
        client = await session(world, EXEC + "&stdin=true")
        client.wire.raw(websocket.frame(websocket.BINARY, b"\x00unmasked"))
        _, code = await client.all()
        assert code == websocket.PROTOCOL_ERROR

    run(check)


def test_logs() -> None:
    async def check(world: FrontWorld) -> None:
        world.pod("a")
        world.pod("waiting", node="")
        world.node.lines = [b"one\n", b"two\n"]
        answer = await world.ask("GET", f"{POD}/log?follow=1&tailLines=5")
        assert (answer.status, answer.body) == (200, b"one\ntwo\n")
        assert answer.header("content-type") == "text/plain"
        assert world.node.asked == [{"container": "c", "follow": "true", "tailLines": "5"}]
        empty = await world.ask("GET", f"{POD.replace('pods/a', 'pods/waiting')}/log")
        assert (empty.status, empty.body) == (204, b"")
        text = 'container "c" in pod "a" is waiting to start: ContainerCreating'
        world.node.fail = bad_request(text)
        answer = await world.ask("GET", f"{POD}/log")
        assert (answer.status, answer.json["message"]) == (400, text)
        bad = await world.ask("GET", f"{POD}/log?tailLines=-1")
        assert bad.status == 422
        assert bad.json["details"]["causes"][0]["field"] == "tailLines"
        both = await world.ask("GET", f"{POD}/log?sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z")
        assert both.status == 422

    run(check)


@pytest.mark.parametrize("protocol", ["channel.k8s.io", ""])
def test_the_first_channel_protocols_tell_only_failures(protocol: str) -> None:
    async def check(world: FrontWorld) -> None:
        world.pod("a")
        world.node.output, world.node.code = b"hi\n", 0
        client = await session(world, EXEC, protocols=protocol)
        assert client.protocol == protocol
        assert (await client.all())[0] == {1: b"hi\n"}
        world.node.code = 7
        out, _ = await (await session(world, EXEC, protocols=protocol)).all()
        assert out[3] == b"command terminated with non-zero exit code: exit status 7"

    run(check)


@pytest.mark.parametrize("protocol", ["v4.base64.channel.k8s.io", "base64.channel.k8s.io"])
def test_base64_channels(protocol: str) -> None:
    async def check(world: FrontWorld) -> None:
        world.pod("a")
        client = await session(world, EXEC + "&stdin=true", protocols=protocol)
        client.frame(websocket.TEXT, b"0" + base64.b64encode(b"one"))
        client.frame(websocket.TEXT, b"0not base64!")
        client.frame(websocket.TEXT, b"0" + base64.b64encode(b"two"))
        found = b""
        while found != b"onetwo":
            message = await client.message()
            assert message is not None and message.opcode == websocket.TEXT
            assert message.data[:1] == b"1"
            found += base64.b64decode(message.data[1:])

    run(check)


@pytest.mark.parametrize("protocol", ["binary.k8s.io", "base64.binary.k8s.io", ""])
def test_logs_over_a_websocket(protocol: str) -> None:
    async def check(world: FrontWorld) -> None:
        world.pod("a")
        world.node.lines = [b"one\n", b"two\n"]
        client = await session(world, f"{POD}/log?follow=1", protocols=protocol)
        assert client.protocol == protocol
        found = b""
        while (message := await client.message()) is not None:
            if message.opcode == websocket.CLOSE:
                break
            is_text = message.opcode == websocket.TEXT
            assert is_text == protocol.startswith("base64")
            found += base64.b64decode(message.data) if is_text else message.data
        assert found == b"one\ntwo\n"
        assert (await refused(world, f"{POD}/log", protocols="v5.channel.k8s.io")).status == 400
        world.node.fail = bad_request("not yet")
        assert (await refused(world, f"{POD}/log", protocols=protocol)).status == 400

    run(check)
