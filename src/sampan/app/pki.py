"""The cluster's certificates on disk: made once, renewed before they end."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sampan.lib import tls
from sampan.lib.tls import KeyPair

_RENEW_BEFORE = 90 * 86400.0


_PROXY_NAME = "front-proxy-client"


@dataclass(frozen=True, slots=True)
class FrontProxy:
    """How other API servers know this one: ca (PEM) signed client, which may name users."""

    ca: bytes
    client: KeyPair

    def trust(self, users_ca: str) -> dict[str, str]:
        """What they are told, beside whose certificates name users themselves."""
        return {
            "client-ca-file": users_ca,
            "requestheader-allowed-names": f'["{_PROXY_NAME}"]',
            "requestheader-client-ca-file": self.ca.decode(),
            "requestheader-extra-headers-prefix": '["X-Remote-Extra-"]',
            "requestheader-group-headers": '["X-Remote-Group"]',
            "requestheader-uid-headers": '["X-Remote-Uid"]',
            "requestheader-username-headers": '["X-Remote-User"]',
        }


@dataclass(frozen=True, slots=True)
class Pki:
    """ca signs server (the API) and admin (system:masters). service_accounts: a PEM private key
    that signs tokens."""

    ca: KeyPair
    server: KeyPair
    admin: KeyPair
    service_accounts: bytes
    proxy: FrontProxy


def new_proxy(*, now: float) -> FrontProxy:
    """A front proxy with an authority of its own, which signs nothing else."""
    authority = tls.new_authority("sampan-front-proxy", now=now)
    return FrontProxy(authority.certificate, tls.issue(authority, _PROXY_NAME, now=now))


def ensure(directory: Path, hosts: Sequence[str], *, now: float) -> Pki:
    """Certificates for a server at *hosts*. Raises ValueError for a file that is no certificate."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    ca = _pair(directory / "ca", lambda: tls.new_authority("sampan", now=now), now=now)
    server = _pair(
        directory / "apiserver",
        lambda: tls.issue(ca, "kube-apiserver", now=now, hosts=hosts),
        now=now, hosts=hosts,
    )  # fmt: skip
    admin = _pair(
        directory / "admin",
        lambda: tls.issue(ca, "kubernetes-admin", now=now, organizations=["system:masters"]),
        now=now,
    )
    proxy_ca = _pair(
        directory / "front-proxy-ca", lambda: tls.new_authority("sampan-front-proxy", now=now),
        now=now,
    )  # fmt: skip
    proxy = _pair(
        directory / _PROXY_NAME, lambda: tls.issue(proxy_ca, _PROXY_NAME, now=now), now=now
    )
    accounts = directory / "service-accounts.key"
    if not accounts.exists():
        _write(accounts, tls.new_key())
    trusted = FrontProxy(proxy_ca.certificate, proxy)
    return Pki(ca, server, admin, accounts.read_bytes(), trusted)


def _pair(
    stem: Path, make: Callable[[], KeyPair], *, now: float, hosts: Sequence[str] = ()
) -> KeyPair:
    certificate, key = stem.with_suffix(".crt"), stem.with_suffix(".key")
    if certificate.exists() and key.exists():
        pair = KeyPair(certificate.read_bytes(), key.read_bytes())
        try:
            fresh = tls.expires(pair.certificate) - now > _RENEW_BEFORE
            if fresh and (not hosts or tls.covers(pair.certificate, hosts)):
                return pair
        except ValueError as e:
            raise ValueError(f"{certificate} is not a certificate") from e
    pair = make()
    _write(key, pair.key)
    _write(certificate, pair.certificate)
    return pair


def _write(path: Path, data: bytes) -> None:
    part = path.with_name(path.name + ".part")
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as f:
        f.write(data)
    part.replace(path)
