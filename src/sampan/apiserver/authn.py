"""Authentication: client certificates and service account tokens; what is left is anonymous."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple
from urllib.parse import unquote

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from sampan.api.call import User
from sampan.api.errors import StatusError, bad_request, unauthorized
from sampan.api.obj import Body, Key
from sampan.apiserver import legacy_tokens
from sampan.apiserver.authz import Attributes, RbacAuthorizer
from sampan.apiserver.pages import obj_of
from sampan.lib.clock import Clock, RealClock
from sampan.lib.ids import Ids
from sampan.store.base import Store

ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))
AUTHENTICATED = "system:authenticated"
ACCOUNT_PREFIX = "system:serviceaccount:"
_CREDENTIAL = "authentication.kubernetes.io/credential-id"
_POD_NAME = "authentication.kubernetes.io/pod-name"
_POD_UID = "authentication.kubernetes.io/pod-uid"
_NODE_NAME = "authentication.kubernetes.io/node-name"
_NODE_UID = "authentication.kubernetes.io/node-uid"

# A kubelet's token asks for this many seconds; it is signed for a year and marked to be renewed
# after the seconds asked for, so that clients which never re-read the file go on working.
EXTENDED_ASK = 3607
EXTENDED_LIFE = 365 * 24 * 3600

Lookup = Callable[[str, str, str], Awaitable[str]]  # resource, namespace, name -> uid or ''


class InvalidToken(Exception):
    """Why a token is not accepted."""


class Reference(NamedTuple):
    name: str
    uid: str


class Issued(NamedTuple):
    token: str
    expires: float  # what the TokenRequest's status reports


@dataclass(frozen=True, slots=True)
class Claims:
    """A verified token's content."""

    namespace: str
    account: Reference
    audiences: tuple[str, ...]
    expires: float
    id: str = ""
    pod: Reference | None = None
    node: Reference | None = None
    secret: Reference | None = None
    kept: legacy_tokens.Kept | None = None  # of a token that is kept in a Secret

    def user(self) -> User:
        """The identity the token stands for."""
        extra: dict[str, tuple[str, ...]] = {}
        if self.id:
            extra[_CREDENTIAL] = (f"JTI={self.id}",)
        if self.pod:
            extra[_POD_NAME], extra[_POD_UID] = (self.pod.name,), (self.pod.uid,)
        if self.node:
            extra[_NODE_NAME] = (self.node.name,)
            if self.node.uid:
                extra[_NODE_UID] = (self.node.uid,)
        return replace(
            account_user(self.namespace, self.account.name), uid=self.account.uid, extra=extra
        )


def account_user(namespace: str, name: str) -> User:
    """The user a service account is."""
    return User(
        f"{ACCOUNT_PREFIX}{namespace}:{name}",
        ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", AUTHENTICATED),
    )


class TokenIssuer:
    """Signs and verifies service account tokens (RS256 with an RSA key, ES256 with P-256).

    lookup answers the uid of a live object, '' where there is none; ``bind_store`` makes one.
    """

    def __init__(
        self,
        private_key_pem: bytes,
        issuer: str = "https://kubernetes.default.svc.cluster.local",
        *,
        clock: Clock | None = None,
        ids: Ids | None = None,
        lookup: Lookup | None = None,
        audiences: Sequence[str] = (),
    ) -> None:
        key = serialization.load_pem_private_key(private_key_pem, None)
        if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
            raise ValueError("service account tokens need an RSA or an ECDSA key")
        self._key = key
        self.issuer = issuer
        self.audiences = tuple(audiences) or (issuer,)
        self._clock = clock or RealClock()
        self._ids = ids or Ids()
        self.lookup = lookup
        der = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.key_id = _b64(hashlib.sha256(der).digest())
        self.algorithm = "RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256"
        self._head = _b64(orjson.dumps({"alg": self.algorithm, "kid": self.key_id}))
        self._verified: dict[str, tuple[Claims, float]] = {}
        self._store: Store | None = None

    def bind_store(self, store: Store) -> None:
        """Checks accounts and pods against *store* from now on."""

        async def lookup(resource: str, namespace: str, name: str) -> str:
            record = await store.get(Key(resource, namespace, name).path)
            return obj_of(record).uid if record is not None else ""

        self.lookup = lookup
        self._store = store

    def keep(self, namespace: str, account: str, uid: str, secret: str) -> str:
        """A token for a Secret to keep: it does not expire."""
        kept = legacy_tokens.Kept(namespace, account, uid, secret)
        return self._signed(legacy_tokens.claims_of(kept))

    def _signed(self, claims: Body) -> str:
        text = f"{self._head}.{_b64(orjson.dumps(claims))}"
        return f"{text}.{_b64(self._sign(text.encode()))}"

    def issue(
        self,
        *,
        namespace: str,
        name: str,
        uid: str,
        audiences: Sequence[str] = (),
        seconds: int = 3600,
        pod: Reference | None = None,
        node: Reference | None = None,
        secret: Reference | None = None,
    ) -> Issued:
        """A token of a service account, bound to *pod* (with its *node*) or *secret* if given."""
        now = int(self._clock.now())
        aud = list(audiences) or list(self.audiences)
        identity: Body = {"namespace": namespace, "serviceaccount": {"name": name, "uid": uid}}
        if pod:
            identity["pod"] = {"name": pod.name, "uid": pod.uid}
        if node:
            identity["node"] = (
                {"name": node.name, "uid": node.uid} if node.uid else {"name": node.name}
            )
        if secret:
            identity["secret"] = {"name": secret.name, "uid": secret.uid}
        expires = now + seconds
        if pod and seconds == EXTENDED_ASK and set(aud) <= set(self.audiences):
            identity["warnafter"] = expires
            expires = now + EXTENDED_LIFE
        claims: Body = {
            "aud": aud,
            "exp": expires,
            "iat": now,
            "iss": self.issuer,
            "jti": self._ids.uid(),
            "kubernetes.io": identity,
            "nbf": now,
            "sub": f"{ACCOUNT_PREFIX}{namespace}:{name}",
        }
        return Issued(self._signed(claims), float(now + seconds))

    def verify(self, token: str) -> Claims:
        """The claims of a token that this issuer signed and that is valid now. Whether what it
        is bound to still exists is ``authenticate``'s question. Raises InvalidToken."""
        now = self._clock.now()
        known = self._verified.get(token)
        if known is not None:
            claims, not_before = known
            _check_times(claims.expires, not_before, now)
            return claims
        head, _, rest = token.partition(".")
        payload, _, signature = rest.partition(".")
        if not (head and payload and signature):
            raise InvalidToken("not a JSON web token")
        try:
            header = orjson.loads(_unb64(head))
            if header.get("alg") != self.algorithm or header.get("kid") not in (None, self.key_id):
                raise InvalidToken("signed by another key")
            self._check(_unb64(signature), f"{head}.{payload}".encode())
            body = orjson.loads(_unb64(payload))
            claims = _claims(body)
            not_before = float(body.get("nbf") or 0)
        except InvalidToken:
            raise
        except (ValueError, InvalidSignature, KeyError, TypeError, AttributeError) as e:
            raise InvalidToken("invalid bearer token") from e
        if claims.kept is None and body.get("iss") != self.issuer:
            raise InvalidToken("issued by somebody else")
        _check_times(claims.expires, not_before, now)
        if len(self._verified) >= 4096:
            self._verified.clear()
        self._verified[token] = (claims, not_before)
        return claims

    async def authenticate(
        self, token: str, audiences: Sequence[str] = ()
    ) -> tuple[User, tuple[str, ...]]:
        """The user a token stands for and the *audiences* (default: the API's) it is meant for.
        Raises InvalidToken."""
        claims = self.verify(token)
        wanted = tuple(audiences) or self.audiences
        meant = claims.audiences if claims.kept is None else self.audiences
        shared = tuple(a for a in wanted if a in meant)
        if not shared:
            raise InvalidToken(
                f"token audiences {list(claims.audiences)} is invalid for {list(wanted)}"
            )
        if self.lookup is not None:
            await self._alive("serviceaccounts", claims.namespace, claims.account)
            if claims.pod:
                await self._alive("pods", claims.namespace, claims.pod)
            if claims.secret:
                await self._alive("secrets", claims.namespace, claims.secret)
        if claims.kept is not None and self._store is not None:
            why = await legacy_tokens.check(self._store, self._clock, claims.kept, token)
            if why:
                raise InvalidToken(why)
        return claims.user(), shared

    async def _alive(self, resource: str, namespace: str, reference: Reference) -> None:
        assert self.lookup is not None
        if await self.lookup(resource, namespace, reference.name) != reference.uid:
            raise InvalidToken(f"{resource} {namespace}/{reference.name} has been deleted")

    def jwks(self) -> Body:
        """The public key, as ``/openid/v1/jwks`` answers it."""
        public = self._key.public_key()
        key: Body = {"use": "sig", "kid": self.key_id, "alg": self.algorithm}
        if isinstance(public, rsa.RSAPublicKey):
            n = public.public_numbers()
            key |= {"kty": "RSA", "n": _b64(_big(n.n)), "e": _b64(_big(n.e))}
        else:
            p = public.public_numbers()
            key |= {
                "kty": "EC", "crv": "P-256",
                "x": _b64(p.x.to_bytes(32, "big")), "y": _b64(p.y.to_bytes(32, "big")),
            }  # fmt: skip
        return {"keys": [key]}

    def openid_configuration(self) -> Body:
        return {
            "issuer": self.issuer,
            "jwks_uri": f"{self.issuer}/openid/v1/jwks",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [self.algorithm],
        }

    def _sign(self, text: bytes) -> bytes:
        if isinstance(self._key, rsa.RSAPrivateKey):
            return self._key.sign(text, padding.PKCS1v15(), hashes.SHA256())
        r, s = utils.decode_dss_signature(self._key.sign(text, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    def _check(self, signature: bytes, text: bytes) -> None:
        public = self._key.public_key()
        if isinstance(public, rsa.RSAPublicKey):
            public.verify(signature, text, padding.PKCS1v15(), hashes.SHA256())
            return
        if len(signature) != 64:
            raise InvalidSignature
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        public.verify(utils.encode_dss_signature(r, s), text, ec.ECDSA(hashes.SHA256()))


def _check_times(expires: float, not_before: float, now: float) -> None:
    if now >= expires:
        raise InvalidToken("service account token has expired")
    if now < not_before - 60:
        raise InvalidToken("service account token is not valid yet")


def _claims(body: Body) -> Claims:
    if body.get("iss") == legacy_tokens.ISSUER:
        kept = legacy_tokens.read(body)
        account = Reference(kept.account, kept.uid)
        return Claims(kept.namespace, account, (), math.inf, kept=kept)
    identity = body["kubernetes.io"]
    aud = body.get("aud") or []
    return Claims(
        namespace=identity["namespace"],
        account=_reference(identity["serviceaccount"]) or Reference("", ""),
        audiences=tuple(aud if isinstance(aud, list) else [aud]),
        expires=float(body["exp"]),
        id=str(body.get("jti") or ""),
        pod=_reference(identity.get("pod")),
        node=_reference(identity.get("node")),
        secret=_reference(identity.get("secret")),
    )


def _reference(value: Any) -> Reference | None:
    return Reference(value["name"], str(value.get("uid") or "")) if value else None


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unb64(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def _big(n: int) -> bytes:
    return n.to_bytes((n.bit_length() + 7) // 8, "big")


def certificate_user(certificate: Mapping[str, Any] | None, der: bytes = b"") -> User | None:
    """The user of a verified client certificate (``getpeercert()``): CN is the name, each O a
    group. None without a common name."""
    name, groups = "", []
    for rdn in (certificate or {}).get("subject", ()):
        for key, value in rdn:
            if key == "commonName":
                name = value
            elif key == "organizationName":
                groups.append(value)
    if not name:
        return None
    extra = {_CREDENTIAL: (f"X509SHA256={hashlib.sha256(der).hexdigest()}",)} if der else {}
    return User(name, (*groups, AUTHENTICATED), extra=extra)


class Authenticator:
    """Who is calling. headers: lower-case names to all their values."""

    def __init__(
        self, *, tokens: TokenIssuer | None = None, authorizer: RbacAuthorizer | None = None
    ) -> None:
        self.tokens = tokens
        self._authorizer = authorizer

    async def authenticate(
        self, headers: Mapping[str, Sequence[str]], certificate_user: User | None
    ) -> User:
        """The calling user, impersonation applied. Raises StatusError 401, 403 or 400."""
        user = await self._credentials(headers, certificate_user)
        if any(h.startswith("impersonate-") for h in headers):
            return self._impersonate(user, headers)
        return user

    async def _credentials(
        self, headers: Mapping[str, Sequence[str]], certificate_user: User | None
    ) -> User:
        if certificate_user is not None:
            return certificate_user
        given = headers.get("authorization")
        if not given:
            return ANONYMOUS
        scheme, _, token = given[0].strip().partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token or self.tokens is None:
            raise unauthorized()
        try:
            user, _ = await self.tokens.authenticate(token)
        except InvalidToken as e:
            raise unauthorized() from e
        return user

    def _impersonate(self, user: User, headers: Mapping[str, Sequence[str]]) -> User:
        name = (headers.get("impersonate-user") or [""])[0]
        groups = list(headers.get("impersonate-group") or ())
        uid = (headers.get("impersonate-uid") or [""])[0]
        extra = {
            _unescape(h.removeprefix("impersonate-extra-")): tuple(v)
            for h, v in headers.items()
            if h.startswith("impersonate-extra-")
        }
        if not name:
            raise bad_request("impersonation of a group, a uid or extra needs Impersonate-User too")
        if self._authorizer is None:
            raise StatusError(403, "Forbidden", "forbidden: impersonation is not available")
        asked: list[Attributes] = []
        account = name.removeprefix(ACCOUNT_PREFIX).split(":")
        is_account = name.startswith(ACCOUNT_PREFIX) and len(account) == 2
        if is_account:
            asked.append(_impersonation("serviceaccounts", account[1], namespace=account[0]))
        else:
            asked.append(_impersonation("users", name))
        asked += [_impersonation("groups", g) for g in groups]
        if uid:
            asked.append(_impersonation("uids", uid, group="authentication.k8s.io"))
        for key, values in extra.items():
            asked += [
                _impersonation("userextras", v, group="authentication.k8s.io", subresource=key)
                for v in values
            ]
        for attributes in asked:
            self._authorizer.require(user, attributes)
        if is_account and not groups:
            groups = list(account_user(account[0], account[1]).groups)
        last = "system:unauthenticated" if name == ANONYMOUS.name else AUTHENTICATED
        if last not in groups and AUTHENTICATED not in groups:
            groups.append(last)
        return User(name, tuple(groups), uid=uid, extra=extra)


def _impersonation(
    resource: str, name: str, *, namespace: str = "", group: str = "", subresource: str = ""
) -> Attributes:
    return Attributes(
        verb="impersonate",
        resource=resource,
        group=group,
        name=name,
        namespace=namespace,
        subresource=subresource,
    )


def _unescape(text: str) -> str:
    return unquote(text).lower()
