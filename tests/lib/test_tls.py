"""The authority and what it signs, checked by a real TLS handshake."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from pathlib import Path

import pytest

from sampan.lib import tls

NOW = time.time()


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> ssl.SSLSocket:
    left, right = socket.socketpair()

    def serve() -> None:
        with server.wrap_socket(left, server_side=True) as sock:
            sock.recv(1)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        wrapped = client.wrap_socket(right, server_hostname=name)
        wrapped.send(b"x")
        return wrapped
    except ssl.SSLError:
        right.close()
        raise
    finally:
        thread.join()


def contexts(tmp_path: Path, hosts: list[str]) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    ca = tls.new_authority("test", now=NOW)
    pair = tls.issue(ca, "kube-apiserver", now=NOW, hosts=hosts)
    (tmp_path / "pair.pem").write_bytes(pair.key + pair.certificate)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "pair.pem")
    return server, ssl.create_default_context(cadata=ca.certificate.decode())


@pytest.mark.parametrize("name", ["kubernetes.default", "127.0.0.1", "10.43.0.1"])
def test_a_server_is_trusted_under_each_of_its_names(tmp_path: Path, name: str) -> None:
    server, client = contexts(tmp_path, ["kubernetes.default", "127.0.0.1", "10.43.0.1"])
    sock = handshake(server, client, name)
    assert sock.version() == "TLSv1.3"
    sock.close()


def test_a_server_is_not_trusted_under_another_name(tmp_path: Path) -> None:
    server, client = contexts(tmp_path, ["kubernetes.default"])
    context = client
    left, right = socket.socketpair()
    thread = threading.Thread(target=lambda: _refused(server, left))
    thread.start()
    with pytest.raises(ssl.SSLCertVerificationError):
        context.wrap_socket(right, server_hostname="elsewhere")
    right.close()
    thread.join()


def _refused(server: ssl.SSLContext, sock: socket.socket) -> None:
    with pytest.raises((ssl.SSLError, OSError)), server.wrap_socket(sock, server_side=True) as s:
        s.recv(1)
        raise OSError("the client went on")


def test_expiry_and_names_are_read_back() -> None:
    ca = tls.new_authority("test", now=NOW)
    pair = tls.issue(ca, "x", now=NOW, hosts=["a", "10.0.0.1"], days=10)
    assert tls.expires(pair.certificate) == pytest.approx(int(NOW) + 10 * 86400 - 3600)
    assert tls.covers(pair.certificate, ["a", "10.0.0.1"])
    assert not tls.covers(pair.certificate, ["a", "b"])
