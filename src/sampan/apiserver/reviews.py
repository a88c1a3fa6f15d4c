"""Answers to the review kinds: what a SubjectAccessReview and its kin get as ``status``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sampan.api.call import User
from sampan.api.errors import Cause, bad_request, invalid
from sampan.api.obj import Body
from sampan.apiserver.authn import InvalidToken, TokenIssuer
from sampan.apiserver.authz import Attributes, RbacAuthorizer

_AUTHZ = "authorization.k8s.io"


async def review(
    kind: str,
    body: Body,
    *,
    user: User,
    namespace: str = "",
    authorizer: RbacAuthorizer,
    tokens: TokenIssuer | None = None,
) -> Body:
    """The ``status`` of a review asked by *user* (namespace: the path's, LocalSubjectAccessReview).
    Raises StatusError for a review that makes no sense."""
    spec = body.get("spec") or {}
    if kind == "SelfSubjectReview":
        return {"userInfo": user_info(user)}
    if kind == "TokenReview":
        return await _token(spec, tokens)
    if kind == "SelfSubjectRulesReview":
        return _rules(spec, user, authorizer)
    if kind == "SelfSubjectAccessReview":
        subject = user
    else:
        subject = _subject(spec, kind)
    if kind == "LocalSubjectAccessReview":
        asked = (spec.get("resourceAttributes") or {}).get("namespace", "")
        if asked != namespace:
            raise bad_request("spec.resourceAttributes.namespace must match metadata.namespace")
    attributes = _attributes(spec, kind)
    decision = authorizer.allowed(subject, attributes)
    status: Body = {"allowed": decision.allowed}
    if decision.reason:
        status["reason"] = decision.reason
    return status


def user_info(user: User) -> Body:
    """An ``authentication.k8s.io`` UserInfo."""
    info: Body = {"username": user.name, "groups": list(user.groups)}
    if user.uid:
        info["uid"] = user.uid
    if user.extra:
        info["extra"] = {k: list(v) for k, v in user.extra.items()}
    return info


async def _token(spec: Mapping[str, Any], tokens: TokenIssuer | None) -> Body:
    token = str(spec.get("token") or "")
    if not token:
        raise bad_request("token is required for TokenReview in authentication")
    if tokens is None:
        return {"user": {}, "error": "no token authenticator"}
    try:
        user, audiences = await tokens.authenticate(token, tuple(spec.get("audiences") or ()))
    except InvalidToken as e:
        return {"user": {}, "error": f"[invalid bearer token, {e}]"}
    return {"authenticated": True, "user": user_info(user), "audiences": list(audiences)}


def _subject(spec: Mapping[str, Any], kind: str) -> User:
    name, groups = str(spec.get("user") or ""), tuple(spec.get("groups") or ())
    if not name and not groups:
        text = 'Invalid value: "": at least one of user or group must be specified'
        raise invalid(_AUTHZ, kind, "", [Cause("spec.user", "FieldValueInvalid", text)])
    extra = {k: tuple(v) for k, v in (spec.get("extra") or {}).items()}
    return User(name, groups, uid=str(spec.get("uid") or ""), extra=extra)


def _attributes(spec: Mapping[str, Any], kind: str) -> Attributes:
    resource, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if (resource is None) == (path is None):
        what = (
            "cannot be specified in combination with" if resource is not None else "exactly one of"
        )
        text = f"Invalid value: null: {what} nonResourceAttributes"
        if resource is None:
            text = (
                "Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes "
                "must be specified"
            )
        raise invalid(
            _AUTHZ, kind, "", [Cause("spec.resourceAttributes", "FieldValueInvalid", text)]
        )
    if path is not None:
        return Attributes(verb=str(path.get("verb") or ""), path=str(path.get("path") or ""))
    fields = {
        k: str((resource or {}).get(k) or "")
        for k in ("verb", "resource", "group", "version", "subresource", "namespace", "name")
    }
    return Attributes(**fields)


def _rules(spec: Mapping[str, Any], user: User, authorizer: RbacAuthorizer) -> Body:
    namespace = str(spec.get("namespace") or "")
    if not namespace:
        raise bad_request("no namespace on request")
    resources: list[Body] = []
    paths: list[Body] = []
    for rule in authorizer.rules_for(user, namespace):
        if rule.get("nonResourceURLs"):
            paths.append({k: rule[k] for k in ("verbs", "nonResourceURLs")})
        else:
            resources.append(
                {
                    k: rule[k]
                    for k in ("verbs", "apiGroups", "resources", "resourceNames")
                    if rule.get(k)
                }
            )
    return {"resourceRules": resources, "nonResourceRules": paths, "incomplete": False}
