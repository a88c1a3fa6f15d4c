"""Certificate requests for tests: a key, and what it asks to have certified."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from sampan.api.obj import Body
from sampan.lib import tls


@cache
def key() -> bytes:
    """The private key (PEM) of every request made here."""
    return tls.new_key()


def pem(
    name: str, organizations: Sequence[str] = (), names: Sequence[x509.GeneralName] = ()
) -> bytes:
    """A PKCS #10 request."""
    signer: Any = serialization.load_pem_private_key(key(), None)
    subject = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, o) for o in organizations]
    subject.append(x509.NameAttribute(NameOID.COMMON_NAME, name))
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def request(name: str, asked: bytes, signer: str, usages: Sequence[str], **spec: Any) -> Body:
    """A CertificateSigningRequest."""
    return {
        "metadata": {"name": name},
        "spec": {"request": b64encode(asked).decode(), "signerName": signer,
                 "usages": [*usages], **spec},
    }  # fmt: skip
