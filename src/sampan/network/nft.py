"""libnftables in process (Debian: libnftables1): commands as text, one call a transaction."""

from __future__ import annotations

import ctypes
import threading
from functools import cache
from typing import Any

# Protocols, symbols and times as numbers.
_NUMERIC = 1 << 7 | 1 << 9 | 1 << 10


class NftError(Exception):
    """The kernel or the parser refused a command; nothing of it was done."""


@cache
def _library() -> Any:
    library = ctypes.CDLL("libnftables.so.1")
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_new.argtypes = (ctypes.c_uint32,)
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(library, name).restype = ctypes.c_char_p
        getattr(library, name).argtypes = (ctypes.c_void_p,)
    for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error", "nft_ctx_free"):
        getattr(library, name).argtypes = (ctypes.c_void_p,)
    library.nft_ctx_free.restype = None
    library.nft_ctx_output_set_flags.argtypes = (ctypes.c_void_p, ctypes.c_uint)
    library.nft_ctx_output_set_flags.restype = None
    library.nft_run_cmd_from_buffer.argtypes = (ctypes.c_void_p, ctypes.c_char_p)
    return library


class Nft:
    """One handle, of the network namespace of the thread that makes it. Calls must come from
    threads of that namespace; they wait for each other."""

    def __init__(self) -> None:
        self._library = _library()
        self._lock = threading.Lock()  # a call goes on when the task that waits for it is cancelled
        self._context = self._library.nft_ctx_new(0)
        if not self._context:
            raise NftError("libnftables gives no context")
        self._library.nft_ctx_buffer_output(self._context)
        self._library.nft_ctx_buffer_error(self._context)
        self._library.nft_ctx_output_set_flags(self._context, _NUMERIC)

    def run(self, commands: str) -> str:
        """What was printed. Raises NftError."""
        with self._lock:
            if not self._context:
                raise NftError("the handle is closed")
            code = self._library.nft_run_cmd_from_buffer(self._context, commands.encode())
            output: bytes = self._library.nft_ctx_get_output_buffer(self._context)
            error: bytes = self._library.nft_ctx_get_error_buffer(self._context)
        if code:
            raise NftError(error.decode(errors="replace").strip()[:2000])
        return output.decode()

    def close(self) -> None:
        with self._lock:
            if self._context:
                self._library.nft_ctx_free(self._context)
                self._context = None
