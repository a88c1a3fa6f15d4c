"""CertificateSigningRequests: every fault with its words, what updates may change, columns."""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import Any

import pytest

from sampan.api.catalogue import builtin
from sampan.lib import tls
from sampan.testing.requests import pem, request

KIND = builtin().get("certificatesigningrequests.certificates.k8s.io")
assert KIND is not None
SIGNER = "example.com/s"
GOOD = pem("jane", ["devs"])
CERT = b64encode(tls.new_authority("x", now=1.8e9).certificate).decode()


def body(**spec: Any) -> Any:
    made = request("r", GOOD, SIGNER, ["client auth"])
    made["spec"].update(spec)
    return made


def texts(causes: Any) -> list[str]:
    return [str(c) for c in causes]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, []),
        ({"expirationSeconds": 600}, []),
        ({"expirationSeconds": 599}, [
            "spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 600 "
            "seconds (10 minutes)"]),
        ({"request": b64encode(b"ab").decode()}, [
            "spec.request: Invalid value: []byte{0x61, 0x62}: PEM block type must be CERTIFICATE "
            "REQUEST"]),
        ({"usages": []}, ["spec.usages: Required value"]),
        ({"usages": ["x", "client auth", "client auth"]}, [
            'spec.usages[0]: Unsupported value: "x": supported values: "any", "cert sign", '
            '"client auth", "code signing", "content commitment", "crl sign", "data encipherment", '
            '"decipher only", "digital signature", "email protection", "encipher only", '
            '"ipsec end system", "ipsec tunnel", "ipsec user", "key agreement", '
            '"key encipherment", "microsoft sgc", "netscape sgc", "ocsp signing", "s/mime", '
            '"server auth", "signing", "timestamping"',
            'spec.usages[2]: Duplicate value: "client auth"']),
        ({"signerName": ""}, ["spec.signerName: Required value"]),
        ({"signerName": "kubernetes.io/legacy-unknown"}, [
            'spec.signerName: Invalid value: "kubernetes.io/legacy-unknown": the legacy '
            "signerName is not allowed via this API version"]),
        ({"signerName": "a.b/c/d"}, [
            'spec.signerName: Invalid value: "a.b/c/d": must be a fully qualified domain and path '
            "of the form 'example.com/signer-name'"]),
        ({"signerName": "local/x"}, [
            'spec.signerName: Invalid value: "local": should be a domain with at least two '
            "segments separated by dots"]),
    ],
)  # fmt: skip
def test_faults(spec: dict[str, Any], expected: list[str]) -> None:
    assert texts(KIND.rules.validate(body(**spec))) == expected


def test_labels_of_a_signer_are_checked_one_by_one() -> None:
    (first, second) = texts(KIND.rules.validate(body(signerName="A.b/C")))
    assert first.startswith('spec.signerName: Invalid value: "A.b": validating label "A": a low')
    assert second.startswith('spec.signerName: Invalid value: "C": validating label "C": a low')


def test_a_request_another_key_signed_is_refused() -> None:
    """One bit of the signature changed; and a certificate is no request."""
    lines = GOOD.decode().splitlines()
    der = bytearray(b64decode("".join(lines[1:-1])))
    der[-1] ^= 1
    broken = f"{lines[0]}\n{b64encode(bytes(der)).decode()}\n{lines[-1]}\n".encode()
    (found,) = texts(KIND.rules.validate(body(request=b64encode(broken).decode())))
    assert found.endswith("the signature is not of the request's own key")
    (found,) = texts(KIND.rules.validate(body(request=CERT)))
    assert found.endswith("PEM block type must be CERTIFICATE REQUEST")


def with_status(*types: str, certificate: str = "", status: str = "True") -> Any:
    made = body()
    made["status"] = {"conditions": [{"type": t, "status": status} for t in types]}
    if certificate:
        made["status"]["certificate"] = certificate
    return made


@pytest.mark.parametrize(
    ("how", "new", "old", "expected"),
    [
        ("approval", with_status("Approved"), body(), []),
        ("approval", with_status("Approved", "Denied"), body(), [
            'status.conditions[1].type: Invalid value: "Denied": Approved and Denied conditions '
            "are mutually exclusive"]),
        ("approval", with_status("Denied"), with_status("Approved"), [
            'status.conditions: Forbidden: updates may not remove a condition of type "Approved"']),
        ("approval", with_status("Approved", status="False"), body(), [
            'status.conditions[0].status: Unsupported value: "False": supported values: "True"']),
        ("approval", with_status("A", "A"), body(), [
            'status.conditions[1].type: Duplicate value: "A"']),
        ("approval", with_status(""), body(), ["status.conditions[0].type: Required value"]),
        ("approval", with_status("A", status=""), body(), [
            "status.conditions[0].status: Required value"]),
        ("status", with_status("Approved"), body(), [
            'status.conditions: Forbidden: updates may not add a condition of type "Approved"']),
        ("status", with_status(), with_status("Failed"), [
            'status.conditions: Forbidden: updates may not remove a condition of type "Failed"']),
        ("status", with_status("Failed"), body(), []),
        ("status", with_status(certificate=CERT), body(), []),
        ("status", with_status(certificate=b64encode(b"x").decode()), body(), [
            'status.certificate: Invalid value: "<certificate data>": must contain at least one '
            "CERTIFICATE PEM block"]),
        ("status", with_status(certificate=b64encode(GOOD).decode()), body(), [
            'status.certificate: Invalid value: "<certificate data>": only CERTIFICATE PEM blocks '
            'are allowed, found "CERTIFICATE REQUEST"']),
        ("status", with_status(), with_status(certificate=CERT), [
            "status.certificate: Forbidden: updates may not modify existing certificate content"]),
        ("approval", with_status(certificate=CERT), body(), [
            "status.certificate: Forbidden: updates may not set certificate content"]),
    ],
)  # fmt: skip
def test_updates(how: str, new: Any, old: Any, expected: list[str]) -> None:
    rules = KIND.rules
    validate = rules.parts["approval"].validate if how == "approval" else rules.validate_status
    assert texts(validate(new, old)) == expected


def test_an_approval_may_not_be_reworded_by_the_status() -> None:
    new = with_status("Approved")
    new["status"]["conditions"][0]["reason"] = "Other"
    assert texts(KIND.rules.validate_status(new, with_status("Approved"))) == [
        'status.conditions: Forbidden: updates may not modify a condition of type "Approved"'
    ]


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (body(), "Pending"),
        (with_status("Approved"), "Approved"),
        (with_status("Approved", certificate=CERT), "Approved,Issued"),
        (with_status("Approved", "Failed"), "Approved,Failed"),
        (with_status("Denied"), "Denied"),
    ],
)
def test_columns(made: Any, expected: str) -> None:
    made["spec"].update({"username": "jane", "expirationSeconds": 86400})
    assert [c.name for c in KIND.columns] == [
        "Name", "Age", "SignerName", "Requestor", "RequestedDuration", "Condition",
    ]  # fmt: skip
    cells = [c.cell(made, 0.0) for c in KIND.columns]
    assert cells == ["r", "<unknown>", SIGNER, "jane", "24h", expected]


def test_fields() -> None:
    assert KIND.fields["spec.signerName"](body()) == SIGNER
