"""Probes: attempts at a container (exec, httpGet, tcpSocket) and what a series of them means."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from sampan.api.obj import Body
from sampan.node import grpc_health
from sampan.node.dial import DialFailure, http_get, port_of, tcp
from sampan.node.runtime.base import Runtime, RuntimeFailure
from sampan.node.units import duration

_OUTPUT = 10 * 1024


@dataclass(frozen=True, slots=True)
class Attempt:
    """The outcome of one attempt. errored: it could not be carried out."""

    ok: bool
    text: str = ""
    errored: bool = False


@dataclass(slots=True)
class Tally:
    """Turns attempts into a result: it changes after as many equal outcomes as the threshold of
    that outcome asks for. healthy None: no result yet."""

    success_threshold: int = 1
    failure_threshold: int = 3
    healthy: bool | None = None
    _last: bool | None = field(default=None)
    _run: int = 0

    def count(self, ok: bool) -> bool:
        """Whether this outcome changed the result."""
        self._run = self._run + 1 if ok == self._last else 1
        self._last = ok
        needed = self.success_threshold if ok else self.failure_threshold
        if self._run < needed or self.healthy is ok:
            return False
        self.healthy = ok
        return True


async def attempt(
    runtime: Runtime, container: Body, probe: Body, *, sandbox_id: str, container_id: str, ip: str
) -> Attempt:
    """Probe once."""
    timeout = float(probe.get("timeoutSeconds") or 1)
    if probe.get("exec"):
        return await _exec(runtime, probe["exec"].get("command") or [], container_id, timeout)
    try:
        if probe.get("httpGet"):
            status, body, _ = await http_get(
                runtime, sandbox_id, container, probe["httpGet"], ip=ip, timeout=timeout
            )
            if 200 <= status < 400:
                if status >= 300:
                    return Attempt(True, f"Probe terminated redirects, Response body: {body!r}")
                return Attempt(True, body.decode("utf-8", "replace"))
            return Attempt(False, f"HTTP probe failed with statuscode: {status}")
        if probe.get("grpc"):
            return await _grpc(runtime, probe["grpc"], sandbox_id, ip, timeout)
        place = probe.get("tcpSocket")
        if place is None:
            return Attempt(False, "missing probe handler", errored=True)
        port = port_of(container, place["port"])
        host = place.get("host") or ip
        async with asyncio.timeout(timeout):
            _, writer = await tcp(runtime, sandbox_id, host=host, port=port, timeout=timeout)
            writer.close()
        return Attempt(True)
    except TimeoutError:
        return Attempt(False, f"dial tcp {ip}: i/o timeout")
    except DialFailure as failure:
        return Attempt(False, str(failure))


async def _grpc(runtime: Runtime, probe: Body, sandbox_id: str, ip: str, timeout: float) -> Attempt:
    """In the words of the kubelet's own prober."""
    service, port = probe.get("service") or "", int(probe["port"])
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await tcp(runtime, sandbox_id, host=ip, port=port, timeout=timeout)
            try:
                status = await grpc_health.check(
                    reader, writer, service=service, authority=f"{ip}:{port}"
                )
            finally:
                writer.close()
    except TimeoutError:
        text = f'timeout: failed to connect service "{ip}:{port}" within {duration(timeout)}'
        return Attempt(False, text)
    except (grpc_health.NoHealth, OSError) as error:
        return Attempt(False, f"error: health rpc probe failed: {error}")
    if status == "SERVING":
        return Attempt(True, "service healthy")
    return Attempt(False, f'service unhealthy (responded with "{status}")')


async def _exec(runtime: Runtime, command: list[str], container_id: str, timeout: float) -> Attempt:
    try:
        async with asyncio.timeout(timeout + 2):  # should the runtime not keep to it
            code, output = await runtime.exec_sync(container_id, command, timeout)
    except TimeoutError:
        text = f'command timed out: "{" ".join(command)}" timed out after {duration(timeout)}'
        return Attempt(False, text)
    except (RuntimeFailure, OSError) as failure:
        return Attempt(False, str(failure), errored=True)
    return Attempt(code == 0, output[:_OUTPUT].decode("utf-8", "replace"))


async def watch(
    probe: Body,
    once: Callable[[], Awaitable[Attempt]],
    *,
    kind: str,
    age: float,
    healthy: bool | None,
    report: Callable[[bool | None, Attempt], None],
) -> None:
    """Probe at every period until cancelled; liveness and startup end when they have failed,
    startup also when it has succeeded.

    once: makes one attempt (an awaitable). age: seconds since the container started. report: told
    of failed attempts and of changed results.
    """
    tally = Tally(
        int(probe.get("successThreshold") or 1), int(probe.get("failureThreshold") or 3), healthy
    )
    period = float(probe.get("periodSeconds") or 10)
    await asyncio.sleep(max(0.0, float(probe.get("initialDelaySeconds") or 0) - age))
    while True:
        outcome = await once()
        changed = tally.count(outcome.ok)
        if changed or not outcome.ok:
            report(tally.healthy, outcome)
        if kind != "readiness" and tally.healthy is False:
            return
        if kind == "startup" and tally.healthy:
            return
        await asyncio.sleep(period)
