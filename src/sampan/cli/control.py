"""Client side of the daemon's control socket."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any


class Failed(Exception):
    """A command cannot go on; the message is one clear line for the user."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


def ask(path: Path, op: str, /, *, timeout: float = 300.0, **arguments: Any) -> Any:
    """The daemon's answer to one request. Raises Failed."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(timeout)
        try:
            sock.connect(str(path))
            sock.sendall(json.dumps({"op": op, **arguments}).encode() + b"\n")
            with sock.makefile() as answers:
                answer = json.loads(answers.readline() or "{}")
        except (OSError, ValueError) as e:
            raise Failed(f"the cluster at {path.parent} does not answer: {e}") from e
    if "ok" in answer:
        return answer["ok"]
    raise Failed(answer.get("error", "the cluster stopped while it answered"))
