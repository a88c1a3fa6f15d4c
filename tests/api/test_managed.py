"""Who manages what: golden pairs for updates and applies."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.api import managed
from sampan.api.managed import Entry, Manager, Managers
from sampan.schema.shapes import shapes_of
from sampan.schema.walk import Schemas

SHAPE = shapes_of(Schemas.load())("io.k8s.api.apps.v1.Deployment")
V1 = "apps/v1"
Set = dict[str, Any]


def body(**spec: Any) -> Set:
    return {"apiVersion": V1, "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec}


def template(*containers: Set) -> Set:
    return {"spec": {"containers": list(containers)}}


def updated(managers: Managers, old: Set, new: Set, name: str = "u", now: str = "t") -> Managers:
    return managed.update(
        SHAPE, managers, old, new, manager=Manager.of("Update", name, V1), now=now, ignored={}
    )


def applied(
    managers: Managers, live: Set, config: Set, name: str = "a", *, force: bool = False
) -> managed.Applied:
    return managed.apply(
        SHAPE, managers, live, config, manager=Manager.of("Apply", name, V1), version=V1, now="t",
        force=force, ignored={},
    )  # fmt: skip


def owned(managers: Managers) -> dict[str, Set]:
    """What of spec each manager owns."""
    return {m.name: e.fields.get("f:spec", e.fields) for m, e in managers.items()}


# -- updates


def test_who_creates_owns_what_it_said_and_nobody_owns_what_makes_the_object_itself() -> None:
    new = body(replicas=1, template=template({"name": "c", "image": "i"}))
    new["metadata"] |= {"namespace": "n", "uid": "u", "labels": {"a": "b"}, "generation": 1}
    assert updated({}, {}, new) == {Manager("Update", "u", V1, ""): Entry({
        "f:metadata": {"f:labels": {".": {}, "f:a": {}}},
        "f:spec": {"f:replicas": {}, "f:template": {"f:spec": {"f:containers": {
            'k:{"name":"c"}': {".": {}, "f:name": {}, "f:image": {}}}}}},
    }, V1, "t")}  # fmt: skip


def test_who_changes_a_field_takes_it_and_who_removes_one_leaves_it_to_nobody() -> None:
    first = updated({}, {}, body(replicas=1, paused=True), "one")
    second = updated(first, body(replicas=1, paused=True), body(replicas=2), "two", "t2")
    assert owned(second) == {"two": {"f:replicas": {}}}
    third = updated(second, body(replicas=2), body(replicas=2, paused=True), "two", "t3")
    assert owned(third) == {"two": {"f:replicas": {}, "f:paused": {}}}
    assert next(iter(third.values())).time == "t3"


def test_a_write_that_changes_nothing_is_no_entry() -> None:
    first = updated({}, {}, body(replicas=1), "one")
    assert updated(first, body(replicas=1), body(replicas=1), "two") is first


def test_what_cannot_be_written_is_not_taken() -> None:
    new = {**body(replicas=1), "status": {"replicas": 1}}
    manager = Manager.of("Update", "u", V1)
    found = managed.update(
        SHAPE, {}, {}, new, manager=manager, now="t", ignored={"f:status": {}}
    )  # fmt: skip
    assert found[manager].fields == {"f:spec": {"f:replicas": {}}}


def test_too_many_updaters_are_put_together() -> None:
    managers: Managers = {}
    live = body()
    for n in range(14):
        new = {**live, "metadata": {"name": "d", "labels": {f"l{i}": "x" for i in range(n + 1)}}}
        managers = updated(managers, live, new, f"u{n:02}", f"t{n:02}")
        live = new
    updaters = sorted(m.name for m in managers)
    assert updaters == ["ancient-changes", *(f"u{n:02}" for n in range(5, 14))]
    ancient = managers[Manager("Update", "ancient-changes", V1, "")]
    labels = ancient.fields["f:metadata"]["f:labels"]
    assert set(labels) - {"."} == {f"f:l{n}" for n in range(5)} and ancient.time == "t04"


# -- applies


def test_an_apply_conflicts_where_it_would_change_what_is_anothers() -> None:
    live = body(replicas=1, paused=True)
    managers = updated({}, {}, live, "one", "2026-01-01T00:00:00Z")
    refused = applied(managers, live, body(replicas=2))
    assert refused.body is live and refused.managers is managers
    assert managed.conflict_message(refused.conflicts) == (
        'Apply failed with 1 conflict: conflict with "one" using apps/v1 at '
        "2026-01-01T00:00:00Z: .spec.replicas"
    )
    done = applied(managers, live, body(replicas=2), force=True)
    assert done.body["spec"] == {"replicas": 2, "paused": True} and not done.conflicts
    assert owned(done.managers) == {"one": {"f:paused": {}}, "a": {"f:replicas": {}}}


def test_managers_may_agree() -> None:
    live = body(replicas=1)
    managers = updated({}, {}, live, "one")
    done = applied(managers, live, body(replicas=1))
    assert owned(done.managers) == {"one": {"f:replicas": {}}, "a": {"f:replicas": {}}}
    # Who changes it then takes it from both.
    assert owned(updated(done.managers, live, body(replicas=5), "two")) == {
        "two": {"f:replicas": {}}
    }


def test_several_conflicts_are_told_by_manager() -> None:
    first = applied({}, {}, body(replicas=1), "one")
    live = {**first.body, "spec": {"replicas": 1, "paused": True, "minReadySeconds": 3}}
    managers = updated(first.managers, first.body, live, "two", "")
    refused = applied(managers, live, body(replicas=2, paused=False, minReadySeconds=4), "three")
    assert managed.conflict_message(refused.conflicts) == (
        'Apply failed with 3 conflicts: conflicts with "one":\n- .spec.replicas\n'
        'conflicts with "two" using apps/v1:\n- .spec.minReadySeconds\n- .spec.paused'
    )
    scale = managed.Conflict(Manager("Update", "k", V1, "scale"), "t", {"f:spec": {}})
    assert str(scale) == '"k" with subresource "scale" using apps/v1 at t'


def test_what_is_applied_no_more_goes_unless_another_owns_it() -> None:
    c, d = {"name": "c", "image": "i"}, {"name": "d", "image": "i"}
    first = applied({}, {}, body(replicas=1, paused=True, template=template(c, d)), "one")
    second = applied(first.managers, first.body, body(paused=True, template=template(d)), "two")
    assert not second.conflicts
    third = applied(second.managers, second.body, body(replicas=1), "one")
    assert third.body["spec"] == {"replicas": 1, "paused": True, "template": template(d)}
    assert set(owned(third.managers)) == {"one", "two"}
    config = {k: v for k, v in body().items() if k != "spec"}
    nothing = applied(third.managers, third.body, config, "one")
    assert nothing.body["spec"] == {"paused": True, "template": template(d)}
    assert set(owned(nothing.managers)) == {"two"}


def test_defaults_inside_of_what_goes_go_along_and_others_stay() -> None:
    config = body(strategy={"type": "Recreate"}, template=template({"name": "c", "image": "i"}))
    first = applied({}, {}, config)
    live = body(
        strategy={"type": "Recreate"}, revisionHistoryLimit=10,
        template=template({"name": "c", "image": "i", "imagePullPolicy": "Always"}),
    )  # fmt: skip
    done = applied(first.managers, live, body(template=template({"name": "x", "image": "i"})))
    assert done.body["spec"] == {
        "revisionHistoryLimit": 10, "template": template({"name": "x", "image": "i"}),
    }  # fmt: skip


def test_applying_the_same_again_says_nothing_new() -> None:
    first = applied({}, {}, body(replicas=1))
    again = applied(first.managers, first.body, body(replicas=1))
    assert again.managers is first.managers and again.body == first.body


LABELS = st.dictionaries(st.sampled_from("abc"), st.sampled_from("12"))


@given(st.lists(st.tuples(st.sampled_from("xyz"), LABELS, st.booleans()), max_size=8))
def test_an_object_is_the_union_of_what_its_managers_apply(turns: list[Any]) -> None:
    """Whatever they apply and in whatever order: who applied last has what it said, nothing is
    there that nobody applies, and each owns at most what it said last."""
    live: Set = {}
    managers: Managers = {}
    said: dict[str, dict[str, str]] = {}
    for name, labels, force in turns:
        config = {k: v for k, v in body().items() if k != "spec"}
        if labels:
            config["metadata"] = {"name": "d", "labels": labels}
        done = applied(managers, live, config, name, force=force)
        others = {k: v for n, ls in said.items() if n != name for k, v in ls.items()}
        clash = any(others.get(k, v) != v for k, v in labels.items())
        assert bool(done.conflicts) == (clash and not force)
        if done.conflicts:
            assert done.body is live
            continue
        live, managers = done.body, done.managers
        said = {
            n: {k: v for k, v in ls.items() if labels.get(k, v) == v} for n, ls in said.items()
        }  # fmt: skip
        said[name] = labels
        everything = {k: v for ls in said.values() for k, v in ls.items()}
        assert live["metadata"].get("labels", {}) == everything
        found = {m.name: e.fields["f:metadata"]["f:labels"] for m, e in managers.items()}
        assert found == {n: {f"f:{k}": {} for k in ls} for n, ls in said.items() if ls}


# -- as they are written


def test_entries_are_sorted_and_come_back() -> None:
    managers: Managers = {
        Manager("Update", "z", V1, ""): Entry({"f:a": {}}, V1, "1"),
        Manager("Update", "y", V1, "status"): Entry({"f:b": {}}, V1, "2"),
        Manager("Apply", "x", "", ""): Entry({"f:c": {}}, V1, "3"),
    }
    entries = managed.encode(managers)
    assert [e["manager"] for e in entries] == ["x", "z", "y"]
    assert entries[2] == {"manager": "y", "operation": "Update", "apiVersion": V1, "time": "2",
                          "fieldsType": "FieldsV1", "fieldsV1": {"f:b": {}},
                          "subresource": "status"}  # fmt: skip
    assert managed.decode(entries) == managers


def test_who_a_write_starts_from() -> None:
    live = managed.encode({Manager("Update", "z", V1, ""): Entry({"f:a": {}}, V1, "1")})
    sent = managed.encode({Manager("Update", "q", V1, ""): Entry({"f:b": {}}, V1, "1")})
    for new, wanted in (
        (None, live), ([], live), (live, live), (sent, sent), ([{}], []), ("x", live),
        ([{"operation": "Steal"}], live),
        ([{"operation": "Update", "fieldsV1": {"x": {}}}], live),
    ):  # fmt: skip
        assert managed.encode(managed.given(new, live)) == wanted, new


@pytest.mark.parametrize(
    ("named", "agent", "wanted"),
    [
        ("me", "x/1", "me"),
        ("", "kubectl/v1.33 (linux)", "kubectl"),
        ("", "", "unknown"),
        ("", "a\x00b/1", "ab"),
        ("", "x" * 200, "x" * 128),
    ],
)
def test_names_of_managers(named: str, agent: str, wanted: str) -> None:
    assert managed.manager_name(named, agent) == wanted
