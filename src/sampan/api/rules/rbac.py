"""Validation of roles, bindings and of the reviews."""

from __future__ import annotations

from sampan.api.errors import Cause
from sampan.api.obj import Body
from sampan.api.rules.field import checked, forbidden, invalid, not_supported, required
from sampan.api.rules.selection import label_selector
from sampan.lib import names

GROUP = "rbac.authorization.k8s.io"


def role(body: Body) -> list[Cause]:
    return _rules(body, namespaced=True)


def cluster_role(body: Body) -> list[Cause]:
    found = _rules(body, namespaced=False)
    aggregation = body.get("aggregationRule")
    if aggregation is not None:
        selectors = aggregation.get("clusterRoleSelectors") or []
        path = "aggregationRule.clusterRoleSelectors"
        if not selectors:
            found.append(
                required(
                    path,
                    "at least one clusterRoleSelector required if aggregationRule is non-nil",
                )
            )
        for i, selector in enumerate(selectors):
            found += label_selector(f"{path}[{i}]", selector)
    return found


def _rules(body: Body, *, namespaced: bool) -> list[Cause]:
    found: list[Cause] = []
    for i, rule in enumerate(body.get("rules") or ()):
        at = f"rules[{i}]"
        urls, kinds = rule.get("nonResourceURLs") or [], rule.get("resources") or []
        groups = rule.get("apiGroups") or []
        if not rule.get("verbs"):
            found.append(required(f"{at}.verbs", "verbs must contain at least one value"))
        if urls:
            path = f"{at}.nonResourceURLs"
            if namespaced:
                why = "namespaced rules cannot apply to non-resource URLs"
                found.append(invalid(path, urls, why))
            if groups or kinds or rule.get("resourceNames"):
                why = "rules cannot apply to both regular resources and non-resource URLs"
                found.append(invalid(path, urls, why))
            continue
        if not groups:
            why = "resource rules must supply at least one api group"
            found.append(required(f"{at}.apiGroups", why))
        if not kinds:
            why = "resource rules must supply at least one resource"
            found.append(required(f"{at}.resources", why))
    return found


def role_binding(body: Body) -> list[Cause]:
    return _binding(body, ("Role", "ClusterRole"))


def cluster_role_binding(body: Body) -> list[Cause]:
    return _binding(body, ("ClusterRole",))


def _binding(body: Body, kinds: tuple[str, ...]) -> list[Cause]:
    found: list[Cause] = []
    ref = body.get("roleRef") or {}
    if ref.get("apiGroup") != GROUP:
        found.append(not_supported("roleRef.apiGroup", ref.get("apiGroup") or "", (GROUP,)))
    if ref.get("kind") not in kinds:
        found.append(not_supported("roleRef.kind", ref.get("kind") or "", kinds))
    if not ref.get("name"):
        found.append(required("roleRef.name"))
    else:
        found += checked("roleRef.name", ref["name"], names.path_segment)
    clusterwide = kinds == ("ClusterRole",)
    for i, subject in enumerate(body.get("subjects") or ()):
        found += _subject(f"subjects[{i}]", subject, clusterwide=clusterwide)
    return found


def _subject(at: str, subject: Body, *, clusterwide: bool) -> list[Cause]:
    found: list[Cause] = []
    name, group, kind = subject.get("name"), subject.get("apiGroup") or "", subject.get("kind")
    if not name:
        found.append(required(f"{at}.name"))
    if kind == "ServiceAccount":
        if name:
            found += checked(f"{at}.name", name, names.dns1123_subdomain)
        if group:
            found.append(not_supported(f"{at}.apiGroup", group, ("",)))
        if clusterwide and not subject.get("namespace"):
            found.append(required(f"{at}.namespace"))
    elif kind in ("User", "Group"):
        if group != GROUP:
            found.append(not_supported(f"{at}.apiGroup", group, (GROUP,)))
    else:
        found.append(not_supported(f"{at}.kind", kind or "", ("ServiceAccount", "User", "Group")))
    return found


def binding_update(new: Body, old: Body) -> list[Cause]:
    if new.get("roleRef") != old.get("roleRef"):
        return [invalid("roleRef", new.get("roleRef"), "cannot change roleRef")]
    return []


def token_review(body: Body) -> list[Cause]:
    if not (body.get("spec") or {}).get("token"):
        return [invalid("spec.token", "", "token is required for TokenReview in authentication")]
    return []


def access_review(body: Body) -> list[Cause]:
    """SubjectAccessReview."""
    spec: Body = body.get("spec") or {}
    found = self_access_review(body)
    if not spec.get("user") and not spec.get("groups"):
        found.append(invalid("spec.user", "", "at least one of user or group must be specified"))
    return found


def self_access_review(body: Body) -> list[Cause]:
    spec: Body = body.get("spec") or {}
    resource, url = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if resource is not None and url is not None:
        why = "cannot be specified in combination with resourceAttributes"
        return [invalid("spec.nonResourceAttributes", url, why)]
    if resource is None and url is None:
        why = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        return [invalid("spec.resourceAttributes", None, why)]
    return []


def local_access_review(body: Body) -> list[Cause]:
    spec: Body = body.get("spec") or {}
    found = access_review(body)
    own = (body.get("metadata") or {}).get("namespace")
    if spec.get("nonResourceAttributes") is not None:
        found.append(forbidden("spec.nonResourceAttributes", "disallowed on this kind of request"))
    asked = (spec.get("resourceAttributes") or {}).get("namespace")
    if asked != own:
        found.append(
            invalid("spec.resourceAttributes.namespace", asked, "must match metadata.namespace")
        )
    return found
