"""Certificate signing requests (PKCS #10): what they ask for, and certificates made of them."""

from __future__ import annotations

import hashlib
import re
from base64 import b64decode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cryptography import x509

    from sampan.lib.tls import KeyPair

BACKDATE = 300.0  # clients whose clock is a little behind accept a new certificate too
SHORT = 8 * 3600.0  # below this the time a certificate is dated back is not taken off its life
_REQUEST = "CERTIFICATE REQUEST"
_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----[ \t\r]*\n(.*?)\n?-----END \1-----", re.DOTALL)
# Usages of the API -> key usages of X.509 by their names here.
KEY_USAGES = {
    "signing": "digital_signature", "digital signature": "digital_signature",
    "content commitment": "content_commitment", "key encipherment": "key_encipherment",
    "key agreement": "key_agreement", "data encipherment": "data_encipherment",
    "cert sign": "key_cert_sign", "crl sign": "crl_sign", "encipher only": "encipher_only",
    "decipher only": "decipher_only",
}  # fmt: skip
# Usages of the API -> object identifiers of extended usages, in the order they are written.
EXTENDED_USAGES = {
    "any": "2.5.29.37.0", "server auth": "1.3.6.1.5.5.7.3.1", "client auth": "1.3.6.1.5.5.7.3.2",
    "code signing": "1.3.6.1.5.5.7.3.3", "email protection": "1.3.6.1.5.5.7.3.4",
    "s/mime": "1.3.6.1.5.5.7.3.4", "ipsec end system": "1.3.6.1.5.5.7.3.5",
    "ipsec tunnel": "1.3.6.1.5.5.7.3.6", "ipsec user": "1.3.6.1.5.5.7.3.7",
    "timestamping": "1.3.6.1.5.5.7.3.8", "ocsp signing": "1.3.6.1.5.5.7.3.9",
    "microsoft sgc": "1.3.6.1.4.1.311.10.3.3", "netscape sgc": "2.16.840.1.113730.4.1",
}  # fmt: skip

# (request PEM, usages, seconds of life, uid of the request's object, now) -> certificate PEM.
# Deterministic. Raises ValueError.
Sign = Callable[[bytes, Sequence[str], float, str, float], bytes]


@dataclass(frozen=True, slots=True)
class Request:
    """What a request asks to have certified."""

    common_name: str
    organizations: tuple[str, ...]
    dns: tuple[str, ...] = ()
    ips: tuple[str, ...] = ()
    emails: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()


def _load(pem: bytes) -> x509.CertificateSigningRequest:
    from cryptography import x509

    found = _BLOCK.search(pem)
    if found is None or found[1].decode() != _REQUEST:
        raise ValueError(f"PEM block type must be {_REQUEST}")
    try:
        return x509.load_der_x509_csr(b64decode(b"".join(found[2].split()), validate=True))
    except ValueError as e:
        raise ValueError(f"malformed certificate request: {e}") from e


def parse(pem: bytes) -> Request:
    """The request of the first PEM block. Raises ValueError."""
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    request = _load(pem)
    try:
        subject, extensions = request.subject, request.extensions
        names = {NameOID.COMMON_NAME: [""], NameOID.ORGANIZATION_NAME: []}
        for oid, values in names.items():
            values += [str(a.value) for a in subject.get_attributes_for_oid(oid)]
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as e:
        raise ValueError(f"malformed certificate request: {e}") from e
    try:
        alternative: Any = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        alternative = x509.SubjectAlternativeName([])

    def named(kind: Any) -> tuple[str, ...]:
        return tuple(str(v) for v in alternative.get_values_for_type(kind))

    return Request(
        names[NameOID.COMMON_NAME][-1], tuple(names[NameOID.ORGANIZATION_NAME]),
        named(x509.DNSName), named(x509.IPAddress), named(x509.RFC822Name),
        named(x509.UniformResourceIdentifier),
    )  # fmt: skip


def check(pem: bytes) -> None:
    """Raises ValueError unless the request is readable and signed by its own key."""
    from cryptography.exceptions import UnsupportedAlgorithm

    parse(pem)
    try:
        valid = _load(pem).is_signature_valid
    except UnsupportedAlgorithm as e:
        raise ValueError("x509: cannot verify signature: algorithm unimplemented") from e
    if not valid:
        raise ValueError("x509: the signature is not of the request's own key")


def check_certificates(pem: bytes) -> None:
    """Raises ValueError unless *pem* holds certificates, and no other blocks."""
    from cryptography import x509

    blocks = _BLOCK.findall(pem)
    for kind, content in blocks:
        if kind != b"CERTIFICATE":
            raise ValueError(f'only CERTIFICATE PEM blocks are allowed, found "{kind.decode()}"')
        if b":" in content:
            raise ValueError("no PEM block headers are permitted")
        try:
            x509.load_der_x509_certificate(b64decode(b"".join(content.split()), validate=True))
        except ValueError as e:
            raise ValueError(f"malformed certificate: {e}") from e
    if not blocks:
        raise ValueError("must contain at least one CERTIFICATE PEM block")


def expires(pem: bytes) -> float | None:
    """Epoch seconds at which the first certificate of *pem* ends; None without one."""
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(pem)[0].not_valid_after_utc.timestamp()
    except ValueError:
        return None


def signer(authority: KeyPair) -> Sign:
    """Signs with *authority*'s key: the request's subject and alternative names, the usages given,
    never a certificate authority; valid from five minutes ago, and not longer than *authority*."""

    def sign(pem: bytes, usages: Sequence[str], seconds: float, uid: str, now: float) -> bytes:
        return _sign(authority, pem, usages, seconds, uid, now)

    return sign


def _sign(
    authority: KeyPair, pem: bytes, usages: Sequence[str], seconds: float, uid: str, now: float
) -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    key: Any = serialization.load_pem_private_key(authority.key, None)
    parent = x509.load_pem_x509_certificate(authority.certificate)
    latest = parent.not_valid_after_utc.timestamp()
    if now >= latest:
        raise ValueError("refusing to sign a certificate that expired in the past")
    request = _load(pem)
    start = int(now - BACKDATE)
    end = min(start + seconds + (BACKDATE if seconds < SHORT else 0.0), latest)
    # Of the object and the moment: no other request has it, and the same plan signs the same.
    serial = int.from_bytes(hashlib.sha256(f"{uid}/{now}".encode() + pem).digest()[:16]) >> 1
    builder = (
        x509.CertificateBuilder()
        .subject_name(request.subject)
        .issuer_name(parent.subject)
        .public_key(request.public_key())
        .serial_number(serial)
        .not_valid_before(datetime.fromtimestamp(start, UTC))
        .not_valid_after(datetime.fromtimestamp(int(end), UTC))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
        )
    )
    builder = _with_usages(builder, usages)
    try:
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        builder = builder.add_extension(names.value, critical=False)
    except x509.ExtensionNotFound:
        pass
    made = builder.sign(key, hashes.SHA256(), ecdsa_deterministic=True)
    return made.public_bytes(serialization.Encoding.PEM)


def _with_usages(
    builder: x509.CertificateBuilder, usages: Sequence[str]
) -> x509.CertificateBuilder:
    from cryptography import x509

    flags = {KEY_USAGES[u] for u in usages if u in KEY_USAGES}
    if flags & {"encipher_only", "decipher_only"}:
        flags.add("key_agreement")  # they say something about it alone
    if flags:
        every = sorted({*KEY_USAGES.values()})
        usage = x509.KeyUsage(**{name: name in flags for name in every})
        builder = builder.add_extension(usage, critical=True)
    wanted = {EXTENDED_USAGES[u] for u in usages if u in EXTENDED_USAGES}
    oids = [oid for oid in dict.fromkeys(EXTENDED_USAGES.values()) if oid in wanted]
    if oids:
        extended = x509.ExtendedKeyUsage([x509.ObjectIdentifier(oid) for oid in oids])
        builder = builder.add_extension(extended, critical=False)
    return builder
