"""A front over the fake API: what the HTTP layer does, without an endpoint pipeline behind it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from sampan.api.call import Call, User
from sampan.api.catalogue import builtin
from sampan.api.errors import StatusError
from sampan.api.obj import Event, Obj, Page
from sampan.api.streams import ExecSession
from sampan.apiserver import bootstrap_roles
from sampan.apiserver.authn import AUTHENTICATED, Authenticator, TokenIssuer
from sampan.apiserver.authz import RbacAuthorizer
from sampan.apiserver.connection import Limits
from sampan.apiserver.front import Front
from sampan.apiserver.metrics import Metrics
from sampan.lib.clock import Clock, RealClock
from sampan.lib.tls import new_key
from sampan.node.runtime.fake import FakeSession
from sampan.testing.fake_api import FakeApi
from sampan.testing.wire import WireClient

ADMIN = User("kubernetes-admin", ("system:masters", AUTHENTICATED))


class FakeEndpoint:
    """An Endpoint over FakeApi. ``watching`` replaces what a watch yields."""

    def __init__(self, clock: Clock) -> None:
        self.registry = builtin()
        self.fake = FakeApi(clock)
        self.calls: list[tuple[User, Call]] = []
        self.watching: Callable[[User, Call], AsyncIterator[Event]] | None = None
        self.warnings: list[str] = []
        self.fail: Exception | None = None

    async def handle(self, user: User, call: Call) -> Obj | Page:
        self.calls.append((user, call))
        call.warnings += self.warnings
        if self.fail is not None:
            raise self.fail
        if call.verb == "deletecollection":
            return Page([], 1)
        return await self.fake.call(call)

    def watch(self, user: User, call: Call) -> AsyncIterator[Event]:
        self.calls.append((user, call))
        if self.watching is not None:
            return self.watching(user, call)
        return self.fake.watch(call)


@dataclass(slots=True)
class FakeDocument:
    content_type: str
    body: bytes
    etag: str
    status: int


class FakeDocuments:
    """Answers /version and /api."""

    def answer(self, path: str, accept: str, if_none_match: str = "") -> FakeDocument | None:
        if path not in ("/version", "/api"):
            return None
        if if_none_match == '"tag"':
            return FakeDocument("application/json", b"", '"tag"', 304)
        body = orjson.dumps({"path": path, "accept": accept})
        return FakeDocument("application/json", body, '"tag"', 200)


@dataclass(slots=True)
class FakeStreams:
    """A node: *lines* are its logs, *output* and *code* what every command does."""

    lines: list[bytes] = field(default_factory=list)
    output: bytes = b""
    code: int = 0
    fail: StatusError | None = None
    sessions: list[FakeSession] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    ports: dict[int, int] = field(default_factory=dict)  # of a pod -> on this host's loopback

    async def forward(self, namespace: str, pod: str, port: int) -> tuple[Any, Any]:
        if self.fail is not None:
            raise self.fail
        if port not in self.ports:
            raise ConnectionRefusedError(111, "Connection refused")
        return await asyncio.open_connection("127.0.0.1", self.ports[port])

    async def logs(
        self, namespace: str, pod: str, container: str, options: Mapping[str, str]
    ) -> AsyncIterator[bytes]:
        self.asked.append({"container": container, **options})
        if self.fail is not None:
            raise self.fail
        for line in self.lines:
            yield line

    async def exec(
        self, namespace: str, pod: str, container: str, command: list[str],
        *, stdin: bool, stdout: bool, stderr: bool, tty: bool,
    ) -> ExecSession:  # fmt: skip
        self.asked.append({"container": container, "command": command, "tty": tty})
        if self.fail is not None:
            raise self.fail
        session = FakeSession(self.output, self.code, echo=stdin)
        self.sessions.append(session)
        return session

    async def attach(
        self, namespace: str, pod: str, container: str,
        *, stdin: bool, stdout: bool, stderr: bool, tty: bool,
    ) -> ExecSession:  # fmt: skip
        self.asked.append({"container": container})
        session = FakeSession(self.output, self.code, echo=stdin)
        self.sessions.append(session)
        return session


class FrontWorld:
    """A served front and everything behind it. ``token`` speaks for an admin account."""

    def __init__(self, *, limits: Limits | None = None, clock: Clock | None = None) -> None:
        self.clock = clock or RealClock()
        self.endpoint = FakeEndpoint(self.clock)
        self.tokens = TokenIssuer(new_key(), clock=self.clock)
        self.authorizer = RbacAuthorizer()
        self.authorizer.load(bootstrap_roles.objects())
        self.grant("cluster-admin", {"kind": "ServiceAccount", "namespace": "test", "name": "root"})
        self.authenticator = Authenticator(tokens=self.tokens, authorizer=self.authorizer)
        self.node = FakeStreams()
        self.checks: list[tuple[str, bool, str]] = [("etcd", True, "")]
        self.metrics = Metrics()
        self.front = Front(
            self.endpoint,
            documents=FakeDocuments(),
            authenticator=self.authenticator,
            authorizer=self.authorizer,
            streams=lambda node: self.node if node == "n1" else None,
            metrics=self.metrics,
            ready=lambda: self.checks,
            clock=self.clock,
            limits=limits,
        )
        self.port = 0
        self.token = self.tokens.issue(namespace="test", name="root", uid="u").token

    @property
    def auth(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def grant(self, role: str, subject: dict[str, Any], *, namespace: str = "") -> None:
        """Binds a ClusterRole, in one namespace or everywhere."""
        kind = "RoleBinding" if namespace else "ClusterRoleBinding"
        name = f"{role}:{subject['name']}"
        self.authorizer.load(
            [
                {
                    "kind": kind,
                    "metadata": {"name": name, "namespace": namespace},
                    "subjects": [subject],
                    "roleRef": {"kind": "ClusterRole", "name": role},
                }
            ]
        )

    def pod(self, name: str = "a", *, node: str = "n1", **spec: Any) -> Obj:
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}], **spec},
            "status": {"phase": "Running"},
        }
        return self.endpoint.fake.put("pods", body)

    async def connect(self) -> WireClient:
        return await WireClient.open(self.port)

    async def ask(self, method: str, target: str, **request: Any) -> Any:
        """One request with the admin's token on a connection of its own."""
        wire = await self.connect()
        headers = {**self.auth, **request.pop("headers", {})}
        try:
            return await wire.ask(method, target, headers=headers, **request)
        finally:
            await wire.close()


@contextlib.asynccontextmanager
async def served(
    *,
    limits: Limits | None = None,
    clock: Clock | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[FrontWorld]:
    world = FrontWorld(limits=limits, clock=clock)
    world.port = await world.front.listen("127.0.0.1", 0, tls)
    try:
        yield world
    finally:
        await world.front.close()
