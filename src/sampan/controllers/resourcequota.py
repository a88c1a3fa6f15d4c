"""ResourceQuota: what is used is counted anew when a quota is made or changed and when something
that counted goes (kubernetes.io ResourceQuota).

Admission charges in the commit of each object. Counting therefore asks the API, after the quota was
observed: a list holds every object charged up to then, and a charge made meanwhile lets the write
of the status fail, to be decided anew. Caches of several resources could not promise that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sampan.api import amounts, quota
from sampan.api.obj import Body, Key, Obj, Page
from sampan.api.resizing import held_spec
from sampan.control.facts import Facts, Field
from sampan.control.plan import Action, Again, Answer, Ask, Caches, Read, SetStatus, Trigger, own

RESOURCE = "resourcequotas"
_TEST = "tests/controllers/test_resourcequota.py::"


@dataclass(frozen=True, slots=True)
class View:
    """A quota and the resources whose objects count in it."""

    body: Body
    resources: tuple[str, ...]


class ResourceQuotaController:
    """Keeps ``status.used`` true. resources: all namespaced resources that are stored."""

    name = "resourcequota-controller"
    workers = 2

    def __init__(self, resources: Iterable[str]) -> None:
        self.resources = tuple(r for r in resources if r not in quota.IGNORED)
        self.indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]] = {}
        self.triggers: tuple[Trigger, ...] = (
            own(RESOURCE),
            *(Trigger(r, self._freed, _matters(r)) for r in self.resources),
        )

    def _freed(self, obj: Obj, caches: Caches) -> Iterable[Key]:
        """The quotas in which an object counted that is gone or counts for less now."""
        quotas = caches[RESOURCE].list(obj.namespace)
        if not quotas:
            return
        resource = obj.key.resource
        is_here = caches[resource].get(obj.namespace, obj.name) is not None
        if is_here and resource not in (quota.PODS, quota.SERVICES, quota.CLAIMS):
            return
        if is_here and resource == quota.PODS and not (any(_ending(obj)) or _is_resized(obj)):
            return
        for one in quotas:
            if quota.matching(resource, one.spec.get("hard") or {}):
                yield one.key

    def observe(self, key: Key, caches: Caches) -> View | None:
        one = caches[RESOURCE].get(key.namespace, key.name)
        if one is None:
            return None
        found = {quota.resource_of(name) for name in one.spec.get("hard") or {}}
        return View(one.body, tuple(r for r in self.resources if r in found))

    def plan(self, view: View, now: float) -> Sequence[Action]:
        namespace = view.body["metadata"]["namespace"]
        asks = tuple(Ask(r, namespace) for r in view.resources)

        def then(answers: Sequence[Answer]) -> Sequence[Action]:
            found: dict[str, list[Body]] = {}
            for ask, answer in zip(asks, answers, strict=True):
                if not isinstance(answer, Page):
                    assert isinstance(answer, Exception)
                    raise answer
                found[ask.resource] = [o.body for o in answer.items]
            return counted(view.body, found, now)

        return [Read(asks, then)]


def counted(body: Body, found: dict[str, list[Body]], now: float) -> Sequence[Action]:
    """The status of a quota by the objects *found*, written where it is another one."""
    spec, status = body.get("spec") or {}, body.get("status") or {}
    hard = spec.get("hard") or {}
    used = amounts.only(amounts.read(status.get("used")), hard) | quota.total(body, found, now)
    actions: list[Action] = []
    is_known = "hard" in status and "used" in status
    if not is_known or (
        amounts.read(status["hard"]) != amounts.read(hard) or amounts.read(status["used"]) != used
    ):
        new = {**body, "status": {"hard": hard, "used": amounts.show(used)}}
        actions.append(SetStatus(RESOURCE, new))
    due = [quota.overdue_at(p) for p in found.get(quota.PODS, ()) if quota.counts(p, now)]
    later = [at for at in due if at is not None and at >= now]
    if later:  # what is not gone by then is on a node that is lost
        actions.append(Again(min(later) - now + 0.001))
    return actions


def _ending(pod: Obj) -> tuple[bool, bool]:
    """Whether it is being deleted, and whether it ended."""
    return pod.is_deleting, pod.status.get("phase") in ("Succeeded", "Failed")


def _is_resized(pod: Obj) -> bool:
    """Whether it holds anything else than what it asks for."""
    return held_spec(pod.body) is not pod.spec


def _matters(resource: str) -> Callable[[Obj, Obj], bool]:
    """Whether an update can make an object count for less (of pods: that it ends, or that a
    resize of it is over)."""
    if resource == quota.PODS:
        return lambda old, new: (
            _ending(old) != _ending(new) or (_is_resized(old) and not _is_resized(new))
        )
    if resource in (quota.SERVICES, quota.CLAIMS):
        return lambda old, new: (
            amounts.show(quota.usage(resource, old.body, 0))
            != amounts.show(quota.usage(resource, new.body, 0))
        )
    return lambda _old, _new: False


FACTS = Facts(
    kind="ResourceQuota",
    definition="io.k8s.api.core.v1.ResourceQuota",
    controller=ResourceQuotaController.name,
    status=(
        Field("hard", "the limits that are enforced", f"{_TEST}test_a_new_quota_is_counted"),
        Field("used", "what of them is used", f"{_TEST}test_a_new_quota_is_counted"),
    ),
)
