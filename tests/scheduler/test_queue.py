"""The scheduling queue: order, back-off, hints, gates, patience."""

from __future__ import annotations

from sampan.api.obj import Obj
from sampan.scheduler.framework import PodInfo, Wake
from sampan.scheduler.queue import SchedulingQueue, back_off
from sampan.testing.placement import node, pod

WAKES = {
    "Fit": (Wake("nodes", ("ADDED",)),),
    "Taints": (Wake("nodes", ("MODIFIED",), lambda p, old, new: p.obj.name == "b"),),
}
NODE = node("n")


def info(name: str = "a", priority: int = 0) -> PodInfo:
    return PodInfo.of(pod(name, priority=priority))


def popped(queue: SchedulingQueue, now: float = 0.0) -> str:
    held = queue.pop(now)
    return held.pod.obj.name if held is not None else ""


def failed(queue: SchedulingQueue, name: str, *plugins: str, now: float = 0.0) -> None:
    queue.add(info(name), now)
    held = queue.pop(now)
    assert held is not None and held.pod.obj.name == name
    queue.failed(held, now, frozenset(plugins))


def changed(queue: SchedulingQueue, kind: str, now: float, resource: str = "nodes") -> None:
    old: Obj | None = None if kind == "ADDED" else NODE
    queue.event(resource, kind, old, NODE, now)


def test_the_most_important_first_then_the_oldest() -> None:
    queue = SchedulingQueue(WAKES)
    for name, priority, now in (("old", 0, 1), ("new", 0, 2), ("top", 9, 3)):
        queue.add(info(name, priority), now)
    assert [popped(queue, 4) for _ in range(4)] == ["top", "old", "new", ""]


def test_a_pod_that_failed_stands_behind_those_that_came_since() -> None:
    queue = SchedulingQueue(WAKES)
    failed(queue, "a", "Fit", now=10)
    queue.add(info("b"), 5)
    changed(queue, "ADDED", 20)
    assert [popped(queue, 20), popped(queue, 20)] == ["b", "a"]


def test_only_what_a_plugin_asked_for_wakes() -> None:
    queue = SchedulingQueue(WAKES)
    failed(queue, "a", "Fit")
    failed(queue, "b", "Taints")
    changed(queue, "MODIFIED", 100)
    assert [popped(queue, 100), popped(queue, 100)] == ["b", ""]
    changed(queue, "DELETED", 100)
    changed(queue, "ADDED", 100, "services")
    assert popped(queue, 100) == ""
    changed(queue, "ADDED", 100)
    assert popped(queue, 100) == "a"


def test_back_off_doubles_up_to_ten_seconds() -> None:
    assert [back_off(n) for n in range(1, 7)] == [1, 2, 4, 8, 10, 10]
    assert back_off(5000) == 10


def test_a_woken_pod_backs_off_but_is_taken_early_when_nothing_else_waits() -> None:
    queue = SchedulingQueue(WAKES)
    failed(queue, "a", "Fit")
    changed(queue, "ADDED", 0.5)
    assert queue.place_of(info("a").obj.key) == "backing off" and queue.next_due() == 1.0
    queue.add(info("b"), 0.5)
    assert [popped(queue, 0.5), popped(queue, 0.5)] == ["b", "a"]


def test_after_an_error_the_back_off_is_waited_for() -> None:
    queue = SchedulingQueue(WAKES)
    queue.add(info("a"), 0)
    held = queue.pop(0)
    assert held is not None
    queue.again(held, 0)
    assert popped(queue, 0.9) == "" and queue.next_due() == 1.0
    assert popped(queue, 1.0) == "a"


def test_nobody_waits_longer_than_five_minutes() -> None:
    queue = SchedulingQueue(WAKES)
    failed(queue, "a", "Fit")
    queue.flush(299)
    assert popped(queue, 299) == "" and queue.next_due() == 300
    queue.flush(300)
    assert popped(queue, 300) == "a"


def test_who_comes_when_it_is_due_finds_the_pod() -> None:
    """At some moments m + 300 - m is less than 300: whoever then came at the time it was told
    would come again and again (in virtual time without end)."""
    for moment in (243.3, 543.3, 1e9 + 0.1, 0.7):
        queue = SchedulingQueue(WAKES)
        queue.add(info("a"), moment)
        held = queue.pop(moment)
        assert held is not None
        queue.failed(held, moment, frozenset(("Fit",)))
        due = queue.next_due()
        assert due is not None
        queue.flush(due)
        assert popped(queue, due) == "a"


def test_a_gated_pod_waits_until_its_gates_are_gone() -> None:
    queue = SchedulingQueue(WAKES)
    queue.add(info("a"), 0, gated=True)
    changed(queue, "ADDED", 0)
    queue.flush(1000)
    assert popped(queue, 1000) == "" and queue.next_due() is None
    queue.add(info("a"), 1000)
    assert popped(queue, 1000) == "a"


def test_a_change_of_the_pod_itself_wakes_it() -> None:
    queue = SchedulingQueue(WAKES)
    failed(queue, "a", "Fit")
    queue.add(info("a", priority=5), 60)
    held = queue.pop(60)
    assert held is not None and held.pod.priority == 5


def test_a_pod_that_is_gone_is_forgotten_wherever_it_was() -> None:
    queue = SchedulingQueue(WAKES)
    queue.add(info("a"), 0)
    queue.remove(info("a").obj.key)
    assert popped(queue) == "" and len(queue) == 0
    queue.add(info("a"), 0)
    held = queue.pop(0)
    assert held is not None
    queue.remove(held.key)
    queue.failed(held, 0, frozenset())
    queue.again(held, 0)
    assert len(queue) == 0 and queue.next_due() is None


def test_a_namesake_is_another_pod() -> None:
    queue = SchedulingQueue(WAKES)
    failed(queue, "a", "Fit")
    body = {**pod("a").body, "metadata": {**pod("a").meta, "uid": "second"}}
    queue.add(PodInfo.of(Obj.of(pod("a").key, body, 2)), 0)
    held = queue.pop(0)
    assert held is not None and held.pod.uid == "second" and held.failures == 0


def test_what_became_of_a_pod_that_was_backing_off() -> None:
    """Its old places in the heaps wake nobody."""
    queue = SchedulingQueue(WAKES)
    failed(queue, "a", "Fit")
    changed(queue, "ADDED", 0.5)
    queue.remove(info("a").obj.key)
    assert popped(queue, 0.6) == "" and popped(queue, 2.0) == "" and queue.next_due() is None
    failed(queue, "b", "Fit", now=3.0)
    changed(queue, "ADDED", 3.5)
    queue.add(info("b"), 3.6, gated=True)
    assert popped(queue, 10.0) == "" and queue.place_of(info("b").obj.key) == "gated"


def test_a_pod_that_changes_in_hand_is_not_taken_twice() -> None:
    queue = SchedulingQueue(WAKES)
    queue.add(info("a"), 0)
    held = queue.pop(0)
    assert held is not None
    queue.add(info("a", priority=7), 1)
    assert popped(queue, 1) == "" and held.pod.priority == 7
    queue.failed(held, 1, frozenset({"Fit"}))
    assert queue.place_of(held.key) == "unschedulable"
    queue.add(info("a", priority=8), 1.5)
    assert queue.place_of(held.key) == "backing off"


def test_the_newest_state_of_a_pod_is_what_is_popped() -> None:
    queue = SchedulingQueue(WAKES)
    failed(queue, "a", "Fit")
    newer = PodInfo.of(pod("a", labels={"x": "y"}))
    queue.update(newer)
    assert queue.place_of(newer.obj.key) == "unschedulable" and newer.obj.key in queue
    queue.wake([newer.obj.key], 60)
    held = queue.pop(60)
    assert held is not None and held.pod is newer
    queue.update(PodInfo.of(pod("stranger")))
    assert len(queue) == 1


def test_who_woke_first_waits_for_the_first_of_several_times() -> None:
    queue = SchedulingQueue(WAKES)
    failed(queue, "a", "Fit", now=0)
    failed(queue, "b", "Fit", now=10)
    assert queue.next_due() == 300
    queue.wake([info("b").obj.key], 10.5)
    assert queue.next_due() == 11
    queue.flush(400)
    assert [popped(queue, 400), popped(queue, 400)] == ["a", "b"]


def test_errors_and_rejections_count_together() -> None:
    queue = SchedulingQueue(WAKES)
    queue.add(info("a"), 0)
    now = 0.0
    for due in (1.0, 3.0, 7.0, 15.0, 25.0, 35.0):
        held = queue.pop(now)
        assert held is not None
        queue.again(held, now)
        assert queue.next_due() == due
        now = due


def test_nobody_said_no_so_anything_may_help() -> None:
    queue = SchedulingQueue(WAKES)
    failed(queue, "a")
    changed(queue, "DELETED", 5, "anything")
    assert popped(queue, 5) == "a"
