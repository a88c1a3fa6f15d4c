"""Namespaces that end: what is in them first, what other API servers have there too."""

from __future__ import annotations

import copy
from typing import Any

from sampan.api.errors import StatusError
from sampan.api.obj import Body, Key, Obj, Page
from sampan.control.plan import Ask, DeleteAll, Probe, Read, Update
from sampan.controllers.namespace import Elsewhere, NamespaceController, View, nowhere
from sampan.testing.plans import PlanWorld

FRUITS = "fruits.orchard.example"
KEY = Key("namespaces", "", "a")
DONE = {
    "NamespaceDeletionDiscoveryFailure": ("False", "ResourcesDiscovered"),
    "NamespaceDeletionGroupVersionParsingFailure": ("False", "ParsedGroupVersions"),
    "NamespaceDeletionContentFailure": ("False", "ContentDeleted"),
    "NamespaceContentRemaining": ("False", "ContentRemoved"),
    "NamespaceFinalizersRemaining": ("False", "ContentHasNoFinalizers"),
}


class Scene(PlanWorld):
    """A namespace that is being deleted, and another API server with fruits in it."""

    def __init__(self, *fruits: str, silent: tuple[str, ...] = (), is_known: bool = True) -> None:
        self.elsewhere = Elsewhere((FRUITS,), silent)
        self.controller = NamespaceController(["configmaps"], self._others)
        super().__init__(self.controller)
        self.fruits = [*fruits]
        self.refusal: StatusError | None = None
        self.finalized = self.asked = 0
        at = "2026-01-01T00:00:00Z"
        meta = {"name": "a", "namespace": "", "deletionTimestamp": at}
        self.add("namespaces", {"metadata": meta, "spec": {"finalizers": ["kubernetes"]}})
        if is_known:
            spec = {"group": "orchard.example", "service": {"namespace": "n", "name": "s"}}
            body = {"metadata": {"name": "v1.orchard.example", "namespace": ""}, "spec": spec}
            self.add("apiservices.apiregistration.k8s.io", body)

    async def _others(self) -> Elsewhere:
        self.asked += 1
        return self.elsewhere

    def answer(self, ask: Ask) -> Any:
        if ask.resource != FRUITS:
            return super().answer(ask)
        if self.refusal is not None:
            return self.refusal
        items = [
            Obj.of(Key(FRUITS, "a", n), {"metadata": {"name": n, "namespace": "a"}}, 0)
            for n in self.fruits
        ]
        return Page(items, 0)

    def delete(self, key: Key) -> None:
        if key.resource == FRUITS:
            self.fruits.remove(key.name)
        else:
            super().delete(key)

    def run(self, action: Any) -> None:
        if isinstance(action, DeleteAll):
            assert (action.resource, action.namespace) == ("events", "a")
        elif isinstance(action, Update):
            assert action.subresource == "finalize" and action.body["spec"]["finalizers"] == []
            self.finalized += 1
        else:
            super().run(action)

    def look(self) -> None:
        self.step(self.controller, KEY)

    def told(self) -> dict[str, tuple[str, str, str]]:
        conditions = self.objects[KEY]["status"]["conditions"]
        return {c["type"]: (c["status"], c["reason"], c["message"]) for c in conditions}


def test_what_another_server_has_goes_first() -> None:
    w = Scene("gala", "fuji")
    w.look()
    assert w.fruits == [] and w.finalized == 0 and w.again == 2.0
    assert w.told()["NamespaceContentRemaining"] == (
        "True", "SomeResourcesRemain",
        "Some resources are remaining: fruits.orchard.example has 2 resource instances",
    )  # fmt: skip
    w.look()
    assert w.finalized == 1


def test_our_own_content_goes_before_anybody_else_is_asked() -> None:
    w = Scene("gala")
    w.add("configmaps", {"metadata": {"name": "c", "namespace": "a"}})
    w.look()
    assert w.asked == 0 and w.fruits == ["gala"]
    assert "configmaps has 1 resource instances" in w.told()["NamespaceContentRemaining"][2]
    assert Key("configmaps", "a", "c") not in w.objects
    w.look()
    assert w.asked == 1 and w.fruits == []


def test_a_server_that_is_silent_holds_the_namespace() -> None:
    w = Scene("gala", silent=("orchard.example/v1", "metrics.k8s.io/v1beta1"))
    w.look()
    assert w.finalized == 0 and w.fruits == ["gala"] and w.again == 2.0
    groups = ("orchard.example/v1", "metrics.k8s.io/v1beta1")
    listed = ", ".join(f"{g}: stale GroupVersion discovery: {g}" for g in groups)
    assert w.told()["NamespaceDeletionDiscoveryFailure"] == (
        "True", "DiscoveryFailed",
        "Discovery failed for some groups, 2 failing: unable to retrieve the complete list of "
        f"server APIs: {listed}",
    )  # fmt: skip
    others = {k: v[:2] for k, v in w.told().items() if k != "NamespaceDeletionDiscoveryFailure"}
    assert others == {k: v for k, v in DONE.items() if k != "NamespaceDeletionDiscoveryFailure"}
    before = copy.deepcopy(w.objects[KEY])
    w.now += 60
    w.look()
    assert w.objects[KEY] == before
    w.elsewhere = Elsewhere((FRUITS,))
    w.fruits = []
    w.look()
    assert w.finalized == 1


def test_answers_that_are_none() -> None:
    w = Scene("gala")
    w.refusal = StatusError(503, "ServiceUnavailable", "not now")
    w.look()
    assert w.finalized == 0
    assert w.told()["NamespaceDeletionDiscoveryFailure"][1] == "DiscoveryFailed"
    w.refusal = StatusError(404, "NotFound", "nothing of the kind")
    w.look()
    assert w.finalized == 1
    w = Scene("gala")
    w.elsewhere = Elsewhere()
    w.look()
    assert w.finalized == 1 and w.fruits == ["gala"]


def test_without_other_servers_nobody_is_asked() -> None:
    w = Scene("gala", is_known=False)
    w.look()
    assert (w.asked, w.finalized) == (0, 1)
    body: Body = {"metadata": {"name": "a"}, "spec": {"finalizers": ["kubernetes"]}}
    controller = NamespaceController(["configmaps"])
    (read,) = controller.plan(View(body, {}, has_others=True), 0.0)
    assert isinstance(read, Read)
    (probe,) = read.then([Page((), 0)])
    assert isinstance(probe, Probe) and probe.ask is nowhere
    left = {"metadata": {"name": "a"}, "spec": {"finalizers": ["mine"]}}
    assert controller.plan(View(left, {}), 0.0) == []
