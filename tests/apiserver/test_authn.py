"""Tokens and certificates."""

from __future__ import annotations

import asyncio
import base64

import orjson
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from sampan.api.call import User
from sampan.apiserver.authn import (
    InvalidToken,
    Reference,
    TokenIssuer,
    certificate_user,
)
from sampan.apiserver.authz import RbacAuthorizer
from sampan.apiserver.reviews import review
from sampan.lib.tls import new_key

RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
    serialization.Encoding.PEM,
    serialization.PrivateFormat.PKCS8,
    serialization.NoEncryption(),
)


class Hands:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.time = 1_000_000.0

    def now(self) -> float:
        return self.time


def claims(token: str) -> dict[str, object]:
    part = token.split(".")[1]
    found: dict[str, object] = orjson.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


@pytest.mark.parametrize("key", [new_key(), RSA_KEY], ids=["ecdsa", "rsa"])
def test_a_token_says_who_its_bearer_is(key: bytes) -> None:
    issuer = TokenIssuer(key, "https://issuer", clock=Hands())
    issued = issuer.issue(
        namespace="ns", name="sa", uid="u1", seconds=600,
        pod=Reference("p", "u2"), node=Reference("n", "u3"),
    )  # fmt: skip
    body = claims(issued.token)
    assert body["sub"] == "system:serviceaccount:ns:sa"
    assert body["aud"] == ["https://issuer"]
    assert body["exp"] == 1_000_600
    assert body["kubernetes.io"] == {
        "namespace": "ns",
        "serviceaccount": {"name": "sa", "uid": "u1"},
        "pod": {"name": "p", "uid": "u2"},
        "node": {"name": "n", "uid": "u3"},
    }
    user = issuer.verify(issued.token).user()
    assert user.name == "system:serviceaccount:ns:sa"
    assert user.uid == "u1"
    assert user.groups == (
        "system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated",
    )  # fmt: skip
    assert user.extra["authentication.kubernetes.io/pod-name"] == ("p",)
    assert user.extra["authentication.kubernetes.io/credential-id"] == (f"JTI={body['jti']}",)
    head, payload, signature = issued.token.split(".")
    for forged in (
        f"{head}.{payload}.{signature[:-4]}AAAA",
        f"{head}.{payload[:-2]}AA.{signature}",
        f"{head}.{payload}",
        "a.b.c",
        "",
    ):
        with pytest.raises(InvalidToken):
            issuer.verify(forged)
    with pytest.raises(InvalidToken):
        TokenIssuer(new_key(), "https://issuer").verify(issued.token)


def test_an_unsigned_token_is_refused() -> None:
    issuer = TokenIssuer(new_key(), "https://issuer")
    payload = issuer.issue(namespace="ns", name="sa", uid="u").token.split(".")[1]
    head = base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=")
    for token in (f"{head}.{payload}.", f"{head}.{payload}.AAAA"):
        with pytest.raises(InvalidToken):
            issuer.verify(token)


def test_tokens_end() -> None:
    clock = Hands()
    issuer = TokenIssuer(new_key(), "https://issuer", clock=clock)
    token = issuer.issue(namespace="ns", name="sa", uid="u", seconds=600).token
    issuer.verify(token)
    clock.time += 599
    issuer.verify(token)
    clock.time += 1
    with pytest.raises(InvalidToken):
        issuer.verify(token)


def test_a_pods_mounted_token_outlives_its_renewal() -> None:
    clock = Hands()
    issuer = TokenIssuer(new_key(), "https://issuer", clock=clock)
    issued = issuer.issue(
        namespace="ns", name="sa", uid="u", seconds=3607, pod=Reference("p", "u2")
    )
    assert issued.expires == clock.time + 3607
    body = claims(issued.token)
    assert body["exp"] == clock.time + 365 * 24 * 3600
    assert body["kubernetes.io"]["warnafter"] == clock.time + 3607  # type: ignore[index]


def test_a_token_is_worth_nothing_without_its_account_or_pod() -> None:
    uids = {("serviceaccounts", "ns", "sa"): "u1", ("pods", "ns", "p"): "u2"}

    async def lookup(resource: str, namespace: str, name: str) -> str:
        return uids.get((resource, namespace, name), "")

    async def check() -> None:
        issuer = TokenIssuer(new_key(), "https://issuer", lookup=lookup)
        token = issuer.issue(
            namespace="ns", name="sa", uid="u1", pod=Reference("p", "u2"),
            audiences=["https://issuer", "vault"],
        ).token  # fmt: skip
        _, audiences = await issuer.authenticate(token)
        assert audiences == ("https://issuer",)
        _, audiences = await issuer.authenticate(token, ["vault", "other"])
        assert audiences == ("vault",)
        with pytest.raises(InvalidToken):
            await issuer.authenticate(token, ["other"])
        uids["pods", "ns", "p"] = "another"
        with pytest.raises(InvalidToken):
            await issuer.authenticate(token)
        uids["pods", "ns", "p"] = "u2"
        uids["serviceaccounts", "ns", "sa"] = "another"
        with pytest.raises(InvalidToken):
            await issuer.authenticate(token)
        answer = await review(
            "TokenReview", {"spec": {"token": token}}, user=certificate(),
            authorizer=RbacAuthorizer(), tokens=issuer,
        )  # fmt: skip
        assert "authenticated" not in answer
        assert "has been deleted" in answer["error"]
        uids["serviceaccounts", "ns", "sa"] = "u1"
        answer = await review(
            "TokenReview", {"spec": {"token": token}}, user=certificate(),
            authorizer=RbacAuthorizer(), tokens=issuer,
        )  # fmt: skip
        assert answer["authenticated"]
        assert answer["user"]["username"] == "system:serviceaccount:ns:sa"

    asyncio.run(check())


def certificate() -> User:
    names = (
        (("organizationName", "system:masters"),),
        (("organizationName", "devs"),),
        (("commonName", "jane"),),
    )
    user = certificate_user({"subject": names})
    assert user is not None
    return user


def test_a_certificates_names() -> None:
    user = certificate()
    assert user.name == "jane"
    assert user.groups == ("system:masters", "devs", "system:authenticated")
    assert certificate_user({"subject": ((("organizationName", "x"),),)}) is None
    assert certificate_user(None) is None
