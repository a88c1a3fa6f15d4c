"""One HTTP/1.1 connection: bytes in, requests out, answers back in order, limits kept.

Nothing of Kubernetes is known here but the shape of an error. Requests of a connection are served
one at a time, in the order they came (pipelining); a streaming answer holds the connection until it
ends; an upgraded connection hands its bytes to whoever took it over.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Protocol

import httptools
import orjson

from sampan.api.call import User
from sampan.api.errors import StatusError, bad_request
from sampan.apiserver.authn import certificate_user

JSON = "application/json"
_WAITING = 16  # pipelined requests kept before reading stops
_LARGE = 64 * 1024  # bodies from here on are not copied to join their head
_REASONS = {s.value: s.phrase for s in HTTPStatus}
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Sizes in bytes, times in seconds."""

    header_bytes: int = 64 * 1024
    body_bytes: int = 3 * 1024 * 1024
    header_seconds: float = 32.0
    body_seconds: float = 60.0
    idle_seconds: float = 120.0
    slow_seconds: float = 30.0  # how long a client may leave its socket full


class Gone(Exception):
    """The client has gone, or reads too slowly to be kept."""


class Request:
    """One request. headers: lower-case names to all their values."""

    __slots__ = ("body", "headers", "is_modern", "keep_alive", "method", "path", "query", "upgrade")

    def __init__(self, method: str, target: str, headers: dict[str, list[str]]) -> None:
        self.method = method
        if not target.startswith("/") and "://" in target:
            target = "/" + target.split("://", 1)[1].partition("/")[2]
        self.path, _, self.query = target.partition("#")[0].partition("?")
        self.headers = headers
        self.body = b""
        self.keep_alive = True
        self.is_modern = True  # HTTP/1.1: may be answered in chunks
        self.upgrade = False

    def header(self, name: str) -> str:
        values = self.headers.get(name)
        return values[0] if values else ""


@dataclass(slots=True)
class Response:
    """A whole answer. headers: extra ones, as written."""

    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()


def failure(error: StatusError) -> Response:
    """A StatusError as a client receives it."""
    extra: tuple[tuple[str, str], ...] = ()
    if error.retry_after is not None:
        extra = (("Retry-After", str(error.retry_after)),)
    if error.code == 401:
        extra += (("WWW-Authenticate", 'Bearer realm="kubernetes"'),)
    return Response(error.code, orjson.dumps(error.status()), headers=extra)


class Server(Protocol):
    """What a connection needs from the front."""

    limits: Limits
    connections: set[Connection]

    async def serve(self, connection: Connection, request: Request) -> None: ...
    def date(self) -> str: ...


class Connection(asyncio.Protocol):
    """A protocol for ``loop.create_server``."""

    def __init__(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        self._server = server
        self._loop = loop
        self._parser = httptools.HttpRequestParser(self)
        self.transport: asyncio.Transport
        self.user: User | None = None
        self.lost = False
        self.deadline = float("inf")
        self._task: asyncio.Task[None] | None = None
        self._is_streaming = False
        self._queue: deque[Request] = deque()
        self._raw: Callable[[bytes], None] | None = None
        self._raw_lost: Callable[[], None] | None = None
        self._rest = b""  # what came after an upgrade request
        self._stopped = False  # nothing more is parsed on this connection
        self._writable: asyncio.Event | None = None
        self._paused_reading = False
        self._tls = False
        self._begin()

    # -- transport callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self.transport = transport  # type: ignore[assignment]
        self._server.connections.add(self)
        ssl_object = transport.get_extra_info("ssl_object")
        if ssl_object is not None:
            self._tls = True
            certificate = ssl_object.getpeercert()
            if certificate:
                der = ssl_object.getpeercert(True) or b""
                self.user = certificate_user(certificate, der)
        self.deadline = self._loop.time() + self._server.limits.header_seconds

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._server.connections.discard(self)
        self._queue.clear()
        if self._writable is not None:
            self._writable.set()
        if self._raw_lost is not None:
            self._raw_lost()
        if self._task is not None and self._is_streaming:
            self._task.cancel()  # plain requests finish: a write may be half done

    def eof_received(self) -> bool:
        self._stopped = True
        busy = self._task is not None and not self._is_streaming
        # Half closed: the answer still goes out, then the connection ends.
        return busy and not self._tls

    def pause_writing(self) -> None:
        self._writable = asyncio.Event()

    def resume_writing(self) -> None:
        if self._writable is not None:
            self._writable.set()
            self._writable = None

    def data_received(self, data: bytes) -> None:
        if self._raw is not None:
            self._raw(data)
            return
        if self._stopped:
            if self._request is not None and self._request.upgrade:
                self._rest += data
                if len(self._rest) > self._server.limits.header_bytes:
                    self.abort()
            return
        if self._reading_headers:
            if not self._header_size:
                self.deadline = self._loop.time() + self._server.limits.header_seconds
            self._header_size += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as e:
            self._stopped = True
            self._rest = data[e.args[0] :]
        except httptools.HttpParserCallbackError as e:
            if isinstance(e.__context__, StatusError):
                self.refuse(e.__context__)
            else:
                log.error("reading a request failed", exc_info=e)
                self.refuse(bad_request("malformed request"))
        except httptools.HttpParserError as e:
            self.refuse(bad_request(f"malformed request: {e}"))
        else:
            if self._reading_headers and self._header_size > self._server.limits.header_bytes:
                self.refuse(_headers_too_large())

    # -- parser callbacks

    def _begin(self) -> None:
        self._reading_headers = True
        self._header_size = 0
        self._fields = 0
        self._target = b""
        self._headers: dict[str, list[str]] = {}
        self._body: list[bytes] = []
        self._body_size = 0
        self._request: Request | None = None

    def on_message_begin(self) -> None:
        if not self._reading_headers:
            self._begin()

    def on_url(self, url: bytes) -> None:
        self._target += url
        self._fields += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields += len(name) + len(value) + 4
        if self._fields > self._server.limits.header_bytes:
            raise _headers_too_large()
        self._headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))

    def on_headers_complete(self) -> None:
        self._reading_headers = False
        if self._fields > self._server.limits.header_bytes:
            raise _headers_too_large()
        request = Request(
            self._parser.get_method().decode("latin-1"),
            self._target.decode("latin-1"),
            self._headers,
        )
        request.is_modern = self._parser.get_http_version() != "1.0"
        request.keep_alive = self._parser.should_keep_alive()
        request.upgrade = self._parser.should_upgrade()
        self._request = request
        if request.is_modern and "host" not in self._headers:
            raise bad_request("missing required Host header")
        length = request.header("content-length")
        if length and int(length) > self._server.limits.body_bytes:
            raise _body_too_large(self._server.limits.body_bytes)
        self.deadline = self._loop.time() + self._server.limits.body_seconds
        if request.header("expect").lower() == "100-continue" and request.is_modern:
            if self._task is None:
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._body_size += len(body)
        if self._body_size > self._server.limits.body_bytes:
            raise _body_too_large(self._server.limits.body_bytes)
        self._body.append(body)

    def on_message_complete(self) -> None:
        request = self._request
        assert request is not None
        request.body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._reading_headers, self._header_size, self._fields = True, 0, 0
        self._target, self._headers, self._body, self._body_size = b"", {}, [], 0
        self._queue.append(request)
        if self._task is None:
            self._next()
        elif len(self._queue) > _WAITING and not self._paused_reading:
            self._paused_reading = True
            self.transport.pause_reading()

    # -- serving

    def _next(self) -> None:
        if self.lost:
            return
        if not self._queue:
            if self._stopped and self._raw is None:
                self.transport.close()
            else:
                self.deadline = self._loop.time() + self._server.limits.idle_seconds
            return
        if self._paused_reading and len(self._queue) <= _WAITING:
            self._paused_reading = False
            self.transport.resume_reading()
        request = self._queue.popleft()
        self.deadline = float("inf")
        self._task = self._loop.create_task(self._serve(request))

    async def _serve(self, request: Request) -> None:
        try:
            await self._server.serve(self, request)
        except Gone:
            self.abort()
        except Exception:
            log.exception("serving %s %s failed", request.method, request.path)
            self.abort()
        finally:
            self._task = None
            self._is_streaming = False
        if request.keep_alive and not request.upgrade:
            self._next()
        elif not self.lost:
            self.transport.close()

    @property
    def is_busy(self) -> bool:
        return self._task is not None

    def refuse(self, error: StatusError) -> None:
        """Answers *error* to what cannot be read as a request, and ends the connection."""
        self._stopped = True
        if self.lost:
            return
        if self._task is None and not self._queue:
            # Bytes the client still sends would make the kernel reset the connection and lose
            # the answer: they are read and dropped until it has closed, or for a moment.
            fake = Request("GET", "/", {})
            fake.keep_alive = False
            self.reply(fake, failure(error))
            self.deadline = self._loop.time() + 1.0
            if self._tls or not self.transport.can_write_eof():
                self._loop.call_later(0.2, self.transport.close)
            else:
                self.transport.write_eof()
        # otherwise the answers before it go out first; then the connection ends unanswered

    def expire(self) -> None:
        """The deadline has passed: an idle connection is closed, a slow request told so."""
        self.deadline = float("inf")
        if self.lost or self._task is not None:
            return
        if not self._stopped and (self._header_size or not self._reading_headers):
            self.refuse(StatusError(408, "Timeout", "the request did not arrive in time"))
        else:
            self.transport.close()

    def reply(self, request: Request, response: Response) -> None:
        """A whole answer."""
        if self.lost:
            return
        body = response.body
        head = self._head(request, response.status, response.content_type, response.headers)
        if response.status not in (204, 304):
            head += b"Content-Length: %d\r\n" % len(body)
        if request.method == "HEAD" or response.status in (204, 304):
            body = b""
        if len(body) < _LARGE:
            self.transport.write(head + b"\r\n" + body)
        else:
            self.transport.writelines((head + b"\r\n", body))

    def _head(
        self,
        request: Request,
        status: int,
        content_type: str,
        headers: tuple[tuple[str, str], ...],
    ) -> bytes:
        lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Unknown')}\r\n"]
        if content_type:
            lines.append(f"Content-Type: {content_type}\r\n")
        lines.append(f"Cache-Control: no-cache, private\r\nDate: {self._server.date()}\r\n")
        lines += [f"{name}: {_clean(value)}\r\n" for name, value in headers]
        if not request.keep_alive or request.upgrade:
            lines.append("Connection: close\r\n")
        elif not request.is_modern:
            lines.append("Connection: keep-alive\r\n")
        return "".join(lines).encode("utf-8", "replace")

    def stream(
        self,
        request: Request,
        status: int,
        *,
        content_type: str,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> Stream:
        """Begins an answer of unknown length; the connection ends the task when the client goes."""
        if not request.is_modern:
            request.keep_alive = False
        head = self._head(request, status, content_type, headers)
        if request.is_modern:
            head += b"Transfer-Encoding: chunked\r\n"
        self.transport.write(head + b"\r\n")
        return Stream(self, chunked=request.is_modern)

    def hold(self) -> None:
        """The current task only serves this client: it is cancelled when the client goes."""
        self._is_streaming = True
        if self.lost and self._task is not None:
            self._task.cancel()

    def take_over(self, receive: Callable[[bytes], None], lost: Callable[[], None]) -> None:
        """From now on bytes go to *receive* (those already here at once)."""
        self._raw, self._raw_lost = receive, lost
        rest, self._rest = self._rest, b""
        if rest:
            receive(rest)

    async def drain(self) -> None:
        """Returns when the client has room. Raises Gone when it has not in time, or is gone."""
        if self._writable is not None:
            try:
                async with asyncio.timeout(self._server.limits.slow_seconds):
                    await self._writable.wait()
            except TimeoutError:
                raise Gone from None
        if self.lost:
            raise Gone

    def abort(self) -> None:
        self._stopped = True
        if not self.lost:
            self.transport.abort()

    async def finish(self, seconds: float) -> None:
        """Ends the connection: a plain request in flight gets *seconds*, a stream none."""
        task = self._task
        self._stopped = True
        if task is not None and not self._is_streaming:
            await asyncio.wait({task}, timeout=seconds)
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=1)
        if not self.lost:
            self.transport.close()


class Stream:
    """The body of a streaming answer."""

    __slots__ = ("_chunked", "_connection")

    def __init__(self, connection: Connection, *, chunked: bool) -> None:
        self._connection = connection
        self._chunked = chunked

    async def send(self, data: bytes) -> None:
        """Raises Gone."""
        if not data:
            return
        connection = self._connection
        if connection.lost:
            raise Gone
        if self._chunked:
            connection.transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        else:
            connection.transport.write(data)
        if connection._writable is not None:
            await connection.drain()

    def end(self) -> None:
        if self._chunked and not self._connection.lost:
            self._connection.transport.write(b"0\r\n\r\n")


Handler = Callable[[Connection, Request], Awaitable[Any]]


def _clean(value: str) -> str:
    return value.replace("\r", " ").replace("\n", " ")


def _headers_too_large() -> StatusError:
    return StatusError(431, "RequestHeaderFieldsTooLarge", "request header fields are too large")


def _body_too_large(limit: int) -> StatusError:
    return StatusError(
        413,
        "RequestEntityTooLarge",
        f"Request entity too large: limit is {limit}",
    )
