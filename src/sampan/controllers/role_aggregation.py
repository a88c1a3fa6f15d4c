"""ClusterRoles that are made of others: the rules of the roles their selectors choose."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import orjson

from sampan.api.obj import Body, Key, Obj
from sampan.control.plan import Action, Caches, Trigger, Update
from sampan.lib.selectors import Selector, SelectorError, from_label_selector

NAME = "clusterrole-aggregation-controller"
_AGGREGATES = "aggregates"
ROLES = "clusterroles.rbac.authorization.k8s.io"


@dataclass(frozen=True, slots=True)
class View:
    """An aggregating role, and all others by name."""

    role: Obj
    others: tuple[Obj, ...]


def selectors(role: Obj) -> list[Selector] | None:
    """What a role aggregates; None where one of its selectors is none."""
    rule = role.body.get("aggregationRule") or {}
    try:
        return [from_label_selector(s) for s in rule.get("clusterRoleSelectors") or ()]
    except SelectorError:
        return None


def union(wanted: Sequence[Selector], others: Iterable[Obj]) -> list[Body]:
    """The rules of the roles chosen, selector by selector, each once. others: by name."""
    found: dict[bytes, Body] = {}
    ordered = tuple(others)
    for selector in wanted:
        for other in ordered:
            if selector.matches(other.labels):
                for rule in other.body.get("rules") or ():
                    found.setdefault(orjson.dumps(rule, option=orjson.OPT_SORT_KEYS), rule)
    return [*found.values()]


class RoleAggregation:
    """Writes the rules, of one role after the other where aggregating roles are aggregated."""

    name = NAME
    workers = 1

    def __init__(self) -> None:
        self.triggers: tuple[Trigger, ...] = (Trigger(ROLES, self._all),)
        self.indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]] = {
            ROLES: {_AGGREGATES: lambda r: (_AGGREGATES,) if r.body.get("aggregationRule") else ()}
        }

    @staticmethod
    def _all(_role: Obj, caches: Caches) -> Iterable[Key]:
        return [r.key for r in caches[ROLES].by(_AGGREGATES, _AGGREGATES)]

    def observe(self, key: Key, caches: Caches) -> View | None:
        role = caches[ROLES].get("", key.name)
        if role is None or role.is_deleting or not role.body.get("aggregationRule"):
            return None
        others = sorted((r for r in caches[ROLES].list() if r.key != key), key=lambda r: r.name)
        return View(role, tuple(others))

    def plan(self, view: View, now: float) -> Sequence[Action]:
        wanted = selectors(view.role)
        if wanted is None:
            return []
        rules = union(wanted, view.others)
        if rules == (view.role.body.get("rules") or []):
            return []
        return [Update(ROLES, {**view.role.body, "rules": rules})]
