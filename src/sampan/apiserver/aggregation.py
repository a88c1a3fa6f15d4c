"""The aggregation layer: group versions that other API servers answer for (kubernetes.io,
Kubernetes API Aggregation Layer).

A request for one of them is authenticated and authorized here, then goes on as it came, to the
Service its APIService names; the answer comes back as it comes: watches and upgraded connections
too.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any
from urllib.parse import quote, urlencode

import httptools
import orjson

from sampan.api.call import Call, User
from sampan.api.errors import StatusError
from sampan.api.obj import Key, Obj, Page
from sampan.api.resource import Registry
from sampan.apiserver.api_services import ApiService, ApiServices
from sampan.apiserver.authz import Attributes
from sampan.apiserver.connection import Connection, Gone, Request, Response
from sampan.apiserver.proxying import NOT_SENT, Parsed, pass_answer
from sampan.apiserver.remote import (
    Reach,
    Remotes,
    Reply,
    Unreachable,
    head,
    is_user_header,
    loopback,
    text_of,
    user_headers,
)
from sampan.apiserver.remote_discovery import RemoteDiscovery
from sampan.lib.tls import KeyPair
from sampan.store.base import Store

AGGREGATOR = User("system:kube-aggregator", ("system:masters",))
CHECKS, CHECK_SECONDS = 5, 5.0
CALL_SECONDS = 30.0
_METHODS = {"create": "POST", "update": "PUT", "patch": "PATCH", "delete": "DELETE"}
_CHUNK = 64 * 1024
_FULL = 1 << 20  # bytes on their way to a server before reading from the client stops
_HEAD_LIMIT = 64 * 1024
_GENERIC = {
    401: ("Unauthorized", "the server has asked for the client to provide credentials"),
    403: ("Forbidden", "the server does not allow access to the requested resource"),
    404: ("NotFound", "the server could not find the requested resource"),
    405: ("MethodNotAllowed", "the server does not allow this method on the requested resource"),
    409: ("Conflict", "the server reported a conflict"),
    429: (
        "TooManyRequests",
        "the server has received too many requests and has asked us to try again later",
    ),
    503: ("ServiceUnavailable", "the server is currently unable to handle the request"),
    504: (
        "Timeout",
        "the server was unable to return a response in the time allotted, but may still be "
        "processing the request",
    ),
}


def plain(status: int, text: str) -> Response:
    """A failure of the aggregation layer itself, which says so in plain text as upstream's."""
    headers = (("X-Content-Type-Options", "nosniff"),)
    return Response(status, f"{text}\n".encode(), "text/plain; charset=utf-8", headers)


class Aggregation:
    """reach: how addresses of Services are connected to; identity: this server's, to others."""

    def __init__(
        self, registry: Registry, store: Store, *, reach: Reach = loopback,
        identity: KeyPair | None = None,
    ) -> None:  # fmt: skip
        self.services = ApiServices(registry)
        self.remotes = Remotes(store, reach, identity)
        self.discovery = RemoteDiscovery(self.services, self.remotes)
        self._store = store

    async def start(self) -> None:
        await self.services.start(self._store)

    async def stop(self) -> None:
        await self.services.stop()

    # -- requests of clients -------------------------------------------------------------------

    def of_path(self, path: str) -> ApiService | None:
        """Who else answers for *path*; None where this server does."""
        if not self.services.has_remote:
            return None
        parts = path.split("/", 4)
        if len(parts) < 4 or parts[1] != "apis":
            return None
        return self.services.remote(parts[2], parts[3])

    async def serve(
        self, connection: Connection, request: Request, user: User, api: ApiService
    ) -> Response | int:
        """Serves an authorized request: its answer, or the status of what was sent on already."""
        if not api.is_available:
            return plain(503, "service unavailable")
        inner = self.remotes.inner.get(api.service) if api.service is not None else None
        if inner is not None:
            target = f"{request.path}?{request.query}" if request.query else request.path
            reply = await inner(request.method, target, user, request.body)
            kind = reply.headers.get("content-type", "application/json")
            return Response(reply.status, reply.body, kind)
        connection.hold()
        writer: Any = None
        try:
            reader, writer, host = await self.remotes.open(api)
            writer.write(self._head(connection, request, user, host) + request.body)
            await writer.drain()
            if request.upgrade:
                return await _upgraded(connection, request, reader, writer)
            return await pass_answer(connection, request, reader)
        except Unreachable:
            return plain(503, "service unavailable")
        except (OSError, httptools.HttpParserError, asyncio.IncompleteReadError) as e:
            return plain(503, f"error trying to reach service: {text_of(e)}")
        finally:
            if writer is not None:
                writer.close()

    @staticmethod
    def _head(connection: Connection, request: Request, user: User, host: str) -> bytes:
        lines = [
            (name, value)
            for name, values in request.headers.items()
            if name not in NOT_SENT
            and not is_user_header(name)
            and not name.startswith("impersonate-")
            for value in values
        ]
        peer = connection.transport.get_extra_info("peername")
        before = request.headers.get("x-forwarded-for", [])
        lines = [line for line in lines if line[0] != "x-forwarded-for"]
        if peer:
            lines.append(("X-Forwarded-For", ", ".join([*before, str(peer[0])])))
        lines.append(("X-Forwarded-Uri", request.path))
        if request.header("host"):
            lines.append(("X-Forwarded-Host", request.header("host")))
        lines += user_headers(user)
        if request.upgrade:
            lines += [("Connection", "Upgrade"), ("Upgrade", request.header("upgrade"))]
        else:
            lines.append(("Connection", "close"))
        has_body = bool(request.body) or request.method in ("POST", "PUT", "PATCH")
        target = f"{request.path}?{request.query}" if request.query else request.path
        return head(request.method, target, host, lines, len(request.body) if has_body else None)

    async def openapi(self, path: str, query: str) -> Response | None:
        """The OpenAPI v3 document of a group version that somebody else serves; None where this
        server does."""
        if not path.startswith("/openapi/v3/apis/"):
            return None
        api = self.of_path(f"{path.removeprefix('/openapi/v3')}/")
        if api is None:
            return None
        reply = await self.discovery.fetch(api, f"{path}?{query}" if query else path)
        if reply is None:
            return plain(503, "service unavailable")
        headers = (("ETag", reply.headers["etag"]),) if "etag" in reply.headers else ()
        kind = reply.headers.get("content-type", "application/json")
        return Response(reply.status, reply.body, kind, headers)

    # -- calls of components -------------------------------------------------------------------

    def of_call(self, call: Call) -> tuple[ApiService, Attributes] | None:
        """Who else answers for a call, and what is asked; None where this server does. Where the
        call names no version, the best one of its group."""
        if not self.services.has_remote:
            return None
        groups = self.services.groups()
        # The longest one: custom.metrics.k8s.io also ends like metrics.k8s.io.
        group = max(
            (g for g in groups if g and call.resource.endswith(f".{g}")), key=len, default=""
        )
        wanted = (s for s in groups.get(group, ()) if call.version in ("", s.version))
        api = next(wanted, None) if group else None
        if api is None or api.service is None:
            return None
        asked = Attributes(
            verb=call.verb, resource=call.resource.removesuffix(f".{group}"), group=group,
            version=api.version, subresource=call.subresource, namespace=call.namespace,
            name=call.name,
        )  # fmt: skip
        return api, asked

    async def handle(self, user: User, call: Call, api: ApiService, asked: Attributes) -> Any:
        """An authorized call of a component: the answer as an object, or for a list its items.
        Raises StatusError."""
        what = f"{call.verb} {call.resource} {call.name}".strip()
        if not api.is_available:
            raise _generic(503, "service unavailable", what)
        if call.verb == "watch":
            raise _generic(405, "", what)
        body = orjson.dumps(call.body) if call.body is not None else None
        headers = [("Accept", "application/json")]
        if body is not None:
            headers.append(("Content-Type", call.content_type))
        try:
            reply = await self.remotes.ask(
                api, _METHODS.get(call.verb, "GET"), _target(api, asked, call), user,
                timeout=CALL_SECONDS, headers=headers, body=body,
            )  # fmt: skip
        except (Unreachable, OSError) as e:
            raise _generic(503, text_of(e), what) from e
        answer = _decoded(reply, what)
        if call.verb == "list":
            items = answer.get("items") or []
            return Page([_obj(call, item) for item in items], 0)
        return _obj(call, answer)

    async def namespaced(self) -> tuple[list[str], list[str]]:
        """Resources of other servers that can be listed and deleted in a namespace, and the group
        versions of servers that cannot be asked."""
        await self.discovery.prepare("/apis")
        found: dict[str, None] = {}
        silent: list[str] = []
        for api in self.services.remotes():
            resources = self.discovery.resources(api)
            if resources is None:
                silent.append(f"{api.group}/{api.version}")
            for r in resources or ():
                if r["scope"] == "Namespaced" and {"list", "delete"} <= set(r["verbs"]):
                    found[f"{r['resource']}.{api.group}"] = None
        return [*found], silent

    # -- availability --------------------------------------------------------------------------

    async def check(self, name: str) -> str:
        """Whether the server of an APIService answers for its group version: '' or why not. Of a
        few attempts one has to succeed, since a Service may lead to several servers."""
        api = self.services.get(name)
        if api is None or api.service is None:
            return ""
        problem = await self._attempt(api)
        if problem:
            more = (self._attempt(api) for _ in range(CHECKS - 1))
            problems = await asyncio.gather(*more)
            problem = problems[-1] if all(problems) else ""
        return problem

    async def _attempt(self, api: ApiService) -> str:
        try:
            assert api.service is not None
            host, port = await self.remotes.locate(api.service)
        except Unreachable as e:
            return str(e)
        url = f"https://{host}:{port}{api.path}"
        try:
            reply = await self.remotes.ask(
                api, "GET", api.path, AGGREGATOR, timeout=CHECK_SECONDS, verify=False
            )
        except (Unreachable, OSError) as e:
            return f'failing or missing response from {url}: Get "{url}": {text_of(e)}'
        if not 200 <= reply.status < 300:
            return f"failing or missing response from {url}: bad status from {url}: {reply.status}"
        return ""


def _target(api: ApiService, asked: Attributes, call: Call) -> str:
    steps = [api.path]
    if asked.namespace:
        steps += ["namespaces", asked.namespace]
    steps += [s for s in (asked.resource, asked.name, asked.subresource) if s]
    path = "/".join([steps[0], *(quote(s, safe="*") for s in steps[1:])])
    query = urlencode({k: v for k, v in call.options.items() if v != ""})
    return f"{path}?{query}" if query else path


def _obj(call: Call, body: Any) -> Obj:
    meta = body.get("metadata") or {}
    key = Key(call.resource, meta.get("namespace", call.namespace), meta.get("name", call.name))
    return Obj(key, orjson.dumps(body), 0, body)


def _decoded(reply: Reply, what: str) -> Any:
    """The object answered. Raises StatusError for a failure, in the server's own words if it has
    any."""
    try:
        body = orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        body = None
    if isinstance(body, dict) and reply.status < 400:
        return body
    if isinstance(body, dict) and body.get("kind") == "Status":
        raise StatusError(
            int(body.get("code") or reply.status), str(body.get("reason", "")),
            str(body.get("message", "")), details=body.get("details"),
        )  # fmt: skip
    raise _generic(max(reply.status, 500) if reply.status < 400 else reply.status,
                   reply.body[:2048].decode("utf-8", "replace").strip(), what)  # fmt: skip


def _generic(status: int, text: str, what: str) -> StatusError:
    """A failure of a server that does not speak Kubernetes' Status, in client-go's words."""
    if status in _GENERIC:
        reason, message = _GENERIC[status]
    elif status >= 500:
        shown = orjson.dumps(text).decode()
        reason = "InternalError"
        message = f"an error on the server ({shown}) has prevented the request from succeeding"
    else:
        reason = "Unknown"
        message = (
            f"the server responded with the status code {status} but did not return more "
            "information"
        )
    return StatusError(status, reason, f"{message} ({what})")


# ---- upgraded connections ----------------------------------------------------------------------


async def _upgraded(
    connection: Connection, request: Request, reader: asyncio.StreamReader, writer: Any
) -> Response | int:
    """A connection that becomes one of another protocol: bytes go both ways from here on."""
    raw = await _read_head(reader)
    parsed = Parsed()
    if not raw.startswith(b"HTTP/1.1 101"):
        parsed.parser.feed_data(raw)
        return await pass_answer(connection, request, reader, parsed)
    connection.transport.write(raw)
    ended = asyncio.Event()
    client = _ToServer(connection, writer)
    connection.take_over(client.receive, ended.set)
    back = asyncio.ensure_future(_back(connection, reader))
    gone = asyncio.ensure_future(ended.wait())
    try:
        await asyncio.wait({back, gone}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        client.stop()
        for task in (back, gone):
            task.cancel()
        await asyncio.gather(back, gone, return_exceptions=True)
    return 101


async def _read_head(reader: asyncio.StreamReader) -> bytes:
    raw = b""
    while b"\r\n\r\n" not in raw:
        data = await reader.read(_CHUNK)
        if not data:
            raise OSError(None, "EOF")
        raw += data
        if len(raw) > _HEAD_LIMIT:
            raise OSError(None, "the answer's head is too large")
    return raw


async def _back(connection: Connection, reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(OSError, Gone):
        while data := await reader.read(_CHUNK):
            connection.transport.write(data)
            await connection.drain()


class _ToServer:
    """What a client sends goes on; where the server is slow, the client waits."""

    def __init__(self, connection: Connection, writer: Any) -> None:
        self._connection = connection
        self._writer = writer
        self._draining: asyncio.Task[None] | None = None

    def receive(self, data: bytes) -> None:
        self._writer.write(data)
        is_full = self._writer.transport.get_write_buffer_size() > _FULL
        if is_full and self._draining is None:
            self._connection.transport.pause_reading()
            self._draining = asyncio.ensure_future(self._drain())

    async def _drain(self) -> None:
        with contextlib.suppress(OSError):
            await self._writer.drain()
        self._draining = None
        if not self._connection.lost:
            self._connection.transport.resume_reading()

    def stop(self) -> None:
        if self._draining is not None:
            self._draining.cancel()
