"""Probes and hooks: what an attempt says, and what a series of them means."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sampan.lib.clock import RealClock
from sampan.node import hooks, probes
from sampan.node.probes import Attempt, Tally
from sampan.node.runtime.base import ContainerSpec, RuntimeFailure, SandboxSpec
from sampan.node.runtime.fake import Behaviour, FakeRuntime


class _Writer:
    def __init__(self) -> None:
        self.sent = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.sent += data

    async def drain(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


class _Server:
    """Answers each connection with the same bytes."""

    def __init__(self, answer: bytes | None) -> None:
        self.answer = answer
        self.writers: list[_Writer] = []

    def __call__(self) -> tuple[asyncio.StreamReader, _Writer]:
        reader = asyncio.StreamReader()
        if self.answer is not None:
            reader.feed_data(self.answer)
            reader.feed_eof()
        self.writers.append(_Writer())
        return reader, self.writers[-1]


def _http(status: int, body: str = "", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *headers, "", body]
    return "\r\n".join(lines).encode()


async def _runtime(behaviour: Behaviour | None = None) -> FakeRuntime:
    runtime = FakeRuntime(RealClock(), behaviours={"i": behaviour or Behaviour()})
    await runtime.run_sandbox(SandboxSpec(id="s", namespace="n", name="p", uid="u"))
    await runtime.create_container("s", ContainerSpec(id="c", name="a", image="i"))
    await runtime.start_container("c")
    return runtime


def _try(
    probe: dict[str, Any], *, server: _Server | None = None, behaviour: Behaviour | None = None
) -> Attempt:
    async def body() -> Attempt:
        runtime = await _runtime(behaviour)
        if server is not None:
            runtime.listeners["10.0.0.9", 80] = server
        container = {"name": "a", "ports": [{"name": "web", "containerPort": 80}]}
        return await probes.attempt(
            runtime, container, probe, sandbox_id="s", container_id="c", ip="10.0.0.9"
        )

    return asyncio.run(body())


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        (_http(200, "fine"), Attempt(True, "fine")),
        (_http(399), None),
        (_http(404), Attempt(False, "HTTP probe failed with statuscode: 404")),
        (_http(500, "boom"), Attempt(False, "HTTP probe failed with statuscode: 500")),
        (b"", Attempt(False, 'Get "http://10.0.0.9:80/x": EOF')),
        (b"SSH-2.0\n", Attempt(False, 'Get "http://10.0.0.9:80/x": malformed HTTP response')),
    ],
)
def test_http(answer: bytes, wanted: Attempt | None) -> None:
    got = _try({"httpGet": {"path": "x", "port": "web"}}, server=_Server(answer))
    if wanted is None:
        assert got.ok
    else:
        assert got == wanted


def test_http_sends_what_the_kubelet_sends() -> None:
    server = _Server(_http(200))
    headers = [{"name": "x-own", "value": "1"}, {"name": "Host", "value": "named"}]
    _try({"httpGet": {"port": 80, "httpHeaders": headers}}, server=server)
    [writer] = server.writers
    lines = writer.sent.decode().split("\r\n")
    assert lines[0] == "GET / HTTP/1.1"
    assert {"Host: named", "User-Agent: kube-probe/1.37", "X-Own: 1", "Connection: close"} <= {
        *lines
    }
    assert writer.closed


def test_nobody_listens() -> None:
    refused = "dial tcp 10.0.0.9:80: connect: connection refused"
    assert _try({"httpGet": {"port": 80}}) == Attempt(
        False, f'Get "http://10.0.0.9:80/": {refused}'
    )
    assert _try({"tcpSocket": {"port": 80}}) == Attempt(False, refused)
    assert _try({"tcpSocket": {"port": "nope"}}) == Attempt(False, "couldn't find port: nope")


def test_no_answer_in_time() -> None:
    got = _try({"httpGet": {"port": 80}, "timeoutSeconds": 0.02}, server=_Server(None))
    assert not got.ok
    assert got.text == (
        'Get "http://10.0.0.9:80/": context deadline exceeded (Client.Timeout exceeded while '
        "awaiting headers)"
    )


def test_an_open_port_is_enough_for_tcp() -> None:
    server = _Server(b"")
    assert _try({"tcpSocket": {"port": "web"}}, server=server).ok
    assert server.writers[0].closed


def _slow(_: list[str]) -> tuple[int, bytes]:
    raise TimeoutError


def _broken(_: list[str]) -> tuple[int, bytes]:
    raise RuntimeFailure("ExecFailed", "no such file")


@pytest.mark.parametrize(
    ("script", "wanted"),
    [
        (lambda _: (0, b"ok\n"), Attempt(True, "ok\n")),
        (lambda _: (1, b"bad\n"), Attempt(False, "bad\n")),
        (_slow, Attempt(False, 'command timed out: "check it" timed out after 1s')),
        (_broken, Attempt(False, "no such file", errored=True)),
    ],
)
def test_exec(script: Any, wanted: Attempt) -> None:
    behaviour = Behaviour(execs={"check": script})
    assert _try({"exec": {"command": ["check", "it"]}}, behaviour=behaviour) == wanted


def test_thresholds() -> None:
    tally = Tally(success_threshold=2, failure_threshold=3)
    outcomes = [True, True, False, False, True, False, False, False, False, True, True]
    changes = [tally.count(ok) for ok in outcomes]
    assert changes == [
        False, True, False, False, False, False, False, True, False, False, True,
    ]  # fmt: skip
    assert tally.healthy


def _series(
    kind: str, outcomes: list[bool], *, healthy: bool | None, **probe: Any
) -> list[tuple[bool | None, bool]]:
    reports: list[tuple[bool | None, bool]] = []
    left = iter(outcomes)

    async def body() -> None:
        done = asyncio.Event()

        async def once() -> Attempt:
            try:
                return Attempt(next(left))
            except StopIteration:
                done.set()
                await asyncio.Event().wait()
                raise AssertionError from None

        task = asyncio.create_task(
            probes.watch(
                {"periodSeconds": 0.001, **probe},
                once,
                kind=kind,
                age=0.0,
                healthy=healthy,
                report=lambda result, attempt: reports.append((result, attempt.ok)),
            )
        )
        task.add_done_callback(lambda _: done.set())
        async with asyncio.timeout(20):
            await done.wait()
        task.cancel()

    asyncio.run(body())
    return reports


def test_liveness_ends_with_its_verdict() -> None:
    got = _series("liveness", [True, False, True, False, False, False, True], healthy=True)
    assert got == [(True, False), (True, False), (True, False), (False, False)]


def test_startup_ends_with_success() -> None:
    got = _series("startup", [False, False, True, False], healthy=None)
    assert got == [(None, False), (None, False), (True, True)]


def test_readiness_goes_on() -> None:
    got = _series("readiness", [True, True, False, True], healthy=None, failureThreshold=1)
    assert got == [(True, True), (False, False), (True, True)]


def _hook(hook: dict[str, Any], *, timeout: float | None = 5.0, **behaviour: Any) -> str:
    async def body() -> str:
        runtime = await _runtime(Behaviour(**behaviour))
        runtime.listeners["10.0.0.9", 80] = _Server(_http(500))
        return await hooks.run(
            runtime,
            {"name": "a"},
            hook,
            sandbox_id="s",
            container_id="c",
            ip="10.0.0.9",
            timeout=timeout,
        )

    return asyncio.run(body())


def test_hooks() -> None:
    assert _hook({"exec": {"command": ["x"]}}) == ""
    assert _hook({"httpGet": {"port": 80}}) == ""
    assert "connection refused" in _hook({"httpGet": {"port": 81}})
    assert _hook({"sleep": {"seconds": 0}}, timeout=None) == ""
    assert _hook({"sleep": {"seconds": 60}}, timeout=0.01) == "not done within 0.01s"
    failed = _hook({"exec": {"command": ["x"]}}, execs={"x": lambda _: (2, b"no\n")})
    assert failed == "command ['x'] exited with 2: no"
    assert _hook({"exec": {"command": ["x"]}}, execs={"x": _broken}) == "no such file"
