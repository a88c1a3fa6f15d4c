"""Signing, approval and cleaning of certificate requests: plans."""

from __future__ import annotations

from base64 import b64decode, b64encode
from ipaddress import ip_address
from typing import Any

import pytest
from cryptography import x509

from sampan.api.obj import Body, Key, Obj
from sampan.api.rules.certificates import CLIENT, KUBELET_CLIENT, KUBELET_SERVING
from sampan.control.plan import Again, Create, Delete, SetStatus, Update
from sampan.controllers.certificates import (
    RESOURCE,
    REVIEWS,
    CertificateApprover,
    CertificateCleaner,
    CertificateSigner,
    life,
    problem,
)
from sampan.lib import csr, tls
from sampan.lib.clock import rfc3339
from sampan.testing.plans import PlanWorld
from sampan.testing.requests import pem, request

NOW = 1_800_000_000.0
CA = tls.new_authority("test", now=NOW)
KEY = Key(RESOURCE, "default", "r")
NODE = ("system:node:n1", ("system:nodes",))
DNS = x509.DNSName("n1")
KUBELET = ["digital signature", "client auth"]
SERVING = ["digital signature", "key encipherment", "server auth"]


def add(w: PlanWorld, made: Body, *types: str, certificate: str = "", ago: float = 0.0) -> Obj:
    w.now = NOW
    at = rfc3339(NOW - ago)
    made["metadata"] |= {"namespace": "", "creationTimestamp": at}
    status: Body = {}
    if types:
        status["conditions"] = [{"type": t, "status": "True", "lastUpdateTime": at} for t in types]
    if certificate:
        status["certificate"] = certificate
    made["status"] = status
    w.add(RESOURCE, made)
    found = w[RESOURCE].get("", "r")
    assert isinstance(found, Obj)
    return found


def plan(controller: Any, *types: str, body: Body | None = None, **given: Any) -> Any:
    """The actions for one request, None where it is not looked at."""
    w = PlanWorld(controller)
    add(w, body or request("r", pem("jane"), CLIENT, ["client auth"]), *types, **given)
    view = controller.observe(Key(RESOURCE, "", "r"), w)
    return None if view is None else list(controller.plan(view, NOW))


# -- the rules of the three signers --------------------------------------------------------------


@pytest.mark.parametrize(
    ("signer", "subject", "names", "usages", "expected"),
    [
        (CLIENT, ("jane", ("devs",)), (), ["client auth"], ""),
        (CLIENT, ("jane", ()), (), ["client auth", *SERVING[:2]], ""),
        (CLIENT, ("jane", ()), (), ["server auth"],
         "invalid usage for client certificate: server auth"),
        (CLIENT, ("jane", ()), (), ["digital signature"],
         "missing required usage for client certificate: client auth"),
        (KUBELET_CLIENT, NODE, (), KUBELET, ""),
        (KUBELET_CLIENT, NODE, (), [*KUBELET, "key encipherment"], ""),
        (KUBELET_CLIENT, NODE, (), ["client auth"],
         "usages did not match [client auth digital signature key encipherment]"),
        (KUBELET_CLIENT, ("system:node:n1", ()), (), KUBELET,
         "subject organization is not system:nodes"),
        (KUBELET_CLIENT, ("n1", NODE[1]), (), KUBELET,
         "subject common name does not begin with system:node:"),
        (KUBELET_CLIENT, NODE, (DNS,), KUBELET, "DNS subjectAltNames are not allowed"),
        (KUBELET_CLIENT, NODE, (x509.RFC822Name("a@b.c"),), KUBELET,
         "Email subjectAltNames are not allowed"),
        (KUBELET_CLIENT, NODE, (x509.IPAddress(ip_address("10.0.0.1")),), KUBELET,
         "IP subjectAltNames are not allowed"),
        (KUBELET_CLIENT, NODE, (x509.UniformResourceIdentifier("a://b"),), KUBELET,
         "URI subjectAltNames are not allowed"),
        (KUBELET_SERVING, NODE, (DNS,), SERVING, ""),
        (KUBELET_SERVING, NODE, (DNS,), ["digital signature", "server auth"], ""),
        (KUBELET_SERVING, NODE, (), SERVING, "DNS or IP subjectAltName is required"),
        (KUBELET_SERVING, NODE, (DNS, x509.RFC822Name("a@b.c")), SERVING,
         "Email subjectAltNames are not allowed"),
        (KUBELET_SERVING, NODE, (DNS, x509.UniformResourceIdentifier("a://b")), SERVING,
         "URI subjectAltNames are not allowed"),
        (KUBELET_SERVING, ("x", NODE[1]), (DNS,), ["any"],
         "usages did not match [digital signature key encipherment server auth]"),
        (KUBELET_SERVING, ("x", NODE[1]), (DNS,), SERVING,
         "subject common name does not begin with system:node:"),
    ],
)  # fmt: skip
def test_what_each_signer_signs(
    signer: str, subject: Any, names: Any, usages: list[str], expected: str
) -> None:
    assert problem(signer, csr.parse(pem(*subject, names)), usages) == expected


# -- signing -------------------------------------------------------------------------------------


def certificate(actions: Any) -> x509.Certificate:
    (action,) = actions
    assert isinstance(action, SetStatus)
    return x509.load_pem_x509_certificate(b64decode(action.body["status"]["certificate"]))


def test_what_is_approved_is_signed() -> None:
    signer = CertificateSigner(csr.signer(CA))
    made = request(
        "r", pem("jane", ["a", "b"], [DNS]), CLIENT, ["client auth", "digital signature"]
    )
    first = plan(signer, "Approved", body=made)
    found = certificate(first)
    parent = x509.load_pem_x509_certificate(CA.certificate)
    found.verify_directly_issued_by(parent)
    assert found.subject.rfc4514_string() == "CN=jane,O=b,O=a"
    assert not found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["n1"]
    assert [u.dotted_string for u in found.extensions.get_extension_for_class(
        x509.ExtendedKeyUsage).value] == ["1.3.6.1.5.5.7.3.2"]  # fmt: skip
    usage = found.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature and not usage.key_cert_sign and not usage.key_encipherment
    assert found.not_valid_before_utc.timestamp() == NOW - 300
    assert found.not_valid_after_utc.timestamp() == NOW - 300 + 365 * 86400
    other = plan(signer, "Approved", body=request("r", pem("joe"), CLIENT, ["client auth"]))
    assert certificate(other).serial_number != found.serial_number


@pytest.mark.parametrize("types", [(), ("Denied",), ("Approved", "Failed")])
def test_what_is_not_approved_is_not_signed(types: tuple[str, ...]) -> None:
    assert plan(CertificateSigner(csr.signer(CA)), *types) is None


def test_what_is_signed_or_of_another_signer_is_left_alone() -> None:
    signer = CertificateSigner(csr.signer(CA))
    assert plan(signer, "Approved", certificate="eA==") is None
    other = request("r", pem("jane"), "example.com/s", ["client auth"])
    assert plan(signer, "Approved", body=other) is None


def test_what_a_signer_does_not_sign_fails() -> None:
    made = request("r", pem("jane"), CLIENT, ["server auth"])
    (action,) = plan(CertificateSigner(csr.signer(CA)), "Approved", body=made)
    assert action.body["status"]["conditions"][1] == {
        "type": "Failed", "status": "True", "reason": "SignerValidationFailure",
        "message": "invalid usage for client certificate: server auth",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [(None, 31_536_000), (600, 600), (1, 600), (7200, 7200), (99_999_999, 31_536_000)],
)
def test_lives(asked: int | None, seconds: float) -> None:
    assert life(asked) == seconds


def test_ends_of_certificates() -> None:
    """A short one has its whole time after now; none outlives its authority; an ended one signs
    nothing."""
    sign = csr.signer(CA)
    made = pem("jane")
    assert csr.expires(sign(made, ["client auth"], 600, "u", NOW)) == NOW + 600
    assert csr.expires(sign(made, ["client auth"], 86400, "u", NOW)) == NOW - 300 + 86400
    latest = csr.expires(CA.certificate)
    assert latest is not None
    assert csr.expires(sign(made, ["client auth"], 86400, "u", latest - 60)) == latest
    with pytest.raises(ValueError, match="refusing to sign"):
        sign(made, ["client auth"], 600, "u", latest)
    assert sign(made, ["any"], 600, "u", NOW) == sign(made, ["any"], 600, "u", NOW)


# -- approval ------------------------------------------------------------------------------------


def kubelet(username: str, **spec: Any) -> Body:
    return request("r", pem(*NODE), KUBELET_CLIENT, KUBELET, username=username, **spec)


def answer(action: Any, *, allowed: bool) -> Any:
    assert isinstance(action, Create) and action.resource == REVIEWS
    body = {**action.body, "status": {"allowed": allowed}}
    assert action.done is not None
    return action.done(Obj.of(Key(REVIEWS, "", ""), body, 0))


def test_a_kubelet_is_approved_by_review() -> None:
    (ask,) = plan(CertificateApprover(), body=kubelet("system:node:n1", groups=["g"]))
    assert ask.body["spec"] == {
        "user": "system:node:n1", "groups": ["g"],
        "resourceAttributes": {
            "group": "certificates.k8s.io", "resource": "certificatesigningrequests",
            "verb": "create", "subresource": "selfnodeclient"},
    }  # fmt: skip
    (update,) = answer(ask, allowed=True)
    assert isinstance(update, Update) and update.subresource == "approval"
    assert update.body["status"]["conditions"] == [{
        "type": "Approved", "status": "True", "reason": "AutoApproved", "message":
        "Auto approving self kubelet client certificate after SubjectAccessReview."}]  # fmt: skip
    (second,) = answer(ask, allowed=False)
    assert second.body["spec"]["resourceAttributes"]["subresource"] == "nodeclient"
    assert answer(second, allowed=False) == [Again(1.0)]  # rights may come later
    (update,) = answer(second, allowed=True)
    assert update.body["status"]["conditions"][0]["message"] == (
        "Auto approving kubelet client certificate after SubjectAccessReview."
    )


@pytest.mark.parametrize(("ago", "after"), [(0, 1.0), (40, 40.0), (5000, 1000.0)])
def test_a_refused_one_is_asked_for_again_ever_more_seldom(ago: float, after: float) -> None:
    (ask,) = plan(CertificateApprover(), body=kubelet("bootstrap"), ago=ago)
    assert answer(ask, allowed=False) == [Again(after)]


def test_another_s_certificate_takes_the_other_right() -> None:
    (ask,) = plan(CertificateApprover(), body=kubelet("bootstrap"))
    assert ask.body["spec"]["resourceAttributes"]["subresource"] == "nodeclient"


def test_others_are_for_people_to_approve() -> None:
    assert plan(CertificateApprover()) is None
    assert plan(CertificateApprover(), "Denied", body=kubelet("x")) is None
    odd = request("r", pem("jane"), KUBELET_CLIENT, KUBELET)
    assert plan(CertificateApprover(), body=odd) == []


# -- cleaning ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("types", "issued", "seconds"),
    [
        ((), False, 86400), (("Denied",), False, 3600), (("Failed",), False, 3600),
        (("Approved", "Failed"), False, 3600), (("Approved",), True, 3600),
    ],
)  # fmt: skip
def test_old_ones_go(types: tuple[str, ...], issued: bool, seconds: int) -> None:
    made = csr.signer(CA)(pem("jane"), ["client auth"], 86400, "u", NOW)
    given: Any = {"certificate": _text(made)} if issued else {}
    cleaner = CertificateCleaner()
    assert plan(cleaner, *types, ago=seconds - 5, **given) == [Again(6.0)]
    (gone,) = plan(cleaner, *types, ago=seconds + 1, **given)
    assert isinstance(gone, Delete)


def test_what_is_approved_and_not_issued_waits() -> None:
    assert plan(CertificateCleaner(), "Approved", ago=1e6) == []


def test_an_ended_certificate_goes_at_once() -> None:
    made = csr.signer(CA)(pem("jane"), ["client auth"], 600, "u", NOW - 700)
    (gone,) = plan(CertificateCleaner(), "Approved", certificate=_text(made))
    assert isinstance(gone, Delete)


def _text(data: bytes) -> str:
    return b64encode(data).decode()
