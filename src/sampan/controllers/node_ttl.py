"""How long kubelets may keep what they have read of Secrets and ConfigMaps: the larger the cluster,
the longer (annotation ``node.alpha.kubernetes.io/ttl``)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sampan.api.obj import Key, Obj
from sampan.control.facts import Facts, Mark
from sampan.control.plan import Action, Caches, Patch, Trigger, own

ANNOTATION = "node.alpha.kubernetes.io/ttl"
# Smallest and largest size, and the seconds. They overlap: a size between two changes nothing.
STEPS = ((0, 100, 0), (90, 500, 15), (450, 1000, 30), (900, 2000, 60), (1800, 10_000, 300),
         (9000, 1 << 31, 600))  # fmt: skip


@dataclass(frozen=True, slots=True)
class View:
    """A node, and how many there are."""

    node: Obj
    size: int


def seconds(size: int, current: str) -> int:
    """For a cluster of so many nodes, coming from the step of the annotation's value."""
    at = next((i for i, s in enumerate(STEPS) if str(s[2]) == current), 0)
    while size > STEPS[at][1]:
        at += 1
    while size < STEPS[at][0]:
        at -= 1
    return STEPS[at][2]


NAME = "ttl-controller"
FACTS = Facts(
    kind="TTL", controller=NAME, page="nodes",
    annotations=(
        Mark(ANNOTATION, "Node", "0 to 600 seconds, by the size of the cluster",
             "tests/controllers/test_node_lifecycle.py::test_nodes_are_annotated_once"),
    ),
)  # fmt: skip


class NodeTtlController:
    """Annotates nodes."""

    name = NAME
    workers = 1

    def __init__(self) -> None:
        self.triggers: tuple[Trigger, ...] = (own("nodes"),)
        self.indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]] = {}

    def observe(self, key: Key, caches: Caches) -> View | None:
        node = caches["nodes"].get("", key.name)
        return None if node is None else View(node, len(caches["nodes"].list()))

    def plan(self, view: View, now: float) -> Sequence[Action]:
        held = view.node.annotations.get(ANNOTATION, "")
        wanted = str(seconds(view.size, held))
        if wanted == held:
            return []
        patch = {"metadata": {"uid": view.node.uid, "annotations": {ANNOTATION: wanted}}}
        return [Patch(view.node.key, patch)]
