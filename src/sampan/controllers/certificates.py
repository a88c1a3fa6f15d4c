"""CertificateSigningRequests: kubelets' are approved, what is approved is signed, old ones go."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Sequence

from sampan.api.obj import Body, Key, Obj
from sampan.api.rules.certificates import (
    CLIENT,
    KUBELET_CLIENT,
    KUBELET_SERVING,
    conditions,
    decoded,
)
from sampan.control.plan import (
    Action,
    Again,
    Caches,
    Create,
    Delete,
    SetStatus,
    Trigger,
    Update,
    own,
)
from sampan.lib import csr
from sampan.lib.clock import parse_rfc3339

RESOURCE = "certificatesigningrequests.certificates.k8s.io"
REVIEWS = "subjectaccessreviews.authorization.k8s.io"
LONGEST = 365 * 86400.0  # seconds; --cluster-signing-duration
_SHORTEST = 600.0
_HOUR, _DAY = 3600.0, 86400.0
_SOONEST, _LATEST = 1.0, 1000.0  # seconds until a refused one is asked for again
_NODES = ("system:nodes",)
_NODE = "system:node:"
_OPTIONAL = ("digital signature", "key encipherment")
# Subresource whose creation the requestor must be allowed, and the words of the approval.
_REVIEWED = (
    ("selfnodeclient",
     "Auto approving self kubelet client certificate after SubjectAccessReview."),
    ("nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview."),
)  # fmt: skip


class _Requests:
    """What the three have in common: each request on its own."""

    name = "certificate-controller"
    workers = 2

    def __init__(self) -> None:
        self.triggers: tuple[Trigger, ...] = (own(RESOURCE),)
        self.indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]] = {}

    def observe(self, key: Key, caches: Caches) -> Obj | None:
        found = caches[RESOURCE].get("", key.name)
        return None if found is None or found.is_deleting else found


def _types(request: Obj) -> set[str]:
    return {str(c.get("type")) for c in conditions(request.body)}


def _pem(request: Obj) -> bytes:
    return decoded(request.spec.get("request"))


# -- the rules of signers ------------------------------------------------------------------------


def problem(signer: str, asked: csr.Request, usages: Sequence[str]) -> str:
    """Why *signer* does not sign it; '' where it does."""
    if signer == CLIENT:
        return _client_usages(usages)
    if asked.organizations != _NODES:
        return "subject organization is not system:nodes"
    if signer == KUBELET_SERVING:
        needed, found = "server auth", _serving_names(asked)
    else:
        needed, found = "client auth", _no_names(asked)
    named = "" if asked.common_name.startswith(_NODE) else (
        "subject common name does not begin with system:node:"
    )  # fmt: skip
    used = _node_usages(usages, needed)
    last = (used, named) if signer == KUBELET_SERVING else (named, used)
    return found or last[0] or last[1]


def _client_usages(usages: Sequence[str]) -> str:
    for usage in usages:
        if usage != "client auth" and usage not in _OPTIONAL:
            return f"invalid usage for client certificate: {usage}"
    if "client auth" not in usages:
        return "missing required usage for client certificate: client auth"
    return ""


def _node_usages(usages: Sequence[str], needed: str) -> str:
    every = {"digital signature", "key encipherment", needed}
    if {*usages} in (every, every - {"key encipherment"}):
        return ""
    return f"usages did not match [{' '.join(sorted(every))}]"


def _serving_names(asked: csr.Request) -> str:
    if not asked.dns and not asked.ips:
        return "DNS or IP subjectAltName is required"
    if asked.emails:
        return "Email subjectAltNames are not allowed"
    return "URI subjectAltNames are not allowed" if asked.uris else ""


def _no_names(asked: csr.Request) -> str:
    kinds = (("DNS", asked.dns), ("Email", asked.emails), ("IP", asked.ips), ("URI", asked.uris))
    for kind, held in kinds:
        if held:
            return f"{kind} subjectAltNames are not allowed"
    return ""


# -- signing -------------------------------------------------------------------------------------


class CertificateSigner(_Requests):
    """Signs what is approved, by *sign*; or says why it does not."""

    def __init__(self, sign: csr.Sign) -> None:
        super().__init__()
        self._sign = sign

    def observe(self, key: Key, caches: Caches) -> Obj | None:
        found = super().observe(key, caches)
        if found is None or found.status.get("certificate"):
            return None
        types = _types(found)
        mine = found.spec.get("signerName") in (CLIENT, KUBELET_CLIENT, KUBELET_SERVING)
        return found if mine and "Approved" in types and not types & {"Denied", "Failed"} else None

    def plan(self, view: Obj, now: float) -> Sequence[Action]:
        spec, pem = view.spec, _pem(view)
        usages = list(spec.get("usages") or ())
        why = problem(str(spec["signerName"]), csr.parse(pem), usages)
        status: Body = {**view.status}
        if why:
            failed = {"type": "Failed", "status": "True", "reason": "SignerValidationFailure",
                      "message": why}  # fmt: skip
            status["conditions"] = [*conditions(view.body), failed]
        else:
            made = self._sign(pem, usages, life(spec.get("expirationSeconds")), view.uid, now)
            status["certificate"] = b64encode(made).decode()
        return [SetStatus(RESOURCE, {**view.body, "status": status})]


def life(asked: int | None) -> float:
    """Seconds a certificate lives: what was asked for, ten minutes to a year."""
    return LONGEST if asked is None else min(max(float(asked), _SHORTEST), LONGEST)


# -- approval ------------------------------------------------------------------------------------


class CertificateApprover(_Requests):
    """Approves client certificates of kubelets whose requestor may have them, by review."""

    def observe(self, key: Key, caches: Caches) -> Obj | None:
        found = super().observe(key, caches)
        if found is None or found.spec.get("signerName") != KUBELET_CLIENT:
            return None
        decided = found.status.get("certificate") or _types(found) & {"Approved", "Denied"}
        return None if decided else found

    def plan(self, view: Obj, now: float) -> Sequence[Action]:
        asked = csr.parse(_pem(view))
        if problem(KUBELET_CLIENT, asked, list(view.spec.get("usages") or ())):
            return []
        own_name = view.spec.get("username") == asked.common_name
        return _review(view, _REVIEWED if own_name else _REVIEWED[1:], now)


def _review(request: Obj, left: Sequence[tuple[str, str]], now: float) -> Sequence[Action]:
    """Ask whether the requestor may; where not, the next question. Rights may come later: it is
    asked again, each time after as long as it has waited already."""
    if not left:
        waited = now - parse_rfc3339(request.meta["creationTimestamp"])
        return [Again(min(max(waited, _SOONEST), _LATEST))]
    (subresource, message), *rest = left
    spec: Body = {
        "user": request.spec.get("username", ""),
        "resourceAttributes": {
            "group": "certificates.k8s.io", "resource": "certificatesigningrequests",
            "verb": "create", "subresource": subresource,
        },
    }  # fmt: skip
    for name in ("uid", "groups", "extra"):
        if request.spec.get(name):
            spec[name] = request.spec[name]

    def answered(review: Obj) -> Sequence[Action]:
        if not review.status.get("allowed"):
            return _review(request, rest, now)
        approved = {"type": "Approved", "status": "True", "reason": "AutoApproved",
                    "message": message}  # fmt: skip
        status = {**request.status, "conditions": [*conditions(request.body), approved]}
        return [Update(RESOURCE, {**request.body, "status": status}, subresource="approval")]

    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "metadata": {}, "spec": spec}  # fmt: skip
    return [Create(REVIEWS, body, done=answered)]


# -- cleaning ------------------------------------------------------------------------------------


class CertificateCleaner(_Requests):
    """Deletes requests that are over: decided or failed for an hour, undecided for a day, or of a
    certificate that has ended."""

    def plan(self, view: Obj, now: float) -> Sequence[Action]:
        ends = min(_ends(view), default=None)
        if ends is None:
            return []
        if now <= ends:
            return [Again(ends - now + 1.0)]
        return [Delete(view.key, uid=view.uid)]


def _ends(request: Obj) -> Iterator[float]:
    """The times after which it may go."""
    held = conditions(request.body)
    if not held:
        yield parse_rfc3339(request.meta["creationTimestamp"]) + _DAY
    certificate = decoded(request.status.get("certificate"))
    for c in held:
        issued = c.get("type") == "Approved" and bool(certificate)
        if issued and (end := csr.expires(certificate)) is not None:
            yield end
        if (issued or c.get("type") in ("Denied", "Failed")) and c.get("lastUpdateTime"):
            yield parse_rfc3339(c["lastUpdateTime"]) + _HOUR
