"""Protocols the kernel lacks are told of, and no others."""

from __future__ import annotations

import errno
import socket
from typing import Any

import pytest

from sampan.node import protocols


def _pod(*found: str) -> dict[str, Any]:
    ports = [{"containerPort": 9000 + i, "protocol": p} for i, p in enumerate(found)]
    return {"spec": {"containers": [{"name": "c", "ports": ports}, {"name": "d"}],
                     "initContainers": [{"name": "i"}]}}  # fmt: skip


@pytest.mark.parametrize(
    ("found", "lacking", "ports"),
    [
        (("TCP", "UDP", "SCTP"), {"SCTP"}, ["9002"]),
        (("TCP", "SCTP"), set(), []),
        (("TCP",), {"SCTP"}, []),
        (("SCTP", "SCTP"), {"SCTP"}, ["9000", "9001"]),
    ],
)
def test_ports_nothing_can_listen_at(
    found: tuple[str, ...], lacking: set[str], ports: list[str]
) -> None:
    told = [*protocols.unspoken(_pod(*found), lacking)]
    assert [line.rsplit(" ", 1)[1] for line in told] == ports
    assert all("container c" in line and "has no SCTP" in line for line in told)


@pytest.mark.parametrize(
    ("error", "lacking"),
    [
        (None, frozenset()),
        (errno.EPROTONOSUPPORT, frozenset(("SCTP",))),
        (errno.ESOCKTNOSUPPORT, frozenset(("SCTP",))),
        (errno.EPERM, frozenset()),  # that one may not does not mean that nobody can
    ],
)
def test_what_the_kernel_says(
    monkeypatch: pytest.MonkeyPatch, error: int | None, lacking: frozenset[str]
) -> None:
    class Socket:
        def __init__(self, *_: int) -> None:
            if error is not None:
                raise OSError(error, "told to")

        def close(self) -> None:
            pass

    monkeypatch.setattr(socket, "socket", Socket)
    assert protocols.lacking() == lacking
