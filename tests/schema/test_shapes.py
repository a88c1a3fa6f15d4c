"""Walks by what schemas say about merging."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.schema import shapes
from sampan.schema.shapes import MissingKey, shapes_of
from sampan.schema.walk import Schemas

OF = shapes_of(Schemas.load())
POD = OF("io.k8s.api.core.v1.Pod")
META = OF("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")
SERVICE = OF("io.k8s.api.core.v1.Service")
C80, C81 = ({"containerPort": n, "protocol": "TCP"} for n in (80, 81))


def pod(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p"}, "spec": spec}


def box(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, **more}


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (pod(nodeName="n"), {"f:metadata": {"f:name": {}}, "f:spec": {"f:nodeName": {}}}),
        # A list with keys; what is inside; a list taken as a whole; a default of a key.
        (pod(containers=[box("c", args=["x"], ports=[{"containerPort": 80}])]),
         {"f:metadata": {"f:name": {}}, "f:spec": {"f:containers": {'k:{"name":"c"}': {
             ".": {}, "f:name": {}, "f:args": {}, "f:ports": {
                 'k:{"containerPort":80,"protocol":"TCP"}': {".": {}, "f:containerPort": {}}}}}}}),
        # A map's keys; a set's values; an atomic map.
        ({"metadata": {"labels": {"a": "b"}, "finalizers": ["x/y"]},
          "spec": {"nodeSelector": {"a": "b"}}},
         {"f:metadata": {"f:labels": {"f:a": {}}, "f:finalizers": {'v:"x/y"': {}}},
          "f:spec": {"f:nodeSelector": {}}}),
        (pod(securityContext={}, containers=[]),
         {"f:metadata": {"f:name": {}}, "f:spec": {"f:securityContext": {}}}),
    ],
)  # fmt: skip
def test_fields(value: Any, wanted: Any) -> None:
    assert shapes.fields(POD, value) == wanted


@pytest.mark.parametrize(
    ("old", "new", "added", "modified", "removed"),
    [
        (pod(nodeName="a"), pod(nodeName="b"), {}, {"f:spec": {"f:nodeName": {}}}, {}),
        (pod(), pod(), {}, {}, {}),
        (pod(tolerations=[{"key": "a"}]), pod(tolerations=[{"key": "b"}]),
         {}, {"f:spec": {"f:tolerations": {}}}, {}),
        # Everything of an item that comes or goes, and the item itself.
        (pod(containers=[box("a", image="i")]), pod(containers=[box("b", image="i")]),
         {"f:spec": {"f:containers": {'k:{"name":"b"}': {".": {}, "f:name": {}, "f:image": {}}}}},
         {},
         {"f:spec": {"f:containers": {'k:{"name":"a"}': {".": {}, "f:name": {}, "f:image": {}}}}}),
        (pod(containers=[box("a", image="i")]), pod(containers=[box("a", image="j")]),
         {}, {"f:spec": {"f:containers": {'k:{"name":"a"}': {"f:image": {}}}}}, {}),
        # What is always there is nobody's; what need not be there is.
        ({}, {"spec": {"hostNetwork": True}}, {"f:spec": {"f:hostNetwork": {}}}, {}, {}),
        (pod(), pod(dnsConfig={"nameservers": ["1.1.1.1"]}),
         {"f:spec": {"f:dnsConfig": {".": {}, "f:nameservers": {}}}}, {}, {}),
        ({"metadata": {}}, {"metadata": {"labels": {"a": "b"}}},
         {"f:metadata": {"f:labels": {".": {}, "f:a": {}}}}, {}, {}),
        # Order alone is no change of a list with keys.
        (pod(containers=[box("a"), box("b")]), pod(containers=[box("b"), box("a")]), {}, {}, {}),
        # Items that cannot be told apart stand together.
        (pod(containers=[box("c", env=[{"name": "A", "value": "1"}, {"name": "A", "value": "2"}])]),
         pod(containers=[box("c", env=[{"name": "A", "value": "1"}, {"name": "A", "value": "3"}])]),
         {}, {"f:spec": {"f:containers": {'k:{"name":"c"}': {"f:env": {'k:{"name":"A"}': {}}}}}},
         {}),
    ],
)  # fmt: skip
def test_difference(old: Any, new: Any, added: Any, modified: Any, removed: Any) -> None:
    found = shapes.difference(POD, old, new)
    assert (found.added, found.modified, found.removed) == (added, modified, removed)
    assert found.is_same == (not (added or modified or removed))


@pytest.mark.parametrize(
    ("live", "applied", "wanted"),
    [
        ("ab", "ab", "ab"),
        ("ab", "ba", "ba"),
        ("ab", "", "ab"),
        ("", "ba", "ba"),
        ("xab", "ab", "xab"),
        ("axb", "ab", "axb"),
        ("axb", "ba", "xba"),
        ("ab", "acb", "acb"),
        ("axyb", "cb", "axycb"),
        ("abc", "dcba", "dcba"),
    ],
)
def test_merged_lists_keep_what_is_applied_in_order(live: str, applied: str, wanted: str) -> None:
    merged = shapes.merge(
        POD, pod(containers=[box(n, image="i") for n in live]),
        pod(containers=[box(n, image="j") for n in applied]),
    )  # fmt: skip
    found = merged["spec"]["containers"]
    assert "".join(c["name"] for c in found) == wanted
    assert {c["name"] for c in found if c["image"] == "j"} == set(applied)


def test_merging() -> None:
    live = {"metadata": {"labels": {"a": "1", "b": "2"}, "finalizers": ["x"]},
            "spec": {"nodeSelector": {"a": "b"}, "tolerations": [{"key": "a"}]}}  # fmt: skip
    applied = {"metadata": {"labels": {"b": "3"}, "finalizers": ["y"]},
               "spec": {"nodeSelector": {"c": "d"}, "tolerations": [{"key": "b"}]}}  # fmt: skip
    assert shapes.merge(POD, live, applied) == {
        "metadata": {"labels": {"a": "1", "b": "3"}, "finalizers": ["x", "y"]},
        "spec": {"nodeSelector": {"c": "d"}, "tolerations": [{"key": "b"}]},
    }
    ports = {"ports": [{"port": 80, "protocol": "UDP"}, {"port": 80, "protocol": "TCP"}]}
    merged = shapes.merge(
        SERVICE, {"spec": ports}, {"spec": {"ports": [{"port": 80, "name": "x"}]}}
    )
    assert merged["spec"]["ports"] == [
        {"port": 80, "protocol": "UDP"}, {"port": 80, "protocol": "TCP", "name": "x"},
    ]  # fmt: skip


def test_a_key_that_is_not_there() -> None:
    wrong = pod(containers=[{"image": "i"}])
    for work in (
        lambda: shapes.fields(POD, wrong),
        lambda: shapes.merge(POD, pod(containers=[box("c")]), wrong),
        lambda: shapes.difference(POD, pod(containers=[box("c")]), wrong),
    ):
        with pytest.raises(MissingKey, match='omits key field "name"'):
            work()
    twice = pod(containers=[box("c"), box("c")])
    with pytest.raises(MissingKey, match="duplicate"):
        shapes.merge(POD, pod(containers=[box("c")]), twice)


@pytest.mark.parametrize(
    ("value", "gone", "wanted"),
    [
        (pod(nodeName="n"), {"f:spec": {"f:nodeName": {}}}, {"metadata": {"name": "p"}}),
        (pod(containers=[box("a"), box("b")]),
         {"f:spec": {"f:containers": {'k:{"name":"a"}': {}}}}, pod(containers=[box("b")])),
        (pod(containers=[box("a", image="i", ports=[C80, C81])]),
         {"f:spec": {"f:containers": {'k:{"name":"a"}': {
             "f:image": {}, "f:ports": {'k:{"containerPort":80,"protocol":"TCP"}': {}}}}}},
         pod(containers=[box("a", ports=[C81])])),
        ({"metadata": {"labels": {"a": "b"}, "finalizers": ["x", "y"]}},
         {"f:metadata": {"f:labels": {"f:a": {}}, "f:finalizers": {'v:"x"': {}}}},
         {"metadata": {"finalizers": ["y"]}}),
        (pod(nodeName="n"), {"f:spec": {"f:no": {}}}, pod(nodeName="n")),
    ],
)  # fmt: skip
def test_removing(value: Any, gone: Any, wanted: Any) -> None:
    assert shapes.remove(POD, value, gone) == wanted


NAMES = st.sampled_from(["a", "b", "c", "d"])
METAS = st.fixed_dictionaries(
    {},
    optional={
        "labels": st.dictionaries(NAMES, NAMES, min_size=1),
        "annotations": st.dictionaries(NAMES, NAMES, min_size=1),
        "finalizers": st.lists(NAMES, unique=True, min_size=1),
        "ownerReferences": st.lists(
            st.fixed_dictionaries({"uid": NAMES, "name": NAMES}), min_size=1,
            unique_by=lambda r: r["uid"],
        ),
    },
)  # fmt: skip


@given(METAS, METAS)
def test_what_was_merged_says_what_was_applied(live: Any, applied: Any) -> None:
    """Applying again changes nothing; nothing of what was there is lost; and removing the
    difference leads back."""
    merged = shapes.merge(META, live, applied)
    assert shapes.merge(META, merged, applied) == merged
    again = shapes.difference(META, merged, shapes.merge(META, merged, applied))
    assert again.is_same
    assert not shapes.difference(META, live, merged).removed
    added = shapes.difference(META, live, merged).added
    assert shapes.difference(META, live, shapes.remove(META, merged, added) or {}).added == {}
