"""Admission of CertificateSigningRequests: who asked, when conditions changed, who may approve and
sign for a signer, and what no signer may be asked for."""

from __future__ import annotations

from sampan.api.call import User
from sampan.api.errors import StatusError, forbidden
from sampan.api.obj import Body
from sampan.api.rules.certificates import CLIENT, conditions, decoded
from sampan.apiserver.authz import Attributes
from sampan.apiserver.stages import Write
from sampan.lib.clock import rfc3339

RESOURCE = "certificatesigningrequests.certificates.k8s.io"
_MASTERS = "system:masters"
_CALLER = ("username", "uid", "groups", "extra")


class CertificateRequests:
    """Upstream's CertificateApproval, CertificateSigning and CertificateSubjectRestriction, and
    those parts of the kind's strategy that need the caller and the clock."""

    async def mutate(self, w: Write) -> None:
        if w.t.resource != RESOURCE:
            return
        if w.verb == "create":
            _name_caller(w.body.setdefault("spec", {}), w.user)
        elif w.subresource:
            assert w.old is not None
            _date(w.body, w.old.body, rfc3339(w.api.clock.now()))

    async def check(self, w: Write) -> None:
        if w.t.resource != RESOURCE:
            return
        if w.verb == "create":
            _no_masters(w)
        elif w.verb == "update" and w.subresource:
            assert w.old is not None
            signer = str(w.old.spec.get("signerName", ""))
            if w.subresource == "approval":
                _may(w, "approve", signer)
            elif _signs(w.body) != _signs(w.old.body):
                _may(w, "sign", signer)


def _name_caller(spec: Body, user: User) -> None:
    """What clients say of themselves is not taken."""
    for name in _CALLER:
        spec.pop(name, None)
    spec["username"] = user.name
    if user.uid:
        spec["uid"] = user.uid
    if user.groups:
        spec["groups"] = [*user.groups]
    if user.extra:
        spec["extra"] = {k: [*v] for k, v in user.extra.items()}


def _date(new: Body, old: Body, now: str) -> None:
    for c in conditions(new):
        if not c.get("lastUpdateTime"):
            c["lastUpdateTime"] = now
        if not c.get("lastTransitionTime"):
            same = (o for o in conditions(old) if _state(o) == _state(c))
            times = (o["lastTransitionTime"] for o in same if o.get("lastTransitionTime"))
            c["lastTransitionTime"] = next(times, now)


def _state(condition: Body) -> tuple[object, object]:
    return condition.get("type"), condition.get("status")


def _signs(body: Body) -> tuple[object, list[Body]]:
    return (body.get("status") or {}).get("certificate"), conditions(body)


def _no_masters(w: Write) -> None:
    """Nobody gets a certificate that passes every check of rights."""
    from sampan.lib import csr

    spec: Body = w.body["spec"]
    if spec.get("signerName") != CLIENT:
        return
    if _MASTERS in csr.parse(decoded(spec.get("request"))).organizations:
        text = f"use of {CLIENT} signer with {_MASTERS} group is not allowed"
        raise forbidden(w.t.resource, w.name, text)


def _may(w: Write, verb: str, signer: str) -> None:
    """Raises the 403 unless the caller has *verb* on the signer, or on all of its domain."""
    for name in (signer, f"{signer.partition('/')[0]}/*"):
        asked = Attributes(
            verb=verb, resource="signers", group="certificates.k8s.io", version="*", name=name
        )
        if w.api.authorizer.allowed(w.user, asked).allowed:
            return
    raise _refused(w, verb, signer)


def _refused(w: Write, verb: str, signer: str) -> StatusError:
    text = f'user not permitted to {verb} requests with signerName "{signer}"'
    return forbidden(w.t.resource, w.name, text)
