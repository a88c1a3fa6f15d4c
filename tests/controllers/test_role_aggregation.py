"""Aggregated ClusterRoles."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sampan.api.obj import Body, Key, Obj
from sampan.apiserver import bootstrap_roles
from sampan.control.plan import Update
from sampan.controllers.role_aggregation import ROLES, RoleAggregation
from sampan.testing.plans import PlanWorld


class Roles(PlanWorld):
    def __init__(self) -> None:
        self.controller = RoleAggregation()
        super().__init__(self.controller)

    def role(self, name: str, *rules: Body, selects: Any = None, **labels: str) -> Key:
        body: Body = {"metadata": {"name": name, "namespace": "", "labels": labels},
                      "rules": list(rules)}  # fmt: skip
        if selects is not None:
            body["aggregationRule"] = {"clusterRoleSelectors": selects}
        self.add(ROLES, body)
        return Key(ROLES, "", name)

    def rules(self, key: Key) -> list[Any]:
        return [r["resources"] for r in self.objects[key]["rules"]]

    def settle(self) -> int:
        """Writes until nothing is left to do."""
        for writes in range(50):
            role = next(iter(self[ROLES].list()))
            for key in RoleAggregation._all(role, self):
                if any(isinstance(a, Update) for a in self.step(self.controller, key)):
                    break
            else:
                return writes
        raise AssertionError("no rest")


def rule(name: str) -> Body:
    return {"verbs": ["get"], "apiGroups": [""], "resources": [name]}


X = [{"matchLabels": {"x": "1"}}]


def test_rules_of_chosen_roles_by_name_each_once() -> None:
    w = Roles()
    key = w.role("all", selects=X)
    w.role("b", rule("pods"), rule("nodes"), x="1")
    w.role("a", rule("pods"), rule("secrets"), rule("pods"), x="1")
    w.role("other", rule("events"))
    assert w.settle() == 1
    assert w.rules(key) == [["pods"], ["secrets"], ["nodes"]]
    assert w.settle() == 0


def test_what_was_written_by_hand_does_not_stay() -> None:
    w = Roles()
    key = w.role("all", rule("mine"), selects=X)
    w.settle()
    assert w.rules(key) == []
    w.objects[key]["rules"] = [rule("mine")]
    w.settle()
    assert w.rules(key) == []


def test_a_role_that_goes_takes_its_rules_along() -> None:
    w = Roles()
    key, part = w.role("all", selects=X), w.role("a", rule("pods"), x="1")
    w.settle()
    assert w.rules(key) == [["pods"]]
    del w.objects[part]
    w.settle()
    assert w.rules(key) == []


def test_a_role_does_not_aggregate_itself_but_those_that_aggregate() -> None:
    w = Roles()
    top = w.role("top", selects=[{"matchLabels": {"y": "1"}}])
    mid = w.role("mid", selects=X, y="1", x="1")
    w.role("leaf", rule("pods"), x="1")
    assert w.settle() == 2
    assert w.rules(top) == w.rules(mid) == [["pods"]]


def test_selectors_are_taken_in_their_order() -> None:
    w = Roles()
    key = w.role("all", selects=[{"matchLabels": {"x": "2"}}, *X])
    w.role("a", rule("pods"), x="1")
    w.role("b", rule("nodes"), x="2")
    w.settle()
    assert w.rules(key) == [["nodes"], ["pods"]]


def test_a_role_without_rule_or_with_a_broken_one_is_left_alone() -> None:
    w = Roles()
    plain = w.role("plain", rule("pods"), x="1")
    broken = w.role("broken", rule("pods"), selects=[{"matchExpressions": [
        {"key": "x", "operator": "Nonsense"}]}])  # fmt: skip
    assert w.settle() == 0
    assert w.rules(plain) == w.rules(broken) == [["pods"]]
    assert w.controller.observe(plain, w) is None


def test_the_roles_of_a_new_cluster_are_right_as_they_are() -> None:
    """Nothing is written at the start."""
    w = Roles()
    for body in bootstrap_roles.objects():
        if body["kind"] == "ClusterRole":
            w.add(ROLES, {**body, "metadata": {**body["metadata"], "namespace": ""}})
    assert w.settle() == 0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sets(st.sampled_from("pqr"))), max_size=5))
def test_it_comes_to_rest_with_all_that_is_chosen_and_nothing_else(
    parts: list[tuple[str, set[str]]],
) -> None:
    w = Roles()
    key = w.role("zz", selects=[{"matchExpressions": [
        {"key": "x", "operator": "In", "values": ["a", "b"]}]}])  # fmt: skip
    for i, (label, rules) in enumerate(parts):
        w.role(f"r{i}", *(rule(r) for r in sorted(rules)), x=label)
    w.settle()
    expected = {r for label, rules in parts if label in "ab" for r in rules}
    found = [r for (r,) in w.rules(key)]
    assert set(found) == expected and len(found) == len(expected)
    assert isinstance(w[ROLES].get("", "zz"), Obj)
