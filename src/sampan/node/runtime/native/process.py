"""Processes executed in a running container, and what their output looks like to a client."""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import struct
import subprocess
import termios
from collections.abc import AsyncIterator, Callable

_CHUNK = 65536
_UNKNOWN = 255  # the exit code of a process that somebody else has waited for


async def _ready(fd: int, add: Callable[..., object], remove: Callable[[int], object]) -> None:
    """Returns once the loop says that *fd* is ready."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def ready() -> None:
        if not future.done():
            future.set_result(None)

    add(fd, ready)
    try:
        await future
    finally:
        remove(fd)


async def exited(process: subprocess.Popen[bytes] | Adopted) -> int:
    """The exit code, 128+n for signal n. Waits on a pidfd: no thread, no SIGCHLD handler."""
    if process.poll() is None:
        loop = asyncio.get_running_loop()
        fd = os.pidfd_open(process.pid)
        try:
            await _ready(fd, loop.add_reader, loop.remove_reader)
        finally:
            os.close(fd)
        process.wait()
    code = process.returncode
    assert code is not None
    return code if code >= 0 else 128 - code


class Session:
    """An ``ExecSession`` over pipes, or over a terminal's master side."""

    def __init__(
        self, process: subprocess.Popen[bytes] | Adopted, outputs: dict[int, int],
        stdin: int | None, *, tty: bool,
    ) -> None:  # fmt: skip
        self._process = process
        self._outputs = outputs  # channel -> file descriptor
        self._stdin = stdin
        self._tty = tty
        self._waiter = asyncio.ensure_future(exited(process))
        for fd in {*outputs.values(), *(() if stdin is None else (stdin,))}:
            os.set_blocking(fd, False)

    async def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view and self._stdin is not None:
            try:
                view = view[os.write(self._stdin, view) :]
            except BlockingIOError:
                await self._writable(self._stdin)
            except OSError:
                return  # it reads no more

    @staticmethod
    async def _writable(fd: int) -> None:
        loop = asyncio.get_running_loop()
        await _ready(fd, loop.add_writer, loop.remove_writer)

    async def close_stdin(self) -> None:
        if self._stdin is None:
            return
        if self._tty:
            await self.write(b"\x04")  # end of file, as a terminal says it
            return
        os.close(self._stdin)
        self._stdin = None

    async def resize(self, width: int, height: int) -> None:
        if self._tty:
            size = struct.pack("HHHH", height, width, 0, 0)
            with contextlib.suppress(OSError):
                fcntl.ioctl(self._outputs[1], termios.TIOCSWINSZ, size)

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        queue: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue(64)
        readers = [
            asyncio.ensure_future(self._read(channel, fd, queue))
            for channel, fd in self._outputs.items()
        ]
        left = len(readers)
        try:
            while left:
                channel, data = await queue.get()
                if data:
                    yield channel, data
                else:
                    left -= 1
        finally:
            for reader in readers:
                reader.cancel()
            self._close()

    async def _read(self, channel: int, fd: int, queue: asyncio.Queue[tuple[int, bytes]]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                data = os.read(fd, _CHUNK)
            except BlockingIOError:
                await _ready(fd, loop.add_reader, loop.remove_reader)
                continue
            except OSError:
                data = b""  # the terminal's other side is gone
            await queue.put((channel, data))
            if not data:
                return

    def _close(self) -> None:
        fds = {*self._outputs.values(), *(() if self._stdin is None else (self._stdin,))}
        self._outputs, self._stdin = {}, None
        for fd in fds:
            with contextlib.suppress(OSError):
                os.close(fd)

    async def wait(self) -> int:
        return await asyncio.shield(self._waiter)

    async def kill(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
        await self.wait()


class Adopted:
    """A process whose parent has ended and left it to us, the nearest subreaper: it has to be
    waited for, or its container's first process can never end."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        return self._wait(os.WNOHANG)

    def wait(self) -> int | None:
        return self._wait(0)

    def _wait(self, options: int) -> int | None:
        if self.returncode is None:
            try:
                found, status = os.waitpid(self.pid, options)
            except ChildProcessError:
                self.returncode = _UNKNOWN
                return _UNKNOWN
            if found:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


def receive_terminal(server: socket.socket, timeout: float = 10.0) -> int:
    """The master side of a terminal, as a runtime hands it over on its console socket. Blocks."""
    server.settimeout(timeout)
    connection, _ = server.accept()
    with connection:
        connection.settimeout(timeout)
        fds = array.array("i")
        _, ancillary, _, _ = connection.recvmsg(256, socket.CMSG_SPACE(fds.itemsize))
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    if not fds:
        raise OSError("the runtime sent no terminal")
    return fds[0]
