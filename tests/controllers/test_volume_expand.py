"""Growth of claims: step by step, as upstream's external resizer and kubelet tell it (KEP-1790)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.api.obj import Body, Key
from sampan.control import growth, storage
from sampan.controllers.volume_expand import PENDING_TEXT, VolumeExpand
from sampan.testing.plans import PlanWorld

KEY = Key(storage.CLAIMS, "default", "c")
VOLUME = Key(storage.VOLUMES, "", "v")


def claim(asked: str = "2Gi", has: str = "1Gi", **status: Any) -> Body:
    return {
        "metadata": {"name": "c", "namespace": "default", "uid": "u"},
        "spec": {"volumeName": "v", "resources": {"requests": {"storage": asked}}},
        "status": {"phase": "Bound", "capacity": {"storage": has}, **status},
    }  # fmt: skip


def volume(size: str = "1Gi", *, enforced: bool = False, local: bool = True) -> Body:
    notes = {storage.PROVISIONED_BY: storage.PROVISIONER} if local else {}
    if enforced:
        notes[storage.SIZE_ENFORCED] = "true"
    return {
        "metadata": {"name": "v", "namespace": "", "annotations": notes},
        "spec": {"capacity": {"storage": size}, "local": {"path": "/x"},
                 "claimRef": {"namespace": "default", "name": "c", "uid": "uid-1"}},
        "status": {"phase": "Bound"},
    }  # fmt: skip


def world(body: Body, held: Body) -> tuple[PlanWorld, VolumeExpand]:
    controller = VolumeExpand()
    w = PlanWorld(controller)
    w.add(storage.CLAIMS, body)
    w.add(storage.VOLUMES, held)
    return w, controller


def status(w: PlanWorld) -> Body:
    found: Body = w.objects[KEY]["status"]
    return found


def kinds(w: PlanWorld) -> list[str]:
    return [c["type"] for c in status(w).get("conditions") or ()]


def state(w: PlanWorld) -> tuple[str, str, str, str]:
    """(capacity of the claim, of its volume, what is allocated, where it is)."""
    s = status(w)
    return (
        s["capacity"]["storage"], w.objects[VOLUME]["spec"]["capacity"]["storage"],
        (s.get("allocatedResources") or {}).get("storage", ""), growth.state(w.objects[KEY]),
    )  # fmt: skip


def rest(w: PlanWorld, controller: VolumeExpand, steps: int = 10) -> None:
    for _ in range(steps):
        w.step(controller, KEY)


def test_a_directory_has_its_size_at_once() -> None:
    w, controller = world(claim(), volume())
    w.step(controller, KEY)
    assert state(w) == ("1Gi", "1Gi", "2Gi", "ControllerResizeInProgress")
    assert kinds(w) == ["Resizing"]
    w.step(controller, KEY)
    assert state(w) == ("1Gi", "2Gi", "2Gi", "ControllerResizeInProgress")
    w.step(controller, KEY)
    assert state(w) == ("2Gi", "2Gi", "2Gi", "")
    assert "conditions" not in status(w) and "allocatedResourceStatuses" not in status(w)
    rest(w, controller)
    assert w.events == [
        ("Resizing", "External resizer is resizing volume v"),
        ("VolumeResizeSuccessful", "Resize volume succeeded"),
    ]


def test_an_image_is_left_to_its_node() -> None:
    w, controller = world(claim(), volume(enforced=True))
    rest(w, controller)
    assert state(w) == ("1Gi", "2Gi", "2Gi", "NodeResizePending")
    (condition,) = status(w)["conditions"]
    assert (condition["type"], condition["message"]) == ("FileSystemResizePending", PENDING_TEXT)
    assert w.events[-1] == (
        "FileSystemResizeRequired", "Require file system resize of volume on node"
    )  # fmt: skip
    assert [r for r, _ in w.events] == ["Resizing", "FileSystemResizeRequired"]


def test_volumes_of_others_are_left_to_them() -> None:
    w, controller = world(claim(), volume(local=False))
    w.step(controller, KEY)
    assert w.events == [
        ("ExternalExpanding", "waiting for an external controller to expand this PVC")
    ]
    assert state(w) == ("1Gi", "1Gi", "", "")


def test_other_conditions_stay() -> None:
    other = {"type": "ModifyingVolume", "status": "True"}
    w, controller = world(claim(conditions=[other, {"type": "NodeResizeError"}]), volume())
    w.step(controller, KEY)
    assert kinds(w) == ["ModifyingVolume", "Resizing"]
    rest(w, controller)
    assert kinds(w) == ["ModifyingVolume"]


P, B, X = growth.NODE_PENDING, growth.NODE_IN_PROGRESS, growth.NODE_INFEASIBLE
C = growth.CONTROLLER_IN_PROGRESS


@pytest.mark.parametrize(
    ("asked", "held", "allocated", "now", "target"),
    [
        # The volume is smaller than what is asked for.
        ("2Gi", "1Gi", "", "", "2Gi"),
        ("3Gi", "1Gi", "2Gi", C, "2Gi"),  # what has begun ends first
        ("3Gi", "2Gi", "2Gi", P, None),
        ("3Gi", "2Gi", "2Gi", B, None),
        ("3Gi", "1Gi", "2Gi", P, "2Gi"),  # the volume was put back
        ("3Gi", "2Gi", "2Gi", X, "3Gi"),
        ("3Gi", "2Gi", "2Gi", "", "3Gi"),  # an earlier growth is over
        # It has the size, or more.
        ("2Gi", "2Gi", "2Gi", P, None),
        ("2Gi", "2Gi", "2Gi", B, None),
        ("2Gi", "2Gi", "2Gi", C, "2Gi"),  # what was done is told
        ("2Gi", "9Gi", "9Gi", C, "9Gi"),  # less was asked for when it was done already
        ("2Gi", "9Gi", "9Gi", P, None),
        ("2Gi", "9Gi", "9Gi", X, "2Gi"),  # impossible: less is possible
        ("9Gi", "9Gi", "9Gi", X, None),  # the same is as impossible as it was
        ("2Gi", "2Gi", "", "", "2Gi"),
        ("2Gi", "9Gi", "9Gi", "", "9Gi"),
        ("5Gi", "9Gi", "2Gi", "", "5Gi"),
    ],
)
def test_what_it_grows_to(asked: str, held: str, allocated: str, now: str, target: str) -> None:
    told: Body = {"allocatedResources": {"storage": allocated}} if allocated else {}
    if now:
        told["allocatedResourceStatuses"] = {"storage": now}
    assert growth.target(claim(asked, **told), volume(held)) == target


def test_an_impossible_size_is_taken_back() -> None:
    """A user asks for too much, its node finds it impossible, the user asks for less."""
    w, controller = world(claim("9999Ti"), volume(enforced=True))
    rest(w, controller)
    assert state(w) == ("1Gi", "9999Ti", "9999Ti", "NodeResizePending")
    told = growth.allocated(status(w), "9999Ti", growth.NODE_INFEASIBLE)
    told = growth.with_condition(told, "NodeResizeError", "no", at="x", keep=True)
    w.objects[KEY]["status"] = told
    assert kinds(w) == ["FileSystemResizePending", "NodeResizeError"]
    rest(w, controller)
    assert state(w) == ("1Gi", "9999Ti", "9999Ti", "NodeResizeInfeasible")
    w.objects[KEY]["spec"]["resources"]["requests"]["storage"] = "2Gi"
    rest(w, controller)
    assert state(w) == ("1Gi", "2Gi", "2Gi", "NodeResizePending")
    assert kinds(w) == ["FileSystemResizePending"]
    w.objects[KEY]["status"] = growth.finished(status(w), "2Gi")
    rest(w, controller)
    assert state(w) == ("2Gi", "2Gi", "2Gi", "") and kinds(w) == []


SIZES = [f"{n}Gi" for n in range(1, 7)]
steps = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.sampled_from(SIZES)),
        st.tuples(st.just("plan"), st.just("")),
        st.tuples(st.just("plan"), st.just("")),
        st.tuples(st.just("node"), st.sampled_from(["begin", "done", "impossible"])),
    ),
    max_size=30,
)


@settings(max_examples=150, deadline=None)
@given(steps, st.booleans())
def test_growth_ends_and_never_shrinks(history: list[tuple[str, str]], enforced: bool) -> None:
    """Whatever users and the node do in between: a claim never has less than it had, nobody shrinks
    a volume below what the claim has, and in the end it has what was asked for."""
    w, controller = world(claim("1Gi"), volume(enforced=enforced))
    has = 1

    def node(how: str) -> None:
        nonlocal has
        body = w.objects[KEY]
        if growth.state(body) not in (P, B):
            return
        if how == "impossible":
            size = body["status"]["allocatedResources"]["storage"]
            body["status"] = growth.allocated(body["status"], size, X)
        elif how == "begin":
            size = body["status"]["allocatedResources"]["storage"]
            body["status"] = growth.allocated(body["status"], size, B)
        else:
            held = w.objects[VOLUME]["spec"]["capacity"]["storage"]
            body["status"] = growth.finished(body["status"], held)

    def check() -> None:
        nonlocal has
        now = int(status(w)["capacity"]["storage"].removesuffix("Gi"))
        assert now >= has
        has = now
        assert storage.capacity(w.objects[VOLUME]) >= storage.size(status(w)["capacity"])

    for kind, what in history:
        if kind == "ask":
            # As validation has it: not less than it has, and less than before only above that.
            before = storage.asked(w.objects[KEY])
            wanted = storage.size({"storage": what})
            if wanted >= before or wanted > storage.size(status(w)["capacity"]):
                w.objects[KEY]["spec"]["resources"]["requests"]["storage"] = what
        elif kind == "plan":
            w.step(controller, KEY)
        else:
            node(what)
        check()
    for _ in range(4):
        rest(w, controller)
        if growth.state(w.objects[KEY]) == X:  # a pod starts, and it fits by now
            held = w.objects[VOLUME]["spec"]["capacity"]["storage"]
            w.objects[KEY]["status"] = growth.finished(status(w), held)
        node("done")
        check()
    assert storage.size(status(w)["capacity"]) >= storage.asked(w.objects[KEY])
    assert growth.state(w.objects[KEY]) == ""
