"""The HTTP front: what arrives on the socket becomes calls, what they answer becomes HTTP.

The order a request passes: authentication, impersonation, authorization, then its body. What the
endpoint pipeline asks again (authorization) is a dictionary look-up by then.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
import weakref
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from email.utils import formatdate
from ssl import SSLContext
from typing import Any, Protocol

import orjson

from sampan.api.call import Call, Endpoint, User
from sampan.api.errors import StatusError, internal
from sampan.api.obj import Event, Obj, Page
from sampan.api.resource import Registry, ResourceType
from sampan.api.streams import NodeStreams
from sampan.apiserver import health, media, routes, tables
from sampan.apiserver.aggregation import Aggregation
from sampan.apiserver.api_services import ApiService
from sampan.apiserver.authn import Authenticator
from sampan.apiserver.authz import Attributes, RbacAuthorizer, attributes_of
from sampan.apiserver.connection import (
    Connection,
    Gone,
    Limits,
    Request,
    Response,
    Stream,
    failure,
)
from sampan.apiserver.labels import Labels, plain_verb
from sampan.apiserver.metrics import Metrics
from sampan.apiserver.proxying import Proxying
from sampan.apiserver.streaming import KINDS, Streaming
from sampan.lib.clock import Clock, RealClock

_SOON = 0.03  # how long a watch may take to be refused before its head goes out
_WATCH_SECONDS = 1800.0  # a watch without a timeout lasts between one and two of these
_PATHS_OF_DOCUMENTS = ("api", "apis", "openapi", "version")
log = logging.getLogger(__name__)


class Api(Endpoint, Protocol):
    """What the front serves: an endpoint and the types it knows."""

    registry: Registry


class Documents(Protocol):
    """Discovery, version and OpenAPI; the answer has content_type, body, etag and status."""

    def answer(self, path: str, accept: str, if_none_match: str = "") -> Any: ...


class Front:
    """Listens and serves. ready: named checks for /readyz (name, holds, why not)."""

    def __init__(
        self,
        api: Api,
        *,
        documents: Documents,
        authenticator: Authenticator,
        authorizer: RbacAuthorizer,
        streams: Callable[[str], NodeStreams | None] = lambda _node: None,
        metrics: Metrics | None = None,
        ready: Callable[[], Sequence[health.Check]] = tuple,
        clock: Clock | None = None,
        limits: Limits | None = None,
        rng: random.Random | None = None,
        aggregation: Aggregation | None = None,
    ) -> None:
        self.api = api
        self.limits = limits or Limits()
        self.metrics = metrics or Metrics()
        self.connections: set[Connection] = set()
        self._documents = documents
        self._authenticator = authenticator
        self._authorizer = authorizer
        self._streaming = Streaming(api, streams)
        self._ready = ready
        self._aggregation = aggregation
        self._clock = clock or RealClock()
        self._rng = rng or random.Random()
        self._proxying = Proxying(api, streams, self._rng)
        self._servers: dict[asyncio.Server, weakref.WeakSet[Connection]] = {}
        self._sweeper: asyncio.Task[None] | None = None
        self._date = (0, "")

    # -- listening

    async def listen(
        self,
        host: str | None = None,
        port: int = 0,
        ssl_context: SSLContext | None = None,
        *,
        sock: Any = None,
    ) -> int:
        """Serves on host:port (or on a bound socket); the port. May be called more than once."""
        loop = asyncio.get_running_loop()
        where: dict[str, Any] = {"sock": sock} if sock is not None else {"host": host, "port": port}
        if ssl_context is not None:
            where |= {"ssl": ssl_context, "ssl_handshake_timeout": 15.0}
        made: weakref.WeakSet[Connection] = weakref.WeakSet()

        def connection() -> Connection:
            one = Connection(self, loop)
            made.add(one)
            return one

        server = await loop.create_server(connection, backlog=1024, **where)
        self._servers[server] = made
        if self._sweeper is None:
            self._sweeper = asyncio.create_task(self._sweep())
        return int(server.sockets[0].getsockname()[1])

    def unlisten(self, sock: Any) -> None:
        """Serve no more at a socket given to ``listen``; its connections are broken off."""
        for server, made in [*self._servers.items()]:
            if any(s.fileno() == sock.fileno() for s in server.sockets):
                server.close()
                for connection in [*made]:
                    connection.abort()
                del self._servers[server]

    async def close(self, *, grace: float = 5.0) -> None:
        """Stops listening, lets plain requests finish, ends streams."""
        for server in self._servers:
            server.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
            self._sweeper = None
        await asyncio.gather(
            *(c.finish(grace) for c in list(self.connections)), return_exceptions=True
        )
        for connection in list(self.connections):
            connection.abort()
        self._servers.clear()

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        limits = self.limits
        least = min(limits.header_seconds, limits.body_seconds, limits.idle_seconds)
        period = min(1.0, least / 4)
        while True:
            await asyncio.sleep(period)
            now = loop.time()
            for connection in [c for c in self.connections if c.deadline <= now]:
                connection.expire()

    def date(self) -> str:
        now = int(self._clock.now())
        if self._date[0] != now:
            self._date = (now, formatdate(now, usegmt=True))
        return self._date[1]

    # -- one request

    async def serve(self, connection: Connection, request: Request) -> None:
        """Answers one request. Raises Gone when the client is."""
        started = time.perf_counter()
        labels: Labels = Labels(request.method)
        try:
            answer: Response | int = await self._answer(connection, request, labels)
        except StatusError as e:
            answer = failure(e)
        except (Gone, asyncio.CancelledError):
            raise
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            answer = failure(internal("the server's log says more"))
        code = answer if isinstance(answer, int) else answer.status
        if isinstance(answer, Response):
            connection.reply(request, answer)
        self.metrics.requests.add(*labels.counted(code))
        if not labels.is_long:
            self.metrics.seconds.observe(time.perf_counter() - started, *labels.timed())

    async def _answer(
        self, connection: Connection, request: Request, labels: Labels
    ) -> Response | int:
        user = await self._authenticator.authenticate(request.headers, connection.user)
        where = routes.place(request.path)
        elsewhere = self._aggregation.of_path(request.path) if self._aggregation else None
        if elsewhere is not None:
            return await self._pass_on(connection, request, user, elsewhere, where, labels)
        if where is None:
            return await self._other(request, user, labels)
        is_proxied = where.subresource == "proxy"
        query = routes.Query() if is_proxied else routes.query(request.query)
        verb = routes.verb_of(request.method, where, query.first)
        call = routes.call_of(where, verb, query.first)
        call.user_agent = request.header("user-agent")
        asked = attributes_of(call)
        self._authorizer.require(user, asked)
        t = routes.resource_type(self.api.registry, where)
        labels.resource(t, call)
        if t.resource == "pods" and where.subresource in KINDS:
            labels.is_long = True
            if where.subresource != "log" and verb == "get":
                # Since v1.35 a session asks for create, also when it comes by GET.
                self._authorizer.require(
                    user,
                    Attributes(
                        verb="create",
                        resource="pods",
                        subresource=where.subresource,
                        namespace=where.namespace,
                        name=where.name,
                        version=where.version,
                    ),
                )
            with self._long():
                return await self._streaming.serve(connection, request, where=where, query=query)
        if is_proxied:
            labels.is_long = True
            with self._long():
                return await self._proxying.serve(connection, request, where)
        routes.check_method(t, where, verb)
        is_review = t.virtual and "create" in t.verbs
        wanted = media.accepted(
            ",".join(request.headers.get("accept", ())), has_table=not is_review
        )
        self._read_body(t, call, request)
        if verb == "watch":
            labels.is_long = True
            with self._long():
                return await self._watch(
                    connection, request, user=user, t=t, call=call, wanted=wanted
                )
        answer = await self.api.handle(user, call)
        return self._render(t, call, answer, wanted)

    async def _pass_on(
        self, connection: Connection, request: Request, user: User, api: ApiService,
        where: routes.Place | None, labels: Labels,
    ) -> Response | int:  # fmt: skip
        """A request that another API server answers."""
        assert self._aggregation is not None
        labels.is_long = True
        if where is None:
            asked = Attributes(verb=plain_verb(request.method), path=request.path)
        else:
            method = "GET" if request.method == "HEAD" else request.method
            asked = Attributes(
                verb=routes.verb_of(method, where, routes.query(request.query).first),
                resource=where.plural, group=where.group, version=where.version,
                subresource=where.subresource, namespace=where.namespace, name=where.name,
            )  # fmt: skip
        self._authorizer.require(user, asked)
        with self._long():
            return await self._aggregation.serve(connection, request, user, api)

    @contextlib.contextmanager
    def _long(self) -> Any:
        self.metrics.watches += 1
        try:
            yield
        finally:
            self.metrics.watches -= 1

    def _read_body(self, t: ResourceType, call: Call, request: Request) -> None:
        kind = request.header("content-type")
        if call.verb in ("create", "update"):
            call.content_type = media.content_type(kind)
            call.body = media.decode_object(
                call.content_type,
                request.body,
                kind=t.kind,
                warnings=call.warnings,
                repeated=call.repeated,
            )
        elif call.verb == "patch":
            call.content_type = media.content_type(kind)
            call.body = media.decode_patch(call.content_type, request.body, call.repeated)
        elif call.verb in ("delete", "deletecollection"):
            if request.body:
                call.body = media.decode_object(
                    media.content_type(kind),
                    request.body,
                    kind="DeleteOptions",
                    warnings=call.warnings,
                    repeated=call.repeated,
                )
            else:
                call.body = _delete_options(call.options)

    def _render(
        self, t: ResourceType, call: Call, answer: Obj | Page, wanted: tuple[str, str]
    ) -> Response:
        form, shape = wanted
        now = self._clock.now()
        include = call.options.get("includeObject", "")
        status = 201 if call.verb == "create" or call.is_creation else 200
        if isinstance(answer, Page):
            body = tables.render_page(t, answer, shape=shape, now=now, include_object=include)
        elif shape and (t.virtual or answer.body.get("kind") != t.kind):
            body = answer.raw  # a Status, a Scale, a review: shown as it is
        else:
            body = tables.render_obj(t, answer, shape=shape, now=now, include_object=include)
        pretty = call.options.get("pretty")
        if form == media.YAML:
            body = media.to_yaml(body)
        elif pretty and routes.is_true(pretty):
            body = orjson.dumps(orjson.loads(body), option=orjson.OPT_INDENT_2) + b"\n"
        return Response(status, body, form, warnings(call.warnings))

    # -- watches

    async def _watch(
        self,
        connection: Connection,
        request: Request,
        *,
        user: User,
        t: ResourceType,
        call: Call,
        wanted: tuple[str, str],
    ) -> int:
        connection.hold()
        shape = wanted[1]
        include = call.options.get("includeObject", "")
        seconds = float(call.options.get("timeoutSeconds") or 0)
        if seconds <= 0:
            seconds = _WATCH_SECONDS * (1 + self._rng.random())
        out: Stream | None = None
        loop = asyncio.get_running_loop()

        def begin() -> None:
            nonlocal out
            if out is None and not connection.lost:
                kind = f"{media.JSON};stream=watch" if shape else media.JSON
                out = connection.stream(
                    request, 200, content_type=kind, headers=warnings(call.warnings)
                )

        events: AsyncIterator[Event] = self.api.watch(user, call)
        timer = loop.call_later(_SOON, begin)
        has_head = True
        try:
            async with asyncio.timeout(seconds):
                async for event in events:
                    begin()
                    if out is None:
                        raise Gone
                    line = tables.render_event(
                        t,
                        event,
                        shape=shape,
                        now=self._clock.now(),
                        include_object=include,
                        has_head=has_head,
                    )
                    has_head = False
                    await out.send(line)
        except TimeoutError:
            begin()
        except StatusError as e:
            if out is None and e.code != 410:
                raise
            begin()
            if out is not None:
                await out.send(b'{"type":"ERROR","object":%b}\n' % orjson.dumps(e.status()))
        finally:
            timer.cancel()
            close = getattr(events, "aclose", None)
            if close is not None:
                with contextlib.suppress(Exception):
                    await close()
        begin()
        if out is not None:
            out.end()
        return 200

    # -- what is no resource

    async def _other(self, request: Request, user: User, labels: Labels) -> Response:
        path = request.path
        asked = Attributes(verb=plain_verb(request.method), path=path)
        self._authorizer.require(user, asked)
        if request.method not in ("GET", "HEAD"):
            raise routes.no_such_method()
        parts = path.strip("/").split("/")
        query = routes.query(request.query)
        if parts[0] in health.PATHS:
            labels.subresource = parts[0]
            answer = health.health(
                path,
                self._ready,
                is_verbose="verbose" in query.first,
                exclude=query.every.get("exclude", ()),
            )
            if answer is not None:
                return answer
        elif parts == ["metrics"]:
            return Response(200, self.metrics.render(), "text/plain; version=0.0.4; charset=utf-8")
        elif parts == [""]:
            return Response(200, orjson.dumps({"paths": self._paths()}))
        elif path == "/.well-known/openid-configuration" and self._authenticator.tokens:
            return Response(200, orjson.dumps(self._authenticator.tokens.openid_configuration()))
        elif path == "/openid/v1/jwks" and self._authenticator.tokens:
            body = orjson.dumps(self._authenticator.tokens.jwks())
            return Response(200, body, "application/jwk-set+json")
        elif parts[0] in _PATHS_OF_DOCUMENTS:
            return await self._document(request, path)
        raise routes.no_such_resource()

    async def _document(self, request: Request, path: str) -> Response:
        path = path.rstrip("/")
        if self._aggregation is not None:
            there = await self._aggregation.openapi(path, request.query)
            if there is not None:
                return there
            await self._aggregation.discovery.prepare(path)
        found = self._documents.answer(
            path,
            ",".join(request.headers.get("accept", ())),
            request.header("if-none-match"),
        )
        if found is None:
            raise routes.no_such_resource()
        extra: tuple[tuple[str, str], ...] = (("Vary", "Accept"),)
        if found.etag:
            extra += (("ETag", found.etag),)
        return Response(found.status, found.body, found.content_type, extra)

    def _paths(self) -> list[str]:
        versions = {(t.group, t.version) for t in self.api.registry}
        found = {"/api", "/apis", "/healthz", "/livez", "/readyz", "/metrics", "/version"}
        found |= {"/openapi/v2", "/openapi/v3", "/openid/v1/jwks"}
        found |= {"/.well-known/openid-configuration"}
        if self._aggregation is not None:
            versions |= {(s.group, s.version) for s in self._aggregation.services.remotes()}
        for group, version in versions:
            found |= (
                {f"/apis/{group}", f"/apis/{group}/{version}"} if group else {f"/api/{version}"}
            )
        return sorted(found)


def _delete_options(options: Mapping[str, str]) -> dict[str, Any] | None:
    """DeleteOptions given as query parameters; None when there are none."""
    found: dict[str, Any] = {}
    if options.get("gracePeriodSeconds"):
        found["gracePeriodSeconds"] = int(options["gracePeriodSeconds"])
    if options.get("propagationPolicy"):
        found["propagationPolicy"] = options["propagationPolicy"]
    if options.get("orphanDependents"):
        found["orphanDependents"] = routes.is_true(options["orphanDependents"])
    if options.get("dryRun"):
        found["dryRun"] = [options["dryRun"]]
    if not found:
        return None
    return {"kind": "DeleteOptions", "apiVersion": "v1", **found}


def warnings(texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Warning headers (RFC 7234, code 299), each text once."""
    found = []
    for text in dict.fromkeys(texts):
        clean = "".join(c if c.isprintable() else " " for c in text)
        quoted = clean.replace("\\", "\\\\").replace('"', '\\"')
        found.append(("Warning", f'299 - "{quoted}"'))
    return tuple(found)
