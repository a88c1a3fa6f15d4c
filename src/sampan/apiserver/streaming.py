"""Logs, exec and attach: from a pod's name to its node, and its streams to the client.

exec and attach speak Kubernetes' channels over WebSocket: each message starts with a channel byte
(0 stdin, 1 stdout, 2 stderr, 3 error, 4 resize; in v5 a message ``255 n`` closes channel n). In
the base64 protocols a message is text: the channel's digit, then its data in base64. Logs are
plain messages.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import orjson

from sampan.api.call import Call, Endpoint, User
from sampan.api.errors import Cause, StatusError, bad_request, internal, invalid
from sampan.api.obj import Body, Obj
from sampan.api.streams import ExecSession, NodeStreams
from sampan.apiserver import channels, forwarding, multiplex, websocket
from sampan.apiserver.channels import V5, Protocol
from sampan.apiserver.connection import Connection, Gone, Request, Response
from sampan.apiserver.routes import Place, Query, is_true, no_such_method

STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE_CHANNEL = 0, 1, 2, 3, 4, 255
KINDS = ("exec", "attach", "log", "portforward")
SERVER = User("system:apiserver", ("system:masters",))
_PING_SECONDS = 30.0
_BACKLOG = 256  # messages of a client kept before reading from it stops
# Clients of client-go before 1.34 read before they know the channels, and drop what comes for one
# they do not know yet. A process is started before the handshake, so its output could be there.
_SETTLE = 0.02
_SOON = 0.05  # how long a stream may take to fail with a proper status before its head goes out
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Target:
    """A container and who serves it."""

    namespace: str
    pod: str
    container: str
    streams: NodeStreams


def choose_container(pod: Body, container: str) -> str:
    """The container meant. Raises StatusError 400."""
    spec, name = pod["spec"], pod["metadata"]["name"]

    def names(field: str) -> list[str]:
        return [c["name"] for c in spec.get(field) or ()]

    containers, inits = names("containers"), names("initContainers")
    if container:
        if container in (*containers, *inits, *names("ephemeralContainers")):
            return container
        raise bad_request(f"container {container} is not valid for pod {name}")
    if len(containers) == 1:
        return containers[0]
    text = f"a container name must be specified for pod {name}"
    if containers:
        text += f", choose one of: [{' '.join(containers)}]"
        if inits:
            text += f" or one of the init containers: [{' '.join(inits)}]"
    raise bad_request(text)


class Streaming:
    """streams: the NodeStreams of a node by its name."""

    def __init__(self, api: Endpoint, streams: Callable[[str], NodeStreams | None]) -> None:
        self._api = api
        self._streams = streams

    async def serve(
        self, connection: Connection, request: Request, *, where: Place, query: Query
    ) -> Response | int:
        """Serves an authorized request; a Response to send, or the status of what was served."""
        if where.subresource == "log":
            if request.method != "GET":
                raise no_such_method()
            return await self._log(connection, request, where=where, query=query)
        if request.method not in ("GET", "POST"):
            raise no_such_method()
        if where.subresource == "portforward":
            return await self._forward(connection, request, where=where, query=query)
        return await self._session(connection, request, where=where, query=query)

    async def _forward(
        self, connection: Connection, request: Request, *, where: Place, query: Query
    ) -> Response | int:
        pod = await self._pod(where)
        if not pod.spec.get("nodeName"):
            raise bad_request(f"pod {where.name} does not have a host assigned")
        node = self._node(pod)
        in_websocket = websocket.is_websocket(request.headers)
        if in_websocket and multiplex.TUNNEL not in websocket.offered(request.headers):
            return await forwarding.serve(
                connection, request, ports=forwarding.ports(query), uid=pod.uid, pod=pod.name,
                connect=lambda port: node.forward(where.namespace, where.name, port),
            )  # fmt: skip
        if not in_websocket:
            multiplex.check_forward(request)
        answer = multiplex.hello(multiplex.FORWARD)
        if in_websocket:
            answer = websocket.handshake(request.headers, multiplex.TUNNEL)
        connection.hold()
        connection.transport.write(answer)
        streams = multiplex.Streams(connection, in_websocket=in_websocket)
        streams.start()
        try:
            await multiplex.forward(
                streams, lambda port: node.forward(where.namespace, where.name, port)
            )
        finally:
            streams.close()
        return 101

    async def _older_session(
        self, connection: Connection, request: Request, target: Target,
        command: list[str] | None, flags: dict[str, bool],
    ) -> int:  # fmt: skip
        """exec and attach as kubectl before 1.31 does them."""
        protocol = multiplex.choose(request, tuple(multiplex.SESSIONS))
        connection.hold()
        connection.transport.write(multiplex.hello(protocol))
        streams = multiplex.Streams(connection, in_websocket=False)
        streams.start()
        wanted = {"error", *(k for k in ("stdin", "stdout") if flags[k])}
        if flags["stderr"] and not flags["tty"]:
            wanted.add("stderr")
        if flags["tty"] and protocol.startswith(("v4", "v3")):
            wanted.add("resize")
        await multiplex.session(
            streams, wanted, has_status=multiplex.SESSIONS[protocol],
            begin=lambda: _open(target, command, flags),
            status_of=lambda code: exit_status(code if command is not None else 0),
        )  # fmt: skip
        return 101

    async def _pod(self, where: Place) -> Obj:
        call = Call(verb="get", resource="pods", namespace=where.namespace, name=where.name)
        answer = await self._api.handle(SERVER, call)
        assert isinstance(answer, Obj)
        return answer

    def _node(self, pod: Obj) -> NodeStreams:
        node = str(pod.spec.get("nodeName") or "")
        streams = self._streams(node)
        if streams is None:
            raise StatusError(
                503, "ServiceUnavailable", f"node {node} of pod {pod.name} cannot be reached"
            )
        return streams

    # -- logs

    async def _log(
        self, connection: Connection, request: Request, *, where: Place, query: Query
    ) -> Response | int:
        options = dict(query.first)
        _check_log_options(options, where.name)
        spoken = None
        if websocket.is_websocket(request.headers):
            spoken = channels.choose(request, channels.LOGS)
        for flag in ("follow", "previous", "timestamps"):
            if flag in options:
                options[flag] = "true" if is_true(options[flag]) else "false"
        pod = await self._pod(where)
        container = choose_container(pod.body, options.pop("container", ""))
        if not pod.spec.get("nodeName"):
            return Response(204, content_type="")
        source = self._node(pod).logs(where.namespace, where.name, container, options)
        connection.hold()
        try:
            first = asyncio.ensure_future(_next(source))
            await asyncio.wait({first}, timeout=_SOON)
            if first.done():
                first.result()  # a failure here still has its status
            out: Any
            if spoken is not None:
                out = _Messages(connection, request, spoken)
            else:
                out = connection.stream(request, 200, content_type="text/plain")
            chunk = await first
            while chunk is not None:
                await out.send(chunk)
                chunk = await _next(source)
            out.end()
        except StatusError as e:
            if not first.done() or first.exception() is e:
                raise
            log.warning("the log of %s/%s broke off: %s", where.namespace, where.name, e.message)
            connection.abort()
        finally:
            if not first.done():
                first.cancel()
                await asyncio.gather(first, return_exceptions=True)
            await _close(source)
        return 200

    # -- exec and attach

    async def _session(
        self, connection: Connection, request: Request, *, where: Place, query: Query
    ) -> Response | int:
        flags = {
            name: is_true(query.first.get(name, ""))
            for name in ("stdin", "stdout", "stderr", "tty")
        }
        if not (flags["stdin"] or flags["stdout"] or flags["stderr"]):
            raise bad_request("you must specify at least 1 of stdin, stdout, stderr")
        command = list(query.every.get("command", ()))
        is_exec = where.subresource == "exec"
        if is_exec and not command:
            raise bad_request("you must specify at least 1 command for the container")
        pod = await self._pod(where)
        if is_exec and pod.status.get("phase") in ("Succeeded", "Failed"):
            raise bad_request(
                "cannot exec into a container in a completed pod; "
                f"current phase is {pod.status['phase']}"
            )
        container = choose_container(pod.body, query.first.get("container", ""))
        if not pod.spec.get("nodeName"):
            raise bad_request(f"pod {where.name} does not have a host assigned")
        target = Target(where.namespace, where.name, container, self._node(pod))
        if multiplex.is_spdy(request):
            return await self._older_session(
                connection, request, target, command if is_exec else None, flags
            )
        protocol = channels.choose(request, channels.SESSIONS)
        hello = websocket.handshake(request.headers, protocol.name)
        failure: StatusError | None = None
        session: ExecSession | None = None
        try:
            session = await _open(target, command if is_exec else None, flags)
        except StatusError as e:
            if e.code < 500 or e.message.startswith("unable to upgrade connection"):
                raise
            failure = e  # as from a kubelet: on the error channel, once connected
        connection.hold()
        connection.transport.write(hello)
        running = Channels(connection, session, protocol)
        try:
            await running.run(flags, failure=failure, reports_exit=is_exec)
        finally:
            if session is not None:
                with contextlib.suppress(Exception):
                    await asyncio.shield(session.kill())
        return 101


async def _open(target: Target, command: list[str] | None, flags: dict[str, bool]) -> ExecSession:
    at = (target.namespace, target.pod, target.container)
    stderr = flags["stderr"] and not flags["tty"]
    if command is None:
        return await target.streams.attach(
            *at, stdin=flags["stdin"], stdout=flags["stdout"], stderr=stderr, tty=flags["tty"]
        )
    return await target.streams.exec(
        *at, command, stdin=flags["stdin"], stdout=flags["stdout"], stderr=stderr, tty=flags["tty"]
    )


class _Messages:
    """A log over a WebSocket: what the client says is only heard for its going away."""

    def __init__(self, connection: Connection, request: Request, protocol: Protocol) -> None:
        self._protocol = protocol
        self._connection = connection
        self._frames = websocket.Frames()
        connection.transport.write(websocket.handshake(request.headers, protocol.name))
        connection.take_over(self._receive, lambda: None)

    def _receive(self, data: bytes) -> None:
        try:
            messages = self._frames.feed(data)
        except websocket.WebSocketError:
            self._connection.abort()
            return
        for message in messages:
            if message.opcode == websocket.PING:
                self._connection.transport.write(websocket.frame(websocket.PONG, message.data))
            elif message.opcode == websocket.CLOSE:
                self._connection.abort()

    async def send(self, data: bytes) -> None:
        """Raises Gone."""
        if not self._connection.lost:
            self._connection.transport.write(self._protocol.message(data))
        await self._connection.drain()

    def end(self) -> None:
        if not self._connection.lost:
            self._connection.transport.write(websocket.close_frame(websocket.NORMAL))
            self._connection.transport.close()


class Channels:
    """A session's streams over one WebSocket."""

    def __init__(
        self, connection: Connection, session: ExecSession | None, protocol: Protocol
    ) -> None:
        self._connection = connection
        self._session = session
        self._protocol = protocol
        self._frames = websocket.Frames()
        self._incoming: asyncio.Queue[websocket.Message | None] = asyncio.Queue()
        self._is_paused = False
        self._closing = False

    def _receive(self, data: bytes) -> None:
        try:
            messages = self._frames.feed(data)
        except websocket.WebSocketError as e:
            self._say_goodbye(e.code, str(e))
            self._incoming.put_nowait(None)
            return
        for message in messages:
            if message.opcode == websocket.PING:
                self._write(websocket.frame(websocket.PONG, message.data))
            elif message.opcode == websocket.CLOSE:
                self._say_goodbye(websocket.NORMAL)
                self._incoming.put_nowait(None)
            elif message.opcode != websocket.PONG:
                self._incoming.put_nowait(message)
        if self._incoming.qsize() > _BACKLOG and not self._is_paused:
            self._is_paused = True
            self._connection.transport.pause_reading()

    def _lost(self) -> None:
        self._incoming.put_nowait(None)

    def _write(self, data: bytes) -> None:
        if not self._connection.lost:
            self._connection.transport.write(data)

    def _say_goodbye(self, code: int, text: str = "") -> None:
        if not self._closing:
            self._closing = True
            self._write(websocket.close_frame(code, text))

    async def send(self, channel: int, data: bytes) -> None:
        """Raises Gone."""
        self._write(self._protocol.message(data, channel))
        await self._connection.drain()

    async def _report(self, status: Body) -> None:
        """How it ended, on the error channel. Raises Gone."""
        if self._protocol.has_status:
            await self.send(ERROR, orjson.dumps(status))
        elif status.get("status") != "Success":
            await self.send(ERROR, str(status.get("message", "")).encode())

    async def run(
        self, flags: dict[str, bool], *, failure: StatusError | None, reports_exit: bool
    ) -> None:
        """Until the process has ended and all was said, or the client has gone."""
        self._connection.take_over(self._receive, self._lost)
        await asyncio.sleep(_SETTLE)
        # An empty message tells the client that the streams are open.
        opener = STDOUT if flags["stdout"] else STDERR if flags["stderr"] else ERROR
        await self.send(opener, b"")
        if failure is not None or self._session is None:
            error = failure or internal("no session")
            await self._report(error.status())
            self._say_goodbye(websocket.NORMAL)
            return
        output = asyncio.create_task(self._output(self._session, reports_exit=reports_exit))
        inputs = asyncio.create_task(self._input(self._session))
        pings = asyncio.create_task(self._ping())
        tasks = (output, inputs, pings)
        try:
            await asyncio.wait({output, inputs}, return_when=asyncio.FIRST_COMPLETED)
            if output.done():
                output.result()
                self._say_goodbye(websocket.NORMAL)
        except Gone:
            pass
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(_PING_SECONDS)
            self._write(websocket.frame(websocket.PING))

    async def _output(self, session: ExecSession, *, reports_exit: bool) -> None:
        try:
            async for channel, data in session.output():
                if data:
                    await self.send(channel, data)
            code = await session.wait()
            status = exit_status(code if reports_exit else 0)
        except StatusError as e:
            status = e.status()
        await self._report(status)

    async def _input(self, session: ExecSession) -> None:
        """Ends when the client has gone."""
        while (message := await self._incoming.get()) is not None:
            if self._is_paused and self._incoming.qsize() <= _BACKLOG // 2:
                self._is_paused = False
                if not self._connection.lost:
                    self._connection.transport.resume_reading()
            try:
                await self._take(session, *self._protocol.read(message.data))
            except (ValueError, KeyError, TypeError):
                log.debug("a client sent a malformed message")
            except (OSError, StatusError) as e:
                log.debug("the process takes no more: %s", e)

    async def _take(self, session: ExecSession, channel: int, data: bytes) -> None:
        if channel == STDIN:
            if data:
                await session.write(data)
        elif channel == RESIZE:
            size = orjson.loads(data)
            await session.resize(int(size["Width"]), int(size["Height"]))
        elif channel == CLOSE_CHANNEL and self._protocol.name == V5 and data == bytes((STDIN,)):
            await session.close_stdin()


def exit_status(code: int) -> Body:
    """What the error channel says when a process has ended."""
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def _check_log_options(options: dict[str, str], pod: str) -> None:
    causes: list[Cause] = []

    def number(field: str, least: int, text: str) -> None:
        value = options.get(field)
        if not value:
            return
        try:
            ok = int(value) >= least
        except ValueError:
            raise bad_request(f'strconv.ParseInt: parsing "{value}": invalid syntax') from None
        if not ok:
            causes.append(Cause(field, "FieldValueInvalid", f"Invalid value: {value}: {text}"))

    number("tailLines", 0, "must be greater than or equal to 0")
    number("limitBytes", 1, "must be greater than 0")
    number("sinceSeconds", 1, "must be greater than 0")
    if options.get("sinceSeconds") and options.get("sinceTime"):
        causes.append(
            Cause(
                "sinceSeconds",
                "FieldValueForbidden",
                "Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified",
            )
        )
    if causes:
        raise invalid("", "PodLogOptions", pod, causes)


async def _next(source: AsyncIterator[bytes]) -> bytes | None:
    return await anext(source, None)


async def _close(source: Any) -> None:
    close = getattr(source, "aclose", None)
    if close is not None:
        with contextlib.suppress(Exception):
            await close()
