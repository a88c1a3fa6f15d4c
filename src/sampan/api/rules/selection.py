"""Label selectors, node selectors, affinity, tolerations, taints and topology spread."""

from __future__ import annotations

from typing import Any

from sampan.api.errors import Cause
from sampan.api.obj import Body
from sampan.api.rules.field import (
    checked,
    duplicate,
    forbidden,
    invalid,
    not_supported,
    required,
)
from sampan.lib import names

EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")


def label_key(path: str, key: str) -> list[Cause]:
    return checked(path, key, names.qualified_name)


def label_selector(path: str, selector: Body | None) -> list[Cause]:
    """A metav1.LabelSelector."""
    if not selector:
        return []
    found: list[Cause] = []
    for key, value in sorted((selector.get("matchLabels") or {}).items()):
        found += label_key(f"{path}.matchLabels", key)
        found += checked(f"{path}.matchLabels", value, names.label_value)
    for i, e in enumerate(selector.get("matchExpressions") or ()):
        found += _expression(f"{path}.matchExpressions[{i}]", e)
    return found


def _expression(at: str, e: Body) -> list[Cause]:
    found: list[Cause] = []
    op, values = e.get("operator"), e.get("values") or []
    if op in ("In", "NotIn"):
        if not values:
            found.append(
                required(f"{at}.values", "must be specified when `operator` is 'In' or 'NotIn'")
            )
    elif op in ("Exists", "DoesNotExist"):
        if values:
            found.append(
                forbidden(
                    f"{at}.values", "may not be specified when `operator` is 'Exists' or "
                    "'DoesNotExist'",
                )
            )  # fmt: skip
    else:
        found.append(invalid(f"{at}.operator", op or "", "not a valid selector operator"))
    found += label_key(f"{at}.key", e.get("key") or "")
    for i, value in enumerate(values):
        found += checked(f"{at}.values[{i}]", value, names.label_value)
    return found


def node_selector(path: str, selector: Body) -> list[Cause]:
    """A NodeSelector: its terms are alternatives."""
    terms = selector.get("nodeSelectorTerms") or []
    if not terms:
        return [required(f"{path}.nodeSelectorTerms", "must have at least one node selector term")]
    found: list[Cause] = []
    for i, term in enumerate(terms):
        found += _node_term(f"{path}.nodeSelectorTerms[{i}]", term)
    return found


def _node_term(path: str, term: Body) -> list[Cause]:
    found: list[Cause] = []
    for i, e in enumerate(term.get("matchExpressions") or ()):
        at = f"{path}.matchExpressions[{i}]"
        op, values = e.get("operator"), e.get("values") or []
        if op in ("In", "NotIn"):
            if not values:
                found.append(
                    required(f"{at}.values", "must be specified when `operator` is 'In' or 'NotIn'")
                )
        elif op in ("Exists", "DoesNotExist"):
            if values:
                found.append(
                    forbidden(
                        f"{at}.values",
                        "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                    )
                )
        elif op in ("Gt", "Lt"):
            if len(values) != 1:
                found.append(
                    required(
                        f"{at}.values", "must be specified single value when `operator` is "
                        "'Lt' or 'Gt'",
                    )
                )  # fmt: skip
        else:
            found.append(invalid(f"{at}.operator", op or "", "not a valid selector operator"))
        found += label_key(f"{at}.key", e.get("key") or "")
    for i, e in enumerate(term.get("matchFields") or ()):
        at = f"{path}.matchFields[{i}]"
        if e.get("operator") not in ("In", "NotIn"):
            found.append(
                invalid(f"{at}.operator", e.get("operator") or "", "not a valid selector operator")
            )
        elif len(e.get("values") or ()) != 1:
            found.append(
                required(
                    f"{at}.values", "must be only one value when `operator` is 'In' or 'NotIn' "
                    "for node field selector",
                )
            )  # fmt: skip
        if e.get("key") != "metadata.name":
            found.append(invalid(f"{at}.key", e.get("key") or "", "not a valid field selector key"))
    return found


def affinity(path: str, value: Body | None) -> list[Cause]:
    found: list[Cause] = []
    node = (value or {}).get("nodeAffinity")
    if node:
        at = f"{path}.nodeAffinity"
        needed = node.get("requiredDuringSchedulingIgnoredDuringExecution")
        if needed is not None:
            found += node_selector(f"{at}.requiredDuringSchedulingIgnoredDuringExecution", needed)
        for i, wish in enumerate(node.get("preferredDuringSchedulingIgnoredDuringExecution") or ()):
            term = f"{at}.preferredDuringSchedulingIgnoredDuringExecution[{i}]"
            found += _weight(term, wish)
            found += _node_term(f"{term}.preference", wish.get("preference") or {})
    for kind in ("podAffinity", "podAntiAffinity"):
        pods = (value or {}).get(kind)
        if pods:
            found += _pod_affinity(f"{path}.{kind}", pods)
    return found


def _weight(path: str, wish: Body) -> list[Cause]:
    weight = wish.get("weight") or 0
    if 1 <= weight <= 100:
        return []
    return [invalid(f"{path}.weight", weight, "must be in the range 1-100")]


def _pod_affinity(path: str, value: Body) -> list[Cause]:
    found: list[Cause] = []
    for i, term in enumerate(value.get("requiredDuringSchedulingIgnoredDuringExecution") or ()):
        at = f"{path}.requiredDuringSchedulingIgnoredDuringExecution[{i}]"
        found += _pod_term(at, term)
    for i, wish in enumerate(value.get("preferredDuringSchedulingIgnoredDuringExecution") or ()):
        at = f"{path}.preferredDuringSchedulingIgnoredDuringExecution[{i}]"
        found += _weight(at, wish)
        found += _pod_term(f"{at}.podAffinityTerm", wish.get("podAffinityTerm") or {})
    return found


def _pod_term(path: str, term: Body) -> list[Cause]:
    found = label_selector(f"{path}.labelSelector", term.get("labelSelector"))
    found += label_selector(f"{path}.namespaceSelector", term.get("namespaceSelector"))
    for i, namespace in enumerate(term.get("namespaces") or ()):
        found += checked(f"{path}.namespaces[{i}]", namespace, names.dns1123_label)
    key = term.get("topologyKey") or ""
    if not key:
        found.append(required(f"{path}.topologyKey", "can not be empty"))
    return found + label_key(f"{path}.topologyKey", key)


def tolerations(path: str, values: list[Body]) -> list[Cause]:
    found: list[Cause] = []
    for i, t in enumerate(values):
        at = f"{path}[{i}]"
        key, op = t.get("key") or "", t.get("operator") or ""
        value, effect = t.get("value") or "", t.get("effect") or ""
        if key:
            found += label_key(f"{at}.key", key)
        elif op != "Exists":
            found.append(
                invalid(
                    f"{at}.operator", op, 'operator must be Exists when `key` is empty, which '
                    'means "match all values and all keys"',
                )
            )  # fmt: skip
        if t.get("tolerationSeconds") is not None and effect != "NoExecute":
            found.append(
                invalid(
                    f"{at}.effect", effect, "effect must be 'NoExecute' when `tolerationSeconds` "
                    "is set",
                )
            )  # fmt: skip
        if op in ("", "Equal"):
            problems = names.label_value(value)
            if problems:
                found.append(invalid(f"{at}.operator", value, ";".join(problems)))
        elif op == "Exists":
            if value:
                found.append(
                    invalid(f"{at}.operator", t, "value must be empty when `operator` is 'Exists'")
                )
        else:
            found.append(not_supported(f"{at}.operator", op, ("Equal", "Exists")))
        if effect and effect not in EFFECTS:
            found.append(not_supported(f"{at}.effect", effect, EFFECTS))
    return found


def added_tolerations(path: str, new: list[Body], old: list[Body]) -> list[Cause]:
    """Tolerations may be added; of those there only tolerationSeconds may change."""

    def bare(t: Body) -> Body:
        return {k: v for k, v in t.items() if k != "tolerationSeconds"}

    kept = [bare(t) for t in new]
    if any(bare(t) not in kept for t in old):
        return [
            forbidden(path, "existing toleration can not be modified except its tolerationSeconds")
        ]
    return tolerations(path, new)


def taints(path: str, values: list[Body]) -> list[Cause]:
    found: list[Cause] = []
    seen: set[tuple[Any, Any]] = set()
    for i, t in enumerate(values):
        at = f"{path}[{i}]"
        found += label_key(f"{at}.key", t.get("key") or "")
        problems = names.label_value(t.get("value") or "")
        if problems:
            found.append(invalid(f"{at}.value", t.get("value"), ";".join(problems)))
        effect = t.get("effect") or ""
        if not effect:
            found.append(required(f"{at}.effect"))
        elif effect not in EFFECTS:
            found.append(not_supported(f"{at}.effect", effect, EFFECTS))
        if (t.get("key"), effect) in seen:
            cause = duplicate(at, t)
            detail = "taints must be unique by key and effect pair"
            found.append(Cause(cause.field, cause.reason, f"{cause.message}: {detail}"))
        seen.add((t.get("key"), effect))
    return found


def topology_spread(path: str, values: list[Body]) -> list[Cause]:
    found: list[Cause] = []
    seen: set[tuple[Any, Any]] = set()
    for i, c in enumerate(values):
        at = f"{path}[{i}]"
        skew, key, action = c.get("maxSkew") or 0, c.get("topologyKey"), c.get("whenUnsatisfiable")
        if skew <= 0:
            found.append(invalid(f"{at}.maxSkew", skew, "must be greater than zero"))
        if not key:
            found.append(required(f"{at}.topologyKey", "can not be empty"))
        else:
            found += label_key(f"{at}.topologyKey", key)
        if action not in ("DoNotSchedule", "ScheduleAnyway"):
            supported = ("DoNotSchedule", "ScheduleAnyway")
            found.append(not_supported(f"{at}.whenUnsatisfiable", action or "", supported))
        if (key, action) in seen:
            found.append(
                duplicate(f"{at}.{{topologyKey, whenUnsatisfiable}}", f"{{{key}, {action}}}")
            )
        seen.add((key, action))
        domains = c.get("minDomains")
        if domains is not None:
            if domains <= 0:
                found.append(invalid(f"{at}.minDomains", domains, "must be greater than zero"))
            if action != "DoNotSchedule":
                found.append(
                    invalid(
                        f"{at}.minDomains", domains, "can only use minDomains if "
                        f"whenUnsatisfiable=DoNotSchedule, not {action}",
                    )
                )  # fmt: skip
        for name in ("nodeAffinityPolicy", "nodeTaintsPolicy"):
            if c.get(name) is not None and c[name] not in ("Honor", "Ignore"):
                found.append(not_supported(f"{at}.{name}", c[name], ("Honor", "Ignore")))
        found += label_selector(f"{at}.labelSelector", c.get("labelSelector"))
    return found
