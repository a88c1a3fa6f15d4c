"""Service account tokens that are kept in Secrets: they do not expire, and hold as long as the
Secret has them. Their use is noted on the Secret, once a day.
"""

from __future__ import annotations

from base64 import b64decode
from contextlib import suppress
from datetime import UTC, datetime
from typing import NamedTuple

from sampan.api.obj import Body, Key, encode
from sampan.apiserver.pages import obj_of
from sampan.lib.clock import Clock
from sampan.store.base import Conflict, Put, Store

ISSUER = "kubernetes/serviceaccount"
LAST_USED = "kubernetes.io/legacy-token-last-used"
INVALID_SINCE = "kubernetes.io/legacy-token-invalid-since"
_PREFIX = "kubernetes.io/serviceaccount/"


class Kept(NamedTuple):
    """What such a token says."""

    namespace: str
    account: str
    uid: str
    secret: str


def claims_of(kept: Kept) -> Body:
    return {
        "iss": ISSUER,
        f"{_PREFIX}namespace": kept.namespace,
        f"{_PREFIX}secret.name": kept.secret,
        f"{_PREFIX}service-account.name": kept.account,
        f"{_PREFIX}service-account.uid": kept.uid,
        "sub": f"system:serviceaccount:{kept.namespace}:{kept.account}",
    }


def read(claims: Body) -> Kept:
    """Inverse of ``claims_of``. Raises KeyError, ValueError."""
    kept = Kept(
        str(claims[f"{_PREFIX}namespace"]), str(claims[f"{_PREFIX}service-account.name"]),
        str(claims[f"{_PREFIX}service-account.uid"]), str(claims[f"{_PREFIX}secret.name"]),
    )  # fmt: skip
    if claims.get("sub") != f"system:serviceaccount:{kept.namespace}:{kept.account}":
        raise ValueError("sub claim is invalid")
    if not all(kept):
        raise ValueError("a claim is missing")
    return kept


def today(clock: Clock) -> str:
    return datetime.fromtimestamp(clock.now(), UTC).date().isoformat()


async def check(store: Store, clock: Clock, kept: Kept, token: str) -> str:
    """Why *token* does not hold; '' if it does. Notes its use."""
    record = await store.get(Key("secrets", kept.namespace, kept.secret).path)
    if record is None or obj_of(record).is_deleting:
        return "service account token has been invalidated"
    secret = obj_of(record)
    held = (secret.body.get("data") or {}).get("token") or ""
    if b64decode(held) != token.encode():
        return "service account token does not match server's copy"
    labels = secret.labels
    if labels.get(LAST_USED) != today(clock):
        meta = {**secret.meta, "labels": {**labels, LAST_USED: today(clock)}}
        value = encode({**secret.body, "metadata": meta})
        with suppress(Conflict):  # somebody changed it meanwhile: the next use is noted
            await store.commit(Put(record.key, value, expect=record.revision))
    if labels.get(INVALID_SINCE):
        where = f"{kept.namespace}/{kept.secret}"
        return (
            f"the token in secret {where} for service account {kept.namespace}/{kept.account} has "
            "been marked invalid. Use tokens from the TokenRequest API or manually created "
            "secret-based tokens, or remove the 'kubernetes.io/legacy-token-invalid-since' label "
            "from the secret to temporarily allow use of this token"
        )
    return ""
