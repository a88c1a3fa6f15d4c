"""Other API servers, behind Services: where they are, and requests to them.

They know this server by its front-proxy certificate, and its users by the ``X-Remote-*`` headers
that it sends (kubernetes.io, Authenticating Proxy).
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import ssl
import string
from base64 import b64decode
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import httptools

from sampan.api.call import User
from sampan.api.errors import StatusError
from sampan.api.obj import Key
from sampan.apiserver.api_services import ApiService, ServiceRef
from sampan.apiserver.pages import obj_of
from sampan.apiserver.proxying import Parsed
from sampan.lib.tls import KeyPair
from sampan.store.base import Store

USER_HEADER, GROUP_HEADER = "X-Remote-User", "X-Remote-Group"
UID_HEADER, EXTRA_PREFIX = "X-Remote-Uid", "X-Remote-Extra-"
CONNECT_SECONDS = 30.0
_CHUNK = 64 * 1024
_PLAIN = frozenset((string.ascii_letters + string.digits + "!#$&'*+-.^_`|~").encode())
_CONTEXTS = 64
_UNKNOWN_AUTHORITY = (18, 19, 20, 21)  # OpenSSL's codes for a chain that leads nowhere known


class Reach(Protocol):
    """Connects to an address of the cluster's network. Raises OSError, TimeoutError."""

    async def __call__(self, host: str, port: int, timeout: float) -> tuple[Any, Any]: ...


async def loopback(host: str, port: int, timeout: float) -> tuple[Any, Any]:
    """The reach of a server without a network of pods: this machine's loopback addresses."""
    address = "127.0.0.1" if host == "localhost" else host
    try:
        near = ipaddress.ip_address(address).is_loopback
    except ValueError:
        near = False
    if not near:
        raise OSError(None, "connect: network is unreachable")
    async with asyncio.timeout(timeout):
        return await asyncio.open_connection(address, port)


class Unreachable(Exception):
    """A Service that leads nowhere; the text says why."""


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: Mapping[str, str]  # by lower-case names
    body: bytes


def user_headers(user: User) -> list[tuple[str, str]]:
    """How another API server is told who asks."""
    found = [(USER_HEADER, user.name)]
    if user.uid:
        found.append((UID_HEADER, user.uid))
    found += [(GROUP_HEADER, group) for group in user.groups]
    found += [
        (f"{EXTRA_PREFIX}{_escaped(key)}", value)
        for key, values in user.extra.items()
        for value in values
    ]
    return found


def is_user_header(name: str) -> bool:
    """Whether a client's header would speak for somebody."""
    lower = name.lower()
    plain = (USER_HEADER, GROUP_HEADER, UID_HEADER)
    return lower in {h.lower() for h in plain} or lower.startswith(EXTRA_PREFIX.lower())


def _escaped(key: str) -> str:
    return "".join(chr(b) if b in _PLAIN else f"%{b:02X}" for b in key.encode())


def head(
    method: str, target: str, host: str, headers: Iterable[tuple[str, str]], size: int | None
) -> bytes:
    """The head of a request; size: of its body, None where it has none."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name}: {_one_line(value)}" for name, value in headers]
    if size is not None:
        lines.append(f"Content-Length: {size}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape")


def _one_line(value: str) -> str:
    return value.replace("\r", " ").replace("\n", " ")


# A server in this process: method, target, who asks, and the body, if any.
Inner: TypeAlias = Callable[[str, str, User, bytes | None], Awaitable[Reply]]


class Remotes:
    """Connections to the servers of APIServices. identity: the front-proxy client's; inner: servers
    of this process, by the Service that stands for them."""

    def __init__(self, store: Store, reach: Reach, identity: KeyPair | None) -> None:
        self._store = store
        self._reach = reach
        self.identity = identity
        self.inner: dict[ServiceRef, Inner] = {}
        self._contexts: dict[tuple[str, bool], ssl.SSLContext] = {}

    async def locate(self, service: ServiceRef) -> tuple[str, int]:
        """Where a Service is to be found. Raises Unreachable."""
        record = await self._store.get(Key("services", service.namespace, service.name).path)
        if record is None:
            raise Unreachable(f'service "{service.name}" not found')
        spec = obj_of(record).spec
        kind, address = spec.get("type", "ClusterIP"), spec.get("clusterIP", "")
        if kind == "ExternalName":
            return str(spec.get("externalName", "")), service.port
        if address in ("", "None"):
            raise Unreachable('cannot route to service with ClusterIP "None"')
        if not any(p["port"] == service.port for p in spec.get("ports") or ()):
            raise Unreachable(f'no service port {service.port} found for service "{service.name}"')
        return str(address), service.port

    async def open(
        self, api: ApiService, *, timeout: float = CONNECT_SECONDS, verify: bool = True
    ) -> tuple[Any, Any, str]:
        """A connection (reader, writer, ``host:port``) under TLS. verify: whether the certificate
        is checked as the APIService asks. Raises Unreachable, OSError, TimeoutError."""
        assert api.service is not None
        host, port = await self.locate(api.service)
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        context = self._context(api.ca if verify else "", api.skips_tls or not verify)
        async with asyncio.timeout(timeout):
            reader, writer = await self._connect(host, port, timeout)
            try:
                name = f"{api.service.name}.{api.service.namespace}.svc"
                await writer.start_tls(context, server_hostname=name)
            except ssl.SSLError as e:
                writer.close()
                raise OSError(None, tls_text(e)) from e
            except BaseException:
                writer.close()
                raise
        return reader, writer, place

    async def _connect(self, host: str, port: int, timeout: float) -> tuple[Any, Any]:
        try:
            return await self._reach(host, port, timeout)
        except OSError as e:
            text = dial_text(e)
            raise OSError(e.errno, f"dial tcp {host}:{port}: {text}") from e

    def _context(self, ca: str, skips: bool) -> ssl.SSLContext:
        held = self._contexts.get((ca, skips))
        if held is None:
            if len(self._contexts) >= _CONTEXTS:
                self._contexts.clear()
            held = self._contexts[ca, skips] = self._new_context(ca, skips)
        return held

    def _new_context(self, ca: str, skips: bool) -> ssl.SSLContext:
        if skips:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        else:
            data = b64decode(ca).decode("ascii", "replace") if ca else None
            try:
                context = ssl.create_default_context(cadata=data)
            except ssl.SSLError as e:
                raise OSError(None, "unable to load root certificates: unable to parse bytes as "
                                    "PEM block") from e  # fmt: skip
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.identity is not None:
            _load(context, self.identity)
        return context

    async def ask(
        self, api: ApiService, method: str, target: str, user: User, *, timeout: float,
        headers: Iterable[tuple[str, str]] = (), body: bytes | None = None, verify: bool = True,
    ) -> Reply:  # fmt: skip
        """One request and its whole answer. Raises Unreachable, OSError, TimeoutError."""
        inner = self.inner.get(api.service) if api.service is not None else None
        if inner is not None:
            return await inner(method, target, user, body)
        async with asyncio.timeout(timeout):
            reader, writer, host = await self.open(api, timeout=timeout, verify=verify)
            try:
                lines = [*headers, *user_headers(user), ("Connection", "close")]
                size = len(body) if body is not None else None
                writer.write(head(method, target, host, lines, size) + (body or b""))
                await writer.drain()
                return await _whole(reader)
            except httptools.HttpParserError as e:
                raise OSError(None, f"malformed HTTP response: {e}") from e
            finally:
                writer.close()


async def _whole(reader: asyncio.StreamReader) -> Reply:
    parsed = Parsed()
    while not parsed.is_whole:
        data = await reader.read(_CHUNK)
        if not data:
            if not parsed.has_head or _is_framed(parsed):
                raise OSError(None, "EOF")
            break
        parsed.parser.feed_data(data)
    names = {n.lower(): v for n, v in parsed.headers}
    return Reply(parsed.parser.get_status_code(), names, b"".join(parsed.pieces))


def _is_framed(parsed: Parsed) -> bool:
    return any(n.lower() in ("content-length", "transfer-encoding") for n, _ in parsed.headers)


def _load(context: ssl.SSLContext, pair: KeyPair) -> None:
    """Gives *context* a certificate; OpenSSL reads them from files only."""
    fd = os.memfd_create("front-proxy-client")
    try:
        os.write(fd, pair.key + pair.certificate)
        context.load_cert_chain(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def dial_text(error: OSError) -> str:
    """A failed connection in the words of other API servers' logs."""
    if isinstance(error, TimeoutError):
        return "i/o timeout"
    if error.errno is None:
        return str(error.strerror or error)
    return f"connect: {os.strerror(error.errno).lower()}"


def tls_text(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        text = error.verify_message
        if error.verify_code in _UNKNOWN_AUTHORITY:
            text = "certificate signed by unknown authority"
        return f"tls: failed to verify certificate: x509: {text}"
    return f"tls: {error.reason or error}"


def text_of(error: BaseException) -> str:
    """What is told of a request that failed."""
    if isinstance(error, Unreachable):
        return str(error)
    if isinstance(error, TimeoutError):
        return "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
    if isinstance(error, OSError):
        return str(error.strerror or error)
    return str(error)


def unavailable(text: str) -> StatusError:
    return StatusError(503, "ServiceUnavailable", text)
