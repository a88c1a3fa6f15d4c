"""ResourceQuota's plan: what is counted, when it is counted anew."""

from __future__ import annotations

from typing import Any

import pytest

from sampan.api.obj import Body, Key, Obj
from sampan.control.plan import Again, Read, SetStatus
from sampan.controllers.resourcequota import RESOURCE, ResourceQuotaController, counted
from sampan.lib.clock import rfc3339
from sampan.testing.plans import PlanWorld

RESOURCES = ("pods", "services", "configmaps", "resourcequotas", "events", "deployments.apps")
KEY = Key(RESOURCE, "default", "q")


def pod(phase: str = "Running", cpu: str = "100m", **meta: Any) -> Body:
    container = {"name": "c", "resources": {"requests": {"cpu": cpu}}}
    return {"metadata": meta, "spec": {"containers": [container]}, "status": {"phase": phase}}


def world(hard: Body, **spec: Any) -> tuple[PlanWorld, ResourceQuotaController]:
    controller = ResourceQuotaController(RESOURCES)
    w = PlanWorld(controller)
    w.add(RESOURCE, {"metadata": {"name": "q"}, "spec": {"hard": hard, **spec}, "status": {}})
    return w, controller


def test_a_new_quota_is_counted():
    hard = {"pods": "5", "requests.cpu": "1", "count/deployments.apps": "2", "nonsense/x": "3"}
    w, controller = world(hard)
    for body in (pod(), pod(), pod("Succeeded")):
        w.add("pods", body)
    elsewhere = pod()
    elsewhere["metadata"]["namespace"] = "other"
    w.add("pods", elsewhere)
    w.step(controller, KEY)
    assert w.objects[KEY]["status"] == {
        "hard": hard,
        "used": {"count/deployments.apps": "0", "pods": "2", "requests.cpu": "200m"},
    }
    assert [type(a) for a in w.step(controller, KEY)] == [Read]
    before = dict(w.objects)
    w.step(controller, KEY)
    assert w.objects == before  # and then it is quiet


def test_only_what_is_in_scope_is_counted():
    w, controller = world({"pods": "5"}, scopes=["NotTerminating"])
    w.add("pods", pod())
    limited = pod()
    limited["spec"]["activeDeadlineSeconds"] = 3
    w.add("pods", limited)
    w.step(controller, KEY)
    assert w.objects[KEY]["status"]["used"] == {"pods": "1"}


def test_what_is_no_longer_limited_is_forgotten():
    w, controller = world({"pods": "5"})
    w.objects[KEY]["status"] = {
        "hard": {"pods": "5", "services": "1"}, "used": {"pods": "0", "services": "1"}
    }  # fmt: skip
    w.step(controller, KEY)
    assert w.objects[KEY]["status"] == {"hard": {"pods": "5"}, "used": {"pods": "0"}}


def test_a_pod_on_a_lost_node_counts_until_it_is_overdue():
    w, controller = world({"pods": "5"})
    going = pod(deletionTimestamp=rfc3339(w.now + 30), deletionGracePeriodSeconds=30)
    w.add("pods", going)
    w.step(controller, KEY)
    assert w.objects[KEY]["status"]["used"] == {"pods": "1"}
    assert w.again == pytest.approx(60, abs=0.1)
    w.now += 61
    w.step(controller, KEY)
    assert w.objects[KEY]["status"]["used"] == {"pods": "0"}


def test_equal_amounts_in_other_words_are_not_written():
    body = {
        "metadata": {"name": "q"}, "spec": {"hard": {"cpu": "1000m"}},
        "status": {"hard": {"cpu": "1"}, "used": {"cpu": "0"}},
    }  # fmt: skip
    assert counted(body, {"pods": []}, 0.0) == []
    first = counted(body, {"pods": [pod()]}, 0.0)[0]
    assert isinstance(first, SetStatus) and first.body["status"]["used"] == {"cpu": "100m"}
    assert not any(isinstance(a, Again) for a in counted(body, {"pods": [pod()]}, 0.0))


def wakes(resource: str, body: Body, *, is_here: bool) -> bool:
    w, controller = world({"pods": "5", "configmaps": "1"})
    made = w.add(resource, body)
    key = Key(resource, "default", made["metadata"]["name"])
    obj = Obj.of(key, made, 1)
    if not is_here:
        del w.objects[key]
    trigger = next(t for t in controller.triggers if t.resource == resource)
    return KEY in list(trigger.keys(obj, w))


def test_only_what_frees_something_wakes_a_quota():
    assert wakes("configmaps", {}, is_here=False)
    assert not wakes("configmaps", {}, is_here=True)  # its creation was charged
    assert not wakes("services", {}, is_here=False)  # nothing of it is limited
    assert wakes("pods", pod(), is_here=False)
    assert wakes("pods", pod("Failed"), is_here=True)
    assert not wakes("pods", pod(), is_here=True)


def test_an_update_matters_when_a_pod_ends():
    controller = ResourceQuotaController(RESOURCES)
    trigger = next(t for t in controller.triggers if t.resource == "pods")
    key = Key("pods", "default", "p")
    running, ended = (Obj.of(key, pod(p, name="p"), 1) for p in ("Running", "Succeeded"))
    gone = Obj.of(key, pod("Running", name="p", deletionTimestamp=rfc3339(0)), 1)
    assert trigger.matters is not None
    assert trigger.matters(running, ended)
    assert trigger.matters(running, gone)
    assert trigger.matters(gone, ended)
    assert not trigger.matters(running, running)
