"""The three patches."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.api.call import APPLY_PATCH, JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH
from sampan.api.errors import StatusError
from sampan.api.patch import apply_patch
from sampan.schema.walk import Schemas

POD = "io.k8s.api.core.v1.Pod"
DEPLOYMENT = "io.k8s.api.apps.v1.Deployment"

Json = Any


def patched(kind: str, body: Json, patch: Json, definition: str = POD) -> Json:
    """apply_patch, which must leave both of its inputs alone."""
    before = copy.deepcopy((body, patch))
    try:
        return apply_patch(
            kind, body=body, patch=patch, definition=definition, schemas=Schemas.load()
        )
    finally:
        assert (body, patch) == before


def refusal(kind: str, body: Json, patch: Json, definition: str = POD) -> StatusError:
    with pytest.raises(StatusError) as caught:
        patched(kind, body, patch, definition)
    return caught.value


# ---- merge patch -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
        ({"a": 1}, {"a": {"b": None, "c": 2}}, {"a": {"c": 2}}),
        ({"a": [1, 2]}, {"a": [None]}, {"a": [None]}),
    ],
)
def test_merge_patch(body: Json, patch: Json, result: Json) -> None:
    assert patched(MERGE_PATCH, body, patch) == result
    assert patched(f"{MERGE_PATCH}; charset=utf-8", body, patch, definition="") == result


_SCALARS = st.booleans() | st.integers(0, 3) | st.sampled_from(["x", "y"])
_MAPS = st.recursive(
    st.dictionaries(st.sampled_from("abc"), _SCALARS, max_size=3),
    lambda inner: st.dictionaries(
        st.sampled_from("abc"), inner | _SCALARS | st.lists(_SCALARS, max_size=2), max_size=3
    ),
    max_leaves=8,
)


def _merge_diff(old: Json, new: Json) -> Json:
    diff: Json = {k: None for k in old if k not in new}
    for name, value in new.items():
        if isinstance(value, dict) and isinstance(old.get(name), dict):
            diff[name] = _merge_diff(old[name], value)
        elif name not in old or type(old[name]) is not type(value) or old[name] != value:
            diff[name] = value
    return diff


@given(_MAPS, _MAPS)
def test_merge_patch_round_trip(old: Json, new: Json) -> None:
    assert patched(MERGE_PATCH, old, _merge_diff(old, new)) == new


# ---- JSON patch --------------------------------------------------------------------------------


def op(kind: str, path: str, **more: Json) -> Json:
    return {"op": kind, "path": path, **{k.rstrip("_"): v for k, v in more.items()}}


@pytest.mark.parametrize(
    ("body", "patch", "result"),
    [
        ({"foo": 1}, [op("add", "/baz", value=2)], {"foo": 1, "baz": 2}),
        ({"foo": ["a", "c"]}, [op("add", "/foo/1", value="b")], {"foo": ["a", "b", "c"]}),
        ({"foo": ["a"]}, [op("add", "/foo/-", value=["b"])], {"foo": ["a", ["b"]]}),
        ({"foo": ["a"]}, [op("add", "/foo/-1", value="z")], {"foo": ["a", "z"]}),
        ({"foo": 1}, [op("add", "/foo", value=None)], {"foo": None}),
        ({"foo": 1, "bar": 2}, [op("remove", "/foo")], {"bar": 2}),
        ({"foo": ["a", "b"]}, [op("remove", "/foo/0")], {"foo": ["b"]}),
        ({"foo": ["a", "b"]}, [op("remove", "/foo/-1")], {"foo": ["a"]}),
        ({"foo": {"a": 1}}, [op("replace", "/foo/a", value=[])], {"foo": {"a": []}}),
        ({"foo": 1}, [op("replace", "", value={"b": 2})], {"b": 2}),
        ({"a": {"b": 1}, "c": {}}, [op("move", "/c/d", from_="/a/b")], {"a": {}, "c": {"d": 1}}),
        ({"a": [1, 2, 3]}, [op("move", "/a/2", from_="/a/0")], {"a": [2, 3, 1]}),
        ({"a": {"x": 1}}, [op("copy", "/b", from_="/a")], {"a": {"x": 1}, "b": {"x": 1}}),
        ({"a/b": {"~": 1}}, [op("test", "/a~1b/~0", value=1)], {"a/b": {"~": 1}}),
        ({"": 1}, [op("test", "/", value=1)], {"": 1}),
        ({"a": [{"b": None}]}, [op("test", "/a", value=[{"b": None}])], {"a": [{"b": None}]}),
        ({"a": 1}, [op("test", "/zzz", value=None)], {"a": 1}),
        ({"a": 1}, [op("add", "/b", value=1, unknown="ignored")], {"a": 1, "b": 1}),
        ({"a": 1}, [], {"a": 1}),
    ],
)  # fmt: skip
def test_json_patch(body: Json, patch: Json, result: Json) -> None:
    assert patched(JSON_PATCH, body, patch) == result


@pytest.mark.parametrize(
    "patch",
    [
        [op("add", "/x/y", value=1)],
        [op("remove", "/x")],
        [op("replace", "/x", value=1)],
        [op("add", "/list/5", value=1)],
        [op("add", "/list/01", value=1)],
        [op("add", "/list/e", value=1)],
        [op("add", "/list/-9", value=1)],
        [op("remove", "/list/-")],
        [op("test", "/a", value=2)],
        [op("test", "/t", value=1)],
        [op("test", "/x/y", value=None)],
        [op("move", "/a/b", from_="/a")],
        [op("copy", "/b", from_="/x")],
        [op("copy", "/b")],
        [op("add", "/a/b", value=1)],
        [op("add", "/b")],
        [op("spam", "/b", value=1)],
        [op("add", "b", value=1)],
        [{"op": "remove"}],
        [op("replace", "", value=[1])],
        [op("remove", "")],
        [op("add", "/b", value=1), op("test", "/b", value=2)],
    ],
)
def test_a_json_patch_that_does_not_apply(patch: Json) -> None:
    error = refusal(JSON_PATCH, {"a": 1, "t": True, "list": [1]}, patch)
    assert (error.code, error.reason) == (422, "Invalid")
    assert error.message == "the server rejected our request due to an error in our request"


def test_json_patch_limits() -> None:
    grow = [op("copy", "/b/-", from_="/b") for _ in range(40)]
    assert refusal(JSON_PATCH, {"b": ["x" * 100]}, grow).code == 422
    many = [op("test", "/a", value=1)] * 10_001
    error = refusal(JSON_PATCH, {"a": 1}, many)
    assert (error.code, error.reason) == (413, "RequestEntityTooLarge")


@pytest.mark.parametrize(
    ("kind", "patch", "message"),
    [
        (
            JSON_PATCH,
            {"a": 1},
            "error decoding patch: json: cannot unmarshal object into Go value of type"
            " []handlers.jsonPatchOp",
        ),
        (
            JSON_PATCH,
            [{"op": 1}],
            "error decoding patch: json: cannot unmarshal number into Go struct field"
            " jsonPatchOp.op of type string",
        ),
        (
            MERGE_PATCH,
            [1],
            "error decoding patch: json: cannot unmarshal array into Go value of type"
            " map[string]interface {}",
        ),
        (
            STRATEGIC_PATCH,
            "x",
            "json: cannot unmarshal string into Go value of type map[string]interface {}",
        ),
    ],
)
def test_malformed_patches(kind: str, patch: Json, message: str) -> None:
    error = refusal(kind, {}, patch)
    assert (error.code, error.reason, error.message) == (400, "BadRequest", message)


def test_bottomless_patches_are_refused() -> None:
    deep: Json = {}
    for _ in range(5000):
        deep = {"a": deep}
    for kind, patch in (
        (MERGE_PATCH, deep),
        (STRATEGIC_PATCH, deep),
        (JSON_PATCH, [op("add", "/a", value=deep)]),
    ):
        with pytest.raises(StatusError) as caught:
            apply_patch(kind, body={"a": 1}, patch=patch, definition=POD, schemas=Schemas.load())
        assert caught.value.code == 400


def test_other_types_are_refused_by_name() -> None:
    assert refusal(APPLY_PATCH, {}, {}).code == 415
    error = refusal(STRATEGIC_PATCH, {}, {}, definition="")
    assert error.code == 415
    assert "strategic" not in error.message


def _json_diff(old: Json, new: Json, path: str = "") -> list[Json]:
    ops = [op("remove", f"{path}/{k}") for k in old if k not in new]
    for name, value in new.items():
        if isinstance(value, dict) and isinstance(old.get(name), dict):
            ops += _json_diff(old[name], value, f"{path}/{name}")
        else:
            ops.append(op("replace" if name in old else "add", f"{path}/{name}", value=value))
    return ops


@given(_MAPS, _MAPS)
def test_json_patch_round_trip(old: Json, new: Json) -> None:
    assert patched(JSON_PATCH, old, _json_diff(old, new)) == new


# ---- strategic merge patch ---------------------------------------------------------------------


def spec(**more: Json) -> Json:
    return {"spec": more}


@pytest.mark.parametrize(
    ("body", "patch", "result"),
    [
        # set image: the item with that name changes, the others stay.
        (
            spec(containers=[{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]),
            spec(containers=[{"name": "b", "image": "3"}]),
            spec(containers=[{"name": "a", "image": "1"}, {"name": "b", "image": "3"}]),
        ),
        # An item that the server did not know comes first, as in Kubernetes.
        (
            spec(containers=[{"name": "a"}]),
            spec(containers=[{"name": "z", "image": "i", "env": None}]),
            spec(containers=[{"name": "z", "image": "i"}, {"name": "a"}]),
        ),
        (
            spec(containers=[{"name": "a"}, {"name": "b"}]),
            spec(containers=[{"name": "a", "$patch": "delete"}]),
            spec(containers=[{"name": "b"}]),
        ),
        (
            spec(containers=[{"name": "a"}, {"name": "b"}]),
            spec(containers=[{"name": "c"}, {"$patch": "replace"}]),
            spec(containers=[{"name": "c"}]),
        ),
        # Merge keys inside an item.
        (
            spec(containers=[{"name": "a", "env": [{"name": "X", "value": "1"}]}]),
            spec(containers=[{"name": "a", "env": [{"name": "X", "value": "2"}]}]),
            spec(containers=[{"name": "a", "env": [{"name": "X", "value": "2"}]}]),
        ),
        (
            spec(containers=[{"name": "a", "args": ["x"], "ports": [{"containerPort": 1}]}]),
            spec(containers=[{"name": "a", "args": ["y"], "ports": [{"containerPort": 2}]}]),
            spec(
                containers=[
                    {
                        "name": "a",
                        "args": ["y"],
                        "ports": [{"containerPort": 2}, {"containerPort": 1}],
                    }
                ]
            ),
        ),
        # Lists without a merge strategy are replaced.
        (
            spec(tolerations=[{"key": "a"}]),
            spec(tolerations=[{"key": "b"}]),
            spec(tolerations=[{"key": "b"}]),
        ),
        # Maps merge, null deletes, $patch replaces or empties.
        (
            {"metadata": {"labels": {"a": "1", "b": "2"}}},
            {"metadata": {"labels": {"a": None, "c": "3"}}},
            {"metadata": {"labels": {"b": "2", "c": "3"}}},
        ),
        (
            {"metadata": {"labels": {"a": "1", "b": "2"}}},
            {"metadata": {"labels": {"c": "3", "$patch": "replace"}}},
            {"metadata": {"labels": {"c": "3"}}},
        ),
        (
            {"metadata": {"labels": {"a": "1"}}},
            {"metadata": {"labels": {"$patch": "delete"}}},
            {"metadata": {"labels": {}}},
        ),
        # Lists of scalars with the merge strategy.
        (
            {"metadata": {"finalizers": ["a", "b"]}},
            {"metadata": {"finalizers": ["b", "c"]}},
            {"metadata": {"finalizers": ["a", "b", "c"]}},
        ),
        (
            {"metadata": {"finalizers": ["a", "b", "c"]}},
            {"metadata": {"$deleteFromPrimitiveList/finalizers": ["b"]}},
            {"metadata": {"finalizers": ["a", "c"]}},
        ),
        (
            {"metadata": {"finalizers": ["a", "b"]}},
            {
                "metadata": {
                    "$setElementOrder/finalizers": ["c", "b"],
                    "$deleteFromPrimitiveList/finalizers": ["a"],
                    "finalizers": ["c"],
                }
            },
            {"metadata": {"finalizers": ["c", "b"]}},
        ),
        # The order asked for; what only the server has keeps its place before its neighbours.
        (
            spec(containers=[{"name": "a"}, {"name": "s"}, {"name": "b"}]),
            {
                "spec": {
                    "$setElementOrder/containers": [{"name": "b"}, {"name": "a"}, {"name": "n"}],
                    "containers": [{"name": "n", "image": "i"}],
                }
            },
            spec(
                containers=[
                    {"name": "s"}, {"name": "b"}, {"name": "a"}, {"name": "n", "image": "i"},
                ]
            ),
        ),
        # An order alone moves; one for a list that nobody has says nothing.
        (
            spec(containers=[{"name": "a"}, {"name": "b"}]),
            {"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}},
            spec(containers=[{"name": "b"}, {"name": "a"}]),
        ),
        (spec(a=1), {"spec": {"$setElementOrder/containers": [{"name": "b"}]}}, spec(a=1)),
        # $retainKeys: a volume changes its kind.
        (
            spec(volumes=[{"name": "v", "emptyDir": {"medium": "Memory"}}]),
            spec(
                volumes=[
                    {"name": "v", "hostPath": {"path": "/x"}, "$retainKeys": ["name", "hostPath"]}
                ]
            ),
            spec(volumes=[{"name": "v", "hostPath": {"path": "/x"}}]),
        ),
        # Directives leave no trace where nothing was before.
        (
            {},
            {
                "spec": {
                    "$setElementOrder/containers": [{"name": "a"}],
                    "containers": [{"name": "a", "$retainKeys": ["name"], "image": None}],
                }
            },
            spec(containers=[{"name": "a"}]),
        ),
    ],
)  # fmt: skip
def test_strategic_patch(body: Json, patch: Json, result: Json) -> None:
    assert patched(STRATEGIC_PATCH, body, patch) == result


def test_strategic_patch_of_a_deployment_strategy() -> None:
    body = {"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}
    patch = {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}
    assert patched(STRATEGIC_PATCH, body, patch, DEPLOYMENT) == {
        "spec": {"strategy": {"type": "Recreate"}}
    }


@pytest.mark.parametrize(
    ("body", "patch", "message"),
    [
        (
            spec(containers=[{"name": "a"}]),
            spec(containers=[{"image": "x"}]),
            "map: map[image:x] does not contain declared merge key: name",
        ),
        (
            spec(containers=[{"name": "a"}]),
            spec(containers=[{"name": "a", "$patch": "spam"}]),
            "unknown patch type: spam in map: map[$patch:spam name:a]",
        ),
        (
            spec(containers=[{"name": "a"}]),
            spec(containers=[{"name": "a", "$patch": "merge"}]),
            "merging lists cannot yet be specified in the patch",
        ),
        (
            spec(a=1),
            {"spec": {"$retainKeys": ["b"], "c": 1}},
            "invalid patch format of retainKeys",
        ),
        (spec(a=1), {"spec": {"$retainKeys": 1}}, "invalid patch format of retainKeys"),
        (
            {"metadata": {"finalizers": ["a"]}},
            {"metadata": {"$deleteFromPrimitiveList/finalizers": "a"}},
            "invalid patch format of primitive list",
        ),
        (
            spec(containers=[{"name": "a"}]),
            {"spec": {"$setElementOrder/containers": {}}},
            "invalid patch format of setElementOrder list",
        ),
        (
            spec(containers=[{"name": "a"}]),
            {
                "spec": {
                    "$setElementOrder/containers": [{"name": "a"}],
                    "containers": [{"name": "b"}],
                }
            },
            "The order in patch list:\n[map[name:b]]\n doesn't match $setElementOrder list:\n"
            "[map[name:a]]\n",
        ),
    ],
)
def test_malformed_strategic_patches(body: Json, patch: Json, message: str) -> None:
    error = refusal(STRATEGIC_PATCH, body, patch)
    assert (error.code, error.message) == (400, message)


_NAMES = st.lists(st.sampled_from("abcde"), unique=True, max_size=4)


@st.composite
def _pods(draw: st.DrawFn) -> Json:
    containers = []
    for name in draw(_NAMES):
        item: Json = {"name": name}
        if draw(st.booleans()):
            item["image"] = draw(st.sampled_from(["i1", "i2"]))
        if env := draw(_NAMES):
            item["env"] = [{"name": e, "value": draw(st.sampled_from("xy"))} for e in env]
        if draw(st.booleans()):
            item["args"] = draw(st.lists(st.sampled_from("xyz"), max_size=2))
        containers.append(item)
    meta: Json = {"labels": draw(st.dictionaries(st.sampled_from("abc"), st.sampled_from("xy")))}
    if finalizers := draw(_NAMES):
        meta["finalizers"] = finalizers
    return {"metadata": meta, "spec": {"containers": containers}}


_MERGE_BY = {"containers": "name", "env": "name"}


def _strategic_diff(old: Json, new: Json) -> Json:
    """What kubectl computes: differences, deletions and the order of every merged list."""
    diff: Json = {k: None for k in old if k not in new}
    for name, value in new.items():
        if name not in old:
            diff[name] = value
        elif old[name] == value:
            continue
        elif isinstance(value, dict):
            diff[name] = _strategic_diff(old[name], value)
        elif name in _MERGE_BY:
            was = {v["name"]: v for v in old[name]}
            now = {v["name"]: v for v in value}
            items: list[Json] = []
            for key, item in now.items():
                if key not in was:
                    items.append(item)
                elif was[key] != item:
                    items.append({"name": key, **_strategic_diff(was[key], item)})
            items += [{"name": k, "$patch": "delete"} for k in was if k not in now]
            if items:
                diff[name] = items
            diff[f"$setElementOrder/{name}"] = [{"name": k} for k in now]
        elif name == "finalizers":
            if added := [v for v in value if v not in old[name]]:
                diff[name] = added
            if gone := [v for v in old[name] if v not in value]:
                diff[f"$deleteFromPrimitiveList/{name}"] = gone
            diff[f"$setElementOrder/{name}"] = value
        else:
            diff[name] = value
    return diff


@given(_pods(), _pods())
def test_strategic_patch_round_trip(old: Json, new: Json) -> None:
    assert patched(STRATEGIC_PATCH, old, _strategic_diff(old, new)) == new


@given(_pods(), _pods(), st.sampled_from("pqr"))
def test_what_others_added_survives_a_strategic_patch(old: Json, new: Json, other: str) -> None:
    """Three-way: the live object has a container and a label that neither manifest knows."""
    live = copy.deepcopy(old)
    live["spec"]["containers"].append({"name": other, "image": "sidecar"})
    live["metadata"]["labels"][other] = "theirs"
    result = patched(STRATEGIC_PATCH, live, _strategic_diff(old, new))
    names = [c["name"] for c in result["spec"]["containers"]]
    assert [n for n in names if n != other] == [c["name"] for c in new["spec"]["containers"]]
    assert {"name": other, "image": "sidecar"} in result["spec"]["containers"]
    assert result["metadata"]["labels"] == {**new["metadata"]["labels"], other: "theirs"}
