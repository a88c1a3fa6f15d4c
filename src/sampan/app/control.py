"""The daemon's control socket: what ``sampan status``, ``ps``, ``image`` and ``down`` talk to.

One JSON object per line each way, on a Unix socket that only its owner may open. It is not the
API: it tells about processes and images of this machine, which Kubernetes has no words for, and it
answers also while the API server does not (docs/adr/0009).
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

Operation = Callable[[Mapping[str, Any]], Awaitable[Any]]
log = logging.getLogger(__name__)


class Refused(Exception):
    """The request cannot be done; the message is for the user."""


class ControlSocket:
    """Serves *operations* at *path*. A request is ``{"op": name, ...}``; an answer is
    ``{"ok": value}`` or ``{"error": text}``."""

    def __init__(self, path: Path, operations: Mapping[str, Operation]) -> None:
        self._path = path
        self._operations = operations
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, str(self._path))
        self._path.chmod(0o600)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(json.dumps(await self._answer(line)).encode() + b"\n")
                await writer.drain()
        except (ConnectionError, asyncio.LimitOverrunError, ValueError):
            log.debug("a control client went away")
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
            operation = self._operations[request["op"]]
        except (ValueError, KeyError, TypeError):
            return {"error": "unknown request"}
        try:
            return {"ok": await operation(request)}
        except Refused as e:
            return {"error": str(e)}
        except Exception as e:
            log.exception("control request %s failed", request["op"])
            return {"error": f"{type(e).__name__}: {e}"}
