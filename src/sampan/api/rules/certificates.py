"""Validation of CertificateSigningRequests, and what each update of them may change."""

from __future__ import annotations

import binascii
from base64 import b64decode
from typing import Any

from sampan.api.errors import Cause
from sampan.api.obj import Body
from sampan.api.rules.field import (
    Raw,
    duplicate,
    forbidden,
    invalid,
    not_supported,
    quote,
    required,
    too_long,
)
from sampan.lib import names

CLIENT = "kubernetes.io/kube-apiserver-client"
KUBELET_CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
KUBELET_SERVING = "kubernetes.io/kubelet-serving"
LEGACY = "kubernetes.io/legacy-unknown"
USAGES = (
    "any", "cert sign", "client auth", "code signing", "content commitment", "crl sign",
    "data encipherment", "decipher only", "digital signature", "email protection",
    "encipher only", "ipsec end system", "ipsec tunnel", "ipsec user", "key agreement",
    "key encipherment", "microsoft sgc", "netscape sgc", "ocsp signing", "s/mime",
    "server auth", "signing", "timestamping",
)  # fmt: skip
_APPROVAL = ("Approved", "Denied")
_FINAL = (*_APPROVAL, "Failed")
_STATUSES = ("False", "True", "Unknown")
_LEAST = 600
_DOMAIN, _SIGNER = 253, 571
_EXCLUSIVE = "Approved and Denied conditions are mutually exclusive"


def decoded(value: Any) -> bytes:
    """The bytes of a base64 field; none where it is unreadable."""
    try:
        return b64decode(value or "")
    except (binascii.Error, ValueError):
        return b""


def conditions(body: Body) -> list[Body]:
    return list((body.get("status") or {}).get("conditions") or ())


def keep_all(new: Body, old: Body) -> None:
    """What was asked never changes, and the main resource's update leaves the status alone."""
    for part in ("spec", "status"):
        if part in old:
            new[part] = old[part]
        else:
            new.pop(part, None)


def take_approval(given: Body, new: Body) -> None:
    """Of an approval only the conditions count."""
    status = {**(new.get("status") or {})}
    status.pop("conditions", None)
    if wanted := conditions(given):
        status["conditions"] = wanted
    new["status"] = status


def validate_request(body: Body) -> list[Cause]:
    from sampan.lib import csr

    spec: Body = body.get("spec") or {}
    found: list[Cause] = []
    pem = decoded(spec.get("request"))
    try:
        csr.check(pem)
    except ValueError as e:
        shown = Raw("[]byte{" + ", ".join(f"{b:#x}" for b in pem) + "}")
        found.append(invalid("spec.request", shown, str(e)))
    usages = list(spec.get("usages") or ())
    if not usages:
        found.append(required("spec.usages"))
    for i, usage in enumerate(usages):
        if usage not in USAGES:
            found.append(not_supported(f"spec.usages[{i}]", usage, USAGES))
    for i, usage in enumerate(usages):
        if usage in usages[:i]:
            found.append(duplicate(f"spec.usages[{i}]", usage))
    found += signer_name("spec.signerName", spec.get("signerName") or "")
    seconds = spec.get("expirationSeconds")
    if seconds is not None and seconds < _LEAST:
        found.append(
            invalid(
                "spec.expirationSeconds", seconds,
                "may not specify a duration less than 600 seconds (10 minutes)",
            )
        )  # fmt: skip
    return found


def signer_name(path: str, value: str) -> list[Cause]:
    """``domain/path``: a domain of two labels or more, a path of subdomains."""
    if not value:
        return [required(path)]
    if value == LEGACY:
        text = "the legacy signerName is not allowed via this API version"
        return [invalid(path, value, text)]
    domain, slash, rest = value.partition("/")
    if not slash or "/" in rest:
        text = "must be a fully qualified domain and path of the form 'example.com/signer-name'"
        return [invalid(path, value, text)]
    found = [too_long(path, _DOMAIN)] if len(domain) > _DOMAIN else []
    labels = domain.split(".")
    for segment, parts, rule in (
        (domain, labels, "label"), (rest, rest.split("."), "subdomain"),
    ):  # fmt: skip
        for part in parts:
            for problem in names.RULES[rule](part):
                text = f"validating label {quote(part)}: {problem}"
                found.append(invalid(path, segment, text))
        if segment is domain and len(labels) < 2:
            text = "should be a domain with at least two segments separated by dots"
            found.append(invalid(path, domain, text))
    if len(value) > _SIGNER:
        found.append(too_long(path, _SIGNER))
    return found


def _conditions(body: Body) -> list[Cause]:
    """Faults of the conditions themselves."""
    found: list[Cause] = []
    seen: list[str] = []
    for i, c in enumerate(conditions(body)):
        path, type_, status = f"status.conditions[{i}]", c.get("type") or "", c.get("status") or ""
        if not type_:
            found.append(required(f"{path}.type"))
        allowed = ("True",) if type_ in _FINAL else _STATUSES
        if not status:
            found.append(required(f"{path}.status"))
        elif status not in allowed:
            found.append(not_supported(f"{path}.status", status, allowed))
        if type_ in _APPROVAL and any(t in seen for t in _APPROVAL if t != type_):
            found.append(invalid(f"{path}.type", type_, _EXCLUSIVE))
        if type_ in seen:
            found.append(duplicate(f"{path}.type", type_))
        seen.append(type_)
    return found


def _of_type(body: Body, type_: str) -> list[Body]:
    return [c for c in conditions(body) if c.get("type") == type_]


def _changes(new: Body, old: Body, *, approves: bool = False, signs: bool = False) -> list[Cause]:
    """What an update may not do to conditions and certificate. approves, signs: which of them it
    is there for."""
    from sampan.lib import csr

    found = _conditions(new)
    after = (new.get("status") or {}).get("certificate") or ""
    before = (old.get("status") or {}).get("certificate") or ""
    if after and after != before:
        try:
            csr.check_certificates(decoded(after))
        except ValueError as e:
            found.append(invalid("status.certificate", "<certificate data>", str(e)))
    where = "status.conditions"
    for type_ in _FINAL:
        if len(_of_type(new, type_)) < len(_of_type(old, type_)):
            text = f"updates may not remove a condition of type {quote(type_)}"
            found.append(forbidden(where, text))
    for type_ in () if approves else _APPROVAL:
        now, then = _of_type(new, type_), _of_type(old, type_)
        if len(now) > len(then):
            text = f"updates may not add a condition of type {quote(type_)}"
            found.append(forbidden(where, text))
        elif len(now) == len(then) and now != then:
            text = f"updates may not modify a condition of type {quote(type_)}"
            found.append(forbidden(where, text))
    if after != before:
        if not signs:
            text = "updates may not set certificate content"
            found.append(forbidden("status.certificate", text))
        elif before:
            text = "updates may not modify existing certificate content"
            found.append(forbidden("status.certificate", text))
    return found


def validate_update(new: Body, old: Body) -> list[Cause]:
    return _changes(new, old)


def validate_approval(new: Body, old: Body) -> list[Cause]:
    return _changes(new, old, approves=True)


def validate_status(new: Body, old: Body) -> list[Cause]:
    return _changes(new, old, signs=True)
