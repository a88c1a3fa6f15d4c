"""Rules of FlowSchema and PriorityLevelConfiguration (flowcontrol.apiserver.k8s.io/v1), and those
of them that every cluster has with a fixed spec."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from sampan.api.errors import Cause
from sampan.api.obj import Body
from sampan.api.rules.field import (
    checked,
    duplicate,
    forbidden,
    in_range,
    invalid,
    not_supported,
    required,
)
from sampan.lib import names

EXEMPT, CATCH_ALL = "exempt", "catch-all"
PRECEDENCE, _MOST_PRECEDENCE = 1000, 10_000
_MOST_QUEUES, _HASH_BITS = 10_000_000, 60
_METHODS = ("ByNamespace", "ByUser")
_SUBJECTS = ("Group", "ServiceAccount", "User")
_LEVELS, _RESPONSES = ("Exempt", "Limited"), ("Queue", "Reject")
_VERBS = (
    "create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch",
)  # fmt: skip
_NOT_NEGATIVE = "must be a non-negative integer"


def everything(*subjects: Body) -> Body:
    """A rule for all requests of *subjects*."""
    return {
        "subjects": [*subjects],
        "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"],
                           "clusterScope": True, "namespaces": ["*"]}],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    }  # fmt: skip


def group(name: str) -> Body:
    return {"kind": "Group", "group": {"name": name}}


FIXED_SCHEMAS: Mapping[str, Body] = {
    EXEMPT: {
        "priorityLevelConfiguration": {"name": EXEMPT}, "matchingPrecedence": 1,
        "rules": [everything(group("system:masters"))],
    },
    CATCH_ALL: {
        "priorityLevelConfiguration": {"name": CATCH_ALL}, "matchingPrecedence": 10_000,
        "distinguisherMethod": {"type": "ByUser"},
        "rules": [everything(group("system:unauthenticated"), group("system:authenticated"))],
    },
}  # fmt: skip
FIXED_LEVELS: Mapping[str, Body] = {
    EXEMPT: {"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}},
    CATCH_ALL: {"type": "Limited", "limited": {
        "nominalConcurrencyShares": 5, "limitResponse": {"type": "Reject"}, "lendablePercent": 0,
    }},
}  # fmt: skip


# ---- FlowSchema --------------------------------------------------------------------------------


def default_schema(body: Body) -> None:
    spec = body.setdefault("spec", {})
    if not spec.get("matchingPrecedence"):
        spec["matchingPrecedence"] = PRECEDENCE


def schema(body: Body) -> list[Cause]:
    name, spec = body["metadata"].get("name", ""), body.get("spec") or {}
    found = _precedence(name, spec.get("matchingPrecedence") or 0)
    method = spec.get("distinguisherMethod")
    if method is not None and method.get("type") not in _METHODS:
        found.append(not_supported("spec.distinguisherMethod.type", method, _METHODS))
    path = "spec.priorityLevelConfiguration.name"
    level = (spec.get("priorityLevelConfiguration") or {}).get("name") or ""
    if level:
        found += checked(path, level, names.dns1123_subdomain)
    else:
        found.append(required(path, "must reference a priority level"))
    for i, rule in enumerate(spec.get("rules") or ()):
        found += _rule(f"spec.rules[{i}]", rule)
    if name in FIXED_SCHEMAS and spec != FIXED_SCHEMAS[name]:
        found.append(invalid("spec", spec, f"spec of '{name}' must equal the fixed value"))
    return found + conditions(body)


def _precedence(name: str, value: int) -> list[Cause]:
    path, found = "spec.matchingPrecedence", list[Cause]()
    if value <= 0:
        found.append(invalid(path, value, "must be a positive value"))
    if value > _MOST_PRECEDENCE:
        found.append(invalid(path, value, f"must not be greater than {_MOST_PRECEDENCE}"))
    if value == 1 and name != EXEMPT:
        text = "only the schema named 'exempt' may have matchingPrecedence 1"
        found.append(invalid(path, value, text))
    return found


def _rule(path: str, rule: Body) -> list[Cause]:
    found: list[Cause] = []
    for i, subject in enumerate(rule.get("subjects") or ()):
        found += _subject(f"{path}.subjects[{i}]", subject)
    if not rule.get("subjects"):
        found.append(required(f"{path}.subjects", "subjects must contain at least one value"))
    if not rule.get("resourceRules") and not rule.get("nonResourceRules"):
        text = "at least one of resourceRules and nonResourceRules has to be non-empty"
        found.append(required(path, text))
    for i, one in enumerate(rule.get("resourceRules") or ()):
        found += _resources(f"{path}.resourceRules[{i}]", one)
    for i, one in enumerate(rule.get("nonResourceRules") or ()):
        found += _urls(f"{path}.nonResourceRules[{i}]", one)
    return found


def _subject(path: str, subject: Body) -> list[Cause]:
    kind = subject.get("kind", "")
    if kind not in _SUBJECTS:
        return [not_supported(f"{path}.kind", kind, _SUBJECTS)]
    field = kind[0].lower() + kind[1:]
    given = subject.get(field)
    found: list[Cause] = []
    if given is None:
        found.append(
            required(f"{path}.{field}", f"{field} is required when subject kind is '{kind}'")
        )
    elif kind == "ServiceAccount":
        found += _account(f"{path}.{field}", given)
    elif not given.get("name"):
        found.append(required(f"{path}.{field}.name"))
    for other in ("serviceAccount", "user", "group"):
        if other != field and subject.get(other) is not None:
            text = f"is forbidden when subject kind is not '{other[0].upper()}{other[1:]}'"
            found.append(forbidden(f"{path}.{other}", f"{other} {text}"))
    return found


def _account(path: str, account: Body) -> list[Cause]:
    name, namespace = account.get("name") or "", account.get("namespace") or ""
    found: list[Cause] = []
    if not name:
        found.append(required(f"{path}.name"))
    elif name != "*":
        found += checked(f"{path}.name", name, names.dns1123_subdomain)
    if namespace:
        return found + checked(f"{path}.namespace", namespace, names.dns1123_label)
    text = "must specify namespace for service account"
    return [*found, required(f"{path}.namespace", text)]


def _verbs(path: str, verbs: Sequence[str]) -> list[Cause]:
    if not verbs:
        return [required(f"{path}.verbs", "verbs must contain at least one value")]
    if "*" in verbs:
        return _alone(f"{path}.verbs", verbs, "verbs")
    if not set(verbs) <= set(_VERBS):
        return [not_supported(f"{path}.verbs", [*verbs], _VERBS)]
    return []


def _alone(path: str, values: Sequence[str], what: str) -> list[Cause]:
    if "*" in values and len(values) > 1:
        return [invalid(path, [*values], f"if '*' is present, must not specify other {what}")]
    return []


def _resources(path: str, rule: Body) -> list[Cause]:
    found = _verbs(path, rule.get("verbs") or [])
    for field, what, one in (
        ("apiGroups", "api groups", "api group"), ("resources", "resources", "resource"),
    ):  # fmt: skip
        values = rule.get(field) or []
        if not values:
            text = f"resource rules must supply at least one {one}"
            found.append(required(f"{path}.{field}", text))
        found += _alone(f"{path}.{field}", values, what)
    spaces, at = rule.get("namespaces") or [], f"{path}.namespaces"
    if not spaces and not rule.get("clusterScope"):
        text = "resource rules that are not cluster scoped must supply at least one namespace"
        return [*found, required(at, text)]
    if "*" in spaces:
        return found + _alone(at, spaces, "namespaces")
    intro = "each member of this list must be '*' or a DNS-1123 label; "
    return found + [
        invalid(f"{at}[{i}]", name, intro + problem)
        for i, name in enumerate(spaces)
        for problem in names.dns1123_label(name)
    ]


def _urls(path: str, rule: Body) -> list[Cause]:
    found = _verbs(path, rule.get("verbs") or [])
    urls, at = rule.get("nonResourceURLs") or [], f"{path}.nonResourceURLs"
    if not urls:
        text = "nonResourceURLs must contain at least one value"
        return [*found, required(at, text)]
    if "*" in urls:
        return found + _alone(at, urls, "non-resource URLs")
    problems = ((f"{at}[{i}]", url, _url(url)) for i, url in enumerate(urls))
    return found + [invalid(where, url, why) for where, url, why in problems if why]


def _url(url: str) -> str:
    if not url:
        return "must not be empty"
    if url == "/":
        return ""
    if not url.startswith("/"):
        return "must start with slash"
    if " " in url:
        return "must not contain white-space"
    if "//" in url:
        return "must not contain double slash"
    stars = url.count("*")
    if stars > 1 or (stars and not url.endswith("/*")):
        return "wildcard can only do suffix matching"
    return ""


# ---- PriorityLevelConfiguration ----------------------------------------------------------------


def default_level(body: Body) -> None:
    spec = body.setdefault("spec", {})
    if spec.get("type") == "Exempt":
        spec["exempt"] = {**FIXED_LEVELS[EXEMPT]["exempt"], **(spec.get("exempt") or {})}
    limited = spec.get("limited")
    if limited is not None:
        limited.setdefault("nominalConcurrencyShares", 30)
        limited.setdefault("lendablePercent", 0)
        queuing = (limited.get("limitResponse") or {}).get("queuing")
        if queuing is not None:
            for field, value in (("queues", 64), ("handSize", 8), ("queueLengthLimit", 50)):
                queuing[field] = queuing.get(field) or value


def level(body: Body) -> list[Cause]:
    name, spec = body["metadata"].get("name", ""), body.get("spec") or {}
    kind, found = spec.get("type", ""), list[Cause]()
    if (name == EXEMPT) != (kind == "Exempt"):
        text = "type must be 'Exempt' if and only if name is 'exempt'"
        found.append(invalid("spec.type", kind, text))
    exempt, limited = spec.get("exempt"), spec.get("limited")
    if kind not in _LEVELS:
        found.append(not_supported("spec.type", kind, _LEVELS))
    elif kind == "Exempt":
        if limited is not None:
            text = "must be nil if the type is not Limited"
            found.append(forbidden("spec.limited", text))
        found += _shares("spec.exempt", exempt or {})
    else:
        if exempt is not None:
            found.append(forbidden("spec.exempt", "must be nil if the type is Limited"))
        if limited is None:
            found.append(required("spec.limited", "must not be empty when type is Limited"))
        else:
            found += _limited("spec.limited", limited)
    return found + _fixed_level(name, spec) + conditions(body)


def _fixed_level(name: str, spec: Body) -> list[Cause]:
    fixed = FIXED_LEVELS.get(name)
    if fixed is None:
        return []
    if name == EXEMPT:
        if {**spec, "exempt": fixed["exempt"]} == fixed:
            return []
        text = "spec of 'exempt' except the 'spec.exempt' field must equal the fixed value"
        return [invalid("spec", spec, text)]
    if spec == fixed:
        return []
    return [invalid("spec", spec, f"spec of '{name}' must equal the fixed value")]


def _shares(path: str, part: Body) -> list[Cause]:
    found: list[Cause] = []
    shares, lendable = part.get("nominalConcurrencyShares"), part.get("lendablePercent")
    if shares is not None and shares < 0:
        found.append(invalid(f"{path}.nominalConcurrencyShares", shares, _NOT_NEGATIVE))
    if lendable is not None:
        found += in_range(f"{path}.lendablePercent", lendable, 0, 100)
    return found


def _limited(path: str, limited: Body) -> list[Cause]:
    shares = {k: limited.get(k) for k in ("nominalConcurrencyShares",)}
    found = _shares(path, shares)
    found += _response(f"{path}.limitResponse", limited.get("limitResponse") or {})
    found += _shares(path, {"lendablePercent": limited.get("lendablePercent")})
    borrowing = limited.get("borrowingLimitPercent")
    if borrowing is not None and borrowing < 0:
        text = f"if specified, {_NOT_NEGATIVE}"
        found.append(invalid(f"{path}.borrowingLimitPercent", borrowing, text))
    return found


def _response(path: str, response: Body) -> list[Cause]:
    kind, queuing = response.get("type", ""), response.get("queuing")
    if kind not in _RESPONSES:
        return [not_supported(f"{path}.type", kind, _RESPONSES)]
    if kind == "Reject":
        text = "must be nil if limited.limitResponse.type is not Limited"
        return [forbidden(f"{path}.queuing", text)] if queuing is not None else []
    if queuing is None:
        text = "must not be empty if limited.limitResponse.type is Limited"
        return [required(f"{path}.queuing", text)]
    return _queuing(f"{path}.queuing", queuing)


def _queuing(path: str, queuing: Body) -> list[Cause]:
    queues, hand = queuing.get("queues") or 0, queuing.get("handSize") or 0
    length, found = queuing.get("queueLengthLimit") or 0, list[Cause]()
    if length <= 0:
        found.append(invalid(f"{path}.queueLengthLimit", length, "must be positive"))
    if queues <= 0:
        found.append(invalid(f"{path}.queues", queues, "must be positive"))
    elif queues > _MOST_QUEUES:
        found.append(invalid(f"{path}.queues", queues, f"must not be greater than {_MOST_QUEUES}"))
    if hand <= 0:
        found.append(invalid(f"{path}.handSize", hand, "must be positive"))
    elif hand > queues:
        text = f"should not be greater than queues ({queues})"
        found.append(invalid(f"{path}.handSize", hand, text))
    elif math.ceil(math.log2(queues) * hand) > _HASH_BITS:
        text = (
            f"required entropy bits of deckSize {queues} and handSize {hand} should not be "
            f"greater than {_HASH_BITS}"
        )
        found.append(invalid(f"{path}.handSize", hand, text))
    return found


# ---- both --------------------------------------------------------------------------------------


def conditions(body: Body) -> list[Cause]:
    found, seen = list[Cause](), set[str]()
    for i, condition in enumerate((body.get("status") or {}).get("conditions") or ()):
        path, kind = f"status.conditions[{i}].type", condition.get("type") or ""
        if kind in seen:
            found.append(duplicate(path, kind))
        seen.add(kind)
        if not kind:
            found.append(required(path, "must not be empty"))
    return found


def dangling(level: str, at: str, *, is_there: bool) -> Body:
    """What a FlowSchema says of the priority level it names."""
    text = f'This FlowSchema references the PriorityLevelConfiguration object named "{level}"'
    return {
        "type": "Dangling", "status": "False" if is_there else "True", "lastTransitionTime": at,
        "reason": "Found" if is_there else "NotFound",
        "message": f"{text} {'and it exists' if is_there else 'but there is no such object'}",
    }  # fmt: skip


def validate_status(new: Body, _old: Body) -> list[Cause]:
    return conditions(new)
