"""The streaming seam between the API server and node agents (logs, exec, attach)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol


class ExecSession(Protocol):
    """A process attached to by a client. Channels: 1 stdout, 2 stderr (a tty has only 1)."""

    async def write(self, data: bytes) -> None: ...
    async def close_stdin(self) -> None: ...
    async def resize(self, width: int, height: int) -> None: ...
    def output(self) -> AsyncIterator[tuple[int, bytes]]:
        """Ends when the process has ended and all its output was read."""
        ...

    async def wait(self) -> int:
        """The exit code (128+n for signal n)."""
        ...

    async def kill(self) -> None: ...


class NodeStreams(Protocol):
    """What one node offers for its pods. Raises StatusError (400 for a container that is not
    there or not started yet, in the kubelet's words)."""

    def logs(
        self, namespace: str, pod: str, container: str, options: Mapping[str, str]
    ) -> AsyncIterator[bytes]:
        """options: PodLogOptions by their query names (follow, previous, tailLines, sinceSeconds,
        sinceTime, timestamps, limitBytes, stream)."""
        ...

    async def exec(
        self, namespace: str, pod: str, container: str, command: list[str],
        *, stdin: bool, stdout: bool, stderr: bool, tty: bool,
    ) -> ExecSession: ...  # fmt: skip

    async def forward(self, namespace: str, pod: str, port: int) -> tuple[Any, Any]:
        """A connected stream (asyncio reader, writer) to a port of the pod, as from inside of it.
        Raises OSError, TimeoutError."""
        ...

    async def attach(
        self, namespace: str, pod: str, container: str,
        *, stdin: bool, stdout: bool, stderr: bool, tty: bool,
    ) -> ExecSession: ...  # fmt: skip
