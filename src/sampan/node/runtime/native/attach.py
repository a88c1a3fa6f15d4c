"""Attaching to a container's own process, through conmon's socket."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator

from sampan.node.runtime.base import RuntimeFailure
from sampan.node.runtime.native.records import Container

_PACKET = 65536


class Attached:
    """An ``ExecSession`` over conmon's attach socket: packets of one byte of channel and data."""

    def __init__(self, sock: socket.socket, container: Container) -> None:
        self._socket = sock
        self._container = container

    async def write(self, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        for i in range(0, len(data), 8192):
            with contextlib.suppress(OSError):
                await loop.sock_sendall(self._socket, data[i : i + 8192])

    async def close_stdin(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    async def resize(self, width: int, height: int) -> None:
        """conmon takes sizes from a fifo in the bundle."""
        with contextlib.suppress(OSError):
            fd = os.open(self._container.path / "ctl", os.O_WRONLY | os.O_NONBLOCK)
            try:
                os.write(fd, f"1 {height} {width}\n".encode())
            finally:
                os.close(fd)

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        loop = asyncio.get_running_loop()
        try:
            while packet := await loop.sock_recv(self._socket, _PACKET):
                yield _CHANNELS.get(packet[0], 1), packet[1:]
        except OSError:
            return
        finally:
            self._socket.close()

    async def wait(self) -> int:
        await self._container.ended.wait()
        return self._container.exit_code

    async def kill(self) -> None:
        """Detach: the container goes on."""
        self._socket.close()


_CHANNELS = {2: 1, 3: 2}  # conmon: 2 standard output, 3 standard error


async def attach(container: Container, *, stdin: bool) -> Attached:
    """A session on the container's first process. Raises RuntimeFailure."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    directory = os.open(container.path, os.O_PATH | os.O_CLOEXEC)
    try:
        # Through a descriptor: socket paths have at most 107 bytes.
        sock.connect(f"/proc/self/fd/{directory}/attach")
    except OSError as e:
        sock.close()
        raise RuntimeFailure("AttachFailed", f"cannot attach: {e}") from e
    finally:
        os.close(directory)
    sock.setblocking(False)
    return Attached(sock, container)
