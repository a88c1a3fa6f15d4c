"""Resizing in place: what the machine asks, decides, tells and puts into force."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from sampan.api.obj import Body
from sampan.node import resizing
from sampan.node import stimuli as st
from sampan.node.admission import Needs
from sampan.node.answers import failed
from sampan.node.machine import PodMachine
from sampan.node.statuswriter import difference
from sampan.testing.machine_world import MachineWorld, pod_body


def amounts(cpu: str = "100m", memory: str = "64Mi", /, **limits: str) -> Body:
    requests = {"cpu": cpu, "memory": memory}
    return {"requests": requests, **({"limits": limits} if limits else {})}


RESTART = [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]


def world(*containers: Body, **fields: Any) -> MachineWorld:
    made = MachineWorld(pod_body(*containers or ({"name": "a", "resources": amounts()},)), **fields)
    made.run(5.0)
    assert made.status["phase"] == "Running"
    return made


def ask(w: MachineWorld, resources: Body, index: int = 0) -> None:
    """The spec as the resize subresource leaves it."""
    pod = copy.deepcopy(w.machine.pod)
    pod["spec"]["containers"][index]["resources"] = resources
    pod["metadata"]["generation"] += 1
    pod["status"] = w.status
    w.tell(st.PodSeen(pod))


def told(w: MachineWorld) -> Body:
    """The resources its status tells of the first container."""
    first = w.status["containerStatuses"][0]
    return {k: first.get(k) for k in ("allocatedResources", "resources", "restartCount")}


def resize_conditions(w: MachineWorld) -> dict[str, Body]:
    return {
        c["type"]: {k: v for k, v in c.items() if k not in ("type", "lastTransitionTime")}
        for c in w.status["conditions"]
        if "Resize" in c["type"]
    }


def events(w: MachineWorld) -> list[str]:
    return [
        f"{i.type} {i.reason}: {i.message}" for _, i in w.answers
        if isinstance(i, st.Emit) and "esize" in i.message
    ]  # fmt: skip


def test_what_was_asked_for_comes_into_force_without_a_restart():
    w = world()
    before = w.machine.units["a"].id
    ask(w, amounts("200m", cpu="1"))
    assert resize_conditions(w) == {}  # not judged yet
    w.run(until=lambda: bool(resize_conditions(w)))
    assert resize_conditions(w) == {
        "PodResizeInProgress": {"status": "True", "observedGeneration": 2}
    }
    assert told(w)["allocatedResources"]["cpu"] == "200m"
    assert told(w)["resources"] == amounts()  # as long as it is not in force
    w.run(5.0)
    assert resize_conditions(w) == {}
    assert told(w) == {
        "allocatedResources": {"cpu": "200m", "memory": "64Mi"},
        "resources": amounts("200m", cpu="1"), "restartCount": 0,
    }  # fmt: skip
    assert w.in_force == {before: amounts("200m", cpu="1")}
    text = json.dumps(
        {"containers": [{"name": "a", "resources": {
            "limits": {"cpu": "1"}, "requests": {"cpu": "200m", "memory": "64Mi"}}}],
         "generation": 2}, separators=(",", ":"))  # fmt: skip
    assert events(w) == [
        f"Normal ResizeStarted: Pod resize started: {text}",
        f"Normal ResizeCompleted: Pod resize completed: {text}",
    ]


def test_a_policy_restarts_the_container():
    w = world({"name": "a", "resources": amounts(), "resizePolicy": RESTART})
    ask(w, amounts("200m"))
    w.run(5.0)
    assert told(w)["restartCount"] == 0  # cpu alone does not ask for one
    ask(w, amounts("200m", "128Mi"))
    w.run(30.0)
    assert told(w) == {
        "allocatedResources": {"cpu": "200m", "memory": "128Mi"},
        "resources": amounts("200m", "128Mi"), "restartCount": 1,
    }  # fmt: skip
    assert "Normal Killing: Container a resize requires restart" in events(w)
    assert events(w)[-1].startswith("Normal ResizeCompleted")
    assert w.status["containerStatuses"][0]["ready"]


@pytest.mark.parametrize(
    ("reason", "event"), [("Deferred", "ResizeDeferred"), ("Infeasible", "ResizeInfeasible")]
)
def test_what_does_not_fit_is_told_and_stays_as_it_was(reason, event):
    w = world(room=lambda: (reason, "no room"))
    ask(w, amounts("2"))
    w.run(5.0)
    assert resize_conditions(w) == {
        "PodResizePending": {"status": "True", "observedGeneration": 2, "reason": reason,
                             "message": "no room"},
    }  # fmt: skip
    assert told(w)["resources"] == amounts()
    assert told(w)["allocatedResources"] == amounts()["requests"]
    assert events(w)[-1].startswith(f"Warning {event}: Pod resize {reason}: {{")
    assert events(w)[-1].endswith('"generation":2,"error":"no room"}')
    w.run(3600.0)
    assert len(events(w)) == 1  # told once, however often it is judged
    ask(w, amounts())
    w.run(1.0)
    assert resize_conditions(w) == {}


def test_a_deferred_resize_is_judged_again_when_there_is_room_and_after_a_while():
    answers = [("Deferred", "full")]
    w = world(room=lambda: answers[-1])
    ask(w, amounts("2"))
    w.run(5.0)
    answers.append(("", ""))
    w.run(170.0)
    assert "PodResizePending" in resize_conditions(w)
    w.run(20.0)
    assert resize_conditions(w) == {} and told(w)["resources"] == amounts("2")
    answers.append(("Deferred", "full"))
    ask(w, amounts("3"))
    w.run(5.0)
    answers.append(("", ""))
    w.tell(st.RoomChanged())
    w.run(1.0)
    assert told(w)["resources"] == amounts("3")


def test_an_infeasible_resize_is_not_judged_again():
    answers = [("Infeasible", "too large")]
    w = world(room=lambda: answers[-1])
    ask(w, amounts("2"))
    w.run(5.0)
    answers.append(("", ""))
    w.tell(st.RoomChanged())
    w.run(3600.0)
    assert resize_conditions(w)["PodResizePending"]["reason"] == "Infeasible"


def test_a_failure_is_told_once_and_tried_again():
    errors = ["memory limit (1) below current usage (2)"]
    w = world(resize_error=lambda: errors[0] if errors else "")
    ask(w, amounts("100m", "1Mi", memory="1Mi"))
    w.run(60.0)
    assert resize_conditions(w) == {
        "PodResizeInProgress": {"status": "True", "observedGeneration": 2, "reason": "Error",
                                "message": errors[0]},
    }  # fmt: skip
    assert told(w)["resources"] == amounts()
    assert [e.split(":")[0] for e in events(w)] == [
        "Normal ResizeStarted", "Warning ResizeError",
    ]  # fmt: skip
    ask(w, amounts())  # back again, though the runtime still refuses
    errors.clear()
    w.run(11.0)
    assert resize_conditions(w) == {}
    assert told(w)["resources"] == amounts()


def test_a_change_while_it_is_judged_is_judged_anew():
    w = world()
    ask(w, amounts("2"))
    ask(w, amounts("3"))
    w.run(5.0)
    assert told(w)["resources"] == amounts("3")
    assert resize_conditions(w) == {}


def test_a_container_that_does_not_run_starts_with_what_is_allocated():
    w = MachineWorld(pod_body({"name": "a", "resources": amounts()}), images=lambda _r: (
        "ErrImagePull", "no") if slow else None)  # fmt: skip
    slow = True
    w.run(2.0)
    ask(w, amounts("2"))
    w.run(2.0)
    assert w.machine.specs["a"]["resources"] == amounts("2")
    assert w.in_force == {}
    slow = False
    w.run(60.0)
    assert told(w)["resources"] == amounts("2") and w.in_force == {}


def test_a_later_agent_goes_on_where_the_first_one_was():
    w = world(room=lambda: ("Deferred", "full"))
    ask(w, amounts("2"))
    w.run(1.0)
    pod = {**w.machine.pod, "status": w.status}
    machine = PodMachine(pod)
    assert machine.allocated["a"] == amounts()
    assert machine.specs["a"]["resources"] == amounts()
    box = w._box()
    out = machine.handle(st.Adopted((box,)), st.PodSeen(pod), now=w.now)
    assert machine.units["a"].resources == amounts()
    assert [i for i in out if isinstance(i, st.VolumesReady)] == []
    out = machine.handle(st.VolumesReady(), now=w.now)
    assert st.Allocate() in out


def test_conditions_that_are_gone_are_removed_from_the_object():
    pending = {"type": "PodResizePending", "status": "True"}
    other = {"type": "example.com/x", "status": "True"}
    ready = {"type": "Ready", "status": "True"}
    old, new = {"conditions": [pending, other, ready]}, {"conditions": [ready, other]}
    assert difference(old, new) == {
        "conditions": [{"$patch": "delete", "type": "PodResizePending"}]
    }
    assert difference(new, new) == {}


def spec(cpu: str, memory: str = "1Mi") -> Body:
    return {"containers": [{"name": "a", "resources": amounts(cpu, memory)}]}


@pytest.mark.parametrize(
    ("wanted", "others", "expected"),
    [
        (spec("1"), [], ("", "")),
        (spec("1"), [spec("1")], ("", "")),
        (spec("1500m"), [spec("1")],
         ("Deferred", "Node didn't have enough resource: cpu, requested: 1500, used: 1000, "
                      "capacity: 2000")),
        (spec("1", "600Mi"), [spec("1", "500Mi")],
         ("Deferred", "Node didn't have enough resource: memory, requested: 629145600, "
                      "used: 524288000, capacity: 1073741824")),
        (spec("3"), [],
         ("Infeasible", "Node didn't have enough capacity: cpu, requested: 3000, "
                        "capacity: 2000")),
        (spec("3", "2Gi"), [],
         ("Infeasible", "Node didn't have enough capacity: memory, requested: 2147483648, "
                        "capacity: 1073741824")),
    ],
)  # fmt: skip
def test_whether_a_resize_fits(wanted, others, expected):
    sizes = {"cpu": "2", "memory": "1Gi", "pods": "9"}
    others = [Needs.of(o) for o in others]
    assert resizing.verdict(Needs.of(wanted), others, sizes) == expected


def test_a_resize_that_breaks_off_is_answered():
    what = st.Resize({"a": "id"}, {"a": amounts()})
    assert failed(what, OSError("no")) == st.Resized({"a": "id"}, {"a": amounts()}, "no")
