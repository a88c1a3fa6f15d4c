"""Columns of CertificateSigningRequests."""

from __future__ import annotations

from sampan.api.columns.cells import AGE, NAME, NONE, dig, text
from sampan.api.obj import Body
from sampan.api.resource import Column
from sampan.lib.duration import human


def _duration(body: Body, _now: float) -> str:
    seconds = dig(body, "spec.expirationSeconds")
    return NONE if seconds is None else human(seconds)


def condition(body: Body, _now: float) -> str:
    """Approved, Denied or Pending, then whether it failed and whether it was issued."""
    types = {c.get("type") for c in dig(body, "status.conditions", ())}
    found = "Denied" if "Denied" in types else "Approved" if "Approved" in types else "Pending"
    found += ",Failed" if "Failed" in types else ""
    return found + (",Issued" if dig(body, "status.certificate") else "")


REQUEST = (
    NAME,
    AGE,
    text("SignerName", "spec.signerName", NONE, about="Who is asked to sign."),
    text("Requestor", "spec.username", about="Who asked."),
    Column("RequestedDuration", _duration, description="How long it is to be valid."),
    Column("Condition", condition, description="What became of it."),
)
