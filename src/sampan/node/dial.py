"""HTTP and TCP from inside the node's network, for probes and hooks."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import Any

from sampan.api.obj import Body
from sampan.node.runtime.base import Runtime, RuntimeFailure

_MAX_BODY = 10 * 1024
_MAX_HEADERS = 64 * 1024


class DialFailure(Exception):
    """The other side could not be reached or did not speak HTTP; the text is for people."""


def port_of(container: Body, port: int | str) -> int:
    """A port by number or by the name of a container port. Raises DialFailure."""
    if isinstance(port, int):
        return port
    for declared in container.get("ports") or ():
        if declared.get("name") == port:
            return int(declared["containerPort"])
    if port.isdigit():
        return int(port)
    raise DialFailure(f"couldn't find port: {port}")


async def tcp(
    runtime: Runtime, sandbox_id: str, *, host: str, port: int, timeout: float
) -> tuple[Any, Any]:
    """A connected stream. Raises DialFailure."""
    where = f"dial tcp {_join(host, port)}"
    try:
        stream: tuple[Any, Any] = await runtime.connect(sandbox_id, host, port, timeout)
    except TimeoutError as error:
        raise DialFailure(f"{where}: i/o timeout") from error
    except ConnectionRefusedError as error:
        raise DialFailure(f"{where}: connect: connection refused") from error
    except OSError as error:
        text = (error.strerror or str(error)).lower()
        raise DialFailure(f"{where}: connect: {text}") from error
    except RuntimeFailure as error:
        raise DialFailure(f"{where}: {error.message}") from error
    return stream


async def http_get(
    runtime: Runtime, sandbox_id: str, container: Body, get: Body, *, ip: str, timeout: float
) -> tuple[int, bytes, Mapping[str, str]]:
    """Status, first 10 KiB of the body, headers (lower-case names). get: an HTTPGetAction; its
    certificate, when HTTPS, is not verified. Raises DialFailure."""
    host = get.get("host") or ip
    port = port_of(container, get["port"])
    scheme = (get.get("scheme") or "HTTP").lower()
    path = get.get("path") or "/"
    if not path.startswith("/"):
        path = "/" + path
    url = f"{scheme}://{_join(host, port)}{path}"
    headers = {"Host": _join(host, port), "User-Agent": "kube-probe/1.37", "Accept": "*/*"}
    for header in get.get("httpHeaders") or ():
        headers[_canonical(header["name"])] = header.get("value", "")
    headers["Connection"] = "close"
    text = f"GET {path} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in headers.items() if v)
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await tcp(runtime, sandbox_id, host=host, port=port, timeout=timeout)
            try:
                if scheme == "https":
                    await writer.start_tls(_tls(), server_hostname=host)
                writer.write(text.encode() + b"\r\n")
                await writer.drain()
                return await _answer(reader)
            finally:
                writer.close()
    except TimeoutError as error:
        raise DialFailure(
            f'Get "{url}": context deadline exceeded (Client.Timeout exceeded while awaiting '
            "headers)"
        ) from error
    except DialFailure as error:
        raise DialFailure(f'Get "{url}": {error}') from error
    except (asyncio.IncompleteReadError, ConnectionError, EOFError) as error:
        raise DialFailure(f'Get "{url}": EOF') from error
    except (OSError, ValueError, asyncio.LimitOverrunError) as error:
        raise DialFailure(f'Get "{url}": {error}') from error


async def _answer(reader: Any) -> tuple[int, bytes, Mapping[str, str]]:
    line = (await reader.readuntil(b"\n")).decode("latin-1").split(None, 2)
    if len(line) < 2 or not line[0].startswith("HTTP/") or not line[1].isdigit():
        raise ValueError("malformed HTTP response")
    headers: dict[str, str] = {}
    size = 0
    while (raw := await reader.readuntil(b"\n")).strip():
        size += len(raw)
        if size > _MAX_HEADERS:
            raise ValueError("too many headers")
        name, _, value = raw.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    body = b""
    length = int(headers.get("content-length") or _MAX_BODY)
    while len(body) < min(length, _MAX_BODY):
        chunk = await reader.read(min(length, _MAX_BODY) - len(body))
        if not chunk:
            break
        body += chunk
    return int(line[1]), body, headers


def _tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _canonical(name: str) -> str:
    return "-".join(p.capitalize() for p in name.split("-"))


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
