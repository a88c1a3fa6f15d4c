"""The ``proxy`` subresource of pods and services: an HTTP request goes on to a port of a pod.

The connection is made by the pod's node, inside of it (``NodeStreams.forward``), so nothing is sent
to an address from here. One request, one connection; what the pod answers comes back as it comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import httptools

from sampan.api.call import Call, Endpoint, User
from sampan.api.errors import StatusError, bad_request
from sampan.api.obj import Body, Obj
from sampan.api.streams import NodeStreams
from sampan.apiserver.connection import Connection, Gone, Request, Response
from sampan.apiserver.routes import Place

SERVER = User("system:apiserver", ("system:masters",))
RESOURCES = ("pods", "services")
NOT_SENT = frozenset({  # of one connection only, or the credentials of this one
    "authorization", "connection", "content-length", "host", "keep-alive", "proxy-authenticate",
    "proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
})  # fmt: skip
_NOT_RETURNED = frozenset({
    "cache-control", "connection", "content-length", "content-type", "date", "keep-alive",
    "proxy-authenticate", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
})  # fmt: skip
_PREFIX = 8  # parts of "/api/v1/namespaces/NS/pods/NAME/proxy" when split at its slashes
_CHUNK = 64 * 1024


@dataclass(frozen=True, slots=True)
class Destination:
    namespace: str
    pod: str
    port: int
    is_tls: bool = False


def unavailable(text: str) -> StatusError:
    return StatusError(503, "ServiceUnavailable", text)


def split(identity: str, kind: str) -> tuple[str, str, str]:
    """Scheme, name and port of ``name``, ``name:port`` or ``scheme:name:port``. Raises StatusError
    400."""
    parts = identity.split(":")
    scheme, name, port = "", parts[0], ""
    if len(parts) == 2:
        name, port = parts
    elif len(parts) == 3:
        scheme, name, port = parts
    if len(parts) > 3 or not name or scheme not in ("", "http", "https"):
        raise bad_request(f'invalid {kind} request "{identity}"')
    return scheme, name, port


def pod_port(pod: Body, port: str, scheme: str) -> int:
    """The port asked for; else the first the pod declares; else the scheme's own."""
    if port:
        if not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536:
            raise bad_request(f'invalid pod request "{pod["metadata"]["name"]}:{port}"')
        return int(port)
    for container in pod["spec"].get("containers") or ():
        if container.get("ports"):
            return int(container["ports"][0]["containerPort"])
    return 443 if scheme == "https" else 80


def service_backends(service: Body, endpoints: Body | None, port: str) -> list[tuple[Body, int]]:
    """The ready addresses behind a port of a service, and the port of each. Raises StatusError
    503."""
    name = service["metadata"]["name"]
    if port.isascii() and port.isdigit():
        declared = service["spec"].get("ports") or ()
        named = [p.get("name", "") for p in declared if p["port"] == int(port)]
        if not named:
            raise unavailable(f'no service port {port} found for service "{name}"')
        port = named[0]
    found = [
        (address, int(p["port"]))
        for subset in (endpoints or {}).get("subsets") or ()
        for p in subset.get("ports") or ()
        if p.get("name", "") == port
        for address in subset.get("addresses") or ()
    ]
    if not found:
        raise unavailable(f'no endpoints available for service "{name}"')
    return found


class Proxying:
    """streams: the NodeStreams of a node by its name."""

    def __init__(
        self, api: Endpoint, streams: Callable[[str], NodeStreams | None], rng: Random
    ) -> None:
        self._api = api
        self._streams = streams
        self._rng = rng

    async def serve(self, connection: Connection, request: Request, where: Place) -> Response | int:
        """Serves an authorized request: its answer, or the status of what was sent on already."""
        parts = request.path.split("/")
        path = "/" + "/".join(parts[_PREFIX:]) if len(parts) > _PREFIX else ""
        to = await (self._pod(where) if where.plural == "pods" else self._service(where))
        query = f"?{request.query}" if request.query else ""
        if not path and request.method in ("GET", "HEAD"):
            there = f"{request.path}/{query}"  # so that relative links of the answer lead here
            return Response(301, content_type="", headers=(("Location", there),))
        pod = await self._get("pods", to.namespace, to.pod)
        head = _head(connection, request, to=to, pod=pod.body, target=(path or "/") + query)
        connection.hold()
        writer: Any = None
        try:
            reader, writer = await self._connect(to, pod)
            writer.write(head + request.body)
            await writer.drain()
            return await pass_answer(connection, request, reader)
        except (OSError, TimeoutError, httptools.HttpParserError) as e:
            raise unavailable(f"error trying to reach service: {e}") from e
        finally:
            if writer is not None:
                writer.close()

    async def _get(self, resource: str, namespace: str, name: str) -> Obj:
        call = Call(verb="get", resource=resource, namespace=namespace, name=name)
        answer = await self._api.handle(SERVER, call)
        assert isinstance(answer, Obj)
        return answer

    async def _pod(self, where: Place) -> Destination:
        scheme, name, port = split(where.name, "pod")
        pod = await self._get("pods", where.namespace, name)
        return Destination(
            where.namespace, name, pod_port(pod.body, port, scheme), scheme == "https"
        )

    async def _service(self, where: Place) -> Destination:
        scheme, name, port = split(where.name, "service")
        service = await self._get("services", where.namespace, name)
        try:
            endpoints = (await self._get("endpoints", where.namespace, name)).body
        except StatusError as e:
            if e.code != 404:
                raise
            endpoints = None
        chosen, number = self._rng.choice(service_backends(service.body, endpoints, port))
        target = chosen.get("targetRef") or {}
        if target.get("kind") != "Pod":
            raise unavailable(f"error trying to reach service: {chosen['ip']} is no pod's address")
        return Destination(where.namespace, target["name"], number, scheme == "https")

    async def _connect(self, to: Destination, pod: Obj) -> tuple[asyncio.StreamReader, Any]:
        node = str(pod.spec.get("nodeName") or "")
        if not node or not (pod.body.get("status") or {}).get("podIP"):
            raise bad_request("address not allowed")
        streams = self._streams(node)
        if streams is None:
            raise unavailable(f"node {node} of pod {to.pod} cannot be reached")
        reader, writer = await streams.forward(to.namespace, to.pod, to.port)
        if to.is_tls:
            # As upstream: who serves in a pod has no certificate this server could know.
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            await writer.start_tls(context)
        return reader, writer


def _head(
    connection: Connection, request: Request, *, to: Destination, pod: Body, target: str
) -> bytes:
    address = (pod.get("status") or {}).get("podIP", "")
    lines = [f"{request.method} {target} HTTP/1.1", f"Host: {address}:{to.port}"]
    lines += [
        f"{name}: {value}"
        for name, values in request.headers.items()
        if name not in NOT_SENT
        for value in values
    ]
    lines.append(f"X-Forwarded-Uri: {request.path}")
    if request.header("host"):
        lines.append(f"X-Forwarded-Host: {request.header('host')}")
    peer = connection.transport.get_extra_info("peername")
    if peer:
        lines.append(f"X-Forwarded-For: {peer[0]}")
    if request.body or request.method in ("POST", "PUT", "PATCH"):
        lines.append(f"Content-Length: {len(request.body)}")
    lines.append("Connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape")


class Parsed:
    """An answer as it arrives: status and headers, then pieces of its body."""

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.headers: list[tuple[str, str]] = []
        self.pieces: list[bytes] = []
        self.has_head = self.is_whole = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        if self.parser.get_status_code() < 200:
            self.headers.clear()
        else:
            self.has_head = True

    def on_body(self, body: bytes) -> None:
        self.pieces.append(body)

    def on_message_complete(self) -> None:
        self.is_whole = self.has_head


async def pass_answer(
    connection: Connection, request: Request, reader: asyncio.StreamReader,
    parsed: Parsed | None = None,
) -> Response | int:  # fmt: skip
    """What the other end answers, as it comes. parsed: what was read of it already. Raises OSError
    and HttpParserError while nothing was sent on."""
    parsed = parsed or Parsed()
    while not parsed.has_head:
        data = await reader.read(_CHUNK)
        if not data:
            raise OSError("EOF")
        parsed.parser.feed_data(data)
    status = parsed.parser.get_status_code()
    kind = next((v for n, v in parsed.headers if n.lower() == "content-type"), "")
    extra = tuple((n, v) for n, v in parsed.headers if n.lower() not in _NOT_RETURNED)
    if request.method == "HEAD" or status in (204, 304):
        return Response(status, content_type=kind, headers=extra)
    is_framed = any(n.lower() in ("content-length", "transfer-encoding") for n, _ in parsed.headers)
    out = connection.stream(request, status, content_type=kind, headers=extra)
    try:
        while True:
            for piece in parsed.pieces:
                await out.send(piece)
            parsed.pieces.clear()
            if parsed.is_whole:
                break
            data = await reader.read(_CHUNK)
            if not data and is_framed:
                raise OSError("unexpected EOF")
            if not data:
                break
            parsed.parser.feed_data(data)
    except (OSError, httptools.HttpParserError):
        connection.abort()  # the client sees that the answer is not whole
        return status
    with contextlib.suppress(Gone):
        out.end()
    return status
