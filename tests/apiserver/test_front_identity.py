"""Who may reach what, over the wire: certificates, tokens, nobody, impersonation."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop

from sampan.lib import tls
from sampan.testing.fronts import FrontWorld, served
from sampan.testing.wire import WireClient

PODS = "/api/v1/namespaces/default/pods"


def run(check: Callable[[FrontWorld], Awaitable[None]]) -> None:
    async def inside() -> None:
        async with served() as world:
            await check(world)

    asyncio.run(asyncio.wait_for(inside(), 30))


def test_nobody_reaches_health_and_version_only() -> None:
    async def check(world: FrontWorld) -> None:
        wire = await world.connect()
        for path in ("/healthz", "/livez", "/readyz", "/version"):
            assert (await wire.ask("GET", path)).status == 200
        for path, text in (
            ("/api", 'forbidden: User "system:anonymous" cannot get path "/api"'),
            ("/metrics", 'forbidden: User "system:anonymous" cannot get path "/metrics"'),
            ("/nowhere", 'forbidden: User "system:anonymous" cannot get path "/nowhere"'),
            (
                "/api/v1/pods",
                'pods is forbidden: User "system:anonymous" cannot list resource "pods" in API '
                'group "" at the cluster scope',
            ),
            (
                "/apis/apps/v1/namespaces/x/deployments/d",
                'deployments.apps "d" is forbidden: User "system:anonymous" cannot get resource '
                '"deployments" in API group "apps" in the namespace "x"',
            ),
        ):
            answer = await wire.ask("GET", path)
            assert answer.status == 403
            assert answer.json["message"] == text
            assert answer.json["reason"] == "Forbidden"
        # Refused before the body is looked at.
        assert (await wire.ask("POST", PODS, body=b"{")).status == 403
        await wire.close()

    run(check)


@pytest.mark.parametrize("value", ["Bearer x.y.z", "Bearer ", "Basic YTpi", "x"])
def test_bad_credentials_are_unauthorized(value: str) -> None:
    async def check(world: FrontWorld) -> None:
        wire = await world.connect()
        answer = await wire.ask("GET", "/livez", headers={"Authorization": value})
        assert answer.status == 401
        assert answer.json["message"] == "Unauthorized"
        await wire.close()

    run(check)


def test_impersonation() -> None:
    async def check(world: FrontWorld) -> None:
        as_jane = {"Impersonate-User": "jane", "Impersonate-Group": "devs"}
        refused = await world.ask("GET", PODS, headers=as_jane)
        assert refused.status == 403
        assert 'User "jane" cannot list' in refused.json["message"]
        world.grant("view", {"kind": "Group", "name": "devs"}, namespace="default")
        assert (await world.ask("GET", PODS, headers=as_jane)).status == 200
        user = world.endpoint.calls[-1][0]
        assert (user.name, user.groups) == ("jane", ("devs", "system:authenticated"))
        extra = {**as_jane, "Impersonate-Uid": "7", "Impersonate-Extra-Scope%2fa": "b"}
        assert (await world.ask("GET", PODS, headers=extra)).status == 200
        user = world.endpoint.calls[-1][0]
        assert (user.uid, dict(user.extra)) == ("7", {"scope/a": ("b",)})
        assert (await world.ask("GET", PODS, headers={"Impersonate-Group": "x"})).status == 400
        # An account that may not impersonate.
        token = world.tokens.issue(namespace="default", name="plain", uid="u").token
        wire = await world.connect()
        answer = await wire.ask(
            "GET", PODS, headers={"Authorization": f"Bearer {token}", **as_jane}
        )
        assert answer.status == 403
        assert answer.json["message"] == (
            'users "jane" is forbidden: User "system:serviceaccount:default:plain" cannot '
            'impersonate resource "users" in API group "" at the cluster scope'
        )
        await wire.close()

    run(check)


def contexts(
    directory: Path,
) -> tuple[ssl.SSLContext, Callable[[tls.KeyPair | None], ssl.SSLContext], tls.KeyPair]:
    """A server's context, a maker of clients' contexts, and the authority."""
    now = time.time()
    authority = tls.new_authority("test", now=now)
    server = tls.issue(authority, "server", now=now, hosts=["localhost", "127.0.0.1"])
    (directory / "ca").write_bytes(authority.certificate)

    def load(context: ssl.SSLContext, pair: tls.KeyPair) -> ssl.SSLContext:
        (directory / "pair").write_bytes(pair.certificate + pair.key)
        context.load_cert_chain(directory / "pair")
        return context

    serving = load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), server)
    serving.load_verify_locations(directory / "ca")
    serving.verify_mode = ssl.CERT_OPTIONAL
    serving.minimum_version = ssl.TLSVersion.TLSv1_2

    def client(pair: tls.KeyPair | None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(directory / "ca"))
        return load(context, pair) if pair else context

    return serving, client, authority


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_client_certificates(
    tmp_path: Path, factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    serving, client, authority = contexts(tmp_path)
    now = time.time()
    admin = tls.issue(authority, "admin", now=now, organizations=["system:masters", "devs"])
    plain = tls.issue(authority, "plain", now=now)

    async def check() -> None:
        async with served(tls=serving) as world:
            world.pod("a")
            wire = await WireClient.open(world.port, tls=client(admin))
            for _ in range(3):
                answer = await wire.ask("GET", PODS)
                assert answer.status == 200
            user = world.endpoint.calls[-1][0]
            assert user.name == "admin"
            assert set(user.groups) == {"system:masters", "devs", "system:authenticated"}
            assert user.extra["authentication.kubernetes.io/credential-id"][0].startswith(
                "X509SHA256="
            )
            wire.send("GET", "/api/v1/pods?watch=1")
            assert (await wire.head()).status == 200
            world.pod("b")
            assert (await anext(wire.events()))["object"]["metadata"]["name"] == "b"
            await wire.close()
            wire = await WireClient.open(world.port, tls=client(plain))
            assert (await wire.ask("GET", PODS)).status == 403
            wire.raw(b"GET /livez HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 70_000)
            assert (await wire.read()).status == 431
            await wire.close()
            wire = await WireClient.open(world.port, tls=client(None))
            assert (await wire.ask("GET", "/livez")).status == 200
            assert (await wire.ask("GET", "/api")).status == 403
            await wire.close()

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(asyncio.wait_for(check(), 30))


def test_a_strangers_certificate_is_no_identity(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    serving, client, _ = contexts(tmp_path)
    _, _, stranger = contexts(tmp_path / "other")
    forged = tls.issue(stranger, "admin", now=time.time(), organizations=["system:masters"])

    async def check() -> None:
        async with served(tls=serving) as world:
            try:
                wire = await WireClient.open(world.port, tls=client(forged))
                wire.send("GET", "/api/v1/pods")
                status = (await wire.read()).status
            except (OSError, ssl.SSLError, asyncio.IncompleteReadError):
                status = 0
            assert status == 0
            assert not world.endpoint.calls

    asyncio.run(asyncio.wait_for(check(), 30))
